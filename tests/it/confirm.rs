//! What nobody knows that the app got: its own books are asked, on real servers, and decide what follows.

use crate::support::{
    MariaDb, Office, Postgres, Standing, Till,
    office::BRACKETS,
    passes,
    process::Process,
    standing::{NINJA, connect, heard, joined, mollie, post},
};
use std::time::Duration;

use mysql_async::prelude::Queryable;

/// What a preset's rule says for this: it is quiet soon, and what comes again meanwhile is told to.
const SOON: &str = "quiet = '150ms'\n";

fn counted(gate: &Standing, result: &str) -> f64 {
    gate.figure(&format!("confirmations_total{{result=\"{result}\"}}"))
}

async fn book(database: &MariaDb, reference: &str, status: u32, deleted: bool) {
    let row = "INSERT INTO payments (transaction_reference, status_id, is_deleted) VALUES (?, ?, ?)";
    database.root("ninja").await.exec_drop(row, (reference, status, deleted)).await.unwrap();
}

/// The preset before this app, asking its provider and its database.
async fn gate(office: &Office, till: &Till, database: &MariaDb, rule: &str) -> Standing {
    let asked = format!("{NINJA}{SOON}{rule}{}{}", till.asked_with(&["test_a"], ""), database.asked());
    Standing::before(&office.url(), &asked).await
}

#[tokio::test]
async fn what_the_app_has_booked_though_its_answer_was_lost_is_settled_and_not_sent_again() {
    let (database, till, mut office) = (MariaDb::start().await, Till::open().await, Office::open().await);
    let gate = gate(&office, &till, &database, "").await;
    till.knows("tr_1", "paid", "h1");
    let webhook = gate.begin(mollie("tr_1")).await;
    let visit = office.next().await;
    book(&database, "tr_1", 4, false).await;
    visit.resets("");
    assert_eq!(webhook.await.unwrap().status(), 502);
    gate.until("the books were asked", || counted(&gate, "booked") >= 1.0).await;
    gate.until("it is settled", || gate.running.metrics.in_flight.get() == 0).await;
    let again = gate.ask(mollie("tr_1")).await;
    assert_eq!((again.status(), again.decision()), (200, "replayed"), "{again:?}");
    assert!(office.is_quiet(), "it was not booked twice");
}

#[tokio::test]
async fn what_the_app_has_not_booked_as_paid_is_sent_again() {
    // Nothing is there; another's; one that was begun and is not paid; one that was deleted.
    for (reference, status, deleted) in [("tr_2", 4, false), ("TR_1", 4, false), ("tr_1", 1, false), ("tr_1", 4, true)]
    {
        let (database, till, mut office) = (MariaDb::start().await, Till::open().await, Office::open().await);
        let gate = gate(&office, &till, &database, "on_unknown = 'confirm'\n").await;
        till.knows("tr_1", "paid", "h1");
        book(&database, reference, status, deleted).await;
        let webhook = gate.begin(mollie("tr_1")).await;
        office.next().await.resets("");
        assert_eq!(webhook.await.unwrap().status(), 502);
        if reference == "TR_1" {
            // The database takes it for the same; nobody else does.
            gate.until("the books were asked", || counted(&gate, "no_answer") >= 1.0).await;
            assert!(office.is_quiet());
            continue;
        }
        office.next().await.answer(BRACKETS);
        assert_eq!((counted(&gate, "not_booked"), counted(&gate, "booked")), (1.0, 0.0), "{reference} {status}");
        gate.until("it is settled", || {
            gate.figure("deliveries_total{provider=\"mollie\",outcome=\"accepted\"}") >= 1.0
        })
        .await;
        gate.ask(mollie("tr_1")).await.is_brackets();
        assert!(office.is_quiet());
    }
}

#[tokio::test]
async fn a_refund_is_not_confirmed_by_a_payment_that_is_there() {
    let (database, till, mut office) = (MariaDb::start().await, Till::open().await, Office::open().await);
    let gate = gate(&office, &till, &database, "").await;
    till.knows("tr_1", "paid", "h1");
    let webhook = gate.begin(mollie("tr_1")).await;
    office.next().await.answer(BRACKETS);
    webhook.await.unwrap().is_brackets();
    book(&database, "tr_1", 4, false).await;
    till.refunded("tr_1", "10.00", &["re_1"]);
    let webhook = gate.begin(mollie("tr_1")).await;
    office.next().await.resets("");
    assert_eq!(webhook.await.unwrap().status(), 502);
    office.next().await.answer(BRACKETS);
    assert_eq!(gate.figure("lookups_total{result=\"found\"}"), 0.0, "nobody was asked");
    assert_eq!(counted(&gate, "booked"), 0.0);
}

#[tokio::test]
async fn where_nobody_can_say_the_policy_decides() {
    for (choice, resends) in [("'confirm'", false), ("['confirm', 'resend']", true)] {
        // A provider of whose payments no query tells.
        let (database, mut office) = (MariaDb::start().await, Office::open().await);
        let rule = format!("{NINJA}{SOON}on_unknown = {choice}\nsuccess = 'status == 200'\n{}", database.asked());
        let gate = Standing::before(&office.url(), &rule).await;
        let stripe = joined("pi_1", "0123456789abcdef0123456789abcdef");
        let webhook = gate.begin(stripe).await;
        office.next().await.resets("");
        assert_eq!(webhook.await.unwrap().status(), 502);
        gate.until("nobody was to be asked", || counted(&gate, "nobody") >= 1.0).await;
        if resends {
            office.next().await.answer(BRACKETS);
        } else {
            gate.until("a person has it", || gate.figure("review_entries") >= 1.0).await;
            assert!(office.is_quiet());
        }
    }
}

