//! The daemon with AWS KMS: against a real server, through a proxy that breaks things in every way
//! KMS and the network can. Whatever happens, no outage becomes a verdict (P2), and everything goes
//! on when it is over.

use std::fs;
use std::os::unix::fs::chown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::control::status;
use crate::support::daemon::Daemon;
use crate::support::kms::{at_proxy, aws_policy, policy, set_credentials, sign_at, sign_rule, verify_rule};
use crate::support::place::Place;
use crate::support::policy::{SIGN, VERIFY, place, with};
use crate::support::proxy::{Fault, OTHER_KEY, Proxy};
use crate::support::quota::{Asked, QUOTA_KEY, QuotaKms};
use crate::support::side_by_side::each_passes;
use crate::support::wait::PATIENCE;

/// Signs content with the AWS key by command line and drops the pair.
fn drop_pair(place: &Place, proxy: &Proxy, key: &str, file: &str, content: &str) {
    fs::create_dir_all(place.path("made")).unwrap();
    place.write(format!("made/{file}"), content);
    let (made, signature) = (format!("made/{file}"), format!("made/{file}.sig"));
    sign_at(place, &proxy.url(), key, &made, &signature, &format!("file={file}"));
    for name in [file.to_owned(), format!("{file}.sig")] {
        fs::rename(place.path(format!("made/{name}")), place.path(format!("in/{name}"))).unwrap();
    }
}

fn in_quarantine(place: &Place) -> usize {
    fs::read_dir(place.path("q")).map_or(0, Iterator::count)
}

#[test]
fn what_is_dropped_is_signed_and_what_is_signed_is_delivered() {
    let (place, proxy, key) = at_proxy();
    policy(&place, &proxy, &sign_rule(&key));
    let daemon = Daemon::start(&place);
    place.write("in/f", "content");
    let event = daemon.waits_for("signed");
    assert_eq!(event["key"], key);
    daemon.stop();
    // A restart asks KMS nothing about what it signed before.
    let daemon = Daemon::start(&place);
    place.write("in/g", "another");
    daemon.waits_for("signed");
    assert_eq!(proxy.requests().len(), 2, "one Encrypt each");
    fs::remove_file(place.path("in/g")).unwrap();
    fs::remove_file(place.path("in/g.sig")).unwrap();
    daemon.stop();
    policy(&place, &proxy, &verify_rule(&key));
    let daemon = Daemon::start(&place);
    assert_eq!(daemon.waits_for("delivered")["key"], key);
    let decrypts: Vec<_> = proxy.requests().into_iter().filter(|r| r.operation == "Decrypt").collect();
    assert_eq!(decrypts.len(), 1);
    assert_eq!(decrypts[0].key_id.as_deref(), Some(key.as_str()), "K4: the key is always named");
    assert_eq!(decrypts[0].body["EncryptionContext"]["file"], "f", "the context binds the name");
}

/// What another trusted key opens is delivered, however long one of them has not answered.
#[test]
fn k3_a_silent_key_holds_nothing_that_another_opens() {
    let (place, proxy, key) = at_proxy();
    let both = with(VERIFY, &format!("trusted_keys = [\"{key}\", \"local:demo\"]"));
    policy(&place, &proxy, &with(&both, "signature_timeout = \"1h\""));
    proxy.always(Some(Fault::Reset));
    let daemon = Daemon::start(&place);
    for n in 1..=20 {
        crate::support::files::drop_pair(&place, &format!("f{n}"), "content");
        daemon.waits_for_nth("delivered", n);
    }
    assert!(proxy.requests().len() < 20, "the silent key is asked no more");
    assert_eq!(in_quarantine(&place), 0);
}

