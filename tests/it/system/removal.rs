//! What cannot be removed afterwards is not delivered, and what was delivered is not delivered
//! again: a sender must not be able to have the same file arrive without end.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use super::job::{DELIVER, DELIVER_NEWER, Job, SIGN_AND_DELIVER, at_each, ensure};
use crate::support::daemon::Daemon;
use crate::support::policy::with;
use crate::support::site::{Leases, Site, quick, write};
use crate::support::trace::{Fault, Point};
use crate::support::user::SENDER;

/// Drops a good pair below `in`, as the sender.
fn drop_pair(site: &Site, below: &str, name: &str) {
    let signature = site.sign(name.as_ref(), b"content");
    SENDER.run(|| {
        write(&site.path("in").join(below).join(name), b"content");
        write(&site.path("in").join(below).join(format!("{name}.sig")), &signature);
    });
}

/// The sender touches a file so often, which has it tried at once and as new; some try of it is
/// held.
fn touch_until_held(site: &Site, daemon: &Daemon, file: &str, times: usize) {
    let held = || daemon.count("held") + daemon.count("held; will be tried again");
    for _ in 0..times {
        SENDER.run(|| {
            let file = fs::File::options().append(true).open(site.path("in").join(file)).unwrap();
            file.set_modified(std::time::SystemTime::now()).unwrap();
        });
        std::thread::sleep(std::time::Duration::from_millis(50)); // the sender's own time
    }
    daemon.until("held", || held() > 0);
}

/// A site whose sender has a sticky directory `in/sub`.
fn with_a_sticky_directory() -> Site {
    let site = Site::new(&with(&quick(), "recursive = true"));
    SENDER.run(|| {
        fs::create_dir(site.path("in/sub")).unwrap();
        fs::set_permissions(site.path("in/sub"), Permissions::from_mode(0o3770)).unwrap();
    });
    site
}

/// How often history has an outcome.
fn rows(site: &Site, outcome: &str) -> usize {
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    let state = rusqlite::Connection::open_with_flags(site.path("state/state.db"), flags).unwrap();
    let query = "SELECT count(*) FROM history WHERE outcome = ?1";
    state.query_row(query, [outcome], |row| row.get::<_, i64>(0)).unwrap() as usize
}

#[test]
fn p4_what_lies_in_a_sticky_directory_of_the_senders_is_held_and_not_delivered() {
    let site = with_a_sticky_directory();
    let daemon = site.start(Leases::Granted);
    drop_pair(&site, "sub", "f");
    touch_until_held(&site, &daemon, "sub/f", 10);
    let held = daemon.waits_for("held");
    assert_eq!(held["cause"], "sticky");
    assert_eq!(held["hint"], "chown the directory to the daemon's user, or chmod -t it");
    assert_eq!((fs::read_dir(site.path("out")).unwrap().count(), rows(&site, "delivered")), (0, 0));
    SENDER.run(|| fs::set_permissions(site.path("in/sub"), Permissions::from_mode(0o2770)).unwrap());
    touch_until_held(&site, &daemon, "sub/f", 1);
    daemon.until("delivered", || site.path("out/sub/f").exists() && !site.path("in/sub/f").exists());
    assert_eq!(rows(&site, "delivered"), 1);
}

#[test]
fn p4_a_bad_file_in_a_sticky_directory_is_held_for_the_same_reason() {
    let site = with_a_sticky_directory();
    let daemon = site.start(Leases::Granted);
    SENDER.run(|| {
        write(&site.path("in/sub/f"), b"content");
        write(&site.path("in/sub/f.sig"), b"nonsense");
    });
    assert_eq!(daemon.waits_for("held")["cause"], "sticky");
    SENDER.run(|| fs::set_permissions(site.path("in/sub"), Permissions::from_mode(0o2770)).unwrap());
    daemon.hang_up();
    daemon.waits_for("quarantined");
}

#[test]
fn a19_what_is_planted_in_place_of_the_folder_while_the_daemon_runs_holds_nothing() {
    let site = Site::new(&quick());
    let daemon = site.start(Leases::Granted);
    SENDER.run(|| fs::write(site.path("in/.kms-sig"), "planted").unwrap());
    drop_pair(&site, "", "f");
    daemon.until("delivered", || site.path("out/f").exists() && !site.path("in/f").exists());
    daemon.until("left nothing else there", || fs::read_dir(site.path("in")).unwrap().count() == 1);
    assert_eq!(fs::read_to_string(site.path("in/.kms-sig")).unwrap(), "planted");
    assert_eq!((daemon.count("held"), rows(&site, "delivered")), (0, 1));
}

/// Killed when it is delivered and on record, and before the source is removed; then somebody takes
/// what was delivered.
fn is_delivered_once(job: Job) {
    let site = job.lay(None);
    // The first is the probe of the host, which renames nothing.
    site.trace(Some((Point { call: "renameat2", nth: 2 }, Fault::Kill)));
    for name in ["w/in/f", "w/out/f", "w/out/f.sig"] {
        assert!(site.place.path(name).exists(), "{name}");
    }
    fs::remove_file(site.place.path("w/out/f")).unwrap();
    fs::remove_file(site.place.path("w/out/f.sig")).unwrap();
    let run = site.trace(None);
    assert_eq!(run.status.code(), Some(0), "{}", run.shown());
    assert!(!site.place.path("w/in/f").exists(), "{}", run.shown());
    assert!(!site.place.path("w/out/f").exists(), "delivered again: {}", run.shown());
    let db = rusqlite::Connection::open(site.place.path("w/state/state.db")).unwrap();
    let rows: i64 = db.query_row("SELECT count(*) FROM history", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 1, "recorded again");
}

#[test]
fn p4_what_is_on_record_as_delivered_is_only_removed() {
    is_delivered_once(DELIVER);
    is_delivered_once(SIGN_AND_DELIVER);
}

/// Killed wherever somebody can already have taken the newer file; then the sender puts the older
/// one in its place.
#[test]
fn a24_p4_a_kill_does_not_let_an_older_file_back_in() {
    let points = DELIVER_NEWER.points(20);
    let replayed = std::sync::atomic::AtomicUsize::new(0);
    at_each(&points, 2, |point| {
        let site = DELIVER_NEWER.lay(None);
        let run = site.trace(Some((point, Fault::Kill)));
        let path = |name: &str| site.place.path(name);
        if !path("w/out/f").exists() {
            return Ok(());
        }
        for name in ["f", "f.sig"] {
            fs::remove_file(path("w/out").join(name)).unwrap();
            fs::copy(path("older").join(name), path("w/in").join(name)).unwrap();
        }
        let again = site.trace(None);
        replayed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        ensure!(
            !path("w/out/f").exists() && again.stdout.contains("held (rollback)"),
            "killed before {} #{}: {}\n{}",
            point.call,
            point.nth,
            run.shown(),
            again.shown()
        );
        Ok(())
    });
    assert!(replayed.into_inner() > 5);
}
