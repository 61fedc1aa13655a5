//! A JSON body, parsed once into a list of what stands where, and values in it by keys or by path.
//!
//! Nothing is built: each value is its place in the text, so that numbers keep the text they were written with, two
//! members of one name are both seen, and reading one more value costs next to nothing.

use std::{borrow::Cow, fmt, str::FromStr};

use super::{Dialect, NoPlace, fields::TWICE};

/// The deepest path a place may name.
const MAX_STEPS: usize = 32;
/// Deeper bodies are refused by PHP's `json_decode` as it is called by default.
const PHP_DEPTH: usize = 511;
/// Deeper bodies are refused by many parsers.
const STRICT_DEPTH: usize = 127;

const COMPOUND: &str = "it is an object or a list";
const CONFUSED: &str = "a list is read as an object by some, or the reverse";
const NO_JSON: &str = "the body is not JSON";

/// The way to one value: `$.a.b[0]["any name"]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JsonPath(Box<[Step]>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Key(Box<str>),
    Index(usize, Box<str>),
}

impl FromStr for JsonPath {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let no = || NoPlace(format!("`{text}` is no JSON path: write $.name.name[0] or $[\"any name\"]"));
        let mut rest = text.strip_prefix('$').ok_or_else(no)?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, after) = step(rest).ok_or_else(no)?;
            steps.push(step);
            rest = after;
        }
        if steps.is_empty() || steps.len() > MAX_STEPS {
            return Err(no());
        }
        Ok(Self(steps.into()))
    }
}

fn step(text: &str) -> Option<(Step, &str)> {
    if let Some(rest) = text.strip_prefix('.') {
        let end = rest.find(['.', '[']).unwrap_or(rest.len());
        let (key, after) = rest.split_at(end);
        let fits = !key.is_empty() && !key.contains(|c: char| matches!(c, ']' | '"' | '\'' | '*') || c.is_whitespace());
        return fits.then(|| (Step::Key(key.into()), after));
    }
    let rest = text.strip_prefix('[')?;
    if let Some(quoted) = rest.strip_prefix('"') {
        let (key, after) = quoted.split_once("\"]")?;
        return (!key.contains(['"', '\\'])).then(|| (Step::Key(key.into()), after));
    }
    let (digits, after) = rest.split_once(']')?;
    let index: usize = digits.parse().ok()?;
    // Written as PHP would write the key, so that it can be compared as text.
    (index.to_string() == digits).then(|| (Step::Index(index, digits.into()), after))
}

impl fmt::Display for JsonPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("$")?;
        self.0.iter().try_for_each(|one| match one {
            Step::Index(_, text) => write!(f, "[{text}]"),
            Step::Key(key) if step(&format!(".{key}")).is_some_and(|(_, after)| after.is_empty()) => {
                write!(f, ".{key}")
            }
            Step::Key(key) => write!(f, "[\"{key}\"]"),
        })
    }
}

