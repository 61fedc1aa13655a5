//! Webhooks of providers that the gate knows: batches, several events of one payment, signatures.

use std::time::Duration;

use tokio::task::JoinHandle;

use crate::{
    support::{
        office::{BRACKETS, Office},
        standing::{HOOK, Standing, Told, back, post},
    },
    tidy::root,
};

const AT_ONCE: &str = "preset = 'invoice-ninja'\n[[rule]]\nhold = '0s'\nlinger = '0s'\n";

/// A callback of GoCardless that tells of these events: `id`, and the payment it is about.
fn batch(events: &[(&str, &str)]) -> String {
    let event = |(id, payment): &(&str, &str)| {
        format!(
            "{{\"id\":\"{id}\",\"resource_type\":\"payments\",\"action\":\"confirmed\",\
             \"links\":{{\"payment\":\"{payment}\"}}}}"
        )
    };
    let events: Vec<_> = events.iter().map(event).collect();
    post(HOOK, "Content-Type: application/json\r\n", &format!("{{\"events\":[{}]}}", events.join(",")))
}

fn stripe(event: &str, kind: &str, object: &str) -> String {
    let body =
        format!("{{\"id\":\"{event}\",\"object\":\"event\",\"type\":\"{kind}\",\"data\":{{\"object\":{object}}}}}");
    post(HOOK, "Content-Type: application/json\r\n", &body)
}

/// A request that a fixture holds.
fn fixture(path: &str) -> Vec<u8> {
    std::fs::read(root().join("tests/fixtures").join(path)).unwrap()
}

async fn accepted(office: &mut Office, told: JoinHandle<Told>) -> Told {
    office.next().await.answer(BRACKETS);
    let told = told.await.unwrap();
    told.is_brackets();
    told
}

#[tokio::test]
async fn a_batch_goes_through_for_what_is_new_in_it_and_does_not_when_nothing_is() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), AT_ONCE).await;
    let one = gate.begin(batch(&[("EV1", "PM1")])).await;
    assert_eq!(accepted(&mut office, one).await.decision(), "first");
    let half_new = gate.begin(batch(&[("EV1", "PM1"), ("EV2", "PM2")])).await;
    assert_eq!(accepted(&mut office, half_new).await.decision(), "first");
    let repeated = "callbacks_total{rule=\"invoice-ninja-webhook\",provider=\"gocardless\",channel=\"webhook\",\
        decision=\"repeated\"}";
    assert!((gate.figure(repeated) - 1.0).abs() < f64::EPSILON);
    for known in [&[("EV2", "PM2"), ("EV1", "PM1")][..], &[("EV1", "PM1"), ("EV2", "PM2")]] {
        let told = gate.ask(batch(known)).await;
        assert_eq!((told.status(), told.body.as_str(), told.decision()), (204, "", "replayed"));
    }
    let known = gate.ask(batch(&[("EV2", "PM2")])).await;
    assert_eq!(known.decision(), "replayed");
    assert!(office.is_quiet());
}

#[tokio::test]
async fn a_batch_waits_for_all_it_tells_of_and_lets_strangers_pass() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), AT_ONCE).await;
    let first = gate.begin(batch(&[("EV1", "PM1")])).await;
    let in_the_app = office.next().await;
    let both = gate.begin(batch(&[("EV2", "PM2"), ("EV3", "PM1")])).await;
    gate.waiters(2).await;
    // It stands in both queues: what comes after it for either of them waits behind it.
    let behind = gate.begin(batch(&[("EV4", "PM2")])).await;
    gate.waiters(3).await;
    let stranger = gate.begin(batch(&[("EV5", "PM3")])).await;
    let passing = office.next().await;
    assert!(passing.body.contains("EV5"), "{}", passing.body);
    passing.answer(BRACKETS);
    stranger.await.unwrap().is_brackets();
    assert!(office.is_quiet_for(Duration::from_millis(50)).await);
    in_the_app.answer(BRACKETS);
    first.await.unwrap().is_brackets();
    let visit = office.next().await;
    assert!(visit.body.contains("EV2") && visit.body.contains("EV3"), "{}", visit.body);
    assert!(office.is_quiet_for(Duration::from_millis(50)).await);
    visit.answer(BRACKETS);
    both.await.unwrap().is_brackets();
    let visit = office.next().await;
    assert!(visit.body.contains("EV4"), "{}", visit.body);
    visit.answer(BRACKETS);
    behind.await.unwrap().is_brackets();
}

