//! eWAY: no webhook at all; the payer's browser brings a code by which the merchant asks.

use std::time::Duration;

use http::{Method, StatusCode};

use super::contract::{Ack, Moves, Provider, Scheme, Unrecognised};
use crate::callback::Event;

/// The declaration.
pub static EWAY: Provider = Provider {
    name: "eway",
    title: "eWAY (returns only)",
    marks: &[],
    recognise: |reader| {
        *reader.view().method == Method::GET && reader.query(ACCESS_CODE).is_ok_and(|code| code.is_some())
    },
    scheme: Scheme::Unsigned,
    events: |reader, _| {
        let code = reader.query(ACCESS_CODE)?;
        let code = code.ok_or_else(|| Unrecognised(format!("nothing stands at query:{ACCESS_CODE}")))?;
        Ok(vec![Event { reference: code.into_owned(), ..Event::default() }])
    },
    event_ids: false,
    batches: false,
    inquiry: None,
    ack: Ack::empty(StatusCode::OK),
    refusal: 401,
    paid_once: &[],
    moves: Moves::Undocumented,
    // A browser's.
    answer_limit: Duration::from_secs(60),
    retry_span: Duration::from_secs(3600),
    sources: &["https://eway.io/api-v3/"],
};

const ACCESS_CODE: &str = "AccessCode";
