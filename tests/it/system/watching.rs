//! What the watching half does where the kernel gives it little: limits of a user namespace, an
//! overlay whose lower side changes unseen, a mount over the root. Needs root and namespaces.

use std::fs;

use crate::support::daemon::Daemon;
use crate::support::files::{drop_pair, names, verifies};
use crate::support::mount::start_in;
use crate::support::place::Place;
use crate::support::policy::{SIGN, VERIFY, place, with};

#[test]
fn w6_without_an_inotify_instance_it_lives_by_scanning() {
    let place = place(SIGN);
    let script = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"";
    let daemon = start_in(&place, &["--user", "--map-root-user"], script);
    daemon.waits_for("no events; scanning often instead");
    daemon.waits_for("ready");
    place.write("in/f", "content");
    daemon.waits_for("signed");
    verifies(&place, "in/f", "file=f");
}

/// More than the daemon has in memory, so that it scans several times while signatures change the
/// directory.
#[test]
fn p5_once_takes_every_name_however_many_there_are() {
    const FILES: usize = 50_000;
    let place = place(SIGN);
    (0..FILES).for_each(|n| place.write(format!("in/f{n}"), "x"));
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0);
    let all = names(&place.path("in"));
    let unsigned = |n: &usize| all.binary_search(&format!("f{n}.sig")).is_err();
    assert_eq!((0..FILES).filter(unsigned).count(), 0);
}

#[test]
fn w5_what_cannot_be_watched_is_scanned() {
    let place = place(&with(SIGN, "recursive = true"));
    for i in 0..10 {
        fs::create_dir(place.path(format!("in/d{i}"))).unwrap();
    }
    let script = "echo 5 > /proc/sys/user/max_inotify_watches && exec \"$@\"";
    let daemon = start_in(&place, &["--user", "--map-root-user"], script);
    daemon.waits_for("not all directories are watched; scanning often instead");
    daemon.waits_for("ready");
    for i in 0..10 {
        place.write(format!("in/d{i}/f{i}"), "content");
    }
    daemon.waits_for_nth("signed", 10);
}

#[test]
fn w10_an_overlay_is_scanned_without_being_told() {
    let place = place(SIGN);
    for dir in ["lower", "upper", "work"] {
        fs::create_dir(place.path(dir)).unwrap();
    }
    let script = "mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work in && exec \"$@\"";
    let daemon = start_in(&place, &["--mount"], script);
    let told = daemon.waits_for_starting("events cannot be relied on there");
    assert_eq!(told["rule"], "sign");
    daemon.waits_for("ready");
    // Beside the overlay, where no event tells of it.
    place.write("upper/f", "content");
    daemon.waits_for("signed");
    assert!(place.path("upper/f.sig").exists());
}

/// The lease is granted on an overlay although somebody writes to the file in the directory below
/// it; on the disk itself it tells of them.
#[test]
fn s2_w10_no_writer_is_believed_where_others_may_write_past_the_mount() {
    for (over, said) in [
        ("-t overlay overlay -o lowerdir=lower,upperdir=back,workdir=work", "unavailable"),
        ("--bind back", "granted"),
    ] {
        let place = place(SIGN);
        for dir in ["lower", "back", "work"] {
            fs::create_dir(place.path(dir)).unwrap();
        }
        let daemon = start_in(&place, &["--mount"], &format!("mount {over} in && exec \"$@\""));
        daemon.waits_for("ready");
        place.write("back/f", "content");
        assert_eq!(daemon.waits_for("signed")["lease"], said, "{over}");
    }
}

#[test]
fn w9_a_mount_over_the_root_is_noticed_and_what_it_hid_is_done_later() {
    let place = place(SIGN);
    place.shell("mount --bind in in && mount --make-private in").exits(0);
    let unmount = Unmount(&place, "in");
    let daemon = Daemon::start(&place);
    place.shell("mount -t tmpfs -o mode=0755 none in").exits(0);
    place.write("in/on-top", "content");
    // The next scan compares; a reload makes it come at once.
    daemon.hang_up();
    daemon.until("signed on top", || place.path("in/on-top.sig").exists());
    place.shell("umount -l in").exits(0);
    place.write("in/below", "content");
    daemon.hang_up();
    daemon.until("signed below", || place.path("in/below.sig").exists());
    drop(daemon);
    drop(unmount);
}

#[test]
fn w9_a_mount_over_the_destination_is_noticed() {
    let place = place(&with(VERIFY, "signature_timeout = \"10m\""));
    fs::create_dir(place.path("other")).unwrap();
    let unmount = Unmount(&place, "out");
    let daemon = Daemon::start(&place);
    place.shell("mount --bind other out && mount --make-private out").exits(0);
    drop_pair(&place, "f", "content");
    daemon.waits_for("delivered");
    drop(unmount);
    assert_eq!(names(&place.path("other")), ["f", "f.sig"]);
    assert_eq!(names(&place.path("out")), [""; 0]);
}

/// Takes the mounts of a test away, however it ends.
struct Unmount<'a>(&'a Place, &'static str);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        let script = format!("while umount -l {} 2>/dev/null; do :; done", self.1);
        self.0.shell(&script);
    }
}

#[test]
fn o7_quarantine_on_another_mount_of_the_same_disk_is_told_and_copied_to() {
    // What ReadWritePaths= with two paths does.
    let place = place(VERIFY);
    let script = "mkdir -m 700 q && mount --bind in in && mount --bind q q && exec \"$@\"";
    let daemon = start_in(&place, &["--mount"], script);
    let told = daemon.waits_for(
        "quarantine is on another mount of the same disk; files are copied there instead of moved",
    );
    let parent = place.path("");
    let parent = parent.to_str().unwrap().trim_end_matches('/');
    assert_eq!(
        told["hint"],
        format!("under systemd, name \"{parent}\" alone in ReadWritePaths=, instead of several paths in it")
    );
    place.write("in/f", "content");
    place.write("in/f.sig", "nonsense");
    daemon.waits_for("quarantined");
    assert_eq!(names(&place.path("in")), [""; 0]);
    assert_eq!(names(&place.path("q")).len(), 1);
}

#[test]
fn o7_quarantine_on_the_same_mount_is_nothing_to_tell() {
    let place = place(VERIFY);
    let daemon = start_in(&place, &["--mount"], "mount --bind . . && cd . && exec \"$@\"");
    daemon.waits_for("ready");
    assert_eq!(
        daemon.count(
            "quarantine is on another mount of the same disk; files are copied there instead of moved"
        ),
        0
    );
}
