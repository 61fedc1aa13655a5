//! Payments that began and of which nobody called, at the door of a whole gate.

use std::time::Duration;

use ring::{digest, hmac};
use serde_json::{Value, json};

use crate::support::{
    Office, Standing, Till,
    office::{BRACKETS, Visit},
    process::{Process, oncegate},
    standing::{HOOK, NINJA, connect, heard, mollie, post},
    wire::soon,
};

const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789";
/// The keys of Midtrans's answers and notifications.
const MIDTRANS: &str = "secrets = [{ value = 'server' }]\napi_keys = [{ value = 'server:' }]\n";
const HASH: &str = "0123456789abcdef0123456789abcdef";

fn waiting(till: &Till) -> String {
    format!("{NINJA}{}", till.asked_with(&["test_a"], "missing_after = '1s'"))
}

/// The payment is paid, and this is where the provider was told to call.
fn paid(till: &Till, place: &str) {
    till.knows("tr_1", "paid", HASH);
    till.changes("tr_1", |payment| payment["webhookUrl"] = json!(place));
}

fn hook() -> String {
    format!("https://pay.example{HOOK}")
}

/// The app's answer to who begins to pay: it sends him to the checkout of this payment.
fn sent_away(reference: &str) -> String {
    format!(
        "HTTP/1.1 302 Found\r\nlocation: https://www.mollie.com/checkout/select-issuer/ideal/{reference}\r\n\
         set-cookie: invoice_ninja_session=s2; path=/; httponly\r\ncontent-length: 0\r\n\r\n"
    )
}

fn pays() -> String {
    let fields = "Cookie: invoice_ninja_session=s1\r\nContent-Type: application/x-www-form-urlencoded\r\n";
    post("/client/payments/process", fields, "_token=t&company_gateway_id=1")
}

async fn begins(gate: &Standing, office: &mut Office) {
    let told = gate.begin(pays()).await;
    office.next().await.answer(sent_away("1"));
    assert_eq!(told.await.unwrap().status(), 302);
}

fn counted(gate: &Standing, result: &str) -> f64 {
    counted_of(gate, "mollie", result)
}

fn counted_of(gate: &Standing, provider: &str, result: &str) -> f64 {
    gate.figure(&format!("missing_callbacks_total{{provider=\"{provider}\",result=\"{result}\"}}"))
}

/// A gate that waits for payments of this provider, of which more is said.
async fn waits_for(provider: &str, more: &str, till: &Till, office: &Office) -> Standing {
    let url = till.url();
    let config = format!(
        "[[rule]]\npath = '/hook/{{account}}'\nprovider = '{provider}'\nhold = '0s'\n\
         [provider.{provider}]\napi_url = '{url}'\nmissing_after = '1s'\n{more}"
    );
    Standing::before(&office.url(), &config).await
}

fn tells(target: &str, body: &Value) -> String {
    post(target, "Content-Type: application/json\r\n", &body.to_string())
}

async fn accepted(gate: &Standing, office: &mut Office, request: String) {
    let told = gate.begin(request).await;
    office.next().await.answer(BRACKETS);
    told.await.unwrap().is_brackets();
}

/// Waits until the app has accepted so many of this provider's.
async fn has_accepted(gate: &Standing, provider: &str, count: f64) {
    let series = format!("deliveries_total{{provider=\"{provider}\",outcome=\"accepted\"}}");
    gate.until("the app has it", || gate.figure(&series) == count).await;
}

/// A status of Midtrans's, signed as its notifications are, unless it is not.
fn midtrans(status: &str, code: &str, signed: bool) -> Value {
    let mut said = json!({
        "transaction_id": "t-1", "order_id": "INV-1", "transaction_status": status, "status_code": code,
        "gross_amount": "121.00", "currency": "EUR", "fraud_status": "accept",
    });
    if signed {
        let made = digest::digest(&digest::SHA512, format!("INV-1{code}121.00server").as_bytes());
        said["signature_key"] = made.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
    }
    said
}

/// What was made is what Mollie would have sent.
fn is_mollies(visit: &Visit) {
    assert_eq!((visit.line(), visit.body.as_str()), (format!("POST {HOOK} HTTP/1.1").as_str(), "id=tr_1"));
    assert_eq!(visit.head.one("content-type"), "application/x-www-form-urlencoded");
    assert_eq!((visit.head.one("host"), visit.head.one("x-forwarded-proto")), ("pay.example", "https"));
    assert!(visit.head.one("user-agent").contains("nobody called"));
}

