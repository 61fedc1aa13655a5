//! The sections of the configuration but rules and providers: what each part is told, and its defaults.

use std::{
    cell::Cell,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    time::Duration,
};

use http::Uri;
use ipnet::IpNet;
use tracing_subscriber::filter::LevelFilter;

use super::{
    provider::{World, is_written_in_clear, secret},
    report::Source,
    section::Section,
    setting::{Limit, Problem, Setting, Size, Word},
    tree::{Node, Value},
};
use crate::{
    dispatch::breaker,
    provider::contract::{Secret, SecretKind},
    store::embedded::seal::KEY,
    telemetry::{LogFormat, LogOptions},
    transaction::effect::Durable,
    watch::Content,
};

/// Where the gate listens, and its bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayOptions {
    /// The addresses it listens on.
    pub listen: Vec<SocketAddr>,
    /// Networks whose word about the client's address, host and scheme is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Networks whose connections begin with a PROXY header.
    pub proxy_protocol: Vec<IpNet>,
    /// The address under which the world knows the gate, for signatures that cover the URL; without a slash at its end.
    pub public_url: Option<String>,
    /// How many connections are open at once.
    pub max_connections: usize,
    /// How large the body of a callback may be, in bytes.
    pub max_body: usize,
    /// How many callers wait at once.
    pub max_waiters: usize,
    /// How many callers wait for the same transaction at once.
    pub max_waiters_per_transaction: usize,
    /// Whether HTTP/2 is spoken with who wants it.
    pub http2: bool,
    /// How many requests are under way at once on one connection of HTTP/2.
    pub max_streams: usize,
    /// How many connections may be at what comes before their first request, at one address.
    pub max_handshakes: usize,
    /// How long a client may take before its first request: over a PROXY header, over the handshake of TLS.
    pub handshake_timeout: Duration,
    /// How long a client may take over the head of a request.
    pub header_timeout: Duration,
    /// How long a connection may stand idle between requests.
    pub idle_timeout: Duration,
    /// How long a stopping gate waits for what it has begun.
    pub drain: Duration,
    /// How many threads work; 0 stands for one per core.
    pub threads: usize,
    /// Whether other processes of the same user may listen at the same addresses (`SO_REUSEPORT`).
    pub reuse_port: bool,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            listen: vec![(Ipv6Addr::UNSPECIFIED, 8080).into()],
            trusted_proxies: Vec::new(),
            proxy_protocol: Vec::new(),
            public_url: None,
            max_connections: 16_384,
            max_body: 1 << 20,
            max_waiters: 20_000,
            max_waiters_per_transaction: 10_000,
            http2: true,
            max_streams: 100,
            max_handshakes: 4096,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            drain: Duration::from_secs(30),
            threads: 0,
            reuse_port: false,
        }
    }
}

/// Where the app is, and how long we wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamOptions {
    /// `http://host[:port]`, `https://host[:port]` or `unix:/path/to/socket`.
    pub url: String,
    /// How many callbacks are in the app at once; `None` leaves it open.
    pub max_callbacks: Option<NonZeroUsize>,
    /// How long the app may take over the head of an answer; also the default of a rule's `timeout` and `quiet`.
    pub timeout: Duration,
    /// How long a connection may take to stand.
    pub connect_timeout: Duration,
    /// How long a connection may have been idle to be used for a callback.
    pub reuse_within: Duration,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// How many idle connections are kept.
    pub max_idle: usize,
    /// How often the app's door is tried when nobody else does; zero for never.
    pub check_every: Duration,
    /// When the app is taken to be down, and how it is tried then.
    pub breaker: breaker::Options,
    /// A PEM file with the authorities to trust instead of the machine's own.
    pub ca: Option<PathBuf>,
    /// What stood in it when this was read.
    pub ca_content: Option<Content>,
}

impl Default for UpstreamOptions {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8000".to_owned(),
            max_callbacks: None,
            timeout: Duration::from_secs(300),
            connect_timeout: Duration::from_secs(5),
            reuse_within: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(4),
            max_idle: 512,
            check_every: Duration::from_secs(10),
            breaker: breaker::Options::default(),
            ca: None,
            ca_content: None,
        }
    }
}

