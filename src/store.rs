//! Where the truth is kept: the contract that every engine fulfils.
//!
//! A commit is atomic over transactions, deliveries, locks, links, lessons and history, and it stands only if nothing that
//! it was decided on has changed since. Due work is no list of its own: it is a function of the deliveries and leases.

#[cfg(test)]
mod conformance;
pub mod embedded;
pub mod memory;
mod state;

use std::future::Future;

use bytes::Bytes;

use crate::{
    callback::Key,
    time::Timestamp,
    transaction::{
        effect::{Transition, View},
        history::Line,
        lock::{Claimed, LeaseId, LockName},
        state::Delivery,
    },
};

/// What a decision needs to know.
#[derive(Clone, Copy, Debug)]
pub enum Want<'a> {
    /// These transactions, with the deliveries that their claims name, and what is remembered of these names (sessions
    /// among them).
    Transactions(&'a [Key], &'a [LockName]),
    /// The same for who wants to go to the app with these claims: these bills, with what the app was told of the money of those
    /// who have paid them, and whether he could go at once.
    Arrival(&'a [Key], &'a Claimed, &'a [Key]),
    /// This delivery, with its transactions and their deliveries, and whether its lease lacks a name that is remembered.
    Delivery(LeaseId),
}

/// Which lines of history are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// Those of this transaction.
    Of(Key),
    /// Those of all, from this moment on and before that one.
    Between(Timestamp, Timestamp),
}

/// Something is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Leases are granted of which nobody was told: after a start, or because a commit was let go of before its end. The
    /// next commit tells them, even one of nothing.
    Grants,
    /// A delivery's time has come.
    Delivery(LeaseId),
    /// A lease that was only kept or lingered ends.
    Lease(LeaseId),
}

/// The engine can't keep its promises now. Callbacks fail closed (503); other routes go on.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the store can't be used: {0}")]
pub struct StoreError(pub String);

/// Why a commit does not stand.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    /// Something it was decided on has changed; load and decide again.
    #[error("somebody else was faster")]
    Conflict,
    /// A lease it requires is not held, or no longer.
    #[error("the lease is lost")]
    LeaseLost,
    /// A bound on what waits was reached.
    #[error("too much waits already")]
    Full,
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How much is kept, for the metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Transactions with something to remember.
    pub transactions: usize,
    /// Deliveries that are not settled.
    pub deliveries: usize,
    /// Callbacks that are in the app.
    pub in_flight: usize,
    /// Leases held or waited for.
    pub leases: usize,
    /// Deliveries that wait for a person.
    pub review: usize,
    /// Since when the oldest of them waits.
    pub oldest_review: Option<Timestamp>,
    /// Deliveries that were acknowledged and are on their way.
    pub owed: usize,
    /// When the oldest of them came.
    pub oldest_owed: Option<Timestamp>,
    /// Settled transactions that were forgotten before their time, because the bound was reached.
    pub evicted: u64,
    /// Names that became known when somebody was in the app without them, since the start.
    pub late_links: u64,
    /// By how many seconds the clock stood ahead of what was written last (back, below zero) when the engine began, for as
    /// long as nothing is forgotten because of that.
    pub jump: i64,
    /// When the earliest due work was or is due.
    pub next_due: Option<Timestamp>,
}

/// What an engine says of all that it knows, piece by piece; to be read where one may wait for a disk.
pub type Copy = Box<dyn Iterator<Item = Result<Bytes, StoreError>> + Send>;

/// An engine.
pub trait Store: Send + Sync + 'static {
    /// Reads what a decision needs.
    fn load(&self, want: Want<'_>, now: Timestamp) -> impl Future<Output = Result<View, StoreError>> + Send;

    /// Makes a transition true, or changes nothing. Durable engines return when it is durable, where anything depends on
    /// that ([`Transition::waits`]). Says which leases were granted by it: they are held from now on, and whoever
    /// committed sets their owners going. Where the future is dropped before its end, the next commit says so. A try that
    /// was to begin by a commit which failed has not begun: whoever hears of the failure sends nothing, and the engine goes
    /// on from there, even if the commit turns out to be on the disk.
    fn commit(
        &self,
        transition: Transition,
        now: Timestamp,
    ) -> impl Future<Output = Result<Vec<LeaseId>, CommitError>> + Send;

    /// What is due at `now`, the earliest first, at most `limit`. Asking changes nothing. Fails at least once after the
    /// engine could not be used, even if it can again: whoever waits for a lease or for an outcome waits in vain then.
    fn due(&self, now: Timestamp, limit: usize) -> impl Future<Output = Result<Vec<Due>, StoreError>> + Send;

    /// Forgets what has expired, in steps of at most `limit` so that nobody waits for it; whether there is more.
    fn forget(&self, now: Timestamp, limit: usize) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Writes lines of history for which nobody waits: of repetitions, which change nothing. Returns at once; a durable
    /// engine may write them with its next commit. So many of one transaction as the engine is told, and no more.
    fn note(&self, lines: Vec<Line>);

    /// Lines of history, oldest first, at most `limit`, each with its number; numbers rise, and `after` is the last one
    /// that was seen (0 at the beginning).
    fn history(
        &self,
        lines: Lines,
        after: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<(u64, Line)>, StoreError>> + Send;

    /// The transactions of which history knows an arrival with this reference, whoever's it is; at most `limit`.
    fn called(&self, reference: &str, limit: usize) -> impl Future<Output = Result<Vec<Key>, StoreError>> + Send;

    /// Deliveries that wait for a person, by the moment since when and their name; at most `limit`, after this one.
    fn reviews(
        &self,
        after: (Timestamp, LeaseId),
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Delivery>, StoreError>> + Send;

    /// How much is kept.
    fn counts(&self) -> Counts;

    /// Returns when all that was committed is durable.
    fn flush(&self) -> impl Future<Output = Result<(), StoreError>> + Send {
        std::future::ready(Ok(()))
    }

    /// All that is known, as of one commit and with all that was durable before, in the engine's own words; `None` of an
    /// engine that keeps nothing. It is read while the engine is in use, and holds up nobody.
    fn copy(&self) -> impl Future<Output = Result<Option<Copy>, StoreError>> + Send {
        std::future::ready(Ok(None))
    }

    /// Why the engine can't be used at present; `None` where it can.
    fn fault(&self) -> Option<StoreError> {
        None
    }
}
