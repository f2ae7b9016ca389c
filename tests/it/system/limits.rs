//! C5, C18, A17: no room, no writing, no reading. The daemon holds, says why, and goes on when it
//! can.
//!
//! Rows of the list of faults that have no test, and why: W11 (nothing from outside ends only the
//! thread that reads events; that their coming is checked shows in `watch::hint` and in the log),
//! K14 (needs an instance metadata service), K18 (needs a skewed clock on both sides of TLS), C11
//! (the kernel's choice of whom to kill is a kill, and kills are tested at every system call).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use crate::support::daemon::Daemon;
use crate::support::files::{drop_pair, verifies};
use crate::support::mount::{self, Mount};
use crate::support::place::{PROGRAM, Place};
use crate::support::policy::{SIGN, VERIFY, place, with};

#[test]
fn c5_a_full_destination_holds_until_there_is_room() {
    mount::private();
    let place = place(&format!("limits.min_free_space = \"0B\"\n{VERIFY}"));
    let _disk = Mount::tmpfs(&place.path("out"), "size=1m,mode=0755");
    drop_pair(&place, "big", &"x".repeat(2 << 20));
    drop_pair(&place, "small", "content");
    let daemon = Daemon::start(&place);
    assert_eq!(daemon.waits_for("held")["cause"], "no-space");
    daemon.until("delivered the small one", || place.path("out/small").exists());
    assert!(place.path("in/big").exists() && place.path("in/big.sig").exists());
    place.shell("mount -o remount,size=16m out").exits(0);
    daemon
        .until("delivered the big one", || place.path("out/big").exists() && !place.path("in/big").exists());
    assert_eq!(fs::read_dir(place.path("q")).unwrap().count(), 0);
}

#[test]
fn c5_the_floor_is_kept() {
    mount::private();
    let place = place(&format!("limits.min_free_space = \"12MiB\"\n{VERIFY}"));
    let _disk = Mount::tmpfs(&place.path("out"), "size=8m,mode=0755");
    drop_pair(&place, "f", "content");
    let daemon = Daemon::start(&place);
    assert_eq!(daemon.waits_for("held")["cause"], "no-space");
    place.shell("mount -o remount,size=32m out").exits(0);
    daemon.until("delivered", || place.path("out/f").exists());
}

#[test]
fn c18_a_destination_that_turns_read_only_holds() {
    mount::private();
    let place = place(VERIFY);
    let _disk = Mount::tmpfs(&place.path("out"), "size=256m,mode=0755");
    let daemon = Daemon::start(&place);
    place.shell("mount -o remount,ro out").exits(0);
    drop_pair(&place, "f", "content");
    assert_eq!(daemon.waits_for("held; will be tried again")["cause"], "file-system");
    place.shell("mount -o remount,rw out").exits(0);
    daemon.until("delivered", || place.path("out/f").exists() && !place.path("in/f").exists());
}

/// The daemon of a place, running as `nobody`, to whom the place is given.
fn as_nobody(place: &Place) -> Daemon {
    // A keyring of its own: nobody uses one that is somebody else's.
    let give = "cp keyring theirs && sed -i 's/\"keyring\"/\"theirs\"/' policy.toml && \
                chown -R 65534:65534 . && chown 0:0 keyring && chmod 755 .";
    place.shell(give).exits(0);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", PROGRAM]);
    command.args(["watch", "--policy", "policy.toml", "--log-format", "json"]);
    Daemon::spawn(place.prepare(command))
}

#[test]
fn a17_an_unreadable_file_is_held_until_it_can_be_read() {
    let place = place(SIGN);
    let daemon = as_nobody(&place);
    daemon.waits_for("ready");
    // A sender of another user, whose file nobody may read.
    place.write("in/f.part", "content");
    fs::set_permissions(place.path("in/f.part"), Permissions::from_mode(0o600)).unwrap();
    fs::rename(place.path("in/f.part"), place.path("in/f")).unwrap();
    assert_eq!(daemon.waits_for("held; will be tried again")["cause"], "file-system");
    fs::set_permissions(place.path("in/f"), Permissions::from_mode(0o644)).unwrap();
    // Not the daemon's own file: the kernel does not say who writes to it.
    assert_eq!(daemon.waits_for("signed")["lease"], "unavailable");
    verifies(&place, "in/f", "file=f");
}

#[test]
fn another_users_pairs_are_delivered_and_belong_to_the_daemon() {
    use std::os::unix::fs::MetadataExt as _;
    let place = place(&with(VERIFY, "grace = \"10m\""));
    let daemon = as_nobody(&place);
    daemon.waits_for("ready");
    drop_pair(&place, "f", "content"); // as root, into the daemon's directory
    daemon.until("delivered", || place.path("out/f").exists() && !place.path("in/f").exists());
    for name in ["out/f", "out/f.sig"] {
        assert_eq!(fs::metadata(place.path(name)).unwrap().uid(), 65534, "{name}");
    }
}
