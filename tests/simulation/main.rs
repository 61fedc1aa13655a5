//! Whole days at the gate in virtual time, from a seed: callbacks, twins, payers, callers that hang up, and an app that
//! is slow, refuses, breaks off, or answers too late and books all the same.
//!
//! `SEED=7 cargo test --test simulation` plays one schedule again; `SEEDS=20000` plays more of them. In `lives` the same days
//! are played over a disk, with a gate that dies and is started again.

#![expect(clippy::unwrap_used, reason = "what the test itself builds is right, or the test is wrong")]

mod guards;
mod lives;
mod money;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    env,
    net::{IpAddr, Ipv4Addr},
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, ready},
    time::Duration,
};

use self::lives::Life;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use oncegate::{
    callback::{Alias, Answer, Channel, Event, Key, Signature, State},
    dispatch::{self, App, Dispatch, SendError, StepError, breaker},
    intake::{Intake, Received, Reply, reading::Rulebook},
    provider::{
        contract::{Ack, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised},
        extract::Dialect,
        generic::GENERIC,
        midtrans::MIDTRANS,
        mollie::MOLLIE,
    },
    rule::{Choices, Head, Learn, Matcher, ProviderChoice, Rule, Rules, path::Template},
    store::{
        CommitError, Counts, Due, Lines, Store, StoreError, Want,
        memory::{self, Memory},
    },
    telemetry::Metrics,
    time::{SteadyClock, Timestamp},
    transaction::{
        effect::{Act, Books, Change, Input, Transition, View},
        history::{Deed, Line},
        lock::LeaseId,
        policy::{AnswerBy, LockBy, OnUnknown, Order, Policy, Retry},
        state::{Delivery, Phase, StoredRequest},
    },
};
use tokio::{
    sync::{RwLock, watch},
    time::{Instant, Sleep, advance, sleep, timeout},
};

/// How many schedules a plain `cargo test` plays.
const SCHEDULES: u64 = 2000;
/// Others in which something was wrong once. They tell of that only as long as days are drawn as they were then.
const REMEMBERED: [u64; 1] = [4735];
const MOST_PAYMENTS: u64 = 5;
const BROWSERS: usize = 2;
/// Nobody has to wait longer than this for his answer, nor for the end of all.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);
/// The first byte goes out a little after the commit that says so, and the store takes its time.
const SLACK: Duration = Duration::from_millis(900);

#[test]
fn whatever_comes_in_whatever_order_nothing_overlaps_repeats_is_swallowed_or_left() {
    let told = play_all(SCHEDULES, play);
    if let Some(told) = told {
        assert!(told.every_sort_occurs(), "the schedules no longer meet every sort of thing: {told:?}");
    }
}

/// Plays so many schedules, or what the caller says; tells what they met, unless it was a single one.
fn play_all<P: Future<Output = (Vec<String>, Told)>>(plain: u64, play: impl Fn(u64) -> P) -> Option<Told> {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let seeds: Vec<u64> = match (number("SEED"), number("SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (0..count.unwrap_or(plain)).chain(REMEMBERED).collect(),
    };
    let mut told = Told::default();
    for seed in seeds {
        let (faults, met) = play_one(seed, &play);
        if !faults.is_empty() {
            panic!("SEED={seed} cargo test --test simulation\n{}", faults.join("\n"));
        }
        told.add(&met);
    }
    eprintln!("{told:?}");
    number("SEED").is_none().then_some(told)
}

/// Plays one schedule: what went wrong, and what it met.
fn play_one<P: Future<Output = (Vec<String>, Told)>>(seed: u64, play: impl Fn(u64) -> P) -> (Vec<String>, Told) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    std::panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(play(seed)))).unwrap_or_else(|panicked| {
        eprintln!("SEED={seed} cargo test --test simulation");
        std::panic::resume_unwind(panicked)
    })
}

/// What the schedules met, so that a simulation in which nothing happens is noticed.
#[derive(Debug, Default)]
struct Told {
    forwards: usize,
    decisions: HashMap<String, usize>,
    unknown: usize,
    confirmed: usize,
    reviews: usize,
    acts: [usize; 3],
    refused: usize,
    learned: usize,
    late: usize,
    acknowledged: usize,
    kept_back: usize,
    longest: Duration,
    outages: lives::Met,
}

impl Told {
    fn add(&mut self, other: &Self) {
        self.forwards += other.forwards;
        self.unknown += other.unknown;
        self.confirmed += other.confirmed;
        self.reviews += other.reviews;
        self.refused += other.refused;
        self.learned += other.learned;
        self.late += other.late;
        self.acknowledged += other.acknowledged;
        self.kept_back += other.kept_back;
        self.acts.iter_mut().zip(other.acts).for_each(|(all, one)| *all += one);
        self.longest = self.longest.max(other.longest);
        self.outages.add(&other.outages);
        other.decisions.iter().for_each(|(what, count)| *self.decisions.entry(what.clone()).or_default() += count);
    }

    fn every_sort_occurs(&self) -> bool {
        let decisions = ["first", "joined", "replayed", "new_state", "stale", "second_payment"];
        let people = self.acts.iter().all(|count| *count > 0) && self.refused > 0;
        self.unknown > 0
            && self.confirmed > 0
            && self.reviews > 0
            && people
            && self.learned > 0
            && self.late > 0
            && self.acknowledged > 0
            && self.kept_back > 0
            && decisions.iter().all(|what| self.decisions.contains_key(*what))
    }
}

/// SplitMix64: the same seed, the same day.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len() as u64) as usize]
    }

    fn millis(&mut self, limit: u64) -> Duration {
        Duration::from_millis(self.below(limit))
    }
}

// ------------------------------------------------------------------------------------------------ the app

/// What a request is about, as the test knows it; the gate has to find out.
#[derive(Clone, Debug)]
struct Tag {
    serial: usize,
    channel: Channel,
    payments: Vec<u64>,
    /// Whether it carries a name of the kind that returns carry.
    joined: bool,
    /// Whether it carries a name of the kind that only webhooks carry, or may have it from a checkout.
    learned: bool,
    /// What makes its events the same as others, and whether that holds for the window only.
    identities: Vec<(String, bool)>,
}

#[derive(Debug)]
struct Inside {
    tag: Tag,
    /// When the gate need not keep others out any more; `None` while it is at work and has not been lost sight of.
    until: Option<Instant>,
    /// How long it works on when nobody listens any more.
    at_work: Duration,
    placed: bool,
}

#[derive(Clone, Copy)]
struct News {
    start: Instant,
    accepted: Instant,
    in_batch: bool,
}

#[derive(Debug)]
struct Forward {
    serial: usize,
    identities: Vec<(String, bool)>,
    start: Instant,
    accepted: bool,
    /// Whether the app has it in its books.
    booked: bool,
}

/// A payer's browser, which may have several payments under way.
struct Browser {
    /// The value of its session; each answer sets another.
    session: Mutex<String>,
    /// Checkouts may overlap each other, pages nothing.
    clicks: RwLock<()>,
}

impl Browser {
    /// One that has been on a page.
    fn new(number: usize) -> Self {
        Self { session: Mutex::new(format!("browser-{number}")), clicks: RwLock::default() }
    }
}

