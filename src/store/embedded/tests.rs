//! What only an engine with a disk has to do: come back as it was, wait for what has to be durable, fail and recover.

use std::{
    collections::BTreeMap,
    fs,
    net::Ipv6Addr,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use proptest::prelude::*;

use super::{
    backup::Copy,
    disk::{Disk, Group, Medium, Space, Take},
    folder::{FORMAT, Place},
    record::{self, Rest},
    *,
};
use crate::{
    callback::{Answer, Channel, State as Stated, Step},
    store::{
        memory,
        state::{Billed, Remembered},
    },
    transaction::{
        arrival::Decision,
        effect::{Change, LEASE_MARGIN, LockChange},
        history::{Arrived, Deed, Outcome, Reason, What},
        learned::{Doubt, Lesson},
        lock::{Claimed, Era, LockName, Seat},
        money::{Money, Stage},
        policy::{AnswerBy, OnUnknown, Order, Policy},
        state::{Bill, Carried, Claim, Letter, Phase, StoredRequest, Transaction, Window},
    },
};

const T0: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const QUIET: Duration = Duration::from_secs(60);

fn later(seconds: u64) -> Timestamp {
    T0.after(Duration::from_secs(seconds))
}

fn key(name: &str) -> Key {
    Key::of("test").part("name", name).finish()
}

fn claimed(reference: &str) -> Claimed {
    let name = LockName::new("app", ["reference", ""], reference);
    Claimed { channel: Channel::Webhook, names: vec![name], kinds: vec![name.kind], exclusive: false, era: Era(7) }
}

fn delivery(id: u64, reference: &str, phase: Phase) -> Delivery {
    let mut headers = HeaderMap::new();
    headers.append("x-two", HeaderValue::from_static("1"));
    headers.append("x-two", HeaderValue::from_bytes(b"\xfc 2").unwrap());
    let request = StoredRequest {
        method: Method::POST,
        uri: Uri::from_static("/hook?id=%69d"),
        headers,
        body: Bytes::from_static(b"\0what it said\xff"),
    };
    let policy = Policy { on_unknown: OnUnknown::Resend, ..Policy::default() };
    let letter = Letter {
        request: Arc::new(request),
        provider: "mollie",
        events: vec![Carried {
            reference: reference.into(),
            transaction: key(reference),
            identity: key("identity"),
            windowed: true,
            told: 7,
            state: Some(Stated::Refunded),
            step: Some(Step::Part),
        }],
        claimed: claimed(reference),
        policy: Arc::new(policy),
        arrived: T0,
    };
    Delivery { id: LeaseId(id), version: 0, letter: Arc::new(letter), phase, attempts: 1, owed: false }
}

fn answer() -> Arc<Answer> {
    Arc::new(Answer {
        status: StatusCode::OK,
        content_type: Some((*b"text/plain").into()),
        body: Some((*b"ok").into()),
    })
}

fn transaction(fate: Fate) -> Transaction {
    let claim = Claim { identity: key("identity"), fate, told: 7, window: None, rode: None };
    Transaction { claims: vec![claim], money: Money { stage: Stage::Refunded, paid: true }, version: 0 }
}

fn settled() -> Transaction {
    transaction(Fate::Settled { answer: answer(), expires: later(3600) })
}

fn put(name: &str) -> Transition {
    Transition { transactions: vec![(key(name), settled())], ..Transition::default() }
}

fn puts(delivery: Delivery) -> Transition {
    let locks = match delivery.phase {
        Phase::Held { .. } => Vec::new(),
        _ => vec![LockChange::Enqueue(delivery.id, delivery.letter.claimed.clone())],
    };
    Transition { deliveries: vec![Change::Put(delivery)], locks, ..Transition::default() }
}

fn options(durable: Durable) -> Options {
    let bounds = memory::Options {
        places: usize::MAX,
        max_remembered: 1_000_000,
        max_leases: 1000,
        history: 100,
        history_retention: Duration::from_secs(3600),
        max_repeats: 50,
        names_retained: Duration::from_secs(3600),
        max_names: 100,
        bills_retained: Duration::from_secs(7200),
        max_bills: 100,
        max_payers: 100,
    };
    Options { bounds, durable, quiet: QUIET, seals: Seals::default() }
}

fn folder(path: &Path) -> Result<Embedded, DiskError> {
    Embedded::open(Box::new(Place::at(path.to_owned())), options(Durable::Outcome), T0)
}

async fn knows(store: &Embedded, name: &str) -> bool {
    !store.load(Want::Transactions(&[key(name)], &[]), T0).await.unwrap().transactions.is_empty()
}

// ------------------------------------------------------------------------------------------------ a disk to play with

type Records = BTreeMap<(Space, Vec<u8>), Vec<u8>>;

/// A disk in memory, which may refuse to be written or opened.
#[derive(Clone, Default)]
struct Board {
    records: Arc<Mutex<Records>>,
    writes: Arc<Mutex<usize>>,
    refuses: Arc<AtomicBool>,
    /// It says that it could not, and has.
    lies: Arc<AtomicBool>,
    broken: Arc<AtomicBool>,
}

impl Medium for Board {
    fn open(&mut self) -> Result<Box<dyn Disk>, DiskError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(DiskError::Refused("no disk".to_owned()));
        }
        Ok(Box::new(self.clone()))
    }
}

impl Disk for Board {
    fn read(&mut self, take: Take<'_>) -> Result<(), DiskError> {
        for ((space, key), value) in &*self.records.lock().unwrap() {
            take(*space, key, value)?;
        }
        Ok(())
    }

    fn write(&mut self, group: &Group) -> Result<(), DiskError> {
        if self.refuses.load(Ordering::Relaxed) {
            return Err(DiskError::Refused("no room".to_owned()));
        }
        *self.writes.lock().unwrap() += 1;
        let mut records = self.records.lock().unwrap();
        for (space, key, value) in group.records() {
            match value {
                Some(value) => _ = records.insert((space, key.to_vec()), value.to_vec()),
                None => _ = records.remove(&(space, key.to_vec())),
            }
        }
        if self.lies.swap(false, Ordering::Relaxed) {
            return Err(DiskError::Refused("no answer".to_owned()));
        }
        Ok(())
    }

    fn records(&self) -> super::disk::Records {
        let records = self.records.lock().unwrap().clone();
        Box::new(records.into_iter().map(|((space, key), value)| Ok((space, key, value))))
    }
}

impl Board {
    fn open_at(&self, now: Timestamp) -> (Embedded, Writer) {
        Embedded::open_unwritten(Box::new(self.clone()), options(Durable::Outcome), now).unwrap()
    }

    /// What a gate finds that starts now.
    fn after_a_crash(&self, now: Timestamp) -> (Embedded, Writer) {
        self.open_at(now)
    }
}

/// Commits, and writes what was committed.
async fn write(store: &Embedded, writer: &mut Writer, transition: Transition) -> Vec<LeaseId> {
    let commit = store.commit(transition, T0);
    let turns = async {
        tokio::task::yield_now().await;
        while writer.turn(T0) {}
    };
    tokio::join!(commit, turns).0.unwrap()
}

