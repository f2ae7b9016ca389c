//! When is a file, or a pair, complete? A pure state machine with injected time.
//!
//! A [`Pair`] is fed samples, what `statx` and the lease say at one moment, and answers what to do
//! next. It reads no clock, no disk and no event. Its rules, from the design:
//!
//! - A file is quiet when samples at least `settle` apart, the first and the last of them, show the
//!   same versions, and none of those in between shows others.
//! - To be signed it must be quiet, and no sample since then, the first included, may have shown a
//!   writer: quiet counts from when the last writer was gone, as far as samples tell.
//! - A pair to be verified is attempted once per quiet identity, writer or not, because a valid
//!   signature is the best proof of completeness. That it does not verify is final only after the
//!   pair stayed unchanged, with no writer seen, for `grace`; a missing signature is final after
//!   `signature_timeout`.
//! - A control file of a downloader beside the payload counts as a writer does.
//! - A file to be signed that was moved in under its name is complete without being quiet, when
//!   samples a moment apart show it unchanged and the lease says that nobody writes. Whatever else
//!   happens to its name voids that.
//! - A pair to be verified may be tried before it is quiet; whatever but valid comes of that counts
//!   for nothing.
//! - Nothing is given up: a pair that never settles is reported and stays watched.

use std::time::Duration;

use crate::clock::{FileTime, Moment};
use crate::fs::Identity;
use crate::fs::lease::Writer;

/// How far apart the two samples are that must show a file unchanged after it was moved in.
const SAMPLES_APART: Duration = Duration::from_millis(10);

/// The longest time between two looks at what somebody is at, unless `settle` is longer.
const BUSY: Duration = Duration::from_secs(60);

/// The waits of one rule.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How long a file must be unchanged.
    pub settle: Duration,
    /// How long an invalid pair must stay unchanged where the lease says that nobody writes.
    pub grace_leased: Duration,
    /// The same where the kernel cannot say who writes.
    pub grace_unleased: Duration,
    /// How long a payload waits for its signature.
    pub signature_timeout: Duration,
    /// A pair that has not been quiet for this long is reported.
    pub never_settles: Duration,
}

/// What the rule does with a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// A signature for the payload; a `.sig` beside it is not this module's business.
    Sign,
    /// A verdict on both.
    Verify,
}

impl Want {
    /// The versions that settling depends on.
    pub(crate) fn versions<V>(self, versions: PairVersion<V>) -> PairVersion<V> {
        match self {
            Self::Sign => PairVersion { signature: None, ..versions },
            Self::Verify => versions,
        }
    }
}

/// How a source tells versions of a file apart.
pub trait FileVersion: Clone + PartialEq {
    /// Whether it is the same file of the same size, whatever its times.
    fn is_same_file(&self, other: &Self) -> bool;

    /// Whether whoever gave it its name has marked it as incomplete.
    fn is_marked_incomplete(&self) -> bool;
}

impl FileVersion for Identity {
    fn is_same_file(&self, other: &Self) -> bool {
        self.is_touched_from(other)
    }

    /// rsync(1) gives what it keeps of an interrupted transfer (`--partial`) its final name and a
    /// modification time of 0.
    fn is_marked_incomplete(&self) -> bool {
        self.mtime == FileTime { seconds: 0, nanos: 0 }
    }
}

/// Which versions of payload and signature lie there; `V` is how their source tells versions apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PairVersion<V> {
    /// The payload.
    pub payload: Option<V>,
    /// The signature; never looked at when signing.
    pub signature: Option<V>,
}

impl<V> PairVersion<V> {
    /// Nothing is there.
    pub(crate) const NONE: Self = Self { payload: None, signature: None };

    /// Whether the payloads are the same file.
    fn is_same_payload(&self, other: &Self) -> bool
    where
        V: FileVersion,
    {
        self.payload.as_ref().zip(other.payload.as_ref()).is_some_and(|(a, b)| a.is_same_file(b))
    }

    /// The payload alone.
    pub(crate) const fn of_payload(payload: V) -> Self {
        Self { payload: Some(payload), signature: None }
    }
}

/// Whether an invalid verdict of an attempt is final, or the pair may still be arriving.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finality {
    /// Only a valid verdict counts, and the pair was not quiet before.
    Early,
    /// Only a valid verdict counts; an invalid one may be an upload in progress.
    Provisional,
    /// Any verdict counts.
    Final,
}

