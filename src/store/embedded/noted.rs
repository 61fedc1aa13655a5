//! What has changed and is not written yet: which records, not what stands in them.
//!
//! A record that changes twice between two groups is written once, as it is when the group is taken.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    disk::{Group, Space},
    record::{self, Lease, Rest},
    seal::Seals,
};
use crate::{
    callback::Key,
    spread::Spread,
    store::state::{State, Touched},
    transaction::{
        effect::{Change, LockChange, Transition},
        lock::LeaseId,
        policy::Policy,
    },
};

/// What has changed.
#[derive(Debug, Default)]
pub(super) struct Noted {
    pub(super) transactions: HashSet<Key, Spread>,
    pub(super) deliveries: HashSet<LeaseId, Spread>,
    leases: HashSet<LeaseId, Spread>,
    names: HashSet<Key, Spread>,
    bills: HashSet<Key, Spread>,
    /// Tries whose senders wait for this before they begin.
    pub(super) begun: Vec<(LeaseId, u32)>,
    /// The leases that have, or shall have, a record of their own; not emptied with the rest.
    kept: HashMap<LeaseId, Rest, Spread>,
    policies: Policies,
    /// What deliveries are sealed with.
    seals: Seals,
}

/// The policies that have a record, each with its digest. The same few decide about everything.
#[derive(Debug, Default)]
struct Policies(Vec<(Arc<Policy>, Key)>);

/// Beyond so many, they are written again.
const MOST_POLICIES: usize = 256;

impl Noted {
    /// Nothing has changed; deliveries are sealed with these.
    pub(super) fn sealed_with(seals: Seals) -> Self {
        Self { seals, ..Self::default() }
    }

    /// Whether nothing has changed.
    pub(super) fn is_empty(&self) -> bool {
        self.transactions.is_empty()
            && self.deliveries.is_empty()
            && self.leases.is_empty()
            && self.names.is_empty()
            && self.bills.is_empty()
    }

    /// All that this transition changes, leases that it grants aside.
    pub(super) fn transition(&mut self, transition: &Transition) {
        self.transactions.extend(transition.transactions.iter().map(|(key, _)| *key));
        self.deliveries.extend(transition.deliveries.iter().map(|change| match change {
            Change::Put(delivery) => delivery.id,
            Change::Remove(id, _) => *id,
        }));
        for change in &transition.locks {
            match change {
                LockChange::Enqueue(..) | LockChange::Seize(..) | LockChange::Require(_) | LockChange::Places(_) => {}
                LockChange::Release(lease) | LockChange::Requeue(lease, _) => {
                    if self.kept.remove(lease).is_some() {
                        self.leases.insert(*lease);
                    }
                }
                LockChange::Linger(lease, _) => self.keep(*lease, Rest::Lingers),
                LockChange::Keep(lease, _) => self.keep(*lease, Rest::InApp),
                LockChange::Names(lease) => self.keep(*lease, Rest::Names),
            }
        }
        self.bills.extend(transition.bills.iter().map(|(key, _)| *key));
        self.names.extend(transition.returned.iter().map(|name| name.key));
        self.names.extend(transition.links.iter().flat_map(|(a, b)| [a.key, b.key]));
    }

    /// A lease is held of which no delivery tells, or not all. Always true, for its owner has to wait.
    pub(super) fn granted(&mut self, lease: LeaseId) -> bool {
        self.keep(lease, Rest::InApp);
        true
    }

    /// A delivery is not what its record says.
    pub(super) fn delivery(&mut self, id: LeaseId) {
        self.deliveries.insert(id);
    }

    /// A lease has a record of its own, in this way.
    pub(super) fn keep(&mut self, lease: LeaseId, rest: Rest) {
        self.kept.insert(lease, rest);
        self.leases.insert(lease);
    }

    /// The record of a lease is no longer needed.
    pub(super) fn drop_lease(&mut self, lease: LeaseId) {
        self.kept.remove(&lease);
        self.leases.insert(lease);
    }

    /// A lease has this record already.
    pub(super) fn found(&mut self, lease: LeaseId, rest: Rest) {
        self.kept.insert(lease, rest);
    }

    pub(super) fn touched(&mut self, touched: Touched) {
        match touched {
            Touched::Transaction(key) => _ = self.transactions.insert(key),
            Touched::Name(key) => _ = self.names.insert(key),
            Touched::Bill(key) => _ = self.bills.insert(key),
        }
    }

    /// Puts every noted record into the group as it is now; what is left is what stays known.
    pub(super) fn write(&mut self, state: &State, group: &mut Group) -> Self {
        for key in &self.transactions {
            let transaction = state.transaction(key);
            group.set(Space::Transactions, *key, transaction, |t, into| record::write_transaction(&t, into));
        }
        for id in &self.deliveries {
            let key = record::number_key(id.0);
            match state.deliveries.get(id) {
                Some(delivery) => {
                    let policy = self.policies.digest(&delivery.letter.policy, group);
                    group.put(Space::Deliveries, &key, |into| {
                        let start = into.len();
                        record::write_delivery(delivery, policy, into);
                        self.seals.seal(&key, into, start);
                    });
                }
                None => group.remove(Space::Deliveries, &key),
            }
        }
        for lease in &self.leases {
            let key = record::number_key(lease.0);
            let rest = self.kept.get(lease);
            match rest.and_then(|rest| Some((*rest, state.locks.seat(*lease)?))) {
                Some((rest, seat)) => {
                    let lease = Lease { seat, rest, until: state.leases.get(lease).copied() };
                    group.put(Space::Leases, &key, |into| record::write_lease(&lease, into));
                }
                None => {
                    self.kept.remove(lease);
                    group.remove(Space::Leases, &key);
                }
            }
        }
        for key in &self.names {
            group.set(Space::Names, *key, state.names.get(key), record::write_remembered);
        }
        for key in &self.bills {
            group.set(Space::Bills, *key, state.bills.get(key), record::write_billed);
        }
        Self {
            kept: std::mem::take(&mut self.kept),
            policies: std::mem::take(&mut self.policies),
            seals: self.seals.clone(),
            ..Self::default()
        }
    }
}

impl Policies {
    /// The digest of a policy, which gets its record with the first delivery that it decided about.
    fn digest(&mut self, policy: &Arc<Policy>, group: &mut Group) -> Key {
        if let Some((_, digest)) = self.0.iter().find(|(known, _)| Arc::ptr_eq(known, policy)) {
            return *digest;
        }
        let mut bytes = Vec::new();
        record::write_policy(policy, &mut bytes);
        let digest = Key::of("policy").part("record", &bytes).finish();
        group.put(Space::Policies, digest.as_bytes(), |into| into.extend_from_slice(&bytes));
        if self.0.len() >= MOST_POLICIES {
            self.0.clear();
        }
        self.0.push((Arc::clone(policy), digest));
        digest
    }
}
