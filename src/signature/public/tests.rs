//! Every format: what is made is read as it was made, and verifies for exactly that.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA512, RsaKeyPair,
};
use aws_lc_rs::{rand::SystemRandom, rsa};

use super::*;
use crate::digest::algorithm::HashAlgorithm;
use crate::digest::set::{DigestRequest, DigestSet};
use crate::signature::ssh::signed_message;
use crate::signature::{der, minisign};
use crate::trust::minisign_key::number_of;
use crate::trust::{PublicKey, SigningAlgorithm};

const HASHES: DigestRequest = DigestRequest::digest(HashAlgorithm::Sha256)
    .and(DigestRequest::digest(HashAlgorithm::Sha512))
    .and(DigestRequest::digest(HashAlgorithm::Blake2b512));

fn digests(payload: &[u8]) -> DigestSet {
    DigestSet::of(HASHES, payload)
}

fn sha512(payload: &[u8]) -> crate::digest::algorithm::HashValue {
    digests(payload).value(HashAlgorithm::Sha512).unwrap().clone()
}

fn ed25519_key() -> (Ed25519KeyPair, PublicKey) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[9; 32]).unwrap();
    let public = PublicKey::ed25519(pair.public_key().as_ref().try_into().unwrap()).unwrap();
    (pair, public)
}

fn ecdsa_key() -> (EcdsaKeyPair, PublicKey) {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let public = PublicKey::ec(crate::trust::KeyKind::P256, pair.public_key().as_ref()).unwrap();
    (pair, public)
}

/// Every byte changed in turn: it is no signature any more, or another, or not of the payload.
fn survives_no_flip(text: &str, is_good: impl Fn(&PublicSignature) -> bool) {
    assert!(is_good(&PublicSignature::parse(text.as_bytes()).unwrap()), "{text}");
    let first_line = text.find('\n').unwrap();
    for at in 0..text.len() {
        let mut changed = text.as_bytes().to_vec();
        changed[at] ^= 1;
        let read = PublicSignature::parse(&changed);
        // minisign's first line is signed by nobody and decides nothing; blanks around armor
        // neither.
        let is_free = at <= first_line || text.as_bytes()[at] == b'\n';
        assert!(is_free || !read.as_ref().is_ok_and(&is_good), "byte {at} of {text}: {read:?}");
    }
}

#[test]
fn ssh_signatures_are_read_as_they_are_made() {
    let (pair, key) = ed25519_key();
    let answer = pair.sign(&signed_message("file", &sha512(b"a")));
    let (ec, ec_key) = ecdsa_key();
    let ec_answer = ec.sign(&SystemRandom::new(), &signed_message("file", &sha512(b"a"))).unwrap();
    for (key, algorithm, answer) in [
        (key, SigningAlgorithm::Ed25519, answer.as_ref()),
        (ec_key, SigningAlgorithm::EcdsaSha256, ec_answer.as_ref()),
    ] {
        let made = SshSignature::new(key.clone(), "file", algorithm, answer.to_vec());
        let text = made.to_armor().unwrap();
        assert_eq!(SshSignature::parse(text.as_bytes()), Ok(made.clone()));
        survives_no_flip(&text, |read| {
            let PublicSignature::Ssh(read) = read else { return false };
            read.key() == &key && read.namespace() == "file" && read.is_of(&digests(b"a")) == Some(true)
        });
        assert_eq!(made.is_of(&digests(b"b")), Some(false));
        assert_eq!(made.is_of(&DigestSet::default()), None);
        let other = SshSignature::new(key.clone(), "git", algorithm, answer.to_vec());
        assert_eq!(other.is_of(&digests(b"a")), Some(false), "another namespace");
        // A stock tool takes these.
        for harmless in [text.replace('\n', "\r\n"), text.clone() + "text after", text.trim_end().to_owned()]
        {
            assert_eq!(SshSignature::parse(harmless.as_bytes()), Ok(made.clone()));
        }
        assert_eq!(SshSignature::parse(format!("\n{text}").as_bytes()), Err(SshMalformed::Armor));
        assert_eq!(SshSignature::parse(format!("{text}{text}").as_bytes()), Err(SshMalformed::Several));
    }
}

#[test]
fn ssh_signatures_of_rsa_are_over_sha512() {
    let pair = RsaKeyPair::generate(rsa::KeySize::Rsa2048).unwrap();
    let spki =
        aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key());
    let key = PublicKey::from_spki(spki.unwrap().as_ref()).unwrap();
    let mut answer = vec![0; pair.public_modulus_len()];
    let message = signed_message("file", &sha512(b"a"));
    pair.sign(&RSA_PKCS1_SHA512, &SystemRandom::new(), &message, &mut answer).unwrap();
    let made = SshSignature::new(key.clone(), "file", SigningAlgorithm::RsaPkcs1Sha512, answer);
    let text = made.to_armor().unwrap();
    assert_eq!(SshSignature::parse(text.as_bytes()).unwrap().is_of(&digests(b"a")), Some(true));
    // As `der`, RSA is over SHA-256.
    let mut answer = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), b"a", &mut answer).unwrap();
    assert_eq!(der::is_of(&key, &digests(b"a"), &answer), Some(true));
    assert_eq!(der::is_of(&key, &digests(b"b"), &answer), Some(false));
    assert_eq!(der::is_of(&key, &digests(b"a"), &answer[1..]), Some(false));
}

