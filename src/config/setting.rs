//! How each kind of value is written: read from a tree, shown as it would be written, and explained when it is wrong.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use http::Method;
use ipnet::IpNet;

use super::{
    keys,
    tree::{Node, Value},
};
use crate::{
    callback::Channel,
    dispatch::breaker,
    provider::{
        contract::SecretKind,
        extract::{Dialect, Place},
        inquiry::Inquire,
    },
    rule::{
        learn::{AnswerPlace, NoAnswerPlace},
        matcher::{HeaderPattern, HostPattern},
    },
    transaction::policy::{
        AnswerBy, IdentityBy, LockBy, OnDuplicate, OnRepeatReturn, OnUnknown, Order, Policy, Retry, Treatment,
    },
};

/// Ten years: longer times are a slip of the pen, and would overflow a clock somewhere.
const TIME_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Why a value cannot stand where it stands, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

impl Problem {
    /// A problem in words.
    pub fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }

    fn kind(node: &Node, expected: &str) -> Self {
        Self::new(format!("{} stands here: {node}", node.kind()), format!("write {expected}"))
    }
}

/// A value of the configuration.
pub trait Setting: Sized {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// When something else stands there.
    fn read(node: &Node) -> Result<Self, Problem>;

    /// As it would be written.
    fn show(&self) -> String;
}

/// A choice among words.
pub trait Word: Copy + PartialEq + 'static {
    /// Each word and what it means; several may mean the same.
    const WORDS: &'static [(&'static str, Self)];
}

impl<W: Word> Setting for W {
    fn read(node: &Node) -> Result<Self, Problem> {
        let words = || W::WORDS.iter().map(|(word, _)| *word);
        let choice = words().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" or ");
        let text = node.as_text().ok_or_else(|| Problem::kind(node, &choice))?;
        if let Some((_, meaning)) = W::WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(*meaning);
        }
        let meant = keys::nearest(text, words()).map_or_else(String::new, |word| format!(", did you mean {word:?}?"));
        Err(Problem::new(format!("{text:?} is no choice here{meant}"), format!("write {choice}")))
    }

    fn show(&self) -> String {
        let word = W::WORDS.iter().find(|(_, meaning)| meaning == self);
        word.map_or_else(String::new, |(word, _)| format!("{word:?}"))
    }
}

impl Word for Channel {
    const WORDS: &'static [(&'static str, Self)] = &[("webhook", Self::Webhook), ("return", Self::Return)];
}

impl Word for Dialect {
    const WORDS: &'static [(&'static str, Self)] = &[("strict", Self::Strict), ("php", Self::Php)];
}

impl Word for LockBy {
    const WORDS: &'static [(&'static str, Self)] = &[("names", Self::Names), ("upstream", Self::Upstream)];
}

impl Word for Treatment {
    const WORDS: &'static [(&'static str, Self)] =
        &[("forward", Self::Forward), ("ack", Self::Ack), ("refuse", Self::Refuse), ("review", Self::Review)];
}

impl Word for OnDuplicate {
    const WORDS: &'static [(&'static str, Self)] =
        &[("replay", Self::Replay), ("forward", Self::Forward), ("ack", Self::Ack), ("refuse", Self::Refuse)];
}

impl Word for AnswerBy {
    const WORDS: &'static [(&'static str, Self)] = &[("upstream", Self::Upstream), ("accept", Self::Accept)];
}

/// One step of what follows where nobody knows.
#[derive(Clone, Copy, PartialEq)]
enum Unsure {
    Confirm,
    Resend,
    Review,
}

impl Word for Unsure {
    const WORDS: &'static [(&'static str, Self)] =
        &[("confirm", Self::Confirm), ("resend", Self::Resend), ("review", Self::Review)];
}

impl Setting for OnUnknown {
    /// A word, or "confirm" and what follows where nobody can.
    fn read(node: &Node) -> Result<Self, Problem> {
        let steps = match &node.value {
            Value::List(items) => items.iter().map(Unsure::read).collect::<Result<_, _>>()?,
            _ => vec![Unsure::read(node)?],
        };
        match steps[..] {
            [Unsure::Resend] => Ok(Self::Resend),
            [Unsure::Review] => Ok(Self::Review),
            [Unsure::Confirm] | [Unsure::Confirm, Unsure::Review] => Ok(Self::Confirm),
            [Unsure::Confirm, Unsure::Resend] => Ok(Self::ConfirmElseResend),
            _ => {
                let remedy = "write \"confirm\", \"resend\" or \"review\", or [\"confirm\", \"resend\"]";
                Err(Problem::new("these do not follow on each other", remedy))
            }
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Resend => "\"resend\"",
            Self::Review => "\"review\"",
            Self::Confirm => "\"confirm\"",
            Self::ConfirmElseResend => "[\"confirm\", \"resend\"]",
        }
        .to_owned()
    }
}

