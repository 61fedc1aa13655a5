//! Named fields: forms, queries and cookies, and whose field a written name is.

use std::borrow::Cow;

use http::{HeaderMap, header};
use memchr::memchr;
use percent_encoding::percent_decode;

use super::{Dialect, Field, Raw};

/// PHP's `max_input_vars`; what stands beyond it is read by some and not by others.
const MAX_FIELDS: usize = 1000;

pub(super) const TWICE: &str = "it stands there more than once";
const ARRAY: &str = "it is an array";
const ALIKE: &str = "another field's name is read alike by some";
const TOO_MANY: &str = "there are more than a thousand fields";
const ENCODING: &str = "the value is not well encoded";

/// One field of a form or a query as it is written.
pub(super) struct Piece<'a> {
    bytes: &'a [u8],
    /// Where the name ends.
    equals: usize,
    /// Whether the name is what is written: nothing in it is encoded, and nothing of it does PHP spell otherwise.
    clear: bool,
    semicolon: bool,
}

impl<'a> Piece<'a> {
    fn name(&self) -> &'a [u8] {
        &self.bytes[..self.equals]
    }

    fn value(&self) -> &'a [u8] {
        self.bytes.get(self.equals + 1..).unwrap_or_default()
    }
}

/// The bytes of which PHP makes others in names, or that stand for another.
const SPELT_OTHERWISE: &[u8] = b"%+ .[\0";

/// The fields of a form or a query, found in one pass over its bytes.
pub(super) fn pieces(raw: &[u8]) -> Result<Vec<Piece<'_>>, &'static str> {
    let mut pieces = Vec::with_capacity(16);
    let mut rest = Some(raw);
    while let Some(raw) = rest.take() {
        if pieces.len() == MAX_FIELDS {
            return Err(TOO_MANY);
        }
        let end = memchr(b'&', raw).unwrap_or(raw.len());
        let bytes = &raw[..end];
        rest = raw.get(end + 1..);
        let equals = memchr(b'=', bytes).unwrap_or(end);
        let clear = !bytes[..equals].iter().any(|byte| SPELT_OTHERWISE.contains(byte));
        pieces.push(Piece { bytes, equals, clear, semicolon: memchr(b';', bytes).is_some() });
    }
    Ok(pieces)
}

/// Reads one field of a form or a query.
pub(super) fn form<'a>(pieces: &[Piece<'a>], name: &str, dialect: Dialect) -> Raw<'a> {
    let mut fields = Fields::wanted(name, dialect);
    for piece in pieces {
        if dialect == Dialect::Strict && piece.semicolon {
            fields.semicolons(piece.bytes);
        }
        if !piece.clear || fields.wanted.is_spelt(piece.name()) {
            fields.see(&unplus(piece.name()), piece.value());
        }
    }
    match fields.found {
        Sight::Nothing => Raw::Absent,
        Sight::Odd(why) => Raw::Odd(why),
        Sight::Value(value) if dialect == Dialect::Strict && !well_encoded(value) => Raw::Odd(ENCODING),
        Sight::Value(value) => Raw::Value(unplus(value)),
    }
}

/// Every field of a form or a query, decoded, and none where there are too many.
pub(super) fn all(raw: &[u8]) -> Vec<Field<'_>> {
    let pieces = split(raw, b'&').filter(|piece| !piece.is_empty());
    let fields: Vec<_> = pieces.take(MAX_FIELDS + 1).map(name_and_value).collect();
    if fields.len() > MAX_FIELDS {
        return Vec::new();
    }
    fields.into_iter().map(|(name, value)| (unplus(name), unplus(value))).collect()
}

