//! Live status of the daemon, for observers outside of it.
//!
//! The only place of live figures, read by the service manager's status line, the control socket
//! and the metrics. Workers write to it, cheaply and at most once a second for each rule; readers
//! cannot delay them. Nothing is decided here or by it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::clock;
use crate::clock::{Clock, Moment};
use crate::daemon::ask::{Ask, Unanswered};
use crate::daemon::kms_metrics::KmsMetrics;
use crate::daemon::watchdog::Watchdog;
use crate::key::{KeyArn, KeyId};
use crate::kms::caller::Caller;
use crate::kms::throttle::{CallEnd, Observer, Quota, RateNow};
use crate::kms::{Operation, Trouble};
use crate::policy::Policy;
use crate::source::EventFault;
use crate::state::Outcome;
use crate::state::reason::RefusalReason;

/// Requests that may be queued for one worker.
const MAX_REQUESTS: usize = 16;

/// The status of one daemon.
#[derive(Debug)]
pub struct Status {
    /// The clock of all moments here.
    pub(crate) clock: Clock,
    /// When that clock began, since the Unix epoch. It stays the same if the host's clock is set.
    pub(crate) started: Duration,
    /// Whether the event loops respond.
    pub(crate) watchdog: Watchdog,
    /// Metrics of KMS calls.
    pub(crate) kms_metrics: KmsMetrics,
    /// Changes when the record may have more rows. Set once state is open.
    commits: OnceLock<watch::Receiver<u64>>,
    life: watch::Sender<Life>,
    plan: watch::Sender<Option<Arc<Plan>>>,
    /// False while a control socket is expected and not opened yet.
    control_ready: watch::Sender<bool>,
    rules: Mutex<BTreeMap<String, Arc<RuleStatus>>>,
    silent_keys: Mutex<BTreeMap<(String, Operation), SilentKey>>,
    asked: Mutex<Asked>,
    /// Increases with every change of figures.
    changes: Arc<watch::Sender<u64>>,
}

/// The policy in force.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The policy.
    pub(crate) policy: Policy,
    /// Its number since the daemon started, from 1.
    pub(crate) generation: u64,
    /// When it came into force.
    pub(crate) since: Moment,
}

/// The lifecycle of the daemon.
#[derive(Debug, Clone, Default)]
pub(crate) struct Life {
    /// Where.
    pub(crate) phase: Phase,
    /// How many reloads have been asked for.
    pub(crate) reloads: u64,
    /// When the last one was asked for, by `CLOCK_MONOTONIC`.
    pub(crate) reload_asked: Duration,
    /// Reloads that were asked for and neither succeeded nor failed yet.
    pub(crate) under_way: u64,
    /// Why the last one was refused, if it was.
    pub(crate) refused: Option<String>,
    /// Whether it was ready at least once.
    was_ready: bool,
}

impl Life {
    /// Sets the phase from the other fields.
    const fn settle(&mut self) {
        self.phase = match (self.phase, self.was_ready, self.under_way) {
            (Phase::Stopping, _, _) => Phase::Stopping, // final
            (_, false, _) => Phase::Starting,           // a reload meanwhile is part of the start
            (_, true, 0) => Phase::Ready,
            (_, true, _) => Phase::Reloading,
        };
    }
}

/// Phases of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Phase {
    /// Before the first scan of every rule is queued.
    #[default]
    Starting,
    /// At work.
    Ready,
    /// A new policy is being read, or waits for the files in hand.
    Reloading,
    /// Ordered to stop; files in hand are being finished.
    Stopping,
}

/// The live status of one rule.
#[derive(Debug)]
pub(crate) struct RuleStatus {
    figures: Mutex<Figures>,
    /// Sends requests to its worker, while that runs.
    requests: Mutex<Option<mpsc::Sender<Ask>>>,
    changes: Arc<watch::Sender<u64>>,
}

