//! Whether the app can be reached, as the tries to connect have told.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How the tries have ended so far. A kept connection that is used again is no try.
#[derive(Debug, Default)]
pub struct Reach {
    connected: AtomicU64,
    failed: AtomicU64,
    down: AtomicBool,
}

impl Reach {
    /// Notes how a try ended.
    pub(super) fn note(&self, stands: bool) {
        let count = if stands { &self.connected } else { &self.failed };
        self.down.store(!stands, Ordering::Relaxed);
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// How many connections have come to stand.
    #[must_use]
    pub fn connected(&self) -> u64 {
        self.connected.load(Ordering::Relaxed)
    }

    /// How many have not.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// How the last try ended; nobody knows before the first.
    #[must_use]
    pub fn up(&self) -> Option<bool> {
        (self.tries() > 0).then(|| !self.down.load(Ordering::Relaxed))
    }

    /// How many tries there were.
    pub(super) fn tries(&self) -> u64 {
        self.connected() + self.failed()
    }
}
