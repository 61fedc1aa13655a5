//! The one door to the app: connections on which a request is sent once, or provably not at all.
//!
//! HTTP/1.1 towards the app is our own, small and strict: nothing here ever sends a request again by itself, and an
//! answer whose end two readers could find in two places is none. A connection is driven by the task that uses it, so
//! that a request costs no second task and no wake-ups, and dropping what one holds of a connection closes it at once.

mod body;
pub mod chunks;
mod connect;
pub mod head;
mod outgoing;
mod pool;
mod reach;
mod stream;

use std::{future::poll_fn, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response, StatusCode};

pub use self::{
    body::{Answer, BodyError, Payload, TrailerFilter},
    connect::{NotSent, UpstreamError},
    head::is_hop_by_hop,
    outgoing::Outline,
    reach::Reach,
    stream::Tunnel,
};
use self::{
    connect::Connector,
    head::Head,
    outgoing::Outgoing,
    pool::{Broke, Live, Pool},
};

/// Where the app is, and how long we wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `http://host[:port]`, `https://host[:port]` or `unix:/path/to/socket`.
    pub url: String,
    /// How long name lookup, connection and TLS handshake may take together.
    pub connect_timeout: Duration,
    /// How long the app may take from the request's first byte to the head of its answer.
    pub timeout: Duration,
    /// How long a body may stand still, in either direction.
    pub stall_timeout: Duration,
    /// How long a connection may have been idle to be used for a callback.
    pub reuse_within: Duration,
    /// How long a connection is kept idle. Below the app's own limit, or requests meet closed doors.
    pub idle_timeout: Duration,
    /// How many connections are kept idle at most; more are closed after use.
    pub max_idle: usize,
    /// A PEM file with the certificate authorities to trust instead of the machine's own.
    pub ca: Option<PathBuf>,
}

impl Options {
    /// The defaults for the app at `url`.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            connect_timeout: Duration::from_secs(5),
            timeout: Duration::from_secs(300),
            stall_timeout: Duration::from_secs(300),
            reuse_within: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(4),
            max_idle: 512,
            ca: None,
        }
    }
}

/// What a connection is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A callback: a kept connection only if it was used a moment ago.
    Callback,
    /// Anything else: any kept connection that is alive.
    Passthrough,
}

/// Why a request that may have reached the app has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// The head of the answer did not come in time.
    #[error("the app did not answer within {0:?}")]
    Timeout(Duration),
    /// The request's own body broke off, so that the app has a part of it.
    #[error("the request broke off: {0}")]
    Request(String),
    /// The connection broke, or what came back is no answer.
    #[error("the app broke off: {0}")]
    Broken(String),
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Provably not a byte of it was written: sending it again is safe.
    #[error("not sent: {cause}")]
    NotSent {
        /// What was wrong.
        cause: NotSent,
        /// The request as it was, its body untouched, where it could be had back.
        request: Option<Box<Request<Payload>>>,
    },
    /// Anything else: the app may have it, or a part of it, and may be working on it.
    #[error(transparent)]
    Unknown(#[from] Unknown),
}

/// The app, seen from here.
pub struct Upstream {
    way: ArcSwap<Way>,
    reach: Reach,
}

/// The way to the app, with the connections that are kept.
pub struct Way {
    connector: Connector,
    pool: Arc<Pool>,
    options: Options,
}

impl std::fmt::Debug for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upstream").field("options", &self.way.load().options).finish_non_exhaustive()
    }
}

impl Way {
    /// Makes ready; connects to nothing yet.
    ///
    /// # Errors
    /// If the URL is none of ours, or the certificate authorities cannot be read.
    pub fn new(options: Options) -> Result<Self, UpstreamError> {
        let pool = Arc::new(Pool::new(options.max_idle, options.idle_timeout));
        Ok(Self { connector: Connector::new(&options)?, pool, options })
    }

    fn connection(&self, live: Box<Live>, reused: bool) -> Connection {
        Connection { live, reused, timeout: self.options.timeout, stall: self.options.stall_timeout }
    }
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Way").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Upstream {
    /// Makes ready; connects to nothing yet.
    ///
    /// # Errors
    /// As [`Way::new`].
    pub fn new(options: Options) -> Result<Self, UpstreamError> {
        Ok(Self { way: ArcSwap::from_pointee(Way::new(options)?), reach: Reach::default() })
    }

    /// From now on connections go this way. Those in use come to their own end, and those kept idle are closed.
    pub fn go(&self, way: Way) {
        self.way.store(Arc::new(way));
    }

    /// How long a body may stand still, in either direction.
    #[must_use]
    pub fn stall_timeout(&self) -> Duration {
        self.way.load().options.stall_timeout
    }

    /// Whether the app can be reached, as far as that is known.
    #[must_use]
    pub const fn reach(&self) -> &Reach {
        &self.reach
    }

