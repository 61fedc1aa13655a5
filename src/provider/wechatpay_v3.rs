//! WeChat Pay v3: signed notifications whose resource is encrypted for the merchant.

use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header::AUTHORIZATION};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::{
    amount,
    contract::{Ack, Keyring, Moves, Provider, Scheme, Secret, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, Value},
    inquiry::{
        Inquiry, Missing, NoEvent, Question,
        access::{Access, SignedBy, Unsigned},
    },
    signature::{self, VerifyingKey},
};
use crate::{
    callback::{Event, Signature, State},
    time::Timestamp,
};

/// The declaration.
pub static WECHATPAY_V3: Provider = Provider {
    name: "wechatpay-v3",
    title: "WeChat Pay v3",
    marks: &[TAG],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::ApiKey, SecretKind::PublicKey, SecretKind::Certificate],
        settings: &["tolerance", "ca"],
        repeats: &[],
        ready,
        check,
    }),
    events: |reader, keyring| Ok(vec![event(reader, keyring)?]),
    event_ids: true,
    batches: false,
    inquiry: Some(&INQUIRY),
    ack: Ack::empty(StatusCode::NO_CONTENT),
    refusal: 401,
    paid_once: &[],
    moves: Moves::Undocumented,
    answer_limit: Duration::from_secs(5),
    retry_span: Duration::from_secs(25 * 3600),
    sources: &[
        "https://pay.weixin.qq.com/doc/v3/merchant/4012365342",
        "https://github.com/wechatpay-apiv3/wechatpay-go/blob/main/core/auth/validators/wechat_pay_validator.go",
    ],
};

/// Its notices have an id and say what happened; an answer tells whether that is so. Its keys are the merchant's private keys,
/// with `account` for the merchant's id and `serial` for the number of the certificate. How much was given back does not show.
static INQUIRY: Inquiry = Inquiry {
    unclear: false,
    url: "https://api.mch.weixin.qq.com",
    questions: &[Question { is_for: |_| true, path: "/v3/pay/transactions/id/{reference}?mchid={account}" }],
    headers: &[],
    access: Access::Signed(SignedBy { message, request, serial: true }),
    read: asked,
    missing: Missing::Not("it signs with a key of its own, and a notice has an id that nobody else can give it"),
    sources: &[
        "https://pay.weixin.qq.com/doc/v3/merchant/4012791858",
        "https://pay.weixin.qq.com/doc/v3/merchant/4012365336",
        "https://github.com/wechatpay-apiv3/wechatpay-go/blob/main/core/auth/credentials/wechat_pay_credential.go",
    ],
};

fn message(question: &Unsigned<'_>) -> String {
    format!("GET\n{}\n{}\n{}\n\n", question.path, seconds(question), question.nonce)
}

fn request(question: &Unsigned<'_>, signature: &str) -> http::Result<Request<Bytes>> {
    let Unsigned { account, serial, nonce, .. } = question;
    let shown = format!(
        "WECHATPAY2-SHA256-RSA2048 mchid=\"{account}\",nonce_str=\"{nonce}\",timestamp=\"{}\",serial_no=\"{serial}\",\
         signature=\"{signature}\"",
        seconds(question)
    );
    Request::get(question.path).header(AUTHORIZATION, shown).body(Bytes::new())
}

const fn seconds(question: &Unsigned<'_>) -> u64 {
    question.now.as_millis() / 1000
}

/// A transaction, as the API shows it.
fn asked(transaction: Value<'_>) -> Result<Event, NoEvent> {
    let status = transaction.get("trade_state").needed()?;
    let state = match &*status {
        "SUCCESS" => Some(State::Paid),
        "REFUND" => Some(State::Refunded),
        "NOTPAY" | "USERPAYING" => Some(State::Pending),
        "CLOSED" | "REVOKED" => Some(State::Cancelled),
        "PAYERROR" => Some(State::Failed),
        _ => None,
    };
    let money = transaction.get("amount");
    let minor = money.get("total").amount()?;
    let currency = money.get("currency").text()?.and_then(|code| amount::currency(&code));
    Ok(Event {
        reference: transaction.get("transaction_id").needed()?.into_owned(),
        state,
        detail: Some(status.to_string()),
        amount: amount::of(minor.as_deref(), currency.as_deref()),
        currency,
        facts: facts([("status", Some(&status)), ("minor", minor.as_deref())]),
        ..Event::default()
    })
}

const TAG: &str = "wechatpay-signature";
const TIME: &str = "wechatpay-timestamp";
const NONCE: &str = "wechatpay-nonce";
/// Of its own library, either way.
const TOLERANCE: Duration = Duration::from_secs(300);

fn recognise(reader: &Reader<'_>) -> bool {
    let json = reader.json();
    json.get("event_type").is_there() && json.at(["resource", "ciphertext"]).is_there()
}

