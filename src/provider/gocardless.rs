//! GoCardless: signed batches of events, which may speak of several payments and of other things.

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    amount,
    contract::{Ack, LateMove, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, Value},
    inquiry::{Body, Inquiry, Missing, NoEvent, Notice, Question, Where, access::Access, moved},
    signature::{self, BodyMac},
};
use crate::callback::{Alias, Event, State};

/// The declaration.
pub static GOCARDLESS: Provider = Provider {
    name: "gocardless",
    title: "GoCardless",
    marks: &[SIGNATURE.header],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Hmac],
        settings: &[],
        repeats: &[],
        ready: signature::sha256,
        check: |reader, keyring, _| SIGNATURE.check(reader, keyring),
    }),
    events: |reader, _| events(reader.json()),
    event_ids: true,
    batches: true,
    inquiry: Some(&INQUIRY),
    ack: Ack::empty(StatusCode::NO_CONTENT),
    // "Invalid Token", which it asks for.
    refusal: 498,
    paid_once: &[],
    moves: Moves::Documented(&[
        LateMove {
            after: State::Failed,
            comes: State::Pending,
            source: "https://developer.gocardless.com/api-reference/#event-actions-payment (resubmission_requested)",
        },
        LateMove {
            after: State::Paid,
            comes: State::Failed,
            source: "https://developer.gocardless.com/api-reference/#event-actions-payment (late_failure_settled)",
        },
        LateMove {
            after: State::ChargedBack,
            comes: State::Paid,
            source: "https://developer.gocardless.com/api-reference/#event-actions-payment (chargeback_cancelled)",
        },
    ]),
    answer_limit: Duration::from_secs(10),
    // It tries eight times more at growing intervals, and does not say how far they grow.
    retry_span: Duration::from_secs(3 * 24 * 3600),
    sources: &[
        "https://developer.gocardless.com/getting-started/staying-up-to-date-with-webhooks/",
        "https://support.gocardless.com/hc/en-nz/articles/360000989989-Webhook-retries-failures",
        "https://developer.gocardless.com/api-reference/#appendix-webhooks",
    ],
};

/// Its events have an id and say what happened, but not how much, and mostly not whose it is. A batch is not asked about.
static INQUIRY: Inquiry = Inquiry {
    unclear: false,
    url: "https://api.gocardless.com",
    questions: &[
        // All that has happened to it; 500 is a page.
        Question {
            is_for: |event| event.event_type.as_deref() == Some(LISTED) && event.reference.starts_with("PM"),
            path: "/events?payment={reference}&limit=500",
        },
        Question { is_for: |event| event.reference.starts_with("PM"), path: "/payments/{reference}" },
    ],
    headers: &[("gocardless-version", "2015-07-06")],
    access: Access::Bearer,
    read: asked,
    // The event has its own id there, so that the real one is a repeat of it, and the endpoint's secret is known.
    missing: Missing::Made(Notice {
        event_type: Some(LISTED),
        place: Where::Began,
        content_type: "application/json",
        body: Body::Lists { write: paid_event, sign: |keyring, body| SIGNATURE.made(keyring, body) },
    }),
    sources: &[
        "https://developer.gocardless.com/api-reference/#payments-get-a-single-payment",
        "https://developer.gocardless.com/api-reference/#events-list-events",
    ],
};

/// The kind of event, no provider's word, as which a payment is asked about whose own events are wanted.
const LISTED: &str = "listed";

const SIGNATURE: BodyMac = BodyMac { header: "webhook-signature", prefix: "" };

fn recognise(reader: &Reader<'_>) -> bool {
    let first = reader.json().get("events").items().ok().and_then(|mut events| events.next());
    first.is_some_and(|event| {
        event.get("links").is_object()
            && ["id", "resource_type", "action"].iter().all(|name| event.get(name).is_there())
    })
}

fn events(json: Value<'_>) -> Result<Vec<Event>, Unrecognised> {
    let events: Vec<_> = json.get("events").items()?.map(event).collect::<Result<_, _>>()?;
    if events.is_empty() { Err(Unrecognised("the callback carries no event".into())) } else { Ok(events) }
}

fn event(event: Value<'_>) -> Result<Event, Unrecognised> {
    let resource = event.get("resource_type").needed()?;
    let action = event.get("action").needed()?;
    let event_type = format!("{resource}.{action}");
    let state = state(&resource, &action);
    let cause = event.at(["details", "cause"]).text()?.map(Cow::into_owned);
    Ok(Event {
        reference: reference(event, &resource)?,
        event_id: Some(event.get("id").needed()?.into_owned()),
        state,
        detail: if state.is_none() { Some(action.into_owned()) } else { cause },
        facts: vec![("type", event_type.clone())],
        event_type: Some(event_type),
        aliases: aliases(event),
        ..Event::default()
    })
}

