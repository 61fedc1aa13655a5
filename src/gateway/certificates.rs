//! The certificates that are shown, kept in step with the files they are in and the authority they come from.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::task::JoinHandle;

use crate::{
    acme::{Agent, Wanted},
    config::{CertificateSource, Config, TlsOptions},
    ingress::{
        challenges::Challenges,
        tls::{Certificate, Certificates, Files, FilesError},
    },
    outbound::TrustError,
    telemetry::Metrics,
    watch::{Content, EVERY, Watch},
};

/// The pause before files that are just being changed are looked at again, and how often that is done before the usual
/// pause: certificate and key are two files, and change one after the other.
const SOON: Duration = Duration::from_millis(20);
const LOOKS: usize = 10;

/// All certificates of a gate, and what keeps them.
pub(super) struct Keeper {
    shown: Arc<Certificates>,
    files: Vec<(usize, Files)>,
    agent: Option<(Agent, Arc<Challenges>, Vec<Wanted>)>,
}

impl Keeper {
    /// Makes ready; what was had from an authority before is taken up where it was kept.
    ///
    /// # Errors
    /// If certificates are to come from an authority and nobody can be trusted to be it.
    pub(super) fn new(config: &Config) -> Result<Self, TrustError> {
        let mut entries: Vec<_> = config.tls.iter().map(TlsOptions::entry).collect();
        let (mut files, mut wanted) = (Vec::new(), Vec::new());
        for (place, tls) in config.tls.iter().enumerate() {
            match &tls.source {
                CertificateSource::Files { files: found, .. } => files.push((place, found.clone())),
                CertificateSource::Acme => {
                    wanted.push(Wanted { place, label: Arc::clone(&tls.label), names: tls.names.clone() });
                }
            }
        }
        let mut agent = None;
        if !wanted.is_empty() {
            let challenges = Arc::new(Challenges::default());
            let made = Agent::new(config.acme.clone(), Arc::clone(&challenges))?;
            for Wanted { place, names, .. } in &wanted {
                entries[*place].certificate = made.kept(names).map(Arc::new);
            }
            agent = Some((made, challenges, wanted));
        }
        let challenges = agent.as_ref().map(|(_, challenges, _)| Arc::clone(challenges));
        Ok(Self { shown: Arc::new(Certificates::new(entries, challenges)), files, agent })
    }

    pub(super) fn shown(&self) -> &Certificates {
        &self.shown
    }

    /// The proofs that an authority may ask for.
    pub(super) fn challenges(&self) -> Option<Arc<Challenges>> {
        self.agent.as_ref().map(|(_, challenges, _)| Arc::clone(challenges))
    }

    /// Keeps them from now on, in tasks that end with the gate.
    pub(super) fn keep(self, metrics: &Arc<Metrics>) -> Vec<JoinHandle<()>> {
        for entry in self.shown.entries() {
            tell(metrics, &entry.label, entry.certificate.as_deref());
        }
        let mut tasks = Vec::new();
        if let Some((agent, _, wanted)) = self.agent {
            tasks.push(tokio::spawn(agent.keep(wanted, Arc::clone(&self.shown), Arc::clone(metrics))));
        }
        if !self.files.is_empty() {
            tasks.push(tokio::spawn(keep_files(self.files, self.shown, Arc::clone(metrics))));
        }
        tasks
    }
}

/// Shows what the files hold, each in its place of the ring.
///
/// What is found in them is shown from the next handshake on, if it fits together; else the old one stays.
async fn keep_files(files: Vec<(usize, Files)>, shown: Arc<Certificates>, metrics: Arc<Metrics>) {
    let all = files.iter().flat_map(|(_, files)| [files.certificate.clone(), files.key.clone()]);
    let mut watch = Watch::from_now(all);
    // What changed between the reading of the configuration and now is seen here.
    let mut suspects = files.clone();
    loop {
        for (place, files) in suspects {
            if let Some(loaded) = load(files).await {
                exchange(place, loaded, &shown, &metrics);
            }
        }
        let changed = changed(&mut watch).await;
        let touched = |files: &Files| changed.contains(&files.certificate) || changed.contains(&files.key);
        suspects = files.iter().filter(|(_, files)| touched(files)).cloned().collect();
    }
}

/// Reads a certificate and its key. A pair that cannot be used is read again as long as its files move: it may be replaced by
/// halves. `None` where all is ending.
async fn load(files: Files) -> Option<Result<Certificate, FilesError>> {
    let look = |files: Files| move || [&files.certificate, &files.key].map(|path| Content::at(path));
    for _ in 0..LOOKS {
        let read = files.clone();
        let reading = move || (look(read.clone())(), read.load(|path| std::fs::read(path)));
        let (before, loaded) = tokio::task::spawn_blocking(reading).await.ok()?;
        if loaded.is_ok() {
            return Some(loaded);
        }
        tokio::time::sleep(EVERY).await;
        if tokio::task::spawn_blocking(look(files.clone())).await.ok()? == before {
            return Some(loaded);
        }
    }
    tokio::task::spawn_blocking(move || files.load(|path| std::fs::read(path))).await.ok()
}

/// Waits until some have changed and stand still, or keep changing for longer than anybody writes at a pair of files.
async fn changed(watch: &mut Watch) -> Vec<PathBuf> {
    loop {
        tokio::time::sleep(EVERY).await;
        let mut changed = Vec::new();
        for _ in 0..LOOKS {
            let mut looking = watch.clone();
            let looked = tokio::task::spawn_blocking(move || (looking.look(), looking)).await;
            let Ok((now, then)) = looked else { break };
            *watch = then;
            changed.extend(now);
            if watch.is_still() {
                break;
            }
            tokio::time::sleep(SOON).await;
        }
        if !changed.is_empty() {
            return changed;
        }
    }
}

fn exchange(place: usize, loaded: Result<Certificate, FilesError>, shown: &Certificates, metrics: &Metrics) {
    let Some(entry) = shown.entries().into_iter().nth(place) else { return };
    let name = &*entry.label;
    match loaded {
        Ok(new) if entry.certificate.as_deref() == Some(&new) => {}
        Ok(new) => {
            tracing::info!(name, expires = %new.expires(), "a new certificate is shown");
            metrics.count_certificate_reload(true);
            tell(metrics, &entry.label, Some(&new));
            shown.exchange(place, Arc::new(new));
        }
        Err(error) => {
            tracing::error!(name, %error, "the files of a certificate changed and cannot be used; the old one stays");
            metrics.count_certificate_reload(false);
        }
    }
}

fn tell(metrics: &Metrics, name: &Arc<str>, certificate: Option<&Certificate>) {
    if let Some(certificate) = certificate {
        metrics.set_certificate_expiry(name, certificate.expires());
    }
}
