//! Out of quarantine: a private copy is made, judged, and that very copy published.
//!
//! The way of delivery, for the same reasons: the sender may still have the file in the store open
//! (P3), and nothing may be overwritten (P8). Never removes the item, and never judges: a
//! [`Licence`] says that somebody has.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::Path;

use rustix::fs::{Timespec, Timestamps};

use crate::digest::Digest;
use crate::digest::set::{DigestRequest, DigestSet};
use crate::fs::chown::Owner;
use crate::fs::copy::{Hashed, Pass};
use crate::fs::{Dir, FsError, OpenError, Place, Publish, RelPath, Staging, Stat};
use crate::hold::Conflict;
use crate::signature::{MAX_LEN, Malformed, Signature};
use crate::signing::Valid;
use crate::sink::directory::deliver::{Existing, Wanted, look_at_payload};
use crate::sink::directory::quarantine::folder::signature_name;
use crate::sink::directory::quarantine::{Item, PartRecord, ReadError};

/// What allows an item's files to be published.
#[derive(Debug)]
pub(crate) enum Licence<'a> {
    /// A valid verdict on this copy.
    Verified(&'a Valid),
    /// An operator's word for payload and signature that were judged; no others are released by it.
    Forced,
}

/// How publishing ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Published {
    /// Everything is there, durably.
    Done,
    /// Something else has one of the names. Nothing was changed.
    Taken(Occupied),
    /// The licence is for other content than this. Nothing was changed.
    Changed(Changed),
}

/// What has a name that is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Occupied {
    /// The same as for a delivery.
    #[error(transparent)]
    Conflict(#[from] Conflict),
    /// The item has no signature, and something has its name.
    #[error("something has the name of its signature, and it has none")]
    Signature,
    /// There is another signature.
    #[error("another signature has its signature's name")]
    OtherSignature,
}

/// What is not as it was when it was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Changed {
    /// The payload.
    #[error("its content changed since it was judged")]
    Payload,
    /// The signature.
    #[error("its signature changed since it was judged")]
    Signature,
    /// No caller has a verdict on another copy.
    #[error("BUG: the verdict is about other bytes; please report it")]
    Verdict,
}

/// Why no copies were made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PackError {
    /// The item cannot be read, or is no longer what was judged.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The destination cannot be written to.
    #[error(transparent)]
    Write(#[from] FsError),
}

/// Copies of an item's files, made at their destination and not yet to be seen there.
#[derive(Debug)]
pub(crate) struct Parcel {
    payload: Part,
    signature: Option<Part>,
    /// SHA-512 of payload and signature as they were judged, as the record has them.
    judged: (String, Option<String>),
    owner: Owner,
}

#[derive(Debug)]
struct Part {
    staging: Staging,
    hashed: Hashed,
    /// What an equal file must be to be as good.
    wanted: Wanted,
}

impl Parcel {
    /// Copies an item's files to where `destination` is, for the directory `below` it, with the
    /// times and the mode that they had, as files of `owner`'s. Where a rule delivers with the mode
    /// `widest`, they get nothing beyond that, and its owner can read them. Its payload is hashed
    /// for these digests too. Tells `count` how many bytes of the payload each read gave.
    ///
    /// # Errors
    /// [`PackError`]; a payload that has not the size that was judged is not read, nor a signature
    /// longer than any.
    pub(crate) fn pack(
        item: &Item,
        destination: &Dir,
        below: &Path,
        owner: Owner,
        widest: Option<u32>,
        digests: DigestRequest,
        count: &dyn Fn(usize),
    ) -> Result<Self, PackError> {
        let bounded = |mode: u32| widest.map_or(mode, |widest| mode & widest | 0o400);
        let stage = || Staging::below(destination, below);
        let record = item.record();
        let wanted = Wanted { owner, mode: bounded(record.payload.safe_mode()) };
        let (file, was) = (item.payload()?, record.payload.size);
        // No further than the size it had: a sender who writes faster than we read must not keep us
        // at it.
        let pass = Pass::new(item.folder(), was).with_digests(digests).counted(count);
        let payload =
            Part::copy(&file, item.folder(), pass, stage()?, wanted).map_err(|error| match error {
                PackError::Read(ReadError::Open(error)) => ReadError::within(was, error).into(),
                PackError::Read(ReadError::Resized { .. }) | PackError::Write(_) => error,
            })?;
        ReadError::check(was, payload.hashed.size)?;
        payload.set_metadata_and_sync(&record.payload)?;
        let signature = match item.signature().map_err(ReadError::from)? {
            None => None,
            Some(file) => {
                let was = record.signature.as_ref().unwrap_or(&record.payload);
                let wanted = Wanted { owner, mode: bounded(was.safe_mode() & 0o644) };
                let pass = Pass::new(item.folder(), MAX_LEN as u64);
                let part = Part::copy(&file, item.folder(), pass, stage()?, wanted)?;
                part.set_metadata_and_sync(was)?;
                Some(part)
            }
        };
        Ok(Self {
            payload,
            signature,
            judged: (record.digest.clone(), record.signature_digest.clone()),
            owner,
        })
    }

