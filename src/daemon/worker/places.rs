//! Limits which pairs are kept in memory. The rest stays in the directory, which is the queue
//! (P10).

use std::time::Duration;

use crate::clock::Moment;
use crate::daemon::site::{Backend, VersionOf};
use crate::daemon::worker::turn::{LOOKUP, MAX_SCANNED, Scan};
use crate::daemon::worker::{MAX_PAIRS, PairState, Worker, set_timer};
use crate::fs::RelPath;
use crate::hold::Hold;
use crate::kms::Kms;
use crate::settle::{Pair, PairVersion};

/// A pair that waits longer than this may be forgotten until the next scan when there are too many.
const EVICTABLE: Duration = Duration::from_secs(10);

/// How soon pairs that make room for a scan are looked for again, if there were none.
const MAKE_ROOM: Duration = Duration::from_secs(1);

/// After how long a scan that waits for room goes on by a few names all the same, and how long a
/// pair must have waited to make room for them.
const LONG: Duration = Duration::from_secs(10);

impl<K: Kms, B: Backend> Worker<K, B> {
    /// Observes a pair in this iteration, entering it if it is new.
    pub(crate) fn look_soon(&mut self, path: RelPath, now: Moment) {
        if let Some(entry) = self.pairs.get_mut(&path) {
            if entry.running {
                entry.touched = true;
            } else {
                set_timer(&mut self.timers, entry, &path, now);
            }
        } else if self.has_room(now) {
            self.enter(path, now);
        } else {
            self.overflowed = true;
        }
    }

    /// Enters a pair, unless nothing is there or its versions are decided.
    pub(crate) fn enter(&mut self, path: RelPath, now: Moment) {
        let mut entry = PairState {
            pair: Pair::new(self.want(), now, PairVersion::NONE),
            timer: None,
            running: false,
            touched: false,
            signature_touched: false,
            hinted: 0,
            attempts: 0,
            known: None,
            owner: None,
            hold: None,
            held_since: now,
            first_seen: now,
            touched_as: None,
            linked_since: None,
        };
        set_timer(&mut self.timers, &mut entry, &path, now);
        self.pairs.insert(path, Box::new(entry));
    }

    /// Whether another pair may be entered. If there are too many, the one that has longest to wait
    /// makes room: it stays in the directory, and a later scan finds it. So a sender cannot block
    /// others with thousands of files that only wait.
    pub(crate) fn has_room(&mut self, now: Moment) -> bool {
        if self.pairs.len() < MAX_PAIRS {
            return true;
        }
        self.overflowed = true;
        match self.timers.last() {
            Some((at, _)) if *at > now + EVICTABLE => {
                if let Some((_, path)) = self.timers.pop_last() {
                    self.pairs.remove(&path);
                }
                true
            }
            _ => false,
        }
    }

    /// Whether a scan may bring more names into memory. If not, it waits until pairs have left, or
    /// until others that only wait make room: they stay in the directory, and a later scan finds
    /// them. So each name has its turn in each scan, whatever lies before it.
    pub(crate) fn scan_has_room(&mut self, scan: &mut Scan, now: Moment) -> bool {
        let has_room = |here: &Self| here.pairs.len() + LOOKUP <= MAX_SCANNED;
        let missing = |here: &Self| (here.pairs.len() + LOOKUP).saturating_sub(MAX_SCANNED);
        if has_room(self) {
            return true;
        }
        if scan.found_none.is_none_or(|at| now >= at + MAKE_ROOM) {
            if self.once {
                self.leave_late(now);
            } else {
                // What settles needs no longer than that, or is evicted below.
                let far = now + self.timing.settle.max(EVICTABLE);
                self.evict(missing(self), |entry, at| entry.hold.is_none() && at > far);
                if !has_room(self) {
                    self.make_room();
                }
            }
            scan.found_none = (!has_room(self)).then_some(now);
        }
        if !self.once && scan.paused.is_some_and(|since| now >= since + LONG) {
            // Whatever they wait for: a key that is denied to these may be allowed to others, and a
            // sender could touch these for ever.
            self.evict(missing(self), |entry, _| now >= entry.first_seen + LONG);
        }
        has_room(self)
    }

    /// Evicts pairs of this kind, those first that have longest to wait.
    fn evict(&mut self, most: usize, like_this: impl Fn(&PairState<VersionOf<B>>, Moment) -> bool) {
        let Self { pairs, timers, .. } = self;
        let is_meant = |at, path| pairs.get(path).is_some_and(|entry| !entry.running && like_this(entry, at));
        let some = timers.iter().rev().filter(|(at, path)| is_meant(*at, path)).take(most);
        let some: Vec<_> = some.cloned().collect();
        self.overflowed |= !some.is_empty();
        for timer in some {
            self.pairs.remove(&timer.1);
            self.timers.remove(&timer);
        }
    }

    /// Evicts pairs that may wait for ever: those held for a reason of their own, and signatures
    /// without payloads. A later scan finds them in the directory. Otherwise a sender could fill
    /// the memory with them and block all valid pairs.
    pub(crate) fn make_room(&mut self) {
        let Self { pairs, timers, overflowed, .. } = self;
        pairs.retain(|path, entry| {
            let waits = entry.timer.is_none() || entry.hold.as_ref().is_some_and(Hold::is_of_the_file);
            let keep = entry.running || !waits;
            if !keep {
                *overflowed = true;
                if let Some(at) = entry.timer.take() {
                    timers.remove(&(at, path.clone()));
                }
            }
            keep
        });
    }
}
