//! Requests as they stand on the wire, and the recorded ones with what they were signed with.

use std::{fs, path::PathBuf};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use oncegate::{
    callback::RequestView,
    provider::{
        PROVIDERS,
        contract::{Keyring, Provider, Secret, SecretKind, Settings},
    },
    time::Timestamp,
};
use serde_json::Value;

/// A request that owns its parts.
pub struct Request {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Request {
    /// Reads one as the gate's front door would: what is no head of HTTP/1 never comes further.
    pub fn parse(raw: &[u8]) -> Option<Self> {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut fields);
        let head = match request.parse(raw) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) | Err(_) => return None,
        };
        let mut headers = HeaderMap::new();
        for field in request.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
        }
        let method = Method::from_bytes(request.method?.as_bytes()).ok()?;
        Some(Self { method, uri: request.path?.parse().ok()?, headers, body: raw[head..].to_vec() })
    }

    pub fn view(&self) -> RequestView<'_> {
        RequestView { method: &self.method, uri: &self.uri, headers: &self.headers, body: &self.body, segments: &[] }
    }
}

/// The recorded requests of one provider.
pub struct Recorded {
    pub provider: &'static Provider,
    pub keyring: Keyring,
    /// Whether the signature covers what the body says.
    pub is_covered: bool,
    /// Each with the moment at which it came.
    pub requests: Vec<(Vec<u8>, Timestamp)>,
}

/// The folder of the project.
pub fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    if here.join("fuzz_targets").exists() { here.join("..") } else { here }
}

/// Those of every provider that has any.
pub fn recorded() -> Vec<Recorded> {
    let of = |provider: &&'static Provider| {
        let folder = root().join("tests/fixtures").join(provider.name);
        let all: Value = serde_json::from_slice(&fs::read(folder.join("expect.json")).ok()?).expect("JSON");
        let secret = |secret: &Value| {
            use SecretKind::{ApiKey, Basic, Certificate, Hmac, PublicKey, Token};
            let kinds = [Hmac, Basic, PublicKey, Certificate, ApiKey, Token];
            let kind = kinds.into_iter().find(|kind| kind.as_str() == secret["kind"]).expect("a kind");
            let value = secret["value"].as_str().map(|value| value.as_bytes().to_vec());
            let read = || fs::read(folder.join(secret["file"].as_str().expect("a file"))).expect("its file");
            Secret::new(kind, value.unwrap_or_else(read))
        };
        let secrets: Vec<_> = all["secrets"].as_array().into_iter().flatten().map(secret).collect();
        let told = |key: &str| all[key].as_str().map(str::to_owned);
        let settings = Settings {
            webhook_id: told("webhook_id").into_iter().collect(),
            notification_url: told("notification_url").into_iter().collect(),
            public_url: told("public_url"),
            ..Settings::default()
        };
        let files = all["files"].as_object().expect("files").iter();
        let request = |(file, expected): (&String, &Value)| {
            let at = expected["at"].as_u64().or(all["at"].as_u64()).unwrap_or_default();
            (fs::read(folder.join(file)).expect("a fixture"), Timestamp::from_millis(at * 1000))
        };
        Some(Recorded {
            provider,
            keyring: Keyring::new(&provider.scheme, &secrets, settings).expect("its secrets serve it"),
            is_covered: all["body_is_signed"] != false,
            requests: files.map(request).collect(),
        })
    };
    let all: Vec<_> = PROVIDERS.iter().filter_map(of).collect();
    assert!(all.len() > 20, "the fixtures are there");
    all
}
