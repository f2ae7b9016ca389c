//! The handle of the state: its queries and updates.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use rusqlite::{Connection, params};
use tokio::sync::{oneshot, watch};

use super::error::state_error;
use super::file::FILE;
use super::ledger::{Pruned, Seal};
use super::link::Head;
use super::memory::{
    add_pending_publish, forget, forget_delivered_version, forget_pending_publishes, is_superseded, refusals,
    refused_after, remember, remember_delivered_version, remembered, signed_before_a_move, signed_with,
};
use super::reason::RefusalReason;
use super::thread::{Done, Place, Request, Work, serve, whole};
use super::unconfirmed::{Seen, give_up};
use super::{Decision, Outcome, QuarantineExit, Remembered, StateError, Version};
use super::{ledger, quarantine_exit, schema};
use crate::chain;
use crate::clock;
use crate::digest::Digest;
use crate::fs::{RelPath, Stat, stat_path};
use crate::signature::Signature;

/// Paths listed at a time, so that other requests do not wait long for the state thread.
const PAGE: i64 = 512;

/// In which condition the database was when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// There was none: a first start, or it was lost.
    New,
    /// It was there and whole.
    Whole,
    /// It was damaged, was moved to this name, and a new one begun.
    SetAside(PathBuf),
}

/// A handle of the state; cheap to clone.
#[derive(Clone)]
pub struct State {
    requests: mpsc::Sender<Request>,
    path: PathBuf,
    commits: watch::Receiver<u64>,
    /// Ends when the database is closed.
    closed: watch::Receiver<()>,
}

impl State {
    /// Opens or begins the state in a directory. A damaged database is moved aside, never trusted
    /// and never deleted.
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

    /// Tries out in an empty directory whether a database can be made and written to, for the
    /// directory `of`.
    ///
    /// # Errors
    /// [`StateError`], of that.
    pub(crate) fn rehearse(dir: &Path, of: &Path) -> Result<(), StateError> {
        schema::open(&dir.join(FILE)).map(drop).map_err(|e| e.into_state_error(of))
    }

