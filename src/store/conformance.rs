//! What every engine has to do, as one suite: `conformance!(engine, make)` runs it on the engine that `make` makes.

use std::{future::Future, net::Ipv4Addr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};

use super::{
    CommitError, Due, Lines, Store, Want,
    embedded::{
        Embedded, Options as EmbeddedOptions,
        disk::{Disk, DiskError, Medium},
        folder::Place,
        seal::Seals,
    },
    memory::Options,
};
use crate::{
    callback::{Answer, Channel, Key, State},
    time::Timestamp,
    transaction::{
        arrival::Decision,
        effect::{Change, Durable, LockChange, Transition, View},
        history::{Arrived, Deed, Line, Outcome, Reason, What},
        learned::{Doubt, Lesson},
        lock::{Claimed, Era, LeaseId, LockName},
        money::{Money, Stage},
        policy::Policy,
        state::{Bill, Carried, Claim, Delivery, Fate, Letter, Phase, StoredRequest, Transaction},
    },
};

const T0: Timestamp = Timestamp::from_millis(1_800_000_000_000);

const WAITS: Phase = Phase::Review { since: T0, reason: Reason::Unknown };

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
    Claimed { channel: Channel::Webhook, names: vec![name], kinds: vec![name.kind], exclusive: false, era: Era(0) }
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
        events: vec![Carried {
            reference: "tr".into(),
            transaction,
            identity,
            windowed: false,
            told: 0,
            state: None,
            step: None,
        }],
        claimed: claimed("tr"),
        policy: Arc::new(Policy::default()),
        arrived: T0,
    };
    Delivery { id: LeaseId(id), version: 0, letter: Arc::new(letter), phase, attempts: 0, owed: false }
}

