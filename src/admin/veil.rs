//! The veil over what opens a door: values of a request that are not shown, by the names they stand under.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;

use crate::{
    provider::{
        self, PROVIDERS,
        contract::{Provider, Repeated},
    },
    telemetry::cardless,
};

/// What stands where a secret would.
const HIDDEN: &str = "***";
/// How deep one text is looked for in another: JSON in a form, an address in JSON.
const DEPTH: u8 = 3;
/// What may stand before a name that is followed by `=`.
const SEPARATORS: [char; 6] = [';', '?', '#', ',', ' ', '\n'];

/// A part of a name that tells a secret, wherever it stands; in lower case, with `-` for what is no letter and no digit.
const TELLING: [&str; 17] = [
    "token",
    "secret",
    "passw",
    "passphrase",
    "passcode",
    "pwd",
    "credential",
    "api-key",
    "apikey",
    "access-key",
    "accesskey",
    "private-key",
    "privatekey",
    "cvv",
    "cvc",
    "security-code",
    "securitycode",
];
/// Whole names that tell one; as parts of others they tell nothing.
const WHOLE: [&str; 5] = ["key", "auth", "pass", "pin", "csc"];
/// Parts that tell one in header fields and queries; in bodies they are about money (`authorization_amount`).
const OUTSIDE: [&str; 2] = ["authorization", "cookie"];

/// Hides what lets whoever knows it in somewhere; a signature does not, for it proves what came.
#[derive(Clone, Copy, Debug)]
pub struct Veil {
    every_parameter: bool,
}

impl Veil {
    /// The veil over a request of this provider.
    #[must_use]
    pub fn over(provider: &str) -> Self {
        let every = |provider: &Provider| provider.repeats().contains(&Repeated::AnyParameter);
        Self { every_parameter: provider::by_name(provider).is_some_and(every) }
    }

    /// A header field's value.
    #[must_use]
    pub fn header(self, name: &HeaderName, value: &HeaderValue) -> String {
        let repeated = |place: &Repeated| matches!(place, Repeated::Header(header) if *header == name.as_str());
        if tells_outside(name.as_str()) || any_repeats(repeated) {
            return HIDDEN.to_owned();
        }
        // It may hold an address, such as that of the page before.
        let value = String::from_utf8_lossy(value.as_bytes());
        cardless(&pairs(&value, tells_outside, DEPTH)).into_owned()
    }

    /// The address that was asked for.
    #[must_use]
    pub fn target(self, uri: &Uri) -> String {
        let path = cardless(uri.path());
        let Some(query) = uri.query() else { return path.into_owned() };
        let repeated = |name: &str| any_repeats(|place| matches!(place, Repeated::Parameter(known) if *known == name));
        let query = pairs(query, |name| self.every_parameter || tells_outside(name) || repeated(name), DEPTH);
        format!("{path}?{}", cardless(&query))
    }

    /// A body, or its beginning.
    #[must_use]
    pub fn body(self, body: &str) -> String {
        cardless(&text(body, DEPTH)).into_owned()
    }
}

/// Whether any provider repeats its secret at such a place: the one that sent it may not have been recognised.
fn any_repeats(is_it: impl Fn(&Repeated) -> bool) -> bool {
    PROVIDERS.iter().any(|provider| provider.repeats().iter().any(&is_it))
}

fn tells(name: &str) -> bool {
    let name = plain(name);
    TELLING.iter().any(|part| name.contains(part)) || WHOLE.contains(&&*name)
}

fn tells_outside(name: &str) -> bool {
    let lower = plain(name);
    tells(name) || OUTSIDE.iter().any(|part| lower.contains(part))
}

fn plain(name: &str) -> String {
    let letter = |c: char| if c.is_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    name.trim().chars().map(letter).collect()
}

fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned())
}

