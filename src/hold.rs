//! Holds: why no verdict or no effect is possible now. The file stays and is attempted again.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::chain;
use crate::context::ContextError;
use crate::digest::Digest;
use crate::escape::quoted;
use crate::fs::{Action, Dir, FsError, Unfit};
use crate::kms::{Trouble, TroubleKind};
use crate::signing::Reason;
use crate::state::StateError;
use crate::state::reason::RefusalReason;

/// Why a file is held.
#[derive(Debug, Clone)]
pub enum Hold {
    /// KMS did not answer.
    Kms(Trouble),
    /// A signature that is not in state lies beside a file to be signed, and KMS will not say whose
    /// it is.
    WhoseSignature(Trouble),
    /// The file system refused.
    Fs(FsError),
    /// Writing would leave less than `limits.min_free_space`.
    NoSpace {
        /// Where.
        path: PathBuf,
        /// Bytes free there.
        free: u64,
    },
    /// The rule has no room left in quarantine.
    QuarantineFull {
        /// What the rule has there counts so many bytes.
        used: u64,
        /// And what would come, so many.
        size: u64,
        /// What `quarantine_max_size` allows.
        max: u64,
    },
    /// Something else has the name at the destination.
    Conflict {
        /// The destination of the payload.
        path: PathBuf,
        /// The conflict.
        what: Conflict,
    },
    /// A directory of the policy is not at its path any more: what went into it would be found by
    /// nobody.
    Moved {
        /// Where it was.
        path: PathBuf,
    },
    /// State could not be written.
    State(StateError),
    /// This program is wrong about itself: what it takes for granted does not hold.
    Internal(&'static str),
    /// The digest was superseded by another one under this name, and the rule denies that.
    Rollback,
    /// Nearly everything in this rule fails like this at once; that is more likely our mistake.
    Brake(Reason),
    /// Payload and signature belong to two users in a sticky folder, and do not fit: either may
    /// have spoilt the other's pair.
    MixedOwners(Reason),
}

/// What has a name that is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The commonest.
    #[error("another file has the name")]
    Taken,
    /// As good as nothing: whoever could change it may do so once the source is gone.
    #[error("an equal file has the name, but others could change it (its owner, its mode, or a second link)")]
    Loose,
    /// Where a directory must be made there is something else.
    #[error("a file or link has the name of a directory that is needed")]
    NoWay,
    /// A signature as good as nothing.
    #[error("a signature that others could change has the signature's name")]
    LooseSignature,
    /// What has the signature's name can be none.
    #[error("something that is no signature has the signature's name")]
    NoSignature,
    /// A signature, of nothing that is there.
    #[error("a signature without its file")]
    StraySignature,
    /// The payload is there, and another signature that nobody here has made.
    #[error("the same file with another signature")]
    OtherSignature,
    /// The payload is there, and a signature that does not vouch for it.
    #[error("the same file with an invalid signature")]
    InvalidSignature,
}

/// What to do about a directory out of which nothing can be moved.
pub(crate) const TO_CROSS: &str =
    "give that directory a rule of its own; a mergerfs can be mounted with ignorepponrename=true instead";

/// The words for what holds a file, but for those of KMS.
const OF_OURS: [&str; 15] = [
    "whose-signature",
    "file-system",
    "sticky",
    "planted",
    "no-modes",
    "boundary",
    "no-space",
    "quarantine-full",
    "conflict",
    "replaced",
    "state",
    "internal-error",
    "rollback",
    "brake",
    "mixed-owners",
];

/// The words for everything that may hold a file.
pub(crate) fn causes() -> impl Iterator<Item = &'static str> {
    TroubleKind::ALL.into_iter().map(TroubleKind::as_str).chain(OF_OURS)
}

