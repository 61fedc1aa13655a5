//! What the app's own answers tell of a payment: under which names it will be spoken of, and with which session its payer
//! will come back.
//!
//! Only the head of an answer is read. What is not certainly a name is none, and that one could not be read is said, for
//! whoever may have begun a payment without a name must not be taken for a stranger to any.

use std::{fmt, str::FromStr, sync::Arc};

use http::{
    HeaderMap, HeaderName, Method, StatusCode, Uri,
    header::{COOKIE, LOCATION, SET_COOKIE},
};

use super::matcher::HostPattern;
use crate::{
    callback::RequestView,
    provider::extract::{Dialect, Found, Place, Reader},
};

/// Where a name stands in an answer: `location:order`, `location:https://pay.example.org/**/{id}`, `set-cookie:session`,
/// `header:X-Order`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum AnswerPlace {
    /// A parameter in the query of the address to which the answer sends the browser.
    Parameter(String),
    /// A part of that address.
    Address(Address),
    /// A header field.
    Header(HeaderName),
    /// The value of a cookie that the answer sets; `*` in front stands for any beginning of its name. It is a session, and
    /// never a name of the payment.
    SetCookie(Arc<str>),
}

/// The text is no place in an answer; the message says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoAnswerPlace(String);

impl FromStr for AnswerPlace {
    type Err = NoAnswerPlace;

    fn from_str(text: &str) -> Result<Self, NoAnswerPlace> {
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        match (kind, name) {
            (_, "") => {}
            ("location", name) if name.contains(['/', '{']) => return name.parse().map(Self::Address),
            ("location", name) => return Ok(Self::Parameter(name.to_owned())),
            ("set-cookie", name) if is_token(name) => return Ok(Self::SetCookie(name.into())),
            ("header", name) => {
                let name = HeaderName::from_bytes(name.as_bytes());
                return name.map(Self::Header).map_err(|_| NoAnswerPlace(format!("`{text}` names no header field")));
            }
            _ => {}
        }
        Err(NoAnswerPlace(format!(
            "`{text}` names no place in an answer: write location:PARAMETER, location:https://HOST/**/{{id}}, \
             set-cookie:NAME or header:NAME"
        )))
    }
}

fn is_token(name: &str) -> bool {
    HeaderName::from_bytes(name.as_bytes()).is_ok()
}

impl fmt::Display for AnswerPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Parameter(name) => write!(f, "location:{name}"),
            Self::Address(address) => write!(f, "location:{}", address.source),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::SetCookie(name) => write!(f, "set-cookie:{name}"),
        }
    }
}

/// A pattern for addresses with one name in it: `https://*.example.org/pay/**/{id} as tr_{id}`.
///
/// `*` is one segment, `**` any number of them, `{id}` letters, digits and `_`. What follows `as` is what the name is
/// made of; without it the name is what stands at the braces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    source: Arc<str>,
    /// Scheme and host; of any where there is none.
    origin: Option<(String, HostPattern)>,
    path: Vec<Segment>,
    query: Vec<(String, Text)>,
    /// What stands before and behind the name.
    made: (String, String),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Segment {
    One,
    Many,
    Text(Text),
}

/// A literal, or what stands around the braces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Text {
    Literal(String),
    Around(String, String),
}

impl Text {
    fn parse(text: &str) -> Option<(Self, Option<&str>)> {
        match text.split_once('{') {
            None => (!text.contains('}')).then(|| (Self::Literal(text.to_owned()), None)),
            Some((before, rest)) => {
                let (name, behind) = rest.split_once('}')?;
                let fits = is_word(name) && !before.contains('}') && !behind.contains(['{', '}']);
                fits.then(|| (Self::Around(before.to_owned(), behind.to_owned()), Some(name)))
            }
        }
    }

    /// Whether a text fits, and the name in it.
    fn read<'t>(&self, text: &'t str) -> Option<Option<&'t str>> {
        match self {
            Self::Literal(wanted) => (wanted == text).then_some(None),
            Self::Around(before, behind) => {
                let name = text.strip_prefix(before.as_str())?.strip_suffix(behind.as_str())?;
                is_word(name).then_some(Some(name))
            }
        }
    }
}

/// Letters, digits and `_`, which nobody encodes or reads in two ways.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

impl FromStr for Address {
    type Err = NoAnswerPlace;

