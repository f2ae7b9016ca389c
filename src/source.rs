//! Where payloads come from: the seam between a kind of place and everything that works on files
//! from it.
//!
//! A [`Source`] says what lies at a name, and reads it; its [`Feed`] says which names may be worth
//! a look. Neither judges anything. The pipeline and the workers know these traits and no kind of
//! source.

pub mod directory;
#[cfg(test)]
pub(crate) mod memory;
pub(crate) mod space;

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::clock::Moment;
use crate::digest::Digest;
use crate::digest::set::DigestRequest;
use crate::fair::{Lanes, Sender, Turn};
use crate::fs::copy::Hashed;
use crate::fs::lease::Writer;
use crate::fs::{FsError, RelPath, Staging};
use crate::hold::AttemptError;
use crate::settle::{Activity, FileVersion, PairVersion};
use crate::signature::{Clue, Signature};
use crate::source::space::StageRequest;
use crate::state;
use crate::state::reason::RefusalReason;

/// Time between scans where hints cannot be relied on.
pub(crate) const POLL: Duration = Duration::from_secs(10);

/// Which payload or signature exactly: any change of content makes another one of it.
pub trait Version: FileVersion + fmt::Debug + Send + Sync + 'static {
    /// Its size in bytes.
    fn size(&self) -> u64;
    /// When it last changed, since the epoch.
    fn changed(&self) -> Duration;
    /// What state remembers of it.
    fn stored(&self) -> state::Version;
}

/// A place that payloads come from, for one rule.
///
/// If an answer is not possible now, that is an [`AttemptError::Hold`] (P2).
pub(crate) trait Source: Sized + Send + Sync + 'static {
    /// How it tells versions apart.
    type Version: Version;
    /// What finds the payload of a snapshot again.
    type Origin: Clone + Send + Sync + 'static;
    /// What says which names to look at.
    type Feed: Feed<Leftover = Self::Leftover>;
    /// What earlier runs may have left there, for the sink to see to.
    type Leftover: Send + 'static;

    /// Begins to watch. Without `listens`, nothing but scans tells of names.
    fn feed(&self, listens: bool) -> Self::Feed;

    /// What lies at a name now.
    fn observe(
        &self,
        path: &RelPath,
    ) -> impl Future<Output = Result<Observation<Self::Version>, FsError>> + Send;

    /// The same for many names, in their order.
    fn observe_all(
        &self,
        paths: &[RelPath],
    ) -> impl Future<Output = Vec<Result<Observation<Self::Version>, FsError>>> + Send;

    /// What has exactly this name, be it that of a payload or not; nothing for a directory.
    fn version_of(
        &self,
        path: &RelPath,
    ) -> impl Future<Output = Result<Option<Self::Version>, FsError>> + Send;

    /// Whether somebody is still at what lies at a name.
    fn probe(
        &self,
        path: &RelPath,
        versions: &PairVersion<Self::Version>,
    ) -> impl Future<Output = Activity> + Send;

    /// Reads these versions, once: the signature is parsed, the payload is hashed. Other versions
    /// are [`AttemptError::Changed`].
    fn snapshot(
        &self,
        path: &RelPath,
        versions: &PairVersion<Self::Version>,
        request: ReadRequest,
    ) -> impl Future<Output = Result<Snapshot<Self>, AttemptError>> + Send;

    /// Whether the payload is still what was read. Where its attributes alone have changed, which
    /// is found out by reading it again, the snapshot is of its present version from now on.
    fn is_still(
        &self,
        path: &RelPath,
        snapshot: &mut Snapshot<Self>,
    ) -> impl Future<Output = Result<bool, AttemptError>> + Send;

    /// Who brought the pair that was read; `Changed` if it is another one by now.
    fn bringers(
        &self,
        path: &RelPath,
        snapshot: &Snapshot<Self>,
    ) -> impl Future<Output = Result<Bringers, AttemptError>> + Send;

    /// Lets go of what a snapshot keeps open, before a wait that thousands may share.
    fn rest(&self, snapshot: &mut Snapshot<Self>);

    /// Takes it up again.
    fn wake(
        &self,
        path: &RelPath,
        snapshot: &mut Snapshot<Self>,
    ) -> impl Future<Output = Result<(), AttemptError>> + Send;

    /// Acknowledges an entry: it is decided, durably, or gone.
    fn acknowledge(&self, path: &RelPath) -> impl Future<Output = ()> + Send;
}

