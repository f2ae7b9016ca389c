//! No file missed, none judged too early: lost events, lost state, forged times, writers that do
//! not let go.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use rustix::fs::FlockOperation;
use rustix::process::Signal;

use crate::support::daemon::Daemon;
use crate::support::files::{all_names, drop_pair, names, verifies};
use crate::support::place::Place;
use crate::support::policy::{SIGN, VERIFY, impatient, place, set_policy, with};
use crate::support::wait::PATIENCE;

/// More events than the kernel queues for one watcher (max_queued_events, 16,384 by default).
const FLOOD: usize = 20_000;

#[test]
fn w1_w2_w18_an_overflow_loses_nothing() {
    let place = place(&with(&with(SIGN, "recursive = true"), "include = [\"*.bin\"]"));
    let daemon = Daemon::start(&place);
    daemon.signal(Signal::STOP);
    fs::create_dir(place.path("in/noise")).unwrap();
    for i in 0..FLOOD {
        fs::File::create(place.path(format!("in/{i}"))).unwrap();
    }
    fs::create_dir_all(place.path("in/new/deep")).unwrap(); // its event is lost
    place.write("in/new/deep/early.bin", "content");
    daemon.signal(Signal::CONT);
    daemon.waits_for("events were lost; watching anew and scanning");
    daemon.waits_for("signed");
    // And it is watched from now on.
    place.write("in/new/deep/late.bin", "content");
    daemon.waits_for_nth("signed", 2);
    verifies(&place, "in/new/deep/late.bin", "file=late.bin");
}

/// More files than there are places in memory, each of which takes its place for the time of
/// `settle`: the scan waits where it is.
#[cfg(feature = "aws")] // without it nothing counts scans
#[test]
fn p10_more_files_than_there_are_places_are_listed_once() {
    use crate::support::metrics::{Page, ask};

    const FILES: usize = 30_000;
    let place = place(&with(SIGN, "settle = \"5s\""));
    for i in 0..FILES {
        std::os::unix::fs::symlink("nowhere", place.path(format!("in/{i}"))).unwrap(); // refused, which costs little
    }
    let daemon = Daemon::start(&place);
    let socket = place.path("state/control.sock");
    let connect = || std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let page = || Page::parse(&ask(connect(), "/metrics", "").body);
    let refused = [("rule", "sign"), ("outcome", "refused")];
    daemon.until("refused all", || page().value("kms_sig_files_total", &refused) == f64::from(FILES as u32));
    let scans = || page().value("kms_sig_scans_total", &[("rule", "sign")]);
    daemon.until("scanned", || scans() >= 1.0);
    assert_eq!((scans(), page().value("kms_sig_more_waiting", &[("rule", "sign")])), (1.0, 0.0));
    assert_eq!(daemon.stop().code(), Some(0));
}

/// What a process asks the kernel to tell it of files, for each directory that it watches
/// (proc_pid_fdinfo(5)).
fn inotify_masks(pid: u32) -> Vec<u32> {
    let mut masks = Vec::new();
    for fd in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        let info = fs::read_to_string(fd.unwrap().path()).unwrap_or_default(); // it may be closed by now
        for watch in info.lines().filter(|line| line.starts_with("inotify ")) {
            let mask = watch.split(' ').find_map(|word| word.strip_prefix("mask:")).unwrap();
            masks.push(u32::from_str_radix(mask, 16).unwrap());
        }
    }
    masks
}

#[test]
fn w12_our_own_reading_makes_no_events() {
    let place = place(&with(SIGN, "recursive = true"));
    fs::create_dir(place.path("in/below")).unwrap();
    let daemon = Daemon::start(&place);
    place.write("in/below/f", "content");
    daemon.waits_for("signed");
    // IN_ACCESS, IN_CLOSE_NOWRITE, IN_OPEN (inotify(7), linux/inotify.h): what reading a file or
    // listing a directory does.
    let of_reading = 0x01 | 0x10 | 0x20;
    let masks = inotify_masks(daemon.pid());
    assert!(masks.len() >= 2, "{masks:x?}");
    assert!(masks.iter().all(|mask| mask & of_reading == 0), "{masks:x?}");
}

