//! What follows from what comes back about a delivery: `apply` takes what is known and what came, and says what shall be
//! known and done.
//!
//! Nothing moves before the transition is committed; effects come after. What can't be is refused, in every build.

use std::{mem, sync::Arc, time::Duration};

use super::{
    effect::{
        Act, Books, Change, Effect, Ending, Input, LEASE_MARGIN, LockChange, OPEN, Transition, View, queue, widened,
        writable,
    },
    history::{Deed, Line, Reason, What},
    lock::{Claimed, LeaseId},
    policy::Order,
    state::{Carried, Claim, Delivery, Fate, Phase, Transaction, Window},
};
use crate::{
    callback::{Answer, Key},
    time::Timestamp,
};

/// How long who asks once more may take, before another is sent.
const RECHECKED: Duration = Duration::from_secs(60);

/// How long after they were first asked the app's own books are asked again, if nobody could say; each time they are asked
/// after as long again.
const ASKED_AGAIN: Duration = Duration::from_secs(5);
/// Whoever can't say for so long has been asked often enough.
const ASKED_ENOUGH: Duration = Duration::from_secs(60);

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
    /// A person wants it sent again, and the app may still be at work on it.
    #[error("the app may still be at work on it: two at a time would be worse than to wait until `quiet` is over")]
    AtWork,
    /// A person wants it sent again, and it is not this entry that would be sent.
    #[error("it is here to be looked at: what it tells of goes its own way")]
    Elsewhere,
    /// A person acts on what he saw, and it is not so any more.
    #[error("it has changed since it was looked at: look again")]
    Changed,
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
        // Whoever saw that the time had come for something else comes late.
        (Input::Due, _) if delivery.due().is_none_or(|due| now < due) => return Err(Refused::OutOfTurn),
        (Input::Due, Phase::Held { .. }) => step.hold_over(),
        (Input::Due, Phase::Retrying { .. }) if !step.is_claimed() => step.overtaken(),
        (Input::Due, Phase::Retrying { .. }) => step.enqueue(),
        (Input::Due, Phase::Recheck { .. }) => step.recheck(),
        (Input::Due, Phase::Awaited { .. }) => step.seek(),
        (Input::Due, Phase::InFlight { .. }) => step.unknown("whoever sent it is gone".to_owned(), None),
        (Input::Due, Phase::Unknown { .. }) => step.quiet_over(),
        (Input::Due, Phase::Confirming { since, .. }) => step.ask_the_books(since),
        (Input::Due, Phase::Queued | Phase::Review { .. }) => return Err(Refused::OutOfTurn),
        (Input::Owe, Phase::Held { .. } | Phase::Queued | Phase::InFlight { .. }) if !delivery.letter.policy.shadow => {
            step.owe();
        }
        (Input::Owe, _) => return Err(Refused::OutOfTurn),
        (Input::PutOff { until, .. }, Phase::Retrying { .. }) => step.put_off(until),
        (Input::PutOff { until, why }, Phase::Queued) if delivery.owed => {
            step.out.locks.push(LockChange::Release(id));
            step.out.effects.push(Effect::Tell(id, Ending::NotSent(why.into_owned())));
            step.note(&What::Moved(Phase::Retrying { at: until }));
            step.put_off(until);
        }
        // Its sender keeps it.
        (Input::PutOff { why, .. }, Phase::Queued) => step.failed(Ending::NotSent(why.into_owned())),
        (Input::PutOff { .. }, _) => return Err(Refused::OutOfTurn),
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
        // Whoever was told success after that try may have told of something else, for which this delivery stands too.
        (Input::Ended { .. }, Phase::Queued | Phase::Review { .. }) if delivery.owed && delivery.tells_nothing() => {
            return Err(Refused::Fenced);
        }
        // The sender was taken for dead and was not: its outcome is still the truth about this try, as long as no other
        // was begun, whatever was decided meanwhile.
        (
            Input::Ended { ending: Ending::Accepted(answer), .. },
            Phase::Unknown { .. }
            | Phase::Confirming { .. }
            | Phase::Queued
            | Phase::Review { reason: Reason::Unknown, .. },
        ) if delivery.attempts > 0 => step.accepted(&answer),
        (Input::Ended { .. }, _) => return Err(Refused::Fenced),
        // Who was asked before the last try knows nothing of that.
        (Input::Confirmed { attempt, .. }, _) if attempt != delivery.attempts => return Err(Refused::Fenced),
        (Input::Confirmed { books, .. }, Phase::Confirming { since, .. }) => step.confirmed(books, since),
        (Input::Confirmed { .. }, _) => return Err(Refused::OutOfTurn),
        (Input::Act(Act { seen: Some(seen), .. }), _) if seen != delivery.version => return Err(Refused::Changed),
        (Input::Act(Act { deed: Deed::Resend, .. }), Phase::Unknown { .. }) => return Err(Refused::AtWork),
        // The one was forwarded, and the other's sender keeps it: two would come.
        (
            Input::Act(Act { deed: Deed::Resend, .. }),
            Phase::Review { reason: Reason::Conflict | Reason::SecondPayment | Reason::Overflow, .. },
        ) => return Err(Refused::Elsewhere),
        (
            Input::Act(act),
            Phase::Unknown { .. } | Phase::Confirming { .. } | Phase::Review { .. } | Phase::Retrying { .. },
        ) => step.act(&act),
        (Input::Act(_), _) => return Err(Refused::OutOfTurn),
    }
    Ok(step.out)
}

