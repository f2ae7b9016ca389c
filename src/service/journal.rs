//! The journal as the log: each event an entry with fields of its own, by journald's native
//! protocol (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).
//!
//! Written here because the crate for it (`tracing-journald`) cannot give an event its
//! `MESSAGE_ID`, and puts nothing but the fixed text into `MESSAGE`, which is all that `journalctl`
//! shows unasked. Values are what the other formats show: names escaped, never as they are (P9).

use std::fmt::{self, Write as _};
use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::message;
use crate::escape::word;
use crate::log_queue::{self, LogQueue, Output};

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// How long an entry of a command may take where journald does not read; then it is lost, and the
/// work goes on.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks whether journald is there again.
const RETRY: Duration = Duration::from_millis(200);
/// The longest value, in bytes: the longest path, escaped. An entry of a dozen of them is still one
/// datagram.
const LONGEST: usize = 16 * 1024;
/// What every field of ours begins with.
const PREFIX: &str = "KMSSIG_";
/// What `journalctl -t` takes.
const IDENTIFIER: &str = "kms-sig";

/// A layer that sends events to the journal.
#[derive(Debug)]
pub struct Journal(Way);

/// How entries get there.
#[derive(Debug)]
enum Way {
    /// At once.
    Direct(Socket),
    /// When it is their turn.
    Queued(LogQueue),
}

#[derive(Debug)]
struct Socket {
    socket: UnixDatagram,
    to: PathBuf,
}

impl Journal {
    /// The journal of this host.
    ///
    /// # Errors
    /// Nobody listens there, or the process may not write to it.
    pub fn open() -> io::Result<Self> {
        Self::at(Path::new(SOCKET))
    }

    /// The journal behind another socket.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        socket.send_to(&[], path)?; // an empty entry, which journald drops
        Ok(Self(Way::Direct(Socket { socket, to: path.to_owned() })))
    }

    /// The same, where entries wait for their turn in a queue (see [`log_queue`]), and who logs
    /// does not wait for journald.
    ///
    /// # Errors
    /// None that can be brought about from outside.
    pub fn queued(self) -> io::Result<Self> {
        let Way::Direct(socket) = self.0 else { return Ok(self) };
        socket.socket.set_write_timeout(None)?; // the queue has time
        Ok(Self(Way::Queued(log_queue::open(socket))))
    }
}

impl Output for Socket {
    fn write(&mut self, entry: &[u8]) -> io::Result<()> {
        loop {
            match self.socket.send_to(entry, &self.to) {
                // It is being restarted, and entries are kept for it as long as there is room.
                Err(error) if is_away(&error) => thread::sleep(RETRY),
                done => return done.map(drop),
            }
        }
    }
}

/// Whether journald may be there again in a moment: nobody listens at the socket, or the kernel has
/// no buffer free.
fn is_away(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let errno = Errno::from_io_error(error);
    matches!(
        errno,
        Some(
            Errno::NOENT
                | Errno::CONNREFUSED
                | Errno::CONNRESET
                | Errno::PIPE
                | Errno::NOBUFS
                | Errno::NOMEM
                | Errno::AGAIN
                | Errno::INTR
        )
    )
}

/// Whether standard error goes to the journal: `JOURNAL_STREAM` names the very stream that it is
/// (systemd.exec(5)).
pub fn has_stderr() -> bool {
    let named = std::env::var("JOURNAL_STREAM").ok();
    let named = named.as_deref().and_then(|value| value.split_once(':'));
    let stream = rustix::fs::fstat(io::stderr());
    match (named, stream) {
        (Some((device, inode)), Ok(stream)) => {
            device.parse() == Ok(stream.st_dev) && inode.parse() == Ok(stream.st_ino)
        }
        (None, _) | (_, Err(_)) => false,
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut words = Words::default();
        event.record(&mut words);
        let entry = entry(*event.metadata().level(), event.metadata().target(), words);
        match &self.0 {
            // Who cannot log has nowhere to say so; it must not stop the work.
            Way::Direct(Socket { socket, to }) => {
                socket.send_to(&entry, to).unwrap_or_default();
            }
            Way::Queued(queue) => queue.push(&entry),
        }
    }
}

