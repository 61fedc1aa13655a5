//! HTTP/2 with whoever wants it: the same requests and answers, many at once, within bounds.

use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpStream;

use crate::support::{
    App, Authority, Gate, Office, Standing, Wire,
    authority::handshake,
    frames::{
        CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, PRIORITY, PUSH_PROMISE,
        RST_STREAM, SETTINGS, WINDOW_UPDATE, asks, block, frame, hello, request,
    },
    gate::{Setup, app_and_gate},
    office::BRACKETS,
    standing::{HOOK, NINJA},
    wire::{Stream, soon},
};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A client of HTTP/2 on this stream.
async fn client_on(stream: impl Stream + 'static) -> SendRequest<Bytes> {
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

async fn client(gate: &Gate) -> SendRequest<Bytes> {
    client_on(TcpStream::connect(gate.address).await.unwrap()).await
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://pay.example{path}")).body(()).unwrap()
}

/// Asks without a body.
fn ask(client: &mut SendRequest<Bytes>, request: Request<()>) -> ResponseFuture {
    client.send_request(request, true).unwrap().0
}

/// The whole of an answer: its head, its body, its trailers.
async fn whole(answer: ResponseFuture) -> (Response<()>, String, Option<HeaderMap>) {
    let (head, mut body) = soon(answer).await.unwrap().into_parts();
    let mut text = Vec::new();
    while let Some(piece) = soon(body.data()).await {
        let piece = piece.unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        text.extend_from_slice(&piece);
    }
    let trailers = soon(body.trailers()).await.unwrap();
    (Response::from_parts(head, ()), String::from_utf8(text).unwrap(), trailers)
}

#[tokio::test]
async fn the_app_hears_the_same_as_over_http_1() {
    let (app, gate) = app_and_gate().await;
    let mut client = client(&gate).await;
    let request = Request::get("http://pay.example:81/a/../b?c=%2F")
        .header("cookie", "a=1")
        .header("cookie", "b=2; c=3")
        .header("te", "trailers")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-twice", "1")
        .header("x-twice", "2")
        .body(())
        .unwrap();
    let answer = ask(&mut client, request);
    let mut server = app.accept().await;
    let head = server.head().await;
    assert_eq!(head.line, "GET /a/../b?c=%2F HTTP/1.1");
    assert_eq!((head.one("host"), head.one("cookie")), ("pay.example:81", "a=1; b=2; c=3"));
    assert_eq!((head.one("x-forwarded-for"), head.one("x-forwarded-port")), ("127.0.0.1", "81"));
    assert_eq!((head.one("te"), head.all("x-twice")), ("trailers", vec!["1", "2"]));
    assert!(head.all("transfer-encoding").is_empty() && head.all("content-length").is_empty());
    server
        .write("HTTP/1.1 200 OK\r\nset-cookie: a=b\r\nset-cookie: c=d\r\nkeep-alive: 5\r\ncontent-length: 2\r\n\r\nok")
        .await;
    let (head, body, _) = whole(answer).await;
    assert_eq!((head.status().as_u16(), body.as_str()), (200, "ok"));
    assert_eq!(head.headers().get_all("set-cookie").iter().count(), 2);
    assert!(!head.headers().contains_key("keep-alive") && !head.headers().contains_key("connection"));
}

#[tokio::test]
async fn bodies_and_trailers_stream_both_ways() {
    let (app, gate) = app_and_gate().await;
    let mut client = client(&gate).await;
    let request = Request::post("http://pay.example/up").header("trailer", "x-sum, host").body(()).unwrap();
    let (answer, mut body) = client.send_request(request, false).unwrap();
    body.send_data("one".into(), false).unwrap();
    let mut server = app.accept().await;
    assert_eq!(server.head().await.one("transfer-encoding"), "chunked");
    server.until("3\r\none\r\n").await;
    body.send_data("two".into(), false).unwrap();
    server.until("3\r\ntwo\r\n").await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "7".parse().unwrap());
    trailers.insert("host", "evil".parse().unwrap());
    body.send_trailers(trailers).unwrap();
    assert_eq!(server.until("\r\n\r\n").await, "0\r\nx-sum: 7\r\n\r\n");
    server.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-end\r\n\r\n3\r\none\r\n").await;
    let (head, mut body) = soon(answer).await.unwrap().into_parts();
    assert_eq!(head.status, 200);
    assert_eq!(soon(body.data()).await.unwrap().unwrap(), "one");
    server.write("3\r\ntwo\r\n0\r\nX-End: 8\r\nSet-Cookie: a=b\r\n\r\n").await;
    assert_eq!(soon(body.data()).await.unwrap().unwrap(), "two");
    let trailers = soon(body.trailers()).await.unwrap().unwrap();
    assert_eq!((trailers.len(), &trailers["x-end"]), (1, &"8".parse().unwrap()));
}

