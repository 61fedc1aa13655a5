//! The composition root: from a configuration to a running gate, and the order in which its parts start and stop.

mod certificates;
mod options;
pub mod passed;
mod ports;
pub mod reload;
pub mod supervisor;

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{AbortHandle, JoinHandle},
};
use tokio_rustls::rustls::ServerConfig;

use self::{
    certificates::Keeper,
    options::{bounds, dispatch_options, listener_options, reception_options, rulebook, upstream_options},
    passed::Passed,
    ports::{Ports, Terms},
};
use crate::{
    admin::{self, Api, Guard, Readiness},
    callback::Channel,
    config::{Config, Engine, change::Door},
    dispatch::{self, Dispatch},
    ingress::{
        Listener,
        challenges::Challenges,
        listener::{self, Control, Drained},
        reception::{self, Reception},
    },
    inquiry::Inquiry,
    intake::{Intake, reading::Rulebook},
    lookup::Lookup,
    outbound::Outbound,
    provider::{PROVIDERS, contract::Secret, generic::GENERIC},
    rule::ProviderChoice,
    store::{
        CommitError, Store,
        embedded::{self, Embedded, folder::Place, seal::Seals},
        memory,
    },
    telemetry::{LogControl, Metrics},
    time::{Clock, SteadyClock, SystemClock},
    upstream::Upstream,
};

/// How often the gauges are looked at.
const GAUGES: Duration = Duration::from_secs(1);

/// A gate that runs.
pub struct Running {
    /// The addresses that callers use, ports filled in.
    pub addresses: Vec<SocketAddr>,
    /// The address of figures and health.
    pub admin: Option<SocketAddr>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// By what it runs.
    config: Config,
    ports: Ports,
    tls: Tls,
    passed: Passed,
    control: Control,
    road: Box<dyn Road>,
    upstream: Arc<Upstream>,
    lookup: Option<Arc<Lookup>>,
    clock: SteadyClock,
    desk: Desk,
    /// What is logged; a gate that is part of something else leaves that alone.
    log: Option<LogControl>,
    /// What tries the app's door when nobody else does.
    trying: Option<AbortHandle>,
    /// What keeps certificates in step with their files.
    keeping: Vec<JoinHandle<()>>,
    drain: watch::Sender<Duration>,
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
    start_with(config, metrics, Passed::default()).await
}

/// The same with sockets that are bound already.
///
/// # Errors
///
/// As [`start`], and when one of the sockets is not wanted.
pub async fn start_with(config: Config, metrics: Arc<Metrics>, passed: Passed) -> anyhow::Result<Running> {
    let now = SystemClock.now();
    let bounds = bounds(&config);
    match &config.store.engine {
        Engine::Memory => {
            let clock = SteadyClock::starting_at(now);
            stand(config, metrics, passed, memory::Memory::new(bounds), clock).await
        }
        Engine::Embedded { path, durable } => {
            let seals =
                Seals::of(&config.store.sealing()).map_err(|_| anyhow::anyhow!("there is no chance to seal with"))?;
            let options = embedded::Options { bounds, durable: *durable, quiet: config.rules.longest_quiet(), seals };
            let place = Box::new(Place::at(path.clone()));
            let store = Embedded::open(place, options, now).context("the store can't be opened (store.path)")?;
            let jump = store.counts().jump;
            if jump != 0 {
                let message = "the clock is far from where it was when the store was last written; nothing is forgotten for an hour";
                tracing::warn!(seconds = jump, message);
            }
            let clock = SteadyClock::ahead_of(now, store.now());
            stand(config, metrics, passed, store, clock).await
        }
    }
}

