//! What this program cannot do without on any host, tried out before it begins: without it every
//! file would fail by itself, each with advice for one file.
//!
//! Only what has no substitute is asked for. What may be missing (leases, inotify, `O_TMPFILE`,
//! blocks that are shared) is found out where it is used. Touches nothing.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Access, AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::dir::INSIDE;
use super::proc_path;
use super::stat::stat_fd;

/// What there must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// Opens what lies in a directory and nothing that a link or a mount leads to (P9).
    Openat2,
    /// Tells one version of a file from the next.
    Statx,
    /// Never replaces a file (P8).
    Renameat2,
    /// Asks whether a directory can be written to.
    Faccessat2,
    /// `/proc/self/fd`: opens what was examined, and names what was made without a name.
    Proc,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Openat2 => "openat2(2)",
            Self::Statx => "statx(2)",
            Self::Renameat2 => "renameat2(2)",
            Self::Faccessat2 => "faccessat2(2)",
            Self::Proc => "/proc/self/fd",
        })
    }
}

/// This host does not have what every file needs.
#[derive(Debug)]
pub struct HostError {
    missing: Vec<(Need, Errno)>,
    /// The kernel's name and release.
    kernel: String,
}

impl std::error::Error for HostError {}

impl fmt::Display for HostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this host does not have what kms-sig cannot work without: ")?;
        for (n, (need, errno)) in self.missing.iter().enumerate() {
            let comma = if n > 0 { ", " } else { "" };
            write!(f, "{comma}{need} ({errno})")?;
        }
        write!(f, "; the kernel is {}", self.kernel)
    }
}

impl HostError {
    /// What to do, and who usually takes it away.
    pub(crate) fn hint(&self) -> String {
        let mut hint = String::new();
        if self.missing.iter().any(|(need, _)| *need != Need::Proc) {
            hint += "Linux 5.8 or later is needed; where the kernel is new enough, a sandbox takes these calls \
                     away: the seccomp profile of an old container runtime (update it, or allow the calls in its \
                     profile), gVisor, or RestrictSUIDSGID= and SystemCallFilter= in a drop-in of the unit";
        }
        if self.missing.iter().any(|(need, _)| *need == Need::Proc) {
            let and = if hint.is_empty() { "" } else { "; and " };
            write!(
                hint,
                "{and}mount /proc where this runs (mount -t proc proc /proc): a chroot, or a container that was \
                 put together by hand, has none"
            )
            .unwrap_or_default(); // a String takes everything
        }
        hint
    }
}

/// Looks whether this host has what every file needs; once, if it has.
///
/// # Errors
/// All that it does not have.
pub(crate) fn probe() -> Result<(), HostError> {
    static HAS_ALL: AtomicBool = AtomicBool::new(false);
    if HAS_ALL.load(Ordering::Relaxed) {
        return Ok(());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // Whoever has no descriptor free, or may not even pass the root, has other troubles, and is
    // told.
    let Ok(root) = rustix::fs::open("/", flags, Mode::empty()) else { return Ok(()) };
    let tried = [
        (Need::Openat2, openat2(&root)),
        (Need::Statx, stat_fd(&root).map(drop)),
        (Need::Renameat2, renameat2(&root)),
        (Need::Faccessat2, rustix::fs::accessat(&root, ".", Access::EXISTS, AtFlags::EACCESS)),
        (Need::Proc, proc(&root)),
    ];
    let missing: Vec<_> = tried
        .into_iter()
        .filter_map(|(need, tried)| Some((need, tried.err()?)))
        .filter(|(need, errno)| is_taken_away(*errno) || *need == Need::Proc && is_not_there(*errno))
        .collect();
    let name = rustix::system::uname();
    let kernel = format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy());
    if !missing.is_empty() {
        return Err(HostError { missing, kernel });
    }
    HAS_ALL.store(true, Ordering::Relaxed);
    Ok(())
}

/// What a kernel without a call says, and what filters say in its place.
const fn is_taken_away(errno: Errno) -> bool {
    matches!(errno, Errno::NOSYS | Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP)
}

/// What a path into a file system that is not mounted says. Anything else (no descriptor free, a
/// disk that fails) is a trouble of this moment.
const fn is_not_there(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR)
}

fn openat2(root: &OwnedFd) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(root, ".", flags, Mode::empty(), INSIDE).map(drop)
}

/// Of two flags that exclude each other the kernel says so, before it looks at any name.
fn renameat2(root: &OwnedFd) -> rustix::io::Result<()> {
    let flags = RenameFlags::NOREPLACE | RenameFlags::EXCHANGE;
    let name = OsStr::new("kms-sig-probe");
    match rustix::fs::renameat_with(root, name, root, name, flags) {
        Err(Errno::INVAL) => Ok(()),
        other => other,
    }
}

/// Whether the magic link of a descriptor leads to what is open there.
fn proc(root: &OwnedFd) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(proc_path(root.as_fd()), flags, Mode::empty()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_it() {
        probe().unwrap();
    }

    #[test]
    fn c6_what_may_pass_is_no_fault_of_the_host() {
        for errno in [Errno::IO, Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::INTR] {
            assert!(!is_taken_away(errno) && !is_not_there(errno), "{errno}");
        }
    }

    #[test]
    fn what_is_missing_is_named_with_who_takes_it_away() {
        let error = |missing: &[(Need, Errno)]| HostError {
            missing: missing.to_vec(),
            kernel: "Linux 4.18.0".to_owned(),
        };
        let both = error(&[(Need::Openat2, Errno::NOSYS), (Need::Proc, Errno::NOENT)]);
        assert_eq!(
            both.to_string(),
            "this host does not have what kms-sig cannot work without: openat2(2) (Function not implemented \
             (os error 38)), /proc/self/fd (No such file or directory (os error 2)); the kernel is Linux 4.18.0"
        );
        assert!(both.hint().contains("gVisor") && both.hint().contains("mount -t proc"), "{}", both.hint());
        let call = error(&[(Need::Statx, Errno::PERM)]).hint();
        assert!(call.contains("seccomp") && !call.contains("/proc"), "{call}");
        let proc = error(&[(Need::Proc, Errno::NOENT)]).hint();
        assert!(proc.starts_with("mount /proc") && !proc.contains("gVisor"), "{proc}");
    }
}
