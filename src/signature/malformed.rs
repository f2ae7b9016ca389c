//! Why bytes are no signature of any format. Known without asking KMS.

use std::fmt;

use super::batch::Flaw;
use super::limits::MAX_CIPHERTEXT;

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
    #[error("this is {0}; verify it with a public key (--trust)")]
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

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenPgp => "an OpenPGP signature",
            Self::Minisign => "a minisign or signify signature",
            Self::Ssh => "an SSH signature",
        })
    }
}
