//! What an engine knows, in memory: the tables over which a commit is judged and made true.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque, hash_map::Entry},
    hash::{Hash, Hasher},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use super::{CommitError, Counts, Due, Lines, Want};
use crate::{
    callback::{Answer, Key},
    spread::Spread,
    time::Timestamp,
    transaction::{
        effect::{Change, LockChange, Transition, View},
        history::{Line, What},
        learned::Learned,
        lock::{LeaseId, LockName, Table},
        money::Money,
        state::{Bill, Claim, Delivery, Fate, Phase, Transaction, Window},
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
    /// How long it is remembered what has paid a bill, from its last payment.
    pub bills_retained: Duration,
    /// So many bills at most; above, what would be forgotten first is forgotten early.
    pub max_bills: usize,
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
            bills_retained: Duration::from_secs(30 * 24 * 3600),
            max_bills: 500_000,
            max_payers: 50_000,
        }
    }
}

/// So many tables, so that one that doubles stops its neighbours for a short time only.
const SHARDS: usize = 256;
/// Expiry is kept to the minute: coarse enough that a million of them cost a vector.
const MINUTE: u64 = 60_000;

/// The tables of one upstream.
#[derive(Debug)]
pub(super) struct State {
    pub(super) options: Options,
    transactions: Vec<HashSet<Kept, Spread>>,
    /// Versions are drawn from one source, so that a transaction which is forgotten and comes back is not taken for
    /// what it was.
    versions: u64,
    remembered: usize,
    expiring: BTreeMap<u32, Vec<Key>>,
    pub(super) deliveries: HashMap<LeaseId, Delivery, Spread>,
    due: BTreeSet<(Timestamp, LeaseId)>,
    pub(super) locks: Table,
    pub(super) leases: HashMap<LeaseId, Timestamp, Spread>,
    leases_due: BTreeSet<(Timestamp, LeaseId)>,
    pub(super) bills: HashMap<Key, Billed, Spread>,
    bills_expiring: VecDeque<(Timestamp, Key)>,
    pub(super) names: HashMap<Key, Remembered, Spread>,
    names_expiring: VecDeque<(Timestamp, Key)>,
    learned: Learned,
    late_links: u64,
    pub(super) history: VecDeque<Line>,
    /// How many lines have gone from its front.
    history_gone: u64,
    /// How many of its lines tell of repetitions of a transaction.
    repeats: HashMap<Key, usize>,
    review: BTreeSet<(Timestamp, LeaseId)>,
    /// What was acknowledged and is on its way, by when it came.
    owed: BTreeSet<(Timestamp, LeaseId)>,
    evicted: u64,
}

/// A transaction as it is kept, found by its key: a million of them know one settled event and no window, and cost one small
/// allocation each. A table doubles when it is full, so what stands in its places is as small as it can be.
#[derive(Debug)]
struct Kept(Box<Packed>);

#[derive(Debug)]
struct Packed {
    key: Key,
    version: u64,
    /// The minute under which its expiry is noted; 0 where it is not.
    noted: u32,
    money: Money,
    identity: Key,
    fate: Fate,
    told: u64,
    rest: Option<Box<Rest>>,
}

/// What few transactions have.
#[derive(Debug)]
struct Rest {
    window: Option<Box<Window>>,
    rode: Option<Arc<Answer>>,
    more: Vec<Claim>,
}

impl Borrow<Key> for Kept {
    fn borrow(&self) -> &Key {
        &self.0.key
    }
}

impl Hash for Kept {
    /// As its key, by which it is found.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.key.hash(state);
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for Kept {}

impl Kept {
    /// `None` where there is nothing to remember; that money has moved is forgotten with the last identity.
    fn pack(key: Key, transaction: Transaction, noted: u32) -> Option<Self> {
        let Transaction { version, claims, money } = transaction;
        let mut more = claims.into_iter();
        let Claim { identity, fate, told, window, rode } = more.next()?;
        let plain = window.is_none() && rode.is_none() && more.len() == 0;
        let rest = (!plain).then(|| Box::new(Rest { window, rode, more: more.collect() }));
        Some(Self(Box::new(Packed { key, version, noted, money, identity, fate, told, rest })))
    }

