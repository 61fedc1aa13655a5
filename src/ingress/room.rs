//! The places for connections; their number can change while they are taken.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places.
#[derive(Debug)]
pub(super) struct Room {
    places: Arc<Semaphore>,
    wanted: AtomicUsize,
    /// Places that are no longer wanted and not yet given up, for they were taken.
    surplus: AtomicUsize,
    taken: AtomicUsize,
}

/// A place that is kept ready for who comes next.
pub(super) struct Free {
    _permit: OwnedSemaphorePermit,
}

/// A place that is taken by a connection, until it is dropped.
pub(super) struct Place {
    room: Arc<Room>,
    _free: Free,
}

impl Room {
    pub(super) fn for_connections(count: usize) -> Arc<Self> {
        let count = bounded(count);
        let places = Arc::new(Semaphore::new(count));
        Arc::new(Self { places, wanted: count.into(), surplus: AtomicUsize::new(0), taken: AtomicUsize::new(0) })
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// From now on there are so many; those that are taken beyond that are given up as they are left.
    pub(super) fn resize(&self, count: usize) {
        let count = bounded(count);
        let before = self.wanted.swap(count, Ordering::Relaxed);
        let more = count.saturating_sub(before);
        let less = |surplus: usize| Some(surplus.saturating_sub(more));
        let kept = self.surplus.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).unwrap_or_else(|same| same);
        self.places.add_permits(more - kept.min(more));
        let surplus = before.saturating_sub(count);
        self.surplus.fetch_add(surplus - self.places.forget_permits(surplus), Ordering::Relaxed);
    }

    /// A free place, as soon as there is one.
    pub(super) async fn place(&self) -> Option<Free> {
        loop {
            let permit = Arc::clone(&self.places).acquire_owned().await.ok()?;
            let less = |surplus: usize| surplus.checked_sub(1);
            if self.surplus.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err() {
                return Some(Free { _permit: permit });
            }
            permit.forget();
        }
    }

    /// A connection takes a place.
    pub(super) fn take(self: &Arc<Self>, free: Free) -> Place {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Place { room: Arc::clone(self), _free: free }
    }

    /// Waits until every place is free.
    pub(super) async fn empty(&self) {
        let all = self.wanted.load(Ordering::Relaxed) + self.surplus.load(Ordering::Relaxed);
        let _ = self.places.acquire_many(u32::try_from(all).unwrap_or(u32::MAX)).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

fn bounded(count: usize) -> usize {
    // All of them are waited for at the end, and a wait counts in 32 bits.
    count.min(Semaphore::MAX_PERMITS).min(u32::MAX as usize)
}
