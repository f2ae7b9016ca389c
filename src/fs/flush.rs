//! Group flush: makes the writes of many files durable with one flush of the disk.
//!
//! Callers that arrive during a flush wait for its end and are then flushed together, in one round:
//! the slower the disk, the larger the rounds. A few files are flushed one by one (fsync(2)). Many
//! wait a moment for more and are flushed by one syncfs(2), which writes shared blocks once. It
//! also writes other processes' data on the file system, so it is not used for a few.
//!
//! Both promise the same. The syncfs(2) of Linux 5.8 and later reports every failed write to the
//! file system since the descriptor was opened, which is before anything is written here. A
//! reported failure may be about any of the files: from then on each is flushed by itself and gets
//! its own result.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

pub(crate) use super::written::Written;
use super::{Dir, FsError, Result};

/// From how many on one syncfs(2) is quicker. Seen on ext4 and XFS; a pair is two.
const MANY: usize = 4;

/// How long many wait for more.
const MOMENT: Duration = Duration::from_millis(2);

/// Flushes what is written to one file system.
#[derive(Debug)]
pub struct Flusher {
    /// A directory there, for syncfs(2), where it can be relied on.
    whole: Option<Dir>,
    rounds: Rounds,
}

impl Flusher {
    /// For the file system of `dir`. To be made before anything is written that it is to flush.
    ///
    /// # Errors
    /// What open(2) and statfs(2) say.
    pub fn new(dir: &Dir) -> Result<Self> {
        let uname = rustix::system::uname();
        let reports_failures = syncfs_reports_failures(uname.release().to_bytes());
        let can_be_whole = dir.file_system()?.flushes_whole() && reports_failures;
        // Opened, not cloned: failures are reported once to each open file description.
        let whole = if can_be_whole { Some(dir.descend(Path::new("."))?) } else { None };
        Ok(Self { whole, rounds: Rounds::default() })
    }

