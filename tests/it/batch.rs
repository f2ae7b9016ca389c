//! Batches in the daemon: many files for one call of KMS, and each judged by itself.

use std::collections::BTreeSet;
use std::fs;

use kms_sig::context::Context;
use kms_sig::context::leaf_keys::LeafKeys;
use kms_sig::digest::Digest;
use kms_sig::kms::local::Local;
use kms_sig::signature::Signature;
use kms_sig::signature::batch::{self, Batch};
use kms_sig::signature::merkle::Tree;
use kms_sig::signing::{Formats, Signer, Verdict, Verifier};

use crate::support::control::status;
use crate::support::daemon::Daemon;
use crate::support::place::Place;
use crate::support::policy::{SIGN, VERIFY, place, set_policy, with};

/// The files `f0`, `f1`, … of a batch, with what is in them.
pub(crate) fn files(count: u64) -> impl Iterator<Item = (String, String)> {
    (0..count).map(|n| (format!("f{n}"), format!("content {n}")))
}

/// The leaves of these files, each with its name in the context.
pub(crate) fn tree(count: u64) -> Tree {
    let leaf = |(name, content): (String, String)| {
        let context = Context::parse(&[format!("file={name}")]).unwrap();
        batch::leaf(&Digest::of(content.as_bytes()), &context)
    };
    Tree::new(files(count).map(leaf).collect()).unwrap()
}

/// What lives only in the leaves.
pub(crate) fn split() -> LeafKeys {
    LeafKeys::parse("[file]").unwrap()
}

