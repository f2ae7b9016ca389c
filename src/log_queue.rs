//! The queue between whoever logs and whoever takes the log, so that logging never stops work.
//!
//! What takes a log may stop for ever: a pager that nobody scrolls, a collector that hangs, a
//! journald that is stopped. Of what is logged, a thread of its own writes one entry after the
//! other; those who log put theirs into the queue and go on. Where the queue is full, entries are
//! dropped and counted, and how many is said in their place as soon as entries are taken again. The
//! order is kept. Knows neither what an entry means nor where it goes: that is an [`Output`].
//!
//! There are two ways to deal with a queue that is full: a daemon drops at once; a run that ends by
//! itself (`--once`) waits for a reader that still reads, and drops only what one does not take
//! that has stopped.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use crate::clock::Clock;
use crate::message::log;

/// Bytes that may wait: some 20,000 lines of ordinary length.
const CAPACITY: usize = 4 << 20;
/// What an entry takes besides its text: its place in the queue, and what the allocator adds.
const OVERHEAD: usize = 64;
/// How long the writer lets entries gather after it has written the last there was: waking it for
/// each of many costs those who log more than the entry.
const BREATH: Duration = Duration::from_millis(5);
/// A run that ends by itself takes a reader that has taken nothing for so long for stuck.
const PATIENCE: Duration = Duration::from_secs(10);
/// A daemon that ends, or whoever was told to stop, takes it for stuck sooner,
const SHORT_PATIENCE: Duration = Duration::from_secs(5);
/// and in all waits no longer than this. With the minute for files in hand it is less than the 75
/// seconds that the unit has for it (`TimeoutStopSec=`).
const LAST_MOMENTS: Duration = Duration::from_secs(10);

/// Every queue of the process, for what concerns all of them.
static QUEUES: Mutex<Vec<LogQueue>> = Mutex::new(Vec::new());
/// Entries that were dropped, of all queues.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Says by an entry how many were dropped, and why.
type Say = dyn Fn(u64, &str) + Send + Sync;

/// What takes entries in the end.
pub(crate) trait Output: Send + 'static {
    /// Writes an entry, for however long that takes.
    ///
    /// # Errors
    /// It cannot be written, now or ever. It is lost.
    fn write(&mut self, entry: &[u8]) -> io::Result<()>;
}

/// A queue, and the thread that empties it.
#[derive(Clone)]
pub(crate) struct LogQueue(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// There is something for the writer to do.
    filled: Condvar,
    /// The writer is done with something, or nobody is to wait any more.
    taken: Condvar,
    capacity: usize,
    /// Says how many entries were dropped and why, by an entry.
    say: Box<Say>,
}

struct State {
    entries: VecDeque<Box<[u8]>>,
    /// What they take, with the one that is being written.
    bytes: usize,
    /// Until the thread has it.
    output: Option<Box<dyn Output>>,
    writer: Option<ThreadId>,
    /// The writer has an entry in hand, or says what was dropped.
    is_busy: bool,
    /// Entries that the writer is done with.
    done: u64,
    /// Entries that were dropped, which nobody has been told yet.
    unsaid: u64,
    /// Why the last one was that could not be written.
    error: Option<String>,
    /// It was full, and nothing is taken before that has been said: so the gap is in one place.
    is_dropping: bool,
    /// Whether a full queue is waited for.
    waits: bool,
    /// Somebody has waited in vain, and nothing has been taken since.
    is_stuck: bool,
    /// The writer waits for something to do. Whom nobody waits for is not told: that would be a
    /// system call for each entry.
    does_writer_wait: bool,
    /// How many wait for the writer.
    waiting: usize,
}

impl State {
    fn is_idle(&self) -> bool {
        self.entries.is_empty() && !self.is_busy && !self.is_dropping
    }

    /// Notes that an entry is lost.
    fn count_lost(&mut self) {
        self.unsaid += 1;
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

/// What an entry takes of the capacity.
const fn cost(entry: &[u8]) -> usize {
    entry.len() + OVERHEAD
}

impl fmt::Debug for LogQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogQueue").finish_non_exhaustive()
    }
}

