//! Which way a request goes: through the intake if a rule takes it for a callback, else straight through.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use ipnet::IpNet;

use super::{
    body::{Body, read_whole},
    forwarded::Client,
    headers::{rebuild_request, rebuild_response},
    listener::{Handler, Peer},
    passthrough::{forward, plain},
};
use crate::{
    intake::{Asked, Intake, Received, Reply, reading::Rulebook},
    rule::{Head, Route},
    store::Store,
    telemetry::{Metrics, RequestKind},
    upstream::Upstream,
};

/// What the reception needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Networks of proxies whose word on the client counts.
    pub trusted_proxies: Vec<IpNet>,
    /// Bytes of a callback's body: 413 beyond it. Other bodies have no bound.
    pub max_body: usize,
    /// How long a callback's body may take to come.
    pub body_timeout: Duration,
}

/// The reception.
pub struct Reception<S> {
    orders: ArcSwap<Orders>,
    intake: Arc<Intake<S, Arc<Upstream>>>,
    upstream: Arc<Upstream>,
    metrics: Arc<Metrics>,
}

/// By what the reception goes; a request keeps to those it came under.
struct Orders {
    book: Arc<Rulebook>,
    options: Options,
}

impl<S: Store> Reception<S> {
    /// A reception before an intake and the app.
    pub fn new(
        book: Rulebook,
        intake: Arc<Intake<S, Arc<Upstream>>>,
        upstream: Arc<Upstream>,
        options: Options,
    ) -> Arc<Self> {
        let metrics = Arc::clone(&intake.dispatch().metrics);
        let orders = ArcSwap::from_pointee(Orders { book: Arc::new(book), options });
        Arc::new(Self { orders, intake, upstream, metrics })
    }

    /// Passes a request on as any other, and looks at the head of its answer before the browser does.
    async fn heed(&self, asked: Asked, request: Request<Incoming>, client: &Client) -> Response<Body> {
        let response = forward(&self.upstream, request, client).await;
        let lessons = self.intake.lessons(&asked, response.status(), response.headers());
        if !lessons.is_empty() {
            Detached::new(Arc::clone(&self.intake).learn(lessons)).await;
        }
        response
    }

    /// By what callbacks are read now.
    #[must_use]
    pub fn book(&self) -> Arc<Rulebook> {
        Arc::clone(&self.orders.load().book)
    }

    /// Requests that come from now on go by these.
    pub fn change(&self, book: Rulebook, options: Options) {
        self.orders.store(Arc::new(Orders { book: Arc::new(book), options }));
    }

    async fn callback(&self, taken: Taken, request: Request<Incoming>, client: &Client) -> Response<Body> {
        let Taken { book, route, max_body, body_timeout } = taken;
        let (mut parts, body) = request.into_parts();
        let body = match read_whole(body, max_body, body_timeout).await {
            Ok(body) => body,
            Err(error) => {
                tracing::warn!(%error, rule = &*route.rule, client = %client.address, "a callback was not read");
                return plain(error.status(), format!("The callback cannot be taken: {error}.\n"));
            }
        };
        parts.extensions.clear();
        rebuild_request(&mut parts, client, &Full::new(body.clone()), None);
        let received = Received {
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            body,
            host: host(client).to_owned(),
            source: client.address,
        };
        match Detached::new(Arc::clone(&self.intake).handle(book, route, received)).await {
            Reply::Whole(response) => response.map(Body::full),
            Reply::Relayed(response) => rebuilt(response.map(Body::Relayed)),
            Reply::Streamed(response) => rebuilt(response.map(Body::Upstream)),
        }
    }
}

/// A request that has been taken for a callback, with what it came under.
struct Taken {
    book: Arc<Rulebook>,
    route: Route,
    max_body: usize,
    body_timeout: Duration,
}

/// Which way a request goes.
enum Way {
    /// A callback.
    Callback(Taken),
    /// No callback, and its answer may teach something.
    Heeded(Asked),
    /// No callback.
    Through,
}

impl Orders {
    fn way<S: Store>(&self, intake: &Intake<S, Arc<Upstream>>, request: &Request<Incoming>, client: &Client) -> Way {
        let head = Head {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            host: host(client),
            source: client.address,
        };
        if let Some(route) = self.book.rules.classify(&head) {
            let Options { max_body, body_timeout, .. } = self.options;
            return Way::Callback(Taken { book: Arc::clone(&self.book), route, max_body, body_timeout });
        }
        match self.book.rules.learns(&head) {
            None => Way::Through,
            Some(learn) => Way::Heeded(intake.asked(&self.book, learn, head.method, head.host, head.headers)),
        }
    }
}

impl<S: Store> Handler for Reception<S> {
    async fn handle(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        let (client, way) = {
            let orders = self.orders.load();
            let trusted = &orders.options.trusted_proxies;
            let client = Client::of(peer.remote, peer.tls, request.uri(), request.headers(), trusted);
            let way = orders.way(&self.intake, &request, &client);
            (client, way)
        };
        let kind = if let Way::Callback(_) = &way { RequestKind::Callback } else { RequestKind::Passthrough };
        self.metrics.count_request(kind);
        match way {
            Way::Callback(taken) => self.callback(taken, request, &client).await,
            // Boxed, so that a connection which waits for its next request does not keep room for it.
            Way::Heeded(asked) => Box::pin(self.heed(asked, request, &client)).await,
            Way::Through => Box::pin(forward(&self.upstream, request, &client)).await,
        }
    }
}

/// Work that a caller who hangs up does not cancel: it runs in his connection's task while he is there, and goes on in
/// a task of its own when that task lets go of it.
struct Detached<F: Future<Output: Send> + Send + 'static>(Option<Pin<Box<F>>>);

impl<F: Future<Output: Send> + Send + 'static> Detached<F> {
    fn new(work: F) -> Self {
        Self(Some(Box::pin(work)))
    }
}

impl<F: Future<Output: Send> + Send + 'static> Future for Detached<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Some(work) = &mut self.0 else { return Poll::Pending };
        let output = ready!(work.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(output)
    }
}

impl<F: Future<Output: Send> + Send + 'static> Drop for Detached<F> {
    fn drop(&mut self) {
        // Work that panicked is not taken up again; at the very end there is no runtime left to go on in.
        let alive = !std::thread::panicking();
        if let (Some(work), true, Ok(runtime)) = (self.0.take(), alive, tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { drop(work.await) });
        }
    }
}

fn host(client: &Client) -> &str {
    client.host.to_str().unwrap_or_default()
}

fn rebuilt(response: Response<Body>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    match rebuild_response(&mut parts, None) {
        Ok(_) => Response::from_parts(parts, body),
        Err(error) => {
            plain(StatusCode::BAD_GATEWAY, format!("The application's answer can't be passed on: {error}.\n"))
        }
    }
}
