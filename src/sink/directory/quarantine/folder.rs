//! The folder of an item: its name, and what may lie in it.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::record::{RECORD, Record, read_record};
use crate::clock;
use crate::digest::Digest;
use crate::fs::staging::random_hex;
use crate::fs::{Dir, FsError};
use crate::signature::Format;

/// The payload.
pub const PAYLOAD: &str = "payload";

/// Its signature.
pub const SIGNATURE: &str = "payload.sig";

/// The name of the signature of a payload. Records name no format: those that there are share it.
pub(super) fn signature_name(payload: &OsStr) -> OsString {
    Format::Kms.suffix().signature_of(payload)
}

/// What the parts in an item's folder are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holds {
    /// Files moved there: the only ones of their kind, whatever they are.
    Originals,
    /// Copies, whose sources are in their places.
    Copies,
}

/// The items of the store, by their folders' names.
///
/// # Errors
/// What listing says.
pub fn ids(store: &Dir) -> Result<Vec<String>, FsError> {
    let mut ids = Vec::new();
    for name in store.names()? {
        ids.extend(name?.into_string().ok().filter(|name| is_id(name)));
    }
    Ok(ids)
}

/// The record of an item, if there is a readable one, and a payload that it is about.
pub fn record_of(store: &Dir, id: &str) -> Option<Record> {
    let item = store.descend(Path::new(id)).ok()?;
    item.stat_of(OsStr::new(PAYLOAD)).ok()??;
    read_record(&item)
}

pub(super) fn has_part(item: &Dir) -> Result<bool, FsError> {
    Ok(item.stat_of(OsStr::new(PAYLOAD))?.is_some() || item.stat_of(OsStr::new(SIGNATURE))?.is_some())
}

/// Removes an item that came to nothing. A part that was moved and could not be put back keeps it,
/// be it what was judged or what the sender put in its place; a copy may go, because its source is
/// in place.
pub(super) fn discard(store: &Dir, item: &Dir, id: &str, holds: Holds) -> Result<(), FsError> {
    match holds {
        Holds::Originals if has_part(item)? => return Ok(()),
        Holds::Originals => {} // not unlinked by name: one might have come since
        Holds::Copies => {
            for name in [PAYLOAD, SIGNATURE] {
                item.unlink(OsStr::new(name))?;
            }
        }
    }
    item.unlink(OsStr::new(RECORD))?;
    store.remove_dir(OsStr::new(id))
}

/// `20261124T003501Z-DIGEST-RANDOM`: sorts by time, says at a glance what it is, and cannot be
/// guessed.
pub(super) fn fresh_id(digest: &Digest) -> String {
    let stamp: String = clock::timestamp().chars().filter(char::is_ascii_alphanumeric).collect();
    let (seconds, _) = stamp.split_at_checked(15).unwrap_or((&stamp, ""));
    let digest = digest.to_string();
    let digest = digest.get(..8).unwrap_or_default();
    let random = random_hex();
    format!("{seconds}Z-{digest}-{}", random.get(..8).unwrap_or(&random))
}

/// Sizes of the two hexadecimal parts of an id, and of the time before them.
const ID_PARTS: [usize; 3] = [16, 8, 8];

/// Whether a name can be that of an item: `20261124T003501Z-DIGEST-RANDOM`.
pub fn is_id(name: &str) -> bool {
    let parts: Vec<&str> = name.split('-').collect();
    let is_hex = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_time = |part: &str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'T' | b'Z'));
    match parts.as_slice() {
        [time, digest, random] => {
            [time.len(), digest.len(), random.len()] == ID_PARTS
                && is_time(time)
                && is_hex(digest)
                && is_hex(random)
        }
        _ => false,
    }
}
