//! As a service: what systemd is notified of, when, and what has it restart the daemon.
//!
//! The test plays the service manager: it binds the socket that `NOTIFY_SOCKET` names and reads
//! what comes.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::daemon::Daemon;
use crate::support::policy::{SIGN, VERIFY, place, set_policy, with};
use crate::support::service_manager::{Manager, status, value};

/// Microseconds of CLOCK_MONOTONIC.
fn monotonic() -> u128 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec.try_into().unwrap(), now.tv_nsec.try_into().unwrap()).as_micros()
}

#[test]
fn ready_comes_once_and_a_missing_directory_does_not_hold_it() {
    let mut place = place(&format!("{SIGN}{}", VERIFY.replace("\"in\"", "\"missing\"")));
    let manager = Manager::of(&mut place);
    let daemon = Daemon::start(&place);
    let ready = manager.waits_for("READY=1");
    assert_eq!(status(&ready).unwrap(), "2 rules; cannot work: verify");
    place.write("in/f", "content");
    daemon.waits_for("signed");
    manager.waits_for_status("2 rules; 1 signed; cannot work: verify");
    fs::create_dir(place.path("missing")).unwrap();
    assert_eq!(manager.waits_for_status("2 rules; 1 signed"), "2 rules; 1 signed");
    assert_eq!(daemon.stop().code(), Some(0));
    assert_eq!(manager.waits_for("STOPPING=1"), "STOPPING=1\nSTATUS=finishing the files in hand\n");
    assert!(manager.so_far().is_empty(), "that is the last word");
}

#[test]
fn o1_a_reload_is_told_from_its_beginning_to_its_end_good_or_bad() {
    let mut place = place(SIGN);
    let manager = Manager::of(&mut place);
    let daemon = Daemon::start(&place);
    manager.waits_for("READY=1");
    let reload = || {
        let before = monotonic();
        daemon.hang_up();
        let reloading = manager.waits_for("RELOADING=1");
        let at: u128 = value(&reloading, "MONOTONIC_USEC").unwrap().parse().unwrap();
        assert!((before..=monotonic()).contains(&at), "after the signal, and by the same clock");
        let ready = manager.next();
        assert!(ready.starts_with("READY=1\n"), "{ready}");
        status(&ready).unwrap()
    };
    set_policy(&place, "zzzzzz = 1");
    let refused = "the last reload was refused: the policy has faults; see the log, or ask kms-sig check";
    assert_eq!(reload(), format!("1 rule; {refused}"));
    // Sound, but not for a daemon that runs.
    place.write(
        "policy.toml",
        format!("allow_root = true\nlocal.keyring = \"keyring\"\nstate.dir = \"other\"\n{SIGN}"),
    );
    let refused = "the last reload was refused: state.dir cannot change while the daemon runs; restart it";
    assert_eq!(reload(), format!("1 rule; {refused}"));
    set_policy(
        &place,
        &format!(
            "{SIGN}{}",
            VERIFY.replace("\"in\"", "\"out\"").replace("deliver_to = \"out\"", "in_place = true")
        ),
    );
    assert_eq!(reload(), "2 rules");
    place.write("in/f", "content");
    daemon.waits_for("signed");
}

#[test]
fn a_reload_that_comes_while_another_waits_is_not_lost() {
    let mut place = place(SIGN);
    fs::File::create(place.path("in/huge")).unwrap().set_len(512 << 20).unwrap(); // a few seconds of hashing
    let manager = Manager::of(&mut place);
    let daemon = Daemon::start(&place);
    daemon.until("hashing", || {
        fs::read_dir(format!("/proc/{}/fd", daemon.pid()))
            .unwrap()
            .any(|fd| fs::read_link(fd.unwrap().path()).is_ok_and(|to| to.ends_with("in/huge")))
    });
    manager.waits_for("READY=1");
    fs::remove_file(place.path("in/huge")).unwrap(); // what is in hand stays in hand
    for name in ["second", "third"] {
        set_policy(&place, &SIGN.replace("name = \"sign\"", &format!("name = \"{name}\"")));
        daemon.hang_up();
        manager.waits_for("RELOADING=1"); // by now the policy has been read
    }
    manager.waits_for("READY=1");
    place.write("in/f", "content");
    assert_eq!(daemon.waits_for("signed")["rule"], "third");
}

