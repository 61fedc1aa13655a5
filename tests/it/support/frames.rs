//! Frames of HTTP/2 written by hand (RFC 9113), for what no library would say.

use super::wire::{Wire, soon};

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A block of fields, each literal and without an index.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| match u8::try_from(text.len()) {
        Ok(length @ ..127) => [&[length], text.as_bytes()].concat(),
        _ => {
            let (mut rest, mut all) = (text.len() - 127, vec![127]);
            while rest >= 128 {
                all.push((rest % 128) as u8 | 128);
                rest /= 128;
            }
            all.push(rest as u8);
            [&all, text.as_bytes()].concat()
        }
    };
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// What every request says; more fields may follow.
pub fn request(method: &'static str, path: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![(":method", method), (":scheme", "http"), (":path", path), (":authority", "pay.example")]
}

/// The frame of a request with these fields.
pub fn asks(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &block(fields))
}

/// The beginning of a connection.
pub fn hello() -> Vec<u8> {
    [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()
}

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The code in a reset or a farewell.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }
}

impl Wire {
    /// The next frame; nothing at the end.
    pub async fn frame(&mut self) -> Option<Frame> {
        let head = self.piece(9).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let payload = self.piece(length).await?;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of one of these kinds; nothing at the end.
    pub async fn frame_of(&mut self, kinds: &[u8]) -> Option<Frame> {
        loop {
            let frame = soon(self.frame()).await?;
            if kinds.contains(&frame.kind) {
                return Some(frame);
            }
        }
    }

    /// How a request of this stream ended: the status that was answered, or nothing if it was not answered.
    pub async fn outcome(&mut self, stream: u32) -> Option<u16> {
        loop {
            let frame = self.frame_of(&[HEADERS, RST_STREAM, GOAWAY]).await?;
            match frame.kind {
                HEADERS if frame.stream == stream => return Some(status(&frame.payload)),
                RST_STREAM if frame.stream == stream => return None,
                GOAWAY => return None,
                _ => {}
            }
        }
    }
}

/// The status at the beginning of a block: indexed, or three digits under the name of one that is.
fn status(block: &[u8]) -> u16 {
    // A change of the table's size may stand before it.
    let begin = block.iter().position(|b| b & 0xe0 != 0x20).unwrap();
    match block[begin] {
        indexed @ 0x88..=0x8e => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
        0x48 | 0x08 | 0x18 => {
            let length = block[begin + 1];
            let value = &block[begin + 2..begin + 2 + usize::from(length & 0x7f)];
            if length & 0x80 == 0 { std::str::from_utf8(value).unwrap().parse().unwrap() } else { huffman(value) }
        }
        other => panic!("no status: {other:x}"),
    }
}

/// Three digits in the code of HPACK: those below 3 take five bits, the others six.
fn huffman(bytes: &[u8]) -> u16 {
    let bits = |from: usize, count: usize| {
        (from..from + count).fold(0, |all, bit| all << 1 | u16::from(bytes[bit / 8] >> (7 - bit % 8) & 1))
    };
    let mut at = 0;
    (0..3).fold(0, |number, _| {
        let (digit, taken) = match bits(at, 5) {
            low @ 0..3 => (low, 5),
            _ => (bits(at, 6) - 0x19 + 3, 6),
        };
        at += taken;
        number * 10 + digit
    })
}
