//! State: what was decided for which version of which file, in SQLite.
//!
//! Remembers, so that a restart does no work twice; never the only place where a file is known, so losing
//! it loses speed and history and nothing else. A row saves work for sign rules and never replaces
//! verification before delivery (C13).
//!
//! One thread owns the connection. Requests that arrive while it commits are committed together, so that
//! one fsync serves many files; nobody gets an answer before what they wrote is durable. Commands may append to
//! the record beside it, by a [`Journal`].

pub mod attestation;
pub mod audit;
#[cfg(test)]
mod cases;
mod departure;
pub mod export;
pub mod ledger;
pub mod link;
pub mod reader;
pub mod reason;
mod schema;

use std::collections::VecDeque;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::{oneshot, watch};

use crate::chain;
use crate::clock::{self, Clock, FileTime};
use crate::digest::Digest;
use crate::escape::quoted;
use crate::fs::{Identity, RelPath, Stat, stat_path};
use crate::signature::Signature;
use ledger::{Pruned, Seal};
use link::Head;
use reason::DecisionReason;

pub use departure::{ExitKind, Journal, QuarantineExit};

/// The database's name in the state directory.
pub const FILE: &str = "state.db";

/// Requests committed together at most; bounds how long one commit keeps the first waiting.
const MAX_GROUP: usize = 256;
/// From how many on they wait a moment for more, so that fewer commits serve them all.
const MANY: usize = 4;
const MOMENT: Duration = Duration::from_millis(2);

/// Paths listed at a time, so that nobody waits long for state's thread.
const PAGE: i64 = 512;

/// How long to wait for another process that is writing.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long of that at a time, before whoever asks whether state's thread turns is answered.
const BREATH: Duration = Duration::from_millis(200);

/// What can be wrong with state.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StateError {
    /// The disk is full; ends when there is room.
    #[error("no room to write state in {}", quoted(.0))]
    Full(PathBuf),
    /// Another process keeps it locked; ends when that is done.
    #[error("another process keeps the state in {} locked", quoted(.0))]
    Busy(PathBuf),
    /// Anything else. What was to be remembered may not be, so nothing more is published.
    #[error("state in {} failed: {}", quoted(.0), .1)]
    Broken(PathBuf, String),
    /// Another version of this program wrote it.
    #[error(
        "state in {} has version {}, which this program does not know; upgrade it, or move the file away",
        quoted(.0), .1
    )]
    Version(PathBuf, i64),
}

/// How opening found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// There was none: a first start, or it was lost.
    New,
    /// It was there and whole.
    Whole,
    /// It was damaged, was moved to this name, and a new one begun.
    SetAside(PathBuf),
}

/// A version of a file as state keeps it: without the device, which changes with a remount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version([u8; 40]);

impl From<&Identity> for Version {
    fn from(identity: &Identity) -> Self {
        let mut bytes = Vec::with_capacity(40);
        bytes.extend_from_slice(&identity.ino.to_be_bytes());
        bytes.extend_from_slice(&identity.size.to_be_bytes());
        for FileTime { seconds, nanos } in [identity.mtime, identity.ctime] {
            bytes.extend_from_slice(&seconds.to_be_bytes());
            bytes.extend_from_slice(&nanos.to_be_bytes());
        }
        let mut version = [0; 40];
        for (to, from) in version.iter_mut().zip(bytes) {
            *to = from;
        }
        Self(version)
    }
}

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A `.sig` of ours is being written; its digest is known.
    Signing,
    /// Its `.sig` is in place and ours.
    Signed,
    /// Somebody's `.sig` was there and valid under the rule's key and context.
    Adopted,
    /// Judged valid where it lies.
    Valid,
    /// Delivered.
    Delivered,
    /// Judged invalid and left.
    Invalid,
    /// Moved to quarantine.
    Quarantined,
    /// Not handled as it is.
    Refused,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Signing,
        Self::Signed,
        Self::Adopted,
        Self::Valid,
        Self::Delivered,
        Self::Invalid,
        Self::Quarantined,
        Self::Refused,
    ];

    /// The word used in state, records and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signing => "signing",
            Self::Signed => "signed",
            Self::Adopted => "adopted",
            Self::Valid => "valid",
            Self::Delivered => "delivered",
            Self::Invalid => "invalid",
            Self::Quarantined => "quarantined",
            Self::Refused => "refused",
        }
    }

    /// The words of the outcomes that a file ends with.
    pub fn ended() -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().filter(|outcome| *outcome != Self::Signing).map(Self::as_str)
    }

    /// The words of all outcomes on record, those of items that left quarantine included.
    pub fn words() -> impl Iterator<Item = &'static str> {
        let departed = [ExitKind::Released, ExitKind::Purged].map(ExitKind::as_str);
        Self::ALL.into_iter().map(Self::as_str).chain(departed)
    }

    /// Whether the `.sig` beside the payload is ours, or counts as ours.
    pub const fn is_signed_in_place(self) -> bool {
        matches!(self, Self::Signing | Self::Signed | Self::Adopted)
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == word)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One decision, as remembered and as put on record.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The rule's name.
    pub rule: String,
    /// The payload, below the rule's root.
    pub path: RelPath,
    /// The rule's fingerprint at the time.
    pub fingerprint: String,
    /// The payload's version; `None` when there was none to look at.
    pub payload: Option<Version>,
    /// The signature's version.
    pub signature: Option<Version>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, where that says more.
    pub reason: Option<DecisionReason>,
    /// Of the payload.
    pub digest: Option<Digest>,
    /// Of the signature's bytes.
    pub signature_digest: Option<Digest>,
    /// The key that signed or vouched.
    pub key: Option<String>,
    /// The folder in the quarantine store.
    pub item: Option<String>,
}

