//! The laws of the table: who keeps out whom, who waits for whom, and that all come to their turn.

use std::collections::HashSet;

use proptest::prelude::*;

use super::{
    super::{LockName, MOST_NAMES},
    *,
};

fn webhook(names: &[(&str, &str)]) -> Claimed {
    claimed(Channel::Webhook, names)
}

fn back(names: &[(&str, &str)]) -> Claimed {
    claimed(Channel::Return, names)
}

fn claimed(channel: Channel, names: &[(&str, &str)]) -> Claimed {
    let names: Vec<LockName> = names.iter().map(|(kind, value)| LockName::new("app", [kind, ""], value)).collect();
    Claimed {
        channel,
        kinds: names.iter().map(|name| name.kind).collect(),
        names,
        exclusive: false,
        era: Era::default(),
    }
}

struct Door(Table, u64);

impl Door {
    fn new() -> Self {
        Self(Table::new(usize::MAX), 0)
    }

    fn comes(&mut self, claimed: &Claimed) -> LeaseId {
        self.1 += 1;
        self.0.enqueue(LeaseId(self.1), claimed);
        self.0.advance(&mut Vec::new());
        LeaseId(self.1)
    }

    fn leaves(&mut self, lease: LeaseId) -> Vec<LeaseId> {
        self.0.release(lease);
        let mut granted = Vec::new();
        self.0.advance(&mut granted);
        granted
    }
}

#[test]
fn one_name_is_held_by_one_at_a_time_in_the_order_of_arrival() {
    let mut door = Door::new();
    let [a, b, c] = [0; 3].map(|_| door.comes(&webhook(&[("reference", "tr_1")])));
    assert!(door.0.holds(a) && !door.0.holds(b));
    assert_eq!(door.leaves(a), [b]);
    assert_eq!(door.leaves(b), [c]);
}

#[test]
fn other_names_of_the_same_channel_go_side_by_side() {
    let mut door = Door::new();
    let a = door.comes(&webhook(&[("reference", "tr_1")]));
    let b = door.comes(&webhook(&[("reference", "tr_2")]));
    assert!(door.0.holds(a) && door.0.holds(b));
}

#[test]
fn a_webhook_and_a_return_with_no_kind_in_common_exclude_each_other() {
    let mut door = Door::new();
    let hook = door.comes(&webhook(&[("reference", "tr_1")]));
    let payer = door.comes(&back(&[("payment_hash", "h")]));
    assert!(!door.0.holds(payer));
    assert_eq!(door.leaves(hook), [payer]);
}

#[test]
fn a_joined_pair_excludes_by_name_only() {
    let mut door = Door::new();
    let hook = door.comes(&webhook(&[("reference", "pi_1"), ("payment_hash", "h1")]));
    let stranger = door.comes(&back(&[("payment_hash", "h2")]));
    let same = door.comes(&back(&[("payment_hash", "h1")]));
    assert!(door.0.holds(stranger) && !door.0.holds(same));
    assert_eq!(door.leaves(hook), [same]);
}

#[test]
fn what_has_no_name_is_kept_from_all_of_the_other_channel() {
    let mut door = Door::new();
    let hook = door.comes(&webhook(&[("reference", "pi_1"), ("payment_hash", "h1")]));
    let nameless = door.comes(&back(&[]));
    assert!(!door.0.holds(nameless));
    assert_eq!(door.leaves(hook), [nameless]);
}

#[test]
fn a_payer_waits_for_what_was_in_the_app_and_not_for_webhooks_that_wait() {
    let mut door = Door::new();
    let first = door.comes(&webhook(&[("reference", "1")]));
    let payer = door.comes(&back(&[("payment_hash", "h")]));
    let second = door.comes(&webhook(&[("reference", "2")]));
    assert!(!door.0.holds(second), "a newcomer would make the payer wait longer");
    assert_eq!(door.leaves(first), [payer]);
    assert_eq!(door.leaves(payer), [second]);
}

#[test]
fn a_stream_of_overlapping_returns_does_not_starve_a_webhook() {
    let mut door = Door::new();
    let first = door.comes(&back(&[("payment_hash", "1")]));
    let hook = door.comes(&webhook(&[("reference", "tr")]));
    let second = door.comes(&back(&[("payment_hash", "2")]));
    assert!(door.0.holds(second), "the first payer is still in the app: no turn has come yet");
    assert!(door.leaves(first).is_empty());
    let third = door.comes(&back(&[("payment_hash", "3")]));
    assert!(!door.0.holds(third), "the webhook's turn has come");
    assert_eq!(door.leaves(second), [hook]);
    assert_eq!(door.leaves(hook), [third]);
}

