//! Where requests come in and answers go out: the listener, what it refuses, and the pass-through of all that is no
//! callback.

mod answer;
pub mod body;
pub mod challenges;
mod connection;
pub mod forwarded;
pub mod headers;
mod http2;
pub mod listener;
mod openings;
pub mod passthrough;
pub mod proxy_protocol;
pub mod reception;
mod room;
mod stream;
pub mod tls;

pub use self::{
    body::Body,
    forwarded::Client,
    listener::{Handler, Listener, Peer},
};
