//! What follows when a webhook has been read whole: what each of its events is, and what becomes of the request.

use std::{borrow::Cow, net::IpAddr, sync::Arc, time::Duration};

use super::{
    effect::{Change, Effect, LEASE_MARGIN, Transition, View, queue, writable},
    history::{Arrived, Line, Reason, What},
    identity::Identified,
    lock::{Claimed, LeaseId},
    money::{Moves, Told},
    policy::{AnswerBy, OnDuplicate, Policy, Treatment},
    state::{Bill, Carried, Claim, Delivery, Fate, Letter, Phase, StoredRequest, Transaction, Window},
};
use crate::{
    callback::{Answer, Key, State, Step},
    time::Timestamp,
};

/// One event of an arrival.
#[derive(Clone, Debug)]
pub struct Arriving {
    /// Its keys.
    pub identified: Identified,
    /// The provider's id of the payment, for people.
    pub reference: Arc<str>,
    /// What it says happened.
    pub state: Option<State>,
    /// And the finer step of that.
    pub step: Option<Step>,
    /// Which way its provider's payments go.
    pub moves: Moves,
    /// What it is a payment of, that is paid once.
    pub bills: Vec<Key>,
    /// Whether a signature vouches for what it tells.
    pub verified: bool,
    /// What its rule chose.
    pub policy: Arc<Policy>,
}

impl Arriving {
    fn money(&self) -> Option<Told> {
        self.state.map(|state| Told { state, step: self.step })
    }

    /// Whether somebody vouches that it tells of money that has come in. An order that is paid is not one more payment.
    fn is_a_payment(&self) -> bool {
        self.verified && self.state == Some(State::Paid) && self.step != Some(Step::Order)
    }

    /// Whether a person has to see it, though nothing else is done about it: that money moved, which the app was told of before.
    fn moves_money(&self) -> bool {
        self.state == Some(State::Paid)
    }
}

/// A webhook that has been read whole.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The name of the delivery, should this become one.
    pub id: LeaseId,
    /// The name of the delivery that follows at the window's end, should one be needed.
    pub next: LeaseId,
    /// Its events; never empty.
    pub events: Vec<Arriving>,
    /// The provider's name.
    pub provider: &'static str,
    /// Who sent it, as far as that is known.
    pub source: Option<IpAddr>,
    /// What the app shall see.
    pub request: Arc<StoredRequest>,
    /// What it must not overlap with.
    pub claimed: Claimed,
    /// When it came. It may have been asked about since.
    pub came: Timestamp,
    /// Whether its provider was asked what has become of its payment.
    pub inquired: Inquired,
    /// Whether it is kept for a person instead of being forwarded; as what, and why.
    pub kept: Option<(Decision, Reason)>,
}

/// Whether a provider was asked about what a callback reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inquired {
    /// It was not, or nobody knew.
    #[default]
    No,
    /// It says what has become of the payment, or had, when it looked. What is a repeat by that alone is asked about once
    /// more after this time.
    Once(Duration),
    /// This is what was to be asked about once more, and the version of that. Its sender has heard of success.
    Again(LeaseId, u64),
}

/// What the gate made of one event; a label in metrics and a line of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Decision {
    /// The identity was unknown.
    First,
    /// A delivery of it is held or in flight.
    Joined,
    /// It was settled before.
    Replayed,
    /// A known reference, a new identity.
    NewState,
    /// An old event in a batch that brings a new one.
    Repeated,
    /// An older state than one already delivered.
    Stale,
    /// Another paid reference for the same order.
    SecondPayment,
    /// The same event id with another verified state.
    Conflict,
    /// The signature is wrong or too old.
    Unverified,
    /// No one reference can be read.
    Unrecognised,
    /// A bound was reached.
    Overflow,
    /// A return.
    Returned,
}

impl Decision {
    /// Every decision.
    pub const ALL: [Self; 12] = [
        Self::First,
        Self::Joined,
        Self::Replayed,
        Self::NewState,
        Self::Repeated,
        Self::Stale,
        Self::SecondPayment,
        Self::Conflict,
        Self::Unverified,
        Self::Unrecognised,
        Self::Overflow,
        Self::Returned,
    ];