#[tokio::test]
async fn megabytes_pass_both_ways() {
    const SIZE: usize = 3 << 20;
    let (app, gate) = app_and_gate().await;
    let mut client = client(&gate).await;
    let request = Request::put("http://pay.example/up").header("content-length", SIZE).body(()).unwrap();
    let (answer, mut upload) = client.send_request(request, false).unwrap();
    let sent = tokio::spawn(async move {
        let mut left = SIZE;
        while left > 0 {
            upload.reserve_capacity(left);
            let room = std::future::poll_fn(|cx| upload.poll_capacity(cx)).await.unwrap().unwrap();
            left -= room;
            upload.send_data(vec![b'x'; room].into(), left == 0).unwrap();
        }
    });
    let mut server = app.accept().await;
    assert_eq!(server.head().await.one("content-length"), SIZE.to_string());
    assert!(server.exactly(SIZE).await.iter().all(|b| *b == b'x'));
    soon(sent).await.unwrap();
    let download = format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n{}", "y".repeat(SIZE));
    let ((), (_, body, _)) = tokio::join!(server.write(download), whole(answer));
    assert!(body.len() == SIZE && body.bytes().all(|b| b == b'y'));
}

#[tokio::test]
async fn many_are_answered_at_once_on_one_connection_and_in_any_order() {
    let (app, gate) = app_and_gate().await;
    let mut client = client(&gate).await;
    let mut answers = Vec::new();
    let mut servers = Vec::new();
    for path in ["/0", "/1", "/2", "/3"] {
        answers.push(ask(&mut client, get(path)));
        let mut server = app.accept().await;
        assert_eq!(server.head().await.line, format!("GET {path} HTTP/1.1"));
        servers.push(server);
    }
    for (server, answer) in servers.iter_mut().zip(answers).rev() {
        server.write(OK).await;
        assert_eq!(whole(answer).await.1, "ok");
    }
}

