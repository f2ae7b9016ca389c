//! Signatures and keyrings: nothing but the key's own signature of these bytes under this context
//! is valid (P1).
//!
//! The first byte says what the rest is. 0: a `.sig` as it lies in a folder. 1: a keyring as it
//! lies in its file. 2: what to sign, and how to spoil the signature. 3: the same of a batch.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use kms_sig::context::Context;
use kms_sig::context::leaf_keys::LeafKeys;
use kms_sig::digest::Digest;
use kms_sig::digest::set::DigestSet;
use kms_sig::key::KeyId;
use kms_sig::kms::local::{KeyType, Keyring, KeyringError, Local, claimed_key};
use kms_sig::signature::batch::{self, Batch};
use kms_sig::signature::merkle::Tree;
use kms_sig::signature::{MAX_CIPHERTEXT, MAX_LEN, Malformed, Signature};
use kms_sig::signing::{Formats, Reason, Signer, Verdict, Verifier};
use kms_sig_fuzz::{Scratch, wait};
use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(|| Scratch::new("signature"));

/// Two keys made for this process. Signatures among the seeds were made under other secrets, so
/// none of them is valid here, however far it gets.
static LOCAL: LazyLock<(PathBuf, Local)> = LazyLock::new(|| {
    let path = SCRATCH.path().join("own-keyring");
    for key in [fuzz_key(), other_key()] {
        Keyring::create_key(&path, &key).expect("a key");
    }
    (path.clone(), Local::new(path))
});

fn fuzz_key() -> KeyId {
    "local:fuzz".parse().expect("a key's name")
}

fn other_key() -> KeyId {
    "local:other".parse().expect("a key's name")
}

fuzz_target!(|data: &[u8]| match data.split_first() {
    Some((0, bytes)) => check_signature(bytes),
    Some((1, text)) => check_keyring(text),
    Some((2, rest)) => {
        if let Ok(case) = Case::arbitrary(&mut Unstructured::new(rest)) {
            check_case(&case);
        }
    }
    Some((3, rest)) => {
        if let Ok(case) = BatchCase::arbitrary(&mut Unstructured::new(rest)) {
            check_batch(&case);
        }
    }
    Some(_) | None => {}
});

/// K1, A16: bytes that nobody signed are bad, and never an outage.
fn check_signature(bytes: &[u8]) {
    let signature = match Signature::parse(bytes) {
        Err(Malformed::Empty) => return assert!(bytes.is_empty()),
        Err(Malformed::TooLong) => return assert!(bytes.len() > MAX_CIPHERTEXT),
        Err(Malformed::Foreign(_)) => {
            return assert!(bytes.starts_with(b"-----") || bytes.starts_with(b"untr"));
        }
        Err(Malformed::Batch(_)) => return assert!(bytes.starts_with(batch::MAGIC)),
        Ok(signature) => signature,
    };
    assert!((1..=MAX_LEN).contains(&bytes.len()));
    assert_eq!(signature.as_bytes(), bytes);
    assert_eq!(signature.batch().is_some(), bytes.starts_with(batch::MAGIC));
    // One signature, one form.
    assert!(signature.batch().is_none_or(|batch| batch.to_bytes() == bytes));
    assert!((1..=MAX_CIPHERTEXT).contains(&signature.ciphertext().len()));
    if let Some(key) = claimed_key(bytes) {
        assert!(bytes.starts_with(b"KSL1") && key.as_str().bytes().all(|b| b.is_ascii_graphic()));
    }
    let context = Context::default();
    let keys = [fuzz_key(), other_key()];
    let opened = wait(Verifier::new(&LOCAL.1, &keys, Formats::Any).open(&context, &signature));
    let opened = opened.unwrap_or_else(|trouble| panic!("bytes are no trouble: {trouble}"));
    assert!(!opened.is_genuine());
    // The seeds stand for this digest.
    match opened.judge(&Digest::of(b"payload\n").into()).expect("its SHA-512 is known") {
        Verdict::Invalid(Reason::Rejected | Reason::WrongKey) => {}
        other => panic!("{other:?}"),
    }
    if signature.batch().is_none_or(|batch| batch.leaf_keys().are_in(&context)) {
        let opened = wait(Verifier::of_any_key(&LOCAL.1).open(&context, &signature));
        assert!(opened.is_err(), "a local key is named or not used");
    }
}

