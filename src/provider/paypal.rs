//! PayPal: REST webhooks, signed with a certificate that the configuration brings and no callback may name.

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::StatusCode;

use super::{
    amount,
    contract::{Ack, Keyring, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, Value, decimal},
    inquiry::{Inquiry, Missing, NoEvent, Question, access::Access},
    signature,
};
use crate::{
    callback::{Alias, Event, Signature, State, Step},
    time::Timestamp,
};

/// The declaration.
pub static PAYPAL: Provider = Provider {
    name: "paypal",
    title: "PayPal",
    marks: &[TRANSMISSION_SIG],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Certificate, SecretKind::PublicKey],
        settings: &["webhook_id", "ca"],
        repeats: &[],
        ready: signature::rsa,
        check,
    }),
    events: |reader, _| events(reader.json()),
    event_ids: true,
    batches: true,
    inquiry: Some(&INQUIRY),
    ack: Ack::empty(StatusCode::OK),
    refusal: 400,
    paid_once: &[],
    moves: Moves::Undocumented,
    // It publishes none.
    answer_limit: Duration::from_secs(10),
    retry_span: Duration::from_secs(3 * 24 * 3600),
    sources: &[
        "https://developer.paypal.com/api/rest/webhooks/",
        "https://developer.paypal.com/api/rest/webhooks/rest/",
        "https://developer.paypal.com/api/rest/webhooks/event-names/",
    ],
};

/// Its events have an id and say what happened; an answer tells whether that is so. Its keys are `client_id:secret`.
static INQUIRY: Inquiry = Inquiry {
    unclear: false,
    url: "https://api-m.paypal.com",
    questions: &[
        Question {
            is_for: |event| {
                is_about(event, "PAYMENT.CAPTURE.") || is_about(event, "CHECKOUT.ORDER.") && !is_order(event)
            },
            path: "/v2/payments/captures/{reference}",
        },
        Question { is_for: is_order, path: "/v2/checkout/orders/{reference}" },
    ],
    headers: &[],
    access: Access::Exchanged("/v1/oauth2/token"),
    read: asked,
    missing: Missing::Not("it signs with a key of its own, and an event has an id that nobody else can give it"),
    sources: &[
        "https://developer.paypal.com/api/rest/authentication/",
        "https://developer.paypal.com/docs/api/payments/v2/#captures_get",
        "https://developer.paypal.com/docs/api/orders/v2/#orders_get",
    ],
};

fn is_about(event: &Event, kind: &str) -> bool {
    event.event_type.as_deref().is_some_and(|told| told.starts_with(kind))
}

/// An order goes by its own id until it has a capture.
fn is_order(event: &Event) -> bool {
    let own = |alias: &Alias| &*alias.kind == "paypal_order" && alias.value == event.reference;
    is_about(event, "CHECKOUT.ORDER.") && event.aliases.iter().any(own)
}

/// A capture or an order, as the API shows it.
fn asked(json: Value<'_>) -> Result<Event, NoEvent> {
    let status = json.get("status").needed()?;
    let unit = json.get("purchase_units").items()?.next();
    let money = json.get("amount").or(unit.map_or(json.get("amount"), |unit| unit.get("amount")));
    let value = money.get("value").amount()?;
    let state = match &*status {
        "COMPLETED" => Some(State::Paid),
        "REFUNDED" | "PARTIALLY_REFUNDED" => Some(State::Refunded),
        "PENDING" | "CREATED" | "SAVED" | "APPROVED" | "PAYER_ACTION_REQUIRED" => Some(State::Pending),
        "DECLINED" | "FAILED" => Some(State::Failed),
        "VOIDED" => Some(State::Cancelled),
        _ => None,
    };
    let reference = json.get("id").needed()?.into_owned();
    let order = match unit {
        Some(_) => Some(Cow::Borrowed(&*reference)),
        None => json.at(["supplementary_data", "related_ids", "order_id"]).text()?,
    };
    Ok(Event {
        aliases: order
            .map(|id| Alias { kind: Arc::from("paypal_order"), value: id.into_owned() })
            .into_iter()
            .collect(),
        state,
        detail: (&*status != "COMPLETED").then(|| status.to_string()),
        amount: value.as_deref().and_then(decimal),
        currency: money.get("currency_code").text()?.and_then(|code| amount::currency(&code)),
        facts: facts([("status", Some(&*status)), ("amount", value.as_deref())]),
        reference,
        ..Event::default()
    })
}

