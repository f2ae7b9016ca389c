//! What the file system of a directory can do, asked of the kernel and tried out where nobody can
//! see it.
//!
//! What is tried out is tried with files that have no name (`O_TMPFILE`), which are gone when they
//! are closed, even if this process is killed. Decides nothing about what is missing.

use std::fmt;
use std::fs::File;
use std::os::fd::AsFd as _;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::lease::{self, Writer};
use super::{Dir, FsError, Result, proc_path};

/// The type of a file system, as statfs(2) tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileSystem(u64);

/// Names of types (linux/magic.h, and the magic numbers of statfs(2)), and whether changes can be
/// made there that the kernel does not tell about: network, FUSE and overlay file systems
/// (inotify(7), "Limitations and caveats").
const TYPES: [(u64, &str, bool); 20] = [
    (0x6969, "nfs", true),
    (0xff53_4d42, "cifs", true),
    (0xfe53_4d42, "smb2", true),
    (0x517b, "smb", true),
    (0x6573_5546, "fuse", true),
    (0x794c_7630, "overlayfs", true),
    (0x0102_1997, "9p", true),
    (0x00c3_6400, "ceph", true),
    (0x5346_414f, "afs", true),
    (0x0116_1970, "gfs2", true),
    (0x7461_636f, "ocfs2", true),
    (0x0bd0_0bd0, "lustre", true),
    (0xef53, "ext4", false), // and ext2 and ext3
    (0x5846_5342, "xfs", false),
    (0x9123_683e, "btrfs", false),
    (0x2fc1_2fc1, "zfs", false),
    (0x0102_1994, "tmpfs", false),
    (0xf2f5_2010, "f2fs", false),
    (0xca45_1a4e, "bcachefs", false),
    (0xf15f, "ecryptfs", false),
];

impl FileSystem {
    fn entry(self) -> Option<&'static (u64, &'static str, bool)> {
        TYPES.iter().find(|(magic, ..)| *magic == self.0)
    }

    /// Whether changes can be made there that the kernel does not tell about.
    pub(crate) fn is_remote(self) -> bool {
        self.entry().is_some_and(|(.., told_by_nobody)| *told_by_nobody)
    }

    /// Whether its syncfs(2) is known to make durable all that fsync(2) of each file and directory
    /// would.
    pub(crate) const fn flushes_whole(self) -> bool {
        matches!(self.0, 0xef53 | 0x5846_5342 | 0x9123_683e) // ext4, XFS, btrfs
    }
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.entry() {
            Some((_, name, _)) => f.write_str(name),
            None => write!(f, "a file system of type {:#x}", self.0),
        }
    }
}

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
    /// What statfs(2) says.
    pub(crate) fn file_system(&self) -> Result<FileSystem> {
        let stat = rustix::fs::fstatfs(self).map_err(|e| FsError::new("examine", self.path(), e))?;
        Ok(FileSystem(stat.f_type as u64 & 0xffff_ffff))
    }

    /// Whether changes can be made to this directory that the kernel does not tell about.
    ///
    /// # Errors
    /// What statfs(2) says.
    pub(crate) fn is_remote(&self) -> Result<bool> {
        Ok(self.file_system()?.is_remote())
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
    fn what_events_cannot_be_relied_on_for_is_known_by_name() {
        assert!(FileSystem(0x6969).is_remote());
        assert!(!FileSystem(0xef53).is_remote());
        assert!(!FileSystem(7).is_remote());
        let names = [0x6969, 0xef53, 7].map(|magic| FileSystem(magic).to_string());
        assert_eq!(names, ["nfs", "ext4", "a file system of type 0x7"]);
    }

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
        assert_eq!(proc.file_system().unwrap(), FileSystem(0x9fa0)); // PROC_SUPER_MAGIC
        assert!(!proc.is_remote().unwrap());
    }
}
