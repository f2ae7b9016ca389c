//! `kms-sig check` as JSON, and `--online` for what needs no KMS: local keys, the host, and the
//! directories, as whoever the daemon is.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::check::Found;
use crate::support::doorbell::Doorbell;
use crate::support::place::{PROGRAM, Place};
use crate::support::policy::{SIGN, VERIFY, place, set_policy, with};

/// Runs the check as a user without any capability, who owns everything in the place but `theirs`.
fn as_plain_user(place: &Place, theirs: &[&str]) -> Output {
    plainly(place, &["check", "--policy", "policy.toml", "--online", "--json"], theirs)
}

fn plainly(place: &Place, words: &[&str], theirs: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(words);
    let mut command = place.prepare(command);
    if rustix::process::geteuid().is_root() {
        give(&place.path(""), 7001);
        for name in theirs {
            give(&place.path(name), 7002);
        }
        command.uid(7001).gid(7001);
    }
    command.output().unwrap()
}

fn give(path: &Path, user: u32) {
    chown(path, Some(user), Some(user)).unwrap();
    if path.is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| give(&entry.unwrap().path(), user));
    }
}

fn names(place: &Place) -> Vec<String> {
    ["", "in", "out", "q", "state"]
        .iter()
        .filter_map(|dir| fs::read_dir(place.path(dir)).ok())
        .flat_map(|dir| dir.map(|entry| format!("{:?}", entry.unwrap().path())))
        .collect()
}

#[test]
fn a_good_policy_with_local_keys_is_well_and_nothing_is_left_behind() {
    let place = place(&format!("{VERIFY}{}", with(&with(SIGN, "path = \"rel\""), "create = true")));
    fs::create_dir(place.path("rel")).unwrap();
    place.write("in/f", "content");
    let before = names(&place);
    let found = Found::online(&place, 0);
    for (part, text) in [
        ("policy", "nobody else can change what it names"),
        ("policy", "state\" will be made"),
        ("sign", "local:demo is in the keyring"),
        ("sign", "0 files stand to be signed"),
        ("verify", "1 file stands to be judged"),
        ("verify", "events"),
        ("verify", "open for writing"),
        ("verify", "the directory can be written to"),
        ("verify", "copies"),
        ("verify", "will be made"),
        ("host", "4 of "),
        ("host", "2 of "),
        ("host", "open files"),
    ] {
        let (level, _) = found.says(part, text);
        assert!(["fine", "note"].contains(&level.as_str()), "{part}: {text}: {level}");
    }
    found.is("host", "no key is in AWS", "note");
    assert_eq!(names(&place), before);
    let words = place.run(["check", "--policy", "policy.toml", "--online"]).exits(0).complains("");
    let words = String::from_utf8(words.stdout().to_vec()).unwrap();
    let path = place.path("policy.toml").display().to_string();
    assert!(words.starts_with(&format!("policy \"{path}\"\n  fine     nobody else")), "{words}");
    assert!(words.contains("\n  fine     local:demo is in the keyring\n"), "{words}");
    assert!(words.ends_with(&format!("\"{path}\": all is well\n")), "{words}");
}

#[test]
fn a_key_that_is_not_in_the_keyring_is_told_with_code_2() {
    let place = place(&with(VERIFY, "trusted_keys = [\"local:demo\", \"local:lost\"]"));
    let found = Found::online(&place, 2);
    found.is("verify", "local:demo is in the keyring", "fine");
    let (level, to_do) = found.says("verify", "the keyring has no key local:lost");
    assert_eq!(level, "fix");
    assert!(to_do.contains("kms-sig key create"), "{to_do}");
    fs::remove_file(place.path("keyring")).unwrap();
    Found::online(&place, 2).is("verify", "cannot read keyring", "fix");
    // A sign rule that makes what is missing makes that as well, for all.
    set_policy(&place, &format!("{}{}", with(&with(SIGN, "path = \"new\""), "create = true"), VERIFY));
    let found = Found::online(&place, 0);
    found.is("sign", "local:demo will be made", "fine");
    found.is("verify", "local:demo will be made", "fine");
}

#[test]
fn what_somebody_must_change_is_told_with_code_2() {
    let place = place(&format!("limits.min_free_space = \"1EiB\"\n{VERIFY}"));
    let (level, to_do) = Found::online(&place, 2).says("verify", "less than limits.min_free_space");
    assert_eq!((level.as_str(), to_do.as_str()), ("fix", "make room, or lower limits.min_free_space"));
    set_policy(&place, VERIFY);
    place.write("in/.kms-sig", "in the way");
    Found::online(&place, 0).is("verify", "has its name .kms-sig there", "note");
    fs::remove_file(place.path("in/.kms-sig")).unwrap();
    fs::set_permissions(place.path("keyring"), Permissions::from_mode(0o666)).unwrap();
    Found::online(&place, 2).is("policy", "not trusted", "fix");
    fs::set_permissions(place.path("keyring"), Permissions::from_mode(0o600)).unwrap();
    fs::remove_dir(place.path("out")).unwrap();
    let (level, to_do) = Found::online(&place, 2).says("verify", "does not exist");
    assert_eq!((level.as_str(), to_do.as_str()), ("fix", "make it, or write create = true"));
    set_policy(&place, &with(VERIFY, "create = true"));
    Found::online(&place, 0).is("verify", "will be made", "fine");
}

