//! The decision core.

pub mod policy;
