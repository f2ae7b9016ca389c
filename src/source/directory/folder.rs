//! A watched directory: what must be true of the files in it, and what lies at a name.
//!
//! Looks and compares; changes nothing, and opens nothing but for the lease.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::fs::file_system::FileSystem;
use crate::fs::lease::Writer;
use crate::fs::{Dir, Fitness, FsError, Identity, Kind, OpenError, Place, RelPath, private};
use crate::hold::AttemptError;
use crate::policy::{Mode, Rule};
use crate::settle::PairVersion;
use crate::signature::MAX_LEN;
use crate::source::{Bringers, Observation, Version};
use crate::state;
use crate::state::reason::RefusalReason;

/// A rule's directory.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    /// The rule.
    pub(crate) rule: Arc<Rule>,
    /// The directory.
    pub(crate) root: Dir,
    /// What it lies on, and with it all that is below: no mount is entered.
    pub(crate) file_system: FileSystem,
}

impl Version for Identity {
    fn size(&self) -> u64 {
        self.size
    }

    fn changed(&self) -> Duration {
        self.ctime.since_epoch()
    }

    fn stored(&self) -> state::Version {
        state::Version::from(self)
    }
}

impl Folder {
    /// What a payload of this rule must be.
    pub(crate) fn fitness(&self) -> Fitness {
        Fitness { max_size: self.rule.max_size, max_links: self.rule.max_links, owners: self.owners() }
    }

    /// Whose files are handled. What is released into a folder whose files are judged where they
    /// lie is the daemon's.
    fn owners(&self) -> Option<Vec<u32>> {
        let mut owners = self.rule.allowed_owners.clone()?;
        if matches!(self.rule.mode, Mode::Verify(_)) && self.rule.delivery().is_none() {
            owners.push(rustix::process::geteuid().as_raw());
        }
        Some(owners)
    }

    /// What a signature must be: as a payload, but for a `max_size` that no signature fits in.
    /// Beside a file to be signed it is the daemon's own, whoever may bring payloads.
    pub(crate) fn signature_fitness(&self) -> Fitness {
        let owners = match &self.rule.mode {
            Mode::Sign(_) => None,
            Mode::Verify(_) => self.owners(),
        };
        let max_size = self.rule.max_size.max(MAX_LEN as u64);
        Fitness { max_size, max_links: self.rule.max_links, owners }
    }

    /// The directory that a payload lies in.
    ///
    /// # Errors
    /// `Changed` if it went, or became a link: the file is not where it was.
    pub(crate) fn parent_of(&self, path: &RelPath) -> Result<Place, AttemptError> {
        Place::open(&self.root, path.parent()).map_err(|e| {
            if e.is_not_found() || e.is_no_directory() { AttemptError::Changed } else { e.into() }
        })
    }

    /// What `statx` says of a pair. A signature that is no regular file counts as none (A2), but is
    /// seen, and reported, as long as nothing else of the pair is there (A8).
    ///
    /// # Errors
    /// What opening the directory and looking there says.
    pub(crate) fn look(&self, path: &RelPath) -> Result<Observation<Identity>, FsError> {
        let dir = match private::descend(&self.root, path.parent()) {
            Ok(dir) => dir,
            Err(e) if e.is_not_found() || e.is_no_directory() => return Ok(Observation::NOTHING),
            Err(e) => return Err(e),
        };
        let payload = dir.stat_of(path.name())?.filter(|stat| stat.kind != Kind::Directory);
        let (signature, too_long) = match dir.stat_of(&self.rule.signature_name(path.name())) {
            Err(e) if e.source == Errno::NAMETOOLONG => (None, Some(self.name_too_long(&dir))),
            signature => (signature?, None),
        };
        let signature = signature.filter(|stat| match stat.kind {
            Kind::File => true,
            Kind::Symlink | Kind::Special => payload.is_none(),
            Kind::Directory => false,
        });
        let unfit_payload = payload.and_then(|stat| self.fitness().check(&stat).err());
        let unfit_signature = || signature.and_then(|stat| self.signature_fitness().check(&stat).err());
        Ok(Observation {
            versions: PairVersion {
                payload: payload.map(|stat| stat.identity),
                signature: signature.map(|stat| stat.identity),
            },
            unfit: unfit_payload
                .map(RefusalReason::Payload)
                .or_else(|| too_long.filter(|_| payload.is_some()))
                .or_else(|| unfit_signature().map(RefusalReason::Signature)),
        })
    }

