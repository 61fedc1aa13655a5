//! The bodies of our answers, and the reading of a whole request body under a limit.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::sync::{Semaphore, mpsc};

use crate::upstream::{Answer, BodyError};

/// How much a relayed body may hold back while the client reads slowly.
const RELAY_BUFFER: usize = 256 * 1024;

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

    /// A body that another task fills, holding back at most 256 KiB.
    #[must_use]
    pub fn relayed() -> (Relay, Self) {
        let (sender, receiver) = mpsc::channel(64);
        let room = Arc::new(Semaphore::new(RELAY_BUFFER));
        let relayed = Relayed { receiver, room: Arc::clone(&room), ended: false };
        (Relay { sender, room }, Self::Relayed(relayed))
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
            Self::Relayed(relayed) => relayed.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(_) => false,
            Self::Upstream(answer) => answer.is_end_stream(),
            Self::Relayed(relayed) => relayed.ended,
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

#[derive(Debug)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
}

/// The end of a relayed body that is filled. Dropped before [`end`](Self::end), it cuts the body off, which the client
/// sees.
#[derive(Debug)]
pub struct Relay {
    sender: mpsc::Sender<Piece>,
    room: Arc<Semaphore>,
}

/// The client reads no more of a relayed body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client has gone")]
pub struct Gone;

impl Relay {
    /// Passes a piece on, waiting while the client has too much to read.
    ///
    /// # Errors
    /// If the client has gone.
    pub async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        let size = u32::try_from(bytes.len().min(RELAY_BUFFER)).map_err(|_| Gone)?;
        self.room.acquire_many(size).await.map_err(|_| Gone)?.forget();
        self.sender.send(Piece::Data(bytes)).await.map_err(|_| Gone)
    }

    /// Says that this was all.
    pub async fn end(self, trailers: Option<HeaderMap>) {
        if let Some(trailers) = trailers {
            let _ = self.sender.send(Piece::Trailers(trailers)).await;
        }
        let _ = self.sender.send(Piece::End).await;
    }

    /// Passes on all of the app's answer. If the client goes away the rest is read all the same, so that the app's
    /// work and its connection end well.
    ///
    /// # Errors
    /// If the app broke off; the client's body is then cut off too.
    pub async fn pump(self, mut answer: Answer) -> Result<(), BodyError> {
        let mut gone = false;
        let mut trailers = None;
        while let Some(frame) = next_frame(&mut answer).await {
            match frame?.into_data() {
                Ok(bytes) => gone = gone || self.send(bytes).await.is_err(),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        self.end(trailers).await;
        Ok(())
    }
}

/// The end of a relayed body that is read.
#[derive(Debug)]
pub struct Relayed {
    receiver: mpsc::Receiver<Piece>,
    room: Arc<Semaphore>,
    ended: bool,
}

impl Relayed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.receiver.poll_recv(cx).map(|piece| match piece {
            Some(Piece::Data(bytes)) => {
                self.room.add_permits(bytes.len().min(RELAY_BUFFER));
                Some(Ok(Frame::data(bytes)))
            }
            Some(Piece::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Piece::End) => {
                self.ended = true;
                None
            }
            None => {
                self.ended = true;
                Some(Err(BodyError::Cut))
            }
        })
    }
}

impl Drop for Relayed {
    fn drop(&mut self) {
        self.room.close();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_relayed_body_holds_back_no_more_than_its_room() {
        let (relay, mut body) = Body::relayed();
        let big = Bytes::from(vec![7; RELAY_BUFFER]);
        relay.send(big.clone()).await.unwrap();
        let mut second = std::pin::pin!(relay.send(Bytes::from_static(b"more")));
        assert!(futures_pending(second.as_mut()).await, "there is no room until the first piece is read");
        assert_eq!(next_frame(&mut body).await.unwrap().unwrap().into_data().unwrap(), big);
        second.await.unwrap();
    }

    async fn futures_pending<F: Future>(mut future: Pin<&mut F>) -> bool {
        std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn a_relay_that_is_dropped_cuts_the_body_and_one_that_ends_does_not() {
        let (relay, mut body) = Body::relayed();
        drop(relay);
        assert!(next_frame(&mut body).await.unwrap().is_err());
        let (relay, mut body) = Body::relayed();
        relay.end(None).await;
        assert!(next_frame(&mut body).await.is_none());
    }

    #[tokio::test]
    async fn a_relay_learns_that_the_client_has_gone() {
        let (relay, body) = Body::relayed();
        drop(body);
        assert_eq!(relay.send(Bytes::from_static(b"x")).await, Err(Gone));
    }
}