/// Reads one cookie; PHP decodes its value and takes the first of two.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str, dialect: Dialect) -> Raw<'a> {
    let mut lines = headers.get_all(header::COOKIE).iter();
    let Some(line) = lines.next() else { return Raw::Absent };
    if lines.next().is_some() {
        return Raw::Odd("there are two lines of cookies, which servers join in different ways");
    }
    let mut found: Option<&[u8]> = None;
    let wanted = Wanted::new(name);
    for (count, piece) in split(line.as_bytes(), b';').enumerate() {
        if count == MAX_FIELDS {
            return Raw::Odd(TOO_MANY);
        }
        let (written, value) = name_and_value(piece.trim_ascii_start());
        if written == name.as_bytes() {
            if found.is_some() && dialect == Dialect::Strict {
                return Raw::Odd(TWICE);
            }
            found = found.or(Some(value));
        } else {
            // Some trim what stands before the `=`; PHP makes a variable of any name.
            let trimmed = dialect == Dialect::Strict && written.trim_ascii_end() == name.as_bytes();
            if trimmed || wanted.php(written) != Php::Other {
                return Raw::Odd(ALIKE);
            }
        }
    }
    match found {
        None => Raw::Absent,
        // In PHP a name with brackets is an array; elsewhere quotes and escapes belong to the value or do not.
        Some(_) if dialect == Dialect::Php && wanted.brackets => Raw::Odd(ARRAY),
        Some(value) if dialect == Dialect::Strict && memchr::memchr2(b'%', b'"', value).is_some() => Raw::Odd(ENCODING),
        Some(value) => Raw::Value(unescape(Cow::Borrowed(value))),
    }
}

/// Collects what the fields of one request say of the wanted one; also fed by multipart bodies.
pub(super) struct Fields<'n, 'a> {
    wanted: Wanted<'n>,
    dialect: Dialect,
    pub(super) found: Sight<'a>,
}

/// What was seen of the wanted field so far.
pub(super) enum Sight<'a> {
    Nothing,
    Value(&'a [u8]),
    Odd(&'static str),
}

impl<'n, 'a> Fields<'n, 'a> {
    pub(super) fn wanted(name: &'n str, dialect: Dialect) -> Self {
        Self { wanted: Wanted::new(name), dialect, found: Sight::Nothing }
    }

    /// Takes in one field by its decoded name.
    pub(super) fn see(&mut self, written: &[u8], value: &'a [u8]) {
        match self.dialect {
            Dialect::Strict => self.see_strict(written, value),
            Dialect::Php => self.see_php(written, value),
        }
    }

    fn see_strict(&mut self, written: &[u8], value: &'a [u8]) {
        let exact = written == self.wanted.name.as_bytes();
        self.found = match self.found {
            Sight::Odd(why) => Sight::Odd(why),
            Sight::Nothing if exact => Sight::Value(value),
            Sight::Value(_) if exact => Sight::Odd(TWICE),
            // A name with brackets is taken to the letter here, and its neighbours are other members of the array.
            _ if !exact && !self.wanted.brackets && self.wanted.php(written) != Php::Other => Sight::Odd(ALIKE),
            Sight::Nothing => Sight::Nothing,
            Sight::Value(value) => Sight::Value(value),
        };
    }

    fn see_php(&mut self, written: &[u8], value: &'a [u8]) {
        match self.wanted.php(written) {
            Php::Other => {}
            // Whatever follows, versions of PHP differ on this one.
            _ if matches!(self.found, Sight::Odd(ALIKE)) => {}
            Php::Unsure => self.found = Sight::Odd(ALIKE),
            Php::Array => self.found = Sight::Odd(ARRAY),
            Php::Scalar if self.wanted.brackets => self.found = Sight::Odd(ARRAY),
            Php::Scalar => self.found = Sight::Value(value),
        }
    }

    /// Takes in a part that carries a file under this name.
    pub(super) fn file(&mut self, written: &[u8]) {
        if written == self.wanted.name.as_bytes() || self.wanted.php(written) != Php::Other {
            self.found = Sight::Odd(ALIKE);
        }
    }

    /// Some old readers take `;` for `&`.
    fn semicolons(&mut self, piece: &[u8]) {
        let hit = split(piece, b';').any(|part| {
            let name = unplus(name_and_value(part).0);
            *name == *self.wanted.name.as_bytes() || self.wanted.php(&name) != Php::Other
        });
        if hit {
            self.found = Sight::Odd("a semicolon, which some take for `&`");
        }
    }
}

/// The name that is looked for, and what PHP makes of it.
struct Wanted<'n> {
    name: &'n str,
    /// The variable that PHP puts it in.
    variable: Cow<'n, [u8]>,
    /// Whether PHP reads an array out of the name.
    brackets: bool,
}

