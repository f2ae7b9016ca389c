//! Mounts of a test's own: in a mount namespace that nobody else sees, and that ends with the test,
//! even with one that is killed.

#![allow(unsafe_code, reason = "unshare(2) has no safe wrapper")]

use std::path::{Path, PathBuf};
use std::process::Command;

use super::daemon::Daemon;
use super::place::{PROGRAM, Place};

/// Gives this thread, and every thread and process it starts, mounts of their own
/// (mount_namespaces(7)).
pub(crate) fn private() {
    // SAFETY: takes no memory. It also ends the sharing of the working directory with other
    // threads, which no test changes.
    let unshared = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    assert_eq!(unshared, 0, "unshare: {}; run as root", std::io::Error::last_os_error());
    run(Command::new("mount").args(["--make-rprivate", "/"]));
}

/// Something mounted at a directory.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// An empty file system in memory.
    pub(crate) fn tmpfs(at: &Path, options: &str) -> Self {
        run(Command::new("mount").args(["-t", "tmpfs", "-o", options, "kms-sig-test"]).arg(at));
        Self(at.to_owned())
    }

    /// What was mounted there by another program.
    pub(crate) fn at(at: &Path) -> Self {
        Self(at.to_owned())
    }

    /// The simplest file system in memory, which counts nothing.
    pub(crate) fn ramfs(at: &Path) -> Self {
        run(Command::new("mount").args(["-t", "ramfs", "-o", "mode=0755", "kms-sig-test"]).arg(at));
        Self(at.to_owned())
    }

    /// What a command mounts that goes on in the background.
    pub(crate) fn fuse(command: &mut Command, at: &Path) -> Self {
        run(command);
        Self(at.to_owned())
    }

    /// An image file.
    pub(crate) fn image(image: &Path, at: &Path, options: &str) -> Self {
        run(Command::new("mount").args(["-o", &format!("loop,{options}")]).arg(image).arg(at));
        Self(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily only if it must be: a disk that is copied must have got everything.
        let umount = |options: &[&str]| Command::new("umount").args(options).arg(&self.0).output();
        if !umount(&[]).is_ok_and(|done| done.status.success()) {
            umount(&["--lazy"]).ok();
        }
    }
}

/// Runs a command that must succeed.
#[track_caller]
pub(crate) fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The daemon of a place, started by a shell script that ends in `exec "$@"`.
pub(crate) fn start_in(place: &Place, unshare: &[&str], script: &str) -> Daemon {
    let mut command = Command::new("unshare");
    command.args(unshare).args(["sh", "-c", script, "sh", PROGRAM]);
    command.args(["watch", "--policy", "policy.toml", "--log-format", "json"]);
    Daemon::spawn(place.prepare(command))
}
