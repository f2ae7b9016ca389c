//! What local keys of each type do, and what they refuse.

use super::*;
use crate::digest::Digest;
use crate::digest::algorithm::{HashAlgorithm, HashState};
use crate::signature::Signature;
use crate::signing::{Formats, Reason, Signer, Verdict, Verifier};

struct Host {
    dir: tempfile::TempDir,
    local: Local,
}

/// A host whose keyring has `local:a` and `local:b`.
fn host() -> Host {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keyring");
    for name in ["local:a", "local:b"] {
        Keyring::create_key(&path, &key(name)).unwrap();
    }
    Host { dir, local: Local::new(path) }
}

fn key(text: &str) -> KeyId {
    text.parse().unwrap()
}

fn context(text: &str) -> Context {
    Context::parse(&[text]).unwrap()
}

fn trouble(error: KmsError) -> TroubleKind {
    match error {
        KmsError::Trouble(trouble) => trouble.kind,
        verdict @ (KmsError::Rejected | KmsError::IncorrectKey) => panic!("{verdict:?}"),
    }
}

#[tokio::test]
async fn what_was_encrypted_comes_back_under_the_same_key_and_context() {
    let Host { local, dir: _dir } = host();
    for len in [1, 64, MAX_PLAINTEXT] {
        let plain = vec![9; len];
        let made = local.encrypt(&key("local:a"), &plain, &context("k=v")).await.unwrap();
        assert_eq!(made.key.as_str(), "local:a");
        let opened = local.decrypt(Asked::Key(&key("local:a")), &made.ciphertext, &context("k=v")).await;
        assert_eq!(*opened.unwrap().plaintext, plain);
    }
}

#[tokio::test]
async fn k1_every_flipped_bit_and_every_cut_is_refused() {
    let Host { local, dir: _dir } = host();
    let made = local.encrypt(&key("local:a"), &[7; 64], &context("k=v")).await.unwrap().ciphertext;
    for bit in 0..made.len() * 8 {
        let mut forged = made.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        let answer = local.decrypt(Asked::Key(&key("local:a")), &forged, &context("k=v")).await;
        assert!(matches!(answer, Err(KmsError::Rejected | KmsError::IncorrectKey)), "bit {bit}");
    }
    for len in 0..made.len() {
        let answer = local.decrypt(Asked::Key(&key("local:a")), &made[..len], &context("k=v")).await;
        assert!(matches!(answer, Err(KmsError::Rejected)), "{len} bytes");
    }
}

#[tokio::test]
async fn k7_another_context_is_refused() {
    let Host { local, dir: _dir } = host();
    let made = local.encrypt(&key("local:a"), &[7; 64], &context("k=v,l=w")).await.unwrap().ciphertext;
    for other in ["", "k=v", "k=vl,=w", "k=v,l=x", "k=v,l=w,m="] {
        let Ok(other) = Context::parse(&[other]) else { continue };
        let answer = local.decrypt(Asked::Key(&key("local:a")), &made, &other).await;
        assert!(matches!(answer, Err(KmsError::Rejected)), "{other:?}");
    }
}

#[tokio::test]
async fn k2_another_key_disowns_it_and_a_renamed_one_cannot_imitate() {
    let Host { local, dir: _dir } = host();
    let mut made = local.encrypt(&key("local:a"), &[7; 64], &Context::default()).await.unwrap().ciphertext;
    let answer = local.decrypt(Asked::Key(&key("local:b")), &made, &Context::default()).await;
    assert!(matches!(answer, Err(KmsError::IncorrectKey)));
    made[MAGIC.len() + 1] = b'b';
    let answer = local.decrypt(Asked::Key(&key("local:b")), &made, &Context::default()).await;
    assert!(matches!(answer, Err(KmsError::Rejected)));
}

