//! A watched directory: what must be true of the files in it, and what lies at a name.
//!
//! Looks and compares; changes nothing, and opens nothing but for the lease.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use crate::clock;
use crate::fs::file_system::FileSystem;
use crate::fs::lease::Writer;
use crate::fs::{Dir, Fitness, FsError, Identity, Kind, OpenError, Place, RelPath, Stat, private};
use crate::hold::AttemptError;
use crate::policy::{Mode, Rule};
use crate::settle::{Activity, PairVersion};
use crate::signature::MAX_LEN;
use crate::source::{Bringers, Observation, Version};
use crate::state;
use crate::state::reason::RefusalReason;

/// For how long a control file counts in a verify rule when nothing changes: then nobody is at it.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

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
        self.look_in(private::descend(&self.root, path.parent()).as_ref(), path)
    }

    /// [`Folder::look`] at many, of which those that lie in one directory follow each other.
    pub(crate) fn look_all(&self, paths: &[RelPath]) -> Vec<Result<Observation<Identity>, FsError>> {
        let in_one = paths.chunk_by(|one, next| one.parent() == next.parent());
        let looks = in_one.flat_map(|paths| {
            let parent = paths.first().map_or(Path::new(""), RelPath::parent);
            let dir = private::descend(&self.root, parent);
            paths.iter().map(move |path| self.look_in(dir.as_ref(), path))
        });
        looks.collect()
    }

    fn look_in(&self, dir: Result<&Dir, &FsError>, path: &RelPath) -> Result<Observation<Identity>, FsError> {
        let dir = match dir {
            Ok(dir) => dir,
            Err(e) if e.is_not_found() || e.is_no_directory() => return Ok(Observation::NOTHING),
            Err(e) => return Err(e.clone()),
        };
        if self.is_control_file(dir, path.name()) {
            return Ok(Observation::NOTHING);
        }
        let payload = dir.stat_of(path.name())?.filter(|stat| stat.kind != Kind::Directory);
        let (signature, too_long) = match dir.stat_of(&self.rule.signature_name(path.name())) {
            Err(e) if e.source == Errno::NAMETOOLONG => (None, Some(self.name_too_long(dir))),
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
            owner: payload.or(signature).map(|stat| stat.uid),
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

    /// Whether somebody is at a pair.
    pub(crate) fn activity(&self, path: &RelPath, versions: &PairVersion<Identity>) -> Activity {
        if *versions == PairVersion::NONE {
            return Activity::UNKNOWN;
        }
        Activity { writer: self.probe(path, versions), has_control_file: self.has_control_file(path) }
    }

    /// Whether a payload is unfinished by what its downloader keeps beside it. What cannot be
    /// looked at does not count: the lease and the quiet still do.
    fn has_control_file(&self, path: &RelPath) -> bool {
        let Ok(dir) = private::descend(&self.root, path.parent()) else { return false };
        let mut names = self.rule.control_names(path.name());
        names.any(|(name, max_size)| {
            let there = dir.stat_of(&name).unwrap_or_default();
            there.is_some_and(|stat| {
                let payload = dir.stat_of(path.name()).unwrap_or_default();
                payload.is_some_and(|payload| self.controls(&stat, max_size, &payload))
                    && dir.stat_of(&self.rule.signature_name(&name)).is_ok_and(|stat| stat.is_none())
            })
        })
    }

    /// Whether one file may be the control file of a payload. Another user's is none, or anybody
    /// could keep others' files waiting. A bad pair that its own sender keeps from being judged is
    /// judged when nothing has happened for a day: nobody downloads any more.
    fn controls(&self, control: &Stat, max_size: u64, payload: &Stat) -> bool {
        let last = control.identity.ctime.max(payload.identity.ctime);
        control.kind == Kind::File
            && payload.kind == Kind::File
            && control.uid == payload.uid
            && control.identity.size <= max_size
            && match self.rule.mode {
                Mode::Sign(_) => true,
                Mode::Verify(_) => clock::age(last) < ABANDONED,
            }
    }

    /// The payload beside which this name is a control file, and so none itself.
    pub(crate) fn controlled(&self, path: &RelPath) -> Option<RelPath> {
        let payload = RelPath::new(path.parent().join(self.rule.controlled(path.name())?))?;
        let dir = private::descend(&self.root, path.parent()).ok()?;
        self.is_control_file(&dir, path.name()).then_some(payload)
    }

    fn is_control_file(&self, dir: &Dir, name: &OsStr) -> bool {
        let is = |payload: &OsStr| {
            let (_, max_size) = self.rule.control_names(payload).find(|(control, _)| control == name)?;
            let (control, payload) = (dir.stat_of(name).ok()??, dir.stat_of(payload).ok()??);
            let signature = dir.stat_of(&self.rule.signature_name(name)).ok()?;
            Some(signature.is_none() && self.controls(&control, max_size, &payload))
        };
        self.rule.controlled(name).and_then(is).unwrap_or(false)
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
    use crate::clock::FileTime;
    use crate::policy::Policy;

    /// What a file of a user is that last changed so long ago.
    fn stat(kind: Kind, uid: u32, size: u64, age: Duration) -> Stat {
        let changed = clock::since_epoch().saturating_sub(age);
        let time = FileTime { seconds: i64::try_from(changed.as_secs()).unwrap(), nanos: 0 };
        let identity = Identity { dev: 1, ino: 1, size, mtime: time, ctime: time };
        Stat { identity, kind, mode: 0o644, uid, gid: 0, links: 1, mount: 0 }
    }

    #[test]
    fn a_control_file_is_regular_its_payloads_owners_small_and_where_pairs_are_judged_not_a_day_old() {
        let temp = tempfile::tempdir().unwrap();
        let policy = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy/good/every-key.toml");
        let policy = Policy::load(&policy).unwrap_or_else(|faults| panic!("{faults}"));
        let folder = |is_wanted: fn(&Mode) -> bool| Folder {
            rule: policy.rules.iter().find(|rule| is_wanted(&rule.mode)).unwrap().clone(),
            root: Dir::open(temp.path()).unwrap(),
            file_system: FileSystem::default(),
        };
        let (sign, verify) =
            (folder(|mode| matches!(mode, Mode::Sign(_))), folder(|mode| matches!(mode, Mode::Verify(_))));
        let (now, two_days) = (Duration::ZERO, 2 * ABANDONED);
        let payload = |age| stat(Kind::File, 7, 1 << 30, age);
        for (control, payload, signing, judging) in [
            (stat(Kind::File, 7, 100, now), payload(now), true, true),
            (stat(Kind::File, 8, 100, now), payload(now), false, false),
            (stat(Kind::File, 0, 100, now), payload(now), false, false),
            (stat(Kind::Symlink, 7, 100, now), payload(now), false, false),
            (stat(Kind::Directory, 7, 100, now), payload(now), false, false),
            (stat(Kind::Special, 7, 100, now), payload(now), false, false),
            (stat(Kind::File, 7, 101, now), payload(now), false, false),
            (stat(Kind::File, 7, 100, two_days), payload(now), true, true),
            (stat(Kind::File, 7, 100, now), payload(two_days), true, true),
            (stat(Kind::File, 7, 100, two_days), payload(two_days), true, false),
        ] {
            assert_eq!(sign.controls(&control, 100, &payload), signing, "{control:?} {payload:?}");
            assert_eq!(verify.controls(&control, 100, &payload), judging, "{control:?} {payload:?}");
        }
    }

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
