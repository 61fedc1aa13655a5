//! A client's stream that knows whether its end was seen, which version of HTTP its first bytes are, and when to lose its
//! patience with a client who keeps it waiting.
//!
//! The timers are lazy: they are looked at only while nothing moves, so that a request which comes whole costs none.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

/// What a client of HTTP/2 says first (RFC 9113 §3.4); no request of HTTP/1 begins so.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of HTTP/2 that may come while nothing is asked: pings, settings, resets. Who sends more floods us.
const IDLE_BYTES: usize = 256 * 1024;
/// Requests that a client may cut short; beyond it, no more than the ones it let us answer.
const CUTS: u32 = 100;

/// How long a client may keep us waiting.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For the rest of a head that has begun, and for the first one.
    pub head: Duration,
    /// For the next request.
    pub idle: Duration,
    /// For an answer to be read on.
    pub write: Duration,
}

/// What is under way on one connection, told by who answers to who reads and writes.
#[derive(Debug, Default)]
pub(super) struct Exchanges {
    begun: AtomicU32,
    ended: AtomicU32,
    cut: AtomicU32,
    last_has_body: AtomicBool,
    tunnel: AtomicBool,
    tired: AtomicBool,
}

impl Exchanges {
    /// Notes that a request is whole in its head.
    pub(super) fn begin(self: &Arc<Self>, has_body: bool) -> Exchange {
        self.last_has_body.store(has_body, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        Exchange { all: Arc::clone(self), complete: false }
    }

    /// Whether something is asked, or was.
    pub(super) fn stand(&self) -> Stand {
        match self.count() {
            (0, _) => Stand::New,
            (begun, ended) if begun == ended && !self.tunnel.load(Ordering::Relaxed) => Stand::Kept,
            _ => Stand::UnderWay,
        }
    }

    /// Whether the last request had a body, of which more may come.
    pub(super) fn last_has_body(&self) -> bool {
        self.last_has_body.load(Ordering::Relaxed)
    }

    /// Whether nothing has been asked on a connection of HTTP/2 for so long that it should end.
    pub(super) fn are_over(&self) -> bool {
        self.tired.load(Ordering::Relaxed)
    }

    /// Whether the client asks in order to hang up: each request makes work, and none has to wait for an answer.
    pub(super) fn are_abuse(&self) -> bool {
        let cut = self.cut.load(Ordering::Relaxed);
        cut > CUTS && cut > self.ended.load(Ordering::Acquire).wrapping_sub(cut)
    }

    fn count(&self) -> (u32, u32) {
        (self.begun.load(Ordering::Relaxed), self.ended.load(Ordering::Acquire))
    }
}

/// Where a connection stands between its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stand {
    /// Nothing has been asked yet.
    New,
    /// What was asked is answered.
    Kept,
    /// Something is asked, or it has become a tunnel.
    UnderWay,
}

/// A request that is being answered; over when it is dropped.
#[derive(Debug)]
pub(super) struct Exchange {
    all: Arc<Exchanges>,
    complete: bool,
}

impl Exchange {
    /// Notes that the protocol changes with this answer: what moves from then on, and when, is not our affair.
    pub(super) fn become_tunnel(&self) {
        self.all.tunnel.store(true, Ordering::Relaxed);
    }

    /// Notes that the whole answer was taken.
    pub(super) const fn complete(&mut self) {
        self.complete = true;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.complete {
            self.all.cut.fetch_add(1, Ordering::Relaxed);
        }
        self.all.ended.fetch_add(1, Ordering::Release);
    }
}

/// A timer that is set again only when it rings too early.
#[derive(Default)]
pub(super) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready when the moment has come.
    pub(super) fn poll(&mut self, moment: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(moment)));
        if moment < sleep.deadline() {
            sleep.as_mut().reset(moment);
        }
        while sleep.as_mut().poll(cx).is_ready() {
            if sleep.deadline() >= moment {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(moment);
        }
        Poll::Pending
    }
}

/// How long the next head has been awaited.
struct Patience {
    limits: Limits,
    exchanges: Arc<Exchanges>,
    seen: (u32, u32),
    /// Whether a part of the head is here; so it is taken to be on a new connection, whose client is to speak at once.
    begun: bool,
    since: Option<Instant>,
    alarm: Alarm,
    /// What came since there was last a request, on a connection of HTTP/2.
    idle_bytes: Option<usize>,
}

impl Patience {
    /// Notes what has begun and ended since the last look; says whether something is under way.
    fn catch_up(&mut self) -> bool {
        let count = self.exchanges.count();
        if count != self.seen {
            self.seen = count;
            self.begun = false;
            self.since = None;
            self.idle_bytes = self.idle_bytes.map(|_| 0);
        }
        count.0 != count.1 || self.exchanges.tunnel.load(Ordering::Relaxed)
    }