/// Polls a future once, which may end or not.
async fn once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    std::future::poll_fn(|context| match std::pin::Pin::new(&mut *future).poll(context) {
        std::task::Poll::Ready(value) => std::task::Poll::Ready(Some(value)),
        std::task::Poll::Pending => std::task::Poll::Ready(None),
    })
    .await
}

// ------------------------------------------------------------------------------------------------ what is waited for

#[tokio::test]
async fn what_has_to_be_durable_is_waited_for_and_the_rest_is_not() {
    let board = Board::default();
    let (store, mut writer) = board.open_at(T0);
    let sending = puts(delivery(1, "a", Phase::InFlight { lease_until: later(9) }));
    let mut commit = Box::pin(store.commit(sending, T0));
    assert!(once(&mut commit).await.is_none(), "no first byte before it is on the disk");
    let mut arrival = Box::pin(store.commit(puts(delivery(2, "b", Phase::Held { until: later(2) })), T0));
    assert!(once(&mut arrival).await.is_some(), "nobody was told of it yet");
    assert_eq!(*board.writes.lock().unwrap(), 0);
    assert!(writer.turn(T0));
    assert_eq!(commit.await.unwrap(), [LeaseId(1)]);
    assert_eq!(*board.writes.lock().unwrap(), 1, "one group for both");
}

#[tokio::test]
async fn the_group_after_a_crowd_is_let_gather_and_that_of_who_waits_alone_is_not() {
    let board = Board::default();
    let (store, mut writer) = board.open_at(T0);
    for (crowd, let_gather) in [(1, false), (40, true), (1, false)] {
        let sending = |id| puts(delivery(id, &id.to_string(), Phase::InFlight { lease_until: later(9) }));
        let mut commits = Vec::new();
        for _ in 0..crowd {
            let id = *board.writes.lock().unwrap() as u64 * 100 + commits.len() as u64;
            commits.push(Box::pin(store.commit(sending(id), T0)));
            assert!(once(commits.last_mut().unwrap()).await.is_none());
        }
        assert!(writer.turn(T0));
        for commit in commits {
            commit.await.unwrap();
        }
        assert_eq!(writer.rest() > Duration::ZERO, let_gather, "after {crowd}");
    }
}

#[tokio::test]
async fn a_success_is_not_repeated_to_anybody_before_it_is_durable() {
    let board = Board::default();
    let (store, mut writer) = board.open_at(T0);
    store.commit(put("a"), T0).await.unwrap();
    let keys = [key("a")];
    let mut look = Box::pin(store.load(Want::Transactions(&keys, &[]), T0));
    assert!(once(&mut look).await.is_none());
    writer.turn(T0);
    assert_eq!(look.await.unwrap().transactions.len(), 1);
    assert!(once(&mut Box::pin(store.load(Want::Transactions(&keys, &[]), T0))).await.is_some());
}

#[tokio::test]
async fn grants_that_nobody_heard_are_told_to_the_next() {
    let board = Board::default();
    let (store, mut writer) = board.open_at(T0);
    let enqueue =
        |id| Transition { locks: vec![LockChange::Enqueue(LeaseId(id), claimed("tr"))], ..Transition::default() };
    let mut commit = Box::pin(store.commit(enqueue(1), T0));
    assert!(once(&mut commit).await.is_none(), "its owner would go to the app on the strength of this");
    drop(commit);
    writer.turn(T0);
    assert_eq!(store.due(T0, 9).await.unwrap(), [Due::Grants]);
    assert_eq!(store.counts().next_due, Some(Timestamp::EPOCH));
    assert_eq!(store.commit(Transition::default(), T0).await.unwrap(), [LeaseId(1)]);
    assert_eq!(store.due(T0, 9).await.unwrap(), []);
}

// ------------------------------------------------------------------------------------------------ after a crash

#[tokio::test]
async fn what_was_in_the_app_is_due_at_once_and_keeps_its_lease() {
    let board = Board::default();
    let (store, mut writer) = board.open_at(T0);
    write(&store, &mut writer, puts(delivery(1, "a", Phase::InFlight { lease_until: later(300) }))).await;
    drop(store);
    let (store, mut writer) = board.after_a_crash(later(5));
    assert_eq!(store.due(later(5), 9).await.unwrap(), [Due::Delivery(LeaseId(1))], "its sender is gone");
    assert_eq!(write(&store, &mut writer, puts(delivery(2, "a", Phase::Queued))).await, [], "the app may be at work");
    let require = Transition { locks: vec![LockChange::Require(LeaseId(1))], ..Transition::default() };
    assert!(store.commit(require, T0).await.is_ok());
}

#[tokio::test]
async fn what_the_books_were_asked_about_is_asked_about_anew_and_keeps_its_names_and_no_more() {
    let board = Board::default();
    let (store, mut writer) = board.open_at(T0);
    write(&store, &mut writer, puts(delivery(1, "a", Phase::Unknown { since: T0 }))).await;
    let confirming = Delivery { version: 1, ..delivery(1, "a", Phase::Confirming { since: T0, at: later(900) }) };
    let names = vec![LockChange::Names(LeaseId(1))];
    let asked = Transition { deliveries: vec![Change::Put(confirming)], locks: names, ..Transition::default() };
    write(&store, &mut writer, asked).await;
    drop(store);
    let (store, mut writer) = board.after_a_crash(later(100));
    assert_eq!(store.due(later(100), 9).await.unwrap(), [Due::Delivery(LeaseId(1))], "who was asked is gone");
    let view = store.load(Want::Delivery(LeaseId(1)), later(100)).await.unwrap();
    let anew = Phase::Confirming { since: later(100), at: later(100) };
    assert_eq!(view.deliveries[0].phase, anew, "and whoever was down with us has time to come back");
    assert_eq!(write(&store, &mut writer, puts(delivery(2, "a", Phase::Queued))).await, [], "it is the same payment");
    assert_eq!(write(&store, &mut writer, puts(delivery(3, "b", Phase::Queued))).await, [LeaseId(3)]);
}

#[tokio::test]
async fn what_waited_for_its_turn_gets_it_and_what_was_held_is_held_on() {
    let board = Board::default();
    let (store, mut writer) = board.open_at(T0);
    for (id, phase) in [(3, Phase::Queued), (2, Phase::Queued), (4, Phase::Held { until: later(9) })] {
        write(&store, &mut writer, puts(delivery(id, "a", phase))).await;
    }
    drop(store);
    let (store, _writer) = board.after_a_crash(later(5));
    assert_eq!(store.due(later(5), 9).await.unwrap(), [Due::Grants]);
    assert_eq!(store.commit(Transition::default(), later(5)).await.unwrap(), [LeaseId(2)]);
    assert_eq!(store.due(later(9), 9).await.unwrap(), [Due::Delivery(LeaseId(4))]);
}

