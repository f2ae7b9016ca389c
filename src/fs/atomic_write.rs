//! Writing one small file so that its name shows either what was there before or all of the new
//! bytes.
//!
//! The bytes go to a file without a name in the same directory (`O_TMPFILE`), are flushed to the
//! disk, and take the name in one step; a process that is killed before that leaves nothing. Where
//! the file system has no `O_TMPFILE`, a temporary name stands in, and is removed on any failure,
//! by [`abandon`] where a signal ends the process, and after a kill by the next writer of the same
//! file: the temporary name is made of the file's, and who is writing has it locked. A symbolic
//! link is followed only if nobody but root and the caller could have put it there. Never reads,
//! and never decides whether a file ought to be replaced: whoever does looks at
//! [`Place::occupant`], and says what he saw.

#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::digest::Digest;
use crate::escape::quoted;
use crate::fs::chown::Owner;
use crate::fs::{Identity, Kind, Stat, modes, mount, stat_file, trust};

/// As many symbolic links as the kernel follows in one path (path_resolution(7)).
const MAX_LINKS: usize = 40;

/// How often another random name is tried before the directory is taken to be broken.
const MAX_NAMES: usize = 8;

/// What every temporary name begins with. Names that begin so are never taken for payloads (P6).
pub(crate) const TEMPORARY_PREFIX: &str = ".kms-sig-";

/// Who may read a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Whomever the umask lets: mode 0666 without its bits.
    Umask,
    /// The owner alone: mode 0600.
    Owner,
}

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Before the name was touched; or, for a pipe or device, at any time.
    #[error("cannot write {}", quoted(path))]
    Write {
        /// The file as the caller named it.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// The new bytes stand under the name, but a power failure might bring the old ones back.
    #[error("{} is written, but its directory cannot be flushed to the disk", quoted(path))]
    Flush {
        /// The file as the caller named it.
        path: PathBuf,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Somebody else could have put the link there, to have the caller replace a file elsewhere.
    #[error("{} is a symbolic link {why}; it is not followed", quoted(link))]
    Planted {
        /// The link: what the caller named, or a further one on the way.
        link: PathBuf,
        /// Why it is not trusted.
        why: Suspicion,
    },
    /// The file would be the caller's alone, and its file system lets others at it. Nothing was
    /// written.
    #[error(
        "{} would be open to others (mode {mode:04o}): its file system does not keep modes and owners as they are set; \
         mount it with {options}",
        quoted(path)
    )]
    Open {
        /// The file as the caller named it.
        path: PathBuf,
        /// The mode that it would have.
        mode: u32,
        /// The options by which it would have none for others.
        options: &'static str,
    },
    /// Something took the place, or changed there, after the caller looked at it. Nothing was
    /// written.
    #[error("{} appeared or changed meanwhile", quoted(.0))]
    Changed(PathBuf),
}

/// Why a symbolic link is not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Suspicion {
    /// It is not the caller's and not root's.
    #[error("of user {0}, who could have it lead anywhere")]
    Owner(u32),
    /// It lies in somebody else's directory.
    #[error("in a directory of user {0}, who could have it lead anywhere")]
    DirectoryOwner(u32),
    /// Others could exchange it.
    #[error("in a directory that others can write to (mode {0:04o})")]
    Writable(u32),
}

/// Replaces whatever is named `path`, or makes it; a symbolic link there is itself replaced. The
/// parent directory must exist.
///
/// # Errors
/// [`WriteError`].
pub(crate) fn replace(path: &Path, bytes: &[u8], access: Access) -> Result<(), WriteError> {
    let failed = |source| WriteError::Write { path: path.to_owned(), source };
    let name = path.file_name().ok_or_else(|| failed(ErrorKind::InvalidInput.into()))?;
    let dir = Directory::open(parent(path)).map_err(|e| failed(e.into()))?;
    put(&dir, name, bytes, access, Over::Anything).map_err(|trouble| trouble.of(path))
}

/// The directory that holds `path`'s name: never empty, so that it can be opened.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        Some(_) | None => Path::new("."),
    }
}

