//! Kinds of public keys that formats of signatures know.

use std::fmt;

/// The kind of a public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// The curve P-256 (FIPS 186-5, SP 800-186), also secp256r1 and prime256v1.
    P256,
    /// The curve P-384, also secp384r1.
    P384,
    /// The curve P-521, also secp521r1.
    P521,
    /// RSA (RFC 8017).
    Rsa {
        /// Bits of the modulus: 2,048 to 8,192.
        bits: u32,
    },
}

impl KeyKind {
    /// Bytes of one coordinate of a point of this curve; `None` for what has no such points.
    pub(super) const fn coordinate_len(self) -> Option<usize> {
        match self {
            Self::P256 => Some(32),
            Self::P384 => Some(48),
            Self::P521 => Some(66),
            Self::Ed25519 | Self::Rsa { .. } => None,
        }
    }
}

/// Its usual name, for messages.
impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ed25519 => f.write_str("Ed25519"),
            Self::P256 => f.write_str("P-256"),
            Self::P384 => f.write_str("P-384"),
            Self::P521 => f.write_str("P-521"),
            Self::Rsa { bits } => write!(f, "RSA {bits}"),
        }
    }
}