fn event(reader: &Reader<'_>, keyring: &Keyring) -> Result<Event, Unrecognised> {
    let json = reader.json();
    let plain = opened(json.get("resource"), keyring)?;
    reader.json_inside(&plain, |inside| told(json, inside))
}

fn told(json: Value<'_>, inside: Value<'_>) -> Result<Event, Unrecognised> {
    let kind = json.get("event_type").needed()?.into_owned();
    let refund = inside.get("refund_id").text()?;
    let status = inside.get("refund_status").or(inside.get("trade_state")).text()?;
    let money = inside.get("amount");
    let minor = if refund.is_some() { money.get("refund") } else { money.get("total") }.amount()?;
    // Of refunds the currency is not told: the yuan.
    let currency =
        money.get("currency").text()?.and_then(|code| amount::currency(&code)).or_else(|| Some("CNY".into()));
    let state = state(&kind, status.as_deref());
    Ok(Event {
        reference: inside.get("transaction_id").needed()?.into_owned(),
        event_id: Some(json.get("id").needed()?.into_owned()),
        state,
        step: None,
        detail: if state.is_none() { status.as_deref().map(str::to_owned) } else { None },
        facts: facts([
            ("type", Some(&kind)),
            ("status", status.as_deref()),
            ("refund", refund.as_deref()),
            ("minor", minor.as_deref()),
        ]),
        event_type: Some(kind),
        amount: amount::of(minor.as_deref(), currency.as_deref()),
        currency,
        aliases: Vec::new(),
    })
}

fn state(kind: &str, status: Option<&str>) -> Option<State> {
    Some(match (kind, status) {
        ("TRANSACTION.SUCCESS", _) | (_, Some("SUCCESS")) if !kind.starts_with("REFUND.") => State::Paid,
        ("REFUND.SUCCESS", _) => State::Refunded,
        (_, Some("USERPAYING" | "NOTPAY")) => State::Pending,
        (_, Some("PAYERROR")) => State::Failed,
        (_, Some("REVOKED")) => State::Cancelled,
        _ => return None,
    })
}

/// The resource, decrypted with any of the keys that can.
fn opened(resource: Value<'_>, keyring: &Keyring) -> Result<Vec<u8>, Unrecognised> {
    let no = |why: &str| Unrecognised(format!("resource: {why}"));
    if resource.get("algorithm").needed()? != "AEAD_AES_256_GCM" {
        return Err(no("it is encrypted in a way that we do not know"));
    }
    let sealed = resource.get("ciphertext").long()?.and_then(|text| signature::base64(&text));
    let sealed = sealed.ok_or_else(|| no("its text is not in base64"))?;
    let nonce = resource.get("nonce").needed()?;
    let nonce: [u8; 12] = nonce.as_bytes().try_into().map_err(|_| no("its nonce has not twelve bytes"))?;
    let data = resource.get("associated_data").text()?.unwrap_or(Cow::Borrowed(""));
    let mut keys = keyring.keys.iter().filter_map(|key| match key {
        VerifyingKey::Text(key) => UnboundKey::new(&AES_256_GCM, key).ok().map(LessSafeKey::new),
        _ => None,
    });
    let open = |key: LessSafeKey| {
        let mut text = sealed.clone();
        let opened = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(data.as_bytes()), &mut text);
        opened.ok().map(|plain| plain.to_vec())
    };
    keys.find_map(open).ok_or_else(|| no("it is encrypted, and no key of the configuration opens it"))
}

/// The public key or certificate that signs, or the 32 characters that decrypt.
fn ready(secret: &Secret) -> Result<VerifyingKey, &'static str> {
    match secret.kind {
        SecretKind::ApiKey if secret.expose().len() != 32 => Err("the APIv3 key has 32 characters"),
        SecretKind::ApiKey => signature::text(secret),
        _ => signature::rsa(secret),
    }
}

/// RSA with SHA-256 over time, nonce and body, each with a line break behind it. Now and then it sends a wrong signature on
/// purpose, which has to be refused.
fn check(reader: &Reader<'_>, keyring: &Keyring, now: Timestamp) -> Signature {
    let view = reader.view();
    if !keyring.keys.iter().any(|key| matches!(key, VerifyingKey::Rsa(_) | VerifyingKey::Certificate(_))) {
        return Signature::Unchecked;
    }
    if !view.headers.contains_key(TAG) {
        return Signature::Absent;
    }
    let [Some(tag), Some(time), Some(nonce)] = [TAG, TIME, NONCE].map(|name| view.header(name)) else {
        return Signature::Invalid;
    };
    let Some(tag) = signature::base64(tag) else { return Signature::Invalid };
    let message = [time.as_bytes(), b"\n", nonce.as_bytes(), b"\n", view.body, b"\n"].concat();
    let near = signature::is_near(time, keyring.settings.tolerance.unwrap_or(TOLERANCE), now);
    signature::judged(signature::any_rsa(&keyring.keys, &keyring.settings, &message, &tag, now) && near)
}
