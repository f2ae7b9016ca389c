//! What stock tools made, and what was made of that: `tests/vectors/public`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use serde::Deserialize;

use super::*;
use crate::trust::openpgp::{Draft, PrimaryKey, SelfSignature};

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/public")
}

fn read(name: &str) -> Vec<u8> {
    fs::read(directory().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// One signature.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    stock: String,
    expect: String,
    says: Option<String>,
    why: Option<String>,
}

/// Signatures of one format, and the keys for those.
#[derive(Debug, Deserialize)]
struct Group {
    keys: Vec<String>,
    #[serde(flatten)]
    cases: BTreeMap<String, Case>,
}

impl Group {
    fn keys(&self) -> Vec<KeyFile> {
        self.keys.iter().map(|name| KeyFile::parse(&read(name)).unwrap()).collect()
    }
}

fn groups() -> BTreeMap<String, Group> {
    toml::from_str(std::str::from_utf8(&read("cases.toml")).unwrap()).unwrap()
}

/// The keys that are trusted, the name of a signature and what must be said of it.
fn cases() -> Vec<(Vec<KeyFile>, String, Case)> {
    let of_group = |group: Group| {
        let keys = group.keys();
        group.cases.into_iter().map(move |(name, case)| (keys.clone(), name, case))
    };
    groups().into_values().flat_map(of_group).collect()
}

/// The class of a signature of the payload, and the words about it.
fn judged(keys: &[KeyFile], bytes: &[u8]) -> (&'static str, String) {
    let signature = match PublicSignature::parse(bytes) {
        Ok(signature) => signature,
        Err(malformed) => return ("malformed", malformed.to_string()),
    };
    let verifier = PublicVerifier::new(keys, "file", None);
    // What it asks for must do.
    let digests = DigestSet::of(verifier.digests(&signature), &read("payload"));
    let claimed = Claimed { name: Some(OsStr::new("payload")), now: 1_790_000_000 };
    match verifier.judge(&signature, &digests, claimed).unwrap() {
        Ok(vouched) => ("valid", vouched.to_string()),
        Err(why) => {
            let class = match &why {
                NotVouched::Mismatch => "mismatch",
                NotVouched::WrongKey => "wrong-key",
                NotVouched::Namespace(_) => "namespace",
                NotVouched::Legacy => "legacy",
                NotVouched::Format(_) => "format",
                NotVouched::OtherName(_) => "other-name",
                NotVouched::Principal
                | NotVouched::KeyNamespace
                | NotVouched::NotYet
                | NotVouched::Expired
                | NotVouched::Future => "other",
            };
            (class, why.to_string())
        }
    }
}

#[test]
fn p11_each_public_vector_is_judged_as_it_must_be() {
    for (keys, name, case) in cases() {
        let (class, words) = judged(&keys, &read(&name));
        assert_eq!(class, case.expect, "{name}: {words}");
        assert!(words.contains(case.says.as_deref().unwrap_or_default()), "{name}: {words}");
        assert!(!words.contains(char::is_control), "P9, {name}: {words:?}");
        let (accepts, is_valid) = (case.stock == "accepts", class == "valid");
        assert!(["accepts", "refuses", "either", "none"].contains(&case.stock.as_str()), "{name}");
        if case.stock == "accepts" || case.stock == "refuses" {
            assert_eq!(accepts != is_valid, case.why.is_some(), "{name}: say why we and the tool differ");
        }
    }
}

#[test]
fn every_public_signature_has_its_case_and_two_in_three_are_bad() {
    let cases = cases();
    let named: BTreeSet<String> = cases.iter().map(|(_, name, _)| name.clone()).collect();
    let is_signature =
        |name: &String| [".sig", ".minisig", ".sigstore.json"].iter().any(|end| name.ends_with(end));
    let there = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().file_name());
    let there: BTreeSet<String> =
        there.map(|name| name.into_string().unwrap()).filter(is_signature).collect();
    assert_eq!(there, named);
    let valid = cases.iter().filter(|(_, _, case)| case.expect == "valid").count();
    assert!(valid >= 20 && valid * 3 <= cases.len(), "{valid} of {}", cases.len());
}

#[test]
fn p1_no_public_signature_is_valid_with_keys_of_another_format() {
    // Plain keys are for both of these.
    let keys_of = |format: &str| if format == "sigstore" { "der" } else { format }.to_owned();
    let groups = groups();
    for (format, group) in &groups {
        for (other, keys) in groups.iter().map(|(other, group)| (other, group.keys())) {
            if keys_of(other) != keys_of(format) {
                for (name, _) in group.cases.iter().filter(|(_, case)| case.expect == "valid") {
                    assert_eq!(judged(&keys, &read(name)).0, "format", "{name} with keys of {other}");
                }
            }
        }
    }
}

/// Each good vector, with one byte of it changed, is valid only where the byte decides nothing.
#[test]
fn p1_a_public_signature_with_one_changed_byte_is_valid_only_if_it_says_the_same() {
    for (keys, name, _) in cases().into_iter().filter(|(_, _, case)| case.expect == "valid") {
        let good = read(&name);
        let says = judged(&keys, &good).1;
        for at in 0..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 1;
            let (class, words) = judged(&keys, &changed);
            if class == "valid" {
                assert_eq!(words, says, "{name}, byte {at}");
                let is_text = PublicSignature::parse(&good).unwrap().format() != PublicFormat::Der;
                assert!(is_text, "{name}, byte {at}: DER has no byte that decides nothing");
            }
        }
    }
}

/// As sqv has it: what was signed before the end is good for ever, and nothing is that comes from
/// the future.
#[test]
fn a_certificate_is_judged_at_the_time_of_the_signature() {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    let public = PublicKey::ed25519(pair.public_key().as_ref().try_into().unwrap()).unwrap();
    let key = PrimaryKey::new(public, 1000);
    let binding = SelfSignature::of_new(&key, "us", Some(1100));
    let answer = pair.sign(binding.digest().as_bytes());
    let certificate = binding.finish(answer.as_ref()).unwrap();
    let files = [KeyFile::parse(certificate.as_bytes()).unwrap()];
    let verifier = PublicVerifier::new(&files, "file", None);
    for (made, now, expected) in [
        (1000, 1000, None),
        (1099, 5000, None),
        (1100, 5000, Some(NotVouched::Expired)),
        (1050, 1049, Some(NotVouched::Future)),
        (999, 5000, Some(NotVouched::NotYet)),
    ] {
        let draft = Draft::of_file(&key, made, &[]);
        let digests = DigestSet::of(DigestRequest::state(key.hash()), b"payload");
        let digest = draft.digest(digests.state(key.hash()).unwrap().clone());
        let packet = draft.finish(&digest, pair.sign(digest.as_bytes()).as_ref()).unwrap();
        let signature = PublicSignature::parse(&packet).unwrap();
        let judged = verifier.judge(&signature, &digests, Claimed { name: None, now }).unwrap();
        assert_eq!(judged.err(), expected, "{made} {now}");
    }
}
