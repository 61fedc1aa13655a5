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

mod confirm;
mod money;

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

// ------------------------------------------------------------------------------------------------ asked about

/// What the provider said of a payment whose callback says nothing.
fn said(status: &str) -> Event {
    telling(bare(), status)
}

fn asked() -> Gate {
    let mut gate = Gate::new(|_| {});
    gate.inquired = Inquired::Once(secs(30));
    let (id, decision, _) = gate.comes(&said("paid"));
    assert_eq!(decision, Decision::First);
    gate.does(id, Input::Sending).does(id, accepted(1));
    gate
}

fn rechecks(gate: &Gate) -> Vec<Delivery> {
    gate.view.deliveries.iter().filter(|delivery| matches!(delivery.phase, Phase::Recheck { .. })).cloned().collect()
}

#[test]
fn a_repeat_by_the_providers_word_alone_is_asked_about_once_more() {
    let mut gate = asked();
    let (_, decision, course) = gate.comes(&said("paid"));
    assert_eq!(decision, Decision::Replayed);
    assert!(matches!(course, Course::Replay(_)));
    let recheck = rechecks(&gate).pop().expect("it is asked about once more");
    assert!(recheck.owed, "its sender has heard of success, so this has to last");
    assert!(gate.last.waits(super::effect::Durable::Claim));
    assert_eq!(recheck.due(), Some(gate.now.after(secs(30))));
    gate.passes(secs(30)).does(recheck.id, Input::Due);
    assert_eq!(gate.told(), ["ask"]);
    // Whoever asks may be lost: its time comes again.
    assert_eq!(rechecks(&gate)[0].due(), Some(gate.now.after(secs(60))));
}

#[test]
fn a_payment_that_is_waited_for_is_asked_about_whenever_it_is_as_old_again() {
    let mut gate = asked();
    let (id, ..) = gate.comes(&said("paid"));
    let arrived = gate.now;
    let mut delivery = gate.view.deliveries.iter().find(|delivery| delivery.id != id).cloned().unwrap_or_else(|| {
        gate.comes(&said("paid"));
        rechecks(&gate).pop().expect("something that asks")
    });
    delivery.phase = Phase::Awaited { at: gate.now.after(secs(900)) };
    gate.view.deliveries = vec![delivery.clone()];
    let due = |gate: &Gate| gate.view.deliveries[0].due().expect("its time comes").since(arrived);
    for age in [900, 1800, 3600] {
        assert_eq!(due(&gate), secs(age));
        gate.now = arrived.after(secs(age));
        gate.does(delivery.id, Input::Due);
        assert_eq!(gate.told(), ["ask"]);
        // Nothing goes to the app on its account, and nothing is locked.
        assert!(gate.last.locks.is_empty() && gate.last.history.is_empty());
    }
    assert_eq!(due(&gate), secs(7200));
}

#[test]
fn what_it_finds_then_is_delivered_and_the_retry_is_ours_and_what_it_does_not_is_over() {
    for (status, decision, left) in [("refunded", Decision::NewState, 1), ("paid", Decision::Replayed, 0)] {
        let mut gate = asked();
        gate.comes(&said("paid"));
        let recheck = rechecks(&gate).pop().expect("it is asked about once more");
        gate.passes(secs(30)).does(recheck.id, Input::Due);
        let version = rechecks(&gate)[0].version;
        gate.inquired = Inquired::Again(recheck.id, version);
        let (id, decided, _) = gate.comes(&said(status));
        assert_eq!(decided, decision);
        assert!(rechecks(&gate).is_empty());
        assert_eq!(gate.view.deliveries.len(), left);
        assert!(gate.view.deliveries.iter().all(|delivery| delivery.id == id && delivery.owed));
    }
}

#[test]
fn what_was_not_asked_about_or_goes_to_the_app_is_not_asked_about_once_more() {
    let mut gate = asked();
    gate.comes(&said("refunded"));
    assert!(rechecks(&gate).is_empty());
    for inquired in [Inquired::No, Inquired::Once(Duration::ZERO)] {
        gate.inquired = inquired;
        gate.comes(&said("paid"));
        assert!(rechecks(&gate).is_empty());
    }
}

#[test]
fn one_that_nobody_could_be_asked_about_joins_its_twin_that_is_not_sent_yet_and_no_other() {
    let mut gate = Gate::new(|_| {});
    gate.inquired = Inquired::Once(secs(30));
    let (id, ..) = gate.comes(&said("paid"));
    gate.inquired = Inquired::No;
    let (_, decision, course) = gate.comes(&bare());
    assert_eq!((decision, course), (Decision::Joined, Course::Wait(id)));
    assert_eq!(gate.comes(&said("refunded")).1, Decision::NewState);
    gate.does(id, Input::Sending);
    let mut other = gate.clone();
    // The refund's delivery is a twin too, by its bytes.
    assert_eq!(other.comes(&bare()).1, Decision::Joined);
    gate.view.deliveries.retain(|delivery| delivery.id == id);
    assert_eq!(gate.comes(&bare()).1, Decision::NewState, "the first byte may have gone before it came");
}

#[test]
fn the_time_it_was_asked_about_is_taken_from_the_hold() {
    let gate = Gate::new(|policy| policy.hold = secs(2));
    for (took, phase) in
        [(secs(1), Phase::Held { until: gate.now.after(secs(2)) }), (secs(2), Phase::Queued), (secs(3), Phase::Queued)]
    {
        let mut gate = gate.clone();
        gate.asked_for = took;
        gate.passes(took);
        let (id, ..) = gate.comes(&said("paid"));
        assert_eq!(gate.view.delivery(id).expect("it is there").phase, phase);
    }
}

// ------------------------------------------------------------------------------------------------ arrivals

#[test]
fn what_is_new_is_held_and_then_queues() {
    let mut gate = Gate::new(|policy| policy.hold = secs(1));
    let (id, decision, course) = gate.comes(&numbered("e1"));
    assert_eq!((decision, course), (Decision::First, Course::Deliver(id)));
    assert_eq!(gate.phase(id), Some(Phase::Held { until: gate.now.after(secs(1)) }));
    assert!(gate.last.locks.is_empty(), "what is held owns no lease");
    gate.passes(secs(1)).does(id, Input::Due);
    assert_eq!(gate.phase(id), Some(Phase::Queued));
    assert!(matches!(gate.last.locks[..], [LockChange::Enqueue(queued, _)] if queued == id));
}

#[test]
fn nothing_is_held_when_the_payer_has_been_back_or_comes_back() {
    let mut gate = Gate::new(|policy| policy.hold = secs(1));
    let (held, ..) = gate.comes(&numbered("e1"));
    gate.does(held, Input::HoldOver);
    assert_eq!(gate.phase(held), Some(Phase::Queued));
    assert_eq!(gate.tries(held, Input::HoldOver), Err(Refused::OutOfTurn));
    gate.view.returned = true;
    let (id, ..) = gate.comes(&of("tr_2", "e1"));
    assert_eq!(gate.phase(id), Some(Phase::Queued));
}

#[test]
fn twins_join_in_every_phase_that_ends_by_itself_and_come_again_in_the_others() {
    let mut gate = Gate::new(|policy| policy.hold = secs(1));
    let event = numbered("e1");
    let (id, ..) = gate.comes(&event);
    let meets = |gate: &mut Gate| {
        let (_, decision, course) = gate.comes(&event);
        assert_eq!(decision, Decision::Joined);
        course
    };
    assert_eq!(meets(&mut gate), Course::Wait(id), "held");
    gate.does(id, Input::Due);
    assert_eq!(meets(&mut gate), Course::Wait(id), "queued");
    gate.does(id, Input::Sending);
    assert_eq!(meets(&mut gate), Course::Wait(id), "in flight");
    gate.does(id, unknown(1));
    assert_eq!(meets(&mut gate), Course::Retryable, "unknown");
    gate.passes(secs(60)).does(id, Input::Due);
    assert!(matches!(gate.phase(id), Some(Phase::Review { .. })));
    assert_eq!(meets(&mut gate), Course::Retryable, "in review");
    gate.passes(secs(3600) - Duration::from_millis(1));
    assert_eq!(meets(&mut gate), Course::Retryable, "in review, a moment before the hour");
    gate.passes(Duration::from_millis(1));
    assert_eq!(meets(&mut gate), Course::Ack, "in review for an hour");
}

