//! Writing a `.sig` beside its payload, in a directory that may be someone else's.
//!
//! Whole or not at all (P4), never over anything that is not the very file expected there (P8),
//! never in a directory that was moved away meanwhile (P9). Nothing is removed in that directory:
//! what must go is first moved or swapped into the private folder, where it is compared
//! ([`super::exchange`]).

use rustix::io::Errno;

use crate::digest::Digest;
use crate::fs::flush::Flusher;
use crate::fs::private::Private;
use crate::fs::{Dir, FsError, Identity, Place, Publish, RelPath, Staging, Stat};
use crate::signature::Signature;
use crate::sink::Old;
use crate::sink::directory::exchange::{Removable, Work};
use crate::sink::sight::Sight;

/// A `.sig` is readable by everyone: it reveals nothing about the payload without the key.
pub(crate) const MODE: u32 = 0o644;

/// Where a signature goes, and for how long that is right.
pub(crate) struct Spot<'a> {
    /// The private folder of the watched directory.
    pub(crate) private: &'a Private,
    /// The directory it goes to.
    pub(crate) place: &'a Place,
    /// Its path below the watched directory.
    pub(crate) path: &'a RelPath,
    /// What has the payload's name. Asked before and after each step that shows.
    pub(crate) payload: &'a dyn Fn() -> Result<Payload, FsError>,
    /// Whether the signature may have been seen.
    pub(crate) sight: &'a Sight,
    /// What flushes there.
    pub(crate) disk: &'a Flusher,
}

/// What has the name of a payload that was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload {
    /// What was signed.
    Same,
    /// Nothing: what was signed was moved away, or removed.
    Away,
    /// Something else, or other content.
    Other,
}

impl Spot<'_> {
    /// Whether the payload is there, as it was signed.
    fn is_there(&self) -> Result<bool, FsError> {
        Ok((self.payload)()? == Payload::Same)
    }

    /// Whether a signature that shows may stay: in its place, with nothing else under the payload's
    /// name than what was signed. Who moves a pair moves the payload first, and then this.
    fn is_right(&self) -> Result<bool, FsError> {
        Ok(self.place.is_in_place()? && (self.payload)()? != Payload::Other)
    }
}

