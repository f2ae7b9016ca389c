//! What a policy makes of one path: which rule it falls to, what lies there, and what would come of
//! it.
//!
//! Asks the same functions that the daemon does, and looks no further than the daemon's own look:
//! no payload is read, no KMS is asked, nothing is changed. Of a signature the bytes are read,
//! which say whose they claim to be.

mod ending;
mod prospect;
mod scene;

use std::ffi::OsStr;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use crate::chain;
use crate::context::leaf_keys::LeafKeys;
use crate::context::{Context, ContextError, Filling};
use crate::daemon::site::attach::{Directories, DirectorySite};
use crate::daemon::site::decided::{is_of, is_stray};
use crate::daemon::worker::want;
pub(crate) use crate::diagnose::explain::ending::Ending;
pub(crate) use crate::diagnose::explain::prospect::Prospect;
pub(crate) use crate::diagnose::explain::scene::{ExplainInputs, SignatureThere};
use crate::diagnose::explain::scene::{Scene, Unseen};
use crate::escape::quoted;
use crate::fs::{Kind, RelPath, Stat};
use crate::key::KeyId;
use crate::policy;
use crate::policy::{Exclusion, Mode, Rule};
use crate::settle::{Activity, PairVersion};
use crate::signature::{Clue, Signature};
use crate::source::directory::scan;
use crate::source::directory::scan::{MAX_DEPTH, MAX_DIR_PATH, Overlooked, Part, Unsignable};
use crate::state::Remembered;
use crate::state::link::Row;
use crate::state::reader::HistoryError;
use crate::state::reason::RefusalReason;

/// A path that is asked about: as it is written, and where it really leads.
#[derive(Debug)]
pub(crate) struct Asked {
    written: PathBuf,
    real: PathBuf,
}

/// Why a rule has nothing to do with a path.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WhyNot<'r> {
    /// It lies elsewhere.
    #[error("it is not in {}", quoted(.0))]
    Outside(&'r Path),
    /// It is the rule's directory.
    #[error("it is the watched directory itself")]
    Root,
    /// It lies below the rule's directory.
    #[error("it lies in a directory below, and the rule is not recursive")]
    NotRecursive,
    /// It lies so deep that nobody looks.
    #[error(
        "it lies too deep: directories are followed {MAX_DEPTH} deep, with paths of at most {MAX_DIR_PATH} bytes"
    )]
    TooFar,
    /// Another file system is mounted on the path.
    #[error("another file system is mounted on the way, and mounts are not crossed")]
    Mount,
    /// A symlink or a file is a component of the path.
    #[error("a symbolic link or a file is on the way, and links are not followed")]
    NoDirectory,
    /// A directory is there.
    #[error("a directory is there, and only files are signed and verified")]
    Directory,
    /// Its name means nothing to the rule.
    #[error("{0}")]
    Overlooked(Overlooked<'r>),
    /// It lies beside a file that is not complete, and says so.
    #[error("it is the control file of {}, which counts as unfinished", quoted(.0.as_path()))]
    ControlFile(RelPath),
    /// It can have no signature.
    #[error("refused: {reason}")]
    Unsignable {
        /// Why.
        reason: RefusalReason,
        /// Whether a file lies there, to be refused.
        is_there: bool,
    },
}

impl WhyNot<'_> {
    /// The code, for programs.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Outside(_) => "outside",
            Self::Root => "watched-directory",
            Self::NotRecursive => "not-recursive",
            Self::TooFar => "too-deep",
            Self::Mount => "mount",
            Self::NoDirectory => "no-directory",
            Self::Directory => "directory",
            Self::Overlooked(Overlooked::Reserved) => "reserved",
            Self::Overlooked(Overlooked::Excluded(why) | Overlooked::Below(why)) => match why {
                Exclusion::Pattern(_) => "excluded",
                Exclusion::NotIncluded => "not-included",
                Exclusion::Unfinished(_) => "unfinished",
            },
            Self::ControlFile(_) => "control-file",
            Self::Unsignable { reason, .. } => reason.as_str(),
        }
    }

    /// What comes of the path in this rule.
    pub(crate) fn ending(&self) -> Ending {
        match self {
            Self::Unsignable { reason, is_there: true } => Ending::refused(reason),
            Self::Unsignable { is_there: false, .. }
            | Self::Outside(_)
            | Self::Root
            | Self::NotRecursive
            | Self::TooFar
            | Self::Mount
            | Self::NoDirectory
            | Self::Directory
            | Self::ControlFile(_)
            | Self::Overlooked(_) => Ending::Nothing,
        }
    }
}

