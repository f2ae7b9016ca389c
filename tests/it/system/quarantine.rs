//! C3, C6: release and purge, killed before each system call that changes anything and failed at
//! each; and the store of another user, whom root serves.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use kms_sig::fs::Dir;
use kms_sig::sink::directory::quarantine::PartRecord;
use rustix::io::Errno;

use super::job::{Check, at_each, content, ensure};
use crate::support::daemon::Daemon;
use crate::support::mount::{self, Mount};
use crate::support::place::{PROGRAM, Place};
use crate::support::policy::{place, set_policy, with};
use crate::support::quarantine::{good_after_all, history, ids, long_ago, rule, run};
use crate::support::trace::{self, Fault, Point, Traced};

/// Points of one call at most.
const CAP: usize = 30;

/// Something that takes an item out of the store.
#[derive(Clone, Copy)]
struct Way {
    /// The command, on the item's id in place of `ID`.
    words: &'static [&'static str],
    /// A line of the policy by then.
    line: &'static str,
    /// What history says of it.
    outcome: &'static str,
    /// Whether the files are delivered.
    delivers: bool,
}

const RELEASE: Way =
    Way { words: &["quarantine", "release", "ID"], line: "", outcome: "released", delivers: true };

const PURGE: Way =
    Way { words: &["quarantine", "purge", "ID"], line: "", outcome: "purged", delivers: false };

/// The daemon's own purge.
const RETIRE: Way = Way {
    words: &["watch", "--once"],
    line: "quarantine_keep = \"1ms\"",
    outcome: "purged",
    delivers: false,
};

struct Site {
    place: Place,
    way: Way,
    id: String,
}

impl Way {
    /// A place with one item that is good after all.
    fn lay(self) -> Site {
        let place = place(&rule());
        let text = String::from_utf8(content().iter().map(|byte| byte % 26 + b'a').collect()).unwrap();
        let id = good_after_all(&place, &rule(), &text);
        set_policy(&place, &with(&rule(), self.line));
        Site { place, way: self, id }
    }

    /// The points of an undisturbed run, at most `CAP` of each call.
    fn points(self) -> Vec<Point> {
        let site = self.lay();
        let run = site.trace(None);
        assert_eq!(run.status.code(), Some(0), "{}", run.shown());
        site.done().unwrap_or_else(|wrong| panic!("{wrong}\n{}", run.shown()));
        let mut points: Vec<Point> = run.calls.iter().map(|(point, _)| *point).collect();
        // The end is where it matters: what comes before is the reading of policy, keyring and
        // state.
        points.reverse();
        let taken = |call: &str, before: &[Point]| before.iter().filter(|p| p.call == call).count();
        let mut kept: Vec<Point> = Vec::new();
        for point in points {
            if taken(point.call, &kept) < CAP {
                kept.push(point);
            }
        }
        kept
    }
}

impl Site {
    fn trace(&self, fault: Option<(Point, Fault)>) -> Traced {
        let mut command = Command::new(PROGRAM);
        command.args(self.way.words.iter().map(|word| if *word == "ID" { &self.id } else { *word }));
        command.args(["--policy", "policy.toml"]);
        trace::run(self.place.prepare(command), fault)
    }

    fn is_there(&self) -> bool {
        self.place.path(format!("q/{}", self.id)).exists()
    }

    /// What must hold at any moment.
    fn during(&self) -> Check {
        let read = |name: &str| fs::read(self.place.path(name)).ok();
        if self.is_there() {
            let names = crate::support::files::names(&self.place.path(format!("q/{}", self.id)));
            ensure!(names == ["payload", "payload.sig", "record.json"], "the item holds {names:?}");
        } else {
            ensure!(!history(&self.place, self.way.outcome).is_empty(), "it went, and nothing is on record");
        }
        let out = crate::support::files::names(&self.place.path("out"));
        if !self.way.delivers {
            ensure!(out.is_empty(), "in out: {out:?}");
            return Ok(());
        }
        ensure!(out.iter().all(|name| ["f", "f.sig"].contains(&name.as_str())), "in out: {out:?}");
        ensure!(self.is_there() || out.len() == 2, "it is nowhere: {out:?}");
        if read("out/f").is_some() {
            let verified = self.place.run(["verify", "out/f", "--key", "local:demo", "--context", "file=f"]);
            ensure!(verified.succeeds(), "what is delivered does not verify");
            let there = fs::metadata(self.place.path("out/f")).unwrap();
            ensure!(there.mode() & 0o7777 == 0o644, "out/f has mode {:o}", there.mode());
            ensure!(there.modified().unwrap() == long_ago(), "out/f has another time");
        }
        Ok(())
    }

