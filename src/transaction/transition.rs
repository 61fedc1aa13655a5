//! What follows from what: `apply` takes what is known and what came, and says what shall be known and done.
//!
//! Nothing moves before the transition is committed; effects come after. What can't be is refused, in every build.

use std::{sync::Arc, time::Duration};

use super::{
    identity::Identified,
    lock::{Claimed, LeaseId, LockName},
    policy::{OnDuplicate, OnUnknown, Order, Policy, Treatment},
    state::{Carried, Claim, Delivery, Fate, Letter, Phase, StoredRequest, Transaction, Window},
};
use crate::{
    callback::{Answer, Key, State},
    time::Timestamp,
};

/// What is known of everything that an input touches, each with the version that was read.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// The transactions, and the key of each; one that is unknown is not listed.
    pub transactions: Vec<(Key, Transaction)>,
    /// Every unsettled delivery that their claims name.
    pub deliveries: Vec<Delivery>,
    /// Other names that are remembered for the names at hand.
    pub linked: Vec<LockName>,
    /// Whether the payer's return has been through under one of the names at hand.
    pub returned: bool,
}

impl View {
    fn transaction(&self, key: Key) -> Option<&Transaction> {
        self.transactions.iter().find(|(known, _)| *known == key).map(|(_, transaction)| transaction)
    }

    /// The delivery with this name.
    #[must_use]
    pub fn delivery(&self, id: LeaseId) -> Option<&Delivery> {
        self.deliveries.iter().find(|delivery| delivery.id == id)
    }
}

/// One event of an arrival.
#[derive(Clone, Debug)]
pub struct Arriving {
    /// Its keys.
    pub identified: Identified,
    /// What it says happened.
    pub state: Option<State>,
    /// Whether a signature vouches for what it tells.
    pub verified: bool,
    /// What its rule chose.
    pub policy: Arc<Policy>,
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
    /// What the app shall see.
    pub request: Arc<StoredRequest>,
    /// What it must not overlap with.
    pub claimed: Claimed,
}

/// How a try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The app answered, and `success` holds.
    Accepted(Arc<Answer>),
    /// The app answered, and `success` does not hold.
    Rejected(Arc<Answer>),
    /// Provably nothing was written.
    NotSent(String),
    /// Anything else after the first byte; with what a middle box said, if one spoke.
    Unknown(String, Option<Arc<Answer>>),
}

impl Ending {
    /// The word in metrics and history.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted(_) => "accepted",
            Self::Rejected(_) => "rejected",
            Self::NotSent(_) => "not_sent",
            Self::Unknown(..) => "unknown",
        }
    }
}

/// What a person decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Send it again.
    Resend,
    /// The app has it: remember it as accepted.
    Settle,
    /// It shall not be sent; remember it all the same.
    Discard,
}

/// Whatever comes back from the world about one delivery.
#[derive(Clone, Debug)]
pub enum Input {
    /// The payer's return has been through: the hold has served its purpose.
    HoldOver,
    /// The time has come that [`Delivery::due`] named.
    Due,
    /// The connection to the app stands and the lease is held; the first byte goes out after the commit.
    Sending,
    /// A try ended; `attempt` is the fencing token.
    Ended {
        /// Which try.
        attempt: u32,
        /// How.
        ending: Ending,
    },
    /// A person spoke.
    Act(Act),
}

/// A change of the lock table, in the same commit as the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockChange {
    /// Queue for a lease.
    Enqueue(LeaseId, Claimed),
    /// Go to the end of all queues.
    Requeue(LeaseId, Claimed),
    /// The commit stands only if this lease is held.
    Require(LeaseId),
    /// Give it back.
    Release(LeaseId),
    /// Give back the place in the app, keep the names until then.
    Linger(LeaseId, Timestamp),
    /// Keep everything until then: the app may still be at work on it.
    Keep(LeaseId, Timestamp),
    /// Keep the names until it is given back, and stand in nobody else's way: it waits for a person.
    Names(LeaseId),
}

/// A delivery as it shall be.
#[derive(Clone, Debug)]
pub enum Change {
    /// This state, over the version it carries.
    Put(Delivery),
    /// No longer needed, over this version.
    Remove(LeaseId, u64),
}

/// What is done once the commit stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell those who wait on this delivery.
    Tell(LeaseId, Ending),
    /// A person has to look at it.
    Alarm(LeaseId, &'static str),
}

