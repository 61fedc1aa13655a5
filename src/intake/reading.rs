//! A callback as a value: who sent it, what it says, under which keys and names it is known, and what its rules chose.
//!
//! Pure: `explain` reads recorded requests with it exactly as the running gate does.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use http::{HeaderMap, Method, Uri};

use crate::{
    callback::{Alias, Channel, Event, Key, RequestView, Signature, State},
    lookup::Lookup,
    provider::{
        self,
        contract::{Keyring, Provider, Unrecognised},
        extract::{Dialect, Found, Reader},
        generic::GENERIC,
        inquiry::{self, Apis, Asking, Inquire, Word},
        mollie::{self, MOLLIE},
    },
    rule::{Head, ProviderChoice, Route, Rules},
    time::Timestamp,
    transaction::{
        arrival::{Arriving, Decision},
        identity::{Identified, Scope, bills, identify},
        lock::{Claimed, Era, Kind, LockName},
        money::Moves,
        policy::{IdentityBy, LockBy, Policy, Treatment},
    },
};

/// A request that a rule takes for a callback, read whole.
#[derive(Clone, Copy, Debug)]
pub struct Whole<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target as received.
    pub uri: &'a Uri,
    /// The header fields as received.
    pub headers: &'a HeaderMap,
    /// The body as received.
    pub body: &'a [u8],
    /// The host the caller meant.
    pub host: &'a str,
    /// Who sent it, as far as the trusted proxies can be believed.
    pub source: IpAddr,
}

impl<'a> Whole<'a> {
    /// What rules match on.
    #[must_use]
    pub const fn head(&self) -> Head<'a> {
        Head { method: self.method, uri: self.uri, headers: self.headers, host: self.host, source: self.source }
    }

    const fn view<'s>(&self, route: &'s Route) -> RequestView<'s>
    where
        'a: 's,
    {
        RequestView {
            method: self.method,
            uri: self.uri,
            headers: self.headers,
            body: self.body,
            segments: route.segments.as_slice(),
        }
    }
}

/// What is configured for each provider's signatures.
pub type Keyrings = HashMap<&'static str, Keyring>;

/// Of a provider for which nothing is configured.
pub(super) static NO_KEYS: LazyLock<Keyring> = LazyLock::new(Keyring::default);

/// By what callbacks are read and decided. Each keeps to the one it came under, whatever a reload changes.
#[derive(Debug)]
pub struct Rulebook {
    /// Which requests are callbacks, and which policy each event gets.
    pub rules: Rules,
    /// What callbacks are signed with.
    pub keyrings: Keyrings,
    /// Whom to ask what has become of payments.
    pub apis: Apis,
    /// The app's own database, if it may be asked.
    pub lookup: Option<Arc<Lookup>>,
    /// The app, as it stands in keys and names.
    pub(super) upstream: Arc<str>,
    /// Rules that give other keys and names are of another era.
    pub(super) era: Era,
}

impl Rulebook {
    /// The rules for the app at `upstream`.
    #[must_use]
    pub fn new(rules: Rules, keyrings: Keyrings, upstream: impl Into<Arc<str>>) -> Self {
        let upstream = upstream.into();
        let era = Era(rules.keying(&upstream));
        Self { rules, keyrings, apis: Apis::new(), lookup: None, upstream, era }
    }

    /// The same, with providers that can be asked.
    #[must_use]
    pub fn asking(self, apis: Apis) -> Self {
        Self { apis, ..self }
    }

    /// The same, with the app's own database.
    #[must_use]
    pub fn looking_up(self, lookup: Option<Arc<Lookup>>) -> Self {
        Self { lookup, ..self }
    }
}

/// One event, identified, with its policy.
#[derive(Clone, Debug)]
pub struct Statement {
    /// What it says.
    pub event: Event,
    /// Its keys.
    pub identified: Identified,
    /// What it pays that is paid once, as somebody vouches.
    pub bills: Vec<Key>,
    /// What its rules chose.
    pub policy: Arc<Policy>,
}

