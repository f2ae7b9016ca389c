//! The format of the original: a KMS ciphertext of the payload's SHA-512, and nothing else.
//!
//! Nothing in the bytes says so: whatever is not empty, not too long, and not known to be another
//! program's may be one. [`super::ciphertext`] is for the opposite question.

use super::limits::MAX_CIPHERTEXT;
use super::malformed::{Foreign, Malformed};
use super::suffix::Suffix;
use crate::digest::algorithm::HashAlgorithm;
use crate::digest::set::DigestRequest;

/// What its signatures are named by.
pub(super) const SUFFIX: Suffix = Suffix::new(".sig");

/// What is encrypted.
pub(super) const DIGESTS: DigestRequest = DigestRequest::digest(HashAlgorithm::Sha512);

/// How signatures of other programs begin that share the suffix.
const FOREIGN: [(&[u8], Foreign); 3] = [
    (b"-----BEGIN PGP ", Foreign::OpenPgp),
    (b"untrusted comment:", Foreign::Minisign),
    (b"-----BEGIN SSH SIGNATURE-----", Foreign::Ssh),
];

/// Whether bytes that do not begin as those of another format of ours may be a signature of this
/// one.
pub(super) fn check(bytes: &[u8]) -> Result<(), Malformed> {
    if bytes.is_empty() {
        return Err(Malformed::Empty);
    }
    if bytes.len() > MAX_CIPHERTEXT {
        return Err(Malformed::TooLong);
    }
    match FOREIGN.into_iter().find(|(magic, _)| bytes.starts_with(magic)) {
        Some((_, foreign)) => Err(Malformed::Foreign(foreign)),
        None => Ok(()),
    }
}