/// The app and all that is known of the day.
struct World {
    /// What is known only of a day on which the power fails, and on which providers tell until they are acknowledged.
    outages: Option<lives::Outages>,
    chance: Mutex<Chance>,
    tags: Mutex<Vec<Tag>>,
    inside: Mutex<Vec<Inside>>,
    forwards: Mutex<Vec<Forward>>,
    /// The delivery by which each identity was last accepted as something new.
    news: Mutex<HashMap<String, News>>,
    /// When each request came.
    came: Mutex<HashMap<usize, Instant>>,
    faults: Mutex<Vec<String>>,
    unknown: Mutex<usize>,
    /// How often the app's books had what nobody knew that it got.
    confirmed: Mutex<usize>,
    /// Of what the app's books have said that they do not have it.
    missing: Mutex<HashSet<String>>,
    /// How often something began to wait for a person.
    reviews: Mutex<usize>,
    /// The deliveries that were written, for people who act out of turn.
    written: Mutex<Vec<LeaseId>>,
    /// What a person had or decided about: nobody can say what the app knows of it.
    in_hand: Mutex<HashSet<String>>,
    /// What has paid which order.
    orders: Mutex<money::Orders>,
    /// What a person settled.
    settled: Mutex<HashSet<String>>,
    /// How often people did what, and how often they could not.
    acts: Mutex<([usize; 3], usize)>,
    closing: Mutex<bool>,
    browsers: Vec<Browser>,
    /// Of each payment, whether its payer has been sent to the provider.
    begun: Vec<watch::Sender<bool>>,
    policy: Policy,
    places: usize,
    /// In a hundred tries, how many go wrong.
    trouble: u64,
    /// Whether the store lets others in between.
    jitter: bool,
}

impl World {
    fn chance(&self) -> MutexGuard<'_, Chance> {
        self.chance.lock().unwrap()
    }

    /// The request that a delivery carries.
    fn serial(&self, delivery: &Delivery) -> usize {
        delivery.letter.request.headers["x-serial"].to_str().unwrap().parse().unwrap()
    }

    /// What a delivery is about, as the test knows it.
    fn identities(&self, delivery: &Delivery) -> Vec<String> {
        let serial = self.serial(delivery);
        let tags = self.tags.lock().unwrap();
        tags[serial].identities.iter().map(|(identity, _)| identity.clone()).collect()
    }

    fn fault(&self, what: String) {
        self.faults.lock().unwrap().push(what);
    }

    /// What went to the app, for whoever looks into a fault.
    fn the_day(&self, started: Instant) -> Vec<String> {
        let came = self.came.lock().unwrap();
        let line = |forward: &Forward| {
            let (came, start) = (came[&forward.serial] - started, forward.start - started);
            let Forward { serial, identities, accepted, .. } = forward;
            format!("{start:?}: {serial}, came at {came:?}, {identities:?}, accepted: {accepted}")
        };
        let mut lines: Vec<String> = self.forwards.lock().unwrap().iter().map(line).collect();
        lines.push(format!(
            "{:?}, {} places, trouble {}, jitter {}",
            self.policy, self.places, self.trouble, self.jitter
        ));
        lines
    }

    fn conflict(&self, a: &Tag, b: &Tag) -> bool {
        self.policy.lock == LockBy::Upstream
            || a.payments.iter().any(|payment| b.payments.contains(payment))
            || (a.channel != b.channel && !(a.joined && b.joined) && !(a.learned && b.learned))
    }

    fn enter(self: &Arc<Self>, tag: Tag, life: &Arc<Life>) -> Visit {
        let now = Instant::now();
        let mut inside = self.inside.lock().unwrap();
        let is_there = |other: &&Inside| other.until.is_none_or(|until| until > now);
        for other in inside.iter().filter(is_there).filter(|other| self.conflict(&tag, &other.tag)) {
            self.fault(format!("{tag:?} comes in while {other:?} is there"));
        }
        let placed = inside.iter().filter(is_there).filter(|other| other.placed).count();
        if placed >= self.places {
            self.fault(format!("{tag:?} has no place: {placed} of {} are taken", self.places));
        }
        let mut forwards = self.forwards.lock().unwrap();
        let (serial, identities) = (tag.serial, tag.identities.clone());
        forwards.push(Forward { serial, identities, start: now, accepted: false, booked: false });
        let at_work = self.chance().millis(12_000);
        inside.push(Inside { tag, until: None, at_work, placed: true });
        let (at, forward) = (inside.len() - 1, forwards.len() - 1);
        Visit { world: Arc::clone(self), life: Arc::clone(life), at, forward, over: false }
    }

    /// An accepted delivery has to bring something that no accepted one has brought before.
    fn accepted(&self, forward: usize) {
        let mut forwards = self.forwards.lock().unwrap();
        let forward = &mut forwards[forward];
        (forward.accepted, forward.booked) = (true, true);
        let came = self.came.lock().unwrap()[&forward.serial];
        let in_batch = forward.identities.len() > 1;
        let (mut news, mut is_new) = (self.news.lock().unwrap(), forward.identities.is_empty());
        for (identity, windowed) in &forward.identities {
            let window = self.policy.collapse_window;
            match news.get(identity) {
                // An event that is on its way may ride in a batch too, which may overtake it.
                Some(before) if (in_batch || before.in_batch) && before.accepted >= came => {
                    is_new = true;
                    continue;
                }
                // The gate has said that it does not know what came of it.
                Some(_) if self.is_called_unknown(identity) => {}
                Some(_) if !windowed => continue,
                // One that tells nothing and rode along is still its own delivery's; should that come to nothing, it is
                // forgotten.
                Some(before) if before.in_batch && self.trouble > 0 => {}
                // What a person settled keeps the window of a try that nobody accepted.
                Some(_) if self.in_hand.lock().unwrap().contains(identity) => {}
                // Riding in a batch starts no window, or one of its own; but who came after the first byte needs one more.
                Some(before) if (in_batch || before.in_batch) && came >= before.start => {}
                Some(before) if forward.start + SLACK < before.start + window => continue,
                // At the very end of the window it may be one or the other.
                Some(before) if forward.start < before.start + window => {
                    is_new = true;
                    continue;
                }
                _ => {}
            }
            is_new = true;
            self.is_known_again(identity);
            news.insert(identity.clone(), News { start: forward.start, accepted: Instant::now(), in_batch });
        }
        if !is_new {
            self.fault(format!("delivered twice: {forward:?}, came at {came:?}"));
        }
    }
}

/// One request in the app.
struct Visit {
    world: Arc<World>,
    life: Arc<Life>,
    at: usize,
    forward: usize,
    over: bool,
}

impl Visit {
    fn ends(&mut self, until: Instant, placed: bool) {
        self.over = true;
        let entry = &mut self.world.inside.lock().unwrap()[self.at];
        // Else the power was gone before.
        if entry.until.is_none() {
            (entry.until, entry.placed) = (Some(until), placed);
        }
    }

    fn is_return(&self) -> bool {
        self.world.inside.lock().unwrap()[self.at].tag.channel == Channel::Return
    }

