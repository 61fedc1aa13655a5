//! What one webhook costs from its whole request to its answer, without sockets: `cargo bench --bench intake`.
//!
//! The app answers at once; the figures are nanoseconds per callback, the best of several rounds. With a word behind `--`
//! only what has it in its name is measured, as for counting instructions.

use std::{hint::black_box, io::Write, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri};
use http_body_util::Full;
use oncegate::{
    config::{Loaded, World},
    dispatch::{self, App, Dispatch, SendError},
    intake::{Intake, Received, reading::Rulebook},
    rule::{Head, Rules},
    store::memory::{self, Memory},
    telemetry::Metrics,
    time::{SteadyClock, Timestamp},
    transaction::state::StoredRequest,
};
use tokio::time::Instant;

const ROUNDS: usize = 7;
const CALLBACKS: usize = 20_000;

struct AtOnce;

impl App for AtOnce {
    type Connection = ();
    type Body = Full<Bytes>;

    async fn connect(&self) -> Result<(), String> {
        Ok(())
    }

    fn at_hand(&self) -> Option<()> {
        Some(())
    }

    async fn send(&self, (): (), request: &StoredRequest, _: Duration) -> Result<Response<Full<Bytes>>, SendError> {
        black_box(request);
        let mut response = Response::new(Full::from("{\"ok\": true}"));
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        Ok(response)
    }
}

fn config(reference: &str) -> Rules {
    let text = format!(
        "[[rule]]\nname = \"bench\"\npath = \"/hook\"\nprovider = \"generic\"\nreference = \"{reference}\"\n\
         event_id = \"{reference}\"\nhold = \"0s\"\nlinger = \"0s\"\n"
    );
    match Loaded::from_text("bench", &text, &World::real()).into_config() {
        Ok(config) => config.rules,
        Err(faults) => panic!("{faults:?}"),
    }
}

fn received(content_type: &'static str, body: String) -> Received {
    let mut headers = HeaderMap::new();
    for (name, value) in [("host", "pay.test"), ("content-type", content_type), ("x-forwarded-for", "192.0.2.7")] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Received {
        method: Method::POST,
        uri: Uri::from_static("/hook"),
        headers,
        body: body.into(),
        host: "pay.test".to_owned(),
        source: std::net::Ipv4Addr::LOCALHOST.into(),
    }
}

fn form(n: usize) -> Received {
    received("application/x-www-form-urlencoded", format!("id=tr_{n:016}&filler={}", "x".repeat(170)))
}

fn json(n: usize) -> Received {
    let data = format!("{{\"amount\":12100,\"filler\":\"{}\"}}", "x".repeat(2300));
    received("application/json", format!("{{\"object\":\"event\",\"data\":{data},\"id\":\"evt_{n:016}\"}}"))
}

async fn round(book: &Arc<Rulebook>, make: fn(usize) -> Received) -> f64 {
    let clock = SteadyClock::starting_at(Timestamp::from_millis(1_772_445_600_000));
    let store = Memory::new(memory::Options::default());
    let dispatch = Dispatch::new(store, AtOnce, clock, Arc::new(Metrics::new()), dispatch::Options::default());
    let intake = Intake::new(dispatch);
    let callbacks: Vec<_> = (0..CALLBACKS).map(make).collect();
    let begun = Instant::now();
    for received in callbacks {
        let head = Head {
            method: &received.method,
            uri: &received.uri,
            headers: &received.headers,
            host: &received.host,
            source: received.source,
        };
        let Some(route) = book.rules.classify(&head) else { panic!("no callback") };
        let handled = tokio::spawn(Arc::clone(&intake).handle(Arc::clone(book), route, received)).await;
        let Ok(oncegate::intake::Reply::Whole(response)) = handled else { panic!("no answer") };
        assert_eq!(response.status(), StatusCode::OK);
    }
    begun.elapsed().as_secs_f64() * 1e9 / CALLBACKS as f64
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { panic!("no runtime") };
    for (name, reference, make) in
        [("form of 200 bytes", "form:id", form as fn(usize) -> Received), ("JSON event of 2.4 KB", "json:$.id", json)]
    {
        if std::env::args().skip(1).any(|word| !word.starts_with('-') && !name.contains(&*word)) {
            continue;
        }
        let book = Arc::new(Rulebook::new(config(reference), std::collections::HashMap::new(), "http://app"));
        let best = (0..ROUNDS).map(|_| runtime.block_on(round(&book, make))).fold(f64::MAX, f64::min);
        _ = writeln!(std::io::stdout(), "{name}: {best:.0} ns");
    }
}