#[test]
fn p2_no_fault_of_kms_becomes_a_verdict() {
    // K8, K9, K10, K11, K13, K16, K17
    let faults = [
        Fault::THROTTLED,
        Fault::INTERNAL,
        Fault::UNKNOWN,
        Fault::ACCESS_DENIED,
        Fault::EXPIRED_TOKEN,
        Fault::DISABLED,
        Fault::Error(400, "NotFoundException"),
        Fault::Error(400, "KMSInvalidStateException"),
        Fault::Error(400, "InvalidKeyUsageException"),
        Fault::Error(400, "ValidationException"),
        Fault::Error(500, "DependencyTimeoutException"),
        Fault::Error(500, "KeyUnavailableException"),
        Fault::Reset,
        Fault::BrokenJson,
        Fault::Html,
        Fault::Status(418),
        Fault::Status(302),
        Fault::Page(403),
    ];
    each_passes(&faults, |&fault| {
        let (place, proxy, key) = at_proxy();
        policy(&place, &proxy, &verify_rule(&key));
        drop_pair(&place, &proxy, &key, "good", "content");
        drop_pair(&place, &proxy, &key, "bad", "content");
        place.write("in/bad", "tampered");
        proxy.always(Some(fault));
        let daemon = Daemon::start(&place);
        daemon.until("held", || daemon.count("held") + daemon.count("held; will be tried again") > 0);
        assert_eq!(in_quarantine(&place), 0, "{fault:?}");
        assert!(!place.path("out/good").exists(), "{fault:?}");
        proxy.always(None);
        daemon.waits_for("delivered");
        assert_eq!(daemon.waits_for("quarantined")["reason"], "mismatch", "{fault:?}");
        assert!(!place.path("out/bad").exists(), "{fault:?}");
    });
}

#[test]
fn k8_after_a_moment_of_throttling_everything_goes_on_at_once() {
    const FILES: usize = 200;
    let (place, proxy, key) = at_proxy();
    policy(&place, &proxy, &sign_rule(&key));
    (0..FILES).for_each(|n| place.write(format!("in/f{n}"), "content"));
    proxy.always(Some(Fault::THROTTLED));
    let daemon = Daemon::start(&place);
    daemon.until("throttled", || proxy.requests().len() >= 20);
    proxy.always(None);
    daemon.waits_for_nth("signed", FILES);
}

/// What only waits for its turn is not in hand.
#[test]
fn c17_k8_who_waits_for_a_slow_rate_keeps_nobody_from_ending() {
    let (place, proxy, key) = at_proxy();
    policy(&place, &proxy, &sign_rule(&key));
    (0..200).for_each(|n| place.write(format!("in/f{n}"), "content"));
    proxy.always(Some(Fault::THROTTLED));
    let daemon = Daemon::start(&place);
    daemon.until("throttled", || proxy.requests().len() >= 10);
    assert_eq!(daemon.stop().code(), Some(0));
}

#[test]
fn p2_no_fault_of_kms_leaves_half_a_signature() {
    let faults = [Fault::THROTTLED, Fault::ACCESS_DENIED, Fault::Reset, Fault::BrokenJson, Fault::OtherKey];
    each_passes(&faults, |&fault| {
        let (place, proxy, key) = at_proxy();
        policy(&place, &proxy, &sign_rule(&key));
        place.write("in/f", "content");
        proxy.always(Some(fault));
        let daemon = Daemon::start(&place);
        daemon.until("held", || daemon.count("held") + daemon.count("held; will be tried again") > 0);
        assert!(!place.path("in/f.sig").exists(), "K22: {fault:?}");
        proxy.always(None);
        daemon.waits_for("signed");
    });
}

#[test]
fn a_signer_needs_no_decrypt_for_signatures_that_it_replaced() {
    let (place, proxy, key) = at_proxy();
    policy(&place, &proxy, &with(&sign_rule(&key), "on_stale = \"resign\""));
    place.write("in/f", "content");
    let daemon = Daemon::start(&place);
    daemon.waits_for("signed");
    let old = place.read("in/f.sig");
    place.write("in/f", "other content");
    daemon.waits_for_nth("signed", 2);
    daemon.stop();
    // As after a kill between its note in state and the exchange of the files.
    place.write("in/f.sig", &old);
    let daemon = Daemon::start(&place);
    daemon.waits_for("signed");
    assert_ne!(place.read("in/f.sig"), old);
    assert!(proxy.requests().iter().all(|request| request.operation == "Encrypt"), "{:?}", proxy.requests());
}