impl LogQueue {
    fn new(output: impl Output, capacity: usize, say: impl Fn(u64, &str) + Send + Sync + 'static) -> Self {
        let state = State {
            entries: VecDeque::new(),
            bytes: 0,
            output: Some(Box::new(output)),
            writer: None,
            is_busy: false,
            done: 0,
            unsaid: 0,
            error: None,
            is_dropping: false,
            waits: true,
            is_stuck: false,
            does_writer_wait: false,
            waiting: 0,
        };
        let (filled, taken) = (Condvar::new(), Condvar::new());
        Self(Arc::new(Shared { state: Mutex::new(state), filled, taken, capacity, say: Box::new(say) }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an entry, or drops it where there is no room. Never waits for a reader that is stuck.
    pub(crate) fn push(&self, entry: &[u8]) {
        let mut state = self.lock();
        // What the writer says itself is what was dropped. It must not wait for itself.
        if state.writer != Some(thread::current().id()) {
            state = self.wait_for_room(state, cost(entry));
            if state.is_dropping || state.bytes + cost(entry) > self.0.capacity {
                state.is_dropping = true;
                state.count_lost();
                return self.wake_writer(&state);
            }
        }
        state.bytes += cost(entry);
        state.entries.push_back(entry.into());
        self.wake_writer(&state);
    }

    fn wake_writer(&self, state: &State) {
        if state.does_writer_wait {
            self.0.filled.notify_one();
        }
    }

    /// Tells those who wait for the writer.
    fn tell(&self, state: &State) {
        if state.waiting > 0 {
            self.0.taken.notify_all();
        }
    }

    /// Waits for the writer while this holds, but not longer than that: whoever waits in vain takes
    /// the reader for stuck.
    fn wait_for_writer<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        patience: Duration,
        holds: impl FnMut(&mut State) -> bool,
    ) -> MutexGuard<'a, State> {
        state.waiting += 1;
        let waited = self.0.taken.wait_timeout_while(state, patience, holds);
        let (mut state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state.is_stuck |= waited.timed_out();
        state
    }

    /// Waits until there is room, where that is wanted and as long as the reader reads.
    fn wait_for_room<'a>(&'a self, mut state: MutexGuard<'a, State>, cost: usize) -> MutexGuard<'a, State> {
        let could_come = cost <= self.0.capacity && state.writer.is_some();
        let is_full = |state: &State| state.is_dropping || state.bytes + cost > self.0.capacity;
        while could_come && state.waits && !state.is_stuck && is_full(&state) {
            let done = state.done;
            state = self.wait_for_writer(state, PATIENCE, |s| s.done == done && s.waits && is_full(s));
        }
        state
    }

    /// Starts the thread that writes.
    ///
    /// # Errors
    /// The process may have no more threads. [`LogQueue::flush`] writes then.
    fn start(&self) -> io::Result<()> {
        let queue = self.clone();
        let writer = thread::Builder::new().name("log".to_owned()).spawn(move || {
            let mut state = queue.lock();
            state.writer = Some(thread::current().id());
            let output = state.output.take();
            drop(state);
            if let Some(output) = output {
                queue.write_all(output);
            }
        })?;
        self.lock().writer = Some(writer.thread().id()); // from now on it can be waited for
        Ok(())
    }

    fn write_all(&self, mut output: Box<dyn Output>) {
        loop {
            let mut state = self
                .0
                .filled
                .wait_while(self.lock(), |state| {
                    state.does_writer_wait = state.entries.is_empty() && !state.is_dropping;
                    state.does_writer_wait
                })
                .unwrap_or_else(PoisonError::into_inner);
            let Some(entry) = state.entries.pop_front() else {
                self.say(state); // it was too long for any queue
                continue;
            };
            state.is_busy = true;
            drop(state);
            let written = output.write(&entry);
            self.note(&entry, written);
            if self.lock().entries.is_empty() {
                thread::sleep(BREATH);
            }
        }
    }

    /// Notes what became of an entry, and says what was dropped when that can be read.
    fn note(&self, entry: &[u8], written: io::Result<()>) {
        let mut state = self.lock();
        state.bytes -= cost(entry);
        state.done += 1;
        state.is_busy = false;
        state.is_stuck = false;
        let is_written = written.is_ok();
        if let Err(error) = written {
            state.error = Some(error.to_string());
            state.count_lost();
        }
        // Not at the first entry that is taken: a reader that is slow would be told after each.
        let has_room = !state.is_dropping || state.bytes <= self.0.capacity / 2;
        if is_written && state.unsaid > 0 && has_room {
            self.say(state);
        } else {
            self.tell(&state);
        }
    }

    fn say(&self, mut state: MutexGuard<'_, State>) {
        state.is_busy = true;
        let lines = std::mem::take(&mut state.unsaid);
        let error = state.error.take();
        drop(state);
        (self.0.say)(lines, error.as_deref().unwrap_or("what takes the log did not keep up"));
        let mut state = self.lock();
        state.is_busy = false;
        state.is_dropping = false;
        self.tell(&state);
    }

    /// Waits until everything is written, as long as entries are taken. False if some are left.
    fn flush(&self) -> bool {
        let clock = Clock::start();
        let mut state = self.lock();
        let unwritten = if state.writer.is_none() { state.output.take() } else { None };
        if let Some(mut output) = unwritten {
            let entries = std::mem::take(&mut state.entries);
            let lost = entries.iter().filter(|entry| output.write(entry).is_err()).count();
            return lost == 0;
        }
        while !state.is_idle() {
            let patience = match state.waits {
                true => PATIENCE,
                false => SHORT_PATIENCE.min(LAST_MOMENTS.saturating_sub(clock.now())),
            };
            if state.is_stuck || patience.is_zero() {
                return false;
            }
            let (done, waits) = (state.done, state.waits);
            let is_same = |s: &mut State| s.done == done && s.waits == waits && !s.is_idle();
            state = self.wait_for_writer(state, patience, is_same);
        }
        true
    }

    /// From now on nobody waits for room.
    fn never_wait(&self) {
        let mut state = self.lock();
        state.waits = false;
        self.tell(&state);
    }
}

/// A queue in front of an output, for this process.
pub(crate) fn open(output: impl Output) -> LogQueue {
    let queue = LogQueue::new(output, CAPACITY, |lines, reason| {
        log!(LogLinesDropped, lines, reason);
    });
    queues().push(queue.clone());
    queue
}

fn queues() -> MutexGuard<'static, Vec<LogQueue>> {
    QUEUES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a thread for each queue. Until then entries are kept.
///
/// # Errors
/// The process may have no more threads.
pub(crate) fn start() -> io::Result<()> {
    queues().iter().try_for_each(LogQueue::start)
}

/// From now on nobody who logs waits for a reader that is slow, and the end not long.
pub(crate) fn never_wait() {
    queues().iter().for_each(LogQueue::never_wait);
}

/// Has what was logged so far written, as far as it is taken: before something is said elsewhere
/// that is to come after it.
pub(crate) fn flush() {
    // The lock is not kept: whoever was told to stop must be able to say so meanwhile.
    let queues = queues().clone();
    queues.iter().for_each(|queue| {
        queue.flush();
    });
}

/// Log lines that were dropped since the start.
pub(crate) fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// Whether they are being dropped now.
pub(crate) fn is_dropping() -> bool {
    queues().iter().any(|queue| queue.lock().is_dropping)
}

/// Has everything written when it is dropped, as far as it is taken within seconds: to be kept
/// until the process ends.
#[derive(Debug)]
pub struct FlushAtExit;

impl Drop for FlushAtExit {
    fn drop(&mut self) {
        flush();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{self, Receiver, Sender, SyncSender};

    use super::*;

    /// Takes an entry for each permission, and hands it on.
    struct Reader {
        permissions: Receiver<io::Result<()>>,
        begun: Sender<()>,
        read: Sender<String>,
    }

    impl Output for Reader {
        fn write(&mut self, entry: &[u8]) -> io::Result<()> {
            self.begun.send(()).ok();
            self.permissions.recv().unwrap_or(Ok(()))?;
            self.read.send(String::from_utf8(entry.to_vec()).unwrap()).ok();
            Ok(())
        }
    }

    struct Log {
        queue: LogQueue,
        permit: SyncSender<io::Result<()>>,
        begun: Receiver<()>,
        read: Receiver<String>,
    }

    /// A queue with room for so many entries of ten bytes, which says what it dropped to itself.
    fn log(entries: usize) -> Log {
        let ((permit, permissions), (begun, has_begun)) = (mpsc::sync_channel(100), mpsc::channel());
        let (sender, read) = mpsc::channel();
        let own: Arc<Mutex<Option<LogQueue>>> = Arc::default();
        let its_own = Arc::clone(&own);
        let say = move |lines: u64, why: &str| {
            let queue = its_own.lock().unwrap().clone().unwrap();
            queue.push(format!("{lines} dropped: {why}").as_bytes());
        };
        let output = Reader { permissions, begun, read: sender };
        let queue = LogQueue::new(output, entries * (10 + OVERHEAD), say);
        *own.lock().unwrap() = Some(queue.clone());
        queue.never_wait();
        Log { queue, permit, begun: has_begun, read }
    }

    fn entry(n: usize) -> Vec<u8> {
        format!("entry {n:04}").into_bytes()
    }

    impl Log {
        fn push(&self, numbers: impl IntoIterator<Item = usize>) {
            numbers.into_iter().for_each(|n| self.queue.push(&entry(n)));
        }

        fn permit(&self, n: usize) {
            (0..n).for_each(|_| self.permit.send(Ok(())).unwrap());
        }

        fn reads(&self, expected: impl IntoIterator<Item = String>) {
            for line in expected {
                assert_eq!(self.read.recv_timeout(Duration::from_secs(20)).as_deref(), Ok(&*line));
            }
        }
    }

    fn lines(numbers: impl IntoIterator<Item = usize>) -> impl Iterator<Item = String> {
        numbers.into_iter().map(|n| String::from_utf8(entry(n)).unwrap())
    }

    #[test]
    fn what_has_no_room_is_dropped_and_counted_where_it_was() {
        let log = log(4);
        log.queue.start().unwrap();
        log.push([0]);
        log.begun.recv().unwrap(); // in hand, which counts
        log.push(1..10);
        log.permit(2);
        log.reads(lines(0..2));
        // Two of four are left, and the next ones come after what is said of those that are lost.
        log.permit(1);
        log.reads(lines([2]));
        log.permit(20);
        log.reads(lines([3]).chain(["6 dropped: what takes the log did not keep up".to_owned()]));
        assert!(log.queue.flush());
        log.push([10]);
        log.reads(lines([10]));
    }

    #[test]
    fn nothing_is_lost_and_the_order_kept_where_somebody_reads() {
        let log = log(1000);
        log.push(0..3); // before there is a thread
        log.queue.start().unwrap();
        log.permit(100);
        log.push(3..100);
        assert!(log.queue.flush());
        log.reads(lines(0..100));
    }

    #[test]
    fn an_entry_that_cannot_be_written_is_counted_and_said_with_the_next_that_can() {
        let log = log(10);
        log.queue.start().unwrap();
        log.permit.send(Err(io::Error::from_raw_os_error(28))).unwrap();
        log.permit.send(Err(io::Error::from_raw_os_error(28))).unwrap();
        log.permit(10);
        log.push(0..3);
        log.reads(lines([2]).chain(["2 dropped: No space left on device (os error 28)".to_owned()]));
    }

    #[test]
    fn an_entry_too_long_for_any_queue_is_dropped_and_said() {
        let log = log(2);
        log.queue.start().unwrap();
        log.permit(10);
        log.queue.push(&[b'x'; 1000]);
        log.reads(["1 dropped: what takes the log did not keep up".to_owned()]);
        assert!(log.queue.flush());
        log.push([1]);
        log.reads(lines([1]));
    }

    #[test]
    fn who_may_wait_waits_for_a_reader_that_reads_and_no_longer_when_told_to_stop() {
        let log = log(4);
        log.queue.lock().waits = true;
        log.queue.start().unwrap();
        let queue = log.queue.clone();
        let pushing = thread::spawn(move || (0..20).for_each(|n| queue.push(&entry(n))));
        log.permit(16);
        log.reads(lines(0..16));
        pushing.join().unwrap(); // the last four have room
        let queue = log.queue.clone();
        let pushing = thread::spawn(move || queue.push(&entry(20)));
        thread::sleep(Duration::from_millis(50)); // it may as well come later
        log.queue.never_wait();
        pushing.join().unwrap();
        log.permit(20);
        log.reads(lines(16..20).chain(["1 dropped: what takes the log did not keep up".to_owned()]));
    }

    #[test]
    fn the_end_waits_for_a_slow_reader_and_not_for_ever_for_one_that_is_stuck() {
        let log = log(10);
        log.queue.start().unwrap();
        log.push(0..3);
        let permit = log.permit.clone();
        let slow = thread::spawn(move || {
            for _ in 0..3 {
                thread::sleep(Duration::from_millis(100));
                permit.send(Ok(())).unwrap();
            }
        });
        assert!(log.queue.flush());
        slow.join().unwrap();
        log.reads(lines(0..3));
        log.push([3]);
        let clock = Clock::start();
        assert!(!log.queue.flush());
        assert!(!log.queue.flush(), "and who has waited in vain does not wait again");
        assert!(clock.now() < 2 * SHORT_PATIENCE, "{:?}", clock.now());
        log.permit(1);
        log.reads(lines([3]));
        // The writer notes a little later that it was taken.
        while log.queue.lock().is_stuck {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(log.queue.flush());
    }

    #[test]
    fn without_a_thread_the_end_writes() {
        let log = log(10);
        log.push(0..2);
        log.permit(2);
        assert!(log.queue.flush());
        log.reads(lines(0..2));
    }
}