    /// The whole answer is out.
    fn answered(&mut self, status: StatusCode) {
        let channel = self.world.inside.lock().unwrap()[self.at].tag.channel;
        let unclear = matches!(status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT);
        match channel {
            Channel::Webhook if unclear => self.lost(),
            Channel::Webhook if !status.is_success() => self.ends(Instant::now(), false),
            Channel::Webhook => {
                self.ends(Instant::now() + self.world.policy.linger, false);
                self.world.accepted(self.forward);
            }
            Channel::Return => self.ends(Instant::now() + self.world.policy.linger, false),
        }
    }

    /// The gate lost sight of it: it has to reckon with it until it ends, or for `quiet`.
    fn lost(&mut self) {
        *self.world.unknown.lock().unwrap() += 1;
        // It may have done all of it, and only its answer is lost.
        let booked = self.world.chance().one_in(2);
        self.world.forwards.lock().unwrap()[self.forward].booked |= booked;
        let at_work = self.world.inside.lock().unwrap()[self.at].at_work;
        self.ends(Instant::now() + at_work.min(self.world.policy.quiet), true);
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if !self.over {
            self.lost();
        }
    }
}

/// The app as one gate reaches it.
struct Fake {
    world: Arc<World>,
    life: Arc<Life>,
}

/// How a try goes.
#[derive(Clone, Copy, Debug)]
enum Mood {
    Fine,
    Slow,
    Error,
    MiddleBox,
    Garbage,
    Reset,
    Unwritten,
    TooLate,
    CutBody,
    StuckBody,
}

impl App for Fake {
    type Connection = ();
    type Body = Pieces;

    async fn connect(&self) -> Result<(), String> {
        let (refuses, takes) = {
            let mut chance = self.world.chance();
            (chance.below(400) < self.world.trouble, chance.millis(20))
        };
        sleep(takes).await;
        self.life.step().await;
        if refuses { Err("connection refused".to_owned()) } else { Ok(()) }
    }

    fn at_hand(&self) -> Option<()> {
        (self.world.chance().below(2) == 0).then_some(())
    }

    async fn send(&self, (): (), request: &StoredRequest, limit: Duration) -> Result<Response<Pieces>, SendError> {
        tokio::time::timeout(limit, self.answer(request)).await.unwrap_or(Err(SendError::TooSlow))
    }
}

impl Fake {
    async fn answer(&self, request: &StoredRequest) -> Result<Response<Pieces>, SendError> {
        let serial: usize = request.headers["x-serial"].to_str().unwrap().parse().unwrap();
        let (mood, quick, slow) = {
            let mut chance = self.world.chance();
            let moods = [
                Mood::Slow,
                Mood::Error,
                Mood::MiddleBox,
                Mood::Garbage,
                Mood::Reset,
                Mood::Unwritten,
                Mood::TooLate,
                Mood::CutBody,
                Mood::StuckBody,
            ];
            let mood = if chance.below(100) < self.world.trouble { chance.of(&moods) } else { Mood::Fine };
            (mood, chance.millis(300), chance.millis(4000))
        };
        if matches!(mood, Mood::Unwritten) {
            return Err(SendError::NotSent("found dead, nothing was written".to_owned()));
        }
        let tag = self.world.tags.lock().unwrap()[serial].clone();
        self.life.step().await;
        let mut visit = self.world.enter(tag, &self.life);
        self.life.step().await;
        match mood {
            Mood::Slow => sleep(slow).await,
            Mood::TooLate => sleep(self.world.policy.timeout + slow).await,
            _ => sleep(quick).await,
        }
        self.life.step().await;
        let (status, body) = match mood {
            Mood::Reset => {
                visit.lost();
                return Err(SendError::Unknown("connection reset".to_owned()));
            }
            Mood::Error => (StatusCode::INTERNAL_SERVER_ERROR, "oops"),
            Mood::MiddleBox => (StatusCode::BAD_GATEWAY, "bad gateway"),
            Mood::Garbage => (StatusCode::OK, "\0<<not what you think"),
            _ => (StatusCode::OK, "[]"),
        };
        let mut frames = VecDeque::from([(Duration::ZERO, Ok(Bytes::from_static(body.as_bytes())))]);
        match mood {
            Mood::CutBody => frames.push_back((quick, Err("cut".to_owned()))),
            Mood::StuckBody => frames.push_back((self.world.policy.timeout * 2, Ok(Bytes::from_static(b"late")))),
            _ => frames.push_back((quick / 8, Ok(Bytes::from(serial.to_string())))),
        }
        if matches!(mood, Mood::StuckBody) && visit.is_return() {
            // The browser gets the rest whenever it comes; the gate waits for it no longer than this.
            visit.ends(Instant::now() + self.world.policy.timeout + self.world.policy.quiet, true);
        }
        let mut response = Response::new(Pieces { status, frames, wait: None, visit });
        *response.status_mut() = status;
        response.headers_mut().insert("set-cookie", HeaderValue::from_str(&format!("s={serial}")).unwrap());
        Ok(response)
    }
}

/// An answer's body, piece by piece.
struct Pieces {
    status: StatusCode,
    frames: VecDeque<(Duration, Result<Bytes, String>)>,
    wait: Option<Pin<Box<Sleep>>>,
    visit: Visit,
}

impl Pieces {
    /// Counts only when a piece is begun, for who waits looks often.
    fn life_goes_on(&self) -> bool {
        if self.wait.is_some() { !self.visit.life.is_over() } else { self.visit.life.goes_on() }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = String;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, String>>> {
        let this = &mut *self;
        if !this.life_goes_on() {
            return Poll::Pending;
        }
        let Some((pause, _)) = this.frames.front() else {
            if !this.visit.over {
                this.visit.answered(this.status);
            }
            return Poll::Ready(None);
        };
        let wait = this.wait.get_or_insert_with(|| Box::pin(sleep(*pause)));
        ready!(wait.as_mut().poll(cx));
        this.wait = None;
        let piece = this.frames.pop_front().map(|(_, piece)| piece.map(Frame::data));
        if matches!(piece, Some(Err(_))) {
            this.visit.lost();
        }
        Poll::Ready(piece)
    }
}

// ------------------------------------------------------------------------------------------------ the store

/// An engine that lets others in between a look and a commit, as disks and threads do.
struct Shaky<S> {
    engine: S,
    world: Arc<World>,
    life: Arc<Life>,
}

impl<S: Store> Shaky<S> {
    async fn pause(&self) {
        self.life.step().await;
        // Whoever writes may look whether there is something to write.
        self.life.work.notify_one();
        if !self.world.jitter {
            return;
        }
        let (turns, rests) = {
            let mut chance = self.world.chance();
            let longest = chance.of(&[3, 3, 3, 200]);
            (chance.below(4), chance.one_in(12).then(|| chance.millis(longest)))
        };
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        if let Some(rest) = rests {
            sleep(rest).await;
        }
        self.life.work.notify_one();
    }

