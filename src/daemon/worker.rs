//! The worker of one rule: takes hints and scans, runs attempts, until it is shut down.
//!
//! Each rule has a worker with a watcher of its own, so that a sender who floods one directory
//! delays no other rule. It owns the pairs that are not decided yet, and their timers. It decides
//! nothing: [`Pair`] says when to observe and attempt, [`Pipeline`] what the outcome is.

mod attaching;
mod attempts;
mod backlog;
mod compare;
mod counted;
mod early;
pub(crate) mod jitter;
mod listen;
mod orphans;
mod places;
mod recheck;
mod refused;
mod scanning;
mod standing;
#[cfg(test)]
mod through_memory;
mod turn;
pub(crate) mod wait;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::blocking::ended;
use crate::clock::{self, Moment};
use crate::daemon::ask::Ask;
use crate::daemon::memory;
use crate::daemon::pipeline::{AttemptResult, Known, Pipeline};
use crate::daemon::quota::Refusals;
use crate::daemon::site::{Backend, Site, VersionOf};
use crate::daemon::status::{Now, Refused, Root, RuleStatus};
use crate::daemon::summary::{Left, Summary};
use crate::daemon::watchdog::Heartbeat;
use crate::daemon::worker::counted::Counted;
use crate::daemon::worker::early::EarlyAttempts;
use crate::daemon::worker::recheck::Rechecks;
use crate::daemon::worker::standing::Standing;
use crate::daemon::worker::turn::MAX_PAIRS;
pub(crate) use crate::daemon::worker::wait::waits;
use crate::digest::Digest;
use crate::fair::FairQueue;
use crate::fs::RelPath;
use crate::fs::lease::Writer;
use crate::hold::{Announced, Hold};
use crate::kms::Kms;
use crate::policy::{Mode, Rule};
use crate::settle::{Activity, Pair, PairVersion, Timing, Want};
use crate::sink::{NameTaken, Sink as _};
use crate::source::{Feed, Source, Version};

/// Room for more pairs than this is not kept.
const ROOMY: usize = 1_000;

/// Time between attempts to attach to directories that are not as they should be.
const REATTACH: Duration = Duration::from_secs(5);

/// After how long without a quiet moment a file is reported.
const NEVER_SETTLES: Duration = Duration::from_secs(60 * 60);

/// The shortest time between two changes of what is shown on the status.
const SHOW: Duration = Duration::from_secs(1);

/// The same in `--once`, which somebody may be watching.
const SHOW_ONCE: Duration = Duration::from_millis(200);

/// In `--once`: how often to look whether everything left has had its time.
const ONCE_CHECK: Duration = Duration::from_secs(1);

/// In `--once`: how long a file that nobody is known to work on may take to settle, beyond `settle`
/// itself, before it is left.
const ONCE_PATIENCE: Duration = Duration::from_secs(30);

/// How the supervisor wants a worker to proceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShutdownMode {
    /// Go on.
    Run,
    /// Finish what is in hand, then end.
    Finish,
    /// Abandon what is in hand as a kill would (P4), and end.
    Abandon,
}

