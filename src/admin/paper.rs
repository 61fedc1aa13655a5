//! What the API shows, as JSON: entries that wait for a person, their requests, transactions and lines of history.

use serde_json::{Map, Value, json};

use super::veil::Veil;
use crate::{
    digits::hex,
    telemetry::cardless,
    time::Timestamp,
    transaction::{
        history::{Line, What},
        lock::LeaseId,
        state::{Claim, Delivery, Fate, Letter, Phase, StoredRequest},
    },
};

/// Bytes of a request's body that are shown.
const SHOWN: usize = 64 << 10;

/// A delivery in short, as it stands in lists.
pub fn entry(delivery: &Delivery, now: Timestamp) -> Value {
    let letter = &delivery.letter;
    let (reason, told, since) = match delivery.in_review() {
        Some((since, reason)) => (Some(reason.as_str()), Some(reason.told()), Some(since)),
        None => (None, None, None),
    };
    let mut references: Vec<_> = letter.events.iter().map(|event| cardless(&event.reference)).collect();
    references.retain(|reference| !reference.is_empty());
    references.dedup();
    let states: Vec<_> = letter.events.iter().filter_map(|event| event.state).map(|state| state.as_str()).collect();
    json!({
        "id": id(delivery.id),
        "version": delivery.version,
        "phase": delivery.phase.as_str(),
        "reason": reason,
        "told": told,
        "since": since.map(|since| since.to_string()),
        "waits_seconds": since.map(|since| now.since(since).as_secs()),
        "provider": letter.provider,
        "rule": &*letter.policy.rule,
        "references": references,
        "states": states,
        "arrived": letter.arrived.to_string(),
        "attempts": delivery.attempts,
        "owed": delivery.owed,
    })
}

/// A request as it is kept, without what opens doors: credentials and cookies are hidden, card numbers masked.
pub fn request(letter: &Letter) -> Value {
    shown(letter.provider, &letter.request)
}

fn shown(provider: &str, request: &StoredRequest) -> Value {
    let veil = Veil::over(provider);
    let headers: Vec<_> =
        request.headers.iter().map(|(name, value)| json!([name.as_str(), veil.header(name, value)])).collect();
    let whole = &request.body;
    let part = &whole[..whole.len().min(SHOWN)];
    let (text, hex) = match text(part, part.len() < whole.len()) {
        Some(text) => (Some(veil.body(text)), None),
        None => {
            // Whoever writes in another character set has secrets too, and digits would not hide them.
            let text = String::from_utf8_lossy(part);
            match veil.body(&text) {
                veiled if veiled == text => (None, Some(hex(part))),
                veiled => (Some(veiled), None),
            }
        }
    };
    json!({
        "method": request.method.as_str(),
        "target": veil.target(&request.uri),
        "headers": headers,
        "body": text,
        "body_hex": hex,
        "body_bytes": whole.len(),
        "cut": part.len() < whole.len(),
    })
}

/// The bytes as text; a character that the cut went through is left out.
fn text(part: &[u8], cut: bool) -> Option<&str> {
    match std::str::from_utf8(part) {
        Ok(text) => Some(text),
        Err(error) if cut && error.error_len().is_none() => std::str::from_utf8(&part[..error.valid_up_to()]).ok(),
        Err(_) => None,
    }
}

/// What is known of one identity.
pub fn claim(claim: &Claim) -> Value {
    let identity = claim.identity.to_string();
    match &claim.fate {
        Fate::Pending(delivery) => json!({ "identity": identity, "fate": "pending", "delivery": id(*delivery) }),
        Fate::Settled { answer, expires } => json!({
            "identity": identity,
            "fate": "settled",
            "status": answer.status.as_u16(),
            "remembered_until": expires.to_string(),
        }),
    }
}

/// One line of history.
pub fn line(number: u64, line: &Line) -> Value {
    let mut said = Map::new();
    let mut say = |key: &str, value: Value| _ = said.insert(key.to_owned(), value);
    say("number", number.into());
    say("at", line.at.to_string().into());
    say("transaction", line.transaction.to_string().into());
    say("delivery", line.delivery.map(id).into());
    say("attempt", line.attempt.into());
    match &line.what {
        What::Arrived(arrived) => {
            say("what", "arrived".into());
            say("decision", arrived.decision.as_str().into());
            say("reference", cardless(&arrived.reference).into());
            say("provider", arrived.provider.into());
            say("state", arrived.state.map(|state| state.as_str()).into());
            say("source", arrived.source.map(|source| source.to_canonical().to_string()).into());
            say("why", (&*arrived.why).into());
        }
        What::Moved(phase) => {
            say("what", phase.as_str().into());
            match *phase {
                Phase::Confirming { at, .. } | Phase::Recheck { at } | Phase::Awaited { at } => {
                    say("asked_again", at.to_string().into())
                }
                Phase::Held { until } => say("until", until.to_string().into()),
                Phase::InFlight { lease_until } => say("lease_until", lease_until.to_string().into()),
                Phase::Retrying { at } => say("again", at.to_string().into()),
                Phase::Review { reason, .. } => say("reason", reason.as_str().into()),
                Phase::Queued | Phase::Unknown { .. } => {}
            }
        }
        What::Ended { outcome, status, why } => {
            say("what", "ended".into());
            say("outcome", outcome.as_str().into());
            say("status", status.map(|status| status.as_u16()).into());
            say("why", why.as_deref().into());
        }
        What::Acknowledged => say("what", "acknowledged".into()),
        What::Trailing => say("what", "trailing".into()),
        What::Dropped => say("what", "dropped".into()),
        What::Confirmed(booked) => {
            say("what", "confirmed".into());
            say("booked", (*booked).into());
        }
        What::Acted { deed, who, why } => {
            say("what", "acted".into());
            say("act", deed.as_str().into());
            say("who", (&**who).into());
            say("why", (&**why).into());
        }
    }
    Value::Object(said)
}

