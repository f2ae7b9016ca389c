//! What can be wrong with state.

use std::path::{Path, PathBuf};

use crate::escape::quoted;

/// What can be wrong with state.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StateError {
    /// The disk is full; ends when there is room.
    #[error("no room to write state in {}", quoted(.0))]
    Full(PathBuf),
    /// Another process keeps it locked; ends when that is done.
    #[error("another process keeps the state in {} locked", quoted(.0))]
    Busy(PathBuf),
    /// Anything else. What was to be remembered may not be, so nothing more is published.
    #[error("state in {} failed: {}", quoted(.0), .1)]
    Broken(PathBuf, String),
    /// Another version of this program wrote it.
    #[error(
        "state in {} has version {}, which this program does not know; upgrade it, or move the file away",
        quoted(.0), .1
    )]
    Version(PathBuf, i64),
}

pub(super) fn state_error(path: &Path, error: &rusqlite::Error) -> StateError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => StateError::Full(path.to_owned()),
        Some(rusqlite::ErrorCode::DatabaseBusy) => StateError::Busy(path.to_owned()),
        _ => StateError::Broken(path.to_owned(), error.to_string()),
    }
}
