//! How tests wait.

use std::time::Duration;

/// How long anything may take before a test fails. Far more than anything takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
