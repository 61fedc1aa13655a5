//! The hostile inputs once more, before two real web servers: what the gate does not refuse is one request to both, and
//! the same, and nothing of it is left on a connection.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::{
    hostile::{broken_chunks, refused, understood},
    http2::{frames_out_of_place, hostile_requests},
    support::{
        Standing, Wire,
        backend::{Backend, Taken},
        frames::{
            CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS,
            WINDOW_UPDATE, asks, block, frame, hello, request,
        },
        wire::soon,
    },
};

/// What became of one input.
#[derive(Debug)]
struct Tried {
    /// What was answered to it first.
    answer: Option<(u16, String)>,
    /// What the app took for requests.
    taken: Vec<Taken>,
}

async fn connect(gate: SocketAddr) -> Wire {
    Wire::new(soon(TcpStream::connect(gate)).await.unwrap())
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: probe\r\n\r\n")
}

/// The next answer that is one; nothing at the end.
async fn answer(wire: &mut Wire) -> Option<(u16, String)> {
    loop {
        let head = wire.try_head().await?;
        if head.status() >= 200 {
            return Some((head.status(), wire.body_after(&head).await));
        }
    }
}

/// Another caller's request over the same connections to the app; it has to be answered as itself.
async fn is_itself(gate: SocketAddr, target: &str, after: &str) {
    let mut wire = connect(gate).await;
    wire.write(get(target)).await;
    assert_eq!(answer(&mut wire).await, Some((200, target.to_owned())), "after {after}");
}

/// What a server took since the last look, without the request of this target, and whether it took that.
async fn taken(backend: &mut Backend, next: &str, probe: &str) -> (Vec<Taken>, bool) {
    let mut taken = backend.taken_before(probe).await;
    let is_there = taken.iter().any(|taken| taken.target() == next);
    taken.retain(|taken| taken.target() != next);
    (taken, is_there)
}

/// Says it with a request right behind it, and then another caller says one.
async fn tried(gate: SocketAddr, backend: &mut Backend, number: usize, input: &str) -> Tried {
    let (next, probe) = (format!("/next/{number}"), format!("/probe/{number}"));
    let mut wire = connect(gate).await;
    wire.offer(input.to_owned() + &get(&next)).await;
    let mut answers = Vec::new();
    while answers.len() < 2
        && let Some(answer) = answer(&mut wire).await
    {
        answers.push(answer);
    }
    is_itself(gate, &probe, input).await;
    let (taken, next_is_taken) = taken(backend, &next, &probe).await;
    if answers.len() == 2 {
        assert_eq!(answers[1], (200, next), "{}: {input:?}", backend.name);
    }
    assert_eq!(next_is_taken, answers.len() == 2, "{}: {answers:?} {input:?}", backend.name);
    Tried { answer: answers.into_iter().next(), taken }
}

async fn all_tried(rules: &str, backend: &mut Backend, inputs: &[String]) -> Vec<Tried> {
    let gate = Standing::before(&backend.url(), rules).await;
    let mut all = Vec::new();
    for (number, input) in inputs.iter().enumerate() {
        all.push(tried(gate.v4(), backend, number, input).await);
    }
    all
}

/// Asserts that both apps took one request, and the same, or that the gate let none through; says whether they did.
///
/// Either may refuse what it understood: nginx knows no methods in lower case.
fn is_one_and_the_same([nginx, apache]: [&Tried; 2], input: &str) -> bool {
    let both = format!("{input}\n{nginx:?}\n{apache:?}");
    match (&nginx.taken[..], &apache.taken[..]) {
        ([], []) => {
            for tried in [nginx, apache] {
                assert!(tried.answer.as_ref().is_none_or(|(status, _)| (400..=505).contains(status)), "{both}");
            }
            false
        }
        ([one], [same]) if one.whole && same.whole => {
            assert_eq!(one, same, "{both}");
            assert!(one.body == "hello" || !input.contains("hello"), "{both}");
            true
        }
        ([one], [same]) => {
            assert_eq!(one.line, same.line, "{both}");
            assert!(
                ["get ", "OPTIONS * ", "GET /../", "GET /%2e%2e/"].iter().any(|l| one.line.starts_with(l)),
                "{both}"
            );
            true
        }
        _ => panic!("{both}"),
    }
}

/// Nothing is a callback; all is one, and then its body is read whole before anybody hears of it. (What has a head that is
/// refused comes to neither.)
const WAYS: [&str; 2] = [
    "",
    "[[rule]]\npath = '/{all*}'\nchannel = 'webhook'\nreference = 'header:x-reference'\nhold = '0s'\n\
",
];

