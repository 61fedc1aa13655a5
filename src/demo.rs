//! The founding incident on a small stage: an app with the very race, a stand-in for Mollie, and a player who reports
//! each payment twice at once.
//!
//! Everything is on loopback and in this process. The app leaves a wide gap between its check and its insert, so that
//! what goes wrong in the field now and then goes wrong here each time.

pub mod app;
pub mod mollie;
pub mod table;
mod wire;

use std::{
    io,
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use http::{Method, Request, Response, header};
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::task::JoinSet;

use self::{
    app::App,
    mollie::Mollie,
    table::{Progress, Report, Road, Row},
};
use crate::callback::Key;

/// What to say before the curtain rises.
pub const INTRODUCTION: &str = "\
A payment is reported twice in the same moment: by the provider's webhook, by the payer's browser, or both. The app asks
the provider, looks whether the payment is in its books, and writes it down: here with 200 ms between the look and the
writing, so that every pair meets in the gap. (On a real Invoice Ninja 5.10.17 the gap is a few milliseconds, and about
half of the pairs that met in it were booked twice.)
";

/// How often each scenario is played on each road.
pub const TRIALS: u32 = 20;
/// The gap between the app's check and its insert.
pub const GAP: Duration = Duration::from_millis(200);
/// After this long without an answer a caller gives up; longer than any wait at the gate.
const PATIENCE: Duration = Duration::from_secs(45);

/// One payment, under both of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// The provider's id, which webhooks carry.
    pub reference: String,
    /// The app's own name, which returns carry.
    pub hash: String,
}

impl Payment {
    fn numbered(n: u32) -> Self {
        let hash = Key::of("demo payment").part("n", n.to_be_bytes()).finish().to_string();
        Self { reference: format!("tr_Demo{n:06}"), hash }
    }
}

/// Where the two requests of a trial go: the same place over two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Targets {
    /// The first request's, over IPv4.
    pub first: SocketAddr,
    /// The second's, over IPv6 where the machine has it.
    pub second: SocketAddr,
}

/// Which two requests report one payment at the same moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Mollie's webhook, twice.
    TwoWebhooks,
    /// Mollie's webhook and the payer's return.
    WebhookAndReturn,
    /// The payer's return, twice.
    TwoReturns,
}

impl Scenario {
    /// Every scenario, in the order they are played.
    pub const ALL: [Self; 3] = [Self::TwoWebhooks, Self::WebhookAndReturn, Self::TwoReturns];

    /// Its name in the table.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::TwoWebhooks => "two webhooks",
            Self::WebhookAndReturn => "webhook and return",
            Self::TwoReturns => "two returns",
        }
    }

    fn requests(self, payment: &Payment) -> [Request<Full<Bytes>>; 2] {
        match self {
            Self::TwoWebhooks => [webhook(payment), webhook(payment)],
            Self::WebhookAndReturn => [webhook(payment), browser_return(payment)],
            Self::TwoReturns => [browser_return(payment), browser_return(payment)],
        }
    }
}

/// What came of one scenario on one road.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Payments that were made.
    pub payments: u32,
    /// Requests that were sent.
    pub sent: u32,
    /// Requests that reached the app.
    pub reached: u32,
    /// Payment records in the app's books.
    pub booked: u32,
    /// Payments that are in the books more than once.
    pub doubled: u32,
    /// Payments that are not in the books at all.
    pub missing: u32,
    /// Requests that heard an error, or nothing.
    pub failed: u32,
}

impl Tally {
    /// Whether each payment was booked exactly once.
    #[must_use]
    pub const fn is_once_each(&self) -> bool {
        self.doubled == 0 && self.missing == 0
    }
}

/// The app and the provider, running.
#[derive(Debug)]
pub struct Stage {
    /// The app with the race.
    pub app: App,
    /// The stand-in for Mollie.
    pub mollie: Mollie,
    numbers: AtomicU32,
}

