//! Adyen: batches of notification items, each with a signature of its own that covers a part of it.

use std::time::Duration;

use http::{StatusCode, header};
use ring::hmac;

use super::{
    amount,
    contract::{Ack, Keyring, Moves, Provider, Repeated, Scheme, Secret, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, Value},
    signature::{self, Tag, VerifyingKey},
};
use crate::callback::{Event, Signature, State};

/// The declaration.
pub static ADYEN: Provider = Provider {
    name: "adyen",
    title: "Adyen",
    marks: &[],
    recognise: |reader| items(reader.json()).is_ok_and(|items| !items.is_empty()),
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Hmac, SecretKind::Basic],
        settings: &[],
        repeats: &[Repeated::Header("authorization")],
        ready,
        check: |reader, keyring, _| check(reader, keyring),
    }),
    events: |reader, _| events(reader.json()),
    // Any 2xx does; older accounts look for the word.
    event_ids: false,
    batches: true,
    inquiry: None,
    ack: Ack { status: StatusCode::OK, content_type: Some("text/plain"), body: "[accepted]" },
    refusal: 401,
    paid_once: &[],
    moves: Moves::Undocumented,
    answer_limit: Duration::from_secs(10),
    retry_span: Duration::from_secs(30 * 24 * 3600),
    sources: &[
        "https://docs.adyen.com/development-resources/webhooks/handle-webhook-events",
        "https://docs.adyen.com/development-resources/webhooks/verify-hmac-signatures",
        "https://docs.adyen.com/development-resources/webhooks/troubleshoot",
        "https://docs.adyen.com/development-resources/currency-codes",
    ],
};

fn items(json: Value<'_>) -> Result<Vec<Value<'_>>, Unrecognised> {
    let items = json.get("notificationItems").items()?.map(|item| item.get("NotificationRequestItem"));
    items.map(|item| if item.is_object() { Ok(item) } else { Err(Unrecognised("an item is none".into())) }).collect()
}

fn events(json: Value<'_>) -> Result<Vec<Event>, Unrecognised> {
    let events: Vec<_> = items(json)?.into_iter().map(event).collect::<Result<_, _>>()?;
    if events.is_empty() { Err(Unrecognised("the callback carries no event".into())) } else { Ok(events) }
}

fn event(item: Value<'_>) -> Result<Event, Unrecognised> {
    let code = item.get("eventCode").needed()?.into_owned();
    let own = item.get("pspReference").needed()?;
    let success = item.get("success").flag()?;
    let minor = item.at(["amount", "value"]).amount()?;
    let currency = item.at(["amount", "currency"]).text()?.and_then(|code| amount::currency(&code));
    let state = state(&code, success == Some(true));
    // A later copy of one may have another date and more data: these three are what it goes by.
    let told = success.map(|success| if success { "true" } else { "false" });
    Ok(Event {
        reference: item.get("originalReference").text()?.unwrap_or_else(|| own.clone()).into_owned(),
        state,
        detail: if state.is_none() { Some(code.clone()) } else { None },
        facts: facts([("type", Some(&code)), ("psp", Some(&own)), ("success", told)]),
        event_type: Some(code),
        amount: match currency.as_deref() {
            // Where it counts otherwise than ISO 4217.
            Some("CLP" | "CVE" | "IDR" | "ISK") => None,
            code => amount::of(minor.as_deref(), code),
        },
        currency,
        ..Event::default()
    })
}

fn state(code: &str, success: bool) -> Option<State> {
    Some(match (code, success) {
        ("AUTHORISATION" | "CAPTURE", true) => State::Paid,
        ("AUTHORISATION", false) | ("CAPTURE_FAILED", _) => State::Failed,
        ("PENDING", _) => State::Pending,
        ("CANCELLATION", true) | ("OFFER_CLOSED" | "EXPIRE", _) => State::Cancelled,
        ("REFUND", true) => State::Refunded,
        ("CHARGEBACK" | "SECOND_CHARGEBACK", true) => State::ChargedBack,
        _ => return None,
    })
}

/// The key of a keyed hash in hexadecimal, or `user:password`.
fn ready(secret: &Secret) -> Result<VerifyingKey, &'static str> {
    let text = std::str::from_utf8(secret.expose()).map_err(|_| "it is no text")?;
    match secret.kind {
        SecretKind::Hmac if !text.contains(':') => {
            let key = Tag::hex(text).ok_or("the key has to be in hexadecimal, as it is shown once when it is made")?;
            Ok(signature::mac(hmac::HMAC_SHA256, key.bytes()))
        }
        _ => signature::text(secret),
    }
}

/// Every item has to be signed, and who sends it to have said the password, as far as there are keys for it.
fn check(reader: &Reader<'_>, keyring: &Keyring) -> Signature {
    let signs = keyring.keys.iter().any(|key| matches!(key, VerifyingKey::Mac(_)));
    let says = keyring.keys.iter().any(|key| matches!(key, VerifyingKey::Text(_)));
    let signed = if signs { signed(reader, keyring) } else { Signature::Valid };
    let said = if says { said(reader, keyring) } else { Signature::Valid };
    match (signed, said) {
        (Signature::Invalid, _) | (_, Signature::Invalid) => Signature::Invalid,
        (Signature::Absent, _) | (_, Signature::Absent) => Signature::Absent,
        _ => Signature::Valid,
    }
}

fn said(reader: &Reader<'_>, keyring: &Keyring) -> Signature {
    let view = reader.view();
    let Some(line) = view.header(header::AUTHORIZATION.as_str()) else {
        return if view.headers.contains_key(header::AUTHORIZATION) { Signature::Invalid } else { Signature::Absent };
    };
    let told = line.strip_prefix("Basic ").and_then(|told| signature::base64(told.trim()));
    signature::judged(told.is_some_and(|told| signature::any_text(&keyring.keys, &told)))
}

fn signed(reader: &Reader<'_>, keyring: &Keyring) -> Signature {
    let Ok(items) = items(reader.json()) else { return Signature::Invalid };
    let tags: Vec<_> = items.iter().map(|item| item.at(["additionalData", "hmacSignature"]).text()).collect();
    if tags.iter().all(|tag| matches!(tag, Ok(None))) {
        return Signature::Absent;
    }
    let fits = |(item, tag): (&Value<'_>, Result<Option<std::borrow::Cow<'_, str>>, _>)| {
        let tag = tag.ok().flatten().and_then(|tag| Tag::base64(&tag));
        let pair = tag.zip(message(*item));
        pair.is_some_and(|(tag, message)| signature::any_mac(&keyring.keys, &[message.as_bytes()], &[tag]))
    };
    signature::judged(items.iter().zip(tags).fold(true, |all, pair| all & fits(pair)))
}

/// What of an item is signed: these values in this order, and nothing for what is not there.
fn message(item: Value<'_>) -> Option<String> {
    let values = [
        item.get("pspReference"),
        item.get("originalReference"),
        item.get("merchantAccountCode"),
        item.get("merchantReference"),
        item.at(["amount", "value"]),
        item.at(["amount", "currency"]),
        item.get("eventCode"),
    ];
    let mut parts: Vec<_> =
        values.into_iter().map(|value| Some(value.text().ok()?.unwrap_or_default())).collect::<Option<_>>()?;
    parts.push(match item.get("success").flag().ok()? {
        Some(true) => "true".into(),
        Some(false) => "false".into(),
        None => "".into(),
    });
    Some(parts.join(":"))
}
