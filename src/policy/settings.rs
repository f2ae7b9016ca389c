//! A policy as it was checked, and what it says for all of its rules.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Rule;
use crate::key::KeyId;
use crate::kms::AwsSettings;

/// A checked policy. All paths are absolute.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The file it was read from: absolute, and otherwise as it was named. Links in it are followed
    /// anew each time that it is read.
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
    pub(crate) keep: Option<Duration>,
    /// How its head is sealed, if it is.
    pub(crate) seal: Option<Sealing>,
}

/// How the head of the record is sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealing {
    /// The key: one that no rule uses.
    pub(crate) key: KeyId,
    /// How often, if there is anything new.
    pub(crate) interval: Duration,
}

/// `[control]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ControlSettings {
    /// The control socket; `None` for the usual place.
    pub socket: Option<PathBuf>,
    /// A loopback address that serves the metrics as well.
    pub metrics: Option<SocketAddr>,
}

/// `[limits]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// KMS calls at the same time, 1 to 1,024. Default 64.
    pub(crate) max_in_flight: usize,
    /// KMS calls per second, 1 to 100,000. `None`: the rate finds itself.
    pub(crate) kms_per_second: Option<u32>,
    /// Files hashed at the same time, 1 to 256. Default: the number of processors.
    pub(crate) hash_threads: usize,
    /// Bytes that must stay free on a file system that is written to. Default 64 MiB.
    pub(crate) min_free_space: u64,
}

impl Limits {
    /// How many files of a rule are in hand at the same time: those that are hashed, that KMS is
    /// asked about, and as many as keep a disk busy with what KMS has answered.
    pub(crate) const fn in_hand(&self) -> usize {
        self.hash_threads + self.max_in_flight + FINISHING
    }
}

/// How many files of a rule are written at the same time.
pub const FINISHING: usize = 128;
