//! From the store to the app: leases that are granted become tries, tries become outcomes, outcomes wake who waits.
//!
//! Nobody waits in a task for a lease: a commit says which leases it granted, and whoever committed sets their owners
//! going. A delivery that waits costs its record and no more.

mod answer;
mod app;
mod attempt;
pub mod breaker;
mod holds;
mod pass;
mod step;
mod timers;
mod waiting;

use std::{
    mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use dashmap::DashMap;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    time::Instant,
};

use self::{answer::Interner, breaker::Breaker, holds::newly_held, waiting::Audience};
pub use self::{
    answer::{Full, Heard},
    app::{App, SendError, TOO_SLOW},
    attempt::Ready,
    breaker::Sign,
    pass::{Pass, SHUT, sign_of},
    step::StepError,
    waiting::{Place, Waiter},
};
use crate::{
    callback::Key,
    spread::Spread,
    store::{CommitError, Store},
    telemetry::Metrics,
    time::{Clock, SteadyClock, Timestamp},
    transaction::{
        effect::{Change, Effect, LockChange, Transition},
        lock::LeaseId,
    },
};

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
/// The timer looks at least so often.
const TICK: Duration = Duration::from_secs(1);

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

    /// Changes a lease from where nothing can be awaited; a store that can't be used is waited for.
    pub fn change_lock(self: &Arc<Self>, change: LockChange) {
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
