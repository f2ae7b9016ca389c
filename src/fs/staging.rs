//! Files without a name: written whole, made durable, and only then published.
//!
//! `O_TMPFILE` in the destination directory, so that publishing is a link and a crash leaves
//! nothing. Where the file system has none, a name `.kms-sig-…` stands in, removed on drop and
//! swept at start; and where it has no hard links either (vfat), that name is renamed, never
//! over anything.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::flush::Written;
use super::{Action, Dir, FsError, Kind, Result, Stat, proc_path, stat_file};

/// What names of our own begin with: staging files and the directory of claims. Never candidates
/// (P6).
pub(crate) const RESERVED_PREFIX: &str = ".kms-sig";

/// A file being written, in the directory where it will be published.
#[derive(Debug)]
pub struct Staging {
    file: File,
    dir: Dir,
    /// The stand-in name where there is no `O_TMPFILE`.
    name: Option<OsString>,
    /// Whether the stand-in name became the public one.
    is_renamed: AtomicBool,
}

/// Whose a name is until something is published under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Names {
    /// Anybody may take it at any moment.
    Anybodys,
    /// Nobody but this program gives names there.
    Ours,
}

/// How publishing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Publish {
    /// The name now shows this file.
    Done,
    /// Something has the name already; nothing changed.
    Exists,
}

impl Staging {
    /// A new file, mode 0600, invisible.
    ///
    /// # Errors
    /// What open(2) says: `ENOSPC`, `EROFS`, `EACCES`, `EMFILE`.
    pub(crate) fn new(dir: &Dir) -> Result<Self> {
        Self::nameless(dir)?.map_or_else(|| Self::named(dir), Ok)
    }

