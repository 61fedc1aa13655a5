//! What every engine has to do, as one suite: `conformance!(engine, make)` runs it on the engine that `make` makes.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};

use super::{CommitError, Due, Store, Want, memory::Options};
use crate::{
    callback::{Answer, Channel, Key},
    time::Timestamp,
    transaction::{
        effect::{Change, Line, LockChange, Transition, View},
        lock::{Claimed, LeaseId, LockName},
        policy::Policy,
        state::{Carried, Claim, Delivery, Fate, Letter, Phase, StoredRequest, Transaction},
    },
};

const T0: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn later(seconds: u64) -> Timestamp {
    T0.after(Duration::from_secs(seconds))
}

fn key(name: &str) -> Key {
    Key::of("test").part("name", name).finish()
}

fn name(kind: &str, value: &str) -> LockName {
    LockName::new("app", [kind, ""], value)
}

fn claimed(reference: &str) -> Claimed {
    let name = name("reference", reference);
    Claimed { channel: Channel::Webhook, names: vec![name], kinds: vec![name.kind], exclusive: false }
}

fn delivery(id: u64, transaction: &str, phase: Phase) -> Delivery {
    let request = StoredRequest {
        method: Method::POST,
        uri: Uri::from_static("/hook"),
        headers: HeaderMap::new(),
        body: Bytes::new(),
    };
    let (transaction, identity) = (key(transaction), key("identity"));
    let letter = Letter {
        request: Arc::new(request),
        provider: "test",
        events: vec![Carried { transaction, identity, windowed: false, told: 0, state: None }],
        claimed: claimed("tr"),
        policy: Arc::new(Policy::default()),
        arrived: T0,
    };
    Delivery { id: LeaseId(id), version: 0, letter: Arc::new(letter), phase, attempts: 0, owed: false }
}

fn transaction(fate: Fate) -> Transaction {
    let claim = Claim { identity: key("identity"), fate, told: 0, window: None };
    Transaction { claims: vec![claim], ..Transaction::default() }
}

fn settled(expires: Timestamp) -> Transaction {
    let answer = Answer { status: StatusCode::OK, content_type: None, body: None };
    transaction(Fate::Settled { answer: Arc::new(answer), expires })
}

fn locks(changes: Vec<LockChange>) -> Transition {
    Transition { locks: changes, ..Transition::default() }
}

fn enqueue(id: u64, reference: &str) -> LockChange {
    LockChange::Enqueue(LeaseId(id), claimed(reference))
}

fn put(name: &str, transaction: Transaction) -> Transition {
    Transition { transactions: vec![(key(name), transaction)], ..Transition::default() }
}

async fn load(store: &impl Store, name: &str, now: Timestamp) -> View {
    store.load(Want::Transactions(&[key(name)], &[]), now).await.unwrap()
}

fn line(name: &str, what: &'static str) -> Line {
    Line { at: T0, transaction: key(name), delivery: LeaseId(1), what }
}

pub(super) async fn a_commit_that_does_not_stand_changes_nothing_at_all<S: Store>(make: impl Fn(Options) -> S) {
    let store = make(Options::default());
    store.commit(put("a", settled(later(60))), T0).await.unwrap();
    let before = store.counts();
    let all = |transactions, locks| Transition {
        transactions,
        deliveries: vec![Change::Put(delivery(1, "b", Phase::Queued))],
        locks,
        returned: vec![name("hash", "h")],
        links: vec![(name("hash", "h"), name("reference", "tr"))],
        history: vec![line("b", "first")],
        ..Transition::default()
    };
    let conflict = all(vec![(key("b"), settled(later(60))), (key("a"), settled(later(90)))], vec![enqueue(1, "tr")]);
    assert!(matches!(store.commit(conflict, T0).await, Err(CommitError::Conflict)));
    let lost = all(vec![(key("b"), settled(later(60)))], vec![enqueue(1, "tr"), LockChange::Require(LeaseId(9))]);
    assert!(matches!(store.commit(lost, T0).await, Err(CommitError::LeaseLost)));
    assert_eq!(store.counts(), before);
    assert!(load(&store, "b", T0).await.transactions.is_empty());
    assert!(store.history(key("b")).await.unwrap().is_empty());
    let view = store.load(Want::Transactions(&[], &[name("hash", "h")]), T0).await.unwrap();
    assert!(!view.returned && view.linked.is_empty());
}

