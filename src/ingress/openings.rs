//! Connections on which nothing has been asked yet and something has to come first, no more than a bound.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use tokio::sync::oneshot;

/// The places for them. Beyond the bound the oldest loses its own: who means it is quickly done, and so it is most likely
/// one of those that keep us waiting on purpose.
pub(super) struct Openings {
    max: usize,
    all: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    places: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Openings {
    /// Room for so many.
    pub(super) fn new(max: usize) -> Self {
        Self { max, all: Mutex::default() }
    }

    /// Takes a place, if need be the oldest one's.
    pub(super) fn enter(&self) -> Place<'_> {
        let (hold, lost) = oneshot::channel();
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let id = all.next;
        all.next += 1;
        all.places.insert(id, hold);
        if all.places.len() > self.max {
            all.places.pop_first();
        }
        Place { openings: self, id, lost }
    }
}

/// A place among them.
pub(super) struct Place<'o> {
    openings: &'o Openings,
    id: u64,
    lost: oneshot::Receiver<()>,
}

impl Place<'_> {
    /// Ends when the place was lost to a newer one.
    pub(super) async fn lost(&mut self) {
        _ = (&mut self.lost).await;
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.openings.all.lock().unwrap_or_else(PoisonError::into_inner).places.remove(&self.id);
    }
}
