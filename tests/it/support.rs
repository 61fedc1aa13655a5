//! What wire tests are made of: a raw end of a connection, an app played by hand, and a gate in front of it.

pub mod app;
pub mod gate;
pub mod wire;

pub use self::{app::App, gate::Gate, wire::Wire};
