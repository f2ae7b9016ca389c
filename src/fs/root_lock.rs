//! The lock that one daemon has on its watched directory: flock(2) on the directory itself, so that
//! nothing of ours lies in it for that.
//!
//! Whoever may list a directory can hold such a lock, a sender too. So when it is refused, the
//! kernel is asked who has it (proc_locks(5)), and whose process that is. A lock of neither root's
//! nor our own user is no daemon's, and keeps nobody out.
//!
//! The list names who took a lock and not who has it. Who took it may have ended and left it to a
//! child: then its number may be another process's by now, and outside of the first PID namespace
//! the lock is not listed at all. Which process has a lock is seen at its descriptors
//! (proc_pid_fdinfo(5)), where those may be read.
//!
//! NFS and FUSE know no locks on directories: there it is one of this host alone.
//!
//! While a [`LockKeeper`] lives, a lock that is let go of stays locked, for whoever in this process
//! asks for it next: otherwise another daemon could have it between two policies of one.

use std::fmt;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::Pid;

use super::{Dir, FsError, Result};

/// How often a lock that nobody seems to have is asked for again.
const TRIES: usize = 4;

/// What is kept for a while.
static KEPT: Mutex<Kept> = Mutex::new(Kept { keepers: 0, locks: Vec::new() });

struct Kept {
    keepers: usize,
    locks: Vec<(Inode, OwnedFd)>,
}

/// The device and the inode of a directory.
type Inode = (u64, u64);

/// The lock on a directory, for as long as this lives. No other program inherits it.
#[derive(Debug)]
pub(crate) struct RootLock {
    inode: Inode,
    /// What is locked, until it is let go of.
    fd: Option<OwnedFd>,
}

/// While one lives, locks that are let go of are kept.
#[derive(Debug)]
pub(crate) struct LockKeeper(());

impl LockKeeper {
    pub(crate) fn new() -> Self {
        kept().keepers += 1;
        Self(())
    }
}

impl Drop for LockKeeper {
    fn drop(&mut self) {
        let mut kept = kept();
        kept.keepers -= 1;
        if kept.keepers == 0 {
            kept.locks.clear();
        }
    }
}

impl Drop for RootLock {
    fn drop(&mut self) {
        let mut kept = kept();
        if kept.keepers > 0 {
            kept.locks.extend(self.fd.take().map(|fd| (self.inode, fd)));
        }
    }
}

fn kept() -> MutexGuard<'static, Kept> {
    // Every update leaves the data consistent, so a poisoned lock is safe to use.
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn take_kept(inode: Inode) -> Option<OwnedFd> {
    let locks = &mut kept().locks;
    let at = locks.iter().position(|(of, _)| *of == inode)?;
    Some(locks.swap_remove(at).1)
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
        let is = self.stat()?.identity;
        let inode = (is.dev, is.ino);
        if let Some(fd) = take_kept(inode) {
            return Ok(Ok(RootLock { inode, fd: Some(fd) }));
        }
        // A descriptor of its own: the lock belongs to what is open, which clones share.
        let fd = self.open_itself().map_err(|e| FsError::new("open directory", self.path(), e))?;
        for tried in 1..=TRIES {
            match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Ok(RootLock { inode, fd: Some(fd) })),
                Err(Errno::WOULDBLOCK) => {}
                Err(e @ (Errno::BADF | Errno::INVAL | Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP)) => {
                    return Ok(Err(Refusal::Unavailable(e)));
                }
                Err(e) => return Err(FsError::new("lock", self.path(), e)),
            }
            let Some(name) = kernel_name(&fd) else { break };
            let Ok(locks) = std::fs::read_to_string("/proc/locks") else { break };
            let mut holders: Vec<_> = holders_in(&locks, &name)
                .into_iter()
                .map(|pid| (pid, confirmed(whose(pid), has_lock(pid, &name))))
                .collect();
            if holders.is_empty() && tried == TRIES {
                holders = seen_to_have(&name);
            }
            if !holders.is_empty() {
                return Ok(Err(judge(&holders, std::process::id())));
            }
        }
        Ok(Err(Refusal::Taken(Holder::Untold)))
    }
}

