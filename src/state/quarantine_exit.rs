//! Items that leave quarantine: released by a person, or purged.
//!
//! A payload released into a rule's destination counts as a delivered version, so that `rollback`
//! knows what it supersedes.
//!
//! The row is written before the item goes, so that nothing goes unrecorded. A kill between the two
//! leaves the item, and the next attempt adds another row. Commands write their rows while a daemon
//! runs; only the daemon creates, migrates or repairs the database.

use std::path::{Path, PathBuf};

use rusqlite::{Connection, TransactionBehavior};

use super::error::state_error;
use super::ledger;
use super::link::Row;
use super::{ExitKind, FILE, StateError, memory, schema};
use crate::clock;
use crate::digest::Digest;
use crate::fs::RelPath;

/// One row about an item that leaves.
#[derive(Debug, Clone)]
pub(crate) struct QuarantineExit {
    /// How.
    pub(crate) how: ExitKind,
    /// The rule that had quarantined it.
    pub(crate) rule: String,
    /// The payload, below that rule's root.
    pub(crate) path: RelPath,
    /// Who did it and how, in words.
    pub(crate) why: String,
    /// SHA-512 of what was released, or of what was judged before it was purged.
    pub(crate) digest: Option<Digest>,
    /// SHA-512 of the signature.
    pub(crate) signature_digest: Option<Digest>,
    /// The key that vouched for what was released.
    pub(crate) key: Option<String>,
    /// The folder in the quarantine store.
    pub(crate) item: String,
}

/// History, and what else of state a release must know, opened by a command.
pub(crate) struct Journal {
    db: Connection,
    path: PathBuf,
}

impl Journal {
    /// Opens the history that the daemon keeps in a state directory.
    ///
    /// # Errors
    /// [`StateError`]; among them that no daemon has begun it yet.
    pub(crate) fn open(dir: &Path) -> Result<Self, StateError> {
        let path = dir.join(FILE);
        match schema::open_beside(&path) {
            Ok(db) => Ok(Self { db, path }),
            Err(_) if !path.exists() => {
                let why = "there is none; start the daemon once, which begins it".to_owned();
                Err(StateError::Broken(path, why))
            }
            Err(error) => Err(error.into_state_error(&path)),
        }
    }

    /// Puts it on record. Durable when this returns.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) fn record(&mut self, exit: &QuarantineExit) -> Result<(), StateError> {
        self.put(|db| append(db, exit))
    }

    /// As [`super::State::is_superseded`].
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) fn is_superseded(
        &self,
        rule: &str,
        path: &RelPath,
        digest: &Digest,
    ) -> Result<bool, StateError> {
        let found = memory::is_superseded(&self.db, rule, path.as_bytes(), digest);
        found.map_err(|error| state_error(&self.path, &error))
    }

    /// As [`super::State::remember_delivered_version`].
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) fn remember_delivered_version(
        &mut self,
        rule: &str,
        path: &RelPath,
        digest: &Digest,
    ) -> Result<bool, StateError> {
        self.put(|db| memory::remember_delivered_version(db, rule, path.as_bytes(), digest))
    }

    /// As [`super::State::forget_delivered_version`].
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) fn forget_delivered_version(
        &mut self,
        rule: &str,
        path: &RelPath,
        digest: &Digest,
    ) -> Result<(), StateError> {
        self.put(|db| memory::forget_delivered_version(db, rule, path.as_bytes(), digest))
    }

    /// Runs work in a transaction of its own; the busy timeout waits for the daemon's.
    pub(super) fn put<T>(
        &mut self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StateError> {
        let failed = |error: rusqlite::Error| state_error(&self.path, &error);
        let transaction =
            self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let done = work(&transaction).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(done)
    }
}

/// Appends the row. Inside a write transaction only.
pub(super) fn append(db: &Connection, exit: &QuarantineExit) -> rusqlite::Result<()> {
    let exit = exit.clone();
    ledger::append_with(db, |seq| Row {
        seq,
        at: clock::timestamp(),
        rule: exit.rule,
        path: exit.path.as_bytes().to_vec(),
        outcome: exit.how.as_str().to_owned(),
        reason: Some(exit.why),
        digest: exit.digest.map(|digest| digest.to_string()),
        signature_digest: exit.signature_digest.map(|digest| digest.to_string()),
        key: exit.key,
        item: Some(exit.item),
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::state::State;

    fn exit(item: &str) -> QuarantineExit {
        QuarantineExit {
            how: ExitKind::Purged,
            rule: "rule".into(),
            path: RelPath::new("f").unwrap(),
            why: "by uid 0".into(),
            digest: Some(Digest::of(b"f")),
            signature_digest: None,
            key: None,
            item: item.into(),
        }
    }

    fn rows(db: &Connection) -> i64 {
        db.query_row("SELECT count(*) FROM history", [], |row| row.get(0)).unwrap()
    }

    #[tokio::test]
    async fn a_command_writes_while_the_daemon_has_read_and_is_about_to_write() {
        let temp = tempfile::tempdir().unwrap();
        let (state, _) = State::open(temp.path()).unwrap();
        let mut journal = Journal::open(temp.path()).unwrap();
        let (done, is_done) = mpsc::channel();
        let group = state.call(move |db| {
            let before = rows(db);
            let command = std::thread::spawn(move || {
                let recorded = journal.record(&exit("command"));
                done.send(()).ok(); // the receiver may be gone
                recorded
            });
            // Gives the command time to write in between, which it must not. The length of the wait
            // does not decide the test.
            is_done.recv_timeout(Duration::from_millis(100)).unwrap_err();
            append(db, &exit("daemon"))?;
            Ok((before, command))
        });
        let (before, command) = group.await.unwrap();
        command.join().unwrap().unwrap();
        assert_eq!(before, 0);
        assert_eq!(state.call(|db| Ok(rows(db))).await.unwrap(), 2);
    }

    #[test]
    fn a_command_begins_no_history_of_its_own() {
        let temp = tempfile::tempdir().unwrap();
        let Err(StateError::Broken(_, why)) = Journal::open(temp.path()) else { panic!("it did") };
        assert!(why.contains("start the daemon once"), "{why}");
        assert_eq!(std::fs::read_dir(temp.path()).unwrap().count(), 0);
    }
}
