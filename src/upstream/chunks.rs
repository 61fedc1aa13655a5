//! The chunked coding, pure: written for the app, and read strictly from its answers.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::head;
use crate::digits::Digits;

/// Bytes of the line before a chunk, whose extensions nobody reads.
const LONGEST_LINE: usize = 4096;
/// Bytes of all trailer fields, and how many of them.
const MOST_TRAILERS: usize = 16 * 1024;
const MOST_FIELDS: usize = 64;

/// The framing of a body broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadChunk {
    /// The line with the size of a chunk.
    #[error("the size of a chunk is malformed")]
    Size,
    /// The end of a chunk.
    #[error("a chunk does not end where it should")]
    End,
    /// What follows the last chunk.
    #[error("the trailer fields are malformed")]
    Trailers,
}

/// What stands next in a body.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of it.
    Data(Bytes),
    /// Its end, with the fields that trail it.
    End(HeaderMap),
}

/// A reader of one body: where in the coding it stands.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum Chunks {
    /// Before the line with the size of a chunk.
    #[default]
    Size,
    /// So many bytes before the end of a chunk.
    Data(u64),
    /// Before the line end that ends a chunk.
    Line,
    /// Before the trailer fields.
    Trailers,
}

impl Chunks {
    /// Takes the next piece out of `read`; `None` where more has to be read first.
    ///
    /// # Errors
    ///
    /// If the bytes are no chunks.
    pub fn next(&mut self, read: &mut BytesMut) -> Result<Option<Piece>, BadChunk> {
        loop {
            *self = match self {
                Self::Size => match size(read)? {
                    None => return Ok(None),
                    Some(0) => Self::Trailers,
                    Some(size) => Self::Data(size),
                },
                Self::Data(_) if read.is_empty() => return Ok(None),
                Self::Data(left) => {
                    let taken = read.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    let rest = *left - taken as u64;
                    *self = if rest == 0 { Self::Line } else { Self::Data(rest) };
                    return Ok(Some(Piece::Data(read.split_to(taken).freeze())));
                }
                Self::Line => match read.get(..2) {
                    Some(b"\r\n") => {
                        drop(read.split_to(2));
                        Self::Size
                    }
                    Some(_) => return Err(BadChunk::End),
                    None => return Ok(None),
                },
                Self::Trailers => return Ok(trailers(read)?.map(Piece::End)),
            }
        }
    }
}

/// The size of the chunk that comes, if its line is there.
fn size(read: &mut BytesMut) -> Result<Option<u64>, BadChunk> {
    let Some(feed) = memchr::memchr(b'\n', &read[..read.len().min(LONGEST_LINE)]) else {
        return if read.len() < LONGEST_LINE { Ok(None) } else { Err(BadChunk::Size) };
    };
    let line = read.split_to(feed + 1);
    let line = line.strip_suffix(b"\r\n").ok_or(BadChunk::Size)?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at(digits);
    let is_extension = matches!(rest.trim_ascii_start().first(), None | Some(b';'));
    let is_clean = !rest.iter().any(|byte| matches!(byte, b'\r' | 0));
    if digits.is_empty() || digits.len() > 16 || !is_extension || !is_clean {
        return Err(BadChunk::Size);
    }
    let hex = |size: u64, digit: &u8| size << 4 | u64::from(char::from(*digit).to_digit(16).unwrap_or(0));
    Ok(Some(digits.iter().fold(0, hex)))
}

/// The fields after the last chunk, if they are all there.
fn trailers(read: &mut BytesMut) -> Result<Option<HeaderMap>, BadChunk> {
    if read.len() < 2 {
        return Ok(None);
    }
    if read.starts_with(b"\r\n") {
        drop(read.split_to(2));
        return Ok(Some(HeaderMap::new()));
    }
    let Some(end) = head::end(read) else {
        return if read.len() < MOST_TRAILERS { Ok(None) } else { Err(BadChunk::Trailers) };
    };
    let bytes = read.split_to(end).freeze();
    let mut lines = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let lines = match httparse::parse_headers(&bytes, &mut lines) {
        Ok(httparse::Status::Complete((_, lines))) => lines,
        _ => return Err(BadChunk::Trailers),
    };
    let mut fields = HeaderMap::with_capacity(lines.len());
    for line in lines {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| BadChunk::Trailers)?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(line.value)).map_err(|_| BadChunk::Trailers)?;
        fields.append(name, value);
    }
    Ok(Some(fields))
}

