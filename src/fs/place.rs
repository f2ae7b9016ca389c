//! A directory below a root that is held open over a wait, and the way that leads to it.
//!
//! Whoever owns a directory may move it elsewhere while a descriptor of it is open, and what is
//! done by the descriptor then happens elsewhere: outside of the root (P9). A lookup by name alone
//! is no help either, as another directory may have the name by then. So both are compared: before
//! anything is written, removed or exchanged the way is walked again from the root by openat2(2),
//! which neither follows a symlink nor leaves the root, and what it leads to must be the directory
//! that is open, by device, inode and mount. A move in the instant between the walk and the step is
//! found by [`Place::is_in_place`] after it, and whoever wrote undoes it by the operations that are
//! for that alone.
//!
//! A [`Place`] does not give its directory away: what changes the directory goes through it and is
//! checked.

use std::ffi::OsStr;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use super::flush::Written;
use super::private;
use super::{Action, Dir, Fitness, FsError, OpenError, Publish, Result, Staging, Stat};

impl FsError {
    fn moved(path: impl Into<std::path::PathBuf>) -> Self {
        Self::new(Action::ChangeMoved, path, Errno::STALE)
    }

    /// Whether a directory had been moved away before anything was done in it.
    pub(crate) fn is_moved(&self) -> bool {
        self.action == Action::ChangeMoved
    }
}

/// A directory below a root, open, with the way that leads to it.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    root: Dir,
    below: Arc<Path>,
    dir: Dir,
    /// What it is, as it was opened.
    is: Stat,
}

impl Place {
    /// Opens the directory `below`, all of it inside `root`, and none of it a private folder of
    /// this program's.
    ///
    /// # Errors
    /// As [`Dir::descend`]; `ENOENT` for what is in a private folder.
    pub(crate) fn open(root: &Dir, below: &Path) -> Result<Self> {
        let dir = private::descend(root, below)?;
        Self::of(root, below, dir)
    }

    /// Like [`Place::open`], of a directory that was opened by walking there.
    ///
    /// # Errors
    /// What statx(2) says.
    pub(crate) fn of(root: &Dir, below: &Path, dir: Dir) -> Result<Self> {
        let is = dir.stat()?;
        Ok(Self { root: root.clone(), below: below.into(), dir, is })
    }