#[tokio::test]
async fn who_takes_a_request_back_takes_it_from_the_app_too_and_nothing_else() {
    let (app, gate) = app_and_gate().await;
    let mut client = client(&gate).await;
    let kept = ask(&mut client, get("/kept"));
    let mut other = app.accept().await;
    other.head().await;
    let waits = ask(&mut client, get("/waits"));
    let mut server = app.accept().await;
    server.head().await;
    drop(waits);
    assert_eq!(server.rest().await, "", "while it waits");
    let reads = ask(&mut client, get("/reads"));
    let mut server = app.accept().await;
    server.head().await;
    server.write("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\npart").await;
    drop(soon(reads).await.unwrap());
    assert_eq!(server.rest().await, "", "while it reads");
    other.write(OK).await;
    assert_eq!(whole(kept).await.1, "ok");
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_taken_for_whole() {
    let (app, gate) = app_and_gate().await;
    let mut client = client(&gate).await;
    let answer = ask(&mut client, get("/"));
    let mut server = app.accept().await;
    server.head().await;
    server.write("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n").await;
    let mut body = soon(answer).await.unwrap().into_body();
    assert_eq!(soon(body.data()).await.unwrap().unwrap(), "part");
    drop(server);
    assert!(soon(body.data()).await.unwrap().unwrap_err().is_reset());
}

#[tokio::test]
async fn an_answer_to_head_has_no_body_whoever_gives_it() {
    let gate = Gate::before(App::gone().await);
    let mut client = client(&gate).await;
    let head = Request::head("http://pay.example/").body(()).unwrap();
    let (head, body, _) = whole(ask(&mut client, head)).await;
    assert_eq!((head.status().as_u16(), body.as_str()), (502, ""));
    assert_ne!(head.headers()["content-length"], "0", "it says how long the text would be");
}

#[tokio::test]
async fn the_first_bytes_tell_and_may_come_one_by_one() {
    let (app, gate) = app_and_gate().await;
    let mut wire = gate.client().await;
    let all = [hello(), asks(1, END_STREAM, &request("GET", "/"))].concat();
    for byte in all.chunks(1) {
        wire.write(byte).await;
        tokio::task::yield_now().await;
    }
    let mut server = app.accept().await;
    assert_eq!(server.head().await.line, "GET / HTTP/1.1");
    server.write(OK).await;
    assert_eq!(wire.outcome(1).await, Some(200));
    // What only begins like it is HTTP/1, and is all there.
    for begin in ["P", "PR", "PRI"] {
        let mut wire = gate.client().await;
        wire.write(begin).await;
        tokio::task::yield_now().await;
        wire.write("X /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(server.head().await.line, format!("{begin}X /a HTTP/1.1"));
        server.write(OK).await;
        assert_eq!(wire.message().await.1, "ok");
    }
}

#[tokio::test]
async fn over_tls_it_is_spoken_by_agreement() {
    let (app, authority) = (App::start().await, Authority::new());
    let table = authority.issue("pay", &["pay.example"]).table("127.0.0.1:0");
    for (http2, agreed) in [(true, &b"h2"[..]), (false, b"http/1.1")] {
        let gate = Standing::before(&app.url(), &format!("gateway.http2 = {http2}\n{table}")).await;
        let stream = TcpStream::connect(gate.running.addresses[1]).await.unwrap();
        let config = authority.believer(&["h2", "http/1.1"]);
        let stream = handshake(stream, &config, "pay.example").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(agreed));
        if http2 {
            let answer = ask(&mut client_on(stream).await, get("/"));
            let mut server = app.accept().await;
            assert_eq!(server.head().await.one("x-forwarded-proto"), "https");
            server.write(OK).await;
            assert_eq!(whole(answer).await.1, "ok");
        } else {
            let mut plain = gate.client().await;
            plain.offer(hello()).await;
            assert!(!plain.bytes().await.windows(3).any(|w| w == b"\0\0\x04"), "nobody speaks it");
        }
    }
}

#[tokio::test]
async fn twins_on_one_connection_make_one_forward() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), NINJA).await;
    let mut client = client_on(TcpStream::connect(gate.v4()).await.unwrap()).await;
    let mut answers = Vec::new();
    for _ in 0..20 {
        let request = Request::post(format!("http://pay.example{HOOK}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(())
            .unwrap();
        let (answer, mut body) = client.send_request(request, false).unwrap();
        body.send_data("id=tr_1".into(), true).unwrap();
        answers.push(answer);
    }
    gate.waiters(20).await;
    office.next().await.answer(BRACKETS);
    for answer in answers {
        let (head, body, _) = whole(answer).await;
        assert_eq!((head.status().as_u16(), body.as_str()), (200, "[]"));
    }
    assert!(office.is_quiet_for(Duration::from_millis(20)).await);
}

#[tokio::test]
async fn a_gate_that_stops_finishes_what_was_asked_and_says_goodbye() {
    let (app, gate) = app_and_gate().await;
    let mut wire = gate.client().await;
    wire.write([hello(), frame(SETTINGS, 1, 0, &[]), asks(1, END_STREAM, &request("GET", "/"))].concat()).await;
    let mut server = app.accept().await;
    server.head().await;
    let mut idle = gate.client().await;
    idle.write([hello(), frame(SETTINGS, 1, 0, &[])].concat()).await;
    idle.frame_of(&[SETTINGS]).await;
    let stopped = gate.stop();
    for wire in [&mut wire, &mut idle] {
        assert_eq!(wire.frame_of(&[GOAWAY]).await.unwrap().code(), 0);
        let ping = wire.frame_of(&[PING]).await.unwrap();
        wire.write(frame(PING, 1, 0, &ping.payload)).await;
    }
    server.write(OK).await;
    assert_eq!(wire.outcome(1).await, None, "the last farewell");
    assert_eq!(wire.outcome(1).await, Some(200));
    assert_eq!(stopped.await.unwrap().unfinished, 0);
}

/// The gate's word on a request with these fields: a status, or nothing where it is not answered.
async fn word(gate: &Gate, flags: u8, fields: &[(&str, &str)], rest: &[u8]) -> Option<u16> {
    let mut wire = gate.client().await;
    wire.offer([&hello(), &asks(1, flags, fields), rest].concat()).await;
    wire.outcome(1).await
}

/// Fields that no request may have.
pub fn hostile_requests() -> Vec<Vec<(&'static str, &'static str)>> {
    let with = |more: &[(&'static str, &'static str)]| [request("GET", "/"), more.to_vec()].concat();
    let without = |name: &str| request("GET", "/").into_iter().filter(|(n, _)| *n != name).collect::<Vec<_>>();
    let changed = |name: &'static str, value: &'static str| {
        request("GET", "/").into_iter().map(|f| if f.0 == name { (name, value) } else { f }).collect::<Vec<_>>()
    };
    let mut hostile = vec![
        // Names that would be two fields for who reads HTTP/1, or one that the gate rebuilds.
        with(&[("x\r\ny", "z")]),
        with(&[("x\ny", "z")]),
        with(&[("x:y", "z")]),
        with(&[("x y", "z")]),
        with(&[("x\0", "z")]),
        with(&[("", "z")]),
        with(&[("X-Upper", "z")]),
        with(&[(":unknown", "z")]),
        with(&[("x", "y\r\nz: 1")]),
        with(&[("x", "y\nz")]),
        with(&[("x", "y\0")]),
        with(&[("x", " padded")]),
        with(&[("x", "padded\t")]),
        with(&[("connection", "close")]),
        with(&[("keep-alive", "5")]),
        with(&[("proxy-connection", "close")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("upgrade", "websocket")]),
        with(&[("te", "gzip")]),
        with(&[("content-length", "5")]),
        with(&[("content-length", "+0")]),
        with(&[("content-length", "0"), ("content-length", "1")]),
        // Two readers, two hosts.
        with(&[("host", "other.example")]),
        with(&[("host", "pay.example"), ("host", "pay.example")]),
        [with(&[]), vec![(":path", "/late")]].concat(),
        [vec![("x", "y")], request("GET", "/")].concat(),
        changed(":authority", "a b"),
        changed(":authority", "user@pay.example"),
        changed(":authority", "pay.example/x"),
        changed(":authority", ""),
        changed(":path", ""),
        changed(":path", "no-slash"),
        changed(":path", "http://other.example/"),
        changed(":path", "/a b"),
        changed(":path", "/\r\nX: y"),
        changed(":method", ""),
        changed(":method", "GE T"),
        changed(":method", "G\r\nET"),
        changed(":scheme", "ftp"),
        changed(":scheme", "http\r\n"),
        without(":method"),
        without(":scheme"),
        without(":path"),
        without(":authority"),
        // No tunnels, and none by the extension.
        vec![(":method", "CONNECT"), (":authority", "pay.example:443")],
        [request("CONNECT", "/"), vec![(":protocol", "websocket")]].concat(),
        with(&[(":status", "200")]),
    ];
    let many: Vec<_> = (0..101).map(|_| ("x-a", "1")).collect();
    hostile.push(with(&many));
    hostile
}

#[tokio::test]
async fn hostile_requests_never_reach_the_app() {
    let (app, gate) = app_and_gate().await;
    let hostile = hostile_requests();
    assert!(hostile.len() > 45);
    for fields in hostile {
        let word = word(&gate, END_STREAM, &fields, &[]).await;
        assert!(word.is_none_or(|status| matches!(status, 400 | 405 | 431)), "{word:?}: {fields:?}");
    }
    assert!(app.is_quiet().await, "not one of them reached the app");
    // An honest one does.
    let mut wire = gate.client().await;
    wire.write([hello(), asks(1, END_STREAM, &request("GET", "/"))].concat()).await;
    assert_eq!(app.accept().await.head().await.one("host"), "pay.example");
}

/// Frames that are wrong, or right in another place.
pub fn frames_out_of_place() -> Vec<Vec<Vec<u8>>> {
    let get = asks(1, END_STREAM, &request("GET", "/"));
    let open = asks(1, 0, &request("POST", "/"));
    let head = block(&request("GET", "/"));
    let big = vec![0; 20_000];
    vec![
        vec![frame(DATA, 0, 1, b"x")],
        vec![frame(DATA, 0, 0, b"x")],
        vec![open.clone(), frame(DATA, 8, 1, &[9, 1])],
        vec![open.clone(), frame(DATA, 0, 1, &big)],
        vec![frame(HEADERS, END_HEADERS, 0, &head)],
        vec![frame(HEADERS, END_HEADERS, 2, &head)],
        vec![frame(HEADERS, END_HEADERS | 8, 1, &[200, 1, 2])],
        vec![frame(HEADERS, END_HEADERS, 1, &[0xff; 20])],
        vec![frame(HEADERS, END_HEADERS, 1, &[0xbf])],
        vec![frame(HEADERS, END_HEADERS, 1, &[0x3f, 0xff, 0xff, 0xff, 0x7f])],
        vec![frame(HEADERS, 0, 1, &head), frame(PING, 0, 0, &[0; 8])],
        vec![frame(HEADERS, 0, 1, &head), frame(CONTINUATION, END_HEADERS, 3, &head)],
        vec![frame(CONTINUATION, END_HEADERS, 1, &head)],
        vec![get.clone(), get.clone()],
        vec![asks(3, END_STREAM, &request("GET", "/")), get.clone()],
        vec![frame(PRIORITY, 0, 1, &[0; 4])],
        vec![frame(PRIORITY, 0, 0, &[0; 5])],
        vec![frame(RST_STREAM, 0, 1, &[0; 4])],
        vec![frame(RST_STREAM, 0, 0, &[0; 4])],
        vec![open.clone(), frame(RST_STREAM, 0, 1, &[0; 3])],
        vec![frame(SETTINGS, 0, 1, &[])],
        vec![frame(SETTINGS, 0, 0, &[0; 5])],
        vec![frame(SETTINGS, 1, 0, &[0; 6])],
        vec![frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff])],
        vec![frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1])],
        vec![frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2])],
        vec![frame(PUSH_PROMISE, END_HEADERS, 1, &[&[0, 0, 0, 2], &head[..]].concat())],
        vec![frame(PING, 0, 1, &[0; 8])],
        vec![frame(PING, 0, 0, &[0; 7])],
        vec![frame(GOAWAY, 0, 1, &[0; 8])],
        vec![frame(GOAWAY, 0, 0, &[0; 4])],
        vec![frame(WINDOW_UPDATE, 0, 0, &[0; 4])],
        vec![frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff])],
        vec![frame(WINDOW_UPDATE, 0, 0, &[0; 3])],
        vec![frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])],
        vec![open.clone(), frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff])],
        vec![vec![0xff; 64]],
        vec![frame(HEADERS, END_HEADERS, 1, &big)],
    ]
}

