//! What callers hear: the app's answer, another's, an acknowledgement, or a short word of ours.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION, RETRY_AFTER},
};

use crate::{
    callback::Answer,
    dispatch::{Full, Heard, SHUT, TOO_SLOW},
    provider::contract::Ack,
    transaction::effect::Ending,
    upstream::is_hop_by_hop,
};

/// What a caller is asked to wait before he tries again.
const RETRY_SECONDS: u64 = 10;

/// What a caller hears of a delivery; the header fields only where it is his own request that was answered.
pub(super) fn reply_of(heard: &Heard, own: bool) -> Response<Bytes> {
    match (&heard.full, &heard.ending) {
        (Some(full), _) if own => reply_full((**full).clone()),
        (Some(full), _) => reply_with(&full.answer),
        (None, Ending::Accepted(answer) | Ending::Rejected(answer) | Ending::Unknown(_, Some(answer))) => {
            reply_with(answer)
        }
        (None, Ending::NotSent(why)) if why == SHUT => plain(StatusCode::SERVICE_UNAVAILABLE, DOWN),
        (None, Ending::NotSent(_)) => plain(StatusCode::BAD_GATEWAY, DOWN),
        (None, Ending::Unknown(why, None)) if why == TOO_SLOW => plain(StatusCode::GATEWAY_TIMEOUT, SLOW),
        (None, Ending::Unknown(..)) => plain(StatusCode::BAD_GATEWAY, BROKEN),
    }
}

/// What the caller hears whose own request was answered.
pub(super) fn reply_own(heard: Heard) -> Response<Bytes> {
    match heard.full {
        Some(full) => reply_full(Arc::unwrap_or_clone(full)),
        None => reply_of(&heard, true),
    }
}

fn reply_full(full: Full) -> Response<Bytes> {
    let mut response = Response::new(full.body);
    *response.status_mut() = full.answer.status;
    *response.headers_mut() = full.headers;
    // Fields that belong to the connection the answer came by, or to the framing that is made anew.
    let headers = response.headers_mut();
    let made_anew = |name: &str| is_hop_by_hop(name) || matches!(name, "content-length" | "trailer");
    let doomed: Vec<HeaderName> = headers.keys().filter(|name| made_anew(name.as_str())).cloned().collect();
    for name in doomed {
        headers.remove(name);
    }
    response
}

pub(super) fn reply_with(answer: &Answer) -> Response<Bytes> {
    let body = answer.body.as_deref().map(Bytes::copy_from_slice).unwrap_or_default();
    let mut response = Response::new(body);
    *response.status_mut() = answer.status;
    if let Some(Ok(content_type)) = answer.content_type.as_deref().map(HeaderValue::from_bytes) {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

pub(super) fn reply_ack(ack: &Ack) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(ack.body.as_bytes()));
    *response.status_mut() = ack.status;
    if let Some(content_type) = ack.content_type {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    response
}

pub(super) const RETRYABLE: &str = "This callback can't be taken now. Please send it again later.\n";
pub(super) const REFUSED: &str = "This callback has been dealt with before.\n";
pub(super) const UNVERIFIED: &str = "This callback can't be verified.\n";
pub(super) const UNREADABLE: &str = "No payment can be read from this callback.\n";
pub(super) const DOWN: &str = "The application behind this gateway could not be reached.\n";
pub(super) const SLOW: &str = "The application behind this gateway did not answer in time.\n";
pub(super) const BROKEN: &str =
    "The application behind this gateway broke off. It is not known whether it got the request.\n";
pub(super) const BUSY: &str = "Too much waits at this gateway. Please try again in a moment.\n";

pub(super) fn plain(status: StatusCode, body: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(body.as_bytes()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status.is_server_error() {
        headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS));
    }
    response
}

pub(super) fn redirect(location: HeaderValue) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(LOCATION, location);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A page that asks for itself again, for a payer whose turn has not come.
pub(super) fn waiting_page() -> Response<Bytes> {
    const PAGE: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"2\">\
        <title>One moment</title><p>Your payment is being confirmed. This page continues by itself.</p></html>\n";
    let mut response = Response::new(Bytes::from_static(PAGE.as_bytes()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("refresh", HeaderValue::from_static("2"));
    response
}
