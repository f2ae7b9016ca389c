//! Hints: what the kernel says may have changed, and whether it still says anything.

use std::path::Path;
use std::time::Duration;

use crate::clock::Moment;
use crate::daemon::status::EventFault;
use crate::daemon::worker::Worker;
use crate::daemon::worker::look::is_directory;
use crate::fs::Staging;
use crate::fs::staging::RESERVED_PREFIX;
use crate::kms::Kms;
use crate::source::directory::hint::Hints;
use crate::source::directory::scan;
use crate::source::directory::scan::Meaning;

/// How long the event of our own file may take.
const COOKIE: Duration = Duration::from_secs(10);
/// How late this rule may be itself to notice that it did not come.
const LATE: Duration = Duration::from_secs(1);

impl<K: Kms> Worker<K> {
    /// Turns hints into pairs to look at now.
    pub(crate) fn take_hints(&mut self, now: Moment) {
        let (Some(hints), Some(site)) = (&self.hints, self.site.clone()) else { return };
        if self.once {
            return;
        }
        let dirty = hints.take();
        if dirty.broken {
            tracing::warn!(rule = self.rule.name, "events were lost; watching anew and scanning");
            self.hints = None;
        }
        if dirty.everything {
            self.scan_soon(now);
        }
        let root = site.root.path().to_owned();
        let cookie = self.line.cookies.as_ref().map(|dir| dir.path().join(&self.rule.name));
        for path in dirty.paths {
            if Some(&path) == cookie.as_ref() {
                self.cookie_due = None;
                if self.deaf == Some(EventFault::Silent) {
                    self.deaf = None;
                }
                continue;
            }
            if path == root {
                self.scan_soon(now); // moved or removed, perhaps: the scan compares
                continue;
            }
            let Ok(below) = path.strip_prefix(&root) else { continue };
            let Some(name) = below.file_name() else { continue };
            if below == Path::new(RESERVED_PREFIX) {
                self.scan_soon(now); // the folder of ours was moved away, or moved back
            }
            match scan::meaning(&self.rule, below.parent().unwrap_or(Path::new("")), name) {
                Meaning::Pair(path) => self.look_soon(path, now),
                Meaning::Unsignable(..) => self.scan_soon(now),
                // Mostly one that was just made. One without its file is the next scan's to find.
                Meaning::Signature(_) | Meaning::Nothing => {}
            }
            // What is in a new directory, and watching it, is the scan's.
            if self.rule.recursive && self.beat.at_disk(|| is_directory(&site, below)) {
                self.scan_soon(now);
            }
        }
    }

    pub(crate) fn new_hints(&mut self) -> Option<Hints> {
        match Hints::new() {
            Ok(hints) => {
                self.watchers += 1;
                if self.watchers > 1 {
                    self.rule_status.count_rebuild();
                }
                Some(hints)
            }
            Err(error) => {
                tracing::error!(rule = self.rule.name, %error, "no events; scanning often instead");
                self.deaf = Some(EventFault::Refused(error.to_string()));
                None
            }
        }
    }

    /// Makes a file of our own appear where the same watcher watches. Its event proves that events arrive (W11).
    pub(crate) fn send_cookie(&mut self, now: Moment) {
        let (Some(hints), Some(dir)) = (&mut self.hints, &self.line.cookies) else { return };
        let name = std::ffi::OsStr::new(&self.rule.name);
        let sent = self.beat.at_disk(|| {
            let make = || Staging::new(dir)?.publish(dir, name).and_then(|_| dir.unlink(name));
            hints.watch_once(dir.path()).is_ok() && make().is_ok()
        });
        // One that could not be made proves nothing; the scans go on.
        self.cookie_due = sent.then_some(now + COOKIE);
    }

    /// Has the watcher prove that it hears, when somebody asked whether the daemon is well: a rule that relies on
    /// events is not if none come. One that does not rely on them has nothing to prove.
    pub(crate) fn prove_hearing(&mut self, now: Moment) {
        let relies = self.site.as_ref().is_some_and(|site| !site.is_remote)
            && self.deaf != Some(EventFault::Silent)
            && !self.once;
        if relies && self.cookie_due.is_none() && self.scan.is_none() {
            self.send_cookie(now);
        }
    }

    /// Builds a new watcher if our own event did not come.
    pub(crate) fn miss_cookie(&mut self, now: Moment) {
        if self.cookie_due.is_some_and(|due| now > due + LATE) {
            // The process stood still (stopped, frozen, its machine paused), and so did the watcher.
            self.cookie_due = Some(now + COOKIE);
        } else if self.cookie_due.is_some_and(|due| now >= due) {
            tracing::error!(
                rule = self.rule.name,
                "events no longer arrive; watching anew and scanning often"
            );
            self.cookie_due = None;
            self.deaf = Some(EventFault::Silent);
            self.hints = None;
            self.next_scan = now;
        }
    }

    pub(crate) fn scan_soon(&mut self, now: Moment) {
        self.next_scan = self.next_scan.min(now.max(self.soonest_scan));
    }
}
