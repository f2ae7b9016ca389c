//! Ending by a signal in the middle of something that must not be left half done.
//!
//! A signal's default action ends a process at once, and nothing is cleaned up. While something is
//! done here, SIGHUP, SIGINT and SIGTERM have it cleaned up first, and then end the process as
//! they would have, so that a shell sees which it was. What was set to be ignored (nohup(1)) stays
//! ignored.

#![expect(unsafe_code, reason = "no safe wrapper gives a signal its default action back")]

use std::sync::mpsc;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Signals that ask a process to end.
const ENDING: [libc::c_int; 3] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM];

/// Does something; a signal that comes meanwhile first has `clean_up` done, and then ends the
/// process. What that returns lives until then.
pub(crate) fn cleaning_up<T, G>(clean_up: fn() -> G, work: impl FnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let Ok(runtime) = runtime else { return work() }; // then a signal ends it as ever
    let (ready, is_ready) = mpsc::channel();
    let (done, is_done) = oneshot::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            runtime.block_on(async {
                let mut signals: Vec<(libc::c_int, Signal)> = ENDING
                    .into_iter()
                    .filter(|number| !is_ignored(*number))
                    .filter_map(|number| Some((number, signal(SignalKind::from_raw(number)).ok()?)))
                    .collect();
                ready.send(()).ok(); // who waits for it is there
                let came = std::future::poll_fn(|cx| {
                    let mut came = None;
                    for (number, signal) in &mut signals {
                        if signal.poll_recv(cx).is_ready() {
                            came = Some(*number);
                        }
                    }
                    came.map_or(Poll::Pending, Poll::Ready)
                });
                tokio::select! {
                    biased;
                    _ = is_done => {}
                    number = came => {
                        let _last = clean_up();
                        die(number);
                    }
                }
            });
        });
        is_ready.recv().ok();
        let ended = work();
        drop(done);
        ended
    })
}

/// Ends the process by a signal, as if nobody had handled it.
fn die(number: libc::c_int) {
    // SAFETY: both take plain numbers. SIG_DFL is a valid disposition for each of `ENDING`, and the
    // handler that it replaces is in no use any more: the process ends with the next call.
    unsafe {
        libc::signal(number, libc::SIG_DFL);
        libc::raise(number);
    }
}

/// Whether a signal was set to be ignored when the process began (proc_pid_status(5), `SigIgn`).
fn is_ignored(number: libc::c_int) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask & (1 << (number - 1)) != 0
}
