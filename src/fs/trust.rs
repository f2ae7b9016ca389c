//! Who else could change what the policy names? Nobody may, or the daemon does not start (P7).
//!
//! A directory or file is trusted when it and every ancestor belong to root or to this process's user, and
//! nobody else can write there. Ancestors with the sticky bit pass (`/tmp`), and so does write permission of
//! the daemon's own primary group, or a checkout under umask 002 could not start.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::give::Owner;
use super::{FsError, Kind, Stat, stat_path};
use crate::escape::quoted;

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
    #[error("{} is open to others (mode {mode:04o}); chmod 700 it", quoted(path))]
    Open {
        /// What.
        path: PathBuf,
        /// Its mode.
        mode: u32,
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

/// Checks a path that must be safe from others, with all its ancestors. It must exist.
///
/// # Errors
/// [`TrustError`], naming the component at fault.
pub fn check(path: &Path) -> Result<(), TrustError> {
    check_for(path, Owner::current())
}

/// As [`check`], for who acts on behalf of `me`: root, for the daemon's user.
///
/// # Errors
/// [`TrustError`].
pub fn check_for(path: &Path, me: Owner) -> Result<(), TrustError> {
    let stat = stat_path(path)?.ok_or_else(|| TrustError::Missing(path.to_owned()))?;
    if stat.kind == Kind::Symlink {
        return Err(TrustError::Symlink(path.to_owned()));
    }
    // Both the way as written and the place it really leads to: a symlink on the way may belong to root or
    // us only, and so may everything on either way.
    let real = std::fs::canonicalize(path)
        .map_err(|e| FsError::new("resolve", path, Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
    for component in path.ancestors().chain(real.ancestors()).filter(|p| !p.as_os_str().is_empty()) {
        let stat = stat_path(component)?.ok_or_else(|| TrustError::Missing(component.to_owned()))?;
        check_owner(component, &stat, me)?;
        if stat.kind != Kind::Symlink {
            check_mode(component, &stat, me, component != path && component != real)?;
        }
    }
    Ok(())
}

/// As [`check`], for a directory that must be closed to others altogether.
///
/// # Errors
/// [`TrustError`].
pub fn check_private(path: &Path) -> Result<(), TrustError> {
    check_private_for(path, Owner::current())
}

/// As [`check_private`], for who acts on behalf of `me`.
///
/// # Errors
/// [`TrustError`].
pub fn check_private_for(path: &Path, me: Owner) -> Result<(), TrustError> {
    check_for(path, me)?;
    match stat_path(path)? {
        Some(stat) if stat.mode & 0o077 == 0 => Ok(()),
        Some(stat) => Err(TrustError::Open { path: path.to_owned(), mode: stat.mode }),
        None => Err(TrustError::Missing(path.to_owned())),
    }
}

/// As [`check`], for what may be missing for now.
///
/// # Errors
/// [`TrustError`], but for `Missing`.
pub fn check_if_there(path: &Path) -> Result<(), TrustError> {
    match check(path) {
        Err(TrustError::Missing(_)) => Ok(()),
        checked => checked,
    }
}

/// Checks a watched directory: others may own and fill it, but not everybody may rename everybody's files.
pub(super) fn check_root(path: &Path, stat: &Stat) -> Result<(), TrustError> {
    if stat.mode & 0o1002 == 0o002 {
        return Err(TrustError::WorldWritable { path: path.to_owned(), mode: stat.mode });
    }
    Ok(())
}

/// Checks a directory above the watched directory `root`. Who owns that one may own this one too: whatever he puts in
/// its place, he could have put into it.
pub(super) fn check_above(path: &Path, stat: &Stat, root: &Stat, me: Owner) -> Result<(), TrustError> {
    if stat.uid != root.uid {
        check_owner(path, stat, me)?;
    }
    let writes_to_root = stat.gid == root.gid && root.mode & 0o020 != 0;
    let stat = &Stat { mode: if writes_to_root { stat.mode & !0o020 } else { stat.mode }, ..*stat };
    check_mode(path, stat, me, true)
}

pub(super) fn check_owner(path: &Path, stat: &Stat, me: Owner) -> Result<(), TrustError> {
    if stat.uid == 0 || stat.uid == me.uid {
        Ok(())
    } else {
        Err(TrustError::Owner { path: path.to_owned(), uid: stat.uid })
    }
}

pub(super) fn check_mode(path: &Path, stat: &Stat, me: Owner, is_ancestor: bool) -> Result<(), TrustError> {
    let sticky = is_ancestor && stat.mode & 0o1000 != 0;
    let others = stat.mode & 0o002 != 0;
    let group = stat.mode & 0o020 != 0 && stat.gid != 0 && stat.gid != me.gid;
    if (others || group) && !sticky {
        return Err(TrustError::Writable { path: path.to_owned(), mode: stat.mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn p7_what_others_can_write_is_not_trusted() {
        let temp = tempfile::tempdir().unwrap();
        let inner = temp.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        let chmod = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        chmod(&inner, 0o755);
        chmod(&temp.path().join("a"), 0o755);
        check(&inner).unwrap();
        chmod(&inner, 0o757);
        assert!(matches!(check(&inner), Err(TrustError::Writable { .. })));
        chmod(&inner, 0o1777);
        assert!(matches!(check(&inner), Err(TrustError::Writable { .. })), "sticky excuses ancestors only");
        chmod(&inner, 0o775);
        check(&inner).unwrap(); // our own primary group
        chmod(&temp.path().join("a"), 0o777);
        assert!(matches!(check(&inner), Err(TrustError::Writable { path, .. }) if path.ends_with("a")));
        chmod(&temp.path().join("a"), 0o1777);
        check(&inner).unwrap();
        assert!(matches!(check(&inner.join("none")), Err(TrustError::Missing(_))));
        symlink("b", temp.path().join("a/link")).unwrap();
        assert!(matches!(check(&temp.path().join("a/link")), Err(TrustError::Symlink(_))));
    }
}
