//! A payer who comes back: his names, his turn, and the app's page for him alone.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};
use tokio::time::Instant;

use super::{
    Intake, Received, Reply,
    noted::Noted,
    reading::{Reading, Rulebook},
    relay,
    repeat::Turn,
    reply::{BROKEN, BUSY, DOWN, SLOW, plain, redirect, waiting_page},
};
use crate::{
    callback::Channel,
    dispatch::{App, SendError},
    permit::{NoPermit, Permit},
    rule::Route,
    store::{Store, Want},
    transaction::{
        arrival::Decision,
        learned,
        lock::{Claimed, LockName},
        policy::OnRepeatReturn,
    },
};

impl<S: Store, A: App> Intake<S, A> {
    /// A payer who comes back: waits his turn, goes to the app, and gets his own page.
    pub(super) async fn back(self: Arc<Self>, book: &Rulebook, route: &Route, received: Received) -> Reply<A::Body> {
        let now = self.dispatch.clock_now();
        let started = Instant::now();
        let mut reading = Reading::of(route, &received.whole(), book, self.dispatch.clock.wall(now));
        if let Some(lookup) = book.lookup.as_ref().filter(|_| reading.statements.is_ok()) {
            self.look_up(lookup, book, &mut reading).await;
            self.remember_links(&reading).await;
        }
        let mut line = Noted::new(&reading, received.source);
        let why = match &reading.statements {
            Err(why) => why.0.clone(),
            Ok(_) if reading.claimed.names.is_empty() => "no name was found on it".to_owned(),
            Ok(_) => "the payer comes back".to_owned(),
        };
        line.decision(Decision::Returned, why);
        let policy = Arc::clone(&reading.policy);
        let safe = matches!(received.method, Method::GET | Method::HEAD);
        let mut turn = None;
        if policy.on_repeat_return == OnRepeatReturn::Redirect && !safe && !reading.claimed.names.is_empty() {
            match self.repeats.turn(&received, policy.return_wait).await {
                Turn::First(first) => turn = Some(first),
                Turn::Repeat(location) => {
                    line.decision(Decision::Returned, "the same again: sent to where the first one was sent");
                    return line.tell(&self.book, redirect(location));
                }
                Turn::Again => {}
            }
        }
        let learns = !route.learn.is_empty();
        let heed = learns.then(|| {
            let asked = self.asked(book, Arc::clone(&route.learn), &received.method, &received.host, &received.headers);
            asked.under(&reading.claimed.names)
        });
        let request = received.into_request();
        let mut returned = Vec::new();
        let mut permit = if policy.shadow {
            None
        } else {
            let sessions = heed.as_ref().map_or(&[][..], |heed| &heed.sessions);
            let claimed = self.resolved(&reading, sessions, safe, &mut returned).await;
            // Who waits with a page in front of him may reload it; what he posts must not be lost.
            let patience = safe.then_some(policy.return_wait);
            match Permit::take(&self.dispatch, claimed, patience).await {
                Ok(permit) => Some(permit),
                Err(NoPermit::TooLong) => {
                    line.decision(Decision::Returned, "waits its turn: a page that reloads itself");
                    return line.tell(&self.book, waiting_page());
                }
                Err(error) => {
                    line.decision(Decision::Overflow, error.to_string());
                    return line.tell(&self.book, plain(StatusCode::SERVICE_UNAVAILABLE, BUSY));
                }
            }
        };
        self.dispatch.metrics.observe_lock_wait(Channel::Return, started.elapsed());
        let connection = match self.dispatch.app.connect().await {
            Ok(connection) => connection,
            Err(why) => {
                line.why = why.into();
                return line.tell(&self.book, plain(StatusCode::BAD_GATEWAY, DOWN));
            }
        };
        if let Some(permit) = &mut permit {
            permit.sending(policy.quiet);
        }
        let asked = Instant::now();
        let response = match self.dispatch.app.send(connection, &request, policy.timeout).await {
            Ok(response) => response,
            Err(error) => {
                if let Some(heed) = &heed {
                    // Whatever it began, nobody will hear under which name.
                    Arc::clone(&self).learn(self.lessons(heed, StatusCode::BAD_GATEWAY, &HeaderMap::new())).await;
                }
                line.why = error.to_string().into();
                let (status, text) = match (&error, permit) {
                    (SendError::NotSent(_), Some(permit)) => {
                        permit.not_sent();
                        (StatusCode::BAD_GATEWAY, DOWN)
                    }
                    (SendError::NotSent(_), None) => (StatusCode::BAD_GATEWAY, DOWN),
                    (SendError::Unknown(_), _) => (StatusCode::BAD_GATEWAY, BROKEN),
                    (SendError::TooSlow, _) => (StatusCode::GATEWAY_TIMEOUT, SLOW),
                };
                return line.tell(&self.book, plain(status, text));
            }
        };
        if let Some(heed) = &heed {
            Arc::clone(&self).learn(self.lessons(heed, response.status(), response.headers())).await;
        }
        if !matches!(response.status(), StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT) {
            self.dispatch.seen_alive();
        }
        if let Some(turn) = turn {
            turn.accepted(response.status(), response.headers());
        }
        line.asked(asked.elapsed(), response.status());
        line.end(&self.book, response.status());
        match permit {
            None => Reply::Streamed(response),
            Some(permit) => {
                let been_through = !response.status().is_server_error();
                let returned = if been_through { returned } else { Vec::new() };
                Reply::Relayed(relay::relay(response, permit, &policy, returned))
            }
        }
    }

    /// What a return must not overlap with, as far as it is known by now. `returned` are the names that are surely its own.
    async fn resolved(
        self: &Arc<Self>,
        reading: &Reading,
        sessions: &[LockName],
        safe: bool,
        returned: &mut Vec<LockName>,
    ) -> Claimed {
        let mut claimed = reading.claimed.clone();
        let subjects: Vec<_> = claimed.names.iter().chain(sessions).copied().collect();
        let now = self.dispatch.clock_now();
        let view = self.dispatch.store.load(Want::Transactions(&[], &subjects), now).await.unwrap_or_default();
        // Other names of the same payment; but it may have more of their kind, so nobody is told apart by it.
        claimed.names.extend(view.linked);
        returned.clone_from(&claimed.names);
        // What a payer posts may begin something new, which has no name yet.
        let joined = if safe { learned::joined(&reading.claimed.names, &view.begun) } else { Vec::new() };
        if joined.is_empty() {
            return claimed;
        }
        self.dispatch.metrics.count_joined("learned");
        if let [name] = joined[..] {
            returned.push(name);
        }
        for name in joined.into_iter().filter(|name| !reading.claimed.names.contains(name)) {
            claimed.names.push(name);
            claimed.kinds.push(name.kind.learned());
        }
        if let (Some(own), false) = (reading.claimed.names.first(), sessions.is_empty()) {
            self.note_came(sessions, own.key).await;
        }
        claimed
    }
}
