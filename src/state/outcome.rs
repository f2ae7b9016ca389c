//! The outcome of a file, and how an item left quarantine: codes for state, record and log.

use std::fmt;

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A `.sig` of ours is being written; its digest is known.
    Signing,
    /// Its `.sig` is in place and ours.
    Signed,
    /// Somebody's `.sig` was there and valid under the rule's key and context.
    Adopted,
    /// Judged valid where it lies.
    Valid,
    /// Delivered.
    Delivered,
    /// Judged invalid and left.
    Invalid,
    /// Moved to quarantine.
    Quarantined,
    /// Not handled as it is.
    Refused,
}

impl Outcome {
    /// All of them.
    pub(crate) const ALL: [Self; 8] = [
        Self::Signing,
        Self::Signed,
        Self::Adopted,
        Self::Valid,
        Self::Delivered,
        Self::Invalid,
        Self::Quarantined,
        Self::Refused,
    ];

    /// The word used in state, records and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signing => "signing",
            Self::Signed => "signed",
            Self::Adopted => "adopted",
            Self::Valid => "valid",
            Self::Delivered => "delivered",
            Self::Invalid => "invalid",
            Self::Quarantined => "quarantined",
            Self::Refused => "refused",
        }
    }

    /// The codes of final outcomes.
    pub(crate) fn ended() -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().filter(|outcome| *outcome != Self::Signing).map(Self::as_str)
    }

    /// The words of all outcomes on record, those of items that left quarantine included.
    pub(crate) fn words() -> impl Iterator<Item = &'static str> {
        let exits = [ExitKind::Released, ExitKind::Purged].map(ExitKind::as_str);
        Self::ALL.into_iter().map(Self::as_str).chain(exits)
    }

    /// Whether the `.sig` beside the payload is ours, or counts as ours.
    pub(crate) const fn is_signed_in_place(self) -> bool {
        matches!(self, Self::Signing | Self::Signed | Self::Adopted)
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == word)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How an item left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitKind {
    /// Released to a destination.
    Released,
    /// For good.
    Purged,
}

impl ExitKind {
    /// The word used as outcome in history.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Purged => "purged",
        }
    }
}
