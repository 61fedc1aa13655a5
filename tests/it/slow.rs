//! Clients who take their time on purpose, in every way that there is: what they cost, and that nobody else waits for them.

use std::time::Duration;

use tokio::{task::JoinHandle, time::Instant};

use crate::support::{
    App, Authority, Office, Wire,
    authority::handshake,
    frames::{END_STREAM, HEADERS, SETTINGS, asks, block, frame, hello, request},
    gate::Setup,
    office::BRACKETS,
    process::Process,
    standing::{HOOK, NINJA, connect, mollie},
    wire::soon,
};

/// How many of each kind.
const EACH: usize = 40;

/// How one of them goes about it.
struct Kind {
    name: &'static str,
    tls: bool,
    /// What he says at once, and then byte by byte.
    begins: Vec<u8>,
    drips: &'static [u8],
    /// Whether the gate soon has enough of him.
    ends: bool,
}

fn kinds() -> Vec<Kind> {
    let kind = |name, begins: Vec<u8>, drips, ends| Kind { name, tls: false, begins, drips, ends };
    let form = "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 4000\r\n\r\nid=tr_slow";
    let shut = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]);
    vec![
        kind("says nothing", Vec::new(), b"", true),
        kind("drips a head", b"GET / HTTP/1.1\r\nHost: a\r\n".into(), b"X-A: bcdefghijklmnopqrstuvwxyz", true),
        kind(
            "keeps a connection and drips the next head",
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".into(),
            b"GET /aaaaaaaa",
            true,
        ),
        kind(
            "drips a webhook",
            format!("POST {HOOK} HTTP/1.1\r\nHost: a\r\n{form}").into(),
            b"aaaaaaaaaaaaaaaaaaaaaa",
            false,
        ),
        kind(
            "drips an upload",
            format!("POST /up HTTP/1.1\r\nHost: a\r\n{form}").into(),
            b"aaaaaaaaaaaaaaaaaaaaaa",
            false,
        ),
        kind("leaves an answer unread", b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n".into(), b"", false),
        Kind {
            tls: true,
            ..kind("drips a handshake", b"\x16\x03\x01\x02\x00\x01".into(), b"\x00\x01\xfc\x03\x03aaaaaaaaaaaaa", true)
        },
        kind("drips the greeting of HTTP/2", b"PRI * HT".into(), b"TP/2.0\r", true),
        kind("greets and is silent", hello(), b"", true),
        kind(
            "ends no head of HTTP/2",
            [hello(), frame(HEADERS, END_STREAM, 1, &block(&request("GET", "/")))].concat(),
            b"",
            true,
        ),
        kind("opens no window", [hello(), shut, asks(1, END_STREAM, &request("GET", "/big"))].concat(), b"", false),
    ]
}

/// Goes about it until the gate has had enough.
fn begin(wire: Wire, kind: &Kind) -> JoinHandle<()> {
    let (begins, drips, reads) = (kind.begins.clone(), kind.drips, kind.ends);
    tokio::spawn(async move {
        let mut wire = wire;
        wire.offer(begins).await;
        for byte in drips {
            tokio::time::sleep(Duration::from_millis(150)).await;
            wire.offer([*byte]).await;
        }
        if reads {
            wire.bytes().await;
        } else {
            std::future::pending().await
        }
    })
}

#[tokio::test]
async fn whoever_is_slow_costs_little_and_nobody_else_waits_for_him() {
    let mut office = Office::open().await;
    let authority = Authority::new();
    let table = authority.issue("pay", &["pay.example"]).table("127.0.0.1:0");
    let short = "gateway.handshake_timeout = '1s'\ngateway.header_timeout = '1s'\ngateway.idle_timeout = '1s'\n";
    let gate = Process::start(&office.url(), &format!("{short}{NINJA}{table}"));
    let big = format!("HTTP/1.1 200 OK\r\ncontent-length: 3000000\r\n\r\n{}", "x".repeat(3_000_000));
    tokio::spawn(async move {
        loop {
            let visit = office.next().await;
            let is_big = visit.line().starts_with("GET /big");
            visit.answer(if is_big { &big } else { BRACKETS });
        }
    });
    let before = gate.memory();
    let mut slow = Vec::new();
    for kind in kinds() {
        for _ in 0..EACH {
            let wire = connect(if kind.tls { gate.others[0] } else { gate.address }).await;
            slow.push((kind.name, kind.ends, begin(wire, &kind)));
        }
    }
    let began = Instant::now();
    let (mut served, mut longest, mut most) = (0_u32, Duration::ZERO, 0);
    let believer = authority.believer(&["http/1.1"]);
    while began.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        let mut wire = connect(gate.address).await;
        wire.write(mollie(&format!("tr_{served}"))).await;
        assert_eq!(wire.answer().await.1, "[]");
        let stream = soon(tokio::net::TcpStream::connect(gate.others[0])).await.unwrap();
        let mut wire = Wire::new(handshake(stream, &believer, "pay.example").await.unwrap());
        wire.write("GET /page HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(wire.answer().await.1, "[]");
        longest = longest.max(asked.elapsed());
        served += 1;
        most = most.max(gate.memory());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let each = (most - before) / slow.len() as u64 / 1024;
    assert!(served > 10 && longest < Duration::from_secs(5), "{served} honest ones, the longest {longest:?}");
    assert!(each < 200, "{each} KiB for each who is slow");
    for (name, ends, task) in slow {
        if ends {
            tokio::time::timeout(Duration::from_secs(10), task).await.unwrap_or_else(|_| panic!("{name}")).unwrap();
        } else {
            assert!(!task.is_finished(), "{name}");
            task.abort();
        }
    }
}

#[tokio::test]
async fn a_webhook_that_does_not_come_to_its_end_is_refused_and_the_app_never_hears_of_it() {
    let app = App::start().await;
    let mut setup = Setup::to(app.url());
    setup.whole = Some((4000, Duration::from_millis(50)));
    let gate = setup.start();
    for head in ["Content-Length: 9\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut wire = gate.client().await;
        wire.write(format!("POST / HTTP/1.1\r\nHost: a\r\n{head}\r\n1\r\n")).await;
        assert_eq!(wire.head().await.status(), 408);
        wire.offer("1\r\n1\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(!wire.rest().await.contains("HTTP/1.1"), "what comes too late is no request");
    }
    assert!(app.is_quiet().await);
}
