//! Asking a running daemon: status, backlog, events, and the two orders.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use crate::support::control::{asked, status};
use crate::support::daemon::Daemon;
use crate::support::files::drop_pair;
use crate::support::place::{PROGRAM, Place};
use crate::support::policy::{SIGN, VERIFY, place, set_policy, with, without};

const NO_SOCKET: &str = "no control socket; status and its like cannot be asked";

fn rule<'a>(status: &'a Value, name: &str) -> &'a Value {
    let rules = status["rules"].as_array().unwrap();
    rules.iter().find(|rule| rule["name"] == name).unwrap_or_else(|| panic!("{status:#}"))
}

/// A `kms-sig events` that is running.
struct Follower {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Follower {
    fn start(place: &Place, arguments: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["events", "--follow", "--policy", "policy.toml"]).args(arguments);
        let mut command = place.prepare(command);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn status_says_that_all_is_well_and_what_was_done() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    place.write("in/f", "content");
    daemon.waits_for("signed");
    daemon.until("counted", || rule(&status(&place), "sign")["outcomes"]["signed"] == 1);
    let said = status(&place);
    assert_eq!(said["phase"], "ready");
    assert_eq!(said["pid"], daemon.pid());
    assert_eq!(said["policy"]["generation"], 1);
    assert_eq!(said["concerns"], Value::Array(Vec::new()));
    assert_eq!(rule(&said, "sign")["state"], "watched");
    assert_eq!(rule(&said, "sign")["hashed_bytes"], 7);
    place.run(["status", "--policy", "policy.toml"]).exits(0);
    let words = place.run(["status", "--policy", "policy.toml"]);
    let words = String::from_utf8_lossy(words.stdout()).into_owned();
    assert!(words.contains("all is well") && words.contains("1 signed"), "{words}");
}

#[test]
fn a_conflict_is_a_concern_with_its_hint_and_ends_as_one() {
    let place = place(VERIFY);
    place.write("out/f\n", "other");
    let daemon = Daemon::start(&place);
    place.write("made", "content");
    place.run(["sign", "local:demo", "made", "--context", "file=f%0A"]).exits(0);
    fs::rename(place.path("made.sig"), place.path("in/f\n.sig")).unwrap();
    fs::rename(place.path("made"), place.path("in/f\n")).unwrap();
    daemon.waits_for("held");
    daemon.until("shown", || status(&place)["concerns"].as_array().is_some_and(|all| all.len() == 1));
    let concern = status(&place)["concerns"][0].clone();
    assert_eq!(
        (&concern["kind"], &concern["rule"], &concern["files"]),
        (&"conflict".into(), &"verify".into(), &1.into())
    );
    assert_eq!(concern["hint"], "remove or rename what is at the destination");
    place.run(["status", "--policy", "policy.toml"]).exits(3);

    let [file] = asked(&place, "backlog --json").try_into().unwrap();
    assert_eq!((&file["file"], &file["path_hex"]), (&"f\\x0a".into(), &"660a".into()), "P9, and byte-exact");
    assert_eq!((&file["cause"], &file["held"]), (&"conflict".into(), &true.into()));
    assert!(file["attempts"].as_u64().unwrap() >= 1 && file["next_attempt"].is_string(), "{file}");
    assert!(file["reason"].as_str().unwrap().contains("out/f\\x0a"), "{file}");
    let words = place.run(["backlog", "--policy", "policy.toml"]).exits(3);
    let words = String::from_utf8_lossy(words.stdout()).into_owned();
    assert!(
        words.contains("! verify: f\\x0a (7 B, ") && words.contains("\n  -> remove or rename"),
        "{words}"
    );
    // What is asked for and is not there.
    assert!(asked(&place, "backlog --json --cause network").is_empty());
    assert!(asked(&place, "backlog --json --held --rule verify --most 0").is_empty());
    place
        .run(["backlog", "--policy", "policy.toml", "--rule", "none"])
        .exits(2)
        .complains("kms-sig: the policy in force has no such rule\n");

    fs::remove_file(place.path("out/f\n")).unwrap();
    place.run(["rescan", "--policy", "policy.toml"]).exits(0);
    daemon.waits_for("delivered");
    daemon.until("well", || status(&place)["concerns"] == Value::Array(Vec::new()));
    place.run(["backlog", "--policy", "policy.toml"]).exits(0).says("nothing waits\n");
}

#[test]
fn what_only_needs_time_is_told_and_no_concern() {
    let place = place(&with(VERIFY, "signature_timeout = \"1h\""));
    let daemon = Daemon::start(&place);
    place.write("in/f", "content");
    daemon.until("shown", || rule(&status(&place), "verify")["causes"][0]["cause"] == "no-signature");
    place.run(["status", "--policy", "policy.toml"]).exits(0);
    assert_eq!(rule(&status(&place), "verify")["oldest"]["file"], "f");
    let [file] = asked(&place, "backlog --json").try_into().unwrap();
    assert_eq!((&file["cause"], &file["held"]), (&"no-signature".into(), &false.into()));
    place.run(["backlog", "--policy", "policy.toml"]).exits(0);
}

#[test]
fn a_writer_that_does_not_close_is_named() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    let upload = fs::File::create(place.path("in/upload")).unwrap();
    daemon.until("shown", || rule(&status(&place), "sign")["causes"][0]["cause"] == "being-written");
    let [file] = asked(&place, "backlog --json").try_into().unwrap();
    assert_eq!(file["cause"], "being-written");
    assert!(file["hint"].as_str().unwrap().contains("fuser"), "{file}");
    drop(upload);
    daemon.waits_for("signed");
}

