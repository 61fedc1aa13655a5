//! What waits for a person, what he does about it, and what history says: over the wire, through the admin API.

use std::time::Duration;

use oncegate::time::{Clock, SystemClock};
use serde_json::{Value, json};

use crate::support::{
    Office, Standing, Told,
    office::{BRACKETS, Visit},
    standing::{HOOK, NINJA, connect, heard, joined, mollie, post},
};

const TOKEN: &str = "correct-horse-battery-staple";
/// Nobody sends again by himself what may have reached the app.
const ASK: &str = "on_unknown = 'review'\nquiet = '100ms'\n";

struct Desk {
    gate: Standing,
    app: Office,
}

impl Desk {
    async fn open(rules: &str) -> Self {
        let app = Office::open().await;
        let more = format!("admin.token = {{ value = '{TOKEN}' }}\n{NINJA}{rules}");
        let gate = Standing::before(&app.url(), &more).await;
        Self { gate, app }
    }

    async fn say(&self, request: String) -> Told {
        let mut wire = connect(self.gate.running.admin.unwrap()).await;
        wire.write(request).await;
        heard(wire).await
    }

    async fn get(&self, path: &str) -> Value {
        let told = self.say(asks("GET", path, TOKEN, "")).await;
        assert_eq!(told.status(), 200, "{told:?}");
        assert_eq!(told.head.one("cache-control"), "no-store");
        serde_json::from_str(&told.body).unwrap_or_else(|error| panic!("{error}: {}", told.body))
    }

