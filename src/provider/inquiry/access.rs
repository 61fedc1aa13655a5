//! How a question shows on whose account it is asked: keys made ready, and what is signed with them.

use std::{fmt, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Request};
use ring::{
    rand::SecureRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};

use crate::{provider::contract::Secret, time::Timestamp};

/// How a key is shown.
pub enum Access {
    /// `Authorization: Bearer KEY`.
    Bearer,
    /// `Authorization: Basic`, the key being `user:password`.
    Basic,
    /// `Authorization: Bearer TOKEN`; a token is had at this path for `user:password` (RFC 6749, section 4.4).
    Exchanged(&'static str),
    /// Each question is signed with the account's private key.
    Signed(SignedBy),
}

/// How a question is signed: RSA with SHA-256 (PKCS #1 v1.5).
pub struct SignedBy {
    /// What is signed.
    pub message: fn(&Unsigned<'_>) -> String,
    /// The question with its signature, which is given in base64; path and query instead of an address.
    pub request: fn(&Unsigned<'_>, &str) -> http::Result<Request<Bytes>>,
    /// Whether the provider goes by the serial number of the key's certificate.
    pub serial: bool,
}

/// A question that is to be signed.
#[derive(Clone, Copy, Debug)]
pub struct Unsigned<'a> {
    /// Path and query.
    pub path: &'a str,
    /// The payment.
    pub reference: &'a str,
    /// The account, as the provider calls it.
    pub account: &'a str,
    /// The serial number of the key's certificate; empty where none is gone by.
    pub serial: &'a str,
    /// A text that no other question has.
    pub nonce: &'a str,
    /// When it is asked, in wall time.
    pub now: Timestamp,
}

/// A key as it is configured.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// The key itself.
    pub secret: Secret,
    /// The account it belongs to (`account`), for who signs.
    pub account: Option<String>,
    /// The serial number of its certificate (`serial`), for who signs.
    pub serial: Option<String>,
}

/// A key made ready.
#[derive(Clone)]
pub enum Credential {
    /// It stands in this field of each question.
    Field(HeaderValue),
    /// This field is shown at this path for a token that stands in the questions.
    Exchanged(HeaderValue, &'static str),
    /// It signs each question.
    Signer(Arc<Signer>),
}

/// A private key and whose it is.
pub struct Signer {
    key: RsaKeyPair,
    account: String,
    serial: String,
    by: &'static SignedBy,
}

impl Access {
    /// The key, ready to be shown.
    ///
    /// # Errors
    ///
    /// If it is no such key; the reason does not tell it.
    pub fn ready(&'static self, key: &ApiKey) -> Result<Credential, &'static str> {
        if !matches!(self, Self::Signed(_)) && (key.account.is_some() || key.serial.is_some()) {
            return Err("`account` and `serial` are for keys that sign");
        }
        match self {
            Self::Bearer => bearer(key.secret.expose()).map(Credential::Field),
            Self::Basic => basic(&key.secret).map(Credential::Field),
            Self::Exchanged(path) => basic(&key.secret).map(|field| Credential::Exchanged(field, path)),
            Self::Signed(by) => Signer::new(by, key).map(|signer| Credential::Signer(Arc::new(signer))),
        }
    }
}

/// The field that shows this key or token (RFC 6750, section 2.1).
///
/// # Errors
///
/// If it is none; the reason does not tell it.
pub fn bearer(key: &[u8]) -> Result<HeaderValue, &'static str> {
    field(format!("Bearer {}", printable(key)?))
}

fn basic(key: &Secret) -> Result<HeaderValue, &'static str> {
    let text = printable(key.expose())?;
    if !text.contains(':') {
        return Err("it is no key: write the user and the password with a colon between them");
    }
    field(format!("Basic {}", BASE64_STANDARD.encode(text)))
}

fn printable(key: &[u8]) -> Result<&str, &'static str> {
    let text = std::str::from_utf8(key).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()));
    text.filter(|text| !text.is_empty()).ok_or("it is no key: something stands in it that is no printable letter")
}

fn field(text: String) -> Result<HeaderValue, &'static str> {
    let mut field = HeaderValue::try_from(text).map_err(|_| "it can stand in no header field")?;
    field.set_sensitive(true);
    Ok(field)
}

