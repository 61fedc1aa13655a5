//! Blockonomics: reports by GET, with a secret in the address.

use std::time::Duration;

use http::{Method, StatusCode};

use super::{
    amount,
    contract::{Ack, Keyring, Moves, Provider, Repeated, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::Reader,
    signature,
};
use crate::callback::{Event, Signature, State};

/// The declaration.
pub static BLOCKONOMICS: Provider = Provider {
    name: "blockonomics",
    title: "Blockonomics",
    marks: &[],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Token, SecretKind::Hmac],
        settings: &[],
        repeats: &[Repeated::Parameter("secret")],
        ready: signature::text,
        check: |reader, keyring, _| check(reader, keyring),
    }),
    events: |reader, _| Ok(vec![event(reader)?]),
    event_ids: false,
    batches: false,
    inquiry: None,
    ack: Ack::empty(StatusCode::OK),
    refusal: 401,
    paid_once: &[],
    moves: Moves::Undocumented,
    // It publishes none.
    answer_limit: Duration::from_secs(10),
    // Seven tries at growing intervals, the first after four seconds.
    retry_span: Duration::from_secs(24 * 3600),
    sources: &["https://developers.blockonomics.co/reference/callback-notification"],
};

fn recognise(reader: &Reader<'_>) -> bool {
    let there = |name: &&str| reader.query(name).is_ok_and(|value| value.is_some());
    *reader.view().method == Method::GET && ["txid", "addr", "status", "value"].iter().all(there)
}

fn event(reader: &Reader<'_>) -> Result<Event, Unrecognised> {
    let needed =
        |name: &str| reader.query(name)?.ok_or_else(|| Unrecognised(format!("nothing stands at query:{name}")));
    let [status, value, address] = [needed("status")?, needed("value")?, needed("addr")?];
    Ok(Event {
        reference: needed("txid")?.into_owned(),
        event_type: Some(format!("status={status}")),
        state: match &*status {
            "-1" | "0" | "1" => Some(State::Pending),
            "2" => Some(State::Paid),
            _ => None,
        },
        // In satoshi.
        amount: amount::major(&value, 8),
        currency: Some("BTC".to_owned()),
        facts: facts([("status", Some(&status)), ("value", Some(&value)), ("addr", Some(&address))]),
        ..Event::default()
    })
}

fn check(reader: &Reader<'_>, keyring: &Keyring) -> Signature {
    match reader.query("secret") {
        Ok(None) => Signature::Absent,
        Ok(Some(secret)) => signature::judged(signature::any_text(&keyring.keys, secret.as_bytes())),
        Err(_) => Signature::Invalid,
    }
}