/// What a rule that applies makes of a path.
#[derive(Debug)]
pub(crate) struct Applied {
    /// The payload below the rule's directory.
    pub(crate) path: RelPath,
    /// The whole context: for a plain signature, exactly what KMS would get.
    pub(crate) context: Result<Context, ContextError>,
    /// What KMS would get of it.
    pub(crate) sent: Sent,
    /// The keys, in the order in which they would be asked.
    pub(crate) keys: Vec<KeyId>,
    /// What state remembers about it.
    pub(crate) remembered: Option<Remembered>,
    /// The newest row of the record about it.
    pub(crate) row: Option<Row>,
    /// What lies there, or why the rule cannot work now.
    pub(crate) now: Result<Now, String>,
}

/// What KMS gets of a file's context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sent {
    /// All of it.
    Whole,
    /// What the files of a batch share.
    Shared(Split),
    /// One or the other, as the signature says that comes, or that lies there.
    Either(Split),
}

/// A context as it is split for a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Split {
    /// Exactly what KMS gets.
    pub(crate) shared: Context,
    /// The pairs that are in the leaf alone.
    pub(crate) leaf: Vec<(String, String)>,
}

impl Sent {
    /// The split, if there may be one.
    pub(crate) const fn split(&self) -> Option<&Split> {
        match self {
            Self::Whole => None,
            Self::Shared(split) | Self::Either(split) => Some(split),
        }
    }
}

/// What lies at a path now, and what comes of it.
#[derive(Debug)]
pub(crate) struct Now {
    /// The payload, or what has its place.
    pub(crate) payload: Option<Stat>,
    /// What has the signature's name.
    pub(crate) signature: Option<SignatureThere>,
    /// What lies beside the payload and looks like its signature, where there is none.
    pub(crate) clue: Option<Clue>,
    /// Why it is not handled as it is.
    pub(crate) unfit: Option<String>,
    /// Whether somebody has it open for writing, where it was asked.
    pub(crate) activity: Option<Activity>,
    /// Whether what is remembered is about exactly what lies there, under the rule as it is.
    pub(crate) is_of_this: bool,
    /// What would happen.
    pub(crate) prospect: Prospect,
}

impl Asked {
    /// Takes a path as somebody writes it. Nothing needs to be there.
    ///
    /// # Errors
    /// There is no working directory for it to be relative to.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let written = std::path::absolute(path)?;
        // Not through the last name itself: a link there is what is asked about.
        let real = match (written.parent(), written.file_name()) {
            (Some(parent), Some(name)) => policy::resolved(parent).join(name),
            _ => policy::resolved(&written),
        };
        Ok(Self { written, real })
    }

    /// The path as it is written, from the root.
    pub(crate) fn path(&self) -> &Path {
        &self.written
    }

    /// The path below the rule's directory.
    fn below(&self, rule: &Rule) -> Option<PathBuf> {
        let is_plain = !self.written.components().any(|component| component == Component::ParentDir);
        let by_name = self.written.strip_prefix(&rule.path).ok().filter(|_| is_plain);
        let below = match by_name {
            Some(below) => below,
            None => self.real.strip_prefix(policy::resolved(&rule.path)).ok()?,
        };
        Some(below.components().collect())
    }
}