    /// The lines of an export.
    async fn lines(&self, query: &str) -> Vec<Value> {
        let told = self.say(asks("GET", &format!("/api/v1/history?{query}"), TOKEN, "")).await;
        assert_eq!((told.status(), told.head.one("content-type")), (200, "application/x-ndjson"), "{told:?}");
        told.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn act(&self, id: &str, deed: &str, version: Option<u64>) -> Told {
        let said = json!({ "reason": "asked the app", "who": "Ada", "version": version }).to_string();
        self.say(asks("POST", &format!("/api/v1/review/{id}/{deed}"), TOKEN, &said)).await
    }

    async fn acts(&self, id: &str, deed: &str) {
        let told = self.act(id, deed, None).await;
        assert_eq!(told.status(), 200, "{told:?}");
    }

    /// The one entry that waits, as soon as it does.
    async fn entry(&self) -> Value {
        for _ in 0..2000 {
            let mut list = self.get("/api/v1/review").await;
            match list["entries"].as_array_mut().map(std::mem::take).unwrap_or_default().as_slice() {
                [] => tokio::time::sleep(Duration::from_millis(5)).await,
                [entry] => return entry.clone(),
                more => panic!("{more:?}"),
            }
        }
        panic!("nothing waits for a person");
    }

    async fn nothing_waits(&self) {
        assert_eq!(self.get("/api/v1/review").await["entries"], json!([]));
    }

    /// A webhook of which nobody knows whether it was booked, and the entry that it leaves.
    async fn lost(&mut self, webhook: &str) -> Value {
        let caller = self.gate.begin(webhook).await;
        self.app.next().await.resets("");
        assert_eq!(caller.await.unwrap().status(), 502);
        self.entry().await
    }
}

fn asks(method: &str, path: &str, token: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn id(entry: &Value) -> &str {
    entry["id"].as_str().unwrap()
}

/// `what`, or what it came to, line by line.
fn life(lines: &Value) -> Vec<String> {
    let word = |line: &Value| {
        let detail = ["decision", "outcome", "act"].iter().find_map(|key| line[*key].as_str());
        detail.or(line["what"].as_str()).unwrap().to_owned()
    };
    lines.as_array().unwrap().iter().map(word).collect()
}

// ------------------------------------------------------------------------------------------------ acts

#[tokio::test]
async fn what_nobody_knows_waits_for_a_person_who_has_it_sent_again_and_it_is_booked_once() {
    let mut desk = Desk::open(ASK).await;
    let webhook = joined("pi_1", "h1");
    let entry = desk.lost(&webhook).await;
    assert_eq!((&entry["reason"], &entry["references"]), (&json!("unknown"), &json!(["pi_1"])));
    assert_eq!(desk.gate.ask(&webhook).await.status(), 503, "meanwhile the provider shall try again later");

    let whole = desk.get(&format!("/api/v1/review/{}", id(&entry))).await;
    assert_eq!((&whole["request"]["method"], &whole["request"]["target"]), (&json!("POST"), &json!(HOOK)));
    assert!(whole["request"]["body"].as_str().unwrap().contains("pi_1"), "{whole}");
    assert_eq!(life(&whole["history"]), ["first", "in_flight", "unknown", "unknown", "review", "joined"]);

    desk.acts(id(&entry), "resend").await;
    let visit = desk.app.next().await;
    assert_eq!(visit.body, webhook.split_once("\r\n\r\n").unwrap().1, "byte by byte what had come");
    visit.answer(BRACKETS);
    let replayed = desk.gate.ask(&webhook).await;
    replayed.is_brackets();
    assert!(matches!(replayed.decision(), "replayed" | "joined"), "{replayed:?}");
    assert!(desk.app.is_quiet(), "booked once");
    desk.nothing_waits().await;
}

#[tokio::test]
async fn what_a_person_settles_is_acknowledged_when_it_comes_again() {
    let mut desk = Desk::open(ASK).await;
    let webhook = joined("pi_1", "h1");
    let entry = desk.lost(&webhook).await;
    desk.acts(id(&entry), "settle").await;
    let again = desk.gate.ask(&webhook).await;
    assert_eq!((again.status(), again.decision()), (200, "replayed"), "{again:?}");
    assert!(desk.app.is_quiet(), "the app has it");
    desk.nothing_waits().await;
}

#[tokio::test]
async fn what_a_person_discards_gets_a_real_try_when_it_comes_again() {
    let mut desk = Desk::open(ASK).await;
    let webhook = joined("pi_1", "h1");
    let entry = desk.lost(&webhook).await;
    desk.acts(id(&entry), "discard").await;
    desk.nothing_waits().await;
    let again = desk.gate.begin(&webhook).await;
    desk.app.next().await.answer(BRACKETS);
    assert_eq!(again.await.unwrap().decision(), "first");
}

#[tokio::test]
async fn of_many_who_act_at_once_one_has_his_way_and_the_others_are_told() {
    let mut desk = Desk::open(ASK).await;
    let entry = desk.lost(&joined("pi_1", "h1")).await;
    let version = entry["version"].as_u64();
    let (a, b, c) = tokio::join!(
        desk.act(id(&entry), "settle", version),
        desk.act(id(&entry), "discard", version),
        desk.act(id(&entry), "settle", version)
    );
    let statuses = [a.status(), b.status(), c.status()];
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
    assert!(statuses.iter().all(|status| matches!(status, 200 | 404 | 409)), "{statuses:?}");

    let entry = desk.lost(&joined("pi_2", "h2")).await;
    let version = entry["version"].as_u64();
    assert_eq!(desk.act(id(&entry), "resend", version).await.status(), 200);
    desk.app.next().await.resets("");
    let again = desk.entry().await;
    assert_eq!(id(&again), id(&entry));
    let late = desk.act(id(&entry), "settle", version).await;
    assert_eq!(late.status(), 409, "it has changed since: {late:?}");
    assert!(late.body.contains("look again"), "{late:?}");
    assert_eq!(desk.act(id(&entry), "settle", again["version"].as_u64()).await.status(), 200);
    assert_eq!(desk.act(id(&entry), "settle", None).await.status(), 404);
}

#[tokio::test]
async fn nothing_is_sent_again_while_the_app_may_be_at_work_on_it() {
    let mut desk = Desk::open("on_unknown = 'review'\nquiet = '1h'\n").await;
    let caller = desk.gate.begin(&joined("pi_1", "h1")).await;
    desk.app.next().await.resets("");
    assert_eq!(caller.await.unwrap().status(), 502);
    desk.nothing_waits().await;
    let known = desk.get("/api/v1/transactions?reference=pi_1").await;
    let delivery = &known["transactions"][0]["deliveries"][0];
    assert_eq!(delivery["phase"], "unknown");
    let told = desk.act(id(delivery), "resend", None).await;
    assert_eq!(told.status(), 409);
    assert!(told.body.contains("still be at work"), "{told:?}");
    desk.acts(id(delivery), "discard").await;
    let again = desk.gate.begin(&joined("pi_1", "h1")).await;
    desk.gate.waiters(1).await;
    assert!(desk.app.is_quiet_for(Duration::from_millis(50)).await, "its name is kept as long as the app may have it");
    again.abort();
}

#[tokio::test]
async fn later_events_of_a_payment_are_not_held_up_while_one_waits() {
    let mut desk = Desk::open(ASK).await;
    desk.lost(&joined("pi_1", "h1")).await;
    // Another event of the same payment.
    let refund = joined("pi_1", "h1").replace("evt_pi_1_h1", "evt_pi_1_h2");
    let refund = desk.gate.begin(refund).await;
    desk.app.next().await.answer(BRACKETS);
    assert_eq!(refund.await.unwrap().decision(), "new_state");
    assert_eq!(desk.entry().await["references"], json!(["pi_1"]), "and it waits still");
}

#[tokio::test]
async fn what_tells_nothing_passes_an_entry_when_its_time_to_be_decided_is_over() {
    let mut desk = Desk::open(&format!("{ASK}review_retryable = '100ms'\n")).await;
    desk.lost(&mollie("tr_1")).await;
    let passed = loop {
        let again = desk.gate.begin(mollie("tr_1")).await;
        tokio::select! {
            visit = desk.app.next() => {
                visit.answer(BRACKETS);
                break again.await.unwrap();
            }
            () = tokio::time::sleep(Duration::from_millis(50)) => {
                assert_eq!(again.await.unwrap().status(), 503, "a person may still be quick");
            }
        }
    };
    passed.is_brackets();
    assert_eq!(passed.decision(), "new_state");
}

// ------------------------------------------------------------------------------------------------ what is kept

#[tokio::test]
async fn what_cannot_be_read_is_kept_once_where_the_rule_says_so() {
    let mut desk = Desk::open("on_unrecognised = 'review'\nreview_retryable = '0s'\n").await;
    let odd = post(
        HOOK,
        "User-Agent: Mollie HTTP client/1.0\r\nContent-Type: application/x-www-form-urlencoded\r\n",
        "id=a&id=b&x=1",
    );
    let told = desk.gate.ask(&odd).await;
    assert_eq!((told.status(), told.decision()), (503, "unrecognised"), "{told:?}");
    let entry = desk.entry().await;
    assert_eq!((&entry["reason"], &entry["references"]), (&json!("unrecognised"), &json!([])));
    let again = desk.gate.ask(&odd).await;
    assert_eq!((again.status(), again.decision()), (200, "unrecognised"), "a person has it: {again:?}");
    assert_eq!(id(&desk.entry().await), id(&entry), "kept once");
    assert!(desk.app.is_quiet());

    desk.acts(id(&entry), "resend").await;
    let visit: Visit = desk.app.next().await;
    assert_eq!(visit.body, "id=a&id=b&x=1");
    visit.answer(BRACKETS);
    desk.gate.until("it is done", || desk.gate.figure("in_flight") < 1.0).await;
    desk.nothing_waits().await;
}

#[tokio::test]
async fn no_more_than_a_bound_is_kept_for_a_person() {
    let desk = Desk::open("on_unrecognised = 'review'\n").await;
    let odd = |n: u32| {
        post(
            HOOK,
            "User-Agent: Mollie HTTP client/1.0\r\nContent-Type: application/x-www-form-urlencoded\r\n",
            &format!("id=a&id=b&x={n}"),
        )
    };
    for n in 0..256 {
        assert_eq!(desk.gate.ask(odd(n)).await.decision(), "unrecognised");
    }
    let one_more = desk.gate.ask(odd(256)).await;
    assert_eq!((one_more.status(), one_more.decision()), (503, "overflow"));
    let first = desk.get("/api/v1/review?limit=200").await;
    let next = first["next"].as_str().unwrap();
    let rest = desk.get(&format!("/api/v1/review?limit=200&after={next}")).await;
    let count = |page: &Value| page["entries"].as_array().unwrap().len();
    assert_eq!((count(&first), count(&rest), &rest["next"]), (200, 56, &Value::Null));
}

#[tokio::test]
async fn what_is_turned_away_for_want_of_room_is_shown_by_a_sample_and_comes_again_by_itself() {
    let app = Office::open().await;
    let more = format!("admin.token = {{ value = '{TOKEN}' }}\ngateway.max_waiters = 1\n{NINJA}");
    let gate = Standing::before(&app.url(), &more).await;
    let mut desk = Desk { gate, app };
    let first = desk.gate.begin(joined("pi_1", "h1")).await;
    let visit = desk.app.next().await;
    for n in 2..5 {
        let told = desk.gate.ask(joined(&format!("pi_{n}"), &format!("h{n}"))).await;
        assert_eq!((told.status(), told.decision()), (503, "overflow"), "{told:?}");
    }
    let entry = desk.entry().await;
    assert_eq!((&entry["reason"], &entry["references"]), (&json!("overflow"), &json!(["pi_2"])));
    assert_eq!(desk.act(id(&entry), "resend", None).await.status(), 409, "its sender keeps it");
    visit.answer(BRACKETS);
    assert_eq!(first.await.unwrap().status(), 200);
    let again = desk.gate.begin(joined("pi_2", "h2")).await;
    desk.app.next().await.answer(BRACKETS);
    assert_eq!(again.await.unwrap().decision(), "first");
    desk.acts(id(&entry), "discard").await;
    let again = desk.gate.ask(joined("pi_2", "h2")).await;
    assert_eq!(again.decision(), "replayed", "what came of it stays known");
    let history = desk.get("/api/v1/transactions?reference=pi_2").await["transactions"][0]["history"].clone();
    assert_eq!(life(&history), ["overflow", "review", "first", "in_flight", "accepted", "discard", "replayed"]);
}

// ------------------------------------------------------------------------------------------------ what is seen

#[tokio::test]
async fn metrics_and_readiness_show_what_waits() {
    let mut desk = Desk::open(ASK).await;
    assert_eq!(desk.gate.admin("/readyz").await.body, "ready\n");
    desk.lost(&joined("pi_1", "h1")).await;
    let ready = desk.gate.admin("/readyz").await;
    assert_eq!(ready.status(), 200, "it works");
    assert!(ready.body.starts_with("ready\nreview: 1 waiting for a person, the oldest for "), "{ready:?}");
    desk.gate.until("it is counted", || desk.gate.figure("review_entries") > 0.0).await;
    assert!(desk.gate.shown("review_oldest_seconds").is_some());
}

#[tokio::test]
async fn neither_secrets_nor_cards_are_shown_anywhere() {
    let mut desk = Desk::open(ASK).await;
    let object = "{\"payment_intent\":\"pi_4111111111111111\",\"number\":\"4111 1111 1111 1111\",\"metadata\":{\"payment_hash\":\"h\",\"password\":\"Z2VoZWlt\",\"cvc\":\"Z2VoZWlt\"}}";
    let event = "\"id\":\"evt_1\",\"object\":\"event\",\"type\":\"charge.succeeded\"";
    let secret =
        "Authorization: Basic Z2VoZWlt\r\nCookie: s=Z2VoZWlt\r\nX-Api-Key: Z2VoZWlt\r\nVerif-Hash: Z2VoZWlt\r\n";
    let headers =
        format!("Content-Type: application/json\r\n{secret}Referer: https://pay.example.org/?a=1&token=Z2VoZWlt\r\n");
    let webhook = post(
        &format!("{HOOK}?token=Z2VoZWlt&key=Z2VoZWlt"),
        &headers,
        &format!("{{{event},\"data\":{{\"object\":{object}}}}}"),
    );
    let entry = desk.lost(&webhook).await;
    let mut said = entry.to_string();
    for path in ["review", &format!("review/{}", id(&entry)), "transactions?reference=pi_4111111111111111"] {
        said += &desk.get(&format!("/api/v1/{path}")).await.to_string();
    }
    let by_reference = desk.lines("reference=pi_4111111111111111").await;
    assert!(!by_reference.is_empty() && by_reference == desk.lines("").await);
    said += &json!(by_reference).to_string();
    assert!(said.contains("pi_411111******1111") && said.contains("4111 11** **** 1111"), "{said}");
    for secret in ["Z2VoZWlt", "4111111111111111", "4111 1111 1111 1111", TOKEN] {
        assert!(!said.contains(secret), "{secret} is shown: {said}");
    }
}

#[tokio::test]
async fn a_line_of_life_tells_who_sent_what_was_decided_what_the_app_said_and_who_acted() {
    let mut desk = Desk::open(ASK).await;
    let webhook = joined("pi_1", "h1");
    let entry = desk.lost(&webhook).await;
    desk.acts(id(&entry), "resend").await;
    desk.app.next().await.says(500, "oops");
    desk.gate
        .until("it failed", || desk.gate.figure("deliveries_total{provider=\"stripe\",outcome=\"rejected\"}") > 0.0)
        .await;
    let known = desk.get("/api/v1/transactions?reference=pi_1").await;
    let [transaction] = known["transactions"].as_array().unwrap().as_slice() else { panic!("{known}") };
    let history = &transaction["history"];
    let expected = ["first", "in_flight", "unknown", "unknown", "review", "resend", "queued", "in_flight", "rejected"];
    assert_eq!(life(history)[..9], expected);
    assert_eq!((&history[0]["source"], &history[0]["provider"]), (&json!("127.0.0.1"), &json!("stripe")));
    assert!(history[2]["why"].as_str().is_some_and(|why| !why.is_empty()), "{history}");
    assert_eq!((&history[5]["who"], &history[5]["why"]), (&json!("Ada"), &json!("asked the app")));
    assert_eq!((&history[8]["status"], &history[8]["attempt"]), (&json!(500), &json!(2)));
    assert_eq!(transaction["known"][0]["fate"], "pending");
}

#[tokio::test]
async fn one_reference_of_two_accounts_is_shown_as_two_payments() {
    let desk = Desk::open("").await;
    let Desk { gate, app } = desk;
    let _seen = app.answer_all(BRACKETS);
    for account in ["a", "b"] {
        let target = format!("/payment_webhook/{account}/VolejRejNm");
        gate.ask(crate::support::standing::mollie_at("pay.example", &target, "tr_1")).await.is_brackets();
    }
    let desk = Desk { gate, app: Office::open().await };
    let known = desk.get("/api/v1/transactions?reference=tr_1").await;
    let transactions = known["transactions"].as_array().unwrap();
    assert_eq!(transactions.len(), 2);
    assert_ne!(transactions[0]["transaction"], transactions[1]["transaction"]);
    assert_eq!(transactions[0]["known"][0]["fate"], "settled");
    assert_eq!(desk.get("/api/v1/transactions?reference=tr_2").await["transactions"], json!([]));
}

#[tokio::test]
async fn history_is_exported_by_day_and_by_reference_line_by_line_and_read_on() {
    let Desk { gate, app } = Desk::open("").await;
    let _seen = app.answer_all(BRACKETS);
    for n in 0..600 {
        gate.ask(joined(&format!("pi_{n}"), &format!("h{n}"))).await.is_brackets();
    }
    gate.ask(joined("pi_7", "h7")).await.is_brackets();
    let desk = Desk { gate, app: Office::open().await };
    let today = SystemClock.now().to_string()[..10].to_owned();
    let all = desk.lines(&format!("from={today}T00:00:00Z&to=9999-01-01T00:00:00Z")).await;
    assert_eq!(all.len(), 600 * 3 + 1, "came, was sent, was accepted; and one came again");
    let numbers: Vec<_> = all.iter().map(|line| line["number"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b));
    let first = desk.lines("limit=1000").await;
    let rest = desk.lines(&format!("limit=1000&after={}", first.last().unwrap()["number"])).await;
    assert_eq!((first.len(), [first, rest].concat()), (1000, all));
    assert!(desk.lines("to=2020-01-01T00:00:00Z").await.is_empty());
    let one = desk.lines("reference=pi_7").await;
    assert_eq!(life(&json!(one)), ["first", "in_flight", "accepted", "replayed"]);
}

// ------------------------------------------------------------------------------------------------ who may

#[tokio::test]
async fn whoever_does_not_know_the_token_sees_nothing_and_does_nothing() {
    let mut desk = Desk::open(ASK).await;
    let entry = desk.lost(&joined("pi_1", "h1")).await;
    let act = json!({ "reason": "r", "who": "w" }).to_string();
    let paths = ["", "/review", "/transactions?reference=pi_1", "/history", "/nothing"];
    for token in ["", "wrong", &TOKEN[1..], &format!("{TOKEN}x")] {
        for path in paths {
            let told = desk.say(asks("GET", &format!("/api/v1{path}"), token, "")).await;
            assert_eq!(told.status(), 401, "{path}: {told:?}");
            assert!(told.head.one("www-authenticate").starts_with("Bearer") && !told.body.contains("pi_1"), "{told:?}");
        }
        let told = desk.say(asks("POST", &format!("/api/v1/review/{}/settle", id(&entry)), token, &act)).await;
        assert_eq!(told.status(), 401);
    }
    assert_eq!(id(&desk.entry().await), id(&entry));
}

#[tokio::test]
async fn a_page_of_another_site_does_nothing_even_if_it_knew_the_token() {
    let mut desk = Desk::open(ASK).await;
    let entry = desk.lost(&joined("pi_1", "h1")).await;
    let act = json!({ "reason": "r", "who": "w" }).to_string();
    let path = format!("/api/v1/review/{}/settle", id(&entry));
    for field in ["Origin: https://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"] {
        let asked = asks("POST", &path, TOKEN, &act).replacen("\r\n", &format!("\r\n{field}\r\n"), 1);
        assert_eq!(desk.say(asked).await.status(), 403, "{field}");
    }
    let form = asks("POST", &path, TOKEN, &act).replace("application/json", "text/plain");
    assert_eq!(desk.say(form).await.status(), 415, "what a form can send is no act");
    let preflight = desk.say(asks("OPTIONS", &path, TOKEN, "")).await;
    assert_eq!(preflight.status(), 405);
    assert!(preflight.head.all("access-control-allow-origin").is_empty(), "{preflight:?}");
    desk.entry().await;
}

#[tokio::test]
async fn without_a_token_the_api_is_off_and_says_how_to_turn_it_on() {
    let app = Office::open().await;
    let gate = Standing::before(&app.url(), NINJA).await;
    let told = gate.admin("/api/v1/review").await;
    assert_eq!(told.status(), 403);
    assert!(told.body.contains("ONCEGATE_ADMIN_TOKEN") && told.body.contains("[admin]"), "{told:?}");
    assert_eq!(gate.admin("/readyz").await.status(), 200, "the rest is there");
}

#[tokio::test]
async fn what_is_asked_wrongly_is_answered_with_what_is_right() {
    let mut desk = Desk::open(ASK).await;
    let entry = desk.lost(&joined("pi_1", "h1")).await;
    for (path, status) in [
        ("/api/v1/nothing", 404),
        ("/api/v1/review/1/2/3", 404),
        ("/api/v1/review/x", 404),
        ("/api/v1/review/1", 404),
        ("/api/v10", 404),
        ("/api/v1/review?limit=0", 400),
        ("/api/v1/review?limit=9999", 400),
        ("/api/v1/review?after=x", 400),
        ("/api/v1/review?lmit=9", 400),
        ("/api/v1/transactions", 400),
        ("/api/v1/transactions?reference=%ff", 400),
        ("/api/v1/transactions?reference=a&reference=b", 400),
        ("/api/v1/history?from=yesterday", 400),
        ("/api/v1/history?from=2026-01-01T00:00:00Z&reference=a", 400),
    ] {
        let told = desk.say(asks("GET", path, TOKEN, "")).await;
        assert_eq!(told.status(), status, "{path}: {told:?}");
        if path.starts_with("/api/v1/") {
            let said: Value = serde_json::from_str(&told.body).unwrap();
            assert!(
                ["error", "remedy"].iter().all(|key| said[*key].as_str().is_some_and(|text| !text.is_empty())),
                "{said}"
            );
        }
    }
    let path = format!("/api/v1/review/{}", id(&entry));
    let wrong = desk.say(asks("DELETE", &path, TOKEN, "")).await;
    assert_eq!((wrong.status(), wrong.head.one("allow")), (405, "GET, HEAD"));
    let wrong = desk.say(asks("GET", &format!("{path}/settle"), TOKEN, "")).await;
    assert_eq!((wrong.status(), wrong.head.one("allow")), (405, "POST"));
    assert_eq!(desk.say(asks("POST", &format!("{path}/destroy"), TOKEN, "{}")).await.status(), 404);
    let long = "x".repeat(20_000);
    for (said, status) in [
        ("", 400),
        ("[]", 400),
        ("{}", 400),
        (r#"{"reason":"r"}"#, 400),
        (r#"{"reason":"  ","who":"w"}"#, 400),
        (r#"{"reason":"r","who":"w","version":-1}"#, 400),
        (r#"{"reason":"r","who":"w","force":true}"#, 400),
        (&format!(r#"{{"reason":"{}","who":"w"}}"#, &long[..1001]), 400),
        (&format!(r#"{{"reason":"{long}","who":"w"}}"#), 413),
    ] {
        let told = desk.say(asks("POST", &format!("{path}/settle"), TOKEN, said)).await;
        assert_eq!(told.status(), status, "{said}: {told:?}");
    }
    assert_eq!(desk.entry().await["version"], entry["version"], "nothing has happened");
    let mut wire = connect(desk.gate.running.admin.unwrap()).await;
    wire.write(asks("HEAD", "/api/v1/history", TOKEN, "")).await;
    let head = wire.rest().await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
}