#[tokio::test]
async fn frames_out_of_place_end_the_stream_or_the_connection_and_nothing_else() {
    let app = App::start().await;
    let gate = Gate::before(app.url());
    let recording = app.record();
    let hostile = frames_out_of_place();
    assert!(hostile.len() > 35);
    for frames in hostile {
        let mut wire = gate.client().await;
        wire.offer([&hello(), &frames.concat()[..]].concat()).await;
        let end = wire.frame_of(&[GOAWAY, RST_STREAM]).await;
        assert!(end.is_none_or(|end| end.code() != 0), "{frames:?}");
    }
    // What the gate has said since, and to whom, is sound: the next one is answered.
    let mut client = client(&gate).await;
    assert_eq!(whole(ask(&mut client, self::get("/last"))).await.0.status(), 200);
    assert_eq!(recording.lines().last().unwrap(), "GET /last HTTP/1.1");
    let begun = [&PREFACE[..20], b"X\r\n\r\n"].concat();
    let mut wire = gate.client().await;
    wire.offer(begun).await;
    assert!(wire.bytes().await.len() < 200, "almost a preface");
}

#[tokio::test]
async fn heads_have_a_size_however_they_are_packed() {
    let (_app, gate) = app_and_gate().await;
    let long: &'static str = "a".repeat(70_000).leak();
    let mut wire = gate.client().await;
    let fields = block(&[request("GET", "/"), vec![("x-long", long)]].concat());
    let mut frames = vec![hello()];
    let pieces: Vec<_> = fields.chunks(16_000).collect();
    for (i, piece) in pieces.iter().enumerate() {
        let last = if i + 1 == pieces.len() { END_HEADERS } else { 0 };
        let (kind, flags) = if i == 0 { (HEADERS, END_STREAM | last) } else { (CONTINUATION, last) };
        frames.push(frame(kind, flags, 1, piece));
    }
    wire.offer(frames.concat()).await;
    assert!(matches!(wire.outcome(1).await, Some(431) | None), "too long in pieces");
    // One field put into the table, and then named again and again: a bomb.
    let entry = [&[0x40, 3][..], b"x-b", &[127, 0xa1, 0x1e], &[b'b'; 4000]].concat();
    let bomb = [block(&request("GET", "/")), entry, vec![0xbe; 12_000]].concat();
    let mut wire = gate.client().await;
    wire.offer([hello(), frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb)].concat()).await;
    assert!(matches!(wire.outcome(1).await, Some(431) | None), "a bomb");
}

