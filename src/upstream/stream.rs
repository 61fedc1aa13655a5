//! A byte stream to the app that knows whether anything was ever written to it, and what was read from it ahead.

use std::{
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::client::TlsStream;

use super::{body::BodyError, chunks::Piece, head::Framing};

/// The ways to the app.
pub(super) enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A wire, and what is known of the request that is written to it.
pub(super) struct Stream {
    wire: Wire,
    wrote: bool,
    deaf: bool,
}

impl Stream {
    pub(super) const fn new(wire: Wire) -> Self {
        Self { wire, wrote: false, deaf: false }
    }

    /// Forgets the request before.
    pub(super) const fn begin(&mut self) {
        self.wrote = false;
    }

    /// Whether it took a single byte since [`begin`](Self::begin).
    pub(super) const fn wrote(&self) -> bool {
        self.wrote
    }

    /// Notes what a write came to.
    ///
    /// An app may answer early and close: the rest of the request then fails to be written while the answer lies ready
    /// to be read. So an app that no longer listens is written to in vain, and reading says how it ended: both
    /// directions are over by then, so that reading never waits.
    fn note(&mut self, written: io::Result<usize>, offered: usize) -> io::Result<usize> {
        match written {
            Ok(n) => {
                self.wrote |= n > 0;
                Ok(n)
            }
            Err(e) if is_deaf(&e) && !matches!(self.wire, Wire::Tls(_)) => {
                self.deaf = true;
                Ok(offered)
            }
            Err(e) => Err(e),
        }
    }
}

fn is_deaf(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

macro_rules! on_wire {
    ($self:ident, $wire:ident => $call:expr) => {
        match &mut $self.wire {
            Wire::Tcp(wire) => {
                let $wire = Pin::new(wire);
                $call
            }
            Wire::Unix(wire) => {
                let $wire = Pin::new(wire);
                $call
            }
            Wire::Tls(wire) => {
                let $wire = Pin::new(&mut **wire);
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        on_wire!(self, wire => wire.poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Ready(Ok(buf.len()));
        }
        // TLS may have written a part of what it then fails to write: there, a try counts as done.
        self.wrote |= matches!(self.wire, Wire::Tls(_));
        let written = ready!(on_wire!(self, wire => wire.poll_write(cx, buf)));
        Poll::Ready(self.note(written, buf.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        on_wire!(self, wire => wire.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(self, wire => wire.poll_shutdown(cx))
    }
}

/// Room for one read; more where a read has filled it.
const ROOM: usize = 8 * 1024;
const MOST_ROOM: usize = 64 * 1024;

/// What the app sends, with what was read of it ahead.
pub(super) struct Inlet<R> {
    pub(super) from: R,
    pub(super) read: BytesMut,
    room: usize,
}

impl<R: AsyncRead + Unpin> Inlet<R> {
    pub(super) fn new(from: R, read: BytesMut) -> Self {
        Self { from, read, room: ROOM }
    }

    /// Reads more of what is there; 0 at the end.
    pub(super) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.reserve(self.room);
        let room = self.read.capacity() - self.read.len();
        let count = ready!(pin!(self.from.read_buf(&mut self.read)).poll(cx))?;
        self.room = if count == room { (self.room * 2).min(MOST_ROOM) } else { ROOM };
        Poll::Ready(Ok(count))
    }

    /// The next piece of a body that is framed like this.
    pub(super) fn poll_piece(&mut self, framing: &mut Framing, cx: &mut Context<'_>) -> Poll<Result<Piece, BodyError>> {
        loop {
            match framing {
                Framing::Length(0) => return Poll::Ready(Ok(Piece::End(http::HeaderMap::new()))),
                Framing::Length(left) if !self.read.is_empty() => {
                    let taken = self.read.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= taken as u64;
                    return Poll::Ready(Ok(Piece::Data(self.read.split_to(taken).freeze())));
                }
                Framing::Close if !self.read.is_empty() => {
                    return Poll::Ready(Ok(Piece::Data(self.read.split().freeze())));
                }
                Framing::Chunked(chunks) => {
                    if let Some(piece) = chunks.next(&mut self.read).map_err(BodyError::broken)? {
                        return Poll::Ready(Ok(piece));
                    }
                }
                Framing::Length(_) | Framing::Close => {}
            }
            match ready!(self.poll_more(cx)) {
                Ok(0) if *framing == Framing::Close => return Poll::Ready(Ok(Piece::End(http::HeaderMap::new()))),
                Ok(0) => return Poll::Ready(Err(BodyError::broken("the app hung up in the middle of it"))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(BodyError::broken(error))),
            }
        }
    }
}

/// A stream on which both ends speak a protocol of their own now.
pub struct Tunnel(Inlet<Stream>);

impl Tunnel {
    pub(super) const fn new(inlet: Inlet<Stream>) -> Self {
        Self(inlet)
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ahead = &mut self.0.read;
        if ahead.is_empty() {
            return Pin::new(&mut self.0.from).poll_read(cx, buf);
        }
        let taken = ahead.len().min(buf.remaining());
        buf.put_slice(&ahead[..taken]);
        ahead.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.from).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.from).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.from).poll_shutdown(cx)
    }
}
