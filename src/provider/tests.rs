//! Laws over every provider of the slice, and what the rule's places add.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::PathBuf,
    sync::LazyLock,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use proptest::{prelude::*, sample::Index};
use serde_json::Value;

use super::{contract::*, extract::*, *};
use crate::{
    callback::{Alias, RequestView, Signature, State, Step},
    time::Timestamp,
    transaction::money::{Money, Told},
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

fn told(p: &Provider, rule: &Places, request: &Request, dialect: Dialect) -> Result<Vec<Event>, Unrecognised> {
    read(p, &Keyring::default(), rule, &Reader::new(&request.view(), dialect))
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
        assert!((400..600).contains(&p.refusal) && p.refusal().as_u16() == p.refusal, "{}", p.name);
        assert!(p.marks.iter().all(|mark| HeaderName::from_lowercase(mark.as_bytes()).is_ok()), "{}", p.name);
        if let Scheme::Signed(signing) = &p.scheme {
            assert!(!signing.kinds.is_empty(), "{}", p.name);
        }
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

/// What the fixtures of a provider are signed with.
fn keyring(p: &Provider, expected: &Value) -> Keyring {
    let kinds = [
        SecretKind::Hmac,
        SecretKind::Basic,
        SecretKind::PublicKey,
        SecretKind::Certificate,
        SecretKind::ApiKey,
        SecretKind::Token,
    ];
    let secret = |secret: &Value| {
        let kind = kinds.into_iter().find(|kind| kind.as_str() == secret["kind"]).unwrap();
        let value = match (secret["value"].as_str(), secret["file"].as_str()) {
            (Some(value), _) => value.as_bytes().to_vec(),
            (_, file) => fs::read(fixtures(p.name).join(file.unwrap())).unwrap(),
        };
        Secret::new(kind, value)
    };
    let secrets: Vec<_> = expected["secrets"].as_array().into_iter().flatten().map(secret).collect();
    let told = |key: &str| expected[key].as_str().map(str::to_owned);
    let settings = Settings {
        webhook_id: told("webhook_id").into_iter().collect(),
        notification_url: told("notification_url").into_iter().collect(),
        public_url: told("public_url"),
        ..Settings::default()
    };
    Keyring::new(&p.scheme, &secrets, settings).unwrap()
}

fn expected(p: &Provider) -> Value {
    serde_json::from_slice(&fs::read(fixtures(p.name).join("expect.json")).unwrap()).unwrap()
}

/// Those of all providers, by name.
static KEYRINGS: LazyLock<HashMap<&str, Keyring>> = LazyLock::new(|| {
    let known = PROVIDERS.iter().filter(|p| p.name != "generic").map(|p| (p.name, keyring(p, &expected(p))));
    known.chain([("generic", Keyring::default())]).collect()
});

fn at(expected: &Value) -> Timestamp {
    expected["at"].as_u64().map_or_else(Timestamp::default, |second| Timestamp::from_millis(second * 1000))
}

#[test]
fn every_provider_reads_its_fixtures_as_expected() {
    for p in PROVIDERS.iter().filter(|p| p.name != "generic") {
        let folder = fixtures(p.name);
        let all = expected(p);
        let keyring = &KEYRINGS[p.name];
        let files = all["files"].as_object().unwrap();
        let batches: Vec<_> = files.values().filter_map(|file| file["events"].as_array()).collect();
        assert_eq!(batches.iter().any(|events| events.len() > 1), p.batches, "{}: several events in one", p.name);
        let carried = batches.into_iter().flatten().any(|event| event.get("event_id").is_some());
        assert_eq!(carried, p.event_ids, "{}: ids of events", p.name);
        let there =
            fs::read_dir(&folder).unwrap().filter(|f| f.as_ref().unwrap().path().extension().unwrap() == "http");
        assert!(files.len() > 3 && files.len() == there.count(), "{}: every fixture has its expectation", p.name);
        for (file, expected) in files {
            let mut request = parse(&fs::read(folder.join(file)).unwrap());
            let file = format!("{}/{file}", p.name);
            for dialect in [Dialect::Strict, Dialect::Php] {
                reads_as_expected(p, &request, dialect, expected, keyring, &file);
            }
            let now = if expected["at"].is_null() { at(&all) } else { at(expected) };
            let check = |request: &Request, keyring: &Keyring| {
                p.scheme.check(&Reader::new(&request.view(), Dialect::Strict), keyring, now)
            };
            let signature = check(&request, keyring);
            assert_eq!(signature.as_str(), expected["signature"], "{file}");
            assert_eq!(check(&request, &Keyring::default()), Signature::Unchecked, "{file}: without a secret");
            if signature == Signature::Valid && all["body_is_signed"] != false {
                request.body.push(b' ');
                assert_eq!(check(&request, keyring), Signature::Invalid, "{file}: one byte more");
                request.body.pop();
                let middle = request.body.len() / 2;
                request.body[middle] ^= 1;
                assert_eq!(check(&request, keyring), Signature::Invalid, "{file}: one bit other");
            }
        }
    }
}

fn reads_as_expected(
    p: &'static Provider,
    request: &Request,
    dialect: Dialect,
    expected: &Value,
    keyring: &Keyring,
    file: &str,
) {
    let reader = Reader::new(&request.view(), dialect);
    let read = (p.events)(&reader, keyring);
    let recognised = (expected["recognised"] != false).then_some(p.name);
    let Some(expected) = expected["events"].as_array() else {
        // PHP may tell what two readers tell in two ways.
        assert!(read.is_err() || dialect == Dialect::Php, "{file}: {read:?}");
        return;
    };
    let events = read.unwrap_or_else(|why| panic!("{file}: {why}"));
    assert_eq!(recognise(&reader).map(|p| p.name), recognised, "{file}");
    assert_eq!(events.len(), expected.len(), "{file}");
    for (event, expected) in events.iter().zip(expected) {
        let mut told = serde_json::Map::from_iter([("reference".to_owned(), Value::from(event.reference.as_str()))]);
        let mut tell = |what: &str, is: Option<&str>| {
            told.extend(is.map(|is| (what.to_owned(), Value::from(is))));
        };
        tell("event_id", event.event_id.as_deref());
        tell("state", event.state.map(State::as_str));
        tell("amount", event.amount.as_deref());
        tell("currency", event.currency.as_deref());
        // The provider's own words need not be repeated everywhere.
        let step = event.step.map(|step| step.as_str().to_owned());
        let words = [("event_type", &event.event_type), ("detail", &event.detail), ("step", &step)];
        for (what, is) in words.into_iter().filter(|(what, _)| expected.get(what).is_some()) {
            tell(what, is.as_deref());
        }
        if !event.aliases.is_empty() {
            let aliases = event.aliases.iter().map(|alias| (alias.kind.to_string(), Value::from(alias.value.as_str())));
            told.insert("aliases".to_owned(), Value::Object(aliases.collect()));
        }
        assert_eq!(&Value::Object(told), expected, "{file}");
        let tells = event.state.is_some() || event.event_id.is_some();
        assert!(!tells || !event.facts.is_empty(), "{file}: facts tell what happened");
    }
}

#[test]
fn a_secret_of_another_kind_does_not_count() {
    let request = parse(&fs::read(fixtures("mollie").join("event-paid.http")).unwrap());
    let secret = Secret::new(SecretKind::ApiKey, *b"fixture-signing-secret");
    let keyring = Keyring::new(&mollie::MOLLIE.scheme, &[secret], Settings::default()).unwrap();
    let reader = Reader::new(&request.view(), Dialect::Strict);
    assert_eq!(mollie::MOLLIE.scheme.check(&reader, &keyring, Timestamp::default()), Signature::Unchecked);
}

/// Whose callback it is taken for.
fn whose(request: &Request) -> Option<&'static str> {
    recognise(&Reader::new(&request.view(), Dialect::Strict)).map(|p| p.name)
}

#[test]
fn what_might_be_one_or_another_is_nobodys_and_a_mark_decides() {
    // A Stripe event that has what Checkout.com's and PayPal's have as well.
    let object = r#""object":"event","id":"evt_1","type":"x","data":{"id":"pay_1","object":{}}"#;
    let both = format!(r#"{{{object},"created_on":"x"}}"#);
    let json = ("content-type", "application/json");
    let with =
        |marks: &[(&str, &str)], body: &str| whose(&Request::new(Method::POST, "/", &[&[json], marks].concat(), body));
    assert_eq!(with(&[], &format!("{{{object}}}")), Some("stripe"));
    assert_eq!(with(&[], &both), None);
    assert_eq!(with(&[("cko-signature", "x")], &both), Some("checkout"));
    assert_eq!(with(&[("stripe-signature", "x")], &both), Some("stripe"));
    assert_eq!(with(&[("stripe-signature", "x"), ("cko-signature", "x")], &both), None);
    // A mark alone tells whose signature has to fit; two tell nothing.
    assert_eq!(with(&[("stripe-signature", "x")], "{}"), Some("stripe"));
    assert_eq!(with(&[("stripe-signature", "x"), ("cko-signature", "x")], "{}"), None);
    assert_eq!(with(&[("stripe-signature", "x")], &format!("{{{object}")), Some("stripe"), "though it is cut");
}

#[test]
fn mollie_recognises_its_own_and_not_any_id() {
    let form =
        |body: &str| Request::new(Method::POST, "/", &[("content-type", "application/x-www-form-urlencoded")], body);
    assert_eq!(whose(&form("id=tr_abc")), Some("mollie"));
    for other in ["id=1234", "id=tr_abc&amount=1", "reference=tr_abc", ""] {
        assert_eq!(whose(&form(other)), None, "{other}");
    }
    assert_eq!(whose(&Request::json(r#"{"id":"evt_1","type":"charge.refunded"}"#)), None);
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
        let events = told(&generic::GENERIC, &rule, &request, dialect).unwrap();
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
        let parts = identity(&rule, &Reader::new(&request.view(), dialect)).unwrap();
        assert_eq!(parts, [("json:$.txn.id".into(), "T1".into()), ("json:$.seq".into(), "7".into())]);
    }
}

#[test]
fn a_foreign_state_is_kept_as_detail_and_tells_states_apart() {
    let rule = Places { reference: places(&["json:$.id"]), state: places(&["json:$.s"]), ..Places::default() };
    let request = Request::json(r#"{"id":"T1","s":"SETTLED"}"#);
    let events = told(&generic::GENERIC, &rule, &request, Dialect::Strict).unwrap();
    assert_eq!((events[0].state, events[0].detail.as_deref()), (None, Some("SETTLED")));
    assert_eq!(events[0].facts, [("state", "SETTLED".to_owned())]);
}

#[test]
fn an_amount_without_a_state_tells_nothing() {
    let rule = Places { reference: places(&["json:$.id"]), amount: places(&["json:$.a"]), ..Places::default() };
    let request = Request::json(r#"{"id":"T1","a":"10.00"}"#);
    let events = told(&generic::GENERIC, &rule, &request, Dialect::Strict).unwrap();
    assert_eq!((events[0].amount.as_deref(), events[0].facts.len()), (Some("10.00"), 0));
}

#[test]
fn without_a_reference_the_reason_names_the_places() {
    let rule = Places { reference: places(&["form:id", "query:id"]), ..Places::default() };
    let why = |request: &Request| told(&generic::GENERIC, &rule, request, Dialect::Strict).unwrap_err().0;
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
    let events = told(&mollie::MOLLIE, &rule, &both, Dialect::Php).unwrap();
    assert_eq!((events[0].reference.as_str(), events[0].aliases[0].value.as_str()), ("tr_other", "H1"));
    let own = Request::new(Method::POST, "/", &[form], "id=tr_abc");
    let events = told(&mollie::MOLLIE, &rule, &own, Dialect::Php).unwrap();
    assert_eq!((events[0].reference.as_str(), events[0].aliases.len()), ("tr_abc", 0));
}

#[test]
fn a_return_needs_no_reference_but_clear_names() {
    let rule = Places {
        reference: places(&["query:payment_intent"]),
        aliases: vec![("payment_hash".into(), places(&["query:payment_hash"]))],
        ..Places::default()
    };
    let get = |uri: &str| names(&rule, &Reader::new(&Request::new(Method::GET, uri, &[], "").view(), Dialect::Php));
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
        let signature = HeaderValue::from_bytes(signature.as_bytes()).unwrap();
        for mark in PROVIDERS.iter().flat_map(|p| p.marks) {
            request.headers.insert(*mark, signature.clone());
        }
        let _ = whose(&request);
        for p in PROVIDERS {
            for dialect in [Dialect::Strict, Dialect::Php] {
                if let Ok(events) = (p.events)(&Reader::new(&request.view(), dialect), &Keyring::default()) {
                    prop_assert!(!events.is_empty() && events.iter().all(|event| !event.reference.is_empty()));
                }
            }
            let keyring = &KEYRINGS[p.name];
            let reader = Reader::new(&request.view(), Dialect::Strict);
            let verdict = p.scheme.check(&reader, keyring, Timestamp::default());
            prop_assert_ne!(verdict, Signature::Valid);
        }
    }
}

/// One change to a body; where, is a part of what there is.
#[derive(Clone, Debug)]
enum Change {
    /// Another value behind a `:`, `=` or `>`.
    Value(Index, &'static str),
    Insert(Index, &'static str),
    Set(Index, u8),
    Repeat(Index, Index),
    Remove(Index, Index),
}

impl Change {
    fn any() -> impl Strategy<Value = Self> {
        let (place, text) = (any::<Index>, || prop::sample::select(ODD));
        prop_oneof![
            4 => (place(), text()).prop_map(|(at, text)| Self::Value(at, text)),
            1 => (place(), text()).prop_map(|(at, text)| Self::Insert(at, text)),
            1 => (place(), any::<u8>()).prop_map(|(at, byte)| Self::Set(at, byte)),
            1 => (place(), place()).prop_map(|(from, to)| Self::Repeat(from, to)),
            1 => (place(), place()).prop_map(|(from, to)| Self::Remove(from, to)),
        ]
    }

    fn apply(&self, body: &mut Vec<u8>) {
        if body.is_empty() {
            return;
        }
        let span = |from: &Index, to: &Index| {
            let (one, other) = (from.index(body.len()), to.index(body.len()));
            one.min(other)..one.max(other)
        };
        match self {
            Self::Value(at, text) => {
                let places: Vec<_> = (0..body.len()).filter(|at| matches!(body[*at], b':' | b'=' | b'>')).collect();
                let Some(begin) = (!places.is_empty()).then(|| places[at.index(places.len())] + 1) else { return };
                let end = body[begin..].iter().position(|byte| matches!(byte, b',' | b'}' | b'&' | b'<'));
                drop(body.splice(begin..end.map_or(body.len(), |end| begin + end), text.bytes()));
            }
            Self::Insert(at, text) => {
                let at = at.index(body.len() + 1);
                drop(body.splice(at..at, text.bytes()));
            }
            Self::Set(at, byte) => {
                let at = at.index(body.len());
                body[at] = *byte;
            }
            Self::Repeat(from, to) => {
                let again = body[span(from, to)].to_vec();
                let at = from.index(body.len());
                drop(body.splice(at..at, again));
            }
            Self::Remove(from, to) => drop(body.drain(span(from, to))),
        }
    }
}

/// What stands where something else is expected.
const ODD: &[&str] = &[
    " ",
    "\n",
    "null",
    "true",
    "{}",
    "[]",
    "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    "\"\"",
    "\" \"",
    "\"\\ud800\"",
    "\"\\u0000\"",
    "1e999",
    "-0",
    "1.50",
    "-1",
    "99999999999999999999999999999999",
    "0000000000000000",
    "\"id\":\"tr_1\",",
    "&id=1",
    "%",
    "%00",
    "%ff",
    "+",
    "é",
    "\u{feff}",
    "<a>",
    "</a>",
    "]]>",
    "<![CDATA[",
    "&#x10ffff;",
    "&#xd800;",
    "&amp;",
    "====",
    "A",
];

/// Every fixture, and whether its signature is good and covers its bytes.
static RECORDED: LazyLock<Vec<(&'static Provider, Request, Timestamp, bool)>> = LazyLock::new(|| {
    let of = |p: &&'static Provider| {
        let all = expected(p);
        let files = all["files"].as_object().unwrap();
        let one = |(name, file): (&String, &Value)| {
            let request = parse(&fs::read(fixtures(p.name).join(name)).unwrap());
            let json = request.headers.get("content-type").is_some_and(|kind| kind.as_bytes().ends_with(b"json"));
            let covered = file["signature"] == "valid" && json && all["body_is_signed"] != false;
            (*p, request, if file["at"].is_null() { at(&all) } else { at(file) }, covered)
        };
        files.iter().map(one).collect::<Vec<_>>()
    };
    PROVIDERS.iter().filter(|p| p.name != "generic").flat_map(of).collect()
});

/// Some thousands, unless `PROPTEST_CASES` asks for more.
fn many() -> ProptestConfig {
    let usual = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { usual.cases } else { 2000 };
    ProptestConfig { cases, failure_persistence: None, ..usual }
}

proptest! {
    #![proptest_config(many())]

    #[test]
    fn whatever_is_changed_in_a_callback_nobody_panics_and_no_signature_fits_any_more(
        which in any::<Index>(),
        changes in proptest::collection::vec(Change::any(), 1..4),
        same_twice in any::<bool>(),
    ) {
        let (owner, recorded, now, covered) = &RECORDED[which.index(RECORDED.len())];
        let mut body = recorded.body.clone();
        changes.iter().for_each(|change| change.apply(&mut body));
        if same_twice {
            changes.iter().for_each(|change| change.apply(&mut body));
        }
        let view = RequestView { body: &body, ..recorded.view() };
        for dialect in [Dialect::Strict, Dialect::Php] {
            let reader = Reader::new(&view, dialect);
            let whose = recognise(&reader);
            for p in [Some(*owner), whose].into_iter().flatten() {
                if let Ok(events) = (p.events)(&reader, &KEYRINGS[p.name]) {
                    prop_assert!(!events.is_empty() && events.iter().all(|event| !event.reference.is_empty()));
                }
            }
            let verdict = owner.scheme.check(&reader, &KEYRINGS[owner.name], *now);
            prop_assert!(!covered || body == recorded.body || verdict != Signature::Valid, "{} {verdict:?}", owner.name);
        }
    }
}

#[test]
fn each_provider_that_documents_its_moves_says_where() {
    let documented: Vec<_> = PROVIDERS.iter().filter(|provider| provider.moves != Moves::Undocumented).collect();
    assert!(documented.len() >= 4);
    for provider in documented {
        let Moves::Documented(moves) = provider.moves else { continue };
        for late in moves {
            assert!(late.source.starts_with("https://"), "{}: {late:?}", provider.name);
            let forward = (late.after, late.comes);
            let mut money = Money::default();
            for state in [State::Paid, late.after] {
                let step = (state == State::Refunded).then_some(Step::Whole);
                money = money.and(Told { state, step });
            }
            let told = Told { state: late.comes, step: None };
            assert!(money.makes_stale(told, Moves::Documented(&[])), "{}: {forward:?} needs no word", provider.name);
            assert!(!money.makes_stale(told, provider.moves), "{}: {forward:?}", provider.name);
        }
    }
}
