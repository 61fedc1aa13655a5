//! The figures and the log, as those see them who run the gate.

use std::{
    collections::BTreeSet,
    io::{self, Write},
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use http::StatusCode;
use oncegate::{
    callback::{Answer, Channel, Key},
    telemetry::{
        CallbackLine, DECISIONS, JOINED_BY, LogFormat, LogOptions, LogSink, Metrics, OUTCOMES, RequestKind, dispatcher,
        log_callback,
    },
    transaction::arrival::Decision,
    transaction::effect::Ending,
};
use prometheus_client::metrics::counter::Counter;

const CARD: &str = "4111111111111111";

#[test]
fn every_promised_metric_is_there_with_its_labels() {
    let metrics = Metrics::new();
    let counters = metrics.callback_counters(&Arc::from("ninja"), "mollie", Channel::Webhook);
    DECISIONS.iter().for_each(|decision| counters.count(decision));
    OUTCOMES.iter().for_each(|outcome| metrics.count_delivery("mollie", outcome));
    JOINED_BY.iter().for_each(|by| metrics.count_joined(by));
    metrics.count_request(RequestKind::Callback);
    metrics.observe_lock_wait(Channel::Return, Duration::from_millis(30));
    metrics.delivery_seconds.observe(0.2);
    metrics.set_upstream_up(Some(true));
    metrics.set_oldest_due(Duration::from_millis(1500));
    let page = metrics.render();

    for decision in DECISIONS {
        let series = format!(
            "oncegate_callbacks_total{{rule=\"ninja\",provider=\"mollie\",channel=\"webhook\",decision=\"{decision}\"}} 1"
        );
        assert!(page.contains(&series), "{series} is not in\n{page}");
    }
    for line in [
        "oncegate_deliveries_total{provider=\"mollie\",outcome=\"unknown\"} 1",
        "oncegate_joined_total{by=\"learned\"} 1",
        "oncegate_requests_total{kind=\"callback\"} 1",
        "oncegate_requests_total{kind=\"passthrough\"} 0",
        "oncegate_lock_wait_seconds_count{channel=\"return\"} 1",
        "oncegate_delivery_seconds_sum 0.2",
        "oncegate_upstream_up 1",
        "oncegate_oldest_due_seconds 1.5",
        &format!("oncegate_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION")),
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    for name in [
        "hold_seconds",
        "added_latency_seconds",
        "store_commit_seconds",
        "waiters",
        "in_flight",
        "review_entries",
        "review_oldest_seconds",
        "remembered_events",
        "connections",
        "log_lines_dropped",
        "forgotten_early",
    ] {
        assert!(page.contains(&format!("# TYPE oncegate_{name} ")), "oncegate_{name} is not in\n{page}");
    }
    assert!(page.ends_with("# EOF\n"));
}

#[test]
fn a_hundred_thousand_references_and_rule_names_make_no_more_series() {
    let metrics = Metrics::new();
    let counters = metrics.callback_counters(&Arc::from("ninja"), "mollie", Channel::Webhook);
    let log = Log::start(LogFormat::Human);
    let count = |reference: &str| {
        counters.count("first");
        log_callback(&line(reference));
    };
    let mut series = BTreeSet::new();
    log.during(|| {
        count("tr_0");
        series = names(&metrics);
        (0..100_000_u32).for_each(|n| count(&format!("tr_{:08x}", n.wrapping_mul(2_654_435_761))));
    });
    assert_eq!(names(&metrics), series);
    assert!(!metrics.render().contains("tr_"));

    for n in 0..100_000 {
        metrics.callback_counters(&Arc::from(format!("rule-{n}")), "mollie", Channel::Return).count("returned");
    }
    let rules = names(&metrics).iter().filter(|name| name.contains("returned")).count();
    assert!(rules <= 256, "{rules} rules are shown");
}

#[test]
fn a_hostile_rule_name_does_not_break_the_page() {
    let metrics = Metrics::new();
    metrics.callback_counters(&Arc::from("a\"} 9\nevil 1"), "mollie", Channel::Webhook).count("first");
    assert!(metrics.render().lines().all(|line| !line.starts_with("evil")));
}

#[test]
fn a_callback_leaves_one_line_that_says_what_was_decided_and_why() {
    let log = Log::start(LogFormat::Json);
    log.during(|| log_callback(&line("tr_7UhSN1zuXS")));
    let [only] = &log.lines()[..] else { panic!("one line") };
    let said: serde_json::Value = serde_json::from_str(only).unwrap();
    let expected = [
        ("rule", "ninja"),
        ("provider", "mollie"),
        ("channel", "webhook"),
        ("decision", "joined"),
        ("reference", "tr_7UhSN1zuXS"),
        ("event_type", "payment.paid"),
        ("client", "192.0.2.7"),
        ("why", "the same event is held"),
    ];
    for (field, value) in expected {
        assert_eq!(said[field], value, "{field} in {said}");
    }
    assert_eq!(said["waited_ms"], 1250);
    assert_eq!(said["upstream_status"], 200);
    assert_eq!(said["identity"].as_str().map(str::len), Some(32));
    assert!(said.get("event_id").is_none(), "what is not there is not logged: {said}");
}

#[test]
fn a_hostile_reference_leaves_one_escaped_line() {
    let hostile = "tr_1\r\n\x1b[31mERROR forged\u{202e}gnp\u{2028}\u{9b}x\" decision=\"first";
    for format in [LogFormat::Human, LogFormat::Json] {
        let log = Log::start(format);
        log.during(|| log_callback(&line(hostile)));
        let [only] = &log.lines()[..] else { panic!("one line of {format:?}: {:?}", log.lines()) };
        assert!(only.chars().all(|c| !c.is_control() && !"\u{202e}\u{2028}".contains(c)), "{only:?}");
        assert_eq!(only.matches("decision=\"joined\"").count(), usize::from(format == LogFormat::Human), "{only}");
        assert_eq!(only.matches(" decision=\"first\"").count(), 0, "a forged field: {only}");
        if format == LogFormat::Json {
            let said: serde_json::Value = serde_json::from_str(only).unwrap();
            assert_eq!(said["reference"], hostile, "whoever reads the JSON gets it back");
        }
    }
}

#[test]
fn a_hostile_message_leaves_one_escaped_line_too() {
    for format in [LogFormat::Human, LogFormat::Json] {
        let log = Log::start(format);
        log.during(|| tracing::warn!("could not read {}", "a\r\nb\x1b[2J\u{202e}"));
        assert_eq!(log.lines().len(), 1, "{:?}", log.lines());
        assert!(log.lines()[0].chars().all(|c| !c.is_control() && c != '\u{202e}'));
    }
}

#[test]
fn a_card_number_is_never_written_out() {
    for format in [LogFormat::Human, LogFormat::Json] {
        let log = Log::start(format);
        let id = format!("ref{CARD}");
        let why = format!("no such payment: {CARD}");
        log.during(|| {
            log_callback(&CallbackLine { event_id: Some(&id), event_type: Some(CARD), why: &why, ..line(CARD) });
        });
        let text = log.lines().join("\n");
        assert!(!text.contains(CARD), "{text}");
        assert_eq!(text.matches("411111******1111").count(), 4, "{text}");
    }
}

#[test]
fn an_endless_reference_leaves_a_bounded_line() {
    let log = Log::start(LogFormat::Human);
    log.during(|| log_callback(&line(&"x".repeat(1024 * 1024))));
    assert!(log.lines()[0].len() < 1024);
}

#[test]
fn callback_lines_can_be_switched_off_while_the_rest_stays() {
    let log = Log::with(LogOptions { callbacks: false, ..LogOptions::default() });
    log.during(|| {
        log_callback(&line("tr_1"));
        tracing::info!(target: "oncegate::store", "compacted");
        tracing::info!(target: "hyper", "not ours");
    });
    assert_eq!(log.lines().len(), 1);
    assert!(log.lines()[0].contains("compacted"));
}

#[test]
fn a_reader_that_has_stopped_neither_stalls_the_gate_nor_fills_its_memory() {
    let (release, stuck) = mpsc::channel::<()>();
    let dropped = Counter::default();
    let (sink, guard) = LogSink::new(Stuck(stuck), dropped.clone());
    let log = dispatcher(LogOptions::default(), sink);
    let began = tokio::time::Instant::now();
    tracing::dispatcher::with_default(&log, || {
        (0..20_000).for_each(|n| log_callback(&line(&format!("tr_{n}"))));
    });
    assert!(began.elapsed() < Duration::from_secs(10));
    assert!(dropped.get() > 1000, "20,000 lines are more than the backlog holds: {}", dropped.get());
    drop(release);
    drop(guard);
}

fn line(reference: &str) -> CallbackLine<'_> {
    CallbackLine {
        rule: "ninja",
        provider: "mollie",
        channel: Channel::Webhook,
        decision: "joined",
        reference: Some(reference),
        event_id: None,
        event_type: Some("payment.paid"),
        identity: Some(Key::of("test").finish()),
        client: "::ffff:192.0.2.7".parse().ok(),
        waited: Duration::from_millis(1250),
        upstream_status: Some(StatusCode::OK),
        answered: Some(StatusCode::OK),
        why: "the same event is held",
    }
}

