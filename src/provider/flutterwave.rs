//! Flutterwave: version 3, which repeats a secret, and version 4, which signs.

use std::{borrow::Cow, time::Duration};

use http::StatusCode;
use ring::hmac;

use super::{
    amount,
    contract::{Ack, Keyring, Moves, Provider, Repeated, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, Value},
    signature::{self, Tag, VerifyingKey},
};
use crate::callback::{Event, Signature, State};

/// The declaration.
pub static FLUTTERWAVE: Provider = Provider {
    name: "flutterwave",
    title: "Flutterwave",
    marks: &[TOKEN, SIGNATURE],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Hmac, SecretKind::Token],
        settings: &[],
        repeats: &[Repeated::Header(TOKEN)],
        ready: signature::text,
        check: |reader, keyring, _| check(reader, keyring),
    }),
    events: |reader, _| Ok(vec![event(reader.json())?]),
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
    sources: &["https://developer.flutterwave.com/docs/webhooks"],
};

const TOKEN: &str = "verif-hash";
const SIGNATURE: &str = "flutterwave-signature";

fn recognise(reader: &Reader<'_>) -> bool {
    let json = reader.json();
    let data = json.get("data");
    let third = json.get("event").is_there() && data.get("tx_ref").is_there() && data.get("flw_ref").is_there();
    third || json.get("webhook_id").is_there() && json.get("type").is_there() && data.is_object()
}

fn event(json: Value<'_>) -> Result<Event, Unrecognised> {
    let kind = json.get("event").or(json.get("type")).needed()?.into_owned();
    let data = json.get("data");
    let status = data.get("status").text()?;
    let said = data.get("amount_refunded").or(data.get("amount")).amount()?;
    let currency = data.get("currency").text()?.and_then(|code| amount::currency(&code));
    let refund = kind.starts_with("refund.");
    let reference = if refund { data.get("charge_id").or(data.get("tx_ref")) } else { data.get("tx_ref") };
    let state = state(&kind, status.as_deref());
    Ok(Event {
        reference: reference.or(data.get("reference")).or(data.get("id")).needed()?.into_owned(),
        event_id: json.get("webhook_id").text()?.map(Cow::into_owned),
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
        amount: said
            .as_deref()
            .zip(currency.as_deref())
            .and_then(|(said, code)| amount::padded(said, amount::decimals(code))),
        currency,
        aliases: Vec::new(),
    })
}

fn state(kind: &str, status: Option<&str>) -> Option<State> {
    Some(match (kind.split('.').next()?, status?) {
        ("charge", "successful" | "succeeded") => State::Paid,
        ("charge", "pending") => State::Pending,
        ("charge", "failed") => State::Failed,
        ("refund", "succeeded" | "completed" | "successful") => State::Refunded,
        _ => return None,
    })
}

/// What is there has to be right: the secret itself, or the signature that it makes over the body.
fn check(reader: &Reader<'_>, keyring: &Keyring) -> Signature {
    let view = reader.view();
    let [token, signed] = [TOKEN, SIGNATURE].map(|name| view.headers.contains_key(name));
    if !token && !signed {
        return Signature::Absent;
    }
    let fits = |secret: &[u8]| {
        let repeats = !token || view.header(TOKEN).is_some_and(|told| signature::same(told.as_bytes(), secret));
        let signs = !signed || {
            let made = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), view.body);
            let tag = view.header(SIGNATURE).and_then(Tag::base64);
            tag.is_some_and(|tag| signature::same(made.as_ref(), tag.bytes()))
        };
        repeats & signs
    };
    let valid = keyring.keys.iter().fold(false, |valid, key| match key {
        VerifyingKey::Text(secret) => valid | fits(secret),
        _ => valid,
    });
    signature::judged(valid)
}