    /// What must hold at the end.
    fn done(&self) -> Check {
        self.during()?;
        ensure!(!self.is_there(), "it is still there");
        let rows = history(&self.place, self.way.outcome);
        ensure!((1..=2).contains(&rows.len()), "{} rows", rows.len());
        Ok(())
    }

    /// Does it again, undisturbed, and has the leftovers swept.
    fn finish(&self) -> Check {
        if self.is_there() {
            let again = self.trace(None);
            ensure!(again.status.code() == Some(0), "the next run did not finish: {}", again.shown());
        }
        self.done()?;
        run(&self.place, &["purge", "--rule", "none", "--yes"]).exits(0);
        ensure!(ids(&self.place).is_empty(), "left over: {:?}", ids(&self.place));
        Ok(())
    }
}

fn kill_everywhere(way: Way) {
    at_each(&way.points(), 2, |point| {
        let site = way.lay();
        let run = site.trace(Some((point, Fault::Kill)));
        let told = |wrong| format!("killed before {} #{}: {wrong}\n{}", point.call, point.nth, run.shown());
        site.during().and_then(|()| site.finish()).map_err(told)
    });
}

fn fail_everywhere(way: Way) {
    let points = way.points();
    let faults: Vec<_> = points
        .iter()
        .flat_map(|point| [(*point, Fault::Once(Errno::IO)), (*point, Fault::Once(Errno::NOSPC))])
        .collect();
    at_each(&faults, 2, |(point, fault)| {
        let site = way.lay();
        let run = site.trace(Some((point, fault)));
        let told = |wrong| format!("{fault:?} {} #{}: {wrong}\n{}", point.call, point.nth, run.shown());
        let check = || {
            site.during()?;
            let code = run.status.code();
            ensure!(!run.hung && code.is_some(), "it crashed or hung");
            ensure!(code != Some(0) || !site.is_there(), "it says that it is done, and is not");
            site.finish()
        };
        check().map_err(told)
    });
}

#[test]
fn c3_p4_a_kill_while_releasing() {
    kill_everywhere(RELEASE);
}

#[test]
fn c3_p4_a_kill_while_purging() {
    kill_everywhere(PURGE);
}

#[test]
fn c3_p4_a_kill_while_the_daemon_purges() {
    kill_everywhere(RETIRE);
}

#[test]
fn c6_p4_a_failure_while_releasing() {
    fail_everywhere(RELEASE);
}

#[test]
fn c6_p4_a_failure_while_purging() {
    fail_everywhere(PURGE);
}

/// A reload is not the time to find out that nothing can be put into the store.
#[test]
fn o1_c18_a_reload_whose_store_cannot_be_written_to_is_refused() {
    mount::private();
    let place = place(&rule());
    fs::create_dir(place.path("other")).unwrap();
    let _disk = Mount::tmpfs(&place.path("other"), "size=1m,mode=0700,ro");
    let daemon = Daemon::start(&place);
    let policy = String::from_utf8(place.read("policy.toml")).unwrap();
    place.write("policy.toml", policy.replace("quarantine.dir = \"q\"", "quarantine.dir = \"other\""));
    daemon.hang_up();
    daemon.waits_for("reload refused; the old policy stays");
    place.write("in/f", "unsigned");
    daemon.waits_for("quarantined");
    assert_eq!(ids(&place).len(), 1);
}

/// The share is counted where the store is, across mounts too, and a copy that found no room leaves
/// nothing.
#[test]
fn o8_c9_a_full_share_across_mounts_copies_nothing() {
    mount::private();
    let rule = with(&rule(), "quarantine_max_size = \"48KiB\"");
    let place = place(&format!("limits.min_free_space = \"0B\"\n{rule}"));
    fs::create_dir(place.path("q")).unwrap();
    let _disk = Mount::tmpfs(&place.path("q"), "size=1m,mode=0700");
    let daemon = Daemon::start(&place);
    place.write("in/a", "12345678"); // 16 KiB, as its folder and its record
    daemon.waits_for("quarantined");
    place.write("in/b", "123");
    assert_eq!(daemon.waits_for("held")["cause"], "quarantine-full");
    assert_eq!(ids(&place).len(), 1);
    run(&place, &["purge", &ids(&place)[0]]).exits(0);
    daemon.waits_for_nth("quarantined", 2);
    assert!(!place.path("in/b").exists());
}