/// Where bytes are to go: what a path means to a shell that redirects to it.
///
/// A regular file, or none yet, is replaced at once; a symbolic link stays, and what it points to
/// is replaced. A pipe, a device or an open descriptor (`/dev/stdout`) has no name to replace, and
/// is written to as it is.
#[derive(Debug)]
pub(crate) struct Place {
    /// As the caller named it.
    path: PathBuf,
    dir: Directory,
    name: OsString,
    target: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// A name that a regular file has or can get.
    Name,
    /// A pipe, socket or device, which is written to in place.
    Special,
    /// An open descriptor of this process. The path it reads as may be gone or another file by now.
    Descriptor,
}

/// What may be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// Nothing: there was no such name.
    Nothing,
    /// This version of this file.
    Seen(Identity),
    /// Any regular file.
    Anything,
}

/// A regular file that has the place.
#[derive(Debug)]
pub(crate) struct Occupant {
    /// Open for reading.
    pub(crate) file: File,
    /// Which version of which file.
    pub(crate) identity: Identity,
}

impl Place {
    /// Finds out where a path leads. Makes nothing.
    ///
    /// # Errors
    /// [`WriteError`]: the directory is not there, a directory is there, or a link is not to be
    /// followed.
    pub(crate) fn find(path: &Path) -> Result<Self, WriteError> {
        Walk { path, links: 0 }.find().map_err(|lost| match lost {
            Lost::System(source) => WriteError::Write { path: path.to_owned(), source },
            Lost::Planted(link, why) => WriteError::Planted { link, why },
        })
    }

    /// The regular file that would be replaced.
    ///
    /// # Errors
    /// What the operating system says; a file that may not be read is one.
    pub(crate) fn occupant(&self) -> io::Result<Option<Occupant>> {
        if self.target != Target::Name {
            return Ok(None);
        }
        // O_NONBLOCK: a pipe that took the name meanwhile must not hold us up.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file: File = match rustix::fs::openat(&self.dir.0, &self.name, flags, Mode::empty()) {
            Ok(fd) => fd.into(),
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let stat = stat(&file)?;
        match stat.kind {
            Kind::File => Ok(Some(Occupant { file, identity: stat.identity })),
            Kind::Directory => Err(ErrorKind::IsADirectory.into()),
            Kind::Symlink | Kind::Special => Err(Errno::AGAIN.into()),
        }
    }

    /// Writes there.
    ///
    /// # Errors
    /// [`WriteError`]. `Changed` if what is there is not what may be replaced.
    pub(crate) fn write(&self, bytes: &[u8], over: Over) -> Result<(), WriteError> {
        match self.target {
            Target::Name => {
                let put = put(&self.dir, &self.name, bytes, Access::Umask, over);
                put.map_err(|trouble| trouble.of(&self.path))
            }
            Target::Special | Target::Descriptor => {
                self.stream(bytes).map_err(|source| WriteError::Write { path: self.path.clone(), source })
            }
        }
    }

    fn stream(&self, bytes: &[u8]) -> io::Result<()> {
        let follow = if self.target == Target::Descriptor { OFlags::empty() } else { OFlags::NOFOLLOW };
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOCTTY | OFlags::CLOEXEC | follow;
        let mut file: File = rustix::fs::openat(&self.dir.0, &self.name, flags, Mode::empty())?.into();
        file.write_all(bytes)
    }
}

/// Following a path to its end.
struct Walk<'p> {
    path: &'p Path,
    links: usize,
}

