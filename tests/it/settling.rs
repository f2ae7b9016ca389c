//! When a file counts as complete, and what becomes of a signature whose file changed or went:
//! quiet after the last writer, control files of downloaders, attributes set late, files renamed.

use std::fs;
use std::fs::{File, FileTimes, Permissions};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::support::control::{asked, status};
use crate::support::daemon::Daemon;
use crate::support::files::{names, sign, verifies};
use crate::support::place::Place;
use crate::support::policy::{SIGN, VERIFY, impatient, place, with};

/// What the status says of a cause of the only rule.
fn cause(place: &Place, name: &str) -> Option<Value> {
    let said = status(place);
    let causes = said["rules"][0]["causes"].as_array().unwrap_or_else(|| panic!("{said}")).clone();
    causes.into_iter().find(|cause| cause["cause"] == name)
}

fn exists(place: &Place, name: &str) -> bool {
    place.path(name).exists()
}

#[test]
fn quiet_counts_from_when_the_last_writer_was_gone() {
    let place = place(&with(SIGN, "settle = \"1s\""));
    let daemon = Daemon::start(&place);
    // At every tenth of a second between the looks that a change causes.
    let script = "for i in 0 1 2 3 4 5 6 7 8 9; do
        (exec 3>in/$i; echo x >&3; sleep 2.$i; date +%s%N >closed-$i; exec 3>&-) & done; wait";
    place.shell(script).exits(0);
    daemon.waits_for_nth("signed", 10);
    for i in 0..10 {
        let closed = String::from_utf8(place.read(format!("closed-{i}"))).unwrap();
        let closed = Duration::from_nanos(closed.trim().parse().unwrap());
        let signed = fs::metadata(place.path(format!("in/{i}.sig"))).unwrap().modified().unwrap();
        let after = signed.duration_since(SystemTime::UNIX_EPOCH).unwrap().saturating_sub(closed);
        // The kernel's clock for file times is some milliseconds behind.
        assert!(after >= Duration::from_millis(950), "{i}: {after:?} after the close");
    }
}

#[test]
fn once_takes_at_once_what_is_older_than_settle_by_its_ctime() {
    let place = place(&with(SIGN, "settle = \"6s\""));
    place.write("in/old", "content");
    std::thread::sleep(Duration::from_millis(6100)); // nobody can set a ctime
    let began = Instant::now();
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0).says("sign: 1 signed\n");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // A younger one waits for the rest.
    place.write("in/young", "content");
    let written = SystemTime::now();
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0).says("sign: 1 signed, 1 unchanged\n");
    let signed = fs::metadata(place.path("in/young.sig")).unwrap().modified().unwrap();
    assert!(signed.duration_since(written).unwrap() >= Duration::from_millis(5900));
}

#[test]
fn nothing_is_signed_while_a_control_file_lies_beside_it() {
    let place = place(SIGN);
    for (file, control) in [("a", "a.aria2"), ("b", "b.st"), ("c", "c.lftp-pget-status")] {
        place.write(format!("in/{control}"), "state");
        place.write(format!("in/{file}"), "of full size, and wrong");
    }
    // Too large to be one of axel's; of no file that is there; a directory.
    place.write("in/large.st", vec![0; (64 << 10) + 1]);
    place.write("in/large", "content");
    place.write("in/alone.st", "content");
    fs::create_dir(place.path("in/dir.aria2")).unwrap();
    place.write("in/dir", "content");
    let daemon = Daemon::start(&place);
    daemon.waits_for_nth("signed", 4);
    for file in ["alone.st", "dir", "large", "large.st"] {
        verifies(&place, &format!("in/{file}"), &format!("file={file}"));
    }
    daemon.until("shown", || cause(&place, "control-file").is_some_and(|of| of["files"] == 3));
    let backlog = asked(&place, "backlog --json");
    assert!(backlog.iter().all(|of| of["cause"] == "control-file"), "{backlog:?}");
    let waiting: Vec<_> = backlog.iter().map(|of| of["file"].as_str().unwrap()).collect();
    assert_eq!(waiting, ["a", "b", "c"]);
    let explained = |path: &str| {
        let run = place.run(["explain", path, "--policy", "policy.toml"]).exits(0);
        String::from_utf8_lossy(run.stdout()).into_owned()
    };
    assert!(explained("in/a").contains("waits until the control file of its downloader is gone"));
    assert!(explained("in/b.st").contains("it is the control file of \"b\""), "{}", explained("in/b.st"));
    for control in ["a.aria2", "b.st", "c.lftp-pget-status"] {
        fs::remove_file(place.path(format!("in/{control}"))).unwrap();
    }
    daemon.waits_for_nth("signed", 7);
    verifies(&place, "in/a", "file=a");
}

