//! Scans: which files are in the directory, and whether it is still the same directory.
//!
//! A scan reads a few hundred names at a time; in between the worker handles everything else. While
//! there is no room for more, it waits where it is.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Moment;
use crate::daemon::pipeline::sign::is_recent;
use crate::daemon::pipeline::{Facts, Refusal};
use crate::daemon::site::decided::{is_decided, is_stray};
use crate::daemon::site::{Backend, Site};
use crate::daemon::summary::Left;
use crate::daemon::worker::turn::{LOOKUP, Scan};
use crate::daemon::worker::{MAX_PAIRS, Worker, jitter, set_timer};
use crate::fs::RelPath;
use crate::hold::Hold;
use crate::kms::Kms;
use crate::message::log;
use crate::settle::PairVersion;
use crate::sink::Sink as _;
use crate::source::directory::scan::{Meaning, meaning};
use crate::source::{Batch, Feed as _, POLL, Source, Version as _};
use crate::state::reason::RefusalReason;
use crate::state::{State, StateError};

/// A batch of scan results of a backend.
type BatchOf<B> = Batch<<<B as Backend>::Source as Source>::Leftover>;

/// Signatures without their files that are remembered of a scan.
const MAX_ORPHANS: usize = 1_000;

/// Time between reconcile scans where hints arrive, before jitter.
const RECONCILE: Duration = Duration::from_secs(5 * 60);

/// In `--once` there is no other scan: the names present at the start are taken.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// The shortest pause between two scans. After a longer scan the pause is as long as the scan, so
/// that a sender who causes endless scans takes at most half of this rule's time.
const SCAN_PAUSE: Duration = Duration::from_millis(200);

/// Time between two looks, while a scan waits for room, whether the directory is still the one that
/// the policy names.
const CHECK: Duration = Duration::from_secs(1);

/// Time between looks for decisions about files that are gone.
const PRUNE: Duration = Duration::from_secs(60 * 60);

impl<K: Kms, B: Backend> Worker<K, B> {
    /// Begins to walk the directory.
    pub(crate) fn begin_scan(&mut self, now: Moment) {
        let Some(site) = self.site.clone() else { return };
        if self.has_moved(&site) {
            return;
        }
        if let Some(feed) = &mut self.feed {
            feed.begin();
            let watchers_built = feed.watchers_built();
            self.watchers_built += watchers_built;
            if watchers_built > 0 && self.watchers_built > 1 {
                self.rule_status.count_rebuild();
            }
        }
        self.overflowed = false;
        self.next_scan = now + NEVER; // a request from now on is about changes that this scan may miss
        self.scan = Some(Scan::new(now));
    }

    /// When a scan that waits for room is to be looked at, if there is one.
    pub(crate) fn paused_until(&self) -> Option<Moment> {
        self.scan.as_ref().filter(|scan| scan.paused.is_some()).map(|scan| scan.checked + CHECK)
    }

    /// Looks after a scan that waits for room: whether the directory is still the same. Asked for
    /// another one, it begins anew now and then: what is decided meanwhile is passed quickly, and
    /// what the request was about (a new directory, lost events) must not wait for the end of a
    /// backlog.
    fn mind_paused(&mut self, site: &Site<B>, mut scan: Scan, now: Moment) {
        if now < scan.checked + CHECK {
            self.scan = Some(scan);
        } else if now >= self.next_scan && now >= scan.began + RECONCILE {
            self.begin_scan(now);
        } else if !self.has_moved(site) {
            scan.checked = now;
            self.scan = Some(scan);
        }
    }

    /// Continues the scan by a few names, if there is room for them: enters pairs that are not
    /// decided, and ends the scan when there are no more names.
    pub(crate) async fn scan_on(&mut self, now: Moment) {
        let (Some(mut scan), Some(site)) = (self.scan.take(), self.site.clone()) else { return };
        if !self.scan_has_room(&mut scan, now) {
            scan.pause(now);
            self.mind_paused(&site, scan, now);
            return;
        }
        scan.resume(now);
        let Some(feed) = &mut self.feed else { return };
        let read = self.heartbeat.at_source(feed.next(LOOKUP)).await;
        if read.is_ok() {
            self.say_ready(); // the root is watched; readiness does not wait for the files
        }
        match read {
            Err(error) => self.detach(&error),
            Ok(Some(batch)) => {
                self.take_batch(&site, &mut scan, batch).await;
                self.scan = Some(scan);
            }
            Ok(None) => {
                self.end_scan(&site, &scan).await;
                let (count, orphans) = scan.orphans;
                self.see_to_orphans(&site, count, orphans).await;
                self.sum_up(false).await;
            }
        }
    }

