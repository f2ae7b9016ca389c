//! `kms-sig quarantine`, and what the daemon does about the store's size and age.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::daemon::Daemon;
use crate::support::files::{self, names, sign};
use crate::support::place::{Place, name};
use crate::support::policy::{place, set_policy, with};
use crate::support::quarantine::{
    drop_tampered, good_after_all, history, ids, long_ago, quarantine_all, quarantined, record, rule, run,
    uid,
};

/// The hint when the sender has changed an item.
const GONE: &str =
    "hint: what was judged is gone: kms-sig quarantine show ID says what is there now, purge ID removes it\n";

/// The hint when a release finds something in its way.
const LOOK: &str = "hint: look at what is there, or name another directory with --to DIR\n";

// Looking

#[test]
fn list_says_what_is_there() {
    let place = place(&rule());
    run(&place, &["list"]).exits(0).says("nothing is in quarantine\n").complains("");
    run(&place, &["list", "--json"]).exits(0).says("").complains("");
    let first = quarantined(&place, "tampered", "1234");
    fs::write(place.path("in/unsigned\n\u{202e}x"), "12").unwrap();
    let second = quarantine_all(&place);
    let when = |id: &str| record(&place, id)["quarantined_at"].as_str().unwrap().to_owned();
    let size = fs::metadata(place.path(format!("q/{first}/payload.sig"))).unwrap().len() + 4;
    let line = |id: &str, reason: &str, size: &str, file: &str| {
        format!("{id}  {}  verify  {reason:8}  {size:5}  {file}\n", when(id))
    };
    let head = format!("{:34}  {:24}  RULE    REASON    SIZE   FILE\n", "ID", "WHEN");
    let (a, b) = (
        line(&first, "mismatch", &format!("{size} B"), "tampered"),
        line(&second, "missing", "2 B", "unsigned\\x0a\\u{202e}x"),
    );
    let share = |items: &str, bytes| {
        format!("\nverify: {items}, {bytes} B; they count 112.0 KiB of quarantine_max_size, 32.0 GiB\n")
    };
    let all = format!("{head}{a}{b}{}", share("2 items", size + 2));
    run(&place, &["list"]).exits(0).says(&all).complains("");
    run(&place, &["list", "--rule", "verify"]).exits(0).says(&all);
    run(&place, &["list", "--rule", "other"]).exits(0).says("no item matches\n");
    run(&place, &["list", "--reason", "rejected"]).exits(0).says("no item matches\n");
    run(&place, &["list", "--reason", "bogus"])
        .exits(2)
        .says("")
        .complains_of("a reason is one of mismatch, rejected, wrong-key, malformed, missing");
    run(&place, &["list", "--reason", "mismatch"]).exits(0).says(format!("{head}{a}"));

    let json = run(&place, &["list", "--json", "--reason", "missing"]).exits(0);
    assert!(json.stdout().is_ascii());
    let line: Value = serde_json::from_slice(json.stdout()).unwrap();
    assert_eq!(line["id"], second);
    assert_eq!(line["path"], "unsigned\\x0a\\u{202e}x");
    assert_eq!(line["path_hex"], "756e7369676e65640ae280ae78");
    assert_eq!(
        (&line["size"], &line["rule"], &line["reason"]),
        (&2.into(), &"verify".into(), &"missing".into())
    );
}

#[test]
fn show_says_whether_the_content_changed_since() {
    let place = place(&rule());
    let id = quarantined(&place, "f", "1234");
    let record = record(&place, &id);
    let text = |key: &str| record[key].as_str().unwrap().to_owned();
    let sig = place.read(format!("q/{id}/payload.sig"));
    let at = fs::canonicalize(place.path("")).unwrap();
    let shown = |content: &str| {
        format!(
            "id: {id}\nquarantined: {}\nrule: verify\nreason: mismatch\nfile: f\nfrom: \"{}\"\n\
             keys asked: local:demo\nlease: {}\nsize: 4 bytes\nowner: {}:{}\nmode: 0750\n\
             modified: 2001-09-09T01:46:40.123456789Z\njudged sha512: {}\n{content}\
             signature: {} bytes, sha512 {}\nfolder: \"{}\"\n",
            text("quarantined_at"),
            at.join("in").display(),
            text("lease"),
            uid(),
            rustix::process::getgid().as_raw(),
            text("digest"),
            sig.len(),
            kms_sig::digest::Digest::of(&sig),
            at.join("q").join(&id).display(),
        )
    };
    run(&place, &["show", &id]).exits(0).says(shown("content: as it was judged\n")).complains("");
    let json = run(&place, &["show", &id[..20], "--json"]).exits(0);
    let value: Value = serde_json::from_slice(json.stdout()).unwrap();
    assert_eq!((&value["record"], &value["now"]["as_judged"]), (&record, &true.into()));

    // The sender still had it open.
    let payload = place.path(format!("q/{id}/payload"));
    fs::set_permissions(&payload, Permissions::from_mode(0o640)).unwrap();
    fs::write(&payload, "evil").unwrap();
    let now = kms_sig::digest::Digest::of(b"evil");
    let changed = format!("content: changed since it was judged\nsha512 now: {now}\n");
    run(&place, &["show", &id]).exits(0).says(shown(&changed)).complains("");
    fs::write(&payload, "other").unwrap();
    let changed = "content: changed since it was judged (4 bytes then, 5 now)\n";
    run(&place, &["show", &id]).exits(0).says(shown(changed)).complains("");
}

