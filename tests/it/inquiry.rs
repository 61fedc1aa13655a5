//! Webhooks that say nothing of what happened, and a provider who is asked: at the door of a whole gate.

use std::time::Duration;

use serde_json::json;

use crate::support::{
    Office, Standing, Till, Told, ms,
    office::{BRACKETS, WELCOME},
    process::{Process, oncegate},
    standing::{HOOK, NINJA, back, connect, heard, mollie, mollie_at, post},
    till::whole,
    wire::soon,
};

const HASH: &str = "0123456789abcdef0123456789abcdef";

/// The preset without a hold, asking `till`.
fn asking(till: &Till) -> String {
    format!("{NINJA}{}", till.asked_with(&["test_a"], ""))
}

fn counted(gate: &Standing, result: &str) -> f64 {
    gate.figure(&format!("inquiries_total{{provider=\"mollie\",result=\"{result}\"}}"))
}

#[tokio::test]
async fn what_happened_four_times_is_delivered_four_times_however_often_it_is_told() {
    let (till, office) = (Till::open().await, Office::open().await);
    let gate = Standing::before(&office.url(), &asking(&till)).await;
    let mut seen = office.answer_all(BRACKETS);
    let mut decisions = Vec::new();
    let mut tell = async || {
        for _ in 0..5 {
            let told = gate.ask(mollie("tr_1")).await;
            told.is_brackets();
            decisions.push(told.decision().to_owned());
        }
    };
    till.knows("tr_1", "paid", HASH);
    tell().await;
    till.refunded("tr_1", "10.00", &["re_1"]);
    tell().await;
    till.refunded("tr_1", "20.00", &["re_1", "re_2"]);
    tell().await;
    till.changes("tr_1", |payment| {
        payment["amountChargedBack"] = json!({ "value": "101.00", "currency": "EUR" });
        payment["_embedded"]["chargebacks"] = json!([{ "resource": "chargeback", "id": "chb_1", "reversedAt": null }]);
    });
    tell().await;
    let expected = ["first", "new_state", "new_state", "new_state"];
    let expected: Vec<_> =
        expected.iter().flat_map(|new| [new, &"replayed", &"replayed", &"replayed", &"replayed"]).copied().collect();
    assert_eq!(decisions, expected);
    let visits = std::iter::from_fn(|| seen.try_recv().ok()).count();
    assert_eq!(visits, 4);
}

#[tokio::test]
async fn a_payers_name_that_an_answer_told_is_known_when_nobody_answers_any_more() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    till.knows("tr_1", "paid", HASH);
    let gate = Standing::before(&office.url(), &asking(&till)).await;
    let told = gate.begin(mollie("tr_1")).await;
    office.next().await.answer(BRACKETS);
    told.await.unwrap().is_brackets();
    till.answers("tr_1", json!({}));
    let webhook = gate.begin(mollie("tr_1")).await;
    let in_the_app = office.next().await;
    let payer = gate.begin(back(HASH)).await;
    let stranger = gate.begin(back("h2")).await;
    let visit = office.next().await;
    assert!(visit.line().contains("h2"), "{}", visit.line());
    visit.answer(WELCOME);
    stranger.await.unwrap().is_welcome();
    assert!(office.is_quiet_for(ms(100)).await);
    in_the_app.answer(BRACKETS);
    webhook.await.unwrap().is_brackets();
    office.next().await.answer(WELCOME);
    payer.await.unwrap().is_welcome();
}

#[tokio::test]
async fn twins_that_come_at_once_make_one_request_and_are_asked_about_together() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    till.knows("tr_1", "paid", HASH);
    till.takes(ms(100));
    let gate = Standing::before(&office.url(), &asking(&till)).await;
    let mut told = Vec::new();
    for _ in 0..300 {
        told.push(gate.begin(mollie("tr_1")).await);
    }
    office.next().await.answer(BRACKETS);
    for told in told {
        told.await.unwrap().is_brackets();
    }
    assert!(office.is_quiet());
    // The first is asked about at once, who comes meanwhile together; on a slow machine some come later still.
    assert_eq!(counted(&gate, "crowded"), 0.0);
    let asked = till.asked().len();
    assert!((1..=20).contains(&asked), "{asked}");
}

