//! Mounts, as /proc/self/mountinfo tells of them (proc_pid_mountinfo(5)).
//!
//! It has no line of a mount that this process cannot reach from its root directory, as after
//! chroot(2).

use std::io;
use std::os::fd::AsFd;

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;

use super::{FsError, Result};

/// Where they are told.
const MOUNTINFO: &str = "/proc/self/mountinfo";

/// A line of it. Paths are as they stand there, with special characters escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// Which directory of the file system is seen.
    root: String,
    /// Where it is seen.
    point: String,
    /// The type of the file system.
    pub(super) kind: Box<str>,
    /// Whether the file system itself is read-only, and not this mount of it alone.
    is_whole_read_only: bool,
}

/// The mount of this number, as statx(2) gives it; nothing if it is not told of.
///
/// # Errors
/// What reading says.
pub(super) fn find(mount: u64) -> Result<Option<Mount>> {
    let failed =
        |e: io::Error| FsError::new("read", MOUNTINFO, Errno::from_io_error(&e).unwrap_or(Errno::IO));
    let text = std::fs::read(MOUNTINFO).map_err(failed)?;
    Ok(String::from_utf8_lossy(&text).lines().find_map(|line| parse(line, mount)))
}

/// What a line says, if it is of this mount.
fn parse(line: &str, mount: u64) -> Option<Mount> {
    // The fields before the separator are a variable number; a space in a path is escaped.
    let (of_mount, of_whole) = line.split_once(" - ")?;
    let mut of_mount = of_mount.split(' ');
    if of_mount.next()?.parse() != Ok(mount) {
        return None;
    }
    let mut of_mount = of_mount.skip(2); // its parent, and the device
    let mut of_whole = of_whole.splitn(3, ' ');
    Some(Mount {
        root: of_mount.next()?.to_owned(),
        point: of_mount.next()?.to_owned(),
        kind: of_whole.next()?.into(),
        is_whole_read_only: of_whole.nth(1)?.split(',').any(|option| option == "ro"),
    })
}

impl Mount {
    /// Whether what is read-only by this mount can be written to by nobody but root.
    ///
    /// That it is read-only here says little: a sandbox of systemd has nearly everything read-only,
    /// while others write to the very same files. But what a container is given (a ConfigMap, a
    /// Secret) lies elsewhere, where only who gives it can get at it: another directory of its file
    /// system, or a tmpfs of its own.
    fn is_closed_to_others(&self) -> bool {
        let is_from_elsewhere = self.root != self.point && (self.root != "/" || &*self.kind == "tmpfs");
        self.is_whole_read_only || is_from_elsewhere
    }
}

/// Whether what is open lies on a read-only mount, and cannot be written to elsewhere either.
pub(super) fn is_read_only_for_all(fd: impl AsFd, mount: u64) -> bool {
    let is_read_only = rustix::fs::fstatvfs(fd).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY));
    is_read_only && find(mount).is_ok_and(|found| found.is_some_and(|mount| mount.is_closed_to_others()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each mount with its number, type, and whether it is closed to others if it is read-only.
    const MOUNTS: [(u64, &str, bool, &str); 8] = [
        (36, "ext3", false, "36 35 98:0 / / ro,noatime master:1 - ext3 /dev/root rw,errors=continue"),
        (40, "squashfs", true, "40 36 7:0 / / ro - squashfs /dev/loop0 ro"),
        // As systemd does it: ReadOnlyPaths=, and of a disk.
        (41, "ext4", false, "41 36 98:0 /etc/kms-sig /etc/kms-sig ro - ext4 /dev/root rw"),
        (42, "xfs", false, "42 36 98:1 / /srv ro - xfs /dev/sdb1 rw"),
        // As a container is given a ConfigMap, and a Secret.
        (43, "ext4", true, "43 36 98:0 /var/lib/kubelet/x /etc/kms-sig ro - ext4 /dev/root rw"),
        (44, "tmpfs", true, "44 36 0:60 / /etc/kms-sig ro - tmpfs tmpfs rw,size=64k"),
        (
            136,
            "fuse.sshfs",
            false,
            "136 36 0:50 / /a\\040-\\040b rw shared:2 master:1 - fuse.sshfs h: rw,ron",
        ),
        (37, "9p", false, "37 36 0:51 / /out rw - 9p share rw"),
    ];

    #[test]
    fn p7_a_line_says_what_lies_there_and_whether_others_can_get_at_it() {
        for (mount, kind, is_closed, line) in MOUNTS {
            let found = parse(line, mount).unwrap();
            assert_eq!((&*found.kind, found.is_closed_to_others()), (kind, is_closed), "{line}");
            assert_eq!(parse(line, mount + 100), None, "{line}");
        }
        assert_eq!(parse("36 35 98:0 /", 36), None);
    }
}