/// Makes a file of an item as long as this, as a sender may who still has it open. It takes no room
/// on the disk.
fn resize(place: &Place, file: &str, len: u64) {
    let path = place.path("q").join(file);
    let mode = fs::metadata(&path).unwrap().mode();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a10_what_grew_since_it_was_judged_is_read_by_nobody() {
    let place = place(&rule());
    fs::create_dir(place.path("to")).unwrap();
    let id = quarantined(&place, "f", "1234");
    let other = quarantined(&place, "g", "1234");
    resize(&place, &format!("{id}/payload"), 1 << 40);
    let grew = "its content changed since it was judged (4 bytes then, 1099511627776 now)";
    let told = format!("kms-sig: {id}: {grew}\n{GONE}");
    let shown = run(&place, &["show", &id]).exits(0).complains("");
    let shown = String::from_utf8_lossy(shown.stdout()).into_owned();
    assert!(
        shown.contains("content: changed since it was judged (4 bytes then, 1099511627776 now)\n"),
        "{shown}"
    );
    let json = run(&place, &["show", &id, "--json"]).exits(0);
    let now = serde_json::from_slice::<Value>(json.stdout()).unwrap()["now"].take();
    assert_eq!(
        (&now["size"], &now["digest"], &now["as_judged"]),
        (&(1_u64 << 40).into(), &Value::Null, &false.into())
    );
    let line = format!("{id}: invalid: {grew}\n");
    run(&place, &["recheck", &id]).exits(1).says(&line).complains("");
    let all = format!("{line}{other}: invalid: mismatch\n");
    run(&place, &["recheck", "--all"]).exits(1).says(all).complains("");
    let json = run(&place, &["recheck", &id, "--json"]).exits(1);
    assert_eq!(serde_json::from_slice::<Value>(json.stdout()).unwrap()["verdict"], "changed");
    for words in [&["release", &id][..], &["release", &id, "--force", "--to", "to"]] {
        run(&place, words).exits(3).says("").complains(&told);
    }
    assert_eq!((names(&place.path("to")), names(&place.path("out"))), (vec![], vec![]));
    run(&place, &["purge", &id]).exits(0);
}

#[test]
fn a16_what_is_longer_than_any_signature_is_read_by_nobody() {
    let place = place(&rule());
    let id = quarantined(&place, "f", "1234");
    let was = fs::metadata(place.path(format!("q/{id}/payload.sig"))).unwrap().len();
    resize(&place, &format!("{id}/payload.sig"), 1 << 40);
    let shows = |id: &str, line: &str| {
        let shown = run(&place, &["show", id]).exits(0).complains("");
        let shown = String::from_utf8_lossy(shown.stdout()).into_owned();
        assert!(shown.contains(&format!("content: as it was judged\nsignature: {line}\n")), "{shown}");
    };
    shows(&id, &format!("changed since it was judged ({was} bytes then, 1099511627776 now)"));
    run(&place, &["recheck", &id]).exits(1).says(format!("{id}: invalid: malformed\n"));
    // It was so when it was judged.
    place.write("in/g", "1234");
    fs::File::create(place.path("in/g.sig")).unwrap().set_len(1 << 33).unwrap();
    let id = quarantine_all(&place);
    shows(&id, "never read; with 8589934592 bytes it can be none");
    let json = run(&place, &["show", &id, "--json"]).exits(0);
    let now = serde_json::from_slice::<Value>(json.stdout()).unwrap()["now"].take();
    assert_eq!((&now["as_judged"], &now["signature"]["digest"]), (&Value::Null, &Value::Null));
    run(&place, &["recheck", &id]).exits(1).says(format!("{id}: invalid: malformed\n"));
}

#[test]
fn what_cannot_be_read_is_shown_by_its_record_all_the_same() {
    let place = place(&rule());
    let id = quarantined(&place, "f", "1234");
    fs::set_permissions(place.path(format!("q/{id}/payload")), Permissions::from_mode(0o4755)).unwrap();
    let why = "its files cannot be read: it is set-user-id or set-group-id";
    let shown = run(&place, &["show", &id]).exits(3).complains(&format!(
        "kms-sig: {id}: {why}\nhint: its sender still had it open: look into its folder (quarantine show ID), or purge it\n"
    ));
    let shown = String::from_utf8_lossy(shown.stdout()).into_owned();
    assert!(shown.contains("mode: 0750\n"), "{shown}");
    assert!(shown.contains(&format!("content: {why}\nsignature: ")), "{shown}");
    let json = run(&place, &["show", &id, "--json"]).exits(3);
    let shown: Value = serde_json::from_slice(json.stdout()).unwrap();
    assert_eq!((&shown["record"]["id"], &shown["now"]["as_judged"]), (&id.into(), &Value::Null));
    assert_eq!(shown["now"]["why"], why);
}

#[test]
fn an_id_may_be_shortened_as_long_as_it_stands_for_one_item() {
    let place = place(&rule());
    let hint = "hint: kms-sig quarantine list shows the ids\n";
    let nothing =
        |text: &str| format!("kms-sig: nothing in quarantine has an id that begins with \"{text}\"\n{hint}");
    run(&place, &["show", "2026"]).exits(2).says("").complains(&nothing("2026"));
    let first = quarantined(&place, "a", "1");
    quarantined(&place, "b", "2");
    run(&place, &["show", &first[..first.len() - 1]]).exits(0);
    let ambiguous = "kms-sig: \"2\" stands for 2 items\nhint: write more of the id\n";
    run(&place, &["show", "2"]).exits(2).says("").complains(ambiguous);
    run(&place, &["release", "2", "--force"]).exits(2).says("").complains(ambiguous);
    run(&place, &["purge", ""]).exits(2).says("").complains(&nothing(""));
    run(&place, &["purge", &first, "2"]).exits(2).says("").complains(ambiguous);
    assert_eq!(ids(&place).len(), 2, "nothing is done where somebody may have meant something else");
}

#[test]
fn an_item_that_is_gone_keeps_nobody_from_the_others() {
    let place = place(&rule());
    let [a, b, c] = ["a", "b", "c"].map(|file| quarantined(&place, file, "1234"));
    fs::create_dir(place.path("to")).unwrap();
    let gone = |text: &str| {
        format!(
            "kms-sig: nothing in quarantine has an id that begins with \"{text}\"\n\
             hint: kms-sig quarantine list shows the ids\n"
        )
    };
    let lines = |run: crate::support::run::Run<'_>| -> Vec<Value> {
        let said = String::from_utf8(run.stdout().to_vec()).unwrap();
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    run(&place, &["recheck", "gone", &a])
        .exits(2)
        .says(format!("{a}: invalid: mismatch\n"))
        .complains(&gone("gone"));
    let told = lines(run(&place, &["recheck", "gone", &a, "--json"]).exits(2));
    assert_eq!((&told[0]["id"], &told[0]["verdict"]), (&"gone".into(), &"unknown".into()));
    assert_eq!((&told[1]["id"], &told[1]["verdict"]), (&a.clone().into(), &"invalid".into()));

    // What cannot be told is worse than what is to be written otherwise, and that is worse than
    // what is invalid.
    let to = ["--force", "--to", "to", "--json"];
    place.write("to/b", "theirs");
    let told = lines(run(&place, &[&["release", "gone", &a, &b][..], &to].concat()).exits(3));
    let released: Vec<_> = told.iter().map(|line| (&line["id"], &line["released"], &line["why"])).collect();
    let why = "nothing in quarantine has an id that begins with \"gone\"";
    assert_eq!(released[0], (&"gone".into(), &false.into(), &why.into()));
    assert_eq!(released[1], (&a.clone().into(), &true.into(), &Value::Null));
    let at = fs::canonicalize(place.path("to")).unwrap().join("b");
    let why = format!("not released to \"{}\": another file has the name", at.display());
    assert_eq!(released[2], (&b.clone().into(), &false.into(), &why.into()));

    run(&place, &["purge", "no\u{1b}such", &b])
        .exits(2)
        .says(format!("{b}: purged\n"))
        .complains(&gone("no\\x1bsuch"));
    let told = lines(run(&place, &["purge", &b, &c, "--json"]).exits(2));
    assert_eq!((&told[0]["purged"], &told[1]["purged"]), (&false.into(), &true.into()));
    assert_eq!(ids(&place), [""; 0]);
}

#[test]
fn a_policy_without_quarantine_has_no_store_and_a_store_of_others_is_not_opened() {
    let place = place(&rule());
    place.write(
        "none.toml",
        "state.dir = \"state\"\n[[watch]]\nname = \"v\"\nmode = \"verify\"\npath = \"in\"\nin_place = true\n\
         trusted_keys = [\"arn:aws:kms:eu-west-1:111122223333:key/a\"]\non_invalid = \"log\"\non_missing = \"log\"\n",
    );
    place.run(["quarantine", "list", "--policy", "none.toml"]).exits(2).says("").complains(
        "kms-sig: the policy has no [quarantine]\nhint: name the policy of the daemon whose quarantine is meant\n",
    );
    let id = quarantined(&place, "f", "1");
    fs::set_permissions(place.path("q"), Permissions::from_mode(0o755)).unwrap();
    run(&place, &["purge", &id]).exits(2).says("").complains(&format!(
        "kms-sig: \"{}\" is open to others (mode 0755); chmod 700 it\n",
        fs::canonicalize(place.path("q")).unwrap().display()
    ));
    assert_eq!(ids(&place), [id]);
}

// Verifying again

#[test]
fn s4_an_item_that_changes_while_it_is_verified_again_gets_no_verdict() {
    let place = place(&rule());
    // Long enough to be changed while it is read.
    let id = good_after_all(&place, &rule(), &"0".repeat(96 << 20));
    let payload = fs::canonicalize(place.path(format!("q/{id}/payload"))).unwrap();
    let mut command = std::process::Command::new(crate::support::place::PROGRAM);
    command.args(["quarantine", "recheck", &id, "--policy", "policy.toml"]);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = place.prepare(command).spawn().unwrap();
    let fds = format!("/proc/{}/fd", child.id());
    let is_open = || {
        fs::read_dir(&fds).is_ok_and(|mut fds| {
            fds.any(|fd| fd.is_ok_and(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == payload)))
        })
    };
    let until = std::time::Instant::now() + Duration::from_secs(60);
    while !is_open() {
        assert!(std::time::Instant::now() < until, "never opened");
    }
    // The same bytes again: what is read is what was signed, and nobody can know that.
    use std::os::unix::fs::FileExt as _;
    fs::File::options().write(true).open(&payload).unwrap().write_all_at(b"0", 0).unwrap();
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), &*output.stdout), (Some(3), &b""[..]), "{told}");
    assert!(told.contains("it changed while it was read"), "{told}");
    run(&place, &["recheck", &id]).exits(0).says(format!("{id}: valid signature from local:demo\n"));
}

