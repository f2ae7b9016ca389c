//! What a sender does at any moment of one step: at every system call of it that touches the
//! watched directory, he moves a directory away, puts files of his own where a signature is being
//! replaced, or moves the daemon's own folder, while the daemon stands still before the call.
//! Without a race there is nothing to be lucky about.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::job::{
    Check, DELIVER, DELIVER_BELOW, Job, QUARANTINE_BELOW, QUARANTINE_BELOW_APART, RESIGN, SIGN_BELOW, Site,
    all_below, at_each, content, ensure,
};
use crate::support::mount;
use crate::support::place::Place;
use crate::support::policy::{SIGN, with};
use crate::support::site::{self, Leases, files_below};
use crate::support::trace::{Fault, Point};
use crate::support::user::{self, SENDER};

/// The points of an undisturbed run at which something may be done in the watched directory, in
/// their order.
fn points_in(job: Job) -> Vec<Point> {
    let site = job.lay(None);
    let run = site.trace(None);
    assert_eq!(run.status.code(), Some(job.exit), "{}", run.shown());
    let root = site.place.path("w/in").display().to_string();
    let calls = run.calls.into_iter().filter(|(_, on)| {
        // What is opened or linked by a path has no directory to be told by.
        on.is_empty() || on.starts_with(&root)
    });
    calls.map(|(point, _)| point).collect()
}

/// The files of a directory, by name.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = fs::read_dir(dir) else { return BTreeMap::new() };
    let read =
        |entry: fs::DirEntry| Some((entry.file_name().into_string().unwrap(), fs::read(entry.path()).ok()?));
    entries.filter_map(|entry| read(entry.unwrap())).collect()
}

/// All that lies in a place, whatever its name.
fn contents(place: &Place) -> Vec<Vec<u8>> {
    files_below(&place.path("w")).iter().filter_map(|path| fs::read(path).ok()).collect()
}

// P9

/// Moves the directory away while the daemon stands before a call. At the end it holds what it held
/// then, or what it held at the beginning: nothing came into it after it was moved, nothing was
/// taken out, nothing exchanged.
fn moved_at(job: Job, point: Point, has_another: bool) -> Check {
    let site = job.lay(None);
    fs::create_dir(site.place.path("w/outside")).unwrap();
    let (sub, away) = (site.place.path("w/in/sub"), site.place.path("w/outside/sub"));
    let (before, then) = (files(&sub), RefCell::new(None));
    let act = || {
        fs::rename(&sub, &away).unwrap();
        if has_another {
            fs::create_dir(&sub).unwrap();
        }
        *then.borrow_mut() = Some(files(&away));
    };
    let run = site.trace_beside(None, &[(point, &act)]);
    let told =
        |wrong: String| format!("moved before {} #{}: {wrong}\n{}", point.call, point.nth, run.shown());
    let check = || {
        ensure!(!run.hung && !run.stderr.contains("panicked"), "it hung or panicked");
        let Some(then) = then.borrow().clone() else { return Ok(()) }; // this run had no such point
        let now = files(&away);
        let names: Vec<_> = now.keys().collect();
        ensure!(now == then || now == before, "outside there is {names:?}, there was {:?}", then.keys());
        ensure!(contents(&site.place).contains(&before["f"]), "the payload is lost");
        Ok(())
    };
    check().map_err(told)
}

fn moved_everywhere(job: Job) {
    mount::private();
    let points = points_in(job);
    at_each(&points, 2, |point| {
        moved_at(job, point, false)?;
        if point.nth % 3 == 0 { moved_at(job, point, true) } else { Ok(()) }
    });
}

#[test]
fn p9_a_directory_that_is_moved_away_while_a_file_in_it_is_signed() {
    moved_everywhere(SIGN_BELOW);
}

#[test]
fn p9_a_directory_that_is_moved_away_while_a_file_in_it_is_signed_again() {
    moved_everywhere(RESIGN);
}

#[test]
fn p9_a_directory_that_is_moved_away_while_a_pair_in_it_is_delivered() {
    moved_everywhere(DELIVER_BELOW);
}