#[tokio::test]
async fn a_paid_payment_of_which_nobody_calls_is_delivered_once_and_the_real_one_is_a_repeat() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    paid(&till, &hook());
    let more = format!("admin.token = {{ value = '{TOKEN}' }}\n{}", waiting(&till));
    let gate = Standing::before(&office.url(), &more).await;
    begins(&gate, &mut office).await;
    let visit = office.next().await;
    is_mollies(&visit);
    visit.answer(BRACKETS);
    gate.until("it is counted", || counted(&gate, "delivered") == 1.0).await;
    has_accepted(&gate, "mollie", 1.0).await;
    assert_eq!(gate.ask(mollie("tr_1")).await.decision(), "replayed");
    assert!(office.is_quiet());
    let mut desk = connect(gate.running.admin.unwrap()).await;
    let asks = "GET /api/v1/history?reference=tr_1 HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n";
    desk.write(format!("{asks}Authorization: Bearer {TOKEN}\r\n\r\n")).await;
    let history = heard(desk).await;
    assert!(history.body.contains("nobody called: its provider was asked"), "{}", history.body);
    assert!(history.body.contains("\"source\":null"), "{}", history.body);
}

#[tokio::test]
async fn who_has_called_in_time_is_not_called_for() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    paid(&till, &hook());
    let gate = Standing::before(&office.url(), &waiting(&till)).await;
    begins(&gate, &mut office).await;
    let webhook = gate.begin(mollie("tr_1")).await;
    office.next().await.answer(BRACKETS);
    assert_eq!(webhook.await.unwrap().decision(), "first");
    gate.until("it is known", || counted(&gate, "known") == 1.0).await;
    assert!(office.is_quiet());
}

#[tokio::test]
async fn a_webhook_that_tells_of_a_pending_payment_is_waited_for_too() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    till.knows("tr_1", "pending", HASH);
    let gate = Standing::before(&office.url(), &waiting(&till)).await;
    let webhook = gate.begin(mollie("tr_1")).await;
    office.next().await.answer(BRACKETS);
    webhook.await.unwrap().is_brackets();
    paid(&till, &hook());
    let visit = office.next().await;
    is_mollies(&visit);
    visit.answer(BRACKETS);
    gate.until("it is counted", || counted(&gate, "delivered") == 1.0).await;
}

#[tokio::test]
async fn nothing_is_made_of_what_is_not_paid_or_not_known_or_belongs_nowhere() {
    let elsewhere = format!("https://pay.example/elsewhere{HOOK}");
    for (status, place, known, result) in [
        ("failed", &*hook(), "tr_1", "unpaid"),
        ("expired", &hook(), "tr_1", "unpaid"),
        ("paid", "", "tr_1", "placeless"),
        ("paid", "no address", "tr_1", "placeless"),
        ("paid", "ftp://pay.example/payment_webhook/a/b", "tr_1", "placeless"),
        ("paid", "https://user@pay.example/payment_webhook/a/b", "tr_1", "placeless"),
        // No rule takes that for a webhook of Mollie's.
        ("paid", &elsewhere, "tr_1", "placeless"),
        ("paid", &hook(), "tr_2", "unknown"),
        ("paid", &hook(), "", "unknown"),
    ] {
        let (till, mut office) = (Till::open().await, Office::open().await);
        if !known.is_empty() {
            let payment = json!({ "resource": "payment", "id": known, "status": status, "webhookUrl": place });
            till.answers("tr_1", payment);
        }
        let gate = Standing::before(&office.url(), &waiting(&till)).await;
        begins(&gate, &mut office).await;
        gate.until("it is over", || counted(&gate, result) == 1.0).await;
        assert!(office.is_quiet(), "{status} {place}");
        assert_eq!(till.asked().len(), 1);
    }
}

#[tokio::test]
async fn nobody_is_waited_for_who_is_not_to_be_and_a_payment_that_is_still_open_goes_on_being() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    till.knows("tr_1", "open", HASH);
    let off = Standing::before(&office.url(), &format!("{NINJA}{}", till.asked_with(&["test_a"], ""))).await;
    begins(&off, &mut office).await;
    let gate = Standing::before(&office.url(), &waiting(&till)).await;
    begins(&gate, &mut office).await;
    // Twice the same checkout is one payment.
    begins(&gate, &mut office).await;
    gate.until("it is asked", || !till.asked().is_empty()).await;
    assert!(office.is_quiet_for(Duration::from_millis(1500)).await);
    assert_eq!(till.asked().len(), 1);
    assert_eq!(["delivered", "known", "unpaid", "unknown"].map(|result| counted(&gate, result)), [0.0; 4]);
}

