//! Which requests are callbacks, how they are read, and which policy each of their events gets.

pub mod choices;
pub mod keying;
pub mod learn;
pub mod matcher;
pub mod path;

use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, Method, Uri};

pub use self::{
    choices::{Aliases, Choices, ProviderChoice},
    learn::Learn,
    matcher::Matcher,
};
use crate::{
    callback::{Channel, Event, Signature},
    expression::{EventFacts, Expression, RequestFacts},
    provider::{
        contract::Provider,
        extract::{Dialect, Place, Places},
    },
    rule::path::NormalPath,
    transaction::policy::Policy,
};

/// A set of rules is one machine word and a half, so that it can be a key; more rules than this are a fault.
pub const RULES_MAX: usize = 128;

/// How many combinations of rules are remembered; what comes on top is worked out anew each time.
const MEMO_MAX: usize = 4096;

/// How much longer than its retry span a provider's identities are remembered where no rule says.
const RETENTION_MARGIN: Duration = Duration::from_secs(24 * 3600);

/// How much of the provider's time limit a hold always leaves.
const HOLD_MARGIN: Duration = Duration::from_secs(1);

/// How much of the provider's time limit is left for an acknowledgement of ours to get there.
const ANSWER_MARGIN: Duration = Duration::from_secs(1);

/// How long a provider waits with some certainty: the default of `answer_within` where the engine is durable.
#[must_use]
pub fn answers_within(provider: &Provider) -> Duration {
    provider.answer_limit.saturating_sub(ANSWER_MARGIN).max(provider.answer_limit / 2)
}

/// One rule: what it matches, and what it chooses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// What it is called in logs and metrics.
    pub name: Option<Arc<str>>,
    /// Where it stands in the configuration.
    pub place: Arc<str>,
    /// What it matches on.
    pub matcher: Matcher,
    /// What it chooses for what it matches.
    pub choices: Choices,
}

/// What is known of a request when its head has been read.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target as received.
    pub uri: &'a Uri,
    /// The header fields as received.
    pub headers: &'a HeaderMap,
    /// The host it was sent to.
    pub host: &'a str,
    /// Where it comes from, as far as trusted proxies say.
    pub source: IpAddr,
}

/// The compiled rules; cheap to clone.
#[derive(Clone)]
pub struct Rules(Arc<Inner>);

struct Inner {
    rules: Vec<Rule>,
    /// Those that make a request a callback, in order.
    callbacks: Vec<usize>,
    /// Those that learn from answers, in order.
    learning: Vec<usize>,
    base: Policy,
    shapes: RwLock<HashMap<RuleSet, Arc<Shape>>>,
    policies: RwLock<HashMap<(RuleSet, &'static str), Arc<Policy>>>,
    lessons: RwLock<HashMap<RuleSet, Arc<Learn>>>,
    failed: AtomicU64,
}

/// Rules by number, the first in the lowest bit.
type RuleSet = u128;

/// How a request is read: the part of a route that follows from the matching rules alone.
#[derive(Debug)]
struct Shape {
    channel: Channel,
    provider: ProviderChoice,
    places: Arc<Places>,
    dialect: Dialect,
    scope_host: bool,
    learn: Arc<Learn>,
    rule: Arc<str>,
}

/// What the rules make of one callback.
#[derive(Clone)]
pub struct Route {
    /// Which way it came.
    pub channel: Channel,
    /// Who sent it.
    pub provider: ProviderChoice,
    /// Where its values stand; they go before what the provider's own reading says.
    pub places: Arc<Places>,
    /// How its bytes are read.
    pub dialect: Dialect,
    /// Whether the host is a part of the scope.
    pub scope_host: bool,
    /// What is learned from its answer.
    pub learn: Arc<Learn>,
    /// The named segments of the first matching callback rule's path, decoded; the scope is made of these.
    pub segments: Vec<(Arc<str>, String)>,
    /// The first matching rule that has a name and does not look at the event.
    pub rule: Arc<str>,
    rules: Rules,
    matching: RuleSet,
    /// Rules that match if their `when` agrees with the event.
    pending: RuleSet,
}

impl Rules {
    /// Compiles the rules, the user's first and the preset's after them; `base` decides where none of them does.
    ///
    /// Only the first [`RULES_MAX`] count.
    #[must_use]
    pub fn new(mut rules: Vec<Rule>, base: Policy) -> Self {
        rules.truncate(RULES_MAX);
        let callbacks = (0..rules.len()).filter(|&i| rules[i].choices.make_a_callback()).collect();
        let learning = (0..rules.len()).filter(|&i| !rules[i].choices.learn.is_empty()).collect();
        let (shapes, policies, lessons) = (RwLock::default(), RwLock::default(), RwLock::default());
        let failed = AtomicU64::new(0);
        Self(Arc::new(Inner { rules, callbacks, learning, base, shapes, policies, lessons, failed }))
    }

