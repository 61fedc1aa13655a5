//! What is done because its time has come: holds end, retries go, leases lapse, and what has expired is forgotten.

use std::{
    mem,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{App, Dispatch, SHUT, StepError, TICK};
use crate::{
    store::{Due, Store},
    time::{Clock, Timestamp},
    transaction::effect::{Input, LockChange, Transition},
};

/// How long it rests when what is due could not be done.
const PAUSE: Duration = Duration::from_millis(100);
/// How much is forgotten in one step, and how much is found due.
const STEP: usize = 512;

impl<S: Store, A: App> Dispatch<S, A> {
    pub(super) fn arm(&self, due: Timestamp) {
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
    /// again, and whoever waits for his turn has lost it. What is held may be gone; if it is not, its hold ends by time.
    fn give_up_waiting(&self) {
        self.held.clear();
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