/// The last decision about a path, as state remembers it.
#[derive(Debug, Clone)]
pub struct Remembered {
    /// The rule's fingerprint at the time.
    pub fingerprint: String,
    /// The payload's version.
    pub payload: Option<Version>,
    /// The signature's version.
    pub signature: Option<Version>,
    /// What became of it.
    pub outcome: Outcome,
    /// Why, where that says more and is known to this version.
    pub reason: Option<DecisionReason>,
    /// Of the payload.
    pub digest: Option<Digest>,
    /// Of the signature's bytes.
    pub signature_digest: Option<Digest>,
}

impl Remembered {
    /// Whether it is about a payload of this digest.
    pub fn is_of_payload(&self, digest: &Digest) -> bool {
        self.digest.as_ref().is_some_and(|mine| mine.matches(digest.as_bytes()))
    }

    /// Whether it is about this signature.
    pub fn is_of_signature(&self, signature: &Signature) -> bool {
        let digest = signature.digest();
        self.signature_digest.as_ref().is_some_and(|mine| mine.matches(digest.as_bytes()))
    }
}

/// Does its work, or is told why there is no transaction.
type Work = Box<dyn FnOnce(Result<&Connection, StateError>) -> Done + Send>;

/// A piece of work that is done, and not yet committed.
struct Done {
    failed: Option<StateError>,
    /// To be told how the commit went.
    reply: Box<dyn FnOnce(Result<(), StateError>) + Send>,
}

enum Request {
    /// Whether the thread turns.
    Echo(oneshot::Sender<()>),
    Work(Work),
}

/// A handle of the state; cheap to clone.
#[derive(Clone)]
pub struct State {
    requests: mpsc::Sender<Request>,
    path: PathBuf,
    commits: watch::Receiver<u64>,
}

impl State {
    /// Opens or begins the state in a directory. A damaged database is moved aside, never trusted and never
    /// deleted.
    ///
    /// # Errors
    /// [`StateError`]: the directory cannot be written, or the database is of a later version.
    pub fn open(dir: &Path) -> Result<(Self, Found), StateError> {
        let path = dir.join(FILE);
        let existed = path.exists();
        let (connection, found) = match schema::open(&path) {
            Ok(connection) if existed => (connection, Found::Whole),
            Ok(connection) => (connection, Found::New),
            Err(schema::OpenError::Damaged(_)) => {
                let aside = schema::set_aside(&path)
                    .map_err(|e| StateError::Broken(path.clone(), chain::one_line(&e)))?;
                let connection = schema::open(&path).map_err(|e| e.into_state_error(&path))?;
                (connection, Found::SetAside(aside))
            }
            Err(e) => return Err(e.into_state_error(&path)),
        };
        let file = stat_path(&path).ok().flatten();
        Ok((Self::serve(connection, path, file), found))
    }

