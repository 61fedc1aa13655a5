//! The payer's double click: the same POST again, while the first is in the app or shortly after.

use std::{sync::Arc, time::Duration};

use dashmap::{DashMap, Entry};
use http::{HeaderMap, HeaderValue, StatusCode, header::LOCATION};
use tokio::{sync::watch, time::Instant};

use super::Received;
use crate::callback::Key;

/// How long after its answer a POST is still taken for the same click.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Above so many, double clicks are no longer told apart; each waits its turn instead.
const MOST: usize = 10_000;

/// Where the first one was sent; the outer `None` while it is under way, the inner where it was sent nowhere.
type Outcome = Option<Option<HeaderValue>>;

#[derive(Clone)]
struct Known {
    since: Instant,
    outcome: watch::Receiver<Outcome>,
}

/// The POSTs of returns of the last minute.
#[derive(Default)]
pub struct Repeats(Arc<DashMap<Key, Known>>);

/// What a POST turned out to be.
pub enum Turn {
    /// The first of its kind; to be told what came of it.
    First(First),
    /// The same again: the first one was sent there.
    Repeat(HeaderValue),
    /// The same again, and nobody knows in time where the first one was sent: it has to find out by itself.
    Again,
}

/// The first of its kind. Dropped without an answer, it leaves nothing behind.
pub struct First {
    all: Arc<DashMap<Key, Known>>,
    key: Key,
    outcome: watch::Sender<Outcome>,
    accepted: bool,
}

impl Repeats {
    /// Tells whether this POST has been here, waiting for the first one's answer for at most `patience`.
    ///
    /// The session stands inside the body: the payment hash is drawn anew for each visit of the payment page, and the
    /// form's token is the session's. Cookies change with every answer and can't tell.
    pub async fn turn(&self, received: &Received, patience: Duration) -> Turn {
        let key = Key::of("repeat")
            .part("method", received.method.as_str())
            .part("host", &received.host)
            .part("target", received.uri.to_string())
            .part("body", &received.body)
            .finish();
        if self.0.len() >= MOST {
            self.0.retain(|_, known| known.is_current());
        }
        if self.0.len() >= MOST {
            return Turn::Again;
        }
        let deadline = Instant::now() + patience;
        loop {
            let mut known = match self.known_or_first(key) {
                Ok(known) => known,
                Err(first) => return Turn::First(first),
            };
            match tokio::time::timeout_at(deadline, known.outcome.wait_for(Option::is_some)).await {
                Err(_) => return Turn::Again,
                Ok(Ok(outcome)) => {
                    if let Some(location) = outcome.clone().flatten() {
                        return Turn::Repeat(location);
                    }
                }
                Ok(Err(_)) => {}
            }
            // The first one was sent nowhere: of those who waited one is the first now, and the others wait on it.
        }
    }

    fn known_or_first(&self, key: Key) -> Result<Known, First> {
        match self.0.entry(key) {
            Entry::Occupied(entry) if entry.get().is_current() => Ok(entry.get().clone()),
            Entry::Occupied(mut entry) => {
                let (first, known) = self.first(key);
                entry.insert(known);
                Err(first)
            }
            Entry::Vacant(entry) => {
                let (first, known) = self.first(key);
                entry.insert(known);
                Err(first)
            }
        }
    }

    fn first(&self, key: Key) -> (First, Known) {
        let (sender, receiver) = watch::channel(None);
        let first = First { all: Arc::clone(&self.0), key, outcome: sender, accepted: false };
        (first, Known { since: Instant::now(), outcome: receiver })
    }
}

impl Known {
    fn is_current(&self) -> bool {
        self.outcome.borrow().is_none() && self.outcome.has_changed().is_ok() || self.since.elapsed() < REMEMBERED
    }
}

impl First {
    /// The app's answer. Only one that sends the payer on is remembered.
    pub fn accepted(mut self, status: StatusCode, headers: &HeaderMap) {
        // Dropped without one, it leaves nothing behind.
        let Some(location) = headers.get(LOCATION).filter(|_| status.is_redirection()) else { return };
        self.accepted = true;
        if let Some(mut known) = self.all.get_mut(&self.key) {
            known.since = Instant::now();
        }
        self.outcome.send_replace(Some(Some(location.clone())));
    }
}

impl Drop for First {
    fn drop(&mut self) {
        if !self.accepted {
            self.all.remove(&self.key);
            self.outcome.send_replace(Some(None));
        }
    }
}
