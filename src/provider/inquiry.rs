//! How a provider is asked what has become of a payment, and how its answer is read: as data, for the hand that asks.

pub mod access;

use std::{borrow::Cow, collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Uri};

use self::access::{Access, Credential};
use super::{
    contract::{Keyring, Unrecognised},
    extract::{Dialect, Reader, Value, decimal},
};
use crate::callback::{Event, Key, RequestView, State};

/// How a provider is asked.
#[derive(Debug)]
pub struct Inquiry {
    /// Whether callbacks of its leave open what happened, so that they are asked about. Otherwise it is asked only by who wants
    /// more (`Inquire::Always`).
    pub unclear: bool,
    /// Where its API is, unless the configuration says otherwise.
    pub url: &'static str,
    /// What can be asked for; the first that is for an event is.
    pub questions: &'static [Question],
    /// Fields that every question has, their names in lower case.
    pub headers: &'static [(&'static str, &'static str)],
    /// How a key is shown.
    pub access: Access,
    /// Reads the answer: which payment it is about, what has become of it (`facts` and all), and its other names.
    pub read: fn(Value<'_>) -> Result<Event, NoEvent>,
    /// Whether a callback that never came can be made of an answer. Only what would be the same as the provider's own, down to
    /// what it is known by: else the real one, when it comes late, is another one.
    pub missing: Missing,
    /// Where this stands: addresses of its manuals.
    pub sources: &'static [&'static str],
}

