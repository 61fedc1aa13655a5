//! The face for those who run the gate: figures, health and readiness, on a listener of its own.
//!
//! It only reads. What changes something will go in through intake, as everything does.

mod page;
mod readiness;

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use http::{Request, Response};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::timeout,
};

pub use self::readiness::Readiness;
use crate::telemetry::Metrics;

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
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, ready: Readiness, shutdown: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut open = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let (stream, place) = tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener, &places) => accepted,
        };
        open.spawn(converse(stream, Arc::clone(&metrics), ready.clone(), place));
        while open.try_join_next().is_some() {}
    }
    drop(listener);
    let _ = timeout(HEAD, async { while open.join_next().await.is_some() {} }).await;
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed; if it were, looking on would still be better than looking away.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                tracing::warn!(%error, "the admin listener could not accept");
                tokio::time::sleep(BREATHER).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, metrics: Arc<Metrics>, ready: Readiness, place: Option<OwnedSemaphorePermit>) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = page::answer(&request, &metrics, &ready);
        async move { Ok::<Response<Full<Bytes>>, Infallible>(response) }
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
