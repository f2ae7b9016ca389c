//! A source in memory, for tests: objects with versions, as a store of objects has them, and a
//! queue of hints.
//!
//! Several workers may share one. A hint that was taken comes back, to any of them, until it is
//! acknowledged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::{self, FileTime, Moment};
use crate::digest::Digest;
use crate::digest::algorithm::HashAlgorithm;
use crate::digest::set::{DigestRequest, DigestSet};
use crate::fs::copy::Hashed;
use crate::fs::lease::Writer;
use crate::fs::{FsError, Identity, RelPath};
use crate::hold::AttemptError;
use crate::policy::Rule;
use crate::settle::{Activity, FileVersion, PairVersion};
use crate::signature::Signature;
use crate::source::directory::scan::{Meaning, meaning};
use crate::source::{
    Batch, Bringers, EventFault, Feed, Hint, News, Observation, ReadRequest, SignatureRead, Snapshot, Source,
    Version,
};
use crate::state;

/// Which version of an object: its number is never given twice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ObjectVersion {
    number: u64,
    size: u64,
    changed: Duration,
}

impl FileVersion for ObjectVersion {
    fn is_same_file(&self, other: &Self) -> bool {
        self == other
    }

    fn is_marked_incomplete(&self) -> bool {
        false
    }
}

impl Version for ObjectVersion {
    fn size(&self) -> u64 {
        self.size
    }

    fn changed(&self) -> Duration {
        self.changed
    }

    fn stored(&self) -> state::Version {
        // No version is another one, whatever becomes of inode numbers.
        let seconds = self.number.cast_signed();
        let time = FileTime { seconds, nanos: 0 };
        let as_file = Identity { dev: 0, ino: self.number, size: self.size, mtime: time, ctime: time };
        state::Version::from(&as_file)
    }
}

/// An object as it is at present.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) version: ObjectVersion,
    pub(crate) bytes: Arc<[u8]>,
}

/// What becomes of a request that depends on what is there.
#[derive(Debug)]
pub(crate) enum Put {
    Done(ObjectVersion),
    /// Somebody was first.
    Exists(Object),
}

/// What happens to an object at the moment that it has been read, as others would do it.
type Meddler = Box<dyn FnOnce(&Bucket) + Send>;

/// A store of objects. Each method is one request: whole, or not at all.
#[derive(Default, Clone)]
pub(crate) struct Bucket(Arc<Shared>);

#[derive(Default)]
struct Shared {
    objects: Mutex<Objects>,
    bell: Notify,
}

#[derive(Default)]
struct Objects {
    current: BTreeMap<RelPath, Object>,
    last: u64,
    /// Hints that nobody has taken.
    queue: VecDeque<RelPath>,
    /// Hints that somebody has taken, and when they come back.
    taken: Vec<(RelPath, Duration)>,
    /// How often each hint is delivered.
    copies: usize,
    /// Whether there are no hints at all.
    is_silent: bool,
    /// How many names were listed.
    listed: usize,
    meddlers: BTreeMap<RelPath, Meddler>,
    /// How long an object must not be read before it is written back; until then reading it makes
    /// another version of it.
    write_back: Duration,
}

/// How long a hint is somebody's.
const VISIBILITY: Duration = Duration::from_millis(200);

