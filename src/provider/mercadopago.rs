//! Mercado Pago: notifications that name a payment and say nothing of it; what is signed is the address, not the body.

use std::{borrow::Cow, time::Duration};

use http::StatusCode;

use super::{
    amount,
    contract::{Ack, Keyring, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, Value},
    inquiry::{Body, Inquiry, Missing, NoEvent, Notice, Question, Where, access::Access, listed, moved},
    signature::{self, Tag},
};
use crate::callback::{Event, Signature, State, Step};

/// The declaration.
pub static MERCADOPAGO: Provider = Provider {
    name: "mercadopago",
    title: "Mercado Pago",
    // `x-signature` is Lemon Squeezy's as well.
    marks: &[],
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
    moves: Moves::Undocumented,
    answer_limit: Duration::from_secs(22),
    // Every quarter of an hour; it does not say for how long.
    retry_span: Duration::from_secs(4 * 24 * 3600),
    sources: &[
        "https://www.mercadopago.com.br/developers/en/docs/your-integrations/notifications/webhooks",
        "https://www.mercadopago.com.br/developers/en/docs/your-integrations/notifications/ipn",
    ],
};

/// The older notifications name a payment, and nothing tells one from another. The newer ones have an id each, and do not
/// say what happened either.
static INQUIRY: Inquiry = Inquiry {
    unclear: true,
    url: "https://api.mercadopago.com",
    questions: &[Question {
        is_for: |event| {
            event.event_type.as_deref().is_some_and(|kind| kind == NOTICE_OF_A_PAYMENT || kind.starts_with("payment."))
        },
        path: "/v1/payments/{reference}",
    }],
    headers: &[],
    access: Access::Bearer,
    read: payment,
    // The older notifications are not signed and have no id.
    missing: Missing::Made(Notice {
        event_type: Some(NOTICE_OF_A_PAYMENT),
        place: Where::Told(notified),
        content_type: "application/json",
        body: Body::Names(|payment| {
            format!("{{\"resource\":\"https://api.mercadopago.com/v1/payments/{payment}\",\"topic\":\"payment\"}}")
        }),
    }),
    sources: &[
        "https://www.mercadopago.com.br/developers/en/reference/payments/_payments_id/get",
        "https://github.com/mercadopago/sdk-nodejs/blob/master/src/clients/payment/commonTypes.ts",
    ],
};

/// What an older notification about a payment is called here.
const NOTICE_OF_A_PAYMENT: &str = "payment (IPN)";

/// Where an older notification about this payment would be sent, if no newer ones are: those have an id each, so that it would
/// not be known to be a repeat of them.
fn notified(payment: Value<'_>) -> Option<String> {
    let text = |name| payment.get(name).text().ok().flatten();
    let (address, id) = (text("notification_url")?, text("id")?);
    let (_, query) = address.split_once('?')?;
    query.split('&').any(|pair| pair == "source_news=ipn").then(|| format!("{address}&topic=payment&id={id}"))
}

const HEADER: &str = "x-signature";
const REQUEST_ID: &str = "x-request-id";

fn recognise(reader: &Reader<'_>) -> bool {
    let json = reader.json();
    let webhook = json.get("action").is_there() && json.get("api_version").is_there();
    let notice = json.get("topic").is_there() && json.get("resource").is_there();
    webhook && json.at(["data", "id"]).is_there() || notice && reader.query("topic").is_ok_and(|topic| topic.is_some())
}

fn event(reader: &Reader<'_>) -> Result<Event, Unrecognised> {
    let json = reader.json();
    let Some(action) = json.get("action").text()? else { return notice(reader) };
    Ok(Event {
        reference: one_of(reader.query("data.id")?, json.at(["data", "id"]).text()?)?,
        event_id: json.get("id").text()?.map(Cow::into_owned),
        facts: facts([("type", Some(&action))]),
        event_type: Some(action.into_owned()),
        ..Event::default()
    })
}

