//! What a new configuration changes in a running gate, and how: a function of the two and of nothing else.

use std::{collections::BTreeSet, fmt, mem::discriminant, net::SocketAddr};

use super::{AdminOptions, Config, Engine, GatewayOptions, ProviderOptions, StoreOptions, TlsOptions, UpstreamOptions};
use crate::{
    acme, lookup,
    rule::keying::{self, Rekeyed},
    telemetry::LogOptions,
};

/// What changes between two configurations, each key under how it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Keys and sections that hold for whatever comes from now on.
    pub live: BTreeSet<String>,
    /// Addresses that callers may use from now on.
    pub opened: Vec<Door>,
    /// Addresses that they may use no longer.
    pub closed: Vec<Door>,
    /// Whether other certificates are shown, or elsewhere, or on other terms.
    pub tls: bool,
    /// Keys that hold from the next start on.
    pub restart: BTreeSet<String>,
    /// Keys that no running gate can take up, for what it knows lies where they say: the whole is refused.
    pub fixed: BTreeSet<String>,
    /// Whether the app has another name in every key.
    pub renamed: bool,
    /// Rules by which callbacks get other keys and names than before.
    pub rekeyed: Vec<Rekeyed>,
}

/// How a key that changes takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// For whatever comes from now on.
    Live,
    /// With the next start.
    Restart,
    /// Never in a gate that runs.
    Fixed,
}
use Effect::{Fixed, Live, Restart};

impl Change {
    /// What changes from one to the other.
    #[must_use]
    pub fn between(before: &Config, after: &Config) -> Self {
        let mut change = Self::default();
        change.note("gateway", gateway(&before.gateway, &after.gateway));
        change.note("upstream", upstream(&before.upstream, &after.upstream));
        change.note("store", store(&before.store, &after.store));
        change.note("admin", admin(&before.admin, &after.admin));
        change.note("log", log(before.log, after.log));
        change.lookup(before.lookup.as_ref(), after.lookup.as_ref());
        change.note("", [("preset", before.preset != after.preset, Live), ("rule", before.rules != after.rules, Live)]);
        change.providers(&before.providers, &after.providers);
        change.opened = those_not_in(&after.doors(), &before.doors());
        change.closed = those_not_in(&before.doors(), &after.doors());
        change.tls = differ(&before.tls, &after.tls);
        change.note("", [("tls", change.tls, Live)]);
        change.note("acme", acme(&before.acme, &after.acme));
        change.tls |= before.acme != after.acme || before.gateway.http2 != after.gateway.http2;
        change.renamed = before.upstream.url != after.upstream.url;
        change.rekeyed = keying::rekeyed(before.rules.list(), after.rules.list());
        change
    }

    /// Whether the two are the same.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// Whether twins that come before and after it may not be recognised as the same.
    #[must_use]
    pub fn parts_twins(&self) -> bool {
        self.renamed || !self.rekeyed.is_empty()
    }

    /// Whether anything of it can be taken up by a running gate.
    #[must_use]
    pub fn has_effect(&self) -> bool {
        !self.live.is_empty()
    }

    fn note<const N: usize>(&mut self, section: &str, keys: [(&str, bool, Effect); N]) {
        for (key, _, effect) in keys.into_iter().filter(|(_, differs, _)| *differs) {
            let path = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
            let keys = match effect {
                Live => &mut self.live,
                Restart => &mut self.restart,
                Fixed => &mut self.fixed,
            };
            keys.insert(path);
        }
    }

    fn lookup(&mut self, before: Option<&lookup::Options>, after: Option<&lookup::Options>) {
        match (before, after) {
            (Some(before), Some(after)) => self.note("lookup", lookup(before, after)),
            (None, None) => {}
            // There is a database to ask, or none any more.
            _ => self.note("lookup", [("url", true, Live)]),
        }
    }

    fn providers(&mut self, before: &[ProviderOptions], after: &[ProviderOptions]) {
        let of = |all: &[ProviderOptions], name: &str| {
            all.iter().find(|options| options.provider.name == name).map(|options| options.print)
        };
        for name in before.iter().chain(after).map(|options| options.provider.name) {
            if of(before, name) != of(after, name) {
                self.live.insert(format!("provider.{name}"));
            }
        }
    }
}

/// An address for callers, and whether TLS is spoken there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door {
    /// As it was asked for.
    pub address: SocketAddr,
    /// See above.
    pub tls: bool,
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.address, if self.tls { " (TLS)" } else { "" })
    }
}

impl Config {
    /// Every address for callers: as often as it stands in `gateway.listen`, and once where TLS is spoken.
    #[must_use]
    pub fn doors(&self) -> Vec<Door> {
        let door = |address: &SocketAddr, tls| Door { address: *address, tls };
        let mut doors: Vec<_> = self.gateway.listen.iter().map(|address| door(address, false)).collect();
        for address in self.tls.iter().flat_map(|tls| &tls.listen) {
            let door = door(address, true);
            if !doors.contains(&door) {
                doors.push(door);
            }
        }
        doors
    }