/// What stands at the end of a path.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Slot<'a> {
    Absent,
    Null,
    Text(Cow<'a, str>),
    /// As it is written.
    Number(&'a str),
    Bool(bool),
    Odd(&'static str),
}

/// The text of a value as the dialect has it: `Ok(None)` where there is none, an empty one for `null`.
pub(super) fn text(slot: Slot<'_>, dialect: Dialect) -> Result<Option<Cow<'_, str>>, &'static str> {
    match slot {
        Slot::Absent => Ok(None),
        Slot::Null => Ok(Some(Cow::Borrowed(""))),
        Slot::Text(text) => Ok(Some(text)),
        Slot::Odd(why) => Err(why),
        Slot::Number(digits) if is_kept(digits, dialect) => Ok(Some(Cow::Borrowed(digits))),
        Slot::Number(_) => Err("some readers make another text of this number"),
        Slot::Bool(value) if dialect == Dialect::Strict => {
            Ok(Some(Cow::Borrowed(if value { "true" } else { "false" })))
        }
        Slot::Bool(_) => Err("it is true or false"),
    }
}

/// A number that is kept as an integer, and written as it was written: in PHP one of 64 bits, in JavaScript one of 53.
fn is_kept(digits: &str, dialect: Dialect) -> bool {
    let most = if dialect == Dialect::Php { u64::MAX } else { (1 << 53) - 1 };
    digits != "-0" && digits.parse::<i64>().is_ok_and(|number| number.unsigned_abs() <= most)
}

/// A JSON text, parsed.
#[derive(Debug)]
pub(super) struct Document<'a> {
    text: &'a str,
    nodes: Vec<Node>,
    dialect: Dialect,
}

/// One value, or the name of a member; what it contains follows it.
#[derive(Clone, Copy, Debug)]
struct Node {
    kind: Kind,
    /// Where its text begins, and where it ends.
    start: u32,
    end: u32,
    /// The first node that no longer belongs to it.
    next: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Bool,
    Number,
    /// Written as it reads.
    Plain,
    /// With escapes.
    Escaped,
    List,
    Object,
}

/// A value of a document, or that there is none, or none that could be told.
#[derive(Clone, Copy, Debug)]
pub(super) enum At {
    Nothing,
    Odd(&'static str),
    Node(u32),
}

impl<'a> Document<'a> {
    /// Parses a body. What parsers differ on is refused: great depth, half surrogates, a NUL at the head of a text.
    pub(super) fn parse(body: &'a [u8], dialect: Dialect) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(body).map_err(|_| "the body is not UTF-8")?;
        let limit = if dialect == Dialect::Php { PHP_DEPTH } else { STRICT_DEPTH };
        if u32::try_from(body.len()).is_err() {
            return Err("the body is too long");
        }
        let nodes = Vec::with_capacity(body.len() / 12 + 1);
        let nodes = Parser { bytes: body, at: 0, nodes, open: Vec::with_capacity(16), limit }.document()?;
        Ok(Self { text, nodes, dialect })
    }

    pub(super) const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The whole of it.
    pub(super) const fn root(&self) -> At {
        if self.nodes.is_empty() { At::Nothing } else { At::Node(0) }
    }

    /// What stands at the end of this path.
    pub(super) fn walk(&self, path: &JsonPath) -> Slot<'a> {
        let end = path.0.iter().fold(self.root(), |at, step| match step {
            Step::Key(key) => self.member(at, key),
            Step::Index(index, text) => self.item(at, *index, text),
        });
        self.slot(end)
    }

    /// The member of this name. Of two, PHP takes the last.
    pub(super) fn member(&self, at: At, name: &str) -> At {
        let At::Node(index) = at else { return at };
        let node = self.nodes[index as usize];
        match node.kind {
            Kind::Object => {
                let mut found = At::Nothing;
                let mut key = index + 1;
                while key < node.next {
                    let value = key + 1;
                    if self.is_named(key, name) {
                        found = match found {
                            At::Nothing => At::Node(value),
                            _ if self.dialect == Dialect::Php => At::Node(value),
                            _ => At::Odd(TWICE),
                        };
                    }
                    key = self.nodes[value as usize].next;
                }
                found
            }
            Kind::List => match name.parse() {
                Ok(position) if self.items(index).nth(position).is_some() => At::Odd(CONFUSED),
                _ => At::Nothing,
            },
            _ => At::Nothing,
        }
    }

    fn item(&self, at: At, position: usize, written: &str) -> At {
        let At::Node(index) = at else { return at };
        match self.nodes[index as usize].kind {
            Kind::List => self.items(index).nth(position).map_or(At::Nothing, At::Node),
            Kind::Object => match self.member(at, written) {
                At::Nothing => At::Nothing,
                _ => At::Odd(CONFUSED),
            },
            // PHP reads a letter out of a text by its index.
            Kind::Plain | Kind::Escaped => At::Odd(CONFUSED),
            _ => At::Nothing,
        }
    }

    /// The values of a list; none where it is none.
    pub(super) fn items(&self, index: u32) -> impl Iterator<Item = u32> {
        let node = self.nodes[index as usize];
        let end = if node.kind == Kind::List { node.next } else { index };
        let mut next = index + 1;
        std::iter::from_fn(move || {
            let item = (next < end).then_some(next)?;
            next = self.nodes[item as usize].next;
            Some(item)
        })
    }

    pub(super) fn is_list(&self, index: u32) -> bool {
        self.nodes[index as usize].kind == Kind::List
    }

    pub(super) fn is_object(&self, index: u32) -> bool {
        self.nodes[index as usize].kind == Kind::Object
    }

    /// The names of an object's members, as they are written; none where it is none.
    pub(super) fn names(&self, index: u32) -> impl Iterator<Item = &'a str> {
        let node = self.nodes[index as usize];
        let end = if node.kind == Kind::Object { node.next } else { index };
        let mut next = index + 1;
        std::iter::from_fn(move || {
            let key = (next < end).then_some(next)?;
            next = self.nodes[key as usize + 1].next;
            Some(self.inside(key))
        })
    }

    pub(super) fn slot(&self, at: At) -> Slot<'a> {
        let index = match at {
            At::Nothing => return Slot::Absent,
            At::Odd(why) => return Slot::Odd(why),
            At::Node(index) => index,
        };
        match self.nodes[index as usize].kind {
            Kind::Null => Slot::Null,
            Kind::Bool => Slot::Bool(self.written(index) == "true"),
            Kind::Number => Slot::Number(self.written(index)),
            Kind::Plain => Slot::Text(Cow::Borrowed(self.inside(index))),
            Kind::Escaped => serde_json::from_str(self.written(index))
                .map_or(Slot::Odd("the text is not well encoded"), |text| Slot::Text(Cow::Owned(text))),
            Kind::List | Kind::Object => Slot::Odd(COMPOUND),
        }
    }

    fn is_named(&self, key: u32, name: &str) -> bool {
        match self.nodes[key as usize].kind {
            Kind::Plain => self.inside(key) == name,
            _ => matches!(self.slot(At::Node(key)), Slot::Text(text) if text == name),
        }
    }

    /// As it stands there, a text with its quotes.
    fn written(&self, index: u32) -> &'a str {
        let node = self.nodes[index as usize];
        &self.text[node.start as usize..node.end as usize]
    }

    fn inside(&self, index: u32) -> &'a str {
        let node = self.nodes[index as usize];
        &self.text[node.start as usize + 1..node.end as usize - 1]
    }
}

