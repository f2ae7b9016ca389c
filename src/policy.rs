//! The policy: what is watched, with which keys, and what happens then.
//!
//! These are the checked shapes. A [`Policy`] exists only by [`Policy::load`], which reports every fault of
//! the file at once, so nothing downstream checks again or falls back to a default (P7). Reads the policy
//! file, and what `table` says beside it; whether the directories exist and may be trusted is `fs::trust`'s.

#[cfg(test)]
mod cases;
mod control;
pub mod fault;
mod grammar;
pub mod manual;
mod owner;
mod pattern;
mod place;
mod reader;
mod record;
mod rule;
mod table;

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use fault::{Fault, Faults};
pub use pattern::{Patterns, Unwanted};
pub(crate) use place::resolved;

use crate::context::ContextTemplate;
use crate::context::leaf_keys::LeafKeys;
use crate::key::{KeyArn, KeyId};
use crate::kms::AwsSettings;
use crate::signature::{Format, Suffix};
use crate::signing::Formats;

/// A checked policy. All paths are absolute.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The file it was read from.
    pub file: PathBuf,
    /// Whether the daemon may run as root.
    pub allow_root: bool,
    /// How to reach AWS.
    pub aws: AwsSettings,
    /// The keyring of `local:` keys, where the policy names one.
    pub keyring: Option<PathBuf>,
    /// Where state lives.
    pub state_dir: PathBuf,
    /// What becomes of the record of decisions.
    pub record: Record,
    /// The quarantine store. Present whenever a rule quarantines.
    pub quarantine_dir: Option<PathBuf>,
    /// Where the daemon answers questions about itself.
    pub control: ControlSettings,
    /// Limits of the whole daemon.
    pub limits: Limits,
    /// The rules, in the order of the file. At least one.
    pub rules: Vec<Arc<Rule>>,
}

/// What `[state]` says about the record of decisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// How long rows are kept. `None`: for ever. Default 400 days.
    pub keep: Option<Duration>,
    /// How its head is sealed, if it is.
    pub seal: Option<Sealing>,
}

/// How the head of the record is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealing {
    /// The key: one that no rule uses.
    pub key: KeyId,
    /// How often, if there is anything new.
    pub interval: Duration,
}

/// `[control]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ControlSettings {
    /// The control socket; `None` for the usual place.
    pub socket: Option<PathBuf>,
    /// Where metrics are told besides: an address of loopback.
    pub metrics: Option<SocketAddr>,
}

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// KMS calls at the same time, 1 to 1,024. Default 64.
    pub max_in_flight: usize,
    /// KMS calls per second, 1 to 100,000. Default 50.
    pub kms_per_second: u32,
    /// Files hashed at the same time, 1 to 256. Default: the number of processors.
    pub hash_threads: usize,
    /// Bytes that must stay free on a file system that is written to. Default 64 MiB.
    pub min_free_space: u64,
}

impl Limits {
    /// How many files of a rule are in hand at the same time: those that are hashed, that KMS is asked about, and as many
    /// as keep a disk busy with what KMS has answered.
    pub const fn in_hand(&self) -> usize {
        self.hash_threads + self.max_in_flight + FINISHING
    }
}

/// How many files of a rule are written at the same time.
pub const FINISHING: usize = 128;

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
    /// How long a file must be unchanged before it counts as complete.
    pub settle: Duration,
    /// The largest payload, in bytes.
    pub max_size: u64,
    /// The most hard links a payload may have.
    pub max_links: u32,
    /// Whose files are handled, by user id. `None`: anyone's.
    pub allowed_owners: Option<Vec<u32>>,
    /// Whether missing directories (and, for a sign rule, a missing keyring with its local key) are made.
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

/// What a rule does with what lands in its directory.
#[derive(Debug)]
pub enum Mode {
    /// Signs it.
    Sign(SignRule),
    /// Verifies it.
    Verify(VerifyRule),
}

