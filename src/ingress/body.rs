//! The bodies of our answers, and the reading of a whole request body under a limit.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use crate::{
    intake::Relayed,
    upstream::{Answer, BodyError},
};

/// The body of an answer to a client.
#[derive(Debug)]
pub enum Body {
    /// Nothing.
    Empty,
    /// All of it at hand.
    Full(Bytes),
    /// What the app sends, as it comes; gone with the client.
    Upstream(Answer),
    /// What another task sends, as it comes; that task lives on without the client.
    Relayed(Relayed),
}

impl Body {
    /// A body that is at hand as a whole.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Self::Empty } else { Self::Full(bytes) }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut *self {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Upstream(answer) => Pin::new(answer).poll_frame(cx),
            Self::Relayed(relayed) => Pin::new(relayed).poll_frame(cx).map_err(|_| BodyError::Cut),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Upstream(answer) => answer.is_end_stream(),
            Self::Relayed(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Upstream(answer) => answer.size_hint(),
            Self::Relayed(_) => SizeHint::default(),
        }
    }
}

async fn next_frame<B: HttpBody + Unpin>(body: &mut B) -> Option<Result<Frame<B::Data>, B::Error>> {
    std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await
}

/// Why a body was not read whole.
#[derive(Debug, thiserror::Error)]
pub enum NotWhole {
    /// It is, or says it is, larger than allowed.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// It did not come in time.
    #[error("the body did not come within {0:?}")]
    Timeout(Duration),
    /// It broke off, or its framing is wrong.
    #[error("the body broke off: {0}")]
    Broken(String),
}

impl NotWhole {
    /// The status that says so. What was not read of the body ends the connection after the answer.
    #[must_use]
    pub const fn status(&self) -> http::StatusCode {
        match self {
            Self::TooLarge(_) => http::StatusCode::PAYLOAD_TOO_LARGE,
            Self::Timeout(_) => http::StatusCode::REQUEST_TIMEOUT,
            Self::Broken(_) => http::StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads a body whole, as it was sent, trailers dropped.
///
/// The bytes may share the connection's read buffer: what is kept for long should be copied out.
///
/// # Errors
/// If it is too large, which is known at once where it is declared; too slow; or broken.
pub async fn read_whole(body: Incoming, limit: usize, within: Duration) -> Result<Bytes, NotWhole> {
    if body.size_hint().lower() > limit as u64 {
        return Err(NotWhole::TooLarge(limit));
    }
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    match tokio::time::timeout(within, gather(body, limit)).await {
        Ok(read) => read,
        Err(_) => Err(NotWhole::Timeout(within)),
    }
}

async fn gather(mut body: Incoming, limit: usize) -> Result<Bytes, NotWhole> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = next_frame(&mut body).await {
        let Ok(data) = frame.map_err(|e| NotWhole::Broken(e.to_string()))?.into_data() else { continue };
        if first.len() + all.len() + data.len() > limit {
            return Err(NotWhole::TooLarge(limit));
        }
        if first.is_empty() && all.is_empty() {
            // Most bodies come in one piece, and are not copied.
            first = data;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}
