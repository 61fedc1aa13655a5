//! Certificates from an authority that asks for proof and nothing else (ACME, RFC 8555): had, kept and renewed.

mod shelf;

use std::{num::NonZeroU32, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, BodyWrapper, BytesResponse, ChallengeType, HttpClient,
    Identifier, NewAccount, NewOrder, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};
use tokio_rustls::rustls::{
    crypto::ring::sign::any_supported_type,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};

use self::shelf::Shelf;
use crate::{
    ingress::{
        challenges::Challenges,
        tls::{Certificate, CertificateError, Certificates},
    },
    outbound::{Outbound, TrustError},
    telemetry::Metrics,
    time::{Clock, SystemClock, Timestamp},
};

/// How long an order may take to be looked at, and then to be filled.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest pause between two tries.
const LONGEST: Duration = Duration::from_secs(6 * 3600);
/// How often we look whether something is due: the wall clock may jump.
const LOOK: Duration = Duration::from_secs(3600);

/// How a name is proved to be ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// By an answer on port 80.
    Http,
    /// In a handshake on port 443.
    TlsAlpn,
}

/// Whom we ask, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The authority's directory.
    pub directory: String,
    /// Where the authority writes when something is amiss: `mailto:…`.
    pub contact: Vec<String>,
    /// Whether its terms are agreed to.
    pub agree_to_terms: bool,
    /// The folder that the account and the certificates are kept in.
    pub path: PathBuf,
    /// How names are proved.
    pub challenge: Proof,
    /// A PEM file with the authorities to trust for the directory's own address, instead of the machine's.
    pub ca: Option<PathBuf>,
    /// The first pause after a failure, and the least time between two orders.
    pub pause: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            directory: "https://acme-v02.api.letsencrypt.org/directory".to_owned(),
            contact: Vec::new(),
            agree_to_terms: false,
            path: "oncegate-acme".into(),
            challenge: Proof::Http,
            ca: None,
            pause: Duration::from_secs(60),
        }
    }
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum AcmeError {
    /// The authority, or the way there.
    #[error("the authority: {0}")]
    Authority(#[from] instant_acme::Error),
    /// It does not offer the configured way to prove a name.
    #[error("the authority does not offer the challenge {0:?}")]
    NotOffered(Proof),
    /// It has not found the proof.
    #[error("the authority has not found the proof that the names are ours: it must reach the gate under them")]
    NotProved,
    /// A key or a request for a certificate could not be made.
    #[error("no key: {0}")]
    Key(#[from] rcgen::Error),
    /// The same, of TLS.
    #[error("no key: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// What came is no certificate that could be shown.
    #[error("what came cannot be shown: {0}")]
    Certificate(#[from] CertificateError),
    /// The folder cannot be used.
    #[error("the folder cannot be used: {0}")]
    Folder(#[from] std::io::Error),
}

/// A certificate that is wanted.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its place in the ring.
    pub place: usize,
    /// What it is called.
    pub label: Arc<str>,
    /// The names that it is to be for.
    pub names: Vec<String>,
}

/// Has certificates, and has them renewed.
#[derive(Debug)]
pub struct Agent {
    options: Options,
    shelf: Shelf,
    outbound: Outbound,
    challenges: Arc<Challenges>,
}

impl Agent {
    /// Makes ready; asks nobody yet.
    ///
    /// # Errors
    /// If nobody can be trusted to be the authority.
    pub fn new(options: Options, challenges: Arc<Challenges>) -> Result<Self, TrustError> {
        let outbound = Outbound::new(options.ca.as_deref())?;
        Ok(Self { shelf: Shelf::at(options.path.clone()), options, outbound, challenges })
    }

    /// What is kept from before for these names, whether it is still valid or not.
    #[must_use]
    pub fn kept(&self, names: &[String]) -> Option<Certificate> {
        let kept = self.shelf.certificate(names)?;
        let covers = names.iter().all(|name| kept.names().contains(name));
        covers.then_some(kept)
    }

    /// Shows what is wanted in its place of the ring, has it when it is not there, and anew when two thirds of its life
    /// are over; with growing pauses where that fails.
    pub async fn keep(self, wanted: Vec<Wanted>, shown: Arc<Certificates>, metrics: Arc<Metrics>) {
        let mut tasks: Vec<_> = wanted.into_iter().map(|wanted| Task { wanted, failures: 0, next: None }).collect();
        loop {
            for task in &mut tasks {
                if SystemClock.now() < task.due(&shown) {
                    continue;
                }
                let obtained = self.obtain(&task.wanted.names).await;
                self.challenges.clear();
                task.note(obtained, &self.options, &shown, &metrics);
            }
            let now = SystemClock.now();
            let next = tasks.iter().map(|task| task.due(&shown)).min().unwrap_or(Timestamp::NEVER);
            tokio::time::sleep(next.since(now).clamp(Duration::from_millis(10), LOOK)).await;
        }
    }

    async fn obtain(&self, names: &[String]) -> Result<Certificate, AcmeError> {
        let account = self.account().await?;
        let identifiers: Vec<_> = names.iter().cloned().map(Identifier::Dns).collect();
        let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let kind = match self.options.challenge {
                Proof::Http => ChallengeType::Http01,
                Proof::TlsAlpn => ChallengeType::TlsAlpn01,
            };
            let mut challenge = authorization.challenge(kind).ok_or(AcmeError::NotOffered(self.options.challenge))?;
            let proof = challenge.key_authorization();
            match self.options.challenge {
                Proof::Http => self.challenges.answer(&challenge.token, proof.as_str()),
                Proof::TlsAlpn => {
                    let name = challenge.identifier().to_string();
                    self.challenges.show(&name, proving(&name, proof.digest().as_ref())?);
                }
            }
            challenge.set_ready().await?;
        }
        let patience = RetryPolicy::new().timeout(PATIENCE);
        if order.poll_ready(&patience).await? != OrderStatus::Ready {
            return Err(AcmeError::NotProved);
        }
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = DistinguishedName::new();
        order.finalize_csr(params.serialize_request(&key)?.der()).await?;
        let chain = order.poll_certificate(&patience).await?;
        let key = key.serialize_pem();
        let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes())?;
        self.shelf.keep(names, &chain, &key)?;
        Ok(certificate)
    }

    /// Our account with the authority; a new one if none is kept.
    async fn account(&self) -> Result<Account, AcmeError> {
        let builder = || Account::builder_with_http(Box::new(Client(self.outbound.clone())));
        let kept: Option<AccountCredentials> = self.shelf.account(&self.options.directory);
        if let Some(credentials) = kept {
            return Ok(builder().from_credentials(credentials).await?);
        }
        let contact: Vec<_> = self.options.contact.iter().map(String::as_str).collect();
        let new = NewAccount {
            contact: &contact,
            terms_of_service_agreed: self.options.agree_to_terms,
            only_return_existing: false,
        };
        let (account, credentials) = builder().create(&new, self.options.directory.clone(), None).await?;
        self.shelf.keep_account(&self.options.directory, &credentials)?;
        Ok(account)
    }
}

/// One certificate that is looked after.
struct Task {
    wanted: Wanted,
    failures: u32,
    /// Not before this moment is it tried again.
    next: Option<Timestamp>,
}

impl Task {
    fn due(&self, shown: &Certificates) -> Timestamp {
        let entry = shown.entries().into_iter().nth(self.wanted.place);
        let due = entry.and_then(|entry| entry.certificate).as_deref().map_or(Timestamp::EPOCH, two_thirds);
        self.next.unwrap_or(due).max(due)
    }

    fn note(
        &mut self,
        obtained: Result<Certificate, AcmeError>,
        options: &Options,
        shown: &Certificates,
        metrics: &Metrics,
    ) {
        let name = &*self.wanted.label;
        metrics.count_certificate_reload(obtained.is_ok());
        let pause = match obtained {
            Ok(certificate) => {
                tracing::info!(name, expires = %certificate.expires(), "a new certificate came from the authority");
                metrics.set_certificate_expiry(&self.wanted.label, certificate.expires());
                shown.exchange(self.wanted.place, Arc::new(certificate));
                self.failures = 0;
                options.pause
            }
            Err(error) => {
                let pause = after_failures(options.pause, self.failures);
                self.failures += 1;
                tracing::error!(name, %error, again_in = ?pause, "no certificate could be had from the authority");
                pause
            }
        };
        self.next = Some(SystemClock.now().after(pause));
    }
}

/// Twice as long each time.
fn after_failures(first: Duration, failures: u32) -> Duration {
    let doubled = 1_u32.checked_shl(failures).and_then(NonZeroU32::new).map_or(u32::MAX, NonZeroU32::get);
    first.saturating_mul(doubled).min(LONGEST)
}

/// The moment at which two thirds of a certificate's life are over.
fn two_thirds(certificate: &Certificate) -> Timestamp {
    let life = certificate.expires().since(certificate.begins());
    certificate.begins().after(life * 2 / 3)
}

/// A certificate that proves a name in a handshake (RFC 8737 §3).
fn proving(name: &str, digest: &[u8]) -> Result<CertifiedKey, AcmeError> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    Ok(CertifiedKey::new(vec![certificate.der().clone()], any_supported_type(&key)?))
}

/// Our way to the authority.
struct Client(Outbound);

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let outbound = self.0.clone();
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let asked = outbound.ask(Request::from_parts(head, body.to_bytes())).await;
            let answer = asked.map_err(|error| instant_acme::Error::Other(Box::new(error)))?;
            Ok(BytesResponse::from(answer.map(Full::new)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_have_an_end() {
        let minute = Duration::from_secs(60);
        let pauses: Vec<_> = [0, 1, 2, 8, 9, 31, 32, 1000].map(|n| after_failures(minute, n).as_secs() / 60).to_vec();
        assert_eq!(pauses, [1, 2, 4, 256, 360, 360, 360, 360]);
    }
}