/// The name of a delivery: as text, for not every reader of JSON can hold the number.
pub fn id(id: LeaseId) -> String {
    id.0.to_string()
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use bytes::Bytes;
    use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
    use percent_encoding::percent_decode_str;

    use super::*;
    use crate::provider::PROVIDERS;

    fn parsed(raw: &[u8]) -> StoredRequest {
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut head = httparse::Request::new(&mut fields);
        let httparse::Status::Complete(length) = head.parse(raw).unwrap() else { panic!("the head is incomplete") };
        let field = |field: &httparse::Header<'_>| {
            (HeaderName::from_bytes(field.name.as_bytes()).unwrap(), HeaderValue::from_bytes(field.value).unwrap())
        };
        StoredRequest {
            method: head.method.unwrap().parse().unwrap(),
            uri: head.path.unwrap().parse().unwrap(),
            headers: head.headers.iter().map(field).collect(),
            body: Bytes::copy_from_slice(&raw[length..]),
        }
    }

    fn kept(target: &'static str, headers: &[(&'static str, &'static str)], body: &'static [u8]) -> Value {
        let headers: HeaderMap =
            headers.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect();
        let (method, uri) = (Method::POST, Uri::from_static(target));
        shown("generic", &StoredRequest { method, uri, headers, body: Bytes::from_static(body) })
    }

    #[test]
    fn nothing_is_shown_that_opens_a_door() {
        let shown = kept(
            "/hook/4111111111111111?a=1&access_token=geheim&x=y&key=geheim",
            &[
                ("authorization", "Basic geheim"),
                ("cookie", "geheim"),
                ("x-api-key", "geheim"),
                ("x-gitlab-token", "geheim"),
                ("verif-hash", "geheim"),
                ("referer", "https://pay.example.org/?a=1&token=geheim#key=geheim"),
                ("stripe-signature", "t=1,v1=abc"),
                ("content-type", "text/plain"),
            ],
            b"card=4111111111111111&password=geheim&cvc=geheim",
        );
        let said = shown.to_string();
        assert!(!said.contains("geheim") && !said.contains("4111111111111111"), "{said}");
        assert_eq!(shown["target"], "/hook/411111******1111?a=1&access_token=***&x=y&key=***");
        assert!(said.contains("t=1,v1=abc") && said.contains("text/plain"), "{said}");
        assert_eq!(shown["body"], "card=411111******1111&password=***&cvc=***");
    }

    #[test]
    fn no_secret_is_shown_that_a_provider_repeats() {
        let mut repeated = 0;
        for provider in PROVIDERS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(provider.name);
            let Ok(expected) = fs::read(folder.join("expect.json")) else {
                assert_eq!(provider.name, "generic");
                continue;
            };
            let expected: Value = serde_json::from_slice(&expected).unwrap();
            let secrets: Vec<_> =
                expected["secrets"].as_array().unwrap().iter().filter_map(|secret| secret["value"].as_str()).collect();
            for file in expected["files"].as_object().unwrap().keys() {
                let raw = fs::read(folder.join(file)).unwrap();
                let told = parsed(&raw);
                let carries = |text: &str| {
                    let text = percent_decode_str(text).decode_utf8_lossy().into_owned();
                    secrets.iter().any(|secret| text.contains(secret))
                };
                repeated += usize::from(carries(&String::from_utf8_lossy(&raw)));
                let shown = shown(provider.name, &told).to_string();
                assert!(!carries(&shown), "{}/{file}: {shown}", provider.name);
            }
        }
        assert!(repeated > 9, "{repeated}");
    }

    #[test]
    fn what_is_no_text_hides_nothing_behind_digits() {
        assert_eq!(kept("/", &[], b"a=\xe4&password=x")["body"], "a=\u{fffd}&password=***");
        assert_eq!(kept("/", &[], b"a=\xe4&b=x")["body_hex"], "613de426623d78");
    }

    #[test]
    fn a_body_is_shown_as_text_or_in_hexadecimal_and_to_a_bound() {
        assert_eq!(kept("/", &[], b"\xff\x00")["body_hex"], "ff00");
        assert_eq!(kept("/", &[], b"")["body"], "");
        let mut long = vec![b'x'; SHOWN - 1];
        long.extend("ü and more".as_bytes());
        let shown = kept("/", &[], long.leak());
        assert_eq!((shown["body"].as_str().map(str::len), &shown["cut"]), (Some(SHOWN - 1), &json!(true)));
    }
}
