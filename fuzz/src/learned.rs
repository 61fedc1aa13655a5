//! What the head of an app's answer teaches under the Invoice Ninja preset, and what a payer's cookies bring back.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use oncegate::rule::{Head, Learn};

use super::reading::BOOK;

/// What the preset reads from the answers of the portal.
fn learn() -> Arc<Learn> {
    let (uri, headers) = (Uri::from_static("/client/payments/process"), HeaderMap::new());
    let source = std::net::Ipv4Addr::LOCALHOST.into();
    let head = Head { method: &Method::POST, uri: &uri, headers: &headers, host: HOST, source };
    BOOK.rules.learns(&head).expect("the preset learns there")
}

const HOST: &str = "pay.example";

pub fn try_it(bytes: &[u8]) {
    let Some((status, headers)) = parse(bytes) else { return };
    let learn = learn();
    for method in [Method::GET, Method::POST] {
        let told = learn.read(&method, HOST, status, &headers);
        assert_eq!(told, learn.read(&method, HOST, status, &headers), "read twice");
        let declared: Vec<_> = learn.names.iter().map(|(kind, _)| kind).collect();
        let mut kinds: Vec<_> = told.names.iter().map(|(kind, _)| kind).collect();
        assert!(kinds.iter().all(|kind| declared.contains(kind)), "no kind that nobody declared");
        kinds.dedup();
        assert_eq!(kinds.len(), told.names.len(), "of each kind one");
        assert!(told.names.is_empty() || !(told.unread || told.unseen), "what is named is neither unread nor unseen");
        assert!(told.names.iter().all(|(_, name)| !name.is_empty()), "no name is empty");
        // Where nobody is sent nothing is told of whom he is sent to.
        let mut stays = headers.clone();
        stays.remove("location");
        assert_eq!(learn.read(&method, HOST, status, &stays).names, [], "without an address");
    }
    // A session that is given is the one that the browser brings back.
    for (kind, value) in learn.sessions_set(&headers) {
        let line = [&b"invoice_ninja_session="[..], value].concat();
        let Ok(cookie) = HeaderValue::from_bytes(&line) else { continue };
        let back = HeaderMap::from_iter([(http::header::COOKIE, cookie)]);
        assert_eq!(learn.sessions_of(&back), [(kind, value)], "brought back");
    }
}

/// An answer's head, a line each.
fn parse(bytes: &[u8]) -> Option<(StatusCode, HeaderMap)> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut answer = httparse::Response::new(&mut fields);
    let Ok(httparse::Status::Complete(_)) = answer.parse(bytes) else { return None };
    let mut headers = HeaderMap::new();
    for field in answer.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    Some((StatusCode::from_u16(answer.code?).ok()?, headers))
}

pub fn seeds() -> Vec<Vec<u8>> {
    let answer = |rest: &str| format!("HTTP/1.1 302 Found\r\n{rest}\r\n\r\n").into_bytes();
    vec![
        answer(
            "location: https://www.mollie.com/checkout/select-issuer/ideal/7UhSN1zuXS\r\n\
             set-cookie: invoice_ninja_session=abc%3D; path=/; httponly",
        ),
        answer("location: https://pay.mollie.com/tr_7UhSN1zuXS?x=1"),
        answer("location: https://pay.gocardless.com/billing/static/flow?id=BRF123"),
        answer("location: /client/invoices?id=1\r\nset-cookie: a_session=; expires=Thu, 01 Jan 1970 00:00:00 GMT"),
        answer("location: https://pay.example/client/payments"),
        answer("location: https://elsewhere.example/\r\nset-cookie: x_session=1\r\nset-cookie: x_session=2"),
        b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n".to_vec(),
    ]
}
