//! What a provider declares: one value of [`Provider`] in a file of its own, and one line in the slice.
//!
//! # To add one
//!
//! 1. `src/provider/NAME.rs` with a `pub static NAME: Provider`. Read `gocardless.rs` first (a hash of the body, several
//!    events), then `stripe.rs` (a time in the signature, amounts in minor units, what belongs to what).
//! 2. One `mod` line and one entry of `PROVIDERS` in `src/provider.rs`; one `mod` line in no other file. The key of the
//!    configuration, the metric label and the row of the README come from there; a test prints the row it misses.
//! 3. `tests/fixtures/NAME/`: at least four requests as they stand on the wire, with ids of our own, and `expect.json`. Sign
//!    them with something that shares no code with the check: a script, `openssl`, a vector from the manual. Among them a
//!    forged one, an unsigned one, one in another order with unknown members, a later state, and one that must not be read.
//!    Each signature that is good is tried again with one bit other; `"body_is_signed": false` says that it does not cover
//!    the body.
//!
//! What goes where:
//!
//! - `events` reads through [`Reader`]: [`json`](Reader::json) gives a [`Value`](super::extract::Value) whose `needed`, `text`
//!   and `amount` end with the reason where two readers would differ. Let that reason through with `?`; leave nothing out
//!   because it is unclear.
//! - `reference` is the payment, also for its refunds and disputes. What is no payment (a customer, a payout) goes by its own
//!   id. Where none can be read, say [`Unrecognised`].
//! - `event_id` only if it stays the same over redeliveries. Without one, `facts` tell two events apart: everything that a
//!   later state would change (type, status, amounts, ids of refunds), and nothing that a redelivery would.
//! - `state` is about money: a refund on its way or a dispute that only asks is a step (`detail`), and no state.
//! - `step` says of a refund whether it gave back a part or the whole, where the provider does; and of what is paid that it is an
//!   order or a link, and the payment goes by another reference.
//! - `moves` names each move back that its manual speaks of, with the place. Where the manual leaves open how a payment may
//!   go, it is [`Moves::Undocumented`], and little is taken for too old to be forwarded.
//! - `aliases` have a kind of their own (`paypal_order`), never one that a rule might use for another sort of name: a shared
//!   kind tells callbacks apart.
//! - A signature is refused only for what the manual says. A check tries every key, compares in constant time, and takes the
//!   moment from its argument. Nothing is ever fetched.
//! - `repeats` names where a callback carries the secret itself, so that it is hidden from whoever looks at the callback; a test
//!   looks for the secrets of the fixtures in what is shown.
//! - `inquiry` only as its manual has it (`mollie.rs`; `paypal.rs` for a token, `wechatpay_v3.rs` for a signature): what is
//!   read from the answer becomes `facts`, so the same rules hold as above. `unclear` says whether callbacks of its leave open
//!   what happened; of others an answer adds to what they say, and takes the place of nothing. `missing`
//!   says whether the gate may make a callback that never came (`missing_after`), and if not, why not.

use std::time::Duration;

use http::StatusCode;

pub use super::extract::Unrecognised;
use super::{
    extract::Reader,
    inquiry::Inquiry,
    signature::{Certificate, VerifyingKey},
};
pub use crate::transaction::money::{LateMove, Moves};
use crate::{
    callback::{Answer, Event, Signature},
    time::Timestamp,
};

/// Everything the gate knows about one payment provider.
pub struct Provider {
    /// The configuration key, the metric label and the folder name of its fixtures.
    pub name: &'static str,
    /// The name people know it by.
    pub title: &'static str,
    /// Header fields, in lower case, that its callbacks carry and hardly any other's. They decide between providers
    /// whose callbacks look alike (`provider = "auto"`).
    pub marks: &'static [&'static str],
    /// Whether a request has the shape of its callbacks (`provider = "auto"`). It is asked of every request, so it looks
    /// at few things; a JSON body has been parsed once for all who ask.
    pub recognise: fn(&Reader<'_>) -> bool,
    /// How its callbacks are signed. There is no default: a provider that does not sign writes [`Scheme::Unsigned`].
    pub scheme: Scheme,
    /// Reads the statements of a callback; never none.
    pub events: fn(&Reader<'_>, &Keyring) -> Result<Vec<Event>, Unrecognised>,
    /// Whether events of its carry an id that stays the same over redeliveries.
    pub event_ids: bool,
    /// Whether one callback may carry several events.
    pub batches: bool,
    /// How it is asked what has become of a payment; `None` where it is not asked.
    pub inquiry: Option<&'static Inquiry>,
    /// The answer that it takes for an acknowledgement.
    pub ack: Ack,
    /// The status with which a wrong signature is refused: one of 4xx or 5xx.
    pub refusal: u16,
    /// Kinds of its names under which a thing is paid once, so that a second payment of it is one too many.
    pub paid_once: &'static [&'static str],
    /// Which way its payments go, and which of them come back.
    pub moves: Moves,
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
    /// By something that can be checked with the configured secrets.
    Signed(Signing),
}

