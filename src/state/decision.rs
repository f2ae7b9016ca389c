//! A decision about a version of a file, as it is remembered and put on record.

use std::time::Duration;

use super::Outcome;
use super::reason::DecisionReason;
use crate::clock::FileTime;
use crate::digest::Digest;
use crate::fs::{Identity, RelPath};
use crate::signature::Signature;

/// A version of a file as state keeps it: without the device, which changes with a remount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version(pub(super) [u8; 40]);

impl Version {
    /// What a rename leaves as it is: inode, size, and the second of the last modification.
    pub(crate) fn but_for_its_change(&self) -> &[u8] {
        self.0.get(..24).unwrap_or_default()
    }

    /// Whether it may be the same file after a rename.
    pub(crate) fn may_be_moved(&self, other: &Self) -> bool {
        self.but_for_its_change() == other.but_for_its_change()
    }

    /// Its size in bytes.
    pub(crate) fn size(&self) -> u64 {
        self.number(8).map_or(0, u64::from_be_bytes)
    }

    /// When it last changed, since the epoch.
    pub(crate) fn changed(&self) -> Duration {
        let seconds = self.number(28).map_or(0, i64::from_be_bytes);
        Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
    }

    fn number<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..)?.first_chunk().copied()
    }
}

impl From<&Identity> for Version {
    fn from(identity: &Identity) -> Self {
        let mut bytes = Vec::with_capacity(40);
        bytes.extend_from_slice(&identity.ino.to_be_bytes());
        bytes.extend_from_slice(&identity.size.to_be_bytes());
        for FileTime { seconds, nanos } in [identity.mtime, identity.ctime] {
            bytes.extend_from_slice(&seconds.to_be_bytes());
            bytes.extend_from_slice(&nanos.to_be_bytes());
        }
        let mut version = [0; 40];
        for (to, from) in version.iter_mut().zip(bytes) {
            *to = from;
        }
        Self(version)
    }
}

impl Version {
    /// Whether it is the same but perhaps for the inode number, which changes with a remount or
    /// under memory pressure on FUSE and network file systems. Says nothing of the content.
    pub(crate) fn is_same_but_for_inode(&self, other: &Self) -> bool {
        self.0.get(8..) == other.0.get(8..)
    }
}

/// One decision, as remembered and as put on record.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The rule's name.
    pub rule: String,
    /// The payload, below the rule's root.
    pub path: RelPath,
    /// The rule's fingerprint at the time.
    pub fingerprint: String,
    /// The payload's version; `None` when there was none to look at.
    pub payload: Option<Version>,
    /// The signature's version.
    pub signature: Option<Version>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, where that says more.
    pub reason: Option<DecisionReason>,
    /// Of the payload.
    pub digest: Option<Digest>,
    /// Of the signature's bytes.
    pub signature_digest: Option<Digest>,
    /// The key that signed or vouched.
    pub key: Option<String>,
    /// The folder in the quarantine store.
    pub item: Option<String>,
}

/// The last decision about a path, as state remembers it.
#[derive(Debug, Clone)]
pub struct Remembered {
    /// The rule's fingerprint at the time.
    pub fingerprint: String,
    /// The payload's version.
    pub payload: Option<Version>,
    /// The signature's version.
    pub signature: Option<Version>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, where that says more and is known to this version.
    pub reason: Option<DecisionReason>,
    /// Of the payload.
    pub digest: Option<Digest>,
    /// Of the signature's bytes.
    pub signature_digest: Option<Digest>,
}

impl Remembered {
    /// Whether it is about a payload of this digest.
    pub(crate) fn is_of_payload(&self, digest: &Digest) -> bool {
        self.digest.as_ref().is_some_and(|mine| mine.matches(digest.as_bytes()))
    }

    /// Whether it is about a pair of these digests. `signature` is `None` where there is none, and
    /// the digest in it where it was not read to its end: such a one is like no other.
    pub(crate) fn is_of_pair(&self, payload: &Digest, signature: Option<Option<&Digest>>) -> bool {
        let is_of_signature = match (signature, &self.signature_digest) {
            (None, None) => self.signature.is_none(),
            (Some(Some(there)), Some(mine)) => mine.matches(there.as_bytes()),
            (None | Some(None), Some(_)) | (Some(_), None) => false,
        };
        is_of_signature && self.is_of_payload(payload)
    }

    /// Whether it is about this signature.
    pub(crate) fn is_of_signature(&self, signature: &Signature) -> bool {
        let digest = signature.digest();
        self.signature_digest.as_ref().is_some_and(|mine| mine.matches(digest.as_bytes()))
    }
}
