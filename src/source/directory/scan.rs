//! The directory walk: which names of a rule's directory are pairs to look at.
//!
//! Walks by descriptor, never through a symlink or onto another mount. Only names; what stands
//! behind them is `statx`'s to say, one by one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::fs::modes;
use crate::fs::private;
use crate::fs::private::Kinship;
use crate::fs::staging::RESERVED_PREFIX;
use crate::fs::{Dir, FsError, Kind, Listed, Names, RelPath, Stat};
use crate::policy::{Exclusion, Mode, Rule};
use crate::signature::Format;
use crate::source::Batch;
use crate::state::reason::RefusalReason;

/// How deep directories are followed, and how many (A12). Beyond that a sender is playing games.
pub(crate) const MAX_DEPTH: usize = 64;
/// How many directories of one rule are watched at most.
pub(crate) const MAX_DIRS: usize = 100_000;
/// How many bytes the path of a directory below the root has at most. A sender could give it 4,095,
/// and so each of the thousands of pairs that wait in it (P10).
pub(crate) const MAX_DIR_PATH: usize = 1024;
/// How many bytes all of them have together at most, 160 each if there are as many as may be: the
/// watcher keeps them, twice.
const MAX_DIR_BYTES: usize = 16 << 20;

/// The longest payload name whose signature still has a name, in bytes (NAME_MAX is 255).
const MAX_NAME: usize = 255 - Format::Kms.suffix().byte_len();

/// What a name in a watched directory means to a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meaning {
    /// Part of the pair of this payload.
    Pair(RelPath),
    /// In a sign rule, the name of the signature of this payload.
    Signature(RelPath),
    /// Nothing to this rule.
    Nothing,
    /// Would be a payload, but can have no signature; reported once.
    Unsignable(RelPath, Unsignable),
}

/// Why a name means nothing to a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Overlooked<'r> {
    /// A name of this program's own.
    #[error("names that begin with {RESERVED_PREFIX} are kms-sig's own")]
    Reserved,
    /// The rule's patterns leave it out.
    #[error("{0}")]
    Excluded(Exclusion<'r>),
    /// The same of a directory above it.
    #[error("it lies in a directory that is not entered: {0}")]
    Below(Exclusion<'r>),
}

/// What a name is, to a rule that it means something to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part<'n> {
    /// A payload, or in a verify rule the signature of one; the payload's name.
    Of(&'n OsStr),
    /// In a sign rule, the signature of this payload.
    SignatureOf(&'n OsStr),
    /// What can have no signature.
    Unsignable(Unsignable),
}

/// Why a name can have no signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsignable {
    /// `NAME.sig` would be longer than a name may be.
    NameTooLong,
    /// A `.sig` of a `.sig`, or of nothing.
    SignatureOfSignature,
    /// In a sign rule, a `.sig` whose file is not there: not signed, whatever it is.
    Stray,
    /// In a sign rule, what ends in `.SIG` or `.Sig`: made elsewhere to be a signature, most
    /// likely.
    SuffixInOtherCase,
}

impl From<Unsignable> for RefusalReason {
    fn from(why: Unsignable) -> Self {
        match why {
            Unsignable::NameTooLong => Self::NameTooLong { max: MAX_NAME },
            Unsignable::SignatureOfSignature => Self::SignatureOfSignature,
            Unsignable::Stray => Self::StraySignature,
            Unsignable::SuffixInOtherCase => Self::SuffixInOtherCase,
        }
    }
}

/// What `name`, in the directory `below` the rule's root, means.
pub fn meaning(rule: &Rule, below: &Path, name: &OsStr) -> Meaning {
    enter(rule, below).map_or(Meaning::Nothing, |()| meaning_in(rule, below, name))
}

/// [`meaning`], in a directory that the rule means.
fn meaning_in(rule: &Rule, below: &Path, name: &OsStr) -> Meaning {
    let path = |name: &OsStr| RelPath::new(below.join(name));
    match part(rule, name) {
        Err(_) => Meaning::Nothing,
        Ok(Part::Of(payload)) => path(payload).map_or(Meaning::Nothing, Meaning::Pair),
        Ok(Part::SignatureOf(payload)) => path(payload).map_or(Meaning::Nothing, Meaning::Signature),
        Ok(Part::Unsignable(why)) => {
            path(name).map_or(Meaning::Nothing, |path| Meaning::Unsignable(path, why))
        }
    }
}

/// Whether a rule means what lies in a directory.
///
/// # Errors
/// Why it does not.
pub(crate) fn enter<'r>(rule: &'r Rule, below: &Path) -> Result<(), Overlooked<'r>> {
    let why = below.components().find_map(|component| rule.directory_exclusion(component.as_os_str()));
    why.map_or(Ok(()), |why| Err(Overlooked::Below(why)))
}

