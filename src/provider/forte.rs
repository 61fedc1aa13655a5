//! Forte (CSG Forte): postbacks about transactions, customers and ways to pay, as JSON or as a form with JSON in it.

use std::time::Duration;

use http::StatusCode;

use super::{
    amount,
    contract::{Ack, Moves, Provider, Scheme, Unrecognised, facts},
    extract::{Reader, Value},
};
use crate::callback::{Event, State};

/// The declaration.
pub static FORTE: Provider = Provider {
    name: "forte",
    title: "Forte",
    marks: &[],
    recognise: |reader| read(reader, |json| Ok(subject(json).is_some())).unwrap_or(false),
    // Its manuals tell of no signature.
    scheme: Scheme::Unsigned,
    events: |reader, _| read(reader, |json| Ok(vec![event(json)?])),
    event_ids: false,
    batches: false,
    inquiry: None,
    ack: Ack::empty(StatusCode::OK),
    refusal: 401,
    paid_once: &[],
    moves: Moves::Undocumented,
    // It publishes none.
    answer_limit: Duration::from_secs(10),
    // Twenty times, each a minute later than the one before.
    retry_span: Duration::from_secs(210 * 60),
    sources: &[
        "https://developers.forte.net/using-webhooks/",
        "https://developers.forte.net/transactions-rest-api/",
        "https://support.forte.net/support/solutions/articles/1000102770-forte-checkout-using-webhooks-response-code-",
        "https://support.forte.net/support/solutions/articles/11000053798-what-are-transaction-status-codes-",
    ],
};

/// The field of a form in which the JSON comes.
const PAYLOAD: &str = "payload";

/// Reads the JSON, wherever it is.
fn read<T>(reader: &Reader<'_>, with: impl FnOnce(Value<'_>) -> Result<T, Unrecognised>) -> Result<T, Unrecognised> {
    if reader.is_form() { reader.json_inside(&reader.field(PAYLOAD)?, with) } else { with(reader.json()) }
}

/// What it is about, and the name of its id, by how that begins; a transaction before what was made along with it.
fn subject(json: Value<'_>) -> Option<(Value<'_>, &'static str)> {
    let kinds = [
        ("transaction", "transaction_id", "trn_"),
        ("schedule", "schedule_id", "sch_"),
        ("paymethod", "paymethod_token", "mth_"),
        ("customer", "customer_token", "cst_"),
    ];
    let found = |(kind, id, begin): (&'static str, &'static str, &str)| {
        let subject = json.get(kind);
        subject.get(id).begins(begin).then_some((subject, id))
    };
    kinds.into_iter().find_map(found)
}

/// Its event id (`evt_…`) may stand for several events at once, and one event may come in two postbacks: what happened is
/// told by the transaction.
fn event(json: Value<'_>) -> Result<Event, Unrecognised> {
    let (subject, id) = subject(json).ok_or_else(|| Unrecognised("it names nothing of Forte's".into()))?;
    let own = subject.get(id).needed()?;
    let [action, status] = [subject.get("action").text()?, subject.get("status").text()?];
    let said = subject.get("authorization_amount").amount()?;
    let state = state(action.as_deref(), status.as_deref());
    Ok(Event {
        // What takes back, voids or captures names the transaction that it is about.
        reference: subject.get("original_transaction_id").text()?.unwrap_or_else(|| own.clone()).into_owned(),
        event_type: action.as_deref().map(str::to_owned),
        state,
        detail: if state.is_none() { status.as_deref().map(str::to_owned) } else { None },
        // Dollars of two countries, both with two decimals, and it does not say which.
        amount: said.as_deref().and_then(|said| amount::padded(said, 2)),
        facts: status.as_deref().map_or_else(Vec::new, |status| {
            facts([
                ("id", Some(&*own)),
                ("action", action.as_deref()),
                ("status", Some(status)),
                ("amount", said.as_deref()),
            ])
        }),
        ..Event::default()
    })
}

/// By the status of what was asked for.
fn state(action: Option<&str>, status: Option<&str>) -> Option<State> {
    let gives_back = matches!(action, Some("credit" | "reverse"));
    Some(match status? {
        "settled" | "funded" if gives_back => State::Refunded,
        _ if gives_back => return None,
        "authorized" | "ready" | "review" | "settling" => State::Pending,
        "settled" | "funded" => State::Paid,
        "declined" | "failed" | "rejected" => State::Failed,
        "voided" => State::Cancelled,
        "unfunded" => State::ChargedBack,
        _ => return None,
    })
}