/// The older notification: what it is about, and its id, which may be the last segment of an address.
fn notice(reader: &Reader<'_>) -> Result<Event, Unrecognised> {
    let json = reader.json();
    let topic = match reader.query("topic")? {
        Some(topic) => topic,
        None => json.get("topic").needed()?,
    };
    let resource = json.get("resource").text()?;
    let last = resource.as_deref().and_then(|resource| resource.rsplit('/').next()).map(Cow::Borrowed);
    Ok(Event {
        reference: one_of(reader.query("id")?, last)?,
        event_type: Some(format!("{topic} (IPN)")),
        ..Event::default()
    })
}

/// A payment, as the API shows it. It stays approved when a part goes back.
fn payment(json: Value<'_>) -> Result<Event, NoEvent> {
    let (status, detail) = (json.get("status").needed()?, json.get("status_detail").text()?);
    let refunded = moved(json.get("transaction_amount_refunded"))?;
    let refunds = listed(json.get("refunds"), |refund| Ok(refund.get("status").text()?.unwrap_or_default()))?;
    let currency = json.get("currency_id").text()?.and_then(|code| amount::currency(&code));
    let step = match &*status {
        "approved" if refunded.is_some() => Some(Step::Part),
        "refunded" => Some(Step::Whole),
        "authorized" => Some(Step::Authorised),
        _ => None,
    };
    let decimals = currency.as_deref().map_or(2, amount::decimals);
    let paid = json.get("transaction_amount").amount()?.and_then(|paid| amount::padded(&paid, decimals));
    Ok(Event {
        reference: json.get("id").needed()?.into_owned(),
        state: if &*status == "approved" && refunded.is_some() { Some(State::Refunded) } else { state(&status) },
        step,
        amount: paid,
        currency,
        facts: facts([
            ("status", Some(&status)),
            ("detail", detail.as_deref()),
            ("refunded", refunded.as_deref()),
            ("refunds", refunds.as_deref()),
        ]),
        detail: detail.map(Cow::into_owned),
        ..Event::default()
    })
}

fn state(status: &str) -> Option<State> {
    Some(match status {
        "pending" | "authorized" | "in_process" => State::Pending,
        "approved" => State::Paid,
        "rejected" => State::Failed,
        "cancelled" => State::Cancelled,
        "refunded" => State::Refunded,
        "charged_back" => State::ChargedBack,
        // A dispute only asks.
        _ => return None,
    })
}

fn one_of(address: Option<Cow<'_, str>>, body: Option<Cow<'_, str>>) -> Result<String, Unrecognised> {
    match (address, body) {
        (Some(one), Some(other)) if one != other => {
            Err(Unrecognised("the address and the body name two payments".into()))
        }
        (Some(id), _) | (None, Some(id)) if !id.is_empty() => Ok(id.into_owned()),
        _ => Err(Unrecognised("no payment is named".into())),
    }
}

/// `ts=<time>,v1=<hex>` over what of these is there: the id in the address, the id of the request, the time. The older
/// notifications are never signed.
fn check(reader: &Reader<'_>, keyring: &Keyring) -> Signature {
    let view = reader.view();
    let Some(line) = view.header(HEADER) else {
        return match view.headers.contains_key(HEADER) {
            true => Signature::Invalid,
            false if reader.json().get("topic").is_there() => Signature::Unchecked,
            false => Signature::Absent,
        };
    };
    let Some(time) = signature::values(line, ',', "ts").next() else { return Signature::Invalid };
    let tags = signature::tags(signature::values(line, ',', "v1").filter_map(Tag::hex));
    let Ok(id) = reader.query("data.id") else { return Signature::Invalid };
    let part = |name: &str, value: Option<&str>| value.map(|value| format!("{name}:{value};")).unwrap_or_default();
    let rest = format!("{}ts:{time};", part("request-id", view.header(REQUEST_ID)));
    // Ids with letters may have to be in lower case.
    let lower = id.as_deref().map(str::to_ascii_lowercase);
    let fits = |id: Option<&str>| {
        let message = format!("{}{rest}", part("id", id));
        signature::any_mac(&keyring.keys, &[message.as_bytes()], &tags)
    };
    signature::judged(fits(id.as_deref()) | fits(lower.as_deref()))
}
