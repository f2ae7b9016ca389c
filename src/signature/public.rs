//! Signatures that a public key verifies: which format bytes are of.
//!
//! By what they are and never by a name; what begins like one format is of that one or malformed.

use super::minisign::{MinisignMalformed, MinisignSignature};
use super::sigstore::{Bundle, BundleMalformed};
use super::ssh::{SshMalformed, SshSignature};
use super::suffix::Suffix;
use super::{minisign, sigstore, ssh};
use crate::trust::openpgp::Detached;

/// A format of signatures that a public key verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PublicFormat {
    /// `ssh-keygen -Y sign`.
    Ssh,
    /// minisign.
    Minisign,
    /// OpenPGP, detached.
    OpenPgp,
    /// A sigstore bundle.
    Sigstore,
    /// What `openssl dgst -verify` takes.
    Der,
}

impl PublicFormat {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Ssh, Self::Minisign, Self::OpenPgp, Self::Sigstore, Self::Der];

    /// Its name, in arguments and policies.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::Minisign => "minisign",
            Self::OpenPgp => "openpgp",
            Self::Sigstore => "sigstore",
            Self::Der => "der",
        }
    }

    /// What its signatures are named by.
    pub const fn suffix(self) -> Suffix {
        match self {
            Self::Ssh => ssh::SUFFIX,
            Self::Minisign => minisign::SUFFIX,
            Self::OpenPgp => Suffix::new(".asc"),
            Self::Sigstore => sigstore::SUFFIX,
            Self::Der => super::der::SUFFIX,
        }
    }

    /// The names that its signatures have, ours first.
    pub const fn suffixes(self) -> &'static [Suffix] {
        const OPENPGP: &[Suffix] = &[Suffix::new(".asc"), Suffix::new(".sig"), Suffix::new(".gpg")];
        match self {
            Self::Ssh => &[ssh::SUFFIX],
            Self::Minisign => &[minisign::SUFFIX],
            Self::OpenPgp => OPENPGP,
            Self::Sigstore => &[sigstore::SUFFIX],
            Self::Der => &[super::der::SUFFIX],
        }
    }

    /// The format that bytes begin like. Whether they are one of it is for its parser to say.
    fn of(bytes: &[u8]) -> Self {
        if bytes.starts_with(ssh::BEGIN.as_bytes()) {
            Self::Ssh
        } else if bytes.starts_with(minisign::UNTRUSTED.as_bytes()) {
            Self::Minisign
        } else if bytes.starts_with(b"-----BEGIN PGP ") || is_openpgp(bytes) {
            Self::OpenPgp
        } else if bytes.trim_ascii_start().starts_with(b"{") && std::str::from_utf8(bytes).is_ok() {
            Self::Sigstore
        } else {
            Self::Der
        }
    }
}

/// Whether bytes begin with the header of a signature packet, of either form. A DER sequence begins
/// with another byte, and the numbers of RSA are no packet that ends with them.
fn is_openpgp(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(0x88..=0x8B | 0xC2)) && Detached::parse(bytes).is_some()
}

/// The longest signature that is read, in bytes.
pub const MAX_LEN: usize = 1024 * 1024;

/// A signature that a public key may verify.
#[derive(Debug, Clone)]
pub enum PublicSignature {
    /// Of `ssh-keygen`.
    Ssh(SshSignature),
    /// Of minisign.
    Minisign(MinisignSignature),
    /// Of OpenPGP.
    OpenPgp(Detached),
    /// A sigstore bundle.
    Sigstore(Bundle),
    /// None of those: the bytes may be what a key made, and nothing else.
    Der(Vec<u8>),
}

/// Why bytes are no signature of the format that they begin like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublicMalformed {
    /// Nothing there.
    #[error("the signature is empty")]
    Empty,
    /// More than any signature has.
    #[error("the signature is larger than 1 MiB")]
    TooLarge,
    /// Like one of `ssh-keygen`.
    #[error(transparent)]
    Ssh(#[from] SshMalformed),
    /// Like one of minisign.
    #[error(transparent)]
    Minisign(#[from] MinisignMalformed),
    /// Like one of OpenPGP.
    #[error("it is no single OpenPGP signature of version 4 over a file")]
    OpenPgp,
    /// Like a bundle.
    #[error(transparent)]
    Sigstore(#[from] BundleMalformed),
}

impl PublicSignature {
    /// Reads a signature.
    ///
    /// # Errors
    /// [`PublicMalformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PublicMalformed> {
        if bytes.is_empty() {
            return Err(PublicMalformed::Empty);
        }
        if bytes.len() > MAX_LEN {
            return Err(PublicMalformed::TooLarge);
        }
        Ok(match PublicFormat::of(bytes) {
            PublicFormat::Ssh => Self::Ssh(SshSignature::parse(bytes)?),
            PublicFormat::Minisign => Self::Minisign(MinisignSignature::parse(bytes)?),
            PublicFormat::OpenPgp => Self::OpenPgp(Detached::parse(bytes).ok_or(PublicMalformed::OpenPgp)?),
            PublicFormat::Sigstore => Self::Sigstore(Bundle::parse(bytes)?),
            PublicFormat::Der => Self::Der(bytes.to_vec()),
        })
    }

    /// Its format.
    pub const fn format(&self) -> PublicFormat {
        match self {
            Self::Ssh(_) => PublicFormat::Ssh,
            Self::Minisign(_) => PublicFormat::Minisign,
            Self::OpenPgp(_) => PublicFormat::OpenPgp,
            Self::Sigstore(_) => PublicFormat::Sigstore,
            Self::Der(_) => PublicFormat::Der,
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
