//! Signing algorithms, by the names that the KMS API has for them (`SigningAlgorithm` of `Sign`).
//!
//! Only those that a stock verifier of some format takes: no RSASSA-PSS, and not
//! `ED25519_PH_SHA_512`, for which KMS hashes a digest again.

use std::fmt;

use super::kind::KeyKind;
use crate::digest::algorithm::HashAlgorithm;

/// How a key signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SigningAlgorithm {
    /// Ed25519 over the message itself (RFC 8032).
    Ed25519,
    /// ECDSA with P-256 and SHA-256.
    EcdsaSha256,
    /// ECDSA with P-384 and SHA-384.
    EcdsaSha384,
    /// ECDSA with P-521 and SHA-512.
    EcdsaSha512,
    /// RSASSA-PKCS1-v1_5 (RFC 8017) with SHA-256.
    RsaPkcs1Sha256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RsaPkcs1Sha384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RsaPkcs1Sha512,
}

impl SigningAlgorithm {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Ed25519,
        Self::EcdsaSha256,
        Self::EcdsaSha384,
        Self::EcdsaSha512,
        Self::RsaPkcs1Sha256,
        Self::RsaPkcs1Sha384,
        Self::RsaPkcs1Sha512,
    ];

    /// Its name in the AWS API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ed25519 => "ED25519_SHA_512",
            Self::EcdsaSha256 => "ECDSA_SHA_256",
            Self::EcdsaSha384 => "ECDSA_SHA_384",
            Self::EcdsaSha512 => "ECDSA_SHA_512",
            Self::RsaPkcs1Sha256 => "RSASSA_PKCS1_V1_5_SHA_256",
            Self::RsaPkcs1Sha384 => "RSASSA_PKCS1_V1_5_SHA_384",
            Self::RsaPkcs1Sha512 => "RSASSA_PKCS1_V1_5_SHA_512",
        }
    }

    /// How keys of this kind sign, with the longest hash if there is a choice.
    pub const fn of(kind: KeyKind) -> Self {
        match kind {
            KeyKind::Ed25519 => Self::Ed25519,
            KeyKind::P256 => Self::EcdsaSha256,
            KeyKind::P384 => Self::EcdsaSha384,
            KeyKind::P521 => Self::EcdsaSha512,
            KeyKind::Rsa { .. } => Self::RsaPkcs1Sha512,
        }
    }

    /// Which digest of a message may be signed instead of it. `None` for Ed25519, which takes the
    /// message only.
    pub const fn hash(self) -> Option<HashAlgorithm> {
        match self {
            Self::Ed25519 => None,
            Self::EcdsaSha256 | Self::RsaPkcs1Sha256 => Some(HashAlgorithm::Sha256),
            Self::EcdsaSha384 | Self::RsaPkcs1Sha384 => Some(HashAlgorithm::Sha384),
            Self::EcdsaSha512 | Self::RsaPkcs1Sha512 => Some(HashAlgorithm::Sha512),
        }
    }

    /// Whether keys of this kind sign so. As in KMS, each curve has exactly one hash.
    pub const fn fits(self, kind: KeyKind) -> bool {
        match kind {
            KeyKind::Ed25519 => matches!(self, Self::Ed25519),
            KeyKind::P256 => matches!(self, Self::EcdsaSha256),
            KeyKind::P384 => matches!(self, Self::EcdsaSha384),
            KeyKind::P521 => matches!(self, Self::EcdsaSha512),
            KeyKind::Rsa { .. } => {
                matches!(self, Self::RsaPkcs1Sha256 | Self::RsaPkcs1Sha384 | Self::RsaPkcs1Sha512)
            }
        }
    }
}

/// As the AWS API has it.
impl fmt::Display for SigningAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_algorithms_and_no_algorithm_has_two_kinds() {
        let kinds =
            [KeyKind::Ed25519, KeyKind::P256, KeyKind::P384, KeyKind::P521, KeyKind::Rsa { bits: 3072 }];
        let counts = kinds.map(|kind| SigningAlgorithm::ALL.iter().filter(|a| a.fits(kind)).count());
        assert_eq!(counts, [1, 1, 1, 1, 3]);
        for algorithm in SigningAlgorithm::ALL {
            assert_eq!(kinds.iter().filter(|kind| algorithm.fits(**kind)).count(), 1, "{algorithm}");
        }
    }
}
