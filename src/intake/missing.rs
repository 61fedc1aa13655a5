//! Payments that were seen to begin and of which nobody has called: their provider is asked after a while, and what is paid
//! goes to the app as a callback of our own.
//!
//! Where it would have been sent its provider says, who knows the address that was given to it, or the callback that told of
//! its beginning, which came there; only the path and the host are used, and it is read by the rules like any other. So it has
//! the keys and the names of the real one, and whichever of the two comes later is a repeat.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use dashmap::{DashMap, Entry};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, USER_AGENT},
    uri::PathAndQuery,
};

use super::{
    Intake,
    reading::{NO_KEYS, Reading, Rulebook, Statement, Whole, refused},
};
use crate::{
    callback::{Channel, Event, Key, State},
    dispatch::App,
    inquiry::{Known, Why},
    provider::{
        contract::Keyring,
        inquiry::{Api, Asking, Call, Notice, Said, Where},
    },
    spread::Spread,
    store::Store,
    time::Timestamp,
    transaction::{
        effect::{Change, Transition},
        lock::{Claimed, Era, LeaseId},
        policy::Policy,
        state::{Carried, Delivery, Letter, Phase, StoredRequest},
    },
};

/// Payments that are waited for at once; of more nobody is asked.
const MOST: usize = 10_000;
/// A payment that is not paid by then is waited for no longer.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What history says of a callback of our own.
pub const MADE: &str = "nobody called: its provider was asked, and this was made of the answer";

/// A payment that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// With whom.
    pub provider: &'static str,
    /// Its name there.
    pub reference: Arc<str>,
    /// When its provider is asked, from now on.
    pub after: Duration,
    /// The address to which a callback came that told of it, where its provider tells none.
    pub place: Option<Uri>,
}

impl Beginning {
    /// What a webhook that came so tells to have begun, where that is waited for: payments of which it tells nothing but that
    /// they are pending.
    pub fn told(reading: &Reading, book: &Rulebook, whole: &Whole<'_>) -> Vec<Self> {
        let provider = reading.provider.name;
        let waited = book.apis.get(provider).and_then(|api| Some((api.missing_after?, api.inquiry.missing.notice()?)));
        let Some((after, notice)) = waited else { return Vec::new() };
        let statements = reading.statements.as_deref().unwrap_or_default();
        let is_pending = |one: &Statement| one.event.state == Some(State::Pending);
        let begins = |one: &&Statement| {
            let mut same = statements.iter().filter(|other| other.event.reference == one.event.reference);
            !one.policy.shadow && same.all(is_pending)
        };
        let place = match notice.place {
            Where::Told(_) => None,
            Where::Began => whole.uri.path_and_query().and_then(|path| came_to(whole, path)),
        };
        let beginning = |one: &Statement| Self {
            provider,
            reference: Arc::from(&*one.event.reference),
            after,
            place: place.clone(),
        };
        statements.iter().filter(begins).map(beginning).collect()
    }

    fn key(&self) -> Key {
        key(self.provider, &self.reference)
    }
}

/// The address to which this came, as its sender knows it.
fn came_to(whole: &Whole<'_>, path: &PathAndQuery) -> Option<Uri> {
    let scheme = whole.headers.get(FORWARDED_PROTO)?.as_bytes();
    Uri::builder().scheme(scheme).authority(whole.host).path_and_query(path.clone()).build().ok()
}

/// Nobody knows yet to which account it belongs, so this is no transaction of any callback.
fn key(provider: &str, reference: &str) -> Key {
    Key::of("awaited").part("provider", provider).part("reference", reference).finish()
}

/// What of a payment is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waits {
    /// One that knows no place.
    Placeless,
    /// One that knows its place.
    Placed,
    /// One that knows its place, and one before it that knows none.
    Both,
}

/// Which payments are waited for; a gate that may be lost, for one question more does no harm.
#[derive(Default)]
pub struct Missing(DashMap<Key, Waits, Spread>);

impl Missing {
    /// Whether it has to be waited for: not if it is already, nor if there are too many. One that knows its place is though
    /// another is that knows none.
    fn begins(&self, beginning: &Beginning) -> bool {
        let has_room = self.0.len() < MOST;
        match (self.0.entry(beginning.key()), &beginning.place) {
            (Entry::Vacant(free), place) if has_room => {
                free.insert(if place.is_some() { Waits::Placed } else { Waits::Placeless });
                true
            }
            (Entry::Occupied(mut known), Some(_)) if *known.get() == Waits::Placeless => {
                known.insert(Waits::Both);
                true
            }
            (Entry::Vacant(_) | Entry::Occupied(_), _) => false,
        }
    }

