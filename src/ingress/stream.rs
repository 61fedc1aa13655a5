//! A client's stream that knows whether its end was seen, and that loses its patience with a client who keeps it waiting.
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
    last_has_body: AtomicBool,
    tunnel: AtomicBool,
}

impl Exchanges {
    /// Notes that a request is whole in its head.
    pub(super) fn begin(self: &Arc<Self>, has_body: bool) -> Exchange {
        self.last_has_body.store(has_body, Ordering::Relaxed);
        self.begun.fetch_add(1, Ordering::Relaxed);
        Exchange(Arc::clone(self))
    }

    /// Whether the last request had a body, of which more may come.
    pub(super) fn last_has_body(&self) -> bool {
        self.last_has_body.load(Ordering::Relaxed)
    }

    fn count(&self) -> (u32, u32) {
        (self.begun.load(Ordering::Relaxed), self.ended.load(Ordering::Acquire))
    }
}

/// A request that is being answered; over when it is dropped.
#[derive(Debug)]
pub(super) struct Exchange(Arc<Exchanges>);

impl Exchange {
    /// Notes that the protocol changes with this answer: what moves from then on, and when, is not our affair.
    pub(super) fn become_tunnel(&self) {
        self.0.tunnel.store(true, Ordering::Relaxed);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Release);
    }
}

/// A timer that is set again only when it rings too early.
#[derive(Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Ready when the moment has come.
    fn poll(&mut self, moment: Instant, cx: &mut Context<'_>) -> Poll<()> {
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
}

impl Patience {
    /// Notes what has begun and ended since the last look; says whether something is under way.
    fn catch_up(&mut self) -> bool {
        let count = self.exchanges.count();
        if count != self.seen {
            self.seen = count;
            self.begun = false;
            self.since = None;
        }
        count.0 != count.1 || self.exchanges.tunnel.load(Ordering::Relaxed)
    }

    fn bytes_came(&mut self) {
        self.catch_up();
        if !self.begun {
            self.begun = true;
            self.since = None;
        }
    }

    /// Ready when it is lost, which says whether in the middle of a head.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.catch_up() {
            return Poll::Pending;
        }
        let limit = if self.begun { self.limits.head } else { self.limits.idle };
        let since = *self.since.get_or_insert_with(Instant::now);
        self.alarm.poll(since + limit, cx).map(|()| self.begun)
    }
}

/// A client's stream under watch.
pub(super) struct Watched<S> {
    stream: S,
    ended: bool,
    patience: Patience,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> Watched<S> {
    /// Watches a stream whose client is to speak now.
    pub(super) fn new(stream: S, limits: Limits, exchanges: Arc<Exchanges>) -> Self {
        let patience = Patience { limits, exchanges, seen: (0, 0), begun: true, since: None, alarm: Alarm::default() };
        Self { stream, ended: false, patience, stalled: None }
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

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buf) {
            Poll::Ready(result) => {
                self.ended |= result.is_err() || (buf.filled().len() == before && buf.remaining() > 0);
                self.patience.bytes_came();
                Poll::Ready(result)
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
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
