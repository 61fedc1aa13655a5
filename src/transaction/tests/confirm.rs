//! What is unknown, and of which the app's own books are asked: settled, sent again, or shown to a person.

use super::*;
use crate::{callback::Step, transaction::effect::Books};

fn paid(id: &str) -> Event {
    Event { state: Some(State::Paid), ..numbered(id) }
}

fn confirmed(attempt: u32, books: Books) -> Input {
    Input::Confirmed { attempt, books }
}

fn booked(attempt: u32) -> Input {
    confirmed(attempt, Books::Booked(answer(202)))
}

/// A gate at which nobody knows what came of this event, and the app has been quiet for long enough.
fn unclear(choice: OnUnknown, event: &Event, change: impl FnOnce(&mut Policy)) -> (Gate, LeaseId) {
    let mut gate = Gate::new(|policy| {
        policy.on_unknown = choice;
        change(policy);
    });
    let (id, ..) = gate.comes(event);
    gate.does(id, Input::Sending).does(id, unknown(1)).passes(secs(60)).does(id, Input::Due);
    (gate, id)
}

fn confirming() -> (Gate, LeaseId) {
    unclear(OnUnknown::Confirm, &paid("e1"), |_| ())
}

#[test]
fn after_quiet_the_books_are_asked_and_the_payment_alone_is_kept_clear_of() {
    let (gate, id) = confirming();
    assert!(matches!(gate.phase(id), Some(Phase::Confirming { since, .. }) if since == gate.now));
    assert_eq!((gate.told(), &gate.last.locks[..]), (vec!["ask"], &[LockChange::Names(id)][..]));
}

#[test]
fn what_the_books_have_is_settled_and_a_duplicate_hears_the_acknowledgement() {
    let (mut gate, id) = confirming();
    gate.does(id, booked(1));
    assert_eq!((gate.told(), gate.phase(id)), (vec!["accepted"], None));
    assert_eq!(gate.last.locks, [LockChange::Release(id)]);
    assert!(gate.last.history.iter().any(|line| line.what == What::Confirmed(Some(true))));
    let (_, decision, course) = gate.comes(&paid("e1"));
    assert_eq!((decision, course), (Decision::Replayed, Course::Replay(answer(202))));
    let stage = gate.view.transactions[0].1.money.stage;
    assert_eq!(stage, crate::transaction::money::Stage::Paid, "as the app has been told");
}

#[test]
fn what_the_books_have_not_is_sent_again_as_often_as_may_be() {
    for choice in [OnUnknown::Confirm, OnUnknown::ConfirmElseResend] {
        let (mut gate, id) = unclear(choice, &paid("e1"), |_| ());
        for attempt in 1..3 {
            gate.does(id, confirmed(attempt, Books::NotBooked));
            assert!(matches!(gate.last.locks[..], [LockChange::Requeue(..)]));
            gate.does(id, Input::Sending).does(id, unknown(attempt + 1)).passes(secs(60)).does(id, Input::Due);
            assert_eq!(gate.told(), ["ask"], "it is asked about each try");
        }
        gate.does(id, confirmed(3, Books::NotBooked));
        assert!(
            matches!(gate.phase(id), Some(Phase::Review { reason: Reason::Unknown, .. })),
            "the third was the last"
        );
        assert_eq!((gate.told(), &gate.last.locks[..]), (vec!["alarm"], &[LockChange::Release(id)][..]));
    }
}

#[test]
fn who_cannot_say_is_asked_again_for_a_while_and_then_the_policy_says_what_follows() {
    for (choice, expected) in [(OnUnknown::Confirm, "review"), (OnUnknown::ConfirmElseResend, "queued")] {
        let (mut gate, id) = unclear(choice, &paid("e1"), |_| ());
        let began = gate.now;
        let mut asked = vec![0];
        while let Some(Phase::Confirming { .. }) = gate.phase(id) {
            gate.does(id, confirmed(1, Books::Silent));
            let Some(Phase::Confirming { at, .. }) = gate.phase(id) else { break };
            gate.now = at;
            gate.does(id, Input::Due);
            assert_eq!(gate.told(), ["ask"]);
            asked.push(gate.now.since(began).as_secs());
        }
        assert_eq!(asked, [0, 5, 10, 20, 40, 80]);
        assert_eq!(gate.phase(id).map(Phase::as_str), Some(expected));
        assert!(gate.last.history.iter().any(|line| line.what == What::Confirmed(None)));
        // Where there is nobody to ask nothing is waited for.
        let (mut gate, id) = unclear(choice, &paid("e1"), |_| ());
        gate.does(id, confirmed(1, Books::Closed));
        assert_eq!(gate.phase(id).map(Phase::as_str), Some(expected));
    }
}

#[test]
fn whoever_never_answers_is_asked_again_all_the_same() {
    let (mut gate, id) = confirming();
    for _ in 0..5 {
        gate.now = gate.view.delivery(id).unwrap().due().unwrap();
        gate.does(id, Input::Due);
        assert_eq!(gate.told(), ["ask"]);
    }
    gate.does(id, booked(1));
    assert_eq!(gate.phase(id), None);
}

