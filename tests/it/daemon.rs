//! The daemon as a process: what is signed, delivered, quarantined and held, what it does about
//! trouble, and how it ends and reloads.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::time::{Duration, Instant};

use crate::support::control::asked;
use crate::support::daemon::Daemon;
use crate::support::files::{drop_pair, names, record, sign, verifies};
use crate::support::place::{Place, name};
use crate::support::policy::{SIGN, VERIFY, impatient, place, set_policy, with, without};
// Signing

#[test]
fn what_is_dropped_is_signed() {
    let place = place(SIGN);
    place.write("in/before", "there before the start"); // W17
    let daemon = Daemon::start(&place);
    daemon.waits_for("signed");
    place.write("in/after", "dropped while it runs");
    place.write("in/empty", ""); // S15
    daemon.waits_for_nth("signed", 3);
    for file in ["before", "after", "empty"] {
        verifies(&place, &format!("in/{file}"), &format!("file={file}"));
        assert_eq!(fs::metadata(place.path(format!("in/{file}.sig"))).unwrap().mode() & 0o7777, 0o644);
    }
    assert_eq!(
        names(&place.path("in")),
        ["after", "after.sig", "before", "before.sig", "empty", "empty.sig"]
    );
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn a_name_of_two_words_is_signed() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    place.write("in/two words", "content");
    daemon.waits_for("signed");
    verifies(&place, "in/two words", "file=two words");
}

#[test]
fn p6_what_is_not_meant_is_left_alone() {
    let place = place(&with(SIGN, "include = [\"*\", \"*.tmp\"]"));
    for file in ["a.part", ".hidden", "b~", "c.sig", ".kms-sig-x", "z"] {
        place.write(format!("in/{file}"), file);
    }
    place.write("in/d.tmp", "included by name");
    fs::create_dir(place.path("in/dir")).unwrap();
    let daemon = Daemon::start(&place);
    daemon.waits_for_nth("signed", 2);
    let signed: Vec<_> = names(&place.path("in")).into_iter().filter(|n| n.ends_with(".sig")).collect();
    assert_eq!(signed, ["c.sig", "d.tmp.sig", "z.sig"]);
}

/// Reads a signature as soon as it is there, as a sender does who waits for nothing else.
fn snatched(place: &Place, name: &str) -> Vec<u8> {
    let (path, began) = (place.path(format!("in/{name}.sig")), Instant::now());
    loop {
        match fs::read(&path) {
            Ok(bytes) if !bytes.is_empty() => return bytes,
            _ => assert!(began.elapsed() < Duration::from_secs(60), "{name} is not signed"),
        }
    }
}

#[test]
fn a35_every_signature_that_a_sender_can_take_is_on_record() {
    let place = place(&with(SIGN, "on_stale = \"resign\""));
    fs::create_dir(place.path("taken")).unwrap();
    let daemon = Daemon::start(&place);
    for n in 0..20 {
        let name = format!("f{n}");
        place.write(format!("in/{name}"), format!("evil {n}"));
        place.write(format!("taken/{n}"), snatched(&place, &name));
        match n % 2 {
            0 => place.write(format!("in/{name}"), format!("innocent {n}")),
            _ => {
                fs::rename(place.path(format!("in/{name}")), place.path(format!("taken/{name}"))).unwrap();
                fs::remove_file(place.path(format!("in/{name}.sig"))).ok(); // it may be taken back
            }
        }
    }
    daemon.stop();
    let on_record: Vec<_> = asked(&place, "history --json")
        .into_iter()
        .map(|row| row["signature_digest"].as_str().unwrap_or_default().to_owned())
        .collect();
    for n in 0..20 {
        let sum = place.shell(&format!("sha512sum <taken/{n} | cut -d' ' -f1")).exits(0);
        let sum = String::from_utf8(sum.stdout().to_vec()).unwrap();
        assert!(on_record.iter().any(|digest| digest.ends_with(sum.trim())), "{n}: {on_record:?}");
    }
}

#[test]
fn a35_a_pair_that_is_moved_as_soon_as_it_is_signed_stays_a_pair() {
    let place = place(SIGN);
    fs::create_dir(place.path("taken")).unwrap();
    let daemon = Daemon::start(&place);
    for n in 0..15 {
        place.write(format!("in/f{n}"), format!("content {n}"));
        let signature = snatched(&place, &format!("f{n}"));
        fs::rename(place.path(format!("in/f{n}")), place.path(format!("taken/f{n}"))).unwrap();
        daemon.waits_for_nth("signed", n + 1);
        assert_eq!(place.read(format!("in/f{n}.sig")), signature);
        verifies_as(&place, n);
    }
}

fn verifies_as(place: &Place, n: usize) {
    fs::rename(place.path(format!("in/f{n}.sig")), place.path(format!("taken/f{n}.sig"))).unwrap();
    verifies(place, &format!("taken/f{n}"), &format!("file=f{n}"));
}

#[test]
fn a_restart_signs_nothing_twice() {
    let place = place(SIGN);
    place.write("in/f", "content");
    let daemon = Daemon::start(&place);
    daemon.waits_for("signed");
    let before = place.read("in/f.sig");
    daemon.stop();
    let daemon = Daemon::start(&place);
    place.write("in/g", "another");
    daemon.waits_for("signed");
    assert_eq!(daemon.count("signed"), 1);
    assert_eq!(place.read("in/f.sig"), before);
    daemon.stop();
    // C12: without state, the signature is verified and adopted, not made anew.
    fs::remove_dir_all(place.path("state")).unwrap();
    let daemon = Daemon::start(&place);
    daemon.waits_for_nth("a valid signature was there; adopted", 2);
    assert_eq!(place.read("in/f.sig"), before);
}

#[test]
fn a_restart_hashes_nothing_and_asks_no_key_about_what_is_signed() {
    let place = place(SIGN);
    place.write("in/f", "content");
    let daemon = Daemon::start(&place);
    daemon.waits_for("signed");
    daemon.stop();
    fs::rename(place.path("keyring"), place.path("aside")).unwrap();
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0).says("sign: 1 unchanged\n");
    fs::rename(place.path("aside"), place.path("keyring")).unwrap();
    let daemon = Daemon::start(&place);
    place.write("in/g", "another one");
    daemon.waits_for("signed");
    let status = crate::support::control::status(&place);
    assert_eq!(status["rules"][0]["hashed_bytes"], "another one".len(), "{status}");
}

