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
use super::mount;
use super::{Dir, Result, proc_path};
use crate::escape::Escaped;

/// The type of a file system, as mountinfo names it (proc_pid_mountinfo(5)): `ext4`, `fuse.sshfs`.
///
/// Not the number that statfs(2) gives: a file server may hand on that of its own disk, as QEMU's
/// 9p does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileSystem(Option<Box<str>>);

/// Types where changes can be made that the kernel does not tell about: the other writers are on
/// another machine, in a server of this one, or at another mount (inotify(7), "Limitations and
/// caveats"). So are all of FUSE.
const REMOTE: [&str; 26] = [
    "9p", "acfs", "afs", "aufs", "beegfs", "ceph", "cifs", "coda", "fuse", "fuseblk", "gfs2", "gpfs",
    "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "overlay", "panfs", "prl_fs", "pvfs2", "smb3",
    "smbfs", "vboxsf", "virtiofs",
];

/// Types whose every writer is known to the kernel that is asked: only of these a granted lease
/// says that there is none. Overlay file systems grant it while a file is mapped for writing, and
/// know nothing of who writes to the directories they are made of.
const TELLS_WRITERS: [&str; 9] = ["btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "tmpfs", "xfs", "zfs"];

impl FileSystem {
    /// Whether changes can be made there that the kernel does not tell about.
    pub(crate) fn is_remote(&self) -> bool {
        self.0.as_deref().is_some_and(is_remote)
    }

    /// Whether a granted lease says that nobody has the file open for writing.
    pub(crate) fn tells_writers(&self) -> bool {
        TELLS_WRITERS.contains(&self.0.as_deref().unwrap_or_default())
    }

    /// Whether its syncfs(2) is known to make durable all that fsync(2) of each file and directory
    /// would.
    pub(crate) fn flushes_whole(&self) -> bool {
        matches!(self.0.as_deref(), Some("ext2" | "ext3" | "ext4" | "xfs" | "btrfs"))
    }

    /// Asks about the writers of a file that lies there and is open read-only. A writer that the
    /// lease tells of is one anywhere; that there is none is believed only where it can be.
    pub(crate) fn probe(&self, file: &File) -> Writer {
        match lease::probe(file) {
            Writer::Absent if !self.tells_writers() => Writer::Unknown,
            answer @ (Writer::Absent | Writer::Present | Writer::Unknown) => answer,
        }
    }
}

/// Whether a file system of this type may have writers that the kernel does not know.
pub(super) fn is_remote(kind: &str) -> bool {
    REMOTE.contains(&kind) || kind.starts_with("fuse.")
}

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(kind) => write!(f, "{}", Escaped::new(&**kind)),
            None => f.write_str("a file system of unknown type"),
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
    /// What statx(2) says, or reading mountinfo.
    pub(crate) fn file_system(&self) -> Result<FileSystem> {
        Ok(FileSystem(mount::find(self.stat()?.mount)?.map(|mount| mount.kind)))
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

    fn of_type(kind: &str) -> FileSystem {
        FileSystem(Some(kind.into()))
    }

    #[test]
    fn w10_what_events_cannot_be_relied_on_for_is_known_by_name() {
        for (kind, is_remote) in [
            ("nfs4", true),
            ("9p", true),
            ("fuse.sshfs", true),
            ("fuseblk", true),
            ("virtiofs", true),
            ("ext4", false),
            ("vfat", false),
            ("never-heard-of", false),
        ] {
            assert_eq!(of_type(kind).is_remote(), is_remote, "{kind}");
        }
    }

    #[test]
    fn s2_no_writer_is_believed_only_where_all_are_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let writer = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        let everywhere = ["ext4", "xfs", "tmpfs", "overlay", "fuse.bindfs", "never-heard-of"];
        // One that the lease tells of is one wherever it is.
        assert!(everywhere.iter().all(|kind| of_type(kind).probe(&reader) == Writer::Present));
        assert_eq!(FileSystem(None).probe(&reader), Writer::Present);
        drop(writer);
        let answers = everywhere.map(|kind| of_type(kind).probe(&reader) == Writer::Absent);
        assert_eq!(answers, [true, true, true, false, false, false]);
        assert_eq!(FileSystem(None).probe(&reader), Writer::Unknown);
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
        assert_eq!(proc.file_system().unwrap().to_string(), "proc");
    }
}
