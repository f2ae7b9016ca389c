//! Limits which pairs are kept in memory. The rest stays in the directory, which is the queue
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
            is_hinted: false,
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
        self.pairs.insert(path, entry);
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

    /// Evicts pairs that may wait for ever: those held for a reason of their own, and signatures
    /// without payloads. A later scan finds them in the directory. Otherwise a sender could fill
    /// the memory with them and block all valid pairs.
    pub(crate) fn make_room(&mut self) {
        let Self { pairs, timers, overflowed, once, .. } = self;
        if *once {
            return; // `--once` lists them at its end
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
