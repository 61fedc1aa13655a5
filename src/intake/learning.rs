//! Learns from the app's answers which payments a payer has begun, and finds them again when he comes back.
//!
//! A session is known by a keyed digest only, under a key that is drawn when the gate starts: what is remembered of it is
//! worth nothing to who reads it.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, Method, StatusCode};
use ring::{hmac, rand::SystemRandom};

use super::{Intake, missing::Beginning, reading::Rulebook};
use crate::{
    callback::Key,
    dispatch::App,
    rule::Learn,
    store::{Store, Want},
    transaction::{
        effect::Transition,
        learned::{Doubt, Lesson},
        lock::{Era, Kind, LockName},
    },
};

/// Pages are never stopped by a store's trouble: so long it may take over a lesson.
const PATIENCE: Duration = Duration::from_secs(1);

/// Digests of sessions, under a key of their own.
pub struct Sessions(hmac::Key);

impl Sessions {
    /// Digests that nobody else can make.
    ///
    /// # Panics
    ///
    /// Where the machine has no randomness to give.
    pub fn new() -> Self {
        let drawn = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new());
        Self(drawn.unwrap_or_else(|_| panic!("this machine gives no random numbers")))
    }

    fn names(&self, era: Era, sessions: Vec<(Arc<str>, &[u8])>) -> Vec<LockName> {
        sessions.into_iter().map(|(kind, value)| self.name(era, &kind, value)).collect()
    }

    /// What was learned under other rules is not found again: its names can't be compared with those of now.
    fn name(&self, era: Era, kind: &str, value: &[u8]) -> LockName {
        let mut context = hmac::Context::with_key(&self.0);
        for part in [&era.0.to_be_bytes()[..], kind.as_bytes(), value] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut key = [0; 16];
        key.copy_from_slice(&context.sign().as_ref()[..16]);
        LockName { kind: Kind::named(["session:", kind]), key: Key::from_bytes(key) }
    }
}

/// A request whose answer will be looked at.
#[derive(Debug)]
pub struct Asked {
    learn: Arc<Learn>,
    upstream: Arc<str>,
    era: Era,
    method: Method,
    host: String,
    /// The sessions with which it came.
    pub sessions: Vec<LockName>,
    /// Names of the payment that it carries itself.
    own: Vec<LockName>,
    /// Whose payments are waited for once they have begun, and how long.
    awaits: Vec<(&'static str, Duration)>,
}

/// What an answer taught.
#[derive(Debug)]
pub struct Taught {
    lessons: Vec<Lesson>,
    /// Payments that are to be waited for.
    begun: Vec<Beginning>,
    era: Era,
}

impl Taught {
    /// Whether it taught nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.lessons.is_empty() && self.begun.is_empty()
    }
}

impl<S: Store, A: App> Intake<S, A> {
    /// Notes what a request came with, before it goes to the app.
    #[must_use]
    pub fn asked(&self, book: &Rulebook, learn: Arc<Learn>, method: &Method, host: &str, headers: &HeaderMap) -> Asked {
        let sessions = self.sessions.names(book.era, learn.sessions_of(headers));
        let (upstream, era) = (Arc::clone(&book.upstream), book.era);
        let awaits = book.apis.values().filter_map(|api| Some((api.provider, api.missing_after?))).collect();
        Asked { learn, upstream, era, method: method.clone(), host: host.to_owned(), sessions, own: Vec::new(), awaits }
    }

