//! Values in a JSON body, by paths that are parsed with the configuration and read in one pass.
//!
//! Only the levels that a path visits are looked at; the rest is skipped without being built. Numbers keep the text
//! they were written with.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{Dialect, NoPlace, fields::TWICE};

/// The deepest path a place may name.
const MAX_STEPS: usize = 32;
/// How many paths one pass serves.
const PER_PASS: usize = 64;
/// Deeper bodies are refused by PHP's `json_decode` as it is called by default.
const PHP_DEPTH: usize = 511;
/// Deeper bodies are refused by many parsers.
const STRICT_DEPTH: usize = 127;

const COMPOUND: &str = "it is an object or a list";
const CONFUSED: &str = "a list is read as an object by some, or the reverse";

/// The way to one value: `$.a.b[0]["any name"]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JsonPath(Box<[Step]>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Key(Box<str>),
    Index(usize, Box<str>),
}

impl JsonPath {
    /// The path through these keys.
    #[must_use]
    pub fn keys(keys: &[&str]) -> Self {
        Self(keys.iter().map(|key| Step::Key(Box::from(*key))).collect())
    }
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
        Slot::Number(digits) if dialect == Dialect::Strict || php_integer(digits) => Ok(Some(Cow::Borrowed(digits))),
        Slot::Number(_) => Err("PHP makes another text of this number"),
        Slot::Bool(value) if dialect == Dialect::Strict => {
            Ok(Some(Cow::Borrowed(if value { "true" } else { "false" })))
        }
        Slot::Bool(_) => Err("it is true or false"),
    }
}

/// A number that PHP keeps as an integer, and writes as it was written.
fn php_integer(digits: &str) -> bool {
    digits != "-0" && digits.parse::<i64>().is_ok()
}

/// Reads every path in as few passes as possible; the answers stand in the order of the paths.
pub(super) fn read<'a>(body: &'a [u8], paths: &[&JsonPath], dialect: Dialect) -> Vec<Slot<'a>> {
    let odd = |why| vec![Slot::Odd(why); paths.len()];
    let Ok(text) = std::str::from_utf8(body) else {
        return odd("the body is not UTF-8");
    };
    if let Some(why) = irregular(text, dialect) {
        return odd(why);
    }
    let mut slots = Vec::with_capacity(paths.len());
    for paths in paths.chunks(PER_PASS) {
        let mut these = vec![Slot::Absent; paths.len()];
        if pass(text, paths, &mut these, u64::MAX >> (PER_PASS - paths.len()), 0, dialect).is_err() {
            return odd("the body is not JSON");
        }
        slots.append(&mut these);
    }
    slots
}

/// Finds what parsers differ on and a pass that skips would not notice: great depth, half surrogates, a NUL at the
/// head of a name.
fn irregular(text: &str, dialect: Dialect) -> Option<&'static str> {
    let limit = if dialect == Dialect::Php { PHP_DEPTH } else { STRICT_DEPTH };
    let bytes = text.as_bytes();
    if openers(bytes) > limit || memchr::memmem::find(bytes, b"\\u").is_some() {
        return look_closely(bytes, limit);
    }
    None
}

/// How many objects and lists there are at most; counted in bytes, so that the compiler counts many at once.
fn openers(bytes: &[u8]) -> usize {
    let count = |chunk: &[u8]| chunk.iter().map(|byte| u8::from(matches!(byte, b'{' | b'['))).sum::<u8>();
    bytes.chunks(usize::from(u8::MAX)).map(|chunk| usize::from(count(chunk))).sum()
}

fn look_closely(bytes: &[u8], limit: usize) -> Option<&'static str> {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(byte) = bytes.get(at) {
        at += 1;
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => match string_end(bytes, at) {
                Ok(end) => at = end,
                Err(why) => return Some(why),
            },
            _ => {}
        }
        if depth > limit {
            return Some("the body is nested too deeply");
        }
    }
    None
}

/// The end of the string that starts here, behind its quote.
fn string_end(bytes: &[u8], start: usize) -> Result<usize, &'static str> {
    let unit = |at: usize| {
        let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    };
    let mut at = start;
    loop {
        match bytes.get(at) {
            None => return Ok(at),
            Some(b'"') => return Ok(at + 1),
            Some(b'\\') => match unit(at) {
                Some(0) if at == start => return Err("a text begins with a NUL"),
                Some(0xd800..=0xdbff) if matches!(unit(at + 6), Some(0xdc00..=0xdfff)) => at += 12,
                Some(0xd800..=0xdfff) => return Err("half a character"),
                Some(_) => at += 6,
                None => at += 2,
            },
            Some(_) => at += 1,
        }
    }
}

fn pass<'a>(
    text: &'a str,
    paths: &[&JsonPath],
    slots: &mut [Slot<'a>],
    live: u64,
    depth: usize,
    dialect: Dialect,
) -> serde_json::Result<()> {
    let mut parser = serde_json::Deserializer::from_str(text);
    Walk { paths, slots, live, depth, dialect }.deserialize(&mut parser)?;
    parser.end()
}

/// One level of the walk: the paths that lead here, as bits.
struct Walk<'w, 'a> {
    paths: &'w [&'w JsonPath],
    slots: &'w mut [Slot<'a>],
    live: u64,
    depth: usize,
    dialect: Dialect,
}