/// The figures of a rule.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    /// Files decided since the daemon started, by outcome. Never decreases.
    pub(crate) outcomes: BTreeMap<&'static str, u64>,
    /// Files that were decided again as they were before, and so are not counted there.
    pub(crate) repeated: u64,
    /// How often files were held since the daemon started, by cause. Never decreases.
    pub(crate) holds: BTreeMap<&'static str, u64>,
    /// Bytes of files hashed since the daemon started.
    pub(crate) hashed: u64,
    /// Scans ended since the daemon started, and how long they took together.
    pub(crate) scans: u64,
    /// See `scans`.
    pub(crate) scanning: Duration,
    /// Watchers rebuilt since the daemon started.
    pub(crate) rebuilds: u64,
    /// Files known when [`Figures::now`] was shown: decided by then, or waiting.
    pub(crate) known: u64,
    /// The present state.
    pub(crate) now: Now,
}

/// The present state of a rule.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Now {
    /// The state of its directory.
    pub(crate) root: Root,
    /// Pairs that are held or wait for something, by cause.
    pub(crate) causes: BTreeMap<&'static str, Cause>,
    /// Pairs that are not decided yet, held ones included.
    pub(crate) waiting: usize,
    /// Pairs that are held; the rest of those that wait only need time.
    pub(crate) held: usize,
    /// Attempts that are running.
    pub(crate) running_attempts: usize,
    /// The one that has waited longest.
    pub(crate) oldest: Option<Oldest>,
    /// The mass-failure brake is on.
    pub(crate) braked: bool,
    /// Files that are refused as they are, by the code of the reason.
    pub(crate) refused: BTreeMap<&'static str, Refused>,
    /// The directory has more files than fit in memory and are counted here.
    pub(crate) more: bool,
    /// When the last scan ended.
    pub(crate) last_scan: Option<Moment>,
    /// How long it took.
    pub(crate) last_scan_took: Duration,
}

/// Pairs that wait for one cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    /// How many.
    pub(crate) count: usize,
    /// Whether they are held. Otherwise they wait for time or another file.
    pub(crate) is_held: bool,
    /// When the longest wait began.
    pub(crate) since: Moment,
    /// The reason of that wait as a sentence.
    pub(crate) reason: String,
    /// What a person can do.
    pub(crate) hint: String,
    /// Whether a person is needed.
    pub(crate) needs_operator: bool,
    /// When the first of them is looked at next.
    pub(crate) next_attempt: Option<Moment>,
}

/// Files that are refused for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// How many.
    pub(crate) count: usize,
    /// The reason, as it is for one of them.
    pub(crate) reason: RefusalReason,
}

/// The pair that has waited longest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Oldest {
    /// The payload below the root, escaped.
    pub(crate) file: String,
    /// Its change time, or when it was first seen if that is earlier; since the Unix epoch.
    pub(crate) since: Duration,
    /// What it waits for.
    pub(crate) cause: &'static str,
}

/// The state of a rule's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Root {
    /// It is being opened. That takes long only where a file system does not answer.
    #[default]
    Opening,
    /// Events arrive, and scans find what they miss.
    Watched,
    /// Events cannot be relied on, for this reason; it is scanned every few seconds.
    Scanned(EventFault),
    /// The rule cannot work, for this reason.
    Held(String),
}

impl Root {
    /// The word for it, for status and metrics.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Opening => "opening",
            Self::Watched => "watched",
            Self::Scanned(_) => "scanned",
            Self::Held(_) => "held",
        }
    }
}

/// A key under which KMS does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SilentKey {
    /// Since when only probes are sent.
    pub(crate) since: Moment,
    /// The last error.
    pub(crate) trouble: Trouble,
}

/// The caller and the accounts of the AWS calls made under the policy in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The caller of the last call.
    pub(crate) caller: Option<Caller>,
    /// The accounts of the keys that answered.
    pub(crate) accounts: BTreeSet<String>,
}

/// The most accounts that are remembered: a reply could name any.
const MAX_ACCOUNTS: usize = 16;

/// The whole status at one moment.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    /// The lifecycle of the daemon.
    pub(crate) life: Life,
    /// The policy in force, once there is one.
    pub(crate) plan: Option<Arc<Plan>>,
    /// Each rule's figures, by name.
    pub(crate) rules: BTreeMap<String, Figures>,
    /// Keys under which KMS does not answer.
    pub(crate) silent_keys: BTreeMap<(String, Operation), SilentKey>,
    /// The AWS caller and accounts.
    pub(crate) asked: Asked,
}

