//! The formats of signatures: what each is named by and needs to know of a payload, in one place
//! for all of them.
//!
//! How the bytes of one are read and made stands in its module; [`super::Signature::parse`] tells
//! them apart.

use super::suffix::Suffix;
use super::{batch, kms};
use crate::digest::set::DigestRequest;

/// A format of signatures.
///
/// ```
/// use std::ffi::OsStr;
///
/// use kms_sig::digest::algorithm::HashAlgorithm;
/// use kms_sig::signature::{Format, Signature};
///
/// assert_eq!(Format::Kms.suffix().signature_of(OsStr::new("app.tar.gz")), "app.tar.gz.sig");
/// assert!(Format::Kms.digests().has_digest(HashAlgorithm::Sha512));
///
/// let bytes = b"kms-sig batch 1\nsize 1\nindex 0\nleaf-context []\nciphertext 1\n\n!";
/// assert_eq!(Signature::parse(bytes)?.format(), Format::KmsBatch);
/// assert!(Signature::parse(b"-----BEGIN PGP SIGNATURE-----").is_err(), "another program's");
/// # Ok::<_, kms_sig::signature::Malformed>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// A KMS ciphertext of the payload's SHA-512 and nothing else: the original's.
    Kms,
    /// A KMS ciphertext that many payloads share, and what shows that this one is among them.
    KmsBatch,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Kms, Self::KmsBatch];

    /// What its signatures are named by.
    pub const fn suffix(self) -> Suffix {
        match self {
            // A rule that begins to sign batches goes on in the same place.
            Self::Kms | Self::KmsBatch => kms::SUFFIX,
        }
    }

    /// What must be known of a payload to make or judge a signature of it.
    pub const fn digests(self) -> DigestRequest {
        match self {
            Self::Kms => kms::DIGESTS,
            Self::KmsBatch => batch::DIGESTS,
        }
    }

    /// The same for any of several formats.
    pub const fn digests_of(formats: &[Self]) -> DigestRequest {
        match formats {
            [] => DigestRequest::NONE,
            [first, others @ ..] => first.digests().and(Self::digests_of(others)),
        }
    }

    /// The format that bytes begin like. Whether they are one of it is for its parser to say.
    pub(super) fn of(bytes: &[u8]) -> Self {
        if bytes.starts_with(batch::MAGIC) { Self::KmsBatch } else { Self::Kms }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use super::*;
    use crate::digest::algorithm::HashAlgorithm;

    #[test]
    fn every_format_names_what_is_found_again() {
        for format in Format::ALL {
            let suffix = format.suffix();
            for payload in ["a", "a.tar.gz", "a.sig", ".sig", "", "d/a"].map(OsStr::new) {
                let name = suffix.signature_of(payload);
                assert_eq!(name.len(), payload.len() + suffix.byte_len());
                assert_eq!(suffix.payload_of(&name), Some(payload));
            }
            let odd = OsStr::from_bytes(b"\xff\n");
            assert_eq!(suffix.payload_of(&suffix.signature_of(odd)), Some(odd));
            assert_eq!(suffix.payload_of(OsStr::new("a.si")), None);
        }
    }

    /// What a rule reads a payload for: today's formats must not make it compute anything else.
    #[test]
    fn sha512_is_all_that_todays_formats_ask_for() {
        let sha512 = DigestRequest::digest(HashAlgorithm::Sha512);
        for format in Format::ALL {
            assert_eq!(format.digests(), sha512, "{format:?}");
        }
        assert_eq!(Format::digests_of(&Format::ALL), sha512);
        assert_eq!(Format::digests_of(&[]), DigestRequest::NONE);
    }
}
