//! Takes connections in, as many as there is room for, and lets them finish.
//!
//! A client that closes its sending side has gone, as far as we can tell (half-close is off): its request is dropped,
//! and what works on a callback must not live in the handler's future.

use std::{collections::HashMap, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use http::{Request, Response};
use hyper::body::Incoming;
use ipnet::IpNet;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    task::JoinHandle,
};
use tokio_rustls::rustls::ServerConfig;

use super::{
    body::Body,
    challenges::Challenges,
    connection::{Stop, Terms},
    room::{Free, Room},
};
use crate::telemetry::Handshakes;

/// What a listener allows.
#[derive(Clone, Debug)]
pub struct Options {
    /// Networks whose connections begin with a PROXY header. One that has none is refused, and nobody else's is read.
    pub proxy_protocol: Vec<IpNet>,
    /// How TLS is spoken at those bound addresses where it is.
    pub tls: HashMap<SocketAddr, Arc<ServerConfig>>,
    /// The proofs that certificate authorities may ask for.
    pub challenges: Option<Arc<Challenges>>,
    /// How long what comes before the first request may take: the PROXY header, the handshake of TLS.
    pub handshake_timeout: Duration,
    /// Connections of which that has not come yet, at one address; beyond it, the oldest of them is closed.
    pub max_handshakes: usize,
    /// What counts handshakes.
    pub handshakes: Handshakes,
    /// Whether HTTP/2 is spoken with who wants it.
    pub http2: bool,
    /// Requests at once on one connection of HTTP/2.
    pub max_streams: u32,
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
            tls: HashMap::new(),
            challenges: None,
            handshake_timeout: Duration::from_secs(10),
            max_handshakes: 4096,
            handshakes: Handshakes::default(),
            http2: true,
            max_streams: 100,
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
    control: Control,
    orders: mpsc::UnboundedReceiver<Order>,
}

/// Changes a listener while it serves; whoever is connected stays so.
#[derive(Clone, Debug)]
pub struct Control {
    orders: mpsc::UnboundedSender<Order>,
    room: Arc<Room>,
}

/// What a listener that serves is told.
#[derive(Debug)]
enum Order {
    Open(TcpListener),
    Close(SocketAddr),
    Change(Options),
}

impl Control {
    /// How many connections are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        self.room.taken()
    }

    /// Takes connections in on one more socket.
    pub fn open(&self, socket: TcpListener) {
        self.order(Order::Open(socket));
    }

    /// Takes in what waits at this address, which is the bound one, and nothing more; its connections end with their
    /// next answer.
    pub fn close(&self, address: SocketAddr) {
        self.order(Order::Close(address));
    }

    /// Serves new connections by these options. Places that are taken are not given up before their time.
    pub fn change(&self, options: Options) {
        self.order(Order::Change(options));
    }

    fn order(&self, order: Order) {
        // A listener that serves no more takes no orders.
        let _ = self.orders.send(order);
    }
}

impl Listener {
    /// Binds the addresses; `[::]` takes IPv4 too.
    ///
    /// # Errors
    /// If one of them cannot be had.
    pub fn bind(addresses: &[SocketAddr], options: Options) -> Result<Self, BindError> {
        let sockets = addresses.iter().map(|address| bind(*address, options.backlog)).collect::<Result<_, _>>()?;
        Ok(Self::over(sockets, options))
    }

    /// Takes sockets that are bound.
    #[must_use]
    pub fn over(sockets: Vec<TcpListener>, options: Options) -> Self {
        let (sender, orders) = mpsc::unbounded_channel();
        let control = Control { orders: sender, room: Room::for_connections(options.max_connections) };
        Self { sockets, options, control, orders }
    }

    /// What changes it while it serves.
    #[must_use]
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// The addresses as bound, ports filled in.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// Serves until `shutdown`, then takes no more in, lets what is under way finish for as long as `limit` says then,
    /// and tells whether it did. Tunnels are not waited for.
    pub async fn serve<H: Handler>(
        self,
        handler: Arc<H>,
        shutdown: impl Future<Output = ()>,
        limit: impl FnOnce() -> Duration,
    ) -> Drained {
        let Self { sockets, options, control, mut orders } = self;
        let mut house = House { handler, options, room: control.room, open: Vec::new(), closed: Vec::new() };
        sockets.into_iter().for_each(|socket| house.open(socket));
        let mut shutdown = pin!(shutdown);
        loop {
            let order = tokio::select! {
                () = &mut shutdown => break,
                // The sender is in our own hands, so that there is always one more to wait for.
                Some(order) = orders.recv() => order,
            };
            match order {
                Order::Open(socket) => house.open(socket),
                Order::Close(address) => house.close(address),
                Order::Change(options) => house.change(options),
            }
        }
        house.end().await;
        let _ = tokio::time::timeout(limit(), house.room.empty()).await;
        Drained { unfinished: house.room.taken() }
    }
}

/// Binds one address; `[::]` takes IPv4 too.
///
/// # Errors
/// If it cannot be had.
pub fn bind(address: SocketAddr, backlog: i32) -> Result<TcpListener, BindError> {
    listen(address, backlog, false).map_err(|source| BindError { address, source })
}

/// Binds one address that other processes of the same user may bind too.
///
/// # Errors
/// If it cannot be had.
pub fn bind_shared(address: SocketAddr, backlog: i32) -> Result<TcpListener, BindError> {
    listen(address, backlog, true).map_err(|source| BindError { address, source })
}

