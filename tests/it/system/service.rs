//! A daemon of which one thread stands still, and a real journal. Needs root, ptrace, namespaces
//! and systemd-journald.

#![allow(unsafe_code, reason = "ptrace(2) has no safe wrapper")]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::control::status;
use crate::support::daemon::Daemon;
use crate::support::files::verifies;
use crate::support::mount::{self, Mount};
use crate::support::place::{PROGRAM, Place};
use crate::support::policy::{SIGN, VERIFY, place, set_policy, with};
use crate::support::service_manager::Manager;
use crate::support::wait::PATIENCE;

const SILENT: &str = "event loop unresponsive; the watchdog is not notified";

const NOT_WAITING: &str = "the directories of a rule neither open nor fail to; not waiting for them";

/// A thread that stands still, until this is dropped.
struct Frozen(libc::pid_t);

impl Frozen {
    /// Stops the thread of this name.
    fn thread(daemon: &Daemon, name: &str) -> Self {
        let tasks = format!("/proc/{}/task", daemon.pid());
        let is_it = |task: &fs::DirEntry| {
            fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let task = fs::read_dir(tasks).unwrap().map(Result::unwrap).find(is_it).expect(name);
        let thread: libc::pid_t = task.file_name().to_str().unwrap().parse().unwrap();
        for request in [libc::PTRACE_SEIZE, libc::PTRACE_INTERRUPT] {
            // SAFETY: neither request takes memory of ours.
            let done = unsafe { libc::ptrace(request, thread, 0, 0) };
            assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
        }
        let mut status = 0;
        // SAFETY: the status is ours and lives for the call.
        let stopped = unsafe { libc::waitpid(thread, &raw mut status, libc::__WALL) };
        assert_eq!(stopped, thread, "{}", std::io::Error::last_os_error());
        Self(thread)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // SAFETY: takes no memory of ours. One that is gone needs no detaching.
        unsafe { libc::ptrace(libc::PTRACE_DETACH, self.0, 0, 0) };
    }
}

#[test]
fn o4_a_loop_that_hangs_is_not_fed_for_and_one_that_comes_back_is() {
    let mut place = place(SIGN);
    place.set("WATCHDOG_USEC", "2000000");
    let manager = Manager::of(&mut place);
    let daemon = Daemon::start(&place);
    manager.waits_for("WATCHDOG=1");
    let frozen = Frozen::thread(&daemon, "state");
    assert_eq!(daemon.waits_for(SILENT)["part"], "state");
    manager.so_far();
    // A refusal is put on record at once, so the rule's own loop comes to wait as well; which takes
    // a while to be told.
    symlink("nowhere", place.path("in/link")).unwrap();
    assert_eq!(daemon.waits_for_nth(SILENT, 2)["part"], "sign");
    place.write("in/f", "content");
    let said = manager.so_far();
    assert!(!said.iter().any(|message| message.contains("WATCHDOG=1")), "{said:?}");
    drop(frozen);
    daemon.waits_for("event loop responsive again");
    manager.waits_for("WATCHDOG=1");
    daemon.waits_for("signed");
}

#[test]
fn ready_does_not_wait_for_the_first_scan_to_end() {
    let mut place = place("");
    let policy = format!("allow_root = true\nlocal.keyring = \"keyring\"\nstate.dir = \"state\"\n{SIGN}");
    place.write("policy.toml", policy);
    let manager = Manager::of(&mut place);
    let daemon = Daemon::start(&place);
    manager.waits_for("READY=1");
    // A scan asks state about what it comes upon, so the next rule's first one cannot end.
    let frozen = Frozen::thread(&daemon, "state");
    place.write("in/f", "content");
    daemon.hang_up();
    manager.waits_for("RELOADING=1");
    manager.waits_for("READY=1");
    assert_eq!(daemon.count("signed"), 0);
    assert_eq!(daemon.count(NOT_WAITING), 0, "and it is not that it gave up waiting");
    drop(frozen);
    daemon.waits_for("signed");
}

#[test]
fn w11_a_watcher_that_falls_silent_is_replaced_when_the_watchdog_asks() {
    let mut place = place(SIGN);
    place.set("WATCHDOG_USEC", "2000000");
    let manager = Manager::of(&mut place);
    let daemon = Daemon::start(&place);
    place.write("in/f", "content");
    daemon.waits_for("signed");
    let _frozen = Frozen::thread(&daemon, "notify-rs inoti");
    daemon.waits_for("events no longer arrive; watching anew and scanning often");
    place.write("in/g", "content");
    daemon.waits_for_nth("signed", 2);
    // Events are a convenience, and the rule does without: no reason to restart.
    manager.so_far();
    manager.waits_for("WATCHDOG=1");
    assert_eq!(daemon.count(SILENT), 0);
}

/// A file system that answers nothing, until this is dropped: FUSE, with nobody on the other side.
struct Stuck {
    server: Child,
    path: PathBuf,
}

impl Stuck {
    fn at(path: PathBuf) -> Self {
        let program = "
import ctypes, os, sys
fd = os.open('/dev/fuse', os.O_RDWR)
options = f'fd={fd},rootmode=40000,user_id=0,group_id=0'
failed = ctypes.CDLL(None).mount(b'stuck', sys.argv[1].encode(), b'fuse', 0, options.encode())
print('failed' if failed else 'mounted', flush=True)
sys.stdin.read()
";
        let mut command = Command::new("python3");
        command.args(["-c", program]).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut server = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "mounted\n");
        Self { server, path }
    }
}

