//! Safe file work: directories by descriptor, files by one name inside them.
//!
//! A watched directory belongs to someone else, who may rename, link and swap things in it at any moment.
//! So nothing here follows a symlink, crosses a mount or opens a path twice, and nothing is opened for
//! reading before it is known to be a regular file (P9). Never decides what to do with a file.
//!
//! Follows openat2(2), statx(2), open(2) for `O_TMPFILE`, link(2) and rename(2).

mod action;
pub mod atomic_write;
pub mod chown;
pub mod copy;
pub mod flush;
pub mod lease;
mod path_walk;
pub mod place;
pub mod private;
pub mod root;
pub mod staging;
mod stat;
pub mod system;
pub mod trust;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use crate::escape::quoted;

pub use action::Action;
use flush::Written;
pub use place::Place;
pub use staging::{Publish, Staging};
pub use stat::{Fitness, Identity, Irregular, Kind, Stat, Unfit, stat_file, stat_path};
use stat::{stat_fd, statx};

/// A system call that failed, with what it was for and on what.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot {action} {}", quoted(path))]
pub struct FsError {
    /// What was being done.
    pub action: Action,
    /// What it was done to.
    pub path: PathBuf,
    /// What the kernel said.
    pub source: Errno,
}

impl FsError {
    fn new(action: impl Into<Action>, path: impl Into<PathBuf>, source: Errno) -> Self {
        Self { action: action.into(), path: path.into(), source }
    }

    /// Whether the thing is simply not there.
    pub fn is_not_found(&self) -> bool {
        self.source == Errno::NOENT
    }

    /// Whether something else stands where a directory was to be opened: a file, or a symlink, which is not followed.
    pub fn is_no_directory(&self) -> bool {
        matches!(self.source, Errno::NOTDIR | Errno::LOOP)
    }

    /// Whether the disk or a quota is full.
    pub fn is_no_space(&self) -> bool {
        matches!(self.source, Errno::NOSPC | Errno::DQUOT)
    }
}

type Result<T> = std::result::Result<T, FsError>;

/// A path below a rule's directory: one or more ordinary names, never empty, absolute, `.` or `..`.
///
/// Shared by all who hold it: thousands wait at a time, each in more than one list, and may have 4,095 bytes (P10).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RelPath(Arc<Path>);

impl RelPath {
    /// Takes a relative path of ordinary names with one `/` between them; anything else is `None`. So equal paths
    /// have equal bytes, which `components` would not give: it overlooks `//`, `/.` and a `/` at the end.
    pub fn new(path: impl Into<PathBuf>) -> Option<Self> {
        let path = path.into();
        let mut names = path.as_os_str().as_bytes().split(|byte| *byte == b'/');
        let ordinary = names.all(|name| !matches!(name, b"" | b"." | b".."));
        ordinary.then(|| Self(path.into()))
    }

    /// The last component.
    pub fn name(&self) -> &OsStr {
        self.0.file_name().unwrap_or_default()
    }

    /// The directories before the last component; empty for a file directly in the root.
    pub fn parent(&self) -> &Path {
        self.0.parent().unwrap_or(Path::new(""))
    }

    /// The path itself.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// The bytes of the path, for state.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_os_str().as_bytes()
    }
}

impl std::borrow::Borrow<Path> for RelPath {
    fn borrow(&self) -> &Path {
        &self.0
    }
}

/// Why a file was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It is not there, or no longer.
    #[error("it is gone")]
    Gone,
    /// It may not be opened as it is.
    #[error("it {0}")]
    Unfit(Unfit),
    /// It should be possible and was not.
    #[error(transparent)]
    Io(#[from] FsError),
}

impl From<Unfit> for OpenError {
    fn from(unfit: Unfit) -> Self {
        Self::Unfit(unfit)
    }
}

/// An open directory. Everything inside it is named by one component relative to the descriptor, which clones share.
#[derive(Debug, Clone)]
pub struct Dir {
    fd: Arc<OwnedFd>,
    /// For messages and for watches only; never resolved again.
    path: Arc<Path>,
}

/// A lock file that is locked, for as long as this lives.
#[derive(Debug)]
pub struct Lock {
    fd: OwnedFd,
    path: PathBuf,
}

