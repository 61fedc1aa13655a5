//! Certificates for tests: an authority of our own, what it has signed, and a client that believes it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, DnType, IsCa, KeyPair,
};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName},
};

use super::wire::soon;

pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// A certificate and its key, in files.
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        // By another name than what it signs: OpenSSL would take that for signed by itself.
        params.distinguished_name.push(DnType::CommonName, "An authority for tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { issuer, folder: tempfile::tempdir().unwrap() }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its own certificate, for clients that read it from a file.
    pub fn believed_in_a_file(&self) -> PathBuf {
        let path = self.folder().join("authority.pem");
        std::fs::write(&path, self.issuer.pem()).unwrap();
        path
    }

    /// The texts of a new certificate for these names, and of its key.
    pub fn sign(&self, names: &[&str]) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// The text of a certificate that was asked for.
    pub fn sign_request(&self, request: &CertificateSigningRequestParams) -> String {
        request.signed_by(&self.issuer).unwrap().pem()
    }

    /// A new certificate in files of this name; what was there before is replaced.
    pub fn issue(&self, file: &str, names: &[&str]) -> Pair {
        let path = |end: &str| self.folder().join(format!("{file}.{end}"));
        let pair = Pair { certificate: path("pem"), key: path("key") };
        let (certificate, key) = self.sign(names);
        std::fs::write(&pair.certificate, certificate).unwrap();
        std::fs::write(&pair.key, key).unwrap();
        pair
    }

    /// How a client speaks that believes this authority, and these protocols.
    pub fn believer(&self, protocols: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config.enable_early_data = true;
        Arc::new(config)
    }
}

impl Pair {
    /// The table of the configuration that shows it.
    pub fn table(&self, listen: &str) -> String {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        format!("[[tls]]\nlisten = '{listen}'\ncertificate = '{certificate}'\nkey = '{key}'\n")
    }
}

/// A handshake with who listens there, asking for this name.
pub async fn handshake(
    stream: TcpStream,
    config: &Arc<ClientConfig>,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    soon(TlsConnector::from(Arc::clone(config)).connect(name, stream)).await
}
