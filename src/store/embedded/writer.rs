//! The one who writes: takes what is noted, writes it as one group, and reads everything anew when the disk has failed.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    mem,
    panic::AssertUnwindSafe,
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::{
    Inner, Options, Pace, Shared, StoreError,
    crowd::Crowd,
    disk::{Disk, DiskError, Group, Medium, Space, TAIL},
    noted::Noted,
    record::{self, Damaged, Lease, Rest, Tail},
    seal::Seals,
};
use crate::{
    callback::{Answer, Key},
    store::state::State,
    time::{Clock, SystemClock, Timestamp},
    transaction::{
        effect::LEASE_MARGIN,
        history::{Line, Outcome, What},
        lock::{LeaseId, Seat},
        policy::Policy,
        state::{Delivery, Phase},
    },
};

/// How long what nobody waits for is let gather.
const MOMENT: Duration = Duration::from_millis(5);
/// How long a failed disk is left alone before it is opened anew.
const PAUSE: Duration = Duration::from_secs(1);
/// What a lease that was kept may last longer than `quiet`, by whatever clock it was written.
const LONGEST_LINGER: Duration = Duration::from_secs(600);

/// The writer of an engine.
pub struct Writer {
    medium: Box<dyn Medium>,
    disk: Option<Box<dyn Disk>>,
    shared: Arc<Shared>,
    /// Those of the last group.
    crowd: Crowd,
}

impl Writer {
    pub(super) fn new(medium: Box<dyn Medium>, disk: Box<dyn Disk>, shared: Arc<Shared>) -> Self {
        Self { medium, disk: Some(disk), shared, crowd: Crowd::default() }
    }

    /// Writes until the engine is dropped, and then what is left.
    pub(super) fn run(mut self) {
        loop {
            if self.disk.is_none() {
                let inner = self.shared.lock();
                let waited = self.shared.work.wait_timeout_while(inner, PAUSE, |inner| !inner.stopping);
                let stopping = waited.unwrap_or_else(PoisonError::into_inner).0.stopping;
                if stopping {
                    return;
                }
                self.turn(SystemClock.now());
                continue;
            }
            let stopping = self.wait_for_work();
            self.let_gather();
            if !self.turn(SystemClock.now()) && stopping {
                return;
            }
        }
    }

