//! `oncegate man`: the manual page, from the declarations that make `--help`.

use std::{io, path::Path, process::ExitCode};

use clap::{Command, CommandFactory};
use clap_mangen::{
    Man,
    roff::{Roff, roman},
};

use super::{Cli, print};

/// What `man` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
To read it, and to put it where man finds it:
  oncegate man | man -l -
  oncegate man > /usr/share/man/man1/oncegate.1")]
pub struct Args {}

/// Prints the manual page.
///
/// # Errors
///
/// When it cannot be printed.
pub fn run(_args: &Args, _config: &Path) -> anyhow::Result<ExitCode> {
    print(&page()?)?;
    Ok(ExitCode::SUCCESS)
}

/// One page for the whole program: whoever looks up one verb mostly needs another next.
fn page() -> io::Result<Vec<u8>> {
    // `help` says what this page says.
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    let mut page = Vec::new();
    // Without a date, so that one version has one page; roff would take an argument that isn't there for the next one.
    let man = Man::new(program.clone()).title("ONCEGATE").date("\"\"").manual("Oncegate");
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    heading("SH", "COMMANDS").to_writer(&mut page)?;
    for verb in program.get_subcommands() {
        command(verb, &ids(&program), &mut page)?;
    }
    heading("SH", "EXAMPLES").to_writer(&mut page)?;
    told(&program, &mut page)?;
    Ok(page)
}

/// A verb: how it is called, what it does, its own options, and what its help says beside that; then the verbs below it.
/// What stands above already is left out.
fn command(verb: &Command, above: &[clap::Id], page: &mut Vec<u8>) -> io::Result<()> {
    let usage = verb.clone().render_usage().to_string();
    let mut text = heading("SS", usage.trim_start_matches("Usage: "));
    text.text([roman(verb.get_about().map(ToString::to_string).unwrap_or_default())]);
    text.to_writer(page)?;
    let is_above = |arg: &clap::Arg| arg.is_global_set() && above.contains(arg.get_id());
    let own = |arg: &clap::Arg| !is_above(arg) && !matches!(arg.get_id().as_str(), "help" | "version");
    if verb.get_arguments().any(own) {
        let hidden = verb.clone().mut_args(|arg| if own(&arg) { arg } else { arg.hide(true) });
        let mut options = Vec::new();
        Man::new(hidden).render_options_section(&mut options)?;
        let heading = options.windows(12).position(|part| part == b".SH OPTIONS\n").map_or(0, |at| at + 12);
        page.extend_from_slice(&options[heading..]);
    }
    page.extend_from_slice(b".PP\n");
    told(verb, page)?;
    let above = [above, &ids(verb)].concat();
    verb.get_subcommands().filter(|below| below.get_name() != "help").try_for_each(|below| command(below, &above, page))
}

fn ids(command: &Command) -> Vec<clap::Id> {
    command.get_arguments().map(|arg| arg.get_id().clone()).collect()
}

/// The end of the help: examples and the like, line by line as it stands there.
fn told(command: &Command, page: &mut Vec<u8>) -> io::Result<()> {
    let Some(told) = command.get_after_help() else { return Ok(()) };
    let mut text = Roff::new();
    text.control("nf", []);
    for line in told.to_string().lines() {
        text.text([roman(line)]);
    }
    text.control("fi", []);
    text.to_writer(page)
}

fn heading(level: &str, text: &str) -> Roff {
    let mut roff = Roff::new();
    roff.control(level, [text]);
    roff
}
