//! Paystack: events without an id, signed with the key of its API.

use std::time::Duration;

use http::StatusCode;

use super::{
    amount,
    contract::{Ack, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::Reader,
    signature::{self, BodyMac},
};
use crate::callback::{Event, State};

/// The declaration.
pub static PAYSTACK: Provider = Provider {
    name: "paystack",
    title: "Paystack",
    marks: &[SIGNATURE.header],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Hmac, SecretKind::ApiKey],
        settings: &[],
        repeats: &[],
        ready: signature::sha512,
        check: |reader, keyring, _| SIGNATURE.check(reader, keyring),
    }),
    events: |reader, _| Ok(vec![event(reader)?]),
    event_ids: false,
    batches: false,
    inquiry: None,
    ack: Ack::empty(StatusCode::OK),
    refusal: 401,
    paid_once: &[],
    moves: Moves::Undocumented,
    answer_limit: Duration::from_secs(30),
    retry_span: Duration::from_secs(73 * 3600),
    sources: &["https://paystack.com/docs/payments/webhooks/", "https://paystack.com/docs/api/#supported-currency"],
};

const SIGNATURE: BodyMac = BodyMac { header: "x-paystack-signature", prefix: "" };

fn recognise(reader: &Reader<'_>) -> bool {
    let json = reader.json();
    let data = json.get("data");
    let named = data.get("reference").is_there() || data.get("transaction_reference").is_there();
    // Others with events and data have no domain.
    json.get("event").is_there() && named && data.get("domain").is_there()
}

fn event(reader: &Reader<'_>) -> Result<Event, Unrecognised> {
    let json = reader.json();
    let kind = json.get("event").needed()?.into_owned();
    let data = json.get("data");
    let status = data.get("status").text()?;
    let minor = data.get("amount").amount()?;
    let currency = data.get("currency").text()?.and_then(|code| amount::currency(&code));
    let refund = data.get("refund_reference").text()?;
    let id = data.get("id").text()?;
    let state = state(&kind);
    // Two refunds of one amount are told apart by what the manual does not promise; without it by every byte.
    let told = kind == "charge.success" && id.is_some() || refund.is_some();
    let body = if told { None } else { Some(reader.body_digest()) };
    let reference =
        data.get("transaction_reference").or(data.at(["transaction", "reference"])).or(data.get("reference"));
    Ok(Event {
        reference: reference.needed()?.into_owned(),
        state,
        detail: if state.is_none() { status.as_deref().map(str::to_owned) } else { None },
        facts: facts([
            ("type", Some(&kind)),
            ("status", status.as_deref()),
            ("id", id.as_deref()),
            ("refund", refund.as_deref()),
            ("minor", minor.as_deref()),
            ("body", body.as_deref()),
        ]),
        event_type: Some(kind),
        amount: currency.as_deref().filter(|code| amount::decimals(code) == 2).and_then(|code| {
            // It has two decimals for every currency, also where ISO has none; which those are is not said clearly.
            amount::of(minor.as_deref(), Some(code))
        }),
        currency,
        ..Event::default()
    })
}

fn state(kind: &str) -> Option<State> {
    Some(match kind {
        "charge.success" => State::Paid,
        "charge.failed" => State::Failed,
        "refund.processed" => State::Refunded,
        "charge.dispute.create" => State::ChargedBack,
        _ => return None,
    })
}