#[test]
fn recheck_judges_by_the_policy_as_it_is_now_and_moves_nothing() {
    let place = place(&rule());
    let bad = quarantined(&place, "bad", "1234");
    let good = good_after_all(&place, &rule(), "good");
    run(&place, &["recheck", &good])
        .exits(0)
        .says(format!("{good}: valid signature from local:demo\n"))
        .complains("");
    let both = format!("{bad}: invalid: mismatch\n{good}: valid signature from local:demo\n");
    run(&place, &["recheck", "--all"]).exits(1).says(both).complains("");
    let json = run(&place, &["recheck", &bad, "--json"]).exits(1);
    let line: Value = serde_json::from_slice(json.stdout()).unwrap();
    assert_eq!(
        line,
        serde_json::json!({ "id": bad, "verdict": "invalid", "reason": "mismatch", "key": null })
    );
    assert_eq!(ids(&place).len(), 2);
    assert_eq!(names(&place.path("out")), [""; 0]);

    // P2: an outage is no verdict.
    fs::rename(place.path("keyring"), place.path("away")).unwrap();
    run(&place, &["recheck", &good])
        .exits(3)
        .says("")
        .complains_of(&format!("kms-sig: {good}: cannot verify it: "));
    let json = run(&place, &["recheck", "--all", "--json"]).exits(3);
    assert_eq!(String::from_utf8_lossy(json.stdout()).matches("\"verdict\":\"unknown\"").count(), 2);
    fs::rename(place.path("away"), place.path("keyring")).unwrap();

    // A rule that is gone judges no more.
    set_policy(&place, &with(&rule(), "name = \"renamed\""));
    run(&place, &["recheck", &good]).exits(3).says("").complains(&format!(
        "kms-sig: {good}: cannot verify it: the policy has no rule \"verify\" any more\n\
         hint: name the rule so again, or release it with --force --to DIR\n"
    ));
    run(&place, &["release", &good, "--force"]).exits(3).says("").complains(&format!(
        "kms-sig: {good}: not released: the policy has no rule \"verify\" any more, so that it has no destination\n\
         hint: name one with --to DIR\n"
    ));
    fs::create_dir(place.path("to")).unwrap();
    run(&place, &["release", &good, "--force", "--to", "to"]).exits(0);
}

// Releasing

