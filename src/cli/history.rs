//! `kms-sig history`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Args};

use crate::signing::Reason;
use crate::state::Outcome;

/// What `--verdict` calls a valid signature.
pub(crate) const VALID: &str = "valid";

/// What `--verdict` calls a signature that is invalid for any reason.
pub(crate) const INVALID: &str = "invalid";

/// `history`
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("filter").multiple(true), after_long_help = "\
Shows the record of decisions, the newest last; times are UTC. It works while the daemon runs.

The rows are chained by hashes. --verify recomputes them all: exit code 0 if the record is unbroken, 1 with the \
first bad row if not, 3 if it could not be read or compared. It cannot notice that the whole record was rewritten \
unless it is given something that was kept elsewhere: a head (HASH:ROW, as --verify prints it), an export, or the \
seals that KMS made.

Examples:
  kms-sig history --policy p.toml --last 20
  kms-sig history --policy p.toml --rule downloads --verdict invalid --since 7d
  kms-sig history --policy p.toml --name '*.tar.gz' --json
  kms-sig history --policy p.toml --export > record.jsonl
  kms-sig history --policy p.toml --verify --against record.jsonl
  kms-sig history --verify --against record.jsonl          the export alone
  kms-sig history --policy p.toml --verify --online")]
pub struct HistoryCommand {
    /// The policy file (TOML)
    #[arg(long, value_name = "FILE", required_unless_present = "against")]
    pub(crate) policy: Option<PathBuf>,
    /// Only this rule's
    #[arg(long, group = "filter")]
    pub(crate) rule: Option<String>,
    /// Only files of this name: a pattern (*, ?, [a-z], {a,b}), or a name as it is or as it is
    /// shown
    ///
    /// With a / in it, it is about the whole path below the rule's directory.
    #[arg(long, group = "filter")]
    pub(crate) name: Option<OsString>,
    /// Only with this verdict
    #[arg(long, group = "filter", value_parser = verdicts())]
    pub(crate) verdict: Option<String>,
    /// Only with this outcome
    #[arg(long, group = "filter", value_parser = PossibleValuesParser::new(Outcome::words()))]
    pub(crate) outcome: Option<String>,
    /// Only from then on: 2026-11-24, 2026-11-24T01:00:00Z (UTC), or how long ago: 90m, 7d
    #[arg(long, group = "filter", value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only before then
    #[arg(long, group = "filter", value_name = "TIME")]
    pub(crate) until: Option<String>,
    /// Only the newest so many
    #[arg(long, group = "filter", value_name = "N")]
    pub(crate) last: Option<usize>,
    /// One JSON object per line, for programs
    #[arg(long, conflicts_with = "export")]
    pub(crate) json: bool,
    /// Prove that the record is unbroken
    #[arg(long, conflicts_with_all = ["filter", "export"])]
    pub(crate) verify: bool,
    /// A head that was kept elsewhere and must be on the chain: HASH:ROW, or a file whose last line
    /// it is
    #[arg(long, value_name = "HEAD", requires = "verify")]
    pub(crate) head: Option<OsString>,
    /// An export that must be unbroken, and whose head must be on the chain
    ///
    /// Without --policy, the export alone is verified.
    #[arg(long, value_name = "EXPORT", requires = "verify")]
    pub(crate) against: Option<PathBuf>,
    /// Have KMS open the newest seals as well
    #[arg(long, requires_all = ["verify", "policy"])]
    pub(crate) online: bool,
    /// Write the whole record as JSON lines, the head last, to be kept off this host
    #[arg(long, conflicts_with = "filter")]
    pub(crate) export: bool,
}

fn verdicts() -> PossibleValuesParser {
    PossibleValuesParser::new([VALID, INVALID].into_iter().chain(Reason::ALL.map(Reason::as_str)))
}
