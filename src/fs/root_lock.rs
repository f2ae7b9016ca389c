//! The lock that one daemon has on its watched directory: flock(2) on the directory itself, so that
//! nothing of ours lies in it for that.
//!
//! Whoever may list a directory can hold such a lock, a sender too. So when it is refused, the
//! kernel is asked who has it (proc_locks(5)), and whose process that is. A lock of neither root's
//! nor our own user is no daemon's, and keeps nobody out.
//!
//! NFS and FUSE know no locks on directories: there it is one of this host alone.

use std::fmt;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::Pid;

use super::{Dir, FsError, Result};

/// How often a lock that nobody seems to have is asked for again.
const TRIES: usize = 4;

/// The lock on a directory, for as long as this lives. No other program inherits it.
#[derive(Debug)]
pub(crate) struct RootLock {
    #[expect(dead_code, reason = "what keeps it locked")]
    fd: OwnedFd,
}

/// Why a process does not have the lock on a directory that it asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Only processes of users who are no daemon's have it.
    Strangers(Stranger),
    /// A process has it that may be another daemon.
    Taken(Holder),
    /// The file system locks no directories.
    Unavailable(Errno),
}

/// A process of another user that has the lock on a directory, and keeps nobody out by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stranger {
    /// The process that took it.
    pub(crate) pid: u32,
    /// Its user, while it lives.
    pub(crate) uid: Option<u32>,
}

/// Who may be another daemon. Shown before the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    /// This process: what a rule began before it was attached again is still under way.
    Ourselves,
    /// Another process.
    Process(u32),
    /// /proc does not tell.
    Untold,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ourselves => f.write_str("what this process began earlier is still under way in"),
            Self::Process(pid) => write!(f, "another process (pid {pid}) is watching"),
            Self::Untold => f.write_str("another process, which /proc/locks does not tell, is watching"),
        }
    }
}

/// Whose a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Root's, or our own user's.
    Ours,
    /// Another user's.
    Strangers(u32),
    /// Nobody's: it is gone, and what it started has the lock. No daemon is started so.
    Gone,
    /// Not told (`hidepid=` of proc(5)).
    Untold,
}

impl Dir {
    /// Asks for the lock on this directory.
    ///
    /// # Errors
    /// What openat2(2) and flock(2) say, but for what [`Refusal`] tells.
    pub(super) fn ask_for_lock(&self) -> Result<std::result::Result<RootLock, Refusal>> {
        // A descriptor of its own: the lock belongs to what is open, which clones share.
        let fd = self.open_itself().map_err(|e| FsError::new("open directory", self.path(), e))?;
        for _ in 0..TRIES {
            match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Ok(RootLock { fd })),
                Err(Errno::WOULDBLOCK) => {}
                Err(e @ (Errno::BADF | Errno::INVAL | Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP)) => {
                    return Ok(Err(Refusal::Unavailable(e)));
                }
                Err(e) => return Err(FsError::new("lock", self.path(), e)),
            }
            let Some(pids) = holders(&fd) else { break };
            if !pids.is_empty() {
                let holders: Vec<_> = pids.into_iter().map(|pid| (pid, whose(pid))).collect();
                return Ok(Err(judge(&holders, std::process::id())));
            }
        }
        Ok(Err(Refusal::Taken(Holder::Untold)))
    }
}

/// What holders of a lock amount to.
fn judge(holders: &[(u32, Whose)], me: u32) -> Refusal {
    if holders.iter().any(|(pid, _)| *pid == me) {
        return Refusal::Taken(Holder::Ourselves);
    }
    let may_be_daemons = holders.iter().find(|(_, whose)| matches!(whose, Whose::Ours | Whose::Untold));
    match (may_be_daemons, holders.first()) {
        (Some((pid, _)), _) => Refusal::Taken(Holder::Process(*pid)),
        (None, Some((pid, Whose::Strangers(uid)))) => {
            Refusal::Strangers(Stranger { pid: *pid, uid: Some(*uid) })
        }
        (None, Some((pid, _))) => Refusal::Strangers(Stranger { pid: *pid, uid: None }),
        (None, None) => Refusal::Taken(Holder::Untold),
    }
}

/// The processes that have flock(2) locks on what is open; nothing if /proc does not tell.
fn holders(fd: &OwnedFd) -> Option<Vec<u32>> {
    let inode = kernel_name(fd)?;
    Some(holders_in(&std::fs::read_to_string("/proc/locks").ok()?, &inode))
}

