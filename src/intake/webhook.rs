//! A webhook, from its whole request to what its sender hears: read, decided, pursued, concluded.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{Response, StatusCode};
use tokio::time::{Instant, timeout_at};

use super::{
    Intake, MOST_ROUNDS, Received, Reply,
    asking::{Inquest, is_recheck},
    missing::Beginning,
    noted::Noted,
    patience::{Patience, Waited},
    reading::{Reading, Rulebook, refused},
    reply::{DOWN, REFUSED, RETRYABLE, plain, reply_ack, reply_of, reply_own, reply_with},
};
use crate::{
    callback::Key,
    dispatch::{App, Place, Ready, SHUT, Waiter},
    rule::Route,
    store::{CommitError, Store, StoreError, Want},
    time::Timestamp,
    transaction::{
        arrival::{Arrival, Arriving, Course, Inquired, arrive},
        history::Line,
        lock::LeaseId,
        state::{Delivery, StoredRequest},
        transition::{go_at_once, may_go_at_once},
    },
};

/// A webhook that has been read, and is decided about until the decision stands.
struct Webhook<'r> {
    reading: &'r Reading,
    events: Vec<Arriving>,
    /// The transactions of its events.
    keys: Vec<Key>,
    /// What they may pay that is paid once.
    bills: Vec<Key>,
    request: Arc<StoredRequest>,
    source: IpAddr,
    came: Timestamp,
    inquest: Inquest,
    /// When its sender has waited long enough; `None` where he waits for as long as it takes.
    until: Option<Instant>,
}

impl Webhook<'_> {
    fn arrival(&self, id: LeaseId, next: LeaseId, inquired: Inquired) -> Arrival {
        Arrival {
            id,
            next,
            events: self.events.clone(),
            provider: self.reading.provider.name,
            source: Some(self.source),
            kept: None,
            request: Arc::clone(&self.request),
            claimed: self.reading.claimed.clone(),
            came: self.came,
            inquired,
        }
    }

    fn patience(&self) -> Patience<'_> {
        Patience { keys: &self.keys, until: self.until }
    }
}

/// A decision that stands: it is committed, and its sender is to hear what comes of it.
struct Standing<S: Store, A: App> {
    course: Course,
    /// The delivery that it became, as it is known now.
    became: Option<Delivery>,
    /// Who brings that to the app, or waits for another.
    turn: Turn<S, A>,
    /// What is noted of it once its sender has waited, for he may have to be decided about again.
    lines: Vec<Line>,
}

/// What its sender has to do for what he hears.
enum Turn<S: Store, A: App> {
    /// Nothing.
    None,
    /// Wait.
    Waits(Waiter<S, A>),
    /// Go himself, for the lease was granted at once; he may have to wait all the same.
    Goes(Waiter<S, A>),
    /// Go himself, for all that this takes was at hand, and it is committed as begun. His place is counted meanwhile.
    Begins(Place<S, A>, Ready<S, A>),
}

/// What its sender hears, or how that is found.
enum End {
    /// What came of waiting on a delivery, which is his own or another's.
    Waited(Waited, bool),
    /// This.
    Says(Response<Bytes>),
    /// What the app says to this request, of which nothing is remembered.
    Unremembered,
    /// What the app says to this request, as if there were no gate; to be recorded of this delivery.
    Shadow(Option<LeaseId>),
    /// That he shall send it again.
    Later(Later),
}

