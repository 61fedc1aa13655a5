//! `oncegate demo`: the founding race in one terminal, without the gate and with it.

use std::{path::Path, process::ExitCode};

use anyhow::bail;

/// What `demo` is told.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Shows the race.
///
/// # Errors
///
/// When it cannot be shown.
pub fn run(_args: &Args, _config: &Path) -> anyhow::Result<ExitCode> {
    bail!("`demo` is not built yet")
}
