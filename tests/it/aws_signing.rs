//! Sign and `GetPublicKey` over the wire: against ministack for what KMS does, and through the
//! proxy for answers that are wrong.

use std::process::Command;

use kms_sig::digest::algorithm::{HashAlgorithm, HashState};
use kms_sig::key::KeyId;
use kms_sig::kms::aws::{Aws, connect};
use kms_sig::kms::{AwsSettings, Kms as _, KmsError, Trouble, TroubleKind};
use kms_sig::trust::{KeyKind, Message, PublicKey, SigningAlgorithm};

use crate::support::kms::set_credentials;
use crate::support::ministack::{Ministack, create_key};
use crate::support::moto::REGION;
use crate::support::place::Place;
use crate::support::proxy::{Fault, OTHER_KEY, Proxy};

/// Specs of keys that sign, with the kind of each.
const SPECS: [(&str, KeyKind); 7] = [
    ("ECC_NIST_EDWARDS25519", KeyKind::Ed25519),
    ("ECC_NIST_P256", KeyKind::P256),
    ("ECC_NIST_P384", KeyKind::P384),
    ("ECC_NIST_P521", KeyKind::P521),
    ("RSA_2048", KeyKind::Rsa { bits: 2048 }),
    ("RSA_3072", KeyKind::Rsa { bits: 3072 }),
    ("RSA_4096", KeyKind::Rsa { bits: 4096 }),
];

const SIGN: &str = "SIGN_VERIFY";

/// Says in the second process of a test where ministack is.
const MINISTACK: &str = "KMS_SIG_TEST_MINISTACK";

/// Where ministack is, in a process with credentials. `None` in the first process, which then has
/// had the test done: credentials are read from the environment, and a test may not change its own.
#[track_caller]
fn inside(test: &str) -> Option<String> {
    if let Ok(url) = std::env::var(MINISTACK) {
        return Some(url);
    }
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", &format!("aws_signing::{test}"), "--nocapture"]);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AWS_") {
            again.env_remove(name);
        }
    }
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        (MINISTACK, Ministack::start().url()),
    ] {
        again.env(name, value);
    }
    let output = again.output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    None
}

async fn aws(url: &str) -> Aws {
    let settings = AwsSettings {
        region: Some(REGION.to_owned()),
        endpoint_url: Some(url.to_owned()),
        ..AwsSettings::default()
    };
    connect(&settings).await.unwrap()
}

fn trouble<T>(answer: Result<T, KmsError>) -> Trouble {
    match answer.err().expect("no answer") {
        KmsError::Trouble(trouble) => trouble,
        verdict @ (KmsError::Rejected | KmsError::IncorrectKey) => panic!("{verdict:?}"),
    }
}

#[tokio::test]
async fn keys_of_every_spec_sign_what_their_public_half_verifies() {
    let Some(url) = inside("keys_of_every_spec_sign_what_their_public_half_verifies") else { return };
    let aws = aws(&url).await;
    for (spec, kind) in SPECS {
        let key: KeyId = create_key(&url, spec, SIGN).parse().unwrap();
        let public = aws.get_public_key(&key).await.unwrap();
        assert!(key.is_answered_by(&public.key));
        assert_eq!(public.public_key.kind(), kind);
        for algorithm in SigningAlgorithm::ALL.into_iter().filter(|algorithm| algorithm.fits(kind)) {
            let digest = algorithm.hash().map(|hash| HashState::new(hash).and(b"message").finish());
            let forms = [Some(Message::Raw(b"message")), digest.as_ref().map(Message::Digest)];
            for form in forms.into_iter().flatten() {
                let signed = aws.sign(&key, form, algorithm).await.unwrap();
                assert!(key.is_answered_by(&signed.key));
                let verify =
                    |message| public.public_key.verify(algorithm, Message::Raw(message), &signed.signature);
                assert!(verify(b"message") && !verify(b"another"), "{spec}, {algorithm}");
            }
        }
    }
}

