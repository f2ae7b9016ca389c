//! Places: which pairs are kept in memory. The rest stays in the directory, which is the queue
//! (P10).

use std::time::Duration;

use crate::clock::Moment;
use crate::daemon::site::Backend;
use crate::daemon::worker::{MAX_PAIRS, PairState, Worker, set_timer};
use crate::fs::RelPath;
use crate::hold::Hold;
use crate::kms::Kms;
use crate::settle::{Pair, PairVersion};

/// A pair that waits longer than this may be forgotten until the next scan when there are too many.
const EVICTABLE: Duration = Duration::from_secs(10);

impl<K: Kms, B: Backend> Worker<K, B> {
    /// Has a pair looked at in this round, entering it if it is new.
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

    /// Begins to watch a name, unless nothing is there or it was dealt with before.
    pub(crate) fn enter(&mut self, path: RelPath, now: Moment) {
        let mut entry = PairState {
            pair: Pair::new(self.want(), now, PairVersion::NONE),
            timer: None,
            running: false,
            touched: false,
            attempts: 0,
            known: None,
            hold: None,
            held_since: now,
            first_seen: now,
        };
        set_timer(&mut self.timers, &mut entry, &path, now);
        self.pairs.insert(path, entry);
    }

    /// Whether another pair may be entered. If there are too many, the one that has longest to wait
    /// makes room: it stays in the directory, and a later scan finds it. So a sender cannot keep
    /// others out by leaving thousands of files that nothing can be done about.
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

    /// Lets go of pairs that may wait for ever: those held for what they are themselves, and
    /// signatures without their files. They stay in the directory for a later scan. Otherwise a
    /// sender could fill all places with them, and nothing that is valid would be delivered any
    /// more.
    pub(crate) fn make_room(&mut self) {
        let Self { pairs, timers, overflowed, once, .. } = self;
        if *once {
            return; // it lists them at its end
        }
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
