//! Why the record was not shown or proven.

use std::path::PathBuf;

use crate::escape::{Escaped, quoted};
use crate::exit::Exit;
use crate::state::export::ExportError;
use crate::state::reader::HistoryError;

/// Why the record was not shown or proven.
#[derive(Debug, thiserror::Error)]
pub enum HistoryFailure {
    /// It cannot be read.
    #[error(transparent)]
    Record(#[from] HistoryError),
    /// An export cannot be read.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// A time that is none.
    #[error("\"{}\" is no time", Escaped::text(.0))]
    Time(String),
    /// A head that is none.
    #[error("\"{}\" is neither a head nor a file", Escaped::text(.0))]
    Head(String),
    /// The policy seals nothing.
    #[error("{} names no seal_key", quoted(.0))]
    NoSeal(PathBuf),
}

impl HistoryFailure {
    /// The exit code it ends the process with.
    pub(crate) const fn exit(&self) -> Exit {
        match self {
            Self::Record(_) | Self::Export(_) => Exit::Unfinished,
            Self::Time(_) | Self::Head(_) | Self::NoSeal(_) => Exit::Usage,
        }
    }

    /// What a person can do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Record(HistoryError::Missing(_)) => {
                Some("start the daemon, which makes it, or name the policy that it runs by")
            }
            Self::Record(HistoryError::Earlier(_)) => {
                Some("start the daemon of this version once; it takes the rows over")
            }
            Self::Record(HistoryError::Later(..)) => Some("use the program that wrote it"),
            Self::Record(HistoryError::Changed(_)) => Some("try again"),
            Self::Record(HistoryError::Unrecovered(_)) => {
                Some("start the daemon, or run this as its user, who may write there")
            }
            Self::Record(HistoryError::Failed(..)) => {
                Some("run it as the daemon's user; what is damaged is set aside when the daemon starts")
            }
            Self::Export(_) => Some("name the whole output of kms-sig history --export"),
            Self::Time(_) => Some("write 2026-11-24, 2026-11-24T01:00:00Z (UTC), or how long ago: 90m, 7d"),
            Self::Head(_) => Some("write HASH:ROW, or name an export or its last line"),
            Self::NoSeal(_) => Some("leave out --online, or set [state] seal_key"),
        }
    }
}
