//! What nobody thought of: inputs that are changed at random, over the wire. Each run tries a few hundred;
//! `PROPTEST_CASES=100000 cargo nextest run fuzz` tries more.

use std::{
    panic,
    sync::{
        Once,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, TestRunner},
};
use tokio_rustls::rustls::{ClientConnection, pki_types::ServerName};

use crate::{
    backends::odd_frames,
    hostile::{broken_chunks, refused, understood},
    http2::{frames_out_of_place, hostile_requests},
    support::{
        App, Authority, Gate, Office, Standing, Wire,
        authority::handshake,
        frames::{END_STREAM, asks, hello},
        gate::Setup,
        office::BRACKETS,
        standing::connect,
        wire::soon,
    },
};

const GET: &str = "GET /last HTTP/1.1\r\nHost: a\r\n\r\n";

/// One change to some bytes; where, is a part of their length.
#[derive(Clone, Debug)]
enum Change {
    Set(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, Index),
    Repeat(Index, Index),
    End(Index),
}

impl Change {
    fn any() -> impl Strategy<Value = Self> {
        let place = any::<Index>;
        // What decides about framing, more often than its share.
        let marks =
            ["\r\n", "\n", "\r", "\0", ":", " ", "\t", ",", ";", "0", "\r\n\r\n", "0\r\n\r\n", "chunked", "-", "+"];
        prop_oneof![
            (place(), any::<u8>()).prop_map(|(at, byte)| Self::Set(at, byte)),
            (place(), prop::sample::select(marks.to_vec())).prop_map(|(at, mark)| Self::Insert(at, mark.into())),
            (place(), prop::collection::vec(any::<u8>(), 1..6)).prop_map(|(at, bytes)| Self::Insert(at, bytes)),
            (place(), place()).prop_map(|(from, to)| Self::Remove(from, to)),
            (place(), place()).prop_map(|(from, to)| Self::Repeat(from, to)),
            place().prop_map(Self::End),
        ]
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        let at = |index: &Index| index.index(bytes.len().max(1)).min(bytes.len());
        // No more than a line or so: most of what is there stays what it is.
        let span = |from: &Index, to: &Index| at(from)..at(from).max(at(to)).min(at(from) + 30);
        match self {
            Self::Set(index, byte) => {
                let at = at(index);
                if let Some(changed) = bytes.get_mut(at) {
                    *changed = *byte;
                }
            }
            Self::Insert(index, more) => drop(bytes.splice(at(index)..at(index), more.iter().copied())),
            Self::Remove(from, to) => drop(bytes.drain(span(from, to))),
            Self::Repeat(from, to) => {
                let (again, at) = (bytes[span(from, to)].to_vec(), at(from));
                bytes.splice(at..at, again);
            }
            Self::End(index) => bytes.truncate(at(index)),
        }
    }
}

/// One of these, with some changes.
pub fn changed(from: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (prop::sample::select(from), prop::collection::vec(Change::any(), 1..5)).prop_map(|(mut bytes, changes)| {
        changes.iter().for_each(|change| change.apply(&mut bytes));
        bytes
    })
}

/// How often our own code has panicked; tasks keep that to themselves.
fn panics() -> usize {
    static COUNTING: Once = Once::new();
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    COUNTING.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if info.location().is_some_and(|location| !location.file().starts_with("tests/")) {
                COUNT.fetch_add(1, Ordering::Relaxed);
            }
            usual(info);
        }));
    });
    COUNT.load(Ordering::Relaxed)
}