/// Starts a gate over a store.
async fn stand<S: Store>(
    config: Config,
    metrics: Arc<Metrics>,
    passed: Passed,
    store: S,
    clock: SteadyClock,
) -> anyhow::Result<Running> {
    let (doors, desk) = (config.doors(), desk_of(&config));
    passed.all_wanted(&[&doors[..], &desk].concat())?;
    let terms = Terms { passed: &passed, shared: config.gateway.reuse_port };
    let (ports, sockets) = Ports::default().open(&doors, &[], terms, listen_key)?;
    let (desks, desk) = Ports::default().open(&desk, &[], terms, |_| "admin.listen")?;
    let tls = Tls::of(&config)?;
    let listener = Listener::over(sockets, tls.options(&config, &metrics, &ports));
    let guard = Guard::new(config.admin.token.as_ref())?;
    let upstream = Arc::new(Upstream::new(upstream_options(&config))?);
    let ready = Readiness::waiting_for(&["gate"]);
    let dispatch = Dispatch::new(store, Arc::clone(&upstream), clock, Arc::clone(&metrics), dispatch_options(&config));
    let intake = Intake::new(Arc::clone(&dispatch));
    foresee(&config, &metrics);
    let lookup = looker(&config, clock, &metrics)?;
    if let Some(outbound) = asker(&config)? {
        intake.inquiry().through(outbound);
    }
    let options = reception_options(&config);
    let reception =
        Reception::new(rulebook(&config, lookup.clone()), Arc::clone(&intake), Arc::clone(&upstream), options);
    let rules = Arc::clone(&reception);

    let (stop, stopped) = watch::channel(false);
    let api = Api::new(Arc::clone(&dispatch), guard);
    let (drain, limit) = watch::channel(config.gateway.drain);
    let control = listener.control();
    let beside = vec![
        tokio::spawn(Arc::clone(&dispatch).run_timers()),
        tokio::spawn(Arc::clone(&intake).run_rechecks(move || rules.book())),
        tokio::spawn(show_gauges(
            Arc::clone(&dispatch),
            Arc::clone(&upstream),
            Arc::clone(&reception),
            control.clone(),
            ready.clone(),
        )),
    ];
    let served = tokio::spawn(listener.serve(Arc::clone(&reception), until(stopped), move || *limit.borrow()));
    let mut running = Running {
        addresses: ports.addresses(),
        admin: None,
        metrics,
        config,
        ports,
        tls,
        passed,
        control,
        road: Box::new(Parts { reception, inquiry: Arc::clone(intake.inquiry()), dispatch, api }),
        upstream,
        lookup,
        clock,
        desk: Desk::default(),
        log: None,
        trying: None,
        keeping: Vec::new(),
        drain,
        ready,
        stop,
        served,
        beside,
    };
    running.open_desk(desks, desk);
    running.try_the_app();
    running.keep_certificates();
    running.ready.ready("gate");
    running.metrics.reloads.started(SystemClock.now());
    Ok(running)
}

impl Running {
    /// How long what is under way may take when the gate is told to stop.
    #[must_use]
    pub fn drain(&self) -> Duration {
        self.config.gateway.drain
    }

    /// Takes nothing more in, finishes what is under way within the configured limit, and says whether that was all.
    pub async fn stop(self) -> Drained {
        self.ready.not_ready("gate", "it is shutting down");
        // An address is free when nobody holds its socket.
        drop((self.ports, self.passed, self.desk));
        self.stop.send_replace(true);
        let drained = self.served.await.unwrap_or(Drained { unfinished: 0 });
        // The timers run until the last caller has his answer.
        for task in self.beside {
            task.abort();
        }
        self.trying.iter().for_each(AbortHandle::abort);
        self.keeping.iter().for_each(JoinHandle::abort);
        self.road.written().await;
        drained
    }

    /// Shows figures and health at this address from now on, and at the one before no more.
    fn open_desk(&mut self, ports: Ports, sockets: Vec<TcpListener>) {
        let (stop, stopped) = watch::channel(false);
        self.admin = ports.addresses().first().copied();
        for socket in sockets {
            let (metrics, ready) = (Arc::clone(&self.metrics), self.ready.clone());
            self.road.open_desk(socket, metrics, ready, stopped.clone());
        }
        self.desk = Desk { ports, _stop: Some(stop) };
    }

    /// What is logged follows the configuration from now on.
    pub fn keep_log(&mut self, log: LogControl) {
        self.log = Some(log);
    }