    /// All digests of the copy that were asked for.
    pub(crate) const fn digests(&self) -> &DigestSet {
        &self.payload.hashed.digests
    }

    /// The digest of the copy.
    pub(crate) const fn digest(&self) -> &Digest {
        &self.payload.hashed.digest
    }

    /// The digest of the signature's copy.
    pub(crate) fn signature_digest(&self) -> Option<&Digest> {
        Some(&self.signature.as_ref()?.hashed.digest)
    }

    /// Whether the signature is the one that was judged, or there is none and was none.
    fn has_judged_signature(&self) -> bool {
        match (self.signature_digest(), &self.judged.1) {
            (None, None) => true,
            (Some(digest), Some(judged)) => digest.matches_text(judged),
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// The signature in the copy, if there is one, and if it can be one.
    ///
    /// # Errors
    /// What read(2) says.
    pub(crate) fn signature(&self) -> Result<Option<Result<Signature, Malformed>>, FsError> {
        let Some(part) = &self.signature else { return Ok(None) };
        let bytes = part.staging.read_back(MAX_LEN as u64 + 1)?;
        Ok(Some(Signature::parse(&bytes)))
    }

    /// Publishes the copies as `path` below `destination`, signature first. May be repeated after a
    /// kill: what is there and equal is as good.
    ///
    /// # Errors
    /// Any step's. Then nothing new shows, or the signature alone, which the next try takes up.
    pub(crate) fn publish(
        &self,
        destination: &Dir,
        path: &RelPath,
        licence: &Licence<'_>,
    ) -> Result<Published, FsError> {
        match licence {
            Licence::Verified(valid) if self.digest().matches(valid.digest().as_bytes()) => {}
            Licence::Verified(_) => return Ok(Published::Changed(Changed::Verdict)),
            Licence::Forced if !self.digest().matches_text(&self.judged.0) => {
                return Ok(Published::Changed(Changed::Payload));
            }
            Licence::Forced if !self.has_judged_signature() => {
                return Ok(Published::Changed(Changed::Signature));
            }
            Licence::Forced => {}
        }
        let dir = descend_creating(destination, path.parent(), self.owner)?;
        let place = Place::of(destination, path.parent(), dir)?;
        let mut put = Vec::new();
        let published = self.publish_in(&place, path, &mut put);
        let must_go = match &published {
            Ok(Published::Done) => false,
            // It would belong to what somebody was quicker to put there.
            Ok(Published::Taken(_) | Published::Changed(_)) => true,
            Err(e) => e.is_moved(),
        };
        if must_go {
            for (name, stat) in put.iter().rev() {
                place.remove_own(name, stat)?;
            }
        }
        published
    }

    /// [`Parcel::publish`], in a directory that is open. `put` is then what was published in it.
    fn publish_in(
        &self,
        place: &Place,
        path: &RelPath,
        put: &mut Vec<(OsString, Stat)>,
    ) -> Result<Published, FsError> {
        let (name, signature_name) = (path.name(), signature_name(path.name()));
        let is_there = match self.payload.look(place.looking(), name)? {
            Existing::Nothing => false,
            Existing::Equal => true,
            Existing::Loose => return Ok(Published::Taken(Conflict::Loose.into())),
            Existing::Other => return Ok(Published::Taken(Conflict::Taken.into())),
        };
        match &self.signature {
            None if place.stat_of(&signature_name)?.is_some() => {
                return Ok(Published::Taken(Occupied::Signature));
            }
            None => {}
            Some(signature) => match signature.publish(place, &signature_name)? {
                Placed::New => put.push((signature_name, signature.staging.stat()?)),
                Placed::Equal => {}
                Placed::Taken => return Ok(Published::Taken(Occupied::OtherSignature)),
            },
        }
        if !is_there {
            match self.payload.publish(place, name)? {
                Placed::New => put.push((name.to_owned(), self.payload.staging.stat()?)),
                Placed::Equal => {}
                Placed::Taken => return Ok(Published::Taken(Conflict::Taken.into())),
            }
        }
        place.confirm()?;
        place.written().flush()?;
        Ok(Published::Done)
    }
}

/// How one file found its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Placed {
    New,
    Equal,
    Taken,
}

impl Part {
    fn copy(
        file: &File,
        folder: &Path,
        pass: Pass<'_>,
        staging: Staging,
        wanted: Wanted,
    ) -> Result<Self, PackError> {
        let hashed = pass.copy(file, &staging).map_err(|error| match error {
            OpenError::Io(error) if error.path != folder => PackError::Write(error),
            error @ (OpenError::Gone | OpenError::Unfit(_) | OpenError::Io(_)) => {
                PackError::Read(ReadError::Open(error))
            }
        })?;
        wanted.owner.take_file(staging.file(), staging.dir())?;
        Ok(Self { staging, hashed, wanted })
    }