#[test]
fn s7_a_stale_signature_is_dealt_with_as_the_rule_says() {
    for (on_stale, message) in [("resign", "signed"), ("report", "refused"), ("quarantine", "quarantined")] {
        let place = place(&with(SIGN, &format!("on_stale = {on_stale:?}")));
        let daemon = Daemon::start(&place);
        place.write("in/f", "content");
        daemon.waits_for("signed");
        let old = place.read("in/f.sig");
        place.write("in/f", "other content");
        daemon.waits_for_nth(message, if on_stale == "resign" { 2 } else { 1 });
        match on_stale {
            "resign" => verifies(&place, "in/f", "file=f"),
            "report" => assert_eq!(place.read("in/f.sig"), old),
            _ => {
                assert_eq!(names(&place.path("in")), [""; 0]);
                assert_eq!(record(&place)["reason"], "mismatch");
            }
        }
        if on_stale == "report" {
            // A restart says it once more only if there is something new to say.
            daemon.stop();
            let daemon = Daemon::start(&place);
            place.write("in/g", "another");
            daemon.waits_for("signed");
            assert_eq!(daemon.count("refused"), 0);
            // Now the rule allows it.
            daemon.stop();
            set_policy(&place, &with(SIGN, "on_stale = \"resign\""));
            let daemon = Daemon::start(&place);
            daemon.waits_for("signed");
            verifies(&place, "in/f", "file=f");
        }
    }
}

#[test]
fn p8_signatures_of_others_are_reported_and_not_touched() {
    let place = place(&with(SIGN, "on_stale = \"resign\""));
    let pgp = "-----BEGIN PGP SIGNATURE-----\n\nabc\n";
    for (file, signature) in [("pgp", pgp), ("noise", "not a signature of ours"), ("empty", "")] {
        place.write(format!("in/{file}.sig"), signature);
        place.write(format!("in/{file}"), "content");
    }
    place.write("in/linked", "content");
    symlink("/etc/passwd", place.path("in/linked.sig")).unwrap(); // A3
    let daemon = Daemon::start(&place);
    daemon.waits_for_nth("refused", 4);
    assert_eq!(place.read("in/pgp.sig"), pgp.as_bytes());
    assert_eq!(place.read("in/noise.sig"), b"not a signature of ours");
    assert_eq!(place.read("in/empty.sig"), b"");
    assert!(fs::symlink_metadata(place.path("in/linked.sig")).unwrap().is_symlink());
    assert_eq!(daemon.count("signed"), 0);
}

#[test]
fn a_sign_rule_can_deliver() {
    let place = place(&with(&with(SIGN, "deliver_to = \"out\""), "deliver_mode = \"0640\""));
    let daemon = Daemon::start(&place);
    place.write("in/f", "content");
    daemon.until("delivered and removed", || {
        names(&place.path("in")).is_empty() && place.path("out/f").exists()
    });
    verifies(&place, "out/f", "file=f");
    assert_eq!(fs::metadata(place.path("out/f")).unwrap().mode() & 0o7777, 0o640);
    // The same file again: one is there already, and that is success.
    let before = place.read("out/f.sig");
    place.write("in/f", "content");
    daemon.until("removed", || names(&place.path("in")).is_empty());
    assert_eq!(place.read("out/f.sig"), before);
}

// Verifying

