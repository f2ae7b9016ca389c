//! The driver of one rule: hints and scans in, tries out, until told to stop.
//!
//! Each rule has its own, with its own watcher, so that a sender who floods one directory delays nobody
//! else's. It owns the pairs that something is still to be done about, and their timers. It decides nothing:
//! [`Pair`] says when to look and try, [`Pipeline`] what becomes of it.

mod attaching;
mod backlog;
pub(crate) mod jitter;
mod listen;
mod places;
mod scanning;
#[cfg(test)]
mod through_memory;
mod trying;
mod turn;
pub(crate) mod wait;
use std::collections::{BTreeSet, HashMap, VecDeque};
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
use crate::daemon::status::{Now, Root, RuleStatus};
use crate::daemon::summary::{Left, Summary};
use crate::daemon::watchdog::Heartbeat;
use crate::daemon::worker::turn::MAX_PAIRS;
pub use crate::daemon::worker::wait::waits;
use crate::fs::RelPath;
use crate::fs::lease::Writer;
use crate::hold::{Announced, Hold};
use crate::kms::Kms;
use crate::policy::{Mode, Rule};
use crate::settle::{Pair, PairVersion, Timing, Want};
use crate::sink::Sheltered;
use crate::source::{Feed, Source, Version};

/// Room for more pairs than this is not kept.
const ROOMY: usize = 1_000;

/// Time between tries to attach to directories that are not as they should be.
const REATTACH: Duration = Duration::from_secs(5);

/// After how long without a quiet moment a file is reported.
const NEVER_SETTLES: Duration = Duration::from_secs(60 * 60);

/// The shortest time between two changes of what is shown on the status.
const SHOW: Duration = Duration::from_secs(1);

/// The same in `--once`, which somebody may be watching.
const SHOW_ONCE: Duration = Duration::from_millis(200);

/// In `--once`: how often to look whether everything left has had its time.
const ONCE_CHECK: Duration = Duration::from_secs(1);

/// In `--once`: how long a file may take to settle, beyond `settle` itself, before it is left.
const ONCE_PATIENCE: Duration = Duration::from_secs(30);

/// What a driver is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// To go on.
    Work,
    /// To finish what is in hand, and end.
    Finish,
    /// To leave what is in hand as a kill would (P4), and end.
    Leave,
}

/// Drives one rule.
pub struct Worker<K, B: Backend> {
    pipeline: Arc<Pipeline<K>>,
    rule: Arc<Rule>,
    timing: Timing,
    once: bool,
    /// Tries at the same time.
    max_jobs: usize,
    /// What attaches it.
    backend: Arc<B>,
    site: Option<Arc<Site<B>>>,
    /// What says which names to look at, while it is attached.
    feed: Option<<B::Source as Source>::Feed>,
    pairs: HashMap<RelPath, PairState<VersionOf<B>>>,
    timers: BTreeSet<(Moment, RelPath)>,
    ready: VecDeque<RelPath>,
    /// Tries under way, each with the attachment it belongs to.
    jobs: JoinSet<(u64, AttemptResult)>,
    /// Counts attachments: what a try of an earlier one comes to is about other directories.
    attachment: u64,
    /// What need not be waited for but at the end.
    chores: JoinSet<()>,
    next_scan: Moment,
    /// The one under way.
    scan: Option<turn::Scan>,
    /// Pairs that the last one came upon.
    last_seen: usize,
    /// No scan before this.
    soonest_scan: Moment,
    next_attach: Moment,
    is_first_scan: bool,
    /// The last whole scan left out directories; told then.
    capped: bool,
    /// The last scan left pairs in the directory for want of room.
    overflowed: bool,
    /// Causes of holds already told.
    told: Announced,
    attach_told: Option<String>,
    /// Changes when KMS answers again after it did not.
    reopened: watch::Receiver<u64>,
    /// Changes when somebody has made room in quarantine.
    room: Option<watch::Receiver<u64>>,
    /// Claims that wait until their files can go back.
    sheltered: Sheltered,
    /// What was refused of late.
    refusals: Arc<Refusals>,
    /// Files refused since state was last tidied.
    refused: usize,
    /// Why nothing more may be published.
    fatal: Option<Hold>,
    next_prune: Moment,
    next_retry: Moment,
    /// What listens for hints was built so often.
    built: usize,
    /// When it was last asked whether it turns, and answered.
    beat: Heartbeat,
    rule_status: Arc<RuleStatus>,
    /// What is asked from outside.
    questions: mpsc::Receiver<Ask>,
    /// When the rule_status may be changed next, and whether it is out of date.
    next_show: Moment,
    unshown: bool,
    last_scan: Option<Moment>,
    last_scan_took: Duration,
    summary: Summary,
    ready_signal: Option<tokio::sync::oneshot::Sender<()>>,
}

