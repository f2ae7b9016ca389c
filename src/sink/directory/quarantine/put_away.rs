//! Moving or copying a failed pair into the store.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use rustix::io::Errno;

use super::folder::{Holds, PAYLOAD, SIGNATURE, discard, fresh_id, has_part, signature_name};
use super::record::{ClueRecord, PartRecord, RECORD, Record, write_record};
use crate::clock;
use crate::digest::Digest;
use crate::escape::Escaped;
use crate::fs::copy::Pass;
use crate::fs::private::Private;
use crate::fs::{Dir, Fitness, FsError, Identity, OpenError, Place, Publish, RelPath, Staging, Stat};
use crate::signature::{Clue, MAX_LEN};
use crate::signing::Reason;
use crate::sink::directory::removal;
use crate::sink::directory::removal::{Part, Removal};
use crate::sink::{PutAway, Removed};

/// What is known of a pair when it is put away.
#[derive(Debug, Clone)]
pub struct Case<'a> {
    /// Why it is invalid.
    pub reason: Reason,
    /// The rule's name.
    pub rule: &'a str,
    /// The keys asked.
    pub keys: Vec<String>,
    /// Of the payload.
    pub digest: Digest,
    /// Of the signature's bytes.
    pub signature_digest: Option<Digest>,
    /// Whether the lease could be asked.
    pub lease_granted: bool,
    /// The payload's path below the root.
    pub path: &'a RelPath,
    /// What the payload was.
    pub payload: Stat,
    /// What the signature was.
    pub signature: Option<Stat>,
    /// What looks like a mistake about the signature.
    pub clue: Option<Clue>,
}

/// Moves or copies a pair into the store.
///
/// # Errors
/// Any step's; then the source is in its place, or both it and a copy are.
pub fn put_away(store: &Dir, private: &Arc<Private>, case: &Case<'_>) -> Result<PutAway, FsError> {
    let (id, item) = begin(store, &case.digest)?;
    let mut holds = Holds::Originals;
    match fill(store, &item, &id, private, case, &mut holds) {
        Ok(true) => Ok(PutAway::Done(id)),
        Ok(false) => discard(store, &item, &id, holds).map(|()| PutAway::Changed),
        Err(e) if e.is_moved() => discard(store, &item, &id, holds).map(|()| PutAway::Changed),
        Err(e) => {
            // Undone as far as possible; `recover` sees to the rest. The first error is the one to
            // tell.
            discard(store, &item, &id, holds).unwrap_or_default();
            Err(e)
        }
    }
}

/// Makes an item's folder and locks it.
pub(super) fn begin(store: &Dir, digest: &Digest) -> Result<(String, Dir), FsError> {
    let id = fresh_id(digest);
    let item = store.make_new_dir(OsStr::new(&id), 0o700)?;
    if !item.lock().inspect_err(|_| store.remove_dir(OsStr::new(&id)).unwrap_or_default())? {
        // Its name was made this moment and cannot be guessed: somebody reads the whole store. Left
        // to `recover`.
        return Err(FsError {
            action: "lock".into(),
            path: item.path().to_owned(),
            source: Errno::WOULDBLOCK,
        });
    }
    Ok((id, item))
}

/// Does in an empty directory what the store has to be able to: an item is locked, gets a record
/// and a payload, and all of it is durable.
///
/// # Errors
/// The step that cannot be done there.
pub(crate) fn rehearse(dir: &Dir) -> Result<(), FsError> {
    let (_, item) = begin(dir, &Digest::of(b""))?;
    let staging = Staging::holding(&item, b"{}\n")?;
    staging.set_mode_and_sync(0o400)?;
    staging.publish_to_ours(&item, OsStr::new(RECORD))?;
    item.try_moving()?;
    item.sync()?;
    dir.sync()
}

/// Writes the record, then brings in both parts; `false` if either is not what was judged.
fn fill(
    store: &Dir,
    item: &Dir,
    id: &str,
    private: &Arc<Private>,
    case: &Case<'_>,
    holds: &mut Holds,
) -> Result<bool, FsError> {
    let source = Place::open(private.root(), case.path.parent())?;
    write_record(item, &record(id, private.root(), case))?;
    store.sync()?;
    if store.stat()?.mount == source.stat().mount {
        match move_in(item, private, &source, case) {
            // Two bind mounts of one file system look alike and are not (O7).
            Err(e) if e.source == Errno::XDEV => {}
            moved => return moved,
        }
    }
    if has_part(item)? {
        return Ok(false); // moved, and could not be put back: not to be taken for a copy
    }
    *holds = Holds::Copies;
    copy_in(item, private, &source, case)
}

/// Moves both parts, durably; if that fails or either is not what was judged (`false`), both are
/// put back.
fn move_in(item: &Dir, private: &Private, source: &Place, case: &Case<'_>) -> Result<bool, FsError> {
    let (name, signature) = (case.path.name(), signature_name(case.path.name()));
    removal::check_movable(source, name)?;
    let moved = move_one(item, PAYLOAD, source, name, &case.payload.identity).and_then(|moved| {
        let Some(stat) = case.signature.filter(|_| moved) else { return Ok(moved) };
        move_one(item, SIGNATURE, source, &signature, &stat.identity)
    });
    let durable = match moved {
        // What had been moved away in the instant before is none of ours to keep.
        Ok(true) => source.is_in_place().and_then(|is_in_place| {
            item.sync().and_then(|()| source.written().flush()).map(|()| is_in_place)
        }),
        other => other,
    };
    if !matches!(durable, Ok(true)) {
        put_back(item, private, source, case.path);
    }
    durable
}

