//! Scans: the truth about what lies in the directory, and about which directory it is.
//!
//! A scan goes a few hundred names at a time, and between them the driver does everything else it has to do.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use crate::chain;
use crate::clock::Moment;
use crate::daemon::hold::Hold;
use crate::daemon::pipeline::{Refusal, Site, sibling};
use crate::daemon::status::EventFault;
use crate::daemon::summary::Left;
use crate::daemon::worker::look::{is_decided, look};
use crate::daemon::worker::{MAX_PAIRS, POLL, REATTACH, Worker, jitter, set_timer};
use crate::escape::{Escaped, quoted};
use crate::fs::trust::TrustError;
use crate::fs::{Dir, FsError, Kind, RelPath, root};
use crate::kms::Kms;
use crate::settle::PairVersion;
use crate::sink::directory::{exchange, removal};
use crate::source::directory::scan;
use crate::source::directory::scan::{Meaning, Walk};
use crate::state::{Remembered, State, StateError};

/// Names read, and paths asked of state, at a time.
const LOOKUP: usize = 512;
/// Time between reconcile scans where hints arrive, before jitter.
const RECONCILE: Duration = Duration::from_secs(5 * 60);
/// In `--once` there is no other scan: the names present at the start are taken.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// The shortest pause between two scans. Longer ones take as long a pause as they took, so that a sender who
/// causes scans without end has at most half of this rule's time.
const SCAN_PAUSE: Duration = Duration::from_millis(200);
/// Time between looks for decisions about files that are gone.
const PRUNE: Duration = Duration::from_secs(60 * 60);

/// A scan under way.
pub(crate) struct Scan {
    walk: Walk,
    began: Moment,
    /// Names that a killed process of an earlier version left are seen to on the way.
    sweeps: bool,
    /// Every directory could be read so far.
    all_seen: bool,
    /// Pairs come upon so far.
    seen: usize,
    /// Whose turn it is, where there were too few places last time. The others come in a second round.
    turn: Option<Turn>,
    /// Whether it is the others' turn.
    is_second_round: bool,
    /// Pairs that may wait have been let go to make room.
    made_room: bool,
}

/// Who gets a place first where there are too few: each time as many others as there are places. Otherwise the first names
/// in the directory would get them every time, and the last never. Goes by the name alone: where it comes in the directory
/// changes with every signature that is put there.
struct Turn {
    hashes: RandomState,
    /// The highest hash that is in.
    last: u64,
}

impl Turn {
    /// For so many names.
    fn new(names: usize) -> Self {
        let share = u128::from(u64::MAX) * MAX_PAIRS as u128 / names.max(MAX_PAIRS) as u128;
        Self { hashes: RandomState::new(), last: u64::try_from(share).unwrap_or(u64::MAX) }
    }

    fn is_of(&self, path: &RelPath) -> bool {
        self.hashes.hash_one(path) <= self.last
    }
}

impl<K: Kms> Worker<K> {
    /// Begins to walk the directory.
    pub(crate) fn begin_scan(&mut self, now: Moment) {
        let Some(site) = self.site.clone() else { return };
        if self.has_moved(&site) {
            return;
        }
        if self.hints.is_none() && !self.once {
            self.hints = self.new_hints();
        }
        let turn = std::mem::take(&mut self.overflowed).then(|| Turn::new(self.last_seen));
        self.next_scan = now + NEVER; // what asks for another one from here on is about what this one may miss
        self.scan = Some(Scan {
            walk: Walk::new(&self.rule),
            began: now,
            sweeps: std::mem::take(&mut self.unswept) && !self.line.dry_run,
            all_seen: true,
            seen: 0,
            turn,
            is_second_round: false,
            made_room: false,
        });
    }

