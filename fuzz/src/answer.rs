//! What a provider says when it is asked: a byte for the provider, a line with the payment, and the body of its answer.

use http::{HeaderMap, HeaderValue, Method, Uri, header::CONTENT_TYPE};
use oncegate::{
    callback::{Alias, Event, RequestView},
    provider::{
        PROVIDERS,
        contract::{Keyring, Provider},
        extract::{Dialect, Reader},
        inquiry::{Body, Call, Inquiry, Notice, Told, completed},
    },
};

fn asked() -> Vec<(&'static Provider, &'static Inquiry)> {
    PROVIDERS.iter().filter_map(|provider| Some((*provider, provider.inquiry?))).collect()
}

pub fn try_it(bytes: &[u8]) {
    let Some((whom, rest)) = bytes.split_first() else { return };
    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return };
    let (Ok(reference), body) = (std::str::from_utf8(&rest[..end]), &rest[end + 1..]) else { return };
    let asked = asked();
    let (provider, inquiry) = asked[usize::from(*whom) % asked.len()];
    stays_in_its_place(inquiry, reference);
    let told = inquiry.told(reference, body);
    assert_eq!(told, inquiry.told(reference, body), "{}: read twice", provider.name);
    let Told::Event(said) = told else { return };
    assert_eq!(said.event.reference, reference, "{}: it is about what was asked for", provider.name);
    assert!(said.event.event_id.is_none(), "{}: an answer is no event", provider.name);
    let other = inquiry.told("another-payment", body);
    assert!(reference == "another-payment" || other == Told::Another, "{}: and about nothing else", provider.name);
    // What has nothing to say of itself is whole by it, and whole is whole.
    let bare = Event { reference: reference.to_owned(), ..Event::default() };
    let (whole, word) = completed(bare, &said.event);
    assert!(word.vouches(), "{}: its word", provider.name);
    assert_eq!((whole.state, &whole.facts, &whole.amount), (said.event.state, &said.event.facts, &said.event.amount));
    assert_eq!(completed(whole.clone(), &said.event).0, whole, "{}: completed twice", provider.name);
    match (inquiry.missing.notice(), &said.call) {
        (Some(notice), Some(call)) => is_the_providers(provider, inquiry, notice, call, reference),
        (None, Some(_)) => panic!("{}: nothing is made of its answers", provider.name),
        (_, None) => {}
    }
}

/// What is made of an answer is about the payment that was asked for, as its provider's own callback is read.
fn is_the_providers(provider: &Provider, inquiry: &Inquiry, notice: &Notice, call: &Call, reference: &str) {
    let event_type = notice.event_type.map(str::to_owned);
    let about = Event { reference: reference.to_owned(), event_type, ..Event::default() };
    // Nobody asks about another.
    if inquiry.path(&about).is_none() {
        return;
    }
    // Nothing goes to what is no address.
    let Ok(uri) = call.place.as_deref().unwrap_or("/").parse::<Uri>() else { return };
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(notice.content_type))]);
    let read = |body: &[u8]| {
        let view = RequestView { method: &Method::POST, uri: &uri, headers: &headers, body, segments: &[] };
        (provider.events)(&Reader::new(&view, Dialect::Strict), &Keyring::default())
    };
    let events = read(&call.body);
    match &events {
        Ok(events) => assert!(matches!(&**events, [event] if event.reference == reference), "{}", provider.name),
        // The address may name another.
        Err(why) => assert!(call.place.is_some(), "{}: {why:?}", provider.name),
    }
    if matches!(notice.body, Body::Repeats(_)) {
        let spaced = [&call.body[..], b" "].concat();
        assert_eq!(read(&spaced), events, "{}: its own is the same, though not byte for byte", provider.name);
    }
}

/// Whatever stands in a callback, the question goes to one payment and carries nothing else.
fn stays_in_its_place(inquiry: &Inquiry, reference: &str) {
    let kinds = ["paypal_order", "order", "session", "out_trade_no", "mchid", "checkout_session"];
    let alias = |kind: &&str| Alias { kind: (*kind).into(), value: reference.to_owned() };
    let event =
        Event { reference: reference.to_owned(), aliases: kinds.iter().map(alias).collect(), ..Event::default() };
    let Some(path) = inquiry.path(&event) else { return };
    assert!(path.starts_with('/') && path.parse::<http::Uri>().is_ok(), "{path:?}");
    let mut parts = path.split(['/', '?', '&', '=']);
    assert!(parts.all(|part| part != ".." && part != "."), "{path:?}");
    let count = |text: &str, marks: &[char]| text.matches(marks).count();
    let shapes = inquiry.questions.iter().map(|question| count(question.path, &['/', '?', '&', '#', '=']));
    assert!(shapes.into_iter().any(|marks| marks == count(&path, &['/', '?', '&', '#', '='])), "{path:?}");
}