/// What was read from a callback.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Who sent it; the generic provider where nobody could tell.
    pub provider: &'static Provider,
    /// What the check of its signature came to.
    pub signature: Signature,
    /// What it says; never empty. A return says nothing, it only has names.
    pub statements: Result<Vec<Statement>, Unrecognised>,
    /// What the rules chose for the callback as a whole.
    pub policy: Arc<Policy>,
    /// Its names, and what it must not overlap with.
    pub claimed: Claimed,
    /// Other names of a return.
    pub aliases: Vec<Alias>,
    /// The reference of a return that carries one.
    pub reference: Option<String>,
    /// How what its provider has said goes together with what it tells; `None` where the provider has said nothing.
    pub word: Option<Word>,
    /// Whether that gave it a name which it did not carry.
    pub named: bool,
    /// The names of which its signature or its provider says that they belong together.
    vouched: Vec<LockName>,
    /// Names that belong together, by what was found in a lookup.
    pub looked_up: Vec<(LockName, LockName)>,
}

impl Reading {
    /// Reads a callback that came by `route`.
    #[must_use]
    pub fn of(route: &Route, whole: &Whole<'_>, book: &Rulebook, now: Timestamp) -> Self {
        Self::told(route, whole, book, now, None)
    }

    /// The same, completed by what its provider says of the payment.
    #[must_use]
    pub fn told(route: &Route, whole: &Whole<'_>, book: &Rulebook, now: Timestamp, said: Option<&Event>) -> Self {
        let reader = Reader::new(&whole.view(route), route.dialect);
        let provider = match route.provider {
            ProviderChoice::Named(provider) => provider,
            ProviderChoice::Auto if route.channel == Channel::Return => &GENERIC,
            ProviderChoice::Auto => provider::recognise(&reader).unwrap_or(&GENERIC),
        };
        match route.channel {
            Channel::Webhook => Self::of_webhook(route, whole, &reader, provider, book, now, said),
            Channel::Return => Self::of_return(route, whole, &reader, provider, book),
        }
    }

    fn of_webhook(
        route: &Route,
        whole: &Whole<'_>,
        reader: &Reader<'_>,
        provider: &'static Provider,
        book: &Rulebook,
        now: Timestamp,
        said: Option<&Event>,
    ) -> Self {
        let head = whole.head();
        let keyring = book.keyrings.get(provider.name).unwrap_or(&NO_KEYS);
        let signature = provider.scheme.check(reader, keyring, now);
        let scope =
            Scope { upstream: &book.upstream, host: route.scope_host.then_some(whole.host), segments: &route.segments };
        let mut word = None;
        let mut read = || {
            let events = provider::read(provider, keyring, &route.places, reader)?;
            events
                .into_iter()
                .map(|event| {
                    let event = match said.map(|said| inquiry::completed(event.clone(), said)) {
                        Some((completed, told)) => {
                            word = Some(told);
                            completed
                        }
                        None => event,
                    };
                    let policy = route.policy(&head, Some(provider), Some(&event), signature);
                    let places = match policy.identity {
                        IdentityBy::Places => provider::identity(&route.places, reader)?,
                        _ => Vec::new(),
                    };
                    let identified = identify(&scope, provider.name, &event, policy.identity, whole.body, &places);
                    let unsigned = signature == Signature::Absent && !word.is_some_and(Word::vouches);
                    let identified = if unsigned { identified.unsigned() } else { identified };
                    // Few callbacks tell of a payment, and of fewer is it known that it was made.
                    let names = match said {
                        _ if event.state != Some(State::Paid) => &[][..],
                        _ if signature == Signature::Valid => &event.aliases,
                        // Whatever else it carries, anybody may have written beside a reference that he knows.
                        Some(said) if word.is_some_and(Word::vouches) => &said.aliases,
                        _ => &[],
                    };
                    let bills = bills(&scope, names, &policy.paid_once);
                    Ok(Statement { event, identified, bills, policy })
                })
                .collect::<Result<Vec<_>, Unrecognised>>()
        };
        let statements = read();
        let policy = match statements.as_deref() {
            Ok([first, ..]) => Arc::clone(&first.policy),
            _ => route.policy(&head, Some(provider), None, signature),
        };
        let mut names = Names::new(book, route.dialect);
        for statement in statements.iter().flatten() {
            names.event(provider, Some(&statement.event.reference), &statement.event.aliases);
        }
        names.wide |= statements.is_err() && provider::is_doubtful(&route.places, reader);
        if route.dialect == Dialect::Php && (provider.name != MOLLIE.name || statements.is_err()) {
            names.taken_for(&MOLLIE, &mollie::taken_for(reader));
        }
        let claimed = names.claimed(Channel::Webhook, policy.lock);
        let (aliases, reference) = (Vec::new(), None);
        let named = said.is_some_and(|said| !said.aliases.is_empty());
        let vouched = match said {
            // Whatever else it carries, anybody may have written beside a reference that he knows.
            Some(said) if signature != Signature::Valid => {
                let mut names = Names::new(book, route.dialect);
                names.event(provider, Some(&said.reference), &said.aliases);
                names.names
            }
            _ if signature == Signature::Valid => claimed.names.clone(),
            _ => Vec::new(),
        };
        let looked_up = Vec::new();
        Self { provider, signature, statements, policy, claimed, aliases, reference, word, named, vouched, looked_up }
    }

