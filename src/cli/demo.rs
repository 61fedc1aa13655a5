//! `oncegate demo`: the founding race in one terminal, without the gate and with it.

use std::{
    io::{IsTerminal, stderr},
    net::SocketAddr,
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use anyhow::Context;

use crate::{
    config::{Loaded, World},
    demo::{self, GAP, INTRODUCTION, Stage, TRIALS, Targets, table::Progress},
    gateway,
    telemetry::Metrics,
};

/// What `demo` is told.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How often each scene is played, without the gate and with it
    #[arg(long, value_name = "N", default_value_t = TRIALS)]
    pub trials: u32,
}

/// Shows the race.
///
/// # Errors
///
/// When it cannot be shown.
pub fn run(args: &Args, _config: &Path) -> anyhow::Result<ExitCode> {
    super::print(format!("{INTRODUCTION}\n").as_bytes())?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(show(args.trials))
}

async fn show(trials: u32) -> anyhow::Result<ExitCode> {
    let stage = Stage::start(GAP).await.context("the little app could not be started")?;
    let loaded = Loaded::from_text("the demo's configuration", &stage.config(), &World::real());
    let config = loaded.into_config().map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
    let running = gateway::start(config, Arc::new(Metrics::new())).await?;
    let gate = targets(&running.addresses).context("the gate listens nowhere")?;
    let report = demo::compare(&stage, gate, trials, &mut Progress::new(stderr(), stderr().is_terminal())).await;
    running.stop().await;
    super::print(format!("{report}\n").as_bytes())?;
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One address of each family, so that the same callback comes over both.
fn targets(addresses: &[SocketAddr]) -> Option<Targets> {
    let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first())?;
    let second = addresses.iter().find(|address| address.is_ipv6()).unwrap_or(first);
    Some(Targets { first: *first, second: *second })
}
