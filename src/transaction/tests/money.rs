//! What the app has been told of money: what is too old to be told, and what has been paid twice.

use std::collections::BTreeSet;

use super::*;
use crate::{
    callback::{Alias, Step},
    transaction::money::{LateMove, Money, Stage, Told},
};

fn says(id: &str, state: State) -> Event {
    Event { state: Some(state), ..numbered(id) }
}

fn step(id: &str, state: State, step: Step) -> Event {
    Event { step: Some(step), ..says(id, state) }
}

/// A payment, by a reference of its own, of this order.
fn pays(reference: &str, order: &str) -> Event {
    let alias = Alias { kind: "order".into(), value: order.into() };
    Event { state: Some(State::Paid), aliases: vec![alias], ..of(reference, &format!("{reference} paid")) }
}

const FORWARD: Moves = Moves::Documented(&[]);

/// The decision on each of these, one after the other; what goes to the app is accepted.
fn decided(moves: Moves, events: &[Event]) -> Vec<Decision> {
    let mut gate = Gate::new(|_| ());
    gate.moves = moves;
    events.iter().map(|event| brought(&mut gate, event)).collect()
}

fn brought(gate: &mut Gate, event: &Event) -> Decision {
    let (id, decision, course) = gate.comes(event);
    if matches!(course, Course::Deliver(_) | Course::Accept(_)) {
        gate.does(id, Input::Sending).does(id, accepted(1));
    }
    decision
}

fn verified() -> Gate {
    let mut gate = Gate::new(|_| ());
    gate.verified = true;
    gate
}

// ------------------------------------------------------------------------------------------------ what is stale

#[test]
fn a_failure_that_comes_after_the_money_is_stale_where_the_manual_knows_no_such_move() {
    let events = [says("e1", State::Paid), says("e2", State::Failed)];
    assert_eq!(decided(FORWARD, &events)[1], Decision::Stale);
    assert_eq!(decided(Moves::Undocumented, &events)[1], Decision::NewState, "where in doubt it is forwarded");
    static LATE: [LateMove; 1] = [LateMove { after: State::Paid, comes: State::Failed, source: "the manual" }];
    assert_eq!(decided(Moves::Documented(&LATE), &events)[1], Decision::NewState);
}

#[test]
fn what_is_under_way_is_stale_after_an_end_that_the_manual_takes_for_one() {
    for end in [State::Failed, State::Cancelled] {
        let events = [says("e1", end), says("e2", State::Pending)];
        assert_eq!(decided(FORWARD, &events)[1], Decision::Stale);
        assert_eq!(decided(Moves::Undocumented, &events)[1], Decision::NewState);
        let paid = [says("e1", end), says("e2", State::Paid)];
        assert_eq!(decided(FORWARD, &paid)[1], Decision::NewState, "money is never too late");
    }
}

#[test]
fn a_payment_whose_refund_came_first_is_not_too_old_to_be_told() {
    for late in [step("e1", State::Refunded, Step::Whole), says("e1", State::ChargedBack)] {
        let events = [late, says("e2", State::Paid), says("e3", State::Paid), says("e4", State::Pending)];
        let expected = [Decision::First, Decision::NewState, Decision::Stale, Decision::Stale];
        assert_eq!(decided(FORWARD, &events), expected);
    }
}

#[test]
fn what_is_paid_again_after_a_part_went_back_is_not_stale() {
    for given_back in [step("e2", State::Refunded, Step::Part), says("e2", State::Refunded)] {
        let events = [says("e1", State::Paid), given_back, says("e3", State::Paid)];
        assert_eq!(decided(FORWARD, &events)[2], Decision::NewState);
    }
}

#[test]
fn two_equal_refunds_with_ids_of_their_own_are_two_events() {
    let refund = |id| Event { amount: Some("10.00".into()), ..step(id, State::Refunded, Step::Part) };
    let events = [says("e1", State::Paid), refund("re1"), refund("re2"), refund("re1")];
    let expected = [Decision::First, Decision::NewState, Decision::NewState, Decision::Replayed];
    assert_eq!(decided(FORWARD, &events), expected);
}

