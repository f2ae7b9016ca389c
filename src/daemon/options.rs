//! How to run.

/// How to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Process the files that are present, then end.
    pub once: bool,
    /// Report what would be done, and change nothing.
    pub dry_run: bool,
    /// Run as root even if the policy does not allow it.
    pub allow_root: bool,
}
