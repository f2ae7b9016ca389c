//! What was being done when a system call failed.

use std::fmt;

/// The operation, as in "cannot ACTION PATH". An operation that code branches on is a variant of
/// its own; the words of `Other` are only shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Anything else.
    Other(&'static str),
    /// Flushing a directory, after whose failure nobody knows what is on the disk.
    SyncDirectory,
    /// Changing what lies in a directory that is no longer where it was opened. Nothing was done.
    ChangeMoved,
    /// Using the private folder, where something has its name that is not the daemon's.
    UsePlanted,
    /// Moving a file out of a sticky directory that would refuse it.
    MoveOutOfSticky,
}

impl From<&'static str> for Action {
    fn from(words: &'static str) -> Self {
        Self::Other(words)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Other(words) => words,
            Self::SyncDirectory => "sync directory",
            Self::ChangeMoved => "change (it was moved away, or another directory has its place)",
            Self::UsePlanted => "use (it must be a directory of the daemon's own, mode 0700; remove it)",
            Self::MoveOutOfSticky => "move files of others out of (it is sticky, and not the daemon's own)",
        })
    }
}