/// Why its sender shall send it again, for nothing is remembered of it.
enum Later {
    /// The app is left alone.
    KeptBack,
    /// It can't be remembered.
    NoStore(StoreError),
    /// There is no room; and a person sees a sample of that.
    TurnedAway(String),
    /// A bound was reached, which this tells.
    Overflow(&'static str),
}

/// Why a decision does not stand.
enum Fallen {
    /// Something came in between: it is decided anew.
    Anew,
    /// It is not to be taken now.
    Later(Later),
}

impl<S: Store, A: App> Intake<S, A> {
    /// Reads a webhook, and decides about it until the decision stands.
    pub(super) async fn webhook(self: Arc<Self>, book: &Rulebook, route: &Route, received: Received) -> Reply<A::Body> {
        let came = self.dispatch.clock_now();
        let source = received.source;
        let wall = self.dispatch.clock.wall(came);
        let mut reading = Reading::of(route, &received.whole(), book, wall);
        let (mut now, mut inquest, mut asked) = (came, Inquest::default(), None);
        if let Some(question) = reading.question(route, book).filter(|_| refused(&reading).is_none()) {
            asked = Some(Instant::now());
            inquest = Box::pin(self.inquire(question, source)).await;
            now = self.dispatch.clock_now();
            if let Some(said) = inquest.said.take() {
                reading = Reading::told(route, &received.whole(), book, wall, Some(&said.event));
            }
        }
        if let (Some(lookup), None) = (&book.lookup, refused(&reading)) {
            let began = Instant::now();
            if Box::pin(self.look_up(lookup, book, &mut reading)).await {
                asked = asked.or(Some(began));
                now = self.dispatch.clock_now();
            }
        }
        let mut line = Noted::new(&reading, source);
        if let Some(asked) = asked {
            line = line.since(asked);
        }
        if let Some((decision, treatment, why)) = refused(&reading).or_else(|| inquest.contradicted(&reading)) {
            line.decision(decision, why);
            self.dispatch.metrics.count_joined(reading.joined_by(false));
            let treatment = if reading.policy.shadow { None } else { Some(treatment) };
            return Box::pin(self.treat(book, &reading, received, decision, treatment, line)).await;
        }
        let begun = Beginning::told(&reading, book, &received.whole());
        if !begun.is_empty() {
            Box::pin(self.expect(book.era, begun)).await;
        }
        let events = reading.arriving();
        let webhook = Webhook {
            reading: &reading,
            keys: events.iter().map(|event| event.identified.transaction).collect(),
            bills: reading.bills(),
            events,
            request: Arc::new(received.into_request()),
            source,
            came,
            inquest,
            until: reading.patience().and_then(|patience| line.waits_until(patience)),
        };
        let mut promised = None;
        for round in 0..MOST_ROUNDS {
            let end = match self.decide(&webhook, round == 0, now, &mut line).await {
                Ok(standing) => self.pursue(standing, &webhook, &mut promised).await,
                Err(Fallen::Later(later)) => Some(End::Later(later)),
                Err(Fallen::Anew) => {
                    tokio::task::yield_now().await;
                    None
                }
            };
            if let Some(end) = end {
                return self.conclude(end, &webhook, line).await;
            }
            now = self.dispatch.clock_now();
        }
        self.overflow(line, "it could not be decided: too much comes in between")
    }

    /// Decides about it once, and commits that.
    async fn decide<'r>(
        &self,
        webhook: &Webhook<'r>,
        first: bool,
        now: Timestamp,
        line: &mut Noted<'r>,
    ) -> Result<Standing<S, A>, Fallen> {
        let reading = webhook.reading;
        let want = Want::Arrival(&webhook.keys, &reading.claimed, &webhook.bills);
        let view = self.dispatch.store.load(want, now).await.map_err(|error| Fallen::Later(Later::NoStore(error)))?;
        if first {
            self.dispatch.metrics.count_joined(reading.joined_by(!view.told.is_empty()));
        }
        let id = self.dispatch.next_id();
        let inquired = self.rechecks.wanted(&webhook.inquest, now);
        let (decided, mut transition) = arrive(&view, webhook.arrival(id, self.dispatch.next_id(), inquired), now);
        transition.links = reading.links();
        let course = decided.course;
        if transition.keeps() && self.keeps_enough() {
            return Err(Fallen::Later(Later::Overflow("too much waits for a person already")));
        }
        let goes = matches!(course, Course::Deliver(_) | Course::Unremembered);
        if goes && !reading.policy.shadow && self.dispatch.shut_until().is_some() {
            line.decisions(decided.decisions, SHUT);
            return Err(Fallen::Later(Later::KeptBack));
        }
        line.decisions(decided.decisions, decided.why);
        // Before the commit, for after it the delivery may be at its end before anybody waits on it.
        let turn = self.turn(&course, view.free && may_go_at_once(&transition, id))?;
        if let Turn::Begins(..) = turn {
            // Nobody is before him, and a connection stands: what would be two commits is one.
            go_at_once(&mut transition, id, now);
        }
        let became = transition.committed(id);
        if transition.is_nothing() {
            // It is noted, and nobody waits for that.
            let mut lines = transition.history;
            if !matches!(course, Course::Wait(_)) {
                self.dispatch.store.note(std::mem::take(&mut lines));
            }
            return Ok(Standing { course, became, turn, lines });
        }
        let recheck = transition.deliveries.iter().find_map(is_recheck);
        // What is acknowledged at once goes in a task of its own.
        let own = (!matches!(course, Course::Accept(_))).then_some(id);
        let granted = self.dispatch.commit_for(own, transition).await.map_err(|error| match error {
            CommitError::Conflict | CommitError::LeaseLost => Fallen::Anew,
            CommitError::Store(error) => Fallen::Later(Later::NoStore(error)),
            CommitError::Full => Fallen::Later(Later::TurnedAway(error.to_string())),
        })?;
        self.rechecks.note(&webhook.inquest, recheck);
        let turn = match turn {
            Turn::Waits(waiter) if granted => Turn::Goes(waiter),
            turn => turn,
        };
        Ok(Standing { course, became, turn, lines: Vec::new() })
    }

