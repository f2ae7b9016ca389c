//! What a person can do about an error, where its own words do not say so.
//!
//! By kind of error, so that the same trouble gets the same advice from every command. Knows the
//! errors of the library that have no words for people; those that have keep them.

use std::io::{Error, ErrorKind};

use rustix::io::Errno;

use crate::context::ContextError;
use crate::daemon::{DaemonError, StoreError};
use crate::fs::atomic_write::WriteError;
use crate::fs::trust::TrustError;
use crate::fs::{Action, FsError};
use crate::key::{KeyError, Provider};
use crate::kms::local::KeyringError;
use crate::kms::{Hint, Trouble, TroubleKind};
use crate::signing::UnfitKey;
use crate::state::StateError;

/// For a file that cannot be read.
pub(super) fn reading(error: &Error) -> &'static str {
    match errno(error) {
        Errno::NOENT | Errno::NOTDIR => "check the path",
        Errno::ACCESS | Errno::PERM => "run this as a user who may read it",
        Errno::ISDIR => "name a file; of a directory, make an archive first",
        errno => others(errno),
    }
}

/// For a file that cannot be written.
pub(super) fn writing(error: &WriteError) -> &'static str {
    let source = match error {
        WriteError::Write { source, .. } | WriteError::Flush { source, .. } => source,
        WriteError::Open { .. } => return "mount it so, or name a place on a local file system",
        WriteError::Planted { .. } => return "remove the link",
        WriteError::Changed(_) => return "run it again when nobody else writes there",
    };
    match errno(source) {
        Errno::NOENT => "make its directory first, or name another place",
        Errno::NOTDIR => "check the path",
        Errno::ISDIR => "name a file in it",
        Errno::NAMETOOLONG => "name a shorter one",
        errno => others(errno),
    }
}

/// For a directory that cannot be made, opened or written to.
pub(super) const fn directory(error: &FsError) -> &'static str {
    if matches!(error.action, Action::KeepPrivate(_)) {
        return "mount it with the options that are named, or name a directory on a local file system";
    }
    match error.source {
        Errno::NOENT => "make it, or name another",
        Errno::NOTDIR | Errno::EXIST | Errno::LOOP => "move away what is there, or name another directory",
        errno => others(errno),
    }
}

/// For a stream that cannot be written.
pub(super) fn stream(error: &Error) -> &'static str {
    match errno(error) {
        Errno::PIPE => "what reads it ended before it had all of it; a part is worth nothing",
        errno => others(errno),
    }
}

const fn others(errno: Errno) -> &'static str {
    match errno {
        Errno::NOSPC | Errno::DQUOT => "make room there, or name another place",
        Errno::BADF => "it was closed (>&-), or not opened for this, when the command began: redirect it",
        Errno::ROFS => "name a place that can be written to",
        Errno::ACCESS | Errno::PERM => "run this as a user who may, or give this user the right",
        Errno::MFILE | Errno::NFILE => "raise the limit of open files (ulimit -n)",
        Errno::AGAIN | Errno::NOMEM => "try again, or raise the limits of processes and memory (ulimit -a)",
        _ => "try again; if it stays so, the kernel's log (dmesg) may know more",
    }
}

/// The kernel's number for it; some errors are found before a system call.
fn errno(error: &Error) -> Errno {
    let told = if error.kind() == ErrorKind::IsADirectory { Errno::ISDIR } else { Errno::IO };
    Errno::from_io_error(error).unwrap_or(told)
}

/// For a keyring that cannot be used.
pub(super) fn keyring(error: &KeyringError) -> Option<&'static str> {
    if let KeyringError::Write(error) = error { Some(writing(error)) } else { error.hint() }
}

/// For what KMS or the keyring did not do.
pub(super) fn trouble(provider: Provider, trouble: &Trouble) -> Option<&str> {
    match &trouble.hint {
        Hint::Own(hint) => return Some(hint),
        Hint::InMessage => return None,
        Hint::OfKind => {}
    }
    match (provider, trouble.kind) {
        (Provider::Aws, TroubleKind::Throttled) if cfg!(feature = "aws") => Some(
            "try again, or ask for a higher quota; the daemon slows down by itself, and keeps below limits.kms_per_second of its policy",
        ),
        (Provider::Aws, kind) if cfg!(feature = "aws") => Some(kind.hint()),
        (Provider::Aws, _) => Some("use a kms-sig that was built with AWS"),
        (Provider::Local, TroubleKind::NotFound) => {
            Some("kms-sig key list shows its keys, kms-sig key create local:NAME makes one")
        }
        (Provider::Local, _) => {
            Some("name the keyring that has the key (--keyring FILE), or put back a copy of it")
        }
    }
}

