//! A callback of any provider: recognised, checked and read. The first byte says whose it is; a request on the wire follows.

use std::{collections::HashSet, sync::LazyLock};

use oncegate::{
    callback::{Event, Signature},
    provider::{
        PROVIDERS,
        contract::{Keyring, Provider},
        extract::{Dialect, Reader},
        recognise,
    },
    time::Timestamp,
};

use super::request::{Recorded, Request, recorded};

/// What the holder of the secret has ever said of money, by provider.
type Said = HashSet<(String, Option<&'static str>, Option<String>, Option<String>)>;

/// A provider with what its callbacks are signed with.
struct Known {
    provider: &'static Provider,
    keyring: Keyring,
    times: Vec<Timestamp>,
    /// `None` where the signature covers less than the body.
    said: Option<Said>,
}

static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| recorded().into_iter().map(Known::of).collect());

impl Known {
    fn of(recorded: Recorded) -> Self {
        let Recorded { provider, keyring, is_covered, requests } = recorded;
        let mut said = Said::new();
        for (raw, now) in &requests {
            let request = Request::parse(raw).expect("a fixture is a request");
            for dialect in [Dialect::Strict, Dialect::Php] {
                let reader = Reader::new(&request.view(), dialect);
                if provider.scheme.check(&reader, &keyring, *now) == Signature::Valid {
                    said.extend((provider.events)(&reader, &keyring).into_iter().flatten().map(told));
                }
            }
        }
        let mut times: Vec<_> = requests.into_iter().map(|(_, now)| now).collect();
        times.sort_unstable();
        times.dedup();
        Self { provider, keyring, times, said: (is_covered && !said.is_empty()).then_some(said) }
    }
}

fn told(event: Event) -> (String, Option<&'static str>, Option<String>, Option<String>) {
    (event.reference, event.state.map(|state| state.as_str()), event.amount, event.currency)
}

pub fn try_it(bytes: &[u8]) {
    let Some((whose, raw)) = bytes.split_first() else { return };
    let Some(request) = Request::parse(raw) else { return };
    let known = &KNOWN[usize::from(*whose) % KNOWN.len()];
    let provider = known.provider;
    let [strict, php] = [Dialect::Strict, Dialect::Php].map(|dialect| {
        let reader = Reader::new(&request.view(), dialect);
        let again = Reader::new(&request.view(), dialect);
        assert_eq!(recognise(&reader).map(|p| p.name), recognise(&again).map(|p| p.name));
        let read = (provider.events)(&reader, &known.keyring);
        assert_eq!(read, (provider.events)(&again, &known.keyring), "{}: read twice", provider.name);
        for event in read.iter().flatten() {
            is_sound(event, provider, raw.len());
        }
        assert!(read.as_ref().map_or(true, |events| !events.is_empty()), "{}: events or a reason", provider.name);
        for now in &known.times {
            let signature = provider.scheme.check(&reader, &known.keyring, *now);
            assert_eq!(signature, provider.scheme.check(&again, &known.keyring, *now));
            if let (Signature::Valid, Some(said), Ok(events)) = (signature, &known.said, &read) {
                // Nobody can sign but who has the secret, and he has said no more than what is recorded.
                for event in events {
                    assert!(said.contains(&told(event.clone())), "{}: a forgery: {event:?}", provider.name);
                }
            }
        }
        assert_eq!(
            provider.scheme.check(&reader, &Keyring::default(), Timestamp::default()),
            Signature::Unchecked,
            "{}: without a secret",
            provider.name
        );
        read
    });
    // PHP tells what two readers tell in two ways; where all are of one mind, so are these two.
    if let (Ok(strict), Ok(php)) = (strict, php) {
        assert_eq!(strict, php, "{}: the dialects", provider.name);
    }
    let reader = Reader::new(&request.view(), Dialect::Strict);
    for other in PROVIDERS {
        _ = (other.recognise)(&reader);
    }
}

/// What may become a key, a name or a figure.
fn is_sound(event: &Event, provider: &Provider, length: usize) {
    let name = provider.name;
    assert!(!event.reference.is_empty(), "{name}: a payment has a name");
    assert!(event.event_id.as_ref().is_none_or(|id| !id.is_empty()), "{name}: an id is a text");
    assert!(event.aliases.iter().all(|alias| !alias.value.is_empty()), "{name}: a name is a text");
    if let Some(amount) = &event.amount {
        let digits = amount.strip_prefix('-').unwrap_or(amount);
        let whole = digits.split('.').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
        assert!(whole && digits.matches('.').count() <= 1, "{name}: {amount:?} is no decimal number");
    }
    if let Some(currency) = &event.currency {
        assert!(currency.bytes().all(|byte| !byte.is_ascii_lowercase()), "{name}: {currency:?} is no currency");
    }
    // Nothing takes memory but in proportion to what came: what is told stood there, at most escaped anew.
    let told = event.facts.iter().map(|(_, value)| value.len()).sum::<usize>() + event.reference.len();
    assert!(told <= 32 * length + 1024, "{name}: {told} bytes out of {length}");
}

pub fn seeds() -> Vec<Vec<u8>> {
    let of = |(whose, recorded): (usize, Recorded)| {
        let whose = u8::try_from(whose).expect("few providers");
        recorded.requests.into_iter().map(move |(raw, _)| [&[whose][..], &raw].concat())
    };
    recorded().into_iter().enumerate().flat_map(of).collect()
}
