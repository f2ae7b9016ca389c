//! `check`

use clap::Args;

use super::PolicyArgs;

/// `check`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Changes nothing, and without --online asks nobody. Run it as the daemon's user: what it may do is what is checked.

Exit codes: 0 all is well, 2 somebody must change something on this host or in the policy, 3 something could not be \
told, or KMS cannot be reached or denies a call.

Examples:
  kms-sig check --policy p.toml
  runuser -u kms-sig -- kms-sig check --policy /etc/kms-sig/policy.toml --online
  kms-sig check --policy p.toml --online --json")]
pub struct Check {
    /// Which policy
    #[command(flatten)]
    pub policy: PolicyArgs,
    /// Also ask KMS whether it would allow each call, and look at this host
    ///
    /// KMS is asked with its parameter DryRun, which neither encrypts nor decrypts anything. On the host: permissions,
    /// file systems, leases, free space, limits and the clock.
    #[arg(long)]
    pub online: bool,
    /// One JSON object with everything, for programs
    #[arg(long)]
    pub json: bool,
}