    fn set_metadata_and_sync(&self, was: &PartRecord) -> Result<(), FsError> {
        if let Some(time) = was.modified_at() {
            let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() };
            rustix::fs::futimens(
                self.staging.file(),
                &Timestamps { last_access: time, last_modification: time },
            )
            .map_err(|source| FsError {
                action: "set the time of a file in".into(),
                path: self.staging.dir().path().to_owned(),
                source,
            })?;
        }
        self.staging.set_mode_and_sync(self.wanted.mode)
    }

    fn look(&self, dir: &Dir, name: &OsStr) -> Result<Existing, FsError> {
        look_at_payload(dir, name, &self.hashed, self.wanted)
    }

    fn publish(&self, place: &Place, name: &OsStr) -> Result<Placed, FsError> {
        place.give_group(&self.staging)?;
        match place.publish(&self.staging, name)? {
            Publish::Done => Ok(Placed::New),
            Publish::Exists => Ok(match self.look(place.looking(), name)? {
                Existing::Equal => Placed::Equal,
                Existing::Nothing | Existing::Loose | Existing::Other => Placed::Taken,
            }),
        }
    }
}

/// Opens the directory `below`, making what is missing, as directories of `owner`'s.
fn descend_creating(root: &Dir, below: &Path, owner: Owner) -> Result<Dir, FsError> {
    root.descend_creating_with(below, |made, parent| owner.take_dir(made, parent))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::{Duration, SystemTime};

    use super::super::put_away;
    use super::super::tests::Site;
    use super::*;
    use crate::fs::tests::{at_once, chmod};
    use crate::sink::PutAway;

    /// A pair in quarantine, and where it is released to.
    struct Released {
        site: Site,
        id: String,
        _temp: tempfile::TempDir,
        out: Dir,
    }

    /// When the payload was written.
    const WRITTEN: SystemTime = SystemTime::UNIX_EPOCH;

    impl Released {
        fn new(has_signature: bool) -> Self {
            let (site, temp) = (Site::new(), tempfile::tempdir().unwrap());
            chmod(&site.payload(), 0o1772);
            File::open(site.payload()).unwrap().set_modified(WRITTEN + Duration::from_secs(7)).unwrap();
            chmod(&site.signature(), 0o777);
            let mut case = site.case();
            if !has_signature {
                fs::remove_file(site.signature()).unwrap();
                (case.signature, case.signature_digest) = (None, None);
            }
            let PutAway::Done(id) = put_away(&site.store, &site.private, &case).unwrap() else {
                panic!("changed")
            };
            let out = Dir::open(temp.path()).unwrap();
            Self { site, id, _temp: temp, out }
        }

        fn pack(&self) -> Parcel {
            self.pack_as(None)
        }

        fn pack_as(&self, widest: Option<u32>) -> Parcel {
            let (item, owner) = (Item::find(&self.site.store, &self.id).unwrap(), Owner::current());
            let (below, none) = (self.site.path.parent(), DigestRequest::NONE);
            Parcel::pack(&item, &self.out, below, owner, widest, none, &|_| ()).unwrap()
        }

        fn force(&self, parcel: &Parcel) -> Result<Published, FsError> {
            parcel.publish(&self.out, &self.site.path, &Licence::Forced)
        }

        /// Where payload and signature appear.
        fn places(&self) -> [std::path::PathBuf; 2] {
            let payload = self.out.path().join(self.site.path.as_path());
            [payload.clone(), payload.with_file_name(signature_name(self.site.path.name()))]
        }
    }

    #[test]
    fn what_is_released_is_as_it_was_but_for_what_would_make_it_anybodys() {
        let released = Released::new(true);
        let parcel = released.pack();
        assert_eq!(parcel.signature().unwrap().unwrap().unwrap().as_bytes(), b"its signature");
        for _ in 0..2 {
            assert_eq!(released.force(&parcel).unwrap(), Published::Done, "after a kill as well");
            let [payload, signature] = released.places().map(|path| fs::metadata(path).unwrap());
            assert_eq!(payload.modified().unwrap(), WRITTEN + Duration::from_secs(7));
            assert_eq!([payload, signature].map(|is| is.permissions().mode() & 0o7777), [0o750, 0o644]);
        }
    }

    #[test]
    fn a_sender_gives_away_no_more_than_deliver_mode_does() {
        // The payload had 1772, its signature 777.
        for (widest, modes) in [(0o644, [0o640, 0o644]), (0o600, [0o600, 0o600]), (0o040, [0o440, 0o440])] {
            let released = Released::new(true);
            released.force(&released.pack_as(Some(widest))).unwrap();
            let there =
                released.places().map(|path| fs::metadata(path).unwrap().permissions().mode() & 0o7777);
            assert_eq!(there, modes, "{widest:o}");
        }
    }

    #[test]
    fn a_directory_that_a_delivery_makes_meanwhile_is_as_good() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let below = |round: usize| std::path::PathBuf::from(format!("{round}/below"));
        for made in at_once(|round| descend_creating(&dir, &below(round), Owner::current())) {
            made.unwrap();
        }
    }

    #[test]
    fn p1_force_is_for_what_was_judged_only() {
        for (name, why) in [("payload", Changed::Payload), ("payload.sig", Changed::Signature)] {
            let released = Released::new(true);
            let folder = released.site.store.path().join(&released.id);
            fs::write(folder.join(name), "new").unwrap(); // of the payload's size
            assert_eq!(released.force(&released.pack()).unwrap(), Published::Changed(why));
            assert_eq!(released.out.names().unwrap().count(), 0, "{name}");
        }
    }

    #[test]
    fn p8_a_release_takes_no_name_that_is_taken() {
        let released = Released::new(false);
        let [payload, signature] = released.places();
        fs::write(payload.parent().unwrap(), "").unwrap();
        assert!(released.force(&released.pack()).unwrap_err().is_no_directory());
        fs::remove_file(payload.parent().unwrap()).unwrap();
        fs::create_dir(payload.parent().unwrap()).unwrap();
        fs::write(&signature, "another's").unwrap();
        assert_eq!(released.force(&released.pack()).unwrap(), Published::Taken(Occupied::Signature));
        fs::remove_file(&signature).unwrap();
        fs::write(&payload, "another's").unwrap();
        assert_eq!(released.force(&released.pack()).unwrap(), Published::Taken(Conflict::Taken.into()));
        assert_eq!(fs::read_to_string(&payload).unwrap(), "another's");
        fs::remove_file(&payload).unwrap();
        assert_eq!(released.force(&released.pack()).unwrap(), Published::Done);
        assert_eq!(fs::read_to_string(&payload).unwrap(), "bad");
    }
}
