//! What it costs to read a callback: places of a rule, an event of Stripe's of 2.5 kB, and one fixture of each provider,
//! recognised, checked and read.

use std::{fmt::Write, fs, hint::black_box, path::Path};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use oncegate::{
    callback::{RequestView, Signature},
    provider::{
        PROVIDERS,
        contract::{Keyring, Provider, Secret, SecretKind, Settings},
        extract::{Dialect, Found, Place, Reader},
        recognise,
        stripe::STRIPE,
    },
    time::Timestamp,
};
use ring::hmac;
use serde_json::Value;

fn main() {
    let form = Request::new("application/x-www-form-urlencoded", "id=tr_7UhSN1zuXS".into());
    let json = Request::new("application/json", event());
    println!("the JSON event has {} bytes", json.body.len());
    let (id, one) = (places(&["form:id"]), places(&["json:$.id"]));
    let two = places(&["json:$.id", "json:$.data.object.payment_intent"]);
    time("form:id, php", || reads(&form, &id, Dialect::Php));
    time("form:id, strict", || reads(&form, &id, Dialect::Strict));
    time("one path", || reads(&json, &one, Dialect::Php));
    time("two paths", || reads(&json, &two, Dialect::Php));
    let (signed, keyring) = signed(json);
    time("stripe, 2.5 kB", || whole(&STRIPE, &signed, &keyring, Timestamp::from_millis(1_775_000_000_000)));
    for provider in PROVIDERS {
        if let Some((request, keyring, now)) = fixture(provider) {
            time(provider.name, || whole(provider, &request, &keyring, now));
        }
    }
}

/// The whole way of a webhook: whose is it, is it signed, what does it say?
fn whole(provider: &Provider, request: &Request, keyring: &Keyring, now: Timestamp) -> bool {
    let reader = Reader::new(&request.view(), Dialect::Php);
    assert_eq!(recognise(&reader).map(|p| p.name), Some(provider.name));
    assert!(matches!(provider.scheme.check(&reader, keyring, now), Signature::Valid | Signature::Unchecked));
    black_box((provider.events)(&reader, keyring)).is_ok()
}

struct Request {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Request {
    fn new(content_type: &'static str, body: String) -> Self {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Self { method: Method::POST, uri: Uri::default(), headers, body: body.into() }
    }

    fn view(&self) -> RequestView<'_> {
        RequestView { method: &self.method, uri: &self.uri, headers: &self.headers, body: &self.body, segments: &[] }
    }

    /// A request as it stands in a fixture.
    fn parse(raw: &[u8]) -> Self {
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut fields);
        let Ok(httparse::Status::Complete(head)) = request.parse(raw) else { panic!("no whole request") };
        let field = |field: &httparse::Header<'_>| {
            let name = HeaderName::from_bytes(field.name.as_bytes()).expect("a name");
            (name, HeaderValue::from_bytes(field.value).expect("a value"))
        };
        let headers = request.headers.iter().map(field).collect();
        let method = request.method.and_then(|method| method.parse().ok()).expect("a method");
        let uri = request.path.and_then(|path| path.parse().ok()).expect("a target");
        Self { method, uri, headers, body: raw[head..].to_vec() }
    }
}

/// The first fixture of a provider whose signature is good, or whose provider does not sign.
fn fixture(provider: &Provider) -> Option<(Request, Keyring, Timestamp)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(provider.name);
    let all: Value = serde_json::from_slice(&fs::read(folder.join("expect.json")).ok()?).ok()?;
    let good = |file: &&(&String, &Value)| file.1["signature"] == "valid" && file.1["events"].is_array();
    let readable = |file: &&(&String, &Value)| file.1["events"].is_array();
    let files: Vec<_> = all["files"].as_object()?.iter().collect();
    let (file, expected) = files.iter().find(good).or_else(|| files.iter().find(readable))?;
    let secret = |secret: &Value| {
        let kinds =
            [SecretKind::Basic, SecretKind::PublicKey, SecretKind::Certificate, SecretKind::ApiKey, SecretKind::Token];
        let kind = kinds.into_iter().find(|kind| kind.as_str() == secret["kind"]).unwrap_or(SecretKind::Hmac);
        let value = secret["value"].as_str().map(|value| value.as_bytes().to_vec());
        Secret::new(
            kind,
            value.unwrap_or_else(|| fs::read(folder.join(secret["file"].as_str().expect("a file"))).expect("it")),
        )
    };
    let secrets: Vec<_> = all["secrets"].as_array()?.iter().map(secret).collect();
    let webhook_id = all["webhook_id"].as_str().map(str::to_owned).into_iter().collect();
    let keyring = Keyring::new(&provider.scheme, &secrets, Settings { webhook_id, ..Settings::default() }).ok()?;
    let at = expected["at"].as_u64().or(all["at"].as_u64()).unwrap_or_default();
    let request = Request::parse(&fs::read(folder.join(file)).ok()?);
    Some((request, keyring, Timestamp::from_millis(at * 1000)))
}

fn signed(mut request: Request) -> (Request, Keyring) {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"whsec_bench");
    let tag = hmac::sign(&key, &[b"1775000000.", request.body.as_slice()].concat());
    let hex = tag.as_ref().iter().fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
    let line = HeaderValue::from_str(&format!("t=1775000000,v1={hex}")).expect("ASCII");
    request.headers.insert("stripe-signature", line);
    let secret = Secret::new(SecretKind::Hmac, *b"whsec_bench");
    (request, Keyring::new(&STRIPE.scheme, &[secret], Settings::default()).expect("a key"))
}

/// A configured rule has its places parsed once.
fn places(text: &[&str]) -> Vec<Place> {
    text.iter().map(|place| place.parse().expect("a place")).collect()
}

fn reads(request: &Request, places: &[Place], dialect: Dialect) -> usize {
    let reader = Reader::new(&request.view(), dialect);
    places.iter().filter(|place| matches!(black_box(reader.read(place)), Found::One(_))).count()
}

fn event() -> String {
    let mut lines = String::new();
    for line in 0..19 {
        let _ = write!(
            lines,
            r#"{}{{"id":"li_{line:04}","amount":12100,"currency":"eur","description":"Invoice line {line}, as agreed","quantity":1,"tax":null}}"#,
            if line == 0 { "" } else { "," }
        );
    }
    format!(
        r#"{{"id":"evt_bench","object":"event","created":1777885200,"livemode":true,"type":"charge.succeeded","data":{{"object":{{"id":"ch_bench","object":"charge","lines":{{"data":[{lines}]}},"payment_intent":"pi_bench","paid":true,"captured":true,"status":"succeeded","amount":12100,"currency":"eur","metadata":{{"payment_hash":"Zk3vPq8WmT1nYb6RcX0LdJ5sHf2GuEaQ"}}}}}}}}"#
    )
}

/// Prints the best and the median of many rounds.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures the time that passes outside")]
fn time<T>(what: &str, mut run: impl FnMut() -> T) {
    const ROUNDS: usize = 200;
    const CALLS: u32 = 200;
    let mut rounds: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let start = std::time::Instant::now();
            for _ in 0..CALLS {
                black_box(run());
            }
            start.elapsed() / CALLS
        })
        .collect();
    rounds.sort_unstable();
    println!("{what:32} {:>8.2?} {:>8.2?}", rounds[0], rounds[ROUNDS / 2]);
}