#[tokio::test]
async fn an_answer_does_not_serve_who_comes_after_its_question() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    till.knows("tr_1", "paid", HASH);
    till.takes(ms(300));
    let gate = Standing::before(&office.url(), &asking(&till)).await;
    let first = gate.begin(mollie("tr_1")).await;
    gate.until("it is asked", || till.asked().len() == 1).await;
    till.refunded("tr_1", "10.00", &["re_1"]);
    let second = gate.begin(mollie("tr_1")).await;
    office.next().await.answer(BRACKETS);
    office.next().await.answer(BRACKETS);
    assert_eq!(first.await.unwrap().decision(), "first");
    assert_eq!(second.await.unwrap().decision(), "new_state");
}

#[tokio::test]
async fn a_change_that_an_answer_did_not_show_yet_is_found_and_delivered_later() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    till.knows("tr_1", "paid", HASH);
    let more = format!("{NINJA}{}", till.asked_with(&["test_a"], "recheck = '500ms'"));
    let gate = Standing::before(&office.url(), &more).await;
    let first = gate.begin(mollie("tr_1")).await;
    office.next().await.answer(BRACKETS);
    assert_eq!(first.await.unwrap().decision(), "first");
    // The refund's webhook is here before the API knows of the refund.
    assert_eq!(gate.ask(mollie("tr_1")).await.decision(), "replayed");
    assert_eq!(gate.ask(mollie("tr_1")).await.decision(), "replayed");
    till.refunded("tr_1", "10.00", &["re_1"]);
    let visit = office.next().await;
    assert_eq!((visit.line(), visit.body.as_str()), (format!("POST {HOOK} HTTP/1.1").as_str(), "id=tr_1"));
    visit.answer(BRACKETS);
    gate.until("it is asked once more for both", || till.asked().len() == 4).await;
    assert_eq!(gate.ask(mollie("tr_1")).await.decision(), "replayed");
    assert!(office.is_quiet_for(ms(200)).await);
}

#[tokio::test]
async fn who_is_asked_once_more_and_tells_nothing_new_changes_nothing() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    till.knows("tr_1", "paid", HASH);
    let more = format!("{NINJA}{}", till.asked_with(&["test_a"], "recheck = '100ms'"));
    let gate = Standing::before(&office.url(), &more).await;
    let first = gate.begin(mollie("tr_1")).await;
    office.next().await.answer(BRACKETS);
    first.await.unwrap().is_brackets();
    gate.ask(mollie("tr_1")).await.is_brackets();
    gate.until("it is asked once more", || till.asked().len() == 3).await;
    assert!(office.is_quiet_for(ms(300)).await);
    assert_eq!(till.asked().len(), 3);
}

#[tokio::test]
async fn a_webhook_and_a_return_find_each_other_by_the_hash_that_the_provider_tells() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    till.knows("tr_1", "paid", HASH);
    let more = format!("upstream.max_callbacks = 'unlimited'\n{}", asking(&till));
    let gate = Standing::before(&office.url(), &more).await;
    let webhook = gate.begin(mollie("tr_1")).await;
    let in_app = office.next().await;
    // Its own payer waits for it, and a stranger does not.
    let payer = gate.begin(back(HASH)).await;
    let stranger = gate.begin(back("fedcba9876543210fedcba9876543210")).await;
    let visit = office.next().await;
    assert!(visit.line().contains("fedcba98"), "{}", visit.line());
    visit.answer(WELCOME);
    stranger.await.unwrap().is_welcome();
    assert!(office.is_quiet_for(ms(100)).await);
    in_app.answer(BRACKETS);
    webhook.await.unwrap().is_brackets();
    office.next().await.answer(WELCOME);
    payer.await.unwrap().is_welcome();
    assert!(gate.figure("joined_total{by=\"inquiry\"}") >= 1.0);
}

