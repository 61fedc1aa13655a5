//! Passes on whatever is no callback: both ways, as it comes, of any size, and gone with the client.
//!
//! Trailers pass both ways where they were announced (`Trailer`; towards the client also only if it sent
//! `TE: trailers`), save those that frame, route or authorise. A protocol is changed only after the app's 101: what a
//! client sent before is kept back until then, and is the next request if the app says no.

use http::{HeaderValue, Request, Response, StatusCode, header::CONTENT_TYPE};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use super::{
    body::Body,
    forwarded::Client,
    headers::{BadAnswer, filter_trailers, rebuild_request, rebuild_response, wanted_upgrade},
};
use crate::upstream::{Answer, NotSent, Payload, SendError, Tunnel, Unknown, Upstream, Use};

/// Why a request that was passed on has no answer of the app's.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It never left.
    #[error("the app cannot be reached: {0}")]
    NotSent(#[from] NotSent),
    /// It left, and what became of it is not known.
    #[error(transparent)]
    Unknown(#[from] Unknown),
    /// An answer came that cannot be passed on.
    #[error("the app's answer cannot be passed on: {0}")]
    BadAnswer(#[from] BadAnswer),
}

impl Failure {
    /// The status that says so.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Unknown(Unknown::Timeout(_)) => StatusCode::GATEWAY_TIMEOUT,
            Self::Unknown(Unknown::Request(_)) => StatusCode::BAD_REQUEST,
            Self::NotSent(_) | Self::Unknown(Unknown::Broken(_)) | Self::BadAnswer(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// A short text for whoever waits, which tells nothing of the inside.
    const fn text(&self) -> &'static str {
        match self {
            Self::NotSent(_) => "The application cannot be reached. The request was not sent.\n",
            Self::Unknown(Unknown::Timeout(_)) => "The application did not answer in time.\n",
            Self::Unknown(Unknown::Request(_)) => "The request broke off.\n",
            Self::Unknown(Unknown::Broken(_)) => "The connection to the application broke before it answered.\n",
            Self::BadAnswer(_) => "The application's answer cannot be passed on.\n",
        }
    }

    fn response(&self) -> Response<Body> {
        plain(self.status(), self.text())
    }
}

/// An answer of our own, in plain text.
#[must_use]
pub fn plain(status: StatusCode, text: impl Into<bytes::Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Passes a request on and its answer back.
pub async fn forward(upstream: &Upstream, request: Request<Incoming>, client: &Client) -> Response<Body> {
    match exchange(upstream, request, client).await {
        Ok(response) => response,
        Err(failure) => {
            tracing::warn!(error = %failure, "passing a request on failed");
            failure.response()
        }
    }
}

async fn exchange(
    upstream: &Upstream,
    mut request: Request<Incoming>,
    client: &Client,
) -> Result<Response<Body>, Failure> {
    let upgrade = wanted_upgrade(&request);
    let tunnel = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let stall = upstream.stall_timeout();
    let (mut parts, body) = request.into_parts();
    // What hyper noted of this connection must not travel to the next.
    parts.extensions.clear();
    rebuild_request(&mut parts, client, &body, upgrade.as_ref());
    let payload = Payload::streaming(body, filter_trailers, stall);
    let response = send(upstream, Request::from_parts(parts, payload)).await?;
    answer(response, upgrade.as_ref(), tunnel)
}

/// Sends the request once. Only one that was handed back unwritten by a kept connection that had died goes again, on
/// a new one.
async fn send(upstream: &Upstream, request: Request<Payload>) -> Result<Response<Answer>, Failure> {
    // Whoever else is ready gets as far as this first: what is sent together wakes its reader once.
    tokio::task::yield_now().await;
    let connection = upstream.connect(Use::Passthrough).await?;
    let reused = connection.reused();
    match connection.send(request).await {
        Ok(response) => Ok(response),
        Err(SendError::NotSent { request: Some(request), .. }) if reused => {
            let again =
                Box::pin(async move { upstream.connect_new().await?.send(*request).await.map_err(Failure::from) });
            again.await
        }
        Err(error) => Err(error.into()),
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        match error {
            SendError::NotSent { cause, .. } => Self::NotSent(cause),
            SendError::Unknown(unknown) => Self::Unknown(unknown),
        }
    }
}

fn answer(
    response: Response<Answer>,
    upgrade: Option<&HeaderValue>,
    tunnel: Option<OnUpgrade>,
) -> Result<Response<Body>, Failure> {
    let (mut parts, body) = response.into_parts();
    rebuild_response(&mut parts, upgrade)?;
    if parts.status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Response::from_parts(parts, Body::Upstream(body.with_trailers(filter_trailers))));
    }
    if let (Some(client), Some(app)) = (tunnel, body.into_tunnel()) {
        tokio::spawn(join(client, app));
    }
    Ok(Response::from_parts(parts, Body::Empty))
}

/// Lets two ends that have changed their protocol speak with each other until one of them ends.
async fn join(client: OnUpgrade, mut app: Tunnel) {
    match client.await {
        Ok(client) => {
            let ended = tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut app).await;
            if let Err(error) = ended {
                tracing::debug!(%error, "a tunnel broke");
            }
        }
        Err(error) => tracing::debug!(%error, "a protocol was not changed after all"),
    }
}
