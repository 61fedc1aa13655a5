//! Stripe: signed events, each about one object of its API, which mostly belongs to a payment intent.

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::StatusCode;

use super::{
    amount,
    contract::{Ack, Keyring, LateMove, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, Value},
    inquiry::{Inquiry, Missing, NoEvent, Question, access::Access, moved},
    signature::{self, Tag},
};
use crate::{
    callback::{Alias, Event, Signature, State, Step},
    time::Timestamp,
};

/// The declaration.
pub static STRIPE: Provider = Provider {
    name: "stripe",
    title: "Stripe",
    marks: &[HEADER],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Hmac],
        settings: &["tolerance"],
        repeats: &[],
        ready: signature::sha256,
        check,
    }),
    events: |reader, _| Ok(vec![event(reader.json())?]),
    event_ids: true,
    batches: false,
    inquiry: Some(&INQUIRY),
    ack: Ack::empty(StatusCode::OK),
    refusal: 400,
    paid_once: &[],
    moves: Moves::Documented(&[
        LateMove {
            after: State::Failed,
            comes: State::Pending,
            source: "https://docs.stripe.com/payments/paymentintents/lifecycle (a failed try leaves the intent open)",
        },
        LateMove {
            after: State::ChargedBack,
            comes: State::Paid,
            source: "https://docs.stripe.com/disputes/how-disputes-work (a dispute that is won)",
        },
    ]),
    // It publishes none.
    answer_limit: Duration::from_secs(10),
    retry_span: Duration::from_secs(3 * 24 * 3600),
    sources: &[
        "https://docs.stripe.com/webhooks",
        "https://docs.stripe.com/api/events",
        "https://docs.stripe.com/currencies",
        "https://support.stripe.com/questions/deprecation-of-fractional-isk-charges-and-refunds",
    ],
};

/// Its events have an id and say what happened; an answer tells whether that is so, and the payer's hash.
static INQUIRY: Inquiry = Inquiry {
    unclear: false,
    url: "https://api.stripe.com",
    questions: &[
        Question {
            is_for: |event| event.reference.starts_with("pi_"),
            path: "/v1/payment_intents/{reference}?expand%5B%5D=latest_charge",
        },
        Question {
            is_for: |event| ["ch_", "py_"].iter().any(|prefix| event.reference.starts_with(prefix)),
            path: "/v1/charges/{reference}",
        },
    ],
    // An account may be on an older version, where a payment intent has several charges.
    headers: &[("stripe-version", "2022-11-15")],
    access: Access::Bearer,
    read: asked,
    missing: Missing::Not(
        "an event has an id that nobody else can give it, and its list of events can't be asked about one payment",
    ),
    sources: &[
        "https://docs.stripe.com/api/payment_intents/object",
        "https://docs.stripe.com/api/charges/object",
        "https://docs.stripe.com/upgrades#2022-11-15",
    ],
};

const HEADER: &str = "stripe-signature";
/// Of its own libraries. They take a signature from the future for good, and so do we.
const TOLERANCE: Duration = Duration::from_secs(300);

fn recognise(reader: &Reader<'_>) -> bool {
    let json = reader.json();
    json.get("object").is("event") && json.get("id").begins("evt_") && json.at(["data", "object"]).is_object()
}

fn event(json: Value<'_>) -> Result<Event, Unrecognised> {
    if json.get("object").needed()? != "event" {
        return Err(Unrecognised("it is no event of Stripe's".into()));
    }
    let object = json.at(["data", "object"]);
    let kind = json.get("type").needed()?.into_owned();
    let status = object.get("status").text()?;
    let (state, detail) = state(&kind, status.as_deref(), object.get("captured").flag()?);
    let currency = object.get("currency").text()?.and_then(|code| amount::currency(&code));
    let minor = minor(&kind, object)?;
    let amount = currency.as_deref().zip(minor.as_deref()).and_then(|(currency, minor)| major(minor, currency));
    let reference = reference(object)?.into_owned();
    // The payer comes back with it.
    let intent =
        reference.starts_with("pi_").then(|| Alias { kind: Arc::from("payment_intent"), value: reference.clone() });
    Ok(Event {
        reference,
        event_id: Some(json.get("id").needed()?.into_owned()),
        state,
        step: step(&kind, object)?,
        detail,
        facts: facts([("type", Some(&kind)), ("status", status.as_deref()), ("minor", minor.as_deref())]),
        event_type: Some(kind),
        amount,
        currency,
        aliases: intent.into_iter().collect(),
    })
}