#[test]
fn w14_files_linked_into_place_are_found() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    // link and unlink, as sftp-server renames; and a rename from elsewhere.
    place.write("up", "content");
    fs::hard_link(place.path("up"), place.path("in/linked")).unwrap();
    fs::remove_file(place.path("up")).unwrap();
    place.write("up2", "content");
    fs::rename(place.path("up2"), place.path("in/renamed")).unwrap();
    daemon.waits_for_nth("signed", 2);
    assert_eq!(names(&place.path("in")), ["linked", "linked.sig", "renamed", "renamed.sig"]);
}

#[test]
fn w15_files_that_go_again_are_no_trouble() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    for i in 0..2000 {
        place.write(format!("in/{i}"), "content");
        fs::remove_file(place.path(format!("in/{i}"))).unwrap();
    }
    place.write("in/stays", "content");
    daemon.waits_for("signed");
    for message in ["held", "held; will be tried again", "refused"] {
        assert_eq!(daemon.count(message), 0, "{message}");
    }
}

#[test]
fn s3_a_rewrite_with_forged_times_is_noticed_by_a_restart() {
    let place = place(&with(SIGN, "on_stale = \"resign\""));
    place.write("in/f", "content");
    let daemon = Daemon::start(&place);
    daemon.waits_for("signed");
    daemon.stop();
    let modified = fs::metadata(place.path("in/f")).unwrap().modified().unwrap();
    place.write("in/f", "CONTENT"); // the same size, in place: the same inode
    fs::File::options().write(true).open(place.path("in/f")).unwrap().set_modified(modified).unwrap();
    let daemon = Daemon::start(&place);
    daemon.waits_for("signed");
    verifies(&place, "in/f", "file=f");
}

#[test]
fn s9_times_from_the_future_delay_nothing() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    place.shell("echo content > f && touch -d 2099-01-01 f && mv f in/f").exits(0);
    daemon.waits_for("signed");
}

/// A program that keeps `in/f` mapped for writing until its input ends, and then stores its last
/// word there.
fn mapper(place: &Place) -> Child {
    let program = "
import mmap, sys
f = open('in/f', 'r+b')
m = mmap.mmap(f.fileno(), 0)
f.close()
print('mapped', flush=True)
sys.stdin.read()
m[:4] = b'last'
m.close()
";
    let mut command = Command::new("python3");
    command.args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir(place.path(""));
    let mut child = command.spawn().expect("python3 is needed: apt-get install python3");
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    assert_eq!(line, "mapped\n");
    child
}

#[test]
fn s5_s6_a_mapped_file_is_not_signed_before_the_mapping_is_gone() {
    let place = place(SIGN);
    place.write("in/f", "text of a file");
    let mut mapper = mapper(&place);
    let daemon = Daemon::start(&place);
    // Others are served meanwhile.
    place.write("in/g", "content");
    daemon.waits_for("signed");
    assert_eq!(names(&place.path("in")), ["f", "g", "g.sig"]);
    drop(mapper.stdin.take());
    mapper.wait().unwrap();
    daemon.waits_for_nth("signed", 2);
    assert_eq!(place.read("in/f"), b"last of a file");
    verifies(&place, "in/f", "file=f");
}

#[test]
fn s6_a_valid_pair_is_delivered_although_someone_has_it_mapped() {
    let place = place(VERIFY);
    drop_pair(&place, "f", "text of a file");
    let mut mapper = mapper(&place);
    let daemon = Daemon::start(&place);
    daemon.waits_for("delivered");
    drop(mapper.stdin.take());
    mapper.wait().unwrap();
    assert_eq!(place.read("out/f"), b"text of a file", "P3: the copy is ours");
}

