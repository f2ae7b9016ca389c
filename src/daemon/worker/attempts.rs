//! Attempts: which pairs are observed, attempted and held, and what follows from the results.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;

use crate::blocking::ended;
use crate::clock::Moment;
use crate::daemon::batcher::Batcher;
use crate::daemon::pipeline::{Attempt, AttemptOutcome, AttemptResult, Facts, Refusal, Settled};
use crate::daemon::site::decided::is_refused_still;
use crate::daemon::site::{Backend, Site, VersionOf};
use crate::daemon::summary::Left;
use crate::daemon::worker::{PairState, Worker, age, is_old_enough, jitter, set_timer};
use crate::escape::Escaped;
use crate::fs::RelPath;
use crate::fs::lease::Writer;
use crate::hold::{Announcement, Hold, back_off};
use crate::kms::Kms;
use crate::message::log;
use crate::policy::{Mode, Place, VerifyRule};
use crate::settle::{Activity, AttemptEnd, Next, PairVersion, Sample, Worry};
use crate::sink::Sink as _;
use crate::source::Source as _;
use crate::state::reason::RefusalReason;
use crate::state::{Outcome, Remembered};

/// Shortest time between two retries of all held files.
const RETRY_ALL: Duration = Duration::from_secs(30);
/// How long a second hard link must be seen before a file is refused for it.
const LINKS_STAY: Duration = Duration::from_secs(3);
/// How many looks at a pair, one shortly after the other, may follow from a hint that somebody has
/// closed a file of it: the kernel tells that a little before it is so, to a lease.
pub(super) const HINTED: u8 = 5;
/// What is waited longer before each of them; nothing before the second.
const CLOSING: Duration = Duration::from_millis(1);
/// Between looks whether the other file of a pair has followed.
const HALF_MOVED_LOOK: Duration = Duration::from_secs(1);
/// Pairs observed before results and orders are handled again.
const LOOKS: usize = 512;

impl<K: Kms, B: Backend> Worker<K, B> {
    /// Observes pairs that are due, a limited number at a time: it may write to state, and results
    /// and a stop order must not wait for that.
    pub(crate) async fn run_timers(&mut self, now: Moment) {
        let Some(site) = self.site.clone() else { return };
        let mut refusals = Vec::new();
        for _ in 0..LOOKS {
            let Some((at, path)) = self.timers.first().cloned() else { break };
            if at > now {
                break;
            }
            self.timers.pop_first();
            if let Some(entry) = self.pairs.get_mut(&path) {
                entry.timer = None;
                refusals.extend(self.look_at(&site, &path).await);
            }
        }
        self.refuse(&site, refusals).await;
    }

    /// Observes one pair and follows the state machine. A refusal is returned for the caller to
    /// record.
    async fn look_at(&mut self, site: &Arc<Site<B>>, path: &RelPath) -> Option<Refusal<VersionOf<B>>> {
        let observed = match self.heartbeat.at_source(site.source.observe(path)).await {
            Ok(observed) => observed,
            Err(error) => {
                self.hold(path, Hold::Fs(error));
                return None;
            }
        };
        let refusal = |reason| {
            let (path, versions) = (path.clone(), observed.versions.clone());
            Some(Refusal { path, versions, reason, facts: Facts::default() })
        };
        let activity = self.heartbeat.at_source(site.source.probe(path, &observed.versions)).await;
        let (now, want) = (self.pipeline.clock.now(), self.want());
        let entry = self.pairs.get_mut(path).filter(|entry| !entry.running)?;
        entry.owner = observed.owner;
        let versions = want.versions(observed.versions.clone());
        // If the pair is gone, `follow` reports what held it.
        if *entry.pair.versions() != versions && versions != PairVersion::NONE {
            entry.hold = None;
            entry.attempts = 0;
        }
        let age = if self.once { age(&versions).unwrap_or_default() } else { Duration::ZERO };
        let mut next = entry.pair.seen(now, &Sample { versions, activity, age }, &self.timing);
        entry.linked_since = match &observed.unfit {
            Some(unfit) if unfit.may_pass() => entry.linked_since.or(Some(now)),
            Some(_) | None => None,
        };
        // Not before it is quiet: a sender who publishes by link and unlink has two links for a
        // moment, and some file systems count one that is gone for a second more.
        // `--once` leaves a signature without its file, whatever it is.
        let is_left = self.once && entry.pair.versions().payload.is_none();
        let is_quiet = entry.pair.is_quiet(now, &self.timing);
        if let Some(unfit) = observed.unfit.clone().filter(|_| is_quiet && !is_left) {
            entry.pair.postpone();
            let sure = entry.linked_since.map_or(now, |since| since + LINKS_STAY);
            if now >= sure {
                return refusal(unfit);
            }
            self.follow(path, Next::LookAt(sure));
            return None;
        }
        match entry.pair.worry(now, &self.timing) {
            Some(Worry::NeverSettles) => {
                let file = Escaped::new(path.as_path());
                log!(StillChanging, rule = self.rule.name, %file);
            }
            Some(Worry::Orphan) => {
                // Remembered in state instead of kept in memory; the arrival of its payload makes a
                // new version.
                return refusal(RefusalReason::OrphanSignature);
            }
            None => {}
        }
        let hinted = std::mem::take(&mut entry.hinted);
        if hinted > 0 && activity.writer == Writer::Present && matches!(next, Next::LookAt(_)) {
            entry.hinted = hinted - 1;
            next = Next::LookAt(now + CLOSING.saturating_mul(u32::from(HINTED.saturating_sub(hinted))));
        } else if hinted > 0
            && observed.unfit.is_none()
            && can_count_early(&self.rule.mode, activity)
            && entry.pair.may_be_early(now, &self.timing)
            && self.early.take(path, now)
        {
            next = entry.pair.attempt_early();
        }
        if self.once && entry.pair.waits_for_time(now, &self.timing) {
            let is_old = is_old_enough(entry.pair.versions(), activity, &self.timing);
            next = if is_old { entry.pair.hurry(now) } else { Next::Rest };
        }
        if next == Next::Gone {
            self.heartbeat.at_source(site.source.acknowledge(path)).await; // nothing is left to do
            self.is_gone(path);
        }
        self.follow(path, next);
        None
    }

