//! The bodies that go to the app and come from it, each with a limit on how long it may stand still.

use std::{
    fmt::Display,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::{
    io::{AsyncWriteExt, ReadHalf, WriteHalf},
    task::AbortHandle,
    time::{Instant, Sleep},
};

use super::{
    chunks::Piece,
    head::Framing,
    outgoing::Outgoing,
    pool::Live,
    stream::{Inlet, Stream, Tunnel},
};

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The other side broke the connection or the framing.
    #[error("the body broke off: {0}")]
    Broken(String),
    /// Nothing came for too long.
    #[error("the body stood still for {0:?}")]
    Stalled(Duration),
    /// Whoever passed it on to us went away in the middle of it.
    #[error("the body was cut off")]
    Cut,
}

impl BodyError {
    pub(super) fn broken(why: impl Display) -> Self {
        Self::Broken(why.to_string())
    }
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
pub struct Payload(Kind);

enum Kind {
    Empty,
    Full { bytes: Bytes, taken: bool },
    Streaming { body: Incoming, trailers: TrailerFilter, stall: Stall, touched: bool },
}

impl Payload {
    /// No body.
    #[must_use]
    pub const fn empty() -> Self {
        Self(Kind::Empty)
    }

    /// A body that is at hand as a whole.
    #[must_use]
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self(if bytes.is_empty() { Kind::Empty } else { Kind::Full { bytes, taken: false } })
    }

    /// A body that is passed on as it comes, which may stand still for no longer than `stall`.
    #[must_use]
    pub fn streaming(body: Incoming, trailers: TrailerFilter, stall: Duration) -> Self {
        if body.is_end_stream() {
            return Self::empty();
        }
        Self(Kind::Streaming { body, trailers, stall: Stall::new(stall), touched: false })
    }

