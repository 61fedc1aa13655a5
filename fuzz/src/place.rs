//! A place of a rule, and what stands there: a line with the place, and a request.

use oncegate::{
    provider::extract::{Dialect, Found, Place, Reader, decimal},
    rule::path::{NormalPath, Template},
};

use super::request::{Request, recorded};

pub fn try_it(bytes: &[u8]) {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let (Ok(line), raw) = (std::str::from_utf8(&bytes[..end]), &bytes[end + 1..]) else { return };
    normal(line);
    if let Some(amount) = decimal(line) {
        assert_eq!(decimal(&amount).as_ref(), Some(&amount), "{line:?}: a number is one again");
    }
    let Ok(place) = line.parse::<Place>() else { return };
    assert_eq!(place.to_string().parse(), Ok(place.clone()), "{line:?}: written and read again");
    let Some(request) = Request::parse(raw) else { return };
    let [strict, php] = [Dialect::Strict, Dialect::Php].map(|dialect| {
        let view = request.view();
        let reader = Reader::new(&view, dialect);
        let found = reader.read(&place);
        assert_eq!(found, Reader::new(&view, dialect).read(&place), "{line:?}: read twice");
        assert_eq!(found, reader.first(std::slice::from_ref(&place)), "{line:?}: the first of one");
        match &found {
            Found::Absent | Found::Empty => {}
            Found::One(text) => {
                assert!(!text.is_empty(), "{line:?}: something stands there");
                assert!(place == Place::Body || text.len() <= raw.len(), "{line:?}: no more than came");
            }
            Found::Ambiguous(why) => assert!(why.starts_with(line), "{why:?} names {line:?}"),
        }
        found
    });
    // What a strict reader is sure of, PHP reads the same, if it reads it there at all.
    if let (Found::One(strict), Found::One(php)) = (&strict, &php) {
        assert_eq!(strict, php, "{line:?}: the dialects");
    }
}

/// A path has one normal form, and a template finds what it was made of.
fn normal(path: &str) {
    if path.starts_with('/') {
        let once = NormalPath::new(path);
        assert_eq!(NormalPath::new(once.as_str()).as_str(), once.as_str(), "{path:?}: in normal form");
        for dialect in [Dialect::Strict, Dialect::Php] {
            if let Ok(template) = Template::parse(path, dialect) {
                _ = template.values(&once);
            }
        }
    }
}

pub fn seeds() -> Vec<Vec<u8>> {
    const PLACES: [&str; 12] = [
        "form:id",
        "json:$.id",
        "json:$.data.object.id",
        "json:$.events[0].links.payment",
        "query:id",
        "header:host",
        "cookie:session",
        "body",
        "form:a.b",
        "form:a[b]",
        "/payment_webhook/{company}/%7Egateway/../x",
        "-012.340e2",
    ];
    let requests = recorded().into_iter().filter_map(|of| of.requests.into_iter().next()).map(|(raw, _)| raw);
    let multipart = b"POST /?id=1&id=2 HTTP/1.1\r\nHost: a\r\nCookie: session=1; session=2\r\n\
        Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\nContent-Disposition: form-data; name=\"id\"\r\n\r\n\
        tr_1\r\n--x\r\nContent-Disposition: form-data; name=\"a[b]\"; filename=\"f\"\r\n\r\n1\r\n--x--\r\n";
    let form =
        b"POST /?a.b=1&a_b=%32 HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded; charset=utf-8\
        \r\n\r\nid=tr_1&a.b=1&a[b]=2&%69d=3&a%00=4";
    let json = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n\r\n\
        {\"id\":\"tr_\\u0031\",\"data\":{\"object\":{\"id\":12345678901234567890,\"id\":1e400}},\"events\":[null]}";
    let odd = [multipart.to_vec(), form.to_vec(), json.to_vec()];
    let all: Vec<_> = requests.chain(odd).collect();
    PLACES.iter().flat_map(|place| all.iter().map(move |raw| [place.as_bytes(), b"\n", raw].concat())).collect()
}
