//! Keeps the certificates that are shown in step with the files they are in.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    ingress::tls::{Certificate, Files, FilesError, Keyring},
    telemetry::Metrics,
    watch::{EVERY, Watch},
};

/// The pause before files that are just being changed are looked at again, and how often that is done before the usual
/// pause: certificate and key are two files, and change one after the other.
const SOON: Duration = Duration::from_millis(20);
const LOOKS: usize = 10;

/// Shows what the files hold, each in the place of the ring that it has here.
///
/// What is found in them is shown from the next handshake on, if it fits together; else the old one stays.
pub(super) async fn keep(files: Vec<Files>, keyring: Arc<Keyring>, metrics: Arc<Metrics>) {
    for entry in keyring.entries() {
        tell(&metrics, &entry.label, entry.certificate.as_deref());
    }
    let all: Vec<_> = files.iter().flat_map(|files| [files.certificate.clone(), files.key.clone()]).collect();
    let mut watch = Watch::from_now(all);
    // What changed between the reading of the configuration and now is seen here.
    let mut suspects: Vec<usize> = (0..files.len()).collect();
    loop {
        for place in suspects {
            let looked = files[place].clone();
            let loaded = tokio::task::spawn_blocking(move || looked.load(|path| std::fs::read(path))).await;
            if let Ok(loaded) = loaded {
                exchange(place, loaded, &keyring, &metrics);
            }
        }
        let changed = changed(&mut watch).await;
        let touched = |files: &Files| changed.contains(&files.certificate) || changed.contains(&files.key);
        suspects = (0..files.len()).filter(|place| touched(&files[*place])).collect();
    }
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

fn exchange(place: usize, loaded: Result<Certificate, FilesError>, keyring: &Keyring, metrics: &Metrics) {
    let Some(entry) = keyring.entries().into_iter().nth(place) else { return };
    let name = &*entry.label;
    match loaded {
        Ok(new) if entry.certificate.as_deref() == Some(&new) => {}
        Ok(new) => {
            tracing::info!(name, expires = %new.expires(), "a new certificate is shown");
            metrics.count_certificate_reload(true);
            tell(metrics, &entry.label, Some(&new));
            keyring.exchange(place, Arc::new(new));
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
