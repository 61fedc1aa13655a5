//! TLS on our side: which certificate is shown to whom, and on what terms a connection is encrypted.

mod certificate;

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use tokio_rustls::rustls::{
    self, ServerConfig,
    crypto::ring,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

pub use self::certificate::{Certificate, CertificateError, Files, FilesError};
use super::challenges::{self, Challenges};

/// The protocols that may be spoken over TLS, the preferred one first.
pub(super) const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// A certificate, and where it is shown.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What it is called in logs and figures.
    pub label: Arc<str>,
    /// The addresses it is shown at.
    pub listen: Vec<SocketAddr>,
    /// The names it is shown for; those in it if there are none.
    pub names: Vec<String>,
    /// The certificate; nothing while it is still awaited.
    pub certificate: Option<Arc<Certificate>>,
}

/// Every certificate of the gate. What is shown can be exchanged at any time; a handshake sees the old one or the new.
#[derive(Debug)]
pub struct Certificates {
    entries: Mutex<Vec<Entry>>,
    challenges: Option<Arc<Challenges>>,
    resolvers: Vec<(SocketAddr, Arc<Resolver>)>,
}

impl Certificates {
    /// Holds these certificates; and meets challenges beside them, if there may be any.
    #[must_use]
    pub fn new(entries: Vec<Entry>, challenges: Option<Arc<Challenges>>) -> Self {
        let mut resolvers: Vec<(SocketAddr, Arc<Resolver>)> = Vec::new();
        for address in entries.iter().flat_map(|entry| &entry.listen) {
            if !resolvers.iter().any(|(known, _)| known == address) {
                let resolver = Resolver { table: RwLock::default(), challenges: challenges.clone() };
                resolvers.push((*address, Arc::new(resolver)));
            }
        }
        let all = Self { entries: Mutex::new(entries), challenges, resolvers };
        all.lay_out(&all.entries());
        all
    }

    /// The addresses at which TLS is spoken, each once.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.resolvers.iter().map(|(address, _)| *address).collect()
    }

    /// On what terms connections to this address are encrypted; nothing if they are not.
    ///
    /// # Errors
    /// If the machine has no randomness to make the keys of tickets from.
    pub fn terms(&self, address: SocketAddr, http2: bool) -> Result<Option<Arc<ServerConfig>>, rustls::Error> {
        let resolver = self.resolvers.iter().find(|(known, _)| *known == address);
        resolver.map(|(_, resolver)| terms(Arc::clone(resolver), http2, self.challenges.is_some())).transpose()
    }

    /// Shows another certificate in this place from now on.
    pub fn exchange(&self, place: usize, certificate: Arc<Certificate>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get_mut(place) {
            entry.certificate = Some(certificate);
        }
        self.lay_out(&entries);
    }

    /// The entries as they are.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lay_out(&self, entries: &[Entry]) {
        for (address, resolver) in &self.resolvers {
            let table = Table::of(entries.iter().filter(|entry| entry.listen.contains(address)));
            *resolver.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        }
    }
}

/// TLS 1.2 and 1.3 with the ciphers that rustls holds safe; tickets, so that who comes again is quick; and no early data,
/// for it can be replayed.
fn terms(resolver: Arc<Resolver>, http2: bool, challenges: bool) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.ticketer = ring::Ticketer::new()?;
    if http2 {
        config.alpn_protocols.push(HTTP2.to_vec());
    }
    config.alpn_protocols.push(HTTP1.to_vec());
    if challenges {
        config.alpn_protocols.push(challenges::PROTOCOL.to_vec());
    }
    Ok(Arc::new(config))
}

/// Certificates by the names they are shown for; of one name there may be several, of different algorithms.
#[derive(Default)]
struct Table {
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// `*.example.org` under `example.org`.
    wildcards: HashMap<String, Vec<Arc<CertifiedKey>>>,
    first: Vec<Arc<CertifiedKey>>,
}

impl Table {
    fn of<'e>(entries: impl Iterator<Item = &'e Entry>) -> Self {
        let mut table = Self::default();
        for entry in entries {
            let Some(certificate) = &entry.certificate else { continue };
            let names = if entry.names.is_empty() { certificate.names() } else { &entry.names };
            for name in names {
                let shelf = match name.strip_prefix("*.") {
                    Some(parent) => table.wildcards.entry(parent.to_ascii_lowercase()),
                    None => table.exact.entry(name.to_ascii_lowercase()),
                };
                shelf.or_default().push(Arc::clone(certificate.key()));
            }
            table.first.push(Arc::clone(certificate.key()));
        }
        table
    }

    /// The certificates for a name, else all of them in their order: the first that fits is shown.
    fn find(&self, name: Option<&str>) -> &[Arc<CertifiedKey>] {
        let by_name = || {
            let name = name?.to_ascii_lowercase();
            let wildcard = || name.split_once('.').and_then(|(_, parent)| self.wildcards.get(parent));
            self.exact.get(&name).or_else(wildcard)
        };
        by_name().unwrap_or(&self.first)
    }
}

/// Picks the certificate at one address.
struct Resolver {
    table: RwLock<Arc<Table>>,
    challenges: Option<Arc<Challenges>>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let (Some(challenges), true) = (&self.challenges, is_challenge(&hello)) {
            return challenges.certificate(hello.server_name()?);
        }
        let table = Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner));
        let found = table.find(hello.server_name());
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        found.iter().find(fits).or_else(|| found.first()).cloned()
    }
}

/// Whether this is an authority that wants a proof: it offers that one protocol and no other (RFC 8737 §3).
fn is_challenge(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut offered| offered.next() == Some(challenges::PROTOCOL) && offered.next().is_none())
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}
