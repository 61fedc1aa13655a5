//! The text of a configuration, or, after a byte of zero, one expression of it.

use std::io;

use http::{HeaderMap, Method};
use oncegate::{
    config::{Loaded, SAMPLE, World},
    expression::{Expression, RequestFacts},
    provider::PROVIDERS,
};

use super::request::root;

pub fn try_it(bytes: &[u8]) {
    if let Some(expression) = bytes.strip_prefix(b"\0") {
        return std::str::from_utf8(expression).map_or((), expressed);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    // A world in which there are no files and no variables.
    let world = World {
        env: &|_| None,
        file: &|_| Err(io::Error::from(io::ErrorKind::NotFound)),
        readable_by_all: &|_| false,
        providers: PROVIDERS,
    };
    let loaded = Loaded::from_text("config.toml", text, &world);
    let again = Loaded::from_text("config.toml", text, &world);
    assert_eq!(format!("{:?}", loaded.faults), format!("{:?}", again.faults), "read twice");
    assert_eq!(format!("{:?}", loaded.effective), format!("{:?}", again.effective), "read twice");
    for finding in loaded.faults.iter().chain(&loaded.warnings) {
        assert!(!finding.message.is_empty() && !finding.remedy.is_empty(), "{finding:?} says what to do");
    }
    let faults = loaded.faults.len();
    assert_eq!(loaded.into_config().is_err(), faults > 0, "it runs, or says why not");
}

fn expressed(text: &str) {
    let Ok(expression) = Expression::compile(text, &["request", "status", "content_type", "body"]) else { return };
    assert_eq!(expression.source(), text);
    let headers = HeaderMap::new();
    let facts = RequestFacts {
        method: &Method::POST,
        path: "/hook/a",
        host: "pay.example",
        query: "id=1&id=2",
        headers: &headers,
        source: [192, 0, 2, 7].into(),
    };
    let read = || expression.eval_when(&facts, None).ok();
    assert_eq!(read(), read(), "{text:?}");
    let told = || expression.eval_success(200, Some("application/json"), b"{\"ok\":[1,{\"a\":null}]}").ok();
    assert_eq!(told(), told(), "{text:?}");
}

pub fn seeds() -> Vec<Vec<u8>> {
    const EXPRESSIONS: [&str; 6] = [
        "request.path.startsWith('/hook') && request.query['id'] == '2'",
        "status == 200 && !body.contains('error')",
        "request.headers['x-a'] in ['a', \"b\"] || request.source == '192.0.2.7'",
        "body.matches('^\\\\{.*[0-9]+')",
        "[1, 2, 3].exists(x, x * 2 > status) ? true : {'a': 1u}.a == 1u",
        "-9223372036854775808 / -1 == 0 || 1.0 % 0.0 > double('1e400')",
    ];
    let mut all = vec![SAMPLE.into(), b"preset = 'invoice-ninja'\n".to_vec()];
    all.extend(EXPRESSIONS.map(|text| [b"\0", text.as_bytes()].concat()));
    for folder in ["valid", "invalid"] {
        let files =
            std::fs::read_dir(root().join("tests/fixtures/config").join(folder)).expect("the fixtures are there");
        let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
        paths.sort();
        all.extend(paths.into_iter().map(|path| std::fs::read(path).expect("a text")));
    }
    all
}
