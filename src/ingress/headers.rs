//! Which requests are refused for their form, and how the head of a message is rebuilt for the next hop.
//!
//! hyper parses strictly and forwards what it is given; framing and routing are ours. No `Via` is added: of a gateway
//! RFC 9110 asks none towards the app, and apps have been seen to change their answers (no compression) at its sight.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version,
    header::{
        AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
        COOKIE, EXPECT, HOST, MAX_FORWARDS, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
    request, response,
    uri::PathAndQuery,
};
use hyper::body::Body;

use super::forwarded::Client;
use crate::upstream::is_hop_by_hop;

/// Why a request is refused before anyone looks at what it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `CONNECT` makes a tunnel, and this is no proxy for tunnels.
    #[error("CONNECT is not served here")]
    Connect,
    /// The target is neither a path nor an http URL, or has a user name in it.
    #[error("the request target is malformed")]
    Target,
    /// There is no `Host`, more than one, or none that is valid.
    #[error("exactly one valid Host is needed")]
    Host,
    /// `Host` and the target name two hosts.
    #[error("Host and the request target disagree")]
    TwoHosts,
    /// The body is framed by anything but one `Transfer-Encoding: chunked`.
    #[error("the transfer coding is not supported")]
    TransferEncoding,
    /// More than one length, or one with a transfer coding.
    #[error("the length is ambiguous")]
    Length,
    /// A field of HTTP/2 whose value begins or ends with blanks.
    #[error("a field's value begins or ends with blanks")]
    Padding,
    /// More fields than allowed.
    #[error("there are too many fields")]
    TooMany,
    /// An HTTP/1.0 request whose method has a body, and which does not say how long it is.
    #[error("a length is required")]
    LengthRequired,
}

impl Refusal {
    /// The status that says so.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Target | Self::Host | Self::TwoHosts | Self::TransferEncoding | Self::Length | Self::Padding => {
                StatusCode::BAD_REQUEST
            }
            Self::TooMany => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::LengthRequired => StatusCode::LENGTH_REQUIRED,
        }
    }
}

/// Refuses what must not be passed on, and what two readers could understand in two ways.
///
/// A length beside a transfer coding never gets here: hyper drops the length, reads the chunks and closes after the
/// answer, so that the next hop sees one framing only.
///
/// # Errors
/// With the reason.
pub fn admit<B>(request: &Request<B>) -> Result<(), Refusal> {
    let headers = request.headers();
    if request.method() == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    check_target(request.method(), request.uri())?;
    check_host(request.uri(), headers)?;
    check_framing(request, headers)
}

/// The same for a request of HTTP/2, which is first put into the form that HTTP/1 has: `Host` from the authority, cookies
/// in one line.
///
/// # Errors
/// With the reason.
pub fn admit_http2<B>(request: &mut Request<B>, max_headers: usize) -> Result<(), Refusal> {
    if request.headers().len() > max_headers {
        return Err(Refusal::TooMany);
    }
    // The library lets them through, and a reader of HTTP/1 would drop them: two readers, two values.
    let padded = |value: &HeaderValue| value.as_bytes().trim_ascii().len() != value.len();
    if request.headers().values().any(padded) {
        return Err(Refusal::Padding);
    }
    let authority = request.uri().authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok());
    if let Some(authority) = authority {
        request.headers_mut().entry(HOST).or_insert(authority);
    }
    join_cookies(request.headers_mut());
    admit(request)
}

/// HTTP/2 may cut cookies into pieces (RFC 9113 §8.2.3); HTTP/1 has one line.
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let pieces: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // Of valid pieces it is valid.
    if let Ok(whole) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        headers.insert(COOKIE, whole);
    }
}

fn check_target(method: &Method, uri: &Uri) -> Result<(), Refusal> {
    let absolute = match (uri.scheme_str(), uri.authority()) {
        (None, None) => false,
        (Some("http" | "https"), Some(authority)) if !authority.as_str().contains('@') => true,
        _ => return Err(Refusal::Target),
    };
    let path = uri.path();
    if path.starts_with('/') || (path == "*" && method == Method::OPTIONS && !absolute) {
        Ok(())
    } else {
        Err(Refusal::Target)
    }
}

fn check_host(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(Refusal::Host) };
    if !is_authority(host.as_bytes()) {
        return Err(Refusal::Host);
    }
    match uri.authority() {
        Some(authority) if !authority.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()) => {
            Err(Refusal::TwoHosts)
        }
        _ => Ok(()),
    }
}