    /// Keeps the certificates that are shown now, and those before no more.
    fn keep_certificates(&mut self) {
        self.keeping.drain(..).for_each(|task| task.abort());
        if let Some(keeper) = self.tls.keeper.take() {
            self.keeping = keeper.keep(&self.metrics);
        }
    }

    /// Tries the app's door as often as is configured, and no more as it was before.
    fn try_the_app(&mut self) {
        if let Some(trying) = self.trying.take() {
            trying.abort();
        }
        let (upstream, every) = (Arc::clone(&self.upstream), self.config.upstream.check_every);
        if !every.is_zero() {
            self.trying = Some(tokio::spawn(async move { upstream.watch(every).await }).abort_handle());
        }
    }
}

/// The certificates, and on what terms TLS is spoken at each address.
struct Tls {
    terms: Vec<(Door, Arc<ServerConfig>)>,
    challenges: Option<Arc<Challenges>>,
    /// What will keep them.
    keeper: Option<Keeper>,
}

impl Tls {
    fn of(config: &Config) -> anyhow::Result<Self> {
        let keeper = Keeper::new(config).context("acme.ca")?;
        let mut terms = Vec::new();
        for address in keeper.shown().addresses() {
            let spoken = keeper.shown().terms(address, config.gateway.http2)?;
            terms.extend(spoken.map(|terms| (Door { address, tls: true }, terms)));
        }
        Ok(Self { terms, challenges: keeper.challenges(), keeper: Some(keeper) })
    }

    /// What the listener is told, with the terms by the addresses that are bound.
    fn options(&self, config: &Config, metrics: &Metrics, ports: &Ports) -> listener::Options {
        let bound = |(door, terms): &(Door, Arc<ServerConfig>)| Some((ports.bound(*door)?, Arc::clone(terms)));
        let tls = self.terms.iter().filter_map(bound).collect();
        listener::Options { tls, challenges: self.challenges.clone(), ..listener_options(config, metrics) }
    }
}

/// The key that an address for callers stands under.
const fn listen_key(door: Door) -> &'static str {
    if door.tls { "tls.listen" } else { "gateway.listen" }
}

/// Where figures and health are to be shown.
fn desk_of(config: &Config) -> Vec<Door> {
    config.admin.listen.iter().map(|address| Door { address: *address, tls: false }).collect()
}

/// Where figures and health are shown; it closes when this is dropped.
#[derive(Default)]
struct Desk {
    ports: Ports,
    _stop: Option<watch::Sender<bool>>,
}

/// What is above the store, whichever that is, as far as it changes while it runs.
trait Road: Send + Sync {
    /// Requests that come from now on go by these.
    fn change(&self, book: Rulebook, options: reception::Options);

    /// Providers are asked through this, if anybody is to be.
    fn ask_through(&self, outbound: Option<Outbound>);

    /// Whether anybody can be asked.
    fn can_ask(&self) -> bool;

    /// Whoever uses the API has to know this from now on.
    fn expect_token(&self, token: Option<&Secret>);

    /// Shows figures and health, and lets people act, until it is told to stop.
    fn open_desk(&self, socket: TcpListener, metrics: Arc<Metrics>, ready: Readiness, stop: watch::Receiver<bool>);

    /// From now on these bounds hold.
    fn resize(&self, options: dispatch::Options, places: usize) -> Resized<'_>;

    /// Waits until the store has nothing left to write.
    fn written(&self) -> Written<'_>;
}

type Written<'r> = Pin<Box<dyn Future<Output = ()> + Send + 'r>>;
type Resized<'r> = Pin<Box<dyn Future<Output = Result<(), CommitError>> + Send + 'r>>;

struct Parts<S: Store> {
    inquiry: Arc<Inquiry>,
    reception: Arc<Reception<S>>,
    dispatch: Arc<Dispatch<S, Arc<Upstream>>>,
    api: Arc<Api<S, Arc<Upstream>>>,
}

impl<S: Store> Road for Parts<S> {
    fn change(&self, book: Rulebook, options: reception::Options) {
        self.reception.change(book, options);
    }

    fn ask_through(&self, outbound: Option<Outbound>) {
        if let Some(outbound) = outbound {
            self.inquiry.through(outbound);
        }
    }