/// What remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Engine {
    /// Memory: what was known is gone with the process.
    Memory,
    /// A store in a folder of this machine, which survives the process and the power.
    Embedded {
        /// The folder; a relative one lies where the gate was started.
        path: PathBuf,
        /// What a caller's answer waits for.
        durable: Durable,
    },
}

/// How much is remembered, and where.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreOptions {
    /// What remembers.
    pub engine: Engine,
    /// What deliveries are sealed with on the disk: the first seals, each opens.
    pub keys: Vec<Secret>,
    /// How many events are remembered at once.
    pub max_remembered: usize,
    /// How many lines of history are kept.
    pub history: usize,
    /// How long they are kept.
    pub history_retention: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        let history_retention = Duration::from_secs(90 * 24 * 3600);
        let engine = Engine::Embedded { path: "oncegate-data".into(), durable: Durable::default() };
        Self { engine, keys: Vec::new(), max_remembered: 1_000_000, history: 10_000, history_retention }
    }
}

/// Where operators look in.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminOptions {
    /// The address of metrics, health and the API; `None` turns them off.
    pub listen: Option<SocketAddr>,
    /// What whoever uses the API has to know; without one nobody can.
    pub token: Option<Secret>,
}

impl Default for AdminOptions {
    fn default() -> Self {
        Self { listen: Some((Ipv4Addr::LOCALHOST, 9090).into()), token: None }
    }
}

impl Word for LogFormat {
    const WORDS: &'static [(&'static str, Self)] = &[("human", Self::Human), ("json", Self::Json)];
}

impl Word for Durable {
    const WORDS: &'static [(&'static str, Self)] = &[("outcome", Self::Outcome), ("claim", Self::Claim)];
}

impl Word for LevelFilter {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", Self::ERROR),
        ("warn", Self::WARN),
        ("info", Self::INFO),
        ("debug", Self::DEBUG),
        ("trace", Self::TRACE),
    ];
}

/// A bound that is written as a plain number above zero.
pub(super) fn bound(section: &mut Section<'_>, key: &str, default: usize) -> usize {
    section.get_with(key, default, |node| NonZeroUsize::read(node).map(NonZeroUsize::get))
}

/// A time limit: zero would end everything at once.
fn limit(section: &mut Section<'_>, key: &str, default: Duration) -> Duration {
    section.get_with(key, default, nonzero)
}

fn nonzero(node: &Node) -> Result<Duration, Problem> {
    match Duration::read(node)? {
        Duration::ZERO => Err(Problem::new("a limit of zero ends everything at once", "write a longer time")),
        time => Ok(time),
    }
}

impl GatewayOptions {
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let default = Self::default();
        Self {
            listen: section.get("listen", default.listen),
            trusted_proxies: section.get("trusted_proxies", default.trusted_proxies),
            proxy_protocol: section.get("proxy_protocol", default.proxy_protocol),
            public_url: section.find_with("public_url", public_url),
            max_connections: bound(section, "max_connections", default.max_connections),
            max_body: section.get("max_body", Size(default.max_body)).0,
            max_waiters: bound(section, "max_waiters", default.max_waiters),
            max_waiters_per_transaction: bound(
                section,
                "max_waiters_per_transaction",
                default.max_waiters_per_transaction,
            ),
            http2: section.get("http2", default.http2),
            max_streams: bound(section, "max_streams", default.max_streams),
            max_handshakes: bound(section, "max_handshakes", default.max_handshakes),
            handshake_timeout: limit(section, "handshake_timeout", default.handshake_timeout),
            header_timeout: limit(section, "header_timeout", default.header_timeout),
            idle_timeout: limit(section, "idle_timeout", default.idle_timeout),
            drain: section.get("drain", default.drain),
            threads: section.get("threads", default.threads),
            reuse_port: section.get("reuse_port", default.reuse_port),
        }
    }
}

fn public_url(node: &Node) -> Result<String, Problem> {
    let no = || Problem::new(format!("{node} is no public address"), "write \"https://pay.example.org\"");
    let text = node.as_text().ok_or_else(no)?;
    let uri: Uri = text.parse().map_err(|_| no())?;
    let web = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|h| !h.is_empty());
    if !web || uri.query().is_some() || uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        return Err(no());
    }
    Ok(text.trim_end_matches('/').to_owned())
}