    /// The word in metrics, logs and `explain`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Joined => "joined",
            Self::Replayed => "replayed",
            Self::NewState => "new_state",
            Self::Repeated => "repeated",
            Self::Stale => "stale",
            Self::SecondPayment => "second_payment",
            Self::Conflict => "conflict",
            Self::Unverified => "unverified",
            Self::Unrecognised => "unrecognised",
            Self::Overflow => "overflow",
            Self::Returned => "returned",
        }
    }
}

/// What happens to the request that brought the events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Course {
    /// It became this delivery; its caller waits for the outcome.
    Deliver(LeaseId),
    /// It became this delivery, which is owed from the start: its caller hears the provider's own acknowledgement at once.
    Accept(LeaseId),
    /// Its caller waits for the outcome of this delivery.
    Wait(LeaseId),
    /// It is decided again when this delivery has ended.
    Again(LeaseId),
    /// Its caller hears this.
    Replay(Arc<Answer>),
    /// Its caller hears the provider's own acknowledgement.
    Ack,
    /// Its caller hears that it shall try again later.
    Retryable,
    /// Its caller hears a refusal.
    Refuse,
    /// It goes to the app under the lock, and nothing is remembered of it.
    Unremembered,
    /// It is kept for a person; its caller hears that it shall try again later.
    Keep,
    /// It goes to the app as if there were no gate (`shadow`).
    Shadow,
}

/// The decisions on an arrival, in the order of its events, and what becomes of it as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// One for each event.
    pub decisions: Vec<Decision>,
    /// What becomes of the request.
    pub course: Course,
    /// Why, in words.
    pub why: &'static str,
}

/// Decides an arrival.
#[must_use]
pub fn arrive(view: &View, arrival: Arrival, now: Timestamp) -> (Decided, Transition) {
    let inquired = arrival.inquired;
    let (decided, mut transition) = decide(view, arrival, now);
    if let Inquired::Again(id, version) = inquired {
        transition.deliveries.push(Change::Remove(id, version));
    }
    (decided, transition)
}

fn decide(view: &View, arrival: Arrival, now: Timestamp) -> (Decided, Transition) {
    let mut findings: Vec<Finding> = arrival.events.iter().map(|event| find(view, &arrival, event, now)).collect();
    if let Some(chosen) = brings_something_new(&arrival, &findings) {
        let bills = pay(view, &arrival, &mut findings);
        let (decided, transition) = deliver(view, arrival, &findings, chosen, now);
        return (decided, Transition { bills, ..transition });
    }
    if let Some(stale) = stale_for_a_person(&arrival, &findings) {
        let arrival = Arrival { kept: Some((Decision::Stale, Reason::Stale)), ..arrival };
        return deliver(view, arrival, &findings, stale, now);
    }
    let decisions = findings.iter().map(|finding| finding.decision).collect();
    let mut transition = Transition::default();
    let single = findings.len() == 1;
    let mut course = None;
    for (event, finding) in arrival.events.iter().zip(&findings) {
        let (heard, why) = match &finding.course {
            // One of several events: hear its end, then look at the whole again.
            Course::Wait(delivery) if !single => (Course::Again(*delivery), "an event of it is on its way elsewhere"),
            Course::Replay(_) if !single => (Course::Ack, "nothing in the batch is new"),
            Course::Keep => (Course::Retryable, finding.why),
            other => (other.clone(), finding.why),
        };
        let weight = |course: &Course| match course {
            Course::Again(_) => 4,
            Course::Retryable => 3,
            Course::Unremembered | Course::Shadow => 2,
            Course::Refuse => 1,
            _ => 0,
        };
        if course.as_ref().is_none_or(|(kept, _)| weight(kept) < weight(&heard)) {
            course = Some((heard, why));
        }
        remember_repeat(view, event, finding, &arrival, now, &mut transition);
        let line = arrived(event, finding.decision, finding.why, &arrival, now);
        transition.history.push(Line { delivery: pending(view, event), ..line });
    }
    let (mut course, why) = course.unwrap_or((Course::Unremembered, "no event"));
    if arrival.events.iter().any(|event| event.policy.shadow) {
        course = Course::Shadow;
    }
    if let (Inquired::Once(pause), Course::Wait(_) | Course::Replay(_) | Course::Ack, [event]) =
        (arrival.inquired, &course, &*arrival.events)
        && !pause.is_zero()
    {
        // The answer may be older than the change that it reports, and its sender will not come again.
        let (id, policy, phase) = (arrival.next, Arc::clone(&event.policy), Phase::Recheck { at: now.after(pause) });
        transition.deliveries.push(Change::Put(new_delivery(id, arrival, policy, phase)));
        return (Decided { decisions, course, why }, transition);
    }
    if matches!(course, Course::Again(_)) {
        // Whatever has to follow is decided then: two batches that wait on each other's followers would make more
        // without end.
        transition = Transition::default();
    }
    (Decided { decisions, course, why }, transition)
}