/// Why there is no place at the end of a path.
enum Lost {
    System(io::Error),
    Planted(PathBuf, Suspicion),
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl From<Errno> for Lost {
    fn from(error: Errno) -> Self {
        Self::System(error.into())
    }
}

/// `/proc/self/fd`, under the names that every shell knows. The links there are the system's: in a
/// container even root's may look like somebody else's.
fn is_descriptor(path: &Path) -> bool {
    let streams = ["/dev/stdin", "/dev/stdout", "/dev/stderr"];
    streams.iter().any(|stream| path == Path::new(stream)) || parent(path) == Path::new("/dev/fd")
}

impl Walk<'_> {
    fn find(mut self) -> Result<Place, Lost> {
        let name = name_of(self.path)?;
        // Up to its last name the path is the caller's choice, and goes the kernel's way.
        let dir = Directory::open(parent(self.path))?;
        if is_descriptor(self.path) {
            return Ok(self.end(dir, name, Target::Descriptor));
        }
        let (mut dir, mut name, mut shown) = (dir, name, self.path.to_owned());
        loop {
            let there = match dir.look(&name) {
                Err(Errno::NOENT) => return Ok(self.end(dir, name, Target::Name)),
                there => there?,
            };
            let stat = stat(&there)?;
            match stat.kind {
                Kind::File => return Ok(self.end(dir, name, Target::Name)),
                Kind::Special => return Ok(self.end(dir, name, Target::Special)),
                Kind::Directory => return Err(io::Error::from(ErrorKind::IsADirectory).into()),
                Kind::Symlink if dir.is_in_proc()? => return Ok(self.end(dir, name, Target::Descriptor)),
                Kind::Symlink => {
                    let to = self.follow(&dir, &there, &stat, &shown)?;
                    name = name_of(&to)?;
                    shown = parent(&shown).join(&to);
                    dir = self.enter(dir, parent(&to), &shown)?;
                }
            }
        }
    }

    fn end(self, dir: Directory, name: OsString, target: Target) -> Place {
        Place { path: self.path.to_owned(), dir, name, target }
    }

    /// Where a link leads, if it may be followed.
    fn follow(&mut self, dir: &Directory, link: &File, stat: &Stat, shown: &Path) -> Result<PathBuf, Lost> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        if let Some(why) = suspicion(stat, &dir.stat()?, Owner::current()) {
            return Err(Lost::Planted(shown.to_owned(), why));
        }
        let to = rustix::fs::readlinkat(link, "", Vec::new())?;
        Ok(OsString::from_vec(to.into_bytes()).into())
    }

    /// Walks below `dir` to the directory that a link names, as suspicious of further links as of
    /// the first.
    fn enter(&mut self, dir: Directory, below: &Path, shown: &Path) -> Result<Directory, Lost> {
        let mut dir = dir;
        let mut todo = Vec::new();
        push(&mut todo, below);
        while let Some(step) = todo.pop() {
            dir = match step {
                Step::Top => Directory::open(Path::new("/"))?,
                Step::Up => dir.enter(OsStr::new(".."))?,
                Step::Into(name) => {
                    let there = dir.look(&name)?;
                    let stat = stat(&there)?;
                    if stat.kind != Kind::Symlink || dir.is_in_proc()? {
                        dir.enter(&name)?
                    } else {
                        push(&mut todo, &self.follow(&dir, &there, &stat, shown)?);
                        dir
                    }
                }
            };
        }
        Ok(dir)
    }
}

/// The last name of a path, which is the file's.
fn name_of(path: &Path) -> Result<OsString, Lost> {
    let bytes = path.as_os_str().as_bytes();
    match path.file_name() {
        Some(name) if !bytes.ends_with(b"/") && !bytes.ends_with(b"/.") => Ok(name.to_owned()),
        Some(_) | None => Err(io::Error::from(ErrorKind::IsADirectory).into()),
    }
}

/// One step of a way.
enum Step {
    Top,
    Up,
    Into(OsString),
}

/// Puts the steps of `path` in front of those in `todo`, whose last is the next.
fn push(todo: &mut Vec<Step>, path: &Path) {
    todo.extend(path.components().rev().filter_map(|component| match component {
        Component::Prefix(_) | Component::CurDir => None,
        Component::RootDir => Some(Step::Top),
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Into(name.to_owned())),
    }));
}