#[test]
fn places_are_given_to_payers_first_but_not_for_ever() {
    let mut door = Door(Table::new(1), 0);
    let joined = |n: &str| webhook(&[("payment_hash", n), ("reference", n)]);
    let a = door.comes(&joined("a"));
    let b = door.comes(&joined("b"));
    let payer = door.comes(&back(&[("payment_hash", "p")]));
    assert_eq!(door.leaves(a), [payer]);
    let late = door.comes(&back(&[("payment_hash", "q")]));
    assert_eq!(door.leaves(payer), [b], "the webhook's turn had come before the second payer came");
    assert_eq!(door.leaves(b), [late]);
}

#[test]
fn a_batch_with_one_unjoined_event_is_kept_from_the_other_channel() {
    let mut door = Door::new();
    let mut batch = webhook(&[("reference", "1"), ("payment_hash", "h1"), ("reference", "2")]);
    batch.kinds = vec![Kind::named(["reference", ""])];
    let batch = door.comes(&batch);
    let payer = door.comes(&back(&[("payment_hash", "h2")]));
    assert!(!door.0.holds(payer), "it may be the payer of the event that has no hash");
    assert_eq!(door.leaves(batch), [payer]);
}

#[test]
fn an_exclusive_callback_is_alone_in_the_app() {
    let mut door = Door::new();
    let a = door.comes(&webhook(&[("reference", "1")]));
    let alone = door.comes(&Claimed { exclusive: true, ..webhook(&[]) });
    let b = door.comes(&webhook(&[("reference", "2")]));
    assert!(!door.0.holds(alone) && !door.0.holds(b));
    assert_eq!(door.leaves(a), [alone]);
    assert_eq!(door.leaves(alone), [b]);
}

#[test]
fn callbacks_of_two_eras_are_never_in_the_app_together() {
    let mut door = Door::new();
    let later = |claimed: Claimed| Claimed { era: Era(1), ..claimed };
    let old = door.comes(&webhook(&[("reference", "1")]));
    let new = door.comes(&later(webhook(&[("order", "7")])));
    let payer = door.comes(&later(back(&[("order", "8")])));
    assert!(!door.0.holds(new) && !door.0.holds(payer), "either may be about the payment in the app");
    assert_eq!(door.leaves(old), [payer, new], "among those of one era names tell");
}

#[test]
fn however_often_the_rules_change_the_table_does_not_grow() {
    let mut door = Door::new();
    for era in 0..100 {
        let hook = door.comes(&Claimed { era: Era(era), ..webhook(&[("reference", "1")]) });
        let payer = door.comes(&Claimed { era: Era(era), ..back(&[("reference", "2")]) });
        door.leaves(hook);
        door.leaves(payer);
    }
    assert!(door.0.classes.len() <= 4, "{}", door.0.classes.len());
}

#[test]
fn more_places_let_more_in_and_fewer_throw_nobody_out() {
    let mut door = Door(Table::new(1), 0);
    let a = door.comes(&webhook(&[("reference", "1")]));
    let b = door.comes(&webhook(&[("reference", "2")]));
    let c = door.comes(&webhook(&[("reference", "3")]));
    let mut granted = Vec::new();
    door.0.resize(2);
    door.0.advance(&mut granted);
    assert_eq!(granted, [b]);
    door.0.resize(1);
    assert!(door.0.holds(a) && door.0.holds(b));
    assert_eq!(door.leaves(a), []);
    assert_eq!(door.leaves(b), [c]);
}

#[test]
fn more_names_than_can_be_queued_for_take_the_upstream() {
    let mut door = Door::new();
    let names: Vec<String> = (0..=MOST_NAMES).map(|n| n.to_string()).collect();
    let names: Vec<(&str, &str)> = names.iter().map(|n| ("reference", n.as_str())).collect();
    let many = door.comes(&webhook(&names));
    let stranger = door.comes(&webhook(&[("reference", "other")]));
    assert!(door.0.holds(many) && !door.0.holds(stranger));
}