    async fn take_batch(&mut self, site: &Arc<Site<B>>, scan: &mut Scan, mut batch: BatchOf<B>) {
        let now = self.pipeline.clock.now();
        for error in batch.failed {
            let error = Hold::Fs(error);
            if site.may_log(now) {
                log!(DirectorySkipped, rule = self.rule.name, %error);
            }
            if self.once {
                self.summary.left(Left { path: None, why: error.to_string() });
            }
        }
        let (strays, orphans) = self.foreign(site, batch.strays).await;
        scan.orphans.0 += orphans.len();
        let room = MAX_ORPHANS.saturating_sub(scan.orphans.1.len());
        scan.orphans.1.extend(orphans.into_iter().take(room));
        let strays = strays.into_iter().map(|path| (path, RefusalReason::StraySignature));
        self.refuse_names(site, batch.unsignable.into_iter().chain(strays).collect()).await;
        let tidied = site.sink.tidy(batch.leftovers, &self.pipeline.state);
        for path in self.heartbeat.at_source(tidied).await {
            // The walk may have passed this name already.
            if let Meaning::Pair(path) = meaning(&self.rule, path.parent(), path.name()) {
                batch.pairs.insert(path);
            }
        }
        let mut new = Vec::new();
        for path in batch.pairs {
            if let Some(entry) = self.pairs.get_mut(&path) {
                // A running attempt compares the versions at its end.
                if !entry.running {
                    set_timer(&mut self.timers, entry, &path, now);
                }
            } else {
                new.push(path);
            }
        }
        let asked = new.len();
        let known = self.enter_unless_known(site, new, scan.is_known, now).await;
        scan.is_known = 2 * known > asked;
    }

    async fn end_scan(&mut self, site: &Arc<Site<B>>, scan: &Scan) {
        site.log_suppressed(self.pipeline.clock.now());
        let waiting = self.heartbeat.at_source(site.sink.bring_back()).await;
        let count = waiting.count;
        if count > std::mem::replace(&mut self.name_taken, waiting).count {
            log!(RestorePending, rule = self.rule.name, count);
        }
        let ended = self.pipeline.clock.now();
        self.is_first_scan = false;
        self.last_scan = Some(ended);
        self.last_scan_took = scan.took(ended);
        self.rule_status.count_scan(self.last_scan_took);
        let mut listening = false;
        if let Some(feed) = &mut self.feed {
            let capped = self.heartbeat.at_disk(|| feed.end(ended));
            listening = feed.fault().is_none();
            if std::mem::replace(&mut self.capped, capped) != capped && capped {
                log!(TooManyDirectories, rule = self.rule.name);
            }
        }
        let pause = match (self.once, listening) {
            (true, _) => NEVER,
            (false, true) => jitter::jittered(RECONCILE),
            (false, false) => POLL,
        };
        self.soonest_scan = ended + self.last_scan_took.max(SCAN_PAUSE);
        self.next_scan = self.next_scan.max(self.soonest_scan).min(ended + pause);
        self.prune(site, ended);
        self.forget_unrefused(site);
    }

    /// Enters the paths whose present versions state has no final decision about. Returns how many
    /// it has one about. `is_known`: of most of them, as it seems.
    pub(crate) async fn enter_unless_known(
        &mut self,
        site: &Site<B>,
        paths: Vec<RelPath>,
        is_known: bool,
        now: Moment,
    ) -> usize {
        let (state, rule) = (self.pipeline.state.clone(), Arc::clone(&self.rule));
        let asked = state.remembered_all(&rule.name, paths.clone());
        tokio::pin!(asked);
        let (mut answer, mut observed) = (None, None);
        if is_known {
            // State has a thread of its own: it answers while the files are looked at.
            answer = tokio::select! {
                biased;
                answer = &mut asked => Some(answer),
                () = std::future::ready(()) => None,
            };
            observed = Some(self.heartbeat.at_source(site.source.observe_all(&paths)).await);
        }
        let answer = match answer {
            Some(answer) => answer,
            None => self.heartbeat.at_state(asked).await,
        };
        let rows = match answer {
            Ok(remembered) => remembered.into_iter().map(|(_, row)| row).collect(),
            Err(error) => {
                log!(StateUnreadable, rule = self.rule.name, %error);
                vec![None; paths.len()]
            }
        };
        let observed = match observed {
            Some(observed) => observed.into_iter().map(Some).collect(),
            None => paths.iter().map(|_| None).collect::<Vec<_>>(),
        };
        let mut known = 0;
        for ((path, row), observed) in paths.into_iter().zip(rows).zip(observed) {
            if let Some(row) = row
                && let Ok(observed) = match observed {
                    Some(observed) => observed,
                    None => self.heartbeat.at_source(site.source.observe(&path)).await,
                }
                && is_decided(site, &row, &observed, self.pipeline.dry_run)
            {
                known += 1;
                if self.is_first_scan {
                    self.summary.already(row.outcome, row.reason.as_ref(), &path);
                }
                self.rechecks.refused(&path, row.reason.as_ref(), now);
                continue;
            }
            if self.pairs.len() >= MAX_PAIRS {
                self.overflowed = true; // pairs in memory go before new ones
                continue;
            }
            self.enter(path, now);
        }
        known
    }

