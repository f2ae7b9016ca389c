//! How far the work is: one line at the bottom of the terminal that standard error is, gone when
//! the work is done.
//!
//! A thread of its own draws it; those who work only count, so that they lose nothing by being
//! watched. Nothing is drawn where standard error is no terminal, nor before the work has taken a
//! while. Whatever else is said on standard error meanwhile goes through [`stderr`], which takes
//! the line away and puts it back underneath.

use std::convert::Infallible;
use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::{Palette, TERM, understands_escapes};
use crate::log_queue::{self, LogQueue, Output};

/// Work that takes no longer than this is not shown.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long KMS may take before somebody wonders: many times what it does take.
const PATIENCE_WITH_KMS: Duration = Duration::from_secs(1);
/// Between two drawings.
const PERIOD: Duration = Duration::from_millis(100);
/// Drawings in a second at most.
const HZ: u8 = 10;
/// A terminal that has been stopped (Ctrl-S) for so long is left with the line on it.
const PATIENCE_WITH_TERMINAL: Duration = Duration::from_secs(2);
/// Longer than this, time left is no longer told: it would be a guess.
const FORESEEABLE: f64 = 7.0 * 24.0 * 3600.0;
/// What turns, and what remains of it: ASCII, as a terminal may know no more.
const TURNING: [&str; 5] = ["-", "\\", "|", "/", " "];

/// What is drawn now. The one thing here that all of the process shares, as it shares the terminal.
static DRAWN: Mutex<Option<ProgressBar>> = Mutex::new(None);
/// Where lines wait for standard error, once [`queue`] was called.
static QUEUE: OnceLock<LogQueue> = OnceLock::new();

/// A line that is drawn for as long as this lives.
#[derive(Debug)]
pub(crate) struct Drawn {
    stop: Option<Sender<Infallible>>,
    stopped: Receiver<Infallible>,
}

impl Drawn {
    /// Draws what `line` makes of how fast things go, from `patience` on. Nothing, where nothing is
    /// to be drawn.
    fn begin(patience: Duration, line: impl FnMut(&ProgressBar) -> String + Send + 'static) -> Option<Self> {
        let is_wanted = io::stderr().is_terminal() && understands_escapes(std::env::var_os(TERM));
        if !is_wanted {
            return None;
        }
        let (stop, is_stopped) = mpsc::channel();
        let (drawing, stopped) = mpsc::channel();
        let drawer = thread::Builder::new().name("progress".to_owned());
        // Without a thread for it, the work goes on unseen.
        let drawn = drawer.spawn(move || {
            let _drawing = drawing;
            draw(&is_stopped, patience, line);
        });
        drawn.ok()?;
        Some(Self { stop: Some(stop), stopped })
    }
}

impl Drop for Drawn {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Nothing is ever sent: it ends when the thread does. One that panicked draws no more,
        // which is all that is wanted.
        if let Ok(never) = self.stopped.recv_timeout(PATIENCE_WITH_TERMINAL) {
            match never {}
        }
    }
}

fn draw(stopped: &Receiver<Infallible>, patience: Duration, mut line: impl FnMut(&ProgressBar) -> String) {
    let style = ProgressStyle::default_spinner().tick_strings(&TURNING);
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_style(style);
    let goes_on = |wait| stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout);
    if !goes_on(patience) {
        return;
    }
    bar.set_message(line(&bar));
    *drawn() = Some(bar.clone());
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(HZ));
    bar.tick();
    while goes_on(PERIOD) {
        bar.set_message(line(&bar));
        bar.tick();
    }
    let mut drawn = drawn(); // first: nobody writes where the line still is
    bar.finish_and_clear();
    *drawn = None;
}

fn drawn() -> MutexGuard<'static, Option<ProgressBar>> {
    DRAWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Standard error, for whole lines: what is drawn there makes way for them. After [`queue`] they
/// wait for their turn in a queue, and whoever writes them does not.
pub fn stderr() -> impl Write {
    Stderr
}

