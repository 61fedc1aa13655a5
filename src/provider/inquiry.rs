//! How a provider is asked what has become of a payment, and how its answer is read: as data, for the hand that asks.

use std::{borrow::Cow, collections::HashMap, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue, Method, Uri};

use super::{
    contract::{Secret, Unrecognised},
    extract::{Dialect, Reader, Value, decimal},
};
use crate::callback::{Event, Key, RequestView};

/// How a provider is asked; everything is a GET.
#[derive(Debug)]
pub struct Inquiry {
    /// Where its API is, unless the configuration says otherwise.
    pub url: &'static str,
    /// What can be asked for; the first that is for an event is.
    pub questions: &'static [Question],
    /// How a key is shown.
    pub access: Access,
    /// Reads the answer: which payment it is about, what has become of it (`facts` and all), and its other names.
    pub read: fn(Value<'_>) -> Result<Event, Unrecognised>,
    /// Where this stands: addresses of its manuals.
    pub sources: &'static [&'static str],
}

/// What is asked for.
#[derive(Debug)]
pub struct Question {
    /// Whether it is what an event is about.
    pub is_for: fn(&Event) -> bool,
    /// Path and query; `{reference}` is the payment.
    pub path: &'static str,
}

/// How a key is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// `Authorization: Bearer KEY`.
    Bearer,
    /// `Authorization: Basic`, the key being `user:password`.
    Basic,
}

impl Access {
    /// The field that shows this key.
    ///
    /// # Errors
    ///
    /// If it is no such key; the reason does not tell it.
    pub fn shown(self, key: &Secret) -> Result<HeaderValue, &'static str> {
        let bytes = key.expose();
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_graphic()));
        let text = text
            .filter(|text| !text.is_empty())
            .ok_or("it is no key: something stands in it that is no printable letter")?;
        let field = match self {
            Self::Bearer => format!("Bearer {text}"),
            Self::Basic if text.contains(':') => format!("Basic {}", BASE64_STANDARD.encode(text)),
            Self::Basic => return Err("it is no key: write the user and the password with a colon between them"),
        };
        let mut field = HeaderValue::try_from(field).map_err(|_| "it can stand in no header field")?;
        field.set_sensitive(true);
        Ok(field)
    }
}

/// The longest reference that is asked for.
const LONGEST: usize = 128;

impl Inquiry {
    /// Path and query by which what this event is about is asked for; `None` where nothing of it can be. A reference is what
    /// somebody wrote into a callback, so only letters, digits and a few marks get into a path.
    #[must_use]
    pub fn path(&self, event: &Event) -> Option<String> {
        let reference = &event.reference;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'~');
        let fit = reference.len() <= LONGEST && reference.bytes().all(plain) && !reference.bytes().all(|b| b == b'.');
        let question = self.questions.iter().find(|question| (question.is_for)(event)).filter(|_| fit)?;
        Some(question.path.replace("{reference}", reference))
    }

    /// What an answer says of the payment that was asked for.
    #[must_use]
    pub fn told(&self, reference: &str, body: &[u8]) -> Told {
        let (uri, headers) = (Uri::from_static("/"), HeaderMap::new());
        let view = RequestView { method: &Method::GET, uri: &uri, headers: &headers, body, segments: &[] };
        let reader = Reader::new(&view, Dialect::Strict);
        match (self.read)(reader.json()) {
            Ok(event) if event.reference == reference => Told::Event(Arc::new(event)),
            Ok(_) => Told::Another,
            Err(why) => Told::Unreadable(why),
        }
    }
}

/// What an answer comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// This has become of the payment.
    Event(Arc<Event>),
    /// It is about another payment than was asked for.
    Another,
    /// It can't be read.
    Unreadable(Unrecognised),
}

/// An amount that has moved, in the one form in which it is compared; `None` where nothing has.
///
/// # Errors
///
/// If it can't be read: whoever can't tell how much has moved can't tell what happened.
pub fn moved(value: Value<'_>) -> Result<Option<String>, Unrecognised> {
    let Some(text) = value.amount()? else { return Ok(None) };
    let amount = decimal(&text).ok_or_else(|| Unrecognised(format!("{text:?} is no amount")))?;
    let shortest = if amount.contains('.') { amount.trim_end_matches('0').trim_end_matches('.') } else { &amount };
    Ok((shortest != "0" && shortest != "-0").then(|| shortest.to_owned()))
}