impl UpstreamOptions {
    pub(super) fn read(section: &mut Section<'_>, world: &World<'_>) -> Self {
        let default = Self::default();
        let ca: Option<PathBuf> = section.find("ca");
        let url = section.find_with("url", upstream_url).unwrap_or(default.url);
        let ca_content =
            ca.as_deref().filter(|_| url.starts_with("https:")).and_then(|path| match (world.file)(path) {
                Ok(bytes) => Some(Content::of(&bytes)),
                Err(error) => {
                    section.fault("ca", format!("the file cannot be read: {error}"), "let the gate's user read it");
                    None
                }
            });
        if ca.is_some() && !url.starts_with("https:") {
            section.warn("ca", "authorities are only asked about https", "write an https:// url, or leave `ca` out");
        }
        Self {
            url,
            max_callbacks: section.get("max_callbacks", Limit(default.max_callbacks)).0,
            timeout: limit(section, "timeout", default.timeout),
            connect_timeout: limit(section, "connect_timeout", default.connect_timeout),
            reuse_within: section.get("reuse_within", default.reuse_within),
            idle_timeout: section.get("idle_timeout", default.idle_timeout),
            max_idle: section.get("max_idle", default.max_idle),
            check_every: section.get("check_every", default.check_every),
            breaker: section.get("breaker", default.breaker),
            ca,
            ca_content,
        }
    }
}

fn upstream_url(node: &Node) -> Result<String, Problem> {
    let remedy = "write \"http://host:port\", \"https://host:port\" or \"unix:/path/to/socket\"";
    let no = |why: &str| Problem::new(format!("{node} is no address of an app: {why}"), remedy);
    let text = node.as_text().ok_or_else(|| no("it is no text"))?;
    if let Some(path) = text.strip_prefix("unix:") {
        let absolute = path.starts_with('/');
        return if absolute { Ok(text.to_owned()) } else { Err(no("the path of the socket begins at the root")) };
    }
    let uri: Uri = text.parse().map_err(|_| no("it is no URL"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(no("the scheme is unknown"));
    }
    let authority = uri.authority().map_or("", |a| a.as_str());
    if uri.host().is_none_or(str::is_empty) || authority.contains('@') || authority.ends_with(':') {
        return Err(no("it names no host, or more than that"));
    }
    if uri.path() != "/" || uri.query().is_some() {
        return Err(no("the app stands at the root, so that paths reach it as they came"));
    }
    Ok(text.to_owned())
}

impl StoreOptions {
    /// The keys as bytes; each is one, or the configuration has a fault.
    #[must_use]
    pub fn sealing(&self) -> Vec<[u8; KEY]> {
        self.keys.iter().filter_map(|key| key_bytes(key.expose())).collect()
    }

    pub(super) fn read(section: &mut Section<'_>, world: &World<'_>) -> Self {
        let default = Self::default();
        let is_durable = section.find_with("engine", is_durable).unwrap_or(default.engine != Engine::Memory);
        let in_clear = Cell::new(false);
        let keys = section.find_with("keys", |node| {
            let Value::List(nodes) = &node.value else {
                return Err(Problem::new(format!("{} stands here", node.kind()), "write [{ env = \"NAME\" }]"));
            };
            in_clear.set(nodes.iter().any(is_written_in_clear));
            nodes.iter().map(|node| store_key(node, world)).collect::<Result<Vec<_>, _>>()
        });
        if in_clear.get() {
            let message = "the key stands in the file itself, for every reader and every backup of it";
            section.warn("keys", message, "write { env = \"NAME\" } or { file = \"/path\" }");
        }
        if keys.is_some() && !is_durable {
            section.warn("keys", "has no effect on the memory engine", "leave it out");
        }
        let engine = match default.engine {
            Engine::Embedded { path, durable } if is_durable => {
                Engine::Embedded { path: section.get("path", path), durable: section.get("durable", durable) }
            }
            _ => {
                for durable in ["path", "durable"] {
                    let is_set = section.find::<String>(durable).is_some();
                    if is_set && !matches!(section.origin(durable).source, Source::Sample) {
                        section.warn(durable, "has no effect on the memory engine", "leave it out");
                    }
                }
                Engine::Memory
            }
        };
        Self {
            engine,
            keys: keys.unwrap_or_default(),
            max_remembered: bound(section, "max_remembered", default.max_remembered),
            history: section.get("history", default.history),
            history_retention: limit(section, "history_retention", default.history_retention),
        }
    }
}

fn store_key(node: &Node, world: &World<'_>) -> Result<Secret, Problem> {
    let key = secret(node, &|_| SecretKind::Token, world)?;
    let remedy = "make one with `openssl rand -hex 32`, and keep it apart from the store and its backups";
    match key_bytes(key.expose()) {
        Some(_) => Ok(key),
        None => Err(Problem::new(format!("a key of the store is {} hexadecimal digits", 2 * KEY), remedy)),
    }
}

fn key_bytes(text: &[u8]) -> Option<[u8; KEY]> {
    let mut key = [0; KEY];
    let digit = |at: usize| char::from(*text.get(at)?).to_digit(16);
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::try_from(digit(2 * at)? << 4 | digit(2 * at + 1)?).ok()?;
    }
    (text.len() == 2 * KEY).then_some(key)
}

