//! From the store to the app: leases that are granted become tries, tries become outcomes, outcomes wake who waits.
//!
//! Nobody waits in a task for a lease: a commit says which leases it granted, and whoever committed sets their owners
//! going. A delivery that waits costs its record and no more.

mod answer;
mod app;
pub mod breaker;
mod waiting;

use std::{
    borrow::Cow,
    mem,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use http::{HeaderValue, Response, StatusCode, header};
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};

use crate::{
    callback::{Answer, Channel, Key},
    spread::Spread,
    store::{CommitError, Due, Store, StoreError, Want},
    telemetry::Metrics,
    time::{Clock, SteadyClock, Timestamp},
    transaction::{
        effect::{Change, Effect, Ending, Input, LockChange, Transition, View},
        lock::{Claimed, LeaseId},
        policy::Policy,
        state::{Delivery, Letter, Phase, StoredRequest},
        transition::{self, Refused},
    },
};
pub use answer::{Full, Heard};
use answer::{Interner, read};
pub use app::{App, SendError, TOO_SLOW};
pub use breaker::Sign;
use breaker::{Breaker, Turn};
use waiting::Audience;
pub use waiting::{Place, Waiter};

/// Bounds and limits of the dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Callers that may wait on one delivery.
    pub max_waiters_per_transaction: usize,
    /// Callers that may wait in all.
    pub max_waiters: usize,
    /// Bytes of an answer's body that are passed on to waiting callers; a larger answer is passed on without its body.
    pub max_answer: usize,
    /// Bytes of an answer's body that are remembered.
    pub max_remembered_answer: usize,
    /// When the app is taken to be down.
    pub breaker: breaker::Options,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_waiters_per_transaction: 10_000,
            max_waiters: 50_000,
            max_answer: 1 << 20,
            max_remembered_answer: 16 << 10,
            breaker: breaker::Options::default(),
        }
    }
}

/// The dispatch, with the gates at which callers of this process wait.
pub struct Dispatch<S, A> {
    /// The truth.
    pub store: S,
    /// The app.
    pub app: A,
    /// The present moment.
    pub clock: SteadyClock,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    options: ArcSwap<Options>,
    ids: AtomicU64,
    permits: DashMap<LeaseId, oneshot::Sender<()>, Spread>,
    waiters: DashMap<LeaseId, Audience, Spread>,
    waiting: AtomicUsize,
    /// Held deliveries of this process by name, so that a return ends their hold.
    held: DashMap<Key, Vec<LeaseId>, Spread>,
    answers: Interner,
    to_ask: mpsc::UnboundedSender<LeaseId>,
    asks: Mutex<Option<mpsc::UnboundedReceiver<LeaseId>>>,
    breaker: Mutex<Breaker>,
    timer: Notify,
    armed: AtomicU64,
}

/// How often a decision is taken anew because somebody else was faster, before that is called a fault of ours.
const MOST_CONFLICTS: usize = 1000;
/// Why nothing was sent by who could.
const TOO_LATE: &str = "the store took too long to make it durable";
/// The timer looks at least so often.
const TICK: Duration = Duration::from_secs(1);
/// How long it rests when what is due could not be done.
const PAUSE: Duration = Duration::from_millis(100);
/// How much is forgotten in one step, and how much is found due.
const STEP: usize = 512;

impl<S: Store, A: App> Dispatch<S, A> {
    /// A dispatch over an engine and an app. [`Self::run_timers`] has to run beside it.
    pub fn new(store: S, app: A, clock: SteadyClock, metrics: Arc<Metrics>, options: Options) -> Arc<Self> {
        let (to_ask, asks) = mpsc::unbounded_channel();
        Arc::new(Self {
            store,
            app,
            clock,
            metrics,
            options: ArcSwap::from_pointee(options),
            // Names of leases are never used twice, not even by the next process on this machine.
            ids: AtomicU64::new(clock.now().as_millis() << 20),
            permits: DashMap::default(),
            waiters: DashMap::default(),
            waiting: AtomicUsize::new(0),
            held: DashMap::default(),
            answers: Interner::default(),
            to_ask,
            asks: Mutex::new(Some(asks)),
            breaker: Mutex::default(),
            timer: Notify::new(),
            armed: AtomicU64::new(0),
        })
    }

