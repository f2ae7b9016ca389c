//! An unprivileged user: a thread whose credentials were given away for good.
//!
//! In Linux credentials belong to the thread (credentials(7), nptl(7)), and the kernel asks nothing
//! else. So a sender's steps cost a system call each, and races are tried ten thousand times where
//! a program would start once.

#![allow(unsafe_code, reason = "giving away the credentials of one thread has no safe wrapper")]

use std::io;

/// A user, whose own group has the same number, and the groups it is in besides.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User {
    pub(crate) id: u32,
    pub(crate) groups: &'static [u32],
}

/// Runs the daemon; is in the groups of both roots.
pub(crate) const DAEMON: User = User { id: 7001, groups: &[7003, 7005] };
/// Owns `in`, and shares its group with the daemon.
pub(crate) const SENDER: User = User { id: 7002, groups: &[7003] };
/// Owns `in2`, and shares another group with the daemon.
pub(crate) const OTHER: User = User { id: 7004, groups: &[7005] };

/// Set-group-id, so that what is dropped there has the group that the daemon is in.
pub(crate) const SHARED: u32 = 0o2770;

impl User {
    /// Does something as this user, on a thread of its own.
    pub(crate) fn run<T: Send>(self, work: impl FnOnce() -> T + Send) -> T {
        let ended = std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                self.become_it();
                work()
            });
            thread.join()
        });
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Takes this user's credentials, and with them leaves every capability (capabilities(7),
    /// "Effect of user ID changes"). The C library's functions of these names would do so for the
    /// whole process.
    pub(crate) fn become_it(self) {
        let call = |what: &str, result: libc::c_long| {
            assert_eq!(result, 0, "{what}: {}; run as root", io::Error::last_os_error());
        };
        // SAFETY: the kernel reads as many group ids as the slice has, and keeps nothing of ours.
        call("setgroups", unsafe {
            libc::syscall(libc::SYS_setgroups, self.groups.len(), self.groups.as_ptr())
        });
        // SAFETY: takes no memory.
        call("setresgid", unsafe { libc::syscall(libc::SYS_setresgid, self.id, self.id, self.id) });
        // SAFETY: takes no memory.
        call("setresuid", unsafe { libc::syscall(libc::SYS_setresuid, self.id, self.id, self.id) });
    }
}
