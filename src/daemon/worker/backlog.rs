//! The backlog of a rule: which pairs wait and for what, listed on request and summarised for the
//! status.
//!
//! Reads the worker's memory, and for refused files state; no file.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::{Clocks, Moment};
use crate::daemon::ask::{Ask, Backlog, Waiting, Which};
use crate::daemon::site::{Backend, VersionOf};
use crate::daemon::status::{Cause, Oldest};
use crate::daemon::worker::refused::add_refused;
use crate::daemon::worker::wait::{NAME_TAKEN, NAME_TAKEN_HINT, NAME_TAKEN_TEXT, OVERDUE_HINT, Wait};
use crate::daemon::worker::{NEVER_SETTLES, PairState, Worker};
use crate::escape::Escaped;
use crate::fs::RelPath;
use crate::fs::lease::Writer;
use crate::kms::Kms;
use crate::settle::{PairVersion, Timing, Want};
use crate::source::Version;

impl<V: Version> PairState<V> {
    /// What it waits for, unless it is held.
    pub(crate) fn wait(&self, want: Want) -> Wait {
        match (self.pair.versions(), want) {
            _ if self.running => Wait::Work,
            (PairVersion { payload: None, .. }, _) => Wait::Payload,
            _ if self.pair.activity().has_control_file => Wait::ControlFile,
            _ if self.pair.activity().writer == Writer::Present => Wait::Writer,
            (PairVersion { signature: None, .. }, Want::Verify) => Wait::Signature,
            _ if self.pair.is_doubted() => Wait::Grace,
            _ => Wait::Quiet,
        }
    }

    fn cause(&self, want: Want) -> &'static str {
        match &self.hold {
            Some(hold) => hold.as_str(),
            None => self.wait(want).cause(),
        }
    }

    /// Since when it is held, or waits.
    fn since(&self) -> Moment {
        if self.hold.is_some() { self.held_since } else { self.first_seen }
    }

    /// Its change time, or when it was first seen if that is earlier; since the Unix epoch.
    fn there_since(&self, clocks: Clocks) -> Duration {
        let seen = clocks.of(self.first_seen);
        let versions = self.pair.versions();
        let changed = versions.payload.as_ref().or(versions.signature.as_ref()).map(Version::changed);
        changed.map_or(seen, |changed| changed.min(seen))
    }

    fn needs_operator(&self, want: Want, now: Moment, timing: &Timing) -> bool {
        match &self.hold {
            Some(hold) => hold.needs_operator(now.saturating_sub(self.held_since)),
            None => match self.wait(want) {
                Wait::ControlFile | Wait::Writer | Wait::Quiet => {
                    now.saturating_sub(self.first_seen) >= NEVER_SETTLES
                }
                Wait::Signature | Wait::Grace => self.pair.is_overdue(now, timing),
                Wait::Work | Wait::Payload => false,
            },
        }
    }

    fn reason(&self, want: Want) -> String {
        match &self.hold {
            Some(hold) => hold.to_string(),
            None => self.wait(want).text().to_owned(),
        }
    }

    fn hint(&self, want: Want, now: Moment, timing: &Timing) -> &str {
        match (&self.hold, self.wait(want)) {
            (Some(hold), _) => hold.hint(),
            (None, Wait::Signature | Wait::Grace) if self.pair.is_overdue(now, timing) => OVERDUE_HINT,
            (None, wait) => wait.hint(),
        }
    }
}

impl<K: Kms, B: Backend> Worker<K, B> {
    /// Answers a request.
    pub(crate) fn answer(&mut self, ask: Ask) {
        match ask {
            Ask::Backlog { which, most, answer } => {
                let mut list = self.backlog(&which, most);
                list.total += self.count_of(&which);
                let (state, rule) = (self.pipeline.state.clone(), self.rule.name.clone());
                self.background.spawn(async move {
                    add_refused(&state, &rule, &which, most, &mut list).await;
                    answer.send(list).ok(); // the caller may have given up
                });
            }
            Ask::Rescan(done) => {
                let now = self.pipeline.clock.now();
                self.next_attach = self.next_attach.min(now);
                self.scan_soon(now);
                self.retry(|_| true);
                done.send(()).ok();
            }
        }
    }

