//! Takes connections in, serves HTTP/1 on them, and lets them finish.
//!
//! A client that closes its sending side has gone, as far as we can tell (half-close is off): its request is dropped,
//! and what works on a callback must not live in the handler's future.

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

use http::{HeaderValue, Request, Response, header::CONNECTION};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep},
};

use super::{body::Body, headers, passthrough};

/// How long the rest of what a client sends is read, after an answer that did not wait for it.
const LINGER: Duration = Duration::from_secs(2);

/// What a listener allows.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long the head of a request may take, counted from when it could be sent: from the connection's start, or
    /// from the answer before it. So this is the time that an idle connection is kept, too.
    pub header_timeout: Duration,
    /// How long a client may leave an answer unread.
    pub write_timeout: Duration,
    /// Connections at once; beyond it they wait in the kernel's queue.
    pub max_connections: usize,
    /// Header fields of one request: 431 beyond it.
    pub max_headers: usize,
    /// Bytes of one request's head: 431 beyond it.
    pub max_header_bytes: usize,
    /// Connections that wait in the kernel.
    pub backlog: i32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(60),
            max_connections: 10_000,
            max_headers: 100,
            max_header_bytes: 64 * 1024,
            backlog: 4096,
        }
    }
}

/// One end of the connection that a request came on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The other side, a mapped IPv4 address folded.
    pub remote: SocketAddr,
    /// Our side.
    pub local: SocketAddr,
    /// Whether we ended TLS on it.
    pub tls: bool,
}

/// What answers requests.
///
/// It is dropped when the client goes away; what must be finished lives in a task of its own.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request, whose form has been found fit to be passed on.
    fn handle(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> impl Future<Output = Response<Body>> + Send;
}

/// An address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    pub source: io::Error,
}

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Connections that were still busy when the time was up.
    pub unfinished: usize,
}

/// The sockets that requests come in on.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<TcpListener>,
    options: Options,
}

impl Listener {
    /// Binds the addresses; `[::]` takes IPv4 too.
    ///
    /// # Errors
    /// If one of them cannot be had.
    pub fn bind(addresses: &[SocketAddr], options: Options) -> Result<Self, BindError> {
        let bind = |address: &SocketAddr| {
            listen(*address, options.backlog).map_err(|source| BindError { address: *address, source })
        };
        let sockets = addresses.iter().map(bind).collect::<Result<_, _>>()?;
        Ok(Self { sockets, options })
    }

    /// The addresses as bound, ports filled in.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Serves until `shutdown`, then takes no more in, lets what is under way finish for at most `limit`, and says
    /// whether it did. Tunnels are not waited for.
    pub async fn serve<H: Handler>(
        self,
        handler: Arc<H>,
        shutdown: impl Future<Output = ()>,
        limit: Duration,
    ) -> Drained {
        let max = u32::try_from(self.options.max_connections).unwrap_or(u32::MAX);
        let room = Arc::new(Semaphore::new(max as usize));
        let stop = Arc::new(Stop::default());
        let options = Arc::new(self.options);
        let doors: Vec<_> = self
            .sockets
            .into_iter()
            .map(|socket| {
                let door = Door {
                    handler: Arc::clone(&handler),
                    server: server(&options),
                    options: Arc::clone(&options),
                    room: Arc::clone(&room),
                    stop: Arc::clone(&stop),
                };
                tokio::spawn(door.accept(socket))
            })
            .collect();
        shutdown.await;
        for door in doors {
            door.abort();
            // Waited for, so that its socket is closed before anything is waited for that takes long.
            let _ = door.await;
        }
        stop.stop();
        let all = tokio::time::timeout(limit, room.acquire_many(max)).await;
        Drained { unfinished: if all.is_ok() { 0 } else { (max as usize).saturating_sub(room.available_permits()) } }
    }
}

fn listen(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    TcpListener::from_std(socket.into())
}

fn server(options: &Options) -> http1::Builder {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .half_close(false)
        .max_headers(options.max_headers)
        .max_header_size(options.max_header_bytes)
        // The same buffer holds pieces of bodies: much smaller, and large bodies go slowly.
        .max_buf_size(options.max_header_bytes.max(128 * 1024));
    server
}

/// Tells connections to finish: a flag to look at, and a bell for those that sleep.
#[derive(Debug, Default)]
struct Stop {
    stopping: AtomicBool,
    bell: Notify,
}

