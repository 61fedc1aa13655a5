//! Tests at the door, one file per part.

mod telemetry;