    /// Takes the scan a few names on: enters what is not dealt with, ends it when there are no more. Everything else
    /// has its turn in between, however many files a sender puts there.
    pub(crate) async fn scan_on(&mut self) {
        let (Some(mut scan), Some(site)) = (self.scan.take(), self.site.clone()) else { return };
        let mut unwatched = None;
        let read = self.beat.at_disk(|| {
            scan.walk.next(&site.root, LOOKUP, |below| {
                if scan.is_second_round {
                    return;
                }
                if let Some(hints) = &mut self.hints
                    && let Err(e) = hints.watch(&site.root.path().join(below))
                {
                    unwatched.get_or_insert(e);
                }
            })
        });
        if let Some(error) = unwatched {
            tracing::error!(rule = self.rule.name, %error, "not all directories are watched; scanning often instead");
            self.hints = None;
            self.deaf = Some(EventFault::Refused(error.to_string()));
        }
        if read.is_ok() {
            self.say_ready(); // the root is watched; what the scan comes upon takes as long as it takes
        }
        match read {
            Err(error) => self.detach(&error),
            Ok(Some(batch)) => {
                self.take_batch(&site, &mut scan, batch).await;
                self.scan = Some(scan);
            }
            Ok(None) if scan.turn.is_some() && !scan.is_second_round && self.pairs.len() < MAX_PAIRS => {
                self.last_seen = scan.seen;
                scan.is_second_round = true;
                scan.seen = 0;
                scan.walk = Walk::new(&self.rule);
                self.scan = Some(scan);
            }
            Ok(None) => {
                self.end_scan(&site, &scan);
                self.sum_up(false).await;
            }
        }
    }

    async fn take_batch(&mut self, site: &Arc<Site>, scan: &mut Scan, mut batch: scan::Batch) {
        let now = self.line.clock.now();
        scan.all_seen &= batch.failed.is_empty();
        if !scan.is_second_round {
            for error in batch.failed {
                let error = Hold::Fs(error);
                if site.may_tell(now) {
                    tracing::warn!(rule = self.rule.name, %error, "directory skipped");
                }
                if self.once {
                    self.summary.left(Left { path: None, why: error.to_string() });
                }
            }
            let strays = self.foreign(batch.strays).await;
            let strays = strays.into_iter().map(|path| (path, scan::Unsignable::Stray));
            self.refuse_names(site, batch.unsignable.into_iter().chain(strays).collect()).await;
        }
        if site.private.is_locked() && !scan.is_second_round {
            for path in self.adopt(site, batch.moved) {
                // The walk may have been there already.
                if let Meaning::Pair(path) = scan::meaning(&self.rule, path.parent(), path.name()) {
                    batch.pairs.insert(path);
                }
            }
            if scan.sweeps {
                self.dissolve(site, batch.stand_ins).await;
            }
        }
        let mut new = Vec::new();
        for path in batch.pairs {
            scan.seen += 1;
            if let Some(slot) = self.pairs.get_mut(&path) {
                // One that is being tried is compared with what was tried at its end.
                if !slot.running && !scan.is_second_round {
                    set_timer(&mut self.timers, slot, &path, now);
                }
            } else if scan.turn.as_ref().is_none_or(|turn| turn.is_of(&path) != scan.is_second_round) {
                new.push(path);
            }
        }
        if self.pairs.len() + new.len() > MAX_PAIRS && !std::mem::replace(&mut scan.made_room, true) {
            self.make_room();
        }
        if self.pairs.len() < MAX_PAIRS {
            self.enter_unless_known(site, new, now).await;
        } else {
            self.overflowed |= !new.is_empty();
        }
    }

    fn end_scan(&mut self, site: &Arc<Site>, scan: &Scan) {
        site.tell_untold(self.line.clock.now());
        if std::mem::replace(&mut self.capped, scan.walk.capped) != scan.walk.capped && self.capped {
            tracing::error!(
                rule = self.rule.name,
                "too many or too deep directories; the rest is not watched"
            );
        }
        if !scan.is_second_round {
            self.last_seen = scan.seen;
            self.overflowed |= scan.turn.is_some(); // the others had none
        }
        if site.private.is_locked() {
            // Claims that cannot be listed were told when the rule attached, or are when it attaches again.
            let waiting = self.beat.at_disk(|| removal::bring_back(&site.private)).unwrap_or_default();
            let count = waiting.count;
            if count > std::mem::replace(&mut self.sheltered, waiting).count {
                tracing::warn!(
                    rule = self.rule.name,
                    count,
                    "files wait in .kms-sig until they can go back to their names"
                );
            }
        }
        let ended = self.line.clock.now();
        self.is_first_scan = false;
        self.last_scan = Some(ended);
        self.last_scan_took = ended.saturating_sub(scan.began);
        self.rule_status.count_scan(self.last_scan_took);
        self.send_cookie(ended);
        if self.hints.is_some() && self.deaf != Some(EventFault::Silent) {
            self.deaf = (!scan.all_seen).then_some(EventFault::Unseen);
        }
        let listening = self.hints.is_some() && !site.is_remote && self.deaf.is_none();
        let pause = match (self.once, listening) {
            (true, _) => NEVER,
            (false, true) => jitter::jittered(RECONCILE),
            (false, false) => POLL,
        };
        self.soonest_scan = ended + ended.saturating_sub(scan.began).max(SCAN_PAUSE);
        self.next_scan = self.next_scan.max(self.soonest_scan).min(ended + pause);
        self.prune(site, ended);
    }

