//! Whether the gate can do its work, and if not, why.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A handle on which each part notes whether it is ready; whoever holds one sees the same.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl Readiness {
    /// Nothing is ready yet: each of these parts still has to say so.
    #[must_use]
    pub fn waiting_for(parts: &[&'static str]) -> Self {
        let reasons = parts.iter().map(|part| (*part, "has not started yet".to_owned())).collect();
        Self(Arc::new(Mutex::new(reasons)))
    }

    /// This part can do its work.
    pub fn ready(&self, part: &'static str) {
        self.lock().remove(part);
    }

    /// This part cannot do its work, and why.
    pub fn not_ready(&self, part: &'static str, why: impl Into<String>) {
        self.lock().insert(part, why.into());
    }

    /// Whether every part is ready.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.lock().is_empty()
    }

    /// The parts that are not ready, each with its reason.
    #[must_use]
    pub fn reasons(&self) -> Vec<(&'static str, String)> {
        self.lock().iter().map(|(part, why)| (*part, why.clone())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