    fn can_ask(&self) -> bool {
        self.inquiry.can_ask()
    }

    fn expect_token(&self, token: Option<&Secret>) {
        self.api.guard().knows(token);
    }

    fn open_desk(&self, socket: TcpListener, metrics: Arc<Metrics>, ready: Readiness, stop: watch::Receiver<bool>) {
        tokio::spawn(admin::serve(socket, metrics, ready, Arc::clone(&self.api), until(stop)));
    }

    fn resize(&self, options: dispatch::Options, places: usize) -> Resized<'_> {
        Box::pin(self.dispatch.resize(options, places))
    }

    fn written(&self) -> Written<'_> {
        Box::pin(async {
            if let Err(error) = self.dispatch.store.flush().await {
                tracing::error!(%error, "what was committed last could not be made durable");
            }
        })
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone means the same.
    _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Puts what the rules may bring on the page of figures before it comes.
fn foresee(config: &Config, metrics: &Metrics) {
    let rules = &config.rules;
    for (provider, api) in config.apis() {
        metrics.foresee_inquiries(provider);
        if api.missing_after.is_some() {
            metrics.foresee_missing(provider);
        }
    }
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

/// Who asks providers, if anybody can be asked.
fn asker(config: &Config) -> anyhow::Result<Option<Outbound>> {
    if config.apis().is_empty() {
        return Ok(None);
    }
    let outbound = Outbound::new(None).context("providers can't be asked (provider.NAME.api_keys)")?;
    Ok(Some(outbound))
}

/// Who asks the app's own database, if it may be asked.
fn looker(config: &Config, clock: SteadyClock, metrics: &Arc<Metrics>) -> anyhow::Result<Option<Arc<Lookup>>> {
    let Some(options) = config.lookup.clone() else { return Ok(None) };
    metrics.foresee_lookups();
    Lookup::new(options, clock, Arc::clone(metrics)).map(Some).context("the database can't be asked (lookup.ca)")
}

async fn show_gauges<S: Store>(
    dispatch: Arc<Dispatch<S, Arc<Upstream>>>,
    upstream: Arc<Upstream>,
    reception: Arc<Reception<S>>,
    listener: Control,
    ready: Readiness,
) {
    let metrics = Arc::clone(&dispatch.metrics);
    let gauge = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    // Each set of rules counts for itself.
    let (mut book, mut failed_before) = (reception.book(), 0);
    loop {
        match dispatch.store.fault() {
            None => ready.ready("store"),
            Some(fault) => ready.not_ready("store", fault.to_string()),
        }
        let current = reception.book();
        if !Arc::ptr_eq(&book, &current) {
            failed_before += book.rules.failed_expressions();
            book = current;
        }
        let counts = dispatch.store.counts();
        metrics.connections.set(gauge(listener.open_connections()));
        metrics.set_forgotten_early(counts.evicted);
        metrics.set_failed_expressions(failed_before + book.rules.failed_expressions());
        metrics.waiters.set(gauge(dispatch.waiting()));
        metrics.in_flight.set(gauge(counts.in_flight));
        metrics.review_entries.set(gauge(counts.review));
        metrics
            .set_review_oldest(counts.oldest_review.map(|since| dispatch.clock_now().since(since)).unwrap_or_default());
        metrics.owed_deliveries.set(gauge(counts.owed));
        metrics.set_owed_oldest(counts.oldest_owed.map(|since| dispatch.clock_now().since(since)).unwrap_or_default());
        metrics.remembered_events.set(gauge(counts.transactions));
        metrics.clock_jump_seconds.set(counts.jump);
        metrics.upstream_shut.set(i64::from(dispatch.is_shut()));
        metrics.set_upstream_up(upstream.reach().up());
        metrics.set_upstream_connects(upstream.reach().connected(), upstream.reach().failed());
        let now = dispatch.clock.now();
        metrics.set_oldest_due(counts.next_due.map(|due| now.since(due)).unwrap_or_default());
        tokio::time::sleep(GAUGES).await;
    }
}
