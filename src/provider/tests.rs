//! Laws over every provider of the slice, and what the rule's places add.

use std::{collections::BTreeSet, fs, path::PathBuf};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use proptest::prelude::*;
use serde_json::Value;

use super::{contract::*, extract::*, *};
use crate::{
    callback::{Alias, Signature},
    time::Timestamp,
};

/// A request that owns its parts.
struct Request {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Request {
    fn new(method: Method, uri: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let field = |(name, value): &(&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        let mut map = HeaderMap::new();
        for (name, value) in headers.iter().map(field) {
            map.append(name, value);
        }
        Self { method, uri: uri.parse().unwrap(), headers: map, body: body.as_ref().to_vec() }
    }

    fn json(body: &str) -> Self {
        Self::new(Method::POST, "/", &[("content-type", "application/json")], body)
    }

    fn view(&self) -> RequestView<'_> {
        RequestView { method: &self.method, uri: &self.uri, headers: &self.headers, body: &self.body, segments: &[] }
    }
}

fn places(text: &[&str]) -> Vec<Place> {
    text.iter().map(|place| place.parse().unwrap()).collect()
}

#[test]
fn names_are_ascii_and_unique() {
    assert!(!PROVIDERS.is_empty());
    let names: BTreeSet<_> = PROVIDERS.iter().map(|p| p.name).collect();
    assert_eq!(names.len(), PROVIDERS.len());
    for name in names {
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-'), "{name}");
        assert_ne!(name, "auto", "the word for recognition");
        assert_eq!(by_name(name).unwrap().name, name);
    }
}

#[test]
fn every_provider_says_what_it_takes_and_where_that_is_written() {
    for p in PROVIDERS {
        assert!(!p.title.is_empty());
        assert!(p.ack.status.is_success(), "{}", p.name);
        assert_eq!(p.ack.content_type.is_some(), !p.ack.body.is_empty(), "{}", p.name);
        assert!(p.refusal.is_client_error() || p.refusal.is_server_error(), "{}", p.name);
        assert!(p.answer_limit >= Duration::from_secs(1) && p.retry_span > p.answer_limit, "{}", p.name);
        assert!(!p.sources.is_empty() && p.sources.iter().all(|source| source.starts_with("https://")), "{}", p.name);
        assert!(docs_table().contains(&format!("`{}`", p.name)));
    }
}

fn fixtures(provider: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures", provider].iter().collect()
}

fn parse(bytes: &[u8]) -> Request {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(head) = request.parse(bytes).unwrap() else { panic!("the head is incomplete") };
    let (method, uri) = (request.method.unwrap().parse().unwrap(), request.path.unwrap());
    let headers: Vec<_> =
        request.headers.iter().map(|field| (field.name, std::str::from_utf8(field.value).unwrap())).collect();
    Request::new(method, uri, &headers, &bytes[head..])
}

#[test]
fn every_provider_reads_its_fixtures_as_expected() {
    for p in PROVIDERS.iter().filter(|p| p.name != "generic") {
        let folder = fixtures(p.name);
        let expected: Value = serde_json::from_slice(&fs::read(folder.join("expect.json")).unwrap()).unwrap();
        let secret = Secret::new(SecretKind::Hmac, expected["secret"].as_str().unwrap().as_bytes());
        let files = expected["files"].as_object().unwrap();
        let there =
            fs::read_dir(&folder).unwrap().filter(|f| f.as_ref().unwrap().path().extension().unwrap() == "http");
        assert!(files.len() > 3 && files.len() == there.count(), "{}: every fixture has its expectation", p.name);
        for (file, expected) in files {
            let request = parse(&fs::read(folder.join(file)).unwrap());
            for dialect in [Dialect::Strict, Dialect::Php] {
                // PHP takes the last of two fields.
                if !(expected["reference"].is_null() && dialect == Dialect::Php) {
                    reads_as_expected(p, &request, dialect, expected, &format!("{}/{file}", p.name));
                }
            }
            let signature = p.scheme.check(&request.view(), std::slice::from_ref(&secret), Timestamp::default());
            assert_eq!(signature.as_str(), expected["signature"], "{}/{file}", p.name);
            assert_eq!(p.scheme.check(&request.view(), &[], Timestamp::default()), Signature::Unchecked);
        }
    }
}

fn reads_as_expected(p: &Provider, request: &Request, dialect: Dialect, expected: &Value, file: &str) {
    let Some(reference) = expected["reference"].as_str() else {
        assert!((p.events)(&request.view(), dialect).is_err(), "{file}");
        return;
    };
    assert_eq!(recognise(&request.view()).map(|p| p.name).unwrap_or(p.name), p.name, "{file}");
    let events = (p.events)(&request.view(), dialect).unwrap();
    let [event] = events.as_slice() else { panic!("{file}: one event is expected") };
    let hash = event.aliases.iter().find(|alias| &*alias.kind == "payment_hash").map(|alias| alias.value.as_str());
    assert_eq!(event.reference, reference, "{file}");
    for (what, is) in [
        ("event_id", event.event_id.as_deref()),
        ("state", event.state.map(State::as_str)),
        ("amount", event.amount.as_deref()),
        ("currency", event.currency.as_deref()),
        ("payment_hash", hash),
    ] {
        assert_eq!(is, expected[what].as_str(), "{file}: {what}");
    }
    assert_eq!(event.facts.is_empty(), event.state.is_none(), "{file}: facts tell a state");
}

#[test]
fn a_secret_of_another_kind_does_not_count() {
    let request = parse(&fs::read(fixtures("mollie").join("event-paid.http")).unwrap());
    let secret = Secret::new(SecretKind::ApiKey, *b"fixture-signing-secret");
    assert_eq!(mollie::MOLLIE.scheme.check(&request.view(), &[secret], Timestamp::default()), Signature::Unchecked);
}

#[test]
fn mollie_recognises_its_own_and_not_any_id() {
    let form =
        |body: &str| Request::new(Method::POST, "/", &[("content-type", "application/x-www-form-urlencoded")], body);
    assert_eq!(recognise(&form("id=tr_abc").view()).map(|p| p.name), Some("mollie"));
    for other in ["id=1234", "id=tr_abc&amount=1", "reference=tr_abc", ""] {
        assert!(recognise(&form(other).view()).is_none(), "{other}");
    }
    assert!(recognise(&Request::json(r#"{"id":"evt_1","type":"charge.refunded"}"#).view()).is_none());
}

#[test]
fn a_rule_alone_makes_an_event_of_the_generic_provider() {
    let rule = Places {
        reference: places(&["json:$.txn.id"]),
        event_id: places(&["header:X-Event-Id"]),
        state: places(&["json:$.txn.status"]),
        amount: places(&["json:$.txn.amount"]),
        currency: places(&["json:$.txn.currency"]),
        aliases: vec![("order".into(), places(&["json:$.order", "json:$.txn.order"]))],
        identity: places(&["json:$.txn.id", "json:$.seq", "json:$.nothing"]),
    };
    let body = r#"{"seq":7,"txn":{"id":"T1","status":"paid","amount":121.50,"currency":"eur","order":"O9"}}"#;
    let request = Request::new(Method::POST, "/", &[("content-type", "application/json"), ("x-event-id", "E1")], body);
    for dialect in [Dialect::Strict, Dialect::Php] {
        let events = read(&generic::GENERIC, &rule, &request.view(), dialect).unwrap();
        assert_eq!(
            events,
            [Event {
                reference: "T1".into(),
                event_id: Some("E1".into()),
                state: Some(State::Paid),
                amount: Some("121.50".into()),
                currency: Some("EUR".into()),
                aliases: vec![Alias { kind: "order".into(), value: "O9".into() }],
                facts: vec![("state", "paid".into()), ("amount", "121.50".into()), ("currency", "eur".into())],
                ..Event::default()
            }]
        );
        let parts = identity(&rule, &request.view(), dialect).unwrap();
        assert_eq!(parts, [("json:$.txn.id".into(), "T1".into()), ("json:$.seq".into(), "7".into())]);
    }
}

#[test]
fn a_foreign_state_is_kept_as_detail_and_tells_states_apart() {
    let rule = Places { reference: places(&["json:$.id"]), state: places(&["json:$.s"]), ..Places::default() };
    let request = Request::json(r#"{"id":"T1","s":"SETTLED"}"#);
    let events = read(&generic::GENERIC, &rule, &request.view(), Dialect::Strict).unwrap();
    assert_eq!((events[0].state, events[0].detail.as_deref()), (None, Some("SETTLED")));
    assert_eq!(events[0].facts, [("state", "SETTLED".to_owned())]);
}

#[test]
fn an_amount_without_a_state_tells_nothing() {
    let rule = Places { reference: places(&["json:$.id"]), amount: places(&["json:$.a"]), ..Places::default() };
    let request = Request::json(r#"{"id":"T1","a":"10.00"}"#);
    let events = read(&generic::GENERIC, &rule, &request.view(), Dialect::Strict).unwrap();
    assert_eq!((events[0].amount.as_deref(), events[0].facts.len()), (Some("10.00"), 0));
}

#[test]
fn without_a_reference_the_reason_names_the_places() {
    let rule = Places { reference: places(&["form:id", "query:id"]), ..Places::default() };
    let why = |request: &Request| read(&generic::GENERIC, &rule, &request.view(), Dialect::Strict).unwrap_err().0;
    assert_eq!(why(&Request::json("{}")), "nothing stands at form:id, query:id");
    assert_eq!(why(&Request::new(Method::GET, "/?id=", &[], "")), "nothing stands at form:id, query:id");
    assert!(why(&Request::new(Method::GET, "/?id=1&id=2", &[], "")).starts_with("query:id: "));
}

#[test]
fn a_rule_overrides_what_the_provider_reads_and_adds_to_it() {
    let rule = Places {
        reference: places(&["header:X-Payment"]),
        aliases: vec![("payment_hash".into(), places(&["query:hash"]))],
        ..Places::default()
    };
    let form = ("content-type", "application/x-www-form-urlencoded");
    let both = Request::new(Method::POST, "/?hash=H1", &[form, ("x-payment", "tr_other")], "id=tr_abc");
    let events = read(&mollie::MOLLIE, &rule, &both.view(), Dialect::Php).unwrap();
    assert_eq!((events[0].reference.as_str(), events[0].aliases[0].value.as_str()), ("tr_other", "H1"));
    let own = Request::new(Method::POST, "/", &[form], "id=tr_abc");
    let events = read(&mollie::MOLLIE, &rule, &own.view(), Dialect::Php).unwrap();
    assert_eq!((events[0].reference.as_str(), events[0].aliases.len()), ("tr_abc", 0));
}

#[test]
fn a_return_needs_no_reference_but_clear_names() {
    let rule = Places {
        reference: places(&["query:payment_intent"]),
        aliases: vec![("payment_hash".into(), places(&["query:payment_hash"]))],
        ..Places::default()
    };
    let get = |uri: &str| names(&rule, &Request::new(Method::GET, uri, &[], "").view(), Dialect::Php);
    let hash = |value: &str| vec![Alias { kind: "payment_hash".into(), value: value.into() }];
    assert_eq!(get("/r?payment_hash=H").unwrap(), Names { reference: None, aliases: hash("H") });
    assert_eq!(get("/r").unwrap(), Names::default());
    assert_eq!(get("/r?payment_hash=H&payment_intent=pi_1").unwrap().reference.as_deref(), Some("pi_1"));
    assert!(get("/r?payment_hash[]=H").is_err());
}

proptest! {
    #[test]
    fn no_provider_panics_whatever_arrives(
        body in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            "(id|%69d|id\\[\\])=?[a-z_%0-9&=+.;]{0,40}".prop_map(String::into_bytes),
            "\\{(\"(resource|id|type|entityId|_embedded)\":(\"(event|tr_1|\\\\ud800)\"|1|\\[|\\{|null),?){0,6}\\}{0,2}"
                .prop_map(String::into_bytes),
        ],
        content_type in prop_oneof![
            Just(""), Just("application/json"), Just("application/x-www-form-urlencoded"),
            Just("multipart/form-data; boundary=b"), Just("text/plain"),
        ],
        signature in "(sha256=)?[0-9a-f,é ]{0,70}",
        get in any::<bool>(),
    ) {
        let method = if get { Method::GET } else { Method::POST };
        let mut request = Request::new(method, "/?id=1", &[("content-type", content_type)], body);
        request.headers.insert("x-mollie-signature", HeaderValue::from_bytes(signature.as_bytes()).unwrap());
        let secret = Secret::new(SecretKind::Hmac, *b"secret");
        let _ = recognise(&request.view());
        for p in PROVIDERS {
            for dialect in [Dialect::Strict, Dialect::Php] {
                if let Ok(events) = (p.events)(&request.view(), dialect) {
                    prop_assert!(!events.is_empty() && events.iter().all(|event| !event.reference.is_empty()));
                }
            }
            let verdict = p.scheme.check(&request.view(), std::slice::from_ref(&secret), Timestamp::default());
            prop_assert_ne!(verdict, Signature::Valid);
        }
    }
}