/// Says this again and again, and expects to be cut off.
async fn is_cut_off(mut wire: Wire, mut again: impl FnMut(u32) -> Vec<u8>, times: u32) {
    let mut offered = 0;
    while offered < times {
        let batch: Vec<u8> = (offered..offered + 64).flat_map(&mut again).collect();
        offered += 64;
        if !wire.try_write(&batch).await {
            return;
        }
    }
    // A reset is an end too.
    while wire.frame().await.is_some() {}
}

#[tokio::test]
async fn floods_are_cut_off() {
    let app = App::start().await;
    let gate = Gate::before(app.url());
    let _recording = app.record();
    let begun = || async {
        let mut wire = gate.client().await;
        wire.write([hello(), frame(SETTINGS, 1, 0, &[])].concat()).await;
        wire
    };
    // Rapid reset: asked and taken back.
    let reset = |i: u32| {
        let stream = 2 * i + 1;
        [asks(stream, END_STREAM, &request("GET", "/")), frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])].concat()
    };
    is_cut_off(begun().await, reset, 20_000).await;
    // Made to reset: asked, and then broken so that we take it back.
    let made = |i: u32| {
        let stream = 2 * i + 1;
        [asks(stream, 0, &request("POST", "/")), frame(WINDOW_UPDATE, 0, stream, &[0; 4])].concat()
    };
    is_cut_off(begun().await, made, 20_000).await;
    // Nothing asked, and a lot said.
    is_cut_off(begun().await, |_| frame(PING, 0, 0, &[7; 8]), 200_000).await;
    is_cut_off(begun().await, |_| frame(SETTINGS, 0, 0, &[]), 200_000).await;
    is_cut_off(begun().await, |_| frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]), 200_000).await;
    // A head that never ends.
    let mut wire = begun().await;
    wire.write(frame(HEADERS, END_STREAM, 1, &block(&request("GET", "/")))).await;
    is_cut_off(wire, |_| frame(CONTINUATION, 0, 1, &block(&[("x-a", "b")])), 200_000).await;
    let mut wire = begun().await;
    wire.write(frame(HEADERS, END_STREAM, 1, &block(&request("GET", "/")))).await;
    is_cut_off(wire, |_| frame(CONTINUATION, 0, 1, &[]), 200_000).await;
    // Others are served all the while.
    let mut client = client(&gate).await;
    assert_eq!(whole(ask(&mut client, get("/"))).await.0.status(), 200);
}

