//! Mounts, as /proc/self/mountinfo tells of them (proc_pid_mountinfo(5)).
//!
//! It has no line of a mount that this process cannot reach from its root directory, as after
//! chroot(2).

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use rustix::fs::StatVfsMountFlags;
use rustix::io::Errno;

use super::file_system::FileSystem;
use super::{FsError, Result};

/// Where they are told.
const MOUNTINFO: &str = "/proc/self/mountinfo";

/// A line of it. Paths are as they stand there, with special characters escaped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// The number of the mount that this one lies on.
    parent: u64,
    /// The device of the file system: the same for all that is mounted of it.
    device: String,
    /// Which directory of the file system is seen.
    root: String,
    /// Where it is seen.
    point: String,
    /// Whether what is mounted elsewhere is mounted here too, or the other way round.
    is_propagated: bool,
    /// The type of the file system.
    pub(super) file_system: FileSystem,
    /// Whether the file system itself is read-only, and not this mount of it alone.
    is_whole_read_only: bool,
}

/// The mount of this number, as statx(2) gives it; nothing if it is not told of.
///
/// # Errors
/// What reading says.
pub(super) fn find(mount: u64) -> Result<Option<Mount>> {
    Ok(find_in(&read()?, mount))
}

/// Where the mount of this number is seen; nothing if it is not told of.
///
/// # Errors
/// What reading says.
pub(super) fn point(mount: u64) -> Result<Option<PathBuf>> {
    Ok(find(mount)?.map(|mount| unescaped(&mount.point).into()))
}

/// The type of what is mounted so; nothing if it is not told of.
pub(super) fn file_system(mount: u64) -> Option<FileSystem> {
    Some(find(mount).ok()??.file_system)
}

fn read() -> Result<String> {
    let failed =
        |e: io::Error| FsError::new("read", MOUNTINFO, Errno::from_io_error(&e).unwrap_or(Errno::IO));
    let text = std::fs::read(MOUNTINFO).map_err(failed)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn find_in(text: &str, mount: u64) -> Option<Mount> {
    text.lines().find_map(|line| parse(line, mount))
}

/// What a line says, if it is of this mount.
fn parse(line: &str, mount: u64) -> Option<Mount> {
    // The fields before the separator are a variable number; a space in a path is escaped.
    let (of_mount, of_whole) = line.split_once(" - ")?;
    let mut of_mount = of_mount.split(' ');
    if of_mount.next()?.parse() != Ok(mount) {
        return None;
    }
    let mut of_whole = of_whole.splitn(3, ' ');
    Some(Mount {
        parent: of_mount.next()?.parse().ok()?,
        device: of_mount.next()?.to_owned(),
        root: of_mount.next()?.to_owned(),
        point: of_mount.next()?.to_owned(),
        is_propagated: of_mount.skip(1).any(|tag| tag.starts_with("shared:") || tag.starts_with("master:")),
        file_system: FileSystem::named(of_whole.next()?),
        // The kernel's own flag comes first; what the file system adds may be anything.
        is_whole_read_only: of_whole.nth(1)?.split(',').next() == Some("ro"),
    })
}

impl Mount {
    /// Whether what is read-only by this mount can be written to by nobody but root; `below` is the
    /// mount that it lies on.
    ///
    /// That it is read-only here says little: a sandbox of systemd has nearly everything read-only,
    /// while others write to the very same files. But what a container is given (a ConfigMap, a
    /// Secret) lies elsewhere, where only who gives it can get at it: another directory of another
    /// file system than what it lies on, or a tmpfs of its own. A sandbox mounts directories where
    /// they are (on a disk of their own, or as subvolumes, they too have another path there), and
    /// its mounts still follow those of the host, which a container's do not.
    fn is_closed_to_others(&self, below: Option<&Self>) -> bool {
        let is_from_elsewhere = self.root != self.point
            && (self.root != "/" || self.file_system.is("tmpfs"))
            && !self.is_propagated
            && below.is_some_and(|below| below.device != self.device);
        // Those who write to the others may do so past any mount of this machine.
        !self.file_system.is_remote() && (self.is_whole_read_only || is_from_elsewhere)
    }
}

/// Whether what is open lies on a read-only mount, and cannot be written to elsewhere either.
pub(super) fn is_read_only_for_all(fd: impl AsFd, mount: u64) -> bool {
    let is_read_only = rustix::fs::fstatvfs(fd).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY));
    is_read_only && read().is_ok_and(|text| is_closed_in(&text, mount))
}

