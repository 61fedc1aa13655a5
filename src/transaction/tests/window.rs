//! What tells nothing of what happened: taken for the same in its window, with one more delivery at its end; and how long anything is remembered.

use super::*;

#[test]
fn simultaneous_twins_make_one_forward() {
    let mut gate = Gate::new(|policy| policy.hold = secs(1));
    let (id, ..) = gate.comes(&bare());
    gate.comes(&bare());
    gate.does(id, Input::HoldOver).does(id, Input::Sending).does(id, accepted(1));
    assert!(gate.view.deliveries.is_empty());
}

#[test]
fn who_comes_after_the_first_byte_hears_its_answer_and_one_more_follows_for_all() {
    let mut gate = Gate::new(|_| ());
    let (id, ..) = gate.comes(&bare());
    gate.does(id, Input::Sending);
    let window_ends = gate.now.after(secs(30));
    assert_eq!(gate.comes(&bare()).2, Course::Wait(id));
    let next = gate.follower();
    assert_eq!(gate.phase(next), Some(Phase::Held { until: window_ends }));
    assert_eq!(gate.comes(&bare()).2, Course::Wait(id));
    assert_eq!(gate.follower(), next, "one for all");
    gate.passes(secs(2)).does(id, accepted(1));
    assert_eq!(gate.comes(&bare()).2, Course::Replay(answer(200)));
    assert_eq!((gate.follower(), gate.view.deliveries.len()), (next, 1));
    assert_eq!(gate.tries(next, Input::HoldOver), Err(Refused::OutOfTurn), "a return does not end a window");
    gate.passes(secs(28)).does(next, Input::Due);
    assert_eq!(gate.phase(next), Some(Phase::Queued));
    assert_eq!(gate.comes(&bare()).2, Course::Wait(next));
}

#[test]
fn who_comes_after_the_settle_inside_the_window_makes_one_follow_and_at_its_end_is_the_first_again() {
    let mut gate = Gate::new(|_| ());
    gate.settled(&bare());
    gate.passes(secs(30) - Duration::from_millis(1));
    let mut late = gate.clone();
    assert_eq!(gate.comes(&bare()).1, Decision::Replayed);
    let next = gate.follower();
    gate.passes(secs(100));
    assert_eq!(gate.comes(&bare()).1, Decision::Replayed, "until its follower goes, that one stands for all");
    gate.does(next, Input::Due).does(next, Input::Sending).does(next, accepted(1));
    late.passes(Duration::from_millis(1));
    assert_eq!(late.comes(&bare()).1, Decision::First);
}

#[test]
fn without_trailing_nothing_follows() {
    let mut gate = Gate::new(|policy| policy.trailing = false);
    gate.settled(&bare());
    assert_eq!(gate.comes(&bare()).1, Decision::Replayed);
    assert!(gate.view.deliveries.is_empty());
}

#[test]
fn when_the_first_fails_its_follower_is_dropped_for_all_have_heard_of_it() {
    for ending in [rejected(1), not_sent(1), unknown(1)] {
        let mut gate = Gate::new(|_| ());
        let (id, ..) = gate.comes(&bare());
        gate.does(id, Input::Sending);
        gate.comes(&bare());
        let next = gate.follower();
        gate.does(id, ending);
        assert_eq!(gate.phase(next), None);
        assert!(gate.view.transactions.iter().all(|(_, t)| t.claims.iter().all(|c| c.window.unwrap_next().is_none())));
    }
}

#[test]
fn an_end_without_an_answer_is_written_where_a_follower_would_be_noted() {
    let mut gate = Gate::new(|_| ());
    let (id, ..) = gate.comes(&bare());
    gate.does(id, Input::Sending).does(id, unknown(1));
    assert_eq!(gate.last.transactions.len(), 1, "who decided on the try in the app decides anew");
}

#[test]
fn a_window_that_ends_while_the_first_is_in_the_app_lets_the_follower_go_at_its_end() {
    let mut gate = Gate::new(|_| ());
    let (id, ..) = gate.comes(&bare());
    gate.does(id, Input::Sending);
    gate.comes(&bare());
    let next = gate.follower();
    gate.passes(secs(30)).does(next, Input::Due);
    assert_eq!(gate.phase(next), Some(Phase::Held { until: Timestamp::NEVER }));
    assert!(!gate.last.transactions.is_empty(), "written over what it has read, so that no end is missed");
    gate.passes(secs(5)).does(id, accepted(1));
    gate.does(next, Input::Due);
    assert_eq!(gate.phase(next), Some(Phase::Queued));
}

#[test]
fn a_follower_is_ours_to_retry_with_a_growing_pause_and_then_to_show_to_a_person() {
    let mut gate = Gate::new(|_| ());
    gate.settled(&bare());
    gate.comes(&bare());
    let next = gate.follower();
    gate.passes(secs(30)).does(next, Input::Due);
    let mut pauses = Vec::new();
    for attempt in 1..=3 {
        gate.does(next, Input::Sending).does(next, rejected(attempt));
        if let Some(Phase::Retrying { at }) = gate.phase(next) {
            assert_eq!(gate.comes(&bare()).2, Course::Retryable);
            pauses.push(at.since(gate.now));
            gate.now = at;
            gate.does(next, Input::Due);
        }
    }
    assert!(pauses.len() == 2 && pauses[1] > pauses[0] && pauses[1] <= secs(16), "{pauses:?}");
    assert!(matches!(gate.phase(next), Some(Phase::Review { .. })));
    assert_eq!(gate.told(), ["rejected", "alarm"]);
}

#[test]
fn a_follower_of_a_dead_app_is_not_tried_without_end() {
    let mut gate = Gate::new(|_| ());
    gate.settled(&bare());
    gate.comes(&bare());
    let next = gate.follower();
    gate.passes(secs(30)).does(next, Input::Due);
    for attempt in 1..=4 {
        match gate.phase(next) {
            Some(Phase::Queued) => _ = gate.does(next, not_sent(attempt)),
            _ => break,
        }
        gate.passes(secs(100));
        _ = gate.tries(next, Input::Due);
    }
    assert!(matches!(gate.phase(next), Some(Phase::Review { .. })));
}

#[test]
fn retention_ends_to_the_millisecond_and_a_repeat_renews_it_lazily() {
    let week = secs(7 * 24 * 3600);
    let mut gate = Gate::new(|_| ());
    gate.settled(&numbered("e1"));
    gate.passes(secs(60));
    gate.comes(&numbered("e1"));
    assert!(gate.last.transactions.is_empty(), "written a moment ago");
    gate.passes(week / 2);
    gate.comes(&numbered("e1"));
    assert_eq!(gate.last.transactions.len(), 1);
    gate.passes(week - Duration::from_millis(1));
    let mut other = gate.clone();
    assert_eq!(gate.comes(&numbered("e1")).1, Decision::Replayed);
    other.passes(Duration::from_millis(1));
    assert_eq!(other.comes(&numbered("e1")).1, Decision::First);
}