#[test]
fn p9_a_directory_that_is_moved_away_while_a_pair_in_it_is_quarantined() {
    moved_everywhere(QUARANTINE_BELOW);
}

#[test]
fn p9_a_directory_that_is_moved_away_while_a_pair_in_it_is_quarantined_across_mounts() {
    moved_everywhere(QUARANTINE_BELOW_APART);
}

// P8, P4

/// Puts a file of the sender's at the name of the signature; what was there he keeps under another
/// name, so that nothing is lost by him.
fn put_there(place: &Place, what: &str) {
    let (there, kept) = (place.path("w/in/sub/f.sig"), place.path(format!("w/in/sub/.kept-{what}")));
    match rustix::fs::rename(&there, &kept) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => panic!("{e}"),
    }
    let new = place.path(format!("w/in/sub/.{what}"));
    fs::write(&new, what).unwrap();
    rustix::fs::renameat_with(CWD, &new, CWD, &there, RenameFlags::NOREPLACE).unwrap();
}

/// Whether everything of the sender's is somewhere that he finds: in the directory, or, where
/// something of his own has its name, in the private folder.
fn has_all(site: &Site, theirs: &[&str], is_name_free: bool) -> Check {
    let root = site.place.path("w/in");
    for what in theirs {
        let found: Vec<PathBuf> = files_below(&root)
            .into_iter()
            .filter(|path| fs::read(path).is_ok_and(|there| there == what.as_bytes()))
            .collect();
        ensure!(!found.is_empty(), "{what} is lost");
        let is_hidden = |path: &PathBuf| path.to_string_lossy().contains("/.kms-sig");
        ensure!(!is_name_free || !found.iter().all(is_hidden), "{what} is hidden: {found:?}");
    }
    Ok(())
}

/// X takes the signature's place before one call, Y before a later one.
#[test]
fn p8_whatever_a_sender_puts_in_place_of_a_signature_that_is_replaced_is_kept() {
    mount::private();
    let points = points_in(RESIGN);
    let swaps: Vec<_> = points.iter().filter(|point| ["linkat", "renameat2"].contains(&point.call)).collect();
    assert!(swaps.len() >= 2, "{points:?}");
    // When X was exchanged there are more calls: the way back.
    let later = [1, 2, 3, 4].map(|nth| Point { call: "renameat2", nth });
    let mut pairs = Vec::new();
    for first in &points {
        pairs.push((*first, None));
        for second in later.iter().chain(points.iter().filter(|p| p.call == "unlinkat")) {
            let is_swap = swaps.contains(&first);
            if is_swap && second != first {
                pairs.push((*first, Some(*second)));
            }
        }
    }
    at_each(&pairs, 2, |(first, second)| {
        let site = RESIGN.lay(None);
        let put = RefCell::new(Vec::new());
        let x = || {
            put_there(&site.place, "X of the sender");
            put.borrow_mut().push("X of the sender");
        };
        let y = || {
            put_there(&site.place, "Y of the sender");
            put.borrow_mut().push("Y of the sender");
        };
        let mut acts: Vec<(Point, &dyn Fn())> = vec![(first, &x)];
        acts.extend(second.map(|point| (point, &y as &dyn Fn())));
        let run = site.trace_beside(None, &acts);
        let check = || {
            has_all(&site, &put.borrow(), false)?;
            let again = site.trace(None);
            ensure!(!again.hung, "it hung");
            has_all(&site, &put.borrow(), put.borrow().len() < 2)
        };
        check().map_err(|wrong| format!("X at {first:?}, Y at {second:?}: {wrong}\n{}", run.shown()))
    });
}