/// Whose field a written name is in PHP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Php {
    Other,
    Scalar,
    Array,
    Unsure,
}

impl<'n> Wanted<'n> {
    fn new(name: &'n str) -> Self {
        let bytes = name.as_bytes();
        let (start, brackets) = match memchr::memchr(b'[', bytes) {
            Some(at) if memchr::memchr(b']', &bytes[at..]).is_some() => (&bytes[..at], true),
            _ => (bytes, false),
        };
        let variable = if plain(start) { Cow::Borrowed(start) } else { Cow::Owned(mangle(cut(start))) };
        Self { name, variable, brackets }
    }

    /// Whether a name that is what is written could be that of the wanted field, here or in PHP.
    fn is_spelt(&self, written: &[u8]) -> bool {
        *written == *self.name.as_bytes() || *written == *self.variable
    }

    /// Spaces in front are dropped, a NUL ends the name, and what no PHP variable may hold becomes `_`.
    fn php(&self, written: &[u8]) -> Php {
        let is = |same: bool| if same { Php::Scalar } else { Php::Other };
        if plain(written) {
            return is(*written == *self.variable);
        }
        let written = cut(written);
        let Some(at) = memchr::memchr(b'[', written) else {
            return is(mangle(written) == *self.variable);
        };
        let base = mangle(&written[..at]);
        if base.is_empty() {
            return Php::Other;
        }
        if memchr::memchr(b']', &written[at..]).is_some() {
            return if base == *self.variable { Php::Array } else { Php::Other };
        }
        // A bracket that is never closed becomes `_`; what follows it is left alone by some versions.
        let whole = mangle(written);
        let kept = [&base, b"_".as_slice(), &written[at + 1..]].concat();
        match (whole == *self.variable, kept == *self.variable) {
            (true, true) => Php::Scalar,
            (false, false) => Php::Other,
            _ => Php::Unsure,
        }
    }
}

fn plain(name: &[u8]) -> bool {
    !name.iter().any(|byte| matches!(byte, b' ' | b'.' | b'[' | 0))
}

fn cut(name: &[u8]) -> &[u8] {
    let spaces = name.iter().take_while(|byte| **byte == b' ').count();
    let name = &name[spaces..];
    &name[..memchr::memchr(0, name).unwrap_or(name.len())]
}

fn mangle(name: &[u8]) -> Vec<u8> {
    name.iter().map(|byte| if matches!(byte, b' ' | b'.' | b'[') { b'_' } else { *byte }).collect()
}

fn split(raw: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    raw.split(move |byte| *byte == separator)
}

fn name_and_value(piece: &[u8]) -> (&[u8], &[u8]) {
    memchr::memchr(b'=', piece).map_or((piece, &[]), |at| (&piece[..at], &piece[at + 1..]))
}

/// Decodes `+` and percent-encoding; what is no encoding stays as it is, as in PHP.
fn unplus(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'+', raw).is_none() {
        return unescape(Cow::Borrowed(raw));
    }
    unescape(Cow::Owned(raw.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect()))
}

fn unescape(raw: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', &raw).is_none() { raw } else { Cow::Owned(percent_decode(&raw).collect()) }
}

fn well_encoded(raw: &[u8]) -> bool {
    memchr::memchr_iter(b'%', raw)
        .all(|at| raw.get(at + 1..at + 3).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}
