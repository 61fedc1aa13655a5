//! The providers: a slice from which configuration keys, metric labels, the docs table and the conformance tests come.

pub mod adyen;
pub mod alipay;
mod amount;
pub mod authorizenet;
pub mod blockonomics;
pub mod braintree;
pub mod btcpay;
pub mod checkout;
pub mod coinbase_commerce;
pub mod contract;
pub mod eway;
pub mod extract;
pub mod flutterwave;
pub mod forte;
pub mod generic;
pub mod gocardless;
pub mod inquiry;
pub mod klarna;
pub mod lemonsqueezy;
pub mod mercadopago;
pub mod midtrans;
pub mod mollie;
pub mod paddle;
pub mod payfast;
pub mod paypal;
pub mod paystack;
pub mod payu;
pub mod przelewy24;
pub mod razorpay;
pub mod signature;
pub mod square;
pub mod standard_webhooks;
pub mod stripe;
pub mod unionpay;
pub mod wechatpay_v2;
pub mod wechatpay_v3;
pub mod xendit;

use std::{fmt::Write, time::Duration};

use crate::callback::{Alias, Event, State};
use contract::{Keyring, Provider, Scheme, SecretKind, Unrecognised};
use extract::{Found, Place, Places, Reader, decimal};

/// Every provider the gate knows by name.
pub static PROVIDERS: &[&Provider] = &[
    &mollie::MOLLIE,
    &stripe::STRIPE,
    &paypal::PAYPAL,
    &gocardless::GOCARDLESS,
    &square::SQUARE,
    &checkout::CHECKOUT,
    &btcpay::BTCPAY,
    &razorpay::RAZORPAY,
    &paystack::PAYSTACK,
    &lemonsqueezy::LEMONSQUEEZY,
    &coinbase_commerce::COINBASE_COMMERCE,
    &paddle::PADDLE,
    &flutterwave::FLUTTERWAVE,
    &xendit::XENDIT,
    &forte::FORTE,
    &authorizenet::AUTHORIZENET,
    &braintree::BRAINTREE,
    &adyen::ADYEN,
    &payfast::PAYFAST,
    &blockonomics::BLOCKONOMICS,
    &eway::EWAY,
    &midtrans::MIDTRANS,
    &mercadopago::MERCADOPAGO,
    &klarna::KLARNA,
    &przelewy24::PRZELEWY24,
    &payu::PAYU,
    &alipay::ALIPAY,
    &wechatpay_v2::WECHATPAY_V2,
    &wechatpay_v3::WECHATPAY_V3,
    &unionpay::UNIONPAY,
    &standard_webhooks::STANDARD_WEBHOOKS,
    &generic::GENERIC,
];

/// The provider with this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Provider> {
    PROVIDERS.iter().copied().find(|p| p.name == name)
}

/// The one provider whose callbacks look like this request (`provider = "auto"`).
///
/// The shape decides. Where it is that of several or of none, the header fields do that few of them send. What might
/// still be one or another is read as nobody's.
#[must_use]
pub fn recognise(reader: &Reader<'_>) -> Option<&'static Provider> {
    let marked =
        |provider: &&&'static Provider| provider.marks.iter().any(|mark| reader.view().headers.contains_key(*mark));
    let mut alike = PROVIDERS.iter().filter(|provider| (provider.recognise)(reader));
    match (alike.next(), alike.next()) {
        (None, _) => only(PROVIDERS.iter().filter(marked)),
        (Some(one), None) => Some(one),
        (Some(one), Some(other)) => only([one, other].into_iter().chain(alike).filter(marked)),
    }
}

fn only(mut providers: impl Iterator<Item = &'static &'static Provider>) -> Option<&'static Provider> {
    providers.next().filter(|_| providers.next().is_none()).copied()
}

/// The statements of a callback: what the provider says, and over it what the rule's places say.
///
/// Places speak of one event; where a callback carries several, only other names may be added, to all of them.
///
/// # Errors
///
/// If no one reference can be read, or a place that is named can be read in two ways.
pub fn read(
    provider: &Provider,
    keyring: &Keyring,
    places: &Places,
    reader: &Reader<'_>,
) -> Result<Vec<Event>, Unrecognised> {
    let events = (provider.events)(reader, keyring);
    let names = Names::read(reader, places)?;
    let mut events = match (events, &names.reference) {
        (Ok(events), _) => events,
        // What the provider's own reading misses, the rule may know.
        (Err(_), Some(_)) => vec![Event::default()],
        (Err(why), None) => return Err(missing(places).unwrap_or(why)),
    };
    match events.as_mut_slice() {
        [] => return Err(Unrecognised("the callback carries no event".into())),
        [event] => override_event(event, reader, places, names)?,
        several if speaks_of_one(places, reader) => {
            let count = several.len();
            return Err(Unrecognised(format!("the rule's places speak of one event, the callback carries {count}")));
        }
        several => several.iter_mut().for_each(|event| add_names(event, &names.aliases)),
    }
    Ok(events)
}

/// The names that a callback goes by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The provider's id of the payment; a return often does not carry it.
    pub reference: Option<String>,
    /// Every other name.
    pub aliases: Vec<Alias>,
}

impl Names {
    fn read(reader: &Reader<'_>, places: &Places) -> Result<Self, Unrecognised> {
        let mut names = Self { reference: told(reader.first(&places.reference))?, aliases: Vec::new() };
        for (kind, places) in &places.aliases {
            if let Some(value) = told(reader.first(places))? {
                names.aliases.push(Alias { kind: kind.clone(), value });
            }
        }
        Ok(names)
    }
}

