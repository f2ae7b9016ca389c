//! Watched directories below directories of their senders: what may stand above a root, and what
//! happens when a sender swaps it while the daemon opens it. Needs root, to give directories away.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use kms_sig::fs::root;
use kms_sig::fs::trust::{self, TrustError};

use crate::support::mount::{self, Mount};

const SENDER: u32 = 7002;
const GROUP: u32 = 7003;
const STRANGER: u32 = 7004;

/// A directory of root's with `home/out` in it, and the path of `home`.
fn home() -> (tempfile::TempDir, PathBuf) {
    let temp = tempfile::tempdir().unwrap();
    let home = temp.path().join("home");
    fs::create_dir_all(home.join("out")).unwrap();
    for dir in [temp.path(), &home, &home.join("out")] {
        chmod(dir, 0o755);
    }
    (temp, home)
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a26_an_ancestor_may_be_the_senders_own_and_nobody_elses() {
    let (_temp, home) = home();
    let out = home.join("out");
    let is_refused = |whose| matches!(root::open(&out), Err(TrustError::Owner { uid, .. }) if uid == whose);
    chown(&home, Some(SENDER), None).unwrap();
    assert!(is_refused(SENDER), "out is not his");
    chown(&out, Some(SENDER), Some(GROUP)).unwrap();
    root::open(&out).unwrap();
    chown(&out, Some(STRANGER), None).unwrap();
    assert!(is_refused(SENDER));

    chown(&out, Some(SENDER), Some(GROUP)).unwrap();
    chown(&home, Some(SENDER), Some(GROUP)).unwrap();
    chmod(&home, 0o2775);
    let refused = root::open(&out);
    assert!(matches!(refused, Err(TrustError::Writable { .. })), "the group may not write to out");
    chmod(&out, 0o2770);
    root::open(&out).unwrap();

    // A link in the sender's directory, even one that root owns: he can put another in its place.
    symlink("out", home.join("way")).unwrap();
    fs::create_dir(out.join("deep")).unwrap();
    let refused = root::open(&home.join("way/deep"));
    assert!(matches!(refused, Err(TrustError::Owner { uid, .. }) if uid == SENDER), "{refused:?}");
}

#[test]
fn p9_the_root_directory_itself_must_be_safe_from_others() {
    mount::private();
    let temp = tempfile::tempdir().unwrap();
    for (mode, is_safe) in [("0755", true), ("1777", true), ("0777", false), ("0775", false)] {
        let _disk = Mount::tmpfs(temp.path(), &format!("size=1m,mode={mode},gid={GROUP}"));
        fs::create_dir(temp.path().join("out")).unwrap();
        chmod(&temp.path().join("out"), 0o755);
        let checked = std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                mount::private(); // and with it a root directory of this thread's own
                rustix::process::chroot(temp.path()).unwrap();
                trust::check(Path::new("/out"))
            });
            inside.join().unwrap()
        });
        match checked {
            Ok(()) => assert!(is_safe, "{mode}"),
            Err(TrustError::Writable { path, .. }) => assert!(!is_safe && path == Path::new("/"), "{mode}"),
            Err(error) => panic!("{mode}: {error}"),
        }
    }
}

#[test]
fn p9_a_directory_above_a_root_that_is_swapped_for_a_link_leads_nowhere() {
    let (temp, home) = home();
    let secret = temp.path().join("secret");
    fs::create_dir_all(secret.join("in")).unwrap();
    let root = home.join("out/in");
    fs::create_dir(&root).unwrap();
    for dir in [&home, &home.join("out"), &root] {
        chown(dir, Some(SENDER), None).unwrap();
    }
    let watched = fs::metadata(&root).unwrap().ino();
    symlink(&secret, home.join("link")).unwrap();
    let (out, link, aside) = (home.join("out"), home.join("link"), home.join("aside"));
    let is_over = AtomicBool::new(false);
    let (mut opened, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for (from, to) in [(&out, &aside), (&link, &out), (&out, &link), (&aside, &out)] {
                    fs::rename(from, to).unwrap();
                }
            }
        });
        let _ends = Ends(&is_over);
        // Until both were seen often enough, however the threads are scheduled.
        while opened < 500 || refused < 500 {
            match root::open(&root) {
                Ok(dir) => {
                    assert_eq!(dir.stat().unwrap().identity.ino, watched, "it was led astray");
                    opened += 1;
                }
                Err(_) => refused += 1,
            }
        }
    });
}

/// Ends the other thread, however this one ends.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
