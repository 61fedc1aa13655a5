//! What people do, and what they are shown.

use super::*;

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