pub(super) async fn of_two_writers_who_saw_the_same_one_stands<S: Store>(make: impl Fn(Options) -> S) {
    let store = make(Options::default());
    let (mut stood, rounds) = (0, 20);
    for _ in 0..rounds {
        let seen = load(&store, "a", T0).await.transactions.pop().map(|(_, t)| t.version).unwrap_or_default();
        let write = || put("a", Transaction { version: seen, ..settled(later(60)) });
        let both = tokio::join!(store.commit(write(), T0), store.commit(write(), T0));
        stood += usize::from(both.0.is_ok()) + usize::from(both.1.is_ok());
    }
    assert_eq!(stood, rounds);
}

pub(super) async fn what_was_forgotten_and_came_back_is_not_taken_for_what_it_was<S: Store>(
    make: impl Fn(Options) -> S,
) {
    let store = make(Options::default());
    store.commit(put("a", transaction(Fate::Pending(LeaseId(1)))), T0).await.unwrap();
    let seen = load(&store, "a", T0).await.transactions.remove(0).1;
    store.commit(put("a", Transaction { claims: Vec::new(), ..seen.clone() }), T0).await.unwrap();
    store.commit(put("a", transaction(Fate::Pending(LeaseId(2)))), T0).await.unwrap();
    assert!(load(&store, "a", T0).await.transactions[0].1.version > seen.version, "versions always rise");
    assert!(matches!(store.commit(put("a", seen), T0).await, Err(CommitError::Conflict)));
}

pub(super) async fn a_delivery_is_written_over_the_version_that_was_read<S: Store>(make: impl Fn(Options) -> S) {
    let store = make(Options::default());
    let change = |change| Transition { deliveries: vec![change], ..Transition::default() };
    store.commit(change(Change::Put(delivery(1, "a", Phase::Queued))), T0).await.unwrap();
    let again = store.commit(change(Change::Put(delivery(1, "a", Phase::Queued))), T0).await;
    assert!(matches!(again, Err(CommitError::Conflict)));
    let seen = store.load(Want::Delivery(LeaseId(1)), T0).await.unwrap().delivery(LeaseId(1)).unwrap().version;
    assert!(matches!(store.commit(change(Change::Remove(LeaseId(1), seen + 1)), T0).await, Err(CommitError::Conflict)));
    store.commit(change(Change::Remove(LeaseId(1), seen)), T0).await.unwrap();
    assert!(store.load(Want::Delivery(LeaseId(1)), T0).await.unwrap().deliveries.is_empty());
}

pub(super) async fn a_lease_is_granted_once_and_required_by_who_holds_it<S: Store>(make: impl Fn(Options) -> S) {
    let store = make(Options::default());
    assert_eq!(store.commit(locks(vec![enqueue(1, "tr")]), T0).await.unwrap(), [LeaseId(1)]);
    assert_eq!(store.commit(locks(vec![enqueue(2, "tr")]), T0).await.unwrap(), []);
    let require = |id| locks(vec![LockChange::Require(LeaseId(id))]);
    assert!(store.commit(require(1), T0).await.is_ok());
    assert!(matches!(store.commit(require(2), T0).await, Err(CommitError::LeaseLost)), "it only waits");
    let release = || locks(vec![LockChange::Release(LeaseId(1))]);
    assert_eq!(store.commit(release(), T0).await.unwrap(), [LeaseId(2)]);
    assert_eq!(store.commit(release(), T0).await.unwrap(), [], "release is idempotent");
    assert!(matches!(store.commit(require(1), T0).await, Err(CommitError::LeaseLost)));
}

pub(super) async fn a_bound_refuses_newcomers_and_never_what_was_let_in<S: Store>(make: impl Fn(Options) -> S) {
    let store = make(Options { max_leases: 2, ..Options::default() });
    for id in [1, 2] {
        let held = Change::Put(delivery(id, "a", Phase::Held { until: later(1) }));
        store.commit(Transition { deliveries: vec![held], ..Transition::default() }, T0).await.unwrap();
    }
    let third = Change::Put(delivery(3, "a", Phase::Held { until: later(1) }));
    let third = store.commit(Transition { deliveries: vec![third], ..Transition::default() }, T0).await;
    assert!(matches!(third, Err(CommitError::Full)));
    store.commit(locks(vec![enqueue(8, "x"), enqueue(9, "y")]), T0).await.unwrap();
    assert!(matches!(store.commit(locks(vec![enqueue(10, "z")]), T0).await, Err(CommitError::Full)));
    assert_eq!(store.commit(locks(vec![enqueue(1, "z")]), T0).await.unwrap(), [LeaseId(1)]);
}