#[tokio::test]
async fn an_app_that_refuses_what_was_made_is_asked_again_for_nobody_else_will() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    paid(&till, &hook());
    let more = waiting(&till).replace("hold = '0s'", "hold = '0s'\nretry = { first = '100ms' }");
    let gate = Standing::before(&office.url(), &more).await;
    begins(&gate, &mut office).await;
    office.next().await.says(500, "not now");
    let again = office.next().await;
    is_mollies(&again);
    again.answer(BRACKETS);
    assert_eq!(counted(&gate, "delivered"), 1.0);
}

#[tokio::test]
async fn a_gate_that_was_down_when_the_time_came_asks_when_it_is_up_again() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    till.knows("tr_1", "open", HASH);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let store = format!("[store]\nengine = 'embedded'\npath = '{}'\n", path.display());
    let more = format!("{NINJA}{}{store}", till.asked_with(&["test_a"], "missing_after = '3s'"));
    let gate = Process::start(&office.url(), &more);
    let mut payer = connect(gate.address).await;
    payer.write(pays()).await;
    office.next().await.answer(sent_away("1"));
    assert_eq!(heard(payer).await.status(), 302);
    // Nobody waits until it is on the disk; what comes after it is, is.
    let mut webhook = connect(gate.address).await;
    webhook.write(mollie("tr_2")).await;
    office.next().await.answer(BRACKETS);
    heard(webhook).await.is_brackets();
    gate.signal("KILL");
    gate.end().await;
    paid(&till, &hook());
    let gate = Process::start(&office.url(), &more);
    let visit = soon(office.next()).await;
    is_mollies(&visit);
    visit.answer(BRACKETS);
    gate.signal("TERM");
    let (_, log) = gate.end().await;
    assert!(log.contains("nobody has called about a payment that is paid"), "{log}");
}

#[tokio::test]
async fn what_midtrans_never_told_is_what_it_answers_and_goes_where_it_told_of_the_beginning() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    let gate = waits_for("midtrans", MIDTRANS, &till, &office).await;
    let mut settled = midtrans("settlement", "200", true);
    till.at("GET /v2/t-1/status", 200, settled.clone());
    accepted(&gate, &mut office, tells("/hook/a?x=1", &midtrans("pending", "201", true))).await;
    let visit = office.next().await;
    assert_eq!((visit.line(), visit.body.as_str()), ("POST /hook/a?x=1 HTTP/1.1", settled.to_string().as_str()));
    assert!(visit.head.one("user-agent").contains("nobody called"));
    visit.answer(BRACKETS);
    gate.until("it is counted", || counted_of(&gate, "midtrans", "delivered") == 1.0).await;
    has_accepted(&gate, "midtrans", 2.0).await;
    assert_eq!(gate.ask(tells("/hook/a?x=1", &settled)).await.decision(), "replayed");
    // That nothing is against it needs not be said.
    settled.as_object_mut().unwrap().remove("fraud_status");
    assert_eq!(gate.ask(tells("/hook/a?x=1", &settled)).await.decision(), "replayed");
    assert!(office.is_quiet());
}

#[tokio::test]
async fn a_refund_of_midtrans_that_has_no_name_is_told_once_and_nothing_is_made_of_it() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    let gate = waits_for("midtrans", MIDTRANS, &till, &office).await;
    let mut answer = midtrans("refund", "200", true);
    answer["refund_amount"] = "121.00".into();
    till.at("GET /v2/t-1/status", 200, answer);
    for (status, code) in [("pending", "201"), ("settlement", "200"), ("refund", "200")] {
        accepted(&gate, &mut office, tells("/hook/a", &midtrans(status, code, true))).await;
    }
    gate.until("it is over", || counted_of(&gate, "midtrans", "placeless") == 1.0).await;
    assert!(office.is_quiet());
}