/// Which paths go on through a key or an index, and which would do so only if lists were objects.
#[derive(Clone, Copy, Default)]
struct Hit {
    through: u64,
    confused: u64,
}

impl<'a> Walk<'_, 'a> {
    fn hit(&self, matches: impl Fn(&Step) -> (bool, bool)) -> Hit {
        bits(self.live).fold(Hit::default(), |hit, (index, bit)| {
            match self.paths[index].0.get(self.depth).map(&matches) {
                Some((true, _)) => Hit { through: hit.through | bit, ..hit },
                Some((_, true)) => Hit { confused: hit.confused | bit, ..hit },
                _ => hit,
            }
        })
    }

    fn set(&mut self, paths: u64, slot: &Slot<'a>) {
        for (index, _) in bits(paths) {
            // In PHP the last one counts; to the strict reader what was odd once stays odd.
            if self.dialect == Dialect::Php || !matches!(self.slots[index], Slot::Odd(_)) {
                self.slots[index] = slot.clone();
            }
        }
    }

    /// The part of these paths that ends here.
    fn ending(&self, paths: u64) -> u64 {
        bits(paths)
            .filter(|(index, _)| self.paths[*index].0.len() == self.depth + 1)
            .fold(0, |ending, (_, bit)| ending | bit)
    }

    fn below(&mut self, live: u64) -> Walk<'_, 'a> {
        Walk { paths: self.paths, slots: self.slots, live, depth: self.depth + 1, dialect: self.dialect }
    }

    /// Takes the whole value, for the paths that end in it and for those that go on.
    fn whole(&mut self, raw: &'a RawValue, through: u64, ending: u64) -> serde_json::Result<()> {
        let text = raw.get();
        self.set(ending, &leaf(text));
        match through & !ending {
            0 => Ok(()),
            rest => pass(text, self.paths, self.slots, rest, self.depth + 1, self.dialect),
        }
    }
}

fn bits(mut set: u64) -> impl Iterator<Item = (usize, u64)> {
    std::iter::from_fn(move || {
        let bit = set & set.wrapping_neg();
        set &= !bit;
        (bit != 0).then(|| (bit.trailing_zeros() as usize, bit))
    })
}

fn leaf(text: &str) -> Slot<'_> {
    match text.as_bytes().first() {
        Some(b'"') if memchr::memchr(b'\\', text.as_bytes()).is_none() => {
            Slot::Text(Cow::Borrowed(text.trim_matches('"')))
        }
        Some(b'"') => serde_json::from_str(text)
            .map_or(Slot::Odd("the text is not well encoded"), |text| Slot::Text(Cow::Owned(text))),
        Some(b'{' | b'[') => Slot::Odd(COMPOUND),
        Some(b't') => Slot::Bool(true),
        Some(b'f') => Slot::Bool(false),
        Some(b'n') | None => Slot::Null,
        Some(_) => Slot::Number(text),
    }
}

impl<'a> DeserializeSeed<'a> for Walk<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'a> Visitor<'a> for Walk<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'a>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut seen = 0;
        while let Some(hit) = map.next_key_seed(Key(&self))? {
            self.set(hit.confused, &Slot::Odd(CONFUSED));
            if hit.through & seen != 0 {
                let again = if self.dialect == Dialect::Php { Slot::Absent } else { Slot::Odd(TWICE) };
                self.set(hit.through, &again);
            }
            seen |= hit.through;
            match (hit.through, self.ending(hit.through)) {
                (0, _) => {
                    map.next_value::<IgnoredAny>()?;
                }
                (through, 0) => map.next_value_seed(self.below(through))?,
                (through, ending) => {
                    let raw = map.next_value()?;
                    self.whole(raw, through, ending).map_err(serde::de::Error::custom)?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut list: A) -> Result<(), A::Error> {
        for position in 0_usize.. {
            let hit = self.hit(|step| match step {
                Step::Index(index, _) => (*index == position, false),
                Step::Key(key) => (false, key.parse() == Ok(position)),
            });
            let more = match (hit.through, self.ending(hit.through)) {
                (0, _) => list.next_element::<IgnoredAny>()?.is_some(),
                (through, 0) => list.next_element_seed(self.below(through))?.is_some(),
                (through, ending) => match list.next_element()? {
                    None => false,
                    Some(raw) => {
                        self.whole(raw, through, ending).map_err(serde::de::Error::custom)?;
                        true
                    }
                },
            };
            if !more {
                break;
            }
            self.set(hit.confused, &Slot::Odd(CONFUSED));
        }
        Ok(())
    }

    /// PHP reads a letter out of a text by its index.
    fn visit_str<E>(mut self, _: &str) -> Result<(), E> {
        let hit = self.hit(|step| (false, matches!(step, Step::Index(..))));
        self.set(hit.confused, &Slot::Odd(CONFUSED));
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Compares a key with the next step of every live path, without keeping it.
struct Key<'k, 'w, 'a>(&'k Walk<'w, 'a>);

impl<'a> DeserializeSeed<'a> for Key<'_, '_, 'a> {
    type Value = Hit;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Hit, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_, '_, '_> {
    type Value = Hit;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Hit, E> {
        Ok(self.0.hit(|step| match step {
            Step::Key(wanted) => (**wanted == *key, false),
            Step::Index(_, text) => (false, **text == *key),
        }))
    }
}
