//! Signatures that were about to be published, and of which nothing more is known.
//!
//! Before a signature can be seen, a decision `signing` is remembered with its digests and its key.
//! The decision that it is in place follows. Where none does, somebody may have the signature all
//! the same: the file changed in that instant, the pair was moved away, or the process was killed.
//! So no `signing` is ever replaced or forgotten without a row of the record about its signature.
//! What is done about the files is decided elsewhere.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::ledger;
use super::reason::DecisionReason;
use super::{Decision, Outcome};
use crate::clock;
use crate::digest::Digest;
use crate::fs::RelPath;

/// Whether somebody may have seen a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It was never at its name.
    Never,
    /// It may have been.
    Perhaps,
}

/// A signature that was about to be published is not in place. If it may have been seen, that goes
/// on record, and it is still known as ours; otherwise nothing of it is kept. Inside a transaction.
pub(super) fn give_up(
    db: &Connection,
    rule: &str,
    path: &[u8],
    signature: &Digest,
    seen: Seen,
) -> rusqlite::Result<()> {
    let of = Some(signature.clone());
    let signing = signing_of(db, rule, path)?.filter(|signing| is_same(&signing.signature_digest, &of));
    match signing {
        Some(signing) if seen == Seen::Perhaps => put_on_record(db, signing),
        Some(_) => db
            .prepare_cached("DELETE FROM decided WHERE rule = ?1 AND path = ?2 AND outcome = 'signing'")?
            .execute(params![rule, path])
            .map(drop),
        None => Ok(()),
    }
}

/// Puts on record what is remembered of a path if that is a `signing`, unless `next` is about the
/// same signature of the same content and makes a row itself, or may do so later. Inside a
/// transaction, before it is replaced or forgotten.
pub(super) fn before_it_goes(
    db: &Connection,
    rule: &str,
    path: &[u8],
    next: Option<&Decision>,
) -> rusqlite::Result<()> {
    let Some(signing) = signing_of(db, rule, path)? else { return Ok(()) };
    let is_told = next.is_some_and(|next| match next.outcome {
        Outcome::Signing | Outcome::Signed | Outcome::Adopted | Outcome::Delivered => {
            is_same(&signing.digest, &next.digest)
                && is_same(&signing.signature_digest, &next.signature_digest)
        }
        Outcome::Valid | Outcome::Invalid | Outcome::Quarantined | Outcome::Refused => false,
    });
    if is_told { Ok(()) } else { put_on_record(db, signing) }
}

fn is_same(one: &Option<Digest>, other: &Option<Digest>) -> bool {
    one.as_ref().zip(other.as_ref()).is_some_and(|(one, other)| one.matches(other.as_bytes()))
}

fn put_on_record(db: &Connection, signing: Decision) -> rusqlite::Result<()> {
    if let Some(signature) = &signing.signature_digest
        && ledger::knows_signature(db, &signing.rule, signature)?
    {
        return Ok(());
    }
    ledger::append(db, clock::timestamp(), &signing).map(drop)
}

/// The `signing` that is remembered of a path, as it goes on record. One that cannot be read is
/// none.
fn signing_of(db: &Connection, rule: &str, path: &[u8]) -> rusqlite::Result<Option<Decision>> {
    let mut query = db.prepare_cached(
        "SELECT digest, signature_digest, details FROM decided
         WHERE rule = ?1 AND path = ?2 AND outcome = 'signing'",
    )?;
    let columns = query
        .query_row(params![rule, path], |row| {
            let text = |column| row.get::<_, Option<String>>(column).ok().flatten();
            Ok((text(0), text(1), text(2)))
        })
        .optional()?;
    Ok(columns.zip(RelPath::new(OsStr::from_bytes(path))).map(|((digest, signature, key), path)| Decision {
        rule: rule.to_owned(),
        path,
        fingerprint: String::new(),
        payload: None,
        signature: None,
        outcome: Outcome::Signed,
        reason: Some(DecisionReason::Unconfirmed),
        digest: digest.and_then(|digest| digest.parse().ok()),
        signature_digest: signature.and_then(|digest| digest.parse().ok()),
        key,
        item: None,
    }))
}
