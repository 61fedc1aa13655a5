//! What each admin address answers.

use http::{
    HeaderValue, Method, Response, StatusCode,
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS},
};
use http_body_util::Full;
use hyper::body::Bytes;

use crate::{
    admin::Readiness,
    telemetry::{Metrics, escaped},
};

const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const INDEX: &str = "\
Oncegate

/metrics   figures, for Prometheus
/healthz   200 while the process lives
/readyz    200 while callbacks are taken in and the store can write; else 503 with the reasons
";

/// The answer to one request; the server leaves the body out for HEAD.
pub(super) fn answer(method: &Method, path: &str, metrics: &Metrics, ready: &Readiness) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    match path {
        "/" => text(StatusCode::OK, INDEX.to_owned()),
        "/metrics" => page(StatusCode::OK, OPEN_METRICS, metrics.render()),
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => readiness(ready),
        _ => text(StatusCode::NOT_FOUND, "no such page; / lists them\n".to_owned()),
    }
}

fn readiness(ready: &Readiness) -> Response<Full<Bytes>> {
    let reasons = ready.reasons();
    if reasons.is_empty() {
        return text(StatusCode::OK, "ready\n".to_owned());
    }
    let lines = reasons.iter().map(|(part, why)| format!("{part}: {}\n", escaped(why))).collect();
    text(StatusCode::SERVICE_UNAVAILABLE, lines)
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    page(status, TEXT, body)
}

fn page(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
