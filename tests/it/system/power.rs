//! C4: the power fails before a system call that changes anything. What the disk holds at that
//! moment is copied, mounted and judged: nothing half written shows, and the next run finishes.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use super::job::{
    DELIVER, DELIVER_BELOW, DELIVER_MANY, Job, QUARANTINE, RESIGN, SIGN, SIGN_AND_DELIVER, SIGN_BATCH,
    at_each, content,
};
use crate::support::mount::{self, Mount, run};
use crate::support::place::Place;
use crate::support::trace::{Fault, Point};

/// Points of one call at most.
const CAP: usize = 10;

/// A file system to lose power on.
#[derive(Clone, Copy)]
struct Disk {
    mkfs: &'static [&'static str],
    /// Bytes; XFS takes no less.
    size: u64,
    /// ext4 does not write by itself during a test, which would hide what is not synced (XFS waits
    /// 30 s). Copies of one XFS share its UUID.
    options: &'static str,
}

const EXT4: Disk = Disk { mkfs: &["mkfs.ext4", "-q"], size: 64 << 20, options: "commit=300" };
const XFS: Disk = Disk { mkfs: &["mkfs.xfs", "-q"], size: 300 << 20, options: "nouuid" };

fn cut_everywhere(job: Job, disk: Disk) {
    mount::private();
    let template = template(disk);
    // What only opens changes nothing: the disk is as it is before the next call.
    let opens = |point: &Point| ["open", "openat", "openat2", "flock"].contains(&point.call);
    let mut points: Vec<_> = job.points(CAP).into_iter().filter(|p| !opens(p)).map(Some).collect();
    points.push(None); // after everything
    at_each(&points, 2, |point| {
        let insert = |at: &Path| insert(template.path(), at, disk);
        let mut site = job.lay(Some(&insert));
        rustix::fs::syncfs(File::open(site.place.path("w")).unwrap()).unwrap();
        let traced = site.trace(point.map(|point| (point, Fault::Kill)));
        power_cycle(&site.place, &mut site.mount, disk);
        let told = |wrong| format!("power lost before {point:?}: {wrong}\n{}", traced.shown());
        site.during().and_then(|()| site.finish()).map_err(told)
    });
}

/// An empty disk, as a file.
fn template(disk: Disk) -> tempfile::NamedTempFile {
    let template = tempfile::NamedTempFile::new().unwrap();
    template.as_file().set_len(disk.size).unwrap();
    run(Command::new(disk.mkfs[0]).args(&disk.mkfs[1..]).arg(template.path()));
    template
}

/// Mounts a copy of a disk at `at`.
fn insert(template: &Path, at: &Path, disk: Disk) -> Mount {
    copy(template, &at.with_file_name("disk"));
    Mount::image(&at.with_file_name("disk"), at, disk.options)
}

/// Has the disk be what was written to it so far.
fn power_cycle(place: &Place, mount: &mut Option<Mount>, disk: Disk) {
    let (now, then) = (place.path("disk"), place.path("disk.then"));
    copy(&now, &then);
    *mount = None; // writes the rest to the disk that is thrown away
    fs::remove_file(now).unwrap();
    *mount = Some(Mount::image(&then, &place.path("w"), disk.options));
}

fn copy(from: &Path, to: &Path) {
    run(Command::new("cp").arg("--sparse=always").arg(from).arg(to));
}

#[test]
fn c4_power_loss_while_delivering() {
    cut_everywhere(DELIVER, EXT4);
}

#[test]
fn c4_power_loss_while_delivering_into_a_new_directory() {
    cut_everywhere(DELIVER_BELOW, EXT4);
}

/// Somebody has copied the pair to the destination, and their disk has not written it yet.
#[test]
fn c4_a20_power_loss_after_an_equal_file_was_taken_for_the_delivered_one() {
    mount::private();
    let template = template(EXT4);
    let insert = |at: &Path| insert(template.path(), at, EXT4);
    let mut site = DELIVER.lay(Some(&insert));
    rustix::fs::syncfs(File::open(site.place.path("w")).unwrap()).unwrap();
    for name in ["f", "f.sig"] {
        site.place.write(format!("w/out/{name}"), site.place.read(format!("w/in/{name}")));
    }
    let run = site.trace(None);
    assert_eq!(run.status.code(), Some(0), "{}", run.shown());
    power_cycle(&site.place, &mut site.mount, EXT4);
    let whole = |name: &str| fs::read(site.place.path(name)).is_ok_and(|there| there == content());
    assert!(whole("w/out/f") || whole("w/in/f"), "it is lost; {}", run.shown());
    site.during().unwrap();
}

#[test]
fn c4_power_loss_while_delivering_many() {
    cut_everywhere(DELIVER_MANY, EXT4);
}

#[test]
fn c4_power_loss_while_delivering_many_on_xfs() {
    cut_everywhere(DELIVER_MANY, XFS);
}

#[test]
fn c4_power_loss_while_signing_a_batch() {
    cut_everywhere(SIGN_BATCH, EXT4);
}

#[test]
fn c4_power_loss_while_signing() {
    cut_everywhere(SIGN, EXT4);
}

#[test]
fn c4_power_loss_while_signing_again() {
    cut_everywhere(RESIGN, EXT4);
}

#[test]
fn c4_power_loss_while_signing_and_delivering() {
    cut_everywhere(SIGN_AND_DELIVER, EXT4);
}

#[test]
fn c4_power_loss_while_quarantining() {
    cut_everywhere(QUARANTINE, EXT4);
}

#[test]
fn c4_power_loss_while_delivering_on_xfs() {
    cut_everywhere(DELIVER, XFS);
}

#[test]
fn c4_power_loss_while_quarantining_on_xfs() {
    cut_everywhere(QUARANTINE, XFS);
}

/// When `kms-sig sign` and `kms-sig key create` come back, what they wrote is on the disk: new
/// names and replaced ones.
#[test]
fn c4_power_loss_after_a_command_has_written() {
    mount::private();
    let template = template(EXT4);
    let place = Place::with_keyring();
    fs::create_dir(place.path("w")).unwrap();
    let mut mount = Some(insert(template.path(), &place.path("w"), EXT4));
    let signed = |file: &str| place.run(["sign", "local:demo", file]).exits(0);
    let key = |verb: &str| place.run(["key", verb, "local:new", "--keyring", "w/keyring"]);
    place.write("w/old", "signed before");
    signed("w/old");
    place.write("w/old", "changed since");
    place.write("w/new", "content");
    rustix::fs::syncfs(File::open(place.path("w")).unwrap()).unwrap();
    for file in ["w/old", "w/new"] {
        signed(file);
    }
    key("create").exits(0);
    power_cycle(&place, &mut mount, EXT4);
    for file in ["w/old", "w/new"] {
        place.run(["verify", file, "--key", "local:demo"]).exits(0);
    }
    key("create").exits(2); // it is there
}
