//! A signature and nothing else, as `openssl dgst -verify` takes it: of ECDSA in DER, of RSA as
//! many bytes as the modulus has.

use super::suffix::Suffix;
use crate::digest::algorithm::HashAlgorithm;
use crate::digest::set::DigestSet;
use crate::trust::PublicKey;
use crate::trust::ecdsa;
use crate::trust::{KeyKind, Message, SigningAlgorithm};

/// What its signatures are named by.
pub(super) const SUFFIX: Suffix = Suffix::new(".sig");

/// The signing algorithm of keys of a kind, and the function whose digest is signed: of curves
/// KMS's, of RSA what `openssl dgst` assumes. Ed25519 signs no digests.
pub fn algorithm(kind: KeyKind) -> Option<(SigningAlgorithm, HashAlgorithm)> {
    let algorithm = match kind {
        KeyKind::Rsa { .. } => SigningAlgorithm::RsaPkcs1Sha256,
        KeyKind::Ed25519 | KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => SigningAlgorithm::of(kind),
    };
    Some((algorithm, algorithm.hash()?))
}

/// Whether bytes have the form of a signature of such a key.
pub fn is_formed(kind: KeyKind, bytes: &[u8]) -> bool {
    match kind {
        KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => ecdsa::numbers(bytes).is_some(),
        KeyKind::Rsa { bits } => usize::try_from(bits.div_ceil(8)).is_ok_and(|len| bytes.len() == len),
        KeyKind::Ed25519 => false,
    }
}

/// Whether this key made the bytes, of these digests. `None`: they lack the one that it signs.
pub fn is_of(key: &PublicKey, digests: &DigestSet, bytes: &[u8]) -> Option<bool> {
    let Some((algorithm, hash)) = algorithm(key.kind()) else { return Some(false) };
    let digest = digests.value(hash)?;
    Some(is_formed(key.kind(), bytes) && key.verify(algorithm, Message::Digest(digest), bytes))
}