    /// What is about to be sent must have no earlier event of its payment before it that is to be tried again; whom it
    /// overtakes.
    async fn overtaken_by(&self, sent: &Delivery, now: Timestamp) -> Vec<String> {
        let in_order = sent.owed || self.world.policy.patience().is_some();
        if !in_order || !matches!(sent.phase, Phase::InFlight { .. }) {
            return Vec::new();
        }
        let view = self.engine.load(Want::Delivery(sent.id), now).await.unwrap_or_default();
        // What merely goes along in a batch has been in order before.
        let new = |key| {
            let claims = view.transactions.iter().filter(|(known, _)| *known == key).flat_map(|(_, t)| &t.claims);
            claims.into_iter().any(|claim| claim.is_pending_in(sent.id))
        };
        let shares = |other: &Delivery| {
            other
                .letter
                .transactions()
                .any(|theirs| new(theirs) && sent.letter.transactions().any(|ours| ours == theirs))
        };
        let waits = |other: &Delivery| match other.phase {
            Phase::Retrying { .. } => true,
            Phase::Held { .. } | Phase::Queued => other.attempts > 0,
            _ => false,
        };
        let overtaken = view.deliveries.iter().filter(|other| other.id < sent.id && waits(other) && shares(other));
        overtaken.map(|other| format!("{:?} overtakes {:?}", sent.letter.events, other)).collect()
    }
}

impl<S: Store> Store for Shaky<S> {
    async fn load(&self, want: Want<'_>, now: Timestamp) -> Result<View, StoreError> {
        self.pause().await;
        let view = self.engine.load(want, now).await;
        self.pause().await;
        view
    }

    async fn commit(&self, transition: Transition, now: Timestamp) -> Result<Vec<LeaseId>, CommitError> {
        self.pause().await;
        let put = transition.deliveries.iter().filter_map(|change| match change {
            Change::Put(delivery) => Some(delivery.clone()),
            Change::Remove(..) => None,
        });
        let put: Vec<_> = put.collect();
        let removed = transition.deliveries.iter().filter_map(|change| match change {
            Change::Put(_) => None,
            Change::Remove(id, _) => Some(*id),
        });
        let removed: Vec<_> = removed.collect();
        self.world.is_told(&put);
        let mut overtaken = Vec::new();
        for delivery in &put {
            overtaken.extend(self.overtaken_by(delivery, now).await);
        }
        let granted = self.engine.commit(transition, now).await;
        if granted.is_ok() {
            overtaken.into_iter().for_each(|fault| self.world.fault(fault));
            for delivery in put {
                self.world.is_taken_up(&delivery);
                self.world.written.lock().unwrap().push(delivery.id);
                if delivery.in_review().is_some() {
                    *self.world.reviews.lock().unwrap() += 1;
                    if self.world.is_shown(&delivery) {
                        self.world.in_hand.lock().unwrap().extend(self.world.identities(&delivery));
                    }
                }
            }
        }
        if granted.is_ok() {
            self.world.are_over(removed);
        }
        self.pause().await;
        granted
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<Due>, StoreError> {
        let due = self.engine.due(now, limit).await;
        self.pause().await;
        due
    }

    async fn forget(&self, now: Timestamp, limit: usize) -> Result<bool, StoreError> {
        self.life.work.notify_one();
        self.engine.forget(now, limit).await
    }

    fn note(&self, lines: Vec<Line>) {
        self.engine.note(lines);
    }

    async fn history(&self, lines: Lines, after: u64, limit: usize) -> Result<Vec<(u64, Line)>, StoreError> {
        self.engine.history(lines, after, limit).await
    }

    async fn called(&self, reference: &str, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.engine.called(reference, limit).await
    }

    async fn reviews(&self, after: (Timestamp, LeaseId), limit: usize) -> Result<Vec<Delivery>, StoreError> {
        self.pause().await;
        self.engine.reviews(after, limit).await
    }

    fn counts(&self) -> Counts {
        self.engine.counts()
    }
}

// ------------------------------------------------------------------------------------------------ the gate

/// A provider whose callbacks carry several events: `reference:event:hash`, one a line; an empty part is not there.
static SEVERAL: Provider = Provider {
    name: "several",
    title: "Several",
    marks: &[],
    recognise: |_| false,
    // Nobody has its secret, so that what it tells is neither vouched for nor made up.
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Hmac],
        settings: &[],
        repeats: &[],
        ready: |_| Err("it has none"),
        check: |_, _, _| Signature::Absent,
    }),
    events: |reader, _| {
        let text = std::str::from_utf8(reader.view().body).map_err(|error| Unrecognised(error.to_string()))?;
        let part = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let event = |line: &str| {
            let mut parts = line.split(':');
            let mut next = || parts.next().and_then(part);
            let (reference, event_id, hash) = (next().unwrap_or_default(), next(), next());
            let alias = |value| Alias { kind: Arc::from("payment_hash"), value };
            // What has a name tells of a payment, of which the app's books know.
            let state = event_id.is_some().then_some(State::Paid);
            Event { reference, event_id, state, aliases: hash.map(alias).into_iter().collect(), ..Event::default() }
        };
        Ok(text.lines().map(event).collect())
    },
    event_ids: false,
    batches: false,
    inquiry: None,
    ack: Ack { status: StatusCode::OK, content_type: None, body: "[accepted]" },
    refusal: 401,
    paid_once: &[],
    moves: Moves::Undocumented,
    answer_limit: Duration::from_secs(10),
    retry_span: Duration::from_secs(3600),
    sources: &[],
};

fn rules(policy: &Policy) -> Rules {
    let rule = |path: &str, choices: Choices| Rule {
        matcher: Matcher { paths: vec![Template::parse(path, Dialect::Strict).unwrap()], ..Matcher::default() },
        choices: Choices { hold: Some(policy.hold), retention: Some(policy.retention), ..choices },
        ..Rule::default()
    };
    let webhook = |provider| Choices { provider: Some(ProviderChoice::Named(provider)), ..Choices::default() };
    let places = |text: &str| vec![text.parse().unwrap()];
    let generic = Choices {
        reference: Some(places("json:$.payment")),
        event_id: Some(places("json:$.event")),
        aliases: vec![(Arc::from("payment_hash"), places("json:$.hash"))],
        ..webhook(&GENERIC)
    };
    let of_orders = Choices { aliases: vec![(Arc::from("order"), places("json:$.order_id"))], ..webhook(&MIDTRANS) };
    let sessions = vec![(Arc::from("session"), vec![Arc::from("sid")])];
    let back = Choices {
        channel: Some(Channel::Return),
        aliases: vec![(Arc::from("payment_hash"), places("query:hash"))],
        learn: Learn { sessions: sessions.clone(), ..Learn::default() },
        ..Choices::default()
    };
    let address = vec!["location:https://mollie.test/{id} as tr_{id}".parse().unwrap()];
    let learn = Learn { names: vec![(Arc::from("reference:mollie"), address)], sessions };
    let rules = vec![
        rule("/mollie/{company}", webhook(&MOLLIE)),
        rule("/generic/{company}", generic),
        rule("/several/{company}", webhook(&SEVERAL)),
        rule("/midtrans/{company}", of_orders),
        rule("/return", back),
        rule("/shop/{page*}", Choices { learn, ..Choices::default() }),
    ];
    Rules::new(rules, policy.clone())
}

