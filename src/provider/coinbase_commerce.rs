//! Coinbase Commerce: signed events about charges, wrapped in what belongs to the delivery.

use std::time::Duration;

use http::StatusCode;

use super::{
    amount,
    contract::{Ack, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, Value, decimal},
    signature::{self, BodyMac},
};
use crate::callback::{Event, State};

/// The declaration.
pub static COINBASE_COMMERCE: Provider = Provider {
    name: "coinbase-commerce",
    title: "Coinbase Commerce",
    marks: &[SIGNATURE.header],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Hmac],
        settings: &[],
        repeats: &[],
        ready: signature::sha256,
        check: |reader, keyring, _| SIGNATURE.check(reader, keyring),
    }),
    events: |reader, _| Ok(vec![event(reader.json().get("event"))?]),
    event_ids: true,
    batches: false,
    inquiry: None,
    ack: Ack::empty(StatusCode::OK),
    refusal: 400,
    paid_once: &[],
    moves: Moves::Undocumented,
    // It publishes none.
    answer_limit: Duration::from_secs(10),
    retry_span: Duration::from_secs(3 * 24 * 3600),
    sources: &[
        "https://docs.cdp.coinbase.com/commerce/api-arcitecture/webhooks-overview",
        "https://docs.cdp.coinbase.com/commerce/api-arcitecture/webhooks-fields",
    ],
};

const SIGNATURE: BodyMac = BodyMac { header: "x-cc-webhook-signature", prefix: "" };

fn recognise(reader: &Reader<'_>) -> bool {
    let event = reader.json().get("event");
    event.get("type").begins("charge:") && event.get("id").is_there() && event.get("data").is_object()
}

fn event(event: Value<'_>) -> Result<Event, Unrecognised> {
    let kind = event.get("type").needed()?.into_owned();
    let data = event.get("data");
    let price = data.at(["pricing", "local"]);
    let value = price.get("amount").amount()?;
    let state = state(&kind);
    Ok(Event {
        reference: data.get("id").or(data.get("code")).needed()?.into_owned(),
        event_id: Some(event.get("id").needed()?.into_owned()),
        state,
        facts: facts([("type", Some(&kind)), ("amount", value.as_deref())]),
        step: None,
        detail: if state.is_none() { Some(kind.clone()) } else { None },
        event_type: Some(kind),
        amount: value.as_deref().and_then(decimal),
        currency: price.get("currency").text()?.and_then(|code| amount::currency(&code)),
        aliases: Vec::new(),
    })
}

fn state(kind: &str) -> Option<State> {
    Some(match kind {
        "charge:created" | "charge:pending" => State::Pending,
        "charge:confirmed" | "charge:resolved" => State::Paid,
        "charge:failed" => State::Failed,
        // Paid, but too late or too little: a person decides.
        _ => return None,
    })
}
