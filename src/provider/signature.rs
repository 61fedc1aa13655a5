//! What the checks of signatures share: keys made ready, tags read from headers, and comparisons in constant time.

mod certificate;

use std::{fmt, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use http::HeaderMap;
use ring::{digest, hmac, signature};

use super::{
    contract::{Keyring, Secret, SecretKind, Settings},
    extract::Reader,
};
use crate::{
    callback::{RequestView, Signature},
    digits::hex,
    time::Timestamp,
};

pub use certificate::{Certificate, RsaKey};

/// More tags than this on one callback are no rotation.
const MAX_TAGS: usize = 8;

/// A secret, made ready for the check it serves.
#[derive(Clone)]
pub enum VerifyingKey {
    /// The key of a keyed hash.
    Mac(hmac::Key),
    /// A text that the callback repeats, or that is hashed together with what it says.
    Text(Box<[u8]>),
    /// A public key.
    Rsa(RsaKey),
    /// A certificate with its public key, and those that vouch for it.
    Certificate(Certificate),
    /// A public key of Ed25519.
    Ed25519([u8; 32]),
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mac(_) => "Mac(***)",
            Self::Text(_) => "Text(***)",
            Self::Rsa(_) => "Rsa(…)",
            Self::Ed25519(_) => "Ed25519(…)",
            Self::Certificate(_) => "Certificate(…)",
        })
    }
}

/// The secret, as it is written, for HMAC-SHA256.
///
/// # Errors
///
/// None.
pub fn sha256(secret: &Secret) -> Result<VerifyingKey, &'static str> {
    Ok(mac(hmac::HMAC_SHA256, secret.expose()))
}

/// The secret, as it is written, for HMAC-SHA512.
///
/// # Errors
///
/// None.
pub fn sha512(secret: &Secret) -> Result<VerifyingKey, &'static str> {
    Ok(mac(hmac::HMAC_SHA512, secret.expose()))
}

/// The secret, as it is written, for who compares it or hashes it in a way of his own.
///
/// # Errors
///
/// None.
pub fn text(secret: &Secret) -> Result<VerifyingKey, &'static str> {
    Ok(VerifyingKey::Text(secret.expose().into()))
}

/// The key of a keyed hash.
#[must_use]
pub fn mac(algorithm: hmac::Algorithm, key: &[u8]) -> VerifyingKey {
    VerifyingKey::Mac(hmac::Key::new(algorithm, key))
}

/// The bytes that a text in base64 spells.
#[must_use]
pub fn base64(text: &str) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

/// A public key or a certificate, in PEM.
///
/// # Errors
///
/// If it is none, or not one of RSA with at least 2048 bits.
pub fn rsa(secret: &Secret) -> Result<VerifyingKey, &'static str> {
    match secret.kind {
        SecretKind::Certificate => Certificate::parse(secret.expose()).map(VerifyingKey::Certificate),
        _ => RsaKey::parse(secret.expose()).map(VerifyingKey::Rsa),
    }
}

/// What a provider wrote as its signature: at most 64 bytes.
#[derive(Clone, Copy)]
pub struct Tag {
    bytes: [u8; 64],
    length: usize,
}

impl Tag {
    /// The bytes that a hexadecimal text spells, in either case.
    #[must_use]
    pub fn hex(text: &str) -> Option<Self> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut bytes = [0; 64];
        if !rest.is_empty() || pairs.len() > bytes.len() {
            return None;
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            *byte = digit(*high)? << 4 | digit(*low)?;
        }
        Some(Self { bytes, length: pairs.len() })
    }

    /// The bytes that a text in base64 spells.
    #[must_use]
    pub fn base64(text: &str) -> Option<Self> {
        let mut bytes = [0; 64];
        let length = BASE64.decode_slice(text, &mut bytes).ok()?;
        Some(Self { bytes, length })
    }

    /// The tag itself.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Whether any key makes any of these tags over the message, which comes in parts.
