//! A scan under way, and whose turn it is where there are too few places.

use std::hash::{BuildHasher as _, RandomState};

use crate::clock::Moment;
use crate::fs::RelPath;

/// Pairs kept in memory at most; more stay in the directory, which is the queue, for a later scan
/// (P10).
pub(crate) const MAX_PAIRS: usize = 20_000;

/// A scan under way.
pub(crate) struct Scan {
    pub(crate) began: Moment,
    /// Pairs come upon so far.
    pub(crate) seen: usize,
    /// Whose turn it is, where there were too few places last time. The others come in a second
    /// round.
    pub(crate) turn: Option<Turn>,
    /// Whether it is the others' turn.
    pub(crate) is_second_round: bool,
    /// Pairs that may wait have been let go to make room.
    pub(crate) made_room: bool,
}

/// Who gets a place first where there are too few: each time as many others as there are places.
/// Otherwise the first names in the directory would get them every time, and the last never. Goes
/// by the name alone: where it comes in the directory changes with every signature that is put
/// there.
pub(crate) struct Turn {
    hashes: RandomState,
    /// The highest hash that is in.
    last: u64,
}

impl Turn {
    /// For so many names.
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
