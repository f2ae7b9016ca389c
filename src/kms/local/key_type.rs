//! Types of local keys: what a key can do, and with which algorithm.

use std::fmt;
use std::str::FromStr;

use crate::trust::KeyKind;

/// The type of a local key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyType {
    /// AES-256-GCM, which encrypts digests: for the format `kms`. Has no public half.
    #[default]
    Aes,
    /// Ed25519.
    Ed25519,
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// ECDSA on P-521.
    P521,
    /// RSA of 3,072 bits.
    Rsa3072,
    /// RSA of 4,096 bits.
    Rsa4096,
}

impl KeyType {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Aes, Self::Ed25519, Self::P256, Self::P384, Self::P521, Self::Rsa3072, Self::Rsa4096];

    /// Its name in keyrings and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Aes => "aes",
            Self::Ed25519 => "ed25519",
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::P521 => "p521",
            Self::Rsa3072 => "rsa3072",
            Self::Rsa4096 => "rsa4096",
        }
    }

    /// The kind of its public half, if it has one.
    pub const fn kind(self) -> Option<KeyKind> {
        match self {
            Self::Aes => None,
            Self::Ed25519 => Some(KeyKind::Ed25519),
            Self::P256 => Some(KeyKind::P256),
            Self::P384 => Some(KeyKind::P384),
            Self::P521 => Some(KeyKind::P521),
            Self::Rsa3072 => Some(KeyKind::Rsa { bits: 3072 }),
            Self::Rsa4096 => Some(KeyKind::Rsa { bits: 4096 }),
        }
    }
}

/// As keyrings have it.
impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Text that names no type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no such type of key; there are aes, ed25519, p256, p384, p521, rsa3072 and rsa4096")]
pub struct NoKeyType;

impl FromStr for KeyType {
    type Err = NoKeyType;

    fn from_str(text: &str) -> Result<Self, NoKeyType> {
        Self::ALL.into_iter().find(|key_type| key_type.as_str() == text).ok_or(NoKeyType)
    }
}