/// The signatures of [`files`], by `local:demo` of a place.
fn signatures(place: &Place, count: u64) -> Vec<Vec<u8>> {
    let local = Local::new(place.path("keyring"));
    let key = "local:demo".parse().unwrap();
    let shared = Context::default().of_batch(&split()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let signer = Signer::new(&local, &key);
    let signed = runtime.block_on(signer.sign_batch(&shared, split(), tree(count))).unwrap();
    (0..count).map(|n| signed.signed(n).unwrap().signature.as_bytes().to_vec()).collect()
}

/// Puts pairs there.
pub(crate) fn drop_pairs(place: &Place, signatures: &[Vec<u8>]) {
    for ((name, content), signature) in files(signatures.len() as u64).zip(signatures) {
        place.write(format!("in/{name}.sig"), signature);
        place.write(format!("in/{name}"), content);
    }
}

/// A verify rule that takes batches.
pub(crate) fn accepting() -> String {
    with(VERIFY, "accept_batch = true")
}

#[test]
fn p1_each_file_of_a_batch_is_judged_by_itself() {
    let place = place(&accepting());
    let good = signatures(&place, 20);
    drop_pairs(&place, &good);
    place.write("in/f3", "tampered");
    place.write("in/f4.sig", &good[5]);
    place.write("in/f6.sig", &signatures(&place, 21)[6][..300]);
    place.write("in/other", "content 7");
    place.write("in/other.sig", &good[7]);
    let daemon = Daemon::start(&place);
    daemon.waits_for_nth("quarantined", 4);
    daemon.waits_for_nth("delivered", 17);
    daemon.stop();
    for (n, (name, content)) in files(20).enumerate() {
        let is_good = ![3, 4, 6].contains(&n);
        assert_eq!(place.path(format!("out/{name}")).exists(), is_good, "{name}");
        if is_good {
            assert_eq!(place.read(format!("out/{name}")), content.as_bytes());
            assert_eq!(place.read(format!("out/{name}.sig")), good[n]);
        }
    }
    assert!(!place.path("out/other").exists());
}

#[test]
fn each_signature_verifies_alone_by_the_command_line() {
    let place = place(&accepting());
    drop_pairs(&place, &signatures(&place, 5));
    let verify = |name: &str, context: &str| {
        let file = format!("in/{name}");
        place.run(["verify", &file, "--key", "local:demo", "--keyring", "keyring", "--context", context])
    };
    for (name, _) in files(5) {
        verify(&name, &format!("file={name}"))
            .exits(0)
            .says("valid signature from local:demo\n")
            .complains("");
        verify(&name, "file=other").exits(1).says("").complains("invalid signature\n");
        verify(&name, "").exits(1).says("").complains("invalid signature\n");
    }
}

/// The signer has batches already, and the verifier's policy does not know of it.
#[test]
fn k20_batches_that_a_rule_does_not_take_do_not_empty_the_folder() {
    let place = place(VERIFY);
    let good = signatures(&place, 40);
    drop_pairs(&place, &good);
    let daemon = Daemon::start(&place);
    daemon.waits_for("a batch signature, and the rule has no accept_batch = true");
    let held = daemon.waits_for("held");
    assert_eq!(held["cause"], "brake");
    set_policy(&place, &accepting());
    daemon.hang_up();
    daemon.until("dealt with all", || daemon.count("delivered") + daemon.count("quarantined") == 40);
    assert!(daemon.count("quarantined") < 10, "{}", daemon.count("quarantined"));
}

#[test]
fn a_rule_that_takes_no_batches_calls_them_malformed_until_it_does() {
    let place = place(&with(VERIFY, "on_invalid = \"log\""));
    let good = signatures(&place, 2);
    drop_pairs(&place, &good);
    let daemon = Daemon::start(&place);
    assert_eq!(daemon.waits_for_nth("invalid", 2)["reason"], "malformed");
    set_policy(&place, &with(&accepting(), "on_invalid = \"log\""));
    daemon.hang_up();
    daemon.waits_for_nth("delivered", 2);
    assert_eq!(place.read("out/f1.sig"), good[1]);
}

#[test]
fn where_the_context_is_split_is_for_the_policy_to_say() {
    // The signer left `file` to the leaf; this rule has it for every file.
    let place = place(&with(&accepting(), "context = { file = \"f0\" }"));
    drop_pairs(&place, &signatures(&place, 1));
    let daemon = Daemon::start(&place);
    assert_eq!(daemon.waits_for("quarantined")["reason"], "rejected");
}

/// A sign rule with this window and so many files.
fn signing(window: &str, max_files: usize) -> String {
    with(SIGN, &format!("batch = {{ window = \"{window}\", max_files = {max_files} }}"))
}

fn write_files(place: &Place, count: u64) {
    files(count).for_each(|(name, content)| place.write(format!("in/{name}"), content));
}

/// The batch signature at a path below a place.
fn batch_at(place: &Place, path: impl AsRef<std::path::Path>) -> Batch {
    let bytes = place.read(path);
    Signature::parse(&bytes).unwrap().batch().expect("a batch signature").clone()
}

/// Whether each of [`files`] has a signature in `dir` that vouches for what lies there; how many
/// different batches they are of.
fn batches_of(place: &Place, dir: &str, count: u64) -> usize {
    let local = Local::new(place.path("keyring"));
    let keys = ["local:demo".parse().unwrap()];
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut batches = BTreeSet::new();
    for (name, _) in files(count) {
        let signature = Signature::parse(&place.read(format!("{dir}/{name}.sig"))).unwrap();
        let context = Context::parse(&[format!("file={name}")]).unwrap();
        let (split, digest) = (split(), Digest::of(&place.read(format!("{dir}/{name}"))));
        let verifier = Verifier::new(&local, &keys, Formats::Batch(&split));
        let opened = runtime.block_on(verifier.open(&context, &signature)).unwrap();
        let verdict = opened.judge(&digest.into()).unwrap();
        assert!(matches!(verdict, Verdict::Valid(_)), "{name}: {verdict:?}");
        batches.insert(signature.ciphertext().to_vec());
    }
    batches.len()
}

/// Waits until [`files`] are hashed and wait for others of their batch.
fn waiting(place: &Place, daemon: &Daemon, count: u64) {
    let bytes: usize = files(count).map(|(_, content)| content.len()).sum();
    daemon.until("waiting", || {
        let rule = &status(place)["rules"][0];
        rule["running_attempts"] == count && rule["hashed_bytes"] == bytes
    });
}

#[test]
fn what_settles_together_is_signed_together_and_each_verifies_alone() {
    let place = place(&signing("2s", 1000));
    write_files(&place, 300);
    let daemon = Daemon::start(&place);
    daemon.waits_for_nth("signed", 300);
    assert!(batches_of(&place, "in", 300) <= 3);
    place
        .run(["verify", "in/f17", "--key", "local:demo", "--keyring", "keyring", "--context", "file=f17"])
        .exits(0);
    // A later one is a batch of its own.
    place.write("in/late", "late");
    daemon.waits_for_nth("signed", 301);
    assert_eq!(batch_at(&place, "in/late.sig").proof().size(), 1);
    daemon.stop();
    // A restart knows them all.
    let before = place.read("in/f17.sig");
    let daemon = Daemon::start(&place);
    place.write("in/later", "later");
    daemon.waits_for("signed");
    assert_eq!((daemon.count("signed"), place.read("in/f17.sig")), (1, before));
}

#[test]
fn a_full_batch_does_not_wait_for_its_window() {
    let place = place(&signing("1m", 10));
    write_files(&place, 40);
    let daemon = Daemon::start(&place);
    daemon.waits_for_nth("signed", 40);
    assert_eq!(batches_of(&place, "in", 40), 4);
}

#[test]
fn c17_the_end_does_not_wait_for_the_window() {
    let place = place(&signing("1m", 1000));
    write_files(&place, 5);
    let daemon = Daemon::start(&place);
    waiting(&place, &daemon, 5);
    let began = std::time::Instant::now();
    assert!(daemon.stop().success());
    assert!(began.elapsed() < std::time::Duration::from_secs(30), "it waited for the window");
    batches_of(&place, "in", 5); // what was in hand is signed
}

#[test]
fn a_run_once_does_not_wait_for_the_window_when_nothing_more_can_come() {
    let place = place(&signing("1m", 1000));
    write_files(&place, 30);
    let began = std::time::Instant::now();
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0);
    assert!(began.elapsed() < std::time::Duration::from_secs(40), "it waited for the window");
    assert_eq!(batches_of(&place, "in", 30), 1);
}

