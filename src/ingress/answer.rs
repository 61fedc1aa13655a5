//! How one request is answered, whichever version of HTTP it came in.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{
    HeaderValue, Method, Request, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE},
};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use super::{
    body::Body,
    challenges::Challenges,
    headers,
    http2::Reader,
    listener::{Handler, Peer},
    passthrough,
    stream::Exchange,
};
use crate::upstream::BodyError;

/// Answers a request that is fit to be passed on, and refuses every other.
pub(super) async fn answer<H: Handler>(
    handler: Arc<H>,
    challenges: Option<Arc<Challenges>>,
    mut request: Request<Incoming>,
    peer: Peer,
    exchange: Exchange,
    max_headers: usize,
    last: bool,
) -> Result<Response<Answered>, Infallible> {
    let (is_http2, is_head) = (request.version() == Version::HTTP_2, request.method() == Method::HEAD);
    let admitted = if is_http2 { headers::admit_http2(&mut request, max_headers) } else { headers::admit(&request) };
    let (mut response, last) = match admitted {
        Ok(()) => match challenges.and_then(|challenges| challenges.answer_at(request.uri().path())) {
            // Before any rule: the app shall not be asked for what it cannot know.
            Some(proof) => (proved(&proof), last),
            None => {
                let response = handler.handle(request, peer).await;
                // Whoever else is ready gets as far as this first: what is sent together wakes its reader once.
                tokio::task::yield_now().await;
                (response, last)
            }
        },
        Err(refusal) => (passthrough::plain(refusal.status(), format!("{refusal}\n")), true),
    };
    if is_http2 {
        if is_head {
            response = without_body(response);
        }
        return Ok(response.map(|body| Answered { body, exchange, reader: Reader::current() }));
    }
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        exchange.become_tunnel();
    } else if last {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| Answered { body, exchange, reader: None }))
}

fn proved(proof: &str) -> Response<Body> {
    let mut response = Response::new(Body::full(proof.to_owned()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    response
}

/// An answer of HTTP/2 to HEAD; the library leaves the body away for HTTP/1 only.
fn without_body(mut response: Response<Body>) -> Response<Body> {
    if let Some(length) = response.body().size_hint().exact().filter(|length| *length > 0) {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    response.map(|_| Body::Empty)
}

/// An answer's body; with it ends the exchange.
pub(super) struct Answered {
    body: Body,
    exchange: Exchange,
    /// Who reads it, where that is not told by how the whole connection is read.
    reader: Option<Arc<Reader>>,
}

impl HttpBody for Answered {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(reader) = &self.reader {
            reader.asks();
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.exchange.complete(),
            Some(_) => {
                if let Some(reader) = &self.reader {
                    reader.is_given_something();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            self.exchange.complete();
        }
    }
}