#[tokio::test]
async fn who_was_in_the_app_without_a_delivery_keeps_others_out_for_quiet() {
    let board = Board::default();
    let (store, mut writer) = board.open_at(T0);
    let back = Claimed { channel: Channel::Return, ..claimed("a") };
    let enqueue =
        |id, claimed| Transition { locks: vec![LockChange::Enqueue(LeaseId(id), claimed)], ..Transition::default() };
    assert_eq!(write(&store, &mut writer, enqueue(1, back.clone())).await, [LeaseId(1)]);
    assert_eq!(write(&store, &mut writer, enqueue(2, back.clone())).await, [], "who waits is nobody after a crash");
    drop(store);
    let (store, mut writer) = board.after_a_crash(later(5));
    assert_eq!(write(&store, &mut writer, puts(delivery(3, "a", Phase::Queued))).await, []);
    let over = later(5).after(QUIET);
    assert_eq!(store.due(over, 9).await.unwrap(), [Due::Lease(LeaseId(1))]);
    assert_eq!(store.due(later(64), 9).await.unwrap(), []);
    let release = Transition { locks: vec![LockChange::Release(LeaseId(1))], ..Transition::default() };
    assert_eq!(write(&store, &mut writer, release).await, [LeaseId(3)]);
    drop(store);
    assert_eq!(board.after_a_crash(later(5)).0.counts().leases, 1, "what was given back is not found again");
}

#[tokio::test]
async fn what_lingers_lingers_on() {
    let board = Board::default();
    let (store, mut writer) = board.open_at(T0);
    write(&store, &mut writer, puts(delivery(1, "a", Phase::InFlight { lease_until: later(300) }))).await;
    let linger = Transition {
        deliveries: vec![Change::Remove(LeaseId(1), 1)],
        locks: vec![LockChange::Linger(LeaseId(1), later(10))],
        ..Transition::default()
    };
    write(&store, &mut writer, linger).await;
    drop(store);
    let (store, _writer) = board.after_a_crash(later(5));
    assert_eq!((store.counts().leases, store.counts().in_flight), (1, 0), "its place was given back");
    assert_eq!(store.due(later(10), 9).await.unwrap(), [Due::Lease(LeaseId(1))]);
}

#[tokio::test]
async fn what_waits_for_a_person_keeps_its_names_only_where_it_did() {
    for names in [true, false] {
        let board = Board::default();
        let (store, mut writer) = board.open_at(T0);
        write(&store, &mut writer, puts(delivery(1, "a", Phase::Queued))).await;
        let review = Phase::Review { since: T0, reason: Reason::Unknown };
        let change = if names { LockChange::Names(LeaseId(1)) } else { LockChange::Release(LeaseId(1)) };
        let review = Change::Put(Delivery { version: 1, ..delivery(1, "a", review) });
        let waits = Transition { deliveries: vec![review], locks: vec![change], ..Transition::default() };
        write(&store, &mut writer, waits).await;
        drop(store);
        let (store, mut writer) = board.after_a_crash(later(5));
        assert_eq!(store.counts().review, 1);
        let granted = write(&store, &mut writer, puts(delivery(2, "a", Phase::Queued))).await;
        assert_eq!(granted.is_empty(), names);
    }
}

#[tokio::test]
async fn history_names_and_settled_answers_are_found_again_and_numbers_go_on() {
    let board = Board::default();
    let (store, mut writer) = board.open_at(T0);
    let name = LockName::new("app", ["hash", ""], "h");
    let line = |n| Line { at: later(n), transaction: key("a"), delivery: None, attempt: 0, what: What::Trailing };
    let bill = Bill { version: 0, paid_by: vec![key("3"), key("gone")] };
    write(&store, &mut writer, Transition { bills: vec![(key("1001"), bill.clone())], ..Transition::default() }).await;
    for n in 0..150 {
        let transition = Transition { history: vec![line(n)], returned: vec![name], ..put(&n.to_string()) };
        write(&store, &mut writer, transition).await;
    }
    let before = store.history(crate::store::Lines::Of(key("a")), 0, 999).await.unwrap();
    drop(store);
    let (store, mut writer) = board.after_a_crash(later(5));
    assert_eq!(store.history(crate::store::Lines::Of(key("a")), 0, 999).await.unwrap(), before);
    assert_eq!((before.len(), before[0].0, before[99].0), (100, 51, 150));
    let view = store
        .load(Want::Arrival(&[key("3")], &Claimed { names: vec![name], ..claimed("3") }, &[key("1001")]), later(5))
        .await
        .unwrap();
    assert!(view.returned);
    assert_eq!((view.bills[0].0, &view.bills[0].1.paid_by), (key("1001"), &bill.paid_by));
    assert!(view.bills[0].1.version > 0, "whoever saw it before does not write over it");
    assert_eq!(view.payers, [(key("3"), settled().money)]);
    let Fate::Settled { answer: found, expires } = &view.transactions[0].1.claims[0].fate else { panic!("settled") };
    assert_eq!((found, *expires), (&answer(), later(3600)));
    write(&store, &mut writer, Transition { history: vec![line(200)], ..Transition::default() }).await;
    assert_eq!(store.history(crate::store::Lines::Of(key("a")), 150, 9).await.unwrap(), [(151, line(200))]);
    let lines = board.records.lock().unwrap().keys().filter(|(space, _)| *space == Space::History).count();
    assert_eq!(lines, 100, "what is forgotten is removed");
    while store.forget(later(9999), 64).await.unwrap() {}
    while writer.turn(T0) {}
    let left: Vec<_> = board.records.lock().unwrap().keys().map(|(space, _)| *space).collect();
    assert_eq!(left, [Space::Tail], "the disk forgets too");
}

// ------------------------------------------------------------------------------------------------ the clock

#[tokio::test]
async fn a_clock_that_was_set_back_draws_nothing_again_that_was_drawn_before() {
    let board = Board::default();
    let (store, mut writer) = board.open_at(T0);
    assert_eq!((store.now(), store.counts().jump), (T0, 0), "nothing is known of any clock");
    let commit = store.commit(puts(delivery(1, "a", Phase::InFlight { lease_until: later(300) })), later(100));
    let (committed, ()) = tokio::join!(commit, async {
        tokio::task::yield_now().await;
        while writer.turn(T0) {}
    });
    committed.unwrap();
    store.commit(put("a"), later(120)).await.unwrap();
    while writer.turn(T0) {}
    let version = store.load(Want::Transactions(&[key("a")], &[]), T0).await.unwrap().transactions[0].1.version;
    drop(store);
    // Ten minutes back.
    let (store, mut writer) = board.after_a_crash(T0);
    assert!(store.now() > later(120), "leases are named by the clock, and no name is used twice");
    assert_eq!(store.counts().jump, 0, "clocks are put right by so much every day");
    assert_eq!(store.due(store.now(), 9).await.unwrap(), [Due::Delivery(LeaseId(1))]);
    let view = store.load(Want::Transactions(&[key("a")], &[]), T0).await.unwrap();
    assert!(view.transactions[0].1.version > version);
    // The same when only the disk was gone, whatever the writer's clock says.
    let now = store.now().after(Duration::from_secs(50));
    store.commit(put("b"), now).await.unwrap();
    let version = store.load(Want::Transactions(&[key("a")], &[]), now).await.unwrap().transactions[0].1.version;
    board.refuses.store(true, Ordering::Relaxed);
    assert!(writer.turn(T0) && store.fault().is_some());
    board.refuses.store(false, Ordering::Relaxed);
    assert!(writer.turn(T0) && store.fault().is_none());
    let view = store.load(Want::Transactions(&[key("a")], &[]), now).await.unwrap();
    assert!(view.transactions[0].1.version > version);
}