impl Drop for Stuck {
    fn drop(&mut self) {
        self.server.kill().ok(); // whoever waits gets an error
        self.server.wait().ok();
        Command::new("umount").arg("-l").arg(&self.path).status().ok();
    }
}

/// A second rule that signs, for the directory `stuck`.
fn stuck_rule() -> String {
    with(&with(SIGN, "name = \"stuck\""), "path = \"stuck\"")
}

/// A place with such a rule, whose watchdog is asked for every second.
fn place_with(stuck_rule: &str) -> Place {
    let mut place = place(&format!("{SIGN}{stuck_rule}"));
    place.set("WATCHDOG_USEC", "2000000");
    fs::create_dir(place.path("stuck")).unwrap();
    place
}

#[test]
fn o4_a_file_server_that_does_not_answer_holds_its_rule_alone_and_is_no_reason_to_restart() {
    let rule = stuck_rule();
    let mut place = place_with(&rule);
    let manager = Manager::of(&mut place);
    let stuck = Stuck::at(place.path("stuck"));
    let daemon = Daemon::start_unready(&place);
    // Files are signed before the start is over; the start is, after a while, without that rule.
    place.write("in/f", "content");
    daemon.waits_for("signed");
    daemon.waits_for(NOT_WAITING);
    manager.waits_for("READY=1");
    assert_eq!(
        daemon.waits_for("the file system does not answer; only this part waits for it")["part"],
        "stuck"
    );
    manager.so_far();
    manager.waits_for("WATCHDOG=1");
    place.write("in/g", "content");
    manager.waits_for_status("2 signed; waits for its directory: stuck");
    assert_eq!(daemon.count(SILENT), 0);
    drop(stuck);
    daemon.waits_for("event loop responsive again");
    place.write("stuck/h", "content");
    daemon.waits_for_nth("signed", 3);
}

/// Whichever system call it is that does not return: the threads that all rules share stay free.
#[test]
fn o4_a_directory_that_stops_to_answer_takes_no_thread_from_the_other_rules() {
    let rule = with(&stuck_rule(), "recursive = true");
    let mut place = place_with(&rule);
    place.set("TOKIO_WORKER_THREADS", "1");
    let manager = Manager::of(&mut place);
    let daemon = Daemon::start(&place);
    let below = fs::File::open(place.path("stuck")).unwrap();
    let _stuck = Stuck::at(place.path("stuck"));
    // A new directory means a scan, and a scan first compares what stands at the path.
    fs::create_dir(format!("/proc/self/fd/{}/new", below.as_raw_fd())).unwrap();
    assert_eq!(
        daemon.waits_for("the file system does not answer; only this part waits for it")["part"],
        "stuck"
    );
    place.write("in/f", "content");
    assert_eq!(daemon.waits_for("signed")["rule"], "sign");
    manager.so_far();
    manager.waits_for("WATCHDOG=1");
    assert_eq!(daemon.count(SILENT), 0);
}

#[test]
fn o1_a_refused_reload_while_it_starts_makes_it_not_ready() {
    let mut place = place(&SIGN.replace("\"in\"", "\"stuck\""));
    fs::create_dir(place.path("stuck")).unwrap();
    let manager = Manager::of(&mut place);
    let stuck = Stuck::at(place.path("stuck"));
    let daemon = Daemon::start_unready(&place);
    manager.waits_for_status("starting");
    set_policy(&place, "zzzzzz = 1");
    daemon.hang_up();
    daemon.waits_for("reload refused; the old policy stays");
    drop(stuck);
    let ready = manager.waits_for("READY=1");
    assert!(!ready.contains("waits for its directory"), "{ready}");
}