    /// Sleeps until there is something to write; whether the engine is being dropped.
    fn wait_for_work(&self) -> bool {
        let mut inner = self.shared.lock();
        while inner.waiting == 0 && !inner.stopping {
            if inner.has_work() {
                inner.writer = Pace::Gathering;
                let pressing = |inner: &mut Inner| inner.waiting == 0 && !inner.stopping;
                let waited = self.shared.work.wait_timeout_while(inner, MOMENT, pressing);
                inner = waited.unwrap_or_else(PoisonError::into_inner).0;
                break;
            }
            inner.writer = Pace::Asleep;
            inner = self.shared.work.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.writer = Pace::Busy;
        inner.stopping
    }

    /// Lets those who are about to come join those who are there, where the last group was crowded.
    fn let_gather(&self) {
        let rest = self.crowd.rest();
        if rest > Duration::ZERO {
            let waited = self.shared.work.wait_timeout_while(self.shared.lock(), rest, |inner| !inner.stopping);
            drop(waited);
        }
    }

    /// How long the next group is let gather.
    #[cfg(test)]
    pub(super) fn rest(&self) -> Duration {
        self.crowd.rest()
    }

    /// Writes one group, or opens a failed disk anew. Whether there was anything to do.
    pub fn turn(&mut self, now: Timestamp) -> bool {
        if self.disk.is_none() {
            self.open_anew(now);
            return true;
        }
        let group = self.gather();
        if let Some(group) = &group {
            self.write(group);
        }
        group.is_some()
    }

    /// Takes all that is noted as a group, which then has to be [written](Self::write); `None` where there is nothing, or no
    /// disk at present.
    pub fn gather(&mut self) -> Option<Group> {
        let disk = self.disk.as_ref()?;
        // As of the last group: no other is being written.
        for wanted in mem::take(&mut self.shared.lock().copies) {
            // Who asked for it may have gone.
            _ = wanted.send(disk.records());
        }
        let mut inner = self.shared.lock();
        self.crowd.waiting = inner.waiting;
        inner.take()
    }

    /// Writes what was gathered, and has those told who wait for it.
    pub fn write(&mut self, group: &Group) {
        let Some(disk) = &mut self.disk else { return };
        let began = Instant::now();
        let written = unbroken(|| disk.write(group));
        self.crowd.took = began.elapsed();
        let mut inner = self.shared.lock();
        match written {
            Ok(()) => {
                inner.written(Ok(()));
                inner.unsent.clear();
            }
            Err(error) => {
                inner.failed(&error);
                drop(inner);
                self.disk = None;
                tracing::error!(%error, "the store can't be written; callbacks are refused until it can");
            }
        }
        self.shared.news.notify_one();
    }

    fn open_anew(&mut self, mut now: Timestamp) {
        let mut options = self.shared.options.clone();
        let start = {
            let inner = self.shared.lock();
            // As many as the configuration says by now.
            options.bounds.places = inner.state.locks.places();
            now = now.max(inner.latest);
            Start::Disk { unsent: inner.unsent.clone() }
        };
        let opened = unbroken(|| {
            let mut disk = self.medium.open()?;
            let found = read(&mut *disk, &options, now, &start)?;
            Ok((disk, found))
        });
        match opened {
            Ok((disk, found)) => {
                self.disk = Some(disk);
                self.shared.lock().begin_anew(found);
                tracing::warn!("the store can be written again; callbacks are taken");
            }
            Err(error) => {
                let error = StoreError(error.to_string());
                let mut inner = self.shared.lock();
                if inner.fault.as_ref().is_none_or(|known| known.0 != error.0) {
                    tracing::error!(%error, "the store can't be opened");
                }
                inner.fault = Some(error);
            }
        }
    }
}

/// A library that panics has failed too; nobody shall wait for a thread that is gone.
fn unbroken<T>(work: impl FnOnce() -> Result<T, DiskError>) -> Result<T, DiskError> {
    let panicked = |_| Err(DiskError::Refused("the library that keeps the store panicked".to_owned()));
    std::panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(panicked)
}

impl Inner {
    /// All that is noted, as a group to be written.
    fn take(&mut self) -> Option<Group> {
        let waited_for = mem::take(&mut self.waiting) > 0;
        if !self.has_work() {
            if waited_for {
                // All that there was is durable.
                let waiting = mem::replace(&mut self.open, watch::Sender::new(None));
                waiting.send_replace(Some(Ok(())));
            }
            return None;
        }
        (self.tail, self.dated) = (self.tail + 1, self.latest);
        let mut group = Group::new(self.tail);
        let left = self.noted.write(&self.state, &mut group);
        self.write_history(&mut group);
        group.put(Space::Tail, TAIL, |into| {
            record::write_tail(Tail { group: self.tail, line: self.last_line, at: self.latest }, into);
        });
        let noted = mem::replace(&mut self.noted, left);
        let waiting = mem::replace(&mut self.open, watch::Sender::new(None));
        self.writing = Some((noted, waiting));
        Some(group)
    }

    /// Writes the lines that have come, as one record, and removes those records of which every line is forgotten.
    fn write_history(&mut self, group: &mut Group) {
        let lines: Vec<_> = self.state.lines_after(self.last_line).collect();
        if let (Some((first, _)), Some((last, _))) = (lines.first(), lines.last()) {
            let key = record::number_key(*last);
            group.put(Space::History, &key, |into| {
                record::write_lines(*first, lines.iter().map(|(_, line)| *line), into)
            });
            self.history.push_back(*last);
            self.last_line = *last;
        }
        let gone = self.state.last_line() - self.state.history.len() as u64;
        while let Some(last) = self.history.front().copied().filter(|last| *last <= gone) {
            self.history.pop_front();
            group.remove(Space::History, &record::number_key(last));
        }
    }

    fn written(&mut self, word: Result<(), StoreError>) {
        if let Some((_, waiting)) = self.writing.take() {
            self.told.push((waiting, word));
        }
    }

    /// Nobody is told anything any more but that it failed.
    fn failed(&mut self, error: &DiskError) {
        let error = StoreError(error.to_string());
        let writing = self.writing.iter().flat_map(|(noted, _)| &noted.begun);
        self.unsent.extend(writing.chain(&self.noted.begun));
        self.written(Err(error.clone()));
        self.told.push((mem::replace(&mut self.open, watch::Sender::new(None)), Err(error.clone())));
        self.noted = Noted::default();
        self.waiting = 0;
        self.copies.clear();
        self.untold.clear();
        self.epoch += 1;
        self.unheard = Some(error.clone());
        self.fault = Some(error);
    }

