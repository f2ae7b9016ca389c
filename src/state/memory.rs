//! What is remembered of each path: the last decision, pending publishes, delivered versions.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::reason::{self, DecisionReason, RefusalReason};
use super::unconfirmed::before_it_goes;
use super::{Decision, Outcome, Remembered, Version};
use crate::digest::Digest;
use crate::fs::RelPath;

/// Each query has the condition of the index that it uses, or it would read every row of the rule.
pub(super) const SIGNED_WITH: &str =
    "SELECT fingerprint, payload, signature, outcome, digest, signature_digest, reason, details, path
     FROM decided WHERE rule = ?1 AND signature_digest = ?2 AND outcome IN ('signing', 'signed', 'adopted')
     LIMIT 16";
pub(super) const SIGNED_BEFORE_A_MOVE: &str =
    "SELECT fingerprint, payload, signature, outcome, digest, signature_digest, reason, details, path
     FROM decided WHERE rule = ?1 AND substr(payload, 1, 24) = ?2 AND signature_digest IS NOT NULL
     AND outcome IN ('signing', 'signed', 'adopted') LIMIT 16";
pub(super) const REFUSED_AFTER: &str =
    "SELECT fingerprint, payload, signature, outcome, digest, signature_digest, reason, details, path
     FROM decided INDEXED BY decided_refused
     WHERE rule = ?1 AND outcome = 'refused' AND path > ?2 AND (?3 IS NULL OR reason = ?3)
     ORDER BY path LIMIT ?4";
pub(super) const REFUSALS: &str = "SELECT reason, max(details), count(*)
     FROM decided INDEXED BY decided_refused WHERE rule = ?1 AND outcome = 'refused' GROUP BY reason";

pub(super) fn remembered(db: &Connection, rule: &str, path: &[u8]) -> rusqlite::Result<Option<Remembered>> {
    let sql = "SELECT fingerprint, payload, signature, outcome, digest, signature_digest, reason, details
         FROM decided WHERE rule = ?1 AND path = ?2";
    remembered_by(db, sql, rule, path, coded)
}

/// The same in a database of an earlier version that was not migrated yet.
pub(super) fn remembered_before_codes(
    db: &Connection,
    rule: &str,
    path: &[u8],
) -> rusqlite::Result<Option<Remembered>> {
    let sql = "SELECT fingerprint, payload, signature, outcome, digest, signature_digest, reason
         FROM decided WHERE rule = ?1 AND path = ?2";
    remembered_by(db, sql, rule, path, |row| {
        Ok(row.get::<_, Option<String>>(6)?.and_then(|reason| {
            let refusal = reason::sentences::parse(&reason).map(DecisionReason::Refusal);
            refusal.or_else(|| DecisionReason::parse(&reason, None))
        }))
    })
}

/// The paths whose last decision is that they were signed in place with exactly this signature.
pub(super) fn signed_with(
    db: &Connection,
    rule: &str,
    signature: &Digest,
) -> rusqlite::Result<Vec<(RelPath, Remembered)>> {
    found(db, SIGNED_WITH, params![rule, signature.to_string()])
}

/// The paths whose last decision is that this file was signed in place there, as far as a rename
/// lets it be known.
pub(super) fn signed_before_a_move(
    db: &Connection,
    rule: &str,
    payload: &Version,
) -> rusqlite::Result<Vec<(RelPath, Remembered)>> {
    found(db, SIGNED_BEFORE_A_MOVE, params![rule, payload.but_for_its_change()])
}

/// Refused paths after `last`, in their order, a page of them.
pub(super) fn refused_after(
    db: &Connection,
    rule: &str,
    last: &[u8],
    reason: Option<&str>,
    most: i64,
) -> rusqlite::Result<Vec<(RelPath, Remembered)>> {
    found(db, REFUSED_AFTER, params![rule, last, reason, most])
}

/// How many paths are refused for each reason, by its code, with one that has it.
pub(super) fn refusals(db: &Connection, rule: &str) -> rusqlite::Result<Vec<(RefusalReason, usize)>> {
    let mut query = db.prepare_cached(REFUSALS)?;
    let read = |row: &rusqlite::Row<'_>| {
        let (code, details): (Option<String>, Option<String>) = (row.get(0)?, row.get(1)?);
        let count: i64 = row.get(2)?;
        let reason = code.and_then(|code| RefusalReason::parse(&code, details.as_deref()));
        // One that this version does not know is decided anew.
        Ok(reason.zip(usize::try_from(count).ok()))
    };
    query.query_map([rule], read)?.filter_map(Result::transpose).collect()
}

/// Rows whose last column is a path. One that cannot be read is none.
fn found(
    db: &Connection,
    sql: &str,
    parameters: impl rusqlite::Params,
) -> rusqlite::Result<Vec<(RelPath, Remembered)>> {
    let mut query = db.prepare_cached(sql)?;
    let rows = query.query_map(parameters, |row| {
        let path: Vec<u8> = row.get(8)?;
        let path = RelPath::new(OsStr::from_bytes(&path));
        Ok(path.zip(decoded(row, coded).ok().flatten()))
    })?;
    rows.filter_map(Result::transpose).collect()
}