#[tokio::test]
async fn what_is_said_in_http_1_is_refused_or_one_request_to_two_real_servers_and_the_same() {
    let odd: Vec<_> = understood().into_iter().map(|(input, _)| input).collect();
    let mut said = 0;
    for (rules, refused) in WAYS.into_iter().zip([refused(), Vec::new()]) {
        let Some([mut nginx, mut apache]) = Backend::both() else { return };
        // Broken ones last: of what has begun, a server tells when it likes.
        let inputs = [&odd[..], &refused, &broken_chunks()].concat();
        let broken_from = inputs.len() - broken_chunks().len();
        said = said.max(inputs.len());
        let (nginx, apache) =
            tokio::join!(all_tried(rules, &mut nginx, &inputs), all_tried(rules, &mut apache, &inputs));
        let mut passed = 0;
        for (number, (input, both)) in inputs.iter().zip(nginx.iter().zip(&apache)).enumerate() {
            if number < broken_from {
                passed += usize::from(is_one_and_the_same(both.into(), input));
                continue;
            }
            for tried in [both.0, both.1] {
                assert!(tried.taken.iter().all(|taken| !taken.whole && rules.is_empty()), "{input:?} {tried:?}");
                assert!(tried.answer.as_ref().is_none_or(|(status, _)| *status == 400), "{input:?} {tried:?}");
            }
        }
        assert!((55..=odd.len()).contains(&passed), "{passed} of {}", odd.len());
    }
    assert!(said > 250, "{said}");
}

/// What is odd in HTTP/2, and what an app hears of it, if anything: a method, a target, a host, a body.
pub fn odd_frames() -> Vec<(Vec<u8>, Option<[&'static str; 4]>)> {
    let a = Some(["GET", "/a", "pay.example", ""]);
    let posted = Some(["POST", "/a", "pay.example", "hello"]);
    let with = |fields: &[(&'static str, &'static str)]| {
        asks(1, END_STREAM, &[request("GET", "/a"), fields.to_vec()].concat())
    };
    let at = |target| asks(1, END_STREAM, &request("GET", target));
    let post = |fields: &[(&'static str, &'static str)], rest: &[&[u8]]| {
        [asks(1, 0, &[request("POST", "/a"), fields.to_vec()].concat()), rest.concat()].concat()
    };
    let end = |bytes: &[u8]| frame(DATA, END_STREAM, 1, bytes);
    let part = |bytes: &[u8]| frame(DATA, 0, 1, bytes);
    let trailers = |fields: &[(&str, &str)]| asks(1, END_STREAM, fields);
    let head = block(&request("GET", "/a"));
    let mut all = vec![
        // The same block in other clothes.
        (frame(HEADERS, END_HEADERS | END_STREAM | 8, 1, &[&[3], &head[..], &[0; 3]].concat()), a),
        (frame(HEADERS, END_HEADERS | END_STREAM | 0x20, 1, &[&[0, 0, 0, 0, 9], &head[..]].concat()), a),
        (frame(HEADERS, END_HEADERS | END_STREAM | 0x80, 1, &head), a),
        ([frame(HEADERS, END_STREAM, 1, &head[..9]), frame(CONTINUATION, END_HEADERS, 1, &head[9..])].concat(), a),
        ([frame(HEADERS, END_STREAM, 1, &head), frame(CONTINUATION, END_HEADERS, 1, &[])].concat(), a),
        (frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&[0x20], &head[..]].concat()), a),
        // Other frames between.
        ([frame(PING, 0, 0, &[7; 8]), with(&[])].concat(), a),
        ([frame(0x42, 0xff, 1, b"unknown"), with(&[])].concat(), a),
        ([frame(SETTINGS, 0, 0, &[0, 0x42, 0, 0, 0, 1]), with(&[])].concat(), a),
        ([frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]), with(&[])].concat(), a),
        ([frame(PRIORITY, 0, 5, &[0, 0, 0, 0, 1]), with(&[])].concat(), a),
        ([frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 9]), with(&[])].concat(), a),
        ([with(&[]), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 9])].concat(), a),
        // Bodies.
        (post(&[], &[&end(b"hello")]), posted),
        (post(&[("content-length", "5")], &[&end(b"hello")]), posted),
        (post(&[("content-length", "005")], &[&end(b"hello")]), posted),
        (post(&[], &[&part(b"h"), &part(b""), &part(b"ello"), &end(b"")]), posted),
        (post(&[], &[&frame(DATA, END_STREAM | 8, 1, b"\x02hello\0\0")]), posted),
        (post(&[], &[&part(b"hello"), &trailers(&[("x-sum", "7")])]), posted),
        (post(&[], &[&part(b"hello"), &trailers(&[("host", "evil"), ("content-length", "50")])]), posted),
        (post(&[("expect", "100-continue")], &[&end(b"hello")]), posted),
        (post(&[("content-length", "4")], &[&end(b"hello")]), None),
        (post(&[("content-length", "6")], &[&end(b"hello")]), None),
        (post(&[], &[&part(b"hello"), &trailers(&[(":path", "/b")])]), posted),
        (
            post(&[], &[&end(b"5\r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n")]),
            Some(["POST", "/a", "pay.example", "5\r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n"]),
        ),
    ];
    for fields in [
        &[("host", "pay.example")][..],
        &[("te", "trailers")],
        &[("cookie", "a=1"), ("cookie", "b=2")],
        &[("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=6.6.6.6")],
        &[("x", "\u{e9}")],
        &[("x", "")],
        &[("x", "1"), ("x", "2")],
        &[("transfer_encoding", "chunked")],
        &[("content-length", "0")],
        &[("http2-settings", "AAMAAABkAAQCAAAAAAIAAAAA")],
        &[("proxy-authorization", "x")],
        &[("x-http-method-override", "POST")],
        &[("range", "bytes=0-0")],
    ] {
        all.push((with(fields), a));
    }
    for target in ["//a", "/a%0d%0aX:y", "/a;x=y", "/a\\b", "/a?b=c|d", "/a?b?c", "/a%2fb", "/a?b&http://c/"] {
        all.push((at(target), Some(["GET", target, "pay.example", ""])));
    }
    all.push((at("/a?b#c"), Some(["GET", "/a?b", "pay.example", ""])));
    all.push((asks(1, END_STREAM, &request("FOO", "/a")), Some(["FOO", "/a", "pay.example", ""])));
    all
}

