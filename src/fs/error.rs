//! A system call that failed, with what it was for and on what.

use std::path::PathBuf;

use rustix::io::Errno;

use super::Action;
use crate::escape::quoted;

/// A system call that failed, with what it was for and on what.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot {action} {}{}", quoted(path), action.why())]
pub struct FsError {
    /// What was being done.
    pub(crate) action: Action,
    /// What it was done to.
    pub(crate) path: PathBuf,
    /// What the kernel said.
    pub(crate) source: Errno,
}

impl FsError {
    pub(super) fn new(action: impl Into<Action>, path: impl Into<PathBuf>, source: Errno) -> Self {
        Self { action: action.into(), path: path.into(), source }
    }

    /// Whether the thing is simply not there.
    pub(crate) fn is_not_found(&self) -> bool {
        self.source == Errno::NOENT
    }

    /// Whether something else stands where a directory was to be opened: a file, or a symlink,
    /// which is not followed.
    pub(crate) fn is_no_directory(&self) -> bool {
        matches!(self.source, Errno::NOTDIR | Errno::LOOP)
    }

    /// Whether it stays so until a person changes something: what has a name or a right that is
    /// needed, or what a mount is.
    pub(crate) const fn is_lasting(&self) -> bool {
        matches!(self.action, Action::KeepPrivate(_) | Action::UseLock)
            || matches!(
                self.source,
                Errno::NOTDIR | Errno::LOOP | Errno::EXIST | Errno::ROFS | Errno::ACCESS | Errno::PERM
            )
    }

    /// Whether the disk or a quota is full.
    pub(crate) fn is_no_space(&self) -> bool {
        matches!(self.source, Errno::NOSPC | Errno::DQUOT)
    }
}

/// The result of this module's functions.
pub(super) type Result<T> = std::result::Result<T, FsError>;
