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
    task::Poll,
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::Sleep,
};
use tokio_rustls::TlsAcceptor;

use super::{
    answer::{Answered, answer},
    challenges,
    http2::{self, Streams},
    listener::{Handler, Options, Peer},
    openings::Openings,
    proxy_protocol::{self, Header, Malformed},
    room,
    stream::{Exchanges, Limits, Stand, Watched},
    tls,
};
use crate::telemetry::Handshake;

/// How long a client who has just come may take to say what he wants, when the gate comes to its end: he is connected, and
/// could not know.
const FIRST_WORD: Duration = Duration::from_secs(2);

/// The same for one whose connection was kept: his next request may be on its way, and nothing in HTTP/1 would have told
/// him not to send it. Who asks often is so told by an answer.
const NEXT_WORD: Duration = Duration::from_millis(500);

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

    /// Those that are asked something end with their answer, the others when nothing comes within a moment.
    pub(super) fn stop(&self) {
        self.leave();
        self.stopping.store(true, Ordering::SeqCst);
        self.bell.notify_waiters();
    }

    /// Ends when those who had just come when the bell rang have had their time.
    async fn over(&self) {
        self.stopped().await;
        tokio::time::sleep(FIRST_WORD).await;
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
    tls: Option<TlsAcceptor>,
    openings: Openings,
    http1: http1::Builder,
    http2: hyper::server::conn::http2::Builder<Streams>,
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
    #[error("it was the oldest of too many that had not begun")]
    Crowded,
    #[error("the gate is stopping")]
    Stopping,
}

impl<H: Handler> Terms<H> {
    /// The terms at one bound address.
    pub(super) fn new(handler: Arc<H>, options: Options, address: SocketAddr, stop: Arc<Stop>) -> Arc<Self> {
        let (http1, http2) = (http1_server(&options), http2::server(&options));
        let tls = options.tls.get(&address).cloned().map(TlsAcceptor::from);
        let openings = Openings::new(options.max_handshakes);
        Arc::new(Self { handler, options, stop, tls, openings, http1, http2 })
    }

    /// Serves a connection to its end, in its place among all.
    pub(super) async fn serve(self: Arc<Self>, mut stream: TcpStream, remote: SocketAddr, place: room::Place) {
        let _ = stream.set_nodelay(true);
        let Ok(local) = stream.local_addr() else { return };
        let mut peer = Peer { remote: folded(remote), local: folded(local), tls: false };
        // Boxed like all that most connections never need.
        if is_within(&self.options.proxy_protocol, peer) {
            match Box::pin(self.opened(read_header(&mut stream, peer))).await {
                Ok(named) => peer = named,
                Err(Unopened::Stopping) => return,
                Err(error) => return tracing::info!(%error, %peer.remote, "a connection was refused"),
            }
        }
        match &self.tls {
            None => self.converse(stream, peer).await,
            Some(acceptor) => Box::pin(self.encrypted(acceptor, stream, peer)).await,
        }
        drop(place);
    }

    /// What comes before the first request, within its time.
    async fn opened<T>(&self, opening: impl Future<Output = Result<T, Unopened>>) -> Result<T, Unopened> {
        let limit = self.options.handshake_timeout;
        let mut place = self.openings.enter();
        tokio::select! {
            biased;
            () = self.stop.over() => Err(Unopened::Stopping),
            opened = tokio::time::timeout(limit, opening) => opened.map_err(|_| Unopened::Timeout(limit))?,
            () = place.lost() => Err(Unopened::Crowded),
        }
    }

    async fn encrypted(&self, acceptor: &TlsAcceptor, stream: TcpStream, mut peer: Peer) {
        peer.tls = true;
        let handshake = async { acceptor.accept(stream).await.map_err(Unopened::from) };
        let stream = match self.opened(handshake).await {
            Ok(stream) => stream,
            Err(error) => {
                self.options.handshakes.count(match error {
                    Unopened::Timeout(_) => Handshake::Timeout,
                    Unopened::Crowded => Handshake::Crowded,
                    _ => Handshake::Failed,
                });
                return tracing::debug!(%error, %peer.remote, "a handshake failed");
            }
        };
        self.options.handshakes.count(Handshake::Done);
        match stream.get_ref().1.alpn_protocol() {
            Some(tls::HTTP2) => {
                let exchanges = Arc::new(Exchanges::default());
                let stream = Watched::new(stream, self.limits(), Arc::clone(&exchanges), false);
                self.http2(stream, peer, exchanges).await;
            }
            // The proof was in the handshake.
            Some(challenges::PROTOCOL) => {
                let mut stream = stream;
                let _ = stream.shutdown().await;
            }
            Some(_) | None => self.converse(stream, peer).await,
        }
    }