/// Writes signatures, each under a name that nothing has, and makes them durable together. Each is
/// durable when this returns what it is; `None` if something has the name, or what was signed was
/// no longer there before, or is other content by now.
///
/// # Errors
/// Any step's; then nothing shows, as far as that can be undone.
pub(crate) fn write(batch: &[(Spot<'_>, &Signature)]) -> Vec<Result<Option<Stat>, FsError>> {
    let all = batch.iter().map(|(spot, signature)| Writing::new(spot, signature)).collect();
    let all = Writing::flush(all);
    let (mut ended, mut shown) = (Vec::new(), Vec::new());
    for writing in all {
        let (spot, signature, work) = (writing.spot, writing.signature, writing.work);
        match writing.staged.and_then(|staging| publish(spot, staging)) {
            Ok(Some(staging)) => {
                shown.push(Shown { spot, signature, staging });
                ended.push((spot, work, None));
            }
            Ok(None) => ended.push((spot, work, Some(Ok(None)))),
            Err(error) => ended.push((spot, work, Some(Err(error)))),
        }
    }
    let mut kept = keep_if_right(shown).into_iter();
    let ended = ended.into_iter().map(|(spot, work, ended)| {
        let written = ended.or_else(|| kept.next()).unwrap_or(Ok(None));
        let Some(work) = work else { return written };
        work.finish(spot.place)?;
        as_it_is(spot, written?)
    });
    ended.collect()
}

/// The stat of the signature after its temporary name is gone.
fn as_it_is(spot: &Spot<'_>, written: Option<Stat>) -> Result<Option<Stat>, FsError> {
    let Some(written) = written else { return Ok(None) };
    let now = spot.place.stat_of(spot.path.name())?.filter(|now| now.identity.ino == written.identity.ino);
    Ok(Some(now.unwrap_or(written)))
}

/// A signature that is being written and has no name yet.
struct Writing<'a> {
    spot: &'a Spot<'a>,
    signature: &'a Signature,
    /// Where it lies meanwhile, if there are no files without a name.
    work: Option<Work>,
    staged: Result<Staging, FsError>,
}

impl<'a> Writing<'a> {
    fn new(spot: &'a Spot<'a>, signature: &'a Signature) -> Self {
        let mut work = None;
        let staged = Self::stage(spot, signature, &mut work);
        Self { spot, signature, work, staged }
    }

    fn stage(spot: &Spot<'_>, signature: &Signature, work: &mut Option<Work>) -> Result<Staging, FsError> {
        // Made there, it has the group that files get there.
        let (staging, is_made_there) = match spot.place.stage()? {
            Some(staging) => (staging, true),
            // A stand-in name would be the sender's to swap.
            None => {
                let own = work.insert(Work::new(spot.private, Removable::of(&[signature]))?);
                (Staging::new(own.dir())?, false)
            }
        };
        let staging = staging.and_holding(signature.as_bytes())?;
        staging.set_mode(MODE)?;
        if !is_made_there {
            spot.place.give_group(&staging).unwrap_or_default(); // as far as we may
        }
        Ok(staging)
    }

    /// Makes the content of all durable that could be written.
    fn flush(mut all: Vec<Self>) -> Vec<Self> {
        let Some(disk) = all.first().map(|writing| writing.spot.disk) else { return all };
        let written: Vec<_> = all.iter().flat_map(|writing| &writing.staged).map(Staging::written).collect();
        let mut flushed = disk.flush_each(&written).into_iter();
        for writing in all.iter_mut().filter(|writing| writing.staged.is_ok()) {
            if let Some(Err(error)) = flushed.next() {
                writing.staged = Err(error);
            }
        }
        all
    }
}

/// Gives a signature its name, if what was signed is there and nothing has that name.
fn publish(spot: &Spot<'_>, staging: Staging) -> Result<Option<Staging>, FsError> {
    if !spot.is_there()? {
        return Ok(None);
    }
    let published = spot.place.publish(&staging, spot.path.name());
    if matches!(published, Ok(Publish::Exists)) {
        return Ok(None);
    }
    spot.sight.begins();
    published.map(|_done| Some(staging))
}

/// A signature that was given its name.
struct Shown<'a> {
    spot: &'a Spot<'a>,
    signature: &'a Signature,
    staging: Staging,
}

/// Keeps signatures that were just given their names, each only if its payload is still what was
/// signed, before and after it is made durable.
fn keep_if_right(shown: Vec<Shown<'_>>) -> Vec<Result<Option<Stat>, FsError>> {
    let Some(disk) = shown.first().map(|one| one.spot.disk) else { return Vec::new() };
    let mut right = are_right(shown.iter().map(|one| Some(one.spot)));
    let mut places: Vec<(&Place, Result<(), FsError>)> = Vec::new();
    for (one, _) in shown.iter().zip(&right).filter(|(_, right)| matches!(right, Ok(true))) {
        if !places.iter().any(|(place, _)| place.is_same(one.spot.place)) {
            places.push((one.spot.place, Ok(())));
        }
    }
    let written: Vec<_> = places.iter().map(|(place, _)| place.written()).collect();
    for ((_, flushed), result) in places.iter_mut().zip(disk.flush_each(&written)) {
        *flushed = result;
    }
    for (one, right) in shown.iter().zip(&mut right).filter(|(_, right)| matches!(right, Ok(true))) {
        let of_place = places.iter().find(|(place, _)| place.is_same(one.spot.place));
        if let Some((_, Err(error))) = of_place {
            *right = Err(error.clone());
        }
    }
    let durable = shown.iter().zip(&right).map(|(one, right)| matches!(right, Ok(true)).then_some(one.spot));
    let after = are_right(durable);
    let all = shown.into_iter().zip(right).zip(after);
    all.map(|((one, before), after)| {
        let Shown { spot, signature, staging } = one;
        let kept = match (before, after) {
            (Ok(true), Ok(true)) => staging.stat().map(Some),
            (Err(error), _) | (Ok(true), Err(error)) => Err(error),
            (Ok(_), Ok(_)) | (Ok(false), Err(_)) => Ok(None),
        };
        drop(staging); // a file that is open for writing never counts as ours
        match kept {
            Ok(Some(_)) => {}
            Ok(None) => take_back(spot, signature)?,
            Err(_) => take_back(spot, signature).unwrap_or_default(), // the first error is the one to report
        }
        kept
    })
    .collect()
}

