//! The idle connections to the app: last in, first out, so that the warm ones work and the rest grow old.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Duration,
};

use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;

use super::{body::Payload, stream::Trace};

/// hyper's half of a connection: it moves the bytes when it is polled.
pub(super) type Driver = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// An open connection to the app.
pub(super) struct Live {
    pub(super) sender: SendRequest<Payload>,
    pub(super) driver: Option<Driver>,
    pub(super) trace: Arc<Trace>,
    pub(super) pool: Weak<Pool>,
    pub(super) reusable: bool,
}

impl Live {
    /// Moves what can be moved. A driver that has ended is dropped, which tells whoever waits on it.
    pub(super) fn poll_driver(&mut self, cx: &mut Context<'_>) {
        if let Some(driver) = &mut self.driver
            && let Poll::Ready(ended) = driver.as_mut().poll(cx)
        {
            if let Err(error) = ended {
                tracing::debug!(%error, "connection to the app ended");
            }
            self.driver = None;
        }
    }

    /// Whether a request may be sent on it: idle, whole, and no end of stream seen.
    ///
    /// Polled with a waker that wakes nobody, so that whoever used it last is not woken for it any more.
    pub(super) fn is_idle(&mut self) -> bool {
        self.poll_driver(&mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Puts the connection back for others, if there is still use for it.
    pub(super) fn park(mut self: Box<Self>) {
        if self.reusable
            && self.is_idle()
            && let Some(pool) = self.pool.upgrade()
        {
            pool.put(self);
        }
    }

    /// Lets the connection move on its own until what is on it has ended; nothing else can be sent on it.
    pub(super) async fn drive(self: Box<Self>) {
        let Self { driver, sender, .. } = *self;
        drop(sender);
        if let Some(driver) = driver
            && let Err(error) = driver.await
        {
            tracing::debug!(%error, "connection to the app ended");
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
