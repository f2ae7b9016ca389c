//! Quotas on the refusals of a rule that are logged and recorded one by one. A sender can cause any
//! number of them: a flooded log hides what an operator must see, and a flooded record fills the
//! disk of all rules. Refusals above the quota are counted, and the count is logged and recorded.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Moment;
use crate::fs::RelPath;

/// A hundred in a minute are logged one by one.
const LOGGED: Quota = Quota::new(100, Duration::from_secs(60));
/// A thousand in an hour are recorded one by one: 12 MB a day at most, at about 500 bytes each.
const RECORDED: Quota = Quota::new(1000, Duration::from_secs(60 * 60));

/// The recent refusals of a rule.
#[derive(Debug)]
pub(crate) struct Refusals {
    logged: Mutex<Quota>,
    recorded: Mutex<Recorded>,
}

#[derive(Debug)]
struct Recorded {
    quota: Quota,
    /// The last one that was not recorded.
    last: Option<RelPath>,
}

impl Default for Refusals {
    fn default() -> Self {
        let recorded = Recorded { quota: RECORDED, last: None };
        Self { logged: Mutex::new(LOGGED), recorded: Mutex::new(recorded) }
    }
}

impl Refusals {
    /// Whether one more may be logged. Counts it otherwise.
    pub(crate) fn may_log(&self) -> bool {
        self.logged.lock().unwrap_or_else(PoisonError::into_inner).admits()
    }

    /// How many were not logged, when the window is over.
    pub(crate) fn suppressed(&self, now: Moment) -> Option<usize> {
        self.logged.lock().unwrap_or_else(PoisonError::into_inner).turn(now)
    }

    /// Whether one more, of this file, may be recorded. Counts it otherwise.
    pub(crate) fn may_record(&self, path: &RelPath) -> bool {
        let mut recorded = self.recorded();
        let admitted = recorded.quota.admits();
        if !admitted {
            recorded.last = Some(path.clone());
        }
        admitted
    }

    /// How many were not recorded, and the last of them, when the window is over or at the end.
    pub(crate) fn unrecorded(&self, now: Moment, is_end: bool) -> Option<(usize, RelPath)> {
        let mut recorded = self.recorded();
        let count = if is_end { recorded.quota.end() } else { recorded.quota.turn(now) };
        count.zip(recorded.last.take_if(|_| count.is_some()))
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        // Every update leaves the data consistent, so a poisoned lock is safe to use.
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A limit for each window of time, and a count of what exceeds it.
#[derive(Debug)]
struct Quota {
    most: usize,
    /// The length of a window.
    window: Duration,
    /// When the window began.
    since: Option<Moment>,
    admitted: usize,
    others: usize,
}

impl Quota {
    const fn new(most: usize, window: Duration) -> Self {
        Self { most, window, since: None, admitted: 0, others: 0 }
    }

    /// Whether one more is within the limit. Counts it otherwise.
    const fn admits(&mut self) -> bool {
        let admitted = self.admitted < self.most;
        *(if admitted { &mut self.admitted } else { &mut self.others }) += 1;
        admitted
    }

    /// Begins a new window when the last one is over, and returns how many exceeded that, if any
    /// did.
    fn turn(&mut self, now: Moment) -> Option<usize> {
        if self.since.is_some_and(|since| now < since + self.window) {
            return None;
        }
        self.since = Some(now);
        self.admitted = 0;
        self.end()
    }

    /// Takes the count of those that exceeded this window so far, if any did.
    fn end(&mut self) -> Option<usize> {
        let others = std::mem::take(&mut self.others);
        (others > 0).then_some(others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a11_what_exceeds_the_quota_is_counted_and_the_count_told_once() {
        let Quota { most, window, .. } = LOGGED;
        let mut quota = LOGGED;
        assert_eq!(quota.turn(Duration::ZERO), None);
        assert_eq!((0..1_000_000).filter(|_| quota.admits()).count(), most);
        assert_eq!(quota.turn(window / 2), None);
        assert!(!quota.admits());
        assert_eq!(quota.turn(window), Some(1_000_001 - most));
        assert!(quota.admits());
        assert_eq!(quota.turn(window * 2), None, "all were logged");
    }

    #[test]
    fn a11_what_is_not_on_record_is_counted_with_the_last_of_it() {
        let refusals = Refusals::default();
        let path = |n: usize| RelPath::new(n.to_string()).unwrap();
        assert_eq!(refusals.unrecorded(Duration::ZERO, false), None);
        assert_eq!((0..1003).filter(|n| refusals.may_record(&path(*n))).count(), 1000);
        assert_eq!(refusals.unrecorded(Duration::from_secs(60), false), None);
        assert_eq!(refusals.unrecorded(Duration::from_secs(60), true), Some((3, path(1002))));
        assert_eq!(refusals.unrecorded(Duration::from_secs(60), true), None);
        assert!(!refusals.may_record(&path(7)), "the hour is not over");
        assert_eq!(refusals.unrecorded(Duration::from_secs(3600), false), Some((1, path(7))));
        assert!(refusals.may_record(&path(8)));
    }
}
