//! The commands that ask a running daemon.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::daemon;
use crate::state::reason::RefusalReason;

/// Which daemon is asked.
#[derive(Debug, Args)]
pub(crate) struct DaemonArgs {
    /// Ask the daemon of this policy [default: the one at /run/kms-sig/control.sock]
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Ask the daemon at this socket
    #[arg(long, value_name = "SOCKET", conflicts_with = "policy")]
    pub(crate) socket: Option<PathBuf>,
}

/// `status`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Asks the daemon at its control socket, as root, as the daemon's user or as a member of its group. Exit codes: 0 all is \
well; 3 something is held, refused or cannot work (the answer says what, and what to do), or the daemon cannot be asked.

Examples:
  kms-sig status
  kms-sig status --policy /etc/kms-sig/tenant.toml
  kms-sig status --json | jq .concerns")]
pub struct StatusCommand {
    /// Which daemon
    #[command(flatten)]
    pub(crate) daemon: DaemonArgs,
    /// One JSON object, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// `backlog`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Lists the files that wait or are refused. Exit codes: 0 nothing is held; 2 there is no such rule or cause; 3 something \
is held, or the daemon cannot be asked.

Examples:
  kms-sig backlog
  kms-sig backlog --held --rule downloads
  kms-sig backlog --cause access-denied --json")]
pub struct BacklogCommand {
    /// Which daemon
    #[command(flatten)]
    pub(crate) daemon: DaemonArgs,
    /// Only this rule's
    #[arg(long)]
    pub(crate) rule: Option<String>,
    /// Only what waits for this cause, or is refused for it, such as access-denied or hard-links
    #[arg(long, hide_possible_values = true, value_parser = causes())]
    pub(crate) cause: Option<String>,
    /// Only what is held; not what only needs time
    #[arg(long)]
    pub(crate) held: bool,
    /// At most so many of each rule, those that have waited longest [default: 20, with --json all]
    #[arg(long, value_name = "N")]
    pub(crate) most: Option<usize>,
    /// One JSON object per line, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

/// What a file may wait for, or be refused for. A word that is none would find nothing, as if
/// nothing waited.
fn causes() -> PossibleValuesParser {
    PossibleValuesParser::new(daemon::causes().chain(daemon::waits()).chain(RefusalReason::CODES))
}

/// `events`
#[derive(Debug, Args)]
#[command(after_long_help = "\
Each line is a row of the record (kms-sig history) with its cursor, HASH:ROW. Whoever keeps the cursor of the last line \
they dealt with, and passes it to --after, gets every decision once and in order, across restarts of either side. A \
cursor that is not of this record is an error, never a gap.

Examples:
  kms-sig events --follow
  kms-sig events --follow --after \"$(tail -n 1 seen.jsonl | jq -r .cursor)\" >> seen.jsonl
  kms-sig events --after 0 | jq -r 'select(.outcome == \"delivered\").path'")]
pub struct EventsCommand {
    /// Which daemon
    #[command(flatten)]
    pub(crate) daemon: DaemonArgs,
    /// The last line that is known: its cursor HASH:ROW, or the number of its row
    ///
    /// Without it: everything on record, or with --follow what comes from now on. Empty, as it is
    /// before there is a last line: everything on record.
    #[arg(long, value_name = "CURSOR")]
    pub(crate) after: Option<String>,
    /// Wait for more, also while the daemon is restarted
    #[arg(long, short)]
    pub(crate) follow: bool,
}

/// `rescan`
#[derive(Debug, Args)]
#[command(after_long_help = "\
For the daemon's own user and root. Also tries again what is held, and opens directories that were not to be had.

Example:
  kms-sig rescan --rule downloads")]
pub struct RescanCommand {
    /// Which daemon
    #[command(flatten)]
    pub(crate) daemon: DaemonArgs,
    /// Only this rule
    #[arg(long)]
    pub(crate) rule: Option<String>,
}

/// `reload`
#[derive(Debug, Args)]
#[command(after_long_help = "\
For the daemon's own user and root. Does what SIGHUP does, and waits for what comes of it: exit code 0 if the policy is \
in force, 2 with the reason if it was refused and the old one goes on.

Example:
  kms-sig reload")]
pub struct ReloadCommand {
    /// Which daemon
    #[command(flatten)]
    pub(crate) daemon: DaemonArgs,
}
