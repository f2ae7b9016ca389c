//! The quarantine store: failed pairs, each in a folder of its own with a record of why.
//!
//! Names in the store are generated; what the sender chose stands in the record only. The record is written
//! first, so nothing is ever in the store that cannot be explained. On one mount the pair is moved: the
//! sender may still hold the payload open, and the record's digest says what was judged. Across mounts it is
//! copied durably before the source is removed.
//!
//! Each item's folder is locked while something is done to it, so that the daemon and commands never work on the
//! same one: a copy that somebody purged while its source is being removed would be a lost file.

mod item;
mod release;
pub(crate) mod store;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::digest::Digest;
use crate::escape::Escaped;
use crate::fs::copy::Pass;
use crate::fs::private::Private;
use crate::fs::staging::random_hex;
use crate::fs::{Dir, Fitness, FsError, Identity, OpenError, Place, Publish, RelPath, Staging, Stat, root};
use crate::signature::{Format, MAX_LEN};
use crate::signing::Reason;
use crate::sink::directory::removal;
use crate::sink::directory::removal::{Part, Removal};
use crate::sink::{PutAway, Removed};
use crate::state::link::{hex, unhex};

pub use crate::sink::directory::quarantine::item::{
    Entry, Item, ItemError, Locked, ReadError, entries, is_id, sweep,
};
pub use crate::sink::directory::quarantine::release::{
    Changed, Licence, Occupied, PackError, Parcel, Published,
};

pub(crate) const PAYLOAD: &str = "payload";
pub(crate) const SIGNATURE: &str = "payload.sig";
const RECORD: &str = "record.json";

/// The name of the signature of a payload. Records name no format: those that there are share it.
fn signature_name(payload: &OsStr) -> OsString {
    Format::Kms.suffix().signature_of(payload)
}

/// The largest record that is read back, in bytes; ours have about 2,000.
const MAX_RECORD: u64 = 64 * 1024;

/// Why something is in quarantine, and what it was. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// Version of this shape.
    pub version: u32,
    /// The item's folder.
    pub id: String,
    /// When it was put there.
    pub quarantined_at: String,
    /// Always `invalid`; there for readers of many records.
    pub verdict: String,
    /// `mismatch`, `rejected`, `wrong-key`, `malformed`, `missing`.
    pub reason: String,
    /// The rule that judged.
    pub rule: String,
    /// The keys that were asked.
    pub keys: Vec<String>,
    /// SHA-512 of the payload as it was judged.
    pub digest: String,
    /// SHA-512 of the signature as it was judged, unless it is longer than any signature.
    pub signature_digest: Option<String>,
    /// Whether the kernel could say that nobody was writing: `granted` or `unavailable`.
    pub lease: String,
    /// The watched directory, escaped for reading.
    pub root: String,
    /// The payload below it, escaped for reading.
    pub path: String,
    /// The same, byte-exact, in hexadecimal.
    pub path_hex: String,
    /// The watched directory, byte-exact, in hexadecimal.
    pub root_hex: String,
    /// The payload.
    pub payload: PartRecord,
    /// What had its signature's name, if anything. Across mounts, what is longer than any signature was left there.
    pub signature: Option<PartRecord>,
}

/// What one file was when it was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartRecord {
    /// Size in bytes.
    pub size: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Permission bits, octal.
    pub mode: String,
    /// Last modification.
    pub modified: String,
    /// Last change of the inode.
    pub changed: String,
    /// Inode number.
    pub inode: u64,
}

impl From<&Stat> for PartRecord {
    fn from(stat: &Stat) -> Self {
        Self {
            size: stat.identity.size,
            uid: stat.uid,
            gid: stat.gid,
            mode: format!("{:04o}", stat.mode),
            modified: clock::file_timestamp(stat.identity.mtime),
            changed: clock::file_timestamp(stat.identity.ctime),
            inode: stat.identity.ino,
        }
    }
}

impl PartRecord {
    /// Whether a file is the one described, as far as a rename lets one tell.
    fn describes(&self, stat: &Stat) -> bool {
        let now = Self::from(stat);
        (now.inode, now.size, &now.modified) == (self.inode, self.size, &self.modified)
    }