fn is_closed_in(text: &str, mount: u64) -> bool {
    find_in(text, mount).is_some_and(|found| found.is_closed_to_others(find_in(text, found.parent).as_ref()))
}

/// A path as mountinfo has it, where a backslash and three octal digits stand for a byte.
fn unescaped(path: &str) -> OsString {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code =
            after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;

    /// Each mount with its number, type, and whether it is closed to others if it is read-only. All
    /// lie on the first, or on one another.
    const MOUNTS: [(u64, &str, bool, &str); 17] = [
        (36, "ext3", false, "36 35 98:0 / / ro,noatime master:1 - ext3 /dev/root rw,errors=continue"),
        (40, "squashfs", true, "40 36 7:0 / / ro - squashfs /dev/loop0 ro"),
        // As systemd does it: ReadOnlyPaths=, and of a disk.
        (41, "ext4", false, "41 36 98:0 /etc/kms-sig /etc/kms-sig ro - ext4 /dev/root rw"),
        (42, "xfs", false, "42 36 98:1 / /srv ro - xfs /dev/sdb1 rw"),
        // As a container is given a ConfigMap, and a Secret.
        (43, "ext4", true, "43 36 98:9 /var/lib/kubelet/x /etc/kms-sig ro - ext4 /dev/root rw"),
        (44, "tmpfs", true, "44 36 0:60 / /etc/kms-sig ro - tmpfs tmpfs rw,size=64k"),
        (
            136,
            "fuse.sshfs",
            false,
            "136 36 0:50 / /a\\040-\\040b rw shared:2 master:1 - fuse.sshfs h: rw,ron",
        ),
        (37, "9p", false, "37 36 0:51 / /out rw - 9p share rw"),
        // A directory of a disk of its own where it is, by ReadOnlyPaths=; /tmp, by
        // ProtectSystem=strict; subvolumes, by the same, and where nothing is propagated.
        (45, "xfs", false, "45 42 98:1 /data /srv/data ro - xfs /dev/sdb1 rw"),
        (46, "tmpfs", false, "46 36 0:61 / /tmp ro shared:9 master:3 - tmpfs tmpfs rw"),
        (47, "btrfs", false, "47 36 0:62 /@ /mnt ro shared:8 master:2 - btrfs /dev/sdc rw,subvol=/@"),
        (48, "btrfs", false, "48 47 0:62 /@home /mnt/home ro - btrfs /dev/sdc rw,subvol=/@home"),
        // As BindReadOnlyPaths= gives it, from a disk of its own.
        (49, "xfs", false, "49 36 98:1 /data /etc/kms-sig ro shared:7 master:4 - xfs /dev/sdb1 rw"),
        // Read-only for this machine alone.
        (50, "nfs4", false, "50 36 0:63 / /etc/kms-sig ro - nfs4 host:/export ro,vers=4.2"),
        (51, "fuse.x", false, "51 36 0:64 /etc /etc/kms-sig ro - fuse.x x ro,user_id=1000"),
        // What a file system says of itself is no flag of the kernel's.
        (52, "xfs", false, "52 36 98:3 / /srv ro - xfs /dev/sdd rw,ro"),
        // On nothing that is told of.
        (53, "ext4", false, "53 1 98:4 /a / ro - ext4 /dev/sde rw"),
    ];

    #[test]
    fn paths_of_mountinfo_are_read_as_they_are() {
        for (told, path) in [("/a", "/a"), ("/a\\040b\\134c", "/a b\\c"), ("/\\", "/\\"), ("/\\09", "/\\09")]
        {
            assert_eq!(unescaped(told).as_bytes(), path.as_bytes(), "{told}");
        }
    }

    #[test]
    fn p7_a_line_says_what_lies_there_and_whether_others_can_get_at_it() {
        let all = MOUNTS.map(|(.., line)| line).join("\n");
        for (mount, kind, is_closed, line) in MOUNTS {
            let found = parse(line, mount).unwrap();
            assert_eq!((found.file_system.is(kind), is_closed_in(&all, mount)), (true, is_closed), "{line}");
            assert_eq!(parse(line, mount + 100), None, "{line}");
        }
        assert_eq!(parse("36 35 98:0 /", 36), None);
    }
}