pub fn seeds() -> Vec<Vec<u8>> {
    // What their manuals show, cut to what is read; of each, one that is paid, and of who repeats his notification more.
    const ANSWERS: [(&str, &str, &str); 15] = [
        (
            "mollie",
            "tr_1",
            r#"{"resource":"payment","id":"tr_1","status":"paid","amount":{"value":"12.00","currency":"EUR"},"amountRefunded":{"value":"2.00","currency":"EUR"},"_embedded":{"refunds":[{"id":"re_1","status":"refunded"}]},"metadata":{"hash":"h"},"webhookUrl":"https://pay.example/hook"}"#,
        ),
        (
            "stripe",
            "pi_1",
            r#"{"id":"pi_1","object":"payment_intent","status":"succeeded","amount":1200,"currency":"eur","latest_charge":{"id":"ch_1","amount_refunded":200,"disputed":false},"metadata":{"payment_hash":"h"}}"#,
        ),
        (
            "paypal",
            "1",
            r#"{"id":"1","status":"COMPLETED","amount":{"value":"12.00","currency_code":"EUR"},"supplementary_data":{"related_ids":{"order_id":"O"}}}"#,
        ),
        (
            "gocardless",
            "PM1",
            r#"{"payments":{"id":"PM1","status":"confirmed","amount":1200,"currency":"EUR","amount_refunded":0,"metadata":{"payment_hash":"h"}}}"#,
        ),
        (
            "gocardless",
            "PM1",
            r#"{"events":[{"id":"EV2","created_at":"2026-03-05T10:00:00.000Z","resource_type":"payments","action":"confirmed","links":{"payment":"PM1"}},{"id":"EV1","created_at":"2026-03-01T10:00:00.000Z","resource_type":"payments","action":"created","links":{"payment":"PM1"}}],"meta":{"limit":500}}"#,
        ),
        (
            "square",
            "p1",
            r#"{"payment":{"id":"p1","status":"COMPLETED","amount_money":{"amount":1200,"currency":"EUR"},"refunded_money":{"amount":100,"currency":"EUR"},"order_id":"o"}}"#,
        ),
        (
            "razorpay",
            "pay_1",
            r#"{"id":"pay_1","entity":"payment","status":"captured","amount":1200,"amount_refunded":0,"currency":"INR","order_id":"order_1"}"#,
        ),
        (
            "mercadopago",
            "1",
            r#"{"id":1,"status":"approved","transaction_amount":12.5,"currency_id":"BRL","transaction_amount_refunded":0,"external_reference":"h","refunds":[]}"#,
        ),
        (
            "klarna",
            "1",
            r#"{"order_id":"1","status":"CAPTURED","order_amount":1200,"captured_amount":1200,"refunded_amount":0,"purchase_currency":"EUR","refunds":[]}"#,
        ),
        (
            "przelewy24",
            "s1",
            r#"{"data":{"sessionId":"s1","orderId":1,"status":1,"amount":1200,"currency":"PLN","statement":"x"},"responseCode":0}"#,
        ),
        (
            "alipay",
            "1",
            r#"{"alipay_trade_query_response":{"code":"10000","msg":"Success","out_trade_no":"1","trade_no":"2","trade_status":"TRADE_SUCCESS","total_amount":"12.00"},"sign":"x"}"#,
        ),
        (
            "wechatpay-v3",
            "1",
            r#"{"out_trade_no":"1","transaction_id":"2","trade_state":"SUCCESS","amount":{"total":1200,"currency":"CNY"},"mchid":"1900"}"#,
        ),
        (
            "midtrans",
            "t-1",
            r#"{"transaction_id":"t-1","order_id":"O","transaction_status":"settlement","status_code":"200","gross_amount":"12.00","currency":"IDR","fraud_status":"accept","signature_key":"00"}"#,
        ),
        (
            "midtrans",
            "t-1",
            r#"{"transaction_id":"t-1","order_id":"O","transaction_status":"refund","status_code":"200","gross_amount":"12.00","currency":"IDR","fraud_status":"accept","refund_amount":"12.00","signature_key":"00"}"#,
        ),
        (
            "midtrans",
            "t-1",
            r#"{"transaction_id":"t-1","order_id":"O","transaction_status":"refund","status_code":"200","gross_amount":"12.00","currency":"IDR","fraud_status":"accept","refund_amount":"12.00","refunds":[{"refund_key":"r"}],"signature_key":"00"}"#,
        ),
    ];
    let asked = asked();
    let seed = |(name, reference, body): &(&str, &str, &str)| {
        let whom = asked.iter().position(|(provider, _)| provider.name == *name);
        let whom = whom.unwrap_or_else(|| panic!("{name} can't be asked"));
        [&[u8::try_from(whom).expect("few")][..], reference.as_bytes(), b"\n", body.as_bytes()].concat()
    };
    ANSWERS.iter().map(seed).collect()
}
