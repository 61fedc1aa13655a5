//! Razorpay: signed events that carry whole entities; the event's id stands in a header field, which is not signed.

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::StatusCode;

use super::{
    amount,
    contract::{Ack, LateMove, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, Value},
    inquiry::{Inquiry, Missing, NoEvent, Question, access::Access, moved},
    signature::{self, BodyMac},
};
use crate::callback::{Alias, Event, State, Step};

/// The declaration.
pub static RAZORPAY: Provider = Provider {
    name: "razorpay",
    title: "Razorpay",
    marks: &[SIGNATURE.header],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Hmac],
        settings: &[],
        repeats: &[],
        ready: signature::sha256,
        check: |reader, keyring, _| SIGNATURE.check(reader, keyring),
    }),
    events: |reader, _| Ok(vec![event(reader)?]),
    event_ids: true,
    batches: false,
    inquiry: Some(&INQUIRY),
    ack: Ack::empty(StatusCode::OK),
    refusal: 400,
    paid_once: &["razorpay_order"],
    moves: Moves::Documented(&[LateMove {
        after: State::Failed,
        comes: State::Pending,
        source: "https://razorpay.com/docs/payments/late-authorisation/",
    }]),
    answer_limit: Duration::from_secs(5),
    retry_span: Duration::from_secs(24 * 3600),
    sources: &[
        "https://razorpay.com/docs/webhooks/best-practices/",
        "https://razorpay.com/docs/webhooks/validate-test/",
        "https://razorpay.com/docs/webhooks/payments/",
    ],
};

/// Its events say what happened; an answer tells whether that is so. Its keys are `key_id:key_secret`.
static INQUIRY: Inquiry = Inquiry {
    unclear: false,
    url: "https://api.razorpay.com",
    questions: &[Question { is_for: |event| event.reference.starts_with("pay_"), path: "/v1/payments/{reference}" }],
    headers: &[],
    access: Access::Basic,
    read: asked,
    missing: Missing::Not("an event has an id that nobody else can give it, and the real one would go through as well"),
    sources: &[
        "https://razorpay.com/docs/api/payments/fetch-with-id/",
        "https://razorpay.com/docs/api/authentication/",
    ],
};

const SIGNATURE: BodyMac = BodyMac { header: "x-razorpay-signature", prefix: "" };
const EVENT_ID: &str = "x-razorpay-event-id";

fn recognise(reader: &Reader<'_>) -> bool {
    let json = reader.json();
    json.get("entity").is("event") && json.get("event").is_there() && json.get("payload").is_object()
}

fn event(reader: &Reader<'_>) -> Result<Event, Unrecognised> {
    let json = reader.json();
    let kind = json.get("event").needed()?.into_owned();
    let payload = json.get("payload");
    let [payment, refund, dispute] = ["payment", "refund", "dispute"].map(|name| payload.at([name, "entity"]));
    // What is no payment and belongs to none goes by its own id.
    let contained = json.get("contains").items()?.next().map_or(Ok(None), |first| first.text())?.unwrap_or_default();
    let other = payload.at([&*contained, "entity"]);
    let subject = [refund, dispute, payment].into_iter().find(|entity| entity.is_object()).unwrap_or(other);
    let reference = refund.get("payment_id").or(dispute.get("payment_id")).or(payment.get("id")).or(other.get("id"));
    let status = subject.get("status").text()?;
    let minor = subject.get("amount").amount()?;
    let currency = subject.get("currency").text()?.and_then(|code| amount::currency(&code));
    let part = if refund.is_object() || dispute.is_object() { subject.get("id").text()? } else { None };
    let order = payment.get("order_id").text()?;
    let alias = |order: String| Alias { kind: Arc::from("razorpay_order"), value: order };
    let state = state(&kind);
    Ok(Event {
        reference: reference.needed()?.into_owned(),
        event_id: reader.header(EVENT_ID)?.map(Cow::into_owned),
        state,
        step: step(&kind, payment)?,
        detail: if state.is_none() { status.as_deref().map(str::to_owned) } else { None },
        facts: facts([
            ("type", Some(&kind)),
            ("status", status.as_deref()),
            ("part", part.as_deref()),
            ("minor", minor.as_deref()),
        ]),
        event_type: Some(kind),
        amount: amount::of(minor.as_deref(), currency.as_deref()),
        currency,
        aliases: order.map(|order| alias(order.into_owned())).into_iter().collect(),
    })
}

/// A refund comes with its payment, which says how much of it was given back in all.
fn step(kind: &str, payment: Value<'_>) -> Result<Option<Step>, Unrecognised> {
    Ok(match kind {
        "payment.authorized" => Some(Step::Authorised),
        "payment_link.expired" | "invoice.expired" => Some(Step::Expired),
        "refund.processed" => match (payment.get("amount_refunded").amount()?, payment.get("amount").amount()?) {
            (Some(refunded), Some(paid)) => Some(if refunded == paid { Step::Whole } else { Step::Part }),
            _ => None,
        },
        _ => None,
    })
}

/// A payment, as the API shows it. It stays captured when a part goes back.
fn asked(payment: Value<'_>) -> Result<Event, NoEvent> {
    if payment.get("entity").needed()? != "payment" {
        return Err(Unrecognised("it is no payment".into()).into());
    }
    let status = payment.get("status").needed()?;
    let refunded = moved(payment.get("amount_refunded"))?;
    let state = match &*status {
        "created" | "authorized" => Some(State::Pending),
        "captured" if refunded.is_some() => Some(State::Refunded),
        "captured" => Some(State::Paid),
        "refunded" => Some(State::Refunded),
        "failed" => Some(State::Failed),
        _ => None,
    };
    let minor = payment.get("amount").amount()?;
    let currency = payment.get("currency").text()?.and_then(|code| amount::currency(&code));
    let alias = |order: Cow<'_, str>| Alias { kind: Arc::from("razorpay_order"), value: order.into_owned() };
    Ok(Event {
        reference: payment.get("id").needed()?.into_owned(),
        state,
        detail: Some(status.to_string()),
        amount: amount::of(minor.as_deref(), currency.as_deref()),
        currency,
        aliases: payment.get("order_id").text()?.map(alias).into_iter().collect(),
        facts: facts([("status", Some(&status)), ("minor", minor.as_deref()), ("refunded", refunded.as_deref())]),
        ..Event::default()
    })
}

fn state(kind: &str) -> Option<State> {
    Some(match kind {
        "payment.authorized" => State::Pending,
        "payment.captured" | "order.paid" | "payment_link.paid" | "invoice.paid" => State::Paid,
        "payment.failed" => State::Failed,
        "payment_link.cancelled" | "payment_link.expired" | "invoice.expired" => State::Cancelled,
        "refund.processed" => State::Refunded,
        "payment.dispute.created" | "payment.dispute.lost" => State::ChargedBack,
        _ => return None,
    })
}