#[test]
fn a_repeat_hears_what_the_rule_says() {
    for (choice, course) in [
        (OnDuplicate::Replay, Course::Replay(answer(200))),
        (OnDuplicate::Ack, Course::Ack),
        (OnDuplicate::Refuse, Course::Refuse),
        (OnDuplicate::Forward, Course::Unremembered),
    ] {
        let mut gate = Gate::new(|policy| policy.on_duplicate = choice);
        gate.settled(&numbered("e1"));
        let (_, decision, heard) = gate.comes(&numbered("e1"));
        assert_eq!((decision, heard), (Decision::Replayed, course));
        assert!(gate.last.deliveries.is_empty());
    }
}

#[test]
fn another_event_of_a_known_payment_is_a_new_state_and_is_delivered() {
    let mut gate = Gate::new(|_| ());
    gate.settled(&numbered("e1"));
    let (id, decision, course) = gate.comes(&numbered("e2"));
    assert_eq!((decision, course), (Decision::NewState, Course::Deliver(id)));
}

#[test]
fn what_is_older_than_money_moved_is_stale_and_meets_what_the_rule_says() {
    for (treatment, course) in
        [(Treatment::Ack, Course::Ack), (Treatment::Refuse, Course::Refuse), (Treatment::Forward, Course::Unremembered)]
    {
        let mut gate = Gate::new(|policy| policy.on_stale = treatment);
        gate.settled(&Event { state: Some(State::Paid), ..numbered("e2") });
        let (_, decision, heard) = gate.comes(&Event { state: Some(State::Pending), ..numbered("e1") });
        assert_eq!((decision, heard), (Decision::Stale, course));
        assert!(gate.last.transactions.is_empty(), "nothing is remembered of it");
    }
}

#[test]
fn after_a_late_failure_a_new_try_of_the_provider_is_not_stale() {
    let mut gate = Gate::new(|_| ());
    gate.settled(&Event { state: Some(State::Paid), ..numbered("e1") });
    gate.settled(&Event { state: Some(State::Failed), ..numbered("e2") });
    let (id, decision, course) = gate.comes(&Event { state: Some(State::Pending), ..numbered("e3") });
    assert_eq!((decision, course), (Decision::NewState, Course::Deliver(id)));
}

#[test]
fn a_known_id_that_tells_another_verified_state_is_forwarded_with_an_alarm() {
    let mut gate = Gate::new(|_| ());
    gate.verified = true;
    gate.settled(&telling(numbered("e1"), "paid"));
    let (id, decision, course) = gate.comes(&telling(numbered("e1"), "refunded"));
    assert_eq!((decision, course), (Decision::Conflict, Course::Deliver(id)));
    assert_eq!(gate.told(), ["alarm"]);
    gate.does(id, Input::Sending).does(id, accepted(1));
    gate.verified = false;
    assert_eq!(gate.comes(&telling(numbered("e1"), "failed")).1, Decision::Replayed, "nobody vouches for it");
}

#[test]
fn a_conflict_met_on_the_way_waits_and_is_decided_again() {
    let mut gate = Gate::new(|_| ());
    gate.verified = true;
    let (id, ..) = gate.comes(&telling(numbered("e1"), "paid"));
    assert_eq!(gate.comes(&telling(numbered("e1"), "refunded")).2, Course::Again(id));
    gate.does(id, Input::Sending).does(id, accepted(1));
    assert_eq!(gate.comes(&telling(numbered("e1"), "refunded")).1, Decision::Conflict);
}

#[test]
fn what_is_the_same_by_its_reference_never_conflicts() {
    let mut gate = Gate::new(|policy| policy.identity = IdentityBy::Reference);
    gate.verified = true;
    gate.settled(&telling(bare(), "paid"));
    assert_eq!(gate.comes(&telling(bare(), "refunded")).1, Decision::Replayed);
    gate.follower();
}

// ------------------------------------------------------------------------------------------------ the window

#[test]
fn simultaneous_twins_make_one_forward() {
    let mut gate = Gate::new(|policy| policy.hold = secs(1));
    let (id, ..) = gate.comes(&bare());
    gate.comes(&bare());
    gate.does(id, Input::Due).does(id, Input::Sending).does(id, accepted(1));
    assert!(gate.view.deliveries.is_empty());
}

#[test]
fn who_comes_after_the_first_byte_hears_its_answer_and_one_more_follows_for_all() {
    let mut gate = Gate::new(|_| ());
    let (id, ..) = gate.comes(&bare());
    gate.does(id, Input::Sending);
    let window_ends = gate.now.after(secs(30));
    assert_eq!(gate.comes(&bare()).2, Course::Wait(id));
    let next = gate.follower();
    assert_eq!(gate.phase(next), Some(Phase::Held { until: window_ends }));
    assert_eq!(gate.comes(&bare()).2, Course::Wait(id));
    assert_eq!(gate.follower(), next, "one for all");
    gate.passes(secs(2)).does(id, accepted(1));
    assert_eq!(gate.comes(&bare()).2, Course::Replay(answer(200)));
    assert_eq!((gate.follower(), gate.view.deliveries.len()), (next, 1));
    assert_eq!(gate.tries(next, Input::HoldOver), Err(Refused::OutOfTurn), "a return does not end a window");
    gate.passes(secs(28)).does(next, Input::Due);
    assert_eq!(gate.phase(next), Some(Phase::Queued));
    assert_eq!(gate.comes(&bare()).2, Course::Wait(next));
}

#[test]
fn who_comes_after_the_settle_inside_the_window_makes_one_follow_and_at_its_end_is_the_first_again() {
    let mut gate = Gate::new(|_| ());
    gate.settled(&bare());
    gate.passes(secs(30) - Duration::from_millis(1));
    let mut late = gate.clone();
    assert_eq!(gate.comes(&bare()).1, Decision::Replayed);
    let next = gate.follower();
    gate.passes(secs(100));
    assert_eq!(gate.comes(&bare()).1, Decision::Replayed, "until its follower goes, that one stands for all");
    gate.does(next, Input::Due).does(next, Input::Sending).does(next, accepted(1));
    late.passes(Duration::from_millis(1));
    assert_eq!(late.comes(&bare()).1, Decision::First);
}

#[test]
fn without_trailing_nothing_follows() {
    let mut gate = Gate::new(|policy| policy.trailing = false);
    gate.settled(&bare());
    assert_eq!(gate.comes(&bare()).1, Decision::Replayed);
    assert!(gate.view.deliveries.is_empty());
}

#[test]
fn when_the_first_fails_its_follower_is_dropped_for_all_have_heard_of_it() {
    for ending in [rejected(1), not_sent(1), unknown(1)] {
        let mut gate = Gate::new(|_| ());
        let (id, ..) = gate.comes(&bare());
        gate.does(id, Input::Sending);
        gate.comes(&bare());
        let next = gate.follower();
        gate.does(id, ending);
        assert_eq!(gate.phase(next), None);
        assert!(gate.view.transactions.iter().all(|(_, t)| t.claims.iter().all(|c| c.window.unwrap_next().is_none())));
    }
}

#[test]
fn an_end_without_an_answer_is_written_where_a_follower_would_be_noted() {
    let mut gate = Gate::new(|_| ());
    let (id, ..) = gate.comes(&bare());
    gate.does(id, Input::Sending).does(id, unknown(1));
    assert_eq!(gate.last.transactions.len(), 1, "who decided on the try in the app decides anew");
}

trait Next {
    fn unwrap_next(&self) -> Option<LeaseId>;
}

impl Next for Option<Box<super::state::Window>> {
    fn unwrap_next(&self) -> Option<LeaseId> {
        self.as_ref().and_then(|window| window.next)
    }
}

#[test]
fn a_window_that_ends_while_the_first_is_in_the_app_lets_the_follower_go_at_its_end() {
    let mut gate = Gate::new(|_| ());
    let (id, ..) = gate.comes(&bare());
    gate.does(id, Input::Sending);
    gate.comes(&bare());
    let next = gate.follower();
    gate.passes(secs(30)).does(next, Input::Due);
    assert_eq!(gate.phase(next), Some(Phase::Held { until: Timestamp::NEVER }));
    assert!(!gate.last.transactions.is_empty(), "written over what it has read, so that no end is missed");
    gate.passes(secs(5)).does(id, accepted(1));
    gate.does(next, Input::Due);
    assert_eq!(gate.phase(next), Some(Phase::Queued));
}

