//! `explain`

use std::path::PathBuf;

use clap::Args;

use super::PolicyArgs;

/// `explain`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Changes nothing and asks no KMS; the file need not be there. Exit codes: 0 whether a rule applies or not, 2 for a bad \
policy, 3 if it could not be told.

Examples:
  kms-sig explain /srv/kms-sig/incoming/app.tar.gz --policy /etc/kms-sig/policy.toml
  kms-sig explain incoming/app.tar.gz.sig --policy p.toml --json")]
pub struct Explain {
    /// The file, or its signature; it may be missing
    pub(crate) path: PathBuf,
    /// Which policy
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// One JSON object, for programs
    #[arg(long)]
    pub(crate) json: bool,
}