/// The names of all series: each line of the page without its value.
fn names(metrics: &Metrics) -> BTreeSet<String> {
    metrics.render().lines().filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

/// A log that can be read back.
struct Log {
    options: LogOptions,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Log {
    fn start(format: LogFormat) -> Self {
        Self::with(LogOptions { format, ..LogOptions::default() })
    }

    fn with(options: LogOptions) -> Self {
        Self { options, written: Arc::default() }
    }

    fn during(&self, work: impl FnOnce()) {
        let (sink, guard) = LogSink::new(Shared(Arc::clone(&self.written)), Counter::default());
        tracing::dispatcher::with_default(&dispatcher(self.options, sink), work);
        drop(guard);
    }

    fn lines(&self) -> Vec<String> {
        let written = self.written.lock().expect("no writer panicked").clone();
        String::from_utf8(written).expect("text").split('\n').filter(|l| !l.is_empty()).map(str::to_owned).collect()
    }
}

struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no reader panicked").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Takes nothing until it is released.
struct Stuck(mpsc::Receiver<()>);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Every decision after the one before it; a new one that is left out does not compile.
fn decision_after(decision: Decision) -> Option<Decision> {
    use Decision::*;
    match decision {
        First => Some(Joined),
        Joined => Some(Replayed),
        Replayed => Some(NewState),
        NewState => Some(Repeated),
        Repeated => Some(Stale),
        Stale => Some(SecondPayment),
        SecondPayment => Some(Conflict),
        Conflict => Some(Unverified),
        Unverified => Some(Unrecognised),
        Unrecognised => Some(Overflow),
        Overflow => Some(Returned),
        Returned => None,
    }
}

#[test]
fn the_words_of_decisions_and_endings_are_the_labels() {
    let decisions: Vec<_> = std::iter::successors(Some(Decision::First), |decision| decision_after(*decision))
        .map(Decision::as_str)
        .collect();
    assert_eq!(decisions, DECISIONS);
    let answer = || Arc::new(Answer { status: StatusCode::OK, content_type: None, body: None });
    let endings = [
        Ending::Accepted(answer()),
        Ending::Rejected(answer()),
        Ending::NotSent(String::new()),
        Ending::Unknown(String::new(), None),
    ];
    assert_eq!(endings.map(|ending| ending.as_str()), OUTCOMES);
}
