//! The path of a request as rules see it, and the templates that it is matched against.

use std::{borrow::Cow, fmt, sync::Arc};

use percent_encoding::percent_decode_str;

use crate::provider::extract::Dialect;

/// A path in normal form: unreserved octets decoded, slashes merged, dot segments resolved.
///
/// What is encoded and not unreserved stays encoded, so that an encoded slash never becomes a boundary. Where a router in
/// PHP might read the same bytes in another way, that reading is kept beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NormalPath<'a> {
    normal: Cow<'a, str>,
    routed: Option<String>,
}

impl<'a> NormalPath<'a> {
    /// Normalises a path; nothing is copied when nothing is to be done.
    #[must_use]
    pub fn new(raw: &'a str) -> Self {
        let normal = if is_normal(raw) { Cow::Borrowed(raw) } else { Cow::Owned(normalise(raw)) };
        let odd = matches!(normal, Cow::Owned(_)) || raw.starts_with(FRONT_CONTROLLER);
        Self { normal, routed: if odd { routed(raw) } else { None } }
    }

    /// The whole normal form.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.normal
    }

    /// The part that the app's router looks at.
    #[must_use]
    pub fn seen_by(&self, dialect: Dialect) -> &str {
        match dialect {
            Dialect::Strict => &self.normal,
            Dialect::Php => without_front_controller(&self.normal),
        }
    }
}

const FRONT_CONTROLLER: &str = "/index.php";

/// The path as Laravel's router reads it: its front controller cut off, and then decoded as a whole. An encoded slash is
/// a boundary to it, and a dot segment a segment like others. `None` where it would match no route.
fn routed(raw: &str) -> Option<String> {
    let rest = match prefix_in_any_encoding(raw, FRONT_CONTROLLER) {
        Some(length) => &raw[length..],
        None => raw,
    };
    let decoded = percent_decode_str(rest.trim_end_matches('/')).decode_utf8().ok()?;
    Some(if decoded.starts_with('/') { decoded.into_owned() } else { format!("/{decoded}") })
}

/// How many bytes of `raw` stand for `prefix`, whichever of them are encoded.
fn prefix_in_any_encoding(raw: &str, prefix: &str) -> Option<usize> {
    let mut at = 0;
    for wanted in prefix.bytes() {
        let hex = raw.get(at..at + 3).and_then(|octet| octet.strip_prefix('%'));
        let encoded = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        at += match encoded {
            Some(byte) if byte == wanted => 3,
            _ if raw.as_bytes().get(at) == Some(&wanted) => 1,
            _ => return None,
        };
    }
    Some(at)
}

/// Whether there is certainly nothing to normalise; a dot after a slash is looked at closely later.
fn is_normal(raw: &str) -> bool {
    let bytes = raw.as_bytes();
    memchr::memchr(b'%', bytes).is_none() && !bytes.windows(2).any(|pair| matches!(pair, b"//" | b"/."))
}

fn normalise(raw: &str) -> String {
    let decoded = decode_unreserved(raw);
    let Some(rest) = decoded.strip_prefix('/') else { return decoded };
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_slash = true;
    for segment in rest.split('/') {
        ends_in_slash = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            name => kept.push(name),
        }
    }
    let mut path = format!("/{}", kept.join("/"));
    if ends_in_slash && !kept.is_empty() {
        path.push('/');
    }
    path
}

