//! Whose a directory or file may be, and who else may write to it.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::escape::quoted;
use crate::fs::chown::Owner;
use crate::fs::{FsError, Stat};

/// Why a path is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It cannot be looked at.
    #[error(transparent)]
    Io(#[from] FsError),
    /// It is not there.
    #[error("{} does not exist; make it", quoted(.0))]
    Missing(PathBuf),
    /// A symlink stands where the thing itself must stand.
    #[error("{} is a symbolic link; name the place it leads to", quoted(.0))]
    Symlink(PathBuf),
    /// A symlink on the way that is somebody else's.
    #[error(
        "{} is a symbolic link of user {uid}, who could have it lead anywhere; name the place it leads to",
        quoted(path)
    )]
    Link {
        /// The link.
        path: PathBuf,
        /// Whose.
        uid: u32,
    },
    /// Someone else owns it.
    #[error(
        "{} belongs to user {uid}, who could replace what is in it; chown it to root or to the daemon's user",
        quoted(path)
    )]
    Owner {
        /// What.
        path: PathBuf,
        /// Whose.
        uid: u32,
    },
    /// Someone else may write to it.
    #[error("{} can be written by others (mode {mode:04o}); chmod go-w it", quoted(path))]
    Writable {
        /// What.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Others may look into what must be the daemon's alone.
    #[error("{} is open to others (mode {mode:04o}); chmod 700 it{}", quoted(path), or_mount(*options))]
    Open {
        /// What.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// Options for its mount, in case its file system does not keep modes as they are set.
        options: Option<&'static str>,
    },
    /// A watched directory where everybody may rename everybody's files.
    #[error(
        "{} can be written by everybody and is not sticky (mode {mode:04o}); chmod o-w or +t it",
        quoted(path)
    )]
    WorldWritable {
        /// What.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// What helps where chmod(2) does not.
pub(crate) fn or_mount(options: Option<&'static str>) -> impl fmt::Display {
    fmt::from_fn(move |f| match options {
        Some(options) => write!(f, ", or if that changes nothing, mount its file system with {options}"),
        None => Ok(()),
    })
}

/// Checks a watched directory: others may own and fill it, but not everybody may rename everybody's
/// files.
pub(in crate::fs) fn check_root(path: &Path, stat: &Stat) -> Result<(), TrustError> {
    if stat.mode & 0o1002 == 0o002 {
        return Err(TrustError::WorldWritable { path: path.to_owned(), mode: stat.mode });
    }
    Ok(())
}

/// Checks a directory above the watched directory `root`. Who owns that one may own this one too:
/// whatever he puts in its place, he could have put into it.
pub(in crate::fs) fn check_above(path: &Path, stat: &Stat, root: &Stat, me: Owner) -> Result<(), TrustError> {
    if stat.uid != root.uid {
        check_owner(path, stat, me)?;
    }
    let writes_to_root = stat.gid == root.gid && root.mode & 0o020 != 0;
    let stat = &Stat { mode: if writes_to_root { stat.mode & !0o020 } else { stat.mode }, ..*stat };
    check_mode(path, stat, me, true)
}

/// Whether something belongs to root or to `me`.
///
/// # Errors
/// `Owner`.
pub(crate) fn check_owner(path: &Path, stat: &Stat, me: Owner) -> Result<(), TrustError> {
    if stat.uid == 0 || stat.uid == me.uid {
        Ok(())
    } else {
        Err(TrustError::Owner { path: path.to_owned(), uid: stat.uid })
    }
}

/// Whether nobody but root, `me` and their groups may write to something, or, in a sticky ancestor,
/// to what others made.
///
/// # Errors
/// `Writable`.
pub(crate) fn check_mode(path: &Path, stat: &Stat, me: Owner, is_ancestor: bool) -> Result<(), TrustError> {
    let sticky = is_ancestor && stat.mode & 0o1000 != 0;
    let others = stat.mode & 0o002 != 0;
    let group = stat.mode & 0o020 != 0 && stat.gid != 0 && stat.gid != me.gid;
    if (others || group) && !sticky {
        return Err(TrustError::Writable { path: path.to_owned(), mode: stat.mode });
    }
    Ok(())
}