    /// Signature files of payloads that are gone, except those that this rule made or adopted, and
    /// those that came just now: their payloads may follow. And the payloads of what it made.
    async fn foreign(&self, site: &Site<B>, payloads: Vec<RelPath>) -> (Vec<RelPath>, Vec<RelPath>) {
        if payloads.is_empty() {
            return (Vec::new(), Vec::new());
        }
        // If state cannot be read, the next scan finds them.
        let rows = self.pipeline.state.remembered_all(&self.rule.name, payloads).await.unwrap_or_default();
        let (mut foreign, mut ours) = (Vec::new(), Vec::new());
        for (path, row) in rows {
            if !is_stray(row.as_ref()) {
                ours.push(path);
                continue;
            }
            let observed = self.heartbeat.at_source(site.source.observe(&path)).await;
            match observed.ok().and_then(|observed| observed.versions.signature) {
                Some(signature) if is_recent(&signature) && !self.is_first_scan => {
                    site.lone_signatures().note(&signature.stored(), path);
                }
                Some(_) | None => foreign.extend(self.rule.signature_path(&path)),
            }
        }
        (foreign, ours)
    }

    /// Refuses payloads whose names allow no signature, once for each version.
    async fn refuse_names(&mut self, site: &Site<B>, names: Vec<(RelPath, RefusalReason)>) {
        let mut refusals = Vec::new();
        for (path, reason) in names {
            if let Ok(Some(version)) = self.heartbeat.at_source(site.source.version_of(&path)).await {
                let versions = PairVersion::of_payload(version);
                refusals.push(Refusal { path, versions, reason, facts: Facts::default() });
            }
        }
        self.refuse(site, refusals).await;
    }

    /// Prunes decisions about files that are gone, once an hour; sooner if a sender causes many
    /// refusals under new names.
    pub(crate) fn prune(&mut self, site: &Arc<Site<B>>, now: Moment) {
        if (now < self.next_prune && self.refused < MAX_PAIRS) || self.pipeline.dry_run {
            return;
        }
        self.refused = 0;
        self.next_prune = now + PRUNE;
        let (pipeline, site, rule) = (Arc::clone(&self.pipeline), Arc::clone(site), Arc::clone(&self.rule));
        self.background.spawn(async move {
            if let Err(error) = forget_gone(&pipeline.state, &site).await {
                log!(StateNotPruned, rule = rule.name, %error);
            }
        });
    }
}

/// Prunes decisions about files that are gone. Observes the files here and not on the state thread,
/// which all rules share: a file server that does not answer must block only its own rule.
async fn forget_gone<B: Backend>(state: &State, site: &Site<B>) -> Result<(), StateError> {
    let mut last = Vec::new();
    loop {
        let page = state.decided_after(&site.rule.name, &last).await?;
        let Some((path, _)) = page.last() else { return Ok(()) };
        last = path.clone();
        let mut gone = Vec::new();
        for (path, version) in page {
            if is_gone(site, &path).await {
                gone.push((path, version));
            }
        }
        state.forget(&site.rule.name, gone).await?;
    }
}

async fn is_gone<B: Backend>(site: &Site<B>, path: &[u8]) -> bool {
    let Some(path) = RelPath::new(OsStr::from_bytes(path)) else { return true };
    // A file that cannot be observed may still be there.
    site.source.observe(&path).await.is_ok_and(|observed| observed.versions == PairVersion::NONE)
}
