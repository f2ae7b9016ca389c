//! Keys of every kind against what OpenSSL made, and all that must not be taken for a key.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

/// The keys, each with its kind and with what signed for it.
const KEYS: [(&str, KeyKind, SigningAlgorithm); 7] = [
    ("ed25519", KeyKind::Ed25519, SigningAlgorithm::Ed25519),
    ("ec-p256", KeyKind::P256, SigningAlgorithm::EcdsaSha256),
    ("ec-p384", KeyKind::P384, SigningAlgorithm::EcdsaSha384),
    ("ec-p521", KeyKind::P521, SigningAlgorithm::EcdsaSha512),
    ("rsa2048", KeyKind::Rsa { bits: 2048 }, SigningAlgorithm::RsaPkcs1Sha256),
    ("rsa3072", KeyKind::Rsa { bits: 3072 }, SigningAlgorithm::RsaPkcs1Sha384),
    ("rsa4096", KeyKind::Rsa { bits: 4096 }, SigningAlgorithm::RsaPkcs1Sha512),
];

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/keys")
}

fn read(name: &str) -> Vec<u8> {
    fs::read(vectors().join(name)).unwrap()
}

fn pem(name: &str) -> String {
    String::from_utf8(read(&format!("{name}.pem"))).unwrap()
}

fn key(name: &str) -> PublicKey {
    PublicKey::from_pem(&pem(name)).unwrap()
}

#[test]
fn keys_of_every_kind_verify_what_openssl_signed() {
    let message = read("message");
    for (name, kind, algorithm) in KEYS {
        let key = key(name);
        assert_eq!(key.kind(), kind);
        let good = read(&format!("{name}.good.sig"));
        let digest = algorithm.hash().map(|hash| HashState::new(hash).and(&message).finish());
        let forms = [Some(Message::Raw(&message)), digest.as_ref().map(Message::Digest)];
        for form in forms.into_iter().flatten() {
            assert!(key.verify(algorithm, form, &good), "{name}");
            for bad in ["other-message", "other-key"] {
                let bad = read(&format!("{name}.{bad}.sig"));
                assert!(!key.verify(algorithm, form, &bad), "{name}");
            }
            for at in 0..good.len() {
                let mut flipped = good.clone();
                flipped[at] ^= 1;
                assert!(!key.verify(algorithm, form, &flipped), "{name}, byte {at}");
            }
            let longer = [good.as_slice(), &[0]].concat();
            assert!(!key.verify(algorithm, form, &longer), "{name}");
            assert!(!key.verify(algorithm, form, &good[..good.len() - 1]), "{name}");
            assert!(!key.verify(algorithm, form, &[]), "{name}");
        }
    }
}

#[test]
fn an_algorithm_of_another_kind_or_hash_verifies_nothing() {
    let message = read("message");
    for (name, kind, algorithm) in KEYS {
        let (key, good) = (key(name), read(&format!("{name}.good.sig")));
        for other in SigningAlgorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            assert!(!key.verify(other, Message::Raw(&message), &good), "{kind}, {other}");
        }
        for hash in HashAlgorithm::ALL.into_iter().filter(|hash| algorithm.hash() != Some(*hash)) {
            let digest = HashState::new(hash).and(&message).finish();
            assert!(!key.verify(algorithm, Message::Digest(&digest), &good), "{kind}, {hash}");
        }
    }
}

#[test]
fn two_forms_of_one_key_are_equal() {
    for (name, kind, _) in KEYS {
        let key = key(name);
        assert_eq!(PublicKey::from_spki(key.spki()).as_ref(), Ok(&key));
        assert_eq!(key.to_pem(), pem(name), "as OpenSSL writes it");
        let again = match kind {
            KeyKind::Ed25519 => PublicKey::ed25519(key.ed25519_bytes().unwrap().try_into().unwrap()),
            KeyKind::P256 | KeyKind::P384 | KeyKind::P521 => PublicKey::ec(kind, key.ec_point().unwrap()),
            KeyKind::Rsa { bits } => {
                let (n, e) = key.rsa_numbers().unwrap();
                assert_eq!((n.len() * 8, e), (bits as usize, &[1, 0, 1][..]));
                PublicKey::rsa(&[&[0, 0], n].concat(), &[&[0], e].concat())
            }
        };
        assert_eq!(again, Ok(key));
    }
    let shown = format!("{:?}", key("ec-p256"));
    let expected = format!("PublicKey(P-256, SHA-256 {})", hex::encode(key("ec-p256").fingerprint()));
    assert_eq!(shown, expected);
}

