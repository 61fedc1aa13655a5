//! PayU (Europe): order and refund notices, with a hash over the body and the second key behind it.

use std::time::Duration;

use http::StatusCode;

use super::{
    amount,
    contract::{Ack, Keyring, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, Value},
    signature::{self, Hash, Tag},
};
use crate::callback::{Event, Signature, State};

/// The declaration.
pub static PAYU: Provider = Provider {
    name: "payu",
    title: "PayU (Europe)",
    marks: &HEADERS,
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Hmac],
        settings: &[],
        repeats: &[],
        ready: signature::text,
        check: |reader, keyring, _| check(reader, keyring),
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
    retry_span: Duration::from_secs(3 * 24 * 3600),
    sources: &[
        "https://developers.payu.com/europe/docs/payment-flows/lifecycle/",
        "https://developers.payu.com/europe/api/",
    ],
};

const HEADERS: [&str; 2] = ["openpayu-signature", "x-openpayu-signature"];

fn recognise(reader: &Reader<'_>) -> bool {
    let json = reader.json();
    let order = json.at(["order", "orderId"]).is_there() && json.at(["order", "merchantPosId"]).is_there();
    order || json.at(["refund", "refundId"]).is_there() && json.get("orderId").is_there()
}

fn event(json: Value<'_>) -> Result<Event, Unrecognised> {
    let (order, refund) = (json.get("order"), json.get("refund"));
    let refunds = refund.is_object();
    let subject = if refunds { refund } else { order };
    let status = subject.get("status").needed()?;
    let minor = subject.get("totalAmount").or(subject.get("amount")).amount()?;
    let currency = subject.get("currencyCode").text()?.and_then(|code| amount::currency(&code));
    let state = if refunds { (status == "FINALIZED").then_some(State::Refunded) } else { state(&status) };
    Ok(Event {
        reference: json.get("orderId").or(order.get("orderId")).needed()?.into_owned(),
        event_type: Some(if refunds { format!("refund {status}") } else { status.clone().into_owned() }),
        state,
        detail: if state.is_none() { Some(status.clone().into_owned()) } else { None },
        amount: amount::of(minor.as_deref(), currency.as_deref()),
        currency,
        facts: facts([
            ("status", Some(&status)),
            ("refund", refund.get("refundId").text()?.as_deref()),
            ("minor", minor.as_deref()),
        ]),
        ..Event::default()
    })
}

fn state(status: &str) -> Option<State> {
    Some(match status {
        "PENDING" | "WAITING_FOR_CONFIRMATION" => State::Pending,
        "COMPLETED" => State::Paid,
        "CANCELED" => State::Cancelled,
        _ => return None,
    })
}

/// `sender=…;signature=<hex>;algorithm=<name>;content=DOCUMENT`. The name is not signed, so only the two that it is known
/// to use, and what is stronger, will do.
fn check(reader: &Reader<'_>, keyring: &Keyring) -> Signature {
    let view = reader.view();
    if !HEADERS.iter().any(|name| view.headers.contains_key(*name)) {
        return Signature::Absent;
    }
    let fits = |line: &str| {
        let hash = match signature::values(line, ';', "algorithm").next() {
            Some("MD5") => Hash::Md5,
            Some("SHA-256" | "SHA256") => Hash::Sha256,
            Some("SHA-384" | "SHA384") => Hash::Sha384,
            Some("SHA-512" | "SHA512") => Hash::Sha512,
            _ => return false,
        };
        let Some(tag) = signature::values(line, ';', "signature").next().and_then(Tag::hex) else { return false };
        signature::any_hash(&keyring.keys, &tag, |key| hash.of(&[view.body, key]))
    };
    let mut lines = HEADERS.iter().flat_map(|name| signature::lines(view.headers, name)).take(4);
    signature::judged(lines.next().is_some_and(|first| lines.fold(fits(first), |all, line| all & fits(line))))
}
