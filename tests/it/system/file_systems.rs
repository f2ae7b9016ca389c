//! File systems in user space, and others with less than most: what they lack is done without, or
//! told where somebody can do something about it. Needs bindfs, encfs, mergerfs and /dev/fuse.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use crate::support::check::Found;
use crate::support::control::asked;
use crate::support::daemon::Daemon;
use crate::support::files::{drop_pair, names, sign};
use crate::support::mount::{Mount, private};
use crate::support::place::{PROGRAM, Place};
use crate::support::policy::{SIGN, VERIFY, place, set_policy, with};
use crate::support::trace::{self, Fault, Lacking, Point};

/// A place with these rules for `m/in` and `m/out` on one mount, which `mount` makes of a directory
/// at another.
fn place_on(rules: &str, mount: fn(&Path, &Path) -> Mount) -> (Mount, Place) {
    let place = place(&rules.replace("\"in\"", "\"m/in\"").replace("\"out\"", "\"m/out\""));
    for dir in ["back", "m"] {
        fs::create_dir(place.path(dir)).unwrap();
    }
    let mount = mount(&place.path("back"), &place.path("m"));
    for dir in ["m/in", "m/out"] {
        fs::create_dir(place.path(dir)).unwrap();
    }
    (mount, place)
}

/// Copies a signed pair into a directory, the signature last.
fn bring(place: &Place, dir: &str, name: &str) {
    let (payload, signature) = sign(place, name, "content");
    let to = place.path(dir);
    fs::copy(payload, to.join(name)).unwrap();
    fs::copy(signature, to.join(format!("{name}.sig"))).unwrap();
}

/// Tells who waits for it that a test is over, also by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Links are made there by path, so what is known of a file may be a second old: of one that had
/// two names for a moment, that it has.
fn bindfs(back: &Path, at: &Path) -> Mount {
    Mount::fuse(Command::new("bindfs").args([back, at]), at)
}

/// Names take more room than it says, and a rename cuts the time of the last change to seconds.
fn encfs(back: &Path, at: &Path) -> Mount {
    let script = "echo secret | encfs --standard --stdinpass \"$0\" \"$1\"";
    Mount::fuse(Command::new("sh").args(["-c", script]).args([back, at]), at)
}

/// One mode for everything, whatever is set, as ntfs-3g with umask=022.
fn without_modes(back: &Path, at: &Path) -> Mount {
    Mount::fuse(Command::new("bindfs").args(["--perms=0755", "--chmod-ignore"]).args([back, at]), at)
}

#[test]
fn the_daemons_own_links_refuse_nothing() {
    private();
    let (_mount, place) = place_on(&with(SIGN, "on_stale = \"resign\""), bindfs);
    let daemon = Daemon::start(&place);
    for n in 1..=20 {
        place.write(format!("m/in/{n}"), "content");
    }
    daemon.waits_for_nth("signed", 20);
    for n in 1..=20 {
        place.write(format!("m/in/{n}"), "CONTENT"); // signed anew, which exchanges the signatures
    }
    daemon.waits_for_nth("signed", 40);
    assert_eq!(daemon.count("refused"), 0);
    assert_eq!(asked(&place, "history --json").len(), 40);
}

#[test]
fn a_pair_is_delivered_once_where_a_rename_cuts_the_times() {
    private();
    let (_mount, place) = place_on(VERIFY, encfs);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // A consumer, who takes away what comes.
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let there = names(&place.path("m/out"));
                for name in there.iter().filter(|name| !name.starts_with('.') && !name.ends_with(".sig")) {
                    fs::remove_file(place.path(format!("m/out/{name}"))).ok();
                    fs::remove_file(place.path(format!("m/out/{name}.sig"))).ok();
                }
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        let _over = Over(&is_over);
        let daemon = Daemon::start(&place);
        for n in 1..=5 {
            bring(&place, "m/in", &format!("f{n}"));
        }
        daemon.until("removed", || names(&place.path("m/in")).is_empty());
        daemon.stop();
    });
    assert_eq!(asked(&place, "history --json").len(), 5, "each is delivered once");
}

