//! A service manager that listens: it binds the socket that `NOTIFY_SOCKET` names and reads what
//! comes.

use std::os::unix::net::UnixDatagram;

use super::place::Place;
use super::wait::Heard;

/// A service manager that listens.
pub(crate) struct Manager {
    messages: Heard<String>,
}

impl Manager {
    /// Listens for the runs of a place.
    pub(crate) fn of(place: &mut Place) -> Self {
        let path = place.path("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        place.set("NOTIFY_SOCKET", path);
        let messages = Heard::new();
        let to = messages.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 64 * 1024];
            while let Ok(length) = socket.recv(&mut buffer) {
                to.add([String::from_utf8(buffer[..length].to_vec()).unwrap()]);
            }
        });
        Self { messages }
    }

    /// Takes the next message.
    #[track_caller]
    pub(crate) fn next(&self) -> String {
        let first = |messages: &mut Vec<String>| (!messages.is_empty()).then(|| messages.remove(0));
        let Some(message) = self.messages.wait_for(first) else { panic!("no message came") };
        message
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
        self.messages.so_far(std::mem::take)
    }
}

pub(crate) fn value(message: &str, name: &str) -> Option<String> {
    message.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
}

pub(crate) fn status(message: &str) -> Option<String> {
    value(message, "STATUS")
}