    /// A name that nothing else has.
    pub fn next_id(&self) -> LeaseId {
        LeaseId(self.ids.fetch_add(1, Ordering::Relaxed))
    }

    /// Commits a transition and does what follows: sets granted leases going, wakes who waits.
    ///
    /// # Errors
    ///
    /// Those of [`Store::commit`]; nothing has changed then.
    pub async fn commit(self: &Arc<Self>, transition: Transition) -> Result<(), CommitError> {
        self.commit_for(None, transition).await.map(drop)
    }

    /// The same for who owns the lease `own`: whether it was granted is told, and nothing else is set going for it.
    ///
    /// # Errors
    ///
    /// As [`Self::commit`].
    pub async fn commit_for(
        self: &Arc<Self>,
        own: Option<LeaseId>,
        mut transition: Transition,
    ) -> Result<bool, CommitError> {
        let effects = mem::take(&mut transition.effects);
        let due = earliest(&transition);
        let held = newly_held(&transition);
        let links = !transition.links.is_empty() || !transition.lessons.is_empty();
        let started = Instant::now();
        let now = self.clock.at(started);
        // Before the commit, for after it the delivery may be gone before it is noted.
        if let Some((id, letter)) = &held {
            self.note_held(*id, &letter.claimed);
        }
        let committed = self.store.commit(transition, now).await;
        if let (Err(_), Some((id, letter))) = (&committed, &held) {
            self.unhold(*id, letter);
        }
        let granted = committed?;
        self.metrics.store_commit_seconds.observe(started.elapsed().as_secs_f64());
        if links {
            self.metrics.set_late_links(self.store.counts().late_links);
        }
        self.arm(due);
        for effect in effects {
            match effect {
                Effect::Tell(id, ending) => self.tell(id, || Heard::unheard(ending)),
                Effect::Ask(id) => _ = self.to_ask.send(id),
                Effect::Alarm(id, why) => tracing::error!(delivery = id.0, why, "a delivery needs a person"),
            }
        }
        let mut own_granted = false;
        for lease in granted {
            if Some(lease) == own {
                own_granted = true;
            } else {
                self.granted(lease);
            }
        }
        Ok(own_granted)
    }

    fn granted(self: &Arc<Self>, lease: LeaseId) {
        match self.permits.remove(&lease) {
            Some((_, permit)) => {
                if permit.send(()).is_err() {
                    self.give_back(lease);
                }
            }
            None => {
                let dispatch = Arc::clone(self);
                tokio::spawn(async move { drop(dispatch.attempt_of(lease).await) });
            }
        }
    }

    /// The deliveries whose provider has to be asked once more, as their time comes; for one who asks.
    pub fn to_ask(&self) -> Option<mpsc::UnboundedReceiver<LeaseId>> {
        self.asks.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The present moment, as the store shall know it.
    pub fn clock_now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Gives a lease back from where nothing can be awaited.
    pub fn give_back(self: &Arc<Self>, lease: LeaseId) {
        self.change_lock(LockChange::Release(lease));
    }

    /// Keeps a lease for `quiet`: we lost sight of the app, which may still be at work.
    pub fn keep(self: &Arc<Self>, lease: LeaseId, quiet: Duration) {
        self.change_lock(LockChange::Keep(lease, self.clock_now().after(quiet)));
    }

    fn change_lock(self: &Arc<Self>, change: LockChange) {
        // At the very end there may be no runtime left, and then nobody waits for the lease.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let dispatch = Arc::clone(self);
        runtime.spawn(async move {
            loop {
                let transition = Transition { locks: vec![change.clone()], ..Transition::default() };
                match dispatch.commit(transition).await {
                    Ok(()) => return,
                    // Once the store can be used again the lease may still stand in it.
                    Err(CommitError::Store(_)) => tokio::time::sleep(TICK).await,
                    Err(error) => return tracing::error!(%error, "a lease could not be changed"),
                }
            }
        });
    }

    /// Who must be told that this lease is granted, instead of a delivery being tried. To be called before it is
    /// queued for.
    pub fn await_grant(&self, lease: LeaseId) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.permits.insert(lease, sender);
        receiver
    }