#[test]
fn a6_what_was_delivered_cannot_be_changed_by_the_sender() {
    use std::io::{Seek as _, Write as _};
    let place = place(VERIFY);
    drop_pair(&place, "f", "content");
    let mut kept = fs::File::options().write(true).open(place.path("in/f")).unwrap();
    fs::hard_link(place.path("in/f.sig"), place.path("kept.sig")).unwrap();
    fs::remove_file(place.path("kept.sig")).unwrap();
    let daemon = Daemon::start(&place);
    daemon.waits_for("delivered");
    kept.rewind().unwrap();
    kept.write_all(b"forged!").unwrap();
    kept.sync_all().unwrap();
    assert_eq!(place.read("out/f"), b"content");
}

#[test]
fn c13_damaged_state_is_set_aside_and_begun_anew() {
    let place = place(SIGN);
    place.write("in/f", "content");
    let daemon = Daemon::start(&place);
    daemon.waits_for("signed");
    daemon.stop();
    let mut bytes = place.read("state/state.db");
    for byte in bytes.iter_mut().skip(100).step_by(7) {
        *byte ^= 0x5a;
    }
    place.write("state/state.db", bytes);
    for journal in ["state/state.db-wal", "state/state.db-shm"] {
        fs::remove_file(place.path(journal)).ok();
    }
    let daemon = Daemon::start(&place);
    daemon.until("set aside", || {
        names(&place.path("state")).iter().any(|n| n.starts_with("state.db.damaged-"))
    });
    // Nothing is accepted from it: the signature is verified and adopted.
    daemon.waits_for("a valid signature was there; adopted");
}

#[test]
fn o10_state_of_a_later_version_is_refused_untouched() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    daemon.stop();
    let db = rusqlite::Connection::open(place.path("state/state.db")).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let run = place.run(["watch", "--policy", "policy.toml", "--once"]).exits(3);
    assert!(run.stderr().contains("has version 99, which this program does not know"), "{}", run.stderr());
}

#[test]
fn state_is_for_the_daemon_alone() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    assert_eq!(fs::metadata(place.path("state")).unwrap().mode() & 0o777, 0o700);
    for name in names(&place.path("state")).iter().filter(|name| name.starts_with("state.db")) {
        assert_eq!(fs::metadata(place.path("state").join(name)).unwrap().mode() & 0o077, 0, "{name}");
    }
    drop(daemon);
    fs::set_permissions(place.path("state"), fs::Permissions::from_mode(0o777)).unwrap();
    place
        .run(["watch", "--policy", "policy.toml", "--once"])
        .exits(2)
        .complains_of("can be written by others");
}

#[test]
fn one_daemon_for_a_root_and_for_a_store() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    let policy = String::from_utf8(place.read("policy.toml")).unwrap();
    let policy = policy.replace("state.dir = \"state\"", "state.dir = \"state2\"");
    place.write("other.toml", &policy);
    let shared = place.run(["watch", "--policy", "other.toml", "--once"]).exits(3);
    drop(shared.complains_of("another kms-sig is using the quarantine"));
    place.write("other.toml", policy.replace("quarantine.dir = \"q\"", "quarantine.dir = \"q2\""));
    place.write("in/f", "content");
    let run = place.run(["watch", "--policy", "other.toml", "--once"]).exits(3);
    let said = String::from_utf8_lossy(run.stdout()).into_owned();
    let told = format!("another process (pid {}) is watching", daemon.pid());
    assert!(said.contains(&told), "{said}");
    daemon.waits_for("signed");
}

#[test]
fn o1_nobody_else_has_the_root_for_a_moment_while_the_policy_is_changed() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    let (dir, is_over) = (fs::File::open(place.path("in")).unwrap(), AtomicBool::new(false));
    let asks = || {
        let until = Instant::now() + PATIENCE;
        let is_refused = || rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_err();
        while is_refused() {
            if is_over.load(Ordering::Relaxed) || Instant::now() > until {
                return false;
            }
        }
        true
    };
    let had_it = thread::scope(|scope| {
        let other = scope.spawn(asks);
        for reload in 1..=5 {
            daemon.hang_up();
            daemon.waits_for_nth("policy reloaded", reload);
        }
        is_over.store(true, Ordering::Relaxed);
        other.join().unwrap()
    });
    assert!(!had_it);
    // A rule that is gone lets go of its directory.
    fs::create_dir(place.path("in2")).unwrap();
    set_policy(&place, &with(SIGN, "path = \"in2\""));
    daemon.hang_up();
    daemon.waits_for_nth("policy reloaded", 6);
    daemon.until("let go of the old directory", || {
        rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok()
    });
}