/// Of each, whether its directory stands where it was opened, and its payload is what was signed.
/// One look at a directory is for all that have just been put there.
fn are_right<'a>(spots: impl Iterator<Item = Option<&'a Spot<'a>>>) -> Vec<Result<bool, FsError>> {
    let mut in_place: Vec<(&Place, Result<bool, FsError>)> = Vec::new();
    let spots = spots.map(|spot| {
        let Some(spot) = spot else { return Ok(false) };
        let seen = in_place.iter().find(|(place, _)| place.is_same(spot.place));
        let is_in_place = match seen {
            Some((_, is_in_place)) => is_in_place.clone(),
            None => {
                in_place.push((spot.place, spot.place.is_in_place()));
                in_place.last().map_or(Ok(false), |(_, is_in_place)| is_in_place.clone())
            }
        };
        Ok(is_in_place? && (spot.payload)()? != Payload::Other)
    });
    spots.collect()
}

/// Takes back a signature of ours, wherever its directory is by now. Does nothing if something else
/// stands there.
fn take_back(spot: &Spot<'_>, signature: &Signature) -> Result<(), FsError> {
    let work = Work::new(spot.private, Removable::of(&[signature]))?;
    let (to, name) = (work.mirror(spot.path)?, spot.path.name());
    match spot.place.take_back(name, &to, name) {
        Err(e) if e.is_not_found() => {}
        taken => taken?,
    }
    work.finish(spot.place).map(drop)
}

/// Removes a signature whose payload is gone, if it is the file with this digest. Whether it is
/// gone. Whatever else has the name stays, or goes back to it, and so does a signature whose
/// payload comes back meanwhile. A kill in between is finished by
/// [`exchange::settle`](super::exchange::settle).
///
/// # Errors
/// Any step's.
pub(crate) fn remove_left(
    private: &Private,
    payload: &RelPath,
    path: &RelPath,
    digest: &Digest,
) -> Result<bool, FsError> {
    let place = match Place::open(private.root(), path.parent()) {
        Err(e) if e.is_not_found() || e.is_no_directory() => return Ok(false),
        place => place?,
    };
    let removable = Removable::one(digest);
    let is_alone = || Ok::<_, FsError>(place.stat_of(payload.name())?.is_none());
    if !is_alone()? || !removable.holds(place.looking(), path.name())? {
        return Ok(false);
    }
    let work = Work::new(private, removable)?;
    let (to, name) = (work.mirror(path)?, path.name());
    work.sync()?; // before anything comes out: it is known then what may be removed
    match place.take(name, &to, name) {
        Err(e) if e.is_not_found() => {}
        taken => taken?,
    }
    if !is_alone()? {
        place.put_back(&to, name, name).unwrap_or_default(); // its name is taken again: then it may go
    }
    work.finish(&place)?;
    Ok(place.stat_of(name)?.is_none())
}

/// Replaces the signature `old` with another one: in one step where the file system can swap names,
/// or else there is none for a moment. `None` if something else than `old` was there, which is
/// there still, or what was signed is not.
///
/// # Errors
/// Any step's; then the old or the new signature shows, whole, if the file system can swap names.
pub(crate) fn replace(
    spot: &Spot<'_>,
    old: &Old<Identity>,
    signature: &Signature,
) -> Result<Option<Stat>, FsError> {
    let name = spot.path.name();
    if spot.place.stat_of(name)?.is_none_or(|stat| stat.identity != old.version) {
        return Ok(None);
    }
    let work = Work::new(spot.private, Removable::of(&[signature, &old.signature]))?;
    let swapped = swap(spot, &work, old, signature);
    let finished = work.finish(spot.place);
    let swapped = swapped?;
    finished?;
    as_it_is(spot, swapped)
}

