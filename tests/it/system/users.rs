//! The daemon and those who send to it as different unprivileged users, because that is how it will
//! be used.

use std::fs::{self, File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;

use crate::support::files::all_names;
use crate::support::place::PROGRAM;
use crate::support::policy::{SIGN, VERIFY, place, with};
use crate::support::site::{Leases, Site, quick, write};
use crate::support::user::{DAEMON, OTHER, SENDER, User};

#[test]
fn other_users_pairs_are_delivered_with_and_without_leases() {
    for (leases, told) in [(Leases::Granted, "granted"), (Leases::Unavailable, "unavailable")] {
        let site = Site::new(&quick());
        let daemon = site.start(leases);
        let status = fs::read_to_string(format!("/proc/{}/status", daemon.pid())).unwrap();
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
        let only_leases = 1_u64 << 28; // CAP_LEASE, linux/capability.h
        let expected = if leases == Leases::Granted { only_leases } else { 0 };
        assert_eq!(u64::from_str_radix(effective, 16).unwrap(), expected);

        let signature = site.sign("good".as_ref(), b"content");
        SENDER.run(|| {
            for (name, bytes) in [("good", &b"content"[..]), ("good.sig", &signature), ("bad", b"other")] {
                write(&site.path("in").join(name), bytes);
            }
            write(&site.path("in/bad.sig"), &signature);
        });
        daemon.waits_for("delivered");
        for name in ["out/good", "out/good.sig"] {
            let there = fs::metadata(site.path(name)).unwrap();
            assert_eq!((there.uid(), there.mode() & 0o7777), (DAEMON.id, 0o644), "{name}");
        }
        let item = daemon.waits_for("quarantined")["item"].as_str().unwrap().to_owned();
        let record = String::from_utf8(site.place.read(format!("q/{item}/record.json"))).unwrap();
        assert!(record.contains(&format!("\"lease\": \"{told}\"")), "{record}");
        assert!(record.contains("\"uid\": 7002"), "{record}");
        site.is_out_of_reach();
    }
}

/// Who may ask cannot keep the daemon from answering its owner, or others who may.
#[test]
fn a_crowd_of_one_user_at_the_socket_keeps_nobody_else_away() {
    let site = Site::new(&quick());
    let daemon = site.start(Leases::Granted);
    {
        let dir = "state";
        chown(site.path(dir), Some(DAEMON.id), Some(7003)).unwrap();
        fs::set_permissions(site.path(dir), Permissions::from_mode(0o750)).unwrap();
    }
    let socket = site.path("state/control.sock");
    chown(&socket, Some(DAEMON.id), Some(7003)).unwrap();
    let crowd: Vec<_> = SENDER.run(|| {
        (0..200).map(|_| std::os::unix::net::UnixStream::connect(&socket)).filter_map(Result::ok).collect()
    });
    assert_eq!(crowd.len(), 200);
    site.place.run(["status", "--policy", "policy.toml"]).exits(0);
    drop(crowd);
    daemon.until("the crowd has gone", || site.place.run(["status", "--policy", "policy.toml"]).succeeds());
}

#[test]
fn what_is_delivered_has_the_group_of_where_it_lies_and_directories_are_for_everyone() {
    let site = Site::new(&with(&quick(), "recursive = true"));
    // Groups that the daemon is in, and one that it is not in.
    let set_gid = |name: &str, group: u32| {
        fs::create_dir(site.path(name)).unwrap_or_default();
        chown(site.path(name), Some(DAEMON.id), Some(group)).unwrap();
        fs::set_permissions(site.path(name), Permissions::from_mode(0o2755)).unwrap();
    };
    set_gid("out", 7003);
    set_gid("out/team", 7005);
    set_gid("out/strangers", 4242);
    let daemon = site.start(Leases::Granted);
    for (below, group) in
        [("", 7003), ("team", 7005), ("team/new/deep", 7005), ("new", 7003), ("strangers", 4242)]
    {
        let signature = site.sign("f".as_ref(), b"content");
        SENDER.run(|| {
            let dir = site.path("in").join(below);
            fs::create_dir_all(&dir).unwrap();
            for dir in dir.ancestors().take_while(|dir| *dir != site.path("in")) {
                fs::set_permissions(dir, Permissions::from_mode(0o2770)).unwrap_or_default();
            }
            write(&dir.join("f"), b"content");
            write(&dir.join("f.sig"), &signature);
        });
        let out = site.path("out").join(below);
        daemon.until("delivered", || out.join("f").exists());
        for name in ["f", "f.sig"] {
            let there = fs::metadata(out.join(name)).unwrap();
            assert_eq!(
                (there.uid(), there.gid(), there.mode() & 0o7777),
                (DAEMON.id, group, 0o644),
                "{below}"
            );
        }
    }
    for (dir, group) in [("out/new", 7003), ("out/team/new", 7005), ("out/team/new/deep", 7005)] {
        let there = fs::metadata(site.path(dir)).unwrap();
        assert_eq!((there.gid(), there.mode() & 0o777), (group, 0o755), "{dir}");
    }
}

#[test]
fn a26_a_sticky_directory_that_files_could_not_be_moved_out_of_holds_its_rule() {
    let site = Site::new(&quick());
    let chmod = |bits| fs::set_permissions(site.path("in"), Permissions::from_mode(bits)).unwrap();
    chmod(0o3770);
    let daemon = site.start(Leases::Granted);
    let reason = daemon.waits_for("held: the rule cannot work")["reason"].to_string();
    assert!(reason.contains("is sticky and belongs to user 7002"), "{reason}");
    chmod(0o2770);
    daemon.waits_for("the directories are there again");
}

/// `in` as everybody's: sticky and the daemon's, so that it may move out of it what is there.
fn make_sticky(site: &Site) {
    chown(site.path("in"), Some(DAEMON.id), Some(7003)).unwrap();
    fs::set_permissions(site.path("in"), Permissions::from_mode(0o3777)).unwrap();
}

#[test]
fn p2_who_spoils_anothers_pair_in_a_sticky_folder_has_it_held_and_not_quarantined() {
    let log = || with(&quick(), "on_invalid = \"log\"");
    for rule in [quick(), log()] {
        let site = Site::new(&rule);
        make_sticky(&site);
        let daemon = site.start(Leases::Granted);
        // Junk under the names of the signatures that are to come.
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
        OTHER.run(|| {
            for name in names {
                write(&site.path(format!("in/{name}.sig")), b"junk");
            }
        });
        SENDER.run(|| {
            for name in names {
                write(&site.path("in").join(name), name.as_bytes());
                fs::remove_file(site.path(format!("in/{name}.sig"))).unwrap_err(); // he cannot help himself
            }
        });
        assert_eq!(daemon.waits_for("held")["cause"], "mixed-owners"); // each cause is told once
        let run = DAEMON.run(|| site.place.run(["explain", "--policy", "policy.toml", "in/a"]).exits(0));
        let told = String::from_utf8_lossy(run.stdout()).into_owned();
        assert!(told.contains("held (mixed-owners)"), "{told}");
        let quarantined = daemon.count("quarantined") + daemon.count("invalid");
        assert_eq!(quarantined, 0);

        // What is valid is delivered, whoever brought which part of it.
        let signature = site.sign("mixed".as_ref(), b"content");
        OTHER.run(|| write(&site.path("in/mixed.sig"), &signature));
        SENDER.run(|| write(&site.path("in/mixed"), b"content"));
        daemon.until("delivered", || site.path("out/mixed").exists());
        // The hold ends with its cause.
        let signature = site.sign("a".as_ref(), b"a");
        OTHER.run(|| fs::remove_file(site.path("in/a.sig")).unwrap());
        SENDER.run(|| write(&site.path("in/a.sig"), &signature));
        daemon.until("delivered", || site.path("out/a").exists());
        // A user's own bad pair is his, and no brake is on; those that are held came before.
        for n in 1..=3 {
            SENDER.run(|| {
                write(&site.path(format!("in/own{n}")), b"content");
                write(&site.path(format!("in/own{n}.sig")), b"junk");
            });
            daemon.until("judged", || daemon.count("quarantined") + daemon.count("invalid") == n);
        }
        for name in &names[1..] {
            assert!(site.path("in").join(name).exists(), "{name}");
            assert!(site.path(format!("in/{name}.sig")).exists(), "{name}");
        }
        assert_eq!(daemon.count("held"), 1);
    }
}

#[test]
fn p2_a_file_whose_signature_another_user_keeps_from_coming_is_held_and_not_missing() {
    let site = Site::new(&with(&quick(), "signature_timeout = \"50ms\""));
    make_sticky(&site);
    let daemon = site.start(Leases::Granted);
    OTHER.run(|| {
        fs::create_dir(site.path("in/dir.sig")).unwrap();
        symlink("nowhere", site.path("in/link.sig")).unwrap();
    });
    SENDER.run(|| ["dir", "link"].map(|name| write(&site.path("in").join(name), b"content")));
    let held = daemon.waits_for("held");
    assert_eq!(held["cause"], "mixed-owners");
    assert!(held["reason"].to_string().contains("missing"), "{held}");
    let run =
        DAEMON.run(|| site.place.run(["explain", "--policy", "policy.toml", "in/dir", "--json"]).exits(0));
    let told = String::from_utf8_lossy(run.stdout()).into_owned();
    assert!(told.contains("held (mixed-owners)") && told.contains("\"holds\""), "{told}");
    // Those without anything in their signature's way came later, and are judged.
    for n in 1..=3 {
        SENDER.run(|| write(&site.path(format!("in/alone{n}")), b"content"));
        assert_eq!(daemon.waits_for_nth("quarantined", n)["reason"], "missing");
    }
    assert!(site.path("in/dir").exists() && site.path("in/link").exists());
    assert_eq!(daemon.count("quarantined"), 3);
}

#[test]
fn p2_a_signature_is_held_with_what_another_put_under_its_payloads_name() {
    let site = Site::new(&quick());
    make_sticky(&site);
    let daemon = site.start(Leases::Granted);
    let signature = site.sign("a".as_ref(), b"content");
    OTHER.run(|| write(&site.path("in/a"), b"junk"));
    SENDER.run(|| write(&site.path("in/a.sig"), &signature));
    let held = daemon.waits_for("held");
    assert_eq!(held["cause"], "mixed-owners");
    assert!(held["reason"].to_string().contains("mismatch"), "{held}");
    assert!(held["hint"].to_string().contains("remove the other"), "{held}");
    assert!(site.path("in/a").exists() && site.path("in/a.sig").exists());
}

#[test]
fn p9_a_link_that_another_user_planted_for_a_signature_is_not_followed() {
    let site = Site::new(&quick());
    fs::write(site.path("precious"), "").unwrap();
    // Root's own, so that nothing but the rule keeps it from being replaced.
    let precious = site.sign("f".as_ref(), b"older");
    fs::write(site.path("precious"), &precious).unwrap();
    SENDER.run(|| {
        write(&site.path("in/f"), b"content");
        symlink("../precious", site.path("in/f.sig")).unwrap();
        symlink("/dev/null", site.path("in/device.sig")).unwrap();
    });
    let told = format!("is a symbolic link of user {}, who could have it lead anywhere", SENDER.id);
    for mode in [0o2770, 0o3777] {
        fs::set_permissions(site.path("in"), Permissions::from_mode(mode)).unwrap();
        for words in [&["in/f"][..], &["in/f", "in/device.sig"], &["in/f", "--force"]] {
            let words = [&["sign", "local:gone"][..], words].concat();
            site.place.run(words).exits(2).complains_of("kms-sig: \"in/").complains_of(&told);
        }
    }
    assert_eq!(site.place.read("precious"), precious);
    // Root's own link, in root's own folder, leads where it did.
    symlink("precious", site.path("mine.sig")).unwrap();
    site.place.run(["sign", "local:demo", "--keyring", "keyring-of-the-test", "in/f", "mine.sig"]).exits(0);
    assert_ne!(site.place.read("precious"), precious);
}

/// Where the daemon may write and the sender may not: a link there would have the daemon write for
/// him.
#[test]
fn a3_nothing_is_written_through_a_link_that_has_the_signatures_name() {
    let site = Site::new(&with(crate::support::policy::SIGN, "settle = \"1ms\""));
    SENDER.run(|| {
        for (name, to) in [("a", "../state/planted"), ("b", "../out/planted"), ("c", "c")] {
            symlink(to, site.path(format!("in/{name}.sig"))).unwrap();
            write(&site.path("in").join(name), b"content");
        }
    });
    let daemon = site.start(Leases::Granted);
    daemon.waits_for_nth("refused", 3);
    SENDER.run(|| write(&site.path("in/d"), b"content"));
    daemon.waits_for("signed");
    for name in ["a", "b", "c"] {
        assert!(fs::symlink_metadata(site.path(format!("in/{name}.sig"))).unwrap().is_symlink(), "{name}");
    }
    assert!(!site.path("state/planted").exists() && !site.path("out/planted").exists());
}

/// `fs.protected_symlinks`, on as systemd has it, until the end of a test.
struct Protected(Vec<u8>);

impl Protected {
    const SETTING: &str = "/proc/sys/fs/protected_symlinks";

    fn new() -> Self {
        let before = fs::read(Self::SETTING).unwrap();
        fs::write(Self::SETTING, "1").unwrap();
        Self(before)
    }
}

impl Drop for Protected {
    fn drop(&mut self) {
        fs::write(Self::SETTING, &self.0).ok();
    }
}

/// The kernel follows no link that another user put into a directory like `/tmp`, and neither may
/// we by reading it.
#[test]
fn a3_a_signature_is_not_written_through_a_link_that_another_user_planted() {
    let _protected = Protected::new();
    let place = place(VERIFY);
    let (shared, precious) = (place.path("shared"), place.path("precious"));
    fs::create_dir(&shared).unwrap();
    for (dir, mode) in [(place.path(""), 0o755), (shared.clone(), 0o1777)] {
        fs::set_permissions(dir, Permissions::from_mode(mode)).unwrap();
    }
    fs::write(&precious, "precious").unwrap();
    place.write("f", "content");
    let planted = shared.join("f.sig");
    let sign = || place.run(["sign", "local:demo", "f", "shared/f.sig"]);
    SENDER.run(|| symlink(&precious, &planted).unwrap());
    let link =
        format!("\"shared/f.sig\" is a symbolic link of user {}, who could have it lead anywhere", SENDER.id);
    sign().exits(2).complains_of(&link);
    assert_eq!(fs::read(&precious).unwrap(), b"precious");
    fs::remove_file(&planted).unwrap();
    symlink(&precious, &planted).unwrap(); // root's own is another matter
    sign().exits(2).complains_of("\"shared/f.sig\"");
    assert_eq!(fs::read(&precious).unwrap(), b"precious", "no signature");
    fs::write(&precious, "").unwrap();
    sign().exits(0);
    assert_ne!(fs::read(&precious).unwrap(), b"");
}

#[test]
fn a28_files_of_owners_who_are_not_allowed_are_refused_and_told() {
    let site = Site::new(&with(&quick(), "allowed_owners = [7002]"));
    let daemon = site.start(Leases::Granted);
    let drop_pair = |name: &str| {
        let signature = site.sign(name.as_ref(), b"content");
        write(&site.path("in").join(name), b"content");
        write(&site.path("in").join(format!("{name}.sig")), &signature);
    };
    // Renamed into place by root, with its owner already: no other user can put anything there.
    let signature = site.sign("theirs".as_ref(), b"content");
    for (name, content) in [("theirs", &b"content"[..]), ("theirs.sig", &signature)] {
        let made = site.path(name);
        write(&made, content);
        chown(&made, Some(OTHER.id), Some(7003)).unwrap();
        fs::rename(made, site.path("in").join(name)).unwrap();
    }
    let reason = daemon.waits_for("refused")["reason"].to_string();
    assert!(reason.contains("it belongs to user 7004, who is not among allowed_owners"), "{reason}");
    SENDER.run(|| drop_pair("his"));
    daemon.until("delivered", || site.path("out/his").exists() && !site.path("in/his").exists());
    assert!(!site.path("out/theirs").exists() && site.path("in/theirs").exists());
}

/// What is released into a folder whose files stay there is the daemon's, and is judged all the
/// same.
#[test]
fn a28_what_is_released_into_a_folder_is_of_an_allowed_owner() {
    let rule: String =
        quick().lines().filter(|l| !l.starts_with("deliver_to")).map(|l| format!("{l}\n")).collect();
    let rule = with(&with(&rule, "in_place = true"), "allowed_owners = [7002]");
    let site = Site::new(&rule);
    let daemon = site.start(Leases::Granted);
    SENDER.run(|| {
        write(&site.path("in/f"), b"content");
        write(&site.path("in/f.sig"), b"nonsense");
    });
    daemon.waits_for("quarantined");
    let id = crate::support::quarantine::ids(&site.place).remove(0);
    crate::support::quarantine::run(&site.place, &["release", &id, "--force"]).exits(0);
    daemon.waits_for_nth("quarantined", 2);
    assert_eq!(daemon.count("refused"), 0);
}

#[test]
fn a26_what_a_sender_could_write_to_is_refused() {
    for (path, bits) in [("out", 0o777), ("state", 0o770), ("in", 0o777)] {
        let site = Site::new(&quick());
        fs::set_permissions(site.path(path), Permissions::from_mode(bits)).unwrap();
        chown(site.path(path), None, Some(7003)).unwrap();
        let run = DAEMON.run(|| {
            let mut command = Command::new(PROGRAM);
            command.args(["watch", "--policy", "policy.toml", "--once"]);
            site.place.prepare(command).output().unwrap()
        });
        let said = String::from_utf8(run.stderr).unwrap();
        assert!(said.contains("can be written by"), "{path}: {said}");
        assert!(matches!(run.status.code(), Some(2 | 3)), "{path}: {}", run.status);
    }
}

/// A process of a user that has a lock on a directory (flock(2)).
struct Holder(std::process::Child);

impl Holder {
    fn of(user: User, dir: &Path, kind: &str) -> Self {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={}", user.id), format!("--regid={}", user.id)]);
        command.arg(format!(
            "--groups={}",
            user.groups.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
        ));
        command.args(["flock", "--nonblock", "--no-fork", kind]).arg(dir).args([
            "sh",
            "-c",
            "echo has it; exec sleep 600",
        ]);
        let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let stdout = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut said).unwrap();
        assert_eq!(said, "has it\n", "no lock on {}", dir.display());
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A sender may lock whatever it can open, for as long as it likes (flock(2)).
#[test]
fn a33_a_lock_that_others_hold_keeps_no_rule_and_no_daemon_from_its_work() {
    for kind in ["--shared", "--exclusive"] {
        let site = Site::new(&quick());
        fs::set_permissions(site.path("state"), Permissions::from_mode(0o755)).unwrap();
        let held = [Holder::of(SENDER, &site.path("in"), kind), Holder::of(OTHER, &site.path("state"), kind)];
        let daemon = site.start(Leases::Granted);
        let told =
            "a process of another user has the lock on the watched directory; working there without it";
        let told = daemon.waits_for(told);
        assert_eq!((told["uid"].as_u64(), told["rule"].as_str()), (Some(7002), Some("verify")), "{told}");
        for name in ["good", "better"] {
            let signature = site.sign(name.as_ref(), b"content");
            SENDER.run(|| {
                write(&site.path("in").join(name), b"content");
                write(&site.path("in").join(format!("{name}.sig")), &signature);
            });
            let is_there = |dir: &str| site.path(dir).join(name).exists();
            daemon.until("delivered", || is_there("out") && !is_there("in"));
        }
        drop(held);
        // Once nobody else has it the daemon takes it, at its next scan.
        daemon.until("has the lock", || {
            daemon.hang_up();
            std::thread::sleep(std::time::Duration::from_millis(100)); // the time of a scan
            let dir = File::open(site.path("in")).unwrap();
            rustix::fs::flock(&dir, rustix::fs::FlockOperation::NonBlockingLockShared).is_err()
        });
        // What is locked of state is out of their reach.
        for user in [SENDER, OTHER] {
            user.run(|| {
                let denied = File::open(site.path("state/lock")).unwrap_err();
                assert_eq!(denied.kind(), ErrorKind::PermissionDenied);
            });
        }
    }
}

/// `rsync --delete` of a sender removed the lock file that earlier versions had in the folder.
#[test]
fn a33_a_second_daemon_is_kept_out_whatever_a_sender_removes() {
    let site = Site::new(&quick());
    let daemon = site.start(Leases::Granted);
    SENDER.run(|| {
        for entry in fs::read_dir(site.path("in")).unwrap() {
            fs::remove_dir_all(entry.unwrap().path()).unwrap();
        }
    });
    let policy = String::from_utf8(site.place.read("policy.toml")).unwrap();
    site.place.write("other.toml", policy.replace("\"state\"", "\"state2\"").replace("\"q\"", "\"q2\""));
    for dir in ["state2", "q2"] {
        fs::create_dir(site.path(dir)).unwrap();
        chown(site.path(dir), Some(DAEMON.id), Some(DAEMON.id)).unwrap();
        fs::set_permissions(site.path(dir), Permissions::from_mode(0o700)).unwrap();
    }
    let second = || {
        DAEMON.run(|| {
            let mut command = Command::new(PROGRAM);
            command.args(["watch", "--policy", "other.toml", "--once"]);
            let run = site.place.prepare(command).output().unwrap();
            (run.status.code(), String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned())
        })
    };
    let (code, said) = second();
    let told =
        format!("another process (pid {}) is watching \"{}\"", daemon.pid(), site.path("in").display());
    assert!(code == Some(3) && said.contains(&told), "{code:?}: {said}");
    assert_eq!(daemon.stop().code(), Some(0));
    let (code, said) = second();
    assert_eq!(code, Some(0), "{said}");
}

/// Tools of other users that walk an idle folder.
#[test]
fn a34_an_idle_folder_has_nothing_in_it_that_others_cannot_read() {
    let verify = with(&quick(), "recursive = true");
    let sign = with(&with(SIGN, "settle = \"1ms\""), "path = \"in2\"");
    let site = Site::new(&format!("{verify}{sign}"));
    let daemon = site.start(Leases::Granted);
    let signature = site.sign("f".as_ref(), b"content");
    SENDER.run(|| {
        write(&site.path("in/f"), b"content");
        write(&site.path("in/f.sig"), &signature);
        write(&site.path("in/g"), b"content");
        write(&site.path("in/g.sig"), b"nonsense");
    });
    OTHER.run(|| write(&site.path("in2/f"), b"content"));
    daemon.waits_for("delivered");
    daemon.waits_for("quarantined");
    daemon.waits_for("signed");
    daemon.until("is idle", || all_names(&site.path("in")).is_empty());
    assert_eq!(all_names(&site.path("in2")), ["f", "f.sig"]);
    fs::create_dir(site.path("copies")).unwrap();
    fs::set_permissions(site.path("copies"), Permissions::from_mode(0o777)).unwrap();
    for (user, dir) in [(SENDER, "in"), (OTHER, "in2")] {
        for (number, walk) in [
            "cp -r $0 $1",
            "tar cf $1 -C $0 .",
            "find $0 -type f >$1",
            "rsync -a $0/ $1/",
            "mkdir $1 && rsync -a --delete $1/ $0/",
        ]
        .iter()
        .enumerate()
        {
            user.run(|| {
                let to = site.path(format!("copies/{dir}-{number}"));
                let mut command = Command::new("sh");
                command.args(["-c", walk]).arg(site.path(dir)).arg(to);
                let run = command.output().unwrap();
                let said = String::from_utf8_lossy(&run.stderr).into_owned();
                assert!(run.status.success() && said.is_empty(), "{walk}: {said}");
            });
        }
    }
    assert_eq!(daemon.stop().code(), Some(0));
}

/// A ConfigMap of Kubernetes is a directory that everybody may write to, mounted read-only.
#[test]
fn p7_what_is_mounted_read_only_from_elsewhere_is_nobodys_to_write() {
    let place = place(SIGN);
    fs::create_dir(place.path("disk")).unwrap();
    fs::create_dir(place.path("etc")).unwrap();
    let text = String::from_utf8(place.read("policy.toml")).unwrap();
    let absolute = |name: &str| format!("\"{}\"", place.path(name).display());
    let text = ["keyring", "state", "q", "in"]
        .into_iter()
        .fold(text, |text, name| text.replace(&format!("= \"{name}\""), &format!("= {}", absolute(name))));
    place.write("policy.toml", text);
    // A disk of its own, where everybody may write to a directory.
    let disk =
        "mount -t tmpfs none disk && mkdir disk/map && chmod 0777 disk/map && cp policy.toml disk/map/";
    let bind = |from: &str, at: &str| format!("mount --bind {from} {at}");
    let read_only = |at: &str| format!("mount -o remount,bind,ro {at}");
    let refused = |path: &str| format!("{path}\" can be written by others (mode 0777)");
    for (mounts, policy, exit, said) in [
        (vec![bind("disk/map", "etc"), read_only("etc")], "etc/policy.toml", 0, "1 signed".to_owned()),
        (vec![bind("disk/map", "etc")], "etc/policy.toml", 2, refused("etc")),
        // As sandboxes do it, outside of which the same directory is everybody's: ReadOnlyPaths=,
        // of a directory of a disk, ...
        (
            vec![bind("disk/map", "disk/map"), read_only("disk/map")],
            "disk/map/policy.toml",
            2,
            refused("map"),
        ),
        // ... ProtectSystem=strict, ...
        (
            vec!["mount --make-shared disk".to_owned(), read_only("disk")],
            "disk/map/policy.toml",
            2,
            refused("map"),
        ),
        // ... and BindReadOnlyPaths=.
        (
            vec!["mount --make-shared disk".to_owned(), bind("disk/map", "etc"), read_only("etc")],
            "etc/policy.toml",
            2,
            refused("etc"),
        ),
    ] {
        place.write("in/f", "content");
        let script =
            format!("{disk} && {} && exec {PROGRAM} watch --policy {policy} --once", mounts.join(" && "));
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", &script]);
        let run = place.prepare(command).output().unwrap();
        let all = String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned();
        assert_eq!(run.status.code(), Some(exit), "{mounts:?}: {all}");
        assert!(all.contains(&said), "{mounts:?}: {all}");
    }
}
