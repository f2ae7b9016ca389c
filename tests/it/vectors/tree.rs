//! Tree vectors: a rule, what lies in its directories, and what `kms-sig watch --once` makes of
//! that.
//!
//! Beside what a vector names, this holds for each: what stays is unchanged, what is delivered is
//! what lay there, what is quarantined too, a signature that was made verifies, and what links
//! pointed to is untouched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::format::{Content, Vector, escape, unescape, unhex};
use super::{directory, files, judged, make, run_all};
use crate::support::place::{Place, name};

/// The files larger than this are compared by size alone: sparse ones are.
const READ: u64 = 1 << 20;

/// A case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tree {
    /// What it is about.
    comment: String,
    /// Whether anything comes to be delivered, signed or called valid.
    pub(super) accepted: bool,
    /// `sign` or `verify`.
    mode: String,
    /// Keys of the rule, beside the usual ones.
    #[serde(default)]
    options: toml::Table,
    /// Usual keys that the rule does not have.
    #[serde(default)]
    without: Vec<String>,
    /// One run after the other.
    step: Vec<Step>,
}

/// A run: what is changed before it, and what has to come of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    #[serde(default)]
    options: toml::Table,
    #[serde(default = "public")]
    keyring: String,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    remove: Vec<String>,
    #[serde(default)]
    put: Vec<Put>,
    exit: i32,
    /// `NAME: what`, for everything that is told.
    outcome: BTreeSet<String>,
    /// Words of this program that stand in the summary.
    #[serde(default)]
    says: Vec<String>,
    /// What lies in the watched directory afterwards.
    r#in: BTreeSet<String>,
    /// What lies in the destination.
    #[serde(default)]
    out: BTreeSet<String>,
    /// `NAME: reason`, for all items so far.
    #[serde(default)]
    quarantine: BTreeSet<String>,
    /// Signatures in the watched directory that this run made.
    #[serde(default)]
    signed: BTreeSet<String>,
}

/// Something to put there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Put {
    path: String,
    text: Option<String>,
    repeat: Option<(u8, usize)>,
    size: Option<u64>,
    signs: Option<String>,
    #[serde(default = "public")]
    keyring: String,
    #[serde(default = "demo")]
    key: String,
    context: Option<BTreeMap<String, String>>,
    link: Option<String>,
    hard_link: Option<String>,
    special: Option<Special>,
    mode: Option<String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Special {
    Directory,
    Fifo,
    Socket,
}

fn public() -> String {
    "public".to_owned()
}

fn demo() -> String {
    "demo".to_owned()
}

/// What lies at a name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    mode: u32,
    size: u64,
    content: Option<Vec<u8>>,
    link: Option<PathBuf>,
}

impl Entry {
    fn is_file(&self) -> bool {
        self.mode & 0o170_000 == 0o100_000
    }
}

/// By the name below a directory, escaped; directories end in a slash.
type Listing = BTreeMap<String, Entry>;

/// The vectors of the directory.
pub(super) fn all() -> BTreeMap<String, Tree> {
    let parse = |(name, text): (String, String)| match toml::from_str(&text) {
        Ok(tree) => (name, tree),
        Err(error) => panic!("{name}: {error}"),
    };
    files("tree", ".toml").into_iter().map(parse).collect()
}

#[test]
fn watch_once_does_what_every_tree_vector_says() {
    let trees = all();
    let ran = run_all(&trees, run);
    assert_eq!(ran, trees.len());
}

fn run(name: &str, tree: &Tree) {
    let place = Place::new();
    for dir in ["in", "out", "elsewhere"] {
        fs::create_dir(place.path(dir)).unwrap();
    }
    let mut accepted = false;
    for (n, step) in tree.step.iter().enumerate() {
        let shown = format!("{name}, step {} ({})", n + 1, tree.comment);
        accepted |= run_step(&place, tree, step, &shown);
    }
    assert_eq!(accepted, tree.accepted, "{name}: accepted");
}

