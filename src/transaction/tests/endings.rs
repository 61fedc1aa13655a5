//! How tries end, and what is known after that.

use super::*;

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

#[test]
fn a_time_that_came_for_an_earlier_phase_says_nothing_of_this_one() {
    let mut gate = Gate::new(|policy| {
        (policy.hold, policy.quiet, policy.on_unknown) = (secs(1), secs(20), OnUnknown::Resend);
    });
    let (id, ..) = gate.comes(&numbered("e1"));
    assert_eq!(gate.tries(id, Input::Due), Err(Refused::OutOfTurn), "its hold is not over");
    // Whoever saw that the hold was over comes when the try has begun.
    gate.passes(secs(1)).does(id, Input::HoldOver).does(id, Input::Sending);
    assert_eq!(gate.tries(id, Input::Due), Err(Refused::OutOfTurn), "whoever sends it is there");
    assert!(matches!(gate.phase(id), Some(Phase::InFlight { .. })));
    gate.does(id, unknown(1)).passes(secs(19));
    assert_eq!(gate.tries(id, Input::Due), Err(Refused::OutOfTurn), "the app may be at work");
    gate.passes(secs(1)).does(id, Input::Due);
    assert_eq!(gate.phase(id), Some(Phase::Queued));
}
