//! The database file: its name, and how long other processes may keep it.

use std::time::Duration;

/// The database's name in the state directory.
pub const FILE: &str = "state.db";

/// How long to wait for another process that is writing.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