    /// Whether nothing has been taken of it.
    pub(super) const fn is_untouched(&self) -> bool {
        match self.0 {
            Kind::Empty => true,
            Kind::Full { taken, .. } => !taken,
            Kind::Streaming { touched, .. } => !touched,
        }
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Kind::Empty => "Payload::Empty",
            Kind::Full { .. } => "Payload::Full",
            Kind::Streaming { .. } => "Payload::Streaming",
        })
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Kind::Empty | Kind::Full { taken: true, .. } => Poll::Ready(None),
            Kind::Full { bytes, taken } => {
                *taken = true;
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))))
            }
            Kind::Streaming { body, trailers, stall, touched } => match Pin::new(body).poll_frame(cx) {
                Poll::Ready(frame) => {
                    stall.moved();
                    *touched = true;
                    let frame = frame.map(|frame| frame.map_err(|error| BodyError::broken(super::cause(&error))));
                    Poll::Ready(frame.map(|frame| Ok(filtered(frame?, *trailers))))
                }
                Poll::Pending => stall.poll(cx).map(|e| Some(Err(e))),
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Empty => true,
            Kind::Full { taken, .. } => *taken,
            Kind::Streaming { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::Full { bytes, .. } => SizeHint::with_exact(bytes.len() as u64),
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
/// Whoever reads it reads the connection, in his own task: no second task has to be woken. Read to its end, it puts
/// the connection back for others; dropped before, it closes it, which is how the app learns that the client has gone.
pub struct Answer {
    source: Source,
    trailers: TrailerFilter,
}

enum Source {
    Ended,
    /// All of it came with its head.
    AtHand(Bytes),
    Coming(Box<Coming>),
    Tunnel(Box<Live>),
}

/// A body that is being read.
struct Coming {
    from: From,
    framing: Framing,
    reusable: bool,
    stall: Stall,
}

enum From {
    Whole(Box<Live>),
    /// The request was still on its way when the answer came, so that both have to move on their own.
    Half(Inlet<ReadHalf<Stream>>, Pump),
}

/// Sends the rest of a request whose answer has come. Ends when it is dropped, unless it was told to go on.
struct Pump(Option<AbortHandle>);

impl Pump {
    fn start(mut request: Outgoing, mut wire: WriteHalf<Stream>) -> Self {
        let task = tokio::spawn(async move {
            if std::future::poll_fn(|cx| request.poll_write(&mut wire, cx)).await.is_err() {
                // What comes of it is seen by whoever reads the answer.
                _ = wire.shutdown().await;
            }
        });
        Self(Some(task.abort_handle()))
    }

    fn let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

fn keep_all(_: &mut HeaderMap) {}

impl Answer {
    /// The body that is framed like this, on a connection on which the request may still be on its way.
    pub(super) fn new(
        mut live: Box<Live>,
        request: Outgoing,
        mut framing: Framing,
        reusable: bool,
        stall: Duration,
    ) -> Self {
        let from = if request.is_done() {
            live.keep_buffer(request);
            if let Some(bytes) = at_hand(&mut live.inlet, &mut framing) {
                if reusable {
                    live.park();
                }
                return Self::of(if bytes.is_empty() { Source::Ended } else { Source::AtHand(bytes) });
            }
            From::Whole(live)
        } else {
            let Inlet { from, read, .. } = live.inlet;
            let (reader, writer) = tokio::io::split(from);
            From::Half(Inlet::new(reader, read), Pump::start(request, writer))
        };
        let coming = Coming { from, framing, reusable, stall: Stall::new(stall) };
        if coming.framing == Framing::Length(0) {
            coming.end();
            return Self::of(Source::Ended);
        }
        Self::of(Source::Coming(Box::new(coming)))
    }

    /// No body: another protocol follows.
    pub(super) const fn switched(live: Box<Live>) -> Self {
        Self::of(Source::Tunnel(live))
    }

    const fn of(source: Source) -> Self {
        Self { source, trailers: keep_all }
    }

    /// Keeps of the trailer fields what `filter` leaves.
    #[must_use]
    pub const fn with_trailers(mut self, filter: TrailerFilter) -> Self {
        self.trailers = filter;
        self
    }

    /// The stream on which another protocol is spoken after this answer (101).
    #[must_use]
    pub fn into_tunnel(self) -> Option<Tunnel> {
        match self.source {
            Source::Tunnel(live) => Some(Tunnel::new(live.inlet)),
            _ => None,
        }
    }

    fn end(&mut self) {
        if let Source::Coming(coming) = std::mem::replace(&mut self.source, Source::Ended) {
            coming.end();
        }
    }
}

/// The body, if all of it has been read with its head.
fn at_hand(inlet: &mut Inlet<Stream>, framing: &mut Framing) -> Option<Bytes> {
    let Framing::Length(length) = *framing else { return None };
    let length = usize::try_from(length).ok().filter(|length| *length <= inlet.read.len())?;
    Some(inlet.read.split_to(length).freeze())
}

impl Coming {
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, BodyError>> {
        let polled = match &mut self.from {
            From::Whole(live) => live.inlet.poll_piece(&mut self.framing, cx),
            From::Half(inlet, _) => inlet.poll_piece(&mut self.framing, cx),
        };
        match polled {
            Poll::Pending => self.stall.poll(cx).map(Err),
            Poll::Ready(piece) => {
                self.stall.moved();
                Poll::Ready(piece)
            }
        }
    }

    /// All has been read.
    fn end(self) {
        match self.from {
            From::Whole(live) if self.reusable => live.park(),
            From::Whole(_) => {}
            // The app may still want the rest of the request.
            From::Half(_, pump) => pump.let_go(),
        }
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.source {
            Source::Ended => "Answer::Ended",
            Source::AtHand(_) => "Answer::AtHand",
            Source::Coming(_) => "Answer::Coming",
            Source::Tunnel(_) => "Answer::Tunnel",
        })
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let coming = match &mut self.source {
            Source::Ended | Source::Tunnel(_) => return Poll::Ready(None),
            Source::AtHand(bytes) => {
                let bytes = std::mem::take(bytes);
                self.source = Source::Ended;
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            Source::Coming(coming) => coming,
        };
        match ready!(coming.poll_piece(cx)) {
            Ok(Piece::Data(data)) => {
                if coming.framing == Framing::Length(0) {
                    self.end();
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Ok(Piece::End(mut trailers)) => {
                self.end();
                (self.trailers)(&mut trailers);
                Poll::Ready((!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers))))
            }
            Err(error) => {
                self.source = Source::Ended;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Ended | Source::Tunnel(_))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Ended | Source::Tunnel(_) => SizeHint::with_exact(0),
            Source::AtHand(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Coming(coming) => match coming.framing {
                Framing::Length(left) => SizeHint::with_exact(left),
                Framing::Chunked(_) | Framing::Close => SizeHint::default(),
            },
        }
    }
}
