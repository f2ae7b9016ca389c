//! What was being done when a system call failed.

use std::fmt;

/// The operation, as in "cannot ACTION PATH WHY". An operation that code branches on is a variant
/// of its own; the words of `Other` are only shown.
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
    /// Taking a lock, where something has the name of its file that is not the daemon's alone.
    UseLock,
    /// Knowing a file again once it was moved, where that changes what statx(2) says of it.
    KnowMoved,
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

impl Action {
    /// What is to be known about it, after the path.
    pub(super) fn why(self) -> impl fmt::Display {
        fmt::from_fn(move |f| {
            match self {
            Self::Other(_) | Self::SyncDirectory => Ok(()),
            Self::ChangeMoved => f.write_str(", which was moved away, or whose place another directory has"),
            Self::UsePlanted => f.write_str(", as somebody else keeps putting something in its place"),
            Self::KeepPrivate(options) => write!(
                f,
                " (its file system does not keep modes and owners as they are set; mount it with {options})"
            ),
            Self::UseLock => {
                f.write_str(", which must be a file of the daemon's own, mode 0600 (remove it, if it is not)")
            }
            Self::KnowMoved => f.write_str(" (inode numbers change with names there)"),
            Self::MoveAcross => f.write_str(
                " (it is another subvolume, quota project or branch than the watched directory)",
            ),
            Self::Publish => f.write_str(
                " (its file system has neither hard links nor a rename that never replaces, RENAME_NOREPLACE)",
            ),
            Self::MoveOutOfSticky => f.write_str(" (it is sticky, and not the daemon's own)"),
        }
        })
    }
}

/// The words before the path.
impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Other(words) => words,
            Self::SyncDirectory => "sync directory",
            Self::ChangeMoved => "change",
            Self::UsePlanted => "use",
            Self::KeepPrivate(_) => "keep others out of a directory in",
            Self::UseLock => "use the lock",
            Self::KnowMoved => "know a file again that was moved in",
            Self::MoveAcross => "move files out of",
            Self::Publish => "publish",
            Self::MoveOutOfSticky => "move files of others out of",
        })
    }
}
