//! Heads as bytes, pure: a request written for the app, an answer read from it, and how the answer's body is framed.

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE},
};

use super::{chunks::Chunks, outgoing::Outline};
use crate::digits::Digits;

/// Bytes of an answer's head, or of what comes before it.
pub(super) const MOST_BYTES: usize = 128 * 1024;
/// Fields of an answer's head.
const MOST_FIELDS: usize = 128;

/// What came back is no answer, or none whose end all readers would find in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHead {
    /// It does not look like one.
    #[error("what came is no answer: {0}")]
    Malformed(#[from] httparse::Error),
    /// The status, a name or a value.
    #[error("a field of the answer is malformed")]
    Field,
    /// `Transfer-Encoding` says what nobody reads here.
    #[error("the answer has a transfer coding other than chunked")]
    Coding,
    /// Two readers would find its end in two places.
    #[error("the answer's length is ambiguous")]
    Length,
    /// 101 without having been asked.
    #[error("the answer changes to a protocol that nobody asked for")]
    Upgrade,
    /// It does not end.
    #[error("the answer's head is larger than {MOST_BYTES} bytes")]
    TooLarge,
}

/// How long the body of a request is, and so how it is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// So many bytes.
    Exactly(u64),
    /// Nobody knows: in chunks.
    Unknown,
}

