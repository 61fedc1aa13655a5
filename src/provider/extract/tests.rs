//! What stands where, and what no reader may guess.

use std::fmt::Write;

use http::{HeaderMap, HeaderValue, Method, Uri, header};
use proptest::prelude::*;

use super::*;

const FORM: &str = "application/x-www-form-urlencoded";
const BOTH: [Dialect; 2] = [Dialect::Strict, Dialect::Php];

struct Request {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Vec<u8>,
    segments: Vec<(Arc<str>, String)>,
}

impl Request {
    fn post(content_type: &str, body: impl AsRef<[u8]>) -> Self {
        let mut headers = HeaderMap::new();
        if !content_type.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap());
        }
        Self { method: Method::POST, uri: Uri::default(), headers, body: body.as_ref().to_vec(), segments: Vec::new() }
    }

    fn get(uri: &str) -> Self {
        Self { method: Method::GET, uri: uri.parse().unwrap(), ..Self::post("", "") }
    }

    fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, HeaderValue::from_str(value).unwrap());
        self
    }

    fn read(&self, place: &str, dialect: Dialect) -> Found<'_> {
        let view = RequestView {
            method: &self.method,
            uri: &self.uri,
            headers: &self.headers,
            body: &self.body,
            segments: &self.segments,
        };
        Reader::new(&view, dialect).read(&place.parse().unwrap())
    }

    /// What both dialects find, in one letter each where it is no text.
    fn seen(&self, place: &str) -> [String; 2] {
        BOTH.map(|dialect| match self.read(place, dialect) {
            Found::Absent => "-".into(),
            Found::Empty => "0".into(),
            Found::Ambiguous(why) => {
                assert!(why.starts_with(place), "{why}");
                "?".into()
            }
            Found::One(text) => text.into_owned(),
        })
    }
}

#[test]
fn a_form_is_read_as_the_table_says() {
    // body, place, strict, php
    for (body, place, strict, php) in [
        ("id=tr_1", "form:id", "tr_1", "tr_1"),
        ("%69d=tr%5f1", "form:id", "tr_1", "tr_1"),
        ("x=1&id=a+b%20c", "form:id", "a b c", "a b c"),
        ("x=1", "form:id", "-", "-"),
        ("id=", "form:id", "0", "0"),
        ("id", "form:id", "0", "0"),
        ("ID=1", "form:id", "-", "-"),
        ("id=1&id=2", "form:id", "?", "2"),
        ("id=1&id=1", "form:id", "?", "1"),
        ("id[]=1", "form:id", "?", "?"),
        ("id[x]=1", "form:id", "?", "?"),
        ("id=2&id[]=1", "form:id", "?", "?"),
        ("id[]=1&id=2", "form:id", "?", "2"),
        ("a.b=1", "form:a_b", "?", "1"),
        ("a.b=1", "form:a.b", "1", "1"),
        ("a_b=1", "form:a.b", "?", "1"),
        ("a+b=1", "form:a_b", "?", "1"),
        ("a[b=1", "form:a_b", "?", "1"),
        ("a[b.c=1", "form:a_b_c", "?", "?"),
        ("+id=1", "form:id", "?", "1"),
        ("id%00x=1", "form:id", "?", "1"),
        ("id=1%00", "form:id", "?", "?"),
        ("id=1%0a", "form:id", "?", "?"),
        ("id=1%20", "form:id", "?", "?"),
        ("id=%C2%A01", "form:id", "?", "?"),
        ("id=%ff", "form:id", "?", "?"),
        ("id=%zz", "form:id", "?", "%zz"),
        ("id=1%", "form:id", "?", "1%"),
        ("id=1;id=2", "form:id", "?", "1;id=2"),
        ("x=1;id=2", "form:id", "?", "-"),
        ("data[id]=1&data[name]=2", "form:data[id]", "1", "?"),
        ("[id]=1", "form:id", "-", "-"),
        ("id=%E2%82%AC", "form:id", "€", "€"),
    ] {
        assert_eq!(Request::post(FORM, body).seen(place), [strict, php], "{body} at {place}");
        let query = Request::get(&format!("/?{body}"));
        assert_eq!(query.seen(&place.replace("form", "query")), [strict, php], "{body} in the query");
    }
}