    /// What the head of the answer teaches; mostly nothing.
    #[must_use]
    pub fn lessons(&self, asked: &Asked, status: StatusCode, headers: &HeaderMap) -> Taught {
        let told = asked.learn.read(&asked.method, &asked.host, status, headers);
        let given = self.sessions.names(asked.era, asked.learn.sessions_set(headers));
        let name = |(kind, value): &(Arc<str>, String)| LockName::new(&asked.upstream, [kind, ""], value);
        let names: Vec<_> = told.names.iter().map(name).collect();
        let doubt = match (told.unread, told.unseen) {
            (true, _) => Doubt::Certain,
            (false, true) => Doubt::Perhaps,
            (false, false) => Doubt::None,
        };
        let says = |lesson: &Lesson| {
            let follows = lesson.subjects.len() > 1;
            !lesson.subjects.is_empty() && (follows || !lesson.names.is_empty() || lesson.doubt != Doubt::None)
        };
        let mut subjects = asked.sessions.clone();
        given.into_iter().filter(|name| !asked.sessions.contains(name)).for_each(|name| subjects.push(name));
        let payer = Lesson { subjects, names, came: None, doubt };
        let own = |own: &LockName| Lesson { subjects: vec![*own], ..payer.clone() };
        let lessons = asked.own.iter().map(own).chain([payer.clone()]).filter(says).collect();
        let begun = told.names.iter().filter_map(|(kind, value)| asked.begins(kind, value)).collect();
        Taught { lessons, begun, era: asked.era }
    }

    /// Remembers lessons. To be awaited before the payer hears the answer: he can't come back sooner.
    pub async fn learn(self: Arc<Self>, taught: Taught) {
        if taught.is_empty() {
            return;
        }
        if tokio::time::timeout(PATIENCE, self.teach(taught)).await.is_err() {
            tracing::warn!("the store took too long to take in what an answer taught");
        }
    }

    /// A payer has come back with these sessions, under this name.
    pub(super) async fn note_came(self: &Arc<Self>, sessions: &[LockName], own: Key) {
        let lesson = Lesson { subjects: sessions.to_vec(), names: Vec::new(), came: Some(own), doubt: Doubt::None };
        let era = Era(0);
        Arc::clone(self).learn(Taught { lessons: vec![lesson], begun: Vec::new(), era }).await;
    }

    async fn teach(&self, Taught { mut lessons, begun, era }: Taught) {
        let begins = |lesson: &Lesson| !lesson.names.is_empty() || lesson.doubt == Doubt::Certain;
        if begun.is_empty() && !lessons.iter().any(begins) {
            // Of most people nothing is known, and there is nothing to follow.
            let known: Vec<_> = lessons.iter().flat_map(|lesson| &lesson.subjects).copied().collect();
            let now = self.dispatch.clock_now();
            match self.dispatch.store.load(Want::Transactions(&[], &known), now).await {
                Ok(view) if !view.begun.is_empty() => {
                    let is_known = |name: &LockName| view.begun.iter().any(|(key, _)| *key == name.key);
                    lessons.retain(|lesson| lesson.subjects.iter().any(is_known));
                }
                _ => return,
            }
        }
        let (deliveries, begun) = self.awaiting(era, begun);
        match self.dispatch.commit(Transition { lessons, deliveries, ..Transition::default() }).await {
            Ok(()) => begun.stands(),
            Err(error) => tracing::warn!(%error, "what an answer taught is not remembered"),
        }
    }
}

impl Asked {
    /// The same for a callback that carries names of its own.
    #[must_use]
    pub fn under(self, own: &[LockName]) -> Self {
        Self { own: own.to_vec(), ..self }
    }

    /// The payment that has begun under this name, if it is to be waited for.
    fn begins(&self, kind: &str, value: &str) -> Option<Beginning> {
        let provider = kind.strip_prefix("reference:")?;
        let (provider, after) = *self.awaits.iter().find(|(known, _)| *known == provider)?;
        Some(Beginning { provider, reference: Arc::from(value), after, place: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_known_by_a_digest_that_no_other_gate_can_make() {
        let (ours, theirs) = (Sessions::new(), Sessions::new());
        let name = |sessions: &Sessions, kind, value: &[u8]| sessions.name(Era(1), kind, value);
        assert_eq!(name(&ours, "session", b"secret"), name(&ours, "session", b"secret"));
        assert_ne!(name(&ours, "session", b"secret"), name(&theirs, "session", b"secret"));
        assert_ne!(name(&ours, "session", b"secret"), name(&ours, "session", b"Secret"));
        assert_ne!(name(&ours, "session", b"secret"), ours.name(Era(2), "session", b"secret"));
        assert_ne!(name(&ours, "session", b"secret").key, name(&ours, "sessions", b"ecret").key);
    }
}