/// A credential process is the one child that the daemon ever has.
#[cfg(feature = "aws")]
#[test]
fn what_the_service_manager_said_is_not_passed_on_to_children() {
    let key = "arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let mut place = place(&SIGN.replace("local:demo", key));
    place.write(
        "config",
        "[default]\nregion = eu-west-1\ncredential_process = sh -c \"env > seen.new; mv seen.new seen\"\n",
    );
    place.set("AWS_CONFIG_FILE", place.path("config"));
    place.set("AWS_EC2_METADATA_DISABLED", "true");
    place.set("WATCHDOG_USEC", "60000000");
    let _manager = Manager::of(&mut place);
    let daemon = Daemon::start(&place);
    place.write("in/f", "content");
    daemon.until("the credential process ran", || place.path("seen").exists());
    let seen = String::from_utf8(place.read("seen")).unwrap();
    assert!(seen.contains("AWS_CONFIG_FILE="), "{seen}");
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC"] {
        assert!(!seen.contains(name), "{seen}");
    }
}

#[test]
fn o4_the_watchdog_is_fed_while_nothing_else_works() {
    let rule = with(VERIFY, "signature_timeout = \"1h\"");
    for (rules, hold) in [
        (rule.clone(), "1 held (1 credentials)"), // the keyring is away, and the daemon made to ask for it
        (format!("limits.min_free_space = \"1EiB\"\n{rule}"), "1 held (1 no-space)"),
    ] {
        let mut place = place(&rules);
        let (payload, signature) = crate::support::files::sign(&place, "f", "content");
        place.set("WATCHDOG_USEC", "1000000");
        let manager = Manager::of(&mut place);
        fs::rename(place.path("keyring"), place.path("away")).unwrap();
        let daemon = Daemon::start(&place);
        fs::rename(payload, place.path("in/f")).unwrap();
        fs::rename(signature, place.path("in/f.sig")).unwrap();
        manager.waits_for_status(hold);
        for _ in 0..5 {
            manager.waits_for("WATCHDOG=1");
        }
        assert_eq!(daemon.count("event loop unresponsive; the watchdog is not notified"), 0);
    }
}

/// State is held, and whoever holds it is to blame: a restart would only wait again.
#[test]
fn o4_the_watchdog_is_fed_while_another_process_keeps_state_locked() {
    let mut place = place(SIGN);
    place.set("WATCHDOG_USEC", "2000000");
    let manager = Manager::of(&mut place);
    let daemon = Daemon::start(&place);
    let db = rusqlite::Connection::open(place.path("state/state.db")).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    // A refusal is put on record by the rule's own loop, which then waits for state as the files
    // do.
    symlink("nowhere", place.path("in/link")).unwrap();
    place.write("in/f", "content");
    manager.waits_for_status("(2 state)");
    manager.so_far();
    for _ in 0..5 {
        manager.waits_for("WATCHDOG=1");
    }
    assert_eq!(daemon.count("event loop unresponsive; the watchdog is not notified"), 0);
    db.execute_batch("ROLLBACK").unwrap();
    daemon.waits_for("signed");
}

#[test]
fn the_watchdog_of_another_process_and_none_at_all_are_left_alone() {
    for (limit, process) in [("", None), ("1000", Some("1"))] {
        let mut place = place(SIGN);
        place.set("WATCHDOG_USEC", limit);
        if let Some(process) = process {
            place.set("WATCHDOG_PID", process);
        }
        let manager = Manager::of(&mut place);
        let daemon = Daemon::start(&place);
        place.write("in/f", "content");
        manager.waits_for_status("1 signed");
        drop(daemon);
        assert!(!manager.so_far().iter().any(|message| message.contains("WATCHDOG")));
    }
}

#[test]
fn without_a_service_manager_it_runs_as_ever() {
    let mut place = place(SIGN);
    place.set("NOTIFY_SOCKET", place.path("nobody"));
    let daemon = Daemon::start(&place);
    place.write("in/f", "content");
    daemon.waits_for("signed");
    daemon.signal(Signal::HUP);
    daemon.waits_for("policy reloaded");
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn where_the_journal_takes_standard_error_lines_have_no_time_of_their_own() {
    let place = place(SIGN);
    let line = |variable: &str, format: &str| -> String {
        let script = format!(
            "exec 2>log; export JOURNAL_STREAM={variable}; \
             exec \"$KMS_SIG\" watch --policy policy.toml --once {format}"
        );
        place.shell(&script).exits(0);
        let log = String::from_utf8(place.read("log")).unwrap();
        log.lines().find(|line| line.ends_with("ready")).unwrap().to_owned()
    };
    let its_own = "$(stat -L -c %d:%i /dev/stderr)";
    assert_eq!(line(its_own, "--log-format human").trim_start(), "INFO ready");
    assert!(line("1:1", "--log-format human").contains("Z  INFO ready"), "another stream's variable");
    assert!(line("nonsense", "").contains("Z  INFO ready"));
}
