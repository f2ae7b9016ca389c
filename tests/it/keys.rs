//! `kms-sig key` with keys of every type: making them, listing them, their public halves, and what
//! they cannot do.

use std::fs;

use kms_sig::kms::local::KeyType;
use kms_sig::trust::PublicKey;

use crate::support::place::Place;

/// The types of keys that sign. The largest takes seconds to make, and nothing else is done to it
/// than to the other RSA key.
const TYPES: [KeyType; 5] = [KeyType::Ed25519, KeyType::P256, KeyType::P384, KeyType::P521, KeyType::Rsa3072];

/// A place whose keyring has `local:demo`, and a key of each type by its name.
fn place() -> Place {
    let place = Place::with_keyring();
    for key_type in TYPES {
        let (key, name) = (format!("local:{key_type}"), key_type.as_str());
        let made = place.run(["key", "create", &key, "--type", name]).exits(0);
        made.says(format!("created {key}\n")).complains("");
    }
    place
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn key_public_prints_what_openssl_reads_and_key_list_the_type() {
    let place = place();
    for key_type in TYPES {
        let run = place.run(["key", "public", &format!("local:{key_type}"), "--format", "pem"]).exits(0);
        let pem = text(run.stdout());
        let key = PublicKey::from_pem(pem).unwrap();
        assert_eq!(Some(key.kind()), key_type.kind());
        place.write("key.pem", pem);
        place.shell("openssl pkey -pubin -in key.pem -pubcheck -noout").exits(0).says("Key is valid\n");
        place.shell("openssl pkey -pubin -in key.pem").exits(0).says(pem);
        run.complains("");
    }
    let listed = place.run(["key", "list"]).exits(0);
    let types: Vec<_> =
        text(listed.stdout()).lines().map(|line| line.split('\t').collect::<Vec<_>>()).collect();
    assert!(types.iter().all(|line| line.len() == 3), "{types:?}");
    assert!(types.iter().any(|line| (line[0], line[2]) == ("local:demo", "aes")), "{types:?}");
    for key_type in TYPES {
        let name = format!("local:{key_type}");
        assert!(types.iter().any(|line| line[0] == name && line[2] == key_type.as_str()), "{types:?}");
    }
    // The keys of before go on to work.
    place.write("f", "payload\n");
    place.run(["sign", "local:demo", "f"]).exits(0);
    place.run(["verify", "f", "--key", "local:demo"]).exits(0);
}

#[test]
fn a_private_key_that_openssl_wrote_is_one_of_the_keyring() {
    let place = Place::new();
    for (key_type, options) in [
        ("ed25519", "-algorithm ed25519"),
        ("p256", "-algorithm EC -pkeyopt ec_paramgen_curve:P-256"),
        ("p384", "-algorithm EC -pkeyopt ec_paramgen_curve:P-384"),
        ("p521", "-algorithm EC -pkeyopt ec_paramgen_curve:P-521"),
        ("rsa3072", "-algorithm RSA -pkeyopt rsa_keygen_bits:3072"),
    ] {
        place
            .shell(&format!(
                "umask 077; openssl genpkey {options} -out k.pem 2>/dev/null && \
                 openssl pkcs8 -topk8 -nocrypt -in k.pem -outform DER -out k.der && \
                 printf 'version = 2\n[keys.k]\ntype = \"{key_type}\"\ncreated = \"2026-01-02T03:04:05Z\"\n\
                 secret = \"%s\"\n' $(od -An -v -tx1 k.der | tr -d ' \n') >keyring"
            ))
            .exits(0);
        let public = place.shell("openssl pkey -in k.pem -pubout").exits(0);
        let run = place.run(["key", "public", "local:k", "--keyring", "keyring"]).exits(0);
        run.says(text(public.stdout()));
    }
}

#[test]
fn a_keyring_without_keys_that_sign_stays_one_that_older_programs_read() {
    let place = Place::with_keyring();
    let version = || fs::read_to_string(place.path("keyring")).unwrap().lines().nth(1).unwrap().to_owned();
    place.run(["key", "create", "local:more", "--type", "aes"]).exits(0);
    assert_eq!(version(), "version = 1");
    place.run(["key", "create", "local:e", "--type", "ed25519"]).exits(0);
    assert_eq!(version(), "version = 2");
}

#[test]
fn a_key_of_the_wrong_type_is_named_with_what_to_do() {
    let place = Place::with_keyring();
    place.run(["key", "create", "local:e", "--type", "ed25519"]).exits(0);
    place.run(["key", "public", "local:demo"]).exits(3).says("").complains(
        "kms-sig: cannot get the public key of local:demo: key-usage: the key local:demo is of the type aes, \
         which has no public half; make one that has: kms-sig key create local:NAME --type ed25519\n",
    );
    place.write("f", "payload\n");
    let says = "key-usage: the key local:e is of the type ed25519, which encrypts nothing; make one that does: \
                kms-sig key create local:NAME --type aes\n";
    place
        .run(["sign", "local:e", "f"])
        .exits(3)
        .says("")
        .complains(&format!("kms-sig: cannot sign \"f\": {says}"));
    place.write("f.sig", "no signature");
    let verify = place.run(["verify", "f", "--key", "local:e"]).exits(3).says("");
    verify.complains_of(says);
    place.run(["key", "public", "local:nobody"]).exits(3).complains_of("kms-sig key list shows its keys");
    place.run(["key", "create", "local:x", "--type", "dsa"]).exits(2).complains_of("rsa3072");
    place.run(["key", "public", "local:e", "--format", "der"]).exits(2).complains_of("pem");
    place.run(["key", "public", "no key"]).exits(2).says("");
}
