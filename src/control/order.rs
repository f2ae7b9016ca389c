//! What who asks may have the daemon do.

/// What who asks may have the daemon do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Read the policy anew, as SIGHUP has it.
    Reload,
}
