//! The figures that `/metrics` shows, under the names that the README lists.
//!
//! Labels take their values from the configuration and from fixed lists only; nothing that comes with a request is
//! ever a label.

use std::{
    collections::BTreeSet,
    fmt,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicI8, AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, text},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
        info::Info,
    },
    registry::{Metric, Registry},
};

use super::{Exposition, process::Process, reloads::Reloads};
use crate::{callback::Channel, time::Timestamp};

/// What is decided about one event; the label `decision`.
pub const DECISIONS: [&str; 12] = [
    "first",
    "joined",
    "replayed",
    "new_state",
    "repeated",
    "stale",
    "second_payment",
    "conflict",
    "unverified",
    "unrecognised",
    "overflow",
    "returned",
];

/// What came of an attempt; the label `outcome`.
pub const OUTCOMES: [&str; 4] = ["accepted", "rejected", "not_sent", "unknown"];

/// What came of a question to a provider; the label `result`.
pub const INQUIRIES: [&str; 10] =
    ["found", "another", "not_found", "refused", "limited", "unreadable", "failed", "timeout", "resting", "crowded"];

/// What became of a payment that was waited for; the label `result`.
pub const MISSING: [&str; 6] = ["delivered", "known", "unpaid", "unknown", "placeless", "off"];

/// What came of a question to the app's own database; the label `result`.
pub const LOOKUPS: [&str; 9] =
    ["found", "not_found", "refused", "wrong", "failed", "timeout", "resting", "crowded", "limited"];

/// What came of asking the app's own books about what was unknown; the label `result`.
pub const CONFIRMATIONS: [&str; 4] = ["booked", "not_booked", "no_answer", "nobody"];

/// How a webhook and a return were found to belong together; the label `by` (`none`: they were kept apart by channel).
pub const JOINED_BY: [&str; 5] = ["callback", "inquiry", "lookup", "learned", "none"];

/// The label of whatever is in none of the lists, so that a slip of ours cannot multiply the series.
const OTHER: &str = "other";
/// How many names of rules are shown, reloads included; the others are counted together.
const RULES_SHOWN: usize = 256;

/// Holds are set in seconds, mostly to whole ones, and end early when the payer has been through.
const HOLDS: [f64; 14] = [0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0, 30.0];
/// Turns and answers: from a millisecond to the longest wait of a return, and beyond.
const WAITS: [f64; 16] =
    [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
/// Our own work, from 10 microseconds on; what waits for a disk takes thousands of them.
const WORK: [f64; 16] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 2.0,
];
/// Our own work, and the hold and the turn where there were any.
const ADDED: [f64; 20] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 2.0,
    2.5, 5.0, 10.0, 30.0, 60.0,
];

type Seconds = Gauge<f64, AtomicU64>;