#[test]
fn pem_is_read_however_it_was_stored() {
    let (pem, key) = (pem("ec-p384"), key("ec-p384"));
    let other = key_text("RSA PRIVATE KEY");
    for text in [
        pem.replace('\n', "\r\n"),
        pem.trim_end().to_owned(),
        format!("the key of 2026:\n\n{pem}\nkept by Ada\n"),
        format!("{other}{pem}"),
    ] {
        assert_eq!(PublicKey::from_pem(&text).as_ref(), Ok(&key), "{text}");
    }
    for (text, error) in [
        (String::new(), PublicKeyError::NoPem),
        ("MCowBQYDK2VwAyEA".into(), PublicKeyError::NoPem),
        (pem.repeat(2), PublicKeyError::SeveralPem),
        (pem.replace("-----END", "----END"), PublicKeyError::DamagedPem),
        (pem.replace("-----END PUBLIC", "-----END PRIVATE"), PublicKeyError::DamagedPem),
        (pem.replacen('M', "!", 1), PublicKeyError::DamagedPem),
        (key_text("PUBLIC KEY"), PublicKeyError::NotSpki),
        (key_text("OPENSSH PRIVATE KEY"), PublicKeyError::PrivateKey),
        (key_text("ENCRYPTED PRIVATE KEY"), PublicKeyError::PrivateKey),
        (key_text("PGP PUBLIC KEY BLOCK"), PublicKeyError::OtherPem("PGP PUBLIC KEY BLOCK".into())),
    ] {
        assert_eq!(PublicKey::from_pem(&text), Err(error), "{text}");
    }
}

fn key_text(label: &str) -> String {
    format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n")
}

#[test]
fn what_is_no_safe_key_is_refused_by_name() {
    use PublicKeyError as E;
    let cases = [
        ("certificate", E::Certificate),
        ("ed25519-not-canonical", E::NotCanonical),
        ("ed25519-order-8", E::SmallOrder),
        ("ed25519-zero", E::SmallOrder),
        ("ed448", E::Algorithm("1.3.101.113".into())),
        ("compressed-p256", E::Compressed(KeyKind::P256)),
        ("explicit-p256", E::ExplicitCurve),
        ("off-curve-p256", E::NotOnCurve(KeyKind::P256)),
        ("pkcs1", E::Pkcs1),
        ("private", E::PrivateKey),
        ("rsa1024", E::RsaSize(1024)),
        ("secp256k1", E::Curve("1.3.132.0.10".into())),
        ("x25519", E::Algorithm("1.3.101.110".into())),
    ];
    for (name, error) in &cases {
        assert_eq!(PublicKey::from_pem(&pem(&format!("refused/{name}"))).as_ref(), Err(error), "{name}");
    }
    assert_eq!(fs::read_dir(vectors().join("refused")).unwrap().count(), cases.len(), "one for each");
}

#[test]
fn numbers_that_are_no_rsa_key_are_refused() {
    let key = key("rsa2048");
    let (n, e) = key.rsa_numbers().unwrap();
    let even = [&n[..n.len() - 1], &[0]].concat();
    let long = [&[1][..], &[0; 3], &[1, 1]].concat();
    for (n, e) in [(n, &[][..]), (n, &[0]), (n, &[1]), (n, &[2]), (n, &[1, 0, 0]), (n, &long), (&even, e)] {
        assert_eq!(PublicKey::rsa(n, e), Err(PublicKeyError::RsaNumbers), "{e:?}");
    }
    assert!(PublicKey::rsa(n, &[3]).is_ok());
    assert_eq!(PublicKey::rsa(&[0xff; 1025], e), Err(PublicKeyError::RsaSize(8200)));
    assert_eq!(PublicKey::rsa(&[0; 300], e), Err(PublicKeyError::RsaSize(0)));
}

#[test]
fn points_are_of_the_curve_that_is_named() {
    let (p256, p384) = (key("ec-p256"), key("ec-p384"));
    let point = p256.ec_point().unwrap();
    for kind in [KeyKind::P384, KeyKind::P521] {
        assert_eq!(PublicKey::ec(kind, point), Err(PublicKeyError::NotOnCurve(kind)));
    }
    let kind = KeyKind::P256;
    for point in [&[][..], &[0], &[4; 65], p384.ec_point().unwrap()] {
        assert_eq!(PublicKey::ec(kind, point), Err(PublicKeyError::NotOnCurve(kind)));
    }
    assert_eq!(PublicKey::ec(KeyKind::Ed25519, point), Err(PublicKeyError::NoCurve(KeyKind::Ed25519)));
    assert_eq!((p256.ed25519_bytes(), p256.rsa_numbers()), (None, None));
    assert_eq!(key("ed25519").ec_point(), None);
}

proptest! {
    /// A second encoding of a key would be a second key.
    #[test]
    fn a_changed_encoding_is_refused_or_another_key(name in 0..KEYS.len(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let key = key(KEYS[name].0);
        let mut spki = key.spki().to_vec();
        let at = at.index(spki.len());
        spki[at] = byte;
        if let Ok(other) = PublicKey::from_spki(&spki) {
            prop_assert_eq!(other.spki(), spki.as_slice());
            prop_assert_eq!(other == key, spki == key.spki());
        }
    }
}
