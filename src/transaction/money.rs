//! What the app has been told of a transaction's money, and which statement about it is older than that.

use crate::callback::{State, Step};

/// One statement about a payment: its state, and the finer step where the provider tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// What is said to have happened.
    pub state: State,
    /// How much of it, or how.
    pub step: Option<Step>,
}

/// Where a payment stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Nothing was told.
    #[default]
    Nothing,
    /// Begun, or under way.
    Begun,
    /// The money is reserved, and the payer's still.
    Authorised,
    /// It will not be paid.
    Failed,
    /// Given up.
    Cancelled,
    /// Given up by time.
    Expired,
    /// The money is the merchant's.
    Paid,
    /// A part of it was given back; or it is not known whether that is all.
    PartlyRefunded,
    /// All of it was given back.
    Refunded,
    /// Taken back by the payer's bank.
    ChargedBack,
}

impl Stage {
    /// Every stage, in the order in which a payment goes forward.
    pub const ALL: [Self; 10] = [
        Self::Nothing,
        Self::Begun,
        Self::Authorised,
        Self::Failed,
        Self::Cancelled,
        Self::Expired,
        Self::Paid,
        Self::PartlyRefunded,
        Self::Refunded,
        Self::ChargedBack,
    ];

    /// The word in the API, on the command line and in history.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Begun => "begun",
            Self::Authorised => "authorised",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
            Self::Paid => "paid",
            Self::PartlyRefunded => "partly_refunded",
            Self::Refunded => "refunded",
            Self::ChargedBack => "charged_back",
        }
    }

    const fn of(told: Told) -> Self {
        match (told.state, told.step) {
            (State::Pending, Some(Step::Authorised)) => Self::Authorised,
            (State::Pending, _) => Self::Begun,
            (State::Failed, _) => Self::Failed,
            (State::Cancelled, Some(Step::Expired)) => Self::Expired,
            (State::Cancelled, _) => Self::Cancelled,
            (State::Paid, _) => Self::Paid,
            (State::Refunded, Some(Step::Whole)) => Self::Refunded,
            (State::Refunded, _) => Self::PartlyRefunded,
            (State::ChargedBack, _) => Self::ChargedBack,
        }
    }

    /// The state that a provider's manual speaks of; `None` before anything was told.
    const fn state(self) -> Option<State> {
        Some(match self {
            Self::Nothing => return None,
            Self::Begun | Self::Authorised => State::Pending,
            Self::Failed => State::Failed,
            Self::Cancelled | Self::Expired => State::Cancelled,
            Self::Paid => State::Paid,
            Self::PartlyRefunded | Self::Refunded => State::Refunded,
            Self::ChargedBack => State::ChargedBack,
        })
    }

    /// Whether it came to an end without money.
    const fn has_come_to_nothing(self) -> bool {
        matches!(self, Self::Failed | Self::Cancelled | Self::Expired)
    }

    const fn has_moved(self) -> bool {
        matches!(self, Self::Paid | Self::PartlyRefunded | Self::Refunded | Self::ChargedBack)
    }
}

/// A move back that a provider makes all the same, as its manual says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LateMove {
    /// The payment is here,
    pub after: State,
    /// and this is told, and is the truth.
    pub comes: State,
    /// Where that is written.
    pub source: &'static str,
}

/// Which way a provider's payments go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moves {
    /// Its manuals say where a payment ends: forward only, save for these.
    Documented(&'static [LateMove]),
    /// They do not. Only what is under way is taken for older than money that has moved.
    Undocumented,
}

impl Moves {
    fn know(self, after: State, comes: State) -> bool {
        match self {
            Self::Documented(moves) => moves.iter().any(|late| late.after == after && late.comes == comes),
            Self::Undocumented => comes != State::Pending || matches!(after, State::Failed | State::Cancelled),
        }
    }
}

/// What the app has been told of a transaction's money.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Money {
    /// Where the payment stands by that.
    pub stage: Stage,
    /// Whether it was told that the payment was paid, whatever came after.
    pub paid: bool,
}

impl Money {
    /// Whether this is an older state than one that was told, and no move back of which its provider's manual speaks.
    ///
    /// Money that moves the app hears of once, in whatever order: a payment whose refund came first is not too old to be
    /// told of. That it was paid is told anew, under another name, only after all of it is gone again.
    #[must_use]
    pub fn makes_stale(self, told: Told, moves: Moves) -> bool {
        let older = match told.state {
            State::Pending => self.stage.has_moved() || self.stage.has_come_to_nothing(),
            State::Failed | State::Cancelled => self.stage.has_moved(),
            State::Paid => self.paid && matches!(self.stage, Stage::Refunded | Stage::ChargedBack),
            State::Refunded | State::ChargedBack => false,
        };
        older && self.stage.state().is_some_and(|after| !moves.know(after, told.state))
    }

    /// What is known when the app has been told this too. It was not stale: so it is where the payment stands, save what
    /// came in another order than it happened.
    #[must_use]
    pub fn and(self, told: Told) -> Self {
        let (before, next) = (self.stage, Stage::of(told));
        let stage = match next {
            // An end is one; a late one takes back what had moved.
            Stage::Failed | Stage::Cancelled | Stage::Expired | Stage::ChargedBack => next,
            // Told first now, and over already.
            Stage::Paid if !self.paid => before.max(next),
            // Another payment into the same, after a part was given back, takes nothing of that away.
            Stage::Paid if before == Stage::PartlyRefunded => before,
            Stage::Paid => next,
            Stage::Begun if before == Stage::Authorised => before,
            Stage::Nothing | Stage::Begun | Stage::Authorised if before.has_moved() => before,
            Stage::Nothing | Stage::Begun | Stage::Authorised => next,
            Stage::PartlyRefunded | Stage::Refunded => before.max(next),
        };
        Self { stage, paid: self.paid || next == Stage::Paid }
    }

    /// Whether nothing of it is left with the merchant: failed, given up, all given back, or taken back.
    #[must_use]
    pub const fn is_gone(self) -> bool {
        self.stage.has_come_to_nothing() || matches!(self.stage, Stage::Refunded | Stage::ChargedBack)
    }
}
