//! Records: what an earlier run, another version or a failing disk left behind is read without
//! harm, and what is written is read back byte for byte (P4).
//!
//! The first byte says what the rest is. 0: the `record.json` of an item in quarantine. 1: a pair
//! that is put away, and an item that a kill left unfinished. 2: claims that a kill left. 3:
//! decisions for state. 4: cells of state's tables. 5: places of state's file where other bytes
//! stand.

#![no_main]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use kms_sig::clock::FileTime;
use kms_sig::digest::Digest;
use kms_sig::fs::private::{LOCK, Private};
use kms_sig::fs::{Dir, Identity, RelPath};
use kms_sig::signature::{Format, Signature};
use kms_sig::signing::Reason;
use kms_sig::sink::PutAway;
use kms_sig::sink::directory::quarantine;
use kms_sig::sink::directory::quarantine::{Case, Record};
use kms_sig::sink::directory::removal;
use kms_sig::state::reason::DecisionReason;
use kms_sig::state::{Decision, Outcome, State, StateError, Version};
use kms_sig_fuzz::{Scratch, hex, wait};
use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};
use libfuzzer_sys::fuzz_target;
use rusqlite::Connection;
use rusqlite::types::Value;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(|| Scratch::new("records"));

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let mut input = Unstructured::new(rest);
    match kind {
        0 => check_record(rest),
        1 => drop(PutAwayCase::arbitrary(&mut input).map(|case| check_put_away(&case))),
        2 => drop(Claims::arbitrary(&mut input).map(|claims| check_claims(&claims))),
        3 => drop(Vec::arbitrary(&mut input).map(|rows: Vec<Row<'_>>| check_rows(&rows))),
        4 => drop(Vec::arbitrary(&mut input).map(|cells: Vec<Cells<'_>>| check_cells(&cells))),
        5 => drop(Vec::arbitrary(&mut input).map(|damages: Vec<Damage<'_>>| check_file(&damages))),
        _ => {}
    }
});

/// The folder of an item, named as they are.
const ITEM: &str = "20261124T003501Z-cf83e135-01234567";

/// A record that can be read is written as it was read, and its path is one that a payload can
/// have.
fn check_record(json: &[u8]) {
    let store = SCRATCH.directory("store");
    fs::DirBuilder::new().mode(0o700).create(store.join(ITEM)).expect("an item");
    SCRATCH.file(&format!("store/{ITEM}/record.json"), json);
    SCRATCH.file(&format!("store/{ITEM}/payload"), b"payload");
    let dir = Dir::open(&store).expect("the store");
    let record = quarantine::record_of(&dir, ITEM);
    assert_eq!(quarantine::ids(&dir).expect("a list"), [ITEM]);
    let Some(record) = record else { return };
    check_path_of(&record);
    let written = serde_json::to_vec(&record).expect("JSON");
    let again: Record = serde_json::from_slice(&written).expect("what was written");
    assert_eq!(serde_json::to_vec(&again).expect("JSON"), written);
}

fn check_path_of(record: &Record) {
    if let Some(path) = record.relative_path() {
        assert_eq!(hex(path.as_bytes()), record.path_hex.to_lowercase(), "the path, byte for byte");
    }
}

/// A pair with a name of any bytes, and what is found of its item afterwards.
#[derive(Debug, Arbitrary)]
struct PutAwayCase<'a> {
    path: Vec<&'a [u8]>,
    payload: &'a [u8],
    signature: Option<&'a [u8]>,
    /// Whether the sender changes the pair between the verdict and the move.
    meddles: bool,
    /// Whether the move of the signature was cut off by a kill.
    is_cut: bool,
    /// Whether something else has the signature's name when the daemon starts again.
    newcomer: Option<&'a [u8]>,
    restarts: bool,
}

fn check_put_away(case: &PutAwayCase<'_>) {
    let Some(path) = relative(&case.path) else { return };
    if path.name().len() > 251 {
        return; // its signature could have no name, so it is never judged
    }
    let (store, root) = (SCRATCH.directory("store"), SCRATCH.directory("root"));
    let signature_name = Format::Kms.suffix().signature_of(path.name());
    let (payload, signature) = (root.join(path.as_path()), root.join(path.parent()).join(&signature_name));
    if fs::create_dir_all(payload.parent().expect("a parent")).is_err()
        || fs::write(&payload, case.payload).is_err()
    {
        return; // one component is longer than a name may be
    }
    if case.signature.is_some_and(|bytes| fs::write(&signature, bytes).is_err()) {
        return;
    }
    let (store_dir, root_dir) = (Dir::open(&store).expect("the store"), Dir::open(&root).expect("the root"));
    let parent = root_dir.descend(path.parent()).expect("the payload's directory");
    let about = Case {
        reason: Reason::Mismatch,
        rule: "rule",
        keys: vec!["local:a".to_owned()],
        digest: Digest::of(case.payload),
        signature_digest: case.signature.map(Digest::of),
        lease_granted: true,
        path: &path,
        payload: parent.stat_of(path.name()).expect("statx").expect("the payload"),
        signature: parent.stat_of(&signature_name).expect("statx"),
        clue: None,
    };
    if case.meddles {
        fs::write(&payload, [case.payload, b"more"].concat()).expect("the sender's own file");
    }
    let before = contents(&[&store, &root]);
    let private = Arc::new(Private::new(root_dir));
    let done = quarantine::put_away(&store_dir, &private, &about).expect("room in memory");
    assert_eq!(contents(&[&store, &root]), before, "no file is lost or changed");
    let id = match done {
        PutAway::Changed => {
            assert!(case.meddles);
            assert!(quarantine::ids(&store_dir).expect("a list").is_empty());
            return assert!(payload.exists());
        }
        PutAway::Done(id) => id,
    };
    assert!(!case.meddles && !payload.exists() && !signature.exists());
    let record = quarantine::record_of(&store_dir, &id).expect("a record");
    assert_eq!(record.relative_path().as_ref(), Some(&path));
    assert_eq!((&record.id, &record.path_hex), (&id, &hex(path.as_bytes())));
    assert!(!record.path.contains(char::is_control));
    check_path_of(&record);

    // A kill between the two renames leaves the signature where it was.
    let moved_signature = store.join(&id).join("payload.sig");
    if case.is_cut && moved_signature.exists() {
        fs::rename(&moved_signature, &signature).expect("back");
        if let Some(bytes) = case.newcomer {
            fs::remove_file(&signature).expect("removed");
            fs::write(&signature, bytes).expect("the sender's own file");
        }
    }
    let before = contents(&[&store, &root]);
    quarantine::recover(&store_dir).expect("a store");
    if case.restarts {
        quarantine::recover(&store_dir).expect("a store");
    }
    assert_eq!(contents(&[&store, &root]), before, "no file is lost or changed");
    assert!(quarantine::record_of(&store_dir, &id).is_some(), "what is in quarantine stays on record");
}

/// A relative path of these components, if they make one that a file can have.
fn relative(components: &[&[u8]]) -> Option<RelPath> {
    let is_name = |name: &&[u8]| !name.is_empty() && name.len() <= 255 && !name.contains(&0);
    if components.len() > 4 || !components.iter().all(is_name) {
        return None;
    }
    RelPath::new(PathBuf::from(std::ffi::OsString::from_vec(components.join(&b'/'))))
}

/// How often each content lies below these directories; records are no one's content.
fn contents(roots: &[&Path]) -> BTreeMap<Vec<u8>, usize> {
    let mut found = BTreeMap::new();
    let mut open: Vec<PathBuf> = roots.iter().map(|root| root.to_path_buf()).collect();
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).expect("a directory").flatten() {
            if entry.file_type().expect("a type").is_dir() {
                open.push(entry.path());
            } else if entry.file_name() != "record.json" {
                *found.entry(fs::read(entry.path()).expect("a file")).or_default() += 1;
            }
        }
    }
    found
}

/// What lies in a watched directory after a kill: paths, and claims of paths.
#[derive(Debug, Arbitrary)]
struct Claims<'a> {
    lying: Vec<Vec<&'a [u8]>>,
    claimed: Vec<Claimed<'a>>,
}