#[tokio::test]
async fn after_a_jump_of_the_clock_nothing_is_forgotten_for_an_hour_but_what_is_too_much() {
    for (jumped, seconds) in [(later(9000), 9000), (Timestamp::from_millis(T0.as_millis() - 7_200_000), -7200)] {
        let board = Board::default();
        let (store, mut writer) = board.open_at(T0);
        let short = Fate::Settled { answer: answer(), expires: later(1) };
        let known = Transition { transactions: vec![(key("a"), transaction(short))], ..Transition::default() };
        store.commit(known, T0).await.unwrap();
        while writer.turn(T0) {}
        drop(store);
        let (store, _writer) = board.after_a_crash(jumped);
        let began = store.now();
        assert!(began >= jumped && began >= T0);
        let nearly = began.after(Duration::from_secs(3599));
        store.forget(nearly, 64).await.unwrap();
        store.due(nearly, 9).await.unwrap();
        assert!(knows(&store, "a").await, "nobody knows whether so much time has gone by");
        assert_eq!(store.counts().jump, seconds);
        let over = began.after(Duration::from_secs(3600));
        while store.forget(over, 64).await.unwrap() {}
        store.due(over, 9).await.unwrap();
        assert!(!knows(&store, "a").await);
        assert_eq!(store.counts().jump, 0);
    }
}

#[tokio::test]
async fn what_was_taught_goes_with_the_process_and_who_comes_after_that_is_doubtful() {
    let lesson = |reference: &str| {
        let (session, payment) =
            (LockName::new("app", ["session", ""], "s"), LockName::new("app", ["reference", ""], reference));
        let lesson = Lesson { subjects: vec![session], names: vec![payment], came: None, doubt: Doubt::None };
        (session, Transition { lessons: vec![lesson], ..Transition::default() })
    };
    let board = Board::default();
    let (session, first) = lesson("tr_1");
    let (_, second) = lesson("tr_2");
    let begun = async |store: &Embedded, now| {
        let view = store.load(Want::Transactions(&[], &[session]), now).await.unwrap();
        view.begun.into_iter().next().map(|(_, begun)| (begun.names.len(), begun.doubtful))
    };
    let (store, mut writer) = board.open_at(T0);
    store.commit(first.clone(), T0).await.unwrap();
    store.commit(put("a"), T0).await.unwrap();
    while writer.turn(T0) {}
    assert_eq!(begun(&store, T0).await, Some((1, false)), "in the first life of a store nothing came before");
    // The process, and the disk alone.
    drop(store);
    let (store, mut writer) = board.after_a_crash(later(1));
    let now = store.now();
    assert_eq!(begun(&store, now).await, None);
    store.commit(second.clone(), now).await.unwrap();
    assert_eq!(
        begun(&store, now).await,
        Some((1, true)),
        "nobody knows of the other payment, only that there may be one"
    );
    store.commit(put("b"), now).await.unwrap();
    board.refuses.store(true, Ordering::Relaxed);
    assert!(writer.turn(now) && store.fault().is_some());
    board.refuses.store(false, Ordering::Relaxed);
    assert!(writer.turn(now) && store.fault().is_none());
    assert_eq!(begun(&store, now).await, None);
    store.commit(second.clone(), now).await.unwrap();
    assert_eq!(begun(&store, now).await, Some((1, true)));
    // As long as what was taught before would have been remembered, and no longer.
    let over = now.after(Duration::from_secs(3600));
    store.commit(second, over).await.unwrap();
    assert_eq!(begun(&store, over).await, Some((1, false)));
}

#[tokio::test]
async fn a_quiet_night_is_no_jump_of_the_clock() {
    let board = Board::default();
    let (store, mut writer) = board.open_at(T0);
    store.commit(put("a"), T0).await.unwrap();
    while writer.turn(T0) {}
    for minute in 0..8 * 60 {
        let now = later(minute * 60);
        store.due(now, 9).await.unwrap();
        store.forget(now, 64).await.unwrap();
        while writer.turn(now) {}
    }
    assert_eq!(*board.writes.lock().unwrap(), 1 + 1 + 23, "what is known is written, forgotten, and dated");
    drop(store);
    let (store, _writer) = board.after_a_crash(later(8 * 3600 + 1800));
    assert_eq!(store.counts().jump, 0, "it was at work until half an hour ago");
}

// ------------------------------------------------------------------------------------------------ a disk that fails

#[tokio::test]
async fn a_disk_that_fails_refuses_all_until_it_can_be_used_again() {
    let board = Board::default();
    let (store, mut writer) = board.open_at(T0);
    write(&store, &mut writer, puts(delivery(1, "a", Phase::InFlight { lease_until: later(300) }))).await;
    board.refuses.store(true, Ordering::Relaxed);
    let mut commit = Box::pin(store.commit(puts(delivery(2, "b", Phase::InFlight { lease_until: later(9) })), T0));
    assert!(once(&mut commit).await.is_none());
    assert!(writer.turn(T0));
    assert!(matches!(commit.await, Err(CommitError::Store(_))), "whoever waits hears it");
    assert!(store.load(Want::Delivery(LeaseId(1)), T0).await.is_err() && store.fault().is_some());
    assert!(matches!(store.commit(put("a"), T0).await, Err(CommitError::Store(_))));
    board.broken.store(true, Ordering::Relaxed);
    assert!(writer.turn(T0) && store.fault().is_some());
    board.broken.store(false, Ordering::Relaxed);
    board.refuses.store(false, Ordering::Relaxed);
    assert!(writer.turn(T0) && store.fault().is_none());
    assert!(store.due(T0, 9).await.is_err(), "whoever waited has to hear of it");
    assert_eq!(store.due(later(9), 9).await.unwrap(), [], "who sends the first goes on");
    let view = store.load(Want::Delivery(LeaseId(1)), T0).await.unwrap();
    let first = view.delivery(LeaseId(1)).unwrap();
    assert!(first.version > 1 << 32, "what was seen before is not taken for what is there now");
    assert!(store.load(Want::Delivery(LeaseId(2)), T0).await.unwrap().deliveries.is_empty(), "it was refused");
}

#[tokio::test]
async fn who_sends_while_the_disk_fails_has_all_of_his_time_and_no_more_than_that() {
    let whole = delivery(1, "a", Phase::Queued).letter.policy.timeout + LEASE_MARGIN;
    // How far ahead the clock was by which it began.
    for ahead in [0, 3600] {
        let board = Board::default();
        let options = Options { quiet: Duration::ZERO, ..options(Durable::Outcome) };
        let (store, mut writer) = Embedded::open_unwritten(Box::new(board.clone()), options, T0).unwrap();
        let until = |seconds| Phase::InFlight { lease_until: later(seconds).after(whole) };
        write(&store, &mut writer, puts(delivery(1, "a", until(ahead)))).await;
        board.refuses.store(true, Ordering::Relaxed);
        let mut commit = Box::pin(store.commit(puts(delivery(2, "b", until(0))), T0));
        assert!(once(&mut commit).await.is_none() && writer.turn(T0) && commit.await.is_err());
        board.refuses.store(false, Ordering::Relaxed);
        assert!(writer.turn(T0) && store.due(T0, 9).await.is_err());
        let view = store.load(Want::Delivery(LeaseId(1)), T0).await.unwrap();
        let Phase::InFlight { lease_until } = view.delivery(LeaseId(1)).unwrap().phase else { panic!("it is sent") };
        assert!((later(0).after(whole)..later(1).after(whole)).contains(&lease_until), "{ahead}: {lease_until}");
    }
}

