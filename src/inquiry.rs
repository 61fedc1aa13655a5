//! Asks a provider what has become of a payment: one question for all who want to know, with bounds, limits and rests.
//!
//! Whatever goes wrong, the caller hears that nothing is known; a callback is then dealt with as if nobody could be asked.

mod accounts;
pub mod breaker;
mod rounds;
mod showing;
mod sources;

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwapOption;
use dashmap::DashMap;
use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};

use self::{accounts::Accounts, breaker::Breaker, rounds::Rounds, showing::Showing, sources::Sources};
use crate::{
    callback::Key,
    outbound::Outbound,
    provider::inquiry::{Asking, NoEvent, Said, Told},
    telemetry::Metrics,
    time::{Clock, SteadyClock, Timestamp},
};

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// This has become of the payment.
    Event(Arc<Said>),
    /// The answer is about another payment.
    Another,
    /// Nobody knows.
    Nothing(Why),
}

/// Why nothing is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No account knows of such a payment.
    NotFound,
    /// No key is let in.
    Refused,
    /// We ask too much, says the provider.
    Limited,
    /// It said what nobody can read.
    Unreadable,
    /// It can't be reached, or has failed.
    Failed,
    /// It took too long.
    TooSlow,
    /// It has failed before, and is left alone for a while.
    Resting,
    /// Too much is asked already, or by this sender.
    Crowded,
}

impl Known {
    /// The word in metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Event(_) => "found",
            Self::Another => "another",
            Self::Nothing(Why::NotFound) => "not_found",
            Self::Nothing(Why::Refused) => "refused",
            Self::Nothing(Why::Limited) => "limited",
            Self::Nothing(Why::Unreadable) => "unreadable",
            Self::Nothing(Why::Failed) => "failed",
            Self::Nothing(Why::TooSlow) => "timeout",
            Self::Nothing(Why::Resting) => "resting",
            Self::Nothing(Why::Crowded) => "crowded",
        }
    }
}

/// Questions to one provider that are under way at once; one more waits.
const AT_ONCE: usize = 16;
/// Callbacks that wait for an answer; one more is not asked about.
const WAITING: usize = 4096;
/// How often a question is put before it is given up, if the time allows it.
const TRIES: u32 = 3;
/// The pause before a question is put again; it doubles.
const PAUSE: Duration = Duration::from_millis(250);
/// How long a provider is left alone that does not say for how long.
const LIMITED: Duration = Duration::from_secs(10);

/// Asks, and keeps what has to be known from one question to the next.
pub struct Inquiry {
    outbound: ArcSwapOption<Outbound>,
    clock: SteadyClock,
    metrics: Arc<Metrics>,
    rounds: Mutex<Rounds<Key, Round>>,
    showing: Showing,
    accounts: Mutex<Accounts>,
    sources: Mutex<Sources>,
    providers: DashMap<&'static str, Arc<Desk>>,
    waiting: AtomicUsize,
}

/// Who waits for the answer to one question.
type Round = Arc<watch::Sender<Option<Known>>>;

/// What is known of one provider.
struct Desk {
    places: Semaphore,
    breaker: Mutex<Breaker>,
}