#[test]
fn a21_a_name_that_is_taken_at_the_destination_costs_no_call() {
    let (place, proxy, key) = at_proxy();
    policy(&place, &proxy, &with(&sign_rule(&key), "deliver_to = \"out\""));
    fs::create_dir_all(place.path("out")).unwrap();
    place.write("out/f", "what is there");
    place.write("in/f", "content");
    let daemon = Daemon::start(&place);
    assert_eq!(daemon.waits_for("held")["cause"], "conflict");
    assert_eq!(proxy.requests().len(), 0);
    assert_eq!(place.read("out/f"), b"what is there");
}

#[test]
fn k2_another_keys_signature_is_a_wrong_key() {
    let (place, proxy, key) = at_proxy();
    policy(&place, &proxy, &verify_rule(&key));
    drop_pair(&place, &proxy, &key, "f", "content");
    proxy.always(Some(Fault::INCORRECT_KEY));
    let daemon = Daemon::start(&place);
    assert_eq!(daemon.waits_for("quarantined")["reason"], "wrong-key");
}

#[test]
fn k3_every_trusted_key_is_asked() {
    let (place, proxy, key) = at_proxy();
    policy(&place, &proxy, &with(VERIFY, &format!("trusted_keys = [\"{OTHER_KEY}\", \"{key}\"]")));
    drop_pair(&place, &proxy, &key, "f", "content");
    proxy.next(Fault::INCORRECT_KEY);
    let daemon = Daemon::start(&place);
    assert_eq!(daemon.waits_for("delivered")["key"], key);
}

#[test]
fn k4_an_answer_of_another_key_is_never_taken() {
    let (place, proxy, key) = at_proxy();
    policy(&place, &proxy, &verify_rule(&key));
    drop_pair(&place, &proxy, &key, "f", "content");
    proxy.always(Some(Fault::OtherKey));
    let daemon = Daemon::start(&place);
    assert_eq!(daemon.waits_for("quarantined")["reason"], "wrong-key");
    assert!(!place.path("out/f").exists());
    let alarm = daemon.waits_for(
        "KMS decrypted with another key than the one that was named; its answer counts for nothing",
    );
    assert_eq!([&alarm["level"], &alarm["key"], &alarm["answered"]], ["ERROR", &key, OTHER_KEY]);
}

#[test]
fn k10_a_key_disabled_and_enabled_again_needs_no_restart() {
    let (place, proxy, key) = at_proxy();
    policy(&place, &proxy, &sign_rule(&key));
    proxy.always(Some(Fault::DISABLED)); // moto encrypts under disabled keys
    place.write("in/f", "content");
    let daemon = Daemon::start(&place);
    let held = daemon.waits_for("held");
    assert_eq!(
        (held["cause"].as_str(), held["hint"].as_str()),
        (Some("key-state"), Some("enable the key or cancel its deletion"))
    );
    proxy.always(None);
    daemon.waits_for("signed");
}

#[test]
fn k19_an_outage_costs_few_calls_and_everything_is_done_afterwards() {
    const FILES: usize = 300;
    let (place, proxy, key) = at_proxy();
    policy(&place, &proxy, &format!("limits.kms_per_second = 1000\n{}", sign_rule(&key)));
    for i in 0..FILES {
        place.write(format!("in/f{i:03}"), format!("content {i}"));
    }
    proxy.always(Some(Fault::Reset));
    let daemon = Daemon::start(&place);
    daemon.waits_for("KMS does not answer; asking again every half minute");
    daemon.until("all are held", || daemon.count("held; will be tried again") > 0);
    let during = proxy.requests().len();
    assert!(during < FILES * 3, "{during} calls although the breaker is open");
    proxy.always(None);
    daemon.waits_for("KMS answers again");
    daemon.waits_for_nth("signed", FILES);
    assert_eq!(daemon.count("quarantined"), 0);
}

