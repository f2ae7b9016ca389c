//! What file systems do that nobody has asked for: other inode numbers after a remount, links that
//! are counted for a moment more.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use rusqlite::{Connection, params};

use crate::support::control::asked;
use crate::support::daemon::Daemon;
use crate::support::files::{drop_pair, names, sign};
use crate::support::place::Place;
use crate::support::policy::{SIGN, VERIFY, impatient, place, with, without};

/// Gives every file of `in` another inode number, as a remount does on FUSE and network file
/// systems: same content, same times but that of the last change.
fn renumber(place: &Place) {
    place.shell("for f in in/*; do cp -a \"$f\" other && mv other \"$f\" || exit 1; done").exits(0);
    come_of_age();
}

/// `--once` leaves what is younger than the waits of a rule.
fn come_of_age() {
    std::thread::sleep(Duration::from_millis(200));
}

/// How many decisions are on record.
fn recorded(place: &Place) -> usize {
    asked(place, "history --json").len()
}

/// Runs the daemon once, without any key: who asks KMS gets no answer.
fn once_without_keys(place: &Place, code: i32) -> String {
    fs::rename(place.path("keyring"), place.path("away")).unwrap();
    let run = place.run(["watch", "--policy", "policy.toml", "--once"]).exits(code);
    let said = run.stderr();
    fs::rename(place.path("away"), place.path("keyring")).unwrap();
    said
}

#[test]
fn pairs_judged_in_place_keep_their_verdicts_when_their_inode_numbers_change() {
    let rule = with(&without(&impatient(VERIFY), "deliver_to"), "in_place = true");
    let rule = with(&with(&rule, "on_invalid = \"log\""), "on_missing = \"log\"");
    let place = place(&rule);
    drop_pair(&place, "good", "content");
    drop_pair(&place, "bad", "content");
    place.write("in/bad", "CONTENT");
    place.write("in/alone", "content");
    let daemon = Daemon::start(&place);
    daemon.waits_for("valid");
    daemon.waits_for_nth("invalid", 2);
    daemon.stop();
    let before = recorded(&place);
    renumber(&place);
    let said = once_without_keys(&place, 1);
    assert!(!said.contains("valid") && !said.contains("held"), "{said}");
    assert_eq!(recorded(&place), before);
    // Never believed without the digest: other content of the same size, under a signature that it
    // had before.
    place.shell(
        "touch -r in/good stamp && printf CONTENT > other && touch -r stamp other && mv other in/good",
    );
    come_of_age();
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(1).complains_of("invalid");
    assert_eq!(recorded(&place), before + 1);
}

#[test]
fn signed_files_and_refused_ones_stay_what_they_are_when_their_inode_numbers_change() {
    let place = place(&with(SIGN, "max_links = 1"));
    place.write("in/signed", "content");
    place.write("in/theirs", "content");
    place.write("in/theirs.sig", [7; 100]);
    place.write("in/linked", "content");
    fs::hard_link(place.path("in/linked"), place.path("in/linked-too")).unwrap();
    let daemon = Daemon::start(&place);
    daemon.waits_for("signed");
    daemon.waits_for_nth("refused", 3);
    daemon.stop();
    let before = recorded(&place);
    fs::remove_file(place.path("in/linked-too")).unwrap();
    fs::remove_file(place.path("in/linked")).unwrap();
    renumber(&place);
    let said = once_without_keys(&place, 3);
    assert!(!said.contains("refused") && !said.contains("held"), "{said}");
    assert_eq!(recorded(&place), before);
}

/// What state keeps of a version of a file (src/state/decision.rs).
fn version(place: &Place, name: &str) -> Vec<u8> {
    let is = fs::metadata(place.path(name)).unwrap();
    let time =
        |seconds: i64, nanos: i64| [&seconds.to_be_bytes()[..], &(nanos as u32).to_be_bytes()].concat();
    let times = [time(is.mtime(), is.mtime_nsec()), time(is.ctime(), is.ctime_nsec())].concat();
    [&is.ino().to_be_bytes()[..], &is.len().to_be_bytes(), &times].concat()
}

/// Has state say of what lies in `in` that it is what was delivered; `inode` is the number that it
/// had then, or that it has.
fn call_it_delivered(place: &Place, name: &str, inode: Option<u64>) {
    let of = |name: &str| {
        let mut version = version(place, name);
        if let Some(inode) = inode {
            version.splice(..8, inode.to_be_bytes());
        }
        version
    };
    let state = Connection::open(place.path("state/state.db")).unwrap();
    let changed = state
        .execute(
            "UPDATE decided SET payload = ?1, signature = ?2 WHERE path = ?3 AND outcome = 'delivered'",
            params![of(&format!("in/{name}")), of(&format!("in/{name}.sig")), name.as_bytes()],
        )
        .unwrap();
    assert_eq!(changed, 1);
}

/// A daemon that was killed when a pair was delivered and recorded, and not removed; a consumer has
/// taken it. Then other times are on it: as on a file system that counts whole seconds.
#[test]
fn p4_a_source_is_removed_as_delivered_before_only_if_its_content_is_what_was_delivered() {
    let place = place(VERIFY);
    let (payload, signature) = sign(&place, "f", "content");
    let drop_the_same = || {
        fs::copy(&payload, place.path("in/f")).unwrap();
        fs::copy(&signature, place.path("in/f.sig")).unwrap();
    };
    drop_the_same();
    let deliver = || place.run(["watch", "--policy", "policy.toml", "--once"]);
    deliver().exits(0);
    for file in ["out/f", "out/f.sig"] {
        fs::remove_file(place.path(file)).unwrap();
    }
    drop_the_same();
    call_it_delivered(&place, "f", Some(4711));
    let before = recorded(&place);
    let run = deliver().exits(0);
    assert!(!run.stderr().contains("delivered\""), "{}", run.stderr());
    assert_eq!((names(&place.path("in")).len(), names(&place.path("out")).len()), (0, 0));
    assert_eq!(recorded(&place), before);
    // Other content of the same size: it is a delivery of its own.
    drop_pair(&place, "f", "CONTENT");
    call_it_delivered(&place, "f", None);
    deliver().exits(0);
    assert_eq!(place.read("out/f"), b"CONTENT");
    assert_eq!(recorded(&place), before + 1);
}

#[test]
fn a_second_link_that_goes_in_a_moment_refuses_nothing() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    place.write("up", "content");
    fs::hard_link(place.path("up"), place.path("in/f")).unwrap();
    std::thread::sleep(Duration::from_millis(500)); // ten times `settle`
    fs::remove_file(place.path("up")).unwrap();
    daemon.waits_for("signed");
    assert_eq!(daemon.count("refused"), 0);
    // One that stays refuses it, as ever.
    let (made, _) = sign(&place, "g", "content");
    fs::hard_link(made, place.path("in/g")).unwrap();
    assert_eq!(daemon.waits_for("refused")["cause"], "hard-links");
}
