//! Who else could change what the policy names? Nobody may, or the daemon does not start (P7).
//!
//! A directory or file is trusted when it and every ancestor belong to root or to this process's
//! user, and nobody else can write there. Ancestors with the sticky bit pass (`/tmp`), and so does
//! write permission of the daemon's own primary group, or a checkout under umask 002 could not
//! start. Symlinks may be on the way, but not at its end: each of them, and each directory that one
//! leads through, is looked at as any other.

mod ownership;

use std::path::Path;

use rustix::io::Errno;

pub use ownership::TrustError;
pub(super) use ownership::{check_above, check_root};
pub(crate) use ownership::{check_mode, check_owner, or_mount};

use super::{Action, Dir, FsError, Kind};
use crate::fs::chown::Owner;
use crate::fs::path_walk::{LastLink, Missing, TrustPolicy, WalkedPath, walk};

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
pub(crate) fn check_for(path: &Path, me: Owner) -> Result<(), TrustError> {
    reach(path, me, Missing::Refuse).map(drop)
}

/// Opens a directory that must be safe from others, with all its ancestors.
///
/// # Errors
/// [`TrustError`], naming the component at fault.
pub(crate) fn open(path: &Path) -> Result<Dir, TrustError> {
    open_for(path, Owner::current())
}

/// As [`open`], for who acts on behalf of `me`.
///
/// # Errors
/// As there.
pub(crate) fn open_for(path: &Path, me: Owner) -> Result<Dir, TrustError> {
    reach(path, me, Missing::Refuse)?.open(path)
}

/// As [`open`], making what is missing: the directory with this mode, its ancestors with 0755, all
/// synced.
///
/// # Errors
/// As there.
pub(crate) fn create(path: &Path, mode: u32) -> Result<Dir, TrustError> {
    reach(path, Owner::current(), Missing::Make(mode))?.open(path)
}

/// As [`open`], for a directory that must be closed to others altogether.
///
/// # Errors
/// [`TrustError`].
pub(crate) fn open_private(path: &Path) -> Result<Dir, TrustError> {
    open_private_for(path, Owner::current())
}

/// As [`open_private`], for who acts on behalf of `me`.
///
/// # Errors
/// [`TrustError`].
pub(crate) fn open_private_for(path: &Path, me: Owner) -> Result<Dir, TrustError> {
    let walked = reach(path, me, Missing::Refuse)?;
    check_closed(path, &walked)?;
    walked.open(path)
}

/// As [`open_private`], making what is missing.
///
/// # Errors
/// [`TrustError`].
pub(crate) fn create_private(path: &Path) -> Result<Dir, TrustError> {
    let walked = reach(path, Owner::current(), Missing::Make(0o700))?;
    check_closed(path, &walked).map_err(|error| told_apart(error, path))?;
    walked.open(path)
}

/// Why a directory is open to others, where that can be found out by making another in it: no
/// chmod(2) helps where the file system does not keep modes.
pub(crate) fn told_apart(error: TrustError, path: &Path) -> TrustError {
    if !matches!(error, TrustError::Open { options: Some(_), .. }) {
        return error;
    }
    match Dir::open(path).and_then(|dir| dir.try_modes()) {
        Err(no_modes) if matches!(no_modes.action, Action::KeepPrivate(_)) => no_modes.into(),
        Ok(()) | Err(_) => error,
    }
}

/// As [`check_for`]; a symlink at the end of the path is followed, as those on the way are.
///
/// # Errors
/// [`TrustError`].
pub(crate) fn check_where_it_leads(path: &Path, me: Owner) -> Result<(), TrustError> {
    walk(path, me, TrustPolicy::Ours, Missing::Refuse, LastLink::Follow).map(drop)
}

fn reach(path: &Path, me: Owner, missing: Missing) -> Result<WalkedPath, TrustError> {
    walk(path, me, TrustPolicy::Ours, missing, LastLink::Refuse)
}

fn check_closed(path: &Path, walked: &WalkedPath) -> Result<(), TrustError> {
    if walked.stat().kind != Kind::Directory {
        return Err(FsError::new("open directory", path, Errno::NOTDIR).into()); // no chmod makes it one
    }
    match walked.stat().mode {
        mode if mode & 0o077 == 0 => Ok(()),
        mode => {
            let options = walked.file_system().and_then(|kind| kind.options_if_no_modes());
            Err(TrustError::Open { path: path.to_owned(), mode, options })
        }
    }
}

