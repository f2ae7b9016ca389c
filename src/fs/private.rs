//! The private folder of a watched directory: where nobody but the daemon can change a name.
//!
//! A watched directory belongs to its sender, who may swap any name in it between a look and the
//! next step. So what is taken out of it, or goes into it, passes through this folder: it is the
//! daemon's, mode 0700, and what lies in it can be compared and removed at leisure.
//!
//! It is there only while something is under way: other users cannot read it, and tools of theirs
//! that walk the watched directory would fail. Who works in it has it open as a [`Folder`]; when
//! the last one is done, it is removed, unless something waits in it.
//!
//! It is called `.kms-sig`. Where something else has that name, which a sender can put there and a
//! copying program does, it is `.kms-sig-` and 16 random digits. The owner of the watched directory
//! may also rename it, or copy it. So it is known by more than its name: the file `lock` in it,
//! which only the daemon's user can read, says whose it is and which inode the folder has. A copy
//! says so of another inode.
//!
//! `lock` is also locked by who has the folder open, so that nobody takes what lies there for a
//! leftover, under whatever name. The lock that keeps other daemons out of the watched directory is
//! on that itself ([`super::root_lock`]).

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use rustix::io::Errno;

use super::modes::is_private;
use super::root_lock::{Refusal, RootLock};
use super::staging::{RESERVED_PREFIX, random_hex};
use super::{Action, Dir, Fitness, FsError, Lock, RelPath, Result, Staging, Stat};

/// The file in it that is locked, and that says whose it is.
pub const LOCK: &str = "lock";

/// What `lock` begins with. The inode of the folder follows, and a line feed.
const MAGIC: &str = "kms-sig private folder 1 ";

/// How often a folder is made or opened that somebody else removes or swaps in the same moment.
const TRIES: usize = 8;

/// How often the last who work in a folder are waited for.
const END_TRIES: usize = 100;

/// How long those may take, and a server of files to be done with one that is closed and removed.
const SHORT_PAUSE: Duration = Duration::from_millis(10);

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
    shared: Arc<Shared>,
}

/// It, open and locked. Who works in it keeps this until done: then nobody takes what lies there
/// for a leftover.
#[derive(Debug)]
pub(crate) struct Folder {
    opened: Arc<Opened>, // dropped first
    #[expect(dead_code, reason = "what is done when it is dropped")]
    use_of: Use,
}

/// One use of the folder, which ends when this is dropped.
#[derive(Debug)]
struct Use(Arc<Shared>);

/// A folder that nobody works in, to be removed by [`Idle::close`].
#[derive(Debug)]
pub(crate) struct Idle(Weak<Shared>);

/// What sees to it that an idle folder is closed some time later.
type Later = fn(Idle);

struct Shared {
    root: Dir,
    /// Nothing: it is closed at once.
    later: Option<Later>,
    is_later: AtomicBool,
    /// Whether it is closed at once from now on.
    is_ending: AtomicBool,
    claim: Mutex<Claim>,
    held: Mutex<Option<Arc<Opened>>>,
}

/// What this process has of the lock on the watched directory.
enum Claim {
    /// It works there and has the lock.
    Locked(#[expect(dead_code, reason = "what keeps it locked")] RootLock),
    /// It works there without it, because it cannot be had.
    Unlocked,
    /// It does not work there.
    Nothing,
}

#[derive(Debug)]
struct Opened {
    name: OsString,
    dir: Dir,
    is: Stat,
    making: Mutex<()>,
    lock: Lock,
}

/// What has a name for the folder.
enum There {
    Nothing,
    Ours(Dir, Stat),
    /// Something that is not to be used.
    Strange,
}

impl Private {
    /// That of `root`, which is neither made nor locked yet, and is removed as soon as nobody works
    /// in it.
    pub fn new(root: Dir) -> Self {
        Self::with(root, None)
    }

    /// One that `later` closes when it has been idle for a while, so that it is not made anew for
    /// each of many files.
    pub(crate) fn closed_by(root: Dir, later: Later) -> Self {
        Self::with(root, Some(later))
    }

    fn with(root: Dir, later: Option<Later>) -> Self {
        let (claim, held) = (Mutex::new(Claim::Nothing), Mutex::default());
        let (is_later, is_ending) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { shared: Arc::new(Shared { root, later, is_later, is_ending, claim, held }) }
    }

