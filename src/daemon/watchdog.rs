//! The watchdog: whether every event loop of the daemon still responds.
//!
//! By request and answer: [`Watchdog::ask`] raises a number, each loop acknowledges it with
//! [`Heartbeat::beat`] in its next iteration, [`Watchdog::silent`] names the loops that have not
//! for too long. Without a watchdog in the service manager nobody asks, and no loop wakes up for
//! it. Success is not its subject: a loop that has been holding every file for a week responds.
//!
//! A loop that waits for a system call on files is distinguished from one that hangs. A disk or a
//! file server does not return then; a restart would wait for it again, and stop the rules that
//! still work. A loop that waits for state is as responsive as state's own loop, which is
//! registered as [`STATE`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::{Clock, Moment};

/// The event loops of a daemon.
#[derive(Debug)]
pub(crate) struct Watchdog {
    clock: Clock,
    requests: watch::Sender<u64>,
    loops: Arc<Mutex<Vec<Arc<Loop>>>>,
}

/// What is known of one loop.
#[derive(Debug)]
struct Loop {
    name: String,
    now: Mutex<Since>,
}

#[derive(Debug, Default)]
struct Since {
    /// The last request that it answered.
    answered: u64,
    /// Since when an answer is owed.
    owes: Option<Moment>,
    /// What else it waits for, and since when.
    waits: Option<(Elsewhere, Moment)>,
}

/// What a loop may wait for without hanging itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Elsewhere {
    /// A system call on files.
    Disk,
    /// State, whose own loop is [`STATE`].
    State,
}

/// The name of state's loop.
pub(crate) const STATE: &str = "state";
/// The name of the quarantine store's maintenance task.
pub(crate) const QUARANTINE: &str = "quarantine";
/// The name of the task that prunes and seals the record.
pub(crate) const RECORD: &str = "record";

/// A loop that has not acknowledged in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Silent {
    /// Which: the rule of a worker, [`STATE`], [`QUARANTINE`] or [`RECORD`].
    pub(crate) name: String,
    /// Whether it waits for a file system.
    pub(crate) at_disk: bool,
}

/// The handle with which a loop acknowledges. Dropping it deregisters the loop.
#[derive(Debug)]
pub(crate) struct Heartbeat {
    clock: Clock,
    requests: watch::Receiver<u64>,
    own: Arc<Loop>,
    all: Arc<Mutex<Vec<Arc<Loop>>>>,
}

impl Watchdog {
    /// A watchdog without loops.
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, requests: watch::Sender::new(0), loops: Arc::default() }
    }

    /// Adds a loop, which owes nothing before the next request.
    pub(crate) fn register(&self, name: &str) -> Heartbeat {
        let requests = self.requests.subscribe();
        let since = Since { answered: *requests.borrow(), ..Since::default() };
        let own = Arc::new(Loop { name: name.to_owned(), now: Mutex::new(since) });
        lock(&self.loops).push(Arc::clone(&own));
        Heartbeat { clock: self.clock, requests, own, all: Arc::clone(&self.loops) }
    }

    /// Asks every loop.
    pub(crate) fn ask(&self) {
        let now = self.clock.now();
        for one in lock(&self.loops).iter() {
            lock(&one.now).owes.get_or_insert(now);
        }
        self.requests.send_modify(|n| *n += 1);
    }

    /// The loops that have not acknowledged for this long. A loop that waits for state is listed
    /// only if state is.
    pub(crate) fn silent(&self, allowance: Duration) -> Vec<Silent> {
        let now = self.clock.now();
        let mut silent = Vec::new();
        let mut at_state = Vec::new();
        for one in lock(&self.loops).iter() {
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
    pub(crate) fn is_at_disk(&self, name: &str, at_least: Duration) -> bool {
        let now = self.clock.now();
        lock(&self.loops).iter().filter(|one| one.name == name).any(|one| match lock(&one.now).waits {
            Some((Elsewhere::Disk, since)) => now.saturating_sub(since) >= at_least,
            Some((Elsewhere::State, _)) | None => false,
        })
    }
}

impl Heartbeat {
    /// Answers, once in each iteration of the loop. Returns whether there was a request.
    pub(crate) fn beat(&mut self) -> bool {
        let request = *self.requests.borrow_and_update();
        let mut since = lock(&self.own.now);
        since.owes = None;
        std::mem::replace(&mut since.answered, request) != request
    }

    /// Waits for a request.
    pub(crate) async fn asked(&mut self) {
        if self.requests.changed().await.is_err() {
            std::future::pending().await // there is no watchdog any more
        }
    }

    /// Runs work and acknowledges requests meanwhile.
    pub(crate) async fn answering<T>(&mut self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                () = self.asked() => {
                    self.beat();
                }
            }
        }
    }

    /// Runs work on files, which may wait for a disk or a file server, so that it blocks no other
    /// task. However short the work is: a call that never returns would block one of the runtime's
    /// few threads.
    pub(crate) fn at_disk<T>(&self, work: impl FnOnce() -> T) -> T {
        tokio::task::block_in_place(|| {
            let _visit = self.visit(Elsewhere::Disk);
            work()
        })
    }

    /// Waits for a source or a sink, which may take as long as [`Self::at_disk`].
    pub(crate) async fn at_source<T>(&self, work: impl Future<Output = T>) -> T {
        let _visit = self.visit(Elsewhere::Disk);
        work.await
    }

    /// Waits for state.
    pub(crate) async fn at_state<T>(&self, answer: impl Future<Output = T>) -> T {
        let _visit = self.visit(Elsewhere::State);
        answer.await
    }

    /// Deregisters the loop.
    pub(crate) fn retire(&self) {
        lock(&self.all).retain(|one| !Arc::ptr_eq(one, &self.own));
    }

    fn visit(&self, place: Elsewhere) -> Visit<'_> {
        lock(&self.own.now).waits = Some((place, self.clock.now()));
        Visit(self)
    }
}