#[tokio::test]
async fn what_midtrans_never_told_finds_its_place_though_the_apps_answer_told_first_of_the_beginning() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    let more = format!(
        "{MIDTRANS}[[rule]]\npath = '/pay'\nlearn.session = 'set-cookie:s'\nlearn.reference.midtrans = 'header:X-Payment'\n"
    );
    let gate = waits_for("midtrans", &more, &till, &office).await;
    till.at("GET /v2/t-1/status", 200, midtrans("settlement", "200", true));
    let told = gate.begin(post("/pay", "", "")).await;
    let sent = "HTTP/1.1 302 Found\r\nlocation: https://app.midtrans.example/1\r\nx-payment: t-1\r\n\
                set-cookie: s=1\r\ncontent-length: 0\r\n\r\n";
    office.next().await.answer(sent);
    assert_eq!(told.await.unwrap().status(), 302);
    accepted(&gate, &mut office, tells("/hook/a?x=1", &midtrans("pending", "201", true))).await;
    let visit = office.next().await;
    assert_eq!(visit.line(), "POST /hook/a?x=1 HTTP/1.1");
    visit.answer(BRACKETS);
    gate.until("it is counted", || counted_of(&gate, "midtrans", "delivered") == 1.0).await;
    assert_eq!(counted_of(&gate, "midtrans", "placeless"), 0.0);
    assert!(office.is_quiet());
}

#[tokio::test]
async fn nothing_is_made_of_an_answer_of_midtrans_that_it_has_not_signed_or_signed_otherwise() {
    let mut forged = midtrans("settlement", "200", true);
    forged["signature_key"] = "00".repeat(64).into();
    for answer in [midtrans("settlement", "200", false), forged] {
        let (till, mut office) = (Till::open().await, Office::open().await);
        let gate = waits_for("midtrans", MIDTRANS, &till, &office).await;
        till.at("GET /v2/t-1/status", 200, answer);
        accepted(&gate, &mut office, tells("/hook/a", &midtrans("pending", "201", true))).await;
        gate.until("it is over", || counted_of(&gate, "midtrans", "placeless") == 1.0).await;
        assert!(office.is_quiet());
    }
}

#[tokio::test]
async fn what_mercado_pago_never_told_goes_as_an_older_notification_to_where_they_are_wanted() {
    let pix = |status: &str, address: &str| json!({ "id": 1300, "status": status, "transaction_amount": 121, "currency_id": "BRL", "notification_url": address });
    let told = json!({ "resource": "https://api.mercadopago.com/v1/payments/1300", "topic": "payment" });
    for (address, target) in [
        ("https://pay.example/hook/a?source_news=ipn", Some("/hook/a?source_news=ipn&topic=payment&id=1300")),
        ("https://pay.example/hook/a?x=1&source_news=ipn", Some("/hook/a?x=1&source_news=ipn&topic=payment&id=1300")),
        // Newer ones are sent there as well, or alone.
        ("https://pay.example/hook/a", None),
        ("https://pay.example/hook/a?source_news=webhooks", None),
    ] {
        let (till, mut office) = (Till::open().await, Office::open().await);
        let gate = waits_for("mercadopago", "api_keys = [{ value = 'key_1' }]\n", &till, &office).await;
        till.at("GET /v1/payments/1300", 200, pix("pending", address));
        accepted(&gate, &mut office, tells("/hook/a?topic=payment&id=1300", &told)).await;
        till.at("GET /v1/payments/1300", 200, pix("approved", address));
        let Some(target) = target else {
            gate.until("it is over", || counted_of(&gate, "mercadopago", "placeless") == 1.0).await;
            assert!(office.is_quiet());
            continue;
        };
        let visit = office.next().await;
        assert_eq!(visit.line(), format!("POST {target} HTTP/1.1"));
        let body: Value = serde_json::from_str(&visit.body).unwrap();
        assert_eq!((&body["topic"], visit.head.one("host")), (&json!("payment"), "pay.example"));
        visit.answer(BRACKETS);
        gate.until("it is counted", || counted_of(&gate, "mercadopago", "delivered") == 1.0).await;
        has_accepted(&gate, "mercadopago", 2.0).await;
        assert_eq!(gate.ask(tells(target, &body)).await.decision(), "replayed");
        assert!(office.is_quiet());
    }
}

/// The keys of GoCardless's answers and events.
const GOCARDLESS: &str = "secrets = [{ value = 'shared' }]\napi_keys = [{ value = 'token' }]\n";

/// An event of GoCardless's about its payment `PM1`.
fn happened(id: &str, action: &str, day: u8) -> Value {
    json!({
        "id": id, "created_at": format!("2026-03-{day:02}T10:00:00.000Z"), "resource_type": "payments", "action": action,
        "links": { "payment": "PM1" }, "details": { "origin": "gocardless", "cause": format!("payment_{action}") },
    })
}

/// A webhook with these events, signed.
fn batch(events: &[&Value]) -> String {
    let body = json!({ "events": events, "meta": { "webhook_id": "WB1" } }).to_string();
    let tag = tag(&body);
    post("/hook/a", &format!("Content-Type: application/json\r\nWebhook-Signature: {tag}\r\n"), &body)
}