/// A text of which nobody says what it is.
fn text(text: &str, depth: u8) -> String {
    let begins = text.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    if begins.starts_with(['{', '[']) {
        json(text, depth)
    } else if begins.starts_with('<') {
        xml(text, depth)
    } else if begins.starts_with("--") {
        parts(text, begins, depth)
    } else {
        pairs(text, tells, depth)
    }
}

/// A value in which another text may stand.
fn within(value: &str, depth: u8) -> Option<String> {
    if depth == 0 || !value.contains(['=', '{', '<']) {
        return None;
    }
    Some(text(value, depth - 1)).filter(|veiled| veiled != value)
}

/// `name=value&name=value`: a form, a query, and whatever else has such pairs in it.
fn pairs(text: &str, tells: impl Fn(&str) -> bool, depth: u8) -> String {
    let mut veiled = String::with_capacity(text.len());
    for piece in text.split_inclusive('&') {
        let (mut rest, end) = piece.strip_suffix('&').map_or((piece, ""), |piece| (piece, "&"));
        while let Some((before, value)) = rest.split_once('=') {
            let name = before.rsplit(SEPARATORS).next().unwrap_or(before);
            veiled.push_str(before);
            veiled.push('=');
            if tells(&decoded(name)) {
                veiled.push_str(HIDDEN);
                rest = "";
                break;
            }
            let length = value.find(SEPARATORS).unwrap_or(value.len());
            let (value, after) = value.split_at(length);
            match within(&decoded(value), depth) {
                Some(inner) => veiled.push_str(&inner),
                None => veiled.push_str(value),
            }
            rest = after;
        }
        veiled.push_str(rest);
        veiled.push_str(end);
    }
    veiled
}

/// JSON as it is written, also where it is cut or is none.
fn json(text: &str, depth: u8) -> String {
    let mut veiled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('"') {
        veiled.push_str(&rest[..at]);
        let (quoted, after) = rest[at..].split_at(string_length(&rest[at..]));
        let said: Option<String> = serde_json::from_str(quoted).ok();
        let said = said.as_deref().unwrap_or(quoted);
        rest = after;
        let Some(value) = after.trim_start().strip_prefix(':') else {
            match within(said, depth) {
                Some(inner) => veiled.push_str(&serde_json::Value::from(inner).to_string()),
                None => veiled.push_str(quoted),
            }
            continue;
        };
        veiled.push_str(quoted);
        if tells(said) {
            let value = value.trim_start();
            veiled.push_str(&after[..after.len() - value.len()]);
            veiled.push('"');
            veiled.push_str(HIDDEN);
            veiled.push('"');
            rest = &value[value_length(value)..];
        }
    }
    veiled.push_str(rest);
    veiled
}

/// How long the string is that begins here with its quote; it may have no end.
fn string_length(text: &str) -> usize {
    let mut escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

/// How long the value is that begins here.
fn value_length(text: &str) -> usize {
    let (mut at, mut open) = (0, 0_usize);
    let bytes = text.as_bytes();
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'"' => at += string_length(&text[at..]),
            b'{' | b'[' => {
                open += 1;
                at += 1;
            }
            b'}' | b']' | b',' if open == 0 => return at,
            b'}' | b']' => {
                open -= 1;
                at += 1;
            }
            _ => {
                at += 1;
                continue;
            }
        }
        if open == 0 {
            return at;
        }
    }
    text.len()
}

/// Elements and attributes.
fn xml(text: &str, depth: u8) -> String {
    let mut veiled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        veiled.push_str(&rest[..=at]);
        rest = &rest[at + 1..];
        if rest.starts_with("![CDATA[") {
            continue;
        }
        let (tag, after) = rest.split_at(rest.find('>').unwrap_or(rest.len()));
        veiled.push_str(&pairs(tag, tells, depth));
        rest = after;
        let name = tag.split([' ', '\t', '\r', '\n']).next().unwrap_or(tag);
        let opens = !name.starts_with('/') && !tag.ends_with('/') && !after.is_empty();
        if opens && tells(name) {
            veiled.push('>');
            veiled.push_str(HIDDEN);
            rest = after.find(&format!("</{name}")).map_or("", |end| &after[end..]);
        }
    }
    veiled.push_str(rest);
    veiled
}

