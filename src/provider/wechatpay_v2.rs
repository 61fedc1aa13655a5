//! WeChat Pay v2: notices in XML; those of payments are signed over their elements, those of refunds encrypted instead.

use std::time::Duration;

use aes::{
    Aes256Dec,
    cipher::{BlockCipherDecrypt, KeyInit},
};
use http::StatusCode;
use ring::hmac;

use super::{
    amount,
    contract::{Ack, Keyring, Moves, Provider, Scheme, Secret, SecretKind, Signing, Unrecognised, facts},
    extract::{Elements, Reader},
    signature::{self, Hash, Tag, VerifyingKey},
};
use crate::{
    callback::{Event, Signature, State},
    digits::hex,
};

/// The declaration.
pub static WECHATPAY_V2: Provider = Provider {
    name: "wechatpay-v2",
    title: "WeChat Pay v2",
    marks: &[],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::ApiKey],
        settings: &[],
        repeats: &[],
        ready,
        check: |reader, keyring, _| check(reader, keyring),
    }),
    events: |reader, keyring| Ok(vec![event(&document(reader)?, keyring)?]),
    event_ids: false,
    batches: false,
    inquiry: None,
    ack: Ack {
        status: StatusCode::OK,
        content_type: Some("text/xml"),
        body: "<xml><return_code><![CDATA[SUCCESS]]></return_code><return_msg><![CDATA[OK]]></return_msg></xml>",
    },
    refusal: 400,
    paid_once: &[],
    moves: Moves::Undocumented,
    // It publishes none; that of v3.
    answer_limit: Duration::from_secs(5),
    retry_span: Duration::from_secs(25 * 3600),
    sources: &[
        "https://pay.weixin.qq.com/wiki/doc/api/jsapi.php?chapter=9_7",
        "https://pay.weixin.qq.com/wiki/doc/api/jsapi.php?chapter=9_16&index=10",
    ],
};

const SEALED: &str = "xml/req_info";

/// It is asked of every request, so only what begins as its notices do is read.
fn recognise(reader: &Reader<'_>) -> bool {
    let begins = reader.view().body.trim_ascii_start().starts_with(b"<xml>");
    begins
        && document(reader).is_ok_and(|document| {
            let there = |way: &str| document.long(way).is_ok_and(|text| text.is_some());
            there("xml/return_code") && (there(SEALED) || there("xml/transaction_id") && there("xml/mch_id"))
        })
}

fn document(reader: &Reader<'_>) -> Result<Elements, Unrecognised> {
    let text = std::str::from_utf8(reader.view().body);
    Elements::parse(text.map_err(|_| Unrecognised("the body is no text".into()))?)
}

fn event(document: &Elements, keyring: &Keyring) -> Result<Event, Unrecognised> {
    if is_sealed(document) { refund(&opened(document, keyring)?) } else { payment(document) }
}

fn payment(document: &Elements) -> Result<Event, Unrecognised> {
    let told = |name: &str| document.text(&format!("xml/{name}"));
    let needed = |name: &str| told(name)?.ok_or_else(|| Unrecognised(format!("the event has no {name}")));
    let (result, minor) = (needed("result_code")?, told("total_fee")?);
    let currency = currency(told("fee_type")?);
    Ok(Event {
        reference: needed("transaction_id")?.to_owned(),
        event_type: Some("payment".to_owned()),
        state: match result {
            "SUCCESS" => Some(State::Paid),
            "FAIL" => Some(State::Failed),
            _ => None,
        },
        amount: amount::of(minor, currency.as_deref()),
        currency,
        // It has no id, and is sent again with another nonce.
        facts: facts([("result", Some(result)), ("minor", minor)]),
        ..Event::default()
    })
}

fn refund(document: &Elements) -> Result<Event, Unrecognised> {
    let told = |name: &str| document.text(&format!("root/{name}"));
    let needed = |name: &str| told(name)?.ok_or_else(|| Unrecognised(format!("the refund has no {name}")));
    let (own, status, minor) = (needed("refund_id")?, needed("refund_status")?, told("refund_fee")?);
    let currency = currency(told("fee_type")?);
    let state = (status == "SUCCESS").then_some(State::Refunded);
    Ok(Event {
        reference: needed("transaction_id")?.to_owned(),
        event_type: Some("refund".to_owned()),
        state,
        detail: if state.is_none() { Some(status.to_owned()) } else { None },
        amount: amount::of(minor, currency.as_deref()),
        currency,
        facts: facts([("refund", Some(own)), ("status", Some(status)), ("minor", minor)]),
        ..Event::default()
    })
}

