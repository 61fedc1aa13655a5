//! The provider of whom nothing is known: its callbacks say what the rule's places read.

use std::time::Duration;

use http::StatusCode;

use super::contract::{Ack, Moves, Provider, Scheme, Unrecognised};

/// A provider that a rule describes by places. It signs nothing that we know of, is taken to wait no longer than the
/// impatient ones and to retry as long as the stubborn ones.
pub static GENERIC: Provider = Provider {
    name: "generic",
    title: "any other",
    marks: &[],
    recognise: |_| false,
    scheme: Scheme::Unsigned,
    events: |_, _| {
        Err(Unrecognised("nothing is known of this provider: let a rule say where its reference stands".into()))
    },
    event_ids: false,
    batches: false,
    inquiry: None,
    ack: Ack::empty(StatusCode::OK),
    refusal: 401,
    paid_once: &[],
    moves: Moves::Undocumented,
    answer_limit: Duration::from_secs(5),
    retry_span: Duration::from_secs(30 * 24 * 3600),
    sources: &["https://www.standardwebhooks.com/"],
};