/// All figures of one gate.
pub struct Metrics {
    registry: Registry,
    /// The figures that are the same for every program, and so do not begin with our name.
    process: Registry,
    callbacks: Family<CallbackLabels, Counter>,
    rules: Mutex<BTreeSet<Arc<str>>>,
    deliveries: Family<DeliveryLabels, Counter>,
    inquiries: Family<InquiryLabels, Counter>,
    missing: Family<InquiryLabels, Counter>,
    lookups: Family<ResultLabels, Counter>,
    confirmations: Family<ResultLabels, Counter>,
    joined: Family<JoinedLabels, Counter>,
    joined_by: [Counter; JOINED_BY.len()],
    acknowledged: [Counter; 2],
    requests: [Counter; 2],
    lock_wait: Channels<Histogram>,
    /// From an attempt's first byte to the end of its answer.
    pub delivery_seconds: Histogram,
    /// How long providers took over questions, tries and pauses included.
    pub inquiry_seconds: Histogram,
    /// How long the app's database took over questions, connections included.
    pub lookup_seconds: Histogram,
    /// How long webhooks were held before they were forwarded.
    pub hold_seconds: Histogram,
    /// What the gate itself took of a callback's time: hold, turn and work, without the app.
    pub added_latency_seconds: Histogram,
    /// How long the store took to make a decision durable.
    pub store_commit_seconds: Histogram,
    /// Callers that wait for a delivery's answer or for their turn.
    pub waiters: Gauge,
    /// Callbacks that are in the app.
    pub in_flight: Gauge,
    /// Deliveries that wait for a person.
    pub review_entries: Gauge,
    /// Identities that are remembered.
    pub remembered_events: Gauge,
    /// By how much the clock had jumped at the start, while nothing is forgotten because of it.
    pub clock_jump_seconds: Gauge,
    /// Open connections from callers.
    pub connections: Gauge,
    /// Handshakes of TLS, by how they ended.
    pub handshakes: Handshakes,
    certificate_expiry: Family<NameLabels, Gauge>,
    certificate_reloads: [Counter; 2],
    /// Log lines that were given up because whoever reads the log is too slow.
    pub log_lines_dropped: Counter,
    /// What became of new configurations.
    pub reloads: Reloads,
    oldest_due: Seconds,
    review_oldest: Seconds,
    /// Deliveries that were acknowledged and are on their way.
    pub owed_deliveries: Gauge,
    owed_oldest: Seconds,
    upstream_up: Once,
    /// Whether callbacks are kept from the app because it seems to be down.
    pub upstream_shut: Gauge,
    /// Callbacks that were kept from it.
    pub upstream_kept_back: Counter,
    upstream_connects: [Counter; 2],
    forgotten_early: Counter,
    failed_expressions: Counter,
    late_link: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Figures that all stand at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut of = Registration(Registry::with_prefix("oncegate"));
        let requests = Family::<RequestLabels, Counter>::default();
        let lock_wait = Family::<ChannelLabels, Histogram>::new_with_constructor(|| Histogram::new(WAITS));
        of.add("requests", "Requests, by whether they are callbacks", requests.clone());
        of.add("lock_wait_seconds", "How long callbacks waited for their turn", lock_wait.clone());
        let handshakes = Family::<ResultLabels, Counter>::default();
        let certificate_reloads = Family::<ResultLabels, Counter>::default();
        let result =
            |family: &Family<ResultLabels, Counter>, result| family.get_or_create_owned(&ResultLabels { result });
        of.add("handshakes", "Handshakes of TLS, by how they ended", handshakes.clone());
        of.add(
            "certificate_reloads",
            "Changes of certificate files, by whether what was found in them is shown now",
            certificate_reloads.clone(),
        );
        of.0.register("build", "What runs here", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        let connects = Family::<ResultLabels, Counter>::default();
        of.add("upstream_connects", "New connections to the app, by whether they came to stand", connects.clone());
        let joined = Family::<JoinedLabels, Counter>::default();
        let joined_by = JOINED_BY.map(|by| joined.get_or_create_owned(&JoinedLabels { by }));
        let acknowledged = Family::<JoinedLabels, Counter>::default();
        of.add(
            "acknowledged",
            "Webhooks that were acknowledged before the app had them, by the key that says so",
            acknowledged.clone(),
        );
        let mut process = Registry::default();
        process.register_collector(Box::new(Process));
        Self {
            callbacks: of.add("callbacks", "Events in callbacks, by what was decided about them", Family::default()),
            rules: Mutex::default(),
            deliveries: of.add(
                "deliveries",
                "Attempts to bring an event to the app, by what came of them",
                Family::default(),
            ),
            inquiries: of.add("inquiries", "Questions to providers, by what came of them", Family::default()),
            lookups: of.add("lookups", "Questions to the app's own database, by what came of them", Family::default()),
            confirmations: of.add(
                "confirmations",
                "Questions to the app's own books about what was unknown, by what came of them",
                Family::default(),
            ),
            joined_by,
            joined: of.add("joined", "Callbacks, by how the other channel's names were found", joined),
            acknowledged: ["accept", "answer_within"].map(|by| acknowledged.get_or_create_owned(&JoinedLabels { by })),
            requests: RequestKind::ALL.map(|kind| requests.get_or_create_owned(&RequestLabels { kind: kind.as_str() })),
            lock_wait: Channels::of(|channel| {
                lock_wait.get_or_create_owned(&ChannelLabels { channel: channel.as_str() })
            }),
            delivery_seconds: of.add(
                "delivery_seconds",
                "How long the app took over a callback",
                Histogram::new(WAITS),
            ),
            missing: of.add(
                "missing_callbacks",
                "Payments that were waited for, by what became of that",
                Family::default(),
            ),
            inquiry_seconds: of.add("inquiry_seconds", "How long providers took over questions", Histogram::new(WAITS)),
            lookup_seconds: of.add(
                "lookup_seconds",
                "How long the app's database took over questions",
                Histogram::new(WAITS),
            ),
            hold_seconds: of.add("hold_seconds", "How long webhooks were held", Histogram::new(HOLDS)),
            added_latency_seconds: of.add(
                "added_latency_seconds",
                "What the gate itself took of a callback's time: hold, turn and work, without the app",
                Histogram::new(ADDED),
            ),
            store_commit_seconds: of.add(
                "store_commit_seconds",
                "How long the store took over a commit",
                Histogram::new(WORK),
            ),
            waiters: of.add("waiters", "Callers that wait for an answer or for their turn", Gauge::default()),
            in_flight: of.add("in_flight", "Callbacks that are in the app", Gauge::default()),
            review_entries: of.add("review_entries", "Deliveries that wait for a person", Gauge::default()),
            remembered_events: of.add("remembered_events", "Identities that are remembered", Gauge::default()),
            clock_jump_seconds: of.add(
                "clock_jump_seconds",
                "Seconds from what was written last to the clock at the start, while nothing is forgotten because of it",
                Gauge::default(),
            ),
            connections: of.add("connections", "Open connections from callers", Gauge::default()),
            handshakes: Handshakes(Handshake::ALL.map(|ended| result(&handshakes, ended.as_str()))),
            certificate_expiry: of.add(
                "certificate_expiry_timestamp_seconds",
                "When the certificate that is shown ceases to be valid, in seconds since 1970",
                Family::default(),
            ),
            certificate_reloads: ["taken", "refused"].map(|taken| result(&certificate_reloads, taken)),
            log_lines_dropped: of.add(
                "log_lines_dropped",
                "Log lines given up, the reader being slow",
                Counter::default(),
            ),
            reloads: Reloads::new(&mut of),
            oldest_due: of.add("oldest_due_seconds", "How long the oldest due work has been due", Seconds::default()),
            review_oldest: of.add(
                "review_oldest_seconds",
                "How long the oldest delivery has waited for a person",
                Seconds::default(),
            ),
            owed_deliveries: of.add(
                "owed_deliveries",
                "Deliveries that were acknowledged and that the app does not have yet",
                Gauge::default(),
            ),
            owed_oldest: of.add("owed_oldest_seconds", "How long ago the oldest of them came", Seconds::default()),
            upstream_up: of.add(
                "upstream_up",
                "Whether the app could be reached at the last try; absent before the first",
                Once::default(),
            ),
            upstream_shut: of.add(
                "upstream_shut",
                "Whether callbacks are kept from the app because it seems to be down",
                Gauge::default(),
            ),
            upstream_kept_back: of.add(
                "upstream_kept_back",
                "Tries of callbacks that were put off because the app seemed to be down",
                Counter::default(),
            ),
            upstream_connects: ["connected", "failed"]
                .map(|result| connects.get_or_create_owned(&ResultLabels { result })),
            forgotten_early: of.add(
                "forgotten_early",
                "Settled payments that were forgotten before their time, for want of room",
                Counter::default(),
            ),
            failed_expressions: of.add(
                "failed_expressions",
                "How often a rule's `when` failed, so that the rule did not match",
                Counter::default(),
            ),
            late_link: of.add(
                "late_link",
                "Names that became known when a callback was in the app without them",
                Counter::default(),
            ),
            process,
            registry: of.0,
        }
    }

