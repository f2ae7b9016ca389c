//! The second implementation, `tests/vectors/batch.py`: does it judge our signatures as we do?
//!
//! It knows the format and no key. What it would ask KMS, a local key answers here.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use kms_sig::context::Context;
use kms_sig::key::KeyId;
use kms_sig::kms::local::Local;
use kms_sig::kms::{Asked, Kms as _, KmsError};
use serde::Deserialize;
use serde_json::json;

use super::cases::hex;
use super::format::{Vector, unhex};
use super::{directory, is_batch, set_keyring, vectors};

/// The Decrypt that it asks for.
#[derive(Deserialize)]
struct Question {
    ciphertext: String,
    context: BTreeMap<String, String>,
}

/// Judges one after the other with the functions of `batch.py`: a Python started for each takes
/// longer than all of them.
const DRIVER: &str = "
import json, sys
sys.path.insert(0, sys.argv[1])
import batch
while line := sys.stdin.readline():
    case = json.loads(line)
    payload, signature = bytes.fromhex(case['payload']), bytes.fromhex(case['signature'])
    print(batch.verdict(payload, signature, case['context'], batch.ask), flush=True)
";

/// The second implementation, running. Ends with its standard input.
struct Python {
    child: Child,
    stdin: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

impl Python {
    fn start(arguments: &[&OsStr]) -> Self {
        let mut command = Command::new("python3");
        command.arg("-B").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 is needed: apt-get install python3");
        let stdin = child.stdin.take().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, stdin, said }
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    /// Its next verdict. Any key of the vector may answer what it asks before.
    fn verdict(&mut self, vector: &Vector, keyring: &Path) -> String {
        let said = self.said.next().expect("a line").unwrap();
        if !said.starts_with('{') {
            return said;
        }
        self.tell(&answer(vector, keyring, &serde_json::from_str(&said).unwrap()));
        self.said.next().expect("a verdict").unwrap()
    }

    fn end(mut self) {
        drop(self.stdin);
        assert!(self.child.wait().unwrap().success());
    }
}

/// The pairs of the context that a vector asks for.
fn asked(vector: &Vector) -> BTreeMap<String, String> {
    let context = Context::parse(&vector.contexts).unwrap();
    context.pairs().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
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
            Ok(opened) => return hex(&opened.plaintext),
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
    let dir = tempfile::tempdir().unwrap();
    let mut python = Python::start(&["-c".as_ref(), DRIVER.as_ref(), directory().as_os_str()]);
    for (number, (name, vector)) in all.iter().enumerate() {
        let keyring = dir.path().join(number.to_string());
        set_keyring(vector, &keyring);
        let (payload, signature) = (hex(&vector.payload.bytes()), hex(&vector.signature_bytes().unwrap()));
        let case = json!({ "payload": payload, "signature": signature, "context": asked(vector) });
        python.tell(&case.to_string());
        assert_eq!(python.verdict(vector, &keyring), vector.expect, "{name}: {}", vector.comment);
    }
    python.end();
}

/// As its own help says: a file, its signature and the context as arguments.
#[test]
fn a_second_implementation_is_a_command() {
    let mut all = vectors();
    all.retain(|_, vector| is_batch(vector) && vector.expect == "valid" && !vector.contexts.is_empty());
    let (name, vector) = all.first_key_value().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("f"), vector.payload.bytes()).unwrap();
    fs::write(path("f.sig"), vector.signature_bytes().unwrap()).unwrap();
    set_keyring(vector, &path("keyring"));
    let pairs: Vec<_> = asked(vector).into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    let (script, file, signature) = (directory().join("batch.py"), path("f"), path("f.sig"));
    let mut arguments = vec![script.as_os_str(), file.as_os_str(), signature.as_os_str()];
    arguments.extend(pairs.iter().map(OsStr::new));
    let mut python = Python::start(&arguments);
    assert_eq!(python.verdict(vector, &path("keyring")), "valid", "{name}");
    python.end();
}