#[test]
fn what_is_valid_after_all_is_released_to_where_the_rule_delivers() {
    let place = place(&rule());
    let id = good_after_all(&place, &rule(), "content");
    let at = fs::canonicalize(place.path("out")).unwrap().join("f");
    run(&place, &["release", &id[..24]])
        .exits(0)
        .says(format!("{id}: released to \"{}\"\n", at.display()))
        .complains("");
    assert_eq!(names(&place.path("out")), ["f", "f.sig"]);
    assert_eq!(place.read("out/f"), b"content");
    files::verifies(&place, "out/f", "file=f");
    let there = fs::metadata(&at).unwrap();
    assert_eq!(there.modified().unwrap(), long_ago());
    assert_eq!(there.mode() & 0o7777, 0o644, "777 as it was, but nothing beyond deliver_mode");
    assert_eq!(ids(&place), [""; 0]);
    let why = format!("by uid {}, verified, to \"{}\"", uid(), at.display());
    assert_eq!(history(&place, "released"), [(why, Some("local:demo".into()), id)]);
    // A folder of it is named: it is among what was delivered all the same.
    fs::create_dir(place.path("out/below")).unwrap();
    let other = good_after_all(&place, &rule(), "content");
    run(&place, &["release", &other, "--to", "out/below"]).exits(0);
    assert_eq!(fs::metadata(place.path("out/below/f")).unwrap().mode() & 0o7777, 0o644);
    // The daemon finds nothing to do about it.
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0).says("verify: nothing to do\n");
}

/// Drops a good pair and has the daemon deliver it, and takes it away from there.
fn deliver(place: &Place, file: &str, content: &str) {
    files::drop_pair(place, file, content);
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0);
    take_away(place, file, content);
}

/// Takes a delivered pair away.
fn take_away(place: &Place, file: &str, content: &str) {
    assert_eq!(place.read(format!("out/{file}")), content.as_bytes());
    fs::remove_file(place.path("out").join(file)).unwrap();
    fs::remove_file(place.path("out").join(format!("{file}.sig"))).unwrap();
}

/// Drops a good pair again, and says whether the daemon holds it as superseded. Takes it away in
/// any case.
fn is_held(place: &Place, content: &str) -> bool {
    files::drop_pair(place, "f", content);
    let run = place.run(["watch", "--policy", "policy.toml", "--once"]);
    let is_held = String::from_utf8_lossy(run.stdout()).contains("f: left: held (rollback)");
    match is_held {
        true => ["in/f", "in/f.sig"].iter().for_each(|name| fs::remove_file(place.path(name)).unwrap()),
        false => take_away(place, "f", content),
    };
    is_held
}

#[test]
fn a24_what_is_released_supersedes_what_was_delivered_before() {
    let deny = with(&rule(), "rollback = \"deny\"");
    let place = place(&deny);
    deliver(&place, "f", "3");
    let id = good_after_all(&place, &deny, "4");
    // What cannot be published is no delivered version.
    place.write("out/f", "theirs");
    run(&place, &["release", &id]).exits(3).complains_of("another file has the name");
    fs::remove_file(place.path("out/f")).unwrap();
    assert!(!is_held(&place, "3"));
    // Nor is what is released elsewhere, and what nobody verified.
    fs::create_dir(place.path("to")).unwrap();
    run(&place, &["release", &id, "--to", "to"]).exits(0).complains("");
    assert!(!is_held(&place, "3"));
    let forced = good_after_all(&place, &deny, "5");
    run(&place, &["release", &forced, "--force"]).exits(0);
    take_away(&place, "f", "5");
    assert!(!is_held(&place, "3"));
    for to in [&[][..], &["--to", "out"]] {
        let id = good_after_all(&place, &deny, &format!("after {}", to.len()));
        run(&place, &[&["release", &id], to].concat()).exits(0).complains("");
        take_away(&place, "f", &format!("after {}", to.len()));
        assert!(is_held(&place, "3"), "{to:?}");
    }
    assert!(is_held(&place, "after 0") && !is_held(&place, "after 2"));
}

#[test]
fn a24_what_was_superseded_is_not_released_unnoticed() {
    let deny = with(&rule(), "rollback = \"deny\"");
    let place = place(&deny);
    for content in ["1", "2"] {
        deliver(&place, "f", content);
    }
    fs::create_dir(place.path("to")).unwrap();
    let id = good_after_all(&place, &deny, "1");
    let valid = format!("{id}: valid signature from local:demo");
    let superseded = "this content was superseded earlier under the same name";
    run(&place, &["recheck", &id])
        .exits(0)
        .says(format!("{valid}; {superseded} (rollback is \"deny\")\n"))
        .complains("");
    let json = run(&place, &["recheck", &id, "--json"]).exits(0);
    assert_eq!(serde_json::from_slice::<Value>(json.stdout()).unwrap()["superseded"], true);
    run(&place, &["release", &id]).exits(3).says("").complains(&format!(
        "kms-sig: {id}: not released: {superseded}, and rollback of the rule \"verify\" is \"deny\"\n\
         hint: if going back is meant, name another directory with --to DIR, or add --force, which verifies nothing\n"
    ));
    run(&place, &["release", &id, "--to", "out"]).exits(3).says("");
    assert_eq!((names(&place.path("out")), ids(&place)), (vec![], vec![id.clone()]));
    let warning = |id: &str| format!("warning: {id}: {superseded}\n");
    run(&place, &["release", &id, "--to", "to"]).exits(0).complains(&warning(&id));
    let id = good_after_all(&place, &deny, "1");
    run(&place, &["release", &id, "--force"]).exits(0).complains(&warning(&id));
    take_away(&place, "f", "1");

    let alert = with(&rule(), "rollback = \"alert\"");
    let id = good_after_all(&place, &alert, "1");
    run(&place, &["recheck", &id])
        .exits(0)
        .says(format!("{id}: valid signature from local:demo; {superseded} (rollback is \"alert\")\n"));
    run(&place, &["release", &id]).exits(0).complains(&warning(&id));
    // Where it is off, nobody asks.
    fs::remove_file(place.path("out/f")).unwrap();
    fs::remove_file(place.path("out/f.sig")).unwrap();
    let id = good_after_all(&place, &rule(), "1");
    run(&place, &["recheck", &id]).exits(0).says(format!("{id}: valid signature from local:demo\n"));
    run(&place, &["release", &id]).exits(0).complains("");
}

