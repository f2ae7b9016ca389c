//! The second implementation, `tests/vectors/batch.py`: does it judge our signatures as we do?
//!
//! It knows the format and no key. What it would ask KMS, a local key answers here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use kms_sig::context::Context;
use kms_sig::key::KeyId;
use kms_sig::kms::local::Local;
use kms_sig::kms::{Asked, Kms as _, KmsError};
use serde::Deserialize;

use super::format::{Vector, unhex};
use super::{directory, is_batch, run_all, set_keyring, vectors};

/// The Decrypt that it asks for.
#[derive(Deserialize)]
struct Question {
    ciphertext: String,
    context: BTreeMap<String, String>,
}

/// What it says about a payload and a signature. Any key of the vector may answer.
fn judged(vector: &Vector, dir: &Path) -> String {
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.join(name), bytes).unwrap();
    write("f", &vector.payload.bytes());
    write("f.sig", &vector.signature_bytes().unwrap());
    set_keyring(vector, &dir.join("keyring"));
    let context = Context::parse(&vector.contexts).unwrap();
    let mut python = Command::new("python3")
        .arg(directory().join("batch.py"))
        .args([dir.join("f"), dir.join("f.sig")])
        .args(context.pairs().map(|(key, value)| format!("{key}={value}")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is needed; install it");
    let mut lines = BufReader::new(python.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut said = lines.next().expect("a line");
    if said.starts_with('{') {
        let answer = answer(vector, &dir.join("keyring"), &serde_json::from_str(&said).unwrap());
        writeln!(python.stdin.take().unwrap(), "{answer}").unwrap();
        said = lines.next().expect("a verdict");
    }
    assert!(python.wait().unwrap().success());
    said
}

/// What KMS says to that: the plaintext in hexadecimal, or the class that the signature then is.
fn answer(vector: &Vector, keyring: &Path, question: &Question) -> String {
    let local = Local::new(keyring.to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    // What no caller can ask for: the split is a pair as any other, to KMS.
    let context = reserved(&question.context);
    let ciphertext = unhex(&question.ciphertext);
    let mut worst = "wrong-key";
    for key in &vector.keys {
        let key: KeyId = key.parse().unwrap();
        match runtime.block_on(local.decrypt(Asked::Key(&key), &ciphertext, &context)) {
            Ok(opened) => {
                let mut hex = String::new();
                opened.plaintext.iter().for_each(|byte| write!(hex, "{byte:02x}").unwrap());
                return hex;
            }
            Err(KmsError::IncorrectKey) => {}
            Err(KmsError::Rejected) => worst = "rejected",
            Err(KmsError::Trouble(_)) => worst = "hold",
        }
    }
    worst.to_owned()
}

/// A context with the pair that tells the split, made the only way there is.
fn reserved(pairs: &BTreeMap<String, String>) -> Context {
    let others = pairs.iter().filter(|(key, _)| *key != "kms-sig:batch");
    let others: Vec<_> = others.map(|(key, value)| format!("{key}={value}").replace(',', "\\,")).collect();
    let keys = kms_sig::context::leaf_keys::LeafKeys::parse(&pairs["kms-sig:batch"]).expect("a split");
    Context::parse(&others).unwrap().of_batch(&keys).unwrap()
}

#[test]
fn a_second_implementation_judges_every_batch_vector_as_ours_does() {
    let mut all = vectors();
    all.retain(|_, vector| is_batch(vector) && vector.expect != "usage");
    assert!(all.len() >= 90, "{}", all.len());
    let ran = run_all(&all, |name, vector| {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(judged(vector, dir.path()), vector.expect, "{name}: {}", vector.comment);
    });
    assert_eq!(ran, all.len());
}
