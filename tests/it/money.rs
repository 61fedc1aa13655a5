//! What comes late, and what is paid twice: at the door of a whole gate, by providers who tell and one who is asked.

use ring::hmac;
use serde_json::{Value, json};

use crate::support::{
    Office, Standing, Till, Told,
    office::BRACKETS,
    process::{Process, oncegate},
    standing::{NINJA, config, connect, heard, mollie, mollie_at, post},
};

const HASH: &str = "0123456789abcdef0123456789abcdef";
const SECRET: &str = "canary-razorpay";
const HOOK: &str = "/webhooks/shop";
const TOKEN: &str = "correct-horse-battery-staple";

/// A gate before an app that takes whatever comes, and Razorpay's webhooks for it.
fn shop(more: &str) -> String {
    format!(
        "admin.token = {{ value = '{TOKEN}' }}\n[provider.razorpay]\nsecrets = [{{ value = '{SECRET}' }}]\n\
         [[rule]]\npath = '{HOOK}'\nprovider = 'razorpay'\nhold = '0s'\n{more}"
    )
}

/// An event of this payment: its kind, what belongs to it, and its id.
fn tells(id: &str, kind: &str, payment: &str, order: &str, more: &Value) -> String {
    let mut payload = json!({ "payment": { "entity": {
        "id": payment, "amount": 12100, "currency": "INR", "status": "captured", "order_id": order,
    } } });
    for (name, entity) in more.as_object().into_iter().flatten() {
        payload[name] = json!({ "entity": entity });
    }
    let event = json!({ "entity": "event", "event": kind, "contains": ["payment"], "payload": payload });
    signed(id, &event.to_string(), Some(SECRET))
}

fn signed(id: &str, body: &str, secret: Option<&str>) -> String {
    let tag = secret.map(|secret| {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), body.as_bytes());
        let hex: String = tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("X-Razorpay-Signature: {hex}\r\n")
    });
    let fields = format!("Content-Type: application/json\r\nX-Razorpay-Event-Id: {id}\r\n{}", tag.unwrap_or_default());
    post(HOOK, &fields, body)
}

fn paid(id: &str, payment: &str, order: &str) -> String {
    tells(id, "payment.captured", payment, order, &json!({}))
}

fn refund(id: &str, payment: &str, refund: &str) -> String {
    let entity =
        json!({ "id": refund, "payment_id": payment, "amount": 1000, "currency": "INR", "status": "processed" });
    tells(id, "refund.processed", payment, "order_1", &json!({ "refund": entity }))
}

fn charged_back(id: &str, payment: &str) -> String {
    let entity = json!({ "id": "disp_1", "payment_id": payment, "amount": 10100, "currency": "INR", "status": "lost" });
    tells(id, "payment.dispute.lost", payment, "order_1", &json!({ "dispute": entity }))
}

