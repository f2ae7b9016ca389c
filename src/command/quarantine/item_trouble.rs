//! Why nothing came of one item.

use std::path::PathBuf;

use crate::chain;
use crate::command::{complain, hint};
use crate::context::ContextError;
use crate::escape::{Escaped, quoted};
use crate::exit::Exit;
use crate::fs::trust::TrustError;
use crate::fs::{FsError, OpenError};
use crate::kms::Trouble;
use crate::signing::Reason;
use crate::sink::directory::quarantine::{Changed, ItemError, Occupied, PackError, ReadError};
use crate::state::StateError;

/// Of content that the rule accepted before, and another one after it.
pub(super) const SUPERSEDED: &str = "this content was superseded earlier under the same name";

/// Why nothing came of one item. The others are worked on all the same.
#[derive(Debug, thiserror::Error)]
pub(super) enum ItemTrouble {
    #[error(transparent)]
    Item(#[from] ItemError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("not released")]
    Write(#[source] FsError),
    #[error("cannot verify it: the policy has no rule \"{}\" any more", Escaped::text(.0))]
    NoRule(String),
    #[error("cannot verify it")]
    Context(#[from] ContextError),
    #[error("cannot verify it")]
    Kms(#[source] Trouble),
    #[error("not released: {}", explain(*.0))]
    Invalid(Reason),
    #[error("not released: {SUPERSEDED}, and rollback of the rule \"{}\" is \"deny\"", Escaped::text(.0))]
    Superseded(String),
    #[error("not released: the policy has no rule \"{}\" any more, so that it has no destination", Escaped::text(.0))]
    NoDestination(String),
    #[error("not released: its signature is longer than any, and was never read")]
    Overlong { forced: bool },
    #[error("it changed while it was read")]
    ReadWhileChanged,
    #[error("not released: {0}")]
    Changed(Changed),
    #[error("not released to {}: {what}", quoted(at))]
    Refused { at: PathBuf, what: Occupied },
    #[error("not released: only {free} bytes are free in {}, and min_free_space is to stay", quoted(path))]
    NoSpace { path: PathBuf, free: u64 },
    #[error(
        "not released: it came from {}, which the rule \"{rule}\" does not watch; name --to DIR",
        quoted(root)
    )]
    Moved { root: PathBuf, rule: String },
    #[error("not released")]
    Trust(#[from] TrustError),
    #[error("not put on record, so it stays")]
    State(#[from] StateError),
    #[error("released to {}, but not put on record", quoted(at))]
    Unrecorded { at: PathBuf, source: StateError },
    #[error("released to {}, and on record, but still in quarantine", quoted(at))]
    Kept { at: PathBuf, source: Box<Self> },
    #[error(transparent)]
    Fs(#[from] FsError),
}

impl From<PackError> for ItemTrouble {
    fn from(error: PackError) -> Self {
        match error {
            PackError::Read(error) => Self::Read(error),
            PackError::Write(error) => Self::Write(error),
        }
    }
}

/// For what its sender, who may still have it open, has changed.
pub(super) const CHANGED: &str =
    "what was judged is gone: kms-sig quarantine show ID says what is there now, purge ID removes it";

impl ItemTrouble {
    /// Where the files are, if they were released all the same.
    pub(super) const fn released(&self) -> Option<&PathBuf> {
        if let Self::Unrecorded { at, .. } | Self::Kept { at, .. } = self { Some(at) } else { None }
    }

    /// Invalid is a fact; anything else may change by the next attempt.
    pub(super) const fn exit(&self) -> Exit {
        match self {
            Self::Invalid(_) | Self::Overlong { forced: false } => Exit::Invalid,
            Self::Item(_)
            | Self::Read(_)
            | Self::Write(_)
            | Self::NoRule(_)
            | Self::Context(_)
            | Self::Kms(_)
            | Self::Superseded(_)
            | Self::NoDestination(_)
            | Self::Overlong { forced: true }
            | Self::Changed(_)
            | Self::ReadWhileChanged
            | Self::Unrecorded { .. }
            | Self::Kept { .. }
            | Self::Refused { .. }
            | Self::NoSpace { .. }
            | Self::Moved { .. }
            | Self::Trust(_)
            | Self::State(_)
            | Self::Fs(_) => Exit::Unfinished,
        }
    }

    /// What a person can do about it, where that is not plain from the message.
    pub(super) fn hint(&self) -> Option<&str> {
        match self {
            Self::Item(ItemError::Gone) => Some("kms-sig quarantine list shows what is there"),
            Self::Item(ItemError::Unfinished) => {
                Some("try again; what a killed daemon left so is tidied when it starts")
            }
            Self::Item(ItemError::Odd(_)) => {
                Some("look into its folder in the quarantine directory; nothing was done to it")
            }
            Self::Item(ItemError::Fs(error))
            | Self::Fs(error)
            | Self::Read(ReadError::Open(OpenError::Io(error)))
            | Self::Write(error) => Some(hint::directory(error)),
            Self::Read(ReadError::Resized { .. }) | Self::Changed(_) => Some(CHANGED),
            Self::ReadWhileChanged => Some("run it again when nobody writes to it any more"),
            Self::NoDestination(_) => Some("name one with --to DIR"),
            Self::Overlong { .. } => Some(
                "if its payload is needed, copy it by hand (kms-sig quarantine show ID names its folder)",
            ),
            Self::Unrecorded { source: StateError::Busy(_), .. } => Some(
                "the item stays: end the process that keeps state.db locked, then repeat the command to record it",
            ),
            Self::Unrecorded { .. } => {
                Some("the item stays: see to [state] dir, then repeat the command to record it")
            }
            Self::Kept { .. } => Some("repeat the command, which removes it"),
            Self::NoRule(_) => Some("name the rule so again, or release it with --force --to DIR"),
            Self::Kms(trouble) => Some(trouble.hint()),
            Self::Invalid(_) => Some(
                "kms-sig quarantine show ID says what it is; release --force --to DIR puts it elsewhere, unverified",
            ),
            Self::Refused { .. } => Some("look at what is there, or name another directory with --to DIR"),
            Self::Superseded(_) => Some(
                "if going back is meant, name another directory with --to DIR, or add --force, which verifies nothing",
            ),
            Self::NoSpace { .. } => Some("make room there, or name another directory with --to DIR"),
            Self::Trust(error) => hint::trust(error),
            Self::State(error) => hint::state(error),
            Self::Context(error) => hint::context(error),
            Self::Read(ReadError::Open(OpenError::Gone | OpenError::Unfit(_))) => {
                Some("its sender still had it open: look into its folder (quarantine show ID), or purge it")
            }
            // They say so.
            Self::Item(ItemError::Busy) | Self::Moved { .. } => None,
        }
    }

    /// Says it on standard error, and hands back its exit code.
    pub(super) fn tell(&self, id: &str) -> Exit {
        complain(&format!("kms-sig: {}: {}", Escaped::text(id), chain::one_line(self)));
        if let Some(hint) = self.hint() {
            complain(&format!("hint: {hint}"));
        }
        self.exit()
    }
}

/// A reason, for someone who wanted to release it.
pub(super) const fn explain(reason: Reason) -> &'static str {
    match reason {
        Reason::Mismatch => "it is still invalid (mismatch)",
        Reason::Rejected => "it is still invalid (rejected)",
        Reason::WrongKey => "it is still invalid (wrong-key)",
        Reason::Malformed => "it is still invalid (malformed)",
        Reason::Missing => "it is still invalid (missing)",
    }
}