/// Whether a callback that never came can be made.
#[derive(Debug)]
pub enum Missing {
    /// So it is.
    Made(Notice),
    /// It can't, for this reason, which people read behind "not made: ".
    Not(&'static str),
}

impl Missing {
    /// How it is made, if it is.
    #[must_use]
    pub const fn notice(&self) -> Option<&Notice> {
        match self {
            Self::Made(notice) => Some(notice),
            Self::Not(_) => None,
        }
    }
}

/// A callback that can be made of an answer: a POST to where the provider would have called.
#[derive(Debug)]
pub struct Notice {
    /// As which kind of event the payment is asked about, where that decides about the question.
    pub event_type: Option<&'static str>,
    /// Where it goes.
    pub place: Where,
    /// The content type.
    pub content_type: &'static str,
    /// The body.
    pub body: Body,
}

/// Where a callback would have been sent.
#[derive(Debug)]
pub enum Where {
    /// To the address that the answer tells.
    Told(fn(Value<'_>) -> Option<String>),
    /// To where the callback came that told of the payment's beginning.
    Began,
}

/// What a callback would have said.
#[derive(Debug)]
pub enum Body {
    /// Nothing but which payment it is about.
    Names(fn(&str) -> String),
    /// What the answer says, byte for byte, if this holds of it.
    Repeats(fn(Value<'_>) -> bool),
    /// An event of the provider's own, which its answer lists, id and all.
    Lists {
        /// A callback with this event alone, of the answer as it is read and as it came.
        write: fn(Value<'_>, &[u8]) -> Option<String>,
        /// The field that signs it, by the secret that the provider shares with this endpoint.
        sign: fn(&Keyring, &[u8]) -> Option<Field>,
    },
}

impl Notice {
    /// The callback, by this answer about this payment; `None` where it makes none.
    fn call(&self, json: Value<'_>, answer: &[u8], reference: &str) -> Option<Call> {
        let place = match self.place {
            Where::Told(read) => Some(read(json)?),
            Where::Began => None,
        };
        let body = match self.body {
            Body::Names(write) => write(reference).into(),
            Body::Repeats(holds) => holds(json).then(|| Bytes::copy_from_slice(answer))?,
            Body::Lists { write, .. } => write(json, answer)?.into(),
        };
        Some(Call { place, body })
    }

    /// Whether it has to be signed with what the configuration has.
    #[must_use]
    pub const fn is_signed(&self) -> bool {
        matches!(self.body, Body::Lists { .. })
    }

    /// The field that signs a callback with this body; `None` where it needs none.
    ///
    /// # Errors
    ///
    /// If it needs one, and there is no secret.
    pub fn signature(&self, keyring: &Keyring, body: &[u8]) -> Result<Option<Field>, Unsigned> {
        match self.body {
            Body::Names(_) | Body::Repeats(_) => Ok(None),
            Body::Lists { sign, .. } => sign(keyring, body).map(Some).ok_or(Unsigned),
        }
    }
}

/// A header field: its name, in lower case, and what it says.
pub type Field = (&'static str, String);

/// A callback that would have been signed, and for which there is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsigned;

/// What is asked for.
#[derive(Debug)]
pub struct Question {
    /// Whether it is what an event is about.
    pub is_for: fn(&Event) -> bool,
    /// Path and query. `{reference}` is the payment, another word in braces its name of this kind, and `{account}` whose key
    /// signs.
    pub path: &'static str,
}

/// Why an answer that came with the status of success tells of no payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoEvent {
    /// It can't be read.
    Unreadable(Unrecognised),
    /// It says that there is no such payment.
    NotFound,
    /// It says that the key is not let in.
    Refused,
    /// It says that something is wrong over there.
    Failed(String),
}

impl From<Unrecognised> for NoEvent {
    fn from(why: Unrecognised) -> Self {
        Self::Unreadable(why)
    }
}

/// The longest reference that is asked for.
const LONGEST: usize = 128;

impl Inquiry {
    /// Path and query by which what this event is about is asked for; `None` where nothing of it can be. A reference is what
    /// somebody wrote into a callback, so only letters, digits and a few marks get into a path.
    #[must_use]
    pub fn path(&self, event: &Event) -> Option<String> {
        let question = self.questions.iter().find(|question| (question.is_for)(event))?;
        let mut path = question.path.to_owned();
        let aliases = event.aliases.iter().map(|alias| (&*alias.kind, &*alias.value));
        for (kind, value) in aliases.chain([("reference", &*event.reference)]) {
            let place = format!("{{{kind}}}");
            if path.contains(&place) {
                path = is_plain(value).then(|| path.replace(&place, value))?;
            }
        }
        let open = path.replace("{account}", "");
        (is_plain(&event.reference) && !open.contains('{')).then_some(path)
    }

    /// What an answer says of the payment that was asked for.
    #[must_use]
    pub fn told(&self, reference: &str, body: &[u8]) -> Told {
        let (uri, headers) = (Uri::from_static("/"), HeaderMap::new());
        let view = RequestView { method: &Method::GET, uri: &uri, headers: &headers, body, segments: &[] };
        let reader = Reader::new(&view, Dialect::Strict);
        match (self.read)(reader.json()) {
            Ok(event) if event.reference == reference => {
                let call = self.missing.notice().and_then(|notice| notice.call(reader.json(), body, reference));
                Told::Event(Arc::new(Said { event, call }))
            }
            Ok(_) => Told::Another,
            Err(why) => Told::Nothing(why),
        }
    }
}

/// Whether it can stand in a path as it is, and in a text between quotation marks.
fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'~');
    (1..=LONGEST).contains(&name.len()) && name.bytes().all(plain) && !name.bytes().all(|byte| byte == b'.')
}

/// What a provider says of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// What has become of it.
    pub event: Event,
    /// The callback that it would have made of that, where it can be made.
    pub call: Option<Call>,
}

/// A callback made of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The address that the answer tells; `None` where it goes to where the payment began.
    pub place: Option<String>,
    /// The body.
    pub body: Bytes,
}

/// What an answer comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// This has become of the payment.
    Event(Arc<Said>),
    /// It is about another payment than was asked for.
    Another,
    /// It tells of none.
    Nothing(NoEvent),
}

/// An amount that has moved, in the one form in which it is compared; `None` where nothing has.
///
/// # Errors
///
/// If it can't be read: whoever can't tell how much has moved can't tell what happened.
pub fn moved(value: Value<'_>) -> Result<Option<String>, Unrecognised> {
    let Some(text) = value.amount()? else { return Ok(None) };
    let amount = decimal(&text).ok_or_else(|| Unrecognised(format!("{text:?} is no amount")))?;
    let shortest = if amount.contains('.') { amount.trim_end_matches('0').trim_end_matches('.') } else { &amount };
    Ok((shortest != "0" && shortest != "-0").then(|| shortest.to_owned()))
}

/// What a list holds, by id and step, in no order but its own; `None` where it holds nothing.
///
/// # Errors
///
/// If something in it can't be read.
pub fn listed<'j>(
    list: Value<'j>,
    step: fn(Value<'j>) -> Result<Cow<'j, str>, Unrecognised>,
) -> Result<Option<String>, Unrecognised> {
    let one = |item: Value<'j>| Ok(format!("{} {}", item.get("id").needed()?, step(item)?));
    let mut told = list.items()?.map(one).collect::<Result<Vec<_>, Unrecognised>>()?;
    told.sort_unstable();
    Ok((!told.is_empty()).then(|| told.join(",")))
}

/// What the user has of one provider's API.
#[derive(Clone, Debug)]
pub struct Api {
    /// The provider's name; a label.
    pub provider: &'static str,
    /// How it is asked.
    pub inquiry: &'static Inquiry,
    /// Where it is, without a slash at the end.
    pub url: String,
    /// The accounts' keys, made ready; never none.
    pub keys: Vec<Credential>,
    /// About what it is asked.
    pub inquire: Inquire,
    /// How long a callback waits for the answer.
    pub timeout: Duration,
    /// When a callback that is a repeat by the answer alone is asked about once more; zero is never.
    pub recheck: Duration,
    /// How long a payment that has begun is waited for before it is asked about; `None` where none is.
    pub missing_after: Option<Duration>,
}

/// About which callbacks a provider is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inquire {
    /// Those that do not say what happened.
    #[default]
    Unclear,
    /// All, for what they leave out, and for what nobody has signed.
    Always,
}

