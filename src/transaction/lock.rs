//! What callbacks are known by in the app, and what they hold there: names, claims, seats; and the [`Table`] of who may be in.

mod table;

use std::borrow::Cow;

pub use self::table::Table;
use crate::callback::{Channel, Key};

/// Above so many names a callback takes the whole upstream.
pub const MOST_NAMES: usize = 32;

/// One holder of, or applicant for, a place in the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// A sort of name, such as `payment_hash`: what is comparable with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(u64);

impl Kind {
    /// The kind with this name, given in two pieces. Names of kinds come from the configuration and the providers, not
    /// from callers.
    #[must_use]
    pub fn named(name: [&str; 2]) -> Self {
        // FNV-1a; a vocabulary of a few dozen words needs no more.
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        Self(name.into_iter().flat_map(str::bytes).fold(0xcbf2_9ce4_8422_2325, step))
    }

    /// The same, as the app's answers told it. Whoever was told in this way is told from those alone of whom an answer told as
    /// well: what was read from an answer may be another name than it was taken for.
    #[must_use]
    pub const fn learned(self) -> Self {
        Self(self.0.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// The number under which it is stored.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The kind with this number, as it was stored.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// By which rules names were read. Rules that read otherwise may have found another name for the same payment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Era(pub u64);

/// A name that two callbacks can't hold at once: (upstream, kind, value), without rule, host, path or channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockName {
    /// What sort of name it is.
    pub kind: Kind,
    /// The digest of upstream, kind and value.
    pub key: Key,
}

impl LockName {
    /// The name of `value` among the names of a kind, which is given in two pieces, at `upstream`.
    ///
    /// Whatever its case: many a database finds `AB` for `ab`, and a lock may be too wide.
    #[must_use]
    pub fn new(upstream: &str, kind: [&str; 2], value: &str) -> Self {
        let kind = Kind::named(kind);
        let key = Key::of("lock")
            .part("upstream", upstream)
            .part("kind", kind.0.to_be_bytes())
            .part("value", &*folded(value));
        Self { kind, key: key.finish() }
    }
}

fn folded(value: &str) -> Cow<'_, str> {
    if value.bytes().any(|byte| byte.is_ascii_uppercase()) { value.to_ascii_lowercase().into() } else { value.into() }
}

/// What a callback asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Where it comes from.
    pub channel: Channel,
    /// Every name it is known by; none means that nobody can tell what it is about.
    pub names: Vec<LockName>,
    /// The kinds of name that each of its events has: by these it is told from others. A batch in which one event lacks
    /// a kind can't be told apart by it, whatever the others have.
    pub kinds: Vec<Kind>,
    /// Whether it takes the whole upstream (`lock = "upstream"`).
    pub exclusive: bool,
    /// When its names were read. Nobody can tell callbacks of two eras apart, so they exclude each other.
    pub era: Era,
}

impl Claimed {
    /// Whether it takes the whole upstream: because it is to, or has too many names.
    #[must_use]
    pub const fn is_exclusive(&self) -> bool {
        self.exclusive || self.names.len() > MOST_NAMES
    }
}

/// A lease that is held, as it can be kept over a restart and taken up again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seat {
    /// Where its holder came from.
    pub channel: Channel,
    /// The names it holds, none twice.
    pub names: Box<[Key]>,
    /// The kinds by which it is told from others.
    pub kinds: Box<[Kind]>,
    /// Whether it holds the whole upstream.
    pub exclusive: bool,
    /// Whether it counts against the places in the app.
    pub placed: bool,
    /// When its names were read.
    pub era: Era,
}

impl Seat {
    /// What a callback that claims this holds while it is in the app.
    #[must_use]
    pub fn of(claimed: &Claimed) -> Self {
        let mut names: Vec<Key> = claimed.names.iter().map(|name| name.key).collect();
        names.sort_unstable();
        names.dedup();
        let exclusive = claimed.exclusive || names.len() > MOST_NAMES;
        let mut kinds = claimed.kinds.clone();
        kinds.sort_unstable();
        kinds.dedup();
        if exclusive {
            names.clear();
            kinds.clear();
        }
        let (channel, era) = (claimed.channel, claimed.era);
        Self { channel, names: names.into(), kinds: kinds.into(), exclusive, placed: true, era }
    }
}