    /// State that is forgotten at the end, begun from what a state directory holds if it holds any. Changes
    /// nothing there.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn rehearsal(dir: &Path) -> Result<Self, StateError> {
        let path = dir.join(FILE);
        let connection = schema::in_memory(&path).map_err(|e| e.into_state_error(&path))?;
        Ok(Self::serve(connection, path, None))
    }

    fn serve(connection: Connection, path: PathBuf, file: Option<Stat>) -> Self {
        let (requests, queue) = mpsc::channel();
        let (commit, commits) = watch::channel(0);
        let place = Place { path: path.clone(), file };
        // Ends when the last handle is dropped. A panic in it closes the channel, which every caller sees.
        let thread = thread::Builder::new().name("state".into());
        // Without a thread to be had, the first request fails as every later one would.
        drop(thread.spawn(move || serve(&connection, &queue, &place, &commit)));
        Self { requests, path, commits }
    }

    /// Changes when something was written: perhaps the record has more rows.
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }

    /// Comes back when state's thread comes round. It waits for another process's lock no longer than a moment at a
    /// time, and for its own disk as long as that takes.
    ///
    /// # Errors
    /// `Broken`: it has ended.
    pub async fn echo(&self) -> Result<(), StateError> {
        let (answer, wait) = oneshot::channel();
        self.requests.send(Request::Echo(answer)).map_err(|_| self.has_ended())?;
        wait.await.map_err(|_| self.has_ended())
    }

    /// The last decision about a path.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn remembered(&self, rule: &str, path: &RelPath) -> Result<Option<Remembered>, StateError> {
        let (rule, path) = (rule.to_owned(), path.as_bytes().to_vec());
        self.call(move |db| remembered(db, &rule, &path)).await
    }

    /// The last decisions about many paths of one rule, in the order asked.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn remembered_all(
        &self,
        rule: &str,
        paths: Vec<RelPath>,
    ) -> Result<Vec<(RelPath, Option<Remembered>)>, StateError> {
        let rule = rule.to_owned();
        self.call(move |db| {
            paths
                .into_iter()
                .map(|path| remembered(db, &rule, path.as_bytes()).map(|found| (path, found)))
                .collect()
        })
        .await
    }

    /// Remembers a decision and puts it on record. Durable when this returns.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn record(&self, decision: Decision) -> Result<(), StateError> {
        self.record_all(vec![decision]).await
    }

    /// [`State::record`] for many decisions, in one commit.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn record_all(&self, decisions: Vec<Decision>) -> Result<(), StateError> {
        if decisions.is_empty() {
            return Ok(());
        }
        self.call(move |db| {
            whole(db, |db| {
                for decision in decisions {
                    remember(db, &decision)?;
                    if decision.outcome == Outcome::Delivered {
                        forget_intents(db, &decision.rule, decision.path.as_bytes())?;
                    }
                    ledger::append(db, clock::timestamp(), &decision)?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Puts on record what is in quarantine and is not on record: a kill came in between, or state was lost.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn record_item(&self, decision: Decision) -> Result<(), StateError> {
        self.call(move |db| whole(db, |db| ledger::append(db, clock::timestamp(), &decision).map(drop))).await
    }

    /// Puts on record how many decisions of a kind are not, beside the last of them.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn record_sum(&self, sum: Decision) -> Result<(), StateError> {
        self.call(move |db| whole(db, |db| ledger::append(db, clock::timestamp(), &sum).map(drop))).await
    }

    /// Puts on record that an item is about to leave quarantine. Durable when this returns.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn record_departure(&self, departure: QuarantineExit) -> Result<(), StateError> {
        self.call(move |db| departure::append(db, &departure)).await
    }

    /// Which of these folders of the quarantine store are not on record.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn unrecorded_items(&self, items: Vec<String>) -> Result<Vec<String>, StateError> {
        self.call(move |db| {
            let mut unknown = Vec::new();
            for item in items {
                if !ledger::knows_item(db, &item)? {
                    unknown.push(item);
                }
            }
            Ok(unknown)
        })
        .await
    }

    /// Forgets which folders of the quarantine store were on record before retention, but for those that are
    /// still there.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn forget_items(&self, present: Vec<String>) -> Result<(), StateError> {
        self.call(move |db| whole(db, |db| ledger::forget_items(db, &present))).await
    }

    /// Removes at most `most` rows of the record that were written before `before` (RFC 3339, UTC).
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn prune(&self, before: String, most: u32) -> Result<Pruned, StateError> {
        self.call(move |db| whole(db, |db| ledger::prune(db, &before, most))).await
    }

    /// The head of the record, if it was not sealed yet.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn unsealed(&self) -> Result<Option<Head>, StateError> {
        self.call(ledger::unsealed).await
    }

    /// Keeps what KMS made of a head.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn keep_seal(&self, seal: Seal) -> Result<(), StateError> {
        self.call(move |db| ledger::keep_seal(db, &seal)).await
    }

    /// Remembers a decision without putting it on record: a step on the way, or something merely seen again.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn note(&self, decision: Decision) -> Result<(), StateError> {
        self.note_all(vec![decision]).await
    }

    /// [`State::note`] for many decisions.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn note_all(&self, decisions: Vec<Decision>) -> Result<(), StateError> {
        if decisions.is_empty() {
            return Ok(());
        }
        self.call(move |db| decisions.iter().try_for_each(|decision| remember(db, decision))).await
    }

    /// Remembers that a signature is about to be published at a path. Until the delivery is recorded, a
    /// signature of these bytes without payload at the destination is known to be left over from us.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn intend(&self, rule: &str, path: &RelPath, signature: &Signature) -> Result<(), StateError> {
        let (rule, path) = (rule.to_owned(), path.as_bytes().to_vec());
        let digest = signature.digest();
        self.call(move |db| intend(db, &rule, &path, &digest)).await
    }

    /// Remembers that the signature of ours beside a payload is about to be replaced. It is the only one that can be
    /// there until another is, so that those before it are forgotten.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn intend_to_replace(
        &self,
        rule: &str,
        path: &RelPath,
        signature: &Signature,
    ) -> Result<(), StateError> {
        let (rule, path) = (rule.to_owned(), path.as_bytes().to_vec());
        let digest = signature.digest();
        self.call(move |db| {
            whole(db, |db| {
                forget_intents(db, &rule, &path)?;
                intend(db, &rule, &path, &digest)
            })
        })
        .await
    }

    /// Whether publishing this signature at this path was once intended and not recorded as done.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn was_intended(
        &self,
        rule: &str,
        path: &RelPath,
        signature: &Signature,
    ) -> Result<bool, StateError> {
        let (rule, path) = (rule.to_owned(), path.as_bytes().to_vec());
        let digest = signature.digest().to_string();
        self.call(move |db| {
            db.prepare_cached("SELECT 1 FROM intent WHERE rule = ?1 AND path = ?2 AND signature_digest = ?3")?
                .exists(params![rule, path, digest])
        })
        .await
    }

    /// Whether this is the digest of a signature that a rule made, or was to replace, whatever it lies at. Reads all that
    /// is remembered of the rule: for what is found once in a while.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn knows_signature(&self, rule: &str, digest: &Digest) -> Result<bool, StateError> {
        let (rule, digest) = (rule.to_owned(), digest.to_string());
        self.call(move |db| {
            db.prepare_cached(
                "SELECT 1 FROM decided WHERE rule = ?1 AND signature_digest = ?2 \
                 UNION ALL SELECT 1 FROM intent WHERE rule = ?1 AND signature_digest = ?2",
            )?
            .exists(params![rule, digest])
        })
        .await
    }

    /// Whether a digest was delivered, or about to be, under this path before and another one after it.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn is_superseded(
        &self,
        rule: &str,
        path: &RelPath,
        digest: &Digest,
    ) -> Result<bool, StateError> {
        let (rule, path, digest) = (rule.to_owned(), path.as_bytes().to_vec(), digest.clone());
        self.call(move |db| is_superseded(db, &rule, &path, &digest)).await
    }

    /// Remembers a digest as the newest one under this path; whether it was not remembered before. To be called before
    /// it is delivered: a kill in between must not let an older one be taken for the newest.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn remember_edition(
        &self,
        rule: &str,
        path: &RelPath,
        digest: &Digest,
    ) -> Result<bool, StateError> {
        let (rule, path, digest) = (rule.to_owned(), path.as_bytes().to_vec(), digest.clone());
        self.call(move |db| remember_edition(db, &rule, &path, &digest)).await
    }

    /// Forgets a digest that was not delivered after all: what came before it is not superseded.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn forget_edition(
        &self,
        rule: &str,
        path: &RelPath,
        digest: &Digest,
    ) -> Result<(), StateError> {
        let (rule, path, digest) = (rule.to_owned(), path.as_bytes().to_vec(), digest.clone());
        self.call(move |db| forget_edition(db, &rule, &path, &digest)).await
    }

    /// Some of the paths of a rule that have decisions, each with the version of its payload: those after `last`, in
    /// their order. None when there are no more.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn decided_after(
        &self,
        rule: &str,
        last: &[u8],
    ) -> Result<Vec<(Vec<u8>, Option<Version>)>, StateError> {
        let (rule, last) = (rule.to_owned(), last.to_vec());
        self.call(move |db| {
            db.prepare_cached(
                "SELECT path, payload FROM decided WHERE rule = ?1 AND path > ?2 ORDER BY path LIMIT ?3",
            )?
            .query_map(params![rule, last, PAGE], |row| {
                // One that cannot be read equals none, and is not forgotten.
                let version: Option<Vec<u8>> = row.get(1)?;
                Ok((row.get(0)?, version.and_then(|bytes| bytes.try_into().ok()).map(Version)))
            })?
            .collect()
        })
        .await
    }

    /// Forgets decisions about files of a rule that are gone, but for those that were made since they were listed:
    /// then another version has come.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn forget(&self, rule: &str, gone: Vec<(Vec<u8>, Option<Version>)>) -> Result<(), StateError> {
        if gone.is_empty() {
            return Ok(());
        }
        let rule = rule.to_owned();
        self.call(move |db| {
            let mut delete = db.prepare_cached(
                "DELETE FROM decided WHERE rule = ?1 AND path = ?2 AND payload IS ?3 RETURNING outcome",
            )?;
            for (path, payload) in &gone {
                let was: Option<String> = delete
                    .query_one(params![rule, path, payload.map(|version| version.0)], |row| row.get(0))
                    .optional()?;
                // What was about to be delivered may still lie at the destination.
                if was.as_deref().and_then(Outcome::parse).is_some_and(Outcome::is_signed_in_place) {
                    forget_intents(db, &rule, path)?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StateError> {
        let (answer, wait) = oneshot::channel();
        let path = self.path.clone();
        let work: Work = Box::new(move |db| {
            let done = db.and_then(|db| work(db).map_err(|e| state_error(&path, &e)));
            let failed = done.as_ref().err().cloned();
            let reply = Box::new(move |committed: Result<(), StateError>| {
                let result = committed.and(done);
                // A caller that no longer waits was cut off by shutdown; what it asked for is done.
                drop(answer.send(result));
            });
            Done { failed, reply }
        });
        self.requests.send(Request::Work(work)).map_err(|_| self.has_ended())?;
        wait.await.map_err(|_| self.has_ended())?
    }

    fn has_ended(&self) -> StateError {
        StateError::Broken(self.path.clone(), "its thread has ended".into())
    }
}

/// Where the database is.
struct Place {
    path: PathBuf,
    /// The file that was opened; none in a rehearsal.
    file: Option<Stat>,
}

impl Place {
    /// What is written to a file without a name is lost at the end, and nobody else can read it (unlink(2)).
    fn check(&self) -> Result<(), StateError> {
        let Some(file) = &self.file else { return Ok(()) };
        match stat_path(&self.path) {
            Ok(there) if !there.is_some_and(|there| there.is_same_place(file)) => Err(StateError::Broken(
                self.path.clone(),
                "the file was removed or replaced since it was opened; put it back before the next start, if you can"
                    .into(),
            )),
            Ok(_) | Err(_) => Ok(()), // who cannot look does not know
        }
    }
}

fn serve(db: &Connection, requests: &mpsc::Receiver<Request>, place: &Place, commit: &watch::Sender<u64>) {
    let path = &place.path;
    let mut changes = db.total_changes();
    let mut works = VecDeque::new();
    loop {
        if works.is_empty() {
            let Ok(request) = requests.recv() else { return };
            take(request, &mut works);
        }
        take_all(requests, &mut works);
        if works.is_empty() {
            continue;
        }
        if works.len() >= MANY {
            thread::sleep(MOMENT);
            take_all(requests, &mut works);
        }
        let mut going = place
            .check()
            .and_then(|()| begin(db, || take_all(requests, &mut works)).map_err(|e| state_error(path, &e)));
        let mut replies = Vec::new();
        for work in works.drain(..works.len().min(MAX_GROUP)) {
            let Done { failed, reply } = work(going.clone().map(|()| db));
            replies.push(reply);
            if let (Ok(()), Some(error), true) = (&going, failed, db.is_autocommit()) {
                // A disk that is full or broken may end the transaction, with all that was done in it (SQLite, "Response To
                // Errors Within A Transaction"). It holds for the others too.
                going = Err(error);
            }
        }
        let committed = going.and_then(|()| db.execute_batch("COMMIT").map_err(|e| state_error(path, &e)));
        if committed.is_err() && !db.is_autocommit() {
            // Whatever else is wrong shows at the next request.
            db.execute_batch("ROLLBACK").unwrap_or_default();
        }
        if std::mem::replace(&mut changes, db.total_changes()) != changes {
            commit.send_modify(|n| *n += 1);
        }
        for reply in replies {
            reply(committed.clone());
        }
    }
}

fn take_all(requests: &mpsc::Receiver<Request>, works: &mut VecDeque<Work>) {
    requests.try_iter().for_each(|request| take(request, works));
}

fn take(request: Request, works: &mut VecDeque<Work>) {
    match request {
        Request::Echo(answer) => answer.send(()).unwrap_or_default(), // who no longer asks needs no answer
        Request::Work(work) => works.push_back(work),
    }
}

/// IMMEDIATE: commands write history beside the daemon. A transaction that has read cannot begin to write once
/// another has committed (SQLite, "Isolation"), and that would be no passing error. While another process writes,
/// `meanwhile` is done now and then.
fn begin(db: &Connection, mut meanwhile: impl FnMut()) -> rusqlite::Result<()> {
    let clock = Clock::start();
    db.busy_timeout(BREATH)?;
    loop {
        match db.execute_batch("BEGIN IMMEDIATE") {
            Err(error) if is_busy(&error) && clock.now() < PATIENCE => meanwhile(),
            begun => return begun,
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}

fn state_error(path: &Path, error: &rusqlite::Error) -> StateError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => StateError::Full(path.to_owned()),
        Some(rusqlite::ErrorCode::DatabaseBusy) => StateError::Busy(path.to_owned()),
        _ => StateError::Broken(path.to_owned(), error.to_string()),
    }
}

fn remembered(db: &Connection, rule: &str, path: &[u8]) -> rusqlite::Result<Option<Remembered>> {
    let sql = "SELECT fingerprint, payload, signature, outcome, digest, signature_digest, reason, details
         FROM decided WHERE rule = ?1 AND path = ?2";
    remembered_by(db, sql, rule, path, |row| {
        let (code, details): (Option<String>, Option<String>) = (row.get(6)?, row.get(7)?);
        Ok(code.and_then(|code| DecisionReason::parse(&code, details.as_deref())))
    })
}

/// The same in a database of an earlier version, which nobody has migrated yet.
fn remembered_before_codes(db: &Connection, rule: &str, path: &[u8]) -> rusqlite::Result<Option<Remembered>> {
    let sql = "SELECT fingerprint, payload, signature, outcome, digest, signature_digest, reason
         FROM decided WHERE rule = ?1 AND path = ?2";
    remembered_by(db, sql, rule, path, |row| {
        Ok(row.get::<_, Option<String>>(6)?.and_then(|reason| {
            let refusal = reason::sentences::parse(&reason).map(DecisionReason::Refusal);
            refusal.or_else(|| DecisionReason::parse(&reason, None))
        }))
    })
}

fn remembered_by(
    db: &Connection,
    sql: &str,
    rule: &str,
    path: &[u8],
    reason: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<Option<DecisionReason>>,
) -> rusqlite::Result<Option<Remembered>> {
    db.prepare_cached(sql)?
        // A row of another version of this program, or one that a disk has spoilt, is a decision nobody here can rely
        // on. As an error it would end the daemon, and the next one, until somebody removed it.
        .query_row(params![rule, path], |row| Ok(decoded(row, reason).ok().flatten()))
        .optional()
        .map(Option::flatten)
}

/// A row of `remembered`; `None` for an outcome that this version does not know. A reason that it does not know is none:
/// where that matters, the file is looked at again.
fn decoded(
    row: &rusqlite::Row<'_>,
    reason: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<Option<DecisionReason>>,
) -> rusqlite::Result<Option<Remembered>> {
    let Some(outcome) = Outcome::parse(&row.get::<_, String>(3)?) else { return Ok(None) };
    let version = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<[u8; 40]>>(column)?.map(Version));
    Ok(Some(Remembered {
        fingerprint: row.get(0)?,
        payload: version(1)?,
        signature: version(2)?,
        outcome,
        reason: reason(row)?,
        digest: digest(row, 4)?,
        signature_digest: digest(row, 5)?,
    }))
}

/// A digest in a row. What is none is an error, as anything else that a disk has spoilt.
fn digest(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<Digest>> {
    let text: Option<String> = row.get(column)?;
    let failed = |error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error));
    text.map(|text| text.parse().map_err(failed)).transpose()
}

fn remember(db: &Connection, d: &Decision) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO decided
         (rule, path, fingerprint, payload, signature, outcome, reason, details, digest, signature_digest)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        d.rule,
        d.path.as_bytes(),
        d.fingerprint,
        d.payload.map(|v| v.0),
        d.signature.map(|v| v.0),
        d.outcome.as_str(),
        d.reason.as_ref().map(DecisionReason::as_str),
        d.reason.as_ref().and_then(DecisionReason::details),
        d.digest.as_ref().map(Digest::to_string),
        d.signature_digest.as_ref().map(Digest::to_string),
    ])
    .map(drop)
}

