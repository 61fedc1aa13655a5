//! A value of a JSON body, as the file of a provider reads it: by names, down to texts.

use std::borrow::Cow;

use super::{
    Found, Unrecognised,
    json::{At, Document, Slot, text},
    judge,
};

/// A value of a JSON body, or that there is none, with the name it was looked for by.
///
/// What can be read in two ways ends every reading with the reason; where it only decides whose callback this is
/// ([`is`](Self::is), [`begins`](Self::begins), [`is_there`](Self::is_there)), it is as good as absent.
#[derive(Clone, Copy)]
pub struct Value<'d> {
    document: Option<&'d Document<'d>>,
    at: At,
    name: &'d str,
}

impl<'d> Value<'d> {
    pub(super) const fn root(document: Result<Option<&'d Document<'d>>, &'static str>) -> Self {
        let (document, at) = match document {
            Ok(Some(document)) => (Some(document), document.root()),
            Ok(None) => (None, At::Nothing),
            Err(why) => (None, At::Odd(why)),
        };
        Self { document, at, name: "the body" }
    }

    /// The member of this name.
    #[must_use]
    pub fn get(self, name: &'d str) -> Self {
        match self.document {
            Some(document) => Self { at: document.member(self.at, name), name, ..self },
            None => self,
        }
    }

    /// The member at the end of these names.
    #[must_use]
    pub fn at<const N: usize>(self, names: [&'d str; N]) -> Self {
        names.into_iter().fold(self, Self::get)
    }

    /// This value, or the other where this one is absent or `null`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        if matches!(self.slot(), Slot::Absent | Slot::Null) { other } else { self }
    }

    /// The text that stands here; a number is the text it was written with, `null` and an empty text are none.
    ///
    /// # Errors
    ///
    /// If it can be read in two ways, or not as text.
    pub fn text(self) -> Result<Option<Cow<'d, str>>, Unrecognised> {
        match self.document.map_or_else(|| self.empty(), |d| text(self.slot(), d.dialect())) {
            Ok(None) => Ok(None),
            Ok(Some(text)) => match judge(&self.name, text) {
                Found::One(text) => Ok(Some(text)),
                Found::Absent | Found::Empty => Ok(None),
                Found::Ambiguous(why) => Err(Unrecognised(why)),
            },
            Err(why) => Err(self.unclear(why)),
        }
    }

    /// The text that has to stand here.
    ///
    /// # Errors
    ///
    /// If there is none, and as [`text`](Self::text).
    pub fn needed(self) -> Result<Cow<'d, str>, Unrecognised> {
        self.text()?.ok_or_else(|| Unrecognised(format!("the event has no {}", self.name)))
    }

    /// As [`text`](Self::text), for an amount: a number with decimals is read as it is written, though PHP makes
    /// another text of it, for an amount names nothing.
    ///
    /// # Errors
    ///
    /// As [`text`](Self::text).
    pub fn amount(self) -> Result<Option<Cow<'d, str>>, Unrecognised> {
        match self.slot() {
            Slot::Number(digits) => Ok(Some(Cow::Borrowed(digits))),
            _ => self.text(),
        }
    }

    /// As [`text`](Self::text), for a text that names nothing and may be long.
    ///
    /// # Errors
    ///
    /// If it can be read in two ways, or is no text.
    pub fn long(self) -> Result<Option<Cow<'d, str>>, Unrecognised> {
        match self.slot() {
            Slot::Absent | Slot::Null => Ok(None),
            Slot::Text(text) => Ok(Some(text)),
            Slot::Odd(why) => Err(self.unclear(why)),
            Slot::Number(_) | Slot::Bool(_) => Err(self.unclear("it is no text")),
        }
    }

    /// The value as the shortest JSON says it: a number as it is written, a text with nothing escaped that need not be;
    /// nothing for what is no plain value.
    #[must_use]
    pub fn compact(self) -> Option<String> {
        match self.slot() {
            Slot::Null => Some("null".to_owned()),
            Slot::Bool(value) => Some(value.to_string()),
            Slot::Number(digits) => Some(digits.to_owned()),
            Slot::Text(text) => serde_json::to_string(&text).ok(),
            Slot::Absent | Slot::Odd(_) => None,
        }
    }

    /// Whether `true` stands here, or the text of it; nothing is neither.
    ///
    /// # Errors
    ///
    /// If it is something else.
    pub fn flag(self) -> Result<Option<bool>, Unrecognised> {
        match self.slot() {
            Slot::Absent | Slot::Null => Ok(None),
            Slot::Bool(flag) => Ok(Some(flag)),
            Slot::Text(text) if text == "true" => Ok(Some(true)),
            Slot::Text(text) if text == "false" => Ok(Some(false)),
            _ => Err(self.unclear("it is neither true nor false")),
        }
    }

    /// The values of the list that stands here; none where nothing does.
    ///
    /// # Errors
    ///
    /// If it is no list.
    pub fn items(self) -> Result<impl Iterator<Item = Self>, Unrecognised> {
        let list = match (self.at, self.document) {
            (At::Odd(why), _) => return Err(self.unclear(why)),
            (At::Node(index), Some(document)) if document.is_list(index) => Some((document, index)),
            _ if matches!(self.slot(), Slot::Absent | Slot::Null) => None,
            _ => return Err(self.unclear("it is no list")),
        };
        let items = list.into_iter().flat_map(|(document, index)| document.items(index));
        Ok(items.map(move |item| Self { at: At::Node(item), ..self }))
    }

    /// Whether an object stands here.
    #[must_use]
    pub fn is_object(self) -> bool {
        matches!((self.at, self.document), (At::Node(index), Some(document)) if document.is_object(index))
    }

    /// The names of the object that stands here, as they are written, and no name twice to a careful reader.
    pub fn names(self) -> impl Iterator<Item = &'d str> {
        let object = match (self.at, self.document) {
            (At::Node(index), Some(document)) => Some((document, index)),
            _ => None,
        };
        object.into_iter().flat_map(|(document, index)| document.names(index))
    }

    /// Whether anything stands here that is clear.
    #[must_use]
    pub const fn is_there(self) -> bool {
        matches!(self.at, At::Node(_))
    }

    /// Whether this text stands here.
    #[must_use]
    pub fn is(self, wanted: &str) -> bool {
        matches!(self.slot(), Slot::Text(text) if text == wanted)
    }

    /// Whether a text that begins so stands here.
    #[must_use]
    pub fn begins(self, with: &str) -> bool {
        matches!(self.slot(), Slot::Text(text) if text.starts_with(with))
    }

    fn slot(self) -> Slot<'d> {
        match (self.document, self.at) {
            (Some(document), at) => document.slot(at),
            (None, At::Odd(why)) => Slot::Odd(why),
            (None, _) => Slot::Absent,
        }
    }

    const fn empty(self) -> Result<Option<Cow<'d, str>>, &'static str> {
        match self.at {
            At::Odd(why) => Err(why),
            _ => Ok(None),
        }
    }

    fn unclear(self, why: &str) -> Unrecognised {
        Unrecognised(format!("{}: {why}", self.name))
    }
}