/// A keyring that opens holds usable keys and takes another one without losing any.
fn check_keyring(text: &[u8]) {
    let path = SCRATCH.file("keyring", text);
    let keyring = match Keyring::open(&path) {
        Ok(keyring) => keyring,
        Err(error) => {
            let message = error.to_string();
            assert!(!message.contains(char::is_control), "{message}");
            if let KeyringError::Syntax { line, .. } = error {
                assert!((1..=1 + text.iter().filter(|byte| **byte == b'\n').count()).contains(&line));
            }
            return;
        }
    };
    let listed: Vec<_> = keyring.list().collect();
    assert!(listed.is_sorted_by(|a, b| a.key < b.key), "{listed:?}");
    let keys: Vec<KeyId> = listed.iter().map(|one| one.key.to_key_id()).collect();
    let new: KeyId = "local:new".parse().expect("a key's name");
    if keys.contains(&new) {
        assert!(matches!(Keyring::create_key(&path, &new), Err(KeyringError::Exists { .. })));
        return;
    }

    let (context, digests) = (Context::default(), Digest::of(b"payload").into());
    let kms = Local::new(path.clone());
    let sign = |key: &KeyId| wait(Signer::new(&kms, key).sign(&context, &digests)).expect("signs");
    let encrypting = listed.iter().filter(|one| one.key_type == KeyType::Aes).map(|one| one.key.to_key_id());
    let encrypting: Vec<KeyId> = encrypting.take(3).collect();
    let signatures: Vec<_> = encrypting.iter().map(|key| (key, sign(key).signature)).collect();
    Keyring::create_key(&path, &new).expect("room for another key");
    let again: Vec<_> = Keyring::open(&path).expect("opens as before").list().collect();
    assert_eq!(again.len(), listed.len() + 1);
    let kept = again.iter().filter(|one| one.key.as_str() != "local:new");
    assert!(kept.map(|one| &one.key).eq(listed.iter().map(|one| &one.key)));
    for (key, signature) in signatures {
        let verifier = Verifier::new(&kms, std::slice::from_ref(key), Formats::Plain);
        let opened = wait(verifier.open(&context, &signature)).expect("no trouble");
        assert!(matches!(opened.judge(&digests), Ok(Verdict::Valid(_))), "{key} has changed");
    }
}

/// What is signed, and what is then presented.
#[derive(Debug, Arbitrary)]
struct Case<'a> {
    payload: &'a [u8],
    context: Vec<(&'a str, &'a str)>,
    other_payload: &'a [u8],
    other_context: Vec<(&'a str, &'a str)>,
    damages: Vec<Damage<'a>>,
}

/// How a signature is spoiled.
#[derive(Debug, Arbitrary)]
enum Damage<'a> {
    Flip(u16, u8),
    Cut(u16),
    Append(&'a [u8]),
    Insert(u16, u8),
    Remove(u16),
    Swap(u16, u16),
}

/// A context of these pairs, if they make one.
fn context_of(pairs: &[(&str, &str)]) -> Option<Context> {
    let argument = |(key, value): &(&str, &str)| format!("{key}={value}").replace(',', "\\,");
    Context::parse(&pairs.iter().map(argument).collect::<Vec<_>>()).ok()
}

fn check_case(case: &Case<'_>) {
    let Some(context) = context_of(&case.context) else { return };
    let (kms, key) = (&LOCAL.1, [fuzz_key()]);
    let digest = Digest::of(case.payload);
    let digests = DigestSet::from(digest.clone());
    let sealed = wait(Signer::new(kms, &key[0]).sign(&context, &digests)).expect("a local key signs");
    let genuine = sealed.signature.as_bytes();
    assert_eq!(claimed_key(genuine), Some(sealed.key.clone()));
    let open = |keys: &[KeyId], context: &Context, bytes: &[u8]| {
        let signature = Signature::parse(bytes).ok()?;
        Some(wait(Verifier::new(kms, keys, Formats::Any).open(context, &signature)).expect("no trouble"))
    };

    let opened = open(&key, &context, genuine).expect("a signature");
    match opened.judge(&digests).expect("its SHA-512 is known") {
        Verdict::Valid(valid) => {
            assert_eq!((valid.key(), valid.digest().as_bytes()), (&sealed.key, digest.as_bytes()))
        }
        Verdict::Invalid(reason) => panic!("our own signature is {reason}"),
    }
    let other = Digest::of(case.other_payload);
    let same = case.payload == case.other_payload;
    assert_eq!(matches!(opened.judge(&other.into()), Ok(Verdict::Valid(_))), same);

    let other_key = open(&[other_key()], &context, genuine).expect("a signature");
    assert!(matches!(other_key.judge(&digests), Ok(Verdict::Invalid(Reason::WrongKey))));

    if let Some(other) = context_of(&case.other_context) {
        let opened = open(&key, &other, genuine).expect("a signature");
        assert_eq!(opened.is_genuine(), other == context, "{other:?} for {context:?}");
        assert_eq!(other.canonical() == context.canonical(), other == context);
    }

    let mut bytes = genuine.to_vec();
    for damage in case.damages.iter().take(8) {
        spoil(&mut bytes, damage);
    }
    if bytes != genuine
        && let Some(opened) = open(&key, &context, &bytes)
    {
        assert!(!opened.is_genuine(), "{:?} goes unnoticed", case.damages);
    }
}