    fn backlog(&self, which: &Which, most: usize) -> Backlog {
        let clocks = self.pipeline.clock.read();
        let want = self.want();
        let meant = self.pairs.iter();
        let meant = meant.filter(|(path, entry)| which.means(path, entry.hold.is_some(), entry.cause(want)));
        let mut meant: Vec<_> = meant.map(|(path, entry)| (entry.there_since(clocks), path, entry)).collect();
        let (name_taken, count) = self.name_taken_of(which);
        let total = meant.len() + count;
        meant.sort_by_key(|(since, path, _)| (*since, *path));
        let pairs = meant.into_iter().take(most).map(|(since, path, entry)| Waiting {
            path: path.clone(),
            cause: entry.cause(want),
            is_held: entry.hold.is_some(),
            needs_operator: entry.needs_operator(want, clocks.now, &self.timing),
            reason: entry.reason(want),
            hint: entry.hint(want, clocks.now, &self.timing).to_owned(),
            since,
            attempts: entry.attempts,
            next_attempt: if entry.running { Some(clocks.now) } else { entry.timer },
            size: entry.pair.versions().payload.as_ref().map(Version::size),
        });
        let mut pairs: Vec<_> = pairs.collect();
        let room = most.saturating_sub(pairs.len());
        pairs.extend(name_taken.into_iter().take(room).map(|path| self.waiting_for_its_name(path)));
        let standing = self.standing.listed(clocks.now);
        let standing: Vec<_> =
            standing.filter(|listed| which.means(listed.path, false, listed.cause)).collect();
        let total = total + standing.len();
        let room = most.saturating_sub(pairs.len());
        pairs.extend(standing.into_iter().take(room).map(|listed| Waiting {
            path: listed.path.clone(),
            cause: listed.cause,
            is_held: false,
            needs_operator: listed.needs_operator,
            reason: listed.reason.to_owned(),
            hint: listed.hint.to_owned(),
            since: clocks.of(self.last_scan.unwrap_or_default()),
            attempts: 0,
            next_attempt: None,
            size: None,
        }));
        Backlog { pairs, total, more: self.has_more() }
    }

    /// Files waiting in the private folder that match the filter, and how many there are.
    fn name_taken_of(&self, which: &Which) -> (Vec<&RelPath>, usize) {
        let is_cause = which.cause.as_ref().is_none_or(|cause| cause == NAME_TAKEN);
        if !is_cause {
            return (Vec::new(), 0);
        }
        match &which.path {
            None => (self.name_taken.first.iter().collect(), self.name_taken.count),
            Some(asked) => {
                let is_it = |path: &&RelPath| path.as_bytes() == asked;
                let found: Vec<_> = self.name_taken.first.iter().filter(is_it).collect();
                let count = found.len();
                (found, count)
            }
        }
    }

    fn waiting_for_its_name(&self, path: &RelPath) -> Waiting {
        Waiting {
            path: path.clone(),
            cause: NAME_TAKEN,
            is_held: true,
            needs_operator: true,
            reason: NAME_TAKEN_TEXT.to_owned(),
            hint: NAME_TAKEN_HINT.to_owned(),
            since: self.pipeline.clock.read().of(self.last_scan.unwrap_or_default()),
            attempts: 0,
            next_attempt: Some(self.next_scan),
            size: None,
        }
    }

    /// The causes for which pairs wait, how many are held, and which has waited longest.
    pub(crate) fn survey_pairs(&self, now: Moment) -> (BTreeMap<&'static str, Cause>, usize, Option<Oldest>) {
        let (clocks, want) = (self.pipeline.clock.read(), self.want());
        // For each cause the count and the longest wait, which gives the reason to show.
        let mut longest = BTreeMap::<_, (usize, &PairState<VersionOf<B>>, _)>::new();
        let mut oldest: Option<(Duration, &RelPath, &PairState<VersionOf<B>>)> = None;
        let mut held = 0;
        for (path, entry) in &self.pairs {
            let entry: &PairState<_> = entry;
            held += usize::from(entry.hold.is_some());
            let (count, longest, next) = longest.entry(entry.cause(want)).or_insert((0, entry, entry.timer));
            *count += 1;
            *next = (*next).into_iter().chain(entry.timer).min();
            if entry.since() < longest.since() {
                *longest = entry;
            }
            let since = entry.there_since(clocks);
            if oldest.as_ref().is_none_or(|(before, ..)| since < *before) {
                oldest = Some((since, path, entry));
            }
        }
        let causes = longest.into_iter().map(|(cause, (count, entry, next_attempt))| {
            let cause_of = Cause {
                count,
                is_held: entry.hold.is_some(),
                since: entry.since(),
                reason: entry.reason(want),
                hint: entry.hint(want, now, &self.timing).to_owned(),
                needs_operator: entry.needs_operator(want, now, &self.timing),
                next_attempt,
            };
            (cause, cause_of)
        });
        let mut causes: BTreeMap<_, _> = causes.collect();
        if self.name_taken.count > 0 {
            let cause = Cause {
                count: self.name_taken.count,
                is_held: true,
                since: self.last_scan.unwrap_or_default(),
                reason: NAME_TAKEN_TEXT.to_owned(),
                hint: NAME_TAKEN_HINT.to_owned(),
                needs_operator: true,
                next_attempt: Some(self.next_scan),
            };
            causes.insert(NAME_TAKEN, cause);
            held += self.name_taken.count;
        }
        causes.extend(self.standing.cause(now));
        let oldest = oldest.map(|(since, path, entry)| Oldest {
            file: Escaped::new(path.as_path()).to_string(),
            since,
            cause: entry.cause(want),
        });
        (causes, held, oldest)
    }
}
