//! The decision core: what is known of each transaction, and the pure function by which it changes.
//!
//! No clock, no chance, no I/O: the same state and the same input give the same transition, on every machine.

pub mod arrival;
pub mod effect;
pub mod history;
pub mod identity;
pub mod learned;
pub mod lock;
pub mod money;
pub mod policy;
pub mod state;
pub mod transition;

#[cfg(test)]
mod tests;
