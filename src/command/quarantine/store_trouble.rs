//! Why a command cannot work on the store, or on what it was asked to.

use std::path::PathBuf;

use crate::command::hint;
use crate::escape::{Escaped, quoted};
use crate::exit::Exit;
use crate::fs::trust::TrustError;

/// Why a command cannot work on the store, or on what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreTrouble {
    /// The policy quarantines nothing.
    #[error("the policy has no [quarantine]")]
    NoStore,
    /// Only its owner and root have business there.
    #[error("the quarantine {} belongs to user {uid}", quoted(dir))]
    Foreign {
        /// The store.
        dir: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// Others could have changed what is relied on.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Others could change what is put where `--to` says. Not said to be mended there: it may be
    /// `/tmp`.
    #[error("{}", untrusted(.0))]
    To(TrustError),
    /// An id of nothing.
    #[error("nothing in quarantine has an id that begins with \"{}\"", Escaped::text(.0))]
    NoItem(String),
    /// An id too short.
    #[error("\"{}\" stands for {count} items", Escaped::text(text))]
    Ambiguous {
        /// What was written.
        text: String,
        /// How many ids begin so.
        count: usize,
    },
    /// Many items, and nobody has said yes.
    #[error("{count} {} would be purged for good", if *.count == 1 { "item" } else { "items" })]
    Unconfirmed {
        /// How many.
        count: usize,
    },
    /// Files that are released must leave the store.
    #[error("{} lies in the quarantine", quoted(.0))]
    Inside(PathBuf),
}

impl StoreTrouble {
    /// The exit code it ends the process with: in each case the command line or what it names must
    /// be changed.
    pub(crate) const fn exit(&self) -> Exit {
        match self {
            Self::Trust(TrustError::Io(_)) | Self::To(TrustError::Io(_)) => Exit::Unfinished,
            Self::NoStore
            | Self::Foreign { .. }
            | Self::Trust(_)
            | Self::To(_)
            | Self::NoItem(_)
            | Self::Ambiguous { .. }
            | Self::Unconfirmed { .. }
            | Self::Inside(_) => Exit::Usage,
        }
    }

    /// What a person can do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoStore => "name the policy of the daemon whose quarantine is meant",
            Self::Foreign { .. } => "run this as that user, or as root",
            Self::NoItem(_) => "kms-sig quarantine list shows the ids",
            Self::Ambiguous { .. } => "write more of the id",
            Self::Unconfirmed { .. } => "look with kms-sig quarantine list, then add --yes",
            Self::Inside(_) => "name another directory",
            Self::To(TrustError::Missing(_)) => "make it, or name another directory",
            Self::To(TrustError::Owner { .. } | TrustError::Writable { .. } | TrustError::Link { .. }) => {
                "name a directory that only root or the daemon's user can write to"
            }
            Self::Trust(error) | Self::To(error) => return hint::trust(error).map(str::to_owned),
        };
        Some(hint.to_owned())
    }
}

/// What is wrong with the directory of `--to`, without advice for directories of the daemon's.
fn untrusted(error: &TrustError) -> String {
    match error {
        TrustError::Missing(path) => format!("{} does not exist", quoted(path)),
        TrustError::Owner { path, uid } => {
            format!("{} belongs to user {uid}, who could replace what is in it", quoted(path))
        }
        TrustError::Writable { path, mode } => {
            format!("{} can be written by others (mode {mode:04o})", quoted(path))
        }
        TrustError::Link { path, uid } => {
            format!("{} is a symbolic link of user {uid}, who could have it lead anywhere", quoted(path))
        }
        TrustError::Io(_)
        | TrustError::Symlink(_)
        | TrustError::Open { .. }
        | TrustError::WorldWritable { .. } => error.to_string(),
    }
}
