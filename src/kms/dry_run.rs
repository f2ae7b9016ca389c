//! Would a call be allowed? Asked of KMS without making it.
//!
//! KMS has the parameter `DryRun` for that (AWS KMS developer guide, "Testing your permissions"):
//! it checks the key, its state and the caller's rights, and answers with an error that says so.
//! Nothing that comes back is ever taken for a signature or a verdict.

use std::future::Future;
use std::time::Duration;

use crate::context::Context;
use crate::key::KeyId;
use crate::kms::{Operation, Trouble};
use crate::trust::SigningAlgorithm;

/// A provider that can be asked what it would allow.
pub(crate) trait DryRun: Send + Sync + 'static {
    /// Asks whether the caller may do this under `key`.
    ///
    /// # Errors
    /// Why not, or why that is unknown.
    fn dry_run(
        &self,
        call: &DryRunCall,
        key: &KeyId,
    ) -> impl Future<Output = Result<DryRunResult, Trouble>> + Send;
}

/// A call that is not made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum DryRunCall {
    /// Encrypt with this context.
    Encrypt(Context),
    /// Decrypt with this context.
    Decrypt(Context),
    /// Sign so. A policy of a key may allow some algorithms only.
    #[cfg_attr(not(test), expect(dead_code, reason = "for `check`, once a policy names keys that sign"))]
    Sign(SigningAlgorithm),
    /// `GetPublicKey`.
    #[cfg_attr(not(test), expect(dead_code, reason = "for `check`, once a policy names keys that sign"))]
    GetPublicKey,
}

impl DryRunCall {
    /// What it would ask for.
    pub(crate) const fn operation(&self) -> Operation {
        match self {
            Self::Encrypt(_) => Operation::Encrypt,
            Self::Decrypt(_) => Operation::Decrypt,
            Self::Sign(_) => Operation::Sign,
            Self::GetPublicKey => Operation::GetPublicKey,
        }
    }
}

/// How far a dry run came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DryRunResult {
    /// The call would be allowed.
    Allowed,
    /// KMS examined the made-up ciphertext and refused that. Who may not use the key is refused for
    /// that instead.
    Answered,
}

/// How far this host's clock is from that of KMS, by the date of its last answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClockError {
    /// This clock is behind by so much, to the second.
    Behind(Duration),
    /// This clock is ahead by so much.
    Ahead(Duration),
}

impl ClockError {
    /// From two readings at one moment, in seconds since the epoch.
    #[cfg_attr(not(any(feature = "aws", test)), expect(dead_code, reason = "only AWS tells the time"))]
    pub(crate) const fn between(ours: i64, theirs: i64) -> Self {
        let off = Duration::from_secs(ours.abs_diff(theirs));
        if ours < theirs { Self::Behind(off) } else { Self::Ahead(off) }
    }

    /// How much it is, either way.
    pub(crate) const fn size(self) -> Duration {
        match self {
            Self::Behind(off) | Self::Ahead(off) => off,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_ahead_or_behind_by_whole_seconds() {
        assert_eq!(ClockError::between(100, 400), ClockError::Behind(Duration::from_secs(300)));
        assert_eq!(ClockError::between(401, 100), ClockError::Ahead(Duration::from_secs(301)));
        assert_eq!(ClockError::between(7, 7).size(), Duration::ZERO);
        assert_eq!(ClockError::between(i64::MAX, -1).size(), Duration::from_secs(1 << 63));
    }
}