    fn unpack(&self) -> Transaction {
        let Packed { key: _, version, noted: _, money, identity, fate, told, rest } = &*self.0;
        let rest = rest.as_deref();
        let (window, rode) = rest.map_or((None, None), |rest| (rest.window.clone(), rest.rode.clone()));
        let more = rest.map_or(&[][..], |rest| &rest.more);
        let mut claims = Vec::with_capacity(1 + more.len());
        claims.push(Claim { identity: *identity, fate: fate.clone(), told: *told, window, rode });
        claims.extend_from_slice(more);
        Transaction { version: *version, claims, money: *money }
    }
}

/// A bill, and until when it is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Billed {
    pub(super) bill: Bill,
    pub(super) until: Timestamp,
}

/// What is remembered of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    pub(super) linked: Vec<LockName>,
    pub(super) returned: bool,
    pub(super) until: Timestamp,
}

/// What forgetting changed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Touched {
    /// A transaction.
    Transaction(Key),
    /// What was remembered of a name.
    Name(Key),
    /// A bill.
    Bill(Key),
}

/// Names that are linked to one name; more are not remembered.
const MOST_LINKS: usize = 8;

/// The first full minute at which this moment has passed.
fn minute_after(moment: Timestamp) -> u32 {
    u32::try_from(moment.as_millis() / MINUTE + 1).unwrap_or(u32::MAX)
}

const fn shard(key: &Key) -> usize {
    key.as_bytes()[0] as usize % SHARDS
}

impl State {
    /// Nothing is known.
    pub(super) fn new(options: Options) -> Self {
        Self::beginning_at(options, 0)
    }

    /// Nothing is known, and every version is above this one.
    pub(super) fn beginning_at(options: Options, versions: u64) -> Self {
        Self {
            transactions: (0..SHARDS).map(|_| HashSet::default()).collect(),
            versions,
            remembered: 0,
            expiring: BTreeMap::new(),
            deliveries: HashMap::default(),
            due: BTreeSet::new(),
            locks: Table::new(options.places),
            leases: HashMap::default(),
            leases_due: BTreeSet::new(),
            bills: HashMap::default(),
            bills_expiring: VecDeque::new(),
            names: HashMap::default(),
            names_expiring: VecDeque::new(),
            learned: Learned::new(options.names_retained, options.max_payers),
            late_links: 0,
            history: VecDeque::new(),
            history_gone: 0,
            repeats: HashMap::new(),
            review: BTreeSet::new(),
            owed: BTreeSet::new(),
            evicted: 0,
            options,
        }
    }

    /// Versions below this one were drawn in an earlier life.
    pub(super) fn count_versions_from(&mut self, versions: u64) {
        self.versions = self.versions.max(versions);
    }

    /// What a decision needs to know.
    pub(super) fn look(&self, want: Want<'_>, now: Timestamp) -> View {
        match want {
            Want::Transactions(keys, names) => self.view(keys.iter().copied(), names, now),
            Want::Arrival(keys, claimed, bills) => {
                let view = self.view(keys.iter().copied(), &claimed.names, now);
                View { free: self.locks.is_free(claimed), ..self.with_bills(view, bills, now) }
            }
            Want::Delivery(id) => match self.deliveries.get(&id) {
                None => View::default(),
                Some(delivery) => {
                    let keys = delivery.letter.events.iter().map(|event| event.transaction);
                    let mut view = self.view(keys, &delivery.letter.claimed.names, now);
                    view.deliveries.retain(|other| other.id != id);
                    view.deliveries.push(delivery.clone());
                    view.late = view.linked.iter().any(|name| self.locks.lacks(id, &name.key));
                    view
                }
            },
        }
    }

    /// Makes a transition true, or changes nothing.
    pub(super) fn commit(&mut self, transition: Transition, now: Timestamp) -> Result<Vec<LeaseId>, CommitError> {
        self.check(&transition, now)?;
        self.write(transition, now, |_| ());
        let mut granted = Vec::new();
        self.locks.advance(&mut granted);
        Ok(granted)
    }

    /// What was learned of payers is in no record, and there were records before.
    pub(super) fn lessons_are_lost(&mut self, now: Timestamp) {
        self.learned.lost(now);
    }

    /// What is due, the earliest first.
    pub(super) fn due(&self, now: Timestamp, limit: usize) -> Vec<Due> {
        let ripe = |(at, _): &&(Timestamp, LeaseId)| *at <= now;
        let leases = self.leases_due.iter().take_while(ripe).take(limit).map(|(at, id)| (*at, Due::Lease(*id)));
        let deliveries = self.due.iter().take_while(ripe).take(limit).map(|(at, id)| (*at, Due::Delivery(*id)));
        let mut due: Vec<_> = leases.chain(deliveries).collect();
        due.sort_by_key(|(at, _)| *at);
        due.into_iter().take(limit).map(|(_, due)| due).collect()
    }