impl Default for Status {
    fn default() -> Self {
        Self::new(Clock::start())
    }
}

impl Status {
    /// An empty status.
    pub(crate) fn new(clock: Clock) -> Self {
        Self {
            clock,
            started: clock::since_epoch().saturating_sub(clock.now()),
            watchdog: Watchdog::new(clock),
            kms_metrics: KmsMetrics::default(),
            commits: OnceLock::new(),
            life: watch::Sender::default(),
            plan: watch::Sender::default(),
            control_ready: watch::Sender::new(true),
            rules: Mutex::default(),
            silent_keys: Mutex::default(),
            asked: Mutex::default(),
            changes: Arc::new(watch::Sender::new(0)),
        }
    }

    /// State is open. Only the first call counts: a daemon has one state.
    pub(crate) fn opened(&self, commits: watch::Receiver<u64>) {
        self.commits.get_or_init(|| commits);
    }

    /// Changes when the record may have more rows.
    pub(crate) fn commits(&self) -> Option<watch::Receiver<u64>> {
        self.commits.get().cloned()
    }

    /// A control socket will be opened: the daemon is not ready before that was tried.
    pub(crate) fn expect_control(&self) {
        self.control_ready.send_replace(false);
    }

    /// Opening the control socket was tried.
    pub(crate) fn control_was_tried(&self) {
        self.control_ready.send_replace(true);
    }

    /// Waits until a control socket was tried, if one is expected.
    pub(crate) async fn control(&self) {
        // Cannot fail: the sender lives in `self`.
        self.control_ready.subscribe().wait_for(|tried| *tried).await.map(drop).unwrap_or_default();
    }

    /// A policy is in force from now on.
    pub(crate) fn adopt(&self, policy: &Policy) {
        let since = self.clock.now();
        self.plan.send_modify(|plan| {
            let generation = plan.as_ref().map_or(0, |old| old.generation) + 1;
            *plan = Some(Arc::new(Plan { policy: policy.clone(), generation, since }));
        });
        self.set_rules(policy.rules.iter().map(|rule| rule.name.as_str()));
    }

    /// Sets the rules of a policy: new ones start at zero, those of the same name keep their
    /// counts, others are removed. Forgets what was known of keys.
    pub(crate) fn set_rules<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let mut rules = lock(&self.rules);
        let mut old = std::mem::take(&mut *rules);
        for name in names {
            let rule_status = old.remove(name).unwrap_or_else(|| self.new_rule());
            lock(&rule_status.figures).now = Now::default();
            rules.insert(name.to_owned(), rule_status);
        }
        drop(rules);
        lock(&self.silent_keys).clear();
        *lock(&self.asked) = Asked::default();
        self.changed();
    }

    /// The status of a rule, for its worker. Added if the rule was not set.
    pub(crate) fn rule(&self, name: &str) -> Arc<RuleStatus> {
        Arc::clone(lock(&self.rules).entry(name.to_owned()).or_insert_with(|| self.new_rule()))
    }

    /// The status of all rules, by name.
    pub(crate) fn rule_statuses(&self) -> BTreeMap<String, Arc<RuleStatus>> {
        lock(&self.rules).clone()
    }

    fn new_rule(&self) -> Arc<RuleStatus> {
        let changes = Arc::clone(&self.changes);
        Arc::new(RuleStatus { figures: Mutex::default(), requests: Mutex::default(), changes })
    }

    /// Records an AWS call: the caller, if known, and the key that answered, if one did.
    fn aws_was_asked(&self, caller: Option<Caller>, answered: Option<&KeyArn>) {
        let mut asked = lock(&self.asked);
        if caller.is_some() && asked.caller != caller {
            asked.caller = caller;
        }
        let account = answered.and_then(KeyArn::account).filter(|account| !asked.accounts.contains(*account));
        if let Some(account) = account
            && asked.accounts.len() < MAX_ACCOUNTS
        {
            asked.accounts.insert(account.to_owned());
        }
    }

    /// The daemon is ready: under its first policy every rule has its first scan queued, or is
    /// held.
    pub(crate) fn is_ready(&self) {
        self.live(|life| life.was_ready = true);
    }

    /// A reload was asked for.
    pub(crate) fn reload_asked(&self) {
        self.live(|life| {
            life.reloads += 1;
            life.under_way += 1;
            life.reload_asked = clock::monotonic();
        });
    }

    /// A reload is done: the same as [`Status::is_ready`] under the new policy.
    pub(crate) fn reloaded(&self) {
        self.live(|life| {
            life.was_ready = true;
            life.under_way = life.under_way.saturating_sub(1);
            life.refused = None;
        });
    }

    /// A reload was replaced by a later one.
    pub(crate) fn reload_superseded(&self) {
        self.live(|life| life.under_way = life.under_way.saturating_sub(1));
    }

    /// A reload was refused; the old policy stays in force.
    pub(crate) fn reload_refused(&self, why: String) {
        self.live(|life| {
            life.under_way = life.under_way.saturating_sub(1);
            life.refused = Some(why);
        });
    }

    fn live(&self, change: impl FnOnce(&mut Life)) {
        self.life.send_modify(|life| {
            change(life);
            life.settle();
        });
    }

    /// The daemon was ordered to stop.
    pub(crate) fn is_stopping(&self) {
        self.life.send_modify(|life| life.phase = Phase::Stopping);
    }

    /// Changes with every change of [`Life`].
    pub(crate) fn life(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }

    /// Changes with the policy in force.
    pub(crate) fn plan(&self) -> watch::Receiver<Option<Arc<Plan>>> {
        self.plan.subscribe()
    }

    /// Changes with the figures.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The whole status at this moment.
    pub(crate) fn read(&self) -> Reading {
        let rules =
            lock(&self.rules).iter().map(|(name, rule_status)| (name.clone(), rule_status.read())).collect();
        Reading {
            life: self.life.borrow().clone(),
            plan: self.plan.borrow().clone(),
            rules,
            silent_keys: lock(&self.silent_keys).clone(),
            asked: lock(&self.asked).clone(),
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }
}

