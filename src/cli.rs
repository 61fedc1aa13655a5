//! The command line: what can be typed, and which verb gets it.

#![deny(clippy::print_stdout, reason = "it panics where the reader has gone away; `print` does not")]

pub mod backup;
pub mod check;
pub mod completions;
pub mod demo;
pub mod desk;
pub mod explain;
pub mod export;
pub mod health;
pub mod man;
pub mod providers;
pub mod recorded;
pub mod review;
pub mod run;
pub mod show;
mod table;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::bail;
use clap::{Parser, Subcommand, ValueHint};

use crate::{
    config::{Config, Loaded, World},
    watch::Content,
};

const EXAMPLES: &str = "\
Begin here:
  oncegate demo                          see one payment booked twice, and once
  oncegate check                         read config.toml and say everything that is wrong with it
  oncegate run                           stand in front of the app

Then:
  oncegate check --effective             every value in force, and where it came from
  oncegate explain webhook.http          what the gate would decide about a request, and why
  oncegate --config /etc/oncegate.toml run
  oncegate providers                     the providers that are known, and what each can do
  oncegate health                        whether the gate that runs is ready, as an exit code
  oncegate review list                   what waits for a person
  oncegate show tr_7UhSN1zuXS            a payment's line of life

Exit codes: 0 for well, 1 for not well (told on standard error), 2 on wrong usage.

A config without rules and without a preset is valid: everything is passed through.";

/// Lets every payment callback through to an invoicing app once.
///
/// Oncegate is a reverse proxy. Payment providers deliver a callback at least once, and the payer's browser comes back in
/// the same second. The gate recognises what reports on the same payment, lets one request at a time into the app,
/// answers repetitions with the first one's answer, and streams everything else through untouched.
#[derive(Debug, Parser)]
#[command(name = "oncegate", version, max_term_width = 100, after_help = EXAMPLES, arg_required_else_help = true, subcommand_value_name = "COMMAND")]
pub struct Cli {
    /// The configuration
    #[arg(long, global = true, value_name = "FILE", default_value = "config.toml", value_hint = ValueHint::FilePath)]
    pub config: PathBuf,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What the gate can be asked to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Stand in front of the app
    Run(run::Args),
    /// Say everything that is wrong with the configuration, all at once
    Check(check::Args),
    /// Say what the gate would decide about recorded requests, and why
    Explain(explain::Args),
    /// List the payment providers that are known, and what each can do
    Providers(providers::Args),
    /// Look at what waits for a person, and act on it
    Review(review::Args),
    /// Show a payment's line of life: what came, what was decided, tried and answered, and who acted
    Show(show::Args),
    /// Write history as JSON lines: the evidence in a dispute
    Export(export::Args),
    /// Make a copy of all that the gate knows, while it runs
    Backup(backup::Args),
    /// Show the founding race in one terminal, without the gate and with it
    Demo(demo::Args),
    /// Ask the gate that runs whether it is ready; for container health checks and scripts
    Health(health::Args),
    /// Print what a shell needs to complete commands and options
    Completions(completions::Args),
    /// Print the manual page
    Man(man::Args),
}

/// Does what was typed; the exit code is 0 for well, 1 for not well, and 2 for what cannot be understood.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.verb {
        Verb::Run(args) => run::run(args, &cli.config),
        Verb::Check(args) => check::run(args, &cli.config),
        Verb::Explain(args) => explain::run(args, &cli.config),
        Verb::Providers(args) => providers::run(args, &cli.config),
        Verb::Review(args) => review::run(args, &cli.config),
        Verb::Show(args) => show::run(args, &cli.config),
        Verb::Export(args) => export::run(args, &cli.config),
        Verb::Backup(args) => backup::run(args, &cli.config),
        Verb::Demo(args) => demo::run(args, &cli.config),
        Verb::Health(args) => health::run(args, &cli.config),
        Verb::Completions(args) => completions::run(args, &cli.config),
        Verb::Man(args) => man::run(args, &cli.config),
    };
    done.unwrap_or_else(|error| {
        eprintln!("oncegate: {error:#}");
        ExitCode::FAILURE
    })
}

/// Loads the configuration for a verb that works with it: warnings are told, faults end it.
///
/// # Errors
///
/// Every fault of the configuration.
pub fn load(path: &Path) -> anyhow::Result<Config> {
    load_with_files(path).map(|(config, _)| config)
}

/// The same, with every file that was read and what it was.
///
/// # Errors
///
/// As [`load`].
pub fn load_with_files(path: &Path) -> anyhow::Result<(Config, Vec<(PathBuf, Content)>)> {
    let mut loaded = Loaded::from_file(path, &World::real());
    let files = std::mem::take(&mut loaded.files);
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    match loaded.into_config() {
        Ok(config) => Ok((config, files)),
        Err(faults) => {
            let lines: Vec<_> = faults.iter().map(|fault| format!("\n  {fault}")).collect();
            bail!("the configuration has {}:{}", counted(faults.len(), "fault"), lines.concat())
        }
    }
}

/// Writes to standard output; whoever has read enough is not told the rest.
fn print(text: &[u8]) -> io::Result<()> {
    enough(io::stdout().lock().write_all(text))
}

/// A reader that went away has read enough: that is no error.
fn enough(written: io::Result<()>) -> io::Result<()> {
    written.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}

/// `1 fault`, `2 faults`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_its_help_has_examples() {
        Cli::command().debug_assert();
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("oncegate check --effective") && help.contains("config.toml"));
    }

    #[test]
    fn the_configuration_is_config_toml_unless_another_is_named() {
        let config = |args: &[&str]| Cli::try_parse_from(args).unwrap().config;
        assert_eq!(config(&["oncegate", "run"]), Path::new("config.toml"));
        assert_eq!(config(&["oncegate", "run", "--config", "x"]), Path::new("x"));
        assert_eq!(config(&["oncegate", "--config", "x", "check"]), Path::new("x"));
    }

    #[test]
    fn wrong_usage_is_told_apart_from_a_wrong_configuration() {
        for wrong in [&["oncegate"][..], &["oncegate", "walk"], &["oncegate", "check", "--efective"]] {
            assert_eq!(Cli::try_parse_from(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
    }
}