#[test]
fn of_money_that_is_told_too_late_a_person_hears_and_its_sender_hears_success() {
    let mut gate = Gate::new(|_| ());
    gate.moves = FORWARD;
    gate.settled(&says("e1", State::Paid));
    gate.settled(&step("e2", State::Refunded, Step::Whole));
    let late = says("e3", State::Paid);
    let (id, decision, course) = gate.comes(&late);
    assert_eq!((decision, course), (Decision::Stale, Course::Ack));
    assert!(matches!(gate.phase(id), Some(Phase::Review { reason: Reason::Stale, .. })));
    assert_eq!(gate.told(), ["alarm"]);
    assert!(gate.last.keeps() && gate.last.waits(Durable::Claim), "success is told once a person has it");
    assert_eq!(gate.comes(&late).2, Course::Ack, "kept once");
    assert_eq!(gate.view.deliveries.len(), 1);
    assert_eq!(gate.comes(&says("e4", State::Failed)).2, Course::Ack);
    assert_eq!(gate.view.deliveries.len(), 1, "no money moves by a failure that comes late");
}

#[test]
fn an_unsigned_callback_makes_nothing_stale() {
    let mut gate = Gate::new(|_| ());
    gate.moves = FORWARD;
    // What intake makes of a state for which nobody vouches though its provider signs.
    gate.settled(&Event { state: None, ..numbered("made up") });
    gate.verified = true;
    assert_eq!(gate.comes(&says("e1", State::Pending)).1, Decision::NewState);
}

#[test]
fn what_rides_along_and_was_told_before_does_not_lead_back() {
    let mut gate = Gate::new(|_| ());
    let failed = says("e1", State::Failed);
    gate.settled(&failed);
    gate.settled(&says("e2", State::Paid));
    let (id, decided) = gate.arrives(&[step("e3", State::Refunded, Step::Part), failed]);
    assert_eq!(decided.decisions, [Decision::NewState, Decision::Repeated]);
    gate.does(id, Input::Sending).does(id, accepted(1));
    assert_eq!(gate.view.transactions[0].1.money, Money { stage: Stage::PartlyRefunded, paid: true });
    assert_eq!(gate.comes(&says("e4", State::Pending)).1, Decision::Stale);
}

// ------------------------------------------------------------------------------------------------ what is paid twice

#[test]
fn a_second_payment_of_one_order_is_forwarded_and_a_person_hears_of_it_once() {
    let mut gate = verified();
    assert_eq!(brought(&mut gate, &pays("tr_1", "1001")), Decision::First);
    let (id, decision, course) = gate.comes(&pays("tr_2", "1001"));
    assert_eq!((decision, course), (Decision::SecondPayment, Course::Deliver(id)));
    assert_eq!(gate.told(), ["alarm"]);
    let seen = |gate: &Gate| gate.view.deliveries.iter().filter_map(Delivery::in_review).map(|(_, why)| why).collect();
    let reasons: Vec<_> = seen(&gate);
    assert_eq!(reasons, [Reason::SecondPayment]);
    let entry = gate.view.deliveries.iter().find(|delivery| delivery.in_review().is_some()).unwrap().id;
    assert_eq!(gate.tries(entry, act(Deed::Resend)), Err(Refused::Elsewhere), "it goes its own way");
    gate.does(id, Input::Sending).does(id, accepted(1));
    assert_eq!(brought(&mut gate, &pays("tr_2", "1001")), Decision::Replayed);
    let told_otherwise = Event { event_id: Some("captured".into()), ..pays("tr_2", "1001") };
    assert_eq!(brought(&mut gate, &told_otherwise), Decision::NewState, "it is known to be the second");
    let reasons: Vec<_> = seen(&gate);
    assert_eq!(reasons.len(), 1);
    assert_eq!(brought(&mut gate, &pays("tr_3", "1002")), Decision::First, "another order");
    assert_eq!(brought(&mut gate, &pays("tr_4", "1001")), Decision::SecondPayment, "a third one too");
}

#[test]
fn whoever_settles_what_he_was_shown_settles_nothing_that_still_goes_its_way() {
    let conflict = |gate: &mut Gate| {
        brought(gate, &telling(numbered("e1"), "paid"));
        telling(numbered("e1"), "refunded")
    };
    let second = |gate: &mut Gate| {
        brought(gate, &pays("tr_1", "1001"));
        pays("tr_2", "1001")
    };
    for shown in [conflict as fn(&mut Gate) -> Event, second] {
        let mut gate = verified();
        gate.policy.answer = AnswerBy::Accept;
        let event = shown(&mut gate);
        let (id, ..) = gate.comes(&event);
        gate.does(id, Input::Sending).does(id, rejected(1));
        let entry = gate.view.deliveries.iter().find(|delivery| delivery.in_review().is_some()).unwrap().id;
        gate.does(entry, act(Deed::Settle));
        assert_eq!(gate.phase(entry), None);
        assert!(matches!(gate.phase(id), Some(Phase::Retrying { .. })), "it is not at its end");
        gate.passes(secs(60)).does(id, Input::Due).does(id, Input::Sending).does(id, accepted(2));
        assert_eq!(gate.comes(&event).1, Decision::Replayed);
    }
}

