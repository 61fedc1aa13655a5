//! Przelewy24: notices that carry a hash over their fields, written as JSON in an order of its own with a key at the end.

use std::{fmt::Write, sync::Arc, time::Duration};

use http::StatusCode;
use serde_json::json;

use super::{
    amount,
    contract::{Ack, Keyring, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, Value},
    inquiry::{Inquiry, Missing, NoEvent, Question, access::Access},
    signature::{self, Hash, Tag},
};
use crate::callback::{Alias, Event, Signature, State};

/// The declaration.
pub static PRZELEWY24: Provider = Provider {
    name: "przelewy24",
    title: "Przelewy24",
    marks: &[],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Hmac],
        settings: &[],
        repeats: &[],
        ready: signature::text,
        check: |reader, keyring, _| check(reader.json(), keyring),
    }),
    events: |reader, _| Ok(vec![event(reader.json())?]),
    event_ids: false,
    batches: false,
    inquiry: Some(&INQUIRY),
    ack: Ack::empty(StatusCode::OK),
    refusal: 400,
    paid_once: &[],
    moves: Moves::Undocumented,
    // It publishes none.
    answer_limit: Duration::from_secs(10),
    retry_span: Duration::from_secs(12 * 3600),
    sources: &["https://developers.przelewy24.pl/"],
};

/// Its notices say what happened; an answer tells whether that is so. Its keys are `posId:report key`. It is asked by the
/// merchant's own name of the payment, and how it counts what is given back is not known well enough to be read.
static INQUIRY: Inquiry = Inquiry {
    unclear: false,
    url: "https://secure.przelewy24.pl",
    questions: &[Question { is_for: |_| true, path: "/api/v1/transaction/by/sessionId/{przelewy24_session}" }],
    headers: &[],
    access: Access::Basic,
    read: asked,
    missing: Missing::Not("it calls for what is paid and never before, and so nobody knows by which name to ask"),
    sources: &["https://developers.przelewy24.pl/", "https://github.com/ingameltd/node-przelewy24"],
};

/// What is signed of a payment, and of a refund.
const PAYMENT: [&str; 9] =
    ["merchantId", "posId", "sessionId", "amount", "originAmount", "currency", "orderId", "methodId", "statement"];
const REFUND: [&str; 7] = ["orderId", "sessionId", "refundsUuid", "merchantId", "amount", "currency", "status"];

fn recognise(reader: &Reader<'_>) -> bool {
    let json = reader.json();
    ["merchantId", "sessionId", "orderId", "sign"].iter().all(|name| json.get(name).is_there())
}

fn event(json: Value<'_>) -> Result<Event, Unrecognised> {
    let refund = json.get("refundsUuid").text()?;
    let status = json.get("status").text()?;
    let minor = json.get("amount").amount()?;
    let currency = json.get("currency").text()?.and_then(|code| amount::currency(&code));
    let kind = if refund.is_some() { "refund" } else { "transaction" };
    let state = match (&refund, status.as_deref()) {
        // A notice is sent for what was paid, and for nothing else.
        (None, _) => Some(State::Paid),
        (Some(_), Some("0")) => Some(State::Refunded),
        (Some(_), _) => None,
    };
    Ok(Event {
        reference: json.get("orderId").needed()?.into_owned(),
        event_type: Some(kind.to_owned()),
        state,
        detail: if state.is_none() { status.as_deref().map(str::to_owned) } else { None },
        amount: amount::of(minor.as_deref(), currency.as_deref()),
        currency,
        aliases: session(json)?,
        facts: facts([
            ("type", Some(kind)),
            ("refund", refund.as_deref()),
            ("status", status.as_deref()),
            ("minor", minor.as_deref()),
        ]),
        ..Event::default()
    })
}

/// The merchant's own name of the payment.
fn session(json: Value<'_>) -> Result<Vec<Alias>, Unrecognised> {
    let session = json.get("sessionId").text()?;
    let alias = |session: String| Alias { kind: Arc::from("przelewy24_session"), value: session };
    Ok(session.map(|session| alias(session.into_owned())).into_iter().collect())
}

/// A transaction, as the API shows it. One that is paid waits until the merchant has it verified.
fn asked(json: Value<'_>) -> Result<Event, NoEvent> {
    let transaction = json.get("data");
    let status = transaction.get("status").needed()?;
    let minor = transaction.get("amount").amount()?;
    let currency = transaction.get("currency").text()?.and_then(|code| amount::currency(&code));
    Ok(Event {
        reference: transaction.get("orderId").needed()?.into_owned(),
        state: match &*status {
            "0" => Some(State::Pending),
            "1" | "2" => Some(State::Paid),
            "3" => Some(State::Refunded),
            _ => None,
        },
        detail: (&*status == "1").then(|| "not verified yet".to_owned()),
        amount: amount::of(minor.as_deref(), currency.as_deref()),
        currency,
        aliases: session(transaction)?,
        facts: facts([("status", Some(&status)), ("minor", minor.as_deref())]),
        ..Event::default()
    })
}

fn check(json: Value<'_>, keyring: &Keyring) -> Signature {
    let sign = json.get("sign");
    if !sign.is_there() {
        return Signature::Absent;
    }
    let Some(tag) = sign.text().ok().flatten().and_then(|tag| Tag::hex(&tag)) else { return Signature::Invalid };
    let fields: &[&str] = if json.get("refundsUuid").is_there() { &REFUND } else { &PAYMENT };
    let mut message = String::from("{");
    for name in fields {
        let Some(value) = json.get(name).compact() else { return Signature::Invalid };
        // Writing to a string cannot fail.
        let _ = write!(message, "\"{name}\":{value},");
    }
    let made = |key: &[u8]| {
        let crc = json!(String::from_utf8_lossy(key)).to_string();
        Hash::Sha384.of(&[message.as_bytes(), b"\"crc\":", crc.as_bytes(), b"}"])
    };
    signature::judged(signature::any_hash(&keyring.keys, &tag, made))
}
