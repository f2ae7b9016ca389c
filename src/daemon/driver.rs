//! The driver of one rule: hints and scans in, tries out, until told to stop.
//!
//! Each rule has its own, with its own watcher, so that a sender who floods one directory delays nobody
//! else's. It owns the pairs that something is still to be done about, and their timers. It decides nothing:
//! [`Pair`] says when to look and try, [`Line`] what becomes of it.

pub(super) mod attach;

pub use attach::AttachError;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::hold::{Hold, back_off};
use super::line::{Ending, Known, Line, Post, Settled, Tried, Try};
use super::summary::{Left, Summary};
use crate::clock::{self, Moment};
use crate::escape::{Escaped, quoted};
use crate::fs::lease::{self, Writer};
use crate::fs::{FsError, Kind, OpenError, RelPath, Staging, Unfit};
use crate::kms::Kms;
use crate::policy::{Mode, OnInvalid, OnStale, Rule};
use crate::seal::Reason;
use crate::state::{Outcome, Remembered, Version};
use crate::watch::hint::Hints;
use crate::watch::scan::{self, Meaning, signature_name};
use crate::watch::settle::{Ended, Next, Pair, Sight, Timing, Want, Worry};

/// Pairs kept in memory at most; more stay in the directory, which is the queue, for a later scan (P10).
const MAX_PAIRS: usize = 20_000;
/// A pair that waits longer than this may be forgotten until the next scan when there are too many.
const EVICTABLE: Duration = Duration::from_secs(10);
/// How often at most one success has all held files tried again.
const RETRY_ALL: Duration = Duration::from_secs(30);
/// How long the event of our own file may take.
const COOKIE: Duration = Duration::from_secs(10);
/// Time between looks for decisions about files that are gone.
const PRUNE: Duration = Duration::from_secs(60 * 60);
/// Paths asked of state at a time.
const LOOKUP: usize = 512;
/// Time between reconcile scans where hints arrive, before jitter.
const RECONCILE: Duration = Duration::from_secs(5 * 60);
/// The same where they do not.
const POLL: Duration = Duration::from_secs(10);
/// Time between tries to attach to directories that are not as they should be.
const REATTACH: Duration = Duration::from_secs(5);
/// After how long without a quiet moment a file is reported.
const NEVER_SETTLES: Duration = Duration::from_secs(60 * 60);
/// The shortest pause between two scans. Longer ones take as long a pause as they took, so that a sender who
/// causes scans without end has at most half of this rule's time.
const SCAN_PAUSE: Duration = Duration::from_millis(200);
/// In `--once` there is no other scan: the names present at the start are taken.
const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
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

/// What lies at a name now.
pub(super) struct Look {
    pub(super) sight: Sight,
    /// Why the payload, or else the signature, is not handled as it is.
    pub(super) unfit: Option<Unfit>,
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

    /// Has every pair that is held for KMS tried again now, the longest waiting first.
    fn retry_held(&mut self) {
        let now = self.line.clock.now();
        let is_held = |slot: &Slot| matches!(slot.hold, Some(Hold::Kms(_) | Hold::WhoseSignature(_)));
        let mut held: Vec<(Moment, RelPath)> = self
            .pairs
            .iter()
            .filter(|(_, slot)| is_held(slot) && !slot.running)
            .map(|(path, slot)| (slot.first_seen, path.clone()))
            .collect();
        held.sort();
        for (place, (_, path)) in held.into_iter().enumerate() {
            if let Some(slot) = self.pairs.get_mut(&path) {
                slot.pair.retry_now(now);
                // A nanosecond apart: the order of the timers is the order of the queue.
                let at = now + Duration::from_nanos(place as u64);
                set_timer(&mut self.timers, slot, &path, at);
            }
        }
    }