/// Whether the engine is the embedded one.
fn is_durable(node: &Node) -> Result<bool, Problem> {
    let remedy = "write \"embedded\" or \"memory\"";
    match node.as_text() {
        Some("memory") => Ok(false),
        Some("embedded") => Ok(true),
        Some("postgres") => Err(Problem::new("the engine \"postgres\" comes with a later version", remedy)),
        _ => Err(Problem::new(format!("{node} is no engine"), remedy)),
    }
}

impl AdminOptions {
    pub(super) fn read(section: &mut Section<'_>, world: &World<'_>) -> Self {
        let listen = section.find_with("listen", admin_address).unwrap_or(Self::default().listen);
        if listen.is_some_and(|address| !address.ip().to_canonical().is_loopback()) {
            section.warn(
                "listen",
                "metrics and health can be read by whoever reaches this address",
                "listen on 127.0.0.1 or [::1], or keep others out by a firewall",
            );
        }
        let in_clear = Cell::new(false);
        let token = section.find_with("token", |node| {
            in_clear.set(is_written_in_clear(node));
            admin_token(node, world)
        });
        if in_clear.get() {
            let message = "the token stands in the file itself, for every reader and every backup of it";
            section.warn("token", message, "write { env = \"NAME\" } or { file = \"/path\" }");
        }
        if token.is_some() && listen.is_some_and(|address| !address.ip().to_canonical().is_loopback()) {
            let message = "the token, and what the API shows of payments, travel unencrypted to this address";
            section.warn("token", message, "listen on 127.0.0.1 or [::1], or reach it through a tunnel only");
        }
        Self { listen, token }
    }
}

/// Shorter ones can be guessed.
const SHORTEST_TOKEN: usize = 16;

fn admin_token(node: &Node, world: &World<'_>) -> Result<Secret, Problem> {
    let remedy = "make one with `openssl rand -hex 32`, and give it to whoever may act";
    let token = secret(node, &|_| SecretKind::Token, world)?;
    if token.kind != SecretKind::Token {
        return Err(Problem::new("this secret is no token", "leave `kind` out, or write kind = \"token\""));
    }
    if token.expose().len() < SHORTEST_TOKEN {
        return Err(Problem::new(format!("a token of less than {SHORTEST_TOKEN} characters can be guessed"), remedy));
    }
    if !token.expose().iter().all(u8::is_ascii_graphic) {
        return Err(Problem::new("a token consists of visible ASCII characters, without spaces", remedy));
    }
    Ok(token)
}

fn admin_address(node: &Node) -> Result<Option<SocketAddr>, Problem> {
    if node.as_text() == Some("off") { Ok(None) } else { SocketAddr::read(node).map(Some) }
}

pub(super) fn read_log(section: &mut Section<'_>) -> LogOptions {
    let default = LogOptions::default();
    LogOptions {
        format: section.get("format", default.format),
        level: section.get("level", default.level),
        callbacks: section.get("callbacks", default.callbacks),
    }
}