#[test]
fn beyond_a_thousand_fields_nothing_is_read() {
    let body = |fields: usize| format!("id=1{}", "&x=1".repeat(fields - 1));
    assert_eq!(Request::post(FORM, body(1000)).seen("form:id"), ["1", "1"]);
    assert_eq!(Request::post(FORM, body(1001)).seen("form:id"), ["?", "?"]);
}

#[test]
fn the_content_type_says_whether_a_body_is_a_form() {
    for (content_type, strict, php) in [
        ("application/x-www-form-urlencoded; charset=UTF-8", "1", "1"),
        ("Application/X-WWW-Form-Urlencoded;charset=gbk", "1", "1"),
        ("application/x-www-form-urlencoded; charset=utf-16", "?", "1"),
        ("application/x-www-form-urlencoded, text/plain", "?", "?"),
        ("application/x-www-form-urlencoded; x=/json", "?", "?"),
        ("application/json", "-", "-"),
        ("text/plain", "-", "-"),
        ("", "-", "-"),
    ] {
        assert_eq!(Request::post(content_type, "id=1").seen("form:id"), [strict, php], "{content_type}");
    }
    let post = || Request::post(FORM, "id=1");
    assert_eq!(post().with("content-type", FORM).seen("form:id"), ["?", "?"]);
    assert_eq!(post().with("content-encoding", "gzip").seen("form:id"), ["?", "?"]);
    assert_eq!(Request { method: Method::PUT, ..post() }.seen("form:id"), ["?", "?"]);
    assert_eq!(Request { method: Method::GET, ..post() }.seen("form:id"), ["?", "-"]);
    assert_eq!(Request::post(&format!("{FORM}; charset=gbk"), "id=€").seen("form:id"), ["?", "€"]);
}