fn some_policy(chance: &mut Chance) -> Policy {
    let seconds = Duration::from_secs;
    let several = chance.one_in(3);
    Policy {
        lock: if chance.one_in(6) { LockBy::Upstream } else { LockBy::Names },
        hold: seconds(chance.of(&[0, 1, 2])),
        linger: if several { seconds(chance.of(&[1, 3])) } else { Duration::ZERO },
        collapse_window: seconds(chance.of(&[2, 10, 30])),
        retention: seconds(900),
        quiet: seconds(chance.of(&[4, 10])),
        return_wait: seconds(30),
        timeout: seconds(6),
        on_unknown: chance.of(&[
            OnUnknown::Resend,
            OnUnknown::Review,
            OnUnknown::Confirm,
            OnUnknown::ConfirmElseResend,
        ]),
        order: chance.of(&[Order::Passing, Order::Passing, Order::Strict]),
        review_retryable: seconds(chance.of(&[5, 3600])),
        retry: Retry { first: seconds(1), longest: seconds(8), attempts: chance.of(&[3, 6, 12]) },
        answer: if chance.one_in(6) { AnswerBy::Accept } else { AnswerBy::Upstream },
        answer_within: chance.of(&[None, None, Some(1), Some(4)]).map(seconds),
        ..Policy::default()
    }
}

/// One request of the day.
struct Call {
    at: Duration,
    uri: String,
    body: String,
    hangs_up: bool,
    /// The browser it comes from.
    browser: Option<usize>,
    tag: Tag,
}

/// What a payer does on the pages of the app.
#[derive(Clone, Copy)]
struct Click {
    at: Duration,
    browser: usize,
    /// What he pays, and whether the address to which he is sent can be read; `None` if he only looks.
    pays: Option<(u64, bool)>,
}

/// How a provider tells of a payment.
#[derive(Clone, Copy)]
enum Style {
    /// Mollie's form: only an id.
    Bare,
    /// An event id.
    Numbered,
    /// An event id, and the name by which returns are called.
    Joined,
    /// Several events at once, some of which have no id.
    Several,
    /// What has become of its money, signed; and its order may be paid twice.
    Money,
}

fn some_calls(chance: &mut Chance) -> (Vec<Call>, Vec<Click>) {
    let payments = 1 + chance.below(MOST_PAYMENTS);
    let span = chance.of(&[500, 4000, 40_000]);
    let count = 2 + chance.below(36);
    let styles: Vec<Style> = (0..payments)
        .map(|_| chance.of(&[Style::Bare, Style::Bare, Style::Numbered, Style::Joined, Style::Several, Style::Money]))
        .collect();
    // Payers who have come by the app's own pages; the others have begun elsewhere, and bring nothing.
    let browsers: Vec<Option<usize>> =
        (0..payments).map(|_| (!chance.one_in(3)).then(|| chance.below(BROWSERS as u64) as usize)).collect();
    let mut clicks = Vec::new();
    for (payment, browser) in browsers.iter().enumerate() {
        let Some(browser) = *browser else { continue };
        let mut click = |pays| clicks.push(Click { at: chance.millis(span / 2), browser, pays });
        if matches!(styles[payment], Style::Bare) {
            click(Some((payment as u64, payment % 5 != 4)));
        }
        click(None);
    }
    let mut calls = Vec::new();
    for serial in 0..count as usize {
        let payment = chance.below(payments);
        let at = chance.millis(span);
        let hangs_up = chance.one_in(8);
        let style = styles[payment as usize];
        let call = |uri: String, body: String, tag: Tag| Call { at, uri, body, hangs_up, browser: None, tag };
        let learned = matches!(style, Style::Bare);
        let tag =
            |channel, joined, identities| Tag { serial, channel, payments: vec![payment], joined, learned, identities };
        if chance.one_in(4) {
            let named = !chance.one_in(8);
            let query = if named { format!("?hash=h{payment}") } else { String::new() };
            let tag = tag(Channel::Return, named, Vec::new());
            // A return that names nothing belongs to a payment that nobody can know.
            let browser = browsers[payment as usize].filter(|_| named);
            let tag = Tag { learned: browser.is_some(), ..tag };
            let tag = if named { tag } else { Tag { payments: Vec::new(), ..tag } };
            calls.push(Call { browser, ..call(format!("/return{query}"), String::new(), tag) });
            continue;
        }
        let event = chance.below(3);
        calls.push(match style {
            Style::Bare => call(
                "/mollie/acme".into(),
                format!("id=tr_{payment}"),
                tag(Channel::Webhook, false, vec![(format!("tr_{payment}"), true)]),
            ),
            Style::Numbered | Style::Joined => {
                let joined = matches!(style, Style::Joined);
                let hash = if joined { format!(r#","hash":"h{payment}""#) } else { String::new() };
                let body = format!(r#"{{"payment":"g{payment}","event":"e{event}"{hash}}}"#);
                let identity = (format!("g{payment}/e{event}"), false);
                call("/generic/acme".into(), body, tag(Channel::Webhook, joined, vec![identity]))
            }
            Style::Several => several(chance, serial, &styles, at, hangs_up),
            Style::Money => {
                let (body, identity) = money::call(chance, payment);
                call("/midtrans/acme".into(), body, tag(Channel::Webhook, false, vec![identity]))
            }
        });
    }
    (calls, clicks)
}

fn several(chance: &mut Chance, serial: usize, styles: &[Style], at: Duration, hangs_up: bool) -> Call {
    let with: Vec<u64> = (0..styles.len() as u64).filter(|p| matches!(styles[*p as usize], Style::Several)).collect();
    let (mut body, mut payments, mut identities) = (String::new(), Vec::new(), Vec::new());
    for _ in 0..=chance.below(3) {
        let payment = chance.of(&with);
        let event = if chance.one_in(3) { String::new() } else { format!("e{}", chance.below(4)) };
        let identity = (format!("s{payment}/{event}"), event.is_empty());
        if identities.contains(&identity) {
            continue;
        }
        body += &format!("s{payment}:{event}:\n");
        payments.push(payment);
        identities.push(identity);
    }
    let tag = Tag { serial, channel: Channel::Webhook, payments, joined: false, learned: false, identities };
    Call { at, uri: "/several/acme".into(), body, hangs_up, browser: None, tag }
}

/// What a caller heard.
struct Heard {
    tag: Tag,
    came: Instant,
    status: StatusCode,
    cookie: Option<String>,
    decision: Option<String>,
    body: Result<Bytes, String>,
}

/// A gate that stands.
struct Gate<S: Store> {
    dispatch: Arc<Dispatch<Shaky<S>, Fake>>,
    intake: Arc<Intake<Shaky<S>, Fake>>,
    life: Arc<Life>,
}

impl<S: Store> Clone for Gate<S> {
    fn clone(&self) -> Self {
        Self { dispatch: Arc::clone(&self.dispatch), intake: Arc::clone(&self.intake), life: Arc::clone(&self.life) }
    }
}

/// The gates of a day, one after the other: the one that stands, where one does.
type Standing<S> = watch::Receiver<Option<Gate<S>>>;

/// The gate that stands, as soon as one does.
async fn stands<S: Store>(standing: &mut Standing<S>) -> Gate<S> {
    standing.wait_for(Option::is_some).await.unwrap().clone().unwrap()
}

/// What does not change when one gate follows another.
struct Setting {
    world: Arc<World>,
    metrics: Arc<Metrics>,
    options: dispatch::Options,
}

impl Setting {
    /// A gate over this store, with its timers.
    fn gate<S: Store>(&self, engine: S, clock: SteadyClock, life: Arc<Life>) -> Gate<S> {
        let store = Shaky { engine, world: Arc::clone(&self.world), life: Arc::clone(&life) };
        let app = Fake { world: Arc::clone(&self.world), life: Arc::clone(&life) };
        let dispatch = Dispatch::new(store, app, clock, Arc::clone(&self.metrics), self.options);
        tokio::spawn(Arc::clone(&dispatch).run_timers());
        tokio::spawn(keep_books(Arc::clone(&dispatch), Arc::clone(&self.world), Arc::clone(&life)));
        Gate { intake: Intake::new(Arc::clone(&dispatch)), dispatch, life }
    }
}

/// The app's own books, of which it is asked whether they have what nobody knows that the app got.
async fn keep_books<S: Store>(dispatch: Arc<Dispatch<Shaky<S>, Fake>>, world: Arc<World>, life: Arc<Life>) {
    let mut asks = dispatch.to_ask().unwrap();
    while let Some(id) = asks.recv().await {
        let (dispatch, world, life) = (Arc::clone(&dispatch), Arc::clone(&world), Arc::clone(&life));
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = life.over() => {}
                () = look_up(&dispatch, &world, id) => {}
            }
        });
    }
}