fn check_framing<B>(request: &Request<B>, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let chunked = match (codings.next(), codings.next()) {
        (None, _) => false,
        (Some(only), None) if only.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") => true,
        _ => return Err(Refusal::TransferEncoding),
    };
    let lengths = headers.get_all(CONTENT_LENGTH).iter().count();
    if lengths > 1 || (chunked && lengths > 0) {
        return Err(Refusal::Length);
    }
    let has_body = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    if has_body && request.version() == Version::HTTP_10 && lengths == 0 {
        return Err(Refusal::LengthRequired);
    }
    Ok(())
}

/// Whether this is a host, or a host and a port, and nothing that anyone could take for something else.
pub(super) fn is_authority(text: &[u8]) -> bool {
    let (host, rest) = if text.first() == Some(&b'[') {
        let Some(end) = text.iter().position(|b| *b == b']') else { return false };
        let address = std::str::from_utf8(&text[1..end]).ok().and_then(|a| a.parse::<std::net::Ipv6Addr>().ok());
        if address.is_none() {
            return false;
        }
        (&text[..end], &text[end + 1..])
    } else {
        let end = text.iter().position(|b| *b == b':').unwrap_or(text.len());
        if !text[..end].iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~')) {
            return false;
        }
        text.split_at(end)
    };
    let port_is_fine = match rest.split_first() {
        None => true,
        Some((b':', port)) => port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        Some(_) => false,
    };
    !host.is_empty() && port_is_fine
}

/// Whether a field of this name frames or routes a message.
pub(super) fn is_reserved(name: &str) -> bool {
    name == CONTENT_LENGTH.as_str() || name == HOST.as_str() || is_hop_by_hop(name)
}

/// The protocol that a request asks to change to, if it may: HTTP/1.1, without a body, one protocol, and not HTTP/2.
#[must_use]
pub fn wanted_upgrade<B: Body>(request: &Request<B>) -> Option<HeaderValue> {
    let headers = request.headers();
    let mut values = headers.get_all(UPGRADE).iter();
    let (Some(protocol), None) = (values.next(), values.next()) else { return None };
    let fits = request.version() == Version::HTTP_11
        && request.body().is_end_stream()
        && names(headers, "upgrade")
        && !protocol.as_bytes().contains(&b',')
        && !protocol.as_bytes().get(..2).is_some_and(|start| start.eq_ignore_ascii_case(b"h2"));
    fits.then(|| protocol.clone())
}

/// Whether `Connection` names this option.
fn names(headers: &HeaderMap, option: &str) -> bool {
    connection_options(headers).any(|o| o.eq_ignore_ascii_case(option))
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|v| std::str::from_utf8(v.as_bytes()).ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
}

/// Strips `Connection`, all that it names, and the fixed set.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = connection_options(headers)
            .filter(|o| !o.eq_ignore_ascii_case("close") && !o.eq_ignore_ascii_case("keep-alive"))
            .filter_map(|o| HeaderName::from_bytes(o.as_bytes()).ok())
            .filter(|name| *name != HOST)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    remove_all(headers, |name| is_hop_by_hop(name.as_str()));
}

/// Removes the fields with such names; most messages have none, and then this is one look at each name.
pub(super) fn remove_all(headers: &mut HeaderMap, doomed: impl Fn(&HeaderName) -> bool) {
    let doomed: Vec<HeaderName> = headers.keys().filter(|name| doomed(name)).cloned().collect();
    for name in doomed {
        headers.remove(name);
    }
}

