//! A byte stream to the app that knows whether anything was ever written to it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::client::TlsStream;

/// What the pieces of one connection tell each other about the request that is on it.
#[derive(Debug, Default)]
pub(super) struct Trace {
    wrote: AtomicBool,
    body_taken: AtomicBool,
}

impl Trace {
    /// Forgets the request before.
    pub(super) fn begin(&self) {
        self.wrote.store(false, Ordering::Relaxed);
        self.body_taken.store(false, Ordering::Relaxed);
    }

    /// Whether the stream took a single byte since [`begin`](Self::begin).
    pub(super) fn wrote(&self) -> bool {
        self.wrote.load(Ordering::Acquire)
    }

    /// Says that the request's body has been taken to its end, or given up.
    pub(super) fn take_body(&self) {
        self.body_taken.store(true, Ordering::Release);
    }

    /// Whether the request's body has been taken to its end, or given up.
    pub(super) fn body_taken(&self) -> bool {
        self.body_taken.load(Ordering::Acquire)
    }
}

/// The ways to the app.
pub(super) enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A wire with its trace.
pub(super) struct Stream {
    wire: Wire,
    trace: Arc<Trace>,
    deaf: bool,
}

impl Stream {
    pub(super) fn new(wire: Wire, trace: Arc<Trace>) -> Self {
        Self { wire, trace, deaf: false }
    }

    /// TLS may have written a part of what it then fails to write: there, a try counts as done.
    fn presume(&self) {
        if matches!(self.wire, Wire::Tls(_)) {
            self.trace.wrote.store(true, Ordering::Release);
        }
    }

    /// Notes what a write came to.
    ///
    /// An app may answer early and close: the rest of the request then fails to be written while the answer lies ready
    /// to be read. So an app that no longer listens is written to in vain, and reading says how it ended: both
    /// directions are over by then, so that reading never waits.
    fn note(&mut self, written: io::Result<usize>, offered: usize) -> io::Result<usize> {
        match written {
            Ok(n) => {
                if n > 0 {
                    self.trace.wrote.store(true, Ordering::Release);
                }
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
        self.presume();
        let written = std::task::ready!(on_wire!(self, wire => wire.poll_write(cx, buf)));
        Poll::Ready(self.note(written, buf.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let offered = || bufs.iter().map(|b| b.len()).sum();
        if self.deaf {
            return Poll::Ready(Ok(offered()));
        }
        self.presume();
        let written = std::task::ready!(on_wire!(self, wire => wire.poll_write_vectored(cx, bufs)));
        Poll::Ready(self.note(written, offered()))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.wire {
            Wire::Tcp(_) | Wire::Unix(_) => true,
            Wire::Tls(tls) => tls.is_write_vectored(),
        }
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