#[test]
fn what_nobody_vouches_for_is_no_second_payment_and_makes_none() {
    let mut gate = verified();
    gate.verified = false;
    brought(&mut gate, &pays("made up", "1001"));
    gate.verified = true;
    assert_eq!(brought(&mut gate, &pays("tr_1", "1001")), Decision::First);
    gate.verified = false;
    assert_eq!(brought(&mut gate, &pays("tr_2", "1001")), Decision::First);
}

#[test]
fn a_payment_after_the_first_one_is_gone_is_no_second_one() {
    let gone = [
        (step("r", State::Refunded, Step::Whole), true),
        (says("r", State::Failed), true),
        (says("r", State::Cancelled), true),
        (says("r", State::ChargedBack), true),
        (step("r", State::Refunded, Step::Part), false),
        (says("r", State::Refunded), false),
        (says("r", State::Pending), false),
    ];
    for (event, free) in gone {
        let mut gate = verified();
        brought(&mut gate, &pays("tr_1", "1001"));
        brought(&mut gate, &event);
        let second = brought(&mut gate, &pays("tr_2", "1001"));
        assert_eq!(second, if free { Decision::First } else { Decision::SecondPayment }, "{event:?}");
        assert_eq!(brought(&mut gate, &pays("tr_3", "1001")), Decision::SecondPayment, "now it is paid by the second");
    }
}

#[test]
fn a_payment_that_the_app_has_refused_has_paid_its_order_all_the_same() {
    let mut gate = verified();
    let (id, ..) = gate.comes(&pays("tr_1", "1001"));
    gate.does(id, Input::Sending).does(id, rejected(1));
    assert_eq!(gate.view.transactions.len(), 0);
    assert_eq!(brought(&mut gate, &pays("tr_2", "1001")), Decision::SecondPayment);
    assert_eq!(brought(&mut gate, &pays("tr_1", "1001")), Decision::First, "and it comes again, as the first it is");
}

#[test]
fn of_two_payments_that_come_at_once_exactly_one_is_the_second() {
    let gate = verified();
    let arrival = |number, reference| {
        let events = [pays(reference, "1001")];
        arrive(&gate.view, gate.arrival(LeaseId(number), LeaseId(number + 1), &events), gate.now)
    };
    let (one, two) = (arrival(10, "tr_1"), arrival(20, "tr_2"));
    let versions = |transition: &Transition| transition.bills.iter().map(|(key, bill)| (*key, bill.version)).collect();
    let (a, b): (Vec<_>, Vec<_>) = (versions(&one.1), versions(&two.1));
    assert_eq!((a.len(), &a), (1, &b), "both are written over the same version: one of the commits stands");
    let mut both = verified();
    let (_, decided) = both.arrives(&[pays("tr_1", "1001"), pays("tr_2", "1001"), pays("tr_3", "1002")]);
    assert_eq!(decided.decisions, [Decision::First, Decision::SecondPayment, Decision::First], "in one batch");
}

#[test]
fn what_a_rule_does_not_take_for_paid_once_is_paid_as_often_as_it_likes() {
    let mut gate = verified();
    gate.policy.paid_once = [].into();
    for reference in ["tr_1", "tr_2"] {
        assert_eq!(brought(&mut gate, &pays(reference, "1001")), Decision::First);
        assert!(gate.view.bills.is_empty());
    }
}

#[test]
fn in_shadow_a_second_payment_is_counted_and_nobody_is_called() {
    let mut gate = verified();
    gate.policy.shadow = true;
    gate.comes(&pays("tr_1", "1001"));
    let (_, decision, course) = gate.comes(&pays("tr_2", "1001"));
    assert_eq!((decision, course), (Decision::SecondPayment, Course::Shadow));
    assert!(gate.view.deliveries.iter().all(|delivery| delivery.in_review().is_none()));
}

#[test]
fn a_bill_remembers_so_many_payments_and_no_more() {
    let mut gate = verified();
    for payment in 0..20 {
        let decision = brought(&mut gate, &pays(&format!("tr_{payment}"), "1001"));
        assert_eq!(decision == Decision::SecondPayment, payment > 0);
    }
    assert_eq!(gate.view.bills[0].1.paid_by.len(), 8);
}