    fn begin_anew(&mut self, found: Found) {
        self.state = found.state;
        self.noted = found.noted;
        self.untold = found.granted;
        self.tail = found.tail.group;
        (self.latest, self.dated) = (found.now, found.now);
        self.history = found.history;
        self.last_line = found.last_line;
        self.fault = None;
    }
}

/// What began, and what of it can be trusted therefore.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// This process: whoever was in the app has nobody any more who hears of his end.
    Process,
    /// The disk's use only: who sends goes on and brings his outcome.
    Disk {
        /// But these tries were never begun, whatever the disk says: it failed before that was durable, and their senders
        /// heard so.
        unsent: HashSet<(LeaseId, u32)>,
    },
}

/// What the history of a delivery says that was not begun.
const NOT_BEGUN: &str = "the store failed before the first byte";

/// What was found on the disk.
pub(super) struct Found {
    pub(super) state: State,
    pub(super) noted: Noted,
    pub(super) granted: Vec<LeaseId>,
    pub(super) tail: Tail,
    /// The present moment: after anything that was committed, whatever the clock says.
    pub(super) now: Timestamp,
    pub(super) history: VecDeque<u64>,
    pub(super) last_line: u64,
}

/// What stands in the records, before it is put together.
#[derive(Default)]
struct Records {
    tail: Tail,
    policies: HashMap<Key, Arc<Policy>>,
    seals: Seals,
    deliveries: Vec<Delivery>,
    /// Those that are not kept as they would be written now.
    stale: Vec<LeaseId>,
    leases: HashMap<LeaseId, Lease>,
    history: VecDeque<u64>,
    answers: HashSet<Arc<Answer>>,
}

/// So many answers are compared with each other; an app says `200 []` a million times.
const MOST_ANSWERS: usize = 1024;

/// Reads all that is known, and takes up what was under way.
pub(super) fn read(disk: &mut dyn Disk, options: &Options, now: Timestamp, start: &Start) -> Result<Found, DiskError> {
    // Versions of an earlier life are not met again.
    let mut state = State::beginning_at(options.bounds, now.as_millis() << 20);
    let mut records = Records { seals: options.seals.clone(), ..Records::default() };
    disk.read(&mut |space, key, bytes| records.take(space, key, bytes, &mut state))?;
    let now = records.tail.next().max(now);
    if records.tail.group > 0 {
        state.lessons_are_lost(now);
    }
    state.sort_names();
    state.count_lines_from(records.tail.line);
    let last_line = state.last_line();
    let mut noted = Noted::sealed_with(options.seals.clone());
    // Sealed anew, with the key that seals now.
    records.stale.iter().for_each(|id| noted.delivery(*id));
    for delivery in mem::take(&mut records.deliveries) {
        take_up_delivery(delivery, &mut records.leases, options, now, start, &mut state, &mut noted);
    }
    for (id, lease) in records.leases {
        take_up_lease(id, lease, options, now, start, &mut state, &mut noted);
    }
    queue_again(&mut state);
    let mut granted = Vec::new();
    state.locks.advance(&mut granted);
    Ok(Found { state, noted, granted, tail: records.tail, now, history: records.history, last_line })
}

impl Records {
    fn take(&mut self, space: Space, key: &[u8], bytes: &[u8], state: &mut State) -> Result<(), Damaged> {
        match space {
            Space::Tail => {
                self.tail = record::read_tail(bytes)?;
                // Read first of all. The clock may have been set back since.
                state.count_versions_from(self.tail.next().as_millis() << 20);
            }
            Space::Policies => {
                self.policies.insert(record::read_key(key)?, Arc::new(record::read_policy(bytes)?));
            }
            Space::Transactions => {
                let transaction = record::read_transaction(bytes, &mut |answer| self.shared(answer))?;
                state.write_transaction(record::read_key(key)?, transaction);
            }
            Space::Deliveries => {
                let id = LeaseId(record::read_number(key)?);
                let (opened, is_as_now) = self.seals.open(key, bytes)?;
                if !is_as_now {
                    self.stale.push(id);
                }
                self.deliveries.push(record::read_delivery(id, &opened, |key| self.policies.get(&key).cloned())?);
            }
            Space::Leases => {
                self.leases.insert(LeaseId(record::read_number(key)?), record::read_lease(bytes)?);
            }
            Space::Names => state.take_up_name(record::read_key(key)?, record::read_remembered(bytes)?),
            Space::Bills => state.take_up_bill(record::read_key(key)?, record::read_billed(bytes)?),
            Space::History => {
                let (first, lines) = record::read_lines(bytes)?;
                self.history.push_back(record::read_number(key)?);
                (first..).zip(lines).for_each(|(number, line)| state.take_up_line(number, line));
            }
        }
        Ok(())
    }

