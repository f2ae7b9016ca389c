//! What a `.sig` may hold.
//!
//! The plain format is the raw KMS ciphertext and nothing else: byte for byte the original's. Reading is
//! bounded; what cannot be a signature never reaches KMS.

use crate::digest::Digest;

/// The longest plain signature, in bytes: the largest `CiphertextBlob` of KMS (AWS KMS API reference, Decrypt).
pub const MAX_LEN: usize = 6144;

/// The suffix of a signature's name beside its payload.
pub const SUFFIX: &str = ".sig";

/// The bytes of a `.sig` that may be one of ours: 1 to [`MAX_LEN`] of them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Signature(Box<[u8]>);

/// Why bytes are no signature. Known without asking KMS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Nothing in it.
    #[error("the signature is empty")]
    Empty,
    /// More than KMS ever makes.
    #[error("the signature is longer than {MAX_LEN} bytes")]
    TooLong,
    /// Another program's signature.
    #[error("this is {0}, which kms-sig did not make")]
    Foreign(Foreign),
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
        if bytes.len() > MAX_LEN {
            return Err(Malformed::TooLong);
        }
        let foreign = [
            (b"-----BEGIN PGP ".as_slice(), Foreign::OpenPgp),
            (b"untrusted comment:", Foreign::Minisign),
            (b"-----BEGIN SSH SIGNATURE-----", Foreign::Ssh),
        ];
        match foreign.into_iter().find(|(magic, _)| bytes.starts_with(magic)) {
            Some((_, foreign)) => Err(Malformed::Foreign(foreign)),
            None => Ok(Self(bytes.into())),
        }
    }

    /// The bytes, as they lie in the file and as KMS takes them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The signature's own SHA-512: how state recognises a `.sig` that this daemon made.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a16_only_1_to_6144_bytes_are_a_signature() {
        assert_eq!(Signature::parse(b""), Err(Malformed::Empty));
        assert!(Signature::parse(&[1]).is_ok());
        assert!(Signature::parse(&[1; MAX_LEN]).is_ok());
        assert_eq!(Signature::parse(&[1; MAX_LEN + 1]), Err(Malformed::TooLong));
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