impl Hold {
    /// One or two words for logs, tables and metrics.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Kms(trouble) => trouble.kind.as_str(),
            Self::WhoseSignature(_) => "whose-signature",
            Self::Fs(e) if e.is_no_space() => "no-space",
            Self::Fs(e) if e.action == Action::MoveOutOfSticky => "sticky",
            Self::Fs(e) if e.action == Action::UsePlanted => "planted",
            Self::Fs(e) if matches!(e.action, Action::KeepPrivate(_)) => "no-modes",
            Self::Fs(e) if e.source == rustix::io::Errno::XDEV => "boundary",
            Self::Fs(_) => "file-system",
            Self::NoSpace { .. } => "no-space",
            Self::QuarantineFull { .. } => "quarantine-full",
            Self::Conflict { .. } => "conflict",
            Self::Moved { .. } => "replaced",
            Self::State(_) => "state",
            Self::Internal(_) => "internal-error",
            Self::Rollback => "rollback",
            Self::Brake(_) => "brake",
            Self::MixedOwners(_) => "mixed-owners",
        }
    }

    /// Whether a person is needed, once it has lasted so long: what may pass by itself is given
    /// some time.
    pub(crate) fn needs_operator(&self, lasted: Duration) -> bool {
        match self {
            Self::Kms(trouble) => trouble.kind.needs_operator(lasted),
            Self::Fs(e) => {
                let is_lasting = |action| {
                    matches!(
                        action,
                        Action::MoveOutOfSticky
                            | Action::UsePlanted
                            | Action::KeepPrivate(_)
                            | Action::Publish
                    )
                };
                e.is_no_space() || is_lasting(e.action) || e.source == rustix::io::Errno::XDEV
            }
            Self::WhoseSignature(_)
            | Self::NoSpace { .. }
            | Self::QuarantineFull { .. }
            | Self::Conflict { .. }
            | Self::Moved { .. }
            | Self::State(_)
            | Self::Internal(_)
            | Self::Rollback
            | Self::Brake(_)
            | Self::MixedOwners(_) => true,
        }
    }

    /// Whether nothing more may be published after it: what was written may not be on the disk, and
    /// nobody can know (C8). The daemon ends, and a restart looks at everything anew.
    pub(crate) fn is_fatal(&self) -> bool {
        match self {
            Self::State(StateError::Broken(..) | StateError::Version(..)) => true,
            Self::Fs(error) => error.action == Action::SyncDirectory && error.source == rustix::io::Errno::IO,
            Self::Kms(_)
            | Self::WhoseSignature(_)
            | Self::State(StateError::Full(_) | StateError::Busy(_))
            | Self::NoSpace { .. }
            | Self::QuarantineFull { .. }
            | Self::Conflict { .. }
            | Self::Moved { .. }
            | Self::Internal(_)
            | Self::Rollback
            | Self::Brake(_)
            | Self::MixedOwners(_) => false,
        }
    }

    /// Whether it is about this one file, so that its sender could bring about any number of them.
    /// What else waits must not wait behind such files.
    pub(crate) const fn is_of_the_file(&self) -> bool {
        match self {
            Self::WhoseSignature(_)
            | Self::Fs(_)
            | Self::QuarantineFull { .. }
            | Self::Conflict { .. }
            | Self::Internal(_)
            | Self::Rollback
            | Self::Brake(_)
            | Self::MixedOwners(_) => true,
            Self::Kms(_) | Self::NoSpace { .. } | Self::Moved { .. } | Self::State(_) => false,
        }
    }

    /// What a person can do.
    pub(crate) fn hint(&self) -> &str {
        match self {
            Self::Kms(trouble) => trouble.hint(),
            Self::WhoseSignature(_) => "allow the signer kms:Decrypt on its key, or remove the signature",
            Self::Fs(e) if e.is_no_space() => "make room",
            Self::Fs(e) if e.action == Action::MoveOutOfSticky => {
                "chown the directory to the daemon's user, or chmod -t it"
            }
            Self::Fs(e) if e.action == Action::UsePlanted => {
                "find out who keeps changing names there that begin with .kms-sig"
            }
            Self::Fs(e) if matches!(e.action, Action::KeepPrivate(_)) => {
                "mount it with the options that are named, or give the rule a directory on another file system"
            }
            Self::Fs(e) if e.action == Action::Publish => "name a directory on another file system",
            Self::Fs(e) if e.source == rustix::io::Errno::ACCESS => {
                "let the daemon's user read and move the file"
            }
            Self::Fs(e) if e.source == rustix::io::Errno::XDEV => TO_CROSS,
            Self::Fs(e) if e.source == rustix::io::Errno::ROFS => {
                "under systemd, name one path above all that the policy names in ReadWritePaths= of the unit; \
                 otherwise see why it is read-only"
            }
            Self::Fs(_) => "check the file system and its permissions",
            Self::NoSpace { .. } => "make room, or lower limits.min_free_space",
            Self::QuarantineFull { size, max, .. } if size > max => {
                "raise quarantine_max_size of the rule, which this one file exceeds, or remove the file"
            }
            Self::QuarantineFull { .. } => {
                "release or purge items (kms-sig quarantine), or raise quarantine_max_size of the rule"
            }
            Self::Conflict { .. } => "remove or rename what is at the destination",
            Self::Moved { .. } => {
                "put it back, or run kms-sig reload, which takes the directory that is there"
            }
            Self::State(StateError::Busy(_)) => "find the process that keeps state.db locked, and end it",
            Self::State(_) => "make room for state.dir and check its disk",
            Self::Internal(_) => {
                "report it, with the log and what kms-sig explain says of the file; the file stays where it is"
            }
            Self::Rollback => "deliver it by hand if it is meant, or remove it",
            Self::Brake(_) => {
                "check trusted_keys, context and accept_batch of the rule, then reload the policy (SIGHUP)"
            }
            Self::MixedOwners(_) => {
                "find out (ls -l) whose file and whose signature are meant, and remove the other; to have the pair \
                 judged as it is, chown both to one user"
            }
        }
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kms(trouble) => trouble.fmt(f),
            Self::WhoseSignature(trouble) => {
                write!(f, "cannot tell whose signature lies beside it: {trouble}")
            }
            Self::Fs(error) => f.write_str(&chain::one_line(error)),
            Self::NoSpace { path, free } => write!(f, "only {free} bytes are free in {}", quoted(path)),
            Self::QuarantineFull { used, size, max } => write!(
                f,
                "the items of the rule in quarantine count {used} bytes, {size} more would come, and quarantine_max_size is {max}"
            ),
            Self::Conflict { path, what } => write!(f, "{what} at {}", quoted(path)),
            Self::Moved { path } => {
                write!(
                    f,
                    "{} was replaced, removed, or mounted over since the daemon opened it",
                    quoted(path)
                )
            }
            Self::State(error) => error.fmt(f),
            Self::Internal(what) => write!(f, "BUG: {what}; please report it"),
            Self::Rollback => f.write_str("this content was superseded earlier under the same name"),
            Self::Brake(reason) => write!(f, "nearly every signature of this rule is {reason}"),
            Self::MixedOwners(reason) => write!(
                f,
                "{reason}, but file and signature belong to two users in a sticky folder, where either may have put \
                 his in the way of the other's"
            ),
        }
    }
}

