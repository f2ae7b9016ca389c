//! Ownership of new files when root works on the daemon's directories.
//!
//! The daemon could neither change nor remove a file of root's there. So files that root creates
//! are given to the daemon's user before they become visible. For other users this does nothing.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Gid, Uid};

use crate::fs::{Dir, FsError, Stat};

/// A user and a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    /// User id.
    pub(crate) uid: u32,
    /// Group id.
    pub(crate) gid: u32,
}

impl Owner {
    /// Who this process is, as far as the kernel asks (the effective ids).
    pub(crate) fn current() -> Self {
        Self { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }

    /// Whose a file is.
    pub(crate) const fn of(stat: &Stat) -> Self {
        Self { uid: stat.uid, gid: stat.gid }
    }

    /// Whether this process may do what that user may.
    pub(crate) fn is_served(self) -> bool {
        let me = Self::current().uid;
        me == 0 || me == self.uid
    }

    /// Gives a new file, which is to appear in `dir`, to this owner, if this process is root. The
    /// group of a set-gid directory stays.
    ///
    /// # Errors
    /// What fchown(2) says.
    pub(crate) fn take_file(self, file: &File, dir: &Dir) -> Result<(), FsError> {
        self.take(file, dir.path(), dir.stat()?.mode & 0o2000 != 0)
    }

    /// The same for a new directory.
    ///
    /// # Errors
    /// What fchown(2) says.
    pub(crate) fn take_dir(self, dir: &Dir, parent: &Dir) -> Result<(), FsError> {
        self.take(dir, dir.path(), parent.stat()?.mode & 0o2000 != 0)
    }

    fn take(self, fd: impl AsFd, path: &Path, keeps_group: bool) -> Result<(), FsError> {
        if Self::current().uid != 0 || self.uid == 0 {
            return Ok(());
        }
        let group = (!keeps_group).then(|| Gid::from_raw(self.gid));
        rustix::fs::fchown(fd, Some(Uid::from_raw(self.uid)), group).map_err(|source| FsError {
            action: "give to the daemon a file in".into(),
            path: path.to_owned(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::chown;

    use super::super::tests::{USER, as_user, chmod, is_root, users};
    use super::super::{Staging, stat_file};
    use super::*;

    #[test]
    fn root_acts_for_any_user_and_others_only_for_themselves() {
        let is_served = || {
            let me = Owner::current();
            assert!(me.is_served());
            [0, me.uid + 1].map(|uid| Owner { uid, ..me }.is_served())
        };
        assert_eq!(is_served(), [is_root(); 2]);
        assert_eq!(as_user(is_served), [false; 2]);
    }

    #[test]
    fn what_root_makes_for_somebody_is_theirs_and_what_others_make_stays_their_own() {
        let theirs = Owner { uid: USER + 1, gid: USER + 2 };
        let given = |mode: u32, owner: Owner| {
            let temp = users();
            if is_root() {
                chown(temp.path(), None, Some(USER + 3)).unwrap();
            }
            chmod(temp.path(), mode);
            let dir = Dir::open(temp.path()).unwrap();
            let file = Staging::new(&dir).unwrap();
            let new = dir.make_new_dir("new".as_ref(), 0o755).unwrap();
            owner.take_file(file.file(), &dir).unwrap();
            owner.take_dir(&new, &dir).unwrap();
            [stat_file(file.file(), dir.path()), new.stat()].map(|stat| Owner::of(&stat.unwrap()))
        };
        if is_root() {
            assert_eq!(given(0o755, theirs), [theirs; 2]);
            assert_eq!(
                given(0o2755, theirs),
                [Owner { gid: USER + 3, ..theirs }; 2],
                "as the directory says"
            );
            assert_eq!(given(0o755, Owner { uid: 0, ..theirs }), [Owner::current(); 2], "root's own");
        }
        let (stays, me) = as_user(|| (given(0o755, theirs), Owner::current()));
        assert_eq!(stays, [me; 2]);
    }
}
