//! Walking a path by descriptors: no component is opened by more than its own name, every symlink
//! is followed by hand, and what is checked is what was opened.
//!
//! The kernel follows symlinks where it finds them, and a second one may lie in a directory that
//! neither the path as written nor the place it leads to shows: `a -> theirs/b`, `theirs/b ->
//! real`. Here each directory and each symlink of the path is checked, so that anybody who could
//! change where it leads is noticed.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::fs::chown::Owner;
use crate::fs::file_system::FileSystem;
use crate::fs::mount;
use crate::fs::stat::stat_fd;
use crate::fs::trust;
use crate::fs::trust::TrustError;
use crate::fs::{Dir, FsError, Kind, Stat};

/// How many symlinks one path may lead through, as in path_resolution(7).
const MAX_LINKS: usize = 40;

/// Who may own the components of a path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TrustPolicy {
    /// Only root and the daemon's user, at every component.
    Ours,
    /// As a watched directory may be: also its own owner. Symlinks as for `Ours`.
    Watched,
}

/// What to do with a missing component.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Refuse,
    /// Make directories; the last of them with this mode, the others with 0755.
    Make(u32),
}

/// What to do with a symlink that the path ends in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum LastLink {
    Refuse,
    /// As with those on the way.
    Follow,
}

/// Walks to where a path leads.
///
/// # Errors
/// [`TrustError`], naming the component at fault.
pub(super) fn walk(
    path: &Path,
    me: Owner,
    policy: TrustPolicy,
    missing: Missing,
    last: LastLink,
) -> Result<WalkedPath, TrustError> {
    let absolute = std::path::absolute(path)
        .map_err(|e| FsError::new("resolve", path, Errno::from_io_error(&e).unwrap_or(Errno::INVAL)))?;
    let mut walked = WalkedPath::from_root(me, policy)?;
    let mut links = 0;
    let mut todo = Vec::new();
    push(&mut todo, &absolute);
    while let Some(step) = todo.pop() {
        let missing = match missing {
            Missing::Make(_) if !todo.is_empty() => Missing::Make(0o755),
            Missing::Make(_) | Missing::Refuse => missing,
        };
        match step {
            Step::Top => walked.start_over(),
            Step::Up => walked.up(),
            Step::Into(name) => match walked.enter(&name, missing)? {
                Found::Place => {}
                Found::Nothing => return Err(TrustError::Missing(path.to_owned())),
                Found::Link(_) if todo.is_empty() && last == LastLink::Refuse => {
                    return Err(TrustError::Symlink(path.to_owned()));
                }
                Found::Link(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(FsError::new("resolve", path, Errno::LOOP).into());
                    }
                    push(&mut todo, &target);
                }
            },
        }
    }
    walked.check_end(path)?;
    Ok(walked)
}

/// One step of a walk.
enum Step {
    /// `/`.
    Top,
    /// `..`.
    Up,
    /// A name.
    Into(OsString),
}

/// Puts the steps of `path` in front of those in `todo`, whose last is the next.
fn push(todo: &mut Vec<Step>, path: &Path) {
    let steps = path.components().filter_map(|component| match component {
        Component::Prefix(_) | Component::CurDir => None,
        Component::RootDir => Some(Step::Top),
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Into(name.to_owned())),
    });
    let steps: Vec<Step> = steps.collect();
    todo.extend(steps.into_iter().rev());
}

/// What a step led to.
enum Found {
    /// Nothing has this name.
    Nothing,
    /// A directory, or the file at the end.
    Place,
    /// A symlink that may be followed, to this.
    Link(PathBuf),
}

/// The directories from `/` to where the walk has come, each held open: `..` leads to where it came
/// from, whatever was renamed meanwhile.
pub(super) struct WalkedPath {
    top: Place,
    below: Vec<Place>,
    /// The user that the path must be safe for.
    me: Owner,
    policy: TrustPolicy,
}

struct Place {
    fd: OwnedFd,
    path: PathBuf,
    stat: Stat,
}

impl Place {
    /// That others may not write to it: by its mode, or because nobody can.
    fn check_mode(&self, shown: &Path, me: Owner, is_ancestor: bool) -> Result<(), TrustError> {
        match trust::check_mode(shown, &self.stat, me, is_ancestor) {
            Err(_) if mount::is_read_only_for_all(&self.fd, self.stat.mount) => Ok(()),
            checked => checked,
        }
    }
}

impl WalkedPath {
    fn from_root(me: Owner, policy: TrustPolicy) -> Result<Self, TrustError> {
        let top = Path::new("/");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(top, flags, Mode::empty())
            .map_err(|e| FsError::new("open directory", top, e))?;
        let stat = stat_fd(&fd).map_err(|e| FsError::new("examine", top, e))?;
        let walked = Self { top: Place { fd, path: top.to_owned(), stat }, below: Vec::new(), me, policy };
        if policy == TrustPolicy::Ours {
            walked.check_ours(&walked.top)?;
        }
        Ok(walked)
    }

    fn here(&self) -> &Place {
        self.below.last().unwrap_or(&self.top)
    }

    /// What the walk has come to.
    pub(super) fn stat(&self) -> &Stat {
        &self.here().stat
    }

    /// The type of its file system, where it is told.
    pub(super) fn file_system(&self) -> Option<FileSystem> {
        mount::file_system(self.stat().mount)
    }

    fn start_over(&mut self) {
        self.below.clear();
    }

    fn up(&mut self) {
        drop(self.below.pop());
    }