    /// State for a dry run: in memory, starting from a copy of the state directory's database if
    /// there is one. Changes nothing there.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn dry_run(dir: &Path) -> Result<Self, StateError> {
        let path = dir.join(FILE);
        let connection = schema::in_memory(&path).map_err(|e| e.into_state_error(&path))?;
        Ok(Self::serve(connection, path, None))
    }

    fn serve(connection: Connection, path: PathBuf, file: Option<Stat>) -> Self {
        let (requests, queue) = mpsc::channel();
        let (commit, commits) = watch::channel(0);
        let place = Place { path: path.clone(), file };
        let (closing, closed) = watch::channel(());
        // Ends when the last handle is dropped. A panic in it closes the channel, which every
        // caller sees.
        let thread = thread::Builder::new().name("state".into());
        // If no thread can be started, the channel is closed and every request fails.
        drop(thread.spawn(move || {
            serve(&connection, &queue, &place, &commit);
            drop(connection);
            drop(closing);
        }));
        Self { requests, path, commits, closed }
    }

    /// Closes the database when all that was asked before is done, for which the process would not
    /// wait. One that was closed in order is opened more quickly. What is asked from now on fails.
    pub(crate) async fn close(mut self) {
        if self.requests.send(Request::End).is_ok() {
            while self.closed.changed().await.is_ok() {}
        }
    }

    /// Changes when something was written: perhaps the record has more rows.
    pub(crate) fn commits(&self) -> watch::Receiver<u64> {
        self.commits.clone()
    }

    /// A round trip through the state thread, for the watchdog. The thread answers while it waits
    /// for another process's lock, but not while it waits for its own disk.
    ///
    /// # Errors
    /// `Broken`: it has ended.
    pub(crate) async fn echo(&self) -> Result<(), StateError> {
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

    /// The last decision about a path; and, if its payload has come just now, those about the paths
    /// that this file was signed in place under, if it was only renamed since.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) async fn remembered_and_moved(
        &self,
        rule: &str,
        path: &RelPath,
        came: Option<Version>,
    ) -> Result<(Option<Remembered>, Vec<(RelPath, Remembered)>), StateError> {
        let (rule, path) = (rule.to_owned(), path.as_bytes().to_vec());
        self.call(move |db| {
            let moved = came.map(|payload| signed_before_a_move(db, &rule, &payload)).transpose()?;
            Ok((remembered(db, &rule, &path)?, moved.unwrap_or_default()))
        })
        .await
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
                        forget_pending_publishes(db, &decision.rule, decision.path.as_bytes())?;
                    }
                    ledger::append(db, clock::timestamp(), &decision)?;
                }
                Ok(())
            })
        })
        .await
    }

    /// Records an item of the quarantine store that has no row: the process was killed between the
    /// two steps, or state was lost.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) async fn record_item(&self, decision: Decision) -> Result<(), StateError> {
        self.call(move |db| whole(db, |db| ledger::append(db, clock::timestamp(), &decision).map(drop))).await
    }

    /// Records how many decisions of a kind were not recorded one by one, with the last of them.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) async fn record_sum(&self, sum: Decision) -> Result<(), StateError> {
        self.call(move |db| whole(db, |db| ledger::append(db, clock::timestamp(), &sum).map(drop))).await
    }

    /// Puts on record that an item is about to leave quarantine. Durable when this returns.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) async fn record_quarantine_exit(&self, exit: QuarantineExit) -> Result<(), StateError> {
        self.call(move |db| quarantine_exit::append(db, &exit)).await
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

    /// Forgets which folders of the quarantine store were on record before retention, but for those
    /// that are still there.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) async fn forget_items(&self, present: Vec<String>) -> Result<(), StateError> {
        self.call(move |db| whole(db, |db| ledger::forget_items(db, &present))).await
    }

    /// Removes at most `most` rows of the record that were written before `before` (RFC 3339, UTC).
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) async fn prune(&self, before: String, most: u32) -> Result<Pruned, StateError> {
        self.call(move |db| whole(db, |db| ledger::prune(db, &before, most))).await
    }

    /// The head of the record, if it was not sealed yet.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) async fn unsealed(&self) -> Result<Option<Head>, StateError> {
        self.call(ledger::unsealed).await
    }

    /// Stores the seal of a head.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) async fn keep_seal(&self, seal: Seal) -> Result<(), StateError> {
        self.call(move |db| ledger::keep_seal(db, &seal)).await
    }

    /// Remembers a decision without a row in the record: an intermediate step, or a version that
    /// was only seen again.
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
    pub(crate) async fn note_all(&self, decisions: Vec<Decision>) -> Result<(), StateError> {
        if decisions.is_empty() {
            return Ok(());
        }
        self.call(move |db| whole(db, |db| decisions.iter().try_for_each(|decision| remember(db, decision))))
            .await
    }

    /// Remembers a pending publish: a signature that is about to be published at a path. Until the
    /// delivery is recorded, a signature of these bytes without payload at the destination is known
    /// to be our own leftover.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn add_pending_publish(
        &self,
        rule: &str,
        path: &RelPath,
        signature: &Signature,
    ) -> Result<(), StateError> {
        let (rule, path) = (rule.to_owned(), path.as_bytes().to_vec());
        let digest = signature.digest();
        self.call(move |db| add_pending_publish(db, &rule, &path, &digest)).await
    }

    /// Remembers that a signature is about to be published at a destination, together with its
    /// payload: as [`State::note`] and [`State::add_pending_publish`], in one commit.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) async fn note_delivery(
        &self,
        signing: Decision,
        signature: &Signature,
    ) -> Result<(), StateError> {
        let digest = signature.digest();
        self.call(move |db| {
            whole(db, |db| {
                remember(db, &signing)?;
                add_pending_publish(db, &signing.rule, signing.path.as_bytes(), &digest)
            })
        })
        .await
    }

    /// A signature that was about to be published is not in place. If it may have been seen, that
    /// goes on record, and it is still known as ours; otherwise nothing of it is kept.
    ///
    /// # Errors
    /// [`StateError`]; then it goes on record later.
    pub(crate) async fn give_up_signing(
        &self,
        rule: &str,
        path: &RelPath,
        signature: &Signature,
        seen: Seen,
    ) -> Result<(), StateError> {
        let (rule, path, digest) = (rule.to_owned(), path.as_bytes().to_vec(), signature.digest());
        self.call(move |db| whole(db, |db| give_up(db, &rule, &path, &digest, seen))).await
    }

    /// Remembers that our signature beside a payload is about to be replaced. Only this one can be
    /// there until then, so earlier pending publishes of the path are forgotten.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) async fn replace_pending_publish(
        &self,
        rule: &str,
        path: &RelPath,
        signature: &Signature,
    ) -> Result<(), StateError> {
        let (rule, path) = (rule.to_owned(), path.as_bytes().to_vec());
        let digest = signature.digest();
        self.call(move |db| {
            whole(db, |db| {
                forget_pending_publishes(db, &rule, &path)?;
                add_pending_publish(db, &rule, &path, &digest)
            })
        })
        .await
    }

    /// Whether this signature is a pending publish at this path: noted, and not recorded as done.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn is_pending_publish(
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

    /// Whether a rule made a signature with this digest, or was about to replace one, at any path.
    /// Reads all rows of the rule, so it is for rare cases.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) async fn knows_signature(&self, rule: &str, digest: &Digest) -> Result<bool, StateError> {
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

    /// How many paths of a rule are refused, by reason: by its code, each with the details that one
    /// of them has.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) async fn refusals(&self, rule: &str) -> Result<Vec<(RefusalReason, usize)>, StateError> {
        let rule = rule.to_owned();
        self.call(move |db| refusals(db, &rule)).await
    }

    /// Some of the paths of a rule that are refused: at most `most` of those after `last`, in their
    /// order; with a code, only those for this reason. None when there are no more.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) async fn refused_after(
        &self,
        rule: &str,
        last: &[u8],
        reason: Option<&str>,
        most: usize,
    ) -> Result<Vec<(RelPath, Remembered)>, StateError> {
        let (rule, last, reason) = (rule.to_owned(), last.to_vec(), reason.map(str::to_owned));
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        self.call(move |db| refused_after(db, &rule, &last, reason.as_deref(), most)).await
    }

    /// Forgets that these paths were refused, as far as the refusal is the last decision, and about
    /// that version of the payload.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) async fn forget_refused(
        &self,
        rule: &str,
        paths: Vec<(RelPath, Option<Version>)>,
    ) -> Result<(), StateError> {
        if paths.is_empty() {
            return Ok(());
        }
        let rule = rule.to_owned();
        self.call(move |db| {
            let mut delete = db.prepare_cached(
                "DELETE FROM decided WHERE rule = ?1 AND path = ?2 AND payload IS ?3 AND outcome = 'refused'",
            )?;
            for (path, payload) in &paths {
                delete.execute(params![rule, path.as_bytes(), payload.map(|version| version.0)])?;
            }
            Ok(())
        })
        .await
    }

    /// The paths of a rule that were last signed in place with exactly this signature; no more than
    /// a few of them.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) async fn signed_with(
        &self,
        rule: &str,
        signature: &Signature,
    ) -> Result<Vec<(RelPath, Remembered)>, StateError> {
        let (rule, digest) = (rule.to_owned(), signature.digest());
        self.call(move |db| signed_with(db, &rule, &digest)).await
    }

    /// Whether it is on record that a rule made or adopted this signature, whatever became of the
    /// file.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) async fn is_signature_on_record(
        &self,
        rule: &str,
        signature: &Signature,
    ) -> Result<bool, StateError> {
        let (rule, digest) = (rule.to_owned(), signature.digest());
        self.call(move |db| ledger::knows_signature(db, &rule, &digest)).await
    }

    /// Whether a digest is an older delivered version of this path: another one was delivered, or
    /// about to be, after it.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn is_superseded(
        &self,
        rule: &str,
        path: &RelPath,
        digest: &Digest,
    ) -> Result<bool, StateError> {
        self.on_delivered_version(rule, path, digest, is_superseded).await
    }

    /// Remembers a digest as the newest delivered version of this path; returns whether it was new.
    /// Call it before delivery: after a kill in between, an older version must not pass for the
    /// newest.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn remember_delivered_version(
        &self,
        rule: &str,
        path: &RelPath,
        digest: &Digest,
    ) -> Result<bool, StateError> {
        self.on_delivered_version(rule, path, digest, remember_delivered_version).await
    }

    /// Forgets a version that was not delivered after all, so that the one before it is not
    /// superseded.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) async fn forget_delivered_version(
        &self,
        rule: &str,
        path: &RelPath,
        digest: &Digest,
    ) -> Result<(), StateError> {
        self.on_delivered_version(rule, path, digest, forget_delivered_version).await
    }

    /// Some of the paths of a rule that have decisions, each with the version of its payload: those
    /// after `last`, in their order. None when there are no more.
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
                // An unreadable version equals no other and is not forgotten.
                let version: Option<Vec<u8>> = row.get(1)?;
                Ok((row.get(0)?, version.and_then(|bytes| bytes.try_into().ok()).map(Version)))
            })?
            .collect()
        })
        .await
    }

    /// Forgets decisions about files of a rule that are gone, but for those that were made since
    /// they were listed: then another version has come.
    ///
    /// # Errors
    /// [`StateError`].
    pub async fn forget(&self, rule: &str, gone: Vec<(Vec<u8>, Option<Version>)>) -> Result<(), StateError> {
        if gone.is_empty() {
            return Ok(());
        }
        let rule = rule.to_owned();
        self.call(move |db| {
            whole(db, |db| gone.iter().try_for_each(|(path, payload)| forget(db, &rule, path, *payload)))
        })
        .await
    }

    /// Runs a query on one delivered version of a path.
    async fn on_delivered_version<T: Send + 'static>(
        &self,
        rule: &str,
        path: &RelPath,
        digest: &Digest,
        work: fn(&Connection, &str, &[u8], &Digest) -> rusqlite::Result<T>,
    ) -> Result<T, StateError> {
        let (rule, path, digest) = (rule.to_owned(), path.clone(), digest.clone());
        self.call(move |db| work(db, &rule, path.as_bytes(), &digest)).await
    }

    pub(super) async fn call<T: Send + 'static>(
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
                // The caller may be gone at shutdown; its request was done.
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
