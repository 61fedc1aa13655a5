//! Checkout.com: signed workflow events about payments and disputes.

use std::{borrow::Cow, time::Duration};

use http::StatusCode;

use super::{
    amount,
    contract::{Ack, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, Value},
    signature::{self, BodyMac},
};
use crate::callback::{Event, State, Step};

/// The declaration.
pub static CHECKOUT: Provider = Provider {
    name: "checkout",
    title: "Checkout.com",
    marks: &[SIGNATURE.header],
    recognise,
    scheme: Scheme::Signed(Signing {
        kinds: &[SecretKind::Hmac],
        settings: &[],
        repeats: &[],
        ready: signature::sha256,
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
    answer_limit: Duration::from_secs(10),
    retry_span: Duration::from_secs(30 * 3600),
    sources: &[
        "https://www.checkout.com/docs/workflows",
        "https://www.checkout.com/docs/developer-resources/webhooks/manage-webhooks/set-up-your-webhook-receiver",
        "https://www.checkout.com/docs/payments/accept-payments/format-the-amount-value",
    ],
};

const SIGNATURE: BodyMac = BodyMac { header: "cko-signature", prefix: "" };

fn recognise(reader: &Reader<'_>) -> bool {
    let json = reader.json();
    let named = json.get("id").begins("evt_") && json.get("type").is_there() && json.get("created_on").is_there();
    named && json.get("data").is_object()
}

fn event(json: Value<'_>) -> Result<Event, Unrecognised> {
    let kind = json.get("type").needed()?.into_owned();
    let data = json.get("data");
    let minor = data.get("amount").amount()?;
    let currency = data.get("currency").text()?.and_then(|code| amount::currency(&code));
    let state = state(&kind);
    Ok(Event {
        // Of a dispute the payment is named apart.
        reference: data.get("payment_id").or(data.get("id")).needed()?.into_owned(),
        event_id: Some(json.get("id").needed()?.into_owned()),
        state,
        step: match &*kind {
            "payment_authorized" => Some(Step::Authorised),
            "payment_expired" => Some(Step::Expired),
            _ => None,
        },
        detail: if state.is_none() { data.get("status").text()?.map(Cow::into_owned) } else { None },
        facts: facts([
            ("type", Some(&kind)),
            ("action", data.get("action_id").text()?.as_deref()),
            ("minor", minor.as_deref()),
        ]),
        event_type: Some(kind),
        amount: match currency.as_deref() {
            // Its manuals give the peso two decimals that ISO does not.
            Some("CLP" | "CLF") => None,
            code => amount::of(minor.as_deref(), code),
        },
        currency,
        aliases: Vec::new(),
    })
}

fn state(kind: &str) -> Option<State> {
    Some(match kind {
        "payment_pending" | "payment_approved" | "payment_authorized" | "payment_capture_pending" => State::Pending,
        "payment_captured" => State::Paid,
        "payment_declined" | "payment_capture_declined" => State::Failed,
        "payment_canceled" | "payment_expired" | "payment_voided" => State::Cancelled,
        "payment_refunded" => State::Refunded,
        "dispute_received" | "dispute_lost" | "dispute_accepted" | "payment_chargeback" => State::ChargedBack,
        _ => return None,
    })
}
