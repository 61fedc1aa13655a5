//! At each provider, the life of a payment in that provider's own words, told in every order and again and again: the app hears
//! of each thing once, and where the payment stands in the end does not hang on the order.

#![expect(clippy::unwrap_used, reason = "what the test itself builds is right, or the test is wrong")]

mod lives;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use oncegate::{
    callback::{Answer, Key, State},
    intake::reading::{Reading, Rulebook, Whole},
    provider::{
        PROVIDERS,
        contract::{Keyring, Provider, Secret, SecretKind, Settings},
        extract::Dialect,
        inquiry::Told,
    },
    rule::{Choices, Matcher, ProviderChoice, Rule, Rules, path::Template},
    store::{
        Store, Want,
        memory::{Memory, Options},
    },
    time::Timestamp,
    transaction::{
        arrival::{Arrival, Arriving, Course, Decision, Inquired, arrive},
        effect::{Ending, Input},
        lock::{Claimed, LeaseId},
        money::{Money, Stage},
        policy::Policy,
        state::StoredRequest,
        transition::apply,
    },
};
use serde_json::Value;

use self::lives::{LIVES, Life, Says};

// ------------------------------------------------------------------------------------------------ as it is read

fn fixtures(provider: &Provider) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/fixtures", provider.name].iter().collect()
}

/// The recorded request with other words: each of them stands there.
fn recorded(provider: &Provider, says: &Says) -> String {
    let path = fixtures(provider).join(says.file).with_extension("http");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let change = |text: String| {
        says.with.iter().fold(text, |text, (one, other)| {
            assert!(text.contains(one), "{}/{}: {one:?} does not stand there", provider.name, says.file);
            text.replace(one, other)
        })
    };
    // Its events are documents in base64 in a form.
    let Some((before, sealed)) = text.split_once("bt_payload=") else { return change(text) };
    let plain = percent_encoding::percent_decode_str(sealed).decode_utf8().unwrap().replace('\n', "");
    let document = change(String::from_utf8(BASE64_STANDARD.decode(plain.trim()).unwrap()).unwrap());
    let sealed = BASE64_STANDARD.encode(document);
    let sealed = percent_encoding::utf8_percent_encode(&sealed, percent_encoding::NON_ALPHANUMERIC);
    format!("{before}bt_payload={sealed}")
}

/// What opens what is sealed; who signed is not asked here.
fn keyring(provider: &Provider) -> Keyring {
    if !provider.name.starts_with("wechatpay") {
        return Keyring::default();
    }
    let expected: Value = serde_json::from_slice(&fs::read(fixtures(provider).join("expect.json")).unwrap()).unwrap();
    let secret = |secret: &Value| {
        let kind = if secret["kind"] == "api_key" { SecretKind::ApiKey } else { SecretKind::Hmac };
        Some(Secret::new(kind, secret["value"].as_str()?.as_bytes()))
    };
    let secrets: Vec<_> = expected["secrets"].as_array().unwrap().iter().filter_map(secret).collect();
    Keyring::new(&provider.scheme, &secrets, Settings::default()).unwrap()
}

fn book(provider: &'static Provider) -> Rulebook {
    let everywhere = Template::parse("/{rest*}", Dialect::Strict).unwrap();
    let choices =
        Choices { provider: Some(ProviderChoice::Named(provider)), hold: Some(Duration::ZERO), ..Choices::default() };
    let rule = Rule { matcher: Matcher { paths: vec![everywhere], ..Matcher::default() }, choices, ..Rule::default() };
    let rules = Rules::new(vec![rule], Policy { linger: Duration::ZERO, ..Policy::default() });
    Rulebook::new(rules, HashMap::from([(provider.name, keyring(provider))]), "http://app")
}

/// One callback of a life, read as the gate reads it.
#[derive(Clone)]
struct Heard {
    event: Arriving,
    claimed: Claimed,
    request: Arc<StoredRequest>,
}

