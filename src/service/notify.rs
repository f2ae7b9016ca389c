//! Messages to the service manager, as sd_notify(3) words them.
//!
//! Written here because the crate for it (`sd-notify`) reads `NOTIFY_SOCKET` anew for each message,
//! so that the variable would have to stay for children to inherit, and knows no abstract sockets.
//! The address is taken once; each message is one datagram. A message that does not get through is
//! the caller's to repeat.

use std::ffi::OsString;
use std::fmt;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::environment::forget;
use crate::message::log;

/// How long a message may take where the service manager does not read.
const PATIENCE: Duration = Duration::from_millis(200);

/// One thing to tell.
#[derive(Debug, Clone, Copy)]
pub(crate) enum State<'a> {
    /// Started, or done with a reload.
    Ready,
    /// Reloading was ordered.
    Reloading {
        /// When, by `CLOCK_MONOTONIC`; without it systemd 253 and later take the reload for failed.
        asked: Duration,
    },
    /// Stopping was ordered.
    Stopping,
    /// How it stands, on one line.
    Status(&'a str),
    /// Every loop turns.
    Watchdog,
}

impl fmt::Display for State<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => f.write_str("READY=1"),
            Self::Reloading { asked } => write!(f, "RELOADING=1\nMONOTONIC_USEC={}", asked.as_micros()),
            Self::Stopping => f.write_str("STOPPING=1"),
            Self::Status(text) => write!(f, "STATUS={text}"),
            Self::Watchdog => f.write_str("WATCHDOG=1"),
        }
    }
}

/// The socket of the service manager, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

/// The variables that say where and how often.
const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG_LIMIT: &str = "WATCHDOG_USEC";
const WATCHDOG_PROCESS: &str = "WATCHDOG_PID";

impl Notifier {
    /// Takes what the service manager says in the environment, and removes it there, so that a
    /// process we start (a credential process) does not speak for us. To be called while there is
    /// one thread; later it takes the variables and leaves them.
    pub(crate) fn from_environment() -> Self {
        let socket = std::env::var_os(SOCKET).filter(|value| !value.is_empty());
        let limit = std::env::var(WATCHDOG_LIMIT).ok();
        let process = std::env::var(WATCHDOG_PROCESS).ok();
        forget(&[SOCKET, WATCHDOG_LIMIT, WATCHDOG_PROCESS]);
        let socket = socket.and_then(|socket| match open(&socket) {
            Ok(socket) => Some(socket),
            Err(error) => {
                log!(NotifyFailed, %error);
                None
            }
        });
        Self { socket, watchdog: watchdog(limit.as_deref(), process.as_deref(), std::process::id()) }
    }

    /// Whether there is a service manager to notify.
    pub(crate) fn is_listened_to(&self) -> bool {
        self.socket.is_some()
    }

    /// The limit of its watchdog, if it has one.
    pub(crate) fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Sends a notification; returns whether it was sent. Without a service manager it always
    /// succeeds.
    pub(crate) fn send(&self, states: &[State<'_>]) -> bool {
        let Some((socket, address)) = &self.socket else { return true };
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        socket.send_to_addr(message.as_bytes(), address).is_ok()
    }
}

/// A path, or after an `@` the name of an abstract socket.
fn open(address: &OsString) -> std::io::Result<(UnixDatagram, SocketAddr)> {
    let address = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok((socket, address))
}

/// The limit, if it is one and meant for this process.
fn watchdog(limit: Option<&str>, process: Option<&str>, me: u32) -> Option<Duration> {
    if process.is_some_and(|process| process.parse() != Ok(me)) {
        return None;
    }
    limit?.parse().ok().filter(|limit| *limit > 0).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_read_as_the_manual_has_them() {
        let asked = Duration::new(5, 7_000);
        for (state, text) in [
            (State::Ready, "READY=1"),
            (State::Reloading { asked }, "RELOADING=1\nMONOTONIC_USEC=5000007"),
            (State::Stopping, "STOPPING=1"),
            (State::Status("2 rules"), "STATUS=2 rules"),
            (State::Watchdog, "WATCHDOG=1"),
        ] {
            assert_eq!(state.to_string(), text);
        }
    }

    #[test]
    fn the_watchdog_of_another_process_is_not_ours() {
        let minute = Some(Duration::from_secs(60));
        for (limit, process, expected) in [
            (Some("60000000"), None, minute),
            (Some("60000000"), Some("42"), minute),
            (Some("60000000"), Some("43"), None),
            (Some("60000000"), Some(""), None),
            (Some("0"), None, None),
            (Some("soon"), None, None),
            (None, Some("42"), None),
        ] {
            assert_eq!(watchdog(limit, process, 42), expected, "{limit:?} {process:?}");
        }
    }

    #[test]
    fn an_address_after_an_at_sign_is_abstract() {
        let name = format!("kms-sig-test-{}", std::process::id());
        let here = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let notifier = Notifier { socket: Some(open(&format!("@{name}").into()).unwrap()), watchdog: None };
        assert!(notifier.send(&[State::Ready, State::Status("well")]));
        let mut buffer = [0; 64];
        let length = here.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1\nSTATUS=well\n");
        drop(here);
        assert!(!notifier.send(&[State::Ready]), "nobody there: to be repeated");
    }
}