const TRANSMISSION_ID: &str = "paypal-transmission-id";
const TRANSMISSION_TIME: &str = "paypal-transmission-time";
const TRANSMISSION_SIG: &str = "paypal-transmission-sig";
const AUTH_ALGO: &str = "paypal-auth-algo";

fn recognise(reader: &Reader<'_>) -> bool {
    let json = reader.json();
    let named = ["id", "event_type", "resource_type", "create_time"].iter().all(|name| json.get(name).is_there());
    let resource = json.get("resource");
    // WeChat Pay's looks alike from outside, but is sealed.
    named && resource.is_object() && !resource.get("ciphertext").is_there()
}

/// One event, save where an order tells of several captures: each of them is a payment.
fn events(json: Value<'_>) -> Result<Vec<Event>, Unrecognised> {
    let kind = json.get("event_type").needed()?;
    let id = json.get("id").needed()?;
    let resource = json.get("resource");
    let made = |payment: Payment<'_>| {
        let status = payment.object.get("status").or(payment.object.get("state")).text()?;
        // Disputes have an amount of their own, older sales a total.
        let money = payment.object.get("amount").or(payment.object.get("dispute_amount"));
        let value = money.get("value").or(money.get("total")).amount()?;
        let currency = money.get("currency_code").or(money.get("currency")).text()?;
        let order = order(&kind, resource)?;
        // Before it has a capture, an order goes by its own id.
        let is_order = order.as_ref().is_some_and(|order| order.value == payment.reference);
        Ok(Event {
            reference: payment.reference,
            event_id: Some(id.clone().into_owned()),
            event_type: Some(kind.clone().into_owned()),
            state: state(&kind),
            step: is_order.then_some(Step::Order),
            detail: status.as_deref().filter(|status| *status != "COMPLETED").map(str::to_owned),
            amount: value.as_deref().and_then(decimal),
            currency: currency.as_deref().and_then(amount::currency),
            aliases: order.into_iter().collect(),
            facts: facts([("type", Some(&*kind)), ("status", status.as_deref()), ("amount", value.as_deref())]),
        })
    };
    payments(&kind, resource)?.into_iter().map(made).collect()
}

/// A payment that a webhook tells of, and the object that tells its status and its amount.
struct Payment<'d> {
    reference: String,
    object: Value<'d>,
}

fn payments<'d>(kind: &str, resource: Value<'d>) -> Result<Vec<Payment<'d>>, Unrecognised> {
    let one = |reference: Cow<'_, str>| vec![Payment { reference: reference.into_owned(), object: resource }];
    if kind.starts_with("CHECKOUT.ORDER.") {
        let captures = captures(resource)?;
        return if captures.is_empty() { resource.get("id").needed().map(one) } else { Ok(captures) };
    }
    if kind.starts_with("CUSTOMER.DISPUTE.") {
        let disputed = resource.get("disputed_transactions").items()?.next();
        let sold = disputed.map(|transaction| transaction.get("seller_transaction_id").text()).transpose()?.flatten();
        return sold.map_or_else(|| resource.get("dispute_id").needed(), Ok).map(one);
    }
    // Of what is given back or taken back, the capture is linked; an older sale is named.
    if let Some(sale) = resource.get("sale_id").text()? {
        return Ok(one(sale));
    }
    match (linked(resource, "up", "/captures/")?, kind) {
        (Some(capture), _) => Ok(one(capture)),
        (None, "PAYMENT.CAPTURE.REFUNDED") => Err(Unrecognised("the refund names no capture".into())),
        (None, _) => resource.get("id").or(resource.get("order_id")).needed().map(one),
    }
}

