//! Removing what was delivered, with a sender who interferes and kills in between.

use std::fs;
use std::os::unix::fs::chown;

use super::*;
use crate::fs::private::Folder;
use crate::fs::tests::{USER, as_user, chmod, is_root};

struct Fixture {
    temp: tempfile::TempDir,
    root: Dir,
    private: Arc<Private>,
}

impl Fixture {
    fn new(files: &[&str]) -> Self {
        let temp = tempfile::tempdir().unwrap();
        for file in files {
            let path = temp.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        let root = Dir::open(temp.path()).unwrap();
        let private = Arc::new(Private::new(root.clone()));
        Self { temp, root, private }
    }

    fn part(&self, path: &str) -> Part {
        let path = RelPath::new(path).unwrap();
        let dir = self.root.descend(path.parent()).unwrap();
        let identity = dir.stat_of(path.name()).unwrap().unwrap().identity;
        Part { path, identity }
    }

    fn there(&self, path: &str) -> bool {
        self.temp.path().join(path).exists()
    }

    fn transactions(&self) -> usize {
        let entries = fs::read_dir(self.temp.path().join(".kms-sig"));
        entries.map_or(0, |all| all.filter(|entry| entry.as_ref().unwrap().file_name() != "lock").count())
    }

    fn folder(&self) -> Folder {
        self.private.open().unwrap()
    }

    fn bring_back(&self) -> usize {
        bring_back(&self.private).unwrap().count
    }
}

fn remove(f: &Fixture, parts: &[Part]) -> Result<Removed, FsError> {
    let removal = Removal::new(Arc::clone(&f.private));
    let _guard = removal.guard();
    removal.prepare(parts)?;
    removal.remove_one(parts.to_vec())
}

#[test]
fn what_was_judged_is_removed() {
    let f = Fixture::new(&["d/a", "d/a.sig", "b"]);
    assert_eq!(remove(&f, &[f.part("d/a"), f.part("d/a.sig")]).unwrap(), Removed::Done);
    assert!(!f.there("d/a") && !f.there("d/a.sig") && f.there("b"));
    assert_eq!(f.transactions(), 0);
}

#[test]
fn of_many_each_is_removed_or_stays_by_itself() {
    let f = Fixture::new(&["a", "a.sig", "d/b", "d/b.sig", "c", "c.sig", "e", "gone"]);
    let sources = [
        vec![f.part("a"), f.part("a.sig")],
        vec![f.part("d/b"), f.part("d/b.sig")],
        vec![f.part("c"), f.part("c.sig")],
        vec![f.part("gone")],
        vec![f.part("e")],
    ];
    fs::remove_file(f.temp.path().join("gone")).unwrap();
    fs::write(f.temp.path().join("d/b.sig"), "another, after the payload was moved").unwrap();
    let removal = Removal::new(Arc::clone(&f.private));
    removal.prepare(&sources[0]).unwrap();
    let ends: Vec<_> = removal.remove(&sources).into_iter().map(Result::unwrap).collect();
    let [done, changed] = [Removed::Done, Removed::Changed];
    assert_eq!(ends, [done, changed, done, done, done]);
    let there = ["a", "a.sig", "d/b", "d/b.sig", "c", "c.sig", "e"].map(|path| f.there(path));
    assert_eq!(there, [false, false, true, true, false, false, false]);
    assert_eq!(f.transactions(), 0);
}

#[test]
fn a20_what_cannot_go_back_waits_and_the_others_are_removed() {
    let f = Fixture::new(&["a", "b"]);
    let (a, b) = (vec![f.part("a")], vec![f.part("b")]);
    let folder = f.folder();
    let (_, dir) = make_folder(folder.dir()).unwrap();
    let mut there = Vec::new();
    assert!(take_all(&f.root, &dir, &a, &mut there).unwrap());
    assert!(take_all(&f.root, &dir, &b, &mut Vec::new()).unwrap());
    fs::write(f.temp.path().join("a"), "somebody was quicker").unwrap();
    put_back_parts(&f.private, &dir, &there).unwrap();
    assert!(!dir.path().join("a").exists() && dir.path().join("b").exists());
    assert_eq!(f.bring_back(), 1, "its name is taken");
    fs::remove_file(f.temp.path().join("a")).unwrap();
    assert_eq!(f.bring_back(), 0);
    assert_eq!(fs::read_to_string(f.temp.path().join("a")).unwrap(), "a");
}

#[test]
fn p4_what_cannot_be_decided_goes_back_as_far_as_it_can() {
    let f = Fixture::new(&["a", "b"]);
    let sources = [vec![f.part("a")], vec![f.part("b")]];
    let folder = f.folder();
    let (id, dir) = make_folder(folder.dir()).unwrap();
    let mut done = id.clone();
    done.push(DONE);
    fs::write(folder.dir().path().join(&done), "in the way").unwrap();
    assert!(remove_by(&f.private, folder.dir(), &dir, &id, &sources).iter().all(Result::is_err));
    assert!(f.there("a") && f.there("b"));
    assert_eq!(f.transactions(), 1, "only what is in the way");
    // One whose name is taken by then waits.
    let (id, dir) = make_folder(folder.dir()).unwrap();
    fs::rename(f.temp.path().join("a"), dir.path().join("a")).unwrap();
    fs::write(f.temp.path().join("a"), "another").unwrap();
    undo(&f.private, folder.dir(), &dir, &id);
    assert_eq!(f.bring_back(), 1);
}

#[test]
fn p4_a_part_that_can_be_moved_neither_there_nor_back_is_an_error() {
    let f = Fixture::new(&["a", "d/b"]);
    let (_, dir) = make_folder(f.folder().dir()).unwrap();
    fs::write(dir.path().join("a"), "has the name").unwrap();
    take_all(&f.root, &dir, &[f.part("a")], &mut Vec::new()).unwrap_err();
    assert!(f.there("a"));
    fs::write(dir.path().join("d"), "no directory").unwrap();
    put_back_parts(&f.private, &dir, &[(&f.part("d/b"), Place::open(&f.root, Path::new("d")).unwrap())])
        .unwrap_err();
    fs::remove_file(dir.path().join("d")).unwrap();
    put_back_parts(&f.private, &dir, &[(&f.part("d/b"), Place::open(&f.root, Path::new("d")).unwrap())])
        .unwrap(); // nothing came there
}

#[test]
fn a19_a_file_in_place_of_a_directory_that_was_just_emptied_stays_and_brings_nothing_back() {
    let f = Fixture::new(&["d/a"]);
    let first = f.part("d/a");
    let folder = f.folder();
    let (id, dir) = make_folder(folder.dir()).unwrap();
    assert!(take_all(&f.root, &dir, std::slice::from_ref(&first), &mut Vec::new()).unwrap());
    fs::remove_dir(f.temp.path().join("d")).unwrap();
    fs::write(f.temp.path().join("d"), "a file by now").unwrap();
    let ends = remove_by(&f.private, folder.dir(), &dir, &id, &[vec![f.part("d")]]);
    ends[0].as_ref().unwrap_err();
    assert_eq!(fs::read_to_string(f.temp.path().join("d")).unwrap(), "a file by now");
    assert_eq!(f.transactions(), 0, "the other is removed, and waits nowhere");
}

#[test]
fn every_directory_of_a_source_is_looked_at_before_it_is_delivered() {
    let f = Fixture::new(&["a", "d/b"]);
    let parts = [f.part("a"), f.part("d/b")];
    let removal = Removal::new(Arc::clone(&f.private));
    let _guard = removal.guard();
    assert!(!private::is_there(&f.root).unwrap());
    removal.prepare(&parts).unwrap();
    assert!(private::is_there(&f.root).unwrap());
    fs::remove_dir_all(f.temp.path().join("d")).unwrap();
    assert!(removal.prepare(&parts).unwrap_err().is_not_found());
}

#[test]
fn p4_what_a_sticky_directory_would_keep_is_known_before() {
    if !is_root() {
        return; // who has one user only has no file of another
    }
    for (mode, whose_dir, whose_file, can_be_moved) in [
        (0o1777, 0, 0, false),
        (0o1777, 0, USER, true),
        (0o1777, USER, 0, true),
        (0o777, 0, 0, true),
        (0o755, 0, USER, false),
    ] {
        let f = Fixture::new(&["f"]);
        for (path, whose) in [(f.temp.path().join("f"), whose_file), (f.temp.path().to_owned(), whose_dir)] {
            chown(path, Some(whose), None).unwrap();
        }
        chmod(f.temp.path(), mode);
        let place = Place::open(&f.root, Path::new("")).unwrap();
        let checked = as_user(|| check_movable(&place, OsStr::new("f")));
        assert_eq!(checked.is_ok(), can_be_moved, "{mode:o} of {whose_dir}, with a file of {whose_file}");
        let gone = as_user(|| check_movable(&place, OsStr::new("gone")));
        assert_eq!(gone.is_ok(), mode & 0o002 != 0, "{mode:o}");
        check_movable(&place, OsStr::new("f")).unwrap(); // root may
    }
}

#[test]
fn a_prepared_folder_is_used_once_goes_away_when_nobody_wants_it_and_may_be_missing() {
    let f = Fixture::new(&["a", "b", "c"]);
    let removal = Removal::new(Arc::clone(&f.private));
    let (first, second) = (removal.guard(), removal.guard());
    removal.prepare(&[f.part("a")]).unwrap();
    removal.prepare(&[f.part("b")]).unwrap();
    assert_eq!(f.transactions(), 1);
    for entry in fs::read_dir(f.temp.path().join(".kms-sig")).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            fs::remove_dir(entry.path()).unwrap();
        }
    }
    assert_eq!(removal.remove_one(vec![f.part("a")]).unwrap(), Removed::Done);
    assert_eq!((f.transactions(), f.there("a")), (0, false));
    removal.prepare(&[f.part("b")]).unwrap();
    assert_eq!(removal.remove_one(vec![f.part("b")]).unwrap(), Removed::Done);
    assert_eq!((f.transactions(), f.there("b")), (0, false));
    removal.prepare(&[f.part("c")]).unwrap();
    drop(first);
    assert_eq!(f.transactions(), 1);
    drop(second);
    assert_eq!((f.transactions(), f.there("c")), (0, true));
}