/// X takes the signature's place before the exchange, and the daemon is killed at any call after
/// that, or names can no longer be changed, as if the directory had become read-only.
#[test]
fn p4_p8_what_a_kill_left_of_the_senders_is_given_back_by_the_next_start() {
    mount::private();
    let points = points_in(RESIGN);
    let exchange = *points.iter().find(|point| point.call == "renameat2").unwrap();
    let mut kills: Vec<Point> = points.iter().copied().filter(|point| *point != exchange).collect();
    kills.extend((2..=4).map(|nth| Point { call: "renameat2", nth }));
    kills.extend((1..=8).map(|nth| Point { call: "unlinkat", nth }));
    let mut faults: Vec<_> = kills.into_iter().map(|kill| (kill, Fault::Kill)).collect();
    for errno in [Errno::ACCESS, Errno::IO] {
        for call in ["renameat2", "unlinkat", "openat2", "fsync"] {
            let first = if call == "renameat2" { 2 } else { 1 };
            for nth in first..first + 3 {
                let point = Point { call, nth };
                faults.extend([(point, Fault::Once(errno)), (point, Fault::Always(errno))]);
            }
        }
    }
    at_each(&faults, 4, |(kill, fault)| {
        let site = RESIGN.lay(None);
        let x = || put_there(&site.place, "X of the sender");
        let was_put = AtomicBool::new(false);
        let act = || {
            x();
            was_put.store(true, Ordering::Relaxed);
        };
        let run = site.trace_beside(Some((kill, fault)), &[(exchange, &act)]);
        if !was_put.load(Ordering::Relaxed) {
            return Ok(()); // killed before
        }
        let again = site.trace(None);
        let check = || {
            ensure!(!again.hung, "it hung");
            has_all(&site, &["X of the sender"], true)?;
            ensure!(site.place.read("w/in/sub/f.sig") == b"X of the sender", "it is not at its name");
            let left = all_below(&site.place.path("w/in"));
            let ours: Vec<_> = left.iter().filter(|name| name.contains(".kms-sig")).collect();
            ensure!(ours.is_empty(), "left over: {ours:?}");
            Ok(())
        };
        check().map_err(|wrong| {
            format!("{fault:?} at {kill:?}: {wrong}\n{}\nthen\n{}", run.shown(), again.shown())
        })
    });
}

#[test]
fn p4_p8_what_cannot_go_back_for_want_of_rights_waits_is_told_and_goes_back() {
    let site = site::Site::new(&with(&with(SIGN, "settle = \"1ms\""), "on_stale = \"resign\""));
    let signed = |daemon: &crate::support::daemon::Daemon, n: usize| daemon.waits_for_nth("signed", n);
    let daemon = site.start(Leases::Granted);
    SENDER.run(|| site::write(&site.path("in/f"), b"first"));
    signed(&daemon, 1);
    assert_eq!(daemon.stop().code(), Some(0));
    // As a kill between the exchanges leaves it: X is in the folder, and a new signature at its
    // name.
    let digest = |bytes: &[u8]| kms_sig::digest::Digest::of(bytes).to_string()[..64].to_owned();
    let ours = fs::read(site.path("in/f.sig")).unwrap();
    let folder = site.path(format!("in/.kms-sig/0123456789abcdef01234567.{}.swap", digest(&ours)));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("f.sig"), "X of the sender").unwrap();
    for path in [site.path("in/.kms-sig"), folder.clone(), folder.join("f.sig")] {
        std::os::unix::fs::chown(path, Some(user::DAEMON.id), Some(user::DAEMON.id)).unwrap();
    }
    fs::set_permissions(site.path("in/.kms-sig"), Permissions::from_mode(0o700)).unwrap();
    // Another of the sender's has the name.
    fs::rename(site.path("in/f.sig"), site.path("in/.kept")).unwrap();
    SENDER.run(|| site::write(&site.path("in/f.sig"), b"Y of the sender"));
    let daemon = site.start(Leases::Granted);
    daemon.waits_for("files wait in .kms-sig until they can go back to their names");
    let backlog = site.place.run(["backlog", "--policy", "policy.toml"]);
    let said = String::from_utf8_lossy(backlog.stdout()).into_owned();
    assert!(said.contains("f.sig") && said.contains("name-taken"), "{said}{}", backlog.stderr());
    // The file first: it would be signed again as soon as the name is free.
    for (from, to) in [("in/f", "in/.f"), ("in/f.sig", "in/.y")] {
        SENDER.run(|| fs::rename(site.path(from), site.path(to)).unwrap());
    }
    daemon.hang_up();
    daemon.until("gave it back", || {
        fs::read(site.path("in/f.sig")).is_ok_and(|there| there == b"X of the sender")
    });
    daemon.until("took its folder away", || !site.path("in/.kms-sig").exists());
}