#[test]
fn a_valid_pair_is_delivered_in_either_order_of_arrival() {
    let place = place(VERIFY);
    let daemon = Daemon::start(&place);
    let (payload, signature) = sign(&place, "one", "first the payload");
    fs::rename(payload, place.path("in/one")).unwrap();
    fs::rename(signature, place.path("in/one.sig")).unwrap();
    let (payload, signature) = sign(&place, "two", "first the signature"); // S11
    let bytes = fs::read(&signature).unwrap();
    fs::rename(signature, place.path("in/two.sig")).unwrap();
    fs::rename(payload, place.path("in/two")).unwrap();
    daemon.until("delivered and removed", || names(&place.path("in")).is_empty());
    assert_eq!(names(&place.path("out")), ["one", "one.sig", "two", "two.sig"]);
    assert_eq!(place.read("out/two"), b"first the signature");
    assert_eq!(place.read("out/two.sig"), bytes, "the bytes judged are the bytes delivered");
    assert_eq!(fs::metadata(place.path("out/two")).unwrap().mode() & 0o7777, 0o644);
    assert_eq!(names(&place.path("q")), [""; 0]);
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn p1_an_invalid_pair_is_quarantined_with_its_reason() {
    for reason in ["mismatch", "rejected", "wrong-key", "malformed", "missing"] {
        let place = place(&if reason == "missing" { impatient(VERIFY) } else { VERIFY.to_owned() });
        let (payload, signature) = sign(&place, "f", "content");
        match reason {
            "mismatch" => fs::write(&payload, "tampered").unwrap(),
            "rejected" => {
                let mut bytes = fs::read(&signature).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                fs::write(&signature, bytes).unwrap();
            }
            "wrong-key" => {
                place.run(["key", "create", "local:other"]).exits(0);
                place.run(["sign", "local:other", "made/f", "--context", "file=f"]).exits(0);
            }
            "malformed" => fs::write(&signature, vec![1; 6145]).unwrap(), // A16
            _ => fs::remove_file(&signature).unwrap(),
        }
        let content = fs::read(&payload).unwrap();
        fs::rename(payload, place.path("in/f")).unwrap();
        fs::rename(signature, place.path("in/f.sig")).ok();
        let daemon = Daemon::start(&place);
        let event = daemon.waits_for("quarantined");
        assert_eq!(event["reason"], reason);
        let record = record(&place);
        assert_eq!(record["reason"], reason);
        assert_eq!(record["path"], "f");
        let item = format!("q/{}", record["id"].as_str().unwrap());
        assert_eq!(place.read(format!("{item}/payload")), content);
        assert_eq!(place.path(format!("{item}/payload.sig")).exists(), reason != "missing");
        assert_eq!(names(&place.path("in")), [""; 0]);
        assert_eq!(names(&place.path("out")), [""; 0], "{reason}");
    }
}

#[test]
fn a_rule_that_logs_leaves_the_pair_and_says_so_once() {
    let rule = with(&with(VERIFY, "on_invalid = \"log\""), "on_missing = \"log\"");
    let place = place(&impatient(&rule));
    let (payload, signature) = sign(&place, "f", "content");
    fs::write(&payload, "tampered").unwrap();
    fs::rename(payload, place.path("in/f")).unwrap();
    fs::rename(signature, place.path("in/f.sig")).unwrap();
    place.write("in/alone", "never signed"); // S12
    let daemon = Daemon::start(&place);
    daemon.waits_for_nth("invalid", 2);
    daemon.stop();
    set_policy(&place, &rule);
    let daemon = Daemon::start(&place);
    drop_pair(&place, "good", "content");
    daemon.waits_for("delivered");
    assert_eq!(daemon.count("invalid"), 0);
    daemon.until("removed", || names(&place.path("in")) == ["alone", "f", "f.sig"]);
    // Mended, it is judged anew.
    fs::write(place.path("in/f"), "content").unwrap();
    daemon.waits_for_nth("delivered", 2);
}

#[test]
fn a_pair_can_be_judged_in_place() {
    let place = place(&with(&without(VERIFY, "deliver_to"), "in_place = true"));
    drop_pair(&place, "f", "content");
    let daemon = Daemon::start(&place);
    daemon.waits_for("valid");
    assert_eq!(names(&place.path("in")), ["f", "f.sig"]);
    place.write("in/f", "tampered afterwards");
    daemon.waits_for("quarantined");
    assert_eq!(names(&place.path("in")), [""; 0]);
}

#[test]
fn s1_an_upload_under_way_is_not_judged() {
    let place = place(&with(VERIFY, "grace = \"10m\""));
    let (payload, signature) = sign(&place, "f", "first half, second half");
    fs::rename(signature, place.path("in/f.sig")).unwrap();
    place.write("in/f", "first half,");
    let daemon = Daemon::start(&place);
    // It settles, does not verify, and that is not final: another pair is dealt with meanwhile.
    drop_pair(&place, "g", "content");
    daemon.waits_for("delivered");
    daemon.until("removed", || names(&place.path("in")) == ["f", "f.sig"]);
    fs::copy(payload, place.path("in/f")).unwrap();
    daemon.waits_for_nth("delivered", 2);
    assert_eq!(place.read("out/f"), b"first half, second half");
}

#[test]
fn p8_nothing_at_the_destination_is_replaced() {
    let place = place(VERIFY);
    place.write("out/other", "something else"); // A21
    symlink("elsewhere", place.path("out/link")).unwrap(); // A22
    fs::create_dir(place.path("out/dir")).unwrap();
    for file in ["other", "link", "dir"] {
        drop_pair(&place, file, "content");
    }
    let daemon = Daemon::start(&place);
    daemon.waits_for("held");
    // A20: an equal one is success.
    let (payload, signature) = sign(&place, "same", "equal");
    fs::copy(&payload, place.path("out/same")).unwrap();
    fs::copy(&signature, place.path("out/same.sig")).unwrap();
    drop_pair(&place, "same", "equal"); // with another, equally valid signature
    daemon.until("removed", || !place.path("in/same").exists());
    drop_pair(&place, "good", "content");
    daemon.until("delivered", || place.path("out/good").exists());
    assert_eq!(place.read("out/other"), b"something else");
    assert!(fs::symlink_metadata(place.path("out/link")).unwrap().is_symlink());
    assert!(!place.path("out/elsewhere").exists());
    for file in ["other", "link", "dir"] {
        assert!(place.path(format!("in/{file}")).exists(), "{file} is kept");
        assert!(!place.path(format!("out/{file}.sig")).exists(), "{file} has no signature beside it");
    }
    assert_eq!(names(&place.path("q")), [""; 0]);
    // The way is freed, and the pair goes on.
    fs::remove_file(place.path("out/other")).unwrap();
    daemon.until("delivered", || place.path("out/other").exists() && !place.path("in/other").exists());
}

#[test]
fn p9_what_is_no_plain_file_is_refused_and_never_opened() {
    let place = place(&with(VERIFY, "max_size = \"1KiB\""));
    symlink("/etc/passwd", place.path("in/link")).unwrap(); // A1
    place.shell("mkfifo in/fifo").exits(0); // A8
    fs::File::create(place.path("in/sparse")).unwrap().set_len(1 << 40).unwrap(); // A9
    place.write("in/hard", "two names");
    fs::hard_link(place.path("in/hard"), place.path("other-name")).unwrap(); // A5
    place.write("in/setuid", "set-id");
    fs::set_permissions(place.path("in/setuid"), Permissions::from_mode(0o4755)).unwrap(); // A25
    place.write("in/a.sig.sig", "a signature of a signature"); // A15
    let too_long = "n".repeat(252); // A14
    place.write(format!("in/{too_long}"), "no room for .sig");
    let daemon = Daemon::start(&place);
    daemon.waits_for_nth("refused", 7);
    let left = names(&place.path("in"));
    daemon.stop();
    let daemon = Daemon::start(&place);
    drop_pair(&place, "good", "content");
    daemon.waits_for("delivered");
    assert_eq!(daemon.count("refused"), 0, "each is reported once");
    daemon.until("removed", || !place.path("in/good.sig").exists());
    assert_eq!(names(&place.path("in")), left);
    assert_eq!(names(&place.path("q")), [""; 0]);
}

#[test]
fn a2_a_signature_that_is_a_link_is_none() {
    let place = place(&impatient(VERIFY));
    let (payload, signature) = sign(&place, "f", "content");
    fs::rename(payload, place.path("in/f")).unwrap();
    symlink(&signature, place.path("in/f.sig")).unwrap();
    let daemon = Daemon::start(&place);
    assert_eq!(daemon.waits_for("quarantined")["reason"], "missing");
    assert!(signature.exists());
}

#[test]
fn a13_hostile_names_are_handled_and_escaped() {
    let place = place(SIGN);
    let hostile: [&[u8]; 4] = [b"a\nb", b"\x1b[31mred", b"not utf-8 \xff", b"-rf"];
    for bytes in hostile {
        fs::write(place.path("in").join(name(bytes)), "content").unwrap();
    }
    let run = place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0);
    let log = run.stderr();
    assert!(!log.contains('\u{1b}') && log.contains("\\x1b[31mred") && log.contains("a\\x0ab"), "{log}");
    assert!(log.contains("not utf-8 \\xff"), "{log}");
    for bytes in hostile {
        assert!(place.path("in").join(name(&[bytes, b".sig"].concat())).exists());
    }
    verifies(&place, "in/a\nb", "file=a%0Ab");
}

#[test]
fn subdirectories_are_followed_where_the_rule_says_so() {
    let place = place(&with(&with(VERIFY, "recursive = true"), "context = { path = \"{relpath}\" }"));
    let daemon = Daemon::start(&place);
    // W3: made and filled at once.
    fs::create_dir_all(place.path("in/a/b/c")).unwrap();
    place.write("in/a/b/c/deep", "content");
    place.run(["sign", "local:demo", "in/a/b/c/deep", "--context", "path=a/b/c/deep"]).exits(0);
    daemon.waits_for("delivered");
    assert_eq!(place.read("out/a/b/c/deep"), b"content");
    // W4: renamed in with everything in it.
    fs::create_dir_all(place.path("full/x")).unwrap();
    place.write("full/x/f", "content");
    place.run(["sign", "local:demo", "full/x/f", "--context", "path=full/x/f"]).exits(0);
    fs::rename(place.path("full"), place.path("in/full")).unwrap();
    daemon.until("delivered", || place.path("out/full/x/f").exists());
}

#[test]
fn a24_superseded_content_is_recognised() {
    let place = place(&with(VERIFY, "rollback = \"deny\""));
    let daemon = Daemon::start(&place);
    for content in ["version 1", "version 2"] {
        drop_pair(&place, "f", content);
        daemon.until("delivered", || fs::read(place.path("out/f")).is_ok_and(|c| c == content.as_bytes()));
        daemon.until("removed", || !place.path("in/f.sig").exists());
        fs::remove_file(place.path("out/f")).unwrap();
        fs::remove_file(place.path("out/f.sig")).unwrap();
    }
    drop_pair(&place, "f", "version 1");
    assert_eq!(daemon.waits_for("held")["cause"], "rollback");
    assert!(place.path("in/f").exists() && !place.path("out/f").exists());
    daemon.stop();
    set_policy(&place, &with(VERIFY, "rollback = \"alert\""));
    let daemon = Daemon::start(&place);
    daemon.waits_for("superseded content is accepted again");
    daemon.until("delivered", || place.path("out/f").exists());
}