fn is_superseded(db: &Connection, rule: &str, path: &[u8], digest: &Digest) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "SELECT 1 FROM edition AS old JOIN edition AS new USING (rule, path)
         WHERE rule = ?1 AND path = ?2 AND old.digest = ?3 AND new.id > old.id",
    )?
    .exists(params![rule, path, digest.to_string()])
}

fn remember_edition(db: &Connection, rule: &str, path: &[u8], digest: &Digest) -> rusqlite::Result<bool> {
    db.prepare_cached("INSERT OR IGNORE INTO edition (rule, path, digest) VALUES (?1, ?2, ?3)")?
        .execute(params![rule, path, digest.to_string()])
        .map(|rows| rows > 0)
}

fn forget_edition(db: &Connection, rule: &str, path: &[u8], digest: &Digest) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM edition WHERE rule = ?1 AND path = ?2 AND digest = ?3")?
        .execute(params![rule, path, digest.to_string()])
        .map(drop)
}

fn intend(db: &Connection, rule: &str, path: &[u8], signature: &Digest) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR IGNORE INTO intent (rule, path, signature_digest) VALUES (?1, ?2, ?3)")?
        .execute(params![rule, path, signature.to_string()])
        .map(drop)
}

fn forget_intents(db: &Connection, rule: &str, path: &[u8]) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM intent WHERE rule = ?1 AND path = ?2")?
        .execute(params![rule, path])
        .map(drop)
}

