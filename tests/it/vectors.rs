//! Golden vectors, in the manner of C2SP/CCTV: what a verifier is given and what it must say, as
//! files that any implementation can run (`tests/vectors/README.md` says how). Two in three must
//! not be accepted.
//!
//! `KMS_SIG_VECTORS=write` writes the signature vectors anew; otherwise they must be, byte for
//! byte, what the table in `vectors/cases.rs` makes. The trees are written by hand.

mod cases;
mod format;
mod make;
mod python;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Once;

use format::Vector;
use kms_sig::context::Context;
use kms_sig::digest::Digest;
use kms_sig::key::KeyId;
use kms_sig::kms::local::Local;
use kms_sig::signature::Signature;
use kms_sig::signing::{Formats, Verdict, Verifier};

use crate::support::place::Place;
use crate::support::side_by_side::side_by_side;

/// The classes of signature vectors.
const CLASSES: [&str; 8] =
    ["valid", "mismatch", "rejected", "wrong-key", "malformed", "missing", "hold", "usage"];

/// Where the vectors lie.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// The files of a subdirectory, by name; nothing else may lie there.
fn files(below: &str, suffix: &str) -> BTreeMap<String, String> {
    let entries = fs::read_dir(directory().join(below)).unwrap();
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(name.ends_with(suffix), "{name} in {below} is no vector");
        (name, fs::read_to_string(path).unwrap())
    };
    entries.map(read).collect()
}

/// What the table makes, by the names of the files. Written to the directory first, if that was
/// asked for.
fn made() -> BTreeMap<String, String> {
    static WRITTEN: Once = Once::new();
    let cases = cases::all();
    let count = cases.len();
    let finished = cases.into_iter().map(make::Case::finish);
    let made: BTreeMap<String, String> = finished.map(|(name, vector)| (name, vector.render())).collect();
    assert_eq!(made.len(), count, "two cases have one name");
    WRITTEN.call_once(|| {
        if std::env::var_os("KMS_SIG_VECTORS").is_some_and(|value| value == "write") {
            for name in files("signature", ".txt").into_keys().filter(|name| !made.contains_key(name)) {
                fs::remove_file(directory().join("signature").join(name)).unwrap();
            }
            for (name, text) in &made {
                fs::write(directory().join("signature").join(name), text).unwrap();
            }
        }
    });
    made
}

/// The signature vectors as they lie in the directory.
fn vectors() -> BTreeMap<String, Vector> {
    made(); // after they were written, if they are
    files("signature", ".txt").into_iter().map(|(name, text)| (name, Vector::parse(&text))).collect()
}

/// Runs all of these, a few at a time, and fails with everything that failed. Returns how many ran.
fn run_all<T: Sync>(vectors: &BTreeMap<String, T>, run: impl Fn(&str, &T) + Sync) -> usize {
    let all: Vec<_> = vectors.iter().collect();
    let results = side_by_side(&all, 8, |(name, vector)| run(name, vector));
    let failed: Vec<_> = std::iter::zip(&all, results)
        .filter_map(|((name, _), result)| Some(format!("{name}: {}", result.err()?)))
        .collect();
    assert!(failed.is_empty(), "{} of {} vectors failed:\n{}", failed.len(), all.len(), failed.join("\n"));
    all.len()
}

/// Puts the keyring of a vector at a path.
fn set_keyring(vector: &Vector, to: &Path) {
    if vector.keyring != "absent" {
        fs::copy(directory().join("keyring").join(&vector.keyring), to).unwrap();
        fs::set_permissions(to, Permissions::from_mode(vector.keyring_mode)).unwrap();
    }
}

