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
    /// Making a directory that nobody else can enter, on a file system that keeps no modes, or no
    /// owners: with the options that give it some.
    KeepPrivate(&'static str),
    /// Moving a file out of a directory from which none can be moved into the private folder.
    MoveAcross,
    /// Giving a file its name where the file system has no way to do so that replaces nothing.
    Publish,
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
            Self::KeepPrivate(options) => {
                return write!(
                    f,
                    "keep others out of a directory in (its file system does not keep modes and owners as they are \
                     set; mount it with {options})"
                );
            }
            Self::Other(words) => words,
            Self::SyncDirectory => "sync directory",
            Self::ChangeMoved => "change (it was moved away, or another directory has its place)",
            Self::UsePlanted => "use (somebody else keeps putting something in its place)",
            Self::MoveAcross => {
                "move files out of (it is another subvolume, quota project or branch than the watched directory)"
            }
            Self::Publish => {
                "publish (its file system has neither hard links nor a rename that never replaces, RENAME_NOREPLACE)"
            }
            Self::MoveOutOfSticky => "move files of others out of (it is sticky, and not the daemon's own)",
        })
    }
}
