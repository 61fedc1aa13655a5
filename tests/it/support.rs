//! What wire tests are made of: a raw end of a connection, an app played by hand, and a gate in front of it.

use std::time::Duration;

pub mod acme;
pub mod app;
pub mod authority;
pub mod backend;
pub mod curl;
pub mod database;
pub mod frames;
pub mod gate;
pub mod office;
pub mod process;
pub mod promql;
pub mod shop;
pub mod standing;
pub mod till;
pub mod wire;

pub use self::{
    acme::Double,
    app::App,
    authority::Authority,
    database::{MariaDb, Postgres},
    gate::Gate,
    office::Office,
    shop::Shop,
    standing::{Standing, Told},
    till::Till,
    wire::Wire,
};

pub const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// So much time goes by at once, as far as timers are concerned; for tests whose other ends live in the same task's runtime.
pub async fn passes(span: Duration) {
    tokio::time::pause();
    tokio::time::advance(span).await;
    tokio::time::resume();
}