#[tokio::test]
async fn p2_a_wrong_answer_is_trouble_and_never_a_signature() {
    let Some(url) = inside("p2_a_wrong_answer_is_trouble_and_never_a_signature") else { return };
    let proxy = Proxy::start(&url);
    let aws = aws(&proxy.url()).await;
    let key: KeyId = create_key(&url, "ECC_NIST_P256", SIGN).parse().unwrap();
    let sign = async || aws.sign(&key, Message::Raw(b"message"), SigningAlgorithm::EcdsaSha256).await;
    for (fault, says) in [
        (Fault::Edited("SigningAlgorithm", "ECDSA_SHA_384"), "another algorithm"),
        (Fault::Edited("Signature", ""), "no signature"),
        (Fault::Edited("KeyId", "alias/a"), "a key that is none"),
        (Fault::EmptyJson, "no signature"),
        (Fault::INVALID_CIPHERTEXT, "an error of Decrypt"),
    ] {
        proxy.next(fault);
        let trouble = trouble(sign().await);
        assert_eq!(trouble.kind, TroubleKind::MalformedReply, "{fault:?}");
        assert!(
            trouble.message.starts_with("Sign answered with") && trouble.message.contains(says),
            "{trouble}"
        );
    }
    for (fault, says) in [
        (Fault::Edited("PublicKey", "AAAA"), "a public key that is none"),
        (Fault::EmptyJson, "no key"),
        (Fault::INCORRECT_KEY, "an error of Decrypt"),
    ] {
        proxy.next(fault);
        let trouble = trouble(aws.get_public_key(&key).await);
        assert_eq!(trouble.kind, TroubleKind::MalformedReply, "{fault:?}");
        assert!(trouble.message.contains(says), "{trouble}");
    }
    // Another key's answer is told as it is: whoever asked compares.
    proxy.next(Fault::OtherKey);
    assert_eq!(sign().await.unwrap().key.as_str(), OTHER_KEY);
}

#[tokio::test]
async fn a_key_that_signs_nothing_is_trouble_with_what_to_do() {
    let Some(url) = inside("a_key_that_signs_nothing_is_trouble_with_what_to_do") else { return };
    let proxy = Proxy::start(&url);
    let aws = aws(&proxy.url()).await;
    let key = |spec, usage| -> KeyId { create_key(&url, spec, usage).parse().unwrap() };
    let encrypting = key("RSA_2048", "ENCRYPT_DECRYPT");
    let unfit = trouble(aws.get_public_key(&encrypting).await);
    assert_eq!(unfit.kind, TroubleKind::KeyUsage);
    assert!(unfit.message.contains("is for ENCRYPT_DECRYPT, and signs nothing"), "{unfit}");
    let unknown = trouble(aws.get_public_key(&key("ECC_SECG_P256K1", SIGN)).await);
    assert_eq!(unknown.kind, TroubleKind::KeyUsage);
    assert!(unknown.message.contains("the curve 1.3.132.0.10 is not known"), "{unknown}");
    for (fault, hint) in [
        (Fault::Error(400, "UnsupportedOperationException"), "use a SIGN_VERIFY key"),
        (Fault::ACCESS_DENIED, "allow kms:Sign and kms:GetPublicKey"),
    ] {
        for operation in ["GetPublicKey", "Sign"] {
            proxy.next(fault);
            let denied = match operation {
                "Sign" => {
                    trouble(aws.sign(&encrypting, Message::Raw(b"m"), SigningAlgorithm::RsaPkcs1Sha256).await)
                }
                _ => trouble(aws.get_public_key(&encrypting).await),
            };
            assert!(denied.hint().starts_with(hint), "{operation}: {}", denied.hint());
        }
    }
    let before = proxy.requests().len();
    let long = aws.sign(&encrypting, Message::Raw(&[0; 4097]), SigningAlgorithm::RsaPkcs1Sha256).await;
    assert_eq!(trouble(long).kind, TroubleKind::Request);
    let digest = HashState::new(HashAlgorithm::Sha512).finish();
    let other = aws.sign(&encrypting, Message::Digest(&digest), SigningAlgorithm::RsaPkcs1Sha256).await;
    assert_eq!(trouble(other).kind, TroubleKind::Request);
    assert_eq!(proxy.requests().len(), before, "KMS is not asked for what it would not sign");
}

#[test]
fn key_public_of_aws_is_what_kms_has_and_of_another_key_nothing() {
    let ministack = Ministack::start();
    let proxy = Proxy::start(ministack.url());
    let mut place = Place::new();
    set_credentials(&mut place);
    place.set("AWS_REGION", REGION);
    place.set("AWS_ENDPOINT_URL", proxy.url());
    let key = ministack.create_key("ECC_NIST_EDWARDS25519", SIGN);
    let run = place.run(["key", "public", &key]).exits(0);
    let public = PublicKey::from_pem(std::str::from_utf8(run.stdout()).unwrap()).unwrap();
    assert_eq!(public.kind(), KeyKind::Ed25519);
    run.complains("");
    proxy.next(Fault::OtherKey);
    let other = place.run(["key", "public", &key]).exits(3).says("");
    other.complains_of(&format!("GetPublicKey under {key} was answered by {OTHER_KEY}"));
    proxy.next(Fault::ACCESS_DENIED);
    let denied = place.run(["key", "public", &key]).exits(3).says("");
    denied.complains_of("hint: allow kms:Sign and kms:GetPublicKey to signers");
}
