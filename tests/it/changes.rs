//! Changes of what was decided already: they are noticed within seconds, with or without an event,
//! and whoever is needed is told of.
//!
//! A scan would find all of them. It comes every five minutes, which is more than these tests wait.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::support::control::{asked, status};
use crate::support::daemon::Daemon;
use crate::support::files::{drop_pair, names, sign, verifies};
use crate::support::place::Place;
use crate::support::policy::{SIGN, VERIFY, place, set_policy, with};

/// A rule whose signatures do not say which file they are of.
fn unbound() -> String {
    with(SIGN, "context = { app = \"tests\" }")
}

/// What `explain` says would happen.
fn would(place: &Place, path: &str) -> Value {
    let run = place.run(["explain", path, "--policy", "policy.toml", "--json"]);
    let said: Value = serde_json::from_slice(run.stdout()).unwrap();
    said["applies"]["would"].clone()
}

fn rename(place: &Place, from: &str, to: &str) {
    fs::rename(place.path(from), place.path(to)).unwrap();
}

/// Has the daemon sign another file, and so do before that what it was told of before.
fn after_another(place: &Place, daemon: &Daemon, name: &str) {
    let signed = daemon.count("signed");
    place.write(format!("in/{name}"), name);
    daemon.waits_for_nth("signed", signed + 1);
}

// Signatures

#[test]
fn a_signature_that_was_removed_is_made_again_and_ours_alone_is_no_reason_to() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    place.write("in/f", "content");
    daemon.waits_for("signed");
    for n in 2..5 {
        fs::remove_file(place.path("in/f.sig")).unwrap();
        daemon.waits_for_nth("signed", n);
        verifies(&place, "in/f", "file=f");
    }
    // Moved away it is as gone as removed.
    rename(&place, "in/f.sig", "elsewhere");
    daemon.waits_for_nth("signed", 5);
    after_another(&place, &daemon, "g");
    let hashed = status(&place)["rules"][0]["hashed_bytes"].clone();
    assert_eq!(hashed, 5 * "content".len() + 1, "nothing is read but to be signed");
    assert_eq!(daemon.count("signed"), 6);
}

#[test]
fn a_signature_that_was_in_the_way_and_is_removed_is_made_anew() {
    let place = place(SIGN);
    place.write("in/f.sig", "not a signature of ours");
    place.write("in/f", "content");
    let daemon = Daemon::start(&place);
    assert_eq!(daemon.waits_for("refused")["cause"], "foreign-signature");
    fs::remove_file(place.path("in/f.sig")).unwrap();
    daemon.waits_for("signed");
}

#[test]
fn a_signature_that_somebody_wrote_over_is_reported() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    place.write("in/f", "content");
    daemon.waits_for("signed");
    place.write("in/f.sig", "not a signature of ours");
    assert_eq!(daemon.waits_for("refused")["cause"], "foreign-signature");
}

#[test]
fn a11_a_flood_of_changes_of_signatures_costs_no_calls_of_kms() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    place.write("in/f", "content");
    daemon.waits_for("signed");
    let other = sign(&place, "other", "content").1;
    rename(&place, "keyring", "aside"); // whatever needs a key is held
    for n in 0..300 {
        // A signature of nothing, and ours, which is touched.
        fs::copy(&other, place.path(format!("in/{n}.sig"))).unwrap();
        fs::set_permissions(place.path("in/f.sig"), fs::Permissions::from_mode(0o600 + n % 2)).unwrap();
    }
    // It is read again, and known.
    daemon.until("known", || would(&place, "in/f") == "done");
    rename(&place, "aside", "keyring");
    after_another(&place, &daemon, "g");
    for message in ["held", "held; will be tried again", "refused"] {
        assert_eq!(daemon.count(message), 0, "{message}");
    }
}

#[test]
fn a11_a_flood_of_signatures_of_others_is_judged_in_part() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    for n in 0..40 {
        place.write(format!("in/{n}"), "content");
    }
    daemon.waits_for_nth("signed", 40);
    for n in 0..40 {
        place.write(format!("in/{n}.sig"), "not a signature of ours");
    }
    daemon.waits_for_nth("refused", 16);
    after_another(&place, &daemon, "g");
    let refused = daemon.count("refused");
    assert!((16..=20).contains(&refused), "{refused}");
}

// Refused files

#[test]
fn a_file_that_was_refused_is_taken_when_it_is_fit_though_no_event_tells_of_it() {
    let place = place(SIGN);
    let daemon = Daemon::start(&place);
    place.write("aside", "content");
    fs::hard_link(place.path("aside"), place.path("in/f")).unwrap();
    assert_eq!(daemon.waits_for("refused")["cause"], "hard-links");
    fs::remove_file(place.path("aside")).unwrap();
    daemon.waits_for("signed");
}