#[test]
fn p9_what_a_sender_put_in_place_of_the_claims_is_not_used() {
    for planted in ["file", "link", "directory"] {
        let f = Fixture::new(&["a", "elsewhere/x"]);
        let at = f.temp.path().join(".kms-sig");
        match planted {
            "file" => fs::write(at, "").unwrap(),
            "link" => std::os::unix::fs::symlink("elsewhere", at).unwrap(),
            _ => fs::create_dir(at).unwrap(),
        }
        assert_eq!(remove(&f, &[f.part("a")]).unwrap(), Removed::Done, "{planted}");
        assert!(recover(&f.private).unwrap().is_empty(), "{planted}");
        assert!(!f.there("a") && f.there(".kms-sig"));
        assert_eq!(fs::read_dir(f.temp.path().join("elsewhere")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(f.temp.path()).unwrap().count(), 2, "{planted}: nothing of ours is left");
    }
}

/// Where the usual name is another's, a kill leaves a folder that the walk comes upon.
#[test]
fn p4_what_a_kill_left_under_another_name_is_finished_when_it_is_found() {
    let f = Fixture::new(&["a", ".kms-sig"]);
    let folder = f.private.open().unwrap();
    let (_, dir) = make_folder(folder.dir()).unwrap();
    assert!(take_all(&f.root, &dir, &[f.part("a")], &mut Vec::new()).unwrap());
    let name = folder.dir().path().file_name().unwrap().to_owned();
    let path = RelPath::new(&name).unwrap();
    assert_eq!(adopt(&f.private, &path).unwrap(), None, "somebody works in it");
    drop(folder);
    let again = Arc::new(Private::new(f.root.clone()));
    assert_eq!(adopt(&again, &path).unwrap(), None, "it is locked");
    let Fixture { temp, root, private } = f;
    drop(private);
    assert_eq!(adopt(&again, &path).unwrap(), Some(vec![RelPath::new("a").unwrap()]));
    assert_eq!(fs::read_to_string(temp.path().join("a")).unwrap(), "a");
    let left: Vec<_> = root.names().unwrap().map(Result::unwrap).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn a_file_put_there_meanwhile_is_put_back() {
    let f = Fixture::new(&["a", "a.sig"]);
    let parts = [f.part("a"), f.part("a.sig")];
    fs::write(f.temp.path().join("new"), "another").unwrap();
    fs::rename(f.temp.path().join("new"), f.temp.path().join("a")).unwrap();
    assert_eq!(remove(&f, &parts).unwrap(), Removed::Changed);
    assert_eq!(fs::read_to_string(f.temp.path().join("a")).unwrap(), "another");
    assert!(f.there("a.sig"));
    assert_eq!(f.transactions(), 0);
}

#[test]
fn s3_what_was_rewritten_and_dated_back_is_not_removed() {
    let f = Fixture::new(&["a", "a.sig"]);
    let parts = [f.part("a"), f.part("a.sig")];
    let before = fs::metadata(f.temp.path().join("a")).unwrap().modified().unwrap();
    fs::write(f.temp.path().join("a"), "b").unwrap();
    let file = fs::File::options().write(true).open(f.temp.path().join("a")).unwrap();
    file.set_modified(before).unwrap();
    // Until the clock that ctime is taken from has moved on (a tick of it is some milliseconds).
    while f.part("a").identity.ctime == parts[0].identity.ctime {
        file.set_modified(before).unwrap();
    }
    assert_eq!(remove(&f, &parts).unwrap(), Removed::Changed);
    assert_eq!(fs::read_to_string(f.temp.path().join("a")).unwrap(), "b");
}

#[test]
fn p4_a_step_that_fails_puts_the_others_back() {
    let f = Fixture::new(&["a", "d/a.sig"]);
    let parts = [f.part("a"), f.part("d/a.sig")];
    fs::rename(f.temp.path().join("d"), f.temp.path().join("e")).unwrap();
    remove(&f, &parts).unwrap_err();
    assert!(f.there("a") && f.there("e/a.sig"));
    assert_eq!(f.transactions(), 0);
}

#[test]
fn a_directory_that_took_a_files_place_is_put_back_whole() {
    use std::os::unix::fs::PermissionsExt as _;
    let f = Fixture::new(&[".kms-sig/one/d/f/theirs/deep", ".kms-sig/two/g/theirs", "g"]);
    fs::create_dir(f.temp.path().join("d")).unwrap();
    fs::set_permissions(f.temp.path().join(".kms-sig"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(recover(&f.private).unwrap().len(), 0, "and a name that is taken is no trouble");
    assert!(f.there("d/f/theirs/deep") && f.there("g") && f.there(".kms-sig/two/g/theirs"));
    fs::remove_file(f.temp.path().join("g")).unwrap();
    recover(&f.private).unwrap();
    assert!(f.there("g/theirs"));
    assert_eq!(f.transactions(), 0);
}

#[test]
fn what_finds_its_name_taken_comes_back_when_it_is_free() {
    let f = Fixture::new(&["d/f", "q/payload"]);
    let path = RelPath::new("d/f").unwrap();
    let from = f.root.descend(Path::new("q")).unwrap();
    set_aside(&f.private, &path, &from, OsStr::new("payload")).unwrap();
    // Work under way is not disturbed.
    f.folder().dir().make_new_dir(OsStr::new("running"), 0o700).unwrap();
    fs::write(f.temp.path().join(".kms-sig/running/g"), "g").unwrap();
    assert_eq!(f.bring_back(), 1);
    assert_eq!(fs::read_to_string(f.temp.path().join("d/f")).unwrap(), "d/f", "never replaced");
    assert_eq!(f.transactions(), 2);
    fs::remove_file(f.temp.path().join("d/f")).unwrap();
    assert_eq!(f.bring_back(), 0);
    assert_eq!(fs::read_to_string(f.temp.path().join("d/f")).unwrap(), "q/payload");
    assert!(f.there(".kms-sig/running/g") && !f.there("g"));
    assert_eq!(f.transactions(), 1);
}

#[test]
fn p4_a_restart_finishes_or_undoes() {
    let f = Fixture::new(&["a", ".kms-sig/one/d/b", ".kms-sig/two.done/c", ".kms-sig/three/a", ".kms-sig/0"]);
    fs::create_dir(f.temp.path().join("d")).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(f.temp.path().join(".kms-sig"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(recover(&f.private).unwrap().len(), 1, "what is no transaction stops nothing");
    fs::remove_file(f.temp.path().join(".kms-sig/0")).unwrap();
    assert!(f.there("d/b") && !f.there("c"));
    assert_eq!(fs::read_to_string(f.temp.path().join("a")).unwrap(), "a", "never replaced");
    assert!(f.there(".kms-sig/three/a"), "kept until its name is free");
    fs::remove_file(f.temp.path().join("a")).unwrap();
    recover(&f.private).unwrap();
    assert_eq!(fs::read_to_string(f.temp.path().join("a")).unwrap(), ".kms-sig/three/a");
    assert_eq!(f.transactions(), 0);
}