impl Figures {
    /// How many files were decided since the daemon started.
    pub(crate) fn handled(&self) -> u64 {
        self.outcomes.values().sum::<u64>().saturating_add(self.repeated)
    }
}

impl RuleStatus {
    /// Counts a decided file. Waiting readers are woken by the next [`RuleStatus::show`].
    pub(crate) fn count(&self, outcome: Outcome) {
        *lock(&self.figures).outcomes.entry(outcome.as_str()).or_default() += 1;
    }

    /// Counts a file that was decided again as it was before.
    pub(crate) fn count_repeated(&self) {
        let mut figures = lock(&self.figures);
        figures.repeated = figures.repeated.saturating_add(1);
    }

    /// Counts a hold.
    pub(crate) fn count_hold(&self, cause: &'static str) {
        *lock(&self.figures).holds.entry(cause).or_default() += 1;
    }

    /// Counts hashed bytes.
    pub(crate) fn count_hashed(&self, bytes: u64) {
        let mut figures = lock(&self.figures);
        figures.hashed = figures.hashed.saturating_add(bytes);
    }

    /// Counts a scan and how long it took.
    pub(crate) fn count_scan(&self, took: Duration) {
        let mut figures = lock(&self.figures);
        figures.scans += 1;
        figures.scanning += took;
    }

    /// Counts a rebuilt watcher.
    pub(crate) fn count_rebuild(&self) {
        lock(&self.figures).rebuilds += 1;
    }

    /// The queue of requests, for the rule's worker. Replaces the one of an earlier worker.
    pub(crate) fn take_requests(&self) -> mpsc::Receiver<Ask> {
        let (asks, questions) = mpsc::channel(MAX_REQUESTS);
        *lock(&self.requests) = Some(asks);
        questions
    }

