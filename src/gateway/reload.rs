//! Takes up a changed configuration while the gate runs: loads it, checks it, compares it, applies it, and says what came
//! of it.
//!
//! A configuration is taken up as a whole or not at all: whatever can fail is done before anything is changed.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::bail;

use super::{
    Running, Tls, asker, desk_of, foresee, listen_key, looker,
    options::{dispatch_options, places, reception_options, rulebook, upstream_options},
    ports::Terms,
};
use crate::{
    config::{Config, Loaded, World, change::Change},
    telemetry::Reloaded,
    time::{Clock, SystemClock},
    upstream::Way,
    watch::{self, Content, Watch},
};

/// So often files are read that move while they are read; then what stands there is refused.
const MOST_READINGS: usize = 10;

/// The file by which a gate runs, and those that it names.
#[derive(Debug)]
pub struct Reload {
    path: PathBuf,
    /// The files that the running configuration was read from.
    applied: Vec<(PathBuf, Content)>,
    watch: Watch,
    every: Duration,
}

impl Reload {
    /// For a gate that was started by the file at `path`; `files` is what was read then.
    #[must_use]
    pub fn of(path: &Path, files: Vec<(PathBuf, Content)>) -> Self {
        Self { path: path.to_owned(), watch: Watch::of(files.clone()), applied: files, every: watch::EVERY }
    }

    /// Looks at the files so often, instead of each second.
    #[must_use]
    pub fn looking(mut self, every: Duration) -> Self {
        self.every = every;
        self.watch = self.watch.every(every);
        self
    }

    /// Waits until some of the files have changed, and says which. Nothing is missed when the future is dropped.
    pub async fn changed(&mut self) -> Vec<PathBuf> {
        self.watch.changed().await
    }

    /// Takes up files of which [`Self::changed`] has told. Says nothing where they move on meanwhile: then they will be
    /// told of again.
    pub async fn take_up_changed(&mut self, running: &mut Running, changed: &[PathBuf]) -> Option<Reloaded> {
        let loaded = self.load().await;
        if let Ok(loaded) = &loaded {
            let stands = |(path, read): &(PathBuf, Content)| {
                self.watch.known(path).is_none_or(|known| known == *read || known == Content::NoFile)
            };
            if !loaded.files.iter().all(stands) {
                return None;
            }
        }
        let files: Vec<_> = changed.iter().map(|path| path.display().to_string()).collect();
        tracing::info!(files = files.join(" "), "files of the configuration have changed");
        Some(self.take_up(loaded, running).await)
    }

    /// Takes the configuration up as it stands there now. One that is refused, and whose files move on while it is read, is
    /// read again: somebody is still writing, or has replaced one half of a pair.
    pub async fn take_up_now(&mut self, running: &mut Running) -> Reloaded {
        for _ in 0..MOST_READINGS {
            let loaded = self.load().await;
            let files = loaded.as_ref().map(|loaded| loaded.files.clone()).unwrap_or_default();
            let taken = self.try_to_take_up(loaded, running).await;
            if taken.is_ok() || !self.have_moved(files).await {
                return note(taken, running);
            }
            tracing::info!("the files of the configuration moved while they were read: they are read again");
        }
        let loaded = self.load().await;
        self.take_up(loaded, running).await
    }

    /// Whether any of these is another a moment later than it was read.
    async fn have_moved(&self, files: Vec<(PathBuf, Content)>) -> bool {
        tokio::time::sleep(self.every).await;
        let other = move || files.iter().any(|(path, read)| Content::at(path) != *read);
        tokio::task::spawn_blocking(other).await.unwrap_or_default()
    }

    /// Reads files and compiles rules, which callbacks shall not wait for.
    async fn load(&self) -> anyhow::Result<Loaded> {
        let path = self.path.clone();
        Ok(tokio::task::spawn_blocking(move || load(&path)).await?)
    }

    async fn take_up(&mut self, loaded: anyhow::Result<Loaded>, running: &mut Running) -> Reloaded {
        let taken = self.try_to_take_up(loaded, running).await;
        note(taken, running)
    }

    async fn try_to_take_up(
        &mut self,
        loaded: anyhow::Result<Loaded>,
        running: &mut Running,
    ) -> anyhow::Result<Reloaded> {
        let loaded = loaded?;
        let files = loaded.files.clone();
        let taken = try_to_take_up(loaded, running).await;
        if taken.is_ok() {
            self.applied.clone_from(&files);
        }
        // What is missing in a refused one may come; what the running one was read from may come back.
        let others = self.applied.iter().filter(|(path, _)| !files.iter().any(|(known, _)| known == path));
        self.watch = Watch::of(files.iter().chain(others).cloned()).every(self.every);
        taken
    }
}

/// Says what came of it, where all look.
fn note(taken: anyhow::Result<Reloaded>, running: &Running) -> Reloaded {
    let reloaded = taken.unwrap_or_else(|error| {
        tracing::error!(error = format!("{error:#}"), "the new configuration is refused; the one before stays");
        Reloaded::Refused
    });
    running.metrics.reloads.note(reloaded, SystemClock.now());
    reloaded
}

fn load(path: &Path) -> Loaded {
    let file = |path: &Path| {
        let metadata = fs::metadata(path)?;
        if metadata.is_file() { fs::read(path) } else { Err(io::Error::other("it is no file that can be read again")) }
    };
    Loaded::from_file(path, &World { file: &file, ..World::real() })
}