#[tokio::test]
async fn a_try_that_was_refused_goes_again_at_once_even_if_the_disk_knows_it_as_begun() {
    let board = Board::default();
    let (store, mut writer) = board.open_at(T0);
    let in_flight = Phase::InFlight { lease_until: later(300) };
    let sending = |id, version, attempts| {
        let delivery = Delivery { version, attempts, ..delivery(id, &id.to_string(), in_flight) };
        Transition { deliveries: vec![Change::Put(delivery)], ..Transition::default() }
    };
    for id in [1, 2] {
        write(&store, &mut writer, puts(delivery(id, &id.to_string(), Phase::Queued))).await;
    }
    write(&store, &mut writer, sending(2, 1, 2)).await;
    // In the same group as what changes of one that is in the app: that one was begun before.
    board.lies.store(true, Ordering::Relaxed);
    let mut other = Box::pin(store.commit(sending(2, 2, 2), T0));
    let mut commit = Box::pin(store.commit(sending(1, 1, 2), T0));
    // One that came and went on in the same commit.
    let seize = LockChange::Seize(LeaseId(3), delivery(3, "3", in_flight).letter.claimed.clone());
    let at_once = Transition { locks: vec![seize], ..sending(3, 0, 1) };
    let mut at_once = Box::pin(store.commit(at_once, T0));
    for waits in [&mut commit, &mut other, &mut at_once] {
        assert!(once(waits).await.is_none());
    }
    assert!(writer.turn(T0) && commit.await.is_err() && other.await.is_err() && at_once.await.is_err());
    assert!(writer.turn(T0) && store.fault().is_none() && store.due(T0, 9).await.is_err());
    assert_eq!(store.due(T0, 9).await.unwrap(), [Due::Grants], "nobody waits for who sends nothing");
    let found = async |store: &Embedded, id| {
        let view = store.load(Want::Delivery(LeaseId(id)), T0).await.unwrap();
        let found = view.delivery(LeaseId(id)).unwrap();
        (found.phase, found.attempts)
    };
    assert_eq!(found(&store, 1).await, (Phase::Queued, 1));
    assert_eq!(found(&store, 3).await, (Phase::Queued, 0));
    assert!(matches!(found(&store, 2).await, (Phase::InFlight { .. }, 2)), "this one may be in the app");
    let lines = store.history(crate::store::Lines::Of(key("1")), 0, 9).await.unwrap();
    assert!(matches!(&lines[..], [(_, Line { what: What::Ended { outcome: Outcome::NotSent, .. }, .. })]), "{lines:?}");
    // The disk fails once more before that is on it.
    board.refuses.store(true, Ordering::Relaxed);
    assert!(writer.turn(T0) && store.fault().is_some());
    board.refuses.store(false, Ordering::Relaxed);
    assert!(writer.turn(T0) && store.fault().is_none());
    assert_eq!(found(&store, 1).await, (Phase::Queued, 1));
    assert!(writer.turn(T0));
    drop(store);
    let (store, _writer) = board.after_a_crash(T0);
    assert_eq!(found(&store, 1).await, (Phase::Queued, 1), "it is on the disk now");
    assert_eq!(found(&store, 3).await, (Phase::Queued, 0));
    assert_eq!(store.history(crate::store::Lines::Of(key("1")), 0, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn as_many_may_be_in_the_app_after_a_failure_as_before() {
    let board = Board::default();
    let (store, mut writer) = board.open_at(T0);
    let one = Transition { locks: vec![LockChange::Places(1)], ..Transition::default() };
    store.commit(one, T0).await.unwrap();
    for (id, reference) in [(1, "a"), (2, "b")] {
        write(&store, &mut writer, puts(delivery(id, reference, Phase::Queued))).await;
    }
    board.refuses.store(true, Ordering::Relaxed);
    store.commit(put("a"), T0).await.unwrap();
    assert!(writer.turn(T0) && store.fault().is_some());
    board.refuses.store(false, Ordering::Relaxed);
    assert!(writer.turn(T0) && store.fault().is_none());
    assert_eq!(store.commit(Transition::default(), T0).await.unwrap(), [LeaseId(1)]);
}

// ------------------------------------------------------------------------------------------------ the folder

#[tokio::test]
async fn a_folder_is_opened_by_one_and_in_its_own_format() {
    let directory = tempfile::tempdir().unwrap();
    let store = folder(directory.path()).unwrap();
    let second = folder(directory.path()).map(drop).unwrap_err().to_string();
    assert!(second.contains("in use by another gate"), "{second}");
    store.commit(put("a"), T0).await.unwrap();
    drop(store);
    assert!(knows(&folder(directory.path()).unwrap(), "a").await, "what nobody waited for is written at the end");
    let later = format!("{}\n", FORMAT + 1);
    for (format, said) in [(&*later, "a later version"), ("what\n", "does not say a format")] {
        fs::write(directory.path().join("format"), format).unwrap();
        let refused = folder(directory.path()).map(drop).unwrap_err().to_string();
        assert!(refused.contains(said), "{refused}");
    }
    fs::remove_file(directory.path().join("format")).unwrap();
    assert!(folder(directory.path()).is_err(), "a store without its format is none");
}

#[tokio::test]
async fn a_folder_of_the_first_format_is_taken_up_and_from_then_on_is_of_the_present_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut disk = Place::at(directory.path().to_owned()).open_alone().unwrap();
    let mut group = Group::new(1);
    group.set(Space::Transactions, key("a"), Some(settled()), |t, into| record::write_transaction(&t, into));
    group.put(Space::Tail, super::disk::TAIL, |into| {
        into.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0])
    });
    disk.write(&group).unwrap();
    drop(disk);
    let format = directory.path().join("format");
    fs::write(&format, "1\n").unwrap();
    let store = folder(directory.path()).unwrap();
    assert!(knows(&store, "a").await);
    assert_eq!(
        fs::read_to_string(&format).unwrap(),
        format!("{FORMAT}\n"),
        "an earlier program keeps away from what is written now"
    );
    store.commit(put("b"), T0).await.unwrap();
    drop(store);
    let store = folder(directory.path()).unwrap();
    assert!(knows(&store, "a").await && knows(&store, "b").await && store.now() > T0);
}

#[tokio::test]
async fn a_store_that_is_gone_is_missed() {
    let directory = tempfile::tempdir().unwrap();
    let store = folder(directory.path()).unwrap();
    store.commit(put("a"), T0).await.unwrap();
    drop(store);
    fs::remove_dir_all(directory.path().join("store")).unwrap();
    let refused = folder(directory.path()).map(drop).unwrap_err().to_string();
    assert!(refused.contains("is damaged") && refused.contains("missing"), "{refused}");
}

/// Has it write what its senders wait for; what they hear.
async fn sends(store: &Embedded, writer: &mut Writer, id: u64) -> Result<Vec<LeaseId>, CommitError> {
    let sending = puts(delivery(id, &id.to_string(), Phase::InFlight { lease_until: later(9) }));
    let mut commit = Box::pin(store.commit(sending, T0));
    match once(&mut commit).await {
        Some(heard) => heard,
        None => {
            writer.turn(T0);
            commit.await
        }
    }
}

