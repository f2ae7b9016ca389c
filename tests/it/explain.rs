//! `kms-sig explain`: the right rule, the right reason, what is sent to KMS, and what would happen,
//! with nothing changed.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::doorbell::Doorbell;
use crate::support::place::{Place, name};
use crate::support::policy::{SIGN, VERIFY, impatient, place, set_policy, with};

/// The answer about one path, as JSON.
#[track_caller]
fn explain(place: &Place, path: &str) -> Value {
    let run = place.run(["explain", path, "--policy", "policy.toml", "--json"]).exits(0).complains("");
    serde_json::from_slice(run.stdout()).unwrap()
}

/// Why the only rule does not apply.
#[track_caller]
fn why_not(place: &Place, path: &str) -> String {
    let said = explain(place, path);
    assert_eq!(said["applies"], Value::Null, "{said}");
    said["other_rules"][0]["why_not"].as_str().unwrap().to_owned()
}

/// What would happen, in one word and in a sentence.
#[track_caller]
fn would(place: &Place, path: &str) -> (String, String) {
    let said = explain(place, path);
    let text = |key: &str| said["applies"][key].as_str().unwrap_or_else(|| panic!("{said}")).to_owned();
    (text("would"), text("why"))
}

#[track_caller]
fn expect(place: &Place, path: &str, word: &str, part: &str) {
    let (what, why) = would(place, path);
    assert!(what == word && why.contains(part), "{path}: {what}: {why}");
}

/// The names below the place with times and sizes, but for SQLite's own.
fn tree(place: &Place) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![place.path("")];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let stat = fs::symlink_metadata(&path).unwrap();
            let is_sqlite = path.to_string_lossy().contains("state.db");
            if stat.is_dir() {
                open.push(path.clone());
            }
            if !is_sqlite && !path.ends_with("state") {
                found.push(format!("{path:?} {} {}.{}", stat.size(), stat.ctime(), stat.ctime_nsec()));
            }
        }
    }
    found.sort();
    found
}

fn settle() {
    // Longer than any wait of these rules: they count from the ctime, which nobody can set.
    std::thread::sleep(Duration::from_millis(120));
}

#[test]
fn every_reason_why_a_rule_does_not_apply_is_told() {
    let place = place(&with(SIGN, "exclude = [\"*.log\", \"old*\"]"));
    fs::create_dir(place.path("in/below")).unwrap();
    for (path, why) in [
        ("elsewhere", format!("it is not in \"{}\"", place.path("in").display())),
        ("in", "it is the watched directory itself".to_owned()),
        ("in/below/f", "it lies in a directory below, and the rule is not recursive".to_owned()),
        ("in/below", "a directory is there, and only files are signed and verified".to_owned()),
        ("in/old.log", "its name matches \"*.log\" of exclude".to_owned()),
        ("in/older", "its name matches \"old*\" of exclude".to_owned()),
        (
            "in/f.part",
            "\".part\" in its name marks an unfinished or private file, and no pattern of include has it"
                .to_owned(),
        ),
        (
            "in/f.sig",
            "refused: .sig is the suffix of signatures, and the file that this would be the signature of is not there"
                .to_owned(),
        ),
        ("in/.kms-sig-x", "names that begin with .kms-sig are kms-sig's own".to_owned()),
    ] {
        assert_eq!(why_not(&place, path), why, "{path}");
    }
    let long = format!("in/{}", "n".repeat(252));
    assert!(why_not(&place, &long).starts_with("refused: its name is longer than 251 bytes"));
    set_policy(&place, &with(SIGN, "include = [\"*.gz\"]"));
    assert_eq!(why_not(&place, "in/f"), "its name matches no pattern of include");
    set_policy(&place, &with(VERIFY, "recursive = true"));
    let sig = "refused: .sig is the suffix of signatures, and signatures are not signed";
    assert_eq!(why_not(&place, "in/f.sig.sig"), sig);
    fs::create_dir(place.path("aside")).unwrap();
    symlink(place.path("aside"), place.path("in/link")).unwrap();
    assert_eq!(
        why_not(&place, "in/link/f"),
        "a symbolic link or a file is on the way, and links are not followed"
    );
    let deep = format!("in/{}f", "d/".repeat(65));
    assert!(why_not(&place, &deep).starts_with("it lies too deep"));
    assert!(why_not(&place, "in/.kms-sig/x/f").starts_with("names that begin with .kms-sig"));
    expect(&place, &format!("in/{}f", "d/".repeat(64)), "nothing", "nothing lies there");
}

