//! Putting away, recovering and what may lie in the store, with a sender who interferes.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::io::Errno;

use super::folder::{Holds, discard, has_part, signature_name};
use super::put_away::{begin, copy_in, put_back, record};
use super::record::{path_of, write_record};
use super::*;
use crate::digest::Digest;
use crate::fs::private::Private;
use crate::fs::tests::{as_user, chmod};
use crate::fs::{Dir, Place, RelPath, Stat};
use crate::signature::MAX_LEN;
use crate::signing::Reason;
use crate::sink::PutAway;
use crate::sink::directory::removal;

#[test]
fn p4_a_file_that_was_moved_in_and_cannot_be_put_back_is_kept() {
    let temp = tempfile::tempdir().unwrap();
    let store = Dir::open(temp.path()).unwrap();
    for (holds, kept) in [(Holds::Originals, true), (Holds::Copies, false)] {
        let item = store.make_new_dir(OsStr::new("item"), 0o700).unwrap();
        // What a sender put in the place of the payload that was judged: an inode that no record
        // knows.
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
        let PutAway::Done(item) = put_away(&store, &private, &case).unwrap() else { panic!("not put away") };
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

    // Copied, and what is in the place of its source looks like it and is not: this may be the only
    // one.
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
        clue: None,
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