/// Keeps a sample of what was turned away for want of room. It claims nothing, for its sender keeps it and will send it again.
#[must_use]
pub fn turned_away(arrival: Arrival, now: Timestamp) -> Transition {
    let mut transition = Transition::default();
    let Some(policy) = arrival.events.first().map(|event| Arc::clone(&event.policy)) else { return transition };
    let why = Reason::Overflow.told();
    transition.history =
        arrival.events.iter().map(|event| arrived(event, Decision::Overflow, why, &arrival, now)).collect();
    for_a_person(arrival.id, arrival, &policy, Reason::Overflow, now, &mut transition);
    transition
}

/// So many payments of one bill are remembered; who pays it beyond these is told of all the same.
const MOST_PAYERS: usize = 8;

/// What one event by itself comes to.
struct Finding {
    decision: Decision,
    course: Course,
    why: &'static str,
    /// Came after the first byte of what it is taken for: one more delivery follows.
    trailing: bool,
}

fn find(view: &View, arrival: &Arrival, event: &Arriving, now: Timestamp) -> Finding {
    let keys = &event.identified;
    let transaction = view.transaction(keys.transaction);
    let found = |decision, course, why| Finding { decision, course, why, trailing: false };
    let claim = transaction.and_then(|t| t.claim(keys.identity)).filter(|claim| is_known(claim, now));
    let Some(claim) = claim else {
        let ahead = transaction.and_then(|transaction| unsent_twin(view, transaction, arrival));
        return match ahead {
            Some(id) => found(Decision::Joined, Course::Wait(id), "the same request has not been sent yet"),
            None => find_new(transaction, event, now),
        };
    };
    match &claim.fate {
        Fate::Pending(id) => match view.delivery(*id) {
            None => found(Decision::First, Course::Unremembered, "its delivery is gone"),
            Some(delivery) => find_pending(delivery, claim, event, now),
        },
        Fate::Settled { .. } if contradicts(event, claim) => {
            found(Decision::Conflict, Course::Unremembered, "the same event tells another state than before")
        }
        Fate::Settled { answer, .. } => Finding {
            trailing: keys.windowed && event.policy.trailing && !event.policy.shadow,
            ..match event.policy.on_duplicate {
                OnDuplicate::Replay if event.policy.answer == AnswerBy::Accept => found(
                    Decision::Replayed,
                    Course::Ack,
                    "settled before; hears the acknowledgement that the first one heard",
                ),
                OnDuplicate::Replay => {
                    found(Decision::Replayed, Course::Replay(Arc::clone(answer)), "settled before; hears its answer")
                }
                OnDuplicate::Ack => found(Decision::Replayed, Course::Ack, "settled before (on_duplicate = ack)"),
                OnDuplicate::Refuse => {
                    found(Decision::Replayed, Course::Refuse, "settled before (on_duplicate = refuse)")
                }
                OnDuplicate::Forward => {
                    found(Decision::Replayed, Course::Unremembered, "settled before (on_duplicate = forward)")
                }
            }
        },
    }
}