#[test]
fn a_name_without_room_for_a_signature_is_refused_with_what_there_is_room_for() {
    private();
    let (_mount, place) = place_on(SIGN, encfs);
    let daemon = Daemon::start(&place);
    let longest = (1..=255).rev().find(|&n| {
        let name = place.path("m/in").join("x".repeat(n));
        fs::write(&name, "content").is_ok() && fs::remove_file(name).is_ok()
    });
    let longest = longest.unwrap();
    assert!(longest < 200, "{longest}");
    place.write(format!("m/in/{}", "a".repeat(longest)), "content");
    let told = daemon.waits_for("refused");
    assert_eq!(told["cause"], "name-too-long");
    let reason = told["reason"].as_str().unwrap();
    assert!(reason.contains(&format!("longer than {} bytes", longest - 4)), "{reason}");
    // The same where it would be delivered to.
    daemon.stop();
    let rule = with(VERIFY, "path = \"elsewhere\"").replace("\"out\"", "\"m/out\"");
    fs::create_dir(place.path("elsewhere")).unwrap();
    set_policy(&place, &rule);
    let daemon = Daemon::start(&place);
    for n in [longest - 4, longest - 3] {
        bring(&place, "elsewhere", &"b".repeat(n));
    }
    daemon.waits_for("delivered");
    assert_eq!(daemon.waits_for("refused")["cause"], "name-too-long");
    assert_eq!(daemon.count("held"), 0);
}

#[test]
fn a_file_system_that_counts_no_blocks_is_not_full() {
    private();
    let place = place(VERIFY);
    let mount = Mount::ramfs(&place.path("out"));
    let found = Found::online(&place, 0);
    found.is("verify", "counts no blocks, so limits.min_free_space does not hold there", "note");
    let daemon = Daemon::start(&place);
    drop_pair(&place, "f", "content");
    daemon.waits_for("delivered");
    daemon.stop();
    drop(mount);
}

/// What `check --online` says where a file system lacks something, or some call always fails.
fn check(place: &Place, lacking: Lacking, fault: Option<(Point, Fault)>) -> (Option<i32>, String) {
    let mut command = Command::new(PROGRAM);
    command.args(["check", "--policy", "policy.toml", "--online"]);
    let run = trace::run_on(lacking, place.prepare(command), fault, &[]);
    assert!(!run.is_broken(), "{}", run.shown());
    (run.status.code(), format!("{}{}", run.stdout, run.stderr))
}

#[test]
fn check_tells_where_nothing_can_be_published_and_leaves_nothing() {
    let without = |rename_flags| Lacking { nameless: true, links: Some(Errno::IO), rename_flags };
    for rule in [SIGN, VERIFY] {
        let place = place(rule);
        let (code, said) = check(&place, without(false), None);
        assert_eq!(code, Some(0), "{said}");
        let (code, said) = check(&place, without(true), None);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("neither hard links nor a rename that never replaces"), "{said}");
        for dir in ["in", "out"] {
            assert_eq!(fs::read_dir(place.path(dir)).unwrap().count(), 0, "{dir}");
        }
        assert!(!place.path("state").exists() && !place.path("q").exists());
        let names: Vec<_> =
            place.names().into_iter().filter(|name| name.to_string_lossy().starts_with('.')).collect();
        assert!(names.is_empty(), "{names:?}");
    }
}

