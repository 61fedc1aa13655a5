//! What its provider says of a callback that does not say it: asked while it is held, and once more where only that made it
//! a repeat.
//!
//! While it is asked about, nothing of it is known to the store, for nobody was told anything: whoever sent it will send it
//! again, should the gate end before it has decided.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use dashmap::DashMap;
use http::header::HOST;

use super::{
    Intake, MOST_ROUNDS,
    reading::{Reading, Rulebook, Whole, refused},
};
use crate::{
    callback::{Key, Signature},
    dispatch::App,
    inquiry::Known,
    provider::inquiry::{Asking, Said, Word},
    spread::Spread,
    store::{CommitError, Store, Want},
    time::Timestamp,
    transaction::{
        arrival::{Arrival, Course, Decision, Inquired, arrive},
        effect::{Change, Transition},
        lock::LeaseId,
        policy::Treatment,
        state::{Delivery, Phase, StoredRequest},
    },
};

/// So often is a provider asked once more that does not answer; then the callback goes to the app, unasked.
const TRIES: u32 = 5;

/// What came of asking about one callback.
#[derive(Debug, Default)]
pub struct Inquest {
    /// What the provider says.
    pub said: Option<Arc<Said>>,
    /// The payment, and when it is asked about once more if this is a repeat; only where the provider has said something.
    again: Option<(Key, Duration)>,
    /// Whether the answer was about another payment.
    another: bool,
}

impl Inquest {
    /// An answer about another payment makes the callback as good as forged, and so does one that knows of no money where the
    /// callback, which nobody has signed, tells of some.
    pub fn contradicted<'r>(&self, reading: &'r Reading) -> Option<(Decision, Treatment, &'r str)> {
        let unsigned = reading.signature != Signature::Valid;
        let why = match reading.word {
            _ if self.another => "its provider answers about another payment",
            Some(Word::Against) if unsigned => "it is not signed, and its provider says that no money has moved",
            _ => return None,
        };
        Some((Decision::Unverified, reading.policy.on_unverified, why))
    }
}

/// Which payments are asked about once more already, and when; a gate that may be lost, for one question more does no harm.
#[derive(Default)]
pub struct Rechecks(DashMap<Key, Timestamp, Spread>);

impl Rechecks {
    /// Whether a repeat that comes now has to be asked about once more. One that is to come in a while serves for it, too.
    pub fn wanted(&self, inquest: &Inquest, now: Timestamp) -> Inquired {
        let Some((payment, pause)) = inquest.again else { return Inquired::No };
        let serves = |at: &Timestamp| *at >= now.after(pause / 2);
        if self.0.get(&payment).is_some_and(|at| serves(at.value())) { Inquired::No } else { Inquired::Once(pause) }
    }

    /// It will be asked about then.
    pub fn note(&self, inquest: &Inquest, at: Option<Timestamp>) {
        if let (Some((payment, _)), Some(at)) = (inquest.again, at) {
            self.0.insert(payment, at);
        }
    }

    /// It is being asked about.
    fn over(&self, payment: Key, now: Timestamp) {
        self.0.remove_if(&payment, |_, at| *at <= now);
    }
}

/// When this will be asked about once more.
pub fn is_recheck(change: &Change) -> Option<Timestamp> {
    match change {
        Change::Put(Delivery { phase: Phase::Recheck { at }, .. }) => Some(*at),
        Change::Put(_) | Change::Remove(..) => None,
    }
}

impl<S: Store, A: App> Intake<S, A> {
    /// Asks what has become of the payment.
    pub(super) async fn inquire(&self, question: Asking, source: IpAddr) -> Inquest {
        let again = question.settles.then_some((question.payment, question.api.recheck));
        match self.inquiry.ask(question, Some(source)).await {
            Known::Event(said) => Inquest { said: Some(said), again, another: false },
            Known::Another => Inquest { another: true, ..Inquest::default() },
            Known::Nothing(_) => Inquest::default(),
        }
    }

    /// Asks once more about whatever is to be asked about once more, when its time comes; until the future is dropped. `book`
    /// gives the rules that hold then.
    pub async fn run_rechecks(self: Arc<Self>, book: impl Fn() -> Arc<Rulebook>) {
        let Some(mut asks) = self.dispatch.to_ask() else { return };
        while let Some(id) = asks.recv().await {
            let (intake, book) = (Arc::clone(&self), book());
            tokio::spawn(async move { intake.recheck(&book, id).await });
        }
    }

