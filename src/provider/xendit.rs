//! Xendit: callbacks that repeat a token; invoices are told flat, newer things as events.

use std::{borrow::Cow, time::Duration};

use http::StatusCode;

use super::{
    amount,
    contract::{Ack, Moves, Provider, Repeated, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::Reader,
    signature,
};
use crate::callback::{Event, State};

/// The declaration.
pub static XENDIT: Provider = Provider {
    name: "xendit",
    title: "Xendit",
    marks: &[TOKEN],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Token, SecretKind::Hmac],
        settings: &[],
        repeats: &[Repeated::Header(TOKEN)],
        ready: signature::text,
        check: |reader, keyring, _| signature::token(reader.view(), TOKEN, keyring),
    }),
    events: |reader, _| Ok(vec![event(reader)?]),
    event_ids: true,
    batches: false,
    inquiry: None,
    ack: Ack::empty(StatusCode::OK),
    refusal: 401,
    paid_once: &[],
    moves: Moves::Undocumented,
    // It publishes none.
    answer_limit: Duration::from_secs(10),
    retry_span: Duration::from_secs(24 * 3600),
    sources: &[
        "https://docs.xendit.co/webhook-behavior",
        "https://docs.xendit.co/webhook/delivery-attempts-and-retries/",
    ],
};

const TOKEN: &str = "x-callback-token";
const EVENT_ID: &str = "webhook-id";

fn recognise(reader: &Reader<'_>) -> bool {
    let json = reader.json();
    let flat = ["external_id", "user_id", "status"].iter().all(|name| json.get(name).is_there());
    flat || ["event", "business_id"].iter().all(|name| json.get(name).is_there()) && json.get("data").is_object()
}

fn event(reader: &Reader<'_>) -> Result<Event, Unrecognised> {
    let json = reader.json();
    let named = json.get("event").text()?;
    let data = if named.is_some() { json.get("data") } else { json };
    let status = data.get("status").text()?;
    let kind = match &named {
        Some(kind) => kind.clone().into_owned(),
        None => format!("invoice.{}", status.as_deref().unwrap_or_default()),
    };
    let reference = match named {
        Some(_) => data.get("invoice_id").or(data.get("payment_id")).or(data.get("id")),
        None => data.get("id"),
    };
    let said = data.get("paid_amount").or(data.get("amount")).amount()?;
    let currency = data.get("currency").text()?.and_then(|code| amount::currency(&code));
    let state = state(&kind, status.as_deref());
    Ok(Event {
        reference: reference.needed()?.into_owned(),
        event_id: reader.header(EVENT_ID)?.map(Cow::into_owned),
        state,
        step: None,
        detail: if state.is_none() { status.as_deref().map(str::to_owned) } else { None },
        facts: facts([
            ("type", Some(&kind)),
            ("id", data.get("id").text()?.as_deref()),
            ("status", status.as_deref()),
            ("amount", said.as_deref()),
        ]),
        event_type: Some(kind),
        amount: said.as_deref().zip(currency.as_deref()).and_then(|(said, code)| amount::padded(said, decimals(code))),
        currency,
        aliases: Vec::new(),
    })
}

/// It knows no parts of a rupiah.
fn decimals(currency: &str) -> u8 {
    if currency == "IDR" { 0 } else { amount::decimals(currency) }
}

fn state(kind: &str, status: Option<&str>) -> Option<State> {
    let thing = kind.split('.').next()?;
    Some(match (thing, status?) {
        ("refund", "SUCCEEDED") => State::Refunded,
        ("refund", _) => return None,
        ("invoice" | "payment", "PENDING") => State::Pending,
        ("invoice" | "payment", "PAID" | "SETTLED" | "SUCCEEDED") => State::Paid,
        ("invoice" | "payment", "EXPIRED") => State::Cancelled,
        ("invoice" | "payment", "FAILED") => State::Failed,
        _ => return None,
    })
}