#[test]
fn which_files_are_control_files_is_for_the_policy_to_say() {
    let place = place(&with(
        &with(SIGN, "control_files = [\".state\", \".aria2\"]"),
        "include = [\"*\", \"*.aria2\"]",
    ));
    place.write("in/a.state", "state");
    place.write("in/a", "unfinished");
    // Not in the list; and included by its name, so that it is a payload.
    place.write("in/b.st", "content");
    place.write("in/b", "content");
    place.write("in/c.aria2", "content");
    place.write("in/c", "content");
    let daemon = Daemon::start(&place);
    daemon.waits_for_nth("signed", 4);
    daemon.until("shown", || cause(&place, "control-file").is_some());
    let signed: Vec<_> = names(&place.path("in")).into_iter().filter(|name| name.ends_with(".sig")).collect();
    assert_eq!(signed, ["b.sig", "b.st.sig", "c.aria2.sig", "c.sig"]);
}

#[test]
fn a_download_under_way_is_neither_missing_nor_a_mismatch_and_a_valid_pair_waits_for_nothing() {
    let place = place(&impatient(&with(VERIFY, "grace = \"10ms\"")));
    place.write("in/good.aria2", "state");
    for file in ["alone", "bad"] {
        place.write(format!("in/{file}.st"), "state"); // axel's, not known by its name alone
        place.write(format!("in/{file}.aria2"), "state");
    }
    place.write("in/alone", "half of");
    let (payload, signature) = sign(&place, "bad", "content");
    fs::rename(signature, place.path("in/bad.sig")).unwrap();
    fs::write(&payload, "half").unwrap();
    fs::rename(payload, place.path("in/bad")).unwrap();
    let daemon = Daemon::start(&place);
    // What comes later goes first.
    place.write("in/plain", "without a signature");
    daemon.waits_for("quarantined");
    let (payload, signature) = sign(&place, "good", "content");
    fs::rename(signature, place.path("in/good.sig")).unwrap();
    fs::rename(payload, place.path("in/good")).unwrap();
    daemon.waits_for("delivered");
    assert_eq!(names(&place.path("out")), ["good", "good.sig"]);
    daemon.until("shown", || cause(&place, "control-file").is_some_and(|of| of["files"] == 2));
    for name in ["alone", "alone.aria2", "alone.st", "bad", "bad.aria2", "bad.sig", "bad.st", "good.aria2"] {
        assert!(exists(&place, &format!("in/{name}")), "{name}");
    }
    assert_eq!(daemon.count("quarantined"), 1);
    for file in ["alone", "bad"] {
        fs::remove_file(place.path(format!("in/{file}.st"))).unwrap();
        fs::remove_file(place.path(format!("in/{file}.aria2"))).unwrap();
    }
    daemon.waits_for_nth("quarantined", 3);
}