    pub(crate) fn follow(&mut self, path: &RelPath, next: Next) {
        let Some(entry) = self.pairs.get_mut(path) else { return };
        match next {
            Next::Gone => {
                let gone = self.pairs.remove(path);
                if let Some(hold) = gone.and_then(|entry| entry.hold).filter(|_| self.once) {
                    // It was moved before a later step failed, or removed by somebody: its outcome
                    // is not recorded yet.
                    let why = format!("gone while held ({}): {hold}; run again", hold.as_str());
                    self.summary.left(Left { path: Some(path.clone()), why });
                }
            }
            Next::LookAt(at) => set_timer(&mut self.timers, entry, path, at),
            Next::Attempt(_) => {
                let Some(site) = &self.site else { return };
                entry.running = true;
                self.ready.push(&site.sender(entry.owner), path.clone());
            }
            Next::Rest => {}
        }
    }

    /// Starts attempts up to the limit: senders in turn, and those of one sender in the order in
    /// which they became ready.
    pub(crate) async fn dispatch(&mut self) {
        let Some(site) = self.site.clone() else { return };
        // Attempts that only wait for their batch do not count against the limit.
        let max_jobs = self.max_jobs + site.batcher.as_ref().map_or(0, Batcher::max_files);
        while self.jobs.len() < max_jobs {
            let Some(path) = self.ready.pop(|_| false) else { return };
            let Some(entry) = self.pairs.get_mut(&path) else { continue };
            let Some(finality) = entry.pair.attempt() else {
                entry.running = false; // otherwise it would never be observed again
                self.hold(&path, Hold::Internal("a file has its turn that is not ready"));
                return;
            };
            // The versions that settled; if others are there by now, the pair starts over.
            let (settled, known, owner) = (entry.pair.versions().clone(), entry.known.take(), entry.owner);
            let versions = match &self.rule.mode {
                Mode::Verify(_) => settled,
                // With the present signature, which settling does not observe in a sign rule.
                Mode::Sign(_) => match self.heartbeat.at_source(site.source.observe(&path)).await {
                    Ok(observed) if observed.versions.payload == settled.payload => observed.versions,
                    Ok(_) | Err(_) => settled,
                },
            };
            let work = Attempt { path, versions, finality, known, owner };
            let (attachment, run) =
                (self.attachment, Arc::clone(&self.pipeline).run(Arc::clone(&site), work));
            self.jobs.spawn(async move { (attachment, run.await) });
        }
    }

