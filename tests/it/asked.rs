//! Every provider that can be asked, over the wire: how it is asked, and what its answer does to its callbacks.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use oncegate::provider::PROVIDERS;
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    signature::{RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey},
};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::{Value, json};

use crate::{
    support::{
        Office, Standing, Till,
        office::{BRACKETS, WELCOME},
        standing::{back, post},
        till::whole,
        wire::Head,
    },
    tidy::root,
};

/// The key with which WeChat Pay seals its notices.
const SEAL: &[u8; 32] = b"0123456789abcdef0123456789abcdef";
/// A private key of nobody's.
const SIGNS: &str = "tests/fixtures/keys/rsa.pem";

/// One provider: a callback of its that tells of 121.00 paid, and its API.
struct Case {
    provider: &'static str,
    /// What the configuration says of it.
    key: String,
    /// The target and the body of the callback.
    target: &'static str,
    body: String,
    /// Method and path of the question, and the field that shows the key, where that is always the same.
    asks: &'static str,
    shows: Option<&'static str>,
    /// The answer, and the places in it of the payment's id and of its status, with the word for one that is not paid.
    answer: Value,
    id: &'static str,
    status: (&'static str, Value),
}

/// A notice of WeChat Pay's, sealed.
fn sealed(plain: &Value) -> String {
    let mut text = plain.to_string().into_bytes();
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, SEAL).unwrap());
    let nonce = Nonce::assume_unique_for_key(*b"012345678901");
    key.seal_in_place_append_tag(nonce, Aad::from("transaction"), &mut text).unwrap();
    json!({
        "id": "EV-1", "event_type": "TRANSACTION.SUCCESS", "resource_type": "encrypt-resource",
        "resource": {
            "algorithm": "AEAD_AES_256_GCM", "nonce": "012345678901", "associated_data": "transaction",
            "ciphertext": BASE64_STANDARD.encode(text),
        },
    })
    .to_string()
}

