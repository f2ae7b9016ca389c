//! A directory of this program's own, for a moment, in which it is tried out what a file system can
//! do. Nobody but root can get at what lies in it; its name is one that nothing is done about.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use rustix::io::Errno;

use super::staging::fresh_name;
use super::{Action, Dir, FsError, Result, Staging};

/// A directory `.kms-sig-…`, which goes away with all that is in it.
#[derive(Debug)]
pub(crate) struct Rehearsal {
    parent: Dir,
    name: OsString,
    dir: Dir,
}

impl Rehearsal {
    /// Makes one in a directory.
    ///
    /// # Errors
    /// What mkdir(2) says.
    pub(crate) fn within(parent: &Dir) -> Result<Self> {
        let name = fresh_name();
        parent.make_missing_dir(&name, 0o700)?;
        let dir = parent.descend(Path::new(&name))?;
        dir.set_mode(0o700).unwrap_or_default(); // not all that is tried out needs it
        Ok(Self { parent: parent.clone(), name, dir })
    }

    /// Makes one that nobody else can enter.
    ///
    /// # Errors
    /// [`Action::KeepPrivate`] where there is none; what else mkdir(2) says.
    pub(crate) fn private_within(parent: &Dir) -> Result<Self> {
        let name = fresh_name();
        let (dir, _) = parent.make_private_dir(&name)?;
        Ok(Self { parent: parent.clone(), name, dir })
    }

    /// It.
    pub(crate) const fn dir(&self) -> &Dir {
        &self.dir
    }
}

impl Dir {
    /// Finds out in a directory of this program's own whether a file that is moved is known again
    /// by what statx(2) says of it, as it must be before it is removed or kept.
    ///
    /// # Errors
    /// It is not, or it cannot be moved.
    pub(crate) fn try_moving(&self) -> Result<()> {
        let (from, to) = (OsStr::new("from"), OsStr::new("to"));
        Staging::holding(self, b"moved\n")?.publish_to_ours(self, from)?;
        let before = self.stat_of(from)?;
        self.rename_to_ours(from, self, to)?;
        let after = self.stat_of(to)?;
        self.unlink(to)?;
        let is_known = before.zip(after).is_some_and(|(was, is)| is.identity.is_renamed_from(&was.identity));
        if is_known { Ok(()) } else { Err(FsError::new(Action::KnowMoved, self.path(), Errno::STALE)) }
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        // What cannot be removed was told of when it was made, or shows by its name.
        self.dir.remove_contents().and_then(|()| self.parent.remove_dir(&self.name)).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_what_was_tried_out() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let rehearsal = Rehearsal::within(&dir).unwrap();
        assert_eq!(rehearsal.dir().stat().unwrap().mode, 0o700);
        let below = rehearsal.dir().make_new_dir(OsStr::new("d"), 0o700).unwrap();
        Staging::holding(&below, b"x").unwrap().publish(&below, OsStr::new("f")).unwrap();
        rehearsal.dir().try_moving().unwrap();
        assert_eq!(dir.names().unwrap().count(), 1);
        drop(rehearsal);
        assert_eq!(dir.names().unwrap().count(), 0);
    }
}