    /// Turns hints into pairs to look at now.
    fn take_hints(&mut self, now: Moment) {
        let (Some(hints), Some(post)) = (&self.hints, self.post.clone()) else { return };
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
        let root = post.root.path().to_owned();
        let cookie = self.line.cookies.as_ref().map(|dir| dir.path().join(&self.rule.name));
        for path in dirty.paths {
            if Some(&path) == cookie.as_ref() {
                self.cookie_due = None;
                self.deaf = false;
                continue;
            }
            if path == root {
                self.scan_soon(now); // moved or removed, perhaps: the scan compares
                continue;
            }
            let Ok(below) = path.strip_prefix(&root) else { continue };
            let Some(name) = below.file_name() else { continue };
            match scan::meaning(&self.rule, below.parent().unwrap_or(Path::new("")), name) {
                Meaning::Pair(path) => self.look_soon(path, now),
                Meaning::Unsignable(..) => self.scan_soon(now),
                Meaning::Nothing => {}
            }
            // What is in a new directory, and watching it, is the scan's.
            if self.rule.recursive && is_directory(&post, below) {
                self.scan_soon(now);
            }
        }
    }

    /// Makes a file of our own appear where the same watcher watches. Its event proves that events arrive (W11).
    fn send_cookie(&mut self, now: Moment) {
        let (Some(hints), Some(dir)) = (&mut self.hints, &self.line.cookies) else { return };
        let name = std::ffi::OsStr::new(&self.rule.name);
        let sent = hints.watch(dir.path()).is_ok()
            && Staging::new(dir)
                .and_then(|file| file.publish(dir, name))
                .and_then(|_| dir.unlink(name))
                .is_ok();
        // One that could not be made proves nothing; the scans go on.
        self.cookie_due = sent.then_some(now + COOKIE);
    }

    /// Builds a new watcher if our own event did not come.
    fn miss_cookie(&mut self, now: Moment) {
        if self.cookie_due.is_some_and(|due| now >= due) {
            tracing::error!(
                rule = self.rule.name,
                "events no longer arrive; watching anew and scanning often"
            );
            self.cookie_due = None;
            self.deaf = true;
            self.hints = None;
            self.next_scan = now;
        }
    }

    fn scan_soon(&mut self, now: Moment) {
        self.next_scan = self.next_scan.min(now.max(self.soonest_scan));
    }

    /// Has a pair looked at in this round, entering it if it is new.
    fn look_soon(&mut self, path: RelPath, now: Moment) {
        if let Some(slot) = self.pairs.get_mut(&path) {
            if slot.running {
                slot.touched = true;
            } else {
                set_timer(&mut self.timers, slot, &path, now);
            }
        } else if self.has_room(now) {
            self.enter(path, now);
        } else {
            self.overflowed = true;
        }
    }

