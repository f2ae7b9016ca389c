//! What `statx` says of a file, and what a file must be to be handled.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags};
use rustix::io::Errno;

use super::{FsError, Result};
use crate::clock::FileTime;

/// What tells one version of one file from every other: any change of content, and most of anything
/// else, changes it. The sender can forge mtime but not ctime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Device number. Compared in memory, never stored: it changes with a remount.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Last modification, settable by the owner.
    pub mtime: FileTime,
    /// Last change of inode or content, not settable.
    pub ctime: FileTime,
}

impl Identity {
    /// The same file with other times. What it holds may be other content of the same size.
    pub(crate) fn is_touched_from(&self, before: &Self) -> bool {
        (self.dev, self.ino, self.size) == (before.dev, before.ino, before.size)
    }

    /// The same file with the same content, as far as a rename lets one tell: a rename changes the
    /// ctime, and EncFS cuts the mtime to whole seconds, which no change of content does.
    pub(crate) fn is_renamed_from(&self, before: &Self) -> bool {
        let is_cut = self.mtime == FileTime { nanos: 0, ..before.mtime };
        (self.dev, self.ino, self.size) == (before.dev, before.ino, before.size)
            && (self.mtime == before.mtime || is_cut)
    }
}

/// What kind of thing a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link; never followed.
    Symlink,
    /// FIFO, socket or device; never opened.
    Special,
}

/// What `statx` says of a name, without following it.
#[derive(Debug, Clone, Copy)]
pub struct Stat {
    /// Which version of which file.
    pub identity: Identity,
    /// What kind of thing.
    pub kind: Kind,
    /// Permission bits, set-id and sticky bits: the low twelve bits of the mode.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links.
    pub links: u32,
    /// The mount it lies on; 0 where the kernel does not say.
    pub mount: u64,
}

/// What a file must be before it is opened.
#[derive(Debug, Clone)]
pub struct Fitness {
    /// The largest size, in bytes.
    pub max_size: u64,
    /// The most hard links.
    pub max_links: u32,
    /// Whose files; `None` for anyone's.
    pub owners: Option<Vec<u32>>,
}

/// What is no regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Irregular {
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Something is mounted there.
    MountPoint,
    /// FIFO, socket or device.
    Special,
}

impl Irregular {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Directory, Self::Symlink, Self::MountPoint, Self::Special];

    /// The code used in state.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Directory => "directory",
            Self::Symlink => "symlink",
            Self::MountPoint => "mount-point",
            Self::Special => "special",
        }
    }

    /// What a code of [`Irregular::as_str`] stands for.
    pub(crate) fn parse(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|what| what.as_str() == code)
    }
}

impl fmt::Display for Irregular {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Directory => "a directory",
            Self::Symlink => "a symbolic link",
            Self::MountPoint => "a mount point",
            Self::Special => "a FIFO, socket or device",
        })
    }
}

/// Why a file is not handled as it is. Its words go on after "it", or after the name of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// A link, directory, FIFO, socket or device.
    #[error("is {0}, and only regular files are handled")]
    NotRegular(Irregular),
    /// More hard links than allowed: another name could change it.
    #[error("has {links} hard links; max_links allows {max}")]
    Links {
        /// How many it has.
        links: u32,
        /// How many are allowed.
        max: u32,
    },
    /// Larger than allowed.
    #[error("has {size} bytes; max_size allows {max}")]
    TooLarge {
        /// How large it is, as far as is known.
        size: u64,
        /// How large it may be.
        max: u64,
    },
    /// Not one of the owners allowed.
    #[error("belongs to user {0}, who is not among allowed_owners")]
    Owner(u32),
    /// Set-user-id or set-group-id.
    #[error("is set-user-id or set-group-id")]
    SetId,
}

impl Fitness {
    /// Whether a file of this `stat` may be opened.
    ///
    /// # Errors
    /// The first reason why not.
    pub(crate) fn check(&self, stat: &Stat) -> std::result::Result<(), Unfit> {
        match stat.kind {
            Kind::File => {}
            Kind::Directory => return Err(Unfit::NotRegular(Irregular::Directory)),
            Kind::Symlink => return Err(Unfit::NotRegular(Irregular::Symlink)),
            Kind::Special => return Err(Unfit::NotRegular(Irregular::Special)),
        }
        if stat.links > self.max_links {
            return Err(Unfit::Links { links: stat.links, max: self.max_links });
        }
        if stat.identity.size > self.max_size {
            return Err(Unfit::TooLarge { size: stat.identity.size, max: self.max_size });
        }
        if self.owners.as_ref().is_some_and(|owners| !owners.contains(&stat.uid)) {
            return Err(Unfit::Owner(stat.uid));
        }
        if stat.mode & 0o6000 != 0 {
            return Err(Unfit::SetId);
        }
        Ok(())
    }
}