    fn from_str(source: &str) -> Result<Self, NoAnswerPlace> {
        let no = |why: &str| {
            let example = "write location:https://pay.example.org/**/{id} as tr_{id}";
            NoAnswerPlace(format!("`location:{source}`: {why}; {example}"))
        };
        let (address, made) = source.split_once(" as ").map_or((source, None), |(a, made)| (a, Some(made)));
        let (origin, rest) = match address.split_once("://") {
            None => (None, address),
            Some((scheme, rest)) => {
                let at = rest.find('/').ok_or_else(|| no("it has no path"))?;
                let host = HostPattern::parse(&rest[..at]).ok_or_else(|| no("its host is none"))?;
                (Some((scheme.to_ascii_lowercase(), host)), &rest[at..])
            }
        };
        let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
        let mut names = Vec::new();
        let mut text = |text: &str| {
            let (read, name) = Text::parse(text).ok_or_else(|| no("a name stands in braces: {id}"))?;
            names.extend(name.map(ToOwned::to_owned));
            Ok(read)
        };
        let path = path.strip_prefix('/').ok_or_else(|| no("a path begins with a slash"))?;
        let segment = |part| match part {
            "*" => Ok(Segment::One),
            "**" => Ok(Segment::Many),
            part => text(part).map(Segment::Text),
        };
        let path = path.split('/').map(segment).collect::<Result<Vec<_>, _>>()?;
        let parameter = |pair: &str| {
            let (name, value) = pair.split_once('=').ok_or_else(|| no("a parameter is NAME=TEXT"))?;
            Ok((name.to_owned(), text(value)?))
        };
        let query = query.iter().flat_map(|query| query.split('&')).map(parameter).collect::<Result<Vec<_>, _>>()?;
        let [name] = &names[..] else { return Err(no("exactly one name stands in it")) };
        let made = match made.map(Text::parse) {
            None => (String::new(), String::new()),
            Some(Some((Text::Around(before, behind), Some(same)))) if same == name => (before, behind),
            Some(_) => return Err(no("what follows `as` holds the same name")),
        };
        if path.iter().filter(|segment| **segment == Segment::Many).count() > 1 {
            return Err(no("`**` stands once at most"));
        }
        Ok(Self { source: source.into(), origin, path, query, made })
    }
}

impl Address {
    fn read(&self, address: &Uri) -> Option<String> {
        if let Some((scheme, host)) = &self.origin
            && !(address.scheme_str() == Some(scheme) && host.matches(address.authority()?.as_str()))
        {
            return None;
        }
        let mut found = self.walk(address.path().strip_prefix('/')?)?;
        let no_fields = HeaderMap::new();
        for (name, wanted) in &self.query {
            let Found::One(value) = read(Place::Query(name.clone()), address, &no_fields) else { return None };
            found = wanted.read(&value)?.map(ToOwned::to_owned).or(found);
        }
        let (before, behind) = &self.made;
        found.map(|name| format!("{before}{name}{behind}"))
    }

    /// Whether the path fits, and the name in it.
    fn walk(&self, path: &str) -> Option<Option<String>> {
        let parts: Vec<_> = path.split('/').collect();
        let at = self.path.iter().position(|segment| *segment == Segment::Many);
        let (head, tail) = at.map_or((&self.path[..], &self.path[..0]), |at| (&self.path[..at], &self.path[at + 1..]));
        let fixed = head.len() + tail.len();
        if parts.len() < fixed || at.is_none() && parts.len() > fixed {
            return None;
        }
        let ends = parts[..head.len()].iter().chain(&parts[parts.len() - tail.len()..]);
        let mut found = None;
        for (segment, part) in head.iter().chain(tail).zip(ends) {
            match segment {
                Segment::One | Segment::Many => {}
                Segment::Text(text) => found = text.read(part)?.map(ToOwned::to_owned).or(found),
            }
        }
        Some(found)
    }
}

/// What is read from the answers of a route, by kind of name; of a kind the first place that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Learn {
    /// Names of the payment: `reference:mollie`, `order`.
    pub names: Vec<(Arc<str>, Vec<AnswerPlace>)>,
    /// Sessions: the cookies that may hold one.
    pub sessions: Vec<(Arc<str>, Vec<Arc<str>>)>,
}

/// What an answer told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// The names, each with its kind.
    pub names: Vec<(Arc<str>, String)>,
    /// Whether the browser was sent away to somebody of whom no name could be read.
    pub unread: bool,
    /// Whether something else may have been begun that shows itself in no head.
    pub unseen: bool,
}

