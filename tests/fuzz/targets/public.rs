//! Signatures that a public key verifies, and files of public keys: bytes that no trusted key made
//! are never valid (P1), and never trouble (P2).
//!
//! The first byte says what the rest is. 0: a signature as it lies beside a file. 1: a file of
//! public keys. 2: where a good signature is spoiled, and how.

#![no_main]

use std::ffi::OsStr;
use std::sync::LazyLock;

use kms_sig::digest::algorithm::HashAlgorithm;
use kms_sig::digest::set::{DigestRequest, DigestSet};
use kms_sig::kms::local::{KeyType, Keyring, Local};
use kms_sig::signature::{MAX_PUBLIC, PublicMalformed, PublicSignature};
use kms_sig::signing::{Claimed, Form, PublicSigner, PublicVerifier};
use kms_sig::trust::key_file::KeyFile;
use kms_sig::trust::openpgp::{Certificate, PrimaryKey, SelfSignature};
use kms_sig::trust::{minisign_key, ssh_key};
use kms_sig_fuzz::{Scratch, wait};
use libfuzzer_sys::fuzz_target;

const PAYLOAD: &[u8] = b"payload\n";
const NOW: u64 = 1_800_000_000;

/// What is trusted, and a good signature of each format.
struct World {
    trusted: Vec<KeyFile>,
    good: Vec<Vec<u8>>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let scratch = Scratch::new("public");
    let path = scratch.path().join("keyring");
    let kms = Local::new(path.clone());
    let (mut trusted, mut good) = (Vec::new(), Vec::new());
    for (name, key_type) in [("local:a", KeyType::Ed25519), ("local:b", KeyType::P256)] {
        let id = name.parse().expect("a key's name");
        Keyring::create(&path, &id, key_type).expect("a key");
        let signer = wait(PublicSigner::fetch(&kms, &id)).expect("a public key");
        let public = signer.public_key();
        let key = PrimaryKey::new(public.clone(), 1_700_000_000);
        let certificate = wait(signer.certify(&key, SelfSignature::of_new(&key, "us", None))).expect("signs");
        let file = |text: &str| KeyFile::parse(text.as_bytes()).expect("our own form");
        trusted.push(file(&public.to_pem()));
        trusted.push(file(&certificate));
        trusted.push(file(&ssh_key::to_line(public, "")));
        trusted.extend(minisign_key::to_file(public).map(|text| file(&text)));
        let forms = [
            Form::Ssh { namespace: "file".into() },
            Form::Minisign { trusted_comment: "a".into() },
            Form::Sigstore,
            Form::Der,
            Form::OpenPgp {
                certificate: Certificate::parse(certificate.as_bytes()).expect("our own").into(),
                is_armored: false,
                name: None,
            },
        ];
        for form in forms {
            if let Ok(fitted) = signer.fit(&form, NOW) {
                let digests = DigestSet::of(signer.digests(&form), PAYLOAD);
                good.push(wait(fitted.sign(&digests, NOW)).expect("signs"));
            }
        }
    }
    World { trusted, good }
});

fuzz_target!(|data: &[u8]| match data.split_first() {
    Some((0, bytes)) => assert!(!is_valid(bytes, PAYLOAD)),
    Some((1, bytes)) => check_key_file(bytes),
    Some((2, [which, at @ .., bit])) => spoil(*which, at, *bit),
    Some(_) | None => {}
});

/// Whether a trusted key vouches. A signature that says it is of `payload` is read the same twice.
fn is_valid(bytes: &[u8], payload: &[u8]) -> bool {
    let signature = match PublicSignature::parse(bytes) {
        Ok(signature) => signature,
        Err(PublicMalformed::Empty) => {
            assert!(bytes.is_empty());
            return false;
        }
        Err(PublicMalformed::TooLarge) => {
            assert!(bytes.len() > MAX_PUBLIC);
            return false;
        }
        Err(other) => {
            check_words(&other.to_string());
            return false;
        }
    };
    if let PublicSignature::Ssh(ssh) = &signature {
        let written = ssh.to_armor().expect("what was read can be written");
        let again = PublicSignature::parse(written.as_bytes());
        assert!(matches!(again, Ok(PublicSignature::Ssh(again)) if again == *ssh));
    }
    if let PublicSignature::Minisign(minisign) = &signature {
        let again = PublicSignature::parse(minisign.to_text().as_bytes());
        assert!(matches!(again, Ok(PublicSignature::Minisign(again)) if again == *minisign));
    }
    let verifier = PublicVerifier::new(&WORLD.trusted, "file", None);
    let digests = DigestSet::of(verifier.digests(&signature), payload);
    let claimed = Claimed { name: Some(OsStr::new("f")), now: NOW };
    verifier.judge(&signature, &digests, claimed).expect("bytes are no trouble").is_ok()
}

/// What a file says can be told, and what is read of it is written and read the same.
fn check_key_file(bytes: &[u8]) {
    match KeyFile::parse(bytes) {
        Ok(KeyFile::Pem(key)) => {
            assert!(
                matches!(KeyFile::parse(key.to_pem().as_bytes()), Ok(KeyFile::Pem(again)) if again == key)
            );
        }
        Ok(KeyFile::Ssh(keys)) => {
            for key in keys {
                assert_eq!(ssh_key::from_blob(&ssh_key::to_blob(&key)), Ok(key));
            }
        }
        Ok(KeyFile::OpenPgp(certificate)) => {
            let state = DigestRequest::state(HashAlgorithm::Sha256);
            assert!(DigestSet::of(state, bytes).state(HashAlgorithm::Sha256).is_some());
            let _whose = certificate.user_id();
        }
        Ok(KeyFile::Minisign(..) | KeyFile::AllowedSigners(_)) => {}
        Err(error) => check_words(&error.to_string()),
    }
}

/// P9: an error may quote what it is about, and acts on no terminal.
fn check_words(words: &str) {
    assert!(!words.is_empty() && !words.contains(char::is_control), "{words:?}");
}

/// A good signature is valid, and of no other file; with a bit changed it is valid only if what
/// changed is signed by nobody.
fn spoil(which: u8, at: &[u8], bit: u8) {
    let good = &WORLD.good;
    let Some(bytes) = good.get(usize::from(which) % good.len()) else { return };
    assert!(is_valid(bytes, PAYLOAD) && !is_valid(bytes, at));
    let place =
        at.iter().fold(0_usize, |place, byte| place * 256 % 65_536 + usize::from(*byte)) % bytes.len();
    let mut spoilt = bytes.clone();
    if let Some(byte) = spoilt.get_mut(place) {
        *byte ^= 1 << (bit % 8);
    }
    if is_valid(&spoilt, PAYLOAD) {
        // The first line of minisign's, the unsigned end of OpenPGP's, the space around armor.
        let is_text = bytes.is_ascii();
        let before = bytes.get(..place).unwrap_or_default();
        let is_first_line = bytes.starts_with(b"untrusted") && !before.contains(&b'\n');
        let is_blank = bytes.get(place).is_some_and(u8::is_ascii_whitespace);
        assert!(!is_text || is_first_line || is_blank, "byte {place} goes unnoticed");
    }
}
