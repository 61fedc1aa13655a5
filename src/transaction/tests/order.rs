//! What comes later does not overtake what is tried again.

use super::*;

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
