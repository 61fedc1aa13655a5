//! Lemon Squeezy: signed events about its objects, without an id of their own.

use std::time::Duration;

use http::StatusCode;

use super::{
    amount,
    contract::{Ack, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, Value},
    signature::{self, BodyMac},
};
use crate::callback::{Event, State};

/// The declaration.
pub static LEMONSQUEEZY: Provider = Provider {
    name: "lemonsqueezy",
    title: "Lemon Squeezy",
    // `x-signature` is Mercado Pago's as well.
    marks: &["x-event-name"],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Hmac],
        settings: &[],
        repeats: &[],
        ready: signature::sha256,
        check: |reader, keyring, _| SIGNATURE.check(reader, keyring),
    }),
    events: |reader, _| Ok(vec![event(reader.json())?]),
    event_ids: false,
    batches: false,
    inquiry: None,
    ack: Ack::empty(StatusCode::OK),
    refusal: 401,
    paid_once: &[],
    moves: Moves::Undocumented,
    // It publishes none.
    answer_limit: Duration::from_secs(10),
    retry_span: Duration::from_secs(180),
    sources: &[
        "https://docs.lemonsqueezy.com/help/webhooks/webhook-requests",
        "https://docs.lemonsqueezy.com/help/webhooks/signing-requests",
    ],
};

const SIGNATURE: BodyMac = BodyMac { header: "x-signature", prefix: "" };

fn recognise(reader: &Reader<'_>) -> bool {
    let json = reader.json();
    json.at(["meta", "event_name"]).is_there() && json.at(["data", "attributes"]).is_object()
}

fn event(json: Value<'_>) -> Result<Event, Unrecognised> {
    let kind = json.at(["meta", "event_name"]).needed()?.into_owned();
    let data = json.get("data");
    let (sort, id) = (data.get("type").needed()?, data.get("id").needed()?);
    let object = data.get("attributes");
    let status = object.get("status").text()?;
    let refunded = object.get("refunded_amount").amount()?;
    let minor = match &refunded {
        Some(refunded) if kind.ends_with("_refunded") => Some(refunded.clone()),
        _ => object.get("total").amount()?,
    };
    let currency = object.get("currency").text()?.and_then(|code| amount::currency(&code));
    let state = state(&kind, status.as_deref());
    Ok(Event {
        // Each sort of thing counts from one.
        reference: if sort == "orders" { id.into_owned() } else { format!("{sort}/{id}") },
        state,
        detail: if state.is_none() { status.as_deref().map(str::to_owned) } else { None },
        facts: facts([
            ("type", Some(&kind)),
            ("status", status.as_deref()),
            ("updated", object.get("updated_at").text()?.as_deref()),
            ("minor", minor.as_deref()),
            ("refunded", refunded.as_deref()),
        ]),
        event_type: Some(kind),
        // It counts in cents, whatever the currency has.
        amount: minor.as_deref().and_then(|minor| amount::major(minor, 2)),
        currency,
        ..Event::default()
    })
}

fn state(kind: &str, status: Option<&str>) -> Option<State> {
    Some(match (kind, status) {
        ("order_created", Some("paid")) | ("subscription_payment_success" | "subscription_payment_recovered", _) => {
            State::Paid
        }
        ("order_created", Some("pending")) => State::Pending,
        ("order_created", Some("failed")) | ("subscription_payment_failed", _) => State::Failed,
        ("order_refunded" | "subscription_payment_refunded", _) => State::Refunded,
        _ => return None,
    })
}