    /// What is left behind in this process: callers who wait, deliveries waited on, permits waited for, names under
    /// which something is held. All zero when nothing is under way.
    pub fn left_over(&self) -> [usize; 4] {
        [self.waiting(), self.waiters.len(), self.permits.len(), self.held.len()]
    }

    /// Nobody waits for this lease any more. Whether it had not been granted yet.
    pub fn forget_grant(&self, lease: LeaseId) -> bool {
        self.permits.remove(&lease).is_some()
    }

    /// A place among those who wait for an answer; `None` where there is no room for one more.
    pub fn take_place(self: &Arc<Self>) -> Option<Place<S, A>> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= self.options.load().max_waiters {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Place { dispatch: Arc::clone(self) })
    }

    /// From now on these bounds hold, and so many callbacks may be in the app at once.
    ///
    /// # Errors
    ///
    /// When the store can't be used; nothing has changed then.
    pub async fn resize(self: &Arc<Self>, options: Options, places: usize) -> Result<(), CommitError> {
        let locks = vec![LockChange::Places(places)];
        self.commit(Transition { locks, ..Transition::default() }).await?;
        self.options.store(Arc::new(options));
        Ok(())
    }

    /// How many callers wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    fn tell(&self, id: LeaseId, heard: impl FnOnce() -> Heard) {
        if let dashmap::Entry::Occupied(mut audience) = self.waiters.entry(id)
            && audience.get_mut().tell(heard)
        {
            audience.remove();
        }
    }

    /// Decides about one delivery until the decision stands.
    ///
    /// # Errors
    ///
    /// [`StepError`] when it is refused, or can't be committed.
    pub async fn step(self: &Arc<Self>, id: LeaseId, input: &Input) -> Result<Delivery, StepError> {
        self.step_with(id, input, None).await
    }

    async fn step_with(
        self: &Arc<Self>,
        id: LeaseId,
        input: &Input,
        heard: Option<&Heard>,
    ) -> Result<Delivery, StepError> {
        for _ in 0..MOST_CONFLICTS {
            let now = self.clock.now();
            let view = self.store.load(Want::Delivery(id), now).await?;
            let mut transition = transition::apply(&view, id, input.clone(), now)?;
            let after = after(&view, &transition, id)?;
            let told =
                transition.effects.iter().position(|effect| matches!(effect, Effect::Tell(told, _) if *told == id));
            // Whoever brings the outcome tells it, for only he has the whole answer.
            let told = told.map(|at| transition.effects.remove(at));
            let unheld = removed_unsent(&view, &transition);
            match self.commit(transition).await {
                Ok(()) => {
                    unheld.iter().for_each(|(id, letter)| self.unhold(*id, letter));
                    if matches!(after.phase, Phase::Unknown { .. }) {
                        let reference = after.letter.events.first().map(|event| &*event.reference);
                        tracing::warn!(delivery = id.0, reference, "it is unknown whether the app got it");
                    }
                    if let Some(Effect::Tell(_, ending)) = told {
                        self.tell(id, || heard.cloned().unwrap_or(Heard::unheard(ending)));
                    }
                    return Ok(after);
                }
                Err(CommitError::Conflict) => tokio::task::yield_now().await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommitError::Conflict.into())
    }

    /// One try of a delivery whose lease has been granted to somebody who may know nothing else of it.
    async fn attempt_of(self: Arc<Self>, id: LeaseId) -> Option<Heard> {
        let guard = Unfinished { dispatch: Some(Arc::clone(&self)), id, attempt: 1, begun: false };
        let delivery = match self.store.load(Want::Delivery(id), self.clock.now()).await {
            Ok(view) => view.deliveries.into_iter().find(|known| known.id == id && known.phase == Phase::Queued),
            Err(error) => {
                tracing::warn!(delivery = id.0, %error, "not sent");
                self.waiters.remove(&id);
                guard.disarmed();
                // Its lease is not given back: when the store can be used again, another try may be in the app by it.
                return None;
            }
        };
        guard.disarmed();
        match delivery {
            Some(delivery) => self.attempt(delivery).await,
            None => {
                self.give_back(id);
                None
            }
        }
    }

    /// One try of a delivery whose lease has been granted. Says what came of it, unless somebody else was before us.
    pub async fn attempt(self: Arc<Self>, delivery: Delivery) -> Option<Heard> {
        let (id, attempt) = (delivery.id, delivery.attempts + 1);
        let mut guard = Unfinished { dispatch: Some(Arc::clone(&self)), id, attempt, begun: false };
        let now = self.clock.now();
        let letter = &delivery.letter;
        self.unhold(id, letter);
        let waited = now.since(letter.arrived);
        self.metrics.hold_seconds.observe(waited.min(letter.policy.hold).as_secs_f64());
        self.metrics.observe_lock_wait(Channel::Webhook, waited.saturating_sub(letter.policy.hold));
        let pass = match self.pass() {
            Ok(pass) => pass,
            Err(until) => {
                guard.disarm();
                return Box::pin(self.put_off(id, until, SHUT.into())).await;
            }
        };
        let connection = match self.app.connect().await {
            Ok(connection) => connection,
            Err(why) => {
                pass.tell(Sign::Down);
                // A trial that nobody let in was no try.
                if let Some(until) = self.shut_until() {
                    guard.disarm();
                    return Box::pin(self.put_off(id, until, why.into())).await;
                }
                return Box::pin(guard.fail(Ending::NotSent(why))).await;
            }
        };
        let sent = match self.step(id, &Input::Sending).await {
            Ok(delivery) => delivery,
            Err(error) => {
                tracing::warn!(delivery = id.0, %error, "not sent");
                if let StepError::Commit(CommitError::Store(_)) = error {
                    // Whoever hears of a store that failed never begins: it knows that, and grants the lease anew.
                    self.waiters.remove(&id);
                }
                guard.disarm();
                return None;
            }
        };
        if !matches!(sent.phase, Phase::InFlight { .. }) {
            // Under more names than before, or after what was before it; who waits for it hears of the try that follows.
            guard.disarm();
            return None;
        }
        (guard.attempt, guard.begun) = (sent.attempts, true);
        if self.is_too_late(&sent) {
            return Box::pin(guard.fail(Ending::NotSent(TOO_LATE.to_owned()))).await;
        }
        let heard = self.exchange(connection, &letter.request, &letter.policy).await;
        pass.tell(sign_of(&heard.ending));
        self.metrics.count_delivery(letter.provider, heard.ending.as_str());
        self.metrics.delivery_seconds.observe(heard.took.as_secs_f64());
        guard.disarm();
        self.end(id, sent.attempts, true, heard).await
    }

    /// Whether its sender would be taken for dead before he could have an answer: the disk took so long.
    fn is_too_late(&self, sent: &Delivery) -> bool {
        let timeout = sent.letter.policy.timeout;
        matches!(sent.phase, Phase::InFlight { lease_until } if self.clock.now().after(timeout) > lease_until)
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to one try of the app, unless it is taken to be down: then when to ask again.
    ///
    /// # Errors
    ///
    /// That moment.
    pub fn pass(self: &Arc<Self>) -> Result<Pass<S, A>, Timestamp> {
        let asked = self.breaker().ask(self.options.load().breaker, self.clock.now());
        if asked.is_err() {
            self.metrics.upstream_kept_back.inc();
        }
        asked.map(|pass| Pass { dispatch: Arc::clone(self), pass: Some(pass) })
    }

    /// Until when the app is left alone, as far as that is known; `None` where somebody may try it.
    pub fn shut_until(&self) -> Option<Timestamp> {
        self.breaker().shut_until(self.options.load().breaker, self.clock.now())
    }

    /// Whether the app is taken to be down.
    pub fn is_shut(&self) -> bool {
        self.breaker().is_shut()
    }

    /// Somebody who asks nobody was answered by the app.
    pub fn seen_alive(&self) {
        self.breaker().seen_alive(self.clock.now());
    }

    /// The app is taken to be down: what is owed waits without using up a try, and everybody else keeps his own.
    async fn put_off(self: &Arc<Self>, id: LeaseId, until: Timestamp, why: Cow<'static, str>) -> Option<Heard> {
        match self.step(id, &Input::PutOff { until, why: why.clone() }).await {
            Ok(_) => Some(Heard::not_sent(why.into_owned())),
            Err(error) => {
                tracing::warn!(delivery = id.0, %error, "not put off");
                if let StepError::Commit(CommitError::Store(_)) = error {
                    self.waiters.remove(&id);
                }
                None
            }
        }
    }

    /// Sends a request and reads the answer whole, within the time limit; says what came of it.
    pub async fn exchange(&self, connection: A::Connection, request: &StoredRequest, policy: &Policy) -> Heard {
        let started = Instant::now();
        let deadline = started + policy.timeout;
        let exchange = async {
            let response = self.app.send(connection, request, policy.timeout).await?;
            self.read_whole(response, deadline).await
        };
        let ending = match exchange.await {
            Ok(full) => {
                let ending = self.classify(&full.answer, policy);
                return Heard { ending, full: Some(Arc::new(full)), took: started.elapsed() };
            }
            Err(error) => error.into(),
        };
        Heard { took: started.elapsed(), ..Heard::unheard(ending) }
    }

    /// Reads an answer whole, until the deadline; one that is too large loses its body.
    async fn read_whole(&self, response: Response<A::Body>, deadline: Instant) -> Result<Full, SendError> {
        let (head, body) = response.into_parts();
        let body = tokio::time::timeout_at(deadline, read(body, self.options.load().max_answer)).await;
        let body = body.map_err(|_| SendError::TooSlow)?.map_err(SendError::Unknown)?;
        let content_type = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        let answer = self.answers.intern(head.status, content_type, body.as_deref());
        Ok(Full { headers: head.headers, body: body.unwrap_or_default(), answer })
    }

    fn classify(&self, answer: &Arc<Answer>, policy: &Policy) -> Ending {
        if matches!(answer.status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT) {
            return Ending::Unknown("a middle box answered for the app".to_owned(), Some(Arc::clone(answer)));
        }
        if !policy.is_success(answer) {
            return Ending::Rejected(Arc::clone(answer));
        }
        let large = answer.body.as_ref().is_some_and(|body| body.len() > self.options.load().max_remembered_answer);
        // Too large to remember: a tombstone, which still acknowledges.
        Ending::Accepted(if large { Arc::new(Answer { body: None, ..(**answer).clone() }) } else { Arc::clone(answer) })
    }

    /// Records how a try ended that was begun, or was not. `None` where that could not be made to last: nobody shall hear of
    /// a success that a crash would forget.
    async fn end(self: &Arc<Self>, id: LeaseId, attempt: u32, begun: bool, heard: Heard) -> Option<Heard> {
        let input = Input::Ended { attempt, ending: heard.ending.clone() };
        if let Err(error) = self.step_with(id, &input, Some(&heard)).await {
            tracing::error!(delivery = id.0, %error, outcome = heard.ending.as_str(), "an outcome could not be recorded");
            match error {
                StepError::Commit(CommitError::Store(_)) => {
                    self.waiters.remove(&id);
                    // What was not begun goes on by itself; and another may be in the app by its number by then.
                    if begun {
                        self.record_later(id, attempt, heard.ending);
                    }
                    return None;
                }
                // Whoever waits on a later try hears of that.
                StepError::Refused(Refused::Fenced) => {}
                // The callers shall not wait for what can't be recorded.
                _ => self.tell(id, || heard.clone()),
            }
        }
        Some(heard)
    }

    /// An outcome that is known is recorded when the store can be used again, unless the gate goes down before.
    fn record_later(self: &Arc<Self>, id: LeaseId, attempt: u32, ending: Ending) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let dispatch = Arc::clone(self);
        // Boxed, for what it does may bring it here again.
        let again: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            let input = Input::Ended { attempt, ending };
            loop {
                tokio::time::sleep(TICK).await;
                match dispatch.step(id, &input).await {
                    Err(StepError::Commit(CommitError::Store(_))) => {}
                    Ok(_) | Err(_) => return,
                }
            }
        });
        runtime.spawn(again);
    }

    /// A held delivery can be found by its names.
    fn note_held(&self, id: LeaseId, claimed: &Claimed) {
        for name in &claimed.names {
            self.held.entry(name.key).or_default().push(id);
        }
    }

    fn unhold(&self, id: LeaseId, letter: &Letter) {
        if letter.policy.hold.is_zero() || self.held.is_empty() {
            return;
        }
        for name in &letter.claimed.names {
            if let Some(mut ids) = self.held.get_mut(&name.key) {
                ids.retain(|held| *held != id);
            }
            self.held.remove_if(&name.key, |_, ids| ids.is_empty());
        }
    }

    /// The payer's return has been through under these names: what is held for it need not wait longer.
    pub async fn end_holds(self: &Arc<Self>, names: impl Iterator<Item = Key>) {
        for name in names {
            let Some((_, ids)) = self.held.remove(&name) else { continue };
            for id in ids {
                match self.step(id, &Input::HoldOver).await {
                    Ok(_) | Err(StepError::Refused(_)) => {}
                    Err(error) => tracing::warn!(delivery = id.0, %error, "a hold could not be ended early"),
                }
            }
        }
    }

    fn arm(&self, due: Timestamp) {
        if due.as_millis() < self.armed.load(Ordering::Acquire) {
            self.timer.notify_one();
        }
    }

    /// Does what is due, when it is due, and forgets what has expired; until the future is dropped.
    pub async fn run_timers(self: Arc<Self>) {
        let mut blind = false;
        loop {
            let now = self.clock.now();
            let (mut again, mut failed) = (false, false);
            match self.store.due(now, STEP).await {
                Ok(due) => {
                    blind = false;
                    again |= due.len() == STEP;
                    for due in self.put_off_those(due).await {
                        failed |= !self.do_due(due).await;
                    }
                }
                Err(error) => {
                    // Once, for it is asked ten times a second.
                    if !mem::replace(&mut blind, true) {
                        tracing::error!(%error, "cannot see what is due");
                    }
                    self.give_up_waiting();
                    failed = true;
                }
            }
            match self.store.forget(now, STEP).await {
                Ok(more) => again |= more,
                Err(_) => failed = true,
            }
            if failed {
                // What can't be done now can't be done a microsecond later.
                tokio::time::sleep(PAUSE).await;
            } else if again {
                tokio::task::yield_now().await;
                continue;
            }
            let wake = self.store.counts().next_due.unwrap_or(Timestamp::NEVER).min(now.after(TICK));
            self.armed.store(wake.as_millis(), Ordering::Release);
            // Armed before the last look, so that nothing slips in between unseen.
            let wake = self.store.counts().next_due.unwrap_or(Timestamp::NEVER).min(wake);
            let mut notified = pin!(self.timer.notified());
            let _ = tokio::time::timeout(wake.since(self.clock.now()), &mut notified).await;
            self.armed.store(0, Ordering::Release);
        }
    }

    /// While the app is left alone, what is due to be tried again waits on, all of it at once; says what else is due.
    async fn put_off_those(self: &Arc<Self>, due: Vec<Due>) -> Vec<Due> {
        let Some(until) = self.shut_until() else { return due };
        let tasks: Vec<_> = due
            .into_iter()
            .map(|due| {
                let dispatch = Arc::clone(self);
                tokio::spawn(async move {
                    let Due::Delivery(id) = due else { return Some(due) };
                    let put_off = dispatch.step(id, &Input::PutOff { until, why: SHUT.into() }).await;
                    // Whatever is due of it is another thing.
                    put_off.is_err().then_some(due)
                })
            })
            .collect();
        let mut left = Vec::new();
        for task in tasks {
            left.extend(task.await.ok().flatten());
        }
        left
    }

    /// The store has failed: nobody can tell what became of what is waited for. Whoever waits hears that he shall try
    /// again, and whoever waits for his turn has lost it.
    fn give_up_waiting(&self) {
        self.permits.clear();
        self.waiters.clear();
    }

    /// Whether it is done, or need not be any more.
    async fn do_due(self: &Arc<Self>, due: Due) -> bool {
        let done = match due {
            Due::Delivery(id) => self.step(id, &Input::Due).await.map(drop),
            Due::Grants => self.commit(Transition::default()).await.map_err(StepError::from),
            Due::Lease(lease) => {
                let release = Transition { locks: vec![LockChange::Release(lease)], ..Transition::default() };
                self.commit(release).await.map_err(StepError::from)
            }
        };
        match done {
            // Somebody was here before: an early end of the hold, an outcome.
            Ok(()) | Err(StepError::Refused(_)) => true,
            Err(error) => {
                tracing::error!(?due, %error, "what was due could not be done");
                false
            }
        }
    }
}