#[test]
fn a_follower_is_ours_to_retry_with_a_growing_pause_and_then_to_show_to_a_person() {
    let mut gate = Gate::new(|_| ());
    gate.settled(&bare());
    gate.comes(&bare());
    let next = gate.follower();
    gate.passes(secs(30)).does(next, Input::Due);
    let mut pauses = Vec::new();
    for attempt in 1..=3 {
        gate.does(next, Input::Sending).does(next, rejected(attempt));
        if let Some(Phase::Retrying { at }) = gate.phase(next) {
            assert_eq!(gate.comes(&bare()).2, Course::Retryable);
            pauses.push(at.since(gate.now));
            gate.now = at;
            gate.does(next, Input::Due);
        }
    }
    assert!(pauses.len() == 2 && pauses[1] > pauses[0] && pauses[1] <= secs(16), "{pauses:?}");
    assert!(matches!(gate.phase(next), Some(Phase::Review { .. })));
    assert_eq!(gate.told(), ["rejected", "alarm"]);
}

#[test]
fn a_follower_of_a_dead_app_is_not_tried_without_end() {
    let mut gate = Gate::new(|_| ());
    gate.settled(&bare());
    gate.comes(&bare());
    let next = gate.follower();
    gate.passes(secs(30)).does(next, Input::Due);
    for attempt in 1..=4 {
        match gate.phase(next) {
            Some(Phase::Queued) => _ = gate.does(next, not_sent(attempt)),
            _ => break,
        }
        gate.passes(secs(100));
        _ = gate.tries(next, Input::Due);
    }
    assert!(matches!(gate.phase(next), Some(Phase::Review { .. })));
}

// ------------------------------------------------------------------------------------------------ batches

#[test]
fn an_old_event_goes_along_with_a_new_one() {
    let mut gate = Gate::new(|_| ());
    gate.settled(&numbered("e1"));
    let (id, decided) = gate.arrives(&[numbered("e1"), numbered("e2")]);
    assert_eq!(decided.decisions, [Decision::Repeated, Decision::NewState]);
    assert_eq!(decided.course, Course::Deliver(id));
}

#[test]
fn a_batch_that_brings_nothing_new_is_acknowledged_or_waits_for_what_is_elsewhere() {
    let mut gate = Gate::new(|_| ());
    gate.settled(&numbered("e1"));
    gate.settled(&numbered("e2"));
    assert_eq!(gate.arrives(&[numbered("e1"), numbered("e2")]).1.course, Course::Ack);
    let (elsewhere, ..) = gate.comes(&numbered("e3"));
    let batch = [numbered("e1"), numbered("e3")];
    assert_eq!(gate.arrives(&batch).1.course, Course::Again(elsewhere));
    gate.does(elsewhere, Input::Sending).does(elsewhere, rejected(1));
    assert_eq!(gate.arrives(&batch).1.decisions, [Decision::Repeated, Decision::NewState]);
}

#[test]
fn what_rode_along_in_an_accepted_batch_stays_known_whatever_becomes_of_its_own_delivery() {
    let mut gate = Gate::new(|policy| policy.on_unknown = OnUnknown::Resend);
    let (own, ..) = gate.comes(&numbered("e"));
    gate.does(own, Input::Sending).does(own, unknown(1));
    let (batch, decided) = gate.arrives(&[numbered("e"), numbered("f")]);
    assert_eq!(decided.decisions, [Decision::Repeated, Decision::NewState]);
    gate.does(batch, Input::Sending).does(batch, accepted(1));
    assert_eq!(gate.comes(&numbered("e")).1, Decision::Replayed, "the app has it");
    gate.passes(secs(600)).does(own, Input::Due);
    assert_eq!(gate.phase(own), None, "and need not hear of it again");
    assert!(matches!(gate.last.locks[..], [LockChange::Release(id)] if id == own));
    assert_eq!(gate.comes(&numbered("e")).1, Decision::Replayed);
}

#[test]
fn what_waits_and_has_been_accepted_in_a_batch_does_not_go_and_hears_that_answer() {
    for hold in [0, 5] {
        let mut gate = Gate::new(|policy| policy.hold = secs(hold));
        let (own, ..) = gate.comes(&numbered("e"));
        let (batch, _) = gate.arrives(&[numbered("e"), numbered("f")]);
        if hold > 0 {
            gate.passes(secs(4)).does(batch, Input::HoldOver);
        }
        gate.does(batch, Input::Sending).does(batch, accepted(1));
        assert_eq!(gate.phase(own), None);
        assert!(gate.last.effects.contains(&Effect::Tell(own, Ending::Accepted(answer(200)))));
        assert!(gate.last.locks.contains(&LockChange::Release(own)), "it may queue for its turn");
        assert_eq!(gate.comes(&numbered("e")).1, Decision::Replayed);
    }
}

#[test]
fn what_is_held_and_has_been_accepted_piece_by_piece_does_not_go_and_hears_that() {
    let mut gate = Gate::new(|policy| policy.hold = secs(5));
    let (held, _) = gate.arrives(&[of("tr_1", "e"), of("tr_2", "e")]);
    gate.policy.hold = Duration::ZERO;
    for reference in ["tr_1", "tr_2"] {
        let (batch, _) = gate.arrives(&[of(reference, "e"), of(reference, "f")]);
        gate.does(batch, Input::Sending).does(batch, accepted(1));
    }
    gate.passes(secs(5)).does(held, Input::Due);
    assert_eq!((gate.phase(held), gate.told()), (None, vec!["accepted"]));
}

#[test]
fn what_was_not_all_accepted_with_a_batch_still_goes() {
    let mut gate = Gate::new(|_| {});
    let (own, ..) = gate.arrives(&[numbered("e"), numbered("g")]);
    let (batch, _) = gate.arrives(&[numbered("e"), numbered("f")]);
    gate.does(batch, Input::Sending).does(batch, accepted(1));
    assert_eq!(gate.phase(own), Some(Phase::Queued), "nobody has told the app of the other one");
    gate.does(own, Input::Sending).does(own, rejected(1));
    assert_eq!(gate.comes(&numbered("e")).1, Decision::Replayed);
    assert_eq!(gate.comes(&numbered("g")).1, Decision::NewState, "a failure is forgotten");
}

#[test]
fn what_may_tell_of_a_change_is_not_settled_by_riding_along() {
    let mut gate = Gate::new(|_| {});
    let (own, ..) = gate.comes(&bare());
    let (batch, decided) = gate.arrives(&[bare(), numbered("f")]);
    assert_eq!(decided.decisions, [Decision::Repeated, Decision::NewState]);
    gate.does(batch, Input::Sending).does(batch, accepted(1));
    assert_eq!(gate.phase(own), Some(Phase::Queued));
    // Nor is what tells something else than the one on its way.
    let mut gate = Gate::new(|_| {});
    let (own, ..) = gate.comes(&telling(numbered("e"), "paid"));
    let (batch, _) = gate.arrives(&[telling(numbered("e"), "refunded"), numbered("f")]);
    gate.does(batch, Input::Sending).does(batch, accepted(1));
    assert_eq!(gate.phase(own), Some(Phase::Queued));
}

/// What is known, without what counts the commits.
fn known(gate: &Gate) -> String {
    let mut view = gate.view.clone();
    view.transactions.iter_mut().for_each(|(_, transaction)| transaction.version = 0);
    view.deliveries.iter_mut().for_each(|delivery| delivery.version = 0);
    format!("{view:?}")
}

#[test]
fn what_goes_at_once_comes_to_what_two_commits_come_to() {
    for events in [vec![bare()], vec![numbered("a")], vec![of("tr_1", "a"), of("tr_2", "b"), plain("tr_3")]] {
        let mut gate = Gate::new(|policy| policy.collapse_window = secs(30));
        gate.settled(&of("tr_2", "old"));
        let mut slow = gate.clone();
        let (id, decided) = slow.arrives(&events);
        let arrived = slow.last.history.clone();
        slow.does(id, Input::Sending);
        gate.next += 2;
        let arrival = gate.arrival(id, LeaseId(id.0 + 1), &events);
        let claimed = arrival.claimed.clone();
        let (same, mut transition) = arrive(&gate.view, arrival, gate.now);
        assert!(same == decided && may_go_at_once(&transition, id));
        go_at_once(&mut transition, id, gate.now);
        assert_eq!(transition.locks, [LockChange::Seize(id, claimed)]);
        assert!(transition.waits(Durable::Claim), "before its first byte goes");
        assert_eq!(transition.history, [arrived, slow.last.history.clone()].concat());
        gate.commit(transition);
        assert_eq!(known(&gate), known(&slow));
    }
}

