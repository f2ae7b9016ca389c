//! Runs a command and stops it, or fails it, at a system call of choice, counted over the whole
//! process.
//!
//! `strace -e inject=CALL:when=N` is nearly this, but counts each thread's calls for itself
//! (strace(1)). The daemon spreads one delivery over several threads, so a call of a thread that
//! calls seldom would be reached by no N at all: its number comes up earlier in a busier thread.
//! Here the number is the process's.
//!
//! Follows ptrace(2). Counting begins after the dynamic loader, so that the program itself is what
//! is tested.

#![allow(unsafe_code, reason = "ptrace(2) has no safe wrapper")]

#[cfg(not(target_arch = "x86_64"))]
compile_error!("system-tests change registers of x86-64; run them there");

use std::collections::{BTreeMap, HashMap};
use std::ffi::c_long;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use rustix::io::Errno;

/// System calls that change a file system, or get a descriptor to do so, by name.
pub(crate) const CALLS: [(&str, c_long); 21] = [
    ("open", libc::SYS_open),
    ("openat", libc::SYS_openat),
    ("openat2", libc::SYS_openat2),
    ("mkdirat", libc::SYS_mkdirat),
    ("mkdir", libc::SYS_mkdir),
    ("write", libc::SYS_write),
    ("pwrite64", libc::SYS_pwrite64),
    ("ftruncate", libc::SYS_ftruncate),
    ("fallocate", libc::SYS_fallocate),
    ("fchmod", libc::SYS_fchmod),
    ("fchown", libc::SYS_fchown),
    ("fsync", libc::SYS_fsync),
    ("fdatasync", libc::SYS_fdatasync),
    ("syncfs", libc::SYS_syncfs),
    ("linkat", libc::SYS_linkat),
    ("rename", libc::SYS_rename),
    ("renameat", libc::SYS_renameat),
    ("renameat2", libc::SYS_renameat2),
    ("unlink", libc::SYS_unlink),
    ("unlinkat", libc::SYS_unlinkat),
    ("flock", libc::SYS_flock),
];

/// How long a run may take. Far more than any takes, even one of a hundred at the same time.
const PATIENCE: Duration = Duration::from_secs(60);

/// The first call that is the program's own: Rust's start-up looks whether the standard descriptors
/// are open.
const BEGIN: c_long = libc::SYS_poll;

/// One call of a run: which, and the how-manieth of its name, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Point {
    pub(crate) call: &'static str,
    pub(crate) nth: usize,
}

/// What happens at a point.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// The process is killed before the call does anything.
    Kill,
    /// The call fails, this once.
    Once(Errno),
    /// The call fails, and every later one of its name.
    Always(Errno),
}

/// What a file system has not, that this program would use.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lacking {
    /// Files without a name (`O_TMPFILE`).
    pub(crate) nameless: bool,
    /// Hard links; what link(2) says instead.
    pub(crate) links: Option<Errno>,
    /// Renames that do not replace, or that exchange.
    pub(crate) rename_flags: bool,
}

impl Lacking {
    /// What it says to a call instead of doing it.
    fn answer(self, call: &str, args: &[u64]) -> Option<Errno> {
        let arg = |n: usize| args.get(n).copied().unwrap_or_default();
        let tmpfile = libc::O_TMPFILE as u64;
        match call {
            "openat" if self.nameless && arg(2) & tmpfile == tmpfile => Some(Errno::OPNOTSUPP),
            "linkat" => self.links,
            "renameat2" if self.rename_flags && arg(4) != 0 => Some(Errno::INVAL),
            _ => None,
        }
    }
}

