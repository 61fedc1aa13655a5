//! What somebody was told success for before the app had it.

use super::*;

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
    for (phase, next) in [("held", Some(Input::HoldOver)), ("queued", Some(Input::Sending)), ("in flight", None)] {
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
