//! Reads a value out of a request from the place where it stands, as the app behind us would read it there.
//!
//! The gate and the app must read the same name out of the same bytes. Where they differ, one payment is taken for
//! two, or two for one. So nothing is guessed: what can be read in two ways is [`Found::Ambiguous`], and a callback
//! with an ambiguous name is *unrecognised*. [`Dialect::Php`] follows PHP 8.2 where PHP's answer is clear text, and
//! is ambiguous where it is not; [`Dialect::Strict`] takes only what every reader reads alike. The two never read
//! different values.
//!
//! What decides whether a body is read at all is its content type:
//!
//! - `form:` is read from `application/x-www-form-urlencoded` and from plain text parts of `multipart/form-data`.
//!   With another content type PHP fills no field, so the value is absent, even where the bytes look like a form.
//!   A form in a request that is no POST is read by some frameworks and not by others: ambiguous.
//! - `json:` is read from a JSON content type. Without one, an app that asks its framework for the input finds nothing
//!   and one that parses the raw body finds the value: in `php` that is ambiguous. Outside PHP apps parse the raw body,
//!   so `strict` reads it under no content type, `text/plain` and `application/octet-stream` as well.
//! - A content type that readers take in different ways (two of them, a list, a form that also says JSON), and a body
//!   with a content encoding, is ambiguous.

mod content;
mod fields;
mod json;
mod multipart;
mod value;
mod xml;

use std::{borrow::Cow, cell::OnceCell, fmt, str::FromStr, sync::Arc};

use ring::digest;

pub use json::JsonPath;
pub use value::Value;
pub use xml::Elements;

use crate::{callback::RequestView, digits::hex};
use content::{Content, Kind};
use json::Document;

/// Longer values are ambiguous: no provider names anything by so long a text, and what is read is remembered.
const MAX_VALUE: usize = 4096;

/// Whose reading of a request counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Dialect {
    /// What can be read in two ways is ambiguous; so is a number that JavaScript would write otherwise (`1.0`, more than
    /// 53 bits).
    #[default]
    Strict,
    /// As PHP 8.2 with its defaults reads it: the last of two fields and the first of two cookies counts, and a field
    /// sent as `a.b` is the variable `a_b`, by whichever of the two names a place calls it. What PHP makes an array of
    /// (`id[]`, `data[id]`), and a number of which it would make another text (`1.0`, twenty digits), is ambiguous.
    Php,
}

impl Dialect {
    /// The word used in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Php => "php",
        }
    }
}

/// Where one value stands: `form:id`, `json:$.data.object.id`, `query:payment_hash`, `header:X-Event-Id`,
/// `path:gateway`, `cookie:session`, `body`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A field of a form body.
    Form(String),
    /// A value in a JSON body.
    Json(JsonPath),
    /// A parameter of the query.
    Query(String),
    /// A header field.
    Header(String),
    /// A named segment of the path.
    Path(String),
    /// A cookie.
    Cookie(String),
    /// A digest of the whole body; an empty body has none.
    Body,
}

/// The text names no place; the message says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoPlace(pub String);

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let no = || {
            NoPlace(format!(
                "`{text}` names no place: write form:NAME, json:$.PATH, query:NAME, header:NAME, path:NAME, \
                 cookie:NAME or body"
            ))
        };
        if text == "body" {
            return Ok(Self::Body);
        }
        let (kind, name) = text.split_once(':').filter(|(_, name)| !name.is_empty()).ok_or_else(no)?;
        let owned = || name.to_owned();
        Ok(match kind {
            "form" => Self::Form(owned()),
            "json" => Self::Json(name.parse()?),
            "query" => Self::Query(owned()),
            "header" if http::HeaderName::from_bytes(name.as_bytes()).is_ok() => Self::Header(owned()),
            "header" => return Err(NoPlace(format!("`{name}` is no name of a header field"))),
            "path" => Self::Path(owned()),
            "cookie" => Self::Cookie(owned()),
            _ => return Err(no()),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form(name) => write!(f, "form:{name}"),
            Self::Json(path) => write!(f, "json:{path}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Path(name) => write!(f, "path:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Body => f.write_str("body"),
        }
    }
}

/// The places that a rule names; each key tries its places in order and takes the first that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The provider's id of the payment.
    pub reference: Vec<Place>,
    /// The provider's id of the event.
    pub event_id: Vec<Place>,
    /// What happened.
    pub state: Vec<Place>,
    /// How much, in major units.
    pub amount: Vec<Place>,
    /// ISO 4217.
    pub currency: Vec<Place>,
    /// Other names, by kind.
    pub aliases: Vec<(Arc<str>, Vec<Place>)>,
    /// What makes two events the same (`identity = [places]`).
    pub identity: Vec<Place>,
}