impl Stage {
    /// Starts both on free ports of the loopback interface; they end with the value.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub async fn start(gap: Duration) -> io::Result<Self> {
        let mollie = Mollie::start().await?;
        let app = App::start(mollie.address(), gap).await?;
        Ok(Self { app, mollie, numbers: AtomicU32::new(1) })
    }

    /// The configuration of a gate that stands before this app: what the README says, on free ports.
    #[must_use]
    pub fn config(&self) -> String {
        let Targets { first, second } = self.app.targets();
        let listen = if second.is_ipv6() { r#""127.0.0.1:0", "[::1]:0""# } else { r#""127.0.0.1:0""# };
        format!(
            "preset = \"invoice-ninja\"\n\n[gateway]\nlisten = [{listen}]\n\n[upstream]\nurl = \"http://{first}\"\n\n\
             [store]\nengine = \"memory\"\n\n[admin]\nlisten = \"127.0.0.1:0\"\n"
        )
    }

    /// A payment that the provider calls paid and the app has not booked yet.
    fn new_payment(&self) -> Payment {
        let payment = Payment::numbered(self.numbers.fetch_add(1, Ordering::Relaxed));
        self.mollie.paid(&payment);
        self.app.expect(&payment);
        payment
    }

    fn tally(&self, payments: &[Payment], failed: u32) -> Tally {
        let start = Tally { failed, ..Tally::default() };
        payments.iter().fold(start, |tally, payment| {
            let booked = self.app.booked(&payment.reference);
            Tally {
                payments: tally.payments + 1,
                sent: tally.sent + 2,
                reached: tally.reached + self.app.reached(&payment.reference),
                booked: tally.booked + booked,
                doubled: tally.doubled + u32::from(booked > 1),
                missing: tally.missing + u32::from(booked == 0),
                ..tally
            }
        })
    }
}

/// Plays every scenario straight at the app and then through the gate.
pub async fn compare(stage: &Stage, gate: Targets, trials: u32, progress: &mut Progress<impl io::Write>) -> Report {
    let mut rows = Vec::new();
    for scenario in Scenario::ALL {
        let mut played = [Tally::default(); 2];
        for ((road, targets), tally) in
            [(Road::Straight, stage.app.targets()), (Road::Gate, gate)].into_iter().zip(&mut played)
        {
            *tally = play(stage, targets, scenario, trials, |done| progress.show(scenario, road, done, trials)).await;
        }
        let [straight, gate] = played;
        rows.push(Row { scenario, straight, gate });
    }
    progress.end();
    Report { rows }
}

/// Plays one scenario `trials` times, each with a payment of its own, all at once, and counts what came of it.
///
/// At once, for the hold of one payment costs no other any time. Webhooks and returns of which the gate knows no common
/// name keep clear of each other, but go in company among themselves: the returns together, then the webhooks.
pub async fn play(
    stage: &Stage,
    targets: Targets,
    scenario: Scenario,
    trials: u32,
    mut progress: impl FnMut(u32),
) -> Tally {
    let payments: Vec<Payment> = (0..trials).map(|_| stage.new_payment()).collect();
    let mut running = JoinSet::new();
    for payment in &payments {
        running.spawn(report_twice(targets, scenario.requests(payment)));
    }
    let (mut done, mut failed) = (0, 0);
    progress(done);
    while let Some(trial) = running.join_next().await {
        failed += trial.unwrap_or(2);
        done += 1;
        progress(done);
    }
    stage.tally(&payments, failed)
}

/// Sends both requests at the same moment; how many of them heard no success.
async fn report_twice(targets: Targets, [first, second]: [Request<Full<Bytes>>; 2]) -> u32 {
    let (one, two) = tokio::join!(is_heard(targets.first, first), is_heard(targets.second, second));
    u32::from(!one) + u32::from(!two)
}

async fn is_heard(target: SocketAddr, request: Request<Full<Bytes>>) -> bool {
    match tokio::time::timeout(PATIENCE, wire::ask(target, request)).await {
        Ok(Ok(answer)) => is_success(&answer),
        Ok(Err(_)) | Err(_) => false,
    }
}

fn is_success(answer: &Response<Bytes>) -> bool {
    answer.status().is_success() || answer.status().is_redirection()
}

/// What Mollie sends: the payment's id and nothing else.
fn webhook(payment: &Payment) -> Request<Full<Bytes>> {
    let path = "/payment_webhook/DemoCompanyKeyDemoCompanyKey1234/Wpmbk5ezJn";
    let mut request = Request::new(Full::new(Bytes::from(format!("id={}", payment.reference))));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = http::Uri::from_static(path);
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/x-www-form-urlencoded"));
    headers.insert(header::USER_AGENT, http::HeaderValue::from_static("Mollie HTTP client/1.0"));
    request
}

/// What the payer's browser sends when Mollie sends it back: the app's name of the payment, and not the provider's.
fn browser_return(payment: &Payment) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::default());
    let target =
        format!("/payments/process/response?company_gateway_id=1&payment_hash={}&payment_method_id=13", payment.hash);
    // The hash is hexadecimal, so this is always a target.
    *request.uri_mut() = target.parse().unwrap_or_default();
    request.headers_mut().insert(header::USER_AGENT, http::HeaderValue::from_static("Mozilla/5.0 (demo)"));
    request
}