/// What a rule makes of a path.
///
/// # Errors
/// State cannot be read. That the rule does not apply is the inner error.
pub(crate) fn explain<'r>(
    rule: &'r Arc<Rule>,
    asked: &Asked,
    inputs: ExplainInputs<'_>,
) -> Result<Result<Applied, WhyNot<'r>>, HistoryError> {
    let named = match named(rule, asked) {
        Ok(named) => named,
        Err(why) => return Ok(Err(why)),
    };
    let site = Directories::for_a_look().open(rule);
    let path = match named.part {
        Named::Payload(path) | Named::Signature(path) => path,
        Named::Unsignable(why) => {
            let is_there = site.is_ok_and(|site| is_file(&site, &named.itself));
            return Ok(Err(WhyNot::Unsignable { reason: why.into(), is_there }));
        }
    };
    let filling =
        Filling { relpath: path.as_path(), watch: &rule.name, hostname: &crate::daemon::hostname() };
    let context = rule.context.expand(filling);
    let remembered = inputs.decisions.map_or(Ok(None), |d| d.remembered(&rule.name, &path))?;
    let row = inputs.decisions.map_or(Ok(None), |d| d.newest_row(&rule.name, &path))?;
    let now = match site {
        Err(error) => Err(chain::one_line(&error)),
        Ok(site) => {
            if let Some(why) = obstacle(&site, &path, &named.itself, remembered.as_ref()) {
                return Ok(Err(why));
            }
            if let Some(payload) = site.folder().controlled(&named.itself) {
                return Ok(Err(WhyNot::ControlFile(payload)));
            }
            let scene =
                Scene { site: &site, path: &path, context: &context, row: remembered.as_ref(), inputs };
            match scene.now() {
                Ok(now) => Ok(now),
                Err(Unseen::State(error)) => return Err(error),
                Err(Unseen::Fs(error)) => Err(chain::one_line(&error)),
            }
        }
    };
    let there = now.as_ref().ok().and_then(|now| now.signature.as_ref());
    let sent = sent(rule, context.as_ref().ok(), there.and_then(SignatureThere::parsed));
    Ok(Ok(Applied { path, context, sent, keys: rule.mode.keys(), remembered, row, now }))
}

/// What of a context KMS gets, for the signature that lies there or would be made.
fn sent(rule: &Rule, context: Option<&Context>, there: Option<&Signature>) -> Sent {
    let split = |leaf_keys: &LeafKeys| {
        let context = context?;
        let leaf = context.of_leaf(leaf_keys).map(|(key, value)| (key.to_owned(), value.to_owned()));
        Some(Split { shared: context.of_batch(leaf_keys).ok()?, leaf: leaf.collect() })
    };
    // That of the policy: a signature that is split otherwise never reaches KMS.
    let Some(split) = split(&rule.context.leaf_keys()) else { return Sent::Whole };
    // What is signed and delivered gets a new signature, whatever lies beside it.
    let is_read = !matches!(&rule.mode, Mode::Sign(sign) if sign.deliver_to.is_some());
    let is_batch = there.filter(|_| is_read).map(|signature| signature.batch().is_some());
    match (&rule.mode, rule.has_batches(), is_batch) {
        (_, true, Some(true)) | (Mode::Sign(_), true, None) => Sent::Shared(split),
        // One is read in one form and made in the other.
        (Mode::Sign(_), true, Some(false)) | (Mode::Sign(_), false, Some(true)) => Sent::Either(split),
        (Mode::Verify(_), true, None) => Sent::Either(split),
        (_, false, None | Some(false)) => Sent::Whole,
        (Mode::Verify(_), true, Some(false)) | (Mode::Verify(_), false, Some(true)) => Sent::Whole,
    }
}

/// A path that means something to a rule, by its name.
struct NamedPath {
    /// The path below the rule's directory.
    itself: RelPath,
    /// What it names.
    part: Named,
}

