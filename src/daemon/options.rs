//! How to run.

/// How to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Deal with what is there, then end.
    pub once: bool,
    /// Say what would be done, and change nothing.
    pub dry_run: bool,
    /// Run as root although the policy does not say so.
    pub allow_root: bool,
}