#[test]
fn state_that_cannot_be_read_is_told_with_code_3() {
    let place = place(SIGN);
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0);
    let db = rusqlite::Connection::open(place.path("state/state.db")).unwrap();
    db.execute_batch("PRAGMA user_version = 99").unwrap();
    db.close().unwrap();
    Found::online(&place, 3).is("policy", "has version 99", "unknown");
}

#[test]
fn a_user_without_capabilities_learns_what_it_may_not_do() {
    let place = place(VERIFY);
    place.write("in/f", "content");
    let output = as_plain_user(&place, &["in/f"]);
    Found::read(&output.stdout, 0).is("verify", "the kernel tells who has a file open for writing", "fine");
    fs::set_permissions(place.path("in"), Permissions::from_mode(0o1777)).unwrap();
    let output = as_plain_user(&place, &["in/f"]);
    let found = Found::read(&output.stdout, 0);
    let (level, to_do) = found.says("verify", "of the daemon's own files only");
    assert_eq!(level, "note");
    assert!(to_do.contains("CAP_LEASE"), "{to_do}");
    found.is("verify", "wait for a grace of 100ms", "note");
    for dir in ["in", "out"] {
        fs::set_permissions(place.path(dir), Permissions::from_mode(0o555)).unwrap();
    }
    let output = as_plain_user(&place, &["in/f"]);
    let found = Found::read(&output.stdout, 2);
    for dir in ["in", "out"] {
        let text = format!("cannot write to \"{}\": permission denied", place.path(dir).display());
        let (level, to_do) = found.says("verify", &text);
        assert_eq!((level.as_str(), to_do.as_str()), ("fix", "let the daemon's user write there"));
    }
    fs::set_permissions(place.path("in"), Permissions::from_mode(0o000)).unwrap();
    let output = as_plain_user(&place, &[]);
    Found::read(&output.stdout, 3).is("verify", "permission denied", "unknown");
    fs::set_permissions(place.path("in"), Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn without_online_it_is_told_all_the_same_what_a_user_may_not_do() {
    let place = place(VERIFY);
    let mut policy = String::from_utf8(place.read("policy.toml")).unwrap();
    policy = policy.replace("\"q\"", "\"closed/q\"");
    place.write("policy.toml", policy);
    fs::create_dir(place.path("closed")).unwrap();
    let said = |spoilt: &str, mode, code| {
        fs::set_permissions(place.path(spoilt), Permissions::from_mode(mode)).unwrap();
        let output = plainly(&place, &["check", "--policy", "policy.toml"], &[]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        fs::set_permissions(place.path(spoilt), Permissions::from_mode(0o755)).unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        said.lines().map(|line| line.replace(place.path("").to_str().unwrap(), "")).collect::<Vec<_>>()
    };
    assert_eq!(said("in", 0o755, 0).last().unwrap(), "\"policy.toml\": 1 rule, no fault");
    let cannot_work = "\"policy.toml\": 1 rule, 1 rule cannot work before that is changed";
    let to_do = "  to do: let the daemon's user write there";
    for dir in ["in", "out"] {
        let cannot_write = format!("verify: fix: cannot write to \"{dir}\": permission denied");
        assert_eq!(said(dir, 0o555, 2)[1..], [cannot_write.as_str(), to_do, cannot_work]);
    }
    assert_eq!(
        said("in", 0o000, 3),
        [
            "verify: held: cannot open directory \"in\": permission denied",
            "  to do: run this as the daemon's user, who must be able to read it",
            "\"policy.toml\": 1 rule, 1 could not be told",
        ]
    );
    assert_eq!(
        said("closed", 0o555, 2)[0],
        "fix: \"closed/q\" cannot be made: cannot write to \"closed\": permission denied"
    );
}

#[test]
fn without_online_nobody_is_asked_and_json_says_what_words_do() {
    let mut place = place(&with(SIGN, "key = \"alias/any\""));
    let bell = Doorbell::at(&mut place);
    place.write("in/f", "content");
    let run = place.run(["check", "--policy", "policy.toml", "--json"]).exits(0).complains("");
    let found = Found::read(run.stdout(), 0);
    found.is("sign", "1 file stands to be signed", "fine");
    assert_eq!(found.0["online"], false);
    bell.is_untouched();
    fs::remove_dir_all(place.path("in")).unwrap();
    let run = place.run(["check", "--policy", "policy.toml", "--json"]).exits(0);
    Found::read(run.stdout(), 0).is("sign", "held: ", "note");
    place.write("in", "no directory");
    let run = place.run(["check", "--policy", "policy.toml", "--json"]).exits(2);
    Found::read(run.stdout(), 2).is("sign", "held: ", "fix");
    let run = place.run(["check", "--policy", "policy.toml", "--json", "--reload"]).exits(0);
    Found::read(run.stdout(), 0).is("sign", "held: ", "fix");
    set_policy(&place, &with(SIGN, "colour = \"red\""));
    let run = place.run(["check", "--policy", "policy.toml", "--json"]).exits(2).complains("");
    let faults = Found::read(run.stdout(), 2);
    assert!(faults.0["faults"][0]["message"].as_str().unwrap().contains("colour"), "{}", faults.0);
}

/// `current/policy.toml` by a link that is switched, and a ConfigMap's `policy.toml` that leads to
/// `..data/policy.toml`.
#[test]
fn p7_a_policy_behind_a_link_is_as_good_to_the_check_as_to_the_daemon() {
    let place = place(&with(SIGN, "path = \"../in\""));
    let policy = String::from_utf8(place.read("policy.toml")).unwrap();
    let policy = policy.replace("\"state\"", "\"../state\"").replace("\"keyring\"", "\"../keyring\"");
    for dir in ["v1", "map", "map/..2026", "open"] {
        fs::create_dir(place.path(dir)).unwrap();
    }
    place.write("v1/policy.toml", &policy);
    symlink("v1", place.path("current")).unwrap();
    symlink("v1/policy.toml", place.path("linked.toml")).unwrap();
    place.write("map/..2026/policy.toml", &policy);
    symlink("..2026", place.path("map/..data")).unwrap();
    symlink("..data/policy.toml", place.path("map/policy.toml")).unwrap();
    let checks = [&["check"][..], &["check", "--online"], &["check", "--reload"]];
    let each = |file: &str, code: i32| {
        for words in checks {
            let words = words.iter().copied().chain(["--policy", file]);
            let run = place.run(words).exits(code);
            let says = String::from_utf8(run.stdout().to_vec()).unwrap();
            assert_eq!(says.contains("not trusted"), code != 0, "{file}: {says}");
        }
    };
    for file in ["current/policy.toml", "map/policy.toml"] {
        each(file, 0);
        place.run(["watch", "--once", "--policy", file]).exits(0);
    }
    place.write("linked.toml", policy.replace("\"../", "\"")); // written through the link
    each("linked.toml", 0);
    // What others could have put there is not, wherever the link itself stands.
    fs::rename(place.path("v1/policy.toml"), place.path("open/policy.toml")).unwrap();
    fs::set_permissions(place.path("open"), Permissions::from_mode(0o777)).unwrap();
    symlink("../open/policy.toml", place.path("v1/policy.toml")).unwrap();
    each("linked.toml", 2);
    place
        .run(["watch", "--once", "--policy", "linked.toml"])
        .exits(2)
        .complains_of("can be written by others");
}

#[test]
fn a_directory_that_cannot_be_read_is_told_with_both_remedies_and_as_no_end_of_the_rule() {
    let place = place(&with(VERIFY, "recursive = true"));
    fs::create_dir(place.path("in/lost+found")).unwrap();
    fs::set_permissions(place.path("in/lost+found"), Permissions::from_mode(0o055)).unwrap();
    let check = || {
        let output = plainly(&place, &["check", "--policy", "policy.toml"], &[]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = check();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("or leave it out: exclude = [\"lost+found\"]"), "{said}");
    assert!(said.ends_with("1 rule cannot handle every file before that is changed\n"), "{said}");
    set_policy(&place, &with(&with(VERIFY, "recursive = true"), "exclude = [\"lost+found\"]"));
    assert_eq!(check().0, Some(0));
    fs::set_permissions(place.path("in/lost+found"), Permissions::from_mode(0o700)).unwrap();
}

/// Otherwise a unit would start it again for ever.
#[test]
fn what_a_person_must_change_ends_the_daemon_with_code_2_as_it_does_the_check() {
    for what in ["q", "state"] {
        let place = place(VERIFY);
        place.write(what, "no directory");
        place.run(["check", "--policy", "policy.toml"]).exits(2);
        place
            .run(["watch", "--policy", "policy.toml", "--once"])
            .exits(2)
            .complains_of("hint: move away what is there, or name another directory");
    }
}
