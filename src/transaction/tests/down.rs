//! An app that is down.

use super::*;

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
