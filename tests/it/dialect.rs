//! The gate reads what PHP reads: the same bytes through the `php` dialect and through a real PHP.
//!
//! Goal: the gate never takes one text for another, and never finds nothing where PHP finds something. Method: each
//! request, made by hand or by a seeded generator, goes to PHP's own web server, whose script prints what `$_POST`,
//! `$_GET`, `$_COOKIE` and `json_decode` hold. Where the gate says *ambiguous*, PHP may say anything; that it does not
//! say so too often is tested as well. `SEED` in the environment chooses other requests.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Method, Uri, header};
use oncegate::{
    callback::RequestView,
    provider::extract::{Dialect, Found, Place, Reader},
};

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";
pub const GENERATED: usize = 3000;
/// What a damaged JSON text gets.
const DAMAGE: &[u8] = b"{}[]\",:\\0 \n\xe9\0";

/// Every place, and how the script is asked for it.
pub const PLACES: &[(&str, &str)] = &[
    ("form:id", r#"["form","id"]"#),
    ("form:i_d", r#"["form","i_d"]"#),
    ("query:id", r#"["query","id"]"#),
    ("query:i_d", r#"["query","i_d"]"#),
    ("cookie:id", r#"["cookie","id"]"#),
    ("cookie:i_d", r#"["cookie","i_d"]"#),
    ("json:$.id", r#"["json",["id"]]"#),
    ("json:$.a.id", r#"["json",["a","id"]]"#),
    ("json:$.a[0]", r#"["json",["a",0]]"#),
    ("json:$.a.id[1].id", r#"["json",["a","id",1,"id"]]"#),
];

#[derive(Clone, Debug, Default)]
pub struct Case {
    pub get: bool,
    pub query: String,
    pub content_type: String,
    pub cookie: String,
    pub body: Vec<u8>,
}

impl Case {
    fn form(body: &str) -> Self {
        Self { content_type: FORM.into(), body: body.into(), ..Self::default() }
    }

    fn json(body: &str) -> Self {
        Self { content_type: JSON.into(), body: body.into(), ..Self::default() }
    }

    fn typed(content_type: &str, body: &str) -> Self {
        Self { content_type: content_type.into(), ..Self::form(body) }
    }

    fn cookie(cookie: &str) -> Self {
        Self { get: true, cookie: cookie.into(), ..Self::default() }
    }

    fn query(query: &str) -> Self {
        Self { get: true, query: query.into(), ..Self::default() }
    }

    fn method(&self) -> Method {
        if self.get { Method::GET } else { Method::POST }
    }
}

#[test]
fn the_gate_reads_what_php_reads() {
    let Some(php) = Php::start() else {
        // Written past the test harness, which keeps what a passing test prints to itself.
        let _ =
            writeln!(std::io::stderr(), "SKIPPED: the_gate_reads_what_php_reads, for `php` (php-cli) is not installed");
        return;
    };
    let seed = seed();
    let mut chance = Chance::new(seed);
    let by_hand = by_hand();
    let places: Vec<Place> = PLACES.iter().map(|(place, _)| place.parse().unwrap()).collect();
    let (mut read, mut ambiguous) = (0, 0);
    for case in by_hand.iter().cloned().chain((0..GENERATED).map(|_| chance.case())) {
        let told = php.ask(&case);
        assert_eq!(told.len(), 2 * places.len(), "PHP answered {told:?} to {case:?}");
        for ((place, found), told) in places.iter().zip(gate(&case, &places, Dialect::Php)).zip(told.chunks(2)) {
            read += usize::from(matches!(found, Found::One(_)));
            ambiguous += usize::from(matches!(found, Found::Ambiguous(_)));
            for told in told {
                let agree = agree(&found, told);
                assert!(agree, "seed {seed}, {place}: the gate reads {found:?}, PHP {told}\n{}", show(&case));
            }
        }
    }
    println!("{read} values read alike, {ambiguous} ambiguous");
    assert!(read > 500, "only {read} values were read, {ambiguous} were ambiguous");
}

/// Which requests are made up.
pub fn seed() -> u64 {
    std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_260_504)
}

pub fn gate(case: &Case, places: &[Place], dialect: Dialect) -> Vec<Found<'static>> {
    let uri: Uri = format!("/?{}", case.query).parse().unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in [(header::CONTENT_TYPE, &case.content_type), (header::COOKIE, &case.cookie)] {
        if !value.is_empty() {
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
    }
    let view = RequestView { method: &case.method(), uri: &uri, headers: &headers, body: &case.body, segments: &[] };
    let reader = Reader::new(&view, dialect);
    let owned = |found| match found {
        Found::One(text) => Found::One(std::borrow::Cow::Owned(String::from(text))),
        Found::Absent => Found::Absent,
        Found::Empty => Found::Empty,
        Found::Ambiguous(why) => Found::Ambiguous(why),
    };
    places.iter().map(|place| owned(reader.read(place))).collect()
}

pub fn agree(found: &Found<'_>, told: &str) -> bool {
    match found {
        Found::Ambiguous(_) => true,
        Found::Absent => told == "absent",
        Found::Empty => told == "null" || told == "scalar ",
        Found::One(text) => told.strip_prefix("scalar ") == Some(&hex(text.as_bytes())),
    }
}

pub fn show(case: &Case) -> String {
    format!("{case:?}\nbody: {}", String::from_utf8_lossy(&case.body))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// PHP's web server, ended with the test.
struct Php {
    server: Child,
    address: SocketAddrV4,
    asks: String,
    _folder: tempfile::TempDir,
}

impl Php {
    fn start() -> Option<Self> {
        Command::new("php").arg("-v").stdout(Stdio::null()).status().ok().filter(|status| status.success())?;
        let folder = tempfile::tempdir().unwrap();
        let script = folder.path().join("dialect.php");
        fs::write(&script, include_str!("dialect.php")).unwrap();
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        // Without php.ini, so that PHP's defaults hold.
        let server = Command::new("php")
            .args(["-n", "-d", "display_errors=0", "-d", "display_startup_errors=0", "-S", &address.to_string()])
            .arg(&script)
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let asks: Vec<_> = PLACES.iter().map(|(_, ask)| *ask).collect();
        let php = Self { server, address, asks: hex(format!("[{}]", asks.join(",")).as_bytes()), _folder: folder };
        for _ in 0..100 {
            if TcpStream::connect(address).is_ok() {
                return Some(php);
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("PHP is installed, but its web server does not start");
    }

    /// The lines that the script prints for this request.
    fn ask(&self, case: &Case) -> Vec<String> {
        let mut request = format!(
            "{} /?{} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-Places: {}\r\nContent-Length: {}\r\n",
            case.method(),
            case.query,
            self.asks,
            case.body.len()
        );
        for (name, value) in [("Content-Type", &case.content_type), ("Cookie", &case.cookie)] {
            if !value.is_empty() {
                request.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        let mut wire = TcpStream::connect(self.address).unwrap();
        wire.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        wire.write_all(&[request.as_bytes(), b"\r\n", &case.body].concat()).unwrap();
        let mut answer = String::new();
        wire.read_to_string(&mut answer).unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        body.lines().map(str::to_owned).collect()
    }
}

impl Drop for Php {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

pub fn by_hand() -> Vec<Case> {
    let forms = [
        "id=tr_1",
        "%69d=tr_1",
        "id=1&id=2",
        "id[]=1",
        "id[x]=1",
        "id[]=1&id=2",
        "id=2&id[]=1",
        "i.d=1",
        "i d=1",
        "i+d=1",
        "i[d=1",
        "i[d.x=1",
        "i[=1&i_=2",
        "%20%20id=1",
        "id%00x=1",
        "%00id=1",
        "id=%00",
        "id",
        "id=",
        "=id",
        "&&id=1&&",
        "id=1;id=2",
        "id=%zz",
        "id=%",
        "id=%4",
        "id=a%3Db",
        "id=a=b",
        "[id]=1",
        "]id=1",
        "id]=1",
        "id[=1",
        "id[ ]=1",
        "id[",
        "i%5Bd=1",
        "i%2Ed=1",
        "i%20d=1",
        "%2569d=1",
        "ID=1",
        "id=+1",
        "id=1+",
        "id=%C3%A9",
        "id=%ff",
        "id=%c0%af",
        "i_d=1&i.d=2",
        "i.d=1&i_d=2",
        "id=1&id[",
        "id=1&id[]",
        "id[][=2",
        "id=1&i[d=2&i_d[x]=3",
        "id%5b%5d=1",
        "id%0=1",
        "id%=1",
    ];
    let jsons = [
        r#"{"id":"tr_1"}"#,
        r#"{"id":1}"#,
        r#"{"id":1.0}"#,
        r#"{"id":1e3}"#,
        r#"{"id":-0}"#,
        r#"{"id":0}"#,
        r#"{"id":01}"#,
        r#"{"id":9223372036854775807}"#,
        r#"{"id":9223372036854775808}"#,
        r#"{"id":-9223372036854775808}"#,
        r#"{"id":-9223372036854775809}"#,
        r#"{"id":12345678901234567890}"#,
        r#"{"id":true}"#,
        r#"{"id":TRUE}"#,
        r#"{"id":null}"#,
        r#"{"id":Null}"#,
        r#"{"id":""}"#,
        r#"{"id":[]}"#,
        r#"{"id":{}}"#,
        r#"{"id":1,"id":2}"#,
        r#"{"id":1,"i\u0064":2}"#,
        r#"{"id":"a","x":"\ud800"}"#,
        r#"{"id":"a","x":"\udc00"}"#,
        r#"{"id":"\ud83d\ude00"}"#,
        r#"{"id":"a","x":"\ud83dx\ude00"}"#,
        r#"{"id":"a","\u0000x":1}"#,
        r#"{"id":"a\u0000"}"#,
        r#"{"id":"\/"}"#,
        r#"{"id":"\x"}"#,
        r#"{"id":"a",}"#,
        r#"{"id":"a"} "#,
        r#"{"id":"a"}{}"#,
        r#" {"id":"a"}"#,
        "\u{feff}{\"id\":\"a\"}",
        r#"{'id':'a'}"#,
        r#"{id:"a"}"#,
        r#"{"id":"a" /* */}"#,
        r#"{"id":NaN}"#,
        r#"{"id":+1}"#,
        r#"{"id":.5}"#,
        r#"{"id":1.}"#,
        "{\"id\":\"a\tb\"}",
        "{\"id\":\"a\u{7f}b\"}",
        "{\"id\":\"a\u{2028}b\"}",
        "{\"id\":\"a\0b\"}",
        "{\"id\":\"a\"}\0",
        r#"{"a":{"id":"x"}}"#,
        r#"{"a":{"id":"x"},"a":{}}"#,
        r#"{"a":{"id":"x"},"a":{"id":"y"}}"#,
        r#"{"a":["x"]}"#,
        r#"{"a":{"0":"x"}}"#,
        r#"{"a":"xyz"}"#,
        r#"{"a":[]}"#,
        r#"{"a":{"id":[1,{"id":"deep"}]}}"#,
        r#"["id"]"#,
        r#""id""#,
        "1",
        "",
    ];
    let deep = [126, 127, 128, 510, 511, 512, 513, 2000]
        .map(|depth| format!(r#"{{"id":"a","x":{}{}}}"#, "[".repeat(depth - 1), "]".repeat(depth - 1)));
    let many = [999, 1000, 1001, 1500].map(|fields| format!("{}id=last", "x=1&".repeat(fields - 1)));
    let first = [999, 1000, 1001, 1500].map(|fields| format!("id=first{}", "&x=1".repeat(fields - 1)));
    let nested = [60, 64, 65, 70].map(|depth| format!("id=1&id{}=2", "[x]".repeat(depth)));
    let cookies = [
        "id=1",
        "id=1; id=2",
        "id=%41",
        "id=a+b",
        "%69d=1",
        "i.d=1",
        "i.d=1; i_d=2",
        "id[]=1",
        "id=1; id[]=2",
        "id[]=2; id=1",
        "x; id=1",
        "id",
        "id=",
        " id=1",
        ";;id=1",
        "id =1",
        "id=1 ; x",
        "id=\"q\"",
        "id=a=b",
        "id=%zz",
        "ID=1",
        "id=1,id=2",
    ];
    let types = [
        "",
        FORM,
        JSON,
        "application/x-www-form-urlencoded; charset=UTF-8",
        "APPLICATION/X-WWW-FORM-URLENCODED",
        "text/plain",
        "application/x-www-form-urlencoded,text/plain",
        "application/x-www-form-urlencoded text/plain",
        "application/JSON",
        "application/x-www-form-urlencoded;/json",
        "application/vnd.api+json",
        "application/json, text/plain",
        "text/xml",
        "application/x-www-form-urlencodedx",
        "multipart/form-data",
        "multipart/form-data; boundary=b",
        "application/json-seq",
        "application/x-www-form-urlencoded; charset=utf-16",
        "application/json; charset=utf-16",
    ];
    let of_types =
        types.iter().flat_map(|name| [r#"{"id":"tr_1"}"#, "id=tr_1", "<id>1</id>"].map(|body| Case::typed(name, body)));
    let queries = forms.iter().filter(|text| !text.contains(' '));
    forms
        .iter()
        .map(|body| Case::form(body))
        .chain(many.iter().chain(&first).chain(&nested).map(|body| Case::form(body)))
        .chain(jsons.iter().map(|body| Case::json(body)))
        .chain(deep.iter().map(|body| Case::json(body)))
        .chain(cookies.iter().map(|cookie| Case::cookie(cookie)))
        .chain(queries.map(|query| Case::query(query)))
        .chain(of_types)
        .chain(forms.iter().map(|body| Case { get: true, ..Case::form(body) }))
        .chain(multiparts())
        .collect()
}

fn multiparts() -> impl Iterator<Item = Case> {
    let part = |head: &str, value: &str| format!("--b\r\n{head}\r\n\r\n{value}\r\n");
    let named = |name: &str| format!("Content-Disposition: form-data; name=\"{name}\"");
    let ends = ["--b--\r\n", "--b--", "--b--junk", "--b", ""];
    let names = ["id", "i.d", " id", "id[]", "id[x]", "i[d", "i d", "ID", "", "%69d", "i\\d", "id\\", "i&d"];
    let heads = [
        "Content-Disposition: form-data; name=id",
        "Content-Disposition: form-data; name='id'",
        "content-disposition: form-data; name=\"id\"",
        "Content-Disposition:form-data;name=\"id\"",
        "Content-Disposition: form-data; name=\"x\"; name=\"id\"",
        "Content-Disposition: form-data; name=\"id\"; filename=\"f\"",
        "Content-Disposition: form-data; name=\"id\"; filename=\"\"",
        "Content-Disposition: form-data; name=\"id\"\r\nContent-Type: text/plain",
        "Content-Disposition: form-data; name=\"id\"\r\nContent-Type: text/plain; charset=utf-16",
        "Content-Disposition: form-data; name=\"id\"\r\nContent-Transfer-Encoding: base64",
        "Content-Disposition: form-data; name=\"id\"\r\nContent-Disposition: form-data; name=\"x\"",
        "Content-Disposition: attachment; name=\"id\"",
        "Content-Type: text/plain",
    ];
    let mut bodies: Vec<String> = ends.map(|end| part(&named("id"), "tr_1") + end).into();
    bodies.extend(names.map(|name| part(&named(name), "1") + ends[0]));
    bodies.extend(heads.map(|head| part(head, "1") + ends[0]));
    bodies.extend(
        ["", " 1", "1 ", "1\r\n", "\r\n1", "--b", "1\r\n--bx", "1\r\n--b "]
            .map(|value| part(&named("id"), value) + ends[0]),
    );
    bodies.push(part(&named("id"), "1") + &part(&named("id"), "2") + ends[0]);
    bodies.push(part(&named("id"), "1") + &part(&named("id[]"), "2") + ends[0]);
    bodies.push("preamble\r\n".to_owned() + &part(&named("id"), "1") + ends[0]);
    bodies.push(part(&named("id"), "1").replace("\r\n", "\n") + "--b--\n");
    let boundaries = [
        "boundary=b",
        "boundary=\"b\"",
        "Boundary=b",
        "boundary=b; x=y",
        "x=y; boundary=b",
        "boundary=b,",
        "boundary= b",
    ];
    let boundaries = boundaries
        .map(|boundary| Case::typed(&format!("multipart/form-data; {boundary}"), &(part(&named("id"), "1") + ends[0])));
    bodies.into_iter().map(|body| Case::typed("multipart/form-data; boundary=b", &body)).chain(boundaries)
}

/// Xorshift: small, and the same everywhere.
pub struct Chance(u64);

impl Chance {
    pub const fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    pub fn one<'c>(&mut self, of: &[&'c str]) -> &'c str {
        of[self.below(of.len())]
    }

    pub fn case(&mut self) -> Case {
        match self.below(5) {
            0 | 1 => {
                let mut body = self.json(0);
                self.damage(&mut body);
                Case { body, ..Case::json("") }
            }
            2 => Case::form(&self.fields(&["&", "&", "&", "&&", ";"])),
            3 => Case::query(&self.fields(&["&", "&", "&", "&&", ";"])),
            _ => Case::cookie(&self.fields(&["; ", "; ", ";", ",", "; ;"])),
        }
    }

    fn fields(&mut self, separators: &[&str]) -> String {
        let names = [
            "id", "id", "id", "i_d", "i.d", "i%2ed", "%69d", "%69%64", "+id", "%20id", "id%00", "id%00x", "id[]",
            "id[x]", "id%5B%5D", "i[d", "i[d]", "i%5bd", "x", "ID", "id%20", "[id]", "i]d", "id[", "i+d", "id[a]b", "",
            "i[d[", "i[.d",
        ];
        let values = [
            "=tr_1", "=2", "=b", "=a%20b", "=a+b", "", "=", "=%00", "=%ff", "=%zz", "=%", "=1=2", "=%C3%A9", "=a%0a",
            "=%74r_1",
        ];
        let mut text = String::new();
        for _ in 0..=self.below(5) {
            text += self.one(&names);
            text += self.one(&values);
            text += self.one(separators);
        }
        text.trim().to_owned()
    }

    fn json(&mut self, depth: usize) -> Vec<u8> {
        let keys = [
            r#""id""#,
            r#""id""#,
            r#""a""#,
            r#""a""#,
            r#""0""#,
            r#""1""#,
            r#""x""#,
            r#""\u0069d""#,
            r#""""#,
            r#""a.id""#,
        ];
        let leaves = [
            r#""tr_1""#,
            r#""2""#,
            r#""""#,
            "1",
            "0",
            "-0",
            "1.0",
            "1.5",
            "1e3",
            "99999999999999999999",
            "true",
            "null",
            "TRUE",
            r#""\u00e9""#,
            r#""\ud800""#,
            r#""\ud83d\ude00""#,
            r#""\u0000""#,
            r#"" s""#,
            r#""a\/b""#,
            "[]",
            "{}",
            r#""\\ud800""#,
        ];
        let compound = depth < 5 && (depth == 0 || self.below(2) == 0);
        if !compound {
            return self.one(&leaves).into();
        }
        let object = depth == 0 || self.below(3) > 0;
        let mut text = vec![if object { b'{' } else { b'[' }];
        for index in 0..self.below(5) {
            if index > 0 {
                text.push(b',');
            }
            if object {
                text.extend(self.one(&keys).as_bytes());
                text.extend(self.one(&[":", ":", ": ", "\n:"]).as_bytes());
            }
            text.extend(self.json(depth + 1));
        }
        text.push(if object { b'}' } else { b']' });
        text
    }

    /// Changes a byte in one of eight texts.
    fn damage(&mut self, text: &mut Vec<u8>) {
        if self.below(8) == 0 {
            let at = self.below(text.len());
            match self.below(3) {
                0 => drop(text.remove(at)),
                1 => text.insert(at, DAMAGE[self.below(DAMAGE.len())]),
                _ => text[at] = DAMAGE[self.below(DAMAGE.len())],
            }
        }
    }
}