fn cases() -> Vec<Case> {
    let bearer = || "api_keys = [{ value = 'key_1' }]\n".to_owned();
    let basic = || "api_keys = [{ value = 'user:pass' }]\n".to_owned();
    let pem = root().join(SIGNS).display().to_string();
    let eur = json!({ "amount": 12100, "currency": "EUR" });
    let case = |provider, key: String, body: Value, asks, shows, answer, id, status| Case {
        provider,
        key,
        target: "/hook",
        body: body.to_string(),
        asks,
        shows,
        answer,
        id,
        status,
    };
    const BASIC: Option<&str> = Some("Basic dXNlcjpwYXNz");
    const BEARER: Option<&str> = Some("Bearer key_1");
    let mut cases = vec![
        case(
            "stripe",
            bearer(),
            json!({
                "id": "evt_1", "object": "event", "type": "payment_intent.succeeded", "data": { "object": {
                    "id": "pi_1", "object": "payment_intent", "amount": 12100, "currency": "eur", "status": "succeeded",
                } },
            }),
            "GET /v1/payment_intents/pi_1?expand%5B%5D=latest_charge",
            BEARER,
            json!({
                "id": "pi_1", "object": "payment_intent", "amount": 12100, "currency": "eur", "status": "succeeded",
                "metadata": { "payment_hash": "h1" },
            }),
            "/id",
            ("/status", json!("processing")),
        ),
        case(
            "paypal",
            basic(),
            json!({
                "id": "WH-1", "event_type": "PAYMENT.CAPTURE.COMPLETED", "resource_type": "capture", "create_time": "x",
                "resource": { "id": "C1", "status": "COMPLETED", "amount": { "value": "121.00", "currency_code": "EUR" } },
            }),
            "GET /v2/payments/captures/C1",
            Some("Bearer A21"),
            json!({ "id": "C1", "status": "COMPLETED", "amount": { "value": "121.00", "currency_code": "EUR" } }),
            "/id",
            ("/status", json!("PENDING")),
        ),
        case(
            "gocardless",
            bearer(),
            json!({ "events": [{
                "id": "EV1", "resource_type": "payments", "action": "confirmed", "links": { "payment": "PM1" },
            }] }),
            "GET /payments/PM1",
            BEARER,
            json!({ "payments": {
                "id": "PM1", "amount": 12100, "currency": "EUR", "status": "confirmed", "metadata": { "payment_hash": "h1" },
            } }),
            "/payments/id",
            ("/payments/status", json!("submitted")),
        ),
        case(
            "square",
            bearer(),
            json!({
                "merchant_id": "M", "type": "payment.updated", "event_id": "e-1", "data": { "id": "P1", "object": {
                    "payment": { "id": "P1", "status": "COMPLETED", "amount_money": eur },
                } },
            }),
            "GET /v2/payments/P1",
            BEARER,
            json!({ "payment": { "id": "P1", "status": "COMPLETED", "amount_money": eur } }),
            "/payment/id",
            ("/payment/status", json!("FAILED")),
        ),
        case(
            "razorpay",
            basic(),
            json!({
                "entity": "event", "event": "payment.captured", "contains": ["payment"], "payload": { "payment": { "entity": {
                    "id": "pay_1", "amount": 12100, "currency": "EUR", "status": "captured",
                } } },
            }),
            "GET /v1/payments/pay_1",
            BASIC,
            json!({ "id": "pay_1", "entity": "payment", "amount": 12100, "currency": "EUR", "status": "captured" }),
            "/id",
            ("/status", json!("created")),
        ),
        case(
            "klarna",
            basic(),
            json!({ "event_id": "e-1", "session": { "session_id": "s-1", "status": "COMPLETED" } }),
            "GET /hpp/v1/sessions/s-1",
            BASIC,
            json!({ "session_id": "s-1", "status": "COMPLETED", "order_id": "o-1" }),
            "/session_id",
            ("/status", json!("IN_PROGRESS")),
        ),
        case(
            "przelewy24",
            basic(),
            json!({ "merchantId": 1, "sessionId": "INV-1", "orderId": 310, "amount": 12100, "currency": "EUR", "sign": "x" }),
            "GET /api/v1/transaction/by/sessionId/INV-1",
            BASIC,
            json!({ "data": { "orderId": 310, "sessionId": "INV-1", "status": 2, "amount": 12100, "currency": "EUR" } }),
            "/data/orderId",
            ("/data/status", json!(0)),
        ),
        case(
            "midtrans",
            "api_keys = [{ value = 'server:' }]\n".to_owned(),
            json!({
                "transaction_id": "t-1", "order_id": "INV-1", "transaction_status": "settlement", "status_code": "200",
                "gross_amount": "121.00", "currency": "EUR",
            }),
            "GET /v2/t-1/status",
            Some("Basic c2VydmVyOg=="),
            json!({
                "transaction_id": "t-1", "status_code": "200", "transaction_status": "settlement", "gross_amount": "121.00",
                "currency": "EUR",
            }),
            "/transaction_id",
            ("/transaction_status", json!("pending")),
        ),
        case(
            "wechatpay-v3",
            format!(
                "secrets = [{{ value = '{}' }}]\napi_keys = [{{ file = '{pem}', account = '1900', serial = '5F' }}]\n",
                std::str::from_utf8(SEAL).unwrap()
            ),
            Value::Null,
            "GET /v3/pay/transactions/id/42?mchid=1900",
            None,
            json!({ "transaction_id": "42", "trade_state": "SUCCESS", "amount": { "total": 12100, "currency": "EUR" } }),
            "/transaction_id",
            ("/trade_state", json!("NOTPAY")),
        ),
        case(
            "alipay",
            format!("api_keys = [{{ file = '{pem}', account = '2021' }}]\n"),
            Value::Null,
            "POST /gateway.do",
            None,
            json!({ "alipay_trade_query_response": {
                "code": "10000", "trade_no": "2026", "trade_status": "TRADE_SUCCESS", "total_amount": "121.00",
            } }),
            "/alipay_trade_query_response/trade_no",
            ("/alipay_trade_query_response/trade_status", json!("WAIT_BUYER_PAY")),
        ),
        case(
            "mercadopago",
            bearer(),
            json!({ "action": "payment.updated", "api_version": "v1", "data": { "id": "1300" }, "id": 1, "type": "payment" }),
            "GET /v1/payments/1300",
            BEARER,
            json!({ "id": 1300, "status": "approved", "transaction_amount": 121, "currency_id": "EUR" }),
            "/id",
            ("/status", json!("pending")),
        ),
    ];
    for case in &mut cases {
        match case.provider {
            "wechatpay-v3" => {
                let plain = json!({ "transaction_id": "42", "trade_state": "SUCCESS", "amount": { "total": 12100 } });
                case.body = sealed(&plain);
            }
            "alipay" => {
                case.body = "trade_no=2026&notify_id=n1&notify_type=trade_status_sync&app_id=2021\
                             &trade_status=TRADE_SUCCESS&total_amount=121.00"
                    .to_owned();
            }
            _ => {}
        }
    }
    cases
}

