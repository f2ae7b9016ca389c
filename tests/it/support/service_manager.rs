//! A service manager that listens: it binds the socket that `NOTIFY_SOCKET` names and reads what comes.

use std::collections::VecDeque;
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use super::place::Place;
use super::wait::PATIENCE;

/// A service manager that listens.
pub(crate) struct Manager {
    messages: Arc<(Mutex<VecDeque<String>>, Condvar)>,
}

impl Manager {
    /// Listens for the runs of a place.
    pub(crate) fn of(place: &mut Place) -> Self {
        let path = place.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        place.set("NOTIFY_SOCKET", path);
        let messages = Arc::new((Mutex::new(VecDeque::new()), Condvar::new()));
        let to = Arc::clone(&messages);
        std::thread::spawn(move || {
            let mut buffer = [0; 64 * 1024];
            while let Ok(length) = socket.recv(&mut buffer) {
                to.0.lock().unwrap().push_back(String::from_utf8(buffer[..length].to_vec()).unwrap());
                to.1.notify_all();
            }
        });
        Self { messages }
    }

    /// Takes the next message.
    #[track_caller]
    pub(crate) fn next(&self) -> String {
        let until = Instant::now() + PATIENCE;
        let mut messages = self.messages.0.lock().unwrap();
        loop {
            if let Some(message) = messages.pop_front() {
                return message;
            }
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no message came");
            messages = self.messages.1.wait_timeout(messages, left).unwrap().0;
        }
    }

    /// Takes messages until one has this line, and returns that one.
    #[track_caller]
    pub(crate) fn waits_for(&self, line: &str) -> String {
        loop {
            let message = self.next();
            if message.lines().any(|l| l == line) {
                return message;
            }
        }
    }

    /// Takes messages until one has a status that says so.
    #[track_caller]
    pub(crate) fn waits_for_status(&self, part: &str) -> String {
        loop {
            if let Some(status) = status(&self.next()).filter(|status| status.contains(part)) {
                return status;
            }
        }
    }

    /// Takes what has come so far.
    pub(crate) fn so_far(&self) -> Vec<String> {
        self.messages.0.lock().unwrap().drain(..).collect()
    }
}

pub(crate) fn value(message: &str, name: &str) -> Option<String> {
    message.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

pub(crate) fn status(message: &str) -> Option<String> {
    value(message, "STATUS")
}
