//! What a decision starts from, what comes in, and what shall follow: the values of a transition.

use std::{borrow::Cow, sync::Arc, time::Duration};

use super::{
    history::{Deed, Line, Outcome, Reason},
    learned::{Begun, Lesson},
    lock::{Claimed, LeaseId, LockName},
    money::Money,
    state::{Bill, Delivery, Phase, Transaction, Window},
};
use crate::{
    callback::{Answer, Key},
    time::Timestamp,
};

/// What is known of everything that an input touches, each with the version that was read.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The transactions, and the key of each; one that is unknown is not listed.
    pub transactions: Vec<(Key, Transaction)>,
    /// Every bill at hand, and the key of each; one that is unknown is not listed.
    pub bills: Vec<(Key, Bill)>,
    /// What the app has been told of the money of those who have paid them; those of whom nothing is known are not listed.
    pub payers: Vec<(Key, Money)>,
    /// Every unsettled delivery that their claims name.
    pub deliveries: Vec<Delivery>,
    /// Other names that are remembered for the names at hand.
    pub linked: Vec<LockName>,
    /// Whether a lease that is held already lacks one of those: it was queued for before they were known.
    pub late: bool,
    /// What payers who come with one of the names at hand are known to have begun, by that name.
    pub begun: Vec<(Key, Begun)>,
    /// Those of the names at hand that a payer is known to have begun.
    pub told: Vec<LockName>,
    /// Whether the payer's return has been through under one of the names at hand.
    pub returned: bool,
    /// Whether the lease that was asked about could be had at once.
    pub free: bool,
}

impl View {
    /// What is known of the transaction with this key.
    #[must_use]
    pub fn transaction(&self, key: Key) -> Option<&Transaction> {
        self.transactions.iter().find(|(known, _)| *known == key).map(|(_, transaction)| transaction)
    }

    /// Who has paid this bill, as far as is known.
    pub(super) fn bill(&self, key: Key) -> Option<&Bill> {
        self.bills.iter().find(|(known, _)| *known == key).map(|(_, bill)| bill)
    }

    /// Whether the app has been told that nothing is left of the money of this transaction.
    pub(super) fn has_lost_its_money(&self, key: Key) -> bool {
        self.payers.iter().any(|(payer, money)| *payer == key && money.is_gone())
    }

    /// The delivery with this name.
    #[must_use]
    pub fn delivery(&self, id: LeaseId) -> Option<&Delivery> {
        self.deliveries.iter().find(|delivery| delivery.id == id)
    }
}

/// How a try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The app answered, and `success` holds.
    Accepted(Arc<Answer>),
    /// The app answered, and `success` does not hold.
    Rejected(Arc<Answer>),
    /// Provably nothing was written.
    NotSent(String),
    /// Anything else after the first byte; with what a middle box said, if one spoke.
    Unknown(String, Option<Arc<Answer>>),
}

impl Ending {
    /// The same without what belongs to it.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Accepted(_) => Outcome::Accepted,
            Self::Rejected(_) => Outcome::Rejected,
            Self::NotSent(_) => Outcome::NotSent,
            Self::Unknown(..) => Outcome::Unknown,
        }
    }

    /// The word in metrics and history.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        self.outcome().as_str()
    }
}

/// What the app's own books say when they are asked whether they have what a delivery tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Books {
    /// They have all of it; with what a duplicate hears from now on.
    Booked(Arc<Answer>),
    /// They have not.
    NotBooked,
    /// Nobody could say just now.
    Silent,
    /// There is nobody to ask.
    Closed,
}

/// What a person decided about a delivery that waits for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// What shall be done.
    pub deed: Deed,
    /// Who says so.
    pub who: Arc<str>,
    /// Why.
    pub why: Arc<str>,
    /// The version that he has seen; `None` where he acts on whatever is there.
    pub seen: Option<u64>,
    /// What redeliveries hear of what is settled: the provider's own acknowledgement.
    pub answer: Arc<Answer>,
}

/// Whatever comes back from the world about one delivery.
#[derive(Clone, Debug)]
pub enum Input {
    /// The payer's return has been through: the hold has served its purpose.
    HoldOver,
    /// The time has come that [`Delivery::due`] named.
    Due,
    /// Somebody who waited long enough is about to be told success: from here on the retry is ours.
    Owe,
    /// The connection to the app stands and the lease is held; the first byte goes out after the commit.
    Sending,
    /// The app is taken to be down, and is left alone until then.
    PutOff {
        /// Until when.
        until: Timestamp,
        /// What is told to those who wait.
        why: Cow<'static, str>,
    },
    /// A try ended; `attempt` is the fencing token.
    Ended {
        /// Which try.
        attempt: u32,
        /// How.
        ending: Ending,
    },
    /// The app's own books were asked about it, after so many tries.
    Confirmed {
        /// The try that they were asked about.
        attempt: u32,
        /// What they say.
        books: Books,
    },
    /// A person spoke.
    Act(Act),
}

/// A change of the lock table, in the same commit as the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockChange {
    /// Queue for a lease.
    Enqueue(LeaseId, Claimed),
    /// The commit stands only if this lease can be had at once; then it is held.
    Seize(LeaseId, Claimed),
    /// Go to the end of all queues.
    Requeue(LeaseId, Claimed),
    /// The commit stands only if this lease is held.
    Require(LeaseId),
    /// Give it back.
    Release(LeaseId),
    /// Give back the place in the app, keep the names until then.
    Linger(LeaseId, Timestamp),
    /// Keep everything until then: the app may still be at work on it.
    Keep(LeaseId, Timestamp),
    /// Keep the names until it is given back, and stand in nobody else's way: it waits for a person.
    Names(LeaseId),
    /// From now on so many callbacks may be in the app at once; nobody is thrown out.
    Places(usize),
}