    /// Whether a file is the one described, and nobody has touched it: what its owner cannot set back is as it was (S3).
    fn is_still(&self, stat: &Stat) -> bool {
        self.describes(stat) && Self::from(stat).changed == self.changed
    }
}

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
            // Undone as far as possible; `recover` sees to the rest. The first error is the one to tell.
            discard(store, &item, &id, holds).unwrap_or_default();
            Err(e)
        }
    }
}

/// Makes an item's folder and locks it.
fn begin(store: &Dir, digest: &Digest) -> Result<(String, Dir), FsError> {
    let id = fresh_id(digest);
    let item = store.make_new_dir(OsStr::new(&id), 0o700)?;
    if !item.lock().inspect_err(|_| store.remove_dir(OsStr::new(&id)).unwrap_or_default())? {
        // Its name was made this moment and cannot be guessed: somebody reads the whole store. Left to `recover`.
        return Err(FsError {
            action: "lock".into(),
            path: item.path().to_owned(),
            source: Errno::WOULDBLOCK,
        });
    }
    Ok((id, item))
}

/// What the parts in an item's folder are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    /// Files moved there: the only ones of their kind, whatever they are.
    Originals,
    /// Copies, whose sources are in their places.
    Copies,
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

/// Moves both parts, durably; if that fails or either is not what was judged (`false`), both are put back.
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

