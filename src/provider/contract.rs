//! What a provider declares: one value of [`Provider`] in a file of its own, and one line in the slice.

use std::time::Duration;

use http::StatusCode;

use crate::{
    callback::{Event, RequestView, Signature},
    provider::extract::Dialect,
    time::Timestamp,
};

/// Everything the gate knows about one payment provider.
pub struct Provider {
    /// The configuration key, the metric label and the folder name of its fixtures.
    pub name: &'static str,
    /// The name people know it by.
    pub title: &'static str,
    /// Whether a request looks like one of its callbacks (`provider = "auto"`); by headers and the body's shape.
    pub recognise: fn(&RequestView<'_>) -> bool,
    /// How its callbacks are signed. There is no default: a provider that does not sign writes [`Scheme::Unsigned`].
    pub scheme: Scheme,
    /// Reads the statements of a callback.
    pub events: fn(&RequestView<'_>, Dialect) -> Result<Vec<Event>, Unrecognised>,
    /// The answer that it takes for an acknowledgement.
    pub ack: Ack,
    /// The status with which a wrong signature is refused.
    pub refusal: StatusCode,
    /// How long it waits for an answer.
    pub answer_limit: Duration,
    /// From its first try of a callback to its last.
    pub retry_span: Duration,
    /// Where these facts stand: addresses of its manuals.
    pub sources: &'static [&'static str],
}

/// How a provider signs its callbacks.
pub enum Scheme {
    /// Not at all; the state has to be asked for.
    Unsigned,
    /// By a function of the received bytes and the configured secrets, any of which may match (rotation).
    Signed(fn(&RequestView<'_>, &[Secret], Timestamp) -> Signature),
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Provider({})", self.name)
    }
}

impl Scheme {
    /// What the check of this callback comes to; a provider that does not sign leaves it unchecked.
    #[must_use]
    pub fn check(&self, view: &RequestView<'_>, secrets: &[Secret], now: Timestamp) -> Signature {
        match self {
            Self::Unsigned => Signature::Unchecked,
            Self::Signed(check) => check(view, secrets, now),
        }
    }
}

/// An answer of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The status.
    pub status: StatusCode,
    /// The content type; none with an empty body.
    pub content_type: Option<&'static str>,
    /// The body, literally.
    pub body: &'static str,
}

/// Why no event could be read from a callback.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unrecognised(pub String);

/// What a secret is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// The key of a keyed hash.
    Hmac,
    /// `user:password`.
    Basic,
    /// A public key, PEM.
    PublicKey,
    /// A certificate, PEM.
    Certificate,
    /// A key for the provider's API.
    ApiKey,
    /// A text that the callback repeats.
    Token,
}

/// A secret of the configuration; it prints as `***`.
#[derive(Clone)]
pub struct Secret {
    /// What it is.
    pub kind: SecretKind,
    bytes: Box<[u8]>,
}

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(kind: SecretKind, bytes: impl Into<Box<[u8]>>) -> Self {
        Self { kind, bytes: bytes.into() }
    }

    /// The secret itself, for the one who computes with it.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}(***)", self.kind)
    }
}
