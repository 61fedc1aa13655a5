//! `oncegate show`: a payment's line of life.

use std::{path::Path, process::ExitCode};

use anyhow::bail;
use serde_json::Value;

use super::{
    desk::{Desk, Format, Where, encoded, tell},
    table::{self, text},
};
use crate::telemetry::escaped;

/// What `show` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  oncegate show tr_7UhSN1zuXS

It asks the gate that runs, at `admin.listen`, with `admin.token` of the configuration. A reference that several accounts or
providers use is shown once for each. History goes back as far as `store.history` lines and `history_retention`.
Exit codes: 0 if it is known, 1 if not or nobody could be asked, 2 on wrong usage.")]
pub struct Args {
    /// The provider's id of the payment
    #[arg(value_name = "REFERENCE")]
    pub reference: String,
    /// How to say it
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Which gate is asked
    #[command(flatten)]
    pub place: Where,
}

/// Shows it.
///
/// # Errors
///
/// When the gate can't be asked, refuses, or knows no such payment.
pub fn run(args: &Args, config: &Path) -> anyhow::Result<ExitCode> {
    let desk = Desk::find(&args.place, config)?;
    let said = desk.get(&format!("/transactions?reference={}", encoded(&args.reference)))?;
    let transactions = said["transactions"].as_array().map(Vec::as_slice).unwrap_or_default();
    if transactions.is_empty() {
        bail!("history knows no payment called {}", escaped(&args.reference));
    }
    for transaction in transactions {
        tell(&match args.format {
            Format::Json => format!("{transaction}\n"),
            Format::Human => for_people(transaction),
        })?;
    }
    Ok(ExitCode::SUCCESS)
}

fn for_people(transaction: &Value) -> String {
    let list = |key: &str| transaction[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut told = format!("transaction {}\n", text(&transaction["transaction"]));
    if let Some(stage) = transaction["money"].as_str() {
        told += &format!("  the app was told of its money: {}\n", escaped(stage));
    }
    for known in list("known") {
        told += &match known["fate"].as_str() {
            Some("settled") => format!(
                "  {} settled with status {}, remembered until {}\n",
                text(&known["identity"]),
                text(&known["status"]),
                text(&known["remembered_until"])
            ),
            _ => format!("  {} on its way in delivery {}\n", text(&known["identity"]), text(&known["delivery"])),
        };
    }
    for delivery in list("deliveries") {
        let why = delivery["told"].as_str().map_or_else(String::new, |why| format!(": {why}"));
        told += &format!("  delivery {} is {}{why}\n", text(&delivery["id"]), text(&delivery["phase"]));
    }
    told + "\n" + &table::history(list("history")) + "\n"
}
