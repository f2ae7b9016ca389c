//! How many of a rule's refusals are told and put on record one by one: a sender brings about as
//! many as they like. A log that is full of them hides what an operator must see, and a record that
//! is, fills the disk of all rules. What exceeds the quota is counted, and the count told and put
//! on record.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Moment;
use crate::fs::RelPath;

/// A hundred in a minute are told one by one.
const TOLD: Quota = Quota::new(100, Duration::from_secs(60));
/// A thousand in an hour are put on record one by one: 12 MB a day at most, of about 500 bytes
/// each.
const RECORDED: Quota = Quota::new(1000, Duration::from_secs(60 * 60));

/// What was refused of late in a rule.
#[derive(Debug)]
pub(crate) struct Refusals {
    told: Mutex<Quota>,
    recorded: Mutex<Recorded>,
}

#[derive(Debug)]
struct Recorded {
    quota: Quota,
    /// The last that was not put on record.
    last: Option<RelPath>,
}

impl Default for Refusals {
    fn default() -> Self {
        let recorded = Recorded { quota: RECORDED, last: None };
        Self { told: Mutex::new(TOLD), recorded: Mutex::new(recorded) }
    }
}

impl Refusals {
    /// Whether one more is told.
    pub(crate) fn may_tell(&self) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).admits()
    }

    /// How many were not told, when it is time to say so.
    pub(crate) fn untold(&self, now: Moment) -> Option<usize> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).turn(now)
    }

    /// Whether one more, of this file, is put on record.
    pub(crate) fn may_record(&self, path: &RelPath) -> bool {
        let mut recorded = self.recorded();
        let admitted = recorded.quota.admits();
        if !admitted {
            recorded.last = Some(path.clone());
        }
        admitted
    }

    /// How many were not put on record, and the last of them, when it is time to say so; at the end
    /// it is.
    pub(crate) fn unrecorded(&self, now: Moment, is_end: bool) -> Option<(usize, RelPath)> {
        let mut recorded = self.recorded();
        let count = if is_end { recorded.quota.end() } else { recorded.quota.turn(now) };
        count.zip(recorded.last.take_if(|_| count.is_some()))
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        // Right after every single step.
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// So many in a window of time, and a count of the others.
#[derive(Debug)]
struct Quota {
    most: usize,
    /// How long before the counting begins anew.
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

    /// Whether this one is within it. It is counted if not.
    const fn admits(&mut self) -> bool {
        let admitted = self.admitted < self.most;
        *(if admitted { &mut self.admitted } else { &mut self.others }) += 1;
        admitted
    }

    /// Begins a new window if it is time, and returns how many exceeded the one before, if any did.
    fn turn(&mut self, now: Moment) -> Option<usize> {
        if self.since.is_some_and(|since| now < since + self.window) {
            return None;
        }
        self.since = Some(now);
        self.admitted = 0;
        self.end()
    }

    /// How many exceeded this window so far, if any did; they are counted no more.
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
        let Quota { most, window, .. } = TOLD;
        let mut quota = TOLD;
        assert_eq!(quota.turn(Duration::ZERO), None);
        assert_eq!((0..1_000_000).filter(|_| quota.admits()).count(), most);
        assert_eq!(quota.turn(window / 2), None);
        assert!(!quota.admits());
        assert_eq!(quota.turn(window), Some(1_000_001 - most));
        assert!(quota.admits());
        assert_eq!(quota.turn(window * 2), None, "all were told");
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