#[tokio::test]
async fn the_hold_lasts_until_the_answer_is_there_and_not_the_sum_of_both() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    till.knows("tr_1", "paid", HASH);
    till.takes(ms(600));
    let hold = |hold: &str| NINJA.replace("hold = '0s'", &format!("hold = '{hold}'"));
    let gate = Standing::before(&office.url(), &format!("{}{}", hold("1s"), till.asked_with(&["test_a"], ""))).await;
    let began = tokio::time::Instant::now();
    let told = gate.begin(mollie("tr_1")).await;
    let visit = office.next().await;
    let held = visit.at - began;
    assert!(held >= ms(1000) && held < ms(1550), "{held:?}");
    visit.answer(BRACKETS);
    told.await.unwrap().is_brackets();
}

/// Two webhooks about one payment, the app answering both; what was decided.
async fn two(gate: &Standing, office: &mut Office) -> [Told; 2] {
    let first = gate.begin(mollie("tr_1")).await;
    office.next().await.answer(BRACKETS);
    [first.await.unwrap(), gate.ask(mollie("tr_1")).await]
}

#[tokio::test]
async fn whatever_is_wrong_with_the_api_a_callback_goes_as_if_nobody_could_be_asked() {
    let huge = format!("HTTP/1.1 200 X\r\ncontent-length: 9000000\r\n\r\n{{\"a\":\"{}", "x".repeat(1 << 21));
    let elsewhere = "HTTP/1.1 302 X\r\nlocation: http://192.0.2.1/\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let down = whole(500, &json!({}));
    let odd = whole(200, &json!({ "resource": "profile" }));
    let limited = "HTTP/1.1 429 X\r\nretry-after: 600\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let cases = [
        (&*huge, "failed"),
        (elsewhere, "failed"),
        (&down, "failed"),
        ("", "failed"),
        (&odd, "unreadable"),
        (limited, "limited"),
    ];
    for (says, result) in cases {
        let (till, mut office) = (Till::open().await, Office::open().await);
        till.knows("tr_1", "paid", HASH);
        till.says(Some(says));
        let gate = Standing::before(&office.url(), &asking(&till)).await;
        let [first, second] = two(&gate, &mut office).await;
        assert_eq!((first.decision(), second.decision()), ("first", "replayed"), "{result}");
        assert!(counted(&gate, result) >= 1.0, "{result}: {}", gate.running.metrics.render());
        assert_eq!(counted(&gate, "found"), 0.0);
    }
}

#[tokio::test]
async fn an_api_that_fails_between_twins_makes_no_second_request() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    till.knows("tr_1", "paid", HASH);
    let more = format!(
        "preset = 'invoice-ninja'\n[[rule]]\nhold = '3s'\n{}",
        till.asked_with(&["test_a"], "api_timeout = '1s'")
    );
    let gate = Standing::before(&office.url(), &more).await;
    let first = gate.begin(mollie("tr_1")).await;
    gate.until("the first is asked about", || counted(&gate, "found") == 1.0).await;
    till.says(Some(&whole(404, &json!({}))));
    let second = gate.begin(mollie("tr_1")).await;
    office.next().await.answer(BRACKETS);
    assert_eq!(first.await.unwrap().decision(), "first");
    assert_eq!(second.await.unwrap().decision(), "joined");
    assert!(office.is_quiet());
}