struct PairState<V> {
    pair: Pair<V>,
    timer: Option<Moment>,
    running: bool,
    /// Something happened to it while it was tried.
    touched: bool,
    attempts: u32,
    known: Option<Known>,
    hold: Option<Hold>,
    /// Since when it is held, where it is.
    held_since: Moment,
    first_seen: Moment,
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

/// Whether a pair that waits for grace or its signature has been as it is for longer than that, by the source's own clock,
/// and nobody is writing. By this clock go those who look once: `--once` and `explain`.
pub(crate) fn is_old_enough<V: Version>(versions: &PairVersion<V>, writer: Writer, timing: &Timing) -> bool {
    let wait = match (&versions.signature, writer) {
        (_, Writer::Present) => return false,
        (None, _) => timing.signature_timeout,
        (Some(_), Writer::Absent) => timing.grace_leased,
        (Some(_), Writer::Unknown) => timing.grace_unleased,
    };
    let there = [&versions.payload, &versions.signature].into_iter().flatten();
    there.map(|version| clock::age_since(version.changed())).min().is_some_and(|youngest| youngest >= wait)
}

/// What a rule wants of its pairs.
pub(crate) const fn want(rule: &Rule) -> Want {
    match rule.mode {
        Mode::Sign(_) => Want::Sign,
        Mode::Verify(_) => Want::Verify,
    }
}

impl<K: Kms, B: Backend> Worker<K, B> {
    /// A driver that has not begun. `ready` fires when the watch is up and the first scan under way, or when it
    /// is known that they cannot be for now.
    pub fn new(
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
            beat: pipeline.status.watchdog.register(&rule.name),
            questions: rule_status.take_questions(),
            rule_status,
            next_show: now,
            unshown: false,
            last_scan: None,
            last_scan_took: Duration::ZERO,
            reopened: pipeline.kms.reopened(),
            room: backend.room(),
            sheltered: Sheltered::default(),
            refusals: Arc::default(),
            refused: 0,
            fatal: None,
            next_prune: now,
            next_retry: now,
            built: 0,
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
            ready: VecDeque::new(),
            jobs: JoinSet::new(),
            chores: JoinSet::new(),
            attachment: 0,
            next_scan: now,
            scan: None,
            last_seen: 0,
            soonest_scan: now,
            next_attach: now,
            is_first_scan: true,
            capped: false,
            overflowed: false,
            told: Announced::default(),
            attach_told: None,
            ready_signal: Some(ready),
        }
    }

    /// Runs until it is told to finish, or with `--once` until everything present at the start is dealt with or
    /// left. Files in hand are finished, unless it is told to leave them.
    ///
    /// # Errors
    /// A failure after which nothing may be published: what was to be durable may not be.
    pub async fn run(mut self, mut told: watch::Receiver<Told>) -> Result<Summary, Hold> {
        while *told.borrow() == Told::Work && self.fatal.is_none() {
            let now = self.pipeline.clock.now();
            if self.beat.turn() {
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
                self.scan_on().await;
                self.run_timers(now).await;
                self.dispatch().await;
            }
            match self.site {
                None => self.say_ready(),
                Some(_) => self.show(),
            }
            while let Ok(ask) = self.questions.try_recv() {
                self.answer(ask);
            }
            if self.scan.is_some() {
                while let Some(done) = self.jobs.try_join_next() {
                    self.finish(done);
                }
                continue;
            }
            if self.once && self.is_finished() {
                break;
            }
            self.hurry_batch();
            self.give_back_memory();
            self.wait(&mut told).await;
        }
        if let Some(batcher) = self.site.as_ref().and_then(|site| site.batcher.as_ref()) {
            batcher.close();
        }
        if *told.borrow() != Told::Work {
            // Tries that only queue for a place are not in hand: a restart begins them again (C17).
            self.pipeline.hashing.close(self.site.as_ref().map(|site| &site.queue));
            self.pipeline.kms.end_soon();
        }
        // From here on it only waits for what is in hand, and whoever ordered that sees to how long.
        self.beat.retire();
        let leave = async move {
            if told.wait_for(|told| *told == Told::Leave).await.is_err() {
                std::future::pending::<()>().await; // nobody is left to say it
            }
        };
        tokio::pin!(leave);
        loop {
            tokio::select! {
                biased;
                () = &mut leave => {
                    self.jobs.shutdown().await;
                    break;
                }
                done = self.jobs.join_next() => match done {
                    Some(done) => self.finish(done),
                    None => break,
                },
            }
        }
        self.chores.shutdown().await; // what is left of them the next start does
        self.sum_up(true).await;
        match self.fatal.take() {
            Some(fatal) => Err(fatal),
            None => Ok(self.into_summary()),
        }
    }

    /// After many files at once, when few are left.
    fn give_back_memory(&mut self) {
        if self.jobs.is_empty() && self.pairs.capacity() > ROOMY && self.pairs.len() < ROOMY / 4 {
            self.pairs.shrink_to_fit();
            self.ready.shrink_to_fit();
            self.chores.spawn(memory::give_back());
        }
    }