async fn try_to_take_up(loaded: Loaded, running: &mut Running) -> anyhow::Result<Reloaded> {
    if loaded.files.first().is_some_and(|(_, content)| *content == Content::of(b"")) {
        bail!("the file is empty, as it is while it is being written; to let everything through, write a comment");
    }
    let warnings = loaded.warnings.clone();
    let config = match loaded.into_config() {
        Ok(config) => config,
        Err(faults) => {
            for fault in &faults {
                tracing::error!(%fault, "the new configuration has a fault");
            }
            bail!("it has {} faults", faults.len());
        }
    };
    let change = running.change(config).await?;
    running.metrics.reloads.restart_needed(!change.restart.is_empty());
    if !change.is_nothing() {
        warnings.iter().for_each(|warning| tracing::warn!(%warning, "the new configuration"));
    }
    tell(&change);
    Ok(if change.has_effect() { Reloaded::Applied } else { Reloaded::Unchanged })
}

fn tell(change: &Change) {
    let words = |keys: &mut dyn Iterator<Item = String>| keys.collect::<Vec<_>>().join(" ");
    if change.has_effect() {
        let changed = words(&mut change.live.iter().cloned());
        let opened = words(&mut change.opened.iter().map(ToString::to_string));
        let closed = words(&mut change.closed.iter().map(ToString::to_string));
        tracing::info!(changed, opened, closed, "the new configuration holds for whatever comes from now on");
    } else {
        tracing::info!("nothing of the configuration has changed that a running gate can take up");
    }
    if !change.restart.is_empty() {
        let keys = words(&mut change.restart.iter().cloned());
        tracing::warn!(keys, "these keys hold from the next start on; all else holds now");
    }
    if change.parts_twins() {
        let rules = if change.renamed {
            "all, for upstream.url stands in every key".to_owned()
        } else {
            change.rekeyed.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        tracing::warn!(
            rules,
            "callbacks are known under other keys by these rules: of two that come before and after this change nobody \
             can tell that they are the same, so that both may be forwarded, one after the other"
        );
    }
}

impl Running {
    /// Takes up another configuration: whoever is connected, waits, is held or is in the app goes on as it was.
    ///
    /// # Errors
    ///
    /// When something of it cannot be had; nothing has changed then.
    pub async fn change(&mut self, after: Config) -> anyhow::Result<Change> {
        let change = Change::between(&self.config, &after);
        if !change.fixed.is_empty() {
            let keys: Vec<_> = change.fixed.iter().map(String::as_str).collect();
            bail!("{} cannot change in a gate that runs; restart it", keys.join(", "));
        }
        let after = after.in_a_gate_of(&self.config);
        let before = std::mem::replace(&mut self.config, after);
        let done = self.apply(&before, &change).await;
        if done.is_err() {
            self.config = before;
        }
        done.map(|()| change)
    }

    async fn apply(&mut self, before: &Config, change: &Change) -> anyhow::Result<()> {
        let after = &self.config;
        // What can fail.
        let terms = Terms { passed: &self.passed, shared: after.gateway.reuse_port };
        let (opened, sockets) = self.ports.open(&change.opened, &change.closed, terms, listen_key)?;
        let moves = before.admin.listen != after.admin.listen;
        let (come, go) = if moves { (desk_of(after), desk_of(before)) } else { (Vec::new(), Vec::new()) };
        let (desks, desk) = self.desk.ports.open(&come, &go, terms, |_| "admin.listen")?;
        let tls = if change.tls { Some(Tls::of(after)?) } else { None };
        let way = if upstream_options(before) == upstream_options(after)
            && before.upstream.ca_content == after.upstream.ca_content
        {
            None
        } else {
            Some(Way::new(upstream_options(after))?)
        };
        let lookup =
            if before.lookup == after.lookup { self.lookup.clone() } else { looker(after, self.clock, &self.metrics)? };
        let outbound = if self.road.can_ask() { None } else { asker(after)? };
        let (before_in_app, in_app) = (places(before), places(after));
        if before_in_app != in_app || dispatch_options(before) != dispatch_options(after) {
            self.road.resize(dispatch_options(after), in_app).await?;
        }
        // What cannot.
        if let Some(log) = &self.log {
            log.change(after.log);
        }
        if let Some(way) = way {
            self.upstream.go(way);
        }
        foresee(after, &self.metrics);
        self.road.ask_through(outbound);
        self.road.change(rulebook(after, lookup.clone()), reception_options(after));
        self.lookup = lookup;
        self.road.expect_token(after.admin.token.as_ref());
        self.drain.send_replace(after.gateway.drain);
        for asked in &change.closed {
            if let Some(bound) = self.ports.close(*asked) {
                self.control.close(bound);
            }
            if self.passed.has(asked.address) {
                tracing::warn!(
                    address = %asked,
                    "systemd goes on listening here, where callers wait in vain: take it out of the socket unit"
                );
            }
        }
        self.ports.extend(opened);
        let certified = tls.is_some();
        if let Some(tls) = tls {
            self.tls = tls;
        }
        // Those that close go before, so that they serve who waits there as they did; those that open come after, so that
        // they speak what they shall.
        self.control.change(self.tls.options(after, &self.metrics, &self.ports));
        sockets.into_iter().for_each(|socket| self.control.open(socket));
        self.addresses = self.ports.addresses();
        if moves {
            self.open_desk(desks, desk);
        }
        if certified {
            self.keep_certificates();
        }
        if before.upstream.check_every != self.config.upstream.check_every {
            self.try_the_app();
        }
        Ok(())
    }
}
