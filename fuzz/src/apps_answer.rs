//! What the app answers: its head, and its body in chunks, as they come off a connection in whatever pieces.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method};
use oncegate::upstream::{
    chunks::{self, BadChunk, Chunks, Piece},
    head::{Framing, Head, end},
};

pub fn try_it(bytes: &[u8]) {
    chunked(bytes);
    let Some(length) = end(bytes) else { return };
    assert!(length <= bytes.len() && bytes[..length].ends_with(b"\n"), "it ends with a line");
    assert_eq!(end(&bytes[..length]), Some(length), "what follows does not change where it ends");
    assert_eq!(end(&bytes[..length - 1]), None, "nor does it end sooner");
    for method in [Method::GET, Method::HEAD, Method::POST, Method::CONNECT] {
        for upgrade in [false, true] {
            head(&bytes[..length], &bytes[length..], &method, upgrade);
        }
    }
}

/// A head that is read has one end of its body, and only what has one lets another answer follow.
fn head(head: &[u8], rest: &[u8], method: &Method, upgrade: bool) {
    let read = || Head::parse(&Bytes::copy_from_slice(head), method, upgrade);
    let Ok(one) = read() else { return };
    let again = read().expect("read twice");
    assert_eq!(
        (one.status, &one.fields, &one.framing, one.reusable),
        (again.status, &again.fields, &again.framing, again.reusable)
    );
    assert!(!one.reusable || one.framing != Framing::Close, "what ends with the connection is followed by nothing");
    let lengths = one.fields.get_all("content-length").iter().count();
    let codings = one.fields.get_all("transfer-encoding").iter().count();
    let bare = *method == Method::HEAD || one.status.is_informational() || matches!(one.status.as_u16(), 204 | 304);
    match one.framing {
        Framing::Length(0) => {}
        Framing::Length(_) => assert!(lengths > 0 && codings == 0 && !bare, "somebody says so, and nobody otherwise"),
        Framing::Chunked(_) => {
            assert!(codings > 0 && lengths == 0 && !bare, "the same");
            chunked(rest);
        }
        Framing::Close => {}
    }
}

/// What a body in chunks says, how many bytes it takes, and whether it ends; or why it is none.
type Read = Result<(Vec<u8>, Option<HeaderMap>, usize), BadChunk>;

/// Reads a body that comes in pieces of this size.
fn read(bytes: &[u8], piece: usize) -> Read {
    let (mut reader, mut read, mut data) = (Chunks::default(), BytesMut::new(), Vec::new());
    let mut came = 0;
    for part in bytes.chunks(piece) {
        read.extend_from_slice(part);
        came += part.len();
        while let Some(next) = reader.next(&mut read)? {
            match next {
                Piece::Data(some) => {
                    assert!(!some.is_empty(), "a piece of nothing");
                    data.extend_from_slice(&some);
                }
                Piece::End(trailers) => return Ok((data, Some(trailers), came - read.len())),
            }
        }
    }
    Ok((data, None, came))
}

/// However it comes, it says the same; and written again it is read as the same.
fn chunked(bytes: &[u8]) {
    let whole = read(bytes, bytes.len().max(1));
    for piece in [1, 2, 7] {
        assert_eq!(read(bytes, piece), whole, "in pieces of {piece}");
    }
    let Ok((data, Some(trailers), taken)) = whole else { return };
    assert!(taken <= bytes.len() && data.len() < taken, "it takes no more than there is");
    assert_eq!(
        read(&bytes[..taken], taken),
        Ok((data.clone(), Some(trailers.clone()), taken)),
        "nor does more change it"
    );
    let mut written = BytesMut::new();
    data.chunks(5).for_each(|some| chunks::write(&mut written, some));
    chunks::write_end(&mut written, &trailers);
    assert_eq!(read(&written, 3), Ok((data, Some(trailers), written.len())), "written again");
}

pub fn seeds() -> Vec<Vec<u8>> {
    [
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\n[]",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\nconnection: close\r\n\r\n1;a=b\r\nx\r\n0\r\nx-trailer: 1\r\n\r\n",
        "HTTP/1.0 302 Found\r\nlocation: https://pay.example/\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nconnection: keep-alive\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        "HTTP/1.1 200 OK\ncontent-length: 1\ncontent-length: 1\n\nx",
        "5\r\nhello\r\n1A\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nx-a: b\r\nx-c: d\r\n\r\nHTTP/1.1 200 OK\r\n",
    ]
    .map(|seed| seed.as_bytes().to_vec())
    .to_vec()
}