/// What a list holds, by id and step, in no order but its own; `None` where it holds nothing.
///
/// # Errors
///
/// If something in it can't be read.
pub fn listed<'j>(
    list: Value<'j>,
    step: fn(Value<'j>) -> Result<Cow<'j, str>, Unrecognised>,
) -> Result<Option<String>, Unrecognised> {
    let one = |item: Value<'j>| Ok(format!("{} {}", item.get("id").needed()?, step(item)?));
    let mut told = list.items()?.map(one).collect::<Result<Vec<_>, Unrecognised>>()?;
    told.sort_unstable();
    Ok((!told.is_empty()).then(|| told.join(",")))
}

/// What the user has of one provider's API.
#[derive(Clone, Debug)]
pub struct Api {
    /// The provider's name; a label.
    pub provider: &'static str,
    /// How it is asked.
    pub inquiry: &'static Inquiry,
    /// Where it is, without a slash at the end.
    pub url: String,
    /// The accounts' keys, as they are shown; never none.
    pub keys: Vec<HeaderValue>,
    /// How long a callback waits for the answer.
    pub timeout: Duration,
    /// When a callback that is a repeat by the answer alone is asked about once more; zero is never.
    pub recheck: Duration,
}

/// What is to be asked, and whom.
#[derive(Clone, Debug)]
pub struct Asking {
    /// Whom.
    pub api: Arc<Api>,
    /// Path and query.
    pub path: String,
    /// The payment, which the answer has to be about.
    pub reference: Arc<str>,
    /// The payment's key: what is asked about one payment at a time is asked once.
    pub payment: Key,
    /// Where the callback belongs: what comes there is mostly of one account.
    pub scope: Key,
}

/// Whom can be asked, by the provider's name.
pub type Apis = HashMap<&'static str, Arc<Api>>;

