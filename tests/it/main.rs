//! Tests at the door, one file per part.

mod admin;
mod demo;
mod telemetry;