#[tokio::test]
async fn two_events_of_one_payment_of_stripes_run_one_after_the_other() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), AT_ONCE).await;
    let intent = "{\"id\":\"pi_1\",\"object\":\"payment_intent\",\"status\":\"succeeded\"}";
    let charge = "{\"id\":\"ch_1\",\"object\":\"charge\",\"payment_intent\":\"pi_1\"}";
    let one = gate.begin(stripe("evt_1", "payment_intent.succeeded", intent)).await;
    let in_the_app = office.next().await;
    let other = gate.begin(stripe("evt_2", "charge.succeeded", charge)).await;
    gate.waiters(2).await;
    assert!(office.is_quiet_for(Duration::from_millis(50)).await);
    in_the_app.answer(BRACKETS);
    one.await.unwrap().is_brackets();
    let visit = office.next().await;
    assert!(visit.body.contains("evt_2"), "{}", visit.body);
    visit.answer(BRACKETS);
    assert_eq!(other.await.unwrap().decision(), "new_state");
    assert_eq!(gate.ask(stripe("evt_1", "payment_intent.succeeded", intent)).await.decision(), "replayed");
}

#[tokio::test]
async fn a_payer_who_comes_back_with_stripes_name_of_the_payment_waits_for_its_webhook_only() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), AT_ONCE).await;
    // A dispute carries no hash.
    let dispute = "{\"id\":\"du_1\",\"object\":\"dispute\",\"payment_intent\":\"pi_1\",\"status\":\"lost\"}";
    let hook = gate.begin(stripe("evt_1", "charge.dispute.closed", dispute)).await;
    let in_the_app = office.next().await;
    let come = |hash: &str, intent: &str| back(&format!("{hash}&payment_intent={intent}"));
    let same = gate.begin(come("h1", "pi_1")).await;
    let other = gate.begin(come("h2", "pi_2")).await;
    let visit = office.next().await;
    assert!(visit.line().contains("pi_2"), "{}", visit.line());
    visit.says(200, "paid");
    other.await.unwrap();
    assert!(office.is_quiet_for(Duration::from_millis(50)).await);
    in_the_app.answer(BRACKETS);
    hook.await.unwrap().is_brackets();
    let visit = office.next().await;
    assert!(visit.line().contains("pi_1"), "{}", visit.line());
    visit.says(200, "paid");
    same.await.unwrap();
}

#[tokio::test]
async fn nothing_unsigned_or_forged_takes_the_place_of_what_is_signed() {
    let mut office = Office::open().await;
    let more = "[provider.gocardless]\nsecrets = [{ value = 'gocardless-fixture-secret' }]\n\
        [[rule]]\npath = '/webhooks/{provider}'\nprovider = 'auto'\nhold = '0s'\n";
    let gate = Standing::before(&office.url(), more).await;
    let forged = gate.ask(fixture("gocardless/forged.http")).await;
    assert_eq!((forged.status(), forged.decision()), (498, "unverified"));
    let unsigned = gate.begin(fixture("gocardless/unsigned.http")).await;
    assert_eq!(accepted(&mut office, unsigned).await.decision(), "first");
    let signed = gate.begin(fixture("gocardless/confirmed.http")).await;
    assert_eq!(accepted(&mut office, signed).await.decision(), "conflict", "though it tells the same");
    for known in ["confirmed", "unsigned"] {
        assert_eq!(gate.ask(fixture(&format!("gocardless/{known}.http"))).await.decision(), "replayed");
    }
    assert!(office.is_quiet());
}
