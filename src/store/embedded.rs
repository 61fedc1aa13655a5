//! The engine that keeps what it knows on a disk: decided in memory, written in groups, and told when it is durable.
//!
//! All that is known stands in memory and is read there. What a commit changes is noted, and one thread writes what is
//! noted as one group: whoever has to wait waits for the group that his change is in, with all others of it. So the disk
//! is always at the state after some commit, and never behind what anybody was told.
//!
//! When the disk fails, nothing in memory can be trusted to be on it. The engine refuses everything, opens the disk anew
//! until it can, and goes on from what is there.

pub mod backup;
mod crowd;
pub mod disk;
pub mod folder;
mod noted;
pub mod record;
pub mod seal;
#[cfg(test)]
mod tests;
mod writer;

use std::{
    collections::{HashSet, VecDeque},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::{Notify, oneshot, watch};

pub use self::writer::Writer;
use self::{
    backup::Pieces,
    disk::{DiskError, Medium, Records},
    noted::Noted,
    seal::Seals,
};
use super::{CommitError, Counts, Due, Lines, Store, StoreError, Want, state::State};
use crate::{
    callback::Key,
    time::Timestamp,
    transaction::{
        effect::{Change, Durable, LockChange, Transition, View},
        history::Line,
        lock::LeaseId,
        state::{Delivery, Fate, Phase},
    },
};

/// What the engine is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// The bounds, which are those of the memory engine.
    pub bounds: super::memory::Options,
    /// What a commit waits for.
    pub durable: Durable,
    /// How long the app is taken to be at work on what was in it when the gate went down.
    pub quiet: Duration,
    /// What deliveries are sealed with on the disk.
    pub seals: Seals,
}

/// The engine.
pub struct Embedded {
    shared: Arc<Shared>,
    /// The thread that writes; `None` where somebody else turns the writer.
    writer: Option<JoinHandle<()>>,
    /// The task that tells those who wait.
    herald: tokio::task::JoinHandle<()>,
}

/// What the engine and its writer share.
struct Shared {
    options: Options,
    inner: Mutex<Inner>,
    /// There is something to write.
    work: Condvar,
    /// There is something to tell.
    news: Notify,
}

/// What the writer is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    /// It writes, and looks for more by itself.
    Busy,
    /// It lets gather what nobody waits for.
    Gathering,
    /// There was nothing to do.
    Asleep,
}

/// What became of a group; `None` as long as it is not known.
type Word = Option<Result<(), StoreError>>;

struct Inner {
    state: State,
    /// What has changed since the last group was taken.
    noted: Noted,
    /// Those who wait for the group that `noted` will be.
    open: watch::Sender<Word>,
    /// The group that is being written, and those who wait for it.
    writing: Option<(Noted, watch::Sender<Word>)>,
    /// So many wait for the open group.
    waiting: usize,
    writer: Pace,
    stopping: bool,
    /// Who wants a copy of all records.
    copies: Vec<oneshot::Sender<Records>>,
    /// What became of groups, still to be told.
    told: Vec<(watch::Sender<Word>, Result<(), StoreError>)>,
    /// Leases that are granted and of which nobody was told.
    untold: Vec<LeaseId>,
    /// Tries whose senders were told that they can't begin; the disk may know them as begun all the same. Kept until what
    /// was made of that is durable.
    unsent: HashSet<(LeaseId, u32)>,
    fault: Option<StoreError>,
    /// A fault that nobody has heard of yet, though it may be over.
    unheard: Option<StoreError>,
    /// Counts the times that the state was read anew.
    epoch: u64,
    /// The number of the last group.
    tail: u64,
    /// The latest moment at which anything was done.
    latest: Timestamp,
    /// The latest moment that a group tells of.
    dated: Timestamp,
    /// What the clock had done since the last life.
    jump: Option<Jump>,
    /// The records of history that are on the disk, each with the number of its last line.
    history: VecDeque<u64>,
    /// The last line that is written.
    last_line: u64,
}

/// The clock stood far from where it was when the store was last written: ahead, as after a long rest, or back.
#[derive(Clone, Copy, Debug)]
struct Jump {
    /// How far, in seconds; above zero if ahead.
    seconds: i64,
    /// Nothing is forgotten before: nobody knows yet whether so much time has gone by.
    until: Timestamp,
}