/// What is to be asked, and whom.
#[derive(Clone, Debug)]
pub struct Asking {
    /// Whom.
    pub api: Arc<Api>,
    /// Path and query.
    pub path: String,
    /// The payment, which the answer has to be about.
    pub reference: Arc<str>,
    /// The payment's key: what is asked about one payment at a time is asked once.
    pub payment: Key,
    /// Where the callback belongs: what comes there is mostly of one account.
    pub scope: Key,
    /// Whether the answer alone says what happened, so that a repeat is one by the provider's word only.
    pub settles: bool,
}

/// Whom can be asked, by the provider's name.
pub type Apis = HashMap<&'static str, Arc<Api>>;

/// How far what a provider says goes together with what a callback tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// The callback does not say what happened; what is known of it is the provider's word.
    Whole,
    /// Both say the same, so that it counts as if it were signed.
    Same,
    /// The callback tells an earlier state, or one that both may be right about.
    Apart,
    /// The callback tells that money has moved, and the provider says that none has.
    Against,
}

impl Word {
    /// Whether the provider vouches for what is known of the callback.
    #[must_use]
    pub const fn vouches(self) -> bool {
        matches!(self, Self::Whole | Self::Same)
    }
}

/// An event with what its provider says of it: what the callback tells by itself stays, and so does its own id.
#[must_use]
pub fn completed(mut event: Event, told: &Event) -> (Event, Word) {
    for alias in &told.aliases {
        if !event.aliases.contains(alias) {
            event.aliases.push(alias.clone());
        }
    }
    if event.event_id.is_none() && event.facts.is_empty() {
        let Event { state, step, detail, amount, currency, facts, .. } = told.clone();
        return (Event { state, step, detail, amount, currency, facts, ..event }, Word::Whole);
    }
    let word = match (event.state, told.state) {
        (Some(said), Some(is)) if said == is => Word::Same,
        (Some(said), Some(is)) if has_moved(said) && !has_moved(is) => Word::Against,
        _ => Word::Apart,
    };
    if event.state.is_none() && event.detail.is_none() {
        (event.state, event.step, event.detail) = (told.state, told.step, told.detail.clone());
    }
    if event.amount.is_none() {
        (event.amount, event.currency) = (told.amount.clone(), told.currency.clone());
    }
    (event, word)
}

/// Whether money has moved in this state.
const fn has_moved(state: State) -> bool {
    match state {
        State::Paid | State::Refunded | State::ChargedBack => true,
        State::Pending | State::Failed | State::Cancelled => false,
    }
}

#[cfg(test)]
mod tests;
