//! `oncegate check`: every fault and warning of a configuration at once.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use super::{counted, enough};
use crate::config::{Effective, Loaded, World};

/// What `check` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 without faults (warnings may be told), 1 with faults, 2 on wrong usage.")]
pub struct Args {
    /// Print every value in force, and where it came from: a line of the file, the preset or the default
    #[arg(long)]
    pub effective: bool,
}

/// Reads the configuration and says what is to be said about it.
///
/// # Errors
///
/// When it cannot be said.
pub fn run(args: &Args, config: &Path) -> anyhow::Result<ExitCode> {
    let loaded = Loaded::from_file(config, &World::real());
    enough(tell(&loaded, args.effective, &mut io::stdout().lock()))?;
    Ok(if loaded.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
    fn values_are_told_with_their_origin() {
        let told = told("[log]\nlevel = 'debug'\n", true);
        let line = |start: &str| told.lines().find(|l| l.starts_with(start)).map(str::to_owned).expect(start);
        assert!(line("log.level ").ends_with("c.toml:2"));
        assert!(line("log.format ").ends_with("default"));
        assert!(told.ends_with("\n0 faults, 0 warnings\n"));
    }
}
