//! A rule attached to its source and its sink.

pub(crate) mod attach;
pub(crate) mod decided;
pub(crate) mod lone_signatures;
pub(crate) mod mounts;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::clock::Moment;
use crate::context::leaf_keys::LeafKeys;
use crate::daemon::batcher::Batcher;
use crate::daemon::decide::Brake;
use crate::daemon::quota::Refusals;
use crate::daemon::roots::Roots;
use crate::daemon::site::lone_signatures::LoneSignatures;
use crate::fair::{Lanes, Sender};
use crate::message::log;
use crate::policy::{Mode, Rule};
use crate::sink::Sink;
use crate::source::Source;

/// A storage backend: a source, the sink that goes with it, and how a rule is attached to both.
pub(crate) trait Backend: Sized + Send + Sync + 'static {
    /// Where payloads come from.
    type Source: Source;
    /// Where results go.
    type Sink: Sink<Self::Source>;

    /// Attaches a rule.
    ///
    /// # Errors
    /// Why the rule cannot work now.
    fn attach(&self, rule: &Arc<Rule>) -> Result<Site<Self>, Unattached>;

    /// Checks that the rule is still attached to what the policy names.
    ///
    /// # Errors
    /// Why the rule must be detached.
    fn check(&self, site: &Site<Self>) -> Result<(), Detached>;

    /// Changes when space was freed in a full quarantine, if there is one.
    fn room(&self) -> Option<watch::Receiver<u64>>;
}

/// The version type of a backend's source.
pub(crate) type VersionOf<B> = <<B as Backend>::Source as Source>::Version;

/// Why a rule is not attached.
#[derive(Debug)]
pub(crate) enum Unattached {
    /// A dry run does not create this missing directory.
    WouldCreate(PathBuf),
    /// For this reason.
    Held(String),
}

/// Why a rule was detached.
#[derive(Debug)]
pub(crate) enum Detached {
    /// Another file or directory is at this path now, or none.
    Replaced(Role, PathBuf),
    /// The rule cannot work with it, for this reason.
    Held(String),
}

/// Which of a rule's directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Where payloads come from.
    Source,
    /// Where they are delivered to.
    Destination,
}

/// Lanes for hashing of a rule whose files come over a network or from FUSE, so that a server
/// that does not answer blocks no other rule. Such reads wait more than they compute, so they do
/// not count against the shared lanes.
const REMOTE: usize = 4;

/// A rule at its source and sink.
pub(crate) struct Site<B: Backend> {
    /// The rule.
    pub(crate) rule: Arc<Rule>,
    /// Its fingerprint.
    pub(crate) fingerprint: String,
    /// The fingerprint of the same rule with the other format.
    pub(crate) other_format: String,
    /// Where payloads come from.
    pub(crate) source: B::Source,
    /// Where results go.
    pub(crate) sink: B::Sink,
    /// Its name, as a share of what all rules want.
    share: Arc<str>,
    /// Lanes for hashing of its own, where reads may block on a server.
    pub(crate) hashing: Option<Lanes>,
    /// The mass-failure brake.
    brake: Mutex<Brake>,
    /// The keys of its context that only a batch's leaves have.
    pub(crate) leaf_keys: LeafKeys,
    /// Gathers files, for rules that sign batches.
    pub(crate) batcher: Option<Batcher>,
    /// The cache of opened batch roots.
    pub(crate) roots: Roots,
    /// Quotas on refusals. They outlive an attachment.
    pub(crate) refusals: Arc<Refusals>,
    /// In a sign rule, signatures that were seen to lie without their files.
    lone_signatures: Mutex<LoneSignatures>,
}

impl<B: Backend> Site<B> {
    /// A rule at an opened source and sink. `is_remote`: reads may block on a server.
    pub(crate) fn new(
        rule: &Arc<Rule>,
        source: B::Source,
        sink: B::Sink,
        batcher: Option<Batcher>,
        is_remote: bool,
    ) -> Self {
        Self {
            rule: Arc::clone(rule),
            fingerprint: rule.fingerprint(),
            other_format: rule.fingerprint_but_for_format(),
            source,
            sink,
            share: Arc::from(rule.name.as_str()),
            hashing: is_remote.then(|| Lanes::new(REMOTE)),
            brake: Mutex::new(Brake::default()),
            leaf_keys: rule.context.leaf_keys(),
            batcher,
            roots: Roots::default(),
            refusals: Arc::default(),
            lone_signatures: Mutex::default(),
        }
    }

    /// On whose behalf something is done about a payload of this owner.
    pub(crate) fn sender(&self, owner: Option<u32>) -> Sender {
        Sender::new(&self.share, owner)
    }

    /// Whether the signature beside a payload stays when the payload is removed, as in a sign rule.
    pub(crate) fn leaves_signature(&self) -> bool {
        matches!(self.rule.mode, Mode::Sign(_))
    }

    /// Whether one more fault of a sender may be logged. Logs the number of suppressed ones when
    /// the window is over.
    pub(crate) fn may_log(&self, now: Moment) -> bool {
        self.log_suppressed(now);
        self.refusals.may_log()
    }

    /// Logs the number of suppressed messages, when the window is over.
    pub(crate) fn log_suppressed(&self, now: Moment) {
        if let Some(count) = self.refusals.suppressed(now) {
            log!(RefusalsNotLogged, rule = self.rule.name, count);
        }
    }

    /// Whether the mass-failure brake is on.
    pub(crate) fn is_braked(&self) -> bool {
        self.brake().is_on()
    }

    /// Signatures that were seen to lie without their files.
    pub(crate) fn lone_signatures(&self) -> MutexGuard<'_, LoneSignatures> {
        self.lone_signatures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The mass-failure brake.
    pub(crate) fn brake(&self) -> MutexGuard<'_, Brake> {
        self.brake.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