#[tokio::test]
async fn an_api_that_is_slow_is_waited_for_as_long_as_is_said_and_no_longer() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    till.knows("tr_1", "paid", HASH);
    till.takes(Duration::from_secs(60));
    let more = format!("{NINJA}{}", till.asked_with(&["test_a"], "api_timeout = '200ms'"));
    let gate = Standing::before(&office.url(), &more).await;
    let began = tokio::time::Instant::now();
    let told = gate.begin(mollie("tr_1")).await;
    let visit = office.next().await;
    assert!(visit.at - began >= ms(200));
    visit.answer(BRACKETS);
    assert_eq!(told.await.unwrap().decision(), "first");
    gate.until("it is counted", || counted(&gate, "timeout") == 1.0).await;
}

#[tokio::test]
async fn an_answer_about_another_payment_makes_a_callback_unverified() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    till.answers("tr_1", json!({ "resource": "payment", "id": "tr_2", "status": "paid" }));
    let gate = Standing::before(&office.url(), &asking(&till)).await;
    let told = gate.ask(mollie("tr_1")).await;
    assert_eq!((told.status(), told.decision()), (401, "unverified"));
    assert!(office.is_quiet());
    assert_eq!(counted(&gate, "another"), 1.0);
}

#[tokio::test]
async fn a_provider_that_asks_to_be_left_alone_is_and_one_that_knows_nothing_is_asked_again() {
    let (till, office) = (Till::open().await, Office::open().await);
    let gate = Standing::before(&office.url(), &asking(&till)).await;
    let _seen = office.answer_all(BRACKETS);
    for payment in 0..20 {
        assert_eq!(gate.ask(mollie(&format!("tr_{payment}"))).await.decision(), "first");
    }
    assert_eq!((till.asked().len(), counted(&gate, "not_found")), (20, 20.0));
    // Longer than any clock can tell.
    till.says(Some(
        "HTTP/1.1 429 X\r\nretry-after: 18446744073709551615\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    ));
    for payment in 20..25 {
        gate.ask(mollie(&format!("tr_{payment}"))).await.is_brackets();
    }
    assert_eq!((till.asked().len(), counted(&gate, "limited"), counted(&gate, "resting")), (21, 1.0, 4.0));
}

#[tokio::test]
async fn who_makes_up_payments_is_not_asked_for_without_end_and_others_are() {
    let (till, office) = (Till::open().await, Office::open().await);
    let more = format!("gateway.trusted_proxies = ['127.0.0.1']\n{}", asking(&till));
    let gate = Standing::before(&office.url(), &more).await;
    let _seen = office.answer_all(BRACKETS);
    let from = |source: &str, reference: &str| {
        let headers = format!("X-Forwarded-For: {source}\r\nContent-Type: application/x-www-form-urlencoded\r\n");
        post(HOOK, &headers, &format!("id={reference}"))
    };
    for payment in 0..300 {
        gate.ask(from("192.0.2.1", &format!("tr_a{payment}"))).await.is_brackets();
    }
    assert!(till.asked().len() < 280 && counted(&gate, "crowded") > 20.0, "{}", till.asked().len());
    till.knows("tr_1", "paid", HASH);
    gate.ask(from("198.51.100.1", "tr_1")).await.is_brackets();
    assert_eq!(counted(&gate, "found"), 1.0);
}

#[tokio::test]
async fn every_account_is_asked_and_the_one_that_answers_first_the_next_time() {
    let (till, office) = (Till::open().await, Office::open().await);
    till.lets_in(&["test_a", "test_b"]);
    for reference in ["tr_1", "tr_2"] {
        till.knows(reference, "paid", HASH);
        till.changes(reference, |payment| payment["account"] = json!("test_b"));
    }
    let more = format!("{NINJA}{}", till.asked_with(&["test_old", "test_a", "test_b"], ""));
    let gate = Standing::before(&office.url(), &more).await;
    let _seen = office.answer_all(BRACKETS);
    gate.ask(mollie("tr_1")).await.is_brackets();
    gate.ask(mollie("tr_2")).await.is_brackets();
    gate.ask(mollie_at("pay.example", "/payment_webhook/Other/Gateway", "tr_2")).await.is_brackets();
    let keys: Vec<_> = till.asked().iter().map(|head| head.one("authorization").to_owned()).collect();
    let keys: Vec<_> = keys.iter().map(|key| key.trim_start_matches("Bearer test_")).collect();
    assert_eq!(keys, ["old", "a", "b", "b", "old", "a", "b"]);
    assert_eq!(counted(&gate, "found"), 3.0);
}

#[tokio::test]
async fn nothing_is_asked_that_is_no_payment_or_could_lead_elsewhere() {
    let (till, office) = (Till::open().await, Office::open().await);
    let gate = Standing::before(&office.url(), &asking(&till)).await;
    let _seen = office.answer_all(BRACKETS);
    for id in ["ord_1", "tr_..%2F..%2Fv2%2Fprofiles", "tr_1%3Fembed=all", "tr_1%0D%0AX-A:%20b"] {
        gate.ask(mollie(id)).await;
    }
    gate.ask(mollie(&format!("tr_{}", "x".repeat(200)))).await;
    assert!(till.asked().is_empty(), "{:?}", till.asked());
}

#[tokio::test]
async fn no_key_is_shown_in_figures_or_pages() {
    let (till, office) = (Till::open().await, Office::open().await);
    till.lets_in(&[]);
    let more = format!("{NINJA}{}", till.asked_with(&["test_secret_key"], ""));
    let gate = Standing::before(&office.url(), &more).await;
    let _seen = office.answer_all(BRACKETS);
    let told = gate.ask(mollie("tr_1")).await;
    assert!(!format!("{told:?}").contains("secret_key"));
    assert_eq!(counted(&gate, "refused"), 1.0);
    for page in ["/metrics", "/", "/readyz"] {
        assert!(!gate.admin(page).await.body.contains("secret_key"), "{page}");
    }
}

#[tokio::test]
async fn no_key_is_in_the_log_whatever_the_api_says() {
    let (till, office) = (Till::open().await, Office::open().await);
    let more = format!("log.level = 'debug'\n{NINJA}{}", till.asked_with(&["test_secret_key"], ""));
    let gate = Process::start(&office.url(), &more);
    let _seen = office.answer_all(BRACKETS);
    for (at, says) in [&*whole(401, &json!({})), "", &whole(500, &json!({})), "HTTP/1.1 2"].into_iter().enumerate() {
        till.says(Some(says));
        let mut caller = connect(gate.address).await;
        caller.write(mollie(&format!("tr_{at}"))).await;
        heard(caller).await;
    }
    gate.signal("TERM");
    let (code, log) = gate.end().await;
    assert_eq!(code, Some(0));
    assert!(
        log.contains("a question to a provider has failed") && log.contains("no key of [provider.mollie]"),
        "{log}"
    );
    assert!(!log.contains("secret_key"), "{log}");
}

#[tokio::test]
async fn what_is_to_be_asked_about_once_more_is_found_on_the_disk_and_goes_on() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    till.knows("tr_1", "paid", HASH);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = format!("[store]\nengine = 'embedded'\npath = '{}'\n", path.display());
    let more = format!("{NINJA}{}{store}", till.asked_with(&["test_a"], "recheck = '3s'"));
    let tells = async |gate: &Process| {
        let mut caller = connect(gate.address).await;
        caller.write(mollie("tr_1")).await;
        caller
    };
    let gate = Process::start(&office.url(), &more);
    let first = tells(&gate).await;
    office.next().await.answer(BRACKETS);
    heard(first).await.is_brackets();
    assert_eq!(heard(tells(&gate).await).await.decision(), "replayed");
    gate.signal("KILL");
    gate.end().await;
    till.refunded("tr_1", "10.00", &["re_1"]);
    assert_eq!(till.asked().len(), 2);
    let gate = Process::start(&office.url(), &more);
    let visit = office.next().await;
    assert_eq!(visit.body, "id=tr_1");
    visit.answer(BRACKETS);
    gate.says("it is delivered");
    assert_eq!(heard(tells(&gate).await).await.decision(), "replayed");
}

#[tokio::test]
async fn a_gate_that_dies_while_it_asks_leaves_the_webhook_to_its_redelivery() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    till.knows("tr_1", "paid", HASH);
    till.takes(Duration::from_secs(60));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = format!("[store]\nengine = 'embedded'\npath = '{}'\n", path.display());
    let more = format!("{NINJA}{}{store}", till.asked_with(&["test_a"], ""));
    let gate = Process::start(&office.url(), &more);
    let mut cut = connect(gate.address).await;
    cut.write(mollie("tr_1")).await;
    let asked = async {
        while till.asked().is_empty() {
            tokio::time::sleep(ms(5)).await;
        }
    };
    soon(asked).await;
    gate.signal("KILL");
    gate.end().await;
    till.takes(Duration::ZERO);
    let gate = Process::start(&office.url(), &more);
    let mut again = connect(gate.address).await;
    again.write(mollie("tr_1")).await;
    office.next().await.answer(BRACKETS);
    assert_eq!(heard(again).await.decision(), "first");
    assert!(office.is_quiet());
}

