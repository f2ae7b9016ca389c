//! One `[[watch]]` table: a rule, and what follows from it.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use super::pattern;
use super::{AcceptBatch, ControlFiles, Delivery, Exclusion, Mode, Patterns, Place, SignRule, VerifyRule};
use crate::context::ContextTemplate;
use crate::context::leaf_keys::LeafKeys;
use crate::fs::RelPath;
use crate::signature::{Format, Suffix};
use crate::signing::Formats;

/// One `[[watch]]` table.
#[derive(Debug)]
pub struct Rule {
    /// Its name: unique in the policy; 1 to 64 letters, digits, `.`, `_`, `-`.
    pub name: String,
    /// The line of its `[[watch]]` in the policy file, from 1.
    pub line: usize,
    /// The watched directory.
    pub path: PathBuf,
    /// Whether directories below it are watched too.
    pub recursive: bool,
    /// Which names are meant. `None`: all but the usual names of unfinished files.
    pub include: Option<Patterns>,
    /// Which names are not meant, even if included.
    pub exclude: Option<Patterns>,
    /// What keeps a payload from counting as complete as long as it lies beside it.
    pub control_files: ControlFiles,
    /// How long a file must be unchanged before it counts as complete.
    pub settle: Duration,
    /// Whether what proves it complete sooner counts: a rename, or a valid signature.
    pub prompt: bool,
    /// The largest payload, in bytes.
    pub max_size: u64,
    /// The most hard links a payload may have.
    pub max_links: u32,
    /// Whose files are handled, by user id. `None`: anyone's.
    pub allowed_owners: Option<Vec<u32>>,
    /// Whether missing directories (and, for a sign rule, a missing keyring with its local key) are
    /// made.
    pub create: bool,
    /// The encryption context of a file.
    pub context: ContextTemplate,
    /// How many bytes of its files may lie in quarantine; what would exceed it is held.
    pub quarantine_max_size: u64,
    /// After how long its items are purged from quarantine. `None`: never.
    pub quarantine_keep: Option<Duration>,
    /// What is done.
    pub mode: Mode,
}

impl Rule {
    /// Whether a payload of this name is meant. Unfinished files and dotfiles are meant only by a
    /// pattern of `include` that says so itself: `.x*` or `*.tmp`, not `*`. Names of signatures are
    /// not asked about.
    pub fn wants(&self, name: &OsStr) -> bool {
        self.exclusion(name).is_none()
    }