#[test]
fn only_what_would_queue_at_once_may_go_at_once() {
    let may = |gate: &mut Gate, event: &Event| {
        let (id, ..) = gate.comes(event);
        may_go_at_once(&gate.last, id)
    };
    assert!(may(&mut Gate::new(|_| {}), &bare()));
    assert!(!may(&mut Gate::new(|policy| policy.hold = secs(2)), &bare()), "it is held");
    assert!(!may(&mut Gate::new(|policy| policy.shadow = true), &bare()), "nobody holds a lease for it");
    let mut gate = Gate::new(|_| {});
    gate.settled(&numbered("a"));
    assert!(!may(&mut gate, &numbered("a")), "it is known");
    let (mut gate, _) = retrying(|_| {});
    assert!(!may(&mut gate, &numbered("later")), "an earlier one is tried again");
}

#[test]
fn a_batch_touches_every_transaction_it_speaks_of() {
    let mut gate = Gate::new(|_| ());
    let (id, _) = gate.arrives(&[of("tr_1", "a"), of("tr_2", "b")]);
    gate.does(id, Input::Sending).does(id, accepted(1));
    assert_eq!(gate.comes(&of("tr_1", "a")).1, Decision::Replayed);
    assert_eq!(gate.comes(&of("tr_2", "b")).1, Decision::Replayed);
}

#[test]
fn a_batch_that_is_decided_again_makes_nothing_follow_yet() {
    let mut gate = Gate::new(|_| ());
    let (a, ..) = gate.comes(&plain("a"));
    gate.does(a, Input::Sending);
    gate.settled(&plain("b"));
    assert_eq!(gate.arrives(&[plain("a"), plain("b")]).1.course, Course::Again(a));
    assert_eq!(gate.view.deliveries.len(), 1, "its followers would be waited on, and make others follow, without end");
    gate.does(a, accepted(1));
    assert_eq!(gate.arrives(&[plain("a"), plain("b")]).1.course, Course::Ack);
    assert!(matches!(gate.phase(gate.follower()), Some(Phase::Held { .. })));
}

fn plain(reference: &str) -> Event {
    Event { reference: reference.into(), ..Event::default() }
}

#[test]
fn one_follows_for_a_whole_batch_when_the_last_of_its_windows_ends() {
    let mut gate = Gate::new(|_| ());
    gate.settled(&plain("a"));
    gate.passes(secs(10));
    gate.settled(&plain("b"));
    let last = gate.now.after(secs(30));
    assert_eq!(gate.arrives(&[plain("a"), plain("b")]).1.course, Course::Ack);
    let next = gate.follower();
    assert_eq!((gate.phase(next), gate.view.deliveries.len()), (Some(Phase::Held { until: last }), 1));
    gate.passes(secs(30)).does(next, Input::Due).does(next, Input::Sending).does(next, accepted(1));
    gate.passes(secs(30));
    assert_eq!(gate.comes(&plain("a")).1, Decision::First, "forgotten, not replayed for ever");
    assert_eq!(gate.comes(&plain("b")).1, Decision::First);
}

// ------------------------------------------------------------------------------------------------ endings

#[test]
fn an_accepted_answer_settles_releases_and_is_told() {
    let mut gate = Gate::new(|_| ());
    let (id, ..) = gate.comes(&numbered("e1"));
    gate.does(id, Input::Sending);
    assert_eq!(gate.last.locks, [LockChange::Require(id)], "no byte without the lease");
    gate.does(id, accepted(1));
    assert_eq!(gate.last.locks, [LockChange::Release(id)]);
    assert_eq!((gate.told(), gate.phase(id)), (vec!["accepted"], None));
}

#[test]
fn what_is_not_sent_yet_queues_again_under_names_that_became_known() {
    let mut gate = Gate::new(|_| {});
    let (id, ..) = gate.comes(&numbered("e"));
    let hash = LockName::new("app", ["payment_hash", ""], "h");
    gate.view.linked = vec![hash];
    gate.view.late = true;
    gate.does(id, Input::Sending);
    assert_eq!(gate.phase(id), Some(Phase::Queued), "nothing is sent");
    let [LockChange::Requeue(again, claimed)] = &gate.last.locks[..] else { panic!("{:?}", gate.last.locks) };
    assert_eq!((*again, claimed.names.contains(&hash), claimed.names.len()), (id, true, 2));
    gate.view.late = false;
    gate.does(id, Input::Sending);
    assert!(matches!(gate.phase(id), Some(Phase::InFlight { .. })));
    gate.does(id, accepted(1));
    assert_eq!(gate.phase(id), None, "it was no try: its number is the first");
}

#[test]
fn what_the_app_puts_off_lingers() {
    let mut gate = Gate::new(|policy| policy.linger = secs(5));
    let id = gate.settled(&numbered("e1"));
    assert_eq!(gate.last.locks, [LockChange::Linger(id, gate.now.after(secs(5)))]);
}

#[test]
fn a_failure_is_told_and_forgotten_so_that_the_next_redelivery_gets_a_real_try() {
    for (ending, told) in [(rejected(1), "rejected"), (not_sent(1), "not_sent")] {
        let mut gate = Gate::new(|_| ());
        let (id, ..) = gate.comes(&numbered("e1"));
        gate.does(id, Input::Sending).does(id, ending);
        assert_eq!(gate.last.locks, [LockChange::Release(id)]);
        assert_eq!(gate.told(), [told]);
        assert!(gate.view.transactions.is_empty() && gate.view.deliveries.is_empty());
        assert_eq!(gate.comes(&numbered("e1")).1, Decision::First);
    }
}

#[test]
fn who_can_not_even_connect_has_not_sent() {
    let mut gate = Gate::new(|_| ());
    let (id, ..) = gate.comes(&numbered("e1"));
    gate.does(id, not_sent(1));
    assert_eq!((gate.told(), gate.phase(id)), (vec!["not_sent"], None));
}

#[test]
fn an_unknown_keeps_its_lease_for_quiet_and_then_is_resent_or_shown() {
    for (choice, order, expected) in [
        (OnUnknown::Resend, Order::Passing, Phase::Queued),
        (OnUnknown::Review, Order::Passing, Phase::Review { since: Timestamp::EPOCH, reason: Reason::Unknown }),
        (OnUnknown::Review, Order::Strict, Phase::Review { since: Timestamp::EPOCH, reason: Reason::Unknown }),
    ] {
        let mut gate = Gate::new(|policy| (policy.on_unknown, policy.order) = (choice, order));
        let (id, ..) = gate.comes(&numbered("e1"));
        gate.does(id, Input::Sending).does(id, unknown(1));
        assert!(gate.last.locks.is_empty());
        let delivery = gate.view.delivery(id).unwrap();
        assert_eq!(delivery.due(), Some(gate.now.after(secs(60))));
        gate.passes(secs(60)).does(id, Input::Due);
        match (expected, order) {
            (Phase::Queued, _) => assert!(matches!(gate.last.locks[..], [LockChange::Requeue(..)])),
            (_, Order::Passing) => assert_eq!(gate.last.locks, [LockChange::Release(id)]),
            (_, Order::Strict) => assert_eq!(gate.last.locks, [LockChange::Names(id)]),
        }
        assert_eq!(std::mem::discriminant(&gate.phase(id).unwrap()), std::mem::discriminant(&expected));
    }
}

#[test]
fn what_the_app_never_answers_is_not_resent_without_end() {
    let mut gate = Gate::new(|policy| policy.on_unknown = OnUnknown::Resend);
    let (id, ..) = gate.comes(&numbered("e1"));
    for attempt in 1..=3 {
        gate.does(id, Input::Sending).does(id, unknown(attempt)).passes(secs(60)).does(id, Input::Due);
    }
    assert!(matches!(gate.phase(id), Some(Phase::Review { .. })));
}

#[test]
fn a_sender_that_is_gone_leaves_an_unknown() {
    let mut gate = Gate::new(|_| ());
    let (id, ..) = gate.comes(&numbered("e1"));
    gate.does(id, Input::Sending);
    gate.now = gate.view.delivery(id).unwrap().due().unwrap();
    gate.does(id, Input::Due);
    assert_eq!((gate.told(), gate.phase(id)), (vec!["unknown"], Some(Phase::Unknown { since: gate.now })));
}

#[test]
fn the_outcome_of_an_earlier_try_is_refused_and_a_late_success_is_taken_while_nothing_else_was_tried() {
    let mut gate = Gate::new(|policy| policy.on_unknown = OnUnknown::Resend);
    let (id, ..) = gate.comes(&numbered("e1"));
    gate.does(id, Input::Sending).does(id, unknown(1));
    assert_eq!(gate.tries(id, rejected(1)), Err(Refused::Fenced));
    let mut other = gate.clone();
    other.does(id, accepted(1));
    assert_eq!(other.phase(id), None, "the sender was taken for dead and was not");
    gate.passes(secs(60)).does(id, Input::Due);
    for late in [rejected(1), not_sent(1), unknown(1)] {
        assert_eq!(gate.tries(id, late), Err(Refused::Fenced), "queued again");
    }
    let mut other = gate.clone();
    other.does(id, accepted(1));
    assert_eq!((other.phase(id), &*other.last.locks), (None, &[LockChange::Release(id)][..]), "nothing else was tried");
    gate.does(id, Input::Sending);
    for late in [accepted(1), rejected(1), not_sent(1), unknown(1)] {
        assert_eq!(gate.tries(id, late), Err(Refused::Fenced), "the second try is in the app");
    }
    gate.does(id, accepted(2));
    assert_eq!(gate.tries(id, accepted(2)), Err(Refused::Gone));
}