/// What an open file is now.
///
/// # Errors
/// What statx(2) says.
pub fn stat_file(file: &File, path: &Path) -> Result<Stat> {
    stat_fd(file).map_err(|e| FsError::new("examine", path, e))
}

pub(super) fn stat_fd(fd: &impl AsFd) -> rustix::io::Result<Stat> {
    statx(fd.as_fd(), OsStr::new(""), AtFlags::EMPTY_PATH)
}

pub(super) fn statx(dir: BorrowedFd<'_>, name: &OsStr, flags: AtFlags) -> rustix::io::Result<Stat> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let mut x = rustix::fs::statx(dir, name, flags, wanted)?;
    if x.stx_nlink > 1 && FileType::from_raw_mode(u32::from(x.stx_mode)) == FileType::RegularFile {
        // On a file system of FUSE or of another machine what is known of a file may be a second
        // old, and a link that is gone may still be counted: one of our own, of a moment ago.
        x = rustix::fs::statx(dir, name, flags | AtFlags::STATX_FORCE_SYNC, wanted)?;
    }
    let time = |t: rustix::fs::StatxTimestamp| FileTime { seconds: t.tv_sec, nanos: t.tv_nsec };
    Ok(Stat {
        identity: Identity {
            dev: rustix::fs::makedev(x.stx_dev_major, x.stx_dev_minor),
            ino: x.stx_ino,
            size: x.stx_size,
            mtime: time(x.stx_mtime),
            ctime: time(x.stx_ctime),
        },
        kind: match FileType::from_raw_mode(u32::from(x.stx_mode)) {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => Kind::Special,
        },
        mode: u32::from(x.stx_mode) & 0o7777,
        uid: x.stx_uid,
        gid: x.stx_gid,
        links: x.stx_nlink,
        mount: x.stx_mnt_id,
    })
}

impl Stat {
    /// Whether both are one directory, seen on the same mount.
    pub(crate) fn is_same_place(&self, other: &Self) -> bool {
        (self.identity.dev, self.identity.ino, self.mount)
            == (other.identity.dev, other.identity.ino, other.mount)
    }

    /// Whether its file system is that of one block device. The others (FUSE, network, memory,
    /// btrfs) have a device number without a major one.
    pub(super) fn is_of_a_disk(&self) -> bool {
        rustix::fs::major(self.identity.dev) != 0
    }
}

/// What stands at a path that the policy names, without following a symlink in its last component.
///
/// # Errors
/// What statx(2) says, but for `ENOENT`.
pub fn stat_path(path: &Path) -> Result<Option<Stat>> {
    match statx(CWD, path.as_os_str(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(FsError::new("examine", path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_must_be_is_checked_to_the_bit() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let stat = stat_file(temp.as_file(), temp.path()).unwrap();
        let file =
            Stat { mode: 0o755, uid: 7, links: 2, identity: Identity { size: 3, ..stat.identity }, ..stat };
        let fitness = Fitness { max_size: 3, max_links: 2, owners: Some(vec![6, 7]) };
        assert_eq!(fitness.check(&file), Ok(()));
        assert_eq!(Fitness { owners: None, ..fitness.clone() }.check(&Stat { uid: 8, ..file }), Ok(()));
        let large = Identity { size: 4, ..file.identity };
        for (stat, unfit) in [
            (Stat { links: 3, ..file }, Unfit::Links { links: 3, max: 2 }),
            (Stat { identity: large, ..file }, Unfit::TooLarge { size: 4, max: 3 }),
            (Stat { uid: 8, ..file }, Unfit::Owner(8)),
            (Stat { mode: 0o4755, ..file }, Unfit::SetId),
            (Stat { mode: 0o2755, ..file }, Unfit::SetId),
            (Stat { kind: Kind::Special, ..file }, Unfit::NotRegular(Irregular::Special)),
        ] {
            assert_eq!(fitness.check(&stat), Err(unfit));
        }
    }
}
