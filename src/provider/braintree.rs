//! Braintree: a form of two fields, an XML document in base64 and its signatures, one for each key of the merchant's.

use std::time::Duration;

use http::StatusCode;
use ring::{
    digest::{self, SHA1_FOR_LEGACY_USE_ONLY},
    hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
};

use super::{
    amount,
    contract::{Ack, Keyring, Moves, Provider, Scheme, Secret, SecretKind, Signing, Unrecognised, facts},
    extract::{Elements, Reader, decimal},
    signature::{self, Tag, VerifyingKey},
};
use crate::callback::{Event, Signature, State};

/// The declaration.
pub static BRAINTREE: Provider = Provider {
    name: "braintree",
    title: "Braintree",
    marks: &[],
    recognise: |reader| reader.field(SIGNATURE).is_ok() && reader.field(PAYLOAD).is_ok(),
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Hmac, SecretKind::ApiKey],
        settings: &[],
        repeats: &[],
        ready,
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
    answer_limit: Duration::from_secs(30),
    retry_span: Duration::from_secs(24 * 3600),
    sources: &[
        "https://developer.paypal.com/braintree/docs/guides/webhooks/parse",
        "https://developer.paypal.com/braintree/docs/reference/general/webhooks",
    ],
};

const SIGNATURE: &str = "bt_signature";
const PAYLOAD: &str = "bt_payload";

fn event(reader: &Reader<'_>) -> Result<Event, Unrecognised> {
    let no = || Unrecognised(format!("form:{PAYLOAD}: it is no document in base64"));
    let payload: Vec<u8> = reader.field(PAYLOAD)?.iter().copied().filter(|byte| *byte != b'\n').collect();
    let document = std::str::from_utf8(&payload).ok().and_then(signature::base64).ok_or_else(no)?;
    let document = Elements::parse(std::str::from_utf8(&document).map_err(|_| no())?)?;
    let subject = |way: &str| document.text(&format!("notification/subject/{way}"));
    let first = |ways: [&str; 3]| ways.into_iter().find_map(|way| subject(way).transpose()).transpose();
    let kind = document.text("notification/kind")?.ok_or_else(|| Unrecognised("the event has no kind".into()))?;
    let reference = first(["transaction/id", "dispute/transaction/id", "subscription/id"])?;
    let reference = reference.ok_or_else(|| Unrecognised(format!("{kind} names no payment")))?;
    let own = first(["transaction/id", "dispute/id", "subscription/id"])?;
    let status = first(["transaction/status", "dispute/status", "subscription/status"])?;
    let said = first(["transaction/amount", "dispute/amount-disputed", "dispute/amount"])?;
    let code = first(["transaction/currency-iso-code", "dispute/currency-iso-code", "subscription/currency-iso-code"])?;
    let state = state(kind);
    Ok(Event {
        reference: reference.to_owned(),
        event_type: Some(kind.to_owned()),
        state,
        detail: if state.is_none() { status.map(str::to_owned) } else { None },
        amount: said.and_then(decimal),
        currency: code.and_then(amount::currency),
        // It has no id, but a time of its own, which a redelivery repeats.
        facts: facts([
            ("type", Some(kind)),
            ("at", document.text("notification/timestamp")?),
            ("id", own),
            ("status", status),
            ("amount", said),
        ]),
        ..Event::default()
    })
}

fn state(kind: &str) -> Option<State> {
    Some(match kind {
        "transaction_settled" | "transaction_disbursed" | "subscription_charged_successfully" => State::Paid,
        "transaction_settlement_declined" | "subscription_charged_unsuccessfully" => State::Failed,
        "subscription_canceled" | "subscription_expired" => State::Cancelled,
        "dispute_opened" | "dispute_lost" | "dispute_accepted" => State::ChargedBack,
        _ => return None,
    })
}

/// The private key; what signs is its digest.
fn ready(secret: &Secret) -> Result<VerifyingKey, &'static str> {
    let key = digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, secret.expose());
    Ok(signature::mac(HMAC_SHA1_FOR_LEGACY_USE_ONLY, key.as_ref()))
}

/// `public key|<hex>`, several with `&` between, over the payload as it was posted, or with one more line break. Whoever
/// has made one of them has the private key, whatever he calls the public one.
fn check(reader: &Reader<'_>, keyring: &Keyring) -> Signature {
    let (Ok(told), Ok(payload)) = (reader.field(SIGNATURE), reader.field(PAYLOAD)) else {
        return if reader.field(PAYLOAD).is_ok() { Signature::Absent } else { Signature::Invalid };
    };
    if !payload.iter().all(|byte| matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' | b'=' | b'\n'))
    {
        return Signature::Invalid;
    }
    let Ok(told) = std::str::from_utf8(&told) else { return Signature::Invalid };
    let tags = signature::tags(told.split('&').filter_map(|pair| Tag::hex(pair.split_once('|')?.1)));
    let fits = |behind: &[u8]| signature::any_mac(&keyring.keys, &[&payload, behind], &tags);
    signature::judged(fits(b"") | fits(b"\n"))
}