/// Does all of `work` or nothing of it, inside the transaction that many share.
fn whole<T>(db: &Connection, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    db.prepare_cached("SAVEPOINT whole")?.execute([])?;
    let done = work(db);
    // A full disk ends the transaction, and the savepoint with it; then there is nothing left to undo.
    if done.is_err() && !db.is_autocommit() {
        db.prepare_cached("ROLLBACK TO whole")?.execute([])?;
    }
    if !db.is_autocommit() {
        db.prepare_cached("RELEASE whole")?.execute([])?;
    }
    done
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    fn decision(name: &str, version: u8) -> Decision {
        Decision {
            rule: "rule".into(),
            path: RelPath::new(name).unwrap(),
            fingerprint: String::new(),
            payload: Some(Version([version; 40])),
            signature: None,
            outcome: Outcome::Signed,
            reason: None,
            digest: None,
            signature_digest: None,
            key: None,
            item: None,
        }
    }

    #[tokio::test]
    async fn c5_without_room_nobody_of_a_group_is_told_anything_else_and_with_room_all_goes_on() {
        let temp = tempfile::tempdir().unwrap();
        let (state, _) = State::open(temp.path()).unwrap();
        let limit = |pages: &'static str| {
            state.call(move |db| db.query_one(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())))
        };
        let record_much = || {
            let mut many = JoinSet::new();
            for n in 0..40 {
                let (state, much) =
                    (state.clone(), (0..200).map(|m| decision(&format!("{n}/{m}"), 1)).collect());
                many.spawn(async move { state.record_all(much).await });
            }
            many.join_all()
        };
        limit("1").await.unwrap(); // no more than there are
        for ended in record_much().await {
            assert!(matches!(ended, Err(StateError::Full(_))), "{ended:?}");
        }
        let remembered = async || state.remembered("rule", &RelPath::new("39/199").unwrap()).await.unwrap();
        assert!(remembered().await.is_none());
        limit("1000000").await.unwrap();
        for ended in record_much().await {
            ended.unwrap();
        }
        assert!(remembered().await.is_some());
    }

    #[tokio::test]
    async fn what_was_decided_anew_since_it_was_listed_is_not_forgotten() {
        let temp = tempfile::tempdir().unwrap();
        let (state, _) = State::open(temp.path()).unwrap();
        let names: Vec<String> = (0..1000).map(|i| format!("{i:04}")).collect();
        state.record_all(names.iter().map(|name| decision(name, 1)).collect()).await.unwrap();
        let (mut listed, mut last) = (Vec::new(), Vec::new());
        loop {
            let page = state.decided_after("rule", &last).await.unwrap();
            let Some((path, _)) = page.last() else { break };
            last = path.clone();
            listed.extend(page);
        }
        assert_eq!(listed.len(), names.len(), "every page, and each path once");
        state.record(decision("0007", 2)).await.unwrap();
        state.forget("rule", listed).await.unwrap();
        let left = state.decided_after("rule", b"").await.unwrap();
        assert_eq!(left, [(b"0007".to_vec(), Some(Version([2; 40])))]);
    }

    #[tokio::test]
    async fn a24_what_was_not_delivered_after_all_supersedes_nothing() {
        let state = State::rehearsal(Path::new("nowhere")).unwrap();
        let path = RelPath::new("f").unwrap();
        let [one, two] = [b"1", b"2"].map(|content| Digest::of(content));
        assert!(state.remember_edition("r", &path, &one).await.unwrap());
        assert!(!state.remember_edition("r", &path, &one).await.unwrap());
        assert!(state.remember_edition("r", &path, &two).await.unwrap());
        assert!(state.is_superseded("r", &path, &one).await.unwrap());
        state.forget_edition("r", &path, &two).await.unwrap();
        assert!(!state.is_superseded("r", &path, &one).await.unwrap());
    }

    #[tokio::test]
    async fn of_signatures_that_are_replaced_the_last_is_known_until_its_file_is_gone() {
        let state = State::rehearsal(Path::new("nowhere")).unwrap();
        let signature = |n: u32| Signature::parse(format!("signature {n}").as_bytes()).unwrap();
        let count =
            || state.call(|db| db.query_one("SELECT count(*) FROM intent", [], |row| row.get::<_, i64>(0)));
        let (file, other) = (RelPath::new("f").unwrap(), RelPath::new("other").unwrap());
        state.intend("rule", &other, &signature(7)).await.unwrap();
        for n in 0..10 {
            state.intend_to_replace("rule", &file, &signature(n)).await.unwrap();
        }
        assert_eq!(count().await.unwrap(), 2);
        assert!(state.was_intended("rule", &file, &signature(9)).await.unwrap());
        let gone = |name: &str, version| vec![(name.as_bytes().to_vec(), Some(Version([version; 40])))];
        state.note(decision("f", 1)).await.unwrap();
        state.note(Decision { outcome: Outcome::Refused, ..decision("other", 1) }).await.unwrap();
        state.forget("rule", gone("f", 2)).await.unwrap();
        assert_eq!(count().await.unwrap(), 2, "another version came");
        state.forget("rule", [gone("f", 1), gone("other", 1)].concat()).await.unwrap();
        assert_eq!(count().await.unwrap(), 1);
        assert!(
            state.was_intended("rule", &other, &signature(7)).await.unwrap(),
            "it may be at the destination"
        );
    }

    #[tokio::test]
    async fn a_row_that_cannot_be_understood_is_no_decision_and_hides_no_other() {
        let state = State::rehearsal(Path::new("nowhere")).unwrap();
        state
            .call(|db| {
                db.execute_batch(
                    "INSERT INTO decided (rule, path, fingerprint, outcome, digest)
                     VALUES ('r', x'66', 'f', 'signed', 'abc');
                     INSERT INTO decided (rule, path, fingerprint, outcome, payload, reason) VALUES
                     ('r', x'61', 'f', 'invalid', zeroblob(40), 'mismatch'),
                     ('r', x'62', 'f', 'valid', zeroblob(39), NULL),
                     ('r', x'63', 'f', 'valid', NULL, CAST(x'ff' AS TEXT)),
                     ('r', x'64', 'f', 'of a later version', NULL, NULL),
                     ('r', x'65', 'f', 'refused', zeroblob(40), 'of-a-later-version')",
                )
            })
            .await
            .unwrap();
        let paths = ["a", "b", "c", "d", "e", "f"].map(|path| RelPath::new(path).unwrap());
        let found = state.remembered_all("r", paths.to_vec()).await.unwrap();
        let found: Vec<Option<Option<DecisionReason>>> =
            found.into_iter().map(|(_, row)| row.map(|row| row.reason)).collect();
        let known = DecisionReason::Verdict(crate::signing::Reason::Mismatch);
        assert_eq!(found, [Some(Some(known)), None, None, None, Some(None), None]);
        assert!(state.remembered("r", &paths[1]).await.unwrap().is_none());
    }
}
