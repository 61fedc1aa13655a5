//! Oncegate: a reverse proxy that lets every payment callback through to an invoicing app once.
//!
//! The map, floor by floor; an arrow between two parts runs downward only. ARCHITECTURE.md tells the rest.

// The roof: what a person types, what shows the gate off, and where its parts are put together.
pub mod cli;

pub mod demo;

pub mod gateway;

pub mod config;

// Faces: a callback in, an answer out; figures and health for who operates it; certificates for the first.
pub mod acme;
pub mod admin;
pub mod ingress;

// The road: from a request to a decision, from a decision to the app.
pub mod intake;

pub mod permit;

pub mod dispatch;

// Hands: whom we ask, what is kept, what is counted, the connections to the app, the files that may change.
pub mod lookup;

pub mod inquiry;
pub mod store;
pub mod telemetry;
pub mod upstream;

pub mod outbound;
pub mod watch;

// Thought: no clock, no chance, no I/O.
pub mod rule;

pub mod provider;
pub mod transaction;

pub mod expression;

pub mod callback;

// Ground.
pub mod digits;

pub mod spread;

pub mod time;