    fn of_return(
        route: &Route,
        whole: &Whole<'_>,
        reader: &Reader<'_>,
        provider: &'static Provider,
        book: &Rulebook,
    ) -> Self {
        let signature = Signature::Unchecked;
        let policy = route.policy(&whole.head(), Some(provider), None, signature);
        let read = provider::names(&route.places, reader);
        let mut names = Names::new(book, route.dialect);
        let (statements, found) = match read {
            Ok(found) => (Ok(Vec::new()), found),
            Err(why) => (Err(why), provider::Names::default()),
        };
        names.wide |= statements.is_err();
        names.event(provider, found.reference.as_deref(), &found.aliases);
        let claimed = names.claimed(Channel::Return, policy.lock);
        let (aliases, reference) = (found.aliases, found.reference);
        let (word, named, vouched) = (None, false, Vec::new());
        let looked_up = Vec::new();
        Self { provider, signature, statements, policy, claimed, aliases, reference, word, named, vouched, looked_up }
    }

    /// The events as the transition wants them.
    #[must_use]
    pub fn arriving(&self) -> Vec<Arriving> {
        let vouched = self.is_vouched_for();
        let arriving = |statement: &Statement| Arriving {
            identified: statement.identified,
            reference: Arc::from(&*statement.event.reference),
            // What anybody may have made up makes nothing stale.
            state: statement.event.state.filter(|_| self.signature != Signature::Absent || vouched),
            step: statement.event.step,
            // What its provider says when it is asked is how the payment stands, wherever that came from.
            moves: if self.word == Some(Word::Whole) { Moves::Undocumented } else { self.provider.moves },
            bills: statement.bills.clone(),
            verified: vouched,
            policy: Arc::clone(&statement.policy),
        };
        self.statements.iter().flatten().map(arriving).collect()
    }

    /// Whether somebody vouches for what it tells: a signature, or its provider, who was asked.
    fn is_vouched_for(&self) -> bool {
        self.signature == Signature::Valid || self.word.is_some_and(Word::vouches)
    }

    /// Every bill that it pays.
    #[must_use]
    pub fn bills(&self) -> Vec<Key> {
        self.statements.iter().flatten().flat_map(|statement| &statement.bills).copied().collect()
    }

    /// How long its sender waits before he hears his own acknowledgement: of several events, the least patient speaks.
    #[must_use]
    pub fn patience(&self) -> Option<Duration> {
        self.statements.iter().flatten().filter_map(|statement| statement.policy.patience()).min()
    }

    /// Names that somebody vouches to belong together: whoever signed this callback, its provider, who was asked, or the
    /// app's own database.
    #[must_use]
    pub fn links(&self) -> Vec<(LockName, LockName)> {
        match (self.statements.as_deref(), self.vouched.split_first()) {
            // In a batch nobody could tell which name belongs to which.
            (Ok([_]), Some((first, others))) => {
                let others = others.iter().map(|other| (*first, *other));
                others.chain(self.looked_up.iter().copied()).collect()
            }
            // A lookup vouches for what it found, whoever sent the callback.
            _ => self.looked_up.clone(),
        }
    }

    /// The names by which it locks, readable: `reference:mollie=tr_1`.
    #[must_use]
    pub fn locks(&self) -> Vec<String> {
        let mut locks = Vec::new();
        let mut add = |reference: Option<&str>, aliases: &[Alias]| {
            locks.extend(reference.map(|reference| format!("reference:{}={reference}", self.provider.name)));
            locks.extend(aliases.iter().map(|alias| format!("{}={}", alias.kind, alias.value)));
        };
        add(self.reference.as_deref(), &self.aliases);
        for statement in self.statements.iter().flatten() {
            add(Some(&statement.event.reference), &statement.event.aliases);
        }
        locks.dedup();
        if self.claimed.exclusive {
            locks.push("upstream".to_owned());
        }
        locks
    }

