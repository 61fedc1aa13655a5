//! Given this state and this input: this state, these lock changes, these effects; and the laws that hold for all.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use proptest::prelude::*;

use super::{
    arrival::{Arrival, Arriving, Course, Decided, Decision, Inquired, arrive},
    effect::{Act, Books, Change, Durable, Effect, Ending, Input, LockChange, Transition, View},
    history::{Deed, Line, Outcome, Reason, What},
    identity::{Scope, bills, identify},
    lock::{Claimed, Era, LeaseId, LockName},
    money::Moves,
    policy::{AnswerBy, IdentityBy, LockBy, OnDuplicate, OnUnknown, Order, Policy, Retry, Treatment},
    state::{Bill, Delivery, Fate, Phase, StoredRequest, Transaction},
    transition::{Refused, apply, go_at_once, may_go_at_once},
};
use crate::{
    callback::{Answer, Channel, Event, Key, State},
    time::Timestamp,
};

mod acknowledged;
mod arrivals;
mod asked;
mod batches;
mod confirm;
mod down;
mod endings;
mod laws;
mod money;
mod order;
mod people;
mod window;

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn answer(status: u16) -> Arc<Answer> {
    let status = StatusCode::from_u16(status).unwrap();
    Arc::new(Answer { status, content_type: None, body: Some(Box::from(&b"[]"[..])) })
}

fn accepted(attempt: u32) -> Input {
    Input::Ended { attempt, ending: Ending::Accepted(answer(200)) }
}

fn rejected(attempt: u32) -> Input {
    Input::Ended { attempt, ending: Ending::Rejected(answer(500)) }
}

fn not_sent(attempt: u32) -> Input {
    Input::Ended { attempt, ending: Ending::NotSent("refused".into()) }
}

fn unknown(attempt: u32) -> Input {
    Input::Ended { attempt, ending: Ending::Unknown("cut".into(), None) }
}

/// What a person does about whatever is there.
fn act(deed: Deed) -> Input {
    act_on(deed, None)
}

fn act_on(deed: Deed, seen: Option<u64>) -> Input {
    Input::Act(Act { deed, who: "Ada".into(), why: "asked the app".into(), seen, answer: answer(202) })
}

/// An event of payment `tr_1` with this id.
fn numbered(id: &str) -> Event {
    of("tr_1", id)
}

fn of(reference: &str, id: &str) -> Event {
    Event { reference: reference.into(), event_id: Some(id.into()), ..Event::default() }
}

/// An event that says nothing of what happened.
fn bare() -> Event {
    Event { reference: "tr_1".into(), ..Event::default() }
}

fn telling(event: Event, status: &str) -> Event {
    Event { facts: vec![("status", status.into())], ..event }
}

/// What is known, and a clock that a test moves: transitions are committed as an engine would.
#[derive(Clone)]
struct Gate {
    view: View,
    next: u64,
    now: Timestamp,
    policy: Policy,
    verified: bool,
    moves: Moves,
    inquired: Inquired,
    /// How long that took.
    asked_for: Duration,
    last: Transition,
}

impl Gate {
    fn new(change: impl FnOnce(&mut Policy)) -> Self {
        let retry = Retry { first: secs(8), longest: secs(64), attempts: 3 };
        let mut policy = Policy { hold: Duration::ZERO, linger: Duration::ZERO, retry, ..Policy::default() };
        change(&mut policy);
        let now = Timestamp::from_millis(1_800_000_000_000);
        let (view, last) = (View::default(), Transition::default());
        let moves = Moves::Undocumented;
        Self {
            view,
            next: 0,
            now,
            policy,
            verified: false,
            moves,
            inquired: Inquired::No,
            asked_for: Duration::ZERO,
            last,
        }
    }

    fn passes(&mut self, span: Duration) -> &mut Self {
        self.now = self.now.after(span);
        self
    }

    fn commit(&mut self, transition: Transition) {
        for (key, transaction) in &transition.transactions {
            let known = self.view.transactions.iter().position(|(other, _)| other == key);
            let before = known.map_or(0, |at| self.view.transactions.remove(at).1.version);
            assert_eq!(before, transaction.version, "decided on what is not so any more");
            if !transaction.claims.is_empty() {
                let next = Transaction { version: before + 1, ..transaction.clone() };
                self.view.transactions.push((*key, next));
            }
        }
        for change in &transition.deliveries {
            let (id, version) = match change {
                Change::Put(delivery) => (delivery.id, delivery.version),
                Change::Remove(id, version) => (*id, *version),
            };
            let known = self.view.deliveries.iter().position(|other| other.id == id);
            let before = known.map_or(0, |at| self.view.deliveries.remove(at).version);
            assert_eq!(before, version, "decided on what is not so any more");
            if let Change::Put(delivery) = change {
                self.view.deliveries.push(Delivery { version: version + 1, ..delivery.clone() });
            }
        }
        for (key, bill) in &transition.bills {
            let known = self.view.bills.iter().position(|(other, _)| other == key);
            let before = known.map_or(0, |at| self.view.bills.remove(at).1.version);
            assert_eq!(before, bill.version, "decided on what is not so any more");
            self.view.bills.push((*key, Bill { version: before + 1, ..bill.clone() }));
        }
        self.view.payers = self.view.transactions.iter().map(|(key, transaction)| (*key, transaction.money)).collect();
        self.last = transition;
    }