///
/// Every pair is tried whatever the others came to, and each comparison takes the same time wherever it differs.
#[must_use]
pub fn any_mac(keys: &[VerifyingKey], message: &[&[u8]], tags: &[Tag]) -> bool {
    let mut valid = false;
    for key in keys {
        let VerifyingKey::Mac(key) = key else { continue };
        let mut context = hmac::Context::with_key(key);
        message.iter().for_each(|part| context.update(part));
        let made = context.sign();
        for tag in tags {
            valid |= same(made.as_ref(), tag.bytes());
        }
    }
    valid
}

/// Whether two texts are the same, in a time that tells only whether they are equally long.
#[must_use]
pub fn same(one: &[u8], other: &[u8]) -> bool {
    let differ = one.iter().zip(other).fold(0, |differ, (a, b)| differ | (a ^ b));
    std::hint::black_box(differ) == 0 && one.len() == other.len()
}

/// Whether any key verifies this RSA signature (PKCS #1 v1.5, SHA-256) over the message at this moment.
#[must_use]
pub fn any_rsa(keys: &[VerifyingKey], settings: &Settings, message: &[u8], tag: &[u8], now: Timestamp) -> bool {
    keys.iter().any(|key| match key {
        VerifyingKey::Rsa(key) => key.verifies(&signature::RSA_PKCS1_2048_8192_SHA256, message, tag),
        VerifyingKey::Certificate(certificate) => {
            certificate.is_good(&settings.ca, now)
                && certificate.key().verifies(&signature::RSA_PKCS1_2048_8192_SHA256, message, tag)
        }
        VerifyingKey::Mac(_) | VerifyingKey::Text(_) | VerifyingKey::Ed25519(_) => false,
    })
}

/// A keyed hash of the body in a header field of its own.
pub struct BodyMac {
    /// The field; it may stand there several times while a secret is changed.
    pub header: &'static str,
    /// What stands before the hash.
    pub prefix: &'static str,
}

impl BodyMac {
    /// The check of a callback.
    #[must_use]
    pub fn check(&self, reader: &Reader<'_>, keyring: &Keyring) -> Signature {
        let view = reader.view();
        if !view.headers.contains_key(self.header) {
            return Signature::Absent;
        }
        let told = lines(view.headers, self.header).filter_map(|tag| tag.trim().strip_prefix(self.prefix));
        judged(any_mac(&keyring.keys, &[view.body], &tags(told.filter_map(Tag::hex))))
    }

    /// The field that signs this body with the first of the secrets.
    #[must_use]
    pub fn made(&self, keyring: &Keyring, body: &[u8]) -> Option<(&'static str, String)> {
        let key =
            keyring.keys.iter().find_map(|key| if let VerifyingKey::Mac(key) = key { Some(key) } else { None })?;
        Some((self.header, format!("{}{}", self.prefix, hex(hmac::sign(key, body).as_ref()))))
    }
}

/// A hash without a key of its own: schemes that use one put the secret beside what they say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// Broken for other ends; here whoever does not know the secret still can't make one.
    Md5,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Hash {
    /// The hash of these parts, one behind the other.
    #[must_use]
    pub fn of(self, parts: &[&[u8]]) -> Vec<u8> {
        let algorithm = match self {
            Self::Md5 => return md5::compute(parts.concat()).to_vec(),
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        };
        let mut context = digest::Context::new(algorithm);
        parts.iter().for_each(|part| context.update(part));
        context.finish().as_ref().to_vec()
    }
}

/// Whether any secret makes this tag.
pub fn any_hash(keys: &[VerifyingKey], tag: &Tag, made: impl Fn(&[u8]) -> Vec<u8>) -> bool {
    keys.iter().fold(false, |valid, key| match key {
        VerifyingKey::Text(secret) => valid | same(&made(secret), tag.bytes()),
        _ => valid,
    })
}

/// As many tags as a rotation may bring.
pub fn tags(told: impl Iterator<Item = Tag>) -> Vec<Tag> {
    told.take(MAX_TAGS).collect()
}

/// Whether a header field repeats one of the secrets.
#[must_use]
pub fn token(view: &RequestView<'_>, header: &str, keyring: &Keyring) -> Signature {
    if !view.headers.contains_key(header) {
        return Signature::Absent;
    }
    judged(view.header(header).is_some_and(|told| any_text(&keyring.keys, told.as_bytes())))
}

