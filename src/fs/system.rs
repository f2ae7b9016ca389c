//! What the file system of a directory can do, asked of the kernel and tried out where nobody can
//! see it.
//!
//! What is tried out is tried with files that have no name (`O_TMPFILE`), which are gone when they
//! are closed, even if this process is killed. Decides nothing about what is missing.

use std::fs::File;
use std::os::fd::AsFd as _;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::file_system::FileSystem;
use super::lease::{self, Writer};
use super::mount;
use super::{Dir, Result, proc_path};

/// Whether the file system has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Support {
    /// It has.
    Yes,
    /// It has not.
    No,
    /// It could not be tried out.
    Unknown,
}

impl Dir {
    /// The type of its file system.
    ///
    /// # Errors
    /// What statx(2) says, or reading mountinfo.
    pub(crate) fn file_system(&self) -> Result<FileSystem> {
        Ok(mount::find(self.stat()?.mount)?.map(|mount| mount.file_system).unwrap_or_default())
    }

    /// Whether files can be made without a name.
    pub(crate) fn has_nameless_files(&self) -> Support {
        match nameless(self) {
            Ok(_) => Support::Yes,
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => Support::No,
            Err(_) => Support::Unknown,
        }
    }

    /// Whether a read lease is granted on a file of this process's own.
    pub(crate) fn has_leases(&self) -> Support {
        let Ok(file) = nameless(self) else { return Support::Unknown };
        // To be told of no writer, there must be none: opened again for reading, then closed for
        // writing.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let Ok(reader) = rustix::fs::open(proc_path(file.as_fd()), flags, Mode::empty()) else {
            return Support::Unknown;
        };
        drop(file);
        match lease::probe(&File::from(reader)) {
            Writer::Absent | Writer::Present => Support::Yes,
            Writer::Unknown => Support::No,
        }
    }

    /// Whether files of `from` can be copied here by sharing their blocks (ioctl_ficlone(2)).
    pub(crate) fn shares_blocks_with(&self, from: &Self) -> Support {
        let (Ok(source), Ok(copy)) = (nameless(from), nameless(self)) else { return Support::Unknown };
        // Nothing would be shared of an empty file.
        if rustix::io::write(&source, &[1; 4096]).is_err() {
            return Support::Unknown;
        }
        match rustix::fs::ioctl_ficlone(&copy, &source) {
            Ok(()) => Support::Yes,
            Err(Errno::OPNOTSUPP | Errno::INVAL | Errno::XDEV | Errno::NOTTY) => Support::No,
            Err(_) => Support::Unknown,
        }
    }
}

/// A file in a directory that nobody sees. Unlike [`super::Staging`] never one with a stand-in
/// name.
fn nameless(dir: &Dir) -> rustix::io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::openat(dir, ".", flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{as_user, users};
    use super::*;

    #[test]
    fn trying_out_leaves_nothing_behind() {
        let temp = users();
        let dir = Dir::open(temp.path()).unwrap();
        assert_eq!(dir.has_nameless_files(), Support::Yes);
        // Of an ordinary user's own file as well as of root's.
        assert_eq!((dir.has_leases(), as_user(|| dir.has_leases())), (Support::Yes, Support::Yes));
        assert_ne!(dir.shares_blocks_with(&dir), Support::Unknown);
        assert_eq!(dir.names().unwrap().count(), 0);
        // A file system where nothing can be made (and which has no leases to speak of).
        let proc = Dir::open(std::path::Path::new("/proc")).unwrap();
        assert_ne!(proc.has_nameless_files(), Support::Yes);
        assert_eq!(proc.has_leases(), Support::Unknown);
        assert_eq!(proc.file_system().unwrap().to_string(), "proc");
    }
}