    /// Adds a figure that a part brings with it; `oncegate_` is put in front of its name.
    pub fn register(&mut self, name: &str, help: &str, metric: impl Metric) {
        self.registry.register(name, help, metric);
    }

    /// The counters of the callbacks that one rule decides, of one provider and channel; to be kept by who counts often.
    #[must_use]
    pub fn callback_counters(&self, rule: &Arc<str>, provider: &'static str, channel: Channel) -> CallbackCounters {
        CallbackCounters {
            family: self.callbacks.clone(),
            rule: self.bounded(rule),
            provider,
            channel,
            counters: Arc::default(),
        }
    }

    /// Counts one attempt to bring an event to the app.
    pub fn count_delivery(&self, provider: &'static str, outcome: &'static str) {
        let outcome = known(&OUTCOMES, outcome);
        self.deliveries.get_or_create(&DeliveryLabels { provider, outcome }).inc();
    }

    /// Counts one question to a provider (see [`INQUIRIES`]).
    pub fn count_inquiry(&self, provider: &'static str, result: &'static str) {
        let result = known(&INQUIRIES, result);
        self.inquiries.get_or_create(&InquiryLabels { provider, result }).inc();
    }

    /// Counts one payment that was waited for (see [`MISSING`]).
    pub fn count_missing(&self, provider: &'static str, result: &'static str) {
        let result = known(&MISSING, result);
        self.missing.get_or_create(&InquiryLabels { provider, result }).inc();
    }