/// The names that a return carries; none is no fault.
///
/// # Errors
///
/// If a place that is named can be read in two ways.
pub fn names(places: &Places, reader: &Reader<'_>) -> Result<Names, Unrecognised> {
    Names::read(reader, places)
}

/// Whether the app may read a name where we cannot tell which: at one of the rule's places stands what can be read in two
/// ways.
#[must_use]
pub fn is_doubtful(places: &Places, reader: &Reader<'_>) -> bool {
    let mut names = places.reference.iter().chain(places.aliases.iter().flat_map(|(_, places)| places));
    names.any(|place| matches!(reader.read(place), Found::Ambiguous(_)))
}

/// What stands in the places that make two events the same (`identity = [places]`), by place; what is absent or empty
/// is left out.
///
/// # Errors
///
/// If one of them can be read in two ways, or none of them is there: nothing would make all events the same.
pub fn identity(places: &Places, reader: &Reader<'_>) -> Result<Vec<(String, String)>, Unrecognised> {
    let mut parts = Vec::with_capacity(places.identity.len());
    for place in &places.identity {
        if let Some(value) = told(reader.read(place))? {
            parts.push((place.to_string(), value));
        }
    }
    if parts.is_empty() { Err(nothing_at(&places.identity)) } else { Ok(parts) }
}

/// Whether anything stands in the places that are about an event, and not about a whole callback.
fn speaks_of_one(places: &Places, reader: &Reader<'_>) -> bool {
    let keys = [&places.reference, &places.event_id, &places.state, &places.amount, &places.currency];
    keys.into_iter().flatten().any(|place| reader.read(place) != Found::Absent)
}

fn override_event(event: &mut Event, reader: &Reader<'_>, places: &Places, names: Names) -> Result<(), Unrecognised> {
    add_names(event, &names.aliases);
    if let Some(reference) = names.reference {
        event.reference = reference;
    } else if matches!(reader.first(&places.reference), Found::Empty) {
        return Err(nothing_at(&places.reference));
    }
    if let Some(id) = told(reader.first(&places.event_id))? {
        event.event_id = Some(id);
    }
    if let Some(text) = told(reader.first(&places.state))? {
        set_state(event, text);
    }
    if let Some(text) = told(reader.first_amount(&places.amount))? {
        event.amount = decimal(&text);
        add_fact(event, "amount", text);
    }
    if let Some(text) = told(reader.first(&places.currency))? {
        event.currency = Some(text.to_ascii_uppercase());
        add_fact(event, "currency", text);
    }
    Ok(())
}

fn add_names(event: &mut Event, aliases: &[Alias]) {
    for alias in aliases {
        event.aliases.retain(|known| known.kind != alias.kind);
        event.aliases.push(alias.clone());
    }
}

/// One of our words is a state; any other tells this state from another, and no more.
fn set_state(event: &mut Event, text: String) {
    event.state = State::ALL.into_iter().find(|state| state.as_str() == text);
    event.detail = event.state.is_none().then(|| text.clone());
    set_fact(event, "state", text);
}

fn set_fact(event: &mut Event, name: &'static str, text: String) {
    event.facts.retain(|(known, _)| *known != name);
    event.facts.push((name, text));
}

/// An amount tells two refunds apart, but alone it does not tell a refund from the payment: then nothing is told.
fn add_fact(event: &mut Event, name: &'static str, text: String) {
    if !event.facts.is_empty() {
        set_fact(event, name, text);
    }
}

fn told(found: Found<'_>) -> Result<Option<String>, Unrecognised> {
    match found {
        Found::One(text) => Ok(Some(text.into_owned())),
        Found::Absent | Found::Empty => Ok(None),
        Found::Ambiguous(why) => Err(Unrecognised(why)),
    }
}

fn missing(places: &Places) -> Option<Unrecognised> {
    (!places.reference.is_empty()).then(|| nothing_at(&places.reference))
}

fn nothing_at(places: &[Place]) -> Unrecognised {
    let places: Vec<_> = places.iter().map(ToString::to_string).collect();
    Unrecognised(format!("nothing stands at {}", places.join(", ")))
}

/// The table of providers, in Markdown, for the README.
#[must_use]
pub fn docs_table() -> String {
    let mut table = String::from(
        "| provider | name in the config | signed | asked | made when missing | acknowledged by | waits | retries for |\n|---|---|---|---|---|---|---|---|\n",
    );
    for p in PROVIDERS {
        let signed = match &p.scheme {
            Scheme::Unsigned => "no",
            Scheme::Signed(signing) if signing.kinds.first() == Some(&SecretKind::Token) => "a token",
            Scheme::Signed(_) => "yes",
        };
        let asked = match p.inquiry {
            None => "no",
            Some(inquiry) if inquiry.unclear => "with a key",
            Some(_) => "if wanted",
        };
        let made = if p.inquiry.is_some_and(|inquiry| inquiry.missing.notice().is_some()) { "yes" } else { "no" };
        let body = if p.ack.body.is_empty() { String::new() } else { format!(" `{}`", p.ack.body) };
        let (status, waits, retries) = (p.ack.status.as_u16(), span(p.answer_limit), span(p.retry_span));
        // Writing to a string cannot fail.
        let _ = writeln!(
            table,
            "| {} | `{}` | {signed} | {asked} | {made} | {status}{body} | {waits} | {retries} |",
            p.title, p.name
        );
    }
    table
}

/// A span of time, as people say it.
#[must_use]
pub fn span(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds >= 48 * 3600 && seconds % (24 * 3600) == 0 => format!("{} d", seconds / (24 * 3600)),
        seconds if seconds >= 3600 && seconds % 3600 == 0 => format!("{} h", seconds / 3600),
        seconds if seconds >= 120 && seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

#[cfg(test)]
mod tests;