#[test]
fn check_tells_of_a_quarantine_and_a_state_that_can_never_work() {
    let place = place(VERIFY);
    for (call, errno, what) in
        [("flock", Errno::NOLCK, "q"), ("fchmod", Errno::PERM, "q"), ("pwrite64", Errno::IO, "state")]
    {
        let (code, said) =
            check(&place, Lacking::default(), Some((Point { call, nth: 1 }, Fault::Always(errno))));
        assert_eq!(code, Some(2), "{call}: {said}");
        assert!(said.contains(&format!("/{what}\" is of no use: ")), "{call}: {said}");
        assert!(!said.contains(".kms-sig-"), "it is gone by now: {said}");
    }
    let (code, said) = check(&place, Lacking::default(), None);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn where_no_modes_are_kept_the_option_is_named_before_anything_is_begun() {
    const OPTIONS: &str = "does not keep modes and owners as they are set; mount it with default_permissions";
    private();
    let (mount, place) = place_on(VERIFY, without_modes);
    set_policy(&place, VERIFY);
    let policy = String::from_utf8(place.read("policy.toml")).unwrap();
    let check = |words: &[&str], code: i32| {
        let run = place.run([&["check", "--policy", "policy.toml"], words].concat()).exits(code);
        String::from_utf8(run.stdout().to_vec()).unwrap()
    };
    for dir in ["q", "state"] {
        let there = format!("m/{dir}");
        place.write("policy.toml", policy.replace(&format!("\"{dir}\""), &format!("\"{there}\"")));
        let said = check(&[], 0);
        assert!(said.contains("was not tried out") && said.contains("--online"), "{dir}: {said}");
        for is_there in [false, true] {
            if is_there {
                fs::create_dir(place.path(&there)).unwrap();
            }
            let before = names(&place.path("back"));
            let said = check(&["--online"], 2);
            assert!(said.contains(OPTIONS) && !said.contains("chmod"), "{dir}: {said}");
            let run = place.run(["watch", "--policy", "policy.toml", "--once"]).exits(2);
            assert!(run.stderr().contains(OPTIONS) && !run.stderr().contains("chmod"), "{}", run.stderr());
            assert_eq!(names(&place.path("back")), before, "{dir}");
            let left = fs::read_dir(place.path(&there)).map_or(0, Iterator::count);
            assert_eq!(left, 0, "{dir}");
        }
    }
    place.write("policy.toml", policy.replace("\"q\"", "\"m/q\""));
    let said = check(&[], 2);
    assert!(said.contains("chmod 700 it, or if that changes nothing, mount its file system with"), "{said}");
    drop(mount);
}

#[test]
fn no_key_is_written_where_others_could_read_it() {
    private();
    let (mount, place) = place_on(SIGN, without_modes);
    let create = || place.run(["key", "create", "local:new", "--keyring", "m/keyring"]).exits(2);
    create().complains_of("would be open to others (mode 0755)").complains_of("mount it with");
    assert_eq!(names(&place.path("back")), ["in", "out"]);
    // One that came there otherwise is told of with what helps.
    fs::copy(place.path("keyring"), place.path("m/keyring")).unwrap();
    place
        .run(["key", "list", "--keyring", "m/keyring"])
        .exits(3)
        .complains_of("or if that changes nothing, mount its file system with");
    drop(mount);
}

#[test]
fn a_rule_is_held_where_no_modes_are_kept_with_a_sentence_that_can_be_read() {
    private();
    for rule in [SIGN, VERIFY] {
        let (mount, place) = place_on(rule, without_modes);
        let said = place.run(["check", "--policy", "policy.toml"]).exits(0);
        let said = String::from_utf8(said.stdout().to_vec()).unwrap();
        assert!(said.contains("was not tried out"), "{said}");
        let daemon = Daemon::start(&place);
        let told = daemon.waits_for("held: the rule cannot work");
        let reason = told["reason"].as_str().unwrap().to_owned();
        let root = place.path("m/in");
        let begins =
            format!("cannot keep others out of a directory in \"{}\" (its file system ", root.display());
        assert!(reason.starts_with(&begins), "{reason}");
        daemon.stop();
        drop(mount);
    }
}

#[test]
fn a_quarantine_on_a_read_only_mount_is_told_with_what_helps_and_code_2() {
    private();
    let place = place(VERIFY);
    fs::create_dir(place.path("ro")).unwrap();
    let _mount = Mount::tmpfs(&place.path("ro"), "ro,mode=0755");
    let policy = String::from_utf8(place.read("policy.toml")).unwrap();
    place.write("policy.toml", policy.replace("\"q\"", "\"ro/q\""));
    let run = place.run(["check", "--policy", "policy.toml"]).exits(2);
    let said = String::from_utf8(run.stdout().to_vec()).unwrap();
    assert!(said.contains("read-only") && said.contains("mount it read-write"), "{said}");
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(2).complains_of("that can be written to");
}

/// With its default policies it makes files where their directory is, and moves them only there.
fn mergerfs(back: &Path, at: &Path) -> Mount {
    for dir in ["a/in/x", "b/in/y"] {
        fs::create_dir_all(back.join(dir)).unwrap();
    }
    let branches = format!("{0}/a:{0}/b", back.display());
    Mount::fuse(Command::new("mergerfs").args(["-o", "minfreespace=0"]).arg(branches).arg(at), at)
}

#[test]
fn check_finds_the_branches_of_a_mergerfs() {
    private();
    let place = place(&with(&VERIFY.replace("\"in\"", "\"m/in\""), "recursive = true"));
    for dir in ["back", "m"] {
        fs::create_dir(place.path(dir)).unwrap();
    }
    let _mount = mergerfs(&place.path("back"), &place.path("m"));
    let run = place.run(["check", "--policy", "policy.toml", "--online"]).exits(2);
    let said = String::from_utf8(run.stdout().to_vec()).unwrap();
    assert!(said.contains("no file can be moved out of") && said.contains("ignorepponrename=true"), "{said}");
    assert!(names(&place.path("m/in")).iter().all(|name| !name.starts_with('.')));
}