#[test]
fn what_lingers_keeps_its_names_and_frees_its_place() {
    let mut door = Door(Table::new(1), 0);
    let a = door.comes(&webhook(&[("reference", "1")]));
    let same = door.comes(&webhook(&[("reference", "1")]));
    let other = door.comes(&webhook(&[("reference", "2")]));
    door.0.vacate(a);
    let mut granted = Vec::new();
    door.0.advance(&mut granted);
    assert_eq!(granted, [other]);
    assert_eq!(door.leaves(other), []);
    assert_eq!(door.leaves(a), [same]);
}

#[test]
fn what_waits_for_a_person_stands_in_the_way_of_its_own_names_only() {
    let mut door = Door(Table::new(1), 0);
    let review = door.comes(&webhook(&[("reference", "1")]));
    let same = door.comes(&webhook(&[("reference", "1")]));
    let payer = door.comes(&back(&[("payment_hash", "h")]));
    door.0.keep_names(review);
    let mut granted = Vec::new();
    door.0.advance(&mut granted);
    assert_eq!(granted, [payer]);
    assert_eq!(door.leaves(payer), []);
    assert_eq!(door.leaves(review), [same]);
    assert!(door.leaves(same).is_empty() && door.0.is_empty());
}

#[test]
fn nothing_is_free_for_who_would_pass_another() {
    let hook = || webhook(&[("reference", "1")]);
    let payer = || back(&[("payment_hash", "h")]);
    let mut door = Door(Table::new(2), 0);
    assert!(door.0.is_free(&hook()) && door.0.is_free(&payer()));
    let other = door.comes(&webhook(&[("reference", "2")]));
    assert!(door.0.is_free(&hook()), "another name of the same channel");
    assert!(!door.0.is_free(&webhook(&[("reference", "2")])), "somebody holds that name");
    assert!(!door.0.is_free(&payer()), "nobody can tell them apart");
    assert!(!door.0.is_free(&Claimed { era: Era(1), ..hook() }), "by other rules");
    assert!(!door.0.is_free(&Claimed { exclusive: true, ..hook() }), "somebody is in the app");
    let waits = door.comes(&payer());
    assert!(!door.0.is_free(&hook()), "a payer waits who goes before");
    door.leaves(waits);
    let third = door.comes(&webhook(&[("reference", "3")]));
    assert!(!door.0.is_free(&hook()), "no place is left");
    door.leaves(third);
    door.0.seize(LeaseId(99), &hook());
    assert!(door.0.holds(LeaseId(99)) && !door.0.is_free(&hook()));
    assert!(door.leaves(other).is_empty() && door.leaves(LeaseId(99)).is_empty() && door.0.queues.is_empty());
}

#[test]
fn what_was_held_when_the_gate_went_down_is_held_again_and_keeps_out_the_same() {
    let mut door = Door::new();
    let hook = door.comes(&webhook(&[("reference", "1")]));
    let seat = door.0.seat(hook).unwrap();
    let waiting = door.comes(&webhook(&[("reference", "1")]));
    assert_eq!(door.0.seat(waiting), None, "it only waits");
    let mut after = Door(Table::new(1), 10);
    after.0.take_up(hook, seat.clone());
    assert_eq!((after.0.seat(hook), after.0.taken()), (Some(seat), 1));
    let same = after.comes(&webhook(&[("reference", "1")]));
    let payer = after.comes(&back(&[("payment_hash", "h")]));
    assert!(!after.0.holds(same) && !after.0.holds(payer));
    assert_eq!(after.leaves(hook), [payer]);
    assert_eq!(after.leaves(payer), [same]);
    assert!(after.leaves(same).is_empty() && after.0.is_empty() && after.0.queues.is_empty());
}