#[test]
fn a24_superseded_content_is_recognised_in_place_too() {
    let rule = with(&without(VERIFY, "deliver_to"), "in_place = true");
    let place = place(&with(&rule, "rollback = \"deny\""));
    let daemon = Daemon::start(&place);
    for (n, content) in ["version 1", "version 2"].into_iter().enumerate() {
        drop_pair(&place, "f", content);
        daemon.waits_for_nth("valid", n + 1);
    }
    drop_pair(&place, "f", "version 1");
    assert_eq!(daemon.waits_for("held")["cause"], "rollback");
    assert_eq!(daemon.count("valid"), 2);
}

// Trouble

#[test]
fn p2_trouble_with_keys_is_a_hold_that_ends_by_itself() {
    let place = place(VERIFY);
    drop_pair(&place, "good", "content");
    drop_pair(&place, "bad", "content");
    place.write("in/bad", "tampered");
    fs::rename(place.path("keyring"), place.path("keyring.away")).unwrap();
    let daemon = Daemon::start(&place);
    daemon.waits_for("held");
    assert_eq!(names(&place.path("in")), ["bad", "bad.sig", "good", "good.sig"]);
    fs::rename(place.path("keyring.away"), place.path("keyring")).unwrap();
    daemon.waits_for("delivered");
    daemon.waits_for("quarantined");
    assert_eq!(names(&place.path("out")), ["good", "good.sig"]);
}

#[test]
fn w8_a_root_that_is_missing_holds_its_rule_and_no_other() {
    let other = with(&with(SIGN, "name = \"other\""), "path = \"later\"");
    let place = place(&format!("{SIGN}{other}"));
    place.write("in/f", "content");
    let daemon = Daemon::start(&place);
    daemon.waits_for("held: the rule cannot work");
    daemon.waits_for("signed");
    fs::create_dir(place.path("later")).unwrap();
    place.write("later/g", "content");
    daemon.waits_for_nth("signed", 2);
    verifies(&place, "later/g", "file=g");
}

#[test]
fn only_one_daemon_has_the_state() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    place
        .run(["watch", "--policy", "policy.toml", "--once"])
        .exits(3)
        .complains_of("another kms-sig is using the state");
    daemon.stop();
}

#[test]
fn p7_what_others_can_write_is_refused() {
    let place = place(SIGN);
    fs::set_permissions(place.path("policy.toml"), Permissions::from_mode(0o666)).unwrap();
    place
        .run(["watch", "--policy", "policy.toml", "--once"])
        .exits(2)
        .complains_of("can be written by others (mode 0666); chmod go-w it");
}

#[test]
fn p7_nothing_is_made_for_a_policy_that_is_refused() {
    let place = Place::new();
    set_policy(&place, &with(SIGN, "create = true"));
    fs::set_permissions(place.path("policy.toml"), Permissions::from_mode(0o666)).unwrap();
    place.run(["watch", "--policy", "policy.toml"]).exits(2).complains_of("can be written by others");
    // A key of its making would be one that the author of a planted policy has named.
    assert_eq!(place.names(), ["policy.toml"]);
}

#[test]
fn p7_a_store_and_a_keyring_open_to_others_are_refused_by_daemon_and_check_alike() {
    for (path, what) in [("q", "is open to others (mode 0755); chmod 700 it"), ("k", "chmod go-w it")] {
        let place = place(VERIFY);
        for dir in ["q", "k"] {
            fs::create_dir(place.path(dir)).unwrap();
            fs::set_permissions(place.path(dir), Permissions::from_mode(0o700)).unwrap();
        }
        fs::rename(place.path("keyring"), place.path("k/keyring")).unwrap();
        let policy = String::from_utf8(place.read("policy.toml")).unwrap();
        place.write("policy.toml", policy.replace("\"keyring\"", "\"k/keyring\""));
        place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0);
        let mode = if path == "q" { 0o755 } else { 0o777 };
        fs::set_permissions(place.path(path), Permissions::from_mode(mode)).unwrap();
        place.run(["watch", "--policy", "policy.toml", "--once"]).exits(2).complains_of(what);
        let run = place.run(["check", "--policy", "policy.toml"]).exits(2);
        let said = String::from_utf8(run.stdout().to_vec()).unwrap();
        assert!(said.contains("not trusted: ") && said.contains(what), "{said}");
    }
}

#[test]
fn check_tells_what_will_be_made() {
    let place = Place::new();
    set_policy(&place, &with(SIGN, "create = true"));
    let path = place.path("");
    let path = path.to_str().unwrap().trim_end_matches('/');
    place
        .run(["check", "--policy", "policy.toml"])
        .exits(0)
        .says(format!("sign: \"{path}/in\" will be made\n\"{path}/policy.toml\": 1 rule, no fault\n"));
}

/// What `check` says, by lines, and where the place is.
#[track_caller]
fn checked(place: &Place, code: i32) -> Vec<String> {
    let run = place.run(["check", "--policy", "policy.toml"]).exits(code).complains("");
    let said = String::from_utf8(run.stdout().to_vec()).unwrap();
    let path = place.path("");
    let path = path.to_str().unwrap().trim_end_matches('/');
    said.lines().map(|line| line.replace(path, "")).collect()
}

/// A policy is written, and checked, before its folders are made.
#[test]
fn check_takes_what_is_missing_for_no_fault_of_the_policy() {
    let place = place(VERIFY);
    place.shell("rmdir in out; rm keyring").exits(0);
    let said = checked(&place, 0);
    for part in
        ["held: \"/in\" does not exist; make it", "cannot read keyring \"/keyring\"", "1 rule, no fault"]
    {
        assert!(said.iter().any(|line| line.contains(part)), "{part}: {said:?}");
    }
}

#[test]
fn check_is_not_content_with_what_would_hold_a_rule() {
    const NO_DIRECTORY: &str = "  to do: move away what is there, or name another directory";
    const CANNOT_WORK: &str = "\"/policy.toml\": 1 rule, 1 rule cannot work before that is changed";
    let cases: [(&str, &[&str]); 3] = [
        (
            "rmdir in; echo >in",
            &["verify: held: cannot open directory \"/in\": not a directory", NO_DIRECTORY, CANNOT_WORK],
        ),
        (
            "rmdir out; echo >out",
            &["verify: held: cannot open directory \"/out\": not a directory", NO_DIRECTORY, CANNOT_WORK],
        ),
        (
            "chmod 644 keyring",
            &[
                "verify: fix: Decrypt with local:demo: credentials: keyring \"/keyring\" is open to others (mode 0644); \
                 run chmod 600 \"/keyring\"",
                "verify: 0 files stand to be judged in \"/in\"",
                CANNOT_WORK,
            ],
        ),
    ];
    for (spoil, says) in cases {
        let place = place(VERIFY);
        place.shell(spoil).exits(0);
        let before = place.shell("find . | sort").exits(0).stdout().to_vec();
        let said = checked(&place, 2);
        let said: Vec<_> =
            said.iter().map(String::as_str).filter(|line| !line.contains("kms-sig key ")).collect();
        assert_eq!(said, says, "{spoil}");
        assert_eq!(place.shell("find . | sort").exits(0).stdout(), before, "nothing is made");
        // None of it keeps a running daemon from taking a policy over.
        place.run(["check", "--policy", "policy.toml", "--reload"]).exits(0);
    }
}