    /// Counts one question to the app's database (see [`LOOKUPS`]).
    pub fn count_lookup(&self, result: &'static str) {
        self.lookups.get_or_create(&ResultLabels { result: known(&LOOKUPS, result) }).inc();
    }

    /// Counts one question to the app's own books about what was unknown (see [`CONFIRMATIONS`]).
    pub fn count_confirmation(&self, result: &'static str) {
        self.confirmations.get_or_create(&ResultLabels { result: known(&CONFIRMATIONS, result) }).inc();
    }

    /// Counts one callback by how it was joined (see [`JOINED_BY`]).
    pub fn count_joined(&self, by: &'static str) {
        match JOINED_BY.iter().position(|known| *known == by) {
            Some(place) => _ = self.joined_by[place].inc(),
            None => _ = self.joined.get_or_create(&JoinedLabels { by: OTHER }).inc(),
        }
    }

    /// Counts a webhook that was acknowledged before the app had it: at once, or because the app was slow.
    pub fn count_acknowledged(&self, at_once: bool) {
        self.acknowledged[usize::from(!at_once)].inc();
    }

    /// Notes how many links have come too late since the start.
    pub fn set_late_links(&self, count: u64) {
        self.late_link.inner().fetch_max(count, Ordering::Relaxed);
    }

    /// Counts one request.
    pub fn count_request(&self, kind: RequestKind) {
        self.requests[kind as usize].inc();
    }

    /// Notes how long a callback waited for its turn.
    pub fn observe_lock_wait(&self, channel: Channel, wait: Duration) {
        self.lock_wait.get(channel).observe(wait.as_secs_f64());
    }

    /// Notes until when the certificate that is shown under this name of the configuration is valid.
    pub fn set_certificate_expiry(&self, name: &Arc<str>, expires: Timestamp) {
        let seconds = i64::try_from(expires.as_millis() / 1000).unwrap_or(i64::MAX);
        self.certificate_expiry.get_or_create(&NameLabels { name: Arc::clone(name) }).set(seconds);
    }

    /// Counts a change of certificate files, and whether what was found is shown now.
    pub fn count_certificate_reload(&self, taken: bool) {
        self.certificate_reloads[usize::from(!taken)].inc();
    }