#[test]
fn a_file_that_grew_after_it_was_signed_is_seen_in_the_status() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    place.write("in/f", "first part");
    daemon.waits_for("signed");
    place.write("in/f", "first part, and the rest");
    daemon.waits_for("refused");
    daemon.until("counted", || status(&place)["rules"][0]["refused"]["stale-signature"] == 1);
    assert_eq!(asked(&place, "backlog --json --cause stale-signature").len(), 1);
    place.run(["status", "--policy", "policy.toml"]).exits(3);
    fs::remove_file(place.path("in/f.sig")).unwrap();
    daemon.waits_for_nth("signed", 2);
    daemon.until("well", || status(&place)["concerns"] == Value::Array(Vec::new()));
}

#[test]
fn attributes_that_are_set_late_leave_a_signature_as_it_is() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    place.write("in/f", "content");
    daemon.waits_for("signed");
    let signature = place.read("in/f.sig");
    let file = File::options().write(true).open(place.path("in/f")).unwrap();
    file.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH)).unwrap();
    fs::set_permissions(place.path("in/f"), Permissions::from_mode(0o640)).unwrap();
    drop(file);
    // It is looked at again, and what is known of it is about the present version.
    let known = || {
        let run = place.run(["explain", "in/f", "--policy", "policy.toml", "--json"]).exits(0);
        let said: Value = serde_json::from_slice(run.stdout()).unwrap();
        said["applies"]["remembered"]["of_this"] == true
    };
    daemon.until("known", known);
    assert_eq!(place.read("in/f.sig"), signature);
    for (message, times) in [("signed", 1), ("refused", 0)] {
        assert_eq!(daemon.count(message), times, "{message}");
    }
}

#[test]
fn attributes_that_are_set_while_kms_is_asked_cost_no_second_call() {
    let place = place(&with(SIGN, "batch = { window = \"2s\", max_files = 9 }"));
    let daemon = Daemon::start(&place);
    for file in ["f", "g", "h"] {
        place.write(format!("in/{file}"), "content");
    }
    // All are hashed and wait for their batch.
    daemon.until("hashed", || status(&place)["rules"][0]["hashed_bytes"] == 3 * "content".len());
    fs::set_permissions(place.path("in/f"), Permissions::from_mode(0o640)).unwrap();
    fs::remove_file(place.path("in/h")).unwrap();
    // Content is another matter, whatever the times say.
    let file = File::options().write(true).open(place.path("in/g")).unwrap();
    let before = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"CONTENT", 0).unwrap();
    file.set_modified(before).unwrap();
    drop(file);
    daemon.waits_for_nth("signed", 2);
    for (file, size) in [("f", "\nsize 3\n"), ("g", "\nsize 1\n")] {
        verifies(&place, &format!("in/{file}"), &format!("file={file}"));
        // How many were signed by the call: by the first one only f is.
        let signature = place.read(format!("in/{file}.sig"));
        assert!(String::from_utf8_lossy(&signature).contains(size), "{file}");
    }
}

#[test]
fn attributes_that_are_set_while_it_is_delivered_have_nothing_delivered_twice() {
    let rule = with(SIGN, "batch = { window = \"2s\", max_files = 9 }");
    let place = place(&with(&rule, "deliver_to = \"out\""));
    let daemon = Daemon::start(&place);
    place.write("in/f", "content");
    daemon.until("hashed", || status(&place)["rules"][0]["hashed_bytes"] == "content".len());
    fs::set_permissions(place.path("in/f"), Permissions::from_mode(0o640)).unwrap();
    daemon.until("removed", || !exists(&place, "in/f"));
    assert_eq!(names(&place.path("out")), ["f", "f.sig"]);
    assert_eq!(daemon.count("signed and delivered"), 1);
}

/// Makes the record of a stopped daemon older than the wait.
fn long_ago(place: &Place) {
    let db = rusqlite::Connection::open(place.path("state/state.db")).unwrap();
    db.execute("UPDATE history SET at = strftime('%Y-%m-%dT%H:%M:%fZ', 'now', '-1 hour')", []).unwrap();
}

