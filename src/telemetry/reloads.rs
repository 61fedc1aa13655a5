//! What became of the configurations that were to be taken up while the gate runs.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use super::metrics::Registration;
use crate::time::Timestamp;

/// What became of one; the label `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// It holds.
    Applied,
    /// It has faults, or something of it cannot be had: the one before stays.
    Refused,
    /// It is the one that holds already.
    Unchanged,
}

impl Reloaded {
    const ALL: [Self; 3] = [Self::Applied, Self::Refused, Self::Unchanged];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
            Self::Unchanged => "unchanged",
        }
    }
}

/// The figures of it.
#[derive(Debug)]
pub struct Reloads {
    counters: [Counter; Reloaded::ALL.len()],
    successful: Gauge,
    success: Gauge<f64, AtomicU64>,
    restart: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: &'static str,
}

impl Reloads {
    pub(super) fn new(of: &mut Registration) -> Self {
        let reloads = of.add(
            "config_reloads",
            "Configurations to be taken up while running, by what became of them",
            Family::<Labels, Counter>::default(),
        );
        Self {
            counters: Reloaded::ALL.map(|result| reloads.get_or_create_owned(&Labels { result: result.as_str() })),
            successful: of.add(
                "config_last_reload_successful",
                "Whether the gate runs by the configuration that was read last",
                Gauge::default(),
            ),
            success: of.add(
                "config_last_reload_success_timestamp_seconds",
                "When a configuration was last read without faults",
                Gauge::default(),
            ),
            restart: of.add(
                "config_restart_needed",
                "Whether the configuration has changed in keys that hold from the next start on",
                Gauge::default(),
            ),
        }
    }

    /// The gate has been started by a configuration.
    pub fn started(&self, now: Timestamp) {
        self.succeeded(now);
    }

    /// Notes what became of one.
    pub fn note(&self, reloaded: Reloaded, now: Timestamp) {
        self.counters[reloaded as usize].inc();
        match reloaded {
            Reloaded::Applied | Reloaded::Unchanged => self.succeeded(now),
            Reloaded::Refused => _ = self.successful.set(0),
        }
    }

    /// Notes whether keys have changed that hold from the next start on.
    pub fn restart_needed(&self, needed: bool) {
        self.restart.set(i64::from(needed));
    }

    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are exact in a double")]
    fn succeeded(&self, now: Timestamp) {
        self.successful.set(1);
        self.success.set(now.as_millis() as f64 / 1000.0);
    }
}