    /// This configuration as a gate runs by it that was started with `running`.
    #[must_use]
    pub fn in_a_gate_of(mut self, running: &Self) -> Self {
        self.gateway.threads = running.gateway.threads;
        self.gateway.reuse_port = running.gateway.reuse_port;
        self.store = running.store.clone();
        self.log.format = running.log.format;
        self
    }
}

/// As often as it stands in the one more than in the other: port 0 may stand there twice.
fn those_not_in(these: &[Door], others: &[Door]) -> Vec<Door> {
    let mut others = others.to_vec();
    let is_new = |door: &&Door| match others.iter().position(|other| other == *door) {
        Some(at) => {
            others.swap_remove(at);
            false
        }
        None => true,
    };
    these.iter().filter(is_new).copied().collect()
}

/// What the files hold is no matter of the configuration: it is taken up when they change.
fn differ(a: &[TlsOptions], b: &[TlsOptions]) -> bool {
    let same =
        |(a, b): (&TlsOptions, &TlsOptions)| a.listen == b.listen && a.names == b.names && a.files() == b.files();
    a.len() != b.len() || !a.iter().zip(b).all(same)
}

// Each takes its section apart field by field, so that a new key does not compile before it is said how it changes.

fn gateway(a: &GatewayOptions, b: &GatewayOptions) -> [(&'static str, bool, Effect); 17] {
    let GatewayOptions {
        listen,
        trusted_proxies,
        proxy_protocol,
        public_url,
        max_connections,
        max_body,
        max_waiters,
        max_waiters_per_transaction,
        http2,
        max_streams,
        max_handshakes,
        handshake_timeout,
        header_timeout,
        idle_timeout,
        drain,
        threads,
        reuse_port,
    } = a;
    [
        ("listen", *listen != b.listen, Live),
        ("trusted_proxies", *trusted_proxies != b.trusted_proxies, Live),
        ("proxy_protocol", *proxy_protocol != b.proxy_protocol, Live),
        ("public_url", *public_url != b.public_url, Live),
        ("max_connections", *max_connections != b.max_connections, Live),
        ("max_body", *max_body != b.max_body, Live),
        ("max_waiters", *max_waiters != b.max_waiters, Live),
        ("max_waiters_per_transaction", *max_waiters_per_transaction != b.max_waiters_per_transaction, Live),
        ("http2", *http2 != b.http2, Live),
        ("max_streams", *max_streams != b.max_streams, Live),
        ("max_handshakes", *max_handshakes != b.max_handshakes, Live),
        ("handshake_timeout", *handshake_timeout != b.handshake_timeout, Live),
        ("header_timeout", *header_timeout != b.header_timeout, Live),
        ("idle_timeout", *idle_timeout != b.idle_timeout, Live),
        ("drain", *drain != b.drain, Live),
        ("threads", *threads != b.threads, Restart),
        ("reuse_port", *reuse_port != b.reuse_port, Restart),
    ]
}

fn lookup(a: &lookup::Options, b: &lookup::Options) -> [(&'static str, bool, Effect); 8] {
    let lookup::Options { database, api, ca, ca_content, timeout, connections, names, booked } = a;
    let at = |api: &Option<lookup::ApiOptions>| api.as_ref().map(|api| api.url.clone());
    let with = |api: &Option<lookup::ApiOptions>| api.as_ref().map(|api| api.token.clone());
    [
        ("url", *database != b.database, Live),
        ("api", at(api) != at(&b.api), Live),
        ("api_token", with(api) != with(&b.api), Live),
        ("ca", *ca != b.ca || *ca_content != b.ca_content, Live),
        ("timeout", *timeout != b.timeout, Live),
        ("connections", *connections != b.connections, Live),
        ("names", *names != b.names, Live),
        ("booked", *booked != b.booked, Live),
    ]
}

fn acme(a: &acme::Options, b: &acme::Options) -> [(&'static str, bool, Effect); 6] {
    let acme::Options { directory, contact, agree_to_terms, path, challenge, ca, pause: _ } = a;
    [
        ("directory", *directory != b.directory, Live),
        ("contact", *contact != b.contact, Live),
        ("agree_to_terms", *agree_to_terms != b.agree_to_terms, Live),
        ("path", *path != b.path, Live),
        ("challenge", *challenge != b.challenge, Live),
        ("ca", *ca != b.ca, Live),
    ]
}

fn upstream(a: &UpstreamOptions, b: &UpstreamOptions) -> [(&'static str, bool, Effect); 10] {
    let UpstreamOptions {
        url,
        max_callbacks,
        timeout,
        connect_timeout,
        reuse_within,
        idle_timeout,
        max_idle,
        check_every,
        breaker,
        ca,
        ca_content,
    } = a;
    [
        ("url", *url != b.url, Live),
        ("max_callbacks", *max_callbacks != b.max_callbacks, Live),
        ("timeout", *timeout != b.timeout, Live),
        ("connect_timeout", *connect_timeout != b.connect_timeout, Live),
        ("reuse_within", *reuse_within != b.reuse_within, Live),
        ("idle_timeout", *idle_timeout != b.idle_timeout, Live),
        ("max_idle", *max_idle != b.max_idle, Live),
        ("check_every", *check_every != b.check_every, Live),
        ("breaker", *breaker != b.breaker, Live),
        ("ca", (ca, ca_content) != (&b.ca, &b.ca_content), Live),
    ]
}

fn store(a: &StoreOptions, b: &StoreOptions) -> [(&'static str, bool, Effect); 7] {
    let StoreOptions { engine, keys, max_remembered, history, history_retention } = a;
    let (moved, durable) = match (engine, &b.engine) {
        (Engine::Embedded { path, durable }, Engine::Embedded { path: other_path, durable: other_durable }) => {
            (path != other_path, durable != other_durable)
        }
        _ => (false, false),
    };
    [
        ("engine", discriminant(engine) != discriminant(&b.engine), Fixed),
        ("path", moved, Fixed),
        ("durable", durable, Restart),
        ("keys", *keys != b.keys, Restart),
        ("max_remembered", *max_remembered != b.max_remembered, Restart),
        ("history", *history != b.history, Restart),
        ("history_retention", *history_retention != b.history_retention, Restart),
    ]
}

fn admin(a: &AdminOptions, b: &AdminOptions) -> [(&'static str, bool, Effect); 2] {
    let AdminOptions { listen, token } = a;
    [("listen", *listen != b.listen, Live), ("token", *token != b.token, Live)]
}

fn log(a: LogOptions, b: LogOptions) -> [(&'static str, bool, Effect); 3] {
    let LogOptions { format, level, callbacks } = a;
    [
        ("format", format != b.format, Restart),
        ("level", level != b.level, Live),
        ("callbacks", callbacks != b.callbacks, Live),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Loaded, World, keys};

    fn load(text: &str) -> Config {
        Loaded::from_text("test", text, &World::real()).into_config().unwrap_or_else(|faults| panic!("{faults:?}"))
    }

    fn change(before: &str, after: &str) -> Change {
        let change = Change::between(&load(before), &load(after));
        assert_eq!(change.is_nothing(), before == after, "{change:?}");
        change
    }

    /// Another value for each key that stands in one place.
    const OTHERS: &[(&str, &str, Effect)] = &[
        ("gateway.listen", "['[::]:1']", Live),
        ("gateway.trusted_proxies", "['10.0.0.0/8']", Live),
        ("gateway.proxy_protocol", "['10.0.0.0/8']", Live),
        ("gateway.public_url", "'https://pay.example.org'", Live),
        ("gateway.max_connections", "7", Live),
        ("gateway.max_body", "7", Live),
        ("gateway.max_waiters", "7", Live),
        ("gateway.max_waiters_per_transaction", "7", Live),
        ("gateway.http2", "false", Live),
        ("gateway.max_streams", "7", Live),
        ("gateway.max_handshakes", "7", Live),
        ("gateway.handshake_timeout", "'7s'", Live),
        ("gateway.header_timeout", "'7s'", Live),
        ("gateway.idle_timeout", "'7s'", Live),
        ("gateway.drain", "'7s'", Live),
        ("gateway.threads", "7", Restart),
        ("gateway.reuse_port", "true", Restart),
        ("acme.directory", "'https://acme.example.org/directory'", Live),
        ("acme.contact", "['mailto:a@example.org']", Live),
        ("acme.agree_to_terms", "true", Live),
        ("acme.path", "'/seven'", Live),
        ("acme.challenge", "'tls-alpn-01'", Live),
        ("acme.ca", "'/seven.pem'", Live),
        ("upstream.url", "'http://127.0.0.1:7'", Live),
        ("upstream.max_callbacks", "7", Live),
        ("upstream.timeout", "'7s'", Live),
        ("upstream.connect_timeout", "'7s'", Live),
        ("upstream.reuse_within", "'7s'", Live),
        ("upstream.idle_timeout", "'7s'", Live),
        ("upstream.max_idle", "7", Live),
        ("upstream.check_every", "'7s'", Live),
        ("upstream.breaker", "{ failures = 7 }", Live),
        ("upstream.ca", "'/seven.pem'", Live),
        ("store.engine", "'memory'", Fixed),
        ("store.path", "'elsewhere'", Fixed),
        ("store.durable", "'claim'", Restart),
        ("store.keys", "[{ value = '0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef' }]", Restart),
        ("store.max_remembered", "7", Restart),
        ("store.history", "7", Restart),
        ("admin.listen", "'127.0.0.1:7'", Live),
        ("store.history_retention", "'7d'", Restart),
        ("admin.token", "{ value = '0123456789abcdef' }", Live),
        ("log.format", "'json'", Restart),
        ("log.level", "'debug'", Live),
        ("log.callbacks", "false", Live),
    ];

    #[test]
    fn each_key_that_changes_is_told_under_how_it_takes_effect() {
        for (key, other, effect) in OTHERS {
            let change = change("", &format!("{key} = {other}"));
            let keys = match effect {
                Live => change.live,
                Restart => change.restart,
                Fixed => change.fixed,
            };
            assert!(keys.contains(*key), "{key}: {keys:?}");
            // Which time limit holds where no rule says is a matter of the rules.
            let with_it: &[&str] = if *key == "upstream.timeout" { &["rule"] } else { &[] };
            assert_eq!(keys.iter().filter(|told| *told != key).collect::<Vec<_>>(), with_it, "{key}");
        }
    }

    #[test]
    fn of_every_key_it_is_known_how_it_changes() {
        for section in
            keys::SECTIONS.iter().filter(|section| !matches!(section.section, "tls" | "lookup" | "provider" | "rule"))
        {
            for key in section.keys {
                let path = format!("{}.{key}", section.section);
                let known = OTHERS.iter().any(|(known, ..)| *known == path);
                assert!(known, "say in OTHERS how a change of {path} takes effect");
            }
        }
    }

    #[test]
    fn addresses_are_opened_and_closed_as_often_as_they_stand_there() {
        let change = change("gateway.listen = ['[::]:1', '[::]:0', '[::]:0']", "gateway.listen = ['[::]:0', '[::]:2']");
        let address = |port: u16| Door { address: ([0_u16; 8], port).into(), tls: false };
        assert_eq!((change.opened, change.closed), (vec![address(2)], vec![address(1), address(0)]));
    }

    #[test]
    fn what_is_asked_of_the_database_changes_for_whatever_comes_from_then_on() {
        let url = "lookup.url = { value = 'mysql://o:o@localhost/n' }\n";
        let keys: Vec<_> = keys::SECTIONS.iter().filter(|s| s.section == "lookup").flat_map(|s| s.keys).collect();
        let others = [
            "url = { value = 'mysql://o:p@localhost/n' }",
            "ca = '/dev/null'",
            "timeout = '7ms'",
            "connections = 7",
            "names = [{ from = 'reference.mollie', to = 'order', sql = 'SELECT ?' }]",
            "booked = [{ from = 'reference.mollie', sql = 'SELECT ?' }]",
            "api = 'http://localhost:7'\nlookup.api_token = { value = 't' }",
            "api_token = { value = 'other' }\nlookup.api = 'http://localhost:8'",
        ];
        assert_eq!(keys.len(), others.len());
        for (key, changed) in keys.iter().zip(others) {
            let line = format!("lookup.{changed}\n");
            let before = match **key {
                // With the first of these comes another default.
                "booked" => format!("{url}{}", line.replace('?', "1 + ?")),
                "api" => format!("{url}{}", line.replace(":7", ":8")),
                "api_token" => format!("{url}{}", line.replace("other", "t")),
                _ => url.to_owned(),
            };
            let after = if **key == "url" { line } else { format!("{url}{line}") };
            let told = change(&before, &after).live;
            assert_eq!(told.iter().collect::<Vec<_>>(), [&format!("lookup.{key}")], "{key}");
        }
        assert!(change("", url).live.contains("lookup.url"));
    }

    #[test]
    fn secrets_a_preset_and_rules_are_told() {
        let secret = |value: &str| format!("[provider.mollie]\nsecrets = [{{ value = '{value}' }}]");
        assert!(change(&secret("a"), &secret("b")).live.contains("provider.mollie"));
        assert!(change(&secret("a"), "").live.contains("provider.mollie"));
        let preset = change("", "preset = 'invoice-ninja'");
        assert!(preset.live.contains("preset") && preset.live.contains("rule") && preset.parts_twins());
        let rule = |keys: &str| format!("[[rule]]\nname = 'shop'\npath = '/hook'\nreference = 'form:id'\n{keys}");
        let held = change(&rule(""), &rule("hold = '7s'"));
        assert!(held.live.contains("rule") && !held.parts_twins());
        let scoped = change(&rule(""), &rule("scope = ['host']"));
        let told: Vec<_> = scoped.rekeyed.iter().map(ToString::to_string).collect();
        assert!(scoped.parts_twins() && told == ["shop (scope)"], "{told:?}");
        assert!(change("", "upstream.url = 'http://other'").renamed);
    }
}