#[test]
fn what_is_published_together_can_be_of_a_batch() {
    let place = place(&with(&signing("1s", 1000), "deliver_to = \"out\""));
    write_files(&place, 50);
    let daemon = Daemon::start(&place);
    daemon.waits_for_nth("signed and delivered", 50);
    daemon.stop();
    assert!(batches_of(&place, "out", 50) <= 5);
    assert_eq!(
        crate::support::files::all_names(&place.path("in"))
            .iter()
            .filter(|name| name.starts_with('f'))
            .count(),
        0
    );
}

#[test]
fn a_file_that_changes_meanwhile_starts_over_and_leaves_the_others_alone() {
    let place = place(&signing("1m", 21));
    write_files(&place, 20);
    let daemon = Daemon::start(&place);
    waiting(&place, &daemon, 20);
    place.write("in/f3", "changed");
    place.write("in/last", "which makes the batch full");
    daemon.waits_for_nth("signed", 20);
    assert_eq!(batch_at(&place, "in/last.sig").proof().size(), 21);
    assert!(!place.path("in/f3.sig").exists());
    daemon.stop();
    set_policy(&place, &signing("10ms", 21));
    place.run(["watch", "--policy", "policy.toml", "--once", "--log-format", "json"]).exits(0);
    assert_eq!(batches_of(&place, "in", 20), 2);
}

#[test]
fn p4_a_kill_leaves_no_signature_or_a_whole_one() {
    let place = place(&signing("10ms", 50));
    write_files(&place, 200);
    for signed in [1, 20, 90] {
        let daemon = Daemon::start(&place);
        daemon.until("signed", || daemon.count("signed") >= signed || place.path("in/f199.sig").exists());
        daemon.signal(rustix::process::Signal::KILL);
        drop(daemon);
        for (name, _) in files(200) {
            let path = format!("in/{name}.sig");
            if place.path(&path).exists() {
                batch_at(&place, &path);
            }
        }
    }
    let once = place.run(["watch", "--policy", "policy.toml", "--once", "--log-format", "json"]);
    once.exits(0);
    batches_of(&place, "in", 200);
    let strange: Vec<_> = crate::support::files::all_names(&place.path("in"))
        .into_iter()
        .filter(|name| !name.starts_with('f'))
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
}

