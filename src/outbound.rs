//! Requests of our own to others than the app: one at a time, each on a connection of its own, bounded in time and size.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, Uri,
    header::{CONNECTION, HOST},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

/// How long an exchange may take from the look-up of the name to the last byte of the answer.
const LIMIT: Duration = Duration::from_secs(30);
/// The most of an answer that is read, in bytes.
const BODY: usize = 1 << 20;

/// What is spoken with who speaks HTTP.
pub const HTTP: &[&[u8]] = &[b"http/1.1"];

/// Nobody can be told apart from an impostor.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The certificate authorities cannot be read.
    #[error("`{}`: {why}", path.display())]
    Ca {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The machine has no certificate authorities to trust, and none are configured.
    #[error("no certificate authorities on this machine: name a file of them ({0})")]
    NoRoots(String),
    /// TLS itself cannot be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// TLS towards whom the authorities in the file `ca` vouch for, or the machine's own, for one of these protocols.
///
/// # Errors
/// If there are none.
pub fn trust(ca: Option<&Path>, protocols: &[&[u8]]) -> Result<TlsConnector, TrustError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(authorities(ca)?);
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The certificates of the authorities in the file `ca`, or of the machine's own; each can vouch for somebody.
///
/// # Errors
/// If there are none.
pub fn authorities(ca: Option<&Path>) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    match ca {
        Some(path) => authorities_in(path),
        None => native_authorities(),
    }
}

fn authorities_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let fault = |why: String| TrustError::Ca { path: path.to_owned(), why };
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| fault(e.to_string()))? {
        let certificate = certificate.map_err(|e| fault(e.to_string()))?;
        RootCertStore::empty().add(certificate.clone()).map_err(|e| fault(e.to_string()))?;
        found.push(certificate);
    }
    if found.is_empty() { Err(fault("no certificate in it".to_owned())) } else { Ok(found) }
}

fn native_authorities() -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let mut found = rustls_native_certs::load_native_certs();
    found.certs.retain(|certificate| RootCertStore::empty().add(certificate.clone()).is_ok());
    if found.certs.is_empty() {
        return Err(TrustError::NoRoots(found.errors.first().map_or_else(String::new, ToString::to_string)));
    }
    Ok(found.certs)
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum OutboundError {
    /// The URL names nobody who could be asked.
    #[error("{0} is no address that could be asked")]
    Address(Uri),
    /// No connection came to stand.
    #[error("no connection: {0}")]
    Connect(#[from] io::Error),
    /// The exchange broke off.
    #[error("the exchange broke off: {0}")]
    Exchange(#[from] hyper::Error),
    /// The answer is too long, or broke off.
    #[error("the answer cannot be read: {0}")]
    Body(String),
    /// It took too long.
    #[error("no answer within {LIMIT:?}")]
    Timeout,
}

/// Asks others.
#[derive(Clone)]
pub struct Outbound {
    tls: TlsConnector,
}

impl std::fmt::Debug for Outbound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outbound")
    }
}

impl Outbound {
    /// Asks whom the authorities in the file `ca` vouch for, or the machine's own.
    ///
    /// # Errors
    /// If there are none.
    pub fn new(ca: Option<&Path>) -> Result<Self, TrustError> {
        Ok(Self { tls: trust(ca, HTTP)? })
    }

    /// Sends a request to the absolute URL in it, once, and reads the whole answer. Redirects are answers.
    ///
    /// # Errors
    /// If there is none.
    pub async fn ask(&self, request: Request<Bytes>) -> Result<Response<Bytes>, OutboundError> {
        tokio::time::timeout(LIMIT, self.exchange(request)).await.map_err(|_| OutboundError::Timeout)?
    }

    async fn exchange(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, OutboundError> {
        let uri = request.uri().clone();
        let address = || OutboundError::Address(uri.clone());
        let authority = uri.authority().filter(|a| !a.as_str().contains('@')).ok_or_else(address)?;
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| address())?;
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        *request.uri_mut() = uri.path_and_query().map_or_else(|| Uri::from_static("/"), |path| Uri::from(path.clone()));
        request.headers_mut().insert(HOST, host);
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        let port = |default| authority.port_u16().unwrap_or(default);
        match uri.scheme_str() {
            Some("http") => over(TcpStream::connect((name, port(80))).await?, request).await,
            Some("https") => {
                let server = ServerName::try_from(name.to_owned()).map_err(|_| address())?;
                let stream = TcpStream::connect((name, port(443))).await?;
                over(self.tls.connect(server, stream).await?, request).await
            }
            _ => Err(address()),
        }
    }
}

async fn over<S>(stream: S, request: Request<Bytes>) -> Result<Response<Bytes>, OutboundError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let talk = async {
        let (head, body) = sender.send_request(request.map(Full::new)).await?.into_parts();
        let body = Limited::new(body, BODY).collect().await.map_err(|error| OutboundError::Body(error.to_string()))?;
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    // The connection is polled beside the question, and goes when the answer is there.
    tokio::pin!(talk);
    tokio::select! {
        answer = &mut talk => answer,
        ended = connection => match ended {
            Ok(()) => talk.await,
            Err(error) => Err(error.into()),
        },
    }
}
