//! An app with the very race: it looks whether a payment is in its books, takes its time, and writes it down.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use tokio::{net::TcpListener, task::JoinSet};

use crate::demo::{Payment, Targets, wire};

/// The app, running until it is dropped.
#[derive(Debug)]
pub struct App {
    office: Arc<Office>,
    targets: Targets,
    _servers: JoinSet<()>,
}

#[derive(Debug)]
struct Office {
    books: Mutex<Books>,
    mollie: SocketAddr,
    gap: Duration,
}

#[derive(Debug, Default)]
struct Books {
    /// The provider's id of each payment that was begun, by the app's own name of it.
    begun: HashMap<String, String>,
    /// How many requests came about each payment.
    visits: HashMap<String, u32>,
    /// The payment records, each with its provider's id: no unique index.
    records: Vec<String>,
    sessions: u32,
}

impl App {
    pub(super) async fn start(mollie: SocketAddr, gap: Duration) -> io::Result<Self> {
        let office = Arc::new(Office { books: Mutex::default(), mollie, gap });
        let mut servers = JoinSet::new();
        let first = open(&office, &mut servers, "127.0.0.1:0").await?;
        // Not every machine has IPv6; the race does not need it.
        let second = open(&office, &mut servers, "[::1]:0").await.unwrap_or(first);
        Ok(Self { office, targets: Targets { first, second }, _servers: servers })
    }

    /// Where it listens.
    #[must_use]
    pub const fn targets(&self) -> Targets {
        self.targets
    }

    /// The payer has been sent to the provider with this payment.
    pub(super) fn expect(&self, payment: &Payment) {
        self.office.books().begun.insert(payment.hash.clone(), payment.reference.clone());
    }

    /// How many requests about this payment reached the app.
    #[must_use]
    pub fn reached(&self, reference: &str) -> u32 {
        self.office.books().visits.get(reference).copied().unwrap_or(0)
    }

    /// How many records of this payment are in the books.
    #[must_use]
    pub fn booked(&self, reference: &str) -> u32 {
        let count = self.office.books().records.iter().filter(|record| *record == reference).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

async fn open(office: &Arc<Office>, servers: &mut JoinSet<()>, address: &str) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let office = Arc::clone(office);
    servers.spawn(wire::serve(listener, move |request| answer(Arc::clone(&office), request)));
    Ok(address)
}

async fn answer(office: Arc<Office>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if request.method() == Method::POST && path.starts_with("/payment_webhook/") {
        return office.webhook(request).await;
    }
    if request.method() == Method::GET && path == "/payments/process/response" {
        return office.browser_return(request.uri().query().unwrap_or_default()).await;
    }
    page(StatusCode::OK, "text/html; charset=utf-8", "<p>The portal.</p>")
}

impl Office {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn webhook(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let body = wire::whole(request.into_body()).await.unwrap_or_default();
        let Some(reference) = field(&String::from_utf8_lossy(&body), "id") else {
            return page(StatusCode::UNPROCESSABLE_ENTITY, "application/json", "{\"message\":\"no id\"}");
        };
        match self.book(&reference).await {
            Ok(()) => page(StatusCode::OK, "application/json", "[]"),
            Err(_) => page(StatusCode::INTERNAL_SERVER_ERROR, "application/json", "{\"message\":\"no answer\"}"),
        }
    }

    async fn browser_return(&self, query: &str) -> Response<Full<Bytes>> {
        let hash = field(query, "payment_hash").unwrap_or_default();
        let Some(reference) = self.books().begun.get(&hash).cloned() else {
            return page(StatusCode::NOT_FOUND, "text/html; charset=utf-8", "<p>No such payment.</p>");
        };
        match self.book(&reference).await {
            Ok(()) => self.welcome(&reference),
            Err(_) => page(StatusCode::INTERNAL_SERVER_ERROR, "text/html; charset=utf-8", "<p>Sorry.</p>"),
        }
    }

    /// Where the race is: between the check and the insert nothing keeps another request out.
    async fn book(&self, reference: &str) -> Result<(), wire::AskError> {
        *self.books().visits.entry(reference.to_owned()).or_default() += 1;
        if !self.is_paid(reference).await? || self.books().records.iter().any(|record| record == reference) {
            return Ok(());
        }
        tokio::time::sleep(self.gap).await;
        self.books().records.push(reference.to_owned());
        Ok(())
    }

    async fn is_paid(&self, reference: &str) -> Result<bool, wire::AskError> {
        let mut question = Request::new(Full::default());
        *question.uri_mut() = format!("/v2/payments/{reference}").parse().unwrap_or_default();
        let answer = wire::ask(self.mollie, question).await?;
        let said: serde_json::Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        Ok(said["status"] == "paid")
    }

    /// The payer is logged in by the return and sent to the payment: cookies that are nobody else's.
    fn welcome(&self, reference: &str) -> Response<Full<Bytes>> {
        let session = {
            let mut books = self.books();
            books.sessions += 1;
            books.sessions
        };
        let mut response = page(StatusCode::FOUND, "text/html; charset=utf-8", "");
        let headers = response.headers_mut();
        put(headers, header::LOCATION, format!("/client/payments/{reference}"));
        for name in ["XSRF-TOKEN", "invoice_ninja_session", "remember_contact_demo"] {
            put(headers, header::SET_COOKIE, format!("{name}=session-{session}; path=/; httponly; samesite=lax"));
        }
        response
    }
}

fn put(headers: &mut http::HeaderMap, name: header::HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.append(name, value);
    }
}

fn field(form: &str, name: &str) -> Option<String> {
    let (_, value) = form.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name)?;
    Some(value.to_owned())
}

fn page(status: StatusCode, content_type: &'static str, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