#[test]
fn events_have_no_gap_across_restarts_of_either_side() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    let mut follower = Follower::start(&place, &["--after", "0"]);
    place.write("in/0", "content");
    let mut first = follower.next();
    let mut names = vec![first["path"].as_str().unwrap().to_owned()];
    daemon.stop();
    for i in 1..4 {
        place.write(format!("in/{i}"), "content");
    }
    let daemon = Daemon::start(&place); // the follower waited for it
    for _ in 1..4 {
        let next = follower.next();
        assert_eq!(next["seq"].as_i64(), first["seq"].as_i64().map(|seq| seq + 1));
        names.push(next["path"].as_str().unwrap().to_owned());
        first = next;
    }
    names.sort();
    assert_eq!(names, ["0", "1", "2", "3"]);
    drop(follower);
    place.write("in/4", "content");
    daemon.waits_for_nth("signed", 4);
    // Another one goes on where the first stopped.
    let mut follower = Follower::start(&place, &["--after", first["cursor"].as_str().unwrap()]);
    assert_eq!(follower.next()["path"], "4");
    // Without --follow: all there is, or what comes after a cursor.
    assert_eq!(asked(&place, "events").len(), 5);
    assert_eq!(asked(&place, "events --after 3").len(), 2);
    let history = asked(&place, "history --json");
    let events = asked(&place, "events");
    for (row, mut event) in history.into_iter().zip(events) {
        let cursor = event.as_object_mut().unwrap().remove("cursor").unwrap();
        assert_eq!(cursor, format!("{}:{}", row["hash"].as_str().unwrap(), row["seq"]));
        assert_eq!(event, row, "an event is a row of the record");
    }
}

#[test]
fn a_cursor_of_another_record_is_an_error_and_no_gap() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    place.write("in/f", "content");
    daemon.waits_for("signed");
    daemon.until("on record", || asked(&place, "events").len() == 1);
    let events = |after: &str| place.run(["events", "--policy", "policy.toml", "--after", after]);
    events("99").exits(3).complains_of("the record has 1 rows, and none with the cursor's number 99");
    let other = format!("{}:1", "0".repeat(64));
    events(&other).exits(3).complains_of("row 1 has another hash than the cursor's");
    // Before there is a last line, its cursor is empty.
    let all = events("").exits(0);
    assert_eq!(all.stdout(), events("0").exits(0).stdout());
    assert!(!all.stdout().is_empty());
    events("yesterday").exits(2).complains_of("the cursor is no HASH:ROW");
    // Retention says what it removed.
    daemon.stop();
    set_policy(&place, &format!("state.history_keep = \"1ms\"\n{SIGN}"));
    let daemon = Daemon::start(&place);
    place.write("in/g", "content");
    daemon.waits_for("signed");
    daemon.stop();
    let daemon = Daemon::start(&place);
    daemon.waits_for("record pruned");
    events("0").exits(3).complains_of("retention has removed the rows up to 1; go on with --after 1");
    events("1").exits(0);
}