    /// Finishes what lies in private folders of ours that somebody has moved, and takes them away. Returns the names of
    /// what may be at its place again.
    fn adopt(&mut self, site: &Site, moved: Vec<RelPath>) -> Vec<RelPath> {
        let mut back = Vec::new();
        for path in moved {
            let folder = Escaped::new(path.as_path()).to_string();
            match self.beat.at_disk(|| removal::adopt(&site.private, &path)) {
                Ok(Some(paths)) => {
                    back.extend(paths);
                    tracing::warn!(
                        rule = self.rule.name,
                        folder,
                        "the daemon's own folder was moved there; what lay in it is finished"
                    );
                }
                Ok(None) => {} // somebody works in it; the next scan
                Err(error) => {
                    let error = chain::one_line(&error);
                    tracing::warn!(
                        rule = self.rule.name,
                        folder,
                        error,
                        "the daemon's own folder was moved there"
                    );
                }
            }
        }
        back
    }

    /// Sees to stand-in names, which nobody makes any more. Ours are known by what state says of their content.
    async fn dissolve(&mut self, site: &Site, stand_ins: Vec<RelPath>) {
        for path in stand_ins {
            let digest = self.beat.at_disk(|| exchange::digest_of_stand_in(&site.private, &path));
            let ours = match digest {
                None => None,
                Some(digest) => {
                    let asked = self.line.state.knows_signature(&self.rule.name, &digest);
                    match self.beat.at_state(asked).await {
                        Ok(is_known) => Some(digest).filter(|_| is_known),
                        Err(_) => continue, // what state cannot tell now it tells at the next start
                    }
                }
            };
            let done = self.beat.at_disk(|| exchange::dissolve(&site.private, &path, ours.as_ref()));
            let (file, is_ours) = (Escaped::new(path.as_path()).to_string(), ours.is_some());
            match done.map_err(|error| chain::one_line(&error)) {
                Ok(()) if is_ours => {}
                Ok(()) => tracing::warn!(
                    rule = self.rule.name,
                    file,
                    "an earlier version had kept somebody's file there; it is now kms-sig-recovered-… beside it"
                ),
                Err(error) => {
                    tracing::warn!(rule = self.rule.name, file, error, "left by an earlier version")
                }
            }
        }
    }

    /// Enters the paths whose present versions state has no final decision about.
    pub(crate) async fn enter_unless_known(&mut self, site: &Site, paths: Vec<RelPath>, now: Moment) {
        let asked = self.line.state.remembered_all(&self.rule.name, paths.clone());
        let remembered = match self.beat.at_state(asked).await {
            Ok(remembered) => remembered,
            Err(error) => {
                tracing::error!(rule = self.rule.name, %error, "state cannot be read");
                paths.into_iter().map(|path| (path, None)).collect()
            }
        };
        for (path, row) in remembered {
            if let Some(row) = row
                && let Ok(look) = self.beat.at_disk(|| look(site, &path))
                && is_decided(site, &row, &look, self.line.dry_run)
            {
                if self.is_first_scan {
                    self.summary.already(row.outcome, row.reason.as_ref(), &path);
                }
                continue;
            }
            if self.pairs.len() >= MAX_PAIRS {
                self.overflowed = true; // what is in hand goes before what was left lying
                continue;
            }
            self.enter(path, now);
        }
    }

    /// The signatures, by their own names, of payloads that are gone, but for those that this rule has made or adopted.
    async fn foreign(&self, payloads: Vec<RelPath>) -> Vec<RelPath> {
        if payloads.is_empty() {
            return Vec::new();
        }
        // What state cannot tell is found by the next scan.
        let rows = self.line.state.remembered_all(&self.rule.name, payloads).await.unwrap_or_default();
        let is_ours = |row: &Remembered| row.outcome.is_signed_in_place();
        let foreign = rows.into_iter().filter(|(_, row)| !row.as_ref().is_some_and(is_ours));
        foreign.filter_map(|(path, _)| RelPath::new(sibling(&path))).collect()
    }