/// What the kernel calls the inode there: by other numbers than stat(2), on btrfs and overlay file
/// systems. A shared record lock, which nobody can refuse on a directory, shows it.
fn kernel_name(fd: &OwnedFd) -> Option<String> {
    rustix::fs::fcntl_lock(fd, FlockOperation::NonBlockingLockShared).ok()?;
    let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()));
    rustix::fs::fcntl_lock(fd, FlockOperation::Unlock).ok()?;
    let line = told.ok()?.lines().find(|line| line.starts_with("lock:")).map(str::to_owned)?;
    line.split_whitespace().find(|word| word.matches(':').count() == 2).map(str::to_owned)
}

/// By lines like `3: FLOCK  ADVISORY  WRITE 18266 fe:00:10028299 0 EOF`; with `->` before the kind,
/// of who waits for it.
fn holders_in(locks: &str, inode: &str) -> Vec<u32> {
    let holder = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        let (kind, pid, of) = (words.next()?, words.nth(2)?, words.next()?);
        (kind == "FLOCK" && of == inode).then(|| pid.parse().ok()).flatten()
    };
    locks.lines().filter_map(holder).collect()
}

fn whose(pid: u32) -> Whose {
    // The real user: who starts a set-user-id program stays who they are, and a process that may
    // not be dumped is still its user's, although root owns its files there.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    let uid = status.ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
        line.split_whitespace().next()?.parse::<u32>().ok()
    });
    match (uid, i32::try_from(pid).ok().and_then(Pid::from_raw)) {
        (Some(uid), _) if uid == 0 || uid == rustix::process::geteuid().as_raw() => Whose::Ours,
        (Some(uid), _) => Whose::Strangers(uid),
        (None, Some(pid)) if rustix::process::test_kill_process(pid) == Err(Errno::SRCH) => Whose::Gone,
        (None, _) => Whose::Untold,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{as_user, is_root};
    use super::*;

    #[test]
    fn who_has_a_lock_is_read_from_what_the_kernel_lists() {
        let locks = "1: POSIX  ADVISORY  READ 17 fe:00:99 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 18 fe:00:99 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 19 fe:00:99 0 EOF\n\
                     3: FLOCK  ADVISORY  READ 20 fe:00:999 0 EOF\n\
                     4: FLOCK  ADVISORY  READ 21 fe:00:99 0 EOF\n5: LEASE\n";
        assert_eq!(holders_in(locks, "fe:00:99"), [18, 21]);
        assert!(holders_in(locks, "fe:00:9").is_empty() && holders_in("", "fe:00:99").is_empty());
    }

    #[test]
    fn only_holders_who_are_all_strangers_keep_nobody_out() {
        use Whose::{Gone, Ours, Strangers, Untold};
        let is_free = |holders: &[(u32, Whose)]| matches!(judge(holders, 1), Refusal::Strangers(_));
        assert!(is_free(&[(7, Strangers(1000))]) && is_free(&[(7, Gone), (8, Strangers(1000))]));
        for other in [Ours, Untold] {
            assert!(!is_free(&[(7, Strangers(1000)), (8, other)]), "{other:?}");
        }
        assert!(!is_free(&[]) && !is_free(&[(1, Strangers(1000))]));
        assert!(matches!(judge(&[(1, Ours)], 1), Refusal::Taken(Holder::Ourselves)));
        assert!(matches!(judge(&[(9, Ours)], 1), Refusal::Taken(Holder::Process(9))));
    }

    #[test]
    fn a_directory_has_one_lock_which_its_holder_is_told_by_and_which_goes_with_it() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let lock = dir.ask_for_lock().unwrap().unwrap();
        assert_eq!(dir.ask_for_lock().unwrap().unwrap_err(), Refusal::Taken(Holder::Ourselves));
        drop(lock);
        dir.ask_for_lock().unwrap().unwrap();
    }

    #[test]
    fn whose_process_holds_it_is_told_by_its_real_user() {
        assert_eq!(whose(std::process::id()), Whose::Ours);
        assert_eq!(whose(u32::MAX), Whose::Untold);
        assert_eq!(whose(4_194_305), Whose::Gone, "more than there may be, PID_MAX_LIMIT of proc(5)");
        if is_root() {
            let me = std::process::id();
            assert_eq!(as_user(|| whose(me)), Whose::Ours, "root's is nobody's stranger");
        }
    }
}
