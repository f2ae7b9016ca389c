//! The record in the database: appended to by whoever holds a write transaction, shortened at its
//! old end by retention, and otherwise never changed.
//!
//! Each function works inside the transaction of its caller and reads the head there, so that the
//! daemon and commands may append side by side. The form of a row is `link`'s, the proof that
//! nothing was changed `audit`'s.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::Decision;
use super::audit::{Audit, Break, Claims};
use super::link::{Genesis, Head, LEN, Link, Point, Row};
use crate::digest::Digest;

/// `chain` has one row: the beginning, the checkpoint and the head. `kept_item` holds the
/// quarantine items whose rows retention removed, so that they are not put on record anew.
pub(super) const TABLES: &str = "
    CREATE TABLE history (
        seq INTEGER PRIMARY KEY,
        at TEXT NOT NULL,
        rule TEXT NOT NULL,
        path BLOB NOT NULL,
        outcome TEXT NOT NULL,
        reason TEXT,
        digest TEXT,
        signature_digest TEXT,
        key TEXT,
        item TEXT,
        hash BLOB NOT NULL
    ) STRICT;

    CREATE INDEX history_item ON history (item) WHERE item IS NOT NULL;

    CREATE TABLE chain (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        id BLOB NOT NULL,
        nonce BLOB NOT NULL,
        begun TEXT NOT NULL,
        pruned_seq INTEGER NOT NULL,
        pruned_hash BLOB NOT NULL,
        head_seq INTEGER NOT NULL,
        head_hash BLOB NOT NULL
    ) STRICT;

    CREATE TABLE seal (
        seq INTEGER PRIMARY KEY,
        at TEXT NOT NULL,
        hash BLOB NOT NULL,
        key TEXT NOT NULL,
        ciphertext BLOB NOT NULL
    ) STRICT;

    CREATE TABLE kept_item (item TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
";

/// A head that KMS has encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seal {
    /// When, as RFC 3339 in UTC.
    pub(crate) at: String,
    /// What was sealed.
    pub(crate) point: Point,
    /// The key that sealed it.
    pub(crate) key: String,
    /// What KMS answered.
    pub(crate) ciphertext: Vec<u8>,
}

/// A row and the hash stored with it, as read from where somebody may have tampered with them.
pub(crate) type Read = Result<(Row, Link), Break>;

/// What a step of retention came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pruned {
    /// So many rows were removed; fewer than asked means that no more are old enough.
    Rows(i64),
    /// The rows to be removed are not what was recorded. Removing them would hide it, so they stay.
    Broken(Break),
}

/// Begins the record of a new database.
pub(super) fn begin(db: &Connection, nonce: [u8; LEN], at: String) -> rusqlite::Result<()> {
    let genesis = Genesis { nonce, begun: at };
    let id = genesis.link();
    db.execute(
        "INSERT INTO chain VALUES (1, ?1, ?2, ?3, 0, ?1, 0, ?1)",
        params![id.as_bytes(), genesis.nonce, genesis.begun],
    )
    .map(drop)
}

/// Appends a decision, and returns the new head. Inside a write transaction only
/// (`BEGIN IMMEDIATE`): the head is read here and must still be the head when the caller commits.
///
/// # Errors
/// SQLite's. The caller must then roll back: a row without its head is a broken record.
pub(crate) fn append(db: &Connection, at: String, decision: &Decision) -> rusqlite::Result<Head> {
    append_with(db, |seq| Row::new(seq, at, decision))
}

/// As [`append`], for a row that is made for the number it gets.
pub(super) fn append_with(db: &Connection, row: impl FnOnce(i64) -> Row) -> rusqlite::Result<Head> {
    assert!(!db.is_autocommit(), "BUG: the record is appended to outside a transaction");
    let (chain, last) = head_of(db)?;
    let row = row(last.seq + 1);
    append_row(db, &chain, &last, &row)
}

/// Appends a row that comes from elsewhere (a migration), which must be the next one.
pub(super) fn append_row(db: &Connection, chain: &Link, last: &Point, row: &Row) -> rusqlite::Result<Head> {
    let link = row.link(chain, &last.link);
    db.prepare_cached(
        "INSERT INTO history (seq, at, rule, path, outcome, reason, digest, signature_digest, key, item, hash)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        row.seq,
        row.at,
        row.rule,
        row.path,
        row.outcome,
        row.reason,
        row.digest,
        row.signature_digest,
        row.key,
        row.item,
        link.as_bytes(),
    ])?;
    db.prepare_cached("UPDATE chain SET head_seq = ?1, head_hash = ?2")?
        .execute(params![row.seq, link.as_bytes()])?;
    Ok(Head { chain: *chain, point: Point { seq: row.seq, link } })
}

/// The chain's id and its last row.
pub(super) fn head_of(db: &Connection) -> rusqlite::Result<(Link, Point)> {
    db.prepare_cached("SELECT id, head_seq, head_hash FROM chain")?.query_one([], |row| {
        Ok((Link::new(row.get(0)?), Point { seq: row.get(1)?, link: Link::new(row.get(2)?) }))
    })
}

/// What the record says about itself.
///
/// # Errors
/// SQLite's, also for what no record says.
pub(super) fn claims(db: &Connection) -> rusqlite::Result<Claims> {
    let sql = "SELECT id, nonce, begun, pruned_seq, pruned_hash, head_seq, head_hash FROM chain";
    db.prepare_cached(sql)?.query_one([], |row| {
        let point = |seq, hash| {
            Ok::<_, rusqlite::Error>(Point { seq: row.get(seq)?, link: Link::new(row.get(hash)?) })
        };
        Ok(Claims {
            genesis: Genesis { nonce: row.get(1)?, begun: row.get(2)? },
            chain: Link::new(row.get(0)?),
            checkpoint: point(3, 4)?,
            head: point(5, 6)?,
        })
    })
}