    /// Speaks HTTP/1, or what the first bytes are.
    async fn converse<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(&self, stream: S, peer: Peer) {
        let exchanges = Arc::new(Exchanges::default());
        let service = service(self, &exchanges, peer);
        let stream = Watched::new(stream, self.limits(), Arc::clone(&exchanges), self.options.http2);
        let mut connection = self.http1.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let verdict = || match exchanges.stand() {
            Stand::New => Verdict::Await(FIRST_WORD),
            Stand::Kept => Verdict::Await(NEXT_WORD),
            Stand::UnderWay => Verdict::GoOn,
        };
        let served = drive(&self.stop, &mut connection, verdict, |c| Pin::new(c).graceful_shutdown()).await;
        let Some(stream) = connection.into_parts().map(|parts| parts.io.into_inner()) else { return };
        if stream.is_http2() {
            return Box::pin(self.http2(stream, peer, exchanges)).await;
        }
        let bytes_may_come = !matches!(served, Some(Ok(()))) || exchanges.last_has_body();
        if let Some(Err(error)) = served {
            tracing::debug!(%error, %peer.remote, "a connection ended badly");
        }
        if bytes_may_come {
            linger(stream).await;
        }
    }

    async fn http2<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
        &self,
        stream: Watched<S>,
        peer: Peer,
        exchanges: Arc<Exchanges>,
    ) {
        let service = service(self, &exchanges, peer);
        let mut connection = self.http2.serve_connection(TokioIo::new(stream.for_http2()), service);
        let verdict = || {
            if exchanges.are_abuse() {
                Verdict::Break
            } else if exchanges.are_over() {
                Verdict::Finish
            } else {
                Verdict::GoOn
            }
        };
        match drive(&self.stop, &mut connection, verdict, |c| Pin::new(c).graceful_shutdown()).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(%error, %peer.remote, "a connection ended badly"),
            None => tracing::info!(%peer.remote, "a client that cut short most of what it asked for was cut off"),
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

fn http1_server(options: &Options) -> http1::Builder {
    let mut server = http1::Builder::new();
    server
        // The stream has limits of its own: the one here would count idle time into the head, and cost a timer for each
        // request.
        .header_read_timeout(None)
        .half_close(false)
        // Head and body in one piece: most answers are small, and to gather them costs less than to list them.
        .writev(false)
        .max_headers(options.max_headers)
        .max_header_size(options.max_header_bytes)
        // The same buffer holds pieces of bodies: much smaller, and large bodies go slowly.
        .max_buf_size(options.max_header_bytes.max(128 * 1024));
    server
}

fn service<H: Handler>(
    terms: &Terms<H>,
    exchanges: &Arc<Exchanges>,
    peer: Peer,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<Answered>,
    Error = Infallible,
    Future: Send + 'static,
> + use<H> {
    let (handler, exchanges) = (Arc::clone(&terms.handler), Arc::clone(exchanges));
    let (stop, max_headers) = (Arc::clone(&terms.stop), terms.options.max_headers);
    let challenges = terms.options.challenges.clone();
    service_fn(move |request: Request<Incoming>| {
        let exchange = exchanges.begin(!request.body().is_end_stream());
        let last = stop.leaving.load(Ordering::Relaxed);
        answer(Arc::clone(&handler), challenges.clone(), request, peer, exchange, max_headers, last)
    })
}

/// What is to become of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    GoOn,
    /// A request is still to come, and at the gate's end is waited for so long.
    Await(Duration),
    /// It is to end when what is under way has ended.
    Finish,
    /// It is to end at once.
    Break,
}

/// Drives a connection to its end; when the bell rings or the verdict says so, asks it once to finish. Nothing if it was
/// broken off.
///
/// The bell is listened to once and then only a flag is looked at, because a connection is polled often.
async fn drive<C: Future + Unpin>(
    stop: &Stop,
    connection: &mut C,
    verdict: impl Fn() -> Verdict,
    finish: impl Fn(&mut C),
) -> Option<C::Output> {
    let mut bell = pin!(stop.bell.notified());
    let mut listening = false;
    let mut finishing = false;
    // Boxed, for few connections ever need it.
    let mut word: Option<Pin<Box<Sleep>>> = None;
    std::future::poll_fn(|cx| {
        if !listening {
            listening = true;
            let _ = bell.as_mut().poll(cx);
        }
        loop {
            if !finishing {
                let stopping = stop.stopping.load(Ordering::SeqCst);
                finishing = match verdict() {
                    Verdict::Finish => true,
                    Verdict::Await(moment) if stopping => {
                        let over = word.get_or_insert_with(|| Box::pin(tokio::time::sleep(moment)));
                        over.as_mut().poll(cx).is_ready()
                    }
                    Verdict::Await(_) => false,
                    Verdict::GoOn | Verdict::Break => stopping,
                };
                if finishing {
                    finish(connection);
                }
            }
            if let Poll::Ready(output) = Pin::new(&mut *connection).poll(cx) {
                return Poll::Ready(Some(output));
            }
            // Being driven may have changed it.
            match verdict() {
                Verdict::Finish if !finishing => {}
                Verdict::GoOn if !finishing && word.is_some() => {}
                Verdict::Break => return Poll::Ready(None),
                Verdict::Finish | Verdict::GoOn | Verdict::Await(_) => return Poll::Pending,
            }
        }
    })
    .await
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