    /// The watched directory.
    pub(crate) fn root(&self) -> &Dir {
        &self.shared.root
    }

    /// Takes the lock on the watched directory for as long as this lives, or anybody works in the
    /// folder: two daemons in one directory would undo each other's work. Where it cannot be had,
    /// and no other daemon has it, this process works without, which is told.
    ///
    /// # Errors
    /// What flock(2) says.
    pub(crate) fn lock(&self) -> Result<Option<Refusal>> {
        let mut claim = self.shared.claim();
        if matches!(*claim, Claim::Locked(_)) {
            return Ok(None);
        }
        let asked = self.shared.root.ask_for_lock()?;
        let refusal = asked.as_ref().err().copied();
        *claim = match asked {
            Ok(lock) => Claim::Locked(lock),
            Err(Refusal::Strangers(_) | Refusal::Unavailable(_)) => Claim::Unlocked,
            Err(Refusal::Taken(_)) => Claim::Nothing,
        };
        Ok(refusal)
    }

    /// Asks again for a lock that could not be had.
    pub(crate) fn lock_again(&self) {
        let mut claim = self.shared.claim();
        if matches!(*claim, Claim::Unlocked)
            && let Ok(Ok(lock)) = self.shared.root.ask_for_lock()
        {
            *claim = Claim::Locked(lock);
        }
    }

    /// Whether this process works in the watched directory, and no other daemon is known to.
    pub(crate) fn is_locked(&self) -> bool {
        !matches!(*self.shared.claim(), Claim::Nothing)
    }

    /// Opens it, made if it is missing. If it is not at its name any more, a new one is made and
    /// locked: the old one is let go of when nobody works in it any more.
    ///
    /// # Errors
    /// It cannot be made; `EWOULDBLOCK` if another process has it.
    pub(crate) fn open(&self) -> Result<Folder> {
        self.shared.open()
    }

    /// Opens it, if it is there.
    ///
    /// # Errors
    /// As of [`Private::open`].
    pub(crate) fn open_if_there(&self) -> Result<Option<Folder>> {
        if self.shared.held().is_none() {
            match look(&self.shared.root, OsStr::new(RESERVED_PREFIX))? {
                There::Nothing | There::Strange => return Ok(None),
                There::Ours(..) => {}
            }
        }
        self.open().map(Some)
    }

    /// Removes it, unless something waits in it, when nothing is in hand any more: what others keep
    /// ready in it goes too, and from now on it is closed at once. May wait for the disk.
    pub(crate) fn end(&self) {
        self.shared.is_ending.store(true, Ordering::Release);
        for _ in 0..END_TRIES {
            if let Some(folder) = self.current()
                && let Ok(names) = folder.dir().names()
            {
                for name in names.filter_map(std::result::Result::ok) {
                    folder.dir().remove_dir(&name).unwrap_or_default(); // an empty one, or it stays
                }
            }
            let is_in_use = |opened: &Arc<Opened>| Arc::strong_count(opened) > 1;
            if !self.shared.held().as_ref().is_some_and(is_in_use) {
                break;
            }
            std::thread::sleep(SHORT_PAUSE);
        }
    }

    /// The one that is locked, wherever it is by now.
    pub(crate) fn current(&self) -> Option<Folder> {
        self.shared.held().as_ref().map(|opened| self.shared.folder(opened))
    }
}

impl Shared {
    fn open(self: &Arc<Self>) -> Result<Folder> {
        let mut held = self.held();
        if let Some(opened) = &*held
            && opened.is_in(&self.root)?
        {
            return Ok(self.folder(opened));
        }
        for _ in 0..TRIES {
            let (name, dir, is) = match self.find_or_make() {
                Err(e) if e.is_not_found() || e.source == Errno::EXIST => continue, // swapped or removed since
                there => there?,
            };
            let lock = match lock_in(&dir, &is) {
                Err(e) if e.is_not_found() => continue, // it was removed by who had it
                lock => lock?,
            };
            let Some(lock) = lock else {
                return Err(FsError::new("lock", dir.path(), Errno::WOULDBLOCK));
            };
            let opened = Arc::new(Opened { name, dir, is, making: Mutex::new(()), lock });
            if opened.lock.is_at(&opened.dir, OsStr::new(LOCK))? && opened.is_in(&self.root)? {
                return Ok(self.folder(held.insert(opened)));
            }
        }
        Err(FsError::new(Action::UsePlanted, self.root.path().join(RESERVED_PREFIX), Errno::PERM))
    }