fn heard(provider: &'static Provider, book: &Rulebook, says: &Says) -> Heard {
    let text = recorded(provider, says);
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut fields);
    let httparse::Status::Complete(head) = request.parse(text.as_bytes()).unwrap() else { panic!("half a head") };
    let mut headers = HeaderMap::new();
    for field in &*request.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(field.value).unwrap());
    }
    let (method, uri) = (request.method.unwrap().parse().unwrap(), request.path.unwrap().parse().unwrap());
    let body = Bytes::copy_from_slice(&text.as_bytes()[head..]);
    let source = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let whole = Whole { method: &method, uri: &uri, headers: &headers, body: &body, host: "pay.example.test", source };
    let route = book.rules.classify(&whole.head()).unwrap();
    let now = Timestamp::from_millis(1_775_000_000_000);
    let what = format!("{}/{} with {:?}", provider.name, says.file, says.with);
    let mut reading = Reading::of(&route, &whole, book, now);
    if !says.answer.is_empty() {
        let reference = reading.statements.as_ref().unwrap()[0].event.reference.clone();
        let told = provider.inquiry.unwrap().told(&reference, says.answer.as_bytes());
        let Told::Event(said) = told else { panic!("{what}: {told:?}") };
        reading = Reading::told(&route, &whole, book, now, Some(&said.event));
    }
    let mut events = reading.arriving();
    assert_eq!(events.len(), 1, "{what}: {:?}", reading.statements);
    let event = events.remove(0);
    assert!(!event.identified.windowed, "{what} does not tell what happened");
    // As if it were signed.
    let bills = reading.statements.unwrap().remove(0).bills;
    let event = Arriving { verified: true, bills, ..event };
    Heard { event, claimed: reading.claimed, request: Arc::new(StoredRequest { method, uri, headers, body }) }
}

// ------------------------------------------------------------------------------------------------ as it is played

/// A gate, and an app that accepts whatever it gets.
struct Gate {
    store: Memory,
    last: u64,
    now: Timestamp,
}

impl Gate {
    fn new() -> Self {
        Self { store: Memory::new(Options::default()), last: 0, now: Timestamp::from_millis(1_775_000_000_000) }
    }

    /// It comes, and what becomes a delivery of the app's is accepted.
    async fn hears(&mut self, provider: &Provider, heard: &Heard) -> (Decision, bool) {
        self.now = self.now.after(Duration::from_secs(1));
        self.last += 2;
        let (id, next) = (LeaseId(self.last), LeaseId(self.last + 1));
        let want = [heard.event.identified.transaction];
        let view = self.store.load(Want::Arrival(&want, &heard.claimed, &heard.event.bills), self.now).await.unwrap();
        let arrival = Arrival {
            id,
            next,
            events: vec![heard.event.clone()],
            provider: provider.name,
            source: None,
            request: Arc::clone(&heard.request),
            claimed: heard.claimed.clone(),
            came: self.now,
            inquired: Inquired::No,
            kept: None,
        };
        let (decided, transition) = arrive(&view, arrival, self.now);
        self.store.commit(transition, self.now).await.unwrap();
        let goes = decided.course == Course::Deliver(id);
        if goes {
            let answer = Arc::new(Answer { status: StatusCode::OK, content_type: None, body: None });
            for input in [Input::Sending, Input::Ended { attempt: 1, ending: Ending::Accepted(answer) }] {
                let view = self.store.load(Want::Delivery(id), self.now).await.unwrap();
                self.store.commit(apply(&view, id, input, self.now).unwrap(), self.now).await.unwrap();
            }
        }
        (decided.decisions[0], goes)
    }

    /// Where each of these payments stands.
    async fn money(&self, life: &[Heard]) -> BTreeMap<Key, Money> {
        let keys: Vec<_> = life.iter().map(|heard| heard.event.identified.transaction).collect();
        let view = self.store.load(Want::Transactions(&keys, &[]), self.now).await.unwrap();
        view.transactions.iter().map(|(key, transaction)| (*key, transaction.money)).collect()
    }
}

fn has_moved(heard: &Heard) -> bool {
    matches!(heard.event.state, Some(State::Paid | State::Refunded | State::ChargedBack))
}

fn is_given_up(heard: &Heard) -> bool {
    matches!(heard.event.state, Some(State::Failed | State::Cancelled))
}

/// Whether it is no wonder that it is too late, after these, of which some come later in the life: `None` of money that goes
/// back, and of what is no state.
fn may_be_late(life: &[Heard], it: usize, before: &[usize], money: Money) -> bool {
    let later = |which: &dyn Fn(&Heard) -> bool| before.iter().any(|other| *other > it && which(&life[*other]));
    match life[it].event.state {
        Some(State::Pending) => later(&|other| has_moved(other) || is_given_up(other)),
        Some(State::Failed | State::Cancelled) => later(&has_moved),
        // Another has told that it was paid, and all of that is gone again.
        Some(State::Paid) => money.paid && matches!(money.stage, Stage::Refunded | Stage::ChargedBack),
        Some(State::Refunded | State::ChargedBack) | None => false,
    }
}