/// What a name below a rule's directory is.
enum Named {
    /// That of this payload.
    Payload(RelPath),
    /// That of the signature of this payload.
    Signature(RelPath),
    /// Of what can have no signature.
    Unsignable(Unsignable),
}

/// What a path is to a rule by its name.
fn named<'r>(rule: &'r Rule, asked: &Asked) -> Result<NamedPath, WhyNot<'r>> {
    let outside = || WhyNot::Outside(&rule.path);
    let below = asked.below(rule).ok_or_else(outside)?;
    let Some((parent, name)) = below.parent().zip(below.file_name()) else { return Err(WhyNot::Root) };
    if below.components().any(|component| scan::is_reserved(component.as_os_str())) {
        return Err(WhyNot::Overlooked(Overlooked::Reserved));
    }
    if !rule.recursive && !parent.as_os_str().is_empty() {
        return Err(WhyNot::NotRecursive);
    }
    scan::enter(rule, parent).map_err(WhyNot::Overlooked)?;
    if scan::is_too_far(parent) {
        return Err(WhyNot::TooFar);
    }
    let path = |name: &OsStr| RelPath::new(parent.join(name)).ok_or_else(outside);
    let part = match scan::part(rule, name).map_err(WhyNot::Overlooked)? {
        Part::Of(payload) if payload == name => Named::Payload(path(payload)?),
        Part::Of(payload) | Part::SignatureOf(payload) => Named::Signature(path(payload)?),
        Part::Unsignable(why) => Named::Unsignable(why),
    };
    Ok(NamedPath { itself: path(name)?, part })
}

/// Whether a file lies there, of whatever kind.
fn is_file(site: &DirectorySite, path: &RelPath) -> bool {
    site.folder().version_of(path).is_ok_and(|version| version.is_some())
}

/// What keeps the daemon from ever reaching a file of this payload, or the path that was asked
/// about.
fn obstacle(
    site: &DirectorySite,
    payload: &RelPath,
    itself: &RelPath,
    row: Option<&Remembered>,
) -> Option<WhyNot<'static>> {
    let dir = match site.folder().root.descend(payload.parent()) {
        Ok(dir) => dir,
        Err(e) if e.source == Errno::XDEV => return Some(WhyNot::Mount),
        Err(e) if e.is_no_directory() => return Some(WhyNot::NoDirectory),
        Err(_) => return None,
    };
    let kind = |path: &RelPath| Some(dir.stat_of(path.name()).ok()??.kind);
    let has_payload = kind(payload).is_some_and(|kind| kind != Kind::Directory);
    let is_signature = itself != payload;
    if kind(itself) == Some(Kind::Directory) && !has_payload {
        // In a verify rule its signature may lie there, and wait for a file.
        let look = site.folder().look(payload).ok()?;
        let is_nothing = want(&site.rule).versions(look.versions) == PairVersion::NONE;
        return is_nothing.then_some(WhyNot::Directory);
    }
    if matches!(site.rule.mode, Mode::Sign(_)) && is_signature && !has_payload && is_stray(row) {
        let (reason, is_there) = (RefusalReason::StraySignature, is_file(site, itself));
        return Some(WhyNot::Unsignable { reason, is_there });
    }
    None
}

impl Scene<'_> {
    fn now(&self) -> Result<Now, Unseen> {
        let look = self.site.folder().look(self.path)?;
        let payload = self.stat_of(self.path.name())?;
        let signature = self.signature()?;
        let clue = if signature.is_none() && payload.is_some() { self.beside()? } else { None };
        let activity =
            look.versions.payload.is_some().then(|| self.site.folder().activity(self.path, &look.versions));
        let is_of_this = self.row.is_some_and(|row| is_of(self.site, row, &look.versions));
        let prospect = self.prospect(&look, signature.as_ref(), activity)?;
        let activity = activity.filter(|_| look.unfit.is_none());
        let unfit = look.unfit.map(|unfit| unfit.to_string());
        Ok(Now { payload, signature, clue, unfit, activity, is_of_this, prospect })
    }
}
