//! What is known of a payload and its signature: a fact, or the proof of one.

use crate::digest::Digest;
use crate::key::KeyArn;
use crate::signature::Reason;

/// A fact about a payload and its signature. Not being able to tell is no verdict but an `Err`.
#[derive(Debug)]
pub enum Verdict {
    /// A trusted key vouches for exactly these bytes.
    Valid(Valid),
    /// Nobody trusted does.
    Invalid(Reason),
}

/// Proof that a trusted key vouches for a digest. Cannot be made outside this module.
#[derive(Debug, Clone)]
pub struct Valid {
    key: KeyArn,
    digest: Digest,
}

impl Valid {
    /// For [`super::OpenedSignature::judge`] alone.
    pub(super) const fn new(key: KeyArn, digest: Digest) -> Self {
        Self { key, digest }
    }

    /// The key that vouches.
    pub fn key(&self) -> &KeyArn {
        &self.key
    }

    /// What it vouches for.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}
