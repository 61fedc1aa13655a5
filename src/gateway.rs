//! The composition root: from a configuration to a running gate, and the order in which its parts start and stop.

mod certificates;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use self::certificates::Keeper;
use crate::{
    admin::{self, Api, Guard, Readiness},
    callback::Channel,
    config::Config,
    dispatch::{self, Dispatch},
    ingress::{
        Listener,
        listener::{self, Control, Drained},
        reception::{self, Reception},
    },
    intake::Intake,
    provider::{PROVIDERS, generic::GENERIC},
    rule::{ProviderChoice, Rules},
    store::{Store, memory},
    telemetry::Metrics,
    time::{Clock, SteadyClock, SystemClock},
    upstream::{self, Upstream},
};

/// How often the gauges are looked at.
const GAUGES: Duration = Duration::from_secs(1);
/// How long the body of a callback may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// A gate that runs.
pub struct Running {
    /// The addresses that callers use, ports filled in.
    pub addresses: Vec<SocketAddr>,
    /// The address of figures and health.
    pub admin: Option<SocketAddr>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    ready: Readiness,
    stop: watch::Sender<bool>,
    served: JoinHandle<Drained>,
    beside: Vec<JoinHandle<()>>,
}

/// Starts a gate. Every socket is bound before anything is served, so that what fails fails at once.
///
/// # Errors
///
/// When an address can't be had, or the app's address makes no sense.
pub async fn start(config: Config, metrics: Arc<Metrics>) -> anyhow::Result<Running> {
    let keeper = Keeper::new(&config).context("acme.ca")?;
    let listener = open(&config, &keeper, &metrics)?;
    let desk = match config.admin.listen {
        Some(address) => Some(
            TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} (admin.listen)"))?,
        ),
        None => None,
    };
    let guard = Guard::new(config.admin.token.as_ref())?;
    let upstream = Arc::new(Upstream::new(upstream_options(&config))?);
    let ready = Readiness::waiting_for(&["gate"]);
    let clock = SteadyClock::starting_at(SystemClock.now());
    let store = memory::Memory::new(memory_options(&config));
    let dispatch = Dispatch::new(store, Arc::clone(&upstream), clock, Arc::clone(&metrics), dispatch_options(&config));
    let keyrings = config.providers.iter().map(|options| (options.provider.name, options.keyring.clone())).collect();
    let intake = Intake::new(Arc::clone(&dispatch), config.upstream.url.clone(), keyrings);
    let rules = config.rules.clone();
    foresee(&rules, &metrics);
    let reception = Reception::new(config.rules, intake, Arc::clone(&upstream), reception_options(&config.gateway));

    let addresses = listener.addresses();
    let admin = desk.as_ref().and_then(|desk| desk.local_addr().ok());
    let (stop, stopped) = watch::channel(false);
    let api = Api::new(Arc::clone(&dispatch), guard);
    let mut beside = vec![
        tokio::spawn(Arc::clone(&dispatch).run_timers()),
        tokio::spawn(show_gauges(dispatch, Arc::clone(&upstream), rules, listener.control(), Arc::clone(&metrics))),
    ];
    if !config.upstream.check_every.is_zero() {
        beside.push(tokio::spawn(async move { upstream.watch(config.upstream.check_every).await }));
    }
    beside.extend(keeper.keep(&metrics));
    if let Some(desk) = desk {
        let ended = until(stopped.clone());
        beside.push(tokio::spawn(admin::serve(desk, Arc::clone(&metrics), ready.clone(), api, ended)));
    }
    let served = tokio::spawn(listener.serve(reception, until(stopped), move || config.gateway.drain));
    ready.ready("gate");
    Ok(Running { addresses, admin, metrics, ready, stop, served, beside })
}

/// Binds every address, and says at which of them TLS is spoken.
fn open(config: &Config, keeper: &Keeper, metrics: &Metrics) -> anyhow::Result<Listener> {
    let mut options = listener_options(config, metrics);
    options.challenges = keeper.challenges();
    let shown = keeper.shown();
    let bind = |address: SocketAddr| listener::bind(address, options.backlog);
    let plain = config.gateway.listen.iter().map(|address| bind(*address)).collect::<Result<Vec<_>, _>>();
    let mut sockets = plain.context("gateway.listen")?;
    for address in shown.addresses() {
        let socket = bind(address).context("tls.listen")?;
        if let Some(terms) = shown.terms(address, config.gateway.http2)? {
            options.tls.insert(socket.local_addr()?, terms);
        }
        sockets.push(socket);
    }
    Ok(Listener::over(sockets, options))
}