    /// The rules in the order in which they decide.
    #[must_use]
    pub fn list(&self) -> &[Rule] {
        &self.0.rules
    }

    /// What applies where no rule and no provider decides.
    #[must_use]
    pub fn base(&self) -> &Policy {
        &self.0.base
    }

    /// The fingerprint of all that decides under which keys and names callbacks for the app at `upstream` are known.
    #[must_use]
    pub fn keying(&self, upstream: &str) -> u64 {
        keying::era(&self.0.rules, upstream)
    }

    /// How often a `when` failed, and its rule therefore did not match.
    #[must_use]
    pub fn failed_expressions(&self) -> u64 {
        self.0.failed.load(Ordering::Relaxed)
    }

    /// How a request is to be read, or `None` when it is no callback.
    #[must_use]
    pub fn classify(&self, head: &Head<'_>) -> Option<Route> {
        let path = NormalPath::new(head.uri.path());
        let first = self.0.callbacks.iter().copied().find(|&i| self.matches(i, head, &path))?;
        let (mut matching, mut pending) = (0, 0);
        for (i, rule) in self.0.rules.iter().enumerate() {
            if rule.matcher.reads_event() {
                pending |= RuleSet::from(rule.matcher.takes(head, &path)) << i;
            } else {
                matching |= RuleSet::from(i == first || self.matches(i, head, &path)) << i;
            }
        }
        let shape = self.shape(matching);
        Some(Route {
            channel: shape.channel,
            provider: shape.provider,
            places: Arc::clone(&shape.places),
            dialect: shape.dialect,
            scope_host: shape.scope_host,
            learn: Arc::clone(&shape.learn),
            segments: self.0.rules[first].matcher.segments(&path),
            rule: Arc::clone(&shape.rule),
            rules: self.clone(),
            matching,
            pending,
        })
    }

    /// What is to be learned from the answer to a request that is no callback, or `None` where no rule wants to look at it.
    #[must_use]
    pub fn learns(&self, head: &Head<'_>) -> Option<Arc<Learn>> {
        if self.0.learning.is_empty() {
            return None;
        }
        let path = NormalPath::new(head.uri.path());
        let matches = |i: &usize| RuleSet::from(self.matches(*i, head, &path)) << i;
        let matching = self.0.learning.iter().map(matches).fold(0, std::ops::BitOr::bitor);
        (matching != 0).then(|| remembered(&self.0.lessons, matching, || self.lessons(matching)))
    }

    /// Each name is a key of its own: for each, the first rule that learns it decides. A cookie under the name of a session
    /// is one.
    fn lessons(&self, matching: RuleSet) -> Learn {
        let mut learn = Learn::default();
        for choices in self.those(matching).map(|rule| &rule.choices) {
            learn.add(&choices.learn);
            let sessions = choices.aliases.iter().filter(|(kind, _)| self.is_session(kind));
            learn.add(&Learn { names: Vec::new(), sessions: sessions.map(cookies_among).collect() });
        }
        learn
    }

