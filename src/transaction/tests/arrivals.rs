//! What comes: held, joined, repeated, new, stale, in conflict, or in shadow.

use super::*;

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
    gate.does(id, Input::HoldOver);
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