fn swap(
    spot: &Spot<'_>,
    work: &Work,
    old: &Old<Identity>,
    signature: &Signature,
) -> Result<Option<Stat>, FsError> {
    let (here, name) = (work.mirror(spot.path)?, spot.path.name());
    let staging = match spot.place.stage()? {
        Some(staging) => staging,
        None => Staging::new(work.dir())?,
    };
    let staging = staging.and_holding(signature.as_bytes())?;
    staging.set_mode(MODE)?;
    spot.place.give_group(&staging).unwrap_or_default();
    spot.disk.flush(&[staging.written()])?;
    staging.publish_to_ours(&here, name)?;
    // Before anything comes out: after a power loss too it is known what may be removed.
    here.sync()?;
    work.sync()?;
    if !spot.is_there()? {
        return Ok(None);
    }
    match spot.place.swap(name, &here, name) {
        Err(e) if e.source == Errno::INVAL => return swap_in_steps(spot, &here, old, signature, staging),
        Err(e) if e.is_not_found() => return Ok(None),
        swapped => {
            spot.sight.begins();
            swapped?;
        }
    }
    // What came out lies here by now.
    let is_old = || Removable::of(&[&old.signature]).holds(&here, name);
    let right = spot.is_right().and_then(|is_right| Ok(is_right && is_old()?));
    let kept = match right {
        Ok(true) => spot.disk.flush(&[spot.place.written()]).and_then(|()| staging.stat()).map(Some),
        Ok(false) => Ok(None),
        Err(e) => Err(e),
    };
    if matches!(kept, Ok(Some(_))) && spot.is_right().unwrap_or(false) {
        return kept;
    }
    match spot.place.swap_back(name, &here, name) {
        Err(e) if e.is_not_found() => {} // the new one is gone already
        undone => undone?,
    }
    kept.map(|_| None)
}