impl Case {
    fn request(&self) -> String {
        let kind = if self.provider == "alipay" { "application/x-www-form-urlencoded" } else { "application/json" };
        post(self.target, &format!("Content-Type: {kind}\r\n"), &self.body)
    }

    /// A gate that always asks `till`, and counts under `seen` what is known to be 121.00 paid.
    async fn gate(&self, till: &Till, office: &Office, more: &str) -> Standing {
        let currency = if matches!(self.provider, "alipay" | "wechatpay-v3") { "CNY" } else { "EUR" };
        // A session has no amount.
        let amount = if self.provider == "klarna" { "null" } else { "121.00" };
        let seen = match amount {
            "null" => "event.state == 'paid'".to_owned(),
            amount => format!("event.state == 'paid' && event.amount == {amount} && event.currency == '{currency}'"),
        };
        let config = format!(
            "[[rule]]\npath = '/hook'\nprovider = '{provider}'\nhold = '0s'\n\
             [[rule]]\nname = 'seen'\npath = '/hook'\nwhen = \"{seen}\"\n\
             [[rule]]\npath = '/payments/process/response'\nchannel = 'return'\naliases.payment_hash = 'query:payment_hash'\n\
             [provider.{provider}]\napi_url = '{url}'\ninquire = 'always'\n{more}\n{key}",
            provider = self.provider,
            url = till.url(),
            key = self.key,
        );
        Standing::before(&office.url(), &config).await
    }

    fn opens(&self, till: &Till, answer: Value) {
        till.at("POST /v1/oauth2/token", 200, json!({ "access_token": "A21", "expires_in": 32400 }));
        till.at(self.asks, 200, answer);
    }

    fn counted(&self, gate: &Standing, result: &str) -> f64 {
        gate.figure(&format!("inquiries_total{{provider=\"{}\",result=\"{result}\"}}", self.provider))
    }

    fn with(&self, place: &str, value: Value) -> Value {
        let mut answer = self.answer.clone();
        *answer.pointer_mut(place).unwrap() = value;
        answer
    }
}

#[tokio::test]
async fn each_provider_is_asked_as_it_wants_to_be_and_its_answer_is_known() {
    let mut untold: Vec<_> = PROVIDERS.iter().filter(|p| p.inquiry.is_some()).map(|p| p.name).collect();
    for case in cases() {
        let (till, mut office) = (Till::open().await, Office::open().await);
        case.opens(&till, case.answer.clone());
        let gate = case.gate(&till, &office, "").await;
        let told = gate.begin(case.request()).await;
        office.next().await.answer(BRACKETS);
        assert_eq!(told.await.unwrap().decision(), "first", "{}", case.provider);
        let seen = format!(
            "callbacks_total{{rule=\"seen\",provider=\"{}\",channel=\"webhook\",decision=\"first\"}}",
            case.provider
        );
        assert_eq!((case.counted(&gate, "found"), gate.figure(&seen)), (1.0, 1.0), "{}", case.provider);
        let asked = till.asked();
        let question = asked.last().unwrap();
        assert_eq!(question.line, format!("{} HTTP/1.1", case.asks));
        if let Some(shows) = case.shows {
            assert_eq!(question.one("authorization"), shows, "{}", case.provider);
        }
        // Told once more it is known by its own id or its own facts.
        assert_eq!(gate.ask(case.request()).await.decision(), "replayed", "{}", case.provider);
        assert!(office.is_quiet());
        untold.retain(|name| *name != case.provider);
    }
    assert_eq!(untold, ["mollie"], "which has tests of its own");
}