#[test]
fn a_cause_that_there_is_none_of_is_no_answer_that_nothing_waits() {
    let place = place(SIGN);
    let _daemon = Daemon::start(&place);
    let backlog = |cause| place.run(["backlog", "--policy", "policy.toml", "--cause", cause]);
    backlog("access-denied").exits(0).says("nothing waits\n");
    backlog("being-written").exits(0).says("nothing waits\n");
    let mut told = backlog("nonsense").exits(2).says("");
    for cause in ["access-denied", "quarantine-full", "being-written"] {
        told = told.complains_of(cause);
    }
}

#[test]
fn o1_reload_says_what_came_of_it() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    let reload = || place.run(["reload", "--policy", "policy.toml"]);
    set_policy(&place, &with(SIGN, "settle = \"60ms\""));
    reload().exits(0).says("policy reloaded (generation 2)\n");
    daemon.waits_for("policy reloaded");
    set_policy(&place, &with(SIGN, "colour = 1"));
    // Asked at the socket: the policy is bad by now.
    let reload = || place.run(["reload", "--socket", "state/control.sock"]);
    reload().exits(2).complains_of("`colour` is no key of [[watch]]");
    let concern = asked_at_socket(&place)["concerns"][0].clone();
    assert_eq!(concern["kind"], "reload-refused");
    set_policy(&place, SIGN);
    place.shell("sed -i 's/\"state\"/\"elsewhere\"/' policy.toml").exits(0);
    reload().exits(2).complains_of("state.dir cannot change while the daemon runs; restart it");
    set_policy(&place, SIGN);
    reload().exits(0);
    assert_eq!(status(&place)["concerns"], Value::Array(Vec::new()));
}

/// So many followers keep nobody from asking, and one too many is told why.
#[test]
fn followers_of_events_leave_places_for_questions() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    let connect = || {
        let dir = std::fs::File::open(place.path("state")).unwrap();
        let at = format!("/proc/self/fd/{}/control.sock", std::os::fd::AsRawFd::as_raw_fd(&dir));
        std::os::unix::net::UnixStream::connect(at).unwrap()
    };
    let ask = |target: &str| {
        use std::io::{Read as _, Write as _};
        let mut stream = connect();
        write!(stream, "GET {target} HTTP/1.1\r\nhost: kms-sig\r\n\r\n").unwrap();
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).unwrap();
        (stream, String::from_utf8_lossy(&begin).into_owned())
    };
    let followers: Vec<_> = (0..32).map(|_| ask("/events?follow=true")).collect();
    assert!(followers.iter().all(|(_, said)| said == "HTTP/1.1 200"), "{followers:?}");
    assert_eq!(ask("/events?follow=true").1, "HTTP/1.1 429");
    place
        .run(["events", "--policy", "policy.toml"])
        .exits(3)
        .complains_of("is told events as often as one may be");
    // Nor is a place waited for.
    place
        .run(["events", "--policy", "policy.toml", "--follow"])
        .exits(3)
        .complains_of("is told events as often as one may be");
    assert_eq!(status(&place)["phase"], "ready");
    // Nor do connections that say nothing, beyond those that there may be.
    let mut silent: Vec<_> = (0..32).map(|_| connect()).collect();
    daemon.until("full", || ask("/status").1 == "HTTP/1.1 429");
    place.run(["status", "--policy", "policy.toml"]).exits(3).complains_of("has too many connections here");
    silent.clear();
    daemon.until("free", || ask("/status").1 == "HTTP/1.1 200");
    drop(followers);
    daemon.until("free for followers", || ask("/events?follow=true").1 == "HTTP/1.1 200");
}

fn asked_at_socket(place: &Place) -> Value {
    let run = place.run(["status", "--json", "--socket", "state/control.sock"]);
    serde_json::from_slice(run.stdout()).unwrap()
}

