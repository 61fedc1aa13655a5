//! Invoice Ninja's API as the source of a confirmation: what it says counts if it is exactly what was asked for.

use std::{sync::Arc, time::Duration};

use oncegate::{
    config::{Loaded, World},
    lookup::{Lookup, Trouble},
    telemetry::Metrics,
    time::{SteadyClock, Timestamp},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    Office, Standing, Till,
    office::{BRACKETS, Closed},
    passes,
    standing::{NINJA, config, mollie},
    till::whole,
    wire::soon,
};

fn asked(url: &str) -> String {
    format!("preset = 'invoice-ninja'\n{}", books(url))
}

fn books(url: &str) -> String {
    format!("[lookup]\napi = '{url}'\napi_token = {{ value = 't0ken' }}\n")
}

fn lookup(url: &str) -> Arc<Lookup> {
    let loaded = Loaded::from_text("test", &config("http://127.0.0.1:1", &asked(url)), &World::real());
    let options = loaded.into_config().unwrap_or_else(|faults| panic!("{faults:?}")).lookup.unwrap();
    Lookup::new(options, SteadyClock::starting_at(Timestamp::EPOCH), Arc::new(Metrics::new())).unwrap()
}

async fn is_booked(lookup: &Lookup) -> Result<bool, Trouble> {
    // What it does not show nobody tells of: it is not said that it is not booked.
    let told = lookup.is_booked("mollie", "tr_1").await;
    assert_ne!(told, Some(Ok(false)));
    told.unwrap_or(Ok(false))
}

fn place(page: u32) -> String {
    format!("GET /api/v1/payments?filter=tr%5F1&status=active,archived&per_page=100&page={page}")
}

fn payment(reference: &str, status: &str, deleted: bool) -> Value {
    let more = json!({ "amount": 121, "paymentables": [] });
    json!({ "id": "Opnel5aKBz", "transaction_reference": reference, "status_id": status, "is_deleted": deleted, "more": more })
}

fn page(number: u32, of: u32, payments: &[Value]) -> Value {
    let pagination = json!({ "total": payments.len(), "current_page": number, "total_pages": of });
    json!({ "data": payments, "meta": { "pagination": pagination } })
}

#[tokio::test]
async fn what_is_there_as_paid_is_booked_and_nothing_else_is() {
    for (payments, booked) in [
        (vec![], false),
        (vec![payment("tr_1", "4", false)], true),
        (vec![payment("tr_1", "5", false)], true),
        (vec![payment("tr_1", "1", false)], false),
        (vec![payment("tr_1", "3", false)], false),
        (vec![payment("tr_1", "4", true)], false),
        // The search is for a part of it, and knows no upper case.
        (vec![payment("tr_10", "4", false), payment("TR_1", "4", false), payment("", "4", false)], false),
        (vec![payment("tr_10", "4", false), payment("tr_1", "4", false)], true),
    ] {
        let till = Till::open().await;
        till.at(&place(1), 200, page(1, 1, &payments));
        assert_eq!(is_booked(&lookup(&till.url())).await, Ok(booked), "{payments:?}");
        let [question] = &till.asked()[..] else { panic!("one question") };
        assert_eq!(question.one("x-api-token"), "t0ken");
        assert_eq!(question.one("x-requested-with"), "XMLHttpRequest");
    }
}

#[tokio::test]
async fn it_is_looked_through_page_by_page_and_not_for_ever() {
    let till = Till::open().await;
    let others = [payment("tr_10", "4", false)];
    till.at(&place(1), 200, page(1, 2, &others));
    till.at(&place(2), 200, page(2, 2, &[payment("tr_1", "4", false)]));
    assert_eq!(is_booked(&lookup(&till.url())).await, Ok(true));
    for number in 1..=4 {
        till.at(&place(number), 200, page(number, 4, &others));
    }
    assert!(matches!(is_booked(&lookup(&till.url())).await, Err(Trouble::Query(_))), "nobody can say");
    assert_eq!(till.asked().len(), 2 + 3);
}