impl Lock {
    /// Has the file hold these few bytes, durably.
    ///
    /// # Errors
    /// What pread(2), pwrite(2), ftruncate(2) and fsync(2) say.
    pub fn hold(&self, bytes: &[u8]) -> Result<()> {
        let failed = |e| FsError::new("write", &*self.path, e);
        let mut there = vec![0; bytes.len() + 1];
        let read = rustix::io::pread(&self.fd, &mut *there, 0).map_err(failed)?;
        if there.get(..read) == Some(bytes) {
            return Ok(());
        }
        rustix::fs::ftruncate(&self.fd, 0).map_err(failed)?;
        if rustix::io::pwrite(&self.fd, bytes, 0).map_err(failed)? != bytes.len() {
            return Err(failed(Errno::NOSPC));
        }
        rustix::fs::fsync(&self.fd).map_err(failed)
    }
}

/// The names in a directory, as they are read.
pub struct Names {
    entries: rustix::fs::Dir,
    path: Arc<Path>,
}

/// A name as the directory has it.
#[derive(Debug)]
pub struct Listed {
    /// The name.
    pub name: OsString,
    /// Whether a directory may have it: as the file system says while it lists, or yes where it does not say.
    pub may_be_directory: bool,
}

impl Names {
    /// The next name, with what listing tells about it.
    pub fn next_listed(&mut self) -> Option<Result<Listed>> {
        loop {
            match self.entries.next()? {
                Ok(entry) => match entry.file_name().to_bytes() {
                    b"." | b".." => {}
                    name => {
                        let kind = entry.file_type();
                        let may_be_directory = kind.is_dir() || kind == rustix::fs::FileType::Unknown;
                        let name = OsStr::from_bytes(name).to_owned();
                        return Some(Ok(Listed { name, may_be_directory }));
                    }
                },
                Err(e) => return Some(Err(FsError::new("list", &*self.path, e))),
            }
        }
    }
}

impl Iterator for Names {
    type Item = Result<OsString>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_listed().map(|listed| listed.map(|listed| listed.name))
    }
}

/// Nothing may lead out of the directory that a path is resolved in.
const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// openat2 answers `EAGAIN` when a rename races with it (openat2(2)); a sender can cause a few, not all.
const RACE_TRIES: usize = 64;