/// How a signature is checked.
pub struct Signing {
    /// What serves as a secret, the usual first: the kind that is meant where the configuration names none.
    pub kinds: &'static [SecretKind],
    /// The keys of the configuration, beside its secrets, that mean something to it.
    pub settings: &'static [&'static str],
    /// Where a callback repeats the secret itself, so that it is hidden from whoever looks at one.
    pub repeats: &'static [Repeated],
    /// Makes a secret ready, once, when the configuration is read.
    pub ready: fn(&Secret) -> Result<VerifyingKey, &'static str>,
    /// Checks the received bytes with every key, any of which may match (rotation). It is asked only when there is one.
    pub check: fn(&Reader<'_>, &Keyring, Timestamp) -> Signature,
}

/// A place at which a callback carries the secret itself, and no proof of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeated {
    /// This header field, in lower case.
    Header(&'static str),
    /// This parameter of the address.
    Parameter(&'static str),
    /// A parameter of the address that the user names as he likes.
    AnyParameter,
}

/// What the user has of one provider, made ready for its scheme.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    /// Any of them may have made a signature.
    pub keys: Vec<VerifyingKey>,
    /// What else its scheme goes by.
    pub settings: Settings,
}

/// What a scheme goes by beside its secrets, as configured.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The names under which the provider knows this endpoint (PayPal).
    pub webhook_id: Vec<String>,
    /// The addresses that callbacks are sent to, as the provider knows them (Square).
    pub notification_url: Vec<String>,
    /// The address under which the providers know the gate.
    pub public_url: Option<String>,
    /// How old a signature that tells its time may be; the provider's own figure where nothing is said.
    pub tolerance: Option<Duration>,
    /// The authorities to one of which a signing certificate must lead.
    pub ca: Vec<Certificate>,
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Provider({})", self.name)
    }
}

impl Provider {
    /// The status with which a wrong signature is refused.
    #[must_use]
    pub fn refusal(&self) -> StatusCode {
        StatusCode::from_u16(self.refusal).unwrap_or(StatusCode::UNAUTHORIZED)
    }

    /// Where its callbacks carry the secret itself.
    #[must_use]
    pub const fn repeats(&self) -> &'static [Repeated] {
        match &self.scheme {
            Scheme::Signed(signing) => signing.repeats,
            Scheme::Unsigned => &[],
        }
    }
}

impl Scheme {
    /// What the check of this callback comes to; a provider that does not sign, or of which no secret is configured,
    /// leaves it unchecked.
    #[must_use]
    pub fn check(&self, reader: &Reader<'_>, keyring: &Keyring, now: Timestamp) -> Signature {
        match self {
            Self::Signed(signing) if !keyring.keys.is_empty() => (signing.check)(reader, keyring, now),
            Self::Signed(_) | Self::Unsigned => Signature::Unchecked,
        }
    }
}

impl Keyring {
    /// A keyring of these secrets for this scheme.
    ///
    /// # Errors
    ///
    /// If a secret is not what its kind says; what cannot serve the scheme is left out.
    pub fn new(scheme: &Scheme, secrets: &[Secret], settings: Settings) -> Result<Self, &'static str> {
        let Scheme::Signed(signing) = scheme else { return Ok(Self::default()) };
        let serving = secrets.iter().filter(|secret| signing.kinds.contains(&secret.kind));
        Ok(Self { keys: serving.map(signing.ready).collect::<Result<_, _>>()?, settings })
    }
}

/// The named values among these that are there: what tells one event from another (`Event::facts`).
#[must_use]
pub fn facts<const N: usize>(told: [(&'static str, Option<&str>); N]) -> Vec<(&'static str, String)> {
    told.into_iter().filter_map(|(name, value)| Some((name, value?.to_owned()))).collect()
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

impl Ack {
    /// An empty answer.
    #[must_use]
    pub const fn empty(status: StatusCode) -> Self {
        Self { status, content_type: None, body: "" }
    }

    /// The same as what a duplicate hears of something that is settled without an answer of the app's.
    #[must_use]
    pub fn answer(&self) -> Answer {
        Answer {
            status: self.status,
            content_type: self.content_type.map(|content_type| content_type.as_bytes().into()),
            body: Some(self.body.as_bytes().into()),
        }
    }
}

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

impl SecretKind {
    /// The word used in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hmac => "hmac",
            Self::Basic => "basic",
            Self::PublicKey => "public_key",
            Self::Certificate => "certificate",
            Self::ApiKey => "api_key",
            Self::Token => "token",
        }
    }
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

/// By digest, so that the time it takes tells nothing.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let digest = |secret: &Self| ring::digest::digest(&ring::digest::SHA256, &secret.bytes);
        self.kind == other.kind && digest(self).as_ref() == digest(other).as_ref()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}(***)", self.kind)
    }
}
