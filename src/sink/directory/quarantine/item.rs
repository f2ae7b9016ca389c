//! One item of the store: found, looked at, locked, let go.
//!
//! The store belongs to the daemon alone, and yet an item is believed only as far as it holds
//! together: a folder with a name of ours, a record about itself, a payload that is a file. What
//! else lies in the store is not ours to touch. Letting go is a rename to `ID.gone`, which decides,
//! and then the removal, which anybody may finish.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::Path;

use rustix::io::Errno;

use crate::digest::set::DigestRequest;
use crate::fs::copy::{Hashed, Pass};
use crate::fs::{Dir, Fitness, FsError, Kind, OpenError, RelPath, Stat, Unfit};
use crate::signature::{MAX_LEN, Malformed};

use crate::sink::directory::quarantine::folder::{PAYLOAD, SIGNATURE, has_part, ids, is_id};
use crate::sink::directory::quarantine::record::{Record, read_record};
use crate::source::directory::signature_file::{SignatureFile, read_open};
use crate::state::{ExitKind, QuarantineExit};

/// What the name of an item that was let go ends with.
const GONE: &str = ".gone";

/// Why there is no item.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ItemError {
    /// There is none of this name, or no longer.
    #[error("it is not in quarantine")]
    Gone,
    /// A folder that nothing was brought into: the daemon is at it, or its next start removes it.
    #[error("it is being brought in")]
    Unfinished,
    /// Another process works on it.
    #[error("another process is working on it; try again")]
    Busy,
    /// What is there does not hold together.
    #[error("it is not as the daemon left it: {0}")]
    Odd(&'static str),
    /// It cannot be looked at.
    #[error(transparent)]
    Fs(#[from] FsError),
}

/// Why a file of an item is not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// It is longer or shorter than what was judged. Who still has it open can make it as long as
    /// they like, at no cost (A10).
    #[error("its content changed since it was judged ({was} bytes then, {now} now)")]
    Resized {
        /// Its size when it was judged.
        was: u64,
        /// Its size now, as far as is known.
        now: u64,
    },
    /// It cannot be.
    #[error("its files cannot be read")]
    Open(#[source] OpenError),
}

impl From<OpenError> for ReadError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl ReadError {
    /// Of reading no further than `was` bytes.
    pub(crate) fn within(was: u64, error: OpenError) -> Self {
        match error {
            OpenError::Unfit(Unfit::TooLarge { size, .. }) => Self::Resized { was, now: size },
            OpenError::Unfit(_) | OpenError::Gone | OpenError::Io(_) => Self::Open(error),
        }
    }

    /// That what was read is as long as what was judged.
    pub(crate) const fn check(was: u64, now: u64) -> Result<(), Self> {
        if was == now { Ok(()) } else { Err(Self::Resized { was, now }) }
    }
}

/// An item as it was found.
#[derive(Debug)]
pub(crate) struct Item {
    dir: Dir,
    record: Record,
    path: RelPath,
    signature: Option<Stat>,
}

/// What is known of an item when many are looked at. Holds no descriptor: a process may have few.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its record.
    pub(crate) record: Record,
    /// The payload's path below its root: the one to use.
    pub(crate) path: RelPath,
    /// [`Item::size`].
    pub(crate) size: u64,
    /// [`Item::share`].
    pub(crate) share: u64,
}

/// An item that no other process works on.
#[derive(Debug)]
pub(crate) struct Locked(Item);

/// What a file counts at least in the share of its rule: mke2fs makes one inode for every 16 KiB of
/// a disk (mke2fs.conf(5), `inode_ratio`), so who has a part of the disk has a part of the inodes.
/// Without that, empty files would count nothing, and use up the inodes of all.
pub(crate) const LEAST_SHARE: u64 = 16 * 1024;

/// What an item counts in the share of its rule, by the bytes of its payload and of its signature,
/// if it has one: beside these, its folder and its record. The rows of state that tell of it are a
/// small part of that.
pub(crate) fn share(payload: u64, signature: Option<u64>) -> u64 {
    let part = |bytes: u64| bytes.max(LEAST_SHARE);
    (2 * LEAST_SHARE).saturating_add(part(payload)).saturating_add(signature.map_or(0, part))
}

/// Every item of the store, or why it is none, in no order. Items that are being brought in are
/// left out.
///
/// # Errors
/// The store cannot be listed.
pub(crate) fn entries(
    store: &Dir,
) -> Result<impl Iterator<Item = (String, Result<Entry, ItemError>)>, FsError> {
    Ok(ids(store)?.into_iter().filter_map(|id| match Item::find(store, &id) {
        Err(ItemError::Gone | ItemError::Unfinished) => None,
        Ok(item) => {
            let (size, share) = (item.size(), item.share());
            Some((id, Ok(Entry { record: item.record, path: item.path, size, share })))
        }
        Err(error) => Some((id, Err(error))),
    }))
}