/// How far a text reads as it is written: to the first quote, backslash or control character. Eight bytes at a time, for
/// most of a body is text.
fn plain(bytes: &[u8]) -> Option<usize> {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * EACH;
    // A byte of the result has its high bit where that byte of the word is 0. Above the first such byte a borrow may
    // make more of them, but only the first is asked for.
    let zeros = |word: u64| word.wrapping_sub(EACH) & !word;
    let below_space = |word: u64| word.wrapping_sub(u64::from(b' ') * EACH) & !word;
    let (words, rest) = bytes.as_chunks::<8>();
    for (nth, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let (quote, escape) = (word ^ (u64::from(b'"') * EACH), word ^ (u64::from(b'\\') * EACH));
        let stops = (zeros(quote) | zeros(escape) | below_space(word)) & HIGH;
        if stops != 0 {
            return Some(nth * 8 + stops.trailing_zeros() as usize / 8);
        }
    }
    let stops = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..b' ');
    rest.iter().position(stops).map(|at| words.len() * 8 + at)
}

/// Goes once over the text (RFC 8259), with the containers that are open on a list of its own: no depth overflows.
struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    open: Vec<u32>,
    limit: usize,
}

impl Parser<'_> {
    fn document(mut self) -> Result<Vec<Node>, &'static str> {
        self.value()?;
        loop {
            self.space();
            let Some(&container) = self.open.last() else { break };
            let object = self.nodes[container as usize].kind == Kind::Object;
            match self.bytes.get(self.at) {
                Some(b',') => {
                    self.at += 1;
                    if object {
                        self.key()?;
                    }
                    self.value()?;
                }
                Some(b'}') if object => self.close(),
                Some(b']') if !object => self.close(),
                _ => return Err(NO_JSON),
            }
        }
        if self.at == self.bytes.len() { Ok(self.nodes) } else { Err(NO_JSON) }
    }

    /// One value; of one that contains others, all down to the first that contains none.
    fn value(&mut self) -> Result<(), &'static str> {
        loop {
            self.space();
            let start = self.at;
            let (kind, end) = match self.bytes.get(start) {
                Some(b'{') => (Kind::Object, b'}'),
                Some(b'[') => (Kind::List, b']'),
                Some(b'"') => {
                    let kind = self.string()?;
                    self.leaf(kind, start);
                    return Ok(());
                }
                Some(b'-' | b'0'..=b'9') => {
                    self.number()?;
                    self.leaf(Kind::Number, start);
                    return Ok(());
                }
                Some(b't') => return self.word(b"true", Kind::Bool),
                Some(b'f') => return self.word(b"false", Kind::Bool),
                Some(b'n') => return self.word(b"null", Kind::Null),
                _ => return Err(NO_JSON),
            };
            if self.open.len() == self.limit {
                return Err("the body is nested too deeply");
            }
            self.open.push(index(self.nodes.len()));
            self.at += 1;
            self.leaf(kind, start);
            self.space();
            if self.bytes.get(self.at) == Some(&end) {
                self.close();
                return Ok(());
            }
            if kind == Kind::Object {
                self.key()?;
            }
        }
    }

    fn close(&mut self) {
        self.at += 1;
        let next = index(self.nodes.len());
        if let Some(container) = self.open.pop() {
            let node = &mut self.nodes[container as usize];
            (node.end, node.next) = (index(self.at), next);
        }
    }

    fn leaf(&mut self, kind: Kind, start: usize) {
        let next = index(self.nodes.len() + 1);
        self.nodes.push(Node { kind, start: index(start), end: index(self.at), next });
    }

    fn key(&mut self) -> Result<(), &'static str> {
        self.space();
        let start = self.at;
        if self.bytes.get(start) != Some(&b'"') {
            return Err(NO_JSON);
        }
        let kind = self.string()?;
        self.leaf(kind, start);
        self.space();
        if self.bytes.get(self.at) != Some(&b':') {
            return Err(NO_JSON);
        }
        self.at += 1;
        Ok(())
    }

    fn word(&mut self, word: &[u8], kind: Kind) -> Result<(), &'static str> {
        let start = self.at;
        if !self.bytes[start..].starts_with(word) {
            return Err(NO_JSON);
        }
        self.at += word.len();
        self.leaf(kind, start);
        Ok(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// A text from its quote to the one that ends it.
    fn string(&mut self) -> Result<Kind, &'static str> {
        self.at += 1;
        let (first, mut kind) = (self.at, Kind::Plain);
        while let Some(plain) = plain(&self.bytes[self.at..]) {
            self.at += plain;
            match self.bytes[self.at] {
                b'"' => {
                    self.at += 1;
                    return Ok(kind);
                }
                b'\\' => {
                    self.escape(first)?;
                    kind = Kind::Escaped;
                }
                _ => break,
            }
        }
        Err(NO_JSON)
    }

    fn escape(&mut self, first: usize) -> Result<(), &'static str> {
        self.at += match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            _ => match self.unit(self.at) {
                None => return Err(NO_JSON),
                Some(0) if self.at == first => return Err("a text begins with a NUL"),
                Some(0xd800..=0xdbff) if matches!(self.unit(self.at + 6), Some(0xdc00..=0xdfff)) => 12,
                Some(0xd800..=0xdfff) => return Err("half a character"),
                Some(_) => 6,
            },
        };
        Ok(())
    }

    /// The half or whole character that `\uXXXX` stands for.
    fn unit(&self, at: usize) -> Option<u32> {
        let digits = self.bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))
    }

    fn number(&mut self) -> Result<(), &'static str> {
        self.skip(b"-");
        if !self.skip(b"0") {
            self.digits()?;
        }
        if self.skip(b".") {
            self.digits()?;
        }
        if self.skip(b"eE") {
            self.skip(b"+-");
            self.digits()?;
        }
        Ok(())
    }

    fn skip(&mut self, any: &[u8]) -> bool {
        let there = self.bytes.get(self.at).is_some_and(|byte| any.contains(byte));
        self.at += usize::from(there);
        there
    }

    fn digits(&mut self) -> Result<(), &'static str> {
        let count = self.bytes[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        if count == 0 { Err(NO_JSON) } else { Ok(()) }
    }
}

