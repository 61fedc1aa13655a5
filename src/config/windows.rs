//! Warnings for windows that are unsafe together, though each is right alone.

use std::time::Duration;

use super::{
    options::{Engine, UpstreamOptions},
    provider::World,
    report::{Effective, Finding, Origin, Report, Source},
};
use crate::{
    expression::Expression,
    lookup,
    provider::{contract::Provider, inquiry::Apis},
    rule::{ProviderChoice, Rule},
    transaction::policy::{AnswerBy, Policy},
};

/// Where a rule stands, and what it says.
pub struct Placed {
    /// Where its table begins.
    pub origin: Origin,
    /// Its path from the root.
    pub path: String,
    /// The rule.
    pub rule: Rule,
}

impl Placed {
    /// Where this key of the rule stands, and its path; the rule itself where it has no such key.
    pub fn key(&self, key: &str, report: &Report) -> (Origin, String) {
        let path = format!("{}.{key}", self.path);
        let set = |value: &&Effective| value.path == path && value.origin.source == self.origin.source;
        let origin = report.effective.iter().find(set).map_or(&self.origin, |value| &value.origin).clone();
        (origin, path)
    }
}

/// The policy where nothing is set. Where we survive what we acknowledge, nobody waits beyond his provider's time limit.
pub fn base_policy(upstream: &UpstreamOptions, engine: &Engine) -> Policy {
    let answer_within = (*engine != Engine::Memory).then_some(Duration::MAX);
    Policy { timeout: upstream.timeout, quiet: upstream.timeout, answer_within, ..Policy::default() }
}

