//! What the app's own database knows of a callback's payment: names that it does not carry itself.
//!
//! What is found by a provider's reference tells the payment from others. What is found by any other name only makes the lock
//! wider, for such a name may get another payment between the question and the callback's turn.

use std::sync::Arc;

use super::{
    Intake,
    reading::{Reading, Rulebook},
};
use crate::{
    callback::Channel,
    dispatch::App,
    lookup::{Lookup, NameKind, Naming},
    store::{Store, Want},
    transaction::{
        effect::{Transition, View},
        lock::{Kind, LockName},
    },
};

impl<S: Store, A: App> Intake<S, A> {
    /// Completes the names of a callback by what the database knows; whether anything had to be asked. What is remembered or
    /// has been decided already is not asked for.
    pub(super) async fn look_up(&self, lookup: &Arc<Lookup>, book: &Rulebook, reading: &mut Reading) -> bool {
        let namings = &lookup.options().names;
        if namings.is_empty() || reading.policy.shadow {
            return false;
        }
        let keys: Vec<_> =
            reading.statements.iter().flatten().map(|statement| statement.identified.transaction).collect();
        let now = self.dispatch.clock_now();
        // A store that fails says so when it is decided about.
        let loaded = self.dispatch.store.load(Want::Transactions(&keys, &reading.claimed.names), now).await;
        let Ok(view) = loaded else { return false };
        let questions = questions(namings, reading, &view);
        let asked = !questions.is_empty();
        for (place, naming, value) in questions {
            if let Ok(found) = lookup.ask(place, &value).await {
                take(reading, book, naming, &value, &found);
            }
        }
        asked
    }

    /// What was found for a return is remembered before anybody waits: its webhook need not ask then.
    pub(super) async fn remember_links(self: &Arc<Self>, reading: &Reading) {
        if reading.looked_up.is_empty() {
            return;
        }
        let transition = Transition { links: reading.looked_up.clone(), ..Transition::default() };
        if let Err(error) = self.dispatch.commit(transition).await {
            tracing::warn!(%error, "what was looked up is not remembered");
        }
    }
}

/// Which of these queries are asked about a callback, by their places, and with what.
#[must_use]
pub fn questions<'n>(namings: &'n [Naming], reading: &Reading, view: &View) -> Vec<(usize, &'n Naming, String)> {
    let asked = |(place, naming): (usize, &'n Naming)| Some((place, naming, value_of(reading, view, naming)?));
    namings.iter().enumerate().filter_map(asked).collect()
}

/// What has to be asked with, if this has to be asked at all.
fn value_of(reading: &Reading, view: &View, naming: &Naming) -> Option<String> {
    let kind = Kind::named(naming.to.pieces());
    if reading.claimed.kinds.contains(&kind) || view.linked.iter().any(|name| name.kind == kind) {
        return None;
    }
    let (reference, aliases) = match (reading.claimed.channel, reading.statements.as_deref()) {
        (Channel::Return, Ok(_)) => (reading.reference.as_deref(), &reading.aliases),
        // In a batch nobody could tell which name belongs to which.
        (Channel::Webhook, Ok([one])) => {
            let mut known = view.transactions.iter().filter(|(key, _)| *key == one.identified.transaction);
            if known.any(|(_, transaction)| transaction.claim(one.identified.identity).is_some()) {
                return None;
            }
            (Some(&*one.event.reference), &one.event.aliases)
        }
        _ => return None,
    };
    match &naming.from {
        NameKind::Reference(provider) => reference.filter(|_| reading.provider.name == *provider).map(str::to_owned),
        NameKind::Alias(from) => aliases.iter().find(|alias| alias.kind == *from).map(|alias| alias.value.clone()),
    }
}

/// Takes what was found among the names.
fn take(reading: &mut Reading, book: &Rulebook, naming: &Naming, value: &str, found: &[String]) {
    // What databases compare in ways of their own makes no name: then it is as if nothing were known.
    if found.is_empty() || !found.iter().all(|name| name.is_ascii()) {
        return;
    }
    let own = LockName::new(&book.upstream, naming.from.pieces(), value);
    for name in found {
        let other = LockName::new(&book.upstream, naming.to.pieces(), name);
        if !reading.claimed.names.contains(&other) {
            reading.claimed.names.push(other);
        }
        if [&naming.from, &naming.to].iter().any(|kind| matches!(kind, NameKind::Reference(_))) {
            reading.looked_up.push((own, other));
        }
    }
    if let NameKind::Reference(_) = naming.from {
        reading.claimed.kinds.push(Kind::named(naming.to.pieces()));
    }
}