/// From now on lines for standard error go through a queue (see [`log_queue`]): who logs must not
/// wait for whoever reads it.
pub fn queue() {
    QUEUE.get_or_init(|| log_queue::open(Screen::default()));
}

struct Stderr;

impl Write for Stderr {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.write_all(lines).map(|()| lines.len())
    }

    fn write_all(&mut self, lines: &[u8]) -> io::Result<()> {
        match QUEUE.get() {
            Some(queue) => queue.push(lines),
            None => Screen::default().write(lines)?,
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // nothing is kept back
    }
}

/// Standard error itself.
#[derive(Debug, Default)]
struct Screen {
    /// The last line could be written in part only.
    is_torn: bool,
}

impl Output for Screen {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let written = match &*drawn() {
            Some(bar) => bar.suspend(|| self.write_whole(lines)),
            None => self.write_whole(lines),
        };
        Ok(written?)
    }
}

impl Screen {
    /// Without the lock of [`io::Stderr`], which a reader that is stuck would keep from everybody.
    fn write_whole(&mut self, lines: &[u8]) -> rustix::io::Result<()> {
        if self.is_torn {
            write_all(b"\n").map_err(|(errno, _)| errno)?;
            self.is_torn = false;
        }
        write_all(lines).map_err(|(errno, written)| {
            self.is_torn = written > 0;
            errno
        })
    }
}

/// Writes all, and otherwise says how much. Others may have made the stream one that does not wait
/// (`O_NONBLOCK` belongs to all who have it open).
fn write_all(bytes: &[u8]) -> Result<(), (Errno, usize)> {
    let (stderr, mut rest) = (io::stderr(), bytes);
    while !rest.is_empty() {
        let done = match rustix::io::write(&stderr, rest) {
            Ok(0) => Err(Errno::IO),
            Err(Errno::INTR) => Ok(0),
            Err(Errno::AGAIN) => match poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => Ok(0),
                Err(errno) => Err(errno),
            },
            done => done,
        };
        let done = done.map_err(|errno| (errno, bytes.len() - rest.len()))?;
        rest = rest.get(done..).unwrap_or_default();
    }
    Ok(())
}

/// Bytes that are being read, shown if that takes a while.
#[derive(Debug)]
pub(crate) struct Reading(Option<(Arc<AtomicU64>, Drawn)>);

impl Reading {
    /// Of so many bytes; `None` where nobody knows how many will come.
    pub(crate) fn of(size: Option<u64>) -> Self {
        let read = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&read);
        let drawn = Drawn::begin(PATIENCE, move |bar| {
            let read = counted.load(Ordering::Relaxed);
            bar.set_position(read);
            bytes(read, size, bar.per_sec())
        });
        Self(drawn.map(|drawn| (read, drawn)))
    }

    /// That nobody is shown.
    pub(crate) const fn unseen() -> Self {
        Self(None)
    }

    /// Counts bytes that were read.
    pub(crate) fn add(&self, len: usize) {
        if let Some((read, _)) = &self.0 {
            read.fetch_add(len as u64, Ordering::Relaxed);
        }
    }
}

/// Says that KMS is asked, if it takes its time. For as long as what it returns lives.
#[must_use]
pub(crate) fn asking_kms() -> Option<Drawn> {
    Drawn::begin(PATIENCE_WITH_KMS, |_| "asking KMS".to_owned())
}

/// Files of a run, as they are dealt with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Files {
    /// Dealt with.
    pub(crate) done: u64,
    /// Known so far, those dealt with included.
    pub(crate) known: u64,
    /// Held, and so dealt with nobody knows when.
    pub(crate) held: u64,
}

/// Shows how many files are dealt with. For as long as what it returns lives.
#[must_use]
pub(crate) fn dealing(mut figures: impl FnMut() -> Files + Send + 'static) -> Option<Drawn> {
    Drawn::begin(PATIENCE, move |bar| {
        let now = figures();
        bar.set_position(now.done);
        files(now, bar.per_sec(), super::stderr())
    })
}