impl Learn {
    /// Whether nothing is read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.names.is_empty() && self.sessions.is_empty()
    }

    /// Adds what another rule reads, of kinds that are not there yet.
    pub fn add(&mut self, other: &Self) {
        let names = other.names.iter().filter(|(kind, _)| !self.has(kind)).cloned().collect::<Vec<_>>();
        let sessions = other.sessions.iter().filter(|(kind, _)| !self.has(kind)).cloned().collect::<Vec<_>>();
        self.names.extend(names);
        self.sessions.extend(sessions);
    }

    fn has(&self, kind: &str) -> bool {
        let mut kinds = self.names.iter().map(|(kind, _)| kind).chain(self.sessions.iter().map(|(kind, _)| kind));
        kinds.any(|known| **known == *kind)
    }

    /// Every kind that is read, with its places, as they are written in a rule.
    pub fn list(&self) -> impl Iterator<Item = (&str, Vec<String>)> {
        let names = self.names.iter().map(|(kind, places)| (&**kind, places.iter().map(ToString::to_string).collect()));
        let cookie = |cookie: &Arc<str>| AnswerPlace::SetCookie(Arc::clone(cookie)).to_string();
        let sessions = self.sessions.iter().map(move |(kind, cookies)| (&**kind, cookies.iter().map(cookie).collect()));
        names.chain(sessions).filter(|(_, places): &(&str, Vec<String>)| !places.is_empty())
    }

    /// Reads the head of an answer to a request by `method` that was sent to `host`.
    #[must_use]
    pub fn read(&self, method: &Method, host: &str, status: StatusCode, headers: &HeaderMap) -> Told {
        let sent = Sent::of(status, headers, host);
        let name = |(kind, places): &(Arc<str>, Vec<AnswerPlace>)| {
            let value = places.iter().find_map(|place| match place {
                AnswerPlace::Parameter(name) => text(read(Place::Query(name.clone()), sent.address()?, headers)),
                AnswerPlace::Address(address) => address.read(sent.address()?),
                AnswerPlace::Header(name) => text(read(Place::Header(name.to_string()), &Uri::default(), headers)),
                AnswerPlace::SetCookie(_) => None,
            });
            value.map(|value| (Arc::clone(kind), value))
        };
        let names: Vec<_> = self.names.iter().filter_map(name).collect();
        Told {
            unread: names.is_empty() && matches!(sent, Sent::Away(_)),
            unseen: names.is_empty() && !method.is_safe() && matches!(sent, Sent::Nowhere),
            names,
        }
    }

    /// The sessions with which a request came: kind and value of each cookie, as the browser wrote it.
    pub fn sessions_of<'h>(&self, headers: &'h HeaderMap) -> Vec<(Arc<str>, &'h [u8])> {
        let cookies = headers.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b';'));
        self.sessions_in(cookies.filter_map(pair))
    }

    /// The sessions that an answer gives: what the browser brings back from now on.
    pub fn sessions_set<'h>(&self, headers: &'h HeaderMap) -> Vec<(Arc<str>, &'h [u8])> {
        let kept = headers.get_all(SET_COOKIE).iter().map(http::HeaderValue::as_bytes).filter(|line| !is_removal(line));
        let cookies = kept.filter_map(|line| line.split(|byte| *byte == b';').next());
        self.sessions_in(cookies.filter_map(pair))
    }

    fn sessions_in<'h>(&self, cookies: impl Iterator<Item = (&'h [u8], &'h [u8])>) -> Vec<(Arc<str>, &'h [u8])> {
        let mut found = Vec::new();
        for (name, value) in cookies {
            let kind = self.sessions.iter().find(|(_, cookies)| cookies.iter().any(|cookie| is_called(cookie, name)));
            if let Some((kind, _)) = kind.filter(|_| !value.is_empty()) {
                found.push((Arc::clone(kind), value));
            }
        }
        found
    }
}

/// Where an answer sends the browser.
enum Sent {
    Nowhere,
    /// To the app itself.
    On(Option<Uri>),
    /// To somebody else, or nobody can tell where.
    Away(Option<Uri>),
}

impl Sent {
    fn of(status: StatusCode, headers: &HeaderMap, host: &str) -> Self {
        let mut lines = headers.get_all(LOCATION).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Self::Nowhere,
            _ if !status.is_redirection() && status != StatusCode::CREATED => Self::Nowhere,
            (Some(line), None) => match line.to_str().ok().and_then(|text| text.trim().parse::<Uri>().ok()) {
                Some(address) => match address.authority() {
                    // `//host/path` is somewhere else too, and `Uri` takes it for a path.
                    None if address.path().starts_with("//") => Self::Away(None),
                    None => Self::On(Some(address)),
                    Some(there) if same_host(there.as_str(), host) => Self::On(Some(address)),
                    Some(_) => Self::Away(Some(address)),
                },
                None => Self::Away(None),
            },
            (Some(_), Some(_)) => Self::Away(None),
        }
    }

    const fn address(&self) -> Option<&Uri> {
        match self {
            Self::Nowhere => None,
            Self::On(address) | Self::Away(address) => address.as_ref(),
        }
    }
}