/// What a name is to a rule, whatever directory it is in.
///
/// # Errors
/// Why it is nothing to it.
pub(crate) fn part<'n, 'r>(rule: &'r Rule, name: &'n OsStr) -> Result<Part<'n>, Overlooked<'r>> {
    if is_reserved(name) {
        return Err(Overlooked::Reserved);
    }
    let suffix = rule.suffix();
    let (payload, part) = match (suffix.payload_of(name), &rule.mode) {
        (Some(payload), _) if payload.is_empty() || suffix.payload_of(payload).is_some() => {
            return Ok(Part::Unsignable(Unsignable::SignatureOfSignature));
        }
        (Some(payload), Mode::Sign(_)) => (payload, Part::SignatureOf(payload)),
        (Some(payload), Mode::Verify(_)) => (payload, Part::Of(payload)),
        (None, _) if name.len() > MAX_NAME => return Ok(Part::Unsignable(Unsignable::NameTooLong)),
        // Judged it may be, by a signature of its own; signed it would pass for a signature of
        // ours.
        (None, Mode::Sign(_)) if suffix.payload_in_other_case(name).is_some() => {
            (name, Part::Unsignable(Unsignable::SuffixInOtherCase))
        }
        (None, _) => (name, Part::Of(name)),
    };
    rule.exclusion(payload).map_or(Ok(part), |why| Err(Overlooked::Excluded(why)))
}

/// Whether a name is of this program's own, and neither a payload nor a directory to walk.
pub(crate) fn is_reserved(name: &OsStr) -> bool {
    name.as_bytes().starts_with(RESERVED_PREFIX.as_bytes())
}

/// Whether a directory, by its path below the root, is too deep or its path too long to be walked.
pub(crate) fn is_too_far(below: &Path) -> bool {
    below.components().count() > MAX_DEPTH || below.as_os_str().len() > MAX_DIR_PATH
}

/// What an earlier run may have left in a watched directory.
#[derive(Debug)]
pub(crate) enum Leftover {
    /// A private folder, which a killed process left at this path or somebody has moved there.
    PrivateFolder(RelPath),
    /// A name of ours for what was about to be put in place; nobody makes these any more.
    StandIn(RelPath),
}

/// A walk through a rule's directory, a few names at a time: a directory of a million files needs
/// no more memory than a small one (P10), and whoever walks can do something else in between (A11).
pub(crate) struct Walk {
    rule: Arc<Rule>,
    /// Directories to be walked.
    open: Vec<PathBuf>,
    /// Directories begun.
    begun: usize,
    /// Bytes left for the paths of directories.
    room: usize,
    /// The one being read.
    listing: Option<(Dir, PathBuf, Names)>,
    /// Whether it left out directories, because there are too many or they lie too deep.
    pub(crate) capped: bool,
}

impl Walk {
    /// A walk that has read nothing yet.
    pub(crate) fn new(rule: &Arc<Rule>) -> Self {
        Self {
            rule: Arc::clone(rule),
            open: vec![PathBuf::new()],
            begun: 0,
            room: MAX_DIR_BYTES,
            listing: None,
            capped: false,
        }
    }

    /// Reads about as many names as `limit`; `None` when there are no more. `on_dir` is called with
    /// each directory before its names are read, so that a watch placed there misses nothing that
    /// the walk does not see.
    ///
    /// # Errors
    /// The root itself cannot be listed. The walk is over then.
    pub(crate) fn next(
        &mut self,
        root: &Dir,
        limit: usize,
        mut on_dir: impl FnMut(&Path),
    ) -> Result<Option<Batch<Leftover>>, FsError> {
        let mut batch = Batch::default();
        for _ in 0..limit {
            let Some((dir, below, mut names)) = self.listing.take() else {
                let Some(below) = self.open.pop() else { break };
                match self.begin(root, &below, &mut on_dir) {
                    Ok(listing) => self.listing = Some(listing),
                    Err(e) => self.could_not_read(&below, e, &mut batch)?,
                }
                continue;
            };
            match names.next_listed() {
                None => {}
                Some(Ok(listed)) => {
                    self.take(&dir, &below, &listed, &mut batch);
                    self.listing = Some((dir, below, names));
                }
                Some(Err(e)) => self.could_not_read(&below, e, &mut batch)?,
            }
        }
        let is_over = self.open.is_empty() && self.listing.is_none() && batch.is_empty();
        Ok((!is_over).then_some(batch))
    }

