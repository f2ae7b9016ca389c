//! Writing a `.sig` beside its payload, in a directory that may be someone else's.
//!
//! Whole or not at all (P4), never over anything that is not the very file expected there (P8).

use std::ffi::OsStr;

use rustix::io::Errno;

use super::claim;
use crate::fs::flush::Flusher;
use crate::fs::staging::fresh_name;
use crate::fs::{Dir, FsError, Identity, Publish, RelPath, Staging};
use crate::signature::Signature;

/// A `.sig` is for everyone to read: what is in it says nothing about the payload to who may not use the key.
pub const MODE: u32 = 0o644;

/// How a replacement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// The new signature is in place.
    Done,
    /// Something else than expected was there, and is there still.
    Changed,
}

/// Writes a signature under a name that nothing has. Durable when this returns `Done`.
///
/// # Errors
/// Any step's; then nothing shows.
pub fn write(dir: &Dir, name: &OsStr, signature: &Signature, disk: &Flusher) -> Result<Publish, FsError> {
    let staging = Staging::holding(dir, signature.as_bytes())?;
    staging.set_mode(MODE)?;
    disk.flush(&[staging.written()])?;
    let published = staging.publish(dir, name)?;
    if published == Publish::Done {
        disk.flush(&[dir.written()])?;
    }
    Ok(published)
}

/// Where a signature lies.
#[derive(Debug, Clone, Copy)]
pub struct Spot<'a> {
    /// The watched directory.
    pub root: &'a Dir,
    /// The directory it lies in.
    pub dir: &'a Dir,
    /// Its path below `root`.
    pub path: &'a RelPath,
}

/// Replaces the signature `expected` with another one: in one step where the file system can swap names, or else there is
/// none for a moment.
///
/// # Errors
/// Any step's; then the old or the new signature shows, whole, if the file system can swap names.
pub fn replace(
    spot: Spot<'_>,
    expected: &Identity,
    signature: &Signature,
    disk: &Flusher,
) -> Result<Replaced, FsError> {
    let (dir, name) = (spot.dir, spot.path.name());
    let staging = Staging::holding(dir, signature.as_bytes())?;
    staging.set_mode(MODE)?;
    disk.flush(&[staging.written()])?;
    let spare = fresh_name();
    if staging.publish(dir, &spare)? == Publish::Exists {
        return Ok(Replaced::Changed); // 96 random bits taken: someone is playing; try again later
    }
    let swapped = match dir.exchange(&spare, name) {
        // Now the old one has the spare name.
        Ok(()) if is_renamed(dir, &spare, expected)? => Ok(Replaced::Done),
        Ok(()) => undo(spot, &spare).map(|()| Replaced::Changed),
        Err(e) if e.source == Errno::INVAL => swap_in_steps(spot, &spare, expected),
        Err(e) if e.is_not_found() => Ok(Replaced::Changed),
        Err(e) => Err(e),
    };
    dir.unlink(&spare)?;
    if matches!(swapped, Ok(Replaced::Done)) {
        disk.flush(&[dir.written()])?;
    }
    swapped
}

/// [`replace`], where no file system call swaps two names.
fn swap_in_steps(spot: Spot<'_>, spare: &OsStr, expected: &Identity) -> Result<Replaced, FsError> {
    if !take_away(spot, expected)? {
        return Ok(Replaced::Changed);
    }
    match spot.dir.rename(spare, spot.dir, spot.path.name()) {
        Err(e) if e.source == Errno::EXIST => Ok(Replaced::Changed), // somebody else's, by now
        renamed => renamed.map(|()| Replaced::Done),
    }
}

/// Puts back what was swapped for a new signature and is not the old one.
fn undo(spot: Spot<'_>, spare: &OsStr) -> Result<(), FsError> {
    match spot.dir.exchange(spare, spot.path.name()) {
        Err(e) if e.is_not_found() => give_back(spot, spare), // the new one is gone already
        swapped => swapped,
    }
}

/// Puts back what has a spare name and is not ours; where its own is taken, it waits among the claims.
fn give_back(spot: Spot<'_>, spare: &OsStr) -> Result<(), FsError> {
    match spot.dir.rename(spare, spot.dir, spot.path.name()) {
        Err(e) if e.source == Errno::EXIST => claim::shelter(spot.root, spot.path, spot.dir, spare),
        given => given,
    }
}

/// Takes back a signature of ours whose payload turned out to have changed. Does nothing if something else
/// stands there by now.
///
/// # Errors
/// Any step's.
pub fn take_back(spot: Spot<'_>, ours: &Identity) -> Result<(), FsError> {
    take_away(spot, ours).map(drop)
}