/// As [`check`], for what may be missing for now.
///
/// # Errors
/// [`TrustError`], but for `Missing`.
pub(crate) fn check_if_there(path: &Path) -> Result<(), TrustError> {
    match check(path) {
        Err(TrustError::Missing(_)) => Ok(()),
        checked => checked,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::super::{Stat, stat_path};
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

    /// A directory of that owner, group and mode.
    fn stat(uid: u32, gid: u32, mode: u32) -> Stat {
        Stat { uid, gid, mode, ..stat_path(Path::new("/")).unwrap().unwrap() }
    }

    const ME: Owner = Owner { uid: 7001, gid: 7001 };

    #[test]
    fn p7_who_could_change_it_is_told_by_owner_group_and_mode() {
        for (uid, is_trusted) in [(0, true), (7001, true), (7002, false)] {
            assert_eq!(check_owner(Path::new("d"), &stat(uid, 0, 0o755), ME).is_ok(), is_trusted, "{uid}");
        }
        for (gid, mode, is_trusted, is_trusted_above) in [
            (7003, 0o755, true, true),
            (7003, 0o775, false, false), // others' group
            (7003, 0o1775, false, true), // sticky
            (0, 0o775, true, true),      // root's group
            (7001, 0o775, true, true),   // ours
            (7001, 0o757, false, false), // everybody
            (7001, 0o1777, false, true),
        ] {
            let stat = stat(0, gid, mode);
            let checked = [false, true].map(|above| check_mode(Path::new("d"), &stat, ME, above).is_ok());
            assert_eq!(checked, [is_trusted, is_trusted_above], "{gid} {mode:o}");
        }
    }

    #[test]
    fn a26_above_a_root_its_owner_and_the_group_that_may_write_there_are_trusted() {
        let refused = |above: Stat, root: Stat| match check_above(Path::new("d"), &above, &root, ME) {
            Ok(()) => None,
            Err(TrustError::Owner { .. }) => Some("owner"),
            Err(TrustError::Writable { .. }) => Some("mode"),
            Err(other) => panic!("{other}"),
        };
        let shared = stat(7002, 7003, 0o2770);
        for (above, root, why) in [
            (stat(7002, 7003, 0o755), shared, None),
            (stat(7001, 7003, 0o755), shared, None),
            (stat(0, 7003, 0o755), shared, None),
            (stat(7004, 7003, 0o755), shared, Some("owner")),
            (stat(7002, 7003, 0o2775), shared, None),
            (stat(7002, 7003, 0o2775), stat(7002, 7003, 0o755), Some("mode")), // the group may not write to the root
            (stat(7002, 7004, 0o775), shared, Some("mode")),                   // another group
            (stat(7002, 7003, 0o777), shared, Some("mode")),                   // everybody
            (stat(0, 7004, 0o1777), shared, None),                             // sticky
        ] {
            let told = (above.uid, above.gid, above.mode, root.mode);
            assert_eq!(refused(above, root), why, "{told:?}");
        }
    }

    #[test]
    fn p7_what_must_be_ours_alone_is_closed_to_group_and_others() {
        let temp = tempfile::tempdir().unwrap();
        let place = temp.path().join("place");
        assert!(matches!(open_private(&place), Err(TrustError::Missing(_))));
        check_if_there(&place).unwrap();
        fs::create_dir(&place).unwrap();
        for (mode, is_closed) in [(0o700, true), (0o1700, true), (0o701, false), (0o740, false)] {
            fs::set_permissions(&place, Permissions::from_mode(mode)).unwrap();
            let checked = [open_private(&place).map(drop), create_private(&place).map(drop)];
            for checked in checked {
                assert_eq!(checked.is_ok(), is_closed, "{mode:o}");
                assert!(matches!(checked, Ok(()) | Err(TrustError::Open { .. })), "{mode:o}");
            }
            check_if_there(&place).unwrap();
        }
        fs::set_permissions(&place, Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(check_if_there(&place), Err(TrustError::Writable { .. })));
        fs::write(temp.path().join("file"), "").unwrap();
        let checked = open_private(&temp.path().join("file"));
        assert!(matches!(checked, Err(TrustError::Io(e)) if e.is_no_directory()), "no mode helps a file");
    }

    #[test]
    fn p7_every_directory_that_a_link_leads_through_is_looked_at() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        for dir in ["theirs", "real/out"] {
            fs::create_dir_all(at(dir)).unwrap();
        }
        // The path as written, and the place it leads to, are ours; what is between is anybody's to
        // change.
        symlink("../real", at("theirs/b")).unwrap();
        symlink("theirs/b", at("a")).unwrap();
        fs::write(at("real/out/file"), "").unwrap();
        for mode in [0o755, 0o777] {
            fs::set_permissions(at("theirs"), Permissions::from_mode(mode)).unwrap();
            for path in ["a/out", "a/out/file"] {
                match check(&at(path)) {
                    Ok(()) => assert_eq!(mode, 0o755, "{path}"),
                    Err(TrustError::Writable { path, .. }) => {
                        assert!(mode == 0o777 && path == at("theirs"), "{}", path.display());
                    }
                    Err(other) => panic!("{path}: {other}"),
                }
            }
        }
        // Made nowhere that others could have.
        assert!(matches!(create(&at("a/new"), 0o700), Err(TrustError::Writable { .. })));
        assert!(matches!(create(&at("theirs/new"), 0o700), Err(TrustError::Writable { .. })));
        assert!(!at("real/new").exists() && !at("theirs/new").exists());
        let made = create(&at("real/new/deep"), 0o700).unwrap();
        assert_eq!(made.stat().unwrap().mode & 0o777, 0o700);
        assert_eq!(fs::metadata(at("real/new")).unwrap().permissions().mode() & 0o777, 0o755);
        assert!(matches!(open(&at("real/out/file")), Err(TrustError::Io(_))), "no directory");
    }
}