#[tokio::test]
async fn p2_a_missing_key_and_a_bad_keyring_are_trouble() {
    let Host { local, dir } = host();
    let absent = local.decrypt(Asked::Key(&key("local:c")), b"garbage", &Context::default()).await;
    assert_eq!(trouble(absent.err().unwrap()), TroubleKind::NotFound);
    let nowhere = Local::new(dir.path().join("nowhere"));
    let answer = nowhere.decrypt(Asked::Key(&key("local:a")), b"garbage", &Context::default()).await;
    assert_eq!(trouble(answer.err().unwrap()), TroubleKind::Credentials);
}

#[tokio::test]
async fn a_local_key_is_never_guessed() {
    let Host { local, dir: _dir } = host();
    let made = local.encrypt(&key("local:a"), &[7; 64], &Context::default()).await.unwrap().ciphertext;
    assert_eq!(claimed_key(&made).unwrap().as_str(), "local:a");
    let answer = local.decrypt(Asked::AnyKey, &made, &Context::default()).await;
    assert_eq!(trouble(answer.err().unwrap()), TroubleKind::Request);
}

#[tokio::test]
async fn plaintexts_have_the_bounds_of_kms() {
    let Host { local, dir: _dir } = host();
    for len in [0, MAX_PLAINTEXT + 1] {
        let answer = local.encrypt(&key("local:a"), &vec![0; len], &Context::default()).await;
        assert_eq!(trouble(answer.err().unwrap()), TroubleKind::Request);
    }
}

#[tokio::test]
async fn k10_a_key_added_later_is_found_and_one_taken_away_is_gone() {
    let Host { local, dir } = host();
    let path = dir.path().join("keyring");
    let none = Context::default();
    local.encrypt(&key("local:a"), &[7; 64], &none).await.unwrap();
    Keyring::create_key(&path, &key("local:late")).unwrap();
    local.encrypt(&key("local:late"), &[7; 64], &none).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let answer = local.encrypt(&key("local:a"), &[7; 64], &none).await;
    assert_eq!(trouble(answer.err().unwrap()), TroubleKind::Credentials);
}

#[tokio::test]
async fn a_signature_verifies_and_the_digest_decides() {
    let Host { local, dir: _dir } = host();
    let (digests, context) = (Digest::of(b"payload").into(), Context::default());
    let signed = Signer::new(&local, &key("local:a")).sign(&context, &digests).await.unwrap();
    let signature = Signature::parse(signed.signature.as_bytes()).unwrap();
    let keys = [key("local:b"), key("local:a")];
    let verifier = Verifier::new(&local, &keys, Formats::Plain);
    let opened = verifier.open(&context, &signature).await.unwrap();
    let verdict = opened.judge(&digests).unwrap();
    assert!(matches!(verdict, Verdict::Valid(valid) if valid.key().as_str() == "local:a"));
    let other = Digest::of(b"other").into();
    assert!(matches!(opened.judge(&other), Ok(Verdict::Invalid(Reason::Mismatch))));
}

#[tokio::test]
async fn a_symmetric_key_signs_nothing_and_has_no_public_half() {
    let Host { local, dir: _dir } = host();
    let (key, none) = (key("local:a"), Context::default());
    let algorithm = SigningAlgorithm::Ed25519;
    let signed = local.sign(&key, Message::Raw(b"message"), algorithm).await;
    assert_eq!(trouble(signed.unwrap_err()), TroubleKind::KeyUsage);
    assert_eq!(trouble(local.get_public_key(&key).await.unwrap_err()), TroubleKind::KeyUsage);
    for call in [DryRunCall::Sign(algorithm), DryRunCall::GetPublicKey] {
        assert_eq!(local.dry_run(&call, &key).await.unwrap_err().kind, TroubleKind::KeyUsage);
    }
    for call in [DryRunCall::Encrypt(none.clone()), DryRunCall::Decrypt(none)] {
        assert_eq!(local.dry_run(&call, &key).await, Ok(DryRunResult::Allowed));
    }
}