/// A rule whose file system hangs is left behind by a reload, and goes on by itself.
#[test]
fn o3_a_reload_does_not_wait_for_a_file_server_and_its_rule_goes_on_by_the_new_policy() {
    let rule = stuck_rule();
    let mut place = place_with(&rule);
    let manager = Manager::of(&mut place);
    let stuck = Stuck::at(place.path("stuck"));
    let daemon = Daemon::start(&place);
    for n in 1..=2 {
        let keys = |rules: &str| rules.replace("{ file =", &format!("{{ reload = \"{n}\", file ="));
        set_policy(&place, &keys(&format!("{SIGN}{rule}")));
        manager.so_far();
        daemon.hang_up();
        let left = daemon.waits_for_nth(
            "abandoned by the reload: its file system does not answer; the rule continues when it does",
            1,
        );
        assert_eq!(left["rule"], "stuck");
        daemon.waits_for_nth("policy reloaded", n);
        manager.waits_for("READY=1");
        place.write(format!("in/{n}"), "content");
        daemon.waits_for_nth("signed", n);
        verifies(&place, &format!("in/{n}"), &format!("reload={n},file={n}"));
        manager.waits_for("WATCHDOG=1");
    }
    assert_eq!(
        daemon.count(
            "abandoned by the reload: its file system does not answer; the rule continues when it does"
        ),
        1
    );
    drop(stuck);
    assert_eq!(daemon.waits_for("the rule continues, under the policy in force")["rule"], "stuck");
    place.write("stuck/f", "content");
    daemon.waits_for_nth("signed", 3);
    verifies(&place, "stuck/f", "reload=2,file=f");
    assert_eq!(daemon.count(SILENT), 0);
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_new_quarantine_store_that_does_not_answer_holds_neither_watchdog_nor_signals() {
    let mut place = place(SIGN);
    place.set("WATCHDOG_USEC", "2000000");
    fs::create_dir(place.path("stuck")).unwrap();
    let manager = Manager::of(&mut place);
    let _stuck = Stuck::at(place.path("stuck"));
    let daemon = Daemon::start(&place);
    let policy = String::from_utf8(place.read("policy.toml")).unwrap();
    place.write("policy.toml", policy.replace("quarantine.dir = \"q\"", "quarantine.dir = \"stuck/q\""));
    daemon.hang_up();
    manager.waits_for("RELOADING=1");
    let stack = format!("/proc/{}/task", daemon.pid());
    daemon.until("it waits for the store", || {
        fs::read_dir(&stack).unwrap().any(|task| {
            let waits = fs::read_to_string(task.unwrap().path().join("wchan"));
            waits.is_ok_and(|at| at.contains("fuse") || at.contains("request_wait_answer"))
        })
    });
    place.write("in/f", "content");
    daemon.waits_for("signed"); // by the old policy, which is in force
    manager.so_far();
    manager.waits_for("WATCHDOG=1");
    assert_eq!(daemon.stop().code(), Some(0));
}

/// Runs commands where a journald listens that is theirs alone, in a /run of its own; `find` shows
/// what it has.
fn with_journald(place: &Place, commands: &str) {
    let script = format!(
        r#"
        set -e
        mount -t tmpfs none /run
        mkdir -p /run/systemd/journal /run/log/journal
        cat /etc/machine-id >/dev/null 2>&1 || mount -t tmpfs none /etc
        [ -s /etc/machine-id ] || echo 0123456789abcdef0123456789abcdef > /run/machine-id
        [ -s /etc/machine-id ] || mount --bind /run/machine-id /etc/machine-id
        /lib/systemd/systemd-journald >journald.log 2>&1 &
        journald=$!
        for i in $(seq 1000); do [ -S /run/systemd/journal/socket ] && break; sleep 0.01; done
        find() {{
            for i in $(seq 1000); do
                journalctl -q -D /run/log/journal "$@" >found 2>/dev/null
                [ -s found ] && break
                sleep 0.01
            done
            cat found
        }}
        flush() {{ journalctl --sync 2>/dev/null || kill -s RTMIN+1 $journald; }}
        {commands}
        kill $journald
    "#
    );
    place.write("script", script);
    place.shell("unshare --mount sh script >log 2>&1 || { cat log journald.log >&2; exit 9; }").exits(0);
}

#[test]
fn the_journal_finds_what_was_invalid() {
    let place = place(&with(VERIFY, "signature_timeout = \"1ms\""));
    place.write("in/bad\nname", "content");
    with_journald(
        &place,
        r#"
        "$KMS_SIG" watch --policy policy.toml --once --log-format journal || [ $? = 1 ]
        flush
        find -t kms-sig KMSSIG_VERDICT=invalid -o cat >by-verdict
        find MESSAGE_ID=155857381a8e4249bc6cece5196d3028 KMSSIG_CODE=quarantined -o json >by-id
        "#,
    );
    let found = String::from_utf8(place.read("by-verdict")).unwrap();
    assert!(
        found.starts_with("quarantined rule=\"verify\" file=bad\\x0aname verdict=\"invalid\""),
        "{found}"
    );
    let by_id: serde_json::Value = serde_json::from_slice(&place.read("by-id")).unwrap();
    assert_eq!(by_id["KMSSIG_REASON"], "missing");
    assert_eq!(by_id["PRIORITY"], "3");
}

#[test]
fn the_journal_says_at_its_own_level_why_there_is_no_daemon() {
    let place = place("[[watch]]\nname = \"r\"\ncolour = \"blue\"\nmode = \"sign\"\n");
    // As systemd starts it: standard error is the journal's stream.
    with_journald(
        &place,
        r#"
        exec 2>stderr
        export JOURNAL_STREAM=$(stat -L -c %d:%i /dev/stderr)
        "$KMS_SIG" watch --policy policy.toml || [ $? = 2 ]
        mkdir state
        sed -i "/colour/d; /allow_root/d; s/sign/verify/" policy.toml
        cat >>policy.toml <<-TOML
			path = "in"
			trusted_keys = ["local:demo"]
			in_place = true
			on_invalid = "log"
			on_missing = "log"
		TOML
        "$KMS_SIG" watch --policy policy.toml || [ $? = 2 ]
        flush
        find -p err -t kms-sig KMSSIG_LINE=7 -o cat >fault
        find -p err -t kms-sig MESSAGE_ID=ecaf0fa5bcbf413b8f2125c98c52f146 -o cat >ended
        "#,
    );
    let said = |file: &str| String::from_utf8(place.read(file)).unwrap();
    assert!(said("fault").starts_with("the policy has a fault file=\""), "{}", said("fault"));
    assert!(said("fault").contains("colour"), "{}", said("fault"));
    assert!(
        said("ended").starts_with("ended by an error reason=\"refusing to run as root;"),
        "{}",
        said("ended")
    );
    assert_eq!(said("stderr"), "", "and nothing twice");
}

/// A journald that is there and reads nothing, in a `/run` of this thread's own.
#[test]
fn o12_a_journal_that_nobody_reads_stops_no_work() {
    mount::private();
    let _run = Mount::tmpfs(Path::new("/run"), "mode=0755");
    fs::create_dir_all("/run/systemd/journal").unwrap();
    let journald = UnixDatagram::bind("/run/systemd/journal/socket").unwrap();
    let place = place(SIGN);
    let mut command = Command::new(PROGRAM);
    command.args(["watch", "--policy", "policy.toml", "--log-format", "journal"]);
    let daemon = Daemon::spawn(place.prepare(command));
    for i in 0..1000 {
        place.write(format!("in/{i}"), "content");
    }
    daemon.until("signed all", || (0..1000).all(|i| place.path(format!("in/{i}.sig")).exists()));
    daemon.until("counted all", || status(&place)["rules"][0]["outcomes"]["signed"] == 1000);
    assert_eq!(status(&place)["log_lines_dropped"], 0, "there was room for these");
    let asked_to_end = Instant::now();
    assert_eq!(daemon.stop().code(), Some(0));
    assert!(asked_to_end.elapsed() < Duration::from_secs(30), "{:?}", asked_to_end.elapsed());
    drop(journald);
}

/// A journald that is started anew, with another socket: what was logged meanwhile waits for it.
#[test]
fn o12_a_journald_that_is_restarted_gets_what_was_logged_meanwhile() {
    mount::private();
    let _run = Mount::tmpfs(Path::new("/run"), "mode=0755");
    fs::create_dir_all("/run/systemd/journal").unwrap();
    let socket = Path::new("/run/systemd/journal/socket");
    let journald = UnixDatagram::bind(socket).unwrap();
    let place = place(SIGN);
    let mut command = Command::new(PROGRAM);
    command.args(["watch", "--policy", "policy.toml", "--log-format", "journal"]);
    let daemon = Daemon::spawn(place.prepare(command));
    place.write("in/f", "content");
    let reads = |journald: &UnixDatagram, text: &str| {
        journald.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let length = journald.recv(&mut buffer).unwrap_or_else(|e| panic!("{text}: {e}"));
            if String::from_utf8_lossy(&buffer[..length]).contains(text) {
                return;
            }
        }
    };
    reads(&journald, "signed rule=\"sign\" file=f");
    drop(journald);
    fs::remove_file(socket).unwrap();
    place.write("in/g", "content");
    daemon.until("counted", || status(&place)["rules"][0]["outcomes"]["signed"] == 2);
    std::thread::sleep(Duration::from_millis(500)); // longer than it takes to try in vain
    let journald = UnixDatagram::bind(socket).unwrap();
    reads(&journald, "signed rule=\"sign\" file=g");
    assert_eq!(daemon.stop().code(), Some(0));
}