#[test]
fn k20_a_wrong_key_in_the_policy_does_not_empty_the_folder() {
    const FILES: usize = 25;
    let (place, proxy, key) = at_proxy();
    policy(&place, &proxy, &verify_rule(&key));
    for i in 0..FILES {
        drop_pair(&place, &proxy, &key, &format!("f{i:02}"), "content");
    }
    proxy.always(Some(Fault::INVALID_CIPHERTEXT)); // as a wrong context would be answered
    let daemon = Daemon::start(&place);
    assert_eq!(daemon.waits_for("held")["cause"], "brake");
    daemon.until("judged all", || fs::read_dir(place.path("in")).unwrap().count() <= 2 * (FILES - 9) + 1);
    assert!(in_quarantine(&place) < 10, "{} were moved", in_quarantine(&place));
    // What is valid goes on, brake or no brake.
    proxy.always(None);
    drop_pair(&place, &proxy, &key, "good", "content");
    daemon.until("delivered", || place.path("out/good").exists());
}

#[test]
fn k24_plain_http_to_another_machine_is_refused() {
    let place = place(&format!("aws.endpoint_url = \"http://kms.example.com\"\n{SIGN}"));
    let run = place.run(["check", "--policy", "policy.toml"]).exits(2);
    assert!(run.stderr().contains("policy.toml:5: "), "{}", run.stderr());
}

/// The daemon's only limit is a quota that it shares with another client: one that backs off as a
/// textbook has it. Nobody starves, and throttling is no outage. That the other keeps two fifths is
/// tested with the rate's own clock; here both wait for a busy machine too.
#[test]
fn k8_a_quota_is_found_and_shared_with_another_client() {
    const FILES: usize = 300;
    // Few enough for a busy machine to use up; the unit test of the rate has 300.
    let kms = QuotaKms::start(100.0);
    let mut place = place(SIGN);
    set_credentials(&mut place);
    aws_policy(&place, &kms.url(), &sign_rule(QUOTA_KEY));
    (0..FILES).for_each(|n| place.write(format!("in/f{n}"), "content"));
    let is_over = AtomicBool::new(false);
    let daemon = thread::scope(|scope| {
        scope.spawn(|| {
            let (mut per_second, mut credit, began) = (50.0, 0.0, Instant::now());
            let (mut at, mut halved) = (began, began);
            while !is_over.load(Ordering::Relaxed) && began.elapsed() < PATIENCE {
                thread::sleep(Duration::from_millis(5));
                let passed = std::mem::replace(&mut at, Instant::now()).elapsed().as_secs_f64();
                per_second += 20.0 * passed; // twenty a second more each second
                credit += per_second * passed;
                while credit >= 1.0 {
                    credit -= 1.0;
                    // Half as many when it is throttled, but not for each call of a moment.
                    if !kms.call_as_other("other") && halved.elapsed() >= Duration::from_millis(200) {
                        per_second = (per_second / 2.0).max(1.0);
                        halved = Instant::now();
                    }
                }
            }
        });
        let daemon = Daemon::start(&place);
        daemon.waits_for_nth("signed", FILES);
        is_over.store(true, Ordering::Relaxed);
        daemon
    });
    let asked = kms.asked();
    let is_ours = |asked: &Asked| asked.file != "other";
    let first = asked.iter().position(is_ours).unwrap();
    let last = asked.iter().rposition(is_ours).unwrap();
    let got: Vec<_> = asked[first..=last].iter().filter(|asked| asked.is_admitted).collect();
    let ours = got.iter().filter(|asked| is_ours(asked)).count();
    let throttled = asked.iter().filter(|asked| is_ours(asked) && !asked.is_admitted).count();
    let shown = format!("ours {ours}, theirs {}, ours throttled {throttled}", got.len() - ours);
    assert_eq!(ours, FILES, "one call each; {shown}");
    assert!(throttled > 0, "there was a limit to be found; {shown}");
    assert!((got.len() - ours) * 4 >= got.len(), "a quarter is the other's, at the least; {shown}");
    assert_eq!(daemon.count("KMS does not answer; asking again every half minute"), 0, "{shown}");
    let rate = &status(&place)["kms"]["rates"][0];
    assert_eq!((&rate["account"], &rate["region"]), (&"111122223333".into(), &"eu-west-1".into()), "{rate}");
    assert!(
        rate["calls_per_second"].as_f64() < rate["ceiling"].as_f64() && rate["ceiling"] == 1000.0,
        "{rate}"
    );
    assert!(rate["last_throttled"].is_string(), "{rate}");
}