/// The payment intent, where the object belongs to one; the charge, for what belongs to a charge without one; else the
/// object itself. A payment intent may be written out whole where its id was asked to be expanded.
fn reference(object: Value<'_>) -> Result<Cow<'_, str>, Unrecognised> {
    let owner = object.get("payment_intent").or(object.get("charge"));
    let id = if owner.is_object() { owner.get("id") } else { owner };
    id.or(object.get("id")).needed()
}

/// What the event is about, in minor units: what was given back or is disputed, what has been received, or the whole.
fn minor<'d>(kind: &str, object: Value<'d>) -> Result<Option<Cow<'d, str>>, Unrecognised> {
    let places: &[&'static str] = match kind {
        "charge.refunded" => &["amount_refunded"],
        "payment_intent.succeeded" => &["amount_received", "amount"],
        _ if kind.starts_with("checkout.session.") => &["amount_total"],
        _ if kind.starts_with("invoice.") => &["amount_paid"],
        _ => &["amount"],
    };
    for place in places {
        if let Some(minor) = object.get(place).amount()? {
            return Ok(Some(minor));
        }
    }
    Ok(None)
}

/// Stripe counts in the smallest unit, save that the króna keeps the two decimals it had, and the ariary has none.
fn major(minor: &str, currency: &str) -> Option<String> {
    let decimals = match currency {
        "ISK" => 2,
        "MGA" => 0,
        // Its manuals have said both.
        "UGX" => return None,
        other => amount::decimals(other),
    };
    amount::major(minor, decimals)
}

/// A payment intent with its last charge, or a charge, as the API shows it.
fn asked(object: Value<'_>) -> Result<Event, NoEvent> {
    let kind = object.get("object").needed()?;
    let charge = match &*kind {
        "payment_intent" => object.get("latest_charge"),
        "charge" => object,
        _ => return Err(Unrecognised("it is neither a payment intent nor a charge".into()).into()),
    };
    let status = object.get("status").needed()?;
    let refunded = moved(charge.get("amount_refunded"))?;
    let disputed = charge.get("disputed").flag()? == Some(true);
    let captured = charge.get("captured").flag()?;
    let state = match &*status {
        "succeeded" if refunded.is_some() => Some(State::Refunded),
        "succeeded" if captured == Some(false) => Some(State::Pending),
        "succeeded" => Some(State::Paid),
        // Before the first try it has this word, too.
        "requires_payment_method" if object.get("last_payment_error").is_object() => Some(State::Failed),
        "requires_payment_method"
        | "requires_confirmation"
        | "requires_action"
        | "processing"
        | "requires_capture"
        | "pending" => Some(State::Pending),
        "canceled" => Some(State::Cancelled),
        "failed" => Some(State::Failed),
        _ => None,
    };
    let currency = object.get("currency").text()?.and_then(|code| amount::currency(&code));
    let received = moved(object.get("amount_received"))?;
    let minor = if received.is_some() { received.clone() } else { moved(object.get("amount"))? };
    let reference = object.get("id").needed()?.into_owned();
    let alias = |kind: &str, value: String| Alias { kind: Arc::from(kind), value };
    let intent = (&*kind == "payment_intent").then(|| alias("payment_intent", reference.clone()));
    // A merchant may keep something else there; then it names nothing.
    let hash = object.at(["metadata", "payment_hash"]).text().ok().flatten();
    let hash = hash.map(|hash| alias("payment_hash", hash.into_owned()));
    Ok(Event {
        aliases: intent.into_iter().chain(hash).collect(),
        state,
        detail: (&*status != "succeeded").then(|| status.to_string()),
        amount: currency.as_deref().zip(minor.as_deref()).and_then(|(currency, minor)| major(minor, currency)),
        currency,
        facts: facts([
            ("status", Some(&status)),
            ("minor", minor.as_deref()),
            ("refunded", refunded.as_deref()),
            ("disputed", disputed.then_some("yes")),
            ("held", (captured == Some(false)).then_some("yes")),
        ]),
        reference,
        ..Event::default()
    })
}