#[test]
fn a37_a_signature_whose_file_was_away_for_a_moment_stays_although_it_has_a_twin() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    // As `aws s3 cp` leaves it when it is slow: no pattern tells this name.
    place.write("in/F.1a2B3c4D", "content");
    place.write("in/deleted", "other content");
    place.write("in/exchanged", "third content");
    daemon.waits_for_nth("signed", 3);
    // By a copy: what a rename parts has a minute to come together again.
    for (file, name) in [("F.1a2B3c4D", "F"), ("exchanged", "again")] {
        fs::copy(place.path(format!("in/{file}")), place.path(format!("in/{name}"))).unwrap();
        fs::remove_file(place.path(format!("in/{file}"))).unwrap();
    }
    fs::remove_file(place.path("in/deleted")).unwrap();
    let theirs = "somebody else's by now";
    place.write("in/exchanged.sig", theirs);
    daemon.waits_for_nth("signed", 5);
    place.run(["rescan", "--policy", "policy.toml"]).exits(0);
    // Not yet: people move pairs one file at a time.
    daemon.until("counted", || cause(&place, "orphan-of-ours").is_some_and(|of| of["files"] == 3));
    assert!(exists(&place, "in/F.1a2B3c4D.sig"));
    daemon.stop();

    long_ago(&place);
    let daemon = Daemon::start(&place);
    // Nor when its content has been signed elsewhere for an hour: for how long it has been alone is
    // what counts, and the daemon has only just seen that.
    daemon.until("counted", || cause(&place, "orphan-of-ours").is_some_and(|of| of["files"] == 3));
    for _ in 0..2 {
        place.run(["rescan", "--policy", "policy.toml"]).exits(0);
    }
    let left = ["F", "F.1a2B3c4D.sig", "F.sig", "again", "again.sig", "deleted.sig", "exchanged.sig"];
    assert_eq!(names(&place.path("in")), left);
    assert_eq!(place.read("in/exchanged.sig"), theirs.as_bytes());
    fs::copy(place.path("in/F"), place.path("in/F.1a2B3c4D")).unwrap();
    verifies(&place, "in/F.1a2B3c4D", "file=F.1a2B3c4D");
}

#[test]
fn once_leaves_what_somebody_works_on_after_settle() {
    let place = place(SIGN);
    place.write("in/a", "half");
    place.write("in/a.aria2", "");
    place.write("in/b", "half");
    let writer = fs::OpenOptions::new().append(true).open(place.path("in/b")).unwrap();
    std::thread::sleep(Duration::from_millis(200)); // older than settle
    for words in [&["--once"][..], &["--once", "--dry-run"]] {
        let begun = Instant::now();
        let run = place.run([&["watch", "--policy", "policy.toml"], words].concat()).exits(3);
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        let says = String::from_utf8_lossy(run.stdout()).into_owned();
        assert!(says.contains("a: left: unfinished: a control file"), "{says}");
        assert!(says.contains("b: left: somebody still has it open for writing"), "{says}");
    }
    drop(writer);
}

/// A refusal needs no quiet writer, and does not depend on which of two timers is the first.
#[test]
fn once_refuses_a_signature_that_is_too_large_whoever_writes_the_payload() {
    let place = place(&with(&with(VERIFY, "settle = \"1ms\""), "max_size = \"1KiB\""));
    let names: Vec<String> = (0..40).map(|n| format!("f{n:02}")).collect();
    let writers = names.iter().map(|name| {
        place.write(format!("in/{name}.sig"), vec![1; 1 << 20]);
        fs::File::create(place.path(format!("in/{name}"))).unwrap()
    });
    let writers: Vec<_> = writers.collect();
    std::thread::sleep(Duration::from_millis(50)); // older than settle
    let run = place.run(["watch", "--policy", "policy.toml", "--once"]);
    let says = String::from_utf8_lossy(run.stdout()).into_owned();
    for name in names {
        assert!(says.contains(&format!("{name}: refused: its .sig has")), "{name}: {says}");
    }
    drop(writers);
}
