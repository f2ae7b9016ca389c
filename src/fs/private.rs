//! The private folder `.kms-sig` of a watched directory: where nobody but the daemon can change a
//! name.
//!
//! A watched directory belongs to its sender, who may swap any name in it between a look and the
//! next step. So what is taken out of it, or goes into it, passes through this folder: it is the
//! daemon's, mode 0700, and what lies in it can be compared and removed at leisure. Its owner
//! decides nothing about the folder itself, though: he may rename it, put something else in its
//! place, copy it. So it is known by more than its name: the file `lock` in it, which only the
//! daemon's user can read, says whose it is and which inode the folder has. A copy says so of
//! another inode.
//!
//! `lock` is also what is locked by the one daemon that works in the watched directory. It lies
//! where only the daemon's user can open it, or the sender could lock the daemon out; and while it
//! is there, the folder cannot be removed.

use std::ffi::OsStr;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::staging::RESERVED_PREFIX;
use super::{Action, Dir, Fitness, FsError, Kind, Lock, Result, Staging, Stat};

/// The file in it that is locked, and that says whose it is.
pub const LOCK: &str = "lock";

/// What `lock` begins with. The inode of the folder follows, and a line feed.
const MAGIC: &str = "kms-sig private folder 1 ";

/// What a directory is to this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kinship {
    /// Somebody's.
    Stranger,
    /// A copy of a private folder, made by whoever may read one. Not to be read, and nothing in it
    /// is to be finished.
    Copy,
    /// A private folder, whatever its name is by now.
    Own,
}

/// The private folder of one watched directory, to be had whenever it is needed.
#[derive(Debug)]
pub struct Private {
    root: Dir,
    held: Mutex<Option<Arc<Folder>>>,
}

/// It, open and locked. Who works in it keeps this until done: then nobody takes what lies there
/// for a leftover.
#[derive(Debug)]
pub(crate) struct Folder {
    dir: Dir,
    is: Stat,
    making: Mutex<()>,
    #[expect(dead_code, reason = "what keeps it locked")]
    lock: Lock,
}

impl Private {
    /// That of `root`, which is neither made nor locked yet.
    pub const fn new(root: Dir) -> Self {
        Self { root, held: Mutex::new(None) }
    }

    /// The watched directory.
    pub(crate) const fn root(&self) -> &Dir {
        &self.root
    }

    /// Makes it if it is missing, and takes its lock; `false` if another process has it. Two
    /// daemons in one directory would undo each other's work.
    ///
    /// # Errors
    /// It cannot be made, or is another's.
    pub(crate) fn lock(&self) -> Result<bool> {
        Ok(self.try_open()?.is_some())
    }

    /// Whether this process has its lock.
    pub(crate) fn is_locked(&self) -> bool {
        self.held().is_some()
    }

    /// Opens it. If it is not at its name any more, a new one is made and locked: the old one is
    /// let go of when nobody works in it any more.
    ///
    /// # Errors
    /// As [`Private::lock`]; `EWOULDBLOCK` if another process has it.
    pub(crate) fn open(&self) -> Result<Arc<Folder>> {
        let path = || self.root.path().join(RESERVED_PREFIX);
        self.try_open()?.ok_or_else(|| FsError::new("lock", path(), Errno::WOULDBLOCK))
    }

    /// The one that is locked, wherever it is by now.
    pub(crate) fn current(&self) -> Option<Arc<Folder>> {
        self.held().clone()
    }

    fn try_open(&self) -> Result<Option<Arc<Folder>>> {
        let mut held = self.held();
        let (dir, is) = match trusted(&self.root) {
            Err(e) if e.is_not_found() => {
                self.root.make_dir(OsStr::new(RESERVED_PREFIX), 0o700)?;
                self.root.sync()?;
                trusted(&self.root)?
            }
            there => there?,
        };
        if let Some(folder) = held.as_ref().filter(|folder| folder.is.is_same_place(&is)) {
            return Ok(Some(Arc::clone(folder)));
        }
        if dir.stat_of(OsStr::new(LOCK))?.is_none() {
            // With what it says from the beginning: the folder may be moved at any moment.
            let staging = Staging::holding(&dir, mark(&is).as_bytes())?;
            staging.set_mode_and_sync(0o600)?;
            staging.publish(&dir, OsStr::new(LOCK))?;
        }
        let Some(lock) = dir.lock_file(OsStr::new(LOCK))? else { return Ok(None) };
        // That of an earlier version, or out of a backup, says nothing or of another folder.
        lock.hold(mark(&is).as_bytes())?;
        let folder = Folder { dir, is, making: Mutex::new(()), lock };
        Ok(Some(Arc::clone(held.insert(Arc::new(folder)))))
    }

    fn held(&self) -> MutexGuard<'_, Option<Arc<Folder>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Folder {
    /// Its directory.
    pub(crate) const fn dir(&self) -> &Dir {
        &self.dir
    }

