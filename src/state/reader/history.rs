//! The record of a state directory, at one moment.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, params};

use super::filter::{CONDITIONS, Filter, conditions};
use crate::chain;
use crate::escape::{Escaped, quoted};
use crate::state::audit::{Audit, Break, Claims, Unbroken};
use crate::state::file::{FILE, PATIENCE};
use crate::state::ledger::{self, COLUMNS, Read, Seal};
use crate::state::link::{Head, Link, Point};
use crate::state::schema;

/// Why the record cannot be read. Says nothing about whether it is unbroken.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// There is none.
    #[error("there is no state in {}", quoted(.0))]
    Missing(PathBuf),
    /// An earlier version of this program wrote it.
    #[error("the state in {} is of an earlier version, whose record had no hashes", quoted(.0))]
    Earlier(PathBuf),
    /// A later version wrote it.
    #[error("the state in {} has version {}, which this program does not know", quoted(.0), .1)]
    Later(PathBuf, i64),
    /// A daemon began to write while it was read in a way that needs nobody to.
    #[error("the state in {} changed while it was read", quoted(.0))]
    Changed(PathBuf),
    /// A killed daemon left it in a way that only a writer can put in order.
    #[error("the state in {} is as a killed daemon left it, and may not be put in order from here", quoted(.0))]
    Unrecovered(PathBuf),
    /// SQLite or the file system refused.
    #[error("cannot read the state in {}: {}", quoted(.0), .1)]
    Failed(PathBuf, String),
}

/// The record of a state directory, at one moment.
pub struct History {
    pub(super) db: Connection,
    path: PathBuf,
    /// It was opened without locks, because the directory does not let this process make any.
    unlocked: bool,
}

impl History {
    /// Opens the record of a state directory, and begins a snapshot of it.
    ///
    /// # Errors
    /// [`HistoryError`].
    pub fn open(dir: &Path) -> Result<Self, HistoryError> {
        match Self::connect(dir)? {
            // The record is the same since then; only a daemon migrates the rest.
            (history, schema::CHAINED..=schema::VERSION) => Ok(history),
            (_, 0) => Err(HistoryError::Missing(dir.to_owned())),
            (_, version) if version < schema::CHAINED => Err(HistoryError::Earlier(dir.to_owned())),
            (_, version) => Err(HistoryError::Later(dir.to_owned(), version)),
        }
    }

    /// The same, whatever version it is of: that is handed out.
    pub(super) fn connect(dir: &Path) -> Result<(Self, i64), HistoryError> {
        let path = dir.join(FILE);
        let failed = |error: &dyn std::fmt::Display| HistoryError::Failed(dir.to_owned(), error.to_string());
        match fs::symlink_metadata(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(HistoryError::Missing(dir.to_owned()));
            }
            Err(error) => return Err(failed(&chain::one_line(&error))),
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let opened = Connection::open_with_flags(&path, flags).and_then(begun);
        let (db, unlocked) = match opened {
            // In a directory where nothing can be made, SQLite can make no lock file, and says so.
            // Without a write-ahead log nobody is writing, and no lock is needed.
            Err(error) if is_about_the_directory(&error) && !has_log(&path) => {
                let flags = flags | OpenFlags::SQLITE_OPEN_URI;
                let db = Connection::open_with_flags(immutable(&path), flags).and_then(begun);
                (db.map_err(|e| failed(&e))?, true)
            }
            opened => (opened.map_err(|e| unreadable(dir, &e))?, false),
        };
        let version = schema::version(&db).map_err(|e| failed(&e))?;
        Ok((Self { db, path, unlocked }, version))
    }

    pub(super) fn failed(&self, error: &rusqlite::Error) -> HistoryError {
        HistoryError::Failed(self.path.clone(), error.to_string())
    }

    /// To be asked when all is read, and before anything is said about it.
    ///
    /// # Errors
    /// `Changed`: what was read without locks may be of no one moment.
    pub(crate) fn done(&self) -> Result<(), HistoryError> {
        match self.unlocked && has_log(&self.path) {
            true => Err(HistoryError::Changed(self.path.clone())),
            false => Ok(()),
        }
    }

