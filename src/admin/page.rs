//! What each admin address answers.

use std::{fmt, time::Duration};

use http::{
    HeaderValue, Method, Request, Response, StatusCode,
    header::{ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY, X_CONTENT_TYPE_OPTIONS},
};

use super::{Readiness, body::Body, overview};
use crate::{
    telemetry::{Exposition, Figures, Metrics, escaped},
    time::{Clock, SystemClock},
};

/// What waits, for whoever looks: each with how many, and how long the oldest has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    /// For a person.
    pub review: (usize, Duration),
    /// Acknowledged, and on its way to the app.
    pub owed: (usize, Duration),
    /// Whether the app is taken to be down.
    pub shut: bool,
}

/// A line for each; nothing where nothing waits.
impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let age = |oldest: Duration| humantime::format_duration(Duration::from_secs(oldest.as_secs()));
        let ((review, longest), (owed, oldest)) = (self.review, self.owed);
        if review > 0 {
            writeln!(f, "review: {review} waiting for a person, the oldest for {}", age(longest))?;
        }
        if owed > 0 {
            writeln!(f, "queue: {owed} acknowledged and not in the app yet, the oldest for {}", age(oldest))?;
        }
        if self.shut {
            writeln!(f, "app: it seems to be down, and callbacks are kept from it")?;
        }
        Ok(())
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const INDEX: &str = "\
Oncegate

/          an overview, in a browser
/metrics   figures, for Prometheus
/healthz   200 while the process lives
/readyz    200 while callbacks are taken in and the store can write, with what waits; else 503 with the reasons
/api/v1    what waits for a person, acts, and history; for whoever knows the token
";

/// The answer to one request; the server leaves the body out for HEAD.
pub(super) fn answer<B>(
    request: &Request<B>,
    metrics: &Metrics,
    ready: &Readiness,
    waiting: Waiting,
) -> Response<Body> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match request.uri().path() {
        "/" if accepted(request).contains("text/html") => overview(request, metrics, ready),
        "/" => varying(text(StatusCode::OK, INDEX.to_owned())),
        "/metrics" => figures(request, metrics),
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => readiness(ready, waiting),
        _ => text(StatusCode::NOT_FOUND, "no such page; / lists them\n".to_owned()),
    }
}

fn figures<B>(request: &Request<B>, metrics: &Metrics) -> Response<Body> {
    let exposition = Exposition::wanted(&accepted(request));
    varying(of(StatusCode::OK, exposition.content_type(), metrics.exposed(exposition)))
}

/// For browsers; whoever asks in a shell reads the list of addresses.
fn overview<B>(request: &Request<B>, metrics: &Metrics, ready: &Readiness) -> Response<Body> {
    let refresh = request.uri().query() == Some("refresh");
    let html = overview::html(&Figures::of(metrics), &ready.reasons(), SystemClock.now(), refresh);
    let mut response = varying(of(StatusCode::OK, HTML, html));
    response.headers_mut().insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(overview::POLICY));
    response
}

/// An answer that depends on what the caller would like to have.
fn varying(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert(VARY, HeaderValue::from_name(ACCEPT));
    response
}

/// What the caller would like to have.
fn accepted<B>(request: &Request<B>) -> String {
    let fields = request.headers().get_all(ACCEPT).iter().filter_map(|field| field.to_str().ok());
    fields.collect::<Vec<_>>().join(",")
}

fn readiness(ready: &Readiness, waiting: Waiting) -> Response<Body> {
    let reasons = ready.reasons();
    if reasons.is_empty() {
        // It works, and so it is ready; but whoever looks shall see what waits.
        return text(StatusCode::OK, format!("ready\n{waiting}"));
    }
    let lines = reasons.iter().map(|(part, why)| format!("{part}: {}\n", escaped(why))).collect();
    text(StatusCode::SERVICE_UNAVAILABLE, lines)
}

fn text(status: StatusCode, body: String) -> Response<Body> {
    of(status, TEXT, body)
}

/// An answer of this type, which nobody keeps.
pub(super) fn of(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::Whole(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