#[test]
fn p4_p8_what_an_earlier_version_left_goes_away_if_it_is_ours_and_is_found_if_it_is_the_senders() {
    let site = site::Site::new(&with(SIGN, "settle = \"1ms\""));
    let daemon = site.start(Leases::Granted);
    SENDER.run(|| site::write(&site.path("in/f"), b"content"));
    daemon.waits_for("signed");
    assert_eq!(daemon.stop().code(), Some(0));
    let stand_in = |digit: &str| site.path(format!("in/.kms-sig-{}", digit.repeat(24)));
    fs::copy(site.path("in/f.sig"), stand_in("1")).unwrap();
    fs::write(stand_in("2"), "X of a sender who is the same user").unwrap();
    for ours in [stand_in("1"), stand_in("2")] {
        std::os::unix::fs::chown(ours, Some(user::DAEMON.id), Some(user::DAEMON.id)).unwrap();
    }
    SENDER.run(|| site::write(&stand_in("3"), b"X of the sender"));
    let daemon = site.start(Leases::Granted);
    for (digit, content) in [("2", "X of a sender who is the same user"), ("3", "X of the sender")] {
        let visible = site.path(format!("in/kms-sig-recovered-{}", digit.repeat(24)));
        let signature = format!("{}.sig", visible.display());
        daemon.until("showed it", || Path::new(&signature).exists());
        assert_eq!(fs::read_to_string(&visible).unwrap(), content);
    }
    assert!(["1", "2", "3"].iter().all(|digit| !stand_in(digit).exists()));
    daemon.until("left three files and as many signatures", || {
        fs::read_dir(site.path("in")).unwrap().count() == 6
    });
}

// P6

/// The daemon is killed at any call of a delivery, and its folder is moved before the next start,
/// or a copy made of it.
fn folder_moves_to(to: &str, is_copied: bool) {
    mount::private();
    let points = DELIVER_BELOW.points(12);
    at_each(&points, 2, |point| {
        let site = DELIVER_BELOW.lay(None);
        let run = site.trace(Some((point, Fault::Kill)));
        let (own, to) = (site.place.path("w/in/.kms-sig"), site.place.path("w/in").join(to));
        if !own.join("lock").exists() {
            return Ok(());
        }
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        if is_copied {
            mount::run(std::process::Command::new("cp").arg("-a").args([&own, &to]));
        } else {
            fs::rename(&own, &to).unwrap();
        }
        let again = site.trace(None);
        let check = || {
            ensure!(again.status.code() == Some(0), "the next run did not finish");
            ensure!(all_below(&site.place.path("w/q")).is_empty(), "something is in quarantine");
            ensure!(site.place.read("w/out/sub/f") == content(), "not delivered");
            ensure!(!site.place.path("w/in/sub/f").exists(), "left in place");
            ensure!(is_copied || !to.exists(), "its folder is still there");
            Ok(())
        };
        check().map_err(|wrong| {
            format!("killed at {point:?}: {wrong}\n{}\nthen\n{}", run.shown(), again.shown())
        })
    });
}

#[test]
fn p6_a_folder_of_ours_that_was_moved_is_none_of_the_senders_and_what_is_in_it_is_finished() {
    folder_moves_to("visible", false);
}

#[test]
fn p6_a_folder_of_ours_that_was_moved_further_down() {
    folder_moves_to("deep/er/visible", false);
}

#[test]
fn p6_a_copy_of_a_folder_of_ours_is_no_candidate_and_nothing_in_it_is_finished() {
    folder_moves_to("copy", true);
}