/// The reason in the columns after the digests.
fn coded(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<DecisionReason>> {
    let (code, details): (Option<String>, Option<String>) = (row.get(6)?, row.get(7)?);
    Ok(code.and_then(|code| DecisionReason::parse(&code, details.as_deref())))
}

fn remembered_by(
    db: &Connection,
    sql: &str,
    rule: &str,
    path: &[u8],
    reason: impl Fn(&rusqlite::Row<'_>) -> rusqlite::Result<Option<DecisionReason>>,
) -> rusqlite::Result<Option<Remembered>> {
    db.prepare_cached(sql)?
        // A row of another version of this program, or a damaged one, counts as no decision. An
        // error would end the daemon at each start until somebody removed the row.
        .query_row(params![rule, path], |row| Ok(decoded(row, reason).ok().flatten()))
        .optional()
        .map(Option::flatten)
}

/// A row of `remembered`; `None` for an outcome that this version does not know. A reason that it
/// does not know counts as none: where that matters, the file is examined again.
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

/// A digest in a row. Text that is no digest is an error, like other damage.
fn digest(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Option<Digest>> {
    let text: Option<String> = row.get(column)?;
    let failed = |error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error));
    text.map(|text| text.parse().map_err(failed)).transpose()
}

/// What was about to be signed is signed: most of its row stays, and with it the pages of its
/// indexes, each of which would be another one for each file.
fn is_signed_as_noted(db: &Connection, d: &Decision) -> rusqlite::Result<bool> {
    if d.outcome != Outcome::Signed {
        return Ok(false);
    }
    let updated = db
        .prepare_cached(
            "UPDATE decided SET signature = ?3, outcome = ?4, reason = ?5, details = ?6
             WHERE rule = ?1 AND path = ?2 AND outcome = 'signing' AND fingerprint = ?7
             AND payload IS ?8 AND digest IS ?9 AND signature_digest IS ?10",
        )?
        .execute(params![
            d.rule,
            d.path.as_bytes(),
            d.signature.map(|v| v.0),
            d.outcome.as_str(),
            d.reason.as_ref().map(DecisionReason::as_str),
            d.reason.as_ref().and_then(DecisionReason::details),
            d.fingerprint,
            d.payload.map(|v| v.0),
            d.digest.as_ref().map(Digest::to_string),
            d.signature_digest.as_ref().map(Digest::to_string),
        ])?;
    Ok(updated > 0)
}

/// Remembers a decision in place of the last one about its path. Inside a transaction that is
/// undone on an error: a row of the record may come of it.
pub(super) fn remember(db: &Connection, d: &Decision) -> rusqlite::Result<()> {
    if is_signed_as_noted(db, d)? {
        return Ok(());
    }
    before_it_goes(db, &d.rule, d.path.as_bytes(), Some(d))?;
    // No reason is stored for `signing`, so that its details are free for the key.
    let key = d.key.clone().filter(|_| d.outcome == Outcome::Signing);
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
        d.reason.as_ref().and_then(DecisionReason::details).or(key),
        d.digest.as_ref().map(Digest::to_string),
        d.signature_digest.as_ref().map(Digest::to_string),
    ])
    .map(drop)
}

pub(super) fn is_superseded(
    db: &Connection,
    rule: &str,
    path: &[u8],
    digest: &Digest,
) -> rusqlite::Result<bool> {
    db.prepare_cached(
        "SELECT 1 FROM edition AS old JOIN edition AS new USING (rule, path)
         WHERE rule = ?1 AND path = ?2 AND old.digest = ?3 AND new.id > old.id",
    )?
    .exists(params![rule, path, digest.to_string()])
}

pub(super) fn remember_delivered_version(
    db: &Connection,
    rule: &str,
    path: &[u8],
    digest: &Digest,
) -> rusqlite::Result<bool> {
    db.prepare_cached("INSERT OR IGNORE INTO edition (rule, path, digest) VALUES (?1, ?2, ?3)")?
        .execute(params![rule, path, digest.to_string()])
        .map(|rows| rows > 0)
}

pub(super) fn forget_delivered_version(
    db: &Connection,
    rule: &str,
    path: &[u8],
    digest: &Digest,
) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM edition WHERE rule = ?1 AND path = ?2 AND digest = ?3")?
        .execute(params![rule, path, digest.to_string()])
        .map(drop)
}

pub(super) fn add_pending_publish(
    db: &Connection,
    rule: &str,
    path: &[u8],
    signature: &Digest,
) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT OR IGNORE INTO intent (rule, path, signature_digest) VALUES (?1, ?2, ?3)")?
        .execute(params![rule, path, signature.to_string()])
        .map(drop)
}

pub(super) fn forget_pending_publishes(db: &Connection, rule: &str, path: &[u8]) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM intent WHERE rule = ?1 AND path = ?2")?
        .execute(params![rule, path])
        .map(drop)
}

/// Forgets the decision about a path, if it is about this version of the payload.
pub(super) fn forget(
    db: &Connection,
    rule: &str,
    path: &[u8],
    payload: Option<Version>,
) -> rusqlite::Result<()> {
    let sql = "SELECT outcome FROM decided WHERE rule = ?1 AND path = ?2 AND payload IS ?3";
    let version = payload.map(|version| version.0);
    let was: Option<String> =
        db.prepare_cached(sql)?.query_one(params![rule, path, version], |row| row.get(0)).optional()?;
    let Some(was) = was else { return Ok(()) };
    before_it_goes(db, rule, path, None)?;
    db.prepare_cached("DELETE FROM decided WHERE rule = ?1 AND path = ?2")?.execute(params![rule, path])?;
    // What was about to be published may still lie where it goes.
    match Outcome::parse(&was) {
        Some(Outcome::Signed | Outcome::Adopted) => forget_pending_publishes(db, rule, path),
        Some(_) | None => Ok(()),
    }
}
