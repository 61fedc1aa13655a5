//! The face for those who run the gate: figures, health, readiness and the API, on a listener of its own.
//!
//! Whoever knows the token may look at payments and act on what waits for a person; an act is an input to the dispatch like
//! any other.

mod api;
mod body;
mod guard;
mod overview;
mod page;
mod paper;
mod readiness;
mod veil;

use std::{convert::Infallible, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};

pub use self::{
    api::Api,
    guard::{Guard, Stopped},
    readiness::Readiness,
};
use crate::{dispatch::App, store::Store, telemetry::Metrics};

/// How many may look at once; one more waits in the listener's queue.
const CONNECTIONS: usize = 32;
/// How long a request's head may take to arrive, and an idle connection may stay.
const HEAD: Duration = Duration::from_secs(5);
/// How long a connection may live: nobody who reads too slowly holds a place for ever.
const CONNECTION: Duration = Duration::from_secs(60);
/// How large a request's head may be.
const HEAD_BYTES: usize = 16 * 1024;
/// The pause after a failed accept, such as for want of file descriptors, which would fail again at once.
const BREATHER: Duration = Duration::from_millis(50);

/// Serves until `shutdown` ends; answers under way at that moment are finished.
pub async fn serve<S: Store, A: App>(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    ready: Readiness,
    api: Arc<Api<S, A>>,
    shutdown: impl Future<Output = ()>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut open = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, peer, place) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let desk = Desk { metrics: Arc::clone(&metrics), ready: ready.clone(), api: Arc::clone(&api), peer };
        open.spawn(converse(stream, desk, place));
        while open.try_join_next().is_some() {}
    }
    drop(listener);
    let _ = timeout(HEAD, async { while open.join_next().await.is_some() {} }).await;
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, IpAddr, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed; if it were, looking on would still be better than looking away.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer.ip(), place),
            Err(error) => {
                tracing::warn!(%error, "the admin listener could not accept");
                tokio::time::sleep(BREATHER).await;
            }
        }
    }
}

/// What one conversation needs.
struct Desk<S, A> {
    metrics: Arc<Metrics>,
    ready: Readiness,
    api: Arc<Api<S, A>>,
    peer: IpAddr,
}

async fn converse<S: Store, A: App>(stream: TcpStream, desk: Desk<S, A>, place: Option<OwnedSemaphorePermit>) {
    let desk = Arc::new(desk);
    let service = service_fn(move |request: Request<Incoming>| {
        let desk = Arc::clone(&desk);
        async move {
            let path = request.uri().path();
            let is_api = path.strip_prefix(api::ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            Ok::<_, Infallible>(if is_api {
                desk.api.answer(request, desk.peer).await
            } else {
                page::answer(&request, &desk.metrics, &desk.ready, desk.api.waiting())
            })
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = timeout(CONNECTION, connection).await {
        tracing::debug!(%error, "an admin connection broke off");
    }
    drop(place);
}
