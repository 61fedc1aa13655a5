//! Mollie: classic webhooks, which name a payment and say nothing of it, and signed next-generation events.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
    time::Duration,
};

use http::{Method, StatusCode};

use super::{
    amount,
    contract::{Ack, Keyring, LateMove, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::{Found, Place, Reader, Value, decimal},
    inquiry::{Body, Inquiry, Missing, NoEvent, Notice, Question, Where, access::Access, listed, moved},
    signature::{self, BodyMac},
};
use crate::callback::{Alias, Event, Signature, State, Step};

/// The declaration.
pub static MOLLIE: Provider = Provider {
    name: "mollie",
    title: "Mollie",
    marks: &[SIGNATURE.header],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Hmac],
        settings: &[],
        repeats: &[],
        ready: signature::sha256,
        check: |reader, keyring, _| check(reader, keyring),
    }),
    events: |reader, _| Ok(vec![event(reader)?]),
    event_ids: true,
    batches: false,
    inquiry: Some(&INQUIRY),
    ack: Ack::empty(StatusCode::OK),
    refusal: 401,
    paid_once: &[],
    moves: Moves::Documented(&[
        LateMove {
            after: State::Refunded,
            comes: State::Paid,
            source: "https://docs.mollie.com/docs/refunds (a refund that fails or is cancelled)",
        },
        LateMove {
            after: State::ChargedBack,
            comes: State::Paid,
            source: "https://docs.mollie.com/docs/chargebacks (a chargeback that is reversed)",
        },
    ]),
    answer_limit: Duration::from_secs(15),
    retry_span: Duration::from_secs(26 * 3600),
    sources: &[
        "https://docs.mollie.com/reference/webhooks",
        "https://docs.mollie.com/reference/webhooks-new",
        "https://docs.mollie.com/reference/webhooks-best-practices",
    ],
};

/// A classic webhook says that something has become of a payment; what, its payment says, with its refunds and chargebacks.
static INQUIRY: Inquiry = Inquiry {
    unclear: true,
    url: "https://api.mollie.com",
    questions: &[Question {
        is_for: |event| event.reference.starts_with("tr_"),
        path: "/v2/payments/{reference}?embed=refunds,chargebacks",
    }],
    headers: &[],
    access: Access::Bearer,
    read: payment,
    missing: Missing::Made(Notice {
        event_type: None,
        place: Where::Told(|payment| payment.get("webhookUrl").text().ok().flatten().map(Cow::into_owned)),
        content_type: "application/x-www-form-urlencoded",
        body: Body::Names(|reference| format!("id={reference}")),
    }),
    sources: &["https://docs.mollie.com/reference/get-payment", "https://docs.mollie.com/reference/authentication"],
};

const SIGNATURE: BodyMac = BodyMac { header: "x-mollie-signature", prefix: "sha256=" };

static CLASSIC_ID: LazyLock<Place> = LazyLock::new(|| Place::Form("id".into()));

const CLASSIC: [&str; 6] = ["tr_", "ord_", "pl_", "sub_", "re_", "chb_"];

/// Where frameworks look for an input, in their order.
static ANY_ID: LazyLock<[Place; 3]> =
    LazyLock::new(|| ["json:$.id", "form:id", "query:id"].map(|place| place.parse().expect("a place")));

fn recognise(reader: &Reader<'_>) -> bool {
    let view = reader.view();
    if *view.method != Method::POST {
        return false;
    }
    if reader.is_form() {
        // The field alone.
        return !view.body.contains(&b'&') && matches!(reader.read(&CLASSIC_ID), Found::One(id) if classic_prefix(&id));
    }
    let json = reader.json();
    json.get("resource").is("event") && json.get("entityId").is_there()
}

/// The id that an app behind `dialect` finds in this request if it takes it for a classic webhook of Mollie's. We tell
/// one by its body, which holds the id and nothing else; an app goes by its path, and asks its framework for the id.
#[must_use]
pub fn taken_for<'a>(reader: &Reader<'a>) -> Found<'a> {
    match reader.first(&*ANY_ID) {
        Found::One(id) if !CLASSIC.iter().any(|prefix| starts_with(&id, prefix)) => Found::Absent,
        found => found,
    }
}

/// A payment, an order, a payment link, a subscription: what classic webhooks name.
fn classic_prefix(id: &str) -> bool {
    is_id(id) && CLASSIC.iter().any(|prefix| id.starts_with(prefix))
}

