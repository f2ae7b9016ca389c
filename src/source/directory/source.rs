//! A watched directory, as the pipeline and the workers see it.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;

use rustix::io::Errno;
use tokio::task::block_in_place;

use crate::blocking::blocking;
use crate::digest::Digest;
use crate::fair::Turn;
use crate::fs::copy::Pass;
use crate::fs::lease::Writer;
use crate::fs::{Dir, FsError, Identity, Kind, OpenError, Place, RelPath, Stat, Unfit, stat_file};
use crate::hold::AttemptError;
use crate::policy::Mode;
use crate::settle::{Activity, PairVersion};
use crate::signature::Clue;
use crate::source::directory::feed::DirectoryFeed;
use crate::source::directory::folder::{Folder, bringers};
use crate::source::directory::scan::Leftover;
use crate::source::directory::signature_file::{SignatureFile, read_open};
use crate::source::space::{Stage, StageRequest};
use crate::source::{Bringers, Observation, ReadRequest, SLICE, SignatureRead, Snapshot, Source};
use crate::state::reason::RefusalReason;

/// A directory that a rule watches.
#[derive(Debug, Clone)]
pub(crate) struct DirectorySource {
    folder: Folder,
    /// Where files are made whose events prove that events arrive.
    cookies: Option<Dir>,
}

/// Where a payload that was read lies.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    /// The directory it lies in, unless it was let go of for a wait: descriptors are few.
    pub(crate) parent: Option<Place>,
    /// What it was read from.
    folder: Folder,
    /// What the payload was.
    pub(crate) payload: Stat,
    /// What the signature was.
    pub(crate) signature: Option<Stat>,
}

impl Origin {
    /// The directory it lies in.
    ///
    /// # Errors
    /// It was let go of and not taken up again.
    pub(crate) fn parent(&self) -> Result<&Place, AttemptError> {
        self.parent.as_ref().ok_or(AttemptError::bug("a snapshot that rests was not taken up again"))
    }

    /// Whether the version that was read has this name.
    ///
    /// # Errors
    /// What statx(2) says.
    pub(crate) fn is_in(&self, parent: &Place, name: &OsStr) -> Result<bool, FsError> {
        let now = parent.stat_of(name)?;
        Ok(now.is_some_and(|stat| stat.identity == self.payload.identity))
    }

    /// The version of the payload of this name if it is what was read, whatever became of the
    /// directory: `known` itself, or the same file whose content is equal although its attributes
    /// are not. Those who upload set mode and times after the final name (`aws s3 cp`, zip).
    ///
    /// # Errors
    /// What statx(2), open(2) and read(2) say.
    pub(crate) fn version_of_same(
        &self,
        parent: &Place,
        name: &OsStr,
        digest: &Digest,
        known: &Identity,
    ) -> Result<Option<Identity>, FsError> {
        let Some(now) = parent.stat_of(name)?.map(|stat| stat.identity) else { return Ok(None) };
        if now == *known {
            return Ok(Some(now));
        }
        if !now.is_touched_from(known) {
            return Ok(None);
        }
        let (file, opened) = match parent.open_file(name, &self.folder.fitness()) {
            Ok((file, stat)) => (file, stat.identity),
            Err(OpenError::Gone | OpenError::Unfit(_)) => return Ok(None),
            Err(OpenError::Io(e)) if e.source == Errno::WOULDBLOCK => return Ok(None), // a writer
            Err(OpenError::Io(e)) => return Err(e),
        };
        let shown = parent.path().join(name);
        let before = self.folder.file_system.probe(&file);
        let hashed = match Pass::new(&shown, opened.size).hash(&file) {
            Ok(hashed) => hashed,
            Err(OpenError::Gone | OpenError::Unfit(_)) => return Ok(None), // it grew
            Err(OpenError::Io(e)) => return Err(e),
        };
        let writer = before.and(self.folder.file_system.probe(&file));
        let is_same = writer != Writer::Present
            && opened.is_touched_from(known)
            && hashed.size == opened.size
            && hashed.digest.matches(digest.as_bytes())
            && stat_file(&file, &shown)?.identity == opened;
        Ok(is_same.then_some(opened))
    }

    /// Whether it is the version that was read, in the directory that it was read in.
    fn is_unchanged(&self, path: &RelPath) -> Result<bool, AttemptError> {
        let parent = self.parent()?;
        Ok(self.is_in(parent, path.name())? && parent.is_in_place()?)
    }

