//! The driver of one rule: hints and scans in, tries out, until told to stop.
//!
//! Each rule has its own, with its own watcher, so that a sender who floods one directory delays nobody
//! else's. It owns the pairs that something is still to be done about, and their timers. It decides nothing:
//! [`Pair`] says when to look and try, [`Line`] what becomes of it.

pub(super) mod attach;
mod chance;
mod listen;
pub(super) mod look;
mod places;
mod scanning;
mod trying;

pub use attach::AttachError;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::hold::Hold;
use super::line::{Known, Line, Post, Tried};
use super::summary::{Left, Summary};
use crate::clock::Moment;
use crate::fs::RelPath;
use crate::kms::Kms;
use crate::policy::{Mode, Rule};
use crate::watch::hint::Hints;
use crate::watch::settle::{Pair, Sight, Timing, Want};

/// Pairs kept in memory at most; more stay in the directory, which is the queue, for a later scan (P10).
const MAX_PAIRS: usize = 20_000;
/// Time between scans where events cannot be relied on.
const POLL: Duration = Duration::from_secs(10);
/// Time between tries to attach to directories that are not as they should be.
const REATTACH: Duration = Duration::from_secs(5);
/// After how long without a quiet moment a file is reported.
const NEVER_SETTLES: Duration = Duration::from_secs(60 * 60);
/// In `--once`: how often to look whether everything left has had its time.
const ONCE_CHECK: Duration = Duration::from_secs(1);
/// In `--once`: how long a file may take to settle, beyond `settle` itself, before it is left.
const ONCE_PATIENCE: Duration = Duration::from_secs(30);

/// Drives one rule.
pub struct Driver<K> {
    line: Arc<Line<K>>,
    rule: Arc<Rule>,
    timing: Timing,
    once: bool,
    /// Tries at the same time.
    max_jobs: usize,
    post: Option<Arc<Post>>,
    hints: Option<Hints>,
    pairs: HashMap<RelPath, Slot>,
    timers: BTreeSet<(Moment, RelPath)>,
    ready: VecDeque<RelPath>,
    /// Tries under way, each with the attachment it belongs to.
    jobs: JoinSet<(u64, Tried)>,
    /// Counts attachments: what a try of an earlier one comes to is about other directories.
    attachment: u64,
    /// What need not be waited for but at the end.
    chores: JoinSet<()>,
    next_scan: Moment,
    /// No scan before this.
    soonest_scan: Moment,
    next_attach: Moment,
    is_first_scan: bool,
    /// Names that a killed process left may still lie about.
    unswept: bool,
    /// The last scan left pairs in the directory for want of room.
    overflowed: bool,
    /// Causes of holds already told, so that ten thousand held files are one message.
    told: HashMap<&'static str, usize>,
    attach_told: Option<String>,
    /// Changes when KMS answers again after it did not.
    reopened: watch::Receiver<u64>,
    /// Why nothing more may be published.
    fatal: Option<Hold>,
    next_prune: Moment,
    next_retry: Moment,
    /// Until when the event of our own file must have come, while it is awaited.
    cookie_due: Option<Moment>,
    /// The last one did not come: events are not to be relied on.
    deaf: bool,
    summary: Summary,
    ready_signal: Option<tokio::sync::oneshot::Sender<()>>,
}

struct Slot {
    pair: Pair,
    timer: Option<Moment>,
    running: bool,
    /// Something happened to it while it was tried.
    touched: bool,
    attempts: u32,
    known: Option<Known>,
    hold: Option<Hold>,
    first_seen: Moment,
}

impl<K: Kms> Driver<K> {
    /// A driver that has not begun. `ready` fires after the watch is up and the first scan is done, or when it
    /// is known that they cannot be for now.
    pub fn new(
        line: Arc<Line<K>>,
        rule: Arc<Rule>,
        once: bool,
        max_jobs: usize,
        ready: tokio::sync::oneshot::Sender<()>,
    ) -> Self {
        let (timeout, grace) = match &rule.mode {
            Mode::Sign(_) => (Duration::MAX, None),
            Mode::Verify(verify) => (verify.signature_timeout, verify.grace),
        };
        let timing = Timing {
            settle: rule.settle,
            grace_leased: grace.unwrap_or(Duration::from_secs(30)),
            grace_unleased: grace.unwrap_or(Duration::from_secs(10 * 60)),
            signature_timeout: timeout,
            never_settles: NEVER_SETTLES,
        };
        let now = line.clock.now();
        Self {
            summary: Summary::new(&rule.name, once),
            reopened: line.kms.reopened(),
            fatal: None,
            next_prune: now,
            next_retry: now,
            cookie_due: None,
            deaf: false,
            line,
            rule,
            timing,
            once,
            max_jobs,
            post: None,
            hints: None,
            pairs: HashMap::new(),
            timers: BTreeSet::new(),
            ready: VecDeque::new(),
            jobs: JoinSet::new(),
            chores: JoinSet::new(),
            attachment: 0,
            next_scan: now,
            soonest_scan: now,
            next_attach: now,
            is_first_scan: true,
            unswept: true,
            overflowed: false,
            told: HashMap::new(),
            attach_told: None,
            ready_signal: Some(ready),
        }
    }