/// The flow in which the payer gave his consent, whose name is in the address to which he was sent; and the app's own name
/// for the payment, where it gave one along.
fn aliases(event: Value<'_>) -> Vec<Alias> {
    let places = [
        ("billing_request_flow", event.at(["links", "billing_request_flow"])),
        ("payment_hash", event.at(["resource_metadata", "payment_hash"])),
    ];
    // What can't be read is no name, and whoever lacks one is kept from more.
    let alias = |(kind, value): (&str, Value<'_>)| {
        let value = value.text().ok().flatten()?;
        Some(Alias { kind: Arc::from(kind), value: value.into_owned() })
    };
    places.into_iter().filter_map(alias).collect()
}

/// A payment, as the API shows it, or its events.
fn asked(json: Value<'_>) -> Result<Event, NoEvent> {
    if json.get("events").is_there() {
        return listed(json);
    }
    let payment = json.get("payments");
    let status = payment.get("status").needed()?;
    let refunded = moved(payment.get("amount_refunded"))?;
    let state = match &*status {
        "pending_customer_approval" | "pending_submission" | "submitted" => Some(State::Pending),
        "confirmed" | "paid_out" if refunded.is_some() => Some(State::Refunded),
        "confirmed" | "paid_out" => Some(State::Paid),
        "failed" | "customer_approval_denied" => Some(State::Failed),
        "cancelled" => Some(State::Cancelled),
        "charged_back" => Some(State::ChargedBack),
        _ => None,
    };
    let minor = payment.get("amount").amount()?;
    let currency = payment.get("currency").text()?.and_then(|code| amount::currency(&code));
    // A merchant may keep something else there; then it names nothing.
    let hash = payment.at(["metadata", "payment_hash"]).text().ok().flatten();
    let alias = |hash: Cow<'_, str>| Alias { kind: Arc::from("payment_hash"), value: hash.into_owned() };
    Ok(Event {
        reference: payment.get("id").needed()?.into_owned(),
        state,
        detail: Some(status.to_string()),
        amount: amount::of(minor.as_deref(), currency.as_deref()),
        currency,
        aliases: hash.map(alias).into_iter().collect(),
        facts: facts([("status", Some(&status)), ("minor", minor.as_deref()), ("refunded", refunded.as_deref())]),
        ..Event::default()
    })
}

/// A payment, as the latest of its events that says where it stands tells it.
fn listed(json: Value<'_>) -> Result<Event, NoEvent> {
    let mut told = Vec::new();
    // A refund has events of its own.
    for one in json.get("events").items()?.filter(|event| event.at(["links", "payment"]).is_there()) {
        told.push((one.get("created_at").needed()?, event(one)?));
    }
    let Some((_, first)) = told.first() else { return Err(NoEvent::NotFound) };
    let reference = first.reference.clone();
    if told.iter().any(|(_, event)| event.reference != reference) {
        return Err(Unrecognised("it lists the events of several payments".into()).into());
    }
    // Of two that happened at once the first in the list is the later one.
    told.reverse();
    let standing =
        told.into_iter().filter(|(_, event)| event.state.is_some()).max_by(|(one, _), (other, _)| one.cmp(other));
    let (state, detail) = standing.map_or((None, None), |(_, event)| (event.state, event.event_type));
    Ok(Event { reference, state, facts: facts([("latest", detail.as_deref())]), detail, ..Event::default() })
}

/// A callback with the event by which it was paid, if that is how the payment stands. Whatever has come after it, nobody has told
/// of either, and half of it would be no truth.
fn paid_event(json: Value<'_>, answer: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Listed<'a> {
        #[serde(borrow)]
        events: Vec<&'a RawValue>,
    }
    if listed(json).ok()?.state != Some(State::Paid) {
        return None;
    }
    let action = |action: &str| {
        let mut events = json.get("events").items().ok()?;
        events.position(|event| event.get("resource_type").is("payments") && event.get("action").is(action))
    };
    let at = action("confirmed").or_else(|| action("paid_out"))?;
    let listed: Listed<'_> = serde_json::from_slice(answer).ok()?;
    Some(format!("{{\"events\":[{}]}}", listed.events.get(at)?))
}

/// The payment, where it is linked; else what the event is about: of `mandates` the `mandate`.
fn reference<'d>(event: Value<'d>, resource: &'d str) -> Result<String, Unrecognised> {
    let links = event.get("links");
    if let Some(payment) = links.get("payment").text()? {
        return Ok(payment.into_owned());
    }
    let one = resource.strip_suffix('s').unwrap_or(resource);
    let told = links.get(one).text()?.map(Cow::into_owned);
    told.ok_or_else(|| Unrecognised(format!("an event links neither a payment nor what it is about ({resource})")))
}

/// What is on its way, and what comes back to the merchant after a chargeback, is a step and no state.
fn state(resource: &str, action: &str) -> Option<State> {
    Some(match (resource, action) {
        ("payments", "created" | "customer_approval_granted" | "submitted" | "resubmission_requested") => {
            State::Pending
        }
        ("payments", "confirmed" | "paid_out") => State::Paid,
        ("payments", "failed" | "late_failure_settled" | "customer_approval_denied") => State::Failed,
        ("payments", "cancelled") => State::Cancelled,
        ("payments", "charged_back" | "chargeback_settled") => State::ChargedBack,
        ("refunds", "paid") => State::Refunded,
        _ => return None,
    })
}