impl Places {
    /// Every place of every key.
    pub fn iter(&self) -> impl Iterator<Item = &Place> {
        [&self.reference, &self.event_id, &self.state, &self.amount, &self.currency, &self.identity]
            .into_iter()
            .chain(self.aliases.iter().map(|(_, places)| places))
            .flatten()
    }
}

/// What stands in a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// Nothing.
    Absent,
    /// An empty text, or JSON's `null`: the place is there and names nothing.
    Empty,
    /// One clear text.
    One(Cow<'a, str>),
    /// It can be read in two ways, or not as text; with the place and the reason, but never the value.
    Ambiguous(String),
}

/// Why no event could be read from a callback.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unrecognised(pub String);

/// A value as it stands, before it is judged.
enum Raw<'a> {
    Absent,
    Value(Cow<'a, [u8]>),
    Odd(&'static str),
}

/// A name and its value, decoded.
pub type Field<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// Reads one request, for the provider and for the places of rules; a JSON body is parsed once, when first asked for.
pub struct Reader<'a> {
    view: RequestView<'a>,
    dialect: Dialect,
    content: Content,
    json: OnceCell<Result<Option<Document<'a>>, &'static str>>,
    form: OnceCell<Result<Vec<fields::Piece<'a>>, &'static str>>,
}

impl<'a> Reader<'a> {
    /// A reader of this request.
    #[must_use]
    pub fn new(view: &RequestView<'a>, dialect: Dialect) -> Self {
        Self {
            view: *view,
            dialect,
            content: Content::of(view.headers, dialect),
            json: OnceCell::new(),
            form: OnceCell::new(),
        }
    }