    /// Who brought the pair. What has the signature's name counts, even if it is none: a link or a
    /// directory keeps the signature from coming as well.
    fn bringers(&self, path: &RelPath, signature_name: &OsStr) -> Result<Bringers, AttemptError> {
        let parent = self.parent()?;
        let there = parent.stat_of(signature_name)?;
        let signature = there.filter(|stat| stat.kind == Kind::File).map(|stat| stat.identity);
        if !self.is_unchanged(path)? || signature != self.signature.map(|stat| stat.identity) {
            return Err(AttemptError::Changed);
        }
        Ok(bringers(parent.stat().mode, self.payload.uid, self.signature.or(there).map(|stat| stat.uid)))
    }
}

impl DirectorySource {
    /// Of a directory that is open and trusted.
    pub(crate) const fn new(folder: Folder, cookies: Option<Dir>) -> Self {
        Self { folder, cookies }
    }

    /// The directory.
    pub(crate) const fn folder(&self) -> &Folder {
        &self.folder
    }
}

impl Source for DirectorySource {
    type Version = Identity;
    type Origin = Origin;
    type Feed = DirectoryFeed;
    type Leftover = Leftover;

    fn feed(&self, listens: bool) -> DirectoryFeed {
        DirectoryFeed::new(self.folder.clone(), self.cookies.clone(), listens)
    }

    async fn observe(&self, path: &RelPath) -> Result<Observation<Identity>, FsError> {
        block_in_place(|| self.folder.look(path))
    }

    async fn observe_all(&self, paths: &[RelPath]) -> Vec<Result<Observation<Identity>, FsError>> {
        block_in_place(|| self.folder.look_all(paths))
    }

    async fn version_of(&self, path: &RelPath) -> Result<Option<Identity>, FsError> {
        block_in_place(|| self.folder.version_of(path))
    }

    async fn probe(&self, path: &RelPath, versions: &PairVersion<Identity>) -> Activity {
        block_in_place(|| self.folder.activity(path, versions))
    }

    async fn snapshot(
        &self,
        path: &RelPath,
        versions: &PairVersion<Identity>,
        request: ReadRequest,
    ) -> Result<Snapshot<Self>, AttemptError> {
        let (folder, path, versions) = (self.folder.clone(), path.clone(), *versions);
        request.in_turn(move |request, turn| read(&folder, &path, &versions, request, turn)).await
    }

    async fn is_still(&self, path: &RelPath, snapshot: &mut Snapshot<Self>) -> Result<bool, AttemptError> {
        let (origin, path, digest) = (snapshot.origin.clone(), path.clone(), snapshot.hashed.digest.clone());
        let there = blocking(move || {
            let parent = origin.parent()?;
            let there = origin.version_of_same(parent, path.name(), &digest, &origin.payload.identity)?;
            Ok(there.filter(|_| parent.is_in_place().unwrap_or(false)))
        });
        let Some(version) = there.await? else { return Ok(false) };
        snapshot.origin.payload.identity = version;
        snapshot.version = version;
        Ok(true)
    }

    async fn bringers(&self, path: &RelPath, snapshot: &Snapshot<Self>) -> Result<Bringers, AttemptError> {
        let (origin, path) = (snapshot.origin.clone(), path.clone());
        let signature_name = self.folder.rule.signature_name(path.name());
        blocking(move || origin.bringers(&path, &signature_name)).await
    }

    fn rest(&self, snapshot: &mut Snapshot<Self>) {
        snapshot.origin.parent = None;
    }

    async fn wake(&self, path: &RelPath, snapshot: &mut Snapshot<Self>) -> Result<(), AttemptError> {
        let (folder, path) = (self.folder.clone(), path.clone());
        snapshot.origin.parent = Some(blocking(move || folder.parent_of(&path)).await?);
        Ok(())
    }

    async fn acknowledge(&self, _path: &RelPath) {} // a decided entry is gone, or known to state
}

