//! A gate that passes everything through, and what starts and stops it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;
use ipnet::IpNet;
use oncegate::{
    ingress::{
        Body, Client, Handler, Listener, Peer,
        body::read_whole,
        listener::{self, Drained},
        passthrough,
    },
    upstream::{self, Upstream},
};
use tokio::{net::TcpStream, sync::oneshot, task::JoinHandle};
use tokio_rustls::rustls::ServerConfig;

use super::{
    app::App,
    wire::{Wire, soon},
};

/// How the gate of a test differs from the usual.
pub struct Setup {
    pub upstream: upstream::Options,
    pub listener: listener::Options,
    pub listen: SocketAddr,
    /// TLS, if it is spoken.
    pub tls: Option<Arc<ServerConfig>>,
    pub trusted: Vec<IpNet>,
    pub drain: Duration,
    /// Read the body whole up to here and within this time before passing nothing on, as the way of callbacks begins.
    pub whole: Option<(usize, Duration)>,
}

impl Setup {
    pub fn to(url: impl Into<String>) -> Self {
        Self {
            upstream: upstream::Options::new(url),
            listener: listener::Options::default(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            trusted: Vec::new(),
            drain: Duration::from_secs(10),
            whole: None,
        }
    }

    pub fn start(mut self) -> Gate {
        let socket = listener::bind(self.listen, self.listener.backlog).unwrap();
        let address = socket.local_addr().unwrap();
        self.listener.tls = self.tls.map(|tls| (address, tls)).into_iter().collect();
        let listener = Listener::over(vec![socket], self.listener);
        let upstream = Arc::new(Upstream::new(self.upstream).unwrap());
        let handler = Arc::new(PassAll { upstream: Arc::clone(&upstream), trusted: self.trusted, whole: self.whole });
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async {
            let _ = stopped.await;
        };
        let served = tokio::spawn(listener.serve(handler, stopped, move || self.drain));
        Gate { address, upstream, stop, served }
    }
}

struct PassAll {
    upstream: Arc<Upstream>,
    trusted: Vec<IpNet>,
    whole: Option<(usize, Duration)>,
}

impl Handler for PassAll {
    async fn handle(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Response<Body> {
        if let Some((limit, within)) = self.whole {
            return match read_whole(request.into_body(), limit, within).await {
                Ok(bytes) => Response::new(Body::full(bytes)),
                Err(error) => passthrough::plain(error.status(), error.to_string()),
            };
        }
        let client = Client::of(peer.remote, peer.tls, request.uri(), request.headers(), &self.trusted);
        passthrough::forward(&self.upstream, request, &client).await
    }
}

pub struct Gate {
    pub address: SocketAddr,
    pub upstream: Arc<Upstream>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Drained>,
}

impl Gate {
    pub fn before(url: impl Into<String>) -> Self {
        Setup::to(url).start()
    }

    pub async fn client(&self) -> Wire {
        self.client_from(self.address).await
    }

    pub async fn client_from(&self, address: impl Into<SocketAddr>) -> Wire {
        Wire::new(soon(TcpStream::connect(address.into())).await.unwrap())
    }

    /// Begins to stop; what is returned ends when the drain has.
    pub fn stop(self) -> JoinHandle<Drained> {
        self.stop.send(()).unwrap();
        self.served
    }
}

pub async fn app_and_gate() -> (App, Gate) {
    let app = App::start().await;
    let gate = Gate::before(app.url());
    (app, gate)
}