    /// Like [`Staging::new`], but `None` where there is no `O_TMPFILE`: for directories where
    /// others could swap a stand-in name.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn nameless(dir: &Dir) -> Result<Option<Self>> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::openat(dir, ".", flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => Ok(Some(Self::made(fd.into(), dir, None))),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(e) => Err(FsError::new("stage a file in", dir.path(), e)),
        }
    }

    /// A new file for the directory `below` in `root`, which need not be there yet. It is made in
    /// the deepest one that is, so that it has the group that a set-group-id directory there gives.
    ///
    /// # Errors
    /// As [`Staging::new`].
    pub(crate) fn below(root: &Dir, below: &Path) -> Result<Self> {
        let dir = root.descend_while_there(below);
        // A stand-in name lies where it is swept.
        Self::nameless(&dir)?.map_or_else(|| Self::named(root), Ok)
    }

    fn named(dir: &Dir) -> Result<Self> {
        let name = fresh_name();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, &name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| FsError::new("stage a file in", dir.path(), e))?;
        Ok(Self::made(fd.into(), dir, Some(name)))
    }

    fn made(file: File, dir: &Dir, name: Option<OsString>) -> Self {
        Self { file, dir: dir.clone(), name, is_renamed: AtomicBool::new(false) }
    }

    /// A new file holding `bytes`.
    ///
    /// # Errors
    /// As [`Staging::new`], and of write(2).
    pub fn holding(dir: &Dir, bytes: &[u8]) -> Result<Self> {
        Self::new(dir)?.and_holding(bytes)
    }

    /// This file, holding `bytes`.
    ///
    /// # Errors
    /// Of write(2).
    pub(crate) fn and_holding(mut self, bytes: &[u8]) -> Result<Self> {
        self.file.write_all(bytes).map_err(|e| self.failed("write a file in", &e))?;
        Ok(self)
    }

    /// Gives the file the group that it would have been made with in the directory `dir`, where
    /// that is set-group-id.
    ///
    /// # Errors
    /// What fchown(2) says: `EPERM` to who is not in that group.
    pub(crate) fn take_group(&self, dir: &Stat) -> Result<()> {
        if dir.mode & 0o2000 == 0 || self.stat()?.gid == dir.gid {
            return Ok(());
        }
        rustix::fs::fchown(&self.file, None, Some(Gid::from_raw(dir.gid)))
            .map_err(|e| FsError::new("set the group of a file in", self.dir.path(), e))
    }

    /// What the file is now.
    ///
    /// # Errors
    /// What statx(2) says.
    pub(crate) fn stat(&self) -> Result<Stat> {
        stat_file(&self.file, self.dir.path())
    }

    /// The file, to write to and read from.
    pub(crate) const fn file(&self) -> &File {
        &self.file
    }

    /// The directory it will appear in.
    pub(crate) const fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Reads everything back from the start, at most `limit` bytes.
    ///
    /// # Errors
    /// What read(2) says.
    pub(crate) fn read_back(&self, limit: u64) -> Result<Vec<u8>> {
        let mut file = &self.file;
        let mut bytes = Vec::new();
        file.rewind()
            .and_then(|()| file.take(limit).read_to_end(&mut bytes))
            .map_err(|e| self.failed("read back a file in", &e))?;
        Ok(bytes)
    }

    /// Sets the mode and makes content and mode durable. After an error the file must be dropped:
    /// what the kernel failed to write it may have forgotten (fsync(2)), and a second fsync would
    /// lie (C7).
    ///
    /// # Errors
    /// What fchmod(2) and fsync(2) say.
    pub(crate) fn set_mode_and_sync(&self, mode: u32) -> Result<()> {
        self.set_mode(mode)?;
        self.written().flush()
    }

    /// Sets the mode.
    ///
    /// # Errors
    /// What fchmod(2) says.
    pub(crate) fn set_mode(&self, mode: u32) -> Result<()> {
        rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode))
            .map_err(|e| FsError::new("set the mode of a file in", self.dir.path(), e))
    }

    /// Content and mode, to be made durable. After an error the file must be dropped, as for
    /// [`Staging::set_mode_and_sync`].
    pub fn written(&self) -> Written<'_> {
        Written::new(&self.file, "sync a file in", self.dir.path())
    }

    /// Gives the file a name in `dir`, on the same file system, never replacing anything (P8). The
    /// caller syncs the directory.
    ///
    /// # Errors
    /// What link(2) and rename(2) say, but for `EEXIST`; [`Action::Publish`] where the file system
    /// has no way that replaces nothing.
    pub(crate) fn publish(&self, dir: &Dir, name: &OsStr) -> Result<Publish> {
        self.publish_where(dir, name, Names::Anybodys)
    }

    /// [`Staging::publish`], in a directory where nobody but this program gives names. A look at
    /// the name is enough there, where the file system cannot refuse to replace.
    ///
    /// # Errors
    /// What link(2) and rename(2) say, but for `EEXIST`.
    pub(crate) fn publish_to_ours(&self, dir: &Dir, name: &OsStr) -> Result<Publish> {
        self.publish_where(dir, name, Names::Ours)
    }

    fn publish_where(&self, dir: &Dir, name: &OsStr, names: Names) -> Result<Publish> {
        let linked = match &self.name {
            None => {
                let own = proc_path(self.file.as_fd());
                rustix::fs::linkat(CWD, own, dir, name, AtFlags::SYMLINK_FOLLOW)
            }
            Some(own) => rustix::fs::linkat(&self.dir, own, dir, name, AtFlags::empty()),
        };
        match (linked, &self.name) {
            (Ok(()), _) => Ok(Publish::Done),
            (Err(Errno::EXIST), _) => Ok(Publish::Exists),
            (Err(e), Some(own)) if has_no_links(e) => self.rename(own, dir, name, names),
            (Err(e), _) => Err(FsError::new("publish", dir.path().join(name), e)),
        }
    }

    fn rename(&self, own: &OsStr, dir: &Dir, name: &OsStr, names: Names) -> Result<Publish> {
        let failed = |action: Action, e| Err(FsError::new(action, dir.path().join(name), e));
        let renamed = match rustix::fs::renameat_with(&self.dir, own, dir, name, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if names == Names::Ours => {
                match dir.stat_of(name)? {
                    Some(_) => Err(Errno::EXIST),
                    None => rustix::fs::renameat(&self.dir, own, dir, name),
                }
            }
            renamed => renamed,
        };
        match renamed {
            Ok(()) => {
                self.is_renamed.store(true, Ordering::Relaxed);
                Ok(Publish::Done)
            }
            Err(Errno::EXIST) => Ok(Publish::Exists),
            Err(e @ (Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP)) => failed(Action::Publish, e),
            Err(e) => failed("publish".into(), e),
        }
    }

    fn failed(&self, action: &'static str, error: &std::io::Error) -> FsError {
        FsError::new(action, self.dir.path(), Errno::from_io_error(error).unwrap_or(Errno::IO))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Some(name) = self.name.as_ref().filter(|_| !self.is_renamed.load(Ordering::Relaxed)) {
            // Nothing to be done about a failure; the sweep at start finds what is left.
            self.dir.unlink(name).unwrap_or_default();
        }
    }
}