#[test]
fn a_path_may_be_written_in_any_way() {
    let place = place(SIGN);
    place.write("in/f", "content");
    symlink(place.path("in"), place.path("way")).unwrap();
    let whole = place.path("in/f");
    for path in ["in/f", "./in//f", "out/../in/f", "in/../in/f", "way/f", whole.to_str().unwrap()] {
        let said = explain(&place, path);
        assert_eq!(said["applies"]["file"], "f", "{path}: {said}");
    }
}

#[test]
fn p9_a_hostile_name_is_escaped_and_reaches_the_context_as_kms_gets_it() {
    let place = place(SIGN);
    let hostile = name(b"in/a\x1b[2J\nb\xff%");
    place.write(hostile, "content");
    let run = place
        .run([name(b"explain"), hostile, name(b"--policy"), name(b"policy.toml")])
        .exits(0)
        .complains("");
    let said = String::from_utf8(run.stdout().to_vec()).unwrap();
    assert!(said.contains("\nfile: a\\x1b[2J\\x0ab\\xff%\n"), "{said}");
    assert!(said.contains("\ncontext:\n  file=a%1B[2J%0Ab%FF%25\n"), "{said}");
    assert!(!said.contains('\x1b'));
}

#[test]
fn a_file_to_be_signed_is_followed_from_its_absence_to_its_change() {
    let place = place(&with(SIGN, "settle = \"1h\""));
    expect(
        &place,
        "in/f",
        "nothing",
        "nothing lies there; a file of this name would be signed with local:demo",
    );
    place.write("in/f", "content");
    expect(&place, "in/f", "waits", "waits until it has been unchanged for 1h; then: would be signed");
    set_policy(&place, SIGN);
    settle();
    let (what, why) = would(&place, "in/f");
    assert_eq!(
        (what.as_str(), why.as_str()),
        ("signs", "would be signed with local:demo; \"f.sig\" appears beside it")
    );
    let writer = fs::OpenOptions::new().append(true).open(place.path("in/f")).unwrap();
    expect(&place, "in/f", "waits", "waits until nobody has it open for writing");
    drop(writer);
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0);
    let said = explain(&place, "in/f");
    assert_eq!(said["applies"]["would"], "done");
    assert_eq!(
        said["applies"]["remembered"],
        json!({ "outcome": "signed", "reason": null, "of_this": true })
    );
    assert_eq!(said["applies"]["last_row"]["row"], 1);
    assert_eq!(said["applies"]["context"], json!({ "file": "f" }));
    assert_eq!(
        said["applies"]["signature"]["format"],
        "plain signature, ciphertext of a kms-sig keyring, claims key local:demo"
    );
    place.write("in/f", "changed");
    settle();
    assert_eq!(explain(&place, "in/f")["applies"]["remembered"]["of_this"], false);
    expect(&place, "in/f", "refuses", "on_stale = \"report\" leaves it");
    set_policy(&place, &with(SIGN, "on_stale = \"resign\""));
    expect(&place, "in/f", "signs", "signed anew with local:demo");
    place.write("in/f.sig", "untrusted comment: of somebody else");
    expect(&place, "in/f", "refuses", "not known to be our signature");
    place.write("in/g", "content");
    place.write("in/g.sig", "what may be a signature");
    settle();
    expect(&place, "in/g", "judges", "without kms:Decrypt it is held");
}