/// Reads these versions of a pair once: the signature, and then the payload by statx, lease, hash,
/// lease, statx; any difference starts over. With a stage, the payload is copied there while it is
/// hashed.
fn read(
    folder: &Folder,
    path: &RelPath,
    versions: &PairVersion<Identity>,
    request: ReadRequest,
    turn: Turn<'_>,
) -> Result<Snapshot<DirectorySource>, AttemptError> {
    let parent = folder.parent_of(path)?;
    let (file, payload) = parent.open_file(path.name(), &folder.fitness())?;
    if Some(payload.identity) != versions.payload {
        return Err(AttemptError::Changed);
    }
    let signature = match versions.signature {
        None => None,
        Some(expected) => Some(read_signature(folder, &parent, path, expected)?),
    };
    let may_be_valid = match (&folder.rule.mode, &signature) {
        (Mode::Sign(_), _) => true,
        (Mode::Verify(_), None) => false,
        (Mode::Verify(rule), Some((read, ..))) => {
            read.parsed.as_ref().is_some_and(|signature| rule.takes(signature))
        }
    };
    if !may_be_valid && signature.is_some() && !request.is_final {
        return Err(AttemptError::NotYet);
    }
    let mut stage = request.stage.filter(|_| may_be_valid).map(StageRequest::make).transpose()?;
    let shown = parent.path().join(path.name());
    let before = folder.file_system.probe(&file);
    // No further than the size it had: what grows meanwhile has changed (A10).
    let size = payload.identity.size;
    let pass = Pass::new(&shown, size).with_digests(request.digests);
    let (read_since, turn) = (Cell::new(0), RefCell::new(turn));
    let count = |bytes: usize| {
        read_since.set(read_since.get() + bytes as u64);
        if read_since.get() >= SLICE {
            read_since.set(0);
            turn.borrow_mut().let_others();
        }
    };
    let read = match &mut stage {
        Some(stage) => {
            stage.begin(&file, size)?;
            stage.fill(pass, &file, &count)
        }
        None => pass.counted(&count).hash(&file),
    };
    let hashed = read.map_err(|error| match error {
        OpenError::Unfit(_) | OpenError::Gone => AttemptError::Changed, // it grew
        OpenError::Io(e) => e.into(),
    })?;
    let writer = before.and(folder.file_system.probe(&file));
    let after = stat_file(&file, &shown)?.identity;
    if hashed.size != size {
        return Err(AttemptError::Changed);
    }
    if after != payload.identity {
        return Err(match after.is_touched_from(&payload.identity) {
            true => AttemptError::Touched(hashed.digest),
            false => AttemptError::Changed,
        });
    }
    let is_signature_name_taken = matches!(folder.rule.mode, Mode::Sign(_))
        && signature.is_none()
        && parent.stat_of(&folder.rule.signature_name(path.name()))?.is_some();
    let (signature, signature_stat, clue) = match signature {
        Some((read, stat, clue)) => (Some(read), Some(stat), clue),
        // A name that cannot be looked at is none.
        None if matches!(folder.rule.mode, Mode::Verify(_)) => {
            let is_there = |name: &OsStr| parent.stat_of(name).is_ok_and(|stat| stat.is_some());
            (None, None, Clue::beside(path.name(), is_there))
        }
        None => (None, None, None),
    };
    Ok(Snapshot {
        origin: Origin { parent: Some(parent), folder: folder.clone(), payload, signature: signature_stat },
        version: payload.identity,
        staging: stage.map(Stage::filled),
        hashed,
        writer,
        signature,
        is_signature_name_taken,
        clue,
    })
}

fn read_signature(
    folder: &Folder,
    parent: &Place,
    path: &RelPath,
    expected: Identity,
) -> Result<(SignatureRead<Identity>, Stat, Option<Clue>), AttemptError> {
    let name = folder.rule.signature_name(path.name());
    let (file, stat) = match parent.open_file(&name, &folder.signature_fitness()) {
        Err(OpenError::Unfit(unfit)) if !matches!(unfit, Unfit::Links { .. }) => {
            return Err(AttemptError::Refused(RefusalReason::Signature(unfit)));
        }
        opened => opened?,
    };
    if stat.identity != expected {
        return Err(AttemptError::Changed);
    }
    let read = read_open(&file, parent.looking(), &name)?;
    let after = stat_file(&file, &parent.path().join(&name))?.identity;
    let SignatureFile { digest, parsed, clue } = read;
    if after != expected {
        return Err(match digest.filter(|_| after.is_touched_from(&expected)) {
            Some(digest) => AttemptError::Touched(digest),
            None => AttemptError::Changed,
        });
    }
    Ok((SignatureRead { version: expected, digest, parsed: parsed.ok() }, stat, clue))
}
