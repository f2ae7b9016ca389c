//! Whether a file is open for writing, found out by a read lease.
//!
//! `fcntl(F_SETLEASE, F_RDLCK)` is refused with `EAGAIN` while a writable descriptor or mapping
//! exists (fcntl(2), "Leases"). It needs ownership of the file or `CAP_LEASE`, and a local file
//! system. The lease is released at once: it is a probe, not a lock.

#![expect(unsafe_code, reason = "no safe wrapper of F_SETLEASE exists")]

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::sync::Once;

/// What the kernel says about writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writer {
    /// Nobody has it open for writing, nor mapped.
    Absent,
    /// Somebody has.
    Present,
    /// The kernel does not say: not our file and no `CAP_LEASE`, or a file system without leases.
    Unknown,
}

impl Writer {
    /// Both files of a pair together: one writer is enough, one unknown leaves it open.
    #[must_use]
    pub(crate) const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Present, _) | (_, Self::Present) => Self::Present,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Absent, Self::Absent) => Self::Absent,
        }
    }
}

/// Asks about a file that is open read-only.
pub(crate) fn probe(file: &File) -> Writer {
    ignore_breaks();
    let fd = file.as_raw_fd();
    // SAFETY: `fd` is open for as long as `file` is borrowed; F_SETLEASE takes an int and keeps
    // nothing of ours.
    let granted = unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) };
    if granted == 0 {
        // SAFETY: as above. Should it fail, closing the file gives the lease back all the same.
        unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK) };
        return Writer::Absent;
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::EAGAIN) => Writer::Present,
        _ => Writer::Unknown,
    }
}

/// A writer that opens the file between grant and return raises `SIGIO`, whose default action would
/// end this process (S10).
fn ignore_breaks() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: SIG_IGN is a valid disposition for SIGIO, and nothing else in the process handles
        // it.
        unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
    });
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    #[test]
    fn s2_a_writer_is_seen_until_it_closes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let writer = File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        assert_eq!(probe(&reader), Writer::Present);
        let second = OpenOptions::new().append(true).open(&path).unwrap();
        drop(writer);
        assert_eq!(probe(&reader), Writer::Present);
        drop(second);
        assert_eq!(probe(&reader), Writer::Absent);
        // Given back: a writer may open at once.
        drop(OpenOptions::new().write(true).open(&path).unwrap());
        assert_eq!(probe(&reader), Writer::Absent);
    }

    #[test]
    fn s10_a_writer_that_opens_during_the_probe_does_not_kill_us() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        File::create(&path).unwrap();
        let reader = File::open(&path).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let hammer = scope.spawn(|| {
                let mut opens = 0_u32;
                while !stop.load(Ordering::Relaxed) || opens == 0 {
                    OpenOptions::new().write(true).open(&path).unwrap();
                    opens += 1;
                }
                opens
            });
            for _ in 0..20_000 {
                probe(&reader);
            }
            stop.store(true, Ordering::Relaxed);
            assert!(hammer.join().unwrap() > 0);
        });
    }
}
