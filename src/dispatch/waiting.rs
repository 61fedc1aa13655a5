//! Callers who wait: each has a place that is counted, and hears of one delivery.

use std::sync::{Arc, atomic::Ordering};

use tokio::sync::watch;

use super::{App, Dispatch, Heard};
use crate::{store::Store, transaction::lock::LeaseId};

/// Those to whom the end of one delivery is told.
#[derive(Default)]
pub(super) struct Audience {
    owner: Owner,
    /// Everybody else, once there is somebody.
    callers: Option<watch::Sender<Option<Arc<Heard>>>>,
}

/// The caller whose own delivery it is. Most go themselves and never wait, so that he costs no channel until he does.
#[derive(Default)]
enum Owner {
    /// He is not here, or waits among the callers.
    #[default]
    Gone,
    /// He went himself.
    Went,
    /// He may still come to wait.
    Expected,
    /// It was over before he came to wait.
    Told(Arc<Heard>),
}

impl Audience {
    fn subscribe(&mut self) -> watch::Receiver<Option<Arc<Heard>>> {
        self.callers.get_or_insert_with(|| watch::Sender::new(None)).subscribe()
    }

    fn count(&self) -> usize {
        let owner = usize::from(!matches!(self.owner, Owner::Gone));
        owner + self.callers.as_ref().map_or(0, watch::Sender::receiver_count)
    }

    /// Tells all who have to be told, and says whether nobody is left to come.
    pub(super) fn tell(&mut self, heard: impl FnOnce() -> Heard) -> bool {
        let callers = self.callers.take();
        if callers.is_some() || matches!(self.owner, Owner::Expected) {
            let heard = Arc::new(heard());
            if let Some(callers) = callers {
                callers.send_replace(Some(Arc::clone(&heard)));
            }
            if matches!(self.owner, Owner::Expected) {
                self.owner = Owner::Told(heard);
            }
        }
        matches!(self.owner, Owner::Gone)
    }
}

/// One caller who waits for an answer; he is counted for as long as it lives.
pub struct Place<S: Store, A: App> {
    pub(super) dispatch: Arc<Dispatch<S, A>>,
}

impl<S: Store, A: App> Place<S, A> {
    /// Waits on this delivery, which is another's. `None` where too many do already.
    pub fn wait_on(self, id: LeaseId) -> Option<Waiter<S, A>> {
        let mut audience = self.dispatch.waiters.entry(id).or_default();
        let full = audience.count() >= self.dispatch.options.load().max_waiters_per_transaction;
        let receiver = Some(audience.subscribe());
        drop(audience);
        let waiter = Waiter { place: self, id, receiver };
        (!full).then_some(waiter)
    }

    /// May come to wait on this delivery, which is his own. To be said before it is committed.
    pub fn own(self, id: LeaseId) -> Waiter<S, A> {
        self.dispatch.waiters.entry(id).or_default().owner = Owner::Expected;
        Waiter { place: self, id, receiver: None }
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
    /// None of an owner who may still go himself.
    receiver: Option<watch::Receiver<Option<Arc<Heard>>>>,
}

impl<S: Store, A: App> Waiter<S, A> {
    /// What came of the delivery. `None` only where the gate itself goes down.
    pub async fn heard(mut self) -> Option<Arc<Heard>> {
        if self.receiver.is_none() {
            let mut audience = self.place.dispatch.waiters.get_mut(&self.id)?;
            if let Owner::Told(heard) = std::mem::take(&mut audience.owner) {
                return Some(heard);
            }
            self.receiver = Some(audience.subscribe());
        }
        let receiver = self.receiver.as_mut()?;
        let heard = receiver.wait_for(Option::is_some).await.ok()?;
        heard.clone()
    }

    /// The owner goes himself, and needs not be told; he keeps his place.
    pub fn goes(&self) {
        self.owner_is(Owner::Went);
    }

    /// The owner went in vain, and may come to wait after all.
    pub fn comes_back(&self) {
        self.owner_is(Owner::Expected);
    }

    fn owner_is(&self, owner: Owner) {
        if let Some(mut audience) = self.place.dispatch.waiters.get_mut(&self.id) {
            audience.owner = owner;
        }
    }
}

impl<S: Store, A: App> Drop for Waiter<S, A> {
    fn drop(&mut self) {
        // Whoever waited in vain on what had ended before leaves nothing behind.
        let owner = self.receiver.take().is_none();
        if let dashmap::Entry::Occupied(mut audience) = self.place.dispatch.waiters.entry(self.id) {
            if owner {
                audience.get_mut().owner = Owner::Gone;
            }
            if audience.get().count() == 0 {
                audience.remove();
            }
        }
    }
}
