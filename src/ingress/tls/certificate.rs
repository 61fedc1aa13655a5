//! A certificate with its chain and its key: read from PEM, and found to fit together.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_rustls::rustls::{
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, prelude::FromDer, time::ASN1Time};

use crate::time::Timestamp;

/// Why a chain and a key make no certificate that could be shown.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// There is no certificate in the text, or one is cut short.
    #[error("no certificate can be read from it: {0}")]
    Chain(String),
    /// There is no private key in the text, or none that can be used: a password on it, or an algorithm that TLS has not.
    #[error("no private key can be read from it: {0}")]
    Key(String),
    /// The key belongs to another certificate.
    #[error("the key belongs to another certificate")]
    Mismatch,
}

/// A certificate that can be shown.
#[derive(Clone)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    begins: Timestamp,
    expires: Timestamp,
}

impl Certificate {
    /// Reads a chain, the server's own certificate first, and its private key (PKCS #8, PKCS #1 or SEC 1).
    ///
    /// # Errors
    /// If either cannot be read, or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertificateError> {
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| CertificateError::Chain(error.to_string()))?;
        let own = chain.first().ok_or_else(|| CertificateError::Chain("there is none in it".to_owned()))?;
        let told = Told::read(own)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| CertificateError::Key(error.to_string()))?;
        let key = any_supported_type(&key).map_err(|error| CertificateError::Key(error.to_string()))?;
        let key = CertifiedKey::new(chain, key);
        key.keys_match().map_err(|_| CertificateError::Mismatch)?;
        Ok(Self { key: Arc::new(key), names: told.names, begins: told.begins, expires: told.expires })
    }

    /// The names of hosts in it, in lower case; its common name if it has no others.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// From when on it is valid.
    #[must_use]
    pub const fn begins(&self) -> Timestamp {
        self.begins
    }

    /// Until when it is valid.
    #[must_use]
    pub const fn expires(&self) -> Timestamp {
        self.expires
    }

    /// The chain and the key as TLS wants them.
    pub(super) const fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("names", &self.names)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// What stands in a certificate.
struct Told {
    names: Vec<String>,
    begins: Timestamp,
    expires: Timestamp,
}

impl Told {
    fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let (_, certificate) =
            X509Certificate::from_der(der).map_err(|error| CertificateError::Chain(error.to_string()))?;
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        let mut names: Vec<_> = alternatives
            .iter()
            .flat_map(|names| &names.value.general_names)
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                _ => None,
            })
            .collect();
        if names.is_empty() {
            let common = certificate.subject().iter_common_name().find_map(|name| name.as_str().ok());
            names.extend(common.map(str::to_ascii_lowercase));
        }
        let validity = certificate.validity();
        Ok(Self { names, begins: timestamp(validity.not_before), expires: timestamp(validity.not_after) })
    }
}

fn timestamp(time: ASN1Time) -> Timestamp {
    Timestamp::from_millis(u64::try_from(time.timestamp()).unwrap_or(0).saturating_mul(1000))
}

/// The files that a certificate is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The chain.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Why files hold no certificate that could be shown.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// One cannot be read.
    #[error("the file {} cannot be read: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in them does not do.
    #[error("{}: {source}", path.display())]
    Unfit {
        /// The file that the fault is in.
        path: PathBuf,
        /// The fault.
        source: CertificateError,
    },
}

impl Files {
    /// Reads the certificate by way of `read`.
    ///
    /// # Errors
    /// If a file cannot be read, or what is in them does not do.
    pub fn load(&self, read: impl Fn(&Path) -> io::Result<Vec<u8>>) -> Result<Certificate, FilesError> {
        let read = |path: &Path| read(path).map_err(|source| FilesError::Unreadable { path: path.to_owned(), source });
        Certificate::from_pem(&read(&self.certificate)?, &read(&self.key)?).map_err(|source| {
            let path = match source {
                CertificateError::Chain(_) => &self.certificate,
                CertificateError::Key(_) | CertificateError::Mismatch => &self.key,
            };
            FilesError::Unfit { path: path.clone(), source }
        })
    }
}