#[test]
fn check_says_what_the_daemon_would_refuse_to_start_with() {
    for (spoil, says) in [
        ("umask 022; echo >q", "fix: cannot open directory \"/q\": not a directory"),
        ("echo >state", "fix: cannot open directory \"/state\": not a directory"),
        ("mkdir q; chmod 750 q", "fix: not trusted: \"/q\" is open to others (mode 0750); chmod 700 it"),
    ] {
        let place = place(VERIFY);
        place.shell(spoil).exits(0);
        assert!(!place.run(["watch", "--policy", "policy.toml", "--once"]).succeeds(), "{spoil}");
        let said = checked(&place, 2);
        assert_eq!(said[0], says);
        assert_eq!(said.last().unwrap(), "\"/policy.toml\": the daemon would refuse to start");
        place.run(["check", "--policy", "policy.toml", "--reload"]).exits(2);
    }
}

#[test]
fn check_tells_each_fault_once() {
    let place = place(&format!("{SIGN}{}", with(&with(VERIFY, "path = \"down\""), "create = true")));
    fs::set_permissions(place.path(""), Permissions::from_mode(0o777)).unwrap();
    let said = checked(&place, 2);
    assert_eq!(said.iter().filter(|line| line.starts_with("fix: ")).count(), 1, "{said:#?}");
}

#[test]
fn check_notes_a_recursive_rule_whose_context_says_nothing_of_directories() {
    let note = "no value of its context has {relpath}";
    let noted = |rules: &str| {
        let said = checked(&place(rules), 0);
        assert_eq!(said.last().unwrap(), "\"/policy.toml\": 1 rule, no fault");
        said.iter().any(|line| line.starts_with("verify: note: ") && line.contains(note))
    };
    let recursive = with(VERIFY, "recursive = true");
    assert!(noted(&recursive));
    assert!(noted(&without(&recursive, "context")));
    assert!(!noted(&with(&recursive, "context = { file = \"{relpath}\" }")));
    assert!(!noted(VERIFY));
    assert!(!noted(&with(SIGN, "recursive = true")));
}

#[test]
fn check_notes_a_rule_whose_context_binds_no_name() {
    let noted = |rules: &str| {
        let said = checked(&place(rules), 0);
        assert_eq!(said.last().unwrap(), "\"/policy.toml\": 1 rule, no fault");
        said.into_iter().find(|line| line.starts_with("verify: note: ")).unwrap_or_default()
    };
    let context = |context: &str| with(VERIFY, &format!("context = {{ {context} }}"));
    let any = "is valid under any other name";
    for rule in [without(VERIFY, "context"), context("channel = \"stable\""), context("file = \"name\"")] {
        let note = noted(&rule);
        assert!(note.contains(any) && !note.contains("rollback"), "{note}");
        let denied = noted(&with(&rule, "rollback = \"deny\""));
        assert!(denied.contains(any) && denied.contains("gets it past that by renaming it"), "{denied}");
    }
    assert!(noted(&context("file = \"name\"")).contains("a placeholder is {name}"));
    assert!(noted(&context("file = \"<relpath>\"")).contains("a placeholder is {relpath}"));
    assert!(noted(&context("file = \"{stem}\"")).contains("the same up to its last dot"));
    for bound in ["file = \"{name}\"", "file = \"{relpath}\"", "file = \"x-{name}\", stem = \"{stem}\""] {
        assert_eq!(noted(&context(bound)), "", "{bound}");
    }
}

#[test]
fn a15_what_ends_in_the_suffix_in_another_case_is_not_signed() {
    let place = place(SIGN);
    place.write("in/X.TXT.SIG", "a signature, made elsewhere");
    place.write("in/X.TXT", "content");
    let daemon = Daemon::start(&place);
    let refused = daemon.waits_for("refused");
    assert_eq!((&refused["cause"], &refused["file"]), (&"suffix-in-other-case".into(), &"X.TXT.SIG".into()));
    assert!(refused["reason"].as_str().unwrap().contains("rename it"), "{refused}");
    daemon.waits_for("signed");
    assert_eq!(names(&place.path("in")), ["X.TXT", "X.TXT.SIG", "X.TXT.sig"]);
    daemon.stop();
    // Who means it excludes it, or says that it is one.
    set_policy(&place, &with(SIGN, "exclude = [\"*.SIG\"]"));
    let daemon = Daemon::start(&place);
    assert_eq!(daemon.count("refused"), 0);
}

#[test]
fn what_looks_like_a_mistake_about_a_signature_is_in_the_log_and_in_the_record() {
    let place = place(&with(&impatient(VERIFY), "exclude = [\"*.SIG\"]"));
    place.write("X.TXT", "content");
    place.run(["sign", "local:demo", "X.TXT", "--context", "file=X.TXT"]).exits(0);
    place
        .shell(
            "base64 X.TXT.sig >b && mv X.TXT in/f && mv b in/f.sig && mv X.TXT.sig in/g.SIG && cp in/f in/g",
        )
        .exits(0);
    let run = place.run(["explain", "in/f", "--policy", "policy.toml"]).exits(0);
    assert!(
        String::from_utf8_lossy(run.stdout()).contains("none of ours: the signature file is base64 text")
    );
    let run = place.run(["explain", "in/g", "--policy", "policy.toml"]).exits(0);
    assert!(String::from_utf8_lossy(run.stdout()).contains("hint: \"g.SIG\" is there"));
    let daemon = Daemon::start(&place);
    daemon.waits_for_nth("quarantined", 2);
    let mut found = 0;
    for told in daemon.events("quarantined") {
        let (reason, code, hint) = match told["file"].as_str().unwrap() {
            "f" => ("rejected", "base64", "base64 -d"),
            "g" => ("missing", "misnamed", "\"g.SIG\" is there"),
            _ => continue,
        };
        found += 1;
        assert_eq!(told["reason"], reason);
        assert!(told["hint"].as_str().unwrap().contains(hint), "{told}");
        let item = told["item"].as_str().unwrap();
        let record: serde_json::Value =
            serde_json::from_slice(&place.read(format!("q/{item}/record.json"))).unwrap();
        assert_eq!(record["clue"]["code"], code);
        let shown = place.run(["quarantine", "show", item, "--policy", "policy.toml"]).exits(0);
        assert!(String::from_utf8_lossy(shown.stdout()).contains(hint));
    }
    assert_eq!(found, 2);
}