impl Dir {
    /// Opens a directory that the policy names. The last component must not be a symlink.
    ///
    /// # Errors
    /// What open(2) says; `ELOOP` or `ENOTDIR` for a symlink.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())
            .map_err(|e| FsError::new("open directory", path, e))?;
        Ok(Self { fd: Arc::new(fd), path: path.into() })
    }

    /// Makes a directory that the policy names, with its missing ancestors (mode 0755), then opens it.
    ///
    /// # Errors
    /// What mkdir(2), fsync(2) or open(2) says.
    pub fn create(path: &Path, mode: u32) -> Result<Self> {
        match Self::open(path) {
            Err(e) if e.is_not_found() => {}
            done => return done,
        }
        let Some((parent, name)) = path.parent().zip(path.file_name()) else {
            return Err(FsError::new("create directory", path, Errno::INVAL));
        };
        let parent = Self::create(parent, 0o755)?;
        parent.make_dir(name, mode)?;
        parent.sync()?;
        Self::open(path)
    }

    /// Where it was when it was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the directory `below`, all of it inside this one. An empty path is this directory.
    ///
    /// # Errors
    /// `ELOOP` for a symlink on the way, `EXDEV` for a mount.
    pub fn descend(&self, below: &Path) -> Result<Self> {
        if below.as_os_str().is_empty() {
            return Ok(self.clone());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = self.path.join(below);
        let fd = self.open_inside(below, flags).map_err(|e| FsError::new("open directory", &path, e))?;
        Ok(Self { fd: Arc::new(fd), path: path.into() })
    }

    /// As far towards `below` as there are directories that can be opened, all of it inside this one.
    pub fn descend_while_there(&self, below: &Path) -> Self {
        let mut dir = self.clone();
        for component in below.components() {
            match dir.descend(Path::new(component.as_os_str())) {
                Ok(next) => dir = next,
                Err(_) => break, // whoever wants to get further will say why not
            }
        }
        dir
    }

    /// Like [`Dir::descend`], making what is missing (mode 0755, synced).
    ///
    /// # Errors
    /// As there, and of mkdir(2) and fsync(2).
    pub fn descend_creating(&self, below: &Path) -> Result<Self> {
        self.descend_creating_with(below, |_made, _parent| Ok(()))
    }

    /// [`Dir::descend_creating`], where what is made is seen to, and then synced: `made` gets it, and its parent.
    ///
    /// # Errors
    /// As there, and of `made`.
    pub fn descend_creating_with(
        &self,
        below: &Path,
        made: impl Fn(&Self, &Self) -> Result<()>,
    ) -> Result<Self> {
        let mut dir = self.clone();
        for component in below.components() {
            let name = component.as_os_str();
            dir = match dir.descend(Path::new(name)) {
                Err(e) if e.is_not_found() => {
                    let next = match dir.make_new_dir(name, 0o755) {
                        Err(e) if e.source == Errno::EXIST => dir.descend(Path::new(name))?,
                        new => {
                            let new = new?;
                            made(&new, &dir)?;
                            new
                        }
                    };
                    dir.sync()?;
                    next
                }
                other => other?,
            };
        }
        Ok(dir)
    }

    /// What stands at `name`, if anything; a symlink is told as that.
    ///
    /// # Errors
    /// What statx(2) says, but for `ENOENT`.
    pub fn stat_of(&self, name: &OsStr) -> Result<Option<Stat>> {
        match statx(self.fd.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(FsError::new("examine", self.path.join(name), e)),
        }
    }

    /// What this directory is.
    ///
    /// # Errors
    /// What statx(2) says.
    pub fn stat(&self) -> Result<Stat> {
        stat_fd(&self.fd).map_err(|e| FsError::new("examine", &*self.path, e))
    }

    /// Whether it still stands at the path that it was opened by: it may have been renamed or removed since, or another
    /// file system mounted over it.
    ///
    /// # Errors
    /// What statx(2) says, but for `ENOENT`.
    pub fn is_at_its_path(&self) -> Result<bool> {
        let there = stat_path(&self.path)?;
        Ok(there.is_some_and(|there| self.stat().is_ok_and(|here| here.is_same_place(&there))))
    }

    /// Opens `name` for reading if it is fit: looked at first, opened after, and the same inode throughout.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_file(&self, name: &OsStr, fitness: &Fitness) -> std::result::Result<(File, Stat), OpenError> {
        let path = || self.path.join(name);
        let handle =
            match self.open_inside(Path::new(name), OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC) {
                Ok(handle) => handle,
                Err(Errno::NOENT) => return Err(OpenError::Gone),
                Err(Errno::LOOP) => return Err(Unfit::NotRegular(Irregular::Symlink).into()),
                Err(Errno::XDEV) => return Err(Unfit::NotRegular(Irregular::MountPoint).into()),
                Err(e) => return Err(FsError::new("open", path(), e).into()),
            };
        let stat = stat_fd(&handle).map_err(|e| FsError::new("examine", path(), e))?;
        fitness.check(&stat)?;
        // A magic link to the inode just examined: the only way to open exactly it (see also `staging`).
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(proc_path(handle.as_fd()), flags, Mode::empty())
            .map_err(|e| FsError::new("open", path(), e))?;
        Ok((File::from(fd), stat))
    }

    /// Every name in this directory but `.` and `..`, in no order, as the directory is now.
    ///
    /// # Errors
    /// What getdents(2) says.
    pub fn names(&self) -> Result<Names> {
        let failed = |e| FsError::new("list", &*self.path, e);
        // A descriptor of its own: the position is shared between clones.
        let entries = self.open_inside(Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC);
        let entries = rustix::fs::Dir::new(entries.map_err(failed)?).map_err(failed)?;
        Ok(Names { entries, path: self.path.clone() })
    }

    /// Makes the directory `name`; one that is there already is as good.
    ///
    /// # Errors
    /// What mkdir(2) says, but for `EEXIST`.
    pub fn make_dir(&self, name: &OsStr, mode: u32) -> Result<()> {
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(e) => Err(FsError::new("create directory", self.path.join(name), e)),
        }
    }

    /// Makes the directory `name`, which must not be there, and opens it. It has this mode whatever the umask is, and
    /// what it inherits of a set-group-id directory.
    ///
    /// # Errors
    /// What mkdir(2) says, `EEXIST` among it.
    pub fn make_new_dir(&self, name: &OsStr, mode: u32) -> Result<Self> {
        rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode))
            .map_err(|e| FsError::new("create directory", self.path.join(name), e))?;
        let opened = self.descend(Path::new(name)).and_then(|made| made.set_mode(mode).map(|()| made));
        opened.inspect_err(|_| {
            self.remove_dir(name).unwrap_or_default(); // the first error is the one to tell
        })
    }

    /// Not if it is right already: who is not in its group would take set-group-id away by it (chmod(2)).
    fn set_mode(&self, mode: u32) -> Result<()> {
        let is = self.stat()?.mode;
        if is & 0o777 == mode {
            return Ok(());
        }
        rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode | is & 0o7000))
            .map_err(|e| FsError::new("set the mode of", &*self.path, e))
    }

    /// Renames `name` to `new_name` in `to`, where nobody but us gives names, or none as random: what others put under
    /// `name` at the last moment comes too, whole.
    ///
    /// # Errors
    /// As [`Dir::rename`].
    pub fn rename_to_ours(&self, name: &OsStr, to: &Self, new_name: &OsStr) -> Result<()> {
        let failed = |e| FsError::new("move", self.path.join(name), e);
        match rustix::fs::renameat_with(&self.fd, name, &to.fd, new_name, RenameFlags::NOREPLACE) {
            // The file system cannot refuse to replace; but nothing comes there between this look and the move.
            Err(Errno::INVAL) if to.stat_of(new_name)?.is_some() => Err(failed(Errno::EXIST)),
            Err(Errno::INVAL) => rustix::fs::renameat(&self.fd, name, &to.fd, new_name).map_err(failed),
            other => other.map_err(failed),
        }
    }

    /// Renames `name` to `new_name` in `to`, never over anything. Where nobody but us gives `name`: some file systems do
    /// it in two steps, and what others put there in between would be lost.
    ///
    /// # Errors
    /// `EEXIST`, `ENOENT`, `EXDEV`, and what else rename(2) says.
    pub fn rename(&self, name: &OsStr, to: &Self, new_name: &OsStr) -> Result<()> {
        let failed = |e| FsError::new("move", self.path.join(name), e);
        match rustix::fs::renameat_with(&self.fd, name, &to.fd, new_name, RenameFlags::NOREPLACE) {
            // The file system cannot refuse to replace: link, which never replaces, then unlink.
            Err(Errno::INVAL) => {
                rustix::fs::linkat(&self.fd, name, &to.fd, new_name, AtFlags::empty()).map_err(failed)?;
                self.unlink(name)
            }
            other => other.map_err(failed),
        }
    }

    /// Swaps what stands at a name of this directory and at one of another, in one step.
    ///
    /// # Errors
    /// `ENOENT` if either is missing; `EINVAL` where the file system cannot.
    pub fn exchange_with(&self, name: &OsStr, with: &Self, its_name: &OsStr) -> Result<()> {
        rustix::fs::renameat_with(&with.fd, its_name, &self.fd, name, RenameFlags::EXCHANGE)
            .map_err(|e| FsError::new("exchange", self.path.join(name), e))
    }

    /// Removes the file `name`; one that is gone already is as good.
    ///
    /// # Errors
    /// What unlink(2) says, but for `ENOENT`.
    pub fn unlink(&self, name: &OsStr) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(FsError::new("remove", self.path.join(name), e)),
        }
    }

    /// Removes the empty directory `name`; one that is gone already is as good.
    ///
    /// # Errors
    /// What rmdir(2) says, but for `ENOENT`; `ENOTEMPTY` for one that is not empty.
    pub fn remove_dir(&self, name: &OsStr) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(FsError::new("remove directory", self.path.join(name), e)),
        }
    }

    /// Makes the directory's entries durable (fsync(2) of a file does not).
    ///
    /// # Errors
    /// What fsync(2) says. Then nothing is known of what is on the disk.
    pub fn sync(&self) -> Result<()> {
        self.written().flush()
    }

    /// Its entries, to be made durable.
    pub fn written(&self) -> Written<'_> {
        Written::new(&self.fd, Action::SyncDirectory, &self.path)
    }

    /// Bytes that an unprivileged writer may still take on this file system.
    ///
    /// # Errors
    /// What statvfs(2) says.
    pub fn free_space(&self) -> Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.fd).map_err(|e| FsError::new("examine", &*self.path, e))?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Checks that this process may make, move and remove names in it, as far as that can be known before.
    ///
    /// # Errors
    /// `EACCES`, `EROFS`, and what else faccessat2(2) says, by the effective ids.
    pub fn check_writable(&self) -> Result<()> {
        let (access, flags) = (Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
        rustix::fs::accessat(&self.fd, ".", access, flags)
            .map_err(|e| FsError::new("write to", &*self.path, e))
    }

    /// Takes the directory's advisory lock for as long as it is open; false if another process has it. Only for
    /// directories that others cannot open: see [`Dir::lock_file`].
    ///
    /// # Errors
    /// What flock(2) says, but for `EWOULDBLOCK`.
    pub fn lock(&self) -> Result<bool> {
        match rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(e) => Err(FsError::new("lock", &*self.path, e)),
        }
    }

    /// Takes the lock of the file `name` in this directory, which is made if it is missing; `None` if another process
    /// has it. Unlike a directory, which whoever may list it can lock for as long as they like (flock(2)), the file can
    /// be opened by nobody else (mode 0600).
    ///
    /// # Errors
    /// What openat2(2) and flock(2) say, but for `EWOULDBLOCK`; `EPERM` for a file that others may open.
    pub fn lock_file(&self, name: &OsStr) -> Result<Option<Lock>> {
        let path = || self.path.join(name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat2(&self.fd, name, flags, Mode::RUSR | Mode::WUSR, INSIDE)
            .map_err(|e| FsError::new("open the lock", path(), e))?;
        let stat = stat_fd(&fd).map_err(|e| FsError::new("examine", path(), e))?;
        let is_ours = stat.uid == rustix::process::geteuid().as_raw();
        if stat.kind != Kind::File || !is_ours || stat.mode & 0o077 != 0 {
            let action = "use the lock (it must be a file of the daemon's own, mode 0600; remove it)";
            return Err(FsError::new(action, path(), Errno::PERM));
        }
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { fd, path: path() })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(FsError::new("lock", path(), e)),
        }
    }

    fn open_inside(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), INSIDE) {
                Err(Errno::AGAIN) if tries < RACE_TRIES => tries += 1,
                done => return done,
            }
        }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The magic link of an open descriptor. Followed only where the descriptor itself is meant: to open an inode that was
