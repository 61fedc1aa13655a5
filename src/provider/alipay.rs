//! Alipay (China): notices as forms, signed over their fields in the order of their names.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header::CONTENT_TYPE};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    contract::{Ack, Keyring, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, Value, decimal},
    inquiry::{
        Inquiry, Missing, NoEvent, Question,
        access::{Access, SignedBy, Unsigned},
    },
    signature,
};
use crate::{
    callback::{Event, Signature, State, Step},
    time::Timestamp,
};

/// The declaration.
pub static ALIPAY: Provider = Provider {
    name: "alipay",
    title: "Alipay (China)",
    marks: &[],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::PublicKey, SecretKind::Certificate],
        settings: &["ca"],
        repeats: &[],
        ready: signature::rsa,
        check,
    }),
    events: |reader, _| Ok(vec![event(reader)?]),
    event_ids: true,
    batches: false,
    inquiry: Some(&INQUIRY),
    ack: Ack { status: StatusCode::OK, content_type: Some("text/plain"), body: "success" },
    refusal: 400,
    paid_once: &[],
    moves: Moves::Undocumented,
    // It publishes none.
    answer_limit: Duration::from_secs(10),
    retry_span: Duration::from_secs(25 * 3600),
    sources: &["https://opendocs.alipay.com/open/270/105902", "https://opendocs.alipay.com/common/02mse7"],
};

/// Its notices have an id and say what happened; an answer tells whether that is so. Its keys are the app's private keys, with
/// `account` for the app's id.
static INQUIRY: Inquiry = Inquiry {
    unclear: false,
    url: "https://openapi.alipay.com",
    questions: &[Question { is_for: |_| true, path: "/gateway.do" }],
    headers: &[],
    access: Access::Signed(SignedBy { message, request, serial: false }),
    read: asked,
    missing: Missing::Not("it signs with a key of its own, and a notice has an id that nobody else can give it"),
    sources: &[
        "https://opendocs.alipay.com/open/02ekfh",
        "https://opendocs.alipay.com/common/02kf5q",
        "https://github.com/alipay/alipay-sdk-nodejs-all",
    ],
};

/// What `alipay.trade.query` is asked with, in the order of the names. The time is China's.
fn parameters(question: &Unsigned<'_>) -> [(&'static str, String); 8] {
    let time = question.now.after(Duration::from_secs(8 * 3600)).to_string();
    let seconds = time.split('.').next().unwrap_or(&time).replace('T', " ");
    [
        ("app_id", question.account.to_owned()),
        ("biz_content", format!("{{\"trade_no\":\"{}\"}}", question.reference)),
        ("charset", "utf-8".to_owned()),
        ("format", "JSON".to_owned()),
        ("method", "alipay.trade.query".to_owned()),
        ("sign_type", "RSA2".to_owned()),
        ("timestamp", seconds),
        ("version", "1.0".to_owned()),
    ]
}

fn message(question: &Unsigned<'_>) -> String {
    parameters(question).map(|(name, value)| format!("{name}={value}")).join("&")
}

fn request(question: &Unsigned<'_>, signature: &str) -> http::Result<Request<Bytes>> {
    let pair = |name: &str, value: &str| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
    let told = parameters(question).map(|(name, value)| pair(name, &value)).join("&");
    let body = format!("{told}&{}", pair("sign", signature));
    let form = "application/x-www-form-urlencoded;charset=utf-8";
    Request::post(question.path).header(CONTENT_TYPE, form).body(body.into())
}

