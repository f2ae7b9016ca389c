//! `kms-sig quarantine`: what can be written there, and what its help says. Types only.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::PolicyArgs;
use crate::signing::Reason;

/// `quarantine`
#[derive(Debug, Subcommand)]
#[command(after_long_help = "\
Works while the daemon runs and when it does not, as the daemon's user or as root. An id may be shortened \
as long as it stands for one item. Releases and purges are put on record in the daemon's history.

Examples:
  kms-sig quarantine list --policy /etc/kms-sig/policy.toml
  kms-sig quarantine recheck --all --policy /etc/kms-sig/policy.toml
  kms-sig quarantine release 20261124T0136 --policy /etc/kms-sig/policy.toml
  kms-sig quarantine purge --older-than 90days --yes --policy /etc/kms-sig/policy.toml")]
pub enum Quarantine {
    /// Lists the items, oldest first
    List {
        /// Which store, and how to answer
        #[command(flatten)]
        store: StoreArgs,
        /// Which items
        #[command(flatten)]
        choice: Choice,
    },
    /// Shows all that is known of an item, and whether its content changed since it was judged
    Show {
        /// The item
        #[arg(value_name = "ID")]
        id: String,
        /// Which store, and how to answer
        #[command(flatten)]
        store: StoreArgs,
    },
    /// Verifies items again, under the policy as it is now; moves nothing
    ///
    /// Exit codes: 0 all valid, 1 some invalid, 2 an id stands for nothing, 3 some could not be
    /// told.
    Recheck(Recheck),
    /// Gives items back, if they are valid under the policy as it is now
    Release(Release),
    /// Removes items for good
    Purge(Purge),
}

/// `--policy` and `--json`
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// The policy whose store it is
    #[command(flatten)]
    pub(crate) policy: PolicyArgs,
    /// Answer in JSON, one object per line
    #[arg(long)]
    pub(crate) json: bool,
}

/// A reason that an item can have.
fn reason(text: &str) -> Result<String, String> {
    let reason = Reason::parse(text).map(|reason| reason.to_string());
    reason.ok_or_else(|| format!("a reason is one of {}", Reason::ALL.map(Reason::as_str).join(", ")))
}

/// Filters of `list`.
#[derive(Debug, Args)]
pub struct Choice {
    /// Only items of this rule
    #[arg(long, value_name = "RULE")]
    pub(crate) rule: Option<String>,
    /// Only items that were judged so: mismatch, rejected, wrong-key, malformed, missing
    #[arg(long, value_name = "REASON", value_parser = reason)]
    pub(crate) reason: Option<String>,
}

/// `quarantine recheck`
#[derive(Debug, Args)]
pub struct Recheck {
    /// The items
    #[arg(value_name = "ID", required_unless_present = "all")]
    pub(crate) ids: Vec<String>,
    /// Every item
    #[arg(long, conflicts_with = "ids")]
    pub(crate) all: bool,
    /// Which store, and how to answer
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// `quarantine release`
#[derive(Debug, Args)]
#[command(after_long_help = "\
A copy goes to where the rule delivers, or back to the watched folder if the rule does not deliver. It gets the \
name and time of modification that the file had, and its mode without set-id bits and without write permission for \
others; where the rule delivers, nothing beyond deliver_mode. Nothing is overwritten. Then the item is removed.

With --force and without --to, a file that is not verified may go where the rule delivers, among those that are: name \
another directory with --to.

Exit codes: 0 all released, 1 some are still invalid, 2 an id stands for nothing, 3 some could not be released.

Examples:
  kms-sig quarantine release 20261124T0136 --policy /etc/kms-sig/policy.toml
  kms-sig quarantine release 20261124T0136 --force --to /root/evidence --policy /etc/kms-sig/policy.toml")]
pub struct Release {
    /// The items
    #[arg(value_name = "ID", required = true)]
    pub(crate) ids: Vec<String>,
    /// Put the files into this directory instead, which must be there
    #[arg(long, value_name = "DIR")]
    pub(crate) to: Option<PathBuf>,
    /// Do not verify: release the content that was judged invalid, and no other
    #[arg(long)]
    pub(crate) force: bool,
    /// Which store, and how to answer
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

/// `quarantine purge`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kms-sig quarantine purge 20261124T0136 --policy /etc/kms-sig/policy.toml
  kms-sig quarantine purge --rule downloads --older-than 90days --yes --policy /etc/kms-sig/policy.toml")]
pub struct Purge {
    /// The items
    #[arg(value_name = "ID", required_unless_present_any = ["older_than", "rule"])]
    pub(crate) ids: Vec<String>,
    /// Every item that was put away longer ago than this, such as 90days
    #[arg(long, value_name = "AGE", conflicts_with = "ids", value_parser = age)]
    pub(crate) older_than: Option<Duration>,
    /// Every item of this rule
    #[arg(long, value_name = "RULE", conflicts_with = "ids")]
    pub(crate) rule: Option<String>,
    /// Do it; without this, items that are not named by id are only counted
    #[arg(long)]
    pub(crate) yes: bool,
    /// Which store, and how to answer
    #[command(flatten)]
    pub(crate) store: StoreArgs,
}

fn age(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "write a duration such as 12h, 90days or 1year".to_owned())
}
