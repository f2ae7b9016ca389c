//! The board: what the daemon shows of itself while it runs, for whoever looks in from outside.
//!
//! The one place of live figures: the service manager's status line reads it, and so may a status command or
//! metrics. Those who work write to it, cheaply and at most once a second for each rule; nobody who reads it can
//! delay them. It decides nothing, and nothing is decided by it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::limit::Operation;
use super::pulse::Pulse;
use crate::clock::{self, Clock, Moment};
use crate::kms::TroubleKind;
use crate::state::Outcome;

/// The board of one daemon.
#[derive(Debug)]
pub struct Board {
    /// The clock of every moment on it.
    pub clock: Clock,
    /// Whether its loops turn.
    pub pulse: Pulse,
    life: watch::Sender<Life>,
    rules: Mutex<BTreeMap<String, Arc<Panel>>>,
    silent_keys: Mutex<BTreeMap<(String, Operation), SilentKey>>,
    /// Counts changes of figures.
    changes: Arc<watch::Sender<u64>>,
}

/// Where the daemon is between start and end.
#[derive(Debug, Clone, Default)]
pub struct Life {
    /// Where.
    pub phase: Phase,
    /// How many reloads have been asked for.
    pub reloads: u64,
    /// When the last one was, by `CLOCK_MONOTONIC`.
    pub reload_asked: Duration,
    /// Why the last one was refused, if it was.
    pub refused: Option<String>,
}

/// Phases of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Before the first scan of every rule is queued.
    #[default]
    Starting,
    /// At work.
    Ready,
    /// A new policy is being read, or waits for the files in hand.
    Reloading,
    /// Told to end; files in hand are finished.
    Stopping,
}

/// What one rule shows.
#[derive(Debug)]
pub struct Panel {
    figures: Mutex<Figures>,
    changes: Arc<watch::Sender<u64>>,
}

/// The figures of a rule.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Files dealt with since the daemon started, by outcome. Only ever grows.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Files known when [`Figures::now`] was shown: dealt with by then, or waiting.
    pub known: u64,
    /// What is so now.
    pub now: Now,
}

/// What is so in a rule now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Now {
    /// How it stands with its directory.
    pub root: Root,
    /// Held pairs, by cause.
    pub holds: BTreeMap<&'static str, Held>,
    /// Pairs that something is still to be done about, those held included.
    pub waiting: usize,
    /// Pairs that are being tried.
    pub trying: usize,
    /// More wait in the directory than are counted here.
    pub more: bool,
    /// When the last scan ended.
    pub last_scan: Option<Moment>,
}

/// Pairs held for one cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// How many.
    pub count: usize,
    /// Since when the one that has been held longest.
    pub since: Moment,
}

/// How it stands with a rule's directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Root {
    /// It is being opened. For long only where a file system does not answer.
    #[default]
    Opening,
    /// Events arrive, and scans find what they miss.
    Watched,
    /// Events cannot be relied on; it is scanned every few seconds.
    Scanned,
    /// The rule cannot work, for this reason.
    Held(String),
}

/// A key under which KMS does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SilentKey {
    /// Since when it is not asked but for a probe now and then.
    pub since: Moment,
    /// What it said last.
    pub trouble: TroubleKind,
}

/// The whole board at one moment.
#[derive(Debug, Clone)]
pub struct Reading {
    /// Where the daemon is.
    pub life: Life,
    /// Each rule's figures, by name.
    pub rules: BTreeMap<String, Figures>,
    /// Keys under which KMS does not answer.
    pub silent_keys: BTreeMap<(String, Operation), SilentKey>,
}

impl Default for Board {
    fn default() -> Self {
        Self::new(Clock::start())
    }
}

