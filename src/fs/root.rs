//! Opening a watched directory, whose way may lead through directories of others.
//!
//! What the daemon owns lies behind directories that nobody else can change ([`trust::check`]), and may be opened by its
//! path. A watched directory often belongs to its sender, and so may directories above it: `/home/build/out`. Whoever
//! owns one of those can swap what is below it for a symlink to a place that the daemon may read and he may not, at
//! any moment between a check and an open. So the way is walked by descriptors, no component is opened by more than
//! its own name, and what is checked is what was opened.
//!
//! It never makes a directory where somebody else could take its place.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::give::Owner;
use super::stat::stat_fd;
use super::trust::{self, TrustError};
use super::{Dir, FsError, Kind, Stat};

/// How many symlinks may be on the way, as in path_resolution(7).
const MAX_LINKS: usize = 40;

/// Opens the directory that a rule watches.
///
/// Its owner may be anyone. Every directory above it belongs to root, to this process's user or to that owner, and
/// nobody else can write there, but for sticky directories and a group that may write to the watched directory as
/// well. Symlinks above it are followed where only root or this process's user could have put them.
///
/// # Errors
/// [`TrustError`], naming the component at fault.
pub fn open(path: &Path) -> Result<Dir, TrustError> {
    open_for(path, Owner::current())
}

/// As [`open`], for a daemon of another user than this process's.
///
/// # Errors
/// As there.
pub fn open_for(path: &Path, me: Owner) -> Result<Dir, TrustError> {
    walk(path, me, Missing::Refuse)
}

/// As [`open`], making what is missing of the way (mode 0755, synced).
///
/// # Errors
/// As there; also when a directory would have to be made where others can write.
pub fn create(path: &Path) -> Result<Dir, TrustError> {
    walk(path, Owner::current(), Missing::Make)
}

/// What to do where the way ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Refuse,
    Make,
}