// ------------------------------------------------------------------------------------------------ acts

fn in_review() -> (Gate, LeaseId) {
    let mut gate = Gate::new(|_| ());
    let (id, ..) = gate.comes(&numbered("e1"));
    gate.does(id, Input::Sending).does(id, unknown(1)).passes(secs(60)).does(id, Input::Due);
    (gate, id)
}

#[test]
fn a_person_resends_with_a_try_of_its_own_and_the_retry_is_ours() {
    let (mut gate, id) = in_review();
    gate.does(id, act(Deed::Resend));
    assert!(matches!(gate.last.locks[..], [LockChange::Requeue(..)]));
    assert!(gate.view.delivery(id).unwrap().owed);
    gate.does(id, Input::Sending);
    assert_eq!(gate.tries(id, accepted(1)), Err(Refused::Fenced), "the second try is in the app");
    gate.does(id, rejected(2));
    assert!(matches!(gate.phase(id), Some(Phase::Retrying { .. })));
}

#[test]
fn what_a_person_settles_is_known_and_its_redelivery_hears_the_answer_he_gave() {
    let (mut gate, id) = in_review();
    gate.does(id, act(Deed::Settle));
    assert_eq!((gate.phase(id), gate.told()), (None, vec!["accepted"]));
    assert_eq!(gate.last.locks, [LockChange::Release(id)]);
    let (_, decision, course) = gate.comes(&numbered("e1"));
    assert_eq!((decision, course), (Decision::Replayed, Course::Replay(answer(202))));
}

#[test]
fn what_a_person_discards_is_forgotten_and_its_redelivery_gets_a_real_try() {
    let (mut gate, id) = in_review();
    gate.does(id, act(Deed::Discard));
    assert_eq!((gate.phase(id), gate.told()), (None, vec!["unknown"]));
    let (next, decision, course) = gate.comes(&numbered("e1"));
    assert_eq!((decision, course), (Decision::First, Course::Deliver(next)));
}

#[test]
fn an_act_stands_in_the_history_of_every_transaction_it_touches_with_who_and_why() {
    let mut gate = Gate::new(|_| ());
    let (id, _) = gate.arrives(&[of("tr_1", "e1"), of("tr_2", "e2"), of("tr_1", "e3")]);
    gate.does(id, Input::Sending).does(id, unknown(1)).passes(secs(60)).does(id, Input::Due);
    gate.does(id, act(Deed::Settle));
    let acts: Vec<_> = gate.last.history.iter().filter(|line| matches!(line.what, What::Acted { .. })).collect();
    assert_eq!(acts.len(), 2, "one line for each payment: {acts:?}");
    assert_eq!(acts[0].what, What::Acted { deed: Deed::Settle, who: "Ada".into(), why: "asked the app".into() });
    assert_ne!(acts[0].transaction, acts[1].transaction);
}

#[test]
fn of_two_people_who_saw_the_same_one_acts() {
    for (one, other) in Deed::ALL.into_iter().flat_map(|one| Deed::ALL.map(|other| (one, other))) {
        let (mut gate, id) = in_review();
        let seen = gate.view.delivery(id).map(|delivery| delivery.version);
        gate.does(id, act_on(one, seen));
        let refused = gate.tries(id, act_on(other, seen));
        assert!(matches!(refused, Err(Refused::Changed | Refused::Gone)), "{one:?}, {other:?}: {refused:?}");
    }
}

#[test]
fn nobody_gives_away_the_lease_of_an_app_that_may_be_at_work() {
    let mut gate = Gate::new(|_| ());
    let (id, ..) = gate.comes(&numbered("e1"));
    assert_eq!(gate.tries(id, act(Deed::Discard)), Err(Refused::OutOfTurn), "it goes by itself");
    gate.does(id, Input::Sending);
    assert_eq!(gate.tries(id, act(Deed::Settle)), Err(Refused::OutOfTurn), "it is in the app");
    gate.does(id, unknown(1));
    let quiet = gate.now.after(secs(60));
    gate.passes(secs(10));
    assert_eq!(gate.tries(id, act(Deed::Resend)), Err(Refused::AtWork));
    for deed in [Deed::Settle, Deed::Discard] {
        let mut gate = gate.clone();
        gate.does(id, act(deed));
        assert_eq!(gate.last.locks, [LockChange::Keep(id, quiet)], "{deed:?}");
    }
}

#[test]
fn a_late_success_settles_what_waits_for_a_person_and_what_he_wants_sent_again() {
    for deed in [None, Some(Deed::Resend)] {
        let (mut gate, id) = in_review();
        deed.into_iter().for_each(|deed| _ = gate.does(id, act(deed)));
        gate.does(id, accepted(1));
        assert_eq!((gate.phase(id), gate.told()), (None, vec!["accepted"]));
        assert_eq!(gate.last.locks, [LockChange::Release(id)], "nobody sends it again");
        assert_eq!(gate.comes(&numbered("e1")).1, Decision::Replayed);
    }
    for deed in [Deed::Settle, Deed::Discard] {
        let (mut gate, id) = in_review();
        gate.does(id, act(deed));
        assert_eq!(gate.tries(id, accepted(1)), Err(Refused::Gone), "a person was first");
    }
    let mut gate = Gate::new(|_| ());
    let (id, ..) = gate.comes(&numbered("e1"));
    assert_eq!(gate.tries(id, accepted(0)), Err(Refused::Fenced), "nothing was sent yet");
}

#[test]
fn what_tells_nothing_passes_what_waits_for_a_person_and_is_not_held_up_for_days() {
    let mut gate = Gate::new(|_| ());
    let (old, ..) = gate.comes(&bare());
    gate.does(old, Input::Sending).does(old, unknown(1)).passes(secs(60)).does(old, Input::Due);
    assert_eq!(gate.comes(&bare()).2, Course::Retryable, "a person may still be quick");
    gate.passes(secs(3600));
    let (new, decision, course) = gate.comes(&bare());
    assert_eq!((decision, course), (Decision::NewState, Course::Deliver(new)));
    gate.does(new, Input::Sending).does(new, accepted(1));
    assert!(gate.view.delivery(old).is_some(), "it still waits");
    for deed in Deed::ALL {
        let mut gate = gate.clone();
        gate.does(old, act(deed));
        assert_eq!(gate.comes(&bare()).1, Decision::Replayed, "{deed:?} takes nothing from the later one");
    }
}

#[test]
fn a_conflict_is_forwarded_and_an_entry_stays_for_a_person() {
    let mut gate = Gate::new(|_| ());
    gate.verified = true;
    gate.settled(&telling(numbered("e1"), "paid"));
    let (id, decision, course) = gate.comes(&telling(numbered("e1"), "refunded"));
    assert_eq!((decision, course), (Decision::Conflict, Course::Deliver(id)));
    gate.does(id, Input::Sending).does(id, accepted(1));
    let [entry] = &gate.view.deliveries[..] else { panic!("one entry: {:?}", gate.view.deliveries) };
    assert!(matches!(entry.phase, Phase::Review { reason: Reason::Conflict, .. }));
    let entry = entry.id;
    assert_eq!(gate.tries(entry, act(Deed::Resend)), Err(Refused::Elsewhere), "it has been forwarded");
    gate.does(entry, act(Deed::Discard));
    assert_eq!(
        gate.comes(&telling(numbered("e1"), "refunded")).1,
        Decision::Replayed,
        "what was forwarded stays known"
    );
}

#[test]
fn a_conflict_with_what_waits_for_a_person_is_forwarded_too() {
    let mut gate = Gate::new(|_| ());
    gate.verified = true;
    let (id, ..) = gate.comes(&telling(numbered("e1"), "paid"));
    gate.does(id, Input::Sending).does(id, unknown(1)).passes(secs(60)).does(id, Input::Due);
    assert_eq!(gate.comes(&telling(numbered("e1"), "paid")).2, Course::Retryable);
    let (next, decision, course) = gate.comes(&telling(numbered("e1"), "refunded"));
    assert_eq!((decision, course), (Decision::Conflict, Course::Deliver(next)));
}