    /// Why a payload of this name is not meant, if it is not.
    pub(crate) fn exclusion(&self, name: &OsStr) -> Option<Exclusion<'_>> {
        if let Some(excluded) = self.excluded(name) {
            return Some(excluded);
        }
        match (&self.include, pattern::unfinished_mark(name)) {
            (None, mark) => mark.map(|mark| Exclusion::Unfinished(mark.as_str())),
            (Some(patterns), None) => (!patterns.matches(name)).then_some(Exclusion::NotIncluded),
            (Some(patterns), Some(mark)) => {
                (!patterns.matches_naming(name, mark)).then_some(Exclusion::Unfinished(mark.as_str()))
            }
        }
    }

    /// Why what lies in a directory of this name is not meant, if it is not. Uploads under way have
    /// their final names in dot directories (rsync's `--partial-dir`, `--delay-updates`).
    pub(crate) fn directory_exclusion(&self, name: &OsStr) -> Option<Exclusion<'_>> {
        let is_included =
            |mark| self.include.as_ref().is_some_and(|patterns| patterns.matches_naming(name, mark));
        self.excluded(name).or_else(|| {
            let dot = pattern::dot_mark(name).filter(|dot| !is_included(*dot));
            dot.map(|dot| Exclusion::Unfinished(dot.as_str()))
        })
    }

    /// The names of what keeps a payload from counting as complete, each with the largest size that
    /// it may have. What a pattern of `include` names itself is a payload instead.
    pub(crate) fn control_names<'a>(
        &'a self,
        payload: &'a OsStr,
    ) -> impl Iterator<Item = (OsString, u64)> + 'a {
        let names = self.control_files.names(payload);
        let control = names.filter(|(name, ending, _)| !self.is_included_as(name, ending));
        control.map(|(name, _, max_size)| (name, max_size))
    }

    /// The payload whose control file has this name, if it is one's.
    pub(crate) fn controlled<'n>(&self, name: &'n OsStr) -> Option<&'n OsStr> {
        let (payload, ending) = self.control_files.payload_of(name)?;
        (!self.is_included_as(name, ending)).then_some(payload)
    }

    fn is_included_as(&self, name: &OsStr, ending: &str) -> bool {
        self.include.as_ref().is_some_and(|patterns| patterns.matches_ending(name, ending))
    }

    fn excluded(&self, name: &OsStr) -> Option<Exclusion<'_>> {
        self.exclude.as_ref().and_then(|patterns| patterns.matching(name)).map(Exclusion::Pattern)
    }

    /// Where this rule delivers to, if it does.
    pub const fn delivery(&self) -> Option<&Delivery> {
        match &self.mode {
            Mode::Sign(SignRule { deliver_to: Some(delivery), .. })
            | Mode::Verify(VerifyRule { place: Place::Deliver(delivery), .. }) => Some(delivery),
            Mode::Sign(_) | Mode::Verify(_) => None,
        }
    }

    /// Whether it may ever move files away: to quarantine, or as the source of a delivery.
    pub(crate) const fn moves_files(&self) -> bool {
        self.delivery().is_some() || self.mode.quarantines()
    }

    /// Whether it ever writes to its own directory: a `.sig` beside the payload, or files moved
    /// away.
    pub(crate) const fn writes_to_root(&self) -> bool {
        matches!(self.mode, Mode::Sign(_)) || self.moves_files()
    }

    /// Whether it writes signatures beside the payloads.
    pub(crate) const fn signs_in_place(&self) -> bool {
        matches!(self.mode, Mode::Sign(_)) && self.delivery().is_none()
    }

    /// What the signatures of its payloads are named by.
    pub(crate) const fn suffix(&self) -> Suffix {
        Format::Kms.suffix() // the formats that a rule can have share it
    }

    /// The name of the signature of a payload.
    pub fn signature_name(&self, payload: &OsStr) -> OsString {
        self.suffix().signature_of(payload)
    }

    /// The path of the signature beside a payload; `None` if that cannot have one.
    pub(crate) fn signature_path(&self, payload: &RelPath) -> Option<RelPath> {
        RelPath::new(payload.parent().join(self.signature_name(payload.name())))
    }

    /// Which formats of signatures it takes. Of a batch's context, `leaf_keys` live only in the
    /// leaf: those of this rule, [`ContextTemplate::leaf_keys`], whatever a signature says.
    ///
    /// A sign rule knows a signature of its key in any format; whether it is the one to have is
    /// another matter.
    pub(crate) const fn formats<'a>(&self, leaf_keys: &'a LeafKeys) -> Formats<'a> {
        match &self.mode {
            Mode::Sign(_) | Mode::Verify(VerifyRule { accept_batch: AcceptBatch::Yes, .. }) => {
                Formats::Batch(leaf_keys)
            }
            Mode::Verify(VerifyRule { accept_batch: AcceptBatch::No, .. }) => Formats::Plain,
        }
    }

    /// What this rule's decisions depend on: mode, keys, context and format. A decision recorded
    /// under another fingerprint is no decision of this rule.
    pub fn fingerprint(&self) -> String {
        self.fingerprint_with(self.has_batches())
    }

    /// What the fingerprint would be if the rule had batches and has none, or the other way round:
    /// a decision under it differs from this rule's in the format alone.
    pub(crate) fn fingerprint_but_for_format(&self) -> String {
        self.fingerprint_with(!self.has_batches())
    }

    /// Whether it signs batches, or takes them.
    pub(crate) fn has_batches(&self) -> bool {
        match &self.mode {
            Mode::Sign(sign) => sign.batch.is_some(),
            Mode::Verify(verify) => verify.accept_batch == AcceptBatch::Yes,
        }
    }

    fn fingerprint_with(&self, batches: bool) -> String {
        let mut text = String::new();
        match &self.mode {
            Mode::Sign(sign) => {
                text.push_str("sign\0");
                text.push_str(sign.key.as_str());
            }
            Mode::Verify(verify) => {
                text.push_str("verify");
                for key in &verify.trusted_keys {
                    text.push('\0');
                    text.push_str(key.as_str());
                }
            }
        }
        text.push_str("\0\0plain");
        if batches {
            text.push_str("\0batch");
        }
        text.push('\0');
        text.push_str(&self.context.canonical());
        let digest = crate::digest::Digest::of(text.as_bytes()).to_string();
        digest.get(..32).unwrap_or_default().to_owned()
    }
}