/// What a read is to give.
pub(crate) struct ReadRequest {
    /// The digests of the payload.
    pub(crate) digests: DigestRequest,
    /// Where a private copy of the payload goes. In a verify rule none is made without a signature
    /// that may be one.
    pub(crate) stage: Option<StageRequest>,
    /// Whether an invalid pair must be read to its end: there is to be a record of it. Otherwise
    /// nothing is read beside a signature that is none: [`AttemptError::NotYet`].
    pub(crate) is_final: bool,
    /// Where it is read, when it is the sender's turn. Others have theirs between the slices of a
    /// large payload.
    pub(crate) lanes: Lanes,
    pub(crate) sender: Sender,
}

impl ReadRequest {
    /// Has it read on a thread where that may block, when it is the sender's turn.
    ///
    /// # Errors
    /// The read's; `Changed` when the daemon is shutting down, as a restart starts over.
    pub(crate) async fn in_turn<T: Send + 'static>(
        self,
        read: impl FnOnce(Self, Turn<'_>) -> Result<T, AttemptError> + Send + 'static,
    ) -> Result<T, AttemptError> {
        let (lanes, sender) = (self.lanes.clone(), self.sender.clone());
        let read = lanes.run(&sender, move |turn| read(self, turn)).await;
        read.unwrap_or(Err(AttemptError::Changed))
    }
}

/// So many bytes are read before others have their turn: a twentieth of a second's work or so.
pub(crate) const SLICE: u64 = 32 << 20;

/// What says which names may be worth a look: hints, which may be lost, repeated or wrong, and
/// scans (P5).
pub(crate) trait Feed: Send + Sync + 'static {
    /// What earlier runs may have left there.
    type Leftover: Send + 'static;

    /// What has come since this was last asked.
    fn take(&mut self, now: Moment) -> News;

    /// Waits until there is something to take.
    fn wait(&self) -> impl Future<Output = ()> + Send;

    /// When to take even if nothing comes.
    fn due(&self) -> Option<Moment>;

    /// Has it prove that hints arrive, if it claims that they do: somebody asked whether all is
    /// well.
    fn probe_events(&mut self, now: Moment);

    /// Begins a scan. Hints of what it may miss arrive from here on.
    fn begin(&mut self);

    /// The next few names of the scan; `None` at its end. The worker does everything else it has to
    /// do in between.
    ///
    /// # Errors
    /// The source itself cannot be read. The scan is over then.
    fn next(
        &mut self,
        names: usize,
    ) -> impl Future<Output = Result<Option<Batch<Self::Leftover>>, FsError>> + Send;

    /// The scan has ended. Whether it left something out, because there is too much of it.
    fn end(&mut self, now: Moment) -> bool;

    /// Why hints cannot be relied on, if they cannot.
    fn fault(&self) -> Option<EventFault>;

    /// How often what listens was built since this was last asked.
    fn watchers_built(&mut self) -> usize;
}

/// What a feed has to tell.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// Payloads to look at, and what is said to have happened to them or, in a verify rule, to
    /// their signatures.
    pub(crate) paths: Vec<(RelPath, Hint)>,
    /// In a sign rule, payloads to whose signatures something happened.
    pub(crate) signatures: Vec<RelPath>,
    /// Whether to scan, and how soon.
    pub(crate) scan: Option<Urgency>,
}

/// What is said to have happened to a file last, of what tells whether it is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hint {
    /// Nothing that tells.
    Changed,
    /// It was begun, or is there by another name, too.
    Begun,
    /// A writer is done with it, for now.
    Closed,
    /// It was given its name when it was complete, as far as its names tell.
    MovedIn,
}

impl News {
    /// Asks for a scan.
    pub(crate) fn scan_soon(&mut self) {
        self.scan = self.scan.max(Some(Urgency::Soon));
    }
}

/// How soon to scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// As soon as it is some time since the last one.
    Soon,
    /// Now.
    Now,
}

/// What a few names of a scan came to.
#[derive(Debug)]
pub(crate) struct Batch<L> {
    /// Pairs, in order of name. In a verify rule one that lies there whole comes once, by its
    /// payload's name.
    pub(crate) pairs: BTreeSet<RelPath>,
    /// Names that can have no signature, and why.
    pub(crate) unsignable: Vec<(RelPath, RefusalReason)>,
    /// In a sign rule, payloads that are not there although their signatures are.
    pub(crate) strays: Vec<RelPath>,
    /// Parts of the source that could not be read, and why. What is in them is not known to be
    /// absent.
    pub(crate) failed: Vec<FsError>,
    /// What earlier runs left.
    pub(crate) leftovers: Vec<L>,
}

impl<L> Default for Batch<L> {
    fn default() -> Self {
        Self {
            pairs: BTreeSet::new(),
            unsignable: Vec::new(),
            strays: Vec::new(),
            failed: Vec::new(),
            leftovers: Vec::new(),
        }
    }
}

