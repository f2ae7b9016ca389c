//! Where results go: the seam between what was decided and the only code that changes what others
//! may see.
//!
//! A [`Sink`] publishes, quarantines, writes signatures and removes. Every function does one step
//! whole, or leaves things so that doing it again is right (P4), and none replaces what is not
//! known to be ours (P8).

pub mod directory;
#[cfg(test)]
pub(crate) mod memory;
pub(crate) mod sight;
pub(crate) mod warrant;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::Digest;
use crate::fs::RelPath;
use crate::hold::{AttemptError, Conflict};
use crate::settle::PairVersion;
use crate::signature::Signature;
use crate::signing::Reason;
use crate::sink::warrant::Warrant;
use crate::source::space::StageRequest;
use crate::source::{Snapshot, Source};
use crate::state::{Seen, State};

/// How a delivery ended.
#[derive(Debug)]
pub(crate) enum Delivered {
    /// Both are there, durably.
    Done,
    /// An equal payload is there with this other signature, which the caller must judge:
    /// ciphertexts are randomised, so there are many valid ones.
    Beside(Signature),
    /// Only a signature that is not ours to remove, unless the caller knows it for a leftover of
    /// its own.
    Orphan(Signature),
    /// Another file has one of the names. Nothing was changed.
    Conflict(Conflict),
    /// The warrant is for other bytes. Nothing was changed. Only a bug in the caller leads here.
    NotWarranted,
}

/// How moving to quarantine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutAway {
    /// It is in the store, in this folder.
    Done(String),
    /// The source was no longer what was judged; nothing was moved.
    Changed,
}

/// How a removal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removed {
    /// Payload and signature are gone.
    Done,
    /// One of them was something else than expected; both are where they were, or wait until their
    /// names are free.
    Changed,
}

/// A signature that lies beside a payload, and is to be replaced.
#[derive(Debug)]
pub(crate) struct Old<V> {
    /// Which version of it.
    pub(crate) version: V,
    /// What it holds.
    pub(crate) signature: Signature,
}

/// Why a signature does not stay beside its payload.
#[derive(Debug)]
pub(crate) struct Unwritten {
    /// Why.
    pub(crate) error: AttemptError,
    /// Whether it was there for a moment.
    pub(crate) seen: Seen,
}

/// Files that were taken out of a source for a moment and wait until they can go back to their
/// names.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct NameTaken {
    /// How many.
    pub(crate) count: usize,
    /// The first of them, by the names that they had.
    pub(crate) first: Vec<RelPath>,
}

/// Where the results of one rule go.
pub(crate) trait Sink<S: Source>: Send + Sync + 'static {
    /// Keeps resources ready that several removals share.
    type Guard: Send + 'static;

    /// Takes away what was kept ready in the source, when nothing is in hand any more.
    fn end(&self) -> impl Future<Output = ()> + Send;

    /// A guard to take before work that may end in a removal, and to keep until it has.
    fn removal_guard(&self) -> Self::Guard;

    /// Where the private copy of a payload goes, for a rule that delivers; `None` where none is
    /// needed, as the source can be asked for the very same bytes again.
    fn stage(&self, path: &RelPath) -> Option<StageRequest>;

    /// Writes a signature beside the payload, in place of `old` if there is one, and says which
    /// versions the two are then: of the payload, attributes may have changed meanwhile. `Changed`,
    /// and nothing of it stays, if the payload is another by now or somebody else put a signature
    /// there. Of a payload that was moved away after the signature was there, it stays: that is
    /// what it was made for.
    fn write_signature(
        &self,
        path: &RelPath,
        snapshot: &Snapshot<S>,
        signature: &Signature,
        old: Option<Old<S::Version>>,
    ) -> impl Future<Output = Result<PairVersion<S::Version>, Unwritten>> + Send;

    /// What else has the payload's name at the destination.
    fn obstacle(
        &self,
        path: &RelPath,
        snapshot: &Snapshot<S>,
    ) -> impl Future<Output = Result<Option<Conflict>, AttemptError>> + Send;

    /// Checks that these versions can be removed from the source afterwards, then publishes what
    /// was read, signature first.
    fn publish(
        &self,
        path: &RelPath,
        source: &PairVersion<S::Version>,
        snapshot: &Arc<Snapshot<S>>,
        warrant: Warrant,
    ) -> impl Future<Output = Result<Delivered, AttemptError>> + Send;

    /// Removes a signature without payload from the destination, which the caller knows for its own
    /// leftover. Whether it is gone.
    fn remove_orphan(
        &self,
        path: &RelPath,
        known: &Signature,
    ) -> impl Future<Output = Result<bool, AttemptError>> + Send;

    /// Removes the signature beside a payload that is gone, if it is the file with this digest.
    /// Whether it is gone; anything else, and one whose payload is back, stays.
    fn remove_left_signature(
        &self,
        path: &RelPath,
        digest: &Digest,
    ) -> impl Future<Output = Result<bool, AttemptError>> + Send;

    /// Whether this is the path of the destination.
    fn is_destination(&self, path: &Path) -> bool;

    /// Where a payload goes, for messages.
    fn destination_of(&self, path: &RelPath) -> PathBuf;

    /// Moves a pair to quarantine.
    fn quarantine(
        &self,
        path: &RelPath,
        snapshot: &Snapshot<S>,
        reason: Reason,
    ) -> impl Future<Output = Result<PutAway, AttemptError>> + Send;

    /// Checks that the source can be removed after a delivery, before anything is done for it.
    fn prepare_removal(
        &self,
        path: &RelPath,
        versions: &PairVersion<S::Version>,
    ) -> impl Future<Output = Result<(), AttemptError>> + Send;

    /// Removes a source that was delivered and recorded.
    fn remove(
        &self,
        path: &RelPath,
        versions: &PairVersion<S::Version>,
    ) -> impl Future<Output = Result<Removed, AttemptError>> + Send;

    /// Recovers what earlier runs left and a scan found. Returns names that may be back.
    fn tidy(&self, leftovers: Vec<S::Leftover>, state: &State) -> impl Future<Output = Vec<RelPath>> + Send;

    /// Puts back files whose names are free again. Returns those that still wait.
    fn bring_back(&self) -> impl Future<Output = NameTaken> + Send;
}