#[test]
fn minisign_signatures_are_read_as_they_are_made() {
    let (pair, key) = ed25519_key();
    let (_, other) = {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[8; 32]).unwrap();
        let public = PublicKey::ed25519(pair.public_key().as_ref().try_into().unwrap()).unwrap();
        (pair, public)
    };
    let sign = |message: &[u8]| <[u8; 64]>::try_from(pair.sign(message).as_ref()).unwrap();
    let signature = sign(digests(b"a").value(HashAlgorithm::Blake2b512).unwrap().as_bytes());
    let comment = minisign::default_comment(7, Some("100%\n".as_ref()));
    assert_eq!(comment, "timestamp:7\tfile:100%25%0A\thashed");
    let global = sign(&minisign::globally_signed(&signature, &comment));
    let made = MinisignSignature::new(number_of(&key).unwrap(), signature, &comment, global);
    assert_eq!(made.file(), Some("100%25%0A"));
    let text = made.to_text();
    survives_no_flip(&text, |read| {
        let PublicSignature::Minisign(read) = read else { return false };
        read.number() == made.number() && read.is_of(&key, &digests(b"a")) == Some(true)
    });
    assert_eq!(made.is_of(&key, &digests(b"b")), Some(false));
    assert_eq!(made.is_of(&other, &digests(b"a")), Some(false));
    assert_eq!(made.is_of(&key, &DigestSet::default()), None);
    let harmless = [text.replace('\n', "\r\n"), text.trim_end().to_owned(), text.clone() + "\n\n"];
    for harmless in harmless {
        assert_eq!(MinisignSignature::parse(harmless.as_bytes()), Ok(made.clone()), "{harmless:?}");
    }
    let untrusted = |len: usize| text.replacen("signature from kms-sig", &"a".repeat(len), 1);
    assert_eq!(MinisignSignature::parse(untrusted(1003).as_bytes()), Ok(made.clone()));
    for (wrong, flaw) in [
        (format!("\n{text}"), MinisignMalformed::Lines),
        (text.replacen("trusted comment: t", "trusted comment:t", 1), MinisignMalformed::Lines),
        (text.clone() + "more", MinisignMalformed::Trailing),
        (text.clone() + &text, MinisignMalformed::Trailing),
        (untrusted(1004), MinisignMalformed::LongLine(1)),
        (untrusted(1003).replace('\n', "\r\n"), MinisignMalformed::LongLine(1)),
        (text.replacen("file:", &"a".repeat(8174), 1), MinisignMalformed::LongLine(3)),
        (text.replacen("kms-sig\n", "kms-sig\0\n", 1), MinisignMalformed::Control(1)),
        (text.replacen("hashed", "hashed\0", 1), MinisignMalformed::Control(3)),
        (text.replacen("hashed\n", "hashed\r\r\n", 1), MinisignMalformed::Control(3)),
        (text.replacen("hashed", "\u{85}hashed", 1), MinisignMalformed::Control(3)),
        (text.replacen("\nRU", "\nRU=", 1), MinisignMalformed::Line(2)),
        (text.replacen("\nRU", "\nRX", 1), MinisignMalformed::Algorithm),
        (text.replacen("==\n", "\n", 2), MinisignMalformed::Line(4)),
    ] {
        assert_eq!(MinisignSignature::parse(wrong.as_bytes()), Err(flaw), "{wrong:?}");
    }
    // The old form is told apart, and is no signature of the hash.
    let old = MinisignSignature::parse(text.replacen("\nRU", "\nRW", 1).as_bytes()).unwrap();
    assert!(old.is_legacy() && old.is_of(&key, &digests(b"a")) == Some(false));
}

#[test]
fn a_trusted_comment_is_one_that_every_verifier_reads_alike() {
    use minisign::{CommentError, check_comment};
    assert_eq!(check_comment("timestamp:1\tfile:\u{e9}\thashed"), Ok(()));
    assert_eq!(check_comment(""), Ok(()));
    assert_eq!(check_comment("a\nb"), Err(CommentError::Control));
    assert_eq!(check_comment(" a"), Err(CommentError::Blank));
    assert_eq!(check_comment("a\t"), Err(CommentError::Blank));
    assert_eq!(check_comment(&"a".repeat(4001)), Err(CommentError::TooLong));
}