/// The class that the library comes to, and what belongs to it: the key, or the kind of trouble.
fn judged(vector: &Vector, keyring: &Path) -> (&'static str, Option<String>) {
    let Ok(keys) = vector.keys.iter().map(|key| key.parse()).collect::<Result<Vec<KeyId>, _>>() else {
        return ("usage", None);
    };
    let Ok(context) = Context::parse(&vector.contexts) else { return ("usage", None) };
    let Some(bytes) = vector.signature_bytes() else { return ("missing", None) };
    let Ok(signature) = Signature::parse(&bytes) else { return ("malformed", None) };
    let kms = Local::new(keyring.to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let verifier = match &keys[..] {
        [] => Verifier::of_any_key(&kms),
        keys => Verifier::new(&kms, keys, Formats::Any),
    };
    let opened = match runtime.block_on(verifier.open(&context, &signature)) {
        Ok(opened) => opened,
        Err(trouble) => return ("hold", Some(trouble.kind.as_str().to_owned())),
    };
    match opened.judge(&Digest::of(&vector.payload.bytes()).into()).unwrap() {
        Verdict::Valid(valid) => ("valid", Some(valid.key().to_string())),
        Verdict::Invalid(reason) => (reason.as_str(), None),
    }
}

/// Whether it is about a batch signature, or what should be one.
fn is_batch(vector: &Vector) -> bool {
    vector.signature_bytes().is_some_and(|bytes| bytes.starts_with(b"kms-sig batch "))
}

/// Runs `kms-sig verify` on a vector: exit code, standard output and standard error are exactly
/// these.
fn verify(name: &str, vector: &Vector) {
    let place = Place::new();
    set_keyring(vector, &place.path("keyring"));
    place.write("f", vector.payload.bytes());
    if let Some(bytes) = vector.signature_bytes() {
        place.write("f.sig", bytes);
    }
    let mut arguments: Vec<String> =
        ["verify", "f", "--keyring", "keyring"].into_iter().map(str::to_owned).collect();
    arguments.extend(vector.keys.iter().map(|key| format!("--key={key}")));
    arguments.extend(vector.contexts.iter().map(|context| format!("--context={context}")));
    let says = vector.says.as_deref().unwrap_or_default();
    let run = |verbose: bool| place.run(arguments.iter().map(String::as_str).chain(verbose.then_some("-v")));
    let reason = match vector.expect.as_str() {
        "valid" => {
            let told = format!("valid signature from {}\n", vector.by.as_ref().unwrap());
            run(false).exits(0).says(&told).complains("");
            return;
        }
        "missing" => {
            run(false).exits(1).says("").complains("no signature: \"f.sig\" does not exist\n");
            return;
        }
        "hold" => {
            let said = run(false).exits(3).says("").stderr();
            let told = format!("kms-sig: cannot verify \"f\": {says}");
            assert_eq!(said.lines().next(), Some(told.as_str()));
            assert!(!said.contains("invalid"), "{said}");
            return;
        }
        "usage" => {
            let said = run(false).exits(2).says("").stderr();
            assert_eq!(said.lines().next(), Some(format!("kms-sig: {says}").as_str()));
            return;
        }
        "mismatch" if is_batch(vector) => {
            "the signature is genuine, but not of these bytes, or not with this context"
        }
        "mismatch" => "the signature is genuine, but not of these bytes",
        "rejected" => "the signature is damaged, or the context is not the one it was made with",
        "wrong-key" => "none of the named keys made the signature",
        "malformed" => says,
        other => panic!("no class: {other}"),
    };
    let run_without_hint = |verbose| {
        let said = run(verbose).exits(1).says("").stderr();
        let (hints, other): (Vec<_>, Vec<_>) =
            said.split_inclusive('\n').partition(|line| line.starts_with("hint: "));
        assert_eq!(hints.len(), usize::from(MISTAKES.contains(&name)), "{said}");
        other.concat()
    };
    assert_eq!(run_without_hint(false), "invalid signature\n");
    assert_eq!(run_without_hint(true), format!("invalid signature\nreason: {reason}\n"));
}

/// Vectors whose signature file is text that looks like a known mistake, of which a hint is given.
const MISTAKES: [&str; 6] =
    ["armored.txt", "aws-cli-output.txt", "base64-newline.txt", "base64.txt", "hex.txt", "sha512sum.txt"];

#[test]
fn the_signature_vectors_are_what_the_table_makes() {
    let made = made();
    let there = files("signature", ".txt");
    let names = |of: &BTreeMap<String, String>| of.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&there), names(&made), "write them with KMS_SIG_VECTORS=write");
    for (name, text) in &there {
        assert_eq!(text, &made[name], "{name} is not what the table makes; KMS_SIG_VECTORS=write writes it");
        assert_eq!(&Vector::parse(text).render(), text, "{name} does not survive reading");
    }
}