/// A trade, as `alipay.trade.query` shows it. A refund in part does not show, and a closed trade may have been paid before.
/// Its own signature is not looked at: the answer came over TLS from where it was asked for.
fn asked(json: Value<'_>) -> Result<Event, NoEvent> {
    let trade = json.get("alipay_trade_query_response").or(json.get("error_response"));
    let (code, detail) = (trade.get("code").needed()?, trade.get("sub_code").text()?);
    match (&*code, detail.as_deref()) {
        ("10000", _) => {}
        ("40004", Some("ACQ.TRADE_NOT_EXIST")) => return Err(NoEvent::NotFound),
        ("40001" | "40002" | "40006" | "20001", _) => return Err(NoEvent::Refused),
        (code, detail) => return Err(NoEvent::Failed(format!("it answers {code} {}", detail.unwrap_or_default()))),
    }
    let status = trade.get("trade_status").needed()?;
    let total = trade.get("total_amount").amount()?;
    Ok(Event {
        reference: trade.get("trade_no").needed()?.into_owned(),
        state: state(&status, false).filter(|state| *state != State::Cancelled),
        detail: Some(status.to_string()),
        amount: total.as_deref().and_then(decimal),
        currency: Some("CNY".to_owned()),
        facts: facts([("status", Some(&status)), ("amount", total.as_deref())]),
        ..Event::default()
    })
}

fn recognise(reader: &Reader<'_>) -> bool {
    let there = |name: &&str| reader.form(name).is_ok_and(|value| value.is_some());
    reader.is_form() && ["trade_no", "notify_id", "notify_type", "app_id"].iter().all(there)
}

fn event(reader: &Reader<'_>) -> Result<Event, Unrecognised> {
    let needed = |name: &str| reader.form(name)?.ok_or_else(|| Unrecognised(format!("nothing stands at form:{name}")));
    let status = needed("trade_status")?;
    // The running total; a refund in part changes nothing else.
    let refunded = reader.form("refund_fee")?;
    let said = if refunded.is_some() { refunded.clone() } else { reader.form("total_amount")? };
    Ok(Event {
        reference: needed("trade_no")?.into_owned(),
        event_id: Some(needed("notify_id")?.into_owned()),
        state: state(&status, refunded.is_some()),
        // A refund of the whole closes the trade.
        step: refunded.is_some().then_some(if status == "TRADE_CLOSED" { Step::Whole } else { Step::Part }),
        amount: said.as_deref().and_then(decimal),
        currency: Some("CNY".to_owned()),
        facts: facts([
            ("status", Some(&status)),
            ("refunded", refunded.as_deref()),
            ("refund", reader.form("out_biz_no")?.as_deref()),
            ("amount", said.as_deref()),
        ]),
        event_type: Some(status.into_owned()),
        ..Event::default()
    })
}

fn state(status: &str, refunded: bool) -> Option<State> {
    Some(match status {
        "WAIT_BUYER_PAY" => State::Pending,
        "TRADE_SUCCESS" | "TRADE_CLOSED" if refunded => State::Refunded,
        "TRADE_SUCCESS" | "TRADE_FINISHED" => State::Paid,
        "TRADE_CLOSED" => State::Cancelled,
        _ => return None,
    })
}

/// RSA with SHA-256 over `name=value` of all fields but the signature and its type, in the order of their names.
///
/// Its libraries differ on fields without a value, and older interfaces sign the type as well. Any of these will do, for
/// each covers every value.
fn check(reader: &Reader<'_>, keyring: &Keyring, now: Timestamp) -> Signature {
    let mut fields = reader.fields();
    fields.sort();
    // A name that stands there twice is read in two ways.
    if !fields.is_sorted_by(|(one, _), (other, _)| one < other) {
        return Signature::Invalid;
    }
    let Some(at) = fields.iter().position(|(name, _)| **name == *b"sign") else { return Signature::Absent };
    let (_, tag) = fields.remove(at);
    let Some(tag) = std::str::from_utf8(&tag).ok().and_then(signature::base64) else { return Signature::Invalid };
    let valid = [(false, false), (true, false), (false, true), (true, true)].into_iter().any(|(empty, kind)| {
        let told =
            fields.iter().filter(|(name, value)| (empty || !value.is_empty()) && (kind || **name != *b"sign_type"));
        let pairs: Vec<_> = told.map(|(name, value)| [&**name, b"=", &**value].concat()).collect();
        signature::any_rsa(&keyring.keys, &keyring.settings, &pairs.join(&b"&"[..]), &tag, now)
    });
    signature::judged(valid)
}
