//! What a policy names for all of its rules, as the daemon would find it at its start; and
//! directories that it would make.

use std::ffi::OsStr;
use std::path::Path;

use rustix::io::Errno;

use crate::chain;
use crate::diagnose::inspect::finding::{CHECK_READING, Depth, Finding, Level, bytes, words};
use crate::escape::quoted;
use crate::fs::chown::Owner;
use crate::fs::rehearsal::Rehearsal;
use crate::fs::trust;
use crate::fs::trust::TrustError;
use crate::fs::{Action, Dir, FsError};
use crate::policy;
use crate::policy::Policy;
use crate::sink::directory::quarantine;
use crate::state::State;

/// What findings about trust are about.
const TRUST: &str = "trust";

/// Inspects what a policy names for all of its rules.
pub(crate) fn inspect_policy(policy: &Policy, depth: Depth) -> Vec<Finding> {
    let whole = |rehearse: Rehearse| match depth {
        Depth::Start => None,
        Depth::Whole => Some(Whole { floor: policy.limits.min_free_space, rehearse }),
    };
    let mut findings = Vec::new();
    let keyring = policy.keyring.as_deref().map_or(Ok(()), trust::check_if_there);
    // A link may lead to it: it is followed anew at each reload.
    let file = trust::check_where_it_leads(&policy.file, Owner::current());
    for (about, checked) in [("policy", file), ("keyring", keyring)] {
        findings.extend(checked.err().map(|error| untrusted(about, &error)));
    }
    let state = whole(|dir, at| {
        dir.lock_file(OsStr::new("lock"))
            .map_err(|error| words(&FsError { path: at.to_owned(), ..error }))?;
        State::rehearse(dir.path(), at).map_err(|error| chain::one_line(&error))
    });
    findings.push(own("state", &policy.state_dir, trust::open(&policy.state_dir), state));
    let store = |path: &Path| {
        // Not with the name of what was made there, which is gone.
        let store = whole(|dir, at| {
            quarantine::rehearse(dir).map_err(|error| words(&FsError { path: at.to_owned(), ..error }))
        });
        let opened = trust::open_private(path);
        let opened = match depth {
            Depth::Start => opened,
            Depth::Whole => opened.map_err(|error| trust::told_apart(error, path)),
        };
        own("quarantine", path, opened, store)
    };
    findings.extend(policy.quarantine_dir.as_deref().map(store));
    if depth == Depth::Start {
        let dirs = [("state", Some(&policy.state_dir)), ("quarantine", policy.quarantine_dir.as_ref())];
        let dirs = dirs.into_iter().filter_map(|(about, path)| Some((about, path?)));
        findings.extend(dirs.filter_map(|(about, path)| modes(about, &above(path).ok()?)));
    }
    if !findings.iter().any(|finding| finding.about == TRUST) {
        findings.insert(0, Finding::fine(TRUST, "nobody else can change what it names"));
    }
    findings
}

/// What else is found out about a directory of the daemon's own.
#[derive(Clone, Copy)]
pub(crate) struct Whole {
    /// Whether so many bytes are free there.
    floor: u64,
    rehearse: Rehearse,
}

/// Tries out in an empty directory whether what the daemon does can be done there; why not, of the
/// directory that it is for.
type Rehearse = fn(&Dir, &Path) -> Result<(), String>;

/// A directory of the daemon's own, which it makes where it is missing.
pub(crate) fn own(
    about: &'static str,
    path: &Path,
    opened: Result<Dir, TrustError>,
    whole: Option<Whole>,
) -> Finding {
    let (dir, is_there) = match opened {
        Ok(dir) => (dir, true),
        Err(TrustError::Missing(_)) => match above(path) {
            Ok(dir) => (dir, false),
            Err(error) => return unopened(about, &error, ""),
        },
        Err(error) => return untrusted(about, &error),
    };
    let (at, path) = (path, quoted(path));
    match dir.check_writable() {
        Err(error) if is_there => {
            return Finding::fix(about, words(&error), to_write_there(&error));
        }
        Err(error) => {
            let says = format!("{path} cannot be made: {}", words(&error));
            let to_do = match error.source {
                Errno::ROFS => to_write_there(&error),
                _ => "make it, and give it to the daemon's user",
            };
            return Finding::fix(about, says, to_do);
        }
        Ok(()) => {}
    }
    let state = format!("{path} {}", if is_there { "can be written to" } else { "will be made" });
    let Some(Whole { floor, rehearse }) = whole else { return Finding::fine(about, state) };
    let private = Rehearsal::private_within(&dir).map_err(|error| words(&error));
    match private.and_then(|it| rehearse(it.dir(), at)) {
        Ok(()) => space(about, &dir, &state, floor),
        Err(error) => {
            let kind = dir.file_system().unwrap_or_default();
            let says = format!("{path} is of no use: {error}; it is on {kind}, where that cannot be done");
            Finding::fix(about, says, "name a directory on a local file system")
        }
    }
}