#[test]
fn two_that_held_one_name_are_both_taken_up_and_leave_in_any_order() {
    for order in [[1, 2], [2, 1]] {
        let mut table = Table::new(9);
        let seat = Seat::of(&webhook(&[("reference", "1")]));
        [1, 2].into_iter().for_each(|id| table.take_up(LeaseId(id), seat.clone()));
        table.enqueue(LeaseId(3), &webhook(&[("reference", "1")]));
        let mut granted = Vec::new();
        for id in order {
            assert_eq!(granted, []);
            table.release(LeaseId(id));
            table.advance(&mut granted);
        }
        assert_eq!(granted, [LeaseId(3)]);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Comes { hook: bool, reference: Option<u8>, hash: Option<u8>, exclusive: bool, era: u64, seizes: bool },
    Leaves(prop::sample::Index),
    GivesUp(prop::sample::Index),
    Vacates(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || prop::option::of(0_u8..4);
    let step = prop_oneof![
        6 => (any::<(bool, bool)>(), name(), name(), prop::bool::weighted(0.05), prop_oneof![5 => Just(0), 1 => 1_u64..3])
            .prop_map(|((hook, seizes), reference, hash, exclusive, era)| {
                Step::Comes { hook, reference, hash, exclusive, era, seizes }
            }),
        5 => any::<prop::sample::Index>().prop_map(Step::Leaves),
        1 => any::<prop::sample::Index>().prop_map(Step::GivesUp),
        1 => any::<prop::sample::Index>().prop_map(Step::Vacates),
    ];
    prop::collection::vec(step, 1..120)
}

fn may_overlap(a: &Claimed, b: &Claimed) -> bool {
    let share = |f: fn(&LockName) -> Key| a.names.iter().any(|x| b.names.iter().any(|y| f(x) == f(y)));
    let share_kind = a.names.iter().any(|x| b.names.iter().any(|y| x.kind == y.kind));
    !a.exclusive && !b.exclusive && a.era == b.era && !share(|n| n.key) && (a.channel == b.channel || share_kind)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn whatever_comes_and_goes_nothing_overlaps_that_must_not_and_nobody_is_left(
        steps in steps(), places in 1_usize..6,
    ) {
        let mut table = Table::new(places);
        let (mut inside, mut waiting): (Vec<LeaseId>, Vec<LeaseId>) = (vec![], vec![]);
        let mut asked: HashMap<LeaseId, Claimed> = HashMap::new();
        let mut lingering: HashSet<LeaseId> = HashSet::new();
        let mut next = 0;
        for step in steps {
            let mut surely = None;
            match step {
                Step::Comes { hook, reference, hash, exclusive, era, seizes } => {
                    let names = [reference.map(|n| ("reference", n)), hash.map(|n| ("payment_hash", n))];
                    let names = names.into_iter().flatten()
                        .map(|(kind, n)| LockName::new("app", [kind, ""], &n.to_string())).collect::<Vec<_>>();
                    let channel = if hook { Channel::Webhook } else { Channel::Return };
                    let kinds = names.iter().map(|name| name.kind).collect();
                    let claimed = Claimed { channel, names, kinds, exclusive, era: Era(era) };
                    next += 1;
                    let free = table.is_free(&claimed);
                    if free && seizes {
                        table.seize(LeaseId(next), &claimed);
                        inside.push(LeaseId(next));
                    } else {
                        table.enqueue(LeaseId(next), &claimed);
                        waiting.push(LeaseId(next));
                        surely = free.then_some(LeaseId(next));
                    }
                    asked.insert(LeaseId(next), claimed);
                }
                Step::Leaves(at) if !inside.is_empty() => {
                    let lease = inside.swap_remove(at.index(inside.len()));
                    lingering.remove(&lease);
                    table.release(lease);
                }
                Step::GivesUp(at) if !waiting.is_empty() => table.release(waiting.swap_remove(at.index(waiting.len()))),
                Step::Vacates(at) if !inside.is_empty() => {
                    let lease = inside[at.index(inside.len())];
                    lingering.insert(lease);
                    table.vacate(lease);
                }
                _ => {}
            }
            let mut granted = Vec::new();
            table.advance(&mut granted);
            prop_assert!(surely.is_none_or(|lease| granted == [lease]), "what is free is granted at once, and alone");
            waiting.retain(|lease| !granted.contains(lease));
            inside.extend(granted);
            prop_assert!(inside.len() - lingering.len() <= places);
            for (n, a) in inside.iter().enumerate() {
                for b in &inside[n + 1..] {
                    prop_assert!(may_overlap(&asked[a], &asked[b]), "{:?} with {:?}", asked[a], asked[b]);
                }
            }
        }
        // Nobody starves: when those inside leave, all who wait get in.
        while let Some(lease) = inside.pop() {
            table.release(lease);
            let mut granted = Vec::new();
            table.advance(&mut granted);
            waiting.retain(|lease| !granted.contains(lease));
            inside.extend(granted);
        }
        prop_assert!(waiting.is_empty(), "left waiting: {waiting:?}");
        prop_assert!(table.is_empty() && table.queues.is_empty() && table.taken == 0);
    }
}
