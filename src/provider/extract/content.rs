//! What a body says it is, and whether all readers take it for the same.

use http::{HeaderMap, header};

use super::Dialect;

/// What a body is, by its content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// No content type.
    Missing,
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `multipart/form-data`.
    Multipart,
    /// JSON, to every reader.
    Json,
    /// A type that says nothing of what is inside.
    Plain,
    /// Anything else.
    Other,
    /// Readers differ, or what they would read are not these bytes.
    Unsure(&'static str),
}

/// The content type, judged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content {
    pub(super) kind: Kind,
    /// Beyond ASCII the bytes may mean something else than their UTF-8 reading.
    pub(super) ascii_only: bool,
}

impl Content {
    /// Judges the content type of a request.
    pub(super) fn of(headers: &HeaderMap, dialect: Dialect) -> Self {
        if headers
            .get(header::CONTENT_ENCODING)
            .is_some_and(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
        {
            return Self::unsure("the body has a content encoding");
        }
        let mut lines = headers.get_all(header::CONTENT_TYPE).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else {
            return match headers.contains_key(header::CONTENT_TYPE) {
                true => Self::unsure("there are two content types"),
                false => Self { kind: Kind::Missing, ascii_only: false },
            };
        };
        match line.to_str() {
            Ok(line) => Self::named(line, dialect),
            Err(_) => Self::unsure("the content type is no text"),
        }
    }

    fn named(line: &str, dialect: Dialect) -> Self {
        if line == "application/x-www-form-urlencoded" {
            return Self { kind: Kind::Form, ascii_only: false };
        }
        let lower = line.to_ascii_lowercase();
        // PHP ends the type at the first of these, without trimming what stands before it.
        let name = &lower[..lower.find([';', ',', ' ']).unwrap_or(lower.len())];
        let after = lower[name.len()..].trim_start_matches(' ');
        let says_json = lower.contains("/json") || lower.contains("+json");
        let kind = if !after.is_empty() && !after.starts_with(';') {
            Kind::Unsure("the content type is a list")
        } else {
            match name {
                "application/x-www-form-urlencoded" if !says_json => Kind::Form,
                "multipart/form-data" if !says_json => Kind::Multipart,
                "text/plain" | "application/octet-stream" if !says_json => Kind::Plain,
                _ if name.ends_with("/json") || name.ends_with("+json") => json(line, dialect),
                _ if says_json || name.contains("form") => Kind::Unsure("the content type is taken in several ways"),
                _ => Kind::Other,
            }
        };
        match charset(after) {
            None | Some("utf-8" | "utf8") => Self { kind, ascii_only: false },
            // PHP never looks at the charset of a form.
            Some(_) if dialect == Dialect::Php => Self { kind, ascii_only: false },
            Some(charset) if extends_ascii(charset) => Self { kind, ascii_only: true },
            Some(_) => Self::unsure("the content type names a charset we do not know"),
        }
    }

    const fn unsure(why: &'static str) -> Self {
        Self { kind: Kind::Unsure(why), ascii_only: false }
    }
}

/// Laravel looks for `/json` and `+json` to the letter.
fn json(line: &str, dialect: Dialect) -> Kind {
    if dialect == Dialect::Php && !line.contains("/json") && !line.contains("+json") {
        return Kind::Unsure("the content type is JSON in capitals");
    }
    Kind::Json
}

fn charset(parameters: &str) -> Option<&str> {
    parameters
        .split(';')
        .filter_map(|one| one.trim().strip_prefix("charset="))
        .map(|name| name.trim_matches('"'))
        .next()
}

/// In these an ASCII text is the same bytes.
fn extends_ascii(charset: &str) -> bool {
    ["us-ascii", "ascii", "gbk", "gb2312", "gb18030", "big5", "euc-jp", "euc-kr"].contains(&charset)
        || ["iso-8859-", "windows-125"].iter().any(|family| charset.starts_with(family))
}