/// What link(2) says where there are no hard links: Linux itself (vfat, FUSE without the call), and
/// file systems in user space (s3fs, CryFS, rclone).
const fn has_no_links(error: Errno) -> bool {
    matches!(
        error,
        Errno::PERM
            | Errno::OPNOTSUPP
            | Errno::NOSYS
            | Errno::INVAL
            | Errno::RANGE
            | Errno::IO
            | Errno::MLINK
    )
}

impl Dir {
    /// Finds out by doing it whether what is written here whole can be given a name that may be
    /// anybody's. Leaves nothing behind; where there is `O_TMPFILE`, nothing shows either.
    ///
    /// # Errors
    /// [`Action::Publish`] where it cannot; whatever else keeps files from being made.
    pub(crate) fn try_publishing(&self) -> Result<()> {
        if Staging::nameless(self)?.is_some() {
            return Ok(()); // who has these has links
        }
        let (staging, name) = (Staging::named(self)?, fresh_name());
        // Not with the random name: who tells of it tells the same each time.
        staging.publish(self, &name).map_err(|e| FsError { path: self.path().to_owned(), ..e })?;
        self.unlink(&name)
    }
}

/// A name that nobody else uses: the reserved prefix and 96 random bits.
pub(crate) fn fresh_name() -> OsString {
    OsString::from(format!("{RESERVED_PREFIX}-{}", random_hex()))
}

/// 24 random hexadecimal digits.
pub(crate) fn random_hex() -> String {
    let mut bytes = [0_u8; 12];
    // Cannot fail for so few bytes once the kernel is up (getrandom(2)).
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap_or_default();
    hex::encode(bytes)
}