/// The worker of one rule.
pub(crate) struct Worker<K, B: Backend> {
    pipeline: Arc<Pipeline<K>>,
    rule: Arc<Rule>,
    timing: Timing,
    once: bool,
    /// The most attempts at the same time.
    max_jobs: usize,
    /// What attaches the rule to its places.
    backend: Arc<B>,
    site: Option<Arc<Site<B>>>,
    /// The hints and scans of the source, while it is attached.
    feed: Option<<B::Source as Source>::Feed>,
    /// Each in a place of its own: a map that grows has room for twice as many.
    pairs: HashMap<RelPath, Box<PairState<VersionOf<B>>>>,
    timers: BTreeSet<(Moment, RelPath)>,
    /// Attempts before files are quiet.
    early: EarlyAttempts,
    /// Decided files that are compared with their decisions again.
    rechecks: Rechecks,
    /// Pairs whose attempts wait for others to end. The owners of their payloads take turns.
    ready: FairQueue<RelPath>,
    /// Attempts under way, each with the attachment that it belongs to.
    jobs: JoinSet<(u64, AttemptResult)>,
    /// Counts attachments: the result of an attempt from an earlier one is about other directories.
    attachment: u64,
    /// Tasks that nothing waits for, except the end.
    background: JoinSet<()>,
    /// The count of what is refused, while it is being made.
    counting: JoinSet<Counted>,
    next_scan: Moment,
    /// The scan under way.
    scan: Option<turn::Scan>,
    /// No scan before this.
    soonest_scan: Moment,
    next_attach: Moment,
    is_first_scan: bool,
    /// The last whole scan left out directories; logged when that changes.
    capped: bool,
    /// The last scan left pairs in the directory for want of room.
    overflowed: bool,
    /// It is logged that reading files changes their times.
    touch_told: bool,
    /// Causes of holds that are logged already.
    announced: Announced,
    /// Why the rule is not attached, as logged.
    attach_error: Option<String>,
    /// Changes when KMS answers again after it did not.
    reopened: watch::Receiver<u64>,
    /// Changes when somebody has made room in quarantine.
    room: Option<watch::Receiver<u64>>,
    /// Files in the private folder that wait until their names are free.
    name_taken: NameTaken,
    /// What was refused of late.
    refusals: Arc<Refusals>,
    /// Files refused since state was last pruned.
    refused: usize,
    /// Files that are refused, by reason, and when that is counted anew, if it may have changed.
    refused_now: BTreeMap<&'static str, Refused>,
    recount: Option<Moment>,
    /// No count before this.
    next_count: Moment,
    /// Paths that have no file any more and may have been refused.
    gone: Vec<RelPath>,
    /// Why nothing more may be published.
    fatal: Option<Hold>,
    next_prune: Moment,
    next_retry: Moment,
    /// How often a watcher was built.
    watchers_built: usize,
    /// Answers the watchdog.
    heartbeat: Heartbeat,
    rule_status: Arc<RuleStatus>,
    /// Requests of the control socket.
    requests: mpsc::Receiver<Ask>,
    /// When the rule status may be changed next, and whether it is out of date.
    next_show: Moment,
    unshown: bool,
    last_scan: Option<Moment>,
    last_scan_took: Duration,
    summary: Summary,
    ready_signal: Option<tokio::sync::oneshot::Sender<()>>,
    /// Signatures of ours without their files.
    standing: Standing,
}

struct PairState<V> {
    pair: Pair<V>,
    timer: Option<Moment>,
    running: bool,
    /// It may have changed during the attempt.
    touched: bool,
    /// In a sign rule, the same of the signature beside it.
    signature_touched: bool,
    /// In a verify rule: how many more looks may show that somebody is done with one of its files,
    /// which a hint told.
    hinted: u8,
    attempts: u32,
    known: Option<Known>,
    /// Whose payload it is, where the source knows.
    owner: Option<u32>,
    hold: Option<Hold>,
    /// Since when it is held, where it is.
    held_since: Moment,
    first_seen: Moment,
    /// What it was when it was read and its times changed meanwhile.
    touched_as: Option<Digest>,
    /// Since when it is seen to have more hard links than it may.
    linked_since: Option<Moment>,
}

/// The waits of a rule.
pub(crate) fn timing(rule: &Rule) -> Timing {
    let (timeout, grace) = match &rule.mode {
        Mode::Sign(_) => (Duration::MAX, None),
        Mode::Verify(verify) => (verify.signature_timeout, verify.grace),
    };
    Timing {
        settle: rule.settle,
        grace_leased: grace.unwrap_or(Duration::from_secs(30)),
        grace_unleased: grace.unwrap_or(Duration::from_secs(10 * 60)),
        signature_timeout: timeout,
        never_settles: NEVER_SETTLES,
    }
}

/// Whether a pair that waits for grace or its signature has been as it is for longer than that, by
/// the source's own clock, and nobody is writing. By this clock go those who look once: `--once`
/// and `explain`.
pub(crate) fn is_old_enough<V: Version>(
    versions: &PairVersion<V>,
    activity: Activity,
    timing: &Timing,
) -> bool {
    let wait = match (&versions.signature, activity.writer) {
        _ if activity.is_busy() => return false,
        (None, _) => timing.signature_timeout,
        (Some(_), Writer::Absent | Writer::Present) => timing.grace_leased,
        (Some(_), Writer::Unknown) => timing.grace_unleased,
    };
    age(versions).is_some_and(|age| age >= wait)
}

/// For how long a pair has been as it is by the source's own clock, if anything is there.
pub(crate) fn age<V: Version>(versions: &PairVersion<V>) -> Option<Duration> {
    let there = [&versions.payload, &versions.signature].into_iter().flatten();
    there.map(|version| clock::age_since(version.changed())).min()
}

