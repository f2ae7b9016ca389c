//! Hints: taking them, and checking that they still arrive.

use crate::clock::Moment;
use crate::daemon::site::Backend;
use crate::daemon::worker::Worker;
use crate::daemon::worker::attempts::HINTED;
use crate::fs::RelPath;
use crate::kms::Kms;
use crate::policy::Mode;
use crate::source::{Feed as _, Hint, Urgency};

impl<K: Kms, B: Backend> Worker<K, B> {
    /// Turns hints into pairs to observe now.
    pub(crate) fn take_hints(&mut self, now: Moment) {
        let Some(feed) = self.feed.as_mut().filter(|_| !self.once) else { return };
        let news = self.heartbeat.at_disk(|| feed.take(now));
        for (path, hint) in news.paths {
            self.look_soon(path.clone(), now);
            self.take_hint(&path, hint, now);
        }
        for path in news.signatures {
            self.signature_changed(path, now);
        }
        match news.scan {
            Some(Urgency::Now) => self.next_scan = now,
            Some(Urgency::Soon) => self.scan_soon(now),
            None => {}
        }
    }

    /// What a hint tells beyond that there is something to look at.
    fn take_hint(&mut self, path: &RelPath, hint: Hint, now: Moment) {
        let Some(entry) = self.pairs.get_mut(path) else { return };
        match hint {
            Hint::Changed => return,
            Hint::Begun | Hint::Closed => entry.pair.written(),
            Hint::MovedIn => {}
        }
        if !self.rule.prompt || entry.running {
            return;
        }
        match (&self.rule.mode, hint) {
            (Mode::Sign(_), Hint::MovedIn) if self.early.take(path, now) => entry.pair.moved_in(),
            (Mode::Verify(_), Hint::MovedIn | Hint::Closed) => entry.hinted = HINTED,
            (Mode::Sign(_) | Mode::Verify(_), _) => {}
        }
    }

    /// Lets the feed prove that events arrive, on each request of the watchdog. Only for a rule
    /// that relies on events: without them it is not healthy.
    pub(crate) fn probe_events(&mut self, now: Moment) {
        if let Some(feed) = self.feed.as_mut().filter(|_| !self.once) {
            self.heartbeat.at_disk(|| feed.probe_events(now));
        }
    }

    pub(crate) fn scan_soon(&mut self, now: Moment) {
        self.next_scan = self.next_scan.min(now.max(self.soonest_scan));
    }
}
