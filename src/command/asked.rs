//! What the commands that ask a daemon have in common: which one, and times as people read them.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;

use super::{Failure, block_on};
use crate::cli::DaemonArgs;
use crate::control::client::Daemon;
use crate::control::report::Outcome;
use crate::control::{self, SYSTEM_SOCKET};
use crate::policy::Policy;

/// Where the daemon that is meant may answer.
pub(super) fn sockets(daemon: &DaemonArgs) -> Result<Vec<PathBuf>, Failure> {
    Ok(match (&daemon.socket, &daemon.policy) {
        (Some(socket), _) => vec![socket.clone()],
        (None, Some(policy)) => control::sockets(&Policy::load(policy)?),
        (None, None) => vec![SYSTEM_SOCKET.into()],
    })
}

/// Asks for something.
pub(super) fn get<T: DeserializeOwned>(daemon: &DaemonArgs, target: &str) -> Result<T, Failure> {
    let sockets = sockets(daemon)?;
    Ok(block_on(async { Daemon::at(&sockets).await?.get(target).await })??)
}

/// Orders something.
pub(super) fn order(daemon: &DaemonArgs, target: &str) -> Result<Outcome, Failure> {
    let sockets = sockets(daemon)?;
    Ok(block_on(async { Daemon::at(&sockets).await?.order(target).await })??)
}

/// Text as part of a query (RFC 3986, section 2.1).
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' => {
                encoded.push(char::from(byte))
            }
            byte => encoded += &format!("%{byte:02X}"),
        }
    }
    encoded
}

/// How long before `now` that was, both as the daemon writes times.
pub(super) fn ago(then: &str, now: &str) -> String {
    format!("{} ago", between(then, now).map_or("some time".to_owned(), span))
}

/// In how long it is, as [`ago`].
pub(super) fn until(then: &str, now: &str) -> String {
    match between(now, then) {
        Some(wait) if wait >= Duration::from_secs(1) => format!("in {}", span(wait)),
        Some(_) | None => "now".to_owned(),
    }
}

fn between(first: &str, second: &str) -> Option<Duration> {
    let read = |text: &str| -> Option<SystemTime> { humantime::parse_rfc3339(text).ok() };
    Some(read(second)?.duration_since(read(first)?).unwrap_or_default())
}

/// A duration in its two largest units.
pub(super) fn span(duration: Duration) -> String {
    let whole = humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string();
    whole.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_in_two_units() {
        let at = "2026-11-24T10:00:00.000Z";
        assert_eq!(ago("2026-11-22T06:59:58.000Z", at), "2days 3h ago");
        assert_eq!(ago(at, "2026-11-24T09:00:00.000Z"), "0s ago", "a clock that was set back");
        assert_eq!(until("2026-11-24T10:03:07.000Z", at), "in 3m 7s");
        assert_eq!(until(at, at), "now");
        assert_eq!(ago("never", at), "some time ago");
    }

    #[test]
    fn what_goes_into_a_query_is_encoded() {
        assert_eq!(encoded("a b&c=\u{e4}:1"), "a%20b%26c%3D%C3%A4%3A1");
    }
}