    /// The request itself.
    #[must_use]
    pub const fn view(&self) -> &RequestView<'a> {
        &self.view
    }

    /// Whose reading counts.
    #[must_use]
    pub const fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether the body is a form by its content type, and to every reader.
    #[must_use]
    pub fn is_form(&self) -> bool {
        matches!(self.content.kind, Kind::Form | Kind::Multipart)
    }

    /// What stands in this place.
    #[must_use]
    pub fn read(&self, place: &Place) -> Found<'a> {
        match place {
            Place::Json(path) => self.found(path),
            Place::Body if self.view.body.is_empty() => Found::Absent,
            Place::Body => Found::One(Cow::Owned(self.body_digest())),
            _ => self.judged(place, self.raw(place), matches!(place, Place::Form(_))),
        }
    }

    /// The text of a header field, for the file of a provider; none where it is empty.
    ///
    /// # Errors
    ///
    /// If it can be read in two ways.
    pub fn header(&self, name: &str) -> Result<Option<Cow<'a, str>>, Unrecognised> {
        told(self.judged(&format_args!("header:{name}"), self.raw_header(name), false))
    }

    /// The text of a parameter of the query; none where it is empty.
    ///
    /// # Errors
    ///
    /// If it can be read in two ways.
    pub fn query(&self, name: &str) -> Result<Option<Cow<'a, str>>, Unrecognised> {
        told(self.judged(&format_args!("query:{name}"), self.raw_query(name), false))
    }

    /// The text of a field of a form; none where it is empty.
    ///
    /// # Errors
    ///
    /// If it can be read in two ways.
    pub fn form(&self, name: &str) -> Result<Option<Cow<'a, str>>, Unrecognised> {
        told(self.judged(&format_args!("form:{name}"), self.raw_form(name), true))
    }

    /// Every field of a form, decoded, in the order in which they stand there; none where the body is no such form.
    #[must_use]
    pub fn fields(&self) -> Vec<Field<'a>> {
        if self.content.kind == Kind::Form && self.fills_form() { fields::all(self.view.body) } else { Vec::new() }
    }

    /// The bytes of a field that stands there once, for a text that names nothing and may be long.
    ///
    /// # Errors
    ///
    /// If it is not there, or more than once.
    pub fn field(&self, name: &str) -> Result<Cow<'a, [u8]>, Unrecognised> {
        let mut found = self.fields().into_iter().filter(|(known, _)| **known == *name.as_bytes());
        match (found.next(), found.next()) {
            (Some((_, value)), None) => Ok(value),
            (None, _) => Err(Unrecognised(format!("nothing stands at form:{name}"))),
            _ => Err(Unrecognised(format!("form:{name}: it stands there more than once"))),
        }
    }

    /// Every parameter of the query, decoded, in the order in which they stand there.
    #[must_use]
    pub fn parameters(&self) -> Vec<Field<'a>> {
        self.view.uri.query().map_or_else(Vec::new, |query| fields::all(query.as_bytes()))
    }

    /// A digest of the whole body: SHA-256 in hexadecimal.
    #[must_use]
    pub fn body_digest(&self) -> String {
        hex(digest::digest(&digest::SHA256, self.view.body).as_ref())
    }

    fn judged(&self, place: &dyn fmt::Display, raw: Raw<'a>, form: bool) -> Found<'a> {
        match raw {
            Raw::Absent => Found::Absent,
            Raw::Odd(why) => Found::Ambiguous(format!("{place}: {why}")),
            Raw::Value(bytes) => match utf8(bytes) {
                Some(text) if form && self.content.ascii_only && !text.is_ascii() => {
                    Found::Ambiguous(format!("{place}: the content type names a charset other than UTF-8"))
                }
                Some(text) => judge(place, text),
                None => Found::Ambiguous(format!("{place}: the value is not UTF-8")),
            },
        }
    }

    /// What stands in the first of these places that is there.
    #[must_use]
    pub fn first(&self, places: &[Place]) -> Found<'a> {
        places.iter().map(|place| self.read(place)).find(|found| *found != Found::Absent).unwrap_or(Found::Absent)
    }

    /// As [`first`](Self::first), for an amount: a JSON number with decimals is read as it is written, though PHP
    /// makes another text of it (`121.00` is its `121`), for an amount names nothing.
    #[must_use]
    pub fn first_amount(&self, places: &[Place]) -> Found<'a> {
        let read = |place: &Place| match place {
            Place::Json(path) => match self.slot(path) {
                json::Slot::Number(text) => judge(place, Cow::Borrowed(text)),
                _ => self.read(place),
            },
            _ => self.read(place),
        };
        places.iter().map(read).find(|found| *found != Found::Absent).unwrap_or(Found::Absent)
    }

    /// The JSON body as a value; absent where the body is none.
    #[must_use]
    pub fn json(&self) -> Value<'_> {
        Value::root(self.document())
    }

    /// Reads JSON that came wrapped in this request: in a field of a form, or encrypted.
    pub fn json_inside<T>(&self, text: &[u8], read: impl FnOnce(Value<'_>) -> T) -> T {
        let json = http::HeaderValue::from_static("application/json");
        let headers = http::HeaderMap::from_iter([(http::header::CONTENT_TYPE, json)]);
        read(Reader::new(&RequestView { headers: &headers, body: text, ..self.view }, self.dialect).json())
    }

    fn found(&self, path: &JsonPath) -> Found<'a> {
        match json::text(self.slot(path), self.dialect) {
            Err(why) => Found::Ambiguous(format!("json:{path}: {why}")),
            Ok(None) => Found::Absent,
            Ok(Some(text)) => judge(&format_args!("json:{path}"), text),
        }
    }

    fn raw(&self, place: &Place) -> Raw<'a> {
        match place {
            Place::Form(name) => self.raw_form(name),
            Place::Query(name) => self.raw_query(name),
            Place::Header(name) => self.raw_header(name),
            Place::Cookie(name) => fields::cookie(self.view.headers, name, self.dialect),
            Place::Path(name) => self
                .view
                .segments
                .iter()
                .find(|(segment, _)| **segment == **name)
                .map_or(Raw::Absent, |(_, value)| Raw::Value(Cow::Borrowed(value.as_bytes()))),
            Place::Json(_) | Place::Body => Raw::Absent,
        }
    }

    fn raw_query(&self, name: &str) -> Raw<'a> {
        let Some(query) = self.view.uri.query() else { return Raw::Absent };
        match fields::pieces(query.as_bytes()) {
            Ok(pieces) => fields::form(&pieces, name, self.dialect),
            Err(why) => Raw::Odd(why),
        }
    }

    fn raw_form(&self, name: &str) -> Raw<'a> {
        if self.view.body.is_empty() {
            return Raw::Absent;
        }
        match self.content.kind {
            Kind::Unsure(why) => Raw::Odd(why),
            Kind::Form | Kind::Multipart if !self.fills_form() => self.unfilled(),
            Kind::Form => match self.form.get_or_init(|| fields::pieces(self.view.body)) {
                Ok(pieces) => fields::form(pieces, name, self.dialect),
                Err(why) => Raw::Odd(why),
            },
            Kind::Multipart => multipart::form(&self.view, name, self.dialect),
            Kind::Missing | Kind::Json | Kind::Plain | Kind::Other => Raw::Absent,
        }
    }

    fn fills_form(&self) -> bool {
        self.view.method == http::Method::POST
    }

    /// A form in a request that is no POST: PHP itself reads none, frameworks read some.
    fn unfilled(&self) -> Raw<'a> {
        match (self.dialect, self.view.method.as_str()) {
            (Dialect::Php, "GET" | "HEAD") => Raw::Absent,
            _ => Raw::Odd("a form in a request that is no POST"),
        }
    }

    fn raw_header(&self, name: &str) -> Raw<'a> {
        let mut values = self.view.headers.get_all(name).iter();
        let (first, second) = (values.next(), values.next());
        // Behind CGI and FastCGI `X_Id` and `X-Id` are the same variable.
        if name.contains(['-', '_']) && self.view.headers.keys().any(|key| twin(key.as_str(), name)) {
            return Raw::Odd("another field differs only by an underscore");
        }
        match (first, second) {
            (None, _) => Raw::Absent,
            (Some(value), None) => Raw::Value(Cow::Borrowed(value.as_bytes())),
            (Some(_), Some(_)) => Raw::Odd("it stands there more than once"),
        }
    }

    fn slot(&self, path: &JsonPath) -> json::Slot<'a> {
        match self.document() {
            Err(why) => json::Slot::Odd(why),
            Ok(None) => json::Slot::Absent,
            Ok(Some(document)) => document.walk(path),
        }
    }

    fn document(&self) -> Result<Option<&Document<'a>>, &'static str> {
        self.json.get_or_init(|| self.parse()).as_ref().map(Option::as_ref).map_err(|why| *why)
    }

    fn parse(&self) -> Result<Option<Document<'a>>, &'static str> {
        let body = self.view.body;
        if body.is_empty() {
            return Ok(None);
        }
        let looks_like_json = matches!(body.trim_ascii_start().first(), Some(b'{' | b'['));
        match (self.content.kind, self.dialect) {
            (Kind::Unsure(why), _) => Err(why),
            (Kind::Json, _) => Document::parse(body, self.dialect).map(Some),
            _ if !looks_like_json => Ok(None),
            (Kind::Missing | Kind::Plain, Dialect::Strict) => Document::parse(body, self.dialect).map(Some),
            _ => Err("JSON under another content type"),
        }
    }
}