    /// Whether another that knows its place stands for this one, which is over then.
    fn is_overtaken(&self, payment: Key, place: &Uri) -> bool {
        if place.authority().is_some() {
            return false;
        }
        match self.0.entry(payment) {
            Entry::Occupied(known) if *known.get() == Waits::Both => {
                known.remove();
                true
            }
            Entry::Occupied(known) => *known.get() == Waits::Placed,
            Entry::Vacant(_) => false,
        }
    }

    /// It is not waited for after all. What another has made of it meanwhile stays.
    fn forget(&self, beginning: &Beginning) {
        let Entry::Occupied(mut known) = self.0.entry(beginning.key()) else { return };
        match (*known.get(), beginning.place.is_some()) {
            (Waits::Both, true) => _ = known.insert(Waits::Placeless),
            (Waits::Both, false) => _ = known.insert(Waits::Placed),
            (Waits::Placed, true) | (Waits::Placeless, false) => _ = known.remove(),
            (Waits::Placed, false) | (Waits::Placeless, true) => {}
        }
    }

    /// It is over. Where one before it is not, that is remembered until its time comes.
    fn over(&self, payment: Key) {
        self.0.remove_if(&payment, |_, waits| *waits != Waits::Both);
    }
}

/// Payments that begin to be waited for. Dropped before that is written down, they are not, and may begin again.
pub(super) struct Begun<'a> {
    missing: &'a Missing,
    all: Vec<Beginning>,
}

impl Begun<'_> {
    /// It is written down.
    pub(super) fn stands(mut self) {
        self.all.clear();
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.all.iter().for_each(|beginning| self.missing.forget(beginning));
    }
}

/// What becomes of a payment that was waited for, when its provider has been asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is asked about later, once more.
    Later,
    /// It is waited for no longer, for this reason; a label.
    Over(&'static str),
    /// It is paid.
    Due,
}

/// What an answer means for a payment that has been waited for so long.
fn judged(known: &Known, age: Duration) -> Verdict {
    let patient = |otherwise| if age < LONGEST { Verdict::Later } else { Verdict::Over(otherwise) };
    match known {
        Known::Event(said) => match said.event.state {
            Some(State::Paid | State::Refunded | State::ChargedBack) => Verdict::Due,
            Some(State::Pending) => patient("unpaid"),
            Some(State::Failed | State::Cancelled) | None => Verdict::Over("unpaid"),
        },
        Known::Another | Known::Nothing(Why::NotFound | Why::Refused) => Verdict::Over("unknown"),
        Known::Nothing(Why::Limited | Why::Unreadable | Why::Failed | Why::TooSlow | Why::Resting | Why::Crowded) => {
            patient("unknown")
        }
    }
}

impl<S: Store, A: App> Intake<S, A> {
    /// What is to be remembered of payments that have just begun, and what says that it is.
    pub(super) fn awaiting(&self, era: Era, mut begun: Vec<Beginning>) -> (Vec<Change>, Begun<'_>) {
        let now = self.dispatch.clock_now();
        begun.retain(|beginning| self.missing.begins(beginning));
        let put = |beginning| Change::Put(awaited(beginning, era, self.dispatch.next_id(), now));
        (begun.iter().map(put).collect(), Begun { missing: &self.missing, all: begun })
    }

    /// Payments that a webhook tells to be pending have begun.
    pub(super) async fn expect(&self, era: Era, begun: Vec<Beginning>) {
        let (deliveries, begun) = self.awaiting(era, begun);
        if deliveries.is_empty() {
            return;
        }
        match self.dispatch.commit(Transition { deliveries, ..Transition::default() }).await {
            Ok(()) => begun.stands(),
            Err(error) => tracing::warn!(%error, "what is pending is not waited for"),
        }
    }