#[tokio::test]
async fn what_nobody_has_signed_and_its_provider_says_otherwise_is_unverified() {
    for case in cases() {
        // What it tells is nothing that could be contradicted.
        let speaks = case.provider != "mercadopago";
        let (till, mut office) = (Till::open().await, Office::open().await);
        case.opens(&till, case.with(case.status.0, case.status.1.clone()));
        let gate = case.gate(&till, &office, "").await;
        if speaks {
            let told = gate.ask(case.request()).await;
            assert_eq!(told.decision(), "unverified", "{}", case.provider);
            assert!(told.status() >= 400 && office.is_quiet(), "{}", case.provider);
        }
        // And who is asked about one payment and answers about another is believed in nothing.
        let other = if case.answer.pointer(case.id).unwrap().is_number() { json!(7) } else { json!("other") };
        case.opens(&till, case.with(case.id, other));
        let told = gate.ask(case.request()).await;
        assert_eq!((told.decision(), case.counted(&gate, "another")), ("unverified", 1.0), "{}", case.provider);
        assert!(office.is_quiet());
    }
}

#[tokio::test]
async fn whatever_is_wrong_with_an_api_its_callbacks_go_by_what_they_say() {
    for case in cases() {
        for (status, result) in
            [(404, "not_found"), (400, "not_found"), (403, "refused"), (500, "failed"), (302, "failed")]
        {
            let (till, mut office) = (Till::open().await, Office::open().await);
            case.opens(&till, case.answer.clone());
            till.at(case.asks, status, json!({}));
            // No time for a second try.
            let gate = case.gate(&till, &office, "api_timeout = '240ms'").await;
            let told = gate.begin(case.request()).await;
            office.next().await.answer(BRACKETS);
            assert_eq!(told.await.unwrap().decision(), "first", "{} {status}", case.provider);
            // On a slow machine an answer may take too long as well.
            gate.until("it is counted", || case.counted(&gate, result) + case.counted(&gate, "timeout") >= 1.0).await;
        }
        let limited = "HTTP/1.1 429 X\r\nretry-after: 600\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        for (says, takes, result) in [(Some(limited), 0, "limited"), (Some(""), 0, "failed"), (None, 60, "timeout")] {
            let (till, mut office) = (Till::open().await, Office::open().await);
            case.opens(&till, case.answer.clone());
            till.says(says);
            till.takes(Duration::from_secs(takes));
            let gate = case.gate(&till, &office, "api_timeout = '240ms'").await;
            let told = gate.begin(case.request()).await;
            office.next().await.answer(BRACKETS);
            assert_eq!(told.await.unwrap().decision(), "first", "{} {result}", case.provider);
            gate.until("it is counted", || case.counted(&gate, result) + case.counted(&gate, "timeout") >= 1.0).await;
        }
    }
}

#[tokio::test]
async fn a_callback_that_names_no_payer_finds_his_return_by_the_name_that_the_provider_tells() {
    for case in cases().into_iter().filter(|case| matches!(case.provider, "gocardless" | "stripe")) {
        let (till, mut office) = (Till::open().await, Office::open().await);
        case.opens(&till, case.answer.clone());
        let gate = case.gate(&till, &office, "").await;
        let webhook = gate.begin(case.request()).await;
        let in_app = office.next().await;
        let payer = gate.begin(back("h1")).await;
        let stranger = gate.begin(back("h2")).await;
        let visit = office.next().await;
        assert!(visit.line().contains("h2"), "{}", visit.line());
        visit.answer(WELCOME);
        stranger.await.unwrap().is_welcome();
        assert!(office.is_quiet_for(Duration::from_millis(100)).await);
        in_app.answer(BRACKETS);
        webhook.await.unwrap().is_brackets();
        office.next().await.answer(WELCOME);
        payer.await.unwrap().is_welcome();
        assert!(gate.figure("joined_total{by=\"inquiry\"}") >= 1.0);
    }
}

