//! What a callback says, as values: the words of the gate, with no clock, no chance and no I/O.

use std::{
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

use http::{HeaderMap, Method, StatusCode, Uri};
use ring::digest;

/// Where a callback comes from: the provider, or the payer's browser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// From the provider: webhook, IPN, notification.
    Webhook,
    /// The payer's browser coming back from the provider.
    Return,
}

impl Channel {
    /// The word used in the configuration, in logs and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Return => "return",
        }
    }
}

/// What the provider says happened to a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Begun, authorised or under way; no money has moved for good.
    Pending,
    /// The money is the merchant's.
    Paid,
    /// It will not be paid.
    Failed,
    /// Given up by the payer, the merchant or time.
    Cancelled,
    /// Given back, in whole or in part.
    Refunded,
    /// Taken back by the payer's bank.
    ChargedBack,
}

impl State {
    /// Every state, in the order of their meaning.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Paid, Self::Failed, Self::Cancelled, Self::Refunded, Self::ChargedBack];

    /// The word used in `explain`, in rules and in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Paid => "paid",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Refunded => "refunded",
            Self::ChargedBack => "charged_back",
        }
    }
}

/// A finer step of a state, where the provider tells it and money turns on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// `pending`: the money is reserved, and still the payer's.
    Authorised,
    /// `cancelled`: by time.
    Expired,
    /// `paid`: an order, a link, a bill as a whole; the payment itself has a reference of its own.
    Order,
    /// `refunded`: a part of what was paid.
    Part,
    /// `refunded`: all that was paid, by this refund and those before it.
    Whole,
}

impl Step {
    /// The word used in `explain`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Authorised => "authorised",
            Self::Expired => "expired",
            Self::Order => "order",
            Self::Part => "part",
            Self::Whole => "whole",
        }
    }
}

/// Another name under which a payment's requests come: a payment hash, an order number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Alias {
    /// What sort of name it is, as the rule or the provider calls it: `payment_hash`, `order`.
    pub kind: Arc<str>,
    /// The name itself, as the app reads it.
    pub value: String,
}

/// One statement inside a callback.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The provider's id of the payment.
    pub reference: String,
    /// The provider's id of this statement, stable over redeliveries.
    pub event_id: Option<String>,
    /// The provider's own word for what happened.
    pub event_type: Option<String>,
    /// What happened, in our words; `None` where the callback does not say.
    pub state: Option<State>,
    /// A finer step of the state, in our words; `None` where the callback does not say, or we cannot tell.
    pub step: Option<Step>,
    /// A finer step of the state, in the provider's words.
    pub detail: Option<String>,
    /// A decimal number in major units: `121.00`.
    pub amount: Option<String>,
    /// ISO 4217, upper case.
    pub currency: Option<String>,
    /// Other names of the same payment.
    pub aliases: Vec<Alias>,
    /// What tells this state from another of the same payment, where there is no event id: named values, such as the
    /// status, the amounts, the ids of refunds. Empty where the callback does not tell what happened.
    pub facts: Vec<(&'static str, String)>,
}

/// What the check of a callback's signature came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signature {
    /// One of the configured secrets made it, over these bytes, in time.
    Valid,
    /// It is there and wrong, or too old.
    Invalid,
    /// It is not there, though a secret is configured.
    Absent,
    /// Nobody could tell: no secret is configured, or the provider does not sign.
    Unchecked,
}

impl Signature {
    /// The word used in `explain` and in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Invalid => "invalid",
            Self::Absent => "absent",
            Self::Unchecked => "unchecked",
        }
    }
}

/// A read-only view of one request, from which providers and rules read; the bytes are those received.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target as received.
    pub uri: &'a Uri,
    /// The header fields as received.
    pub headers: &'a HeaderMap,
    /// The whole body; empty while it has not been read.
    pub body: &'a [u8],
    /// The named segments of the matched path template, decoded: `{company_key}` and its value.
    pub segments: &'a [(Arc<str>, String)],
}

impl RequestView<'_> {
    /// The value of a header field that stands there exactly once and is readable text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (Some(only), None) => only.to_str().ok(),
            _ => None,
        }
    }
}

/// What a caller hears: all that may be replayed of an answer, and nothing that is private to one caller.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The content type, if the app named one.
    pub content_type: Option<Box<[u8]>>,
    /// The body, or `None` where it was too large to keep (a tombstone, which still acknowledges).
    pub body: Option<Box<[u8]>>,
}

/// A digest under which something is remembered: 128 bits of SHA-256 over named, length-prefixed parts.
///
/// A second text for a key that exists is out of reach (2^128 trials). Two texts with one key (2^64 trials) can only be
/// had by whoever chooses both of them, and would merge only what he chose.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key([u8; 16]);

impl Hash for Key {
    /// Half of a digest is spread as evenly as the whole.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_le_bytes([a, b, c, d, e, f, g, h]));
    }
}

impl Key {
    /// The key with these bytes, as it was stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Starts a key for one kind of thing; keys of different kinds never meet.
    #[must_use]
    pub fn of(kind: &str) -> KeyBuilder {
        let mut builder = KeyBuilder(Vec::with_capacity(256));
        builder.field(kind.as_bytes());
        builder
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 32];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0) {
            pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        f.write_str(std::str::from_utf8(&digits).unwrap_or_default())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Collects the named parts of a [`Key`].
///
/// Each part is written as its name and its value, both with their length in front, so that `ab`+`c` and `a`+`bc`
/// make different keys.
#[derive(Clone)]
pub struct KeyBuilder(Vec<u8>);

impl KeyBuilder {
    fn field(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        self.0.extend_from_slice(bytes);
    }

    /// Adds one part.
    #[must_use]
    pub fn part(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.field(name.as_bytes());
        self.field(value.as_ref());
        self
    }

    /// The key of the parts so far.
    #[must_use]
    pub fn finish(self) -> Key {
        let digest = digest::digest(&digest::SHA256, &self.0);
        let mut key = [0; 16];
        key.copy_from_slice(&digest.as_ref()[..16]);
        Key(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_key_never_run_into_each_other() {
        let key = |a, b| Key::of("test").part("x", a).part("y", b).finish();
        assert_eq!(key("ab", "c"), key("ab", "c"));
        assert_ne!(key("ab", "c"), key("a", "bc"));
        assert_ne!(Key::of("a").part("bc", "").finish(), Key::of("ab").part("c", "").finish());
    }
}
