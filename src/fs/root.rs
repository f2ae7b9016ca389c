//! Opening a watched directory, whose way may lead through directories of others.
//!
//! What the daemon owns lies behind directories that nobody else can change ([`super::trust`]). A
//! watched directory often belongs to its sender, and so may directories above it:
//! `/home/build/out`. Whoever owns one of those can swap what is below it for a symlink to a place
//! that the daemon may read and he may not, at any moment between a check and an open. So the way
//! is walked by descriptors, and what is checked is what is opened.
//!
//! It never makes a directory where somebody else could take its place.

use std::path::Path;

use super::Dir;
use super::trust::TrustError;
use crate::fs::chown::Owner;
use crate::fs::path_walk::{LastLink, Missing, TrustPolicy, walk};

/// Opens the directory that a rule watches.
///
/// Its owner may be anyone. Every directory above it belongs to root, to this process's user or to
/// that owner, and nobody else can write there, but for sticky directories and a group that may
/// write to the watched directory as well. Symlinks above it are followed where only root or this
/// process's user could have put them.
///
/// # Errors
/// [`TrustError`], naming the component at fault.
pub fn open(path: &Path) -> Result<Dir, TrustError> {
    open_for(path, Owner::current())
}

/// As [`open`], for a daemon of another user than this process's.
///
/// # Errors
/// As there.
pub(crate) fn open_for(path: &Path, me: Owner) -> Result<Dir, TrustError> {
    walk(path, me, TrustPolicy::Watched, Missing::Refuse, LastLink::Refuse)?.open(path)
}

/// As [`open`], making what is missing of the way (mode 0755, synced).
///
/// # Errors
/// As there; also when a directory would have to be made where others can write.
pub(crate) fn create(path: &Path) -> Result<Dir, TrustError> {
    walk(path, Owner::current(), TrustPolicy::Watched, Missing::Make(0o755), LastLink::Refuse)?.open(path)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use std::path::PathBuf;

    use rustix::io::Errno;

    use super::*;

    /// A directory of ours with `home/out` in it, and the path of `home`.
    fn home() -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let home = temp.path().join("home");
        fs::create_dir_all(home.join("out")).unwrap();
        chmod(temp.path(), 0o755);
        chmod(&home, 0o755);
        chmod(&home.join("out"), 0o755);
        (temp, home)
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn same(dir: &Dir, path: &Path) -> bool {
        let (a, b) = (dir.stat().unwrap(), super::super::stat_path(path).unwrap().unwrap());
        (a.identity.dev, a.identity.ino) == (b.identity.dev, b.identity.ino)
    }

    #[test]
    fn a26_what_stands_above_a_root_is_checked() {
        let (_temp, home) = home();
        let out = home.join("out");
        assert!(same(&open(&out).unwrap(), &out));
        chmod(&home, 0o777);
        assert!(matches!(open(&out), Err(TrustError::Writable { path, .. }) if path == home));
        chmod(&home, 0o1777);
        open(&out).unwrap();
        chmod(&out, 0o777);
        assert!(matches!(open(&out), Err(TrustError::WorldWritable { path, .. }) if path == out));
    }

    #[test]
    fn a26_a_link_is_followed_above_a_root_and_not_at_its_place() {
        let (temp, home) = home();
        symlink("home", temp.path().join("relative")).unwrap();
        symlink(&home, temp.path().join("absolute")).unwrap();
        symlink("../home/../relative", home.join("winding")).unwrap();
        for way in ["relative/out", "absolute/out", "home/winding/./out", "home/out/../out"] {
            assert!(same(&open(&temp.path().join(way)).unwrap(), &home.join("out")), "{way}");
        }
        symlink("out", home.join("link")).unwrap();
        assert!(
            matches!(open(&home.join("link")), Err(TrustError::Symlink(path)) if path == home.join("link"))
        );
        symlink("loop", temp.path().join("loop")).unwrap();
        assert!(
            matches!(open(&temp.path().join("loop/out")), Err(TrustError::Io(e)) if e.source == Errno::LOOP)
        );
        // In a directory where others could swap the link, it is not followed even if it is ours.
        chmod(&home, 0o777);
        assert!(
            matches!(open(&home.join("winding/out")), Err(TrustError::Writable { path, .. }) if path == home)
        );
    }

    #[test]
    fn what_is_missing_is_made_where_nobody_else_could_have() {
        let (_temp, home) = home();
        let deep = home.join("new/deep");
        assert!(same(&create(&deep).unwrap(), &deep));
        chmod(&home, 0o777);
        assert!(matches!(create(&home.join("other")), Err(TrustError::Writable { .. })));
        assert!(!home.join("other").exists());
    }

    #[test]
    fn what_is_not_there_and_what_is_no_directory_are_told_apart() {
        let (_temp, home) = home();
        fs::File::create(home.join("file")).unwrap();
        assert!(
            matches!(open(&home.join("none/x")), Err(TrustError::Missing(path)) if path.ends_with("none/x"))
        );
        assert!(matches!(open(&home.join("file")), Err(TrustError::Io(e)) if e.source == Errno::NOTDIR));
    }
}
