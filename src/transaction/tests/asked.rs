//! What is known by its provider's word alone, and what nobody has called about: asked about, and once more.

use super::*;

/// What the provider said of a payment whose callback says nothing.
fn said(status: &str) -> Event {
    telling(bare(), status)
}

fn asked() -> Gate {
    let mut gate = Gate::new(|_| {});
    gate.inquired = Inquired::Once(secs(30));
    let (id, decision, _) = gate.comes(&said("paid"));
    assert_eq!(decision, Decision::First);
    gate.does(id, Input::Sending).does(id, accepted(1));
    gate
}

fn rechecks(gate: &Gate) -> Vec<Delivery> {
    gate.view.deliveries.iter().filter(|delivery| matches!(delivery.phase, Phase::Recheck { .. })).cloned().collect()
}

#[test]
fn a_repeat_by_the_providers_word_alone_is_asked_about_once_more() {
    let mut gate = asked();
    let (_, decision, course) = gate.comes(&said("paid"));
    assert_eq!(decision, Decision::Replayed);
    assert!(matches!(course, Course::Replay(_)));
    let recheck = rechecks(&gate).pop().expect("it is asked about once more");
    assert!(recheck.owed, "its sender has heard of success, so this has to last");
    assert!(gate.last.waits(Durable::Claim));
    assert_eq!(recheck.due(), Some(gate.now.after(secs(30))));
    gate.passes(secs(30)).does(recheck.id, Input::Due);
    assert_eq!(gate.told(), ["ask"]);
    // Whoever asks may be lost: its time comes again.
    assert_eq!(rechecks(&gate)[0].due(), Some(gate.now.after(secs(60))));
}

#[test]
fn a_payment_that_is_waited_for_is_asked_about_whenever_it_is_as_old_again() {
    let mut gate = asked();
    let (id, ..) = gate.comes(&said("paid"));
    let arrived = gate.now;
    let mut delivery = gate.view.deliveries.iter().find(|delivery| delivery.id != id).cloned().unwrap_or_else(|| {
        gate.comes(&said("paid"));
        rechecks(&gate).pop().expect("something that asks")
    });
    delivery.phase = Phase::Awaited { at: gate.now.after(secs(900)) };
    gate.view.deliveries = vec![delivery.clone()];
    let due = |gate: &Gate| gate.view.deliveries[0].due().expect("its time comes").since(arrived);
    for age in [900, 1800, 3600] {
        assert_eq!(due(&gate), secs(age));
        gate.now = arrived.after(secs(age));
        gate.does(delivery.id, Input::Due);
        assert_eq!(gate.told(), ["ask"]);
        // Nothing goes to the app on its account, and nothing is locked.
        assert!(gate.last.locks.is_empty() && gate.last.history.is_empty());
    }
    assert_eq!(due(&gate), secs(7200));
}

#[test]
fn what_it_finds_then_is_delivered_and_the_retry_is_ours_and_what_it_does_not_is_over() {
    for (status, decision, left) in [("refunded", Decision::NewState, 1), ("paid", Decision::Replayed, 0)] {
        let mut gate = asked();
        gate.comes(&said("paid"));
        let recheck = rechecks(&gate).pop().expect("it is asked about once more");
        gate.passes(secs(30)).does(recheck.id, Input::Due);
        let version = rechecks(&gate)[0].version;
        gate.inquired = Inquired::Again(recheck.id, version);
        let (id, decided, _) = gate.comes(&said(status));
        assert_eq!(decided, decision);
        assert!(rechecks(&gate).is_empty());
        assert_eq!(gate.view.deliveries.len(), left);
        assert!(gate.view.deliveries.iter().all(|delivery| delivery.id == id && delivery.owed));
    }
}

#[test]
fn what_was_not_asked_about_or_goes_to_the_app_is_not_asked_about_once_more() {
    let mut gate = asked();
    gate.comes(&said("refunded"));
    assert!(rechecks(&gate).is_empty());
    for inquired in [Inquired::No, Inquired::Once(Duration::ZERO)] {
        gate.inquired = inquired;
        gate.comes(&said("paid"));
        assert!(rechecks(&gate).is_empty());
    }
}

#[test]
fn one_that_nobody_could_be_asked_about_joins_its_twin_that_is_not_sent_yet_and_no_other() {
    let mut gate = Gate::new(|_| {});
    gate.inquired = Inquired::Once(secs(30));
    let (id, ..) = gate.comes(&said("paid"));
    gate.inquired = Inquired::No;
    let (_, decision, course) = gate.comes(&bare());
    assert_eq!((decision, course), (Decision::Joined, Course::Wait(id)));
    assert_eq!(gate.comes(&said("refunded")).1, Decision::NewState);
    gate.does(id, Input::Sending);
    let mut other = gate.clone();
    // The refund's delivery is a twin too, by its bytes.
    assert_eq!(other.comes(&bare()).1, Decision::Joined);
    gate.view.deliveries.retain(|delivery| delivery.id == id);
    assert_eq!(gate.comes(&bare()).1, Decision::NewState, "the first byte may have gone before it came");
}

#[test]
fn the_time_it_was_asked_about_is_taken_from_the_hold() {
    let gate = Gate::new(|policy| policy.hold = secs(2));
    for (took, phase) in
        [(secs(1), Phase::Held { until: gate.now.after(secs(2)) }), (secs(2), Phase::Queued), (secs(3), Phase::Queued)]
    {
        let mut gate = gate.clone();
        gate.asked_for = took;
        gate.passes(took);
        let (id, ..) = gate.comes(&said("paid"));
        assert_eq!(gate.view.delivery(id).expect("it is there").phase, phase);
    }
}
