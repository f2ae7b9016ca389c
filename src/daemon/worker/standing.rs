//! What is known of signatures of ours without their files, for the status.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Moment;
use crate::daemon::status::Cause;
use crate::daemon::worker::wait::ORPHAN;
use crate::fs::RelPath;

/// For how long a signature waits for its file to come back, or to be renamed too: as long as in
/// verify rules by default. People move pairs one file at a time.
pub(crate) const PATIENCE: Duration = crate::policy::SIGNATURE_TIMEOUT;

/// What is known of them.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// How many have no file, and since when the first of those are known.
    pub(crate) orphans: (usize, BTreeMap<RelPath, Moment>),
    /// When the record may be read again.
    pub(crate) next_record: Moment,
}

impl Standing {
    /// What the status says of them.
    pub(crate) fn cause(&self, now: Moment) -> Option<(&'static str, Cause)> {
        let (count, known) = &self.orphans;
        let since = known.values().min().copied().unwrap_or(now);
        let cause = Cause {
            count: *count,
            is_held: false,
            since,
            reason: ORPHAN_TEXT.to_owned(),
            hint: ORPHAN_HINT.to_owned(),
            needs_operator: now.saturating_sub(since) >= PATIENCE,
            next_attempt: None,
        };
        (*count > 0).then_some((ORPHAN, cause))
    }

    /// The files that they are about, as far as they are known.
    pub(crate) fn listed(&self, now: Moment) -> impl Iterator<Item = Listed<'_>> {
        self.orphans.1.iter().map(move |(path, since)| Listed {
            path,
            cause: ORPHAN,
            reason: ORPHAN_TEXT,
            hint: ORPHAN_HINT,
            needs_operator: now.saturating_sub(*since) >= PATIENCE,
        })
    }
}

/// One of them, for the backlog.
pub(crate) struct Listed<'a> {
    pub(crate) path: &'a RelPath,
    pub(crate) cause: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) hint: &'static str,
    pub(crate) needs_operator: bool,
}

const ORPHAN_TEXT: &str = "a signature of ours without its file";
const ORPHAN_HINT: &str =
    "nothing, if its file is being moved; otherwise remove the signature, or bring the file back";
