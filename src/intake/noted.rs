//! What is noted of each callback: one count per event, and one line per callback with the decision and why.

use std::{borrow::Cow, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use dashmap::DashMap;
use http::{HeaderValue, Response, StatusCode};
use tokio::time::Instant;

use super::{DECISION_HEADER, Reply, reading::Reading};
use crate::{
    callback::Channel,
    dispatch::Heard,
    spread::Spread,
    telemetry::{CallbackCounters, CallbackLine, Metrics, log_callback},
    transaction::arrival::Decision,
};

/// The counters that are at hand without asking the registry.
pub struct Book {
    /// The registry.
    pub metrics: Arc<Metrics>,
    counters: DashMap<(Arc<str>, &'static str, Channel), CallbackCounters, Spread>,
}

impl Book {
    /// A book over a registry.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, counters: DashMap::default() }
    }

    fn count(&self, noted: &Noted<'_>) {
        let (rule, provider) = (&noted.reading.policy.rule, noted.reading.provider.name);
        let key = (Arc::clone(rule), provider, noted.reading.claimed.channel);
        let counters = self.counters.get(&key).map(|counters| counters.clone());
        let counters = counters.unwrap_or_else(|| {
            let made = self.metrics.callback_counters(rule, provider, key.2);
            self.counters.entry(key).or_insert(made).clone()
        });
        noted.decisions.iter().for_each(|decision| counters.count(decision.as_str()));
    }
}

/// The notes on one callback, while it is under way.
pub struct Noted<'r> {
    reading: &'r Reading,
    decisions: Vec<Decision>,
    /// The reason, in a sentence.
    pub why: Cow<'r, str>,
    source: IpAddr,
    started: Instant,
    acknowledged: bool,
    /// How long the app took, and what it answered, where it was asked for this very callback.
    app: Option<(Duration, StatusCode)>,
}

impl<'r> Noted<'r> {
    /// Begins the notes.
    pub fn new(reading: &'r Reading, source: IpAddr) -> Self {
        let (decisions, why, started) = (Vec::new(), Cow::Borrowed(""), Instant::now());
        Self { reading, decisions, why, source, started, acknowledged: false, app: None }
    }

    /// The callback came then, and was asked about since.
    pub const fn since(mut self, came: Instant) -> Self {
        self.started = came;
        self
    }

    /// One decision on the callback as a whole.
    pub fn decision(&mut self, decision: Decision, why: impl Into<Cow<'r, str>>) {
        self.decisions(vec![decision], why);
    }

    /// One decision for each event.
    pub fn decisions(&mut self, decisions: Vec<Decision>, why: impl Into<Cow<'r, str>>) {
        self.decisions = decisions;
        self.why = why.into();
    }

    /// The app was asked for this callback, took so long and answered that.
    pub const fn asked(&mut self, took: Duration, status: StatusCode) {
        self.app = Some((took, status));
    }

    /// The same for what came of a delivery.
    pub fn heard(&mut self, heard: &Heard) {
        if let Some(full) = &heard.full {
            self.asked(heard.took, full.answer.status);
        }
    }

    /// When its sender has waited so long; never, where that is beyond all time.
    pub fn waits_until(&self, patience: Duration) -> Option<Instant> {
        self.started.checked_add(patience)
    }

    /// Its sender hears success before the app has it.
    pub fn acknowledged(&mut self) {
        self.acknowledged = true;
        let why = std::mem::take(&mut self.why);
        self.why = format!("{why}; acknowledged, and the work goes on behind it").into();
    }

    /// Ends the notes with what the caller hears, which says what was decided.
    pub fn tell<B>(self, book: &Book, mut response: Response<Bytes>) -> Reply<B> {
        if let (Channel::Webhook, Some(decision)) = (self.reading.claimed.channel, self.leading()) {
            response.headers_mut().insert(&DECISION_HEADER, HeaderValue::from_static(decision.as_str()));
        }
        self.end(book, response.status());
        Reply::Whole(response)
    }

    /// Ends the notes with the status that the caller hears.
    pub fn end(&self, book: &Book, answered: StatusCode) {
        book.count(self);
        if self.acknowledged {
            book.metrics.count_acknowledged(self.reading.patience() == Some(Duration::ZERO));
        }
        let waited = self.started.elapsed();
        if let Some((took, _)) = self.app {
            book.metrics.added_latency_seconds.observe(waited.saturating_sub(took).as_secs_f64());
        }
        // Of a batch the line shows the first event; the counts show all.
        let first = self.reading.statements.as_ref().ok().and_then(|statements| statements.first());
        let event = first.map(|statement| &statement.event);
        log_callback(&CallbackLine {
            rule: &self.reading.policy.rule,
            provider: self.reading.provider.name,
            channel: self.reading.claimed.channel,
            decision: self.leading().map_or("", Decision::as_str),
            reference: event.map(|event| &*event.reference).or(self.reading.reference.as_deref()),
            event_id: event.and_then(|event| event.event_id.as_deref()),
            event_type: event.and_then(|event| event.event_type.as_deref()),
            identity: first.map(|statement| statement.identified.identity),
            client: Some(self.source),
            waited,
            upstream_status: self.app.map(|(_, status)| status),
            answered: Some(answered),
            why: &self.why,
        });
    }

    /// Whether all of it was settled before.
    pub fn is_a_repeat(&self) -> bool {
        !self.decisions.is_empty() && self.decisions.iter().all(|decision| *decision == Decision::Replayed)
    }

    /// The decision that speaks for the callback: of a batch that brings something new, the new one.
    fn leading(&self) -> Option<Decision> {
        let new = self.decisions.iter().find(|decision| !matches!(decision, Decision::Repeated));
        new.or(self.decisions.first()).copied()
    }
}
