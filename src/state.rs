//! State: what was decided for which version of which file, in SQLite.
//!
//! Remembers, so that a restart does no work twice; never the only place where a file is known, so losing
//! it loses speed and history and nothing else. A row saves work for sign rules and never replaces
//! verification before delivery (C13).
//!
//! One thread owns the connection. Requests that arrive while it commits are committed together, so that
//! one fsync serves many files; nobody gets an answer before what they wrote is durable.

mod schema;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use rusqlite::{Connection, OptionalExtension as _, params};
use tokio::sync::oneshot;

use crate::clock;
use crate::escape::quoted;
use crate::fs::{FileTime, Identity, RelPath};
use crate::signature::Signature;

/// The database's name in the state directory.
pub const FILE: &str = "state.db";

/// Requests committed together at most; bounds how long one commit keeps the first waiting.
const MAX_GROUP: usize = 256;

/// What can be wrong with state.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StateError {
    /// The disk is full; ends when there is room.
    #[error("no room to write state in {}", quoted(.0))]
    Full(PathBuf),
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
    const ALL: [Self; 8] = [
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
    /// Why, where that says more: a verdict's reason or a refusal.
    pub reason: Option<String>,
    /// SHA-512 of the payload, in hexadecimal.
    pub digest: Option<String>,
    /// SHA-512 of the signature, in hexadecimal.
    pub signature_digest: Option<String>,
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
    /// Why, where that says more.
    pub reason: Option<String>,
    /// SHA-512 of the payload, in hexadecimal.
    pub digest: Option<String>,
    /// SHA-512 of the signature, in hexadecimal.
    pub signature_digest: Option<String>,
}

type Reply = Box<dyn FnOnce(Result<(), StateError>) + Send>;
type Request = Box<dyn FnOnce(&Connection) -> Reply + Send>;

/// A handle of the state; cheap to clone.
#[derive(Clone)]
pub struct State {
    requests: mpsc::Sender<Request>,
    path: PathBuf,
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
                let aside =
                    schema::set_aside(&path).map_err(|e| StateError::Broken(path.clone(), e.to_string()))?;
                let connection = schema::open(&path).map_err(|e| e.into_state_error(&path))?;
                (connection, Found::SetAside(aside))
            }
            Err(e) => return Err(e.into_state_error(&path)),
        };
        Ok((Self::serve(connection, path), found))
    }

    /// State that is forgotten at the end, begun from what a state directory holds if it holds any. Changes
    /// nothing there.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn rehearsal(dir: &Path) -> Result<Self, StateError> {
        let path = dir.join(FILE);
        let connection = schema::in_memory(&path).map_err(|e| e.into_state_error(&path))?;
        Ok(Self::serve(connection, path))
    }

    fn serve(connection: Connection, path: PathBuf) -> Self {
        let (requests, queue) = mpsc::channel();
        let at = path.clone();
        // Ends when the last handle is dropped. A panic in it closes the channel, which every caller sees.
        thread::spawn(move || serve(&connection, &queue, &at));
        Self { requests, path }
    }

    /// The last decision about a path.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn remembered(&self, rule: &str, path: &RelPath) -> Result<Option<Remembered>, StateError> {
        let (rule, path) = (rule.to_owned(), path.as_bytes().to_vec());
        self.call(move |db| remembered(db, &rule, &path)).await
    }

    /// [`State::remembered`] for callers without a runtime; what cannot be read counts as nothing.
    pub fn remembered_now(&self, rule: &str, path: &RelPath) -> Option<Remembered> {
        let (answer, wait) = mpsc::channel();
        let (rule, path) = (rule.to_owned(), path.as_bytes().to_vec());
        let request: Request = Box::new(move |db| {
            drop(answer.send(remembered(db, &rule, &path)));
            Box::new(drop)
        });
        self.requests.send(request).ok()?;
        wait.recv().ok()?.ok()?
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
        self.call(move |db| {
            remember(db, &decision)?;
            if decision.outcome == Outcome::Delivered {
                db.prepare_cached("DELETE FROM intent WHERE rule = ?1 AND path = ?2")?
                    .execute(params![decision.rule, decision.path.as_bytes()])?;
            }
            append_history(db, &decision)
        })
        .await
    }

    /// Puts on record what is in quarantine and is not on record: a kill came in between, or state was lost.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn record_item(&self, decision: Decision) -> Result<(), StateError> {
        self.call(move |db| append_history(db, &decision)).await
    }

    /// Which of these folders of the quarantine store are not on record.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn unrecorded_items(&self, items: Vec<String>) -> Result<Vec<String>, StateError> {
        self.call(move |db| {
            let mut known = db.prepare_cached("SELECT 1 FROM history WHERE item = ?1")?;
            let mut unknown = Vec::new();
            for item in items {
                if !known.exists([&item])? {
                    unknown.push(item);
                }
            }
            Ok(unknown)
        })
        .await
    }

    /// Remembers a decision without putting it on record: a step on the way, or something merely seen again.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn note(&self, decision: Decision) -> Result<(), StateError> {
        self.call(move |db| remember(db, &decision)).await
    }

    /// Remembers that a signature is about to be published at a path. Until the delivery is recorded, a
    /// signature of these bytes without payload at the destination is known to be left over from us.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn intend(&self, rule: &str, path: &RelPath, signature: &Signature) -> Result<(), StateError> {
        let (rule, path) = (rule.to_owned(), path.as_bytes().to_vec());
        let digest = signature.digest().to_string();
        self.call(move |db| {
            db.prepare_cached(
                "INSERT OR IGNORE INTO intent (rule, path, signature_digest) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![rule, path, digest])
            .map(drop)
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

    /// Whether a digest was delivered under this path before and another one after it.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn is_superseded(&self, rule: &str, path: &RelPath, digest: &str) -> Result<bool, StateError> {
        let (rule, path, digest) = (rule.to_owned(), path.as_bytes().to_vec(), digest.to_owned());
        self.call(move |db| {
            db.prepare_cached(
                "SELECT 1 FROM edition AS old JOIN edition AS new USING (rule, path)
                 WHERE rule = ?1 AND path = ?2 AND old.digest = ?3 AND new.id > old.id",
            )?
            .exists(params![rule, path, digest])
        })
        .await
    }

    /// Remembers a digest as the newest one delivered under this path.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn remember_edition(&self, rule: &str, path: &RelPath, digest: &str) -> Result<(), StateError> {
        let (rule, path, digest) = (rule.to_owned(), path.as_bytes().to_vec(), digest.to_owned());
        self.call(move |db| {
            db.prepare_cached("INSERT OR IGNORE INTO edition (rule, path, digest) VALUES (?1, ?2, ?3)")?
                .execute(params![rule, path, digest])
                .map(drop)
        })
        .await
    }

    /// Forgets decisions about paths of a rule that are no longer there. `is_there` is asked for each path
    /// remembered, on the state's thread; it must be quick.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn forget_gone(
        &self,
        rule: &str,
        mut is_there: impl FnMut(&[u8]) -> bool + Send + 'static,
    ) -> Result<usize, StateError> {
        let rule = rule.to_owned();
        self.call(move |db| {
            let mut gone = Vec::new();
            let mut rows = db.prepare_cached("SELECT path FROM decided WHERE rule = ?1")?;
            let mut rows = rows.query([&rule])?;
            while let Some(row) = rows.next()? {
                let path: Vec<u8> = row.get(0)?;
                if !is_there(&path) {
                    gone.push(path);
                }
            }
            let mut delete = db.prepare_cached("DELETE FROM decided WHERE rule = ?1 AND path = ?2")?;
            for path in &gone {
                delete.execute(params![rule, path])?;
            }
            Ok(gone.len())
        })
        .await
    }

    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StateError> {
        let (answer, wait) = oneshot::channel();
        let path = self.path.clone();
        let request: Request = Box::new(move |db| {
            let done = work(db);
            Box::new(move |committed| {
                let result = committed.and_then(|()| done.map_err(|e| state_error(&path, &e)));
                // A caller that no longer waits was cut off by shutdown; what it asked for is done.
                drop(answer.send(result));
            })
        });
        let stopped = || StateError::Broken(self.path.clone(), "its thread has ended".into());
        self.requests.send(request).map_err(|_| stopped())?;
        wait.await.map_err(|_| stopped())?
    }
}

