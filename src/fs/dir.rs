//! A directory by its descriptor, and what can be done to a name inside it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, AtFlags, FlockOperation, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::names::Names;
use super::stat::{stat_fd, statx};
use super::written::Written;
use super::{Action, Fitness, FsError, Irregular, Kind, Result, Stat, Unfit, stat_path};

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

/// An open directory. Everything inside it is named by one component relative to the descriptor,
/// which clones share.
#[derive(Debug, Clone)]
pub struct Dir {
    fd: Arc<OwnedFd>,
    /// For messages only, and to see what stands there now.
    path: Arc<Path>,
}

/// Nothing may lead out of the directory that a path is resolved in.
pub(super) const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// What Linux takes of a name at most, in bytes (linux/limits.h).
const NAME_MAX: usize = 255;

/// openat2 answers `EAGAIN` when a rename races with it (openat2(2)); a sender can cause a few, not
/// all.
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
        Ok(Self::opened(fd, path))
    }

    /// The directory that a descriptor has open.
    pub(super) fn opened(fd: OwnedFd, path: &Path) -> Self {
        Self { fd: Arc::new(fd), path: path.into() }
    }

    /// Makes a directory that the policy names, with its missing ancestors (mode 0755), then opens
    /// it.
    ///
    /// # Errors
    /// What mkdir(2), fsync(2) or open(2) says.
    pub(crate) fn create(path: &Path, mode: u32) -> Result<Self> {
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
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A path that leads to this very directory, wherever it is and whatever has its name by now.
    /// It leads elsewhere once this and its clones are dropped.
    pub(crate) fn by_descriptor(&self) -> PathBuf {
        proc_path(self.fd.as_fd()).into()
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
        Ok(Self::opened(fd, &path))
    }

    /// As far towards `below` as there are directories that can be opened, all of it inside this
    /// one.
    pub(crate) fn descend_while_there(&self, below: &Path) -> Self {
        let mut dir = self.clone();
        for component in below.components() {
            match dir.descend(Path::new(component.as_os_str())) {
                Ok(next) => dir = next,
                Err(_) => break, // a caller that needs more gets the error itself
            }
        }
        dir
    }

    /// Like [`Dir::descend`], making what is missing (mode 0755, synced).
    ///
    /// # Errors
    /// As there, and of mkdir(2) and fsync(2).
    pub(crate) fn descend_creating(&self, below: &Path) -> Result<Self> {
        self.descend_creating_with(below, |_made, _parent| Ok(()))
    }

    /// [`Dir::descend_creating`], where what is made is seen to, and then synced: `made` gets it,
    /// and its parent.
    ///
    /// # Errors
    /// As there, and of `made`.
    pub(crate) fn descend_creating_with(
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

    /// The stat of `name`, if it exists; a symlink is not followed.
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

    /// Whether it still stands at the path that it was opened by: it may have been renamed or
    /// removed since, or another file system mounted over it.
    ///
    /// # Errors
    /// What statx(2) says, but for `ENOENT`.
    pub(crate) fn is_at_its_path(&self) -> Result<bool> {
        let there = stat_path(&self.path)?;
        Ok(there.is_some_and(|there| self.stat().is_ok_and(|here| here.is_same_place(&there))))
    }

    /// Opens `name` for reading if it is fit: looked at first, opened after, and the same inode
    /// throughout.
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
        // A magic link to the inode just examined: the only way to open exactly it (see also
        // `staging`).
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(proc_path(handle.as_fd()), flags, Mode::empty())
            .map_err(|e| FsError::new("open", path(), e))?;
        Ok((File::from(fd), stat))
    }

    /// Every name in this directory but `.` and `..`, in no order, as the directory is now.
    ///
    /// # Errors
    /// What getdents(2) says.
    pub(crate) fn names(&self) -> Result<Names> {
        let failed = |e| FsError::new("list", &*self.path, e);
        // A descriptor of its own: the position is shared between clones.
        let entries = rustix::fs::Dir::new(self.open_itself().map_err(failed)?).map_err(failed)?;
        Ok(Names::new(entries, self.path.clone()))
    }

    /// Makes the directory `name`; one that is there already is as good.
    ///
    /// # Errors
    /// What mkdir(2) says, but for `EEXIST`.
    pub(crate) fn make_dir(&self, name: &OsStr, mode: u32) -> Result<()> {
        match self.make_missing_dir(name, mode) {
            Err(e) if e.source == Errno::EXIST => Ok(()),
            made => made,
        }
    }

    /// Makes the directory `name`, which must not be there. The umask takes from its mode.
    ///
    /// # Errors
    /// What mkdir(2) says, `EEXIST` among it.
    pub(super) fn make_missing_dir(&self, name: &OsStr, mode: u32) -> Result<()> {
        rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(mode))
            .map_err(|e| FsError::new("create directory", self.path.join(name), e))
    }

    /// Makes the directory `name`, which must not be there, and opens it. It has this mode whatever
    /// the umask is, and what it inherits of a set-group-id directory.
    ///
    /// # Errors
    /// What mkdir(2) says, `EEXIST` among it.
    pub(crate) fn make_new_dir(&self, name: &OsStr, mode: u32) -> Result<Self> {
        self.make_missing_dir(name, mode)?;
        let opened = self.descend(Path::new(name)).and_then(|made| made.set_mode(mode).map(|()| made));
        opened.inspect_err(|_| {
            self.remove_dir(name).unwrap_or_default(); // the first error is the one to report
        })
    }

    /// Skipped if the mode is right already: by a caller outside of its group chmod(2) would clear
    /// set-group-id.
    pub(super) fn set_mode(&self, mode: u32) -> Result<()> {
        let is = self.stat()?.mode;
        if is & 0o777 == mode {
            return Ok(());
        }
        rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode | is & 0o7000))
            .map_err(|e| FsError::new("set the mode of", &*self.path, e))
    }

    /// Renames `name` to `new_name` in `to`, where nobody but us gives names, or none as random:
    /// what others put under `name` at the last moment comes too, whole.
    ///
    /// # Errors
    /// As [`Dir::rename`].
    pub(crate) fn rename_to_ours(&self, name: &OsStr, to: &Self, new_name: &OsStr) -> Result<()> {
        let failed = |e| FsError::new("move", self.path.join(name), e);
        match rustix::fs::renameat_with(&self.fd, name, &to.fd, new_name, RenameFlags::NOREPLACE) {
            // The file system cannot refuse to replace; but nothing comes there between this look
            // and the move.
            Err(Errno::INVAL) if to.stat_of(new_name)?.is_some() => Err(failed(Errno::EXIST)),
            Err(Errno::INVAL) => rustix::fs::renameat(&self.fd, name, &to.fd, new_name).map_err(failed),
            other => other.map_err(failed),
        }
    }

    /// Renames `name` to `new_name` in `to`, never over anything. Where nobody but us gives `name`:
    /// some file systems do it in two steps, and what others put there in between would be lost.
    ///
    /// # Errors
    /// `EEXIST`, `ENOENT`, `EXDEV`, and what else rename(2) says.
    pub(crate) fn rename(&self, name: &OsStr, to: &Self, new_name: &OsStr) -> Result<()> {
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
    pub(crate) fn exchange_with(&self, name: &OsStr, with: &Self, its_name: &OsStr) -> Result<()> {
        rustix::fs::renameat_with(&with.fd, its_name, &self.fd, name, RenameFlags::EXCHANGE)
            .map_err(|e| FsError::new("exchange", self.path.join(name), e))
    }

    /// Removes the file `name`; one that is gone already is as good.
    ///
    /// # Errors
    /// What unlink(2) says, but for `ENOENT`.
    pub(crate) fn unlink(&self, name: &OsStr) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(FsError::new("remove", self.path.join(name), e)),
        }
    }

    /// Removes the empty directory `name`; one that is gone already is as good.
    ///
    /// # Errors
    /// What rmdir(2) says, but for `ENOENT`; `ENOTEMPTY` for one that is not empty.
    pub(crate) fn remove_dir(&self, name: &OsStr) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(FsError::new("remove directory", self.path.join(name), e)),
        }
    }

    /// Makes the directory's entries durable (fsync(2) of a file does not).
    ///
    /// # Errors
    /// What fsync(2) says. Then nothing is known of what is on the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        self.written().flush()
    }

    /// Its entries, to be made durable.
    pub(crate) fn written(&self) -> Written<'_> {
        Written::new(&self.fd, Action::SyncDirectory, &self.path)
    }

    /// Bytes that an unprivileged writer may still take on this file system; `None` where it counts
    /// no blocks, as ramfs and some in user space.
    ///
    /// # Errors
    /// What statvfs(2) says.
    pub(crate) fn free_space(&self) -> Result<Option<u64>> {
        let stat = rustix::fs::fstatvfs(&self.fd).map_err(|e| FsError::new("examine", &*self.path, e))?;
        Ok((stat.f_blocks > 0).then(|| stat.f_bavail.saturating_mul(stat.f_frsize)))
    }

    /// Removes everything in a directory of ours, where nobody else can change a name.
    ///
    /// # Errors
    /// The first step's that fails.
    pub(crate) fn remove_contents(&self) -> Result<()> {
        for name in self.names()?.collect::<Result<Vec<_>>>()? {
            let Some(stat) = self.stat_of(&name)? else { continue };
            match stat.kind {
                Kind::Directory => {
                    self.descend(Path::new(&name))?.remove_contents()?;
                    self.remove_dir(&name)?;
                }
                Kind::File | Kind::Symlink | Kind::Special => self.unlink(&name)?,
            }
        }
        Ok(())
    }

    /// How many bytes a name may have here at most, of letters that are a byte each. Found out by
    /// looking: of file systems that encrypt names, some say more than they take.
    pub(crate) fn longest_name(&self) -> usize {
        let (mut longest, mut too_long) = (1, NAME_MAX + 1);
        while longest + 1 < too_long {
            let tried = usize::midpoint(longest, too_long);
            let name = "x".repeat(tried);
            match self.stat_of(OsStr::new(&name)) {
                Err(e) if e.source == Errno::NAMETOOLONG => too_long = tried,
                Ok(_) | Err(_) => longest = tried,
            }
        }
        longest
    }

    /// Checks that this process may make, move and remove names in it, as far as that can be known
    /// before.
    ///
    /// # Errors
    /// `EACCES`, `EROFS`, and what else faccessat2(2) says, by the effective ids.
    pub(crate) fn check_writable(&self) -> Result<()> {
        let (access, flags) = (Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
        rustix::fs::accessat(&self.fd, ".", access, flags)
            .map_err(|e| FsError::new("write to", &*self.path, e))
    }

    /// Takes the directory's advisory lock for as long as it is open; false if another process has
    /// it. Only for directories that others cannot open: see [`Dir::lock_file`].
    ///
    /// # Errors
    /// What flock(2) says, but for `EWOULDBLOCK`.
    pub(crate) fn lock(&self) -> Result<bool> {
        match rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(e) => Err(FsError::new("lock", &*self.path, e)),
        }
    }

    /// A descriptor of its own for this directory, which clones do not share.
    pub(super) fn open_itself(&self) -> rustix::io::Result<OwnedFd> {
        self.open_inside(Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)
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

/// The magic link of an open descriptor. Followed only where the descriptor itself is meant: to
/// open an inode that was examined, to give a staging file its name, to see whether that can be
/// done, and to watch a directory.
pub(super) fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
