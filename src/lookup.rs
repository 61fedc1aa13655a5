//! Asks the app's own database, or its API, and only asks: for another name of a payment, and whether a payment was booked.
//!
//! Whatever goes wrong, the caller hears that nothing is known, which makes a lock wider, and leaves an unknown unknown.

mod api;
mod examine;
mod mysql;
mod options;
mod pool;
mod postgres;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use dashmap::DashMap;
use tokio::{
    sync::{OnceCell, Semaphore},
    time::Instant,
};

pub use self::api::ApiOptions;
pub use self::examine::Remark;
pub use self::options::{Booking, NameKind, Naming, NoDatabase, Options, Sort, Source};
use self::{api::Api, pool::Pool};
use crate::{
    inquiry::breaker::Breaker,
    outbound::TrustError,
    telemetry::Metrics,
    time::{Clock, SteadyClock},
};

/// Callbacks that wait for an answer; one more is not asked about.
const WAITING: usize = 4096;
/// What one payment may have of one kind of name. A query that finds more does not tell payments apart.
const MOST_FOUND: usize = 32;
/// The longest value that is looked for, in bytes; longer ones are no names.
const LONGEST: usize = 255;

/// Why nothing is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// There is no connection, or it broke off.
    #[error("the database can't be reached: {0}")]
    Away(String),
    /// The database lets nobody in by this address.
    #[error("the database refuses us: {0}")]
    Refused(String),
    /// It does not understand the query, or does not allow it.
    #[error("the query does not work: {0}")]
    Query(String),
    /// It took longer than allowed.
    #[error("the database took too long")]
    TooSlow,
    /// It has failed before, and is left alone for a while.
    #[error("the database has failed before, and is left alone for a while")]
    Resting,
    /// Too much is asked already.
    #[error("too much is asked already")]
    Crowded,
    /// It wants to be left alone for so long.
    #[error("it is asked too often")]
    Limited(Duration),
}

impl Trouble {
    /// The word in metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Away(_) => "failed",
            Self::Refused(_) => "refused",
            Self::Query(_) => "wrong",
            Self::TooSlow => "timeout",
            Self::Resting => "resting",
            Self::Crowded => "crowded",
            Self::Limited(_) => "limited",
        }
    }

    /// Whether the next question would meet the same.
    const fn is_of_the_database(&self) -> bool {
        matches!(self, Self::Away(_) | Self::Refused(_) | Self::TooSlow)
    }
}

/// What a query found: the first column of each row, without those that hold nothing.
pub type Found = Result<Arc<[String]>, Trouble>;

/// Whoever can be asked, with what has to be known from one question to the next.
pub struct Lookup {
    options: Options,
    database: Option<Database>,
    api: Option<Api>,
    /// Questions under way; one more waits for its turn.
    places: Semaphore,
    breaker: Mutex<Breaker>,
    /// What is being asked: whoever wants to know the same waits for the same answer.
    under_way: DashMap<(usize, String), Arc<OnceCell<Found>>>,
    waiting: AtomicUsize,
    /// Which queries have been told to be wrong.
    told: Vec<AtomicBool>,
    clock: SteadyClock,
    metrics: Arc<Metrics>,
}

enum Database {
    MySql(Pool<mysql::MySql>),
    Postgres(Box<Pool<postgres::Postgres>>),
}

impl Lookup {
    /// Nothing is asked before the first question.
    ///
    /// # Errors
    ///
    /// When there are no authorities by which who is asked could be told from an impostor.
    pub fn new(options: Options, clock: SteadyClock, metrics: Arc<Metrics>) -> Result<Arc<Self>, TrustError> {
        let database = match options.database.as_ref().map(|source| source.sort) {
            None => None,
            Some(Sort::MySql) => Some(Database::MySql(Pool::new(mysql::MySql::new(&options)?))),
            Some(Sort::Postgres) => Some(Database::Postgres(Box::new(Pool::new(postgres::Postgres::new(&options)?)))),
        };
        let api = options
            .api
            .clone()
            .map(|api| Api::new(api, options.ca.as_deref(), options.connections, clock))
            .transpose()?;
        let told = options.places().map(|_| AtomicBool::default()).collect();
        let places = Semaphore::new(options.connections);
        let (breaker, under_way, waiting) = (Mutex::default(), DashMap::new(), AtomicUsize::new(0));
        Ok(Arc::new(Self { options, database, api, places, breaker, under_way, waiting, told, clock, metrics }))
    }

    /// What may be asked.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// What the query at this place of `lookup.names` finds for this value, within the time limit. Who asks the same at once
    /// shares one question: names stay as they are, and one that was not there yet makes a lock too wide and nothing else.
    pub async fn ask(&self, place: usize, value: &str) -> Found {
        if value.len() > LONGEST {
            return Ok(Arc::new([]));
        }
        let Some(_seat) = Seat::take(&self.waiting) else { return Err(self.count(Trouble::Crowded)) };
        let key = (place, value.to_owned());
        let cell = Arc::clone(self.under_way.entry(key.clone()).or_default().value());
        let asked = cell.get_or_init(|| self.put(place, value)).await.clone();
        self.under_way.remove_if(&key, |_, current| Arc::ptr_eq(current, &cell));
        asked
    }