#[tokio::test]
async fn who_takes_back_what_he_asks_is_cut_off_even_if_he_lets_us_begin() {
    let app = App::start().await;
    let gate = Gate::before(app.url());
    let mut wire = gate.client().await;
    wire.write([hello(), frame(SETTINGS, 1, 0, &[])].concat()).await;
    let (mut taken_back, mut in_the_app) = (0, Vec::new());
    while taken_back < 200 {
        let stream = 2 * taken_back + 1;
        if !wire.try_write(&asks(stream, END_STREAM, &request("GET", "/"))).await {
            break;
        }
        // It is in the app by now.
        tokio::select! {
            server = app.accept() => in_the_app.push(server),
            () = async { while wire.frame().await.is_some() {} } => break,
        }
        if !wire.try_write(&frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])).await {
            break;
        }
        taken_back += 1;
    }
    assert!((100..110).contains(&taken_back), "{taken_back}");
}

#[tokio::test]
async fn no_more_than_so_many_are_under_way_at_once() {
    let app = App::start().await;
    let mut setup = Setup::to(app.url());
    setup.listener.max_streams = 3;
    let gate = setup.start();
    let mut wire = gate.client().await;
    wire.write(hello()).await;
    let settings = wire.frame_of(&[SETTINGS]).await.unwrap().payload;
    let streams = settings.chunks(6).find(|setting| setting[1] == 3).unwrap();
    assert_eq!(streams[2..], [0, 0, 0, 3]);
    for i in 0..4 {
        wire.write(asks(2 * i + 1, END_STREAM, &request("GET", "/"))).await;
    }
    let refused = wire.frame_of(&[RST_STREAM]).await.unwrap();
    assert_eq!((refused.stream, refused.code()), (7, 7), "REFUSED_STREAM: nothing was done");
}