    fn shared(&mut self, answer: Answer) -> Arc<Answer> {
        if let Some(known) = self.answers.get(&answer) {
            return Arc::clone(known);
        }
        let answer = Arc::new(answer);
        if self.answers.len() < MOST_ANSWERS {
            self.answers.insert(Arc::clone(&answer));
        }
        answer
    }
}

/// What was on its way goes on: what may have been sent holds what it held.
fn take_up_delivery(
    mut delivery: Delivery,
    leases: &mut HashMap<LeaseId, Lease>,
    options: &Options,
    now: Timestamp,
    start: &Start,
    state: &mut State,
    noted: &mut Noted,
) {
    let id = delivery.id;
    match &mut delivery.phase {
        Phase::InFlight { lease_until } => match start {
            // Whoever sent it is gone, so its time has come.
            Start::Process => *lease_until = now,
            Start::Disk { unsent } if unsent.contains(&(id, delivery.attempts)) => {
                for transaction in delivery.letter.transactions() {
                    let what = What::Ended { outcome: Outcome::NotSent, status: None, why: Some(NOT_BEGUN.into()) };
                    let attempt = delivery.attempts;
                    state.write_line(Line { at: now, transaction, delivery: Some(id), attempt, what });
                }
                delivery.phase = Phase::Queued;
                delivery.attempts -= 1;
                noted.delivery(id);
            }
            // A clock that was set back does not make it wait for ever; it has all of its time, however short `quiet` is.
            Start::Disk { .. } => {
                let longest = delivery.letter.policy.timeout + LEASE_MARGIN + options.quiet;
                *lease_until = (*lease_until).min(now.after(longest));
            }
        },
        Phase::Unknown { since } => *since = (*since).min(now),
        // Who was asked then can't answer any more: it begins anew, for who is down with us may come back after us.
        Phase::Confirming { since, at } => (*since, *at) = (now, now),
        Phase::Held { .. }
        | Phase::Queued
        | Phase::Recheck { .. }
        | Phase::Awaited { .. }
        | Phase::Retrying { .. }
        | Phase::Review { .. } => {}
    }
    let lease = leases.remove(&id);
    let may_be_in_app = matches!(delivery.phase, Phase::InFlight { .. } | Phase::Unknown { .. });
    match lease {
        Some(lease) if may_be_in_app || lease.rest == Rest::Names => {
            state.locks.take_up(id, lease.seat);
            if lease.rest == Rest::Names {
                state.locks.keep_names(id);
            }
            noted.found(id, lease.rest);
        }
        lease => {
            if may_be_in_app && !delivery.letter.policy.shadow {
                state.locks.take_up(id, Seat::of(&delivery.letter.claimed));
            }
            if lease.is_some() {
                noted.drop_lease(id);
            }
        }
    }
    state.take_up_delivery(delivery);
}

/// Who was in the app without a delivery, or lingers, is kept apart from others for as long as it may be at work.
fn take_up_lease(
    id: LeaseId,
    lease: Lease,
    options: &Options,
    now: Timestamp,
    start: &Start,
    state: &mut State,
    noted: &mut Noted,
) {
    let longest = now.after(options.quiet + LONGEST_LINGER);
    let until = match (lease.until, start) {
        (Some(until), _) => until.min(longest),
        (None, Start::Process) => now.after(options.quiet),
        // Its owner gives it back, if there is one.
        (None, Start::Disk { .. }) => longest,
    };
    state.locks.take_up(id, lease.seat);
    if lease.rest == Rest::Names {
        state.locks.keep_names(id);
    }
    state.keep_lease(id, until);
    // Written anew, with its end.
    noted.keep(id, lease.rest);
}

/// What had its turn, or waited for it, and was not sent queues again, in the order of its arrival.
fn queue_again(state: &mut State) {
    let queued = |delivery: &&Delivery| delivery.phase == Phase::Queued;
    let mut queued: Vec<_> = state.deliveries.values().filter(queued).map(|d| (d.id, Arc::clone(&d.letter))).collect();
    queued.sort_unstable_by_key(|(id, letter)| (letter.arrived, *id));
    for (id, letter) in queued {
        state.locks.enqueue(id, &letter.claimed);
    }
}