    /// Notes for how long the oldest due work has been due.
    pub fn set_oldest_due(&self, age: Duration) {
        self.oldest_due.set(age.as_secs_f64());
    }

    /// Notes for how long the oldest delivery has waited for a person; zero where none does.
    pub fn set_review_oldest(&self, age: Duration) {
        self.review_oldest.set(age.as_secs_f64());
    }

    /// Notes how long ago the oldest came of what was acknowledged and is on its way; zero where nothing is.
    pub fn set_owed_oldest(&self, age: Duration) {
        self.owed_oldest.set(age.as_secs_f64());
    }

    /// Notes whether the app could be reached at the last try, if there was one.
    pub fn set_upstream_up(&self, up: Option<bool>) {
        self.upstream_up.set(up);
    }

    /// Notes how many new connections to the app have come to stand so far, and how many have not.
    pub fn set_upstream_connects(&self, connected: u64, failed: u64) {
        let [stood, fell] = &self.upstream_connects;
        stood.inner().store(connected, Ordering::Relaxed);
        fell.inner().store(failed, Ordering::Relaxed);
    }

    /// Notes how many settled payments have been forgotten before their time so far.
    pub fn set_forgotten_early(&self, count: u64) {
        self.forgotten_early.inner().store(count, Ordering::Relaxed);
    }

    /// Notes how often a rule's `when` has failed so far.
    pub fn set_failed_expressions(&self, count: u64) {
        self.failed_expressions.inner().store(count, Ordering::Relaxed);
    }

    /// Puts what can be counted of a rule's callbacks and of their deliveries on the page, at zero: a first event can't
    /// be told from an old one where a series begins with it.
    pub fn foresee(&self, rule: &Arc<str>, channel: Channel, providers: &[&'static str]) {
        for provider in providers {
            let counters = self.callback_counters(rule, provider, channel);
            (0..DECISIONS.len()).filter(|place| comes(channel, DECISIONS[*place])).for_each(|place| {
                counters.counter(place);
            });
            for outcome in OUTCOMES {
                self.deliveries.get_or_create_owned(&DeliveryLabels { provider, outcome });
            }
        }
    }

    /// What can come of questions to this provider stands there from the start, at zero.
    pub fn foresee_inquiries(&self, provider: &'static str) {
        for result in INQUIRIES {
            self.inquiries.get_or_create_owned(&InquiryLabels { provider, result });
        }
    }

    /// The same for payments that are waited for.
    pub fn foresee_missing(&self, provider: &'static str) {
        for result in MISSING {
            self.missing.get_or_create_owned(&InquiryLabels { provider, result });
        }
    }

    /// Puts what may come of lookups on the page before the first one.
    pub fn foresee_lookups(&self) {
        for result in LOOKUPS {
            self.lookups.get_or_create_owned(&ResultLabels { result });
        }
        for result in CONFIRMATIONS {
            self.confirmations.get_or_create_owned(&ResultLabels { result });
        }
    }

    /// Everything in the `OpenMetrics` text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut page = String::with_capacity(16 * 1024);
        let written = text::encode_registry(&mut page, &self.registry)
            .and_then(|()| text::encode_registry(&mut page, &self.process))
            .and_then(|()| text::encode_eof(&mut page));
        // Writing to a string fails only if a metric's own encoder does, and then half a page is worth more than none.
        if let Err(error) = written {
            tracing::error!(%error, "the metrics could not be written in full");
        }
        page
    }

    /// Everything, written as it was asked for.
    #[must_use]
    pub fn exposed(&self, exposition: Exposition) -> String {
        exposition.write(self.render())
    }

    fn bounded(&self, rule: &Arc<str>) -> Arc<str> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        if rules.len() >= RULES_SHOWN && !rules.contains(rule) {
            return Arc::from(OTHER);
        }
        rules.insert(Arc::clone(rule));
        Arc::clone(rule)
    }
}

