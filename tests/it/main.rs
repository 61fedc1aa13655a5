//! The gate on real sockets.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod passthrough;
mod support;
