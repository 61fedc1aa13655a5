//! From a request that a rule takes for a callback to what its caller hears: read, decide, commit, answer.

mod asking;
mod keeping;
mod learning;
mod noted;
mod patience;
pub mod reading;
mod relay;
mod repeat;
mod reply;
mod returned;

use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Response, StatusCode, Uri};
use tokio::time::{Instant, timeout_at};

use self::{
    asking::{Inquest, Rechecks},
    learning::Sessions,
    noted::{Book, Noted},
    patience::{Patience, Waited},
    reading::{Reading, Rulebook, Whole, refused},
    repeat::Repeats,
    reply::{DOWN, REFUSED, RETRYABLE, UNREADABLE, UNVERIFIED, plain, reply_ack, reply_of, reply_own, reply_with},
};
pub use self::{learning::Asked, relay::Relayed};
use crate::{
    callback::Channel,
    dispatch::{App, Dispatch, Heard, SHUT, Sign, Waiter, sign_of},
    inquiry::Inquiry,
    permit::{NoPermit, Permit},
    rule::Route,
    store::{CommitError, Store, StoreError, Want},
    transaction::{
        arrival::{Arrival, Course, Decision, arrive},
        effect::{Ending, Input, Transition},
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
        Arc::new(Self { dispatch, inquiry, rechecks: Rechecks::default(), sessions, repeats, book, turned_away })
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

    async fn webhook(self: Arc<Self>, book: &Rulebook, route: &Route, received: Received) -> Reply<A::Body> {
        let now = self.dispatch.clock_now();
        let source = received.source;
        let wall = self.dispatch.clock.wall(now);
        let reading = Reading::of(route, &received.whole(), book, wall);
        let question = reading.question(route, book).filter(|_| refused(&reading).is_none());
        let (came, mut now, mut inquest) = (now, now, Inquest::default());
        let (reading, started) = match question {
            None => (reading, None),
            Some(question) => {
                let started = Instant::now();
                inquest = Box::pin(self.inquire(question, source)).await;
                now = self.dispatch.clock_now();
                let told =
                    inquest.said.take().map(|said| Reading::told(route, &received.whole(), book, wall, Some(&said)));
                (told.unwrap_or(reading), Some(started))
            }
        };
        let mut line = Noted::new(&reading, source);
        if let Some(started) = started {
            line = line.since(started);
        }
        if let Some((decision, treatment, why)) = refused(&reading).or_else(|| inquest.contradicted(&reading)) {
            line.decision(decision, why);
            self.dispatch.metrics.count_joined(reading.joined_by(false));
            let treatment = if reading.policy.shadow { None } else { Some(treatment) };
            return Box::pin(self.treat(book, &reading, received, decision, treatment, line)).await;
        }
        let request = Arc::new(received.into_request());
        let keys: Vec<_> = reading.statements.iter().flatten().map(|s| s.identified.transaction).collect();
        let arriving = reading.arriving();
        let arrival = |id, next| Arrival {
            id,
            next,
            events: arriving.clone(),
            provider: reading.provider.name,
            source: Some(source),
            kept: None,
            request: Arc::clone(&request),
            claimed: reading.claimed.clone(),
            came,
            inquired: self.rechecks.wanted(&inquest, now),
        };
        let until = reading.patience().and_then(|patience| line.waits_until(patience));
        let patience = Patience { keys: &keys, until };
        // One that is turned away is kept as a sample of those.
        let sample = || arrival(self.dispatch.next_id(), self.dispatch.next_id());
        let mut promised = None;
        for round in 0..MOST_ROUNDS {
            let now = if round == 0 { now } else { self.dispatch.clock_now() };
            let view = match self.dispatch.store.load(Want::Transactions(&keys, &reading.claimed.names), now).await {
                Ok(view) => view,
                Err(error) => return self.no_store(&error, line),
            };
            if round == 0 {
                self.dispatch.metrics.count_joined(reading.joined_by(view.told));
            }
            let id = self.dispatch.next_id();
            let (decided, mut transition) = arrive(&view, arrival(id, self.dispatch.next_id()), now);
            transition.links = reading.links();
            let rechecked = transition.deliveries.iter().find_map(asking::is_recheck);
            // In shadow a delivery is there to be counted; this one request records its outcome.
            let seen = (!transition.deliveries.is_empty()).then_some(id);
            if decided.course == Course::Keep && self.keeps_enough() {
                return self.overflow(line, "too much waits for a person already");
            }
            let goes = matches!(decided.course, Course::Deliver(_) | Course::Unremembered);
            if goes && !reading.policy.shadow && self.dispatch.shut_until().is_some() {
                line.decisions(decided.decisions, SHUT);
                return self.kept_back(line);
            }
            let delivery = transition.committed(id);
            line.decisions(decided.decisions, decided.why);
            let place = match decided.course {
                Course::Deliver(_) | Course::Wait(_) | Course::Again(_) => match self.dispatch.take_place() {
                    Some(place) => Some(place),
                    None => return Box::pin(self.turn_away(sample(), line, "too many callers wait already")).await,
                },
                _ => None,
            };
            // Before the commit, for after it the delivery may be at its end before anybody waits on it.
            let waiter = match decided.course {
                Course::Deliver(id) => place.map(|place| place.own(id)),
                Course::Wait(id) | Course::Again(id) => match place.and_then(|place| place.wait_on(id)) {
                    Some(waiter) => Some(waiter),
                    None => {
                        return Box::pin(self.turn_away(sample(), line, "too many callers wait on it already")).await;
                    }
                },
                _ => None,
            };
            let mut granted = false;
            // What changes nothing is noted, and nobody waits for that.
            let mut lines = Vec::new();
            if is_nothing(&transition) {
                lines = std::mem::take(&mut transition.history);
            } else {
                // What is acknowledged at once goes in a task of its own.
                let own = (!matches!(decided.course, Course::Accept(_))).then_some(id);
                match self.dispatch.commit_for(own, transition).await {
                    Ok(own) => {
                        granted = own;
                        self.rechecks.note(&inquest, rechecked);
                    }
                    Err(CommitError::Conflict) => {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    Err(CommitError::Store(error)) => return self.no_store(&error, line),
                    Err(error @ (CommitError::Full | CommitError::LeaseLost)) => {
                        return Box::pin(self.turn_away(sample(), line, &error.to_string())).await;
                    }
                }
            }
            if !matches!(decided.course, Course::Wait(_)) && !lines.is_empty() {
                self.dispatch.store.note(std::mem::take(&mut lines));
            }
            match decided.course {
                Course::Deliver(id) if granted => {
                    // Nobody is before us: the try needs no task of its own, and its outcome no detour.
                    waiter.iter().for_each(Waiter::goes);
                    let waited = match delivery {
                        Some(delivery) => self.wait_on_own(delivery, patience).await,
                        None => None,
                    };
                    let waited = match waited {
                        Some(waited) => waited,
                        None => {
                            // It queues again, and whoever gives it its turn tells what comes of it.
                            waiter.iter().for_each(Waiter::comes_back);
                            self.still_there(id, waiter, patience).await.unwrap_or(Waited::GoesDown)
                        }
                    };
                    return self.tell(waited, true, &reading, line);
                }
                Course::Deliver(id) => {
                    let waited = self.wait(id, waiter, patience).await;
                    return self.tell(waited, true, &reading, line);
                }
                Course::Accept(_) => return self.tell(Waited::Acknowledged, true, &reading, line),
                Course::Wait(id) => {
                    // It may have ended between the look and the wait.
                    let Some(waited) = self.still_there(id, waiter, patience).await else { continue };
                    self.dispatch.store.note(lines);
                    return self.tell(waited, false, &reading, line);
                }
                Course::Again(id) if keys.len() > 1 => match self.still_there(id, waiter, patience).await {
                    Some(Waited::NoStore(error)) => return self.no_store(&error, line),
                    // That one is ours now; whatever else is in the batch has to be so too, or to be known.
                    Some(Waited::Acknowledged) if promised != Some(id) => promised = Some(id),
                    Some(Waited::Acknowledged) => return self.too_long(line),
                    _ => {}
                },
                // It tells something else than what it waits for: a promise about that would not be about this.
                Course::Again(id) => {
                    let end = Box::pin(self.still_there(id, waiter, Patience { until: None, ..patience }));
                    let Some(until) = until else {
                        end.await;
                        continue;
                    };
                    if timeout_at(until, end).await.is_err() {
                        return self.too_long(line);
                    }
                }
                Course::Replay(answer) => return line.tell(&self.book, reply_with(&answer)),
                Course::Ack => return line.tell(&self.book, reply_ack(&reading.provider.ack)),
                Course::Retryable | Course::Keep => {
                    return line.tell(&self.book, plain(StatusCode::SERVICE_UNAVAILABLE, RETRYABLE));
                }
                Course::Refuse => return line.tell(&self.book, plain(StatusCode::CONFLICT, REFUSED)),
                Course::Unremembered => return Box::pin(self.unremembered(&reading, &request, line)).await,
                Course::Shadow => return Box::pin(self.in_shadow(seen, &reading, &request, line)).await,
            }
        }
        self.overflow(line, "it could not be decided: too much comes in between")
    }

    /// Waits on a delivery that may have ended between the look and the wait.
    async fn still_there(&self, id: LeaseId, waiter: Option<Waiter<S, A>>, patience: Patience<'_>) -> Option<Waited> {
        let now = self.dispatch.clock_now();
        let view = self.dispatch.store.load(Want::Delivery(id), now).await.ok()?;
        // What has come to an end in between and goes on later tells nobody for now.
        view.delivery(id).filter(|delivery| delivery.is_under_way())?;
        Some(self.wait(id, waiter, patience).await)
    }

    /// Says what came of waiting on a delivery, which is the caller's `own` or another's.
    fn tell(&self, waited: Waited, own: bool, reading: &Reading, mut line: Noted<'_>) -> Reply<A::Body> {
        match waited {
            Waited::Own(heard) => {
                line.heard(&heard);
                line.tell(&self.book, reply_own(heard))
            }
            Waited::Heard(heard) => {
                if own {
                    line.heard(&heard);
                }
                line.tell(&self.book, reply_of(&heard, own))
            }
            Waited::Acknowledged => {
                line.acknowledged();
                line.tell(&self.book, reply_ack(&reading.provider.ack))
            }
            Waited::GoesDown => self.going_down(line),
            Waited::NoStore(error) => self.no_store(&error, line),
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

    /// The app is taken to be down: nothing is remembered of the callback, and its sender keeps it.
    fn kept_back(&self, line: Noted<'_>) -> Reply<A::Body> {
        self.dispatch.metrics.upstream_kept_back.inc();
        line.tell(&self.book, plain(StatusCode::SERVICE_UNAVAILABLE, DOWN))
    }

    fn too_long(&self, line: Noted<'_>) -> Reply<A::Body> {
        line.tell(&self.book, plain(StatusCode::SERVICE_UNAVAILABLE, RETRYABLE))
    }

    fn going_down(&self, line: Noted<'_>) -> Reply<A::Body> {
        line.tell(&self.book, plain(StatusCode::SERVICE_UNAVAILABLE, RETRYABLE))
    }
}

fn is_nothing(transition: &Transition) -> bool {
    transition.transactions.is_empty()
        && transition.deliveries.is_empty()
        && transition.locks.is_empty()
        && transition.links.is_empty()
        && transition.lessons.is_empty()
}