/// A delivery of the very same request that has not been sent yet, for one that does not tell what happened: the app will find
/// out after this came, whatever the other was known to tell.
fn unsent_twin(view: &View, transaction: &Transaction, arrival: &Arrival) -> Option<LeaseId> {
    let [event] = &*arrival.events else { return None };
    if !event.identified.windowed || event.policy.shadow {
        return None;
    }
    let pending = transaction.claims.iter().filter_map(|claim| match claim.fate {
        Fate::Pending(id) => view.delivery(id),
        Fate::Settled { .. } => None,
    });
    let is_twin = |delivery: &&Delivery| {
        let (sent, came) = (&delivery.letter.request, &arrival.request);
        matches!(delivery.phase, Phase::Held { .. } | Phase::Queued)
            && delivery.attempts == 0
            && (&sent.method, &sent.uri, &sent.body) == (&came.method, &came.uri, &came.body)
    };
    pending.filter(is_twin).map(|delivery| delivery.id).next()
}

fn is_known(claim: &Claim, now: Timestamp) -> bool {
    match &claim.fate {
        Fate::Pending(_) => true,
        // Until its follower goes, the follower stands for whatever comes.
        Fate::Settled { expires, .. } => now < *expires || claim.window.as_ref().is_some_and(|w| w.next.is_some()),
    }
}

fn find_new(transaction: Option<&Transaction>, event: &Arriving, now: Timestamp) -> Finding {
    let known = transaction.is_some_and(|t| t.claims.iter().any(|claim| is_known(claim, now)));
    let stale = transaction.zip(event.money()).is_some_and(|(t, told)| t.money.makes_stale(told, event.moves));
    let (decision, why) = match (known, stale) {
        (_, true) => {
            let course = match event.policy.on_stale {
                // Nobody else sees to it that the money is where it should be.
                Treatment::Ack if event.moves_money() => Course::Keep,
                Treatment::Ack => Course::Ack,
                Treatment::Refuse => Course::Refuse,
                Treatment::Forward => Course::Unremembered,
                Treatment::Review => Course::Keep,
            };
            let why = "an older state than one already delivered";
            return Finding { decision: Decision::Stale, course, why, trailing: false };
        }
        (true, _) => (Decision::NewState, "a known payment tells something new"),
        (false, _) => (Decision::First, "not seen before"),
    };
    Finding { decision, course: Course::Unremembered, why, trailing: false }
}

/// Whether a known event tells, vouched for, another state than before. One that is the same by its reference alone is
/// expected to.
fn contradicts(event: &Arriving, claim: &Claim) -> bool {
    let keys = &event.identified;
    event.verified && !keys.windowed && keys.told != 0 && claim.told != 0 && keys.told != claim.told
}

fn find_pending(delivery: &Delivery, claim: &Claim, event: &Arriving, now: Timestamp) -> Finding {
    let policy = &delivery.letter.policy;
    let windowed = event.identified.windowed;
    // What is owed is kept and tried again, so that whoever brings it once more hears what its first sender heard.
    let acknowledged = delivery.owed && event.policy.patience().is_some();
    let (course, why) = match delivery.phase {
        Phase::Held { .. } | Phase::Queued | Phase::InFlight { .. } if contradicts(event, claim) => {
            (Course::Again(delivery.id), "the same event tells another state than the one on its way")
        }
        Phase::Held { .. } | Phase::Queued | Phase::InFlight { .. } if acknowledged => {
            (Course::Ack, "it is on its way, and was acknowledged before")
        }
        Phase::Retrying { .. } if acknowledged => {
            (Course::Ack, "a failed try will be repeated, and it was acknowledged before")
        }
        // The try that may have got there knows nothing of what this one may tell.
        Phase::Unknown { .. } | Phase::Confirming { .. } if acknowledged && !windowed => {
            (Course::Ack, "it is unknown whether the app got it, and it was acknowledged before")
        }
        Phase::Held { .. } => (Course::Wait(delivery.id), "met another in the hold"),
        Phase::Queued => (Course::Wait(delivery.id), "another waits for its turn"),
        Phase::InFlight { .. } => (Course::Wait(delivery.id), "another is in the app"),
        Phase::Unknown { .. } | Phase::Confirming { .. } => (Course::Retryable, "it is unknown whether the app got it"),
        // No claim is pending in what only asks.
        Phase::Recheck { .. } | Phase::Awaited { .. } => (Course::Retryable, "its provider is asked once more"),
        Phase::Retrying { .. } => (Course::Retryable, "a failed try will be repeated"),
        Phase::Review { .. } if contradicts(event, claim) => {
            let why = "the same event tells another state than the one that waits for a person";
            return Finding { decision: Decision::Conflict, course: Course::Unremembered, why, trailing: false };
        }
        Phase::Review { reason: Reason::Stale, .. } if event.policy.on_stale == Treatment::Ack => {
            (Course::Ack, "an older state than one already delivered, which a person looks at")
        }
        Phase::Review { since, .. } if now < since.after(policy.review_retryable) => {
            (Course::Retryable, "it waits for a person")
        }
        // It may tell of a change, and nobody is to wait for days to hear of it.
        Phase::Review { .. } if windowed => {
            let why = "it may tell something new, while another waits for a person";
            return Finding { decision: Decision::NewState, course: Course::Unremembered, why, trailing: false };
        }
        Phase::Review { .. } => (Course::Ack, "it waits for a person, who has the request"),
    };
    let in_flight = matches!(delivery.phase, Phase::InFlight { .. });
    let trailing = in_flight && windowed && event.policy.trailing && !event.policy.shadow;
    Finding { decision: Decision::Joined, course, why, trailing }
}