/// How long a file is let be at most, where reading it is what changes it.
const SLOWEST: Duration = Duration::from_secs(5 * 60);

/// The same at least.
const SLOW: Duration = Duration::from_secs(1);

/// What shows that a pair may be incomplete, whatever `statx` says of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Activity {
    /// What the lease says about writers.
    pub(crate) writer: Writer,
    /// Whether a control file of a downloader lies beside the payload.
    pub(crate) has_control_file: bool,
}

impl Activity {
    /// None of it is known.
    pub const UNKNOWN: Self = Self { writer: Writer::Unknown, has_control_file: false };

    /// Whether somebody is at it.
    pub(crate) const fn is_busy(self) -> bool {
        matches!(self.writer, Writer::Present) || self.has_control_file
    }
}

/// A pair at one moment.
#[derive(Debug, Clone)]
pub struct Sample<V> {
    /// The versions that settling depends on.
    pub versions: PairVersion<V>,
    /// Whether somebody is at it.
    pub activity: Activity,
    /// For how long the versions have been as they are by their source's own clock, where that
    /// counts (`--once`). Otherwise zero.
    pub age: Duration,
}

/// What to do with a pair now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Forget it: nothing is there.
    Gone,
    /// Take another sample at this moment, or when a hint comes.
    LookAt(Moment),
    /// Attempt it.
    Attempt(Finality),
    /// Leave it until something changes.
    Rest,
}

/// How an attempt ended, as far as settling is concerned. A pair that is done leaves the state
/// machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttemptEnd {
    /// It changed meanwhile, or was being written: start over.
    Changed,
    /// Its times changed while it was read, and its content is what it was the time before: start
    /// over, and leave it alone for longer.
    Touched,
    /// It was not quiet yet, and what was found says nothing.
    TooEarly,
    /// Invalid, but provisionally.
    NotYet,
    /// No verdict was possible; attempt it again at this moment.
    Hold(Moment),
}

/// A condition that is reported to an operator once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Worry {
    /// It has been changing for `never_settles`, or kept from being judged for that long.
    NeverSettles,
    /// A signature has waited `signature_timeout` for its payload.
    Orphan,
}

/// The state of one payload name of a rule, until it is decided.
#[derive(Debug, Clone)]
pub struct Pair<V> {
    want: Want,
    versions: PairVersion<V>,
    /// When the present versions were first seen.
    since: Moment,
    /// When a sample first showed that nobody was at the present versions, and none has shown
    /// anybody since; `None` while the last one did.
    idle_since: Option<Moment>,
    /// For how long they had been unchanged and idle before they were first seen.
    age: Duration,
    /// When it was last known to be quiet, or was first seen. For [`Worry::NeverSettles`].
    restless_since: Moment,
    /// When waiting for a final verdict began: when it was first seen, or whatever last ended that
    /// wait. Neither changes nor writers begin it anew.
    unjudged_since: Moment,
    activity: Activity,
    step: Step,
    worried: bool,
    /// Whether it was reported that it comes to no final verdict.
    is_told_unjudged: bool,
    /// How often reading it changed its times.
    touched: u32,
    /// When it may be read again after that.
    not_before: Moment,
    rename: Rename,
}

/// What is known of how a file to be signed got its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rename {
    /// Nothing that proves it complete.
    Unknown,
    /// It was moved in; no sample has shown it since.
    Announced,
    /// A sample showed it then, as it still is.
    Seen(Moment),
}

/// When a pair is to be attempted, as far as that is known.
enum Due {
    Gone,
    Never,
    /// Not known: another sample at this moment tells more.
    Look(Moment),
    Attempt(Moment, Finality),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Waiting to become quiet.
    Settling,
    /// An attempt is running; the versions may change meanwhile.
    Attempting(Finality),
    /// An attempt of this kind found it invalid, provisionally; waiting for grace.
    Doubted(Finality),
    /// Held until a moment; then attempted again.
    Held(Moment, Finality),
}