#[tokio::test]
async fn a_folder_that_goes_while_it_is_open_is_missed_before_anybody_is_told_anything_more() {
    let directory = tempfile::tempdir().unwrap();
    let (place, aside) = (directory.path().join("data"), directory.path().join("aside"));
    let empty = |path: &Path| {
        fs::remove_dir_all(path).unwrap();
        fs::create_dir(path).unwrap();
    };
    let another = || {
        fs::rename(&place, &aside).unwrap();
        drop(folder(&place).unwrap());
    };
    let ways: [(&str, &dyn Fn(), &str); 6] = [
        ("removed", &|| fs::remove_dir_all(&place).unwrap(), "not there any more"),
        ("emptied", &|| empty(&place), "not there any more"),
        ("moved away", &|| fs::rename(&place, &aside).unwrap(), "not there any more"),
        ("without its records", &|| fs::remove_dir_all(place.join("store")).unwrap(), "is damaged"),
        ("with its records emptied", &|| empty(&place.join("store")), "is damaged"),
        ("another in its place", &another, "another"),
    ];
    for (how, goes, then) in ways {
        let medium = Box::new(Place::at(place.clone()));
        let (store, mut writer) = Embedded::open_unwritten(medium, options(Durable::Outcome), T0).unwrap();
        assert_eq!(sends(&store, &mut writer, 1).await.unwrap(), [LeaseId(1)], "{how}");
        goes();
        let refused = sends(&store, &mut writer, 2).await.map_err(|error| error.to_string());
        let said = refused
            .as_ref()
            .err()
            .is_some_and(|why| why.contains(&place.display().to_string()) && why.contains("put back what was there"));
        assert!(said, "{how}: {refused:?}");
        assert!(store.fault().is_some(), "{how}");
        if how == "another in its place" {
            let theirs = folder(&place).unwrap();
            writer.turn(T0);
            let fault = store.fault().map(|fault| fault.0).unwrap_or_default();
            assert!(fault.contains("in use by another gate"), "{fault}");
            drop(theirs);
            fs::remove_dir_all(&place).unwrap();
        } else {
            writer.turn(T0);
            let fault = store.fault().map(|fault| fault.0).unwrap_or_default();
            assert!(fault.contains(then), "{how}: {fault}");
        }
        if aside.exists() {
            fs::rename(&aside, &place).unwrap();
            writer.turn(T0);
            assert!(store.fault().is_none(), "{how}: what is back is used again");
            assert!(sends(&store, &mut writer, 3).await.unwrap().contains(&LeaseId(3)), "{how}");
            drop((store, writer));
            assert_eq!(folder(&place).unwrap().counts().deliveries, 3, "{how}: the one that failed may be there");
        }
        _ = fs::remove_dir_all(&place);
    }
}

/// Copies what is in a folder.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let into = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &into)
        } else {
            _ = fs::copy(entry.path(), into).unwrap()
        }
    }
}

fn journal(directory: &Path) -> std::path::PathBuf {
    let entries = fs::read_dir(directory.join("store")).unwrap();
    entries.map(|entry| entry.unwrap().path()).find(|path| path.extension().is_some_and(|end| end == "jnl")).unwrap()
}

#[tokio::test]
async fn a_journal_that_is_cut_or_flipped_anywhere_is_whole_or_refused_and_stays_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let whole = directory.path().join("whole");
    let store = folder(&whole).unwrap();
    for n in 0..6 {
        store.commit(puts(delivery(n, &n.to_string(), Phase::InFlight { lease_until: later(9) })), T0).await.unwrap();
        store.commit(put(&n.to_string()), T0).await.unwrap();
    }
    drop(store);
    let bytes = fs::read(journal(&whole)).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    assert!(written > 3000, "{written}");
    let (mut refused, mut kept) = (0, 0);
    for (nth, at) in (0..written).step_by(written / 24).enumerate() {
        let tried = directory.path().join(nth.to_string());
        copy(&whole, &tried);
        let mut damaged = bytes[..written].to_vec();
        if nth % 2 == 0 {
            damaged[at] ^= 0x10
        } else {
            damaged.truncate(at)
        }
        fs::write(journal(&tried), &damaged).unwrap();
        match folder(&tried) {
            Ok(store) => {
                for n in 0..6 {
                    assert!(knows(&store, &n.to_string()).await, "{at}: something is forgotten in silence");
                }
                assert_eq!(store.counts().deliveries, 6);
                kept += 1;
            }
            Err(error) => {
                assert!(error.to_string().contains("is damaged"), "{at}: {error}");
                assert_eq!(fs::read(journal(&tried)).unwrap(), damaged, "{at}: what may be read by others is cut off");
                refused += 1;
            }
        }
    }
    assert!(refused > 20, "refused {refused}, kept {kept}");
}

/// Every file below a folder, and every folder.
fn all_below(path: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { [all_below(&path), vec![path]].concat() } else { vec![path] }).collect()
}

#[tokio::test]
async fn what_is_emptied_filled_with_zeroes_or_gone_is_damage_or_does_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    let whole = directory.path().join("whole");
    let store = folder(&whole).unwrap();
    store.commit(puts(delivery(1, "a", Phase::InFlight { lease_until: later(9) })), T0).await.unwrap();
    store.commit(put("a"), T0).await.unwrap();
    drop(store);
    // Once more, so that there are tables too.
    drop(folder(&whole).unwrap());
    let (mut refused, all) = (0, all_below(&whole.join("store")));
    let tried = directory.path().join("tried");
    for place in &all {
        for how in ["zeroed", "emptied", "gone"] {
            copy(&whole, &tried);
            let damaged = tried.join(place.strip_prefix(&whole).unwrap());
            match (how, damaged.is_dir()) {
                ("zeroed", false) => fs::write(&damaged, vec![0; fs::metadata(place).unwrap().len() as usize]).unwrap(),
                ("emptied", false) => fs::write(&damaged, "").unwrap(),
                (_, false) => fs::remove_file(&damaged).unwrap(),
                (_, true) => fs::remove_dir_all(&damaged).unwrap(),
            }
            // Whoever tries again must not find what the first has begun anew.
            let tries = if how == "gone" { 2 } else { 1 };
            for _ in 0..tries {
                match folder(&tried) {
                    Ok(store) => {
                        let is_whole = store.counts().deliveries == 1 && knows(&store, "a").await;
                        assert!(is_whole, "{how}: {}: something is forgotten in silence", damaged.display());
                    }
                    Err(error) => {
                        let error = error.to_string();
                        let is_said = error.contains("is damaged") && error.contains("Put a backup in its place");
                        assert!(is_said, "{how}: {}: {error}", damaged.display());
                        refused += 1;
                    }
                }
            }
            fs::remove_dir_all(&tried).unwrap();
        }
    }
    assert!(refused > all.len(), "refused {refused} for {} files and folders", all.len());
}

#[tokio::test]
async fn a_group_that_was_never_acknowledged_may_be_torn() {
    let directory = tempfile::tempdir().unwrap();
    let store = folder(directory.path()).unwrap();
    store.commit(puts(delivery(1, "a", Phase::InFlight { lease_until: later(9) })), T0).await.unwrap();
    drop(store);
    let path = journal(directory.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1);
    // As a power cut leaves what was being written: a part of it, or all but its end.
    bytes.extend_from_within(..bytes.len() - 9);
    fs::write(&path, bytes).unwrap();
    assert_eq!(folder(directory.path()).unwrap().counts().deliveries, 1);
}

