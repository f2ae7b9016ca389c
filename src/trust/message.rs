//! What is signed: a message, or the digest that stands for it.

use aws_lc_rs::digest::{Digest, SHA256, SHA384, SHA512};

use super::SigningAlgorithm;
use crate::digest::algorithm::{HashAlgorithm, HashValue};

/// What is signed. `MessageType` of the KMS API says which of the two it is.
#[derive(Debug, Clone, Copy)]
pub enum Message<'a> {
    /// The bytes themselves. KMS takes 4,096 of them.
    Raw(&'a [u8]),
    /// The digest of the bytes, by the hash of the algorithm. Ed25519 has none.
    Digest(&'a HashValue),
}

impl Message<'_> {
    /// Whether it can be signed with this algorithm: a digest only with the one that it was made
    /// for.
    pub fn fits(self, algorithm: SigningAlgorithm) -> bool {
        match self {
            Self::Raw(_) => true,
            Self::Digest(value) => algorithm.hash() == Some(value.algorithm()),
        }
    }
}

/// The digest as the library takes it; `None` of a hash that nothing is signed with.
pub(crate) fn library_digest(value: &HashValue) -> Option<Digest> {
    let algorithm = match value.algorithm() {
        HashAlgorithm::Sha256 => &SHA256,
        HashAlgorithm::Sha384 => &SHA384,
        HashAlgorithm::Sha512 => &SHA512,
        HashAlgorithm::Blake2b512 => return None,
    };
    Digest::import_less_safe(value.as_bytes(), algorithm).ok()
}