#[test]
fn root_checks_as_the_user_whose_the_state_is() {
    if !rustix::process::geteuid().is_root() {
        return; // the others check as whoever they are
    }
    let place = place(VERIFY);
    let policy = String::from_utf8(place.read("policy.toml")).unwrap();
    place.write("policy.toml", policy.replace("allow_root = true\n", ""));
    let first = |code| checked(&place, code).swap_remove(0);
    assert!(first(0).starts_with("note: checked as root, as whom the daemon would not run"), "no state yet");
    place.shell("mkdir -m 700 q state && chown -R 7001:7001 . && chmod 755 .").exits(0);
    assert_eq!(
        checked(&place, 0),
        [
            "note: run by root, and checked as user 7001, whose the state is",
            "  to do: for the last word run it as that user",
            "verify: 0 files stand to be judged in \"/in\"",
            "\"/policy.toml\": 1 rule, no fault",
        ]
    );
    // What root may do and that user may not.
    place.shell("chown root out").exits(0);
    let said = checked(&place, 2);
    assert!(
        said.contains(&"verify: fix: cannot write to \"/out\": permission denied".to_owned()),
        "{said:#?}"
    );
}

#[test]
fn running_as_root_must_be_allowed() {
    if !rustix::process::geteuid().is_root() {
        return; // nothing to refuse
    }
    let place = place(SIGN);
    let policy = String::from_utf8(place.read("policy.toml")).unwrap();
    place.write("policy.toml", policy.replace("allow_root = true\n", ""));
    place
        .run(["watch", "--policy", "policy.toml", "--once"])
        .exits(2)
        .complains_of("refusing to run as root");
    place.run(["watch", "--policy", "policy.toml", "--once", "--allow-root"]).exits(0);
}

// Once, and dry

#[test]
fn once_deals_with_what_is_there_and_tells_by_its_exit_code() {
    let once = ["watch", "--policy", "policy.toml", "--once"];
    let place = place(&with(VERIFY, "grace = \"1ms\""));
    place.run(once).exits(0).says("verify: nothing to do\n");
    drop_pair(&place, "good", "content");
    place.run(once).exits(0).says("verify: 1 delivered\n");
    drop_pair(&place, "bad", "content");
    place.write("in/bad", "tampered");
    place.run(once).exits(1).says("verify: 1 quarantined\n  bad: quarantined: mismatch\n");
    // Too young to be judged: left, and listed.
    set_policy(&place, &with(&with(VERIFY, "grace = \"1h\""), "signature_timeout = \"1h\""));
    drop_pair(&place, "young", "content");
    place.write("in/young", "tampered");
    place.write("in/alone", "no signature yet");
    place.run(once).exits(3).says(
        "verify: 2 left\n  alone: left: its signature may still come (signature_timeout)\n  \
         young: left: does not verify, but may still be arriving (grace)\n",
    );
    assert_eq!(names(&place.path("in")), ["alone", "young", "young.sig"]);
}

#[test]
fn p5_what_the_rule_asks_for_since_is_still_done() {
    let once = ["watch", "--policy", "policy.toml", "--once"];
    let verify = with(VERIFY, "grace = \"1ms\"");
    let place =
        place(&with(&with(&without(&verify, "deliver_to"), "in_place = true"), "on_invalid = \"log\""));
    drop_pair(&place, "good", "content");
    drop_pair(&place, "bad", "content");
    place.write("in/bad", "tampered");
    place.run(once).exits(1).says("verify: 1 invalid, 1 valid\n  bad: invalid: mismatch\n");
    place.run(once).exits(1).says("verify: 2 unchanged\n  bad: invalid: mismatch\n");
    // Neither file has changed, nor has what the rule calls valid; only what is done about it.
    set_policy(&place, &verify);
    place.run(once).exits(1).says("verify: 1 delivered, 1 quarantined\n  bad: quarantined: mismatch\n");
}

#[test]
fn p5_a_rule_that_has_become_more_generous_looks_again() {
    let once = ["watch", "--policy", "policy.toml", "--once"];
    let place = place(&with(SIGN, "max_size = 3"));
    place.write("in/f", "content");
    place.run(once).exits(3).says("sign: 1 refused\n  f: refused: it has 7 bytes; max_size allows 3\n");
    set_policy(&place, SIGN);
    place.run(once).exits(0).says("sign: 1 signed\n");
}

/// Makes state what an earlier version left, in which a reason was a sentence.
fn with_sentences(place: &Place, sentences: &[(&str, &str)]) {
    let db = rusqlite::Connection::open(place.path("state/state.db")).unwrap();
    db.execute_batch(
        "ALTER TABLE decided RENAME TO decided_3;
         CREATE TABLE decided (
             rule TEXT NOT NULL, path BLOB NOT NULL, fingerprint TEXT NOT NULL, payload BLOB, signature BLOB,
             outcome TEXT NOT NULL, reason TEXT, digest TEXT, signature_digest TEXT, PRIMARY KEY (rule, path)
         ) STRICT, WITHOUT ROWID;
         INSERT INTO decided SELECT rule, path, fingerprint, payload, signature, outcome, reason, digest,
             signature_digest FROM decided_3;
         DROP TABLE decided_3;
         PRAGMA user_version = 2;",
    )
    .unwrap();
    for (name, sentence) in sentences {
        let row = rusqlite::params![sentence, name.as_bytes()];
        assert_eq!(db.execute("UPDATE decided SET reason = ?1 WHERE path = ?2", row).unwrap(), 1, "{name}");
    }
}

#[test]
fn o10_what_an_earlier_version_refused_is_not_reported_again_and_nothing_stays_unsigned() {
    let once = ["watch", "--policy", "policy.toml", "--once"];
    let place = place(&with(SIGN, "max_size = 3"));
    for name in ["large", "reworded"] {
        place.write(format!("in/{name}"), "content");
    }
    symlink("nowhere", place.path("in/link")).unwrap();
    place.write("in/old", "old");
    place.write("in/small", "ok");
    place.write("in/theirs", "ok");
    place.write("in/theirs.sig", "-----BEGIN PGP SIGNATURE-----");
    place.run(once).exits(3);
    place.write("in/old", "new"); // its signature is out of date by now
    place.run(once).exits(3);
    let large = "it has 7 bytes; max_size allows 3";
    let link = "it is a symbolic link, and only regular files are handled";
    let stale = "its signature is of ours and out of date; on_stale = \"report\" leaves it";
    let foreign =
        "something that is not known to be our signature lies beside it; remove it to have the file signed";
    let as_before = [("large", large), ("link", link), ("old", stale), ("theirs", foreign)];
    let [a, b, c, d] = as_before.map(|(name, why)| format!("  {name}: refused: {why}\n"));
    let told = format!("{a}{b}{c}  reworded: refused: {large}\n{d}");
    with_sentences(&place, &[&as_before[..], &[("reworded", "it is larger than it may be")]].concat());
    // What no version wrote is looked at again, and reported again.
    place.run(once).exits(3).says(format!("sign: 1 refused, 5 unchanged\n{}", told));
    place.run(once).exits(3).says(format!("sign: 6 unchanged\n{}", told));
    // And what was refused is signed once nothing speaks against it.
    let sentences = [&as_before[..], &[("reworded", large)]].concat();
    with_sentences(&place, &sentences);
    set_policy(&place, &with(SIGN, "on_stale = \"resign\""));
    fs::remove_file(place.path("in/theirs.sig")).unwrap();
    place.run(once).exits(3).says(format!("sign: 4 signed, 2 unchanged\n  link: refused: {link}\n"));
}

