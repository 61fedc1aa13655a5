//! The engine that keeps everything in memory: exact while the process lives, empty when it starts.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use super::state::Options;
use super::{CommitError, Counts, Due, Lines, Store, StoreError, Want, state::State};
use crate::{
    callback::Key,
    time::Timestamp,
    transaction::{
        effect::{Transition, View},
        history::Line,
        lock::LeaseId,
        state::Delivery,
    },
};

/// The engine.
#[derive(Debug)]
pub struct Memory {
    state: Mutex<State>,
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self { state: Mutex::new(State::new(options)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that runs under this lock panics half-way through a change: all checks come before the first write.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    async fn load(&self, want: Want<'_>, now: Timestamp) -> Result<View, StoreError> {
        Ok(self.lock().look(want, now))
    }

    async fn commit(&self, transition: Transition, now: Timestamp) -> Result<Vec<LeaseId>, CommitError> {
        self.lock().commit(transition, now)
    }

    async fn due(&self, now: Timestamp, limit: usize) -> Result<Vec<Due>, StoreError> {
        Ok(self.lock().due(now, limit))
    }

    async fn forget(&self, now: Timestamp, limit: usize) -> Result<bool, StoreError> {
        Ok(self.lock().forget(now, limit, |_| ()))
    }

    fn note(&self, lines: Vec<Line>) {
        let mut state = self.lock();
        lines.into_iter().for_each(|line| state.write_line(line));
    }

    async fn history(&self, lines: Lines, after: u64, limit: usize) -> Result<Vec<(u64, Line)>, StoreError> {
        Ok(self.lock().history(lines, after, limit))
    }

    async fn called(&self, reference: &str, limit: usize) -> Result<Vec<Key>, StoreError> {
        Ok(self.lock().called(reference, limit))
    }

    async fn reviews(&self, after: (Timestamp, LeaseId), limit: usize) -> Result<Vec<Delivery>, StoreError> {
        Ok(self.lock().reviews(after, limit))
    }

    fn counts(&self) -> Counts {
        self.lock().counts()
    }
}
