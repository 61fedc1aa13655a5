//! Standard Webhooks, as Svix and many others send them: who sends decides what a payload looks like.

use std::time::Duration;

use http::StatusCode;
use ring::signature::{ED25519, UnparsedPublicKey};

use super::{
    amount,
    contract::{Ack, Keyring, Moves, Provider, Scheme, Secret, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, Value, decimal},
    signature::{self, Tag, VerifyingKey},
};
use crate::{
    callback::{Event, Signature, State},
    time::Timestamp,
};

/// The declaration.
pub static STANDARD_WEBHOOKS: Provider = Provider {
    name: "standard-webhooks",
    title: "Standard Webhooks",
    marks: &["webhook-id", "svix-id"],
    recognise: |reader| headers(reader).is_some() && reader.json().is_object(),
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Hmac, SecretKind::PublicKey],
        settings: &["tolerance"],
        repeats: &[],
        ready,
        check,
    }),
    events: |reader, _| Ok(vec![event(reader)?]),
    event_ids: true,
    batches: false,
    inquiry: None,
    ack: Ack::empty(StatusCode::OK),
    refusal: 401,
    paid_once: &[],
    moves: Moves::Undocumented,
    answer_limit: Duration::from_secs(15),
    retry_span: Duration::from_secs(76 * 3600),
    sources: &["https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md"],
};

/// Of its libraries, either way.
const TOLERANCE: Duration = Duration::from_secs(300);

/// The names of the three fields; Svix has names of its own.
const FIELDS: [[&str; 3]; 2] =
    [["webhook-id", "webhook-timestamp", "webhook-signature"], ["svix-id", "svix-timestamp", "svix-signature"]];

fn headers(reader: &Reader<'_>) -> Option<[&'static str; 3]> {
    let there = |fields: &&[&'static str; 3]| fields.iter().all(|name| reader.view().headers.contains_key(*name));
    FIELDS.iter().find(there).copied()
}

/// What most payloads have in common: a type whose last word tells what happened, and data that name a payment and its
/// amount, in minor units where it is a whole number.
fn event(reader: &Reader<'_>) -> Result<Event, Unrecognised> {
    let json = reader.json();
    let fields = headers(reader).unwrap_or(FIELDS[0]);
    let id = reader.header(fields[0])?.ok_or_else(|| Unrecognised(format!("there is no {}", fields[0])))?;
    let kind = json.get("type").needed()?.into_owned();
    let data = json.get("data");
    let currency = data.get("currency").text()?.and_then(|code| amount::currency(&code));
    let said = data.get("amount").amount()?;
    let status = data.get("status").text()?;
    let amount = said.as_deref().and_then(|said| match said.contains('.') {
        true => decimal(said),
        false => amount::of(Some(said), currency.as_deref()),
    });
    Ok(Event {
        reference: reference(data).needed()?.into_owned(),
        event_id: Some(id.into_owned()),
        state: state(&kind),
        step: None,
        detail: None,
        facts: facts([("type", Some(&kind)), ("status", status.as_deref()), ("amount", said.as_deref())]),
        event_type: Some(kind),
        amount,
        currency,
        aliases: Vec::new(),
    })
}

fn reference(data: Value<'_>) -> Value<'_> {
    data.get("payment_id").or(data.get("transaction_id")).or(data.get("id"))
}

fn state(kind: &str) -> Option<State> {
    Some(match kind.rsplit('.').next()? {
        "created" | "pending" | "processing" | "authorized" => State::Pending,
        "succeeded" | "paid" | "completed" | "captured" => State::Paid,
        "failed" => State::Failed,
        "canceled" | "cancelled" | "expired" => State::Cancelled,
        "refunded" => State::Refunded,
        "charged_back" => State::ChargedBack,
        _ => return None,
    })
}

/// `whsec_` and a key in base64, or `whpk_` and a public key of Ed25519.
fn ready(secret: &Secret) -> Result<VerifyingKey, &'static str> {
    let text = std::str::from_utf8(secret.expose()).map_err(|_| "it is no text")?;
    if let Some(key) = text.strip_prefix("whpk_") {
        let key = signature::base64(key).and_then(|key| key.try_into().ok());
        return key.map(VerifyingKey::Ed25519).ok_or("behind whpk_ has to stand a key of 32 bytes in base64");
    }
    let key = signature::base64(text.strip_prefix("whsec_").unwrap_or(text)).filter(|key| !key.is_empty());
    key.map(|key| signature::mac(ring::hmac::HMAC_SHA256, &key)).ok_or("it has to be whsec_ and a key in base64")
}

/// `v1,<base64>` or `v1a,<base64>`, several with a space between, over the id, the time and the body.
fn check(reader: &Reader<'_>, keyring: &Keyring, now: Timestamp) -> Signature {
    let view = reader.view();
    let Some(fields) = headers(reader) else {
        let any = FIELDS.iter().flatten().any(|name| view.headers.contains_key(*name));
        return if any { Signature::Invalid } else { Signature::Absent };
    };
    let [Some(id), Some(time), Some(line)] = fields.map(|name| view.header(name)) else { return Signature::Invalid };
    let tags = |version: &str| {
        let told = line.split(' ').filter_map(|one| one.split_once(',')).filter(move |(told, _)| *told == version);
        signature::tags(told.filter_map(|(_, tag)| Tag::base64(tag)))
    };
    let parts = [id.as_bytes(), b".", time.as_bytes(), b".", view.body];
    let asymmetric = tags("v1a");
    let signed = !asymmetric.is_empty() && {
        let message = parts.concat();
        keyring.keys.iter().any(|key| match key {
            VerifyingKey::Ed25519(key) => {
                asymmetric.iter().any(|tag| UnparsedPublicKey::new(&ED25519, key).verify(&message, tag.bytes()).is_ok())
            }
            _ => false,
        })
    };
    let made = signed || signature::any_mac(&keyring.keys, &parts, &tags("v1"));
    let tolerance = keyring.settings.tolerance.unwrap_or(TOLERANCE);
    signature::judged(made && signature::is_near(time, tolerance, now))
}