#[test]
fn a5_a_signature_that_is_not_handled_is_reported_once() {
    let once = ["watch", "--policy", "policy.toml", "--once"];
    let place = place(VERIFY);
    drop_pair(&place, "f", "content");
    fs::hard_link(place.path("in/f.sig"), place.path("other-name")).unwrap();
    let why = "f: refused: its .sig has 2 hard links; max_links allows 1\n";
    place.run(once).exits(3).says(format!("verify: 1 refused\n  {why}"));
    place.run(once).exits(3).says(format!("verify: 1 unchanged\n  {why}"));
}

#[test]
fn once_lists_what_is_held() {
    let place = place(SIGN);
    place.write("in/f", "content");
    fs::remove_file(place.path("keyring")).unwrap();
    let run = place.run(["watch", "--policy", "policy.toml", "--once"]).exits(3);
    let said = String::from_utf8_lossy(run.stdout()).into_owned();
    assert!(said.starts_with("sign: 1 left\n  f: left: held (credentials): "), "{said}");
}

#[test]
fn a_dry_run_changes_nothing() {
    let rules = format!("{SIGN}{}", with(&with(VERIFY, "path = \"down\""), "grace = \"1ms\""));
    let place = place(&rules);
    fs::create_dir(place.path("down")).unwrap();
    place.write("in/f", "content");
    for file in ["good", "bad"] {
        let (payload, signature) = sign(&place, file, "content");
        fs::rename(payload, place.path(format!("down/{file}"))).unwrap();
        fs::rename(signature, place.path(format!("down/{file}.sig"))).unwrap();
    }
    place.write("down/bad", "tampered");
    let tree =
        || place.shell("find . | sort | xargs ls -ldi --time-style=full-iso").exits(0).stdout().to_vec();
    let before = tree();
    let run = place.run(["watch", "--policy", "policy.toml", "--once", "--dry-run"]).exits(1);
    let log = run.stderr();
    for line in ["file=f action=\"sign\"", "file=good action=\"deliver\"", "file=bad action=\"quarantine\""] {
        assert!(log.contains(line), "{line} is not in\n{log}");
    }
    assert_eq!(tree(), before);
}

#[test]
fn check_tells_what_there_is_to_do() {
    let place = place(SIGN);
    place.write("in/f", "content");
    place.write("in/g", "content");
    let path = place.path("");
    let path = path.to_str().unwrap().trim_end_matches('/');
    place.run(["check", "--policy", "policy.toml"]).exits(0).says(format!(
        "sign: 2 files stand to be signed in \"{path}/in\"\n\"{path}/policy.toml\": 1 rule, no fault\n"
    ));
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0);
    place.run(["check", "--policy", "policy.toml"]).exits(0).says(format!(
        "sign: 0 files stand to be signed in \"{path}/in\"\n\"{path}/policy.toml\": 1 rule, no fault\n"
    ));
}

#[test]
fn o2_a_bad_policy_is_told_whole() {
    let place = place(&with(SIGN, "colour = \"red\""));
    let policy = String::from_utf8(place.read("policy.toml")).unwrap();
    place.write("policy.toml", policy.replace("mode = \"sign\"", "mode = \"sing\""));
    for command in ["check", "watch"] {
        let run = place.run([command, "--policy", "policy.toml"]).exits(2);
        let said = run.stderr();
        assert!(said.contains("policy.toml:8: ") && said.contains("colour"), "{said}");
    }
}

// Reloading

#[test]
fn o1_a_good_policy_is_swapped_in_and_a_bad_one_refused() {
    let place = place(SIGN);
    fs::create_dir(place.path("new")).unwrap();
    let daemon = Daemon::start(&place);
    set_policy(&place, "[[watch]]\nname = \"broken\"\n");
    daemon.hang_up();
    daemon.waits_for("reload refused; the old policy stays");
    assert!(daemon.count("the new policy has a fault") >= 2, "every fault is told");
    place.write("in/f", "content");
    daemon.waits_for("signed");
    let second = with(&with(SIGN, "name = \"second\""), "path = \"new\"");
    set_policy(&place, &format!("{SIGN}{second}"));
    daemon.hang_up();
    daemon.waits_for("policy reloaded");
    place.write("new/g", "content");
    daemon.waits_for_nth("signed", 2);
    verifies(&place, "new/g", "file=g");
    // What cannot change is refused with its name.
    let policy = String::from_utf8(place.read("policy.toml")).unwrap();
    place.write("policy.toml", policy.replace("state.dir = \"state\"", "state.dir = \"elsewhere\""));
    daemon.hang_up();
    let refused = daemon.waits_for_nth("reload refused; the old policy stays", 2);
    assert_eq!(refused["reason"], "state.dir cannot change while the daemon runs; restart it");
    place.write("in/h", "content");
    daemon.waits_for_nth("signed", 3);
    assert_eq!(daemon.stop().code(), Some(0));
}

/// As Kubernetes lays out a ConfigMap, and as releases of a directory are switched.
#[test]
fn o1_a_policy_behind_links_is_read_where_they_lead_now() {
    let place = place(SIGN);
    let old = String::from_utf8(place.read("policy.toml")).unwrap();
    fs::create_dir(place.path("new")).unwrap();
    let new = format!("{old}{}", with(&with(SIGN, "name = \"second\""), "path = \"new\""));
    for (version, text) in [("..1", &old), ("..2", &new)] {
        fs::create_dir(place.path(version)).unwrap();
        place.write(format!("{version}/policy.toml"), text);
    }
    fs::remove_file(place.path("policy.toml")).unwrap();
    symlink("..1", place.path("..data")).unwrap();
    symlink("..data/policy.toml", place.path("policy.toml")).unwrap();
    let daemon = Daemon::start(&place);

    symlink("..2", place.path("..next")).unwrap();
    fs::rename(place.path("..next"), place.path("..data")).unwrap();
    fs::remove_dir_all(place.path("..1")).unwrap();
    daemon.hang_up();
    daemon.waits_for("policy reloaded");
    place.write("new/f", "content");
    daemon.waits_for("signed");

    // Where the links lead is looked at again as well (P7).
    fs::set_permissions(place.path("..2"), Permissions::from_mode(0o777)).unwrap();
    daemon.hang_up();
    let refused = daemon.waits_for("reload refused; the old policy stays");
    let why =
        format!("{}/..2\" can be written by others (mode 0777); chmod go-w it", place.path("").display());
    assert!(
        refused["reason"].as_str().unwrap().replace("//", "/").contains(&why.replace("//", "/")),
        "{refused}"
    );
}

