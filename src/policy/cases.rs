//! Whole policies: every file of `tests/policy/good` and `config` loads, and every file of
//! `tests/policy/bad` has exactly the faults that its own trailing comments list, as
//! `#! LINE: message`.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::grammar::SECTIONS;
use super::manual::{Absent, CHAPTERS, Only};
use super::{
    AcceptBatch, Batching, Limits, Mode, OnInvalid, OnStale, Place, Policy, Rollback, Rule, SignRule,
    VerifyRule,
};
use crate::key::Provider;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The policies of a folder, sorted.
fn policies(folder: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension() == Some(OsStr::new("toml")));
    files.sort();
    files
}

fn good(name: &str) -> Policy {
    let file = root().join("tests/policy/good").join(name);
    Policy::load(&file).unwrap_or_else(|faults| panic!("{faults}"))
}

/// The faults of `text` as a policy file in a folder of its own, without the file's name.
fn faults_of(text: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.toml");
    write(&file, text);
    faults_at(&file)
}

fn write(file: &Path, text: &[u8]) {
    File::create(file).unwrap().write_all(text).unwrap();
}

fn faults_at(file: &Path) -> String {
    let faults = Policy::load(file).unwrap_err();
    let texts: Vec<String> =
        faults.iter().map(|fault| format!("{}: {}", fault.line, fault.message)).collect();
    texts.join("\n")
}

fn sign(rule: &Rule) -> &SignRule {
    match &rule.mode {
        Mode::Sign(sign) => sign,
        Mode::Verify(_) => panic!("{} is a verify rule", rule.name),
    }
}

fn verify(rule: &Rule) -> &VerifyRule {
    match &rule.mode {
        Mode::Verify(verify) => verify,
        Mode::Sign(_) => panic!("{} is a sign rule", rule.name),
    }
}

#[test]
fn every_good_policy_and_all_of_config_load() {
    let files = [policies("tests/policy/good"), policies("config")].concat();
    assert!(files.len() >= 14, "{files:?}");
    for file in files {
        if let Err(faults) = Policy::load(&file) {
            panic!("{faults}");
        }
    }
}

