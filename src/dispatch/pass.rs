//! Who may try the app, as its breaker says: the right to one try, and what waits while nobody may.

use std::{
    borrow::Cow,
    sync::{Arc, MutexGuard, PoisonError},
};

use super::{
    App, Dispatch, Heard, Sign, StepError, TOO_SLOW,
    breaker::{self, Breaker, Turn},
};
use crate::{
    store::{CommitError, Store},
    time::{Clock, Timestamp},
    transaction::{
        effect::{Ending, Input},
        lock::LeaseId,
    },
};

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

impl<S: Store, A: App> Dispatch<S, A> {
    pub(super) fn breaker(&self) -> MutexGuard<'_, Breaker> {
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
    pub(super) async fn put_off(
        self: &Arc<Self>,
        id: LeaseId,
        until: Timestamp,
        why: Cow<'static, str>,
    ) -> Option<Heard> {
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
}