impl Inquiry {
    /// Nobody can be asked before [`Self::through`].
    #[must_use]
    pub fn new(clock: SteadyClock, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            outbound: ArcSwapOption::empty(),
            clock,
            metrics,
            rounds: Mutex::default(),
            showing: Showing::default(),
            accounts: Mutex::default(),
            sources: Mutex::default(),
            providers: DashMap::new(),
            waiting: AtomicUsize::new(0),
        })
    }

    /// From now on it is asked through this.
    pub fn through(&self, outbound: Outbound) {
        self.outbound.store(Some(Arc::new(outbound)));
    }

    /// Whether anybody can be asked.
    #[must_use]
    pub fn can_ask(&self) -> bool {
        self.outbound.load().is_some()
    }

    /// What has become of a payment, by an answer to a question that is sent after this call; within the limit of `asking`.
    pub async fn ask(self: &Arc<Self>, asking: Asking, source: Option<IpAddr>) -> Known {
        let (provider, limit) = (asking.api.provider, asking.api.timeout);
        let deadline = Instant::now() + limit;
        let crowded = || {
            self.metrics.count_inquiry(provider, Known::Nothing(Why::Crowded).as_str());
            Known::Nothing(Why::Crowded)
        };
        let Some(_seat) = Seat::take(self) else { return crowded() };
        let payment = asking.payment;
        let joined = {
            let mut rounds = lock(&self.rounds);
            // A question that is put for others anyway costs nothing.
            let pays = source.filter(|_| !rounds.gathers(&payment));
            let admitted = pays.is_none_or(|source| lock(&self.sources).admit(source, self.clock.now()));
            admitted.then(|| (pays, rounds.join(payment, || Arc::new(watch::Sender::new(None)))))
        };
        let Some((pays, (round, is_first))) = joined else { return crowded() };
        let mut answers = round.subscribe();
        if is_first {
            let keeping = Keeping { inquiry: Arc::clone(self), payment };
            tokio::spawn(keeping.answer(asking, round));
        } else {
            drop(round);
        }
        let known = match tokio::time::timeout_at(deadline, answers.wait_for(Option::is_some)).await {
            Ok(Ok(known)) => known.clone().unwrap_or(Known::Nothing(Why::Failed)),
            Ok(Err(_)) => Known::Nothing(Why::Failed),
            Err(_) => Known::Nothing(Why::TooSlow),
        };
        let guessed = matches!(known, Known::Another | Known::Nothing(Why::NotFound | Why::Refused));
        if let Some(source) = pays.filter(|_| !guessed) {
            lock(&self.sources).give_back(source);
        }
        known
    }

    /// Puts one question, whatever it takes, and counts what came of it.
    async fn put(&self, asking: &Asking) -> Known {
        let provider = asking.api.provider;
        let started = Instant::now();
        let known = self.within_limits(asking, started + asking.api.timeout).await;
        self.metrics.count_inquiry(provider, known.as_str());
        if !matches!(known, Known::Nothing(Why::Resting)) {
            self.metrics.inquiry_seconds.observe(started.elapsed().as_secs_f64());
        }
        match &known {
            Known::Another => tracing::error!(provider, "an answer was about another payment than was asked for"),
            Known::Nothing(Why::Refused) => tracing::warn!(provider, "no key of [provider.{provider}] is let in"),
            _ => {}
        }
        known
    }

    async fn within_limits(&self, asking: &Asking, deadline: Instant) -> Known {
        let desk = Arc::clone(self.providers.entry(asking.api.provider).or_default().value());
        let Ok(place) = tokio::time::timeout_at(deadline, desk.places.acquire()).await else {
            return Known::Nothing(Why::Crowded);
        };
        let Some(outbound) = self.outbound.load_full() else { return Known::Nothing(Why::Failed) };
        let mut last = Known::Nothing(Why::Resting);
        for attempt in 0..TRIES {
            if !lock(&desk.breaker).admits(self.clock.now()) {
                break;
            }
            let pause = match tokio::time::timeout_at(deadline, self.with_every_key(&outbound, asking)).await {
                Ok(Tried::Said(known)) => {
                    lock(&desk.breaker).well();
                    return known;
                }
                Ok(Tried::Limited(pause)) => {
                    lock(&desk.breaker).rest(self.clock.now(), pause);
                    last = Known::Nothing(Why::Limited);
                    pause
                }
                Ok(Tried::Failed(why)) => {
                    lock(&desk.breaker).failed(self.clock.now());
                    tracing::warn!(provider = asking.api.provider, why, "a question to a provider has failed");
                    last = Known::Nothing(Why::Failed);
                    PAUSE * 2_u32.pow(attempt)
                }
                Err(_) => {
                    lock(&desk.breaker).failed(self.clock.now());
                    return Known::Nothing(Why::TooSlow);
                }
            };
            let again = Instant::now().checked_add(pause);
            if attempt + 1 == TRIES || again.is_none_or(|again| again >= deadline) {
                break;
            }
            tokio::time::sleep(pause).await;
        }
        drop(place);
        last
    }

    /// Asks with one key after the other, the likeliest first, until one account knows of the payment.
    async fn with_every_key(&self, outbound: &Outbound, asking: &Asking) -> Tried {
        let api = &asking.api;
        let order = lock(&self.accounts).order(asking.scope, api.keys.len());
        let mut refused = 0;
        for place in order {
            let now = self.clock.wall(self.clock.now());
            let response = match self.showing.ask(outbound, asking, &api.keys[place], now).await {
                Ok(response) => response,
                Err(error) => return Tried::Failed(error),
            };
            let told = match response.status() {
                StatusCode::OK => api.inquiry.told(&asking.reference, response.body()),
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Told::Nothing(NoEvent::Refused),
                // Some say so of an id that they do not know; and whoever makes one up must trip no breaker.
                StatusCode::NOT_FOUND
                | StatusCode::GONE
                | StatusCode::BAD_REQUEST
                | StatusCode::UNPROCESSABLE_ENTITY => Told::Nothing(NoEvent::NotFound),
                StatusCode::TOO_MANY_REQUESTS => return Tried::Limited(retry_after(response.headers(), now)),
                other => return Tried::Failed(format!("it answers with {other}")),
            };
            let known = match told {
                Told::Event(said) => Known::Event(said),
                Told::Another => Known::Another,
                Told::Nothing(NoEvent::NotFound) => continue,
                Told::Nothing(NoEvent::Refused) => {
                    refused += 1;
                    continue;
                }
                Told::Nothing(NoEvent::Failed(why)) => return Tried::Failed(why),
                Told::Nothing(NoEvent::Unreadable(why)) => {
                    tracing::warn!(provider = api.provider, %why, "an answer of a provider can't be read");
                    Known::Nothing(Why::Unreadable)
                }
            };
            lock(&self.accounts).answered(asking.scope, place);
            return Tried::Said(known);
        }
        Tried::Said(Known::Nothing(if refused == api.keys.len() { Why::Refused } else { Why::NotFound }))
    }
}