#[test]
fn what_changes_by_way_of_another_link_is_noticed() {
    let place = place(&with(&with(SIGN, "max_links = 2"), "max_size = 3"));
    let daemon = Daemon::start(&place);
    place.write("large", "content");
    place.write("set-id", "abc");
    fs::set_permissions(place.path("set-id"), fs::Permissions::from_mode(0o4755)).unwrap();
    for name in ["large", "set-id"] {
        fs::hard_link(place.path(name), place.path("in").join(name)).unwrap();
    }
    daemon.waits_for_nth("refused", 2);
    place.write("large", "abc");
    fs::set_permissions(place.path("set-id"), fs::Permissions::from_mode(0o755)).unwrap();
    daemon.waits_for_nth("signed", 2);
}

#[test]
fn what_was_refused_before_a_restart_is_looked_at_as_well() {
    let place = place(VERIFY);
    drop_pair(&place, "f", "content");
    fs::hard_link(place.path("in/f"), place.path("aside")).unwrap();
    let daemon = Daemon::start(&place);
    daemon.waits_for("refused");
    daemon.stop();
    let daemon = Daemon::start(&place);
    daemon.until("counted", || status(&place)["rules"][0]["refused"]["hard-links"] == 1);
    fs::remove_file(place.path("aside")).unwrap();
    daemon.waits_for("delivered");
    daemon.until("all is well", || status(&place)["concerns"] == json!([]));
}

// Renamed pairs

#[test]
fn a_renamed_pair_is_ours_and_no_key_is_asked() {
    let place = place(&with(&unbound(), "recursive = true"));
    fs::create_dir(place.path("in/sub")).unwrap();
    let daemon = Daemon::start(&place);
    place.write("in/x", "content");
    daemon.waits_for("signed");
    rename(&place, "keyring", "aside");
    let signature = place.read("in/x.sig");
    let mut now = "in/x".to_owned();
    for next in ["in/y", "in/sub/y", "in/z"] {
        rename(&place, &now, next);
        rename(&place, &format!("{now}.sig"), &format!("{next}.sig"));
        now = next.to_owned();
        daemon.until("known", || would(&place, next) == "done");
    }
    assert_eq!(place.read("in/z.sig"), signature);
    for message in ["signed", "refused", "held", "a valid signature was there; adopted"] {
        assert_eq!(daemon.count(message), usize::from(message == "signed"), "{message}");
    }
    daemon.stop();
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0).says("sign: 1 unchanged\n");
}

#[test]
fn a_renamed_pair_whose_name_is_bound_is_out_of_date() {
    for on_stale in ["resign", "report"] {
        let place = place(&with(SIGN, &format!("on_stale = {on_stale:?}")));
        let daemon = Daemon::start(&place);
        place.write("in/x", "content");
        daemon.waits_for("signed");
        let before = place.read("in/x.sig");
        rename(&place, "in/x", "in/y");
        rename(&place, "in/x.sig", "in/y.sig");
        if on_stale == "resign" {
            daemon.waits_for_nth("signed", 2);
            verifies(&place, "in/y", "file=y");
            assert_eq!(daemon.count("refused"), 0);
        } else {
            assert_eq!(daemon.waits_for("refused")["cause"], "stale-signature");
            assert_eq!(place.read("in/y.sig"), before);
            daemon.until("counted", || status(&place)["rules"][0]["refused"]["stale-signature"] == 1);
        }
        assert_eq!(names(&place.path("in")), ["y", "y.sig"]);
    }
}

#[test]
fn a_renamed_pair_with_other_content_is_out_of_date() {
    let place = place(&with(&unbound(), "on_stale = \"resign\""));
    let daemon = Daemon::start(&place);
    place.write("in/x", "content");
    daemon.waits_for("signed");
    rename(&place, "in/x.sig", "in/y.sig");
    fs::remove_file(place.path("in/x")).unwrap();
    place.write("in/y", "other content");
    daemon.waits_for_nth("signed", 2);
    verifies(&place, "in/y", "app=tests");
}

#[test]
fn a_pair_is_not_signed_while_only_one_file_of_it_has_moved() {
    for payload_first in [true, false] {
        let place = place(&unbound());
        let daemon = Daemon::start(&place);
        place.write("in/x", "content");
        daemon.waits_for("signed");
        let signature = place.read("in/x.sig");
        let (first, second) = if payload_first { ("", ".sig") } else { (".sig", "") };
        rename(&place, &format!("in/x{first}"), &format!("in/y{first}"));
        for n in 0..4 {
            after_another(&place, &daemon, &format!("other-{n}"));
        }
        let another = format!("in/{}.sig", if payload_first { "y" } else { "x" });
        assert!(!place.path(&another).exists(), "{another}: {:?}", daemon.events("signed"));
        rename(&place, &format!("in/x{second}"), &format!("in/y{second}"));
        daemon.until("known", || would(&place, "in/y") == "done");
        assert_eq!(place.read("in/y.sig"), signature);
        assert_eq!((daemon.count("signed"), daemon.count("refused")), (5, 0), "{payload_first}");
        assert!(!place.path("in/x.sig").exists());
    }
}