/// One claim: its name, whether it is decided, and the path of a file in it.
#[derive(Debug, Arbitrary)]
struct Claimed<'a> {
    id: &'a [u8],
    is_decided: bool,
    path: Vec<&'a [u8]>,
}

/// What was decided is gone, everything else is still there, and nothing was replaced.
fn check_claims(claims: &Claims<'_>) {
    let root = SCRATCH.directory("root");
    let ours = root.join(".kms-sig");
    fs::DirBuilder::new().mode(0o700).create(&ours).expect("the folder of claims");
    let mut number = 0_u32;
    let mut place = |path: PathBuf| {
        number += 1;
        let content = number.to_be_bytes().to_vec();
        let made = !path.exists() && fs::create_dir_all(path.parent().expect("a parent")).is_ok();
        (made && fs::write(&path, &content).is_ok()).then_some((path, content))
    };
    let lying: Vec<_> = (claims.lying.iter().take(8))
        .filter_map(|path| relative(path))
        .filter(|path| !path.as_path().starts_with(".kms-sig"))
        .filter_map(|path| place(root.join(path.as_path())))
        .collect();
    let (mut decided, mut undecided) = (Vec::new(), Vec::new());
    for Claimed { id, is_decided, path } in claims.claimed.iter().take(8) {
        let (Some(id), Some(path)) = (relative(&[*id]), relative(path)) else { continue };
        if !id.parent().as_os_str().is_empty() {
            continue; // a claim of another name
        }
        if id.name() == LOCK || id.as_bytes().ends_with(b".swap") {
            continue; // no claim
        }
        let mut folder = ours.join(id.as_path()).into_os_string();
        if *is_decided {
            folder.push(".done");
        }
        let folder = PathBuf::from(folder);
        let is_decided = folder.as_os_str().as_bytes().ends_with(b".done");
        if let Some((_, content)) = place(folder.join(path.as_path())) {
            if is_decided { &mut decided } else { &mut undecided }.push((path, content));
        }
    }

    let private = Private::new(Dir::open(&root).expect("the root"));
    for _ in 0..2 {
        let resisting = removal::recover(&private).expect("the claims can be listed");
        let now = contents(&[&root]);
        for (path, content) in &lying {
            assert_eq!(&fs::read(path).expect("nobody claimed it"), content);
        }
        for (path, content) in &undecided {
            assert_eq!(now.get(content), Some(&1), "{path:?} is lost");
            let public = fs::read(root.join(path.as_path())).ok();
            let is_back = public.as_ref() == Some(content);
            let parent_is_there = root.join(path.parent()).is_dir();
            let is_taken = fs::symlink_metadata(root.join(path.as_path())).is_ok();
            assert!(
                is_back || is_taken || !parent_is_there || !resisting.is_empty(),
                "{path:?} is kept for nothing"
            );
        }
        if resisting.is_empty() {
            assert!(
                decided.iter().all(|(_, content)| !now.contains_key(content)),
                "a decided claim is still there"
            );
        }
    }
}