/// A run that has ended.
pub(crate) struct Traced {
    pub(crate) status: ExitStatus,
    /// It did not end by itself.
    pub(crate) hung: bool,
    /// Every call of [`CALLS`] that was made, in order, with what its first argument's descriptor
    /// stands for.
    pub(crate) calls: Vec<(Point, String)>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Traced {
    /// Whether it panicked, or found that it is wrong about itself: by words that are in no path. A
    /// temporary folder's name may have any three letters.
    pub(crate) fn is_broken(&self) -> bool {
        is_broken(&self.stderr)
    }

    /// The run, for a failure's message. The calls end at the fault where it was a kill.
    pub(crate) fn shown(&self) -> String {
        let calls: String =
            self.calls.iter().map(|(p, on)| format!("  {} #{} {on}\n", p.call, p.nth)).collect();
        let hung = if self.hung { "it did not end; " } else { "" };
        format!("{hung}{}\ncalls:\n{calls}stdout:\n{}\nstderr:\n{}", self.status, self.stdout, self.stderr)
    }
}

/// Whether a program that said this panicked, or told of a fault of its own.
pub(crate) fn is_broken(said: &str) -> bool {
    let begins_a_word =
        |(at, _): (usize, &str)| !said[..at].ends_with(|c: char| c.is_alphanumeric() || c == '/' || c == '.');
    said.contains("panicked at ") || said.match_indices("BUG: ").any(begins_a_word)
}

#[test]
fn a_folder_of_any_name_is_no_panic() {
    for (said, is_so) in [
        ("cannot open directory \"/tmp/.tmpaBUGx/w/in\": Input/output error", false),
        ("/tmp/.tmpxxxBUG: panicked", false),
        ("thread 'main' panicked at src/x.rs:1:2:", true),
        ("held: BUG: a file is two; please report it", true),
        ("{\"reason\":\"BUG: a file is two; please report it\"}", true),
    ] {
        assert_eq!(is_broken(said), is_so, "{said}");
    }
}

/// What somebody else does at a point, before the call does anything: the thread that makes it
/// stands still meanwhile.
pub(crate) type Act<'a> = (Point, &'a dyn Fn());

/// Runs a command to its end with this fault, or with none.
pub(crate) fn run(command: Command, fault: Option<(Point, Fault)>) -> Traced {
    run_beside(command, fault, &[])
}

/// [`run`], with somebody who does something at some points.
pub(crate) fn run_beside(command: Command, fault: Option<(Point, Fault)>, acts: &[Act<'_>]) -> Traced {
    run_on(Lacking::default(), command, fault, acts)
}

/// [`run_beside`], where file systems have less than others.
#[expect(clippy::zombie_processes, reason = "the tracer waits for every process it traces")]
pub(crate) fn run_on(
    lacking: Lacking,
    mut command: Command,
    fault: Option<(Point, Fault)>,
    acts: &[Act<'_>],
) -> Traced {
    let (mut stdout, mut stderr) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdin(Stdio::null()).stdout(stdout.try_clone().unwrap()).stderr(stderr.try_clone().unwrap());
    // SAFETY: one system call, which takes no memory of ours; safe after fork (signal-safety(7)).
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            -1 => Err(std::io::Error::last_os_error()),
            _ => Ok(()),
        });
    }
    let child = command.spawn().unwrap();
    let mut tracer = Tracer {
        process: child.id().cast_signed(),
        lacking,
        fault,
        acts,
        begun: false,
        counts: BTreeMap::new(),
        failing: HashMap::new(),
        calls: Vec::new(),
    };
    let process = tracer.process;
    let (ended, is_ended) = std::sync::mpsc::channel::<()>();
    let (status, hung) = std::thread::scope(|scope| {
        let hung = scope.spawn(move || {
            let hung = is_ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
            if hung {
                kill(process);
            }
            hung
        });
        let status = tracer.run();
        drop(ended);
        (status, hung.join().unwrap())
    });
    Traced { status, hung, calls: tracer.calls, stdout: text(&mut stdout), stderr: text(&mut stderr) }
}

fn text(file: &mut File) -> String {
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Tracer<'a> {
    process: libc::pid_t,
    lacking: Lacking,
    fault: Option<(Point, Fault)>,
    acts: &'a [Act<'a>],
    begun: bool,
    counts: BTreeMap<&'static str, usize>,
    /// Threads inside a call that is to fail, and how.
    failing: HashMap<libc::pid_t, Errno>,
    calls: Vec<(Point, String)>,
}

