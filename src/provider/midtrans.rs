//! Midtrans: notifications that carry a hash of three of their fields, the same one for a payment and for its refund.

use std::{borrow::Cow, time::Duration};

use http::StatusCode;

use super::{
    amount,
    contract::{Ack, Keyring, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, Value, decimal},
    inquiry::{Body, Inquiry, Missing, NoEvent, Notice, Question, Where, access::Access, moved},
    signature::{self, Hash, Tag},
};
use crate::callback::{Event, Signature, State, Step};

/// The declaration.
pub static MIDTRANS: Provider = Provider {
    name: "midtrans",
    title: "Midtrans",
    marks: &[],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Hmac, SecretKind::ApiKey, SecretKind::Token],
        settings: &[],
        repeats: &[],
        ready: signature::text,
        check: |reader, keyring, _| check(reader.json(), keyring),
    }),
    events: |reader, _| Ok(vec![event(reader)?]),
    event_ids: false,
    batches: false,
    inquiry: Some(&INQUIRY),
    ack: Ack::empty(StatusCode::OK),
    // How often it tries again depends on the answer; what is wrong stays wrong.
    refusal: 403,
    paid_once: &[],
    moves: Moves::Undocumented,
    answer_limit: Duration::from_secs(15),
    retry_span: Duration::from_secs(6 * 3600),
    sources: &[
        "https://docs.midtrans.com/docs/https-notification-webhooks",
        "https://docs.midtrans.com/reference/handle-notifications",
    ],
};

/// Its notifications say what happened, and the hash that they carry does not cover it; an answer tells whether it is so. Its
/// keys are `server key:`, with the colon and nothing behind it.
static INQUIRY: Inquiry = Inquiry {
    unclear: false,
    url: "https://api.midtrans.com",
    questions: &[Question { is_for: |_| true, path: "/v2/{reference}/status" }],
    headers: &[],
    access: Access::Basic,
    read: asked,
    // An answer is what a notification says, signed like one; but where every byte tells one from another it is another.
    missing: Missing::Made(Notice {
        event_type: None,
        place: Where::Began,
        content_type: "application/json",
        body: Body::Repeats(|json| json.get("signature_key").is_there() && is_known_by_what_it_says(json)),
    }),
    sources: &[
        "https://docs.midtrans.com/reference/get-transaction-status",
        "https://docs.midtrans.com/reference/api-authorization",
    ],
};

/// A transaction, as the API shows it; what went wrong stands in the answer, too.
fn asked(json: Value<'_>) -> Result<Event, NoEvent> {
    match &*json.get("status_code").needed()? {
        "404" => return Err(NoEvent::NotFound),
        "401" => return Err(NoEvent::Refused),
        code if code.starts_with('5') => return Err(NoEvent::Failed(format!("it answers {code}"))),
        _ => {}
    }
    let (status, fraud) = (json.get("transaction_status").needed()?, doubt(json)?);
    let (gross, refunded) = (json.get("gross_amount").amount()?, moved(json.get("refund_amount"))?);
    let parts = parts(json)?;
    Ok(Event {
        reference: json.get("transaction_id").needed()?.into_owned(),
        state: state(&status, fraud.as_deref()),
        detail: Some(status.to_string()),
        amount: gross.as_deref().and_then(decimal),
        currency: json.get("currency").text()?.and_then(|code| amount::currency(&code)),
        facts: facts([
            ("status", Some(&status)),
            ("fraud", fraud.as_deref()),
            ("amount", gross.as_deref()),
            ("refunded", refunded.as_deref()),
            ("parts", parts.as_deref()),
        ]),
        ..Event::default()
    })
}

fn recognise(reader: &Reader<'_>) -> bool {
    let json = reader.json();
    let names = ["transaction_id", "transaction_status", "order_id", "status_code", "gross_amount"];
    names.iter().all(|name| json.get(name).is_there())
}

