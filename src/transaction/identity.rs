//! Under which keys an event is known: its transaction, and what makes it *the same* as another.

use std::sync::Arc;

use ring::digest;

use super::policy::IdentityBy;
use crate::callback::{Alias, Event, Key, KeyBuilder};

/// Where a callback belongs, so that two accounts with one reference never meet: the upstream and the values of the
/// path's named segments; the host only where the rule says so.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// The upstream, as configured.
    pub upstream: &'a str,
    /// The host, where it is part of the scope.
    pub host: Option<&'a str>,
    /// The named segments of the path.
    pub segments: &'a [(Arc<str>, String)],
}

impl Scope<'_> {
    fn key(&self, kind: &str) -> KeyBuilder {
        let mut key = Key::of(kind).part("upstream", self.upstream);
        if let Some(host) = self.host {
            key = key.part("host", host.to_ascii_lowercase());
        }
        for (name, value) in self.segments {
            key = key.part(name, value);
        }
        key
    }
}

/// The keys of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identified {
    /// The reference's life at our gate.
    pub transaction: Key,
    /// What makes this event the same as another.
    pub identity: Key,
    /// Whether the identity says nothing of what happened, so that it holds for a window only.
    pub windowed: bool,
    /// A digest of what the event tells, by which a known event id with another state is noticed; 0 if it tells nothing.
    pub told: u64,
}

impl Identified {
    /// The same event, told without the signature that its provider's have: whatever it tells, what is signed tells
    /// something else, and is never taken for a repetition of it.
    #[must_use]
    pub fn unsigned(self) -> Self {
        Self { told: first_bytes(Key::of("unsigned").part("told", self.told.to_be_bytes()).finish()), ..self }
    }
}

/// Finds the keys of `event`. `body` is the whole body; `places` what the rule's identity places gave.
#[must_use]
pub fn identify(
    scope: &Scope<'_>,
    provider: &str,
    event: &Event,
    by: IdentityBy,
    body: &[u8],
    places: &[(String, String)],
) -> Identified {
    let transaction = scope.key("transaction").part("provider", provider).part("reference", &event.reference).finish();
    let part = |what: &str| Key::of("identity").part("transaction", transaction.as_bytes()).part("by", what);
    let told = told(event);
    let by_event = || event.event_id.as_ref().map(|id| part("event").part("id", id).finish());
    let by_state = || {
        (!event.facts.is_empty())
            .then(|| event.facts.iter().fold(part("state"), |key, (name, value)| key.part(name, value)).finish())
    };
    let found = match by {
        IdentityBy::Auto | IdentityBy::Event => by_event().or_else(by_state),
        IdentityBy::State => by_state(),
        IdentityBy::Reference => None,
        IdentityBy::Body => Some(part("body").part("sha256", digest::digest(&digest::SHA256, body)).finish()),
        IdentityBy::Places => {
            Some(places.iter().fold(part("places"), |key, (place, value)| key.part(place, value)).finish())
        }
    };
    let identity = found.unwrap_or_else(|| part("reference").finish());
    Identified { transaction, identity, windowed: found.is_none(), told }
}

/// The keys of what is paid once, of all that goes by these names: those of these kinds, where it belongs.
#[must_use]
pub fn bills(scope: &Scope<'_>, names: &[Alias], kinds: &[Arc<str>]) -> Vec<Key> {
    let named = names.iter().filter(|alias| kinds.contains(&alias.kind));
    named.map(|alias| scope.key("bill").part("kind", &*alias.kind).part("name", &alias.value).finish()).collect()
}

fn told(event: &Event) -> u64 {
    if event.facts.is_empty() {
        return 0;
    }
    let key = event.facts.iter().fold(Key::of("told"), |key, (name, value)| key.part(name, value)).finish();
    first_bytes(key)
}

fn first_bytes(key: Key) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&key.as_bytes()[..8]);
    u64::from_be_bytes(bytes).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(scope: &[(&str, &str)], event: &Event, by: IdentityBy) -> Identified {
        let segments: Vec<_> = scope.iter().map(|(k, v)| (Arc::from(*k), (*v).to_owned())).collect();
        let scope = Scope { upstream: "http://app", host: None, segments: &segments };
        identify(&scope, "mollie", event, by, b"id=tr_1", &[])
    }

    fn event(id: Option<&str>, facts: &[(&'static str, &str)]) -> Event {
        Event {
            reference: "tr_1".into(),
            event_id: id.map(Into::into),
            facts: facts.iter().map(|(k, v)| (*k, (*v).to_owned())).collect(),
            ..Event::default()
        }
    }

    #[test]
    fn two_accounts_with_one_reference_never_meet() {
        let a = of(&[("company_key", "a"), ("gateway", "g")], &event(None, &[]), IdentityBy::Auto);
        let b = of(&[("company_key", "b"), ("gateway", "g")], &event(None, &[]), IdentityBy::Auto);
        assert!(a.transaction != b.transaction && a.identity != b.identity);
    }

    #[test]
    fn what_came_unsigned_is_the_same_event_and_another_tale() {
        let signed = of(&[], &event(Some("e"), &[("status", "paid")]), IdentityBy::Auto);
        assert_eq!(signed.unsigned().identity, signed.identity);
        assert!(signed.unsigned().told != signed.told && signed.unsigned().told != 0);
        assert_eq!(signed.unsigned(), signed.unsigned());
    }

    #[test]
    fn what_tells_nothing_is_the_same_for_a_window_only() {
        assert!(of(&[], &event(None, &[]), IdentityBy::Auto).windowed);
        assert!(of(&[], &event(Some("e"), &[]), IdentityBy::Reference).windowed);
        assert!(!of(&[], &event(Some("e"), &[]), IdentityBy::Auto).windowed);
        assert!(!of(&[], &event(None, &[]), IdentityBy::Body).windowed);
    }

    #[test]
    fn another_state_is_another_event_and_another_tale() {
        let paid = of(&[], &event(None, &[("status", "paid")]), IdentityBy::Auto);
        let refunded = of(&[], &event(None, &[("status", "refunded")]), IdentityBy::Auto);
        assert!(paid.identity != refunded.identity && paid.told != refunded.told);
        assert_eq!(paid.transaction, refunded.transaction);
    }
}
