//! Whether the app has booked what nobody knows that it got: its own books are asked, and only read.
//!
//! A provider is never asked: it knows that somebody has paid, and not what the app has made of that.

use std::sync::Arc;

use super::{Intake, reading::Rulebook};
use crate::{
    callback::Answer,
    dispatch::{App, StepError},
    lookup::Lookup,
    provider::{self, generic::GENERIC},
    store::Store,
    transaction::{
        effect::{Books, Input},
        state::{Delivery, Letter, Phase},
    },
};

/// So many payments of one batch are asked about; a person, or the app itself, sees sooner what has become of more.
const MOST_ASKED: usize = 16;

impl<S: Store, A: App> Intake<S, A> {
    /// Asks the app's own books about a delivery. Whatever becomes of that, its time comes again.
    pub(super) async fn confirm(&self, book: &Rulebook, delivery: &Delivery) {
        let books = in_the_books(book.lookup.as_deref(), &delivery.letter).await;
        let word = word(&books);
        self.dispatch.metrics.count_confirmation(word);
        let reference = delivery.letter.events.first().map(|event| &*event.reference);
        match self.dispatch.step(delivery.id, &Input::Confirmed { attempt: delivery.attempts, books }).await {
            Ok(after) => {
                // What has come to its end is told as it was.
                let settled = matches!(after.phase, Phase::Confirming { .. }) && word == "booked";
                let (delivery, then) = (delivery.id.0, if settled { "settled" } else { after.phase.as_str() });
                tracing::info!(
                    delivery,
                    reference,
                    books = word,
                    then,
                    "it was unknown, and the app's own books were asked"
                );
            }
            // Somebody was faster: a person, or an outcome that came late.
            Err(StepError::Refused(_)) => {}
            Err(error) => {
                tracing::warn!(delivery = delivery.id.0, %error, "what the app's own books say is not written down")
            }
        }
    }
}

/// The word in metrics and logs.
const fn word(books: &Books) -> &'static str {
    match books {
        Books::Booked(_) => "booked",
        Books::NotBooked => "not_booked",
        Books::Silent => "no_answer",
        Books::Closed => "nobody",
    }
}

/// What the books say of all that a delivery tells.
async fn in_the_books(lookup: Option<&Lookup>, letter: &Letter) -> Books {
    let Some(lookup) = lookup else { return Books::Closed };
    let mut references: Vec<_> = letter.events.iter().map(|event| &*event.reference).collect();
    references.sort_unstable();
    references.dedup();
    if references.len() > MOST_ASKED {
        return Books::Closed;
    }
    let mut told = Vec::with_capacity(references.len());
    for reference in references {
        match lookup.is_booked(letter.provider, reference).await {
            None => return Books::Closed,
            Some(Ok(booked)) => told.push(booked),
            Some(Err(_)) => return Books::Silent,
        }
    }
    in_all(&told, || Arc::new(provider::by_name(letter.provider).unwrap_or(&GENERIC).ack.answer()))
}

/// What is said of a whole batch. It is sent again as a whole, so that of one of which a part is there nobody can say anything:
/// the app would book that part twice.
fn in_all(told: &[bool], answer: impl FnOnce() -> Arc<Answer>) -> Books {
    match (told.contains(&true), told.contains(&false)) {
        (true, false) => Books::Booked(answer()),
        (false, true) => Books::NotBooked,
        _ => Books::Closed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_batch_all_is_there_or_nothing_or_nobody_can_say() {
        let answer = Arc::new(GENERIC.ack.answer());
        let said = |told: &[bool]| in_all(told, || Arc::clone(&answer));
        assert_eq!(said(&[true, true]), Books::Booked(Arc::clone(&answer)));
        assert_eq!(said(&[false, false]), Books::NotBooked);
        assert_eq!(
            (said(&[true, false]), said(&[false, true]), said(&[])),
            (Books::Closed, Books::Closed, Books::Closed)
        );
    }
}
