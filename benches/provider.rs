//! What it costs to read a callback: a classic form, and a JSON event of some 2.5 KB by one, two and eight paths.

use std::{fmt::Write, hint::black_box};

use http::{HeaderMap, HeaderValue, Method, Uri, header};
use oncegate::{
    callback::RequestView,
    provider::{
        contract::{Secret, SecretKind},
        extract::{Dialect, Found, Place, Reader},
        mollie::MOLLIE,
    },
    time::Timestamp,
};

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
    time("mollie, classic", || (MOLLIE.events)(&form.view(), Dialect::Php).is_ok());
    time("mollie, event of eight paths", || (MOLLIE.events)(&json.view(), Dialect::Php).is_ok());
    let secret = [Secret::new(SecretKind::Hmac, *b"secret")];
    let mut signed = json;
    signed.headers.insert("x-mollie-signature", HeaderValue::from_str(&format!("sha256={:064}", 0)).expect("ASCII"));
    time("mollie, signature", || MOLLIE.scheme.check(&signed.view(), &secret, Timestamp::default()));
}

struct Request {
    headers: HeaderMap,
    uri: Uri,
    body: String,
}

impl Request {
    fn new(content_type: &'static str, body: String) -> Self {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Self { headers, uri: Uri::default(), body }
    }

    fn view(&self) -> RequestView<'_> {
        let (uri, headers, body) = (&self.uri, &self.headers, self.body.as_bytes());
        RequestView { method: &Method::POST, uri, headers, body, segments: &[] }
    }
}

/// A configured rule has its places parsed once.
fn places(text: &[&str]) -> Vec<Place> {
    text.iter().map(|place| place.parse().expect("a place")).collect()
}

fn reads(request: &Request, places: &[Place], dialect: Dialect) -> usize {
    let view = request.view();
    let mut reader = Reader::new(&view, dialect);
    reader.prepare(places);
    places.iter().filter(|place| matches!(black_box(reader.read(place)), Found::One(_))).count()
}

fn event() -> String {
    let mut lines = String::new();
    for line in 0..16 {
        let _ = write!(
            lines,
            r#"{}{{"id":"li_{line:04}","amount":12100,"currency":"eur","description":"Invoice line {line}, as agreed","quantity":1,"tax":null}}"#,
            if line == 0 { "" } else { "," }
        );
    }
    format!(
        r#"{{"resource":"event","id":"whe_bench","type":"payment.paid","entityId":"tr_bench","created":1777885200,"data":{{"object":{{"lines":{{"data":[{lines}]}},"payment_intent":"pi_bench","paid":true}}}},"_embedded":{{"entity":{{"status":"paid","amount":{{"value":"121.00","currency":"EUR"}},"metadata":{{"hash":"Zk3vPq8WmT1nYb6RcX0LdJ5sHf2GuEaQ"}}}}}}}}"#
    )
}

/// Prints the median of many rounds.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures the time that passes outside")]
fn time<T>(what: &str, mut run: impl FnMut() -> T) {
    const ROUNDS: usize = 200;
    const CALLS: u32 = 500;
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
    println!("{what:32} {:>8.2?}", rounds[ROUNDS / 2]);
}