pub(super) async fn what_is_due_comes_earliest_first_and_asking_changes_nothing<S: Store>(make: impl Fn(Options) -> S) {
    let store = make(Options::default());
    for (id, at) in [(1, 30), (2, 10), (3, 50)] {
        let held = Change::Put(delivery(id, "a", Phase::Held { until: later(at) }));
        store.commit(Transition { deliveries: vec![held], ..Transition::default() }, T0).await.unwrap();
    }
    store.commit(locks(vec![enqueue(7, "x"), LockChange::Keep(LeaseId(7), later(99))]), T0).await.unwrap();
    store.commit(locks(vec![LockChange::Keep(LeaseId(7), later(20))]), T0).await.unwrap();
    assert_eq!(store.counts().next_due, Some(later(10)));
    assert_eq!(store.due(T0.after(Duration::from_millis(9_999)), 9).await.unwrap(), []);
    let expected = [Due::Delivery(LeaseId(2)), Due::Lease(LeaseId(7)), Due::Delivery(LeaseId(1))];
    for _ in 0..2 {
        assert_eq!(store.due(later(30), 9).await.unwrap(), expected);
    }
    assert_eq!(store.due(later(60), 2).await.unwrap(), expected[..2]);
}

pub(super) async fn what_lingers_frees_its_place_and_what_is_kept_does_not<S: Store>(make: impl Fn(Options) -> S) {
    for (frees, granted) in [(true, vec![LeaseId(3)]), (false, vec![])] {
        let store = make(Options { places: 1, ..Options::default() });
        store.commit(locks(vec![enqueue(1, "tr"), enqueue(2, "tr"), enqueue(3, "other")]), T0).await.unwrap();
        let until = later(5);
        let change = if frees { LockChange::Linger(LeaseId(1), until) } else { LockChange::Keep(LeaseId(1), until) };
        assert_eq!(store.commit(locks(vec![change]), T0).await.unwrap(), granted);
        assert_eq!(store.due(until, 9).await.unwrap(), [Due::Lease(LeaseId(1))]);
        let release = [LockChange::Release(LeaseId(1)), LockChange::Release(LeaseId(3))].to_vec();
        assert_eq!(store.commit(locks(release), until).await.unwrap(), [LeaseId(2)]);
        assert_eq!(store.counts().next_due, None);
    }
}

pub(super) async fn links_and_returns_are_remembered_for_a_time_and_no_more_than_a_number<S: Store>(
    make: impl Fn(Options) -> S,
) {
    let store = make(Options { names_retained: Duration::from_secs(60), max_names: 8, ..Options::default() });
    let (hash, reference) = (name("hash", "h"), name("reference", "tr"));
    let told = Transition { links: vec![(hash, reference)], returned: vec![hash], ..Transition::default() };
    store.commit(told, T0).await.unwrap();
    let ask = async |of: LockName, now| store.load(Want::Transactions(&[], &[of]), now).await.unwrap();
    let seen = ask(hash, T0).await;
    assert!(seen.returned && seen.linked == [reference]);
    let other = ask(reference, T0).await;
    assert!(!other.returned && other.linked == [hash]);
    let at_the_end = ask(hash, later(60)).await;
    assert!(!at_the_end.returned && at_the_end.linked.is_empty());
    for n in 0..20 {
        let more = Transition { returned: vec![name("hash", &n.to_string())], ..Transition::default() };
        store.commit(more, T0).await.unwrap();
    }
    assert!(!ask(hash, T0).await.returned, "what would be forgotten first is forgotten early");
    assert!(ask(name("hash", "19"), T0).await.returned);
}

pub(super) async fn what_has_expired_is_forgotten_in_steps_and_what_is_unsettled_never<S: Store>(
    make: impl Fn(Options) -> S,
) {
    let store = make(Options::default());
    let (many, step) = (1_000_000_usize, 4096);
    for chunk in 0..many / 1000 {
        let entry = |n| (key(&format!("{chunk}/{n}")), settled(later(60)));
        let transactions = (0..1000).map(entry).collect();
        store.commit(Transition { transactions, ..Transition::default() }, T0).await.unwrap();
    }
    store.commit(put("pending", transaction(Fate::Pending(LeaseId(1)))), T0).await.unwrap();
    assert!(!store.forget(later(59), step).await.unwrap(), "nothing has expired");
    assert_eq!(store.counts().transactions, many + 1);
    let (mut before, mut steps) = (many + 1, 0);
    while store.forget(later(600), step).await.unwrap() {
        let left = store.counts().transactions;
        assert!(before - left <= step, "nobody waits for more than a step");
        (before, steps) = (left, steps + 1);
    }
    assert!(steps >= many / step);
    assert_eq!((store.counts().transactions, store.counts().evicted), (1, 0));
}