// ------------------------------------------------------------------------------------------------ copies

/// The pieces of a copy.
async fn stream(store: &Embedded) -> Vec<u8> {
    store.copy().await.unwrap().unwrap().flat_map(|piece| piece.unwrap().to_vec()).collect()
}

#[tokio::test]
async fn a_copy_is_the_store_as_of_one_group_while_others_write() {
    let directory = tempfile::tempdir().unwrap();
    let store = folder(&directory.path().join("store")).unwrap();
    for n in 0..2000 {
        store.commit(put(&n.to_string()), T0).await.unwrap();
    }
    store.commit(puts(delivery(7, "a", Phase::Review { since: T0, reason: Reason::Unknown })), T0).await.unwrap();
    let pieces = store.copy().await.unwrap().unwrap();
    // What comes while it is read is not in it.
    store.commit(put("later"), T0).await.unwrap();
    store.commit(puts(delivery(8, "b", Phase::InFlight { lease_until: later(9) })), T0).await.unwrap();
    let into = directory.path().join("copy");
    // As one that was cut off leaves it.
    copy(&directory.path().join("store"), &directory.path().join("copy.unfinished"));
    let mut made = Copy::called(&into).unwrap();
    for piece in pieces {
        // However the network cuts it.
        for piece in piece.unwrap().chunks(1000) {
            made.take(piece).unwrap();
        }
    }
    assert!(!into.exists());
    let copied = made.finish().unwrap();
    assert!(copied.records > 2000 && copied.group > 0, "{copied:?}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing is left beside it");
    assert!(Copy::called(&into).is_err(), "nothing is overwritten");
    let found = folder(&into).unwrap();
    for n in 0..2000 {
        assert!(knows(&found, &n.to_string()).await, "{n}");
    }
    assert!(!knows(&found, "later").await);
    assert_eq!((found.counts().review, found.counts().deliveries), (1, 1));
    assert!(knows(&store, "later").await, "the store goes on");
}

#[tokio::test]
async fn a_copy_that_is_cut_off_or_damaged_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let store = folder(&directory.path().join("store")).unwrap();
    for n in 0..9 {
        store.commit(puts(delivery(n, &n.to_string(), Phase::Held { until: later(9) })), T0).await.unwrap();
    }
    store.flush().await.unwrap();
    let whole = stream(&store).await;
    let into = directory.path().join("copy");
    let tried = |bytes: &[u8]| {
        let mut made = Copy::called(&into)?;
        made.take(bytes)?;
        made.finish()
    };
    for at in (0..whole.len()).step_by(whole.len() / 6) {
        assert!(tried(&whole[..at]).is_err(), "cut off at {at}");
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        assert!(tried(&flipped).is_err(), "flipped at {at}");
        assert!(!into.exists());
    }
    assert!(tried(&[&whole[..], b"more"].concat()).is_err());
    assert!(tried(&whole).is_ok() && into.exists());
}

#[tokio::test]
async fn a_copy_is_not_had_of_a_disk_that_fails() {
    let board = Board::default();
    let (store, mut writer) = board.open_at(T0);
    board.refuses.store(true, Ordering::Relaxed);
    store.commit(put("a"), T0).await.unwrap();
    writer.turn(T0);
    assert!(store.copy().await.is_err());
}

// ------------------------------------------------------------------------------------------------ seals

/// Every byte below a folder.
fn bytes_below(path: &Path) -> Vec<u8> {
    let read = |entry: fs::DirEntry| {
        let path = entry.path();
        if path.is_dir() { bytes_below(&path) } else { fs::read(path).unwrap() }
    };
    fs::read_dir(path).unwrap().flat_map(|entry| read(entry.unwrap())).collect()
}

#[tokio::test]
async fn a_sealed_request_is_nowhere_on_the_disk_and_opens_with_its_key_only() {
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = ([7; 32], [8; 32]);
    let open = |keys: &[[u8; 32]]| {
        let options = Options { seals: Seals::of(keys).unwrap(), ..options(Durable::Outcome) };
        Embedded::open(Box::new(Place::at(directory.path().to_owned())), options, T0)
    };
    let canary = |bytes: &[u8]| bytes.windows(12).filter(|window| window == b"what it said").count();
    let review = |id| puts(delivery(id, "a", Phase::Review { since: T0, reason: Reason::Unknown }));
    let said = async |store: &Embedded, id| {
        let view = store.load(Want::Delivery(LeaseId(id)), T0).await.unwrap();
        view.delivery(LeaseId(id)).map(|found| found.letter.request.body.clone())
    };
    let store = open(&[old]).unwrap();
    store.commit(review(1), T0).await.unwrap();
    store.commit(review(2), T0).await.unwrap();
    let gone = Transition { deliveries: vec![Change::Remove(LeaseId(2), 1)], ..Transition::default() };
    store.commit(gone, T0).await.unwrap();
    let copied = stream(&store).await;
    drop(store);
    assert_eq!((canary(&bytes_below(directory.path())), canary(&copied)), (0, 0));
    for keys in [&[][..], &[new]] {
        let refused = open(keys).map(drop).unwrap_err().to_string();
        assert!(refused.contains("`store.keys`"), "{refused}");
    }
    // A new key before the old one: what is there is sealed anew, and then the old one may go.
    let store = open(&[new, old]).unwrap();
    assert_eq!(said(&store, 1).await.unwrap(), Bytes::from_static(b"\0what it said\xff"));
    drop(store);
    let store = open(&[new]).unwrap();
    assert!(said(&store, 1).await.is_some());
    drop(store);
    assert_eq!(canary(&bytes_below(directory.path())), 0);
    // Whoever sealed nothing finds it.
    let plain = directory.path().join("plain");
    let store = folder(&plain).unwrap();
    store.commit(review(1), T0).await.unwrap();
    drop(store);
    assert!(canary(&bytes_below(&plain)) > 0, "the search can find something");
}

#[test]
fn what_is_sealed_belongs_to_its_delivery_and_is_whole() {
    let seals = Seals::of(&[[7; 32]]).unwrap();
    let sealed = |id: &[u8]| {
        let mut bytes = b"before\x01a delivery".to_vec();
        seals.seal(id, &mut bytes, 6);
        assert!(bytes.starts_with(b"before"));
        bytes.split_off(6)
    };
    let one = sealed(b"1");
    assert_eq!(seals.open(b"1", &one).unwrap().0, &b"\x01a delivery"[..]);
    assert_ne!(sealed(b"1"), one, "no nonce is used twice");
    assert!(seals.open(b"2", &one).is_err(), "it is no other's");
    for at in 0..one.len() {
        let mut flipped = one.clone();
        flipped[at] ^= 1;
        assert!(at == 0 || seals.open(b"1", &flipped).is_err(), "{at}");
        assert!(seals.open(b"1", &one[..at]).is_err() || at == 0, "{at}");
    }
}

// ------------------------------------------------------------------------------------------------ records

