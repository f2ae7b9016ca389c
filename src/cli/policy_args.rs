//! `--policy`, of every command that reads one.

use std::path::PathBuf;

use clap::Args;

/// `--policy`
#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    /// The policy file (TOML)
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: PathBuf,
}
