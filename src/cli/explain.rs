//! `oncegate explain`: what the gate would decide about recorded requests, and why.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::bail;

use crate::time::Timestamp;

/// What `explain` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  oncegate explain paid.http redelivery.http          the second as it comes after the first
  oncegate explain --at 2026-03-02T10:00:00Z paid.http   signatures are checked for this moment
  oncegate explain --format json *.http | jq .decision
  oncegate explain < recorded.http")]
pub struct Args {
    /// Raw HTTP requests, in the order in which they came; standard input where none is named, or for `-`
    #[arg(value_name = "FILE.http")]
    pub files: Vec<PathBuf>,
    /// The moment at which they came: RFC 3339, or seconds since 1970
    #[arg(long, value_name = "TIME")]
    pub at: Option<Timestamp>,
    /// Take them for this provider's, instead of recognising whose they are
    #[arg(long, value_name = "NAME")]
    pub provider: Option<String>,
    /// How to say it
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// How decisions are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    Human,
    /// One JSON object a line, one line an event
    Json,
}

/// Explains the requests.
///
/// # Errors
///
/// When the configuration has faults, or a file cannot be read.
pub fn run(_args: &Args, config: &Path) -> anyhow::Result<ExitCode> {
    super::load(config)?;
    bail!("`explain` is not built yet")
}
