//! The database file: its tables, its versions, and what to do with one that is damaged.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rusqlite::types::ToSqlOutput;
use rusqlite::{Connection, ErrorCode, OpenFlags, backup, params};

use super::error::state_error;
use super::file::PATIENCE;
use super::link::{LEN, Point, Row};
use super::reason::{RefusalReason, sentences};
use super::{Outcome, StateError, ledger};
use crate::chain;
use crate::clock;
use crate::fs::FsError;

/// The version this program writes (`PRAGMA user_version`). Earlier ones are migrated, later ones
/// refused.
pub(super) const VERSION: i64 = 4;

/// The version since which the record is chained.
pub(super) const CHAINED: i64 = 2;

/// The version since which reasons are codes.
pub(super) const CODES: i64 = 3;

/// `reason` and `details` are those of [`DecisionReason`](super::reason::DecisionReason).
const DECIDED: &str = "
    CREATE TABLE decided (
        rule TEXT NOT NULL,
        path BLOB NOT NULL,
        fingerprint TEXT NOT NULL,
        payload BLOB,
        signature BLOB,
        outcome TEXT NOT NULL,
        reason TEXT,
        details TEXT,
        digest TEXT,
        signature_digest TEXT,
        PRIMARY KEY (rule, path)
    ) STRICT, WITHOUT ROWID;
";

const TABLES: &str = "
    CREATE TABLE intent (
        rule TEXT NOT NULL,
        path BLOB NOT NULL,
        signature_digest TEXT NOT NULL,
        PRIMARY KEY (rule, path, signature_digest)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE edition (
        id INTEGER PRIMARY KEY,
        rule TEXT NOT NULL,
        path BLOB NOT NULL,
        digest TEXT NOT NULL,
        UNIQUE (rule, path, digest)
    ) STRICT;
";

/// Since version 4: a signature is found by its digest, in decisions and on record; a payload by
/// what a rename leaves of its version; and what is refused without reading what is not. A partial
/// index serves only queries that have its condition, and SQLite prefers the primary key to one
/// that begins with the rule as well.
const INDEXES: &str = "
    CREATE INDEX IF NOT EXISTS decided_signature ON decided (signature_digest)
        WHERE signature_digest IS NOT NULL;
    CREATE INDEX IF NOT EXISTS decided_inode ON decided (substr(payload, 1, 24))
        WHERE signature_digest IS NOT NULL;
    CREATE INDEX IF NOT EXISTS decided_refused ON decided (outcome, rule, path, reason, details)
        WHERE outcome = 'refused';
    CREATE INDEX IF NOT EXISTS history_signature ON history (signature_digest)
        WHERE outcome IN ('signed', 'adopted');
";

/// KiB of pages kept in memory. With many files nearly each one's rows are on other pages; these
/// are those above them, and what a commit has in hand (256 files, 8 pages each).
const CACHE_KIB: usize = 8 * 1024;

/// Pages in the journal from which on it is written back: what is written again and again until
/// then is written back once.
const CHECKPOINT: usize = 4_000;

/// Bytes of it that are kept on disk when it has been.
const JOURNAL_KEPT: usize = 4 << 20;

/// Statements that stay compiled; there are some sixty.
const STATEMENTS: usize = 64;

/// Why a database did not open.
pub(super) enum OpenError {
    /// SQLite or the integrity check calls it damaged.
    Damaged(String),
    /// It is of a later version.
    Version(i64),
    /// Anything else.
    Failed(rusqlite::Error),
    /// The file itself.
    Io(std::io::Error),
}

impl OpenError {
    pub(super) fn into_state_error(self, path: &Path) -> StateError {
        match self {
            Self::Damaged(what) => StateError::Broken(path.to_owned(), what),
            Self::Version(version) => StateError::Version(path.to_owned(), version),
            Self::Failed(error) => state_error(path, &error),
            Self::Io(error) => StateError::Broken(path.to_owned(), chain::one_line(&error)),
        }
    }
}

impl From<rusqlite::Error> for OpenError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Self::Damaged(error.to_string()),
            _ => Self::Failed(error),
        }
    }
}

