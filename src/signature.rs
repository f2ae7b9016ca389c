//! What a `.sig` may hold.
//!
//! The plain format is the raw KMS ciphertext and nothing else: byte for byte the original's. A
//! batch signature begins with a magic that no ciphertext begins with; what has it is one of those
//! or malformed, and never taken for a plain one. Reading is bounded; what cannot be a signature
//! never reaches KMS.

pub mod batch;
pub mod ciphertext;
mod clue;
pub mod der;
mod format;
mod formats;
mod kms;
mod limits;
mod malformed;
pub mod merkle;
pub mod minisign;
mod public;
mod reason;
pub mod sigstore;
pub mod ssh;
mod suffix;

use std::ffi::{OsStr, OsString};

use crate::digest::Digest;
use batch::Batch;
pub use clue::Clue;
pub use format::Format;
pub use formats::Formats;
pub use limits::MAX_CIPHERTEXT;
pub use malformed::{Foreign, Malformed};
pub use public::{MAX_LEN as MAX_PUBLIC, PublicFormat, PublicMalformed, PublicSignature};
pub use reason::Reason;
pub use suffix::Suffix;

/// The longest signature of any format, in bytes.
pub const MAX_LEN: usize = batch::MAX_LEN;

/// The bytes of a `.sig` that may be one of ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Signature {
    bytes: Box<[u8]>,
    /// What they say, if they are of a batch.
    batch: Option<Box<Batch>>,
}

impl Signature {
    /// Takes the bytes of a `.sig`. A reader need not read more than `MAX_LEN + 1` of them.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let batch = match Format::of(bytes) {
            Format::Kms => kms::check(bytes).map(|()| None)?,
            Format::KmsBatch => Some(Batch::parse(bytes).map_err(Malformed::Batch)?.into()),
        };
        Ok(Self { bytes: bytes.into(), batch })
    }

    /// Its format.
    pub const fn format(&self) -> Format {
        if self.batch.is_some() { Format::KmsBatch } else { Format::Kms }
    }

    /// The bytes, as they lie in the file.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it says, if it is of a batch.
    pub fn batch(&self) -> Option<&Batch> {
        self.batch.as_deref()
    }

    /// The name of this signature beside a payload.
    pub fn name_beside(&self, payload: &OsStr) -> OsString {
        self.format().suffix().signature_of(payload)
    }

    /// What KMS made: of the plain format, all of it.
    pub fn ciphertext(&self) -> &[u8] {
        self.batch.as_ref().map_or(&self.bytes, |batch| batch.ciphertext())
    }

    /// The signature's own SHA-512: how state recognises a `.sig` that this daemon made.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }
}

impl From<Batch> for Signature {
    fn from(batch: Batch) -> Self {
        Self { bytes: batch.to_bytes().into(), batch: Some(batch.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a16_only_1_to_6144_bytes_are_a_plain_signature() {
        assert_eq!(Signature::parse(b""), Err(Malformed::Empty));
        assert!(Signature::parse(&[1]).is_ok());
        assert!(Signature::parse(&[1; MAX_CIPHERTEXT]).is_ok());
        assert_eq!(Signature::parse(&[1; MAX_CIPHERTEXT + 1]), Err(Malformed::TooLong));
    }

    #[test]
    fn batch_magic_never_parses_as_plain() {
        for tail in ["", "1", "1\n", "2\nsize 1\n", "1\nsize 1\nindex 0\nleaf-context []\nciphertext 1\n\n"] {
            let bytes = [batch::MAGIC, tail.as_bytes()].concat();
            assert!(matches!(Signature::parse(&bytes), Err(Malformed::Batch(_))), "{tail:?}");
            let long = [bytes, vec![1; MAX_LEN]].concat();
            assert!(matches!(Signature::parse(&long), Err(Malformed::Batch(_))), "{tail:?}");
        }
        let one = b"kms-sig batch 1\nsize 1\nindex 0\nleaf-context []\nciphertext 1\n\n!";
        let batch = Signature::parse(one).unwrap();
        assert_eq!((batch.as_bytes(), batch.ciphertext()), (one.as_slice(), b"!".as_slice()));
        assert_eq!(Signature::from(batch.batch().unwrap().clone()), batch);
        // Nearly the magic is none: bytes like any others.
        let nearly = Signature::parse(b"kms-sig-batch 1\n").unwrap();
        assert_eq!(nearly.batch(), None);
        assert_eq!(nearly.ciphertext(), nearly.as_bytes());
    }

    #[test]
    fn p8_other_programs_signatures_are_recognised() {
        for (bytes, foreign) in [
            (b"-----BEGIN PGP SIGNATURE-----\n".as_slice(), Foreign::OpenPgp),
            (b"untrusted comment: signature from minisign secret key\n", Foreign::Minisign),
            (b"-----BEGIN SSH SIGNATURE-----\n", Foreign::Ssh),
        ] {
            assert_eq!(Signature::parse(bytes), Err(Malformed::Foreign(foreign)));
        }
    }
}