/// Marks the loop as waiting for files or state until it is dropped.
struct Visit<'a>(&'a Heartbeat);

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let mut since = lock(&self.0.own.now);
        since.waits = None;
        // Time on a slow disk does not count against the loop.
        since.owes = since.owes.map(|_| self.0.clock.now());
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.retire();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every update leaves the data consistent, so a poisoned lock is safe to use.
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
    fn o4_a_loop_is_silent_only_after_an_unanswered_request() {
        let watchdog = Watchdog::new(Clock::start());
        let (mut responds, hangs) = (watchdog.register("responds"), watchdog.register("hangs"));
        assert_eq!(watchdog.silent(AT_ONCE), []);
        assert!(!responds.beat());
        watchdog.ask();
        assert_eq!(watchdog.silent(LATER), [], "everybody has time to answer");
        assert!(responds.beat());
        assert_eq!(watchdog.silent(AT_ONCE), [silent("hangs", false)]);
        watchdog.ask();
        assert!(responds.beat());
        assert_eq!(watchdog.silent(AT_ONCE), [silent("hangs", false)]);
        drop(hangs);
        assert_eq!(watchdog.silent(AT_ONCE), [], "who has ended owes nothing");
    }

    #[test]
    fn o4_a_loop_waiting_for_a_file_system_is_marked_as_such() {
        let watchdog = Watchdog::new(Clock::start());
        let mut heartbeat = watchdog.register("rule");
        watchdog.ask();
        let visit = heartbeat.visit(Elsewhere::Disk);
        assert_eq!(watchdog.silent(AT_ONCE), [silent("rule", true)]);
        assert!(watchdog.is_at_disk("rule", AT_ONCE));
        assert!(!watchdog.is_at_disk("rule", LATER) && !watchdog.is_at_disk("other", AT_ONCE));
        drop(visit);
        assert!(!watchdog.is_at_disk("rule", AT_ONCE));
        assert_eq!(watchdog.silent(LATER), []);
        assert_eq!(watchdog.silent(AT_ONCE), [silent("rule", false)], "back from there, it owes its answer");
        heartbeat.beat();
        assert_eq!(watchdog.silent(AT_ONCE), []);
    }

    #[test]
    fn o4_a_loop_waiting_for_state_is_silent_only_with_state() {
        let watchdog = Watchdog::new(Clock::start());
        let (mut state, heartbeat) = (watchdog.register(STATE), watchdog.register("rule"));
        watchdog.ask();
        let visit = heartbeat.visit(Elsewhere::State);
        assert_eq!(watchdog.silent(AT_ONCE), [silent(STATE, false), silent("rule", false)]);
        state.beat();
        assert_eq!(watchdog.silent(AT_ONCE), []);
        drop(visit);
        assert_eq!(watchdog.silent(AT_ONCE), [silent("rule", false)]);
    }

    #[tokio::test]
    async fn a_request_wakes_a_loop_once() {
        let watchdog = Watchdog::new(Clock::start());
        let mut heartbeat = watchdog.register("rule");
        watchdog.ask();
        watchdog.ask();
        heartbeat.asked().await;
        assert!(heartbeat.beat());
        assert!(!heartbeat.beat());
    }
}