/// An event with what its provider says of it: the callback's own id stays, and so does what it tells where it has one.
#[must_use]
pub fn completed(mut event: Event, told: &Event) -> Event {
    for alias in &told.aliases {
        if !event.aliases.contains(alias) {
            event.aliases.push(alias.clone());
        }
    }
    if event.event_id.is_some() {
        return event;
    }
    let Event { state, step, detail, amount, currency, facts, .. } = told.clone();
    Event { state, step, detail, amount, currency, facts, ..event }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::{
        callback::{Alias, State, Step},
        provider::{PROVIDERS, contract::SecretKind, mercadopago::MERCADOPAGO, mollie::MOLLIE},
    };

    fn asked() -> &'static Inquiry {
        MOLLIE.inquiry.expect("Mollie is asked")
    }

    fn of(reference: &str) -> Event {
        Event { reference: reference.to_owned(), ..Event::default() }
    }

    fn told(change: impl FnOnce(&mut Json)) -> Told {
        let mut payment = json!({
            "resource": "payment", "id": "tr_1", "mode": "live", "status": "paid", "method": "ideal",
            "amount": { "value": "121.00", "currency": "EUR" }, "metadata": { "hash": "abc", "client_id": "x" },
        });
        change(&mut payment);
        asked().told("tr_1", payment.to_string().as_bytes())
    }

    fn event(change: impl FnOnce(&mut Json)) -> Event {
        match told(change) {
            Told::Event(event) => (*event).clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_payment_tells_state_amount_and_the_hash_of_its_payer() {
        let paid = event(|_| {});
        assert_eq!((paid.state, paid.detail.as_deref()), (Some(State::Paid), None));
        assert_eq!((paid.amount.as_deref(), paid.currency.as_deref()), (Some("121.00"), Some("EUR")));
        assert_eq!(paid.aliases, [Alias { kind: "payment_hash".into(), value: "abc".into() }]);
        let expired = event(|payment| payment["status"] = json!("expired"));
        assert_eq!((expired.state, expired.detail.as_deref()), (Some(State::Cancelled), Some("expired")));
        for metadata in [json!(null), json!("text"), json!([1]), json!({ "hash": ["a"] }), json!({})] {
            assert!(event(|payment| payment["metadata"] = metadata).aliases.is_empty());
        }
    }

    #[test]
    fn every_change_of_a_payment_is_another_state_and_nothing_else_is() {
        let refund = |id: &str, status: &str| json!({ "resource": "refund", "id": id, "status": status });
        let money = |value: &str| json!({ "value": value, "currency": "EUR" });
        let states = [
            event(|_| {}),
            event(|p| p["status"] = json!("failed")),
            event(|p| p["amountRefunded"] = money("10.00")),
            event(|p| {
                p["amountRefunded"] = money("10.00");
                p["_embedded"] = json!({ "refunds": [refund("re_1", "processing")] });
            }),
            event(|p| {
                p["amountRefunded"] = money("10.00");
                p["_embedded"] = json!({ "refunds": [refund("re_1", "refunded")] });
            }),
            // Another refund of the same amount, the first one having failed.
            event(|p| {
                p["amountRefunded"] = money("10.00");
                p["_embedded"] = json!({ "refunds": [refund("re_1", "failed"), refund("re_2", "refunded")] });
            }),
            event(|p| p["_embedded"] = json!({ "refunds": [refund("re_1", "failed")] })),
            event(|p| p["amountChargedBack"] = money("121.00")),
            event(|p| p["_embedded"] = json!({ "chargebacks": [{ "id": "chb_1", "reversedAt": "2026-03-02" }] })),
            event(|p| p["_embedded"] = json!({ "chargebacks": [{ "id": "chb_1" }] })),
        ];
        for (at, one) in states.iter().enumerate() {
            assert!(states[..at].iter().all(|other| other.facts != one.facts), "{one:?}");
        }
        assert_eq!((states[3].state, states[3].step), (Some(State::Refunded), Some(Step::Part)));
        assert_eq!(states[7].state, Some(State::ChargedBack));
        let same = event(|p| {
            p["amountRefunded"] = money("0.00");
            p["amountRemaining"] = money("121.00");
            p["_embedded"] = json!({ "refunds": [], "chargebacks": [] });
            p["new_member"] = json!({ "a": [1] });
        });
        assert_eq!(same.facts, states[0].facts);
        let order = |refunds: Json| event(|p| p["_embedded"] = json!({ "refunds": refunds })).facts;
        let (one, two) = (refund("re_1", "refunded"), refund("re_2", "refunded"));
        assert_eq!(order(json!([one, two])), order(json!([two, one])));
    }

    #[test]
    fn an_answer_about_another_payment_or_of_another_kind_is_none() {
        assert_eq!(told(|payment| payment["id"] = json!("tr_2")), Told::Another);
        assert!(matches!(told(|payment| payment["resource"] = json!("order")), Told::Unreadable(_)));
        assert!(matches!(told(|payment| payment["status"] = json!(null)), Told::Unreadable(_)));
        let amount = json!({ "value": "10,00", "currency": "EUR" });
        assert!(matches!(told(|payment| payment["amountRefunded"] = amount), Told::Unreadable(_)));
        for body in ["", "[]", "null", "{", "<html>"] {
            assert!(matches!(asked().told("tr_1", body.as_bytes()), Told::Unreadable(_)), "{body}");
        }
    }

    #[test]
    fn mercado_pago_is_asked_about_the_older_notifications_of_payments_and_nothing_else() {
        let inquiry = MERCADOPAGO.inquiry.expect("it is asked");
        let notice = |topic: &str| Event { event_type: Some(format!("{topic} (IPN)")), ..of("1300") };
        assert_eq!(inquiry.path(&notice("payment")).as_deref(), Some("/v1/payments/1300"));
        assert_eq!(inquiry.path(&notice("merchant_order")), None);
        assert_eq!(inquiry.path(&Event { event_type: Some("payment.updated".into()), ..of("1300") }), None);
    }

    #[test]
    fn a_payment_of_mercado_pago_tells_what_has_become_of_it() {
        let told = |change: &dyn Fn(&mut Json)| {
            let mut payment = json!({
                "id": 1300, "status": "approved", "status_detail": "accredited", "currency_id": "BRL",
                "transaction_amount": 121.5, "transaction_amount_refunded": 0, "refunds": [],
            });
            change(&mut payment);
            match MERCADOPAGO.inquiry.expect("it is asked").told("1300", payment.to_string().as_bytes()) {
                Told::Event(event) => (*event).clone(),
                other => panic!("{other:?}"),
            }
        };
        let refund = |id: u64| json!({ "id": id, "payment_id": 1300, "amount": 10, "status": "approved" });
        let refunded = |amount: Json, refunds: &[Json]| {
            told(&|p| {
                p["transaction_amount_refunded"] = amount.clone();
                p["refunds"] = json!(refunds);
            })
        };
        let paid = told(&|_| {});
        assert_eq!((paid.state, paid.detail.as_deref()), (Some(State::Paid), Some("accredited")));
        assert_eq!((paid.amount.as_deref(), paid.currency.as_deref()), (Some("121.50"), Some("BRL")));
        let (once, twice) = (refunded(json!(10), &[refund(1)]), refunded(json!(20.0), &[refund(1), refund(2)]));
        assert_eq!((once.state, twice.state), (Some(State::Refunded), Some(State::Refunded)));
        assert_eq!((paid.step, once.step), (None, Some(Step::Part)));
        assert!(paid.facts != once.facts && once.facts != twice.facts);
        assert_eq!(refunded(json!(10.0), &[refund(1)]).facts, once.facts, "10 is 10.0");
        assert_eq!(refunded(json!(0.0), &[]).facts, paid.facts);
        for (status, state) in [
            ("pending", Some(State::Pending)),
            ("in_process", Some(State::Pending)),
            ("rejected", Some(State::Failed)),
            ("cancelled", Some(State::Cancelled)),
            ("charged_back", Some(State::ChargedBack)),
            ("in_mediation", None),
        ] {
            assert_eq!(told(&|p| p["status"] = json!(status)).state, state, "{status}");
        }
    }

    #[test]
    fn only_plain_references_get_into_a_path() {
        let path = |reference: &str| asked().path(&of(reference));
        assert_eq!(path("tr_7Uh").as_deref(), Some("/v2/payments/tr_7Uh?embed=refunds,chargebacks"));
        for odd in [
            "ord_1",
            "tr_a/b",
            "tr_a?b",
            "tr_a#b",
            "tr_a%2f",
            "tr_a b",
            "tr_\u{e4}",
            &format!("tr_{}", "x".repeat(126)),
        ] {
            assert_eq!(path(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_key_is_shown_as_its_provider_wants_it_and_prints_as_nothing() {
        let key = |text: &str| Secret::new(SecretKind::ApiKey, text.as_bytes());
        let shown = |access: Access, text: &str| access.shown(&key(text));
        assert_eq!(shown(Access::Bearer, "live_1").unwrap(), "Bearer live_1");
        assert_eq!(shown(Access::Basic, "user:pass").unwrap(), "Basic dXNlcjpwYXNz");
        assert!(!format!("{:?}", shown(Access::Bearer, "live_1")).contains("live_1"));
        for (access, text) in
            [(Access::Bearer, "a b"), (Access::Bearer, "a\nb"), (Access::Bearer, ""), (Access::Basic, "user")]
        {
            assert!(shown(access, text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_the_callback_tells_by_itself_stays() {
        let said = Event {
            reference: "tr_1".into(),
            state: Some(State::Paid),
            facts: vec![("status", "paid".into())],
            aliases: vec![Alias { kind: "payment_hash".into(), value: "abc".into() }],
            ..Event::default()
        };
        let bare = completed(of("tr_1"), &said);
        assert_eq!((bare.state, &bare.facts, &bare.aliases), (said.state, &said.facts, &said.aliases));
        let own = Event { event_id: Some("e".into()), facts: vec![("status", "open".into())], ..of("tr_1") };
        let own = completed(own, &said);
        assert_eq!((own.facts, own.aliases), (vec![("status", "open".into())], said.aliases));
    }

    #[test]
    fn whoever_is_asked_is_asked_over_tls_at_a_fixed_place() {
        let asked: Vec<_> = PROVIDERS.iter().filter_map(|provider| provider.inquiry).collect();
        assert!(!asked.is_empty());
        for inquiry in asked {
            assert!(inquiry.url.starts_with("https://") && !inquiry.url.ends_with('/'), "{}", inquiry.url);
            assert!(!inquiry.questions.is_empty() && !inquiry.sources.is_empty());
            for question in inquiry.questions {
                assert!(question.path.starts_with('/') && question.path.matches("{reference}").count() == 1);
            }
        }
    }
}