#[test]
fn bundles_are_read_as_they_are_made() {
    let (pair, key) = ecdsa_key();
    let answer = pair.sign(&SystemRandom::new(), b"a").unwrap();
    let digest = digests(b"a").value(HashAlgorithm::Sha256).unwrap().clone();
    let made = Bundle::new(&key, &digest, answer.as_ref());
    let text = made.to_json().unwrap();
    assert_eq!(Bundle::parse(text.as_bytes()), Ok(made.clone()));
    assert_eq!(made.is_of(&key, &digests(b"a")), Some(true));
    assert_eq!(made.is_of(&key, &digests(b"b")), Some(false));
    assert_eq!(made.is_of(&ed25519_key().1, &digests(b"a")), Some(false));
    for (from, to) in [
        ("v0.3", "v0.2"),
        ("SHA2_256", "SHA2_512"),
        ("\"mediaType\"", "\"mediaType\":\"\",\"mediaType\""),
        ("\"hint\"", "\"hints\""),
        ("mediaType", "media_type"),
        ("}}", "},\"more\":1}"),
    ] {
        assert!(Bundle::parse(text.replacen(from, to, 1).as_bytes()).is_err(), "{from}");
    }
}

#[test]
fn a_bundle_that_is_not_taken_is_told_by_what_it_is() {
    let answer = ecdsa_key().0.sign(&SystemRandom::new(), b"a").unwrap();
    let digest = digests(b"a").value(HashAlgorithm::Sha256).unwrap().clone();
    let made = Bundle::new(&ecdsa_key().1, &digest, answer.as_ref());
    let text = made.to_json().unwrap();
    let key = format!("\"publicKey\":{{\"hint\":\"{}\"}}", made.hint());
    let with = |more: &str| text.replacen(&key, &format!("{key},{more}"), 1);
    let old = text.replacen("bundle.v0.3+json", "bundle+json;version=0.3", 1);
    for same in [
        old.as_str(),
        &with("\"tlogEntries\":[]"),
        &with("\"timestampVerificationData\":{\"rfc3161Timestamps\":[]}"),
        &text.replace(',', ",\r\n\t"),
    ] {
        assert_eq!(Bundle::parse(same.as_bytes()), Ok(made.clone()), "{same}");
    }
    for (text, flaw) in [
        (text.replacen("v0.3", "v0.4", 1), BundleMalformed::Version),
        (text.replacen(&key, "\"certificate\":{\"rawBytes\":\"\"}", 1), BundleMalformed::Certificate),
        (with("\"x509CertificateChain\":{}"), BundleMalformed::Certificate),
        (with("\"tlogEntries\":[{}]"), BundleMalformed::Log),
        (with("\"timestampVerificationData\":{\"rfc3161Timestamps\":[{}]}"), BundleMalformed::Log),
        (text.replacen("messageSignature\":{", "dsseEnvelope\":{", 1), BundleMalformed::Attestation),
        (text.replacen("SHA2_256", "SHA2_512", 1), BundleMalformed::Digest),
        (text.replacen("\"digest\":\"", "\"digest\":\"_", 1), BundleMalformed::Base64),
    ] {
        assert_eq!(Bundle::parse(text.as_bytes()), Err(flaw), "{text}");
    }
    for (text, part) in [
        (text.replacen(&key, "", 1), "no publicKey"),
        (with("\"\\u001b[2K\\u202e\":1"), "unknown field `\\x1b[2K\\u{202e}`"),
    ] {
        let told = Bundle::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(told.contains(part), "{told}");
        assert!(!told.contains(char::is_control), "P9: {told:?}");
    }
}

#[test]
fn a_format_is_known_by_what_the_bytes_are() {
    for (bytes, format) in [
        (&b"-----BEGIN SSH SIGNATURE-----\n"[..], PublicFormat::Ssh),
        (b"untrusted comment: a", PublicFormat::Minisign),
        (b"-----BEGIN PGP SIGNATURE-----\n", PublicFormat::OpenPgp),
        (b" {", PublicFormat::Sigstore),
        (b"0\x06\x02\x01\x01\x02\x01\x01", PublicFormat::Der),
        (b"\xc2 of RSA", PublicFormat::Der),
    ] {
        assert_eq!(PublicFormat::of(bytes), format, "{bytes:?}");
        let read = PublicSignature::parse(bytes).map(|read| read.format());
        assert!(read.is_err() || read == Ok(format), "{bytes:?}");
    }
    assert_eq!(PublicSignature::parse(b"").unwrap_err(), PublicMalformed::Empty);
}

/// The numbers of RSA may begin with any byte, also with what other formats begin with.
#[test]
fn no_rsa_signature_is_taken_for_another_format() {
    let mut bytes = [0; 256];
    for n in 0..20_000_u32 {
        aws_lc_rs::rand::fill(&mut bytes).unwrap();
        bytes[0] = n.to_be_bytes()[3];
        if n % 3 == 0 {
            bytes[1..5].copy_from_slice(&[0x04, 0x00, 0x01, 0x0A]); // like a signature packet's beginning
        }
        let read = PublicSignature::parse(&bytes);
        assert!(matches!(read, Ok(PublicSignature::Der(_))), "{bytes:x?}");
    }
}