/// What came of asking with every key.
enum Tried {
    Said(Known),
    Limited(Duration),
    Failed(String),
}

/// How long it wants to be left alone: seconds, or until a date (RFC 9110, section 10.2.3).
fn retry_after(fields: &HeaderMap, now: Timestamp) -> Duration {
    let told = fields.get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::trim);
    let until = |date: &str| {
        let date = httpdate::parse_http_date(date).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(date.saturating_sub(Duration::from_millis(now.as_millis())))
    };
    let wait = told.and_then(|told| told.parse().ok().map(Duration::from_secs).or_else(|| until(told)));
    wait.unwrap_or(LIMITED)
}

impl Default for Desk {
    fn default() -> Self {
        Self { places: Semaphore::new(AT_ONCE), breaker: Mutex::default() }
    }
}

/// One question after the other about one payment, for as long as somebody wants to know.
struct Keeping {
    inquiry: Arc<Inquiry>,
    payment: Key,
}

impl Keeping {
    async fn answer(self, asking: Asking, mut round: Round) {
        loop {
            round.send_replace(Some(self.inquiry.put(&asking).await));
            let Some(next) = lock(&self.inquiry.rounds).answered(&self.payment) else { return };
            round = next;
        }
    }
}

impl Drop for Keeping {
    fn drop(&mut self) {
        // Nothing is left of it when all went well; else nobody shall wait on who is gone.
        lock(&self.inquiry.rounds).forget(&self.payment);
    }
}

/// A place among those who wait for an answer.
struct Seat<'a>(&'a AtomicUsize);

impl<'a> Seat<'a> {
    fn take(inquiry: &'a Inquiry) -> Option<Self> {
        let seat = Self(&inquiry.waiting);
        (inquiry.waiting.fetch_add(1, Ordering::Relaxed) < WAITING).then_some(seat)
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

impl std::fmt::Debug for Inquiry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inquiry")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_says_in_seconds_or_by_a_date_how_long_it_wants_to_be_left_alone() {
        let now = Timestamp::from_millis(784_111_777_000);
        let wait = |told: &'static str| {
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, http::HeaderValue::from_static(told))]), now).as_secs()
        };
        assert_eq!((wait("120"), wait(" 5 ")), (120, 5));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT"), 60);
        assert_eq!(wait("Sunday, 06-Nov-94 08:50:37 GMT"), 60, "in the old form too");
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:36 GMT"), 0, "it is over");
        let usual = LIMITED.as_secs();
        assert_eq!((wait("soon"), wait("-1"), wait("")), (usual, usual, usual));
        assert_eq!(retry_after(&HeaderMap::new(), now), LIMITED);
    }
}