    /// The time has come to ask about a payment of which nobody has called.
    pub(super) async fn seek(&self, book: &Rulebook, delivery: &Delivery) {
        let letter = &delivery.letter;
        let Some(carried) = letter.events.first() else { return };
        if self.missing.is_overtaken(carried.transaction, &letter.request.uri) {
            return self.drop_recheck(delivery).await;
        }
        let asked = book.apis.get(letter.provider).filter(|api| api.missing_after.is_some());
        let asked = asked.and_then(|api| {
            let notice = api.inquiry.missing.notice()?;
            let event_type = notice.event_type.map(str::to_owned);
            let about = Event { reference: carried.reference.to_string(), event_type, ..Event::default() };
            Some((api, notice, api.inquiry.path(&about)?))
        });
        // It was turned off meanwhile.
        let Some((api, notice, path)) = asked else { return self.waits_no_longer(delivery, "off").await };
        let question = Asking {
            api: Arc::clone(api),
            path,
            reference: Arc::clone(&carried.reference),
            payment: carried.transaction,
            scope: Key::of("account").finish(),
            settles: true,
        };
        let known = self.inquiry.ask(question, None).await;
        let now = self.dispatch.clock_now();
        match (judged(&known, now.since(letter.arrived)), known) {
            (Verdict::Later, _) => {}
            (Verdict::Over(why), _) => self.waits_no_longer(delivery, why).await,
            (Verdict::Due, Known::Event(said)) => self.bring(book, delivery, api, notice, &said).await,
            (Verdict::Due, _) => {}
        }
    }

    /// Brings the app a paid payment as its provider would have.
    async fn bring(&self, book: &Rulebook, delivery: &Delivery, api: &Api, notice: &Notice, said: &Said) {
        let letter = &delivery.letter;
        let keyring = book.keyrings.get(api.provider).unwrap_or(&NO_KEYS);
        let call = said.call.as_ref();
        let Some(request) = call.and_then(|call| made(notice, keyring, call, &letter.request.uri)) else {
            return self.waits_no_longer(delivery, "placeless").await;
        };
        let host = request.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let source = IpAddr::from(Ipv4Addr::UNSPECIFIED);
        let StoredRequest { method, uri, headers, body } = &request;
        let whole = Whole { method, uri, headers, body, host, source };
        let route = book.rules.classify(&whole.head()).filter(|route| route.channel == Channel::Webhook);
        let Some(route) = route else { return self.waits_no_longer(delivery, "placeless").await };
        let reading = Reading::told(&route, &whole, book, self.dispatch.clock.wall(letter.arrived), Some(&said.event));
        let is_it = |reading: &Reading| {
            let of = reading.statements.as_deref().unwrap_or_default();
            matches!(of, [one] if one.event.reference == said.event.reference && !one.policy.shadow)
        };
        if reading.provider.name != api.provider || refused(&reading).is_some() || !is_it(&reading) {
            return self.waits_no_longer(delivery, "placeless").await;
        }
        let (events, claimed, policy) = (letter.events.clone(), letter.claimed.clone(), Arc::clone(&letter.policy));
        let letter = Letter {
            request: Arc::new(request),
            provider: letter.provider,
            events,
            claimed,
            policy,
            arrived: letter.arrived,
        };
        let made = Delivery { letter: Arc::new(letter), ..delivery.clone() };
        let provider = api.provider;
        match self.decide_again(&reading, &made, Some(MADE)).await {
            Some(true) => {
                let reference = &*said.event.reference;
                tracing::warn!(provider, reference, "nobody has called about a payment that is paid: it is delivered");
                self.over(&made, "delivered");
            }
            Some(false) => self.over(&made, "known"),
            // Its time comes again.
            None => {}
        }
    }

    /// It is waited for no longer.
    async fn waits_no_longer(&self, delivery: &Delivery, why: &'static str) {
        self.drop_recheck(delivery).await;
        self.over(delivery, why);
    }

    fn over(&self, delivery: &Delivery, why: &'static str) {
        self.dispatch.metrics.count_missing(delivery.letter.provider, why);
        if let Some(carried) = delivery.letter.events.first() {
            self.missing.over(carried.transaction);
        }
    }
}

/// What is remembered of a payment that is waited for. It claims nothing and locks nothing; what the app will be sent is
/// made when it is known.
fn awaited(beginning: &Beginning, era: Era, id: LeaseId, now: Timestamp) -> Delivery {
    let payment = beginning.key();
    let carried = Carried {
        reference: Arc::clone(&beginning.reference),
        transaction: payment,
        identity: payment,
        windowed: true,
        told: 0,
        state: None,
        step: None,
    };
    let request = StoredRequest {
        method: Method::POST,
        uri: beginning.place.clone().unwrap_or_default(),
        headers: HeaderMap::new(),
        body: Bytes::new(),
    };
    let letter = Letter {
        request: Arc::new(request),
        provider: beginning.provider,
        events: vec![carried],
        claimed: Claimed { channel: Channel::Webhook, names: Vec::new(), kinds: Vec::new(), exclusive: false, era },
        policy: Arc::new(Policy::default()),
        arrived: now,
    };
    let phase = Phase::Awaited { at: now.after(beginning.after) };
    Delivery { id, version: 0, letter: Arc::new(letter), phase, attempts: 0, owed: false }
}

