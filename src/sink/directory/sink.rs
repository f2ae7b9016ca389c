//! The directories of a rule, as the pipeline and the workers see them as a sink.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use tokio::task::block_in_place;

use crate::blocking::blocking;
use crate::chain;
use crate::digest::Digest;
use crate::escape::Escaped;
use crate::fs::flush::Flusher;
use crate::fs::lease::Writer;
use crate::fs::private::Private;
use crate::fs::{Dir, Identity, RelPath, Staging};
use crate::hold::{AttemptError, Conflict};
use crate::message::log;
use crate::policy::Rule;
use crate::settle::PairVersion;
use crate::signature::{Signature, Suffix};
use crate::signing::Reason;
use crate::sink::directory::publisher::{Order, Publisher};
use crate::sink::directory::quarantine::store::Store;
use crate::sink::directory::quarantine::{self, Case};
use crate::sink::directory::removal::{self, Part};
use crate::sink::directory::remover::{RemovalGuard, Remover};
use crate::sink::directory::{deliver, exchange, sign};
use crate::sink::sight::Sight;
use crate::sink::warrant::Warrant;
use crate::sink::{Delivered, NameTaken, Old, PutAway, Removed, Sink, Unwritten};
use crate::source::Snapshot;
use crate::source::directory::DirectorySource;
use crate::source::directory::scan::Leftover;
use crate::source::space::{Space, Stage, StageRequest};
use crate::state::reason::RefusalReason;
use crate::state::{Seen, State};

/// The directories that a rule writes to.
#[derive(Debug, Clone)]
pub(crate) struct DirectorySink {
    /// The rule.
    pub(crate) rule: Arc<Rule>,
    /// The private folder in the watched directory. Locked, where this daemon writes there, which
    /// keeps other daemons out.
    pub(crate) private: Arc<Private>,
    /// The destination, for rules that deliver, and the mode of what goes there.
    pub(crate) destination: Option<(Dir, u32)>,
    /// Flushes what it publishes.
    pub(crate) disk: Arc<Flusher>,
    /// Writes signatures beside payloads.
    pub(crate) publisher: Arc<Publisher>,
    /// Removes what it delivered from the watched directory.
    pub(crate) remover: Arc<Remover>,
    /// The quarantine store, where there is one.
    pub(crate) quarantine: Option<Arc<Store>>,
    /// Room for the copies that are being made.
    pub(crate) space: Arc<Space>,
    /// Bytes to leave free.
    pub(crate) min_free_space: u64,
}

impl DirectorySink {
    fn destination_root(&self) -> Option<&Dir> {
        self.destination.as_ref().map(|(root, _)| root)
    }

    fn put_away(&self, case: &Case<'_>) -> Result<PutAway, AttemptError> {
        let Some(store) = &self.quarantine else {
            return Err(AttemptError::bug("a rule quarantines, and its policy names no quarantine"));
        };
        AttemptError::unless_there(store.dir())?;
        let is_copied = store.dir().stat()?.mount != self.private.root().stat()?.mount;
        let signature_size = case
            .signature
            .filter(|stat| !is_copied || quarantine::can_be_copied(stat))
            .map(|stat| stat.identity.size);
        let payload_size = case.payload.identity.size;
        let room = store.reserve(&self.rule, quarantine::share(payload_size, signature_size))?;
        let size = payload_size.saturating_add(signature_size.unwrap_or_default());
        // What is moved takes no room.
        let _space =
            if is_copied { Some(self.space.take(store.dir(), size, self.min_free_space)?) } else { None };
        let put_away = quarantine::put_away(store.dir(), &self.private, case)?;
        if matches!(put_away, PutAway::Done(_)) {
            room.keep();
        }
        Ok(put_away)
    }

    /// The files of a source, as they are removed.
    fn parts(&self, path: &RelPath, versions: &PairVersion<Identity>) -> Vec<Part> {
        let payload = versions.payload.map(|identity| Part { path: path.clone(), identity });
        let beside = self.rule.signature_path(path);
        let signature = versions.signature.zip(beside).map(|(identity, path)| Part { path, identity });
        payload.into_iter().chain(signature).collect()
    }

