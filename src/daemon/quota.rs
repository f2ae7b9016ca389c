//! How many of a rule's refusals are told one by one: a sender brings about as many as they like, and a log that is
//! full of them hides what an operator must see. What is not told is counted, and each is on record in state.

use std::time::Duration;

use crate::clock::Moment;

/// Told one by one in each [`WINDOW`].
const MOST: usize = 100;
/// How long before the counting begins anew.
const WINDOW: Duration = Duration::from_secs(60);

/// What has been told in this window.
#[derive(Debug, Default)]
pub struct Quota {
    /// When the window began.
    since: Option<Moment>,
    told: usize,
    untold: usize,
}

impl Quota {
    /// Whether this one is told. It is counted if not.
    pub fn admits(&mut self) -> bool {
        let admitted = self.told < MOST;
        *(if admitted { &mut self.told } else { &mut self.untold }) += 1;
        admitted
    }

    /// Begins a new window if it is time, and returns how many went untold in the one before, if any did.
    pub fn turn(&mut self, now: Moment) -> Option<usize> {
        if self.since.is_some_and(|since| now < since + WINDOW) {
            return None;
        }
        let untold = self.untold;
        *self = Self { since: Some(now), told: 0, untold: 0 };
        (untold > 0).then_some(untold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a11_what_exceeds_the_quota_is_counted_and_the_count_told_once() {
        let mut quota = Quota::default();
        assert_eq!(quota.turn(Duration::ZERO), None);
        assert_eq!((0..1_000_000).filter(|_| quota.admits()).count(), MOST);
        assert_eq!(quota.turn(WINDOW / 2), None);
        assert!(!quota.admits());
        assert_eq!(quota.turn(WINDOW), Some(1_000_001 - MOST));
        assert!(quota.admits());
        assert_eq!(quota.turn(WINDOW * 2), None, "all were told");
    }
}
