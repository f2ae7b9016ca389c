//! C1, C2, C3: killed before each system call that changes anything, then started again.

use super::job::{
    DELIVER, DELIVER_BELOW, DELIVER_MANY, DELIVER_ONTO, Job, QUARANTINE, QUARANTINE_APART, RESIGN, SIGN,
    SIGN_AND_DELIVER, SIGN_BATCH, SIGN_BATCH_AND_DELIVER, at_each,
};
use rustix::io::Errno;

use crate::support::mount;
use crate::support::trace::{Fault, Lacking};

/// Points of one call at most.
const CAP: usize = 40;

/// The same where there are many files, and so many points that are much alike.
const FEW: usize = 8;

fn kill_everywhere(job: Job) {
    kill_at(job, CAP);
}

fn kill_at(job: Job, cap: usize) {
    mount::private();
    at_each(&job.points(cap), 2, |point| {
        let site = job.lay(None);
        let run = site.trace(Some((point, Fault::Kill)));
        let told = |wrong| format!("killed before {} #{}: {wrong}\n{}", point.call, point.nth, run.shown());
        site.during().and_then(|()| site.finish()).map_err(told)
    });
}

/// vfat: no files without a name, and no hard links. The names that stand in are there until the
/// next start, which finds all public ones whole or not at all.
#[test]
fn c1_c2_p4_a_kill_where_things_are_published_by_a_rename() {
    mount::private();
    let lacking = Lacking { nameless: true, links: Some(Errno::PERM), rename_flags: false };
    for job in [DELIVER, SIGN, RESIGN, SIGN_AND_DELIVER] {
        at_each(&job.points_on(lacking, FEW), 2, |point| {
            let site = job.lay(None);
            let run = site.trace_on(lacking, Some((point, Fault::Kill)), &[]);
            let told =
                |wrong| format!("killed before {} #{}: {wrong}\n{}", point.call, point.nth, run.shown());
            site.finish().map_err(told)
        });
    }
}

#[test]
fn c1_p4_a_kill_while_delivering() {
    kill_everywhere(DELIVER);
}

#[test]
fn c1_p4_a_kill_while_delivering_into_a_new_directory() {
    kill_everywhere(DELIVER_BELOW);
}

#[test]
fn c1_a20_p4_a_kill_while_delivering_onto_an_equal_file() {
    kill_everywhere(DELIVER_ONTO);
}

#[test]
fn c1_p4_a_kill_while_delivering_many() {
    kill_at(DELIVER_MANY, FEW);
}

#[test]
fn c2_p4_a_kill_while_signing_a_batch() {
    kill_at(SIGN_BATCH, FEW);
}

#[test]
fn c1_c2_p4_a_kill_while_signing_a_batch_and_delivering() {
    kill_at(SIGN_BATCH_AND_DELIVER, FEW);
}

#[test]
fn c2_p4_a_kill_while_signing() {
    kill_everywhere(SIGN);
}

#[test]
fn c2_p4_a_kill_while_signing_again() {
    kill_everywhere(RESIGN);
}

#[test]
fn c1_c2_p4_a_kill_while_signing_and_delivering() {
    kill_everywhere(SIGN_AND_DELIVER);
}

#[test]
fn c3_p4_a_kill_while_quarantining() {
    kill_everywhere(QUARANTINE);
}

#[test]
fn c3_c9_p4_a_kill_while_quarantining_across_mounts() {
    kill_everywhere(QUARANTINE_APART);
}