#[test]
fn a_signature_of_ours_whose_file_was_forgotten_is_not_somebody_elses() {
    let place = place(&with(SIGN, "on_stale = \"resign\""));
    let daemon = Daemon::start(&place);
    place.write("in/x", "content");
    daemon.waits_for("signed");
    daemon.stop();
    rename(&place, "in/x.sig", "in/y.sig");
    rename(&place, "in/x", "in/y");
    // As after an hour without the pair.
    let db = rusqlite::Connection::open(place.path("state/state.db")).unwrap();
    assert_eq!(db.execute("DELETE FROM decided", []).unwrap(), 1);
    drop(db);
    let daemon = Daemon::start(&place);
    daemon.waits_for("signed");
    verifies(&place, "in/y", "file=y");
}

// Who is needed

#[test]
fn what_only_a_person_can_end_is_counted_and_listed_until_it_is_done() {
    let place = place(SIGN);
    place.write("aside", "content");
    for name in ["linked", "linked-too"] {
        fs::hard_link(place.path("aside"), place.path("in").join(name)).unwrap();
    }
    place.write("in/theirs", "content");
    place.write("in/theirs.sig", "not a signature of ours");
    place.write("in/UPPER.SIG", "content");
    place.write("in/lone.sig", "content");
    let long = "n".repeat(252);
    place.write(format!("in/{long}"), "content");
    let check = ["check", "--policy", "policy.toml"];
    let told = place.run(check).exits(0).stdout().to_vec();
    let told = String::from_utf8_lossy(&told).into_owned();
    for part in ["2 files are refused (hard-links)", "1 file is refused (suffix-in-other-case)"] {
        assert!(told.contains(part), "{told}");
    }
    let daemon = Daemon::start(&place);
    daemon.waits_for_nth("refused", 6);
    let expected = json!({
        "foreign-signature": 1, "hard-links": 2, "name-too-long": 1, "stray-signature": 1, "suffix-in-other-case": 1,
    });
    daemon.until("counted", || status(&place)["rules"][0]["refused"] == expected);
    let now = status(&place);
    let concerns: Vec<_> = now["concerns"].as_array().unwrap().iter().collect();
    assert_eq!(concerns.len(), 5, "{now}");
    for concern in concerns {
        assert_eq!((&concern["needs_operator"], &concern["rule"]), (&json!(true), &json!("sign")), "{now}");
        assert!(concern["hint"].as_str().unwrap().contains("kms-sig backlog --cause"), "{now}");
    }
    place.run(["status", "--policy", "policy.toml"]).exits(3);
    let told = String::from_utf8_lossy(place.run(check).exits(0).stdout()).into_owned();
    assert!(told.contains("1 file is refused (foreign-signature)"), "{told}");
    let listed = |arguments: &str| {
        let files = asked(&place, &format!("backlog --json {arguments}"));
        files.iter().map(|file| file["file"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed("--cause hard-links"), ["linked", "linked-too"]);
    assert_eq!(listed("").len(), 6);
    assert_eq!(listed("--held"), [""; 0]);
    let shown = place.run(["backlog", "--policy", "policy.toml", "--most", "1"]).exits(0);
    assert!(String::from_utf8_lossy(shown.stdout()).contains("sign: 5 more"));
    // As it is after a restart, before anything was looked at.
    daemon.stop();
    let daemon = Daemon::start(&place);
    daemon.until("counted", || status(&place)["rules"][0]["refused"] == expected);
    for name in ["aside", "in/theirs.sig", "in/UPPER.SIG", "in/linked-too"] {
        fs::remove_file(place.path(name)).unwrap();
    }
    place.write("in/lone", "content");
    fs::remove_file(place.path(format!("in/{long}"))).unwrap();
    daemon.until("only the signature that was there before its file is left", || {
        status(&place)["rules"][0]["refused"] == json!({ "foreign-signature": 1 })
    });
    fs::remove_file(place.path("in/lone.sig")).unwrap();
    daemon.until("all is well", || status(&place)["concerns"] == json!([]));
    assert_eq!(status(&place)["rules"][0]["refused"], json!({}));
}

#[test]
fn what_a_rule_allows_by_now_is_not_counted() {
    let place = place(&with(SIGN, "max_size = 3"));
    place.write("in/f", "content");
    let daemon = Daemon::start(&place);
    daemon.until("counted", || status(&place)["rules"][0]["refused"] == json!({ "too-large": 1 }));
    set_policy(&place, SIGN);
    daemon.hang_up();
    daemon.waits_for("signed");
    daemon.until("all is well", || status(&place)["concerns"] == json!([]));
}