#[test]
fn p1_what_is_still_invalid_is_not_released() {
    let place = place(&rule());
    let id = quarantined(&place, "f", "1234");
    run(&place, &["release", &id]).exits(1).says("").complains(&format!(
        "kms-sig: {id}: not released: it is still invalid (mismatch)\n\
         hint: kms-sig quarantine show ID says what it is; release --force --to DIR puts it elsewhere, unverified\n"
    ));
    assert_eq!(ids(&place), [&id[..]]);
    assert_eq!(names(&place.path("out")), [""; 0]);
    assert_eq!(history(&place, "released"), []);
    // Nor anywhere else, and not when it cannot be told.
    fs::create_dir(place.path("to")).unwrap();
    run(&place, &["release", &id, "--to", "to"]).exits(1).says("");
    fs::remove_file(place.path("keyring")).unwrap();
    run(&place, &["release", &id]).exits(3).says("");
    assert_eq!((names(&place.path("to")), names(&place.path("out"))), (vec![], vec![]));
}

#[test]
fn force_releases_what_was_judged_and_nothing_else() {
    let place = place(&rule());
    fs::create_dir(place.path("to")).unwrap();
    let id = quarantined(&place, "f", "1234");
    let json = run(&place, &["release", &id, "--force", "--to", "to", "--json"]).exits(0);
    let line: Value = serde_json::from_slice(json.stdout()).unwrap();
    let to = fs::canonicalize(place.path("to")).unwrap();
    let at = to.join("f").to_str().unwrap().to_owned();
    let hex: String = at.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        line,
        serde_json::json!({ "id": id, "released": true, "forced": true, "to": at, "to_hex": hex })
    );
    assert_eq!(place.read("to/f"), b"1234");
    let there = fs::metadata(place.path("to/f")).unwrap();
    assert_eq!((there.mode() & 0o7777, there.modified().unwrap()), (0o750, long_ago()));
    assert_eq!(fs::metadata(place.path("to/f.sig")).unwrap().mode() & 0o7777, 0o644);
    assert_eq!(history(&place, "released"), [(format!("by uid {}, forced, to \"{at}\"", uid()), None, id)]);

    // P3: what the sender made of it since is not what the operator looked at.
    let id = quarantined(&place, "g", "1234");
    fs::write(place.path(format!("q/{id}/payload")), "evil").unwrap();
    run(&place, &["release", &id, "--force", "--to", "to"])
        .exits(3)
        .says("")
        .complains(&format!("kms-sig: {id}: not released: its content changed since it was judged\n{GONE}"));
    assert_eq!(names(&place.path("to")), ["f", "f.sig"]);
    assert_eq!(ids(&place), [id]);
}

#[test]
fn a_missing_signature_and_a_malformed_one_are_released_as_they_are() {
    let place = place(&rule());
    fs::create_dir(place.path("to")).unwrap();
    fs::write(place.path("in/alone"), "1").unwrap();
    let alone = quarantine_all(&place);
    fs::write(place.path("in/odd"), "2").unwrap();
    fs::write(place.path("in/odd.sig"), "untrusted comment: of minisign").unwrap();
    let odd = quarantine_all(&place);
    run(&place, &["show", &odd]).exits(0);
    run(&place, &["recheck", "--all"])
        .exits(1)
        .says(format!("{alone}: invalid: missing\n{odd}: invalid: malformed\n"));
    run(&place, &["release", &alone, &odd, "--force", "--to", "to"]).exits(0);
    assert_eq!(names(&place.path("to")), ["alone", "odd", "odd.sig"]);
    assert_eq!(place.read("to/odd.sig"), b"untrusted comment: of minisign");
}

#[test]
fn p8_nothing_is_overwritten_by_a_release() {
    for (file, content, what) in [
        ("out/f", "theirs", "another file has the name"),
        ("out/f.sig", "theirs", "another signature has its signature's name"),
    ] {
        let place = place(&rule());
        let id = good_after_all(&place, &rule(), "content");
        place.write(file, content);
        let at = fs::canonicalize(place.path("out")).unwrap().join("f");
        run(&place, &["release", &id])
            .exits(3)
            .says("")
            .complains(&format!("kms-sig: {id}: not released to \"{}\": {what}\n{LOOK}", at.display()));
        assert_eq!(place.read(file), content.as_bytes());
        assert_eq!(names(&place.path("out")).len(), 1);
        assert_eq!(ids(&place), [&id[..]]);
        // What is equal is as good: a kill came in between, or somebody was quicker.
        fs::remove_file(place.path(file)).unwrap();
        place.write("out/f", "content");
        run(&place, &["release", &id]).exits(0);
        files::verifies(&place, "out/f", "file=f");
        assert_eq!(ids(&place), [""; 0]);
    }
    // A payload without a signature is not put beside somebody's.
    let place = place(&rule());
    fs::write(place.path("in/f"), "1").unwrap();
    let id = quarantine_all(&place);
    place.write("out/f.sig", "theirs");
    run(&place, &["release", &id, "--force"]).exits(3);
    assert_eq!(names(&place.path("out")), ["f.sig"]);
}

#[test]
fn a_rule_that_does_not_deliver_gets_its_files_back() {
    let in_place: String = rule()
        .lines()
        .filter(|line| !line.starts_with("deliver_to"))
        .fold(String::new(), |text, line| format!("{text}{line}\n"));
    let in_place = with(&with(&in_place, "in_place = true"), "recursive = true");
    let place = place(&in_place);
    set_policy(&place, &with(&in_place, "context = { file = \"wrong\" }"));
    fs::create_dir(place.path("in/sub")).unwrap();
    let (payload, signature) = sign(&place, "f", "content");
    fs::rename(payload, place.path("in/sub/f")).unwrap();
    fs::rename(signature, place.path("in/sub/f.sig")).unwrap();
    let id = quarantine_all(&place);
    fs::remove_dir(place.path("in/sub")).unwrap();
    set_policy(&place, &in_place);
    run(&place, &["release", &id]).exits(0);
    assert_eq!(place.read("in/sub/f"), b"content");
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0).says("verify: 1 valid\n");

    // The rule watches another folder by now.
    let id = quarantined(&place, "g", "1234");
    fs::create_dir(place.path("elsewhere")).unwrap();
    set_policy(&place, &with(&in_place, "path = \"elsewhere\""));
    let root = fs::canonicalize(place.path("in")).unwrap();
    run(&place, &["release", &id, "--force"]).exits(3).says("").complains(&format!(
        "kms-sig: {id}: not released: it came from \"{}\", which the rule \"verify\" does not watch; name --to DIR\n",
        root.display()
    ));
}

