//! Every key of the configuration, declared once: what is not here is refused, what is here stands in `config.toml`.

/// The keys before the first section.
pub const ROOT: &[&str] =
    &["preset", "gateway", "tls", "acme", "upstream", "store", "lookup", "admin", "log", "provider", "rule"];

/// A section and its keys.
pub struct SectionKeys {
    /// Its name; `provider` and `rule` stand for each of theirs.
    pub section: &'static str,
    /// What may stand in it.
    pub keys: &'static [&'static str],
}

/// The conditions of a rule.
pub const CONDITIONS: &[&str] = &["method", "path", "host", "header", "source", "when"];

/// Every section.
pub const SECTIONS: &[SectionKeys] = &[
    SectionKeys {
        section: "gateway",
        keys: &[
            "listen",
            "trusted_proxies",
            "proxy_protocol",
            "public_url",
            "max_connections",
            "max_body",
            "max_waiters",
            "max_waiters_per_transaction",
            "http2",
            "max_streams",
            "max_handshakes",
            "handshake_timeout",
            "header_timeout",
            "idle_timeout",
            "drain",
            "threads",
            "reuse_port",
        ],
    },
    SectionKeys { section: "tls", keys: &["listen", "certificate", "key", "names"] },
    SectionKeys { section: "acme", keys: &["directory", "contact", "agree_to_terms", "path", "challenge", "ca"] },
    SectionKeys {
        section: "upstream",
        keys: &[
            "url",
            "max_callbacks",
            "timeout",
            "connect_timeout",
            "reuse_within",
            "idle_timeout",
            "max_idle",
            "check_every",
            "breaker",
            "ca",
        ],
    },
    SectionKeys {
        section: "store",
        keys: &["engine", "path", "durable", "keys", "max_remembered", "history", "history_retention"],
    },
    SectionKeys {
        section: "lookup",
        keys: &["url", "ca", "timeout", "connections", "names", "booked", "api", "api_token"],
    },
    SectionKeys { section: "admin", keys: &["listen", "token"] },
    SectionKeys { section: "log", keys: &["format", "level", "callbacks"] },
    SectionKeys {
        section: "provider",
        keys: &[
            "secrets",
            "webhook_id",
            "notification_url",
            "tolerance",
            "ca",
            "api_key_env",
            "api_keys",
            "api_url",
            "api_timeout",
            "inquire",
            "recheck",
            "missing_after",
        ],
    },
    SectionKeys {
        section: "rule",
        keys: &[
            "name",
            "method",
            "path",
            "host",
            "header",
            "source",
            "when",
            "channel",
            "provider",
            "reference",
            "event_id",
            "state",
            "amount",
            "currency",
            "aliases",
            "learn",
            "dialect",
            "scope",
            "identity",
            "paid_once",
            "signature",
            "lock",
            "hold",
            "linger",
            "collapse_window",
            "trailing",
            "retention",
            "answer",
            "answer_within",
            "success",
            "quiet",
            "return_wait",
            "review_retryable",
            "timeout",
            "order",
            "retry",
            "on_duplicate",
            "on_unknown",
            "on_unverified",
            "on_unrecognised",
            "on_stale",
            "on_repeat_return",
            "shadow",
        ],
    },
];

/// The keys of a section; the root is the section without a name.
#[must_use]
pub fn of(section: &str) -> &'static [&'static str] {
    if section.is_empty() {
        return ROOT;
    }
    SECTIONS.iter().find(|s| s.section == section).map_or(&[], |s| s.keys)
}

/// The known name that a mistyped one is most like, if it is like any.
#[must_use]
pub fn nearest<'k>(typed: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let likeness = |name: &str| strsim::jaro_winkler(typed, name);
    let best = known.into_iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > 0.75).then_some(best)
}
