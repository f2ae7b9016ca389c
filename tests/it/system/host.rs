//! A host that lacks what every file needs: the daemon says so once, and is not started again and
//! again.

#![allow(unsafe_code, reason = "seccomp(2) has no safe wrapper")]

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output};

use crate::support::files::drop_pair;
use crate::support::place::{PROGRAM, Place};
use crate::support::policy::{SIGN, VERIFY, place};

/// What `RestartPreventExitStatus=` of the unit names.
const NEVER_AGAIN: Option<i32> = Some(2);

/// Runs the program where a system call is answered with an error, as a sandbox does that does not
/// know it (seccomp(2)).
fn run_without(place: &Place, call: libc::c_long, errno: i32, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    let mut command = place.prepare(command);
    let code = |code: u32| u16::try_from(code).unwrap();
    let statement = |is, k| libc::sock_filter { code: code(is), jt: 0, jf: 0, k };
    let number = u32::try_from(call).unwrap();
    let refuse = libc::SECCOMP_RET_ERRNO | u32::try_from(errno).unwrap();
    let mut filter = [
        // The number of the call is the first word of what a filter sees.
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        libc::sock_filter {
            code: code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K),
            jt: 0,
            jf: 1,
            k: number,
        },
        statement(libc::BPF_RET | libc::BPF_K, refuse),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
        // SAFETY: two system calls, which are safe after fork (signal-safety(7)); the filter lives
        // until they are made, and the kernel copies it.
        let is_done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
        };
        if is_done { Ok(()) } else { Err(std::io::Error::last_os_error()) }
    };
    // SAFETY: what it runs allocates nothing.
    unsafe { command.pre_exec(install) };
    command.output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The calls that nothing else can stand for.
const NEEDED: [(&str, libc::c_long); 4] = [
    ("openat2(2)", libc::SYS_openat2),
    ("statx(2)", libc::SYS_statx),
    ("renameat2(2)", libc::SYS_renameat2),
    ("faccessat2(2)", libc::SYS_faccessat2),
];

/// What works by a policy in the folders it names.
const COMMANDS: [&[&str]; 5] = [
    &["watch", "--policy", "policy.toml"],
    &["watch", "--policy", "policy.toml", "--once"],
    &["check", "--policy", "policy.toml"],
    &["explain", "in/f", "--policy", "policy.toml"],
    &["quarantine", "list", "--policy", "policy.toml"],
];

#[test]
fn o13_a_call_that_a_sandbox_takes_away_is_named_at_the_start_and_ends_the_unit() {
    for (name, call) in NEEDED {
        for errno in [libc::ENOSYS, libc::EPERM] {
            // An ordinary user's access can be asked for in an older way, where the newer is
            // unknown.
            if name == "faccessat2(2)" && errno == libc::ENOSYS {
                continue;
            }
            let place = place(&format!(
                "{SIGN}{}",
                VERIFY.replace("\"in\"", "\"out\"").replace("deliver_to = \"out\"", "in_place = true")
            ));
            place.write("in/f", "content");
            for arguments in COMMANDS {
                let run = run_without(&place, call, errno, arguments);
                let text = said(&run);
                assert_eq!(run.status.code(), NEVER_AGAIN, "{name} {errno} {arguments:?}: {text}");
                assert_eq!(text.lines().count(), 2, "{text}");
                assert!(text.contains(&format!("cannot work without: {name} (")), "{text}");
                for culprit in ["hint: Linux 5.8", "container runtime", "gVisor", "RestrictSUIDSGID="] {
                    assert!(text.contains(culprit), "{culprit}: {text}");
                }
            }
            assert!(!place.path("state").exists() && !place.path("in/f.sig").exists(), "nothing was begun");
        }
    }
}

#[test]
fn o13_what_has_a_substitute_may_be_missing() {
    let calls = [libc::SYS_inotify_init1, libc::SYS_copy_file_range, libc::SYS_syncfs, libc::SYS_fadvise64];
    for call in calls.into_iter().chain([libc::SYS_faccessat2]) {
        let place = place(VERIFY);
        drop_pair(&place, "f", "content");
        let run = run_without(&place, call, libc::ENOSYS, &["watch", "--policy", "policy.toml", "--once"]);
        assert_eq!(run.status.code(), Some(0), "{call}: {}", said(&run));
        assert!(place.path("out/f").exists(), "{call}");
    }
}

/// Commands for single files need nothing of it.
#[test]
fn o13_files_are_signed_and_verified_by_hand_without_it() {
    for (name, call) in NEEDED {
        for errno in [libc::ENOSYS, libc::EPERM] {
            let place = Place::with_keyring();
            place.write("f", "content");
            for arguments in [&["sign", "local:demo", "f"][..], &["verify", "f", "--key", "local:demo"]] {
                let run = run_without(&place, call, errno, arguments);
                assert_eq!(run.status.code(), Some(0), "{name} {errno} {arguments:?}: {}", said(&run));
            }
        }
    }
}

#[test]
fn o13_a_missing_proc_is_named_at_the_start_and_ends_the_unit() {
    // As a chroot has it, and as one where somebody made the directory.
    for away in ["umount -l /proc", "mount -t tmpfs none /proc"] {
        let place = place(SIGN);
        place.write("in/f", "content");
        for arguments in COMMANDS {
            let script = format!("{away} && exec \"$KMS_SIG\" {}", arguments.join(" "));
            let run = place.shell(&format!("unshare --mount sh -c '{script}'"));
            let run = run.exits(2).complains_of("cannot work without: /proc/self/fd (");
            let run = run.complains_of("hint: mount /proc where this runs (mount -t proc proc /proc)");
            assert_eq!(run.stderr().lines().count(), 2, "{}", run.stderr());
        }
        assert!(!place.path("state").exists() && !place.path("in/f.sig").exists(), "nothing was begun");
    }
    // What the unit leaves of it is enough.
    let place = place(SIGN);
    place.write("in/f", "content");
    let script = "mount -t proc -o subset=pid,hidepid=invisible proc /proc && \
                  exec \"$KMS_SIG\" watch --policy policy.toml --once";
    place.shell(&format!("unshare --mount sh -c '{script}'")).exits(0).says("sign: 1 signed\n");
}