    /// Whether another pair may be entered. If there are too many, the one that has longest to wait makes room:
    /// it stays in the directory, and a later scan finds it. So a sender cannot keep others out by leaving
    /// thousands of files that nothing can be done about.
    fn has_room(&mut self, now: Moment) -> bool {
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

    /// Begins to watch a name, unless nothing is there or it was dealt with before.
    fn enter(&mut self, path: RelPath, now: Moment) {
        let mut slot = Slot {
            pair: Pair::new(self.want(), now, Sight::default()),
            timer: None,
            running: false,
            touched: false,
            attempts: 0,
            known: None,
            hold: None,
            first_seen: now,
        };
        set_timer(&mut self.timers, &mut slot, &path, now);
        self.pairs.insert(path, slot);
    }

    /// Walks the directory and enters everything in it that is not dealt with.
    async fn scan(&mut self) {
        let Some(post) = self.post.clone() else { return };
        if self.has_moved(&post) {
            return;
        }
        let began = self.line.clock.now();
        if self.hints.is_none() && !self.once {
            self.hints = self.new_hints();
        }
        let mut unwatched = None;
        let walked = tokio::task::block_in_place(|| {
            scan::walk(&self.rule, &post.root, |below| {
                if let Some(hints) = &mut self.hints
                    && let Err(e) = hints.watch(&post.root.path().join(below))
                {
                    unwatched.get_or_insert(e);
                }
            })
        });
        if let Some(error) = unwatched {
            tracing::error!(rule = self.rule.name, %error, "not all directories are watched; scanning often instead");
            self.hints = None;
        }
        let now = self.line.clock.now();
        let found = match walked {
            Ok(found) => found,
            Err(error) => {
                self.detach(&error);
                return;
            }
        };
        for error in &found.failed {
            tracing::warn!(rule = self.rule.name, error = %Hold::Fs(error.clone()), "directory skipped");
        }
        if found.capped {
            tracing::error!(
                rule = self.rule.name,
                "too many or too deep directories; the rest is not watched"
            );
        }
        for (path, why) in found.unsignable {
            self.refuse_name(&post, path, &why).await;
        }
        self.overflowed = false;
        let mut new = Vec::new();
        for path in found.pairs {
            if let Some(slot) = self.pairs.get_mut(&path) {
                // One that is being tried is compared with what was tried at its end.
                if !slot.running {
                    set_timer(&mut self.timers, slot, &path, now);
                }
            } else {
                new.push(path);
            }
        }
        if self.pairs.len() + new.len() > MAX_PAIRS {
            self.make_room();
            // Not always the same names first, or the last ones might never get a place.
            let first = pick(new.len());
            new.rotate_left(first);
        }
        for chunk in new.chunks(LOOKUP) {
            self.enter_unless_known(&post, chunk.to_vec(), now).await;
        }
        self.is_first_scan = false;
        self.send_cookie(now);
        let listening = self.hints.is_some() && !post.is_remote && !self.deaf;
        let pause = match (self.once, listening) {
            (true, _) => NEVER,
            (false, true) => jittered(RECONCILE),
            (false, false) => POLL,
        };
        let ended = self.line.clock.now();
        self.next_scan = ended + pause;
        self.soonest_scan = ended + ended.saturating_sub(began).max(SCAN_PAUSE);
        self.prune(&post, ended);
    }

    /// Has state forget files that are gone, now and then.
    fn prune(&mut self, post: &Arc<Post>, now: Moment) {
        if now < self.next_prune || self.line.dry_run {
            return;
        }
        self.next_prune = now + PRUNE;
        let (line, post) = (Arc::clone(&self.line), Arc::clone(post));
        self.chores.spawn(async move {
            let here = Arc::clone(&post);
            let is_there = move |path: &[u8]| {
                use std::os::unix::ffi::OsStrExt as _;
                let Some(path) = RelPath::new(std::ffi::OsStr::from_bytes(path)) else { return false };
                // What cannot be looked at now is not known to be gone.
                look(&here, &path).map_or(true, |look| look.sight != Sight::default())
            };
            if let Err(error) = line.state.forget_gone(&post.rule.name, is_there).await {
                tracing::warn!(rule = post.rule.name, %error, "state was not tidied");
            }
        });
    }

    /// Lets go of pairs that may wait for ever: those held for what they are themselves, and signatures without
    /// their files. They stay in the directory for a later scan. Otherwise a sender could fill all places with
    /// them, and nothing that is valid would be delivered any more.
    fn make_room(&mut self) {
        let Self { pairs, timers, overflowed, once, .. } = self;
        if *once {
            return; // it lists them at its end
        }
        pairs.retain(|path, slot| {
            let waits = slot.timer.is_none() || slot.hold.as_ref().is_some_and(Hold::is_of_the_file);
            let keep = slot.running || !waits;
            if !keep {
                *overflowed = true;
                if let Some(at) = slot.timer.take() {
                    timers.remove(&(at, path.clone()));
                }
            }
            keep
        });
    }

    /// Enters the paths whose present versions state has no final decision about.
    async fn enter_unless_known(&mut self, post: &Post, paths: Vec<RelPath>, now: Moment) {
        let remembered = match self.line.state.remembered_all(&self.rule.name, paths.clone()).await {
            Ok(remembered) => remembered,
            Err(error) => {
                tracing::error!(rule = self.rule.name, %error, "state cannot be read");
                paths.into_iter().map(|path| (path, None)).collect()
            }
        };
        for (path, row) in remembered {
            if let Some(row) = row
                && let Ok(look) = look(post, &path)
                && is_decided(post, &row, &look, self.line.dry_run)
            {
                if self.is_first_scan {
                    self.summary.already(row.outcome, row.reason.as_deref(), &path);
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

    /// Looks at pairs whose time has come: not all at once, as looking may mean to record, and tries and the
    /// order to stop must not wait for that.
    async fn run_timers(&mut self, now: Moment) {
        for _ in 0..LOOKUP {
            let Some((at, path)) = self.timers.first().cloned() else { return };
            if at > now {
                return;
            }
            self.timers.pop_first();
            if let Some(slot) = self.pairs.get_mut(&path) {
                slot.timer = None;
                self.look_at(&path).await;
            }
        }
    }

    /// Takes a sample of one pair and does what it says.
    async fn look_at(&mut self, path: &RelPath) {
        let Some(post) = self.post.clone() else { return };
        let look = match tokio::task::block_in_place(|| look(&post, path)) {
            Ok(look) => look,
            Err(error) => {
                self.hold(path, Hold::Fs(error));
                return;
            }
        };
        let (now, want) = (self.line.clock.now(), self.want());
        let Some(slot) = self.pairs.get_mut(path).filter(|slot| !slot.running) else { return };
        let sight = match want {
            Want::Sign => Sight { signature: None, ..look.sight },
            Want::Verify => look.sight,
        };
        if slot.pair.sight() != sight {
            slot.hold = None;
            slot.attempts = 0;
        }
        let mut next = slot.pair.seen(now, sight, &self.timing);
        // Not before it is quiet: who publishes by link and unlink has two links for a moment.
        if let Some(unfit) = look.unfit.filter(|_| slot.pair.is_quiet(now, &self.timing)) {
            self.refuse(&post, path, look.sight, unfit.to_string()).await;
            return;
        }
        match slot.pair.worry(now, &self.timing) {
            Some(Worry::NeverSettles) => {
                let file = Escaped::new(path.as_path());
                tracing::error!(rule = self.rule.name, %file, "has been changing for an hour; still waiting");
            }
            Some(Worry::Orphan) => {
                // Remembered rather than kept in memory; its payload's arrival is a new sight.
                self.refuse(&post, path, look.sight, ORPHAN.to_owned()).await;
                return;
            }
            None => {}
        }
        if next == Next::Probe {
            let writer = tokio::task::block_in_place(|| probe(&post, path, look.sight));
            next = slot.pair.probed(now, writer, &self.timing);
        }
        if self.once && slot.pair.waits_for_time(now, &self.timing) {
            next = if is_old_enough(&look.sight, &slot.pair, &self.timing, &post, path) {
                slot.pair.hurry(now)
            } else {
                Next::Rest
            };
        }
        self.follow(path, next);
    }

    fn follow(&mut self, path: &RelPath, next: Next) {
        let Some(slot) = self.pairs.get_mut(path) else { return };
        match next {
            Next::Gone => {
                self.pairs.remove(path);
            }
            Next::LookAt(at) => set_timer(&mut self.timers, slot, path, at),
            Next::Probe => set_timer(&mut self.timers, slot, path, self.line.clock.now()),
            Next::Try(_) => {
                slot.running = true;
                self.ready.push_back(path.clone());
            }
            Next::Rest => {}
        }
    }

    /// Starts tries, as many as may run at once, in the order in which they became ready.
    fn dispatch(&mut self) {
        let Some(post) = &self.post else { return };
        while self.jobs.len() < self.max_jobs {
            let Some(path) = self.ready.pop_front() else { return };
            let Some(slot) = self.pairs.get_mut(&path) else { continue };
            let Some(finality) = slot.pair.trying() else { continue };
            // The versions that settled; should others lie there by now, the try starts over.
            let settled = slot.pair.sight();
            let sight = match &self.rule.mode {
                Mode::Verify(_) => settled,
                // With whichever signature lies beside it; settling did not look at that.
                Mode::Sign(_) => match look(post, &path) {
                    Ok(look) if look.sight.payload == settled.payload => look.sight,
                    Ok(_) | Err(_) => settled,
                },
            };
            let work = Try { path, sight, finality, known: slot.known.take() };
            let (attachment, run) = (self.attachment, Arc::clone(&self.line).run(Arc::clone(post), work));
            self.jobs.spawn(async move { (attachment, run.await) });
        }
    }

    /// Takes the end of a try.
    fn finish(&mut self, done: Result<(u64, Tried), tokio::task::JoinError>) {
        let tried = match done {
            Ok((attachment, _)) if attachment != self.attachment => return, // another directory's
            Ok((_, tried)) => tried,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic), // the daemon ends, and says so
                Err(_cancelled) => return,
            },
        };
        let now = self.line.clock.now();
        let Some(slot) = self.pairs.get_mut(&tried.path) else { return };
        slot.running = false;
        let touched = std::mem::take(&mut slot.touched);
        slot.known = tried.known;
        let ended = match tried.ending {
            Ending::Settled(settled) => {
                self.summary.settled(&settled, &tried.path);
                self.pairs.remove(&tried.path);
                self.recovered(&settled);
                if touched {
                    self.enter(tried.path, now); // what was decided may be about what no longer lies there
                }
                return;
            }
            Ending::Changed => Ended::Changed,
            Ending::NotYet => Ended::NotYet,
            Ending::Hold(hold) => {
                self.hold(&tried.path, hold);
                if touched {
                    self.look_soon(tried.path, now); // other versions are not held
                }
                return;
            }
        };
        slot.hold = None;
        slot.attempts = 0;
        let next = slot.pair.ended(now, ended, &self.timing);
        // Look again at once: it may have changed while it was tried.
        match next {
            Next::Gone => self.follow(&tried.path, next),
            Next::LookAt(_) | Next::Probe | Next::Try(_) | Next::Rest => {
                set_timer(&mut self.timers, slot, &tried.path, now);
            }
        }
    }

    /// Keeps a pair for a later try, and tells each cause once.
    fn hold(&mut self, path: &RelPath, hold: Hold) {
        let now = self.line.clock.now();
        if hold.is_fatal() {
            self.fatal.get_or_insert(hold.clone());
        }
        let count = self.told.entry(hold.as_str()).or_default();
        *count += 1;
        let file = Escaped::new(path.as_path());
        let (rule, cause, remedy) = (&self.rule.name, hold.as_str(), hold.remedy());
        match (*count, hold.needs_operator()) {
            (1, true) => tracing::error!(rule, %file, cause, reason = %hold, remedy, "held"),
            (1, false) => {
                tracing::warn!(rule, %file, cause, reason = %hold, remedy, "held; will be tried again")
            }
            _ => tracing::debug!(rule, %file, cause, reason = %hold, "held"),
        }
        let Some(slot) = self.pairs.get_mut(path) else { return };
        slot.attempts = slot.attempts.saturating_add(1);
        slot.hold = Some(hold);
        let until = now + back_off(slot.attempts, dice());
        let next = slot.pair.ended(now, Ended::Hold(until), &self.timing);
        if self.once && slot.attempts >= 2 {
            return; // retried once round; left, and listed
        }
        match next {
            Next::Gone => self.follow(path, next),
            Next::LookAt(_) | Next::Probe | Next::Try(_) | Next::Rest => {
                set_timer(&mut self.timers, slot, path, until);
            }
        }
    }

    /// Says that KMS and everything else works again, after it was told that they did not.
    fn recovered(&mut self, settled: &Settled) {
        if matches!(settled.outcome, Outcome::Refused) || self.told.is_empty() {
            return;
        }
        // What works for one may work for all. Not again and again: another key may still be in trouble.
        let now = self.line.clock.now();
        if now >= self.next_retry {
            self.next_retry = now + RETRY_ALL;
            self.retry_held();
        }
        if self.pairs.values().all(|slot| slot.hold.is_none()) {
            let causes: Vec<_> = self.told.drain().map(|(cause, _)| cause).collect();
            tracing::info!(rule = self.rule.name, causes = causes.join(","), "working again");
        }
    }

    async fn refuse(&mut self, post: &Post, path: &RelPath, sight: Sight, reason: String) {
        let row = self.line.state.remembered(&self.rule.name, path).await.ok().flatten();
        let told = |row: &Remembered| row.reason.as_ref() == Some(&reason) && is_of(post, row, &sight);
        if let Some(row) = row.filter(|row| row.outcome == Outcome::Refused && told(row)) {
            self.summary.already(row.outcome, row.reason.as_deref(), path);
            self.pairs.remove(path);
            return;
        }
        match self.line.refuse(post, path, sight, reason).await {
            Ending::Settled(settled) => {
                self.summary.settled(&settled, path);
                self.pairs.remove(path);
            }
            Ending::Hold(hold) => self.hold(path, hold),
            Ending::Changed | Ending::NotYet => {}
        }
    }

    /// Refuses a name that can have no signature, once for each version of the file.
    async fn refuse_name(&mut self, post: &Post, path: RelPath, why: &scan::Unsignable) {
        let dir = post.root.descend(path.parent());
        let stat = dir.and_then(|dir| dir.stat_of(path.name()));
        let Ok(Some(stat)) = stat else { return };
        if stat.kind == Kind::Directory {
            return;
        }
        let sight = Sight { payload: Some(stat.identity), signature: None };
        let row = self.line.state.remembered(&self.rule.name, &path).await.ok().flatten();
        let version = Some(Version::from(&stat.identity));
        if let Some(row) = row.filter(|row| row.outcome == Outcome::Refused && row.payload == version) {
            self.summary.already(row.outcome, row.reason.as_deref(), &path);
            return;
        }
        if let Ending::Settled(settled) = self.line.refuse(post, &path, sight, why.to_string()).await {
            self.summary.settled(&settled, &path);
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

/// Whether a remembered decision is about exactly what lies there now, under the same rule.
pub(super) fn is_decided(post: &Post, row: &Remembered, look: &Look, dry_run: bool) -> bool {
    // Where files go and what is done about bad ones is not in the fingerprint: what the rule asks for now and
    // was not done then is still to be done.
    let stays = post.rule.delivery().is_none();
    is_of(post, row, &look.sight)
        && match row.outcome {
            Outcome::Signed | Outcome::Adopted => stays && (row.signature.is_some() || dry_run),
            Outcome::Valid => stays,
            Outcome::Invalid => would_leave(post, row),
            // The rule may have become more generous since.
            Outcome::Refused => would_refuse_again(post, row, look),
            // A rehearsal leaves them in place, and says so once. Otherwise: the same pair is back.
            Outcome::Delivered | Outcome::Quarantined => dry_run,
            Outcome::Signing => false,
        }
}

/// Whether a remembered decision is about these versions, under the same rule.
fn is_of(post: &Post, row: &Remembered, sight: &Sight) -> bool {
    row.fingerprint == post.fingerprint
        && row.payload == sight.payload.as_ref().map(Version::from)
        && row.signature == sight.signature.as_ref().map(Version::from)
}

fn would_refuse_again(post: &Post, row: &Remembered, look: &Look) -> bool {
    let stale = row.reason.as_deref() == Some(super::line::STALE);
    match (&look.unfit, &post.rule.mode) {
        (Some(unfit), _) => row.reason.as_deref() == Some(&unfit.to_string()),
        (None, _) if row.reason.as_deref().is_some_and(Unfit::wrote) => false,
        (None, Mode::Sign(sign)) => !stale || sign.on_stale == OnStale::Report,
        (None, Mode::Verify(_)) => true, // for the context it would need, which the fingerprint covers
    }
}

/// Whether an invalid pair that was left would be left again.
fn would_leave(post: &Post, row: &Remembered) -> bool {
    match &post.rule.mode {
        Mode::Verify(rule) if row.reason.as_deref() == Some(Reason::Missing.as_str()) => {
            rule.on_missing == OnInvalid::Log
        }
        Mode::Verify(rule) => rule.on_invalid == OnInvalid::Log,
        Mode::Sign(_) => false,
    }
}

/// Why a signature is left although it is of no use.
const ORPHAN: &str = "a signature without its file; it is kept, and judged when the file comes";

fn is_directory(post: &Post, below: &Path) -> bool {
    let Some((parent, name)) = below.parent().zip(below.file_name()) else { return false };
    let stat = post.root.descend(parent).and_then(|dir| dir.stat_of(name));
    stat.is_ok_and(|stat| stat.is_some_and(|stat| stat.kind == Kind::Directory))
}

/// What `statx` says of a pair. A signature that is no regular file counts as none (A2).
pub(super) fn look(post: &Post, path: &RelPath) -> Result<Look, FsError> {
    let dir = match post.root.descend(path.parent()) {
        Ok(dir) => dir,
        Err(e)
            if matches!(
                e.source,
                rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP
            ) =>
        {
            return Ok(Look { sight: Sight::default(), unfit: None });
        }
        Err(e) => return Err(e),
    };
    let payload = dir.stat_of(path.name())?.filter(|stat| stat.kind != Kind::Directory);
    let signature = dir.stat_of(&signature_name(path.name()))?.filter(|stat| stat.kind == Kind::File);
    Ok(Look {
        sight: Sight {
            payload: payload.as_ref().map(|stat| stat.identity),
            signature: signature.map(|stat| stat.identity),
        },
        unfit: payload
            .and_then(|stat| post.fitness().check(&stat).err())
            .or_else(|| signature.and_then(|stat| post.signature_fitness().check(&stat).err())),
    })
}

/// Asks the lease about both files of a pair. What cannot be opened is unknown here; the try will say why.
fn probe(post: &Post, path: &RelPath, sight: Sight) -> Writer {
    let Ok(dir) = post.root.descend(path.parent()) else { return Writer::Unknown };
    let ask = |name: &std::ffi::OsStr| match dir.open_file(name, &post.fitness()) {
        Ok((file, _)) => lease::probe(&file),
        Err(OpenError::Io(e)) if e.source == rustix::io::Errno::WOULDBLOCK => Writer::Present,
        Err(OpenError::Gone | OpenError::Unfit(_) | OpenError::Io(_)) => Writer::Unknown,
    };
    let payload = ask(path.name());
    match (sight.signature, &post.rule.mode) {
        (Some(_), Mode::Verify(_)) => payload.and(ask(&signature_name(path.name()))),
        _ => payload,
    }
}

/// In `--once`: whether a pair that waits for grace or its signature has been as it is for longer than that,
/// by the files' own ctime, and nobody is writing.
fn is_old_enough(sight: &Sight, pair: &Pair, timing: &Timing, post: &Post, path: &RelPath) -> bool {
    let writer = probe(post, path, *sight);
    let wait = match (sight.signature, writer) {
        (_, Writer::Present) => return false,
        (None, _) => timing.signature_timeout,
        (Some(_), Writer::Absent) => timing.grace_leased,
        (Some(_), Writer::Unknown) => timing.grace_unleased,
    };
    let ages =
        [pair.sight().payload, pair.sight().signature].into_iter().flatten().map(|i| clock::age(i.ctime));
    ages.min().is_some_and(|youngest| youngest >= wait)
}

/// A time between three and five quarters of `pause`, so that many rules do not scan at once.
fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(0.75 + dice() / 2.0)
}

/// Uniform in 0..1.
fn dice() -> f64 {
    f64::from(random()) / (f64::from(u32::MAX) + 1.0)
}

/// Any of 0..`len`; 0 of nothing.
fn pick(len: usize) -> usize {
    (random() as usize).checked_rem(len).unwrap_or_default()
}

fn random() -> u32 {
    let mut bytes = [0_u8; 4];
    // Only spreads load; a failure of the generator may make it constant.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).unwrap_or_default();
    u32::from_ne_bytes(bytes)
}

impl<K: Kms> Driver<K> {
    fn new_hints(&self) -> Option<Hints> {
        match Hints::new() {
            Ok(hints) => Some(hints),
            Err(error) => {
                tracing::error!(rule = self.rule.name, %error, "no events; scanning often instead");
                None
            }
        }
    }

    /// Whether another directory stands at the rule's path by now. Then the old one is let go.
    fn has_moved(&mut self, post: &Post) -> bool {
        let now = crate::fs::stat_path(&self.rule.path).ok().flatten();
        let then = post.root.stat().ok();
        let same = match (now, then) {
            (Some(now), Some(then)) => {
                (now.identity.dev, now.identity.ino, now.mount)
                    == (then.identity.dev, then.identity.ino, then.mount)
            }
            _ => false,
        };
        if !same {
            tracing::error!(
                rule = self.rule.name,
                path = %quoted(&self.rule.path),
                "the watched directory was replaced or removed; holding until it is there"
            );
            self.let_go();
        }
        !same
    }

    fn detach(&mut self, error: &FsError) {
        tracing::error!(rule = self.rule.name, error = %Hold::Fs(error.clone()), "the watched directory cannot be read");
        self.let_go();
        // It could be opened and not read, and may be so again at once.
        self.next_attach = self.line.clock.now() + REATTACH;
        self.attach_told = Some(Hold::Fs(error.clone()).to_string());
    }

    fn let_go(&mut self) {
        self.post = None;
        self.attachment += 1;
        self.hints = None;
        self.cookie_due = None;
        self.timers.clear();
        self.ready.clear();
        self.pairs.retain(|_, slot| {
            slot.timer = None;
            false
        });
        self.next_attach = self.line.clock.now();
    }
}