/// Whatever the case, for an app may not look at it.
fn starts_with(id: &str, prefix: &str) -> bool {
    id.as_bytes().get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// Every id is a prefix, an underscore and letters or digits.
fn is_id(id: &str) -> bool {
    id.split_once('_').is_some_and(|(prefix, rest)| {
        !prefix.is_empty()
            && prefix.bytes().all(|byte| byte.is_ascii_lowercase())
            && !rest.is_empty()
            && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
    })
}

fn event(reader: &Reader<'_>) -> Result<Event, Unrecognised> {
    match reader.read(&CLASSIC_ID) {
        Found::One(id) => Ok(Event { reference: reference(id)?, ..Event::default() }),
        Found::Absent => next_generation(reader.json()),
        Found::Empty => Err(Unrecognised("form:id: it is empty".into())),
        Found::Ambiguous(why) => Err(Unrecognised(why)),
    }
}

fn reference(id: Cow<'_, str>) -> Result<String, Unrecognised> {
    if is_id(&id) { Ok(id.into_owned()) } else { Err(Unrecognised("the reference is no id of Mollie's".into())) }
}

fn next_generation(json: Value<'_>) -> Result<Event, Unrecognised> {
    if json.get("resource").needed()? != "event" {
        return Err(Unrecognised("neither a form with an id nor an event".into()));
    }
    let entity = json.at(["_embedded", "entity"]);
    let kind = json.get("type").needed()?.into_owned();
    let status = entity.get("status").text()?;
    let (state, detail) = state(&kind, status.as_deref());
    let amount = entity.at(["amount", "value"]).amount()?.and_then(|amount| decimal(&amount));
    let currency = entity.at(["amount", "currency"]).text()?.and_then(|code| amount::currency(&code));
    let alias = |hash: Cow<'_, str>| Alias { kind: Arc::from("payment_hash"), value: hash.into_owned() };
    let reference = reference(json.get("entityId").needed()?)?;
    let step = match state {
        Some(State::Paid) if !reference.starts_with("tr_") => Some(Step::Order),
        _ => detail.as_deref().and_then(step),
    };
    Ok(Event {
        reference,
        event_id: Some(json.get("id").needed()?.into_owned()),
        state,
        step,
        detail,
        facts: facts([("type", Some(&kind)), ("status", status.as_deref()), ("amount", amount.as_deref())]),
        event_type: Some(kind),
        amount,
        currency,
        aliases: entity.at(["metadata", "hash"]).text()?.map(alias).into_iter().collect(),
    })
}

/// A payment, as the API shows it. Its status stays `paid` when money goes back, so that amounts and refunds are told too; a
/// refund's own step is among them, for a refund that fails is as much of a change as one that is made.
fn payment(json: Value<'_>) -> Result<Event, NoEvent> {
    if json.get("resource").needed()? != "payment" {
        return Err(Unrecognised("it is no payment".into()).into());
    }
    let status = json.get("status").needed()?;
    let refunded = moved(json.at(["amountRefunded", "value"]))?;
    let charged_back = moved(json.at(["amountChargedBack", "value"]))?;
    let state = match (&charged_back, &refunded) {
        (Some(_), _) => Some(State::ChargedBack),
        (None, Some(_)) => Some(State::Refunded),
        (None, None) => word(&status),
    };
    let refunds =
        listed(json.at(["_embedded", "refunds"]), |refund| Ok(refund.get("status").text()?.unwrap_or_default()))?;
    let chargebacks = listed(json.at(["_embedded", "chargebacks"]), |chargeback| {
        Ok(Cow::Borrowed(if chargeback.get("reversedAt").text()?.is_some() { "reversed" } else { "" }))
    })?;
    let currency = json.at(["amount", "currency"]).text()?.and_then(|code| amount::currency(&code));
    let step = match (state, &refunded) {
        (Some(State::Refunded), Some(_)) if refunded == moved(json.at(["amount", "value"]))? => Some(Step::Whole),
        (Some(State::Refunded), Some(_)) => Some(Step::Part),
        _ => step(&status),
    };
    let alias = |hash: Cow<'_, str>| Alias { kind: Arc::from("payment_hash"), value: hash.into_owned() };
    // A merchant may keep a text there, or another shape; then it names nothing.
    let hash = json.at(["metadata", "hash"]).text().ok().flatten();
    Ok(Event {
        reference: reference(json.get("id").needed()?)?,
        state,
        step,
        detail: (state.map(State::as_str) != Some(&*status)).then(|| status.to_string()),
        amount: json.at(["amount", "value"]).amount()?.and_then(|amount| decimal(&amount)),
        currency,
        aliases: hash.map(alias).into_iter().collect(),
        facts: facts([
            ("status", Some(&status)),
            ("refunded", refunded.as_deref()),
            ("charged_back", charged_back.as_deref()),
            ("refunds", refunds.as_deref()),
            ("chargebacks", chargebacks.as_deref()),
        ]),
        ..Event::default()
    })
}

/// The state by the type's last word, else by the entity's status, which stays `paid` after a refund; with the
/// provider's word where ours is coarser.
fn state(kind: &str, status: Option<&str>) -> (Option<State>, Option<String>) {
    let (entity, verb) = kind.rsplit_once('.').unwrap_or(("", kind));
    let told = match (entity, verb) {
        // A refund on its way may still fail, and a reversed chargeback is money coming back.
        ("refund" | "payment-refund", "refunded") => Some(State::Refunded),
        ("refund" | "payment-refund", _) => None,
        ("chargeback" | "payment-chargeback", "created" | "received") => Some(State::ChargedBack),
        ("chargeback" | "payment-chargeback", _) => None,
        _ => word(verb).or_else(|| status.and_then(word)),
    };
    let said = if word(verb).is_some() { verb } else { status.unwrap_or(verb) };
    (told, (told.map(State::as_str) != Some(said)).then(|| said.to_owned()))
}

fn word(word: &str) -> Option<State> {
    Some(match word {
        "open" | "pending" | "authorized" | "issued" => State::Pending,
        "paid" => State::Paid,
        "failed" => State::Failed,
        "canceled" | "expired" => State::Cancelled,
        "refunded" => State::Refunded,
        "charged_back" | "charged-back" => State::ChargedBack,
        _ => return None,
    })
}

fn step(word: &str) -> Option<Step> {
    match word {
        "authorized" => Some(Step::Authorised),
        "expired" => Some(Step::Expired),
        _ => None,
    }
}

/// A classic webhook is not signed at all; whatever is no form has to be, once there is a secret.
fn check(reader: &Reader<'_>, keyring: &Keyring) -> Signature {
    match SIGNATURE.check(reader, keyring) {
        Signature::Absent if reader.is_form() => Signature::Unchecked,
        verdict => verdict,
    }
}