    fn begin(
        &mut self,
        root: &Dir,
        below: &Path,
        on_dir: &mut impl FnMut(&Path),
    ) -> Result<(Dir, PathBuf, Names), FsError> {
        let dir = private::descend(root, below)?;
        on_dir(below);
        self.begun += 1;
        let names = dir.names()?;
        Ok((dir, below.to_owned(), names))
    }

    fn could_not_read(
        &self,
        below: &Path,
        error: FsError,
        batch: &mut Batch<Leftover>,
    ) -> Result<(), FsError> {
        if below.as_os_str().is_empty() {
            return Err(error);
        }
        // Gone, or swapped for a link since it was listed: not ours to follow.
        if !(error.is_not_found() || error.is_no_directory()) {
            batch.failed.push(error);
        }
        Ok(())
    }

    fn take(&mut self, dir: &Dir, below: &Path, listed: &Listed, batch: &mut Batch<Leftover>) {
        let name = &*listed.name;
        if is_stand_in(name) && !listed.may_be_directory {
            batch.leftovers.extend(RelPath::new(below.join(name)).map(Leftover::StandIn));
            return;
        }
        // One name that cannot be examined (a damaged inode) hides no other; as a pair it is held,
        // and says why.
        let found = if listed.may_be_directory { directory(dir, name).unwrap_or(None) } else { None };
        match found {
            None | Some(Kinship::Stranger) => {}
            Some(Kinship::Own) => {
                batch.leftovers.extend(RelPath::new(below.join(name)).map(Leftover::PrivateFolder));
                return;
            }
            Some(Kinship::Copy) => return,
        }
        if self.rule.recursive && found.is_some() {
            if self.rule.directory_exclusion(name).is_some() {
                return;
            }
            let path = below.join(name);
            let len = path.as_os_str().len();
            if is_too_far(&path) || len > self.room || self.begun + self.open.len() >= MAX_DIRS {
                self.capped = true;
            } else {
                self.room -= len;
                self.open.push(path);
            }
            return;
        }
        match meaning_in(&self.rule, below, name) {
            // By its payload's name, which is in this directory too: the walk comes to it, or, if
            // it is so new that the walk does not, its event does.
            Meaning::Pair(path) if path.name() != name && has_payload(dir, &path) => {}
            Meaning::Pair(path) => drop(batch.pairs.insert(path)),
            Meaning::Signature(path) if has_payload(dir, &path) => {}
            Meaning::Signature(path) => batch.strays.push(path),
            Meaning::Unsignable(path, why) => batch.unsignable.push((path, why.into())),
            Meaning::Nothing => {}
        }
    }
}

/// Whether a name is one that an earlier version gave to what it was about to put in place: 24
/// random digits.
fn is_stand_in(name: &OsStr) -> bool {
    let rest = name.as_bytes().strip_prefix(RESERVED_PREFIX.as_bytes());
    let digits = rest.and_then(|rest| rest.strip_prefix(b"-"));
    digits.is_some_and(|digits| digits.len() == 24 && digits.iter().all(u8::is_ascii_hexdigit))
}

/// What kind of directory has a name, if one has. What has a name of ours is none of a rule's, but
/// may be a private folder that a killed process left.
fn directory(dir: &Dir, name: &OsStr) -> Result<Option<Kinship>, FsError> {
    if is_reserved(name) {
        let is_private = |stat: Stat| modes::is_private(&stat);
        if !private::is_other_name(name) || !dir.stat_of(name)?.is_some_and(is_private) {
            return Ok(None);
        }
        let kinship = private::kinship(&dir.descend(Path::new(name))?)?;
        return Ok(Some(kinship).filter(|kinship| *kinship == Kinship::Own));
    }
    match dir.stat_of(name)? {
        Some(stat) if modes::is_private(&stat) => private::kinship(&dir.descend(Path::new(name))?).map(Some),
        Some(stat) if stat.kind == Kind::Directory => Ok(Some(Kinship::Stranger)),
        _ => Ok(None),
    }
}

