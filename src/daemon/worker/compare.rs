//! Compares decided files with their decisions, and enters those that are not decided any more.

use std::collections::HashMap;
use std::sync::Arc;

use crate::clock::Moment;
use crate::daemon::site::decided::is_decided;
use crate::daemon::site::{Backend, Site, VersionOf};
use crate::daemon::worker::Worker;
use crate::daemon::worker::recheck::{LAST_PAUSE, SIGNATURES_EACH};
use crate::fs::RelPath;
use crate::hold::Hold;
use crate::kms::Kms;
use crate::source::{Observation, Source as _, Version as _};

impl<K: Kms, B: Backend> Worker<K, B> {
    /// Something happened to the signature of a payload in a sign rule. That may have been this
    /// daemon, or nothing that matters: the decision says so.
    pub(crate) fn signature_changed(&mut self, path: RelPath, now: Moment) {
        if let Some(entry) = self.pairs.get_mut(&path).filter(|entry| entry.running) {
            entry.signature_touched = true;
        } else if !self.rechecks.signature(path) {
            self.scan_soon(now);
        }
    }

    /// Compares files with their decisions, a limited number at a time, and enters those that are
    /// not decided any more.
    pub(crate) async fn recheck(&mut self, now: Moment) {
        let Some(site) = self.site.clone().filter(|_| !self.once) else { return };
        let signatures = self.rechecks.take_signatures(now);
        for (path, observed, is_decided) in self.compare(&site, signatures).await {
            let is_lost = observed.versions.signature.is_none();
            match self.pairs.get(&path).map(|entry| &entry.hold) {
                Some(Some(Hold::WhoseSignature(_))) if is_lost => {
                    if let Some(entry) = self.pairs.get_mut(&path) {
                        entry.pair.retry_now(now);
                    }
                    self.look_soon(path, now);
                }
                Some(_) => {} // its attempt is still to come
                None if is_decided => {}
                // A signature alone: the scan reports it, if it is not just on the way.
                None if observed.versions.payload.is_none() => {
                    if let Some(signature) = &observed.versions.signature {
                        site.lone_signatures().note(&signature.stored(), path);
                    }
                }
                // Where it went to is known by then, if somebody moves the pair and began with it.
                None if is_lost => self.look_soon(path, now + SIGNATURES_EACH),
                None if self.rechecks.may_judge(now) => self.look_soon(path, now),
                None => {}
            }
        }
        let due = self.rechecks.take_refused(now);
        let pauses: HashMap<_, _> = due.iter().cloned().collect();
        let paths = due.into_iter().map(|(path, _)| path).collect();
        for (path, _, is_decided) in self.compare(&site, paths).await {
            match pauses.get(&path) {
                Some(pause) if is_decided => {
                    self.rechecks.pause(path, pause.saturating_mul(2).min(LAST_PAUSE), now);
                }
                Some(_) | None => self.look_soon(path, now),
            }
        }
    }

    /// What lies at each of these paths, and whether that is what was decided.
    async fn compare(
        &mut self,
        site: &Arc<Site<B>>,
        paths: Vec<RelPath>,
    ) -> Vec<(RelPath, Observation<VersionOf<B>>, bool)> {
        if paths.is_empty() {
            return Vec::new();
        }
        // If state cannot be read, the next scan compares.
        let asked = self.pipeline.state.remembered_all(&self.rule.name, paths);
        let rows = self.heartbeat.at_state(asked).await.unwrap_or_default();
        let mut compared = Vec::new();
        for (path, row) in rows {
            let Ok(observed) = self.heartbeat.at_source(site.source.observe(&path)).await else { continue };
            let is_it = row.is_some_and(|row| is_decided(site, &row, &observed, self.pipeline.dry_run));
            compared.push((path, observed, is_it));
        }
        compared
    }
}