fn walk(path: &Path, me: Owner, missing: Missing) -> Result<Dir, TrustError> {
    let absolute = std::path::absolute(path)
        .map_err(|e| FsError::new("resolve", path, Errno::from_io_error(&e).unwrap_or(Errno::INVAL)))?;
    let mut way = Way::from_root(me)?;
    let mut links = 0;
    let mut todo = Vec::new();
    push(&mut todo, &absolute);
    while let Some(step) = todo.pop() {
        match step {
            Step::Top => way.start_over(),
            Step::Up => way.up(),
            Step::Into(name) => match way.enter(&name, missing)? {
                Found::Directory => {}
                Found::Nothing => return Err(TrustError::Missing(path.to_owned())),
                Found::Link(_) if todo.is_empty() => return Err(TrustError::Symlink(path.to_owned())),
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
    way.open(path)
}

/// One step of a way.
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
    /// The way ends here.
    Nothing,
    /// The way goes on in it.
    Directory,
    /// A symlink that may be followed, to this.
    Link(PathBuf),
}

/// The directories from `/` to where the walk has come, each held open: `..` leads to where it came from, whatever
/// was renamed meanwhile.
struct Way {
    top: Place,
    below: Vec<Place>,
    /// Whom it must be safe for.
    me: Owner,
}

struct Place {
    fd: OwnedFd,
    path: PathBuf,
    stat: Stat,
}

impl Way {
    fn from_root(me: Owner) -> Result<Self, TrustError> {
        let top = Path::new("/");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(top, flags, Mode::empty())
            .map_err(|e| FsError::new("open directory", top, e))?;
        let stat = stat_fd(&fd).map_err(|e| FsError::new("examine", top, e))?;
        Ok(Self { top: Place { fd, path: top.to_owned(), stat }, below: Vec::new(), me })
    }

    fn here(&self) -> &Place {
        self.below.last().unwrap_or(&self.top)
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
        let fd = match open() {
            Err(Errno::NOENT) if missing == Missing::Make => {
                self.check_ours()?;
                let dir = reopen(here, &here.path)?;
                dir.make_dir(name, 0o755)?;
                dir.sync()?;
                open()
            }
            opened => opened,
        };
        let fd = match fd {
            Err(Errno::NOENT) => return Ok(Found::Nothing),
            opened => opened.map_err(|e| FsError::new("open directory", &path, e))?,
        };
        let stat = stat_fd(&fd).map_err(|e| FsError::new("examine", &path, e))?;
        match stat.kind {
            Kind::Directory => {
                self.below.push(Place { fd, path, stat });
                Ok(Found::Directory)
            }
            Kind::Symlink => {
                if trust::check_owner(&path, &stat, self.me).is_err() {
                    return Err(TrustError::Link { path, uid: stat.uid });
                }
                self.check_ours()?;
                let target = rustix::fs::readlinkat(&fd, "", Vec::new())
                    .map_err(|e| FsError::new("read link", &path, e))?;
                Ok(Found::Link(PathBuf::from(OsString::from_vec(target.into_bytes()))))
            }
            Kind::File | Kind::Special => Err(FsError::new("open directory", &path, Errno::NOTDIR).into()),
        }
    }

    /// `/` and what is below it on the way.
    fn places(&self) -> impl Iterator<Item = &Place> {
        std::iter::once(&self.top).chain(&self.below)
    }

    /// Checks that nobody else could put anything where the walk has come.
    fn check_ours(&self) -> Result<(), TrustError> {
        for place in self.places() {
            trust::check_owner(&place.path, &place.stat, self.me)?;
            trust::check_mode(&place.path, &place.stat, self.me, true)?;
        }
        Ok(())
    }

    /// Checks where the walk has come and what is above, and opens it for listing.
    fn open(self, path: &Path) -> Result<Dir, TrustError> {
        let root = self.here();
        trust::check_root(path, &root.stat)?;
        let above = self.places().take(self.below.len());
        for ancestor in above {
            trust::check_above(&ancestor.path, &ancestor.stat, &root.stat, self.me)?;
        }
        Ok(reopen(root, path)?)
    }
}

/// Opens a place for listing.
fn reopen(place: &Place, path: &Path) -> Result<Dir, FsError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(&place.fd, ".", flags, Mode::empty())
        .map_err(|e| FsError::new("open directory", path, e))?;
    Ok(Dir { fd, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// A directory of ours with `home/out` in it, and the path of `home`.
    fn home() -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let home = temp.path().join("home");
        fs::create_dir_all(home.join("out")).unwrap();
        chmod(temp.path(), 0o755);
        chmod(&home, 0o755);
        chmod(&home.join("out"), 0o755);
        (temp, home)
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn same(dir: &Dir, path: &Path) -> bool {
        let (a, b) = (dir.stat().unwrap(), super::super::stat_path(path).unwrap().unwrap());
        (a.identity.dev, a.identity.ino) == (b.identity.dev, b.identity.ino)
    }

    #[test]
    fn a26_what_stands_above_a_root_is_checked() {
        let (_temp, home) = home();
        let out = home.join("out");
        assert!(same(&open(&out).unwrap(), &out));
        chmod(&home, 0o777);
        assert!(matches!(open(&out), Err(TrustError::Writable { path, .. }) if path == home));
        chmod(&home, 0o1777);
        open(&out).unwrap();
        chmod(&out, 0o777);
        assert!(matches!(open(&out), Err(TrustError::WorldWritable { path, .. }) if path == out));
    }

    #[test]
    fn a26_a_link_is_followed_above_a_root_and_not_at_its_place() {
        let (temp, home) = home();
        symlink("home", temp.path().join("relative")).unwrap();
        symlink(&home, temp.path().join("absolute")).unwrap();
        symlink("../home/../relative", home.join("winding")).unwrap();
        for way in ["relative/out", "absolute/out", "home/winding/./out", "home/out/../out"] {
            assert!(same(&open(&temp.path().join(way)).unwrap(), &home.join("out")), "{way}");
        }
        symlink("out", home.join("link")).unwrap();
        assert!(
            matches!(open(&home.join("link")), Err(TrustError::Symlink(path)) if path == home.join("link"))
        );
        symlink("loop", temp.path().join("loop")).unwrap();
        assert!(
            matches!(open(&temp.path().join("loop/out")), Err(TrustError::Io(e)) if e.source == Errno::LOOP)
        );
        // In a directory where others could swap the link, it is not followed even if it is ours.
        chmod(&home, 0o777);
        assert!(
            matches!(open(&home.join("winding/out")), Err(TrustError::Writable { path, .. }) if path == home)
        );
    }

    #[test]
    fn what_is_missing_is_made_where_nobody_else_could_have() {
        let (_temp, home) = home();
        let deep = home.join("new/deep");
        assert!(same(&create(&deep).unwrap(), &deep));
        chmod(&home, 0o777);
        assert!(matches!(create(&home.join("other")), Err(TrustError::Writable { .. })));
        assert!(!home.join("other").exists());
    }

    #[test]
    fn what_is_not_there_and_what_is_no_directory_are_told_apart() {
        let (_temp, home) = home();
        fs::File::create(home.join("file")).unwrap();
        assert!(
            matches!(open(&home.join("none/x")), Err(TrustError::Missing(path)) if path.ends_with("none/x"))
        );
        assert!(matches!(open(&home.join("file")), Err(TrustError::Io(e)) if e.source == Errno::NOTDIR));
    }
}