/// Where what is stale is kept for a person: the event, if nothing that came with it has to be waited for.
fn stale_for_a_person(arrival: &Arrival, findings: &[Finding]) -> Option<usize> {
    let at_rest = |finding: &Finding| matches!(finding.course, Course::Keep | Course::Replay(_) | Course::Ack);
    let in_shadow = arrival.events.iter().any(|event| event.policy.shadow);
    let kept = findings.iter().position(|finding| finding.course == Course::Keep);
    kept.filter(|_| !in_shadow && findings.iter().all(at_rest))
}

/// The delivery in which this event's identity is under way.
fn pending(view: &View, event: &Arriving) -> Option<LeaseId> {
    let claim = view.transaction(event.identified.transaction)?.claim(event.identified.identity)?;
    match claim.fate {
        Fate::Pending(id) => Some(id),
        Fate::Settled { .. } => None,
    }
}

fn arrived(event: &Arriving, decision: Decision, why: &'static str, arrival: &Arrival, now: Timestamp) -> Line {
    let arrived = Arrived {
        decision,
        reference: Arc::clone(&event.reference),
        provider: arrival.provider,
        state: event.state,
        source: arrival.source,
        why: Cow::Borrowed(why),
    };
    let (transaction, what) = (event.identified.transaction, What::Arrived(arrived));
    Line { at: now, transaction, delivery: Some(arrival.id), attempt: 0, what }
}

const fn is_new(decision: Decision) -> bool {
    matches!(decision, Decision::First | Decision::NewState | Decision::SecondPayment | Decision::Conflict)
}

/// The new event whose policy the delivery gets: of several, the one that lingers longest.
fn brings_something_new(arrival: &Arrival, findings: &[Finding]) -> Option<usize> {
    let new = findings.iter().enumerate().filter(|(_, finding)| is_new(finding.decision));
    new.map(|(index, _)| index).max_by_key(|index| arrival.events[*index].policy.linger)
}

