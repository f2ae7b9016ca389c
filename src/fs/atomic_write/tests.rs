//! Writing a file at once, over what may be there, and whose links are followed.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;
use crate::fs::tests::{as_user, chmod, users};

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    Place::find(path)?.write(bytes, Over::Anything)
}

#[test]
fn a_new_file_holds_the_bytes_and_nothing_else_stays() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("a.sig"), b"new").unwrap();
    assert_eq!(fs::read(dir.path().join("a.sig")).unwrap(), b"new");
    assert_eq!(names(dir.path()), ["a.sig"]);
}

#[test]
fn p4_an_existing_file_is_replaced_not_written_into() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sig");
    write(&path, b"a longer old signature").unwrap();
    let mut reader = File::open(&path).unwrap();
    let old = fs::metadata(&path).unwrap().ino();
    write(&path, b"new").unwrap();
    assert_ne!(fs::metadata(&path).unwrap().ino(), old);
    assert_eq!(io::read_to_string(&mut reader).unwrap(), "a longer old signature");
    assert_eq!(fs::read(&path).unwrap(), b"new");
}

#[test]
fn p4_nothing_is_left_when_the_name_cannot_be_taken() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("taken")).unwrap();
    let error = replace(&dir.path().join("taken"), b"x", Access::Umask).unwrap_err();
    assert!(matches!(error, WriteError::Write { .. }), "{error}");
    assert_eq!(names(dir.path()), ["taken"]);
}

#[test]
fn a_name_of_255_bytes_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let name = "n".repeat(255);
    write(&dir.path().join(&name), b"x").unwrap();
    assert_eq!(names(dir.path()), [name]);
}

#[test]
fn links_stay_and_their_target_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    symlink("sub/b", dir.path().join("a")).unwrap();
    symlink("c", dir.path().join("sub/b")).unwrap();
    write(&dir.path().join("a"), b"dangling at first").unwrap();
    write(&dir.path().join("a"), b"new").unwrap();
    assert_eq!(fs::read(dir.path().join("sub/c")).unwrap(), b"new");
    assert!(fs::symlink_metadata(dir.path().join("a")).unwrap().is_symlink());
    assert!(fs::symlink_metadata(dir.path().join("sub/b")).unwrap().is_symlink());
    assert_eq!(names(&dir.path().join("sub")), ["b", "c"]);
}

#[test]
fn a_loop_of_links_and_a_directory_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    symlink("b", dir.path().join("a")).unwrap();
    symlink("a", dir.path().join("b")).unwrap();
    for (path, expected) in [
        ("a", Errno::LOOP.kind()),
        ("", ErrorKind::IsADirectory),
        (".", ErrorKind::IsADirectory),
        ("new/", ErrorKind::IsADirectory),
        ("missing/a", ErrorKind::NotFound),
    ] {
        let error = write(&dir.path().join(path), b"x").unwrap_err();
        let WriteError::Write { source, .. } = error else { panic!("{path:?}: {error}") };
        assert_eq!(source.kind(), expected, "{path:?}");
    }
    assert_eq!(names(dir.path()), ["a", "b"]);
}

#[test]
fn a_pipe_is_written_to_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    rustix::fs::mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
    let reader = std::thread::spawn({
        let pipe = pipe.clone();
        move || fs::read(pipe).unwrap()
    });
    write(&pipe, b"signature").unwrap();
    assert_eq!(reader.join().unwrap(), b"signature");
    assert_eq!(names(dir.path()), ["pipe"]);
}

#[test]
fn every_name_has_a_directory_that_can_be_opened() {
    for (path, expected) in [("a.sig", "."), ("d/a.sig", "d"), ("/a.sig", "/"), ("/", "."), ("", ".")] {
        assert_eq!(parent(Path::new(path)), Path::new(expected), "{path:?}");
    }
}

#[test]
fn an_open_descriptor_is_written_to_and_keeps_its_file() {
    use std::os::fd::AsRawFd as _;
    let dir = tempfile::tempdir().unwrap();
    let file = File::create(dir.path().join("out")).unwrap();
    let before = file.metadata().unwrap().ino();
    write(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())), b"new").unwrap();
    assert_eq!(fs::metadata(dir.path().join("out")).unwrap().ino(), before);
    assert_eq!(fs::read(dir.path().join("out")).unwrap(), b"new");
}

#[test]
fn a_drop_box_is_written_to_by_who_may_not_list_it() {
    let dir = users();
    chmod(dir.path(), 0o300);
    as_user(|| write(&dir.path().join("a.sig"), b"new")).unwrap();
    chmod(dir.path(), 0o700);
    assert_eq!(names(dir.path()), ["a.sig"]);
}