/// The columns of a row, in the order that [`read`] takes them.
pub(super) const COLUMNS: &str =
    "seq, at, rule, path, outcome, reason, digest, signature_digest, key, item, hash";

/// Reads a row of [`COLUMNS`], which somebody may have tampered with.
pub(super) fn read(row: &rusqlite::Row<'_>) -> Read {
    let seq = row.get(0).map_err(|_| Break::Unreadable { seq: 0, column: "number" })?;
    let bad = |column| move |_| Break::Unreadable { seq, column };
    let read = Row {
        seq,
        at: row.get(1).map_err(bad("time"))?,
        rule: row.get(2).map_err(bad("rule"))?,
        path: row.get(3).map_err(bad("path"))?,
        outcome: row.get(4).map_err(bad("outcome"))?,
        reason: row.get(5).map_err(bad("reason"))?,
        digest: row.get(6).map_err(bad("digest"))?,
        signature_digest: row.get(7).map_err(bad("signature_digest"))?,
        key: row.get(8).map_err(bad("key"))?,
        item: row.get(9).map_err(bad("item"))?,
    };
    let link = row.get(10).map(Link::new).map_err(bad("hash"))?;
    Ok((read, link))
}

/// Removes at most `most` rows at the old end that were written before `before`, and moves the
/// checkpoint to the last of them. Never past a row that is younger, never past one that is not
/// what was recorded, and never the last row.
pub(super) fn prune(db: &Connection, before: &str, most: u32) -> rusqlite::Result<Pruned> {
    let claims = claims(db)?;
    let head = claims.head.seq;
    let mut audit = match Audit::begin(claims) {
        Ok(audit) => audit,
        Err(broken) => return Ok(Pruned::Broken(broken)),
    };
    let start = audit.last().seq;
    let sql = format!("SELECT {COLUMNS} FROM history ORDER BY seq LIMIT ?1");
    let oldest: Vec<_> =
        db.prepare_cached(&sql)?.query_map([most], |row| Ok(read(row)))?.collect::<Result<_, _>>()?;
    let mut items = Vec::new();
    for row in oldest {
        let (row, link) = match row {
            Ok(row) => row,
            Err(broken) => return Ok(Pruned::Broken(broken)),
        };
        // The head stays: a record never looks as if nothing had ever been decided.
        if row.at.as_str() >= before || row.seq >= head {
            break;
        }
        if let Err(broken) = audit.row(&row, &link) {
            return Ok(Pruned::Broken(broken));
        }
        items.extend(row.item);
    }
    let last = audit.last();
    if last.seq == start {
        return Ok(Pruned::Rows(0));
    }
    db.prepare_cached("DELETE FROM history WHERE seq <= ?1")?.execute([last.seq])?;
    db.prepare_cached("DELETE FROM seal WHERE seq < ?1")?.execute([last.seq])?;
    db.prepare_cached("UPDATE chain SET pruned_seq = ?1, pruned_hash = ?2")?
        .execute(params![last.seq, last.link.as_bytes()])?;
    for item in items {
        db.prepare_cached("INSERT OR IGNORE INTO kept_item (item) VALUES (?1)")?.execute([item])?;
    }
    Ok(Pruned::Rows(last.seq - start))
}

/// Whether a folder of the quarantine store is or was on record.
pub(super) fn knows_item(db: &Connection, item: &str) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "SELECT 1 FROM history WHERE item = ?1 UNION ALL SELECT 1 FROM kept_item WHERE item = ?1",
    )?
    .exists([item])
}

pub(super) const KNOWS_SIGNATURE: &str =
    "SELECT 1 FROM history WHERE signature_digest = ?1 AND outcome IN ('signed', 'adopted') AND rule = ?2";

/// Whether a signature of a rule in place is on record, under any name.
pub(super) fn knows_signature(db: &Connection, rule: &str, signature: &Digest) -> rusqlite::Result<bool> {
    db.prepare_cached(KNOWS_SIGNATURE)?.exists(params![signature.to_string(), rule])
}

/// Drops what is remembered about items of pruned rows that are no longer in the store.
pub(super) fn forget_items(db: &Connection, present: &[String]) -> rusqlite::Result<()> {
    let mut query = db.prepare_cached("SELECT item FROM kept_item")?;
    let kept: Vec<String> = query.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let present: std::collections::HashSet<&String> = present.iter().collect();
    for item in kept.iter().filter(|item| !present.contains(item)) {
        db.prepare_cached("DELETE FROM kept_item WHERE item = ?1")?.execute([item])?;
    }
    Ok(())
}

/// The head, if it was not sealed yet. An empty record has nothing to seal.
pub(super) fn unsealed(db: &Connection) -> rusqlite::Result<Option<Head>> {
    let (chain, point) = head_of(db)?;
    let sealed: Option<i64> =
        db.prepare_cached("SELECT max(seq) FROM seal")?.query_one([], |row| row.get(0)).optional()?.flatten();
    Ok((point.seq > sealed.unwrap_or(0)).then_some(Head { chain, point }))
}

/// Keeps a seal.
pub(super) fn keep_seal(db: &Connection, seal: &Seal) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO seal (seq, at, hash, key, ciphertext) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![seal.point.seq, seal.at, seal.point.link.as_bytes(), seal.key, seal.ciphertext])
    .map(drop)
}