/// Removes the file `expected`; false if it is something else or gone, which stays as it is.
fn take_away(spot: Spot<'_>, expected: &Identity) -> Result<bool, FsError> {
    let spare = fresh_name();
    match spot.dir.rename_to_ours(spot.path.name(), spot.dir, &spare) {
        Err(e) if e.is_not_found() => return Ok(false),
        renamed => renamed?,
    }
    match is_renamed(spot.dir, &spare, expected)? {
        true => spot.dir.unlink(&spare).map(|()| true),
        false => give_back(spot, &spare).map(|()| false),
    }
}

fn is_renamed(dir: &Dir, name: &OsStr, expected: &Identity) -> Result<bool, FsError> {
    Ok(dir.stat_of(name)?.is_some_and(|stat| stat.identity.is_renamed_from(expected)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A watched directory, and where a signature lies in it.
    struct Fixture {
        temp: tempfile::TempDir,
        dir: Dir,
        path: RelPath,
    }

    impl Fixture {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let dir = Dir::open(temp.path()).unwrap();
            Self { temp, dir, path: RelPath::new("a.sig").unwrap() }
        }

        fn spot(&self) -> Spot<'_> {
            Spot { root: &self.dir, dir: &self.dir, path: &self.path }
        }
    }

    fn signature(byte: u8) -> Signature {
        Signature::parse(&[byte; 20]).unwrap()
    }

    #[test]
    fn p8_only_the_expected_signature_is_replaced() {
        let fixture = Fixture::new();
        let (spot, temp, dir) = (fixture.spot(), &fixture.temp, &fixture.dir);
        let (disk, name) = (Flusher::new(dir).unwrap(), fixture.path.name());
        assert_eq!(write(dir, name, &signature(1), &disk).unwrap(), Publish::Done);
        assert_eq!(write(dir, name, &signature(2), &disk).unwrap(), Publish::Exists);
        let first = dir.stat_of(name).unwrap().unwrap().identity;
        assert_eq!(replace(spot, &first, &signature(2), &disk).unwrap(), Replaced::Done);
        assert_eq!(fs::read(temp.path().join("a.sig")).unwrap(), [2; 20]);
        // `first` is no longer what is there.
        assert_eq!(replace(spot, &first, &signature(3), &disk).unwrap(), Replaced::Changed);
        take_back(spot, &first).unwrap();
        assert_eq!(fs::read(temp.path().join("a.sig")).unwrap(), [2; 20]);
        let second = dir.stat_of(name).unwrap().unwrap().identity;
        take_back(spot, &second).unwrap();
        assert_eq!(replace(spot, &second, &signature(3), &disk).unwrap(), Replaced::Changed);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0, "nothing of ours is left");
    }

    #[test]
    fn p8_in_steps_too_only_the_expected_signature_is_replaced() {
        let fixture = Fixture::new();
        let (spot, temp, dir) = (fixture.spot(), &fixture.temp, &fixture.dir);
        let (there, spare) = (temp.path().join("a.sig"), temp.path().join("spare"));
        fs::write(&there, "old").unwrap();
        fs::write(&spare, "new").unwrap();
        let old = dir.stat_of(fixture.path.name()).unwrap().unwrap().identity;
        assert_eq!(swap_in_steps(spot, OsStr::new("spare"), &old).unwrap(), Replaced::Done);
        assert_eq!(fs::read_to_string(&there).unwrap(), "new");
        fs::write(&spare, "newer").unwrap();
        assert_eq!(swap_in_steps(spot, OsStr::new("spare"), &old).unwrap(), Replaced::Changed);
        assert_eq!(fs::read_to_string(&there).unwrap(), "new");
        fs::remove_file(&there).unwrap();
        assert_eq!(swap_in_steps(spot, OsStr::new("spare"), &old).unwrap(), Replaced::Changed);
        assert!(!there.exists() && spare.exists());
    }

    #[test]
    fn p4_what_cannot_be_given_back_waits_for_its_name() {
        let fixture = Fixture::new();
        let (spot, temp, dir) = (fixture.spot(), &fixture.temp, &fixture.dir);
        let (there, spare) = (temp.path().join("a.sig"), temp.path().join("spare"));
        fs::write(&spare, "theirs").unwrap();
        undo(spot, OsStr::new("spare")).unwrap();
        assert_eq!(fs::read_to_string(&there).unwrap(), "theirs", "the new one was gone");
        fs::rename(&there, &spare).unwrap();
        fs::write(&there, "another").unwrap();
        give_back(spot, OsStr::new("spare")).unwrap();
        assert!(!spare.exists());
        fs::remove_file(&there).unwrap();
        assert_eq!(claim::bring_back(dir).unwrap(), 0);
        assert_eq!(fs::read_to_string(&there).unwrap(), "theirs");
    }
}
