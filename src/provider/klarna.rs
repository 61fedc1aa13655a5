//! Klarna: status updates of a hosted payment page, and pushes of its checkout, which are empty but for an address.

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::{Method, StatusCode};

use super::{
    amount,
    contract::{Ack, Keyring, Moves, Provider, Repeated, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, Value},
    inquiry::{Inquiry, Missing, NoEvent, Question, access::Access, moved},
    signature,
};
use crate::callback::{Alias, Event, Signature, State, Step};

/// The declaration.
pub static KLARNA: Provider = Provider {
    name: "klarna",
    title: "Klarna",
    marks: &[],
    recognise,
    // It signs nothing; who wants to know puts a token of his own into the address.
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Token, SecretKind::Hmac],
        settings: &[],
        repeats: &[Repeated::AnyParameter],
        ready: signature::text,
        check: |reader, keyring, _| check(reader, keyring),
    }),
    events: |reader, _| Ok(vec![event(reader)?]),
    event_ids: true,
    batches: false,
    inquiry: Some(&INQUIRY),
    ack: Ack::empty(StatusCode::OK),
    refusal: 401,
    paid_once: &["klarna_order"],
    moves: Moves::Undocumented,
    answer_limit: Duration::from_secs(3),
    retry_span: Duration::from_secs(48 * 3600),
    sources: &[
        "https://docs.klarna.com/payments/other-products/hosted-payment-page/api-documentation/status-callbacks/",
        "https://docs.klarna.com/klarna-checkout/additional-resources/confirm-purchase",
    ],
};

/// A push says that something is to be had of an order, and nothing else. Its keys are `username:password`; each region has an
/// address of its own (`api-na.klarna.com`, `api-oc.klarna.com`).
static INQUIRY: Inquiry = Inquiry {
    unclear: true,
    url: "https://api.klarna.com",
    questions: &[
        Question { is_for: |event| is(event, PUSH), path: "/ordermanagement/v1/orders/{reference}" },
        Question { is_for: |event| is(event, UPDATE), path: "/hpp/v1/sessions/{reference}" },
    ],
    headers: &[],
    access: Access::Basic,
    read: asked,
    missing: Missing::Not(
        "nobody says where it would call for an order, and an update of a session has an id that nobody else can give it",
    ),
    sources: &[
        "https://docs.klarna.com/api/ordermanagement/",
        "https://docs.klarna.com/payments/other-products/hosted-payment-page/api-documentation/",
    ],
};

const PUSH: &str = "KCO push";
const UPDATE: &str = "HPP status_update";

fn is(event: &Event, kind: &str) -> bool {
    event.event_type.as_deref() == Some(kind)
}

/// A session, or an order with what was captured of it and given back.
fn asked(json: Value<'_>) -> Result<Event, NoEvent> {
    let status = json.get("status").needed()?;
    let alias = |order: Cow<'_, str>| Alias { kind: Arc::from("klarna_order"), value: order.into_owned() };
    let order = json.get("order_id").text()?;
    if let Some(session) = json.get("session_id").text()? {
        let state = state(&status);
        return Ok(Event {
            reference: session.into_owned(),
            state,
            detail: state.is_none().then(|| status.to_string()),
            facts: facts([("status", Some(&status))]),
            aliases: order.map(alias).into_iter().collect(),
            ..Event::default()
        });
    }
    let (captured, refunded) = (moved(json.get("captured_amount"))?, moved(json.get("refunded_amount"))?);
    let fraud = json.get("fraud_status").text()?;
    let state = match (&*status, &captured, &refunded) {
        (_, _, Some(_)) => Some(State::Refunded),
        (_, Some(_), None) => Some(State::Paid),
        ("AUTHORIZED", None, None) => Some(State::Pending),
        ("CANCELLED" | "EXPIRED" | "CLOSED", None, None) => Some(State::Cancelled),
        _ => None,
    };
    let step = match (state, &captured) {
        (Some(State::Pending), _) => Some(Step::Authorised),
        (Some(State::Refunded), Some(_)) => Some(if refunded == captured { Step::Whole } else { Step::Part }),
        (Some(State::Cancelled), _) if &*status == "EXPIRED" => Some(Step::Expired),
        _ => None,
    };
    let minor = json.get("order_amount").amount()?;
    let currency = json.get("purchase_currency").text()?.and_then(|code| amount::currency(&code));
    let order = order.ok_or_else(|| Unrecognised("it is neither a session nor an order".into()))?;
    Ok(Event {
        reference: order.clone().into_owned(),
        state,
        step,
        detail: Some(status.to_string()),
        amount: amount::of(minor.as_deref(), currency.as_deref()),
        currency,
        aliases: vec![alias(order)],
        facts: facts([
            ("status", Some(&status)),
            ("fraud", fraud.as_deref()),
            ("captured", captured.as_deref()),
            ("refunded", refunded.as_deref()),
        ]),
        ..Event::default()
    })
}

/// What merchants call the order in the address of a push.
const PUSHED: &str = "klarna_order_id";

fn recognise(reader: &Reader<'_>) -> bool {
    let json = reader.json();
    if json.get("event_id").is_there() {
        return json.at(["session", "session_id"]).is_there();
    }
    let view = reader.view();
    *view.method == Method::POST && view.body.is_empty() && reader.query(PUSHED).is_ok_and(|order| order.is_some())
}

fn event(reader: &Reader<'_>) -> Result<Event, Unrecognised> {
    let alias = |order: Cow<'_, str>| Alias { kind: Arc::from("klarna_order"), value: order.into_owned() };
    if reader.view().body.is_empty() {
        let order = reader.query(PUSHED)?.ok_or_else(|| Unrecognised(format!("nothing stands at query:{PUSHED}")))?;
        return Ok(Event {
            reference: order.clone().into_owned(),
            event_type: Some(PUSH.to_owned()),
            aliases: vec![alias(order)],
            ..Event::default()
        });
    }
    let json = reader.json();
    let session = json.get("session");
    let status = session.get("status").needed()?;
    let state = state(&status);
    Ok(Event {
        reference: session.get("session_id").needed()?.into_owned(),
        event_id: json.get("event_id").text()?.map(Cow::into_owned),
        event_type: Some(UPDATE.to_owned()),
        state,
        detail: if state.is_none() { Some(status.clone().into_owned()) } else { None },
        facts: facts([("status", Some(&status)), ("updated", session.get("updated_at").text()?.as_deref())]),
        aliases: session.get("order_id").text()?.map(alias).into_iter().collect(),
        ..Event::default()
    })
}

/// Of the session; the order has a state of its own, which is not told.
fn state(status: &str) -> Option<State> {
    Some(match status {
        "WAITING" | "IN_PROGRESS" | "BACK" => State::Pending,
        "COMPLETED" => State::Paid,
        "FAILED" | "ERROR" => State::Failed,
        "CANCELLED" | "DISABLED" | "TIMEOUT" => State::Cancelled,
        _ => return None,
    })
}

/// A parameter of the address repeats the token, whatever the merchant calls it; one that is called a token and repeats
/// none is wrong.
fn check(reader: &Reader<'_>, keyring: &Keyring) -> Signature {
    let mut verdict = Signature::Absent;
    for (name, value) in reader.parameters() {
        if signature::any_text(&keyring.keys, &value) {
            return Signature::Valid;
        }
        let name = String::from_utf8_lossy(&name).to_ascii_lowercase();
        if name.contains("token") || name.contains("secret") {
            verdict = Signature::Invalid;
        }
    }
    verdict
}