    fn is_session(&self, kind: &str) -> bool {
        let learned = |rule: &Rule| rule.choices.learn.sessions.iter().any(|(known, _)| **known == *kind);
        self.0.learning.iter().any(|i| learned(&self.0.rules[*i]))
    }

    /// Whether a rule that does not look at the event matches.
    fn matches(&self, i: usize, head: &Head<'_>, path: &NormalPath<'_>) -> bool {
        let matcher = &self.0.rules[i].matcher;
        !matcher.reads_event()
            && matcher.takes(head, path)
            && matcher.when.as_deref().is_none_or(|when| self.agrees(when, head, path, None))
    }

    fn agrees(
        &self,
        when: &Expression,
        head: &Head<'_>,
        path: &NormalPath<'_>,
        event: Option<&EventFacts<'_>>,
    ) -> bool {
        let request = RequestFacts {
            method: head.method,
            path: path.as_str(),
            host: head.host,
            query: head.uri.query().unwrap_or_default(),
            headers: head.headers,
            source: head.source,
        };
        when.eval_when(&request, event).unwrap_or_else(|_| {
            self.0.failed.fetch_add(1, Ordering::Relaxed);
            false
        })
    }

    fn shape(&self, matching: RuleSet) -> Arc<Shape> {
        remembered(&self.0.shapes, matching, || {
            let places = Places {
                reference: self.first(matching, |c| c.reference.clone()).unwrap_or_default(),
                event_id: self.first(matching, |c| c.event_id.clone()).unwrap_or_default(),
                state: self.first(matching, |c| c.state.clone()).unwrap_or_default(),
                amount: self.first(matching, |c| c.amount.clone()).unwrap_or_default(),
                currency: self.first(matching, |c| c.currency.clone()).unwrap_or_default(),
                aliases: self.aliases(matching),
                identity: self.first(matching, |c| c.identity_places.clone()).unwrap_or_default(),
            };
            Shape {
                channel: self.first(matching, |c| c.channel).unwrap_or(Channel::Webhook),
                provider: self.first(matching, |c| c.provider).unwrap_or(ProviderChoice::Auto),
                places: Arc::new(places),
                dialect: self.first(matching, |c| c.dialect).unwrap_or_default(),
                scope_host: self.first(matching, |c| c.scope_host).unwrap_or(false),
                learn: Arc::new(self.lessons(matching)),
                rule: self.label(matching),
            }
        })
    }

    /// Each alias is a key of its own: for each, the first rule that sets it decides. A session is no name of a payment.
    fn aliases(&self, matching: RuleSet) -> Aliases {
        let mut aliases = Aliases::new();
        for (kind, places) in self.those(matching).flat_map(|rule| &rule.choices.aliases) {
            if self.is_session(kind) {
                continue;
            }
            if !aliases.iter().any(|(known, _)| known == kind) {
                aliases.push((Arc::clone(kind), places.clone()));
            }
        }
        aliases
    }

    fn policy(&self, matching: RuleSet, provider: Option<&'static Provider>) -> Arc<Policy> {
        let name = provider.map_or("", |p| p.name);
        remembered(&self.0.policies, (matching, name), || self.compose(matching, provider))
    }

    /// Rules, then the provider, then the default.
    fn compose(&self, matching: RuleSet, provider: Option<&Provider>) -> Policy {
        let mut policy = self.0.base.clone();
        policy.rule = self.label(matching);
        if let Some(provider) = provider {
            let declared = provider.paid_once.iter().map(|kind| Arc::from(*kind));
            policy.paid_once = policy.paid_once.iter().cloned().chain(declared).collect();
            policy.retention = policy.retention.max(provider.retry_span + RETENTION_MARGIN);
            policy.hold = policy.hold.min(provider.answer_limit / 2);
            policy.answer_within = policy.answer_within.map(|longest| longest.min(answers_within(provider)));
        }
        // The last is laid first, so that the first one to set a key decides.
        for rule in self.those(matching).collect::<Vec<_>>().into_iter().rev() {
            rule.choices.lay_over(&mut policy);
        }
        if let Some(provider) = provider {
            policy.hold = policy.hold.min(provider.answer_limit.saturating_sub(HOLD_MARGIN));
        }
        policy
    }