    /// What the record says about itself.
    ///
    /// # Errors
    /// It is not to be read; or, inside, it is no record.
    pub(crate) fn claims(&self) -> Result<Result<Claims, Break>, HistoryError> {
        match ledger::claims(&self.db) {
            Ok(claims) => Ok(Ok(claims)),
            Err(error) => self.broken(&error, 0).map(Err),
        }
    }

    /// Hands out every row that is meant, oldest first.
    ///
    /// # Errors
    /// Of `each`; or the record is not to be read.
    pub(crate) fn each<E: From<HistoryError>>(
        &self,
        filter: &Filter,
        mut each: impl FnMut(Read) -> Result<(), E>,
    ) -> Result<(), E> {
        let sql = format!("SELECT {COLUMNS} FROM history WHERE {CONDITIONS} ORDER BY seq");
        let mut query = self.db.prepare(&sql).map_err(|e| self.failed(&e))?;
        let mut rows = query.query(conditions(filter)).map_err(|e| self.failed(&e))?;
        let mut last = 0;
        loop {
            match rows.next() {
                Ok(None) => return Ok(()),
                Ok(Some(row)) => {
                    let read = ledger::read(row);
                    last = read.as_ref().map_or(last, |(row, _)| row.seq);
                    if read.as_ref().map_or(true, |(row, _)| filter.matches(row)) {
                        each(read)?;
                    }
                }
                Err(error) => return each(Err(self.broken(&error, last)?)),
            }
        }
    }

    /// The newest `most` rows that are meant, oldest first.
    ///
    /// # Errors
    /// The record is not to be read.
    pub(crate) fn newest(&self, filter: &Filter, most: usize) -> Result<Vec<Read>, HistoryError> {
        let sql = format!("SELECT {COLUMNS} FROM history WHERE {CONDITIONS} ORDER BY seq DESC");
        let mut query = self.db.prepare(&sql).map_err(|e| self.failed(&e))?;
        let mut rows = query.query(conditions(filter)).map_err(|e| self.failed(&e))?;
        let mut newest = Vec::new();
        while newest.len() < most {
            match rows.next() {
                Ok(None) => break,
                Ok(Some(row)) => newest.push(ledger::read(row)),
                Err(error) => {
                    newest.push(Err(self.broken(&error, 0)?));
                    break;
                }
            }
            newest.pop_if(|read| read.as_ref().is_ok_and(|(row, _)| !filter.matches(row)));
        }
        newest.reverse();
        Ok(newest)
    }

    /// The rows after row `seq`, oldest first, at most so many.
    ///
    /// # Errors
    /// The record is not to be read.
    pub(crate) fn after(&self, seq: i64, most: usize) -> Result<Vec<Read>, HistoryError> {
        let sql = format!("SELECT {COLUMNS} FROM history WHERE seq > ?1 ORDER BY seq LIMIT ?2");
        let mut query = self.db.prepare(&sql).map_err(|e| self.failed(&e))?;
        let limit = i64::try_from(most).unwrap_or(i64::MAX);
        let mut rows = query.query(params![seq, limit]).map_err(|e| self.failed(&e))?;
        let mut read = Vec::new();
        loop {
            match rows.next() {
                Ok(None) => return Ok(read),
                Ok(Some(row)) => read.push(ledger::read(row)),
                Err(error) => {
                    read.push(Err(self.broken(&error, seq)?));
                    return Ok(read);
                }
            }
        }
    }

    /// The seals, oldest first.
    ///
    /// # Errors
    /// The record is not to be read.
    pub(crate) fn seals(&self) -> Result<Vec<Seal>, HistoryError> {
        let mut query = self
            .db
            .prepare("SELECT at, seq, hash, key, ciphertext FROM seal ORDER BY seq")
            .map_err(|e| self.failed(&e))?;
        let seals = query.query_map([], |row| {
            Ok(Seal {
                at: row.get(0)?,
                point: Point { seq: row.get(1)?, link: Link::new(row.get(2)?) },
                key: row.get(3)?,
                ciphertext: row.get(4)?,
            })
        });
        seals.and_then(Iterator::collect).map_err(|e| self.failed(&e))
    }