/// Where it names none: the yuan.
fn currency(told: Option<&str>) -> Option<String> {
    amount::currency(told.unwrap_or("CNY"))
}

/// Whether this is the notice of a refund: encrypted, and nothing of a payment beside it that an app might read.
fn is_sealed(document: &Elements) -> bool {
    let beside = ["result_code", "transaction_id", "out_trade_no"];
    document.flat().any(|(name, text)| name == "req_info" && !text.is_empty())
        && !document.flat().any(|(name, _)| beside.contains(&name))
}

/// What is encrypted, with any of the keys that opens it.
fn opened(document: &Elements, keyring: &Keyring) -> Result<Elements, Unrecognised> {
    let no = |why: &str| Unrecognised(format!("req_info: {why}"));
    let sealed = document.long(SEALED)?.and_then(signature::base64).ok_or_else(|| no("its text is not in base64"))?;
    let mut opened = keyring.keys.iter().filter_map(|key| match key {
        VerifyingKey::Text(key) => Elements::parse(&unsealed(&sealed, key)?).ok(),
        _ => None,
    });
    opened.next().ok_or_else(|| no("it is encrypted, and no key of the configuration opens it"))
}

/// AES-256, block by block, with the hexadecimal MD5 of the key.
fn unsealed(sealed: &[u8], key: &[u8]) -> Option<String> {
    let cipher = Aes256Dec::new_from_slice(hex(&Hash::Md5.of(&[key])).as_bytes()).ok()?;
    let (blocks, rest) = sealed.as_chunks::<16>();
    if !rest.is_empty() {
        return None;
    }
    let mut plain = Vec::with_capacity(sealed.len());
    for block in blocks {
        let mut block = (*block).into();
        cipher.decrypt_block(&mut block);
        plain.extend_from_slice(&block);
    }
    // PKCS #7: the last byte says how many were filled in.
    let filled = usize::from(*plain.last()?);
    plain.truncate(plain.len().checked_sub(filled)?);
    String::from_utf8(plain).ok()
}

/// The key of the merchant's account, which signs and encrypts.
fn ready(secret: &Secret) -> Result<VerifyingKey, &'static str> {
    if secret.expose().len() == 32 { signature::text(secret) } else { Err("the API key has 32 characters") }
}

/// MD5 or HMAC-SHA256, by its length, over `name=value` of all elements that have one, in the order of their names, with
/// the key behind them.
///
/// Refunds are not signed: that the key opens them shows who made them, not that nobody has moved their blocks about, so
/// they are unchecked; what it does not open was made by somebody else.
fn check(reader: &Reader<'_>, keyring: &Keyring) -> Signature {
    let Ok(document) = document(reader) else { return Signature::Absent };
    if is_sealed(&document) {
        return if opened(&document, keyring).is_ok() { Signature::Unchecked } else { Signature::Invalid };
    }
    let mut told: Vec<_> = document.flat().filter(|(_, text)| !text.is_empty()).collect();
    told.sort_unstable();
    // A name that stands there twice is read in two ways.
    if !told.is_sorted_by(|(one, _), (other, _)| one < other) {
        return Signature::Invalid;
    }
    let Some(at) = told.iter().position(|(name, _)| *name == "sign") else { return Signature::Absent };
    let (_, tag) = told.remove(at);
    let Some(tag) = Tag::hex(tag) else { return Signature::Invalid };
    let pairs: Vec<_> = told.iter().map(|(name, text)| format!("{name}={text}")).collect();
    let pairs = pairs.join("&");
    signature::judged(signature::any_hash(&keyring.keys, &tag, |key| {
        let message = [pairs.as_bytes(), b"&key=", key].concat();
        if tag.bytes().len() == 16 {
            Hash::Md5.of(&[&message])
        } else {
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), &message).as_ref().to_vec()
        }
    }))
}

#[cfg(test)]
mod tests {
    proptest::proptest! {
        #[test]
        fn whatever_is_encrypted_is_opened_without_a_panic(sealed in proptest::collection::vec(0_u8.., 0..100)) {
            let whole = &sealed[..sealed.len() / 16 * 16];
            let _ = (super::unsealed(&sealed, b"key"), super::unsealed(whole, b"key"));
        }
    }
}
