//! What is kept for a person instead of being forwarded, because its rule says `review`.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
};

use http::StatusCode;

use super::{
    Intake, MOST_ROUNDS, Reply,
    noted::Noted,
    reading::{Reading, Rulebook},
    reply::{RETRYABLE, plain, reply_ack, reply_with},
};
use crate::{
    callback::Key,
    dispatch::App,
    store::{CommitError, Store, Want},
    transaction::{
        arrival::{Arrival, Arriving, Course, Decision, Inquired, arrive, turned_away},
        history::Reason,
        identity::Identified,
        lock::LeaseId,
        money::Moves,
        state::StoredRequest,
    },
};

/// So many wait for a person at most by the wish of a rule; one more is left to its sender.
const MOST_KEPT: usize = 256;

impl<S: Store, A: App> Intake<S, A> {
    /// Whether there is no room to keep one more for a person.
    pub(super) fn keeps_enough(&self) -> bool {
        self.dispatch.store.counts().review >= MOST_KEPT
    }

    /// Answers that there is no room, and shows a person that there was none: by a sample, the next one only when he has
    /// dealt with the last.
    pub(super) async fn turn_away(&self, arrival: Arrival, line: Noted<'_>, why: &str) -> Reply<A::Body> {
        let sample = self.turned_away.load(Ordering::Relaxed);
        let now = self.dispatch.clock_now();
        let view = self.dispatch.store.load(Want::Delivery(LeaseId(sample)), now).await;
        let next = arrival.id.0;
        let first = view.is_ok_and(|view| view.deliveries.is_empty())
            && self.turned_away.compare_exchange(sample, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if first && let Err(error) = self.dispatch.commit(turned_away(arrival, now)).await {
            tracing::warn!(%error, "what was turned away can't be shown to a person");
        }
        self.overflow(line, why)
    }

    /// Keeps what can't be trusted, or read. Nobody can say what it is about, so only the same bytes at the same place are
    /// the same again.
    pub(super) async fn keep(
        self: &Arc<Self>,
        book: &Rulebook,
        reading: &Reading,
        request: StoredRequest,
        source: IpAddr,
        decision: Decision,
        mut line: Noted<'_>,
    ) -> Reply<A::Body> {
        let reason = if decision == Decision::Unverified { Reason::Unverified } else { Reason::Unrecognised };
        let key = Key::of("kept")
            .part("upstream", &*book.upstream)
            .part("reason", reason.as_str())
            .part("target", request.uri.to_string())
            .part("body", &request.body)
            .finish();
        let event = Arriving {
            identified: Identified { transaction: key, identity: key, windowed: false, told: 0 },
            reference: Arc::from(""),
            state: None,
            step: None,
            moves: Moves::Undocumented,
            bills: Vec::new(),
            verified: false,
            policy: Arc::clone(&reading.policy),
        };
        let request = Arc::new(request);
        for _ in 0..MOST_ROUNDS {
            let now = self.dispatch.clock_now();
            let view = match self.dispatch.store.load(Want::Transactions(&[key], &[]), now).await {
                Ok(view) => view,
                Err(error) => return self.no_store(&error, line),
            };
            let arrival = Arrival {
                id: self.dispatch.next_id(),
                next: self.dispatch.next_id(),
                events: vec![event.clone()],
                provider: reading.provider.name,
                source: Some(source),
                request: Arc::clone(&request),
                claimed: reading.claimed.clone(),
                came: now,
                inquired: Inquired::No,
                kept: Some((decision, reason)),
            };
            let (decided, transition) = arrive(&view, arrival, now);
            if decided.course == Course::Keep && self.keeps_enough() {
                return self.overflow(line, "too much waits for a person already");
            }
            match self.dispatch.commit(transition).await {
                Ok(()) => {}
                Err(CommitError::Conflict) => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Err(CommitError::Store(error)) => return self.no_store(&error, line),
                Err(error) => return self.overflow(line, &error.to_string()),
            }
            if decided.course != Course::Keep {
                line.why = decided.why.into();
            }
            let told = match decided.course {
                Course::Ack => reply_ack(&reading.provider.ack),
                Course::Replay(answer) => reply_with(&answer),
                _ => plain(StatusCode::SERVICE_UNAVAILABLE, RETRYABLE),
            };
            return line.tell(&self.book, told);
        }
        self.overflow(line, "it could not be decided: too much comes in between")
    }
}