/// What was told, if it is clear.
fn told(found: Found<'_>) -> Result<Option<Cow<'_, str>>, Unrecognised> {
    match found {
        Found::One(text) => Ok(Some(text)),
        Found::Absent | Found::Empty => Ok(None),
        Found::Ambiguous(why) => Err(Unrecognised(why)),
    }
}

/// Whether a text may stand as a name: what middleware would trim, and what terminals and C strings stumble over, is
/// not read alike by all.
fn judge<'a>(place: &dyn fmt::Display, text: Cow<'a, str>) -> Found<'a> {
    let invisible = |c: char| c.is_whitespace() || matches!(c, '\u{feff}' | '\u{200b}' | '\u{200e}');
    let why = if text.is_empty() {
        return Found::Empty;
    } else if text.len() > MAX_VALUE {
        "the value is too long"
    } else if text.contains(char::is_control) {
        "the value holds a control character"
    } else if text.starts_with(invisible) || text.ends_with(invisible) {
        "the value begins or ends with a space, which some apps trim"
    } else {
        return Found::One(text);
    };
    Found::Ambiguous(format!("{place}: {why}"))
}

fn utf8(bytes: Cow<'_, [u8]>) -> Option<Cow<'_, str>> {
    match bytes {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

fn twin(key: &str, name: &str) -> bool {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    key.len() == name.len() && !key.eq_ignore_ascii_case(name) && key.bytes().map(plain).eq(name.bytes().map(plain))
}

/// A plain decimal number, without zeros that say nothing in front; `None` for anything else.
///
/// Decimals are kept as they are: `10` and `10.00` are one amount and two texts, and it is the text that is compared.
#[must_use]
pub fn decimal(text: &str) -> Option<String> {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, rest)| (whole, Some(rest)));
    let digits_only = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if text.len() > 64 || !digits_only(whole) || !fraction.is_none_or(digits_only) {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    Some(fraction.map_or_else(|| format!("{sign}{whole}"), |fraction| format!("{sign}{whole}.{fraction}")))
}

#[cfg(test)]
mod tests;
