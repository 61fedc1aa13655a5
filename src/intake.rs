//! From a request that a rule takes for a callback to what its caller hears: read, decide, commit, answer.

mod asking;
mod confirming;
mod keeping;
mod learning;
pub mod looking;
pub mod missing;
mod noted;
mod patience;
pub mod reading;
mod relay;
mod repeat;
mod reply;
mod returned;
mod webhook;

use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, Uri};

use self::{
    asking::Rechecks,
    learning::Sessions,
    missing::Missing,
    noted::{Book, Noted},
    reading::{Reading, Rulebook, Whole},
    repeat::Repeats,
    reply::{RETRYABLE, UNREADABLE, UNVERIFIED, plain, reply_ack, reply_own},
};
pub use self::{learning::Asked, relay::Relayed};
use crate::{
    callback::Channel,
    dispatch::{App, Dispatch, Heard, SHUT, Sign, sign_of},
    inquiry::Inquiry,
    permit::{NoPermit, Permit},
    rule::Route,
    store::{CommitError, Store, StoreError},
    transaction::{
        arrival::Decision,
        effect::{Ending, Input},
        lock::LeaseId,
        policy::Treatment,
        state::StoredRequest,
    },
};

/// Every answer to a webhook says what was decided about it.
pub static DECISION_HEADER: HeaderName = HeaderName::from_static("oncegate-decision");

/// A callback that has been read whole.
#[derive(Debug)]
pub struct Received {
    /// The method.
    pub method: Method,
    /// The target as received.
    pub uri: Uri,
    /// The header fields as the app shall see them: hop-by-hop ones removed, the forwarding ones set. Whatever rules,
    /// providers and signatures read is among them as it was received.
    pub headers: HeaderMap,
    /// The body as received.
    pub body: Bytes,
    /// The host the caller meant.
    pub host: String,
    /// Who sent it, as far as the trusted proxies can be believed.
    pub source: IpAddr,
}

impl Received {
    fn into_request(self) -> StoredRequest {
        StoredRequest { method: self.method, uri: self.uri, headers: self.headers, body: self.body }
    }

    fn whole(&self) -> Whole<'_> {
        Whole {
            method: &self.method,
            uri: &self.uri,
            headers: &self.headers,
            body: &self.body,
            host: &self.host,
            source: self.source,
        }
    }
}

/// What the caller of a callback hears.
#[derive(Debug)]
pub enum Reply<B> {
    /// All of it is here.
    Whole(Response<Bytes>),
    /// It comes from the app.
    Relayed(Response<Relayed>),
    /// It comes from the app, and nothing depends on it (`shadow`).
    Streamed(Response<B>),
}

/// The intake.
pub struct Intake<S, A> {
    dispatch: Arc<Dispatch<S, A>>,
    inquiry: Arc<Inquiry>,
    rechecks: Rechecks,
    missing: Missing,
    sessions: Sessions,
    repeats: Repeats,
    book: Book,
    /// The entry that shows a person what was turned away; it may have been dealt with.
    turned_away: AtomicU64,
}

/// How often a callback is decided anew because something came in between.
const MOST_ROUNDS: usize = 1000;

impl<S: Store, A: App> Intake<S, A> {
    /// An intake that brings its callbacks to `dispatch`.
    pub fn new(dispatch: Arc<Dispatch<S, A>>) -> Arc<Self> {
        let book = Book::new(Arc::clone(&dispatch.metrics));
        let inquiry = Inquiry::new(dispatch.clock, Arc::clone(&dispatch.metrics));
        let (sessions, repeats, turned_away) = (Sessions::new(), Repeats::default(), AtomicU64::new(0));
        Arc::new(Self {
            dispatch,
            inquiry,
            rechecks: Rechecks::default(),
            missing: Missing::default(),
            sessions,
            repeats,
            book,
            turned_away,
        })
    }

    /// The dispatch.
    pub const fn dispatch(&self) -> &Arc<Dispatch<S, A>> {
        &self.dispatch
    }

    /// Who asks providers.
    pub const fn inquiry(&self) -> &Arc<Inquiry> {
        &self.inquiry
    }

    /// Deals with one callback, which `book` has taken for one. Whoever polls this must see it to its end, for a caller
    /// that hangs up cancels nothing.
    pub async fn handle(self: Arc<Self>, book: Arc<Rulebook>, route: Route, received: Received) -> Reply<A::Body> {
        match route.channel {
            Channel::Webhook => self.webhook(&book, &route, received).await,
            Channel::Return => Box::pin(self.back(&book, &route, received)).await,
        }
    }