/// Whether a directory of the daemon's alone is to be had in one that is there, as far as it shows
/// without making any.
pub(super) fn modes(about: &'static str, dir: &Dir) -> Option<Finding> {
    let (stat, kind) = (dir.stat().ok()?, dir.file_system().ok()?);
    let options = kind.options_if_no_modes().filter(|_| stat.mode & 0o077 != 0)?;
    let (path, mode) = (quoted(dir.path()), stat.mode & 0o7777);
    Some(match kind.has_no_modes() {
        true => Finding::fix(
            about,
            format!(
                "nothing in {path} is the daemon's alone: {kind} shows one mode for all, which is {mode:04o}"
            ),
            format!("mount it with {options}, or name a directory on another file system"),
        ),
        false => Finding::note(
            about,
            format!("whether modes are kept in {path} ({kind}) was not tried out"),
            "run this with --online, which does",
        ),
    })
}

/// What to do about a directory that is there and cannot be written to.
pub(super) const fn to_write_there(error: &FsError) -> &'static str {
    match error.source {
        Errno::ROFS => {
            "name a directory that can be written to, or mount it read-write; under systemd, name it in \
             ReadWritePaths= of the unit"
        }
        _ => "let the daemon's user write there",
    }
}

/// A directory, or the nearest one above it that is there.
fn above(path: &Path) -> Result<Dir, FsError> {
    let path = policy::resolved(path);
    let nearest =
        path.ancestors().map(Dir::open).find(|opened| !matches!(opened, Err(e) if e.is_not_found()));
    nearest.unwrap_or_else(|| Dir::open(Path::new("/")))
}

/// What may not be trusted, or could not be looked at.
fn untrusted(about: &'static str, error: &TrustError) -> Finding {
    if let TrustError::Io(error) = error {
        return unopened(about, error, "");
    }
    Finding::fix(TRUST, format!("not trusted: {}", chain::one_line(error)), "")
}

/// What could not be opened. Who may not look cannot tell; that something else is there is for
/// somebody to change.
pub(crate) fn unopened(about: &'static str, error: &FsError, label: &str) -> Finding {
    let says = format!("{label}{}", words(error));
    if matches!(error.action, Action::KeepPrivate(_)) {
        return Finding::fix(about, says, "mount it so, or name a directory on another file system");
    }
    match error.is_no_directory() {
        true => Finding::fix(about, says, "move away what is there, or name another directory"),
        false => Finding::unknown(about, says, CHECK_READING),
    }
}

/// How much is free where `dir` is; `state` says how it is otherwise.
pub(crate) fn space(about: &'static str, dir: &Dir, state: &str, floor: u64) -> Finding {
    let path = quoted(dir.path());
    match dir.free_space() {
        Err(error) => Finding::unknown(about, words(&error), CHECK_READING),
        Ok(None) => Finding::note(
            about,
            format!(
                "{state}; its file system counts no blocks, so limits.min_free_space does not hold there"
            ),
            "",
        ),
        Ok(Some(free)) if free < floor => Finding::fix(
            about,
            format!("{} free in {path}, less than limits.min_free_space ({})", bytes(free), bytes(floor)),
            "make room, or lower limits.min_free_space",
        ),
        Ok(Some(free)) => Finding::fine(about, format!("{state}; {} free", bytes(free))),
    }
}

/// Leaves of findings that say the same the first: several places often lie in the one that is at
/// fault.
pub(crate) fn once_each(findings: Vec<Finding>) -> Vec<Finding> {
    let mut told: Vec<Finding> = Vec::new();
    for finding in findings {
        if finding.level == Level::Fine || !told.iter().any(|other| other.says == finding.says) {
            told.push(finding);
        }
    }
    told
}