/// Puts back what was moved into an item, whatever it is. What cannot go there, because its name is
/// taken or for any other reason, must not lie under a record of something else: it waits among the
/// claims, to be judged, and each scan tells that it does. What cannot even go there stays, and
/// keeps the item.
pub(super) fn put_back(item: &Dir, private: &Private, source: &Place, path: &RelPath) {
    let signature = signature_name(path.name());
    for (there, name) in [(SIGNATURE, signature.as_os_str()), (PAYLOAD, path.name())] {
        let there = OsStr::new(there);
        if matches!(item.stat_of(there), Ok(None)) {
            continue; // it had not come
        }
        match (source.put_back(item, there, name), RelPath::new(path.parent().join(name))) {
            (Err(_), Some(path)) => removal::set_aside(private, &path, item, there),
            (moved, _) => moved,
        }
        .unwrap_or_default();
    }
}

fn move_one(
    item: &Dir,
    to: &str,
    source: &Place,
    name: &OsStr,
    expected: &Identity,
) -> Result<bool, FsError> {
    // Before the rename, which sets the ctime: the one time that a sender cannot set back (S3).
    if source.stat_of(name)?.is_none_or(|stat| stat.identity != *expected) {
        return Ok(false);
    }
    match source.take(name, item, OsStr::new(to)) {
        Err(e) if e.is_not_found() || e.is_moved() => return Ok(false),
        renamed => renamed?,
    }
    Ok(item.stat_of(OsStr::new(to))?.is_some_and(|stat| stat.identity.is_renamed_from(expected)))
}

/// Copies both parts durably, then removes the source of what was copied.
pub(super) fn copy_in(
    item: &Dir,
    private: &Arc<Private>,
    source: &Place,
    case: &Case<'_>,
) -> Result<bool, FsError> {
    let name = case.path.name();
    let signature = signature_name(name);
    let mut parts = vec![Part { path: case.path.clone(), identity: case.payload.identity }];
    // What is longer than any signature is read by nobody (A16), so it stays where it is, and the
    // record says its size.
    let copied = case.signature.filter(can_be_copied);
    if let Some(stat) = &copied {
        let path = RelPath::new(case.path.parent().join(&signature));
        parts.extend(path.map(|path| Part { path, identity: stat.identity }));
    }
    let removal = Removal::new(Arc::clone(private));
    let _guard = removal.guard();
    removal.prepare(&parts)?; // first: what cannot be removed need not be copied
    if !copy_one(item, PAYLOAD, source, name, &case.payload.identity, Some(&case.digest))? {
        return Ok(false);
    }
    if let Some(stat) = &copied
        && !copy_one(item, SIGNATURE, source, &signature, &stat.identity, case.signature_digest.as_ref())?
    {
        return Ok(false);
    }
    item.sync()?;
    removal.remove_one(parts).map(|removed| removed == Removed::Done)
}

/// Whether what has a signature's name is copied, where it cannot be moved.
pub fn can_be_copied(signature: &Stat) -> bool {
    signature.identity.size <= MAX_LEN as u64
}

fn copy_one(
    item: &Dir,
    to: &str,
    source: &Place,
    name: &OsStr,
    expected: &Identity,
    digest: Option<&Digest>,
) -> Result<bool, FsError> {
    let fitness = Fitness { max_size: expected.size, max_links: u32::MAX, owners: None };
    let (file, stat) = match source.open_file(name, &fitness) {
        Ok(opened) => opened,
        Err(OpenError::Gone | OpenError::Unfit(_)) => return Ok(false),
        Err(OpenError::Io(e)) => return Err(e),
    };
    if stat.identity != *expected {
        return Ok(false);
    }
    let staging = Staging::new(item)?;
    let hashed = match Pass::new(&source.path().join(name), expected.size).copy(&file, &staging) {
        Ok(hashed) => hashed,
        Err(OpenError::Gone | OpenError::Unfit(_)) => return Ok(false),
        Err(OpenError::Io(e)) => return Err(e),
    };
    if digest.is_some_and(|judged| !judged.matches(hashed.digest.as_bytes())) {
        return Ok(false);
    }
    staging.set_mode_and_sync(0o400)?;
    Ok(staging.publish_to_ours(item, OsStr::new(to))? == Publish::Done)
}

pub(super) fn record(id: &str, root: &Dir, case: &Case<'_>) -> Record {
    Record {
        version: 1,
        id: id.to_owned(),
        quarantined_at: clock::timestamp(),
        verdict: "invalid".into(),
        reason: case.reason.to_string(),
        rule: case.rule.into(),
        keys: case.keys.clone(),
        digest: case.digest.to_string(),
        signature_digest: case.signature_digest.as_ref().map(Digest::to_string),
        lease: if case.lease_granted { "granted" } else { "unavailable" }.into(),
        root: Escaped::new(root.path()).to_string(),
        path: Escaped::new(case.path.as_path()).to_string(),
        path_hex: hex::encode(case.path.as_bytes()),
        root_hex: hex::encode(root.path().as_os_str().as_bytes()),
        payload: (&case.payload).into(),
        signature: case.signature.as_ref().map(PartRecord::from),
        clue: case.clue.as_ref().map(ClueRecord::from),
    }
}