/// What a rule wants of its pairs.
pub(crate) const fn want(rule: &Rule) -> Want {
    match rule.mode {
        Mode::Sign(_) => Want::Sign,
        Mode::Verify(_) => Want::Verify,
    }
}

impl<K: Kms, B: Backend> Worker<K, B> {
    /// A worker that has not started. `ready` fires when the watch is up and the first scan under
    /// way, or when they failed for now.
    pub(crate) fn new(
        pipeline: Arc<Pipeline<K>>,
        backend: Arc<B>,
        rule: Arc<Rule>,
        once: bool,
        max_jobs: usize,
        ready: tokio::sync::oneshot::Sender<()>,
    ) -> Self {
        let timing = timing(&rule);
        let now = pipeline.clock.now();
        let rule_status = pipeline.status.rule(&rule.name);
        Self {
            summary: Summary::new(&rule.name, once),
            heartbeat: pipeline.status.watchdog.register(&rule.name),
            requests: rule_status.take_requests(),
            rule_status,
            next_show: now,
            unshown: false,
            last_scan: None,
            last_scan_took: Duration::ZERO,
            reopened: pipeline.kms.reopened(),
            room: backend.room(),
            name_taken: NameTaken::default(),
            refusals: Arc::default(),
            refused: 0,
            refused_now: BTreeMap::new(),
            recount: Some(now),
            next_count: now,
            gone: Vec::new(),
            fatal: None,
            next_prune: now,
            next_retry: now,
            watchers_built: 0,
            pipeline,
            backend,
            rule,
            timing,
            once,
            max_jobs,
            site: None,
            feed: None,
            pairs: HashMap::new(),
            timers: BTreeSet::new(),
            early: EarlyAttempts::new(timing.settle),
            rechecks: Rechecks::default(),
            ready: FairQueue::default(),
            jobs: JoinSet::new(),
            background: JoinSet::new(),
            counting: JoinSet::new(),
            attachment: 0,
            next_scan: now,
            scan: None,
            soonest_scan: now,
            next_attach: now,
            is_first_scan: true,
            capped: false,
            overflowed: false,
            touch_told: false,
            announced: Announced::default(),
            attach_error: None,
            ready_signal: Some(ready),
            standing: Standing::default(),
        }
    }

    /// Runs until `shutdown` says to finish, or with `--once` until everything present at the start
    /// is decided or left. Files in hand are finished, unless they are to be abandoned.
    ///
    /// # Errors
    /// A failure after which nothing may be published: what was to be durable may not be.
    pub(crate) async fn run(mut self, mut shutdown: watch::Receiver<ShutdownMode>) -> Result<Summary, Hold> {
        while *shutdown.borrow() == ShutdownMode::Run && self.fatal.is_none() {
            let now = self.pipeline.clock.now();
            if self.heartbeat.beat() {
                self.probe_events(now);
            }
            if self.site.is_none() && now >= self.next_attach {
                self.attach(now);
            }
            if self.site.is_some() {
                self.take_hints(now);
                if self.overflowed && self.pairs.len() <= MAX_PAIRS / 2 {
                    self.scan_soon(now);
                }
                if self.scan.is_none() && now >= self.next_scan {
                    self.begin_scan(now);
                }
                self.scan_on(now).await;
                self.recheck(now).await;
                self.run_timers(now).await;
                self.count_refused(now);
                self.dispatch().await;
            }
            match self.site {
                None => self.say_ready(),
                Some(_) => self.show(),
            }
            while let Ok(ask) = self.requests.try_recv() {
                self.answer(ask);
            }
            if self.scan.is_some() && self.paused_until().is_none() {
                self.finish_ended();
                while let Some(done) = self.counting.try_join_next() {
                    self.counted(done);
                }
                continue;
            }
            if self.once && self.is_finished() {
                break;
            }
            self.hurry_batch();
            self.give_back_memory();
            self.wait(&mut shutdown).await;
            self.finish_ended();
        }
        if let Some(batcher) = self.site.as_ref().and_then(|site| site.batcher.as_ref()) {
            batcher.close();
        }
        if *shutdown.borrow() != ShutdownMode::Run {
            // Attempts that only queue for hashing are not in hand: a restart begins them again
            // (C17).
            self.pipeline.hashing.close();
            if let Some(own) = self.site.as_ref().and_then(|site| site.hashing.as_ref()) {
                own.close();
            }
            self.pipeline.kms.end_soon();
        }
        // From here on it only waits for what is in hand; the supervisor limits how long.
        self.heartbeat.retire();
        let mut is_abandoned = false;
        let abandoned = async move {
            if shutdown.wait_for(|mode| *mode == ShutdownMode::Abandon).await.is_err() {
                std::future::pending::<()>().await; // the supervisor is gone
            }
        };
        tokio::pin!(abandoned);
        loop {
            tokio::select! {
                biased;
                () = &mut abandoned => {
                    is_abandoned = true;
                    self.jobs.shutdown().await;
                    break;
                }
                done = self.jobs.join_next() => match done {
                    Some(done) => self.finish(done),
                    None => break,
                },
            }
        }
        self.background.shutdown().await; // the next start repeats what is cut short
        self.counting.shutdown().await;
        self.sum_up(true).await;
        if let Some(site) = self.site.take().filter(|_| !is_abandoned) {
            site.sink.end().await;
        }
        match self.fatal.take() {
            Some(fatal) => Err(fatal),
            None => Ok(self.into_summary()),
        }
    }