/// Rebuilds the head of a request for the app: origin form, HTTP/1.1, one framing, one client.
///
/// `body` is what will be sent; whoever sends it frames it. `Expect: 100-continue` is answered by us when the body is
/// first asked for, and not passed on. `TE: trailers` is renewed, so that the app may send trailers.
pub fn rebuild_request(parts: &mut request::Parts, client: &Client, body: &impl Body, upgrade: Option<&HeaderValue>) {
    to_origin_form(&mut parts.uri);
    parts.version = Version::HTTP_11;
    let headers = &mut parts.headers;
    let wants_trailers = te_trailers(headers);
    strip_hop_by_hop(headers);
    if headers.get(EXPECT).is_some_and(|e| e.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        headers.remove(EXPECT);
    }
    frame_request(headers, body);
    client.write(headers);
    if let Some(protocol) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    } else if wants_trailers {
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

fn te_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(TE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

fn to_origin_form(uri: &mut Uri) {
    if uri.authority().is_some() {
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        *uri = Uri::from(path);
    }
}

/// What frames the body is written by whoever sends it; trailers can be announced only where they can be sent.
fn frame_request(headers: &mut HeaderMap, body: &impl Body) {
    headers.remove(CONTENT_LENGTH);
    if headers.contains_key(TRAILER) {
        match body.size_hint().exact() {
            Some(_) => drop(headers.remove(TRAILER)),
            None => filter_announced(headers),
        }
    }
}

/// The app's answer cannot be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// It changes to a protocol that nobody asked for.
    #[error("the answer changes to a protocol that nobody asked for")]
    Upgrade,
}

/// Rebuilds the head of the app's answer for the client. Its framing has been found plain by whoever read it.
///
/// # Errors
/// If the answer cannot be passed on.
pub fn rebuild_response(parts: &mut response::Parts, upgrade: Option<&HeaderValue>) -> Result<(), BadAnswer> {
    parts.version = Version::HTTP_11;
    let headers = &mut parts.headers;
    let switched = parts.status == StatusCode::SWITCHING_PROTOCOLS;
    if switched {
        let matching = match (upgrade, headers.get(UPGRADE)) {
            (Some(wanted), Some(given)) => wanted.as_bytes().eq_ignore_ascii_case(given.as_bytes()),
            _ => false,
        };
        if !matching {
            return Err(BadAnswer::Upgrade);
        }
    }
    // Where both stand there, the chunks are what counted.
    if headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    strip_hop_by_hop(headers);
    if headers.contains_key(TRAILER) {
        filter_announced(headers);
    }
    if let (true, Some(protocol)) = (switched, upgrade) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, protocol.clone());
    }
    Ok(())
}

/// Keeps of `Trailer` the names that [`filter_trailers`] lets through.
fn filter_announced(headers: &mut HeaderMap) {
    let kept: Vec<&str> = headers
        .get_all(TRAILER)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .filter(|name| HeaderName::from_bytes(name.as_bytes()).is_ok_and(|name| may_trail(&name)))
        .collect();
    let kept = (!kept.is_empty()).then(|| HeaderValue::try_from(kept.join(", ")).ok()).flatten();
    match kept {
        Some(value) => drop(headers.insert(TRAILER, value)),
        None => drop(headers.remove(TRAILER)),
    }
}

/// Keeps the trailer fields that neither frame nor route nor authorise nor describe the body.
pub fn filter_trailers(trailers: &mut HeaderMap) {
    remove_all(trailers, |name| !may_trail(name));
}

