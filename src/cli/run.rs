//! `oncegate run`: stands in front of the app.

use std::{path::Path, process::ExitCode, sync::Arc};

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    config::Config,
    gateway::{self, Running, passed::Passed, reload::Reload, supervisor::Supervisor},
    telemetry::{LogControl, Metrics, Reloaded, start_logging},
};

/// What systemd shows of the gate.
const STANDS: &str = "The gate stands";
const REFUSED: &str = "The gate stands, by the configuration before: the new one is refused, see the log";

/// What `run` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Signals:
  SIGHUP             take up the configuration as it stands in its file; a faulty one is refused
  SIGTERM, SIGINT    take nothing more in, finish what is under way within `gateway.drain`, end")]
pub struct Args {}

/// Runs the gate until it is told to stop by SIGTERM or SIGINT; then it finishes what is under way.
///
/// # Errors
///
/// When the configuration has faults, or the gate cannot start.
pub fn run(_args: &Args, config: &Path) -> anyhow::Result<ExitCode> {
    let path = config;
    let (config, files) = super::load_with_files(path)?;
    let reload = Reload::of(path, files);
    let metrics = Arc::new(Metrics::new());
    let (log, _guard) = start_logging(config.log, &metrics.log_lines_dropped).context("cannot write the log")?;
    runtime(config.gateway.threads)?.block_on(serve(config, reload, metrics, log))
}

/// On one core everything runs on this thread: no other could help, and handing over would cost.
fn runtime(threads: usize) -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    match if threads == 0 { cores } else { threads } {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        threads => tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

async fn serve(config: Config, mut reload: Reload, metrics: Arc<Metrics>, log: LogControl) -> anyhow::Result<ExitCode> {
    // Before anything else: what comes before we listen to it would end us.
    let mut signals = Signals::listen()?;
    let upstream = config.upstream.url.clone();
    let preset = config.preset.unwrap_or("none");
    let mut running = gateway::start_with(config, metrics, Passed::from_env()?).await?;
    running.keep_log(log);
    let listen: Vec<_> = running.addresses.iter().map(ToString::to_string).collect();
    let admin = running.admin.map(|address| address.to_string()).unwrap_or_default();
    tracing::info!(listen = listen.join(" "), upstream, admin, preset, "the gate stands");
    let supervisor = Supervisor::from_env();
    supervisor.ready(STANDS);
    let why = tokio::select! {
        why = signals.end.told() => why,
        () = keep_up(&mut running, &mut reload, &mut signals.hangup, &supervisor) => "nothing is left to do",
    };
    tracing::info!(limit = ?running.drain(), "{why}: finishing what is under way");
    supervisor.stopping();
    let drained = running.stop().await;
    if drained.unfinished > 0 {
        tracing::warn!(connections = drained.unfinished, "not everything was finished in time");
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes up what changes in the configuration, for as long as the gate runs.
async fn keep_up(running: &mut Running, reload: &mut Reload, hangup: &mut Signal, supervisor: &Supervisor) {
    loop {
        let changed = tokio::select! {
            changed = reload.changed() => Some(changed),
            told = hangup.recv() => match told {
                Some(()) => None,
                None => return,
            },
        };
        supervisor.reloading();
        let reloaded = match changed {
            Some(changed) => reload.take_up_changed(running, &changed).await,
            None => {
                tracing::info!("told to read the configuration again");
                Some(reload.take_up_now(running).await)
            }
        };
        supervisor.ready(if reloaded == Some(Reloaded::Refused) { REFUSED } else { STANDS });
    }
}

/// What the gate is told from outside.
struct Signals {
    end: End,
    hangup: Signal,
}

/// That it shall end.
struct End {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { end: End { terminate, interrupt }, hangup: signal(SignalKind::hangup())? })
    }
}

impl End {
    async fn told(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "told to stop",
            _ = self.interrupt.recv() => "interrupted",
        }
    }
}