#[tokio::test]
async fn what_is_acknowledged_at_once_is_asked_about_first_and_delivered_once_for_each_change() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    till.knows("tr_1", "paid", HASH);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = format!("[store]\nengine = 'embedded'\npath = '{}'\n", path.display());
    let accept = NINJA.replace("hold = '0s'", "hold = '0s'\nanswer = 'accept'");
    let gate = Standing::before(&office.url(), &format!("{accept}{}{store}", till.asked_with(&["test_a"], ""))).await;
    for change in 0..3 {
        till.refunded("tr_1", &format!("{change}.00"), &["re_1", "re_2"][..change.min(2)]);
        let told = gate.ask(mollie("tr_1")).await;
        assert_eq!((told.status(), told.decision()), (200, if change == 0 { "first" } else { "new_state" }));
        let visit = office.next().await;
        // The app has not answered yet, and whoever tells it again is acknowledged as well.
        assert_eq!(gate.ask(mollie("tr_1")).await.decision(), "joined");
        visit.answer(BRACKETS);
        let accepted = f64::from(u32::try_from(change).unwrap() + 1);
        let series = "deliveries_total{provider=\"mollie\",outcome=\"accepted\"}";
        gate.until("the app has it", || gate.figure(series) == accepted).await;
        assert_eq!(gate.ask(mollie("tr_1")).await.decision(), "replayed");
    }
    assert!(office.is_quiet());
}

#[tokio::test]
async fn explain_shows_what_would_be_asked_and_asks_nothing() {
    let till = Till::open().await;
    till.knows("tr_1", "paid", HASH);
    let folder = tempfile::tempdir().unwrap();
    let text = format!("preset = 'invoice-ninja'\n{}", till.asked_with(&["test_secret_key"], ""));
    std::fs::write(folder.path().join("config.toml"), text).unwrap();
    std::fs::write(folder.path().join("paid.http"), mollie("tr_1")).unwrap();
    std::fs::write(folder.path().join("order.http"), mollie("ord_1")).unwrap();
    let run = |format: &str| {
        let output = oncegate(folder.path(), &["explain", "--format", format, "paid.http", "order.http"]);
        assert!(output.status.success(), "{output:?}");
        assert!(!format!("{output:?}").contains("secret_key"));
        String::from_utf8(output.stdout).unwrap()
    };
    let url = format!("{}/v2/payments/tr_1?embed=refunds,chargebacks", till.url());
    assert!(run("human").contains(&format!("its provider would be asked first: {url}")));
    let lines: Vec<serde_json::Value> = run("json").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["inquiry"], &lines[1]["inquiry"]), (&json!(url), &json!(null)));
    assert!(till.asked().is_empty());
}
