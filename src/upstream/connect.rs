//! How a connection to the app comes about: the address, the name, the handshake.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpStream, UnixStream},
    time::{Instant, timeout_at},
};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use super::{
    Options,
    pool::{Live, Pool},
    stream::Wire,
};
use crate::outbound::{HTTP, TrustError, trust};

/// The app cannot be spoken to as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The URL is none we understand.
    #[error("upstream.url `{url}`: {why}")]
    Url {
        /// As it was written.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There are no certificate authorities to trust.
    #[error("upstream.ca: {0}")]
    Trust(#[from] TrustError),
}

/// Why a request was provably not sent.
#[derive(Debug, thiserror::Error)]
pub enum NotSent {
    /// The host name has no address.
    #[error("no address for `{host}`: {why}")]
    Name {
        /// The name asked for.
        host: String,
        /// What the resolver said.
        why: io::Error,
    },
    /// Nobody listens there.
    #[error("connection refused")]
    Refused,
    /// The connection did not come to stand in time.
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    /// There is no way there.
    #[error("no connection: {0}")]
    Unreachable(io::Error),
    /// The TLS handshake failed.
    #[error("TLS handshake failed: {0}")]
    Tls(io::Error),
    /// The connection was dead before the request's first byte.
    #[error("the connection was dead before anything was written: {0}")]
    Dead(String),
}

impl From<io::Error> for NotSent {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            _ => Self::Unreachable(error),
        }
    }
}

enum Host {
    Address(IpAddr),
    Name(String),
}

enum Target {
    Tcp { host: Host, port: u16, tls: Option<(TlsConnector, ServerName<'static>)> },
    Unix(PathBuf),
}

/// Makes connections to one target.
pub(super) struct Connector {
    target: Target,
    timeout: Duration,
}

impl Connector {
    pub(super) fn new(options: &Options) -> Result<Self, UpstreamError> {
        Ok(Self { target: target(options)?, timeout: options.connect_timeout })
    }

    /// A new connection, within the time for it.
    pub(super) async fn connect(&self, pool: &Arc<Pool>) -> Result<Box<Live>, NotSent> {
        let deadline = Instant::now() + self.timeout;
        let wire = timeout_at(deadline, self.wire(deadline)).await.map_err(|_| NotSent::Timeout(self.timeout))??;
        Ok(Live::new(wire, pool))
    }

    async fn wire(&self, deadline: Instant) -> Result<Wire, NotSent> {
        match &self.target {
            Target::Unix(path) => Ok(Wire::Unix(UnixStream::connect(path).await?)),
            Target::Tcp { host, port, tls } => {
                let stream = self.tcp(host, *port, deadline).await?;
                stream.set_nodelay(true)?;
                match tls {
                    None => Ok(Wire::Tcp(stream)),
                    Some((connector, name)) => {
                        let tls = connector.connect(name.clone(), stream).await.map_err(NotSent::Tls)?;
                        Ok(Wire::Tls(Box::new(tls)))
                    }
                }
            }
        }
    }

    async fn tcp(&self, host: &Host, port: u16, deadline: Instant) -> Result<TcpStream, NotSent> {
        match host {
            Host::Address(address) => Ok(TcpStream::connect((*address, port)).await?),
            Host::Name(name) => {
                let unknown = |why| NotSent::Name { host: name.clone(), why };
                let found: Vec<_> = tokio::net::lookup_host((name.as_str(), port)).await.map_err(unknown)?.collect();
                self.first_of(&found, deadline)
                    .await
                    .unwrap_or_else(|| Err(unknown(io::Error::other("the name has no addresses"))))
            }
        }
    }

    /// Tries the addresses in their order, each with its share of the time, so that a silent one leaves some for the
    /// next.
    async fn first_of(&self, addresses: &[SocketAddr], deadline: Instant) -> Option<Result<TcpStream, NotSent>> {
        let mut last = None;
        for (tried, address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - tried).unwrap_or(1);
            last = Some(match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Some(Ok(stream)),
                Ok(Err(error)) => Err(error.into()),
                Err(_) => Err(NotSent::Timeout(self.timeout)),
            });
        }
        last
    }
}

fn target(options: &Options) -> Result<Target, UpstreamError> {
    let fault = |why| UpstreamError::Url { url: options.url.clone(), why };
    if let Some(path) = options.url.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        return if path.starts_with('/') {
            Ok(Target::Unix(path.into()))
        } else {
            Err(fault("write unix:/path/to/socket, from the root"))
        };
    }
    let uri: http::Uri = options.url.parse().map_err(|_| fault("this is no URL"))?;
    let (tls, default_port) = match uri.scheme_str() {
        Some("http") => (false, 80),
        Some("https") => (true, 443),
        _ => return Err(fault("write http://, https:// or unix:")),
    };
    if uri.path() != "/" || uri.query().is_some() {
        return Err(fault("the app stands at the root: no path, no query"));
    }
    let authority = uri.authority().ok_or_else(|| fault("a host is missing"))?;
    if authority.as_str().contains('@') {
        return Err(fault("no user name and no password here"));
    }
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    if name.is_empty() {
        return Err(fault("a host is missing"));
    }
    let port = match authority.as_str()[authority.host().len()..].strip_prefix(':') {
        None => default_port,
        Some(port) => port.parse().map_err(|_| fault("this is no port"))?,
    };
    let tls = if tls {
        let name = ServerName::try_from(name.to_owned()).map_err(|_| fault("this is no name for a certificate"))?;
        Some((trust(options.ca.as_deref(), HTTP)?, name))
    } else {
        None
    };
    let host = name.parse().map_or_else(|_| Host::Name(name.to_owned()), Host::Address);
    Ok(Target::Tcp { host, port, tls })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(url: &str) -> Result<(), String> {
        target(&Options::new(url)).map(drop).map_err(|e| e.to_string())
    }

    #[test]
    fn a_url_is_understood_or_its_fault_is_named() {
        for good in ["http://127.0.0.1:8000", "http://app", "http://[::1]:80/", "unix:/run/app.sock", "unix:///a"] {
            assert_eq!(url(good), Ok(()), "{good}");
        }
        for bad in
            ["", "app:80", "ftp://app", "http://", "http://app/base", "http://u:p@app", "unix:app", "http://app:99999"]
        {
            assert!(url(bad).is_err(), "{bad}");
        }
    }
}