    fn folder(self: &Arc<Self>, opened: &Arc<Opened>) -> Folder {
        Folder { opened: Arc::clone(opened), use_of: Use(Arc::clone(self)) }
    }

    fn find_or_make(&self) -> Result<(OsString, Dir, Stat)> {
        let name = OsString::from(RESERVED_PREFIX);
        let name = match look(&self.root, &name)? {
            There::Ours(dir, is) => return Ok((name, dir, is)),
            There::Nothing => name,
            There::Strange => random_name(),
        };
        let (dir, is) = self.root.make_private_dir(&name)?;
        self.root.sync()?;
        Ok((name, dir, is))
    }

    /// Somebody has done with the folder.
    fn idle(self: &Arc<Self>) {
        let later = self.later.filter(|_| !self.is_ending.load(Ordering::Acquire));
        let Some(later) = later else { return self.close() };
        if !self.is_later.swap(true, Ordering::AcqRel) {
            later(Idle(Arc::downgrade(self)));
        }
    }

    /// Removes the folder, unless somebody works in it or something waits in it.
    fn close(&self) {
        let mut held = self.held();
        let Some(opened) = held.take_if(|opened| Arc::strong_count(opened) == 1) else { return };
        *held = match Arc::try_unwrap(opened) {
            Ok(opened) => opened.remove_from(&self.root).map(Arc::new),
            Err(in_use) => Some(in_use), // never, while it cannot be had
        };
    }

    fn claim(&self) -> MutexGuard<'_, Claim> {
        self.claim.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, Option<Arc<Opened>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("root", &self.root).field("held", &self.held).finish_non_exhaustive()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.close();
    }
}

impl Idle {
    /// Removes it, unless somebody works in it by now or something waits in it. May wait for the
    /// disk.
    pub(crate) fn close(self) {
        if let Some(shared) = self.0.upgrade() {
            shared.is_later.store(false, Ordering::Release); // before the look at who works in it
            shared.close();
        }
    }
}

impl Opened {
    /// Whether it is at its name.
    fn is_in(&self, root: &Dir) -> Result<bool> {
        Ok(root.stat_of(&self.name)?.is_some_and(|there| there.is_same_place(&self.is)))
    }

    /// Removes it from where it was made. Returns it if it stays: something waits in it, or that
    /// cannot be told. One that somebody has moved is let go of, and known by its lock.
    fn remove_from(self, root: &Dir) -> Option<Self> {
        match (self.is_in(root), self.is_empty()) {
            (Ok(true), Ok(true)) => {}
            (Ok(false), _) => return None,
            (Err(_), _) | (_, Ok(false) | Err(_)) => return Some(self),
        }
        // What is left without a lock after any of this is empty, and the next one's to use.
        let is_served = root.file_system().is_ok_and(|file_system| file_system.is_remote());
        let Self { name, dir, lock, .. } = self;
        if is_served {
            // A file that is removed while it is open gets another name there, and keeps it.
            drop(lock);
            dir.unlink(OsStr::new(LOCK)).unwrap_or_default();
        } else {
            dir.unlink(OsStr::new(LOCK)).unwrap_or_default();
            drop(lock);
        }
        drop(dir);
        for _ in 0..TRIES {
            match root.remove_dir(&name) {
                Err(e) if is_served && e.source == Errno::NOTEMPTY => std::thread::sleep(SHORT_PAUSE),
                _ => break,
            }
        }
        None
    }