/// Binds one address though sockets that are about to be closed stand on its port: `127.0.0.1` in the place of `[::]`.
///
/// # Errors
/// If it cannot be had.
pub fn bind_beside(address: SocketAddr, backlog: i32, leaving: &[&Socket]) -> Result<TcpListener, BindError> {
    bind(address, backlog).or_else(|error| {
        let is_beside = |socket: &&&Socket| {
            let bound = socket.local_addr().ok().and_then(|bound| bound.as_socket());
            bound.is_some_and(|bound| bound.port() == address.port())
        };
        let beside: Vec<_> = leaving.iter().filter(is_beside).collect();
        if beside.is_empty() || error.source.kind() != io::ErrorKind::AddrInUse {
            return Err(error);
        }
        // For no longer than this: whoever may share an address is a second gate that nobody knows of.
        let share = |shared: bool| beside.iter().try_for_each(|socket| socket.set_reuse_port(shared));
        let socket = share(true).and_then(|()| listen(address, backlog, true));
        share(false)
            .and(socket)
            .and_then(|socket| SockRef::from(&socket).set_reuse_port(false).map(|()| socket))
            .map_err(|source| BindError { address, source })
    })
}

/// The doors of a listener that serves.
struct House<H> {
    handler: Arc<H>,
    options: Options,
    room: Arc<Room>,
    open: Vec<Open<H>>,
    /// Doors that are closed, of which some may still have connections.
    closed: Vec<Task>,
}

/// A door as seen from inside: what its connections share, and what tells it to close.
struct Open<H> {
    address: SocketAddr,
    terms: Arc<ArcSwap<Terms<H>>>,
    close: Arc<Notify>,
    task: Task,
}

/// A door's task, and what tells its connections to finish.
struct Task {
    accepting: JoinHandle<()>,
    stop: Arc<Stop>,
}

impl Task {
    /// Whether it takes in or has connections; asked of one whose door is closed.
    fn is_at_work(&self) -> bool {
        // Besides us, only their terms hold on to it.
        Arc::strong_count(&self.stop) > 1
    }
}

impl<H: Handler> House<H> {
    fn open(&mut self, socket: TcpListener) {
        let Ok(address) = socket.local_addr() else { return };
        let (stop, close) = (Arc::new(Stop::default()), Arc::new(Notify::new()));
        let terms = Terms::new(Arc::clone(&self.handler), self.options.clone(), address, Arc::clone(&stop));
        let terms = Arc::new(ArcSwap::new(terms));
        let door = Door { terms: Arc::clone(&terms), room: Arc::clone(&self.room) };
        let accepting = tokio::spawn(door.accept_until(socket, Arc::clone(&close)));
        self.open.push(Open { address, terms, close, task: Task { accepting, stop } });
    }

    fn close(&mut self, address: SocketAddr) {
        self.closed.retain(Task::is_at_work);
        for door in self.open.extract_if(.., |door| door.address == address) {
            door.close.notify_one();
            door.task.stop.leave();
            self.closed.push(door.task);
        }
    }

    fn change(&mut self, options: Options) {
        self.room.resize(options.max_connections);
        for door in &self.open {
            door.terms.store(Terms::new(
                Arc::clone(&self.handler),
                options.clone(),
                door.address,
                Arc::clone(&door.task.stop),
            ));
        }
        self.options = options;
    }

    async fn end(&mut self) {
        let open = self.open.iter_mut().map(|door| &mut door.task);
        for task in open.chain(&mut self.closed) {
            task.accepting.abort();
            // Waited for, so that its socket is closed before anything is waited for that takes long.
            let _ = (&mut task.accepting).await;
            task.stop.stop();
        }
    }
}

fn listen(address: SocketAddr, backlog: i32, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    TcpListener::from_std(socket.into())
}

/// One listening socket and what its connections share.
struct Door<H> {
    terms: Arc<ArcSwap<Terms<H>>>,
    room: Arc<Room>,
}

impl<H: Handler> Door<H> {
    async fn accept_until(self, socket: TcpListener, close: Arc<Notify>) {
        tokio::select! {
            () = self.accept(&socket) => {}
            () = close.notified() => self.empty(socket).await,
        }
    }

    async fn accept(&self, socket: &TcpListener) {
        let mut pause = Pause::default();
        loop {
            let Some(place) = self.room.place().await else { return };
            match socket.accept().await {
                Ok((stream, remote)) => {
                    pause.reset();
                    self.take_in(stream, remote, place);
                }
                Err(error) => pause.after(&error).await,
            }
        }
    }

    /// Takes in who has come already: closing the socket on him would reset his connection.
    async fn empty(&self, socket: TcpListener) {
        // Asked directly, for who is there counts before the reactor has heard of him.
        let Ok(socket) = socket.into_std() else { return };
        loop {
            let Some(place) = self.room.place().await else { return };
            let accepted = socket.accept().and_then(|(stream, remote)| {
                stream.set_nonblocking(true)?;
                Ok((TcpStream::from_std(stream)?, remote))
            });
            match accepted {
                Ok((stream, remote)) => self.take_in(stream, remote, place),
                Err(error) if is_of_one(&error) => {}
                // Nobody is left, or nobody can be had.
                Err(_) => return,
            }
        }
    }

    fn take_in(&self, stream: TcpStream, remote: SocketAddr, place: Free) {
        tokio::spawn(self.terms.load_full().serve(stream, remote, self.room.take(place)));
    }
}

/// Whether this failure to accept is about one client, who has gone; the next may be fine.
fn is_of_one(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
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
        if is_of_one(error) {
            return;
        }
        self.failures = (self.failures + 1).min(7);
        let pause = Duration::from_millis(10 << self.failures);
        tracing::warn!(%error, ?pause, "cannot take a connection in");
        tokio::time::sleep(pause).await;
    }
}