    /// Proves the record: every row, the seals, and the heads in `expected` with whose they are.
    ///
    /// # Errors
    /// It is not to be read. What is wrong with it is inside.
    pub fn verify(&self, expected: Vec<Expected>) -> Result<Result<Unbroken, Break>, HistoryError> {
        let claims = match self.claims()? {
            Ok(claims) => claims,
            Err(broken) => return Ok(Err(broken)),
        };
        let seals = self.seals()?;
        let begin = || {
            let mut audit = Audit::begin(claims)?;
            for Expected { chain, point, whose } in expected {
                match chain {
                    Some(chain) => audit.expect_head(&Head { chain, point }, whose)?,
                    None => audit.expect(point, whose)?,
                }
            }
            for seal in seals {
                audit.expect(seal.point, format!("the seal of {}", Escaped::text(&seal.at)))?;
            }
            Ok(audit)
        };
        let mut audit: Audit = match begin() {
            Ok(audit) => audit,
            Err(broken) => return Ok(Err(broken)),
        };
        let proven = self.each(&Filter::default(), |read| {
            let (row, link) = read.map_err(Stop::Broken)?;
            audit.row(&row, &link).map_err(Stop::Broken)
        });
        self.done()?;
        match proven {
            Ok(()) => Ok(audit.end()),
            Err(Stop::Broken(broken)) => Ok(Err(broken)),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    /// An error of SQLite in the middle of reading: damage is a break after row `last`, anything
    /// else no finding.
    pub(super) fn broken(&self, error: &rusqlite::Error, last: i64) -> Result<Break, HistoryError> {
        use rusqlite::Error as E;
        let is_damage =
            matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase));
        // What has another type or size than this program ever writes, or is not there at all.
        let is_no_record = matches!(
            error,
            E::FromSqlConversionFailure(..)
                | E::InvalidColumnType(..)
                | E::QueryReturnedNoRows
                | E::QueryReturnedMoreThanOneRow
        );
        match is_damage || is_no_record {
            true => Ok(Break::Damaged { seq: last, what: error.to_string() }),
            false => Err(self.failed(error)),
        }
    }
}

/// A point that must be on the chain.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The chain's id, where it is known.
    pub(crate) chain: Option<Link>,
    /// The point.
    pub(crate) point: Point,
    /// Whose it is, in messages: "the head of row 7".
    pub(crate) whose: String,
}

/// Why reading stopped before the end.
enum Stop {
    Broken(Break),
    Failed(HistoryError),
}

impl From<HistoryError> for Stop {
    fn from(error: HistoryError) -> Self {
        Self::Failed(error)
    }
}

/// A snapshot: a transaction, and a first look, which is when SQLite takes it.
fn begun(db: Connection) -> rusqlite::Result<Connection> {
    db.busy_timeout(PATIENCE)?;
    db.execute_batch("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON; BEGIN")?;
    db.query_row("SELECT count(*) FROM sqlite_schema", params![], |_| Ok(()))?;
    Ok(db)
}

fn is_about_the_directory(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
}

/// Why a snapshot could not be taken. SQLite speaks of its locks ("locking protocol", "attempt to
/// write a readonly database") when a killed daemon left the log's index unfinished, and this
/// process may not finish it.
fn unreadable(dir: &Path, error: &rusqlite::Error) -> HistoryError {
    match error.sqlite_error_code() {
        Some(ErrorCode::FileLockingProtocolFailed | ErrorCode::ReadOnly) => {
            HistoryError::Unrecovered(dir.to_owned())
        }
        _ => HistoryError::Failed(dir.to_owned(), error.to_string()),
    }
}

/// Whether there is a write-ahead log with anything in it.
fn has_log(path: &Path) -> bool {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    fs::metadata(log).is_ok_and(|log| log.len() > 0)
}

/// The database as SQLite's URI for a file that nobody changes.
fn immutable(path: &Path) -> String {
    let mut uri = "file:".to_owned();
    for byte in path.as_os_str().as_bytes() {
        match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                uri.push(char::from(*byte))
            }
            byte => uri.push_str(&format!("%{byte:02x}")),
        }
    }
    uri + "?immutable=1"
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    #[test]
    fn what_a_killed_daemon_left_unfinished_is_told_from_other_failures() {
        let told = |code| {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            unreadable(Path::new("state"), &error).to_string()
        };
        for code in [ffi::SQLITE_PROTOCOL, ffi::SQLITE_READONLY] {
            assert!(told(code).contains("as a killed daemon left it"), "{}", told(code));
        }
        assert!(told(ffi::SQLITE_IOERR).contains("cannot read the state"), "{}", told(ffi::SQLITE_IOERR));
    }
}