#[tokio::test]
async fn what_is_not_as_expected_says_nothing() {
    let fine = || page(1, 1, &[payment("tr_1", "4", false)]);
    let without = |key: &str| {
        let mut page = fine();
        page["data"][0].as_object_mut().unwrap().remove(key);
        page
    };
    let elsewhere = Till::open().await;
    let redirect = format!("HTTP/1.1 302 Found\r\nlocation: {}/\r\ncontent-length: 0\r\n\r\n", elsewhere.url());
    for (answer, told) in [
        (whole(200, &without("transaction_reference")), "booked"),
        (whole(200, &without("status_id")), "wrong"),
        (whole(200, &without("is_deleted")), "wrong"),
        (whole(200, &json!({ "data": [] })), "wrong"),
        (whole(200, &page(2, 2, &[payment("tr_1", "4", false)])), "wrong"),
        (whole(200, &json!("<html>")), "wrong"),
        (whole(200, &page(1, 1, &vec![payment("tr_1", "4", false); 101])), "wrong"),
        (whole(404, &fine()), "wrong"),
        (redirect, "wrong"),
        (whole(401, &fine()), "refused"),
        (whole(403, &fine()), "refused"),
        (whole(500, &fine()), "failed"),
        (whole(503, &fine()), "failed"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n{".to_owned(), "failed"),
        (format!("HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n{}", " ".repeat(2_000_000)), "failed"),
    ] {
        let till = Till::open().await;
        till.says(Some(&answer));
        let said = is_booked(&lookup(&till.url())).await;
        let start = &answer[..answer.len().min(300)];
        match told {
            // Without a reference it is nobody's.
            "booked" => assert_eq!(said, Ok(false), "{start}"),
            told => assert_eq!(said.map_err(|trouble| trouble.as_str()), Err(told), "{start}"),
        }
    }
    assert!(elsewhere.asked().is_empty(), "nobody is called but who is configured");
}

#[tokio::test]
async fn who_is_asked_too_often_or_is_down_is_left_alone() {
    let till = Till::open().await;
    till.says(Some("HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n"));
    let limited = lookup(&till.url());
    assert_eq!(is_booked(&limited).await, Err(Trouble::Limited(Duration::from_secs(7))));
    assert_eq!(is_booked(&limited).await, Err(Trouble::Resting));
    assert_eq!(till.asked().len(), 1);
    let down = lookup(&Closed::new().url());
    for _ in 0..5 {
        assert!(matches!(is_booked(&down).await, Err(Trouble::Away(_))));
    }
    assert_eq!(is_booked(&down).await, Err(Trouble::Resting));
}

#[tokio::test]
async fn who_never_answers_has_said_nothing() {
    let till = Till::open().await;
    till.takes(Duration::from_secs(600));
    let lookup = lookup(&till.url());
    let asks = tokio::spawn(async move { is_booked(&lookup).await });
    let is_asked = async {
        while till.asked().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    soon(is_asked).await;
    passes(Duration::from_secs(9)).await;
    assert!(!asks.is_finished());
    passes(Duration::from_secs(1)).await;
    assert_eq!(soon(asks).await.unwrap(), Err(Trouble::TooSlow));
}

#[tokio::test]
async fn only_so_many_questions_are_under_way_at_once() {
    let till = Till::open().await;
    till.takes(Duration::from_secs(600));
    let (lookup, mut asks) = (lookup(&till.url()), JoinSet::new());
    for _ in 0..5 {
        let lookup = Arc::clone(&lookup);
        asks.spawn(async move { is_booked(&lookup).await });
    }
    let first = asks.join_next().await.unwrap().unwrap();
    assert_eq!(first, Err(Trouble::Crowded), "the others are still under way");
    assert!(asks.try_join_next().is_none());
}

#[tokio::test]
async fn nobody_is_asked_about_a_provider_that_is_not_named() {
    let till = Till::open().await;
    assert_eq!(lookup(&till.url()).is_booked("stripe", "pi_1").await, None);
    assert!(till.asked().is_empty());
}

#[tokio::test]
async fn what_the_api_has_is_settled_and_what_it_does_not_show_follows_the_policy() {
    for booked in [true, false] {
        let (till, ninja, mut office) = (Till::open().await, Till::open().await, Office::open().await);
        let rule = format!("{NINJA}quiet = '150ms'\n{}{}", till.asked_with(&["test_a"], ""), books(&ninja.url()));
        let gate = Standing::before(&office.url(), &rule).await;
        till.knows("tr_1", "paid", "h1");
        let there = if booked { vec![payment("tr_1", "4", false)] } else { vec![payment("tr_10", "4", false)] };
        ninja.at(&place(1), 200, page(1, 1, &there));
        let webhook = gate.begin(mollie("tr_1")).await;
        office.next().await.resets("");
        assert_eq!(webhook.await.unwrap().status(), 502);
        if !booked {
            office.next().await.answer(BRACKETS);
        }
        let result = if booked { "booked" } else { "nobody" };
        let series = format!("confirmations_total{{result=\"{result}\"}}");
        gate.until("the books were asked", || gate.figure(&series) >= 1.0).await;
        gate.until("it is settled", || gate.running.metrics.in_flight.get() == 0).await;
        assert!(office.is_quiet());
    }
}