#[test]
fn a_rule_that_cannot_work_is_the_first_concern() {
    let place = place(SIGN);
    fs::remove_dir(place.path("in")).unwrap();
    let daemon = Daemon::start(&place);
    let said = status(&place);
    assert_eq!(said["concerns"][0]["kind"], "rule-held");
    assert_eq!(rule(&said, "sign")["state"], "held");
    assert!(said["concerns"][0]["reason"].as_str().unwrap().contains("does not exist"), "{said:#}");
    fs::create_dir(place.path("in")).unwrap();
    place.run(["rescan", "--policy", "policy.toml"]).exits(0);
    daemon.waits_for("the directories are there again");
    daemon.until("well", || rule(&status(&place), "sign")["state"] == "watched");
}

#[test]
fn the_socket_is_for_its_group_and_goes_with_the_daemon() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    let socket = place.path("state/control.sock");
    let metadata = fs::metadata(&socket).unwrap();
    assert!(metadata.file_type().is_socket());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    daemon.stop();
    assert!(!socket.exists());
    place.run(["status", "--policy", "policy.toml"]).exits(3).complains_of("no daemon answers at ");
    // One that was killed leaves it, and the next one takes its place.
    let daemon = Daemon::start(&place);
    daemon.signal(rustix::process::Signal::KILL);
    drop(daemon);
    assert!(socket.exists());
    place.run(["status", "--policy", "policy.toml"]).exits(3).complains_of("no daemon answers at ");
    let _daemon = Daemon::start(&place);
    place.run(["status", "--policy", "policy.toml"]).exits(0);
}

#[test]
fn what_has_the_sockets_name_is_left_alone_and_stops_nothing() {
    let place = place(SIGN);
    fs::create_dir(place.path("run")).unwrap();
    place.write("run/s", "mine");
    set_policy(&place, &format!("control.socket = \"run/s\"\n{SIGN}"));
    let daemon = Daemon::start(&place);
    let told = daemon.waits_for(NO_SOCKET);
    assert!(told["reason"].as_str().unwrap().ends_with("run/s\" is no socket; remove it"), "{told}");
    place.write("in/f", "content");
    daemon.waits_for("signed");
    assert_eq!(place.read("run/s"), b"mine");
    daemon.stop();
    // Nor is a socket at which another daemon answers taken from it.
    fs::remove_file(place.path("run/s")).unwrap();
    let first = Daemon::start(&place);
    place
        .shell(
            "mkdir -m 700 other && sed 's/\"state\"/\"other\"/; s/\"in\"/\"out\"/; s/\"q\"/\"q2\"/' policy.toml > other.toml",
        )
        .exits(0);
    let mut command = Command::new(PROGRAM);
    command.args(["watch", "--policy", "other.toml", "--log-format", "json"]);
    let second = Daemon::spawn(place.prepare(command));
    let told = second.waits_for(NO_SOCKET);
    assert!(told["reason"].as_str().unwrap().starts_with("another daemon answers at "), "{told}");
    assert_eq!(status(&place)["pid"], first.pid());
    second.stop();
    assert_eq!(status(&place)["pid"], first.pid(), "who could not have it does not remove it");
}

/// What a file system without sockets (rclone's) makes of one.
#[test]
fn an_empty_file_of_the_daemons_own_is_replaced() {
    let place = place(SIGN);
    fs::create_dir(place.path("state")).unwrap();
    fs::set_permissions(place.path("state"), fs::Permissions::from_mode(0o700)).unwrap();
    place.write("state/control.sock", "");
    let daemon = Daemon::start(&place);
    place.run(["status", "--policy", "policy.toml"]).exits(0);
    assert_eq!(daemon.count(NO_SOCKET), 0);
    daemon.stop();
    // Not what others could have put there: with a second name it may be anybody's.
    place.write("state/control.sock", "");
    fs::hard_link(place.path("state/control.sock"), place.path("kept")).unwrap();
    let daemon = Daemon::start(&place);
    daemon.waits_for(NO_SOCKET);
}

