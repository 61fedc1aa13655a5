//! What is known of a transaction and of its deliveries, as values that fit any store.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};

use super::{
    history::{Line, Reason, What},
    lock::{Claimed, LeaseId},
    money::{Money, Told},
    policy::Policy,
};
use crate::{
    callback::{Answer, Key, State, Step},
    time::Timestamp,
};

/// The request that a delivery carries: what the app shall see, and nothing of the connection it came by.
#[derive(Clone, Debug)]
pub struct StoredRequest {
    /// The method.
    pub method: Method,
    /// The target as received.
    pub uri: Uri,
    /// The header fields, hop-by-hop ones removed and the forwarding ones set.
    pub headers: HeaderMap,
    /// The bytes as received.
    pub body: Bytes,
}

/// One reference's life at our gate.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// Counts the commits; 0 is a transaction that nobody knows.
    pub version: u64,
    /// Each identity that is known.
    pub claims: Vec<Claim>,
    /// What the app has been told of its money.
    pub money: Money,
}

impl Transaction {
    /// The claim on this identity.
    #[must_use]
    pub fn claim(&self, identity: Key) -> Option<&Claim> {
        self.claims.iter().find(|claim| claim.identity == identity)
    }

    pub(super) fn claim_mut(&mut self, identity: Key) -> Option<&mut Claim> {
        self.claims.iter_mut().find(|claim| claim.identity == identity)
    }

    /// When the first of its claims is forgotten; `None` where all are still unsettled.
    #[must_use]
    pub fn expires(&self) -> Option<Timestamp> {
        self.claims.iter().filter_map(Claim::expires).min()
    }

    /// Forgets what has expired. What is not settled never expires.
    pub fn forget_expired(&mut self, now: Timestamp) {
        self.claims.retain(|claim| claim.expires().is_none_or(|expires| now < expires));
    }
}

/// That an identity is known, and what became of it.
#[derive(Clone, Debug)]
pub struct Claim {
    /// What makes the event the same as another.
    pub identity: Key,
    /// What became of it.
    pub fate: Fate,
    /// A digest of what the event told; 0 if nothing.
    pub told: u64,
    /// Only for an identity that says nothing of what happened.
    pub window: Option<Box<Window>>,
    /// What the app answered when it took this with another delivery, while the one in which it is on its way still has to
    /// go for the rest of it. Whatever comes of that, this has been accepted.
    pub rode: Option<Arc<Answer>>,
}

impl Claim {
    /// Whether it is on its way in this delivery.
    #[must_use]
    pub fn is_pending_in(&self, delivery: LeaseId) -> bool {
        matches!(self.fate, Fate::Pending(pending) if pending == delivery)
    }

    fn expires(&self) -> Option<Timestamp> {
        match (&self.fate, &self.window) {
            (Fate::Pending(_), _) => None,
            (Fate::Settled { .. }, Some(window)) if window.next.is_some() => None,
            (Fate::Settled { expires, .. }, _) => Some(*expires),
        }
    }
}

/// What became of an identity.
#[derive(Clone, Debug)]
pub enum Fate {
    /// It is on its way in this delivery.
    Pending(LeaseId),
    /// The app has accepted it, with this answer.
    Settled {
        /// What a duplicate hears.
        answer: Arc<Answer>,
        /// When it is forgotten.
        expires: Timestamp,
    },
}

/// The time in which a callback that does not tell what happened is taken for the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The end; the epoch before the first byte went to the app.
    pub until: Timestamp,
    /// The one delivery that follows for all that was collapsed after the first byte.
    pub next: Option<LeaseId>,
}

/// One event as a delivery carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The provider's id of the payment, for people.
    pub reference: Arc<str>,
    /// Its transaction.
    pub transaction: Key,
    /// Its identity.
    pub identity: Key,
    /// Whether the identity holds for a window only.
    pub windowed: bool,
    /// A digest of what it tells; 0 if nothing.
    pub told: u64,
    /// What it says happened.
    pub state: Option<State>,
    /// And the finer step of that.
    pub step: Option<Step>,
}

impl Carried {
    pub(super) fn money(&self) -> Option<Told> {
        self.state.map(|state| Told { state, step: self.step })
    }
}