/// Decodes letters, digits, `-`, `.`, `_` and `~`; writes the other encodings in upper case; leaves what is no encoding.
fn decode_unreserved(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('%') {
        out.push_str(&rest[..at]);
        let octet = rest.get(at + 1..at + 3).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
        match octet.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                    out.push(char::from(byte));
                } else {
                    out.push_str(&format!("%{byte:02X}"));
                }
                rest = &rest[at + 3..];
            }
            None => {
                out.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// PHP apps are reached through `/index.php` too, and their routers take no notice of a trailing slash.
fn without_front_controller(path: &str) -> &str {
    let routed = match path.strip_prefix("/index.php") {
        Some("") => "/",
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    };
    match routed.strip_suffix('/') {
        Some("") | None => routed,
        Some(cut) => cut,
    }
}

/// A pattern for paths: `/webhook/{company_key}/{gateway}`, `/files/{rest*}`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Template {
    source: Arc<str>,
    dialect: Dialect,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Segment {
    Literal(Box<str>),
    One(Arc<str>),
    Rest(Arc<str>),
}

/// The text is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTemplate {
    /// Paths begin with a slash.
    #[error("a path begins with a slash")]
    NoSlash,
    /// A brace stands inside a literal, or a name is no name.
    #[error("`{0}` is no segment: write a text without braces, {{name}} or, at the end, {{name*}}")]
    Segment(String),
    /// The same name stands twice.
    #[error("the name `{0}` stands there twice")]
    Twice(String),
    /// Something follows the rest.
    #[error("nothing can follow {{{0}*}}")]
    AfterRest(String),
}

impl Template {
    /// Reads a template that is matched as the app behind `dialect` routes.
    ///
    /// # Errors
    ///
    /// When the text is no template.
    pub fn parse(text: &str, dialect: Dialect) -> Result<Self, NoTemplate> {
        let seen = match dialect {
            Dialect::Strict => text,
            Dialect::Php => without_front_controller(text),
        };
        let mut segments: Vec<Segment> = Vec::new();
        for part in seen.strip_prefix('/').ok_or(NoTemplate::NoSlash)?.split('/') {
            if let Some(Segment::Rest(name)) = segments.last() {
                return Err(NoTemplate::AfterRest(name.to_string()));
            }
            let segment = Segment::parse(part)?;
            if let Some(name) = segment.name()
                && segments.iter().any(|earlier| earlier.name() == Some(name))
            {
                return Err(NoTemplate::Twice(name.to_string()));
            }
            segments.push(segment);
        }
        Ok(Self { source: text.into(), dialect, segments })
    }

    /// Whether a path matches; copies nothing.
    #[must_use]
    pub fn matches(&self, path: &NormalPath<'_>) -> bool {
        self.readings(path).into_iter().flatten().any(|seen| self.walk(seen, |_, _| {}))
    }

    /// The values of the named segments, decoded; `None` when the path does not match.
    ///
    /// A `{name*}` keeps its encodings, so that its slashes are the path's own.
    #[must_use]
    pub fn values(&self, path: &NormalPath<'_>) -> Option<Vec<(Arc<str>, String)>> {
        self.readings(path).into_iter().flatten().find_map(|seen| {
            let mut values = Vec::new();
            let matched = self.walk(seen, |segment, text| match segment {
                Segment::Literal(_) => {}
                Segment::One(name) => values.push((Arc::clone(name), seen.decode(text).into_owned())),
                Segment::Rest(name) => values.push((Arc::clone(name), text.to_owned())),
            });
            matched.then_some(values)
        })
    }

    /// The path as the app reads it, and in normal form: what is a callback in either is one.
    fn readings<'p>(&self, path: &'p NormalPath<'_>) -> [Option<Seen<'p>>; 2] {
        let routed = path.routed.as_deref().filter(|_| self.dialect == Dialect::Php);
        [
            routed.map(|text| Seen { text, decoded: true }),
            Some(Seen { text: path.seen_by(self.dialect), decoded: false }),
        ]
    }

    /// The names of its segments.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| segment.name().map(|name| &**name))
    }

    fn walk<'t>(&'t self, path: Seen<'_>, mut visit: impl FnMut(&'t Segment, &str)) -> bool {
        let mut rest = path.text.strip_prefix('/');
        for segment in &self.segments {
            if let Segment::Rest(_) = segment {
                visit(segment, rest.unwrap_or_default());
                return path.text.starts_with('/');
            }
            let Some(text) = rest else { return false };
            let (head, tail) = match text.split_once('/') {
                Some((head, tail)) => (head, Some(tail)),
                None => (text, None),
            };
            if !segment.takes(&path.decode(head)) {
                return false;
            }
            visit(segment, head);
            rest = tail;
        }
        rest.is_none()
    }
}