/// Whether there is a file to a signature. What cannot be examined is not known to be there.
fn has_payload(dir: &Dir, path: &RelPath) -> bool {
    dir.stat_of(path.name()).is_ok_and(|stat| stat.is_some_and(|stat| stat.kind != Kind::Directory))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;
    use std::fs::{File, create_dir};

    use super::*;
    use crate::policy::Policy;

    /// A verify rule over a fresh directory, and the directory.
    pub(in crate::source::directory) fn downloads() -> (tempfile::TempDir, Arc<Rule>, Dir) {
        let folder = tempfile::tempdir().unwrap();
        let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy/good/every-key.toml");
        let mut policy = Policy::load(&policy).unwrap_or_else(|faults| panic!("{faults}"));
        let place = policy.rules.iter().position(|rule| matches!(rule.mode, Mode::Verify(_))).unwrap();
        let mut rule = Arc::into_inner(policy.rules.remove(place)).unwrap();
        rule.recursive = true;
        rule.include = None;
        rule.exclude = None;
        let root = Dir::open(folder.path()).unwrap();
        (folder, Arc::new(rule), root)
    }

    /// The pairs of each batch, in order.
    fn batches(walk: &mut Walk, root: &Dir, limit: usize) -> Vec<Vec<PathBuf>> {
        let mut batches = Vec::new();
        while let Some(batch) = walk.next(root, limit, |_| ()).unwrap() {
            assert!(batch.failed.is_empty());
            batches.push(batch.pairs.iter().map(|pair| pair.as_path().to_owned()).collect());
        }
        batches
    }

    #[test]
    fn a_pair_that_lies_there_whole_comes_once_and_a_lone_half_still_comes() {
        let (folder, rule, root) = downloads();
        for name in ["whole", "whole.sig", "payload-only", "signature-only.sig"] {
            File::create(folder.path().join(name)).unwrap();
        }
        // One name at a time, so that no set can hide a pair that comes twice.
        let mut found = batches(&mut Walk::new(&rule), &root, 1).concat();
        found.sort();
        assert_eq!(found, ["payload-only", "signature-only", "whole"].map(PathBuf::from));
    }

    #[test]
    fn p10_a_batch_is_no_longer_than_asked_and_the_next_goes_on_where_it_ended() {
        let (folder, rule, root) = downloads();
        create_dir(folder.path().join("below")).unwrap();
        let mut expected = BTreeSet::new();
        for number in 0..40 {
            let name =
                PathBuf::from(if number % 2 == 0 { "below" } else { "" }).join(format!("file-{number}"));
            File::create(folder.path().join(&name)).unwrap();
            expected.insert(name);
        }
        let batches = batches(&mut Walk::new(&rule), &root, 7);
        assert!(batches.iter().all(|batch| batch.len() <= 7), "{batches:?}");
        let found = batches.concat();
        assert_eq!(found.len(), expected.len(), "none twice");
        assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), expected);
    }

    #[test]
    fn w2_each_directory_is_announced_before_its_names_are_read() {
        let (folder, rule, root) = downloads();
        create_dir(folder.path().join("below")).unwrap();
        let mut found = Vec::new();
        let mut walk = Walk::new(&rule);
        // What is written while it is announced stands for what a producer writes at that moment.
        let mut announce = |below: &Path| {
            if below == Path::new("below") {
                File::create(folder.path().join("below/just-in-time")).unwrap();
            }
        };
        while let Some(batch) = walk.next(&root, 3, &mut announce).unwrap() {
            found.extend(batch.pairs);
        }
        assert_eq!(found, [RelPath::new("below/just-in-time").unwrap()]);
    }

    #[test]
    fn a12_what_lies_too_deep_is_left_out_and_said() {
        let (folder, rule, root) = downloads();
        let mut deep = folder.path().to_owned();
        for _ in 0..=MAX_DEPTH {
            deep.push("d");
            create_dir(&deep).unwrap();
            File::create(deep.join("file")).unwrap();
        }
        let mut walk = Walk::new(&rule);
        assert_eq!(batches(&mut walk, &root, 10).concat().len(), MAX_DEPTH);
        assert!(walk.capped);
    }

    #[test]
    fn a12_p10_paths_that_are_too_long_alone_or_together_are_left_out_and_said() {
        let (folder, rule, root) = downloads();
        let mut long = folder.path().to_owned();
        for _ in 0..MAX_DIR_PATH / 101 + 1 {
            long.push("d".repeat(100));
            create_dir(&long).unwrap();
            File::create(long.join("file")).unwrap();
        }
        let mut walk = Walk::new(&rule);
        assert_eq!(batches(&mut walk, &root, 10).concat().len(), MAX_DIR_PATH / 101);
        assert!(walk.capped);

        let (folder, rule, root) = downloads();
        for number in 0..10 {
            create_dir(folder.path().join(format!("dir-{number}"))).unwrap();
            File::create(folder.path().join(format!("dir-{number}/file"))).unwrap();
        }
        let mut walk = Walk { room: 4 * "dir-0".len() + 1, ..Walk::new(&rule) };
        assert_eq!(batches(&mut walk, &root, 10).concat().len(), 4);
        assert!(walk.capped);
    }
}
