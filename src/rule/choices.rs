//! What a rule chooses: each key set or left to the rules after it.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    callback::Channel,
    expression::Expression,
    provider::{
        contract::Provider,
        extract::{Dialect, Place},
    },
    rule::learn::Learn,
    transaction::policy::{
        AnswerBy, IdentityBy, LockBy, OnDuplicate, OnRepeatReturn, OnUnknown, Order, Policy, Retry, Treatment,
    },
};

/// Who sends what a rule matches.
#[derive(Clone, Copy)]
pub enum ProviderChoice {
    /// Told by headers and the body's shape; generic where nobody is recognised.
    Auto,
    /// Said by the rule.
    Named(&'static Provider),
}

impl PartialEq for ProviderChoice {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Named(a), Self::Named(b)) => a.name == b.name,
            (Self::Auto, Self::Auto) => true,
            _ => false,
        }
    }
}

impl fmt::Debug for ProviderChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Named(provider) => provider.name,
        })
    }
}

/// Places by the kind of name that stands in them.
pub type Aliases = Vec<(Arc<str>, Vec<Place>)>;

/// The keys of a rule; `None` leaves the choice to the rules after it, the provider and the default.
///
/// Those up to `signature_required` decide how an event is read, and are therefore not for a rule that looks at one;
/// `identity` tells events apart that have been read already, and is.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the fields are the keys of the configuration, and the policy says what they do")]
pub struct Choices {
    pub channel: Option<Channel>,
    pub provider: Option<ProviderChoice>,
    pub reference: Option<Vec<Place>>,
    pub event_id: Option<Vec<Place>>,
    pub state: Option<Vec<Place>>,
    pub amount: Option<Vec<Place>>,
    pub currency: Option<Vec<Place>>,
    pub aliases: Aliases,
    pub learn: Learn,
    pub dialect: Option<Dialect>,
    pub scope_host: Option<bool>,
    pub identity_places: Option<Vec<Place>>,
    pub signature_required: Option<bool>,
    pub identity: Option<IdentityBy>,
    pub paid_once: Option<Arc<[Arc<str>]>>,
    pub lock: Option<LockBy>,
    pub hold: Option<Duration>,
    pub linger: Option<Duration>,
    pub collapse_window: Option<Duration>,
    pub trailing: Option<bool>,
    pub retention: Option<Duration>,
    pub quiet: Option<Duration>,
    pub return_wait: Option<Duration>,
    pub review_retryable: Option<Duration>,
    pub timeout: Option<Duration>,
    pub answer: Option<AnswerBy>,
    pub answer_within: Option<Duration>,
    pub success: Option<Arc<Expression>>,
    pub order: Option<Order>,
    pub retry: Option<Retry>,
    pub on_duplicate: Option<OnDuplicate>,
    pub on_unknown: Option<OnUnknown>,
    pub on_unverified: Option<Treatment>,
    pub on_unrecognised: Option<Treatment>,
    pub on_stale: Option<Treatment>,
    pub on_repeat_return: Option<OnRepeatReturn>,
    pub shadow: Option<bool>,
}

/// Replaces a value by a chosen one.
fn lay<T: Clone>(over: &mut T, choice: Option<&T>) {
    if let Some(chosen) = choice {
        over.clone_from(chosen);
    }
}

impl Choices {
    /// Whether what this rule matches is a callback.
    #[must_use]
    pub fn make_a_callback(&self) -> bool {
        self.channel.is_some() || self.provider.is_some() || self.reference.is_some()
    }

    /// Whether anything is set here that decides under which keys and names callbacks are known.
    #[must_use]
    pub fn have_a_say_in_keys(&self) -> bool {
        let reading = self.keys_that_read();
        reading.iter().any(|key| *key != "signature") || self.identity.is_some() || self.lock.is_some()
    }

    /// The keys set here that decide how an event is read, and so cannot depend on what it says.
    #[must_use]
    pub fn keys_that_read(&self) -> Vec<&'static str> {
        [
            ("channel", self.channel.is_some()),
            ("provider", self.provider.is_some()),
            ("reference", self.reference.is_some()),
            ("event_id", self.event_id.is_some()),
            ("state", self.state.is_some()),
            ("amount", self.amount.is_some()),
            ("currency", self.currency.is_some()),
            ("aliases", !self.aliases.is_empty()),
            ("learn", !self.learn.is_empty()),
            ("dialect", self.dialect.is_some()),
            ("scope", self.scope_host.is_some()),
            ("identity", self.identity_places.is_some()),
            ("signature", self.signature_required.is_some()),
        ]
        .into_iter()
        .filter_map(|(key, set)| set.then_some(key))
        .collect()
    }

    /// Replaces what is chosen here in a policy.
    pub fn lay_over(&self, policy: &mut Policy) {
        lay(&mut policy.identity, self.identity.as_ref());
        lay(&mut policy.paid_once, self.paid_once.as_ref());
        lay(&mut policy.lock, self.lock.as_ref());
        lay(&mut policy.hold, self.hold.as_ref());
        lay(&mut policy.linger, self.linger.as_ref());
        lay(&mut policy.collapse_window, self.collapse_window.as_ref());
        lay(&mut policy.trailing, self.trailing.as_ref());
        lay(&mut policy.retention, self.retention.as_ref());
        lay(&mut policy.quiet, self.quiet.as_ref());
        lay(&mut policy.return_wait, self.return_wait.as_ref());
        lay(&mut policy.review_retryable, self.review_retryable.as_ref());
        lay(&mut policy.timeout, self.timeout.as_ref());
        lay(&mut policy.answer, self.answer.as_ref());
        policy.answer_within = self.answer_within.or(policy.answer_within);
        if let Some(success) = &self.success {
            policy.success = Some(Arc::clone(success));
        }
        lay(&mut policy.order, self.order.as_ref());
        lay(&mut policy.retry, self.retry.as_ref());
        lay(&mut policy.on_duplicate, self.on_duplicate.as_ref());
        lay(&mut policy.on_unknown, self.on_unknown.as_ref());
        lay(&mut policy.on_unverified, self.on_unverified.as_ref());
        lay(&mut policy.on_unrecognised, self.on_unrecognised.as_ref());
        lay(&mut policy.on_stale, self.on_stale.as_ref());
        lay(&mut policy.on_repeat_return, self.on_repeat_return.as_ref());
        lay(&mut policy.signature_required, self.signature_required.as_ref());
        lay(&mut policy.shadow, self.shadow.as_ref());
    }
}