/// How far the clock may have moved while the gate was down, and how long nothing is forgotten where it moved more.
const HOUR: Duration = Duration::from_secs(3600);
/// A store in which nothing happens is dated so often: the end of a quiet night is no jump, even if one date is missed.
const DATED_EVERY: Duration = Duration::from_secs(20 * 60);

impl Jump {
    /// From the moment of the last commit to what the clock shows, where the store goes on at `now`.
    fn between(last: Timestamp, clock: Timestamp, now: Timestamp) -> Option<Self> {
        let (ahead, back) = (clock.since(last), last.since(clock));
        let seconds = |span: Duration| i64::try_from(span.as_secs()).unwrap_or(i64::MAX);
        let is_far = last != Timestamp::EPOCH && ahead.max(back) > HOUR;
        is_far.then(|| Self { seconds: seconds(ahead) - seconds(back), until: now.after(HOUR) })
    }
}

impl Embedded {
    /// The present moment, for a gate that begins: after anything that was committed, though the clock was set back.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.shared.lock().latest
    }

    /// Opens a store and starts the thread that writes. To be called inside a runtime.
    ///
    /// # Errors
    ///
    /// [`DiskError`].
    pub fn open(medium: Box<dyn Medium>, options: Options, now: Timestamp) -> Result<Self, DiskError> {
        let (mut engine, writer) = Self::open_unwritten(medium, options, now)?;
        let run = std::thread::Builder::new().name("store".to_owned()).spawn(move || writer.run());
        engine.writer = Some(run.map_err(|error| DiskError::Refused(format!("no thread to write: {error}")))?);
        Ok(engine)
    }

    /// The same for whoever turns the writer himself.
    ///
    /// # Errors
    ///
    /// [`DiskError`].
    pub fn open_unwritten(
        mut medium: Box<dyn Medium>,
        options: Options,
        now: Timestamp,
    ) -> Result<(Self, Writer), DiskError> {
        let mut disk = medium.open()?;
        let found = writer::read(&mut *disk, &options, now, &writer::Start::Process)?;
        let jump = Jump::between(found.tail.at, now, found.now);
        let inner = Inner {
            state: found.state,
            noted: found.noted,
            open: watch::Sender::new(None),
            writing: None,
            waiting: 0,
            writer: Pace::Busy,
            stopping: false,
            copies: Vec::new(),
            told: Vec::new(),
            untold: found.granted,
            unsent: HashSet::new(),
            fault: None,
            unheard: None,
            epoch: 0,
            tail: found.tail.group,
            latest: found.now,
            dated: found.now,
            jump,
            history: found.history,
            last_line: found.last_line,
        };
        let shared = Arc::new(Shared { options, inner: Mutex::new(inner), work: Condvar::new(), news: Notify::new() });
        let herald = tokio::spawn(tell(Arc::clone(&shared)));
        let writer = Writer::new(medium, disk, Arc::clone(&shared));
        Ok((Self { shared, writer: None, herald }, writer))
    }
}

impl Drop for Embedded {
    /// Waits until all that was committed is written.
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.work.notify_all();
        if let Some(writer) = self.writer.take() {
            // It ends by itself; a panic in it has been reported.
            _ = writer.join();
        }
        self.herald.abort();
    }
}

