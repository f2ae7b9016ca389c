//! Why a pair is invalid: a fact about it, never about whoever could not be asked.

use std::fmt;

/// Why a pair is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The signature is genuine and stands for other bytes.
    Mismatch,
    /// KMS says the ciphertext or the context is wrong.
    Rejected,
    /// No trusted key made it.
    WrongKey,
    /// It cannot be a signature.
    Malformed,
    /// There is none.
    Missing,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Mismatch, Self::Rejected, Self::WrongKey, Self::Malformed, Self::Missing];

    /// The reason that a word of [`Reason::as_str`] stands for.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }

    /// The word used in records, logs and state.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mismatch => "mismatch",
            Self::Rejected => "rejected",
            Self::WrongKey => "wrong-key",
            Self::Malformed => "malformed",
            Self::Missing => "missing",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_known_by_its_word() {
        for reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(Reason::parse("valid"), None);
    }
}