async fn look_up<S: Store>(dispatch: &Arc<Dispatch<Shaky<S>, Fake>>, world: &World, id: LeaseId) {
    let view = dispatch.store.engine.load(Want::Delivery(id), dispatch.clock_now()).await.unwrap_or_default();
    let Some(delivery) = view.delivery(id).filter(|delivery| matches!(delivery.phase, Phase::Confirming { .. })) else {
        return;
    };
    let (identities, attempt) = (world.identities(delivery), delivery.attempts);
    world.rest(3000).await;
    let is_booked = |identity: &String| {
        let forwards = world.forwards.lock().unwrap();
        forwards.iter().any(|forward| forward.booked && forward.identities.iter().any(|(known, _)| known == identity))
    };
    let mood = world.chance().below(16);
    let books = match mood {
        0..4 => Books::Silent,
        4 => Books::Closed,
        _ if identities.iter().all(is_booked) => {
            Books::Booked(Arc::new(Answer { status: StatusCode::OK, content_type: None, body: None }))
        }
        _ if !identities.iter().any(is_booked) => Books::NotBooked,
        _ => Books::Closed,
    };
    // Before the step, after which it may be under way at once; who goes by these has not been sent meanwhile.
    if books == Books::NotBooked {
        world.missing.lock().unwrap().extend(identities.clone());
    }
    let booked = matches!(books, Books::Booked(_));
    world.rest(3000).await;
    match dispatch.step(id, &Input::Confirmed { attempt, books }).await {
        Ok(_) if booked => {
            *world.confirmed.lock().unwrap() += 1;
            let (start, in_batch) = (Instant::now(), identities.len() > 1);
            for identity in identities {
                world.is_known_again(&identity);
                world.news.lock().unwrap().insert(identity, News { start, accepted: start, in_batch });
            }
        }
        Ok(_) | Err(StepError::Refused(_)) => {}
        Err(StepError::Commit(CommitError::Store(_))) if world.outages.is_some() => {}
        Err(error) => world.fault(format!("what the books say of {id:?} could not be written down: {error}")),
    }
}

/// When days begin.
const MORNING: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// One day, of which nothing has happened yet.
fn some_day(chance: &mut Chance, outages: Option<lives::Outages>) -> (Setting, Vec<Call>, Vec<Click>) {
    let policy = some_policy(chance);
    let (calls, clicks) = some_calls(chance);
    let world = World {
        outages,
        tags: Mutex::new(calls.iter().map(|call| call.tag.clone()).collect()),
        inside: Mutex::default(),
        forwards: Mutex::default(),
        news: Mutex::default(),
        came: Mutex::default(),
        faults: Mutex::default(),
        unknown: Mutex::default(),
        confirmed: Mutex::default(),
        missing: Mutex::default(),
        reviews: Mutex::default(),
        written: Mutex::default(),
        in_hand: Mutex::default(),
        orders: Mutex::default(),
        settled: Mutex::default(),
        acts: Mutex::default(),
        closing: Mutex::default(),
        browsers: (0..BROWSERS).map(Browser::new).collect(),
        begun: (0..MOST_PAYMENTS).map(|_| watch::Sender::new(false)).collect(),
        places: chance.of(&[1, 2, 4, 8, 1000]),
        trouble: chance.of(&[0, 10, 50]),
        jitter: chance.one_in(2),
        policy,
        chance: Mutex::new(Chance(chance.next())),
    };
    // An app that seems to be down is left alone, sooner or later.
    let breaker = breaker::Options { failures: chance.of(&[0, 1, 2, 5]), ..breaker::Options::default() };
    let options = dispatch::Options { breaker, ..dispatch::Options::default() };
    (Setting { world: Arc::new(world), metrics: Arc::new(Metrics::new()), options }, calls, clicks)
}

async fn play(seed: u64) -> (Vec<String>, Told) {
    let (setting, calls, clicks) = some_day(&mut Chance(seed), None);
    let memory = Memory::new(memory::Options { places: setting.world.places, ..memory::Options::default() });
    let gate = setting.gate(memory, SteadyClock::starting_at(MORNING), Life::endless());
    let (_gates, standing) = watch::channel(Some(gate));
    live_through(&setting, standing, calls, clicks).await
}

/// The day, from the first call to the end of all that came of it.
async fn live_through<S: Store>(
    Setting { world, metrics, .. }: &Setting,
    mut standing: Standing<S>,
    calls: Vec<Call>,
    clicks: Vec<Click>,
) -> (Vec<String>, Told) {
    // Where later events wait for a person, or providers do until they are acknowledged, there has to be one.
    let is_missed = world.outages.is_some() && !world.policy.on_unknown.resends();
    if world.policy.order == Order::Strict || is_missed || world.chance().one_in(4) {
        for _ in 0..2 {
            tokio::spawn(person(standing.clone(), Arc::clone(world)));
        }
    }
    let book = Arc::new(Rulebook::new(rules(&world.policy), money::keyrings(), "http://app"));
    let started = Instant::now();
    let begins = |payment: u64| clicks.iter().any(|click| click.pays.is_some_and(|(paid, _)| paid == payment));
    for (payment, begun) in world.begun.iter().enumerate() {
        begun.send_replace(!begins(payment as u64));
    }
    for click in clicks {
        tokio::spawn(one_click(click, Arc::clone(&book), standing.clone(), Arc::clone(world)));
    }
    let callers: Vec<_> = calls
        .into_iter()
        .map(|call| tokio::spawn(one_call(call, Arc::clone(&book), standing.clone(), Arc::clone(world))))
        .collect();
    let mut told = Told::default();
    let mut all = Vec::new();
    for caller in callers {
        match timeout(PATIENCE, caller).await {
            Ok(Ok(heard)) => all.extend(heard),
            Ok(Err(panicked)) => world.fault(format!("a caller's task ended early: {panicked}")),
            Err(_) => world.fault("somebody starves".to_owned()),
        }
    }
    told.longest = started.elapsed();
    if let Some(outages) = &world.outages {
        let soon = world.chance().millis(60_000);
        outages.come_to_an_end(soon).await;
    }
    drain(&stands(&mut standing).await.dispatch, world).await;
    for heard in &all {
        check(heard, world);
        if let Some(decision) = &heard.decision {
            *told.decisions.entry(decision.clone()).or_default() += 1;
        }
    }
    world.counts_second_payments();
    told.reviews = *world.reviews.lock().unwrap();
    (told.acts, told.refused) = *world.acts.lock().unwrap();
    let page = metrics.render();
    let figure = |name: &str| page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<usize>().ok());
    told.learned = figure("oncegate_joined_total{by=\"learned\"}").unwrap();
    told.acknowledged = figure("oncegate_acknowledged_total{by=\"accept\"}").unwrap()
        + figure("oncegate_acknowledged_total{by=\"answer_within\"}").unwrap();
    told.kept_back = figure("oncegate_upstream_kept_back_total").unwrap();
    told.late = figure("oncegate_late_link_total").unwrap();
    told.forwards = world.forwards.lock().unwrap().len();
    told.unknown = *world.unknown.lock().unwrap();
    told.confirmed = *world.confirmed.lock().unwrap();
    if let Some(outages) = &world.outages {
        told.outages = outages.met();
    }
    let mut faults = std::mem::take(&mut *world.faults.lock().unwrap());
    if !faults.is_empty() {
        faults.extend(world.the_day(started));
    }
    (faults, told)
}