#[test]
fn o2_every_bad_policy_has_exactly_the_faults_it_lists() {
    let files = policies("tests/policy/bad");
    assert!(files.len() >= 35, "{files:?}");
    let mut wrong = String::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let expected: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#! ")).collect();
        let found = match Policy::load(&file) {
            Ok(_) => "no fault".to_owned(),
            Err(_) => faults_at(&file),
        };
        if found != expected.join("\n") {
            let name = file.file_name().unwrap().display();
            wrong += &format!("\n{name} expected\n{}\nand has\n{found}\n", expected.join("\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// A key that is not in its dictionary, the fuzzer would have to guess letter by letter.
#[test]
fn the_fuzzers_dictionary_has_every_key() {
    let words = std::fs::read_to_string(root().join("tests/fuzz/policy.dict")).unwrap();
    for key in SECTIONS.into_iter().flat_map(|section| section.keys) {
        let entry = format!("\"{}\"", key.name);
        assert!(words.lines().any(|line| line == entry), "tests/fuzz/policy.dict lacks {entry}");
    }
}

/// Whoever takes the comment away from a duration in the example changes nothing by it.
#[test]
fn a_duration_that_is_commented_out_in_the_annotated_policy_is_the_default() {
    let text = std::fs::read_to_string(root().join("config/policy.toml")).unwrap();
    let settle = text.lines().find(|line| line.starts_with("#settle = ")).unwrap();
    let default = good("least.toml").rules[0].settle; // of a sign rule, as the first of the example is
    let default = humantime::format_duration(default);
    assert_eq!(settle.trim_start_matches('#'), format!("settle = \"{default}\""));
}

/// What the annotated policy does not show, an operator does not find.
#[test]
fn the_annotated_policy_shows_every_key() {
    let text = std::fs::read_to_string(root().join("config/policy.toml")).unwrap();
    for section in SECTIONS {
        for key in section.keys {
            let shown = text.lines().any(|line| {
                let entry = line.trim_start_matches(['#', ' ', '[']);
                entry.strip_prefix(key.name).is_some_and(|after| after.starts_with([' ', ']']))
            });
            assert!(shown, "config/policy.toml does not show {} of {}", key.name, section.title);
        }
    }
}

#[test]
fn a_rule_of_either_mode_has_the_documented_defaults() {
    let policy = good("least.toml");
    assert!(!policy.allow_root);
    assert_eq!(policy.aws, crate::kms::AwsSettings::default());
    assert_eq!(policy.keyring, None);
    assert_eq!(policy.quarantine_dir, None);
    assert_eq!(policy.state_dir, Path::new("/var/lib/kms-sig-test"));
    let Limits { max_in_flight, kms_per_second, hash_threads, min_free_space } = policy.limits;
    assert_eq!((max_in_flight, kms_per_second, min_free_space), (64, None, 64 << 20));
    assert!((1..=256).contains(&hash_threads));

    let [signing, verifying] = policy.rules.as_slice() else {
        panic!("{:?}", policy.rules);
    };
    for rule in [signing, verifying] {
        assert!(!rule.recursive && !rule.create);
        assert!(rule.include.is_none() && rule.exclude.is_none() && rule.allowed_owners.is_none());
        assert_eq!(rule.control_files, crate::policy::ControlFiles::default());
        assert_eq!((rule.max_size, rule.max_links), (16 << 30, 1));
        assert_eq!((rule.quarantine_max_size, rule.quarantine_keep), (32 << 30, None));
    }
    assert_eq!((signing.name.as_str(), signing.line), ("releases", 4));
    assert_eq!((signing.settle, verifying.settle), (Duration::from_secs(15), Duration::from_secs(2)));
    assert!(signing.prompt && verifying.prompt);
    assert_eq!(sign(signing).on_stale, OnStale::Report);
    assert!(sign(signing).deliver_to.is_none());

    let rule = verify(verifying);
    assert_eq!((rule.on_invalid, rule.on_missing), (OnInvalid::Log, OnInvalid::Log));
    assert_eq!((rule.signature_timeout, rule.grace), (Duration::from_secs(600), None));
    assert_eq!(rule.rollback, Rollback::Off);
    assert_eq!(rule.accept_batch, AcceptBatch::No);
    assert!(matches!(&rule.place, Place::Deliver(delivery) if delivery.mode == 0o644));
}

/// Written out, the default that the manual tells changes nothing: so it is the one that applies.
#[test]
fn the_defaults_that_the_manual_tells_are_those_that_apply() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.toml");
    let load = |top: &str, signs: &str, verifies: &str| -> String {
        let text = format!(
            r#"{top}
state.dir = "/var/lib/kms-sig-test"
state.seal_key = "alias/record"
quarantine.dir = "/srv/kms-sig-test/quarantine"
[[watch]]
name = "releases"
mode = "sign"
path = "/srv/kms-sig-test/releases"
key = "alias/release"
{signs}
[[watch]]
name = "downloads"
mode = "verify"
path = "/srv/kms-sig-test/incoming"
deliver_to = "/srv/kms-sig-test/verified"
trusted_keys = ["arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"]
on_invalid = "quarantine"
on_missing = "quarantine"
{verifies}
"#
        );
        write(&file, text.as_bytes());
        let policy = Policy::load(&file).unwrap_or_else(|faults| panic!("{top}{signs}{verifies}: {faults}"));
        format!("{policy:?}")
    };
    let without = load("", "", "");
    let mut compared = 0;
    for chapter in &CHAPTERS {
        for entry in chapter.keys {
            let Absent::Value(value) = entry.default else { continue };
            let line = format!("{} = {value}", entry.name);
            let table = chapter.table.trim_matches(['[', ']']);
            let with = match (chapter.grammar(entry).unwrap().1, chapter.table) {
                (_, "") => load(&line, "", ""),
                (Only::Sign, _) => load("", &line, ""),
                (Only::All | Only::Verify, "[[watch]]") => load("", "", &line),
                (Only::All | Only::Verify, _) => load(&format!("{table}.{line}"), "", ""),
            };
            assert_eq!(with, without, "{line}");
            compared += 1;
        }
    }
    assert!(compared > 12, "{compared}");
    assert_ne!(load("", "", "settle = \"3s\""), without, "another value shows");
}

#[test]
fn every_key_is_taken_over() {
    let policy = good("every-key.toml");
    assert!(policy.allow_root);
    assert_eq!(policy.aws.region.as_deref(), Some("eu-west-1"));
    assert_eq!(policy.aws.profile.as_deref(), Some("signer"));
    assert_eq!(policy.aws.endpoint_url.as_deref(), Some("http://[::1]:4566/"));
    assert_eq!(policy.aws.use_fips, Some(false));
    assert_eq!(policy.keyring.as_deref(), Some(Path::new("/var/lib/kms-sig-test/keyring")));
    assert_eq!(policy.quarantine_dir.as_deref(), Some(Path::new("/var/lib/kms-sig-test/quarantine")));
    assert_eq!(policy.control.socket.as_deref(), Some(Path::new("/run/kms-sig-test/control.sock")));
    assert_eq!(policy.control.metrics, "[::1]:65535".parse().ok());
    let limits =
        Limits { max_in_flight: 1, kms_per_second: Some(100_000), hash_threads: 256, min_free_space: 0 };
    assert_eq!(policy.limits, limits);

    let [signing, verifying] = policy.rules.as_slice() else {
        panic!("{:?}", policy.rules);
    };
    assert!(signing.recursive && signing.create);
    assert_eq!(signing.settle, Duration::from_millis(1500));
    assert!(!signing.prompt);
    assert_eq!((signing.max_size, signing.max_links), (100_000_000, 3));
    assert_eq!(signing.quarantine_max_size, 1);
    assert_eq!(signing.quarantine_keep, humantime::parse_duration("10years").ok());
    assert_eq!(signing.allowed_owners.as_deref(), Some([0, 1000].as_slice()));
    assert!(signing.include.as_ref().unwrap().matches(OsStr::new("a.deb")));
    assert_eq!(signing.exclude.as_ref().unwrap().sources(), ["*-debug.*"]);
    assert_eq!(signing.context.placeholders().count(), 3);
    assert_eq!(sign(signing).key.provider(), Provider::Local);
    assert_eq!(sign(signing).on_stale, OnStale::Quarantine);
    let delivery = sign(signing).deliver_to.as_ref().unwrap();
    let batching = Batching { window: Duration::from_millis(200), max_files: 1000 };
    assert_eq!(sign(signing).batch, Some(batching));
    assert_eq!((delivery.dir.as_path(), delivery.mode), (Path::new("/srv/kms-sig-test/published"), 0o400));

    let rule = verify(verifying);
    assert_eq!(rule.trusted_keys.len(), 2);
    assert!(matches!(rule.place, Place::InPlace));
    assert_eq!((rule.on_invalid, rule.on_missing), (OnInvalid::Quarantine, OnInvalid::Log));
    assert_eq!((rule.signature_timeout, rule.grace), (Duration::from_secs(5400), Some(Duration::ZERO)));
    assert_eq!(rule.rollback, Rollback::Deny);
    assert_eq!(rule.accept_batch, AcceptBatch::Yes);
}

#[test]
fn relative_paths_begin_at_the_policy_files_folder() {
    let folder = tempfile::tempdir().unwrap();
    let real = folder.path().canonicalize().unwrap();
    std::fs::create_dir(real.join("etc")).unwrap();
    symlink("etc", real.join("alias")).unwrap();
    let text = std::fs::read(root().join("tests/policy/good/relative.toml")).unwrap();
    write(&real.join("etc/p.toml"), &text);

    let policy = Policy::load(&real.join("alias/p.toml")).unwrap();
    assert_eq!(policy.file, real.join("alias/p.toml"), "links may lead elsewhere the next time");
    assert_eq!(policy.state_dir, real.join("etc/state"));
    let path = policy.rules.first().map(|rule| rule.path.as_path());
    assert_eq!(path, Some(real.join("drop").as_path()));
}

#[test]
fn p7_a_file_that_cannot_be_read_is_no_policy() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("nowhere.toml");
    assert_eq!(faults_at(&missing), "0: there is no such policy file; name an existing one");
    let no_file = "0: the policy is no regular file; name the policy file itself";
    assert_eq!(faults_at(folder.path()), no_file);
    assert_eq!(faults_at(Path::new("/dev/null")), no_file);
    let fifo = folder.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    assert_eq!(faults_at(&fifo), no_file, "and does not wait for a writer");

    let long = vec![b'#'; (1 << 20) + 1];
    assert_eq!(faults_of(&long), "0: the policy is larger than 1048576 bytes; name the policy file itself");
    assert!(!faults_of(&long[1..]).starts_with("0:"));
    assert_eq!(faults_of(b"# one\n# tw\xf6\n"), "0: line 2 is not UTF-8; save the policy as UTF-8");
}

#[test]
fn p9_what_a_fault_quotes_is_escaped() {
    let faults = faults_of(b"\"\\u001b[31m\" = 1\n[state]\ndir = \"a\\nb\"\n");
    assert!(faults.contains("`\\x1b[31m`") && faults.contains("\"a\\x0ab\""), "{faults}");
    assert!(!faults.contains('\u{1b}'));

    let nul = "[state]\ndir = \"/s\"\n[limits]\nmax_in_flight = 9_9\0\09\n";
    let faults = faults_of(nul.as_bytes());
    assert!(faults.contains("`max_in_flight`: 99\\x00\\x009 is out of bounds; "), "{faults}");
}

/// A reload reads whatever lies there while the daemon works: it must not take its stack, its
/// memory or an hour.
#[test]
fn p7_no_policy_of_the_largest_size_is_too_much() {
    let one = "[state]\ndir = \"/s\"\n[local]\nkeyring = \"/k\"\n[[watch]]\nname = \"one\"\nmode = \"sign\"\n\
               path = \"/w\"\nkey = \"local:a\"\n";
    let faults = |more: String| faults_of(format!("{one}{more}").as_bytes());

    // As a tokio worker has it: a quarter of the main thread's stack.
    let nested = format!("include = [\"{}{}\"]\n", "{".repeat(300_000), "}".repeat(300_000));
    let limit = "10: `include`: a pattern has at most 1024 bytes; write several shorter ones";
    assert_eq!(faults(nested), limit);
    let nested = format!("include = [\"{}a{}\"]\n", "{".repeat(511), "}".repeat(511));
    let file = format!("{one}{nested}");
    let deepest = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("policy.toml"), file.as_bytes());
        faults_at(&folder.path().join("policy.toml"))
    });
    let faults_there = deepest.unwrap().join().unwrap();
    assert!(faults_there.contains("is no pattern: "), "{faults_there}");

    let long = format!("deliver_to = \"/{}\"\n", "a/".repeat(400_000));
    assert_eq!(faults(long), "10: `deliver_to`: a path has at most 4095 bytes; write a shorter one");

    let keys: String = (0..60_000).map(|n| format!("k{n} = \"\"\n")).collect();
    assert!(faults(format!("[watch.context]\n{keys}")).contains("KMS takes at most 8192"));

    let unknown = format!("{} = 1\n", "a".repeat(900_000));
    assert!(faults(unknown).contains("is no key of [[watch]]; valid here: name, "));

    let rules = "[[watch]]\npath = \"/w\"\n".repeat(30_000);
    let faults = faults(rules);
    let too_many = "the policy has 30001 rules, and at most 1000 are taken; ";
    assert!(
        faults.lines().any(|fault| fault.starts_with("2008: `watch`: ") && fault.contains(too_many)),
        "{faults:.300}"
    );
    assert!(!faults.contains("\n2009: ") && !faults.contains("\n2010: "), "what is beyond is not read");
    assert_eq!(faults.lines().filter(|fault| fault.contains("a file must fall to one rule")).count(), 100);
}

/// Whatever the file holds, loading ends with a policy or with faults.
#[test]
fn no_prefix_of_a_policy_confuses_the_loader() {
    let text = std::fs::read_to_string(root().join("tests/policy/good/every-key.toml")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("policy.toml");
    for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
        write(&file, &text.as_bytes()[..end]);
        if let Err(faults) = Policy::load(&file) {
            assert!(faults.iter().count() > 0, "{end}");
        }
    }
}