#[test]
fn a_stale_event_is_kept_for_a_person_where_the_rule_says_so() {
    let mut gate = Gate::new(|policy| policy.on_stale = Treatment::Review);
    gate.settled(&Event { state: Some(State::Paid), ..numbered("e1") });
    let stale = Event { state: Some(State::Pending), ..numbered("e2") };
    let (id, decision, course) = gate.comes(&stale);
    assert_eq!((decision, course), (Decision::Stale, Course::Keep));
    assert!(matches!(gate.phase(id), Some(Phase::Review { reason: Reason::Stale, .. })));
    assert_eq!(gate.comes(&stale).2, Course::Retryable, "kept once");
    gate.passes(secs(3600));
    assert_eq!(gate.comes(&stale).2, Course::Ack, "a person has it");
    gate.does(id, act(Deed::Resend)).does(id, Input::Sending).does(id, accepted(1));
    assert_eq!(gate.comes(&stale).1, Decision::Replayed);
}

#[test]
fn a_line_of_life_tells_what_came_what_was_tried_and_how_it_ended() {
    let mut gate = Gate::new(|_| ());
    let mut told = Vec::new();
    let mut tell = |gate: &Gate| {
        told.extend(gate.last.history.iter().map(|line| match &line.what {
            What::Arrived(arrived) => format!("{} {}", arrived.decision.as_str(), arrived.reference),
            What::Moved(phase) => format!("{} {}", phase.as_str(), line.attempt),
            What::Ended { outcome, why, .. } => format!("{} {}", outcome.as_str(), why.as_deref().unwrap_or("-")),
            other => format!("{other:?}"),
        }));
    };
    let (id, ..) = gate.comes(&numbered("e1"));
    tell(&gate);
    for input in [Input::Sending, unknown(1)] {
        gate.does(id, input);
        tell(&gate);
    }
    gate.comes(&numbered("e1"));
    tell(&gate);
    assert_eq!(gate.last.history[0].delivery, Some(id), "what it was taken for");
    gate.passes(secs(60)).does(id, Input::Due);
    tell(&gate);
    let expected =
        ["first tr_1", "in_flight 1", "unknown cut", "unknown 1", "joined tr_1", "review 1"].map(str::to_owned);
    assert_eq!(told, expected);
    assert_eq!(Outcome::Unknown.as_str(), "unknown");
}

// ------------------------------------------------------------------------------------------------ acknowledged first

/// A gate that says success before the app has.
fn accepting() -> Gate {
    Gate::new(|policy| (policy.answer, policy.hold) = (AnswerBy::Accept, secs(1)))
}

#[test]
fn what_is_accepted_is_ours_from_the_first_commit_on_and_that_is_waited_for() {
    let mut gate = accepting();
    let (id, decision, course) = gate.comes(&numbered("e1"));
    assert_eq!((decision, course), (Decision::First, Course::Accept(id)));
    assert!(gate.view.delivery(id).unwrap().owed && gate.last.waits(Durable::Claim));
    let lines: Vec<_> = gate.last.history.iter().map(|line| &line.what).collect();
    assert!(matches!(lines[..], [What::Arrived(_), What::Acknowledged]), "{lines:?}");
}

#[test]
fn who_brings_again_what_was_acknowledged_hears_the_acknowledgement_again_in_every_phase() {
    let mut gate = accepting();
    gate.policy.on_unknown = OnUnknown::Resend;
    let event = numbered("e1");
    let (id, ..) = gate.comes(&event);
    let meets = |gate: &mut Gate, phase: &str| {
        let (_, _, course) = gate.comes(&event);
        assert_eq!(course, Course::Ack, "{phase}");
    };
    meets(&mut gate, "held");
    gate.passes(secs(1)).does(id, Input::Due);
    meets(&mut gate, "queued");
    gate.does(id, Input::Sending);
    meets(&mut gate, "in flight");
    gate.does(id, rejected(1));
    meets(&mut gate, "retrying");
    gate.passes(secs(60)).does(id, Input::Due).does(id, Input::Sending).does(id, unknown(2));
    meets(&mut gate, "unknown");
    gate.passes(secs(60)).does(id, Input::Due).does(id, Input::Sending).does(id, accepted(3));
    meets(&mut gate, "settled");
    // Who does not know of acknowledgements waits for the app, as ever.
    let mut gate = accepting();
    let (id, ..) = gate.comes(&event);
    gate.policy.answer = AnswerBy::Upstream;
    assert_eq!(gate.comes(&event).2, Course::Wait(id));
}

#[test]
fn what_is_accepted_is_tried_again_and_shown_to_a_person_after_the_last_try() {
    let mut gate = accepting();
    let (id, ..) = gate.comes(&numbered("e1"));
    gate.passes(secs(1)).does(id, Input::Due);
    for (attempt, ending) in [rejected(1), not_sent(2)].into_iter().enumerate() {
        if attempt == 0 {
            gate.does(id, Input::Sending);
        }
        gate.does(id, ending);
        let Some(Phase::Retrying { at }) = gate.phase(id) else { panic!("{:?}", gate.phase(id)) };
        let wait = secs(8 << attempt);
        assert!((wait - wait / 8..=wait).contains(&at.since(gate.now)), "{attempt}: {:?}", at.since(gate.now));
        gate.now = at;
        gate.does(id, Input::Due);
    }
    gate.does(id, Input::Sending).does(id, rejected(3));
    assert!(matches!(gate.phase(id), Some(Phase::Review { reason: Reason::Exhausted, .. })));
}

#[test]
fn a_batch_is_acknowledged_first_only_where_that_is_right_for_all_that_it_brings() {
    let mut gate = accepting();
    let (id, decided) = gate.arrives(&[numbered("a"), numbered("b")]);
    assert_eq!(decided.course, Course::Accept(id));
    let of_both = |answers: [AnswerBy; 2]| {
        let gate = accepting();
        let mut arrival = gate.arrival(LeaseId(8), LeaseId(9), &[numbered("a"), numbered("b")]);
        for (event, answer) in arrival.events.iter_mut().zip(answers) {
            event.policy = Arc::new(Policy { answer, ..(*event.policy).clone() });
        }
        arrive(&gate.view, arrival, gate.now).0.course
    };
    assert_eq!(of_both([AnswerBy::Accept, AnswerBy::Upstream]), Course::Deliver(LeaseId(8)));
    assert_eq!(of_both([AnswerBy::Upstream, AnswerBy::Accept]), Course::Deliver(LeaseId(8)));
}

#[test]
fn the_payer_who_has_been_through_ends_the_hold_of_what_was_accepted_too() {
    let mut gate = accepting();
    let (id, ..) = gate.comes(&numbered("e1"));
    gate.does(id, Input::HoldOver);
    assert_eq!(gate.phase(id), Some(Phase::Queued));
}

#[test]
fn whoever_has_waited_long_enough_makes_it_ours_as_long_as_its_end_has_not_been_told() {
    let mut gate = Gate::new(|policy| policy.hold = secs(1));
    let (id, ..) = gate.comes(&numbered("e1"));
    for (phase, next) in [("held", Some(Input::Due)), ("queued", Some(Input::Sending)), ("in flight", None)] {
        let mut other = gate.clone();
        other.does(id, Input::Owe);
        assert!(other.view.delivery(id).unwrap().owed, "{phase}");
        assert_eq!(other.phase(id), gate.phase(id), "{phase}");
        assert!(matches!(other.last.history[..], [Line { what: What::Acknowledged, .. }]), "{phase}");
        // Once more: written, so that who says it waits too, and noted once.
        other.does(id, Input::Owe);
        assert!(other.last.waits(Durable::Claim) && other.last.history.is_empty(), "{phase}");
        if let Some(next) = next {
            gate.does(id, next);
        }
    }
    let mut gone = gate.clone();
    gone.does(id, rejected(1));
    assert_eq!(gone.tries(id, Input::Owe), Err(Refused::Gone), "its failure was told, and theirs is the retry");
    gate.does(id, unknown(1));
    assert_eq!(gate.tries(id, Input::Owe), Err(Refused::OutOfTurn));
}