/// The state by the type; with the object's own word where it tells more.
///
/// What is said of a refund or a dispute on its way is a step and no state: the money may stay.
fn state(kind: &str, status: Option<&str>, captured: Option<bool>) -> (Option<State>, Option<String>) {
    let state = match kind {
        "payment_intent.created"
        | "payment_intent.processing"
        | "payment_intent.requires_action"
        | "payment_intent.amount_capturable_updated"
        | "payment_intent.partially_funded"
        | "charge.pending"
        | "checkout.session.async_payment_pending" => State::Pending,
        // A charge that has not been captured yet has succeeded in holding the money.
        "charge.succeeded" if captured == Some(false) => State::Pending,
        "payment_intent.succeeded"
        | "charge.succeeded"
        | "charge.captured"
        | "checkout.session.async_payment_succeeded" => State::Paid,
        "payment_intent.payment_failed" | "charge.failed" | "checkout.session.async_payment_failed" => State::Failed,
        "payment_intent.canceled" | "charge.expired" | "checkout.session.expired" => State::Cancelled,
        "charge.refunded" => State::Refunded,
        "charge.dispute.funds_withdrawn" => State::ChargedBack,
        // A bank that only asks takes nothing.
        "charge.dispute.created" if status.is_some_and(|status| !status.starts_with("warning_")) => State::ChargedBack,
        _ => return (None, status.map(str::to_owned)),
    };
    (Some(state), status.filter(|status| *status != "succeeded").map(str::to_owned))
}

/// A charge says whether all of it was given back.
fn step(kind: &str, object: Value<'_>) -> Result<Option<Step>, Unrecognised> {
    Ok(match kind {
        "payment_intent.amount_capturable_updated" => Some(Step::Authorised),
        "charge.succeeded" if object.get("captured").flag()? == Some(false) => Some(Step::Authorised),
        "charge.expired" | "checkout.session.expired" => Some(Step::Expired),
        "charge.refunded" => match (object.get("amount_refunded").amount()?, object.get("amount").amount()?) {
            _ if object.get("refunded").flag()? == Some(true) => Some(Step::Whole),
            (Some(refunded), Some(charged)) => Some(if refunded == charged { Step::Whole } else { Step::Part }),
            _ => None,
        },
        _ => None,
    })
}

/// `t=<seconds>,v1=<hex>[,v1=<hex>…]` over the time, a point and the body.
fn check(reader: &Reader<'_>, keyring: &Keyring, now: Timestamp) -> Signature {
    let view = reader.view();
    let line = match (view.header(HEADER), view.headers.contains_key(HEADER)) {
        (Some(line), _) => line,
        (None, true) => return Signature::Invalid,
        (None, false) => return Signature::Absent,
    };
    let mut times = signature::values(line, ',', "t");
    let (Some(time), None) = (times.next(), times.next()) else { return Signature::Invalid };
    let tags = signature::tags(signature::values(line, ',', "v1").filter_map(Tag::hex));
    let fresh = signature::is_fresh(time, keyring.settings.tolerance.unwrap_or(TOLERANCE), now);
    signature::judged(signature::any_mac(&keyring.keys, &[time.as_bytes(), b".", view.body], &tags) && fresh)
}
