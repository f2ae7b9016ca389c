//! What a rule does: sign or verify, under which keys, and what happens then.

use std::path::PathBuf;
use std::time::Duration;

use crate::key::{KeyArn, KeyId};
use crate::signature::Signature;

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
    /// Where payload and signature are published together; otherwise `NAME.sig` is written beside
    /// the payload.
    pub deliver_to: Option<Delivery>,
    /// How files share a call of KMS. `None`: each has its own, and its signature is plain.
    pub batch: Option<Batching>,
}

/// `batch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// How long the first file waits for others, 10 ms to a minute.
    pub(crate) window: Duration,
    /// How many files are signed at once, 2 to 65,536.
    pub(crate) max_files: usize,
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
    /// How long an invalid pair must stay unchanged before the verdict is final. `None`: 30 s where
    /// leases answer, 10 min where they cannot.
    pub grace: Option<Duration>,
    /// What happens to a digest that was superseded earlier under the same name.
    pub rollback: Rollback,
    /// Whether batch signatures are taken.
    pub accept_batch: AcceptBatch,
}

impl VerifyRule {
    /// Whether it takes signatures of this format.
    pub(crate) fn takes(&self, signature: &Signature) -> bool {
        match self.accept_batch {
            AcceptBatch::Yes => true,
            AcceptBatch::No => signature.batch().is_none(),
        }
    }
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
    /// Delivered, and reported to an operator.
    Alert,
    /// Held, and reported to an operator.
    Deny,
}

impl Mode {
    /// The word in the policy.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Sign(_) => "sign",
            Self::Verify(_) => "verify",
        }
    }

    /// The keys that it uses, in the order in which they are asked.
    pub(crate) fn keys(&self) -> Vec<KeyId> {
        match self {
            Self::Sign(sign) => vec![sign.key.clone()],
            Self::Verify(verify) => verify.trusted_keys.iter().map(KeyArn::to_key_id).collect(),
        }
    }

    /// Whether anything of it may ever go to quarantine.
    pub(crate) const fn quarantines(&self) -> bool {
        match self {
            Self::Sign(sign) => matches!(sign.on_stale, OnStale::Quarantine),
            Self::Verify(verify) => {
                matches!(verify.on_invalid, OnInvalid::Quarantine)
                    || matches!(verify.on_missing, OnInvalid::Quarantine)
            }
        }
    }
}
