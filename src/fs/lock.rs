//! Lock files: exclusive use of a resource by one process.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::dir::INSIDE;
use super::stat::stat_fd;
use super::{Action, Dir, FsError, Kind, Result};

/// A lock file that is locked, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Lock {
    fd: OwnedFd,
    path: PathBuf,
}

impl Lock {
    /// Whether it is still what has a name in a directory: who had it before may have removed it.
    ///
    /// # Errors
    /// What statx(2) says.
    pub(crate) fn is_at(&self, dir: &Dir, name: &OsStr) -> Result<bool> {
        let is = stat_fd(&self.fd).map_err(|e| FsError::new("examine", &*self.path, e))?;
        Ok(dir.stat_of(name)?.is_some_and(|there| there.is_same_place(&is)))
    }

    /// Writes these bytes to the file, durably.
    ///
    /// # Errors
    /// What pread(2), pwrite(2), ftruncate(2) and fsync(2) say.
    pub(crate) fn hold(&self, bytes: &[u8]) -> Result<()> {
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

impl Dir {
    /// Takes the lock of the file `name` in this directory, which is made if it is missing; `None`
    /// if another process has it. Unlike a directory, which whoever may list it can lock for as
    /// long as they like (flock(2)), the file can be opened by nobody else (mode 0600).
    ///
    /// # Errors
    /// What openat2(2) and flock(2) say, but for `EWOULDBLOCK`; [`Action::UseLock`] for a file that
    /// others may open, [`Action::KeepPrivate`] where each one is.
    pub(crate) fn lock_file(&self, name: &OsStr) -> Result<Option<Lock>> {
        let path = || self.path().join(name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = rustix::fs::openat2(self.as_fd(), name, flags, Mode::RUSR | Mode::WUSR, INSIDE)
            .map_err(|e| FsError::new("open the lock", path(), e))?;
        let stat = stat_fd(&fd).map_err(|e| FsError::new("examine", path(), e))?;
        let is_ours = stat.uid == rustix::process::geteuid().as_raw();
        if stat.kind != Kind::File || !is_ours || stat.mode & 0o077 != 0 {
            if let Err(error) = self.try_modes()
                && matches!(error.action, Action::KeepPrivate(_))
            {
                if stat.identity.size == 0 {
                    self.unlink(name).unwrap_or_default(); // nobody has used it, nor could
                }
                return Err(error);
            }
            return Err(FsError::new(Action::UseLock, path(), Errno::PERM));
        }
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock { fd, path: path() })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(e) => Err(FsError::new("lock", path(), e)),
        }
    }
}
