//! Which attempts may be made before a file is quiet.
//!
//! A sender could buy reading and calls of KMS with them, by touching or renaming files as fast as
//! he can. So a name has at most one in the time that it would take to be quiet, as if it had
//! waited for that, and all names of a rule together draw on one bucket. What comes to a decision
//! gives its place in the bucket back: it would have come to it anyway.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use crate::clock::Moment;
use crate::fs::RelPath;

/// The shortest time between two of one name.
const APART: Duration = Duration::from_secs(2);

/// How many may be made at once.
const BURST: u32 = 1_000;

/// After how long another one may be made.
const REFILL: Duration = Duration::from_millis(10);

/// Names that are remembered. Further ones wait for quiet.
const MAX_NAMES: usize = 20_000;

/// The early attempts of a rule.
#[derive(Debug)]
pub(super) struct EarlyAttempts {
    apart: Duration,
    /// When names had theirs, by a hash of the name: that two share one only delays.
    last: HashMap<u64, Moment>,
    hasher: RandomState,
    /// How many may be made now, and from when on the next one counts.
    places: u32,
    refilled: Moment,
}

impl EarlyAttempts {
    /// Of a rule with this `settle`.
    pub(super) fn new(settle: Duration) -> Self {
        Self {
            apart: settle.max(APART),
            last: HashMap::new(),
            hasher: RandomState::new(),
            places: BURST,
            refilled: Moment::ZERO,
        }
    }

    /// Takes the place of one, if this name may have one.
    pub(super) fn take(&mut self, path: &RelPath, now: Moment) -> bool {
        self.refill(now);
        let name = self.hasher.hash_one(path);
        let is_recent = |at: Moment| now < at.saturating_add(self.apart);
        if self.places == 0 || self.last.get(&name).is_some_and(|at| is_recent(*at)) {
            return false;
        }
        if self.last.len() >= MAX_NAMES {
            self.last.retain(|_, at| is_recent(*at));
        }
        if self.last.len() >= MAX_NAMES {
            return false;
        }
        self.places -= 1;
        self.last.insert(name, now);
        true
    }

    /// Something of this rule is decided.
    pub(super) fn decided(&mut self) {
        self.places = (self.places + 1).min(BURST);
    }

    fn refill(&mut self, now: Moment) {
        let due = now.saturating_sub(self.refilled).as_nanos() / REFILL.as_nanos();
        if due > 0 {
            let due = u32::try_from(due).unwrap_or(BURST);
            self.places = self.places.saturating_add(due).min(BURST);
            self.refilled = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(number: usize) -> RelPath {
        RelPath::new(format!("file-{number}")).unwrap()
    }

    const fn ms(millis: u64) -> Moment {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_name_has_one_in_the_time_it_would_take_to_be_quiet() {
        for (settle, apart) in [(ms(100), 2_000), (ms(15_000), 15_000)] {
            let mut early = EarlyAttempts::new(settle);
            assert!(early.take(&path(1), ms(0)));
            assert!(early.take(&path(2), ms(0)), "another name");
            early.decided();
            assert!(!early.take(&path(1), ms(apart - 1)), "decided or not");
            assert!(early.take(&path(1), ms(apart)));
        }
    }

    #[test]
    fn all_names_share_a_bucket_that_fills_by_and_by_and_by_what_is_decided() {
        let mut early = EarlyAttempts::new(ms(100));
        let burst = usize::try_from(BURST).unwrap();
        assert_eq!((0..2 * burst).filter(|number| early.take(&path(*number), ms(0))).count(), burst);
        early.decided();
        assert_eq!((0..2 * burst).filter(|number| early.take(&path(*number), ms(0))).count(), 1);
        assert_eq!((0..2 * burst).filter(|number| early.take(&path(*number), ms(1_000))).count(), 100);
    }

    #[test]
    fn p10_names_beyond_the_limit_wait_for_quiet() {
        let mut early = EarlyAttempts::new(ms(2_000));
        for number in 0..MAX_NAMES {
            assert!(early.take(&path(number), ms(0)));
            early.decided();
        }
        assert!(!early.take(&path(MAX_NAMES), ms(1_999)));
        assert!(early.take(&path(MAX_NAMES), ms(2_000)));
        assert_eq!(early.last.len(), 1);
    }
}
