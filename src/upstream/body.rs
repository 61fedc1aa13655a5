//! The bodies that go to the app and come from it, each with a limit on how long it may stand still.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::{
    task::AbortHandle,
    time::{Instant, Sleep},
};

use super::{pool::Live, stream::Trace};

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The other side broke the connection or the framing.
    #[error("the body broke off: {0}")]
    Broken(#[from] hyper::Error),
    /// Nothing came for too long.
    #[error("the body stood still for {0:?}")]
    Stalled(Duration),
    /// Whoever passed it on to us went away in the middle of it.
    #[error("the body was cut off")]
    Cut,
}

/// A timer that runs only while nothing comes, so that a body which is at hand costs no timer at all.
struct Stall {
    after: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    running: bool,
}

impl Stall {
    const fn new(after: Duration) -> Self {
        Self { after, sleep: None, running: false }
    }

    fn moved(&mut self) {
        self.running = false;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(self.after)));
        if !self.running {
            sleep.as_mut().reset(Instant::now() + self.after);
            self.running = true;
        }
        sleep.as_mut().poll(cx).map(|()| BodyError::Stalled(self.after))
    }
}

/// What is kept of the trailer fields of a body.
pub type TrailerFilter = fn(&mut HeaderMap);

/// The body of a request to the app.
pub struct Payload {
    kind: Kind,
    trace: Option<Arc<Trace>>,
}

enum Kind {
    Empty,
    Full(Bytes),
    Streaming { body: Incoming, trailers: TrailerFilter, stall: Stall },
}

impl Payload {
    /// No body.
    #[must_use]
    pub const fn empty() -> Self {
        Self { kind: Kind::Empty, trace: None }
    }

    /// A body that is at hand as a whole.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { kind: if bytes.is_empty() { Kind::Empty } else { Kind::Full(bytes) }, trace: None }
    }

    /// A body that is passed on as it comes, which may stand still for no longer than `stall`.
    #[must_use]
    pub fn streaming(body: Incoming, trailers: TrailerFilter, stall: Duration) -> Self {
        if body.is_end_stream() {
            return Self::empty();
        }
        Self { kind: Kind::Streaming { body, trailers, stall: Stall::new(stall) }, trace: None }
    }

    /// Lets `trace` know when this body is taken.
    pub(super) fn traced(mut self, trace: &Arc<Trace>) -> Self {
        if matches!(self.kind, Kind::Empty) {
            trace.take_body();
        } else {
            self.trace = Some(Arc::clone(trace));
        }
        self
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.kind {
            Kind::Empty => "Payload::Empty",
            Kind::Full(_) => "Payload::Full",
            Kind::Streaming { .. } => "Payload::Streaming",
        })
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        // hyper drops a body when it has taken all of it, or when it gives it up.
        if let Some(trace) = &self.trace {
            trace.take_body();
        }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.kind {
            Kind::Empty => Poll::Ready(None),
            Kind::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                self.kind = Kind::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Kind::Streaming { body, trailers, stall } => match Pin::new(body).poll_frame(cx) {
                Poll::Ready(frame) => {
                    stall.moved();
                    Poll::Ready(frame.map(|frame| Ok(filtered(frame?, *trailers))))
                }
                Poll::Pending => stall.poll(cx).map(|e| Some(Err(e))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::Full(_) => false,
            Kind::Streaming { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Streaming { body, .. } => body.size_hint(),
        }
    }
}

fn filtered(frame: Frame<Bytes>, filter: TrailerFilter) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            filter(&mut trailers);
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

/// The body of the app's answer.
///
/// While it is read, it drives the connection it comes from, in the reader's own task: no second task has to be woken.
/// Read to its end, it puts the connection back for others; dropped before, it closes it, which is how the app learns
/// that the client has gone.
pub struct Answer {
    source: Source,
    stall: Stall,
    trailers: TrailerFilter,
}

enum Source {
    Ended,
    Driven {
        body: Incoming,
        live: Box<Live>,
    },
    /// The request was still on its way when the answer came, so that both have to move on their own.
    Detached {
        body: Incoming,
        driver: AbortOnDrop,
    },
}

/// Ends a task when it is dropped, unless it was told to let it go.
struct AbortOnDrop(Option<AbortHandle>);

impl AbortOnDrop {
    fn let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

fn keep_all(_: &mut HeaderMap) {}

impl Answer {
    pub(super) fn new(body: Incoming, live: Box<Live>, stall: Duration) -> Self {
        let source = if live.trace.body_taken() {
            Source::Driven { body, live }
        } else {
            let driver = tokio::spawn(live.drive()).abort_handle();
            Source::Detached { body, driver: AbortOnDrop(Some(driver)) }
        };
        let mut answer = Self { source, stall: Stall::new(stall), trailers: keep_all };
        answer.settle();
        answer
    }

    pub(super) const fn none() -> Self {
        Self { source: Source::Ended, stall: Stall::new(Duration::ZERO), trailers: keep_all }
    }

    /// Keeps of the trailer fields what `filter` leaves.
    #[must_use]
    pub fn with_trailers(mut self, filter: TrailerFilter) -> Self {
        self.trailers = filter;
        self
    }

    /// Never lets the connection under this answer be used again.
    #[must_use]
    pub fn last(mut self) -> Self {
        if let Source::Driven { live, .. } = &mut self.source {
            live.reusable = false;
        }
        self
    }

    /// Puts the connection back when all has been read.
    fn settle(&mut self) {
        let ended = match &self.source {
            Source::Ended => return,
            Source::Driven { body, .. } | Source::Detached { body, .. } => body.is_end_stream(),
        };
        if ended {
            self.end(true);
        }
    }

    fn end(&mut self, clean: bool) {
        match std::mem::replace(&mut self.source, Source::Ended) {
            Source::Driven { live, .. } if clean => live.park(),
            // The app may still want the rest of the request.
            Source::Detached { driver, .. } if clean => driver.let_go(),
            _ => {}
        }
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.source {
            Source::Ended => "Answer::Ended",
            Source::Driven { .. } => "Answer::Driven",
            Source::Detached { .. } => "Answer::Detached",
        })
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = match &mut self.source {
            Source::Ended => return Poll::Ready(None),
            Source::Driven { body, live } => {
                live.poll_driver(cx);
                // Only the driver above fills this body, so that nothing else need wake us.
                Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
            }
            Source::Detached { body, .. } => Pin::new(body).poll_frame(cx),
        };
        match polled {
            Poll::Pending => match self.stall.poll(cx) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(error) => {
                    self.end(false);
                    Poll::Ready(Some(Err(error)))
                }
            },
            Poll::Ready(None) => {
                self.end(true);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                self.end(false);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.stall.moved();
                self.settle();
                Poll::Ready(Some(Ok(filtered(frame, self.trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Ended => true,
            Source::Driven { body, .. } | Source::Detached { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Ended => SizeHint::with_exact(0),
            Source::Driven { body, .. } | Source::Detached { body, .. } => body.size_hint(),
        }
    }
}