#[test]
fn once_signs_what_is_there_and_a_dry_run_signs_nothing() {
    let place = place(&signing("1s", 1000));
    write_files(&place, 30);
    let watch = ["watch", "--policy", "policy.toml", "--once", "--log-format", "json"];
    place.run(watch.into_iter().chain(["--dry-run"])).exits(0);
    assert!(!place.path("in/f0.sig").exists());
    place.run(watch).exits(0);
    assert!(batches_of(&place, "in", 30) <= 3);
}

#[test]
fn turning_batches_on_leaves_plain_signatures_and_turning_them_off_makes_batches_stale() {
    let place = place(SIGN);
    write_files(&place, 3);
    let watch = ["watch", "--policy", "policy.toml", "--once", "--log-format", "json"];
    place.run(watch).exits(0);
    let plain = place.read("in/f0.sig");
    set_policy(&place, &signing("10ms", 10));
    place.write("in/new", "new");
    place.run(watch).exits(0);
    assert_eq!(place.read("in/f0.sig"), plain);
    assert!(plain.starts_with(b"KSL1"));
    let batch = place.read("in/new.sig");
    batch_at(&place, "in/new.sig");
    // Without state, too.
    fs::remove_dir_all(place.path("state")).unwrap();
    place.run(watch).exits(0);
    assert_eq!((place.read("in/f0.sig"), place.read("in/new.sig")), (plain.clone(), batch.clone()));

    set_policy(&place, SIGN);
    let said = place.run(watch).exits(3).stderr();
    assert_eq!(said.matches("out of date").count(), 1, "{said}");
    assert_eq!((place.read("in/f0.sig"), place.read("in/new.sig")), (plain.clone(), batch));
    set_policy(&place, &with(SIGN, "on_stale = \"resign\""));
    fs::remove_dir_all(place.path("state")).unwrap();
    place.run(watch).exits(0);
    assert_eq!(place.read("in/f0.sig"), plain);
    assert!(place.read("in/new.sig").starts_with(b"KSL1"));
}

#[cfg(feature = "aws")]
mod aws {
    use super::*;
    use crate::support::kms::at_proxy;
    use crate::support::moto::{Moto, REGION};
    use crate::support::proxy::{Fault, Proxy};
    use crate::support::side_by_side::each_passes;