#[test]
fn a_release_leaves_room_and_never_goes_into_the_store() {
    let place = place(&rule());
    let id = quarantined(&place, "f", "1234");
    run(&place, &["release", &id, "--force", "--to", "q"])
        .exits(2)
        .says("")
        .complains("kms-sig: \"q\" lies in the quarantine\nhint: name another directory\n");
    let policy = String::from_utf8(place.read("policy.toml")).unwrap();
    place.write("policy.toml", format!("limits.min_free_space = \"7EiB\"\n{policy}"));
    run(&place, &["release", &id, "--force"]).exits(3).says("").complains_of("bytes are free in");
    assert_eq!((ids(&place), names(&place.path("out"))), (vec![id], vec![]));
}

#[test]
fn what_cannot_be_put_on_record_stays() {
    let place = place(&rule());
    let id = quarantined(&place, "f", "1234");
    fs::rename(place.path("state"), place.path("lost")).unwrap();
    run(&place, &["purge", &id]).exits(2).says("").complains_of("does not exist");
    fs::create_dir(place.path("state")).unwrap();
    run(&place, &["purge", &id]).exits(3).says("").complains_of("start the daemon once, which begins it");
    run(&place, &["release", &id, "--force"]).exits(3).says("");
    assert_eq!((ids(&place), names(&place.path("out"))), (vec![id], vec![]));
}

#[test]
fn p4_what_is_released_and_cannot_be_put_on_record_is_told_as_that() {
    let place = place(&rule());
    let id = good_after_all(&place, &rule(), "content");
    let db = rusqlite::Connection::open(place.path("state/state.db")).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    let at = |name: &str| fs::canonicalize(place.path(name)).unwrap();
    let held = run(&place, &["release", &id, "--json"]).exits(3).complains(&format!(
        "kms-sig: {id}: released to \"{}\", but not put on record: another process keeps the state in \"{}\" locked\n\
         hint: the item stays: end the process that keeps state.db locked, then repeat the command to record it\n",
        at("out").join("f").display(),
        at("state").join("state.db").display(),
    ));
    assert_eq!(
        (names(&place.path("out")), ids(&place)),
        (vec!["f".into(), "f.sig".into()], vec![id.clone()])
    );
    let line: Value = serde_json::from_slice(held.stdout()).unwrap();
    assert_eq!((&line["released"], &line["to"]), (&true.into(), &at("out").join("f").to_str().into()));
    assert!(line["why"].as_str().unwrap().contains("not put on record"), "{line}");
    db.execute_batch("ROLLBACK").unwrap();
    assert_eq!(history(&place, "released"), []);
    run(&place, &["release", &id]).exits(0).complains("");
    assert_eq!((history(&place, "released").len(), ids(&place).len()), (1, 0));
}

// Purging

#[test]
fn purge_takes_ids_or_asks_for_a_yes() {
    let place = place(&rule());
    let all: Vec<_> = ["a", "b", "c"].iter().map(|file| quarantined(&place, file, file)).collect();
    run(&place, &["purge", &all[0]]).exits(0).says(format!("{}: purged\n", all[0])).complains("");
    assert_eq!(ids(&place).len(), 2);
    let unconfirmed = "kms-sig: 2 items would be purged for good\n\
        hint: look with kms-sig quarantine list, then add --yes\n";
    run(&place, &["purge", "--rule", "verify"]).exits(2).says("").complains(unconfirmed);
    run(&place, &["purge", "--older-than", "0s"]).exits(2).says("").complains(unconfirmed);
    run(&place, &["purge", "--older-than", "1h", "--yes"]).exits(0).says("nothing to purge\n").complains("");
    run(&place, &["purge", "--rule", "other", "--yes"]).exits(0).says("nothing to purge\n");
    run(&place, &["purge"]).exits(2);
    run(&place, &["purge", &all[1], "--rule", "verify", "--yes"]).exits(2);
    assert_eq!(ids(&place).len(), 2);
    run(&place, &["purge", "--rule", "verify", "--older-than", "0s", "--yes", "--json"]).exits(0).says(
        format!("{{\"id\":\"{}\",\"purged\":true}}\n{{\"id\":\"{}\",\"purged\":true}}\n", all[1], all[2]),
    );
    assert_eq!(ids(&place), [""; 0]);
    let why = format!("by uid {}", uid());
    let rows: Vec<_> = all.into_iter().map(|id| (why.clone(), None, id)).collect();
    assert_eq!(history(&place, "purged"), rows);
}

// What a store may hold

#[test]
fn a19_what_does_not_hold_together_is_told_and_left_alone() {
    let place = place(&rule());
    let good = quarantined(&place, "f", "1234");
    let (head, _) = good.rsplit_once('-').unwrap();
    let plant = |random: &str, change: &dyn Fn(&mut Value)| {
        let id = format!("{head}-{random}");
        fs::create_dir(place.path(format!("q/{id}"))).unwrap();
        place.write(format!("q/{id}/payload"), "planted");
        let mut record = record(&place, &good);
        record["id"] = id.clone().into();
        change(&mut record);
        place.write(format!("q/{id}/record.json"), record.to_string());
        id
    };
    let hex = |path: &str| path.bytes().map(|b| format!("{b:02x}")).collect::<String>();
    let out = plant("00000001", &|r| r["path_hex"] = hex("../out/f").into());
    let absolute = plant("00000002", &|r| r["path_hex"] = hex("/etc/f").into());
    let other = plant("00000003", &|r| r["id"] = good.clone().into());
    let link = format!("{head}-00000004");
    symlink(place.path("out"), place.path(format!("q/{link}"))).unwrap();
    fs::create_dir(place.path("q/not ours")).unwrap();
    let why = |id: &str, why: &str| {
        format!(
            "kms-sig: {id}: it is not as the daemon left it: {why}\n\
         hint: look into its folder in the quarantine directory; nothing was done to it\n"
        )
    };
    let path = "its record does not hold a path inside the watched directory";
    let told = format!(
        "{}{}{}{}",
        why(&out, path),
        why(&absolute, path),
        why(&other, "its record is about another item"),
        why(&link, "a file or link has its name")
    );
    run(&place, &["recheck", "--all"]).exits(3).says(format!("{good}: invalid: mismatch\n")).complains(&told);
    for id in [&out, &absolute, &other, &link] {
        run(&place, &["release", id, "--force"]).exits(3).says("");
        run(&place, &["purge", id]).exits(3).says("");
    }
    run(&place, &["purge", "--rule", "verify", "--yes"]).exits(0).says(format!("{good}: purged\n"));
    assert_eq!(ids(&place), [out, absolute, other, link, "not ours".into()]);
    assert_eq!(names(&place.path("out")), [""; 0]);
    // Nor does the daemon fall over it.
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0);
    assert_eq!(ids(&place).len(), 5);
    // Something is there, although it is no item.
    run(&place, &["list"]).exits(3).says("").complains(&told);
}