/// Says it, then asks something on the same connection if there still is one, and then another caller does.
async fn frames_tried(gate: SocketAddr, backend: &mut Backend, number: usize, input: &[u8]) -> Tried {
    let (next, probe) = (format!("/next/{number}"), format!("/probe/{number}"));
    let mut wire = connect(gate).await;
    wire.offer([&hello(), input].concat()).await;
    let answer = wire.outcome(1).await.map(|status| (status, String::new()));
    let fields = [(":method", "GET"), (":scheme", "http"), (":path", &*next), (":authority", "probe")];
    wire.offer(asks(99, END_STREAM, &fields)).await;
    let mut text = Vec::new();
    while let Some(frame) = wire.frame_of(&[DATA, RST_STREAM, GOAWAY]).await {
        match frame.kind {
            DATA if frame.stream == 99 => text.extend_from_slice(&frame.payload),
            GOAWAY => break,
            _ => {}
        }
        if frame.stream == 99 && frame.flags & END_STREAM != 0 {
            break;
        }
    }
    is_itself(gate, &probe, &format!("{input:x?}")).await;
    let (taken, next_is_taken) = taken(backend, &next, &probe).await;
    assert_eq!(String::from_utf8_lossy(&text), if next_is_taken { &next } else { "" }, "{}: {input:x?}", backend.name);
    Tried { answer, taken }
}

async fn all_frames_tried(backend: &mut Backend, inputs: &[Vec<u8>]) -> Vec<Tried> {
    let gate = Standing::before(&backend.url(), "").await;
    let mut all = Vec::new();
    for (number, input) in inputs.iter().enumerate() {
        all.push(frames_tried(gate.v4(), backend, number, input).await);
    }
    all
}

#[tokio::test]
async fn what_is_said_in_http_2_is_refused_or_one_request_to_two_real_servers_and_the_same() {
    let Some([mut nginx, mut apache]) = Backend::both() else { return };
    let odd = odd_frames();
    let hostile = hostile_requests().into_iter().map(|fields| asks(1, END_STREAM, &fields));
    let out_of_place = frames_out_of_place().into_iter().map(|frames| frames.concat());
    let inputs: Vec<_> = odd.iter().map(|(input, _)| input.clone()).chain(hostile).chain(out_of_place).collect();
    assert!(inputs.len() > 130, "{}", inputs.len());
    let (nginx, apache) = tokio::join!(all_frames_tried(&mut nginx, &inputs), all_frames_tried(&mut apache, &inputs));
    for ((number, input), (nginx, apache)) in inputs.iter().enumerate().zip(nginx.iter().zip(&apache)) {
        let both = format!("{}\n{nginx:?}\n{apache:?}", String::from_utf8_lossy(input));
        let expected = odd.get(number).and_then(|(_, expected)| expected.as_ref());
        for tried in [nginx, apache] {
            match (expected, &tried.taken[..]) {
                (None, []) => assert!(tried.answer.as_ref().is_none_or(|(status, _)| *status >= 400), "{both}"),
                (Some([method, target, host, body]), [one]) => {
                    assert!(one.whole, "{both}");
                    assert_eq!(one.line, format!("{method} {target} HTTP/1.1"), "{both}");
                    assert_eq!((&*one.host, &*one.body), (*host, *body), "{both}");
                }
                _ => panic!("{both}"),
            }
        }
    }
}
