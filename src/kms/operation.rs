//! The operations of KMS that this program asks for.

/// An operation. A key may allow one and not the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// Encrypt.
    Encrypt,
    /// Decrypt.
    Decrypt,
    /// Sign.
    Sign,
    /// `GetPublicKey`.
    GetPublicKey,
}

impl Operation {
    /// Its name in the AWS API; with `kms:` before it, the right to it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Encrypt => "Encrypt",
            Self::Decrypt => "Decrypt",
            Self::Sign => "Sign",
            Self::GetPublicKey => "GetPublicKey",
        }
    }
}
