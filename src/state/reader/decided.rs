//! Look-ups of what state remembers, beside a running daemon and without its thread.
//!
//! Reads the tables where they lie, a row at a time, so that no record is too large for the memory.
//! Decisions are found by their key, whatever their number. The record has no index by path:
//! [`Decisions::newest_row`] walks it from its end, all of it for a path that is not on record (0.4
//! s a million rows). What is read is a hint of what the daemon would find, never a reason to
//! publish anything.

use std::path::Path;

use rusqlite::params;

use super::{History, HistoryError};
use crate::fs::RelPath;
use crate::signature::Signature;
use crate::state::ledger::{self, COLUMNS};
use crate::state::link::Row;
use crate::state::memory::{remembered, remembered_before_codes, signed_with};
use crate::state::{Remembered, schema};

/// The decisions of a state directory, at one moment.
pub(crate) struct Decisions {
    history: History,
    version: i64,
}

impl Decisions {
    /// Opens them, where there are any.
    ///
    /// # Errors
    /// [`HistoryError`]; never `Missing` or `Earlier`.
    pub(crate) fn open(dir: &Path) -> Result<Option<Self>, HistoryError> {
        let (history, version) = match History::connect(dir) {
            Err(HistoryError::Missing(_)) => return Ok(None),
            connected => connected?,
        };
        match version {
            0 => Ok(None),
            1..=schema::VERSION => Ok(Some(Self { history, version })),
            version => Err(HistoryError::Later(dir.to_owned(), version)),
        }
    }

    /// The last decision about a path.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub(crate) fn remembered(&self, rule: &str, path: &RelPath) -> Result<Option<Remembered>, HistoryError> {
        let remembered = if self.version < schema::CODES { remembered_before_codes } else { remembered };
        remembered(&self.history.db, rule, path.as_bytes()).map_err(|e| self.history.failed(&e))
    }

    /// Whether a signature was once to be published at a path.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub(crate) fn is_pending_publish(
        &self,
        rule: &str,
        path: &RelPath,
        signature: &Signature,
    ) -> Result<bool, HistoryError> {
        let digest = signature.digest().to_string();
        let sql = "SELECT 1 FROM intent WHERE rule = ?1 AND path = ?2 AND signature_digest = ?3";
        let mut query = self.history.db.prepare_cached(sql).map_err(|e| self.history.failed(&e))?;
        query.exists(params![rule, path.as_bytes(), digest]).map_err(|e| self.history.failed(&e))
    }

    /// The paths that were last signed in place with exactly this signature.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub(crate) fn signed_with(
        &self,
        rule: &str,
        signature: &Signature,
    ) -> Result<Vec<(RelPath, Remembered)>, HistoryError> {
        if self.version < schema::CODES {
            return Ok(Vec::new()); // the daemon brings it up to its own version before it looks
        }
        signed_with(&self.history.db, rule, &signature.digest()).map_err(|e| self.history.failed(&e))
    }

    /// Whether it is on record that a rule made or adopted this signature.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub(crate) fn is_signature_on_record(
        &self,
        rule: &str,
        signature: &Signature,
    ) -> Result<bool, HistoryError> {
        if self.version < schema::CHAINED {
            return Ok(false);
        }
        ledger::knows_signature(&self.history.db, rule, &signature.digest())
            .map_err(|e| self.history.failed(&e))
    }

    /// The newest row of the record about a path, if it is on record and can be read.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub(crate) fn newest_row(&self, rule: &str, path: &RelPath) -> Result<Option<Row>, HistoryError> {
        if self.version < schema::CHAINED {
            return Ok(None); // the rows of earlier versions are the record of no chain
        }
        let sql =
            format!("SELECT {COLUMNS} FROM history WHERE rule = ?1 AND path = ?2 ORDER BY seq DESC LIMIT 1");
        let failed = |error| self.history.failed(&error);
        let mut query = self.history.db.prepare_cached(&sql).map_err(failed)?;
        let mut rows = query.query(params![rule, path.as_bytes()]).map_err(failed)?;
        let row = rows.next().map_err(failed)?.map(ledger::read);
        Ok(row.and_then(Result::ok).map(|(row, _)| row))
    }

    /// To be asked when all is read, and before anything is said about it.
    ///
    /// # Errors
    /// `Changed`, as [`History::done`].
    pub(crate) fn done(&self) -> Result<(), HistoryError> {
        self.history.done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FileTime;
    use crate::fs::Identity;
    use crate::state::{Decision, Outcome, State, Version};

    fn decision(path: &str, outcome: Outcome) -> Decision {
        let time = FileTime { seconds: 7, nanos: 0 };
        let identity = Identity { dev: 1, ino: 2, size: 3, mtime: time, ctime: time };
        Decision {
            rule: "r".to_owned(),
            path: RelPath::new(path).unwrap(),
            fingerprint: "f".to_owned(),
            payload: Some(Version::from(&identity)),
            signature: None,
            outcome,
            reason: None,
            digest: None,
            signature_digest: None,
            key: None,
            item: None,
        }
    }

    #[tokio::test]
    async fn what_a_running_daemon_has_decided_is_found_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Decisions::open(dir.path()).unwrap().is_none());
        let (state, _) = State::open(dir.path()).unwrap();
        for outcome in [Outcome::Refused, Outcome::Signed] {
            state.record(decision("a", outcome)).await.unwrap();
        }
        state.record(decision("b", Outcome::Refused)).await.unwrap();
        let (a, other) = (RelPath::new("a").unwrap(), RelPath::new("c").unwrap());
        let decisions = Decisions::open(dir.path()).unwrap().unwrap();
        assert_eq!(decisions.remembered("r", &a).unwrap().unwrap().outcome, Outcome::Signed);
        let row = decisions.newest_row("r", &a).unwrap().unwrap();
        assert_eq!((row.seq, row.outcome.as_str()), (2, "signed"));
        assert!(decisions.remembered("r", &other).unwrap().is_none());
        assert!(decisions.remembered("s", &a).unwrap().is_none());
        assert!(decisions.newest_row("r", &other).unwrap().is_none());
        decisions.done().unwrap();
        // One snapshot: what comes after it is the next reader's.
        state.record(decision("c", Outcome::Signed)).await.unwrap();
        assert!(decisions.remembered("r", &other).unwrap().is_none());
    }

    #[test]
    fn state_of_an_earlier_version_is_read_as_far_as_it_goes_and_of_a_later_one_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (state, _) = State::open(dir.path()).unwrap();
        drop(state);
        let set = |version: i64| {
            let db = rusqlite::Connection::open(dir.path().join(crate::state::FILE)).unwrap();
            db.execute_batch(&format!("PRAGMA user_version = {version}")).unwrap();
        };
        set(1);
        let decisions = Decisions::open(dir.path()).unwrap().unwrap();
        let path = RelPath::new("a").unwrap();
        assert!(decisions.remembered("r", &path).unwrap().is_none());
        assert!(decisions.newest_row("r", &path).unwrap().is_none());
        drop(decisions);
        set(schema::VERSION + 1);
        assert!(matches!(Decisions::open(dir.path()), Err(HistoryError::Later(..))));
    }
}