#[test]
fn the_library_judges_every_signature_vector() {
    let vectors = vectors();
    let ran = run_all(&vectors, |name, vector| {
        let dir = tempfile::tempdir().unwrap();
        let keyring = dir.path().join("keyring");
        set_keyring(vector, &keyring);
        let expected = vector.by.clone().or_else(|| vector.cause.clone());
        let (class, detail) = judged(vector, &keyring);
        assert_eq!((class, detail), (vector.expect.as_str(), expected), "{name}: {}", vector.comment);
    });
    assert_eq!(ran, vectors.len());
}

#[test]
fn the_command_line_judges_every_signature_vector() {
    let vectors = vectors();
    let ran = run_all(&vectors, verify);
    assert_eq!(ran, vectors.len());
}

/// Whether the daemon would split the context as the signature says: by which values come of the
/// file's name, `f`.
fn is_split_as_a_rule_would(vector: &Vector) -> bool {
    let signature = vector.signature_bytes().and_then(|bytes| Signature::parse(&bytes).ok());
    let Some(batch) = signature.as_ref().and_then(Signature::batch) else { return true };
    let context = Context::parse(&vector.contexts).unwrap();
    let of_the_name = context.pairs().filter(|(_, value)| *value == "f").map(|(key, _)| key.to_owned());
    // Where it does not, it need not ask.
    vector.expect == "rejected" || *batch.leaf_keys() == of_the_name.collect()
}

/// One rule for each vector that a policy can ask about, all in one run of the daemon. Policies
/// name at least one key, none twice, and there is one keyring.
#[test]
fn the_daemon_judges_every_signature_vector() {
    let mut vectors = vectors();
    vectors.retain(|_, vector| {
        let keys: BTreeSet<_> = vector.keys.iter().collect();
        let askable = !keys.is_empty() && keys.len() == vector.keys.len() && vector.expect != "usage";
        askable
            && is_split_as_a_rule_would(vector)
            && vector.keyring == "public"
            && vector.keyring_mode == 0o600
    });
    assert!(vectors.len() > 280, "{}", vectors.len());
    let place = Place::new();
    let mut rules = Vec::new();
    for (name, vector) in &vectors {
        let name = name.strip_suffix(".txt").unwrap();
        set_keyring(vector, &place.path("keyring"));
        fs::create_dir_all(place.path(format!("in/{name}"))).unwrap();
        fs::create_dir_all(place.path(format!("out/{name}"))).unwrap();
        place.write(format!("in/{name}/f"), vector.payload.bytes());
        if let Some(bytes) = vector.signature_bytes() {
            place.write(format!("in/{name}/f.sig"), bytes);
        }
        let context = Context::parse(&vector.contexts).unwrap();
        let doubled = |text: &str| text.replace('{', "{{").replace('}', "}}");
        let template = |value: &str| match value {
            "f" if is_batch(vector) => "{name}".to_owned(),
            value => doubled(value),
        };
        let pairs = context.pairs().map(|(key, value)| (key.to_owned(), template(value).into()));
        let mut rule: toml::Table = toml::from_str(
            "mode = \"verify\"\nsettle = \"50ms\"\non_invalid = \"log\"\non_missing = \"log\"\n\
             grace = \"10ms\"\nsignature_timeout = \"10ms\"",
        )
        .unwrap();
        rule.extend([
            ("name".to_owned(), name.into()),
            ("path".to_owned(), format!("in/{name}").into()),
            ("deliver_to".to_owned(), format!("out/{name}").into()),
            ("trusted_keys".to_owned(), vector.keys.clone().into()),
            ("accept_batch".to_owned(), is_batch(vector).into()),
            ("context".to_owned(), toml::Table::from_iter(pairs).into()),
        ]);
        rules.push(rule);
    }
    let rules = toml::to_string(&BTreeMap::from([("watch", rules)])).unwrap();
    let head = "allow_root = true\nlocal.keyring = \"keyring\"\nstate.dir = \"state\"\n";
    place.write("policy.toml", format!("{head}{rules}"));
    let said = place.run(["watch", "--policy", "policy.toml", "--once", "--log-format", "json"]).stderr();
    let mut told = BTreeMap::new();
    for event in said.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
        let what = match event["message"].as_str().unwrap() {
            "delivered" => "valid".to_owned(),
            "invalid" => event["reason"].as_str().unwrap().to_owned(),
            "held" | "held; will be tried again" => format!("hold {}", event["cause"].as_str().unwrap()),
            _ => continue,
        };
        told.insert(format!("{}.txt", event["rule"].as_str().unwrap()), what);
    }
    let expected = |vector: &Vector| match &vector.cause {
        Some(cause) => format!("hold {cause}"),
        None => vector.expect.clone(),
    };
    let expected: BTreeMap<_, _> =
        vectors.iter().map(|(name, vector)| (name.clone(), expected(vector))).collect();
    assert_eq!(told, expected);
    for (name, vector) in &vectors {
        let (from, to) =
            (format!("in/{}", name.replace(".txt", "")), format!("out/{}", name.replace(".txt", "")));
        let delivered = vector.expect == "valid";
        assert_eq!(place.path(format!("{to}/f")).exists(), delivered, "{name}");
        let at = if delivered { to } else { from };
        assert_eq!(place.read(format!("{at}/f")), vector.payload.bytes(), "{name}");
        if let Some(bytes) = vector.signature_bytes() {
            assert_eq!(place.read(format!("{at}/f.sig")), bytes, "{name}");
        }
    }
}