/// What is told to those who wait while the app is taken to be down.
pub const SHUT: &str = "the app is taken to be down and is left alone for a moment";

/// What an ending says about the app.
pub fn sign_of(ending: &Ending) -> Sign {
    match ending {
        Ending::Accepted(_) | Ending::Rejected(_) => Sign::Alive,
        // Whoever stands before it says so, or it is too slow.
        Ending::Unknown(_, Some(_)) => Sign::Down,
        Ending::Unknown(why, None) if why == TOO_SLOW => Sign::Down,
        // A kept connection had been closed, or one broke: perhaps on account of this callback.
        Ending::NotSent(_) | Ending::Unknown(_, None) => Sign::None,
    }
}

/// The right to one try of the app. Dropped without a word, it says nothing about it.
pub struct Pass<S: Store, A: App> {
    dispatch: Arc<Dispatch<S, A>>,
    pass: Option<breaker::Pass>,
}

impl<S: Store, A: App> Pass<S, A> {
    /// What came of the try says this about the app.
    pub fn tell(mut self, sign: Sign) {
        self.said(sign);
    }

    fn said(&mut self, sign: Sign) {
        let Some(pass) = self.pass.take() else { return };
        let dispatch = &self.dispatch;
        let turn = dispatch.breaker().tell(pass, sign, dispatch.options.load().breaker, dispatch.clock.now());
        match turn {
            Some(Turn::Shut) => tracing::error!("the app seems to be down: callbacks are kept from it, but for trials"),
            Some(Turn::Open) => tracing::info!("the app is back: callbacks go to it again"),
            None => {}
        }
    }
}

