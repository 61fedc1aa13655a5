//! Mollie: classic webhooks, which name a payment and say nothing of it, and signed next-generation events.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
    time::Duration,
};

use http::{Method, StatusCode};
use ring::hmac;

use super::{
    contract::{Ack, Provider, Scheme, Secret, SecretKind, Unrecognised},
    extract::{Dialect, Found, JsonPath, Place, Reader, decimal},
    signature,
};
use crate::{
    callback::{Alias, Event, RequestView, Signature, State},
    time::Timestamp,
};

/// The declaration.
pub static MOLLIE: Provider = Provider {
    name: "mollie",
    title: "Mollie",
    recognise,
    scheme: Scheme::Signed(check),
    events,
    ack: Ack { status: StatusCode::OK, content_type: None, body: "" },
    refusal: StatusCode::UNAUTHORIZED,
    answer_limit: Duration::from_secs(15),
    retry_span: Duration::from_secs(26 * 3600),
    sources: &[
        "https://docs.mollie.com/reference/webhooks",
        "https://docs.mollie.com/reference/webhooks-new",
        "https://docs.mollie.com/reference/webhooks-best-practices",
    ],
};

/// One line per secret during a rotation; more than this is no rotation.
const MAX_SIGNATURES: usize = 8;
const HEADER: &str = "x-mollie-signature";

static CLASSIC_ID: LazyLock<Place> = LazyLock::new(|| Place::Form("id".into()));

const CLASSIC: [&str; 6] = ["tr_", "ord_", "pl_", "sub_", "re_", "chb_"];

/// Where frameworks look for an input, in their order.
static ANY_ID: LazyLock<[Place; 3]> =
    LazyLock::new(|| [Place::Json(JsonPath::keys(&["id"])), Place::Form("id".into()), Place::Query("id".into())]);

/// Where a next-generation event has what we read.
struct Paths {
    resource: JsonPath,
    id: JsonPath,
    kind: JsonPath,
    entity_id: JsonPath,
    status: JsonPath,
    amount: JsonPath,
    currency: JsonPath,
    hash: JsonPath,
}

static PATHS: LazyLock<Paths> = LazyLock::new(|| {
    let entity = |rest: &[&str]| JsonPath::keys(&[&["_embedded", "entity"], rest].concat());
    Paths {
        resource: JsonPath::keys(&["resource"]),
        id: JsonPath::keys(&["id"]),
        kind: JsonPath::keys(&["type"]),
        entity_id: JsonPath::keys(&["entityId"]),
        status: entity(&["status"]),
        amount: entity(&["amount", "value"]),
        currency: entity(&["amount", "currency"]),
        hash: entity(&["metadata", "hash"]),
    }
});

fn recognise(view: &RequestView<'_>) -> bool {
    if *view.method != Method::POST {
        return false;
    }
    if view.headers.contains_key(HEADER) {
        return true;
    }
    let reader = Reader::new(view, Dialect::Strict);
    match reader.read(&CLASSIC_ID) {
        Found::One(id) => classic_prefix(&id) && !view.body.contains(&b'&'),
        _ => {
            let [resource, entity] = reader.json([&PATHS.resource, &PATHS.entity_id]);
            matches!((resource, entity), (Found::One(resource), Found::One(_)) if resource == "event")
        }
    }
}

/// The id that an app behind `dialect` finds in this request if it takes it for a classic webhook of Mollie's. We tell
/// one by its body, which holds the id and nothing else; an app goes by its path, and asks its framework for the id.
#[must_use]
pub fn taken_for<'a>(view: &RequestView<'a>, dialect: Dialect) -> Found<'a> {
    match Reader::new(view, dialect).first(&*ANY_ID) {
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

fn events(view: &RequestView<'_>, dialect: Dialect) -> Result<Vec<Event>, Unrecognised> {
    let reader = Reader::new(view, dialect);
    let event = match reader.read(&CLASSIC_ID) {
        Found::One(id) => Event { reference: reference(id)?, ..Event::default() },
        Found::Absent => next_generation(&reader)?,
        Found::Empty => return Err(Unrecognised("form:id: it is empty".into())),
        Found::Ambiguous(why) => return Err(Unrecognised(why)),
    };
    Ok(vec![event])
}

fn reference(id: Cow<'_, str>) -> Result<String, Unrecognised> {
    if is_id(&id) { Ok(id.into_owned()) } else { Err(Unrecognised("the reference is no id of Mollie's".into())) }
}

fn next_generation(reader: &Reader<'_>) -> Result<Event, Unrecognised> {
    let paths = &*PATHS;
    let [resource, id, kind, entity_id, status, amount, currency, hash] = reader.json([
        &paths.resource,
        &paths.id,
        &paths.kind,
        &paths.entity_id,
        &paths.status,
        &paths.amount,
        &paths.currency,
        &paths.hash,
    ]);
    if needed(resource, "resource")? != "event" {
        return Err(Unrecognised("neither a form with an id nor an event".into()));
    }
    let kind = needed(kind, "type")?.into_owned();
    let status = optional(status);
    let (state, detail) = state(&kind, status.as_deref());
    let amount = optional(amount).and_then(|amount| decimal(&amount));
    let currency = optional(currency).filter(|code| code.len() == 3 && code.bytes().all(|b| b.is_ascii_uppercase()));
    let alias = |hash: String| Alias { kind: Arc::from("payment_hash"), value: hash };
    Ok(Event {
        reference: reference(needed(entity_id, "entityId")?)?,
        event_id: Some(needed(id, "id")?.into_owned()),
        state,
        detail,
        facts: [("type", Some(&kind)), ("status", status.as_ref()), ("amount", amount.as_ref())]
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?.clone())))
            .collect(),
        event_type: Some(kind),
        amount,
        currency,
        aliases: optional(hash).map(alias).into_iter().collect(),
    })
}

fn needed<'a>(found: Found<'a>, name: &str) -> Result<Cow<'a, str>, Unrecognised> {
    match found {
        Found::One(text) => Ok(text),
        Found::Absent | Found::Empty => Err(Unrecognised(format!("the event has no {name}"))),
        Found::Ambiguous(why) => Err(Unrecognised(why)),
    }
}

/// What is unclear may be left out where it only describes; a name that is left out makes the lock wider.
fn optional(found: Found<'_>) -> Option<String> {
    match found {
        Found::One(text) => Some(text.into_owned()),
        Found::Absent | Found::Empty | Found::Ambiguous(_) => None,
    }
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

/// A classic webhook is not signed at all; whatever is no form has to be, once there is a secret.
fn check(view: &RequestView<'_>, secrets: &[Secret], _now: Timestamp) -> Signature {
    if signature::secrets(secrets, SecretKind::Hmac).next().is_none() {
        return Signature::Unchecked;
    }
    if !view.headers.contains_key(HEADER) {
        return if Reader::new(view, Dialect::Strict).is_form() { Signature::Unchecked } else { Signature::Absent };
    }
    let lines = view.headers.get_all(HEADER).iter().filter_map(|line| line.to_str().ok());
    let tags: Vec<Vec<u8>> = lines
        .flat_map(|line| line.split(','))
        .filter_map(|tag| signature::unhex(tag.trim().strip_prefix("sha256=")?))
        .take(MAX_SIGNATURES)
        .collect();
    let secrets = signature::secrets(secrets, SecretKind::Hmac);
    if signature::any_hmac(hmac::HMAC_SHA256, secrets, view.body, &tags) {
        Signature::Valid
    } else {
        Signature::Invalid
    }
}