    /// Handles the result of an attempt.
    pub(crate) fn finish(&mut self, done: Result<(u64, AttemptResult), JoinError>) {
        let Some((attachment, result)) = ended(done) else { return };
        if attachment != self.attachment {
            return; // the result is about an earlier attachment
        }
        let now = self.pipeline.clock.now();
        let Some(entry) = self.pairs.get_mut(&result.path) else { return };
        entry.running = false;
        let touched = std::mem::take(&mut entry.touched);
        let signature_touched = std::mem::take(&mut entry.signature_touched);
        entry.known = result.known;
        let ended = match result.outcome {
            AttemptOutcome::Settled(settled) => {
                if settled.is_repeated {
                    self.summary.already(settled.outcome, settled.reason.as_ref(), &result.path);
                    self.rule_status.count_repeated();
                } else {
                    self.summary.settled(&settled, &result.path);
                    self.rule_status.count(settled.outcome);
                }
                self.pairs.remove(&result.path);
                self.recovered(&settled);
                self.early.decided();
                self.rechecks.refused(&result.path, settled.reason.as_ref(), now);
                if settled.outcome == Outcome::Refused || !self.refused_now.is_empty() {
                    self.recount_soon();
                }
                if self.refused_now.contains_key(RefusalReason::StraySignature.as_str())
                    && let Some(signature) = self.rule.signature_path(&result.path)
                {
                    self.is_gone(&signature); // what lies there has its file by now
                }
                if touched {
                    self.enter(result.path, now); // the decision may be about versions that are gone by now
                } else if signature_touched {
                    self.signature_changed(result.path, now); // by this attempt, most likely
                }
                return;
            }
            AttemptOutcome::Changed => AttemptEnd::Changed,
            AttemptOutcome::Touched(digest) => {
                let before = entry.touched_as.replace(digest.clone());
                let is_same = before.is_some_and(|before| before.matches(digest.as_bytes()));
                if is_same && !std::mem::replace(&mut self.touch_told, true) {
                    let file = Escaped::new(result.path.as_path());
                    let settle = humantime::format_duration(self.timing.settle);
                    log!(ReadingChangesTimes, rule = self.rule.name, %file, %settle);
                }
                if is_same { AttemptEnd::Touched } else { AttemptEnd::Changed }
            }
            AttemptOutcome::NotYet => AttemptEnd::NotYet,
            AttemptOutcome::TooEarly => AttemptEnd::TooEarly,
            AttemptOutcome::HalfMoved => AttemptEnd::Hold(now + HALF_MOVED_LOOK),
            AttemptOutcome::Hold(hold) => {
                self.hold(&result.path, hold);
                if touched {
                    self.look_soon(result.path, now); // the hold does not apply to other versions
                }
                return;
            }
        };
        entry.hold = None;
        entry.attempts = 0;
        let next = entry.pair.ended(now, ended, &self.timing);
        // Observe it at once: it may have changed during the attempt.
        match next {
            Next::Gone => self.follow(&result.path, next),
            Next::LookAt(_) | Next::Attempt(_) | Next::Rest => {
                set_timer(&mut self.timers, entry, &result.path, now);
            }
        }
    }

    /// Holds a pair for a later attempt. Logs each cause once, and again if it lasts so long that
    /// an operator is needed.
    pub(crate) fn hold(&mut self, path: &RelPath, hold: Hold) {
        let now = self.pipeline.clock.now();
        if hold.is_fatal() {
            self.fatal.get_or_insert(hold.clone());
        }
        if let (Hold::Moved { path }, Some(site)) = (&hold, &self.site)
            && site.sink.is_destination(path)
        {
            self.next_scan = now; // which attaches the rule again
        }
        let held = self.pairs.get(path).filter(|entry| entry.hold.is_some());
        let lasted = held.map_or(Duration::ZERO, |entry| now.saturating_sub(entry.held_since));
        let file = Escaped::new(path.as_path());
        let (rule, cause, hint) = (&self.rule.name, hold.as_str(), hold.hint());
        match self.announced.announce(&hold, lasted) {
            Some(Announcement::Alarm) => {
                log!(Held, rule, %file, cause, reason = %hold, hint)
            }
            Some(Announcement::Passing) => {
                log!(HeldRetrying, rule, %file, cause, reason = %hold, hint)
            }
            None => tracing::debug!(rule, %file, cause, reason = %hold, "held"),
        }
        let Some(entry) = self.pairs.get_mut(path) else { return };
        entry.attempts = entry.attempts.saturating_add(1);
        self.rule_status.count_hold(hold.as_str());
        if entry.hold.replace(hold).is_none() {
            entry.held_since = now;
        }
        let until = now + back_off(entry.attempts, jitter::uniform());
        // If observing failed, no attempt has ended.
        let next = match entry.pair.attempt() {
            Some(_) => entry.pair.ended(now, AttemptEnd::Hold(until), &self.timing),
            None => Next::LookAt(until),
        };
        if self.once && entry.attempts >= 2 {
            return; // it was attempted twice: left, and listed
        }
        match next {
            Next::Gone => self.follow(path, next),
            Next::LookAt(_) | Next::Attempt(_) | Next::Rest => {
                set_timer(&mut self.timers, entry, path, until);
            }
        }
    }