impl LockChange {
    /// The lease that is held from here on without having been queued for.
    #[must_use]
    pub const fn seized(&self) -> Option<LeaseId> {
        match self {
            Self::Seize(lease, _) => Some(*lease),
            _ => None,
        }
    }
}

/// A delivery as it shall be.
#[derive(Clone, Debug)]
pub enum Change {
    /// This state, over the version it carries.
    Put(Delivery),
    /// No longer needed, over this version.
    Remove(LeaseId, u64),
}

/// What is done once the commit stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell those who wait on this delivery.
    Tell(LeaseId, Ending),
    /// Its provider has to be asked once more, or the app's own books.
    Ask(LeaseId),
    /// A person has to look at it.
    Alarm(LeaseId, &'static str),
}

/// What has to be durable before the answer of the app is passed on. (Before its first byte goes to the app, and before
/// any word of ours, it always is.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durable {
    /// That it was sent. What came of it follows within a moment; a crash in between leaves an unknown.
    Claim,
    /// What came of it.
    #[default]
    Outcome,
}

/// What shall be known and done: one atomic commit, and effects after it.
#[derive(Clone, Debug, Default)]
pub struct Transition {
    /// Transactions as they shall be, over the version each carries.
    pub transactions: Vec<(Key, Transaction)>,
    /// Bills as they shall be, over the version each carries.
    pub bills: Vec<(Key, Bill)>,
    /// Deliveries as they shall be.
    pub deliveries: Vec<Change>,
    /// Changes of the lock table.
    pub locks: Vec<LockChange>,
    /// Names under which a return has been through.
    pub returned: Vec<LockName>,
    /// Names known to belong together.
    pub links: Vec<(LockName, LockName)>,
    /// What the app's answers taught.
    pub lessons: Vec<Lesson>,
    /// Lines of history.
    pub history: Vec<Line>,
    /// What is done afterwards.
    pub effects: Vec<Effect>,
}

impl Transition {
    /// The delivery as it is known once this is committed.
    #[must_use]
    pub fn committed(&self, id: LeaseId) -> Option<Delivery> {
        self.deliveries.iter().find_map(|change| match change {
            Change::Put(delivery) if delivery.id == id => {
                Some(Delivery { version: delivery.version + 1, ..delivery.clone() })
            }
            _ => None,
        })
    }
}

impl Transition {
    /// Whether it changes nothing of what is known, lines of history aside.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.transactions.is_empty()
            && self.bills.is_empty()
            && self.deliveries.is_empty()
            && self.locks.is_empty()
            && self.links.is_empty()
            && self.lessons.is_empty()
    }

    /// Whether it keeps for a person what does not go to the app. He looks at so many and no more.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.deliveries.iter().any(|change| match change {
            Change::Put(Delivery { version: 0, phase: Phase::Review { reason, .. }, .. }) => *reason == Reason::Stale,
            Change::Put(_) | Change::Remove(..) => false,
        })
    }

    /// Whether a durable store has to be waited for before anything moves on the strength of this: before a first byte
    /// goes to the app, before somebody is told success that nobody has heard from the app, and as `durable` says.
    #[must_use]
    pub fn waits(&self, durable: Durable) -> bool {
        self.deliveries.iter().any(|change| match change {
            Change::Put(delivery) if delivery.letter.policy.shadow => false,
            Change::Put(delivery) => match delivery.phase {
                Phase::InFlight { .. } => true,
                // Its sender is told that a person has it.
                Phase::Review { .. } => true,
                // It has called itself unknown before.
                Phase::Confirming { .. } => false,
                Phase::Held { .. } | Phase::Queued | Phase::Recheck { .. } | Phase::Awaited { .. } => delivery.owed,
                Phase::Unknown { .. } | Phase::Retrying { .. } => delivery.owed || durable == Durable::Outcome,
            },
            Change::Remove(..) => durable == Durable::Outcome,
        })
    }
}

/// How long after the app's time limit its sender is taken for dead.
pub const LEASE_MARGIN: Duration = Duration::from_secs(15);

/// A window that no first byte has opened yet.
pub(super) const OPEN: Window = Window { until: Timestamp::EPOCH, next: None };

/// Queues a delivery for its lease, under all the names that are known by now.
pub(super) fn queue(view: &View, delivery: &Delivery, out: &mut Transition) {
    out.locks.push(LockChange::Enqueue(delivery.id, widened(view, delivery)));
}

/// What a delivery must not overlap with, as far as it is known by now.
pub(super) fn widened(view: &View, delivery: &Delivery) -> Claimed {
    let mut claimed = delivery.letter.claimed.clone();
    for name in &view.linked {
        if !claimed.names.contains(name) {
            claimed.names.push(*name);
        }
        // What is linked to the names of a single event is a name of that event.
        if delivery.letter.events.len() == 1 && !claimed.kinds.contains(&name.kind) {
            claimed.kinds.push(name.kind);
        }
    }
    // Of a batch nobody could say that a payer is known to each of its events.
    for name in view.told.iter().filter(|_| delivery.letter.events.len() == 1) {
        claimed.kinds.push(name.kind.learned());
    }
    claimed
}

/// The transaction as it is being rewritten, starting from what is known.
pub(super) fn writable<'t>(view: &View, written: &'t mut Vec<(Key, Transaction)>, key: Key) -> &'t mut Transaction {
    let at = written.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
        written.push((key, view.transaction(key).cloned().unwrap_or_default()));
        written.len() - 1
    });
    &mut written[at].1
}