fn deliver(
    view: &View,
    arrival: Arrival,
    findings: &[Finding],
    chosen: usize,
    now: Timestamp,
) -> (Decided, Transition) {
    let policy = Arc::clone(&arrival.events[chosen].policy);
    let shadow = policy.shadow;
    // In shadow nobody says when the first byte goes.
    let opened = if shadow { now.after(policy.collapse_window) } else { Timestamp::EPOCH };
    let mut transition = Transition::default();
    let mut decisions = Vec::with_capacity(findings.len());
    for (event, finding) in arrival.events.iter().zip(findings) {
        let decision = match arrival.kept {
            Some((kept, _)) if is_new(finding.decision) || finding.course == Course::Keep => kept,
            None if is_new(finding.decision) => finding.decision,
            _ => Decision::Repeated,
        };
        decisions.push(decision);
        transition.history.push(arrived(event, decision, finding.why, &arrival, now));
        if decision == Decision::Repeated {
            continue;
        }
        let keys = event.identified;
        let transaction = writable(view, &mut transition.transactions, keys.transaction);
        transaction.forget_expired(now);
        transaction.claims.retain(|claim| claim.identity != keys.identity);
        // Most transactions know one event, and a million of them are remembered.
        transaction.claims.reserve_exact(1);
        transaction.claims.push(Claim {
            identity: keys.identity,
            fate: Fate::Pending(arrival.id),
            told: keys.told,
            window: keys.windowed.then(|| Box::new(Window { until: opened, next: None })),
            rode: None,
        });
    }
    let why = findings[chosen].why;
    if let Some(reason) = to_be_looked_at(&decisions).filter(|_| !shadow) {
        // It goes its way, and somebody has to look at it all the same: an entry that claims nothing.
        for_a_person(arrival.next, arrival.clone(), &policy, reason, now, &mut transition);
    }
    if let Some((kept, reason)) = arrival.kept {
        for_a_person(arrival.id, arrival, &policy, reason, now, &mut transition);
        let acknowledged = kept == Decision::Stale && policy.on_stale == Treatment::Ack;
        let course = if acknowledged { Course::Ack } else { Course::Keep };
        return (Decided { decisions, course, why }, transition);
    }
    let phase = if shadow {
        Phase::InFlight { lease_until: now.after(policy.timeout + LEASE_MARGIN) }
    } else if view.returned || arrival.came.after(policy.hold) <= now {
        Phase::Queued
    } else {
        Phase::Held { until: arrival.came.after(policy.hold) }
    };
    // One sender hears of the whole: at once, if that is right for all that it brings.
    let new = arrival.events.iter().zip(findings).filter(|(_, finding)| is_new(finding.decision));
    let owed = !shadow && new.map(|(event, _)| event.policy.answer).all(|answer| answer == AnswerBy::Accept);
    let id = arrival.id;
    let again = matches!(arrival.inquired, Inquired::Again(..));
    let mut delivery = Delivery { owed: owed || again, ..new_delivery(id, arrival, policy, phase) };
    let new = || transition.transactions.iter().map(|(key, _)| *key);
    if delivery.phase == Phase::Queued && view.deliveries.iter().any(|earlier| delivery.comes_after(earlier, new())) {
        delivery.phase = Phase::Held { until: Timestamp::NEVER };
    }
    if owed {
        transition.history.extend(delivery.lines(&What::Acknowledged, now));
    }
    if delivery.phase == Phase::Queued {
        queue(view, &delivery, &mut transition);
    }
    transition.deliveries.push(Change::Put(delivery));
    let course = match (shadow, owed) {
        (true, _) => Course::Shadow,
        (false, true) => Course::Accept(id),
        (false, false) => Course::Deliver(id),
    };
    (Decided { decisions, course, why }, transition)
}

/// Why a person has to look at what goes its way.
fn to_be_looked_at(decisions: &[Decision]) -> Option<Reason> {
    let reasons = [(Decision::SecondPayment, Reason::SecondPayment), (Decision::Conflict, Reason::Conflict)];
    reasons.into_iter().find_map(|(decision, reason)| decisions.contains(&decision).then_some(reason))
}

/// The bills that this pays; what pays one that another payment has paid is found to be the second. Written over the version
/// that was seen, so that of two that come at once one is.
fn pay(view: &View, arrival: &Arrival, findings: &mut [Finding]) -> Vec<(Key, Bill)> {
    let mut written: Vec<(Key, Bill)> = Vec::new();
    for (event, finding) in arrival.events.iter().zip(findings) {
        if !is_new(finding.decision) || !event.is_a_payment() {
            continue;
        }
        let payer = event.identified.transaction;
        for key in &event.bills {
            let at = written.iter().position(|(known, _)| known == key).unwrap_or_else(|| {
                written.push((*key, view.bill(*key).cloned().unwrap_or_default()));
                written.len() - 1
            });
            let paid_by = &mut written[at].1.paid_by;
            if paid_by.contains(&payer) {
                continue;
            }
            paid_by.retain(|other| !view.has_lost_its_money(*other));
            if !paid_by.is_empty() && finding.decision != Decision::Conflict {
                let why = "another payment has paid the same: one of the two has to be given back";
                (finding.decision, finding.why) = (Decision::SecondPayment, why);
            }
            paid_by.truncate(MOST_PAYERS - 1);
            paid_by.push(payer);
        }
    }
    written.retain(|(key, bill)| view.bill(*key) != Some(bill));
    written
}