fn run_step(place: &Place, tree: &Tree, step: &Step, shown: &str) -> bool {
    for path in &step.remove {
        let path = place.path(name(&unescape(path)));
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    step.put.iter().for_each(|put| put.make(place));
    let keyring = place.path("keyring");
    fs::remove_file(&keyring).ok();
    if step.keyring != "absent" {
        fs::copy(directory().join("keyring").join(&step.keyring), &keyring).unwrap();
        fs::set_permissions(&keyring, Permissions::from_mode(0o600)).unwrap();
    }
    place.write("policy.toml", policy(tree, step));
    let before = ["in", "out", "elsewhere"].map(|dir| listing(&place.path(dir)));

    let old_items = items(place);

    let mut arguments = vec!["watch", "--policy", "policy.toml", "--once", "--log-format", "json"];
    arguments.extend(step.dry_run.then_some("--dry-run"));
    let ran = place.run(arguments);
    let told = outcome(&ran.stderr(), std::str::from_utf8(ran.stdout()).unwrap());
    let said = format!("{shown}\n{}\n{}", ran.stderr(), String::from_utf8_lossy(ran.stdout()));
    let user = rustix::process::geteuid().as_raw().to_string();
    let expected: BTreeSet<_> = step.outcome.iter().map(|line| line.replace("$UID", &user)).collect();
    assert_eq!(told, expected, "outcome of {said}");
    for words in &step.says {
        assert!(String::from_utf8_lossy(ran.stdout()).contains(words), "no {words:?} in {said}");
    }
    ran.exits(step.exit);

    let after = ["in", "out", "elsewhere"].map(|dir| listing(&place.path(dir)));
    let names = |listing: &Listing| listing.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&after[0]), step.r#in, "in, after {said}");
    assert_eq!(names(&after[1]), step.out, "out, after {said}");
    assert_eq!(after[2], before[2], "elsewhere, after {said}");
    check_watched(tree, step, &before[0], &after[0], &said);
    check_delivered(tree, step, &before, &after[1], &said);
    check_quarantine(place, step, &before[0], &old_items, &said);
    ["delivered", "signed", "signed and delivered", "valid", "adopted"]
        .iter()
        .any(|word| told.iter().any(|line| line.ends_with(&format!(": {word}"))))
}

/// What stays in the watched directory is as it was, but for signatures that were made.
fn check_watched(tree: &Tree, step: &Step, before: &Listing, after: &Listing, said: &str) {
    for (name, entry) in after {
        if step.signed.contains(name) {
            assert_ne!(Some(entry), before.get(name), "{name} is not new, after {said}");
            let payload = &after[name.strip_suffix(".sig").unwrap()];
            assert!(vouches(tree, name, entry, payload), "{name} does not verify, after {said}");
        } else {
            assert_eq!(Some(entry), before.get(name), "{name} changed, after {said}");
        }
    }
}

/// What is new in the destination is what lay in the watched directory, or a signature of it; the
/// rest is as it was.
fn check_delivered(tree: &Tree, step: &Step, before: &[Listing; 3], after: &Listing, said: &str) {
    let merged = tree.merged(step);
    let mode = merged.get("deliver_mode").and_then(toml::Value::as_str).unwrap_or("0644");
    let mode = u32::from_str_radix(mode, 8).unwrap();
    for (name, entry) in after {
        if let Some(old) = before[1].get(name) {
            assert_eq!(entry, old, "{name} at the destination changed, after {said}");
            continue;
        }
        if name.ends_with('/') {
            continue;
        }
        assert_eq!((entry.mode, &entry.link), (0o100_000 | mode, &None), "{name}, after {said}");
        match before[0].get(name) {
            Some(source) => assert_eq!(entry.content, source.content, "{name} was delivered, after {said}"),
            None => {
                let payload = &after[name.strip_suffix(".sig").unwrap()];
                assert!(vouches(tree, name, entry, payload), "{name} does not verify, after {said}");
            }
        }
    }
    for (name, old) in &before[1] {
        assert_eq!(after.get(name), Some(old), "{name} at the destination, after {said}");
    }
}