#[test]
fn p10_many_items_need_few_descriptors() {
    let place = place(&rule());
    let id = quarantined(&place, "f", "1234");
    let (head, _) = id.rsplit_once('-').unwrap();
    for n in 0..60 {
        let copy = format!("{head}-{n:08x}");
        fs::create_dir(place.path(format!("q/{copy}"))).unwrap();
        fs::copy(place.path(format!("q/{id}/payload")), place.path(format!("q/{copy}/payload"))).unwrap();
        let mut record = record(&place, &id);
        record["id"] = copy.clone().into();
        place.write(format!("q/{copy}/record.json"), record.to_string());
    }
    for words in ["list", "recheck --all", "purge --rule verify --yes"] {
        let script = format!("ulimit -n 30; exec $KMS_SIG quarantine {words} --policy policy.toml");
        place.shell(&script).exits(i32::from(words == "recheck --all")).complains("");
    }
    assert_eq!(ids(&place), [""; 0]);
}

#[test]
fn what_another_process_works_on_is_left_to_it() {
    let place = place(&rule());
    let id = quarantined(&place, "f", "1234");
    let folder = fs::File::open(place.path(format!("q/{id}"))).unwrap();
    rustix::fs::flock(&folder, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let busy = format!("kms-sig: {id}: another process is working on it; try again\n");
    for words in [&["purge", &id][..], &["recheck", &id], &["release", &id, "--force"]] {
        run(&place, words).exits(3).says("").complains(&busy);
    }
    run(&place, &["show", &id]).exits(0);
    // Not by closing it: a process that another test is just starting may have it open still.
    rustix::fs::flock(&folder, rustix::fs::FlockOperation::Unlock).unwrap();
    run(&place, &["purge", &id]).exits(0);
}

#[test]
fn names_that_are_no_text_come_back_as_they_were() {
    let place = place(&rule());
    fs::write(place.path("in").join(name(b"\xff\x1b[31m")), "1").unwrap();
    let id = quarantine_all(&place);
    fs::create_dir(place.path("to")).unwrap();
    run(&place, &["release", &id, "--force", "--to", "to"]).exits(0).says(format!(
        "{id}: released to \"{}/\\xff\\x1b[31m\"\n",
        fs::canonicalize(place.path("to")).unwrap().display()
    ));
    assert!(place.path("to").join(name(b"\xff\x1b[31m")).exists());
}

// The daemon

/// A rule with room for one item of the tests.
fn small() -> String {
    with(&rule(), "quarantine_max_size = \"64KiB\"")
}

#[test]
fn o8_a_rule_whose_share_is_full_holds_and_goes_on_when_there_is_room() {
    let place = place(&small());
    let daemon = Daemon::start(&place);
    drop_tampered(&place, "a", "1");
    daemon.waits_for("quarantined");
    drop_tampered(&place, "b", "2");
    let held = daemon.waits_for("held");
    assert_eq!((&held["cause"], &held["rule"]), (&"quarantine-full".into(), &"verify".into()));
    drop_tampered(&place, "c", "3");
    // What is valid is not held up, and the shares of others are their own.
    files::drop_pair(&place, "good", "content");
    daemon.waits_for("delivered");
    assert_eq!((ids(&place).len(), daemon.count("held")), (1, 1), "nothing is deleted, and it is told once");
    assert!(place.path("in/b").exists());

    // Somebody makes room, beside the daemon.
    run(&place, &["purge", "--rule", "verify", "--yes"]).exits(0);
    daemon.waits_for_nth("quarantined", 2);
    run(&place, &["purge", "--rule", "verify", "--yes"]).exits(0);
    daemon.waits_for_nth("quarantined", 3);
    daemon.waits_for("held files are processed again");
    assert_eq!(names(&place.path("in")), [""; 0]);
    assert_eq!(history(&place, "purged").len(), 2);
    assert_eq!(history(&place, "quarantined").len(), 3);

    // What it has counted survives a restart, and a reload that gives more room is enough.
    daemon.stop();
    let daemon = Daemon::start(&place);
    drop_tampered(&place, "d", "4");
    daemon.waits_for("held");
    set_policy(&place, &rule());
    daemon.hang_up();
    daemon.waits_for("quarantined");
    assert_eq!(ids(&place).len(), 2);
}

#[test]
fn o8_a_sender_who_makes_a_file_longer_in_the_store_fills_no_share() {
    let place = place(&with(&rule(), "quarantine_max_size = \"200KiB\""));
    let first = quarantined(&place, "a", "1234");
    let size = || {
        let json = run(&place, &["list", "--json"]).exits(0);
        let line = json.stdout().split(|byte| *byte == b'\n').next().unwrap().to_vec();
        serde_json::from_slice::<Value>(&line).unwrap()["size"].as_u64().unwrap()
    };
    let was = size();
    for part in ["payload", "payload.sig"] {
        resize(&place, &format!("{first}/{part}"), 1 << 40);
    }
    assert_eq!(size(), was);
    quarantined(&place, "b", "1234");
    // Nor while the daemon runs.
    let daemon = Daemon::start(&place);
    drop_tampered(&place, "c", "1234");
    daemon.waits_for("quarantined");
    assert_eq!(ids(&place).len(), 3);
}

/// An empty file takes inodes: its own, and those of its folder and its record.
#[test]
fn o8_empty_files_count() {
    let place = place(&with(&rule(), "quarantine_max_size = \"1MiB\""));
    for n in 0..40 {
        place.write(format!("in/{n}"), "");
        place.write(format!("in/{n}.sig"), "");
    }
    let run = place.run(["watch", "--policy", "policy.toml", "--once"]).exits(3);
    let said = String::from_utf8_lossy(run.stdout()).into_owned();
    assert!(said.contains("left: held (quarantine-full)"), "{said}");
    assert_eq!(ids(&place).len(), 16, "of 64 KiB each");
    let list = run_list(&place);
    assert!(
        list.ends_with("verify: 16 items, 0 B; they count 1.0 MiB of quarantine_max_size, 1.0 MiB\n"),
        "{list}"
    );
}

fn run_list(place: &Place) -> String {
    String::from_utf8(run(place, &["list"]).exits(0).stdout().to_vec()).unwrap()
}

#[test]
fn o8_with_once_what_has_no_room_is_left_and_said() {
    let place = place(&with(&rule(), "quarantine_max_size = 1"));
    drop_tampered(&place, "f", "1234");
    let run = place.run(["watch", "--policy", "policy.toml", "--once"]).exits(3);
    let said = String::from_utf8_lossy(run.stdout()).into_owned();
    assert!(said.contains("f: left: held (quarantine-full)"), "{said}");
    assert!(
        said.contains("; raise quarantine_max_size of the rule, which this one file exceeds, "),
        "{said}"
    );
    assert_eq!((ids(&place).len(), names(&place.path("in"))), (0, vec!["f".into(), "f.sig".into()]));
}

#[test]
fn o8_what_a_rule_keeps_no_longer_is_purged_and_told() {
    let keeps = with(&rule(), "quarantine_keep = \"1ms\"");
    let place = place(&rule());
    let old = quarantined(&place, "f", "1234");
    // Not by a rule that does not say so.
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0);
    assert_eq!(ids(&place), [&old[..]]);
    let at = record(&place, &old)["quarantined_at"].clone();
    set_policy(&place, &keeps);
    let daemon = Daemon::start(&place);
    let event = daemon.waits_for("purged from quarantine");
    assert_eq!(
        (&event["level"], &event["item"], &event["file"]),
        (&"INFO".into(), &old.clone().into(), &"f".into())
    );
    assert_eq!((&event["rule"], &event["quarantined_at"]), (&"verify".into(), &at));
    daemon.until("removed", || ids(&place).is_empty());
    assert_eq!(history(&place, "purged"), [("quarantine_keep".into(), None, old)]);
    daemon.stop();

    // With --once as well; and an item of another rule is that rule's.
    set_policy(&place, &rule());
    quarantined(&place, "g", "1234");
    set_policy(&place, &with(&keeps, "name = \"renamed\""));
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0);
    assert_eq!(ids(&place).len(), 1);
    set_policy(&place, &keeps);
    place.run(["watch", "--policy", "policy.toml", "--once", "--dry-run"]).exits(0);
    assert_eq!(ids(&place).len(), 1);
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0);
    assert_eq!(ids(&place).len(), 0);
}