/// The causes of holds that were logged, so that ten thousand held files are one message; two, if
/// what may pass by itself lasts.
#[derive(Debug, Default)]
pub(crate) struct Announced(HashMap<&'static str, Announcement>);

/// At which level a hold is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Announcement {
    /// It may pass by itself.
    Passing,
    /// A person is needed.
    Alarm,
}

impl Announced {
    /// How to log this hold, which has lasted this long. `None`: its cause was logged before.
    pub(crate) fn announce(&mut self, hold: &Hold, lasted: Duration) -> Option<Announcement> {
        let now = match hold.needs_operator(lasted) {
            true => Announcement::Alarm,
            false => Announcement::Passing,
        };
        let before = self.0.get(hold.as_str()).copied();
        if before == Some(now) || before == Some(Announcement::Alarm) {
            return None;
        }
        self.0.insert(hold.as_str(), now);
        Some(now)
    }

    /// Whether no logged cause is still in force.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes everything back, and says what it was.
    pub(crate) fn clear(&mut self) -> impl Iterator<Item = &'static str> {
        self.0.drain().map(|(cause, _)| cause)
    }
}

/// Why an attempt stopped before its end.
#[derive(Debug)]
pub(crate) enum AttemptError {
    /// The file changed, is gone or is being written: start over.
    Changed,
    /// Its times changed while it was read, and nothing else that statx(2) tells: read to its end,
    /// it has this digest.
    Touched(Digest),
    /// What has the name of its signature is none, and that may still change.
    NotYet,
    /// It is not handled as it is.
    Refused(RefusalReason),
    /// Not now.
    Hold(Hold),
}