#[test]
fn what_explain_foretells_of_a_changed_file_the_daemon_does() {
    let place = place(SIGN);
    place.write("in/f", "content");
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0);
    place.write("in/f", "changed");
    settle();
    let (_, foretold) = would(&place, "in/f");
    place.run(["watch", "--policy", "policy.toml", "--once"]);
    let said = explain(&place, "in/f");
    assert_eq!(said["applies"]["remembered"]["reason"], "stale-signature");
    let reason = "its signature is of ours and out of date; on_stale = \"report\" leaves it";
    assert_eq!(foretold, format!("refused, unless the content is the same: {reason}"));
    expect(&place, "in/f", "refuses", "refused already, until it changes");
}

#[test]
fn a_pair_to_be_verified_is_followed_to_every_end() {
    let place = place(&with(VERIFY, "signature_timeout = \"1h\""));
    place.write("in/f", "content");
    settle();
    let (what, why) = would(&place, "in/f");
    assert!(what == "waits" && why.starts_with("waits for its signature until 20"), "{why}");
    assert!(why.ends_with("then missing, and it would be quarantined"), "{why}");
    place.write("in/lone.sig", "x");
    expect(&place, "in/lone.sig", "waits", "a signature without its file");
    set_policy(&place, &with(VERIFY, "signature_timeout = \"20ms\""));
    expect(&place, "in/f", "invalid", "missing, and it would be quarantined");
    set_policy(&place, &with(&impatient(VERIFY), "on_missing = \"log\""));
    expect(&place, "in/f", "invalid", "missing, and it would be left and logged");
    place.write("in/f.sig", "");
    settle();
    expect(&place, "in/f", "invalid", "the signature is empty: malformed");
    place.write("in/f.sig", "may be one");
    settle();
    let out = format!("a valid pair is delivered as \"{}\"", place.path("out/f").display());
    expect(&place, "in/f.sig", "judges", &out);
    place.write("out/f", "content");
    expect(&place, "in/f", "judges", "which is a conflict unless it is the same");
    place.write("out/f", "other");
    // An invalid pair is quarantined all the same.
    expect(&place, "in/f", "judges", "a valid pair would be held (conflict): another file has the name at");
    fs::remove_file(place.path("out/f")).unwrap();
    set_policy(&place, &format!("limits.min_free_space = \"1EiB\"\n{VERIFY}"));
    expect(&place, "in/f", "holds", "held (no-space)");
    set_policy(&place, &with(VERIFY, "max_size = \"3B\""));
    expect(&place, "in/f", "refuses", "it has 7 bytes; max_size allows 3");
    assert_eq!(explain(&place, "in/f")["applies"]["unfit"], "it has 7 bytes; max_size allows 3");
    set_policy(&place, &with(VERIFY, "max_size = \"1KiB\""));
    place.write("in/f.sig", vec![1; 1 << 20]);
    settle();
    expect(&place, "in/f", "refuses", "its .sig has 1048576 bytes; max_size allows");
    // Whoever writes the payload makes that signature no smaller.
    let writer = fs::OpenOptions::new().append(true).open(place.path("in/f")).unwrap();
    expect(&place, "in/f", "refuses", "its .sig has 1048576 bytes; max_size allows");
    drop(writer);
    fs::remove_file(place.path("in/f")).unwrap();
    symlink("/etc/passwd", place.path("in/f")).unwrap();
    expect(&place, "in/f", "refuses", "it is a symbolic link");
}

/// What is said about one path, from one heading to the next line that is not below it.
#[track_caller]
fn said(place: &Place, path: &str, heading: &str) -> Vec<String> {
    let run = place.run(["explain", path, "--policy", "policy.toml"]).exits(0).complains("");
    let said = String::from_utf8(run.stdout().to_vec()).unwrap();
    let mut lines = said.lines().skip_while(|line| !line.starts_with(heading));
    let first = lines.next().unwrap_or_else(|| panic!("no {heading:?} in\n{said}"));
    let below = lines.take_while(|line| line.starts_with("  "));
    [&first[heading.len()..]].into_iter().chain(below).map(|line| line.trim().to_owned()).collect()
}