fn captures<'d>(order: Value<'d>) -> Result<Vec<Payment<'d>>, Unrecognised> {
    let mut captures = Vec::new();
    for unit in order.get("purchase_units").items()? {
        for capture in unit.at(["payments", "captures"]).items()? {
            captures.push(Payment { reference: capture.get("id").needed()?.into_owned(), object: capture });
        }
    }
    Ok(captures)
}

/// The last segment of the address that is linked as `rel`, if it is of this sort.
fn linked<'d>(resource: Value<'d>, rel: &str, sort: &str) -> Result<Option<Cow<'d, str>>, Unrecognised> {
    for link in resource.get("links").items()? {
        if link.get("rel").is(rel)
            && let Some(href) = link.get("href").text()?
            && let Some(at) = href.find(sort)
        {
            let last = &href[at + sort.len()..];
            return Ok((!last.is_empty() && !last.contains(['/', '?'])).then(|| Cow::Owned(last.to_owned())));
        }
    }
    Ok(None)
}

/// The order that the payment belongs to: an order is approved before it has a capture.
fn order(kind: &str, resource: Value<'_>) -> Result<Option<Alias>, Unrecognised> {
    let id = if kind.starts_with("CHECKOUT.ORDER.") {
        resource.get("id").text()?
    } else {
        resource.at(["supplementary_data", "related_ids", "order_id"]).text()?
    };
    Ok(id.map(|id| Alias { kind: Arc::from("paypal_order"), value: id.into_owned() }))
}

fn state(kind: &str) -> Option<State> {
    Some(match kind {
        "PAYMENT.CAPTURE.COMPLETED" | "PAYMENT.SALE.COMPLETED" | "CHECKOUT.ORDER.COMPLETED" => State::Paid,
        "PAYMENT.CAPTURE.PENDING"
        | "PAYMENT.SALE.PENDING"
        | "PAYMENT.AUTHORIZATION.CREATED"
        | "CHECKOUT.ORDER.APPROVED" => State::Pending,
        "PAYMENT.CAPTURE.DENIED" | "PAYMENT.CAPTURE.DECLINED" | "PAYMENT.SALE.DENIED" => State::Failed,
        "PAYMENT.AUTHORIZATION.VOIDED" | "CHECKOUT.PAYMENT-APPROVAL.REVERSED" => State::Cancelled,
        "PAYMENT.CAPTURE.REFUNDED" | "PAYMENT.SALE.REFUNDED" => State::Refunded,
        "PAYMENT.CAPTURE.REVERSED" | "PAYMENT.SALE.REVERSED" => State::ChargedBack,
        _ => return None,
    })
}

/// RSA with SHA-256 over `transmission id|transmission time|webhook id|CRC-32 of the body`. Where the certificate is to be
/// had stands in the callback too, and is not looked at: whoever could choose it could sign.
fn check(reader: &Reader<'_>, keyring: &Keyring, now: Timestamp) -> Signature {
    let view = reader.view();
    if !view.headers.contains_key(TRANSMISSION_SIG) {
        return Signature::Absent;
    }
    if keyring.settings.webhook_id.is_empty() {
        return Signature::Unchecked;
    }
    let [Some(id), Some(time), Some(tag)] =
        [TRANSMISSION_ID, TRANSMISSION_TIME, TRANSMISSION_SIG].map(|n| view.header(n))
    else {
        return Signature::Invalid;
    };
    if view.header(AUTH_ALGO).is_some_and(|algorithm| !algorithm.eq_ignore_ascii_case("SHA256withRSA")) {
        return Signature::Invalid;
    }
    let Some(tag) = signature::base64(tag.trim()) else { return Signature::Invalid };
    let sum = crc32fast::hash(view.body);
    let valid = keyring.settings.webhook_id.iter().any(|webhook_id| {
        let message = format!("{id}|{time}|{webhook_id}|{sum}");
        signature::any_rsa(&keyring.keys, &keyring.settings, message.as_bytes(), &tag, now)
    });
    signature::judged(valid)
}
