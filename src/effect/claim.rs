//! Removing a source that has been dealt with, although its directory belongs to the sender.
//!
//! Between looking at a name and removing it, the sender may put another file there. So the name is first
//! moved into a folder of ours, `.kms-sig/CLAIM/`, which mirrors the path; there it is compared with what was
//! judged, and only then removed. Something else is put back. Renaming the folder to `CLAIM.done` is the
//! moment of decision: a restart puts back what is in undecided folders and removes what is in decided ones,
//! and needs no other memory.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use rustix::io::Errno;

use crate::fs::staging::{RESERVED_PREFIX, random_hex};
use crate::fs::{Dir, FsError, Identity, Kind, RelPath};

const DONE: &str = ".done";

/// How a removal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removed {
    /// Payload and signature are gone.
    Done,
    /// One of them was something else than expected; both are where they were, or wait in the claim until
    /// their names are free.
    Changed,
}

/// One file of a source: where it lies and which version was judged.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its path below the root.
    pub path: RelPath,
    /// The version that may be removed.
    pub identity: Identity,
}

/// Removes the parts of a source, all or none of them.
///
/// # Errors
/// Any step's; then the next [`recover`] finishes or undoes it.
pub fn remove(root: &Dir, parts: &[Part]) -> Result<Removed, FsError> {
    let claims = open_claims(root)?;
    let id = OsString::from(random_hex());
    let claim = claims.make_new_dir(&id, 0o700)?;
    let mut as_expected = true;
    for part in parts {
        let from = root.descend(part.path.parent())?;
        let to = claim.descend_creating(part.path.parent())?;
        match from.rename(part.path.name(), &to, part.path.name()) {
            Err(e) if e.is_not_found() => continue, // removed by the sender: that is what we wanted
            renamed => renamed?,
        }
        let there = to.stat_of(part.path.name())?;
        as_expected &= there.is_some_and(|stat| stat.identity.is_renamed_from(&part.identity));
    }
    if as_expected {
        let mut done = id.clone();
        done.push(DONE);
        claims.rename(&id, &claims, &done)?;
        empty(&claim)?;
        claims.remove_dir(&done)?;
        Ok(Removed::Done)
    } else {
        put_back(&claim, root)?;
        remove_if_empty(&claims, &id)?;
        Ok(Removed::Changed)
    }
}

/// Finishes what a killed process left: removes decided claims, puts back undecided ones. What cannot be put
/// back because its name is taken stays until it is free. Must not run while [`remove`] does.
///
/// # Errors
/// Any step's.
pub fn recover(root: &Dir) -> Result<(), FsError> {
    if root.stat_of(OsStr::new(RESERVED_PREFIX))?.is_none() {
        return Ok(());
    }
    let claims = open_claims(root)?;
    for id in claims.names()?.collect::<Result<Vec<_>, _>>()? {
        let Ok(claim) = claims.descend(Path::new(&id)) else { continue };
        if id.as_encoded_bytes().ends_with(DONE.as_bytes()) {
            empty(&claim)?;
        } else {
            put_back(&claim, root)?;
        }
        remove_if_empty(&claims, &id)?;
    }
    Ok(())
}

/// The folder of claims, made if missing. It must be ours alone.
fn open_claims(root: &Dir) -> Result<Dir, FsError> {
    let name = OsStr::new(RESERVED_PREFIX);
    root.make_dir(name, 0o700)?;
    let claims = root.descend(Path::new(name))?;
    let stat = claims.stat()?;
    if stat.uid != rustix::process::geteuid().as_raw() || stat.mode & 0o077 != 0 {
        let path = claims.path().to_owned();
        return Err(FsError {
            action: "trust (it must be the daemon's own, mode 0700)",
            path,
            source: Errno::PERM,
        });
    }
    Ok(claims)
}

/// Removes everything in a decided claim.
fn empty(claim: &Dir) -> Result<(), FsError> {
    for_each(claim, &mut |dir, name, kind| match kind {
        Kind::Directory => dir.remove_dir(name),
        Kind::File | Kind::Symlink | Kind::Special => dir.unlink(name),
    })
}

