//! What is held can be found by its names, so that the payer's return ends the hold.

use std::sync::Arc;

use super::{App, Dispatch, StepError};
use crate::{
    callback::Key,
    store::Store,
    time::Timestamp,
    transaction::{
        effect::{Change, Input, Transition},
        lock::{Claimed, LeaseId},
        state::{Letter, Phase},
    },
};

impl<S: Store, A: App> Dispatch<S, A> {
    /// A held delivery can be found by its names.
    pub(super) fn note_held(&self, id: LeaseId, claimed: &Claimed) {
        for name in &claimed.names {
            self.held.entry(name.key).or_default().push(id);
        }
    }

    pub(super) fn unhold(&self, id: LeaseId, letter: &Letter) {
        if letter.policy.hold.is_zero() || self.held.is_empty() {
            return;
        }
        for name in &letter.claimed.names {
            if let Some(mut ids) = self.held.get_mut(&name.key) {
                ids.retain(|held| *held != id);
            }
            self.held.remove_if(&name.key, |_, ids| ids.is_empty());
        }
    }

    /// The payer's return has been through under these names: what is held for it need not wait longer.
    pub async fn end_holds(self: &Arc<Self>, names: impl Iterator<Item = Key>) {
        for name in names {
            let Some((_, ids)) = self.held.remove(&name) else { continue };
            for id in ids {
                match self.step(id, &Input::HoldOver).await {
                    Ok(_) | Err(StepError::Refused(_)) => {}
                    Err(error) => tracing::warn!(delivery = id.0, %error, "a hold could not be ended early"),
                }
            }
        }
    }
}

/// The delivery that this transition holds, for the payer's return to find. One that follows another is held for that.
pub(super) fn newly_held(transition: &Transition) -> Option<(LeaseId, Arc<Letter>)> {
    let is_claimed = |id| transition.transactions.iter().any(|(_, t)| t.claims.iter().any(|c| c.is_pending_in(id)));
    transition.deliveries.iter().find_map(|change| match change {
        Change::Put(delivery)
            if matches!(delivery.phase, Phase::Held { until } if until != Timestamp::NEVER)
                && delivery.version == 0
                && is_claimed(delivery.id) =>
        {
            Some((delivery.id, Arc::clone(&delivery.letter)))
        }
        _ => None,
    })
}