impl<V: FileVersion> Pair<V> {
    /// A name that was just seen.
    pub const fn new(want: Want, now: Moment, versions: PairVersion<V>) -> Self {
        Self {
            want,
            versions,
            since: now,
            idle_since: None,
            age: Duration::ZERO,
            restless_since: now,
            unjudged_since: now,
            activity: Activity::UNKNOWN,
            step: Step::Settling,
            worried: false,
            is_told_unjudged: false,
            touched: 0,
            not_before: Moment::ZERO,
            rename: Rename::Unknown,
        }
    }

    /// The versions last seen.
    pub(crate) const fn versions(&self) -> &PairVersion<V> {
        &self.versions
    }

    /// When the present versions were first seen.
    pub(crate) const fn since(&self) -> Moment {
        self.since
    }

    /// The finality of the running attempt, if there is one.
    pub(crate) const fn attempt(&self) -> Option<Finality> {
        match self.step {
            Step::Attempting(finality) => Some(finality),
            Step::Settling | Step::Doubted(_) | Step::Held(..) => None,
        }
    }

    /// Whether somebody was at these versions when they were last seen.
    pub(crate) const fn activity(&self) -> Activity {
        self.activity
    }

    /// Whether an attempt found it invalid, provisionally, and it waits for grace.
    pub(crate) const fn is_doubted(&self) -> bool {
        matches!(self.step, Step::Doubted(_))
    }

    /// Takes a sample.
    pub fn seen(&mut self, now: Moment, sample: &Sample<V>, timing: &Timing) -> Next {
        let is_same_file = self.versions.is_same_payload(&sample.versions);
        if self.versions != sample.versions {
            self.versions = sample.versions.clone();
            self.restart(now);
            self.age = sample.age;
        }
        if self.versions.payload.is_none() {
            self.unjudged_since = now; // there is nothing to judge
        }
        self.activity = sample.activity;
        self.rename = self.rename_at(now, is_same_file);
        if self.activity.is_busy() {
            self.break_quiet();
        } else {
            self.idle_since.get_or_insert(now);
        }
        match self.due(now, timing) {
            Due::Gone => Next::Gone,
            Due::Never => Next::Rest,
            Due::Attempt(at, finality) if now >= at => self.attempt_now(now, finality),
            Due::Attempt(at, _) | Due::Look(at) => Next::LookAt(at),
        }
    }

    /// The attempt that was to begin does not: the next sample tells when another is due.
    pub(crate) const fn postpone(&mut self) {
        if matches!(self.step, Step::Attempting(_)) {
            self.step = Step::Settling;
        }
    }

    /// Somebody is said to have begun or closed one of the files, perhaps one that no sample
    /// showed: quiet begins anew with the next sample. Where nobody says so, samples alone tell.
    pub(crate) const fn written(&mut self) {
        self.break_quiet();
        self.rename = Rename::Unknown;
        if let Step::Doubted(Finality::Early) = self.step {
            self.step = Step::Settling;
        }
    }

    /// The file to be signed is said to have been moved in under its name: what the next sample
    /// shows is that file, unless [`Pair::written`] comes first.
    pub(crate) const fn moved_in(&mut self) {
        self.rename = Rename::Announced;
    }

    /// Whether it can be attempted before it is quiet: a pair to be verified that is there whole,
    /// with nobody at it.
    pub(crate) fn may_be_early(&self, now: Moment, timing: &Timing) -> bool {
        self.want == Want::Verify
            && self.step == Step::Settling
            && self.versions.payload.is_some()
            && self.versions.signature.is_some()
            && !self.activity.is_busy()
            && !self.is_quiet(now, timing)
            && now >= self.not_before
    }

    /// Attempts it before it is quiet.
    pub(crate) const fn attempt_early(&mut self) -> Next {
        self.step = Step::Attempting(Finality::Early);
        Next::Attempt(Finality::Early)
    }

    /// Takes the end of an attempt. `now` is when it ended.
    pub(crate) fn ended(&mut self, now: Moment, ended: AttemptEnd, timing: &Timing) -> Next {
        let Step::Attempting(finality) = self.step else {
            return self.next(now, timing); // the versions changed meanwhile; the attempt was of the old ones
        };
        match ended {
            AttemptEnd::Changed => self.restart(now),
            AttemptEnd::Touched => {
                self.touched = self.touched.saturating_add(1);
                self.restart(now);
                self.not_before = now + self.let_be(timing);
            }
            AttemptEnd::TooEarly => self.step = Step::Settling,
            AttemptEnd::NotYet => self.step = Step::Doubted(finality),
            AttemptEnd::Hold(until) => {
                self.unjudged_since = now; // a hold is reported as such
                self.step = match finality {
                    Finality::Early => {
                        Step::Held(until.max(self.since + timing.settle), Finality::Provisional)
                    }
                    Finality::Provisional | Finality::Final => Step::Held(until, finality),
                }
            }
        }
        self.next(now, timing)
    }