/// The callback as it would have come; `None` where nobody knows to which address, or can sign it.
fn made(notice: &Notice, keyring: &Keyring, call: &Call, began: &Uri) -> Option<StoredRequest> {
    let address = call.place.as_ref().map_or_else(|| Some(began.clone()), |place| place.parse().ok())?;
    let host = address.authority().filter(|authority| !authority.as_str().contains('@'))?;
    let scheme = address.scheme_str().filter(|scheme| matches!(*scheme, "http" | "https"))?;
    let port = host.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    let body = call.body.clone();
    let text = |text: &str| HeaderValue::from_str(text).ok();
    let host = text(host.as_str())?;
    let mut headers = HeaderMap::new();
    headers.insert(HOST, host.clone());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(notice.content_type));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(
        USER_AGENT,
        HeaderValue::from_static(concat!("oncegate/", env!("CARGO_PKG_VERSION"), " (nobody called)")),
    );
    headers.insert(HeaderName::from_static("x-forwarded-host"), host);
    headers.insert(FORWARDED_PROTO, text(scheme)?);
    headers.insert(HeaderName::from_static("x-forwarded-port"), HeaderValue::from(port));
    if let Some((name, tag)) = notice.signature(keyring, &body).ok()? {
        headers.insert(HeaderName::from_static(name), text(&tag)?);
    }
    let uri = Uri::from(address.path_and_query()?.clone());
    Some(StoredRequest { method: Method::POST, uri, headers, body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dispatch::{self, Dispatch},
        provider::mollie::MOLLIE,
        store::memory::{self, Memory},
        telemetry::Metrics,
        time::SteadyClock,
        upstream::{self, Upstream},
    };

    fn beginning(reference: &str) -> Beginning {
        Beginning { provider: "mollie", reference: Arc::from(reference), after: Duration::from_secs(900), place: None }
    }

    #[test]
    fn a_payment_is_waited_for_once_and_only_so_many_are() {
        let missing = Missing::default();
        assert!(missing.begins(&beginning("tr_0")) && !missing.begins(&beginning("tr_0")));
        for payment in 1..MOST {
            assert!(missing.begins(&beginning(&format!("tr_{payment}"))));
        }
        assert!(!missing.begins(&beginning("tr_x")));
        missing.over(beginning("tr_0").key());
        assert!(missing.begins(&beginning("tr_x")));
    }

    #[test]
    fn what_knows_its_place_is_waited_for_beside_what_knows_none_and_stands_for_it() {
        let place = Uri::from_static("https://pay.example/hook");
        let (placeless, placed) = (beginning("t-1"), Beginning { place: Some(place.clone()), ..beginning("t-1") });
        let (payment, nowhere) = (placed.key(), Uri::default());
        for is_over_first in [false, true] {
            let missing = Missing::default();
            assert!(missing.begins(&placeless) && !missing.is_overtaken(payment, &nowhere));
            assert!(missing.begins(&placed) && !missing.begins(&placed) && !missing.begins(&placeless));
            if is_over_first {
                missing.over(payment);
            }
            assert!(!missing.is_overtaken(payment, &place) && missing.is_overtaken(payment, &nowhere));
            assert!(missing.0.is_empty(), "nothing is left of it");
        }
        // After a restart only what comes is known.
        let missing = Missing::default();
        assert!(missing.begins(&placed) && !missing.begins(&placeless));
        assert!(missing.is_overtaken(payment, &nowhere) && missing.is_overtaken(payment, &nowhere));
        missing.over(payment);
        assert!(missing.0.is_empty());
    }

    #[test]
    fn who_could_not_be_waited_for_takes_back_no_more_than_was_his() {
        let (payment, nowhere) = (beginning("t-1").key(), Uri::default());
        let placed = Beginning { place: Some(Uri::from_static("https://pay.example/hook")), ..beginning("t-1") };
        for (one, other) in [(beginning("t-1"), &placed), (placed.clone(), &beginning("t-1"))] {
            let missing = Missing::default();
            assert!(missing.begins(&one));
            missing.forget(other);
            assert!(!missing.0.is_empty(), "it is another's");
            missing.forget(&one);
            assert!(missing.0.is_empty());
        }
        let missing = Missing::default();
        assert!(missing.begins(&beginning("t-1")) && missing.begins(&placed));
        missing.forget(&placed);
        assert!(!missing.is_overtaken(payment, &nowhere) && missing.begins(&placed));
        missing.forget(&beginning("t-1"));
        assert!(missing.is_overtaken(payment, &nowhere));
    }

    #[tokio::test]
    async fn a_payment_that_could_not_be_written_down_may_begin_again() {
        let metrics = Arc::new(Metrics::new());
        let full = Memory::new(memory::Options { max_leases: 0, ..memory::Options::default() });
        let app = Upstream::new(upstream::Options::new("http://127.0.0.1:1")).expect("an app");
        let clock = SteadyClock::starting_at(Timestamp::EPOCH);
        let intake = Intake::new(Dispatch::new(full, Arc::new(app), clock, metrics, dispatch::Options::default()));
        intake.expect(Era(0), vec![beginning("tr_1")]).await;
        assert!(intake.missing.0.is_empty());
        let (changes, begun) = intake.awaiting(Era(0), vec![beginning("tr_1"), beginning("tr_1")]);
        begun.stands();
        assert_eq!((changes.len(), intake.missing.0.len()), (1, 1));
    }

    #[test]
    fn only_what_is_paid_is_due_and_nothing_is_waited_for_without_end() {
        let said = |state| Known::Event(Arc::new(Said { event: Event { state, ..Event::default() }, call: None }));
        let (young, old) = (Duration::from_secs(900), LONGEST);
        for state in [State::Paid, State::Refunded, State::ChargedBack] {
            assert_eq!(
                (judged(&said(Some(state)), young), judged(&said(Some(state)), old)),
                (Verdict::Due, Verdict::Due)
            );
        }
        for state in [Some(State::Failed), Some(State::Cancelled), None] {
            assert_eq!(judged(&said(state), young), Verdict::Over("unpaid"));
        }
        let failed = Known::Nothing(Why::Failed);
        assert_eq!(
            (judged(&said(Some(State::Pending)), young), judged(&failed, young)),
            (Verdict::Later, Verdict::Later)
        );
        assert_eq!(judged(&said(Some(State::Pending)), old), Verdict::Over("unpaid"));
        assert_eq!(judged(&failed, old), Verdict::Over("unknown"));
        for gone in [Known::Another, Known::Nothing(Why::NotFound), Known::Nothing(Why::Refused)] {
            assert_eq!(judged(&gone, young), Verdict::Over("unknown"));
        }
    }

    #[test]
    fn what_is_made_goes_where_the_provider_was_told_to_call_and_nowhere_else() {
        let mollie = MOLLIE.inquiry.and_then(|inquiry| inquiry.missing.notice()).expect("it is made");
        let made = |place: Option<&str>, began: &str| {
            let call = Call { place: place.map(str::to_owned), body: Bytes::from_static(b"id=tr_1") };
            made(mollie, &NO_KEYS, &call, &began.parse().expect("an address"))
        };
        let target = |place: &str| made(Some(place), "/").map(|request| request.uri.to_string());
        assert_eq!(target("https://pay.example/hook/a?x=1").as_deref(), Some("/hook/a?x=1"));
        assert_eq!(target("http://[::1]:8080/hook").as_deref(), Some("/hook"));
        for none in
            ["", "/hook", "pay.example/hook", "ftp://pay.example/hook", "https://a@pay.example/hook", "https://a b/"]
        {
            assert_eq!(target(none), None, "{none}");
        }
        // Who tells no address called where the payment's beginning was told; what began elsewhere, nobody knows where.
        let began = made(None, "https://pay.example/hook/a?x=1").expect("it is an address");
        assert_eq!(began.uri, "/hook/a?x=1");
        assert!(made(None, "/").is_none() && made(None, "/hook").is_none());
        let request = made(Some("https://pay.example:8443/hook"), "/").expect("it is an address");
        let field = |name: &str| request.headers[name].to_str().expect("text").to_owned();
        assert_eq!((field("host"), field("x-forwarded-port")), ("pay.example:8443".to_owned(), "8443".to_owned()));
        assert_eq!((&*request.body, field("content-length")), (&b"id=tr_1"[..], "7".to_owned()));
    }
}