/// Removes what is left of items that were let go, but for those that another process is removing.
///
/// # Errors
/// The store cannot be listed. What resists is left.
pub(crate) fn sweep(store: &Dir) -> Result<(), FsError> {
    for name in store.names()?.collect::<Result<Vec<_>, _>>()? {
        let id = name.to_str().and_then(|name| name.strip_suffix(GONE));
        if !id.is_some_and(is_id) {
            continue;
        }
        if let Ok(dir) = store.descend(Path::new(&name))
            && matches!(dir.lock(), Ok(true))
        {
            dir.remove_contents().and_then(|()| store.remove_dir(&name)).unwrap_or_default();
        }
    }
    Ok(())
}

impl Item {
    /// The item with this id, as it is now.
    ///
    /// # Errors
    /// [`ItemError`], but for `Busy`.
    pub(crate) fn find(store: &Dir, id: &str) -> Result<Self, ItemError> {
        Self::read(Self::open(store, id)?, id)
    }

    fn open(store: &Dir, id: &str) -> Result<Dir, ItemError> {
        if !is_id(id) {
            return Err(ItemError::Gone);
        }
        store.descend(Path::new(id)).map_err(|error| match error.source {
            Errno::NOENT => ItemError::Gone,
            Errno::LOOP | Errno::NOTDIR => ItemError::Odd("a file or link has its name"),
            Errno::XDEV => ItemError::Odd("something is mounted there"),
            _ => error.into(),
        })
    }

    fn read(dir: Dir, id: &str) -> Result<Self, ItemError> {
        if !has_part(&dir)? {
            return Err(ItemError::Unfinished);
        }
        let is_file = |stat: &Stat| stat.kind == Kind::File;
        let (payload, signature) = (dir.stat_of(OsStr::new(PAYLOAD))?, dir.stat_of(OsStr::new(SIGNATURE))?);
        if !payload.is_some_and(|stat| is_file(&stat)) {
            return Err(ItemError::Odd("it holds no payload that is a file"));
        }
        if signature.is_some_and(|stat| !is_file(&stat)) {
            return Err(ItemError::Odd("its signature is no file"));
        }
        let Some(record) = read_record(&dir) else {
            return Err(ItemError::Odd("its record cannot be read"));
        };
        let path = record.hold_together(id).map_err(ItemError::Odd)?;
        Ok(Self { dir, record, path, signature })
    }

    /// Its record. The path in it is for reading; [`Item::path`] is the one to use.
    pub(crate) const fn record(&self) -> &Record {
        &self.record
    }

    /// Its id.
    pub(crate) fn id(&self) -> &str {
        &self.record.id
    }

    /// The payload's path below its root.
    pub(crate) const fn path(&self) -> &RelPath {
        &self.path
    }

    /// Bytes that its files had when they were put away. What they have now, a sender who still has
    /// one open may have changed.
    pub(crate) fn size(&self) -> u64 {
        self.record.payload.size.saturating_add(self.signature_size_was().unwrap_or_default())
    }

    /// What it counts in the share of its rule.
    pub(crate) fn share(&self) -> u64 {
        share(self.record.payload.size, self.signature_size_was())
    }

    /// Bytes that its signature had, if it is here.
    fn signature_size_was(&self) -> Option<u64> {
        // What is longer than any signature may have been left where it was.
        self.record.signature.as_ref().filter(|_| self.signature.is_some()).map(|was| was.size)
    }

    /// Bytes that its signature has now, if there is one.
    pub(crate) fn signature_size(&self) -> Option<u64> {
        self.signature.map(|stat| stat.identity.size)
    }

    /// Whether what is in place of its signature is longer than any.
    pub(crate) fn has_overlong_signature(&self) -> bool {
        self.signature_size().is_some_and(|size| size > MAX_LEN as u64)
    }

    /// Opens the payload, if it has the size that was judged. To be read no further than that.
    ///
    /// # Errors
    /// [`ReadError`]; one that its owner made set-user-id meanwhile is unfit.
    pub(crate) fn payload(&self) -> Result<File, ReadError> {
        let (file, stat) = self.dir.open_file(OsStr::new(PAYLOAD), &ANY)?;
        ReadError::check(self.record.payload.size, stat.identity.size).map(|()| file)
    }

