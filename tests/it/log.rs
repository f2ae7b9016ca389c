//! Whoever reads the log: one that is stuck stops no work, one that is slow gets every line.

use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::control::{asked, status};
use crate::support::place::{PROGRAM, Place};
use crate::support::policy::{SIGN, place};
use crate::support::wait::PATIENCE;

/// Ends within its limits although nobody reads: none of the files in hand takes long here.
const LIMIT: Duration = Duration::from_secs(30);

/// A daemon whose standard error goes to a pipe.
struct Watch {
    child: Child,
}

impl Watch {
    fn start(place: &Place, options: &[&str], stderr: PipeWriter, stdout: Stdio) -> Self {
        let mut command = Command::new(PROGRAM);
        command.arg("watch").args(options);
        if !options.contains(&"--policy") {
            command.args(["--policy", "policy.toml"]);
        }
        let mut command = place.prepare(command);
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().unwrap();
        Self { child }
    }

    fn terminate(&self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
    }

    #[track_caller]
    fn ends_within(&mut self, limit: Duration) -> ExitStatus {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it still runs after {limit:?}");
            std::thread::sleep(Duration::from_millis(5)); // between looks
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A pipe that takes no more until somebody reads.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'\n'; 512]).is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

fn write_files(place: &Place, n: usize) {
    (0..n).for_each(|i| place.write(format!("in/{i}.part"), "content"));
    (0..n).for_each(|i| {
        std::fs::rename(place.path(format!("in/{i}.part")), place.path(format!("in/{i}"))).unwrap();
    });
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + 2 * PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "never {what}");
        std::thread::sleep(Duration::from_millis(20)); // between looks, not in place of one
    }
}

fn signed(place: &Place, n: usize) -> bool {
    (0..n).all(|i| place.path(format!("in/{i}.sig")).exists())
}

/// Whether a daemon answers, and has begun.
fn is_ready(place: &Place) -> bool {
    asked(place, "status --json").pop().is_some_and(|status| status["phase"] == "ready")
}

fn messages(lines: &[String]) -> Vec<Value> {
    let parsed = |line: &String| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
    lines.iter().filter(|line| !line.is_empty()).map(parsed).collect()
}

/// The reader of `mkfifo p; sleep 300 <p & kms-sig watch … 2>p`.
#[test]
fn o12_a_reader_of_the_log_that_is_stuck_stops_no_work() {
    let place = place(SIGN);
    let (_reader, writer) = pipe().unwrap();
    let mut watch = Watch::start(&place, &[], writer, Stdio::null());
    write_files(&place, 1000);
    until("signed all", || signed(&place, 1000));
    until("counted all", || status(&place)["rules"][0]["outcomes"]["signed"] == 1000);
    assert_eq!(status(&place)["log_lines_dropped"], 0, "there was room for these");
    watch.terminate();
    assert_eq!(watch.ends_within(LIMIT).code(), Some(0));
}

/// What is said at the start goes to the other stream, and to the same reader.
#[test]
fn o12_a_reader_of_both_streams_that_is_stuck_stops_neither_work_nor_signals() {
    for format in ["human", "json"] {
        let place = place(SIGN);
        let (_reader, writer) = full_pipe();
        let stdout = writer.try_clone().unwrap().into();
        let mut watch = Watch::start(&place, &["--log-format", format], writer, stdout);
        write_files(&place, 20);
        until("signed all", || signed(&place, 20));
        until("ready", || is_ready(&place));
        watch.terminate();
        assert_eq!(watch.ends_within(LIMIT).code(), Some(0), "{format}");
    }
}

/// A run that ends by itself says at the end what it did, and waits for somebody to read that; who
/// does not want to wait says so.
#[test]
fn o12_once_ends_by_a_signal_although_nobody_reads_what_it_says() {
    let place = place(SIGN);
    write_files(&place, 20);
    let (_reader, writer) = full_pipe();
    let stdout = writer.try_clone().unwrap().into();
    let mut watch = Watch::start(&place, &["--once"], writer, stdout);
    until("signed all", || signed(&place, 20));
    let until = Instant::now() + LIMIT;
    while watch.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "it still runs");
        watch.terminate(); // it may come while nobody listens yet: people repeat it
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// As others may have made it: `O_NONBLOCK` belongs to all who have a stream open.
fn make_non_blocking(writer: &PipeWriter) {
    fcntl_setfl(writer, fcntl_getfl(writer).unwrap() | OFlags::NONBLOCK).unwrap();
}