    fn enter(&mut self, name: &OsStr, missing: Missing) -> Result<Found, TrustError> {
        let here = self.here();
        let path = here.path.join(name);
        // With O_PATH nothing is opened for reading, and a symlink is opened itself (open(2)).
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&here.fd, name, flags, Mode::empty());
        let fd = match (open(), missing) {
            (Err(Errno::NOENT), Missing::Make(mode)) => {
                self.check_all_ours()?;
                let dir = reopen(here, &here.path)?;
                let made = match mode & 0o077 {
                    0 => dir.make_private_dir(name).map(drop),
                    _ => dir.make_new_dir(name, mode).map(drop),
                };
                match made {
                    Err(e) if e.source == Errno::EXIST => {}
                    made => made?,
                }
                dir.sync()?;
                open()
            }
            (opened, _) => opened,
        };
        let fd = match fd {
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            opened => opened.map_err(|e| FsError::new("open directory", &path, e))?,
        };
        let stat = stat_fd(&fd).map_err(|e| FsError::new("examine", &path, e))?;
        if stat.kind == Kind::Symlink {
            if trust::check_owner(&path, &stat, self.me).is_err() {
                return Err(TrustError::Link { path, uid: stat.uid });
            }
            self.check_all_ours()?;
            let target = rustix::fs::readlinkat(&fd, "", Vec::new())
                .map_err(|e| FsError::new("read link", &path, e))?;
            return Ok(Found::Link(PathBuf::from(OsString::from_vec(target.into_bytes()))));
        }
        // Only the last component can be no directory: the kernel opens nothing in it.
        let place = Place { fd, path, stat };
        if self.policy == TrustPolicy::Ours {
            self.check_ours(&place)?;
        }
        self.below.push(place);
        Ok(Found::Place)
    }

    /// `/` and the directories below it on the path.
    fn places(&self) -> impl Iterator<Item = &Place> {
        std::iter::once(&self.top).chain(&self.below)
    }

    /// Checks that nobody else could put anything where the walk has come.
    fn check_all_ours(&self) -> Result<(), TrustError> {
        self.places().try_for_each(|place| self.check_ours(place))
    }

    fn check_ours(&self, place: &Place) -> Result<(), TrustError> {
        trust::check_owner(&place.path, &place.stat, self.me)?;
        place.check_mode(&place.path, self.me, true)
    }

    /// Checks where the walk has come, which is no ancestor any more.
    fn check_end(&self, path: &Path) -> Result<(), TrustError> {
        let end = self.here();
        if self.policy == TrustPolicy::Ours {
            return end.check_mode(path, self.me, false);
        }
        trust::check_root(path, &end.stat)?;
        let mut above = self.places().take(self.below.len());
        above.try_for_each(|place| trust::check_above(&place.path, &place.stat, &end.stat, self.me))
    }

    /// Opens the directory that the walk has come to, for listing.
    pub(super) fn open(self, path: &Path) -> Result<Dir, TrustError> {
        Ok(reopen(self.here(), path)?)
    }
}

/// Opens a place for listing.
fn reopen(place: &Place, path: &Path) -> Result<Dir, FsError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(&place.fd, ".", flags, Mode::empty())
        .map_err(|e| FsError::new("open directory", path, e))?;
    Ok(Dir::opened(fd, path))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::tests::{as_user, at_once, chmod, opened_in, users};
    use super::*;

    fn ours(path: &Path, missing: Missing) -> Result<WalkedPath, TrustError> {
        walk(path, Owner::current(), TrustPolicy::Ours, missing, LastLink::Refuse)
    }

    #[test]
    fn walked_directories_are_close_on_exec_and_only_the_last_is_readable() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("below")).unwrap();
        let walked = ours(&temp.path().join("below"), Missing::Refuse).unwrap();
        for place in walked.places() {
            let flags = rustix::fs::fcntl_getfl(&place.fd).unwrap();
            let closed = rustix::io::fcntl_getfd(&place.fd).unwrap();
            assert!(flags.contains(OFlags::PATH), "{}", place.path.display());
            assert!(closed.contains(rustix::io::FdFlags::CLOEXEC), "{}", place.path.display());
        }
        let dir = walked.open(temp.path()).unwrap();
        assert_eq!(opened_in(temp.path()), [("below".to_owned(), OFlags::CLOEXEC)]);
        drop(dir);
    }

    #[test]
    fn the_limit_of_symlinks_is_that_of_the_kernel() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: usize| temp.path().join(name.to_string());
        fs::create_dir_all(at(0).join("end")).unwrap();
        for link in 1..=MAX_LINKS + 1 {
            symlink((link - 1).to_string(), at(link)).unwrap();
        }
        for (links, is_followed) in [(1, true), (MAX_LINKS, true), (MAX_LINKS + 1, false)] {
            let end = at(links).join("end");
            assert_eq!(fs::metadata(&end).is_ok(), is_followed, "the kernel: {links}");
            match ours(&end, Missing::Refuse) {
                Ok(_) => assert!(is_followed, "{links}"),
                Err(TrustError::Io(e)) => assert!(!is_followed && e.source == Errno::LOOP, "{links}"),
                Err(other) => panic!("{links}: {other}"),
            }
        }
    }

    #[test]
    fn a_directory_made_by_another_is_used_and_a_failure_to_make_one_is_an_error() {
        let temp = users();
        let make = |name: &str| ours(&temp.path().join(name), Missing::Make(0o700)).map(drop);
        for made in as_user(|| at_once(|round| make(&round.to_string()))) {
            made.unwrap();
        }
        chmod(temp.path(), 0o555);
        let made = as_user(|| make("new"));
        assert!(matches!(made, Err(TrustError::Io(e)) if e.source == Errno::ACCESS));
    }
}
