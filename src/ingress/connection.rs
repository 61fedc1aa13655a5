//! One client's connection from its first byte to its last: whose it is, what is answered on it, and how it ends.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header::CONNECTION};
use hyper::{
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

use super::{
    body::Body,
    headers,
    listener::{Handler, Options, Peer},
    passthrough,
    proxy_protocol::{self, Header, Malformed},
    room::Place,
    stream::{Exchange, Exchanges, Limits, Watched},
};
use crate::upstream::BodyError;

/// How long the rest of what a client sends is read, after an answer that did not wait for it.
const LINGER: Duration = Duration::from_secs(2);

/// Tells connections to finish: flags to look at, and a bell for those that sleep.
#[derive(Debug, Default)]
pub(super) struct Stop {
    leaving: AtomicBool,
    stopping: AtomicBool,
    bell: Notify,
}

impl Stop {
    /// Each connection ends with its next answer, so that no request is lost.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Those that wait for a request end at once, the others with their answer.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.bell.notify_waiters();
    }

    /// Ends when the bell rings, or has rung.
    async fn stopped(&self) {
        let bell = self.bell.notified();
        if !self.stopping.load(Ordering::SeqCst) {
            bell.await;
        }
    }
}

/// What all connections of a listener share.
pub(super) struct Terms<H> {
    pub handler: Arc<H>,
    pub options: Options,
    pub stop: Arc<Stop>,
    http1: http1::Builder,
}