#[tokio::test]
async fn a_token_is_had_once_for_all_questions_and_anew_when_it_is_refused() {
    let case = cases().into_iter().find(|case| case.provider == "paypal").unwrap();
    let (till, office) = (Till::open().await, Office::open().await);
    let gate = case.gate(&till, &office, "").await;
    let _seen = office.answer_all(BRACKETS);
    case.opens(&till, case.answer.clone());
    till.takes(Duration::from_millis(50));
    let capture = |n: usize| {
        let place = format!("GET /v2/payments/captures/C{n}");
        till.at(&place, 200, case.with("/id", json!(format!("C{n}"))));
        case.request().replace("\"C1\"", &format!("\"C{n}\"")).replace("WH-1", &format!("WH-{n}"))
    };
    let mut told = Vec::new();
    for n in 1..9 {
        told.push(gate.begin(capture(n)).await);
    }
    for told in told {
        told.await.unwrap().is_brackets();
    }
    let tokens = || {
        let heard = till.heard();
        let exchanges = heard.iter().filter(|(head, _)| head.line.starts_with("POST /v1/oauth2/token"));
        exchanges.cloned().collect::<Vec<(Head, String)>>()
    };
    let (head, body) = &tokens()[0];
    assert_eq!((head.one("authorization"), body.as_str()), ("Basic dXNlcjpwYXNz", "grant_type=client_credentials"));
    assert_eq!((tokens().len(), case.counted(&gate, "found")), (1, 8.0));
    // The token is taken back before its time: another is had, once, and if that helps nothing it is let be.
    till.at("GET /v2/payments/captures/C1", 401, json!({}));
    gate.ask(case.request().replace("WH-1", "WH-x")).await.is_brackets();
    assert_eq!((tokens().len(), case.counted(&gate, "refused")), (2, 1.0));
    // Whom it does not know gets none.
    till.at("POST /v1/oauth2/token", 401, json!({ "error": "invalid_client" }));
    gate.ask(case.request().replace("WH-1", "WH-y")).await.is_brackets();
    assert_eq!((tokens().len(), case.counted(&gate, "refused")), (3, 2.0));
}

#[tokio::test]
async fn what_is_signed_is_signed_as_the_manuals_have_it() {
    let der = PrivatePkcs8KeyDer::from_pem_file(root().join(SIGNS)).unwrap();
    let pair = RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).unwrap();
    let public: Vec<u8> = pair.public().as_ref().to_vec();
    let signed = |message: &str, tag: &str| {
        let tag = BASE64_STANDARD.decode(tag).unwrap();
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &public);
        key.verify(message.as_bytes(), &tag).unwrap_or_else(|_| panic!("{message}"));
    };
    let mut seen = Vec::new();
    for case in cases().into_iter().filter(|case| case.shows.is_none()) {
        let (till, office) = (Till::open().await, Office::open().await);
        case.opens(&till, case.answer.clone());
        let gate = case.gate(&till, &office, "").await;
        let _seen = office.answer_all(BRACKETS);
        gate.ask(case.request()).await.is_brackets();
        let (head, body) = till.heard().pop().unwrap();
        if case.provider == "wechatpay-v3" {
            let shown = head.one("authorization").strip_prefix("WECHATPAY2-SHA256-RSA2048 ").unwrap();
            let parts: Vec<_> = shown.split(',').map(|part| part.split_once("=\"").unwrap()).collect();
            let part = |name: &str| parts.iter().find(|(n, _)| *n == name).unwrap().1.trim_end_matches('"');
            assert_eq!((part("mchid"), part("serial_no"), part("nonce_str").len()), ("1900", "5F", 32));
            let path = "/v3/pay/transactions/id/42?mchid=1900";
            signed(&format!("GET\n{path}\n{}\n{}\n\n", part("timestamp"), part("nonce_str")), part("signature"));
        } else {
            let mut pairs: Vec<(String, String)> = form(&body);
            let at = pairs.iter().position(|(name, _)| name == "sign").unwrap();
            let (_, tag) = pairs.remove(at);
            pairs.sort();
            let told: Vec<_> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
            signed(&told.join("&"), &tag);
            let told = told.join("&");
            for part in ["app_id=2021", "{\"trade_no\":\"2026\"}", "method=alipay.trade.query", "sign_type=RSA2"] {
                assert!(told.contains(part), "{told}");
            }
        }
        seen.push(case.provider);
    }
    assert_eq!(seen, ["wechatpay-v3", "alipay"]);
}