#[test]
fn a_json_body_is_read_as_the_table_says() {
    for (body, place, strict, php) in [
        (r#"{"id":"tr_1"}"#, "json:$.id", "tr_1", "tr_1"),
        (r#"{"a":{"b":[{"c":"x"}]}}"#, "json:$.a.b[0].c", "x", "x"),
        (r#"{"a.b":"x"}"#, r#"json:$["a.b"]"#, "x", "x"),
        (r#"{"a":"x"}"#, "json:$.a.b", "-", "-"),
        (r#"{"a":"xyz"}"#, "json:$.a[0]", "?", "?"),
        (r#"{"a":["x"]}"#, "json:$.a[1]", "-", "-"),
        (r#"{"a":[]}"#, "json:$.a.b", "-", "-"),
        (r#"{"a":[]}"#, "json:$.a.0", "-", "-"),
        (r#"{"a":["x"]}"#, "json:$.a.0", "?", "?"),
        (r#"{"a":{"0":"x"}}"#, "json:$.a[0]", "?", "?"),
        (r#"{"id":null}"#, "json:$.id", "0", "0"),
        (r#"{"id":""}"#, "json:$.id", "0", "0"),
        (r#"{"id":{}}"#, "json:$.id", "?", "?"),
        (r#"{"id":["x"]}"#, "json:$.id", "?", "?"),
        (r#"{"id":true}"#, "json:$.id", "true", "?"),
        (r#"{"id":12}"#, "json:$.id", "12", "12"),
        (r#"{"id":-9223372036854775808}"#, "json:$.id", "?", "-9223372036854775808"),
        (r#"{"id":9007199254740991}"#, "json:$.id", "9007199254740991", "9007199254740991"),
        (r#"{"id":9007199254740992}"#, "json:$.id", "?", "9007199254740992"),
        (r#"{"id":12345678901234567890}"#, "json:$.id", "?", "?"),
        (r#"{"id":1.0}"#, "json:$.id", "?", "?"),
        (r#"{"id":-0}"#, "json:$.id", "?", "?"),
        (r#"{"id":1,"id":2}"#, "json:$.id", "?", "2"),
        (r#"{"id":1,"\u0069d":2}"#, "json:$.id", "?", "2"),
        (r#"{"a":{"id":1},"a":{}}"#, "json:$.a.id", "?", "-"),
        (r#"{"a":{"id":[]},"a":{"id":3}}"#, "json:$.a.id", "?", "3"),
        (r#"{"x":1,"x":2,"id":3}"#, "json:$.id", "3", "3"),
        (r#"{"id":"\ud83d\ude00"}"#, "json:$.id", "😀", "😀"),
        (r#"{"id":"a","x":"\ud800"}"#, "json:$.id", "?", "?"),
        (r#"{"id":"a","x":"\ud800\u0041"}"#, "json:$.id", "?", "?"),
        (r#"{"id":"a","x":"\\ud800"}"#, "json:$.id", "a", "a"),
        (r#"{"id":"a","\u0000x":1}"#, "json:$.id", "?", "?"),
        (r#"{"id":"a\u0000"}"#, "json:$.id", "?", "?"),
        (r#"{"id":"a"}x"#, "json:$.id", "?", "?"),
        (r#"{"id":"a",}"#, "json:$.id", "?", "?"),
        (r#"{"id":"a","x":TRUE}"#, "json:$.id", "?", "?"),
        ("\u{feff}{\"id\":\"a\"}", "json:$.id", "?", "?"),
        (r#"[{"id":"a"}]"#, "json:$[0].id", "a", "a"),
        ("", "json:$.id", "-", "-"),
    ] {
        assert_eq!(Request::post("application/json", body).seen(place), [strict, php], "{body} at {place}");
    }
    let latin = [b"{\"id\":\"a\",\"x\":\"".as_slice(), &[0xe9], b"\"}"].concat();
    assert_eq!(Request::post("application/json", latin).seen("json:$.id"), ["?", "?"]);
}

#[test]
fn a_json_body_may_be_as_deep_as_the_app_reads_it() {
    let nested = |depth: usize| format!(r#"{{"x":{}{},"id":"a"}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1));
    assert_eq!(Request::post("application/json", nested(127)).seen("json:$.id"), ["a", "a"]);
    assert_eq!(Request::post("application/json", nested(511)).seen("json:$.id"), ["?", "a"]);
    assert_eq!(Request::post("application/json", nested(512)).seen("json:$.id"), ["?", "?"]);
    let many = format!(r#"{{"x":[{}0],"id":"a"}}"#, "{},".repeat(9999));
    assert_eq!(Request::post("application/json", many).seen("json:$.id"), ["a", "a"], "many, but not deep");
    let brackets = format!(r#"{{"x":"{}\"","id":"a"}}"#, "[".repeat(9999));
    assert_eq!(Request::post("application/json", brackets).seen("json:$.id"), ["a", "a"], "in a text");
}

#[test]
fn the_content_type_says_whether_a_body_is_json() {
    let body = r#"{"id":"a"}"#;
    for (content_type, strict, php) in [
        ("application/json; charset=utf-8", "a", "a"),
        ("application/vnd.api+json", "a", "a"),
        ("application/JSON", "a", "?"),
        ("application/json-seq", "?", "?"),
        ("text/plain", "a", "?"),
        ("", "a", "?"),
        ("text/xml", "?", "?"),
        (FORM, "?", "?"),
    ] {
        assert_eq!(Request::post(content_type, body).seen("json:$.id"), [strict, php], "{content_type}");
    }
    assert_eq!(Request::post(FORM, "id=1").seen("json:$.id"), ["-", "-"]);
    assert_eq!(Request::post("text/xml", "<xml/>").seen("json:$.id"), ["-", "-"]);
}

#[test]
fn many_paths_are_read_from_one_body() {
    let request = Request::post("application/json", r#"{"a":{"b":"1","c":{"d":"2"}},"e":[3,"4"],"f":"5"}"#);
    let places: Vec<Place> = ["$.a", "$.a.b", "$.a.c.d", "$.e[0]", "$.e[1]", "$.f", "$.g"]
        .map(|path| format!("json:{path}").parse().unwrap())
        .into();
    let view = RequestView {
        method: &request.method,
        uri: &request.uri,
        headers: &request.headers,
        body: &request.body,
        segments: &[],
    };
    let reader = Reader::new(&view, Dialect::Php);
    let found: Vec<_> = places[1..].iter().map(|place| reader.read(place)).collect();
    let one = |text| Found::One(Cow::Borrowed(text));
    assert_eq!(found, [one("1"), one("2"), one("3"), one("4"), one("5"), Found::Absent]);
    assert!(matches!(reader.read(&places[0]), Found::Ambiguous(_)));
}

#[test]
fn a_multipart_body_is_read_where_it_is_plain() {
    let body = |head: &str, value: &str| format!("--b\r\n{head}\r\n\r\n{value}\r\n--b--\r\n");
    let seen = |body: &str| Request::post("multipart/form-data; boundary=b", body).seen("form:id");
    let plain = "Content-Disposition: form-data; name=\"id\"";
    assert_eq!(seen(&body(plain, "tr_1")), ["tr_1", "tr_1"]);
    assert_eq!(seen(&body(plain, "")), ["0", "0"]);
    assert_eq!(seen(&body("Content-Disposition: form-data; name=\"x\"", "1")), ["-", "-"]);
    assert_eq!(seen(&body("Content-Disposition: form-data; name=\"x\"; filename=\"f\"", "1")), ["-", "-"]);
    for odd in [
        "Content-Disposition: form-data; name=id",
        "Content-Disposition: form-data; name=\"i\\d\"",
        "Content-Disposition: form-data; name=\"id[]\"",
        "Content-Disposition: form-data; name=\"id\"; filename=\"f\"",
        "Content-Disposition: form-data; name=\"id\"\r\nContent-Transfer-Encoding: base64",
        "X: y",
    ] {
        assert_eq!(seen(&body(odd, "1")), ["?", "?"], "{odd}");
    }
    let two = format!("--b\r\n{plain}\r\n\r\n1\r\n--b\r\n{plain}\r\n\r\n2\r\n--b--\r\n");
    assert_eq!(seen(&two), ["?", "2"]);
    assert_eq!(seen("id=1"), ["?", "?"]);
    assert_eq!(seen(""), ["-", "-"]);
    assert_eq!(seen(&format!("preamble\r\n{two}")), ["?", "?"]);
}

#[test]
fn cookies_headers_segments_and_bodies_are_read() {
    let cookies = Request::get("/").with("cookie", "a=1; session=x%3D; b=2; c=3; c=4");
    assert_eq!(cookies.seen("cookie:a"), ["1", "1"]);
    assert_eq!(cookies.seen("cookie:session"), ["?", "x="]);
    assert_eq!(cookies.seen("cookie:c"), ["?", "3"], "PHP takes the first cookie");
    assert_eq!(cookies.seen("cookie:d"), ["-", "-"]);
    assert_eq!(Request::get("/").with("cookie", "a=1").with("cookie", "b=1").seen("cookie:a"), ["?", "?"]);
    assert_eq!(Request::get("/").with("cookie", "a.b=1").seen("cookie:a_b"), ["?", "?"]);

    let headers = Request::get("/").with("x-id", "1").with("x-twice", "1").with("x-twice", "1").with("x_u", "1");
    assert_eq!(headers.seen("header:X-Id"), ["1", "1"]);
    assert_eq!(headers.seen("header:X-Twice"), ["?", "?"]);
    assert_eq!(headers.seen("header:X-U"), ["?", "?"], "one variable in CGI");
    assert_eq!(headers.seen("header:X-None"), ["-", "-"]);

    let segments = Request { segments: vec![("gateway".into(), "VolejRejNm".into())], ..Request::get("/") };
    assert_eq!(segments.seen("path:gateway"), ["VolejRejNm", "VolejRejNm"]);
    assert_eq!(segments.seen("path:other"), ["-", "-"]);

    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(Request::post("", "abc").seen("body"), [digest, digest]);
    assert_eq!(Request::post("", "").seen("body"), ["-", "-"], "or all empty bodies were one");
}

#[test]
fn a_place_is_written_as_it_is_parsed() {
    for text in [
        "form:id",
        "json:$.data.object.id",
        "json:$.a[0].c",
        r#"json:$["a.b"][10]"#,
        "query:payment_hash",
        "header:X-Event-Id",
        "path:gateway",
        "cookie:session",
        "body",
    ] {
        assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
    }
    for (text, says) in [
        ("id", "names no place"),
        ("form:", "names no place"),
        ("xml:a", "names no place"),
        ("json:id", "no JSON path"),
        ("json:$", "no JSON path"),
        ("json:$.a..b", "no JSON path"),
        ("json:$.a[x]", "no JSON path"),
        ("json:$.a[01]", "no JSON path"),
        ("json:$.a[*]", "no JSON path"),
        ("header:a b", "no name of a header"),
    ] {
        assert!(text.parse::<Place>().unwrap_err().0.contains(says), "{text}");
    }
}

#[test]
fn only_plain_decimals_are_amounts() {
    for (text, amount) in [("121.00", "121.00"), ("007", "7"), ("0.5", "0.5"), ("00.50", "0.50"), ("-3", "-3")] {
        assert_eq!(decimal(text).as_deref(), Some(amount));
    }
    for text in ["", ".", "1.", ".5", "1,00", "1e3", "+1", "0x1", "1.2.3", "--1", "١", " 1"] {
        assert_eq!(decimal(text), None, "{text}");
    }
}

/// Percent-encodes the characters that the mask picks.
fn encode(text: &str, mask: u64) -> String {
    text.bytes().enumerate().fold(String::new(), |mut encoded, (index, byte)| {
        if mask >> (index % 64) & 1 == 1 || !byte.is_ascii_alphanumeric() {
            write!(encoded, "%{byte:02x}").unwrap();
        } else {
            encoded.push(char::from(byte));
        }
        encoded
    })
}

proptest! {
    #[test]
    fn percent_encoding_changes_nothing(
        name in "[a-z_]{1,12}", value in "[!-~é€]{1,24}", names in any::<u64>(), values in any::<u64>(),
    ) {
        let body = format!("x=1&{}={}&y=2", encode(&name, names), encode(&value, values));
        let expected = [value.clone(), value];
        prop_assume!(name != "x" && name != "y");
        prop_assert_eq!(&Request::post(FORM, &body).seen(&format!("form:{name}")), &expected);
        prop_assert_eq!(&Request::get(&format!("/?{body}")).seen(&format!("query:{name}")), &expected);
    }

    #[test]
    fn the_dialects_never_read_different_values(
        form in "((id|i\\.d|i_d|i\\[d|%69d| id|\\+id|id%00|id\\[\\]|x)(=[a-c%0 +;]{0,3})?[&;]?){0,5}",
        json in "\\{((\"id\"|\"\\\\u0069d\"|\"a\"):(\"[a-c]{0,2}\"|[0-9.e-]{1,4}|null|true|\\{\"id\":\"[xy]\"\\}|\\[[1-3]\\]),?){0,4}\\}",
        cookie in "((id|i\\.d|id\\[\\]| id |x)(=[a-c%0\"]{0,4})?; ?){0,4}",
    ) {
        for place in ["form:id", "form:i_d", "form:i.d"] {
            agree(&Request::post(FORM, &form), place)?;
        }
        for place in ["json:$.id", "json:$.a.id", "json:$.a[0]", "json:$.a.0"] {
            agree(&Request::post("application/json", &json), place)?;
        }
        for place in ["cookie:id", "cookie:i_d"] {
            agree(&Request::get("/").with("cookie", &cookie), place)?;
        }
    }

    #[test]
    fn whatever_arrives_is_read_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        for content_type in [FORM, "application/json", "multipart/form-data; boundary=b", "", "x/y"] {
            for place in ["form:id", "json:$.id", "json:$[0]", "body"] {
                Request::post(content_type, &body).seen(place);
            }
        }
    }
}

fn agree(request: &Request, place: &str) -> Result<(), TestCaseError> {
    if let [Found::One(strict), Found::One(php)] = BOTH.map(|dialect| request.read(place, dialect)) {
        prop_assert_eq!(strict, php);
    }
    Ok(())
}