/// Something that is paid once, such as an order, by a name of which its rule or its provider says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bill {
    /// Counts the commits; 0 is a bill that nobody knows.
    pub version: u64,
    /// The transactions of which somebody vouches that they have paid it, in the order in which that was told.
    pub paid_by: Vec<Key>,
}

/// What does not change over a delivery's life.
#[derive(Debug)]
pub struct Letter {
    /// What the app shall see.
    pub request: Arc<StoredRequest>,
    /// The provider's name; a label.
    pub provider: &'static str,
    /// The events inside, old ones that go along included.
    pub events: Vec<Carried>,
    /// What it must not overlap with.
    pub claimed: Claimed,
    /// The choices it was decided with.
    pub policy: Arc<Policy>,
    /// When it came.
    pub arrived: Timestamp,
}

impl Letter {
    pub(super) fn shares_a_transaction(&self, other: &Self) -> bool {
        self.events.iter().any(|event| other.events.iter().any(|another| another.transaction == event.transaction))
    }

    /// The transactions of its events, each once.
    pub fn transactions(&self) -> impl Iterator<Item = Key> {
        let once = |(index, event): (usize, &Carried)| {
            let before = &self.events[..index];
            before.iter().all(|other| other.transaction != event.transaction).then_some(event.transaction)
        };
        self.events.iter().enumerate().filter_map(once)
    }
}

/// An event (or a batch of them) on its way to the app.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Its name, and that of its lease.
    pub id: LeaseId,
    /// Counts the commits.
    pub version: u64,
    /// What does not change.
    pub letter: Arc<Letter>,
    /// Where in its life it is.
    pub phase: Phase,
    /// How many tries were begun. It is the fencing token: whoever brings the outcome of another try is refused.
    pub attempts: u32,
    /// Whether somebody was told success on its account, so that the retry is ours.
    pub owed: bool,
}

/// Where in its life a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// In the delay window; owns no lease.
    Held {
        /// The end of the window.
        until: Timestamp,
    },
    /// Waits for its turn, or has it and connects. Nothing has been sent.
    Queued,
    /// The app may have read it.
    InFlight {
        /// When whoever sent it is taken for dead.
        lease_until: Timestamp,
    },
    /// Nobody knows whether the app got it. It keeps its lease until `since + quiet`.
    Unknown {
        /// When that became clear.
        since: Timestamp,
    },
    /// Nobody knows whether the app got it, which is quiet by now; the app's own books are asked whether they have what it
    /// tells. It keeps its names, so that nothing else of its payment comes in between, and stands in nobody else's way.
    Confirming {
        /// Since when.
        since: Timestamp,
        /// When they are asked again, if nobody could say before.
        at: Timestamp,
    },
    /// By what its provider said it is a repeat, as its sender has heard. It claims nothing; its provider is asked once
    /// more, and it goes to the app if it brings something after all.
    Recheck {
        /// When.
        at: Timestamp,
    },
    /// Its payment was seen to begin, and nobody has called of it yet. It claims nothing; its provider is asked, and if it
    /// is paid a callback of our own is made of the answer.
    Awaited {
        /// When.
        at: Timestamp,
    },
    /// A try failed and the next one is ours.
    Retrying {
        /// When.
        at: Timestamp,
    },
    /// It waits for a person.
    Review {
        /// Since when.
        since: Timestamp,
        /// Why.
        reason: Reason,
    },
}

impl Phase {
    /// The word for it, in logs, in the API and in history.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Held { .. } => "held",
            Self::Queued => "queued",
            Self::InFlight { .. } => "in_flight",
            Self::Unknown { .. } => "unknown",
            Self::Confirming { .. } => "confirming",
            Self::Recheck { .. } => "recheck",
            Self::Awaited { .. } => "awaited",
            Self::Retrying { .. } => "retrying",
            Self::Review { .. } => "review",
        }
    }
}