impl AttemptError {
    /// A broken invariant: the file is held where everybody sees it, never attempted again without
    /// a word.
    pub(crate) const fn bug(what: &'static str) -> Self {
        Self::Hold(Hold::Internal(what))
    }

    /// Unless a directory of the policy still stands at its path.
    pub(crate) fn unless_there(dir: &Dir) -> Result<(), Self> {
        match dir.is_at_its_path()? {
            true => Ok(()),
            false => Err(Self::Hold(Hold::Moved { path: dir.path().to_owned() })),
        }
    }
}

impl From<FsError> for AttemptError {
    fn from(error: FsError) -> Self {
        if error.is_moved() {
            return Self::Changed; // what lay there is elsewhere: what is there now is looked at anew
        }
        Self::Hold(Hold::Fs(error))
    }
}

impl From<StateError> for AttemptError {
    fn from(error: StateError) -> Self {
        Self::Hold(Hold::State(error))
    }
}

impl From<Trouble> for AttemptError {
    fn from(trouble: Trouble) -> Self {
        Self::Hold(Hold::Kms(trouble))
    }
}

impl From<ContextError> for AttemptError {
    /// The policy's templates were checked when it was read: what a file's name may still do is to
    /// be long.
    fn from(error: ContextError) -> Self {
        match error {
            ContextError::TooLong(size) => Self::Refused(RefusalReason::ContextTooLong { size }),
            ContextError::NoEquals(_)
            | ContextError::EmptyKey(_)
            | ContextError::Repeated(_)
            | ContextError::Reserved(_)
            | ContextError::Placeholder(_) => Self::bug("a context that was checked with the policy is none"),
        }
    }
}

impl From<crate::fs::OpenError> for AttemptError {
    fn from(error: crate::fs::OpenError) -> Self {
        use crate::fs::OpenError;
        match error {
            // Whoever looks at it next tells whether the link stays.
            OpenError::Gone | OpenError::Unfit(Unfit::Links { .. }) => Self::Changed,
            OpenError::Unfit(unfit) => Self::Refused(RefusalReason::Payload(unfit)),
            // EWOULDBLOCK from a non-blocking open: another process holds a lease, so it is being
            // worked on.
            OpenError::Io(e) if e.source == rustix::io::Errno::WOULDBLOCK => Self::Changed,
            OpenError::Io(e) => e.into(),
        }
    }
}

