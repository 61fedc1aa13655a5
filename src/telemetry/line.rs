//! The one line that each callback leaves in the log: what was decided about it, and why.

use std::{borrow::Cow, net::IpAddr, time::Duration};

use http::StatusCode;
use tracing::Level;

use crate::{
    callback::{Channel, Key},
    telemetry::escape::outside,
};

/// The target of these lines, under which they are switched off where they are too many.
pub const CALLBACK_TARGET: &str = "oncegate::callback";

/// What the line says. There is no place in it for a body, a header or a secret.
#[derive(Clone, Debug)]
pub struct CallbackLine<'a> {
    /// The name of the rule that decided.
    pub rule: &'a str,
    /// The provider.
    pub provider: &'static str,
    /// The way it came.
    pub channel: Channel,
    /// What was decided (see [`DECISIONS`](super::DECISIONS)).
    pub decision: &'static str,
    /// The provider's id of the payment.
    pub reference: Option<&'a str>,
    /// The provider's id of the event.
    pub event_id: Option<&'a str>,
    /// The provider's word for what happened.
    pub event_type: Option<&'a str>,
    /// What makes it the same event as another.
    pub identity: Option<Key>,
    /// Who sent it, as far as the trusted proxies can be believed.
    pub client: Option<IpAddr>,
    /// How long it waited at the gate: held, for its turn, for another's answer.
    pub waited: Duration,
    /// What the app answered, if it was asked.
    pub upstream_status: Option<StatusCode>,
    /// What the caller heard.
    pub answered: Option<StatusCode>,
    /// The reason, in a sentence.
    pub why: &'a str,
}

/// Writes the line, unless nobody wants it: then this costs one comparison.
pub fn log_callback(line: &CallbackLine<'_>) {
    if !tracing::enabled!(target: CALLBACK_TARGET, Level::INFO) {
        return;
    }
    let [reference, event_id, event_type] = [line.reference, line.event_id, line.event_type].map(|o| o.map(outside));
    tracing::info!(
        target: CALLBACK_TARGET,
        rule = line.rule,
        provider = line.provider,
        channel = line.channel.as_str(),
        decision = line.decision,
        reference = text(&reference),
        event_id = text(&event_id),
        event_type = text(&event_type),
        identity = line.identity.map(tracing::field::display),
        client = line.client.map(|client| tracing::field::display(client.to_canonical())),
        waited_ms = u64::try_from(line.waited.as_millis()).unwrap_or(u64::MAX),
        upstream_status = line.upstream_status.map(|status| status.as_u16()),
        answered = line.answered.map(|status| status.as_u16()),
        why = outside(line.why).as_ref(),
        "callback"
    );
}

fn text<'a>(value: &'a Option<Cow<'_, str>>) -> Option<&'a str> {
    value.as_deref()
}
