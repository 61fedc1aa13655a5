//! What is acknowledged before the app has it: at once, or because the app is slow. It is on the disk then, and ours to
//! bring.

use std::time::Duration;

use tempfile::TempDir;

use crate::support::{
    Office, Standing, Told,
    office::{BRACKETS, Closed},
    standing::post,
};

const BROKEN: &str = "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\noops";

/// A gate with a disk; its rule says what a test adds to it.
async fn gate(url: &str, rule: &str) -> (Standing, TempDir) {
    gate_that_tries(url, 50, rule).await
}

/// The same, and how often it tries.
async fn gate_that_tries(url: &str, attempts: u32, rule: &str) -> (Standing, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "[store]\nengine = 'embedded'\npath = '{}'\n[[rule]]\npath = '/hook'\nprovider = 'adyen'\n\
         reference = 'header:x-payment'\nevent_id = 'header:x-event'\nhold = '0s'\n\
         retry = {{ first = '50ms', longest = '200ms', attempts = {attempts} }}\n{rule}\n",
        folder.path().join("data").display()
    );
    (Standing::before(url, &text).await, folder)
}

fn event(payment: &str, event: &str) -> String {
    let fields = format!("Content-Type: application/json\r\nX-Payment: {payment}\r\nX-Event: {event}\r\n");
    let item = format!(
        r#"{{"pspReference":"{payment}{event}","originalReference":"{payment}","merchantAccountCode":"M","eventCode":"CAPTURE","success":"true","amount":{{"currency":"EUR","value":1}}}}"#
    );
    post("/hook", &fields, &format!(r#"{{"live":"false","notificationItems":[{{"NotificationRequestItem":{item}}}]}}"#))
}

/// Asserts that this is the provider's own acknowledgement.
#[track_caller]
fn is_acknowledged(told: &Told, decision: &str) {
    assert_eq!((told.status(), told.body.as_str(), told.decision()), (200, "[accepted]", decision), "{told:?}");
}

const ACCEPTED: &str = "deliveries_total{provider=\"adyen\",outcome=\"accepted\"}";

#[tokio::test]
async fn what_is_accepted_is_acknowledged_at_once_to_all_who_bring_it_and_arrives_once() {
    let mut app = Office::open().await;
    let (gate, _folder) = gate(&app.url(), "answer = 'accept'").await;
    let webhook = event("p1", "e1");
    is_acknowledged(&gate.ask(&webhook).await, "first");
    let visit = app.next().await;
    is_acknowledged(&gate.ask(&webhook).await, "joined");
    visit.answer(BRACKETS);
    gate.until("it is settled", || gate.figure(ACCEPTED) >= 1.0).await;
    is_acknowledged(&gate.ask(&webhook).await, "replayed");
    assert_eq!(gate.figure("acknowledged_total{by=\"accept\"}"), 1.0);
    assert!(app.is_quiet());
}

#[tokio::test]
async fn what_an_app_that_is_down_has_missed_arrives_when_it_is_back() {
    let app = Closed::new();
    let (gate, _folder) = gate(&app.url(), "answer = 'accept'").await;
    is_acknowledged(&gate.ask(event("p1", "e1")).await, "first");
    gate.until("it was tried in vain", || gate.figure("upstream_connects_total{result=\"failed\"}") >= 2.0).await;
    is_acknowledged(&gate.ask(event("p1", "e1")).await, "joined");
    let ready = gate.admin("/readyz").await;
    assert!(ready.body.starts_with("ready\nqueue: 1 acknowledged and not in the app yet"), "{ready:?}");
    let mut app = app.open();
    let visit = app.next().await;
    assert!(visit.body.contains("p1e1"));
    visit.answer(BROKEN);
    let visit = app.next().await;
    assert!(visit.body.contains("p1e1"), "what the app refuses is tried again too");
    visit.answer(BRACKETS);
    gate.until("it is settled", || gate.figure(ACCEPTED) >= 1.0).await;
    assert!(app.is_quiet());
}

#[tokio::test]
async fn an_app_that_is_down_is_left_alone_and_found_again_by_itself() {
    let app = Closed::new();
    let (gate, _folder) = gate(&app.url(), "[[rule]]\npath = '/back'\nchannel = 'return'").await;
    for payment in 1..=5 {
        assert_eq!(gate.ask(event(&format!("p{payment}"), "e1")).await.status(), 502);
    }
    let told = gate.ask(event("p6", "e1")).await;
    assert_eq!((told.status(), told.decision()), (503, "first"));
    assert!(!told.head.all("retry-after").is_empty(), "{told:?}");
    assert!(gate.admin("/readyz").await.body.contains("app: it seems to be down"));
    assert_eq!(gate.figure("upstream_kept_back_total"), 1.0);
    let back = "GET /back HTTP/1.1\r\nHost: pay.example\r\nConnection: close\r\n\r\n";
    assert_eq!(gate.ask(back).await.status(), 502, "a payer goes and sees");
    let _seen = app.open().answer_all(BRACKETS);
    assert_eq!(gate.ask(back).await.status(), 200);
    assert_eq!(gate.ask(event("p6", "e1")).await.status(), 200, "the payer was answered, so one may try");
    for payment in ["p7", "p8"] {
        assert_eq!(gate.ask(event(payment, "e1")).await.status(), 200);
    }
    assert!(!gate.admin("/readyz").await.body.contains("app:"));
}

#[tokio::test]
async fn after_the_last_try_it_waits_for_a_person() {
    let mut app = Office::open().await;
    let (gate, _folder) = gate_that_tries(&app.url(), 2, "answer = 'accept'").await;
    is_acknowledged(&gate.ask(event("p1", "e1")).await, "first");
    for _ in 0..2 {
        app.next().await.answer(BROKEN);
    }
    gate.until("it waits for a person", || gate.figure("review_entries") >= 1.0).await;
    assert!(app.is_quiet());
}

#[tokio::test]
async fn who_waits_for_a_slow_app_is_acknowledged_in_time_and_the_work_goes_on() {
    let mut app = Office::open().await;
    let (gate, _folder) = gate(&app.url(), "answer_within = '200ms'").await;
    let webhook = event("p1", "e1");
    let first = gate.begin(&webhook).await;
    let visit = app.next().await;
    is_acknowledged(&first.await.unwrap(), "first");
    is_acknowledged(&gate.ask(&webhook).await, "joined");
    assert!(!visit.is_cut());
    visit.answer(BROKEN);
    let visit = app.next().await;
    assert!(visit.body.contains("p1e1"), "the failure is ours to retry");
    visit.answer(BRACKETS);
    gate.until("it is settled", || gate.figure(ACCEPTED) >= 1.0).await;
    let told = gate.ask(&webhook).await;
    assert_eq!((told.status(), told.body.as_str(), told.decision()), (200, "[]", "replayed"));
    assert_eq!(gate.figure("acknowledged_total{by=\"answer_within\"}"), 1.0);
}

#[tokio::test]
async fn who_is_acknowledged_while_it_waits_its_turn_is_owed_it_too() {
    let mut app = Office::open().await;
    let (gate, _folder) = gate(&app.url(), "answer_within = '100ms'").await;
    let first = gate.begin(event("p1", "e1")).await;
    let visit = app.next().await;
    is_acknowledged(&first.await.unwrap(), "first");
    is_acknowledged(&gate.ask(event("p1", "e2")).await, "new_state");
    visit.answer(BRACKETS);
    let visit = app.next().await;
    assert!(visit.body.contains("p1e2"));
    visit.answer(BRACKETS);
    gate.until("both are settled", || gate.figure(ACCEPTED) >= 2.0).await;
}

#[tokio::test]
async fn an_app_in_time_speaks_for_itself_and_its_failure_is_the_senders_to_repeat() {
    let mut app = Office::open().await;
    let (gate, _folder) = gate(&app.url(), "answer_within = '9s'").await;
    let told = gate.begin(event("p1", "e1")).await;
    app.next().await.answer(BROKEN);
    assert_eq!(told.await.unwrap().status(), 500);
    assert!(app.is_quiet_for(Duration::from_millis(150)).await, "nobody was told success");
    let told = gate.begin(event("p1", "e1")).await;
    app.next().await.answer(BRACKETS);
    let told = told.await.unwrap();
    assert_eq!((told.body.as_str(), told.decision()), ("[]", "first"));
}

#[tokio::test]
async fn what_may_have_been_read_is_sent_again_only_where_the_rule_says_so() {
    for (choice, again) in [("resend", true), ("review", false)] {
        let mut app = Office::open().await;
        let rule = format!("answer = 'accept'\non_unknown = '{choice}'\nquiet = '50ms'");
        let (gate, _folder) = gate(&app.url(), &rule).await;
        is_acknowledged(&gate.ask(event("p1", "e1")).await, "first");
        app.next().await.resets("");
        if again {
            app.next().await.answer(BRACKETS);
            gate.until("it is settled", || gate.figure(ACCEPTED) >= 1.0).await;
        } else {
            gate.until("it waits for a person", || gate.figure("review_entries") >= 1.0).await;
            assert!(app.is_quiet_for(Duration::from_millis(100)).await);
        }
    }
}
