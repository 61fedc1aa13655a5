//! `oncegate completions`: what a shell needs to complete what is being typed, from the declarations that make `--help`.

use std::{path::Path, process::ExitCode};

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, print};

/// What `completions` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Where they go, for everyone on the machine:
  oncegate completions bash > /usr/share/bash-completion/completions/oncegate
  oncegate completions zsh  > /usr/share/zsh/site-functions/_oncegate
  oncegate completions fish > /usr/share/fish/vendor_completions.d/oncegate.fish

For yourself, in bash: put this into ~/.bashrc
  source <(oncegate completions bash)")]
pub struct Args {
    /// The shell that asks
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Prints the completions.
///
/// # Errors
///
/// When they cannot be printed.
pub fn run(args: &Args, _config: &Path) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "oncegate", &mut script);
    print(&script)?;
    Ok(ExitCode::SUCCESS)
}
