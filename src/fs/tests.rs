//! What the tests of safe file work share, and those of directories and paths.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{CWD, FileType, Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::*;

/// Whom root works as where an ordinary user is asked for, with a group of the same number.
pub(crate) const USER: u32 = 7001;

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A directory of the ordinary user's.
pub(crate) fn users() -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    if is_root() {
        chown(temp.path(), Some(USER), Some(USER)).unwrap();
    }
    temp
}

/// Does something as an ordinary user. Root does it on a thread that becomes one: in Linux
/// credentials belong to the thread (credentials(7), nptl(7)).
pub(crate) fn as_user<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if !is_root() {
        return work();
    }
    let become_it = || {
        let (uid, gid) = (Uid::from_raw(USER), Gid::from_raw(USER));
        set_thread_groups(&[]).unwrap();
        set_thread_res_gid(gid, gid, gid).unwrap();
        set_thread_res_uid(uid, uid, uid).unwrap();
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            become_it();
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// What of a directory this process has open (proc_pid_fd(5)), sorted: the path below it and, of
/// the flags, those that matter as long as it is open. A file without a name is `#`.
pub(crate) fn opened_in(dir: &Path) -> Vec<(String, OFlags)> {
    let lasting = OFlags::RWMODE | OFlags::PATH | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = |fd: String| {
        // What other tests close meanwhile is none of ours.
        let to = fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
        let below = to.strip_prefix(dir).ok()?.to_str()?.to_owned();
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
        let flags = OFlags::from_bits_retain(u32::from_str_radix(flags.trim(), 8).ok()?);
        Some((if below.starts_with('#') { "#".into() } else { below }, flags & lasting))
    };
    let fds = fs::read_dir("/proc/self/fd").unwrap().map(|fd| fd.unwrap().file_name().into_string().unwrap());
    let mut all: Vec<_> = fds.filter_map(opened).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// What comes of doing something twice at the very same moment, many times.
pub(crate) fn at_once<T: Send>(work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let come = AtomicUsize::new(0);
    let each = || -> Vec<T> {
        let rounds = (1..=64).map(|round| {
            come.fetch_add(1, Ordering::Relaxed);
            // Not asleep: who is woken comes too late.
            while come.load(Ordering::Relaxed) < 2 * round {
                std::thread::yield_now();
            }
            work(round)
        });
        rounds.collect()
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(each);
        let mut all = each();
        all.extend(other.join().unwrap());
        all
    })
}

fn anything() -> Fitness {
    Fitness { max_size: u64::MAX, max_links: u32::MAX, owners: None }
}

#[test]
fn what_is_opened_is_for_no_other_program_and_is_waited_for_by_nobody() {
    let temp = tempfile::tempdir().unwrap();
    fs::create_dir(temp.path().join("below")).unwrap();
    fs::write(temp.path().join("file"), "content").unwrap();
    let dir = Dir::open(temp.path()).unwrap();
    let below = dir.descend(Path::new("below")).unwrap();
    let file = dir.open_file(OsStr::new("file"), &anything()).unwrap();
    let lock = dir.lock_file(OsStr::new("lock")).unwrap().unwrap();
    let names = below.names().unwrap();
    let staging = Staging::new(&dir).unwrap();
    let closed = OFlags::CLOEXEC;
    let expected = [
        ("", closed),
        ("#", closed | OFlags::RDWR),
        ("below", closed),
        ("below", closed),
        // Of its owner's, who may have a lease that everybody else waits 45 s for (fcntl(2)).
        ("file", closed | OFlags::NONBLOCK),
        ("lock", closed | OFlags::NONBLOCK | OFlags::RDWR),
    ];
    assert_eq!(opened_in(temp.path()), expected.map(|(name, flags)| (name.to_owned(), flags)));
    drop((dir, below, file, lock, names, staging));
    assert_eq!(opened_in(temp.path()), []);
}

#[test]
fn p9_what_is_not_what_it_should_be_is_not_opened() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    fs::create_dir(at("dir")).unwrap();
    fs::write(at("file"), "content").unwrap();
    symlink("dir", at("to-dir")).unwrap();
    symlink("file", at("to-file")).unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    let dir = Dir::open(temp.path()).unwrap();
    for name in ["file", "to-dir", "to-file", "socket"] {
        assert!(Dir::open(&at(name)).unwrap_err().is_no_directory(), "{name}");
        assert!(dir.descend(Path::new(name)).unwrap_err().is_no_directory(), "{name}");
    }
    // Not even tried: opening a socket fails, and opening a device may do anything.
    for (name, what) in [
        ("socket", Irregular::Special),
        ("dir", Irregular::Directory),
        ("to-file", Irregular::Symlink),
        ("to-dir", Irregular::Symlink),
    ] {
        match dir.open_file(OsStr::new(name), &anything()) {
            Err(OpenError::Unfit(Unfit::NotRegular(told))) => assert_eq!(told, what, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn directories_are_made_that_are_missing() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let made = Dir::create(&at("a/b"), 0o700).unwrap();
    assert_eq!((made.stat().unwrap().mode & 0o777, made.path()), (0o700, &*at("a/b")));
    Dir::create(&at("a/b"), 0o700).unwrap();
    let below = made.descend_creating(Path::new("c/d")).unwrap();
    assert_eq!((below.stat().unwrap().mode & 0o777, below.path()), (0o755, &*at("a/b/c/d")));
    made.descend_creating(Path::new("c/d")).unwrap();
    fs::write(at("file"), "").unwrap();
    for path in ["file", "file/below"] {
        let error = Dir::create(&at(path), 0o700).unwrap_err();
        assert_eq!((&error.path, error.is_no_directory()), (&at(path), true), "{path}");
    }
}

#[test]
fn a_directory_that_somebody_else_makes_meanwhile_is_as_good() {
    let temp = tempfile::tempdir().unwrap();
    let dir = Dir::open(temp.path()).unwrap();
    for made in at_once(|round| dir.descend_creating(Path::new(&round.to_string()))) {
        made.unwrap();
    }
}

#[test]
fn where_nothing_can_be_made_is_known_before_and_told() {
    let temp = users();
    let dir = Dir::open(temp.path()).unwrap();
    for (mode, is_writable) in [(0o755, true), (0o555, false), (0o655, false)] {
        chmod(temp.path(), mode);
        let (known, made) =
            as_user(|| (dir.check_writable(), dir.descend_creating(Path::new(&mode.to_string()))));
        assert_eq!((known.is_ok(), made.is_ok()), (is_writable, is_writable), "{mode:o}");
        for error in [known.err(), made.err()].into_iter().flatten() {
            assert_eq!(error.source, Errno::ACCESS, "{mode:o}");
        }
    }
}

#[test]
fn a_directory_has_its_mode_whatever_the_umask_and_keeps_what_it_inherited() {
    let temp = users();
    let dir = Dir::open(temp.path()).unwrap();
    for (mode, wanted, then) in
        [(0o755, 0o777, 0o777), (0o2700, 0o755, 0o2755), (0o3777, 0o700, 0o3700), (0o2755, 0o755, 0o2755)]
    {
        chmod(temp.path(), mode);
        dir.set_mode(wanted).unwrap();
        assert_eq!(dir.stat().unwrap().mode, then, "{mode:o} {wanted:o}");
    }
    if is_root() {
        chown(temp.path(), None, Some(USER + 1)).unwrap();
    }
    chmod(temp.path(), 0o2755);
    as_user(|| dir.set_mode(0o755)).unwrap();
    assert_eq!(dir.stat().unwrap().mode, 0o2755, "not even where its owner is not in its group");
}

#[test]
fn what_the_kernel_says_is_told_apart() {
    let told = |source| {
        let error = FsError::new("open", "f", source);
        (error.is_not_found(), error.is_no_directory(), error.is_no_space())
    };
    for errno in [Errno::NOSPC, Errno::DQUOT] {
        assert_eq!(told(errno), (false, false, true), "{errno}");
    }
    for errno in [Errno::NOTDIR, Errno::LOOP] {
        assert_eq!(told(errno), (false, true, false), "{errno}");
    }
    for errno in [Errno::IO, Errno::ACCESS, Errno::ROFS, Errno::FBIG, Errno::XDEV] {
        assert_eq!(told(errno), (false, false, false), "{errno}");
    }
    assert_eq!(told(Errno::NOENT), (true, false, false));
    // A file system that has nothing to sync, and counts no blocks: that is no full disk.
    let proc = Dir::open(Path::new("/proc")).unwrap();
    assert_eq!(proc.sync().unwrap_err().source, Errno::INVAL);
    assert_eq!(proc.free_space().unwrap(), None);
    let temp = tempfile::tempdir().unwrap();
    let free = Dir::open(temp.path()).unwrap().free_space().unwrap().unwrap();
    let stat = rustix::fs::statvfs(temp.path()).unwrap();
    let expected = stat.f_bavail * stat.f_frsize;
    assert!(free.abs_diff(expected) <= expected / 2, "{free} {expected}"); // others write meanwhile
}

#[test]
fn a_lock_file_is_one_process_s_and_nobody_else_s() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, lock) = (Dir::open(temp.path()).unwrap(), OsStr::new("lock"));
    let held = dir.lock_file(lock).unwrap().unwrap();
    assert!(dir.lock_file(lock).unwrap().is_none());
    drop(held);
    assert!(dir.lock_file(lock).unwrap().is_some());
    let at = temp.path().join("lock");
    assert_eq!(fs::metadata(&at).unwrap().permissions().mode() & 0o777, 0o600);
    chmod(&at, 0o644);
    dir.lock_file(lock).unwrap_err();
    symlink("lock", temp.path().join("link")).unwrap();
    dir.lock_file(OsStr::new("link")).unwrap_err();
    let private = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(CWD, temp.path().join("fifo"), FileType::Fifo, private, 0).unwrap();
    assert_eq!(dir.lock_file(OsStr::new("fifo")).unwrap_err().source, Errno::PERM);
}

#[test]
fn p9_a_path_below_a_root_is_written_in_one_way_only() {
    for path in ["a", "a/b", "..a/b..", "a b", "\u{1}", "...", "a/.b"] {
        assert_eq!(RelPath::new(path).map(|path| path.as_bytes().to_vec()), Some(path.into()), "{path}");
    }
    for path in ["", "/", "/a", "a/", "a//b", ".", "./a", "a/.", "a/./b", "..", "../a", "a/..", "a/../b"] {
        assert_eq!(RelPath::new(path), None, "{path}");
    }
}