/// Moves everything in an undecided claim back to its place; what finds its place taken stays.
fn put_back(claim: &Dir, root: &Dir) -> Result<(), FsError> {
    for_each(claim, &mut |dir, name, kind| {
        let moved = match kind {
            Kind::Directory => dir.remove_dir(name),
            Kind::File | Kind::Symlink | Kind::Special => {
                let below = dir.path().strip_prefix(claim.path()).unwrap_or(Path::new(""));
                root.descend(below).and_then(|to| dir.rename(name, &to, name))
            }
        };
        match moved {
            Err(e) if matches!(e.source, Errno::EXIST | Errno::NOTEMPTY | Errno::NOENT) => Ok(()),
            other => other,
        }
    })
}

/// Calls `act` on everything below `dir`, contents before their directory.
fn for_each(
    dir: &Dir,
    act: &mut impl FnMut(&Dir, &OsStr, Kind) -> Result<(), FsError>,
) -> Result<(), FsError> {
    for name in dir.names()?.collect::<Result<Vec<_>, _>>()? {
        let Some(stat) = dir.stat_of(&name)? else { continue };
        if stat.kind == Kind::Directory {
            for_each(&dir.descend(Path::new(&name))?, act)?;
        }
        act(dir, &name, stat.kind)?;
    }
    Ok(())
}

fn remove_if_empty(claims: &Dir, id: &OsStr) -> Result<(), FsError> {
    match claims.remove_dir(id) {
        Err(e) if e.source == Errno::NOTEMPTY => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    struct Fixture {
        temp: tempfile::TempDir,
        root: Dir,
    }

    impl Fixture {
        fn new(files: &[&str]) -> Self {
            let temp = tempfile::tempdir().unwrap();
            for file in files {
                let path = temp.path().join(file);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, file).unwrap();
            }
            let root = Dir::open(temp.path()).unwrap();
            Self { temp, root }
        }

        fn part(&self, path: &str) -> Part {
            let path = RelPath::new(path).unwrap();
            let dir = self.root.descend(path.parent()).unwrap();
            let identity = dir.stat_of(path.name()).unwrap().unwrap().identity;
            Part { path, identity }
        }

        fn there(&self, path: &str) -> bool {
            self.temp.path().join(path).exists()
        }

        fn claims(&self) -> usize {
            fs::read_dir(self.temp.path().join(".kms-sig")).map_or(0, Iterator::count)
        }
    }

    #[test]
    fn what_was_judged_is_removed() {
        let f = Fixture::new(&["d/a", "d/a.sig", "b"]);
        assert_eq!(remove(&f.root, &[f.part("d/a"), f.part("d/a.sig")]).unwrap(), Removed::Done);
        assert!(!f.there("d/a") && !f.there("d/a.sig") && f.there("b"));
        assert_eq!(f.claims(), 0);
    }

    #[test]
    fn a_file_put_there_meanwhile_is_put_back() {
        let f = Fixture::new(&["a", "a.sig"]);
        let parts = [f.part("a"), f.part("a.sig")];
        fs::write(f.temp.path().join("new"), "another").unwrap();
        fs::rename(f.temp.path().join("new"), f.temp.path().join("a")).unwrap();
        assert_eq!(remove(&f.root, &parts).unwrap(), Removed::Changed);
        assert_eq!(fs::read_to_string(f.temp.path().join("a")).unwrap(), "another");
        assert!(f.there("a.sig"));
        assert_eq!(f.claims(), 0);
    }

    #[test]
    fn p4_a_restart_finishes_or_undoes() {
        let f = Fixture::new(&["a", ".kms-sig/one/d/b", ".kms-sig/two.done/c", ".kms-sig/three/a"]);
        fs::create_dir(f.temp.path().join("d")).unwrap();
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(f.temp.path().join(".kms-sig"), fs::Permissions::from_mode(0o700)).unwrap();
        recover(&f.root).unwrap();
        assert!(f.there("d/b") && !f.there("c"));
        assert_eq!(fs::read_to_string(f.temp.path().join("a")).unwrap(), "a", "never replaced");
        assert!(f.there(".kms-sig/three/a"), "kept until its name is free");
        fs::remove_file(f.temp.path().join("a")).unwrap();
        recover(&f.root).unwrap();
        assert_eq!(fs::read_to_string(f.temp.path().join("a")).unwrap(), ".kms-sig/three/a");
        assert_eq!(f.claims(), 0);
    }
}