/// The pairs of a form.
fn form(body: &str) -> Vec<(String, String)> {
    let plain = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
    body.split('&').map(|pair| pair.split_once('=').unwrap()).map(|(name, value)| (plain(name), plain(value))).collect()
}

#[tokio::test]
async fn a_push_that_says_nothing_is_known_by_what_became_of_its_order() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    let order = |status: &str, captured: u32, refunded: u32| {
        json!({
            "order_id": "o-1", "status": status, "order_amount": 12100, "captured_amount": captured,
            "refunded_amount": refunded, "purchase_currency": "EUR", "fraud_status": "ACCEPTED",
        })
    };
    let config = format!(
        "[[rule]]\npath = '/push'\nprovider = 'klarna'\nhold = '0s'\n\
         [provider.klarna]\napi_url = '{}'\napi_keys = [{{ value = 'user:pass' }}]\n",
        till.url()
    );
    let gate = Standing::before(&office.url(), &config).await;
    let push = || post("/push?klarna_order_id=o-1", "", "");
    let states = [("AUTHORIZED", 0, 0), ("CAPTURED", 12100, 0), ("CAPTURED", 12100, 100), ("CAPTURED", 12100, 200)];
    for (at, (status, captured, refunded)) in states.into_iter().enumerate() {
        till.at("GET /ordermanagement/v1/orders/o-1", 200, order(status, captured, refunded));
        let told = gate.begin(push()).await;
        office.next().await.answer(BRACKETS);
        assert_eq!(told.await.unwrap().decision(), if at == 0 { "first" } else { "new_state" });
        assert_eq!(gate.ask(push()).await.decision(), "replayed");
    }
    assert!(office.is_quiet());
}

#[tokio::test]
async fn without_being_told_to_nobody_asks_about_what_says_what_happened() {
    for case in cases() {
        let (till, mut office) = (Till::open().await, Office::open().await);
        till.says(Some(&whole(500, &json!({}))));
        let config = format!(
            "[[rule]]\npath = '/hook'\nprovider = '{provider}'\nhold = '0s'\n[provider.{provider}]\napi_url = '{}'\n{}",
            till.url(),
            case.key,
            provider = case.provider,
        );
        let gate = Standing::before(&office.url(), &config).await;
        let told = gate.begin(case.request()).await;
        office.next().await.answer(BRACKETS);
        told.await.unwrap().is_brackets();
        assert!(till.asked().is_empty(), "{}", case.provider);
    }
}

#[tokio::test]
async fn names_that_anybody_may_have_written_beside_a_reference_are_no_links() {
    let (till, mut office) = (Till::open().await, Office::open().await);
    till.at("GET /v1/payments/pay_1", 200, json!({ "id": "pay_1", "entity": "payment", "status": "captured" }));
    let config = format!(
        "[[rule]]\npath = '/hook'\nprovider = 'razorpay'\nhold = '0s'\naliases.payment_hash = 'query:hash'\n\
         [[rule]]\npath = '/payments/process/response'\nchannel = 'return'\naliases.payment_hash = 'query:payment_hash'\n\
         [provider.razorpay]\napi_url = '{}'\ninquire = 'always'\napi_keys = [{{ value = 'user:pass' }}]\n",
        till.url()
    );
    let gate = Standing::before(&office.url(), &config).await;
    let captured = |event: &str, hash: &str| {
        let body = json!({
            "entity": "event", "event": "payment.captured", "contains": ["payment"],
            "payload": { "payment": { "entity": { "id": "pay_1", "status": "captured" } } },
        });
        let fields = format!("Content-Type: application/json\r\nX-Razorpay-Event-Id: {event}\r\n");
        post(&format!("/hook?hash={hash}"), &fields, &body.to_string())
    };
    let forged = gate.begin(captured("e1", "h1")).await;
    office.next().await.answer(BRACKETS);
    forged.await.unwrap().is_brackets();
    // The payment's own webhook, under another hash, keeps out nobody with the one that was made up.
    let webhook = gate.begin(captured("e2", "h2")).await;
    let in_app = office.next().await;
    let payer = gate.begin(back("h1")).await;
    office.next().await.answer(WELCOME);
    payer.await.unwrap().is_welcome();
    in_app.answer(BRACKETS);
    webhook.await.unwrap().is_brackets();
}