#[test]
fn o1_a_reload_whose_store_cannot_be_used_is_refused() {
    let place = place(&rule());
    let daemon = Daemon::start(&place);
    let policy = String::from_utf8(place.read("policy.toml")).unwrap();
    fs::create_dir(place.path("open")).unwrap();
    fs::set_permissions(place.path("open"), Permissions::from_mode(0o755)).unwrap();
    place.write("file", "");
    symlink("q", place.path("link")).unwrap();
    for (n, store) in ["open", "file", "link", "file/below"].iter().enumerate() {
        place.write(
            "policy.toml",
            policy.replace("quarantine.dir = \"q\"", &format!("quarantine.dir = {store:?}")),
        );
        daemon.hang_up();
        daemon.waits_for_nth("reload refused; the old policy stays", n + 1);
    }
    drop_tampered(&place, "f", "1234");
    daemon.waits_for("quarantined");
    assert_eq!(ids(&place).len(), 1);
    assert!(!Path::new(&place.path("open")).join("f").exists());
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn p7_nothing_is_released_to_where_others_may_write() {
    let place = place(&rule());
    let id = quarantined(&place, "f", "1234");
    fs::create_dir(place.path("to")).unwrap();
    fs::set_permissions(place.path("to"), Permissions::from_mode(0o777)).unwrap();
    let said = format!(
        "kms-sig: \"{}\" can be written by others (mode 0777)\n\
         hint: name a directory that only root or the daemon's user can write to\n",
        fs::canonicalize(place.path("to")).unwrap().display()
    );
    run(&place, &["release", &id, "--force", "--to", "to"]).exits(2).says("").complains(&said);
    assert_eq!((names(&place.path("to")).len(), ids(&place)), (0, vec![id]));
}

#[test]
fn a6_force_releases_the_signature_that_was_judged_and_no_other() {
    let place = place(&rule());
    fs::create_dir(place.path("to")).unwrap();
    let release = |id: &str| run(&place, &["release", id, "--force", "--to", "to"]);
    // The sender still has it open.
    let changed = |id: &str, bytes: &[u8]| {
        let path = place.path(format!("q/{id}/payload.sig"));
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        fs::write(path, bytes).unwrap();
    };
    let id = quarantined(&place, "f", "1234");
    let judged = place.read(format!("q/{id}/payload.sig"));
    for bytes in [&b"another"[..], b""] {
        changed(&id, bytes);
        release(&id).exits(3).says("").complains_of("its signature changed since it was judged");
    }
    changed(&id, &[7; 20_000]);
    let overlong = format!(
        "kms-sig: {id}: not released: its signature is longer than any, and was never read\n\
         hint: if its payload is needed, copy it by hand (kms-sig quarantine show ID names its folder)\n"
    );
    release(&id).exits(3).complains(&overlong);
    run(&place, &["release", &id]).exits(1).complains(&overlong);
    assert_eq!(names(&place.path("to")).len(), 0);
    changed(&id, &judged);
    release(&id).exits(0);
    assert_eq!(place.read("to/f.sig"), judged);
    // What can be no signature is compared as well.
    place.write("in/g", "1234");
    place.write("in/g.sig", "-----BEGIN PGP SIGNATURE-----");
    let id = quarantine_all(&place);
    changed(&id, b"-----BEGIN PGP SIGNATURE----!");
    release(&id).exits(3).complains_of("its signature changed since it was judged");
}