    /// What to report to an operator: at most one condition until the pair is attempted.
    pub(crate) fn worry(&mut self, now: Moment, timing: &Timing) -> Option<Worry> {
        // A pair to be signed counts as quiet only when it is attempted: until then a writer may
        // have it open.
        if self.want == Want::Verify && self.is_quiet(now, timing) {
            self.restless_since = now;
        }
        if self.is_overdue(now, timing) && !std::mem::replace(&mut self.is_told_unjudged, true) {
            return Some(Worry::NeverSettles);
        }
        if self.worried {
            return None;
        }
        let worry = match (&self.versions.payload, &self.versions.signature) {
            (None, Some(_)) if now >= self.since.saturating_add(timing.signature_timeout) => Worry::Orphan,
            (Some(_), _)
                if self.step == Step::Settling && now >= self.restless_since + timing.never_settles =>
            {
                Worry::NeverSettles
            }
            _ => return None,
        };
        self.worried = true;
        Some(worry)
    }

    /// Whether a pair to be verified has waited for a final verdict for `never_settles` longer than
    /// that takes: it changes, or somebody opens it for writing, again and again. A sender who does
    /// that keeps a bad pair from being judged.
    pub(crate) fn is_overdue(&self, now: Moment, timing: &Timing) -> bool {
        let judged = self.unjudged_since.saturating_add(self.patience(timing));
        self.want == Want::Verify
            && self.versions.payload.is_some()
            && matches!(self.step, Step::Settling | Step::Doubted(_))
            && now >= judged.saturating_add(timing.never_settles)
    }

    /// Ends the wait of a held pair, because the cause of the hold is over.
    pub(crate) fn retry_now(&mut self, now: Moment) {
        if let Step::Held(until, _) = &mut self.step {
            *until = (*until).min(now);
        }
    }

    /// Makes the final attempt at once on a pair that waits for grace or a signature. For `--once`,
    /// when the age of the pair already exceeds the wait.
    pub(crate) fn hurry(&mut self, now: Moment) -> Next {
        match (self.step, &self.versions.payload) {
            (Step::Settling | Step::Doubted(_), Some(_)) => self.attempt_now(now, Finality::Final),
            _ => Next::Rest,
        }
    }

    /// Whether only time or a missing file is waited for: a quiet pair waits for grace or its
    /// signature, or a signature waits for its payload.
    pub(crate) fn waits_for_time(&self, now: Moment, timing: &Timing) -> bool {
        self.want == Want::Verify
            && match self.step {
                Step::Doubted(_) => true,
                Step::Settling if self.versions.payload.is_none() => self.versions.signature.is_some(),
                Step::Settling => self.is_quiet(now, timing) && self.versions.signature.is_none(),
                Step::Attempting(_) | Step::Held(..) => false,
            }
    }

    const fn restart(&mut self, now: Moment) {
        self.since = now;
        self.break_quiet();
        self.step = Step::Settling;
        self.activity = Activity::UNKNOWN;
    }

    const fn break_quiet(&mut self) {
        self.idle_since = None;
        self.age = Duration::ZERO;
    }

    fn attempt_now(&mut self, now: Moment, finality: Finality) -> Next {
        self.step = Step::Attempting(finality);
        self.restless_since = now;
        self.worried = false;
        if finality == Finality::Final {
            self.unjudged_since = now;
            self.is_told_unjudged = false;
        }
        self.rename = Rename::Unknown; // whatever comes of it, the next attempt waits for quiet
        Next::Attempt(finality)
    }