/// Who but root and `me` could have put a link there, or could exchange it. Access control lists
/// are not looked at; where one lets others write, the group's bits of the mode show it (acl(5)).
fn suspicion(link: &Stat, dir: &Stat, me: Owner) -> Option<Suspicion> {
    let here = Path::new("");
    if trust::check_owner(here, link, me).is_err() {
        return Some(Suspicion::Owner(link.uid));
    }
    if trust::check_owner(here, dir, me).is_err() {
        return Some(Suspicion::DirectoryOwner(dir.uid));
    }
    // In a sticky directory, what is root's or ours can be exchanged by its owner alone, and that
    // is one of us.
    trust::check_mode(here, dir, me, true).is_err().then_some(Suspicion::Writable(dir.mode))
}

fn stat(file: &File) -> io::Result<Stat> {
    stat_file(file, Path::new("")).map_err(|error| error.source.into())
}

/// A directory, held so that a rename of it half-way cannot lead elsewhere.
#[derive(Debug)]
struct Directory(File);

impl Directory {
    // O_PATH: writing names needs no permission to list them.
    const FLAGS: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

    fn open(path: &Path) -> Result<Self, Errno> {
        rustix::fs::openat(CWD, path, Self::FLAGS, Mode::empty()).map(|fd| Self(fd.into()))
    }

    fn enter(&self, name: &OsStr) -> Result<Self, Errno> {
        rustix::fs::openat(&self.0, name, Self::FLAGS, Mode::empty()).map(|fd| Self(fd.into()))
    }