/// The items are these, and those of this run hold what lay in the watched directory.
fn check_quarantine(place: &Place, step: &Step, before: &Listing, old: &[PathBuf], said: &str) {
    let mut told = BTreeSet::new();
    for item in items(place) {
        let record: Value = serde_json::from_slice(&fs::read(item.join("record.json")).unwrap()).unwrap();
        let path = escape(&unhex(record["path_hex"].as_str().unwrap()));
        told.insert(format!("{path}: {}", record["reason"].as_str().unwrap()));
        if old.contains(&item) {
            continue;
        }
        let held = listing(&item);
        for (there, name) in [("payload", path.clone()), ("payload.sig", format!("{path}.sig"))] {
            let content = |entry: &Entry| (entry.size, entry.content.clone());
            let source = before.get(&name).filter(|entry| entry.is_file()).map(content);
            assert_eq!(held.get(there).map(content), source, "{there} of {name} in quarantine, after {said}");
        }
    }
    assert_eq!(told, step.quarantine, "quarantine, after {said}");
}

/// The folders in quarantine.
fn items(place: &Place) -> Vec<PathBuf> {
    let entries = fs::read_dir(place.path("q")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).filter(|path| path.join("record.json").exists()).collect()
}

/// Whether a signature that was made verifies, by the usual key for the usual context.
fn vouches(tree: &Tree, name: &str, signature: &Entry, payload: &Entry) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let keyring = dir.path().join("keyring");
    fs::copy(directory().join("keyring/public"), &keyring).unwrap();
    fs::set_permissions(&keyring, Permissions::from_mode(0o600)).unwrap();
    let payload_name = name.rsplit('/').next().and_then(|name| name.strip_suffix(".sig"));
    let file = encoded(&unescape(payload_name.unwrap()));
    let contexts =
        if tree.without.contains(&"context".to_owned()) { vec![] } else { vec![format!("file={file}")] };
    let vector = Vector {
        expect: String::new(),
        comment: String::new(),
        by: None,
        cause: None,
        says: None,
        keyring: public(),
        keyring_mode: 0o600,
        keys: vec!["local:demo".to_owned()],
        contexts,
        payload: Content::Hex(payload.content.clone().unwrap()),
        signature: Some(Content::Hex(signature.content.clone().unwrap())),
        tail: None,
    };
    judged(&vector, &keyring).0 == "valid"
}

/// A name as the daemon puts it into a context: `%`, control characters and what is no UTF-8 are
/// percent-encoded.
fn encoded(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '%' || c.is_control() {
                c.to_string().bytes().for_each(|byte| text.push_str(&format!("%{byte:02X}")));
            } else {
                text.push(c);
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("%{byte:02X}")));
    }
    text
}

impl Tree {
    /// The rule of a step.
    fn merged(&self, step: &Step) -> toml::Table {
        let usual = match self.mode.as_str() {
            "sign" => "key = \"local:demo\"",
            "verify" => {
                "trusted_keys = [\"local:demo\"]\ndeliver_to = \"out\"\non_invalid = \"quarantine\"\n\
                 on_missing = \"quarantine\"\ngrace = \"10ms\"\nsignature_timeout = \"10ms\""
            }
            other => panic!("no mode: {other}"),
        };
        let common = "path = \"in\"\nsettle = \"50ms\"\ncontext = { file = \"{name}\" }\n";
        let mut rule: toml::Table = toml::from_str(&format!("{common}{usual}")).unwrap();
        for word in ["name", "mode"] {
            rule.insert(word.to_owned(), self.mode.clone().into());
        }
        self.without.iter().for_each(|key| assert!(rule.remove(key).is_some(), "{key} is no usual key"));
        rule.extend(self.options.clone());
        rule.extend(step.options.clone());
        rule
    }
}

fn policy(tree: &Tree, step: &Step) -> String {
    let head =
        "allow_root = true\nlocal.keyring = \"keyring\"\nstate.dir = \"state\"\nquarantine.dir = \"q\"\n";
    let rules = toml::Table::from_iter([("watch".to_owned(), toml::Value::from(vec![tree.merged(step)]))]);
    format!("{head}{}", toml::to_string(&rules).unwrap())
}

