//! Exit codes, and how those of several files merge.
//!
//! Never decides anything: a caller says what happened, this says which number that is.

use std::process::ExitCode;

/// What a run came to. The order is the merging order: over several files the largest wins, because
/// "could not tell" must not hide behind "invalid", nor "invalid" behind "done".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// 0: done, everything asked for is signed or valid.
    Done,
    /// 1: some signature is invalid or missing.
    Invalid,
    /// 2: usage or policy; a human must edit something before another attempt makes sense.
    Usage,
    /// 3: could not tell, or not finished: KMS, credentials, I/O. Another attempt may succeed.
    Unfinished,
}

impl Exit {
    /// The number the process exits with.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Invalid => 1,
            Self::Usage => 2,
            Self::Unfinished => 3,
        }
    }

    /// The code of both together.
    #[must_use]
    pub(crate) fn and(self, other: Self) -> Self {
        self.max(other)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_code_wins() {
        let all = [Exit::Done, Exit::Invalid, Exit::Usage, Exit::Unfinished];
        for (i, a) in all.into_iter().enumerate() {
            assert_eq!(usize::from(a.code()), i);
            for b in all {
                assert_eq!(a.and(b).code(), a.code().max(b.code()));
            }
        }
    }
}
