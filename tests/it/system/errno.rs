//! C5 to C8, C10: every system call that changes anything fails, once or from then on. The daemon
//! holds or ends; it never crashes, delivers what it should not or loses anything, and it never
//! says that it is done when it is not. When the fault is gone, the next run finishes.

use rustix::io::Errno;

use super::job::{
    Check, DELIVER, DELIVER_BELOW, DELIVER_MANY, Job, QUARANTINE, QUARANTINE_APART, RESIGN, SIGN,
    SIGN_AND_DELIVER, SIGN_BATCH, at_each, ensure,
};
use crate::support::mount;
use crate::support::trace::{Fault, Lacking, Point};

/// Points of one call at most.
const CAP: usize = 40;

/// Runs at the same time: most of them wait to try again.
const HANDS: usize = 12;

/// The same where there are many files, and so many points that are much alike.
const FEW: usize = 4;

fn fail_everywhere(job: Job) {
    fail_at(job, CAP);
}

fn fail_at(job: Job, cap: usize) {
    mount::private();
    let mut faults = Vec::new();
    for point in job.points(cap) {
        faults.push((point, Fault::Once(Errno::IO)));
        faults.extend(other_errno(point).map(|errno| (point, Fault::Once(errno))));
        if point.nth == 1 || point.nth.is_multiple_of(5) {
            faults.push((point, Fault::Always(other_errno(point).unwrap_or(Errno::IO))));
            faults.push((point, Fault::Always(Errno::IO)));
        }
    }
    at_each(&faults, HANDS, |fault| fail(job, fault));
}

/// What else than EIO the call is likely to say.
fn other_errno(point: Point) -> Option<Errno> {
    let full = if point.nth.is_multiple_of(2) { Errno::NOSPC } else { Errno::DQUOT };
    match point.call {
        "open" | "openat" | "openat2" => Some(Errno::MFILE),
        "mkdir" | "mkdirat" | "write" | "pwrite64" | "ftruncate" | "fallocate" | "fsync" | "fdatasync"
        | "syncfs" | "linkat" | "rename" | "renameat" | "renameat2" => Some(full),
        _ => None,
    }
}

fn fail(job: Job, (point, fault): (Point, Fault)) -> Check {
    let site = job.lay(None);
    let run = site.trace(Some((point, fault)));
    let check = || {
        site.during()?;
        ensure!(!run.hung, "it hung");
        ensure!(!run.is_broken(), "it panicked");
        match run.status.code() {
            Some(code) if code == job.exit => {
                site.done().map_err(|wrong| format!("it said it was done: {wrong}"))?
            }
            Some(3) => {}
            _ => return Err("neither done nor unfinished".into()),
        }
        site.finish()
    };
    check().map_err(|wrong| format!("{fault:?} from {} #{}: {wrong}\n{}", point.call, point.nth, run.shown()))
}

/// NFS: it can neither refuse to replace nor swap two names.
#[test]
fn w10_a_file_system_whose_rename_has_no_flags_will_do() {
    mount::private();
    let fault = (Point { call: "renameat2", nth: 1 }, Fault::Always(Errno::INVAL));
    for job in EVERYTHING {
        let site = job.lay(None);
        let run = site.trace(Some(fault));
        assert_eq!(run.status.code(), Some(job.exit), "{}", run.shown());
        site.during().and_then(|()| site.done()).unwrap_or_else(|wrong| panic!("{wrong}\n{}", run.shown()));
    }
}

const EVERYTHING: [Job; 9] = [
    DELIVER,
    DELIVER_BELOW,
    DELIVER_MANY,
    SIGN,
    RESIGN,
    SIGN_AND_DELIVER,
    SIGN_BATCH,
    QUARANTINE,
    QUARANTINE_APART,
];

/// vfat, CryFS, s3fs and rclone, by what link(2) says there. The last three have no such rename
/// either.
const WITHOUT_LINKS: [Errno; 4] = [Errno::PERM, Errno::RANGE, Errno::OPNOTSUPP, Errno::IO];

#[test]
fn p4_p8_a_file_system_without_nameless_files_and_hard_links_will_do() {
    mount::private();
    for errno in WITHOUT_LINKS {
        let lacking = Lacking { nameless: true, links: Some(errno), rename_flags: false };
        for job in EVERYTHING {
            let site = job.lay(None);
            let run = site.trace_on(lacking, None, &[]);
            assert_eq!(run.status.code(), Some(job.exit), "{}", run.shown());
            site.after().unwrap_or_else(|wrong| panic!("{wrong}\n{}", run.shown()));
        }
    }
}

#[test]
fn p8_a_file_system_where_nothing_can_be_published_is_refused_before_anything_is_read() {
    mount::private();
    let lacking = Lacking { nameless: true, links: Some(Errno::IO), rename_flags: true };
    for job in EVERYTHING {
        let site = job.lay(None);
        let run = site.trace_on(lacking, None, &[]);
        assert_eq!(run.status.code(), Some(3), "{}", run.shown());
        let why = "which has neither hard links nor a rename that never replaces (RENAME_NOREPLACE)";
        assert!(run.stderr.contains(why), "{}", run.shown());
        // Nothing was begun: the next run, somewhere else, does it all.
        site.during().and_then(|()| site.finish()).unwrap_or_else(|wrong| panic!("{wrong}\n{}", run.shown()));
    }
}

#[test]
fn c5_c6_c7_c8_errors_while_delivering() {
    fail_everywhere(DELIVER);
}

#[test]
fn c5_c6_c7_c8_errors_while_delivering_many() {
    fail_at(DELIVER_MANY, FEW);
}

#[test]
fn c6_c8_errors_while_signing_a_batch() {
    fail_at(SIGN_BATCH, FEW);
}

#[test]
fn c6_c8_errors_while_signing() {
    fail_everywhere(SIGN);
}

#[test]
fn c6_c8_errors_while_signing_again() {
    fail_everywhere(RESIGN);
}

#[test]
fn c6_c8_errors_while_signing_and_delivering() {
    fail_everywhere(SIGN_AND_DELIVER);
}

#[test]
fn c3_c6_c8_errors_while_quarantining() {
    fail_everywhere(QUARANTINE);
}

#[test]
fn c3_c6_c8_c9_errors_while_quarantining_across_mounts() {
    fail_everywhere(QUARANTINE_APART);
}