    fn is_empty(&self) -> Result<bool> {
        for name in self.dir.names()? {
            if name? != LOCK {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Folder {
    /// Its directory.
    pub(crate) fn dir(&self) -> &Dir {
        &self.opened.dir
    }

    /// Whether it was opened by this name.
    pub(crate) fn is_called(&self, path: &RelPath) -> bool {
        path.as_path() == Path::new(&self.opened.name)
    }

    /// For as long as a directory is made in it that is to be locked at once.
    pub(crate) fn making(&self) -> MutexGuard<'_, ()> {
        self.opened.making.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.0.idle();
    }
}

/// Locks a folder, by the file in it that says whose it is; nothing if another process has it.
fn lock_in(dir: &Dir, is: &Stat) -> Result<Option<Lock>> {
    if dir.stat_of(OsStr::new(LOCK))?.is_none() {
        // With what it says from the beginning: the folder may be moved at any moment.
        let staging = Staging::holding(dir, mark(is).as_bytes())?;
        staging.set_mode_and_sync(0o600)?;
        staging.publish_to_ours(dir, OsStr::new(LOCK))?;
    }
    let Some(lock) = dir.lock_file(OsStr::new(LOCK))? else { return Ok(None) };
    // That of an earlier version says nothing.
    lock.hold(mark(is).as_bytes())?;
    Ok(Some(lock))
}

/// What `lock` holds in a folder that is this.
fn mark(folder: &Stat) -> String {
    format!("{MAGIC}{}\n", folder.identity.ino)
}

fn random_name() -> OsString {
    let digits = random_hex();
    OsString::from(format!("{RESERVED_PREFIX}-{}", digits.get(..16).unwrap_or(&digits)))
}

/// What has a name in the watched directory.
fn look(root: &Dir, name: &OsStr) -> Result<There> {
    let dir = match root.descend(Path::new(name)) {
        Ok(dir) => dir,
        Err(e) if e.is_not_found() => return Ok(There::Nothing),
        Err(e) if e.is_no_directory() || matches!(e.source, Errno::ACCESS | Errno::PERM | Errno::XDEV) => {
            return Ok(There::Strange);
        }
        Err(e) => return Err(e),
    };
    let stat = dir.stat()?;
    if !is_private(&stat) {
        return Ok(There::Strange);
    }
    // Where inode numbers change, one that is at its name is our own.
    let is_copy = kinship(&dir)? == Kinship::Copy && root.file_system()?.keeps_inodes();
    Ok(if is_copy { There::Strange } else { There::Ours(dir, stat) })
}

/// Whether one is there under its usual name, from an earlier run or an earlier policy.
///
/// # Errors
/// What openat2(2), statx(2) and reading say.
pub(crate) fn is_there(root: &Dir) -> Result<bool> {
    Ok(matches!(look(root, OsStr::new(RESERVED_PREFIX))?, There::Ours(..)))
}

/// Whether something that is not the daemon's has its name.
///
/// # Errors
/// What openat2(2), statx(2) and reading say.
pub(crate) fn is_name_taken(root: &Dir) -> Result<bool> {
    Ok(matches!(look(root, OsStr::new(RESERVED_PREFIX))?, There::Strange))
}

/// Whether a name is one that a private folder has where `.kms-sig` is taken.
pub(crate) fn is_other_name(name: &OsStr) -> bool {
    let rest = name.as_encoded_bytes().strip_prefix(RESERVED_PREFIX.as_bytes());
    let digits = rest.and_then(|rest| rest.strip_prefix(b"-"));
    digits.is_some_and(|digits| digits.len() == 16 && digits.iter().all(u8::is_ascii_hexdigit))
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

    fn names(temp: &tempfile::TempDir) -> Vec<OsString> {
        let mut names: Vec<_> = fs::read_dir(temp.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn p6_what_is_ours_is_known_under_any_name_and_a_copy_for_a_copy() {
        let (temp, private) = site();
        let _in_use = private.open().unwrap();
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
        assert!(!first.opened.is.is_same_place(&second.opened.is));
        let moved = Dir::open(&temp.path().join("visible")).unwrap();
        assert!(moved.lock_file(OsStr::new(LOCK)).unwrap().is_none(), "somebody works in it");
        drop(first);
        assert!(moved.lock_file(OsStr::new(LOCK)).unwrap().is_some());
        let other = Private::new(private.root().clone());
        assert_eq!(other.open().unwrap_err().source, Errno::WOULDBLOCK, "the new one is locked as well");
    }

    #[test]
    fn a_watched_directory_has_one_daemon_at_a_time_and_no_file_says_so() {
        let (temp, private) = site();
        assert!(!private.is_locked() && private.lock().unwrap().is_none() && private.is_locked());
        assert!(private.lock().unwrap().is_none(), "again by the same");
        let other = Private::new(private.root().clone());
        assert!(matches!(other.lock().unwrap(), Some(Refusal::Taken(_))) && !other.is_locked());
        let in_use = private.open().unwrap();
        drop(private);
        assert!(other.lock().unwrap().is_some(), "somebody works there still");
        drop(in_use);
        assert!(other.lock().unwrap().is_none());
        assert!(names(&temp).is_empty());
    }

    #[test]
    fn it_is_there_while_somebody_works_in_it_or_something_waits_in_it() {
        let (temp, private) = site();
        let (first, second) = (private.open().unwrap(), private.open().unwrap());
        drop(first);
        fs::write(second.dir().path().join("waits"), "").unwrap();
        drop(second);
        assert_eq!(names(&temp), [".kms-sig"]);
        let third = private.open().unwrap();
        fs::remove_file(third.dir().path().join("waits")).unwrap();
        drop(third);
        assert!(names(&temp).is_empty() && private.current().is_none());
        assert!(private.open_if_there().unwrap().is_none() && names(&temp).is_empty());
    }

    #[test]
    fn one_that_is_closed_later_is_made_once_for_all_who_come_until_then() {
        static IDLE: Mutex<Vec<Idle>> = Mutex::new(Vec::new());
        let (temp, _) = site();
        let later = |idle| IDLE.lock().unwrap().push(idle);
        let private = Private::closed_by(Dir::open(temp.path()).unwrap(), later);
        let first = private.open().unwrap().opened.is;
        let second = private.open().unwrap();
        assert!(second.opened.is.is_same_place(&first));
        let waiting = std::mem::take(&mut *IDLE.lock().unwrap());
        assert_eq!(waiting.len(), 1, "asked for once");
        waiting.into_iter().for_each(Idle::close);
        assert_eq!(names(&temp), [".kms-sig"], "somebody works in it");
        drop(second);
        let waiting = std::mem::take(&mut *IDLE.lock().unwrap());
        waiting.into_iter().for_each(Idle::close);
        assert!(names(&temp).is_empty());
        let folder = private.open().unwrap();
        folder.dir().make_dir(OsStr::new("ready"), 0o700).unwrap();
        drop(folder);
        private.end();
        assert!(names(&temp).is_empty(), "at the end there is no later");
        let folder = private.open().unwrap();
        folder.dir().descend_creating(Path::new("waits/f")).unwrap();
        drop(folder);
        private.end();
        assert_eq!(names(&temp), [".kms-sig"]);
    }

    #[test]
    fn p4_what_a_kill_left_of_it_is_used_again_and_removed() {
        let (temp, private) = site();
        let at = |name: &str| temp.path().join(name);
        for lock in [None, Some(""), Some("kms-sig private folder 1")] {
            fs::create_dir(at(".kms-sig")).unwrap();
            chmod(&at(".kms-sig"), 0o700);
            if let Some(lock) = lock {
                fs::write(at(".kms-sig/lock"), lock).unwrap();
                chmod(&at(".kms-sig/lock"), 0o600);
            }
            let is = fs::metadata(at(".kms-sig")).unwrap();
            let folder = private.open_if_there().unwrap().unwrap();
            use std::os::unix::fs::MetadataExt as _;
            assert_eq!(folder.opened.is.identity.ino, is.ino(), "{lock:?}");
            drop(folder);
            assert!(names(&temp).is_empty(), "{lock:?}");
        }
    }

    #[test]
    fn a19_what_has_its_name_and_is_not_ours_stays_and_another_name_is_used() {
        type Plant = fn(&Path);
        let plant: [(&str, Plant); 4] = [
            ("file", |at| fs::write(at, "").unwrap()),
            ("link", |at| std::os::unix::fs::symlink("elsewhere", at).unwrap()),
            ("open to others", |at| fs::create_dir(at).unwrap()),
            ("copy", |at| {
                fs::create_dir(at).unwrap();
                fs::write(at.join("lock"), "kms-sig private folder 1 1\n").unwrap();
                chmod(at, 0o700);
            }),
        ];
        for (what, plant) in plant {
            let (temp, private) = site();
            fs::create_dir(temp.path().join("elsewhere")).unwrap();
            plant(&temp.path().join(".kms-sig"));
            assert!(is_name_taken(private.root()).unwrap(), "{what}");
            let before = names(&temp);
            assert!(private.open_if_there().unwrap().is_none(), "{what}");
            let folder = private.open().unwrap();
            assert!(is_other_name(&folder.opened.name), "{what}: {:?}", folder.opened.name);
            assert_eq!(kinship(folder.dir()).unwrap(), Kinship::Own, "{what}");
            let again = private.open().unwrap();
            assert!(again.opened.is.is_same_place(&folder.opened.is), "{what}");
            drop((folder, again));
            assert_eq!(names(&temp), before, "{what}");
        }
    }
}