    /// Logs that the causes of holds are over, if they were logged.
    pub(crate) fn recovered(&mut self, settled: &Settled) {
        if matches!(settled.outcome, Outcome::Refused) || self.announced.is_empty() {
            return;
        }
        // One success may mean success for all. Limited in rate, because another key may still
        // fail.
        let now = self.pipeline.clock.now();
        if now >= self.next_retry {
            self.next_retry = now + RETRY_ALL;
            self.retry_held();
        }
        if self.pairs.values().all(|entry| entry.hold.is_none()) {
            let causes: Vec<_> = self.announced.clear().collect();
            log!(HoldsEnded, rule = self.rule.name, causes = causes.join(","));
        }
    }

    /// Retries every pair that is held for KMS now, longest waiting first.
    pub(crate) fn retry_held(&mut self) {
        self.retry(|hold| matches!(hold, Hold::Kms(_) | Hold::WhoseSignature(_)));
    }

    /// Retries every pair with a hold of this kind now, longest waiting first.
    pub(crate) fn retry(&mut self, like_this: impl Fn(&Hold) -> bool) {
        let now = self.pipeline.clock.now();
        let is_held = |entry: &PairState<VersionOf<B>>| entry.hold.as_ref().is_some_and(&like_this);
        let mut held: Vec<(Moment, RelPath)> = self
            .pairs
            .iter()
            .filter(|(_, entry)| is_held(entry) && !entry.running)
            .map(|(path, entry)| (entry.first_seen, path.clone()))
            .collect();
        held.sort();
        for (place, (_, path)) in held.into_iter().enumerate() {
            if let Some(entry) = self.pairs.get_mut(&path) {
                entry.pair.retry_now(now);
                // A nanosecond apart: the order of the timers is the order of the queue.
                let at = now + Duration::from_nanos(place as u64);
                set_timer(&mut self.timers, entry, &path, at);
            }
        }
    }

    /// Refuses files whose present version was not refused before, in one commit.
    pub(crate) async fn refuse(&mut self, site: &Site<B>, refusals: Vec<Refusal<VersionOf<B>>>) {
        if refusals.is_empty() {
            return;
        }
        let now = self.pipeline.clock.now();
        let paths = refusals.iter().map(|refusal| refusal.path.clone()).collect();
        let asked = self.pipeline.state.remembered_all(&self.rule.name, paths);
        let rows = self.heartbeat.at_state(asked).await.unwrap_or_default();
        let rows: HashMap<RelPath, Option<Remembered>> = rows.into_iter().collect();
        let mut new = Vec::new();
        for refusal in refusals {
            match rows.get(&refusal.path) {
                Some(Some(row)) if is_refused_still(site, row, &refusal.versions, &refusal.reason) => {
                    self.summary.already(row.outcome, row.reason.as_ref(), &refusal.path);
                    self.rechecks.refused(&refusal.path, row.reason.as_ref(), now);
                    self.heartbeat.at_source(site.source.acknowledge(&refusal.path)).await;
                    self.pairs.remove(&refusal.path);
                }
                _ => new.push(refusal),
            }
        }
        self.refused += new.len();
        if !new.is_empty() {
            self.recount_soon();
        }
        let paths: Vec<RelPath> = new.iter().map(|refusal| refusal.path.clone()).collect();
        match self.heartbeat.at_state(self.pipeline.refuse(site, new)).await {
            Ok(settled) => {
                for (path, settled) in paths.iter().zip(settled) {
                    self.heartbeat.at_source(site.source.acknowledge(path)).await;
                    self.summary.settled(&settled, path);
                    self.rule_status.count(settled.outcome);
                    self.rechecks.refused(path, settled.reason.as_ref(), now);
                    self.pairs.remove(path);
                }
            }
            Err(hold) => paths.iter().for_each(|path| self.hold(path, hold.clone())),
        }
    }

    /// Records the count of refusals that exceeded the quota, when the window is over.
    pub(crate) async fn sum_up(&mut self, is_end: bool) {
        let Some(site) = &self.site else { return };
        if let Err(hold) = self.pipeline.sum_up(site, is_end).await
            && hold.is_fatal()
        {
            self.fatal.get_or_insert(hold);
        }
    }
}

/// Whether an early attempt can count. What is delivered is the private copy that was verified
/// (P3); of what stays where it lies, nobody may be writing to it.
fn can_count_early(mode: &Mode, activity: Activity) -> bool {
    match mode {
        Mode::Verify(VerifyRule { place: Place::Deliver(_), .. }) => true,
        Mode::Verify(VerifyRule { place: Place::InPlace, .. }) => activity.writer == Writer::Absent,
        Mode::Sign(_) => false,
    }
}