/// The body is not longer than this, and holds no more nodes than bytes.
fn index(position: usize) -> u32 {
    u32::try_from(position).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    fn parses(text: &str) -> bool {
        Document::parse(text.as_bytes(), Dialect::Php).is_ok()
    }

    #[test]
    fn what_is_json_is_what_the_standard_says() {
        for json in ["0", "-0", "1.5e+3", "[]", "{}", " [ 1 , [ ] , {\"a\" : null} ] ", "\"\\u00e9\\/\"", "true"] {
            assert!(parses(json), "{json}");
        }
        for other in [
            "",
            "01",
            "1.",
            ".5",
            "-",
            "+1",
            "1e",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":1,}",
            "{a:1}",
            "'a'",
            "\"a",
            "\"\\x\"",
            "\"\t\"",
            "nul",
            "[1}",
            "{\"a\":1]",
            "1 2",
            "[1][2]",
            "\"\\u12g4\"",
            "NaN",
            "]",
        ] {
            assert!(!parses(other), "{other}");
        }
    }

    proptest! {
        /// The other parser of the house has been read by many.
        #[test]
        fn another_parser_takes_the_same_texts_for_json(
            text in "([\\[\\]{},:]|\"[a\\\\\"u0-9 ]{0,4}\"|-?[0-9.eE+]{1,4}|true|null|[ \n]){0,12}",
        ) {
            let odd = |text: &str| matches!(Document::parse(text.as_bytes(), Dialect::Php), Err(why) if why != NO_JSON);
            prop_assume!(!odd(&text));
            prop_assert_eq!(parses(&text), serde_json::from_str::<&RawValue>(&text).is_ok(), "{}", text);
        }

        #[test]
        fn every_value_is_found_where_another_parser_finds_it(
            names in proptest::collection::vec("[a-c\\\\n]{1,2}", 1..6),
            values in proptest::collection::vec("[a-c\n\"é]{0,3}", 6..7),
        ) {
            let members: serde_json::Map<_, _> =
                names.iter().cloned().zip(values.iter().map(|v| serde_json::Value::from(v.as_str()))).collect();
            let text = serde_json::json!({"x": [1, members]}).to_string();
            let document = Document::parse(text.as_bytes(), Dialect::Strict).unwrap();
            let list = document.member(document.root(), "x");
            let object = document.item(list, 1, "1");
            for (name, value) in &members {
                let found = document.slot(document.member(object, name));
                prop_assert_eq!(found, Slot::Text(Cow::Borrowed(value.as_str().unwrap())));
            }
        }
    }

    proptest! {
        #[test]
        fn a_text_reads_as_it_is_written_to_the_first_byte_that_stops_it(
            bytes in proptest::collection::vec(
                prop_oneof![any::<u8>(), Just(b'"'), Just(b'\\'), 0x1f..0x24_u8, 0x7e..=0x82_u8],
                0..40,
            )
        ) {
            prop_assert_eq!(plain(&bytes), bytes.iter().position(|byte| *byte < 0x20 || b"\"\\".contains(byte)));
        }
    }
}
