//! MySQL and MariaDB, on connections that are told to read only.

use mysql_async::{
    Conn, Error, IoError, Opts, OptsBuilder, Row, Value,
    prelude::{FromValue, Queryable},
};

use super::{
    MOST_FOUND, Trouble,
    options::{NoDatabase, Options},
    pool::Engine,
    statement_limit,
};
use crate::outbound::{self, TrustError};

/// A server of that sort.
pub struct MySql {
    opts: Opts,
}

/// What the server says when it lets nobody in: by name or password, to this database, from this host.
const REFUSED: [u16; 8] = [1040, 1044, 1045, 1049, 1129, 1130, 1203, 1698];
/// What it says of a query that took too long, MariaDB and MySQL each in its own way.
const TOO_SLOW: [u16; 3] = [1969, 3024, 1317];

impl MySql {
    /// Everything but a connection.
    ///
    /// # Errors
    ///
    /// When TLS is wanted and nobody is there to be trusted.
    pub fn new(options: &Options) -> Result<Self, TrustError> {
        let opts = opts(options.address()).unwrap_or_default();
        let limit = statement_limit(options.timeout);
        let tls = match opts.ssl_opts() {
            None => None,
            Some(tls) => {
                let authorities = outbound::authorities(options.ca.as_deref())?;
                let authorities = authorities.into_iter().map(|known| known.to_vec().into()).collect();
                Some(tls.clone().with_disable_built_in_roots(true).with_root_certs(authorities))
            }
        };
        let builder = OptsBuilder::from_opts(opts)
            .ssl_opts(tls)
            .tcp_nodelay(true)
            // Else it would look for a socket of the machine behind our back.
            .prefer_socket(false)
            .init(vec![
                "SET SESSION TRANSACTION READ ONLY".to_owned(),
                // Each reads its own comment: seconds for MariaDB, milliseconds for MySQL.
                format!(
                    "SET SESSION autocommit = 1 /*M!100101 , max_statement_time = {}.{:03} */ /*!50708 , max_execution_time = {limit} */",
                    limit / 1000,
                    limit % 1000
                ),
            ]);
        Ok(Self { opts: builder.into() })
    }

    /// What this user may do, in the server's own words.
    pub async fn grants(&self) -> Result<Vec<String>, Trouble> {
        let mut connection = self.connect().await?;
        connection.query("SHOW GRANTS").await.map_err(|error| trouble(&error))
    }
}

/// Whether what is said to this address can be overheard: no TLS, and not on this machine.
pub(super) fn is_overheard(url: &str) -> Result<bool, NoDatabase> {
    let opts = opts(url)?;
    if opts.db_name().is_none_or(str::is_empty) {
        return Err(NoDatabase::Wrong("it names no database: mysql://user:password@host/database".to_owned()));
    }
    Ok(opts.ssl_opts().is_none() && opts.socket().is_none() && !opts.addr_is_loopback())
}

fn opts(url: &str) -> Result<Opts, NoDatabase> {
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    Opts::from_url(&format!("mysql://{rest}")).map_err(|error| NoDatabase::Wrong(error.to_string()))
}

impl Engine for MySql {
    type Connection = Conn;

    async fn connect(&self) -> Result<Conn, Trouble> {
        Conn::new(self.opts.clone()).await.map_err(|error| trouble(&error))
    }

    async fn ask(&self, connection: &mut Conn, sql: &str, value: &str) -> Result<Vec<String>, Trouble> {
        let said = async {
            let statement = connection.prep(sql).await?;
            let values: Vec<Value> = vec![value.into(); usize::from(statement.num_params())];
            let mut rows = connection.exec_iter(statement, values).await?;
            let mut found = Vec::new();
            while let Some(row) = rows.next().await? {
                found.push(first(row));
                if found.len() > MOST_FOUND {
                    break;
                }
            }
            Ok(found)
        };
        let rows: Vec<Result<String, Trouble>> = said.await.map_err(|error: Error| trouble(&error))?;
        rows.into_iter().collect()
    }
}

fn first(mut row: Row) -> Result<String, Trouble> {
    let no = |what: &str| Trouble::Query(format!("its first column holds {what}: it has to be a name, as text"));
    match row.take::<Value, _>(0) {
        None => Err(Trouble::Query("it selects nothing".to_owned())),
        Some(Value::NULL) => Ok(String::new()),
        Some(Value::Int(number)) => Ok(number.to_string()),
        Some(Value::UInt(number)) => Ok(number.to_string()),
        Some(text @ Value::Bytes(_)) => String::from_value_opt(text).map_err(|_| no("bytes that are no text")),
        Some(Value::Float(_) | Value::Double(_)) => Err(no("a number with a fraction")),
        Some(Value::Date(..) | Value::Time(..)) => Err(no("a time")),
    }
}

fn trouble(error: &Error) -> Trouble {
    match error {
        Error::Server(said) if REFUSED.contains(&said.code) => Trouble::Refused(said.message.clone()),
        Error::Server(said) if TOO_SLOW.contains(&said.code) => Trouble::TooSlow,
        Error::Server(said) => Trouble::Query(format!("{} (error {})", said.message, said.code)),
        Error::Io(IoError::Tls(why)) => Trouble::Away(format!("TLS: {why}")),
        other => Trouble::Away(other.to_string()),
    }
}