/// Tells those who wait what became of their groups: in a task, so that a hundred of them are woken by one call into the
/// runtime.
async fn tell(shared: Arc<Shared>) {
    loop {
        shared.news.notified().await;
        let told = mem::take(&mut shared.lock().told);
        for (waiting, word) in told {
            waiting.send_replace(Some(word));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that runs under this lock panics half-way through a change: all checks come before the first write.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn usable(&self) -> Result<(), StoreError> {
        self.fault.clone().map_or(Ok(()), Err)
    }

    /// Whether anything has changed that is not in a group yet, if only the date.
    fn has_work(&self) -> bool {
        let is_dated = self.latest.since(self.dated) < DATED_EVERY;
        !self.noted.is_empty() || self.state.last_line() > self.last_line || !is_dated
    }

    /// What nobody waits for is written within a moment, in which more may come.
    fn hint(&mut self, shared: &Shared) {
        if self.writer == Pace::Asleep && self.has_work() {
            self.writer = Pace::Gathering;
            shared.work.notify_one();
        }
    }

    /// Who waits for what has been committed by now.
    fn wait(&mut self, shared: &Shared) -> watch::Receiver<Word> {
        self.waiting += 1;
        if self.waiting == 1 && self.writer != Pace::Busy {
            shared.work.notify_one();
        }
        self.open.subscribe()
    }

    /// Who waits for what this view says, if anything in it is not durable yet that an answer could rest on.
    fn wait_for(&mut self, view: &View, shared: &Shared) -> Option<watch::Receiver<Word>> {
        let settled = |fate: &Fate| matches!(fate, Fate::Settled { .. });
        let told = view.transactions.iter().filter(|(_, t)| t.claims.iter().any(|claim| settled(&claim.fate)));
        let mut writing = false;
        // Who brings again what is owed, or waits for a person, may hear success too.
        for delivery in view.deliveries.iter().filter(|delivery| delivery.owed || delivery.in_review().is_some()) {
            if self.noted.deliveries.contains(&delivery.id) {
                return Some(self.wait(shared));
            }
            writing |= self.writing.as_ref().is_some_and(|(noted, _)| noted.deliveries.contains(&delivery.id));
        }
        for (key, _) in told {
            if self.noted.transactions.contains(key) {
                return Some(self.wait(shared));
            }
            writing |= self.writing.as_ref().is_some_and(|(noted, _)| noted.transactions.contains(key));
        }
        self.writing.as_ref().filter(|_| writing).map(|(_, waiting)| waiting.subscribe())
    }

    fn commit(
        &mut self,
        transition: Transition,
        now: Timestamp,
        shared: &Shared,
    ) -> Result<(Vec<LeaseId>, Option<watch::Receiver<Word>>), CommitError> {
        self.usable()?;
        self.latest = self.latest.max(now);
        self.state.check(&transition, now)?;
        let mut waits = transition.waits(shared.options.durable);
        if waits {
            let begun = transition.deliveries.iter().filter_map(|change| begun(&self.state, change));
            self.noted.begun.extend(begun);
        }
        self.noted.transition(&transition);
        let noted = &mut self.noted;
        let seized: Vec<LeaseId> = transition.locks.iter().filter_map(LockChange::seized).collect();
        self.state.write(transition, now, |touched| noted.touched(touched));
        let mut granted = Vec::new();
        self.state.locks.advance(&mut granted);
        for lease in seized.iter().chain(&granted) {
            match self.state.deliveries.get(lease) {
                // Its owner goes to the app on the strength of this alone.
                None => waits = self.noted.granted(*lease),
                Some(delivery) if self.state.locks.is_wider(*lease, &delivery.letter.claimed) => {
                    self.noted.granted(*lease);
                }
                Some(_) => {}
            }
        }
        granted.append(&mut self.untold);
        if waits {
            return Ok((granted, Some(self.wait(shared))));
        }
        self.hint(shared);
        Ok((granted, None))
    }
}

/// The try that begins on the strength of this change.
fn begun(state: &State, change: &Change) -> Option<(LeaseId, u32)> {
    let Change::Put(Delivery { id, letter, phase: Phase::InFlight { .. }, attempts, .. }) = change else { return None };
    let before = state.deliveries.get(id).map_or(Phase::Queued, |before| before.phase);
    (before == Phase::Queued && !letter.policy.shadow).then_some((*id, *attempts))
}

/// Grants on their way to whoever committed. Let go of before they are told, they are told to the next.
struct Grants<'s> {
    shared: &'s Shared,
    epoch: u64,
    granted: Vec<LeaseId>,
}

impl Drop for Grants<'_> {
    fn drop(&mut self) {
        if self.granted.is_empty() {
            return;
        }
        let mut inner = self.shared.lock();
        // What was granted before the disk failed is granted anew, or not.
        if inner.epoch == self.epoch {
            inner.untold.append(&mut self.granted);
        }
    }
}

/// Waits for a group.
async fn durable(mut waiting: watch::Receiver<Word>) -> Result<(), StoreError> {
    match waiting.wait_for(Option::is_some).await {
        Ok(word) => word.clone().unwrap_or(Ok(())),
        Err(_) => Err(StoreError("the gate goes down".to_owned())),
    }
}