    /// What is known of how it got its name, with the sample that was just taken. It holds for the
    /// file and not for its times, which some set after the rename.
    fn rename_at(&self, now: Moment, is_same_file: bool) -> Rename {
        let is_marked = self.versions.payload.as_ref().is_none_or(FileVersion::is_marked_incomplete);
        let is_absent = self.activity.writer == Writer::Absent && !self.activity.has_control_file;
        match self.rename {
            _ if is_marked || !is_absent => Rename::Unknown,
            Rename::Announced => Rename::Seen(now),
            Rename::Seen(since) if is_same_file => Rename::Seen(since.max(self.since)),
            Rename::Seen(_) | Rename::Unknown => Rename::Unknown,
        }
    }

    /// How long to let it be that was changed by being read. Where a file system writes back later
    /// what was written, and begins to wait anew whenever it is read, being quick would keep it
    /// from ever being done. Counted from the read and not from the last change: somebody who
    /// changes its times again and again keeps nothing from being read.
    fn let_be(&self, timing: &Timing) -> Duration {
        let times = 1_u32.checked_shl(self.touched.min(16)).unwrap_or(u32::MAX);
        timing.settle.max(SLOW).saturating_mul(times).min(timing.settle.max(SLOWEST))
    }

    /// Whether samples at least `settle` apart show the same versions and, of a file to be signed,
    /// nobody at it.
    pub(crate) fn is_quiet(&self, now: Moment, timing: &Timing) -> bool {
        self.quiet_at(timing).is_some_and(|at| now >= at)
    }

    /// When it is quiet if nothing happens; `None` if that is not known.
    fn quiet_at(&self, timing: &Timing) -> Option<Moment> {
        let since = match self.want {
            Want::Sign => self.idle_since?,
            Want::Verify => self.since,
        };
        let quiet = (since + timing.settle).saturating_sub(self.age);
        let complete = match self.rename {
            Rename::Seen(at) if self.want == Want::Sign => quiet.min(at + SAMPLES_APART),
            Rename::Seen(_) | Rename::Announced | Rename::Unknown => quiet,
        };
        Some(complete.max(self.not_before))
    }

    /// For how long an invalid or missing signature may be an upload in progress.
    const fn patience(&self, timing: &Timing) -> Duration {
        match (&self.versions.signature, self.activity.writer) {
            (None, _) => timing.signature_timeout,
            (Some(_), Writer::Absent | Writer::Present) => timing.grace_leased,
            (Some(_), Writer::Unknown) => timing.grace_unleased,
        }
    }

    /// What to do without another sample: nothing is attempted.
    fn next(&self, now: Moment, timing: &Timing) -> Next {
        match self.due(now, timing) {
            Due::Gone => Next::Gone,
            Due::Never => Next::Rest,
            Due::Attempt(at, _) | Due::Look(at) => Next::LookAt(at.max(now)),
        }
    }

    fn due(&self, now: Moment, timing: &Timing) -> Due {
        let has_payload = self.versions.payload.is_some();
        let has_signature = self.versions.signature.is_some();
        match self.step {
            Step::Attempting(_) => Due::Never,
            _ if !has_payload && (!has_signature || self.want == Want::Sign) => Due::Gone,
            // An orphan signature: its payload may come at any time.
            _ if !has_payload => {
                let report = self.since.saturating_add(timing.signature_timeout);
                if now < report { Due::Look(report) } else { Due::Never }
            }
            Step::Settling => match (self.quiet_at(timing), self.want) {
                (None, _) => Due::Look(now + self.busy_wait(now, timing)),
                (Some(at), _) if now < at => Due::Look(at),
                (Some(at), Want::Sign) => Due::Attempt(at, Finality::Final),
                (Some(at), Want::Verify) if has_signature => Due::Attempt(at, Finality::Provisional),
                (Some(_), Want::Verify) => self.final_due(now, timing),
            },
            Step::Doubted(_) => self.final_due(now, timing),
            // With a writer present, no verdict of this attempt may be final.
            Step::Held(until, _) if self.activity.is_busy() && self.want == Want::Verify => {
                Due::Attempt(until, Finality::Provisional)
            }
            Step::Held(until, finality) => match (self.want, self.quiet_at(timing)) {
                // Nothing is signed that a writer may still change.
                (Want::Sign, None) => Due::Look(until.max(now + self.busy_wait(now, timing))),
                (Want::Sign, Some(quiet)) => Due::Attempt(until.max(quiet), finality),
                (Want::Verify, _) => Due::Attempt(until, finality),
            },
        }
    }