/// State that is forgotten at the end.
static STATE: LazyLock<State> =
    LazyLock::new(|| State::dry_run(&SCRATCH.directory("no-state")).expect("state in memory"));

/// One decision.
#[derive(Debug, Arbitrary)]
struct Row<'a> {
    path: &'a [u8],
    fingerprint: &'a str,
    payload: Option<[u64; 6]>,
    signature: Option<[u64; 6]>,
    outcome: u8,
    texts: [Option<&'a str>; 5],
    intends: &'a [u8],
}

fn identity(numbers: &[u64; 6]) -> Identity {
    let [ino, size, mtime, mnanos, ctime, cnanos] = *numbers;
    let time = |seconds: u64, nanos: u64| FileTime {
        seconds: seconds.cast_signed(),
        nanos: u32::try_from(nanos % 1_000_000_000).unwrap_or_default(),
    };
    Identity { dev: 0, ino, size, mtime: time(mtime, mnanos), ctime: time(ctime, cnanos) }
}

const OUTCOMES: [Outcome; 8] = [
    Outcome::Signing,
    Outcome::Signed,
    Outcome::Adopted,
    Outcome::Valid,
    Outcome::Delivered,
    Outcome::Invalid,
    Outcome::Quarantined,
    Outcome::Refused,
];