impl Word for OnRepeatReturn {
    const WORDS: &'static [(&'static str, Self)] = &[("forward", Self::Forward), ("redirect", Self::Redirect)];
}

impl Word for Inquire {
    const WORDS: &'static [(&'static str, Self)] = &[("unclear", Self::Unclear), ("always", Self::Always)];
}

impl Word for Order {
    const WORDS: &'static [(&'static str, Self)] = &[("passing", Self::Passing), ("strict", Self::Strict)];
}

impl Word for SecretKind {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("hmac", Self::Hmac),
        ("basic", Self::Basic),
        ("public_key", Self::PublicKey),
        ("certificate", Self::Certificate),
        ("api_key", Self::ApiKey),
        ("token", Self::Token),
    ];
}

impl Setting for bool {
    fn read(node: &Node) -> Result<Self, Problem> {
        match node.value {
            Value::Bool(truth) => Ok(truth),
            _ => Err(Problem::kind(node, "true or false")),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for String {
    fn read(node: &Node) -> Result<Self, Problem> {
        node.as_text().map(str::to_owned).ok_or_else(|| Problem::kind(node, "a text in quotes"))
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Setting for PathBuf {
    fn read(node: &Node) -> Result<Self, Problem> {
        match node.as_text() {
            Some(text) if !text.is_empty() => Ok(text.into()),
            _ => Err(Problem::kind(node, "the name of a file")),
        }
    }

    fn show(&self) -> String {
        format!("{:?}", self.display().to_string())
    }
}

impl Setting for usize {
    fn read(node: &Node) -> Result<Self, Problem> {
        match node.value {
            Value::Integer(number) => {
                Self::try_from(number).map_err(|_| Problem::kind(node, "a number that is not negative"))
            }
            _ => Err(Problem::kind(node, "a whole number")),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A bound: at least one.
impl Setting for NonZeroUsize {
    fn read(node: &Node) -> Result<Self, Problem> {
        Self::new(usize::read(node)?).ok_or_else(|| Problem::kind(node, "a number above zero"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A bound that may be left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(pub Option<NonZeroUsize>);

impl Setting for Limit {
    fn read(node: &Node) -> Result<Self, Problem> {
        if node.as_text() == Some("unlimited") {
            return Ok(Self(None));
        }
        let number = NonZeroUsize::read(node);
        number.map(|n| Self(Some(n))).map_err(|_| Problem::kind(node, "a number above zero or \"unlimited\""))
    }

    fn show(&self) -> String {
        self.0.map_or_else(|| "\"unlimited\"".to_owned(), |n| n.to_string())
    }
}

/// A number of bytes: `1048576`, `"1MiB"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub usize);

const UNITS: &[(&str, usize)] = &[
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
    ("", 1),
];

impl Setting for Size {
    fn read(node: &Node) -> Result<Self, Problem> {
        let no = || Problem::kind(node, "a size such as \"1MiB\", \"512KiB\" or a number of bytes, above zero");
        let bytes = match &node.value {
            Value::Integer(number) => usize::try_from(*number).ok(),
            Value::Text(text) => size(text),
            _ => None,
        };
        bytes.filter(|&bytes| bytes > 0).map(Self).ok_or_else(no)
    }

    fn show(&self) -> String {
        let exact = UNITS[..3].iter().find(|(_, unit)| self.0.is_multiple_of(*unit));
        exact.map_or_else(|| self.0.to_string(), |(name, unit)| format!("\"{}{name}\"", self.0 / unit))
    }
}

fn size(text: &str) -> Option<usize> {
    let (name, unit) = UNITS.iter().find(|(name, _)| text.ends_with(name))?;
    text.strip_suffix(name)?.trim().parse::<usize>().ok()?.checked_mul(*unit)
}

impl Setting for Duration {
    fn read(node: &Node) -> Result<Self, Problem> {
        let form = "a time such as \"2s\", \"250ms\" or \"4d\"";
        let text = node.as_text().ok_or_else(|| Problem::kind(node, form))?;
        let time = humantime::parse_duration(text)
            .map_err(|why| Problem::new(format!("{text:?} is no time: {why}"), format!("write {form}")))?;
        if time > TIME_MAX {
            return Err(Problem::new(format!("{text:?} is too long"), "write at most \"10years\""));
        }
        Ok(time)
    }

    fn show(&self) -> String {
        format!("\"{}\"", humantime::format_duration(*self))
    }
}

impl Setting for SocketAddr {
    fn read(node: &Node) -> Result<Self, Problem> {
        let form = "an address with its port, such as \"127.0.0.1:8080\" or \"[::]:8080\"";
        node.as_text().and_then(|text| text.parse().ok()).ok_or_else(|| Problem::kind(node, form))
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Setting for IpNet {
    fn read(node: &Node) -> Result<Self, Problem> {
        let form = "a network such as \"10.0.0.0/8\" or \"2001:db8::/32\", or one address";
        let text = node.as_text().ok_or_else(|| Problem::kind(node, form))?;
        let address = || text.parse::<std::net::IpAddr>().ok().map(Self::from);
        text.parse().ok().or_else(address).ok_or_else(|| Problem::kind(node, form))
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Setting for Method {
    fn read(node: &Node) -> Result<Self, Problem> {
        let form = "a method in capitals, such as \"POST\"";
        let known = node.as_text().filter(|text| text.bytes().all(|b| b.is_ascii_uppercase()));
        known.and_then(|text| text.parse().ok()).ok_or_else(|| Problem::kind(node, form))
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Setting for HostPattern {
    fn read(node: &Node) -> Result<Self, Problem> {
        let form = "a host such as \"pay.example.org\" or \"*.example.org\"";
        node.as_text().and_then(Self::parse).ok_or_else(|| Problem::kind(node, form))
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Setting for HeaderPattern {
    fn read(node: &Node) -> Result<Self, Problem> {
        let form = "the name of a header, or \"Name: value\"";
        node.as_text().and_then(Self::parse).ok_or_else(|| Problem::kind(node, form))
    }

    fn show(&self) -> String {
        format!("{self:?}")
    }
}

impl Setting for Place {
    fn read(node: &Node) -> Result<Self, Problem> {
        let text = node.as_text().ok_or_else(|| Problem::kind(node, "a place such as \"form:id\""))?;
        text.parse().map_err(|no: crate::provider::extract::NoPlace| {
            Problem::new(no.to_string(), "see the places in config.toml")
        })
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Setting for AnswerPlace {
    fn read(node: &Node) -> Result<Self, Problem> {
        let text = node.as_text().ok_or_else(|| Problem::kind(node, "a place such as \"set-cookie:session\""))?;
        let remedy = "see the places of `learn` in config.toml";
        text.parse().map_err(|no: NoAnswerPlace| Problem::new(no.to_string(), remedy))
    }

    fn show(&self) -> String {
        format!("\"{self}\"")
    }
}

/// A list of one may be written without its brackets.
impl<T: Setting> Setting for Vec<T> {
    fn read(node: &Node) -> Result<Self, Problem> {
        match &node.value {
            Value::List(items) => items.iter().map(T::read).collect(),
            _ => T::read(node).map(|one| vec![one]),
        }
    }

    fn show(&self) -> String {
        format!("[{}]", self.iter().map(Setting::show).collect::<Vec<_>>().join(", "))
    }
}

/// What `identity` says: a word, or places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A way that needs nothing else.
    By(IdentityBy),
    /// What stands in these places.
    Places(Vec<Place>),
}

impl Setting for Identity {
    fn read(node: &Node) -> Result<Self, Problem> {
        let by = match node.as_text() {
            Some("auto") => IdentityBy::Auto,
            Some("event") => IdentityBy::Event,
            Some("state") => IdentityBy::State,
            Some("reference") => IdentityBy::Reference,
            Some("body") => IdentityBy::Body,
            _ => return Self::places(node),
        };
        Ok(Self::By(by))
    }

    fn show(&self) -> String {
        match self {
            Self::By(by) => format!("\"{}\"", format!("{by:?}").to_lowercase()),
            Self::Places(places) => places.show(),
        }
    }
}

impl Identity {
    fn places(node: &Node) -> Result<Self, Problem> {
        let remedy = "write \"event\", \"state\", \"reference\", \"body\" or a list of places";
        match Vec::<Place>::read(node) {
            Ok(places) if !places.is_empty() => Ok(Self::Places(places)),
            Ok(_) => Err(Problem::new("an empty list tells nothing apart", remedy)),
            Err(problem) => Err(Problem::new(problem.message, remedy)),
        }
    }
}

impl Setting for Retry {
    fn read(node: &Node) -> Result<Self, Problem> {
        let form = "{ first = \"5s\", longest = \"1h\", attempts = 12 }";
        let table = node.as_table().ok_or_else(|| Problem::kind(node, form))?;
        let mut retry = Policy::default().retry;
        for (key, value) in table {
            match key.as_str() {
                "first" => retry.first = Duration::read(value)?,
                "longest" => retry.longest = Duration::read(value)?,
                "attempts" => retry.attempts = u32::try_from(NonZeroUsize::read(value)?.get()).unwrap_or(u32::MAX),
                _ => return Err(Problem::new(format!("a retry has no `{key}`"), format!("write {form}"))),
            }
        }
        if retry.first.is_zero() || retry.longest < retry.first {
            return Err(Problem::new("the first wait is zero, or longer than the longest", format!("write {form}")));
        }
        Ok(retry)
    }

    fn show(&self) -> String {
        let (first, longest) = (self.first.show(), self.longest.show());
        format!("{{ first = {first}, longest = {longest}, attempts = {} }}", self.attempts)
    }
}

/// A pause of zero would be none.
impl Setting for breaker::Options {
    fn read(node: &Node) -> Result<Self, Problem> {
        let form = "{ failures = 5, first = \"1s\", longest = \"30s\" }, or failures = 0 to turn it off";
        let table = node.as_table().ok_or_else(|| Problem::kind(node, form))?;
        let mut breaker = Self::default();
        for (key, value) in table {
            match key.as_str() {
                "failures" => breaker.failures = u32::try_from(usize::read(value)?).unwrap_or(u32::MAX),
                "first" => breaker.first = Duration::read(value)?,
                "longest" => breaker.longest = Duration::read(value)?,
                _ => return Err(Problem::new(format!("a breaker has no `{key}`"), format!("write {form}"))),
            }
        }
        if breaker.first.is_zero() || breaker.longest < breaker.first {
            return Err(Problem::new("the first pause is zero, or longer than the longest", format!("write {form}")));
        }
        Ok(breaker)
    }

    fn show(&self) -> String {
        let (first, longest) = (self.first.show(), self.longest.show());
        format!("{{ failures = {}, first = {first}, longest = {longest} }}", self.failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Setting>(text: &str) -> Result<T, Problem> {
        T::read(&super::super::tree::parse(&format!("x = {text}")).0["x"])
    }

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in
            [("'1MiB'", 1 << 20), ("4096", 4096), ("'10MB'", 10_000_000), ("'64 KiB'", 65536), ("'5'", 5)]
        {
            assert_eq!(read(text), Ok(Size(bytes)), "{text}");
        }
        for no in ["0", "'0MiB'", "-1", "'MiB'", "'1.5MiB'", "'99999999999GiB'", "true"] {
            assert!(read::<Size>(no).is_err(), "{no}");
        }
        assert_eq!((Size(1 << 20).show(), Size(1000).show()), ("\"1MiB\"".into(), "1000".into()));
    }

    #[test]
    fn times_are_read_and_shown() {
        assert_eq!(read("'250ms'"), Ok(Duration::from_millis(250)));
        assert_eq!(read("'4d'"), Ok(Duration::from_secs(4 * 24 * 3600)));
        assert_eq!(read("'0s'"), Ok(Duration::ZERO));
        for no in ["2", "'2'", "'-2s'", "'soon'", "'11years'", "''"] {
            assert!(read::<Duration>(no).is_err(), "{no}");
        }
        assert_eq!(Duration::from_secs(30).show(), "\"30s\"");
    }

    #[test]
    fn a_wrong_word_is_answered_with_the_right_ones() {
        let problem = read::<Treatment>("'fowrard'").unwrap_err();
        assert!(problem.message.contains("did you mean \"forward\"?"), "{problem:?}");
        assert!(problem.remedy.contains("\"review\""));
        assert!(read::<Treatment>("1").unwrap_err().message.contains("a number"));
    }

    #[test]
    fn networks_and_limits_have_short_forms() {
        assert_eq!(read::<IpNet>("'192.0.2.1'").unwrap().to_string(), "192.0.2.1/32");
        assert_eq!(read("'unlimited'"), Ok(Limit(None)));
        assert_eq!(read("4"), Ok(Limit(NonZeroUsize::new(4))));
        assert!(read::<Limit>("0").is_err());
        assert_eq!(read::<Vec<String>>("'one'"), Ok(vec!["one".to_owned()]));
    }
}
