//! Klarna: status updates of a hosted payment page, and pushes of its checkout, which are empty but for an address.

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::{Method, StatusCode};

use super::{
    contract::{Ack, Keyring, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::Reader,
    signature,
};
use crate::callback::{Alias, Event, Signature, State};

/// The declaration.
pub static KLARNA: Provider = Provider {
    name: "klarna",
    title: "Klarna",
    marks: &[],
    recognise,
    // It signs nothing; who wants to know puts a token of his own into the address.
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Token, SecretKind::Hmac],
        settings: &[],
        ready: signature::text,
        check: |reader, keyring, _| check(reader, keyring),
    }),
    events: |reader, _| Ok(vec![event(reader)?]),
    event_ids: true,
    batches: false,
    inquiry: None,
    ack: Ack::empty(StatusCode::OK),
    refusal: 401,
    paid_once: &["klarna_order"],
    moves: Moves::Undocumented,
    answer_limit: Duration::from_secs(3),
    retry_span: Duration::from_secs(48 * 3600),
    sources: &[
        "https://docs.klarna.com/payments/other-products/hosted-payment-page/api-documentation/status-callbacks/",
        "https://docs.klarna.com/klarna-checkout/additional-resources/confirm-purchase",
    ],
};

/// What merchants call the order in the address of a push.
const PUSHED: &str = "klarna_order_id";

fn recognise(reader: &Reader<'_>) -> bool {
    let json = reader.json();
    if json.get("event_id").is_there() {
        return json.at(["session", "session_id"]).is_there();
    }
    let view = reader.view();
    *view.method == Method::POST && view.body.is_empty() && reader.query(PUSHED).is_ok_and(|order| order.is_some())
}

fn event(reader: &Reader<'_>) -> Result<Event, Unrecognised> {
    let alias = |order: Cow<'_, str>| Alias { kind: Arc::from("klarna_order"), value: order.into_owned() };
    if reader.view().body.is_empty() {
        let order = reader.query(PUSHED)?.ok_or_else(|| Unrecognised(format!("nothing stands at query:{PUSHED}")))?;
        return Ok(Event {
            reference: order.clone().into_owned(),
            event_type: Some("KCO push".to_owned()),
            aliases: vec![alias(order)],
            ..Event::default()
        });
    }
    let json = reader.json();
    let session = json.get("session");
    let status = session.get("status").needed()?;
    let state = state(&status);
    Ok(Event {
        reference: session.get("session_id").needed()?.into_owned(),
        event_id: json.get("event_id").text()?.map(Cow::into_owned),
        event_type: Some("HPP status_update".to_owned()),
        state,
        detail: if state.is_none() { Some(status.clone().into_owned()) } else { None },
        facts: facts([("status", Some(&status)), ("updated", session.get("updated_at").text()?.as_deref())]),
        aliases: session.get("order_id").text()?.map(alias).into_iter().collect(),
        ..Event::default()
    })
}

/// Of the session; the order has a state of its own, which is not told.
fn state(status: &str) -> Option<State> {
    Some(match status {
        "WAITING" | "IN_PROGRESS" | "BACK" => State::Pending,
        "COMPLETED" => State::Paid,
        "FAILED" | "ERROR" => State::Failed,
        "CANCELLED" | "DISABLED" | "TIMEOUT" => State::Cancelled,
        _ => return None,
    })
}

/// A parameter of the address repeats the token, whatever the merchant calls it; one that is called a token and repeats
/// none is wrong.
fn check(reader: &Reader<'_>, keyring: &Keyring) -> Signature {
    let mut verdict = Signature::Absent;
    for (name, value) in reader.parameters() {
        if signature::any_text(&keyring.keys, &value) {
            return Signature::Valid;
        }
        let name = String::from_utf8_lossy(&name).to_ascii_lowercase();
        if name.contains("token") || name.contains("secret") {
            verdict = Signature::Invalid;
        }
    }
    verdict
}