    /// Tries the app's door, and sends nothing, whenever nobody else has within this time: what is told of an app to
    /// which nothing goes would grow old. It does so until it is dropped.
    pub async fn watch(&self, every: Duration) {
        loop {
            let before = self.reach.tries();
            tokio::time::sleep(every).await;
            if self.reach.tries() == before {
                drop(self.connect_new().await);
            }
        }
    }

    /// A connection that stands: one kept from before, or a new one.
    ///
    /// # Errors
    /// If none can be had; nothing was sent.
    pub async fn connect(&self, purpose: Use) -> Result<Connection, NotSent> {
        match self.kept(purpose) {
            Some(connection) => Ok(connection),
            // Rare, and large: kept out of the futures of the requests that need no new connection.
            None => Box::pin(self.connect_new()).await,
        }
    }

    /// A connection that nobody used before.
    ///
    /// # Errors
    /// If none can be had; nothing was sent.
    pub async fn connect_new(&self) -> Result<Connection, NotSent> {
        let way = self.way.load_full();
        let connected = way.connector.connect(&way.pool).await;
        self.reach.note(connected.is_ok());
        Ok(way.connection(connected?, false))
    }

    /// A connection that was kept from before and is alive, if there is one.
    #[must_use]
    pub fn kept(&self, purpose: Use) -> Option<Connection> {
        let way = self.way.load();
        let within = match purpose {
            Use::Callback => way.options.reuse_within,
            Use::Passthrough => way.options.idle_timeout,
        };
        way.pool.take(within).map(|live| way.connection(live, true))
    }
}

/// A connection to the app that stands and waits for one request.
pub struct Connection {
    live: Box<Live>,
    reused: bool,
    timeout: Duration,
    stall: Duration,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("reused", &self.reused).finish_non_exhaustive()
    }
}

impl Connection {
    /// Whether it carried a request before.
    #[must_use]
    pub const fn reused(&self) -> bool {
        self.reused
    }

    /// Waits for the head of the answer no longer than `timeout`, whatever the options say.
    #[must_use]
    pub const fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sends the request, once, and waits for the head of the answer. The request target is in origin form; the framing
    /// follows from the body, whatever the fields say.
    ///
    /// An answer of 101 carries the stream on which the other protocol is spoken.
    ///
    /// # Errors
    /// With what is known of the request's fate.
    pub async fn send(self, request: Request<Payload>) -> Result<Response<Answer>, SendError> {
        let (parts, body) = request.into_parts();
        let outline = Outline { method: &parts.method, uri: &parts.uri, fields: &parts.headers };
        self.exchange(outline, body).await.map_err(|failed| match failed {
            Failed::Unknown(unknown) => unknown.into(),
            Failed::NotSent(cause, body) => {
                let request = body.map(|body| Box::new(Request::from_parts(parts, body)));
                SendError::NotSent { cause, request }
            }
        })
    }

    /// The same for a request that its sender keeps.
    ///
    /// # Errors
    /// With what is known of the request's fate.
    pub async fn send_whole(self, outline: Outline<'_>, body: Bytes) -> Result<Response<Answer>, SendError> {
        self.exchange(outline, Payload::full(body)).await.map_err(|failed| match failed {
            Failed::Unknown(unknown) => unknown.into(),
            Failed::NotSent(cause, _) => SendError::NotSent { cause, request: None },
        })
    }

    async fn exchange(self, outline: Outline<'_>, body: Payload) -> Result<Response<Answer>, Failed> {
        let Self { mut live, timeout, stall, .. } = self;
        // It may have died since it was taken.
        if !live.is_idle() {
            return Err(Failed::NotSent(NotSent::Dead("the app has closed it".to_owned()), Some(body)));
        }
        let mut request = live.begin(outline, body);
        let answer = poll_fn(|cx| live.poll_answer(&mut request, cx));
        match tokio::time::timeout(timeout, answer).await {
            Ok(Ok(head)) => Ok(answered(head, live, request, stall)),
            // A body that breaks off before its first byte is the caller's fault, and not the app's.
            Ok(Err(Broke::Request(error))) => Err(Failed::Unknown(Unknown::Request(error.to_string()))),
            Ok(Err(broke)) if live.inlet.from.wrote() => Err(Failed::Unknown(Unknown::Broken(broke.to_string()))),
            Ok(Err(broke)) => Err(Failed::NotSent(NotSent::Dead(broke.to_string()), request.into_body())),
            Err(_) => Err(Failed::Unknown(Unknown::Timeout(timeout))),
        }
    }
}

/// Why there is no answer, with the body where it could be had back.
enum Failed {
    NotSent(NotSent, Option<Payload>),
    Unknown(Unknown),
}

fn answered(head: Head, live: Box<Live>, request: Outgoing, stall: Duration) -> Response<Answer> {
    let body = if head.status == StatusCode::SWITCHING_PROTOCOLS {
        Answer::switched(live)
    } else {
        Answer::new(live, request, head.framing, head.reusable, stall)
    };
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.fields;
    response
}

/// An error with the causes behind it, in one line.
fn cause(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}
