//! `oncegate export`: history as JSON lines, the evidence in a dispute.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
    time::Duration,
};

use anyhow::bail;

use super::desk::{Desk, Where, encoded};
use crate::time::Timestamp;

/// What `export` is told.
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("which").required(true).multiple(true),
    after_help = "\
Examples:
  oncegate export --day 2026-11-22 > 2026-11-22.jsonl
  oncegate export --reference tr_7UhSN1zuXS | jq -r '[.at, .what, .decision // .outcome // .act] | @tsv'

One JSON object a line, oldest first: what came from where and what was decided, each try and how it ended, each act with
who and why. Times and days are UTC. No requests, no credentials; card numbers are masked.
Exit codes: 0 if all was written, 1 if not, 2 on wrong usage."
)]
pub struct Args {
    /// All of this day
    #[arg(long, value_name = "YYYY-MM-DD", group = "which", conflicts_with_all = ["from", "to", "reference"])]
    pub day: Option<String>,
    /// All from this moment on: RFC 3339, or seconds since 1970
    #[arg(long, value_name = "TIME", group = "which", conflicts_with = "reference")]
    pub from: Option<Timestamp>,
    /// All before this moment
    #[arg(long, value_name = "TIME", group = "which", conflicts_with = "reference")]
    pub to: Option<Timestamp>,
    /// All about this payment, by the provider's id of it
    #[arg(long, value_name = "REFERENCE", group = "which")]
    pub reference: Option<String>,
    /// Which gate is asked
    #[command(flatten)]
    pub place: Where,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Writes it to standard output.
///
/// # Errors
///
/// When the gate can't be asked, refuses, or can't tell all of it.
pub fn run(args: &Args, config: &Path) -> anyhow::Result<ExitCode> {
    let query = query(args)?;
    let desk = Desk::find(&args.place, config)?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let written = desk.write_lines(&query, &mut out)?;
    super::enough(out.flush())?;
    if written == 0 {
        eprintln!("oncegate: history knows nothing of that");
    }
    Ok(ExitCode::SUCCESS)
}

fn query(args: &Args) -> anyhow::Result<String> {
    if let Some(reference) = &args.reference {
        return Ok(format!("reference={}", encoded(reference)));
    }
    let (from, to) = match &args.day {
        Some(day) => {
            let from = midnight(day)?;
            (Some(from), Some(from.after(DAY)))
        }
        None => (args.from, args.to),
    };
    let part = |name: &str, time: Option<Timestamp>| time.map(|time| format!("{name}={}", encoded(&time.to_string())));
    Ok([part("from", from), part("to", to)].into_iter().flatten().collect::<Vec<_>>().join("&"))
}

fn midnight(day: &str) -> anyhow::Result<Timestamp> {
    match format!("{day}T00:00:00Z").parse() {
        Ok(midnight) if day.len() == 10 => Ok(midnight),
        _ => bail!("`{day}` is no day: write 2026-11-22"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_and_ends_at_midnight() {
        let args =
            Args { day: Some("2026-11-22".into()), from: None, to: None, reference: None, place: Where::default() };
        let said = query(&args).unwrap().replace("%3A", ":").replace("%2D", "-").replace("%2E", ".");
        assert_eq!(said, "from=2026-11-22T00:00:00.000Z&to=2026-11-23T00:00:00.000Z");
        for wrong in ["", "today", "2026-11-2", "2026-13-01", "2026-11-22T01:00:00Z"] {
            assert!(midnight(wrong).is_err(), "{wrong}");
        }
    }
}
