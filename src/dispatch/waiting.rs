//! Callers who wait: each has a place that is counted, and hears of one delivery.

use std::sync::{Arc, atomic::Ordering};

use tokio::sync::watch;

use super::{App, Dispatch, Heard};
use crate::{store::Store, transaction::lock::LeaseId};

/// One caller who waits for an answer; he is counted for as long as it lives.
pub struct Place<S: Store, A: App> {
    pub(super) dispatch: Arc<Dispatch<S, A>>,
}

impl<S: Store, A: App> Place<S, A> {
    /// Waits on this delivery. `None` where too many do already; the one whose own delivery it is (`own`) always may.
    pub fn wait_on(self, id: LeaseId, own: bool) -> Option<Waiter<S, A>> {
        let entry = self.dispatch.waiters.entry(id).or_insert_with(|| watch::Sender::new(None));
        let full = !own && entry.receiver_count() >= self.dispatch.options.max_waiters_per_transaction;
        let receiver = entry.subscribe();
        drop(entry);
        let waiter = Waiter { place: self, id, receiver: Some(receiver) };
        (!full).then_some(waiter)
    }
}

impl<S: Store, A: App> Drop for Place<S, A> {
    fn drop(&mut self) {
        self.dispatch.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One caller who waits on a delivery.
pub struct Waiter<S: Store, A: App> {
    place: Place<S, A>,
    id: LeaseId,
    receiver: Option<watch::Receiver<Option<Arc<Heard>>>>,
}

impl<S: Store, A: App> Waiter<S, A> {
    /// What came of the delivery. `None` only where the gate itself goes down.
    pub async fn heard(mut self) -> Option<Arc<Heard>> {
        let receiver = self.receiver.as_mut()?;
        let heard = receiver.wait_for(Option::is_some).await.ok()?;
        heard.clone()
    }
}

impl<S: Store, A: App> Drop for Waiter<S, A> {
    fn drop(&mut self) {
        // Whoever waited in vain on what had ended before leaves nothing behind.
        self.receiver = None;
        self.place.dispatch.waiters.remove_if(&self.id, |_, sender| sender.receiver_count() == 0);
    }
}
