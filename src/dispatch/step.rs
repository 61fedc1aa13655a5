//! One step of one delivery: loaded, decided and committed, anew until the decision stands.

use std::sync::Arc;

use super::{App, Dispatch, Heard, MOST_CONFLICTS};
use crate::{
    store::{CommitError, Store, StoreError, Want},
    time::Clock,
    transaction::{
        effect::{Change, Effect, Input, Transition, View},
        lock::LeaseId,
        state::{Delivery, Letter, Phase},
        transition::{self, Refused},
    },
};

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// It can't be, or comes too late.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It can't be written.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<StoreError> for StepError {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}

impl<S: Store, A: App> Dispatch<S, A> {
    /// Decides about one delivery until the decision stands.
    ///
    /// # Errors
    ///
    /// [`StepError`] when it is refused, or can't be committed.
    pub async fn step(self: &Arc<Self>, id: LeaseId, input: &Input) -> Result<Delivery, StepError> {
        self.step_with(id, input, None).await
    }

    pub(super) async fn step_with(
        self: &Arc<Self>,
        id: LeaseId,
        input: &Input,
        heard: Option<&Heard>,
    ) -> Result<Delivery, StepError> {
        for _ in 0..MOST_CONFLICTS {
            let now = self.clock.now();
            let view = self.store.load(Want::Delivery(id), now).await?;
            let mut transition = transition::apply(&view, id, input.clone(), now)?;
            let after = after(&view, &transition, id)?;
            let told =
                transition.effects.iter().position(|effect| matches!(effect, Effect::Tell(told, _) if *told == id));
            // Whoever brings the outcome tells it, for only he has the whole answer.
            let told = told.map(|at| transition.effects.remove(at));
            let unheld = removed_unsent(&view, &transition);
            match self.commit(transition).await {
                Ok(()) => {
                    unheld.iter().for_each(|(id, letter)| self.unhold(*id, letter));
                    if matches!(after.phase, Phase::Unknown { .. }) {
                        let reference = after.letter.events.first().map(|event| &*event.reference);
                        tracing::warn!(delivery = id.0, reference, "it is unknown whether the app got it");
                    }
                    if let Some(Effect::Tell(_, ending)) = told {
                        self.tell(id, || heard.cloned().unwrap_or(Heard::unheard(ending)));
                    }
                    return Ok(after);
                }
                Err(CommitError::Conflict) => tokio::task::yield_now().await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(CommitError::Conflict.into())
    }
}

/// What was held and will not be sent at all, for another has brought what it carries.
fn removed_unsent(view: &View, transition: &Transition) -> Vec<(LeaseId, Arc<Letter>)> {
    let is_unsent = |delivery: &&Delivery| matches!(delivery.phase, Phase::Held { .. } | Phase::Queued);
    let unsent = |change: &Change| match change {
        Change::Remove(id, _) => view.delivery(*id).filter(is_unsent),
        Change::Put(_) => None,
    };
    transition.deliveries.iter().filter_map(unsent).map(|gone| (gone.id, Arc::clone(&gone.letter))).collect()
}

/// The delivery as the transition leaves it; as it was, where it is removed.
fn after(view: &View, transition: &Transition, id: LeaseId) -> Result<Delivery, Refused> {
    let put = transition.deliveries.iter().find_map(|change| match change {
        Change::Put(delivery) if delivery.id == id => Some(delivery),
        _ => None,
    });
    put.or_else(|| view.delivery(id)).cloned().ok_or(Refused::Gone)
}
