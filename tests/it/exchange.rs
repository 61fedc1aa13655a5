//! What the app says is read to its end and no further, however it is framed and however it is cut.

use crate::support::{App, Gate, Wire};

const GET: &str = "GET / HTTP/1.1\r\nHost: pay.example\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A client's first request, and the app's side of it.
async fn asked(app: &App, gate: &Gate) -> (Wire, Wire) {
    let mut client = gate.client().await;
    client.write(GET).await;
    let mut server = app.accept().await;
    server.head().await;
    (client, server)
}

#[tokio::test]
async fn an_answer_whose_end_is_doubtful_is_a_502_and_the_connection_is_closed() {
    let app = App::start().await;
    let gate = Gate::before(app.url());
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n";
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        &format!("{chunked}transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"),
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nx: 1\r\n folded: 2\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/2 200\r\ncontent-length: 2\r\n\r\nok",
        &format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(200_000)),
        &format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(200)),
    ] {
        let (mut client, mut server) = asked(&app, &gate).await;
        server.offer(answer).await;
        assert_eq!(client.message().await.0.status(), 502, "{answer:.60?}");
        assert_eq!(server.rest().await, "", "{answer:.60?}");
    }
    for chunks in
        ["x\r\nok\r\n0\r\n\r\n", "2\r\nokok\r\n0\r\n\r\n", "2\nok\r\n0\r\n\r\n", "2\r\nok\r\n0\r\nno field\r\n\r\n"]
    {
        let (mut client, mut server) = asked(&app, &gate).await;
        server.write(format!("{chunked}\r\n{chunks}")).await;
        assert!(!client.rest().await.ends_with("0\r\n\r\n"), "cut off, and so not taken for whole: {chunks:?}");
        assert_eq!(server.rest().await, "", "{chunks:?}");
    }
}

#[tokio::test]
async fn an_answer_is_read_however_it_is_cut() {
    let app = App::start().await;
    let gate = Gate::before(app.url());
    let (mut client, mut server) = asked(&app, &gate).await;
    let answers = [
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n",
        "HTTP/1.1 200 Fine\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ];
    for answer in answers {
        for byte in answer.bytes() {
            server.write([byte]).await;
            tokio::task::yield_now().await;
        }
        let (head, body) = client.answer().await;
        assert_eq!((head.status(), body.as_str()), (200, "ok"));
        assert!(head.all("link").is_empty());
        client.write(GET).await;
        server.head().await;
    }
    assert!(app.is_quiet().await, "all on one connection");
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_is_whole() {
    let app = App::start().await;
    let gate = Gate::before(app.url());
    for head in ["HTTP/1.1 200 OK\r\n", "HTTP/1.0 200 OK\r\nconnection: keep-alive\r\n"] {
        let (mut client, mut server) = asked(&app, &gate).await;
        server.write(format!("{head}\r\nwh")).await;
        assert!(client.until("wh\r\n").await.contains("transfer-encoding: chunked"));
        server.write("ole").await;
        drop(server);
        assert!(client.until("0\r\n\r\n").await.contains("ole"));
    }
}

#[tokio::test]
async fn a_connection_is_left_when_another_answer_could_not_be_told_from_the_last() {
    let app = App::start().await;
    let gate = Gate::before(app.url());
    for last in [
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n",
    ] {
        let (mut client, mut server) = asked(&app, &gate).await;
        server.write(last).await;
        assert_eq!(client.answer().await.1, "ok", "{last:?}");
        assert_eq!(server.rest().await, "", "{last:?}");
        client.write(GET).await;
        let mut next = app.accept().await;
        next.head().await;
        next.write(OK).await;
        assert_eq!(client.message().await.1, "ok");
        // Gone with its server, so that the next round starts anew.
        drop(next);
        while gate.upstream.connect(oncegate::upstream::Use::Passthrough).await.unwrap().reused() {}
        app.accept_raw().await;
    }
}

#[tokio::test]
async fn what_an_idle_app_says_unasked_is_no_answer() {
    let app = App::start().await;
    let gate = Gate::before(app.url());
    let (mut client, mut server) = asked(&app, &gate).await;
    server.write(OK).await;
    client.message().await;
    server.write("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil").await;
    tokio::task::yield_now().await;
    client.write(GET).await;
    let mut next = app.accept().await;
    next.head().await;
    next.write(OK).await;
    assert_eq!(client.message().await.1, "ok");
}

#[tokio::test]
async fn a_large_answer_comes_through_while_the_request_is_still_on_its_way() {
    const SIZE: usize = 4 << 20;
    let app = App::start().await;
    let gate = Gate::before(app.url());
    let mut client = gate.client().await;
    client.write(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n")).await;
    let mut server = app.accept().await;
    server.head().await;
    server.write(format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n")).await;
    assert_eq!(client.head().await.status(), 200);
    let body = vec![b'x'; SIZE];
    // The app answers with what it is sent, piece by piece.
    for _ in 0..4 {
        let piece = &body[..SIZE / 4];
        let (got, ()) = tokio::join!(server.exactly(piece.len()), client.write(piece));
        let ((), back) = tokio::join!(server.write(&got), client.exactly(piece.len()));
        assert!(back == piece);
    }
}
