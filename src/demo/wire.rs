//! Just enough HTTP for the stage: serve a closure, ask one question.

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// The largest body on this stage.
const BODY: usize = 64 * 1024;
/// The pause after a failed accept.
const BREATHER: Duration = Duration::from_millis(50);

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("no connection: {0}")]
    Connect(#[from] io::Error),
    #[error("the exchange broke off: {0}")]
    Exchange(#[from] hyper::Error),
    #[error("no readable body: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
}

/// Asks one question over a connection of its own.
pub(super) async fn ask(address: SocketAddr, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, AskError> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let talk = async {
        let answer = sender.send_request(with_host(request, address)).await?;
        let (head, body) = answer.into_parts();
        Ok(Response::from_parts(head, whole(body).await.map_err(AskError::Body)?))
    };
    // The connection is polled beside the question, and goes when the answer is there.
    tokio::pin!(talk);
    tokio::select! {
        answer = &mut talk => answer,
        ended = connection => match ended {
            Ok(()) => talk.await,
            Err(error) => Err(error.into()),
        },
    }
}

/// Answers every request on `listener` until the task is dropped.
pub(super) async fn serve<A, F>(listener: TcpListener, answer: A)
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send,
{
    let mut open = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // For want of file descriptors, say: it would fail again at once.
            tokio::time::sleep(BREATHER).await;
            continue;
        };
        while open.try_join_next().is_some() {}
        let answer = answer.clone();
        open.spawn(async move {
            let service = service_fn(move |request| {
                let answered = answer(request);
                async { Ok::<_, Infallible>(answered.await) }
            });
            // A caller that goes away in the middle is its own affair.
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

/// The whole body, if it is of a size that belongs here.
pub(super) async fn whole(body: Incoming) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    Ok(Limited::new(body, BODY).collect().await?.to_bytes())
}

fn with_host(mut request: Request<Full<Bytes>>, address: SocketAddr) -> Request<Full<Bytes>> {
    if let Ok(host) = HeaderValue::try_from(address.to_string()) {
        request.headers_mut().insert(header::HOST, host);
    }
    request
}