/// One reading of a path.
#[derive(Clone, Copy)]
struct Seen<'p> {
    text: &'p str,
    /// Whether nothing in it is encoded any more.
    decoded: bool,
}

impl Seen<'_> {
    fn decode<'t>(&self, text: &'t str) -> Cow<'t, str> {
        if self.decoded { Cow::Borrowed(text) } else { decoded(text) }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({})", self.source)
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, NoTemplate> {
        let no = || NoTemplate::Segment(text.to_owned());
        let Some(inner) = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) else {
            return if text.contains(['{', '}', '?', '#']) {
                Err(no())
            } else {
                Ok(Self::Literal(decoded(text).into()))
            };
        };
        let (name, rest) = inner.strip_suffix('*').map_or((inner, false), |name| (name, true));
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(no());
        }
        Ok(if rest { Self::Rest(name.into()) } else { Self::One(name.into()) })
    }

    fn name(&self) -> Option<&Arc<str>> {
        match self {
            Self::Literal(_) => None,
            Self::One(name) | Self::Rest(name) => Some(name),
        }
    }

    fn takes(&self, text: &str) -> bool {
        match self {
            Self::Literal(literal) => **literal == *text,
            Self::One(_) => !text.is_empty(),
            Self::Rest(_) => true,
        }
    }
}