fn transaction(fate: Fate) -> Transaction {
    let claim = Claim { identity: key("identity"), fate, told: 0, window: None, rode: None };
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

fn line(name: &str, at: Timestamp, what: What) -> Line {
    Line { at, transaction: key(name), delivery: Some(LeaseId(1)), attempt: 1, what }
}

fn comes(name: &str, decision: Decision, reference: &str) -> Line {
    let arrived = Arrived {
        decision,
        reference: reference.into(),
        provider: "mollie",
        state: Some(State::Paid),
        source: Some(Ipv4Addr::LOCALHOST.into()),
        why: "not seen before".into(),
    };
    line(name, T0, What::Arrived(arrived))
}

async fn lines(store: &impl Store, name: &str) -> Vec<Line> {
    store.history(Lines::Of(key(name)), 0, usize::MAX).await.unwrap().into_iter().map(|(_, line)| line).collect()
}

pub(super) async fn a_commit_that_does_not_stand_changes_nothing_at_all<S: Store>(make: impl Fn(Options) -> S) {
    let store = make(Options::default());
    store.commit(put("a", settled(later(60))), T0).await.unwrap();
    let before = store.counts();
    let all = |transactions, locks| Transition {
        transactions,
        deliveries: vec![Change::Put(delivery(1, "b", Phase::Queued)), Change::Put(delivery(2, "b", WAITS))],
        locks,
        returned: vec![name("hash", "h")],
        links: vec![(name("hash", "h"), name("reference", "tr"))],
        lessons: lesson(&[name("session", "s")], &[name("reference", "tr")]).lessons,
        history: vec![comes("b", Decision::First, "tr")],
        ..Transition::default()
    };
    let conflict = all(vec![(key("b"), settled(later(60))), (key("a"), settled(later(90)))], vec![enqueue(1, "tr")]);
    assert!(matches!(store.commit(conflict, T0).await, Err(CommitError::Conflict)));
    let lost = all(vec![(key("b"), settled(later(60)))], vec![enqueue(1, "tr"), LockChange::Require(LeaseId(9))]);
    assert!(matches!(store.commit(lost, T0).await, Err(CommitError::LeaseLost)));
    assert_eq!(store.counts(), before);
    assert!(load(&store, "b", T0).await.transactions.is_empty());
    assert!(lines(&store, "b").await.is_empty() && store.called("tr", 9).await.unwrap().is_empty());
    assert!(store.reviews((Timestamp::EPOCH, LeaseId(0)), 9).await.unwrap().is_empty());
    let view = store.load(Want::Transactions(&[], &[name("hash", "h"), name("session", "s")]), T0).await.unwrap();
    assert!(!view.returned && view.linked.is_empty() && view.begun.is_empty());
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

pub(super) async fn a_lease_is_seized_only_where_nobody_is_in_the_way<S: Store>(make: impl Fn(Options) -> S) {
    let store = make(Options { max_leases: 2, ..Options::default() });
    let seize = |id, reference| locks(vec![LockChange::Seize(LeaseId(id), claimed(reference))]);
    let free =
        async |reference| store.load(Want::Arrival(&[key("a")], &claimed(reference), &[]), T0).await.unwrap().free;
    assert!(free("tr").await);
    assert_eq!(store.commit(seize(1, "tr"), T0).await.unwrap(), [], "who seizes it needs not be told");
    assert!(store.commit(locks(vec![LockChange::Require(LeaseId(1))]), T0).await.is_ok());
    assert!(!free("tr").await && free("other").await);
    let late = Transition { history: vec![comes("b", Decision::First, "tr")], ..seize(2, "tr") };
    assert!(matches!(store.commit(late, T0).await, Err(CommitError::LeaseLost)));
    assert!(lines(&store, "b").await.is_empty(), "nothing of it stands");
    assert_eq!(store.commit(locks(vec![enqueue(3, "tr")]), T0).await.unwrap(), []);
    assert!(matches!(store.commit(seize(4, "other"), T0).await, Err(CommitError::Full)));
    let release = locks(vec![LockChange::Release(LeaseId(1))]);
    assert_eq!(store.commit(release, T0).await.unwrap(), [LeaseId(3)]);
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
    let for_a_person = Change::Put(delivery(4, "a", WAITS));
    store.commit(Transition { deliveries: vec![for_a_person], ..Transition::default() }, T0).await.unwrap();
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

pub(super) async fn what_the_books_are_asked_about_is_due_when_they_are_asked_again_and_keeps_its_names_and_no_place<
    S: Store,
>(
    make: impl Fn(Options) -> S,
) {
    let store = make(Options { places: 1, ..Options::default() });
    let change = |version, phase| Change::Put(Delivery { version, owed: true, attempts: 1, ..delivery(1, "a", phase) });
    let pending = transaction(Fate::Pending(LeaseId(1)));
    let unknown = Transition {
        deliveries: vec![change(0, Phase::Unknown { since: T0 })],
        locks: vec![enqueue(1, "tr"), enqueue(2, "tr"), enqueue(3, "other")],
        ..put("a", pending)
    };
    assert_eq!(store.commit(unknown, T0).await.unwrap(), [LeaseId(1)]);
    let mut granted = vec![LeaseId(3)];
    for (version, at) in [(1, later(100)), (2, later(300))] {
        let asked = Transition {
            deliveries: vec![change(version, Phase::Confirming { since: later(60), at })],
            locks: vec![LockChange::Names(LeaseId(1))],
            ..Transition::default()
        };
        assert_eq!(store.commit(asked, later(60)).await.unwrap(), granted, "its place is another's, its names are not");
        granted.clear();
        assert_eq!(store.due(at, 9).await.unwrap(), [Due::Delivery(LeaseId(1))]);
    }
    assert_eq!(store.due(later(299), 9).await.unwrap(), [], "no more at the first moment");
    while store.forget(later(1_000_000), 9).await.unwrap() {}
    let view = load(&store, "a", later(299)).await;
    assert_eq!(view.deliveries[0].phase, Phase::Confirming { since: later(60), at: later(300) });
    let counts = store.counts();
    assert_eq!((counts.deliveries, counts.owed, counts.review), (1, 1, 0), "nobody is asked to look at it");
    assert_eq!((counts.in_flight, counts.next_due), (1, Some(later(300))), "only the stranger is in the app");
    let booked = Transition {
        deliveries: vec![Change::Remove(LeaseId(1), 3)],
        locks: vec![LockChange::Release(LeaseId(1)), LockChange::Release(LeaseId(3))],
        ..Transition::default()
    };
    assert_eq!(store.commit(booked, later(300)).await.unwrap(), [LeaseId(2)]);
    assert_eq!((store.counts().deliveries, store.counts().owed, store.counts().next_due), (0, 0, None));
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

fn pays(bill: &str, version: u64, payers: &[&str]) -> Transition {
    let paid_by = payers.iter().map(|payer| key(payer)).collect();
    Transition { bills: vec![(key(bill), Bill { version, paid_by })], ..Transition::default() }
}

pub(super) async fn a_bill_is_written_over_the_version_that_was_read_and_tells_what_has_paid_it<S: Store>(
    make: impl Fn(Options) -> S,
) {
    let bounds = Options { bills_retained: Duration::from_secs(60), max_bills: 4, ..Options::default() };
    let store = make(bounds);
    let ask = async |bill, now| store.load(Want::Arrival(&[], &claimed("tr"), &[key(bill)]), now).await.unwrap();
    assert!(ask("1001", T0).await.bills.is_empty());
    let money = Money { stage: Stage::Refunded, paid: true };
    store.commit(put("a", Transaction { money, ..settled(later(600)) }), T0).await.unwrap();
    store.commit(pays("1001", 0, &["a"]), T0).await.unwrap();
    // Of two who saw the same one stands, and the other finds him.
    assert!(matches!(store.commit(pays("1001", 0, &["b"]), T0).await, Err(CommitError::Conflict)));
    let seen = ask("1001", T0).await;
    let (bill, version) = (&seen.bills[0].1, seen.bills[0].1.version);
    assert_eq!((seen.bills[0].0, &bill.paid_by[..]), (key("1001"), &[key("a")][..]));
    assert_eq!(seen.payers, [(key("a"), money)]);
    assert!(seen.transactions.is_empty() && version > 0);
    let twice = store.load(Want::Arrival(&[], &claimed("tr"), &[key("1001"); 2]), T0).await.unwrap();
    assert_eq!((twice.bills.len(), twice.payers.len()), (1, 1));
    store.commit(pays("1001", version, &["a", "b"]), later(30)).await.unwrap();
    assert!(matches!(store.commit(pays("1001", version, &["c"]), later(30)).await, Err(CommitError::Conflict)));
    let seen = ask("1001", later(89)).await;
    assert_eq!((seen.bills[0].1.paid_by.len(), seen.payers.len()), (2, 1), "of the other nothing is known");
    // From its last payment.
    assert!(ask("1001", later(90)).await.bills.is_empty());
    store.commit(pays("1001", 0, &["d"]), later(90)).await.unwrap();
    assert_eq!(ask("1001", later(90)).await.bills[0].1.paid_by, [key("d")]);
    for n in 0..9 {
        store.commit(pays(&n.to_string(), 0, &["e"]), later(91)).await.unwrap();
    }
    assert!(ask("1001", later(91)).await.bills.is_empty(), "what would be forgotten first is forgotten early");
    assert_eq!(ask("8", later(91)).await.bills.len(), 1);
    while store.forget(later(9999), 1).await.unwrap() {}
    assert!(ask("8", later(91)).await.bills.is_empty());
}

fn lesson(subjects: &[LockName], names: &[LockName]) -> Transition {
    let lesson = Lesson { subjects: subjects.to_vec(), names: names.to_vec(), came: None, doubt: Doubt::None };
    Transition { lessons: vec![lesson], ..Transition::default() }
}

pub(super) async fn what_answers_taught_is_found_by_what_a_payer_brings_for_a_time_and_of_no_more_than_a_number<
    S: Store,
>(
    make: impl Fn(Options) -> S,
) {
    let store = make(Options { names_retained: Duration::from_secs(60), max_payers: 2, ..Options::default() });
    let (session, next, reference) = (name("session", "s"), name("session", "t"), name("reference", "tr"));
    let ask = async |of: LockName, now| store.load(Want::Transactions(&[], &[of]), now).await.unwrap();
    store.commit(lesson(&[session, next], &[]), T0).await.unwrap();
    assert!(ask(session, T0).await.begun.is_empty(), "of most people there is nothing to remember");
    store.commit(lesson(&[session], &[reference]), T0).await.unwrap();
    store.commit(lesson(&[session, next], &[]), T0).await.unwrap();
    for subject in [session, next] {
        let begun = ask(subject, T0).await.begun;
        assert!(matches!(&begun[..], [(key, begun)] if *key == subject.key && begun.names == [reference]), "{begun:?}");
    }
    let seen = ask(reference, T0).await;
    assert!(seen.told == [reference] && seen.begun.is_empty() && seen.linked.is_empty(), "a name leads to no session");
    assert_eq!(ask(name("reference", "other"), T0).await.told, []);
    for n in 0..9 {
        let payer = name("session", &format!("more {n}"));
        store.commit(lesson(&[payer], &[name("reference", &n.to_string())]), T0).await.unwrap();
    }
    assert_eq!(ask(name("session", "more 0"), T0).await.begun.len(), 1);
    assert!(
        ask(name("session", "more 1"), T0).await.begun.is_empty(),
        "nothing is learned of more than there is room for"
    );
    assert_eq!(ask(session, later(59)).await.begun.len(), 1);
    assert!(ask(session, later(60)).await.begun.is_empty());
    while store.forget(later(60), 1).await.unwrap() {}
    assert_eq!(ask(reference, later(60)).await.told, []);
    store.commit(lesson(&[name("session", "more 1")], &[reference]), later(60)).await.unwrap();
    assert_eq!(ask(name("session", "more 1"), later(60)).await.begun.len(), 1, "there is room again");
}

pub(super) async fn a_link_that_comes_too_late_is_counted_and_one_that_is_in_time_shows_at_the_lease<S: Store>(
    make: impl Fn(Options) -> S,
) {
    let link = |other: &str| {
        let links = vec![(name("reference", "tr"), name("hash", other))];
        Transition { links, ..Transition::default() }
    };
    let store = make(Options::default());
    // Its lease is granted, and nothing has been sent.
    let queued = delivery(1, "a", Phase::Queued);
    let transition =
        Transition { deliveries: vec![Change::Put(queued)], locks: vec![enqueue(1, "tr")], ..Transition::default() };
    assert_eq!(store.commit(transition, T0).await.unwrap(), [LeaseId(1)]);
    let seen = async || store.load(Want::Delivery(LeaseId(1)), T0).await.unwrap();
    assert!(!seen().await.late);
    store.commit(link("h"), T0).await.unwrap();
    assert!(seen().await.late, "its lease lacks the other name");
    assert_eq!(store.counts().late_links, 0, "in time");
    let mut wide = claimed("tr");
    wide.names.push(name("hash", "h"));
    assert_eq!(store.commit(locks(vec![LockChange::Requeue(LeaseId(1), wide)]), T0).await.unwrap(), [LeaseId(1)]);
    assert!(!seen().await.late, "it has both");
    let sent = Delivery { version: seen().await.deliveries[0].version, ..delivery(1, "a", Phase::Queued) };
    let sent = Delivery { phase: Phase::InFlight { lease_until: later(60) }, ..sent };
    store.commit(Transition { deliveries: vec![Change::Put(sent)], ..Transition::default() }, T0).await.unwrap();
    store.commit(link("h"), T0).await.unwrap();
    assert_eq!(store.counts().late_links, 0, "known before");
    store.commit(link("another"), T0).await.unwrap();
    assert_eq!(store.counts().late_links, 1);
    // A permit has no delivery: it is in the app as long as it is held.
    store.commit(locks(vec![enqueue(2, "learned")]), T0).await.unwrap();
    let told = lesson(&[name("session", "s")], &[name("reference", "learned"), name("reference", "of nobody")]);
    store.commit(told.clone(), T0).await.unwrap();
    store.commit(told, T0).await.unwrap();
    assert_eq!(store.counts().late_links, 2, "once for each name");
}

pub(super) async fn what_has_expired_is_forgotten_in_steps_and_what_is_unsettled_never<S: Store>(
    make: impl Fn(Options) -> S,
) {
    let store = make(Options::default());
    let (many, step) = (100_000_usize, 4096);
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

pub(super) async fn history_keeps_the_newest_and_every_line_as_it_was<S: Store>(make: impl Fn(Options) -> S) {
    let store = make(Options { history: 7, ..Options::default() });
    let (who, why) = (Arc::from("Ada"), Arc::from("the app has it"));
    let ended = |outcome, status, why: Option<&str>| What::Ended { outcome, status, why: why.map(Into::into) };
    let written = [
        comes("a", Decision::First, "tr_1"),
        line("a", T0, What::Moved(Phase::Held { until: later(2) })),
        line("a", T0, What::Moved(Phase::InFlight { lease_until: later(75) })),
        line("a", later(3), ended(Outcome::Unknown, Some(StatusCode::BAD_GATEWAY), Some("a middle box spoke"))),
        Line { delivery: None, attempt: 0, ..line("a", later(4), What::Trailing) },
        line("a", later(5), What::Moved(WAITS)),
        line("a", later(6), What::Acted { deed: Deed::Settle, who, why }),
        line("a", later(7), ended(Outcome::Accepted, Some(StatusCode::OK), None)),
        line("a", later(8), What::Dropped),
    ];
    for line in &written {
        store.commit(Transition { history: vec![line.clone()], ..Transition::default() }, line.at).await.unwrap();
    }
    assert_eq!(lines(&store, "a").await, written[2..]);
    assert!(lines(&store, "b").await.is_empty());
}

pub(super) async fn history_is_read_on_from_where_one_was_and_by_time<S: Store>(make: impl Fn(Options) -> S) {
    let store = make(Options { history: 8, ..Options::default() });
    for n in 0..12 {
        let history = vec![line(if n % 2 == 0 { "a" } else { "b" }, later(n), What::Trailing)];
        store.commit(Transition { history, ..Transition::default() }, later(n)).await.unwrap();
    }
    let read = async |of, after, limit| {
        let lines = store.history(of, after, limit).await.unwrap();
        let at = |line: &Line| line.at.since(T0).as_secs();
        (lines.iter().map(|(_, line)| at(line)).collect::<Vec<_>>(), lines.last().map_or(0, |(number, _)| *number))
    };
    let (first, seen) = read(Lines::Of(key("a")), 0, 2).await;
    assert_eq!(first, [4, 6], "four have gone");
    assert_eq!(read(Lines::Of(key("a")), seen, 9).await.0, [8, 10]);
    let (some, seen) = read(Lines::Between(later(5), later(10)), 0, 3).await;
    assert_eq!(some, [5, 6, 7], "from the first moment on");
    assert_eq!(read(Lines::Between(later(5), later(10)), seen, 9).await.0, [8, 9], "and before the last");
    assert!(read(Lines::Between(later(5), later(10)), u64::MAX, 9).await.0.is_empty());
}

pub(super) async fn history_is_kept_for_its_time<S: Store>(make: impl Fn(Options) -> S) {
    let store = make(Options { history_retention: Duration::from_secs(60), ..Options::default() });
    for (name, at) in [("a", 0), ("b", 30)] {
        let history = vec![line(name, later(at), What::Trailing)];
        store.commit(Transition { history, ..Transition::default() }, later(at)).await.unwrap();
    }
    while store.forget(T0.after(Duration::from_millis(59_999)), 1).await.unwrap() {}
    assert_eq!((lines(&store, "a").await.len(), lines(&store, "b").await.len()), (1, 1));
    while store.forget(later(60), 1).await.unwrap() {}
    assert_eq!((lines(&store, "a").await.len(), lines(&store, "b").await.len()), (0, 1));
}

pub(super) async fn repetitions_are_noted_and_do_not_push_the_rest_of_history_out<S: Store>(
    make: impl Fn(Options) -> S,
) {
    let store = make(Options { history: 40, max_repeats: 5, ..Options::default() });
    store.note(vec![comes("a", Decision::First, "tr_1"), comes("b", Decision::First, "tr_2")]);
    for _ in 0..100 {
        store.note(vec![comes("a", Decision::Replayed, "tr_1")]);
    }
    store.note(vec![comes("b", Decision::Joined, "tr_2")]);
    assert_eq!((lines(&store, "a").await.len(), lines(&store, "b").await.len()), (6, 2));
    // What has gone from history makes room for new ones.
    store.note((0..36).map(|_| line("c", T0, What::Trailing)).collect());
    store.note(vec![comes("a", Decision::Replayed, "tr_1"), comes("a", Decision::Replayed, "tr_1")]);
    assert_eq!(lines(&store, "a").await.len(), 3);
}

pub(super) async fn a_reference_leads_to_every_transaction_that_is_called_so<S: Store>(make: impl Fn(Options) -> S) {
    let store = make(Options::default());
    for (name, reference) in [("a", "7"), ("b", "7"), ("b", "7"), ("c", "77")] {
        store.note(vec![comes(name, Decision::First, reference)]);
    }
    let called = async |reference, limit| store.called(reference, limit).await.unwrap();
    assert_eq!(called("7", 9).await, [key("a"), key("b")], "two accounts may use one reference");
    assert_eq!(called("7", 1).await, [key("a")]);
    assert!(called("8", 9).await.is_empty());
}

pub(super) async fn what_waits_for_a_person_is_listed_oldest_first<S: Store>(make: impl Fn(Options) -> S) {
    let store = make(Options::default());
    let waits = |since| Phase::Review { since: later(since), reason: Reason::Exhausted };
    for (id, since) in [(1, 30), (2, 10), (3, 10)] {
        let put = Change::Put(delivery(id, "a", waits(since)));
        store.commit(Transition { deliveries: vec![put], ..Transition::default() }, T0).await.unwrap();
    }
    let list = async |after, limit| store.reviews(after, limit).await.unwrap();
    let ids = |all: &[Delivery]| all.iter().map(|delivery| delivery.id.0).collect::<Vec<_>>();
    let first = list((Timestamp::EPOCH, LeaseId(0)), 2).await;
    assert_eq!(ids(&first), [2, 3]);
    assert_eq!(first[0].in_review(), Some((later(10), Reason::Exhausted)));
    assert_eq!(ids(&list((later(10), LeaseId(3)), 2).await), [1]);
    assert_eq!((store.counts().review, store.counts().oldest_review), (3, Some(later(10))));

    let again = Delivery { phase: waits(50), ..first[0].clone() };
    let queued = Delivery { phase: Phase::Queued, ..first[1].clone() };
    let deliveries = vec![Change::Put(again), Change::Put(queued)];
    store.commit(Transition { deliveries, ..Transition::default() }, T0).await.unwrap();
    assert_eq!(ids(&list((Timestamp::EPOCH, LeaseId(0)), 9).await), [1, 2]);
    let gone = Change::Remove(LeaseId(1), 1);
    store.commit(Transition { deliveries: vec![gone], ..Transition::default() }, T0).await.unwrap();
    assert_eq!((store.counts().review, store.counts().oldest_review), (1, Some(later(50))));
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

/// An embedded store in a folder that goes away with it.
fn in_a_folder(bounds: Options) -> Embedded {
    struct Temporary(Place, #[expect(dead_code, reason = "goes away when dropped")] tempfile::TempDir);
    impl Medium for Temporary {
        fn open(&mut self) -> Result<Box<dyn Disk>, DiskError> {
            self.0.open()
        }
    }
    let path = tempfile::tempdir().unwrap();
    let medium = Temporary(Place::at(path.path().to_owned()), path);
    let options =
        EmbeddedOptions { bounds, durable: Durable::Outcome, quiet: Duration::from_secs(60), seals: Seals::default() };
    Embedded::open(Box::new(medium), options, T0).unwrap()
}

macro_rules! on_every_engine {
    ($($test:ident),* $(,)?) => {
        conformance!(memory, crate::store::memory::Memory::new, [$($test),*]);
        conformance!(embedded, super::in_a_folder, [$($test),*]);
    };
}

on_every_engine!(
    a_commit_that_does_not_stand_changes_nothing_at_all,
    of_two_writers_who_saw_the_same_one_stands,
    what_was_forgotten_and_came_back_is_not_taken_for_what_it_was,
    a_delivery_is_written_over_the_version_that_was_read,
    a_lease_is_granted_once_and_required_by_who_holds_it,
    a_lease_is_seized_only_where_nobody_is_in_the_way,
    a_bound_refuses_newcomers_and_never_what_was_let_in,
    what_is_due_comes_earliest_first_and_asking_changes_nothing,
    what_lingers_frees_its_place_and_what_is_kept_does_not,
    what_the_books_are_asked_about_is_due_when_they_are_asked_again_and_keeps_its_names_and_no_place,
    links_and_returns_are_remembered_for_a_time_and_no_more_than_a_number,
    a_bill_is_written_over_the_version_that_was_read_and_tells_what_has_paid_it,
    what_answers_taught_is_found_by_what_a_payer_brings_for_a_time_and_of_no_more_than_a_number,
    a_link_that_comes_too_late_is_counted_and_one_that_is_in_time_shows_at_the_lease,
    what_has_expired_is_forgotten_in_steps_and_what_is_unsettled_never,
    a_renewed_identity_is_kept_until_its_new_end,
    above_the_bound_the_settled_are_forgotten_early_and_nothing_else,
    history_keeps_the_newest_and_every_line_as_it_was,
    history_is_read_on_from_where_one_was_and_by_time,
    history_is_kept_for_its_time,
    repetitions_are_noted_and_do_not_push_the_rest_of_history_out,
    a_reference_leads_to_every_transaction_that_is_called_so,
    what_waits_for_a_person_is_listed_oldest_first,
);