    /// Whether both are the same directory, reached by the same way.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.is.is_same_place(&other.is) && self.below == other.below && self.root.path() == other.root.path()
    }

    /// Whether it still stands where it was opened: the root at its path, and this directory below
    /// the root.
    ///
    /// # Errors
    /// What openat2(2) and statx(2) say, but for what says that something else stands there, or
    /// nothing.
    pub(crate) fn is_in_place(&self) -> Result<bool> {
        if !self.root.is_at_its_path()? {
            return Ok(false);
        }
        if self.below.as_os_str().is_empty() {
            return Ok(true);
        }
        match self.root.descend(&self.below) {
            Ok(now) => Ok(now.stat()?.is_same_place(&self.is)),
            Err(e) if e.is_not_found() || e.is_no_directory() || e.source == Errno::XDEV => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The one check before every change, and after one: that it still [is in
    /// place](Self::is_in_place).
    ///
    /// # Errors
    /// As of [`Place::is_in_place`]; [`FsError::is_moved`].
    pub(crate) fn confirm(&self) -> Result<()> {
        if self.is_in_place()? { Ok(()) } else { Err(FsError::moved(self.dir.path())) }
    }

    // Looking: what is found is what this directory holds, wherever it stands.

    /// [`Dir::stat_of`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn stat_of(&self, name: &OsStr) -> Result<Option<Stat>> {
        self.dir.stat_of(name)
    }

    /// [`Dir::open_file`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn open_file(
        &self,
        name: &OsStr,
        fitness: &Fitness,
    ) -> std::result::Result<(File, Stat), OpenError> {
        self.dir.open_file(name, fitness)
    }

    /// [`Dir::check_writable`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.dir.check_writable()
    }

    /// Checks that what has these names here can be moved into a directory of ours directly below
    /// the root.
    ///
    /// # Errors
    /// [`Action::MoveAcross`] if it cannot; what trying it out says.
    pub(crate) fn check_boundary(&self, names: &[&OsStr], to: &Dir) -> Result<()> {
        if !self.below.as_os_str().is_empty() {
            self.dir.check_boundary(to)?;
        }
        if self.is.is_of_a_disk() {
            return Ok(()); // which has no branches
        }
        self.dir.check_branches(names, to)
    }

    /// What the directory was when it was opened.
    pub(crate) const fn stat(&self) -> &Stat {
        &self.is
    }

    /// Its path below the root, as it was opened.
    pub(crate) fn below(&self) -> &Path {
        &self.below
    }

    /// Where it was when it was opened, for messages.
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// For reading only: see the module.
    pub(crate) const fn looking(&self) -> &Dir {
        &self.dir
    }

    /// Its entries, to be made durable.
    pub(crate) fn written(&self) -> Written<'_> {
        self.dir.written()
    }

    // Changes. Each is checked before; whoever makes one asks `is_in_place` after it.

    /// A file without a name, to be published here or on the same file system; `None` where there
    /// are none.
    ///
    /// # Errors
    /// As [`Staging::new`].
    pub(crate) fn stage(&self) -> Result<Option<Staging>> {
        Staging::nameless(&self.dir)
    }

    /// [`Staging::take_group`] of this directory.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn give_group(&self, staging: &Staging) -> Result<()> {
        staging.take_group(&self.is)
    }

    /// Gives a file a name here, never over anything.
    ///
    /// # Errors
    /// As [`Staging::publish`]; [`FsError::is_moved`].
    pub(crate) fn publish(&self, staging: &Staging, name: &OsStr) -> Result<Publish> {
        self.confirm()?;
        staging.publish(&self.dir, name)
    }

    /// Moves what has a name here into a directory that nobody else can change, whatever it is.
    ///
    /// # Errors
    /// As [`Dir::rename_to_ours`]; [`FsError::is_moved`].
    pub(crate) fn take(&self, name: &OsStr, to: &Dir, new_name: &OsStr) -> Result<()> {
        self.confirm()?;
        self.dir.rename_to_ours(name, to, new_name)
    }

    /// Swaps what has a name here with what has one in a directory that nobody else can change, in
    /// one step.
    ///
    /// # Errors
    /// As [`Dir::exchange_with`]; [`FsError::is_moved`].
    pub(crate) fn swap(&self, name: &OsStr, with: &Dir, its_name: &OsStr) -> Result<()> {
        self.confirm()?;
        self.dir.exchange_with(name, with, its_name)
    }

    /// Moves something here from a directory that nobody else can change, never over anything.
    ///
    /// # Errors
    /// As [`Dir::rename`]; [`FsError::is_moved`].
    pub(crate) fn put(&self, from: &Dir, its_name: &OsStr, name: &OsStr) -> Result<()> {
        self.confirm()?;
        from.rename(its_name, &self.dir, name)
    }

    // Undoing, wherever the directory is by now: what came from it goes back into it, and what is
    // ours comes out.

    /// [`Place::put`], of what came from this very directory.
    ///
    /// # Errors
    /// As [`Dir::rename`].
    pub(crate) fn put_back(&self, from: &Dir, its_name: &OsStr, name: &OsStr) -> Result<()> {
        from.rename(its_name, &self.dir, name)
    }

    /// [`Place::take`], of what was put here and must not stay.
    ///
    /// # Errors
    /// As [`Dir::rename_to_ours`].
    pub(crate) fn take_back(&self, name: &OsStr, to: &Dir, new_name: &OsStr) -> Result<()> {
        self.dir.rename_to_ours(name, to, new_name)
    }

    /// [`Place::swap`], of what was swapped.
    ///
    /// # Errors
    /// As [`Dir::exchange_with`].
    pub(crate) fn swap_back(&self, name: &OsStr, with: &Dir, its_name: &OsStr) -> Result<()> {
        self.dir.exchange_with(name, with, its_name)
    }

    /// Removes the very file that was put here under `name`, where nobody but us and root can
    /// change names. Elsewhere another file could take its place between the look and the removal:
    /// there it stays, which `false` says.
    ///
    /// # Errors
    /// What statx(2) and unlink(2) say.
    pub(crate) fn remove_own(&self, name: &OsStr, own: &Stat) -> Result<bool> {
        let (me, now) = (rustix::process::geteuid().as_raw(), self.dir.stat()?);
        if ![0, me].contains(&now.uid) || now.mode & 0o022 != 0 {
            return Ok(false);
        }
        let there = self.dir.stat_of(name)?;
        let is_it =
            |there: &Stat| (there.identity.dev, there.identity.ino) == (own.identity.dev, own.identity.ino);
        if there.as_ref().is_some_and(is_it) {
            self.dir.unlink(name)?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// `root/sub` and `outside`, and the first as a place.
    fn site() -> (tempfile::TempDir, Place) {
        let temp = tempfile::tempdir().unwrap();
        for dir in ["root", "root/sub", "outside", "ours"] {
            fs::create_dir(temp.path().join(dir)).unwrap();
        }
        let root = Dir::open(&temp.path().join("root")).unwrap();
        let place = Place::open(&root, Path::new("sub")).unwrap();
        (temp, place)
    }

    type Move = fn(&Path);

    /// What a sender may do with a directory that is open.
    const MOVES: [(&str, Move); 5] = [
        ("moved out", |at| fs::rename(at.join("root/sub"), at.join("outside/sub")).unwrap()),
        ("another in its place", |at| {
            fs::rename(at.join("root/sub"), at.join("outside/sub")).unwrap();
            fs::create_dir(at.join("root/sub")).unwrap();
        }),
        ("a link to it in its place", |at| {
            fs::rename(at.join("root/sub"), at.join("outside/sub")).unwrap();
            std::os::unix::fs::symlink("../outside/sub", at.join("root/sub")).unwrap();
        }),
        ("moved within", |at| fs::rename(at.join("root/sub"), at.join("root/other")).unwrap()),
        ("the root moved", |at| fs::rename(at.join("root"), at.join("outside/root")).unwrap()),
    ];

    #[test]
    fn p9_nothing_is_changed_in_a_directory_that_was_moved_away() {
        for (what, move_it) in MOVES {
            let (temp, place) = site();
            let (ours, x) = (Dir::open(&temp.path().join("ours")).unwrap(), OsStr::new("x"));
            fs::write(temp.path().join("root/sub/x"), "theirs").unwrap();
            fs::write(temp.path().join("ours/x"), "ours").unwrap();
            let staging = place.stage().unwrap().unwrap();
            assert!(place.is_in_place().unwrap());
            move_it(temp.path());
            assert!(!place.is_in_place().unwrap(), "{what}");
            let refused = [
                place.publish(&staging, OsStr::new("new")).map(drop),
                place.take(x, &ours, OsStr::new("y")),
                place.swap(x, &ours, x),
                place.put(&ours, x, OsStr::new("new")),
            ];
            assert!(
                refused.iter().all(|done| done.as_ref().is_err_and(FsError::is_moved)),
                "{what}: {refused:?}"
            );
            assert_eq!(place.stat_of(OsStr::new("new")).unwrap().map(|_| ()), None, "{what}");
            assert_eq!(fs::read_to_string(temp.path().join("ours/x")).unwrap(), "ours", "{what}");
        }
    }

    #[test]
    fn what_came_from_a_directory_goes_back_into_it_wherever_it_is() {
        let (temp, place) = site();
        let (ours, x) = (Dir::open(&temp.path().join("ours")).unwrap(), OsStr::new("x"));
        fs::write(temp.path().join("root/sub/x"), "theirs").unwrap();
        place.take(x, &ours, x).unwrap();
        fs::rename(temp.path().join("root/sub"), temp.path().join("outside/sub")).unwrap();
        place.put_back(&ours, x, x).unwrap();
        assert_eq!(fs::read_to_string(temp.path().join("outside/sub/x")).unwrap(), "theirs");
    }

    #[test]
    fn p8_what_others_could_have_swapped_is_not_removed_by_name() {
        let (temp, place) = site();
        let x = OsStr::new("x");
        fs::write(temp.path().join("root/sub/x"), "ours").unwrap();
        let own = place.stat_of(x).unwrap().unwrap();
        let there = || place.stat_of(x).unwrap().is_some();
        for mode in [0o775, 0o757] {
            super::super::tests::chmod(&temp.path().join("root/sub"), mode);
            assert!(!place.remove_own(x, &own).unwrap() && there(), "{mode:o}");
        }
        super::super::tests::chmod(&temp.path().join("root/sub"), 0o755);
        fs::rename(temp.path().join("root/sub/x"), temp.path().join("root/sub/y")).unwrap();
        fs::write(temp.path().join("root/sub/x"), "another").unwrap();
        assert!(place.remove_own(x, &own).unwrap() && there(), "another file");
        fs::rename(temp.path().join("root/sub/y"), temp.path().join("root/sub/x")).unwrap();
        assert!(place.remove_own(x, &own).unwrap() && !there());
    }
}