    /// Lines of history, each with its number.
    pub(super) fn history(&self, lines: Lines, after: u64, limit: usize) -> Vec<(u64, Line)> {
        let wanted = |line: &Line| match lines {
            Lines::Of(transaction) => line.transaction == transaction,
            Lines::Between(from, to) => from <= line.at && line.at < to,
        };
        let numbered = self.lines_after(after);
        numbered.filter(|(_, line)| wanted(line)).take(limit).map(|(number, line)| (number, line.clone())).collect()
    }

    /// Every line after this one, with its number.
    pub(super) fn lines_after(&self, after: u64) -> impl Iterator<Item = (u64, &Line)> {
        let seen = usize::try_from(after.saturating_sub(self.history_gone)).unwrap_or(usize::MAX);
        // Never beyond the end, for skipping is counted one by one.
        let seen = seen.min(self.history.len());
        (self.history_gone + seen as u64 + 1..).zip(self.history.range(seen..))
    }

    /// The number of the last line.
    pub(super) fn last_line(&self) -> u64 {
        self.history_gone + self.history.len() as u64
    }

    /// The transactions of which history knows an arrival with this reference.
    pub(super) fn called(&self, reference: &str, limit: usize) -> Vec<Key> {
        let mut found = Vec::new();
        for line in &self.history {
            let What::Arrived(arrived) = &line.what else { continue };
            if *arrived.reference == *reference && found.len() < limit && !found.contains(&line.transaction) {
                found.push(line.transaction);
            }
        }
        found
    }

    /// Deliveries that wait for a person.
    pub(super) fn reviews(&self, after: (Timestamp, LeaseId), limit: usize) -> Vec<Delivery> {
        let waiting = self.review.range((Bound::Excluded(after), Bound::Unbounded)).take(limit);
        waiting.filter_map(|(_, id)| self.deliveries.get(id)).cloned().collect()
    }

    /// How much is kept.
    pub(super) fn counts(&self) -> Counts {
        let next = |set: &BTreeSet<(Timestamp, LeaseId)>| set.first().map(|(at, _)| *at);
        Counts {
            transactions: self.remembered,
            deliveries: self.deliveries.len(),
            in_flight: self.locks.taken(),
            leases: self.locks.len(),
            review: self.review.len(),
            oldest_review: self.review.first().map(|(since, _)| *since),
            owed: self.owed.len(),
            oldest_owed: self.owed.first().map(|(since, _)| *since),
            evicted: self.evicted,
            late_links: self.late_links,
            jump: 0,
            next_due: [next(&self.due), next(&self.leases_due)].into_iter().flatten().min(),
        }
    }

    /// What is known of a transaction.
    pub(super) fn transaction(&self, key: &Key) -> Option<Transaction> {
        self.transactions[shard(key)].get(key).map(Kept::unpack)
    }