/// Why a connection ended before anything was asked on it.
#[derive(Debug, thiserror::Error)]
enum Unopened {
    #[error("a proxy that has to name its clients: {0}")]
    Header(#[from] Malformed),
    #[error("it broke off: {0}")]
    Broken(#[from] io::Error),
    #[error("it did not begin within {0:?}")]
    Timeout(Duration),
}

impl<H: Handler> Terms<H> {
    pub(super) fn new(handler: Arc<H>, options: Options, stop: Arc<Stop>) -> Arc<Self> {
        let mut http1 = http1::Builder::new();
        http1
            // The stream has limits of its own: the one here would count idle time into the head, and cost a timer for
            // each request.
            .header_read_timeout(None)
            .half_close(false)
            .max_headers(options.max_headers)
            .max_header_size(options.max_header_bytes)
            // The same buffer holds pieces of bodies: much smaller, and large bodies go slowly.
            .max_buf_size(options.max_header_bytes.max(128 * 1024));
        Arc::new(Self { handler, options, stop, http1 })
    }

    /// Serves a connection to its end, in its place among all.
    pub(super) async fn serve(self: Arc<Self>, mut stream: TcpStream, remote: SocketAddr, place: Place) {
        let _ = stream.set_nodelay(true);
        let Ok(local) = stream.local_addr() else { return };
        let mut peer = Peer { remote: folded(remote), local: folded(local), tls: false };
        if is_within(&self.options.proxy_protocol, peer) {
            // Boxed like all that most connections never need.
            match Box::pin(self.opened(read_header(&mut stream, peer))).await {
                Ok(Some(named)) => peer = named,
                Ok(None) => return,
                Err(error) => return tracing::info!(%error, %peer.remote, "a connection was refused"),
            }
        }
        self.converse(stream, peer).await;
        drop(place);
    }

    /// What comes before the first request, within its time; nothing if the gate stops meanwhile.
    async fn opened<T>(&self, opening: impl Future<Output = Result<T, Unopened>>) -> Result<Option<T>, Unopened> {
        let limit = self.options.handshake_timeout;
        tokio::select! {
            () = self.stop.stopped() => Ok(None),
            opened = tokio::time::timeout(limit, opening) => opened.map_err(|_| Unopened::Timeout(limit))?.map(Some),
        }
    }

    async fn converse<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(&self, stream: S, peer: Peer) {
        let exchanges = Arc::new(Exchanges::default());
        let handler = Arc::clone(&self.handler);
        let under_way = Arc::clone(&exchanges);
        let stop = Arc::clone(&self.stop);
        let service = service_fn(move |request: Request<Incoming>| {
            let exchange = under_way.begin(!request.body().is_end_stream());
            let last = stop.leaving.load(Ordering::Relaxed);
            answer(Arc::clone(&handler), request, peer, exchange, last)
        });
        let stream = Watched::new(stream, self.limits(), Arc::clone(&exchanges));
        let mut connection = self.http1.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let served = finish_on(&self.stop, &mut connection, |c| Pin::new(c).graceful_shutdown()).await;
        let bytes_may_come = served.is_err() || exchanges.last_has_body();
        if let Err(error) = served {
            tracing::debug!(%error, %peer.remote, "a connection ended badly");
        }
        if let Some(parts) = connection.into_parts()
            && bytes_may_come
        {
            linger(parts.io.into_inner()).await;
        }
    }

    const fn limits(&self) -> Limits {
        let Options { header_timeout, idle_timeout, write_timeout, .. } = self.options;
        Limits { head: header_timeout, idle: idle_timeout, write: write_timeout }
    }
}

fn folded(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn is_within(networks: &[IpNet], peer: Peer) -> bool {
    networks.iter().any(|network| network.contains(&peer.remote.ip()))
}

/// Takes the PROXY header off a stream, not a byte more, and says whose the connection is.
async fn read_header(stream: &mut TcpStream, peer: Peer) -> Result<Peer, Unopened> {
    let mut taken = Vec::new();
    let mut space = vec![0; 536];
    loop {
        let came = stream.peek(&mut space).await?;
        if came == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let before = taken.len();
        taken.extend_from_slice(&space[..came]);
        let header = proxy_protocol::read(&taken)?;
        // While it is not whole, all that is there belongs to it, and has to be taken for more to be seen.
        let belongs = header.map_or(came, |(_, length)| length - before);
        stream.read_exact(&mut space[..belongs]).await?;
        match header {
            Some((Header::Proxied { source, destination, tls }, _)) => {
                return Ok(Peer { remote: source, local: destination, tls });
            }
            Some((Header::Local | Header::Unknown, _)) => return Ok(peer),
            None => {}
        }
    }
}

/// Drives a connection to its end; when the bell rings, asks it once to finish.
///
/// The bell is listened to once and then only a flag is looked at, because a connection is polled often.
async fn finish_on<C: Future + Unpin>(stop: &Stop, connection: &mut C, finish: impl Fn(&mut C)) -> C::Output {
    let mut bell = pin!(stop.bell.notified());
    let mut listening = false;
    let mut finishing = false;
    std::future::poll_fn(|cx| {
        if !listening {
            listening = true;
            let _ = bell.as_mut().poll(cx);
        }
        if !finishing && stop.stopping.load(Ordering::SeqCst) {
            finishing = true;
            finish(connection);
        }
        Pin::new(&mut *connection).poll(cx)
    })
    .await
}

async fn answer<H: Handler>(
    handler: Arc<H>,
    request: Request<Incoming>,
    peer: Peer,
    exchange: Exchange,
    last: bool,
) -> Result<Response<Answered>, Infallible> {
    let (mut response, last) = match headers::admit(&request) {
        Ok(()) => (handler.handle(request, peer).await, last),
        Err(refusal) => (passthrough::plain(refusal.status(), format!("{refusal}\n")), true),
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        exchange.become_tunnel();
    } else if last {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| Answered { body, _exchange: exchange }))
}

/// An answer's body; with it ends the exchange.
struct Answered {
    body: Body,
    _exchange: Exchange,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Reads on for a moment what the client still sends, after we have said our last word: closing on unread bytes resets
/// the connection, and the client would lose the answer it was sent.
async fn linger<S: AsyncRead + AsyncWrite + Unpin>(mut stream: Watched<S>) {
    if stream.ended() {
        return;
    }
    let _ = stream.shutdown().await;
    let mut sink = vec![0; 16 * 1024];
    let drain = async { while matches!(stream.read(&mut sink).await, Ok(n) if n > 0) {} };
    let _ = tokio::time::timeout(LINGER, drain).await;
}