/// Tries so many, unless more are asked for.
fn each<S: Strategy>(cases: u32, strategy: &S, try_it: impl AsyncFn(S::Value)) {
    let usual = Config::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { usual.cases } else { cases };
    let config = Config { cases, failure_persistence: None, ..usual };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let before = panics();
    TestRunner::new(config)
        .run(strategy, |value| {
            runtime.block_on(try_it(value));
            assert_eq!(panics(), before, "the gate panicked");
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

/// Says it, gives an answer a moment, hangs up, and sees the connection end.
async fn say(mut wire: Wire, bytes: &[u8]) {
    wire.offer(bytes).await;
    let _ = tokio::time::timeout(Duration::from_millis(2), wire.piece(1)).await;
    wire.leave().await;
    wire.bytes().await;
}

/// Whatever the app was sent is sound, and the gate goes on.
async fn is_well_after(bytes: &[u8], prepare: impl Fn(&mut Setup)) {
    let app = App::start().await;
    let mut setup = Setup::to(app.url());
    prepare(&mut setup);
    let begin = if setup.listener.proxy_protocol.is_empty() { "" } else { "PROXY UNKNOWN\r\n" };
    let gate: Gate = setup.start();
    let seen = app.record();
    say(gate.client().await, bytes).await;
    let mut next = gate.client().await;
    next.write(begin.to_owned() + GET).await;
    assert_eq!(next.message().await.0.status(), 200);
    // A strict reader panics over what he could take for two things.
    assert_eq!(seen.lines().last().unwrap(), "GET /last HTTP/1.1");
    for connection in seen.bytes() {
        let text = String::from_utf8_lossy(&connection).to_ascii_lowercase();
        let clients = text.matches("\r\nx-forwarded-for: ").count();
        let requests = text.matches("\r\nx-forwarded-proto: ").count();
        assert_eq!(clients, requests, "one client for each request: {text}");
    }
}

#[test]
fn whatever_is_said_in_http_1_leaves_the_gate_well_and_the_app_with_whole_requests() {
    let understood = understood().into_iter().map(|(input, _)| input);
    let said = understood.chain(refused()).chain(broken_chunks()).map(String::into_bytes).collect();
    each(300, &changed(said), async |bytes| is_well_after(&bytes, |_| {}).await);
}

#[test]
fn whatever_is_said_in_http_2_leaves_the_gate_well_and_the_app_with_whole_requests() {
    let odd = odd_frames().into_iter().map(|(frames, _)| frames);
    let hostile = hostile_requests().into_iter().map(|fields| asks(1, END_STREAM, &fields));
    let out_of_place = frames_out_of_place().into_iter().map(|frames| frames.concat());
    let said = odd.chain(hostile).chain(out_of_place).collect();
    // The greeting stays, or it would be HTTP/1.
    let strategy = changed(said).prop_map(|bytes| [hello(), bytes].concat());
    each(300, &strategy, async |bytes| is_well_after(&bytes, |_| {}).await);
}

#[test]
fn whatever_a_balancer_says_of_its_client_is_one_client_or_none() {
    let line = "PROXY TCP4 192.0.2.7 203.0.113.1 12345 443\r\n";
    let binary =
        [b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", &[192, 0, 2, 7, 203, 0, 113, 1, 0x30, 0x39, 1, 0xbb][..]].concat();
    let said = vec![line.into(), "PROXY TCP6 2001:db8::7 2001:db8::1 1 2\r\n".into(), binary];
    let strategy = changed(said).prop_map(|bytes| [&bytes, GET.as_bytes()].concat());
    each(300, &strategy, async |bytes| {
        is_well_after(&bytes, |setup| setup.listener.proxy_protocol = vec!["127.0.0.0/8".parse().unwrap()]).await;
    });
}

#[test]
fn whatever_begins_a_handshake_leaves_the_gate_well() {
    let authority = Authority::new();
    let table = authority.issue("pay", &["pay.example"]).table("127.0.0.1:0");
    let begins = |protocols: &[&str]| {
        let name = ServerName::try_from("pay.example").unwrap();
        let mut client = ClientConnection::new(authority.believer(protocols), name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        hello
    };
    let said = vec![begins(&["h2", "http/1.1"]), begins(&["acme-tls/1"]), begins(&[])];
    let believer = authority.believer(&["http/1.1"]);
    each(150, &changed(said), async |bytes| {
        let office = Office::open().await;
        let gate = Standing::before(&office.url(), &table).await;
        let _seen = office.answer_all(BRACKETS);
        let address = gate.running.addresses[1];
        say(connect(address).await, &bytes).await;
        let stream = soon(tokio::net::TcpStream::connect(address)).await.unwrap();
        let mut honest = Wire::new(handshake(stream, &believer, "pay.example").await.unwrap());
        honest.write(GET).await;
        assert_eq!(honest.answer().await.1, "[]");
    });
}