    fn bytes_came(&mut self, count: usize) -> io::Result<()> {
        let under_way = self.catch_up();
        match &mut self.idle_bytes {
            None if !self.begun => {
                self.begun = true;
                self.since = None;
            }
            Some(idle) if !under_way => {
                *idle += count;
                if *idle > IDLE_BYTES {
                    return Err(io::Error::new(
                        io::ErrorKind::QuotaExceeded,
                        "the client asks nothing and sends a lot",
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Ready when it is lost, which says whether in the middle of a head.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.catch_up() {
            return Poll::Pending;
        }
        loop {
            let over = self.exchanges.are_over();
            let limit = if self.begun || over { self.limits.head } else { self.limits.idle };
            let since = *self.since.get_or_insert_with(Instant::now);
            ready!(self.alarm.poll(since + limit, cx));
            if self.idle_bytes.is_none() || over {
                return Poll::Ready(self.begun);
            }
            // A client of HTTP/2 is told to ask no more, and has a little time to go.
            self.exchanges.tired.store(true, Ordering::Relaxed);
            self.since = None;
        }
    }
}

/// What the first bytes may be.
enum Opening {
    /// HTTP/1 or HTTP/2, of which so much is here that could be the preface.
    Unsure(Vec<u8>),
    /// The preface, and what came with it, for whoever speaks HTTP/2.
    Preface(Vec<u8>),
    /// Bytes that were kept back and are to be read now.
    Replay(Vec<u8>),
    /// Nothing to be found out any more.
    Known,
}

/// A client's stream under watch.
pub(super) struct Watched<S> {
    stream: S,
    ended: bool,
    opening: Opening,
    patience: Patience,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    /// Watches a stream on which HTTP/1 is spoken; or also HTTP/2, if `unsure`. Its client is to speak now.
    pub(super) fn new(stream: S, limits: Limits, exchanges: Arc<Exchanges>, unsure: bool) -> Self {
        let patience = Patience {
            limits,
            exchanges,
            seen: (0, 0),
            begun: true,
            since: None,
            alarm: Alarm::default(),
            idle_bytes: None,
        };
        let opening = if unsure { Opening::Unsure(Vec::new()) } else { Opening::Known };
        Self { stream, ended: false, opening, patience, stalled: None }
    }

    /// From now on HTTP/2 is spoken on it, where other frames than requests come while a connection is idle.
    #[must_use]
    pub(super) fn for_http2(mut self) -> Self {
        self.patience.idle_bytes = Some(0);
        if let Opening::Preface(bytes) = &mut self.opening {
            self.opening = Opening::Replay(std::mem::take(bytes));
        }
        self
    }

    /// Whether the first bytes turned out to be HTTP/2's.
    pub(super) const fn is_http2(&self) -> bool {
        matches!(self.opening, Opening::Preface(_))
    }

    /// Whether nothing more can come from the client, or nothing more can go to him.
    pub(super) const fn ended(&self) -> bool {
        self.ended
    }

    fn note_write(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(result) => {
                self.stalled = None;
                self.ended |= result.is_err();
                Poll::Ready(result)
            }
            Poll::Pending => {
                let limit = self.patience.limits.write;
                let timer = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
                ready!(timer.as_mut().poll(cx));
                self.ended = true;
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client leaves its answer unread")))
            }
        }
    }
}

impl<S: AsyncRead + Unpin> Watched<S> {
    fn read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(result) => {
                let came = buf.filled().len() - before;
                self.ended |= result.is_err() || (came == 0 && buf.remaining() > 0);
                Poll::Ready(result.and_then(|()| self.patience.bytes_came(came)))
            }
            Poll::Pending => {
                let within_head = ready!(self.patience.poll(cx));
                self.ended = true;
                // Between two requests it is as if the client had gone.
                Poll::Ready(if within_head {
                    Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes too long over the head of a request"))
                } else {
                    Ok(())
                })
            }
        }
    }

    /// Reads the first bytes, which are kept back for as long as they may be the preface of HTTP/2.
    fn read_first(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.opening {
                Opening::Known => return self.read(cx, buf),
                Opening::Replay(bytes) => {
                    let count = bytes.len().min(buf.remaining());
                    buf.put_slice(&bytes[..count]);
                    bytes.drain(..count);
                    if bytes.is_empty() {
                        self.opening = Opening::Known;
                    }
                    return Poll::Ready(Ok(()));
                }
                // It ends the connection for whoever speaks HTTP/1 on it.
                Opening::Preface(_) => {
                    return Poll::Ready(Err(io::Error::new(io::ErrorKind::Unsupported, "this is HTTP/2")));
                }
                Opening::Unsure(_) => {
                    let before = buf.filled().len();
                    ready!(self.read(cx, buf))?;
                    self.find_out(buf, before);
                    if matches!(self.opening, Opening::Known) {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }

    fn find_out(&mut self, buf: &mut ReadBuf<'_>, before: usize) {
        let Opening::Unsure(held) = &mut self.opening else { return };
        let came = &buf.filled()[before..];
        let common = PREFACE.len().min(held.len() + came.len());
        let is_like = PREFACE[..common].iter().eq(held.iter().chain(came).take(common));
        let is_over = came.is_empty() || !is_like;
        if is_over && held.is_empty() {
            // Nearly always so, and at once.
            self.opening = Opening::Known;
            return;
        }
        held.extend_from_slice(came);
        buf.set_filled(before);
        if is_over {
            self.opening = Opening::Replay(std::mem::take(held));
        } else if common == PREFACE.len() {
            self.opening = Opening::Preface(std::mem::take(held));
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if matches!(self.opening, Opening::Known) { self.read(cx, buf) } else { self.read_first(cx, buf) }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note_write(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note_write(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nobody need read after the last word of an answer, and it is from there on that the next request is awaited.
        if self.patience.since.is_none() {
            let _ = self.patience.poll(cx);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // For HTTP/1 this is the end, and not for HTTP/2.
        if self.is_http2() { Poll::Ready(Ok(())) } else { Pin::new(&mut self.stream).poll_shutdown(cx) }
    }
}