/// A signature of a gigabyte is neither read nor copied, and not lost either.
#[test]
fn a16_c9_what_is_longer_than_any_signature_is_not_copied_across_mounts() {
    mount::private();
    let place = place(&format!("limits.min_free_space = \"0B\"\n{}", rule()));
    fs::create_dir(place.path("q")).unwrap();
    let _disk = Mount::tmpfs(&place.path("q"), "size=1m,mode=0700");
    place.write("in/f", "content");
    fs::File::create(place.path("in/f.sig")).unwrap().set_len(1 << 30).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(20)); // until it is older than `grace`
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(1);
    let id = ids(&place).remove(0);
    assert_eq!(crate::support::files::names(&place.path(format!("q/{id}"))), ["payload", "record.json"]);
    let record = place.read(format!("q/{id}/record.json"));
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    assert_eq!((&record["reason"], &record["signature"]["size"]), (&"malformed".into(), &(1 << 30).into()));
    assert_eq!(fs::metadata(place.path("in/f.sig")).unwrap().len(), 1 << 30);
    assert!(!place.path("in/f").exists());
    let shown = String::from_utf8(run(&place, &["show", &id]).exits(0).stdout().to_vec()).unwrap();
    assert!(shown.contains("content: as it was judged\n"), "{shown}");
    assert!(
        shown.contains("signature: left where it was; with 1073741824 bytes it can be none\n"),
        "{shown}"
    );
}

/// Of two file systems, each has an inode of every number.
#[test]
fn c9_p4_a_copy_is_not_taken_for_its_source_because_their_inodes_have_one_number() {
    mount::private();
    let place = place(&format!("limits.min_free_space = \"0B\"\n{}", rule()));
    fs::create_dir(place.path("q")).unwrap();
    let _disks = ["q", "in"].map(|dir| Mount::tmpfs(&place.path(dir), "size=1m,mode=0700"));
    let quarantine = || {
        std::thread::sleep(std::time::Duration::from_millis(20)); // until it is older than `grace`
        place.run(["watch", "--policy", "policy.toml", "--once"]).exits(1);
        ids(&place)
    };
    place.write("in/f", "content");
    place.write("in/f.sig", "no signature");
    let id = quarantine().remove(0);

    // What a kill leaves before the signature is copied: the payload, and its source.
    fs::remove_file(place.path(format!("q/{id}/payload.sig"))).unwrap();
    place.write("in/f.sig", "no signature");
    let number = |file: &str| fs::metadata(place.path(file)).unwrap().ino();
    let copy = format!("q/{id}/payload");
    place.write("in/f", "content");
    for _ in 0..1000 {
        // Each new file gets the next number of its file system.
        let (new, to) = match number("in/f").cmp(&number(&copy)) {
            std::cmp::Ordering::Less => ("in/new", "in/f"),
            std::cmp::Ordering::Equal => break,
            std::cmp::Ordering::Greater => ("q/new", copy.as_str()),
        };
        place.write(new, "content");
        fs::rename(place.path(new), place.path(to)).unwrap();
    }
    assert_eq!(number("in/f"), number(&copy));
    let source = Dir::open(&place.path("in")).unwrap().stat_of("f".as_ref()).unwrap().unwrap();
    let path = format!("q/{id}/record.json");
    let mut record: serde_json::Value = serde_json::from_slice(&place.read(&path)).unwrap();
    record["payload"] = serde_json::to_value(PartRecord::from(&source)).unwrap();
    fs::write(place.path(&path), record.to_string()).unwrap();

    let left = quarantine();
    assert_eq!(left.len(), 1, "judged anew, and copied whole: {left:?}");
    assert_ne!(left[0], id);
    let parts = crate::support::files::names(&place.path(format!("q/{}", left[0])));
    assert_eq!(parts, ["payload", "payload.sig", "record.json"]);
    assert!(!place.path("in/f").exists() && !place.path("in/f.sig").exists());
}

#[test]
fn c5_c9_a_copy_into_quarantine_keeps_the_floor() {
    mount::private();
    let place = place(&format!("limits.min_free_space = \"12MiB\"\n{}", rule()));
    fs::create_dir(place.path("q")).unwrap();
    let disk = Mount::tmpfs(&place.path("q"), "size=8m,mode=0700");
    let daemon = Daemon::start(&place);
    place.write("in/f", "unsigned");
    assert_eq!(daemon.waits_for("held")["cause"], "no-space");
    assert!(ids(&place).is_empty());
    place.shell("mount -o remount,size=32m q").exits(0);
    daemon.waits_for("quarantined");
    drop(daemon);
    drop(disk);
}