    async fn recheck(self: Arc<Self>, book: &Rulebook, id: LeaseId) {
        let Some(delivery) = self.to_recheck(id).await else { return };
        match delivery.phase {
            Phase::Awaited { .. } => return self.seek(book, &delivery).await,
            Phase::Confirming { .. } => return self.confirm(book, &delivery).await,
            _ => {}
        }
        let letter = &delivery.letter;
        let StoredRequest { method, uri, headers, body } = &*letter.request;
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let source = text("x-forwarded-for").and_then(|text| text.parse().ok()).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
        let host = text(HOST.as_str()).unwrap_or_default();
        let whole = Whole { method, uri, headers, body, host, source };
        // By the rules that hold now it may be no callback any more; then nobody can say that it is a repeat.
        let Some(route) = book.rules.classify(&whole.head()) else { return self.drop_recheck(&delivery).await };
        // A signature that tells its time is judged by when it came.
        let came = self.dispatch.clock.wall(letter.arrived);
        let mut reading = Reading::of(&route, &whole, book, came);
        for event in &letter.events {
            self.rechecks.over(event.transaction, self.dispatch.clock_now());
        }
        if let Some(question) = reading.question(&route, book) {
            match self.inquiry.ask(question, None).await {
                Known::Event(said) => reading = Reading::told(&route, &whole, book, came, Some(&said.event)),
                Known::Another => return self.drop_recheck(&delivery).await,
                // Its time comes again.
                Known::Nothing(_) if delivery.attempts < TRIES => return,
                Known::Nothing(_) => {}
            }
        }
        if refused(&reading).is_some() {
            return self.drop_recheck(&delivery).await;
        }
        if self.decide_again(&reading, &delivery, None).await == Some(true) {
            let reference = delivery.letter.events.first().map(|event| &*event.reference);
            tracing::info!(reference, "asked once more, its provider tells a change: it is delivered");
        }
    }

    async fn to_recheck(&self, id: LeaseId) -> Option<Delivery> {
        let view = self.dispatch.store.load(Want::Delivery(id), self.dispatch.clock_now()).await.ok()?;
        let asks =
            |phase: Phase| matches!(phase, Phase::Recheck { .. } | Phase::Awaited { .. } | Phase::Confirming { .. });
        view.delivery(id).filter(|delivery| asks(delivery.phase)).cloned()
    }

    async fn is_as(&self, delivery: &Delivery) -> bool {
        self.to_recheck(delivery.id).await.is_some_and(|now| now.version == delivery.version)
    }

    pub(super) async fn drop_recheck(&self, delivery: &Delivery) {
        let deliveries = vec![Change::Remove(delivery.id, delivery.version)];
        if let Err(error) = self.dispatch.commit(Transition { deliveries, ..Transition::default() }).await {
            tracing::warn!(delivery = delivery.id.0, %error, "what was asked about once more stays for now");
        }
    }

    /// Decides about it as about what has just come; nobody will send it again, so what is new is ours to deliver. Whether it
    /// is new; `None` where nothing could be decided. `made` is why it exists, where nobody has sent it at all.
    pub(super) async fn decide_again(
        &self,
        reading: &Reading,
        delivery: &Delivery,
        made: Option<&'static str>,
    ) -> Option<bool> {
        let (letter, events, bills) = (&delivery.letter, reading.arriving(), reading.bills());
        let keys: Vec<_> = events.iter().map(|event| event.identified.transaction).collect();
        for _ in 0..MOST_ROUNDS {
            let now = self.dispatch.clock_now();
            let loaded = self.dispatch.store.load(Want::Arrival(&keys, &reading.claimed, &bills), now).await;
            let Ok(view) = loaded else { return None };
            let arrival = Arrival {
                id: self.dispatch.next_id(),
                next: self.dispatch.next_id(),
                events: events.clone(),
                provider: letter.provider,
                source: None,
                request: Arc::clone(&letter.request),
                claimed: reading.claimed.clone(),
                came: letter.arrived,
                inquired: Inquired::Again(delivery.id, delivery.version),
                kept: None,
            };
            let (decided, mut transition) = arrive(&view, arrival, now);
            transition.links = reading.links();
            if let Some(made) = made {
                transition.history.iter_mut().for_each(|line| line.because(made));
            }
            match self.dispatch.commit(transition).await {
                Ok(()) => return Some(matches!(decided.course, Course::Deliver(_) | Course::Accept(_))),
                Err(CommitError::Conflict) if self.is_as(delivery).await => tokio::task::yield_now().await,
                // Somebody else has done it, or its time comes again.
                Err(_) => return None,
            }
        }
        None
    }
}