    /// Finishes what lies in a private folder of ours that somebody has moved, and takes it away.
    /// Returns the names of what may be at its place again.
    fn adopt(&self, path: &RelPath) -> Vec<RelPath> {
        let (rule, folder) = (&self.rule.name, Escaped::new(path.as_path()));
        match removal::adopt(&self.private, path) {
            Ok(Some(paths)) => {
                log!(PrivateFolderRecovered, rule, %folder);
                paths
            }
            Ok(None) => Vec::new(), // somebody works in it; the next scan
            Err(error) => {
                let error = chain::one_line(&error);
                log!(PrivateFolderMoved, rule, %folder, error);
                Vec::new()
            }
        }
    }

    /// Sees to a stand-in name, which nobody makes any more. Ours are known by what state says of
    /// their content.
    async fn dissolve(&self, path: &RelPath, state: &State) {
        let ours = match block_in_place(|| exchange::digest_of_stand_in(&self.private, path)) {
            None => None,
            Some(digest) => match state.knows_signature(&self.rule.name, &digest).await {
                Ok(is_known) => Some(digest).filter(|_| is_known),
                Err(_) => return, // what state cannot tell now it tells at the next start
            },
        };
        let done = block_in_place(|| exchange::dissolve(&self.private, path, ours.as_ref()));
        let (rule, file) = (&self.rule.name, Escaped::new(path.as_path()));
        match done.map_err(|error| chain::one_line(&error)) {
            Ok(()) if ours.is_some() => {}
            Ok(()) => log!(LegacyFileRecovered, rule, %file),
            Err(error) => log!(LegacyFileLeft, rule, %file, error),
        }
    }
}

fn prepare_removal(remover: &Remover, parts: &[Part]) -> Result<(), AttemptError> {
    match remover.prepare(parts) {
        Err(e) if e.is_not_found() => Err(AttemptError::Changed), // its directory went
        prepared => Ok(prepared?),
    }
}