/// Whose a process is that is listed to have taken a lock. If it is seen not to have it, the one
/// that took it has ended, and another has its number.
const fn confirmed(whose: Whose, has_lock: Option<bool>) -> Whose {
    match (whose, has_lock) {
        (Whose::Ours, Some(false)) => Whose::Gone,
        (whose, _) => whose,
    }
}

/// What holders of a lock amount to.
fn judge(holders: &[(u32, Whose)], me: u32) -> Refusal {
    if holders.iter().any(|(pid, whose)| *pid == me && *whose != Whose::Gone) {
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

/// Whether a descriptor of a process has a flock(2) lock on an inode; `None` if that is not told,
/// as of processes of root to anybody else.
fn has_lock(pid: u32, inode: &str) -> Option<bool> {
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo")).ok()? {
        let told = match std::fs::read_to_string(entry.ok()?.path()) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue, // closed meanwhile
            told => told.ok()?,
        };
        let locks = told.lines().filter_map(|line| line.strip_prefix("lock:"));
        if locks.into_iter().any(|lock| !holders_in(lock, inode).is_empty()) {
            return Some(true);
        }
    }
    Some(false)
}

/// The processes whose descriptors are seen to have a lock on an inode.
fn seen_to_have(inode: &str) -> Vec<(u32, Whose)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| has_lock(*pid, inode) == Some(true))
        .map(|pid| (pid, whose(pid)))
        .collect()
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
    fn a33_a_process_that_has_the_number_of_one_that_ended_has_no_lock_of_it() {
        use Whose::{Gone, Ours, Strangers, Untold};
        assert_eq!(confirmed(Ours, Some(false)), Gone);
        assert_eq!((confirmed(Ours, Some(true)), confirmed(Ours, None)), (Ours, Ours));
        for other in [Strangers(7), Gone, Untold] {
            assert_eq!(confirmed(other, Some(false)), other);
        }
        assert!(matches!(judge(&[(1, Gone)], 1), Refusal::Strangers(_)), "not even our own number");
    }

    #[test]
    fn a33_a_lock_is_seen_at_the_descriptors_of_whoever_has_it_though_who_took_it_has_ended() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, me) = (Dir::open(temp.path()).unwrap(), std::process::id());
        let inode = kernel_name(&dir.open_itself().unwrap()).unwrap();
        assert_eq!(has_lock(me, &inode), Some(false));
        let lock = dir.ask_for_lock().unwrap().unwrap();
        assert_eq!(has_lock(me, &inode), Some(true));
        // Another test may be forking just now, and its child has everything open for a moment.
        assert!(seen_to_have(&inode).contains(&(me, Whose::Ours)));
        drop(lock);
        assert_eq!(has_lock(u32::MAX, &inode), None);
        // flock(1) takes it, ends, and leaves it to the shell.
        let script = "exec 9<\"$0\"; flock -x 9; echo; read line";
        let mut shell = std::process::Command::new("sh")
            .args(["-c", script])
            .arg(temp.path())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        assert_eq!(seen_to_have(&inode), [(shell.id(), Whose::Ours)]);
        assert!(dir.ask_for_lock().unwrap().is_err());
        drop(shell.stdin.take());
        shell.wait().unwrap();
        dir.ask_for_lock().unwrap().unwrap();
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
    fn what_is_let_go_of_while_it_is_kept_nobody_else_can_have() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let other = dir.open_itself().unwrap();
        let try_it = || rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive);
        let lock = dir.ask_for_lock().unwrap().unwrap();
        let keeper = LockKeeper::new();
        assert_eq!(dir.ask_for_lock().unwrap().unwrap_err(), Refusal::Taken(Holder::Ourselves));
        drop(lock);
        assert_eq!(try_it(), Err(Errno::WOULDBLOCK));
        let again = dir.ask_for_lock().unwrap().unwrap();
        drop(keeper);
        assert_eq!(try_it(), Err(Errno::WOULDBLOCK));
        drop(again);
        assert_eq!(try_it(), Ok(()));
        rustix::fs::flock(&other, FlockOperation::Unlock).unwrap();
        let keeper = LockKeeper::new();
        drop(dir.ask_for_lock().unwrap().unwrap());
        drop(keeper);
        assert_eq!(try_it(), Ok(()), "nobody asked for it");
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
