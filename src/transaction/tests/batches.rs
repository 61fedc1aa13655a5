//! Several events in one callback, and what goes to the app in one commit.

use super::*;

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
