//! Attaching to a rule's source and sink, and detaching.
//!
//! A failure here holds the rule, not the daemon: attaching is repeated, and the reason logged when
//! it changes.

use std::sync::Arc;

use crate::clock::Moment;
use crate::daemon::site::{Backend, Detached, Role, Site, Unattached};
use crate::daemon::worker::recheck::Rechecks;
use crate::daemon::worker::standing::Standing;
use crate::daemon::worker::{REATTACH, Worker};
use crate::escape::quoted;
use crate::fair::FairQueue;
use crate::fs::FsError;
use crate::hold::Hold;
use crate::kms::Kms;
use crate::message::log;
use crate::source::Source as _;

impl<K: Kms, B: Backend> Worker<K, B> {
    /// Attaches, or logs why not and sets the time of the next attempt.
    pub(crate) fn attach(&mut self, now: Moment) {
        match self.heartbeat.at_disk(|| self.backend.attach(&self.rule)) {
            Ok(mut site) => {
                if self.attach_error.take().is_some() {
                    log!(DirectoriesAvailable, rule = self.rule.name);
                }
                self.feed = Some(site.source.feed(!self.once));
                site.refusals = Arc::clone(&self.refusals);
                self.site = Some(Arc::new(site));
                self.next_scan = now;
            }
            Err(Unattached::WouldCreate(path)) => {
                log!(DryRunCreate, rule = self.rule.name, path = %quoted(&path));
                self.next_attach = now + REATTACH;
            }
            Err(Unattached::Held(reason)) => self.cannot_work(reason, now),
        }
    }

    /// Logs why the rule cannot work, if the reason is new, and sets the time of the next attempt.
    fn cannot_work(&mut self, reason: String, now: Moment) {
        if self.attach_error.as_ref() != Some(&reason) {
            log!(RuleHeld, rule = self.rule.name, reason);
            self.attach_error = Some(reason);
        }
        self.next_attach = now + REATTACH;
    }

    /// Whether the rule's directories were replaced. Detaches if so.
    pub(crate) fn has_moved(&mut self, site: &Site<B>) -> bool {
        let detached = match self.heartbeat.at_disk(|| self.backend.check(site)) {
            Ok(()) => return false,
            Err(detached) => detached,
        };
        self.let_go();
        let what = match detached {
            Detached::Held(reason) => {
                self.cannot_work(reason, self.pipeline.clock.now());
                return true;
            }
            Detached::Replaced(Role::Source, path) => {
                log!(WatchedDirectoryReplaced, rule = self.rule.name, path = %quoted(&path));
                "the watched directory was replaced or removed"
            }
            Detached::Replaced(Role::Destination, path) => {
                log!(DestinationReplaced, rule = self.rule.name, path = %quoted(&path));
                "the destination was replaced or removed"
            }
        };
        self.attach_error = Some(what.to_owned());
        true
    }

    pub(crate) fn detach(&mut self, error: &FsError) {
        let error = Hold::Fs(error.clone()).to_string();
        log!(WatchedDirectoryUnreadable, rule = self.rule.name, error);
        self.let_go();
        // It could be opened but not read; attaching at once might loop.
        self.next_attach = self.pipeline.clock.now() + REATTACH;
        self.attach_error = Some(error);
    }

    fn let_go(&mut self) {
        self.site = None;
        self.scan = None;
        self.attachment += 1;
        self.feed = None;
        self.timers.clear();
        self.ready = FairQueue::default();
        self.pairs.clear();
        self.rechecks = Rechecks::default();
        self.standing = Standing::default();
        self.next_attach = self.pipeline.clock.now();
    }
}