impl<S: Store, A: App> Drop for Pass<S, A> {
    fn drop(&mut self) {
        self.said(Sign::None);
    }
}

/// The earliest time at which this transition makes something due.
fn earliest(transition: &Transition) -> Timestamp {
    let deliveries = transition.deliveries.iter().filter_map(|change| match change {
        Change::Put(delivery) => delivery.due(),
        Change::Remove(..) => None,
    });
    let leases = transition.locks.iter().filter_map(|change| match change {
        LockChange::Linger(_, until) | LockChange::Keep(_, until) => Some(*until),
        _ => None,
    });
    deliveries.chain(leases).min().unwrap_or(Timestamp::NEVER)
}

/// The delivery that this transition holds, for the payer's return to find. One that follows another is held for that.
fn newly_held(transition: &Transition) -> Option<(LeaseId, Arc<Letter>)> {
    let is_claimed = |id| transition.transactions.iter().any(|(_, t)| t.claims.iter().any(|c| c.is_pending_in(id)));
    transition.deliveries.iter().find_map(|change| match change {
        Change::Put(delivery)
            if matches!(delivery.phase, Phase::Held { until } if until != Timestamp::NEVER)
                && delivery.version == 0
                && is_claimed(delivery.id) =>
        {
            Some((delivery.id, Arc::clone(&delivery.letter)))
        }
        _ => None,
    })
}

