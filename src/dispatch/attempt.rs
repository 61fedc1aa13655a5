//! One try of a delivery: a connection, the commit before the first byte, the exchange, and the record of what came of it.

use std::{pin::Pin, sync::Arc};

use http::{HeaderValue, Response, StatusCode, header};
use tokio::time::Instant;

use super::{App, Dispatch, Full, Heard, Pass, SHUT, SendError, Sign, StepError, TICK, answer::read, sign_of};
use crate::{
    callback::{Answer, Channel},
    store::{CommitError, Store, Want},
    time::Clock,
    transaction::{
        effect::{Ending, Input},
        lock::LeaseId,
        policy::Policy,
        state::{Delivery, Phase, StoredRequest},
        transition::Refused,
    },
};

/// Why nothing was sent by who could.
const TOO_LATE: &str = "the store took too long to make it durable";

/// What a try needs before it begins: the right to it, and a connection that stands.
pub struct Ready<S: Store, A: App> {
    pass: Pass<S, A>,
    connection: A::Connection,
}

impl<S: Store, A: App> Dispatch<S, A> {
    /// What a try needs, where all of it is at hand.
    pub fn ready(self: &Arc<Self>) -> Option<Ready<S, A>> {
        let connection = self.app.at_hand()?;
        Some(Ready { pass: self.pass().ok()?, connection })
    }

    /// The first try of a delivery that has been committed as begun. Says what came of it, unless that could not be recorded.
    pub async fn begun(self: Arc<Self>, delivery: Delivery, ready: Ready<S, A>) -> Option<Heard> {
        let (id, attempt) = (delivery.id, delivery.attempts);
        let guard = Unfinished { dispatch: Some(Arc::clone(&self)), id, attempt, begun: true };
        self.note_wait(&delivery);
        self.bring(delivery, ready, guard).await
    }

    /// How long it was held, and waited for its turn.
    fn note_wait(&self, delivery: &Delivery) {
        let letter = &delivery.letter;
        let waited = self.clock.now().since(letter.arrived);
        self.metrics.hold_seconds.observe(waited.min(letter.policy.hold).as_secs_f64());
        self.metrics.observe_lock_wait(Channel::Webhook, waited.saturating_sub(letter.policy.hold));
    }

    /// One try of a delivery whose lease has been granted to somebody who may know nothing else of it.
    pub(super) async fn attempt_of(self: Arc<Self>, id: LeaseId) -> Option<Heard> {
        let guard = Unfinished { dispatch: Some(Arc::clone(&self)), id, attempt: 1, begun: false };
        let delivery = match self.store.load(Want::Delivery(id), self.clock.now()).await {
            Ok(view) => view.deliveries.into_iter().find(|known| known.id == id && known.phase == Phase::Queued),
            Err(error) => {
                tracing::warn!(delivery = id.0, %error, "not sent");
                self.waiters.remove(&id);
                guard.disarmed();
                // Its lease is not given back: when the store can be used again, another try may be in the app by it.
                return None;
            }
        };
        guard.disarmed();
        match delivery {
            Some(delivery) => self.attempt(delivery).await,
            None => {
                self.give_back(id);
                None
            }
        }
    }

    /// One try of a delivery whose lease has been granted. Says what came of it, unless somebody else was before us.
    pub async fn attempt(self: Arc<Self>, delivery: Delivery) -> Option<Heard> {
        let (id, attempt) = (delivery.id, delivery.attempts + 1);
        let mut guard = Unfinished { dispatch: Some(Arc::clone(&self)), id, attempt, begun: false };
        self.unhold(id, &delivery.letter);
        self.note_wait(&delivery);
        let pass = match self.pass() {
            Ok(pass) => pass,
            Err(until) => {
                guard.disarm();
                return Box::pin(self.put_off(id, until, SHUT.into())).await;
            }
        };
        let connection = match self.app.connect().await {
            Ok(connection) => connection,
            Err(why) => {
                pass.tell(Sign::Down);
                // A trial that nobody let in was no try.
                if let Some(until) = self.shut_until() {
                    guard.disarm();
                    return Box::pin(self.put_off(id, until, why.into())).await;
                }
                return Box::pin(guard.fail(Ending::NotSent(why))).await;
            }
        };
        let sent = match self.step(id, &Input::Sending).await {
            Ok(delivery) => delivery,
            Err(error) => {
                tracing::warn!(delivery = id.0, %error, "not sent");
                if let StepError::Commit(CommitError::Store(_)) = error {
                    // Whoever hears of a store that failed never begins: it knows that, and grants the lease anew.
                    self.waiters.remove(&id);
                }
                guard.disarm();
                return None;
            }
        };
        if !matches!(sent.phase, Phase::InFlight { .. }) {
            // Under more names than before, or after what was before it; who waits for it hears of the try that follows.
            guard.disarm();
            return None;
        }
        (guard.attempt, guard.begun) = (sent.attempts, true);
        self.bring(sent, Ready { pass, connection }, guard).await
    }

    /// Brings a try that has begun to its end.
    async fn bring(
        self: Arc<Self>,
        sent: Delivery,
        Ready { pass, connection }: Ready<S, A>,
        mut guard: Unfinished<S, A>,
    ) -> Option<Heard> {
        let letter = &sent.letter;
        // Whoever else is ready gets as far as this first: what is sent together wakes its reader once.
        tokio::task::yield_now().await;
        if self.is_too_late(&sent) {
            return Box::pin(guard.fail(Ending::NotSent(TOO_LATE.to_owned()))).await;
        }
        let heard = self.exchange(connection, &letter.request, &letter.policy).await;
        // What else the app has answered is read first, and then all of it recorded.
        tokio::task::yield_now().await;
        pass.tell(sign_of(&heard.ending));
        self.metrics.count_delivery(letter.provider, heard.ending.as_str());
        self.metrics.delivery_seconds.observe(heard.took.as_secs_f64());
        guard.disarm();
        self.end(sent.id, sent.attempts, true, heard).await
    }

