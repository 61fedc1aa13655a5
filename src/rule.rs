//! Which policy a request and its event get.
pub mod path;