#[test]
fn o12_a_slow_reader_gets_every_line_before_the_end() {
    for is_non_blocking in [false, true] {
        let place = place(SIGN);
        write_files(&place, 300);
        let (reader, writer) = full_pipe();
        if is_non_blocking {
            make_non_blocking(&writer);
        }
        let stdout = writer.try_clone().unwrap().into();
        let mut watch = Watch::start(&place, &["--once", "--log-format", "json"], writer, stdout);
        until("signed all", || signed(&place, 300));
        let mut lines: Vec<String> = Vec::new();
        for line in BufReader::with_capacity(512, reader).lines() {
            lines.push(line.unwrap());
            if !lines.last().unwrap().is_empty() && lines.len().is_multiple_of(10) {
                std::thread::sleep(Duration::from_millis(5)); // as slow as it is
            }
        }
        assert_eq!(watch.ends_within(LIMIT).code(), Some(0));
        assert_eq!(lines.pop().as_deref(), Some("sign: 300 signed"), "the answer comes last");
        let events = messages(&lines);
        let signed = events.iter().filter(|event| event["message"] == "signed").count();
        assert_eq!(signed, 300, "non-blocking: {is_non_blocking}");
    }
}

#[test]
fn o12_the_last_lines_of_a_daemon_reach_a_reader_that_is_slow() {
    let place = place(SIGN);
    let (mut reader, writer) = full_pipe();
    let mut watch = Watch::start(&place, &["--log-format", "json"], writer, Stdio::null());
    until("ready", || is_ready(&place));
    watch.terminate();
    std::thread::sleep(Duration::from_secs(1)); // it has ended by now, if it does not wait
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(watch.ends_within(LIMIT).code(), Some(0));
    let events = messages(&text.lines().map(str::to_owned).collect::<Vec<_>>());
    let last = events.last().unwrap();
    assert_eq!(last["message"], "stopping; files in hand are finished first", "{events:#?}");
}

#[test]
fn o12_why_there_is_no_daemon_reaches_a_reader_that_is_slow() {
    let place = place("zzzzzz = 1\n");
    let (mut reader, writer) = full_pipe();
    let mut watch = Watch::start(&place, &[], writer, Stdio::null());
    std::thread::sleep(Duration::from_secs(1));
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(watch.ends_within(LIMIT).code(), Some(2));
    assert!(text.contains("zzzzzz"), "{text}");
}

#[test]
fn o12_what_nobody_reads_is_dropped_counted_and_said_when_somebody_reads_again() {
    let place = place(SIGN);
    let (reader, writer) = pipe().unwrap();
    // The other one stays good, for who asks how it stands.
    place.write("its.toml", place.read("policy.toml"));
    let options = ["--policy", "its.toml", "--log-format", "json"];
    let mut watch = Watch::start(&place, &options, writer, Stdio::null());
    until("ready", || is_ready(&place));
    // Each reload says every fault of the policy.
    let faults: String = (0..4000).map(|n| format!("{}{n} = 1\n", "z".repeat(200))).collect();
    place.write("its.toml", faults);
    let reload = || kill_process(Pid::from_child(&watch.child), Signal::HUP).unwrap();
    until("full", || {
        let now = status(&place);
        // One that is asked for while another goes on takes its place.
        if now["phase"] == "ready" {
            reload();
        }
        now["log_lines_dropped"].as_u64().unwrap() > 0
    });
    let stuck = status(&place);
    assert_eq!(stuck["concerns"][0]["kind"], "log-stuck", "{stuck:#}");
    place.write("in/f", "content");
    until("signed", || place.path("in/f.sig").exists());
    let dropped = || status(&place)["log_lines_dropped"].as_u64().unwrap();
    // Somebody reads again.
    let (found, lines) = std::sync::mpsc::channel();
    let reading = std::thread::spawn(move || {
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
            found.send(event).ok();
        }
    });
    let mut said = 0;
    while said == 0 {
        let event = lines.recv_timeout(PATIENCE).unwrap();
        if event["message"] == "log lines were dropped" {
            assert_eq!(event["level"], "WARN");
            said = event["lines"].as_u64().unwrap();
        }
    }
    assert!(said > 0 && said <= dropped(), "{said} of {}", dropped());
    until("nothing is dropped any more", || {
        status(&place)["concerns"].as_array().unwrap().iter().all(|concern| concern["kind"] != "log-stuck")
    });
    place.write("in/g", "content");
    let of_g = |event: &Value| event["message"] == "signed" && event["file"] == "g";
    let mut rest = Vec::new();
    while !rest.last().is_some_and(of_g) {
        rest.push(lines.recv_timeout(PATIENCE).unwrap());
    }
    let later = rest.iter().filter(|event| event["message"] == "log lines were dropped");
    said += later.map(|event| event["lines"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(said, dropped(), "all that was dropped was said");
    watch.terminate();
    assert_eq!(watch.ends_within(LIMIT).code(), Some(0));
    reading.join().unwrap();
}

#[test]
fn o12_a_log_that_cannot_be_written_stops_no_work() {
    for stderr in ["2>/dev/full", "2>&-", "2> >(exit)"] {
        let place = place(SIGN);
        write_files(&place, 3);
        let script = format!("exec bash -c '\"$KMS_SIG\" watch --policy policy.toml --once {stderr}'");
        place.shell(&script).exits(0).says("sign: 3 signed\n");
        assert!(signed(&place, 3), "{stderr}");
    }
}
