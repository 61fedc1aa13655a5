//! What proves to a certificate authority that a name is ours: answers on HTTP (RFC 8555 §8.3) and in a handshake of TLS
//! (RFC 8737).

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use tokio_rustls::rustls::sign::CertifiedKey;

/// The protocol in whose name an authority begins the handshake.
pub const PROTOCOL: &[u8] = b"acme-tls/1";
const PATH: &str = "/.well-known/acme-challenge/";

/// The challenges that stand open; nobody else's are answered.
#[derive(Default)]
pub struct Challenges {
    answers: RwLock<HashMap<String, Arc<str>>>,
    certificates: RwLock<HashMap<String, Arc<CertifiedKey>>>,
}

impl Challenges {
    /// Answers a token from now on.
    pub fn answer(&self, token: &str, answer: &str) {
        self.answers.write().unwrap_or_else(PoisonError::into_inner).insert(token.to_owned(), answer.into());
    }

    /// Shows a certificate for a name, to who asks in the name of the protocol.
    pub fn show(&self, name: &str, certificate: CertifiedKey) {
        let mut certificates = self.certificates.write().unwrap_or_else(PoisonError::into_inner);
        certificates.insert(name.to_owned(), Arc::new(certificate));
    }

    /// Forgets them all.
    pub fn clear(&self) {
        self.answers.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.certificates.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The answer to a request for this path.
    pub(super) fn answer_at(&self, path: &str) -> Option<Arc<str>> {
        let token = path.strip_prefix(PATH)?;
        self.answers.read().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
    }

    /// The certificate that proves a name.
    pub(super) fn certificate(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.certificates.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Challenges")
    }
}