/// Up to 0.1.0 the lock was on a file in the folder, which was always there.
#[test]
fn what_an_earlier_version_left_is_finished_and_removed_unless_it_still_runs() {
    let place = place(VERIFY);
    fs::create_dir_all(place.path("in/.kms-sig/0123456789abcdef01234567")).unwrap();
    fs::set_permissions(place.path("in/.kms-sig"), fs::Permissions::from_mode(0o700)).unwrap();
    let inode = fs::metadata(place.path("in/.kms-sig")).unwrap().ino();
    place.write("in/.kms-sig/lock", format!("kms-sig private folder 1 {inode}\n"));
    fs::set_permissions(place.path("in/.kms-sig/lock"), fs::Permissions::from_mode(0o600)).unwrap();
    // Killed before it was decided: it goes back.
    drop_pair(&place, "f", "content");
    for name in ["f", "f.sig"] {
        let taken = place.path("in/.kms-sig/0123456789abcdef01234567").join(name);
        fs::rename(place.path("in").join(name), taken).unwrap();
    }
    let lock = fs::File::open(place.path("in/.kms-sig/lock")).unwrap();
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).unwrap();
    let watch = ["watch", "--policy", "policy.toml", "--once"];
    let run = place.run(watch).exits(3);
    let said = String::from_utf8_lossy(run.stdout()).into_owned();
    assert!(said.contains("another process, which /proc/locks does not tell, is watching"), "{said}");
    drop(lock);
    place.run(watch).exits(0);
    assert_eq!(
        (all_names(&place.path("in")).len(), names(&place.path("out"))),
        (0, vec!["f".into(), "f.sig".into()])
    );
}

#[test]
fn a_flood_in_one_rule_does_not_stop_another() {
    let other = with(&with(SIGN, "name = \"other\""), "path = \"other\"");
    let place = place(&format!("{SIGN}{other}"));
    fs::create_dir(place.path("other")).unwrap();
    for i in 0..3000 {
        place.write(format!("in/{i}"), "flood");
    }
    place.write("other/f", "content");
    let daemon = Daemon::start(&place);
    let turn = || daemon.events("signed").iter().position(|event| event["rule"] == "other");
    daemon.until("served", || turn().is_some());
    assert!(turn().unwrap() < 3000, "the other rule waited for the whole flood");
}

#[test]
fn an_orphan_signature_is_told_once_and_judged_when_its_file_comes() {
    let place = place(&impatient(VERIFY));
    let (payload, signature) = crate::support::files::sign(&place, "f", "content");
    fs::rename(signature, place.path("in/f.sig")).unwrap();
    let daemon = Daemon::start(&place);
    daemon.waits_for("refused");
    daemon.stop();
    set_policy(&place, VERIFY);
    let daemon = Daemon::start(&place);
    drop_pair(&place, "g", "content");
    daemon.waits_for("delivered");
    assert_eq!(daemon.count("refused"), 0);
    fs::rename(payload, place.path("in/f")).unwrap();
    daemon.until("delivered", || place.path("out/f").exists());
}

#[test]
fn a_second_stop_ends_at_once() {
    let place = place(SIGN);
    set_policy(&place, SIGN);
    fs::File::create(place.path("in/huge")).unwrap().set_len(4 << 30).unwrap(); // seconds of hashing
    let daemon = Daemon::start(&place);
    daemon.until("hashing", || {
        fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
            .unwrap()
            .any(|fd| fs::read_link(fd.unwrap().path()).is_ok_and(|to| to.ends_with("in/huge")))
    });
    daemon.signal(Signal::TERM);
    daemon.waits_for("stopping; files in hand are finished first");
    let status = daemon.stop();
    assert_eq!(status.code(), Some(3));
    assert!(!place.path("in/huge.sig").exists());
}
