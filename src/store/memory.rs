//! The engine that keeps everything in memory: exact while the process lives, empty when it starts.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque, hash_map::Entry},
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{CommitError, Counts, Due, Lines, Store, StoreError, Want};
use crate::{
    callback::Key,
    spread::Spread,
    time::Timestamp,
    transaction::{
        effect::{Change, LockChange, Transition, View},
        history::{Line, What},
        learned::Learned,
        lock::{LeaseId, LockName, Table},
        state::{Delivery, Fate, Phase, Transaction},
    },
};

/// The bounds of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Callbacks in the app at once.
    pub places: usize,
    /// Settled transactions remembered; above, those that would be forgotten first are forgotten early.
    pub max_remembered: usize,
    /// Leases held and waited for; and deliveries that are not settled.
    pub max_leases: usize,
    /// Lines of history kept in all.
    pub history: usize,
    /// How long they are kept.
    pub history_retention: Duration,
    /// Lines about repetitions that are kept of one transaction.
    pub max_repeats: usize,
    /// How long links, the passing of returns, and what payers have begun are remembered.
    pub names_retained: Duration,
    /// So often at most; above, what would be forgotten first is forgotten early.
    pub max_names: usize,
    /// Payers of whom it is remembered what they have begun; above, nothing is learned of more.
    pub max_payers: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            places: usize::MAX,
            max_remembered: 2_000_000,
            max_leases: 100_000,
            history: 4096,
            history_retention: Duration::from_secs(90 * 24 * 3600),
            max_repeats: 50,
            names_retained: Duration::from_secs(3600),
            max_names: 200_000,
            max_payers: 50_000,
        }
    }
}

/// The engine.
#[derive(Debug)]
pub struct Memory {
    options: Options,
    inner: Mutex<Inner>,
}

/// So many tables, so that one that doubles stops its neighbours for a short time only.
const SHARDS: usize = 256;
/// Expiry is kept to the minute: coarse enough that a million of them cost a vector.
const MINUTE: u64 = 60_000;

#[derive(Debug)]
struct Inner {
    transactions: Vec<HashMap<Key, Kept, Spread>>,
    /// Versions are drawn from one source, so that a transaction which is forgotten and comes back is not taken for
    /// what it was.
    versions: u64,
    remembered: usize,
    expiring: BTreeMap<u32, Vec<Key>>,
    deliveries: HashMap<LeaseId, Delivery, Spread>,
    due: BTreeSet<(Timestamp, LeaseId)>,
    locks: Table,
    leases: HashMap<LeaseId, Timestamp, Spread>,
    leases_due: BTreeSet<(Timestamp, LeaseId)>,
    names: HashMap<Key, Remembered, Spread>,
    names_expiring: VecDeque<(Timestamp, Key)>,
    learned: Learned,
    late_links: u64,
    history: VecDeque<Line>,
    /// How many lines have gone from its front.
    history_gone: u64,
    /// How many of its lines tell of repetitions of a transaction.
    repeats: HashMap<Key, usize>,
    review: BTreeSet<(Timestamp, LeaseId)>,
    evicted: u64,
}

/// A transaction, and the minute under which its expiry is noted; 0 where it is not.
#[derive(Debug)]
struct Kept {
    transaction: Transaction,
    noted: u32,
}

/// What is remembered of a name.
#[derive(Clone, Debug, Default)]
struct Remembered {
    linked: Vec<LockName>,
    returned: bool,
    until: Timestamp,
}

