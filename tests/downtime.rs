//! An app that is slow, or down for an hour, in virtual time: what was acknowledged arrives, in order and once.

#![expect(clippy::unwrap_used, reason = "what the test itself builds is right, or the test is wrong")]

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use http_body_util::Full;
use oncegate::{
    dispatch::{self, App, Dispatch, SendError},
    intake::{Intake, Received, Reply, reading::Rulebook},
    provider::{extract::Dialect, generic::GENERIC},
    rule::{Choices, Head, Matcher, ProviderChoice, Rule, Rules, path::Template},
    store::{
        Store,
        memory::{self, Memory},
    },
    telemetry::Metrics,
    time::{SteadyClock, Timestamp},
    transaction::{
        policy::{AnswerBy, Policy},
        state::StoredRequest,
    },
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An app that is down for a while, and writes down what it takes in.
struct Office {
    down: [Instant; 2],
    takes: Duration,
    /// What came, in the order in which it was accepted.
    accepted: Mutex<Vec<(Instant, String)>>,
    /// When somebody knocked in vain.
    in_vain: Mutex<Vec<Instant>>,
}

impl Office {
    fn is_down(&self) -> bool {
        let now = Instant::now();
        self.down[0] <= now && now < self.down[1]
    }
}

struct Door(Arc<Office>);

impl App for Door {
    type Connection = ();
    type Body = Full<Bytes>;

    async fn connect(&self) -> Result<(), String> {
        if self.0.is_down() {
            self.0.in_vain.lock().unwrap().push(Instant::now());
            return Err("connection refused".to_owned());
        }
        Ok(())
    }

    fn at_hand(&self) -> Option<()> {
        (!self.0.is_down()).then_some(())
    }

    async fn send(&self, (): (), request: &StoredRequest, _: Duration) -> Result<Response<Full<Bytes>>, SendError> {
        sleep(self.0.takes).await;
        let event = request.headers.get("x-event").map_or("return", |event| event.to_str().unwrap());
        self.0.accepted.lock().unwrap().push((Instant::now(), event.to_owned()));
        Ok(Response::new(Full::new(Bytes::from_static(b"[]"))))
    }
}

struct Gate {
    intake: Arc<Intake<Memory, Door>>,
    book: Arc<Rulebook>,
    office: Arc<Office>,
    metrics: Arc<Metrics>,
}

impl Gate {
    fn before(office: Office, places: usize, policy: Policy) -> Self {
        let office = Arc::new(office);
        let store = Memory::new(memory::Options { places, ..memory::Options::default() });
        let clock = SteadyClock::starting_at(Timestamp::from_millis(1_800_000_000_000));
        let metrics = Arc::new(Metrics::new());
        let door = Door(Arc::clone(&office));
        let dispatch = Dispatch::new(store, door, clock, Arc::clone(&metrics), dispatch::Options::default());
        tokio::spawn(Arc::clone(&dispatch).run_timers());
        let places = |text: &str| vec![text.parse().unwrap()];
        let rule = |path: &str, choices| Rule {
            matcher: Matcher { paths: vec![Template::parse(path, Dialect::Strict).unwrap()], ..Matcher::default() },
            choices,
            ..Rule::default()
        };
        let hook = Choices {
            provider: Some(ProviderChoice::Named(&GENERIC)),
            reference: Some(places("header:x-payment")),
            event_id: Some(places("header:x-event")),
            answer_within: policy.answer_within,
            ..Choices::default()
        };
        let back = Choices { channel: Some(oncegate::callback::Channel::Return), ..Choices::default() };
        let rules = Rules::new(vec![rule("/hook", hook), rule("/return", back)], policy);
        let book = Arc::new(Rulebook::new(rules, HashMap::new(), "http://app"));
        Self { intake: Intake::new(dispatch), book, office, metrics }
    }

    /// Says this event, or comes back as a payer; the status, the body, and when they were there.
    async fn says(&self, payment: &str, event: &str) -> (StatusCode, Bytes, Instant) {
        let mut headers = HeaderMap::new();
        let back = event.is_empty();
        if !back {
            headers.insert("x-payment", HeaderValue::from_str(payment).unwrap());
            headers.insert("x-event", HeaderValue::from_str(event).unwrap());
        }
        let method = if back { Method::GET } else { Method::POST };
        let uri = Uri::from_static(if back { "/return" } else { "/hook" });
        let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let head = Head { method: &method, uri: &uri, headers: &headers, host: "pay.example.org", source };
        let route = self.book.rules.classify(&head).expect("a callback");
        let (body, host) = (Bytes::new(), "pay.example.org".to_owned());
        let received = Received { method, uri, headers, body, host, source };
        let (status, body) = match Arc::clone(&self.intake).handle(Arc::clone(&self.book), route, received).await {
            Reply::Whole(response) => (response.status(), response.into_body()),
            Reply::Relayed(response) => (response.status(), Bytes::new()),
            Reply::Streamed(response) => (response.status(), Bytes::new()),
        };
        (status, body, Instant::now())
    }

    fn figure(&self, series: &str) -> usize {
        let page = self.metrics.render();
        page.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or_default()
    }
}

const HOUR: Duration = secs(3600);

#[tokio::test(start_paused = true)]
async fn what_was_accepted_while_the_app_was_down_for_an_hour_arrives_in_order_and_once() {
    let began = Instant::now();
    let down = [began + secs(60), began + secs(60) + HOUR];
    let office = Office { down, takes: secs(1) / 20, accepted: Mutex::default(), in_vain: Mutex::default() };
    let policy = Policy { answer: AnswerBy::Accept, hold: secs(1), ..Policy::default() };
    let gate = Arc::new(Gate::before(office, 4, policy));
    let mut told = JoinSet::new();
    // Three events of each payment, a minute apart, from before the app goes down until after it is back.
    for payment in 0..60_u64 {
        for event in 0..3_u64 {
            let gate = Arc::clone(&gate);
            told.spawn(async move {
                let at = began + secs(payment * 62) + secs(event * 60) + Duration::from_millis(payment * 17);
                sleep_until(at).await;
                let name = format!("p{payment}/e{event}");
                let first = gate.says(&format!("p{payment}"), &name).await;
                assert_eq!(first.0, StatusCode::OK, "{name}");
                assert!(first.2 - at < secs(1), "{name} waited for the app");
                sleep(secs(5)).await;
                assert_eq!(gate.says(&format!("p{payment}"), &name).await.0, StatusCode::OK, "{name}, told again");
            });
        }
    }
    // A payer who comes back in between knocks at the app himself, whatever is known of it.
    let payer = Arc::clone(&gate);
    told.spawn(async move {
        sleep_until(began + secs(1000)).await;
        assert_eq!(payer.says("", "").await.0, StatusCode::BAD_GATEWAY);
    });
    while let Some(told) = told.join_next().await {
        told.unwrap();
    }
    sleep(secs(600)).await;
    let accepted = gate.office.accepted.lock().unwrap().clone();
    let mut seen: HashMap<&str, Vec<&str>> = HashMap::new();
    for (_, event) in &accepted {
        let (payment, event) = event.split_once('/').unwrap();
        seen.entry(payment).or_default().push(event);
    }
    assert_eq!(seen.len(), 60);
    for (payment, events) in seen {
        assert_eq!(events, ["e0", "e1", "e2"], "{payment}");
    }
    let counts = gate.intake.dispatch().store.counts();
    assert_eq!((counts.deliveries, counts.review, counts.leases), (0, 0, 0), "nothing is left, and nobody was asked");
    // It was left alone meanwhile, and is brought what it has missed soon after it is back.
    let in_vain = gate.office.in_vain.lock().unwrap().len();
    assert!((60..200).contains(&in_vain), "{in_vain} knocks within the hour");
    let waited = accepted.iter().filter(|(at, _)| down[1] <= *at).map(|(at, _)| *at - down[1]).collect::<Vec<_>>();
    let first = waited.iter().min().unwrap();
    assert!(*first < secs(60), "{first:?}");
    let missed = waited.iter().filter(|at| **at < secs(180)).count();
    assert!(missed > 150, "{missed} of what was missed came within three minutes");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_was_told_of_is_refused_quickly_while_the_app_is_down_and_goes_when_it_is_back() {
    let began = Instant::now();
    let down = [began, began + secs(600)];
    let office = Office { down, takes: secs(1), accepted: Mutex::default(), in_vain: Mutex::default() };
    let gate = Gate::before(office, 4, Policy { hold: Duration::ZERO, ..Policy::default() });
    let mut refused = 0;
    // A provider who comes again each three seconds.
    let told = loop {
        let before = Instant::now();
        let (status, ..) = gate.says("p1", "p1/e1").await;
        match status {
            StatusCode::OK => break Instant::now(),
            StatusCode::BAD_GATEWAY => {}
            status => {
                assert_eq!((status, before.elapsed()), (StatusCode::SERVICE_UNAVAILABLE, Duration::ZERO));
                refused += 1;
            }
        }
        sleep(secs(3)).await;
    };
    assert!(refused > 150, "{refused}");
    assert_eq!(gate.figure("oncegate_upstream_kept_back_total"), refused);
    assert!(told - down[1] < secs(40), "{:?}", told - down[1]);
    assert!(!gate.intake.dispatch().is_shut() || gate.says("p1", "p1/e2").await.0 == StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn each_who_waits_is_acknowledged_after_his_own_time_and_hears_the_app_if_it_is_faster() {
    let began = Instant::now();
    let down = [began + HOUR; 2];
    let office = Office { down, takes: secs(5), accepted: Mutex::default(), in_vain: Mutex::default() };
    let policy = Policy { answer_within: Some(secs(4)), hold: Duration::ZERO, ..Policy::default() };
    let gate = Arc::new(Gate::before(office, 4, policy));
    let mut told = Vec::new();
    for at in [0, 2, 3] {
        let gate = Arc::clone(&gate);
        told.push(tokio::spawn(async move {
            sleep_until(began + secs(at)).await;
            let (status, body, at) = gate.says("p1", "p1/e1").await;
            assert_eq!(status, StatusCode::OK);
            (body, (at - began).as_secs())
        }));
    }
    let mut heard = Vec::new();
    for told in told {
        heard.push(told.await.unwrap());
    }
    let (ack, answer) = (Bytes::new(), Bytes::from_static(b"[]"));
    assert_eq!(heard, [(ack, 4), (answer.clone(), 5), (answer.clone(), 5)]);
    assert_eq!(gate.office.accepted.lock().unwrap().len(), 1);
    assert_eq!(gate.says("p1", "p1/e1").await.1, answer, "what the app said is what is remembered");
}