impl Signer {
    fn new(by: &'static SignedBy, key: &ApiKey) -> Result<Self, &'static str> {
        let plain = |text: &Option<String>| {
            text.clone().filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric()))
        };
        let account = plain(&key.account).ok_or(
            "it signs for an account: write api_keys = [{ file = \"/key.pem\", account = \"…\" }], letters and digits",
        )?;
        let serial = match (by.serial, &key.serial) {
            (true, serial) => {
                plain(serial).ok_or("it is told by its certificate's number: write serial = \"…\" beside it")?
            }
            (false, None) => String::new(),
            (false, Some(_)) => return Err("no `serial` is gone by here"),
        };
        let der = PrivateKeyDer::from_pem_slice(key.secret.expose())
            .map_err(|_| "it is no private key in PEM: it begins with -----BEGIN PRIVATE KEY-----")?;
        let pair = match &der {
            PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
            PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
            _ => return Err("it is no private key of RSA"),
        };
        let key = pair.map_err(|_| "it is no private key of RSA with at least 2048 bits")?;
        Ok(Self { key, account, serial, by })
    }

    /// The question, signed; `{account}` in its path is filled in.
    ///
    /// # Errors
    ///
    /// If there is no chance to blind the signature with, or it makes no request.
    pub fn sign(&self, chance: &dyn SecureRandom, question: &Unsigned<'_>) -> Result<Request<Bytes>, &'static str> {
        let path = question.path.replace("{account}", &self.account);
        let question = Unsigned { path: &path, account: &self.account, serial: &self.serial, ..*question };
        let mut tag = vec![0; self.key.public().modulus_len()];
        let message = (self.by.message)(&question);
        self.key
            .sign(&RSA_PKCS1_SHA256, chance, message.as_bytes(), &mut tag)
            .map_err(|_| "the question can't be signed")?;
        (self.by.request)(&question, &BASE64_STANDARD.encode(tag)).map_err(|_| "the question makes no request")
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bearer => "Bearer",
            Self::Basic => "Basic",
            Self::Exchanged(_) => "Exchanged",
            Self::Signed(_) => "Signed",
        })
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{alipay::ALIPAY, contract::SecretKind, wechatpay_v3::WECHATPAY_V3};

    fn key(text: &str) -> ApiKey {
        ApiKey { secret: Secret::new(SecretKind::ApiKey, text.as_bytes()), account: None, serial: None }
    }

    #[test]
    fn a_key_is_shown_as_its_provider_wants_it_and_prints_as_nothing() {
        let shown = |access: &'static Access, text: &str| match access.ready(&key(text)) {
            Ok(Credential::Field(field) | Credential::Exchanged(field, _)) => Ok(field),
            Ok(Credential::Signer(_)) => panic!("it signs"),
            Err(why) => Err(why),
        };
        assert_eq!(shown(&Access::Bearer, "live_1").unwrap(), "Bearer live_1");
        assert_eq!(shown(&Access::Basic, "user:pass").unwrap(), "Basic dXNlcjpwYXNz");
        assert_eq!(shown(&Access::Exchanged("/token"), "user:pass").unwrap(), "Basic dXNlcjpwYXNz");
        assert!(!format!("{:?}", Access::Bearer.ready(&key("live_1"))).contains("live_1"));
        assert!(!format!("{:?}", shown(&Access::Bearer, "live_1")).contains("live_1"));
        static BEARER: Access = Access::Bearer;
        static BASIC: Access = Access::Basic;
        for (access, text) in [(&BEARER, "a b"), (&BEARER, "a\nb"), (&BEARER, ""), (&BASIC, "user")] {
            assert!(shown(access, text).is_err(), "{text:?}");
        }
        let strange = ApiKey { account: Some("1".into()), ..key("live_1") };
        assert!(BEARER.ready(&strange).is_err());
    }

    #[test]
    fn what_cannot_sign_is_refused_with_what_to_write() {
        let wechat = &WECHATPAY_V3.inquiry.expect("it is asked").access;
        let alipay = &ALIPAY.inquiry.expect("it is asked").access;
        let of = |account: Option<&str>, serial: Option<&str>| ApiKey {
            account: account.map(str::to_owned),
            serial: serial.map(str::to_owned),
            ..key("no key")
        };
        for (access, key, part) in [
            (wechat, of(None, None), "account"),
            (wechat, of(Some("19\"0"), None), "account"),
            (wechat, of(Some("1900"), None), "serial"),
            (wechat, of(Some("1900"), Some("5F")), "BEGIN PRIVATE KEY"),
            (alipay, of(Some("2021"), Some("5F")), "serial"),
            (alipay, of(Some("2021"), None), "BEGIN PRIVATE KEY"),
        ] {
            let why = access.ready(&key).map(|_| ()).unwrap_err();
            assert!(why.contains(part), "{why}");
        }
    }
}
