//! A transaction's line of life: what came, what was decided, what was tried, how it ended, and what a person did.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

use http::StatusCode;

use super::{arrival::Decision, effect::Ending, lock::LeaseId, state::Phase};
use crate::{
    callback::{Key, State},
    time::Timestamp,
};

/// One line of a transaction's history. It holds no request, no header and no body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub at: Timestamp,
    /// Whose.
    pub transaction: Key,
    /// In which delivery; of a repeat, the one it was taken for, if that is under way.
    pub delivery: Option<LeaseId>,
    /// How many tries had been begun.
    pub attempt: u32,
    /// What.
    pub what: What,
}

/// What a line tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// An event came.
    Arrived(Arrived),
    /// Its delivery is in another phase.
    Moved(Phase),
    /// A try ended.
    Ended {
        /// How.
        outcome: Outcome,
        /// What the app, or a middle box in its place, answered.
        status: Option<StatusCode>,
        /// The reason, where there is no answer.
        why: Option<Box<str>>,
    },
    /// Its sender heard success before the app had it: from here on the retry is ours.
    Acknowledged,
    /// One more delivery follows at the window's end.
    Trailing,
    /// It came to nothing: nobody is left for whom it stood.
    Dropped,
    /// It was unknown whether the app got it, and its own books were asked whether they have what it tells: they do, they do
    /// not, or (`None`) nobody could say.
    Confirmed(Option<bool>),
    /// A person acted.
    Acted {
        /// What he did.
        deed: Deed,
        /// Who.
        who: Arc<str>,
        /// Why, in his words.
        why: Arc<str>,
    },
}

impl Line {
    /// Says why it came, in place of why that was decided about it.
    pub fn because(&mut self, why: &'static str) {
        if let What::Arrived(arrived) = &mut self.what {
            arrived.why = Cow::Borrowed(why);
        }
    }
}

/// An event that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// What was decided about it.
    pub decision: Decision,
    /// The provider's id of the payment.
    pub reference: Arc<str>,
    /// The provider's name.
    pub provider: &'static str,
    /// What it says happened.
    pub state: Option<State>,
    /// Who sent it.
    pub source: Option<IpAddr>,
    /// Why that was decided.
    pub why: Cow<'static, str>,
}

/// How a try ended, as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The app has taken it.
    Accepted,
    /// The app answered, and has not.
    Rejected,
    /// Provably nothing was written.
    NotSent,
    /// Nobody knows.
    Unknown,
}

impl Outcome {
    /// The word in metrics and history.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Rejected => "rejected",
            Self::NotSent => "not_sent",
            Self::Unknown => "unknown",
        }
    }
}

/// What a person can do with what waits for him.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Send it again.
    Resend,
    /// The app has it: remember it as accepted.
    Settle,
    /// Forget it: should it come again, it is new.
    Discard,
}

impl Deed {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::Resend, Self::Settle, Self::Discard];

    /// The word on the command line, in the API and in history.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resend => "resend",
            Self::Settle => "settle",
            Self::Discard => "discard",
        }
    }
}

/// Why something waits for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Nobody knows whether the app got it.
    Unknown,
    /// Every try of ours failed.
    Exhausted,
    /// A known event told, vouched for, another state than before; it was forwarded.
    Conflict,
    /// No one reference can be read.
    Unrecognised,
    /// Its signature is wrong, too old or missing.
    Unverified,
    /// It tells an older state than one already delivered.
    Stale,
    /// It was turned away for want of room.
    Overflow,
    /// It tells of another payment of an order that is paid; it was forwarded.
    SecondPayment,
}

impl Reason {
    /// The word in the API and in history.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Exhausted => "exhausted",
            Self::Conflict => "conflict",
            Self::Unrecognised => "unrecognised",
            Self::Unverified => "unverified",
            Self::Stale => "stale",
            Self::Overflow => "overflow",
            Self::SecondPayment => "second_payment",
        }
    }

    /// The same in a sentence.
    #[must_use]
    pub const fn told(self) -> &'static str {
        match self {
            Self::Unknown => "it is unknown whether the app got it",
            Self::Exhausted => "every try failed, and somebody was told success",
            Self::Conflict => "a known event told another state than before, and was forwarded",
            Self::Unrecognised => "no payment can be read from it",
            Self::Unverified => "its signature is wrong, too old or missing",
            Self::Stale => "it tells an older state than one already delivered",
            Self::Overflow => "it was turned away for want of room, and its sender keeps it",
            Self::SecondPayment => "an order was paid twice, by two payments: somebody has to give one of them back",
        }
    }
}

impl Line {
    /// The line about a try that ended.
    pub(super) fn ended(ending: &Ending) -> What {
        let (status, why) = match ending {
            Ending::Accepted(answer) | Ending::Rejected(answer) => (Some(answer.status), None),
            Ending::NotSent(why) => (None, Some(&**why)),
            Ending::Unknown(why, answer) => (answer.as_ref().map(|answer| answer.status), Some(&**why)),
        };
        What::Ended { outcome: ending.outcome(), status, why: why.map(Into::into) }
    }

    /// Whether it tells of nothing but a repetition: of these there may be any number.
    #[must_use]
    pub const fn is_repeat(&self) -> bool {
        let What::Arrived(Arrived { decision, .. }) = &self.what else { return false };
        matches!(decision, Decision::Joined | Decision::Replayed | Decision::Repeated | Decision::Stale)
    }
}
