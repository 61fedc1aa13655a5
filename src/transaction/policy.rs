//! What a rule decided for one event: every choice that the transition and the dispatch obey, and nothing else.
//!
//! A delivery keeps the policy it was decided with, whatever a reload changes.

use std::{sync::Arc, time::Duration};

use crate::{callback::Answer, expression::Expression};

/// How two events are told to be the same (DESIGN: *identity*).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IdentityBy {
    /// The best that the callback gives: event id, else the state it tells, else the reference.
    Auto,
    /// The provider's event id; an event without one falls back as `Auto` does.
    Event,
    /// The reference and the state told.
    State,
    /// The reference alone, within `collapse_window`.
    Reference,
    /// A digest of the whole body.
    Body,
    /// What stands in the places that the rule lists.
    Places,
}

/// What a callback shuts others out from while it is in the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LockBy {
    /// Its names; and by channel, whatever it shares no kind of name with.
    Names,
    /// The whole upstream: one callback at a time.
    Upstream,
}

/// How a caller is dealt with out of the usual course.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Let it through.
    Forward,
    /// Answer it as the provider wants to hear success.
    Ack,
    /// Answer it with a refusal.
    Refuse,
    /// Keep it for a person.
    Review,
}

/// What a duplicate of a settled event hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDuplicate {
    /// The first one's answer.
    Replay,
    /// Nothing of ours: it goes to the app again, under the lock.
    Forward,
    /// The provider's own acknowledgement.
    Ack,
    /// A refusal (409).
    Refuse,
}

/// Whose word a webhook's sender hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerBy {
    /// The app's, as long as it speaks within `answer_within`.
    Upstream,
    /// The provider's own acknowledgement, at once; the app is told behind it.
    Accept,
}

/// What follows when nobody knows whether the app got a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnknown {
    /// Send it again after `quiet`.
    Resend,
    /// Leave it to a person.
    Review,
    /// After `quiet`, look in the app's own books whether the payment is there: what is there is settled, and what is not is
    /// sent again. Where nobody can say, leave it to a person.
    Confirm,
    /// The same; but where nobody can say, send it again.
    ConfirmElseResend,
}

impl OnUnknown {
    /// Whether the app's own books are looked at first.
    #[must_use]
    pub const fn confirms(self) -> bool {
        matches!(self, Self::Confirm | Self::ConfirmElseResend)
    }

    /// Whether it is sent again where nobody can say whether the app got it.
    #[must_use]
    pub const fn resends(self) -> bool {
        matches!(self, Self::Resend | Self::ConfirmElseResend)
    }
}

/// What the payer's double click hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRepeatReturn {
    /// It waits its turn and goes to the app.
    Forward,
    /// A 303 to where the first one was sent.
    Redirect,
}

/// What later events of a transaction do while one of its deliveries waits for a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// They pass after `quiet`.
    Passing,
    /// They wait.
    Strict,
}

/// How we try again where the retry is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// The wait before the first retry; it doubles with each.
    pub first: Duration,
    /// The longest wait between two tries.
    pub longest: Duration,
    /// How many tries in all.
    pub attempts: u32,
}

/// Every choice for one event.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The first matching rule that has a name; a label in logs and metrics.
    pub rule: Arc<str>,
    /// What "the same event" means.
    pub identity: IdentityBy,
    /// The kinds of names of what is paid once: two payments of the same are one too many.
    pub paid_once: Arc<[Arc<str>]>,
    /// What must not overlap.
    pub lock: LockBy,
    /// The delay window before a webhook is forwarded.
    pub hold: Duration,
    /// How long the lease outlives the app's answer, for what the app puts off.
    pub linger: Duration,
    /// How long a callback that does not tell what happened is taken for the same.
    pub collapse_window: Duration,
    /// Whether one more delivery follows when something was collapsed after the first byte.
    pub trailing: bool,
    /// How long an identity is remembered, from its last settle or repeat.
    pub retention: Duration,
    /// How long a silent app is taken to be still at work.
    pub quiet: Duration,
    /// How long a browser's GET waits its turn before it hears a page that reloads itself.
    pub return_wait: Duration,
    /// How long the app may take over an answer.
    pub timeout: Duration,
    /// See [`AnswerBy`].
    pub answer: AnswerBy,
    /// How long a sender waits for the app before he hears his own acknowledgement; for ever where there is none.
    pub answer_within: Option<Duration>,
    /// What the app's answer must satisfy to count as a success; a 2xx status where nothing is said.
    pub success: Option<Arc<Expression>>,
    /// See [`OnDuplicate`].
    pub on_duplicate: OnDuplicate,
    /// See [`OnUnknown`].
    pub on_unknown: OnUnknown,
    /// What a wrong signature meets.
    pub on_unverified: Treatment,
    /// What a callback meets in which no one reference can be read.
    pub on_unrecognised: Treatment,
    /// What an older state than one already delivered meets.
    pub on_stale: Treatment,
    /// See [`OnRepeatReturn`].
    pub on_repeat_return: OnRepeatReturn,
    /// See [`Order`].
    pub order: Order,
    /// How a retry of ours goes.
    pub retry: Retry,
    /// How long redeliveries of what waits for a person hear "try again" before they hear an acknowledgement.
    pub review_retryable: Duration,
    /// Whether a missing signature is as bad as a wrong one.
    pub signature_required: bool,
    /// Decide and count, but neither hold nor lock nor collapse.
    pub shadow: bool,
}

impl Policy {
    /// How long a sender waits for the app before he hears his own acknowledgement; `None` where he never does.
    #[must_use]
    pub const fn patience(&self) -> Option<Duration> {
        match self.answer {
            AnswerBy::Accept => Some(Duration::ZERO),
            AnswerBy::Upstream => self.answer_within,
        }
    }

    /// Whether this answer of the app says that it has taken the callback in: `success`, else any 2xx status. An
    /// expression that fails on it says no.
    #[must_use]
    pub fn is_success(&self, answer: &Answer) -> bool {
        let Some(success) = &self.success else { return answer.status.is_success() };
        let content_type = answer.content_type.as_deref().and_then(|text| std::str::from_utf8(text).ok());
        let body = answer.body.as_deref().unwrap_or_default();
        success.eval_success(answer.status.as_u16(), content_type, body).unwrap_or(false)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            rule: Arc::from("default"),
            identity: IdentityBy::Auto,
            paid_once: ["order", "payment_hash"].map(Arc::from).into(),
            lock: LockBy::Names,
            hold: Duration::from_secs(1),
            linger: Duration::ZERO,
            collapse_window: Duration::from_secs(30),
            trailing: true,
            retention: Duration::from_secs(7 * 24 * 3600),
            quiet: Duration::from_secs(60),
            return_wait: Duration::from_secs(30),
            timeout: Duration::from_secs(60),
            answer: AnswerBy::Upstream,
            answer_within: None,
            success: None,
            on_duplicate: OnDuplicate::Replay,
            on_unknown: OnUnknown::Review,
            on_unverified: Treatment::Refuse,
            on_unrecognised: Treatment::Forward,
            on_stale: Treatment::Ack,
            on_repeat_return: OnRepeatReturn::Forward,
            order: Order::Passing,
            retry: Retry { first: Duration::from_secs(5), longest: Duration::from_secs(3600), attempts: 12 },
            review_retryable: Duration::from_secs(3600),
            signature_required: false,
            shadow: false,
        }
    }
}
