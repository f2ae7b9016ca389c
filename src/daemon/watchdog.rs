//! The watchdog: whether every loop of the daemon still turns.
//!
//! By question and answer, at the pace of whoever asks: [`Watchdog::ask`] raises a number, each loop takes it over
//! when it next comes round, [`Watchdog::silent`] names those that have not for too long. Without a watchdog nobody
//! asks, and nobody wakes up for it. It knows nothing of success: a loop that has been holding every file for a
//! week turns.
//!
//! A loop that waits for a system call on files is told apart from one that hangs. What does not return then is a
//! disk or a file server; a restart would wait for it again, and stop the rules that still work. One that waits for
//! state is no better and no worse than state's own loop, which has its own name here.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::{Clock, Moment};

/// All loops of a daemon.
#[derive(Debug)]
pub struct Watchdog {
    clock: Clock,
    question: watch::Sender<u64>,
    turning: Arc<Mutex<Vec<Arc<Turning>>>>,
}

/// What is known of one loop.
#[derive(Debug)]
struct Turning {
    name: String,
    now: Mutex<Since>,
}

#[derive(Debug, Default)]
struct Since {
    /// The last question that it answered.
    answered: u64,
    /// Since when an answer is owed.
    owes: Option<Moment>,
    /// What it waits for, which is not itself, and since when.
    waits: Option<(Elsewhere, Moment)>,
}

/// Where a loop may wait without being to blame for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Elsewhere {
    /// In a system call on files.
    Disk,
    /// For state, of which [`STATE`] knows how it stands.
    State,
}

/// The name of state's own loop.
pub const STATE: &str = "state";
/// Of the one that keeps the quarantine store.
pub const QUARANTINE: &str = "quarantine";
/// Of the one that prunes and seals the record.
pub const RECORD: &str = "record";

/// A loop that has owed its answer for too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silent {
    /// Which: the rule of a driver, [`STATE`], [`QUARANTINE`] or [`RECORD`].
    pub name: String,
    /// Whether it waits for a file system; then nobody but that is to blame.
    pub at_disk: bool,
}

/// A loop's own end: it answers with it, and is asked no more once it is dropped.
#[derive(Debug)]
pub struct Heartbeat {
    clock: Clock,
    question: watch::Receiver<u64>,
    own: Arc<Turning>,
    all: Arc<Mutex<Vec<Arc<Turning>>>>,
}

impl Watchdog {
    /// Of nobody yet.
    pub fn new(clock: Clock) -> Self {
        Self { clock, question: watch::Sender::new(0), turning: Arc::default() }
    }

    /// Adds a loop, which owes nothing before the next question.
    pub fn register(&self, name: &str) -> Heartbeat {
        let question = self.question.subscribe();
        let since = Since { answered: *question.borrow(), ..Since::default() };
        let own = Arc::new(Turning { name: name.to_owned(), now: Mutex::new(since) });
        lock(&self.turning).push(Arc::clone(&own));
        Heartbeat { clock: self.clock, question, own, all: Arc::clone(&self.turning) }
    }

    /// Asks every loop.
    pub fn ask(&self) {
        let now = self.clock.now();
        for one in lock(&self.turning).iter() {
            lock(&one.now).owes.get_or_insert(now);
        }
        self.question.send_modify(|n| *n += 1);
    }

    /// The loops that have owed an answer for so long. Whoever waits for state is among them only together with state.
    pub fn silent(&self, allowance: Duration) -> Vec<Silent> {
        let now = self.clock.now();
        let mut silent = Vec::new();
        let mut at_state = Vec::new();
        for one in lock(&self.turning).iter() {
            let since = lock(&one.now);
            if since.owes.is_none_or(|owes| now.saturating_sub(owes) < allowance) {
                continue;
            }
            let elsewhere = since.waits.map(|(place, _)| place);
            let found = Silent { name: one.name.clone(), at_disk: elsewhere == Some(Elsewhere::Disk) };
            if elsewhere == Some(Elsewhere::State) { at_state.push(found) } else { silent.push(found) }
        }
        if silent.iter().any(|one| one.name == STATE) {
            silent.append(&mut at_state);
        }
        silent
    }

    /// Whether the loop of this name has waited for a file system for so long.
    pub fn is_at_disk(&self, name: &str, at_least: Duration) -> bool {
        let now = self.clock.now();
        lock(&self.turning).iter().filter(|one| one.name == name).any(|one| match lock(&one.now).waits {
            Some((Elsewhere::Disk, since)) => now.saturating_sub(since) >= at_least,
            Some((Elsewhere::State, _)) | None => false,
        })
    }
}

impl Heartbeat {
    /// The loop has come round: it answers what was asked. Returns whether anything was.
    pub fn turn(&mut self) -> bool {
        let question = *self.question.borrow_and_update();
        let mut since = lock(&self.own.now);
        since.owes = None;
        std::mem::replace(&mut since.answered, question) != question
    }

