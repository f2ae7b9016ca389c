//! What allows delivery.

use std::sync::Arc;

use crate::digest::Digest;
use crate::signature::Signature;
use crate::signing::{Signed, Valid};
use crate::sink::sight::Sight;
use crate::state::Seen;

/// What allows delivery: a digest, and the signature that vouches for it. Only a valid verdict or a
/// signature just made gives one (P1).
#[derive(Debug, Clone)]
pub(crate) struct Warrant {
    digest: Digest,
    signature: Signature,
    sight: Arc<Sight>,
}

impl Warrant {
    /// From a valid verdict on this signature.
    pub(crate) fn verified(valid: &Valid, signature: &Signature) -> Self {
        Self { digest: valid.digest().clone(), signature: signature.clone(), sight: Arc::default() }
    }

    /// From a signature just made for this digest.
    pub(crate) fn signed(digest: &Digest, signed: &Signed) -> Self {
        Self { digest: digest.clone(), signature: signed.signature.clone(), sight: Arc::default() }
    }

    /// Of a digest and a signature that a test made up.
    #[cfg(test)]
    pub(crate) fn of(digest: &Digest, signature: &Signature) -> Self {
        Self { digest: digest.clone(), signature: signature.clone(), sight: Arc::default() }
    }

    /// What may be delivered.
    pub(crate) const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What vouches for it.
    pub(crate) const fn signature(&self) -> &Signature {
        &self.signature
    }

    /// The signature may be seen from now on, if it was not before. All clones know it.
    pub(crate) fn publishing(&self) {
        self.sight.begins();
    }

    /// Whether somebody may have seen the signature by way of this warrant.
    pub(crate) fn seen(&self) -> Seen {
        self.sight.seen()
    }
}