    /// Sends a request to the rule's worker.
    ///
    /// # Errors
    /// The worker is not running, or its queue is full.
    pub(crate) fn ask(&self, ask: Ask) -> Result<(), Unanswered> {
        let requests = lock(&self.requests).clone().ok_or(Unanswered::Gone)?;
        requests.try_send(ask).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Unanswered::Busy,
            mpsc::error::TrySendError::Closed(_) => Unanswered::Gone,
        })
    }

    /// Sets the present state, and wakes those who wait for changes.
    pub(crate) fn show(&self, now: Now) {
        let mut figures = lock(&self.figures);
        figures.known = figures.handled() + now.waiting as u64;
        figures.now = now;
        drop(figures);
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// The figures, now.
    pub(crate) fn read(&self) -> Figures {
        lock(&self.figures).clone()
    }
}

impl Observer for Status {
    fn call_began(&self) {
        self.kms_metrics.call_began();
    }

    fn call_over(&self) {
        self.kms_metrics.call_over();
    }

    fn call_answered(&self, call: CallEnd<'_>) {
        self.kms_metrics.count(&call);
        self.aws_was_asked(call.caller, call.answer.ok());
    }

    fn rates_are(&self, rates: BTreeMap<Quota, RateNow>) {
        self.kms_metrics.set_rates(rates);
    }

    fn key_fell_silent(&self, key: &KeyId, operation: Operation, trouble: &Trouble) {
        let silent = SilentKey { since: self.clock.now(), trouble: trouble.clone() };
        lock(&self.silent_keys).insert((key.to_string(), operation), silent);
        self.changed();
    }

    fn key_answers(&self, key: &KeyId, operation: Operation) {
        lock(&self.silent_keys).remove(&(key.to_string(), operation));
        self.changed();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every update leaves the data consistent, so a poisoned lock is safe to use.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kms::TroubleKind;

    #[test]
    fn what_was_counted_outlives_a_reload_and_rules_that_went_are_gone() {
        let status = Status::default();
        status.set_rules(["a", "b"].into_iter());
        status.rule("a").count(Outcome::Signed);
        status.rule("a").show(Now { waiting: 3, ..Now::default() });
        status.key_fell_silent(
            &"local:key".parse().unwrap(),
            Operation::Encrypt,
            &Trouble::new(TroubleKind::Network, ""),
        );
        status.set_rules(["a", "c"].into_iter());
        status.rule("a").count(Outcome::Signed);
        let reading = status.read();
        assert_eq!(reading.rules.keys().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(reading.rules["a"].outcomes["signed"], 2);
        assert_eq!(reading.rules["a"].now.waiting, 0, "the new worker has seen nothing yet");
        assert!(reading.silent_keys.is_empty());
    }

    #[test]
    fn known_files_are_handled_or_waiting_in_one_reading() {
        let status = Status::default();
        let rule_status = status.rule("a");
        rule_status.count(Outcome::Signed);
        rule_status.show(Now { waiting: 3, ..Now::default() });
        rule_status.count(Outcome::Quarantined); // one of the three
        let figures = rule_status.read();
        assert_eq!((figures.handled(), figures.known), (2, 4));
    }

    #[test]
    fn o1_a_refused_reload_is_ready_again_and_the_next_good_one_forgets_it() {
        let status = Status::default();
        status.is_ready();
        status.reload_asked();
        assert_eq!(status.read().life.phase, Phase::Reloading);
        status.reload_refused("two faults".into());
        let life = status.read().life;
        assert_eq!(
            (life.phase, life.reloads, life.refused.as_deref()),
            (Phase::Ready, 1, Some("two faults"))
        );
        status.reload_asked();
        status.reloaded();
        assert_eq!(status.read().life.refused, None);
        status.is_stopping();
        status.is_ready();
        assert_eq!(status.read().life.phase, Phase::Stopping, "nothing leads back from there");
    }

    #[test]
    fn o1_a_refused_reload_makes_nothing_ready_that_was_not() {
        let status = Status::default();
        let phase = || status.read().life.phase;
        status.reload_asked();
        status.reload_refused("a fault".into());
        assert_eq!(phase(), Phase::Starting);
        status.is_ready();
        status.reload_asked(); // a good one, whose rules attach
        status.reload_asked();
        status.reload_refused("a fault".into());
        assert_eq!(phase(), Phase::Reloading, "the good one is still under way");
        status.reload_asked();
        status.reload_superseded();
        assert_eq!(phase(), Phase::Reloading);
        status.reloaded();
        assert_eq!(phase(), Phase::Ready);
    }
}
