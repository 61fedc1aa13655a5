//! The app behind a running gate: whatever comes is a visit, which the test answers when and as it likes.

use std::time::Duration;

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

use super::wire::{Head, soon};

/// What Invoice Ninja says to a webhook.
pub const BRACKETS: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n[]";
/// What Invoice Ninja says to a payer who comes back, with cookies that are nobody else's.
pub const WELCOME: &str = "HTTP/1.1 302 Found\r\nlocation: /client/payments/Opnel5aKBz\r\n\
    set-cookie: XSRF-TOKEN=secret-1; path=/\r\nset-cookie: invoice_ninja_session=secret-2; path=/; httponly\r\n\
    set-cookie: remember_contact=secret-3; path=/; httponly\r\ncontent-type: text/html; charset=utf-8\r\n\
    content-length: 6\r\n\r\n<p>hi!";

/// The app.
pub struct Office {
    port: u16,
    visits: mpsc::UnboundedReceiver<Visit>,
}

/// An app that is down: nobody listens at its address, and nobody else can take it.
pub struct Closed(TcpSocket);

impl Closed {
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        Self(socket)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.0.local_addr().unwrap())
    }

    /// It is up again.
    pub fn open(self) -> Office {
        Office::serving(self.0.listen(1024).unwrap())
    }
}

/// One request in the app, which is there until it is answered.
#[derive(Debug)]
pub struct Visit {
    /// Every byte of it.
    pub raw: String,
    pub head: Head,
    pub body: String,
    /// When it was there as a whole.
    pub at: Instant,
    reply: oneshot::Sender<(String, After)>,
    cut: watch::Receiver<bool>,
}

/// What becomes of the connection after the answer.
#[derive(Debug)]
enum After {
    Kept,
    Ended,
    Reset,
}

impl Office {
    pub async fn open() -> Self {
        Closed::new().open()
    }

    fn serving(listener: TcpListener) -> Self {
        let port = listener.local_addr().unwrap().port();
        let (into, visits) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, into.clone()));
            }
        });
        Self { port, visits }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The next request.
    pub async fn next(&mut self) -> Visit {
        soon(self.visits.recv()).await.expect("the app is open")
    }

    /// Whether nobody comes within this time. It can be long enough to see what must not happen, never too short.
    pub async fn is_quiet_for(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.visits.recv()).await.is_err()
    }

    /// Whether nobody has come whom the test has not seen.
    pub fn is_quiet(&mut self) -> bool {
        self.visits.try_recv().is_err()
    }

    /// Answers whatever comes from now on; keeps what came.
    pub fn answer_all(mut self, answer: &'static str) -> mpsc::UnboundedReceiver<Visit> {
        let (into, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(mut visit) = self.visits.recv().await {
                let (reply, _) = oneshot::channel();
                let reply = std::mem::replace(&mut visit.reply, reply);
                let _ = reply.send((answer.to_owned(), After::Kept));
                let _ = into.send(visit);
            }
        });
        seen
    }
}

impl Visit {
    /// The request line.
    pub fn line(&self) -> &str {
        &self.head.line
    }

    /// Answers, and keeps the connection.
    pub fn answer(self, bytes: impl Into<String>) {
        let _ = self.reply.send((bytes.into(), After::Kept));
    }

    /// Answers with this status and text, and keeps the connection.
    pub fn says(self, status: u16, text: &str) {
        self.answer(format!(
            "HTTP/1.1 {status} X\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{text}",
            text.len()
        ));
    }

    /// Writes this and ends the connection.
    pub fn ends(self, bytes: impl Into<String>) {
        let _ = self.reply.send((bytes.into(), After::Ended));
    }

    /// Writes this and resets the connection.
    pub fn resets(self, bytes: impl Into<String>) {
        let _ = self.reply.send((bytes.into(), After::Reset));
    }

    /// Whether the gate has hung up on it.
    pub fn is_cut(&self) -> bool {
        *self.cut.borrow()
    }
}

async fn serve(mut stream: TcpStream, into: mpsc::UnboundedSender<Visit>) {
    let mut read = Vec::new();
    loop {
        let Some(end) = read.windows(4).position(|w| w == b"\r\n\r\n") else {
            match stream.read_buf(&mut read).await {
                Ok(1..) => continue,
                _ => return,
            }
        };
        let head = Head::parse(std::str::from_utf8(&read[..end + 4]).expect("heads are text"));
        let length: usize = head.all("content-length").first().map_or(0, |length| length.parse().expect("a length"));
        assert!(head.all("transfer-encoding").is_empty(), "callbacks are whole before they go: {head:?}");
        while read.len() < end + 4 + length {
            if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
                return;
            }
        }
        let rest = read.split_off(end + 4 + length);
        let raw = String::from_utf8(std::mem::replace(&mut read, rest)).expect("text");
        let body = raw[end + 4..].to_owned();
        let ((reply, mut said), (hung_up, cut)) = (oneshot::channel(), watch::channel(false));
        if into.send(Visit { raw, head, body, at: Instant::now(), reply, cut }).is_err() {
            return;
        }
        let said = tokio::select! {
            said = &mut said => said,
            more = stream.read_buf(&mut read) => {
                assert!(!matches!(more, Ok(1..)), "nothing is sent before the answer is there");
                hung_up.send_replace(true);
                return;
            }
        };
        let Ok((bytes, after)) = said else { return };
        if stream.write_all(bytes.as_bytes()).await.is_err() {
            return;
        }
        match after {
            After::Kept => {}
            After::Ended => return drop(stream.shutdown().await),
            After::Reset => return drop(SockRef::from(&stream).set_linger(Some(Duration::ZERO))),
        }
    }
}
