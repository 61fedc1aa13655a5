//! How long a sender waits for the app: after that he hears his own acknowledgement, once it is durable that the retry is
//! ours.

use std::{pin::pin, sync::Arc};

use tokio::time::{Instant, timeout_at};

use super::Intake;
use crate::{
    callback::Key,
    dispatch::{App, Heard, StepError, Waiter},
    store::{CommitError, Store, StoreError, Want},
    transaction::{effect::Input, lock::LeaseId},
};

/// What came of waiting.
pub(super) enum Waited {
    /// His own try has come to an end.
    Own(Heard),
    /// The delivery has come to an end.
    Heard(Arc<Heard>),
    /// It has not, and it is ours to bring to one.
    Acknowledged,
    /// The gate goes down.
    GoesDown,
    /// That it is ours could not be made to last.
    NoStore(StoreError),
}

/// A sender and his patience.
#[derive(Clone, Copy)]
pub(super) struct Patience<'k> {
    /// The transactions of what he brought.
    pub keys: &'k [Key],
    /// When he has waited long enough; `None` where he waits for as long as it takes.
    pub until: Option<Instant>,
}

impl<S: Store, A: App> Intake<S, A> {
    /// Waits on a delivery for as long as the sender does.
    pub(super) async fn wait(&self, id: LeaseId, waiter: Option<Waiter<S, A>>, patience: Patience<'_>) -> Waited {
        let Some(waiter) = waiter else { return Waited::GoesDown };
        let mut hearing = pin!(waiter.heard());
        if let Some(until) = patience.until
            && let Ok(heard) = timeout_at(until, hearing.as_mut()).await
        {
            return heard.map_or(Waited::GoesDown, Waited::Heard);
        }
        if patience.until.is_some() {
            match self.promise(id, patience.keys).await {
                Ok(true) => return Waited::Acknowledged,
                // It has ended in this moment, and the word is on its way.
                Ok(false) => {}
                Err(error) => return Waited::NoStore(error),
            }
        }
        hearing.await.map_or(Waited::GoesDown, Waited::Heard)
    }

    /// The same for a try that goes in the caller's own task: it goes on in one of its own. `None` where the try came to
    /// nothing that can be told.
    pub(super) async fn wait_on_own(
        &self,
        id: LeaseId,
        work: impl Future<Output = Option<Heard>> + Send + 'static,
        keys: &[Key],
        until: Instant,
    ) -> Option<Waited> {
        let mut work = Box::pin(work);
        if let Ok(ended) = timeout_at(until, work.as_mut()).await {
            return ended.map(Waited::Own);
        }
        // It must not stand still while the promise is written.
        let work = tokio::spawn(work);
        match self.promise(id, keys).await {
            Ok(true) => Some(Waited::Acknowledged),
            Ok(false) => work.await.ok().flatten().map(Waited::Own),
            Err(error) => Some(Waited::NoStore(error)),
        }
    }

    /// Makes a delivery ours to bring to the app, whatever comes of this try; whether it is, for good. It is not where it has
    /// come to an end, or its failure has been told.
    pub(super) async fn promise(&self, id: LeaseId, keys: &[Key]) -> Result<bool, StoreError> {
        let now = self.dispatch.clock_now();
        // What is read so is durable. Of many who wait on one delivery, the first writes for all.
        let view = self.dispatch.store.load(Want::Transactions(keys, &[]), now).await?;
        match view.delivery(id) {
            None => return Ok(false),
            Some(delivery) if delivery.owed && (delivery.is_under_way() || delivery.is_retrying()) => return Ok(true),
            Some(_) => {}
        }
        match self.dispatch.step(id, &Input::Owe).await {
            Ok(_) => Ok(true),
            Err(StepError::Refused(_)) => Ok(false),
            Err(StepError::Commit(CommitError::Store(error))) => Err(error),
            Err(StepError::Commit(error)) => Err(StoreError(error.to_string())),
        }
    }
}