/// Refuses a file whose signature has no name in a directory.
fn check_name(dir: &Dir, signature: &OsStr, suffix: Suffix) -> Result<(), AttemptError> {
    match dir.stat_of(signature) {
        Err(e) if e.source == Errno::NAMETOOLONG => {
            Err(AttemptError::Refused(RefusalReason::name_too_long(dir.longest_name(), suffix)))
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

impl Sink<DirectorySource> for DirectorySink {
    type Guard = RemovalGuard;

    async fn end(&self) {
        let private = Arc::clone(&self.private);
        drop(tokio::task::spawn_blocking(move || private.end()).await); // a panic has been told
    }

    fn removal_guard(&self) -> RemovalGuard {
        self.remover.guard()
    }

    fn stage(&self, path: &RelPath) -> Option<StageRequest> {
        let root = self.destination_root()?.clone();
        let (space, floor, path) = (Arc::clone(&self.space), self.min_free_space, path.clone());
        let (signature, suffix) = (self.rule.signature_name(path.name()), self.rule.suffix());
        Some(StageRequest::new(move || {
            AttemptError::unless_there(&root)?;
            // Before anything is copied or KMS asked.
            check_name(&root, &signature, suffix)?;
            Ok(Stage::new(Staging::below(&root, path.parent())?, space, floor))
        }))
    }

    async fn write_signature(
        &self,
        path: &RelPath,
        snapshot: &Snapshot<DirectorySource>,
        signature: &Signature,
        old: Option<Old<Identity>>,
    ) -> Result<PairVersion<Identity>, Unwritten> {
        let Some(beside) = RelPath::new(path.parent().join(signature.name_beside(path.name()))) else {
            let error = AttemptError::bug("what is signed has a name without room for a suffix");
            return Err(Unwritten { error, seen: Seen::Never });
        };
        let order = Order {
            origin: snapshot.origin.clone(),
            path: path.clone(),
            digest: snapshot.hashed.digest.clone(),
            beside,
            signature: signature.clone(),
            suffix: self.rule.suffix(),
            sight: Sight::default(),
        };
        match old {
            None => self.publisher.write(order).await,
            Some(old) => self.publisher.replace(order, old).await,
        }
    }

    async fn obstacle(
        &self,
        path: &RelPath,
        snapshot: &Snapshot<DirectorySource>,
    ) -> Result<Option<Conflict>, AttemptError> {
        let Some((root, mode)) = self.destination.clone() else {
            return Err(AttemptError::bug("a rule delivers without a destination"));
        };
        let (path, hashed) = (path.clone(), snapshot.hashed.clone());
        blocking(move || Ok(deliver::obstacle(&root, &path, &hashed, mode)?)).await
    }

    async fn publish(
        &self,
        path: &RelPath,
        source: &PairVersion<Identity>,
        snapshot: &Arc<Snapshot<DirectorySource>>,
        warrant: Warrant,
    ) -> Result<Delivered, AttemptError> {
        let Some((root, mode)) = self.destination.clone() else {
            return Err(AttemptError::bug("a rule delivers without a destination"));
        };
        let (path, disk, snapshot) = (path.clone(), Arc::clone(&self.disk), Arc::clone(snapshot));
        let (remover, parts) = (Arc::clone(&self.remover), self.parts(&path, source));
        blocking(move || {
            prepare_removal(&remover, &parts)?;
            let Some(staging) = &snapshot.staging else {
                return Err(AttemptError::bug("a rule delivers without a private copy"));
            };
            AttemptError::unless_there(&root)?;
            Ok(deliver::deliver(&root, &path, staging, &snapshot.hashed, &warrant, mode, &disk)?)
        })
        .await
    }

    async fn remove_orphan(&self, path: &RelPath, known: &Signature) -> Result<bool, AttemptError> {
        let Some(root) = self.destination_root().cloned() else {
            return Err(AttemptError::bug("a rule delivers without a destination"));
        };
        let (path, known) = (path.clone(), known.clone());
        blocking(move || Ok(deliver::remove_orphan(&root, &path, &known)?)).await
    }

    async fn remove_left_signature(&self, path: &RelPath, digest: &Digest) -> Result<bool, AttemptError> {
        let Some(beside) = self.rule.signature_path(path) else { return Ok(false) };
        let (private, path, digest) = (Arc::clone(&self.private), path.clone(), digest.clone());
        blocking(move || Ok(sign::remove_left(&private, &path, &beside, &digest)?)).await
    }

    fn is_destination(&self, path: &Path) -> bool {
        self.destination_root().is_some_and(|root| root.path() == path)
    }

    fn destination_of(&self, path: &RelPath) -> PathBuf {
        self.destination_root().unwrap_or(self.private.root()).path().join(path.as_path())
    }

    async fn quarantine(
        &self,
        path: &RelPath,
        snapshot: &Snapshot<DirectorySource>,
        reason: Reason,
    ) -> Result<PutAway, AttemptError> {
        let (here, path, origin) = (self.clone(), path.clone(), snapshot.origin.clone());
        let digests = (snapshot.hashed.digest.clone(), snapshot.signature_digest().cloned());
        let clue = snapshot.clue.clone();
        let lease_granted = snapshot.writer != Writer::Unknown;
        blocking(move || {
            let case = Case {
                reason,
                rule: &here.rule.name,
                keys: here.rule.mode.keys().iter().map(ToString::to_string).collect(),
                digest: digests.0,
                signature_digest: digests.1,
                lease_granted,
                path: &path,
                payload: origin.payload,
                signature: origin.signature,
                clue,
            };
            here.put_away(&case)
        })
        .await
    }

    async fn prepare_removal(
        &self,
        path: &RelPath,
        versions: &PairVersion<Identity>,
    ) -> Result<(), AttemptError> {
        let (remover, parts) = (Arc::clone(&self.remover), self.parts(path, versions));
        blocking(move || prepare_removal(&remover, &parts)).await
    }

    async fn remove(
        &self,
        path: &RelPath,
        versions: &PairVersion<Identity>,
    ) -> Result<Removed, AttemptError> {
        self.remover.remove(self.parts(path, versions)).await
    }

    async fn tidy(&self, leftovers: Vec<Leftover>, state: &State) -> Vec<RelPath> {
        let mut back = Vec::new();
        if !self.private.is_locked() {
            return back; // a rule that never writes there
        }
        for leftover in leftovers {
            match leftover {
                Leftover::PrivateFolder(path) => back.extend(block_in_place(|| self.adopt(&path))),
                Leftover::StandIn(path) => self.dissolve(&path, state).await,
            }
        }
        back
    }

    async fn bring_back(&self) -> NameTaken {
        if !self.private.is_locked() {
            return NameTaken::default();
        }
        // Claims that cannot be listed were told when the rule attached, or are when it attaches
        // again.
        block_in_place(|| removal::bring_back(&self.private)).unwrap_or_default()
    }
}
