//! What a hostile client says in HTTP/1: refused, or understood by every reader alike.

use std::convert::Infallible;

use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use crate::support::{App, Gate, wire::soon};

/// What a smuggler would have the app see.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n";

/// A request with these fields and this body, framed by what the fields say.
fn post(fields: &str, body: &str) -> String {
    format!("POST /a HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")
}

fn get(fields: &str) -> String {
    format!("GET /a HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
}

fn chunked(body: &str) -> String {
    post("Transfer-Encoding: chunked\r\n", body)
}

/// What nobody may pass on. Behind each stands a request that must not be found.
pub fn refused() -> Vec<String> {
    let mut all = Vec::new();
    let lengths = [
        "5, 6",
        "5,5",
        "5 5",
        "+5",
        "-5",
        "0x5",
        "5e0",
        "5.0",
        "0_5",
        "",
        " ",
        "five",
        "5;",
        "5\t5",
        "\"5\"",
        "５",
        "5\u{a0}",
        "18446744073709551616",
        "99999999999999999999999",
        "-0",
        "5\u{b}",
        "\u{c}5",
        "5\u{85}",
        "٥",
        "1 \r\n 2",
    ];
    all.extend(lengths.map(|length| post(&format!("Content-Length: {length}\r\n"), "hello")));
    for (first, second) in [("5", "6"), ("5", "0"), ("0", "5"), ("6", "5"), ("5", "x")] {
        all.push(post(&format!("Content-Length: {first}\r\nContent-Length: {second}\r\n"), "hello"));
    }
    let codings = [
        "identity",
        "xchunked",
        "chunkedx",
        "\"chunked\"",
        "chunked;q=1",
        "\u{b}chunked",
        "chunked\u{c}",
        "\u{a0}chunked",
        "\u{85}chunked",
        "=?utf-8?q?chunked?=",
        "",
        "identity, chunked",
        "gzip, chunked",
        "chunked, chunked",
        ",chunked",
        "chunked,",
        "chunked, identity",
        "gzip",
        "deflate",
        "chu nked",
        "chunked chunked",
        "'chunked'",
        "chunked\0",
        "c hunked",
        "chunked; foo=bar",
        "trailers",
        "chunked, gzip",
        "x,chunked",
        "chunked\u{ad}",
        "сhunked",
    ];
    all.extend(codings.map(|coding| post(&format!("Transfer-Encoding: {coding}\r\n"), "0\r\n\r\n")));
    for (first, second) in [
        ("chunked", "chunked"),
        ("chunked", "identity"),
        ("identity", "chunked"),
        ("gzip", "chunked"),
        ("chunked", "x"),
    ] {
        all.push(post(&format!("Transfer-Encoding: {first}\r\nTransfer-Encoding: {second}\r\n"), "0\r\n\r\n"));
    }
    let fields = [
        "Content-Length : 5\r\n",
        "Content-Length\t: 5\r\n",
        " Content-Length: 5\r\n",
        "\tContent-Length: 5\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\t: chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\r\n folded: 1\r\n",
        "X: y\r\n\tfolded: 1\r\n",
        "nocolon\r\n",
        ": empty\r\n",
        "X\0: y\r\n",
        "X: y\0z\r\n",
        "X\r: y\r\n",
        "X: y\rz\r\n",
        "X(: y\r\n",
        "X): y\r\n",
        "X@: y\r\n",
        "X[: y\r\n",
        "X{: y\r\n",
        "X\": y\r\n",
        "X/: y\r\n",
        "X,: y\r\n",
        "X;: y\r\n",
        "X<: y\r\n",
        "X=: y\r\n",
        "X\\: y\r\n",
        "Ä: y\r\n",
        "X\u{7f}: y\r\n",
        "X: \u{7f}\r\n",
        "X: \u{1}\r\n",
        "X: \u{1b}[2J\r\n",
        "\u{feff}X: y\r\n",
        "X y: z\r\n",
        "X\u{b}: y\r\n",
        "Content-Length:\u{b}5\r\n",
    ];
    all.extend(fields.map(|field| post(field, "hello")));
    let hosts = [
        "", "a b", "a/b", "a@b", "user@a", "a?b", "a#b", "a\\b", "a,b", "[::1", "[x]", "a:b", "a:123456", "a\tb", "ä",
        "a%00", "a<b>", "\"a\"", "a;b", "a|b", "(a)",
    ];
    all.extend(hosts.map(|host| format!("GET /a HTTP/1.1\r\nHost: {host}\r\n\r\n")));
    all.extend(
        [
            "GET /a HTTP/1.1\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
            "GET http://b/a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://u:p@a/a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET ftp://a/a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET ?q HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
            "CONNECT /a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET  /a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a  HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET\t/a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\tHTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\u{b}HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\0 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\r HTTP/1.1\r\nHost: a\r\n\r\n",
            "G\0ET /a HTTP/1.1\r\nHost: a\r\n\r\n",
            "G(T /a HTTP/1.1\r\nHost: a\r\n\r\n",
            " GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /a HTTP/0.9\r\nHost: a\r\n\r\n",
            "GET /a HTTP/1.2\r\nHost: a\r\n\r\n",
            "GET /a HTTP/2.0\r\nHost: a\r\n\r\n",
            "GET /a HTTP/3\r\nHost: a\r\n\r\n",
            "GET /a HTTP/1\r\nHost: a\r\n\r\n",
            "GET /a HTTP/1.10\r\nHost: a\r\n\r\n",
            "GET /a http/1.1\r\nHost: a\r\n\r\n",
            "GET /a HTTP /1.1\r\nHost: a\r\n\r\n",
            "GET /a HTTP/1.1 x\r\nHost: a\r\n\r\n",
            "GET /a HTPP/1.1\r\nHost: a\r\n\r\n",
            "GET /a\r\n\r\n",
            "POST /a HTTP/1.0\r\nHost: a\r\n\r\n",
            "POST /a HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "\0\0\0\0GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        ]
        .map(ToOwned::to_owned),
    );
    all
}

/// Chunks that are wrong. A part may have gone on its way to the app by then; it never becomes a request.
pub fn broken_chunks() -> Vec<String> {
    [
        "x\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "5_0\r\nhello\r\n0\r\n\r\n",
        " 5\r\nhello\r\n0\r\n\r\n",
        "\t5\r\nhello\r\n0\r\n\r\n",
        "5\u{b}\r\nhello\r\n0\r\n\r\n",
        "ffffffffffffffff5\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        ";\r\nhello\r\n0\r\n\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\nhello\n0\n\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\nX: y\n\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
        "5\0\r\nhello\r\n0\r\n\r\n",
        "4\r\nhello\r\n0\r\n\r\n",
        "5,5\r\nhello\r\n0\r\n\r\n",
        "5\r\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nnocolon\r\n\r\n",
        "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
        "5\r\nhello\r\n0\r\n X: y\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\0\r\n\r\n",
        "５\r\nhello\r\n0\r\n\r\n",
        "0x0\r\n\r\n",
        "00000000000000000\n\r\n",
        "5 5\r\nhello\r\n0\r\n\r\n",
    ]
    .map(chunked)
    .to_vec()
}

/// What is odd and may be passed on: then every reader finds these requests and no other.
pub fn understood() -> Vec<(String, Vec<&'static str>)> {
    let a = || vec!["GET /a HTTP/1.1"];
    let posted = || vec!["POST /a HTTP/1.1"];
    let mut all: Vec<(String, Vec<&'static str>)> = Vec::new();
    for fields in [
        "Connection: X-Forwarded-For\r\nX-Forwarded-For: 6.6.6.6\r\n",
        "Connection: Host\r\n",
        "Connection: Content-Length\r\n",
        "Connection: Authorization\r\nAuthorization: x\r\n",
        "Connection: close, close\r\n",
        "Connection: ,,\r\n",
        "Keep-Alive: 5\r\n",
        "Proxy-Connection: keep-alive\r\n",
        "Proxy-Authorization: x\r\n",
        "TE: chunked\r\n",
        "TE: trailers, chunked\r\n",
        "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAM\r\n",
        "Upgrade: x, y\r\nConnection: upgrade\r\n",
        "Upgrade: websocket\r\n",
        "Expect: 100-continue\r\n",
        "X-HTTP-Method-Override: POST\r\n",
        "Transfer_Encoding: chunked\r\n",
        "Content_Length: 50\r\n",
        "X_Forwarded_For: 6.6.6.6\r\n",
        "Content-Length: 0\r\n",
        "Trailer: Host\r\n",
        "X:y\r\n",
        "X:\r\n",
        "X:  y  \r\n",
        "X: é\r\n",
        "x: 1\r\nX: 2\r\n",
        "Forwarded: for=6.6.6.6\r\n",
        "Max-Forwards: 0\r\n",
        "Range: bytes=0-0\r\n",
        "Via: 1.1 evil\r\n",
    ] {
        all.push((get(fields), a()));
    }
    for (line, found) in [
        ("GET /%0d%0aX:y HTTP/1.1", "GET /%0d%0aX:y HTTP/1.1"),
        ("GET /../../a HTTP/1.1", "GET /../../a HTTP/1.1"),
        ("GET /%2e%2e/a HTTP/1.1", "GET /%2e%2e/a HTTP/1.1"),
        ("GET //a HTTP/1.1", "GET //a HTTP/1.1"),
        ("GET /a%2fb HTTP/1.1", "GET /a%2fb HTTP/1.1"),
        ("GET /a;x=y HTTP/1.1", "GET /a;x=y HTTP/1.1"),
        ("GET /a\\b HTTP/1.1", "GET /a\\b HTTP/1.1"),
        ("GET /a?b#c HTTP/1.1", "GET /a?b HTTP/1.1"),
        ("GET /a?b=c|d HTTP/1.1", "GET /a?b=c|d HTTP/1.1"),
        ("GET http://a/b HTTP/1.1", "GET /b HTTP/1.1"),
        ("GET http://a HTTP/1.1", "GET / HTTP/1.1"),
        ("GET HTTPS://A/b HTTP/1.1", "GET /b HTTP/1.1"),
        ("OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.1"),
        ("GET /a HTTP/1.0", "GET /a HTTP/1.1"),
        ("get /a HTTP/1.1", "get /a HTTP/1.1"),
        ("FOO /a HTTP/1.1", "FOO /a HTTP/1.1"),
    ] {
        all.push((format!("{line}\r\nHost: a\r\n\r\n"), vec![found]));
    }
    // A length beside a coding, the same length twice, zeros before it: one framing is left.
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: Chunked\r\n",
        "Transfer-Encoding: \tchunked \r\n",
        "TRANSFER-ENCODING: CHUNKED\r\n",
    ] {
        all.push((post(fields, "5\r\nhello\r\n0\r\n\r\n"), posted()));
    }
    for fields in ["Content-Length: 005\r\n", "Content-Length: 5\r\nContent-Length: 5\r\n", "content-length:5\r\n"] {
        all.push((post(fields, "hello"), posted()));
    }
    for body in [
        "5;ext\r\nhello\r\n0\r\n\r\n",
        "5;a=\"b\"\r\nhello\r\n0;x\r\n\r\n",
        "005\r\nhello\r\n000\r\n\r\n",
        "5\r\nhello\r\n0\r\nHost: evil\r\n\r\n",
        "5\r\nhello\r\n0\r\nContent-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t\r\nhello\r\n0\r\n\r\n",
    ] {
        all.push((chunked(body), posted()));
    }
    // Line feeds alone are tolerated by the library, and never passed on.
    all.push(("GET /a HTTP/1.1\nHost: a\n\n".into(), a()));
    all.push(("GET /a HTTP/1.1\r\nHost: a\nX: y\r\n\r\n".into(), a()));
    all.push(("\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n".into(), a()));
    all
}

/// The request lines that hyper's own server finds in these bytes: a second reader of what the app was sent.
async fn found_by_another(bytes: Vec<u8>) -> Vec<String> {
    let (mut ours, theirs) = tokio::io::duplex(1 << 20);
    let (into, mut found) = tokio::sync::mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<Incoming>| {
        let into = into.clone();
        async move {
            let line = format!("{} {} {:?}", request.method(), request.uri(), request.version());
            if request.into_body().collect().await.is_ok() {
                into.send(line).unwrap();
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    ours.write_all(&bytes).await.unwrap();
    ours.shutdown().await.unwrap();
    let _ = soon(http1::Builder::new().half_close(true).serve_connection(TokioIo::new(theirs), service)).await;
    found.close();
    let mut lines = Vec::new();
    while let Some(line) = found.recv().await {
        lines.push(line);
    }
    lines
}

/// Says it and hears one answer to each request that is in it.
async fn say(gate: &Gate, bytes: &str, answers: usize) -> Vec<u16> {
    let mut client = gate.client().await;
    client.offer(bytes).await;
    let mut heard = Vec::new();
    while heard.len() < answers {
        let Some(head) = client.try_head().await else { break };
        if head.status() >= 200 {
            heard.push(head.status());
        }
    }
    heard
}

#[tokio::test]
async fn what_two_readers_could_take_for_two_things_is_refused() {
    let app = App::start().await;
    let gate = Gate::before(app.url());
    let seen = app.record();
    let hostile = refused();
    assert!(hostile.len() > 150, "{}", hostile.len());
    for bytes in &hostile {
        let heard = say(&gate, &format!("{bytes}{SMUGGLED}"), 1).await;
        assert!(heard.iter().all(|status| (400..=505).contains(status) && *status != 404), "{heard:?}: {bytes:?}");
        assert_eq!(seen.lines(), [""; 0], "{bytes:?}");
    }
}

#[tokio::test]
async fn a_body_whose_chunks_are_wrong_never_becomes_a_request() {
    let app = App::start().await;
    let gate = Gate::before(app.url());
    let seen = app.record();
    let hostile = broken_chunks();
    assert!(hostile.len() > 30, "{}", hostile.len());
    for bytes in &hostile {
        let heard = say(&gate, &format!("{bytes}{SMUGGLED}"), 1).await;
        assert!(heard.iter().all(|status| *status >= 400), "{heard:?}: {bytes:?}");
        assert_eq!(seen.lines(), [""; 0], "{bytes:?}");
    }
}

#[tokio::test]
async fn what_is_odd_reaches_the_app_as_the_one_request_that_it_is() {
    let mut passed = 0;
    for (bytes, lines) in understood() {
        let app = App::start().await;
        let gate = Gate::before(app.url());
        let seen = app.record();
        let heard = say(&gate, &bytes, 1).await;
        if heard.iter().all(|status| *status >= 400) {
            assert_eq!(seen.lines(), [""; 0], "refused, and nothing of it seen: {bytes:?}");
            continue;
        }
        assert_eq!(heard, [200], "{bytes:?}");
        passed += 1;
        assert_eq!(seen.lines(), lines, "{bytes:?}");
        for connection in seen.bytes() {
            assert_eq!(found_by_another(connection).await, lines, "{bytes:?}");
        }
    }
    assert!(passed > 55, "{passed}");
}