    /// When to look again at what somebody is at: the longer that lasts the later, or thousands of
    /// files that wait so would keep the worker busy. Where events arrive, they tell of the end.
    fn busy_wait(&self, now: Moment, timing: &Timing) -> Duration {
        timing.settle.max((now.saturating_sub(self.since) / 16).min(BUSY))
    }

    /// When a verdict counts, however it is.
    fn final_due(&self, now: Moment, timing: &Timing) -> Due {
        match self.idle_since {
            None => Due::Look(now + self.busy_wait(now, timing)),
            Some(since) => Due::Attempt(since.saturating_add(self.patience(timing)), Finality::Final),
        }
    }
}

#[cfg(test)]
mod tables;

#[cfg(test)]
mod tests {
    use super::*;

    /// The file is what is below 100; above are its times. 99 is marked as incomplete.
    impl FileVersion for u64 {
        fn is_same_file(&self, other: &Self) -> bool {
            self % 100 == other % 100
        }

        fn is_marked_incomplete(&self) -> bool {
            self % 100 == 99
        }
    }

    const TIMING: Timing = Timing {
        settle: Duration::from_secs(2),
        grace_leased: Duration::from_secs(30),
        grace_unleased: Duration::from_secs(600),
        signature_timeout: Duration::from_secs(600),
        never_settles: Duration::from_secs(3600),
    };

    #[test]
    fn s6_a_file_that_somebody_keeps_open_for_writing_is_reported() {
        let versions = PairVersion { payload: Some(1), signature: None };
        let mut now = Duration::ZERO;
        let mut pair = Pair::new(Want::Sign, now, versions);
        let mut worries = Vec::new();
        let activity = Activity { writer: Writer::Present, has_control_file: false };
        let sample = Sample { versions, activity, age: Duration::ZERO };
        while now < TIMING.never_settles * 3 {
            let next = pair.seen(now, &sample, &TIMING);
            worries.extend(pair.worry(now, &TIMING));
            let Next::LookAt(at) = next else { panic!("{next:?}") };
            now = at;
        }
        assert_eq!(worries, [Worry::NeverSettles]);
    }

    #[test]
    fn a_payload_that_waits_quietly_for_its_signature_is_no_worry() {
        let timing = Timing { signature_timeout: TIMING.never_settles * 3, ..TIMING };
        let versions = PairVersion { payload: Some(1), signature: None };
        let mut pair = Pair::new(Want::Verify, Duration::ZERO, versions);
        for minute in 1..120 {
            let now = Duration::from_secs(60 * minute);
            pair.seen(now, &Sample { versions, activity: Activity::UNKNOWN, age: Duration::ZERO }, &timing);
            assert_eq!(pair.worry(now, &timing), None);
        }
    }

    #[test]
    fn what_changes_by_being_read_is_left_alone_for_longer_each_time() {
        let timing = Timing { settle: Duration::from_secs(2), ..TIMING };
        let (mut now, mut version, mut waits) = (Duration::ZERO, 1, Vec::new());
        let mut pair = Pair::new(Want::Sign, now, PairVersion { payload: Some(version), signature: None });
        for _ in 0..9 {
            let began = now;
            let next = loop {
                let versions = PairVersion { payload: Some(version), signature: None };
                let sample = Sample { versions, activity: Activity::UNKNOWN, age: Duration::ZERO };
                match pair.seen(now, &sample, &timing) {
                    Next::LookAt(at) => now = at,
                    next @ (Next::Gone | Next::Attempt(_) | Next::Rest) => break next,
                }
            };
            waits.push((now - began).as_secs());
            assert_eq!(next, Next::Attempt(Finality::Final));
            version += 1; // its times are others
            pair.ended(now, AttemptEnd::Touched, &timing);
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300]);
    }

    #[test]
    fn a_signature_without_its_file_only_waits() {
        let now = Duration::ZERO;
        let orphan = Pair::new(Want::Verify, now, PairVersion { payload: None, signature: Some(1) });
        assert!(orphan.waits_for_time(now, &TIMING));
        assert!(!Pair::new(Want::Verify, now, PairVersion::<u64>::NONE).waits_for_time(now, &TIMING));
    }
}