/// One line of a transaction's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When.
    pub at: Timestamp,
    /// Whose.
    pub transaction: Key,
    /// In which delivery.
    pub delivery: LeaseId,
    /// What: a decision, a phase, an outcome, an act.
    pub what: &'static str,
}

/// What shall be known and done: one atomic commit, and effects after it.
#[derive(Clone, Debug, Default)]
pub struct Transition {
    /// Transactions as they shall be, over the version each carries.
    pub transactions: Vec<(Key, Transaction)>,
    /// Deliveries as they shall be.
    pub deliveries: Vec<Change>,
    /// Changes of the lock table.
    pub locks: Vec<LockChange>,
    /// Names under which a return has been through.
    pub returned: Vec<LockName>,
    /// Names known to belong together.
    pub links: Vec<(LockName, LockName)>,
    /// Lines of history.
    pub history: Vec<Line>,
    /// What is done afterwards.
    pub effects: Vec<Effect>,
}

impl Transition {
    /// The delivery as it is known once this is committed.
    #[must_use]
    pub fn committed(&self, id: LeaseId) -> Option<Delivery> {
        self.deliveries.iter().find_map(|change| match change {
            Change::Put(delivery) if delivery.id == id => {
                Some(Delivery { version: delivery.version + 1, ..delivery.clone() })
            }
            _ => None,
        })
    }
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

/// What can't be: somebody is late, or we are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The delivery is not known, or no longer.
    #[error("no such delivery")]
    Gone,
    /// The outcome of a try that is not the current one.
    #[error("the outcome of an earlier try comes too late")]
    Fenced,
    /// The delivery is in a phase in which this can't happen.
    #[error("this can't happen to a delivery in this phase")]
    OutOfTurn,
}

/// How long after the app's time limit its sender is taken for dead.
const LEASE_MARGIN: Duration = Duration::from_secs(15);

/// Decides an arrival.
#[must_use]
pub fn arrive(view: &View, arrival: Arrival, now: Timestamp) -> (Decided, Transition) {
    let findings: Vec<Finding> = arrival.events.iter().map(|event| find(view, event, now)).collect();
    if let Some(chosen) = brings_something_new(&arrival, &findings) {
        return deliver(view, arrival, &findings, chosen, now);
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
    }
    let (mut course, why) = course.unwrap_or((Course::Unremembered, "no event"));
    if arrival.events.iter().any(|event| event.policy.shadow) {
        course = Course::Shadow;
    }
    if matches!(course, Course::Again(_)) {
        // Whatever has to follow is decided then: two batches that wait on each other's followers would make more
        // without end.
        transition = Transition::default();
    }
    (Decided { decisions, course, why }, transition)
}

/// What one event by itself comes to.
struct Finding {
    decision: Decision,
    course: Course,
    why: &'static str,
    /// Came after the first byte of what it is taken for: one more delivery follows.
    trailing: bool,
}