/// Writes the head of a request. The framing is written here and nowhere else: what the fields say of it is left out.
pub(super) fn write(out: &mut BytesMut, request: Outline<'_>, length: Length) {
    let Outline { method, uri, fields } = request;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    out.reserve(
        target.len() + 64 + fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>(),
    );
    for piece in [method.as_str(), " ", target, " HTTP/1.1\r\n"] {
        out.extend_from_slice(piece.as_bytes());
    }
    for (name, value) in fields {
        if *name != CONTENT_LENGTH && *name != TRANSFER_ENCODING {
            out.extend_from_slice(name.as_str().as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
    match length {
        Length::Exactly(0) if !expects_body(method) => {}
        Length::Exactly(bytes) => {
            out.extend_from_slice(b"content-length: ");
            out.extend_from_slice(Digits::decimal(bytes).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        Length::Unknown => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
}

/// Whether a request with this method says how long its body is even where it has none.
fn expects_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// Where the head that these bytes begin with ends; `None` while it is not whole.
#[must_use]
pub fn end(bytes: &[u8]) -> Option<usize> {
    let mut line = 0;
    for feed in memchr::memchr_iter(b'\n', bytes) {
        if matches!(bytes[line..feed], [] | [b'\r']) && line > 0 {
            return Some(feed + 1);
        }
        line = feed + 1;
    }
    None
}

/// Whether a field belongs to one connection, so that it is never passed on (RFC 9110 §7.6.1).
#[must_use]
pub fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-authentication-info"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// The head of an answer.
#[derive(Debug)]
pub struct Head {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub fields: HeaderMap,
    /// How its body ends.
    pub framing: Framing,
    /// Whether another request may follow on the connection when the body has ended.
    pub reusable: bool,
}

/// How the body of an answer ends.
#[derive(Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With its last chunk.
    Chunked(Chunks),
    /// With the connection.
    Close,
}

impl Head {
    /// Reads a whole head: the answer to a request with this method, which asked for another protocol or did not. The
    /// values of the fields are slices of `bytes`.
    ///
    /// # Errors
    ///
    /// If it is none, or its framing can be understood in two ways.
    pub fn parse(bytes: &Bytes, method: &Method, upgrade: bool) -> Result<Self, BadHead> {
        let mut lines = [const { std::mem::MaybeUninit::uninit() }; MOST_FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        if config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut lines)?.is_partial() {
            return Err(BadHead::Field);
        }
        let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(BadHead::Field)?;
        let old = parsed.version == Some(0);
        let mut fields = HeaderMap::with_capacity(parsed.headers.len());
        for line in &*parsed.headers {
            let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| BadHead::Field)?;
            let value = HeaderValue::from_maybe_shared(bytes.slice_ref(line.value)).map_err(|_| BadHead::Field)?;
            fields.append(name, value);
        }
        if status == StatusCode::SWITCHING_PROTOCOLS && !(upgrade && fields.contains_key(UPGRADE)) {
            return Err(BadHead::Upgrade);
        }
        let version = if old { Version::HTTP_10 } else { Version::HTTP_11 };
        let (framing, plain) = framing(status, version, &fields, method)?;
        let reusable = plain && framing != Framing::Close && stays_open(version, &fields);
        Ok(Self { status, fields, framing, reusable })
    }
}

/// How the body is framed, and whether that is said in one way only.
fn framing(
    status: StatusCode,
    version: Version,
    fields: &HeaderMap,
    method: &Method,
) -> Result<(Framing, bool), BadHead> {
    let length = length(fields)?;
    let chunked = is_chunked(version, fields)?;
    let bodiless = status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || *method == Method::HEAD;
    let framing = match (bodiless, chunked, length) {
        (true, ..) => Framing::Length(0),
        (_, true, _) => Framing::Chunked(Chunks::default()),
        (_, false, Some(length)) => Framing::Length(length),
        (_, false, None) => Framing::Close,
    };
    Ok((framing, !(chunked && length.is_some())))
}

fn length(fields: &HeaderMap) -> Result<Option<u64>, BadHead> {
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(None) };
    let digits = length.as_bytes();
    if lengths.next().is_some() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(BadHead::Length);
    }
    let length = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    length.map(Some).ok_or(BadHead::Length)
}

fn is_chunked(version: Version, fields: &HeaderMap) -> Result<bool, BadHead> {
    let mut codings = fields.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Ok(false),
        (Some(only), None)
            if version == Version::HTTP_11 && only.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked") =>
        {
            Ok(true)
        }
        _ => Err(BadHead::Coding),
    }
}

fn stays_open(version: Version, fields: &HeaderMap) -> bool {
    let says = |wanted: &[u8]| {
        let mut options =
            fields.get_all(CONNECTION).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
        options.any(|option| option.trim_ascii().eq_ignore_ascii_case(wanted))
    };
    !says(b"close") && (version == Version::HTTP_11 || says(b"keep-alive"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Head, BadHead> {
        Head::parse(&Bytes::copy_from_slice(text.as_bytes()), &Method::POST, false)
    }

    fn framed(lines: &str) -> Result<(Framing, bool), BadHead> {
        parse(&format!("HTTP/1.1 200 OK\r\n{lines}\r\n")).map(|head| (head.framing, head.reusable))
    }

    #[test]
    fn a_head_ends_with_its_empty_line() {
        assert_eq!(end(b"HTTP/1.1 200 OK\r\na: b\r\n\r\nbody"), Some(25));
        assert_eq!(end(b"HTTP/1.1 200 OK\n\nbody"), Some(17));
        for part in [&b""[..], b"\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\na: b\r\n\r"] {
            assert_eq!(end(part), None);
        }
    }

    #[test]
    fn a_body_ends_where_every_reader_finds_its_end() {
        assert_eq!(framed("content-length: 12\r\n"), Ok((Framing::Length(12), true)));
        assert_eq!(framed("transfer-encoding: Chunked\r\n"), Ok((Framing::Chunked(Chunks::default()), true)));
        assert_eq!(framed(""), Ok((Framing::Close, false)));
        assert_eq!(framed("connection: x, Close\r\ncontent-length: 1\r\n"), Ok((Framing::Length(1), false)));
        let both = framed("content-length: 3\r\ntransfer-encoding: chunked\r\n");
        assert_eq!(both, Ok((Framing::Chunked(Chunks::default()), false)), "read to its end, and then no more");
        for bad in ["+1", "1, 1", "-1", "0x1", "", "1 2", "99999999999999999999"] {
            assert_eq!(framed(&format!("content-length: {bad}\r\n")), Err(BadHead::Length), "{bad}");
        }
        assert_eq!(framed("content-length: 1\r\ncontent-length: 1\r\n"), Err(BadHead::Length));
        for bad in ["gzip, chunked", "chunked, chunked", "identity", "xchunked", ""] {
            assert_eq!(framed(&format!("transfer-encoding: {bad}\r\n")), Err(BadHead::Coding), "{bad}");
        }
        assert_eq!(framed("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"), Err(BadHead::Coding));
    }

    #[test]
    fn an_old_app_closes_unless_it_says_otherwise_and_knows_no_chunks() {
        let old = |lines: &str| parse(&format!("HTTP/1.0 200 OK\r\n{lines}\r\n")).map(|head| head.reusable);
        assert_eq!(old("content-length: 1\r\n"), Ok(false));
        assert_eq!(old("content-length: 1\r\nconnection: Keep-Alive\r\n"), Ok(true));
        assert_eq!(old("transfer-encoding: chunked\r\n"), Err(BadHead::Coding));
    }

    #[test]
    fn some_answers_have_no_body_whatever_they_say() {
        for status in ["204 No Content", "304 Not Modified", "103 Early Hints"] {
            let head = parse(&format!("HTTP/1.1 {status}\r\ncontent-length: 9\r\n\r\n")).unwrap();
            assert_eq!(head.framing, Framing::Length(0), "{status}");
        }
        let bytes = Bytes::from_static(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n");
        assert_eq!(Head::parse(&bytes, &Method::HEAD, false).unwrap().framing, Framing::Length(0));
    }

    #[test]
    fn another_protocol_is_spoken_only_if_it_was_asked_for() {
        let switch = Bytes::from_static(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\r\n");
        assert_eq!(Head::parse(&switch, &Method::GET, false).map(drop), Err(BadHead::Upgrade));
        assert_eq!(Head::parse(&switch, &Method::GET, true).map(|head| head.status.as_u16()), Ok(101));
    }

    #[test]
    fn the_framing_of_a_request_is_written_once_whatever_its_fields_say() {
        let written = |method: &str, length| {
            let request = http::Request::builder().method(method).uri("/a?b").header("content-length", "7");
            let request = request.header("transfer-encoding", "gzip").header("x", "y").body(()).unwrap();
            let mut out = BytesMut::new();
            let outline = Outline { method: request.method(), uri: request.uri(), fields: request.headers() };
            write(&mut out, outline, length);
            String::from_utf8(out.to_vec()).unwrap()
        };
        assert_eq!(written("POST", Length::Exactly(305)), "POST /a?b HTTP/1.1\r\nx: y\r\ncontent-length: 305\r\n\r\n");
        assert_eq!(written("POST", Length::Exactly(0)), "POST /a?b HTTP/1.1\r\nx: y\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(written("GET", Length::Exactly(0)), "GET /a?b HTTP/1.1\r\nx: y\r\n\r\n");
        assert_eq!(written("GET", Length::Unknown), "GET /a?b HTTP/1.1\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), split in any::<prop::sample::Index>()) {
            let text = [b"HTTP/1.1 200 OK\r\n", bytes.as_slice(), b"\r\n\r\n"].concat();
            let at = split.index(text.len());
            prop_assert!(end(&text[..at]).is_none_or(|found| end(&text) == Some(found)));
            if let Some(end) = end(&text) {
                _ = Head::parse(&Bytes::copy_from_slice(&text[..end]), &Method::GET, true);
            }
        }
    }
}
