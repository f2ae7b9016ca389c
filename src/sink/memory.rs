//! A sink in memory, for tests: conditional writes, without transactions over several of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::Digest;
use crate::fs::RelPath;
use crate::hold::{AttemptError, Conflict};
use crate::policy::Rule;
use crate::settle::PairVersion;
use crate::signature::Signature;
use crate::signing::Reason;
use crate::sink::warrant::Warrant;
use crate::sink::{Delivered, NameTaken, Old, PutAway, Removed, Sink, Unwritten};
use crate::source::memory::{Bucket, MemorySource, Object, ObjectVersion, Put};
use crate::source::space::StageRequest;
use crate::source::{Snapshot, Version as _};
use crate::state::{Seen, State};

/// Where a rule's objects go.
pub(crate) struct MemorySink {
    pub(crate) rule: Arc<Rule>,
    pub(crate) source: Bucket,
    pub(crate) destination: Bucket,
    pub(crate) quarantine: Bucket,
}

impl MemorySink {
    fn beside(&self, path: &RelPath) -> RelPath {
        self.rule.signature_path(path).unwrap()
    }

    /// The objects of a pair that are to be removed, by name.
    fn parts(&self, path: &RelPath, versions: &PairVersion<ObjectVersion>) -> Vec<(RelPath, ObjectVersion)> {
        let payload = versions.payload.clone().map(|version| (path.clone(), version));
        let signature = versions.signature.clone().map(|version| (self.beside(path), version));
        payload.into_iter().chain(signature).collect()
    }
}

impl Sink<MemorySource> for MemorySink {
    type Guard = ();

    async fn end(&self) {}

    fn removal_guard(&self) {}

    fn stage(&self, _: &RelPath) -> Option<StageRequest> {
        None
    }

    async fn write_signature(
        &self,
        path: &RelPath,
        snapshot: &Snapshot<MemorySource>,
        signature: &Signature,
        old: Option<Old<ObjectVersion>>,
    ) -> Result<PairVersion<ObjectVersion>, Unwritten> {
        let changed = |seen| Err(Unwritten { error: AttemptError::Changed, seen });
        let old = old.map(|old| old.version);
        let Put::Done(written) = self.source.put_if(&self.beside(path), signature.as_bytes(), old.as_ref())
        else {
            return changed(Seen::Never);
        };
        if self.source.get(path).is_none_or(|object| object.version == snapshot.version) {
            return Ok(PairVersion { payload: Some(snapshot.version.clone()), signature: Some(written) });
        }
        self.source.remove_if(&[(self.beside(path), written)]);
        changed(Seen::Perhaps)
    }

    async fn obstacle(
        &self,
        path: &RelPath,
        snapshot: &Snapshot<MemorySource>,
    ) -> Result<Option<Conflict>, AttemptError> {
        let there = self.destination.get(path);
        Ok(there.filter(|there| there.bytes != snapshot.origin).map(|_| Conflict::Taken))
    }

    async fn publish(
        &self,
        path: &RelPath,
        _: &PairVersion<ObjectVersion>,
        snapshot: &Arc<Snapshot<MemorySource>>,
        warrant: Warrant,
    ) -> Result<Delivered, AttemptError> {
        if !snapshot.hashed.digest.matches(warrant.digest().as_bytes()) {
            return Ok(Delivered::NotWarranted);
        }
        let is_there = match self.destination.get(path) {
            None => false,
            Some(there) if there.bytes == snapshot.origin => true,
            Some(_) => return Ok(Delivered::Conflict(Conflict::Taken)),
        };
        let beside = self.beside(path);
        let put = self.destination.put_if(&beside, warrant.signature().as_bytes(), None);
        if matches!(put, Put::Done(_)) {
            warrant.publishing();
        }
        let mut ours = None;
        match put {
            Put::Done(version) => ours = Some(version),
            Put::Exists(Object { bytes, .. }) => match Signature::parse(&bytes) {
                Ok(there) if there == *warrant.signature() => {}
                Ok(there) if is_there => return Ok(Delivered::Beside(there)),
                Ok(there) => return Ok(Delivered::Orphan(there)),
                Err(_) => return Ok(Delivered::Conflict(Conflict::NoSignature)),
            },
        }
        match self.destination.put_if(path, &snapshot.origin, None) {
            Put::Done(_) => Ok(Delivered::Done),
            Put::Exists(there) if there.bytes == snapshot.origin => Ok(Delivered::Done),
            Put::Exists(_) => {
                if let Some(version) = ours {
                    self.destination.remove_if(&[(beside, version)]);
                }
                Ok(Delivered::Conflict(Conflict::Taken))
            }
        }
    }

    async fn remove_orphan(&self, path: &RelPath, known: &Signature) -> Result<bool, AttemptError> {
        let beside = self.beside(path);
        Ok(match self.destination.get(&beside) {
            None => true,
            Some(there) if *there.bytes == *known.as_bytes() => {
                self.destination.remove_if(&[(beside, there.version)])
            }
            Some(_) => false,
        })
    }

    async fn remove_left_signature(&self, path: &RelPath, digest: &Digest) -> Result<bool, AttemptError> {
        let beside = self.beside(path);
        let there =
            self.source.get(&beside).filter(|there| digest.matches(Digest::of(&there.bytes).as_bytes()));
        let is_alone = self.source.get(path).is_none();
        Ok(there.is_some_and(|there| is_alone && self.source.remove_if(&[(beside, there.version)])))
    }

    fn is_destination(&self, _: &Path) -> bool {
        false
    }

    fn destination_of(&self, path: &RelPath) -> PathBuf {
        Path::new("memory:").join(path.as_path())
    }

    async fn quarantine(
        &self,
        path: &RelPath,
        snapshot: &Snapshot<MemorySource>,
        reason: Reason,
    ) -> Result<PutAway, AttemptError> {
        if self.source.get(path).map(|object| object.version) != Some(snapshot.version.clone()) {
            return Ok(PutAway::Changed);
        }
        // The copy first: nothing is removed before it exists elsewhere.
        let item = format!("{}-{:?}-{reason}", path.as_path().display(), snapshot.version.stored());
        self.quarantine.put(&crate::source::memory::path(&item.replace('/', "_")), &snapshot.origin);
        match self.source.remove_if(&self.parts(path, &snapshot.versions())) {
            true => Ok(PutAway::Done(item)),
            false => Ok(PutAway::Changed),
        }
    }

    async fn prepare_removal(&self, _: &RelPath, _: &PairVersion<ObjectVersion>) -> Result<(), AttemptError> {
        Ok(())
    }

    async fn remove(
        &self,
        path: &RelPath,
        versions: &PairVersion<ObjectVersion>,
    ) -> Result<Removed, AttemptError> {
        match self.source.remove_if(&self.parts(path, versions)) {
            true => Ok(Removed::Done),
            false => Ok(Removed::Changed),
        }
    }

    async fn tidy(&self, leftovers: Vec<std::convert::Infallible>, _: &State) -> Vec<RelPath> {
        assert!(leftovers.is_empty());
        Vec::new()
    }

    async fn bring_back(&self) -> NameTaken {
        NameTaken::default()
    }
}