/// What is heard of what a person has settled.
const SETTLED: &[u8] = b"settled by a person";

/// Looks in now and then, and decides about all that waits; meanwhile meddles with what does not wait for him.
async fn person<S: Store>(mut standing: Standing<S>, world: Arc<World>) {
    loop {
        let pause = world.chance().millis(20_000);
        sleep(pause).await;
        let Gate { dispatch, life, .. } = stands(&mut standing).await;
        // Who speaks to a gate that dies hears nothing any more, and comes again.
        tokio::select! {
            biased;
            () = life.over() => {}
            done = look_in(&dispatch, &world) => if done { return },
        }
    }
}

/// Whether there is nothing left to do.
async fn look_in<S: Store>(dispatch: &Arc<Dispatch<Shaky<S>, Fake>>, world: &World) -> bool {
    let counts = dispatch.store.counts();
    // With `order = "strict"` what he has resent may stand behind what came back to him.
    if *world.closing.lock().unwrap() && counts.deliveries == counts.review {
        return true;
    }
    let waiting = dispatch.store.reviews((Timestamp::EPOCH, LeaseId(0)), 100).await.unwrap_or_default();
    for entry in &waiting {
        act(dispatch, world, entry.id, Some(entry.version)).await;
    }
    let meddled = {
        let (written, mut chance) = (world.written.lock().unwrap(), world.chance());
        if written.is_empty() || !chance.one_in(3) { None } else { Some(chance.of(&written)) }
    };
    if let Some(id) = meddled {
        act(dispatch, world, id, None).await;
    }
    false
}

async fn act<S: Store>(dispatch: &Arc<Dispatch<Shaky<S>, Fake>>, world: &World, id: LeaseId, seen: Option<u64>) {
    let which = world.chance().below(3) as usize;
    let deed = Deed::ALL[which];
    let view = dispatch.store.engine.load(Want::Delivery(id), dispatch.clock_now()).await.unwrap_or_default();
    let Some(delivery) = view.delivery(id) else { return };
    let identities = world.identities(delivery);
    let body = Some(Box::from(SETTLED));
    let answer = Arc::new(Answer { status: StatusCode::OK, content_type: None, body });
    let act = Act { deed, who: "Ada".into(), why: "asked the app".into(), seen, answer };
    // Before, for once it is done somebody hears of it.
    if deed == Deed::Settle {
        world.settled.lock().unwrap().extend(identities.clone());
    }
    // It may be on the disk though nobody is told.
    if world.outages.is_some() {
        world.in_hand.lock().unwrap().extend(identities.clone());
    }
    match dispatch.step(id, &Input::Act(act)).await {
        Ok(_) => {
            world.in_hand.lock().unwrap().extend(identities);
            world.acts.lock().unwrap().0[which] += 1;
        }
        Err(StepError::Refused(_)) => world.acts.lock().unwrap().1 += 1,
        Err(StepError::Commit(CommitError::Store(_))) if world.outages.is_some() => {}
        Err(error) => world.fault(format!("a person's {deed:?} was not possible: {error}")),
    }
}

/// A page of the app, which passes the gate as any other and is looked at on its way back.
async fn one_click<S: Store>(click: Click, book: Arc<Rulebook>, mut standing: Standing<S>, world: Arc<World>) {
    sleep(click.at).await;
    let browser = &world.browsers[click.browser];
    let (_alone, _beside) = match click.pays {
        None => (Some(browser.clicks.write().await), None),
        Some(_) => (None, Some(browser.clicks.read().await)),
    };
    loop {
        let gate = stands(&mut standing).await;
        // Who got no page asks for it again.
        tokio::select! {
            biased;
            () = gate.life.over() => {}
            () = one_page(&click, &book, &gate.intake, &world) => break,
        }
    }
    if let Some((payment, _)) = click.pays {
        world.begun[payment as usize].send_replace(true);
    }
}

async fn one_page<S: Store>(click: &Click, book: &Rulebook, intake: &Arc<Intake<Shaky<S>, Fake>>, world: &World) {
    let browser = &world.browsers[click.browser];
    let session = browser.session.lock().unwrap().clone();
    let mut headers = HeaderMap::new();
    headers.insert("cookie", HeaderValue::try_from(format!("sid={session}")).unwrap());
    let (method, uri) = (if click.pays.is_some() { Method::POST } else { Method::GET }, Uri::from_static("/shop/page"));
    let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let head = Head { method: &method, uri: &uri, headers: &headers, host: "pay.example.org", source };
    let learn = book.rules.learns(&head).expect("a page to be looked at");
    let asked = intake.asked(book, learn, &method, "pay.example.org", &headers);
    let (takes, next) = {
        let mut chance = world.chance();
        (chance.millis(1500), chance.next())
    };
    sleep(takes).await;
    let mut answer = HeaderMap::new();
    let next = format!("{next:x}");
    answer.insert("set-cookie", HeaderValue::try_from(format!("sid={next}; path=/; httponly")).unwrap());
    let status = match click.pays {
        None => StatusCode::OK,
        Some((payment, readable)) => {
            let id = if readable { payment.to_string() } else { format!("test-mode?token={payment}") };
            answer.insert("location", HeaderValue::try_from(format!("https://mollie.test/{id}")).unwrap());
            StatusCode::FOUND
        }
    };
    let lessons = intake.lessons(&asked, status, &answer);
    Arc::clone(intake).learn(lessons).await;
    *browser.session.lock().unwrap() = next;
}