impl Tracer<'_> {
    fn run(&mut self) -> ExitStatus {
        // The stop after execve(2); from here on every call of every thread stops twice.
        self.wait(self.process);
        let options = libc::PTRACE_O_TRACESYSGOOD
            | libc::PTRACE_O_TRACECLONE
            | libc::PTRACE_O_TRACEFORK
            | libc::PTRACE_O_TRACEVFORK
            | libc::PTRACE_O_EXITKILL;
        ptrace(libc::PTRACE_SETOPTIONS, self.process, 0, options as usize).unwrap();
        ptrace(libc::PTRACE_SYSCALL, self.process, 0, 0).unwrap();
        loop {
            let (thread, status) = self.wait(-1);
            if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
                if thread == self.process {
                    return ExitStatus::from_raw(status);
                }
                continue;
            }
            let deliver = match libc::WSTOPSIG(status) {
                signal if signal == libc::SIGTRAP | 0x80 => {
                    self.at_call(thread);
                    0
                }
                // An event of ptrace, or the stop that a new thread begins with.
                libc::SIGTRAP | libc::SIGSTOP => 0,
                signal => signal,
            };
            // A thread that was killed meanwhile cannot be resumed; its end is reported above.
            ptrace(libc::PTRACE_SYSCALL, thread, 0, deliver as usize).ok();
        }
    }

    /// Waits for a stop or end. Only for what this thread traces: other tests run beside it.
    fn wait(&self, pid: libc::pid_t) -> (libc::pid_t, i32) {
        let mut status = 0;
        // SAFETY: `status` is valid for a write for the length of the call.
        let thread = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        assert!(thread > 0, "waitpid: {}", std::io::Error::last_os_error());
        (thread, status)
    }

    fn at_call(&mut self, thread: libc::pid_t) {
        // struct ptrace_syscall_info: op and arch, two pointers, then at entry the number and six
        // arguments.
        let mut info = [0_u64; 11];
        let size = size_of_val(&info);
        if ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, size, info.as_mut_ptr() as usize).is_err() {
            return; // killed meanwhile
        }
        match (info[0] & 0xff) as u8 {
            libc::PTRACE_SYSCALL_INFO_ENTRY => self.enter(thread, info[3].cast_signed(), &info[4..]),
            libc::PTRACE_SYSCALL_INFO_EXIT => {
                if let Some(errno) = self.failing.remove(&thread) {
                    let result = -i64::from(errno.raw_os_error());
                    // One that was killed meanwhile no longer cares what the call returns.
                    ptrace(libc::PTRACE_POKEUSER, thread, libc::RAX as usize * 8, result as usize).ok();
                }
            }
            _ => {}
        }
    }

    fn enter(&mut self, thread: libc::pid_t, number: c_long, args: &[u64]) {
        let first = args[0];
        self.begun |= number == BEGIN;
        let Some((call, _)) = CALLS.iter().find(|(_, n)| *n == number).filter(|_| self.begun) else { return };
        let on = std::fs::read_link(format!("/proc/{thread}/fd/{}", first as i32)).unwrap_or_default();
        if on.to_string_lossy().contains(":[") {
            return; // a pipe, a socket or an event descriptor: no file system to fail
        }
        let count = self.counts.entry(call).or_default();
        *count += 1;
        let point = Point { call, nth: *count };
        self.calls.push((point, on.display().to_string()));
        for (_, act) in self.acts.iter().filter(|(at, _)| *at == point) {
            act();
        }
        match self.fault {
            Some((at, Fault::Kill)) if at == point => kill(self.process),
            Some((at, Fault::Once(errno))) if at == point => self.fail(thread, errno),
            Some((at, Fault::Always(errno))) if at.call == *call && point.nth >= at.nth => {
                self.fail(thread, errno);
            }
            _ => {
                if let Some(errno) = self.lacking.answer(call, args) {
                    self.fail(thread, errno);
                }
            }
        }
    }

    /// Has the kernel run call number -1 in place of this one; the result is set when it returns.
    fn fail(&mut self, thread: libc::pid_t, errno: Errno) {
        if ptrace(libc::PTRACE_POKEUSER, thread, libc::ORIG_RAX as usize * 8, usize::MAX).is_ok() {
            self.failing.insert(thread, errno);
        }
    }
}

fn kill(process: libc::pid_t) {
    // SAFETY: takes no memory; the process is ours and not yet waited for.
    unsafe { libc::kill(process, libc::SIGKILL) };
}

fn ptrace(request: libc::c_uint, pid: libc::pid_t, address: usize, data: usize) -> std::io::Result<()> {
    // SAFETY: requests used here write at most `address` bytes at `data`, which is an array of that
    // size.
    match unsafe { libc::ptrace(request, pid, address, data) } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(()),
    }
}