fn serve(db: &Connection, queue: &mpsc::Receiver<Request>, path: &Path) {
    while let Ok(first) = queue.recv() {
        let begun = db.execute_batch("BEGIN").map_err(|e| state_error(path, &e));
        let group = std::iter::once(first).chain(queue.try_iter().take(MAX_GROUP - 1));
        let replies: Vec<Reply> = group.map(|request| request(db)).collect();
        let committed = begun.and_then(|()| db.execute_batch("COMMIT").map_err(|e| state_error(path, &e)));
        if committed.is_err() && !db.is_autocommit() {
            // Whatever else is wrong shows at the next request.
            db.execute_batch("ROLLBACK").unwrap_or_default();
        }
        for reply in replies {
            reply(committed.clone());
        }
    }
}

fn state_error(path: &Path, error: &rusqlite::Error) -> StateError {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => StateError::Full(path.to_owned()),
        _ => StateError::Broken(path.to_owned(), error.to_string()),
    }
}

fn remembered(db: &Connection, rule: &str, path: &[u8]) -> rusqlite::Result<Option<Remembered>> {
    db.prepare_cached(
        "SELECT fingerprint, payload, signature, outcome, reason, digest, signature_digest
         FROM decided WHERE rule = ?1 AND path = ?2",
    )?
    .query_row(params![rule, path], |row| {
        let outcome: String = row.get(3)?;
        // A word of another version of this program is a decision nobody here can rely on.
        let Some(outcome) = Outcome::parse(&outcome) else { return Ok(None) };
        let version = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<[u8; 40]>>(column)?.map(Version));
        Ok(Some(Remembered {
            fingerprint: row.get(0)?,
            payload: version(1)?,
            signature: version(2)?,
            outcome,
            reason: row.get(4)?,
            digest: row.get(5)?,
            signature_digest: row.get(6)?,
        }))
    })
    .optional()
    .map(Option::flatten)
}

fn remember(db: &Connection, d: &Decision) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO decided
         (rule, path, fingerprint, payload, signature, outcome, reason, digest, signature_digest)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        d.rule,
        d.path.as_bytes(),
        d.fingerprint,
        d.payload.map(|v| v.0),
        d.signature.map(|v| v.0),
        d.outcome.as_str(),
        d.reason,
        d.digest,
        d.signature_digest,
    ])
    .map(drop)
}

fn append_history(db: &Connection, d: &Decision) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO history (at, rule, path, outcome, reason, digest, signature_digest, key, item)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
    )?
    .execute(params![
        clock::timestamp(),
        d.rule,
        d.path.as_bytes(),
        d.outcome.as_str(),
        d.reason,
        d.digest,
        d.signature_digest,
        d.key,
        d.item,
    ])
    .map(drop)
}