/// Opens or creates, checks and migrates. WAL and FULL: a commit survives a power cut (SQLite,
/// "PRAGMA synchronous").
pub(super) fn open(path: &Path) -> Result<Connection, OpenError> {
    let is_closed = !journal_of(path).exists();
    // Created here rather than by SQLite, for the mode.
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path);
    file.and_then(|f| f.set_permissions(Permissions::from_mode(0o600))).map_err(OpenError::Io)?;
    let db = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW,
    )?;
    set_up(&db)?;
    check(&db, if is_closed { Check::Quick } else { Check::Whole })?;
    migrate(&db)?;
    Ok(db)
}

/// The journal of a database. Who closes it removes that; after a kill or a power loss it lies
/// there.
fn journal_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// How much of a database is looked at.
#[derive(Debug, Clone, Copy)]
enum Check {
    /// Every page and row by itself (SQLite, "PRAGMA quick_check"): enough for what was closed in
    /// order, which SQLite vouches for, and a seventh of the time.
    Quick,
    /// Also whether indexes and tables agree.
    Whole,
}

/// Opens what a daemon has begun, beside that daemon if it runs: makes, checks and mends nothing.
pub(super) fn open_beside(path: &Path) -> Result<Connection, OpenError> {
    let db = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW,
    )?;
    set_up(&db)?;
    match version(&db)? {
        // What commands write to is the same since then.
        CHAINED..=VERSION => Ok(db),
        other => Err(OpenError::Version(other)),
    }
}

fn set_up(db: &Connection) -> Result<(), OpenError> {
    db.busy_timeout(PATIENCE)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    // temp_store: what a savepoint would need to be undone, some pages for each request, stays in
    // memory (SQLite, "Temporary Files Used By SQLite").
    Ok(db.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF; \
         PRAGMA foreign_keys = ON; PRAGMA cache_size = -{CACHE_KIB}; PRAGMA wal_autocheckpoint = {CHECKPOINT}; \
         PRAGMA temp_store = MEMORY; PRAGMA journal_size_limit = {JOURNAL_KEPT};",
    ))?)
}

/// The version of a database; 0 of an empty one.
pub(super) fn version(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("PRAGMA user_version", [], |row| row.get(0))
}

/// A copy in memory of what is at `path`, or an empty one.
pub(super) fn in_memory(path: &Path) -> Result<Connection, OpenError> {
    let mut db = Connection::open_in_memory()?;
    if path.exists() {
        let source = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        check(&source, Check::Whole)?;
        backup::Backup::new(&source, &mut db)?.step(-1)?;
    }
    migrate(&db)?;
    Ok(db)
}

fn check(db: &Connection, how: Check) -> Result<(), OpenError> {
    let sql = match how {
        Check::Quick => "PRAGMA quick_check(1)",
        Check::Whole => "PRAGMA integrity_check(1)",
    };
    let said: String = db.query_row(sql, [], |row| row.get(0))?;
    if said == "ok" { Ok(()) } else { Err(OpenError::Damaged(said)) }
}

fn migrate(db: &Connection) -> Result<(), OpenError> {
    if version(db)? == VERSION {
        return Ok(());
    }
    db.execute_batch("BEGIN IMMEDIATE")?;
    let done = match version(db)? {
        0 => {
            let made = db.execute_batch(DECIDED).and_then(|()| db.execute_batch(TABLES));
            made.map_err(OpenError::from).and_then(|()| begin(db))
        }
        1 => chain_up(db).and_then(|()| give_codes(db)),
        2 => give_codes(db),
        CODES..=VERSION => Ok(()),
        other => Err(OpenError::Version(other)),
    };
    let done = done.and_then(|()| Ok(db.execute_batch(INDEXES)?));
    match done.and_then(|()| Ok(db.execute_batch(&format!("PRAGMA user_version = {VERSION}; COMMIT"))?)) {
        Ok(()) => Ok(()),
        Err(error) => {
            // The error is what is worth telling; a transaction left open would end with the
            // connection.
            db.execute_batch("ROLLBACK").unwrap_or_default();
            Err(error)
        }
    }
}