    /// What a callback meets whose signature is wrong, or of which nobody can tell what it is about.
    async fn treat(
        self: &Arc<Self>,
        book: &Rulebook,
        reading: &Reading,
        received: Received,
        decision: Decision,
        treatment: Option<Treatment>,
        line: Noted<'_>,
    ) -> Reply<A::Body> {
        let source = received.source;
        let request = received.into_request();
        let Some(treatment) = treatment else { return self.in_shadow(None, reading, &request, line).await };
        match treatment {
            Treatment::Forward => self.unremembered(reading, &request, line).await,
            Treatment::Ack => line.tell(&self.book, reply_ack(&reading.provider.ack)),
            Treatment::Refuse if decision == Decision::Unverified => {
                line.tell(&self.book, plain(reading.provider.refusal(), UNVERIFIED))
            }
            Treatment::Refuse => line.tell(&self.book, plain(StatusCode::UNPROCESSABLE_ENTITY, UNREADABLE)),
            Treatment::Review => self.keep(book, reading, request, source, decision, line).await,
        }
    }

    /// Brings a request to the app under the lock; nothing is remembered of it and nobody else hears the answer.
    async fn unremembered(
        self: &Arc<Self>,
        reading: &Reading,
        request: &StoredRequest,
        mut line: Noted<'_>,
    ) -> Reply<A::Body> {
        let mut permit = match Permit::take(&self.dispatch, reading.claimed.clone(), None).await {
            Ok(permit) => permit,
            Err(NoPermit::Commit(CommitError::Store(error))) => return self.no_store(&error, line),
            Err(error) => return self.overflow(line, &error.to_string()),
        };
        let policy = &reading.policy;
        let heard = match self.dispatch.pass() {
            Err(_) => Heard::not_sent(SHUT.to_owned()),
            Ok(pass) => match self.dispatch.app.connect().await {
                Err(why) => {
                    pass.tell(Sign::Down);
                    Heard::not_sent(why)
                }
                Ok(connection) => {
                    permit.sending(policy.quiet);
                    let heard = self.dispatch.exchange(connection, request, policy).await;
                    pass.tell(sign_of(&heard.ending));
                    heard
                }
            },
        };
        self.dispatch.metrics.count_delivery(reading.provider.name, heard.ending.as_str());
        match &heard.ending {
            Ending::Accepted(_) | Ending::Rejected(_) => {
                // What is known has been put off by the app before, if it was at all.
                let linger = if line.is_a_repeat() { Duration::ZERO } else { policy.linger };
                if let Err(error) = permit.end(linger, Vec::new()).await {
                    tracing::error!(%error, "a lease could not be given back");
                }
            }
            Ending::NotSent(_) => permit.not_sent(),
            // The permit is dropped, and its lease kept for as long as the app may be at work.
            Ending::Unknown(..) => {}
        }
        line.heard(&heard);
        line.tell(&self.book, reply_own(heard))
    }

    /// Sends it on as if there were no gate, and records what came of it where it was the first of its kind.
    async fn in_shadow(
        self: &Arc<Self>,
        seen: Option<LeaseId>,
        reading: &Reading,
        request: &StoredRequest,
        mut line: Noted<'_>,
    ) -> Reply<A::Body> {
        let heard = match self.dispatch.app.connect().await {
            Ok(connection) => self.dispatch.exchange(connection, request, &reading.policy).await,
            Err(why) => Heard::not_sent(why),
        };
        self.dispatch.metrics.count_delivery(reading.provider.name, heard.ending.as_str());
        if let Some(id) = seen {
            let input = Input::Ended { attempt: 0, ending: heard.ending.clone() };
            if let Err(error) = self.dispatch.step(id, &input).await {
                tracing::warn!(%error, "what was seen in shadow could not be recorded");
            }
        }
        line.heard(&heard);
        line.tell(&self.book, reply_own(heard))
    }

    fn overflow(&self, mut line: Noted<'_>, why: &str) -> Reply<A::Body> {
        line.decision(Decision::Overflow, why.to_owned());
        line.tell(&self.book, plain(StatusCode::SERVICE_UNAVAILABLE, RETRYABLE))
    }

    fn no_store(&self, error: &StoreError, mut line: Noted<'_>) -> Reply<A::Body> {
        // The store has said so once, and `/readyz` goes on saying it.
        tracing::debug!(%error, "a callback is refused because the store can't be used");
        line.decision(Decision::Overflow, error.to_string());
        line.tell(&self.book, plain(StatusCode::SERVICE_UNAVAILABLE, RETRYABLE))
    }
}