impl Stop {
    fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.bell.notify_waiters();
    }
}

/// One listening socket and what its connections share.
struct Door<H> {
    handler: Arc<H>,
    server: http1::Builder,
    options: Arc<Options>,
    room: Arc<Semaphore>,
    stop: Arc<Stop>,
}

impl<H: Handler> Door<H> {
    async fn accept(self, socket: TcpListener) {
        let mut pause = Pause::default();
        loop {
            let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else { return };
            match socket.accept().await {
                Ok((stream, remote)) => {
                    pause.reset();
                    self.take_in(stream, remote, permit);
                }
                Err(error) => pause.after(&error).await,
            }
        }
    }

    fn take_in(&self, stream: TcpStream, remote: SocketAddr, permit: OwnedSemaphorePermit) {
        let _ = stream.set_nodelay(true);
        let Ok(local) = stream.local_addr() else { return };
        let peer = Peer { remote: folded(remote), local: folded(local), tls: false };
        let handler = Arc::clone(&self.handler);
        let has_body = Arc::new(AtomicBool::new(false));
        let last_has_body = Arc::clone(&has_body);
        let service = service_fn(move |request: Request<Incoming>| {
            has_body.store(!request.body().is_end_stream(), Ordering::Relaxed);
            answer(Arc::clone(&handler), request, peer)
        });
        let stream = Watched::new(stream, self.options.write_timeout);
        let mut connection = self.server.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let stop = Arc::clone(&self.stop);
        tokio::spawn(async move {
            let served = finish_on(&stop, &mut connection, |c| Pin::new(c).graceful_shutdown()).await;
            let bytes_may_come = served.is_err() || last_has_body.load(Ordering::Relaxed);
            if let Err(error) = served {
                tracing::debug!(%error, %peer.remote, "a connection ended badly");
            }
            if let Some(parts) = connection.into_parts()
                && bytes_may_come
            {
                linger(parts.io.into_inner()).await;
            }
            drop(permit);
        });
    }
}

fn folded(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
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
) -> Result<Response<Body>, Infallible> {
    Ok(match headers::admit(&request) {
        Ok(()) => handler.handle(request, peer).await,
        Err(refusal) => {
            let mut response = passthrough::plain(refusal.status(), format!("{refusal}\n"));
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            response
        }
    })
}

/// Reads on for a moment what the client still sends, after we have said our last word: closing on unread bytes resets
/// the connection, and the client would lose the answer it was sent.
async fn linger(mut stream: Watched) {
    if stream.ended {
        return;
    }
    let _ = stream.shutdown().await;
    let mut sink = vec![0; 16 * 1024];
    let drain = async { while matches!(stream.read(&mut sink).await, Ok(n) if n > 0) {} };
    let _ = tokio::time::timeout(LINGER, drain).await;
}

/// Waits longer after each failure to accept, so that a lack of file descriptors does not turn into a lack of CPU.
#[derive(Default)]
struct Pause {
    failures: u32,
}

impl Pause {
    fn reset(&mut self) {
        self.failures = 0;
    }

    async fn after(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
        if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted) {
            // That one client has gone; the next may be fine.
            return;
        }
        self.failures = (self.failures + 1).min(7);
        let pause = Duration::from_millis(10 << self.failures);
        tracing::warn!(%error, ?pause, "cannot take a connection in");
        tokio::time::sleep(pause).await;
    }
}

/// A client's stream that knows whether its end was seen, and that fails if the client leaves an answer unread.
struct Watched {
    stream: TcpStream,
    ended: bool,
    write_timeout: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Watched {
    const fn new(stream: TcpStream, write_timeout: Duration) -> Self {
        Self { stream, ended: false, write_timeout, stalled: None }
    }

    fn watch(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(result) => {
                self.stalled = None;
                self.ended |= result.is_err();
                Poll::Ready(result)
            }
            Poll::Pending => {
                let timeout = self.write_timeout;
                let timer =
                    self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + timeout)));
                timer.as_mut().poll(cx).map(|()| {
                    self.ended = true;
                    Err(io::Error::new(io::ErrorKind::TimedOut, "the client leaves its answer unread"))
                })
            }
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        self.ended |= result.is_err() || (buf.filled().len() == before && buf.remaining() > 0);
        Poll::Ready(result)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