/// The parts of a form (`multipart/form-data`); `begins` begins with the line that stands between them.
fn parts(text: &str, begins: &str, depth: u8) -> String {
    let line = begins.split(['\r', '\n']).next().unwrap_or(begins);
    let one = |part: &str| {
        let Some((head, gap, value)) = ["\r\n\r\n", "\n\n"].iter().find_map(|gap| {
            let (head, value) = part.split_once(gap)?;
            Some((head, *gap, value))
        }) else {
            return part.to_owned();
        };
        let lower = head.to_ascii_lowercase();
        let named = lower.split(['\r', '\n', ';']).find_map(|piece| piece.trim().strip_prefix("name="));
        if named.is_some_and(|name| tells(name.trim_matches('"'))) {
            return format!("{head}{gap}{HIDDEN}\r\n");
        }
        format!("{head}{gap}{}", within(value, depth).as_deref().unwrap_or(value))
    };
    text.split(line).map(one).collect::<Vec<_>>().join(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> String {
        Veil::over("generic").body(text)
    }

    #[test]
    fn what_has_a_telling_name_is_hidden_in_whatever_a_body_is() {
        for (told, shown) in [
            ("a=1&password=x%26y&b=2", "a=1&password=***&b=2"),
            ("card%5Bcvc%5D=123&n=1", "card%5Bcvc%5D=***&n=1"),
            ("a=1;token=x", "a=1;token=***"),
            ("p%61ssword=x", "p%61ssword=***"),
            (r#"{"a":1,"token":"x\"y","b":2}"#, r#"{"a":1,"token":"***","b":2}"#),
            (r#"{ "cvv" : 123 , "b":2}"#, r#"{ "cvv" : "***", "b":2}"#),
            (r#"{"accessToken":{"a":["}","x"]},"b":2}"#, r#"{"accessToken":"***","b":2}"#),
            (r#"[{"tok\u0065n":"x"}]"#, r#"[{"tok\u0065n":"***"}]"#),
            (r#"{"password":"x"#, r#"{"password":"***""#),
            (r#"{"at":"https://a/?key=x&b=1"}"#, r#"{"at":"https://a/?key=***&b=1"}"#),
            (r#"{"in":"{\"pin\":\"x\"}"}"#, r#"{"in":"{\"pin\":\"***\"}"}"#),
            ("payload=%7B%22token%22%3A%22x%22%7D&b=1", r#"payload={"token":"***"}&b=1"#),
            ("<a><token><b>x</b></token><c>1</c></a>", "<a><token>***</token><c>1</c></a>"),
            ("<a><cvc><![CDATA[x]]></cvc></a>", "<a><cvc>***</cvc></a>"),
            ("<a pin=\"x\"><b>1</b>", "<a pin=***><b>1</b>"),
            (
                "--X\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\nx\r\n--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--X--\r\n",
                "--X\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\n***\r\n--X\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--X--\r\n",
            ),
        ] {
            assert_eq!(body(told), shown);
        }
    }

    #[test]
    fn what_tells_no_secret_stays_as_it_came() {
        for told in [
            "",
            "a=1&b=%7B%22c%22%3A1%7D&c==&&",
            r#"{"authorization_amount": 10, "idempotency_key":"k", "shipping":"x", "a":"say \"token\""}"#,
            "<a b=\"1\"><c>2</c><!-- x --></a>",
            "plain words, with = and <",
            "--",
            "{\"",
        ] {
            assert_eq!(body(told), told);
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_comes_breaks_it(told in "[\\[{<-]?[a-z\"\\\\{}\\[\\],:=&;%+<>/ü\r\n-]{0,60}(token)?[\"=:]{0,2}.{0,9}") {
            body(&told);
            pairs(&told, tells_outside, DEPTH);
        }
    }
}