fn may_trail(name: &HeaderName) -> bool {
    static NEVER: [HeaderName; 10] = [
        AUTHORIZATION,
        CACHE_CONTROL,
        CONTENT_ENCODING,
        CONTENT_RANGE,
        CONTENT_TYPE,
        COOKIE,
        EXPECT,
        MAX_FORWARDS,
        SET_COOKIE,
        TRAILER,
    ];
    let text = name.as_str();
    !NEVER.contains(name)
        && !is_reserved(text)
        && !text.contains('_')
        && !text.starts_with("x-forwarded")
        && text != "forwarded"
        && !text.ends_with("-ip")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Payload;

    fn request(method: &str, target: &str, lines: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    fn refusal(method: &str, target: &str, lines: &[(&'static str, &'static str)]) -> Option<u16> {
        admit(&request(method, target, lines)).err().map(|r| r.status().as_u16())
    }

    #[test]
    fn a_request_needs_one_valid_host() {
        for good in ["a", "a.example:8080", "127.0.0.1", "[::1]", "[2001:db8::1]:443", "under_score.example", "a:"] {
            assert_eq!(refusal("GET", "/", &[("host", good)]), None, "{good}");
        }
        for bad in
            ["", "a/b@c?d", "a b", "a,b", "[::1", "[x]", "[::1]a", "a:b", "a:123456", "user@a", "a\tb", ":80", "ä"]
        {
            assert_eq!(refusal("GET", "/", &[("host", bad)]), Some(400), "{bad}");
        }
        assert_eq!(refusal("GET", "/", &[]), Some(400));
        assert_eq!(refusal("GET", "/", &[("host", "a"), ("host", "a")]), Some(400));
    }

    #[test]
    fn the_target_and_the_host_must_agree() {
        assert_eq!(refusal("GET", "http://a.example/x", &[("host", "A.example")]), None);
        assert_eq!(refusal("GET", "http://a.example/x", &[("host", "b.example")]), Some(400));
        assert_eq!(refusal("GET", "http://u@a.example/x", &[("host", "a.example")]), Some(400));
        assert_eq!(refusal("GET", "ftp://a.example/x", &[("host", "a.example")]), Some(400));
        assert_eq!(refusal("OPTIONS", "*", &[("host", "a")]), None);
        assert_eq!(refusal("GET", "*", &[("host", "a")]), Some(400));
        assert_eq!(refusal("CONNECT", "a.example:443", &[("host", "a.example:443")]), Some(405));
    }

    #[test]
    fn a_body_is_framed_in_one_way_only() {
        let with = |lines: &[(&'static str, &'static str)]| {
            let mut all = vec![("host", "a")];
            all.extend_from_slice(lines);
            refusal("POST", "/", &all)
        };
        assert_eq!(with(&[("transfer-encoding", "Chunked")]), None);
        for bad in ["identity", "gzip, chunked", "chunked, chunked", ",chunked", "chunked;q=1", "xchunked", ""] {
            assert_eq!(with(&[("transfer-encoding", bad)]), Some(400), "{bad}");
        }
        assert_eq!(with(&[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]), Some(400));
        assert_eq!(with(&[("transfer-encoding", "chunked"), ("content-length", "3")]), Some(400));
        let mut old = request("POST", "/", &[("host", "a")]);
        *old.version_mut() = Version::HTTP_10;
        assert_eq!(admit(&old), Err(Refusal::LengthRequired));
    }

    #[test]
    fn what_belongs_to_a_connection_stays_with_it() {
        let client = Client {
            address: [192, 0, 2, 7].into(),
            https: true,
            host: HeaderValue::from_static("a"),
            port: 443,
            trusted_peer: false,
        };
        let (mut parts, ()) = request(
            "POST",
            "http://a/x?y",
            &[
                ("host", "a"),
                ("connection", "close, X-Forwarded-For, X-Secret, host"),
                ("x-secret", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-authorization", "Basic x"),
                ("te", "gzip, trailers"),
                ("upgrade", "h2c"),
                ("http2-settings", "AAMAAABkAAQAAP__"),
                ("expect", "100-continue"),
                ("content-length", "003"),
                ("accept", "*/*"),
            ],
        )
        .into_parts();
        rebuild_request(&mut parts, &client, &Payload::full("abc"), None);
        let mut left: Vec<_> = parts.headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        left.sort();
        assert_eq!(
            left,
            [
                "accept: */*",
                "connection: te",
                "host: a",
                "te: trailers",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-host: a",
                "x-forwarded-port: 443",
                "x-forwarded-proto: https",
            ]
        );
        assert_eq!(parts.uri, "/x?y");
    }

    #[test]
    fn trailers_neither_frame_nor_route_nor_authorise() {
        let mut trailers = HeaderMap::new();
        for name in ["x-checksum", "content-length", "host", "authorization", "transfer-encoding", "x-forwarded-for"] {
            trailers.append(name, HeaderValue::from_static("1"));
        }
        filter_trailers(&mut trailers);
        assert_eq!(trailers.keys().collect::<Vec<_>>(), ["x-checksum"]);
    }

    #[test]
    fn an_answer_is_passed_on_with_one_framing_and_without_a_protocol_nobody_asked_for() {
        let answer = |status: u16, lines: &[(&'static str, &'static str)]| {
            let mut response = http::Response::builder().status(status);
            for (name, value) in lines {
                response = response.header(*name, *value);
            }
            response.body(()).unwrap().into_parts().0
        };
        let websocket = HeaderValue::from_static("websocket");
        let mut both = answer(200, &[("transfer-encoding", "chunked"), ("content-length", "3")]);
        assert_eq!(rebuild_response(&mut both, None), Ok(()));
        assert!(both.headers.is_empty());
        assert_eq!(rebuild_response(&mut answer(101, &[("upgrade", "websocket")]), None), Err(BadAnswer::Upgrade));
        assert_eq!(rebuild_response(&mut answer(101, &[("upgrade", "x")]), Some(&websocket)), Err(BadAnswer::Upgrade));
        assert_eq!(rebuild_response(&mut answer(101, &[("upgrade", "WebSocket")]), Some(&websocket)), Ok(()));
    }
}