/// For a key that does not make what is asked for.
pub(super) const fn unfit(error: &UnfitKey) -> Option<&'static str> {
    match error {
        UnfitKey::Kind { .. } => Some("name another key, or another --format"),
        UnfitKey::AnotherKey => Some("name the certificate that was made of this key"),
        // They say what to write, or to do.
        UnfitKey::Certificate | UnfitKey::Expired(_) | UnfitKey::Comment(_) | UnfitKey::Namespace => None,
    }
}

/// For a text that names no key.
pub(super) const fn key(error: &KeyError) -> Option<&'static str> {
    match error {
        KeyError::TooLong => Some("write a key id, key ARN, alias/NAME, alias ARN or local:NAME"),
        // They say what a key looks like.
        KeyError::Empty
        | KeyError::Local(_)
        | KeyError::Arn(_)
        | KeyError::Unknown(_)
        | KeyError::NotPinned(_) => None,
    }
}

/// For a text that is no context.
pub(super) const fn context(error: &ContextError) -> Option<&'static str> {
    match error {
        ContextError::TooLong(_) => Some("leave out what verifying need not know, or shorten it"),
        // They say what to write.
        ContextError::NoEquals(_)
        | ContextError::EmptyKey(_)
        | ContextError::Repeated(_)
        | ContextError::Reserved(_)
        | ContextError::Placeholder(_) => None,
    }
}

/// For state that cannot be used.
pub(super) const fn state(error: &StateError) -> Option<&'static str> {
    match error {
        StateError::Full(_) => Some("make room for [state] dir"),
        StateError::Busy(_) => Some("find the process that keeps state.db locked, and end it"),
        StateError::Broken(..) => {
            Some("check its disk and permissions; without state.db the daemon begins a new one")
        }
        StateError::Version(..) => None, // it says so
    }
}

/// For what may not be trusted: it says what to change, but where the kernel did not let us look.
pub(super) fn trust(error: &TrustError) -> Option<&'static str> {
    match error {
        TrustError::Io(error) => Some(directory(error)),
        TrustError::Missing(_)
        | TrustError::Symlink(_)
        | TrustError::Link { .. }
        | TrustError::Owner { .. }
        | TrustError::Writable { .. }
        | TrustError::Open { .. }
        | TrustError::WorldWritable { .. } => None,
    }
}

/// For a daemon that did not start, or ended.
pub(super) fn daemon(error: &DaemonError) -> Option<&str> {
    match error {
        DaemonError::Trust(error) | DaemonError::Store(StoreError::Trust(error)) => trust(error),
        DaemonError::Store(StoreError::Fs(error)) | DaemonError::Fs(error) => Some(directory(error)),
        DaemonError::State(error) => state(error),
        DaemonError::Fatal(hold) => Some(hold.hint()),
        DaemonError::Worker(_) => Some("report it, with the log"),
        // They say what to do, or that nothing is to be done.
        DaemonError::Root
        | DaemonError::Host(_) // its hint is put together for the host
        | DaemonError::Locked(_)
        | DaemonError::Store(StoreError::Locked(_))
        | DaemonError::Fixed(_)
        | DaemonError::Unfinished => None,
    }
}

#[cfg(all(test, feature = "aws"))]
mod tests {
    use super::*;

    #[test]
    fn trouble_of_the_command_line_is_not_sent_to_a_policy_that_it_has_not() {
        let hint =
            |kind, message: &str| trouble(Provider::Aws, &Trouble::new(kind, message)).map(str::to_owned);
        assert!(
            hint(TroubleKind::Throttled, "").unwrap().starts_with("try again, or ask for a higher quota")
        );
        // What says itself what to do, needs no second advice, and least of all one about keys.
        let told = Trouble::new(TroubleKind::Request, "no AWS Region is known: set AWS_REGION");
        assert_eq!(trouble(Provider::Aws, &told.clone().that_says_what_to_do()), None);
        assert!(trouble(Provider::Aws, &told).is_some(), "what it says is not read");
        assert!(hint(TroubleKind::Request, "").unwrap().contains("the key's name"));
        let of_kms = Trouble {
            code: Some("ValidationException".into()),
            ..Trouble::new(TroubleKind::Request, "a; b")
        };
        assert!(trouble(Provider::Aws, &of_kms).unwrap().contains("the key's name"));
    }
}