/// What an event says.
#[derive(Debug, Default)]
struct Words {
    message: String,
    /// The fields, as they look after `message` in the human format.
    tail: String,
    fields: Vec<(&'static str, String)>,
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.to_owned(), &format!("{value:?}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let value = format!("{value:?}");
        self.put(field, value.clone(), &value);
    }
}

impl Words {
    fn put(&mut self, field: &Field, mut value: String, shown: &str) {
        value.truncate(value.floor_char_boundary(LONGEST));
        if field.name() == "message" {
            self.message = value;
            return;
        }
        write!(self.tail, " {}={}", field.name(), word(shown)).unwrap_or_default(); // a String takes everything
        self.fields.push((field.name(), value));
    }
}

/// An entry as journald reads it.
fn entry(level: Level, target: &str, words: Words) -> Vec<u8> {
    let mut entry = Vec::with_capacity(512);
    let priority = match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    };
    put(&mut entry, "PRIORITY", priority);
    put(&mut entry, "SYSLOG_IDENTIFIER", IDENTIFIER);
    if let Some(id) = message::id(&words.message) {
        put(&mut entry, "MESSAGE_ID", &format!("{id:032x}"));
    }
    let mut line = words.message + &words.tail;
    line.truncate(line.floor_char_boundary(2 * LONGEST));
    put(&mut entry, "MESSAGE", &line);
    put(&mut entry, "KMSSIG_TARGET", target);
    for (name, value) in words.fields {
        put(&mut entry, &format!("{PREFIX}{}", name.to_ascii_uppercase()), &value);
    }
    entry
}

/// Name and value, with the value's length before it: no content can end it early and begin a field
/// of its own.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend_from_slice(name.as_bytes());
    entry.push(b'\n');
    entry.extend_from_slice(&(value.len() as u64).to_le_bytes());
    entry.extend_from_slice(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::escape::Escaped;

    /// Reads an entry as journald does.
    fn parsed(mut rest: &[u8]) -> BTreeMap<String, String> {
        let mut fields = BTreeMap::new();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let name = String::from_utf8(rest[..end].to_vec()).unwrap();
            let length = u64::from_le_bytes(rest[end + 1..end + 9].try_into().unwrap()) as usize;
            let value = &rest[end + 9..end + 9 + length];
            assert_eq!(rest[end + 9 + length], b'\n');
            let before = fields.insert(name, String::from_utf8(value.to_vec()).unwrap());
            assert_eq!(before, None, "no field comes twice");
            rest = &rest[end + 10 + length..];
        }
        assert!(rest.is_empty());
        fields
    }

    fn logged(log: impl FnOnce()) -> BTreeMap<String, String> {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let layer = Journal::at(&path).unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        let mut buffer = vec![0; 256 * 1024];
        assert_eq!(journald.recv(&mut buffer).unwrap(), 0, "first, whether anybody listens");
        let length = journald.recv(&mut buffer).unwrap();
        parsed(&buffer[..length])
    }

    #[test]
    fn an_entry_has_its_fields_and_can_be_found_by_them() {
        let entry = logged(|| {
            tracing::error!(rule = "in", file = %"f", verdict = "invalid", size = 6, "quarantined");
        });
        let expected = [
            ("KMSSIG_FILE", "f"),
            ("KMSSIG_RULE", "in"),
            ("KMSSIG_SIZE", "6"),
            ("KMSSIG_TARGET", "kms_sig::service::journal::tests"),
            ("KMSSIG_VERDICT", "invalid"),
            ("MESSAGE", "quarantined rule=\"in\" file=f verdict=\"invalid\" size=6"),
            ("PRIORITY", "3"),
            ("SYSLOG_IDENTIFIER", "kms-sig"),
        ];
        let mut entry = entry;
        let id = entry.remove("MESSAGE_ID").unwrap();
        assert_eq!(u128::from_str_radix(&id, 16).ok(), message::id("quarantined"));
        assert_eq!(entry, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    }

    #[test]
    fn a13_no_name_begins_a_field_of_its_own() {
        let name = OsStr::from_bytes(b"f\nPRIORITY=0\n\xff\x1b[31m");
        let shown = Escaped::new(name);
        let entry = logged(|| tracing::info!(file = %shown, "valid"));
        assert_eq!(entry["KMSSIG_FILE"], "f\\x0aPRIORITY=0\\x0a\\xff\\x1b[31m");
        assert_eq!(entry["PRIORITY"], "6");
        assert!(!entry["MESSAGE"].contains('\n'));
        // And if one slipped through unescaped, its length still holds it together.
        let entry = logged(|| tracing::info!(file = "f\nPRIORITY=0", "valid"));
        assert_eq!((entry["KMSSIG_FILE"].as_str(), entry["PRIORITY"].as_str()), ("f\nPRIORITY=0", "6"));
        assert!(!entry["MESSAGE"].contains('\n'));
    }

    #[test]
    fn p10_the_longest_names_fit_and_longer_values_are_cut() {
        let longest = OsStr::from_bytes(&[0xff; 4096]);
        let huge = "\u{fc}".repeat(1_000_000);
        let entry = logged(|| tracing::warn!(file = %Escaped::new(longest), reason = huge, "refused"));
        assert_eq!(entry["KMSSIG_FILE"].len(), 4 * 4096);
        assert_eq!(entry["KMSSIG_REASON"].len(), LONGEST);
    }
}
