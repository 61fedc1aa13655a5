//! Paddle Billing: signed events about transactions, and about adjustments, which are their refunds and chargebacks.

use std::time::Duration;

use http::StatusCode;

use super::{
    amount,
    contract::{Ack, Keyring, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, Value},
    signature::{self, Tag},
};
use crate::{
    callback::{Event, Signature, State},
    time::Timestamp,
};

/// The declaration.
pub static PADDLE: Provider = Provider {
    name: "paddle",
    title: "Paddle Billing",
    marks: &[HEADER],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Hmac],
        settings: &["tolerance"],
        repeats: &[],
        ready: signature::sha256,
        check,
    }),
    events: |reader, _| Ok(vec![event(reader.json())?]),
    event_ids: true,
    batches: false,
    inquiry: None,
    ack: Ack::empty(StatusCode::OK),
    refusal: 401,
    paid_once: &[],
    moves: Moves::Undocumented,
    answer_limit: Duration::from_secs(5),
    retry_span: Duration::from_secs(3 * 24 * 3600),
    sources: &[
        "https://developer.paddle.com/webhooks/respond-to-webhooks",
        "https://developer.paddle.com/webhooks/signature-verification",
        "https://developer.paddle.com/api-reference/adjustments/overview",
    ],
};

const HEADER: &str = "paddle-signature";
/// Of its own libraries.
const TOLERANCE: Duration = Duration::from_secs(5);

fn recognise(reader: &Reader<'_>) -> bool {
    let json = reader.json();
    let named = ["event_type", "occurred_at", "notification_id"].iter().all(|name| json.get(name).is_there());
    named && json.get("event_id").begins("evt_") && json.get("data").is_object()
}

fn event(json: Value<'_>) -> Result<Event, Unrecognised> {
    let kind = json.get("event_type").needed()?.into_owned();
    let data = json.get("data");
    let adjustment = kind.starts_with("adjustment.");
    let reference = if adjustment { data.get("transaction_id") } else { data.get("id") };
    let totals = data.at(["details", "totals"]).or(data.get("totals"));
    let minor = totals.get("grand_total").or(totals.get("total")).amount()?;
    let currency = data.get("currency_code").text()?.and_then(|code| amount::currency(&code));
    let (action, status) = (data.get("action").text()?, data.get("status").text()?);
    let state = if adjustment { adjusted(action.as_deref(), status.as_deref()) } else { state(&kind) };
    Ok(Event {
        reference: reference.needed()?.into_owned(),
        event_id: Some(json.get("event_id").needed()?.into_owned()),
        state,
        step: None,
        detail: if state.is_none() { status.as_deref().map(str::to_owned) } else { None },
        facts: facts([
            ("type", Some(&kind)),
            ("action", action.as_deref()),
            ("status", status.as_deref()),
            ("minor", minor.as_deref()),
        ]),
        event_type: Some(kind),
        amount: amount::of(minor.as_deref(), currency.as_deref()),
        currency,
        aliases: Vec::new(),
    })
}

fn state(kind: &str) -> Option<State> {
    Some(match kind {
        "transaction.created" | "transaction.ready" | "transaction.billed" => State::Pending,
        "transaction.paid" | "transaction.completed" => State::Paid,
        "transaction.payment_failed" => State::Failed,
        "transaction.canceled" => State::Cancelled,
        _ => return None,
    })
}

/// What is not approved yet may be rejected, and what is reversed comes back.
fn adjusted(action: Option<&str>, status: Option<&str>) -> Option<State> {
    match (action?, status?) {
        ("refund", "approved") => Some(State::Refunded),
        ("chargeback", "approved") => Some(State::ChargedBack),
        _ => None,
    }
}

/// `ts=<seconds>;h1=<hex>[;h1=<hex>…]` over the time, a colon and the body.
fn check(reader: &Reader<'_>, keyring: &Keyring, now: Timestamp) -> Signature {
    let view = reader.view();
    let line = match (view.header(HEADER), view.headers.contains_key(HEADER)) {
        (Some(line), _) => line,
        (None, true) => return Signature::Invalid,
        (None, false) => return Signature::Absent,
    };
    let mut times = signature::values(line, ';', "ts");
    let (Some(time), None) = (times.next(), times.next()) else { return Signature::Invalid };
    let tags = signature::tags(signature::values(line, ';', "h1").filter_map(Tag::hex));
    let fresh = signature::is_fresh(time, keyring.settings.tolerance.unwrap_or(TOLERANCE), now);
    signature::judged(signature::any_mac(&keyring.keys, &[time.as_bytes(), b":", view.body], &tags) && fresh)
}