/// A segment's text; what is no UTF-8 when decoded stays encoded, so that two texts never become one.
fn decoded(text: &str) -> Cow<'_, str> {
    if text.contains('%') { percent_decode_str(text).decode_utf8().unwrap_or(Cow::Borrowed(text)) } else { text.into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values(template: &str, dialect: Dialect, path: &str) -> Option<Vec<String>> {
        let template = Template::parse(template, dialect).unwrap();
        let path = NormalPath::new(path);
        let values = template.values(&path);
        assert_eq!(values.is_some(), template.matches(&path));
        values.map(|values| values.into_iter().map(|(_, value)| value).collect())
    }

    #[test]
    fn a_path_has_one_normal_form() {
        for (raw, normal) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("//a///b", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/a/%2e%2E/b", "/b"),
            ("/../../a", "/a"),
            ("/a/..", "/"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/%70ayment_webhook/%7e", "/payment_webhook/~"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%", "/a%"),
            ("/a%4", "/a%4"),
            ("/a%zz/b", "/a%zz/b"),
            ("/a%é", "/a%é"),
            ("/.well-known/x", "/.well-known/x"),
            ("*", "*"),
            ("", ""),
        ] {
            assert_eq!(NormalPath::new(raw).as_str(), normal, "{raw}");
        }
    }

    #[test]
    fn php_looks_past_its_front_controller_and_a_trailing_slash() {
        for (raw, seen) in [
            ("/index.php/payments/", "/payments"),
            ("/index.php", "/"),
            ("/index.php/", "/"),
            ("/", "/"),
            ("/index.phps/x", "/index.phps/x"),
            ("//index%2Ephp//x//", "/x"),
        ] {
            assert_eq!(NormalPath::new(raw).seen_by(Dialect::Php), seen, "{raw}");
        }
        assert_eq!(NormalPath::new("/index.php/x/").seen_by(Dialect::Strict), "/index.php/x/");
    }

    #[test]
    fn a_template_takes_one_segment_for_a_name() {
        let hook = |path| values("/hook/{company_key}/{gateway}", Dialect::Strict, path);
        assert_eq!(hook("/hook/key/gw"), Some(vec!["key".into(), "gw".into()]));
        assert_eq!(hook("/hook/k%2Fey/g%20w"), Some(vec!["k/ey".into(), "g w".into()]));
        assert_eq!(hook("/hook/%FF/gw"), Some(vec!["%FF".into(), "gw".into()]));
        for no in ["/hook/key", "/hook/key/gw/", "/hook/key/gw/x", "/hook/key/", "/Hook/key/gw", "/hook%2Fkey/gw", "*"]
        {
            assert_eq!(hook(no), None, "{no}");
        }
        assert!(values("/hook/{k}", Dialect::Php, "/index.php/hook/key/").is_some());
        assert!(values("/hook/", Dialect::Php, "/hook").is_some());
        assert!(values("/webhook", Dialect::Strict, "/webhook").is_some());
        assert!(values("/webhook", Dialect::Strict, "/webhook/").is_none());
    }

    #[test]
    fn what_laravel_routes_to_a_callback_is_one() {
        let hook = |path| values("/hook/{company_key}/{gateway}", Dialect::Php, path);
        for (raw, key, gateway) in [
            ("/hook/key%2fgw", "key", "gw"),
            ("/hook%2Fkey/gw//", "key", "gw"),
            ("/hook/../gw", "..", "gw"),
            ("/hook/key/..", "key", ".."),
            ("/hook/./gw", ".", "gw"),
            ("/index.php/hook/../gw", "..", "gw"),
            ("/%69ndex.php%2fhook/key/gw", "key", "gw"),
            ("/index.phphook/key/gw", "key", "gw"),
            ("/hook/%2541/gw", "%41", "gw"),
            // In normal form only.
            ("//hook/./key/gw", "key", "gw"),
        ] {
            assert_eq!(hook(raw), Some(vec![key.into(), gateway.into()]), "{raw}");
        }
        assert_eq!(hook("/hook/key%252fgw"), None);
        assert_eq!(values("/hook/{a}/{b}", Dialect::Strict, "/hook/key%2fgw"), None);
    }

    #[test]
    fn a_template_takes_any_rest() {
        let files = |path| values("/files/{rest*}", Dialect::Strict, path);
        assert_eq!(files("/files/a/b%2Fc"), Some(vec!["a/b%2Fc".into()]));
        assert_eq!(files("/files/"), Some(vec![String::new()]));
        assert_eq!(files("/files"), Some(vec![String::new()]));
        assert_eq!(files("/other"), None);
        assert_eq!(values("/{all*}", Dialect::Strict, "*"), None);
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for text in ["", "webhook", "/a{b}", "/{a b}", "/{}", "/{*}", "/{a}/{a}", "/{a*}/b", "/a?b=c"] {
            assert!(Template::parse(text, Dialect::Strict).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(raw in "/[a-z%/.0-9A-F]{0,40}") {
            let once = NormalPath::new(&raw).as_str().to_owned();
            let twice = NormalPath::new(&once).as_str().to_owned();
            // `%2%35` becomes `%25`, which stands for a percent sign and is read no further.
            prop_assert!(once == twice || once.contains('%'));
            prop_assert!(once.starts_with('/') && !once.contains("//") && !once.contains("/../"));
        }

        #[test]
        fn a_value_never_spans_two_segments(key in "[a-z%2F/.]{1,12}", gateway in "[a-z%2F/.]{1,12}") {
            let raw = format!("/hook/{key}/{gateway}");
            let path = NormalPath::new(&raw);
            let template = Template::parse("/hook/{key}/{gateway}", Dialect::Strict).unwrap();
            if template.matches(&path) {
                prop_assert_eq!(path.as_str().matches('/').count(), 3);
            }
        }

        #[test]
        fn an_encoded_octet_matches_as_itself(name in "[a-z]{1,8}", at in 0_usize..8) {
            let mut encoded = String::new();
            for (i, c) in name.chars().enumerate() {
                if i == at { encoded.push_str(&format!("%{:02x}", u32::from(c))) } else { encoded.push(c) }
            }
            let template = Template::parse(&format!("/{name}"), Dialect::Strict).unwrap();
            let raw = format!("/{encoded}");
            prop_assert!(template.matches(&NormalPath::new(&raw)));
        }

        #[test]
        fn nothing_panics(raw in ".{0,60}") {
            let path = NormalPath::new(&raw);
            let _ = path.seen_by(Dialect::Php);
            let _ = Template::parse("/{a}/{b*}", Dialect::Php).unwrap().values(&path);
        }
    }
}
