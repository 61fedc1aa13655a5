//! A stand-in for Mollie's API: it knows payments, all of them paid.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use tokio::{net::TcpListener, task::JoinSet};

use crate::demo::{Payment, wire};

/// The stand-in, running until it is dropped.
#[derive(Debug)]
pub struct Mollie {
    address: SocketAddr,
    hashes: Hashes,
    _server: JoinSet<()>,
}

/// The hash that the app gave along with each payment, by reference.
type Hashes = Arc<Mutex<HashMap<String, String>>>;

impl Mollie {
    pub(super) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, hashes) = (listener.local_addr()?, Hashes::default());
        let known = Arc::clone(&hashes);
        let mut server = JoinSet::new();
        server.spawn(wire::serve(listener, move |request| {
            let answer = answer(&request, &known);
            async { answer }
        }));
        Ok(Self { address, hashes, _server: server })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The payer has paid.
    pub(super) fn paid(&self, payment: &Payment) {
        let mut hashes = self.hashes.lock().unwrap_or_else(PoisonError::into_inner);
        hashes.insert(payment.reference.clone(), payment.hash.clone());
    }
}

fn answer(request: &Request<Incoming>, hashes: &Hashes) -> Response<Full<Bytes>> {
    let reference = request.uri().path().strip_prefix("/v2/payments/").filter(|_| request.method() == Method::GET);
    let hashes = hashes.lock().unwrap_or_else(PoisonError::into_inner);
    match reference.and_then(|reference| hashes.get_key_value(reference)) {
        Some((reference, hash)) => json(StatusCode::OK, &paid(reference, hash)),
        None => json(StatusCode::NOT_FOUND, &serde_json::json!({ "status": 404, "title": "Not Found" })),
    }
}

fn paid(reference: &str, hash: &str) -> serde_json::Value {
    serde_json::json!({
        "resource": "payment",
        "id": reference,
        "mode": "test",
        "status": "paid",
        "amount": { "value": "121.00", "currency": "EUR" },
        "method": "ideal",
        "metadata": { "hash": hash },
    })
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/hal+json"));
    response
}