#[test]
fn an_order_that_is_paid_is_not_one_more_payment_of_it() {
    let mut gate = verified();
    let order = Event { step: Some(Step::Order), ..pays("ord_1", "1001") };
    assert_eq!(brought(&mut gate, &order), Decision::First);
    assert_eq!(brought(&mut gate, &pays("tr_1", "1001")), Decision::First);
    assert_eq!(brought(&mut gate, &Event { event_id: Some("again".into()), ..order }), Decision::NewState);
}

// ------------------------------------------------------------------------------------------------ laws

/// What can be told of one payment: each is an event of its own.
fn life() -> Vec<Event> {
    vec![
        step("authorised", State::Pending, Step::Authorised),
        says("paid", State::Paid),
        step("refund 1", State::Refunded, Step::Part),
        step("refund 2", State::Refunded, Step::Whole),
        says("chargeback", State::ChargedBack),
        says("failed", State::Failed),
    ]
}

fn moving(event: &Event) -> bool {
    matches!(event.state, Some(State::Paid | State::Refunded | State::ChargedBack))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any order, any repetition, any number of failing tries in between: each movement of money reaches the app once, what
    /// moves none at most once, and nothing else does.
    #[test]
    fn in_whatever_order_and_however_often_a_payments_events_come_its_money_is_told_once(
        order in prop::collection::vec((0..6_usize, prop::bool::weighted(0.2)), 1..40),
        documented in any::<bool>(),
    ) {
        let mut gate = verified();
        gate.moves = if documented { FORWARD } else { Moves::Undocumented };
        let life = life();
        let (mut delivered, mut came) = (Vec::new(), BTreeSet::new());
        // Whatever failed is sent again by its sender.
        let fails = order.iter().filter(|(_, fails)| *fails).map(|(which, _)| (*which, false));
        let again: Vec<_> = fails.collect();
        for (which, fails) in order.iter().copied().chain(again) {
            came.insert(which);
            let (id, decision, course) = gate.comes(&life[which]);
            if course == Course::Deliver(id) {
                prop_assert!(matches!(decision, Decision::First | Decision::NewState));
                gate.does(id, Input::Sending).does(id, if fails { rejected(1) } else { accepted(1) });
                if !fails {
                    delivered.push(which);
                }
            } else {
                prop_assert!(!moving(&life[which]) || decision == Decision::Replayed, "{:?}: {decision:?}", life[which]);
            }
        }
        let once: BTreeSet<_> = delivered.iter().copied().collect();
        prop_assert_eq!(once.len(), delivered.len(), "nothing twice");
        for which in came {
            prop_assert!(once.contains(&which) || !moving(&life[which]), "{:?} is swallowed", life[which]);
        }
    }

    /// Where the payment stands in the end does not hang on the order in which money was told of.
    #[test]
    fn where_a_payment_stands_does_not_hang_on_the_order(order in Just(vec![1, 2, 3, 4]).prop_shuffle(), many in 1..5_usize) {
        let life = life();
        let told = |which: &usize| Told { state: life[*which].state.unwrap(), step: life[*which].step };
        let money = |order: &[usize]| order.iter().map(told).fold(Money::default(), Money::and);
        let (came, mut sorted) = (&order[..many], order[..many].to_vec());
        sorted.sort_unstable();
        prop_assert_eq!(money(came), money(&sorted));
        prop_assert_eq!(money(came).paid, came.contains(&1));
        prop_assert_eq!(money(came).stage == Stage::Paid, came == [1]);
    }

    /// Of all payments of one order, in any order and with any repetition, all reach the app, and a person hears of all but one.
    #[test]
    fn of_any_number_of_payments_of_an_order_one_is_the_first(order in prop::collection::vec(0..5_usize, 1..20)) {
        let mut gate = verified();
        let second: Vec<_> = order
            .iter()
            .filter(|which| brought(&mut gate, &pays(&format!("tr_{which}"), "1001")) == Decision::SecondPayment)
            .collect();
        let (paid, seconds): (BTreeSet<_>, BTreeSet<_>) = (order.iter().collect(), second.iter().copied().collect());
        prop_assert_eq!(seconds.len(), paid.len() - 1);
        prop_assert_eq!(second.len(), seconds.len(), "each once");
        prop_assert_eq!(gate.view.transactions.len(), paid.len());
    }
}