pub(super) async fn a_renewed_identity_is_kept_until_its_new_end<S: Store>(make: impl Fn(Options) -> S) {
    let store = make(Options::default());
    store.commit(put("a", settled(later(60))), T0).await.unwrap();
    for n in 1..50 {
        let seen = load(&store, "a", T0).await.transactions.remove(0).1;
        store.commit(put("a", Transaction { version: seen.version, ..settled(later(60 * n)) }), T0).await.unwrap();
        let seen = load(&store, "a", T0).await.transactions.remove(0).1;
        let pending = transaction(Fate::Pending(LeaseId(1)));
        store.commit(put("a", Transaction { version: seen.version, ..pending }), T0).await.unwrap();
    }
    let seen = load(&store, "a", T0).await.transactions.remove(0).1;
    store.commit(put("a", Transaction { version: seen.version, ..settled(later(6000)) }), T0).await.unwrap();
    assert!(!store.forget(later(5999), 4).await.unwrap(), "one note, however often it was written");
    assert_eq!(store.counts().transactions, 1);
    while store.forget(later(6100), 4).await.unwrap() {}
    assert_eq!(store.counts().transactions, 0);
}

pub(super) async fn above_the_bound_the_settled_are_forgotten_early_and_nothing_else<S: Store>(
    make: impl Fn(Options) -> S,
) {
    let store = make(Options { max_remembered: 10, ..Options::default() });
    for n in 0..20 {
        store.commit(put(&format!("s{n}"), settled(later(3600 + 60 * n))), T0).await.unwrap();
        store.commit(put(&format!("p{n}"), transaction(Fate::Pending(LeaseId(n + 1)))), T0).await.unwrap();
    }
    while store.forget(T0, 3).await.unwrap() {}
    let counts = store.counts();
    assert_eq!((counts.transactions, counts.evicted), (20, 20), "all that is settled had to go, and no more could");
    for n in 0..20 {
        assert_eq!(load(&store, &format!("p{n}"), T0).await.transactions.len(), 1);
    }
}

pub(super) async fn history_keeps_the_newest<S: Store>(make: impl Fn(Options) -> S) {
    let store = make(Options { history: 3, ..Options::default() });
    for what in ["first", "held", "queued", "in_flight", "accepted"] {
        store.commit(Transition { history: vec![line("a", what)], ..Transition::default() }, T0).await.unwrap();
    }
    let lines = store.history(key("a")).await.unwrap();
    assert_eq!(lines.iter().map(|line| line.what).collect::<Vec<_>>(), ["queued", "in_flight", "accepted"]);
    assert!(store.history(key("b")).await.unwrap().is_empty());
}

/// Runs what is to be done to its end.
pub(super) fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
}

macro_rules! conformance {
    ($engine:ident, $make:expr, [$($test:ident),* $(,)?]) => {
        mod $engine {
            $(#[test]
            fn $test() {
                super::run(super::$test($make));
            })*
        }
    };
}

macro_rules! on_every_engine {
    ($($test:ident),* $(,)?) => {
        conformance!(memory, crate::store::memory::Memory::new, [$($test),*]);
    };
}

on_every_engine!(
    a_commit_that_does_not_stand_changes_nothing_at_all,
    of_two_writers_who_saw_the_same_one_stands,
    what_was_forgotten_and_came_back_is_not_taken_for_what_it_was,
    a_delivery_is_written_over_the_version_that_was_read,
    a_lease_is_granted_once_and_required_by_who_holds_it,
    a_bound_refuses_newcomers_and_never_what_was_let_in,
    what_is_due_comes_earliest_first_and_asking_changes_nothing,
    what_lingers_frees_its_place_and_what_is_kept_does_not,
    links_and_returns_are_remembered_for_a_time_and_no_more_than_a_number,
    what_has_expired_is_forgotten_in_steps_and_what_is_unsettled_never,
    a_renewed_identity_is_kept_until_its_new_end,
    above_the_bound_the_settled_are_forgotten_early_and_nothing_else,
    history_keeps_the_newest,
);