#[test]
fn p9_show_says_nothing_dangerous_of_any_signature_vector() {
    let vectors = vectors();
    run_all(&vectors, |name, vector| {
        let Some(bytes) = vector.signature_bytes() else { return };
        let place = Place::new();
        let run = place.run_with(["show", "-"], &bytes).complains("");
        let text = std::str::from_utf8(run.stdout()).unwrap();
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        run.exits(if vector.expect == "malformed" || MISTAKES.contains(&name) { 1 } else { 0 });
    });
}

#[test]
fn show_tells_what_a_batch_signature_says() {
    let bytes = vectors()["batch-of-seven.txt"].signature_bytes().unwrap();
    let place = Place::new();
    let run = place.run_with(["show", "-"], &bytes).exits(0);
    let sha512: String = Digest::of(&bytes).to_string();
    let ciphertext = Digest::of(&bytes[bytes.len() - 123..]);
    // 4 magic, 1 length, 4 name, 12 nonce, 86 of a batch, 16 tag.
    run.says(format!(
        "size: 382 bytes\nformat: batch signature, version 1, ciphertext of a kms-sig keyring\n\
         claims place: index 5 of a batch of 7\nclaims leaf context: [file]\n\
         parts: 3 hashes, 123 bytes of ciphertext\nsha512 of the ciphertext: {ciphertext}\nprovider: local\n\
         claims key: local:demo\nsha512: {sha512}\n"
    ));
    let torn = place.run_with(["show", "-"], &bytes[..bytes.len() - 1]).exits(1);
    torn.says("size: 381 bytes\nformat: none of ours: this is no batch signature: it is not as long as its header says\n");
    let endless = place.run_with(["show", "-"], [bytes, vec![0; 20_000]].concat()).exits(1);
    endless.says(
        "size: more than 15417 bytes\nformat: none of ours: this is no batch signature: \
         it is not as long as its header says\n",
    );
}