#[test]
fn every_record_is_read_as_it_was_written() {
    let mut deliveries = Vec::new();
    for phase in [
        Phase::Held { until: Timestamp::NEVER },
        Phase::Queued,
        Phase::InFlight { lease_until: later(1) },
        Phase::Unknown { since: later(2) },
        Phase::Confirming { since: later(2), at: later(7) },
        Phase::Retrying { at: later(3) },
        Phase::Recheck { at: later(3) },
        Phase::Awaited { at: later(4) },
        Phase::Review { since: later(4), reason: Reason::Overflow },
    ] {
        deliveries.push(delivery(9, "tr_1", phase));
    }
    for written in deliveries {
        let mut bytes = Vec::new();
        record::write_delivery(&written, key("policy"), &mut bytes);
        let find = |found| (found == key("policy")).then(|| Arc::clone(&written.letter.policy));
        let read = record::read_delivery(written.id, &bytes, find).unwrap();
        assert_eq!(format!("{read:?}"), format!("{written:?}"));
        assert!(record::read_delivery(written.id, &bytes, |_| None).is_err());
    }
    for on_unknown in [OnUnknown::Resend, OnUnknown::Review, OnUnknown::Confirm, OnUnknown::ConfirmElseResend] {
        let mut bytes = Vec::new();
        record::write_policy(&Policy { on_unknown, ..Policy::default() }, &mut bytes);
        assert_eq!(record::read_policy(&bytes).unwrap().on_unknown, on_unknown);
    }
    let success = crate::expression::Expression::compile("status == 200", crate::expression::SUCCESS).unwrap();
    let (answer, answer_within) = (AnswerBy::Accept, Some(Duration::from_secs(4)));
    let policy = Policy { success: Some(Arc::new(success)), order: Order::Strict, shadow: true, ..Policy::default() };
    let policy = Policy { answer, answer_within, ..policy };
    let mut bytes = Vec::new();
    record::write_policy(&policy, &mut bytes);
    assert_eq!(format!("{:?}", record::read_policy(&bytes).unwrap()), format!("{policy:?}"));
    // As formats 1 to 3 end.
    bytes.truncate(bytes.len() - 14);
    let policy = Policy { answer: AnswerBy::Upstream, answer_within: None, ..policy };
    assert_eq!(format!("{:?}", record::read_policy(&bytes).unwrap()), format!("{policy:?}"));
    let window = Some(Box::new(Window { until: later(1), next: Some(LeaseId(4)) }));
    let mut written = settled();
    let Fate::Settled { answer, .. } = written.claims[0].fate.clone() else { panic!("it is settled") };
    for (name, rode) in [("b", None), ("c", Some(answer))] {
        let (fate, window) = (Fate::Pending(LeaseId(3)), window.clone());
        written.claims.push(Claim { identity: key(name), fate, told: 0, window, rode });
    }
    let mut bytes = Vec::new();
    record::write_transaction(&written, &mut bytes);
    assert_eq!(format!("{:?}", record::read_transaction(&bytes, &mut Arc::new).unwrap()), format!("{written:?}"));
    let lease = record::Lease { seat: Seat::of(&claimed("a")), rest: Rest::Names, until: Some(later(1)) };
    let mut bytes = Vec::new();
    record::write_lease(&lease, &mut bytes);
    assert_eq!(record::read_lease(&bytes), Ok(lease));
    let remembered = Remembered { linked: claimed("a").names, returned: true, until: later(3) };
    let mut bytes = Vec::new();
    record::write_remembered(&remembered, &mut bytes);
    assert_eq!(record::read_remembered(&bytes), Ok(remembered));
    let billed = Billed { bill: Bill { version: 0, paid_by: vec![key("a"), key("b")] }, until: later(3) };
    let mut bytes = Vec::new();
    record::write_billed(&billed, &mut bytes);
    assert_eq!(record::read_billed(&bytes), Ok(billed));
}

#[test]
fn what_is_known_of_money_is_read_as_it_was_written_and_as_earlier_formats_had_it() {
    let mut firsts = Vec::new();
    for (stage, paid) in Stage::ALL.into_iter().flat_map(|stage| [(stage, false), (stage, true)]) {
        let (mut bytes, money) = (Vec::new(), Money { stage, paid });
        record::write_transaction(&Transaction { money, ..settled() }, &mut bytes);
        assert_eq!(record::read_transaction(&bytes, &mut Arc::new).unwrap().money, money);
        firsts.push(bytes[0]);
        let read = |first| {
            bytes[0] = first;
            record::read_transaction(&bytes, &mut Arc::new).map(|transaction| transaction.money)
        };
        let earlier = [0, 1, 255].map(read);
        assert_eq!(earlier[..2], [Ok(Money::default()), Ok(Money { stage: Stage::Paid, paid: true })]);
        assert!(earlier[2].is_err());
    }
    firsts.sort_unstable();
    firsts.dedup();
    assert_eq!(firsts.len(), 2 * Stage::ALL.len());
}

#[test]
fn every_line_is_read_as_it_was_written() {
    let arrived = Arrived {
        decision: Decision::Conflict,
        reference: "tr_1".into(),
        provider: "mollie",
        state: Some(Stated::Refunded),
        source: Some(Ipv6Addr::LOCALHOST.into()),
        why: "it is so".into(),
    };
    let ended = |status, why: Option<&str>| What::Ended { outcome: Outcome::NotSent, status, why: why.map(Into::into) };
    let whats = [
        What::Arrived(Arrived { source: None, state: None, ..arrived.clone() }),
        What::Arrived(arrived),
        What::Moved(Phase::Review { since: T0, reason: Reason::Stale }),
        ended(None, Some("refused")),
        ended(Some(StatusCode::BAD_GATEWAY), None),
        What::Trailing,
        What::Dropped,
        What::Confirmed(Some(true)),
        What::Confirmed(Some(false)),
        What::Confirmed(None),
        What::Acted { deed: Deed::Discard, who: "Ada".into(), why: "twice".into() },
    ];
    let line = |what| Line { at: T0, transaction: key("a"), delivery: Some(LeaseId(1)), attempt: 3, what };
    let lines: Vec<Line> = whats.into_iter().map(line).collect();
    let mut bytes = Vec::new();
    record::write_lines(7, lines.iter(), &mut bytes);
    assert_eq!(record::read_lines(&bytes), Ok((7, lines)));
}

proptest! {
    #[test]
    fn what_is_no_record_is_refused_and_never_panics(bytes: Vec<u8>, cut in 0_usize..400, flip in 0_usize..400) {
        _ = record::read_transaction(&bytes, &mut Arc::new);
        _ = record::read_policy(&bytes);
        _ = record::read_lease(&bytes);
        _ = record::read_remembered(&bytes);
        _ = record::read_billed(&bytes);
        _ = record::read_lines(&bytes);
        let mut bytes = Vec::new();
        record::write_delivery(&delivery(1, "a", Phase::Queued), key("p"), &mut bytes);
        let read = |bytes: &[u8]| record::read_delivery(LeaseId(1), bytes, |_| Some(Arc::new(Policy::default())));
        if cut < bytes.len() {
            prop_assert!(read(&bytes[..cut]).is_err());
        }
        let at = flip % bytes.len();
        bytes[at] ^= 0xff;
        _ = read(&bytes);
    }
}