// Users

/// As user 65534, to whom everything is given.
fn nobodys() -> (Place, String) {
    let place = place(&with(&rule(), "recursive = true"));
    fs::create_dir(place.path("in/sub")).unwrap();
    let (payload, signature) = crate::support::files::sign(&place, "f", "content");
    fs::rename(payload, place.path("in/sub/f")).unwrap();
    fs::rename(signature, place.path("in/sub/f.sig")).unwrap();
    set_policy(&place, &with(&with(&rule(), "recursive = true"), "context = { file = \"wrong\" }"));
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(1);
    set_policy(&place, &with(&rule(), "recursive = true"));
    place.shell("chown -R 65534:65534 . && chmod 755 .").exits(0);
    let id = ids(&place).remove(0);
    (place, id)
}

fn owner(place: &Place, name: &str) -> (u32, u32) {
    let there = fs::symlink_metadata(place.path(name)).unwrap();
    (there.uid(), there.gid())
}

#[test]
fn root_serves_the_daemons_user_and_leaves_nothing_of_its_own() {
    let (place, id) = nobodys();
    run(&place, &["recheck", "--all"]).exits(0);
    run(&place, &["release", &id]).exits(0).complains("");
    for name in ["out/sub", "out/sub/f", "out/sub/f.sig", "state/state.db"] {
        assert_eq!(owner(&place, name), (65534, 65534), "{name}");
    }
    for name in crate::support::files::names(&place.path("state")) {
        assert_eq!(owner(&place, &format!("state/{name}")).0, 65534, "{name}");
    }
    // The group of a set-gid destination stays, as it does for what the daemon delivers.
    let (place, id) = nobodys();
    place.shell("chgrp 4242 out && chmod 2755 out").exits(0);
    run(&place, &["release", &id]).exits(0);
    assert_eq!(owner(&place, "out/sub/f"), (65534, 4242));
}

#[test]
fn a_destination_that_cannot_be_written_to_is_told_as_that() {
    let (place, id) = nobodys();
    place.shell("chmod 555 out").exits(0);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", PROGRAM, "quarantine", "release", &id]);
    command.args(["--policy", "policy.toml"]);
    let output = place.prepare(command).output().unwrap();
    let (said, out) =
        (String::from_utf8(output.stderr).unwrap(), fs::canonicalize(place.path("out")).unwrap());
    let start = format!("kms-sig: {id}: not released: cannot ");
    assert!(said.starts_with(&start) && said.contains(&out.display().to_string()), "{said}");
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn users_other_than_the_daemons_and_root_are_told_so() {
    let (place, id) = nobodys();
    for words in [&["list"][..], &["purge", &id], &["release", &id]] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=4242", "--regid=4242", "--clear-groups", PROGRAM, "quarantine"]);
        command.args(words).args(["--policy", "policy.toml"]);
        let output = place.prepare(command).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let store = fs::canonicalize(place.path("q")).unwrap();
        assert_eq!(
            said,
            format!(
                "kms-sig: the quarantine \"{}\" belongs to user 65534\nhint: run this as that user, or as root\n",
                store.display()
            )
        );
        assert_eq!(output.status.code(), Some(2));
    }
    // The daemon's own user may.
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", PROGRAM, "quarantine", "purge", &id]);
    command.args(["--policy", "policy.toml"]);
    assert!(place.prepare(command).status().unwrap().success());
}

#[test]
fn p4_a_mount_over_an_item_is_told_and_what_it_hides_is_neither_released_nor_purged() {
    mount::private();
    let place = place(&rule());
    let id = good_after_all(&place, &rule(), "content");
    let mount = Mount::tmpfs(&place.path(format!("q/{id}")), "size=1m,mode=0700");
    for verb in ["show", "recheck", "release", "purge"] {
        let run = run(&place, &[verb, &id]);
        let complaint = run.stderr();
        assert!(complaint.contains("something is mounted there"), "{verb}: {complaint}");
        assert!(!run.succeeds(), "{verb}");
    }
    drop(mount);
    run(&place, &["release", &id]).exits(0);
    assert_eq!(place.read("out/f"), b"content");
}