#[tokio::test]
async fn an_answer_left_unread_ends_alone() {
    let app = App::start().await;
    let mut setup = Setup::to(app.url());
    setup.listener.write_timeout = Duration::from_millis(100);
    let gate = setup.start();
    let mut wire = gate.client().await;
    // A window of 10 bytes on every stream.
    let shut = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 10]);
    wire.write([PREFACE, &shut, &asks(1, END_STREAM, &request("GET", "/"))].concat()).await;
    let mut server = app.accept().await;
    server.head().await;
    server.write(format!("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{}", "x".repeat(500))).await;
    assert_eq!(wire.frame_of(&[DATA]).await.unwrap().payload.len(), 10);
    server.write("y".repeat(400)).await;
    assert_eq!(server.rest().await, "", "the app is not kept");
    assert_eq!(wire.frame_of(&[RST_STREAM]).await.unwrap().stream, 1);
    wire.write(asks(3, END_STREAM, &request("GET", "/"))).await;
    let mut server = app.accept().await;
    server.head().await;
    server.write(OK).await;
    assert_eq!(wire.outcome(3).await, Some(200));
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_asked_is_told_to_go_and_then_closed() {
    let app = App::start().await;
    let mut setup = Setup::to(app.url());
    setup.listener.header_timeout = Duration::from_millis(50);
    setup.listener.idle_timeout = Duration::from_millis(50);
    let gate = setup.start();
    let mut wire = gate.client().await;
    wire.write([hello(), frame(SETTINGS, 1, 0, &[]), asks(1, END_STREAM, &request("GET", "/"))].concat()).await;
    let mut server = app.accept().await;
    server.head().await;
    // One that asked nothing at all, and goes while the other's request is still under way.
    let mut silent = gate.client().await;
    silent.write(hello()).await;
    assert_eq!(silent.frame_of(&[GOAWAY]).await.unwrap().code(), 0);
    while silent.frame().await.is_some() {}
    server.write(OK).await;
    assert_eq!(wire.outcome(1).await, Some(200));
    assert_eq!(wire.frame_of(&[GOAWAY]).await.unwrap().code(), 0);
    while wire.frame().await.is_some() {}
    let mut begun = gate.client().await;
    begun.write(&PREFACE[..10]).await;
    assert_eq!(begun.bytes().await, b"");
}
