//! What is noted of each callback: one count per event, and one line per callback with the decision and why.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use dashmap::DashMap;
use http::{HeaderValue, Response, StatusCode};
use tokio::time::Instant;

use super::{DECISION_HEADER, Reply, reading::Reading};
use crate::{
    callback::{Channel, Key},
    telemetry::{CallbackCounters, CallbackLine, Metrics, log_callback},
    transaction::transition::Decision,
};

/// The counters that are at hand without asking the registry.
pub struct Book {
    /// The registry.
    pub metrics: Arc<Metrics>,
    counters: DashMap<(Arc<str>, &'static str, Channel), CallbackCounters>,
}

impl Book {
    /// A book over a registry.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, counters: DashMap::new() }
    }

    fn count(&self, noted: &Noted) {
        let key = (Arc::clone(&noted.rule), noted.provider, noted.channel);
        let counters = self.counters.get(&key).map(|counters| counters.clone());
        let counters = counters.unwrap_or_else(|| {
            let made = self.metrics.callback_counters(&noted.rule, noted.provider, noted.channel);
            self.counters.entry(key).or_insert(made).clone()
        });
        noted.decisions.iter().for_each(|decision| counters.count(decision.as_str()));
    }
}

/// The notes on one callback, while it is under way.
pub struct Noted {
    rule: Arc<str>,
    provider: &'static str,
    channel: Channel,
    reference: Option<String>,
    event_id: Option<String>,
    event_type: Option<String>,
    identity: Option<Key>,
    decisions: Vec<Decision>,
    /// The reason, in a sentence.
    pub why: String,
    source: IpAddr,
    started: Instant,
}

impl Noted {
    /// Begins the notes. Of a batch the line shows the first event; the counts show all.
    pub fn new(reading: &Reading, source: IpAddr) -> Self {
        let first = reading.statements.as_ref().ok().and_then(|statements| statements.first());
        let event = first.map(|statement| &statement.event);
        Self {
            rule: Arc::clone(&reading.policy.rule),
            provider: reading.provider.name,
            channel: reading.claimed.channel,
            reference: event.map(|event| event.reference.clone()).or_else(|| reading.reference.clone()),
            event_id: event.and_then(|event| event.event_id.clone()),
            event_type: event.and_then(|event| event.event_type.clone()),
            identity: first.map(|statement| statement.identified.identity),
            decisions: Vec::new(),
            why: String::new(),
            source,
            started: Instant::now(),
        }
    }

    /// One decision on the callback as a whole.
    pub fn decision(&mut self, decision: Decision, why: &str) {
        self.decisions(&[decision], why);
    }

    /// One decision for each event.
    pub fn decisions(&mut self, decisions: &[Decision], why: &str) {
        self.decisions.clear();
        self.decisions.extend_from_slice(decisions);
        self.why.clear();
        self.why.push_str(why);
    }

    /// Ends the notes with what the caller hears, which says what was decided.
    pub fn tell<B>(self, book: &Book, mut response: Response<Bytes>) -> Reply<B> {
        if let (Channel::Webhook, Some(decision)) = (self.channel, self.leading()) {
            response.headers_mut().insert(DECISION_HEADER, HeaderValue::from_static(decision.as_str()));
        }
        self.end(book, response.status());
        Reply::Whole(response)
    }

    /// Ends the notes with the status that the caller hears.
    pub fn end(&self, book: &Book, answered: StatusCode) {
        book.count(self);
        log_callback(&CallbackLine {
            rule: &self.rule,
            provider: self.provider,
            channel: self.channel,
            decision: self.leading().map_or("", Decision::as_str),
            reference: self.reference.as_deref(),
            event_id: self.event_id.as_deref(),
            event_type: self.event_type.as_deref(),
            identity: self.identity,
            client: Some(self.source),
            waited: self.started.elapsed(),
            upstream_status: None,
            answered: Some(answered),
            why: &self.why,
        });
    }

    /// The decision that speaks for the callback: of a batch that brings something new, the new one.
    fn leading(&self) -> Option<Decision> {
        let new = self.decisions.iter().find(|decision| !matches!(decision, Decision::Repeated));
        new.or(self.decisions.first()).copied()
    }
}
