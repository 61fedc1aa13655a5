//! `oncegate run`: stands in front of the app.

use std::{path::Path, process::ExitCode};

use anyhow::bail;

/// What `run` is told.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the gate until it is told to stop.
///
/// # Errors
///
/// When the configuration has faults, or the gate cannot start.
pub fn run(_args: &Args, config: &Path) -> anyhow::Result<ExitCode> {
    super::load(config)?;
    bail!("`run` is not built yet")
}
