//! A running scan, and which names get a place when there are more than fit in memory.

use std::hash::{BuildHasher as _, RandomState};

use crate::clock::Moment;
use crate::fs::RelPath;

/// Pairs kept in memory at most; more stay in the directory, which is the queue, for a later scan
/// (P10).
pub(crate) const MAX_PAIRS: usize = 20_000;

/// A running scan.
pub(crate) struct Scan {
    pub(crate) began: Moment,
    /// Pairs found so far.
    pub(crate) seen: usize,
    /// Which names go first, if the last scan had too few places. The others follow in a second
    /// round.
    pub(crate) turn: Option<Turn>,
    /// Whether this is the second round.
    pub(crate) is_second_round: bool,
    /// Signatures of ours without their files: how many, and the first of them by their payloads.
    pub(crate) orphans: (usize, Vec<RelPath>),
    /// Pairs that may wait were evicted.
    pub(crate) made_room: bool,
}

/// Rotates the places when there are too few: each scan prefers as many other names as there are
/// places. Otherwise the first names in the directory would get them every time and the last ones
/// never. Names are ordered by hash, because directory order changes with every new file.
pub(crate) struct Turn {
    hashes: RandomState,
    /// The highest hash that has its turn.
    last: u64,
}

impl Turn {
    /// The first turn, for this many names.
    pub(crate) fn new(names: usize) -> Self {
        let share = u128::from(u64::MAX) * MAX_PAIRS as u128 / names.max(MAX_PAIRS) as u128;
        Self { hashes: RandomState::new(), last: u64::try_from(share).unwrap_or(u64::MAX) }
    }

    pub(crate) fn is_of(&self, path: &RelPath) -> bool {
        self.hashes.hash_one(path) <= self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_have_their_turn_as_there_are_places_and_each_time_others() {
        let names: Vec<_> = (0..5 * MAX_PAIRS).map(|n| RelPath::new(n.to_string()).unwrap()).collect();
        let (one, other) = (Turn::new(names.len()), Turn::new(names.len()));
        let count = |is: &dyn Fn(&RelPath) -> bool| names.iter().filter(|name| is(name)).count();
        let near = |count: usize, expected: usize| (expected * 9 / 10..=expected * 11 / 10).contains(&count);
        assert!(near(count(&|name| one.is_of(name)), MAX_PAIRS));
        assert!(near(count(&|name| one.is_of(name) && other.is_of(name)), MAX_PAIRS / 5));
        let all = Turn::new(0);
        assert_eq!(count(&|name| all.is_of(name)), names.len());
    }
}