/// Whether one of these, as they were delivered, led back from where the payment stood, as its provider's payments may go: of
/// the life the other way round, or by a statement that comes late and can't be told from a move back that its manual speaks of.
fn leads_back(life: &[Heard], delivered: &[usize]) -> bool {
    let state = |which: usize| life[which].event.state;
    let (is_paid, is_taken_back) = (
        |which: usize| state(which) == Some(State::Paid),
        |which: usize| matches!(state(which), Some(State::Refunded | State::ChargedBack)),
    );
    let goes_back =
        |from: usize, to: usize| has_moved(&life[from]) && is_given_up(&life[to]) || is_taken_back(from) && is_paid(to);
    let told_before = |at: usize| delivered[..at].iter().any(|other| is_paid(*other));
    let seems_to = |from: usize, at: usize| {
        let to = delivered[at];
        has_moved(&life[from]) && is_given_up(&life[to])
            || is_taken_back(from) && is_paid(to) && told_before(at)
            || is_given_up(&life[from]) && state(to) == Some(State::Pending)
    };
    delivered.iter().enumerate().any(|(at, it)| {
        let overtaken_by = delivered[..at].iter().filter(|other| *other > it);
        overtaken_by.into_iter().any(|other| goes_back(*it, *other) || seems_to(*other, at))
    })
}

fn orders(of: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for next in 0..of {
        let longer = |order: Vec<usize>| {
            (0..=order.len()).map(move |at| {
                let mut order = order.clone();
                order.insert(at, next);
                order
            })
        };
        all = all.into_iter().flat_map(longer).collect();
    }
    all
}

#[test]
fn a_life_has_as_many_orders_as_there_are() {
    let mut all = orders(4);
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 24);
}

#[test]
fn each_provider_that_calls_back_has_a_life() {
    // eWAY's payers only come back; the generic one has no words of its own.
    let silent = ["eway", "generic"];
    for provider in PROVIDERS.iter().filter(|provider| !silent.contains(&provider.name)) {
        assert!(LIVES.iter().any(|(name, _)| *name == provider.name), "{}", provider.name);
    }
}

/// Plays a life in its own order and then in every other; tells how often something was kept from the app as too old, and how many
/// orders had to end where the life ends.
async fn play(name: &'static str, life: Life) -> (usize, usize) {
    let provider = *PROVIDERS.iter().find(|provider| provider.name == name).unwrap();
    let book = book(provider);
    let life: Vec<_> = life.iter().map(|says| heard(provider, &book, says)).collect();
    let mut natural = Gate::new();
    for (at, heard) in life.iter().enumerate() {
        let (decision, goes) = natural.hears(provider, heard).await;
        assert!(goes, "{name}: {at} is {decision:?} though it comes when it should");
    }
    let natural = natural.money(&life).await;
    let (mut kept_from_the_app, mut compared) = (0, 0);
    for order in orders(life.len()) {
        let mut gate = Gate::new();
        // Each twice in a row, and then all of them once more, the other way round.
        let told = order.iter().flat_map(|at| [*at, *at]).chain(order.iter().rev().copied());
        let (mut delivered, mut late) = (Vec::new(), Vec::new());
        for at in told {
            let what = || format!("{name}, {order:?}: {at} ({:?})", life[at].event.state);
            let before = gate.money(&life).await.get(&life[at].event.identified.transaction).copied();
            let (decision, goes) = gate.hears(provider, &life[at]).await;
            if delivered.contains(&at) {
                assert_eq!((decision, goes), (Decision::Replayed, false), "{} again", what());
            } else if goes {
                assert!(matches!(decision, Decision::First | Decision::NewState), "{} is {decision:?}", what());
                delivered.push(at);
                let moved_back = leads_back(&life, &delivered);
                assert!(moved_back || !late.contains(&at), "{} goes though it was too late before", what());
                late.retain(|other| *other != at);
            } else if !late.contains(&at) {
                assert_eq!(decision, Decision::Stale, "{}", what());
                assert!(may_be_late(&life, at, &delivered, before.unwrap_or_default()), "{} is late", what());
                late.push(at);
            }
        }
        assert_eq!(delivered.len() + late.len(), life.len(), "{name}, {order:?}");
        kept_from_the_app += late.len();
        if !leads_back(&life, &delivered) {
            compared += 1;
            assert_eq!(gate.money(&life).await, natural, "{name}, {order:?}, without {late:?}");
        }
    }
    (kept_from_the_app, compared)
}

#[tokio::test]
async fn at_each_provider_any_order_and_repetition_of_a_life_ends_in_the_same_deliveries() {
    // Each by itself, so that a fault of one hides no other's.
    let played: Vec<_> = LIVES.iter().map(|(name, life)| (name, tokio::spawn(play(name, life)))).collect();
    let (mut kept_from_the_app, mut compared, mut wrong) = (0, 0, Vec::new());
    for (name, life) in played {
        match life.await {
            Ok((late, ends)) => (kept_from_the_app, compared) = (kept_from_the_app + late, compared + ends),
            Err(_) => wrong.push(name),
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    eprintln!("kept from the app: {kept_from_the_app}, compared: {compared}");
    assert!(kept_from_the_app > 0 && compared > 20 * LIVES.len(), "the lives are not what they were");
}