#[test]
fn p6_a_folder_of_ours_that_is_moved_while_the_daemon_runs_is_not_judged() {
    let site = site::Site::new(&with(&site::quick(), "recursive = true"));
    SENDER.run(|| {
        fs::create_dir(site.path("in/sub")).unwrap();
        fs::set_permissions(site.path("in/sub"), Permissions::from_mode(0o2770)).unwrap();
    });
    let daemon = site.start(Leases::Granted);
    for (number, to) in ["visible", "sub/x"].into_iter().enumerate() {
        let name = format!("f{number}");
        let signature = site.sign(name.as_ref(), b"content");
        // Into another directory only its owner can move it: a sender who is the same user.
        [SENDER, user::DAEMON][number].run(|| {
            site::write(&site.path("in").join(&name), b"content");
            site::write(&site.path(format!("in/{name}.sig")), &signature);
            // It stays for a second after the last work in it.
            let to = site.path("in").join(to);
            daemon.until("worked in its folder", || fs::rename(site.path("in/.kms-sig"), &to).is_ok());
        });
        daemon.waits_for_nth("delivered", number + 1);
        daemon.until("let go of it", || {
            daemon.hang_up();
            std::thread::sleep(Duration::from_millis(200)); // the time of a scan
            !site.path("in").join(to).exists()
        });
    }
    assert!(daemon.count("a folder of the daemon's own was found there; what lay in it is finished") >= 2);
    daemon.until("left nothing there", || files_below(&site.path("in")).is_empty());
    assert_eq!(daemon.stop().code(), Some(0));
    assert_eq!(fs::read_dir(site.path("q")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(site.path("in")).unwrap().count(), 1, "the sender's directory");
}

#[test]
fn p6_a_delivery_goes_on_when_its_folder_is_moved_at_any_call() {
    mount::private();
    let points = points_in(DELIVER);
    at_each(&points, 2, |point| {
        let site = DELIVER.lay(None);
        let act = || {
            let own = site.place.path("w/in/.kms-sig");
            if own.exists() {
                fs::rename(own, site.place.path("w/in/visible")).unwrap();
            }
        };
        let run = site.trace_beside(None, &[(point, &act)]);
        let check = || {
            ensure!(!run.hung && !run.stderr.contains("panicked"), "it hung or panicked");
            ensure!(contents(&site.place).contains(&content()), "the payload is lost");
            let again = site.trace(None);
            ensure!(again.status.code() == Some(0), "the next run did not finish: {}", again.shown());
            ensure!(site.place.read("w/out/f") == content(), "not delivered: {}", again.shown());
            ensure!(!site.place.path("w/in/f").exists(), "left in place: {}", again.shown());
            // One that was moved before anything came into it is a folder like any other.
            let left = all_below(&site.place.path("w/in"));
            let left: Vec<_> = left.iter().filter(|name| name.starts_with("visible")).collect();
            ensure!(left.is_empty(), "{left:?} are still there: {}", again.shown());
            Ok(())
        };
        check().map_err(|wrong| format!("moved at {point:?}: {wrong}\n{}", run.shown()))
    });
}

// P8, for as long as one likes

/// How long the loop runs: `KMS_SIG_LOOP_SECONDS=600` for the ten minutes of a release.
fn loop_time() -> Duration {
    let seconds = std::env::var("KMS_SIG_LOOP_SECONDS").map_or(20, |seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds)
}

fn of_the_sender(number: usize) -> String {
    format!("file {number} of the sender")
}

/// Finds a file of the sender's by what it holds, whatever its name.
fn account(path: &Path, found: &mut [bool]) {
    let content = fs::read(path).unwrap();
    let text = std::str::from_utf8(&content).unwrap_or_default();
    let number = text.strip_prefix("file ").and_then(|text| text.strip_suffix(" of the sender"));
    if let Some(seen) = number.and_then(|number| found.get_mut(number.parse::<usize>().unwrap())) {
        *seen = true;
    }
}

/// A sender changes payloads, so that they are signed again, and all the while exchanges their
/// signatures with files of his own, each of them with content that no other has. In the end every
/// one of them is somewhere that he finds.
#[test]
fn p8_exchanging_in_a_loop_loses_no_file_of_the_senders() {
    const PAYLOADS: usize = 8;
    let rule = with(&with(SIGN, "settle = \"1ms\""), "on_stale = \"resign\"");
    let site = site::Site::new(&with(&rule, "recursive = true"));
    let daemon = site.start(Leases::Granted);
    let until = Instant::now() + loop_time();
    let sub = site.path("in/sub");
    let (mut found, exchanged, rounds) = SENDER.run(|| {
        fs::create_dir(&sub).unwrap();
        fs::set_permissions(&sub, std::os::unix::fs::PermissionsExt::from_mode(0o2770)).unwrap();
        let (mut found, mut exchanged, mut rounds) = (Vec::new(), 0, 0_usize);
        let hidden = |number: usize| sub.join(format!(".mine-{number}"));
        let mut number = 0;
        while Instant::now() < until {
            rounds += 1;
            let payload = sub.join(format!("f{}", rounds % PAYLOADS));
            let signature = payload.with_extension("sig");
            for turn in 0..200 {
                if turn % 25 == 0 {
                    site::write(&payload, format!("payload {rounds} {turn}").as_bytes());
                }
                std::thread::sleep(Duration::from_micros((turn * 7919 + rounds as u64 * 31) % 400));
                let mine = hidden(number);
                fs::write(&mine, of_the_sender(number)).unwrap();
                found.resize(number + 1, false);
                match rustix::fs::renameat_with(CWD, &mine, CWD, &signature, RenameFlags::EXCHANGE) {
                    Err(Errno::NOENT) => continue,
                    done => done.unwrap(),
                }
                // What came out may be a signature, or an earlier one of his own: he keeps it under
                // this name. And back again, so that a signature of the daemon's is there to be
                // replaced.
                (number, exchanged) = (number + 1, exchanged + 1);
                std::thread::sleep(Duration::from_micros((turn * 31 + rounds as u64 * 7919) % 300));
                match rustix::fs::renameat_with(CWD, &mine, CWD, &signature, RenameFlags::EXCHANGE) {
                    Err(Errno::NOENT) => {}
                    done => done.unwrap(),
                }
            }
            // What has the signature's name goes aside, so that it is signed anew.
            number += 1;
            match rustix::fs::renameat_with(CWD, &signature, CWD, hidden(number), RenameFlags::NOREPLACE) {
                Err(Errno::NOENT) => {}
                done => done.unwrap(),
            }
            number += 1;
            found.resize(number, true); // these two were never made; what they may have is counted as what it is
            found.truncate(number);
            // What he has back is accounted for, and goes, or there would be millions.
            for entry in fs::read_dir(&sub).unwrap().map(Result::unwrap) {
                if entry.file_name().to_string_lossy().starts_with(".mine-") {
                    account(&entry.path(), &mut found);
                    fs::remove_file(entry.path()).unwrap();
                }
            }
        }
        (found, exchanged, rounds)
    });
    SENDER.run(|| site::write(&site.path("in/last"), b"content"));
    daemon.until("signed the last", || site.path("in/last.sig").exists());
    for reload in 1..=2 {
        daemon.hang_up();
        daemon.waits_for_nth("policy reloaded", reload);
    }
    let signed = daemon.count("signed");
    assert_eq!(daemon.stop().code(), Some(0));
    let (mut sheltered, mut stand_ins) = (0, 0);
    for path in files_below(&site.path("in")) {
        let shown = path.to_string_lossy();
        sheltered += usize::from(shown.contains("/.kms-sig/") && !shown.ends_with("/lock"));
        stand_ins += usize::from(shown.contains("/.kms-sig-"));
        account(&path, &mut found);
    }
    let lost: Vec<_> = (0..found.len()).filter(|number| !found[*number]).collect();
    eprintln!(
        "{rounds} rounds, {} files of the sender, {exchanged} exchanges, {signed} signed; {sheltered} wait in \
         .kms-sig, {} are lost",
        found.len(),
        lost.len()
    );
    assert_eq!(stand_ins, 0);
    assert!(lost.is_empty(), "{} files are lost: {lost:?}", lost.len());
    assert!(exchanged > 100 && signed > 3, "{exchanged} exchanges, {signed} signed: not much of an attack");
}