/// Makes an arrival a delivery that waits for a person.
fn for_a_person(
    id: LeaseId,
    arrival: Arrival,
    policy: &Arc<Policy>,
    reason: Reason,
    now: Timestamp,
    transition: &mut Transition,
) {
    let phase = Phase::Review { since: now, reason };
    let delivery = new_delivery(id, arrival, Arc::clone(policy), phase);
    for event in &delivery.letter.events {
        let (transaction, what) = (event.transaction, What::Moved(phase));
        transition.history.push(Line { at: now, transaction, delivery: Some(id), attempt: 0, what });
    }
    transition.deliveries.push(Change::Put(delivery));
    transition.effects.push(Effect::Alarm(id, reason.told()));
}

fn new_delivery(id: LeaseId, arrival: Arrival, policy: Arc<Policy>, phase: Phase) -> Delivery {
    let carried = |event: &Arriving| Carried {
        reference: Arc::clone(&event.reference),
        transaction: event.identified.transaction,
        identity: event.identified.identity,
        windowed: event.identified.windowed,
        told: event.identified.told,
        state: event.state,
        step: event.step,
    };
    let letter = Letter {
        events: arrival.events.iter().map(carried).collect(),
        provider: arrival.provider,
        request: arrival.request,
        claimed: arrival.claimed,
        policy,
        arrived: arrival.came,
    };
    let owed = matches!(arrival.inquired, Inquired::Again(..)) || matches!(phase, Phase::Recheck { .. });
    Delivery { id, version: 0, letter: Arc::new(letter), phase, attempts: 0, owed }
}

/// A repeat keeps its identity known for longer, and marks that one more delivery has to follow.
fn remember_repeat(
    view: &View,
    event: &Arriving,
    finding: &Finding,
    arrival: &Arrival,
    now: Timestamp,
    transition: &mut Transition,
) {
    let keys = event.identified;
    let Some(claim) = view.transaction(keys.transaction).and_then(|t| t.claim(keys.identity)) else { return };
    if finding.trailing && claim.window.as_ref().is_some_and(|window| window.next.is_none()) {
        follow_up(view, event, arrival, now, transition);
        return;
    }
    let Fate::Settled { expires, .. } = &claim.fate else { return };
    let renewed = now.after(event.policy.retention);
    // Written lazily: an identity that was renewed a moment ago is not written again.
    let worthwhile = renewed.since(*expires) > event.policy.retention / 16;
    if finding.decision == Decision::Replayed && !keys.windowed && worthwhile {
        let transaction = writable(view, &mut transition.transactions, keys.transaction);
        if let Some(Claim { fate: Fate::Settled { expires, .. }, .. }) = transaction.claim_mut(keys.identity) {
            *expires = renewed;
        }
    }
}

/// Creates the one delivery that goes when the window ends, for all that comes after the first byte.
fn follow_up(view: &View, event: &Arriving, arrival: &Arrival, now: Timestamp, transition: &mut Transition) {
    let keys = event.identified;
    let transaction = writable(view, &mut transition.transactions, keys.transaction);
    let Some(window) = transaction.claim_mut(keys.identity).and_then(|claim| claim.window.as_mut()) else { return };
    window.next = Some(arrival.next);
    let until = window.until.max(now);
    let (delivery, what) = (Some(arrival.next), What::Trailing);
    transition.history.push(Line { at: now, transaction: keys.transaction, delivery, attempt: 0, what });
    // One delivery follows for the whole of a batch, when the last of its windows ends.
    if let Some(Change::Put(Delivery { phase: Phase::Held { until: sooner }, .. })) = transition.deliveries.first_mut()
    {
        *sooner = until.max(*sooner);
        return;
    }
    let phase = Phase::Held { until };
    let next = Delivery { owed: true, ..new_delivery(arrival.next, arrival.clone(), Arc::clone(&event.policy), phase) };
    transition.deliveries.push(Change::Put(next));
}