/// [`replace`], where no file system call swaps two names.
fn swap_in_steps(
    spot: &Spot<'_>,
    new: &Dir,
    old: &Old<Identity>,
    signature: &Signature,
    staging: Staging,
) -> Result<Option<Stat>, FsError> {
    let is_old = Removable::of(&[&old.signature]);
    let out = Work::new(spot.private, is_old.clone())?;
    let (here, name) = (out.mirror(spot.path)?, spot.path.name());
    out.sync()?;
    match spot.place.take(name, &here, name) {
        Err(e) if e.is_not_found() => return out.finish(spot.place).map(|_| None),
        taken => taken?,
    }
    match is_old.holds(&here, name) {
        Ok(true) => {}
        Ok(false) => return out.finish(spot.place).map(|_| None),
        Err(e) => {
            spot.place.put_back(&here, name, name).unwrap_or_default(); // the first error is the one to report
            return Err(e);
        }
    }
    let put = match spot.place.put(new, name, name) {
        Err(e) if e.source == Errno::EXIST => Ok(None), // somebody else's, by now
        put => {
            spot.sight.begins();
            put.and_then(|()| {
                keep_if_right(vec![Shown { spot, signature, staging }]).pop().unwrap_or(Ok(None))
            })
        }
    };
    if !matches!(put, Ok(Some(_))) {
        spot.place.put_back(&here, name, name).unwrap_or_default(); // the old signature is better than none
    }
    out.finish(spot.place)?;
    put
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::ffi::OsStr;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::sink::directory::removal;
    use crate::state::Seen;

    /// A watched directory with a directory in it, and where a signature lies in that.
    struct Fixture {
        temp: tempfile::TempDir,
        private: Private,
        place: Place,
        path: RelPath,
        disk: Flusher,
        sight: Sight,
    }

    impl Fixture {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            for dir in ["in", "in/sub", "outside"] {
                fs::create_dir(temp.path().join(dir)).unwrap();
            }
            let root = Dir::open(&temp.path().join("in")).unwrap();
            let (place, disk) = (Place::open(&root, Path::new("sub")).unwrap(), Flusher::new(&root).unwrap());
            let path = RelPath::new("sub/a.sig").unwrap();
            Self { temp, private: Private::new(root), place, path, disk, sight: Sight::default() }
        }

        fn spot<'a>(&'a self, payload: &'a dyn Fn() -> Result<Payload, FsError>) -> Spot<'a> {
            let (private, place, path, disk) = (&self.private, &self.place, &self.path, &self.disk);
            Spot { private, place, path, payload, sight: &self.sight, disk }
        }

        fn write(&self, byte: u8) -> bool {
            write_one(self.spot(&|| Ok(Payload::Same)), byte).unwrap().is_some()
        }

        fn old(&self, byte: u8) -> Old<Identity> {
            let stat = self.place.stat_of(OsStr::new("a.sig")).unwrap().unwrap();
            Old { version: stat.identity, signature: signature(byte) }
        }

        fn replace(&self, old: &Old<Identity>, byte: u8) -> bool {
            replace(&self.spot(&|| Ok(Payload::Same)), old, &signature(byte)).unwrap().is_some()
        }

        fn at(&self, path: &str) -> PathBuf {
            self.temp.path().join(path)
        }

        fn there(&self, path: &str) -> Option<Vec<u8>> {
            fs::read(self.at(path)).ok()
        }

        /// Everything in the watched directory but the lock, by name and content.
        fn all(&self) -> Vec<(String, Vec<u8>)> {
            let mut all = Vec::new();
            collect(&self.at("in"), "", &mut all);
            all.sort();
            all
        }

        fn bring_back(&self) -> usize {
            removal::bring_back(&self.private).unwrap().count
        }
    }

    fn write_one(spot: Spot<'_>, byte: u8) -> Result<Option<Stat>, FsError> {
        write(&[(spot, &signature(byte))]).pop().unwrap()
    }

    fn collect(dir: &Path, below: &str, all: &mut Vec<(String, Vec<u8>)>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let name = format!("{below}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                collect(&entry.path(), &format!("{name}/"), all);
            } else if name != ".kms-sig/lock" {
                all.push((name, fs::read(entry.path()).unwrap()));
            }
        }
    }

    fn signature(byte: u8) -> Signature {
        Signature::parse(&[byte; 20]).unwrap()
    }

    #[test]
    fn p8_only_the_expected_signature_is_replaced() {
        let f = Fixture::new();
        assert!(f.write(1) && !f.write(2));
        let first = f.old(1);
        assert!(f.replace(&first, 2));
        assert_eq!(f.all(), [("sub/a.sig".into(), vec![2; 20])], "nothing of ours is left");
        assert!(!f.replace(&first, 3), "no longer what is there");
        let second = f.old(2);
        take_back(&f.spot(&|| Ok(Payload::Same)), &signature(1)).unwrap();
        assert_eq!(f.there("in/sub/a.sig").unwrap(), [2; 20]);
        take_back(&f.spot(&|| Ok(Payload::Same)), &signature(2)).unwrap();
        assert!(!f.replace(&second, 3));
        assert_eq!(f.all(), []);
    }

    #[test]
    fn p8_p9_a_signature_without_its_payload_goes_only_if_it_is_that_file_and_alone() {
        let f = Fixture::new();
        let payload = RelPath::new("sub/a").unwrap();
        let remove = |byte| remove_left(&f.private, &payload, &f.path, &signature(byte).digest()).unwrap();
        assert!(!remove(1), "nothing lies there");
        f.write(1);
        assert!(!remove(2), "another one");
        fs::write(f.at("in/sub/a"), "back again").unwrap();
        assert!(!remove(1), "not alone");
        fs::remove_file(f.at("in/sub/a")).unwrap();
        fs::rename(f.at("in/sub/a.sig"), f.at("outside/a.sig")).unwrap();
        std::os::unix::fs::symlink(f.at("outside/a.sig"), f.at("in/sub/a.sig")).unwrap();
        assert!(!remove(1), "a link to it");
        assert_eq!(f.there("outside/a.sig").unwrap(), [1; 20]);
        fs::rename(f.at("outside/a.sig"), f.at("in/sub/a.sig")).unwrap();
        assert!(remove(1));
        assert_eq!(f.all(), []);
    }

    #[test]
    fn p4_a_removal_that_was_cut_short_is_finished_and_what_is_not_ours_goes_back() {
        for (there, left) in [(vec![1; 20], vec![]), (b"theirs".to_vec(), vec![b"theirs".to_vec()])] {
            let f = Fixture::new();
            fs::write(f.at("in/sub/a.sig"), there).unwrap();
            let work = Work::new(&f.private, Removable::one(&signature(1).digest())).unwrap();
            let (to, name) = (work.mirror(&f.path).unwrap(), OsStr::new("a.sig"));
            f.place.take(name, &to, name).unwrap();
            drop((work, to)); // as a kill does
            f.bring_back();
            assert_eq!(f.all().into_iter().map(|(_, content)| content).collect::<Vec<_>>(), left);
        }
    }

    /// Runs `act` each time that the payload is checked: between any two visible steps.
    fn meanwhile<'a>(
        at: usize,
        act: impl Fn() + 'a,
        asked: &'a Cell<usize>,
    ) -> impl Fn() -> Result<Payload, FsError> + 'a {
        move || {
            asked.set(asked.get() + 1);
            if asked.get() == at {
                act();
            }
            Ok(Payload::Same)
        }
    }

    #[test]
    fn p8_whatever_a_sender_puts_there_at_any_time_is_kept() {
        for in_steps in [false, true] {
            for at in 1..=3 {
                let f = Fixture::new();
                f.write(1);
                let (old, asked) = (f.old(1), Cell::new(0));
                let theirs = || {
                    fs::write(f.at("outside/x"), "theirs").unwrap();
                    fs::rename(f.at("outside/x"), f.at("in/sub/a.sig")).unwrap();
                };
                let still = meanwhile(at, theirs, &asked);
                let spot = f.spot(&still);
                if in_steps {
                    let work =
                        Work::new(&f.private, Removable::of(&[&signature(2), &old.signature])).unwrap();
                    let new = work.mirror(&f.path).unwrap();
                    let staging = f.place.stage().unwrap().unwrap().and_holding(&[2; 20]).unwrap();
                    staging.publish(&new, OsStr::new("a.sig")).unwrap();
                    assert_eq!(still().unwrap(), Payload::Same);
                    swap_in_steps(&spot, &new, &old, &signature(2), staging).unwrap();
                    work.finish(&f.place).unwrap();
                } else {
                    replace(&spot, &old, &signature(2)).unwrap();
                }
                if asked.get() >= at {
                    f.bring_back();
                    assert_eq!(f.all(), [("sub/a.sig".into(), b"theirs".to_vec())], "{in_steps} {at}");
                }
            }
        }
    }

    #[test]
    fn a_signature_stays_whose_payload_was_moved_away_and_goes_whose_payload_is_another() {
        use Payload::{Away, Other, Same};
        // What has the payload's name when it is asked for: before the signature shows, and then.
        for (then, is_kept, seen) in [
            ([Same, Same, Same], true, Seen::Perhaps),
            ([Same, Same, Away], true, Seen::Perhaps),
            ([Same, Away, Away], true, Seen::Perhaps),
            ([Same, Other, Other], false, Seen::Perhaps),
            ([Same, Same, Other], false, Seen::Perhaps),
            ([Away, Away, Away], false, Seen::Never),
            ([Other, Other, Other], false, Seen::Never),
        ] {
            for has_old in [false, true] {
                let f = Fixture::new();
                if has_old {
                    f.write(1);
                }
                let (asked, sight) = (Cell::new(0), Sight::default());
                let payload = || Ok(then[asked.replace(asked.get() + 1)]);
                let spot = Spot { sight: &sight, ..f.spot(&payload) };
                let done = match has_old {
                    true => replace(&spot, &f.old(1), &signature(2)).unwrap(),
                    false => write_one(spot, 2).unwrap(),
                };
                assert_eq!((done.is_some(), sight.seen()), (is_kept, seen), "{then:?} {has_old}");
                let there = if is_kept { Some(2) } else { has_old.then_some(1) };
                assert_eq!(f.there("in/sub/a.sig"), there.map(|byte| vec![byte; 20]), "{then:?} {has_old}");
            }
        }
    }

    #[test]
    fn p9_nothing_is_written_or_replaced_in_a_directory_that_was_moved_away() {
        for at in 1..=3 {
            for has_old in [false, true] {
                let f = Fixture::new();
                if has_old {
                    f.write(1);
                }
                let asked = Cell::new(0);
                let still =
                    meanwhile(at, || fs::rename(f.at("in/sub"), f.at("outside/sub")).unwrap(), &asked);
                let spot = f.spot(&still);
                let done =
                    if has_old { replace(&spot, &f.old(1), &signature(2)) } else { write_one(spot, 2) };
                if asked.get() < at {
                    continue;
                }
                let is_refused =
                    done.as_ref().is_ok_and(Option::is_none) || done.as_ref().is_err_and(FsError::is_moved);
                assert!(is_refused || at == 3, "{has_old} {at}: {done:?}");
                if is_refused {
                    assert_eq!(f.there("outside/sub/a.sig"), has_old.then(|| vec![1; 20]), "{has_old} {at}");
                }
                assert_eq!(f.all(), [], "{has_old} {at}");
            }
        }
    }

    #[test]
    fn p4_what_a_kill_left_of_an_exchange_is_told_apart_and_goes_where_it_belongs() {
        // What stands at the name, what lies in the folder, and what is at the name in the end.
        type Case = (Option<&'static [u8]>, &'static [u8], Option<&'static [u8]>);
        let cases: [Case; 7] = [
            (Some(&[1; 20]), &[2; 20], Some(&[1; 20])),   // before the exchange
            (Some(&[2; 20]), &[1; 20], Some(&[2; 20])),   // after it
            (Some(&[2; 20]), b"theirs", Some(b"theirs")), // theirs came out
            (Some(b"theirs"), &[2; 20], Some(b"theirs")), // it was exchanged back
            (None, b"theirs", Some(b"theirs")),
            (None, &[2; 20], None),
            (Some(b"another"), b"theirs", Some(b"another")), // waits until the name is free
        ];
        for (at_name, in_folder, in_the_end) in cases {
            let f = Fixture::new();
            let work = Work::new(&f.private, Removable::of(&[&signature(2), &signature(1)])).unwrap();
            let here = work.mirror(&f.path).unwrap();
            fs::write(here.path().join("a.sig"), in_folder).unwrap();
            if let Some(bytes) = at_name {
                fs::write(f.at("in/sub/a.sig"), bytes).unwrap();
            }
            assert_eq!(f.bring_back(), 0, "somebody is at it");
            drop((work, here)); // killed
            let waits = usize::from(in_the_end == Some(b"another"));
            assert_eq!(f.bring_back(), waits, "{at_name:?} {in_folder:?}");
            assert_eq!(f.there("in/sub/a.sig").as_deref(), in_the_end, "{at_name:?} {in_folder:?}");
            assert_eq!(f.all().len(), usize::from(in_the_end.is_some()) + waits);
            if waits == 1 {
                let told = removal::bring_back(&f.private).unwrap();
                assert_eq!(told.first, std::slice::from_ref(&f.path));
                fs::remove_file(f.at("in/sub/a.sig")).unwrap();
                assert_eq!(f.bring_back(), 0);
                assert_eq!(f.there("in/sub/a.sig").unwrap(), b"theirs");
            }
        }
    }

    #[test]
    fn p4_what_has_to_wait_stays_in_the_private_folder_and_goes_nowhere_else() {
        let f = Fixture::new();
        fs::write(f.at("in/sub/a.sig"), "another").unwrap();
        let work = Work::new(&f.private, Removable::default()).unwrap();
        fs::write(work.mirror(&f.path).unwrap().path().join("a.sig"), "theirs").unwrap();
        assert!(!work.finish(&f.place).unwrap());
        let all = f.all();
        assert!(all[0].0.starts_with(".kms-sig/") && all[0].0.ends_with(".swap/sub/a.sig"), "{all:?}");
        assert_eq!((&all[1], all.len()), (&("sub/a.sig".to_owned(), b"another".to_vec()), 2));
    }

    #[test]
    fn p4_stand_ins_of_an_earlier_version_go_away_if_they_are_ours_and_are_shown_if_not() {
        use crate::sink::directory::exchange::{digest_of_stand_in, dissolve};
        let f = Fixture::new();
        let name = ".kms-sig-0123456789abcdef01234567";
        let path = RelPath::new(format!("sub/{name}")).unwrap();
        fs::write(f.at("in/sub").join(name), [1; 20]).unwrap();
        let ours = digest_of_stand_in(&f.private, &path).unwrap();
        assert!(ours.matches(signature(1).digest().as_bytes()));
        dissolve(&f.private, &path, Some(&ours)).unwrap();
        assert_eq!(f.all(), []);
        fs::write(f.at("in/sub").join(name), "theirs").unwrap();
        dissolve(&f.private, &path, None).unwrap();
        let visible = "sub/kms-sig-recovered-0123456789abcdef01234567";
        assert_eq!(f.all(), [(visible.to_owned(), b"theirs".to_vec())]);
    }
}
