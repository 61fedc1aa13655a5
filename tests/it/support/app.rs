//! The app behind the gate, played by hand or by a small script.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpSocket, UnixListener},
};

use super::wire::{Wire, soon};

pub struct App {
    listener: TcpListener,
}

impl App {
    pub async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    /// An address at which nobody listens, and nobody else can while the test runs.
    pub async fn gone() -> String {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        std::mem::forget(socket);
        url
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listener.local_addr().unwrap())
    }

    pub fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// The next connection of the gate.
    pub async fn accept(&self) -> Wire {
        Wire::new(self.accept_raw().await)
    }

    pub async fn accept_raw(&self) -> tokio::net::TcpStream {
        soon(self.listener.accept()).await.unwrap().0
    }

    /// Whether the gate has made no other connection by now.
    pub async fn is_quiet(&self) -> bool {
        let mut accept = std::pin::pin!(self.listener.accept());
        std::future::poll_fn(|cx| std::task::Poll::Ready(accept.as_mut().poll(cx).is_pending())).await
    }

    /// Answers whatever comes with an empty 200, and keeps every byte of it, by connection.
    pub fn record(self) -> Recording {
        let seen = Recording::default();
        let keep = seen.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = self.listener.accept().await {
                let keep = keep.clone();
                let index = keep.open();
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                        let complete = keep.add(index, &buffer[..n]);
                        for _ in 0..complete {
                            let _ = tokio::io::AsyncWriteExt::write_all(
                                &mut stream,
                                b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
                            )
                            .await;
                        }
                    }
                });
            }
        });
        seen
    }
}

pub fn unix(path: &Path) -> UnixListener {
    UnixListener::bind(path).unwrap()
}

/// The raw bytes that an app was sent, by connection, and how many requests have been answered.
#[derive(Clone, Default)]
pub struct Recording(Arc<Mutex<Vec<Seen>>>);

/// What came on one connection.
#[derive(Default)]
struct Seen {
    bytes: Vec<u8>,
    answered: usize,
}

impl Recording {
    fn open(&self) -> usize {
        let mut all = self.0.lock().unwrap();
        all.push(Seen::default());
        all.len() - 1
    }

    /// Adds bytes; says how many requests they complete.
    fn add(&self, index: usize, bytes: &[u8]) -> usize {
        let mut all = self.0.lock().unwrap();
        let seen = &mut all[index];
        seen.bytes.extend_from_slice(bytes);
        let complete = requests(&seen.bytes).len();
        let new = complete - seen.answered;
        seen.answered = complete;
        new
    }

    /// What came, by connection.
    pub fn bytes(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap().iter().map(|seen| seen.bytes.clone()).collect()
    }

    /// The request lines that a strict reader finds, in the order of the connections.
    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().flat_map(|seen| requests(&seen.bytes)).collect()
    }
}

/// The lines of the complete requests in these bytes; panics on what a strict reader would refuse.
fn requests(mut bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(end) = position(bytes, b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes = &bytes[end + 4..];
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap().to_owned();
        let fields: Vec<(String, &str)> = lines
            .map(|l| l.split_once(": ").unwrap_or_else(|| panic!("no field: {l:?}")))
            .map(|(n, v)| (n.to_ascii_lowercase(), v))
            .collect();
        let values = |name: &str| fields.iter().filter(|(n, _)| n == name).map(|(_, v)| *v).collect::<Vec<_>>();
        assert_eq!(values("host").len(), 1, "{head}");
        let rest = match (&values("content-length")[..], &values("transfer-encoding")[..]) {
            ([], []) => Some(bytes),
            ([length], []) => bytes.get(length.parse().expect("a length")..),
            ([], ["chunked"]) => after_chunks(bytes),
            _ => panic!("ambiguous framing: {head}"),
        };
        let Some(rest) = rest else { break };
        bytes = rest;
        found.push(line);
    }
    found
}

fn after_chunks(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let end = position(bytes, b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..end]).expect("a size");
        let size = usize::from_str_radix(size, 16).expect("a size in hex, and nothing else");
        bytes = bytes.get(end + 2 + size..)?;
        assert!(bytes.len() < 2 || bytes.starts_with(b"\r\n"), "a chunk ends with its line");
        bytes = bytes.get(2..)?;
        if size == 0 {
            return Some(bytes);
        }
    }
}

fn position(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    bytes.windows(mark.len()).position(|w| w == mark)
}
