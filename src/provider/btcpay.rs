//! BTCPay Server: signed events from the merchant's own server; a redelivery names the delivery that was the first.

use std::time::Duration;

use http::StatusCode;

use super::{
    amount,
    contract::{Ack, Moves, Provider, Scheme, SecretKind, Signing, Unrecognised, facts},
    extract::{Reader, Value, decimal},
    signature::{self, BodyMac},
};
use crate::callback::{Event, State, Step};

/// The declaration.
pub static BTCPAY: Provider = Provider {
    name: "btcpay",
    title: "BTCPay Server",
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
    // It publishes none.
    answer_limit: Duration::from_secs(10),
    retry_span: Duration::from_secs(62 * 60),
    sources: &[
        "https://docs.btcpayserver.org/API/Greenfield/v1/#tag/Webhooks",
        "https://github.com/btcpayserver/btcpayserver/blob/master/BTCPayServer/Plugins/Webhooks/WebhookSender.cs",
    ],
};

const SIGNATURE: BodyMac = BodyMac { header: "btcpay-sig", prefix: "sha256=" };

fn recognise(reader: &Reader<'_>) -> bool {
    let json = reader.json();
    ["deliveryId", "webhookId", "storeId", "type"].iter().all(|name| json.get(name).is_there())
}

fn event(json: Value<'_>) -> Result<Event, Unrecognised> {
    let kind = json.get("type").needed()?.into_owned();
    let payment = json.get("payment");
    let value = payment.get("value").amount()?;
    let method = json.get("paymentMethodId").or(json.get("paymentMethod")).text()?;
    let coin = method.as_deref().map(|method| method.split(['-', '_']).next().unwrap_or_default());
    let state = state(&kind);
    Ok(Event {
        reference: json.get("invoiceId").or(json.get("storeId")).needed()?.into_owned(),
        event_id: Some(json.get("originalDeliveryId").or(json.get("deliveryId")).needed()?.into_owned()),
        state,
        facts: facts([("type", Some(&kind)), ("payment", payment.get("id").text()?.as_deref())]),
        step: (kind == "InvoiceExpired").then_some(Step::Expired),
        detail: if state.is_none() { Some(kind.clone()) } else { None },
        event_type: Some(kind),
        // In the coin, not in the invoice's currency.
        amount: value.as_deref().and_then(decimal),
        currency: if value.is_some() { coin.and_then(amount::currency) } else { None },
        aliases: Vec::new(),
    })
}

/// An invoice may be paid in several parts, each of which is received, and settles, after another has: only the beginning
/// is older than all of them.
fn state(kind: &str) -> Option<State> {
    Some(match kind {
        "InvoiceCreated" => State::Pending,
        "InvoiceSettled" | "InvoicePaymentSettled" => State::Paid,
        "InvoiceExpired" => State::Cancelled,
        "InvoiceInvalid" => State::Failed,
        _ => return None,
    })
}