    fn arrival(&self, id: LeaseId, next: LeaseId, events: &[Event]) -> Arrival {
        let scope = Scope { upstream: "http://app", host: None, segments: &[] };
        let arriving = |event: &Event| Arriving {
            identified: identify(&scope, "test", event, self.policy.identity, b"", &[]),
            reference: Arc::from(&*event.reference),
            state: event.state,
            step: event.step,
            moves: self.moves,
            bills: bills(&scope, &event.aliases, &self.policy.paid_once),
            verified: self.verified,
            policy: Arc::new(self.policy.clone()),
        };
        let names: Vec<_> =
            events.iter().map(|event| LockName::new("app", ["reference", ""], &event.reference)).collect();
        let request = StoredRequest {
            method: Method::POST,
            uri: Uri::from_static("/hook"),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        Arrival {
            id,
            next,
            events: events.iter().map(arriving).collect(),
            provider: "test",
            source: None,
            came: Timestamp::from_millis(self.now.as_millis() - self.asked_for.as_millis() as u64),
            inquired: self.inquired,
            kept: None,
            request: Arc::new(request),
            claimed: Claimed {
                channel: Channel::Webhook,
                kinds: names.iter().map(|name| name.kind).collect(),
                names,
                exclusive: self.policy.lock == LockBy::Upstream,
                era: Era(0),
            },
        }
    }

    fn arrives(&mut self, events: &[Event]) -> (LeaseId, Decided) {
        self.next += 2;
        let id = LeaseId(self.next);
        let arrival = self.arrival(id, LeaseId(self.next + 1), events);
        let (decided, transition) = arrive(&self.view, arrival, self.now);
        self.commit(transition);
        (id, decided)
    }

    fn comes(&mut self, event: &Event) -> (LeaseId, Decision, Course) {
        let (id, decided) = self.arrives(std::slice::from_ref(event));
        (id, decided.decisions[0], decided.course)
    }

    fn does(&mut self, id: LeaseId, input: Input) -> &mut Self {
        self.tries(id, input).unwrap();
        self
    }

    fn tries(&mut self, id: LeaseId, input: Input) -> Result<(), Refused> {
        let transition = apply(&self.view, id, input, self.now)?;
        self.commit(transition);
        Ok(())
    }

    /// A first event that the app has just accepted.
    fn settled(&mut self, event: &Event) -> LeaseId {
        let (id, ..) = self.comes(event);
        self.does(id, Input::Sending).does(id, accepted(1));
        id
    }

    fn phase(&self, id: LeaseId) -> Option<Phase> {
        self.view.delivery(id).map(|delivery| delivery.phase)
    }

    /// The delivery that follows at the end of the window.
    fn follower(&self) -> LeaseId {
        let next = |claim: &super::state::Claim| claim.window.as_ref()?.next;
        self.view.transactions.iter().flat_map(|(_, t)| &t.claims).find_map(next).expect("a follower")
    }

    fn told(&self) -> Vec<&'static str> {
        let tell = |effect: &Effect| match effect {
            Effect::Tell(_, ending) => ending.as_str(),
            Effect::Ask(_) => "ask",
            Effect::Alarm(..) => "alarm",
        };
        self.last.effects.iter().map(tell).collect()
    }
}

fn plain(reference: &str) -> Event {
    Event { reference: reference.into(), ..Event::default() }
}

/// A first event that was acknowledged, whose first try the app refused.
fn retrying(change: impl FnOnce(&mut Policy)) -> (Gate, LeaseId) {
    let mut gate = Gate::new(|policy| {
        policy.answer = AnswerBy::Accept;
        change(policy);
    });
    let (id, ..) = gate.comes(&numbered("e1"));
    gate.does(id, Input::Sending).does(id, rejected(1));
    assert!(matches!(gate.phase(id), Some(Phase::Retrying { .. })));
    (gate, id)
}

trait Next {
    fn unwrap_next(&self) -> Option<LeaseId>;
}

impl Next for Option<Box<super::state::Window>> {
    fn unwrap_next(&self) -> Option<LeaseId> {
        self.as_ref().and_then(|window| window.next)
    }
}