#[test]
fn o3_reloading_all_the_time_loses_nothing() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    for i in 0..20 {
        place.write(format!("in/f{i}"), "content");
        daemon.hang_up();
    }
    daemon.until("signed all", || (0..20).all(|i| place.path(format!("in/f{i}.sig")).exists()));
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn w7_a_replaced_root_is_noticed_and_worked_on_after_its_checks() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    fs::rename(place.path("in"), place.path("away")).unwrap();
    daemon.waits_for("the watched directory was replaced or removed; holding until it is there");
    fs::create_dir(place.path("in")).unwrap();
    place.write("in/f", "content");
    daemon.waits_for("signed");
    verifies(&place, "in/f", "file=f");
}

/// Nothing goes where nobody looks.
#[test]
fn w7_a_destination_that_is_renamed_or_removed_gets_nothing_and_the_one_in_its_place_all() {
    const MOVED: &str = "the destination was replaced or removed; holding until it is there";
    let place = place(&with(VERIFY, "signature_timeout = \"10m\""));
    let daemon = Daemon::start(&place);
    drop_pair(&place, "a", "content");
    daemon.waits_for("delivered");
    fs::rename(place.path("out"), place.path("away")).unwrap();
    drop_pair(&place, "b", "content");
    daemon.waits_for(MOVED);
    daemon.waits_for("held: the rule cannot work");
    assert_eq!(names(&place.path("in")), ["b", "b.sig"]);
    fs::create_dir(place.path("out")).unwrap();
    daemon.waits_for_nth("delivered", 2);
    fs::remove_dir_all(place.path("out")).unwrap();
    fs::create_dir(place.path("out")).unwrap();
    drop_pair(&place, "c", "content");
    daemon.waits_for_nth("delivered", 3);
    assert_eq!(names(&place.path("away")), ["a", "a.sig"]);
    assert_eq!(names(&place.path("out")), ["c", "c.sig"]);
}

#[test]
fn w7_a_quarantine_that_is_renamed_gets_nothing_and_a_reload_takes_the_one_in_its_place() {
    let place = place(VERIFY);
    let daemon = Daemon::start(&place);
    fs::rename(place.path("q"), place.path("away")).unwrap();
    place.write("in/f.sig", "nonsense");
    place.write("in/f", "content");
    let held = daemon.waits_for("held");
    assert_eq!(held["cause"], "replaced");
    assert_eq!(names(&place.path("in")), ["f", "f.sig"]);
    daemon.hang_up();
    daemon.waits_for("quarantined");
    assert_eq!((names(&place.path("q")).len(), names(&place.path("away"))), (1, Vec::new()));
}

/// What goes into a file without a name is remembered by nobody.
#[test]
fn c12_state_that_is_removed_under_the_daemon_ends_it_before_anything_more_is_published() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    place.write("in/f", "content");
    daemon.waits_for("signed");
    place.shell("rm state/state.db*").exits(0);
    place.write("in/g", "content");
    daemon.until("ended", || daemon.said("nothing more can be published"));
    assert!(!place.path("in/g.sig").exists());
    assert_eq!(daemon.stop().code(), Some(3));
    let daemon = Daemon::start(&place);
    daemon.waits_for("signed");
    daemon.waits_for("a valid signature was there; adopted");
}

#[test]
fn a5_what_is_wrong_with_a_signature_is_told_of_the_signature() {
    let place = place(VERIFY);
    let daemon = Daemon::start(&place);
    let (payload, signature) = sign(&place, "f", "content");
    fs::hard_link(&signature, place.path("in/f.sig")).unwrap();
    fs::rename(payload, place.path("in/f")).unwrap();
    let refused = daemon.waits_for("refused");
    assert_eq!(
        (&refused["file"], &refused["cause"], &refused["reason"]),
        (
            &"f".into(),
            &"signature-hard-links".into(),
            &"its .sig has 2 hard links; max_links allows 1".into()
        )
    );
    fs::remove_file(signature).unwrap(); // no event tells of it
    daemon.waits_for("delivered");
}

#[test]
fn a_file_written_while_it_is_tried_is_looked_at_again() {
    let place = place(&with(SIGN, "on_stale = \"resign\""));
    let daemon = Daemon::start(&place);
    for i in 0..50 {
        place.write("in/f", format!("version {i}"));
    }
    daemon.until("signed as it is", || {
        place.path("in/f.sig").exists()
            && place.shell("\"$KMS_SIG\" verify in/f --key local:demo --context file=f").succeeds()
    });
}

#[test]
fn a_keyring_that_is_lost_is_not_made_anew() {
    let place = Place::new();
    set_policy(&place, &with(SIGN, "create = true"));
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0);
    assert!(place.path("keyring").exists());
    fs::rename(place.path("keyring"), place.path("keyring.lost")).unwrap();
    place.write("in/f", "content");
    place
        .run(["watch", "--policy", "policy.toml", "--once"])
        .exits(3)
        .complains_of("the keyring is missing although there is state");
    assert!(!place.path("keyring").exists());
    fs::rename(place.path("keyring.lost"), place.path("keyring")).unwrap();
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0);
}

#[test]
fn a24_a_version_that_found_no_way_in_supersedes_nothing() {
    let place = place(&with(VERIFY, "rollback = \"deny\""));
    let once = |code| drop(place.run(["watch", "--policy", "policy.toml", "--once"]).exits(code));
    let take = |dir: &str| ["f", "f.sig"].map(|name| fs::remove_file(place.path(dir).join(name)).unwrap());
    drop_pair(&place, "f", "older");
    once(0);
    drop_pair(&place, "f", "newer");
    once(3); // the older one is still there
    take("in"); // the sender thinks better of it,
    take("out"); // and somebody takes the older one, which is sent once more
    drop_pair(&place, "f", "older");
    once(0);
    assert_eq!(place.read("out/f"), b"older");
}

#[test]
fn a15_a_signature_whose_file_is_gone_is_told_once_unless_it_is_ours() {
    let place = place(SIGN);
    place.write("in/f", "content");
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0);
    fs::remove_file(place.path("in/f")).unwrap(); // moved on by somebody who has no use for the signature
    place.write("in/g.sig", "of nothing");
    let daemon = Daemon::start(&place);
    assert_eq!(daemon.waits_for("refused")["file"], "g.sig");
    for reload in 1..=2 {
        daemon.hang_up();
        daemon.waits_for_nth("policy reloaded", reload);
        place.write(format!("in/h{reload}"), "content");
        daemon.waits_for_nth("signed", reload);
    }
    assert_eq!(daemon.count("refused"), 1);
    assert_eq!(place.read("in/g.sig"), b"of nothing");
    assert_eq!(names(&place.path("in")), ["f.sig", "g.sig", "h1", "h1.sig", "h2", "h2.sig"]);
}