impl Running {
    /// Takes nothing more in, finishes what is under way within the configured limit, and says whether that was all.
    pub async fn stop(self) -> Drained {
        self.ready.not_ready("gate", "it is shutting down");
        self.stop.send_replace(true);
        let drained = self.served.await.unwrap_or(Drained { unfinished: 0 });
        // The timers run until the last caller has his answer.
        for task in self.beside {
            task.abort();
        }
        drained
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone means the same.
    _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Puts what the rules may bring on the page of figures before it comes.
fn foresee(rules: &Rules, metrics: &Metrics) {
    let all: Vec<_> = PROVIDERS.iter().map(|provider| provider.name).collect();
    for rule in rules.list().iter().filter(|rule| rule.choices.make_a_callback()) {
        let name = rule.name.as_ref().unwrap_or(&rules.base().rule);
        match (rule.choices.channel.unwrap_or(Channel::Webhook), rule.choices.provider) {
            (channel, Some(ProviderChoice::Named(provider))) => metrics.foresee(name, channel, &[provider.name]),
            // A browser bears no sign of who sent it back.
            (Channel::Return, _) => metrics.foresee(name, Channel::Return, &[GENERIC.name]),
            (Channel::Webhook, _) => metrics.foresee(name, Channel::Webhook, &all),
        }
    }
}

async fn show_gauges<S: Store>(
    dispatch: Arc<Dispatch<S, Arc<Upstream>>>,
    upstream: Arc<Upstream>,
    rules: Rules,
    listener: Control,
    metrics: Arc<Metrics>,
) {
    let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    loop {
        let counts = dispatch.store.counts();
        metrics.connections.set(gauge(listener.open_connections()));
        metrics.set_forgotten_early(counts.evicted);
        metrics.set_failed_expressions(rules.failed_expressions());
        metrics.waiters.set(gauge(dispatch.waiting()));
        metrics.in_flight.set(gauge(counts.in_flight));
        metrics.review_entries.set(gauge(counts.review));
        metrics
            .set_review_oldest(counts.oldest_review.map(|since| dispatch.clock_now().since(since)).unwrap_or_default());
        metrics.remembered_events.set(gauge(counts.transactions));
        metrics.set_upstream_up(upstream.reach().up());
        metrics.set_upstream_connects(upstream.reach().connected(), upstream.reach().failed());
        let now = dispatch.clock.now();
        metrics.set_oldest_due(counts.next_due.map(|due| now.since(due)).unwrap_or_default());
        tokio::time::sleep(GAUGES).await;
    }
}

fn listener_options(config: &Config, metrics: &Metrics) -> listener::Options {
    let gateway = &config.gateway;
    listener::Options {
        proxy_protocol: gateway.proxy_protocol.clone(),
        handshake_timeout: gateway.handshake_timeout,
        max_handshakes: gateway.max_handshakes,
        handshakes: metrics.handshakes.clone(),
        http2: gateway.http2,
        max_streams: u32::try_from(gateway.max_streams).unwrap_or(u32::MAX),
        header_timeout: gateway.header_timeout,
        idle_timeout: gateway.idle_timeout,
        max_connections: gateway.max_connections,
        ..listener::Options::default()
    }
}

fn upstream_options(config: &Config) -> upstream::Options {
    let options = &config.upstream;
    upstream::Options {
        connect_timeout: options.connect_timeout,
        timeout: options.timeout,
        reuse_within: options.reuse_within,
        idle_timeout: options.idle_timeout,
        max_idle: options.max_idle,
        ca: options.ca.clone(),
        ..upstream::Options::new(options.url.clone())
    }
}

fn memory_options(config: &Config) -> memory::Options {
    memory::Options {
        places: config.upstream.max_callbacks.map_or(usize::MAX, std::num::NonZero::get),
        max_remembered: config.store.max_remembered,
        history: config.store.history,
        history_retention: config.store.history_retention,
        ..memory::Options::default()
    }
}

fn dispatch_options(config: &Config) -> dispatch::Options {
    dispatch::Options {
        max_waiters: config.gateway.max_waiters,
        max_waiters_per_transaction: config.gateway.max_waiters_per_transaction,
        ..dispatch::Options::default()
    }
}

fn reception_options(gateway: &crate::config::GatewayOptions) -> reception::Options {
    reception::Options {
        trusted_proxies: gateway.trusted_proxies.clone(),
        max_body: gateway.max_body,
        body_timeout: BODY_TIMEOUT,
    }
}
