//! A whole gate from a configuration, and what callers say to it.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use oncegate::{
    config::{Loaded, World},
    gateway::{self, Running},
    telemetry::Metrics,
};
use tokio::{net::TcpStream, task::JoinHandle};

use super::wire::{Head, Wire, soon};

/// The preset, with everything that waits made short; a test says what it wants longer.
pub const NINJA: &str = "preset = 'invoice-ninja'\n[[rule]]\nhold = '0s'\n";

/// The path of a webhook of the preset.
pub const HOOK: &str = "/payment_webhook/CompanyKey/VolejRejNm";

/// A gate that runs.
pub struct Standing {
    pub running: Running,
    port: u16,
}

/// What a caller was told.
#[derive(Clone, Debug)]
pub struct Told {
    pub head: Head,
    pub body: String,
}

/// The text of a configuration: what a test needs, before what the test says. It keeps nothing on the disk unless asked to.
pub fn config(url: &str, more: &str) -> String {
    let engine = if more.contains("[store]") { "" } else { "store.engine = 'memory'\n" };
    format!("gateway.listen = ['[::]:0']\nadmin.listen = '127.0.0.1:0'\n{engine}upstream.url = '{url}'\n{more}")
}

impl Standing {
    pub async fn before(url: &str, more: &str) -> Self {
        let loaded = Loaded::from_text("test", &config(url, more), &World::real());
        let config = loaded.into_config().unwrap_or_else(|faults| panic!("{faults:?}"));
        let running = gateway::start(config, Arc::new(Metrics::new())).await.unwrap();
        let port = running.addresses[0].port();
        Self { running, port }
    }

    pub fn v4(&self) -> SocketAddr {
        (IpAddr::from(Ipv4Addr::LOCALHOST), self.port).into()
    }

    pub fn v6(&self) -> SocketAddr {
        (IpAddr::from(Ipv6Addr::LOCALHOST), self.port).into()
    }

    pub async fn client(&self) -> Wire {
        connect(self.v4()).await
    }

    /// Says this, and leaves the answer to be read.
    pub async fn say(&self, request: impl AsRef<[u8]>) -> Wire {
        let mut wire = self.client().await;
        wire.write(request).await;
        wire
    }

    /// Says this and hears the answer.
    pub async fn ask(&self, request: impl AsRef<[u8]>) -> Told {
        heard(self.say(request).await).await
    }

    /// Says this; the answer comes when it comes.
    pub async fn begin(&self, request: impl AsRef<[u8]>) -> JoinHandle<Told> {
        let wire = self.say(request).await;
        tokio::spawn(heard(wire))
    }

    /// A page of the admin listener.
    pub async fn admin(&self, path: &str) -> Told {
        let mut wire = connect(self.running.admin.unwrap()).await;
        wire.write(format!("GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")).await;
        heard(wire).await
    }

    /// One figure of the metrics: the whole of the line before the value.
    pub fn figure(&self, series: &str) -> f64 {
        self.shown(series).unwrap_or_default()
    }

    /// The same, and nothing where there is no such series.
    pub fn shown(&self, series: &str) -> Option<f64> {
        let page = self.running.metrics.render();
        let line =
            page.lines().find_map(|line| line.strip_prefix("oncegate_")?.strip_prefix(series)?.strip_prefix(' '));
        line.map(|value| value.parse().expect("a number"))
    }

    /// Waits until so many callers wait for an answer.
    pub async fn waiters(&self, count: i64) {
        self.until("callers wait", || self.running.metrics.waiters.get() == count).await;
    }

    /// Waits until so many callbacks have come.
    pub async fn callbacks(&self, count: u32) {
        let series = "requests_total{kind=\"callback\"}";
        self.until("callbacks have come", || self.figure(series) >= f64::from(count)).await;
    }

    pub async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let polled = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), polled)
            .await
            .unwrap_or_else(|_| panic!("waited in vain: {what}"));
    }
}

pub async fn connect(address: SocketAddr) -> Wire {
    Wire::new(soon(TcpStream::connect(address)).await.unwrap())
}

pub async fn heard(mut wire: Wire) -> Told {
    let (head, body) = wire.answer().await;
    Told { head, body }
}

impl Told {
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    /// What the gate says that it decided; nothing on a return.
    pub fn decision(&self) -> &str {
        self.head.all("oncegate-decision").first().copied().unwrap_or_default()
    }

    pub fn cookies(&self) -> usize {
        self.head.all("set-cookie").len()
    }

    /// Asserts that this is what Invoice Ninja says to Mollie, and nothing that is a browser's.
    #[track_caller]
    pub fn is_brackets(&self) {
        assert_eq!((self.status(), self.body.as_str()), (200, "[]"), "{self:?}");
        assert_eq!(self.head.one("content-type"), "application/json");
        assert_eq!(self.cookies(), 0, "{self:?}");
    }

    /// Asserts that this is a payer's own page.
    #[track_caller]
    pub fn is_welcome(&self) {
        assert_eq!((self.status(), self.cookies()), (302, 3), "{self:?}");
        assert!(self.head.one("location").starts_with("/client/payments/"), "{self:?}");
        assert_eq!(self.decision(), "", "a browser is not told what the gate decides");
    }
}

/// A request with a body.
pub fn post(target: &str, headers: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: pay.example\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

/// Mollie's webhook about this payment.
pub fn mollie(reference: &str) -> String {
    mollie_at("pay.example", HOOK, reference)
}

pub fn mollie_at(host: &str, target: &str, reference: &str) -> String {
    let body = format!("id={reference}");
    format!(
        "POST {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: Mollie HTTP client/1.0\r\nAccept: */*\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A webhook that carries the hash under which its payer comes back, as Stripe's do.
pub fn joined(reference: &str, hash: &str) -> String {
    let object = format!("{{\"payment_intent\":\"{reference}\",\"metadata\":{{\"payment_hash\":\"{hash}\"}}}}");
    let event = format!("\"id\":\"evt_{reference}_{hash}\",\"object\":\"event\",\"type\":\"charge.succeeded\"");
    post(HOOK, "Content-Type: application/json\r\n", &format!("{{{event},\"data\":{{\"object\":{object}}}}}"))
}

/// The payer comes back.
pub fn back(hash: &str) -> String {
    format!(
        "GET /payments/process/response?company_gateway_id=1&payment_hash={hash}&payment_method_id=13 HTTP/1.1\r\n\
         Host: pay.example\r\nCookie: invoice_ninja_session=old\r\n\r\n"
    )
}

/// The payer presses a button that charges.
pub fn press(hash: &str) -> String {
    let body = format!("_token=t&payment_hash={hash}&amount=10");
    post(
        "/payments/process/response",
        "Cookie: invoice_ninja_session=old\r\nContent-Type: application/x-www-form-urlencoded\r\n",
        &body,
    )
}