/// Makes the tables of the record, and begins it.
fn begin(db: &Connection) -> Result<(), OpenError> {
    let mut nonce = [0; LEN];
    rustix::rand::getrandom(&mut nonce, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| OpenError::Io(e.into()))?;
    db.execute_batch(ledger::TABLES)?;
    Ok(ledger::begin(db, nonce, clock::timestamp())?)
}

/// Version 1 had a history without hashes: its rows are taken over as they are, in their order.
fn chain_up(db: &Connection) -> Result<(), OpenError> {
    db.execute_batch("ALTER TABLE history RENAME TO history_1; DROP INDEX history_item;")?;
    begin(db)?;
    let (chain, mut last) = ledger::head_of(db)?;
    let mut query = db.prepare(
        "SELECT at, rule, path, outcome, reason, digest, signature_digest, key, item FROM history_1 ORDER BY id",
    )?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let row = Row {
            seq: last.seq + 1,
            at: row.get(0)?,
            rule: row.get(1)?,
            path: row.get(2)?,
            outcome: row.get(3)?,
            reason: row.get(4)?,
            digest: row.get(5)?,
            signature_digest: row.get(6)?,
            key: row.get(7)?,
            item: row.get(8)?,
        };
        let point: Point = ledger::append_row(db, &chain, &last, &row)?.point;
        last = point;
    }
    drop(rows);
    drop(query);
    Ok(db.execute_batch("DROP TABLE history_1")?)
}

/// What a reason is that no version wrote. No version reads it as one, so that its file is looked
/// at again.
const UNKNOWN: &str = "unknown";

/// Before version 3 the reasons of refusals were sentences. The record keeps its own, which are in
/// its hashes.
fn give_codes(db: &Connection) -> Result<(), OpenError> {
    db.execute_batch("ALTER TABLE decided RENAME TO decided_2")?;
    db.execute_batch(DECIDED)?;
    let refused = Outcome::Refused.as_str();
    db.execute(
        "INSERT INTO decided
         SELECT rule, path, fingerprint, payload, signature, outcome, reason, NULL, digest, signature_digest
         FROM decided_2 WHERE outcome <> ?1",
        [refused],
    )?;
    let mut query = db.prepare("SELECT rule, path, reason FROM decided_2 WHERE outcome = ?1")?;
    let mut insert = db.prepare(
        "INSERT INTO decided
         SELECT rule, path, fingerprint, payload, signature, outcome, ?3, ?4, digest, signature_digest
         FROM decided_2 WHERE rule = ?1 AND path = ?2",
    )?;
    let mut rows = query.query([refused])?;
    while let Some(row) = rows.next()? {
        let reason = row.get_ref(2)?.as_str().ok().and_then(sentences::parse);
        let code = reason.as_ref().map_or(UNKNOWN, RefusalReason::as_str);
        let details = reason.as_ref().and_then(RefusalReason::details);
        // As they are: what a disk has spoilt must not keep the daemon from starting.
        let (rule, path) = (ToSqlOutput::Borrowed(row.get_ref(0)?), ToSqlOutput::Borrowed(row.get_ref(1)?));
        insert.execute(params![rule, path, code, details])?;
    }
    drop(rows);
    drop(query);
    drop(insert);
    Ok(db.execute_batch("DROP TABLE decided_2")?)
}

/// Moves a damaged database and its journal out of the way, under a name that says when.
pub(super) fn set_aside(path: &Path) -> Result<PathBuf, FsError> {
    let stamp: String = clock::timestamp().chars().filter(|c| c.is_ascii_alphanumeric()).collect();
    let name = |suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = name(&format!(".damaged-{stamp}"));
    for suffix in ["-wal", "-shm", ""] {
        let (from, mut to) = (name(suffix), aside.clone().into_os_string());
        to.push(suffix);
        match rustix::fs::rename(&from, PathBuf::from(to)) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(source) => return Err(FsError { action: "set aside".into(), path: from, source }),
        }
    }
    Ok(aside)
}