    /// Whether its sender would be taken for dead before he could have an answer: the disk took so long.
    fn is_too_late(&self, sent: &Delivery) -> bool {
        let timeout = sent.letter.policy.timeout;
        matches!(sent.phase, Phase::InFlight { lease_until } if self.clock.now().after(timeout) > lease_until)
    }

    /// Sends a request and reads the answer whole, within the time limit; says what came of it.
    pub async fn exchange(&self, connection: A::Connection, request: &StoredRequest, policy: &Policy) -> Heard {
        let started = Instant::now();
        let deadline = started + policy.timeout;
        let exchange = async {
            let response = self.app.send(connection, request, policy.timeout).await?;
            self.read_whole(response, deadline).await
        };
        let ending = match exchange.await {
            Ok(full) => {
                let ending = self.classify(&full.answer, policy);
                return Heard { ending, full: Some(Arc::new(full)), took: started.elapsed() };
            }
            Err(error) => error.into(),
        };
        Heard { took: started.elapsed(), ..Heard::unheard(ending) }
    }

    /// Reads an answer whole, until the deadline; one that is too large loses its body.
    async fn read_whole(&self, response: Response<A::Body>, deadline: Instant) -> Result<Full, SendError> {
        let (head, body) = response.into_parts();
        let body = tokio::time::timeout_at(deadline, read(body, self.options.load().max_answer)).await;
        let body = body.map_err(|_| SendError::TooSlow)?.map_err(SendError::Unknown)?;
        let content_type = head.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
        let answer = self.answers.intern(head.status, content_type, body.as_deref());
        Ok(Full { headers: head.headers, body: body.unwrap_or_default(), answer })
    }

    fn classify(&self, answer: &Arc<Answer>, policy: &Policy) -> Ending {
        if matches!(answer.status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT) {
            return Ending::Unknown("a middle box answered for the app".to_owned(), Some(Arc::clone(answer)));
        }
        if !policy.is_success(answer) {
            return Ending::Rejected(Arc::clone(answer));
        }
        let large = answer.body.as_ref().is_some_and(|body| body.len() > self.options.load().max_remembered_answer);
        // Too large to remember: a tombstone, which still acknowledges.
        Ending::Accepted(if large { Arc::new(Answer { body: None, ..(**answer).clone() }) } else { Arc::clone(answer) })
    }

    /// Records how a try ended that was begun, or was not. `None` where that could not be made to last: nobody shall hear of
    /// a success that a crash would forget.
    pub(super) async fn end(self: &Arc<Self>, id: LeaseId, attempt: u32, begun: bool, heard: Heard) -> Option<Heard> {
        let input = Input::Ended { attempt, ending: heard.ending.clone() };
        if let Err(error) = self.step_with(id, &input, Some(&heard)).await {
            tracing::error!(delivery = id.0, %error, outcome = heard.ending.as_str(), "an outcome could not be recorded");
            match error {
                StepError::Commit(CommitError::Store(_)) => {
                    self.waiters.remove(&id);
                    // What was not begun goes on by itself; and another may be in the app by its number by then.
                    if begun {
                        self.record_later(id, attempt, heard.ending);
                    }
                    return None;
                }
                // Whoever waits on a later try hears of that.
                StepError::Refused(Refused::Fenced) => {}
                // The callers shall not wait for what can't be recorded.
                _ => self.tell(id, || heard.clone()),
            }
        }
        Some(heard)
    }

    /// An outcome that is known is recorded when the store can be used again, unless the gate goes down before.
    fn record_later(self: &Arc<Self>, id: LeaseId, attempt: u32, ending: Ending) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let dispatch = Arc::clone(self);
        // Boxed, for what it does may bring it here again.
        let again: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
            let input = Input::Ended { attempt, ending };
            loop {
                tokio::time::sleep(TICK).await;
                match dispatch.step(id, &input).await {
                    Err(StepError::Commit(CommitError::Store(_))) => {}
                    Ok(_) | Err(_) => return,
                }
            }
        });
        runtime.spawn(again);
    }
}

/// A try under way. Should its task end before it does, by a panic or otherwise, the outcome is recorded all the same.
struct Unfinished<S: Store, A: App> {
    dispatch: Option<Arc<Dispatch<S, A>>>,
    id: LeaseId,
    /// Which try it is.
    attempt: u32,
    /// Whether the app may have read something.
    begun: bool,
}

impl<S: Store, A: App> Unfinished<S, A> {
    fn disarm(&mut self) {
        self.dispatch = None;
    }

    fn disarmed(mut self) {
        self.disarm();
    }

    async fn fail(mut self, ending: Ending) -> Option<Heard> {
        let dispatch = self.dispatch.take()?;
        let (id, attempt, begun) = (self.id, self.attempt, self.begun);
        dispatch.end(id, attempt, begun, Heard::unheard(ending)).await
    }
}

impl<S: Store, A: App> Drop for Unfinished<S, A> {
    fn drop(&mut self) {
        let Some(dispatch) = self.dispatch.take() else { return };
        let why = "the task that sent it ended early".to_owned();
        let ending = if self.begun { Ending::Unknown(why, None) } else { Ending::NotSent(why) };
        let (id, attempt, begun) = (self.id, self.attempt, self.begun);
        // Not a guard again: a runtime that goes down drops at once what is spawned, and would do so without end.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { drop(dispatch.end(id, attempt, begun, Heard::unheard(ending)).await) });
        }
    }
}
