//! `check --online` and `explain` where mounts are in the way.

use std::fs;
use std::process::Command;

use crate::support::check::Found;
use crate::support::mount::{Mount, private, run};
use crate::support::policy::{SIGN, VERIFY, place, with};

#[test]
fn a_mount_on_the_way_keeps_a_rule_from_a_file() {
    private();
    let place = place(&with(SIGN, "recursive = true"));
    fs::create_dir(place.path("in/below")).unwrap();
    let mount = Mount::tmpfs(&place.path("in/below"), "size=1m");
    place.write("in/below/f", "content");
    let run = place.run(["explain", "in/below/f", "--policy", "policy.toml"]).exits(0);
    let said = String::from_utf8(run.stdout().to_vec()).unwrap();
    let why = "  sign: another file system is mounted on the way, and mounts are not crossed\n";
    assert!(said.contains("\nno rule applies\n") && said.contains(why), "{said}");
    drop(mount);
    let run = place.run(["explain", "in/below/f", "--policy", "policy.toml"]).exits(0);
    assert!(String::from_utf8_lossy(run.stdout()).contains("\nnow: nothing lies there; "));
}

#[test]
fn o7_quarantine_on_another_mount_is_told_apart_from_another_disk() {
    private();
    let place = place(VERIFY);
    fs::create_dir(place.path("q")).unwrap();
    let chmod = || run(Command::new("chmod").arg("700").arg(place.path("q")));
    chmod();
    Found::online(&place, 0).is("verify", "on the same mount: bad files are moved there", "fine");
    run(Command::new("mount").arg("--bind").args([place.path("q"), place.path("q")]));
    let (level, to_do) = Found::online(&place, 0).says("verify", "on another mount of the same disk");
    assert_eq!(level, "note");
    assert!(to_do.contains("ReadWritePaths="), "{to_do}");
    run(Command::new("umount").arg(place.path("q")));
    let mount = Mount::tmpfs(&place.path("q"), "size=1m");
    chmod();
    // It is told as well that there is less room than is to stay free.
    Found::online(&place, 2).is("verify", "on another file system: bad files are copied there", "fine");
    drop(mount);
}

#[test]
fn limits_that_are_hidden_cannot_be_told() {
    private();
    let place = place(SIGN);
    Found::online(&place, 0).is("host", "max_user_watches", "fine");
    let mount = Mount::tmpfs("/proc/sys".as_ref(), "size=1m"); // as a unit with ProcSubset=pid sees it
    let (level, to_do) = Found::online(&place, 3).says("host", "max_user_watches cannot be told");
    assert_eq!(level, "unknown");
    assert!(to_do.contains("ProcSubset=pid"), "{to_do}");
    drop(mount);
}

#[test]
fn a_read_only_disk_is_told_and_its_leases_are_asked_of_a_file_that_is_there() {
    private();
    let place = place(SIGN);
    let mount = Mount::tmpfs(&place.path("in"), "size=1m");
    place.write("in/f", "content");
    run(Command::new("mount").args(["-o", "remount,ro"]).arg(place.path("in")));
    let found = Found::online(&place, 2);
    found.is("sign", "read-only file system", "fix");
    found.is("sign", "the kernel tells who has a file open for writing", "fine");
    found.is("sign", "tmpfs: events can be relied on", "fine");
    drop(mount);
}
