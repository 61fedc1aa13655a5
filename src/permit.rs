//! The right to be in the app without a delivery: what a return holds, and a webhook of which nothing is remembered.

use std::{sync::Arc, time::Duration};

use crate::{
    dispatch::{App, Dispatch},
    store::{CommitError, Store},
    transaction::{
        effect::{LockChange, Transition},
        lock::{Claimed, LeaseId, LockName},
    },
};

/// Why there is no permit.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoPermit {
    /// The turn did not come in time.
    #[error("its turn did not come in time")]
    TooLong,
    /// The store failed while it waited.
    #[error("its place in the queue is lost")]
    Lost,
    /// See [`CommitError`].
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// A held lease. However its owner ends, it is given back: at once where nothing was sent, after `quiet` where the app
/// may be at work.
pub struct Permit<S: Store, A: App> {
    dispatch: Arc<Dispatch<S, A>>,
    lease: LeaseId,
    /// How long the app may be at work after we lost sight of it; `None` while nothing was sent.
    quiet: Option<Duration>,
    over: bool,
}

impl<S: Store, A: App> Permit<S, A> {
    /// Waits for a turn; at most `patience` where that is given.
    ///
    /// # Errors
    ///
    /// [`NoPermit`]; nothing is queued for any more then.
    pub async fn take(
        dispatch: &Arc<Dispatch<S, A>>,
        claimed: Claimed,
        patience: Option<Duration>,
    ) -> Result<Self, NoPermit> {
        let lease = dispatch.next_id();
        let mut granted = dispatch.await_grant(lease);
        let enqueue = Transition { locks: vec![LockChange::Enqueue(lease, claimed)], ..Transition::default() };
        if let Err(error) = dispatch.commit(enqueue).await {
            dispatch.forget_grant(lease);
            if let CommitError::Store(_) = error {
                // A disk that failed may know it all the same.
                dispatch.give_back(lease);
            }
            return Err(error.into());
        }
        let permit = Self { dispatch: Arc::clone(dispatch), lease, quiet: None, over: false };
        // Where it is not to be had, dropping the permit leaves the queue.
        let told = match patience {
            None => granted.await,
            Some(patience) => match tokio::time::timeout(patience, &mut granted).await {
                Ok(told) => told,
                Err(_) if dispatch.forget_grant(lease) => return Err(NoPermit::TooLong),
                // It was granted just now, or the store failed just now.
                Err(_) => granted.await,
            },
        };
        told.map_err(|_| NoPermit::Lost)?;
        Ok(permit)
    }

    /// From here on the app may have read the request.
    pub const fn sending(&mut self, quiet: Duration) {
        self.quiet = Some(quiet);
    }

    /// Provably nothing was sent after all: the lease is given back at once.
    pub fn not_sent(mut self) {
        self.quiet = None;
    }

    /// The app has answered. The names are kept for `linger`; a payer's return has been through under `returned`.
    ///
    /// # Errors
    ///
    /// When the store can't be used. The lease runs out by itself then.
    pub async fn end(mut self, linger: Duration, returned: Vec<LockName>) -> Result<(), CommitError> {
        self.over = true;
        let keys: Vec<_> = returned.iter().map(|name| name.key).collect();
        let change = if linger.is_zero() {
            LockChange::Release(self.lease)
        } else {
            LockChange::Linger(self.lease, self.dispatch.clock_now().after(linger))
        };
        let transition = Transition { locks: vec![change.clone()], returned, ..Transition::default() };
        if let Err(error) = self.dispatch.commit(transition).await {
            // Else it would be held until nobody could be at work any more. The app lingers whatever the store does.
            self.dispatch.change_lock(change);
            return Err(error);
        }
        self.dispatch.end_holds(keys.into_iter()).await;
        Ok(())
    }
}

impl<S: Store, A: App> Drop for Permit<S, A> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        self.dispatch.forget_grant(self.lease);
        match self.quiet {
            None => self.dispatch.give_back(self.lease),
            Some(quiet) => self.dispatch.keep(self.lease, quiet),
        }
    }
}
