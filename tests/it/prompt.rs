//! What is proved complete waits for nothing: a rename in a sign rule, a valid signature in a
//! verify rule. Everything else waits for `settle`, which is an hour here, so that nothing gets
//! past it by waiting.

use std::fs;
use std::fs::{File, FileTimes};
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::support::control::{asked, status};
use crate::support::daemon::Daemon;
use crate::support::files::{drop_pair, names, sign, verifies};
use crate::support::place::Place;
use crate::support::policy::{SIGN, VERIFY, place, set_policy, with};

/// The rule, with which nothing is quiet before an hour is over.
fn restless(rule: &str) -> String {
    with(rule, "settle = \"1h\"")
}

fn mv(place: &Place, from: &str, to: &str) {
    fs::rename(place.path(from), place.path(to)).unwrap();
}

fn set_modified(path: &Path, time: SystemTime) {
    File::open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
}

/// What waits, with the cause `settling` or another.
fn waiting(place: &Place, cause: &str) -> Vec<String> {
    let backlog = asked(place, "backlog --json");
    let meant = backlog.iter().filter(|of| of["cause"] == cause);
    meant.map(|of| of["file"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_file_that_was_renamed_into_a_sign_folder_is_signed_at_once_and_no_other() {
    let place = place(&with(&restless(SIGN), "recursive = true"));
    fs::create_dir(place.path("below")).unwrap();
    for file in ["from-elsewhere", "below/of-a-directory", "link-from", "copy-from"] {
        place.write(file, "content");
    }
    place.write("in/found-by-a-scan", "content");
    let daemon = Daemon::start(&place);
    // Not proved: written, copied or linked under their names, moved with their directory, marked
    // as broken off, or with a name before that says so.
    place.write("in/written", "content");
    fs::copy(place.path("copy-from"), place.path("in/copied")).unwrap();
    fs::hard_link(place.path("link-from"), place.path("in/linked")).unwrap();
    fs::remove_file(place.path("link-from")).unwrap();
    mv(&place, "below", "in/below");
    for (before, after, time) in [
        ("in/.broken.Xa12bc", "in/broken-rsync", SystemTime::UNIX_EPOCH),
        ("in/.in.broken.", "in/broken-proftpd", SystemTime::now()),
        ("in/.pureftpd-upload.1.2.3", "in/broken-pure-ftpd", SystemTime::now()),
    ] {
        place.write(before, "half of the con");
        set_modified(&place.path(before), time);
        mv(&place, before, after);
    }
    let held_open = File::create(place.path("in/.still-written")).unwrap();
    mv(&place, "in/.still-written", "in/still-written");
    place.write("in/.appended", "content");
    mv(&place, "in/.appended", "in/appended");
    place.write("in/appended", "another content, under the name");
    // Proved.
    mv(&place, "from-elsewhere", "in/from-elsewhere");
    place.write("in/.renamed", "content");
    mv(&place, "in/.renamed", "in/renamed");
    place.write("in/.with-times", "content");
    mv(&place, "in/.with-times", "in/with-times");
    set_modified(&place.path("in/with-times"), SystemTime::now() - Duration::from_secs(86_400));
    daemon.waits_for_nth("signed", 3);
    for file in ["from-elsewhere", "renamed", "with-times"] {
        verifies(&place, &format!("in/{file}"), &format!("file={file}"));
    }
    // One that comes later is signed, and the others are not.
    place.write("in/.later", "content");
    mv(&place, "in/.later", "in/later");
    daemon.waits_for_nth("signed", 4);
    let all = |dir: &str| names(&place.path(dir)).into_iter().filter(|name| name.ends_with(".sig"));
    assert_eq!(
        all("in").collect::<Vec<_>>(),
        ["from-elsewhere.sig", "later.sig", "renamed.sig", "with-times.sig"]
    );
    assert_eq!(all("in/below").count(), 0);
    daemon.until("in the backlog", || waiting(&place, "settling").len() == 9);
    drop(held_open);
}

#[test]
fn a_rename_of_a_name_that_was_taken_a_moment_ago_waits() {
    let place = place(&restless(SIGN));
    let daemon = Daemon::start(&place);
    for content in ["first", "second"] {
        place.write("new", content);
        mv(&place, "new", "in/f");
        daemon.until("there", || waiting(&place, "settling") == ["f"] || place.path("in/f.sig").exists());
        if content == "first" {
            daemon.waits_for("signed");
        }
    }
    daemon.until("in the backlog", || waiting(&place, "settling") == ["f"]);
    assert_eq!(daemon.count("signed"), 1);
}

#[test]
fn a_pair_is_delivered_as_soon_as_it_is_whole_however_it_came() {
    let place = place(&restless(VERIFY));
    let daemon = Daemon::start(&place);
    drop_pair(&place, "renamed", "content");
    daemon.waits_for_nth("delivered", 1);
    let copies = |file: &str, first: &str, second: &str| {
        sign(&place, file, "content");
        for end in [first, second] {
            let from = place.path(format!("made/{file}{end}"));
            fs::copy(from, place.path(format!("in/{file}{end}"))).unwrap();
        }
    };
    copies("payload-first", "", ".sig");
    daemon.waits_for_nth("delivered", 2);
    copies("signature-first", ".sig", "");
    daemon.waits_for_nth("delivered", 3);
    daemon.until("removed", || names(&place.path("in")).is_empty());
    assert_eq!(names(&place.path("out")).len(), 6);
}

#[test]
fn what_does_not_verify_early_is_judged_when_it_would_have_been_anyway() {
    let place = place(&with(VERIFY, "grace = \"1h\""));
    let daemon = Daemon::start(&place);
    drop_pair(&place, "bad", "content");
    daemon.waits_for("delivered");
    let (_, signature) = sign(&place, "other", "other content");
    place.write("bad", "content");
    mv(&place, "bad", "in/bad");
    fs::rename(signature, place.path("in/bad.sig")).unwrap();
    daemon.until("doubted", || waiting(&place, "grace") == ["bad"]);
    assert_eq!(names(&place.path("q")), [""; 0], "no early verdict but a valid one counts");
    // The right signature comes: it is valid then.
    sign(&place, "bad", "content");
    mv(&place, "made/bad.sig", "in/bad.sig");
    daemon.waits_for_nth("delivered", 2);
    assert_eq!(names(&place.path("q")), [""; 0]);
}

#[test]
fn in_place_an_early_verdict_needs_that_nobody_is_writing() {
    let rule = crate::support::policy::without(&restless(VERIFY), "deliver_to");
    let place = place(&with(&rule, "in_place = true"));
    let daemon = Daemon::start(&place);
    sign(&place, "open", "content");
    let writer = File::options().append(true).open(place.path("made/open")).unwrap();
    for name in ["open", "open.sig"] {
        mv(&place, &format!("made/{name}"), &format!("in/{name}"));
    }
    drop_pair(&place, "closed", "content");
    assert_eq!(daemon.waits_for("valid")["file"], "closed");
    daemon.until("left", || {
        ["settling", "being-written"].iter().any(|cause| waiting(&place, cause).contains(&"open".to_owned()))
    });
    assert_eq!(daemon.count("valid"), 1, "the other one waits for its writer");
    drop(writer); // which is a close
    daemon.waits_for_nth("valid", 2);
}

#[test]
fn without_prompt_everything_waits_for_settle() {
    let rules = [SIGN, &with(&with(VERIFY, "path = \"in2\""), "name = \"verify\"")].map(restless);
    let place = place("");
    fs::create_dir(place.path("in2")).unwrap();
    set_policy(&place, &rules.map(|rule| with(&rule, "prompt = false")).concat());
    let daemon = Daemon::start(&place);
    sign(&place, "pair", "content");
    for name in ["pair", "pair.sig"] {
        mv(&place, &format!("made/{name}"), &format!("in2/{name}"));
    }
    place.write("renamed", "content");
    mv(&place, "renamed", "in/renamed");
    daemon.until("in the backlog", || waiting(&place, "settling") == ["renamed", "pair"]);
    assert_eq!((daemon.count("signed"), daemon.count("delivered")), (0, 0));
}

/// Bytes of files hashed so far.
fn hashed(place: &Place) -> u64 {
    status(place)["rules"][0]["hashed_bytes"].as_u64().unwrap()
}

#[test]
fn of_a_payload_beside_what_is_no_signature_nothing_is_read_before_the_verdict_counts() {
    let place = place(&with(VERIFY, "grace = \"1h\""));
    let daemon = Daemon::start(&place);
    // A hole: it takes no room, and its copy would.
    File::create(place.path("in/large")).unwrap().set_len(64 << 20).unwrap();
    place.write("in/large.sig", [b'x'; 20_000]);
    place.write("in/small", "content");
    place.write("in/small.sig", [b'x'; 20_000]);
    daemon.until("doubted", || waiting(&place, "grace") == ["large", "small"]);
    assert_eq!(hashed(&place), 0);
    drop_pair(&place, "good", "content");
    daemon.waits_for("delivered");
    assert_eq!(hashed(&place), 7);
    // When it counts, it is read for the record, and still not copied.
    set_policy(&place, &with(VERIFY, "grace = \"10ms\""));
    daemon.hang_up();
    daemon.waits_for_nth("quarantined", 2);
    assert_eq!(hashed(&place), 7 + 7 + (64 << 20));
}

#[cfg(feature = "aws")]
mod restless_producers {
    use std::time::Instant;

    use super::*;
    use crate::support::kms::{at_proxy, policy, sign_at, sign_rule, verify_rule};

    /// Has a producer at it for some time; returns how long that was.
    fn producing(mut produce: impl FnMut(u32)) -> Duration {
        let (began, mut n) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_millis(4500) {
            produce(n);
            n += 1;
            // What changes while it is read costs no call; this is long enough to read it.
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(n > 20, "it produced no more than {n} times");
        began.elapsed()
    }

    /// The most attempts of one name in such a time: one at its beginning, then each two seconds.
    fn most(produced: Duration) -> usize {
        usize::try_from(produced.as_secs() / 2).unwrap() + 1
    }

    #[test]
    fn whoever_rewrites_a_pair_as_fast_as_he_can_costs_no_more_than_under_settle() {
        let (place, proxy, key) = at_proxy();
        policy(&place, &proxy, &with(&verify_rule(&key), "settle = \"2s\""));
        let daemon = Daemon::start(&place);
        place.write("in/f", "content");
        let produced = producing(|n| {
            // Each is a ciphertext of its own, as far as anybody but KMS can tell.
            place.write("signature", [&n.to_le_bytes()[..], &[1; 180]].concat());
            mv(&place, "signature", "in/f.sig");
        });
        let asked = proxy.requests().len();
        assert!((1..=most(produced)).contains(&asked), "{asked} calls in {produced:?}");
        drop(daemon);
    }

    #[test]
    fn whoever_touches_a_pair_as_fast_as_he_can_has_its_signature_asked_about_once() {
        let (place, proxy, key) = at_proxy();
        policy(&place, &proxy, &with(&verify_rule(&key), "settle = \"2s\""));
        let daemon = Daemon::start(&place);
        place.write("signed", "other content");
        sign_at(&place, &proxy.url(), &key, "signed", "in/f.sig", "file=f");
        place.write("in/f", "content");
        producing(|n| {
            let touched = File::options().append(true).open(place.path("in/f")).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(n.into());
            touched.set_times(FileTimes::new().set_modified(time)).unwrap();
        });
        daemon.waits_for("quarantined");
        let decrypts = proxy.requests().into_iter().filter(|of| of.operation == "Decrypt");
        assert_eq!(decrypts.count(), 1);
    }

    #[test]
    fn whoever_renames_a_file_as_fast_as_he_can_has_it_signed_no_more_often_than_under_settle() {
        let (place, proxy, key) = at_proxy();
        policy(&place, &proxy, &with(&sign_rule(&key), "settle = \"2s\""));
        let daemon = Daemon::start(&place);
        let produced = producing(|n| {
            place.write("new", n.to_string());
            mv(&place, "new", "in/f");
        });
        let asked = proxy.requests().len();
        assert!((1..=most(produced)).contains(&asked), "{asked} calls in {produced:?}");
        drop(daemon);
    }
}
