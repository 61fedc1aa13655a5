//! The app, as far as a callback needs it: a connection that stands, and one request sent over it.

use std::{fmt::Display, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Response;
use hyper::body::Body;

use crate::{
    transaction::{effect::Ending, state::StoredRequest},
    upstream::{self, Outline, Upstream, Use},
};

/// Why an outcome is unknown when the app took longer than it may.
pub const TOO_SLOW: &str = "no answer in time";

/// The app, as far as a callback needs it.
pub trait App: Send + Sync + 'static {
    /// A connection that stands.
    type Connection: Send;
    /// The body of an answer, as it comes.
    type Body: Body<Data = Bytes, Error: Display + Send> + Send + Unpin + 'static;

    /// Opens a connection, or takes one that is surely alive. Nothing has been sent when this fails; says why.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, String>> + Send;

    /// A connection that is at hand and surely alive, if there is one.
    fn at_hand(&self) -> Option<Self::Connection>;

    /// Sends one request and returns the head of its answer, which may take `limit`.
    fn send(
        &self,
        connection: Self::Connection,
        request: &StoredRequest,
        limit: Duration,
    ) -> impl Future<Output = Result<Response<Self::Body>, SendError>> + Send;
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Provably nothing was written.
    #[error("{0}")]
    NotSent(String),
    /// The app may have read some or all of it.
    #[error("{0}")]
    Unknown(String),
    /// The answer did not come in time, and the app may have read all of it.
    #[error("no answer in time")]
    TooSlow,
}

impl App for Arc<Upstream> {
    type Connection = upstream::Connection;
    type Body = upstream::Answer;

    async fn connect(&self) -> Result<Self::Connection, String> {
        Upstream::connect(self, Use::Callback).await.map_err(|error| error.to_string())
    }

    fn at_hand(&self) -> Option<Self::Connection> {
        self.kept(Use::Callback)
    }

    async fn send(
        &self,
        connection: Self::Connection,
        request: &StoredRequest,
        limit: Duration,
    ) -> Result<Response<Self::Body>, SendError> {
        let StoredRequest { method, uri, headers, body } = request;
        let outline = Outline { method, uri, fields: headers };
        connection.within(limit).send_whole(outline, body.clone()).await.map_err(|error| match error {
            upstream::SendError::NotSent { cause, .. } => SendError::NotSent(cause.to_string()),
            upstream::SendError::Unknown(upstream::Unknown::Timeout(_)) => SendError::TooSlow,
            upstream::SendError::Unknown(error) => SendError::Unknown(error.to_string()),
        })
    }
}

impl From<SendError> for Ending {
    fn from(error: SendError) -> Self {
        match error {
            SendError::NotSent(why) => Self::NotSent(why),
            SendError::Unknown(why) => Self::Unknown(why, None),
            SendError::TooSlow => Self::Unknown(TOO_SLOW.to_owned(), None),
        }
    }
}