/// Whether this arrival would queue for a lease and nothing else: with the lease and a connection at hand it can go at once.
#[must_use]
pub fn may_go_at_once(transition: &Transition, id: LeaseId) -> bool {
    let is_new = |change: &Change| matches!(change, Change::Put(Delivery { id: put, version: 0, phase: Phase::Queued, .. }) if *put == id);
    transition.deliveries.iter().any(is_new)
}

/// Lets an arrival that [`may_go_at_once`] go: what it would have come to by being granted the lease and [`Input::Sending`],
/// in one commit.
pub fn go_at_once(transition: &mut Transition, id: LeaseId, now: Timestamp) {
    for change in &mut transition.locks {
        if let LockChange::Enqueue(lease, claimed) = change
            && *lease == id
        {
            let (names, kinds) = (mem::take(&mut claimed.names), mem::take(&mut claimed.kinds));
            *change = LockChange::Seize(id, Claimed { names, kinds, ..*claimed });
        }
    }
    let put = transition.deliveries.iter_mut().find_map(|change| match change {
        Change::Put(delivery) if delivery.id == id => Some(delivery),
        _ => None,
    });
    let Some(delivery) = put else { return };
    let policy = &delivery.letter.policy;
    let phase = Phase::InFlight { lease_until: now.after(policy.timeout + LEASE_MARGIN) };
    let window_ends = now.after(policy.collapse_window);
    (delivery.phase, delivery.attempts) = (phase, 1);
    transition.history.extend(delivery.lines(&What::Moved(phase), now));
    let claims = transition.transactions.iter_mut().flat_map(|(_, transaction)| &mut transaction.claims);
    for claim in claims.filter(|claim| claim.is_pending_in(id)) {
        if let Some(window) = claim.window.as_mut() {
            window.until = window_ends;
        }
    }
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
        self.note(&What::Moved(phase));
        self.out.deliveries.push(Change::Put(self.delivery.clone()));
    }

    fn remove(&mut self) {
        self.out.deliveries.push(Change::Remove(self.delivery.id, self.delivery.version));
    }

    /// A line in the history of each transaction that it carries something of.
    fn note(&mut self, what: &What) {
        self.out.history.extend(self.delivery.lines(what, self.now));
    }

    fn transaction(&mut self, key: Key) -> &mut Transaction {
        writable(self.view, &mut self.out.transactions, key)
    }

    fn enqueue(&mut self) {
        if self.has_to_wait() {
            return self.wait_for_earlier();
        }
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
            // All whom it stood for have heard of a failure, or the app has it.
            return self.overtaken();
        }
        for (transaction, identity, _) in predecessors {
            if let Some(claim) = self.transaction(transaction).claim_mut(identity) {
                *claim = Claim { fate: Fate::Pending(id), window: Some(Box::new(OPEN)), ..claim.clone() };
            }
        }
        self.enqueue();
    }

    /// Whether an earlier event of its payment is being tried again.
    fn has_to_wait(&self) -> bool {
        let claims = |event: &&Carried| {
            let claim = self.view.transaction(event.transaction).and_then(|t| t.claim(event.identity));
            claim.is_some_and(|claim| claim.is_pending_in(self.delivery.id))
        };
        let new = || self.delivery.letter.events.iter().filter(claims).map(|event| event.transaction);
        self.view.deliveries.iter().any(|earlier| self.delivery.comes_after(earlier, new()))
    }

    /// It goes on when that one has come to its end. It holds no lease meanwhile, so that it is in no payer's way.
    fn wait_for_earlier(&mut self) {
        self.touch();
        self.put(Phase::Held { until: Timestamp::NEVER });
    }

    /// Writes its transactions though they may stay as they are: whoever waits on what he saw of them decides anew.
    fn touch(&mut self) {
        for transaction in Arc::clone(&self.delivery.letter).transactions() {
            self.transaction(transaction);
        }
    }

    /// Whatever waits for it, or for what ends with it, looks anew whether it may go.
    fn let_later_ones_go(&mut self) {
        self.touch();
        let waits = |other: &&Delivery| {
            other.id != self.delivery.id
                && other.phase == (Phase::Held { until: Timestamp::NEVER })
                && other.letter.shares_a_transaction(&self.delivery.letter)
        };
        let waiting: Vec<Delivery> = self.view.deliveries.iter().filter(waits).cloned().collect();
        waiting.into_iter().for_each(|later| self.look_again(later));
    }

    /// It waits without using up a try, nor a line of history each time: an app may be down for hours.
    fn put_off(&mut self, until: Timestamp) {
        let spread = self.delivery.spread(until.since(self.now));
        self.delivery.phase = Phase::Retrying { at: until.after(spread) };
        self.out.deliveries.push(Change::Put(self.delivery.clone()));
    }

    /// Somebody is about to be told success on its account.
    fn owe(&mut self) {
        if !self.delivery.owed {
            self.delivery.owed = true;
            self.note(&What::Acknowledged);
        }
        // Written though it may stay as it is, so that whoever tells it waits until it is durable.
        self.out.deliveries.push(Change::Put(self.delivery.clone()));
    }

    /// Sets going who asks. Whatever becomes of him, its time comes again.
    fn recheck(&mut self) {
        self.delivery.attempts += 1;
        self.delivery.phase = Phase::Recheck { at: self.now.after(RECHECKED) };
        self.out.deliveries.push(Change::Put(self.delivery.clone()));
        self.out.effects.push(Effect::Ask(self.delivery.id));
    }

    /// The same of a payment of which nobody has called: each time it is as old again.
    fn seek(&mut self) {
        self.delivery.attempts += 1;
        let age = self.now.since(self.delivery.letter.arrived);
        self.delivery.phase = Phase::Awaited { at: self.now.after(age.max(RECHECKED)) };
        self.out.deliveries.push(Change::Put(self.delivery.clone()));
        self.out.effects.push(Effect::Ask(self.delivery.id));
    }

    fn sending(&mut self) {
        if self.view.late {
            // It is in the way of some of whom nobody knew when it was queued: so it queues again, under all its names.
            self.out.locks.push(LockChange::Requeue(self.delivery.id, widened(self.view, &self.delivery)));
            return self.put(Phase::Queued);
        }
        if self.has_to_wait() {
            self.out.locks.push(LockChange::Release(self.delivery.id));
            return self.wait_for_earlier();
        }
        let policy = Arc::clone(&self.delivery.letter.policy);
        if self.delivery.attempts > 0 {
            // What they stand for came before this try, which tells the app of it.
            self.drop_followers();
        }
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
        let accepted = Ending::Accepted(Arc::clone(answer));
        self.note(&Line::ended(&accepted));
        self.settle(answer);
        let (id, linger) = (self.delivery.id, self.delivery.letter.policy.linger);
        // What is known late may be queued for another try, which must not come.
        let change = if linger.is_zero() || self.delivery.phase == Phase::Queued {
            LockChange::Release(id)
        } else {
            LockChange::Linger(id, self.now.after(linger))
        };
        self.out.locks.push(change);
        self.out.effects.push(Effect::Tell(id, accepted));
    }

    /// Remembers every event it carried as settled, and sets going what had to wait for that.
    fn settle(&mut self, answer: &Arc<Answer>) {
        self.remove();
        let (now, view, letter) = (self.now, self.view, Arc::clone(&self.delivery.letter));
        for event in &letter.events {
            let id = self.delivery.id;
            let follower = self.follower(event).cloned();
            let transaction = self.transaction(event.transaction);
            let known = transaction.claim(event.identity);
            // What goes along was told before, and has had its place in what came since.
            let news = known.is_none_or(|claim| matches!(claim.fate, Fate::Pending(_)));
            if let Some(told) = event.money().filter(|_| news) {
                transaction.money = transaction.money.and(told);
            }
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
                    rode: None,
                });
            }
            let Some(claim) = transaction.claim_mut(event.identity) else { continue };
            let Fate::Pending(own) = claim.fate else { continue };
            if own != id {
                // What rode along is on its way in another delivery too; but the app has it now, whatever becomes of that one.
                if event.windowed || claim.told != event.told {
                    continue;
                }
                let tells_all = |delivery: &Delivery| delivery.letter.events.iter().all(|event| !event.windowed);
                if !view.delivery(own).is_none_or(tells_all) {
                    // It may bring news of something else, and goes on for that.
                    claim.rode = Some(Arc::clone(answer));
                    continue;
                }
            }
            let expires = claim.window.as_ref().map_or(retained, |window| window.until);
            (claim.fate, claim.rode) = (Fate::Settled { answer: Arc::clone(answer), expires }, None);
            if let Some(follower) = follower.filter(|next| next.phase == Phase::Held { until: Timestamp::NEVER }) {
                self.look_again(follower);
            }
        }
        self.end_the_overtaken(answer);
        self.let_later_ones_go();
    }

    /// What waits and brings nothing any more, for all of it has been accepted with this delivery, need not go.
    fn end_the_overtaken(&mut self, answer: &Arc<Answer>) {
        let waits = |phase| matches!(phase, Phase::Held { .. } | Phase::Queued | Phase::Retrying { .. });
        for other in self.view.deliveries.iter().filter(|other| other.id != self.delivery.id && waits(other.phase)) {
            let is_settled = |event: &Carried| {
                let written = self.out.transactions.iter().find(|(key, _)| *key == event.transaction);
                let claim = written.and_then(|(_, transaction)| transaction.claim(event.identity));
                !event.windowed && claim.is_some_and(|claim| matches!(claim.fate, Fate::Settled { .. }))
            };
            if other.letter.events.is_empty() || !other.letter.events.iter().all(is_settled) {
                continue;
            }
            let dropped = |event: &Carried| Line {
                at: self.now,
                transaction: event.transaction,
                delivery: Some(other.id),
                attempt: other.attempts,
                what: What::Dropped,
            };
            self.out.history.extend(other.letter.events.first().map(dropped));
            self.out.deliveries.push(Change::Remove(other.id, other.version));
            self.out.locks.push(LockChange::Release(other.id));
            self.out.effects.push(Effect::Tell(other.id, Ending::Accepted(Arc::clone(answer))));
        }
    }

    /// One that waits for another looks anew whether it may go.
    fn look_again(&mut self, follower: Delivery) {
        let phase = Phase::Held { until: self.now };
        let is_its = |change: &Change| match change {
            Change::Put(put) => put.id == follower.id,
            Change::Remove(id, _) => *id == follower.id,
        };
        if !self.out.deliveries.iter().any(is_its) {
            self.out.deliveries.push(Change::Put(Delivery { phase, ..follower }));
        }
    }

    fn failed(&mut self, ending: Ending) {
        let id = self.delivery.id;
        self.note(&Line::ended(&ending));
        let shown = self.delivery.owed && self.attempted_enough();
        self.out.locks.push(if shown { self.for_good() } else { LockChange::Release(id) });
        self.out.effects.push(Effect::Tell(id, ending));
        self.drop_followers();
        if !self.delivery.owed {
            // Shared with those who waited, and forgotten: the next redelivery gets a real try.
            self.forget();
        } else if shown {
            self.for_review(Reason::Exhausted);
        } else {
            // A try that never got to the app counts too, or a dead app would be tried without end.
            self.delivery.attempts += u32::from(self.delivery.phase == Phase::Queued);
            let at = self.now.after(self.delivery.backoff());
            self.put(Phase::Retrying { at });
        }
    }

    /// What becomes of its lease when it waits for a person.
    fn for_good(&self) -> LockChange {
        match self.delivery.letter.policy.order {
            Order::Passing => LockChange::Release(self.delivery.id),
            Order::Strict => LockChange::Names(self.delivery.id),
        }
    }

    fn for_review(&mut self, reason: Reason) {
        self.let_later_ones_go();
        self.out.effects.push(Effect::Alarm(self.delivery.id, reason.told()));
        self.put(Phase::Review { since: self.now, reason });
    }

    fn attempted_enough(&self) -> bool {
        self.delivery.attempts >= self.delivery.letter.policy.retry.attempts
    }

    fn forget(&mut self) {
        let id = self.delivery.id;
        for event in &self.delivery.letter.clone().events {
            let claim = self.view.transaction(event.transaction).and_then(|t| t.claim(event.identity));
            let Some(claim) = claim.filter(|claim| claim.is_pending_in(id)) else { continue };
            let rode = claim.rode.clone();
            let expires = self.now.after(self.delivery.letter.policy.retention);
            let transaction = self.transaction(event.transaction);
            match (transaction.claim_mut(event.identity), rode) {
                (Some(claim), Some(answer)) => (claim.fate, claim.rode) = (Fate::Settled { answer, expires }, None),
                _ => transaction.claims.retain(|claim| claim.identity != event.identity),
            }
        }
        self.let_later_ones_go();
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
        if !self.delivery.owed {
            self.drop_followers();
        }
        // Else somebody may have been told success on the strength of one that follows: it goes with the next try, or to
        // the person.
        let unknown = Ending::Unknown(why, answer);
        self.note(&Line::ended(&unknown));
        // The lease is not given back: the app may still be at work.
        self.out.effects.push(Effect::Tell(id, unknown));
        self.put(Phase::Unknown { since: self.now });
    }

    fn quiet_over(&mut self) {
        let (id, letter) = (self.delivery.id, Arc::clone(&self.delivery.letter));
        if letter.policy.shadow {
            return self.forget();
        }
        if !self.is_claimed() {
            return self.overtaken();
        }
        if letter.policy.on_unknown.confirms() && self.can_be_confirmed() {
            // The app has stopped working on it, so that nobody but its own payment need be kept out any longer.
            self.out.locks.push(LockChange::Names(id));
            self.out.effects.push(Effect::Ask(id));
            return self.put(Phase::Confirming { since: self.now, at: self.now.after(ASKED_AGAIN) });
        }
        self.try_again_or_show(letter.policy.on_unknown.resends());
    }

    /// Whether the app's own books can say that it got there. Of who was told before that he is paid they say nothing new.
    fn can_be_confirmed(&self) -> bool {
        let is_paid = |event: &Carried| self.view.transaction(event.transaction).is_some_and(|known| known.money.paid);
        self.delivery.can_be_confirmed() && !self.delivery.letter.events.iter().any(is_paid)
    }

    fn try_again_or_show(&mut self, again: bool) {
        // What is resent without end may be what the app dies of.
        if again && !self.attempted_enough() {
            self.out.locks.push(LockChange::Requeue(self.delivery.id, widened(self.view, &self.delivery)));
            self.put(Phase::Queued);
        } else {
            self.out.locks.push(self.for_good());
            self.drop_followers();
            self.for_review(Reason::Unknown);
        }
    }

    /// Sets going who asks the app's own books. Whatever becomes of him, its time comes again.
    fn ask_the_books(&mut self, since: Timestamp) {
        let at = self.now.after(self.now.since(since).max(ASKED_AGAIN));
        self.delivery.phase = Phase::Confirming { since, at };
        self.out.deliveries.push(Change::Put(self.delivery.clone()));
        self.out.effects.push(Effect::Ask(self.delivery.id));
    }

    fn confirmed(&mut self, books: Books, since: Timestamp) {
        if !self.is_claimed() {
            return self.overtaken();
        }
        // It may have been told by another meanwhile.
        match if self.can_be_confirmed() { books } else { Books::Closed } {
            Books::Booked(answer) => {
                let id = self.delivery.id;
                self.note(&What::Confirmed(Some(true)));
                self.out.locks.push(LockChange::Release(id));
                self.settle(&answer);
                self.out.effects.push(Effect::Tell(id, Ending::Accepted(answer)));
            }
            Books::NotBooked => {
                self.note(&What::Confirmed(Some(false)));
                self.try_again_or_show(true);
            }
            // Its time comes again, unless the whole upstream would wait for that.
            Books::Silent if self.now.since(since) < ASKED_ENOUGH && !self.delivery.letter.claimed.is_exclusive() => {}
            Books::Silent | Books::Closed => {
                self.note(&What::Confirmed(None));
                self.try_again_or_show(self.delivery.letter.policy.on_unknown.resends());
            }
        }
    }

    /// Nobody needs it any more. Where the app has accepted it meanwhile, piece by piece with others, whoever still waits
    /// hears what the app said then.
    fn overtaken(&mut self) {
        let id = self.delivery.id;
        self.note(&What::Dropped);
        self.out.locks.push(LockChange::Release(id));
        let answer = |event: &Carried| match &self.view.transaction(event.transaction)?.claim(event.identity)?.fate {
            Fate::Settled { answer, .. } => Some(Arc::clone(answer)),
            Fate::Pending(_) => None,
        };
        if let Some(answer) = self.delivery.letter.events.iter().find_map(answer) {
            self.out.effects.push(Effect::Tell(id, Ending::Accepted(answer)));
        }
        self.let_later_ones_go();
        self.remove();
    }

    fn act(&mut self, Act { deed, who, why, answer, .. }: &Act) {
        let id = self.delivery.id;
        self.note(&What::Acted { deed: *deed, who: Arc::clone(who), why: Arc::clone(why) });
        match deed {
            Deed::Resend => {
                self.delivery.owed = true;
                self.out.locks.push(LockChange::Requeue(id, widened(self.view, &self.delivery)));
                self.put(Phase::Queued);
            }
            // What it tells of goes its own way, and is not at its end because somebody has seen it.
            Deed::Settle if self.is_to_be_looked_at() => self.forget(),
            Deed::Settle => {
                self.leave();
                self.settle(answer);
                self.out.effects.push(Effect::Tell(id, Ending::Accepted(Arc::clone(answer))));
            }
            Deed::Discard => {
                self.leave();
                self.drop_followers();
                self.forget();
                let told = format!("{who} has discarded it");
                self.out.effects.push(Effect::Tell(id, Ending::Unknown(told, None)));
            }
        }
    }

    /// Whether it is there for a person to see and claims nothing, for what it carries went to the app by another way.
    const fn is_to_be_looked_at(&self) -> bool {
        matches!(self.delivery.phase, Phase::Review { reason: Reason::Conflict | Reason::SecondPayment, .. })
    }

    /// Gives the lease back; but whatever is decided about it, the app may still be at work on it.
    fn leave(&mut self) {
        let id = self.delivery.id;
        self.out.locks.push(match self.delivery.phase {
            Phase::Unknown { since } => LockChange::Keep(id, since.after(self.delivery.letter.policy.quiet)),
            _ => LockChange::Release(id),
        });
    }
}