impl Bucket {
    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.0.objects.lock().unwrap()
    }

    /// Tells each hint so many times more.
    pub(crate) fn repeat_hints(&self, copies: usize) {
        self.objects().copies = copies;
    }

    /// Gives no hints from now on.
    pub(crate) fn give_no_hints(&self) {
        self.lose_hints();
        self.objects().is_silent = true;
    }

    /// How many names all scans have listed.
    pub(crate) fn listed(&self) -> usize {
        self.objects().listed
    }

    /// Loses every hint that there is.
    pub(crate) fn lose_hints(&self) {
        let mut objects = self.objects();
        objects.queue.clear();
        objects.taken.clear();
    }

    /// Has this happen when the object of this name has been read the next time.
    pub(crate) fn when_read(&self, path: &RelPath, meddler: impl FnOnce(&Self) + Send + 'static) {
        self.objects().meddlers.insert(path.clone(), Box::new(meddler));
    }

    /// Has objects be written back only when they were neither put nor read for so long.
    pub(crate) fn write_back_after(&self, wait: Duration) {
        self.objects().write_back = wait;
    }

    /// Whether reading an object made another version of it.
    fn is_touched(&self, path: &RelPath) -> bool {
        let mut objects = self.objects();
        let (now, wait) = (clock::since_epoch(), objects.write_back);
        objects.last += 1;
        let number = objects.last;
        let object = objects.current.get_mut(path).filter(|it| now.saturating_sub(it.version.changed) < wait);
        object
            .map(|object| object.version = ObjectVersion { number, changed: now, ..object.version })
            .is_some()
    }

    fn was_read(&self, path: &RelPath) {
        let meddler = self.objects().meddlers.remove(path);
        if let Some(meddler) = meddler {
            meddler(self);
        }
    }

    /// Puts an object, whatever is there.
    pub(crate) fn put(&self, path: &RelPath, bytes: &[u8]) -> ObjectVersion {
        let mut objects = self.objects();
        objects.last += 1;
        let version =
            ObjectVersion { number: objects.last, size: bytes.len() as u64, changed: clock::since_epoch() };
        objects.current.insert(path.clone(), Object { version: version.clone(), bytes: bytes.into() });
        for _ in 0..if objects.is_silent { 0 } else { objects.copies + 1 } {
            objects.queue.push_back(path.clone());
        }
        drop(objects);
        self.0.bell.notify_waiters();
        version
    }

    /// Puts an object if what is there is this version, or nothing for `None`.
    pub(crate) fn put_if(&self, path: &RelPath, bytes: &[u8], there: Option<&ObjectVersion>) -> Put {
        match self.get(path) {
            Some(object) if Some(&object.version) != there => Put::Exists(object),
            _ => Put::Done(self.put(path, bytes)),
        }
    }

    pub(crate) fn get(&self, path: &RelPath) -> Option<Object> {
        self.objects().current.get(path).cloned()
    }

    /// Removes these versions, if all of them are current.
    pub(crate) fn remove_if(&self, versions: &[(RelPath, ObjectVersion)]) -> bool {
        let mut objects = self.objects();
        let current = &mut objects.current;
        let is_current = |(path, version): &(RelPath, ObjectVersion)| {
            current.get(path).map(|o| &o.version) == Some(version)
        };
        if !versions.iter().all(is_current) {
            return false;
        }
        for (path, _) in versions {
            current.remove(path);
        }
        true
    }

    /// Every object, by name.
    pub(crate) fn all(&self) -> BTreeMap<RelPath, Object> {
        self.objects().current.clone()
    }

    /// How many hints nobody has acknowledged.
    pub(crate) fn unacknowledged(&self) -> usize {
        let objects = self.objects();
        objects.queue.len() + objects.taken.len()
    }

    fn take_hints(&self) -> Vec<RelPath> {
        let now = clock::since_epoch();
        let mut objects = self.objects();
        let back: Vec<_> = objects.taken.extract_if(.., |(_, until)| *until <= now).collect();
        objects.queue.extend(back.into_iter().map(|(path, _)| path));
        let hints: Vec<RelPath> = objects.queue.drain(..).collect();
        objects.taken.extend(hints.iter().map(|path| (path.clone(), now + VISIBILITY)));
        hints
    }

    fn acknowledge(&self, path: &RelPath) {
        self.objects().taken.retain(|(taken, _)| taken != path);
    }
}

/// A rule's objects.
#[derive(Clone)]
pub(crate) struct MemorySource {
    rule: Arc<Rule>,
    bucket: Bucket,
}

impl MemorySource {
    pub(crate) const fn new(rule: Arc<Rule>, bucket: Bucket) -> Self {
        Self { rule, bucket }
    }

    fn beside(&self, path: &RelPath) -> RelPath {
        self.rule.signature_path(path).unwrap()
    }

    fn look(&self, path: &RelPath) -> PairVersion<ObjectVersion> {
        let version = |path| self.bucket.get(path).map(|object| object.version);
        PairVersion { payload: version(path), signature: version(&self.beside(path)) }
    }

    /// Reads these versions of a pair.
    fn read(
        &self,
        path: &RelPath,
        versions: &PairVersion<ObjectVersion>,
        request: ReadRequest,
    ) -> Result<Snapshot<Self>, AttemptError> {
        assert!(request.stage.is_none(), "its sink needs no copies");
        let object =
            self.bucket.get(path).filter(|object| Some(&object.version) == versions.payload.as_ref());
        let object = object.ok_or(AttemptError::Changed)?;
        let signature = match &versions.signature {
            None => None,
            Some(expected) => {
                let there = self.bucket.get(&self.beside(path));
                let there = there.filter(|there| there.version == *expected).ok_or(AttemptError::Changed)?;
                Some(SignatureRead {
                    version: there.version,
                    digest: Some(Digest::of(&there.bytes)),
                    parsed: Signature::parse(&there.bytes).ok(),
                })
            }
        };
        let request = request.digests.and(DigestRequest::digest(HashAlgorithm::Sha512));
        let hashed = Hashed {
            digest: Digest::of(&object.bytes),
            digests: DigestSet::of(request, &object.bytes),
            size: object.version.size,
        };
        self.bucket.was_read(path);
        if self.bucket.is_touched(path) {
            return Err(AttemptError::Touched(hashed.digest));
        }
        Ok(Snapshot {
            origin: object.bytes,
            version: object.version,
            staging: None,
            hashed,
            writer: Writer::Unknown,
            is_signature_name_taken: signature.is_none() && self.bucket.get(&self.beside(path)).is_some(),
            signature,
            clue: None,
        })
    }
}