/// Compares the windows of each of the user's rules with what its providers do; those of a preset are made for them.
pub fn check(
    rules: &[Placed],
    base: &Policy,
    configured: &[&'static Provider],
    apis: &Apis,
    lookup: Option<&lookup::Options>,
    world: &World<'_>,
    report: &mut Report,
) {
    let looked_up = lookup.filter(|lookup| !lookup.names.is_empty()).map_or(Duration::ZERO, |lookup| lookup.timeout);
    for booking in lookup.iter().flat_map(|lookup| lookup.booked.iter()) {
        confused(booking, rules, report);
    }
    let own = || rules.iter().filter(|placed| !matches!(placed.origin.source, Source::Preset(_)));
    for placed in own() {
        let mut warn = |key: &str, message: String, remedy: &str| {
            let (origin, path) = placed.key(key, report);
            report.warnings.push(Finding { origin, path, message, remedy: remedy.to_owned() });
        };
        let choices = &placed.rule.choices;
        let providers = candidates(&placed.rule, configured, world);
        if let Some(retention) = choices.retention
            && let Some(provider) = providers.iter().max_by_key(|provider| provider.retry_span)
            && retention < provider.retry_span
        {
            let (kept, span) = (show(retention), show(provider.retry_span));
            let message = format!("{} delivers again for up to {span}, but is remembered for {kept}", provider.name);
            warn("retention", message, "keep it longer, or a late redelivery is taken for new");
        }
        if let Some(within) = choices.answer_within
            && let Some(provider) = hangs_up(&placed.rule, &providers, configured, |_| within)
        {
            let (within, limit) = (show(within), show(provider.answer_limit));
            let message = format!("{} waits {limit} for an answer, and would hear ours after {within}", provider.name);
            warn("answer_within", message, "shorten it, or leave it out: then it is just below that limit");
        }
        let (linger, quiet) = (choices.linger.unwrap_or(base.linger), choices.quiet.unwrap_or(base.quiet));
        if linger > quiet && (choices.linger.is_some() || choices.quiet.is_some()) {
            let key = if choices.quiet.is_some() { "quiet" } else { "linger" };
            let message = format!(
                "the app works on for {} after it has answered, and for {} where it has not",
                show(linger),
                show(quiet)
            );
            warn(key, message, "make `quiet` as long as `linger`: after a crash nobody knows whether it had answered");
        }
        let ahead = |provider: &Provider| {
            let met = own().filter(|other| may_meet(&other.rule, provider));
            met.filter_map(|other| other.rule.choices.linger).max().unwrap_or(base.linger)
        };
        // It is asked about while it is held, the provider first and then the app's database.
        let held = |provider: &Provider| {
            let asked = apis.get(provider.name).map_or(Duration::ZERO, |api| api.timeout);
            choices.hold.unwrap_or(base.hold).max(asked + looked_up)
        };
        let wait = |provider: &Provider| held(provider) + choices.linger.unwrap_or_else(|| ahead(provider));
        // Whoever hears our acknowledgement in time does not hang up.
        let acknowledges = choices.answer == Some(AnswerBy::Accept) || choices.answer_within.is_some();
        if !acknowledges
            && base.answer_within.is_none()
            && (choices.hold.is_some() || choices.linger.is_some())
            && let Some(provider) = hangs_up(&placed.rule, &providers, configured, wait)
        {
            let (sum, limit) = (show(wait(provider)), show(provider.answer_limit));
            let message = format!(
                "hold and the longest linger ahead make {sum}, but {} waits {limit} for an answer",
                provider.name
            );
            let key = if choices.hold.is_some() { "hold" } else { "linger" };
            warn(key, message, "shorten them, or a second event of one payment hears its answer at the next delivery");
        }
    }
}

/// Providers whose references are told apart within one account only: nobody knows who draws them.
const NUMBERED_BY_ACCOUNT: [&str; 2] = ["generic", "standard-webhooks"];

/// Warns where the app's books are asked by a reference that two accounts may have given to two payments. Rules with a named
/// segment are for several accounts, and so are several rules.
fn confused(booking: &lookup::Booking, rules: &[Placed], report: &mut Report) {
    if !NUMBERED_BY_ACCOUNT.contains(&booking.provider) {
        return;
    }
    let theirs = rules.iter().filter(|placed| named(&placed.rule) == Some(booking.provider));
    let paths: Vec<_> = theirs.flat_map(|placed| &placed.rule.matcher.paths).collect();
    if paths.len() < 2 && !paths.iter().any(|path| path.names().next().is_some()) {
        return;
    }
    let path = "lookup.booked".to_owned();
    let Some(value) = report.effective.iter().find(|value| value.path == path) else { return };
    let message = format!(
        "references of {} are one of a kind within an account, and the query is asked with nothing else: what one account has \
         booked may be taken for another's payment",
        booking.provider
    );
    let remedy = "leave it out unless all accounts draw from one sequence".to_owned();
    let origin = value.origin.clone();
    report.warnings.push(Finding { origin, path, message, remedy });
}

/// The one provider whose callbacks a rule is for, if it says so.
fn named(rule: &Rule) -> Option<&str> {
    match rule.choices.provider {
        Some(ProviderChoice::Named(provider)) => Some(provider.name),
        Some(ProviderChoice::Auto) | None => rule.matcher.when.as_deref().and_then(Expression::provider),
    }
}

fn may_meet(rule: &Rule, provider: &Provider) -> bool {
    named(rule).is_none_or(|name| name == provider.name)
}

/// Those that a rule may meet: of all there are, those that the user has; all, where he tells of none. The generic one
/// waits as long as anybody.
fn candidates(rule: &Rule, configured: &[&'static Provider], world: &World<'_>) -> Vec<&'static Provider> {
    if let Some(ProviderChoice::Named(provider)) = rule.choices.provider {
        return vec![provider];
    }
    let all = if configured.is_empty() { world.providers } else { configured };
    let ours = |provider: &&&Provider| !configured.is_empty() || provider.name != "generic";
    all.iter().filter(ours).copied().filter(|provider| may_meet(rule, provider)).collect()
}

/// Who hangs up first when they wait so long; where it may be anybody, who does last, so that only what is too long for
/// all is told.
fn hangs_up(
    rule: &Rule,
    met: &[&'static Provider],
    configured: &[&'static Provider],
    wait: impl Fn(&Provider) -> Duration,
) -> Option<&'static Provider> {
    let late = |provider: &&&'static Provider| wait(provider) >= provider.answer_limit;
    let limit = |provider: &&'static Provider| provider.answer_limit;
    let mut late: Vec<_> = met.iter().filter(late).copied().collect();
    late.sort_by_key(limit);
    if !configured.is_empty() || named(rule).is_some() {
        return late.first().copied();
    }
    late.last().copied().filter(|_| late.len() == met.len())
}

fn show(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}
