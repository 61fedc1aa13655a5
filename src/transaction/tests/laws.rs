//! The laws of the core, over whatever comes.

use super::*;

#[derive(Clone, Debug)]
enum Move {
    Comes(Vec<(u8, u8)>),
    Passes(u16),
    Does(prop::sample::Index, u8),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let event = (0..2_u8, 0..3_u8);
    let one = prop_oneof![
        4 => prop::collection::vec(event, 1..3).prop_map(Move::Comes),
        2 => (0..40_000_u16).prop_map(Move::Passes),
        8 => (any::<prop::sample::Index>(), 0..15_u8).prop_map(|(which, what)| Move::Does(which, what)),
    ];
    prop::collection::vec(one, 1..60)
}

fn input(what: u8, attempt: u32) -> Input {
    match what {
        0 | 1 => Input::Due,
        2 | 3 => Input::Sending,
        4 => accepted(attempt),
        5 => rejected(attempt),
        6 => unknown(attempt),
        7 => not_sent(attempt + 1),
        8 => Input::HoldOver,
        10 => Input::Owe,
        11 => Input::Confirmed { attempt, books: Books::Booked(answer(202)) },
        12 => Input::Confirmed { attempt, books: Books::NotBooked },
        13 => Input::Confirmed { attempt, books: Books::Silent },
        14 => Input::Confirmed { attempt, books: Books::Closed },
        _ => act(Deed::ALL[attempt as usize % 3]),
    }
}

/// What holds whatever has happened.
fn holds(gate: &Gate) -> Result<(), TestCaseError> {
    let mut pending: BTreeMap<Key, LeaseId> = BTreeMap::new();
    for claim in gate.view.transactions.iter().flat_map(|(_, transaction)| &transaction.claims) {
        if let Fate::Pending(id) = claim.fate {
            prop_assert!(gate.view.delivery(id).is_some(), "its delivery is gone: {claim:?}");
            prop_assert!(pending.insert(claim.identity, id).is_none(), "pending twice: {claim:?}");
        }
        if let Some(next) = claim.window.unwrap_next() {
            prop_assert!(gate.view.delivery(next).is_some(), "its follower is gone: {claim:?}");
        }
    }
    for (_, transaction) in &gate.view.transactions {
        let mut later = transaction.clone();
        later.forget_expired(Timestamp::NEVER);
        let unsettled = |t: &Transaction| t.claims.iter().filter(|c| matches!(c.fate, Fate::Pending(_))).count();
        prop_assert_eq!(unsettled(transaction), unsettled(&later), "what is unsettled never expires");
    }
    Ok(())
}

/// Of whom success was told, what he told is under way, settled or with a person, unless a person threw it away.
fn kept(gate: &Gate, promised: &Delivery, discarded: bool) -> Result<(), TestCaseError> {
    if !promised.owed || discarded || gate.view.delivery(promised.id).is_some() {
        return Ok(());
    }
    for event in promised.letter.events.iter().filter(|event| !event.windowed) {
        let claim = gate.view.transaction(event.transaction).and_then(|t| t.claim(event.identity));
        // Another may have brought it since, and this one waited for a person.
        prop_assert!(claim.is_some(), "nobody knows of {event:?} any more");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]
    #[test]
    fn the_laws_hold_whatever_comes(moves in moves(), answer in 0..3_u8, hold in 0..2_u64, unsure in 0..4_usize, shadow in prop::bool::weighted(0.1)) {
        let mut gate = Gate::new(|policy| {
            (policy.hold, policy.shadow, policy.retention) = (secs(hold), shadow, secs(100));
            match answer {
                0 => policy.answer = AnswerBy::Accept,
                1 => policy.answer_within = Some(secs(1)),
                _ => {}
            }
            let all = [OnUnknown::Resend, OnUnknown::Review, OnUnknown::Confirm, OnUnknown::ConfirmElseResend];
            (policy.on_unknown, policy.quiet) = (all[unsure], secs(20));
        });
        for one in moves {
            match one {
                Move::Comes(events) => {
                    let mut events: Vec<_> = events;
                    events.dedup();
                    let event = |&(payment, id): &(u8, u8)| match id {
                        0 => plain(&format!("tr_{payment}")),
                        2 => Event { state: Some(State::Paid), ..of(&format!("tr_{payment}"), "e2") },
                        _ => of(&format!("tr_{payment}"), &format!("e{id}")),
                    };
                    gate.arrives(&events.iter().map(event).collect::<Vec<_>>());
                }
                Move::Passes(millis) => _ = gate.passes(Duration::from_millis(millis.into())),
                Move::Does(which, what) if !gate.view.deliveries.is_empty() => {
                    let delivery = &gate.view.deliveries[which.index(gate.view.deliveries.len())];
                    let (id, input) = (delivery.id, input(what, delivery.attempts));
                    // The same view, input and moment give the same transition.
                    let twice = [(); 2].map(|()| format!("{:?}", apply(&gate.view, id, input.clone(), gate.now)));
                    prop_assert_eq!(&twice[0], &twice[1]);
                    let before = format!("{:?}", gate.view);
                    let promised = delivery.clone();
                    let discarded = matches!(&input, Input::Act(act) if act.deed == Deed::Discard);
                    if gate.tries(id, input).is_ok() {
                        kept(&gate, &promised, discarded)?;
                    } else {
                        prop_assert_eq!(before, format!("{:?}", gate.view), "a refused input changes nothing");
                    }
                }
                Move::Does(..) => {}
            }
            holds(&gate)?;
        }
    }
}
