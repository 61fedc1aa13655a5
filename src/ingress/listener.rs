//! Takes connections in, as many as there is room for, and lets them finish.
//!
//! A client that closes its sending side has gone, as far as we can tell (half-close is off): its request is dropped,
//! and what works on a callback must not live in the handler's future.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;
use ipnet::IpNet;
use tokio::{net::TcpListener, sync::Semaphore};

use super::{
    body::Body,
    connection::{Stop, Terms},
};

/// What a listener allows.
#[derive(Clone, Debug)]
pub struct Options {
    /// Networks whose connections begin with a PROXY header. One that has none is refused, and nobody else's is read.
    pub proxy_protocol: Vec<IpNet>,
    /// How long what comes before the first request may take: the PROXY header.
    pub handshake_timeout: Duration,
    /// How long the head of a request may take from its first byte on; the first one from the connection's start on.
    pub header_timeout: Duration,
    /// How long a connection is kept without a request.
    pub idle_timeout: Duration,
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
            proxy_protocol: Vec::new(),
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
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
    /// The other side, a mapped IPv4 address folded; behind a proxy that has to name its clients, the one that it names.
    pub remote: SocketAddr,
    /// The side that it connected to.
    pub local: SocketAddr,
    /// Whether it speaks TLS, with us or with that proxy.
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
    room: Arc<Semaphore>,
}

/// How many connections are open, for whoever counts them.
#[derive(Clone, Debug)]
pub struct Open {
    room: Arc<Semaphore>,
    max: usize,
    waiting: usize,
}

impl Open {
    /// So many.
    #[must_use]
    pub fn count(&self) -> usize {
        // Each socket holds a place ready for who comes next.
        self.max.saturating_sub(self.room.available_permits()).saturating_sub(self.waiting)
    }
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
        let room = Arc::new(Semaphore::new(options.max_connections.min(Semaphore::MAX_PERMITS)));
        Ok(Self { sockets, options, room })
    }

    /// What counts the open connections.
    #[must_use]
    pub fn open(&self) -> Open {
        Open { room: Arc::clone(&self.room), max: self.options.max_connections, waiting: self.sockets.len() }
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
        let room = self.room;
        let stop = Arc::new(Stop::default());
        let terms = Terms::new(handler, self.options, Arc::clone(&stop));
        let doors: Vec<_> = self
            .sockets
            .into_iter()
            .map(|socket| {
                let door = Door { terms: Arc::clone(&terms), room: Arc::clone(&room) };
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

/// One listening socket and what its connections share.
struct Door<H> {
    terms: Arc<Terms<H>>,
    room: Arc<Semaphore>,
}

impl<H: Handler> Door<H> {
    async fn accept(self, socket: TcpListener) {
        let mut pause = Pause::default();
        loop {
            let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else { return };
            match socket.accept().await {
                Ok((stream, remote)) => {
                    pause.reset();
                    tokio::spawn(Arc::clone(&self.terms).serve(stream, remote, permit));
                }
                Err(error) => pause.after(&error).await,
            }
        }
    }
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