/// `mode = "sign"`.
#[derive(Debug)]
pub struct SignRule {
    /// The key that signs.
    pub key: KeyId,
    /// What happens to a signature of ours whose payload has changed.
    pub on_stale: OnStale,
    /// Where payload and signature are published together; otherwise `NAME.sig` is written beside the payload.
    pub deliver_to: Option<Delivery>,
    /// How files share a call of KMS. `None`: each has its own, and its signature is plain.
    pub batch: Option<Batching>,
}

/// `batch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// How long the first file waits for others, 10 ms to a minute.
    pub window: Duration,
    /// How many files are signed at once, 2 to 65,536.
    pub max_files: usize,
}

/// `mode = "verify"`.
#[derive(Debug)]
pub struct VerifyRule {
    /// The keys that may vouch. At least one.
    pub trusted_keys: Vec<KeyArn>,
    /// Where valid pairs go.
    pub place: Place,
    /// What happens to an invalid pair.
    pub on_invalid: OnInvalid,
    /// What happens to a payload whose signature never came.
    pub on_missing: OnInvalid,
    /// How long a payload waits for its signature.
    pub signature_timeout: Duration,
    /// How long an invalid pair must stay unchanged before the verdict is final. `None`: 30 s where leases
    /// answer, 10 min where they cannot.
    pub grace: Option<Duration>,
    /// What happens to a digest that was superseded earlier under the same name.
    pub rollback: Rollback,
    /// Whether batch signatures are taken.
    pub accept_batch: AcceptBatch,
}

/// `accept_batch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceptBatch {
    /// Those too.
    Yes,
    /// Plain ones only; a batch signature is malformed.
    No,
}

/// Where valid pairs go.
#[derive(Debug)]
pub enum Place {
    /// Nowhere: they are judged where they lie.
    InPlace,
    /// Private copies of them go here.
    Deliver(Delivery),
}

/// `deliver_to` and what belongs to it.
#[derive(Debug)]
pub struct Delivery {
    /// The destination directory.
    pub dir: PathBuf,
    /// Permission bits of delivered files; no set-id or sticky bits.
    pub mode: u32,
}

/// `on_stale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStale {
    /// Replace it, if it is ours.
    Resign,
    /// Leave both and say so.
    Report,
    /// Quarantine both.
    Quarantine,
}

/// `on_invalid` and `on_missing`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInvalid {
    /// Move it to the quarantine store.
    Quarantine,
    /// Leave it and say so.
    Log,
}

/// `rollback`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rollback {
    /// Not looked at.
    Off,
    /// Delivered, and an operator is told.
    Alert,
    /// Held, and an operator is told.
    Deny,
}

impl Policy {
    /// Reads and checks a policy file.
    ///
    /// ```
    /// use kms_sig::policy::Policy;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let file = dir.path().join("policy.toml");
    /// let text = r#"
    ///     [local]
    ///     keyring = "keyring"
    ///     [state]
    ///     dir = "state"
    ///     [[watch]]
    ///     name = "releases"
    ///     mode = "sign"
    ///     path = "releases"
    ///     key = "local:releases"
    ///     on_stale = "report"
    /// "#;
    /// std::fs::write(&file, text)?;
    /// let policy = Policy::load(&file)?;
    /// assert_eq!(policy.rules[0].path, dir.path().join("releases"), "beside the policy file");
    ///
    /// // Every fault at once, each with its line: P7.
    /// std::fs::write(&file, text.replace("key =", "keys =").replace("sign", "seal"))?;
    /// let faults = Policy::load(&file).unwrap_err().to_string();
    /// assert!(faults.contains("policy.toml:8") && faults.contains("policy.toml:10"), "{faults}");
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Every fault found, each with file, line and what to write instead.
    pub fn load(file: &Path) -> Result<Self, Faults> {
        table::load(file)
    }
}