    /// What its sender will have to do, with a place for him. `at_once`: nothing but a connection keeps him from the app.
    fn turn(&self, course: &Course, at_once: bool) -> Result<Turn<S, A>, Fallen> {
        let (Course::Deliver(id) | Course::Wait(id) | Course::Again(id)) = *course else { return Ok(Turn::None) };
        let turned_away = |why: &str| Fallen::Later(Later::TurnedAway(why.to_owned()));
        let place = self.dispatch.take_place().ok_or_else(|| turned_away("too many callers wait already"))?;
        if let Course::Deliver(_) = course {
            return Ok(match at_once.then(|| self.dispatch.ready()).flatten() {
                Some(ready) => Turn::Begins(place, ready),
                None => Turn::Waits(place.own(id)),
            });
        }
        place.wait_on(id).map(Turn::Waits).ok_or_else(|| turned_away("too many callers wait on it already"))
    }

    /// Does what a decision that stands says; `None` where its sender has waited on another and is decided about again.
    /// `promised` is the other that he was promised to be ours.
    async fn pursue(
        &self,
        standing: Standing<S, A>,
        webhook: &Webhook<'_>,
        promised: &mut Option<LeaseId>,
    ) -> Option<End> {
        let Standing { course, became, turn, lines } = standing;
        let patience = webhook.patience();
        let seen = became.as_ref().map(|delivery| delivery.id);
        let waiter = match (turn, became) {
            (Turn::Begins(_place, ready), Some(delivery)) => {
                let (id, dispatch) = (delivery.id, Arc::clone(&self.dispatch));
                let waited = match patience.until {
                    None => dispatch.begun(delivery, ready).await.map(Waited::Own),
                    Some(until) => {
                        Box::pin(self.wait_on_own(id, dispatch.begun(delivery, ready), patience.keys, until)).await
                    }
                };
                return Some(End::Waited(waited.unwrap_or(Waited::GoesDown), true));
            }
            (Turn::Goes(waiter), Some(delivery)) => {
                return Some(End::Waited(self.go(delivery, waiter, patience).await, true));
            }
            (Turn::Waits(waiter) | Turn::Goes(waiter), _) => Some(waiter),
            (Turn::None | Turn::Begins(..), _) => None,
        };
        Some(match course {
            Course::Deliver(id) => End::Waited(self.wait(id, waiter, patience).await, true),
            Course::Accept(_) => End::Waited(Waited::Acknowledged, true),
            Course::Wait(id) => {
                // It may have ended between the look and the wait.
                let waited = self.still_there(id, waiter, patience).await?;
                self.dispatch.store.note(lines);
                End::Waited(waited, false)
            }
            Course::Again(id) if webhook.keys.len() > 1 => match self.still_there(id, waiter, patience).await? {
                Waited::NoStore(error) => End::Later(Later::NoStore(error)),
                // That one is ours now; whatever else is in the batch has to be so too, or to be known.
                Waited::Acknowledged if promised.replace(id) == Some(id) => End::Says(retryable()),
                _ => return None,
            },
            // It tells something else than what it waits for: a promise about that would not be one about this.
            Course::Again(id) => {
                let end = Box::pin(self.still_there(id, waiter, Patience { until: None, ..patience }));
                let Some(until) = webhook.until else {
                    end.await;
                    return None;
                };
                timeout_at(until, end).await.is_err().then(|| End::Says(retryable()))?
            }
            Course::Replay(answer) => End::Says(reply_with(&answer)),
            Course::Ack => End::Says(reply_ack(&webhook.reading.provider.ack)),
            Course::Retryable | Course::Keep => End::Says(retryable()),
            Course::Refuse => End::Says(plain(StatusCode::CONFLICT, REFUSED)),
            Course::Unremembered => End::Unremembered,
            // There to be counted; this one request records its outcome.
            Course::Shadow => End::Shadow(seen),
        })
    }

