//! `oncegate check`: every fault and warning of a configuration at once.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context, bail};
use clap::ValueHint;

use super::{counted, enough};
use crate::{
    config::{Config, Effective, Loaded, World, change::Change},
    lookup::{Lookup, Remark},
    telemetry::Metrics,
    time::{Clock, SteadyClock, SystemClock},
};

/// What `check` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 without faults (warnings may be told), 1 with faults, 2 on wrong usage.")]
pub struct Args {
    /// Print every value in force, and where it came from: a line of the file, the preset or the default
    #[arg(long)]
    pub effective: bool,
    /// Say what this configuration would change in a gate that runs by FILE, and how: at once, at the next start, not at
    /// all; and which rules would give callbacks other keys
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub against: Option<PathBuf>,
    /// Also ask the app's database (`lookup.url`): whether it lets us in, whether each query works, and whether the user may do
    /// more than that needs. Nothing is changed there
    #[arg(long)]
    pub connect: bool,
}

/// Reads the configuration and says what is to be said about it.
///
/// # Errors
///
/// When it cannot be said.
pub fn run(args: &Args, config: &Path) -> anyhow::Result<ExitCode> {
    let loaded = Loaded::from_file(config, &World::real());
    enough(tell(&loaded, args.effective, &mut io::stdout().lock()))?;
    let Ok(after) = loaded.into_config() else { return Ok(ExitCode::FAILURE) };
    if let Some(against) = &args.against {
        let before = Loaded::from_file(against, &World::real());
        let Ok(before) = before.into_config() else {
            bail!("{} has faults, so that no gate runs by it: check it first", against.display())
        };
        enough(tell_change(&Change::between(&before, &after), &mut io::stdout().lock()))?;
    }
    if args.connect {
        return connect(after, &mut io::stdout().lock());
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks the database, and tells what there is to be said about it.
fn connect(config: Config, out: &mut impl Write) -> anyhow::Result<ExitCode> {
    let Some(options) = config.lookup else {
        enough(writeln!(out, "no database is named (lookup.url), so that none is asked"))?;
        return Ok(ExitCode::SUCCESS);
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let clock = SteadyClock::starting_at(SystemClock.now());
    let remarks = runtime.block_on(async {
        let lookup = Lookup::new(options, clock, Arc::new(Metrics::new())).context("lookup.ca")?;
        anyhow::Ok(lookup.examine().await)
    })?;
    for Remark { key, message, remedy, is_fault } in &remarks {
        let sort = if *is_fault { "fault" } else { "warning" };
        enough(writeln!(out, "{sort}: {key}: {message}; {remedy}"))?;
    }
    let faults = remarks.iter().filter(|remark| remark.is_fault).count();
    let told = (counted(faults, "fault"), counted(remarks.len() - faults, "warning"));
    enough(writeln!(out, "asked the database: {}, {}", told.0, told.1))?;
    Ok(if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell_change(change: &Change, out: &mut impl Write) -> io::Result<()> {
    if change.is_nothing() {
        return writeln!(out, "nothing would change");
    }
    let list = |parts: &mut dyn Iterator<Item = String>| parts.collect::<Vec<_>>().join(", ");
    let fates = [
        ("refused as a whole, for no running gate can change them", list(&mut change.fixed.iter().cloned())),
        ("at once", list(&mut change.live.iter().cloned())),
        ("opened", list(&mut change.opened.iter().map(ToString::to_string))),
        ("closed", list(&mut change.closed.iter().map(ToString::to_string))),
        ("at the next start", list(&mut change.restart.iter().cloned())),
    ];
    for (fate, keys) in fates.iter().filter(|(_, keys)| !keys.is_empty()) {
        writeln!(out, "{fate}: {keys}")?;
    }
    if change.renamed {
        writeln!(out, "other keys for all callbacks: upstream.url")?;
    }
    for rule in &change.rekeyed {
        writeln!(out, "other keys for callbacks: {rule}")?;
    }
    Ok(())
}

fn tell(loaded: &Loaded, effective: bool, out: &mut impl Write) -> io::Result<()> {
    if effective {
        values(&loaded.effective, out)?;
    }
    for fault in &loaded.faults {
        writeln!(out, "fault: {fault}")?;
    }
    for warning in &loaded.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    let (faults, warnings) = (counted(loaded.faults.len(), "fault"), counted(loaded.warnings.len(), "warning"));
    writeln!(out, "{faults}, {warnings}")
}

/// Three columns; a long value does not push the others out of sight.
fn values(effective: &[Effective], out: &mut impl Write) -> io::Result<()> {
    let width = |of: fn(&Effective) -> usize| effective.iter().map(of).max().unwrap_or(0).min(40);
    let (path, value) = (width(|e| e.path.len()), width(|e| e.value.len()));
    for e in effective {
        writeln!(out, "{:path$}  {:value$}  {}", e.path, e.value, e.origin)?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str, effective: bool) -> String {
        let mut out = Vec::new();
        tell(&Loaded::from_text("c.toml", text, &World::real()), effective, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn faults_and_warnings_are_told_each_on_a_line() {
        let told = told("[admin]\nlisten = '0.0.0.0:1'\n[log]\nlevel = 'loud'\nfromat = 'json'\n", false);
        let lines: Vec<_> = told.lines().collect();
        assert_eq!(lines.len(), 4, "{told}");
        assert!(lines[0].starts_with("fault: c.toml:4: log.level: "));
        assert!(lines[1].starts_with("fault: c.toml:5: log.fromat: "));
        assert!(lines[2].starts_with("warning: c.toml:2: admin.listen: "));
        assert_eq!(lines[3], "2 faults, 1 warning");
    }

    #[test]
    fn what_would_change_is_told_by_how_it_changes() {
        let config = |text: &str| Loaded::from_text("c.toml", text, &World::real()).into_config().unwrap();
        let told = |before: &str, after: &str| {
            let mut out = Vec::new();
            tell_change(&Change::between(&config(before), &config(after)), &mut out).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(told("", ""), "nothing would change\n");
        let rule = "[[rule]]\nname = 'shop'\npath = '/hook'\nreference = 'form:id'\n";
        let after = format!("gateway.listen = ['[::]:1']\ngateway.threads = 7\n{rule}");
        assert_eq!(
            told("", &after),
            "at once: gateway.listen, rule\nopened: [::]:1\nclosed: [::]:8080\nat the next start: gateway.threads\n\
             other keys for callbacks: shop (new)\n"
        );
    }

    #[test]
    fn values_are_told_with_their_origin() {
        let told = told("[log]\nlevel = 'debug'\n", true);
        let line = |start: &str| told.lines().find(|l| l.starts_with(start)).map(str::to_owned).expect(start);
        assert!(line("log.level ").ends_with("c.toml:2"));
        assert!(line("log.format ").ends_with("default"));
        assert!(told.ends_with("\n0 faults, 0 warnings\n"));
    }
}