    /// The longest time for which any callback's policy takes a silent app to be still at work.
    ///
    /// The first rule that sets it decides: where one sets it for everything, none after it does, nor the default.
    #[must_use]
    pub fn longest_quiet(&self) -> Duration {
        let mut longest = Duration::ZERO;
        for rule in &self.0.rules {
            let Some(quiet) = rule.choices.quiet else { continue };
            longest = longest.max(quiet);
            if rule.matcher.is_empty() {
                return longest;
            }
        }
        longest.max(self.0.base.quiet)
    }

    fn label(&self, matching: RuleSet) -> Arc<str> {
        self.those(matching).find_map(|rule| rule.name.clone()).unwrap_or_else(|| Arc::clone(&self.0.base.rule))
    }

    fn first<T>(&self, matching: RuleSet, pick: impl Fn(&Choices) -> Option<T>) -> Option<T> {
        self.those(matching).find_map(|rule| pick(&rule.choices))
    }

    fn those(&self, set: RuleSet) -> impl Iterator<Item = &Rule> {
        self.0.rules.iter().enumerate().filter(move |(i, _)| set >> i & 1 == 1).map(|(_, rule)| rule)
    }
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.0.rules == other.0.rules && self.0.base == other.0.base
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0.rules).finish()
    }
}

impl Route {
    /// The policy for one event of this callback, or for the callback as a whole where none could be read.
    ///
    /// `provider` is who was taken to have sent it, once that is known. The same choices are the same `Arc`.
    #[must_use]
    pub fn policy(
        &self,
        head: &Head<'_>,
        provider: Option<&'static Provider>,
        event: Option<&Event>,
        signature: Signature,
    ) -> Arc<Policy> {
        let agreed = if self.pending == 0 { 0 } else { self.agreed(head, provider, event, signature) };
        self.rules.policy(self.matching | agreed, provider)
    }

    /// The rules whose `when` agrees with the event; none where there is no event.
    fn agreed(
        &self,
        head: &Head<'_>,
        provider: Option<&'static Provider>,
        event: Option<&Event>,
        signature: Signature,
    ) -> RuleSet {
        let Some(event) = event else { return 0 };
        let facts = EventFacts { event, provider: provider.map_or("", |p| p.name), signature };
        let path = NormalPath::new(head.uri.path());
        let mut agreed = 0;
        for (i, rule) in self.rules.list().iter().enumerate() {
            if self.pending >> i & 1 == 1
                && let Some(when) = &rule.matcher.when
            {
                agreed |= RuleSet::from(self.rules.agrees(when, head, &path, Some(&facts))) << i;
            }
        }
        agreed
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route")
            .field("rule", &self.rule)
            .field("channel", &self.channel)
            .field("provider", &self.provider)
            .field("segments", &self.segments)
            .finish_non_exhaustive()
    }
}

fn cookies_among((kind, places): &(Arc<str>, Vec<Place>)) -> (Arc<str>, Vec<Arc<str>>) {
    let cookie = |place: &Place| match place {
        Place::Cookie(name) => Some(Arc::from(name.as_str())),
        _ => None,
    };
    (Arc::clone(kind), places.iter().filter_map(cookie).collect())
}

/// The value for a key: the one made before, or a new one, kept while there is room.
fn remembered<K: std::hash::Hash + Eq, V>(
    memo: &RwLock<HashMap<K, Arc<V>>>,
    key: K,
    make: impl FnOnce() -> V,
) -> Arc<V> {
    if let Some(known) = memo.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Arc::clone(known);
    }
    let made = Arc::new(make());
    let mut memo = memo.write().unwrap_or_else(PoisonError::into_inner);
    if memo.len() >= MEMO_MAX {
        return made;
    }
    Arc::clone(memo.entry(key).or_insert(made))
}

#[cfg(test)]
mod tests;