#[test]
fn only_that_payments_were_made_can_be_confirmed() {
    let refund = Event { state: Some(State::Refunded), ..numbered("e2") };
    let order = Event { step: Some(Step::Order), ..paid("e2") };
    let nothing = numbered("e2");
    let windowed = Event { state: Some(State::Paid), ..bare() };
    for other in [refund, order, nothing, windowed] {
        for batch in [vec![other.clone()], vec![paid("e1"), other.clone()]] {
            let mut gate = Gate::new(|policy| policy.on_unknown = OnUnknown::Confirm);
            let (id, _) = gate.arrives(&batch);
            gate.does(id, Input::Sending).does(id, unknown(1)).passes(secs(60)).does(id, Input::Due);
            assert_eq!(gate.phase(id).map(Phase::as_str), Some("review"), "{batch:?}");
        }
    }
    let mut gate = Gate::new(|policy| policy.on_unknown = OnUnknown::Confirm);
    let (id, _) = gate.arrives(&[paid("e1"), Event { reference: "tr_2".into(), ..paid("e2") }]);
    gate.does(id, Input::Sending).does(id, unknown(1)).passes(secs(60)).does(id, Input::Due);
    assert_eq!(gate.phase(id).map(Phase::as_str), Some("confirming"), "two payments, if the books have both");
}

#[test]
fn what_is_told_of_a_payment_that_the_app_knows_is_no_news_to_the_books() {
    for choice in [OnUnknown::Confirm, OnUnknown::ConfirmElseResend] {
        let mut gate = Gate::new(|policy| policy.on_unknown = choice);
        let (first, ..) = gate.comes(&paid("e1"));
        gate.does(first, Input::Sending).does(first, accepted(1)).passes(secs(60));
        let (id, ..) = gate.comes(&paid("e2"));
        gate.does(id, Input::Sending).does(id, unknown(1)).passes(secs(60)).does(id, Input::Due);
        let follows = if choice == OnUnknown::Confirm { "review" } else { "queued" };
        assert_eq!(gate.phase(id).map(Phase::as_str), Some(follows), "the refund may have failed, and the money stays");
    }
    // It was told by another while the books were asked.
    let (mut gate, id) = confirming();
    for (_, transaction) in &mut gate.view.transactions {
        transaction.money.paid = true;
    }
    gate.does(id, booked(1));
    assert_eq!(gate.phase(id).map(Phase::as_str), Some("review"));
}

#[test]
fn who_has_the_whole_upstream_does_not_keep_it_for_a_database_that_is_down() {
    let (mut gate, id) = unclear(OnUnknown::Confirm, &paid("e1"), |policy| policy.lock = LockBy::Upstream);
    gate.does(id, confirmed(1, Books::Silent));
    assert_eq!(gate.phase(id).map(Phase::as_str), Some("review"));
}

#[test]
fn who_was_asked_about_an_earlier_try_says_nothing_of_the_present_one() {
    let (mut gate, id) = confirming();
    gate.does(id, confirmed(1, Books::NotBooked));
    assert_eq!(gate.tries(id, confirmed(1, Books::NotBooked)), Err(Refused::OutOfTurn), "it is on its way again");
    gate.does(id, Input::Sending).does(id, unknown(2)).passes(secs(60)).does(id, Input::Due);
    for late in [booked(1), confirmed(1, Books::NotBooked), confirmed(1, Books::Closed)] {
        assert_eq!(gate.tries(id, late), Err(Refused::Fenced));
    }
    assert_eq!(gate.phase(id).map(Phase::as_str), Some("confirming"));
}

#[test]
fn nobody_is_asked_before_the_app_is_quiet() {
    let mut gate = Gate::new(|policy| policy.on_unknown = OnUnknown::Confirm);
    let (id, ..) = gate.comes(&paid("e1"));
    gate.does(id, Input::Sending).does(id, unknown(1));
    assert_eq!(gate.told(), ["unknown"]);
    assert_eq!(gate.tries(id, confirmed(1, Books::NotBooked)), Err(Refused::OutOfTurn));
}

#[test]
fn an_outcome_that_comes_late_and_a_person_are_faster_than_the_books() {
    let (mut gate, id) = confirming();
    gate.does(id, accepted(1));
    assert_eq!((gate.told(), gate.phase(id)), (vec!["accepted"], None));
    assert_eq!(gate.tries(id, booked(1)), Err(Refused::Gone));
    for (deed, expected) in [(Deed::Resend, Some("queued")), (Deed::Settle, None), (Deed::Discard, None)] {
        let (mut gate, id) = confirming();
        gate.does(id, act(deed));
        assert_eq!(gate.phase(id).map(Phase::as_str), expected);
    }
}

#[test]
fn who_brings_it_again_meanwhile_hears_what_he_would_hear_of_an_unknown() {
    let (mut gate, _) = confirming();
    assert_eq!(gate.comes(&paid("e1")).2, Course::Retryable);
    let accept = |policy: &mut Policy| policy.answer = AnswerBy::Accept;
    let (mut gate, id) = unclear(OnUnknown::Confirm, &paid("e1"), accept);
    assert!(gate.view.delivery(id).unwrap().owed);
    assert_eq!(gate.comes(&paid("e1")).2, Course::Ack);
}

#[test]
fn what_another_has_brought_meanwhile_needs_no_confirmation() {
    for books in [Books::Booked(answer(202)), Books::NotBooked, Books::Closed] {
        let (mut gate, id) = confirming();
        for (_, transaction) in &mut gate.view.transactions {
            transaction.claims.clear();
        }
        gate.does(id, confirmed(1, books));
        assert_eq!(gate.phase(id), None);
        assert_eq!(gate.last.locks, [LockChange::Release(id)]);
    }
}
