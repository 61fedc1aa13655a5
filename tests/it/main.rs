//! The integration tests: one binary, one file for each part of the gate.

mod dialect;
mod telemetry;
