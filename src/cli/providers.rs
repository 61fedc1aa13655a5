//! `oncegate providers`: the payment providers that are known, and what each can do.

use std::{path::Path, process::ExitCode};

use serde_json::{Value, json};

use super::{desk::Format, print, table};
use crate::provider::{
    PROVIDERS,
    contract::{Provider, Scheme, Signing},
    inquiry::Missing,
    span,
};

/// What `providers` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  oncegate providers
  oncegate providers --format json | jq -r 'select(.inquiry).name'

SIGNED says what its callbacks are signed with, by the kinds of `secrets`. EVENT ID: events of its carry an id. BATCH: one
callback may carry several events. ASKED: the gate can ask it what has become of a payment, \"yes\" about callbacks that do not
say it, \"wanted\" only where `inquire` says so. MADE: what it should have called for and did not, the gate can
(`missing_after`); where not, `not_made` of the JSON says why. WAITS is how long it waits for an answer, RETRIES for how long it tries again, ANSWER what it takes for an acknowledgement.")]
pub struct Args {
    /// How to say it
    #[arg(long, value_enum, default_value_t = Format::Human)]
    pub format: Format,
}

/// Lists the providers.
///
/// # Errors
///
/// When they cannot be printed.
pub fn run(args: &Args, _config: &Path) -> anyhow::Result<ExitCode> {
    let told = match args.format {
        Format::Json => PROVIDERS.iter().map(|provider| format!("{}\n", object(provider))).collect(),
        Format::Human => for_people(),
    };
    print(told.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn for_people() -> String {
    let yes = |is: bool| if is { "yes" } else { "-" }.to_owned();
    let row = |provider: &&Provider| {
        let kinds = kinds(provider);
        vec![
            provider.name.to_owned(),
            provider.title.to_owned(),
            if kinds.is_empty() { "no".to_owned() } else { kinds.join(", ") },
            yes(provider.event_ids),
            yes(provider.batches),
            match provider.inquiry {
                None => "-",
                Some(inquiry) if inquiry.unclear => "yes",
                Some(_) => "wanted",
            }
            .to_owned(),
            yes(not_made(provider).is_none()),
            span(provider.answer_limit),
            span(provider.retry_span),
            format!("{} {}", provider.ack.status.as_u16(), provider.ack.body).trim_end().to_owned(),
        ]
    };
    let rows: Vec<_> = PROVIDERS.iter().map(row).collect();
    table::columns(
        &["NAME", "PROVIDER", "SIGNED", "EVENT ID", "BATCH", "ASKED", "MADE", "WAITS", "RETRIES", "ANSWER"],
        &rows,
    )
}

fn object(provider: &Provider) -> Value {
    let settings = signing(provider).map_or(&[][..], |signing| signing.settings);
    let ack = &provider.ack;
    json!({
        "name": provider.name,
        "title": provider.title,
        "secrets": kinds(provider),
        "settings": settings,
        "event_ids": provider.event_ids,
        "batches": provider.batches,
        "inquiry": provider.inquiry.is_some(),
        "missing_callbacks": not_made(provider).is_none(),
        "not_made": not_made(provider),
        "inquire": provider.inquiry.map(|inquiry| if inquiry.unclear { "unclear" } else { "always" }),
        "ack": { "status": ack.status.as_u16(), "content_type": ack.content_type, "body": ack.body },
        "refusal": provider.refusal,
        "waits_seconds": provider.answer_limit.as_secs(),
        "retries_seconds": provider.retry_span.as_secs(),
        "sources": provider.sources,
    })
}

/// Why what it should have called for can't be made; `None` where it can.
const fn not_made(provider: &Provider) -> Option<&'static str> {
    match provider.inquiry {
        None => Some("it is not asked"),
        Some(inquiry) => match &inquiry.missing {
            Missing::Made(_) => None,
            Missing::Not(why) => Some(why),
        },
    }
}

/// What its callbacks are signed with; nothing where they are not.
fn kinds(provider: &Provider) -> Vec<&'static str> {
    signing(provider).into_iter().flat_map(|signing| signing.kinds).map(|kind| kind.as_str()).collect()
}

const fn signing(provider: &Provider) -> Option<&Signing> {
    match &provider.scheme {
        Scheme::Signed(signing) => Some(signing),
        Scheme::Unsigned => None,
    }
}
