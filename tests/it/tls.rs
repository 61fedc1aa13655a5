//! TLS on the gate's own addresses: which certificate is shown, on what terms, and how new ones are taken up.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{
    client::TlsStream,
    rustls::{ClientConfig, HandshakeKind, ProtocolVersion},
};

use crate::support::{
    App, Authority, Standing, Wire,
    authority::{Pair, handshake},
    standing::connect,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: pay.example\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
/// The second listener of a gate is the one with TLS.
const TLS: usize = 1;

fn address(gate: &Standing) -> SocketAddr {
    ([127, 0, 0, 1], gate.running.addresses[TLS].port()).into()
}

async fn tcp(gate: &Standing) -> TcpStream {
    TcpStream::connect(address(gate)).await.unwrap()
}

async fn tls(gate: &Standing, config: &Arc<ClientConfig>, name: &str) -> TlsStream<TcpStream> {
    handshake(tcp(gate).await, config, name).await.unwrap()
}

/// The first name in the certificate that is shown to who asks for this one.
async fn shown(gate: &Standing, config: &Arc<ClientConfig>, name: &str) -> Vec<u8> {
    tls(gate, config, name).await.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

/// The certificate in a file.
fn der(pair: &Pair) -> Vec<u8> {
    use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::from_pem_file(&pair.certificate).unwrap().to_vec()
}

#[tokio::test]
async fn the_app_hears_that_its_client_speaks_https_and_a_plain_listener_beside_stays_plain() {
    let (app, authority) = (App::start().await, Authority::new());
    let pair = authority.issue("pay", &["pay.example"]);
    let gate = Standing::before(&app.url(), &pair.table("[::]:0")).await;
    let stream = tls(&gate, &authority.believer(&["http/1.1"]), "pay.example").await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let mut client = Wire::new(stream);
    client.write(GET).await;
    let mut server = app.accept().await;
    let head = server.head().await;
    assert_eq!((head.one("x-forwarded-proto"), head.one("x-forwarded-port")), ("https", "443"));
    assert_eq!((head.one("x-forwarded-for"), head.one("x-forwarded-host")), ("127.0.0.1", "pay.example"));
    server.write(OK).await;
    assert_eq!(client.message().await.1, "ok");
    let mut plain = gate.say(GET).await;
    assert_eq!(server.head().await.one("x-forwarded-proto"), "http");
    server.write(OK).await;
    assert_eq!(plain.message().await.1, "ok");
    assert_eq!(gate.figure("handshakes_total{result=\"done\"}"), 1.0);
}

#[tokio::test]
async fn the_certificate_is_the_one_for_the_name_that_is_asked_for_else_the_first() {
    let authority = Authority::new();
    let first = authority.issue("first", &["first.example", "127.0.0.1", "other.example"]);
    let exact = authority.issue("exact", &["a.pay.example"]);
    let wild = authority.issue("wild", &["*.pay.example"]);
    let tables: String = [&first, &exact, &wild].map(|pair| pair.table("127.0.0.1:0")).concat();
    // What its table says goes before what stands in it.
    let renamed = authority.issue("renamed", &["named.example"]);
    let gate =
        Standing::before("http://127.0.0.1:9", &format!("{tables}{}names = 'other.example'", renamed.table("[::]:0")))
            .await;
    let believer = authority.believer(&[]);
    for (name, pair) in [
        ("first.example", &first),
        ("a.pay.example", &exact),
        ("A.PAY.example", &exact),
        ("b.pay.example", &wild),
        // Whoever gives an address gives no name.
        ("127.0.0.1", &first),
        ("other.example", &first),
    ] {
        assert_eq!(shown(&gate, &believer, name).await, der(pair), "{name}");
    }
    let stranger = handshake(tcp(&gate).await, &believer, "c.b.pay.example").await;
    assert!(stranger.unwrap_err().to_string().contains("not valid for name"), "a wildcard is for one label");
}

#[tokio::test]
async fn who_comes_again_resumes_and_cannot_send_anything_that_could_be_replayed() {
    let authority = Authority::new();
    let pair = authority.issue("pay", &["pay.example"]);
    let gate = Standing::before("http://127.0.0.1:9", &pair.table("127.0.0.1:0")).await;
    let believer = authority.believer(&["http/1.1"]);
    for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
        let stream = tls(&gate, &believer, "pay.example").await;
        assert_eq!(stream.get_ref().1.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(kind));
        assert!(!stream.get_ref().1.is_early_data_accepted());
        let mut client = Wire::new(stream);
        client.write("GET / HTTP/1.1\r\nHost: pay.example\r\nConnection: close\r\n\r\n").await;
        assert_eq!(client.answer().await.0.status(), 502);
        assert_eq!(client.rest().await, "");
    }
}

/// The beginning of a handshake as TLS 1.0 and 1.1 had it.
fn old_hello(minor: u8) -> Vec<u8> {
    let mut hello = vec![3, minor];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0xc0, 0x13, 0x00, 0x2f, 1, 0]);
    let handshake = [&[1, 0, 0, hello.len() as u8], &hello[..]].concat();
    [&[22, 3, 1, 0, handshake.len() as u8], &handshake[..]].concat()
}