impl Put {
    fn make(&self, place: &Place) {
        let at = place.path(name(&unescape(&self.path)));
        let beneath = at.parent().unwrap();
        fs::create_dir_all(beneath).unwrap();
        if let Some(content) = self.content() {
            fs::write(&at, content).unwrap();
        } else if let Some(size) = self.size {
            File::create(&at).unwrap().set_len(size).unwrap();
        } else if let Some(to) = &self.link {
            symlink(to, &at).unwrap();
        } else if let Some(to) = &self.hard_link {
            fs::hard_link(place.path(to), &at).unwrap();
        } else {
            match self.special.as_ref().unwrap() {
                Special::Directory => fs::create_dir(&at).unwrap(),
                Special::Fifo => {
                    let mode = rustix::fs::Mode::from_raw_mode(0o644);
                    rustix::fs::mknodat(rustix::fs::CWD, &at, rustix::fs::FileType::Fifo, mode, 0).unwrap();
                }
                Special::Socket => drop(UnixListener::bind(&at).unwrap()),
            }
        }
        if let Some(mode) = &self.mode {
            fs::set_permissions(&at, Permissions::from_mode(u32::from_str_radix(mode, 8).unwrap())).unwrap();
        }
    }

    fn content(&self) -> Option<Vec<u8>> {
        if let Some(text) = &self.text {
            return Some(unescape(text));
        }
        if let Some((byte, count)) = self.repeat {
            return Some(vec![byte; count]);
        }
        let of = unescape(self.signs.as_ref()?);
        let file = unescape(&self.path);
        let file = Path::new(name(&file)).file_name().unwrap().as_bytes();
        let bound = self.context.clone().unwrap_or_else(|| {
            let payload = file.strip_suffix(b".sig").unwrap_or(file);
            BTreeMap::from([("file".to_owned(), encoded(payload))])
        });
        let pairs: Vec<_> = bound.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let keyring = if self.keyring == "elsewhere" { "elsewhere" } else { "public" };
        Some(make::signature(&self.path, keyring, &self.key, &pairs, &of))
    }
}

/// What was told, as `NAME: what`: what went well from the log, and everything else from the
/// summary.
fn outcome(log: &str, summary: &str) -> BTreeSet<String> {
    let mut told = BTreeSet::new();
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}\n{log}"));
        let what = match event["message"].as_str().unwrap() {
            what @ ("delivered" | "signed" | "signed and delivered" | "valid") => what.to_owned(),
            "a valid signature was there; adopted" => "adopted".to_owned(),
            "superseded content is accepted again" => "superseded".to_owned(),
            "dry run: would" => format!("would {}", event["action"].as_str().unwrap()),
            _ => continue,
        };
        told.insert(format!("{}: {what}", event["file"].as_str().unwrap()));
    }
    for line in summary.lines().filter_map(|line| line.strip_prefix("  ")) {
        // Of what is held the cause, without words that name places.
        told.insert(match line.split_once(": left: held (") {
            Some((file, rest)) => format!("{file}: held: {}", rest.split(')').next().unwrap()),
            None if line.starts_with("left: ") => "rule: held".to_owned(),
            None => line.to_owned(),
        });
    }
    told
}

/// Everything in a directory but what the daemon keeps there for itself.
fn listing(root: &Path) -> Listing {
    let mut listing = Listing::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let mut name = escape(path.strip_prefix(root).unwrap().as_os_str().as_bytes());
            if metadata.is_dir() {
                name.push('/');
                open.push(path.clone());
            }
            let content = (metadata.is_file() && metadata.len() <= READ).then(|| fs::read(&path).unwrap());
            let size = if metadata.is_dir() { 0 } else { metadata.len() };
            let link = fs::read_link(&path).ok();
            listing.insert(name, Entry { mode: metadata.mode(), size, content, link });
        }
    }
    listing
}