/// The shortest and longest wait between attempts of a held file.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// How long to wait before attempt number `attempt` (from 1) is repeated: full jitter, so that many
/// held files do not come back at once. `jitter` is uniform in 0..1.
pub(crate) fn back_off(attempt: u32, jitter: f64) -> Duration {
    let ceiling = FIRST.saturating_mul(1_u32.checked_shl(attempt.min(20)).unwrap_or(u32::MAX)).min(LONGEST);
    // Never less than a fraction, or an unlucky draw would make a busy loop.
    FIRST.min(ceiling) / 2 + ceiling.mul_f64(jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_among_the_causes() {
        let trouble = |kind| Trouble::new(kind, "");
        let fs = |action: Action, source| Hold::Fs(FsError { action, path: PathBuf::new(), source });
        let holds = TroubleKind::ALL.map(|kind| Hold::Kms(trouble(kind))).into_iter().chain([
            Hold::WhoseSignature(trouble(TroubleKind::Denied)),
            fs("read".into(), rustix::io::Errno::IO),
            fs(Action::MoveOutOfSticky, rustix::io::Errno::PERM),
            fs(Action::UsePlanted, rustix::io::Errno::PERM),
            fs(Action::KeepPrivate(""), rustix::io::Errno::PERM),
            fs(Action::MoveAcross, rustix::io::Errno::XDEV),
            Hold::NoSpace { path: PathBuf::new(), free: 0 },
            Hold::QuarantineFull { used: 0, size: 0, max: 0 },
            Hold::Conflict { path: PathBuf::new(), what: Conflict::Taken },
            Hold::Moved { path: PathBuf::new() },
            Hold::State(StateError::Busy(PathBuf::new())),
            Hold::Internal(""),
            Hold::Rollback,
            Hold::Brake(Reason::Rejected),
            Hold::MixedOwners(Reason::Rejected),
        ]);
        let words: Vec<_> = holds.map(|hold| hold.as_str()).collect();
        assert_eq!(words, causes().collect::<Vec<_>>());
    }

    #[test]
    fn what_cannot_be_is_told_as_an_error_that_asks_to_be_reported() {
        let AttemptError::Hold(hold) = AttemptError::bug("a file is two") else { panic!("it is retried") };
        assert_eq!(hold.to_string(), "BUG: a file is two; please report it");
        assert_eq!(hold.as_str(), "internal-error");
        assert_eq!(Announced::default().announce(&hold, Duration::ZERO), Some(Announcement::Alarm));
        assert!(hold.is_of_the_file() && !hold.is_fatal());
        // What the policy's reader has let through is no reason to refuse a file.
        let error = AttemptError::from(ContextError::EmptyKey(String::new()));
        assert!(matches!(error, AttemptError::Hold(Hold::Internal(_))), "{error:?}");
        let error = AttemptError::from(ContextError::TooLong(9000));
        assert!(
            matches!(error, AttemptError::Refused(RefusalReason::ContextTooLong { size: 9000 })),
            "{error:?}"
        );
    }

    #[test]
    fn each_cause_is_told_once_and_again_when_it_lasts() {
        let mut told = Announced::default();
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let held = |kind| Hold::Kms(Trouble::new(kind, ""));
        let (source, denied) = (held(TroubleKind::CredentialSource), held(TroubleKind::Denied));
        assert_eq!(told.announce(&source, Duration::ZERO), Some(Announcement::Passing));
        assert_eq!(told.announce(&source, minutes(4)), None, "ten thousand files are one message");
        assert_eq!(told.announce(&source, minutes(5)), Some(Announcement::Alarm));
        assert_eq!(told.announce(&source, minutes(90)), None);
        assert_eq!(told.announce(&source, Duration::ZERO), None, "another file; the person has been called");
        assert_eq!(told.announce(&denied, Duration::ZERO), Some(Announcement::Alarm));
        assert_eq!(told.clear().count(), 2);
        assert_eq!(told.announce(&source, Duration::ZERO), Some(Announcement::Passing));
    }

    #[test]
    fn back_off_grows_to_a_quarter_of_an_hour_and_never_busies() {
        assert!(back_off(1, 0.0) >= Duration::from_millis(500));
        assert!(back_off(1, 1.0) <= Duration::from_millis(2500));
        let longest = back_off(u32::MAX, 1.0);
        assert!(longest >= LONGEST && longest <= LONGEST + FIRST);
        for attempt in 1..30 {
            assert!(back_off(attempt, 0.5) <= back_off(attempt + 1, 0.5));
        }
    }
}
