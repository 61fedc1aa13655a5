//! `oncegate review`: what waits for a person, and what he does about it.

use std::{path::Path, process::ExitCode};

use anyhow::bail;
use serde_json::{Value, json};

use super::{
    desk::{Desk, Format, Where, encoded, tell},
    table,
};
use crate::transaction::history::Deed;

/// What `review` is told.
#[derive(Debug, clap::Args)]
#[command(
    arg_required_else_help = true,
    after_help = "\
Examples:
  oncegate review list
  oncegate review show 1882602307184492544
  oncegate review settle 1882602307184492544 --reason 'the app shows it as paid'
  oncegate review list --format json | jq -r 'select(.provider == \"mollie\").id' \\
    | xargs oncegate review resend --reason 'the app is back'

It asks the gate that runs, at `admin.listen`, with `admin.token` of the configuration.
Exit codes: 0 if all was done, 1 if something could not be, 2 on wrong usage."
)]
pub struct Args {
    /// What is to be done
    #[command(subcommand)]
    pub what: What,
    /// Which gate is asked
    #[command(flatten)]
    pub place: Where,
}

/// What can be done.
#[derive(Debug, clap::Subcommand)]
pub enum What {
    /// List what waits for a person, what has waited longest first
    List {
        /// How to say it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Show an entry: why it waits, its history and its request
    Show {
        /// The entry
        id: u64,
        /// How to say it
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Send the request to the app again, and go on trying
    Resend(ActArgs),
    /// Remember it as accepted: the app has it, and redeliveries are acknowledged
    Settle(ActArgs),
    /// Forget it: should it come again, it gets a real try
    Discard(ActArgs),
}

/// What an act is told.
#[derive(Debug, clap::Args)]
pub struct ActArgs {
    /// The entries
    #[arg(required = true, value_name = "ID")]
    pub ids: Vec<u64>,
    /// Why; it stands in history, for whoever asks later
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Who acts, if not the user of this machine
    #[arg(long, value_name = "NAME")]
    pub who: Option<String>,
    /// How to say it
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Does it.
///
/// # Errors
///
/// When the gate can't be asked, or refuses.
pub fn run(args: &Args, config: &Path) -> anyhow::Result<ExitCode> {
    let desk = Desk::find(&args.place, config)?;
    match &args.what {
        What::List { format } => list(&desk, *format)?,
        What::Show { id, format } => show(&desk, *id, *format)?,
        What::Resend(act) => return all(&desk, Deed::Resend, act),
        What::Settle(act) => return all(&desk, Deed::Settle, act),
        What::Discard(act) => return all(&desk, Deed::Discard, act),
    }
    Ok(ExitCode::SUCCESS)
}

fn list(desk: &Desk, format: Format) -> anyhow::Result<()> {
    let mut entries = Vec::new();
    let mut path = "/review?limit=1000".to_owned();
    loop {
        let mut page = desk.get(&path)?;
        entries.extend(page["entries"].as_array_mut().map(std::mem::take).unwrap_or_default());
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/review?limit=1000&after={}", encoded(next));
    }
    let told = match format {
        Format::Json => entries.iter().map(|entry| format!("{entry}\n")).collect(),
        Format::Human if entries.is_empty() => "Nothing waits for a person.\n".to_owned(),
        Format::Human => table::entries(&entries),
    };
    Ok(tell(&told)?)
}

fn show(desk: &Desk, id: u64, format: Format) -> anyhow::Result<()> {
    let entry = desk.get(&format!("/review/{id}"))?;
    if format == Format::Json {
        return Ok(tell(&format!("{entry}\n"))?);
    }
    let why = if entry["told"].is_null() { &entry["phase"] } else { &entry["told"] };
    let told = format!(
        "{}: {}\n\n{}\n{}\n{}",
        table::text(&entry["id"]),
        table::text(why),
        table::entries(std::slice::from_ref(&entry)),
        table::history(entry["history"].as_array().map(Vec::as_slice).unwrap_or_default()),
        table::request(&entry["request"]),
    );
    Ok(tell(&told)?)
}

/// Acts on one after the other; what can't be done does not keep the others from it.
fn all(desk: &Desk, deed: Deed, args: &ActArgs) -> anyhow::Result<ExitCode> {
    if args.reason.trim().is_empty() {
        bail!("an act needs a reason: --reason 'the app shows it as paid'");
    }
    let user = || std::env::var("USER").ok().filter(|user| !user.is_empty());
    let Some(who) = args.who.clone().or_else(user) else { bail!("nobody can tell who acts: --who 'Ada'") };
    let mut well = true;
    for id in &args.ids {
        match act(desk, deed, *id, &args.reason, &who) {
            Ok(done) if args.format == Format::Json => tell(&format!("{done}\n"))?,
            Ok(_) => tell(&format!("{id}: {}\n", told(deed)))?,
            Err(error) => {
                eprintln!("oncegate: {id}: {error:#}");
                well = false;
            }
        }
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Acts on what is there now, and on nothing that it becomes meanwhile.
fn act(desk: &Desk, deed: Deed, id: u64, reason: &str, who: &str) -> anyhow::Result<Value> {
    let version = desk.get(&format!("/review/{id}"))?["version"].take();
    let said = json!({ "reason": reason, "who": who, "version": version });
    desk.post(&format!("/review/{id}/{}", deed.as_str()), &said)
}

const fn told(deed: Deed) -> &'static str {
    match deed {
        Deed::Resend => "will be sent again",
        Deed::Settle => "settled: a redelivery is acknowledged",
        Deed::Discard => "discarded: a redelivery gets a real try",
    }
}