    /// By what the two channels of its payment are joined; a label. `told`: whether the app's answers named its payment.
    #[must_use]
    pub fn joined_by(&self, told: bool) -> &'static str {
        match (told, self.claimed.kinds.len() > 1) {
            (_, true) if self.named => "inquiry",
            (_, true) if !self.looked_up.is_empty() => "lookup",
            (true, _) => "learned",
            (false, true) => "callback",
            (false, false) => "none",
        }
    }

    /// What its provider has to be asked, for it does not say what happened, or because the provider is always asked; `None`
    /// where nothing is to be asked, or nobody can be.
    #[must_use]
    pub fn question(&self, route: &Route, book: &Rulebook) -> Option<Asking> {
        let inquiry = self.provider.inquiry?;
        let api = book.apis.get(self.provider.name)?;
        let Ok([statement]) = self.statements.as_deref() else { return None };
        let by_state = matches!(statement.policy.identity, IdentityBy::Auto | IdentityBy::Event | IdentityBy::State);
        let settles = by_state && statement.identified.windowed;
        if !settles && api.inquire == Inquire::Unclear || statement.policy.shadow {
            return None;
        }
        let path = inquiry.path(&statement.event)?;
        let scope = route.segments.iter().fold(Key::of("account"), |key, (name, value)| key.part(name, value)).finish();
        let (api, payment) = (Arc::clone(api), statement.identified.transaction);
        Some(Asking { api, path, reference: Arc::from(&*statement.event.reference), payment, scope, settles })
    }
}

/// Whether a callback is dealt with before anybody asks whether it is known: verify before claiming.
#[must_use]
pub fn refused(reading: &Reading) -> Option<(Decision, Treatment, &str)> {
    let policy = &reading.policy;
    match (reading.signature, &reading.statements) {
        (Signature::Invalid, _) => {
            Some((Decision::Unverified, policy.on_unverified, "its signature is wrong or too old"))
        }
        (Signature::Absent, _) if policy.signature_required => {
            Some((Decision::Unverified, policy.on_unverified, "it is not signed, and has to be"))
        }
        (Signature::Unchecked, _) if policy.signature_required => {
            Some((Decision::Unverified, policy.on_unverified, "its signature has to be checked, and nobody can"))
        }
        (_, Err(why)) => Some((Decision::Unrecognised, policy.on_unrecognised, &why.0)),
        (_, Ok(_)) => None,
    }
}

/// Collects the names of a callback, event by event.
struct Names<'a> {
    book: &'a Rulebook,
    dialect: Dialect,
    names: Vec<LockName>,
    kinds: Option<Vec<Kind>>,
    /// Whether the app might read a name that we cannot tell: nothing may run beside it then.
    wide: bool,
}

impl<'a> Names<'a> {
    const fn new(book: &'a Rulebook, dialect: Dialect) -> Self {
        Self { book, dialect, names: Vec::new(), kinds: None, wide: false }
    }

    /// What the app might take it for, if its path leads to the code for `provider`.
    fn taken_for(&mut self, provider: &Provider, id: &Found<'_>) {
        match id {
            Found::One(id) => _ = self.name(["reference:", provider.name], id),
            Found::Ambiguous(_) => self.wide = true,
            Found::Absent | Found::Empty => {}
        }
    }

    fn event(&mut self, provider: &Provider, reference: Option<&str>, aliases: &[Alias]) {
        let mut kinds = Vec::with_capacity(1 + aliases.len());
        if let Some(reference) = reference {
            // Two providers may use one reference for two payments.
            kinds.push(self.name(["reference:", provider.name], reference));
        }
        for alias in aliases {
            kinds.push(self.name([&alias.kind, ""], &alias.value));
        }
        self.kinds = Some(match self.kinds.take() {
            None => kinds,
            Some(common) => common.into_iter().filter(|kind| kinds.contains(kind)).collect(),
        });
    }

    fn name(&mut self, kind: [&str; 2], value: &str) -> Kind {
        // Databases compare what is not ASCII in ways of their own.
        self.wide |= self.dialect == Dialect::Php && !value.is_ascii();
        let name = LockName::new(&self.book.upstream, kind, value);
        if !self.names.contains(&name) {
            self.names.push(name);
        }
        name.kind
    }

    fn claimed(&mut self, channel: Channel, lock: LockBy) -> Claimed {
        Claimed {
            channel,
            names: std::mem::take(&mut self.names),
            kinds: self.kinds.take().unwrap_or_default(),
            exclusive: self.wide || lock == LockBy::Upstream,
            era: self.book.era,
        }
    }
}
