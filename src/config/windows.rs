//! Warnings for windows that are unsafe together, though each is right alone.

use std::time::Duration;

use super::{
    options::UpstreamOptions,
    provider::World,
    report::{Effective, Finding, Origin, Report, Source},
};
use crate::{
    provider::contract::Provider,
    rule::{ProviderChoice, Rule},
    transaction::policy::Policy,
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

/// The policy where nothing is set.
pub fn base_policy(upstream: &UpstreamOptions) -> Policy {
    Policy { timeout: upstream.timeout, quiet: upstream.timeout, ..Policy::default() }
}

/// Compares the windows of each of the user's rules with what its providers do; those of a preset are made for them.
pub fn check(
    rules: &[Placed],
    base: &Policy,
    configured: &[&'static Provider],
    world: &World<'_>,
    report: &mut Report,
) {
    let own = || rules.iter().filter(|placed| !matches!(placed.origin.source, Source::Preset(_)));
    let linger_ahead = own().filter_map(|placed| placed.rule.choices.linger).max().unwrap_or(base.linger);
    for placed in own() {
        let mut warn = |key: &str, message: String, remedy: &str| {
            let path = format!("{}.{key}", placed.path);
            let set = |value: &&Effective| value.path == path && value.origin.source == placed.origin.source;
            let origin = report.effective.iter().find(set).map_or(&placed.origin, |value| &value.origin).clone();
            report.warnings.push(Finding { origin, path, message, remedy: remedy.to_owned() });
        };
        let choices = &placed.rule.choices;
        let providers = candidates(choices.provider, configured, world);
        if let Some(retention) = choices.retention
            && let Some(provider) = providers.iter().max_by_key(|provider| provider.retry_span)
            && retention < provider.retry_span
        {
            let (kept, span) = (show(retention), show(provider.retry_span));
            let message = format!("{} delivers again for up to {span}, but is remembered for {kept}", provider.name);
            warn("retention", message, "keep it longer, or a late redelivery is taken for new");
        }
        let (hold, linger) = (choices.hold.unwrap_or(base.hold), choices.linger.unwrap_or(linger_ahead));
        if (choices.hold.is_some() || choices.linger.is_some())
            && let Some(provider) = least_patient(choices.provider, configured, world)
            && hold + linger >= provider.answer_limit
        {
            let (sum, limit) = (show(hold + linger), show(provider.answer_limit));
            let message = format!(
                "hold and the longest linger ahead make {sum}, but {} waits {limit} for an answer",
                provider.name
            );
            let key = if choices.hold.is_some() { "hold" } else { "linger" };
            warn(key, message, "shorten them, or it hangs up and delivers again");
        }
    }
}

/// Those that a rule may meet: of all there are, those that the user has; all, where he tells of none. The generic one
/// waits as long as anybody.
fn candidates(
    choice: Option<ProviderChoice>,
    configured: &[&'static Provider],
    world: &World<'_>,
) -> Vec<&'static Provider> {
    match choice {
        Some(ProviderChoice::Named(provider)) => vec![provider],
        Some(ProviderChoice::Auto) | None if !configured.is_empty() => configured.to_vec(),
        Some(ProviderChoice::Auto) | None => {
            world.providers.iter().copied().filter(|provider| provider.name != "generic").collect()
        }
    }
}

/// Who would hang up first; where it may be anybody, who would last, so that only what is too long for all is told.
fn least_patient(
    choice: Option<ProviderChoice>,
    configured: &[&'static Provider],
    world: &World<'_>,
) -> Option<&'static Provider> {
    let known = candidates(choice, configured, world);
    let anybody = configured.is_empty() && !matches!(choice, Some(ProviderChoice::Named(_)));
    let limit = |provider: &&Provider| provider.answer_limit;
    if anybody { known.into_iter().rev().max_by_key(limit) } else { known.into_iter().min_by_key(limit) }
}

fn show(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}