    /// Sleeps until something is due or something happens.
    async fn wait(&mut self, told: &mut watch::Receiver<Told>) {
        let attached = self.site.is_some();
        let timer = self.timers.first().map(|(at, _)| *at).filter(|_| attached);
        let scheduled = if attached { self.next_scan } else { self.next_attach };
        let check = self.once.then(|| self.pipeline.clock.now() + ONCE_CHECK);
        let show = self.unshown.then_some(self.next_show);
        let feed_due = self.feed.as_ref().and_then(Feed::due);
        let wake = [timer, feed_due, check, show].into_iter().flatten().fold(scheduled, Moment::min);
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
            _ = told.changed() => {}
            () = tokio::time::sleep_until(wake) => {}
            () = hint, if !self.once => {}
            () = self.beat.asked() => {}
            Ok(()) = self.reopened.changed() => self.retry_held(),
            Ok(()) = room => self.retry(|hold| matches!(hold, Hold::QuarantineFull { .. })),
            Some(ask) = self.questions.recv() => self.answer(ask),
            Some(done) = self.jobs.join_next() => self.finish(done),
            Some(done) = self.chores.join_next() => ended(done).unwrap_or_default(),
        }
    }

    /// Says that the first scan is queued, or that it is known why it cannot be.
    fn say_ready(&mut self) {
        self.show();
        self.ready_signal.take().map(|ready| ready.send(()));
    }

    /// Shows on the status how things stand; not more often than it must, as it counts all pairs.
    fn show(&mut self) {
        let now = self.pipeline.clock.now();
        if now < self.next_show {
            self.unshown = true;
            return;
        }
        self.next_show = now + if self.once { SHOW_ONCE } else { SHOW };
        self.unshown = false;
        let root = match (&self.site, &self.attach_told) {
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
            waiting: self.pairs.len() + self.sheltered.count,
            held,
            trying: self.jobs.len(),
            oldest,
            braked: self.site.as_ref().is_some_and(|site| site.is_braked()),
            more: self.overflowed,
            last_scan: self.last_scan,
            last_scan_took: self.last_scan_took,
        });
    }

    fn want(&self) -> Want {
        want(&self.rule)
    }

    /// Whether `--once` has nothing more to wait for.
    fn is_finished(&self) -> bool {
        if self.site.is_none() {
            return true; // its directory is not to be had; said when it was tried
        }
        let now = self.pipeline.clock.now();
        let more_wait = self.overflowed && self.pairs.len() < MAX_PAIRS / 2;
        !more_wait
            && self.jobs.is_empty()
            && self.ready.is_empty()
            && self.pairs.values().all(|slot| !slot.running && self.is_late(slot, now))
    }

    /// In `--once`: a batch waits for nobody when all that may still join it have.
    fn hurry_batch(&self) {
        let Some(batcher) = self.site.as_ref().and_then(|site| site.batcher.as_ref()) else { return };
        if !self.once || self.jobs.is_empty() || batcher.waiting() < self.jobs.len() {
            return;
        }
        let now = self.pipeline.clock.now();
        let may_join =
            |slot: &PairState<VersionOf<B>>| !slot.running && slot.hold.is_none() && !self.is_late(slot, now);
        if self.ready.is_empty() && !self.pairs.values().any(may_join) {
            batcher.hurry();
        }
    }

    /// In `--once`: whether a pair is not waited for, or not any more.
    fn is_late(&self, slot: &PairState<VersionOf<B>>, now: Moment) -> bool {
        let limit = self.timing.settle.saturating_mul(2).saturating_add(ONCE_PATIENCE);
        slot.timer.is_none() || (slot.hold.is_none() && now > slot.first_seen + limit)
    }

    fn into_summary(mut self) -> Summary {
        if let (true, Some(why)) = (self.once, self.attach_told.take()) {
            self.summary.left(Left { path: None, why });
        }
        if self.overflowed {
            self.summary.left(Left { path: None, why: "more files wait; run again".into() });
        }
        let want = self.want();
        let mut pairs: Vec<_> = self.pairs.into_iter().collect();
        pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (path, slot) in pairs {
            let why = match &slot.hold {
                Some(hold) => format!("held ({}): {hold}; {}", hold.as_str(), hold.hint()),
                None => slot.wait(want).text().to_owned(),
            };
            self.summary.left(Left { path: Some(path), why });
        }
        self.summary
    }
}

/// Puts a pair on the timer list, taking it off where it was.
fn set_timer<V>(
    timers: &mut BTreeSet<(Moment, RelPath)>,
    slot: &mut PairState<V>,
    path: &RelPath,
    at: Moment,
) {
    if let Some(old) = slot.timer.replace(at) {
        timers.remove(&(old, path.clone()));
    }
    timers.insert((at, path.clone()));
}
