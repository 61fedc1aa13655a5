//! What each part is told, out of the configuration as a whole.

use std::{num::NonZero, sync::Arc, time::Duration};

use crate::{
    config::Config,
    dispatch,
    ingress::{listener, reception},
    intake::reading::Rulebook,
    lookup::Lookup,
    store::memory,
    telemetry::Metrics,
    upstream,
};

/// How long the body of a callback may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) fn listener_options(config: &Config, metrics: &Metrics) -> listener::Options {
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

pub(super) fn upstream_options(config: &Config) -> upstream::Options {
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

pub(super) fn bounds(config: &Config) -> memory::Options {
    memory::Options {
        places: places(config),
        max_remembered: config.store.max_remembered,
        history: config.store.history,
        history_retention: config.store.history_retention,
        ..memory::Options::default()
    }
}

/// How many callbacks may be in the app at once.
pub(super) fn places(config: &Config) -> usize {
    config.upstream.max_callbacks.map_or(usize::MAX, NonZero::get)
}

pub(super) fn dispatch_options(config: &Config) -> dispatch::Options {
    dispatch::Options {
        max_waiters: config.gateway.max_waiters,
        max_waiters_per_transaction: config.gateway.max_waiters_per_transaction,
        breaker: config.upstream.breaker,
        ..dispatch::Options::default()
    }
}

pub(super) fn reception_options(config: &Config) -> reception::Options {
    let gateway = &config.gateway;
    reception::Options {
        trusted_proxies: gateway.trusted_proxies.clone(),
        max_body: gateway.max_body,
        body_timeout: BODY_TIMEOUT,
    }
}

/// What callbacks are read and decided by.
pub(super) fn rulebook(config: &Config, lookup: Option<Arc<Lookup>>) -> Rulebook {
    let keyrings = config.providers.iter().map(|options| (options.provider.name, options.keyring.clone())).collect();
    Rulebook::new(config.rules.clone(), keyrings, config.upstream.url.clone()).asking(config.apis()).looking_up(lookup)
}