impl Delivery {
    /// When something is due without anybody asking; a function of the state, so that the two can't disagree.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Held { until } if until == Timestamp::NEVER => None,
            Phase::Held { until } => Some(until),
            Phase::Queued | Phase::Review { .. } => None,
            Phase::InFlight { lease_until } => Some(lease_until),
            Phase::Unknown { since } => Some(since.after(self.letter.policy.quiet)),
            Phase::Confirming { at, .. } | Phase::Recheck { at } | Phase::Awaited { at } | Phase::Retrying { at } => {
                Some(at)
            }
        }
    }

    /// Since when, and why, it waits for a person; `None` where it does not.
    #[must_use]
    pub const fn in_review(&self) -> Option<(Timestamp, Reason)> {
        match self.phase {
            Phase::Review { since, reason } => Some((since, reason)),
            Phase::Held { .. }
            | Phase::Queued
            | Phase::InFlight { .. }
            | Phase::Unknown { .. }
            | Phase::Confirming { .. }
            | Phase::Recheck { .. }
            | Phase::Awaited { .. }
            | Phase::Retrying { .. } => None,
        }
    }

    /// Whether those who wait on it will be told of an end without anybody doing anything.
    #[must_use]
    pub const fn is_under_way(&self) -> bool {
        match self.phase {
            Phase::Held { .. } | Phase::Queued | Phase::InFlight { .. } => true,
            Phase::Unknown { .. }
            | Phase::Confirming { .. }
            | Phase::Recheck { .. }
            | Phase::Awaited { .. }
            | Phase::Retrying { .. }
            | Phase::Review { .. } => false,
        }
    }

    /// Since when it is ours to bring, where it is and does not wait for a person.
    #[must_use]
    pub fn on_its_way(&self) -> Option<Timestamp> {
        (self.owed && self.in_review().is_none()).then_some(self.letter.arrived)
    }

    /// Whether it will be tried again at a time of ours.
    #[must_use]
    pub const fn is_retrying(&self) -> bool {
        matches!(self.phase, Phase::Retrying { .. })
    }

    /// Whether it has been tried and will be tried again, with nobody in the app on its account.
    const fn is_tried_again(&self) -> bool {
        match self.phase {
            Phase::Retrying { .. } => true,
            Phase::Held { .. } | Phase::Queued => self.attempts > 0,
            Phase::InFlight { .. }
            | Phase::Unknown { .. }
            | Phase::Confirming { .. }
            | Phase::Recheck { .. }
            | Phase::Awaited { .. }
            | Phase::Review { .. } => false,
        }
    }

    /// Whether it must not overtake this one: an earlier event of its payment that is being tried again. Where nobody may be
    /// acknowledged first nothing waits so, for its sender would hang up on it. `new` are the transactions of which it brings
    /// something new: what merely goes along is in order.
    pub(super) fn comes_after(&self, other: &Self, mut new: impl Iterator<Item = Key>) -> bool {
        other.id < self.id
            && other.is_tried_again()
            && (self.owed || self.letter.policy.patience().is_some())
            && new.any(|new| other.letter.transactions().any(|theirs| theirs == new))
    }

    /// Whether it carries anything that does not tell what happened.
    pub(super) fn tells_nothing(&self) -> bool {
        self.letter.events.iter().any(|event| event.windowed)
    }

    /// Whether the app's own books can say that it got there: all that it tells is that payments were made. A refund is not
    /// seen by there being a payment, and an order that is paid is none by itself.
    #[must_use]
    pub fn can_be_confirmed(&self) -> bool {
        let is_a_payment =
            |event: &Carried| !event.windowed && event.state == Some(State::Paid) && event.step != Some(Step::Order);
        !self.letter.events.is_empty() && self.letter.events.iter().all(is_a_payment)
    }

    /// A line in the history of each transaction that it carries something of.
    pub(super) fn lines(&self, what: &What, now: Timestamp) -> impl Iterator<Item = Line> {
        let line = move |transaction| Line {
            at: now,
            transaction,
            delivery: Some(self.id),
            attempt: self.attempts,
            what: what.clone(),
        };
        self.letter.transactions().map(line)
    }

    /// The wait before the next try of ours: doubling, with up to an eighth taken off so that many do not come at once.
    pub(super) fn backoff(&self) -> Duration {
        let retry = self.letter.policy.retry;
        let doubled = retry.first.saturating_mul(1 << self.attempts.saturating_sub(1).min(20)).min(retry.longest);
        doubled - self.spread(doubled / 8)
    }

    /// A part of this span, another for each delivery, so that many do not come at once.
    pub(super) fn spread(&self, span: Duration) -> Duration {
        span / 8 * (self.id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61) as u32
    }
}
