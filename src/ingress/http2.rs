//! The bounds of HTTP/2: what one connection may hold, and how long one stream may be left unread.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hyper::{rt::Executor, server::conn::http2::Builder};
use hyper_util::rt::TokioTimer;
use tokio::time::Instant;

use super::{listener::Options, stream::Alarm};

/// What may be on its way to us on one stream, and on all of a connection: the most that its bodies keep in memory.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What waits to be sent on one stream.
const SEND_BUFFER: usize = 128 * 1024;
/// Streams that the client takes back before we have looked at them, and that we end for its faults: a client beyond
/// either is cut off (CVE-2023-44487, CVE-2025-8671).
const RESET_UNSEEN: usize = 20;
const RESET_BY_US: usize = 64;
/// How often a client is asked whether it is still there, and how long it may take to say so.
const PING: Duration = Duration::from_secs(20);

/// What speaks HTTP/2.
pub(super) fn server(options: &Options) -> Builder<Streams> {
    let mut server = Builder::new(Streams { limit: options.write_timeout });
    server
        .timer(TokioTimer::new())
        .max_concurrent_streams(options.max_streams)
        .max_header_list_size(u32::try_from(options.max_header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(RESET_UNSEEN)
        .max_local_error_reset_streams(RESET_BY_US)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    server
}

/// Gives each stream a task of its own, and ends one whose client leaves its answer unread.
///
/// The window of a stream can stay shut while its connection is well: there is nothing else that would ever end it.
#[derive(Clone, Debug)]
pub(super) struct Streams {
    limit: Duration,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        let (limit, reader) = (self.limit, Arc::new(Reader::default()));
        tokio::spawn(READER.scope(Arc::clone(&reader), async move {
            let mut stream = pin!(stream);
            let mut alarm = Alarm::default();
            std::future::poll_fn(|cx| {
                let polled = stream.as_mut().poll(cx).map(drop);
                match reader.waits_since() {
                    Some(since) if polled.is_pending() => alarm.poll(since + limit, cx),
                    _ => polled,
                }
            })
            .await;
        }));
    }
}

tokio::task_local! {
    static READER: Arc<Reader>;
}

/// Whether the client of one stream takes what it is given.
#[derive(Debug, Default)]
pub(super) struct Reader(Mutex<Option<Instant>>);

impl Reader {
    /// The one for whom this task works.
    pub(super) fn current() -> Option<Arc<Self>> {
        READER.try_with(Arc::clone).ok()
    }

    /// It has taken all, and asks for more.
    pub(super) fn asks(&self) {
        self.set(None);
    }

    /// It has been given something, and asks no more until it has taken it.
    pub(super) fn is_given_something(&self) {
        self.set(Some(Instant::now()));
    }

    fn set(&self, since: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn waits_since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