fn find(view: &View, event: &Arriving, now: Timestamp) -> Finding {
    let keys = &event.identified;
    let transaction = view.transaction(keys.transaction);
    let found = |decision, course, why| Finding { decision, course, why, trailing: false };
    let claim = transaction.and_then(|t| t.claim(keys.identity)).filter(|claim| is_known(claim, now));
    let Some(claim) = claim else { return find_new(transaction, event, now) };
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

fn is_known(claim: &Claim, now: Timestamp) -> bool {
    match &claim.fate {
        Fate::Pending(_) => true,
        // Until its follower goes, the follower stands for whatever comes.
        Fate::Settled { expires, .. } => now < *expires || claim.window.as_ref().is_some_and(|w| w.next.is_some()),
    }
}

fn find_new(transaction: Option<&Transaction>, event: &Arriving, now: Timestamp) -> Finding {
    let known = transaction.is_some_and(|t| t.claims.iter().any(|claim| is_known(claim, now)));
    let stale = event.state == Some(State::Pending) && transaction.is_some_and(|t| t.final_state_seen);
    let (decision, why) = match (known, stale) {
        (_, true) => {
            let course = match event.policy.on_stale {
                Treatment::Ack => Course::Ack,
                Treatment::Refuse => Course::Refuse,
                Treatment::Forward => Course::Unremembered,
                // Until somebody can look at it, the provider shall keep it.
                Treatment::Review => Course::Retryable,
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
    let (course, why) = match delivery.phase {
        Phase::Held { .. } | Phase::Queued | Phase::InFlight { .. } if contradicts(event, claim) => {
            (Course::Again(delivery.id), "the same event tells another state than the one on its way")
        }
        Phase::Held { .. } => (Course::Wait(delivery.id), "met another in the hold"),
        Phase::Queued => (Course::Wait(delivery.id), "another waits for its turn"),
        Phase::InFlight { .. } => (Course::Wait(delivery.id), "another is in the app"),
        Phase::Unknown { .. } => (Course::Retryable, "it is unknown whether the app got it"),
        Phase::Retrying { .. } => (Course::Retryable, "a failed try will be repeated"),
        Phase::Review { since } if now < since.after(policy.review_retryable) => {
            (Course::Retryable, "it waits for a person")
        }
        Phase::Review { .. } => (Course::Ack, "it waits for a person, who has the request"),
    };
    let in_flight = matches!(delivery.phase, Phase::InFlight { .. });
    let trailing = in_flight && event.identified.windowed && event.policy.trailing && !event.policy.shadow;
    Finding { decision: Decision::Joined, course, why, trailing }
}

const fn is_new(decision: Decision) -> bool {
    matches!(decision, Decision::First | Decision::NewState | Decision::Conflict)
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
        if !is_new(finding.decision) {
            decisions.push(Decision::Repeated);
            continue;
        }
        decisions.push(finding.decision);
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
        });
        transition.history.push(Line {
            at: now,
            transaction: keys.transaction,
            delivery: arrival.id,
            what: finding.decision.as_str(),
        });
        if finding.decision == Decision::Conflict {
            transition.effects.push(Effect::Alarm(arrival.id, finding.why));
        }
    }
    let why = findings[chosen].why;
    let phase = if shadow {
        Phase::InFlight { lease_until: now.after(policy.timeout + LEASE_MARGIN) }
    } else if policy.hold.is_zero() || view.returned {
        Phase::Queued
    } else {
        Phase::Held { until: now.after(policy.hold) }
    };
    let id = arrival.id;
    let delivery = new_delivery(id, arrival, policy, phase, now);
    if phase == Phase::Queued {
        queue(view, &delivery, &mut transition);
    }
    transition.deliveries.push(Change::Put(delivery));
    let course = if shadow { Course::Shadow } else { Course::Deliver(id) };
    (Decided { decisions, course, why }, transition)
}

fn new_delivery(id: LeaseId, arrival: Arrival, policy: Arc<Policy>, phase: Phase, now: Timestamp) -> Delivery {
    let carried = |event: &Arriving| Carried {
        transaction: event.identified.transaction,
        identity: event.identified.identity,
        windowed: event.identified.windowed,
        told: event.identified.told,
        state: event.state,
    };
    let letter = Letter {
        events: arrival.events.iter().map(carried).collect(),
        provider: arrival.provider,
        request: arrival.request,
        claimed: arrival.claimed,
        policy,
        arrived: now,
    };
    Delivery { id, version: 0, letter: Arc::new(letter), phase, attempts: 0, owed: false }
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
    transition.history.push(Line { at: now, transaction: keys.transaction, delivery: arrival.next, what: "trailing" });
    // One delivery follows for the whole of a batch, when the last of its windows ends.
    if let Some(Change::Put(Delivery { phase: Phase::Held { until: sooner }, .. })) = transition.deliveries.first_mut()
    {
        *sooner = until.max(*sooner);
        return;
    }
    let phase = Phase::Held { until };
    let next =
        Delivery { owed: true, ..new_delivery(arrival.next, arrival.clone(), Arc::clone(&event.policy), phase, now) };
    transition.deliveries.push(Change::Put(next));
}

/// Decides whatever comes back from the world about the delivery `id`.
///
/// # Errors
///
/// [`Refused`] when it comes too late or can't be; nothing changes then.
pub fn apply(view: &View, id: LeaseId, input: Input, now: Timestamp) -> Result<Transition, Refused> {
    let delivery = view.delivery(id).ok_or(Refused::Gone)?;
    let mut step = Step { view, delivery: delivery.clone(), now, out: Transition::default() };
    match (input, delivery.phase) {
        (Input::HoldOver, Phase::Held { .. }) if !step.follows_another() => step.enqueue(),
        (Input::HoldOver, _) => return Err(Refused::OutOfTurn),
        (Input::Due, Phase::Held { .. }) => step.hold_over(),
        (Input::Due, Phase::Retrying { .. }) => step.enqueue(),
        (Input::Due, Phase::InFlight { .. }) => step.unknown("whoever sent it is gone".to_owned(), None),
        (Input::Due, Phase::Unknown { .. }) => step.quiet_over(),
        (Input::Due, Phase::Queued | Phase::Review { .. }) => return Err(Refused::OutOfTurn),
        (Input::Sending, Phase::Queued) => step.sending(),
        (Input::Sending, _) => return Err(Refused::OutOfTurn),
        // A try that never began is the one after the last that did.
        (Input::Ended { attempt, ending: Ending::NotSent(why) }, Phase::Queued) if attempt == delivery.attempts + 1 => {
            step.failed(Ending::NotSent(why));
        }
        (Input::Ended { attempt, .. }, _) if attempt != delivery.attempts => return Err(Refused::Fenced),
        (Input::Ended { ending, .. }, Phase::InFlight { .. }) => match ending {
            Ending::Accepted(answer) => step.accepted(&answer),
            Ending::Unknown(why, answer) => step.unknown(why, answer),
            Ending::Rejected(_) | Ending::NotSent(_) => step.failed(ending),
        },
        // The sender was taken for dead and was not: its outcome is still the truth about this try.
        (Input::Ended { ending: Ending::Accepted(answer), .. }, Phase::Unknown { .. }) => step.accepted(&answer),
        (Input::Ended { .. }, _) => return Err(Refused::Fenced),
        // The app may still be at work on it: two at a time are worse than a person who comes again after `quiet`.
        (Input::Act(Act::Resend), Phase::Unknown { .. }) => return Err(Refused::OutOfTurn),
        (Input::Act(act), Phase::Unknown { .. } | Phase::Review { .. } | Phase::Retrying { .. }) => step.act(act),
        (Input::Act(_), _) => return Err(Refused::OutOfTurn),
    }
    Ok(step.out)
}

/// One step of one delivery, under construction.
struct Step<'a> {
    view: &'a View,
    delivery: Delivery,
    now: Timestamp,
    out: Transition,
}