/// Whether this is one of the secrets.
#[must_use]
pub fn any_text(keys: &[VerifyingKey], told: &[u8]) -> bool {
    keys.iter().fold(false, |valid, key| valid | matches!(key, VerifyingKey::Text(secret) if same(secret, told)))
}

/// The readable lines of a header field.
pub fn lines<'v>(headers: &'v HeaderMap, name: &str) -> impl Iterator<Item = &'v str> {
    headers.get_all(name).iter().filter_map(|line| line.to_str().ok())
}

/// The verdict on a signature that is there.
#[must_use]
pub const fn judged(valid: bool) -> Signature {
    if valid { Signature::Valid } else { Signature::Invalid }
}

/// A header of named values, such as `t=1772445601,v1=5f…,v1=3a…`: those of one name, as many as a rotation may bring.
pub fn values<'l>(line: &'l str, separator: char, name: &'l str) -> impl Iterator<Item = &'l str> {
    let named = line.split(separator).filter_map(|pair| pair.trim().split_once('='));
    named.filter(move |(key, _)| *key == name).map(|(_, value)| value).take(MAX_TAGS)
}

/// Whether a signature was made at a second that is near, before or after: for who wants it so.
#[must_use]
pub fn is_near(second: &str, tolerance: Duration, now: Timestamp) -> bool {
    made_at(second).is_some_and(|made| now.since(made) <= tolerance && made.since(now) <= tolerance)
}

fn made_at(second: &str) -> Option<Timestamp> {
    second.parse::<u64>().ok().and_then(|second| second.checked_mul(1000)).map(Timestamp::from_millis)
}

/// Whether a signature that was made at this second is not too old. One from the future is never too old: somebody's
/// clock is wrong, and the secret made it all the same.
#[must_use]
pub fn is_fresh(second: &str, tolerance: Duration, now: Timestamp) -> bool {
    made_at(second).is_some_and(|made| now.since(made) <= tolerance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_fresh_as_long_as_it_is_tolerated_and_when_a_clock_is_wrong() {
        let now = Timestamp::from_millis(1_772_445_600_000);
        let fresh = |second: &str| is_fresh(second, Duration::from_secs(300), now);
        assert!(fresh("1772445600") && fresh("1772445300") && fresh("1772449999"));
        for stale in ["1772445299", "0", "", "-1", "1772445600.0", "99999999999999999999", "18446744073709551615"] {
            assert!(!fresh(stale), "{stale}");
        }
    }

    #[test]
    fn hexadecimal_text_is_read_in_either_case_and_nothing_else_is() {
        assert_eq!(Tag::hex("00fFA0").unwrap().bytes(), [0, 255, 160]);
        for wrong in ["0", "0g", "+1", "é", &"00".repeat(65)] {
            assert!(Tag::hex(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn any_secret_and_any_tag_may_match_but_one_must() {
        let key = |bytes: &[u8]| sha256(&Secret::new(SecretKind::Hmac, bytes)).unwrap();
        let tag = |bytes: &[u8]| {
            let made = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, bytes), b"message");
            let mut tag = Tag { bytes: [0; 64], length: 32 };
            tag.bytes[..32].copy_from_slice(made.as_ref());
            tag
        };
        let old_and_new = [key(b"old"), key(b"new")];
        let check = |tags: &[Tag]| any_mac(&old_and_new, &[b"mess", b"age"], tags);
        assert!(check(&[tag(b"new")]));
        assert!(check(&[tag(b"other"), tag(b"old")]));
        assert!(!check(&[tag(b"other")]));
        assert!(!check(&[Tag { length: 31, ..tag(b"new") }]), "a part of it is not it");
        assert!(!check(&[Tag { length: 0, ..tag(b"new") }]));
        assert!(!check(&[]));
    }

    #[test]
    fn two_texts_are_the_same_when_every_byte_is() {
        assert!(same(b"", b"") && same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd") && !same(b"abc", b"ab") && !same(b"", b"a"));
    }
}