/// examined, to give a staging file its name, and to see whether that can be done.
fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
    use std::os::unix::net::UnixListener;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use rustix::fs::{CWD, FileType, Gid, Uid};
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

    use super::*;

    /// Whom root works as where an ordinary user is asked for, with a group of the same number.
    pub(crate) const USER: u32 = 7001;

    pub(crate) fn is_root() -> bool {
        rustix::process::geteuid().is_root()
    }

    pub(crate) fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    /// A directory of the ordinary user's.
    pub(crate) fn users() -> tempfile::TempDir {
        let temp = tempfile::tempdir().unwrap();
        if is_root() {
            chown(temp.path(), Some(USER), Some(USER)).unwrap();
        }
        temp
    }

    /// Does something as an ordinary user. Root does it on a thread that becomes one: in Linux credentials belong to the
    /// thread (credentials(7), nptl(7)).
    pub(crate) fn as_user<T: Send>(work: impl FnOnce() -> T + Send) -> T {
        if !is_root() {
            return work();
        }
        let become_it = || {
            let (uid, gid) = (Uid::from_raw(USER), Gid::from_raw(USER));
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(gid, gid, gid).unwrap();
            set_thread_res_uid(uid, uid, uid).unwrap();
        };
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                become_it();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// What of a directory this process has open (proc_pid_fd(5)), sorted: the path below it and, of the flags, those
    /// that matter as long as it is open. A file without a name is `#`.
    pub(crate) fn opened_in(dir: &Path) -> Vec<(String, OFlags)> {
        let lasting = OFlags::RWMODE | OFlags::PATH | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = |fd: String| {
            // What other tests close meanwhile is none of ours.
            let to = fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
            let below = to.strip_prefix(dir).ok()?.to_str()?.to_owned();
            let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
            let flags = OFlags::from_bits_retain(u32::from_str_radix(flags.trim(), 8).ok()?);
            Some((if below.starts_with('#') { "#".into() } else { below }, flags & lasting))
        };
        let fds =
            fs::read_dir("/proc/self/fd").unwrap().map(|fd| fd.unwrap().file_name().into_string().unwrap());
        let mut all: Vec<_> = fds.filter_map(opened).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// What comes of doing something twice at the very same moment, many times.
    pub(crate) fn at_once<T: Send>(work: impl Fn(usize) -> T + Sync) -> Vec<T> {
        let come = AtomicUsize::new(0);
        let each = || -> Vec<T> {
            let rounds = (1..=64).map(|round| {
                come.fetch_add(1, Ordering::Relaxed);
                // Not asleep: who is woken comes too late.
                while come.load(Ordering::Relaxed) < 2 * round {
                    std::thread::yield_now();
                }
                work(round)
            });
            rounds.collect()
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(each);
            let mut all = each();
            all.extend(other.join().unwrap());
            all
        })
    }

    fn anything() -> Fitness {
        Fitness { max_size: u64::MAX, max_links: u32::MAX, owners: None }
    }

    #[test]
    fn what_is_opened_is_for_no_other_program_and_is_waited_for_by_nobody() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("below")).unwrap();
        fs::write(temp.path().join("file"), "content").unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let below = dir.descend(Path::new("below")).unwrap();
        let file = dir.open_file(OsStr::new("file"), &anything()).unwrap();
        let lock = dir.lock_file(OsStr::new("lock")).unwrap().unwrap();
        let names = below.names().unwrap();
        let staging = Staging::new(&dir).unwrap();
        let closed = OFlags::CLOEXEC;
        let expected = [
            ("", closed),
            ("#", closed | OFlags::RDWR),
            ("below", closed),
            ("below", closed),
            // Of its owner's, who may have a lease that everybody else waits 45 s for (fcntl(2)).
            ("file", closed | OFlags::NONBLOCK),
            ("lock", closed | OFlags::NONBLOCK | OFlags::RDWR),
        ];
        assert_eq!(opened_in(temp.path()), expected.map(|(name, flags)| (name.to_owned(), flags)));
        drop((dir, below, file, lock, names, staging));
        assert_eq!(opened_in(temp.path()), []);
    }

    #[test]
    fn p9_what_is_not_what_it_should_be_is_not_opened() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        fs::create_dir(at("dir")).unwrap();
        fs::write(at("file"), "content").unwrap();
        symlink("dir", at("to-dir")).unwrap();
        symlink("file", at("to-file")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        for name in ["file", "to-dir", "to-file", "socket"] {
            assert!(Dir::open(&at(name)).unwrap_err().is_no_directory(), "{name}");
            assert!(dir.descend(Path::new(name)).unwrap_err().is_no_directory(), "{name}");
        }
        // Not even tried: opening a socket fails, and opening a device may do anything.
        for (name, what) in [
            ("socket", Irregular::Special),
            ("dir", Irregular::Directory),
            ("to-file", Irregular::Symlink),
            ("to-dir", Irregular::Symlink),
        ] {
            match dir.open_file(OsStr::new(name), &anything()) {
                Err(OpenError::Unfit(Unfit::NotRegular(told))) => assert_eq!(told, what, "{name}"),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    #[test]
    fn directories_are_made_that_are_missing() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        let made = Dir::create(&at("a/b"), 0o700).unwrap();
        assert_eq!((made.stat().unwrap().mode & 0o777, made.path()), (0o700, &*at("a/b")));
        Dir::create(&at("a/b"), 0o700).unwrap();
        let below = made.descend_creating(Path::new("c/d")).unwrap();
        assert_eq!((below.stat().unwrap().mode & 0o777, below.path()), (0o755, &*at("a/b/c/d")));
        made.descend_creating(Path::new("c/d")).unwrap();
        fs::write(at("file"), "").unwrap();
        for path in ["file", "file/below"] {
            let error = Dir::create(&at(path), 0o700).unwrap_err();
            assert_eq!((&error.path, error.is_no_directory()), (&at(path), true), "{path}");
        }
    }

    #[test]
    fn a_directory_that_somebody_else_makes_meanwhile_is_as_good() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        for made in at_once(|round| dir.descend_creating(Path::new(&round.to_string()))) {
            made.unwrap();
        }
    }

    #[test]
    fn where_nothing_can_be_made_is_known_before_and_told() {
        let temp = users();
        let dir = Dir::open(temp.path()).unwrap();
        for (mode, is_writable) in [(0o755, true), (0o555, false), (0o655, false)] {
            chmod(temp.path(), mode);
            let (known, made) =
                as_user(|| (dir.check_writable(), dir.descend_creating(Path::new(&mode.to_string()))));
            assert_eq!((known.is_ok(), made.is_ok()), (is_writable, is_writable), "{mode:o}");
            for error in [known.err(), made.err()].into_iter().flatten() {
                assert_eq!(error.source, Errno::ACCESS, "{mode:o}");
            }
        }
    }

    #[test]
    fn a_directory_has_its_mode_whatever_the_umask_and_keeps_what_it_inherited() {
        let temp = users();
        let dir = Dir::open(temp.path()).unwrap();
        for (mode, wanted, then) in
            [(0o755, 0o777, 0o777), (0o2700, 0o755, 0o2755), (0o3777, 0o700, 0o3700), (0o2755, 0o755, 0o2755)]
        {
            chmod(temp.path(), mode);
            dir.set_mode(wanted).unwrap();
            assert_eq!(dir.stat().unwrap().mode, then, "{mode:o} {wanted:o}");
        }
        if is_root() {
            chown(temp.path(), None, Some(USER + 1)).unwrap();
        }
        chmod(temp.path(), 0o2755);
        as_user(|| dir.set_mode(0o755)).unwrap();
        assert_eq!(dir.stat().unwrap().mode, 0o2755, "not even where its owner is not in its group");
    }

    #[test]
    fn what_the_kernel_says_is_told_apart() {
        let told = |source| {
            let error = FsError::new("open", "f", source);
            (error.is_not_found(), error.is_no_directory(), error.is_no_space())
        };
        for errno in [Errno::NOSPC, Errno::DQUOT] {
            assert_eq!(told(errno), (false, false, true), "{errno}");
        }
        for errno in [Errno::NOTDIR, Errno::LOOP] {
            assert_eq!(told(errno), (false, true, false), "{errno}");
        }
        for errno in [Errno::IO, Errno::ACCESS, Errno::ROFS, Errno::FBIG, Errno::XDEV] {
            assert_eq!(told(errno), (false, false, false), "{errno}");
        }
        assert_eq!(told(Errno::NOENT), (true, false, false));
        // A file system that has nothing to sync, and no room.
        let proc = Dir::open(Path::new("/proc")).unwrap();
        assert_eq!(proc.sync().unwrap_err().source, Errno::INVAL);
        assert_eq!(proc.free_space().unwrap(), 0);
        let temp = tempfile::tempdir().unwrap();
        let free = Dir::open(temp.path()).unwrap().free_space().unwrap();
        let stat = rustix::fs::statvfs(temp.path()).unwrap();
        let expected = stat.f_bavail * stat.f_frsize;
        assert!(free.abs_diff(expected) <= expected / 2, "{free} {expected}"); // others write meanwhile
    }

    #[test]
    fn a_lock_file_is_one_process_s_and_nobody_else_s() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, lock) = (Dir::open(temp.path()).unwrap(), OsStr::new("lock"));
        let held = dir.lock_file(lock).unwrap().unwrap();
        assert!(dir.lock_file(lock).unwrap().is_none());
        drop(held);
        assert!(dir.lock_file(lock).unwrap().is_some());
        let at = temp.path().join("lock");
        assert_eq!(fs::metadata(&at).unwrap().permissions().mode() & 0o777, 0o600);
        chmod(&at, 0o644);
        dir.lock_file(lock).unwrap_err();
        symlink("lock", temp.path().join("link")).unwrap();
        dir.lock_file(OsStr::new("link")).unwrap_err();
        let private = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(CWD, temp.path().join("fifo"), FileType::Fifo, private, 0).unwrap();
        assert_eq!(dir.lock_file(OsStr::new("fifo")).unwrap_err().source, Errno::PERM);
    }

    #[test]
    fn p9_a_path_below_a_root_is_written_in_one_way_only() {
        for path in ["a", "a/b", "..a/b..", "a b", "\u{1}", "...", "a/.b"] {
            assert_eq!(RelPath::new(path).map(|path| path.as_bytes().to_vec()), Some(path.into()), "{path}");
        }
        for path in ["", "/", "/a", "a/", "a//b", ".", "./a", "a/.", "a/./b", "..", "../a", "a/..", "a/../b"]
        {
            assert_eq!(RelPath::new(path), None, "{path}");
        }
    }
}
