//! Oncegate: a reverse proxy that lets every payment callback through to an invoicing app once.
//!
//! The floors, from the top; arrows run downward only.

pub mod intake;
pub mod permit;
pub mod dispatch;

pub mod store;
pub mod telemetry;

pub mod rule;
pub mod provider;
pub mod transaction;
pub mod expression;
pub mod callback;

pub mod time;