    /// Runs until `stop` turns true, or with `--once` until everything present at the start is dealt with or
    /// left. Files in hand are finished.
    ///
    /// # Errors
    /// A failure after which nothing may be published: what was to be durable may not be.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<Summary, Hold> {
        while !*stop.borrow() && self.fatal.is_none() {
            let now = self.line.clock.now();
            if self.post.is_none() && now >= self.next_attach {
                self.attach(now);
            }
            if self.post.is_some() {
                self.take_hints(now);
                self.miss_cookie(now);
                if self.overflowed && self.pairs.len() <= MAX_PAIRS / 2 {
                    self.scan_soon(now);
                }
                if now >= self.next_scan {
                    self.scan().await;
                }
                self.run_timers(now).await;
                self.dispatch();
            }
            self.ready_signal.take().map(|ready| ready.send(()));
            if self.once && self.is_finished() {
                break;
            }
            self.wait(&mut stop).await;
        }
        if *stop.borrow() {
            // Tries that only queue for a place are not in hand: a restart begins them again (C17).
            self.line.hashing.close();
        }
        while let Some(done) = self.jobs.join_next().await {
            self.finish(done);
        }
        self.chores.shutdown().await;
        match self.fatal.take() {
            Some(fatal) => Err(fatal),
            None => Ok(self.into_summary()),
        }
    }

    /// Sleeps until something is due or something happens.
    async fn wait(&mut self, stop: &mut watch::Receiver<bool>) {
        let attached = self.post.is_some();
        let timer = self.timers.first().map(|(at, _)| *at).filter(|_| attached);
        let scheduled = if attached { self.next_scan } else { self.next_attach };
        let check = self.once.then(|| self.line.clock.now() + ONCE_CHECK);
        let wake = [timer, self.cookie_due, check].into_iter().flatten().fold(scheduled, Moment::min);
        let wake = self.line.clock.instant(wake);
        let hint = async {
            match &self.hints {
                Some(hints) => hints.wait().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = stop.changed() => {}
            () = tokio::time::sleep_until(wake) => {}
            () = hint, if !self.once => {}
            Ok(()) = self.reopened.changed() => self.retry_held(),
            Some(done) = self.jobs.join_next() => self.finish(done),
        }
    }

    fn want(&self) -> Want {
        match self.rule.mode {
            Mode::Sign(_) => Want::Sign,
            Mode::Verify(_) => Want::Verify,
        }
    }

    /// Whether `--once` has nothing more to wait for.
    fn is_finished(&self) -> bool {
        if self.post.is_none() {
            return true; // its directory is not to be had; said when it was tried
        }
        let limit = self.timing.settle.saturating_mul(2).saturating_add(ONCE_PATIENCE);
        let now = self.line.clock.now();
        let more_wait = self.overflowed && self.pairs.len() < MAX_PAIRS / 2;
        !more_wait
            && self.jobs.is_empty()
            && self.ready.is_empty()
            && self.pairs.values().all(|slot| {
                !slot.running
                    && (slot.timer.is_none() || (slot.hold.is_none() && now > slot.first_seen + limit))
            })
    }

    fn into_summary(mut self) -> Summary {
        if let (true, Some(why)) = (self.once, self.attach_told.take()) {
            self.summary.left(Left { path: None, why });
        }
        if self.overflowed {
            self.summary.left(Left { path: None, why: "more files wait; run again".into() });
        }
        let mut pairs: Vec<_> = self.pairs.into_iter().collect();
        pairs.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (path, slot) in pairs {
            let why = match (&slot.hold, slot.pair.sight()) {
                (Some(hold), _) => format!("{} ({}): {hold}; {}", "held", hold.as_str(), hold.remedy()),
                (None, Sight { payload: None, .. }) => "a signature without its file".into(),
                (None, Sight { signature: None, .. }) if self.timing.signature_timeout < Duration::MAX => {
                    "its signature may still come (signature_timeout)".into()
                }
                (None, _) if slot.pair.is_doubted() => {
                    "does not verify, but may still be arriving (grace)".into()
                }
                (None, _) => "still changing".into(),
            };
            self.summary.left(Left { path: Some(path), why });
        }
        self.summary
    }
}

/// Puts a pair on the timer list, taking it off where it was.
fn set_timer(timers: &mut BTreeSet<(Moment, RelPath)>, slot: &mut Slot, path: &RelPath, at: Moment) {
    if let Some(old) = slot.timer.replace(at) {
        timers.remove(&(old, path.clone()));
    }
    timers.insert((at, path.clone()));
}