/// Whether a callback of this channel can get this decision.
fn comes(channel: Channel, decision: &str) -> bool {
    match channel {
        Channel::Webhook => decision != "returned",
        Channel::Return => matches!(decision, "returned" | "overflow"),
    }
}

/// A gauge that is not there before it is first set.
#[derive(Clone, Debug)]
struct Once(Arc<AtomicI8>);

impl Default for Once {
    fn default() -> Self {
        Self(Arc::new(AtomicI8::new(-1)))
    }
}

impl Once {
    fn set(&self, value: Option<bool>) {
        self.0.store(value.map_or(-1, i8::from), Ordering::Relaxed);
    }
}

impl EncodeMetric for Once {
    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        match self.0.load(Ordering::Relaxed) {
            ..0 => Ok(()),
            value => ConstGauge::new(i64::from(value)).encode(encoder),
        }
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

/// What sort of request it is; the label `kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// None of ours; it streams through.
    Passthrough,
    /// A callback.
    Callback,
}

impl RequestKind {
    const ALL: [Self; 2] = [Self::Passthrough, Self::Callback];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Passthrough => "passthrough",
            Self::Callback => "callback",
        }
    }
}

/// How a handshake of TLS ended; the label `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// Both sides agreed.
    Done,
    /// They did not, or the client went away.
    Failed,
    /// It took too long.
    Timeout,
    /// It was the oldest of too many.
    Crowded,
}

impl Handshake {
    const ALL: [Self; 4] = [Self::Done, Self::Failed, Self::Timeout, Self::Crowded];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Crowded => "crowded",
        }
    }
}

/// Counts handshakes.
#[derive(Clone, Debug, Default)]
pub struct Handshakes([Counter; Handshake::ALL.len()]);

impl Handshakes {
    /// Counts one.
    pub fn count(&self, ended: Handshake) {
        self.0[ended as usize].inc();
    }
}

/// One thing for each channel.
#[derive(Clone, Debug)]
pub struct Channels<T> {
    webhook: T,
    back: T,
}

impl<T> Channels<T> {
    /// What `make` makes for each channel.
    pub fn of(mut make: impl FnMut(Channel) -> T) -> Self {
        Self { webhook: make(Channel::Webhook), back: make(Channel::Return) }
    }

    /// The one of this channel.
    #[must_use]
    pub const fn get(&self, channel: Channel) -> &T {
        match channel {
            Channel::Webhook => &self.webhook,
            Channel::Return => &self.back,
        }
    }
}

/// The counters of one rule, provider and channel: one per decision, each made when it is first needed and from then
/// on a single atomic addition.
#[derive(Clone, Debug)]
pub struct CallbackCounters {
    family: Family<CallbackLabels, Counter>,
    rule: Arc<str>,
    provider: &'static str,
    channel: Channel,
    counters: Arc<[OnceLock<Counter>; DECISIONS.len() + 1]>,
}

impl CallbackCounters {
    /// Counts one decision (see [`DECISIONS`]).
    pub fn count(&self, decision: &'static str) {
        let place = DECISIONS.iter().position(|known| *known == decision).unwrap_or(DECISIONS.len());
        self.counters[place].get_or_init(|| self.counter(place)).inc();
    }

    fn counter(&self, place: usize) -> Counter {
        self.family.get_or_create_owned(&CallbackLabels {
            rule: Arc::clone(&self.rule),
            provider: self.provider,
            channel: self.channel.as_str(),
            decision: DECISIONS.get(place).copied().unwrap_or(OTHER),
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallbackLabels {
    rule: Arc<str>,
    provider: &'static str,
    channel: &'static str,
    decision: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InquiryLabels {
    provider: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeliveryLabels {
    provider: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JoinedLabels {
    by: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChannelLabels {
    channel: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NameLabels {
    name: Arc<str>,
}

pub(super) struct Registration(Registry);

impl Registration {
    pub(super) fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }
}

fn known(list: &[&'static str], value: &'static str) -> &'static str {
    if list.contains(&value) { value } else { OTHER }
}