    /// For as long as a directory is made in it that is to be locked at once.
    pub(crate) fn making(&self) -> MutexGuard<'_, ()> {
        self.making.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What `lock` holds in a folder that is this.
fn mark(folder: &Stat) -> String {
    format!("{MAGIC}{}\n", folder.identity.ino)
}

/// Whether there is something of its name.
///
/// # Errors
/// What statx(2) says.
pub(crate) fn is_there(root: &Dir) -> Result<bool> {
    Ok(root.stat_of(OsStr::new(RESERVED_PREFIX))?.is_some())
}

/// Checks that it can be used, if it is there.
///
/// # Errors
/// What is there cannot be used.
pub(crate) fn check(root: &Dir) -> Result<()> {
    match trusted(root) {
        Err(error) if error.is_not_found() => Ok(()),
        checked => checked.map(drop),
    }
}

fn trusted(root: &Dir) -> Result<(Dir, Stat)> {
    let dir = root.descend(Path::new(RESERVED_PREFIX)).map_err(|error| match error.is_no_directory() {
        // A sender got there first. What is not ours is not removed, and nothing goes through it.
        true => FsError { action: Action::UsePlanted, ..error },
        false => error,
    })?;
    let stat = dir.stat()?;
    if !is_private(&stat) {
        return Err(FsError::new(Action::UsePlanted, dir.path(), Errno::PERM));
    }
    Ok((dir, stat))
}

/// Whether a directory is one that nobody but this process's user, and root, can get at.
pub(crate) fn is_private(stat: &Stat) -> bool {
    stat.kind == Kind::Directory && stat.uid == rustix::process::geteuid().as_raw() && stat.mode & 0o077 == 0
}

/// What an open directory is to this program, by whatever name it was opened.
///
/// # Errors
/// What statx(2) says.
pub(crate) fn kinship(dir: &Dir) -> Result<Kinship> {
    let stat = dir.stat()?;
    if !is_private(&stat) {
        return Ok(Kinship::Stranger);
    }
    let fitness = Fitness { max_size: 64, max_links: u32::MAX, owners: Some(vec![stat.uid]) };
    let Ok((file, _)) = dir.open_file(OsStr::new(LOCK), &fitness) else { return Ok(Kinship::Stranger) };
    let mut said = String::new();
    if file.take(64).read_to_string(&mut said).is_err() || !said.starts_with(MAGIC) {
        return Ok(Kinship::Stranger);
    }
    Ok(if said == mark(&stat) { Kinship::Own } else { Kinship::Copy })
}

/// Opens the directory `below`, all of it inside `root` and none of it a private folder or a copy
/// of one, by whatever name. Each step is looked at once it is open: whoever swaps a name for such
/// a folder leads nobody into it.
///
/// # Errors
/// As [`Dir::descend`]; `ENOENT` for what is in such a folder.
pub(crate) fn descend(root: &Dir, below: &Path) -> Result<Dir> {
    let mut dir = root.clone();
    for component in below.components() {
        dir = dir.descend(Path::new(component.as_os_str()))?;
        if kinship(&dir)? != Kinship::Stranger {
            return Err(FsError::new("open directory", dir.path(), Errno::NOENT));
        }
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::chmod;
    use super::*;

    fn site() -> (tempfile::TempDir, Private) {
        let temp = tempfile::tempdir().unwrap();
        let root = Dir::open(temp.path()).unwrap();
        (temp, Private::new(root))
    }

    fn kinship_at(temp: &tempfile::TempDir, name: &str) -> Kinship {
        kinship(&Dir::open(&temp.path().join(name)).unwrap()).unwrap()
    }

    #[test]
    fn p6_what_is_ours_is_known_under_any_name_and_a_copy_for_a_copy() {
        let (temp, private) = site();
        assert!(private.lock().unwrap());
        let at = |name: &str| temp.path().join(name);
        fs::rename(at(".kms-sig"), at("visible")).unwrap();
        fs::create_dir(at("copy")).unwrap();
        fs::copy(at("visible/lock"), at("copy/lock")).unwrap();
        chmod(&at("copy"), 0o700);
        fs::create_dir(at("theirs")).unwrap();
        fs::write(at("theirs/lock"), "").unwrap();
        chmod(&at("theirs"), 0o700);
        let told = ["visible", "copy", "theirs"].map(|name| kinship_at(&temp, name));
        assert_eq!(told, [Kinship::Own, Kinship::Copy, Kinship::Stranger]);
        for (name, is_opened) in [("visible", false), ("copy", false), ("theirs", true)] {
            assert_eq!(descend(private.root(), Path::new(name)).is_ok(), is_opened, "{name}");
        }
        // What others can read was not made by us, or is not what we made any more.
        chmod(&at("copy"), 0o755);
        assert_eq!(kinship_at(&temp, "copy"), Kinship::Stranger);
    }

    #[test]
    fn p6_one_that_was_moved_away_is_replaced_and_kept_locked_for_as_long_as_somebody_works_in_it() {
        let (temp, private) = site();
        let first = private.open().unwrap();
        fs::rename(temp.path().join(".kms-sig"), temp.path().join("visible")).unwrap();
        let second = private.open().unwrap();
        assert!(!first.is.is_same_place(&second.is));
        let moved = Dir::open(&temp.path().join("visible")).unwrap();
        assert!(moved.lock_file(OsStr::new(LOCK)).unwrap().is_none(), "somebody works in it");
        drop(first);
        assert!(moved.lock_file(OsStr::new(LOCK)).unwrap().is_some());
        assert!(Private::new(private.root().clone()).open().is_err(), "the new one is locked as well");
    }

    #[test]
    fn a_watched_directory_has_one_daemon_at_a_time() {
        let (_temp, private) = site();
        assert!(!private.is_locked() && private.lock().unwrap() && private.is_locked());
        assert!(private.lock().unwrap(), "again by the same");
        let other = Private::new(private.root().clone());
        assert!(!other.lock().unwrap() && !other.is_locked());
        drop(private);
        assert!(other.lock().unwrap());
    }
}