    /// Handles the results of all attempts that have ended: what an iteration does besides costs as
    /// much for many as for one.
    fn finish_ended(&mut self) {
        while let Some(done) = self.jobs.try_join_next() {
            self.finish(done);
        }
    }

    /// After many files at once, when few are left.
    fn give_back_memory(&mut self) {
        if self.jobs.is_empty() && self.pairs.capacity() > ROOMY && self.pairs.len() < ROOMY / 4 {
            self.pairs.shrink_to_fit();
            self.background.spawn(memory::give_back());
        }
    }

    /// Sleeps until something is due or something happens.
    async fn wait(&mut self, shutdown: &mut watch::Receiver<ShutdownMode>) {
        let attached = self.site.is_some();
        let timer = self.timers.first().map(|(at, _)| *at).filter(|_| attached);
        let scheduled = match (attached, self.paused_until()) {
            (true, Some(until)) => until,
            (true, None) => self.next_scan,
            (false, _) => self.next_attach,
        };
        let check = self.once.then(|| self.pipeline.clock.now() + ONCE_CHECK);
        let show = self.unshown.then_some(self.next_show);
        let feed_due = self.feed.as_ref().and_then(Feed::due);
        let recheck = self.rechecks.due().filter(|_| attached && !self.once);
        let recount = self.recount.filter(|_| attached && self.counting.is_empty());
        let wake = [timer, recheck, recount, feed_due, check, show]
            .into_iter()
            .flatten()
            .fold(scheduled, Moment::min);
        let wake = self.pipeline.clock.instant(wake);
        let hint = async {
            match &self.feed {
                Some(feed) => feed.wait().await,
                None => std::future::pending().await,
            }
        };
        let room = async {
            match &mut self.room {
                Some(room) => room.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = shutdown.changed() => {}
            () = tokio::time::sleep_until(wake) => {}
            () = hint, if !self.once => {}
            () = self.heartbeat.asked() => {}
            Ok(()) = self.reopened.changed() => self.retry_held(),
            Ok(()) = room => self.retry(|hold| matches!(hold, Hold::QuarantineFull { .. })),
            Some(ask) = self.requests.recv() => self.answer(ask),
            Some(done) = self.jobs.join_next() => self.finish(done),
            Some(done) = self.counting.join_next() => self.counted(done),
            Some(done) = self.background.join_next() => {
                ended(done).unwrap_or_default();
                self.recount_soon(); // it may have forgotten some
            }
        }
    }

    /// Says that the first scan is queued, or that it is known why it cannot be.
    fn say_ready(&mut self) {
        self.show();
        self.ready_signal.take().map(|ready| ready.send(()));
    }

    /// Updates the rule's status; not more often than needed, as it counts all pairs.
    fn show(&mut self) {
        let now = self.pipeline.clock.now();
        if now < self.next_show {
            self.unshown = true;
            return;
        }
        self.next_show = now + if self.once { SHOW_ONCE } else { SHOW };
        self.unshown = false;
        let root = match (&self.site, &self.attach_error) {
            (Some(_), _) => match self.feed.as_ref().and_then(Feed::fault) {
                None => Root::Watched,
                Some(why) => Root::Scanned(why),
            },
            (None, Some(why)) => Root::Held(why.clone()),
            (None, None) => Root::Opening,
        };
        let (causes, held, oldest) = self.survey_pairs(now);
        self.rule_status.show(Now {
            root,
            causes,
            waiting: self.pairs.len() + self.name_taken.count,
            held,
            running_attempts: self.jobs.len(),
            oldest,
            braked: self.site.as_ref().is_some_and(|site| site.is_braked()),
            refused: self.refused_now.clone(),
            more: self.has_more(),
            last_scan: self.last_scan,
            last_scan_took: self.last_scan_took,
        });
    }

    fn want(&self) -> Want {
        want(&self.rule)
    }

    /// Whether the directory has files that there was no room for in memory.
    fn has_more(&self) -> bool {
        self.overflowed || self.paused_until().is_some()
    }

    /// Whether `--once` has nothing more to wait for.
    fn is_finished(&self) -> bool {
        if self.site.is_none() {
            return true; // its directory cannot be attached; logged when that failed
        }
        let now = self.pipeline.clock.now();
        let more_wait = self.overflowed && self.pairs.len() < MAX_PAIRS / 2;
        !more_wait
            && self.scan.is_none()
            && self.jobs.is_empty()
            && self.ready.is_empty()
            && self.pairs.values().all(|entry| !entry.running && self.is_late(entry, now))
    }

    /// In `--once`: a batch waits for nobody when all that may still join it have.
    fn hurry_batch(&self) {
        let Some(batcher) = self.site.as_ref().and_then(|site| site.batcher.as_ref()) else { return };
        if !self.once || self.jobs.is_empty() || batcher.waiting() < self.jobs.len() {
            return;
        }
        let now = self.pipeline.clock.now();
        let may_join = |entry: &PairState<VersionOf<B>>| {
            !entry.running && entry.hold.is_none() && !self.is_late(entry, now)
        };
        if self.ready.is_empty() && !self.pairs.values().any(|entry| may_join(entry)) {
            batcher.hurry();
        }
    }

    /// In `--once`: whether a pair is not waited for, or not any more.
    fn is_late(&self, entry: &PairState<VersionOf<B>>, now: Moment) -> bool {
        let Some(timer) = entry.timer else { return true };
        let (settle, since) = (self.timing.settle, entry.pair.since());
        let limit = entry.first_seen + settle.saturating_mul(2).saturating_add(ONCE_PATIENCE);
        // Whoever works on it has his own time. It is looked at once more when it has settled, and
        // when its links are sure: that look may decide it.
        let is_to_be_decided = timer <= since + settle || entry.linked_since.is_some();
        let is_left_to_others = entry.pair.activity().is_busy() && !is_to_be_decided;
        let is_over = now > limit || (is_left_to_others && now > entry.first_seen + settle);
        entry.hold.is_none() && is_over
    }

    /// In `--once`: lists what is not waited for any more, to make room for others.
    fn leave_late(&mut self, now: Moment) {
        let late: HashSet<RelPath> = self
            .pairs
            .iter()
            .filter(|(_, entry)| !entry.running && self.is_late(entry, now))
            .map(|(path, _)| path.clone())
            .collect();
        self.leave(|path| late.contains(path));
    }

    /// Lists pairs as left, in order of name, and forgets them.
    fn leave(&mut self, which: impl Fn(&RelPath) -> bool) {
        let want = self.want();
        let mut left: Vec<_> = self.pairs.extract_if(|path, _| which(path)).collect();
        left.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (path, entry) in left {
            if let Some(at) = entry.timer {
                self.timers.remove(&(at, path.clone()));
            }
            let why = match &entry.hold {
                Some(hold) => format!("held ({}): {hold}; {}", hold.as_str(), hold.hint()),
                None => entry.wait(want).text().to_owned(),
            };
            self.summary.left(Left { path: Some(path), why });
        }
    }

    fn into_summary(mut self) -> Summary {
        if let (true, Some(why)) = (self.once, self.attach_error.take()) {
            self.summary.left(Left { path: None, why });
        }
        if self.has_more() {
            self.summary.left(Left { path: None, why: "more files wait; run again".into() });
        }
        self.leave(|_| true);
        self.summary
    }
}

/// Puts a pair on the timer list, taking it off where it was.
fn set_timer<V>(
    timers: &mut BTreeSet<(Moment, RelPath)>,
    entry: &mut PairState<V>,
    path: &RelPath,
    at: Moment,
) {
    if let Some(old) = entry.timer.replace(at) {
        timers.remove(&(old, path.clone()));
    }
    timers.insert((at, path.clone()));
}
