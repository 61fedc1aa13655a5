//! Whether the app has booked what nobody knows that it got: its own books are asked, and only read.
//!
//! A provider is never asked: it knows that somebody has paid, and not what the app has made of that.

use std::sync::Arc;

use super::{Intake, reading::Rulebook};
use crate::{
    dispatch::{App, StepError},
    lookup::Lookup,
    provider::{self, generic::GENERIC},
    store::Store,
    transaction::{
        effect::{Books, Input},
        state::{Delivery, Letter},
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
                let (delivery, then) = (delivery.id.0, after.phase.as_str());
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

/// What the books say of all that a delivery tells. One payment that is missing is enough for it to be sent again.
async fn in_the_books(lookup: Option<&Lookup>, letter: &Letter) -> Books {
    let Some(lookup) = lookup else { return Books::Closed };
    let mut references: Vec<_> = letter.events.iter().map(|event| &*event.reference).collect();
    references.sort_unstable();
    references.dedup();
    if references.len() > MOST_ASKED {
        return Books::Closed;
    }
    for reference in references {
        match lookup.is_booked(letter.provider, reference).await {
            None => return Books::Closed,
            Some(Ok(true)) => {}
            Some(Ok(false)) => return Books::NotBooked,
            Some(Err(_)) => return Books::Silent,
        }
    }
    let ack = provider::by_name(letter.provider).unwrap_or(&GENERIC).ack;
    Books::Booked(Arc::new(ack.answer()))
}
