//! PostgreSQL, on connections that are told to read only.

use std::{
    collections::HashMap,
    error::Error as _,
    io,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::{
    Client, Config, Error, Row, Statement,
    config::{Host, SslMode},
    error::SqlState,
    tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream},
    types::Type,
};
use tokio_rustls::{TlsConnector, client, rustls::pki_types::ServerName};

use super::{
    MOST_FOUND, Trouble,
    options::{NoDatabase, Options},
    pool::Engine,
    statement_limit,
};
use crate::outbound::{self, TrustError};

/// A server of that sort.
pub struct Postgres {
    config: Config,
    tls: Rustls,
    limit: u128,
}

/// A connection, and the queries that the server knows on it.
pub struct Connection {
    client: Client,
    statements: HashMap<String, Statement>,
}

impl Postgres {
    /// Everything but a connection.
    ///
    /// # Errors
    ///
    /// When TLS is wanted and nobody is there to be trusted.
    pub fn new(options: &Options) -> Result<Self, TrustError> {
        let mut config = config(options.address()).unwrap_or_default();
        config.application_name("oncegate");
        let tls = match config.get_ssl_mode() {
            SslMode::Disable => None,
            _ => Some(outbound::trust(options.ca.as_deref(), &[])?),
        };
        Ok(Self { config, tls: Rustls(tls), limit: statement_limit(options.timeout) })
    }

    /// Whatever this user may do beyond reading, in words.
    pub async fn excess(&self) -> Result<Vec<String>, Trouble> {
        let connection = self.connect().await?;
        let rows = connection.client.query(EXCESS, &[]).await.map_err(|error| trouble(&error))?;
        rows.iter().map(first).collect()
    }
}

/// What goes beyond reading: attributes of the role, and tables or columns that it can write.
const EXCESS: &str = "
    SELECT 'it is a superuser' FROM pg_roles WHERE rolname = current_user AND rolsuper
    UNION ALL SELECT 'it may make databases' FROM pg_roles WHERE rolname = current_user AND rolcreatedb
    UNION ALL SELECT 'it may make roles' FROM pg_roles WHERE rolname = current_user AND rolcreaterole
    UNION ALL SELECT 'it may make tables in ' || nspname FROM pg_namespace
        WHERE nspname NOT LIKE 'pg\\_%' AND has_schema_privilege(oid, 'CREATE')
    UNION ALL SELECT 'it may write to ' || oid::regclass::text FROM pg_class
        WHERE relkind IN ('r', 'p') AND relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
        AND has_table_privilege(oid, 'INSERT, UPDATE, DELETE, TRUNCATE')";

/// Whether what is said to this address can be overheard: no TLS, and not on this machine.
pub(super) fn is_overheard(url: &str) -> Result<bool, NoDatabase> {
    let config = config(url)?;
    if config.get_dbname().is_none_or(str::is_empty) {
        return Err(NoDatabase::Wrong("it names no database: postgresql://user:password@host/database".to_owned()));
    }
    let here = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    };
    Ok(config.get_ssl_mode() == SslMode::Disable && !config.get_hosts().iter().all(here))
}

fn config(url: &str) -> Result<Config, NoDatabase> {
    let wrong = |error: Error| NoDatabase::Wrong(error.source().map_or_else(|| error.to_string(), ToString::to_string));
    let mut config: Config = url.parse().map_err(wrong)?;
    // TLS is spoken where the address says so, and then with nobody else; "if it can be had" is no safety.
    if config.get_ssl_mode() == SslMode::Prefer {
        config.ssl_mode(SslMode::Disable);
    }
    Ok(config)
}

impl Engine for Postgres {
    type Connection = Connection;

    async fn connect(&self) -> Result<Connection, Trouble> {
        let (client, connection) = self.config.connect(self.tls.clone()).await.map_err(|error| trouble(&error))?;
        // It ends with its client.
        tokio::spawn(connection);
        let session = format!(
            "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY; SET SESSION statement_timeout = {}",
            self.limit
        );
        client.batch_execute(&session).await.map_err(|error| trouble(&error))?;
        Ok(Connection { client, statements: HashMap::new() })
    }

    async fn ask(&self, connection: &mut Connection, sql: &str, value: &str) -> Result<Vec<String>, Trouble> {
        let Connection { client, statements } = connection;
        let statement = match statements.get(sql) {
            Some(known) => known.clone(),
            None => {
                let prepared = client.prepare_typed(sql, &[Type::TEXT]).await.map_err(|error| trouble(&error))?;
                statements.entry(sql.to_owned()).or_insert(prepared).clone()
            }
        };
        let rows = client.query(&statement, &[&value]).await.map_err(|error| trouble(&error))?;
        rows.iter().take(MOST_FOUND + 1).map(first).collect()
    }
}

fn first(row: &Row) -> Result<String, Trouble> {
    let Some(column) = row.columns().first() else { return Err(Trouble::Query("it selects nothing".to_owned())) };
    let unread = |error: Error| Trouble::Query(error.to_string());
    let number = |found: Option<i64>| found.map(|number| number.to_string());
    let found = match *column.type_() {
        Type::INT8 => row.try_get(0).map(number),
        Type::INT4 => row.try_get(0).map(|found: Option<i32>| number(found.map(i64::from))),
        Type::INT2 => row.try_get(0).map(|found: Option<i16>| number(found.map(i64::from))),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN => row.try_get(0),
        ref other => {
            let why = format!("its first column is of type {other}: write {}::text", column.name());
            return Err(Trouble::Query(why));
        }
    };
    Ok(found.map_err(unread)?.unwrap_or_default())
}

fn trouble(error: &Error) -> Trouble {
    let Some(said) = error.as_db_error() else {
        let why = error.source().map_or_else(|| error.to_string(), |why| format!("{error}: {why}"));
        // What can't be written as a parameter is a matter of the query, and all else of the connection.
        return if why.contains("serializing parameter") || why.contains("expected") {
            Trouble::Query(format!("{why}: it takes one value, $1, as text"))
        } else {
            Trouble::Away(why)
        };
    };
    match said.code() {
        &SqlState::QUERY_CANCELED => Trouble::TooSlow,
        code if code.code().starts_with("28") || code.code().starts_with("3D") => {
            Trouble::Refused(said.message().to_owned())
        }
        // It has no more connections to give, is just starting, or is going down.
        code if code.code().starts_with("53") || code.code().starts_with("57P") => {
            Trouble::Away(said.message().to_owned())
        }
        code => Trouble::Query(format!("{} ({})", said.message(), code.code())),
    }
}

/// TLS by rustls; nothing where none is wanted.
#[derive(Clone)]
struct Rustls(Option<TlsConnector>);

/// The same towards one host.
struct Towards {
    tls: Option<TlsConnector>,
    host: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Rustls {
    type Stream = Tls<S>;
    type TlsConnect = Towards;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<Towards> {
        Ok(Towards { tls: self.0.clone(), host: host.to_owned() })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Towards {
    type Stream = Tls<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Tls<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let tls = self.tls.ok_or_else(|| io::Error::other("the address says that there is no TLS"))?;
            let host = ServerName::try_from(self.host).map_err(io::Error::other)?;
            Ok(Tls(tls.connect(host, stream).await?))
        })
    }
}

/// A connection under TLS.
struct Tls<S>(client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Tls<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Tls<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Tls<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
