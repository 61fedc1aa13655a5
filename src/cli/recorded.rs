//! A recorded HTTP/1 request: a head as it stood on the wire, and its body.

use anyhow::{Context, bail, ensure};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

/// Header fields that a recorded request may have at most.
const MOST_FIELDS: usize = 128;

/// A recorded request.
#[derive(Debug)]
pub struct Recorded {
    /// The method.
    pub method: Method,
    /// The target, without authority.
    pub uri: Uri,
    /// The header fields.
    pub headers: HeaderMap,
    /// The host it was sent to.
    pub host: String,
    /// The body, as long as its `Content-Length` says; all that follows the head where it says nothing.
    pub body: Vec<u8>,
}

impl Recorded {
    /// Reads one request.
    ///
    /// # Errors
    ///
    /// When it is none, or its body is shorter or longer than it says.
    pub fn parse(raw: &[u8]) -> anyhow::Result<Self> {
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        let head = match request.parse(raw).context("this is no HTTP/1 request")? {
            httparse::Status::Complete(head) => head,
            httparse::Status::Partial => bail!("the head of the request does not end: an empty line has to follow it"),
        };
        let method = Method::from_bytes(request.method.unwrap_or_default().as_bytes()).context("the method is none")?;
        let target: Uri = request.path.unwrap_or_default().parse().context("the target is none")?;
        let mut headers = HeaderMap::new();
        for field in request.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes())?;
            headers.append(name, HeaderValue::from_bytes(field.value).with_context(|| format!("in {}", field.name))?);
        }
        let host =
            headers.get(header::HOST).and_then(|host| host.to_str().ok()).or(target.authority().map(|a| a.as_str()));
        let host = host.unwrap_or_default().to_owned();
        let body = body(&headers, &raw[head..])?;
        let uri = target.path_and_query().cloned().map_or(target, Uri::from);
        Ok(Self { method, uri, headers, host, body })
    }
}

fn body(headers: &HeaderMap, rest: &[u8]) -> anyhow::Result<Vec<u8>> {
    let Some(length) = headers.get(header::CONTENT_LENGTH) else { return Ok(rest.to_vec()) };
    let length: usize = length.to_str()?.trim().parse().context("Content-Length is no number")?;
    ensure!(rest.len() >= length, "the body has {} bytes, Content-Length says {length}", rest.len());
    // An editor's newline at the end of the file is not part of it.
    ensure!(
        rest[length..].iter().all(u8::is_ascii_whitespace),
        "more follows the body of {length} bytes that Content-Length announces: one request in each file"
    );
    Ok(rest[..length].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_stood_on_the_wire() {
        let raw = b"POST /hook?x=1 HTTP/1.1\r\nHost: pay.test\r\nContent-Length: 7\r\n\r\nid=tr_1\n";
        let recorded = Recorded::parse(raw).unwrap();
        assert_eq!((recorded.host.as_str(), &*recorded.body), ("pay.test", &b"id=tr_1"[..]));
        assert_eq!(recorded.uri.to_string(), "/hook?x=1");
    }

    #[test]
    fn what_is_not_whole_is_refused_with_the_reason() {
        let refused = |raw: &str| Recorded::parse(raw.as_bytes()).unwrap_err().to_string();
        assert!(refused("POST / HTTP/1.1\r\nHost: x\r\n").contains("does not end"));
        assert!(refused("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nid=1").contains("has 4 bytes"));
        assert!(refused("POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nid=1").contains("more follows"));
        assert!(refused("hello\r\n\r\n").contains("no HTTP/1"));
    }
}