/// Writes one chunk; none for no bytes, which would end the body.
pub fn write(out: &mut BytesMut, data: &[u8]) {
    if !data.is_empty() {
        out.extend_from_slice(Digits::hexadecimal(data.len() as u64).as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes the end of a body, with the fields that trail it.
pub fn write_end(out: &mut BytesMut, trailers: &HeaderMap) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Whole = (Vec<u8>, Option<HeaderMap>, Vec<u8>);

    /// Reads a body that comes in these portions: its bytes, its trailers if it has ended, and what is left unread.
    fn read<'a>(portions: impl IntoIterator<Item = &'a [u8]>) -> Result<Whole, BadChunk> {
        let (mut chunks, mut buffer, mut body, mut end) = (Chunks::default(), BytesMut::new(), Vec::new(), None);
        for portion in portions {
            buffer.extend_from_slice(portion);
            while end.is_none() {
                match chunks.next(&mut buffer)? {
                    None => break,
                    Some(Piece::Data(data)) => body.extend_from_slice(&data),
                    Some(Piece::End(trailers)) => end = Some(trailers),
                }
            }
        }
        Ok((body, end, buffer.to_vec()))
    }

    #[test]
    fn a_body_is_read_to_its_end_and_no_further() {
        let (body, end, rest) =
            read([&b"3;a=\"b\"\r\none\r\nA \t;x\r\n0123456789\r\n0\r\nX-Sum: 7\r\n\r\nHTTP"[..]]).unwrap();
        assert_eq!((&body[..], &rest[..]), (&b"one0123456789"[..], &b"HTTP"[..]));
        assert_eq!(end.unwrap()["x-sum"], "7");
    }

    #[test]
    fn what_two_readers_could_cut_in_two_ways_is_refused() {
        for bad in [
            "x\r\n",
            "\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            "1 1\r\n",
            "1\n",
            "1\r\r\n",
            "11111111111111111\r\n",
            " 1\r\n",
            "1;a\rb\r\n",
        ] {
            assert_eq!(read([bad.as_bytes()]), Err(BadChunk::Size), "{bad:?}");
        }
        assert_eq!(read([&b"1\r\nab\r\n"[..]]), Err(BadChunk::End));
        assert_eq!(read([&b"1\r\na\n0\r\n"[..]]), Err(BadChunk::End));
        assert_eq!(read([&b"0\r\nno field\r\n\r\n"[..]]), Err(BadChunk::Trailers));
        assert_eq!(read([&b"0\r\na: 1\r\n b\r\n\r\n"[..]]), Err(BadChunk::Trailers));
    }

    #[test]
    fn what_has_no_end_is_not_gathered_without_end() {
        assert_eq!(read([[b'1'].repeat(LONGEST_LINE).as_slice()]), Err(BadChunk::Size));
        let fields = b"x: y\r\n".repeat(MOST_TRAILERS / 6 + 1);
        assert_eq!(read([&b"0\r\n"[..], &fields]), Err(BadChunk::Trailers));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_however_it_is_cut(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            trailer in prop::option::of("[a-z0-9]{1,8}"),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let mut trailers = HeaderMap::new();
            if let Some(value) = &trailer {
                trailers.insert("x-sum", HeaderValue::from_str(value).unwrap());
            }
            let mut wire = BytesMut::new();
            pieces.iter().for_each(|piece| write(&mut wire, piece));
            write_end(&mut wire, &trailers);
            wire.extend_from_slice(b"next");
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
            cuts.extend([0, wire.len()]);
            cuts.sort_unstable();
            let (body, end, rest) = read(cuts.windows(2).map(|cut| &wire[cut[0]..cut[1]])).unwrap();
            prop_assert_eq!((body, end, &rest[..]), (pieces.concat(), Some(trailers), &b"next"[..]));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(prop::sample::select(&b"0129aAf;\r\n: x"[..]), 0..60)) {
            _ = read([bytes.as_slice()]);
        }
    }
}