/// Removes stand-in names that a killed process left in `dir`: regular files of our own user only.
///
/// # Errors
/// What listing or removing says.
pub(crate) fn sweep(dir: &Dir) -> Result<()> {
    let me = rustix::process::geteuid().as_raw();
    for name in dir.names()? {
        let name = name?;
        let rest = name.as_encoded_bytes().strip_prefix(RESERVED_PREFIX.as_bytes());
        if !rest.is_some_and(|rest| rest.len() == 25 && rest.starts_with(b"-")) {
            continue;
        }
        if dir.stat_of(&name)?.is_some_and(|s| s.kind == Kind::File && s.uid == me) {
            dir.unlink(&name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::super::tests::{USER, as_user, chmod, is_root, opened_in, users};
    use super::*;

    fn names(path: &Path) -> Vec<OsString> {
        let mut names: Vec<_> = Dir::open(path).unwrap().names().unwrap().map(Result::unwrap).collect();
        names.sort();
        names
    }

    #[test]
    fn p4_nothing_shows_before_publishing_and_nothing_is_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        for (stage, is_hidden) in [(Staging::new as fn(&Dir) -> _, true), (Staging::named, false)] {
            let mut staging = stage(&dir).unwrap();
            assert_eq!(names(temp.path()).is_empty(), is_hidden);
            assert_eq!(
                stat_file(&staging.file, temp.path()).unwrap().mode,
                0o600,
                "nobody else's until its mode is set"
            );
            let flags: Vec<_> = opened_in(temp.path()).into_iter().skip(1).map(|(_, flags)| flags).collect();
            assert_eq!(flags, [OFlags::RDWR | OFlags::CLOEXEC], "of no other program");
            staging.file.write_all(b"content").unwrap();
            assert!(!temp.path().join("out").exists());
            staging.set_mode_and_sync(0o640).unwrap();
            assert_eq!(staging.publish(&dir, OsStr::new("out")).unwrap(), Publish::Done);
            assert_eq!(staging.publish(&dir, OsStr::new("out")).unwrap(), Publish::Exists);
            drop(staging);
            assert_eq!(names(temp.path()), ["out"]);
            assert_eq!(dir.stat_of(OsStr::new("out")).unwrap().unwrap().mode, 0o640);
            dir.unlink(OsStr::new("out")).unwrap();
        }
    }

    #[test]
    fn a22_a_symlink_at_the_name_is_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        symlink("elsewhere", temp.path().join("out")).unwrap();
        let staging = Staging::holding(&dir, b"content").unwrap();
        assert_eq!(staging.publish(&dir, OsStr::new("out")).unwrap(), Publish::Exists);
        assert!(!temp.path().join("elsewhere").exists());
    }

    #[test]
    fn the_sweep_takes_only_our_stand_ins() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let (stand_in, mut kept) =
            (fresh_name(), vec![".kms-sig".into(), ".kms-sig-notes".into(), "a".into()]);
        for name in [stand_in.as_os_str(), OsStr::new(".kms-sig-notes"), OsStr::new("a")] {
            File::create(temp.path().join(name)).unwrap();
        }
        dir.make_dir(OsStr::new(".kms-sig"), 0o700).unwrap();
        // Named like one, and none: no file, or somebody else's.
        kept.extend([fresh_name(), fresh_name()]);
        dir.make_dir(&kept[3], 0o700).unwrap();
        symlink("a", temp.path().join(&kept[4])).unwrap();
        if is_root() {
            kept.push(fresh_name());
            File::create(temp.path().join(&kept[5])).unwrap();
            chown(temp.path().join(&kept[5]), Some(USER), None).unwrap();
        }
        sweep(&dir).unwrap();
        kept.sort();
        assert_eq!(names(temp.path()), kept);
    }

    #[test]
    fn a_file_takes_the_group_that_its_directory_gives_and_no_other() {
        if !is_root() {
            return; // who is in one group only has none to give
        }
        for (mode, gid, becomes) in [(0o755, USER + 1, 0), (0o2755, USER + 1, USER + 1), (0o2755, 0, 0)] {
            let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            chown(there.path(), None, Some(gid)).unwrap();
            chmod(there.path(), mode);
            let staging = Staging::new(&Dir::open(here.path()).unwrap()).unwrap();
            staging.take_group(&Dir::open(there.path()).unwrap().stat().unwrap()).unwrap();
            let stat = stat_file(&staging.file, here.path()).unwrap();
            assert_eq!((stat.uid, stat.gid), (0, becomes), "{mode:o}");
        }
        // Of a group that the user is not in: told, not left undone.
        let (here, there) = (users(), users());
        chown(there.path(), None, Some(USER + 1)).unwrap();
        chmod(there.path(), 0o2755);
        let (here, there) = (Dir::open(here.path()).unwrap(), Dir::open(there.path()).unwrap());
        let taken = as_user(|| Staging::new(&here).unwrap().take_group(&there.stat().unwrap()));
        assert_eq!(taken.unwrap_err().source, Errno::PERM);
    }
}
