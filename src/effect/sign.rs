//! Writing a `.sig` beside its payload, in a directory that may be someone else's.
//!
//! Whole or not at all (P4), never over anything that is not the very file expected there (P8).

use std::ffi::OsStr;

use crate::fs::flush::Flusher;
use crate::fs::staging::fresh_name;
use crate::fs::{Dir, FsError, Identity, Publish, Staging};
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

/// Replaces the signature `expected` with another one, in one step where the file system can swap names.
///
/// # Errors
/// Any step's; then the old or the new signature shows, whole.
pub fn replace(
    dir: &Dir,
    name: &OsStr,
    expected: &Identity,
    signature: &Signature,
    disk: &Flusher,
) -> Result<Replaced, FsError> {
    let staging = Staging::holding(dir, signature.as_bytes())?;
    staging.set_mode(MODE)?;
    disk.flush(&[staging.written()])?;
    let spare = fresh_name();
    if staging.publish(dir, &spare)? == Publish::Exists {
        return Ok(Replaced::Changed); // 96 random bits taken: someone is playing; try again later
    }
    let swapped = dir.exchange(&spare, name);
    let is_expected = match &swapped {
        Ok(()) => dir.stat_of(&spare)?.is_some_and(|old| old.identity.is_renamed_from(expected)),
        Err(_) => true,
    };
    if swapped.is_ok() && !is_expected {
        dir.exchange(&spare, name)?;
    }
    dir.unlink(&spare)?;
    match swapped {
        Ok(()) if is_expected => disk.flush(&[dir.written()]).map(|()| Replaced::Done),
        Ok(()) => Ok(Replaced::Changed),
        Err(e) if e.is_not_found() => Ok(Replaced::Changed),
        Err(e) => Err(e),
    }
}

/// Takes back a signature of ours whose payload turned out to have changed. Does nothing if something else
/// stands there by now.
///
/// # Errors
/// Any step's.
pub fn take_back(dir: &Dir, name: &OsStr, ours: &Identity) -> Result<(), FsError> {
    let spare = fresh_name();
    match dir.rename(name, dir, &spare) {
        Err(e) if e.is_not_found() => return Ok(()),
        renamed => renamed?,
    }
    let is_ours = dir.stat_of(&spare)?.is_some_and(|stat| stat.identity.is_renamed_from(ours));
    if is_ours { dir.unlink(&spare) } else { dir.rename(&spare, dir, name) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn signature(byte: u8) -> Signature {
        Signature::parse(&[byte; 20]).unwrap()
    }

    #[test]
    fn p8_only_the_expected_signature_is_replaced() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let disk = Flusher::new(&dir).unwrap();
        let name = OsStr::new("a.sig");
        assert_eq!(write(&dir, name, &signature(1), &disk).unwrap(), Publish::Done);
        assert_eq!(write(&dir, name, &signature(2), &disk).unwrap(), Publish::Exists);
        let first = dir.stat_of(name).unwrap().unwrap().identity;
        assert_eq!(replace(&dir, name, &first, &signature(2), &disk).unwrap(), Replaced::Done);
        assert_eq!(fs::read(temp.path().join("a.sig")).unwrap(), [2; 20]);
        // `first` is no longer what is there.
        assert_eq!(replace(&dir, name, &first, &signature(3), &disk).unwrap(), Replaced::Changed);
        take_back(&dir, name, &first).unwrap();
        assert_eq!(fs::read(temp.path().join("a.sig")).unwrap(), [2; 20]);
        let second = dir.stat_of(name).unwrap().unwrap().identity;
        take_back(&dir, name, &second).unwrap();
        assert_eq!(replace(&dir, name, &second, &signature(3), &disk).unwrap(), Replaced::Changed);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0, "nothing of ours is left");
    }
}
