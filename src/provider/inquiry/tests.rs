//! What answers of providers come to.

use serde_json::{Value as Json, json};

use super::*;
use crate::{
    callback::{Alias, Step},
    provider::{PROVIDERS, by_name, mercadopago::MERCADOPAGO, mollie::MOLLIE},
};

fn asked() -> &'static Inquiry {
    MOLLIE.inquiry.expect("Mollie is asked")
}

fn of(reference: &str) -> Event {
    Event { reference: reference.to_owned(), ..Event::default() }
}

fn told(change: impl FnOnce(&mut Json)) -> Told {
    let mut payment = json!({
        "resource": "payment", "id": "tr_1", "mode": "live", "status": "paid", "method": "ideal",
        "amount": { "value": "121.00", "currency": "EUR" }, "metadata": { "hash": "abc", "client_id": "x" },
    });
    change(&mut payment);
    asked().told("tr_1", payment.to_string().as_bytes())
}

fn event(change: impl FnOnce(&mut Json)) -> Event {
    match told(change) {
        Told::Event(said) => said.event.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_payment_tells_state_amount_and_the_hash_of_its_payer() {
    let paid = event(|_| {});
    assert_eq!((paid.state, paid.detail.as_deref()), (Some(State::Paid), None));
    assert_eq!((paid.amount.as_deref(), paid.currency.as_deref()), (Some("121.00"), Some("EUR")));
    assert_eq!(paid.aliases, [Alias { kind: "payment_hash".into(), value: "abc".into() }]);
    let expired = event(|payment| payment["status"] = json!("expired"));
    assert_eq!((expired.state, expired.detail.as_deref()), (Some(State::Cancelled), Some("expired")));
    for metadata in [json!(null), json!("text"), json!([1]), json!({ "hash": ["a"] }), json!({})] {
        assert!(event(|payment| payment["metadata"] = metadata).aliases.is_empty());
    }
}

#[test]
fn every_change_of_a_payment_is_another_state_and_nothing_else_is() {
    let refund = |id: &str, status: &str| json!({ "resource": "refund", "id": id, "status": status });
    let money = |value: &str| json!({ "value": value, "currency": "EUR" });
    let states = [
        event(|_| {}),
        event(|p| p["status"] = json!("failed")),
        event(|p| p["amountRefunded"] = money("10.00")),
        event(|p| {
            p["amountRefunded"] = money("10.00");
            p["_embedded"] = json!({ "refunds": [refund("re_1", "processing")] });
        }),
        event(|p| {
            p["amountRefunded"] = money("10.00");
            p["_embedded"] = json!({ "refunds": [refund("re_1", "refunded")] });
        }),
        // Another refund of the same amount, the first one having failed.
        event(|p| {
            p["amountRefunded"] = money("10.00");
            p["_embedded"] = json!({ "refunds": [refund("re_1", "failed"), refund("re_2", "refunded")] });
        }),
        event(|p| p["_embedded"] = json!({ "refunds": [refund("re_1", "failed")] })),
        event(|p| p["amountChargedBack"] = money("121.00")),
        event(|p| p["_embedded"] = json!({ "chargebacks": [{ "id": "chb_1", "reversedAt": "2026-03-02" }] })),
        event(|p| p["_embedded"] = json!({ "chargebacks": [{ "id": "chb_1" }] })),
    ];
    for (at, one) in states.iter().enumerate() {
        assert!(states[..at].iter().all(|other| other.facts != one.facts), "{one:?}");
    }
    assert_eq!((states[3].state, states[3].step), (Some(State::Refunded), Some(Step::Part)));
    assert_eq!(states[7].state, Some(State::ChargedBack));
    let same = event(|p| {
        p["amountRefunded"] = money("0.00");
        p["amountRemaining"] = money("121.00");
        p["_embedded"] = json!({ "refunds": [], "chargebacks": [] });
        p["new_member"] = json!({ "a": [1] });
    });
    assert_eq!(same.facts, states[0].facts);
    let order = |refunds: Json| event(|p| p["_embedded"] = json!({ "refunds": refunds })).facts;
    let (one, two) = (refund("re_1", "refunded"), refund("re_2", "refunded"));
    assert_eq!(order(json!([one, two])), order(json!([two, one])));
}

#[test]
fn an_answer_about_another_payment_or_of_another_kind_is_none() {
    assert_eq!(told(|payment| payment["id"] = json!("tr_2")), Told::Another);
    assert!(matches!(told(|payment| payment["resource"] = json!("order")), Told::Nothing(NoEvent::Unreadable(_))));
    assert!(matches!(told(|payment| payment["status"] = json!(null)), Told::Nothing(NoEvent::Unreadable(_))));
    let amount = json!({ "value": "10,00", "currency": "EUR" });
    assert!(matches!(told(|payment| payment["amountRefunded"] = amount), Told::Nothing(NoEvent::Unreadable(_))));
    for body in ["", "[]", "null", "{", "<html>"] {
        assert!(matches!(asked().told("tr_1", body.as_bytes()), Told::Nothing(NoEvent::Unreadable(_))), "{body}");
    }
}

#[test]
fn mercado_pago_is_asked_about_payments_and_nothing_else() {
    let inquiry = MERCADOPAGO.inquiry.expect("it is asked");
    let notice = |topic: &str| Event { event_type: Some(format!("{topic} (IPN)")), ..of("1300") };
    assert_eq!(inquiry.path(&notice("payment")).as_deref(), Some("/v1/payments/1300"));
    assert_eq!(inquiry.path(&notice("merchant_order")), None);
    let newer = |kind: &str| inquiry.path(&Event { event_type: Some(kind.into()), ..of("1300") });
    assert_eq!(newer("payment.updated").as_deref(), Some("/v1/payments/1300"));
    assert_eq!(newer("subscription.updated"), None);
}

#[test]
fn a_payment_of_mercado_pago_tells_what_has_become_of_it() {
    let told = |change: &dyn Fn(&mut Json)| {
        let mut payment = json!({
            "id": 1300, "status": "approved", "status_detail": "accredited", "currency_id": "BRL",
            "transaction_amount": 121.5, "transaction_amount_refunded": 0, "refunds": [],
        });
        change(&mut payment);
        match MERCADOPAGO.inquiry.expect("it is asked").told("1300", payment.to_string().as_bytes()) {
            Told::Event(said) => said.event.clone(),
            other => panic!("{other:?}"),
        }
    };
    let refund = |id: u64| json!({ "id": id, "payment_id": 1300, "amount": 10, "status": "approved" });
    let refunded = |amount: Json, refunds: &[Json]| {
        told(&|p| {
            p["transaction_amount_refunded"] = amount.clone();
            p["refunds"] = json!(refunds);
        })
    };
    let paid = told(&|_| {});
    assert_eq!((paid.state, paid.detail.as_deref()), (Some(State::Paid), Some("accredited")));
    assert_eq!((paid.amount.as_deref(), paid.currency.as_deref()), (Some("121.50"), Some("BRL")));
    let (once, twice) = (refunded(json!(10), &[refund(1)]), refunded(json!(20.0), &[refund(1), refund(2)]));
    assert_eq!((once.state, twice.state), (Some(State::Refunded), Some(State::Refunded)));
    assert!(paid.facts != once.facts && once.facts != twice.facts);
    assert_eq!((paid.step, once.step), (None, Some(Step::Part)));
    assert_eq!(refunded(json!(10.0), &[refund(1)]).facts, once.facts, "10 is 10.0");
    assert_eq!(refunded(json!(0.0), &[]).facts, paid.facts);
    for (status, state) in [
        ("pending", Some(State::Pending)),
        ("in_process", Some(State::Pending)),
        ("rejected", Some(State::Failed)),
        ("cancelled", Some(State::Cancelled)),
        ("charged_back", Some(State::ChargedBack)),
        ("in_mediation", None),
    ] {
        assert_eq!(told(&|p| p["status"] = json!(status)).state, state, "{status}");
    }
}

#[test]
fn only_plain_references_get_into_a_path() {
    let path = |reference: &str| asked().path(&of(reference));
    assert_eq!(path("tr_7Uh").as_deref(), Some("/v2/payments/tr_7Uh?embed=refunds,chargebacks"));
    for odd in
        ["ord_1", "tr_a/b", "tr_a?b", "tr_a#b", "tr_a%2f", "tr_a b", "tr_\u{e4}", &format!("tr_{}", "x".repeat(126))]
    {
        assert_eq!(path(odd), None, "{odd}");
    }
}

#[test]
fn what_the_callback_tells_by_itself_stays() {
    let said = Event {
        reference: "tr_1".into(),
        state: Some(State::Paid),
        amount: Some("1.00".into()),
        facts: vec![("status", "paid".into())],
        aliases: vec![Alias { kind: "payment_hash".into(), value: "abc".into() }],
        ..Event::default()
    };
    let (bare, word) = completed(of("tr_1"), &said);
    assert_eq!((bare.state, &bare.facts, &bare.aliases), (said.state, &said.facts, &said.aliases));
    assert_eq!(word, Word::Whole);
    let own = Event { event_id: Some("e".into()), facts: vec![("status", "open".into())], ..of("tr_1") };
    let (own, word) = completed(own, &said);
    assert_eq!((own.facts, own.aliases), (vec![("status", "open".into())], said.aliases.clone()));
    assert_eq!((own.state, own.amount.as_deref(), word), (Some(State::Paid), Some("1.00"), Word::Apart));
}

#[test]
fn whoever_is_asked_is_asked_over_tls_at_a_fixed_place() {
    let asked: Vec<_> = PROVIDERS.iter().filter_map(|provider| provider.inquiry).collect();
    assert!(!asked.is_empty());
    for inquiry in asked {
        assert!(inquiry.url.starts_with("https://") && !inquiry.url.ends_with('/'), "{}", inquiry.url);
        assert!(!inquiry.questions.is_empty() && !inquiry.sources.is_empty());
        for question in inquiry.questions {
            let named = question.path.matches('{').count();
            // What is signed says in its own way which payment it is about.
            let least = usize::from(!matches!(inquiry.access, Access::Signed(_)));
            assert!(question.path.starts_with('/') && named >= least, "{}", question.path);
        }
    }
}

#[test]
fn how_far_two_words_go_together_is_known() {
    let said = |state: State| Event { state: Some(state), facts: vec![("status", "x".into())], ..of("tr_1") };
    let word = |own: State, is: State| completed(said(own), &said(is)).1;
    use State::{Cancelled, ChargedBack, Failed, Paid, Pending, Refunded};
    for state in State::ALL {
        assert_eq!(word(state, state), Word::Same);
    }
    for (own, is) in [(Paid, Pending), (Paid, Failed), (Refunded, Cancelled), (ChargedBack, Pending)] {
        assert_eq!(word(own, is), Word::Against, "{own:?} {is:?}");
    }
    for (own, is) in [(Pending, Paid), (Failed, Paid), (Paid, Refunded), (ChargedBack, Paid), (Cancelled, Failed)] {
        assert_eq!(word(own, is), Word::Apart, "{own:?} {is:?}");
    }
    assert!(Word::Whole.vouches() && Word::Same.vouches() && !Word::Apart.vouches() && !Word::Against.vouches());
}

/// What a provider is asked about an event of this type, under these names.
fn path(provider: &str, kind: &str, reference: &str, aliases: &[(&str, &str)]) -> Option<String> {
    let aliases = aliases.iter().map(|(kind, value)| Alias { kind: (*kind).into(), value: (*value).into() }).collect();
    let event = Event { event_type: Some(kind.to_owned()), aliases, ..of(reference) };
    by_name(provider).and_then(|provider| provider.inquiry).expect("it is asked").path(&event)
}

#[test]
fn each_provider_is_asked_for_what_an_event_is_about_and_for_nothing_else() {
    let intent = "/v1/payment_intents/pi_1?expand%5B%5D=latest_charge";
    let session = ("przelewy24_session", "INV-1");
    for (provider, kind, reference, names, expected) in [
        ("stripe", "payment_intent.succeeded", "pi_1", &[][..], Some(intent)),
        ("stripe", "charge.refunded", "ch_1", &[], Some("/v1/charges/ch_1")),
        ("stripe", "customer.created", "cus_1", &[], None),
        ("paypal", "PAYMENT.CAPTURE.COMPLETED", "C1", &[("paypal_order", "O1")], Some("/v2/payments/captures/C1")),
        ("paypal", "CHECKOUT.ORDER.APPROVED", "O1", &[("paypal_order", "O1")], Some("/v2/checkout/orders/O1")),
        ("paypal", "CHECKOUT.ORDER.COMPLETED", "C1", &[("paypal_order", "O1")], Some("/v2/payments/captures/C1")),
        ("paypal", "CUSTOMER.DISPUTE.CREATED", "C1", &[], None),
        ("gocardless", "payments.confirmed", "PM1", &[], Some("/payments/PM1")),
        ("gocardless", "mandates.created", "MD1", &[], None),
        ("square", "payment.updated", "P1", &[], Some("/v2/payments/P1")),
        ("square", "refund.updated", "P1", &[], Some("/v2/payments/P1")),
        ("square", "order.updated", "O1", &[], None),
        ("razorpay", "payment.captured", "pay_1", &[], Some("/v1/payments/pay_1")),
        ("razorpay", "payment_link.expired", "plink_1", &[], None),
        ("klarna", "KCO push", "o-1", &[], Some("/ordermanagement/v1/orders/o-1")),
        ("klarna", "HPP status_update", "s-1", &[], Some("/hpp/v1/sessions/s-1")),
        ("przelewy24", "transaction", "310", &[session], Some("/api/v1/transaction/by/sessionId/INV-1")),
        ("przelewy24", "transaction", "310", &[("przelewy24_session", "a/../b")], None),
        ("przelewy24", "transaction", "310", &[("przelewy24_session", "{reference}")], None),
        ("przelewy24", "transaction", "310", &[], None),
        ("przelewy24", "transaction", "3/0", &[session], None),
        ("alipay", "TRADE_SUCCESS", "2026", &[], Some("/gateway.do")),
        ("alipay", "TRADE_SUCCESS", "2026\"", &[], None),
        ("wechatpay-v3", "TRANSACTION.SUCCESS", "42", &[], Some("/v3/pay/transactions/id/42?mchid={account}")),
        ("midtrans", "settlement", "t-1", &[], Some("/v2/t-1/status")),
    ] {
        assert_eq!(path(provider, kind, reference, names).as_deref(), expected, "{provider} {kind} {reference}");
    }
}

/// What an answer of this provider tells of this payment.
fn answer(provider: &str, reference: &str, answer: &Json) -> Told {
    let inquiry = by_name(provider).and_then(|provider| provider.inquiry).expect("it is asked");
    inquiry.told(reference, answer.to_string().as_bytes())
}

/// The same answer with members of it changed, each named by its place.
fn with(answer: &Json, changes: &[(&str, Json)]) -> Json {
    let mut answer = answer.clone();
    for (place, value) in changes {
        let (parent, member) = place.rsplit_once('/').expect("a place");
        answer.pointer_mut(parent).expect("it is there")[member] = value.clone();
    }
    answer
}

/// A provider, a payment, the answer when it is paid, where its id stands there, and its amount.
type Paid = (&'static str, &'static str, Json, &'static str, Option<(&'static str, &'static str)>);

/// One of each provider that is asked.
fn paid() -> Vec<Paid> {
    let eur = |value: &str| json!({ "value": value, "currency": "EUR" });
    let code = |value: &str| json!({ "value": value, "currency_code": "EUR" });
    vec![
        (
            "mollie",
            "tr_1",
            json!({ "resource": "payment", "id": "tr_1", "status": "paid", "amount": eur("121.00") }),
            "/id",
            Some(("121.00", "EUR")),
        ),
        (
            "stripe",
            "pi_1",
            json!({
                "id": "pi_1", "object": "payment_intent", "amount": 12100, "amount_received": 12100, "currency": "eur",
                "status": "succeeded", "metadata": { "payment_hash": "abc" }, "last_payment_error": null,
                "latest_charge": { "id": "ch_1", "object": "charge", "captured": true, "amount_refunded": 0, "disputed": false },
            }),
            "/id",
            Some(("121.00", "EUR")),
        ),
        (
            "stripe",
            "ch_1",
            json!({
                "id": "ch_1", "object": "charge", "amount": 12100, "amount_refunded": 0, "captured": true, "currency": "jpy",
                "status": "succeeded", "disputed": false,
            }),
            "/id",
            Some(("12100", "JPY")),
        ),
        (
            "paypal",
            "C1",
            json!({
                "id": "C1", "status": "COMPLETED", "amount": code("121.00"), "custom_id": "abc",
                "supplementary_data": { "related_ids": { "order_id": "O1" } },
            }),
            "/id",
            Some(("121.00", "EUR")),
        ),
        (
            "paypal",
            "O1",
            json!({ "id": "O1", "status": "COMPLETED", "purchase_units": [{ "amount": code("121.00") }] }),
            "/id",
            Some(("121.00", "EUR")),
        ),
        (
            "gocardless",
            "PM1",
            json!({ "payments": {
            "id": "PM1", "amount": 12100, "amount_refunded": 0, "currency": "EUR", "status": "confirmed",
            "metadata": { "payment_hash": "abc" }, "links": { "mandate": "MD1" },
        } }),
            "/payments/id",
            Some(("121.00", "EUR")),
        ),
        (
            "square",
            "P1",
            json!({ "payment": {
            "id": "P1", "status": "COMPLETED", "amount_money": { "amount": 12100, "currency": "EUR" }, "version_token": "x",
        } }),
            "/payment/id",
            Some(("121.00", "EUR")),
        ),
        (
            "razorpay",
            "pay_1",
            json!({
                "id": "pay_1", "entity": "payment", "amount": 121000, "currency": "INR", "status": "captured", "captured": true,
                "amount_refunded": 0, "refund_status": null, "order_id": "order_1",
            }),
            "/id",
            Some(("1210.00", "INR")),
        ),
        (
            "klarna",
            "o-1",
            json!({
                "order_id": "o-1", "status": "CAPTURED", "order_amount": 12100, "captured_amount": 12100, "refunded_amount": 0,
                "purchase_currency": "EUR", "fraud_status": "ACCEPTED",
            }),
            "/order_id",
            Some(("121.00", "EUR")),
        ),
        (
            "klarna",
            "s-1",
            json!({ "session_id": "s-1", "status": "COMPLETED", "order_id": "o-1" }),
            "/session_id",
            None,
        ),
        (
            "przelewy24",
            "310",
            json!({ "data": {
            "orderId": 310, "sessionId": "INV-1", "status": 2, "amount": 12100, "currency": "PLN",
        }, "responseCode": 0 }),
            "/data/orderId",
            Some(("121.00", "PLN")),
        ),
        (
            "alipay",
            "2026",
            json!({ "alipay_trade_query_response": {
            "code": "10000", "msg": "Success", "trade_no": "2026", "out_trade_no": "INV-1", "trade_status": "TRADE_SUCCESS",
            "total_amount": "121.00",
        }, "sign": "x" }),
            "/alipay_trade_query_response/trade_no",
            Some(("121.00", "CNY")),
        ),
        (
            "wechatpay-v3",
            "42",
            json!({
                "transaction_id": "42", "out_trade_no": "INV-1", "trade_state": "SUCCESS", "mchid": "1900",
                "amount": { "total": 12100, "payer_total": 12100, "currency": "CNY" },
            }),
            "/transaction_id",
            Some(("121.00", "CNY")),
        ),
        (
            "midtrans",
            "t-1",
            json!({
                "transaction_id": "t-1", "order_id": "INV-1", "status_code": "200", "transaction_status": "settlement",
                "gross_amount": "1210000.00", "currency": "IDR", "fraud_status": "accept",
            }),
            "/transaction_id",
            Some(("1210000.00", "IDR")),
        ),
        (
            "mercadopago",
            "1300",
            json!({
                "id": 1300, "status": "approved", "currency_id": "BRL", "transaction_amount": 121.5,
            }),
            "/id",
            Some(("121.50", "BRL")),
        ),
    ]
}

#[test]
fn a_payment_of_each_provider_is_known_as_paid_with_its_amount() {
    let mut asked: Vec<_> = PROVIDERS.iter().filter(|p| p.inquiry.is_some()).map(|p| p.name).collect();
    for (provider, reference, json, _, amount) in paid() {
        let Told::Event(said) = answer(provider, reference, &json) else { panic!("{provider} {reference}: {json}") };
        let event = &said.event;
        assert_eq!(event.state, Some(State::Paid), "{provider} {reference}");
        assert_eq!(event.amount.as_deref().zip(event.currency.as_deref()), amount, "{provider} {reference}");
        assert!(!event.facts.is_empty() && event.event_id.is_none());
        asked.retain(|name| *name != provider);
    }
    assert!(asked.is_empty(), "nobody looked at answers of {asked:?}");
}

#[test]
fn no_provider_is_believed_about_another_payment_and_nothing_odd_is_read() {
    for (provider, reference, json, id, _) in paid() {
        let another = with(&json, &[(id, json!("tr_other"))]);
        assert_eq!(answer(provider, reference, &another), Told::Another, "{provider}");
        for odd in [json!(null), json!([reference]), json!({ "a": 1 })] {
            let odd = answer(provider, reference, &with(&json, &[(id, odd)]));
            assert!(!matches!(odd, Told::Event(_)), "{provider}: {odd:?}");
        }
        let inquiry = by_name(provider).and_then(|provider| provider.inquiry).expect("it is asked");
        for body in ["", "[]", "null", "{", "{}", "<html>", "\u{0}"] {
            assert!(matches!(inquiry.told(reference, body.as_bytes()), Told::Nothing(_)), "{provider} {body}");
        }
    }
}

/// A provider, a payment, what is other in its answer than when it is paid, and the state that it is in then.
type Becomes<'a> = (&'a str, &'a str, &'a [(&'a str, Json)], Option<State>);

#[test]
fn what_becomes_of_a_payment_is_another_state_at_each_provider() {
    use State::{Cancelled, ChargedBack, Failed, Paid, Pending, Refunded};
    let cases: &[Becomes<'_>] = &[
        ("stripe", "pi_1", &[("/latest_charge/amount_refunded", json!(1000))], Some(Refunded)),
        ("stripe", "pi_1", &[("/latest_charge/amount_refunded", json!(2000))], Some(Refunded)),
        ("stripe", "pi_1", &[("/latest_charge/disputed", json!(true))], Some(Paid)),
        ("stripe", "pi_1", &[("/status", json!("requires_payment_method"))], Some(Pending)),
        ("stripe", "pi_1", &[("/status", json!("requires_capture"))], Some(Pending)),
        ("stripe", "pi_1", &[("/status", json!("canceled"))], Some(Cancelled)),
        ("stripe", "ch_1", &[("/captured", json!(false))], Some(Pending)),
        ("stripe", "ch_1", &[("/status", json!("failed"))], Some(Failed)),
        ("paypal", "C1", &[("/status", json!("PARTIALLY_REFUNDED"))], Some(Refunded)),
        ("paypal", "C1", &[("/status", json!("PENDING"))], Some(Pending)),
        ("paypal", "C1", &[("/status", json!("DECLINED"))], Some(Failed)),
        ("paypal", "O1", &[("/status", json!("APPROVED"))], Some(Pending)),
        ("paypal", "O1", &[("/status", json!("VOIDED"))], Some(Cancelled)),
        ("gocardless", "PM1", &[("/payments/status", json!("submitted"))], Some(Pending)),
        ("gocardless", "PM1", &[("/payments/amount_refunded", json!(100))], Some(Refunded)),
        ("gocardless", "PM1", &[("/payments/status", json!("charged_back"))], Some(ChargedBack)),
        ("gocardless", "PM1", &[("/payments/status", json!("new"))], None),
        ("square", "P1", &[("/payment/status", json!("APPROVED"))], Some(Pending)),
        ("square", "P1", &[("/payment/refunded_money", json!({ "amount": 100, "currency": "EUR" }))], Some(Refunded)),
        ("square", "P1", &[("/payment/status", json!("CANCELED"))], Some(Cancelled)),
        ("razorpay", "pay_1", &[("/amount_refunded", json!(100))], Some(Refunded)),
        ("razorpay", "pay_1", &[("/status", json!("authorized"))], Some(Pending)),
        ("razorpay", "pay_1", &[("/status", json!("failed"))], Some(Failed)),
        ("klarna", "o-1", &[("/status", json!("AUTHORIZED")), ("/captured_amount", json!(0))], Some(Pending)),
        ("klarna", "o-1", &[("/refunded_amount", json!(100))], Some(Refunded)),
        ("klarna", "o-1", &[("/refunded_amount", json!(200))], Some(Refunded)),
        ("klarna", "o-1", &[("/status", json!("CANCELLED")), ("/captured_amount", json!(0))], Some(Cancelled)),
        ("klarna", "s-1", &[("/status", json!("IN_PROGRESS"))], Some(Pending)),
        ("przelewy24", "310", &[("/data/status", json!(0))], Some(Pending)),
        ("przelewy24", "310", &[("/data/status", json!(1))], Some(Paid)),
        ("przelewy24", "310", &[("/data/status", json!(3))], Some(Refunded)),
        ("alipay", "2026", &[("/alipay_trade_query_response/trade_status", json!("WAIT_BUYER_PAY"))], Some(Pending)),
        // It may have been paid, or not.
        ("alipay", "2026", &[("/alipay_trade_query_response/trade_status", json!("TRADE_CLOSED"))], None),
        ("wechatpay-v3", "42", &[("/trade_state", json!("REFUND"))], Some(Refunded)),
        ("wechatpay-v3", "42", &[("/trade_state", json!("NOTPAY"))], Some(Pending)),
        ("wechatpay-v3", "42", &[("/trade_state", json!("CLOSED"))], Some(Cancelled)),
        ("midtrans", "t-1", &[("/transaction_status", json!("pending"))], Some(Pending)),
        ("midtrans", "t-1", &[("/transaction_status", json!("refund"))], Some(Refunded)),
    ];
    let known = |provider: &str, reference: &str, json: &Json| match answer(provider, reference, json) {
        Told::Event(said) => said.event.clone(),
        other => panic!("{provider} {reference}: {other:?}"),
    };
    for (provider, reference, json, ..) in paid() {
        let mut seen = vec![known(provider, reference, &json).facts.clone()];
        for (_, _, changes, state) in cases.iter().filter(|case| (case.0, case.1) == (provider, reference)) {
            let event = known(provider, reference, &with(&json, changes));
            assert_eq!(event.state, *state, "{provider} {changes:?}");
            assert!(!seen.contains(&event.facts), "{provider} {changes:?}");
            seen.push(event.facts.clone());
        }
    }
}

#[test]
fn the_payers_hash_and_the_order_are_told_where_the_provider_knows_them() {
    let names = |provider: &str, reference: &str| {
        let json = paid().into_iter().find(|case| (case.0, case.1) == (provider, reference)).expect("a case").2;
        let Told::Event(said) = answer(provider, reference, &json) else { panic!("{json}") };
        said.event.aliases.iter().map(|alias| format!("{}={}", alias.kind, alias.value)).collect::<Vec<_>>()
    };
    assert_eq!(names("stripe", "pi_1"), ["payment_intent=pi_1", "payment_hash=abc"]);
    assert_eq!(names("gocardless", "PM1"), ["payment_hash=abc"]);
    assert_eq!(names("paypal", "C1"), ["paypal_order=O1"]);
    assert_eq!(names("paypal", "O1"), ["paypal_order=O1"]);
    assert_eq!(names("razorpay", "pay_1"), ["razorpay_order=order_1"]);
    assert_eq!(names("klarna", "s-1"), ["klarna_order=o-1"]);
    assert_eq!(names("przelewy24", "310"), ["przelewy24_session=INV-1"]);
}

#[test]
fn what_an_api_says_with_the_status_of_success_may_be_that_it_has_nothing_to_say() {
    let alipay = |code: &str, detail: &str| {
        let answered = json!({ "code": code, "msg": "x", "sub_code": detail });
        answer("alipay", "2026", &json!({ "alipay_trade_query_response": answered, "sign": "x" }))
    };
    assert_eq!(alipay("40004", "ACQ.TRADE_NOT_EXIST"), Told::Nothing(NoEvent::NotFound));
    assert_eq!(alipay("40002", "isv.invalid-signature"), Told::Nothing(NoEvent::Refused));
    assert!(matches!(alipay("40004", "ACQ.SYSTEM_ERROR"), Told::Nothing(NoEvent::Failed(_))));
    assert!(matches!(alipay("20000", "aop.unknow-error"), Told::Nothing(NoEvent::Failed(_))));
    let midtrans = |code: &str| answer("midtrans", "t-1", &json!({ "status_code": code, "status_message": "x" }));
    assert_eq!(midtrans("404"), Told::Nothing(NoEvent::NotFound));
    assert_eq!(midtrans("401"), Told::Nothing(NoEvent::Refused));
    assert!(matches!(midtrans("500"), Told::Nothing(NoEvent::Failed(_))));
}

#[test]
fn refunds_of_midtrans_are_the_same_in_whatever_order_they_are_listed() {
    let facts = |keys: &[&str]| {
        let refunds: Vec<_> = keys.iter().map(|key| json!({ "refund_key": key })).collect();
        let status = json!({ "transaction_id": "t-1", "status_code": "200", "transaction_status": "refund", "refunds": refunds });
        match answer("midtrans", "t-1", &status) {
            Told::Event(said) => said.event.facts.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(facts(&["a", "b"]), facts(&["b", "a"]));
    assert_ne!(facts(&["a", "b"]), facts(&["a"]));
    assert_ne!(facts(&["a", "1:a,"]), facts(&["a", "a"]));
}
