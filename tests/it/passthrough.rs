//! Everything that is no callback streams through untouched, and nothing is ever sent twice.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use oncegate::upstream::Use;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

use crate::support::{
    App, Gate, Wire, app,
    gate::{Setup, app_and_gate},
    wire::soon,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: pay.example\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Sends a request and reads the app's side of it up to the end of the head.
async fn request(app: &App, gate: &Gate, bytes: &str) -> (Wire, Wire, crate::support::wire::Head) {
    let mut client = gate.client().await;
    client.write(bytes).await;
    let mut server = app.accept().await;
    let head = server.head().await;
    (client, server, head)
}

#[tokio::test]
async fn a_body_streams_to_the_app_before_it_is_whole() {
    let (app, gate) = app_and_gate().await;
    let (mut client, mut server, head) =
        request(&app, &gate, "POST /up HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await;
    assert_eq!(head.one("transfer-encoding"), "chunked");
    server.until("3\r\none\r\n").await;
    client.write("3\r\ntwo\r\n0\r\n\r\n").await;
    server.until("3\r\ntwo\r\n0\r\n\r\n").await;
    server.write(OK).await;
    assert_eq!(client.message().await.1, "ok");
}

#[tokio::test]
async fn an_answer_streams_to_the_client_before_it_is_whole() {
    let (app, gate) = app_and_gate().await;
    let (mut client, mut server, _) = request(&app, &gate, GET).await;
    server.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n").await;
    client.until("3\r\none\r\n").await;
    server.write("3\r\ntwo\r\n0\r\n\r\n").await;
    client.until("3\r\ntwo\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn twenty_megabytes_pass_both_ways() {
    const SIZE: usize = 20 << 20;
    let (app, gate) = app_and_gate().await;
    let body: Vec<u8> = (0..SIZE).map(|i| (i % 251) as u8).collect();
    let head = format!("PUT /import HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n");
    let (mut client, mut server, seen) = request(&app, &gate, &head).await;
    assert_eq!(seen.one("content-length"), SIZE.to_string());
    let (got, ()) = tokio::join!(server.exactly(SIZE), client.write(&body));
    assert!(got == body);
    let answer = [format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n").as_bytes(), &body].concat();
    let ((), got) = tokio::join!(server.write(&answer), async {
        assert_eq!(client.head().await.one("content-length"), SIZE.to_string());
        client.exactly(SIZE).await
    });
    assert!(got == body);
}

#[tokio::test]
async fn trailers_pass_both_ways_save_those_that_frame_or_route() {
    let (app, gate) = app_and_gate().await;
    let (mut client, mut server, head) = request(
        &app,
        &gate,
        "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X-Sum, Host, X-Forwarded-For\r\n\
         Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 7\r\nHost: evil\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n",
    )
    .await;
    assert_eq!((head.one("trailer"), head.one("te")), ("X-Sum", "trailers"));
    assert_eq!(server.until("\r\n\r\n").await, "1\r\nx\r\n0\r\nx-sum: 7\r\n\r\n");
    server
        .write(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: X-Sum, Set-Cookie\r\n\r\n\
             1\r\ny\r\n0\r\nX-Sum: 8\r\nSet-Cookie: a=b\r\n\r\n",
        )
        .await;
    assert_eq!(client.head().await.one("trailer"), "X-Sum");
    assert_eq!(client.until("\r\n\r\n").await, "1\r\ny\r\n0\r\nx-sum: 8\r\n\r\n");
}

#[tokio::test]
async fn a_client_that_waits_to_be_asked_for_its_body_is_asked() {
    let (app, gate) = app_and_gate().await;
    let (mut client, mut server, head) =
        request(&app, &gate, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n").await;
    assert!(head.all("expect").is_empty());
    assert_eq!(client.head().await.status(), 100);
    client.write("body").await;
    assert_eq!(server.text(4).await, "body");
    server.write(OK).await;
    assert_eq!(client.message().await.1, "ok");
}

const WEBSOCKET: &str = "GET /app HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

#[tokio::test]
async fn a_protocol_changes_after_the_101_and_nothing_passes_before() {
    let (app, gate) = app_and_gate().await;
    let (mut client, mut server, head) = request(&app, &gate, &format!("{WEBSOCKET}early")).await;
    assert_eq!((head.one("connection"), head.one("upgrade")), ("upgrade", "websocket"));
    server.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello").await;
    let answer = client.head().await;
    assert_eq!((answer.status(), answer.one("upgrade")), (101, "websocket"));
    assert_eq!(client.text(5).await, "hello");
    assert_eq!(server.text(5).await, "early");
    client.write("ping").await;
    assert_eq!(server.text(4).await, "ping");
    server.write("pong").await;
    assert_eq!(client.text(4).await, "pong");
    client.end().await;
    assert_eq!(server.rest().await, "");
}

#[tokio::test]
async fn what_follows_a_refused_upgrade_is_the_next_request() {
    let (app, gate) = app_and_gate().await;
    let (mut client, mut server, _) =
        request(&app, &gate, &format!("{WEBSOCKET}GET /next HTTP/1.1\r\nHost: a\r\n\r\n")).await;
    server.write(OK).await;
    assert_eq!(client.message().await.1, "ok");
    assert_eq!(server.head().await.line, "GET /next HTTP/1.1");
}

#[tokio::test]
async fn an_upgrade_to_http2_is_not_asked_for_and_an_unasked_101_is_no_answer() {
    let (app, gate) = app_and_gate().await;
    let (mut client, mut server, head) = request(
        &app,
        &gate,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n\r\n",
    )
    .await;
    for name in ["connection", "upgrade", "http2-settings"] {
        assert!(head.all(name).is_empty(), "{name}");
    }
    server.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n").await;
    assert_eq!(client.head().await.status(), 502);
}

#[tokio::test]
async fn a_client_that_goes_away_while_it_waits_takes_its_request_with_it() {
    let (app, gate) = app_and_gate().await;
    let (client, mut server, _) = request(&app, &gate, GET).await;
    drop(client);
    assert_eq!(server.rest().await, "");
}

#[tokio::test]
async fn a_client_that_goes_away_while_it_reads_takes_its_answer_with_it() {
    let (app, gate) = app_and_gate().await;
    let (mut client, mut server, _) = request(&app, &gate, GET).await;
    server.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart").await;
    client.until("part").await;
    drop(client);
    assert_eq!(server.rest().await, "");
}

#[tokio::test]
async fn an_app_that_answers_early_and_hangs_up_is_heard() {
    let (app, gate) = app_and_gate().await;
    let (mut client, mut server, _) =
        request(&app, &gate, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n").await;
    server.write("HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig").await;
    drop(server);
    client.offer(vec![b'x'; 2_000_000]).await;
    let (head, body) = client.message().await;
    assert_eq!((head.status(), body.as_str()), (413, "big"));
}

#[tokio::test]
async fn a_body_goes_on_to_an_app_that_has_answered_already() {
    let (app, gate) = app_and_gate().await;
    let (mut client, mut server, _) =
        request(&app, &gate, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\none").await;
    assert_eq!(server.text(3).await, "one");
    server.write(OK).await;
    assert_eq!(client.message().await.1, "ok");
    client.write("two").await;
    assert_eq!(server.text(3).await, "two");
}

#[tokio::test]
async fn an_app_that_is_down_is_a_502_and_the_gate_says_so() {
    let gate = Gate::before(App::gone().await);
    let mut client = gate.client().await;
    client.write(GET).await;
    let (head, body) = client.message().await;
    assert_eq!(head.status(), 502);
    assert!(body.contains("not sent"), "{body}");
    assert_eq!(gate.upstream.reach().up(), Some(false));
}

#[tokio::test]
async fn an_app_that_is_silent_is_a_504() {
    let app = App::start().await;
    let mut setup = Setup::to(app.url());
    setup.upstream.timeout = Duration::from_millis(50);
    let gate = setup.start();
    let (mut client, mut server, _) = request(&app, &gate, GET).await;
    assert_eq!(client.message().await.0.status(), 504);
    assert_eq!(server.rest().await, "", "the app is not kept waiting either");
}

#[tokio::test]
async fn a_body_that_stands_still_ends() {
    let app = App::start().await;
    let mut setup = Setup::to(app.url());
    setup.upstream.stall_timeout = Duration::from_millis(50);
    let gate = setup.start();
    let (mut client, mut server, _) =
        request(&app, &gate, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\none").await;
    assert_eq!(client.head().await.status(), 400);
    assert_eq!(server.rest().await, "one");
    let (mut client, mut server, _) = request(&app, &gate, GET).await;
    server.write("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\none").await;
    client.head().await;
    assert_eq!(client.rest().await, "one", "cut off, and so not taken for whole");
}

#[tokio::test]
async fn a_broken_answer_is_a_502_and_the_request_is_not_sent_again() {
    let (app, gate) = app_and_gate().await;
    for broken in ["", "garbage\r\n\r\n", "HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\n", "HTTP/1.1 200 OK\r\nconte"]
    {
        let (mut client, mut server, _) =
            request(&app, &gate, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").await;
        assert_eq!(server.text(4).await, "body");
        server.write(broken).await;
        drop(server);
        assert_eq!(client.message().await.0.status(), 502, "{broken:?}");
        assert!(app.is_quiet().await, "{broken:?}");
    }
}

#[tokio::test]
async fn an_app_that_resets_is_a_502_and_the_request_is_not_sent_again() {
    let (app, gate) = app_and_gate().await;
    let mut client = gate.client().await;
    client.write(GET).await;
    let server = app.accept_raw().await;
    server.readable().await.unwrap();
    // Closing on unread bytes resets.
    drop(server);
    assert_eq!(client.message().await.0.status(), 502);
    assert!(app.is_quiet().await);
}

#[tokio::test]
async fn a_connection_is_used_again_after_its_answer_was_read() {
    let (app, gate) = app_and_gate().await;
    let (mut client, mut server, _) = request(&app, &gate, GET).await;
    server.write(OK).await;
    assert_eq!(client.message().await.1, "ok");
    for _ in 0..3 {
        client.write(GET).await;
        server.head().await;
        server.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
        client.until("2\r\nok\r\n0\r\n\r\n").await;
    }
    assert!(app.is_quiet().await);
}

#[tokio::test]
async fn a_kept_connection_that_died_costs_nothing_and_the_app_sees_one_request() {
    let (app, gate) = app_and_gate().await;
    let (mut client, mut server, _) = request(&app, &gate, GET).await;
    server.write(OK).await;
    client.message().await;
    drop(server);
    client.write("POST /once HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody").await;
    let mut server = app.accept().await;
    assert_eq!(server.message().await.0.line, "POST /once HTTP/1.1");
    server.write(OK).await;
    assert_eq!(client.message().await.1, "ok");
    assert!(app.is_quiet().await);
}

#[tokio::test(start_paused = true)]
async fn a_callback_uses_a_kept_connection_only_for_a_moment() {
    let (app, gate) = app_and_gate().await;
    let (mut client, mut server, _) = request(&app, &gate, GET).await;
    server.write(OK).await;
    client.message().await;
    let first = gate.upstream.connect(Use::Callback).await.unwrap();
    assert!(first.reused());
    drop(first);
    let (mut client, mut server, _) = request(&app, &gate, GET).await;
    server.write(OK).await;
    client.message().await;
    tokio::time::advance(Duration::from_millis(1001)).await;
    assert!(!gate.upstream.connect(Use::Callback).await.unwrap().reused());
    assert!(gate.upstream.connect(Use::Passthrough).await.unwrap().reused());
}

#[tokio::test]
async fn what_belongs_to_one_connection_is_stripped_with_all_that_it_names() {
    let (app, gate) = app_and_gate().await;
    let (mut client, mut server, head) = request(
        &app,
        &gate,
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Forwarded-For, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: x\r\n\
         Proxy-Authorization: Basic eA==\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nAuthorization: Bearer b\r\n\r\n",
    )
    .await;
    for name in ["connection", "x-mine", "keep-alive", "proxy-authorization", "proxy-connection", "te"] {
        assert!(head.all(name).is_empty(), "{name}");
    }
    assert_eq!(head.one("x-forwarded-for"), "127.0.0.1");
    assert_eq!(head.one("authorization"), "Bearer b");
    server
        .write("HTTP/1.1 200 OK\r\nconnection: keep-alive, x-inner\r\nx-inner: 1\r\nkeep-alive: x\r\nset-cookie: a=b\r\nset-cookie: c=d\r\ncontent-length: 2\r\n\r\nok")
        .await;
    let answer = client.message().await.0;
    for name in ["connection", "x-inner", "keep-alive"] {
        assert!(answer.all(name).is_empty(), "{name}");
    }
    assert_eq!(answer.all("set-cookie"), ["a=b", "c=d"]);
}

#[tokio::test]
async fn the_app_hears_one_address_the_host_the_scheme_and_the_port() {
    let app = App::start().await;
    let mut setup = Setup::to(app.url());
    setup.listen = "[::]:0".parse().unwrap();
    let gate = setup.start();
    let port = gate.address.port();
    let lie = "GET / HTTP/1.1\r\nHost: pay.example:8443\r\nX-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\n\
               Forwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nCf-Connecting-Ip: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\r\n";
    let mapped = SocketAddr::from(([127, 0, 0, 1], port));
    let six = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port));
    for (from, address) in [(mapped, "127.0.0.1"), (six, "::1")] {
        let mut client = gate.client_from(from).await;
        client.write(lie).await;
        let head = app.accept().await.head().await;
        assert_eq!(head.one("x-forwarded-for"), address);
        assert_eq!(head.one("x-forwarded-proto"), "http");
        assert_eq!(head.one("x-forwarded-port"), "8443");
        assert_eq!((head.one("x-forwarded-host"), head.one("host")), ("pay.example:8443", "pay.example:8443"));
        for name in ["x_forwarded_for", "forwarded", "x-real-ip", "cf-connecting-ip"] {
            assert!(head.all(name).is_empty(), "{name}");
        }
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_app_hears_of_its_client() {
    let app = App::start().await;
    let mut setup = Setup::to(app.url());
    setup.trusted = vec!["127.0.0.0/8".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
    let gate = setup.start();
    let (_client, _server, head) = request(
        &app,
        &gate,
        "GET / HTTP/1.1\r\nHost: pay.example\r\nX-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.1.1.1\r\n\
         X-Forwarded-Proto: https\r\nCf-Connecting-Ip: 192.0.2.7\r\n\r\n",
    )
    .await;
    assert_eq!(head.one("x-forwarded-for"), "192.0.2.7");
    assert_eq!((head.one("x-forwarded-proto"), head.one("x-forwarded-port")), ("https", "443"));
    assert_eq!(head.one("cf-connecting-ip"), "192.0.2.7");
}

#[tokio::test]
async fn what_can_be_understood_in_two_ways_is_refused_or_made_plain() {
    let app = App::start().await;
    let gate = Gate::before(app.url());
    let seen = app.record();
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let refused = [
        ("two hosts", "GET /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned()),
        ("no host", "GET /x HTTP/1.1\r\n\r\n".to_owned()),
        ("no host, old", "GET /x HTTP/1.0\r\n\r\n".to_owned()),
        ("a wrong host", "GET /x HTTP/1.1\r\nHost: a/b@c\r\n\r\n".to_owned()),
        ("another host", "GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("user info", "GET http://u:p@a/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned()),
        ("connect", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n".to_owned()),
        ("two lengths", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_owned()),
        ("a list of lengths", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na".to_owned()),
        ("a signed length", "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na".to_owned()),
        (
            "gzip, chunked",
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n".to_owned(),
        ),
        (
            "chunked twice",
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n".to_owned(),
        ),
        (
            "two codings",
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                .to_owned(),
        ),
        ("identity", "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n".to_owned()),
        ("chunks in old", "POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned()),
        ("no length in old", "POST /x HTTP/1.0\r\nHost: a\r\n\r\nbody".to_owned()),
        ("a space before the colon", "GET /x HTTP/1.1\r\nHost : a\r\n\r\n".to_owned()),
        ("a folded line", "GET /x HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n".to_owned()),
    ];
    for (what, bytes) in refused {
        let mut client = gate.client().await;
        client.offer(format!("{bytes}{smuggled}")).await;
        let answer = client.rest().await;
        let status = answer.get(9..12).unwrap_or("closed");
        assert!(matches!(status, "400" | "405" | "411"), "{what}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count() + answer.matches("HTTP/1.0 ").count(), 1, "{what}: {answer:?}");
        assert_eq!(seen.lines(), Vec::<String>::new(), "{what}");
    }
    let mut client = gate.client().await;
    let both = "POST /both HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    client.offer(format!("{both}{smuggled}")).await;
    client.rest().await;
    assert_eq!(seen.lines(), ["POST /both HTTP/1.1"], "one framing, and the connection ends after it");
}

#[tokio::test]
async fn a_body_with_a_request_in_it_stays_a_body_when_the_answer_comes_early() {
    let app = App::start().await;
    let mut setup = Setup::to(app.url());
    setup.whole = Some((16, Duration::from_secs(10)));
    let gate = setup.start();
    for body in ["x", "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let mut client = gate.client().await;
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        client.offer(format!("{head}{body}{GET}")).await;
        let status = if body.len() <= 16 { 200 } else { 413 };
        assert_eq!(client.message().await.0.status(), status);
        let (head, body) = client.message().await;
        assert_eq!((head.status(), body.as_str()), (200, ""), "the next request, and no other");
        drop(client);
    }
    let mut client = gate.client().await;
    client.offer("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.offer(format!("{:x}\r\n{}\r\n", 100, "y".repeat(100))).await;
    assert_eq!(client.message().await.0.status(), 413);
    client.offer(GET).await;
    assert_eq!(client.rest().await, "", "what follows is not read as a request");

    let gate = Gate::before(App::gone().await);
    let mut client = gate.client().await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let last = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", smuggled.len());
    client.offer(format!("{head}{smuggled}{last}")).await;
    let answers = client.rest().await;
    assert_eq!(answers.matches("HTTP/1.1 502").count(), 2, "{answers}");
}

#[tokio::test]
async fn a_stop_lets_the_answer_under_way_finish_and_takes_nothing_new_in() {
    let (app, gate) = app_and_gate().await;
    let address = gate.address;
    let idle = gate.client().await;
    let (mut client, mut server, _) = request(&app, &gate, GET).await;
    let served = gate.stop();
    let mut idle = idle;
    assert_eq!(idle.rest().await, "", "an idle connection is closed");
    assert!(TcpStream::connect(address).await.is_err());
    server.write(OK).await;
    let (head, body) = client.message().await;
    assert_eq!((head.one("connection"), body.as_str()), ("close", "ok"));
    drop(client);
    assert_eq!(soon(served).await.unwrap().unfinished, 0);
}

#[tokio::test]
async fn a_stop_that_runs_out_of_time_says_what_it_left() {
    let app = App::start().await;
    let mut setup = Setup::to(app.url());
    setup.drain = Duration::ZERO;
    let gate = setup.start();
    let (_client, _server, _) = request(&app, &gate, GET).await;
    assert_eq!(soon(gate.stop()).await.unwrap().unfinished, 1);
}

#[tokio::test]
async fn an_old_client_gets_an_answer_without_chunks() {
    let (app, gate) = app_and_gate().await;
    let (mut client, mut server, head) = request(&app, &gate, "GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    assert_eq!(head.line, "GET / HTTP/1.1");
    server.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
    let answer = client.head().await;
    assert!(answer.all("transfer-encoding").is_empty());
    assert_eq!(client.rest().await, "ok");
}

#[tokio::test]
async fn answers_without_a_body_have_none() {
    let (app, gate) = app_and_gate().await;
    let (mut client, mut server, _) = request(&app, &gate, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    server.write("HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n").await;
    assert_eq!(client.head().await.one("content-length"), "1234");
    for status in ["204 No Content", "304 Not Modified"] {
        client.write(GET).await;
        server.head().await;
        server.write(format!("HTTP/1.1 {status}\r\netag: x\r\n\r\n")).await;
        let head = client.head().await;
        assert!(head.line.ends_with(status) && head.all("transfer-encoding").is_empty(), "{head:?}");
    }
    client.write(GET).await;
    server.head().await;
    server.write(OK).await;
    assert_eq!(client.message().await.1, "ok", "and so the next answer is read right");
}

#[tokio::test]
async fn requests_sent_at_once_are_answered_in_their_order() {
    let (app, gate) = app_and_gate().await;
    let two = "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
    let (mut client, mut server, head) = request(&app, &gate, two).await;
    assert_eq!(head.line, "GET /1 HTTP/1.1");
    server.write("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1").await;
    assert_eq!(server.head().await.line, "GET /2 HTTP/1.1");
    server.write("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n2").await;
    assert_eq!((client.message().await.1, client.message().await.1), ("1".into(), "2".into()));
}

#[tokio::test]
async fn a_get_with_a_body_keeps_it_and_a_post_without_one_says_so() {
    let (app, gate) = app_and_gate().await;
    let (mut client, mut server, _) =
        request(&app, &gate, "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
            .await;
    assert_eq!(server.until("0\r\n\r\n").await, "2\r\nhi\r\n0\r\n\r\n");
    server.write(OK).await;
    client.message().await;
    client.write("POST /p?q=%2F..//a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = server.head().await;
    assert_eq!((head.line.as_str(), head.one("content-length")), ("POST /p?q=%2F..//a HTTP/1.1", "0"));
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_head_is_closed() {
    let app = App::start().await;
    let mut setup = Setup::to(app.url());
    setup.listener.header_timeout = Duration::from_millis(50);
    let gate = setup.start();
    let mut client = gate.client().await;
    client.write("GET / HTTP/1.1\r\nHo").await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_head_that_has_begun_and_an_idle_connection_have_limits_of_their_own() {
    let app = App::start().await;
    let mut setup = Setup::to(app.url());
    setup.listener.header_timeout = Duration::from_millis(50);
    let gate = setup.start();
    let (mut idle, mut server, _) = request(&app, &gate, GET).await;
    server.write(OK).await;
    idle.message().await;
    let mut slow = gate.client().await;
    slow.write(GET).await;
    server.head().await;
    server.write(OK).await;
    slow.message().await;
    slow.write("GET /next HTTP/1.1\r\nHo").await;
    assert_eq!(slow.rest().await, "");
    idle.write(GET).await;
    server.head().await;
    server.write(OK).await;
    assert_eq!(idle.message().await.1, "ok", "it was idle for longer than a head may take");

    let mut setup = Setup::to(app.url());
    setup.listener.idle_timeout = Duration::from_millis(50);
    let gate = setup.start();
    let (mut idle, mut server, _) = request(&app, &gate, GET).await;
    server.write(OK).await;
    idle.message().await;
    assert_eq!(idle.rest().await, "");
}

#[tokio::test]
async fn neither_a_slow_app_nor_a_tunnel_makes_a_connection_idle() {
    let app = App::start().await;
    let mut setup = Setup::to(app.url());
    setup.listener.idle_timeout = Duration::from_millis(30);
    setup.listener.header_timeout = Duration::from_millis(30);
    let gate = setup.start();
    let (mut waits, mut server, _) = request(&app, &gate, GET).await;
    let (mut talks, mut other, _) = request(&app, &gate, WEBSOCKET).await;
    other.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    talks.head().await;
    // Somebody who is idle for as long, and is closed for it.
    let mut idle = gate.client().await;
    assert_eq!(idle.rest().await, "");
    other.write("hello").await;
    assert_eq!(talks.text(5).await, "hello");
    server.write(OK).await;
    assert_eq!(waits.message().await.1, "ok");
}

#[tokio::test]
async fn heads_have_a_size() {
    let (_app, gate) = app_and_gate().await;
    let many = "X-A: 1\r\n".repeat(101);
    let long = format!("X-A: {}\r\n", "a".repeat(70_000));
    for head in [many, long] {
        let mut client = gate.client().await;
        client.offer(format!("GET / HTTP/1.1\r\nHost: a\r\n{head}\r\n")).await;
        assert_eq!(client.head().await.status(), 431);
    }
}

#[tokio::test]
async fn an_app_on_a_unix_socket_is_an_app() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listener = app::unix(&path);
    let gate = Gate::before(format!("unix:{}", path.display()));
    let mut client = gate.client().await;
    client.write(GET).await;
    let mut server = Wire::new(soon(listener.accept()).await.unwrap().0);
    assert_eq!(server.head().await.one("host"), "pay.example");
    server.write(OK).await;
    assert_eq!(client.message().await.1, "ok");
}

#[tokio::test]
async fn an_app_behind_tls_is_spoken_to_if_its_certificate_is_trusted() {
    let app = App::start().await;
    let key = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, key.cert.pem()).unwrap();
    let private = PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));

    let mut setup = Setup::to(format!("https://localhost:{}", app.port()));
    setup.upstream.ca = Some(ca);
    let gate = setup.start();
    let mut client = gate.client().await;
    client.write(GET).await;
    let tls = soon(acceptor.accept(app.accept_raw().await)).await.unwrap();
    assert_eq!(tls.get_ref().1.server_name(), Some("localhost"));
    let mut server = Wire::new(tls);
    assert_eq!(server.head().await.one("host"), "pay.example");
    server.write(OK).await;
    assert_eq!(client.message().await.1, "ok");

    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.path().join("other.pem"), other.cert.pem()).unwrap();
    let mut setup = Setup::to(format!("https://localhost:{}", app.port()));
    setup.upstream.ca = Some(folder.path().join("other.pem"));
    let gate = setup.start();
    let mut client = gate.client().await;
    client.write(GET).await;
    assert!(soon(acceptor.accept(app.accept_raw().await)).await.is_err());
    assert_eq!(client.message().await.0.status(), 502);
}

#[tokio::test]
async fn a_stream_that_is_written_to_in_vain_is_read_for_its_answer() {
    let (app, gate) = app_and_gate().await;
    let mut client = gate.client().await;
    client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n").await;
    let mut server = app.accept_raw().await;
    server.write_all(b"HTTP/1.1 401 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
    drop(server);
    client.offer(vec![b'x'; 3_000_000]).await;
    assert_eq!(client.head().await.status(), 401);
}
