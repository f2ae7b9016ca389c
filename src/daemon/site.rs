//! A rule at the places that it reads from and writes to.

pub(crate) mod attach;
pub(crate) mod decided;
pub(crate) mod mounts;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::clock::Moment;
use crate::context::leaf_keys::LeafKeys;
use crate::daemon::batcher::Batcher;
use crate::daemon::decide::Brake;
use crate::daemon::fair_semaphore::Queue;
use crate::daemon::quota::Refusals;
use crate::daemon::roots::Roots;
use crate::message::log;
use crate::policy::{Mode, Rule};
use crate::sink::Sink;
use crate::source::Source;

/// A kind of place: a source, the sink that goes with it, and how a rule is attached to both.
pub(crate) trait Backend: Sized + Send + Sync + 'static {
    /// Where payloads come from.
    type Source: Source;
    /// Where results go.
    type Sink: Sink<Self::Source>;

    /// Attaches a rule.
    ///
    /// # Errors
    /// Why it cannot work now.
    fn attach(&self, rule: &Arc<Rule>) -> Result<Site<Self>, Unattached>;

    /// Whether what a rule was attached to is still what the policy names.
    ///
    /// # Errors
    /// Why it is to be let go.
    fn check(&self, site: &Site<Self>) -> Result<(), Detached>;

    /// Changes when somebody has made room where there was none, if there is such a place.
    fn room(&self) -> Option<watch::Receiver<u64>>;
}

/// How a kind of place tells versions apart.
pub(crate) type VersionOf<B> = <<B as Backend>::Source as Source>::Version;

/// Why a rule is not attached.
#[derive(Debug)]
pub(crate) enum Unattached {
    /// It would be, but for the dry run, which makes no directory.
    WouldCreate(PathBuf),
    /// This is in the way.
    Held(String),
}

/// Why a rule is attached no more.
#[derive(Debug)]
pub(crate) enum Detached {
    /// Another thing stands at this path, or nothing.
    Replaced(Role, PathBuf),
    /// What stands there cannot be worked with.
    Held(String),
}

/// What a place is to a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Where payloads come from.
    Source,
    /// Where they are delivered to.
    Destination,
}

/// A rule at its source and sink.
pub(crate) struct Site<B: Backend> {
    /// The rule.
    pub(crate) rule: Arc<Rule>,
    /// Its fingerprint.
    pub(crate) fingerprint: String,
    /// The one of decisions that differ from its own in the format alone.
    pub(crate) other_format: String,
    /// Where payloads come from.
    pub(crate) source: B::Source,
    /// Where results go.
    pub(crate) sink: B::Sink,
    /// Its files that wait to be hashed.
    pub(crate) queue: Queue,
    /// The mass-failure brake.
    brake: Mutex<Brake>,
    /// Which keys of its context live only in the leaves of a batch.
    pub(crate) leaf_keys: LeafKeys,
    /// What gathers files, for rules that sign batches.
    pub(crate) batcher: Option<Batcher>,
    /// The roots of batches that were opened of late.
    pub(crate) roots: Roots,
    /// What was refused of late, also before it was attached.
    pub(crate) refusals: Arc<Refusals>,
}

impl<B: Backend> Site<B> {
    /// A rule at places that are there. `is_remote` says that files may take long to read.
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
            queue: Queue::new(is_remote),
            brake: Mutex::new(Brake::default()),
            leaf_keys: rule.context.leaf_keys(),
            batcher,
            roots: Roots::default(),
            refusals: Arc::default(),
        }
    }

    /// Whether a signature beside a source stays when the source goes: beside a file to be signed
    /// it is none of it.
    pub(crate) fn leaves_signature(&self) -> bool {
        matches!(self.rule.mode, Mode::Sign(_))
    }

    /// Whether one more thing that a sender did not do well is told; and how many were not, when it
    /// is time to.
    pub(crate) fn may_tell(&self, now: Moment) -> bool {
        self.tell_untold(now);
        self.refusals.may_tell()
    }

    /// Tells how many were not told, when it is time to.
    pub(crate) fn tell_untold(&self, now: Moment) {
        if let Some(count) = self.refusals.untold(now) {
            log!(RefusalsNotLogged, rule = self.rule.name, count);
        }
    }

    /// Whether the mass-failure brake is on.
    pub(crate) fn is_braked(&self) -> bool {
        self.brake().is_on()
    }

    /// The mass-failure brake.
    pub(crate) fn brake(&self) -> MutexGuard<'_, Brake> {
        self.brake.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