/// What waits for a person, as reason and reference.
async fn waiting(gate: &Standing) -> Vec<(String, String)> {
    let mut wire = connect(gate.running.admin.unwrap()).await;
    wire.write(format!(
        "GET /api/v1/review HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    ))
    .await;
    let told: Told = heard(wire).await;
    let page: Value = serde_json::from_str(&told.body).unwrap_or_else(|error| panic!("{error}: {told:?}"));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entry = |entry: &Value| (text(&entry["reason"]), text(&entry["references"][0]));
    page["entries"].as_array().unwrap_or_else(|| panic!("{page}")).iter().map(entry).collect()
}

#[tokio::test]
async fn four_things_told_five_times_each_are_delivered_four_times() {
    let office = Office::open().await;
    let gate = Standing::before(&office.url(), &shop("")).await;
    let mut seen = office.answer_all(BRACKETS);
    let life = [
        paid("e1", "pay_1", "order_1"),
        refund("e2", "pay_1", "rfnd_1"),
        refund("e3", "pay_1", "rfnd_2"),
        charged_back("e4", "pay_1"),
    ];
    for (at, told) in life.iter().enumerate() {
        for time in 0..5 {
            let expected = if time > 0 { "replayed" } else { ["first", "new_state"][at.min(1)] };
            assert_eq!(gate.ask(told).await.decision(), expected);
        }
    }
    assert_eq!(std::iter::from_fn(|| seen.try_recv().ok()).count(), 4);
    for told in life.iter().rev() {
        assert_eq!(gate.ask(told).await.decision(), "replayed", "also in another order");
    }
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn a_payment_of_which_the_refund_was_told_first_reaches_the_app_all_the_same() {
    let office = Office::open().await;
    let gate = Standing::before(&office.url(), &shop("")).await;
    let mut seen = office.answer_all(BRACKETS);
    let life = [charged_back("e4", "pay_1"), refund("e3", "pay_1", "rfnd_2"), refund("e2", "pay_1", "rfnd_1")];
    assert_eq!(gate.ask(&life[0]).await.decision(), "first");
    assert_eq!(gate.ask(&life[1]).await.decision(), "new_state");
    assert_eq!(gate.ask(&life[2]).await.decision(), "new_state");
    let told = gate.ask(paid("e1", "pay_1", "order_1")).await;
    assert_eq!((told.status(), told.decision()), (200, "new_state"), "money is never told too late");
    for told in &life {
        assert_eq!(gate.ask(told).await.decision(), "replayed");
    }
    assert_eq!(std::iter::from_fn(|| seen.try_recv().ok()).count(), 4);
    assert_eq!(waiting(&gate).await, []);
}

#[tokio::test]
async fn what_tells_another_state_under_an_id_that_is_known_is_forwarded_and_a_person_sees_it() {
    let office = Office::open().await;
    let gate = Standing::before(&office.url(), &shop("")).await;
    let mut seen = office.answer_all(BRACKETS);
    assert_eq!(gate.ask(paid("e1", "pay_1", "order_1")).await.decision(), "first");
    let told = gate.ask(refund("e1", "pay_1", "rfnd_1")).await;
    assert_eq!((told.status(), told.decision()), (200, "conflict"));
    assert_eq!(std::iter::from_fn(|| seen.try_recv().ok()).count(), 2, "no change is swallowed");
    assert_eq!(waiting(&gate).await, [("conflict".to_owned(), "pay_1".to_owned())]);
}

#[tokio::test]
async fn what_is_older_than_the_app_knows_is_acknowledged_and_kept_from_it() {
    let office = Office::open().await;
    let gate = Standing::before(&office.url(), &shop("")).await;
    let mut seen = office.answer_all(BRACKETS);
    let tells = |id: &str, kind: &str| tells(id, kind, "pay_1", "order_1", &json!({}));
    // A late authorisation, which Razorpay documents.
    assert_eq!(gate.ask(tells("e1", "payment.failed")).await.decision(), "first");
    assert_eq!(gate.ask(tells("e2", "payment.authorized")).await.decision(), "new_state");
    assert_eq!(gate.ask(tells("e3", "payment.captured")).await.decision(), "new_state");
    for (id, kind) in [("e4", "payment.authorized"), ("e5", "payment.failed")] {
        for _ in 0..2 {
            let told = gate.ask(tells(id, kind)).await;
            assert_eq!((told.status(), told.decision()), (200, "stale"), "{kind}");
        }
    }
    assert_eq!(gate.ask(tells("e6", "order.paid")).await.decision(), "new_state", "that it is paid is no step back");
    assert_eq!(std::iter::from_fn(|| seen.try_recv().ok()).count(), 4);
    assert_eq!(waiting(&gate).await, [], "no money moves by that");
}

#[tokio::test]
async fn nothing_unsigned_makes_what_is_signed_too_old() {
    let office = Office::open().await;
    let gate = Standing::before(&office.url(), &shop("")).await;
    let _seen = office.answer_all(BRACKETS);
    let made_up = json!({ "entity": "event", "event": "payment.captured", "contains": ["payment"], "payload":
        { "payment": { "entity": { "id": "pay_1", "amount": 1, "currency": "INR", "order_id": "order_1" } } } });
    assert_eq!(gate.ask(signed("made up", &made_up.to_string(), None)).await.decision(), "first");
    let told = tells("e1", "payment.authorized", "pay_1", "order_1", &json!({}));
    assert_eq!(gate.ask(told).await.decision(), "new_state");
    assert_eq!(gate.ask(paid("e2", "pay_2", "order_1")).await.decision(), "first", "nor is it a second payment");
}

#[tokio::test]
async fn a_payment_that_is_told_anew_when_all_of_it_is_gone_is_shown_to_a_person() {
    let office = Office::open().await;
    let gate = Standing::before(&office.url(), &shop("")).await;
    let mut seen = office.answer_all(BRACKETS);
    gate.ask(paid("e1", "pay_1", "order_1")).await.is_brackets();
    gate.ask(charged_back("e2", "pay_1")).await.is_brackets();
    for _ in 0..3 {
        let told = gate.ask(tells("e3", "order.paid", "pay_1", "order_1", &json!({}))).await;
        assert_eq!((told.status(), told.body.as_str()), (200, ""));
    }
    assert_eq!(waiting(&gate).await, [("stale".to_owned(), "pay_1".to_owned())]);
    assert_eq!(std::iter::from_fn(|| seen.try_recv().ok()).count(), 2);
}

#[tokio::test]
async fn of_two_payments_of_one_order_both_reach_the_app_and_a_person_hears_of_the_second() {
    let mut office = Office::open().await;
    let gate = Standing::before(&office.url(), &shop("")).await;
    let payments = ["pay_1", "pay_2"].map(|payment| paid(&format!("{payment} paid"), payment, "order_1"));
    let mut told = Vec::new();
    for payment in &payments {
        told.push(gate.begin(payment).await);
    }
    for _ in 0..2 {
        office.next().await.answer(BRACKETS);
    }
    let mut decisions = Vec::new();
    for told in told {
        let told = told.await.unwrap();
        told.is_brackets();
        decisions.push(told.decision().to_owned());
    }
    decisions.sort();
    assert_eq!(decisions, ["first", "second_payment"], "at once, or one after the other");
    let seconds =
        "callbacks_total{rule=\"default\",provider=\"razorpay\",channel=\"webhook\",decision=\"second_payment\"}";
    assert_eq!(gate.figure(seconds), 1.0);
    let entries = waiting(&gate).await;
    assert!(matches!(&entries[..], [(reason, _)] if reason == "second_payment"), "{entries:?}");
    for payment in &payments {
        assert_eq!(gate.ask(payment).await.decision(), "replayed", "it is no duplicate, and has duplicates");
    }
    let other = gate.begin(paid("e3", "pay_3", "order_2")).await;
    office.next().await.answer(BRACKETS);
    assert_eq!(other.await.unwrap().decision(), "first");
    assert_eq!(waiting(&gate).await.len(), 1);
}

#[tokio::test]
async fn what_a_rule_says_is_paid_in_parts_is_paid_as_often_as_it_likes() {
    let office = Office::open().await;
    let gate = Standing::before(&office.url(), &shop("paid_once = []\n")).await;
    let _seen = office.answer_all(BRACKETS);
    for payment in ["pay_1", "pay_2"] {
        assert_eq!(gate.ask(paid(payment, payment, "order_1")).await.decision(), "first");
    }
}

#[tokio::test]
async fn a_payer_who_pays_twice_with_a_provider_that_is_asked_is_found_by_the_hash_it_tells() {
    let (till, office) = (Till::open().await, Office::open().await);
    let gate = Standing::before(&office.url(), &format!("{NINJA}{}", till.asked_with(&["test_a"], ""))).await;
    let mut seen = office.answer_all(BRACKETS);
    let decision = async |payment: &str| gate.ask(mollie(payment)).await.decision().to_owned();
    till.knows("tr_1", "open", HASH);
    assert_eq!(decision("tr_1").await, "first");
    till.knows("tr_2", "paid", HASH);
    assert_eq!(decision("tr_2").await, "first", "the one that is open has paid nothing");
    till.knows("tr_1", "paid", HASH);
    assert_eq!(decision("tr_1").await, "second_payment");
    assert_eq!(decision("tr_1").await, "replayed");
    // In part it is still there, and then it is not.
    till.refunded("tr_1", "10.00", &["re_1"]);
    assert_eq!(decision("tr_1").await, "new_state");
    till.refunded("tr_2", "121.00", &["re_2"]);
    assert_eq!(decision("tr_2").await, "new_state");
    till.knows("tr_3", "paid", HASH);
    assert_eq!(decision("tr_3").await, "second_payment", "of the one that was given back in part");
    till.refunded("tr_1", "121.00", &["re_1", "re_3"]);
    till.refunded("tr_3", "121.00", &["re_4"]);
    assert_eq!((decision("tr_1").await, decision("tr_3").await), ("new_state".into(), "new_state".into()));
    till.knows("tr_4", "paid", HASH);
    assert_eq!(decision("tr_4").await, "first", "nothing is left of the others");
    assert_eq!(std::iter::from_fn(|| seen.try_recv().ok()).count(), 9);
}

#[tokio::test]
async fn what_anybody_may_have_written_beside_a_reference_names_no_order() {
    let (till, office) = (Till::open().await, Office::open().await);
    let rule = "[[rule]]\npath = '/hook'\nprovider = 'mollie'\naliases.order = 'query:order'\nhold = '0s'\n";
    let gate = Standing::before(&office.url(), &format!("{rule}{}", till.asked_with(&["test_a"], ""))).await;
    let _seen = office.answer_all(BRACKETS);
    for (payment, hash) in [("tr_1", "hash 1"), ("tr_2", "hash 2"), ("tr_3", "hash 2")] {
        till.knows(payment, "paid", hash);
        let told = gate.ask(mollie_at("pay.example", "/hook?order=1001", payment)).await;
        assert_eq!(told.decision(), if payment == "tr_3" { "second_payment" } else { "first" });
    }
}

#[test]
fn explain_shows_what_is_stale_what_is_paid_once_and_what_is_paid_twice() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), config("http://127.0.0.1:1", &shop(""))).unwrap();
    let events = [
        paid("e1", "pay_1", "order_1"),
        tells("e2", "payment.failed", "pay_1", "order_1", &json!({})),
        paid("e3", "pay_2", "order_1"),
        paid("e4", "pay_3", "order_2"),
    ];
    let files: Vec<_> = (1..=events.len()).map(|number| format!("{number}.http")).collect();
    for (file, event) in files.iter().zip(&events) {
        std::fs::write(folder.path().join(file), event).unwrap();
    }
    let explained = |more: &[&str]| {
        let args: Vec<_> = ["explain"].iter().chain(more).copied().chain(files.iter().map(String::as_str)).collect();
        let out = oncegate(folder.path(), &args);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    };
    let lines: Vec<Value> =
        explained(&["--format", "json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let decisions: Vec<_> = lines.iter().map(|line| line["decision"].as_str().unwrap()).collect();
    assert_eq!(decisions, ["first", "stale", "second_payment", "first"]);
    assert_eq!(lines[0]["policy"]["paid_once"], json!(["order", "payment_hash", "razorpay_order"]));
    let told = explained(&[]);
    assert!(told.contains("3.http: second_payment, another payment has paid the same"), "{told}");
    assert!(told.contains("paid once: razorpay_order order_1"), "{told}");
}

// What starts and stops processes blocks its thread.
#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_was_killed_knows_what_has_paid_an_order() {
    let (office, folder) = (Office::open().await, tempfile::tempdir().unwrap());
    let path = folder.path().join("store");
    let more = shop(&format!("[store]\nengine = 'embedded'\npath = '{}'\n", path.display()));
    let url = office.url();
    let _seen = office.answer_all(BRACKETS);
    for (payment, expected) in [("pay_1", "first"), ("pay_2", "second_payment")] {
        // Killed when it is dropped.
        let gate = Process::start(&url, &more);
        let mut wire = connect(gate.address).await;
        wire.write(paid(payment, payment, "order_1")).await;
        assert_eq!(heard(wire).await.decision(), expected);
    }
}
