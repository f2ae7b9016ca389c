//! A file as it was when it was hashed.

use crate::daemon::decide::Bringers;
use crate::daemon::pipeline::{AttemptError, Facts, PairVersion, Part, Site, parts};
use crate::daemon::space::Space;
use crate::daemon::worker::look::Flaw;
use crate::digest::Digest;
use crate::fs::copy::{Hashed, Pass};
use crate::fs::lease;
use crate::fs::lease::Writer;
use crate::fs::{FsError, Kind, OpenError, Place, RelPath, Staging, Stat, stat_file};
use crate::signature::{Signature, Suffix};
use crate::sink::directory::deliver;

/// A payload that was hashed, as it was then. Exists only by hashing.
pub(crate) struct Snapshot {
    /// The directory it lies in.
    pub(crate) parent: Place,
    /// What the payload was.
    pub(crate) payload: Stat,
    /// The bytes that were hashed: a private copy, for rules that deliver.
    pub(crate) staging: Option<Staging>,
    /// Digest and size.
    pub(crate) hashed: Hashed,
    /// What the lease said, before and after.
    pub(crate) writer: Writer,
    /// The signature beside it, read once.
    pub(crate) signature: Option<SignatureFile>,
    /// What that is named by.
    suffix: Suffix,
}

/// A snapshot without its directory: thousands may wait for one call of KMS, and descriptors are few.
pub(crate) struct Resting {
    payload: Stat,
    staging: Option<Staging>,
    hashed: Hashed,
    writer: Writer,
    signature: Option<SignatureFile>,
}

impl Resting {
    /// Opens the directory again. Whether the payload there is still the same is asked before anything is written.
    pub(crate) fn wake(self, site: &Site, path: &RelPath) -> Result<Snapshot, AttemptError> {
        let Self { payload, staging, hashed, writer, signature } = self;
        let (parent, suffix) = (site.parent_of(path)?, site.rule.suffix());
        Ok(Snapshot { parent, payload, staging, hashed, writer, signature, suffix })
    }
}

/// What lies at `NAME.sig`.
pub(crate) struct SignatureFile {
    pub(crate) stat: Stat,
    /// Of its bytes, unless there are more than any signature has.
    pub(crate) digest: Option<Digest>,
    /// Its bytes, if they can be a signature.
    pub(crate) parsed: Option<Signature>,
}

impl Snapshot {
    /// statx, probe, hash, probe, statx; any difference starts over. With `space`, the payload is copied to
    /// the destination's file system while it is hashed, leaving so many bytes free there.
    pub(crate) fn take(
        site: &Site,
        path: &RelPath,
        sight: PairVersion,
        space: Option<(&Space, u64)>,
    ) -> Result<Self, AttemptError> {
        let parent = site.parent_of(path)?;
        let (file, payload) = parent.open_file(path.name(), &site.fitness())?;
        if Some(payload.identity) != sight.payload {
            return Err(AttemptError::Changed);
        }
        let signature = Self::read_signature(site, &parent, path, sight)?;
        let shown = parent.path().join(path.name());
        let mut writer = lease::probe(&file);
        // No further than the size it had: what grows meanwhile has changed (A10).
        let size = payload.identity.size;
        let grew = |error| match error {
            OpenError::Unfit(_) | OpenError::Gone => AttemptError::Changed,
            OpenError::Io(e) => e.into(),
        };
        let pass = Pass::new(&shown, size).with_digests(site.rule.formats(&site.leaf_keys).digests());
        let (staging, hashed) = match (&site.destination, space) {
            (Some(destination), Some((space, floor))) => {
                AttemptError::unless_there(destination)?;
                let _room = space.take(destination, size, floor)?;
                let staging = Staging::below(destination, path.parent())?;
                let hashed = pass.copy(&file, &staging).map_err(grew)?;
                (Some(staging), hashed)
            }
            _ => (None, pass.hash(&file).map_err(grew)?),
        };
        writer = writer.and(lease::probe(&file));
        if stat_file(&file, &shown)?.identity != payload.identity || hashed.size != payload.identity.size {
            return Err(AttemptError::Changed);
        }
        let suffix = site.rule.suffix();
        Ok(Self { parent, payload, staging, hashed, writer, signature, suffix })
    }

    fn read_signature(
        site: &Site,
        parent: &Place,
        path: &RelPath,
        sight: PairVersion,
    ) -> Result<Option<SignatureFile>, AttemptError> {
        let Some(expected) = sight.signature else { return Ok(None) };
        let name = site.rule.signature_name(path.name());
        let (file, stat) = match parent.open_file(&name, &site.signature_fitness()) {
            Err(OpenError::Unfit(unfit)) => {
                return Err(AttemptError::Refused(Flaw::Signature(unfit).to_string()));
            }
            opened => opened?,
        };
        if stat.identity != expected {
            return Err(AttemptError::Changed);
        }
        let read = deliver::read_open(&file, parent.looking(), &name)?;
        if stat_file(&file, &parent.path().join(&name))?.identity != expected {
            return Err(AttemptError::Changed);
        }
        Ok(Some(SignatureFile { stat, digest: read.digest, parsed: read.parsed.ok() }))
    }

    pub(crate) fn rest(self) -> Resting {
        let Self { parent: _, payload, staging, hashed, writer, signature, suffix: _ } = self;
        Resting { payload, staging, hashed, writer, signature }
    }

    pub(crate) fn signature_digest(&self) -> Option<String> {
        Some(self.signature.as_ref()?.digest.as_ref()?.to_string())
    }

    pub(crate) fn facts(&self, key: Option<String>) -> Facts {
        Facts {
            digest: Some(self.hashed.digest.to_string()),
            signature_digest: self.signature_digest(),
            key,
            item: None,
            signature: None,
        }
    }

    /// Whether the payload is still the version that was hashed, in the directory that it was hashed in.
    pub(crate) fn is_unchanged(&self, path: &RelPath) -> Result<bool, FsError> {
        Ok(self.is_same(path)? && self.parent.is_in_place()?)
    }

    /// The same, whatever became of the directory.
    pub(crate) fn is_same(&self, path: &RelPath) -> Result<bool, FsError> {
        let now = self.parent.stat_of(path.name())?;
        Ok(now.is_some_and(|stat| stat.identity == self.payload.identity))
    }

    /// Whether payload and signature are still the versions that were judged.
    pub(crate) fn is_pair_unchanged(&self, path: &RelPath) -> Result<bool, FsError> {
        let signature = self.parent.stat_of(&self.suffix.signature_of(path.name()))?;
        let signature = signature.filter(|s| s.kind == Kind::File).map(|s| s.identity);
        Ok(self.is_unchanged(path)? && signature == self.signature.as_ref().map(|s| s.stat.identity))
    }

    /// Who brought the pair. What has the signature's name counts, even if it is none: a link or a directory keeps the
    /// signature from coming as well.
    pub(crate) fn bringers(&self, path: &RelPath) -> Result<Bringers, AttemptError> {
        let signature = match &self.signature {
            Some(judged) => Some(judged.stat),
            None => self.parent.stat_of(&self.suffix.signature_of(path.name()))?,
        };
        Ok(Bringers::of(self.parent.stat().mode, self.payload.uid, signature.map(|stat| stat.uid)))
    }

    /// The source.
    pub(crate) fn parts(&self, path: &RelPath, with_signature: bool) -> Vec<Part> {
        let signature = self.signature.as_ref().filter(|_| with_signature);
        parts(self.suffix, path, Some(self.payload.identity), signature.map(|file| file.stat.identity))
    }
}
