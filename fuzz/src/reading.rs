//! A whole callback under the rules of the Invoice Ninja preset: which rule takes it, what it says, by which keys it is known.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    sync::LazyLock,
};

use http::{HeaderMap, HeaderValue, header::HOST};
use oncegate::{
    callback::Channel,
    config::{Loaded, World},
    intake::reading::{Reading, Rulebook, Whole, refused},
    provider::PROVIDERS,
    time::Timestamp,
};

use super::request::{Request, recorded};

pub(super) static BOOK: LazyLock<Rulebook> = LazyLock::new(|| {
    let world = World {
        env: &|_| None,
        file: &|_| Err(io::Error::from(io::ErrorKind::NotFound)),
        readable_by_all: &|_| false,
        providers: PROVIDERS,
    };
    let config = Loaded::from_text("config.toml", "preset = 'invoice-ninja'\n", &world).into_config();
    let keyrings = recorded().into_iter().map(|of| (of.provider.name, of.keyring)).collect();
    Rulebook::new(config.expect("the preset is sound").rules, keyrings, "app")
});

/// The moment at which most of what is recorded came.
const NOW: Timestamp = Timestamp::from_millis(1_775_000_002_000);

pub fn try_it(bytes: &[u8]) {
    let Some(request) = Request::parse(bytes) else { return };
    let Some(read) = read(&request, &request.headers) else { return };
    assert_eq!(read, self::read(&request, &request.headers).expect("a callback"), "read twice");
    // What nobody reads changes nothing.
    let mut headers = request.headers.clone();
    headers.append("x-nobody-reads-this", HeaderValue::from_static("1"));
    assert_eq!(read, self::read(&request, &headers).expect("a callback"), "with a field more");
}

/// What becomes of it, as a text in which everything stands.
fn read(request: &Request, headers: &HeaderMap) -> Option<String> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let source = IpAddr::from(Ipv4Addr::LOCALHOST);
    let Request { method, uri, body, .. } = request;
    let whole = Whole { method, uri, headers, body, host, source };
    let route = BOOK.rules.classify(&whole.head())?;
    let reading = Reading::of(&route, &whole, &BOOK, NOW);
    let says = reading.statements.as_ref().map_or(true, |all| !all.is_empty());
    assert!(says || route.channel == Channel::Return, "a webhook says something, or why nothing can be read");
    let keys = reading.arriving().len();
    Some(format!("{:?} {keys} {:?} {:?}", refused(&reading), reading.locks(), reading))
}

pub fn seeds() -> Vec<Vec<u8>> {
    // Where the preset looks for them.
    let moved = |raw: Vec<u8>| {
        let text = String::from_utf8_lossy(&raw).into_owned();
        let mut words = text.splitn(3, ' ');
        let (method, rest) = (words.next()?.to_owned(), words.nth(1)?.to_owned());
        Some(format!("{method} /payment_webhook/company/gateway {rest}").into_bytes())
    };
    let hooks = recorded().into_iter().flat_map(|of| of.requests).filter_map(|(raw, _)| moved(raw));
    let back = b"GET /payments/process/response?company_gateway_id=1&payment_hash=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa&\
        payment_method_id=2 HTTP/1.1\r\nHost: pay.example\r\nCookie: laravel_session=abc\r\n\r\n";
    hooks.chain([back.to_vec()]).collect()
}
