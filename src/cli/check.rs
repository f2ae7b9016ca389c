//! `check`

use clap::Args;

use super::PolicyArgs;

/// `check`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Changes nothing, and without --online asks nobody. What would keep the daemon from starting or hold a rule is told. Run \
it as the daemon's user: what it may do is what is checked. Root becomes the user whose the state is.

Exit codes: 0 all is well, 2 somebody must change something on this host or in the policy, 3 something could not be \
told, or KMS cannot be reached or denies a call.

Examples:
  kms-sig check --policy p.toml
  runuser -u kms-sig -- kms-sig check --policy /etc/kms-sig/policy.toml --online
  kms-sig check --policy p.toml --online --json")]
pub struct Check {
    /// Which policy
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// Also ask KMS whether it would allow each call, and look at this host
    ///
    /// KMS is asked with its parameter DryRun, which neither encrypts nor decrypts anything. On the
    /// host: permissions, file systems, leases, free space, limits and the clock.
    #[arg(long)]
    pub(crate) online: bool,
    /// Fail only for what a daemon would refuse as a whole, as is asked before a reload
    ///
    /// What would hold single rules is reported, and the exit code is 0: the others are to get the
    /// new policy all the same.
    #[arg(long)]
    pub(crate) reload: bool,
    /// One JSON object with everything, for programs
    #[arg(long)]
    pub(crate) json: bool,
}