/// Signs content as `good` under the key of the stub, and gives the signature.
fn signed(place: &Place, kms: &QuotaKms, content: &str) -> Vec<u8> {
    fs::create_dir_all(place.path("made")).unwrap();
    place.write("made/good", content);
    sign_at(place, &kms.url(), QUOTA_KEY, "made/good", "made/good.sig", "file=good");
    place.read("made/good.sig")
}

/// Signatures that differ from a good one, and so cost a call each: more than are in hand at once.
fn flood(place: &Place, kms: &QuotaKms, dir: &str) {
    let good = signed(place, kms, "content");
    for n in 1..=300_u16 {
        let (mut signature, end) = (good.clone(), good.len() - 2);
        signature[end..].iter_mut().zip(n.to_be_bytes()).for_each(|(byte, other)| *byte ^= other);
        place.write(format!("{dir}/bad{n}"), "content");
        place.write(format!("{dir}/bad{n}.sig"), signature);
    }
}

/// How many calls were made for others between the arrival of a pair and the call for it.
fn calls_before(kms: &QuotaKms, arrived: usize) -> usize {
    kms.asked().iter().skip(arrived).position(|asked| asked.file == "good").expect("it was asked for")
}

#[test]
fn a_flood_in_one_rule_delays_another_by_three_calls_at_most() {
    let kms = QuotaKms::start(1000.0);
    let mut place = place(VERIFY);
    set_credentials(&mut place);
    fs::create_dir(place.path("flooded")).unwrap();
    flood(&place, &kms, "flooded");
    let quiet = with(&verify_rule(QUOTA_KEY), "name = \"quiet\"");
    let flooded = with(&with(&quiet, "name = \"flooded\""), "path = \"flooded\"");
    let flooded = with(&flooded, "deliver_to = \"out\"");
    aws_policy(&place, &kms.url(), &format!("limits.kms_per_second = 2\n{quiet}{flooded}"));
    let daemon = Daemon::start(&place);
    daemon.until("flooded", || kms.asked().len() >= 3);
    let arrived = kms.asked().len();
    for name in ["good", "good.sig"] {
        fs::copy(place.path("made").join(name), place.path("in").join(name)).unwrap();
    }
    daemon.waits_for("delivered");
    let before = calls_before(&kms, arrived);
    assert!(before <= 3, "{before} calls of the other rule came first");
}

#[test]
fn a_flood_of_one_sender_delays_another_of_the_rule_by_three_calls_at_most() {
    let kms = QuotaKms::start(1000.0);
    let mut place = place(VERIFY);
    set_credentials(&mut place);
    flood(&place, &kms, "in");
    aws_policy(&place, &kms.url(), &format!("limits.kms_per_second = 2\n{}", verify_rule(QUOTA_KEY)));
    let daemon = Daemon::start(&place);
    daemon.until("flooded", || kms.asked().len() >= 3);
    let arrived = kms.asked().len();
    for name in ["good", "good.sig"] {
        chown(place.path("made").join(name), Some(7002), None).unwrap(); // as root
        fs::rename(place.path("made").join(name), place.path("in").join(name)).unwrap();
    }
    daemon.waits_for("delivered");
    let before = calls_before(&kms, arrived);
    assert!(before <= 3, "{before} calls of the other sender came first");
}
