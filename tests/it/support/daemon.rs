//! The daemon under test: a process that is started on the policy of a place, and what it logs.
//!
//! Waits on what the daemon says and on what lies in the directories, never for a time.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::place::{PROGRAM, Place};
use super::wait::{Heard, PATIENCE};

/// A daemon that is running, and everything it has logged.
pub(crate) struct Daemon {
    child: Child,
    log: Heard<Value>,
}

impl Daemon {
    /// Starts it on `policy.toml` of a place and waits until it is ready.
    pub(crate) fn start(place: &Place) -> Self {
        let daemon = Self::start_unready(place);
        daemon.waits_for("ready");
        daemon
    }

    /// Starts it and does not wait.
    pub(crate) fn start_unready(place: &Place) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(["watch", "--policy", "policy.toml", "--log-format", "json"]);
        Self::spawn(place.prepare(command))
    }

    /// Runs a command that is or becomes the daemon.
    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Heard::new();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let to = log.clone();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                to.add([serde_json::from_str(&line).unwrap_or(Value::String(line))]);
            }
            to.end();
        });
        Self { child, log }
    }

    /// Waits for a log event with this message, and returns the first.
    #[track_caller]
    pub(crate) fn waits_for(&self, message: &str) -> Value {
        self.waits_for_nth(message, 1)
    }

    /// Waits for the `n`th log event with this message.
    #[track_caller]
    pub(crate) fn waits_for_nth(&self, message: &str, n: usize) -> Value {
        let find =
            |events: &mut Vec<Value>| events.iter().filter(|e| e["message"] == message).nth(n - 1).cloned();
        let Some(event) = self.log.wait_for(find) else {
            panic!("never logged {message:?} ({n}); the log is\n{}", self.shown())
        };
        event
    }

    /// Waits for a log event whose message begins so, and returns the first.
    #[cfg(feature = "system-tests")]
    #[track_caller]
    pub(crate) fn waits_for_starting(&self, start: &str) -> Value {
        let begins =
            |event: &&Value| event["message"].as_str().is_some_and(|message| message.starts_with(start));
        let Some(event) = self.log.wait_for(|events| events.iter().find(begins).cloned()) else {
            panic!("never logged {start:?}; the log is\n{}", self.shown())
        };
        event
    }

    /// How often a message was logged so far.
    pub(crate) fn count(&self, message: &str) -> usize {
        self.events(message).len()
    }

    /// The events with a message so far, in their order.
    pub(crate) fn events(&self, message: &str) -> Vec<Value> {
        self.log.so_far(|events| events.iter().filter(|e| e["message"] == message).cloned().collect())
    }

    /// Whether any event has this text in it.
    pub(crate) fn said(&self, text: &str) -> bool {
        self.log.so_far(|events| events.iter().any(|event| event.to_string().contains(text)))
    }

    /// Waits until something holds.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !holds() {
            assert!(Instant::now() < until, "never {what}; the log is\n{}", self.shown());
            std::thread::sleep(Duration::from_millis(5)); // between looks, not in place of one
        }
    }

    /// The whole log so far, for a test that fails.
    fn shown(&self) -> String {
        self.log.so_far(|events| events.iter().map(|event| format!("{event}\n")).collect())
    }

    /// Has it read its policy anew.
    pub(crate) fn hang_up(&self) {
        self.signal(rustix::process::Signal::HUP);
    }

    /// The process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Asks it to end, and waits.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