/// One caller, who hears an answer or hangs up; on a day with outages a provider tells again until he is acknowledged.
async fn one_call<S: Store>(
    call: Call,
    book: Arc<Rulebook>,
    mut standing: Standing<S>,
    world: Arc<World>,
) -> Vec<Heard> {
    sleep(call.at).await;
    let session = match call.browser {
        Some(browser) => {
            // Nobody comes back before he was sent away.
            let mut begun = world.begun[call.tag.payments[0] as usize].subscribe();
            begun.wait_for(|begun| *begun).await.unwrap();
            Some(world.browsers[browser].session.lock().unwrap().clone())
        }
        None => None,
    };
    let (mut tag, mut hangs_up, mut pause) = (call.tag.clone(), call.hangs_up, Duration::from_secs(1));
    let mut all = Vec::new();
    loop {
        let gate = stands(&mut standing).await;
        let came = Instant::now();
        world.came.lock().unwrap().insert(tag.serial, came);
        let handled = tokio::spawn(handled(&call, &tag, session.as_deref(), &book, &gate.intake));
        // Where he hangs up the listener only watches the task; a caller that goes away cancels nothing.
        if !std::mem::take(&mut hangs_up) {
            let heard = async { heard(tag.clone(), came, handled.await.expect("an answer")).await };
            tokio::select! {
                biased;
                () = gate.life.over() => {}
                heard = heard => all.push(heard),
            }
        }
        let is_told = all.last().is_some_and(|heard| heard.tag.serial == tag.serial && heard.status.is_success());
        if world.outages.is_none() || is_told || tag.channel == Channel::Return {
            return all;
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(300));
        tag = world.told_again(&tag);
    }
}

/// What the gate makes of a request.
fn handled<S: Store, A: App>(
    call: &Call,
    tag: &Tag,
    session: Option<&str>,
    book: &Arc<Rulebook>,
    intake: &Arc<Intake<S, A>>,
) -> impl Future<Output = Reply<A::Body>> + use<S, A> {
    let mut headers = HeaderMap::new();
    let kind = if call.body.starts_with("id=") { "application/x-www-form-urlencoded" } else { "application/json" };
    headers.insert("content-type", HeaderValue::from_static(kind));
    headers.insert("x-serial", HeaderValue::from(tag.serial));
    if let Some(session) = session {
        headers.insert("cookie", HeaderValue::try_from(format!("sid={session}")).unwrap());
    }
    let method = if tag.channel == Channel::Return { Method::GET } else { Method::POST };
    let uri: Uri = call.uri.parse().unwrap();
    let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let head = Head { method: &method, uri: &uri, headers: &headers, host: "pay.example.org", source };
    let route = book.rules.classify(&head).expect("a callback");
    let (body, host) = (Bytes::from(call.body.clone()), "pay.example.org".to_owned());
    let received = Received { method, uri, headers, body, host, source };
    Arc::clone(intake).handle(Arc::clone(book), route, received)
}

async fn heard(tag: Tag, came: Instant, reply: Reply<Pieces>) -> Heard {
    let (head, body) = match reply {
        Reply::Whole(response) => {
            let (head, body) = response.into_parts();
            (head, Ok(body))
        }
        Reply::Relayed(response) => {
            let (head, body) = response.into_parts();
            (head, body.collect().await.map(|body| body.to_bytes()).map_err(|error| error.to_string()))
        }
        Reply::Streamed(response) => {
            let (head, body) = response.into_parts();
            (head, body.collect().await.map(|body| body.to_bytes()))
        }
    };
    let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (cookie, decision) = (text("set-cookie"), text("oncegate-decision"));
    Heard { tag, came, status: head.status, cookie, decision, body }
}

/// Waits until nothing is under way, and looks at what is left.
async fn drain<S: Store>(dispatch: &Arc<Dispatch<Shaky<S>, Fake>>, world: &World) {
    let policy = &world.policy;
    let settled = async || {
        loop {
            let counts = dispatch.store.counts();
            let kept = if policy.order == Order::Strict { counts.review } else { 0 };
            // What stands in memory when the disk fails is not what will be found on it.
            let is_usable = dispatch.store.engine.fault().is_none();
            if is_usable && counts.deliveries == counts.review && counts.in_flight == 0 && counts.leases <= kept {
                return;
            }
            sleep(Duration::from_millis(250)).await;
        }
    };
    let all_settled = async {
        settled().await;
        // The person goes home, and has not left anything half done.
        *world.closing.lock().unwrap() = true;
        sleep(Duration::from_secs(1)).await;
        settled().await;
    };
    if timeout(PATIENCE, all_settled).await.is_err() {
        world.fault(format!("left over: {:?}", dispatch.store.counts()));
    }
    // Those who were told in the last moment are gone in the next; but the store may dawdle between a commit and its word.
    sleep(Duration::from_secs(2)).await;
    let left = dispatch.left_over();
    if left != [0; 4] {
        world.fault(format!("callers, deliveries waited on, permits, held names left over: {left:?}"));
    }
    advance(policy.retention + Duration::from_secs(180)).await;
    while dispatch.store.engine.forget(dispatch.clock_now(), 64).await.unwrap() {}
    let counts = dispatch.store.counts();
    if counts.transactions > counts.review * 3 {
        world.fault(format!("remembered for ever: {counts:?}"));
    }
}

fn check(heard: &Heard, world: &World) {
    let own = format!("s={}", heard.tag.serial);
    if heard.cookie.as_ref().is_some_and(|cookie| *cookie != own) {
        world.fault(format!("{:?} got the cookie of another: {:?}", heard.tag, heard.cookie));
    }
    if heard.tag.channel == Channel::Return {
        let whole = heard.body.as_ref().is_ok_and(|body| body.ends_with(heard.tag.serial.to_string().as_bytes()));
        let late = heard.body.as_ref().is_ok_and(|body| body.ends_with(b"late"));
        let waits = heard.cookie.is_none();
        if heard.status.is_success() && !whole && !late && !waits && heard.body.is_ok() {
            world.fault(format!("{:?} got the page of another: {:?}", heard.tag, heard.body));
        }
        return;
    }
    if !heard.status.is_success() {
        return;
    }
    if heard.decision.as_deref() == Some("stale") {
        if !world.is_rightly_stale(heard) {
            world.fault(format!("{:?} was told that it is too old, and is not", heard.tag));
        }
        return;
    }
    let (in_hand, settled) = (world.in_hand.lock().unwrap(), world.settled.lock().unwrap());
    let was_settled = |(identity, _): &(String, bool)| settled.contains(identity);
    if heard.body.as_ref().is_ok_and(|body| **body == *SETTLED) && !heard.tag.identities.iter().any(was_settled) {
        world.fault(format!("{:?} heard that it is settled, and nobody has done that", heard.tag));
    }
    let forwards = world.forwards.lock().unwrap();
    for (identity, windowed) in &heard.tag.identities {
        // Whoever may tell of a change has been told success only if the app hears of it after he came.
        let told = |forward: &&Forward| {
            (forward.accepted || forward.booked && world.policy.on_unknown.confirms())
                && forward.identities.iter().any(|(known, _)| known == identity)
                && (!windowed || forward.start >= heard.came)
        };
        // What a person has, or has decided, may be acknowledged without having been accepted.
        if !in_hand.contains(identity) && !forwards.iter().any(|forward| told(&forward)) {
            world.fault(format!(
                "{:?} was told success, and {identity} never got to the app after {:?}",
                heard.tag, heard.came
            ));
        }
    }
}