/// Whatever the port: an app that does not know its own still means itself.
fn same_host(there: &str, host: &str) -> bool {
    let name = |host: &str| http::uri::Authority::from_str(host).map(|host| host.host().to_ascii_lowercase());
    matches!((name(there), name(host)), (Ok(there), Ok(host)) if there == host)
}

/// An answer's fields and address are read as a request's are: what can be read in two ways is none.
fn read<'a>(place: Place, address: &'a Uri, headers: &'a HeaderMap) -> Found<'a> {
    let view = RequestView { method: &Method::GET, uri: address, headers, body: &[], segments: &[] };
    Reader::new(&view, Dialect::Strict).read(&place)
}

fn text(found: Found<'_>) -> Option<String> {
    match found {
        Found::One(text) => Some(text.into_owned()),
        Found::Absent | Found::Empty | Found::Ambiguous(_) => None,
    }
}

fn is_called(pattern: &str, name: &[u8]) -> bool {
    match pattern.strip_prefix('*') {
        Some(end) => name.ends_with(end.as_bytes()),
        None => name == pattern.as_bytes(),
    }
}

fn pair(cookie: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b'=', cookie)?;
    Some((cookie[..at].trim_ascii(), cookie[at + 1..].trim_ascii()))
}

/// A cookie that is set in order to be taken away. Its value is the same for everybody, and comes back from nobody.
fn is_removal(line: &[u8]) -> bool {
    let attributes = line.split(|byte| *byte == b';').skip(1).filter_map(pair);
    let says = |name: &[u8], wanted: &str| name.eq_ignore_ascii_case(wanted.as_bytes());
    attributes.into_iter().any(|(name, value)| {
        says(name, "max-age") && value.iter().all(|byte| matches!(byte, b'0' | b'-'))
            || says(name, "max-age") && value.starts_with(b"-")
            || says(name, "expires") && memchr::memmem::find(value, b"1970").is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> AnswerPlace {
        text.parse().unwrap()
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    /// What one place finds behind this address.
    fn at(pattern: &str, location: &str) -> Option<String> {
        let learn = Learn { names: vec![("order".into(), vec![place(pattern)])], ..Learn::default() };
        let told = learn.read(&Method::POST, "shop.example", StatusCode::FOUND, &headers(&[("location", location)]));
        told.names.into_iter().next().map(|(_, value)| value)
    }

    #[test]
    fn a_name_is_read_out_of_the_address_to_which_the_browser_is_sent() {
        let mollie = "location:https://*.mollie.com/**/{id} as tr_{id}";
        let found = Some("tr_7UhSN1zuXS".to_owned());
        assert_eq!(at(mollie, "https://www.mollie.com/checkout/select-issuer/ideal/7UhSN1zuXS"), found);
        assert_eq!(at(mollie, "https://www.mollie.com/payscreen/select-method/7UhSN1zuXS?locale=nl_NL#top"), found);
        assert_eq!(at(mollie, "https://www.mollie.com/7UhSN1zuXS"), found);
        let flow = "location:https://*.gocardless.com/billing/static/flow?id={id}";
        assert_eq!(at(flow, "https://pay.gocardless.com/billing/static/flow?id=BRF1"), Some("BRF1".into()));
        assert_eq!(at("location:order", "/thanks?x=1&order=A-7%2F8"), Some("A-7/8".into()));
        assert_eq!(at("location:/pay/*/p-{n}.html", "https://any.example/pay/eur/p-12.html"), Some("12".into()));
    }

    #[test]
    fn what_is_not_surely_the_name_is_none() {
        let mollie = "location:https://*.mollie.com/**/{id} as tr_{id}";
        for elsewhere in [
            "https://www.mollie.com/checkout/test-mode?method=ideal&token=3.x2z",
            "https://www.mollie.com/checkout/select-method/7UhS%4E1zuXS",
            "https://www.mollie.com/checkout/select-method/7UhSN1zuXS/",
            "https://www.mollie.com/",
            "http://www.mollie.com/checkout/select-method/7UhSN1zuXS",
            "https://www.mollie.com.evil.example/checkout/select-method/7UhSN1zuXS",
            "https://evil.example/https://www.mollie.com/checkout/select-method/7UhSN1zuXS",
            "https://www.mollie.com@evil.example/x/7UhSN1zuXS",
            "//www.mollie.com/checkout/select-method/7UhSN1zuXS",
            "/checkout/select-method/7UhSN1zuXS",
        ] {
            assert_eq!(at(mollie, elsewhere), None, "{elsewhere}");
        }
        let flow = "location:https://*.gocardless.com/billing/static/flow?id={id}";
        assert_eq!(at(flow, "https://pay.gocardless.com/billing/static/flow?id=BRF1&id=BRF2"), None);
        assert_eq!(at(flow, "https://pay.gocardless.com/flow/RE123"), None);
        assert_eq!(at("location:order", "/thanks?order="), None);
    }

    #[test]
    fn a_pattern_that_says_too_little_or_too_much_is_refused() {
        for text in [
            "location:",
            "location",
            "place:x",
            "set-cookie:a b",
            "header:a b",
            "location:https://pay.example",
            "location:https://pay.example/a/b",
            "location:https://pay.example/{a}/{b}",
            "location:https://pay.example/**/x/**/{a}",
            "location:https://pay.example/{a} as {b}",
            "location:https://pay.example/{a} as x",
            "location:https://pay.example/{a-b}",
            "location:https://a b/{a}",
            "location:https://pay.example/{a}?b",
        ] {
            assert!(text.parse::<AnswerPlace>().is_err(), "{text}");
        }
        for text in ["location:order", "set-cookie:sid", "header:x-order", "location:https://*.a.b/**/{id} as tr_{id}"]
        {
            assert_eq!(place(text).to_string(), text);
        }
    }

    #[test]
    fn whoever_was_sent_away_under_no_name_is_not_forgotten() {
        let learn = Learn { names: vec![("order".into(), vec![place("location:order")])], ..Learn::default() };
        let told = |method: Method, status: u16, location: &str| {
            let fields = if location.is_empty() { HeaderMap::new() } else { headers(&[("location", location)]) };
            let told = learn.read(&method, "Shop.example:8080", StatusCode::from_u16(status).unwrap(), &fields);
            (told.unread, told.unseen)
        };
        assert_eq!(told(Method::POST, 302, "https://pay.example/x"), (true, false));
        assert_eq!(told(Method::GET, 302, "//pay.example/x"), (true, false));
        assert_eq!(told(Method::GET, 302, "https://pay.example/x?order=1"), (false, false));
        assert_eq!(told(Method::GET, 302, "https://shop.example/x"), (false, false));
        assert_eq!(told(Method::POST, 302, "/x"), (false, false));
        assert_eq!(told(Method::POST, 200, ""), (false, true));
        assert_eq!(told(Method::POST, 200, "https://pay.example/x"), (false, true));
        assert_eq!(told(Method::GET, 200, ""), (false, false));
    }

    #[test]
    fn a_session_is_what_the_browser_sent_and_what_it_will_send() {
        let learn = Learn { sessions: vec![("session".into(), vec!["sid".into()])], ..Learn::default() };
        let values = |found: Vec<(Arc<str>, &[u8])>| {
            found.into_iter().map(|(_, value)| String::from_utf8(value.to_vec()).unwrap()).collect::<Vec<_>>()
        };
        let sent = headers(&[("cookie", "a=b; sid=one; xsid=no"), ("cookie", "sid=two=2")]);
        assert_eq!(values(learn.sessions_of(&sent)), ["one", "two=2"]);
        let set = |line: &str| values(learn.sessions_set(&headers(&[("set-cookie", line)])));
        assert_eq!(
            set("sid=new%3D; expires=Tue, 01-Dec-2026 10:00:00 GMT; Max-Age=7200; path=/; httponly"),
            ["new%3D"]
        );
        let any = Learn { sessions: vec![("session".into(), vec!["*_session".into()])], ..Learn::default() };
        assert_eq!(values(any.sessions_of(&headers(&[("cookie", "a_session=1; session=2; b_session=3")]))), ["1", "3"]);
        for removed in [
            "sid=; path=/",
            "sid=deleted; expires=Thu, 01-Jan-1970 00:00:01 GMT; Max-Age=0",
            "sid=gone; Max-Age=-1",
            "sid=gone; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
            "other=x",
            "sid",
        ] {
            assert_eq!(set(removed), Vec::<String>::new(), "{removed}");
        }
    }
}