/// What was held and will not be sent at all, for another has brought what it carries.
fn removed_unsent(view: &View, transition: &Transition) -> Vec<(LeaseId, Arc<Letter>)> {
    let is_unsent = |delivery: &&Delivery| matches!(delivery.phase, Phase::Held { .. } | Phase::Queued);
    let unsent = |change: &Change| match change {
        Change::Remove(id, _) => view.delivery(*id).filter(is_unsent),
        Change::Put(_) => None,
    };
    transition.deliveries.iter().filter_map(unsent).map(|gone| (gone.id, Arc::clone(&gone.letter))).collect()
}

/// The delivery as the transition leaves it; as it was, where it is removed.
fn after(view: &View, transition: &Transition, id: LeaseId) -> Result<Delivery, Refused> {
    let put = transition.deliveries.iter().find_map(|change| match change {
        Change::Put(delivery) if delivery.id == id => Some(delivery),
        _ => None,
    });
    put.or_else(|| view.delivery(id)).cloned().ok_or(Refused::Gone)
}

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// It can't be, or comes too late.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It can't be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}

/// A try under way. Should its task end before it does, by a panic or otherwise, the outcome is recorded all the same.
struct Unfinished<S: Store, A: App> {
    dispatch: Option<Arc<Dispatch<S, A>>>,
    id: LeaseId,
    /// Which try it is.
    attempt: u32,
    /// Whether the app may have read something.
    begun: bool,
}

impl<S: Store, A: App> Unfinished<S, A> {
    fn disarm(&mut self) {
        self.dispatch = None;
    }

    fn disarmed(mut self) {
        self.disarm();
    }

    async fn fail(mut self, ending: Ending) -> Option<Heard> {
        let dispatch = self.dispatch.take()?;
        let (id, attempt, begun) = (self.id, self.attempt, self.begun);
        dispatch.end(id, attempt, begun, Heard::unheard(ending)).await
    }
}

impl<S: Store, A: App> Drop for Unfinished<S, A> {
    fn drop(&mut self) {
        let Some(dispatch) = self.dispatch.take() else { return };
        let why = "the task that sent it ended early".to_owned();
        let ending = if self.begun { Ending::Unknown(why, None) } else { Ending::NotSent(why) };
        let (id, attempt, begun) = (self.id, self.attempt, self.begun);
        // Not a guard again: a runtime that goes down drops at once what is spawned, and would do so without end.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { drop(dispatch.end(id, attempt, begun, Heard::unheard(ending)).await) });
        }
    }
}