/// The last decision about a path comes back as it was; an intent is of these bytes at this path
/// and ends with the delivery.
fn check_rows(rows: &[Row<'_>]) {
    let mut last = BTreeMap::new();
    for row in rows.iter().take(8) {
        let Some(path) = RelPath::new(OsStr::from_bytes(row.path)) else { continue };
        let [reason, digest, signature_digest, key, item] = row.texts;
        let digest_of = |text: Option<&str>| text.map(|text| Digest::of(text.as_bytes()));
        let outcome = OUTCOMES[usize::from(row.outcome) % OUTCOMES.len()];
        let version = |numbers: &[u64; 6]| Version::from(&identity(numbers));
        let decision = Decision {
            rule: "rule".to_owned(),
            path: path.clone(),
            fingerprint: row.fingerprint.to_owned(),
            payload: row.payload.as_ref().map(version),
            signature: row.signature.as_ref().map(version),
            outcome,
            reason: reason.and_then(DecisionReason::from_record),
            digest: digest_of(digest),
            signature_digest: digest_of(signature_digest),
            key: key.map(str::to_owned),
            item: item.map(str::to_owned),
        };
        if let (Some(one), Some(other)) = (&row.payload, &row.signature) {
            assert_eq!(
                version(one) == version(other),
                identity(one) == identity(other),
                "a version tells files apart"
            );
        }
        if let Ok(signature) = Signature::parse(row.intends) {
            wait(STATE.add_pending_publish("rule", &path, &signature)).expect("state in memory");
            assert!(wait(STATE.is_pending_publish("rule", &path, &signature)).expect("state in memory"));
            let other = Signature::parse(&[row.intends, b"."].concat());
            if let Ok(other) = other {
                assert!(!wait(STATE.is_pending_publish("rule", &path, &other)).expect("state in memory"));
            }
            wait(STATE.record(Decision { outcome: Outcome::Delivered, ..decision.clone() }))
                .expect("state in memory");
            assert!(!wait(STATE.is_pending_publish("rule", &path, &signature)).expect("state in memory"));
        }
        wait(STATE.note(decision.clone())).expect("state in memory");
        last.insert(path, decision);
    }
    let paths: Vec<RelPath> = last.keys().cloned().collect();
    for (path, found) in wait(STATE.remembered_all("rule", paths)).expect("state in memory") {
        let (found, made) = (found.expect("a row"), last.get(&path).expect("asked for"));
        assert_eq!((found.fingerprint, found.outcome), (made.fingerprint.clone(), made.outcome));
        assert_eq!((found.payload, found.signature), (made.payload, made.signature));
        assert_eq!(found.reason, made.reason);
        let text = |digest: &Option<Digest>| digest.as_ref().map(Digest::to_string);
        assert_eq!(
            (text(&found.digest), text(&found.signature_digest)),
            (text(&made.digest), text(&made.signature_digest))
        );
    }
    assert!(wait(STATE.remembered("other", &RelPath::new("a").expect("a path"))).expect("state").is_none());
    let mut all = Vec::new();
    loop {
        let after = all.last().map_or(Vec::new(), |(path, _): &(Vec<u8>, _)| path.clone());
        let page = wait(STATE.decided_after("rule", &after)).expect("state in memory");
        if page.is_empty() {
            break;
        }
        all.extend(page);
    }
    assert_eq!(all.len(), last.len(), "one row for each path");
    wait(STATE.forget("rule", all)).expect("state in memory");
    assert!(wait(STATE.decided_after("rule", b"")).expect("state in memory").is_empty());
}

/// The bytes of a whole database with one row in each table.
static WHOLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let dir = SCRATCH.directory("template");
    let (state, _) = State::open(&dir).expect("a new state");
    let path = RelPath::new("path").expect("a path");
    let version = Version::from(&identity(&[1, 2, 3, 4, 5, 6]));
    let decision = Decision {
        rule: "rule".to_owned(),
        path: path.clone(),
        fingerprint: "fingerprint".to_owned(),
        payload: Some(version),
        signature: Some(version),
        outcome: Outcome::Quarantined,
        reason: Some(DecisionReason::Verdict(Reason::Mismatch)),
        digest: Some(Digest::of(b"payload")),
        signature_digest: Some(Digest::of(b"s")),
        key: Some("local:a".to_owned()),
        item: Some("item".to_owned()),
    };
    wait(state.record(decision)).expect("a row");
    wait(state.add_pending_publish("rule", &path, &Signature::parse(b"s").expect("a signature")))
        .expect("a row");
    wait(state.remember_delivered_version("rule", &path, &Digest::of(b"payload"))).expect("a row");
    drop(state);
    // The thread of the state closes the database, which brings all of it into the one file.
    while dir.join(format!("{}-wal", kms_sig::state::FILE)).exists() {
        std::thread::yield_now();
    }
    let mut bytes = fs::read(dir.join(kms_sig::state::FILE)).expect("the database");
    // Without a journal beside it (SQLite, "Database File Format", offsets 18 and 19).
    bytes.splice(18..20, [1, 1]);
    bytes
});

