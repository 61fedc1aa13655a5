//! Oncegate: a reverse proxy that lets every payment callback through to an invoicing app once.
//!
//! The floors, from the top; arrows run downward only.

pub mod cli;

pub mod config;

pub mod callback;
pub mod expression;
pub mod provider;
pub mod rule;
pub mod transaction;

pub mod time;
