//! The record as a database keeps it: tampering, crashes, retention, migration, and writers side by
//! side.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, params};
use tempfile::TempDir;

use super::audit::{Break, Unbroken};
use super::error::state_error;
use super::ledger::{self, Pruned, Read, Seal};
use super::link::{Head, Row};
use super::reader::{Expected, Filter, History, HistoryError, JudgedFilter, NameFilter};
use super::reason::sentences::tests::every_sentence;
use super::reason::{DecisionReason, RefusalReason};
use super::thread::whole;
use super::*;
use crate::clock;
use crate::digest::Digest;
use crate::fs::{RelPath, Unfit};
use crate::signature::Signature;
use crate::signing::Reason;

/// Puts decisions on record as a command does.
fn put_on_record(dir: &Path, decisions: &[Decision]) -> Result<(), StateError> {
    Journal::open(dir)?.put(|db| {
        decisions.iter().try_for_each(|decision| ledger::append(db, clock::timestamp(), decision).map(drop))
    })
}

fn decision(file: impl AsRef<str>, outcome: Outcome) -> Decision {
    Decision {
        rule: "downloads".into(),
        path: RelPath::new(file.as_ref()).unwrap(),
        fingerprint: "f".into(),
        payload: None,
        signature: None,
        outcome,
        reason: (outcome == Outcome::Quarantined).then_some(DecisionReason::Verdict(Reason::Mismatch)),
        digest: Some(Digest::of(b"d")),
        signature_digest: None,
        key: Some("local:k".into()),
        item: (outcome == Outcome::Quarantined).then(|| format!("item-{}", file.as_ref())),
    }
}

/// A record of `rows`, one a day from 2026-01-01 on. The last is sealed.
fn record(rows: usize) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let db = db(dir.path());
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut head = None;
    for n in 1..=rows {
        let outcome = if n % 3 == 0 { Outcome::Quarantined } else { Outcome::Delivered };
        head = Some(ledger::append(&db, day(n), &decision(format!("f{n}"), outcome)).unwrap());
    }
    if let Some(Head { point, .. }) = head {
        let seal = Seal { at: day(rows), point, key: "local:s".into(), ciphertext: b"sealed".to_vec() };
        ledger::keep_seal(&db, &seal).unwrap();
    }
    db.execute_batch("COMMIT").unwrap();
    dir
}

fn day(n: usize) -> String {
    format!("2026-01-{n:02}T00:00:00.000Z")
}

/// The database, as a daemon opens it.
fn db(dir: &Path) -> Connection {
    schema::open(&dir.join(FILE)).unwrap_or_else(|e| panic!("{}", e.into_state_error(dir)))
}

fn verify(dir: &Path) -> Result<Unbroken, Break> {
    History::open(dir).unwrap().verify(Vec::new()).unwrap()
}

fn verify_with(dir: &Path, Head { chain, point }: Head) -> Result<Unbroken, Break> {
    let expected = Expected { chain: Some(chain), point, whose: "a kept head".into() };
    History::open(dir).unwrap().verify(vec![expected]).unwrap()
}

fn rows(dir: &Path, filter: &Filter) -> Vec<Row> {
    let mut rows = Vec::new();
    let each = |read: Read| {
        rows.push(read.unwrap().0);
        Ok::<_, HistoryError>(())
    };
    History::open(dir).unwrap().each(filter, each).unwrap();
    rows
}

fn tampered(sql: &str) -> Break {
    let dir = record(9);
    db(dir.path()).execute_batch(sql).unwrap();
    verify(dir.path()).expect_err(sql)
}

// Tampering