#[test]
fn p7_no_socket_where_others_could_put_another() {
    let place = place(SIGN);
    fs::create_dir(place.path("open")).unwrap();
    fs::set_permissions(place.path("open"), fs::Permissions::from_mode(0o777)).unwrap();
    set_policy(&place, &format!("control.socket = \"open/s\"\n{SIGN}"));
    let daemon = Daemon::start(&place);
    let told = daemon.waits_for(NO_SOCKET);
    assert!(told["reason"].as_str().unwrap().contains("can be written by others"), "{told}");
    assert!(!place.path("open/s").exists());
}

#[test]
fn a_socket_deep_below_is_reached() {
    // Longer than the 107 bytes that the kernel takes for the name of a socket.
    let place = place(SIGN);
    let deep = format!("{}/s", ["a-directory-with-a-long-name"; 8].join("/"));
    fs::create_dir_all(place.path(&deep).parent().unwrap()).unwrap();
    set_policy(&place, &format!("control.socket = \"{deep}\"\n{SIGN}"));
    let _daemon = Daemon::start(&place);
    place.run(["status", "--policy", "policy.toml"]).exits(0);
}

#[test]
fn what_keeps_the_socket_from_being_made_is_found_before_and_told_by_status() {
    let place = place(SIGN);
    let at = |socket: &str| set_policy(&place, &format!("control.socket = \"{socket}\"\n{SIGN}"));
    fs::create_dir(place.path("run")).unwrap();
    place.write("run/file", "mine");
    let long = format!("run/{}", "s".repeat(120));
    for (socket, code, why) in [
        ("run/file", 2, "is no socket; remove it"),
        ("nowhere/s", 0, "is not there"), // a policy may be checked before there is anything
        (&*long, 2, "is too long: it may have 85 bytes"),
    ] {
        at(socket);
        for (words, code) in [(&["check"][..], code), (&["check", "--online"], 2)] {
            let run = place.run([words, &["--policy", "policy.toml"]].concat()).exits(code);
            let says = String::from_utf8_lossy(run.stdout()).into_owned();
            assert!(says.contains(why) && !says.contains("refuse to start"), "{socket}: {says}");
        }
        // It does not keep a policy from being taken over.
        place.run(["check", "--reload", "--policy", "policy.toml"]).exits(0);
        place.run(["status", "--policy", "policy.toml"]).exits(3).complains_of(why);
    }
    at("run/s");
    place.run(["check", "--online", "--policy", "policy.toml"]).exits(0);
    assert_eq!(fs::read_dir(place.path("run")).unwrap().count(), 1, "what was tried out is gone");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let metrics = format!("control.metrics = \"{}\"\n", taken.local_addr().unwrap());
    set_policy(&place, &format!("{metrics}{SIGN}"));
    place.run(["check", "--policy", "policy.toml"]).exits(0);
    let run = place.run(["check", "--online", "--policy", "policy.toml"]).exits(2);
    assert!(String::from_utf8_lossy(run.stdout()).contains("metrics cannot be served at"));
    drop(taken);
    let _daemon = Daemon::start(&place);
    place.run(["check", "--online", "--policy", "policy.toml"]).exits(0);
}

/// As `history` has them, however often a file is looked at again.
#[test]
fn a_file_that_is_decided_again_as_before_is_counted_once() {
    let in_place = with(&without(VERIFY, "deliver_to"), "in_place = true");
    for (rules, name, outcome) in [(SIGN, "sign", "signed"), (&*in_place, "verify", "valid")] {
        let place = place(rules);
        let daemon = Daemon::start(&place);
        match name {
            "sign" => place.write("in/f", "content"),
            _ => drop_pair(&place, "f", "content"),
        }
        daemon.waits_for(outcome);
        daemon.until("counted", || rule(&status(&place), name)["outcomes"][outcome] == 1);
        let hashed = || rule(&status(&place), name)["hashed_bytes"].as_u64().unwrap();
        for change in ["touch in/f", "chmod 600 in/f", "touch in/f"] {
            let before = hashed();
            place.shell(change).exits(0);
            daemon.until("read again", || hashed() > before);
        }
        daemon.until("done", || rule(&status(&place), name)["waiting"] == 0);
        assert_eq!(rule(&status(&place), name)["outcomes"][outcome], 1, "{name}");
        assert_eq!(asked(&place, "history --json").len(), 1, "{name}");
    }
}
