//! A running scan, and how many names it may bring into memory.

use std::time::Duration;

use crate::clock::Moment;
use crate::fs::RelPath;

/// Pairs kept in memory at most; more stay in the directory, which is the queue (P10). Few in unit
/// tests, so that these see at once what becomes of too many.
pub(crate) const MAX_PAIRS: usize = if cfg!(test) { 400 } else { 20_000 };

/// As many as a scan brings there. The other places are left to names that hints tell of: what
/// comes while a scan waits for room need not wait for the end of it.
pub(crate) const MAX_SCANNED: usize = MAX_PAIRS / 10 * 9;

/// Names read, and paths asked of state, at a time.
pub(crate) const LOOKUP: usize = MAX_PAIRS / 40;

/// A running scan. It pauses where it is while there is no room for what it finds, and goes on from
/// there: however many names there are, each is listed once.
pub(crate) struct Scan {
    pub(crate) began: Moment,
    /// Signatures of ours without their files: how many, and the first of them by their payloads.
    pub(crate) orphans: (usize, Vec<RelPath>),
    /// Since when it waits for room, if it does.
    pub(crate) paused: Option<Moment>,
    /// For how long it has waited before.
    pub(crate) waited: Duration,
    /// When no pairs were found that could have made room for it.
    pub(crate) found_none: Option<Moment>,
    /// Most of the names read last were decided before, so that what lies at the next ones is
    /// looked at while state is asked about them.
    pub(crate) is_known: bool,
    /// When the directory was last compared with what the policy names.
    pub(crate) checked: Moment,
}

impl Scan {
    /// A scan that begins now.
    pub(crate) const fn new(now: Moment) -> Self {
        Self {
            began: now,
            orphans: (0, Vec::new()),
            paused: None,
            waited: Duration::ZERO,
            found_none: None,
            is_known: false,
            checked: now,
        }
    }

    /// It waits for room.
    pub(crate) fn pause(&mut self, now: Moment) {
        self.paused.get_or_insert(now);
    }

    /// It goes on.
    pub(crate) fn resume(&mut self, now: Moment) {
        if let Some(since) = self.paused.take() {
            self.waited += now.saturating_sub(since);
        }
    }

    /// For how long it has read, without the time that it waited for room.
    pub(crate) fn took(&self, now: Moment) -> Duration {
        now.saturating_sub(self.began).saturating_sub(self.waited)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_that_a_scan_waits_for_room_is_not_its_own() {
        let at = Duration::from_secs;
        let mut scan = Scan::new(at(10));
        scan.pause(at(11));
        scan.pause(at(12));
        scan.resume(at(20));
        scan.resume(at(21));
        assert_eq!(scan.took(at(22)), at(3));
    }
}