/// The vectors show one bit of each field; here is every bit, and every length.
#[test]
fn p1_no_changed_bit_and_no_cut_is_accepted() {
    let plain = &vectors()["plain.txt"];
    let dir = tempfile::tempdir().unwrap();
    let keyring = dir.path().join("keyring");
    set_keyring(plain, &keyring);
    assert_eq!(judged(plain, &keyring).0, "valid");
    let good = plain.signature_bytes().unwrap();
    let changed = |bytes: Vec<u8>| {
        let vector = Vector { signature: Some(format::Content::Hex(bytes)), ..plain.clone() };
        judged(&vector, &keyring).0
    };
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let class = changed(bytes);
        assert!(["rejected", "wrong-key"].contains(&class), "bit {bit} flipped is {class}");
    }
    for len in 0..good.len() {
        let class = changed(good[..len].to_vec());
        assert_eq!(class, if len == 0 { "malformed" } else { "rejected" }, "cut to {len}");
    }
}

#[test]
fn p1_no_changed_bit_and_no_cut_of_a_batch_is_accepted() {
    let batch = &vectors()["batch-of-seven.txt"];
    let dir = tempfile::tempdir().unwrap();
    let keyring = dir.path().join("keyring");
    set_keyring(batch, &keyring);
    assert_eq!(judged(batch, &keyring).0, "valid");
    let good = batch.signature_bytes().unwrap();
    let changed = |bytes: Vec<u8>| {
        let vector = Vector { signature: Some(format::Content::Hex(bytes)), ..batch.clone() };
        judged(&vector, &keyring).0
    };
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let class = changed(bytes);
        assert!(
            ["malformed", "mismatch", "rejected", "wrong-key"].contains(&class),
            "bit {bit} flipped is {class}"
        );
    }
    for len in 0..good.len() {
        // Less than the magic is not known for one, and so goes to the key.
        let class = if (1..b"kms-sig batch ".len()).contains(&len) { "rejected" } else { "malformed" };
        assert_eq!(changed(good[..len].to_vec()), class, "cut to {len}");
    }
}

#[test]
fn two_vectors_in_three_must_not_be_accepted() {
    let (signatures, trees) = (vectors(), tree::all());
    let mut classes: BTreeMap<&str, usize> = CLASSES.iter().map(|class| (*class, 0)).collect();
    for (name, vector) in &signatures {
        let Some(count) = classes.get_mut(vector.expect.as_str()) else { panic!("{name}: no such class") };
        *count += 1;
    }
    let accepted = classes["valid"] + trees.values().filter(|tree| tree.accepted).count();
    let all = signatures.len() + trees.len();
    println!("{classes:?}, {} trees, {accepted} of {all} accepted", trees.len());
    assert!(signatures.len() >= 110 && trees.len() >= 45, "{classes:?}, {} trees", trees.len());
    assert!(accepted * 3 <= all, "{accepted} of {all} are accepted");
    assert!(classes.values().all(|count| *count >= 3), "{classes:?}");
}

#[test]
fn the_readme_of_the_vectors_tells_every_name() {
    let readme = fs::read_to_string(directory().join("README.md")).unwrap();
    let mut names: BTreeSet<String> = CLASSES.iter().map(|class| (*class).to_owned()).collect();
    for text in files("signature", ".txt").values() {
        let header = text.split("\n\n").next().unwrap();
        names.extend(header.lines().map(|line| line.split(':').next().unwrap().to_owned()));
    }
    for text in files("tree", ".toml").values() {
        let tree: toml::Table = toml::from_str(text).unwrap();
        names.extend(tree.keys().cloned());
        for step in tree["step"].as_array().unwrap() {
            let step = step.as_table().unwrap();
            names.extend(step.keys().cloned());
            let put = step.get("put").and_then(toml::Value::as_array);
            names.extend(put.into_iter().flatten().flat_map(|put| put.as_table().unwrap().keys().cloned()));
        }
    }
    for entry in fs::read_dir(directory().join("keyring")).unwrap() {
        names.insert(entry.unwrap().file_name().into_string().unwrap());
    }
    let told = |name: &String| ["`", " ="].iter().any(|end| readme.contains(&format!("`{name}{end}")));
    let untold: Vec<_> = names.iter().filter(|name| !told(name)).collect();
    assert!(untold.is_empty(), "tests/vectors/README.md does not tell {untold:?}");
}
