//! The directory walk: which names of a rule's directory are pairs to look at.
//!
//! Walks by descriptor, never through a symlink or onto another mount. Only names; what stands behind them
//! is `statx`'s to say, one by one.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::fs::staging::RESERVED_PREFIX;
use crate::fs::{Dir, FsError, Kind, RelPath};
use crate::policy::{Mode, Rule};
use crate::signature::SUFFIX;

/// How deep directories are followed, and how many (A12). Beyond that a sender is playing games.
pub const MAX_DEPTH: usize = 64;
/// How many directories of one rule are watched at most.
pub const MAX_DIRS: usize = 100_000;

/// The longest payload name whose signature still has a name, in bytes (NAME_MAX is 255).
const MAX_NAME: usize = 255 - SUFFIX.len();

/// What a name in a watched directory means to a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// Part of the pair of this payload.
    Pair(RelPath),
    /// Nothing to this rule.
    Nothing,
    /// Would be a payload, but can have no signature; reported once.
    Unsignable(RelPath, Unsignable),
}

/// Why a name can have no signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsignable {
    /// `NAME.sig` would be longer than a name may be.
    #[error("its name is longer than {MAX_NAME} bytes, which leaves no room for {SUFFIX}")]
    NameTooLong,
    /// A `.sig` of a `.sig`, or of nothing.
    #[error("{SUFFIX} is the suffix of signatures, and signatures are not signed")]
    SignatureOfSignature,
}

/// The name of the signature of a payload.
pub fn signature_name(payload: &OsStr) -> OsString {
    OsString::from_vec([payload.as_bytes(), SUFFIX.as_bytes()].concat())
}

/// What `name`, in the directory `below` the rule's root, means.
pub fn meaning(rule: &Rule, below: &Path, name: &OsStr) -> Meaning {
    let bytes = name.as_bytes();
    if bytes.starts_with(RESERVED_PREFIX.as_bytes()) {
        return Meaning::Nothing;
    }
    let path = |name: &OsStr| RelPath::new(below.join(name));
    match (bytes.strip_suffix(SUFFIX.as_bytes()), &rule.mode) {
        (Some(_), Mode::Sign(_)) => Meaning::Nothing,
        (Some(payload), Mode::Verify(_)) => {
            if payload.is_empty() || payload.ends_with(SUFFIX.as_bytes()) {
                return path(name)
                    .map_or(Meaning::Nothing, |p| Meaning::Unsignable(p, Unsignable::SignatureOfSignature));
            }
            pair(rule, path(OsStr::from_bytes(payload)))
        }
        (None, _) if bytes.len() > MAX_NAME => {
            path(name).map_or(Meaning::Nothing, |p| Meaning::Unsignable(p, Unsignable::NameTooLong))
        }
        (None, _) => pair(rule, path(name)),
    }
}

fn pair(rule: &Rule, path: Option<RelPath>) -> Meaning {
    match path {
        Some(path) if rule.wants(path.name()) => Meaning::Pair(path),
        _ => Meaning::Nothing,
    }
}

/// What one walk found.
#[derive(Debug, Default)]
pub struct Found {
    /// Every pair, in order of name.
    pub pairs: BTreeSet<RelPath>,
    /// Names that can have no signature.
    pub unsignable: Vec<(RelPath, Unsignable)>,
    /// Every directory walked, relative to the root; the root itself is the empty path.
    pub dirs: Vec<PathBuf>,
    /// Directories that could not be walked, and why. What is in them is not known to be absent.
    pub failed: Vec<FsError>,
    /// Whether the walk stopped at one of its caps.
    pub capped: bool,
}

/// Walks a rule's directory. `on_dir` is called with each directory before its names are read, so that a
/// watch placed there misses nothing that the walk does not see.
///
/// # Errors
/// The root itself cannot be listed.
pub fn walk(rule: &Rule, root: &Dir, mut on_dir: impl FnMut(&Path)) -> Result<Found, FsError> {
    let mut found = Found::default();
    let mut open = vec![PathBuf::new()];
    while let Some(below) = open.pop() {
        match walk_one(rule, root, &below, &mut found, &mut open, &mut on_dir) {
            Ok(()) => {}
            Err(e) if below.as_os_str().is_empty() => return Err(e),
            // Gone, or swapped for a link since it was listed: not ours to follow.
            Err(e) if matches!(e.source, Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(e) => found.failed.push(e),
        }
    }
    Ok(found)
}

fn walk_one(
    rule: &Rule,
    root: &Dir,
    below: &Path,
    found: &mut Found,
    open: &mut Vec<PathBuf>,
    on_dir: &mut impl FnMut(&Path),
) -> Result<(), FsError> {
    let dir = root.descend(below)?;
    on_dir(below);
    found.dirs.push(below.to_owned());
    for name in dir.names()? {
        let name = name?;
        // One name that cannot be examined (a damaged inode) hides no other; as a pair it is held, and says why.
        if rule.recursive && is_subdirectory(&dir, &name).unwrap_or(false) {
            if below.components().count() >= MAX_DEPTH || found.dirs.len() + open.len() >= MAX_DIRS {
                found.capped = true;
            } else {
                open.push(below.join(&name));
            }
            continue;
        }
        match meaning(rule, below, &name) {
            Meaning::Pair(path) => {
                found.pairs.insert(path);
            }
            Meaning::Unsignable(path, why) => found.unsignable.push((path, why)),
            Meaning::Nothing => {}
        }
    }
    Ok(())
}

/// Whether a name is a directory to walk. Ours are not.
fn is_subdirectory(dir: &Dir, name: &OsStr) -> Result<bool, FsError> {
    if name.as_bytes().starts_with(RESERVED_PREFIX.as_bytes()) {
        return Ok(false);
    }
    Ok(dir.stat_of(name)?.is_some_and(|stat| stat.kind == Kind::Directory))
}