const PLAIN: &str = "context that KMS gets for a plain signature:";
const BATCH: &str = "context that KMS gets for a batch:";
const LEAF: &str = "context in the file's leaf alone:";

#[test]
fn of_a_batch_what_kms_gets_is_told_apart_from_what_is_in_the_leaf() {
    let context = "context = { channel = \"stable\", file = \"{name}\" }";
    let batches = with(&with(SIGN, context), "batch = { window = \"200ms\", max_files = 9 }");
    let place = place(&batches);
    place.write("in/f", "content");
    settle();
    let of_the_batch = "context that KMS gets for the batch:";
    assert_eq!(said(&place, "in/f", of_the_batch), ["", "channel=stable", "kms-sig:batch=[file]"]);
    assert_eq!(said(&place, "in/f", LEAF), ["", "file=f"]);
    let (what, why) = would(&place, "in/f");
    assert_eq!(
        (what.as_str(), why.as_str()),
        (
            "signs",
            "would be signed with local:demo, in a batch with what else becomes ready within 200ms of its first file (9 \
             files at most); \"f.sig\" appears beside it"
        )
    );
    let json = explain(&place, "in/f")["applies"].clone();
    assert_eq!(json["context"], json!({ "channel": "stable", "file": "f" }));
    assert_eq!(json["form"], "batch");
    assert_eq!(json["batch_context"], json!({ "channel": "stable", "kms-sig:batch": "[file]" }));
    assert_eq!(json["leaf_context"], json!({ "file": "f" }));
    assert_eq!(json["batch"], json!({ "window_ms": 200, "max_files": 9 }));
    // What lies there may be read in one form and be made in the other.
    place.write("in/f.sig", "what may be a plain signature");
    assert_eq!(said(&place, "in/f", PLAIN), ["", "channel=stable", "file=f"]);
    assert_eq!(said(&place, "in/f", BATCH), ["", "channel=stable", "kms-sig:batch=[file]"]);
    set_policy(&place, &with(&batches, "deliver_to = \"out\""));
    assert_eq!(explain(&place, "in/f")["applies"]["form"], "batch");
    set_policy(&place, &with(SIGN, context));
    assert_eq!(said(&place, "in/f", "context:"), ["", "channel=stable", "file=f"]);
    let json = explain(&place, "in/f")["applies"].clone();
    assert_eq!((&json["form"], &json["batch_context"]), (&json!("plain"), &Value::Null));
    // Of a file that has nothing of its own all goes to KMS.
    set_policy(&place, &with(&batches, "context = { channel = \"stable\" }"));
    assert_eq!(said(&place, "in/g", of_the_batch), ["", "channel=stable", "kms-sig:batch=[]"]);
    assert_eq!(said(&place, "in/g", LEAF), ["none"]);
}

