//! The idle connections to the app: last in, first out, so that the warm ones work and the rest grow old.

use std::{
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::BytesMut;
use http::StatusCode;
use tokio::{task::coop::unconstrained, time::Instant};

use super::{
    body::Payload,
    head::{self, BadHead, Head},
    outgoing::{Outgoing, Outline, Stuck},
    stream::{Inlet, Stream, Wire},
};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broke {
    /// The request's own body broke off.
    #[error(transparent)]
    Request(super::body::BodyError),
    #[error(transparent)]
    Wire(std::io::Error),
    #[error(transparent)]
    Answer(#[from] BadHead),
    #[error("the app hung up without an answer")]
    HungUp,
}

/// An open connection to the app.
pub(super) struct Live {
    pub(super) inlet: Inlet<Stream>,
    /// The buffer for heads, kept from one request to the next.
    buffer: BytesMut,
    pool: Weak<Pool>,
}

impl Live {
    pub(super) fn new(wire: Wire, pool: &Arc<Pool>) -> Box<Self> {
        let inlet = Inlet::new(Stream::new(wire), BytesMut::new());
        Box::new(Self { inlet, buffer: BytesMut::new(), pool: Arc::downgrade(pool) })
    }

    /// Whether a request may be sent on it: nothing was read that nobody asked for, and no end was seen.
    ///
    /// Polled with a waker that wakes nobody, so that whoever used it last is not woken for it any more; and outside of
    /// the task's budget, which would make any connection look idle.
    pub(super) fn is_idle(&mut self) -> bool {
        let inlet = &mut self.inlet;
        let mut more = pin!(unconstrained(std::future::poll_fn(|cx| inlet.poll_more(cx))));
        let silent = more.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending();
        silent && self.inlet.read.is_empty()
    }

    /// Makes a request ready to go.
    pub(super) fn begin(&mut self, outline: Outline<'_>, body: Payload) -> Outgoing {
        self.inlet.from.begin();
        Outgoing::new(outline, body, std::mem::take(&mut self.buffer))
    }

    /// Sends, and waits for the head of the answer; what the app says before its answer (1xx) is for nobody.
    pub(super) fn poll_answer(&mut self, request: &mut Outgoing, cx: &mut Context<'_>) -> Poll<Result<Head, Broke>> {
        match request.poll_write(&mut self.inlet.from, cx) {
            Poll::Ready(Err(Stuck::Body(error))) => return Poll::Ready(Err(Broke::Request(error))),
            Poll::Ready(Err(Stuck::Wire(error))) => return Poll::Ready(Err(Broke::Wire(error))),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        loop {
            while let Some(end) = head::end(&self.inlet.read) {
                // However much of it came in one read.
                if end > head::MOST_BYTES {
                    return Poll::Ready(Err(BadHead::TooLarge.into()));
                }
                let bytes = self.inlet.read.split_to(end).freeze();
                let head = Head::parse(&bytes, &request.method, request.upgrade)?;
                if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                    return Poll::Ready(Ok(head));
                }
            }
            if self.inlet.read.len() > head::MOST_BYTES {
                return Poll::Ready(Err(BadHead::TooLarge.into()));
            }
            match std::task::ready!(self.inlet.poll_more(cx)) {
                Ok(0) => return Poll::Ready(Err(Broke::HungUp)),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(Broke::Wire(error))),
            }
        }
    }

    /// Takes the buffer of a request back that is out.
    pub(super) fn keep_buffer(&mut self, request: Outgoing) {
        self.buffer = request.into_buffer();
    }

    /// Puts the connection back for others, if there is still use for it.
    pub(super) fn park(self: Box<Self>) {
        // Bytes that nobody asked for would be taken for the next answer.
        if self.inlet.read.is_empty()
            && let Some(pool) = self.pool.upgrade()
        {
            pool.put(self);
        }
    }
}

struct Idle {
    live: Box<Live>,
    since: Instant,
}

#[derive(Default)]
struct Stack {
    idle: Vec<Idle>,
    swept: bool,
}

/// The stack of idle connections.
pub(super) struct Pool {
    stack: Mutex<Stack>,
    max: usize,
    expires: Duration,
}

impl Pool {
    pub(super) fn new(max: usize, expires: Duration) -> Self {
        Self { stack: Mutex::default(), max, expires }
    }

    fn lock(&self) -> MutexGuard<'_, Stack> {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection used last that is alive and has been idle for less than `within`.
    pub(super) fn take(&self, within: Duration) -> Option<Box<Live>> {
        let within = within.min(self.expires);
        loop {
            let mut idle = {
                let mut stack = self.lock();
                if stack.idle.last()?.since.elapsed() >= within {
                    // What lies below is older still.
                    return None;
                }
                stack.idle.pop()?
            };
            if idle.live.is_idle() {
                return Some(idle.live);
            }
        }
    }

    /// Keeps a connection, unless there are enough.
    fn put(self: &Arc<Self>, live: Box<Live>) {
        let mut stack = self.lock();
        if stack.idle.len() < self.max {
            stack.idle.push(Idle { live, since: Instant::now() });
            if !std::mem::replace(&mut stack.swept, true) {
                tokio::spawn(sweep(Arc::downgrade(self), self.expires));
            }
        }
    }

    /// Closes what has expired or died; says whether any is left.
    fn expire(&self) -> bool {
        let mut dead = Vec::new();
        let mut stack = self.lock();
        let expires = self.expires;
        dead.extend(stack.idle.extract_if(.., |idle| idle.since.elapsed() >= expires || !idle.live.is_idle()));
        stack.swept = !stack.idle.is_empty();
        let left = stack.swept;
        // The sockets are closed when nobody waits for the lock.
        drop(stack);
        left
    }
}

/// Closes idle connections when their time is over, as long as there are any.
async fn sweep(pool: Weak<Pool>, expires: Duration) {
    loop {
        tokio::time::sleep(expires / 2 + Duration::from_millis(1)).await;
        match pool.upgrade() {
            Some(pool) if pool.expire() => {}
            _ => return,
        }
    }
}