    /// Hashes the payload, for these digests too, if it has the size that was judged. Tells `count`
    /// how many bytes each read gave.
    ///
    /// # Errors
    /// [`ReadError`].
    pub(crate) fn hash_payload(
        &self,
        digests: DigestRequest,
        count: &dyn Fn(usize),
    ) -> Result<Hashed, ReadError> {
        let (file, was) = (self.payload()?, self.record.payload.size);
        let pass = Pass::new(self.folder(), was).with_digests(digests).counted(count);
        let hashed = pass.hash(&file).map_err(|error| ReadError::within(was, error))?;
        ReadError::check(was, hashed.size).map(|()| hashed)
    }

    /// Opens the signature, if there is one.
    ///
    /// # Errors
    /// [`OpenError`]; one that is longer than any is unfit.
    pub(crate) fn signature(&self) -> Result<Option<File>, OpenError> {
        let fitness = Fitness { max_size: MAX_LEN as u64, ..ANY };
        let open = |_| self.dir.open_file(OsStr::new(SIGNATURE), &fitness).map(|(file, _)| file);
        self.signature.map(open).transpose()
    }

    /// Reads the signature, if there is one. Of what is longer than any, nothing is read (A16).
    ///
    /// # Errors
    /// [`OpenError`].
    pub(crate) fn read_signature(&self) -> Result<Option<SignatureFile>, OpenError> {
        let overlong = || SignatureFile { digest: None, parsed: Err(Malformed::TooLong), clue: None };
        match self.signature() {
            Ok(Some(file)) => read_open(&file, &self.dir, OsStr::new(SIGNATURE)).map(Some),
            Ok(None) => Ok(None),
            Err(OpenError::Unfit(Unfit::TooLarge { .. })) => Ok(Some(overlong())),
            Err(error) => Err(error),
        }
    }

    /// The row to record when the item leaves the store unchanged.
    pub(crate) fn exit(&self, how: ExitKind, why: String) -> QuarantineExit {
        let record = &self.record;
        QuarantineExit {
            how,
            rule: record.rule.clone(),
            path: self.path.clone(),
            why,
            digest: record.digest.parse().ok(),
            signature_digest: record.signature_digest.as_ref().and_then(|digest| digest.parse().ok()),
            key: None,
            item: record.id.clone(),
        }
    }

    /// Its folder, for messages.
    pub(crate) fn folder(&self) -> &Path {
        self.dir.path()
    }
}

/// In the store everything is opened: its size and links were judged before it came, and its size
/// is looked at again.
const ANY: Fitness = Fitness { max_size: u64::MAX, max_links: u32::MAX, owners: None };

impl Locked {
    /// Locks the item with this id, for as long as this lives.
    ///
    /// # Errors
    /// [`ItemError`].
    pub(crate) fn take(store: &Dir, id: &str) -> Result<Self, ItemError> {
        let dir = Item::open(store, id)?;
        if !dir.lock()? {
            return Err(ItemError::Busy);
        }
        // Between opening and locking somebody may have let it go.
        let (there, mine) = (store.stat_of(OsStr::new(id))?, dir.stat()?);
        if !there.is_some_and(|there| {
            (there.identity.dev, there.identity.ino) == (mine.identity.dev, mine.identity.ino)
        }) {
            return Err(ItemError::Gone);
        }
        Item::read(dir, id).map(Self)
    }

    /// The item.
    pub(crate) const fn item(&self) -> &Item {
        &self.0
    }

    /// Lets it go, for good. Durable when this returns; what could not be removed by then the next
    /// [`sweep`] removes.
    ///
    /// # Errors
    /// What rename(2) or fsync(2) say.
    pub(crate) fn remove(self, store: &Dir) -> Result<(), FsError> {
        let id = OsStr::new(self.0.id());
        let gone = OsString::from(format!("{}{GONE}", self.0.id()));
        rustix::fs::renameat(store, id, store, &gone).map_err(|source| FsError {
            action: "remove".into(),
            path: store.path().join(id),
            source,
        })?;
        store.sync()?;
        self.0.dir.remove_contents().and_then(|()| store.remove_dir(&gone)).unwrap_or_default();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use std::time::Duration;

    use super::*;
    use crate::clock;
    use crate::digest::Digest;

    const ID: &str = "20261124T003501Z-0123abcd-89abcdef";

    /// A store with one item, whose record has these entries changed.
    fn store(change: &[(&str, serde_json::Value)]) -> (tempfile::TempDir, Dir) {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join(ID)).unwrap();
        let part = serde_json::json!({ "size": 3, "uid": 0, "gid": 0, "mode": "4777", "inode": 1,
            "modified": "2026-11-24T00:35:01.000000001Z", "changed": "2026-11-24T00:35:01Z" });
        let mut record = serde_json::json!({ "version": 1, "id": ID, "quarantined_at": "2026-11-24T00:35:01Z",
            "verdict": "invalid", "reason": "mismatch", "rule": "r", "keys": [], "digest": "00",
            "signature_digest": null, "lease": "granted", "root": "/r", "path": "a/f", "path_hex": "612f66",
            "root_hex": "2f72", "payload": part, "signature": null });
        for (name, value) in change {
            record[*name] = value.clone();
        }
        let write = |name: &str, text: &str| fs::write(temp.path().join(ID).join(name), text).unwrap();
        write("payload", "abc");
        write("record.json", &record.to_string());
        let dir = Dir::open(temp.path()).unwrap();
        (temp, dir)
    }