#[tokio::test]
async fn a_database_that_is_down_is_asked_again_and_nothing_is_sent_meanwhile() {
    let (mut database, till, mut office) = (MariaDb::start().await, Till::open().await, Office::open().await);
    let gate = gate(&office, &till, &database, "on_unknown = ['confirm', 'resend']\n").await;
    till.knows("tr_1", "paid", "h1");
    let webhook = gate.begin(mollie("tr_1")).await;
    let visit = office.next().await;
    // It is to be there when the database is back, which is killed.
    database.root("ninja").await.query_drop("SET GLOBAL innodb_flush_log_at_trx_commit = 1").await.unwrap();
    book(&database, "tr_1", 4, false).await;
    database.stop();
    visit.resets("");
    assert_eq!(webhook.await.unwrap().status(), 502);
    gate.until("it was asked in vain", || counted(&gate, "no_answer") >= 1.0).await;
    assert!(office.is_quiet());
    database.start_again().await;
    // It is asked again every five seconds.
    passes(Duration::from_secs(5)).await;
    let asked = async {
        while counted(&gate, "booked") < 1.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(90), asked).await.expect("it is asked again");
    assert!(office.is_quiet());
}

/// A generic shop's webhook about a payment.
fn paid(reference: &str) -> String {
    let body = format!("id={reference}&state=paid");
    post("/hook", "Content-Type: application/x-www-form-urlencoded\r\n", &body)
}

#[tokio::test]
async fn a_postgresql_is_asked_in_the_same_way() {
    let database = Postgres::start(&[
        "CREATE TABLE orders (reference text, paid boolean)",
        "INSERT INTO orders VALUES ('p1', true), ('p2', false), ('p3', true)",
        "CREATE ROLE oncegate LOGIN PASSWORD 'reads'",
        "GRANT SELECT ON orders TO oncegate",
    ])
    .await;
    let mut office = Office::open().await;
    let url = database.url("oncegate", "reads");
    let gate = Standing::before(
        &office.url(),
        &format!(
            "[[rule]]\npath = '/hook'\nprovider = 'generic'\nreference = 'form:id'\nstate = 'form:state'\n\
             identity = 'state'\nhold = '0s'\n{SOON}[lookup]\ntimeout = '5s'\nurl = {{ value = '{url}' }}\n\
             booked = [{{ from = 'reference.generic', sql = \"SELECT nullif(reference, 'p3') FROM orders WHERE reference = $1 AND paid\" }}]\n"
        ),
    )
    .await;
    // A row without a reference is a row, and no payment that is missing.
    for (reference, result) in [("p1", "booked"), ("p2", "not_booked"), ("p3", "no_answer")] {
        let webhook = gate.begin(paid(reference)).await;
        office.next().await.resets("");
        assert_eq!(webhook.await.unwrap().status(), 502);
        if result == "not_booked" {
            office.next().await.answer(BRACKETS);
        }
        gate.until(result, || counted(&gate, result) >= 1.0).await;
    }
    assert!(office.is_quiet());
}

/// The gate is killed while this is in the app, and another begins where it was; it says what the books were asked.
async fn killed_in_flight(booked: bool) {
    let (database, till, mut office) = (MariaDb::start().await, Till::open().await, Office::open().await);
    let folder = tempfile::tempdir().unwrap();
    let store = format!("[store]\nengine = 'embedded'\npath = '{}'\n", folder.path().join("data").display());
    let asked = format!("{NINJA}{SOON}{}{}{store}", till.asked_with(&["test_a"], ""), database.asked());
    till.knows("tr_1", "paid", "h1");
    let first = Process::start(&office.url(), &asked);
    let mut webhook = connect(first.address).await;
    webhook.write(mollie("tr_1")).await;
    let _visit = office.next().await;
    if booked {
        book(&database, "tr_1", 4, false).await;
    }
    first.signal("KILL");
    first.end().await;
    let next = Process::start(&office.url(), &asked);
    if !booked {
        office.next().await.answer(BRACKETS);
    }
    let said = next.says("the app's own books were asked");
    assert!(said.contains(if booked { "\"booked\"" } else { "\"not_booked\"" }), "{said}");
    // It is told again until it is settled, and then it is known.
    let mut tries = 0;
    let again = loop {
        let mut again = connect(next.address).await;
        again.write(mollie("tr_1")).await;
        let told = heard(again).await;
        if told.status() == 200 || tries == 100 {
            break told;
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!((again.status(), again.decision()), (200, "replayed"), "{again:?}");
    assert!(office.is_quiet(), "nothing came twice");
    next.signal("TERM");
    assert_eq!(next.end().await.0, Some(0));
}

// What starts and stops processes blocks its thread, and the app shall not stand still with it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_booked_when_the_gate_was_killed_is_settled_by_the_next() {
    killed_in_flight(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_booked_when_the_gate_was_killed_is_sent_once_more_by_the_next() {
    killed_in_flight(false).await;
}