#[test]
fn each_way_of_tampering_is_found_at_its_row() {
    let link = "'0123456789abcdef0123456789abcdef'";
    for (sql, row) in [
        ("UPDATE history SET outcome = 'invalid' WHERE seq = 4", 4),
        ("UPDATE history SET path = CAST(x'6634' || x'00' AS BLOB) WHERE seq = 4", 4),
        ("UPDATE history SET reason = '' WHERE seq = 4", 4),
        ("UPDATE history SET key = NULL WHERE seq = 4", 4),
        ("UPDATE history SET at = (SELECT at FROM history WHERE seq = 5) WHERE seq = 4", 4),
        (&format!("UPDATE history SET hash = CAST({link} AS BLOB) WHERE seq = 4"), 4),
        ("DELETE FROM history WHERE seq = 4", 4),
        ("DELETE FROM history WHERE seq > 6", 7),
        ("DELETE FROM history WHERE seq = 1", 1),
        ("DELETE FROM history", 1),
        ("UPDATE history SET seq = 100 WHERE seq = 4; UPDATE history SET seq = 4 WHERE seq = 5;
          UPDATE history SET seq = 5 WHERE seq = 100", 4),
        ("UPDATE history SET seq = seq + 100 WHERE seq > 3; UPDATE history SET seq = seq - 99 WHERE seq > 100;
          INSERT INTO history SELECT 4, at, rule, path, outcome, reason, digest, signature_digest, key, item, hash
          FROM history WHERE seq = 3; UPDATE chain SET head_seq = 10; DELETE FROM seal", 4),
        ("UPDATE history SET seq = -seq WHERE seq = 1", -1),
        ("INSERT INTO history SELECT 10, at, rule, path, outcome, reason, digest, signature_digest, key, item, hash
          FROM history WHERE seq = 9", 10),
        ("UPDATE chain SET head_seq = 8; DELETE FROM seal", 9),
        ("UPDATE chain SET head_seq = 10", 10),
        (&format!("UPDATE chain SET head_hash = CAST({link} AS BLOB)"), 9),
        ("UPDATE chain SET pruned_seq = 3", 1),
        ("UPDATE history SET rule = CAST(x'ff' AS TEXT) WHERE seq = 4", 4),
        ("UPDATE history SET hash = x'00' WHERE seq = 4", 4),
    ] {
        assert_eq!(tampered(sql).row(), Some(row), "{sql}");
    }
    // The beginning is no row.
    for sql in [
        "UPDATE chain SET nonce = zeroblob(32)",
        "UPDATE chain SET begun = '2020-01-01T00:00:00.000Z'",
        "UPDATE chain SET id = zeroblob(32)",
        "UPDATE chain SET pruned_hash = zeroblob(32)",
    ] {
        assert!(matches!(tampered(sql), Break::Genesis | Break::Checkpoint { .. }), "{sql}");
    }
    for sql in ["UPDATE chain SET nonce = x''", "DELETE FROM chain"] {
        assert!(matches!(tampered(sql), Break::Damaged { .. }), "{sql}");
    }
}

#[test]
fn a_seal_that_is_not_on_the_chain_is_found() {
    for sql in ["UPDATE seal SET hash = zeroblob(32)", "UPDATE seal SET seq = 8", "UPDATE seal SET seq = 10"]
    {
        assert!(matches!(tampered(sql), Break::Foreign { .. }), "{sql}");
    }
}

#[test]
fn what_was_rolled_back_rewritten_or_replaced_as_a_whole_is_found_by_a_kept_head() {
    let dir = record(9);
    let path = dir.path().join(FILE);
    let head = |dir: &Path| verify(dir).unwrap().head;
    let early = head(dir.path());
    let copy = fs::read(&path).unwrap();
    put_on_record(dir.path(), &[decision("later", Outcome::Delivered)]).unwrap();
    let late = head(dir.path());
    assert_eq!(
        verify_with(dir.path(), early).unwrap().found,
        2,
        "a head of before is on the chain, and a seal"
    );
    verify_with(dir.path(), late).unwrap();

    // An older copy is a good record, and not the one that was.
    let old = tempfile::tempdir().unwrap();
    write(&old.path().join(FILE), &copy);
    verify(old.path()).unwrap();
    verify_with(old.path(), early).unwrap();
    assert!(verify_with(old.path(), late).unwrap_err().to_string().contains("rolled back"));

    // And so is one that goes on otherwise from there.
    put_on_record(old.path(), &[decision("other", Outcome::Delivered)]).unwrap();
    verify(old.path()).unwrap();
    assert!(verify_with(old.path(), late).unwrap_err().to_string().contains("rewritten"));

    // Lost, and begun anew with the same decisions.
    let new = record(9);
    verify(new.path()).unwrap();
    assert!(verify_with(new.path(), early).unwrap_err().to_string().contains("that chain is"));
}

#[test]
fn changing_any_byte_of_the_file_never_yields_another_valid_record() {
    let dir = record(7);
    let good = verify(dir.path()).unwrap();
    let all = rows(dir.path(), &Filter::default());
    let file = fs::read(dir.path().join(FILE)).unwrap();
    let (mut found, mut tried) = (0, 0);
    let victim = tempfile::tempdir().unwrap();
    // A stride that meets every place of a page, but not every page each time.
    for at in (0..file.len()).step_by(29) {
        let mut file = file.clone();
        file[at] ^= 0x11;
        write(&victim.path().join(FILE), &file);
        tried += 1;
        let Ok(history) = History::open(victim.path()) else {
            found += 1;
            continue;
        };
        match history.verify(Vec::new()) {
            Ok(Ok(unbroken)) => {
                // A byte that says nothing, or something about another table.
                assert_eq!((unbroken.head, unbroken.rows), (good.head, good.rows), "byte {at}");
                assert_eq!(rows(victim.path(), &Filter::default()), all, "byte {at}");
            }
            Ok(Err(_)) | Err(_) => found += 1,
        }
    }
    assert!(found > 20 && found < tried, "{found} of {tried}");
}

fn write(path: &Path, bytes: &[u8]) {
    use std::io::Write as _;
    for suffix in ["-wal", "-shm"] {
        fs::remove_file(format!("{}{suffix}", path.display())).ok();
    }
    fs::File::create(path).unwrap().write_all(bytes).unwrap();
}

// Crashes

/// Every state that the disk can be in when the process is killed, or the power fails, while the
/// log grows: the database with each beginning of its log. Calls `check` with a directory in each
/// of these states.
fn at_each_crash(dir: &Path, mut check: impl FnMut(&Path)) {
    const FRAME: usize = 24 + 4096;
    let file = fs::read(dir.join(FILE)).unwrap();
    let log = fs::read(dir.join("state.db-wal")).unwrap();
    assert!(log.len() > 32 + 4 * FRAME, "the log is still there");
    for frames in 0..=(log.len() - 32) / FRAME {
        for torn in [0, 1000] {
            let len = (32 + frames * FRAME + torn).min(log.len());
            let crashed = tempfile::tempdir().unwrap();
            write(&crashed.path().join(FILE), &file);
            write(&crashed.path().join("state.db-wal"), &log[..len]);
            check(crashed.path());
        }
    }
}

#[tokio::test]
async fn c_a_crash_in_the_middle_of_commits_or_of_pruning_leaves_an_unbroken_record() {
    let dir = record(12);
    let (state, found) = State::open(dir.path()).unwrap();
    assert_eq!(found, Found::Whole);
    for group in 0..4 {
        let decisions = (0..5).map(|n| decision(format!("g{group}-{n}"), Outcome::Delivered)).collect();
        state.record_all(decisions).await.unwrap();
        assert_eq!(state.prune(day(10), 3).await.unwrap(), Pruned::Rows(if group < 3 { 3 } else { 0 }));
    }
    let mut seen = std::collections::BTreeSet::new();
    at_each_crash(dir.path(), |crashed| {
        let unbroken = verify(crashed).unwrap();
        assert_eq!((unbroken.head.point.seq - 12) % 5, 0, "no part of a group");
        seen.insert((unbroken.checkpoint.seq, unbroken.head.point.seq));
        // And it goes on from there.
        let (state, found) = State::open(crashed).unwrap();
        assert_eq!(found, Found::Whole);
        drop(state);
        put_on_record(crashed, &[decision("after", Outcome::Delivered)]).unwrap();
        assert_eq!(verify(crashed).unwrap().head.point.seq, unbroken.head.point.seq + 1);
    });
    let steps = [(0, 12), (0, 17), (3, 17), (3, 22), (6, 22), (6, 27), (9, 27), (9, 32)];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), steps);
}

#[tokio::test]
async fn a_failed_request_leaves_nothing_and_fails_no_other() {
    let dir = record(3);
    let (state, _) = State::open(dir.path()).unwrap();
    let failing = state.call(|db| {
        whole(db, |db| {
            ledger::append(db, clock::timestamp(), &decision("half", Outcome::Delivered))?;
            db.execute_batch("INSERT INTO chain SELECT * FROM chain")
        })
    });
    let good = state.record(decision("good", Outcome::Delivered));
    let (failed, recorded) = tokio::join!(failing, good);
    assert!(failed.is_err());
    recorded.unwrap();
    assert_eq!(verify(dir.path()).unwrap().rows, 4);
    assert_eq!(rows(dir.path(), &Filter::default())[3].path, b"good");
}

#[test]
fn a_database_locked_by_another_process_is_a_hold() {
    let dir = record(1);
    let (one, two) = (db(dir.path()), db(dir.path()));
    two.busy_timeout(Duration::ZERO).unwrap();
    one.execute_batch("BEGIN IMMEDIATE").unwrap();
    let error = two.execute_batch("BEGIN IMMEDIATE").unwrap_err();
    let error = state_error(dir.path(), &error);
    assert!(matches!(error, StateError::Busy(_)), "{error}");
}

#[tokio::test]
async fn nobody_else_writes_between_what_is_read_and_what_is_written() {
    let dir = record(1);
    let (state, _) = State::open(dir.path()).unwrap();
    let other = db(dir.path());
    other.busy_timeout(Duration::ZERO).unwrap();
    let kept_out = state.call(move |_| Ok(other.execute_batch("BEGIN IMMEDIATE").is_err()));
    assert!(kept_out.await.unwrap(), "before anything was written");
}

// Side by side

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_and_commands_append_to_one_chain() {
    let dir = record(0);
    let (state, _) = State::open(dir.path()).unwrap();
    std::thread::scope(|scope| {
        for command in 0..3 {
            let dir = dir.path();
            scope.spawn(move || {
                for n in 0..20 {
                    put_on_record(dir, &[decision(format!("c{command}-{n}"), Outcome::Quarantined)]).unwrap();
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..20 {
                verify(dir.path()).unwrap(); // a reader always sees a whole record
            }
        });
        tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(async {
                for n in 0..60 {
                    state.record(decision(format!("d{n}"), Outcome::Delivered)).await.unwrap();
                }
            });
        });
    });
    assert_eq!(verify(dir.path()).unwrap().rows, 120);
}

#[test]
fn a_command_makes_no_state_where_there_is_none() {
    let dir = tempfile::tempdir().unwrap();
    put_on_record(dir.path(), &[decision("f", Outcome::Delivered)]).unwrap_err();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    assert!(matches!(History::open(dir.path()), Err(HistoryError::Missing(_))));
}

// Retention

#[tokio::test]
async fn retention_leaves_a_checkpoint_that_the_chain_continues_from() {
    let dir = record(9);
    let before = verify(dir.path()).unwrap().head;
    let (state, _) = State::open(dir.path()).unwrap();
    assert_eq!(state.prune(day(1), 100).await.unwrap(), Pruned::Rows(0));
    assert_eq!(state.prune(day(6), 2).await.unwrap(), Pruned::Rows(2));
    assert_eq!(state.prune(day(6), 100).await.unwrap(), Pruned::Rows(3));
    assert_eq!(state.prune(day(6), 100).await.unwrap(), Pruned::Rows(0));
    let unbroken = verify_with(dir.path(), before).unwrap();
    assert_eq!((unbroken.checkpoint.seq, unbroken.rows, unbroken.head), (5, 4, before));
    state.record(decision("new", Outcome::Delivered)).await.unwrap();
    assert_eq!(verify(dir.path()).unwrap().rows, 5);

    // What retention removed is not put on record anew, until it has left the store.
    let ids = || ["item-f3", "item-f6", "item-new"].map(str::to_owned).to_vec();
    assert_eq!(state.unrecorded_items(ids()).await.unwrap(), ["item-new"]);
    state.forget_items(ids()).await.unwrap();
    assert_eq!(state.unrecorded_items(ids()).await.unwrap(), ["item-new"]);
    state.forget_items(Vec::new()).await.unwrap();
    assert_eq!(state.unrecorded_items(ids()).await.unwrap(), ["item-f3", "item-new"]);

    // The head stays, however old.
    assert_eq!(state.prune("9999".into(), 100).await.unwrap(), Pruned::Rows(4));
    assert_eq!(verify(dir.path()).unwrap().rows, 1);
}

#[tokio::test]
async fn retention_does_not_remove_the_traces_of_tampering() {
    let dir = record(9);
    db(dir.path()).execute_batch("UPDATE history SET rule = 'x' WHERE seq = 4").unwrap();
    let (state, _) = State::open(dir.path()).unwrap();
    assert_eq!(state.prune(day(8), 100).await.unwrap(), Pruned::Broken(Break::Changed(4)));
    assert_eq!(verify(dir.path()), Err(Break::Changed(4)));
}

#[tokio::test]
async fn rows_of_a_clock_that_went_back_stay_with_those_before_them() {
    let dir = record(3);
    let late = db(dir.path());
    late.execute_batch("BEGIN IMMEDIATE").unwrap();
    for at in [day(20), day(2), day(21)] {
        ledger::append(&late, at, &decision("f", Outcome::Delivered)).unwrap();
    }
    late.execute_batch("COMMIT").unwrap();
    let (state, _) = State::open(dir.path()).unwrap();
    assert_eq!(state.prune(day(10), 100).await.unwrap(), Pruned::Rows(3));
    assert_eq!(verify(dir.path()).unwrap().rows, 3);
}

// Seals

#[tokio::test]
async fn a_head_is_sealed_when_there_is_a_new_one() {
    let dir = record(0);
    let (state, _) = State::open(dir.path()).unwrap();
    assert_eq!(state.unsealed().await.unwrap(), None, "nothing was decided");
    state.record(decision("f", Outcome::Delivered)).await.unwrap();
    let head = state.unsealed().await.unwrap().unwrap();
    let seal = Seal { at: day(1), point: head.point, key: "k".into(), ciphertext: vec![1] };
    state.keep_seal(seal.clone()).await.unwrap();
    assert_eq!(state.unsealed().await.unwrap(), None);
    assert_eq!(History::open(dir.path()).unwrap().seals().unwrap(), [seal]);
    state.record(decision("g", Outcome::Delivered)).await.unwrap();
    assert_eq!(state.unsealed().await.unwrap().unwrap().point.seq, 2);
}

// Versions

/// State as version 0.1.0 left it, before the record was chained.
const VERSION_1: &str = "
    CREATE TABLE decided (
        rule TEXT NOT NULL, path BLOB NOT NULL, fingerprint TEXT NOT NULL, payload BLOB, signature BLOB,
        outcome TEXT NOT NULL, reason TEXT, digest TEXT, signature_digest TEXT, PRIMARY KEY (rule, path)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE intent (
        rule TEXT NOT NULL, path BLOB NOT NULL, signature_digest TEXT NOT NULL,
        PRIMARY KEY (rule, path, signature_digest)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE edition (
        id INTEGER PRIMARY KEY, rule TEXT NOT NULL, path BLOB NOT NULL, digest TEXT NOT NULL,
        UNIQUE (rule, path, digest)
    ) STRICT;
    CREATE TABLE history (
        id INTEGER PRIMARY KEY, at TEXT NOT NULL, rule TEXT NOT NULL, path BLOB NOT NULL, outcome TEXT NOT NULL,
        reason TEXT, digest TEXT, signature_digest TEXT, key TEXT, item TEXT
    ) STRICT;
    CREATE INDEX history_item ON history (item) WHERE item IS NOT NULL;
    INSERT INTO decided VALUES ('sign', x'66ff', 'p', NULL, NULL, 'signed', NULL, NULL, NULL);
    INSERT INTO intent VALUES ('sign', x'66', 's');
    INSERT INTO edition VALUES (1, 'verify', x'66', 'd');
    INSERT INTO history VALUES
        (1, '2026-01-01T00:00:00.000Z', 'sign', x'66ff', 'signed', NULL, 'd', 's', 'local:k', NULL),
        (2, '2026-01-02T00:00:00.000Z', 'verify', x'0a', 'quarantined', 'missing', 'd', NULL, NULL, 'the-item'),
        (7, '2026-01-03T00:00:00.000Z', 'sign', x'67', 'adopted', NULL, 'd', 's', 'local:k', NULL);
    PRAGMA user_version = 1;
";

fn version_1(more: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let db = Connection::open(dir.path().join(FILE)).unwrap();
    db.execute_batch(&format!("PRAGMA journal_mode = WAL; {VERSION_1} {more}")).unwrap();
    dir
}

#[tokio::test]
async fn o10_state_of_the_version_before_is_taken_over_and_chained() {
    let dir = version_1("");
    assert!(matches!(History::open(dir.path()), Err(HistoryError::Earlier(_))), "a reader changes nothing");
    put_on_record(dir.path(), &[]).expect_err("nor does a command");
    let (state, found) = State::open(dir.path()).unwrap();
    assert_eq!(found, Found::Whole);
    assert_eq!(verify(dir.path()).unwrap().rows, 3);
    let taken = rows(dir.path(), &Filter::default());
    assert_eq!(taken.iter().map(|row| row.seq).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((taken[0].path.as_slice(), taken[2].at.as_str()), (&b"f\xff"[..], "2026-01-03T00:00:00.000Z"));
    assert_eq!(taken[1].item.as_deref(), Some("the-item"));
    assert!(state.unrecorded_items(vec!["the-item".into()]).await.unwrap().is_empty());
    use std::os::unix::ffi::OsStrExt as _;
    let path = RelPath::new(std::ffi::OsStr::from_bytes(b"f\xff")).unwrap();
    assert_eq!(state.remembered("sign", &path).await.unwrap().unwrap().outcome, Outcome::Signed);
    assert!(state.is_superseded("verify", &RelPath::new("f").unwrap(), &Digest::of(b"d")).await.is_ok());
    state.record(decision("f", Outcome::Delivered)).await.unwrap();
    assert_eq!(verify(dir.path()).unwrap().rows, 4);
    let (state, _) = State::open(dir.path()).unwrap();
    drop(state);
    assert_eq!(verify(dir.path()).unwrap().rows, 4, "once");
}

#[test]
fn o10_a_crash_while_it_is_taken_over_leaves_one_version_or_the_other() {
    let dir = version_1("");
    let keeper = Connection::open(dir.path().join(FILE)).unwrap();
    keeper.query_row("SELECT count(*) FROM history", [], |_| Ok(())).unwrap(); // keeps the log
    let migrated = db(dir.path());
    let mut versions = std::collections::BTreeSet::new();
    at_each_crash(dir.path(), |crashed| {
        let version = schema::version(&Connection::open(crashed.join(FILE)).unwrap()).unwrap();
        versions.insert(version);
        drop(db(crashed));
        assert_eq!(verify(crashed).unwrap().rows, 3);
    });
    assert_eq!(versions.into_iter().collect::<Vec<_>>(), [1, schema::VERSION]);
    drop((keeper, migrated));
}

/// What version 2 and, but for the record, version 1 had where version 3 has codes.
const VERSION_2_DECIDED: &str = "
    DROP TABLE decided;
    CREATE TABLE decided (
        rule TEXT NOT NULL, path BLOB NOT NULL, fingerprint TEXT NOT NULL, payload BLOB, signature BLOB,
        outcome TEXT NOT NULL, reason TEXT, digest TEXT, signature_digest TEXT, PRIMARY KEY (rule, path)
    ) STRICT, WITHOUT ROWID;
    PRAGMA user_version = 2;
";

#[tokio::test]
async fn o10_each_sentence_of_an_earlier_version_becomes_its_code_and_any_other_none() {
    let version_2 = record(3);
    db(version_2.path()).execute_batch(VERSION_2_DECIDED).unwrap();
    for dir in [version_2, version_1("")] {
        let kept = if version(dir.path()) == 1 { Vec::new() } else { rows(dir.path(), &Filter::default()) };
        let before = Connection::open(dir.path().join(FILE)).unwrap();
        let put = |name: &str, outcome: Outcome, reason: Option<&str>| {
            let row = params!["r", name.as_bytes(), [7_u8; 40], outcome.as_str(), reason];
            before
                .execute("INSERT INTO decided VALUES (?1, ?2, 'f', ?3, NULL, ?4, ?5, NULL, NULL)", row)
                .unwrap();
        };
        let refused = every_sentence();
        for (n, (sentence, _)) in refused.iter().enumerate() {
            put(&format!("refused-{n}"), Outcome::Refused, Some(sentence));
        }
        put("other", Outcome::Refused, Some("words that nobody wrote"));
        put("none", Outcome::Refused, None);
        put("bad", Outcome::Invalid, Some("wrong-key"));
        put("good", Outcome::Valid, None);
        before
            .execute_batch(
                "INSERT INTO decided VALUES ('r', x'ff', 'f', NULL, NULL, 'refused', CAST(x'ff' AS TEXT), NULL, NULL)",
            )
            .unwrap();
        let path = |name: &str| RelPath::new(name).unwrap();
        let reasons = |found: &dyn Fn(&RelPath) -> Option<Remembered>| {
            let reason = |name: &str| found(&path(name)).unwrap().reason;
            for (n, (sentence, expected)) in refused.iter().enumerate() {
                let expected = Some(DecisionReason::Refusal(expected.clone()));
                assert_eq!(reason(&format!("refused-{n}")), expected, "{sentence}");
            }
            assert_eq!((reason("other"), reason("none"), reason("good")), (None, None, None));
            assert_eq!(reason("bad"), Some(DecisionReason::Verdict(Reason::WrongKey)));
            assert_eq!(found(&path("good")).unwrap().payload, Some(Version([7; 40])));
        };
        // Who only reads finds the same before anybody has migrated it.
        let decisions = reader::Decisions::open(dir.path()).unwrap().unwrap();
        reasons(&|path| decisions.remembered("r", path).unwrap());
        drop((decisions, before));
        drop(State::open(dir.path()).unwrap());
        let decisions = reader::Decisions::open(dir.path()).unwrap().unwrap();
        reasons(&|path| decisions.remembered("r", path).unwrap());
        assert_eq!(version(dir.path()), schema::VERSION);
        if !kept.is_empty() {
            assert_eq!(rows(dir.path(), &Filter::default()), kept, "the record stays as it is");
        }
        verify(dir.path()).unwrap();
    }
}

#[tokio::test]
async fn o10_state_of_version_3_gets_its_indexes_and_what_it_remembers_is_found_by_them() {
    let dir = record(3);
    let signature = Signature::parse(&[7; 20]).unwrap();
    let signed = |path: &str| Decision {
        payload: Some(Version([path.len().try_into().unwrap(); 40])),
        signature_digest: Some(signature.digest()),
        ..decision(path, Outcome::Signed)
    };
    let unfit = DecisionReason::Refusal(RefusalReason::Payload(Unfit::Links { links: 2, max: 1 }));
    let refused = Decision { reason: Some(unfit.clone()), ..decision("linked", Outcome::Refused) };
    let (state, _) = State::open(dir.path()).unwrap();
    state.record_all(vec![signed("a"), signed("bb"), refused]).await.unwrap();
    drop(state);
    let without = "DROP INDEX decided_signature; DROP INDEX decided_inode; DROP INDEX decided_refused;
         DROP INDEX history_signature; PRAGMA user_version = 3;";
    db(dir.path()).execute_batch(without).unwrap();
    assert_eq!(version(dir.path()), 3);
    let (state, _) = State::open(dir.path()).unwrap();
    assert_eq!(version(dir.path()), schema::VERSION);
    let rule = decision("a", Outcome::Signed).rule;
    let names = |found: Vec<(RelPath, Remembered)>| -> Vec<_> {
        found.into_iter().map(|(path, _)| path.as_path().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(state.signed_with(&rule, &signature).await.unwrap()), ["a", "bb"]);
    let mut renamed = [1; 40];
    renamed[39] = 9;
    let nothing = RelPath::new("nothing").unwrap();
    assert_eq!(
        names(state.remembered_and_moved(&rule, &nothing, Some(Version(renamed))).await.unwrap().1),
        ["a"]
    );
    assert!(state.is_signature_on_record(&rule, &signature).await.unwrap());
    assert!(!state.is_signature_on_record("other", &signature).await.unwrap());
    let DecisionReason::Refusal(reason) = unfit else { panic!() };
    assert_eq!(state.refusals(&rule).await.unwrap(), [(reason, 1)]);
    assert_eq!(names(state.refused_after(&rule, &[], None, 9).await.unwrap()), ["linked"]);
    let path = RelPath::new("linked").unwrap();
    let payload = state.remembered(&rule, &path).await.unwrap().unwrap().payload;
    for (version, left) in [(Some(Version([9; 40])), 1), (payload, 0)] {
        state.forget_refused(&rule, vec![(path.clone(), version)]).await.unwrap();
        assert_eq!(state.refusals(&rule).await.unwrap().len(), left);
    }
    drop(state);
    // Found by their index, and not by reading all rows.
    let db = db(dir.path());
    let queries = [
        (super::memory::SIGNED_WITH, "decided_signature"),
        (super::memory::SIGNED_BEFORE_A_MOVE, "decided_inode"),
        (super::memory::REFUSED_AFTER, "decided_refused"),
        (super::memory::REFUSALS, "decided_refused"),
        (ledger::KNOWS_SIGNATURE, "history_signature"),
    ];
    for (query, index) in queries {
        let mut explain = db.prepare(&format!("EXPLAIN QUERY PLAN {query}")).unwrap();
        let nulls = vec![rusqlite::types::Null; explain.parameter_count()];
        let plan =
            explain.query_map(rusqlite::params_from_iter(nulls), |row| row.get::<_, String>(3)).unwrap();
        let plan: Vec<_> = plan.map(Result::unwrap).collect();
        assert!(plan.iter().any(|step| step.contains(&format!("INDEX {index} "))), "{query}: {plan:?}");
    }
}

fn version(dir: &Path) -> i64 {
    schema::version(&Connection::open(dir.join(FILE)).unwrap()).unwrap()
}

#[test]
fn o10_the_record_of_version_2_is_read_and_written_to_before_it_is_migrated() {
    let dir = record(3);
    db(dir.path()).execute_batch(VERSION_2_DECIDED).unwrap();
    assert_eq!(verify(dir.path()).unwrap().rows, 3);
    put_on_record(dir.path(), &[decision("g", Outcome::Delivered)]).unwrap();
    assert_eq!(verify(dir.path()).unwrap().rows, 4);
    assert_eq!(version(dir.path()), 2, "that is the daemon's to change");
}

#[test]
fn o10_state_of_a_later_version_is_refused_by_all_and_left_as_it_is() {
    let dir = record(1);
    db(dir.path()).execute_batch(&format!("PRAGMA user_version = {}", schema::VERSION + 1)).unwrap();
    let path = dir.path().join(FILE);
    let before = fs::read(&path).unwrap();
    assert!(matches!(State::open(dir.path()), Err(StateError::Version(..))));
    assert!(matches!(put_on_record(dir.path(), &[]), Err(StateError::Version(..))));
    assert!(matches!(History::open(dir.path()), Err(HistoryError::Later(..))));
    assert_eq!(fs::read(&path).unwrap(), before);
}

// Filters

#[test]
fn filters_return_matching_rows() {
    let dir = tempfile::tempdir().unwrap();
    let db = db(dir.path());
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    for (n, (rule, path, outcome)) in [
        ("a", "x.txt", Outcome::Delivered),
        ("a", "sub/y.txt", Outcome::Quarantined),
        ("b", "we\nird", Outcome::Refused),
        ("b", "[x].txt", Outcome::Signed),
    ]
    .into_iter()
    .enumerate()
    {
        let decision = Decision { rule: rule.into(), ..decision(path, outcome) };
        ledger::append(&db, day(n + 1), &decision).unwrap();
    }
    db.execute_batch("COMMIT").unwrap();
    let found = |filter: Filter| rows(dir.path(), &filter).iter().map(|row| row.seq).collect::<Vec<_>>();
    let name = |name: &str| found(Filter { name: Some(NameFilter::new(name.as_ref())), ..Filter::default() });
    assert_eq!(name("*.txt"), [1, 2, 4]);
    assert_eq!(name("x.txt"), [1]);
    assert_eq!(name("*/y.txt"), [2]);
    assert_eq!(name("*"), [1, 2, 3, 4]);
    assert_eq!(name("sub/*"), [2]);
    assert_eq!(name("[x].txt"), [1, 4], "as a pattern, and as it is");
    assert_eq!(name("we\nird"), [3], "byte for byte");
    assert_eq!(name("we\\x0aird"), [3], "as it is shown");
    assert_eq!(name("[nonsense"), Vec::<i64>::new());
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(found(Filter { rule: text("b"), ..Filter::default() }), [3, 4]);
    assert_eq!(found(Filter { outcome: text("signed"), ..Filter::default() }), [4]);
    assert_eq!(found(Filter { since: text(&day(2)), until: text(&day(4)), ..Filter::default() }), [2, 3]);
    let judged = |judged| found(Filter { judged: Some(judged), ..Filter::default() });
    use super::link::Judged;
    assert_eq!(judged(JudgedFilter::Exactly(Judged::Valid)), [1]);
    assert_eq!(judged(JudgedFilter::AnyInvalid), [2]);
    assert_eq!(judged(JudgedFilter::Exactly(Judged::Invalid(Reason::Mismatch))), [2]);
    assert_eq!(judged(JudgedFilter::Exactly(Judged::Invalid(Reason::Missing))), Vec::<i64>::new());
    let newest = |filter: &Filter, most| {
        let newest = History::open(dir.path()).unwrap().newest(filter, most).unwrap();
        newest.into_iter().map(|read| read.unwrap().0.seq).collect::<Vec<_>>()
    };
    assert_eq!(newest(&Filter::default(), 2), [3, 4]);
    assert_eq!(newest(&Filter::default(), 0), Vec::<i64>::new());
    let texts = Filter { name: Some(NameFilter::new("*.txt".as_ref())), ..Filter::default() };
    assert_eq!(newest(&texts, 2), [2, 4]);
}

/// What the record says of the signatures of `f`: outcome, reason, content and key.
fn told(dir: &Path) -> Vec<[Option<String>; 4]> {
    let db = db(dir);
    let mut query = db
        .prepare(
            "SELECT outcome, reason, digest, key FROM history WHERE path = CAST('f' AS BLOB) ORDER BY seq",
        )
        .unwrap();
    let rows = query.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?])).unwrap();
    rows.map(Result::unwrap).collect()
}

fn signing(content: &str, signature: &Signature) -> Decision {
    Decision {
        digest: Some(Digest::of(content.as_bytes())),
        signature_digest: Some(signature.digest()),
        ..decision("f", Outcome::Signing)
    }
}

fn unconfirmed(content: &str) -> [Option<String>; 4] {
    let digest = Digest::of(content.as_bytes()).to_string();
    ["signed".to_owned(), "unconfirmed".to_owned(), digest, "local:k".to_owned()].map(Some)
}

#[tokio::test]
async fn a_signature_that_was_about_to_show_is_put_on_record_whatever_comes_next() {
    let [first, second] = [1, 2].map(|byte| Signature::parse(&[byte; 20]).unwrap());
    let path = RelPath::new("f").unwrap();
    enum Next {
        Note(Decision),
        Record(Decision),
        Forget,
        TakenBack,
    }
    let innocent = || Next::Note(signing("innocent", &second));
    let refused = Decision { outcome: Outcome::Refused, ..signing("innocent", &first) };
    let delivered = Decision { outcome: Outcome::Delivered, ..signing("evil", &second) };
    let cases = [
        ("other content is signed", vec![innocent()]),
        ("it is refused", vec![Next::Record(refused)]),
        ("it is delivered with another signature", vec![Next::Record(delivered)]),
        ("its file is gone", vec![Next::Forget]),
        ("it was taken back", vec![Next::TakenBack]),
        ("it was taken back, and other content is signed", vec![Next::TakenBack, innocent()]),
        ("it was taken back, and its file is gone", vec![Next::TakenBack, Next::Forget]),
    ];
    for (what, nexts) in cases {
        let temp = tempfile::tempdir().unwrap();
        let (state, _) = State::open(temp.path()).unwrap();
        state.note(signing("evil", &first)).await.unwrap();
        assert!(told(temp.path()).is_empty(), "{what}");
        drop(state);
        let (state, _) = State::open(temp.path()).unwrap(); // after a kill, too
        for next in nexts {
            let done = match next {
                Next::Note(next) => state.note(next).await,
                Next::Record(next) => state.record(next).await,
                Next::Forget => state.forget("downloads", vec![(b"f".to_vec(), None)]).await,
                Next::TakenBack => state.give_up_signing("downloads", &path, &first, Seen::Perhaps).await,
            };
            done.unwrap();
        }
        let told: Vec<_> = told(temp.path()).into_iter().filter(|row| row[1].is_some()).collect();
        assert_eq!(told, [unconfirmed("evil")], "{what}");
        assert!(state.is_signature_on_record("downloads", &first).await.unwrap(), "{what}");
    }
}

#[tokio::test]
async fn a_signature_that_is_in_place_or_never_was_has_no_other_row() {
    let signature = Signature::parse(&[1; 20]).unwrap();
    let path = RelPath::new("f").unwrap();
    let temp = tempfile::tempdir().unwrap();
    let (state, _) = State::open(temp.path()).unwrap();
    state.note(signing("content", &signature)).await.unwrap();
    state.give_up_signing("downloads", &path, &signature, Seen::Never).await.unwrap();
    assert!(state.remembered("downloads", &path).await.unwrap().is_none());
    state.note_delivery(signing("content", &signature), &signature).await.unwrap();
    assert!(state.is_pending_publish("downloads", &path, &signature).await.unwrap());
    state.record(Decision { outcome: Outcome::Signed, ..signing("content", &signature) }).await.unwrap();
    state.forget("downloads", vec![(b"f".to_vec(), None)]).await.unwrap();
    let rows = told(temp.path());
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0][1], None);
}

#[tokio::test]
async fn what_was_about_to_be_delivered_is_known_at_the_destination_when_its_source_is_gone() {
    let signature = Signature::parse(&[1; 20]).unwrap();
    let temp = tempfile::tempdir().unwrap();
    let (state, _) = State::open(temp.path()).unwrap();
    state.note_delivery(signing("content", &signature), &signature).await.unwrap();
    state.forget("downloads", vec![(b"f".to_vec(), None)]).await.unwrap();
    let path = RelPath::new("f").unwrap();
    assert!(state.is_pending_publish("downloads", &path, &signature).await.unwrap());
    assert_eq!(told(temp.path()), [unconfirmed("content")]);
}
