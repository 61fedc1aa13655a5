//! The text parts of a `multipart/form-data` body, in its plainest form; anything else is ambiguous.
//!
//! Readers of multipart bodies differ in everything but that form: in preambles, line ends, quoting, charsets, transfer
//! encodings. A part that carries a file is no field.

use http::header;

use super::{
    Dialect, Raw,
    fields::{Fields, Sight},
};
use crate::callback::RequestView;
use std::borrow::Cow;

const ODD: &str = "the multipart body is not of the plainest form";
const MAX_PARTS: usize = 1000;

/// Reads one field of a multipart body.
pub(super) fn form<'a>(view: &RequestView<'a>, name: &str, dialect: Dialect) -> Raw<'a> {
    match search(view, name, dialect) {
        None => Raw::Odd(ODD),
        Some(Sight::Nothing) => Raw::Absent,
        Some(Sight::Odd(why)) => Raw::Odd(why),
        Some(Sight::Value(value)) => Raw::Value(Cow::Borrowed(value)),
    }
}

fn search<'a>(view: &RequestView<'a>, name: &str, dialect: Dialect) -> Option<Sight<'a>> {
    let delimiter = [b"\r\n--", boundary(view)?.as_bytes()].concat();
    let mut fields = Fields::wanted(name, dialect);
    // The first delimiter has no line end before it.
    let mut rest = view.body.strip_prefix(&delimiter[2..])?;
    for _ in 0..MAX_PARTS {
        if matches!(rest, b"--" | b"--\r\n") {
            return Some(fields.found);
        }
        rest = rest.strip_prefix(b"\r\n")?;
        let end = memchr::memmem::find(rest, &delimiter)?;
        let (part, after) = rest.split_at(end);
        see(&mut fields, part)?;
        rest = &after[delimiter.len()..];
    }
    None
}

/// Takes in one part; `None` if it is not plain.
fn see<'a>(fields: &mut Fields<'_, 'a>, part: &'a [u8]) -> Option<()> {
    let head_end = memchr::memmem::find(part, b"\r\n\r\n")?;
    let (head, value) = (std::str::from_utf8(&part[..head_end]).ok()?, &part[head_end + 4..]);
    let mut disposition = None;
    for line in head.split("\r\n") {
        let (field, text) = line.split_once(": ")?;
        match field.to_ascii_lowercase().as_str() {
            "content-disposition" if disposition.is_none() => disposition = Some(text),
            "content-length" => {}
            "content-type" if text.starts_with("text/plain") && !text.contains("charset") => {}
            "content-type" if head.contains("; filename=\"") => {}
            _ => return None,
        }
    }
    let quoted = disposition?.strip_prefix("form-data; name=\"")?;
    let (name, after) = quoted.split_once('"')?;
    if name.contains(['\\', '\r', '\n', '\0', '%', '&']) {
        return None;
    }
    match after {
        "" => fields.see(name.as_bytes(), value),
        // Whether a file's name counts as a field depends on whom one asks.
        _ if plain_file(after) => fields.file(name.as_bytes()),
        _ => return None,
    }
    Some(())
}

fn plain_file(after: &str) -> bool {
    after
        .strip_prefix("; filename=\"")
        .and_then(|rest| rest.strip_suffix('"'))
        .is_some_and(|file| !file.is_empty() && !file.contains(['"', '\\']))
}

fn boundary<'a>(view: &RequestView<'a>) -> Option<&'a str> {
    let line = view.headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let (_, parameters) = line.split_once(';')?;
    let text = parameters.trim_start_matches(' ').strip_prefix("boundary=")?;
    let text = text.strip_prefix('"').map_or(Some(text), |rest| rest.strip_suffix('"'))?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"'()+_-./:=?".contains(&byte);
    ((1..=70).contains(&text.len()) && text.bytes().all(fits)).then_some(text)
}
