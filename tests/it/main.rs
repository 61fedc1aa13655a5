//! The integration tests, in one binary so that they are linked once; each file is named as the part it tests.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic, in its helpers too")]

mod dialect;
