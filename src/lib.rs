//! Oncegate: a reverse proxy that lets every payment callback through to an invoicing app once.
//!
//! The floors, from the top; arrows run downward only.

pub mod ingress;

pub mod upstream;

pub mod callback;
pub mod expression;
pub mod provider;
pub mod transaction;

pub mod time;
