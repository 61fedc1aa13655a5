//! UnionPay (online gateway 5.1.0): notices as forms that bring the certificate they are signed with.

use std::time::Duration;

use http::StatusCode;
use ring::signature::RSA_PKCS1_2048_8192_SHA256;

use super::{
    amount,
    contract::{Ack, Keyring, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::Reader,
    signature::{self, Certificate, Hash, VerifyingKey},
};
use crate::{
    callback::{Event, Signature, State},
    digits::hex,
    time::Timestamp,
};

/// The declaration.
pub static UNIONPAY: Provider = Provider {
    name: "unionpay",
    title: "UnionPay",
    marks: &[],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Certificate, SecretKind::PublicKey],
        settings: &["ca"],
        repeats: &[],
        ready: signature::rsa,
        check,
    }),
    events: |reader, _| Ok(vec![event(reader)?]),
    event_ids: false,
    batches: false,
    inquiry: None,
    ack: Ack::empty(StatusCode::OK),
    refusal: 400,
    paid_once: &[],
    moves: Moves::Undocumented,
    // It publishes none.
    answer_limit: Duration::from_secs(10),
    retry_span: Duration::from_secs(24 * 3600),
    sources: &["https://open.unionpay.com/tjweb/api/dictionary"],
};

fn recognise(reader: &Reader<'_>) -> bool {
    let there = |name: &&str| reader.form(name).is_ok_and(|value| value.is_some());
    reader.is_form() && ["queryId", "txnType", "merId", "respCode"].iter().all(there)
}

fn event(reader: &Reader<'_>) -> Result<Event, Unrecognised> {
    let needed = |name: &str| reader.form(name)?.ok_or_else(|| Unrecognised(format!("nothing stands at form:{name}")));
    let first = |one: &str, other: &str| {
        Ok(match reader.form(one)? {
            Some(value) => Some(value),
            None => reader.form(other)?,
        })
    };
    let (own, sort, code) = (needed("queryId")?, needed("txnType")?, needed("respCode")?);
    let minor = first("txnAmt", "settleAmt")?;
    let currency = first("currencyCode", "settleCurrencyCode")?.and_then(|number| currency(&number));
    let state = state(&sort, &code);
    Ok(Event {
        // Of a refund the sale is named apart.
        reference: reader.form("origQryId")?.unwrap_or_else(|| own.clone()).into_owned(),
        event_type: Some(format!("txnType={sort}")),
        state,
        detail: (code != "00").then(|| code.clone().into_owned()),
        amount: amount::of(minor.as_deref(), currency),
        currency: currency.map(str::to_owned),
        facts: facts([("type", Some(&sort)), ("code", Some(&code)), ("id", Some(&own)), ("minor", minor.as_deref())]),
        ..Event::default()
    })
}

/// It numbers currencies (ISO 4217).
fn currency(number: &str) -> Option<&'static str> {
    Some(match number {
        "156" => "CNY",
        "344" => "HKD",
        "392" => "JPY",
        "446" => "MOP",
        "702" => "SGD",
        "826" => "GBP",
        "840" => "USD",
        "978" => "EUR",
        _ => return None,
    })
}

fn state(sort: &str, code: &str) -> Option<State> {
    match (sort, code) {
        ("01", "00" | "A6") => Some(State::Paid),
        ("04", "00" | "A6") => Some(State::Refunded),
        ("31", "00" | "A6") => Some(State::Cancelled),
        _ => None,
    }
}

/// RSA with SHA-256 over the hexadecimal SHA-256 of `name=value` of all fields that have a value, in the order of their
/// names.
///
/// The certificate that comes along is taken for nothing by itself: it has to be one that is configured, or lead to one.
fn check(reader: &Reader<'_>, keyring: &Keyring, now: Timestamp) -> Signature {
    let mut fields = reader.fields();
    fields.sort();
    // A name that stands there twice is read in two ways.
    if !fields.is_sorted_by(|(one, _), (other, _)| one < other) {
        return Signature::Invalid;
    }
    let Some(at) = fields.iter().position(|(name, _)| **name == *b"signature") else { return Signature::Absent };
    let (_, tag) = fields.remove(at);
    let tag = std::str::from_utf8(&tag).ok().and_then(|tag| signature::base64(&tag.replace(['\r', '\n'], "")));
    let Some(tag) = tag else { return Signature::Invalid };
    let told = fields.iter().filter(|(_, value)| !value.is_empty());
    let pairs: Vec<_> = told.map(|(name, value)| [&**name, b"=", &**value].concat()).collect();
    let message = hex(&Hash::Sha256.of(&[&pairs.join(&b"&"[..])]));
    let brought = fields.iter().find(|(name, _)| **name == *b"signPubKeyCert");
    let led = || {
        brought.and_then(|(_, pem)| Certificate::parse(pem).ok()).is_some_and(|certificate| {
            let authorities = authorities(keyring);
            let trusted = !authorities.is_empty() && certificate.is_good(&authorities, now);
            trusted && certificate.key().verifies(&RSA_PKCS1_2048_8192_SHA256, message.as_bytes(), &tag)
        })
    };
    signature::judged(signature::any_rsa(&keyring.keys, &keyring.settings, message.as_bytes(), &tag, now) || led())
}

/// All that a certificate may lead to.
fn authorities(keyring: &Keyring) -> Vec<Certificate> {
    let own = keyring.keys.iter().filter_map(|key| match key {
        VerifyingKey::Certificate(certificate) => Some(certificate.clone()),
        _ => None,
    });
    keyring.settings.ca.iter().cloned().chain(own).collect()
}