    fn version(&self, key: &Key) -> u64 {
        self.transactions[shard(key)].get(key).map_or(0, |kept| kept.0.version)
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
            view.transactions.push((key, transaction));
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
            view.told = names.iter().filter(|name| self.learned.tells(&name.key)).copied().collect();
        }
        view
    }

    fn with_bills(&self, mut view: View, keys: &[Key], now: Timestamp) -> View {
        for key in keys {
            let Some(billed) = self.bills.get(key).filter(|billed| now < billed.until) else { continue };
            if view.bills.iter().any(|(known, _)| known == key) {
                continue;
            }
            let money = |payer: &Key| Some((*payer, self.transactions[shard(payer)].get(payer)?.0.money));
            view.payers.extend(billed.bill.paid_by.iter().filter_map(money));
            view.bills.push((*key, billed.bill.clone()));
        }
        view
    }

    /// Everything that can be wrong with a commit, before anything is written.
    pub(super) fn check(&self, transition: &Transition, now: Timestamp) -> Result<(), CommitError> {
        let version = |id: &LeaseId| self.deliveries.get(id).map_or(0, |delivery| delivery.version);
        let same_transactions = transition.transactions.iter().all(|(key, wanted)| self.version(key) == wanted.version);
        let same_deliveries = transition.deliveries.iter().all(|change| match change {
            Change::Put(delivery) => version(&delivery.id) == delivery.version,
            Change::Remove(id, expected) => version(id) == *expected,
        });
        // One that has lapsed and is not forgotten yet is seen by nobody.
        let billed = |key: &Key| self.bills.get(key).filter(|billed| now < billed.until);
        let same_bills = transition
            .bills
            .iter()
            .all(|(key, wanted)| billed(key).map_or(0, |known| known.bill.version) == wanted.version);
        if !same_transactions || !same_bills || !same_deliveries {
            return Err(CommitError::Conflict);
        }
        for change in &transition.locks {
            match change {
                LockChange::Require(lease) if !self.locks.holds(*lease) => return Err(CommitError::LeaseLost),
                LockChange::Seize(_, claimed) if !self.locks.is_free(claimed) => return Err(CommitError::LeaseLost),
                LockChange::Seize(..) if self.locks.len() >= self.options.max_leases => return Err(CommitError::Full),
                // What has been let in already is never refused: nobody would be left to hear of it.
                LockChange::Enqueue(lease, _)
                    if self.locks.len() >= self.options.max_leases && !self.deliveries.contains_key(lease) =>
                {
                    return Err(CommitError::Full);
                }
                _ => {}
            }
        }
        // What waits for a person is bounded by who puts it there.
        let is_new = |change: &Change| matches!(change, Change::Put(delivery) if delivery.version == 0 && delivery.in_review().is_none());
        if self.deliveries.len() >= self.options.max_leases && transition.deliveries.iter().any(is_new) {
            return Err(CommitError::Full);
        }
        Ok(())
    }

    pub(super) fn write(&mut self, transition: Transition, now: Timestamp, mut touched: impl FnMut(Touched)) {
        for (key, transaction) in transition.transactions {
            self.write_transaction(key, transaction);
        }
        for change in transition.deliveries {
            self.write_delivery(change);
        }
        for change in transition.locks {
            self.write_lock(change);
        }
        for (key, bill) in transition.bills {
            while self.bills_expiring.len() >= self.options.max_bills.max(1) {
                self.forget_bill().into_iter().for_each(|bill| touched(Touched::Bill(bill)));
            }
            self.take_up_bill(key, Billed { bill, until: now.after(self.options.bills_retained) });
        }
        let until = now.after(self.options.names_retained);
        while self.names_expiring.len() > self.options.max_names {
            self.forget_name().into_iter().for_each(|name| touched(Touched::Name(name)));
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
            self.write_line(line);
        }
    }

    /// One more line of history; the oldest goes where there is no room.
    pub(super) fn write_line(&mut self, line: Line) {
        if self.options.history == 0 {
            return;
        }
        if line.is_repeat() {
            let count = self.repeats.entry(line.transaction).or_default();
            if *count >= self.options.max_repeats {
                return;
            }
            *count += 1;
        }
        while self.history.len() >= self.options.history {
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

    /// A delivery as it was found on a disk.
    pub(super) fn take_up_delivery(&mut self, delivery: Delivery) {
        self.versions += 1;
        self.write_delivery(Change::Put(Delivery { version: self.versions, ..delivery }));
    }

    /// What was found to be remembered of a name.
    pub(super) fn take_up_name(&mut self, key: Key, remembered: Remembered) {
        self.names_expiring.push_back((remembered.until, key));
        self.names.insert(key, remembered);
    }

    /// A bill, as it is or was found to be remembered.
    pub(super) fn take_up_bill(&mut self, key: Key, mut billed: Billed) {
        self.versions += 1;
        billed.bill.version = self.versions;
        self.bills_expiring.push_back((billed.until, key));
        self.bills.insert(key, billed);
    }

    /// All names and bills have been taken up: those that lapse first come first.
    pub(super) fn sort_names(&mut self) {
        self.bills_expiring.make_contiguous().sort_unstable();
        self.names_expiring.make_contiguous().sort_unstable();
    }

    /// A line as it was found on a disk, with its number.
    pub(super) fn take_up_line(&mut self, number: u64, line: Line) {
        if self.history.is_empty() {
            self.history_gone = number - 1;
        }
        self.write_line(line);
    }

    /// The number of the last line there ever was.
    pub(super) fn count_lines_from(&mut self, last: u64) {
        self.history_gone = self.history_gone.max(last.saturating_sub(self.history.len() as u64));
    }

    pub(super) fn write_transaction(&mut self, key: Key, mut transaction: Transaction) {
        let table = &mut self.transactions[shard(&key)];
        self.versions += 1;
        transaction.version = self.versions;
        let mut noted = table.get(&key).map_or(0, |kept| kept.0.noted);
        if let Some(expires) = transaction.expires().filter(|_| noted == 0) {
            noted = minute_after(expires);
            self.expiring.entry(noted).or_default().push(key);
        }
        match Kept::pack(key, transaction, noted) {
            Some(kept) => self.remembered += usize::from(table.replace(kept).is_none()),
            None => self.remembered -= usize::from(table.remove(&key)),
        }
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
            if let Some(since) = next.on_its_way() {
                self.owed.insert((since, id));
            }
        }
        let due = next.as_ref().and_then(Delivery::due);
        let in_review = next.as_ref().and_then(Delivery::in_review);
        let on_its_way = next.as_ref().and_then(Delivery::on_its_way);
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
            if let Some(since) = before.on_its_way().filter(|since| Some(*since) != on_its_way) {
                self.owed.remove(&(since, id));
            }
            if let Some(at) = before.due().filter(|at| Some(*at) != due) {
                self.due.remove(&(at, id));
            }
        }
    }

    fn write_lock(&mut self, change: LockChange) {
        match change {
            LockChange::Enqueue(lease, claimed) => self.locks.enqueue(lease, &claimed),
            LockChange::Seize(lease, claimed) => self.locks.seize(lease, &claimed),
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

    pub(super) fn keep_lease(&mut self, lease: LeaseId, until: Timestamp) {
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

    /// The name that was forgotten, if the one that would lapse first was not renewed since.
    fn forget_name(&mut self) -> Option<Key> {
        let (until, key) = self.names_expiring.pop_front()?;
        self.names.get(&key).filter(|remembered| remembered.until <= until)?;
        self.names.remove(&key).map(|_| key)
    }

    /// The bill that was forgotten, if the one that would lapse first was not paid again since.
    fn forget_bill(&mut self) -> Option<Key> {
        let (until, key) = self.bills_expiring.pop_front()?;
        self.bills.get(&key).filter(|billed| billed.until <= until)?;
        self.bills.remove(&key).map(|_| key)
    }

    /// Forgets what has expired, at most `limit` of it; whether there is more. Says what it touched.
    pub(super) fn forget(&mut self, now: Timestamp, limit: usize, mut touched: impl FnMut(Touched)) -> bool {
        let mut left = limit;
        while self.history.front().is_some_and(|line| line.at.after(self.options.history_retention) <= now) {
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
            self.forget_name().into_iter().for_each(|name| touched(Touched::Name(name)));
        }
        while self.bills_expiring.front().is_some_and(|(until, _)| *until <= now) {
            if left == 0 {
                return true;
            }
            left -= 1;
            self.forget_bill().into_iter().for_each(|bill| touched(Touched::Bill(bill)));
        }
        if self.learned.forget(now, left) {
            return true;
        }
        while left > 0 {
            let Some(mut bucket) = self.expiring.first_entry() else { return false };
            let minute = *bucket.key();
            let early = u64::from(minute) * MINUTE > now.as_millis();
            if early && self.remembered <= self.options.max_remembered {
                return false;
            }
            left -= 1;
            match bucket.get_mut().pop() {
                Some(key) => {
                    self.forget_transaction(key, minute, now, early);
                    touched(Touched::Transaction(key));
                }
                None => _ = bucket.remove(),
            }
        }
        true
    }

    fn forget_transaction(&mut self, key: Key, minute: u32, now: Timestamp, early: bool) {
        let table = &mut self.transactions[shard(&key)];
        // A note that outlived its transaction, which has come back since and has a note of its own.
        let Some(kept) = table.get(&key).filter(|kept| kept.0.noted == minute) else { return };
        let mut transaction = kept.unpack();
        let before = transaction.claims.len();
        transaction.forget_expired(if early { Timestamp::NEVER } else { now });
        // What was decided on the longer list is decided again.
        self.versions += 1;
        transaction.version = self.versions;
        if early && transaction.claims.len() < before {
            self.evicted += 1;
        }
        let noted = transaction.expires().map_or(0, minute_after);
        if noted != 0 {
            self.expiring.entry(noted).or_default().push(key);
        }
        if let Some(kept) = Kept::pack(key, transaction, noted) {
            table.replace(kept);
            return;
        }
        table.remove(&key);
        self.remembered -= 1;
        // Memory goes back as the table empties, a shard at a time.
        if table.capacity() > 64 && table.len() * 8 < table.capacity() {
            table.shrink_to(table.len() * 2);
        }
    }
}