/// Every type of key that signs, but the one that takes longest to make.
const TYPES: [KeyType; 5] = [KeyType::Ed25519, KeyType::P256, KeyType::P384, KeyType::P521, KeyType::Rsa3072];

#[tokio::test]
async fn keys_of_every_type_sign_what_their_public_half_verifies() {
    let Host { local, dir } = host();
    for key_type in TYPES {
        let key = key(&format!("local:{key_type}"));
        Keyring::create(&dir.path().join("keyring"), &key, key_type).unwrap();
        let public = local.get_public_key(&key).await.unwrap();
        assert_eq!((public.key.as_str(), Some(public.public_key.kind())), (key.as_str(), key_type.kind()));
        for algorithm in SigningAlgorithm::ALL {
            let digest = algorithm.hash().map(|hash| HashState::new(hash).and(b"message").finish());
            let forms = [Some(Message::Raw(b"message")), digest.as_ref().map(Message::Digest)];
            let dry = local.dry_run(&DryRunCall::Sign(algorithm), &key).await;
            for form in forms.into_iter().flatten() {
                let signed = local.sign(&key, form, algorithm).await;
                if algorithm.fits(public.public_key.kind()) {
                    let signature = signed.unwrap().signature;
                    assert!(public.public_key.verify(algorithm, Message::Raw(b"message"), &signature));
                    assert_eq!(dry, Ok(DryRunResult::Allowed));
                } else {
                    assert_eq!(trouble(signed.unwrap_err()), TroubleKind::KeyUsage, "{key_type}");
                    assert_eq!(dry.as_ref().unwrap_err().kind, TroubleKind::KeyUsage);
                }
            }
        }
    }
}

#[tokio::test]
async fn p2_a_key_that_signs_encrypts_nothing_and_that_is_no_verdict() {
    let Host { local, dir } = host();
    let (key, none) = (key("local:e"), Context::default());
    Keyring::create(&dir.path().join("keyring"), &key, KeyType::Ed25519).unwrap();
    let made = local.encrypt(&key, b"digest", &none).await.unwrap_err();
    let opened = local.decrypt(Asked::Key(&key), b"ciphertext", &none).await.err().unwrap();
    let dry = local.dry_run(&DryRunCall::Decrypt(none), &key).await.unwrap_err();
    for error in [made, opened, dry.into()] {
        assert_eq!(
            error.to_string(),
            "key-usage: the key local:e is of the type ed25519, which encrypts nothing; make one that does: \
             kms-sig key create local:NAME --type aes"
        );
    }
}

#[tokio::test]
async fn messages_have_the_bounds_of_kms() {
    let Host { local, dir: _dir } = host();
    let long = local.sign(&key("local:a"), Message::Raw(&[0; 4097]), SigningAlgorithm::EcdsaSha256).await;
    assert_eq!(trouble(long.unwrap_err()), TroubleKind::Request);
    let digest = HashState::new(HashAlgorithm::Sha512).finish();
    for algorithm in [SigningAlgorithm::EcdsaSha256, SigningAlgorithm::Ed25519] {
        let signed = local.sign(&key("local:a"), Message::Digest(&digest), algorithm).await;
        assert_eq!(trouble(signed.unwrap_err()), TroubleKind::Request, "{algorithm}");
    }
}

#[test]
fn what_is_not_ours_claims_no_key() {
    let long = [MAGIC, &[255], &[b'a'; 300]].concat();
    let escape = [MAGIC, &[3], b"a\x1b[", &[0; 60]].concat();
    let no_name = [MAGIC, &[0], &[0; 60]].concat();
    let no_text = [MAGIC, &[1], b"a", &[0; NONCE_LEN + 16]].concat();
    for bytes in [b"".as_slice(), b"KSL", b"KSL1", b"KSL2\x01a", &long, &escape, &no_name, &no_text] {
        assert!(claimed_key(bytes).is_none(), "{bytes:?}");
    }
}