    /// Refuses names that can have no signature, once for each version of the file.
    async fn refuse_names(&mut self, site: &Site, names: Vec<(RelPath, scan::Unsignable)>) {
        let mut refusals = Vec::new();
        for (path, why) in names {
            let stat = self.beat.at_disk(|| site.root.descend(path.parent())?.stat_of(path.name()));
            let Ok(Some(stat)) = stat else { continue };
            if stat.kind != Kind::Directory {
                let sight = PairVersion { payload: Some(stat.identity), signature: None };
                refusals.push(Refusal { path, sight, reason: why.into() });
            }
        }
        self.refuse(site, refusals).await;
    }

    /// Whether another directory stands at the rule's path by now, or at that of its destination. Then the old ones are
    /// let go.
    pub(crate) fn has_moved(&mut self, site: &Site) -> bool {
        // The same way as when it was attached: what stands above it may have changed hands as well.
        let (now, then) = self
            .beat
            .at_disk(|| (root::open(&self.rule.path).map(|dir| dir.stat().ok()), site.root.stat().ok()));
        let now = match now {
            Ok(now) => now,
            Err(TrustError::Missing(_)) => None,
            Err(error) => {
                self.let_go();
                self.cannot_work(&error, self.line.clock.now());
                return true;
            }
        };
        let same = match (now, then) {
            (Some(now), Some(then)) => now.is_same_place(&then),
            _ => false,
        };
        if !same {
            tracing::error!(
                rule = self.rule.name,
                path = %quoted(&self.rule.path),
                "the watched directory was replaced or removed; holding until it is there"
            );
            self.let_go();
            self.attach_told = Some("the watched directory was replaced or removed".to_owned());
            return true;
        }
        // One that cannot be looked at shows at the next file.
        let is_there = |dir: &Dir| self.beat.at_disk(|| dir.is_at_its_path().unwrap_or(true));
        let Some(moved) = site.destination.as_ref().filter(|dir| !is_there(dir)) else { return false };
        tracing::error!(
            rule = self.rule.name,
            path = %quoted(moved.path()),
            "the destination was replaced or removed; holding until it is there"
        );
        self.let_go();
        self.attach_told = Some("the destination was replaced or removed".to_owned());
        true
    }

    pub(crate) fn detach(&mut self, error: &FsError) {
        tracing::error!(rule = self.rule.name, error = %Hold::Fs(error.clone()), "the watched directory cannot be read");
        self.let_go();
        // It could be opened and not read, and may be so again at once.
        self.next_attach = self.line.clock.now() + REATTACH;
        self.attach_told = Some(Hold::Fs(error.clone()).to_string());
    }

    pub(crate) fn let_go(&mut self) {
        self.site = None;
        self.scan = None;
        self.attachment += 1;
        self.hints = None;
        self.cookie_due = None;
        self.timers.clear();
        self.ready.clear();
        self.pairs.clear();
        self.next_attach = self.line.clock.now();
    }

    /// Has state forget files that are gone, now and then; and sooner where a sender makes many that are refused, under
    /// ever new names.
    pub(crate) fn prune(&mut self, site: &Arc<Site>, now: Moment) {
        if (now < self.next_prune && self.refused < MAX_PAIRS) || self.line.dry_run {
            return;
        }
        self.refused = 0;
        self.next_prune = now + PRUNE;
        let (line, site, rule) = (Arc::clone(&self.line), Arc::clone(site), Arc::clone(&self.rule));
        self.chores.spawn(async move {
            if let Err(error) = forget_gone(&line.state, site).await {
                tracing::warn!(rule = rule.name, %error, "state was not tidied");
            }
        });
    }
}

/// Has state forget the decisions about files that are gone. Looks for them here and not on state's thread, which all
/// rules wait for: a file server that does not answer is its own rule's trouble.
async fn forget_gone(state: &State, site: Arc<Site>) -> Result<(), StateError> {
    let mut last = Vec::new();
    loop {
        let page = state.decided_after(&site.rule.name, &last).await?;
        let Some((path, _)) = page.last() else { return Ok(()) };
        last = path.clone();
        let here = Arc::clone(&site);
        let gone = tokio::task::spawn_blocking(move || {
            page.into_iter().filter(|(path, _)| is_gone(&here, path)).collect()
        });
        let Ok(gone) = gone.await else { return Ok(()) }; // the runtime is going down
        state.forget(&site.rule.name, gone).await?;
    }
}

fn is_gone(site: &Site, path: &[u8]) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    let Some(path) = RelPath::new(std::ffi::OsStr::from_bytes(path)) else { return true };
    // What cannot be looked at now is not known to be gone.
    look(site, &path).is_ok_and(|look| look.sight == PairVersion::default())
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