    fn odd(change: &[(&str, serde_json::Value)]) -> &'static str {
        let (_temp, store) = store(change);
        match Item::find(&store, ID) {
            Err(ItemError::Odd(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a19_a_record_that_lies_is_not_believed() {
        let (_temp, good) = store(&[]);
        let item = Item::find(&good, ID).unwrap();
        assert_eq!((item.path().as_path(), item.size()), (Path::new("a/f"), 3));
        assert_eq!(item.record().payload.safe_mode(), 0o755, "no set-id, not writable by others");
        let time = item.record().payload.modified_at().unwrap();
        assert_eq!((time.seconds, time.nanos), (1_795_480_501, 1));

        let path = "its record does not hold a path inside the watched directory";
        // "../f", "/etc/f", "", "f\0", "a/../../f", and no hexadecimal.
        for hex in ["2e2e2f66", "2f6574632f66", "", "6600", "612f2e2e2f2e2e2f66", "zz", "é"] {
            assert_eq!(odd(&[("path_hex", hex.into())]), path, "{hex}");
        }
        assert_eq!(odd(&[("root_hex", "72".into())]), "its record does not say where it came from");
        assert_eq!(
            odd(&[("id", "20261124T003501Z-0123abcd-00000000".into())]),
            "its record is about another item"
        );
        assert_eq!(odd(&[("version", 2.into())]), "another version of this program wrote its record");
        assert_eq!(odd(&[("path_hex", 7.into())]), "its record cannot be read");
    }

    #[test]
    fn a19_what_is_planted_in_the_store_is_no_item_and_is_not_touched() {
        let (temp, store) = store(&[]);
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("payload"), "theirs").unwrap();
        let at = |name: &str| temp.path().join(name);
        let other = ID.replace("89abcdef", "00000000");
        symlink(outside.path(), at(&other)).unwrap();
        symlink(outside.path(), at(&format!("{other}.gone"))).unwrap();
        fs::create_dir(at("notes")).unwrap();
        fs::create_dir(at("notes.gone")).unwrap();
        fs::write(at("20261124T003501Z-0123abcd-file0000"), "").unwrap();
        sweep(&store).unwrap();
        super::super::recover(&store).unwrap();
        assert_eq!(fs::read(outside.path().join("payload")).unwrap(), b"theirs");
        assert!(at("notes").exists() && at("notes.gone").exists());
        let found: Vec<_> = entries(&store).unwrap().map(|(id, item)| (id, item.is_ok())).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.contains(&(ID.to_owned(), true)) && found.contains(&(other.clone(), false)));
        assert!(matches!(Item::find(&store, &other), Err(ItemError::Odd("a file or link has its name"))));

        // Parts that are links lead nowhere either.
        fs::remove_file(at(ID).join("payload")).unwrap();
        symlink(outside.path().join("payload"), at(ID).join("payload")).unwrap();
        assert!(matches!(Item::find(&store, ID), Err(ItemError::Odd(_))));
    }

    #[test]
    fn a16_a_signature_is_what_a_file_of_its_length_can_be() {
        let (temp, store) = store(&[("rule", "r\u{1b}[2J".into()), ("reason", "bad\nworse".into())]);
        let signature = temp.path().join(ID).join(SIGNATURE);
        let item = Item::find(&store, ID).unwrap();
        assert!(item.read_signature().unwrap().is_none() && !item.has_overlong_signature());
        assert_eq!(
            (item.record().shown_rule(), item.record().shown_reason()),
            ("r\\x1b[2J".into(), "bad\\x0aworse".into())
        );
        for (size, is_overlong) in [(0, false), (MAX_LEN, false), (MAX_LEN + 1, true)] {
            fs::write(&signature, vec![b'a'; size]).unwrap();
            let item = Item::find(&store, ID).unwrap();
            assert_eq!(
                (item.signature_size(), item.has_overlong_signature()),
                (Some(size as u64), is_overlong)
            );
            assert_eq!(item.read_signature().unwrap().unwrap().digest.is_none(), is_overlong);
        }
        fs::remove_file(&signature).unwrap();
        fs::create_dir(&signature).unwrap();
        assert!(matches!(Item::find(&store, ID), Err(ItemError::Odd("its signature is no file"))));
    }

    #[test]
    fn a10_what_is_as_long_as_it_was_is_read_and_nothing_else() {
        let (temp, store) = store(&[]);
        let payload = temp.path().join(ID).join(PAYLOAD);
        let hash = || {
            Item::find(&store, ID)
                .unwrap()
                .hash_payload(DigestRequest::NONE, &|_| ())
                .map(|hashed| hashed.digest)
        };
        assert_eq!(hash().unwrap().to_string(), Digest::of(b"abc").to_string());
        for size in [0, 2, 4, 1 << 40] {
            fs::File::options().write(true).open(&payload).unwrap().set_len(size).unwrap();
            let error = hash().unwrap_err();
            assert!(matches!(error, ReadError::Resized { was: 3, now } if now == size), "{error}");
        }
        // It grows or shrinks while it is read.
        let item = Item::find(&store, ID).unwrap();
        for (before, after) in [("abc", "abcd"), ("abc", "ab")] {
            fs::write(&payload, before).unwrap();
            let file = item.payload().unwrap();
            fs::write(&payload, after).unwrap();
            let read = Pass::new(item.folder(), 3).hash(&file);
            let read = read.map_err(|error| ReadError::within(3, error));
            let resized = read.and_then(|hashed| ReadError::check(3, hashed.size)).unwrap_err();
            assert!(matches!(resized, ReadError::Resized { was: 3, now } if now == after.len() as u64));
        }
    }

    #[test]
    fn o8_an_item_takes_what_it_had_when_it_was_put_away() {
        let part = |size: u64| {
            serde_json::json!({ "size": size, "uid": 0, "gid": 0, "mode": "0600", "inode": 1,
                "modified": "2026-11-24T00:35:01Z", "changed": "2026-11-24T00:35:01Z" })
        };
        let (temp, store) = store(&[("signature", part(1 << 30))]);
        let at = |name: &str| temp.path().join(ID).join(name);
        let size = || Item::find(&store, ID).unwrap().size();
        assert_eq!(size(), 3, "left where it was");
        fs::File::create(at(SIGNATURE)).unwrap().set_len(1 << 20).unwrap();
        fs::File::options().write(true).open(at(PAYLOAD)).unwrap().set_len(1 << 40).unwrap();
        assert_eq!(size(), 3 + (1 << 30));
    }

    #[test]
    fn o8_only_what_is_known_to_be_old_is_kept_no_longer() {
        let ago = |seconds| clock::system_time() - Duration::from_secs(seconds);
        let at = |time| humantime::format_rfc3339(time).to_string();
        let hour = Duration::from_secs(3600);
        for (time, is_older) in [
            (at(ago(3660)), true),
            (at(ago(3540)), false),
            (at(clock::system_time() + hour), false),
            ("yesterday".into(), false),
        ] {
            let (_temp, store) = store(&[("quarantined_at", time.clone().into())]);
            assert_eq!(Item::find(&store, ID).unwrap().record().is_older_than(hour), is_older, "{time}");
        }
    }

    #[test]
    fn only_one_at_a_time_works_on_an_item_and_what_is_let_go_is_gone() {
        let (temp, store) = store(&[]);
        let first = Locked::take(&store, ID).unwrap();
        assert!(matches!(Locked::take(&store, ID), Err(ItemError::Busy)));
        fs::create_dir(temp.path().join(ID).join("dir")).unwrap();
        first.remove(&store).unwrap();
        assert!(matches!(Locked::take(&store, ID), Err(ItemError::Gone)));
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn p4_what_a_kill_left_of_an_item_that_was_let_go_is_removed() {
        let (temp, store) = store(&[]);
        let gone = temp.path().join(format!("{ID}.gone"));
        fs::rename(temp.path().join(ID), &gone).unwrap();
        let held = store.descend(Path::new(&format!("{ID}.gone"))).unwrap();
        assert!(held.lock().unwrap());
        sweep(&store).unwrap();
        assert!(gone.join("payload").exists(), "somebody is at it");
        drop(held);
        assert_eq!(entries(&store).unwrap().count(), 0);
        sweep(&store).unwrap();
        assert!(!gone.exists());
    }
}