/// Puts back what was moved into an item, whatever it is. What cannot go there, because its name is taken or for any
/// other reason, must not lie under a record of something else: it waits among the claims, to be judged, and each scan
/// tells that it does. What cannot even go there stays, and keeps the item.
fn put_back(item: &Dir, private: &Private, source: &Place, path: &RelPath) {
    let signature = signature_name(path.name());
    for (there, name) in [(SIGNATURE, signature.as_os_str()), (PAYLOAD, path.name())] {
        let there = OsStr::new(there);
        if matches!(item.stat_of(there), Ok(None)) {
            continue; // it had not come
        }
        match (source.put_back(item, there, name), RelPath::new(path.parent().join(name))) {
            (Err(_), Some(path)) => removal::shelter(private, &path, item, there),
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
fn copy_in(item: &Dir, private: &Arc<Private>, source: &Place, case: &Case<'_>) -> Result<bool, FsError> {
    let name = case.path.name();
    let signature = signature_name(name);
    let mut parts = vec![Part { path: case.path.clone(), identity: case.payload.identity }];
    // What is longer than any signature is read by nobody (A16), so it stays where it is, and the record says its size.
    let copied = case.signature.filter(can_be_copied);
    if let Some(stat) = &copied {
        let path = RelPath::new(case.path.parent().join(&signature));
        parts.extend(path.map(|path| Part { path, identity: stat.identity }));
    }
    let claims = Removal::new(Arc::clone(private));
    let _customer = claims.enter();
    claims.prepare(&parts)?; // first: what cannot be removed need not be copied
    if !copy_one(item, PAYLOAD, source, name, &case.payload.identity, Some(&case.digest))? {
        return Ok(false);
    }
    if let Some(stat) = &copied
        && !copy_one(item, SIGNATURE, source, &signature, &stat.identity, case.signature_digest.as_ref())?
    {
        return Ok(false);
    }
    item.sync()?;
    claims.remove_one(parts).map(|removed| removed == Removed::Done)
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
    staging.seal(0o400)?;
    Ok(staging.publish(item, OsStr::new(to))? == Publish::Done)
}

/// Finishes what a killed process left in the store: takes the signature of a payload that was moved alone,
/// removes folders that hold a record and nothing else, and what is left of items that were let go. Leaves what
/// another process works on.
///
/// # Errors
/// The store cannot be listed. Single items that resist are left.
pub fn recover(store: &Dir) -> Result<(), FsError> {
    sweep(store)?;
    for id in ids(store)? {
        if let Ok(item) = store.descend(Path::new(&id))
            && matches!(item.lock(), Ok(true))
        {
            // An item that resists is still an item; nothing in it is lost.
            recover_item(store, &item, OsStr::new(&id)).unwrap_or_default();
        }
    }
    Ok(())
}

fn recover_item(store: &Dir, item: &Dir, id: &OsStr) -> Result<(), FsError> {
    if !has_part(item)? {
        return discard(store, item, &id.to_string_lossy(), Holds::Originals);
    }
    let Some(record) = read_record(item) else { return Ok(()) };
    let (Some(signature), None) = (&record.signature, item.stat_of(OsStr::new(SIGNATURE))?) else {
        return Ok(());
    };
    let (Some(root), Some(path)) = (path_of(&record.root_hex), path_of(&record.path_hex)) else {
        return Ok(());
    };
    let Some(path) = RelPath::new(path) else { return Ok(()) };
    let Ok(root) = root::open(&root) else { return Ok(()) };
    let source = Place::open(&root, path.parent())?;
    let name = signature_name(path.name());
    let payload = item.stat_of(OsStr::new(PAYLOAD))?;
    // A rename keeps the inode, and leads to no other file system, where the same number is another inode's.
    let is_elsewhere = item.stat()?.identity.dev != source.stat().identity.dev;
    let was_copied = payload.is_some_and(|there| is_elsewhere || there.identity.ino != record.payload.inode);
    let in_place = source.stat_of(path.name())?.is_some_and(|stat| record.payload.is_still(&stat));
    if in_place && was_copied {
        // The copying was cut short: the source is judged anew, and copied whole.
        return discard(store, item, &id.to_string_lossy(), Holds::Copies);
    }
    if source.stat_of(&name)?.is_some_and(|stat| signature.describes(&stat)) {
        let there = OsStr::new(SIGNATURE);
        source.take(&name, item, there)?;
        let is_it =
            item.stat_of(there)?.is_some_and(|stat| signature.describes(&stat)) && source.is_in_place()?;
        if !is_it {
            // Somebody's who was quicker. Where its name is taken by now it waits among the claims.
            let path = RelPath::new(path.parent().join(&name));
            return match (source.put_back(item, there, &name), path) {
                (Err(_), Some(path)) => removal::shelter(&Private::new(root), &path, item, there),
                (given, _) => given,
            };
        }
        item.sync()?;
    }
    Ok(())
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

impl Record {
    /// The payload's path below its root, byte-exact; `None` if the record does not hold one.
    pub fn relative_path(&self) -> Option<RelPath> {
        RelPath::new(path_of(&self.path_hex)?)
    }

    /// The watched directory it came from, byte-exact; `None` if the record does not hold one.
    pub fn root_path(&self) -> Option<PathBuf> {
        path_of(&self.root_hex).filter(|root| root.is_absolute())
    }
}

fn has_part(item: &Dir) -> Result<bool, FsError> {
    Ok(item.stat_of(OsStr::new(PAYLOAD))?.is_some() || item.stat_of(OsStr::new(SIGNATURE))?.is_some())
}

/// Removes an item that came to nothing. A part that was moved and could not be put back keeps it, be it what
/// was judged or what the sender put in its place; a copy may go, because its source is in place.
fn discard(store: &Dir, item: &Dir, id: &str, holds: Holds) -> Result<(), FsError> {
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

fn record(id: &str, root: &Dir, case: &Case<'_>) -> Record {
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
        path_hex: hex(case.path.as_bytes()),
        root_hex: hex(root.path().as_os_str().as_bytes()),
        payload: (&case.payload).into(),
        signature: case.signature.as_ref().map(PartRecord::from),
    }
}

fn write_record(item: &Dir, record: &Record) -> Result<(), FsError> {
    let failed =
        |source| FsError { action: "write the record of".into(), path: item.path().to_owned(), source };
    let mut json = serde_json::to_vec_pretty(record).map_err(|_| failed(Errno::INVAL))?;
    json.push(b'\n');
    let staging = Staging::holding(item, &json)?;
    staging.seal(0o400)?;
    staging.publish(item, OsStr::new(RECORD))?;
    item.sync()
}

fn read_record(item: &Dir) -> Option<Record> {
    use std::io::Read as _;
    let fitness = Fitness { max_size: MAX_RECORD, max_links: 1, owners: None };
    let (file, _) = item.open_file(OsStr::new(RECORD), &fitness).ok()?;
    let mut json = Vec::new();
    file.take(MAX_RECORD).read_to_end(&mut json).ok()?;
    serde_json::from_slice(&json).ok()
}

/// `20261124T003501Z-DIGEST-RANDOM`: sorts by time, says at a glance what it is, and cannot be guessed.
fn fresh_id(digest: &Digest) -> String {
    let stamp: String = clock::timestamp().chars().filter(char::is_ascii_alphanumeric).collect();
    let (seconds, _) = stamp.split_at_checked(15).unwrap_or((&stamp, ""));
    let digest = digest.to_string();
    let digest = digest.get(..8).unwrap_or_default();
    let random = random_hex();
    format!("{seconds}Z-{digest}-{}", random.get(..8).unwrap_or(&random))
}

/// The path that a record has in hexadecimal.
fn path_of(digits: &str) -> Option<PathBuf> {
    unhex(digits).map(|bytes| PathBuf::from(OsString::from_vec(bytes)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::fs::tests::{as_user, chmod};

    #[test]
    fn p4_a_file_that_was_moved_in_and_cannot_be_put_back_is_kept() {
        let temp = tempfile::tempdir().unwrap();
        let store = Dir::open(temp.path()).unwrap();
        for (holds, kept) in [(Holds::Originals, true), (Holds::Copies, false)] {
            let item = store.make_new_dir(OsStr::new("item"), 0o700).unwrap();
            // What a sender put in the place of the payload that was judged: an inode that no record knows.
            fs::write(temp.path().join("item/payload"), "new").unwrap();
            discard(&store, &item, "item", holds).unwrap();
            assert_eq!(temp.path().join("item/payload").exists(), kept, "{holds:?}");
            fs::remove_dir_all(temp.path().join("item")).unwrap_or_default();
        }
    }

    #[test]
    fn p4_what_is_being_put_away_cannot_be_purged_from_under_it() {
        let temp = tempfile::tempdir().unwrap();
        let store = Dir::open(temp.path()).unwrap();
        let (id, item) = begin(&store, &Digest::of(b"content")).unwrap();
        // A copy whose source is about to be removed: without it, the file would be nowhere.
        fs::write(item.path().join(PAYLOAD), "content").unwrap();
        assert!(matches!(Locked::take(&store, &id), Err(ItemError::Busy)));
        recover(&store).unwrap();
        assert!(item.path().join(PAYLOAD).exists());
        drop(item);
        assert!(matches!(Locked::take(&store, &id), Err(ItemError::Odd(_))));
    }

    #[test]
    fn p4_a_path_on_record_is_read_byte_for_byte_or_not_at_all() {
        for (digits, path) in [("", Some("")), ("612f62", Some("a/b")), ("6A", Some("j"))] {
            assert_eq!(path_of(digits).as_deref(), path.map(Path::new), "{digits}");
        }
        for digits in ["6", "61 ", "+f", "-1", "6g", "0x61", "6\u{e4}1"] {
            assert_eq!(path_of(digits), None, "{digits}");
        }
    }

    #[test]
    fn a19_what_took_a_bad_files_place_goes_back_or_waits_and_never_lies_in_the_store() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        fs::create_dir_all(path("root/d")).unwrap();
        fs::create_dir(path("item")).unwrap();
        let (root, item) = (Dir::open(&path("root")).unwrap(), Dir::open(&path("item")).unwrap());
        let source = Place::open(&root, Path::new("d")).unwrap();
        let private = Private::new(root.clone());
        for (file, content) in
            [("item/payload", "innocent"), ("item/payload.sig", "its signature"), ("root/d/f", "later")]
        {
            fs::write(path(file), content).unwrap();
        }
        put_back(&item, &private, &source, &RelPath::new("d/f").unwrap());
        assert_eq!(removal::bring_back(&private).unwrap().count, 1, "its payload's name is still taken");
        assert!(!has_part(&item).unwrap());
        assert_eq!(fs::read_to_string(path("root/d/f.sig")).unwrap(), "its signature");
        assert_eq!(fs::read_to_string(path("root/d/f")).unwrap(), "later", "never replaced");
        fs::remove_file(path("root/d/f")).unwrap();
        removal::bring_back(&private).unwrap();
        assert_eq!(fs::read_to_string(path("root/d/f")).unwrap(), "innocent");
    }

    #[test]
    fn a19_what_cannot_go_back_for_whatever_reason_waits_and_never_lies_in_the_store() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        fs::create_dir_all(path("root/d")).unwrap();
        fs::create_dir(path("item")).unwrap();
        let (root, item) = (Dir::open(&path("root")).unwrap(), Dir::open(&path("item")).unwrap());
        let source = Place::open(&root, Path::new("d")).unwrap();
        let private = Private::new(root.clone());
        fs::write(path("item/payload"), "innocent").unwrap();
        fs::remove_dir(path("root/d")).unwrap();
        put_back(&item, &private, &source, &RelPath::new("d/f").unwrap());
        assert!(!has_part(&item).unwrap());
        assert_eq!(removal::bring_back(&private).unwrap().count, 0);
        assert_eq!(fs::read_to_string(path("root/d/f")).unwrap(), "innocent");
    }

    #[test]
    fn a19_what_is_planted_in_the_store_is_never_written_over() {
        let temp = tempfile::tempdir().unwrap();
        let path = |name: &str| temp.path().join(name);
        fs::create_dir_all(path("store/planted")).unwrap();
        fs::create_dir(path("root")).unwrap();
        fs::write(path("store/planted/payload"), "planted").unwrap();
        fs::write(path("store/stray"), "stray").unwrap();
        let (store, root) = (Dir::open(&path("store")).unwrap(), Dir::open(&path("root")).unwrap());
        let private = Arc::new(Private::new(root.clone()));
        let mut items = Vec::new();
        for _ in 0..2 {
            fs::write(path("root/f"), "bad").unwrap();
            let payload = root.stat_of(OsStr::new("f")).unwrap().unwrap();
            let case = case(payload);
            let PutAway::Done(item) = put_away(&store, &private, &case).unwrap() else {
                panic!("not put away")
            };
            // The same file at the same second, and a name that somebody was quicker to take.
            assert!(store.make_new_dir(OsStr::new(&item), 0o700).is_err());
            items.push(item);
        }
        assert_ne!(items[0], items[1]);
        recover(&store).unwrap();
        assert_eq!(fs::read_to_string(path("store/planted/payload")).unwrap(), "planted");
        assert_eq!(fs::read_to_string(path("store/stray")).unwrap(), "stray");
    }

    /// A store and a root with a pair in it, whose name is so long that the record of it is, too.
    pub(crate) struct Site {
        _temp: tempfile::TempDir,
        pub(crate) store: Dir,
        pub(crate) root: Dir,
        pub(crate) private: Arc<Private>,
        pub(crate) path: RelPath,
    }

    impl Site {
        pub(crate) fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            for dir in ["store", "root", "root/d"] {
                fs::create_dir(temp.path().join(dir)).unwrap();
                chmod(&temp.path().join(dir), 0o700);
            }
            let [store, root] = ["store", "root"].map(|name| Dir::open(&temp.path().join(name)).unwrap());
            let path = RelPath::new(format!("d/{}", "f".repeat(240))).unwrap();
            let private = Arc::new(Private::new(root.clone()));
            let site = Self { _temp: temp, store, root, private, path };
            fs::write(site.payload(), "bad").unwrap();
            fs::write(site.signature(), "its signature").unwrap();
            site
        }

        pub(crate) fn payload(&self) -> PathBuf {
            self.root.path().join(self.path.as_path())
        }

        pub(crate) fn signature(&self) -> PathBuf {
            self.payload().with_file_name(signature_name(self.path.name()))
        }

        /// What is judged now.
        pub(crate) fn case(&self) -> Case<'_> {
            let source = self.root.descend(self.path.parent()).unwrap();
            let stat = |name: &OsStr| source.stat_of(name).unwrap();
            Case {
                digest: Digest::of(b"bad"),
                signature_digest: Some(Digest::of(b"its signature")),
                path: &self.path,
                signature: stat(&signature_name(self.path.name())),
                ..case(stat(self.path.name()).unwrap())
            }
        }

        /// Brings the pair in by copying, as across mounts.
        fn copy(&self, case: &Case<'_>) -> (Dir, bool) {
            let (_, item) = begin(&self.store, &case.digest).unwrap();
            let source = Place::open(&self.root, self.path.parent()).unwrap();
            let copied = copy_in(&item, &self.private, &source, case).unwrap();
            (item, copied)
        }

        /// What is in the watched directory: the payload, its signature.
        fn left(&self) -> [bool; 2] {
            [self.payload().exists(), self.signature().exists()]
        }

        /// A folder with a record of this case, and these files.
        fn item(&self, case: &Case<'_>, files: &[(&str, &str)]) -> (String, PathBuf) {
            let (id, item) = begin(&self.store, &case.digest).unwrap();
            write_record(&item, &record(&id, &self.root, case)).unwrap();
            for (name, content) in files {
                fs::write(item.path().join(name), content).unwrap();
            }
            (id, item.path().to_owned())
        }
    }

    fn holds(item: &Path) -> [bool; 2] {
        [PAYLOAD, SIGNATURE].map(|name| item.join(name).exists())
    }

    #[test]
    fn c3_a_pair_is_put_away_whole_with_a_record_of_what_it_was() {
        let site = Site::new();
        let PutAway::Done(id) = put_away(&site.store, &site.private, &site.case()).unwrap() else {
            panic!("changed")
        };
        assert_eq!((site.left(), holds(&site.store.path().join(&id))), ([false; 2], [true; 2]));
        let record = record_of(&site.store, &id).unwrap();
        assert_eq!(record.relative_path().as_ref(), Some(&site.path));
        assert_eq!(record.root_path().as_deref(), Some(site.root.path()));
    }

    #[test]
    fn s3_a_pair_that_is_not_what_was_judged_is_neither_moved_nor_copied() {
        let site = Site::new();
        let judged = site.case();
        for file in [site.payload(), site.signature()] {
            let was = fs::read(&file).unwrap();
            fs::write(&file, "another").unwrap();
            let case = Case { payload: judged.payload, signature: judged.signature, ..site.case() };
            assert_eq!(put_away(&site.store, &site.private, &case).unwrap(), PutAway::Changed);
            assert_eq!(site.store.names().unwrap().count(), 0, "nothing stays of it");
            assert!(!site.copy(&case).1);
            // The very file, as far as inode, size and times tell, and of other bytes than were judged.
            let case = site.case();
            assert!(!site.copy(&case).1);
            assert_eq!(site.left(), [true; 2]);
            fs::write(&file, was).unwrap();
            for entry in fs::read_dir(site.store.path()).unwrap() {
                fs::remove_dir_all(entry.unwrap().path()).unwrap();
            }
        }
        // Gone, or no file.
        let case = site.case();
        fs::remove_file(site.payload()).unwrap();
        assert_eq!(put_away(&site.store, &site.private, &case).unwrap(), PutAway::Changed);
        fs::create_dir(site.payload()).unwrap();
        assert_eq!(put_away(&site.store, &site.private, &case).unwrap(), PutAway::Changed);
        assert!(site.payload().is_dir());
    }

    #[test]
    fn c6_a_pair_that_cannot_be_moved_is_not_taken_for_another_one() {
        as_user(|| {
            let site = Site::new();
            let above = site.payload().parent().unwrap().to_owned();
            chmod(&above, 0o500);
            assert_eq!(put_away(&site.store, &site.private, &site.case()).unwrap_err().source, Errno::ACCESS);
            assert_eq!(site.store.names().unwrap().count(), 0);
            chmod(&above, 0o700);
        });
    }

    #[test]
    fn c9_a_copied_pair_is_whole_and_its_source_is_gone() {
        let site = Site::new();
        let (item, copied) = site.copy(&site.case());
        assert!(copied);
        assert_eq!((site.left(), holds(item.path())), ([false; 2], [true; 2]));
        for (name, content) in [(PAYLOAD, "bad"), (SIGNATURE, "its signature")] {
            assert_eq!(fs::read_to_string(item.path().join(name)).unwrap(), content);
            assert_eq!(item.stat_of(OsStr::new(name)).unwrap().unwrap().mode, 0o400);
        }
    }

    #[test]
    fn a16_c9_a_signature_is_copied_up_to_the_length_that_any_can_have() {
        for (size, is_copied) in [(MAX_LEN, true), (MAX_LEN + 1, false)] {
            let site = Site::new();
            let long = vec![b'a'; size];
            fs::write(site.signature(), &long).unwrap();
            let digest = Digest::of(&long);
            let (item, copied) = site.copy(&Case { signature_digest: Some(digest), ..site.case() });
            assert!(copied);
            assert_eq!((site.left(), holds(item.path())), ([false, !is_copied], [true, is_copied]), "{size}");
        }
    }

    #[test]
    fn p4_what_a_kill_cut_short_is_finished_or_undone_and_nothing_is_lost() {
        // Moved: the payload, and its signature not yet.
        let site = Site::new();
        let case = site.case();
        let (_, item) = site.item(&case, &[]);
        fs::rename(site.payload(), item.join(PAYLOAD)).unwrap();
        recover(&site.store).unwrap();
        assert_eq!((site.left(), holds(&item)), ([false; 2], [true; 2]));

        // The same, and there is another signature by now.
        let site = Site::new();
        let (_, item) = site.item(&site.case(), &[]);
        fs::rename(site.payload(), item.join(PAYLOAD)).unwrap();
        fs::write(site.signature(), "another's signature").unwrap();
        recover(&site.store).unwrap();
        assert_eq!((site.left(), holds(&item)), ([false, true], [true, false]));

        // Copied: the payload, with its source in place. Judged anew.
        let site = Site::new();
        let (_, item) = site.item(&site.case(), &[(PAYLOAD, "bad")]);
        recover(&site.store).unwrap();
        assert_eq!((site.left(), item.exists()), ([true; 2], false));

        // Copied, and what is in the place of its source looks like it and is not: this may be the only one.
        let site = Site::new();
        let (_, item) = site.item(&site.case(), &[(PAYLOAD, "bad")]);
        let modified = fs::metadata(site.payload()).unwrap().modified().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20)); // longer than a tick of the file system's clock
        fs::write(site.payload(), "new").unwrap();
        fs::File::open(site.payload()).unwrap().set_modified(modified).unwrap();
        recover(&site.store).unwrap();
        assert_eq!(fs::read_to_string(item.join(PAYLOAD)).unwrap(), "bad");

        // Copied, and removed: this is the only one.
        let site = Site::new();
        let (_, item) = site.item(&site.case(), &[(PAYLOAD, "bad")]);
        fs::remove_file(site.payload()).unwrap();
        recover(&site.store).unwrap();
        assert_eq!((site.left(), holds(&item)), ([false; 2], [true; 2]));

        // Nothing had come.
        let site = Site::new();
        let (_, item) = site.item(&site.case(), &[]);
        recover(&site.store).unwrap();
        assert_eq!((site.left(), item.exists()), ([true; 2], false));
    }

    /// Of the file `f`.
    fn case(payload: Stat) -> Case<'static> {
        static PATH: std::sync::LazyLock<RelPath> = std::sync::LazyLock::new(|| RelPath::new("f").unwrap());
        Case {
            reason: Reason::Mismatch,
            rule: "rule",
            keys: Vec::new(),
            digest: Digest::of(b""),
            signature_digest: None,
            lease_granted: true,
            path: &PATH,
            payload,
            signature: None,
        }
    }

    #[test]
    fn a_record_without_its_payload_records_nothing() {
        let temp = tempfile::tempdir().unwrap();
        let (store, root) = (Dir::open(temp.path()).unwrap(), Dir::open(temp.path()).unwrap());
        fs::write(temp.path().join("f"), "content").unwrap();
        let case = case(root.stat_of(OsStr::new("f")).unwrap().unwrap());
        // What a kill before the move leaves, where it cannot be tidied.
        let item = store.make_new_dir(OsStr::new("item"), 0o700).unwrap();
        write_record(&item, &record("item", &root, &case)).unwrap();
        assert!(record_of(&store, "item").is_none());
        root.rename(OsStr::new("f"), &item, OsStr::new(PAYLOAD)).unwrap();
        assert_eq!(record_of(&store, "item").unwrap().reason, "mismatch");
    }
}