/// Names that are linked to one name; more are not remembered.
const MOST_LINKS: usize = 8;

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let inner = Inner {
            transactions: (0..SHARDS).map(|_| HashMap::default()).collect(),
            versions: 0,
            remembered: 0,
            expiring: BTreeMap::new(),
            deliveries: HashMap::default(),
            due: BTreeSet::new(),
            locks: Table::new(options.places),
            leases: HashMap::default(),
            leases_due: BTreeSet::new(),
            names: HashMap::default(),
            names_expiring: VecDeque::new(),
            learned: Learned::new(options.names_retained, options.max_payers),
            late_links: 0,
            history: VecDeque::new(),
            history_gone: 0,
            repeats: HashMap::new(),
            review: BTreeSet::new(),
            evicted: 0,
        };
        Self { options, inner: Mutex::new(inner) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code that runs under this lock panics half-way through a change: all checks come before the first write.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    async fn load(&self, want: Want<'_>, now: Timestamp) -> Result<View, StoreError> {
        let inner = self.lock();
        Ok(match want {
            Want::Transactions(keys, names) => inner.view(keys.iter().copied(), names, now),
            Want::Delivery(id) => match inner.deliveries.get(&id) {
                None => View::default(),
                Some(delivery) => {
                    let keys = delivery.letter.events.iter().map(|event| event.transaction);
                    let mut view = inner.view(keys, &delivery.letter.claimed.names, now);
                    view.deliveries.retain(|other| other.id != id);
                    view.deliveries.push(delivery.clone());
                    view.late = view.linked.iter().any(|name| inner.locks.lacks(id, &name.key));
                    view
                }
            },
        })
    }

    async fn commit(&self, transition: Transition, now: Timestamp) -> Result<Vec<LeaseId>, CommitError> {
        let mut inner = self.lock();
        inner.check(&transition, &self.options)?;
        inner.write(transition, &self.options, now);
        let mut granted = Vec::new();
        inner.locks.advance(&mut granted);
        Ok(granted)
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<Due>, StoreError> {
        let inner = self.lock();
        let ripe = |(at, _): &&(Timestamp, LeaseId)| *at <= now;
        let leases = inner.leases_due.iter().take_while(ripe).take(limit).map(|(at, id)| (*at, Due::Lease(*id)));
        let deliveries = inner.due.iter().take_while(ripe).take(limit).map(|(at, id)| (*at, Due::Delivery(*id)));
        let mut due: Vec<_> = leases.chain(deliveries).collect();
        due.sort_by_key(|(at, _)| *at);
        Ok(due.into_iter().take(limit).map(|(_, due)| due).collect())
    }

    async fn forget(&self, now: Timestamp, limit: usize) -> Result<bool, StoreError> {
        Ok(self.lock().forget(now, limit, &self.options))
    }

    fn note(&self, lines: Vec<Line>) {
        let mut inner = self.lock();
        lines.into_iter().for_each(|line| inner.write_line(line, &self.options));
    }

    async fn history(&self, lines: Lines, after: u64, limit: usize) -> Result<Vec<(u64, Line)>, StoreError> {
        let inner = self.lock();
        let wanted = |line: &Line| match lines {
            Lines::Of(transaction) => line.transaction == transaction,
            Lines::Between(from, to) => from <= line.at && line.at < to,
        };
        let seen = usize::try_from(after.saturating_sub(inner.history_gone)).unwrap_or(usize::MAX);
        let numbered = (inner.history_gone + 1..).zip(&inner.history).skip(seen);
        Ok(numbered.filter(|(_, line)| wanted(line)).take(limit).map(|(number, line)| (number, line.clone())).collect())
    }

    async fn called(&self, reference: &str, limit: usize) -> Result<Vec<Key>, StoreError> {
        let mut found = Vec::new();
        for line in &self.lock().history {
            let What::Arrived(arrived) = &line.what else { continue };
            if *arrived.reference == *reference && found.len() < limit && !found.contains(&line.transaction) {
                found.push(line.transaction);
            }
        }
        Ok(found)
    }

    async fn reviews(&self, after: (Timestamp, LeaseId), limit: usize) -> Result<Vec<Delivery>, StoreError> {
        let inner = self.lock();
        let waiting = inner.review.range((Bound::Excluded(after), Bound::Unbounded)).take(limit);
        Ok(waiting.filter_map(|(_, id)| inner.deliveries.get(id)).cloned().collect())
    }

    fn counts(&self) -> Counts {
        let inner = self.lock();
        let next = |set: &BTreeSet<(Timestamp, LeaseId)>| set.first().map(|(at, _)| *at);
        Counts {
            transactions: inner.remembered,
            deliveries: inner.deliveries.len(),
            in_flight: inner.locks.taken(),
            leases: inner.locks.len(),
            review: inner.review.len(),
            oldest_review: inner.review.first().map(|(since, _)| *since),
            evicted: inner.evicted,
            late_links: inner.late_links,
            next_due: [next(&inner.due), next(&inner.leases_due)].into_iter().flatten().min(),
        }
    }
}

/// The first full minute at which this moment has passed.
fn minute_after(moment: Timestamp) -> u32 {
    u32::try_from(moment.as_millis() / MINUTE + 1).unwrap_or(u32::MAX)
}

const fn shard(key: &Key) -> usize {
    key.as_bytes()[0] as usize % SHARDS
}

impl Inner {
    fn transaction(&self, key: &Key) -> Option<&Transaction> {
        self.transactions[shard(key)].get(key).map(|kept| &kept.transaction)
    }

    fn view(&self, keys: impl Iterator<Item = Key>, names: &[LockName], now: Timestamp) -> View {
        let mut view = View::default();
        for key in keys {
            if view.transactions.iter().any(|(known, _)| *known == key) {
                continue;
            }
            let Some(transaction) = self.transaction(&key) else { continue };
            for claim in &transaction.claims {
                let pending = match claim.fate {
                    Fate::Pending(id) => Some(id),
                    Fate::Settled { .. } => None,
                };
                let next = claim.window.as_ref().and_then(|window| window.next);
                for id in [pending, next].into_iter().flatten() {
                    if let Some(delivery) = self.deliveries.get(&id).filter(|_| view.delivery(id).is_none()) {
                        view.deliveries.push(delivery.clone());
                    }
                }
            }
            view.transactions.push((key, transaction.clone()));
        }
        if !self.names.is_empty() {
            for remembered in names.iter().filter_map(|name| self.names.get(&name.key)).filter(|r| now < r.until) {
                view.returned |= remembered.returned;
                view.linked.extend(remembered.linked.iter().filter(|linked| !names.contains(linked)));
            }
        }
        if !self.learned.is_empty() {
            let begun = |name: &LockName| Some((name.key, self.learned.of(&name.key, now)?.clone()));
            view.begun = names.iter().filter_map(begun).collect();
            view.told = names.iter().any(|name| self.learned.tells(&name.key));
        }
        view
    }

    /// Everything that can be wrong with a commit, before anything is written.
    fn check(&self, transition: &Transition, options: &Options) -> Result<(), CommitError> {
        let version = |id: &LeaseId| self.deliveries.get(id).map_or(0, |delivery| delivery.version);
        let same_transactions = transition
            .transactions
            .iter()
            .all(|(key, wanted)| self.transaction(key).map_or(0, |known| known.version) == wanted.version);
        let same_deliveries = transition.deliveries.iter().all(|change| match change {
            Change::Put(delivery) => version(&delivery.id) == delivery.version,
            Change::Remove(id, expected) => version(id) == *expected,
        });
        if !same_transactions || !same_deliveries {
            return Err(CommitError::Conflict);
        }
        for change in &transition.locks {
            match change {
                LockChange::Require(lease) if !self.locks.holds(*lease) => return Err(CommitError::LeaseLost),
                // What has been let in already is never refused: nobody would be left to hear of it.
                LockChange::Enqueue(lease, _)
                    if self.locks.len() >= options.max_leases && !self.deliveries.contains_key(lease) =>
                {
                    return Err(CommitError::Full);
                }
                _ => {}
            }
        }
        // What waits for a person is bounded by who puts it there.
        let is_new = |change: &Change| matches!(change, Change::Put(delivery) if delivery.version == 0 && delivery.in_review().is_none());
        if self.deliveries.len() >= options.max_leases && transition.deliveries.iter().any(is_new) {
            return Err(CommitError::Full);
        }
        Ok(())
    }

    fn write(&mut self, transition: Transition, options: &Options, now: Timestamp) {
        for (key, transaction) in transition.transactions {
            self.write_transaction(key, transaction);
        }
        for change in transition.deliveries {
            self.write_delivery(change);
        }
        for change in transition.locks {
            self.write_lock(change);
        }
        let until = now.after(options.names_retained);
        while self.names_expiring.len() > options.max_names {
            self.forget_name();
        }
        for name in transition.returned {
            self.remember(name, until, now).returned = true;
        }
        for (a, b) in transition.links {
            self.link(a, b, until, now);
            self.link(b, a, until, now);
        }
        for lesson in transition.lessons {
            for name in self.learned.take_in(&lesson, now) {
                let holder = self.locks.holder(&name.key);
                self.late_links += u64::from(holder.is_some_and(|lease| self.is_in_the_app(lease)));
            }
        }
        for line in transition.history {
            self.write_line(line, options);
        }
    }

    fn write_line(&mut self, line: Line, options: &Options) {
        if options.history == 0 {
            return;
        }
        if line.is_repeat() {
            let count = self.repeats.entry(line.transaction).or_default();
            if *count >= options.max_repeats {
                return;
            }
            *count += 1;
        }
        while self.history.len() >= options.history {
            self.forget_line();
        }
        self.history.push_back(line);
    }

    fn forget_line(&mut self) {
        let Some(line) = self.history.pop_front() else { return };
        self.history_gone += 1;
        if line.is_repeat()
            && let Entry::Occupied(mut count) = self.repeats.entry(line.transaction)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }

    fn write_transaction(&mut self, key: Key, mut transaction: Transaction) {
        let table = &mut self.transactions[shard(&key)];
        if transaction.claims.is_empty() {
            // Nothing to remember; that money has moved is forgotten with the last identity.
            self.remembered -= usize::from(table.remove(&key).is_some());
            return;
        }
        self.versions += 1;
        transaction.version = self.versions;
        let mut noted = table.get(&key).map_or(0, |kept| kept.noted);
        if let Some(expires) = transaction.expires().filter(|_| noted == 0) {
            noted = minute_after(expires);
            self.expiring.entry(noted).or_default().push(key);
        }
        self.remembered += usize::from(table.insert(key, Kept { transaction, noted }).is_none());
    }

    fn write_delivery(&mut self, change: Change) {
        let (id, next) = match change {
            Change::Put(mut delivery) => {
                delivery.version += 1;
                (delivery.id, Some(delivery))
            }
            Change::Remove(id, _) => (id, None),
        };
        if let Some(next) = &next {
            if let Some((since, _)) = next.in_review() {
                self.review.insert((since, id));
            }
            if let Some(due) = next.due() {
                self.due.insert((due, id));
            }
        }
        let due = next.as_ref().and_then(Delivery::due);
        let in_review = next.as_ref().and_then(Delivery::in_review);
        let before = match next {
            Some(next) => self.deliveries.insert(id, next),
            None => self.deliveries.remove(&id),
        };
        if let Some(before) = before {
            if let Some((since, _)) =
                before.in_review().filter(|(since, _)| Some(*since) != in_review.map(|(at, _)| at))
            {
                self.review.remove(&(since, id));
            }
            if let Some(at) = before.due().filter(|at| Some(*at) != due) {
                self.due.remove(&(at, id));
            }
        }
    }

    fn write_lock(&mut self, change: LockChange) {
        match change {
            LockChange::Enqueue(lease, claimed) => self.locks.enqueue(lease, &claimed),
            LockChange::Requeue(lease, claimed) => {
                self.end_lease(lease);
                self.locks.enqueue(lease, &claimed);
            }
            LockChange::Require(_) => {}
            LockChange::Release(lease) => self.end_lease(lease),
            LockChange::Linger(lease, until) => {
                self.locks.vacate(lease);
                self.keep_lease(lease, until);
            }
            LockChange::Keep(lease, until) => self.keep_lease(lease, until),
            LockChange::Names(lease) => self.locks.keep_names(lease),
            LockChange::Places(places) => self.locks.resize(places),
        }
    }

    fn keep_lease(&mut self, lease: LeaseId, until: Timestamp) {
        if !self.locks.holds(lease) {
            return;
        }
        if let Some(before) = self.leases.insert(lease, until) {
            self.leases_due.remove(&(before, lease));
        }
        self.leases_due.insert((until, lease));
    }

    fn end_lease(&mut self, lease: LeaseId) {
        if let Some(until) = self.leases.remove(&lease) {
            self.leases_due.remove(&(until, lease));
        }
        self.locks.release(lease);
    }

    fn remember(&mut self, name: LockName, until: Timestamp, now: Timestamp) -> &mut Remembered {
        let remembered = self.names.entry(name.key).or_default();
        if remembered.until <= now {
            *remembered = Remembered::default();
        }
        remembered.until = until;
        self.names_expiring.push_back((until, name.key));
        remembered
    }

    fn link(&mut self, name: LockName, other: LockName, until: Timestamp, now: Timestamp) {
        let linked = &mut self.remember(name, until, now).linked;
        if linked.contains(&other) || linked.len() >= MOST_LINKS {
            return;
        }
        linked.push(other);
        let late = |lease: &LeaseId| self.locks.lacks(*lease, &other.key) && self.is_in_the_app(*lease);
        self.late_links += u64::from(self.locks.holder(&name.key).is_some_and(|lease| late(&lease)));
    }

    /// Whether whoever holds this lease has been sent: what only connects looks at its names once more.
    fn is_in_the_app(&self, lease: LeaseId) -> bool {
        self.deliveries.get(&lease).is_none_or(|delivery| delivery.phase != Phase::Queued)
    }

    fn forget_name(&mut self) {
        let Some((until, key)) = self.names_expiring.pop_front() else { return };
        if self.names.get(&key).is_some_and(|remembered| remembered.until <= until) {
            self.names.remove(&key);
        }
    }

    fn forget(&mut self, now: Timestamp, limit: usize, options: &Options) -> bool {
        let mut left = limit;
        while self.history.front().is_some_and(|line| line.at.after(options.history_retention) <= now) {
            if left == 0 {
                return true;
            }
            left -= 1;
            self.forget_line();
        }
        while self.names_expiring.front().is_some_and(|(until, _)| *until <= now) {
            if left == 0 {
                return true;
            }
            left -= 1;
            self.forget_name();
        }
        if self.learned.forget(now, left) {
            return true;
        }
        while left > 0 {
            let Some(mut bucket) = self.expiring.first_entry() else { return false };
            let minute = *bucket.key();
            let early = u64::from(minute) * MINUTE > now.as_millis();
            if early && self.remembered <= options.max_remembered {
                return false;
            }
            left -= 1;
            match bucket.get_mut().pop() {
                Some(key) => self.forget_transaction(key, minute, now, early),
                None => _ = bucket.remove(),
            }
        }
        true
    }

    fn forget_transaction(&mut self, key: Key, minute: u32, now: Timestamp, early: bool) {
        let table = &mut self.transactions[shard(&key)];
        // A note that outlived its transaction, which has come back since and has a note of its own.
        let Some(kept) = table.get_mut(&key).filter(|kept| kept.noted == minute) else { return };
        let transaction = &mut kept.transaction;
        let before = transaction.claims.len();
        transaction.forget_expired(if early { Timestamp::NEVER } else { now });
        // What was decided on the longer list is decided again.
        self.versions += 1;
        transaction.version = self.versions;
        if early && transaction.claims.len() < before {
            self.evicted += 1;
        }
        kept.noted = transaction.expires().map_or(0, minute_after);
        if kept.noted != 0 {
            self.expiring.entry(kept.noted).or_default().push(key);
        } else if transaction.claims.is_empty() {
            table.remove(&key);
            self.remembered -= 1;
            // Memory goes back as the table empties, a shard at a time.
            if table.capacity() > 64 && table.len() * 8 < table.capacity() {
                table.shrink_to(table.len() * 2);
            }
        }
    }
}