#[test]
fn what_was_told_meanwhile_is_not_swallowed_by_a_success_that_comes_late() {
    // It may tell of a change, and hears success on the strength of the try that follows.
    let followed = || {
        let mut gate = Gate::new(|policy| {
            (policy.answer_within, policy.on_unknown) = (Some(secs(4)), OnUnknown::Resend);
        });
        let (id, ..) = gate.comes(&bare());
        gate.does(id, Input::Sending).does(id, Input::Owe);
        assert_eq!(gate.comes(&bare()).2, Course::Ack);
        let next = gate.follower();
        gate.does(id, unknown(1));
        assert_eq!(gate.comes(&bare()).2, Course::Retryable, "nothing stands for this one");
        gate.passes(secs(30)).does(next, Input::Due);
        (gate, id, next)
    };
    let (mut gate, id, next) = followed();
    gate.does(id, accepted(1));
    assert_eq!(gate.phase(next), Some(Phase::Held { until: gate.now }), "the app has not heard of it");
    let (mut gate, id, next) = followed();
    gate.passes(secs(30)).does(id, Input::Due);
    assert_eq!(gate.tries(id, accepted(1)), Err(Refused::Fenced), "somebody may have met it in the queue");
    gate.does(id, Input::Sending);
    assert_eq!(gate.phase(next), None, "it came before this try");
    gate.does(id, accepted(2));
    assert!(gate.view.deliveries.is_empty());
    let (mut gate, id, next) = followed();
    gate.view.deliveries.iter_mut().for_each(|delivery| delivery.attempts = 3);
    gate.passes(secs(30)).does(id, Input::Due);
    assert!(matches!(gate.phase(id), Some(Phase::Review { reason: Reason::Unknown, .. })));
    assert_eq!(gate.phase(next), None, "the person has it");
    assert_eq!(gate.tries(id, accepted(3)), Err(Refused::Fenced), "and decides for all that it stands for");
}

// ------------------------------------------------------------------------------------------------ order

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

const WAITS: Option<Phase> = Some(Phase::Held { until: Timestamp::NEVER });

#[test]
fn what_comes_later_does_not_overtake_what_is_tried_again() {
    let (mut gate, first) = retrying(|_| ());
    let (later, _, course) = gate.comes(&numbered("e2"));
    assert_eq!((course, gate.phase(later)), (Course::Accept(later), WAITS), "acknowledged, and in nobody's way");
    assert!(gate.last.locks.is_empty());
    let (stranger, ..) = gate.comes(&of("tr_2", "e1"));
    assert_eq!(gate.phase(stranger), Some(Phase::Queued), "one that is stuck does not hold up others");
    gate.does(later, Input::HoldOver);
    assert_eq!(gate.phase(later), WAITS, "nor when the payer has been through");
    gate.passes(secs(8)).does(first, Input::Due).does(first, Input::Sending).does(first, rejected(2));
    assert_eq!(gate.phase(later), WAITS, "still tried again");
    gate.passes(secs(16)).does(first, Input::Due).does(first, Input::Sending).does(first, accepted(3));
    assert_eq!(gate.phase(later), Some(Phase::Held { until: gate.now }));
    gate.does(later, Input::Due);
    assert_eq!(gate.phase(later), Some(Phase::Queued));
}

#[test]
fn what_waited_for_its_turn_behind_a_try_that_failed_goes_after_the_next_one() {
    let mut gate = Gate::new(|policy| policy.answer = AnswerBy::Accept);
    let (first, ..) = gate.comes(&numbered("e1"));
    let (later, ..) = gate.comes(&numbered("e2"));
    assert_eq!(gate.phase(later), Some(Phase::Queued), "nothing has failed yet");
    gate.does(first, Input::Sending).does(first, rejected(1)).does(later, Input::Sending);
    assert_eq!((gate.phase(later), &gate.last.locks[..]), (WAITS, &[LockChange::Release(later)][..]));
    // Nor does it pass what has been queued again after quiet.
    let mut gate = Gate::new(|policy| (policy.answer, policy.on_unknown) = (AnswerBy::Accept, OnUnknown::Resend));
    let (first, ..) = gate.comes(&numbered("e1"));
    let (later, ..) = gate.comes(&numbered("e2"));
    gate.does(first, Input::Sending).does(first, unknown(1)).passes(secs(60)).does(first, Input::Due);
    gate.does(later, Input::Sending);
    assert_eq!((gate.phase(later), gate.view.delivery(later).unwrap().attempts), (WAITS, 0));
}

#[test]
fn what_waits_for_a_person_lets_later_ones_pass_or_keeps_its_names_as_the_rule_says() {
    for (order, lock) in [(Order::Passing, LockChange::Release as fn(LeaseId) -> _), (Order::Strict, LockChange::Names)]
    {
        let (mut gate, first) = retrying(|policy| (policy.order, policy.retry.attempts) = (order, 2));
        let (later, ..) = gate.comes(&numbered("e2"));
        gate.passes(secs(8)).does(first, Input::Due).does(first, Input::Sending).does(first, rejected(2));
        assert!(matches!(gate.phase(first), Some(Phase::Review { reason: Reason::Exhausted, .. })));
        assert_eq!(gate.last.locks, [lock(first)]);
        gate.does(later, Input::Due);
        assert_eq!(gate.phase(later), Some(Phase::Queued), "and the lock table says who goes");
        gate.does(first, act(Deed::Resend)).does(later, Input::Sending);
        assert_eq!(gate.phase(later), WAITS, "what a person sends again is on its way again");
        gate.does(first, Input::Sending).does(first, accepted(3)).does(later, Input::Due);
        assert_eq!(gate.phase(later), Some(Phase::Queued));
    }
}

#[test]
fn whatever_ends_the_earlier_one_lets_the_later_go() {
    for end in ["settled", "discarded", "brought by another"] {
        let (mut gate, first) = retrying(|_| ());
        let (later, ..) = gate.comes(&numbered("e2"));
        match end {
            "settled" => _ = gate.does(first, act(Deed::Settle)),
            "discarded" => _ = gate.does(first, act(Deed::Discard)),
            _ => {
                gate.view.deliveries.iter_mut().for_each(|d| d.id.0 += if d.id == later { 100 } else { 0 });
                let claims = gate.view.transactions.iter_mut().flat_map(|(_, t)| &mut t.claims);
                claims.filter(|c| c.is_pending_in(later)).for_each(|c| c.fate = Fate::Pending(LeaseId(later.0 + 100)));
                let (batch, _) = gate.arrives(&[numbered("e1"), of("tr_2", "f")]);
                gate.view.deliveries.iter_mut().filter(|d| d.id == batch).for_each(|d| d.phase = Phase::Queued);
                gate.view.deliveries.iter_mut().filter(|d| d.id == first).for_each(|d| d.attempts = 0);
                gate.view.deliveries.iter_mut().filter(|d| d.id == first).for_each(|d| d.phase = Phase::Queued);
                gate.does(batch, Input::Sending).does(batch, accepted(1));
                assert_eq!(gate.phase(first), None, "the app has it");
            }
        }
        let later = gate.view.deliveries.iter().find(|delivery| delivery.id.0 >= later.0).unwrap();
        assert_eq!(later.phase, Phase::Held { until: gate.now }, "{end}");
    }
}

#[test]
fn who_is_not_acknowledged_first_waits_for_no_retry() {
    let (mut gate, _) = retrying(|_| ());
    gate.policy.answer = AnswerBy::Upstream;
    let (later, ..) = gate.comes(&numbered("e2"));
    assert_eq!(gate.phase(later), Some(Phase::Queued), "its sender would hang up, and may never come again");
}

// ------------------------------------------------------------------------------------------------ an app that is down

fn put_off(until: Timestamp) -> Input {
    Input::PutOff { until, why: "down".into() }
}

#[test]
fn what_waits_for_an_app_that_is_down_uses_up_no_try() {
    let mut gate = Gate::new(|policy| policy.answer = AnswerBy::Accept);
    let (id, ..) = gate.comes(&numbered("e1"));
    for round in 0..20 {
        let until = gate.now.after(secs(8));
        if round % 2 == 0 {
            gate.does(id, put_off(until));
            assert_eq!((gate.told(), &gate.last.locks[..]), (vec!["not_sent"], &[LockChange::Release(id)][..]));
        } else {
            gate.does(id, put_off(until));
            assert!(gate.last.history.is_empty(), "an hour of this is one line");
        }
        let Some(Phase::Retrying { at }) = gate.phase(id) else { panic!("{:?}", gate.phase(id)) };
        assert!(until <= at && at <= until.after(secs(8)), "not all at once");
        assert_eq!(gate.view.delivery(id).unwrap().attempts, 0);
        gate.now = at;
        if round % 2 == 1 {
            gate.does(id, Input::Due);
        }
    }
    gate.does(id, Input::Sending).does(id, accepted(1));
    assert!(gate.view.deliveries.is_empty());
}

