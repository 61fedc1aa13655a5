//! A return's answer on its way to the browser, so that the lease ends with the app's last byte and not with the
//! browser's reading.

use std::{
    fmt::Display,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame};
use tokio::sync::mpsc;

use crate::{dispatch::App, permit::Permit, store::Store, transaction::lock::LockName};

/// So much of an answer is taken in without waiting for the browser.
const BUFFER: usize = 256 << 10;
/// What is under way between the two beyond that.
const FRAMES: usize = 4;

/// The answer broke off on the app's side.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the answer broke off: {0}")]
pub struct BrokeOff(String);

/// A frame, or `None` for the end: a body that merely stops was cut off.
type Piece = Result<Option<Frame<Bytes>>, BrokeOff>;

/// The body of a relayed answer.
#[derive(Debug)]
pub struct Relayed {
    buffered: mpsc::UnboundedReceiver<Piece>,
    rest: mpsc::Receiver<Piece>,
    ended: bool,
}

impl Body for Relayed {
    type Data = Bytes;
    type Error = BrokeOff;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let piece = match ready!(self.buffered.poll_recv(context)) {
            Some(piece) => Some(piece),
            None => ready!(self.rest.poll_recv(context)),
        };
        let piece = piece.unwrap_or_else(|| Err(broke_off(&"whoever took it in is gone"))).transpose();
        self.ended = !matches!(piece, Some(Ok(_)));
        Poll::Ready(piece)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// Takes the answer in, in a task of its own: a browser that goes away is not propagated, for the app works on.
pub fn relay<S: Store, A: App>(
    response: Response<A::Body>,
    permit: Permit<S, A>,
    linger: Duration,
    returned: Vec<LockName>,
) -> Response<Relayed> {
    let (head, body) = response.into_parts();
    let (into_buffer, buffered) = mpsc::unbounded_channel();
    let (into_rest, rest) = mpsc::channel(FRAMES);
    tokio::spawn(async move { take_in(body, permit, linger, returned, into_buffer, into_rest).await });
    Response::from_parts(head, Relayed { buffered, rest, ended: false })
}

async fn take_in<S: Store, A: App>(
    mut body: A::Body,
    permit: Permit<S, A>,
    linger: Duration,
    returned: Vec<LockName>,
    into_buffer: mpsc::UnboundedSender<Piece>,
    into_rest: mpsc::Sender<Piece>,
) {
    let mut taken = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut whole = false;
    // A larger answer is known by its head: the app has done its work and only speaks on.
    if taken <= BUFFER {
        taken = 0;
        loop {
            match body.frame().await {
                None => {
                    whole = true;
                    break;
                }
                Some(Err(error)) => {
                    // No outcome: the permit is dropped, and its lease kept for as long as the app may be at work.
                    _ = into_buffer.send(Err(broke_off(&error)));
                    return;
                }
                Some(Ok(frame)) => {
                    taken += frame.data_ref().map_or(0, Bytes::len);
                    _ = into_buffer.send(Ok(Some(frame)));
                    if taken > BUFFER {
                        break;
                    }
                }
            }
        }
    }
    if whole {
        _ = into_buffer.send(Ok(None));
    }
    drop(into_buffer);
    if let Err(error) = permit.end(linger, returned).await {
        tracing::error!(%error, "the lease of a return could not be given back");
    }
    while !whole {
        let piece = body.frame().await.transpose().map_err(|error| broke_off(&error));
        whole = !matches!(piece, Ok(Some(_)));
        // Whoever stopped reading does not stop the app.
        _ = into_rest.send(piece).await;
    }
}

fn broke_off(error: &impl Display) -> BrokeOff {
    BrokeOff(error.to_string())
}
