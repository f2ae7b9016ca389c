//! What a `.sig` may hold.
//!
//! The plain format is the raw KMS ciphertext and nothing else: byte for byte the original's. A batch signature
//! begins with a magic that no ciphertext begins with; what has it is one of those or malformed, and never taken
//! for a plain one. Reading is bounded; what cannot be a signature never reaches KMS.

pub mod batch;
pub mod ciphertext;
mod limits;
pub mod merkle;

use crate::digest::Digest;
use batch::{Batch, Flaw};
pub use limits::MAX_CIPHERTEXT;

/// The longest signature of any format, in bytes.
pub const MAX_LEN: usize = batch::MAX_LEN;

/// The suffix of a signature's name beside its payload.
pub const SUFFIX: &str = ".sig";

/// The bytes of a `.sig` that may be one of ours.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Signature {
    bytes: Box<[u8]>,
    /// What they say, if they are of a batch.
    batch: Option<Box<Batch>>,
}

/// Why bytes are no signature. Known without asking KMS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Nothing in it.
    #[error("the signature is empty")]
    Empty,
    /// More than KMS ever makes.
    #[error("the signature is longer than {MAX_CIPHERTEXT} bytes")]
    TooLong,
    /// Another program's signature.
    #[error("this is {0}, which kms-sig did not make")]
    Foreign(Foreign),
    /// It begins as a batch signature does, and is none.
    #[error("this is no batch signature: {0}")]
    Batch(Flaw),
}

/// Signatures of other programs that share the suffix `.sig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foreign {
    /// OpenPGP, armored (RFC 9580 section 6.2).
    OpenPgp,
    /// minisign or signify: a first line `untrusted comment:`.
    Minisign,
    /// `ssh-keygen -Y sign` (OpenSSH PROTOCOL.sshsig).
    Ssh,
}

impl std::fmt::Display for Foreign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OpenPgp => "an OpenPGP signature",
            Self::Minisign => "a minisign or signify signature",
            Self::Ssh => "an SSH signature",
        })
    }
}

impl Signature {
    /// Takes the bytes of a `.sig`. A reader need not read more than `MAX_LEN + 1` of them.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.is_empty() {
            return Err(Malformed::Empty);
        }
        if bytes.starts_with(batch::MAGIC) {
            let batch = Batch::parse(bytes).map_err(Malformed::Batch)?;
            return Ok(Self { bytes: bytes.into(), batch: Some(batch.into()) });
        }
        if bytes.len() > MAX_CIPHERTEXT {
            return Err(Malformed::TooLong);
        }
        let foreign = [
            (b"-----BEGIN PGP ".as_slice(), Foreign::OpenPgp),
            (b"untrusted comment:", Foreign::Minisign),
            (b"-----BEGIN SSH SIGNATURE-----", Foreign::Ssh),
        ];
        match foreign.into_iter().find(|(magic, _)| bytes.starts_with(magic)) {
            Some((_, foreign)) => Err(Malformed::Foreign(foreign)),
            None => Ok(Self { bytes: bytes.into(), batch: None }),
        }
    }

    /// The bytes, as they lie in the file.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it says, if it is of a batch.
    pub fn batch(&self) -> Option<&Batch> {
        self.batch.as_deref()
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
    fn what_begins_as_a_batch_is_one_or_malformed() {
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