impl Step<'_> {
    fn put(&mut self, phase: Phase) {
        self.delivery.phase = phase;
        self.note(self.delivery.phase_name());
        self.out.deliveries.push(Change::Put(self.delivery.clone()));
    }

    fn remove(&mut self) {
        self.out.deliveries.push(Change::Remove(self.delivery.id, self.delivery.version));
    }

    fn note(&mut self, what: &'static str) {
        let Some(first) = self.delivery.letter.events.first() else { return };
        let line = Line { at: self.now, transaction: first.transaction, delivery: self.delivery.id, what };
        self.out.history.push(line);
    }

    fn transaction(&mut self, key: Key) -> &mut Transaction {
        writable(self.view, &mut self.out.transactions, key)
    }

    fn enqueue(&mut self) {
        queue(self.view, &self.delivery, &mut self.out);
        self.put(Phase::Queued);
    }

    /// The claims whose window names this delivery as the one that follows.
    fn predecessors(&self) -> Vec<(Key, Key, Fate)> {
        let events = self.delivery.letter.events.iter().filter(|event| event.windowed);
        events
            .filter_map(|event| {
                let claim = self.view.transaction(event.transaction)?.claim(event.identity)?;
                let next = claim.window.as_ref()?.next;
                (next == Some(self.delivery.id)).then(|| (event.transaction, event.identity, claim.fate.clone()))
            })
            .collect()
    }

    fn is_claimed(&self) -> bool {
        self.delivery.letter.events.iter().any(|event| {
            let claim = self.view.transaction(event.transaction).and_then(|t| t.claim(event.identity));
            claim.is_some_and(|claim| claim.is_pending_in(self.delivery.id))
        })
    }

    fn follows_another(&self) -> bool {
        !self.predecessors().is_empty()
    }

    fn hold_over(&mut self) {
        let id = self.delivery.id;
        let predecessors = self.predecessors();
        if predecessors.iter().any(|(.., fate)| matches!(fate, Fate::Pending(_))) {
            // The window is over and the first one is still under way: its end will set this one going. Written over
            // its version, so that an end that comes just now is not missed.
            for (transaction, ..) in predecessors {
                self.transaction(transaction);
            }
            self.put(Phase::Held { until: Timestamp::NEVER });
            return;
        }
        if predecessors.is_empty() && !self.is_claimed() {
            // All whom it stood for have heard of a failure.
            self.note("dropped");
            return self.remove();
        }
        for (transaction, identity, _) in predecessors {
            if let Some(claim) = self.transaction(transaction).claim_mut(identity) {
                *claim = Claim { fate: Fate::Pending(id), window: Some(Box::new(OPEN)), ..claim.clone() };
            }
        }
        self.enqueue();
    }

    fn sending(&mut self) {
        let policy = Arc::clone(&self.delivery.letter.policy);
        self.delivery.attempts += 1;
        let window_ends = self.now.after(policy.collapse_window);
        let id = self.delivery.id;
        for event in &self.delivery.letter.clone().events {
            let windowed = event.windowed
                && self.view.transaction(event.transaction).and_then(|t| t.claim(event.identity)).is_some();
            if windowed
                && let Some(claim) = self.transaction(event.transaction).claim_mut(event.identity)
                && claim.is_pending_in(id)
                && let Some(window) = claim.window.as_mut()
            {
                window.until = window_ends;
            }
        }
        self.out.locks.push(LockChange::Require(id));
        self.put(Phase::InFlight { lease_until: self.now.after(policy.timeout + LEASE_MARGIN) });
    }

    fn accepted(&mut self, answer: &Arc<Answer>) {
        self.settle(answer);
        let (id, linger) = (self.delivery.id, self.delivery.letter.policy.linger);
        let change =
            if linger.is_zero() { LockChange::Release(id) } else { LockChange::Linger(id, self.now.after(linger)) };
        self.out.locks.push(change);
        self.out.effects.push(Effect::Tell(id, Ending::Accepted(Arc::clone(answer))));
    }

    /// Remembers every event it carried as settled, and sets going what had to wait for that.
    fn settle(&mut self, answer: &Arc<Answer>) {
        self.note("accepted");
        self.remove();
        let (now, letter) = (self.now, Arc::clone(&self.delivery.letter));
        for event in &letter.events {
            let moved = matches!(event.state, Some(State::Paid | State::Refunded | State::ChargedBack));
            let id = self.delivery.id;
            let follower = self.follower(event).cloned();
            let transaction = self.transaction(event.transaction);
            transaction.final_state_seen |= moved;
            transaction.forget_expired(now);
            let retained = now.after(letter.policy.retention);
            let window_ends = now.after(letter.policy.collapse_window);
            if transaction.claim(event.identity).is_none() {
                transaction.claims.push(Claim {
                    identity: event.identity,
                    fate: Fate::Pending(id),
                    told: event.told,
                    // The one it was taken for came to nothing; from here on it stands for itself.
                    window: event.windowed.then(|| Box::new(Window { until: window_ends, next: None })),
                });
            }
            let Some(claim) = transaction.claim_mut(event.identity).filter(|claim| claim.is_pending_in(id)) else {
                continue;
            };
            let expires = claim.window.as_ref().map_or(retained, |window| window.until);
            claim.fate = Fate::Settled { answer: Arc::clone(answer), expires };
            if let Some(follower) = follower.filter(|next| next.phase == Phase::Held { until: Timestamp::NEVER }) {
                self.look_again(follower);
            }
        }
    }

    /// A follower whose window is over looks anew whether it may go.
    fn look_again(&mut self, follower: Delivery) {
        let phase = Phase::Held { until: self.now };
        if !self.out.deliveries.iter().any(|change| matches!(change, Change::Put(put) if put.id == follower.id)) {
            self.out.deliveries.push(Change::Put(Delivery { phase, ..follower }));
        }
    }

    fn failed(&mut self, ending: Ending) {
        let id = self.delivery.id;
        self.note(ending.as_str());
        self.out.locks.push(LockChange::Release(id));
        self.out.effects.push(Effect::Tell(id, ending));
        self.drop_followers();
        if !self.delivery.owed {
            // Shared with those who waited, and forgotten: the next redelivery gets a real try.
            self.forget();
        } else if self.attempted_enough() {
            self.out.effects.push(Effect::Alarm(id, "every try failed"));
            self.put(Phase::Review { since: self.now });
        } else {
            // A try that never got to the app counts too, or a dead app would be tried without end.
            self.delivery.attempts += u32::from(self.delivery.phase == Phase::Queued);
            let at = self.now.after(self.delivery.backoff());
            self.put(Phase::Retrying { at });
        }
    }

    fn attempted_enough(&self) -> bool {
        self.delivery.attempts >= self.delivery.letter.policy.retry.attempts
    }

    fn forget(&mut self) {
        let id = self.delivery.id;
        for event in &self.delivery.letter.clone().events {
            let claim = self.view.transaction(event.transaction).and_then(|t| t.claim(event.identity));
            if !claim.is_some_and(|claim| claim.is_pending_in(id)) {
                continue;
            }
            self.transaction(event.transaction).claims.retain(|claim| claim.identity != event.identity);
        }
        self.remove();
    }

    /// The delivery that is to follow this one when the window of `event` ends.
    fn follower(&self, event: &Carried) -> Option<&Delivery> {
        let claim = self.view.transaction(event.transaction)?.claim(event.identity)?;
        let next = claim.window.as_ref().filter(|_| claim.is_pending_in(self.delivery.id))?.next?;
        self.view.delivery(next)
    }

    /// All whom a follower stands for waited on this delivery and hear of its failure: theirs is the retry. One that
    /// follows others too finds out by itself whether anybody is left.
    fn drop_followers(&mut self) {
        for event in &self.delivery.letter.clone().events {
            if event.windowed && self.view.transaction(event.transaction).is_some() {
                // Written though it may stay as it is: whoever is about to follow what he saw in the app decides anew.
                self.transaction(event.transaction);
            }
            let Some(next) = self.follower(event).cloned() else { continue };
            if next.letter.events.len() == 1 {
                self.out.deliveries.push(Change::Remove(next.id, next.version));
            } else if next.phase == (Phase::Held { until: Timestamp::NEVER }) {
                self.look_again(next);
            }
            let claim = self.transaction(event.transaction).claim_mut(event.identity);
            if let Some(window) = claim.and_then(|claim| claim.window.as_mut()) {
                window.next = None;
            }
        }
    }

    fn unknown(&mut self, why: String, answer: Option<Arc<Answer>>) {
        let id = self.delivery.id;
        self.drop_followers();
        // The lease is not given back: the app may still be at work.
        self.out.effects.push(Effect::Tell(id, Ending::Unknown(why, answer)));
        self.put(Phase::Unknown { since: self.now });
    }

    fn quiet_over(&mut self) {
        let (id, letter) = (self.delivery.id, Arc::clone(&self.delivery.letter));
        if letter.policy.shadow {
            return self.forget();
        }
        match letter.policy.on_unknown {
            OnUnknown::Resend if !self.attempted_enough() => {
                self.out.locks.push(LockChange::Requeue(id, letter.claimed.clone()));
                self.put(Phase::Queued);
            }
            // What is resent without end may be what the app dies of.
            OnUnknown::Resend | OnUnknown::Review => {
                let change = match letter.policy.order {
                    Order::Passing => LockChange::Release(id),
                    Order::Strict => LockChange::Names(id),
                };
                self.out.locks.push(change);
                self.out.effects.push(Effect::Alarm(id, "it is unknown whether the app got it"));
                self.put(Phase::Review { since: self.now });
            }
        }
    }

    fn act(&mut self, act: Act) {
        let id = self.delivery.id;
        match act {
            Act::Resend => {
                self.note("resend");
                self.delivery.owed = true;
                self.out.locks.push(LockChange::Requeue(id, self.delivery.letter.claimed.clone()));
                self.put(Phase::Queued);
            }
            Act::Settle | Act::Discard => {
                self.note(if act == Act::Settle { "settle" } else { "discard" });
                let nothing = Answer { status: http::StatusCode::OK, content_type: None, body: None };
                self.out.locks.push(match self.delivery.phase {
                    // Whatever is decided about it, the app may still be at work on it.
                    Phase::Unknown { since } => LockChange::Keep(id, since.after(self.delivery.letter.policy.quiet)),
                    _ => LockChange::Release(id),
                });
                self.settle(&Arc::new(nothing));
            }
        }
    }
}

const OPEN: Window = Window { until: Timestamp::EPOCH, next: None };

fn queue(view: &View, delivery: &Delivery, out: &mut Transition) {
    let mut claimed = delivery.letter.claimed.clone();
    for name in &view.linked {
        if !claimed.names.contains(name) {
            claimed.names.push(*name);
        }
        // What is linked to the names of a single event is a name of that event.
        if delivery.letter.events.len() == 1 && !claimed.kinds.contains(&name.kind) {
            claimed.kinds.push(name.kind);
        }
    }
    out.locks.push(LockChange::Enqueue(delivery.id, claimed));
}

/// The transaction as it is being rewritten, starting from what is known.
fn writable<'t>(view: &View, written: &'t mut Vec<(Key, Transaction)>, key: Key) -> &'t mut Transaction {
    let at = written.iter().position(|(known, _)| *known == key).unwrap_or_else(|| {
        written.push((key, view.transaction(key).cloned().unwrap_or_default()));
        written.len() - 1
    });
    &mut written[at].1
}
