//! The possible outcomes of a file, by their codes in state, logs and metrics.

use crate::hold::Hold;
use crate::signing::Reason;
use crate::state::Outcome;
use crate::state::reason::{DecisionReason, RefusalReason};

/// A possible outcome of a file, or the hold that prevents one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Nothing comes of it.
    Nothing,
    /// It is not yet time: it settles, or waits for its other half, for a writer or for grace.
    Waiting,
    /// It is decided.
    Settled(Outcome, Option<DecisionReason>),
    /// It is held, for a cause of [`Hold::as_str`].
    Held(&'static str),
}

impl Ending {
    pub(super) const fn plain(outcome: Outcome) -> Self {
        Self::Settled(outcome, None)
    }

    pub(super) const fn judged(outcome: Outcome, reason: Reason) -> Self {
        Self::Settled(outcome, Some(DecisionReason::Verdict(reason)))
    }

    pub(super) fn refused(reason: &RefusalReason) -> Self {
        Self::Settled(Outcome::Refused, Some(DecisionReason::Refusal(reason.clone())))
    }

    pub(super) fn held(hold: &Hold) -> Self {
        Self::Held(hold.as_str())
    }

    /// The word of the outcome.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Waiting => "waiting",
            Self::Settled(outcome, _) => outcome.as_str(),
            Self::Held(_) => "held",
        }
    }

    /// The code of the reason, where the outcome has one.
    pub(crate) fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Nothing | Self::Waiting => None,
            Self::Settled(_, reason) => reason.as_ref().map(DecisionReason::as_str),
            Self::Held(cause) => Some(cause),
        }
    }
}

/// Each of them once, in the order in which they came.
pub(super) fn once_each(all: impl IntoIterator<Item = Ending>) -> Vec<Ending> {
    let mut once = Vec::new();
    for ending in all {
        if !once.contains(&ending) {
            once.push(ending);
        }
    }
    once
}