    /// The try of a delivery whose lease was granted at once: nobody is before us, so that it needs no task of its own, and
    /// its outcome no detour.
    async fn go(&self, delivery: Delivery, waiter: Waiter<S, A>, patience: Patience<'_>) -> Waited {
        let id = delivery.id;
        waiter.goes();
        let dispatch = Arc::clone(&self.dispatch);
        let waited = match patience.until {
            None => dispatch.attempt(delivery).await.map(Waited::Own),
            Some(until) => Box::pin(self.wait_on_own(id, dispatch.attempt(delivery), patience.keys, until)).await,
        };
        if let Some(waited) = waited {
            return waited;
        }
        // It queues again, and whoever gives it its turn tells what comes of it.
        waiter.comes_back();
        self.still_there(id, Some(waiter), patience).await.unwrap_or(Waited::GoesDown)
    }

    /// Waits on a delivery that may have ended between the look and the wait.
    async fn still_there(&self, id: LeaseId, waiter: Option<Waiter<S, A>>, patience: Patience<'_>) -> Option<Waited> {
        let now = self.dispatch.clock_now();
        let view = self.dispatch.store.load(Want::Delivery(id), now).await.ok()?;
        // What has come to an end in between and goes on later tells nobody for now.
        view.delivery(id).filter(|delivery| delivery.is_under_way())?;
        Some(self.wait(id, waiter, patience).await)
    }

    /// Tells its sender.
    async fn conclude(self: &Arc<Self>, end: End, webhook: &Webhook<'_>, mut line: Noted<'_>) -> Reply<A::Body> {
        let reading = webhook.reading;
        let response = match end {
            End::Waited(Waited::Own(heard), _) => {
                line.heard(&heard);
                reply_own(heard)
            }
            End::Waited(Waited::Heard(heard), own) => {
                if own {
                    line.heard(&heard);
                }
                reply_of(&heard, own)
            }
            End::Waited(Waited::Acknowledged, _) => {
                line.acknowledged();
                reply_ack(&reading.provider.ack)
            }
            End::Waited(Waited::GoesDown, _) => retryable(),
            End::Says(response) => response,
            End::Later(Later::KeptBack) => {
                // Nothing is remembered of it, and its sender keeps it.
                self.dispatch.metrics.upstream_kept_back.inc();
                plain(StatusCode::SERVICE_UNAVAILABLE, DOWN)
            }
            End::Waited(Waited::NoStore(error), _) | End::Later(Later::NoStore(error)) => {
                return self.no_store(&error, line);
            }
            End::Later(Later::Overflow(why)) => return self.overflow(line, why),
            End::Later(Later::TurnedAway(why)) => {
                let (id, next) = (self.dispatch.next_id(), self.dispatch.next_id());
                let inquired = self.rechecks.wanted(&webhook.inquest, self.dispatch.clock_now());
                return Box::pin(self.turn_away(webhook.arrival(id, next, inquired), line, &why)).await;
            }
            End::Unremembered => return Box::pin(self.unremembered(reading, &webhook.request, line)).await,
            End::Shadow(seen) => return Box::pin(self.in_shadow(seen, reading, &webhook.request, line)).await,
        };
        line.tell(&self.book, response)
    }
}

fn retryable() -> Response<Bytes> {
    plain(StatusCode::SERVICE_UNAVAILABLE, RETRYABLE)
}