/// What another version or a bad disk may have left in the columns of a decision.
#[derive(Debug, Arbitrary)]
struct Cells<'a> {
    path: &'a [u8],
    blobs: [Option<&'a [u8]>; 2],
    texts: [&'a [u8]; 5],
    outcome: Option<u8>,
}

/// A row that cannot be understood is no decision, and keeps no other row from being read.
fn check_cells(rows: &[Cells<'_>]) {
    let file = SCRATCH.file("state.db", &WHOLE);
    let db = Connection::open(&file).expect("a database");
    db.execute_batch("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF; BEGIN").expect("a database");
    let mut paths = vec![RelPath::new("path").expect("a path")];
    for row in rows.iter().take(4) {
        let Some(path) = RelPath::new(OsStr::from_bytes(row.path)).filter(|path| path.as_bytes() != b"path")
        else {
            continue;
        };
        let blob = |bytes: Option<&[u8]>| bytes.map_or(Value::Null, |bytes| Value::Blob(bytes.to_vec()));
        let text = |bytes: &[u8]| Value::Blob(bytes.to_vec());
        let [fingerprint, word, reason, digest, signature_digest] = row.texts;
        let word = match row.outcome {
            Some(index) => OUTCOMES[usize::from(index) % OUTCOMES.len()].as_str().as_bytes(),
            None => word,
        };
        // SQLite does not look whether TEXT is UTF-8.
        db.execute(
            "INSERT OR REPLACE INTO decided VALUES ('rule', ?1, CAST(?2 AS TEXT), ?3, ?4, CAST(?5 AS TEXT),
             CAST(?6 AS TEXT), CAST(?6 AS TEXT), CAST(?7 AS TEXT), CAST(?8 AS TEXT))",
            [
                Value::Blob(path.as_bytes().to_vec()),
                text(fingerprint),
                blob(row.blobs[0]),
                blob(row.blobs[1]),
                text(word),
                text(reason),
                text(digest),
                text(signature_digest),
            ],
        )
        .expect("a row");
        paths.push(path);
    }
    db.execute_batch("COMMIT").expect("a database");
    drop(db);
    let state = State::dry_run(SCRATCH.path()).expect("a whole database");
    let found = wait(state.remembered_all("rule", paths)).expect("rows are no trouble");
    let (_, first) = found.first().expect("the first path asked for");
    assert!(first.is_some(), "one row hides another");
    fs::remove_file(file).expect("our file");
}

/// Other bytes at a place of the file.
#[derive(Debug, Arbitrary)]
struct Damage<'a> {
    at: u16,
    bytes: &'a [u8],
}

/// A database that was damaged opens, is called damaged, or is of another version; and what it says
/// then is no more than a decision.
fn check_file(damages: &[Damage<'_>]) {
    let file = SCRATCH.file("state.db", &WHOLE);
    let db = fs::File::options().write(true).open(&file).expect("our file");
    let len = u64::try_from(WHOLE.len()).expect("a length");
    for Damage { at, bytes } in damages.iter().take(8) {
        db.write_all_at(bytes, u64::from(*at) % len).expect("room in memory");
    }
    drop(db);
    match State::dry_run(SCRATCH.path()) {
        Err(StateError::Broken(..) | StateError::Version(..)) => {}
        Err(error @ (StateError::Full(_) | StateError::Busy(_))) => panic!("{error}"),
        Ok(state) => {
            let path = RelPath::new("path").expect("a path");
            // A schema that was damaged and is still whole can lack a table; what it says is said.
            drop(wait(state.remembered("rule", &path)));
            drop(wait(state.is_superseded("rule", &path, &Digest::of(b"payload"))));
            drop(wait(state.unrecorded_items(vec!["item".to_owned()])));
        }
    }
    fs::remove_file(file).unwrap_or_default();
}
