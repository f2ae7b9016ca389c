//! Types of file systems, and what is known of each.

use std::fmt;
use std::fs::File;

use super::lease::{self, Writer};
use crate::escape::Escaped;

/// The type of a file system, as mountinfo names it (proc_pid_mountinfo(5)): `ext4`, `fuse.sshfs`.
///
/// Not the number that statfs(2) gives: a file server may hand on that of its own disk, as QEMU's
/// 9p does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
    /// That of a name in mountinfo.
    pub(super) fn named(kind: &str) -> Self {
        Self(Some(kind.into()))
    }

    /// Whether this is its name.
    pub(super) fn is(&self, kind: &str) -> bool {
        self.0.as_deref() == Some(kind)
    }

    /// Whether changes can be made there that the kernel does not tell about.
    pub(crate) fn is_remote(&self) -> bool {
        self.0.as_deref().is_some_and(|kind| REMOTE.contains(&kind) || kind.starts_with("fuse."))
    }

    /// Whether a granted lease says that nobody has the file open for writing.
    pub(crate) fn tells_writers(&self) -> bool {
        TELLS_WRITERS.contains(&self.0.as_deref().unwrap_or_default())
    }

    /// Whether a file keeps its inode number for as long as it exists, whatever is mounted anew.
    pub(crate) fn keeps_inodes(&self) -> bool {
        let kind = self.0.as_deref().unwrap_or_default();
        TELLS_WRITERS.contains(&kind) || ["nfs", "nfs4"].contains(&kind)
    }

    /// Whether it is known to keep modes and owners as they are set.
    pub(crate) fn keeps_modes(&self) -> bool {
        TELLS_WRITERS.contains(&self.0.as_deref().unwrap_or_default())
    }

    /// Whether it has no modes of its own: what its mount shows of one directory, it shows of all.
    pub(crate) fn has_no_modes(&self) -> bool {
        matches!(self.0.as_deref(), Some("vfat" | "msdos" | "exfat"))
    }

    /// [`Self::options_for_modes`], unless it is known to keep modes.
    pub(crate) fn options_if_no_modes(&self) -> Option<&'static str> {
        (!self.keeps_modes()).then(|| self.options_for_modes())
    }

    /// The options by which it has a directory of one user alone, where it does not keep modes.
    pub(crate) fn options_for_modes(&self) -> &'static str {
        match self.0.as_deref().unwrap_or_default() {
            "vfat" | "msdos" | "exfat" => "uid= of the daemon and dmask=077,fmask=177",
            "cifs" | "smb3" | "smbfs" => "uid= of the daemon and dir_mode=0700,file_mode=0600",
            "fuseblk" | "ntfs" | "ntfs3" | "fuse.ntfs-3g" => "uid= of the daemon and umask=077",
            "fuse.rclone" => "--uid of the daemon, --dir-perms 0700 and --file-perms 0600",
            "9p" | "vboxsf" => "uid= of the daemon and dmode=0700,fmode=0600",
            kind if kind.starts_with("fuse") => {
                "default_permissions, uid= of the daemon and umask=077, as far as it knows them"
            }
            _ => "options by which its directories are the daemon's own, mode 0700",
        }
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

impl fmt::Display for FileSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(kind) => write!(f, "{}", Escaped::new(&**kind)),
            None => f.write_str("a file system of unknown type"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(FileSystem::named(kind).is_remote(), is_remote, "{kind}");
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
        assert!(everywhere.iter().all(|kind| FileSystem::named(kind).probe(&reader) == Writer::Present));
        assert_eq!(FileSystem::default().probe(&reader), Writer::Present);
        drop(writer);
        let answers = everywhere.map(|kind| FileSystem::named(kind).probe(&reader) == Writer::Absent);
        assert_eq!(answers, [true, true, true, false, false, false]);
        assert_eq!(FileSystem::default().probe(&reader), Writer::Unknown);
    }
}
