//! What a provider says of money, in any order: what is older than the app knows is kept from it, and of the payments of one
//! order a person hears of all but one.

use std::collections::{HashMap, HashSet};

use oncegate::{
    callback::Signature,
    intake::reading::Keyrings,
    provider::{
        contract::{Keyring, Secret, SecretKind, Settings},
        midtrans::MIDTRANS,
    },
    transaction::{history::Reason, state::Delivery},
};
use ring::digest::{SHA512, digest};

use super::{Chance, Channel, Heard, Tag, World};

/// What becomes of a payment; under two names it is paid.
const WORDS: [&str; 7] = ["pending", "authorize", "settlement", "capture", "partial_refund", "refund", "cancel"];
const KEY: &str = "server-key";
/// So many payments are of one order.
const OF_ONE_ORDER: u64 = 2;

fn is_paid(word: &str) -> bool {
    matches!(word, "settlement" | "capture")
}

/// What ends a payment so that another of its order is no second one.
fn ends(word: &str) -> bool {
    matches!(word, "refund" | "cancel")
}

/// What is signed is known to be.
pub fn keyrings() -> Keyrings {
    let secret = Secret::new(SecretKind::Hmac, KEY.as_bytes());
    HashMap::from([(MIDTRANS.name, Keyring::new(&MIDTRANS.scheme, &[secret], Settings::default()).unwrap())])
}

/// A signed callback that tells of a payment's money.
pub fn call(chance: &mut Chance, payment: u64) -> (String, (String, bool)) {
    let word = chance.of(&WORDS);
    let (order, code, gross) = (format!("o{}", payment / OF_ONE_ORDER), "200", "10.00");
    let signed = digest(&SHA512, format!("{order}{code}{gross}{KEY}").as_bytes());
    let tag: String = signed.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let refunds = if word.ends_with("refund") { r#","refunds":[{"refund_key":"r1"}]"# } else { "" };
    let body = format!(
        r#"{{"transaction_status":"{word}","transaction_id":"m{payment}","status_code":"{code}","order_id":"{order}","gross_amount":"{gross}","currency":"IDR"{refunds},"signature_key":"{tag}"}}"#
    );
    (body, (format!("m{payment}/{word}"), false))
}

/// The payment and the word of an event of money.
fn told(identity: &str) -> Option<(u64, &str)> {
    let (payment, word) = identity.strip_prefix('m')?.split_once('/')?;
    Some((payment.parse().ok()?, word))
}

fn told_by(tag: &Tag) -> Option<(u64, &str)> {
    match &*tag.identities {
        [(identity, _)] if tag.channel == Channel::Webhook => told(identity),
        _ => None,
    }
}

/// What is known of orders.
#[derive(Default)]
pub struct Orders {
    /// Payments that the gate has taken up; who was turned away comes again, or does not.
    paid: HashSet<u64>,
    /// Those of which a person was told that they are the second ones.
    seconds: HashSet<u64>,
    /// Orders that something came to nothing of, so that another payment of them is no second one.
    over: HashSet<u64>,
}

impl World {
    /// The gate has taken this up.
    pub fn is_taken_up(&self, delivery: &Delivery) {
        let serial = self.serial(delivery);
        let Some((payment, word)) = told_by(&self.tags.lock().unwrap()[serial]).map(|(of, word)| (of, word.to_owned()))
        else {
            return;
        };
        let mut orders = self.orders.lock().unwrap();
        if is_paid(&word) {
            orders.paid.insert(payment);
        }
        if ends(&word) {
            orders.over.insert(payment / OF_ONE_ORDER);
        }
    }

    /// A person is to look at this; whether that leaves open what becomes of what it tells.
    pub fn is_shown(&self, entry: &Delivery) -> bool {
        let Some((_, Reason::SecondPayment)) = entry.in_review() else { return true };
        let serial = self.serial(entry);
        let tag = self.tags.lock().unwrap()[serial].clone();
        match told_by(&tag) {
            Some((payment, word)) if is_paid(word) => _ = self.orders.lock().unwrap().seconds.insert(payment),
            _ => self.fault(format!("{tag:?} is no payment, and a person hears of it as of a second one")),
        }
        // The payment goes its own way.
        false
    }

    /// What is called too old is so: the app has heard of money that moved, and what is kept from it moves none, or a person
    /// has it.
    pub fn is_rightly_stale(&self, heard: &Heard) -> bool {
        let Some((payment, word)) = told_by(&heard.tag) else { return false };
        let in_hand = self.in_hand.lock().unwrap();
        let moved = |identity: &String| {
            let other =
                told(identity).filter(|(of, word)| *of == payment && (is_paid(word) || word.ends_with("refund")));
            other.is_some()
        };
        let has_heard = self.forwards.lock().unwrap().iter().any(|forward| {
            (forward.accepted || forward.booked) && forward.identities.iter().any(|(known, _)| moved(known))
        });
        let is_old = matches!(word, "pending" | "authorize") || in_hand.contains(&heard.tag.identities[0].0);
        is_old && (has_heard || in_hand.iter().any(moved))
    }

    /// Of the payments of each order a person has heard of all but one, where none of them has come to nothing.
    pub fn counts_second_payments(&self) {
        let Orders { paid, seconds, over } = &*self.orders.lock().unwrap();
        let orders: HashSet<_> = paid.iter().map(|payment| payment / OF_ONE_ORDER).collect();
        for order in orders.difference(over) {
            let of_it = |all: &HashSet<u64>| all.iter().filter(|payment| *payment / OF_ONE_ORDER == *order).count();
            let (due, shown) = (of_it(paid) - 1, of_it(seconds));
            // A gate that died before it had told anybody may have taken another one for the first.
            if shown < due || shown > due && self.outages.is_none() {
                self.fault(format!("of {paid:?} a person has heard of {seconds:?}: that is wrong of order {order}"));
            }
        }
    }
}

/// Callbacks of money carry a good signature, or these laws would be about nothing.
#[test]
fn what_tells_of_money_is_signed() {
    let rulebook = oncegate::intake::reading::Rulebook::new(
        super::rules(&oncegate::transaction::policy::Policy::default()),
        keyrings(),
        "http://app",
    );
    let mut chance = Chance(1);
    for _ in 0..20 {
        let (body, (identity, _)) = call(&mut chance, 1);
        let (method, uri) = (http::Method::POST, http::Uri::from_static("/midtrans/acme"));
        let mut headers = http::HeaderMap::new();
        headers.insert("content-type", http::HeaderValue::from_static("application/json"));
        let source = std::net::IpAddr::from([127, 0, 0, 1]);
        let whole = oncegate::intake::reading::Whole {
            method: &method,
            uri: &uri,
            headers: &headers,
            body: body.as_bytes(),
            host: "pay.example.org",
            source,
        };
        let route = rulebook.rules.classify(&whole.head()).unwrap();
        let reading = oncegate::intake::reading::Reading::of(&route, &whole, &rulebook, super::MORNING);
        assert_eq!(reading.signature, Signature::Valid);
        let is_paid = told(&identity).is_some_and(|(_, word)| is_paid(word));
        assert_eq!(reading.bills().is_empty(), !is_paid, "{identity}");
    }
}
