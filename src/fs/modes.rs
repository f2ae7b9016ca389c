//! Directories that are this process's user's alone, and file systems that cannot have any: some
//! show one mode or one owner for everything, whatever is set.
//!
//! Which one a mount is, its options decide, and so it is found out by making a directory. Knows
//! what helps; the words are those of [`Action::KeepPrivate`].

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;

use rustix::io::Errno;

use super::staging::fresh_name;
use super::{Action, Dir, FsError, Kind, Result, Stat, mount, stat_file};

/// Whether a directory is one that nobody but this process's user, and root, can get at.
pub(crate) fn is_private(stat: &Stat) -> bool {
    stat.kind == Kind::Directory && is_owners(stat)
}

/// Whether nobody but this process's user, and root, can get at something.
pub(super) fn is_owners(stat: &Stat) -> bool {
    stat.uid == rustix::process::geteuid().as_raw() && stat.mode & 0o077 == 0
}

/// Options for the mount of an open file, unless its file system is known to keep modes.
pub(crate) fn options_for(file: &File) -> Option<&'static str> {
    let stat = stat_file(file, Path::new("")).ok()?;
    mount::file_system(stat.mount).unwrap_or_default().options_if_no_modes()
}

impl Dir {
    /// Makes the directory `name`, which must not be there, and which nobody else can enter.
    ///
    /// # Errors
    /// `EEXIST`; [`Action::KeepPrivate`] where the file system has no such directory.
    pub(super) fn make_private_dir(&self, name: &OsStr) -> Result<(Self, Stat)> {
        self.make_missing_dir(name, 0o700)?;
        let dir = self.descend(Path::new(name))?;
        if !is_private(&dir.stat()?) {
            dir.set_mode(0o700).unwrap_or_default(); // whether that had an effect is seen next
        }
        let stat = dir.stat()?;
        if is_private(&stat) {
            return Ok((dir, stat));
        }
        if self.file_system()?.keeps_modes() {
            return Err(FsError::new("use", dir.path(), Errno::EXIST)); // it is another one by now
        }
        self.remove_dir(name).unwrap_or_default(); // the first error is the one to report
        Err(self.keeps_no_modes()?)
    }

    /// Finds out whether a directory can be made here that nobody else can enter, by making one and
    /// removing it.
    ///
    /// # Errors
    /// [`Action::KeepPrivate`] where it cannot; what else mkdir(2) says.
    pub(crate) fn try_modes(&self) -> Result<()> {
        let name = fresh_name();
        self.make_private_dir(&name)?;
        self.remove_dir(&name)
    }

    /// That nothing here is anybody's alone.
    pub(super) fn keeps_no_modes(&self) -> Result<FsError> {
        let options = self.file_system()?.options_for_modes();
        Ok(FsError::new(Action::KeepPrivate(options), self.path(), Errno::PERM))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_ones_own_is_made_and_trying_leaves_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        dir.try_modes().unwrap();
        assert_eq!(dir.names().unwrap().count(), 0);
        let (made, stat) = dir.make_private_dir(OsStr::new("d")).unwrap();
        assert!(is_private(&stat) && is_private(&made.stat().unwrap()));
        let again = dir.make_private_dir(OsStr::new("d")).unwrap_err();
        assert_eq!(again.source, Errno::EXIST);
    }
}