impl<L> Batch<L> {
    /// Whether nothing came of them.
    pub(crate) fn is_empty(&self) -> bool {
        self.pairs.is_empty()
            && self.unsignable.is_empty()
            && self.strays.is_empty()
            && self.failed.is_empty()
            && self.leftovers.is_empty()
    }
}

/// Why events cannot be relied on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EventFault {
    /// The file system has none.
    Remote,
    /// The kernel gives none, for this reason.
    Refused(String),
    /// They stopped to come.
    Silent,
    /// Directories could not be read at the last scan.
    Unseen,
}

impl EventFault {
    /// Whether it should not be so, and is not just what the file system is like.
    pub(crate) const fn is_a_fault(&self) -> bool {
        match self {
            Self::Remote => false,
            Self::Refused(_) | Self::Silent | Self::Unseen => true,
        }
    }

    /// Why, for people.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Remote => "the file system (network, FUSE or overlay) tells of no changes that others make",
            Self::Refused(why) => why,
            Self::Silent => "events no longer arrive",
            Self::Unseen => "not every directory could be read, or something is mounted on one",
        }
    }

    /// What a person can do.
    pub(crate) const fn hint(&self) -> &'static str {
        match self {
            Self::Remote => "nothing: it is scanned every ten seconds",
            Self::Refused(_) => {
                "raise the limit, for example sysctl fs.inotify.max_user_watches=1048576 \
                 fs.inotify.max_user_instances=1024; until then it is scanned every ten seconds"
            }
            Self::Silent => {
                "nothing at first: a new watcher is built; if it lasts, restart the daemon and report it"
            }
            Self::Unseen => {
                "let the daemon's user read the directories that the log names, or leave them out, as with exclude = \
                 [\"lost+found\"]; what is mounted on one needs a rule of its own"
            }
        }
    }
}

/// What lies at a name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Observation<V> {
    /// Which versions.
    pub(crate) versions: PairVersion<V>,
    /// Why it is not handled as it is: for its payload, or else for its signature.
    pub(crate) unfit: Option<RefusalReason>,
    /// The user whose payload it is, or whose signature where there is no payload. Users share
    /// fairly what the rule has; who is not known shares with all others who are not.
    pub(crate) owner: Option<u32>,
}

impl<V> Observation<V> {
    /// Nothing lies there.
    pub(crate) const NOTHING: Self = Self { versions: PairVersion::NONE, unfit: None, owner: None };
}

/// Whether one user alone could have made the pair what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bringers {
    /// As far as is known.
    One,
    /// Payload and signature are two users', neither of whom could have kept the other from
    /// spoiling the pair.
    Two,
}

/// A payload that was read, as it was then, and the signature beside it. Exists only by hashing.
pub(crate) struct Snapshot<S: Source> {
    /// What finds it again.
    pub(crate) origin: S::Origin,
    /// Which version of the payload was read.
    pub(crate) version: S::Version,
    /// The bytes that were hashed: a private copy, where there is one.
    pub(crate) staging: Option<Staging>,
    /// Digest and size.
    pub(crate) hashed: Hashed,
    /// Whether somebody could still write to it, before or after.
    pub(crate) writer: Writer,
    /// The signature beside it, read once.
    pub(crate) signature: Option<SignatureRead<S::Version>>,
    /// Whether something else than a signature file has the name of its signature. Looked at in
    /// sign rules.
    pub(crate) is_signature_name_taken: bool,
    /// What its signature seems to be, or what seems to be it, where it looks like a mistake.
    pub(crate) clue: Option<Clue>,
}

/// What lies at the name of a signature.
pub(crate) struct SignatureRead<V> {
    /// Which version of it was read.
    pub(crate) version: V,
    /// Of its bytes, unless there are more than any signature has.
    pub(crate) digest: Option<Digest>,
    /// Its bytes, if they can be a signature.
    pub(crate) parsed: Option<Signature>,
}

impl<S: Source> Snapshot<S> {
    /// Which versions it is of.
    pub(crate) fn versions(&self) -> PairVersion<S::Version> {
        PairVersion {
            payload: Some(self.version.clone()),
            signature: self.signature.as_ref().map(|read| read.version.clone()),
        }
    }

    /// What looks like a mistake about its signature, for the log.
    pub(crate) fn hint(&self) -> Option<String> {
        self.clue.as_ref().map(Clue::to_string)
    }

    /// Whether a remembered decision is about just what was read, by its digests.
    pub(crate) fn is_of(&self, row: &state::Remembered) -> bool {
        let signature = self.signature.as_ref().map(|read| read.digest.as_ref());
        row.is_of_pair(&self.hashed.digest, signature)
    }

    /// The digest of the signature's bytes.
    pub(crate) fn signature_digest(&self) -> Option<&Digest> {
        self.signature.as_ref()?.digest.as_ref()
    }
}