fn tag(body: &str) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"shared"), body.as_bytes());
    tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn what_gocardless_never_told_is_its_own_event_and_signed_as_its_own() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    let gate = waits_for("gocardless", GOCARDLESS, &till, &office).await;
    let [created, submitted] = [happened("EV1", "created", 1), happened("EV2", "submitted", 2)];
    let [confirmed, paid_out] = [happened("EV3", "confirmed", 5), happened("EV4", "paid_out", 7)];
    let refund = json!({
        "id": "EV0", "created_at": "2026-03-09T10:00:00.000Z", "resource_type": "refunds", "action": "created",
        "links": { "refund": "RF1" },
    });
    let list = json!({ "events": [refund, paid_out, confirmed, submitted, created], "meta": { "limit": 500 } });
    till.at("GET /events?payment=PM1&limit=500", 200, list);
    // A batch may tell of several beginnings, and twice of one; what it tells to be over has not begun.
    let mut over = happened("EV9", "confirmed", 1);
    over["links"]["payment"] = "PM2".into();
    let mut begun = happened("EV8", "created", 1);
    begun["links"]["payment"] = "PM2".into();
    accepted(&gate, &mut office, batch(&[&created, &submitted, &begun, &over])).await;
    let visit = office.next().await;
    let body = json!({ "events": [confirmed] }).to_string();
    assert_eq!((visit.line(), &*visit.body), ("POST /hook/a HTTP/1.1", &*body));
    assert_eq!(visit.head.one("webhook-signature"), tag(&body));
    assert!(visit.head.one("user-agent").contains("nobody called"));
    visit.answer(BRACKETS);
    has_accepted(&gate, "gocardless", 2.0).await;
    gate.until("it is counted", || counted_of(&gate, "gocardless", "delivered") == 1.0).await;
    assert_eq!(gate.ask(batch(&[&confirmed])).await.decision(), "replayed");
    // What has happened since is another event.
    accepted(&gate, &mut office, batch(&[&paid_out])).await;
    assert!(office.is_quiet());
    let asked: Vec<_> = till.asked().iter().map(|head| head.line.clone()).collect();
    assert_eq!(asked, ["GET /events?payment=PM1&limit=500 HTTP/1.1"]);
}

#[tokio::test]
async fn nothing_is_made_of_what_gocardless_lists_when_it_does_not_end_in_being_paid() {
    let (created, confirmed) = (happened("EV1", "created", 1), happened("EV3", "confirmed", 5));
    let mut of_another = happened("EV5", "confirmed", 5);
    of_another["links"]["payment"] = "PM2".into();
    for (listed, result) in [
        (json!([happened("EV4", "late_failure_settled", 7), confirmed, created]), "unpaid"),
        (json!([happened("EV4", "charged_back", 7), confirmed, created]), "placeless"),
        (json!([happened("EV4", "cancelled", 7), created]), "unpaid"),
        (json!([]), "unknown"),
        (json!([of_another]), "unknown"),
    ] {
        let (till, mut office) = (Till::open().await, Office::open().await);
        let gate = waits_for("gocardless", GOCARDLESS, &till, &office).await;
        till.at("GET /events?payment=PM1&limit=500", 200, json!({ "events": listed }));
        accepted(&gate, &mut office, batch(&[&created])).await;
        gate.until("it is over", || counted_of(&gate, "gocardless", result) == 1.0).await;
        assert!(office.is_quiet(), "{result}");
    }
}

#[test]
fn what_is_to_be_signed_needs_a_secret_and_of_several_the_first_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let says = |secrets: &str| {
        let text = format!("[provider.gocardless]\napi_keys = [{{ env = 'PATH' }}]\nmissing_after = '1d'\n{secrets}");
        std::fs::write(folder.path().join("config.toml"), text).unwrap();
        let output = oncegate(folder.path(), &["check"]);
        (
            output.status.success(),
            String::from_utf8(output.stderr).unwrap() + &String::from_utf8(output.stdout).unwrap(),
        )
    };
    let (well, told) = says("");
    assert!(
        !well && told.contains("fault: config.toml:3: provider.gocardless.missing_after: what is made has to"),
        "{told}"
    );
    let (well, told) = says("secrets = [{ env = 'PATH' }]");
    assert!(well && !told.contains("missing_after"), "{told}");
    let (well, told) = says("secrets = [{ env = 'PATH' }, { env = 'HOME' }]");
    assert!(
        well && told.contains("provider.gocardless.missing_after: what is made is signed with the first"),
        "{told}"
    );
}
