//! What lies at a name now, and whether what state remembers is about exactly that.
//!
//! Looks and compares; changes and opens nothing but for the lease.

use std::fmt;
use std::path::Path;

use rustix::io::Errno;

use crate::clock;
use crate::daemon::pipeline::{STALE, Site};
use crate::fs::lease;
use crate::fs::lease::Writer;
use crate::fs::private;
use crate::fs::{Fitness, FsError, Kind, OpenError, RelPath, Unfit};
use crate::policy::{Mode, OnInvalid, OnStale};
use crate::settle::{Pair, PairVersion, Timing};
use crate::signing::Reason;
use crate::state::{Outcome, Remembered, Version};

/// Why a signature is left although it is of no use.
pub(crate) const ORPHAN: &str = "a signature without its file; it is kept, and judged when the file comes";

/// What lies at a name now.
pub(crate) struct Observation {
    pub(crate) sight: PairVersion,
    /// Why it is not handled as it is.
    pub(crate) unfit: Option<Flaw>,
}

/// Why a pair is not handled as it is: for its payload, or else for its signature.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    Payload(Unfit),
    Signature(Unfit),
}

impl Flaw {
    /// Whether a reason on record is of this type. Such a refusal holds only as long as the pair is found unfit again.
    fn wrote(reason: &str) -> bool {
        Unfit::wrote(reason) || reason.starts_with("its .sig ")
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payload(unfit) => unfit.fmt(f),
            Self::Signature(unfit) => {
                let unfit = unfit.to_string();
                write!(f, "its .sig {}", unfit.strip_prefix("it ").unwrap_or(&unfit))
            }
        }
    }
}

/// What `statx` says of a pair. A signature that is no regular file counts as none (A2), but is seen, and reported, as
/// long as nothing else of the pair is there (A8).
pub(crate) fn look(site: &Site, path: &RelPath) -> Result<Observation, FsError> {
    let dir = match private::descend(&site.root, path.parent()) {
        Ok(dir) => dir,
        Err(e) if e.is_not_found() || e.is_no_directory() => {
            return Ok(Observation { sight: PairVersion::default(), unfit: None });
        }
        Err(e) => return Err(e),
    };
    let payload = dir.stat_of(path.name())?.filter(|stat| stat.kind != Kind::Directory);
    let signature = dir.stat_of(&site.rule.signature_name(path.name()))?.filter(|stat| match stat.kind {
        Kind::File => true,
        Kind::Symlink | Kind::Special => payload.is_none(),
        Kind::Directory => false,
    });
    Ok(Observation {
        sight: PairVersion {
            payload: payload.as_ref().map(|stat| stat.identity),
            signature: signature.map(|stat| stat.identity),
        },
        unfit: payload.and_then(|stat| site.fitness().check(&stat).err().map(Flaw::Payload)).or_else(|| {
            signature.and_then(|stat| site.signature_fitness().check(&stat).err().map(Flaw::Signature))
        }),
    })
}

pub(crate) fn is_directory(site: &Site, below: &Path) -> bool {
    let Some((parent, name)) = below.parent().zip(below.file_name()) else { return false };
    let stat = site.root.descend(parent).and_then(|dir| dir.stat_of(name));
    stat.is_ok_and(|stat| stat.is_some_and(|stat| stat.kind == Kind::Directory))
}

/// Asks the lease about both files of a pair. What cannot be opened is unknown here; the try will say why.
pub(crate) fn probe(site: &Site, path: &RelPath, sight: PairVersion) -> Writer {
    let Ok(dir) = private::descend(&site.root, path.parent()) else { return Writer::Unknown };
    let ask = |name: &std::ffi::OsStr, fitness: Fitness| match dir.open_file(name, &fitness) {
        Ok((file, _)) => lease::probe(&file),
        Err(OpenError::Io(e)) if e.source == Errno::WOULDBLOCK => Writer::Present,
        Err(OpenError::Gone | OpenError::Unfit(_) | OpenError::Io(_)) => Writer::Unknown,
    };
    let payload = ask(path.name(), site.fitness());
    match (sight.signature, &site.rule.mode) {
        (Some(_), Mode::Verify(_)) => {
            payload.and(ask(&site.rule.signature_name(path.name()), site.signature_fitness()))
        }
        _ => payload,
    }
}

/// In `--once`: whether a pair that waits for grace or its signature has been as it is for longer than that,
/// by the files' own ctime, and nobody is writing.
pub(crate) fn is_old_enough(
    sight: &PairVersion,
    pair: &Pair,
    timing: &Timing,
    site: &Site,
    path: &RelPath,
) -> bool {
    let writer = probe(site, path, *sight);
    let wait = match (sight.signature, writer) {
        (_, Writer::Present) => return false,
        (None, _) => timing.signature_timeout,
        (Some(_), Writer::Absent) => timing.grace_leased,
        (Some(_), Writer::Unknown) => timing.grace_unleased,
    };
    let ages =
        [pair.sight().payload, pair.sight().signature].into_iter().flatten().map(|i| clock::age(i.ctime));
    ages.min().is_some_and(|youngest| youngest >= wait)
}

/// Whether a remembered decision is about exactly what lies there now, under the same rule.
pub(crate) fn is_decided(site: &Site, row: &Remembered, look: &Observation, dry_run: bool) -> bool {
    // Where files go and what is done about bad ones is not in the fingerprint: what the rule asks for now and
    // was not done then is still to be done.
    let stays = site.rule.delivery().is_none();
    is_of(site, row, &look.sight)
        && match row.outcome {
            Outcome::Signed | Outcome::Adopted => stays && (row.signature.is_some() || dry_run),
            Outcome::Valid => stays,
            Outcome::Invalid => would_leave(site, row),
            // The rule may have become more generous since.
            Outcome::Refused => would_refuse_again(site, row, look),
            // A rehearsal leaves them in place, and says so once. Otherwise: the same pair is back.
            Outcome::Delivered | Outcome::Quarantined => dry_run,
            Outcome::Signing => false,
        }
}

/// Whether a remembered decision is about these versions, under the same rule.
pub(crate) fn is_of(site: &Site, row: &Remembered, sight: &PairVersion) -> bool {
    row.fingerprint == site.fingerprint
        && row.payload == sight.payload.as_ref().map(Version::from)
        && row.signature == sight.signature.as_ref().map(Version::from)
}

pub(crate) fn would_refuse_again(site: &Site, row: &Remembered, look: &Observation) -> bool {
    let stale = row.reason.as_deref() == Some(STALE);
    match (&look.unfit, &site.rule.mode) {
        (Some(unfit), _) => row.reason.as_deref() == Some(&unfit.to_string()),
        (None, _) if row.reason.as_deref().is_some_and(Flaw::wrote) => false,
        (None, Mode::Sign(sign)) => !stale || sign.on_stale == OnStale::Report,
        (None, Mode::Verify(_)) => true, // for the context it would need, which the fingerprint covers
    }
}

/// Whether an invalid pair that was left would be left again.
pub(crate) fn would_leave(site: &Site, row: &Remembered) -> bool {
    match &site.rule.mode {
        Mode::Verify(rule) if row.reason.as_deref() == Some(Reason::Missing.as_str()) => {
            rule.on_missing == OnInvalid::Log
        }
        Mode::Verify(rule) => rule.on_invalid == OnInvalid::Log,
        Mode::Sign(_) => false,
    }
}
