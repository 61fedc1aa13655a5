//! Authorize.Net: signed notifications about transactions, of which a refund is one of its own.

use std::time::Duration;

use http::StatusCode;

use super::{
    amount,
    contract::{Ack, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, Value},
    signature::{self, BodyMac},
};
use crate::callback::{Event, State};

/// The declaration.
pub static AUTHORIZENET: Provider = Provider {
    name: "authorizenet",
    title: "Authorize.Net",
    marks: &[SIGNATURE.header],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Hmac],
        settings: &[],
        repeats: &[],
        // The key is hexadecimal text, and is taken as it is written.
        ready: signature::sha512,
        check: |reader, keyring, _| SIGNATURE.check(reader, keyring),
    }),
    events: |reader, _| Ok(vec![event(reader.json())?]),
    event_ids: true,
    batches: false,
    inquiry: None,
    ack: Ack::empty(StatusCode::OK),
    refusal: 401,
    paid_once: &[],
    moves: Moves::Undocumented,
    // It publishes none.
    answer_limit: Duration::from_secs(10),
    retry_span: Duration::from_secs(10 * 24 * 3600),
    sources: &["https://developer.authorize.net/api/reference/features/webhooks.html"],
};

const SIGNATURE: BodyMac = BodyMac { header: "x-anet-signature", prefix: "sha512=" };

fn recognise(reader: &Reader<'_>) -> bool {
    let json = reader.json();
    json.get("eventType").begins("net.authorize.") && json.get("notificationId").is_there()
}

fn event(json: Value<'_>) -> Result<Event, Unrecognised> {
    let kind = json.get("eventType").needed()?.into_owned();
    let payload = json.get("payload");
    let said = payload.get("authAmount").amount()?;
    let code = payload.get("responseCode").text()?;
    Ok(Event {
        reference: payload.get("id").needed()?.into_owned(),
        event_id: Some(json.get("notificationId").needed()?.into_owned()),
        state: state(&kind, code.as_deref()),
        facts: facts([("type", Some(&kind)), ("code", code.as_deref()), ("amount", said.as_deref())]),
        event_type: Some(kind),
        // Its currencies have two decimals, and it names none.
        amount: said.as_deref().and_then(|said| amount::padded(said, 2)),
        ..Event::default()
    })
}

/// By what was asked for, and the code: approved, declined, an error, held.
fn state(kind: &str, code: Option<&str>) -> Option<State> {
    let asked = kind.strip_prefix("net.authorize.payment.")?;
    Some(match (asked, code) {
        ("fraud.held", _) | (_, Some("4")) => State::Pending,
        ("fraud.declined", _) | (_, Some("2" | "3")) => State::Failed,
        ("authorization.created", Some("1")) => State::Pending,
        ("authcapture.created" | "capture.created" | "priorAuthCapture.created", Some("1")) => State::Paid,
        ("fraud.approved", Some("1")) => State::Paid,
        ("refund.created", Some("1")) => State::Refunded,
        ("void.created", Some("1")) => State::Cancelled,
        _ => return None,
    })
}