/// A batch, of which one file is looked at.
#[derive(Debug, Arbitrary)]
struct BatchCase<'a> {
    payloads: Vec<&'a [u8]>,
    shared: Vec<(&'a str, &'a str)>,
    at: u8,
    other_payload: &'a [u8],
    damages: Vec<Damage<'a>>,
}

fn check_batch(case: &BatchCase<'_>) {
    let payloads = case.payloads.get(..case.payloads.len().min(40)).unwrap_or_default();
    let at = usize::from(case.at) % payloads.len().max(1);
    let Some(payload) = payloads.get(at) else { return };
    let key = [fuzz_key()];
    let split: LeafKeys = ["\u{1}place".to_owned()].into_iter().collect();
    // No two leaves are the same, so that each has one place.
    let context = |n: usize| {
        let place = n.to_string();
        context_of(&[&case.shared[..], &[("\u{1}place", place.as_str())]].concat())
    };
    let Some(contexts) = (0..payloads.len()).map(context).collect::<Option<Vec<_>>>() else { return };
    let (Some(context), Some(first)) = (contexts.get(at), contexts.first()) else { return };
    let Ok(shared) = first.of_batch(&split) else { return };
    let leaves =
        payloads.iter().zip(&contexts).map(|(payload, context)| batch::leaf(&Digest::of(payload), context));
    let tree = Tree::new(leaves.collect()).expect("leaves");
    let sealed = wait(Signer::new(&LOCAL.1, &key[0]).sign_batch(&shared, split.clone(), tree))
        .expect("a local key signs");
    let genuine = sealed.signed(at as u64).expect("a leaf").signature;
    assert_eq!(genuine.batch().map(Batch::leaf_keys), Some(&split));
    assert_eq!(Signature::parse(genuine.as_bytes()).as_ref(), Ok(&genuine));

    let judge = |formats: Formats<'_>, payload: &[u8], signature: &Signature| {
        let verifier = Verifier::new(&LOCAL.1, &key, formats);
        let opened = wait(verifier.open(context, signature)).expect("no trouble");
        matches!(opened.judge(&Digest::of(payload).into()), Ok(Verdict::Valid(_)))
    };
    assert!(judge(Formats::Any, payload, &genuine));
    assert!(judge(Formats::Batch(&split), payload, &genuine));
    assert!(!judge(Formats::Plain, payload, &genuine));
    assert_eq!(judge(Formats::Any, case.other_payload, &genuine), *payload == case.other_payload);
    // Without what it says around it, the ciphertext is nothing.
    let bare = Signature::parse(genuine.ciphertext()).expect("a ciphertext");
    assert!(!judge(Formats::Any, payload, &bare));

    let mut bytes = genuine.as_bytes().to_vec();
    for damage in case.damages.iter().take(8) {
        spoil(&mut bytes, damage);
    }
    if bytes != genuine.as_bytes()
        && let Ok(signature) = Signature::parse(&bytes)
    {
        assert!(!judge(Formats::Any, payload, &signature), "{:?} goes unnoticed", case.damages);
    }
}

fn spoil(bytes: &mut Vec<u8>, damage: &Damage<'_>) {
    let len = bytes.len().max(1);
    let at = |place: u16| usize::from(place) % len;
    match *damage {
        Damage::Flip(place, bit) => {
            if let Some(byte) = bytes.get_mut(at(place)) {
                *byte ^= 1 << (bit % 8);
            }
        }
        Damage::Cut(place) => bytes.truncate(at(place)),
        Damage::Append(more) => bytes.extend_from_slice(more),
        Damage::Insert(place, byte) => bytes.insert(at(place).min(bytes.len()), byte),
        Damage::Remove(place) => {
            if !bytes.is_empty() {
                bytes.remove(at(place));
            }
        }
        Damage::Swap(one, other) => {
            if !bytes.is_empty() {
                bytes.swap(at(one), at(other));
            }
        }
    }
}
