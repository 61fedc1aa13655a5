//! `oncegate run`: stands in front of the app.

use std::{path::Path, process::ExitCode, sync::Arc};

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::Config,
    gateway,
    telemetry::{Metrics, start_logging},
};

/// What `run` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Signals:
  SIGTERM, SIGINT    take nothing more in, finish what is under way within `gateway.drain`, end")]
pub struct Args {}

/// Runs the gate until it is told to stop by SIGTERM or SIGINT; then it finishes what is under way.
///
/// # Errors
///
/// When the configuration has faults, or the gate cannot start.
pub fn run(_args: &Args, config: &Path) -> anyhow::Result<ExitCode> {
    let config = super::load(config)?;
    let metrics = Arc::new(Metrics::new());
    let _log = start_logging(config.log, &metrics.log_lines_dropped).context("cannot write the log")?;
    runtime(config.gateway.threads)?.block_on(serve(config, metrics))
}

/// On one core everything runs on this thread: no other could help, and handing over would cost.
fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    match if threads == 0 { cores } else { threads } {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        threads => tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

async fn serve(config: Config, metrics: Arc<Metrics>) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let limit = config.gateway.drain;
    let upstream = config.upstream.url.clone();
    let preset = config.preset.unwrap_or("none");
    let running = gateway::start(config, metrics).await?;
    let listen: Vec<_> = running.addresses.iter().map(ToString::to_string).collect();
    let admin = running.admin.map(|address| address.to_string()).unwrap_or_default();
    tracing::info!(listen = listen.join(" "), upstream, admin, preset, "the gate stands");
    tokio::select! {
        _ = terminate.recv() => tracing::info!(?limit, "told to stop: finishing what is under way"),
        _ = interrupt.recv() => tracing::info!(?limit, "interrupted: finishing what is under way"),
    }
    let drained = running.stop().await;
    if drained.unfinished > 0 {
        tracing::warn!(connections = drained.unfinished, "not everything was finished in time");
    }
    Ok(ExitCode::SUCCESS)
}
