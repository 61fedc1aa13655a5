//! What is to be asked, of which database, and how patiently.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use super::api::ApiOptions;
use crate::{provider::contract::Secret, watch::Content};

/// Where a database is.
#[derive(Clone, PartialEq)]
pub struct Source {
    /// Its address, with the password.
    pub url: Secret,
    /// What it is, by the address.
    pub sort: Sort,
}

/// What kind of database it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// MySQL or MariaDB: `mysql://user:password@host/database`.
    MySql,
    /// PostgreSQL: `postgresql://user:password@host/database`.
    Postgres,
}

/// A kind of name that a payment has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// This provider's id of the payment.
    Reference(&'static str),
    /// What rules or providers call so: `payment_hash`.
    Alias(Arc<str>),
}

impl NameKind {
    /// The kind in the two pieces in which locks know it.
    #[must_use]
    pub fn pieces(&self) -> [&str; 2] {
        match self {
            Self::Reference(provider) => ["reference:", provider],
            Self::Alias(kind) => [kind, ""],
        }
    }
}

impl fmt::Display for NameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reference(provider) => write!(f, "reference.{provider}"),
            Self::Alias(kind) => f.write_str(kind),
        }
    }
}

/// A query that leads from one name of a payment to others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// What it is asked with.
    pub from: NameKind,
    /// What it finds.
    pub to: NameKind,
    /// The query.
    pub sql: Arc<str>,
}

/// How it is found whether a payment was booked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booking {
    /// Whose payments it knows of, by their references.
    pub provider: &'static str,
    /// The query. It finds the reference itself where the payment is there, and nothing where it is not. There is none where only
    /// the API knows.
    pub sql: Option<Arc<str>>,
}

/// Everything that is to be known of whom to ask; at least one of the two is there.
#[derive(Clone, PartialEq)]
pub struct Options {
    /// The app's database, where it may be asked.
    pub database: Option<Source>,
    /// The app's API, where it may be asked.
    pub api: Option<ApiOptions>,
    /// A PEM file with the authorities to trust instead of the machine's own.
    pub ca: Option<PathBuf>,
    /// What stood in it when this was read.
    pub ca_content: Option<Content>,
    /// How long an answer may take.
    pub timeout: Duration,
    /// How many connections there are at once.
    pub connections: usize,
    /// The queries for names.
    pub names: Arc<[Naming]>,
    /// The queries for what was booked, one for each provider.
    pub booked: Arc<[Booking]>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("sort", &self.database.as_ref().map(|source| source.sort))
            .field("api", &self.api)
            .field("names", &self.names)
            .field("booked", &self.booked)
            .finish_non_exhaustive()
    }
}

/// An address that leads to no database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDatabase {
    /// It begins like none that we know.
    #[error("it begins neither with mysql:// nor with postgresql://")]
    Scheme,
    /// Something else is wrong with it; the password is not told.
    #[error("{0}")]
    Wrong(String),
}

impl Options {
    /// What kind of database an address leads to, if it is in order, and whether what is said there can be overheard.
    ///
    /// # Errors
    ///
    /// [`NoDatabase`].
    pub fn sort_of(url: &str) -> Result<(Sort, bool), NoDatabase> {
        match url.split_once("://").map(|(scheme, _)| scheme) {
            Some("mysql" | "mariadb") => Ok((Sort::MySql, super::mysql::is_overheard(url)?)),
            Some("postgresql" | "postgres") => Ok((Sort::Postgres, super::postgres::is_overheard(url)?)),
            _ => Err(NoDatabase::Scheme),
        }
    }

    /// The places of queries, those for names first.
    pub(super) fn places(&self) -> std::ops::Range<usize> {
        0..self.names.len() + self.booked.len()
    }

    /// The query at this place, if there is one.
    pub(super) fn query(&self, place: usize) -> Option<&str> {
        match place.checked_sub(self.names.len()) {
            None => self.names.get(place).map(|naming| &*naming.sql),
            Some(place) => self.booked.get(place)?.sql.as_deref(),
        }
    }

    pub(super) fn address(&self) -> &str {
        let source = self.database.as_ref().map(|source| source.url.expose());
        std::str::from_utf8(source.unwrap_or_default()).unwrap_or_default()
    }
}