    /// Makes all of `written` durable, each with its own result.
    pub(crate) fn flush_each(&self, written: &[Written<'_>]) -> Vec<Result<()>> {
        if written.is_empty() {
            return Vec::new();
        }
        let mut results = Vec::new();
        let each = || {
            results = written.iter().map(Written::flush).collect();
            Ok(())
        };
        // Never both: what the kernel has once failed to write it may have forgotten (fsync(2)).
        let flushed = self.flush_by(written.len(), Duration::ZERO, each); // they have gathered already
        if results.is_empty() { written.iter().map(|_| flushed.clone()).collect() } else { results }
    }

    /// Makes all of `written` durable.
    ///
    /// # Errors
    /// What fsync(2) says of the first that fails. Then nothing is known of the others.
    pub fn flush(&self, written: &[Written<'_>]) -> Result<()> {
        self.flush_by(written.len(), MOMENT, || written.iter().try_for_each(Written::flush))
    }

    fn flush_by(&self, size: usize, moment: Duration, each: impl FnOnce() -> Result<()>) -> Result<()> {
        let Some(dir) = &self.whole else { return each() };
        self.rounds.flush(size, moment, each, || {
            rustix::fs::syncfs(dir.as_fd()).map_err(|e| FsError::new("sync", dir.path(), e))?;
            // Kernels before 5.17 do not report to syncfs(2) that the file system was shut down;
            // and ext4 without a journal flushes the disk's cache before it writes the last blocks.
            dir.sync()
        })
    }
}

/// Linux 5.8 and later: errors of earlier writes are reported (syncfs(2), "RETURN VALUE").
/// `release` as in uname(2).
fn syncfs_reports_failures(release: &[u8]) -> bool {
    let mut numbers = std::str::from_utf8(release).unwrap_or_default().split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    (number(), number()) >= (5_u32, 8_u32)
}

/// The round that callers join, and the state of the disk.
#[derive(Debug)]
struct Rounds(Mutex<Queue>);

#[derive(Debug)]
struct Queue {
    /// The round that new callers join.
    next: Arc<Round>,
    /// How much there is to flush in it.
    size: usize,
    is_flushing: bool,
    /// Whether no flush of the whole file system has failed.
    is_trusted: bool,
}

/// Callers that are flushed together.
#[derive(Debug, Default)]
struct Round {
    turn: Condvar,
    outcome: OnceLock<RoundOutcome>,
}

/// How a round was flushed: decided by its first member, read by the others.
#[derive(Debug, Clone, Copy)]
enum RoundOutcome {
    /// They are durable.
    Durable,
    /// Not flushed together: each member flushes for itself.
    Each,
}

impl Default for Rounds {
    fn default() -> Self {
        Self(Mutex::new(Queue { next: Arc::default(), size: 0, is_flushing: false, is_trusted: true }))
    }
}

impl Rounds {
    /// Returns when this caller's `size` files are durable: by `each`, or by the `whole` of the
    /// round's first caller, who waits a `moment` for more if there are many.
    fn flush(
        &self,
        size: usize,
        moment: Duration,
        each: impl FnOnce() -> Result<()>,
        whole: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let mut queue = self.queue();
        queue.size += size;
        let round = Arc::clone(&queue.next);
        while queue.is_flushing && round.outcome.get().is_none() {
            queue = round.turn.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        match round.outcome.get() {
            Some(RoundOutcome::Durable) => return Ok(()),
            Some(RoundOutcome::Each) => {
                drop(queue);
                return each();
            }
            None => {} // this caller is the first of its round
        }
        queue.is_flushing = true;
        let are_many = queue.size >= MANY && queue.is_trusted;
        if are_many {
            drop(queue);
            std::thread::sleep(moment);
            queue = self.queue();
        }
        queue.size = 0;
        queue.next = Arc::default();
        if !are_many {
            round.resolve(RoundOutcome::Each);
            drop(queue);
            let done = each();
            self.queue().end();
            return done;
        }
        drop(queue);
        let done = whole();
        let mut queue = self.queue();
        queue.is_trusted = done.is_ok();
        round.resolve(if done.is_ok() { RoundOutcome::Durable } else { RoundOutcome::Each });
        queue.end();
        drop(queue);
        done.or_else(|_| each())
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Wakes one caller of the next round, which then flushes.
    fn end(&mut self) {
        self.is_flushing = false;
        self.next.turn.notify_one();
    }
}

impl Round {
    fn resolve(&self, outcome: RoundOutcome) {
        self.outcome.get_or_init(|| outcome);
        self.turn.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use rustix::io::Errno;

    use super::*;
    use crate::fs::{Publish, Staging};

    fn failure() -> FsError {
        FsError::new("sync", "/", Errno::IO)
    }

    /// What was done, and by how many.
    #[derive(Default)]
    struct Count {
        each: AtomicUsize,
        whole: AtomicUsize,
        failed: AtomicUsize,
    }

    impl Count {
        fn take(&self) -> [usize; 3] {
            [&self.each, &self.whole, &self.failed].map(|count| count.swap(0, Ordering::Relaxed))
        }
    }

    /// Has one flush, which takes until `others` more wait for it, and then them.
    fn meet(rounds: &Rounds, others: usize, can_each: bool, can_whole: bool) -> [usize; 3] {
        let count = Count::default();
        let done = |counter: &AtomicUsize, can| {
            counter.fetch_add(1, Ordering::Relaxed);
            if can { Ok(()) } else { Err(failure()) }
        };
        std::thread::scope(|scope| {
            let (began, has_begun) = mpsc::channel();
            let first = scope.spawn(move || {
                let each = || {
                    began.send(()).unwrap();
                    while rounds.queue().size < others {
                        std::thread::yield_now();
                    }
                    Ok(())
                };
                rounds.flush(1, MOMENT, each, || panic!("one alone")).unwrap();
            });
            has_begun.recv().unwrap();
            for _ in 0..others {
                scope.spawn(|| {
                    let (each, whole) = (|| done(&count.each, can_each), || done(&count.whole, can_whole));
                    if rounds.flush(1, MOMENT, each, whole).is_err() {
                        count.failed.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            first.join().unwrap();
        });
        let queue = rounds.queue();
        assert!(!queue.is_flushing && queue.size == 0, "the next finds the disk free");
        drop(queue);
        count.take()
    }

    #[test]
    fn many_waiting_callers_are_flushed_together_and_a_few_one_by_one() {
        let rounds = Rounds::default();
        assert_eq!(meet(&rounds, MANY, true, true), [0, 1, 0]);
        assert_eq!(meet(&rounds, 100, true, true), [0, 1, 0]);
        assert_eq!(meet(&rounds, MANY - 1, true, true), [MANY - 1, 0, 0]);
        assert_eq!(meet(&rounds, 1, true, true), [1, 0, 0]);
        assert_eq!(meet(&rounds, MANY, true, true), [0, 1, 0], "again");
    }

    #[test]
    fn a_single_caller_is_flushed_at_once() {
        let rounds = Rounds::default();
        for _ in 0..3 {
            rounds.flush(MANY - 1, MOMENT, || Ok(()), || panic!("not many")).unwrap();
            rounds.flush(MANY, MOMENT, || panic!("many"), || Ok(())).unwrap();
        }
    }

    #[test]
    fn c7_after_a_failed_syncfs_each_file_is_flushed_by_itself() {
        let rounds = Rounds::default();
        assert_eq!(meet(&rounds, MANY, true, false), [MANY, 1, 0], "somebody else's");
        assert_eq!(meet(&rounds, MANY, true, true), [MANY, 0, 0], "it may have been about these");
        assert_eq!(meet(&rounds, MANY, false, true), [MANY, 0, MANY]);
        let rounds = Rounds::default();
        assert_eq!(meet(&rounds, MANY, false, false), [MANY, 1, MANY], "all of theirs");
        assert!(rounds.flush(1, MOMENT, || Err(failure()), || Ok(())).is_err());
    }

    #[test]
    fn c7_kernels_whose_syncfs_hides_failures_are_recognised() {
        for told in ["5.8", "5.8.0-rc1", "5.10.0-28-amd64", "6.0", "6.1.0", "10.1.2"] {
            assert!(syncfs_reports_failures(told.as_bytes()), "{told}");
        }
        for kept in ["5.7.19", "4.19.0-26-amd64", "4.8.0", "3.10", "5", "5.x8", "", "linux", "\u{665}.8"] {
            assert!(!syncfs_reports_failures(kept.as_bytes()), "{kept}");
        }
    }

    #[test]
    fn files_and_their_directory_are_flushed_by_either_way() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let by_both = Flusher::new(&dir).unwrap();
        let one_by_one = Flusher { whole: None, rounds: Rounds::default() };
        for (i, flusher) in [&by_both, &one_by_one].into_iter().enumerate() {
            let files: Vec<_> = (0..MANY).map(|_| Staging::holding(&dir, b"content").unwrap()).collect();
            let written: Vec<_> = files.iter().map(Staging::written).collect();
            flusher.flush(&written).unwrap();
            let name = i.to_string();
            assert_eq!(files[0].publish(&dir, OsStr::new(&name)).unwrap(), Publish::Done);
            flusher.flush(&[dir.written()]).unwrap();
        }
        // A socket has nothing to flush, and says so.
        let (socket, _end) = std::os::unix::net::UnixStream::pair().unwrap();
        let socket = Written::new(&socket, "sync", Path::new("socket"));
        assert_eq!(one_by_one.flush(&[socket]).unwrap_err().source, Errno::INVAL);
        assert_eq!(by_both.flush(&[socket]).unwrap_err().source, Errno::INVAL);
    }
}