    /// That a signature has no name in this directory.
    fn name_too_long(&self, dir: &Dir) -> RefusalReason {
        RefusalReason::name_too_long(dir.longest_name(), self.rule.suffix())
    }

    /// Which version of a file has this name, of whatever kind it is; nothing for a directory.
    ///
    /// # Errors
    /// What opening the directory and looking there says.
    pub(crate) fn version_of(&self, path: &RelPath) -> Result<Option<Identity>, FsError> {
        let dir = match self.root.descend(path.parent()) {
            Ok(dir) => dir,
            Err(e) if e.is_not_found() || e.is_no_directory() => return Ok(None),
            Err(e) => return Err(e),
        };
        let stat = dir.stat_of(path.name())?;
        Ok(stat.filter(|stat| stat.kind != Kind::Directory).map(|stat| stat.identity))
    }

    /// Whether a directory lies there.
    pub(crate) fn is_directory(&self, below: &Path) -> bool {
        let Some((parent, name)) = below.parent().zip(below.file_name()) else { return false };
        let stat = self.root.descend(parent).and_then(|dir| dir.stat_of(name));
        stat.is_ok_and(|stat| stat.is_some_and(|stat| stat.kind == Kind::Directory))
    }

    /// Asks the lease about both files of a pair. What cannot be opened is unknown here; the try
    /// will say why.
    pub(crate) fn probe(&self, path: &RelPath, versions: &PairVersion<Identity>) -> Writer {
        let Ok(dir) = private::descend(&self.root, path.parent()) else { return Writer::Unknown };
        let ask = |name: &OsStr, fitness: Fitness| match dir.open_file(name, &fitness) {
            Ok((file, _)) => self.file_system.probe(&file),
            Err(OpenError::Io(e)) if e.source == Errno::WOULDBLOCK => Writer::Present,
            Err(OpenError::Gone | OpenError::Unfit(_) | OpenError::Io(_)) => Writer::Unknown,
        };
        let payload = ask(path.name(), self.fitness());
        match (versions.signature, &self.rule.mode) {
            (Some(_), Mode::Verify(_)) => {
                payload.and(ask(&self.rule.signature_name(path.name()), self.signature_fitness()))
            }
            _ => payload,
        }
    }
}

/// Who brought a pair that lies in a directory of this mode, by the owners of what has the names of
/// payload and signature, whatever it is. With the sticky bit neither of two users can take away
/// what the other put under the name that was meant for his own; without it, people may replace
/// each other's files anyway.
pub(crate) const fn bringers(mode: u32, payload: u32, signature: Option<u32>) -> Bringers {
    match signature {
        Some(signature) if signature != payload && mode & 0o1000 != 0 => Bringers::Two,
        Some(_) | None => Bringers::One,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_in_a_sticky_folder_do_two_owners_make_a_pair_of_two_bringers() {
        for (mode, payload, signature, expected) in [
            (0o1777, 1, Some(2), Bringers::Two),
            (0o3770, 1, Some(2), Bringers::Two),
            (0o1777, 0, Some(2), Bringers::Two),
            (0o1777, 1, Some(1), Bringers::One),
            (0o1777, 1, None, Bringers::One),
            (0o2770, 1, Some(2), Bringers::One),
            (0o0777, 1, Some(2), Bringers::One),
        ] {
            assert_eq!(bringers(mode, payload, signature), expected, "{mode:o} {payload} {signature:?}");
        }
    }
}
