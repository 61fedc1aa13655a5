//! PayFast: notices as forms, with a hash over their fields in the order in which they were posted.

use std::time::Duration;

use http::StatusCode;

use super::{
    contract::{Ack, Keyring, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, decimal},
    signature::{self, Hash, Tag},
};
use crate::callback::{Event, Signature, State};

/// The declaration.
pub static PAYFAST: Provider = Provider {
    name: "payfast",
    title: "PayFast",
    marks: &[],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Hmac, SecretKind::Token],
        settings: &[],
        repeats: &[],
        ready: signature::text,
        check: |reader, keyring, _| check(reader, keyring),
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
    // At growing intervals; it does not say how far they grow.
    retry_span: Duration::from_secs(3 * 24 * 3600),
    sources: &["https://developers.payfast.co.za/docs#step_4_confirm_payment"],
};

fn recognise(reader: &Reader<'_>) -> bool {
    let there = |name: &&str| reader.form(name).is_ok_and(|value| value.is_some());
    reader.is_form() && ["pf_payment_id", "payment_status", "amount_gross"].iter().all(there)
}

fn event(reader: &Reader<'_>) -> Result<Event, Unrecognised> {
    let needed = |name: &str| reader.form(name)?.ok_or_else(|| Unrecognised(format!("nothing stands at form:{name}")));
    let status = needed("payment_status")?;
    let gross = reader.form("amount_gross")?;
    Ok(Event {
        reference: needed("pf_payment_id")?.into_owned(),
        state: match &*status {
            "COMPLETE" => Some(State::Paid),
            "CANCELLED" => Some(State::Cancelled),
            "PENDING" => Some(State::Pending),
            "FAILED" => Some(State::Failed),
            _ => None,
        },
        amount: gross.as_deref().and_then(decimal),
        // It knows the rand only.
        currency: Some("ZAR".to_owned()),
        facts: facts([
            ("status", Some(&status)),
            ("gross", gross.as_deref()),
            ("date", reader.form("billing_date")?.as_deref()),
        ]),
        event_type: Some(status.into_owned()),
        ..Event::default()
    })
}

/// MD5 over all fields before the signature, which stands at the end: what stood behind it would not be signed.
fn check(reader: &Reader<'_>, keyring: &Keyring) -> Signature {
    let mut fields = reader.fields();
    let is_tag = |name: &[u8]| name == b"signature";
    let Some((name, tag)) = fields.pop() else { return Signature::Absent };
    if !is_tag(&name) {
        return if fields.iter().any(|(name, _)| is_tag(name)) { Signature::Invalid } else { Signature::Absent };
    }
    let Some(tag) = std::str::from_utf8(&tag).ok().and_then(Tag::hex) else { return Signature::Invalid };
    let pairs: Vec<_> = fields.iter().map(|(name, value)| [name, b"=".as_slice(), &encoded(value)].concat()).collect();
    let message = pairs.join(&b"&"[..]);
    let made = |phrase: &[u8]| Hash::Md5.of(&[&message, b"&passphrase=", &encoded(phrase.trim_ascii())]);
    signature::judged(signature::any_hash(&keyring.keys, &tag, made))
}

/// As PHP's `urlencode` writes it.
fn encoded(value: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(value.len());
    for byte in value {
        match byte {
            b'-' | b'_' | b'.' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => text.push(*byte),
            b' ' => text.push(b'+'),
            byte => text.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    text
}