    /// Whether the app has booked the payment that this provider calls so; `None` where nobody tells. The API is asked where the
    /// database can't say; that it shows no such payment says nothing, for it shows a token what its user and company may see.
    /// Nobody shares an answer: it is about the time at which it was asked for.
    pub async fn is_booked(&self, provider: &str, reference: &str) -> Option<Result<bool, Trouble>> {
        let at = self.options.booked.iter().position(|booking| booking.provider == provider)?;
        let place = self.options.names.len() + at;
        let said = match self.options.query(place) {
            Some(_) if self.database.is_some() => Some(self.is_in_the_database(place, reference).await),
            _ => None,
        };
        let Some(api) = self.api.as_ref().filter(|_| !matches!(said, Some(Ok(_)))) else { return said };
        match self.is_told_by(api, reference).await {
            Ok(false) => said,
            told => Some(told),
        }
    }

    async fn is_told_by(&self, api: &Api, reference: &str) -> Result<bool, Trouble> {
        let started = Instant::now();
        let said = api.is_booked(reference).await;
        self.metrics.lookup_seconds.observe(started.elapsed().as_secs_f64());
        self.metrics.count_lookup(match &said {
            Ok(true) => "found",
            Ok(false) => "not_found",
            Err(trouble) => trouble.as_str(),
        });
        if let Err(trouble) = &said {
            tracing::warn!(
                key = "lookup.api",
                why = api::in_words(trouble),
                "a question to the app's API has no answer"
            );
        }
        said
    }

    async fn is_in_the_database(&self, place: usize, reference: &str) -> Result<bool, Trouble> {
        if reference.len() > LONGEST {
            return Err(Trouble::Query("the reference is too long to be looked for".to_owned()));
        }
        match self.put(place, reference).await {
            Ok(found) if found.is_empty() => Ok(false),
            // Databases compare in ways of their own: what is another's, or may be, confirms nothing.
            Ok(found) if found.iter().all(|found| found != reference) => {
                let trouble = Trouble::Query("it finds others than the reference that it was asked with".to_owned());
                self.tell(place, &trouble);
                Err(trouble)
            }
            Ok(_) => Ok(true),
            Err(trouble) => Err(trouble),
        }
    }

    /// Puts one question, and counts what came of it.
    async fn put(&self, place: usize, value: &str) -> Found {
        let started = Instant::now();
        let deadline = started + self.options.timeout;
        // Who waits in vain for his turn has learned nothing of the database.
        let turn = match tokio::time::timeout_at(deadline, self.places.acquire()).await {
            Ok(Ok(turn)) => turn,
            Ok(Err(_)) | Err(_) => return Err(self.count(Trouble::Crowded)),
        };
        if !lock(&self.breaker).admits(self.clock.now()) {
            return Err(self.count(Trouble::Resting));
        }
        let asked = tokio::time::timeout_at(deadline, self.query(place, value)).await;
        drop(turn);
        self.metrics.lookup_seconds.observe(started.elapsed().as_secs_f64());
        match asked.unwrap_or(Err(Trouble::TooSlow)) {
            Ok(found) => {
                lock(&self.breaker).well();
                self.metrics.count_lookup(if found.is_empty() { "not_found" } else { "found" });
                Ok(found.into())
            }
            Err(trouble) => {
                self.tell(place, &trouble);
                if trouble.is_of_the_database() {
                    lock(&self.breaker).failed(self.clock.now());
                } else {
                    lock(&self.breaker).well();
                }
                Err(self.count(trouble))
            }
        }
    }

    async fn query(&self, place: usize, value: &str) -> Result<Vec<String>, Trouble> {
        let Some(sql) = self.options.query(place) else {
            return Err(Trouble::Query("there is none".to_owned()));
        };
        let found = match &self.database {
            Some(Database::MySql(pool)) => pool.ask(sql, value).await?,
            Some(Database::Postgres(pool)) => pool.ask(sql, value).await?,
            None => return Err(Trouble::Query("there is no database".to_owned())),
        };
        if found.len() > MOST_FOUND {
            let why = format!("it finds more than {MOST_FOUND} rows for one value");
            return Err(Trouble::Query(why));
        }
        let is_name = place < self.options.names.len();
        // No name is empty; of a booking it would be a row of something else.
        Ok(found.into_iter().filter(|value| !is_name || !value.is_empty()).collect())
    }

    fn count(&self, trouble: Trouble) -> Trouble {
        self.metrics.count_lookup(trouble.as_str());
        trouble
    }

    fn key_of(&self, place: usize) -> String {
        match place.checked_sub(self.options.names.len()) {
            None => format!("lookup.names[{place}].sql"),
            Some(place) => format!("lookup.booked[{place}].sql"),
        }
    }

    /// A query that does not work is told once: it would not the next time either.
    fn tell(&self, place: usize, trouble: &Trouble) {
        let key = self.key_of(place);
        if let Trouble::Query(why) = trouble {
            if !self.told[place].swap(true, Ordering::Relaxed) {
                tracing::error!(
                    key,
                    why,
                    "a query does not work: correct it, and try it with `oncegate check --connect`"
                );
            }
        } else {
            tracing::warn!(key, %trouble, "a question to the app's database has no answer");
        }
    }
}

/// A place among those who wait for an answer.
struct Seat<'a>(&'a AtomicUsize);

impl<'a> Seat<'a> {
    fn take(waiting: &'a AtomicUsize) -> Option<Self> {
        let seat = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < WAITING).then_some(seat)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long the database itself lets a query run, in milliseconds: a moment longer than we wait for it.
fn statement_limit(timeout: Duration) -> u128 {
    timeout.as_millis() + 100
}

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lookup").field("options", &self.options).finish_non_exhaustive()
    }
}
