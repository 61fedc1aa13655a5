//! One end of a connection, read and written byte by byte; whatever takes ten seconds has failed.

use std::{io, time::Duration};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The head of a message as it stood on the wire.
#[derive(Clone, Debug)]
pub struct Head {
    /// The first line.
    pub line: String,
    /// The fields in their order, names in lower case.
    pub fields: Vec<(String, String)>,
}

impl Head {
    pub fn parse(text: &str) -> Self {
        let mut lines = text.strip_suffix("\r\n\r\n").expect("a head ends with an empty line").split("\r\n");
        let line = lines.next().unwrap().to_owned();
        let field = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap_or_else(|| panic!("no field: {line}"));
            (name.to_ascii_lowercase(), value.to_owned())
        };
        Self { line, fields: lines.map(field).collect() }
    }

    /// All values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect()
    }

    /// The one value of a field.
    pub fn one(&self, name: &str) -> &str {
        match self.all(name)[..] {
            [only] => only,
            ref all => panic!("{name} stands there {} times: {self:?}", all.len()),
        }
    }

    /// The status of an answer.
    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("no answer: {}", self.line))
    }
}

pub struct Wire {
    stream: Box<dyn Stream>,
    read: Vec<u8>,
}

/// Waits, but not for ever.
pub async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), what).await.expect("this takes too long")
}

impl Wire {
    pub fn new(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), read: Vec::new() }
    }

    /// Writes all of it.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.stream.write_all(bytes.as_ref())).await.expect("the other side reads");
        soon(self.stream.flush()).await.expect("the other side reads");
    }

    /// Writes as much of it as the other side takes.
    pub async fn offer(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = soon(self.stream.write_all(bytes.as_ref())).await;
    }

    /// Writes all of it, or finds that the other side has gone.
    pub async fn try_write(&mut self, bytes: &[u8]) -> bool {
        // Read at the same time: who floods would else be stopped by the answers that nobody takes.
        let (mut read, mut write) = tokio::io::split(&mut self.stream);
        let mut sink = [0; 4096];
        soon(async {
            let mut written = std::pin::pin!(write.write_all(bytes));
            loop {
                tokio::select! {
                    written = &mut written => return written.is_ok(),
                    count = read.read(&mut sink) => match count {
                        Ok(1..) => {}
                        _ => return false,
                    },
                }
            }
        })
        .await
    }

    /// This many bytes; nothing if the end comes before.
    pub async fn piece(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.read.len() < count {
            if !self.more().await.unwrap_or(false) {
                return None;
            }
        }
        let rest = self.read.split_off(count);
        Some(std::mem::replace(&mut self.read, rest))
    }

    /// Ends the direction from here to there.
    pub async fn end(&mut self) {
        soon(self.stream.shutdown()).await.expect("the other side is there");
    }

    /// Ends the direction from here to there, if the other side has not ended both.
    pub async fn leave(&mut self) {
        let _ = soon(self.stream.shutdown()).await;
    }

    async fn more(&mut self) -> io::Result<bool> {
        let before = self.read.len();
        soon(self.stream.read_buf(&mut self.read)).await?;
        Ok(self.read.len() > before)
    }

    /// All bytes up to and with `mark`.
    pub async fn until(&mut self, mark: &str) -> String {
        loop {
            if let Some(at) = self.read.windows(mark.len()).position(|w| w == mark.as_bytes()) {
                let rest = self.read.split_off(at + mark.len());
                return String::from_utf8(std::mem::replace(&mut self.read, rest)).expect("text");
            }
            assert!(
                self.more().await.expect("bytes"),
                "the end instead of {mark:?} after {:?}",
                String::from_utf8_lossy(&self.read)
            );
        }
    }

    /// The head of a message.
    pub async fn head(&mut self) -> Head {
        Head::parse(&self.until("\r\n\r\n").await)
    }

    /// The head of a message; nothing if the end comes before.
    pub async fn try_head(&mut self) -> Option<Head> {
        let mark = b"\r\n\r\n";
        loop {
            if let Some(at) = self.read.windows(mark.len()).position(|w| w == mark) {
                let rest = self.read.split_off(at + mark.len());
                let head = String::from_utf8(std::mem::replace(&mut self.read, rest)).expect("text");
                return Some(Head::parse(&head));
            }
            if !self.more().await.unwrap_or(false) {
                return None;
            }
        }
    }

    /// This many bytes.
    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(self.more().await.expect("bytes"), "the end after {} of {count} bytes", self.read.len());
        }
        let rest = self.read.split_off(count);
        std::mem::replace(&mut self.read, rest)
    }

    /// This many bytes of text.
    pub async fn text(&mut self, count: usize) -> String {
        String::from_utf8(self.exactly(count).await).expect("text")
    }

    /// A message with a length: its head and its body.
    pub async fn message(&mut self) -> (Head, String) {
        let head = self.head().await;
        let length = head.all("content-length").first().map_or(0, |l| l.parse().expect("a length"));
        let body = self.text(length).await;
        (head, body)
    }

    /// An answer however it is framed: its head and its body.
    pub async fn answer(&mut self) -> (Head, String) {
        let head = self.head().await;
        let body = self.body_after(&head).await;
        (head, body)
    }

    /// The body that belongs to the head of an answer.
    pub async fn body_after(&mut self, head: &Head) -> String {
        let body = match (&head.all("content-length")[..], &head.all("transfer-encoding")[..]) {
            ([length], []) => self.exactly(length.parse().expect("a length")).await,
            ([], ["chunked"]) => self.chunks().await,
            ([], []) if matches!(head.status(), 204 | 304) => Vec::new(),
            ([], []) if head.line.starts_with("HTTP/1.0 ") => self.bytes().await,
            _ => panic!("no framing: {head:?}"),
        };
        String::from_utf8(body).expect("text")
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut whole = Vec::new();
        loop {
            let size = self.until("\r\n").await;
            let size = usize::from_str_radix(size.trim_end(), 16).expect("a size in hex, and nothing else");
            whole.extend(self.exactly(size).await);
            assert_eq!(self.text(2).await, "\r\n");
            if size == 0 {
                return whole;
            }
        }
    }

    /// All text up to the end, be it a reset.
    pub async fn rest(&mut self) -> String {
        String::from_utf8(self.bytes().await).expect("text")
    }

    /// All bytes up to the end, be it a reset.
    pub async fn bytes(&mut self) -> Vec<u8> {
        while matches!(self.more().await, Ok(true)) {}
        std::mem::take(&mut self.read)
    }
}
