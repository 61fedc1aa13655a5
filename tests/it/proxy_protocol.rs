//! Connections that a balancer passes on, and the header in which it says whose they are.

use std::time::Duration;

use crate::support::{App, Gate, Wire, gate::Setup};

const GET: &str = "GET / HTTP/1.1\r\nHost: pay.example\r\n\r\n";
const LINE: &str = "PROXY TCP4 192.0.2.7 203.0.113.1 12345 443\r\n";

/// The first bytes of version 2 up to its length; what they announce follows.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, family][..], &length, rest].concat()
}

const ENDS: [u8; 12] = [192, 0, 2, 7, 203, 0, 113, 1, 0x30, 0x39, 1, 0xbb];

async fn behind(networks: &[&str]) -> (App, Gate) {
    let app = App::start().await;
    let mut setup = Setup::to(app.url());
    setup.listener.proxy_protocol = networks.iter().map(|network| network.parse().unwrap()).collect();
    (app, setup.start())
}

/// What the app hears of a client who begins like this.
async fn heard(app: &App, gate: &Gate, begin: &[u8]) -> (String, String) {
    let mut client = gate.client().await;
    client.write([begin, GET.as_bytes()].concat()).await;
    let mut server = app.accept().await;
    let head = server.head().await;
    (head.one("x-forwarded-for").to_owned(), head.one("x-forwarded-proto").to_owned())
}

#[tokio::test]
async fn the_app_hears_of_the_client_whom_the_header_names() {
    let (app, gate) = behind(&["127.0.0.0/8"]).await;
    let tls = [&ENDS[..], &[0x20, 0, 5, 1, 0, 0, 0, 0]].concat();
    for (begin, address, scheme) in [
        (LINE.as_bytes().to_vec(), "192.0.2.7", "http"),
        (b"PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n".to_vec(), "2001:db8::7", "http"),
        (binary(0x21, 0x11, &ENDS), "192.0.2.7", "http"),
        (binary(0x21, 0x11, &tls), "192.0.2.7", "https"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1", "http"),
        (binary(0x20, 0x00, b""), "127.0.0.1", "http"),
        (binary(0x21, 0x31, &[b'/'; 216]), "127.0.0.1", "http"),
    ] {
        assert_eq!(heard(&app, &gate, &begin).await, (address.into(), scheme.into()), "{begin:?}");
    }
}

#[tokio::test]
async fn a_header_may_come_in_pieces_and_is_longer_than_one_look() {
    let (app, gate) = behind(&["127.0.0.1/32"]).await;
    let padding = [&ENDS[..], &[0x04, 0x07, 0xd0], &[0; 2000]].concat();
    for begin in [LINE.as_bytes().to_vec(), binary(0x21, 0x11, &padding)] {
        let mut client = gate.client().await;
        for piece in begin.chunks(begin.len() / 9) {
            client.write(piece).await;
            tokio::task::yield_now().await;
        }
        client.write(GET).await;
        let mut server = app.accept().await;
        assert_eq!(server.head().await.one("x-forwarded-for"), "192.0.2.7");
        server.write("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(client.head().await.status(), 204);
    }
}

#[tokio::test]
async fn who_has_to_send_a_header_and_does_not_is_refused_and_the_app_never_hears_of_it() {
    let (app, gate) = behind(&["127.0.0.1/32"]).await;
    for begin in ["", "PROXY TCP4 1 2 3 4\r\n", "PROXY", "proxy TCP4 192.0.2.7 203.0.113.1 12345 443\r\n"] {
        let mut client = gate.client().await;
        client.offer(format!("{begin}{GET}")).await;
        assert_eq!(client.rest().await, "", "{begin:?}");
    }
    assert_eq!(heard(&app, &gate, LINE.as_bytes()).await.0, "192.0.2.7", "and the next one is the first it sees");
}

#[tokio::test]
async fn nobody_else_is_heard_in_such_a_header() {
    let (_app, gate) = behind(&["192.0.2.0/24"]).await;
    for begin in [LINE.as_bytes().to_vec(), binary(0x21, 0x11, &ENDS)] {
        let mut client = gate.client().await;
        client.offer([&begin[..], GET.as_bytes()].concat()).await;
        assert_eq!(client.head().await.status(), 400, "{begin:?}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_trusted_behind_the_balancer_is_heard_too() {
    let app = App::start().await;
    let mut setup = Setup::to(app.url());
    setup.listener.proxy_protocol = vec!["127.0.0.1/32".parse().unwrap()];
    setup.trusted = vec!["192.0.2.7/32".parse().unwrap()];
    let gate = setup.start();
    let mut client = gate.client().await;
    client.write(format!("{LINE}GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.51.100.9\r\n\r\n")).await;
    assert_eq!(app.accept().await.head().await.one("x-forwarded-for"), "198.51.100.9");
}

/// A client that begins and falls silent.
async fn silent(gate: &Gate, begin: &str) -> Wire {
    let mut client = gate.client().await;
    client.write(begin).await;
    client
}

#[tokio::test]
async fn a_header_that_does_not_come_is_not_waited_for_for_ever_and_holds_up_no_drain() {
    let app = App::start().await;
    let mut setup = Setup::to(app.url());
    setup.listener.proxy_protocol = vec!["127.0.0.1/32".parse().unwrap()];
    setup.listener.handshake_timeout = Duration::from_millis(50);
    let gate = setup.start();
    for begin in ["", "PROX", "PROXY TCP4 192.0.2.7 "] {
        assert_eq!(silent(&gate, begin).await.rest().await, "", "{begin:?}");
    }
    let (_app, gate) = behind(&["127.0.0.1/32"]).await;
    let mut waiting = silent(&gate, "PROXY TCP4").await;
    assert_eq!(gate.stop().await.unwrap().unfinished, 0);
    assert_eq!(waiting.rest().await, "");
}
