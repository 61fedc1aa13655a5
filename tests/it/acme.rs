//! Certificates that the gate gets for itself.

use std::{net::SocketAddr, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use oncegate::{
    acme::{Agent, Options, Wanted},
    ingress::{
        challenges::Challenges,
        tls::{Certificates, Entry},
    },
    telemetry::{Exposition, Metrics},
};
use tokio::net::TcpStream;

use crate::support::{App, Double, Gate, Standing, authority::handshake, gate::Setup};

/// Days in which nothing has to be renewed, in seconds.
const LONG: (i64, i64) = (60, 90 * 24 * 3600);

fn table(double: &Double, folder: &Path, challenge: &str) -> String {
    let (directory, folder) = (double.directory(), folder.display());
    format!(
        "[[tls]]\nlisten = '127.0.0.1:0'\nnames = ['pay.example', 'shop.example']\n[acme]\ndirectory = '{directory}'\n\
         agree_to_terms = true\ncontact = 'mailto:pay@example.org'\nchallenge = '{challenge}'\npath = '{folder}'\n"
    )
}

fn tls(gate: &Standing) -> SocketAddr {
    gate.running.addresses[1]
}

async fn is_shown(double: &Double, gate: &Standing, name: &str) -> bool {
    let stream = TcpStream::connect(tls(gate)).await.unwrap();
    handshake(stream, &double.authority().believer(&[]), name).await.is_ok()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_certificate_is_had_by_either_proof_and_kept_for_the_next_start() {
    for challenge in ["http-01", "tls-alpn-01"] {
        let (app, double) = (App::start().await, Double::open(LONG).await);
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("kept");
        let gate = Standing::before(&app.url(), &table(&double, &kept, challenge)).await;
        assert!(!is_shown(&double, &gate, "pay.example").await, "there is none yet");
        double.finds_names_at(gate.v4(), tls(&gate));
        let taken = "certificate_reloads_total{result=\"taken\"}";
        gate.until("it is shown", || gate.figure(taken) == 1.0).await;
        for name in ["pay.example", "shop.example"] {
            assert!(is_shown(&double, &gate, name).await, "{challenge} {name}");
        }
        assert!(gate.figure("certificate_expiry_timestamp_seconds{name=\"pay.example\"}") > 1.8e9);
        assert!(app.is_quiet().await, "the app was asked for nothing");
        gate.running.stop().await;

        assert_eq!(
            (mode(&kept), mode(&kept.join("account.json")), mode(&kept.join("pay.example.pem"))),
            (0o700, 0o600, 0o600)
        );
        let again = Standing::before(&app.url(), &table(&double, &kept, challenge)).await;
        assert!(is_shown(&double, &again, "pay.example").await, "at once");
        assert_eq!((double.accounts(), double.issued()), (1, 1), "and nobody was asked again");
    }
}

#[tokio::test]
async fn only_an_open_challenge_is_answered_and_all_else_goes_to_the_app() {
    let (app, double) = (App::start().await, Double::open(LONG).await);
    let folder = tempfile::tempdir().unwrap();
    let gate = Standing::before(&app.url(), &table(&double, folder.path(), "http-01")).await;
    let path = "/.well-known/acme-challenge/somebody-elses";
    let mut client = gate.say(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    let mut server = app.accept().await;
    assert_eq!(server.head().await.line, format!("GET {path} HTTP/1.1"));
    server.write("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(client.head().await.status(), 404);
    // Nobody is shown a proof that was not ordered, nor anything else in the proof's name.
    let stream = TcpStream::connect(tls(&gate)).await.unwrap();
    assert!(handshake(stream, &double.authority().believer(&["acme-tls/1"]), "evil.example").await.is_err());
}

/// An agent at work in a gate of its own, with short pauses.
struct AtWork {
    shown: Arc<Certificates>,
    metrics: Arc<Metrics>,
    task: tokio::task::JoinHandle<()>,
    _gate: Gate,
}

impl AtWork {
    fn has_one(&self) -> bool {
        self.shown.entries()[0].certificate.is_some()
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn at_work(double: &Double, folder: &Path) -> AtWork {
    let challenges = Arc::new(Challenges::default());
    let options = Options {
        directory: double.directory(),
        agree_to_terms: true,
        path: folder.to_owned(),
        pause: Duration::from_millis(30),
        ..Options::default()
    };
    let mut setup = Setup::to(App::gone().await);
    setup.listener.challenges = Some(Arc::clone(&challenges));
    let gate = setup.start();
    double.finds_names_at(gate.address, gate.address);
    let names = vec!["pay.example".to_owned()];
    let label: Arc<str> = Arc::from("pay.example");
    let entry =
        Entry { label: Arc::clone(&label), listen: vec![gate.address], names: names.clone(), certificate: None };
    let shown = Arc::new(Certificates::new(vec![entry], Some(Arc::clone(&challenges))));
    let metrics = Arc::new(Metrics::new());
    let agent = Agent::new(options, challenges).unwrap();
    let wanted = vec![Wanted { place: 0, label, names }];
    let task = tokio::spawn(agent.keep(wanted, Arc::clone(&shown), Arc::clone(&metrics)));
    AtWork { shown, metrics, task, _gate: gate }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let polled = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), polled).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

#[tokio::test]
async fn it_is_renewed_when_two_thirds_of_its_life_are_over_and_not_before() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Two thirds of this life were over when it began; of this one not quite.
    let (due, fresh) = (Double::open((200, 90)).await, Double::open((170, 100)).await);
    let young = at_work(&fresh, other.path()).await;
    until("it is had", || young.has_one()).await;
    let old = at_work(&due, folder.path()).await;
    until("it is renewed again and again", || due.issued() >= 3).await;
    assert!(old.has_one());
    assert_eq!((due.accounts(), fresh.issued()), (1, 1));
}

#[tokio::test]
async fn what_fails_is_tried_again_and_the_old_certificate_stays() {
    let folder = tempfile::tempdir().unwrap();
    let double = Double::open((200, 90)).await;
    let work = at_work(&double, folder.path()).await;
    until("it is had", || work.has_one()).await;
    // The names lead nowhere for a while.
    let nowhere = App::gone().await.replace("http://", "").parse().unwrap();
    double.finds_names_at(nowhere, nowhere);
    let refusals = double.refusals();
    until("it is refused, again and again", || double.refusals() >= refusals + 2).await;
    assert!(work.has_one());
    let page = work.metrics.exposed(Exposition::Text);
    let refused =
        page.lines().find_map(|line| line.strip_prefix("oncegate_certificate_reloads_total{result=\"refused\"} "));
    assert!(refused.is_some_and(|count| count != "0"), "{refused:?}");
}
