//! A request on its way to the app: its head and as much of its body as is at hand go in one write.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use http::{
    HeaderMap, HeaderValue, Method, Uri,
    header::{TRAILER, UPGRADE},
};
use hyper::body::Body;
use tokio::io::AsyncWrite;

use super::{
    body::{BodyError, Payload},
    chunks,
    head::{self, Length},
};

/// So much is gathered before it is written.
const ENOUGH: usize = 16 * 1024;

/// Why a request got stuck.
pub(super) enum Stuck {
    /// Its body broke off.
    Body(BodyError),
    /// The wire broke.
    Wire(io::Error),
}

/// What the head of a request says, the framing aside.
#[derive(Clone, Copy, Debug)]
pub struct Outline<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target, in origin form.
    pub uri: &'a Uri,
    /// The fields.
    pub fields: &'a HeaderMap,
}

/// A request, and what of it is ready to be written.
pub(super) struct Outgoing {
    pub(super) method: Method,
    /// Whether it asks for another protocol.
    pub(super) upgrade: bool,
    /// The trailer fields that its head named.
    announced: Vec<HeaderValue>,
    body: Payload,
    /// How much of the body is still to be taken.
    left: Length,
    ready: BytesMut,
    /// Whether the body has been taken to its end.
    taken: bool,
    /// Whether all of it is out.
    done: bool,
}

impl Outgoing {
    /// Begins with the head, in a buffer that is empty.
    pub(super) fn new(outline: Outline<'_>, body: Payload, mut ready: BytesMut) -> Self {
        let left = body.size_hint().exact().map_or(Length::Unknown, Length::Exactly);
        head::write(&mut ready, outline, left);
        let announced = match left {
            Length::Unknown => outline.fields.get_all(TRAILER).iter().cloned().collect(),
            Length::Exactly(_) => Vec::new(),
        };
        let upgrade = outline.fields.contains_key(UPGRADE);
        Self { method: outline.method.clone(), upgrade, announced, body, left, ready, taken: false, done: false }
    }

    pub(super) const fn is_done(&self) -> bool {
        self.done
    }

    /// The buffer, for the next request.
    pub(super) fn into_buffer(self) -> BytesMut {
        self.ready
    }

    /// The body as it was, if it can be had again.
    pub(super) fn into_body(self) -> Option<Payload> {
        self.body.is_untouched().then_some(self.body)
    }

    /// Writes what can be written; ready when all is out.
    pub(super) fn poll_write<W: AsyncWrite + Unpin>(
        &mut self,
        wire: &mut W,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Stuck>> {
        while !self.done {
            self.gather(cx).map_err(Stuck::Body)?;
            if self.ready.is_empty() {
                ready!(Pin::new(&mut *wire).poll_flush(cx)).map_err(Stuck::Wire)?;
                if !self.taken {
                    return Poll::Pending;
                }
                self.done = true;
                break;
            }
            match ready!(Pin::new(&mut *wire).poll_write(cx, &self.ready)).map_err(Stuck::Wire)? {
                0 => return Poll::Ready(Err(Stuck::Wire(io::ErrorKind::WriteZero.into()))),
                written => self.ready.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes what is at hand of the body, up to a limit.
    fn gather(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        while !self.taken && self.ready.len() < ENOUGH {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Pending => break,
                Poll::Ready(None) => self.end(&HeaderMap::new())?,
                Poll::Ready(Some(frame)) => match frame?.into_data() {
                    Ok(data) => self.take(&data)?,
                    Err(frame) => self.end(&frame.into_trailers().unwrap_or_default())?,
                },
            }
        }
        Ok(())
    }

    fn take(&mut self, data: &[u8]) -> Result<(), BodyError> {
        match &mut self.left {
            Length::Unknown => chunks::write(&mut self.ready, data),
            Length::Exactly(left) => {
                *left = left
                    .checked_sub(data.len() as u64)
                    .ok_or_else(|| BodyError::broken("it is longer than it says"))?;
                self.ready.extend_from_slice(data);
                self.taken = *left == 0;
            }
        }
        Ok(())
    }

    fn end(&mut self, trailers: &HeaderMap) -> Result<(), BodyError> {
        self.taken = true;
        match self.left {
            Length::Unknown => {
                let named = self.named(trailers);
                chunks::write_end(&mut self.ready, &named);
            }
            Length::Exactly(0) => {}
            Length::Exactly(_) => return Err(BodyError::broken("it is shorter than it says")),
        }
        Ok(())
    }

    /// Those of the trailer fields that the head named.
    fn named(&self, trailers: &HeaderMap) -> HeaderMap {
        let names = || self.announced.iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
        let is_named = |wanted: &str| names().any(|name| name.trim().eq_ignore_ascii_case(wanted));
        let kept = trailers.iter().filter(|(name, _)| is_named(name.as_str()));
        kept.map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}
