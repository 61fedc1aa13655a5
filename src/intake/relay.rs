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

use crate::{
    dispatch::App,
    permit::Permit,
    store::Store,
    transaction::{lock::LockName, policy::Policy},
};

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
    policy: &Policy,
    returned: Vec<LockName>,
) -> Response<Relayed> {
    let (head, body) = response.into_parts();
    let (into_buffer, buffered) = mpsc::unbounded_channel();
    let (into_rest, rest) = mpsc::channel(FRAMES);
    let (linger, limit) = (policy.linger, policy.timeout);
    let into = Into { buffer: into_buffer, rest: into_rest };
    tokio::spawn(async move { take_in(body, permit, linger, limit, returned, into).await });
    Response::from_parts(head, Relayed { buffered, rest, ended: false })
}

/// The two ends that are filled.
struct Into {
    buffer: mpsc::UnboundedSender<Piece>,
    rest: mpsc::Sender<Piece>,
}

async fn take_in<S: Store, A: App>(
    mut body: A::Body,
    permit: Permit<S, A>,
    linger: Duration,
    limit: Duration,
    returned: Vec<LockName>,
    into: Into,
) {
    let mut whole = false;
    match tokio::time::timeout(limit, take_into_buffer(&mut body, &into.buffer)).await {
        Ok(Ok(all)) => {
            whole = all;
            if let Err(error) = permit.end(linger, returned).await {
                tracing::error!(%error, "the lease of a return could not be given back");
            }
        }
        // No outcome: the permit is dropped, and its lease kept for as long as the app may be at work.
        Ok(Err(error)) => {
            _ = into.buffer.send(Err(error));
            return;
        }
        // Nor here; but who reads shall have the rest.
        Err(_) => drop(permit),
    }
    if whole {
        _ = into.buffer.send(Ok(None));
    }
    drop(into.buffer);
    while !whole {
        let piece = body.frame().await.transpose().map_err(|error| broke_off(&error));
        whole = !matches!(piece, Ok(Some(_)));
        // Whoever stopped reading does not stop the app.
        _ = into.rest.send(piece).await;
    }
}

/// Takes in all that the buffer holds; whether that was all.
async fn take_into_buffer<B: Body<Data = Bytes, Error: Display> + Unpin>(
    body: &mut B,
    into_buffer: &mpsc::UnboundedSender<Piece>,
) -> Result<bool, BrokeOff> {
    // A larger answer is known by its head: the app has done its work and only speaks on.
    if usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX) > BUFFER {
        return Ok(false);
    }
    let mut taken = 0;
    while taken <= BUFFER {
        let Some(frame) = body.frame().await else { return Ok(true) };
        let frame = frame.map_err(|error| broke_off(&error))?;
        taken += frame.data_ref().map_or(0, Bytes::len);
        _ = into_buffer.send(Ok(Some(frame)));
    }
    Ok(false)
}

fn broke_off(error: &impl Display) -> BrokeOff {
    BrokeOff(error.to_string())
}
