//! Batches in the daemon: many files for one call of KMS, and each judged by itself.

use kms_sig::context::Context;
use kms_sig::context::leaf_keys::LeafKeys;
use kms_sig::digest::Digest;
use kms_sig::kms::local::Local;
use kms_sig::merkle::Tree;
use kms_sig::seal::batch::sign;
use kms_sig::signature::batch;

use crate::daemon::{Daemon, VERIFY, place, set_policy, with};
use crate::harness::Place;

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
    let sealed = runtime.block_on(sign(&local, &key, &shared, split(), tree(count))).unwrap();
    (0..count).map(|n| sealed.sealed(n).unwrap().signature.as_bytes().to_vec()).collect()
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

#[cfg(feature = "aws")]
mod aws {
    use std::fs;

    use kms_sig::signature::batch::Batch;

    use super::*;
    use crate::moto::{Moto, REGION};
    use crate::outage::at_proxy;
    use crate::proxy::{Fault, Proxy};

    /// The signatures of [`files`], by a key of moto: boto3 encrypts, so that this is not only our own doing.
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
    fn p2_an_outage_holds_a_whole_batch_and_is_not_remembered() {
        for fault in [Fault::THROTTLED, Fault::UNKNOWN, Fault::ACCESS_DENIED, Fault::Reset] {
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
        }
    }
}