impl Source for MemorySource {
    type Version = ObjectVersion;
    /// What was read: a version has the same bytes for ever.
    type Origin = Arc<[u8]>;
    type Feed = MemoryFeed;
    type Leftover = Infallible;

    fn feed(&self, _: bool) -> MemoryFeed {
        MemoryFeed { rule: Arc::clone(&self.rule), bucket: self.bucket.clone(), listed: VecDeque::new() }
    }

    async fn observe(&self, path: &RelPath) -> Result<Observation<ObjectVersion>, FsError> {
        Ok(Observation { versions: self.look(path), unfit: None, owner: None })
    }

    async fn observe_all(&self, paths: &[RelPath]) -> Vec<Result<Observation<ObjectVersion>, FsError>> {
        paths
            .iter()
            .map(|path| Ok(Observation { versions: self.look(path), unfit: None, owner: None }))
            .collect()
    }

    async fn version_of(&self, path: &RelPath) -> Result<Option<ObjectVersion>, FsError> {
        Ok(self.bucket.get(path).map(|object| object.version))
    }

    async fn probe(&self, _: &RelPath, _: &PairVersion<ObjectVersion>) -> Activity {
        Activity::UNKNOWN
    }

    async fn snapshot(
        &self,
        path: &RelPath,
        versions: &PairVersion<ObjectVersion>,
        request: ReadRequest,
    ) -> Result<Snapshot<Self>, AttemptError> {
        let (source, path, versions) = (self.clone(), path.clone(), versions.clone());
        request.in_turn(move |request, _| source.read(&path, &versions, request)).await
    }

    async fn is_still(&self, path: &RelPath, snapshot: &mut Snapshot<Self>) -> Result<bool, AttemptError> {
        Ok(self.look(path).payload.as_ref() == Some(&snapshot.version))
    }

    async fn bringers(&self, path: &RelPath, snapshot: &Snapshot<Self>) -> Result<Bringers, AttemptError> {
        if self.look(path) == snapshot.versions() { Ok(Bringers::One) } else { Err(AttemptError::Changed) }
    }

    fn rest(&self, _: &mut Snapshot<Self>) {}

    async fn wake(&self, _: &RelPath, _: &mut Snapshot<Self>) -> Result<(), AttemptError> {
        Ok(())
    }

    async fn acknowledge(&self, path: &RelPath) {
        self.bucket.acknowledge(path);
        self.bucket.acknowledge(&self.beside(path));
    }
}

/// Hints and listings of a bucket.
pub(crate) struct MemoryFeed {
    rule: Arc<Rule>,
    bucket: Bucket,
    listed: VecDeque<RelPath>,
}

impl MemoryFeed {
    fn payload_of(&self, path: &RelPath) -> Option<RelPath> {
        match meaning(&self.rule, path.parent(), path.name()) {
            Meaning::Pair(path) | Meaning::Signature(path) => Some(path),
            Meaning::Unsignable(..) | Meaning::Nothing => None,
        }
    }
}

impl Feed for MemoryFeed {
    type Leftover = Infallible;

    fn take(&mut self, _: Moment) -> News {
        let hints = self.bucket.take_hints();
        // An object is there whole, or not at all.
        let paths = hints.iter().filter_map(|path| Some((self.payload_of(path)?, Hint::MovedIn)));
        News { paths: paths.collect(), ..News::default() }
    }

    async fn wait(&self) {
        // Also for hints that come back.
        tokio::time::timeout(VISIBILITY, self.bucket.0.bell.notified()).await.ok();
    }

    fn due(&self) -> Option<Moment> {
        None
    }

    fn probe_events(&mut self, _: Moment) {}

    fn begin(&mut self) {
        self.listed = self.bucket.all().into_keys().collect();
    }

    async fn next(&mut self, names: usize) -> Result<Option<Batch<Infallible>>, FsError> {
        if self.listed.is_empty() {
            return Ok(None);
        }
        let names: Vec<_> = self.listed.drain(..names.min(self.listed.len())).collect();
        self.bucket.objects().listed += names.len();
        let pairs: BTreeSet<_> = names.iter().filter_map(|path| self.payload_of(path)).collect();
        Ok(Some(Batch { pairs, ..Batch::default() }))
    }

    fn end(&mut self, _: Moment) -> bool {
        false
    }

    fn fault(&self) -> Option<EventFault> {
        None
    }

    fn watchers_built(&mut self) -> usize {
        0
    }
}

/// The path of a name.
pub(crate) fn path(name: &str) -> RelPath {
    RelPath::new(Path::new(OsStr::new(name))).unwrap()
}