#[tokio::test]
async fn old_versions_are_refused_and_so_is_what_is_no_tls() {
    let authority = Authority::new();
    let pair = authority.issue("pay", &["pay.example"]);
    let gate = Standing::before("http://127.0.0.1:9", &pair.table("127.0.0.1:0")).await;
    for minor in [0, 1, 2] {
        let mut client = connect(address(&gate)).await;
        client.write(old_hello(minor)).await;
        let alert = client.exactly(7).await;
        assert_eq!((alert[0], alert[5]), (21, 2), "a fatal alert: {alert:?}");
    }
    let mut client = connect(address(&gate)).await;
    client.write(GET).await;
    let answer = client.bytes().await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    gate.until("failures are counted", || gate.figure("handshakes_total{result=\"failed\"}") == 4.0).await;
}

#[tokio::test]
async fn honest_callers_are_served_while_others_never_end_their_handshakes() {
    let (app, authority) = (App::start().await, Authority::new());
    let pair = authority.issue("pay", &["pay.example"]);
    let gate = Standing::before(&app.url(), &format!("gateway.max_handshakes = 8\n{}", pair.table("[::]:0"))).await;
    let believer = authority.believer(&[]);
    let mut silent = Vec::new();
    for begin in [&b""[..], b"\x16", &old_hello(3)[..20]] {
        for _ in 0..8 {
            let mut client = tcp(&gate).await;
            client.write_all(begin).await.unwrap();
            silent.push(client);
        }
    }
    for _ in 0..8 {
        let mut client = Wire::new(tls(&gate, &believer, "pay.example").await);
        client.write("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let mut server = app.accept().await;
        server.head().await;
        server.write("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok").await;
        assert_eq!(client.message().await.1, "ok");
    }
    assert!(gate.figure("handshakes_total{result=\"crowded\"}") >= 16.0);
    assert_eq!(gate.running.stop().await.unfinished, 0, "those who are left hold up no drain");
}

#[tokio::test]
async fn a_handshake_that_stands_still_is_ended() {
    let authority = Authority::new();
    let pair = authority.issue("pay", &["pay.example"]);
    let more = format!("gateway.handshake_timeout = '50ms'\n{}", pair.table("[::]:0"));
    let gate = Standing::before("http://127.0.0.1:9", &more).await;
    let mut client = connect(address(&gate)).await;
    client.write(&old_hello(3)[..20]).await;
    assert_eq!(client.rest().await, "");
    gate.until("it is counted", || gate.figure("handshakes_total{result=\"timeout\"}") == 1.0).await;
}

#[tokio::test]
async fn a_balancer_may_pass_tls_on_and_say_whose_it_is() {
    let (app, authority) = (App::start().await, Authority::new());
    let pair = authority.issue("pay", &["pay.example"]);
    let more = format!("gateway.proxy_protocol = '127.0.0.0/8'\n{}", pair.table("127.0.0.1:0"));
    let gate = Standing::before(&app.url(), &more).await;
    let mut stream = tcp(&gate).await;
    stream.write_all(b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n").await.unwrap();
    let mut client = Wire::new(handshake(stream, &authority.believer(&[]), "pay.example").await.unwrap());
    client.write(GET).await;
    let head = app.accept().await.head().await;
    assert_eq!((head.one("x-forwarded-for"), head.one("x-forwarded-proto")), ("2001:db8::7", "https"));
}

#[tokio::test]
async fn certificates_change_under_load_and_nobody_notices_but_by_the_new_one() {
    let (app, authority) = (App::start().await, Authority::new());
    let pair = authority.issue("pay", &["pay.example"]);
    let expiry = "certificate_expiry_timestamp_seconds{name=\"pay.example\"}";
    let gate = Standing::before(&app.url(), &pair.table("[::]:0")).await;
    let believer = authority.believer(&["http/1.1"]);
    gate.until("its end is told", || gate.figure(expiry) > 1.8e9).await;
    let recording = app.record();
    let before = der(&pair);
    let mut old = Wire::new(tls(&gate, &believer, "pay.example").await);
    let taken = || gate.figure("certificate_reloads_total{result=\"taken\"}");
    // Certificate and key change one after the other, as they do when somebody renews them by hand.
    while taken() < 1.0 {
        authority.issue("pay", &["pay.example"]);
        for _ in 0..10 {
            let mut client = Wire::new(tls(&gate, &believer, "pay.example").await);
            client.write(GET).await;
            assert_eq!(client.answer().await.0.status(), 200);
        }
    }
    let pair = authority.issue("pay", &["pay.example"]);
    let last = der(&pair);
    let fresh = authority.believer(&[]);
    let arrived = async {
        while shown(&gate, &fresh, "pay.example").await != last {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), arrived).await.expect("the last one is shown");
    assert_ne!(before, last);
    old.write(GET).await;
    assert_eq!(old.answer().await.0.status(), 200, "a connection goes on with what it began with");
    assert!(recording.lines().len() > 10);
}

#[tokio::test]
async fn a_pair_that_is_replaced_by_halves_is_taken_when_it_is_whole_and_not_refused_before() {
    let authority = Authority::new();
    let pair = authority.issue("pay", &["pay.example"]);
    let gate = Standing::before("http://127.0.0.1:9", &pair.table("127.0.0.1:0")).await;
    let (certificate, key) = authority.sign(&["pay.example"]);
    std::fs::write(&pair.certificate, certificate).unwrap();
    // Long enough for a look in between, in most runs; short enough to be taken for one change.
    tokio::time::sleep(Duration::from_millis(800)).await;
    std::fs::write(&pair.key, key).unwrap();
    gate.until("it is taken", || gate.figure("certificate_reloads_total{result=\"taken\"}") == 1.0).await;
    assert_eq!(gate.figure("certificate_reloads_total{result=\"refused\"}"), 0.0);
}

#[tokio::test]
async fn files_that_do_not_fit_together_are_refused_and_the_old_certificate_stays() {
    let authority = Authority::new();
    let pair = authority.issue("pay", &["pay.example"]);
    let gate = Standing::before("http://127.0.0.1:9", &pair.table("127.0.0.1:0")).await;
    let believer = authority.believer(&[]);
    let good = shown(&gate, &believer, "pay.example").await;
    let (other, _) = authority.sign(&["pay.example"]);
    std::fs::write(&pair.certificate, other).unwrap();
    gate.until("it is refused", || gate.figure("certificate_reloads_total{result=\"refused\"}") >= 1.0).await;
    assert_eq!(shown(&gate, &believer, "pay.example").await, good);
    let repaired = der(&authority.issue("pay", &["pay.example"]));
    gate.until("it is taken", || gate.figure("certificate_reloads_total{result=\"taken\"}") == 1.0).await;
    assert_eq!(shown(&gate, &believer, "pay.example").await, repaired);
}
