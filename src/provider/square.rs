//! Square: signed events about payments, refunds and disputes; the signature covers the address they were sent to.

use std::{borrow::Cow, time::Duration};

use http::StatusCode;

use super::{
    amount,
    contract::{Ack, Keyring, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, Value},
    inquiry::{Inquiry, Missing, NoEvent, Question, access::Access, moved},
    signature::{self, Tag},
};
use crate::callback::{Event, Signature, State};

/// The declaration.
pub static SQUARE: Provider = Provider {
    name: "square",
    title: "Square",
    marks: &[HEADER],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Hmac],
        settings: &["notification_url"],
        repeats: &[],
        ready: signature::sha256,
        check: |reader, keyring, _| check(reader, keyring),
    }),
    events: |reader, _| Ok(vec![event(reader.json())?]),
    event_ids: true,
    batches: false,
    inquiry: Some(&INQUIRY),
    ack: Ack::empty(StatusCode::OK),
    refusal: 403,
    paid_once: &[],
    moves: Moves::Undocumented,
    answer_limit: Duration::from_secs(10),
    retry_span: Duration::from_secs(24 * 3600),
    sources: &[
        "https://developer.squareup.com/docs/webhooks/overview",
        "https://developer.squareup.com/docs/webhooks/step3validate",
        "https://developer.squareup.com/docs/webhooks/troubleshooting",
    ],
};

/// Its events have an id and say what happened; an answer tells whether that is so.
static INQUIRY: Inquiry = Inquiry {
    unclear: false,
    url: "https://connect.squareup.com",
    questions: &[Question {
        is_for: |event| {
            let about = |kind: &str| ["payment.", "refund."].iter().any(|prefix| kind.starts_with(prefix));
            event.event_type.as_deref().is_some_and(about)
        },
        path: "/v2/payments/{reference}",
    }],
    headers: &[],
    access: Access::Bearer,
    read: asked,
    missing: Missing::Not("an event has an id that nobody else can give it, and the real one would go through as well"),
    sources: &["https://developer.squareup.com/reference/square/payments-api/get-payment"],
};

const HEADER: &str = "x-square-hmacsha256-signature";

fn recognise(reader: &Reader<'_>) -> bool {
    let json = reader.json();
    ["merchant_id", "event_id", "type"].iter().all(|name| json.get(name).is_there()) && json.get("data").is_object()
}

fn event(json: Value<'_>) -> Result<Event, Unrecognised> {
    let kind = json.get("type").needed()?.into_owned();
    let data = json.get("data");
    let [payment, refund, dispute] = ["payment", "refund", "dispute"].map(|name| data.at(["object", name]));
    let subject = [payment, refund, dispute].into_iter().find(|subject| subject.is_object());
    let status = subject.map_or(Ok(None), |subject| subject.get("status").or(subject.get("state")).text())?;
    let money = subject.map(|subject| subject.get("amount_money"));
    let minor = money.map_or(Ok(None), |money| money.get("amount").amount())?;
    let code = money.map_or(Ok(None), |money| money.get("currency").text())?;
    let reference = payment
        .get("id")
        .or(refund.get("payment_id"))
        .or(dispute.at(["disputed_payment", "payment_id"]))
        .or(data.get("id"));
    let (state, detail) = state(payment.is_object(), refund.is_object(), status.as_deref());
    let currency = code.as_deref().and_then(amount::currency);
    Ok(Event {
        reference: reference.needed()?.into_owned(),
        event_id: Some(json.get("event_id").needed()?.into_owned()),
        state,
        step: None,
        detail,
        facts: facts([("type", Some(&kind)), ("status", status.as_deref()), ("minor", minor.as_deref())]),
        event_type: Some(kind),
        amount: amount::of(minor.as_deref(), currency.as_deref()),
        currency,
        aliases: Vec::new(),
    })
}

/// A payment, as the API shows it. It stays completed when money goes back.
fn asked(json: Value<'_>) -> Result<Event, NoEvent> {
    let payment = json.get("payment");
    let status = payment.get("status").needed()?;
    let refunded = moved(payment.at(["refunded_money", "amount"]))?;
    let (told, detail) = state(true, false, Some(&status));
    let money = payment.get("amount_money");
    let (minor, code) = (money.get("amount").amount()?, money.get("currency").text()?);
    let currency = code.as_deref().and_then(amount::currency);
    Ok(Event {
        reference: payment.get("id").needed()?.into_owned(),
        state: if told == Some(State::Paid) && refunded.is_some() { Some(State::Refunded) } else { told },
        detail,
        amount: amount::of(minor.as_deref(), currency.as_deref()),
        currency,
        facts: facts([("status", Some(&status)), ("minor", minor.as_deref()), ("refunded", refunded.as_deref())]),
        ..Event::default()
    })
}

/// The state by the object's own word; the rest is a step.
fn state(payment: bool, refund: bool, status: Option<&str>) -> (Option<State>, Option<String>) {
    let state = match status {
        Some("APPROVED" | "PENDING") if payment => State::Pending,
        Some("COMPLETED") if payment => State::Paid,
        Some("CANCELED") if payment => State::Cancelled,
        Some("FAILED") if payment => State::Failed,
        Some("COMPLETED") if refund => State::Refunded,
        Some("LOST" | "ACCEPTED") if !payment && !refund => State::ChargedBack,
        other => return (None, other.map(str::to_owned)),
    };
    (Some(state), status.filter(|status| *status == "APPROVED").map(str::to_owned))
}

/// Over the address, as it is configured at Square, and the body right behind it.
fn check(reader: &Reader<'_>, keyring: &Keyring) -> Signature {
    let view = reader.view();
    if !view.headers.contains_key(HEADER) {
        return Signature::Absent;
    }
    let tags: Vec<Tag> =
        signature::tags(signature::lines(view.headers, HEADER).filter_map(|line| Tag::base64(line.trim())));
    let addresses = match &*keyring.settings.notification_url {
        [] => vec![Cow::Owned(addressed(reader, keyring))],
        configured => configured.iter().map(|address| Cow::Borrowed(address.as_str())).collect(),
    };
    let fits = |address: &Cow<'_, str>| signature::any_mac(&keyring.keys, &[address.as_bytes(), view.body], &tags);
    signature::judged(addresses.iter().any(fits))
}

/// Where it was sent to, as far as we know.
fn addressed(reader: &Reader<'_>, keyring: &Keyring) -> String {
    let view = reader.view();
    match &keyring.settings.public_url {
        Some(public) => format!("{public}{}", view.uri),
        None => format!("https://{}{}", view.header("host").unwrap_or_default(), view.uri),
    }
}