fn bytes(read: u64, size: Option<u64>, rate: f64) -> String {
    let mut line = format!("read {}", amount(read));
    // A file that has grown has no end that is known, nor have those of the kernel that say 0.
    let size = size.filter(|size| *size >= read && *size > 0);
    if let Some(size) = size {
        let percent = u128::from(read) * 100 / u128::from(size);
        line += &format!(" of {} ({percent}%)", amount(size));
    }
    if rate >= 1.0 {
        line += &format!(", {}/s", amount(rate as u64));
    }
    line + &left(size.map(|size| size - read), rate)
}

fn files(Files { done, known, held }: Files, rate: f64, colours: Palette) -> String {
    if known == 0 {
        return "looking for files".to_owned();
    }
    let mut line = format!("{done} of {known} {} done", if known == 1 { "file" } else { "files" });
    if held > 0 {
        line += &format!(", {}", colours.waiting(&format!("{held} held")));
    }
    if rate >= 0.05 {
        line += &if rate < 10.0 { format!(", {rate:.1}/s") } else { format!(", {rate:.0}/s") };
    }
    line + &left(Some(known.saturating_sub(done).saturating_sub(held)), rate)
}

fn amount(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

/// How long the rest takes, where that can be told.
fn left(rest: Option<u64>, rate: f64) -> String {
    let seconds = rest.map_or(f64::INFINITY, |rest| rest as f64 / rate);
    if seconds.is_nan() || seconds > FORESEEABLE {
        return String::new();
    }
    let left = Duration::from_secs(seconds.ceil() as u64);
    format!(", {} left", humantime::format_duration(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn bytes_are_told_with_rate_and_time_left() {
        for (read, size, rate, line) in [
            (
                GIB,
                Some(4 * GIB),
                512.0 * 1024.0 * 1024.0,
                "read 1.0 GiB of 4.0 GiB (25%), 512.0 MiB/s, 6s left",
            ),
            (GIB, None, 1024.0, "read 1.0 GiB, 1.0 KiB/s"),
            (0, Some(GIB), 0.0, "read 0 B of 1.0 GiB (0%)"),
            (GIB, Some(GIB), 1024.0, "read 1.0 GiB of 1.0 GiB (100%), 1.0 KiB/s, 0s left"),
            (GIB, Some(5), 1024.0, "read 1.0 GiB, 1.0 KiB/s"), // it grew
            (7, Some(0), 1.0, "read 7 B, 1 B/s"),              // below /proc
            (0, Some(0), 0.0, "read 0 B"),
            (1, Some(u64::MAX), 1.0, "read 1 B of 16.0 EiB (0%), 1 B/s"), // nobody will see it
            (0, Some(3 * GIB / 2), (GIB / 60) as f64, "read 0 B of 1.5 GiB (0%), 17.1 MiB/s, 1m 31s left"),
        ] {
            assert_eq!(bytes(read, size, rate), line);
        }
    }

    #[test]
    fn files_are_told_with_what_is_held_and_without_waiting_for_it() {
        for ((done, known, held), rate, line) in [
            ((0, 0, 0), 0.0, "looking for files"),
            ((0, 1, 0), 0.0, "0 of 1 file done"),
            ((5, 25, 0), 2.0, "5 of 25 files done, 2.0/s, 10s left"),
            ((5, 25, 12), 2.0, "5 of 25 files done, 12 held, 2.0/s, 4s left"),
            ((25, 25, 0), 40.4, "25 of 25 files done, 40/s, 0s left"),
            ((9, 12, 3), 0.0, "9 of 12 files done, 3 held"),
            ((9, 12, 9), 1.0, "9 of 12 files done, 9 held, 1.0/s, 0s left"), // figures of different moments
        ] {
            assert_eq!(files(Files { done, known, held }, rate, Palette::PLAIN), line);
        }
    }
}