    /// Waits for a question.
    pub async fn asked(&mut self) {
        if self.question.changed().await.is_err() {
            std::future::pending().await // nobody is left to ask
        }
    }

    /// Does something that waits for others, and answers meanwhile: as long as it is polled, its loop turns.
    pub async fn answering<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = self.asked() => {
                    self.turn();
                }
            }
        }
    }

    /// Runs work on files, which may wait for a disk or a file server, where that stops no other task. However little
    /// the work is: a call that never returns would keep one of the few threads that all tasks share.
    pub fn at_disk<T>(&self, work: impl FnOnce() -> T) -> T {
        tokio::task::block_in_place(|| {
            let _visit = self.visit(Elsewhere::Disk);
            work()
        })
    }

    /// Waits for what a source or a sink does, which may take as long as [`Self::at_disk`].
    pub async fn at_source<T>(&self, work: impl Future<Output = T>) -> T {
        let _visit = self.visit(Elsewhere::Disk);
        work.await
    }

    /// Waits for what state has to answer.
    pub async fn at_state<T>(&self, answer: impl Future<Output = T>) -> T {
        let _visit = self.visit(Elsewhere::State);
        answer.await
    }

    /// The loop ends: it is asked no more.
    pub fn retire(&self) {
        lock(&self.all).retain(|one| !Arc::ptr_eq(one, &self.own));
    }

    fn visit(&self, place: Elsewhere) -> Visit<'_> {
        lock(&self.own.now).waits = Some((place, self.clock.now()));
        Visit(self)
    }
}

/// A system call on files or a few hundred, or a question to state.
struct Visit<'a>(&'a Heartbeat);

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let mut since = lock(&self.0.own.now);
        since.waits = None;
        // A slow disk is work, too: what it took is not held against the loop.
        since.owes = since.owes.map(|_| self.0.clock.now());
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.retire();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is kept here is right after every single step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Duration = Duration::ZERO;
    const LATER: Duration = Duration::from_secs(60 * 60);

    fn silent(name: &str, at_disk: bool) -> Silent {
        Silent { name: name.to_owned(), at_disk }
    }

    #[test]
    fn o4_who_does_not_answer_is_named_and_nobody_before_a_question() {
        let pulse = Watchdog::new(Clock::start());
        let (mut turns, hangs) = (pulse.register("turns"), pulse.register("hangs"));
        assert_eq!(pulse.silent(AT_ONCE), []);
        assert!(!turns.turn());
        pulse.ask();
        assert_eq!(pulse.silent(LATER), [], "everybody has time to answer");
        assert!(turns.turn());
        assert_eq!(pulse.silent(AT_ONCE), [silent("hangs", false)]);
        pulse.ask();
        assert!(turns.turn());
        assert_eq!(pulse.silent(AT_ONCE), [silent("hangs", false)]);
        drop(hangs);
        assert_eq!(pulse.silent(AT_ONCE), [], "who has ended owes nothing");
    }

    #[test]
    fn o4_who_waits_for_a_file_system_is_not_to_blame() {
        let pulse = Watchdog::new(Clock::start());
        let mut beat = pulse.register("rule");
        pulse.ask();
        let visit = beat.visit(Elsewhere::Disk);
        assert_eq!(pulse.silent(AT_ONCE), [silent("rule", true)]);
        assert!(pulse.is_at_disk("rule", AT_ONCE));
        assert!(!pulse.is_at_disk("rule", LATER) && !pulse.is_at_disk("other", AT_ONCE));
        drop(visit);
        assert!(!pulse.is_at_disk("rule", AT_ONCE));
        assert_eq!(pulse.silent(LATER), []);
        assert_eq!(pulse.silent(AT_ONCE), [silent("rule", false)], "back from there, it owes its answer");
        beat.turn();
        assert_eq!(pulse.silent(AT_ONCE), []);
    }

    #[test]
    fn o4_who_waits_for_state_is_to_blame_as_state_is() {
        let pulse = Watchdog::new(Clock::start());
        let (mut state, beat) = (pulse.register(STATE), pulse.register("rule"));
        pulse.ask();
        let visit = beat.visit(Elsewhere::State);
        assert_eq!(pulse.silent(AT_ONCE), [silent(STATE, false), silent("rule", false)]);
        state.turn();
        assert_eq!(pulse.silent(AT_ONCE), []);
        drop(visit);
        assert_eq!(pulse.silent(AT_ONCE), [silent("rule", false)]);
    }

    #[tokio::test]
    async fn a_question_wakes_and_one_is_enough() {
        let pulse = Watchdog::new(Clock::start());
        let mut beat = pulse.register("rule");
        pulse.ask();
        pulse.ask();
        beat.asked().await;
        assert!(beat.turn());
        assert!(!beat.turn());
    }
}