#[test]
fn what_nobody_was_told_of_is_its_senders_again_when_the_app_is_down() {
    let mut gate = Gate::new(|_| ());
    let (id, ..) = gate.comes(&numbered("e1"));
    gate.does(id, put_off(gate.now.after(secs(8))));
    assert_eq!(gate.told(), ["not_sent"]);
    assert!(gate.view.transactions.is_empty() && gate.view.deliveries.is_empty());
    let mut gate = Gate::new(|policy| policy.hold = secs(1));
    let (held, ..) = gate.comes(&numbered("e1"));
    assert_eq!(gate.tries(held, put_off(gate.now)), Err(Refused::OutOfTurn), "it has not asked to go");
}

#[test]
fn what_rode_along_and_was_accepted_stays_so_when_the_delivery_it_first_came_in_fails() {
    let mut gate = Gate::new(|policy| policy.hold = secs(0));
    let (first, _) = gate.arrives(&[bare(), numbered("e2")]);
    gate.does(first, Input::Sending);
    let (second, decided) = gate.arrives(&[numbered("e2"), numbered("e0")]);
    assert_eq!(decided.decisions, [Decision::Repeated, Decision::NewState]);
    gate.does(second, Input::Sending).does(second, accepted(1));
    assert_eq!(gate.phase(first).map(Phase::as_str), Some("in_flight"), "what tells nothing may be news");
    gate.does(first, rejected(1));
    assert_eq!(gate.comes(&numbered("e2")).1, Decision::Replayed);
    assert_eq!(gate.comes(&bare()).1, Decision::NewState, "of this nobody has heard");
}

// ------------------------------------------------------------------------------------------------ shadow, retention

#[test]
fn in_shadow_everything_is_decided_and_nothing_waits() {
    let mut gate = Gate::new(|policy| (policy.shadow, policy.hold) = (true, secs(1)));
    let (id, decision, course) = gate.comes(&bare());
    assert_eq!((decision, course), (Decision::First, Course::Shadow));
    assert!(gate.last.locks.is_empty());
    assert_eq!(gate.comes(&bare()).2, Course::Shadow);
    gate.does(id, accepted(0));
    assert_eq!(gate.comes(&bare()).1, Decision::Replayed, "counted as what it would have been");
    assert_eq!(gate.comes(&bare()).2, Course::Shadow);
    assert!(gate.view.deliveries.is_empty());
    gate.passes(secs(30));
    assert_eq!(gate.comes(&bare()).1, Decision::First);
}

#[test]
fn retention_ends_to_the_millisecond_and_a_repeat_renews_it_lazily() {
    let week = secs(7 * 24 * 3600);
    let mut gate = Gate::new(|_| ());
    gate.settled(&numbered("e1"));
    gate.passes(secs(60));
    gate.comes(&numbered("e1"));
    assert!(gate.last.transactions.is_empty(), "written a moment ago");
    gate.passes(week / 2);
    gate.comes(&numbered("e1"));
    assert_eq!(gate.last.transactions.len(), 1);
    gate.passes(week - Duration::from_millis(1));
    let mut other = gate.clone();
    assert_eq!(gate.comes(&numbered("e1")).1, Decision::Replayed);
    other.passes(Duration::from_millis(1));
    assert_eq!(other.comes(&numbered("e1")).1, Decision::First);
}

// ------------------------------------------------------------------------------------------------ laws

#[derive(Clone, Debug)]
enum Move {
    Comes(Vec<(u8, u8)>),
    Passes(u16),
    Does(prop::sample::Index, u8),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let event = (0..2_u8, 0..3_u8);
    let one = prop_oneof![
        4 => prop::collection::vec(event, 1..3).prop_map(Move::Comes),
        2 => (0..40_000_u16).prop_map(Move::Passes),
        8 => (any::<prop::sample::Index>(), 0..15_u8).prop_map(|(which, what)| Move::Does(which, what)),
    ];
    prop::collection::vec(one, 1..60)
}

fn input(what: u8, attempt: u32) -> Input {
    match what {
        0 | 1 => Input::Due,
        2 | 3 => Input::Sending,
        4 => accepted(attempt),
        5 => rejected(attempt),
        6 => unknown(attempt),
        7 => not_sent(attempt + 1),
        8 => Input::HoldOver,
        10 => Input::Owe,
        11 => Input::Confirmed { attempt, books: Books::Booked(answer(202)) },
        12 => Input::Confirmed { attempt, books: Books::NotBooked },
        13 => Input::Confirmed { attempt, books: Books::Silent },
        14 => Input::Confirmed { attempt, books: Books::Closed },
        _ => act(Deed::ALL[attempt as usize % 3]),
    }
}

/// What holds whatever has happened.
fn holds(gate: &Gate) -> Result<(), TestCaseError> {
    let mut pending: BTreeMap<Key, LeaseId> = BTreeMap::new();
    for claim in gate.view.transactions.iter().flat_map(|(_, transaction)| &transaction.claims) {
        if let Fate::Pending(id) = claim.fate {
            prop_assert!(gate.view.delivery(id).is_some(), "its delivery is gone: {claim:?}");
            prop_assert!(pending.insert(claim.identity, id).is_none(), "pending twice: {claim:?}");
        }
        if let Some(next) = claim.window.unwrap_next() {
            prop_assert!(gate.view.delivery(next).is_some(), "its follower is gone: {claim:?}");
        }
    }
    for (_, transaction) in &gate.view.transactions {
        let mut later = transaction.clone();
        later.forget_expired(Timestamp::NEVER);
        let unsettled = |t: &Transaction| t.claims.iter().filter(|c| matches!(c.fate, Fate::Pending(_))).count();
        prop_assert_eq!(unsettled(transaction), unsettled(&later), "what is unsettled never expires");
    }
    Ok(())
}

/// Of whom success was told, what he told is under way, settled or with a person, unless a person threw it away.
fn kept(gate: &Gate, promised: &Delivery, discarded: bool) -> Result<(), TestCaseError> {
    if !promised.owed || discarded || gate.view.delivery(promised.id).is_some() {
        return Ok(());
    }
    for event in promised.letter.events.iter().filter(|event| !event.windowed) {
        let claim = gate.view.transaction(event.transaction).and_then(|t| t.claim(event.identity));
        // Another may have brought it since, and this one waited for a person.
        prop_assert!(claim.is_some(), "nobody knows of {event:?} any more");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn the_laws_hold_whatever_comes(moves in moves(), answer in 0..3_u8, hold in 0..2_u64, unsure in 0..4_usize, shadow in prop::bool::weighted(0.1)) {
        let mut gate = Gate::new(|policy| {
            (policy.hold, policy.shadow, policy.retention) = (secs(hold), shadow, secs(100));
            match answer {
                0 => policy.answer = AnswerBy::Accept,
                1 => policy.answer_within = Some(secs(1)),
                _ => {}
            }
            let all = [OnUnknown::Resend, OnUnknown::Review, OnUnknown::Confirm, OnUnknown::ConfirmElseResend];
            (policy.on_unknown, policy.quiet) = (all[unsure], secs(20));
        });
        for one in moves {
            match one {
                Move::Comes(events) => {
                    let mut events: Vec<_> = events;
                    events.dedup();
                    let event = |&(payment, id): &(u8, u8)| match id {
                        0 => plain(&format!("tr_{payment}")),
                        2 => Event { state: Some(State::Paid), ..of(&format!("tr_{payment}"), "e2") },
                        _ => of(&format!("tr_{payment}"), &format!("e{id}")),
                    };
                    gate.arrives(&events.iter().map(event).collect::<Vec<_>>());
                }
                Move::Passes(millis) => _ = gate.passes(Duration::from_millis(millis.into())),
                Move::Does(which, what) if !gate.view.deliveries.is_empty() => {
                    let delivery = &gate.view.deliveries[which.index(gate.view.deliveries.len())];
                    let (id, input) = (delivery.id, input(what, delivery.attempts));
                    // The same view, input and moment give the same transition.
                    let twice = [(); 2].map(|()| format!("{:?}", apply(&gate.view, id, input.clone(), gate.now)));
                    prop_assert_eq!(&twice[0], &twice[1]);
                    let before = format!("{:?}", gate.view);
                    let promised = delivery.clone();
                    let discarded = matches!(&input, Input::Act(act) if act.deed == Deed::Discard);
                    if gate.tries(id, input).is_ok() {
                        kept(&gate, &promised, discarded)?;
                    } else {
                        prop_assert_eq!(before, format!("{:?}", gate.view), "a refused input changes nothing");
                    }
                }
                Move::Does(..) => {}
            }
            holds(&gate)?;
        }
    }
}
