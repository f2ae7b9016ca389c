//! What allows delivery.

use crate::digest::Digest;
use crate::signature::Signature;
use crate::signing::{Signed, Valid};

/// What allows delivery: a digest, and the signature that vouches for it. Only a valid verdict or a
/// signature just made gives one (P1).
#[derive(Debug, Clone)]
pub(crate) struct Warrant {
    digest: Digest,
    signature: Signature,
}

impl Warrant {
    /// From a valid verdict on this signature.
    pub(crate) fn verified(valid: &Valid, signature: &Signature) -> Self {
        Self { digest: valid.digest().clone(), signature: signature.clone() }
    }

    /// From a signature just made for this digest.
    pub(crate) fn signed(digest: &Digest, signed: &Signed) -> Self {
        Self { digest: digest.clone(), signature: signed.signature.clone() }
    }

    /// Of a digest and a signature that a test made up.
    #[cfg(test)]
    pub(crate) fn of(digest: &Digest, signature: &Signature) -> Self {
        Self { digest: digest.clone(), signature: signature.clone() }
    }

    /// What may be delivered.
    pub(crate) const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What vouches for it.
    pub(crate) const fn signature(&self) -> &Signature {
        &self.signature
    }
}