#[test]
fn a_private_file_is_the_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    replace(&dir.path().join("keyring"), b"secret", Access::Owner).unwrap();
    let mode = fs::metadata(dir.path().join("keyring")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn c2_what_is_being_written_has_no_name_that_a_kill_could_leave() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Directory::open(dir.path()).unwrap();
    let mut staged = Staged::create(&opened, OsStr::new("a.sig"), Access::Umask).unwrap();
    staged.fill(b"whole").unwrap();
    assert!(names(dir.path()).is_empty());
    drop(staged);
    // Where there is no such file, a name stands in, and goes when it is not published.
    let mut named = Staged::named(&opened, OsStr::new("a.sig"), Access::Owner).unwrap();
    named.fill(b"whole").unwrap();
    assert_eq!(names(dir.path()).len(), 1);
    drop(named);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn c2_what_a_killed_writer_left_is_swept_by_the_next_one_and_a_live_ones_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Directory::open(dir.path()).unwrap();
    let path = dir.path().join("a.sig");
    let named = || Staged::named(&opened, OsStr::new("a.sig"), Access::Umask).unwrap();
    // A kill leaves the name, and closes the file.
    let killed = |mut staged: Staged<'_>| drop(staged.name.take());
    let live = named();
    write(&path, b"new").unwrap();
    let left = names(dir.path());
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(opened.is(live.name.as_ref().unwrap(), &live.file), "somebody is writing it");
    killed(live);
    write(&path, b"newer").unwrap();
    assert_eq!(names(dir.path()), ["a.sig"]);
    // The same where a name stands in for the whole time.
    killed(named());
    let mut next = named();
    next.fill(b"newest").unwrap();
    assert!(next.publish(OsStr::new("a.sig"), Over::Anything).is_ok());
    assert_eq!(names(dir.path()), ["a.sig"]);
    // What is nobody's own temporary file is left.
    fs::create_dir(dir.path().join(temporary_name_for(OsStr::new("b.sig")))).unwrap();
    write(&dir.path().join("b.sig"), b"x").unwrap();
    assert_eq!(names(dir.path()).len(), 3);
}

#[test]
fn c2_who_ends_the_process_removes_what_is_unfinished() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Directory::open(dir.path()).unwrap();
    // Other tests of this process may have theirs in the one place for it.
    for _ in 0..1000 {
        let staged = Staged::named(&opened, OsStr::new("a.sig"), Access::Umask).unwrap();
        drop(abandon());
        if names(dir.path()).is_empty() {
            return;
        }
        drop(staged);
    }
    panic!("it stays");
}

#[test]
fn p8_only_what_the_caller_saw_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.sig");
    let place = Place::find(&path).unwrap();
    assert!(place.occupant().unwrap().is_none());
    for stage in [Staged::create, Staged::named] {
        fs::write(&path, "theirs").unwrap();
        let mut staged = stage(&place.dir, &place.name, Access::Umask).unwrap();
        assert!(matches!(staged.publish(&place.name, Over::Nothing), Err(Trouble::Changed)));
        drop(staged);
        let seen = place.occupant().unwrap().unwrap().identity;
        fs::remove_file(&path).unwrap();
        assert!(matches!(place.write(b"new", Over::Seen(seen)), Err(WriteError::Changed(_))));
        fs::write(&path, "others").unwrap();
        assert!(matches!(place.write(b"new", Over::Seen(seen)), Err(WriteError::Changed(_))));
        assert_eq!(fs::read(&path).unwrap(), b"others");
        let seen = place.occupant().unwrap().unwrap().identity;
        place.write(b"new", Over::Seen(seen)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        fs::remove_file(&path).unwrap();
        let mut staged = stage(&place.dir, &place.name, Access::Umask).unwrap();
        assert!(staged.publish(&place.name, Over::Nothing).is_ok());
        assert_eq!(names(dir.path()), ["a.sig"]);
    }
}

#[test]
fn p9_a_link_is_followed_only_if_nobody_else_could_have_put_it_there() {
    let me = Owner { uid: 7001, gid: 7001 };
    let any = Directory::open(Path::new("/")).unwrap().stat().unwrap();
    let stat = |uid, gid, mode| Stat { uid, gid, mode, ..any };
    for (link, dir, expected) in [
        (7001, (7001, 7001, 0o755), None),
        (0, (0, 0, 0o755), None),
        (7001, (0, 0, 0o1777), None), // /tmp
        (0, (7001, 7003, 0o1770), None),
        (7001, (7001, 7001, 0o775), None), // a umask of 002
        (7002, (7001, 7001, 0o755), Some(Suspicion::Owner(7002))),
        (7002, (0, 0, 0o1777), Some(Suspicion::Owner(7002))),
        (7001, (7002, 7002, 0o755), Some(Suspicion::DirectoryOwner(7002))),
        (7001, (7002, 7002, 0o1777), Some(Suspicion::DirectoryOwner(7002))),
        (7001, (7001, 7003, 0o775), Some(Suspicion::Writable(0o775))),
        (0, (0, 0, 0o777), Some(Suspicion::Writable(0o777))),
    ] {
        let (uid, gid, mode) = dir;
        let found = suspicion(&stat(link, link, 0o777), &stat(uid, gid, mode), me);
        assert_eq!(found, expected, "{link} in {uid} {gid} {mode:o}");
    }
}

#[test]
fn p9_every_link_on_the_way_is_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for made in ["open", "safe/real"] {
        fs::create_dir_all(at(made)).unwrap();
    }
    symlink("../safe/b", at("open/a")).unwrap();
    symlink("../safe/real", at("open/real")).unwrap();
    symlink("../open/a", at("safe/first")).unwrap();
    symlink("../open/real/c", at("safe/through")).unwrap();
    symlink("/dev/null", at("open/device")).unwrap();
    for mode in [0o755, 0o777] {
        chmod(&at("open"), mode);
        for path in ["open/a", "safe/first", "safe/through", "open/device"] {
            match write(&at(path), b"x") {
                Ok(()) => assert_eq!(mode, 0o755, "{path}"),
                Err(WriteError::Planted { why, .. }) => {
                    assert_eq!((mode, why), (0o777, Suspicion::Writable(0o777)), "{path}");
                }
                Err(other) => panic!("{path}: {other}"),
            }
        }
    }
    assert_eq!(names(&at("safe")), ["b", "first", "real", "through"]);
    assert_eq!(names(&at("safe/real")), ["c"]);
}