    /// What has a name, be it a link.
    fn look(&self, name: &OsStr) -> Result<File, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.0, name, flags, Mode::empty()).map(File::from)
    }

    fn stat(&self) -> io::Result<Stat> {
        stat(&self.0)
    }

    fn is_in_proc(&self) -> Result<bool, Errno> {
        Ok(rustix::fs::fstatfs(&self.0)?.f_type == rustix::fs::PROC_SUPER_MAGIC)
    }

    /// Makes the names in it survive a power failure.
    fn flush(&self) -> Result<(), Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.0, ".", flags, Mode::empty()) {
            Ok(listing) => match rustix::fs::fsync(listing) {
                // File systems that have nothing to flush for a directory say so (fsync(2)).
                Ok(()) | Err(Errno::INVAL | Errno::ROFS) => Ok(()),
                Err(error) => Err(error),
            },
            // A drop box (mode -wx): only who may list a directory can flush it.
            Err(Errno::ACCESS) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What kept a file from being put in its place.
enum Trouble {
    Write(io::Error),
    Open(u32, &'static str),
    Changed,
    Flush(Errno),
}

impl Trouble {
    fn of(self, path: &Path) -> WriteError {
        let path = path.to_owned();
        match self {
            Self::Write(source) => WriteError::Write { path, source },
            Self::Open(mode, options) => WriteError::Open { path, mode, options },
            Self::Changed => WriteError::Changed(path),
            Self::Flush(source) => WriteError::Flush { path, source: source.into() },
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl From<Errno> for Trouble {
    fn from(error: Errno) -> Self {
        Self::Write(error.into())
    }
}

/// Writes a whole file, and only then gives it its name.
fn put(dir: &Directory, name: &OsStr, bytes: &[u8], access: Access, over: Over) -> Result<(), Trouble> {
    let mut staged = Staged::create(dir, name, access)?;
    staged.check(access)?;
    staged.fill(bytes)?;
    match staged.publish(name, over) {
        // Without /proc, a file that has no name gets none.
        Err(Trouble::Write(error)) if staged.name.is_none() && is_nameless(&error) => {
            staged = Staged::named(dir, name, access)?;
            staged.check(access)?;
            staged.fill(bytes)?;
            staged.publish(name, over)?;
        }
        published => published?,
    }
    dir.flush().map_err(Trouble::Flush)
}

fn is_nameless(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::NOENT | Errno::PERM | Errno::OPNOTSUPP | Errno::XDEV | Errno::MLINK))
}

/// The temporary name that this process has given to something now, and its directory. Held while
/// one is made or goes, so that whoever ends the process finds it as it is.
static UNFINISHED: Mutex<Option<(OwnedFd, OsString)>> = Mutex::new(None);

fn unfinished() -> MutexGuard<'static, Option<(OwnedFd, OsString)>> {
    // Right after every single step.
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what is written under a temporary name, if anything is, and keeps any more from being
/// made for as long as the guard lives: for whoever is about to end the process.
#[must_use = "as long as it lives, nothing new is begun"]
pub(crate) fn abandon() -> impl Drop {
    let mut unfinished = unfinished();
    if let Some((dir, name)) = unfinished.take() {
        rustix::fs::unlinkat(&dir, &name, AtFlags::empty()).ok(); // or it has its name already
    }
    unfinished
}

/// A file that goes away unless it is published.
struct Staged<'a> {
    dir: &'a Directory,
    /// Its temporary name, while it has one.
    name: Option<OsString>,
    file: File,
}

impl<'a> Staged<'a> {
    fn create(dir: &'a Directory, to: &OsStr, access: Access) -> Result<Self, Errno> {
        let flags = OFlags::WRONLY | OFlags::TMPFILE | OFlags::CLOEXEC;
        match rustix::fs::openat(&dir.0, ".", flags, mode(access)) {
            Ok(fd) => Ok(Self { dir, name: None, file: fd.into() }),
            // What file systems and kernels without it say (open(2)).
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {
                Self::named(dir, to, access)
            }
            Err(error) => Err(error),
        }
    }

    fn named(dir: &'a Directory, to: &OsStr, access: Access) -> Result<Self, Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let make = |name: &OsStr| {
            let fd = rustix::fs::openat(&dir.0, name, flags, mode(access))?;
            // Who sweeps may have come between: then it is gone, or about to go.
            if lock(&fd) != Err(Errno::WOULDBLOCK) && dir.is(name, &fd) { Ok(fd) } else { Err(Errno::EXIST) }
        };
        let (name, fd): (_, OwnedFd) = dir.with_a_new_name(to, make)?;
        Ok(Self { dir, name: Some(name), file: fd.into() })
    }

    /// That nobody else can read what will be in it, if it is to be so.
    fn check(&self, access: Access) -> Result<(), Trouble> {
        match access {
            Access::Umask => Ok(()),
            Access::Owner => {
                let stat = stat(&self.file)?;
                if modes::is_owners(&stat) {
                    return Ok(());
                }
                let kind = mount::file_system(stat.mount).unwrap_or_default();
                Err(Trouble::Open(stat.mode, kind.options_for_modes()))
            }
        }
    }

    fn fill(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.file.sync_all()
    }

    fn publish(&mut self, name: &OsStr, over: Over) -> Result<(), Trouble> {
        match over {
            Over::Nothing => self.publish_new(name),
            Over::Seen(identity) => {
                let is_same = match self.dir.look(name) {
                    Ok(there) => stat(&there)?.identity == identity,
                    Err(Errno::NOENT) => false,
                    Err(error) => return Err(error.into()),
                };
                if is_same { self.publish_over(name) } else { Err(Trouble::Changed) }
            }
            Over::Anything => self.publish_over(name),
        }
    }

    fn publish_new(&mut self, name: &OsStr) -> Result<(), Trouble> {
        let Some(temporary) = &self.name else {
            return match self.link(name) {
                Err(Errno::EXIST) => Err(Trouble::Changed),
                linked => Ok(linked?),
            };
        };
        match rustix::fs::renameat_with(&self.dir.0, temporary, &self.dir.0, name, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.has_its_name();
                Ok(())
            }
            Err(Errno::EXIST) => Err(Trouble::Changed),
            // No such rename there: then as near to it as can be.
            Err(Errno::INVAL | Errno::NOSYS) => match self.dir.look(name) {
                Err(Errno::NOENT) => self.publish_over(name),
                Ok(_) => Err(Trouble::Changed),
                Err(error) => Err(error.into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the name from whatever has it. A file without a name gets a temporary one for that
    /// moment.
    fn publish_over(&mut self, name: &OsStr) -> Result<(), Trouble> {
        if self.name.is_none() {
            lock(&self.file).ok(); // where there are no locks, nobody sweeps
            let (temporary, ()) = self.dir.with_a_new_name(name, |temporary| self.link(temporary))?;
            self.name = Some(temporary);
        }
        if let Some(temporary) = &self.name {
            rustix::fs::renameat(&self.dir.0, temporary, &self.dir.0, name)?;
            self.has_its_name();
        }
        Ok(())
    }

    /// The temporary name is another file's from now on.
    fn has_its_name(&mut self) {
        self.name = None;
        *unfinished() = None;
    }

    /// Gives a file without a name one that is not taken. The way that needs no privilege (open(2),
    /// `O_TMPFILE`).
    fn link(&self, name: &OsStr) -> Result<(), Errno> {
        let open = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        rustix::fs::linkat(CWD, open, &self.dir.0, name, AtFlags::SYMLINK_FOLLOW)
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let mut unfinished = unfinished();
            // The failure that led here is the one worth telling.
            rustix::fs::unlinkat(&self.dir.0, name, AtFlags::empty()).ok();
            *unfinished = None;
        }
    }
}

const fn mode(access: Access) -> Mode {
    match access {
        Access::Umask => Mode::from_raw_mode(0o666),
        Access::Owner => Mode::from_raw_mode(0o600),
    }
}

/// Locks a file for as long as it is open, unless somebody has it locked (`EWOULDBLOCK`).
fn lock(file: impl AsFd) -> Result<(), Errno> {
    rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive)
}

impl Directory {
    /// Makes something under a temporary name that nothing has: the one for what is to be called
    /// `to`, or a random one where somebody is writing there, or the lock cannot tell.
    fn with_a_new_name<T>(
        &self,
        to: &OsStr,
        make: impl Fn(&OsStr) -> Result<T, Errno>,
    ) -> Result<(OsString, T), Errno> {
        let own = temporary_name_for(to);
        self.sweep(&own);
        let mut name = own;
        for _ in 0..MAX_NAMES {
            let mut unfinished = unfinished();
            match make(&name) {
                Err(Errno::EXIST) => {}
                made => {
                    let made = made?;
                    let dir = self.0.as_fd().try_clone_to_owned();
                    *unfinished = dir.ok().map(|dir| (dir, name.clone()));
                    return Ok((name, made));
                }
            }
            drop(unfinished);
            name = temporary_name()?;
        }
        Err(Errno::EXIST)
    }

    /// Removes what a killed writer of the same file has left. Who is writing has it locked.
    fn sweep(&self, name: &OsStr) {
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(left) = rustix::fs::openat(&self.0, name, flags, Mode::empty()).map(File::from) else {
            return;
        };
        let is_ours = stat(&left)
            .is_ok_and(|stat| stat.kind == Kind::File && stat.uid == rustix::process::geteuid().as_raw());
        if is_ours && lock(&left).is_ok() && self.is(name, &left) {
            // What cannot be removed keeps its name; another one is taken.
            rustix::fs::unlinkat(&self.0, name, AtFlags::empty()).ok();
        }
    }

    /// Whether a name shows this very file.
    fn is(&self, name: &OsStr, file: impl AsFd) -> bool {
        let there = rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW);
        let open = rustix::fs::fstat(file);
        matches!((there, open), (Ok(there), Ok(open)) if (there.st_dev, there.st_ino) == (open.st_dev, open.st_ino))
    }
}

/// The temporary name of what is to be called `to`: the same each time, so that what a killed
/// process has left is found again.
fn temporary_name_for(to: &OsStr) -> OsString {
    let digest = Digest::of(to.as_bytes()).to_string();
    format!("{TEMPORARY_PREFIX}{}.tmp", digest.get(..16).unwrap_or(&digest)).into()
}

fn temporary_name() -> Result<OsString, Errno> {
    let mut random = [0; 8];
    let filled = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    // getrandom(2): up to 256 bytes always come whole.
    debug_assert_eq!(filled, random.len());
    Ok(format!("{TEMPORARY_PREFIX}{:016x}.tmp", u64::from_ne_bytes(random)).into())
}