impl Mode {
    /// The word in the policy.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Sign(_) => "sign",
            Self::Verify(_) => "verify",
        }
    }

    /// The keys that it uses, in the order in which they are asked.
    pub fn keys(&self) -> Vec<KeyId> {
        match self {
            Self::Sign(sign) => vec![sign.key.clone()],
            Self::Verify(verify) => verify.trusted_keys.iter().map(KeyArn::to_key_id).collect(),
        }
    }

    /// Whether anything of it may ever go to quarantine.
    pub const fn quarantines(&self) -> bool {
        match self {
            Self::Sign(sign) => matches!(sign.on_stale, OnStale::Quarantine),
            Self::Verify(verify) => {
                matches!(verify.on_invalid, OnInvalid::Quarantine)
                    || matches!(verify.on_missing, OnInvalid::Quarantine)
            }
        }
    }
}

impl Rule {
    /// Whether a payload of this name is meant. Unfinished files and dotfiles are meant only by a pattern of
    /// `include` that says so itself: `.x*` or `*.tmp`, not `*`. Names of signatures are not asked about.
    pub fn wants(&self, name: &OsStr) -> bool {
        self.unwanted(name).is_none()
    }

    /// Why a payload of this name is not meant, if it is not.
    pub fn unwanted(&self, name: &OsStr) -> Option<Unwanted<'_>> {
        if let Some(pattern) = self.exclude.as_ref().and_then(|patterns| patterns.matching(name)) {
            return Some(Unwanted::Excluded(pattern));
        }
        match (&self.include, pattern::unfinished_mark(name)) {
            (None, mark) => mark.map(|mark| Unwanted::Unfinished(mark.as_str())),
            (Some(patterns), None) => (!patterns.matches(name)).then_some(Unwanted::NotIncluded),
            (Some(patterns), Some(mark)) => {
                (!patterns.matches_naming(name, mark)).then_some(Unwanted::Unfinished(mark.as_str()))
            }
        }
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
    pub const fn moves_files(&self) -> bool {
        self.delivery().is_some() || self.mode.quarantines()
    }

    /// Whether it ever writes to its own directory: a `.sig` beside the payload, or files moved away.
    pub const fn writes_to_root(&self) -> bool {
        matches!(self.mode, Mode::Sign(_)) || self.moves_files()
    }

    /// What the signatures of its payloads are named by.
    pub const fn suffix(&self) -> Suffix {
        Format::Kms.suffix() // the formats that a rule can have share it
    }

    /// The name of the signature of a payload.
    pub fn signature_name(&self, payload: &OsStr) -> OsString {
        self.suffix().signature_of(payload)
    }

    /// Which formats of signatures it takes. Of a batch's context, `leaf_keys` live only in the leaf: those of this
    /// rule, [`ContextTemplate::leaf_keys`], whatever a signature says.
    ///
    /// A sign rule knows a signature of its key in any format; whether it is the one to have is another matter.
    pub const fn formats<'a>(&self, leaf_keys: &'a LeafKeys) -> Formats<'a> {
        match &self.mode {
            Mode::Sign(_) | Mode::Verify(VerifyRule { accept_batch: AcceptBatch::Yes, .. }) => {
                Formats::Batch(leaf_keys)
            }
            Mode::Verify(VerifyRule { accept_batch: AcceptBatch::No, .. }) => Formats::Plain,
        }
    }

    /// What this rule's decisions depend on: mode, keys, context and format. A decision recorded under
    /// another fingerprint is no decision of this rule.
    pub fn fingerprint(&self) -> String {
        self.fingerprint_with(self.has_batches())
    }

    /// What the fingerprint would be if the rule had batches and has none, or the other way round: a decision under it
    /// differs from this rule's in the format alone.
    pub fn fingerprint_but_for_format(&self) -> String {
        self.fingerprint_with(!self.has_batches())
    }

    /// Whether it signs batches, or takes them.
    pub fn has_batches(&self) -> bool {
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