fn event(reader: &Reader<'_>) -> Result<Event, Unrecognised> {
    let json = reader.json();
    let status = json.get("transaction_status").needed()?.into_owned();
    let fraud = doubt(json)?;
    let given_back = is_given_back(&status);
    let gross = json.get("gross_amount");
    let said = if given_back { json.get("refund_amount").or(gross) } else { gross }.amount()?;
    // What refunds are called is not written down; where they have no names, every byte tells one from another.
    let parts = if given_back { Some(parts(json)?.unwrap_or_else(|| reader.body_digest())) } else { None };
    Ok(Event {
        reference: json.get("transaction_id").needed()?.into_owned(),
        state: state(&status, fraud.as_deref()),
        step: step(&status),
        detail: fraud.as_deref().map(str::to_owned),
        amount: said.as_deref().and_then(decimal),
        currency: json.get("currency").text()?.and_then(|code| amount::currency(&code)),
        facts: facts([
            ("status", Some(&status)),
            ("code", json.get("status_code").text()?.as_deref()),
            ("fraud", fraud.as_deref()),
            ("amount", said.as_deref()),
            ("parts", parts.as_deref()),
        ]),
        event_type: Some(status),
        ..Event::default()
    })
}

/// What its detection of fraud has against it; to say nothing of that and to accept it are the same.
fn doubt(json: Value<'_>) -> Result<Option<Cow<'_, str>>, Unrecognised> {
    Ok(json.get("fraud_status").text()?.filter(|word| *word != "accept"))
}

fn is_given_back(status: &str) -> bool {
    status.ends_with("refund") || status.ends_with("chargeback")
}

/// Whether two that say this are the same, though not byte for byte.
fn is_known_by_what_it_says(json: Value<'_>) -> bool {
    let status = json.get("transaction_status").text().ok().flatten();
    status.is_some_and(|status| !is_given_back(&status) || parts(json).is_ok_and(|parts| parts.is_some()))
}

/// The names of the refunds, in no order but their own, for nothing says that an answer lists them as a notification does;
/// `None` where one has none.
fn parts(json: Value<'_>) -> Result<Option<String>, Unrecognised> {
    let name = |refund: Value<'_>| {
        let name = refund.get("refund_chargeback_id").or(refund.get("refund_key")).text()?;
        Ok(name.map(|name| format!("{}:{name},", name.len())))
    };
    let names: Result<Option<Vec<_>>, Unrecognised> = json.get("refunds").items()?.map(name).collect::<Result<_, _>>();
    Ok(names?.filter(|names| !names.is_empty()).map(|mut names| {
        names.sort_unstable();
        names.concat()
    }))
}

fn step(status: &str) -> Option<Step> {
    match status {
        "authorize" => Some(Step::Authorised),
        "expire" => Some(Step::Expired),
        "partial_refund" => Some(Step::Part),
        "refund" => Some(Step::Whole),
        _ => None,
    }
}

fn state(status: &str, fraud: Option<&str>) -> Option<State> {
    Some(match (status, fraud) {
        ("capture" | "settlement", None) => State::Paid,
        ("pending" | "authorize", _) | ("capture", Some("challenge")) => State::Pending,
        ("deny" | "failure", _) | ("capture", Some("deny")) => State::Failed,
        ("cancel" | "expire", _) => State::Cancelled,
        ("refund" | "partial_refund", _) => State::Refunded,
        ("chargeback" | "partial_chargeback", _) => State::ChargedBack,
        _ => return None,
    })
}

/// SHA-512 over the order, the status code, the amount and the server's key.
fn check(json: Value<'_>, keyring: &Keyring) -> Signature {
    let tag = json.get("signature_key");
    if !tag.is_there() {
        return Signature::Absent;
    }
    let tag = tag.text().ok().flatten().and_then(|tag| Tag::hex(&tag));
    let values = ["order_id", "status_code", "gross_amount"].map(|name| json.get(name).amount().ok().flatten());
    let (Some(tag), [Some(order), Some(code), Some(gross)]) = (tag, values) else { return Signature::Invalid };
    let made = |key: &[u8]| Hash::Sha512.of(&[order.as_bytes(), code.as_bytes(), gross.as_bytes(), key]);
    signature::judged(signature::any_hash(&keyring.keys, &tag, made))
}