impl Store for Embedded {
    async fn load(&self, want: Want<'_>, now: Timestamp) -> Result<View, StoreError> {
        let (view, waiting) = {
            let mut inner = self.shared.lock();
            inner.usable()?;
            let view = inner.state.look(want, now);
            let waiting = match want {
                Want::Transactions(..) | Want::Arrival(..) => inner.wait_for(&view, &self.shared),
                // Of this no answer is made, only another commit.
                Want::Delivery(_) => None,
            };
            (view, waiting)
        };
        if let Some(waiting) = waiting {
            durable(waiting).await?;
        }
        Ok(view)
    }

    async fn commit(&self, transition: Transition, now: Timestamp) -> Result<Vec<LeaseId>, CommitError> {
        let (mut grants, waiting) = {
            let mut inner = self.shared.lock();
            let (granted, waiting) = inner.commit(transition, now, &self.shared)?;
            (Grants { shared: &self.shared, epoch: inner.epoch, granted }, waiting)
        };
        if let Some(waiting) = waiting {
            durable(waiting).await?;
        }
        Ok(mem::take(&mut grants.granted))
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<Due>, StoreError> {
        let mut inner = self.shared.lock();
        if let Some(error) = inner.unheard.take() {
            return Err(error);
        }
        inner.usable()?;
        inner.latest = inner.latest.max(now);
        let mut due = inner.state.due(now, limit);
        if !inner.untold.is_empty() {
            due.insert(0, Due::Grants);
            due.truncate(limit);
        }
        Ok(due)
    }

    async fn forget(&self, now: Timestamp, limit: usize) -> Result<bool, StoreError> {
        let mut inner = self.shared.lock();
        inner.usable()?;
        let Inner { state, noted, jump, .. } = &mut *inner;
        // What is too much goes all the same.
        let now = if jump.is_some_and(|jump| now < jump.until) { Timestamp::EPOCH } else { now };
        let more = state.forget(now, limit, |touched| noted.touched(touched));
        inner.hint(&self.shared);
        Ok(more)
    }

    fn note(&self, lines: Vec<Line>) {
        let mut inner = self.shared.lock();
        if inner.fault.is_some() {
            return;
        }
        lines.into_iter().for_each(|line| inner.state.write_line(line));
        inner.hint(&self.shared);
    }

    async fn history(&self, lines: Lines, after: u64, limit: usize) -> Result<Vec<(u64, Line)>, StoreError> {
        let inner = self.shared.lock();
        inner.usable()?;
        Ok(inner.state.history(lines, after, limit))
    }

    async fn called(&self, reference: &str, limit: usize) -> Result<Vec<Key>, StoreError> {
        let inner = self.shared.lock();
        inner.usable()?;
        Ok(inner.state.called(reference, limit))
    }

    async fn reviews(&self, after: (Timestamp, LeaseId), limit: usize) -> Result<Vec<Delivery>, StoreError> {
        let inner = self.shared.lock();
        inner.usable()?;
        Ok(inner.state.reviews(after, limit))
    }

    fn counts(&self) -> Counts {
        let inner = self.shared.lock();
        let counts = inner.state.counts();
        let untold = (!inner.untold.is_empty()).then_some(Timestamp::EPOCH);
        let jump = inner.jump.filter(|jump| inner.latest < jump.until).map_or(0, |jump| jump.seconds);
        Counts { next_due: untold.or(counts.next_due), jump, ..counts }
    }

    async fn flush(&self) -> Result<(), StoreError> {
        let waiting = {
            let mut inner = self.shared.lock();
            inner.usable()?;
            match &inner.writing {
                _ if inner.has_work() => Some(inner.wait(&self.shared)),
                Some((_, waiting)) => Some(waiting.subscribe()),
                None => None,
            }
        };
        match waiting {
            Some(waiting) => durable(waiting).await,
            None => Ok(()),
        }
    }

    async fn copy(&self) -> Result<Option<super::Copy>, StoreError> {
        let copied = {
            let mut inner = self.shared.lock();
            inner.usable()?;
            let (sender, copied) = oneshot::channel();
            inner.copies.push(sender);
            drop(inner.wait(&self.shared));
            copied
        };
        let records = copied.await.map_err(|_| StoreError("its disk has failed, or the gate goes down".to_owned()))?;
        Ok(Some(Box::new(Pieces::of(records).map(|piece| piece.map_err(|error| StoreError(error.to_string()))))))
    }

    fn fault(&self) -> Option<StoreError> {
        self.shared.lock().fault.clone()
    }
}
