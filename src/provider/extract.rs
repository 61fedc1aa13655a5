//! Where a value stands in a request, and how the app behind us would read it there.

use std::{fmt, str::FromStr};

/// Whose reading of a request counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Dialect {
    /// What can be read in two ways is ambiguous.
    #[default]
    Strict,
    /// As PHP reads it.
    Php,
}

/// Where one value stands: `form:id`, `json:$.data.object.id`, `query:payment_hash`, `header:X-Event-Id`,
/// `path:gateway`, `cookie:session`, `body`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// A field of a form body.
    Form(String),
    /// A value in a JSON body.
    Json(String),
    /// A parameter of the query.
    Query(String),
    /// A header field.
    Header(String),
    /// A named segment of the path.
    Path(String),
    /// A cookie.
    Cookie(String),
    /// A digest of the whole body.
    Body,
}

/// The text names no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` names no place: write form:NAME, json:$.PATH, query:NAME, header:NAME, path:NAME, cookie:NAME or body")]
pub struct NoPlace(pub String);

impl FromStr for Place {
    type Err = NoPlace;

    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let no = || NoPlace(text.to_owned());
        if text == "body" {
            return Ok(Self::Body);
        }
        let (kind, name) = text.split_once(':').filter(|(_, name)| !name.is_empty()).ok_or_else(no)?;
        let name = name.to_owned();
        Ok(match kind {
            "form" => Self::Form(name),
            "json" => Self::Json(name),
            "query" => Self::Query(name),
            "header" => Self::Header(name),
            "path" => Self::Path(name),
            "cookie" => Self::Cookie(name),
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
    pub aliases: Vec<(std::sync::Arc<str>, Vec<Place>)>,
    /// What makes two events the same (`identity = [places]`).
    pub identity: Vec<Place>,
}