    /// The signatures of [`files`], by a key of moto: boto3 encrypts, so that this is not only our
    /// own doing.
    fn signatures(key: &str, count: u64) -> Vec<Vec<u8>> {
        let tree = tree(count);
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let plaintext = hex(&batch::plaintext(tree.size(), tree.root()));
        let program = "plaintext = bytes.fromhex(sys.argv[2])\n\
             answer = kms.encrypt(KeyId=sys.argv[1], Plaintext=plaintext, EncryptionContext={'kms-sig:batch': '[file]'})\n\
             print(answer['CiphertextBlob'].hex())";
        let ciphertext = Moto::start().boto3(program, &[key, &plaintext]);
        let ciphertext: Vec<u8> = (0..ciphertext.len() / 2)
            .map(|at| u8::from_str_radix(&ciphertext[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let sign = |n| Batch::new(tree.prove(n).unwrap(), split(), ciphertext.clone().into()).to_bytes();
        (0..count).map(sign).collect()
    }

    fn policy(place: &Place, proxy: &Proxy, rules: &str) {
        let aws = format!("aws.region = \"{REGION}\"\naws.endpoint_url = \"{}\"\n", proxy.url());
        set_policy(place, &format!("{aws}{rules}"));
    }

    fn decrypts(proxy: &Proxy) -> usize {
        proxy.requests().iter().filter(|request| request.operation == "Decrypt").count()
    }

    #[test]
    fn a_thousand_files_of_one_batch_cost_one_decrypt() {
        let (place, proxy, key) = at_proxy();
        policy(&place, &proxy, &with(&accepting(), &format!("trusted_keys = [\"{key}\"]")));
        drop_pairs(&place, &signatures(&key, 1000));
        let daemon = Daemon::start(&place);
        daemon.waits_for_nth("delivered", 1000);
        daemon.stop();
        assert_eq!(fs::read_dir(place.path("out")).unwrap().count(), 2000);
        let requests = proxy.requests();
        assert_eq!(requests.len(), 1, "one Decrypt and nothing else");
        assert_eq!(requests[0].key_id.as_deref(), Some(key.as_str()), "K4: the key is always named");
        assert_eq!(requests[0].body["EncryptionContext"], serde_json::json!({ "kms-sig:batch": "[file]" }));
    }

    #[test]
    fn a_thousand_files_are_signed_by_few_encrypts_and_verified_by_as_many_decrypts() {
        let (place, proxy, key) = at_proxy();
        policy(&place, &proxy, &with(&signing("3s", 1000), &format!("key = \"{key}\"")));
        write_files(&place, 1000);
        let daemon = Daemon::start(&place);
        daemon.waits_for_nth("signed", 1000);
        daemon.stop();
        let encrypts = proxy.requests();
        assert!(encrypts.len() <= 10, "{} Encrypts", encrypts.len());
        for request in &encrypts {
            assert_eq!(request.operation, "Encrypt");
            assert_eq!(request.body["EncryptionContext"], serde_json::json!({ "kms-sig:batch": "[file]" }));
        }
        policy(&place, &proxy, &with(&accepting(), &format!("trusted_keys = [\"{key}\"]")));
        let daemon = Daemon::start(&place);
        daemon.waits_for_nth("delivered", 1000);
        assert_eq!(decrypts(&proxy), encrypts.len());
    }

    #[test]
    fn p2_an_outage_holds_every_file_that_was_to_be_signed() {
        each_passes(&[Fault::THROTTLED, Fault::UNKNOWN, Fault::ACCESS_DENIED, Fault::OtherKey], |&fault| {
            let (place, proxy, key) = at_proxy();
            policy(&place, &proxy, &with(&signing("500ms", 1000), &format!("key = \"{key}\"")));
            write_files(&place, 30);
            proxy.always(Some(fault));
            let daemon = Daemon::start(&place);
            daemon.until("held", || daemon.count("held") + daemon.count("held; will be tried again") > 0);
            let signed = fs::read_dir(place.path("in")).unwrap().map(|entry| entry.unwrap().file_name());
            assert_eq!(
                signed.filter(|name| name.to_str().unwrap().ends_with(".sig")).count(),
                0,
                "{fault:?}"
            );
            proxy.always(None);
            daemon.waits_for_nth("signed", 30);
        });
    }

    #[test]
    fn p2_an_outage_holds_a_whole_batch_and_is_not_remembered() {
        each_passes(&[Fault::THROTTLED, Fault::UNKNOWN, Fault::ACCESS_DENIED, Fault::Reset], |&fault| {
            let (place, proxy, key) = at_proxy();
            policy(&place, &proxy, &with(&accepting(), &format!("trusted_keys = [\"{key}\"]")));
            drop_pairs(&place, &signatures(&key, 30));
            proxy.always(Some(fault));
            let daemon = Daemon::start(&place);
            daemon.until("held", || daemon.count("held") + daemon.count("held; will be tried again") > 0);
            assert_eq!(fs::read_dir(place.path("q")).map_or(0, Iterator::count), 0, "{fault:?}");
            assert_eq!(fs::read_dir(place.path("out")).unwrap().count(), 0, "{fault:?}");
            let failed = decrypts(&proxy);
            proxy.always(None);
            daemon.waits_for_nth("delivered", 30);
            assert!(decrypts(&proxy) > failed, "{fault:?}");
        });
    }
}