#[test]
fn a_pair_of_a_batch_is_told_as_the_rule_would_take_it() {
    let batch = "batch = { window = \"20ms\", max_files = 9 }";
    let place = place(&with(SIGN, batch));
    place.write("in/f", "content");
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0);
    settle();
    // A rule without accept_batch does not ask KMS.
    set_policy(&place, VERIFY);
    expect(
        &place,
        "in/f",
        "invalid",
        "it is a batch signature, and the rule has no accept_batch = true: malformed, and it would be quarantined",
    );
    assert_eq!(explain(&place, "in/f")["applies"]["form"], "plain");
    place.run(["watch", "--policy", "policy.toml", "--dry-run", "--once"]).exits(1);
    // One that takes batches asks as the signature says, or is told both ways while there is none.
    let accepting = with(VERIFY, "accept_batch = true");
    set_policy(&place, &accepting);
    expect(&place, "in/f", "judges", "would be judged under local:demo; a valid pair is delivered");
    let json = explain(&place, "in/f")["applies"].clone();
    assert_eq!((&json["form"], &json["leaf_context"]), (&json!("batch"), &json!({ "file": "f" })));
    assert_eq!(said(&place, "in/f", "context that KMS gets for the batch:"), ["", "kms-sig:batch=[file]"]);
    assert_eq!(said(&place, "in/g", PLAIN), ["", "file=g"]);
    assert_eq!(said(&place, "in/g", BATCH), ["", "kms-sig:batch=[file]"]);
    assert_eq!(said(&place, "in/g", LEAF), ["", "file=g"]);
    assert_eq!(explain(&place, "in/g")["applies"]["form"], "either");
    place.write("in/g", "content");
    place.write("in/g.sig", "what may be a plain signature");
    assert_eq!(said(&place, "in/g", "context:"), ["", "file=g"]);
    for name in ["in/g", "in/g.sig"] {
        fs::remove_file(place.path(name)).unwrap();
    }
    // Whoever splits the context otherwise made it for another one, and KMS is not asked.
    set_policy(&place, &with(&accepting, "context = { file = \"f\" }"));
    expect(
        &place,
        "in/f",
        "invalid",
        "its leaf-context is [file], and that of this rule is []: it was made for another context: rejected",
    );
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(1);
    expect(&place, "in/f", "nothing", "nothing lies there");
    let history =
        place.run(["history", "--policy", "policy.toml", "--name", "f", "--outcome", "quarantined"]);
    assert!(String::from_utf8_lossy(history.exits(0).stdout()).contains("rejected"));
}

#[test]
fn a_rule_that_cannot_work_is_told_with_code_3() {
    let place = place(SIGN);
    fs::remove_dir(place.path("in")).unwrap();
    let run = place.run(["explain", "in/f", "--policy", "policy.toml"]).exits(3).complains("");
    let said = String::from_utf8(run.stdout().to_vec()).unwrap();
    let path = place.path("in");
    assert!(said.contains(&format!("\nnow: held: \"{}\" does not exist", path.display())), "{said}");
    place.run(["explain", "in/f", "--policy", "none.toml"]).exits(2);
}

#[test]
fn it_asks_no_kms_changes_nothing_and_works_beside_the_daemon() {
    let mut place = place(SIGN);
    let bell = Doorbell::at(&mut place);
    place.write("in/f", "content");
    let daemon = Daemon::start(&place);
    daemon.waits_for("signed");
    set_policy(&place, &with(SIGN, "key = \"alias/any\""));
    place.write("in/g", "content");
    place.write("in/g.sig", "what may be a signature");
    let before = tree(&place);
    for file in ["in/f", "in/g", "in/none"] {
        place.run(["explain", file, "--policy", "policy.toml"]).exits(0);
    }
    assert_eq!(tree(&place), before);
    assert_eq!(explain(&place, "in/f")["applies"]["last_row"]["outcome"], "signed");
    bell.is_untouched();
    drop(daemon);
}

#[test]
fn it_does_not_read_the_whole_record() {
    let place = place(SIGN);
    place.write("in/f", "content");
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0);
    // 256 MiB of it: kept in memory, it would not fit below.
    let db = rusqlite::Connection::open(place.path("state/state.db")).unwrap();
    let rows = "
        WITH RECURSIVE rows(n) AS (SELECT 100 UNION ALL SELECT n + 1 FROM rows WHERE n < 65635)
        INSERT INTO history
        SELECT n, at, rule, zeroblob(4000), outcome, reason, digest, signature_digest, key, item, hash
        FROM rows JOIN history WHERE seq = 1;";
    db.execute_batch(rows).unwrap();
    db.close().unwrap();
    assert!(fs::metadata(place.path("state/state.db")).unwrap().len() > 256 << 20);
    let began = SystemTime::now();
    // The newest row of one is the first, the other has none: all of them are looked at.
    for command in ["explain in/f", "explain in/none", "check"] {
        let script = format!("ulimit -d 65536; \"$KMS_SIG\" {command} --policy policy.toml");
        place.shell(&script).exits(0).complains("");
    }
    assert!(began.elapsed().unwrap() < Duration::from_secs(30));
}
