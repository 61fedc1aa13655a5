//! The admin listener, asked over the wire.

use std::{net::SocketAddr, sync::Arc};

use oncegate::{
    admin::{self, Api, Guard, Readiness},
    dispatch::{self, Dispatch},
    store::memory::{self, Memory},
    telemetry::{Metrics, RequestKind},
    time::{SteadyClock, Timestamp},
    upstream::{self, Upstream},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};

#[tokio::test]
async fn metrics_are_served_as_open_metrics_to_who_asks_for_it_and_else_as_the_text_that_everything_reads() {
    let desk = Desk::open(&[]).await;
    desk.metrics.count_request(RequestKind::Callback);
    let page = desk.ask("GET", "/metrics").await;
    assert!(page.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{page}");
    assert!(page.contains("\n# TYPE oncegate_requests_total counter\n"), "{page}");
    assert!(page.contains("\noncegate_requests_total{kind=\"callback\"} 1\n") && !page.contains("# EOF"), "{page}");

    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2";
    let page = desk.say(&format!("GET /metrics HTTP/1.1\r\nHost: a\r\n{accept}\r\nConnection: close\r\n\r\n")).await;
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    assert!(page.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"), "{page}");
    assert!(page.contains("\noncegate_requests_total{kind=\"callback\"} 1\n"), "{page}");
    assert!(page.ends_with("# EOF\n"), "{page}");
}

#[tokio::test]
async fn the_gate_is_ready_when_all_its_parts_are_and_says_what_is_missing() {
    let desk = Desk::open(&["gate", "store"]).await;
    assert!(desk.ask("GET", "/healthz").await.starts_with("HTTP/1.1 200 "));
    let page = desk.ask("GET", "/readyz").await;
    assert!(page.starts_with("HTTP/1.1 503 "), "{page}");
    assert!(page.contains("gate: has not started yet\nstore: has not started yet\n"), "{page}");

    desk.ready.ready("gate");
    desk.ready.ready("store");
    assert!(desk.ask("GET", "/readyz").await.starts_with("HTTP/1.1 200 "));

    desk.ready.not_ready("store", "no space left\r\n\x1b[2J");
    let page = desk.ask("GET", "/readyz").await;
    assert!(page.ends_with("\r\n\r\nstore: no space left\\r\\n\\u{1b}[2J\n"), "{page:?}");
}

#[tokio::test]
async fn only_reading_is_possible() {
    let desk = Desk::open(&[]).await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let page = desk.ask(method, "/metrics").await;
        assert!(page.starts_with("HTTP/1.1 405 "), "{method}: {page}");
        assert!(page.contains("allow: GET, HEAD\r\n"), "{page}");
    }
    let head = desk.ask("HEAD", "/healthz").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    assert!(desk.ask("GET", "/").await.contains("/readyz"));
    assert!(desk.ask("GET", "/etc/passwd").await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn a_browser_is_shown_an_overview_that_loads_nothing_and_runs_nothing() {
    let desk = Desk::open(&["gate"]).await;
    desk.metrics.count_request(RequestKind::Callback);
    let browse = |path: &str| {
        let accept = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        format!("GET {path} HTTP/1.1\r\nHost: admin\r\n{accept}\r\nConnection: close\r\n\r\n")
    };
    let page = desk.say(&browse("/")).await;
    assert!(page.contains("content-type: text/html; charset=utf-8\r\n") && page.contains("vary: accept\r\n"), "{page}");
    assert!(page.contains("content-security-policy: default-src 'none'; "), "{page}");
    assert!(page.contains("gate: has not started yet") && page.contains("<th scope=\"row\">joined</th>"), "{page}");
    for foreign in ["<script", "src=", "url(", "http-equiv=\"refresh\"", "//"] {
        assert!(!page.split("\r\n\r\n").nth(1).unwrap().contains(foreign), "{foreign} in {page}");
    }
    assert!(desk.say(&browse("/?refresh")).await.contains("http-equiv=\"refresh\""));
    assert!(desk.ask("GET", "/").await.contains("content-type: text/plain"), "a shell reads text");
}

#[tokio::test]
async fn an_endless_head_is_refused() {
    let desk = Desk::open(&[]).await;
    let page = desk.say(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(64 * 1024))).await;
    assert!(page.starts_with("HTTP/1.1 431 ") || page.is_empty(), "{page}");
}

#[tokio::test]
async fn forty_silent_callers_do_not_shut_the_desk() {
    let desk = Desk::open(&[]).await;
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(TcpStream::connect(desk.address).await.unwrap());
    }
    assert!(desk.ask("GET", "/healthz").await.starts_with("HTTP/1.1 200 "), "they are cut after the head's time limit");
}

#[tokio::test]
async fn it_ends_when_it_is_told_to() {
    let Desk { stop, served, .. } = Desk::open(&[]).await;
    stop.send(()).unwrap();
    served.await.unwrap();
}

/// The API of a gate in which nothing happens.
fn api() -> Arc<Api<Memory, Arc<Upstream>>> {
    let upstream = Upstream::new(upstream::Options::new("http://127.0.0.1:9")).unwrap();
    let clock = SteadyClock::starting_at(Timestamp::from_millis(1_800_000_000_000));
    let (store, metrics) = (Memory::new(memory::Options::default()), Arc::new(Metrics::new()));
    let dispatch = Dispatch::new(store, Arc::new(upstream), clock, metrics, dispatch::Options::default());
    Api::new(dispatch, Guard::new(None).unwrap())
}

struct Desk {
    address: SocketAddr,
    metrics: Arc<Metrics>,
    ready: Readiness,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Desk {
    async fn open(parts: &[&'static str]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (metrics, ready) = (Arc::new(Metrics::new()), Readiness::waiting_for(parts));
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async { drop(stopped.await) };
        let served = tokio::spawn(admin::serve(listener, Arc::clone(&metrics), ready.clone(), api(), shutdown));
        Self { address, metrics, ready, stop, served }
    }

    async fn ask(&self, method: &str, path: &str) -> String {
        self.say(&format!("{method} {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")).await
    }

    async fn say(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        // The far side may refuse before it has read everything.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }
}
