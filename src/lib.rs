//! Oncegate: a reverse proxy that lets every payment callback through to an invoicing app once.
//!
//! The floors, from the top; arrows run downward only.

<<<<<<< HEAD
pub mod dispatch;
pub mod intake;
pub mod permit;

pub mod store;
=======
pub mod admin;
pub mod demo;
>>>>>>> workshop
pub mod telemetry;

pub mod callback;
pub mod expression;
pub mod provider;
pub mod rule;
pub mod transaction;

pub mod time;