impl Board {
    /// An empty board.
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            pulse: Pulse::new(clock),
            life: watch::Sender::default(),
            rules: Mutex::default(),
            silent_keys: Mutex::default(),
            changes: Arc::new(watch::Sender::new(0)),
        }
    }

    /// Takes the rules of a policy: new ones begin, those of the same name go on, others are taken off. What was
    /// known of keys is asked anew.
    pub fn set_rules<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let mut rules = lock(&self.rules);
        let mut old = std::mem::take(&mut *rules);
        for name in names {
            let panel = old.remove(name).unwrap_or_else(|| {
                Arc::new(Panel { figures: Mutex::default(), changes: Arc::clone(&self.changes) })
            });
            lock(&panel.figures).now = Now::default();
            rules.insert(name.to_owned(), panel);
        }
        drop(rules);
        lock(&self.silent_keys).clear();
        self.changed();
    }

    /// The panel of a rule, for its driver; a new one if the rule is not among those that were set.
    pub fn rule(&self, name: &str) -> Arc<Panel> {
        let changes = || Arc::clone(&self.changes);
        let new = || Arc::new(Panel { figures: Mutex::default(), changes: changes() });
        Arc::clone(lock(&self.rules).entry(name.to_owned()).or_insert_with(new))
    }

    /// KMS no longer answers under a key.
    pub fn key_fell_silent(&self, key: &str, operation: Operation, trouble: TroubleKind) {
        let since = self.clock.now();
        lock(&self.silent_keys).insert((key.to_owned(), operation), SilentKey { since, trouble });
        self.changed();
    }

    /// KMS answers again.
    pub fn key_answers(&self, key: &str, operation: Operation) {
        lock(&self.silent_keys).remove(&(key.to_owned(), operation));
        self.changed();
    }

    /// Every rule has its first scan queued, or is held.
    pub fn is_ready(&self) {
        self.life.send_modify(|life| {
            if life.phase != Phase::Stopping {
                life.phase = Phase::Ready;
            }
            life.refused = None;
        });
    }

    /// A reload was asked for.
    pub fn reload_asked(&self) {
        self.life.send_modify(|life| {
            if life.phase != Phase::Stopping {
                life.phase = Phase::Reloading;
            }
            life.reloads += 1;
            life.reload_asked = clock::monotonic();
        });
    }

    /// It was refused, and the old policy goes on.
    pub fn reload_refused(&self, why: String) {
        self.life.send_modify(|life| {
            if life.phase == Phase::Reloading {
                life.phase = Phase::Ready;
            }
            life.refused = Some(why);
        });
    }

    /// The daemon was told to end.
    pub fn is_stopping(&self) {
        self.life.send_modify(|life| life.phase = Phase::Stopping);
    }

    /// Changes with every change of [`Life`].
    pub fn life(&self) -> watch::Receiver<Life> {
        self.life.subscribe()
    }

    /// Changes with the figures.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// All of it, now.
    pub fn read(&self) -> Reading {
        let rules = lock(&self.rules).iter().map(|(name, panel)| (name.clone(), panel.read())).collect();
        Reading { life: self.life.borrow().clone(), rules, silent_keys: lock(&self.silent_keys).clone() }
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }
}

impl Figures {
    /// How many files were dealt with since the daemon started.
    pub fn dealt_with(&self) -> u64 {
        self.outcomes.values().sum()
    }
}

impl Panel {
    /// Counts a file that was dealt with. Shown with the next [`Panel::show`], or to who reads before.
    pub fn count(&self, outcome: Outcome) {
        *lock(&self.figures).outcomes.entry(outcome.as_str()).or_default() += 1;
    }

    /// Shows what is so now, and wakes who waits for changes.
    pub fn show(&self, now: Now) {
        let mut figures = lock(&self.figures);
        figures.known = figures.dealt_with() + now.waiting as u64;
        figures.now = now;
        drop(figures);
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// The figures, now.
    pub fn read(&self) -> Figures {
        lock(&self.figures).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept here is right after every single step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_outlives_a_reload_and_rules_that_went_are_gone() {
        let board = Board::default();
        board.set_rules(["a", "b"].into_iter());
        board.rule("a").count(Outcome::Signed);
        board.rule("a").show(Now { waiting: 3, ..Now::default() });
        board.key_fell_silent("key", Operation::Encrypt, TroubleKind::Network);
        board.set_rules(["a", "c"].into_iter());
        board.rule("a").count(Outcome::Signed);
        let reading = board.read();
        assert_eq!(reading.rules.keys().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(reading.rules["a"].outcomes["signed"], 2);
        assert_eq!(reading.rules["a"].now.waiting, 0, "the new driver has seen nothing yet");
        assert!(reading.silent_keys.is_empty());
    }

    #[test]
    fn files_that_are_known_were_dealt_with_or_wait_at_one_moment() {
        let board = Board::default();
        let panel = board.rule("a");
        panel.count(Outcome::Signed);
        panel.show(Now { waiting: 3, ..Now::default() });
        panel.count(Outcome::Quarantined); // one of the three
        let figures = panel.read();
        assert_eq!((figures.dealt_with(), figures.known), (2, 4));
    }

    #[test]
    fn o1_a_refused_reload_is_ready_again_and_the_next_good_one_forgets_it() {
        let board = Board::default();
        board.is_ready();
        board.reload_asked();
        assert_eq!(board.read().life.phase, Phase::Reloading);
        board.reload_refused("two faults".into());
        let life = board.read().life;
        assert_eq!(
            (life.phase, life.reloads, life.refused.as_deref()),
            (Phase::Ready, 1, Some("two faults"))
        );
        board.reload_asked();
        board.is_ready();
        assert_eq!(board.read().life.refused, None);
        board.is_stopping();
        board.is_ready();
        assert_eq!(board.read().life.phase, Phase::Stopping, "nothing leads back from there");
    }
}
