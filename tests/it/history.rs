//! `kms-sig history` and the record that the daemon keeps: shown, proven, exported, pruned, sealed.

use std::fs;
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;
use serde_json::Value;

use crate::support::daemon::Daemon;
use crate::support::files::{drop_pair, names};
use crate::support::place::{PROGRAM, Place};
use crate::support::policy::{SIGN, VERIFY, impatient, place, set_policy, with};

/// Recomputes an export with nothing but what `docs/formats.md` says, and prints the head.
const RECOMPUTE: &str = r#"
import hashlib, json, struct, sys

def link(*parts):
    return hashlib.sha512(b"".join(parts)).digest()[:32]

def field(value):
    return b"\0" if value is None else b"\1" + struct.pack(">Q", len(value)) + value

def text(value):
    return None if value is None else value.encode()

first, *rows, last = [json.loads(line) for line in open(sys.argv[1], encoding="ascii")]
assert first["type"] == "chain" and first["format"] == 1 and last["type"] == "head"
chain = link(b"kms-sig history 1: genesis\0", bytes.fromhex(first["nonce"]), field(text(first["begun"])))
assert chain.hex() == first["chain"] == last["chain"], "the beginning"
seq, before = first["pruned_seq"], bytes.fromhex(first["pruned_hash"])
assert seq > 0 or before == chain, "the checkpoint"
for row in rows:
    seq += 1
    assert row["type"] == "row" and row["seq"] == seq, f"row {seq}"
    words = ["outcome", "reason", "digest", "signature_digest", "key", "item"]
    fields = [text(row["at"]), text(row["rule"]), bytes.fromhex(row["path_hex"])] + [text(row[w]) for w in words]
    before = link(b"kms-sig history 1: row\0", chain, before, struct.pack(">q", seq), *map(field, fields))
    assert before.hex() == row["hash"], f"row {seq}"
assert (last["seq"], last["hash"]) == (seq, before.hex()), "the head"
print(f"{before.hex()}:{seq}")
"#;

const HISTORY: [&str; 3] = ["history", "--policy", "policy.toml"];

fn history<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&HISTORY, more].concat()
}

fn lines(place: &Place, more: &[&str]) -> Vec<String> {
    let run = place.run(history(more)).exits(0).complains("");
    String::from_utf8(run.stdout().to_vec()).unwrap().lines().map(str::to_owned).collect()
}

fn json(place: &Place, more: &[&str]) -> Vec<Value> {
    let more = [more, &["--json"]].concat();
    lines(place, &more).iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn head(place: &Place) -> String {
    let verified = lines(place, &["--verify"]);
    verified.last().unwrap().strip_prefix("head: ").unwrap().to_owned()
}

fn export(place: &Place, file: &str) {
    let run = place.run(history(&["--export"])).exits(0).complains("");
    place.write(file, run.stdout());
}

fn recompute(place: &Place, file: &str) -> Result<String, String> {
    let python = Command::new("python3").args(["-c", RECOMPUTE]).arg(place.path(file)).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().trim().to_owned();
    if python.status.success() { Ok(text(python.stdout)) } else { Err(text(python.stderr)) }
}

fn tamper(place: &Place, sql: &str) {
    Connection::open(place.path("state/state.db")).unwrap().execute_batch(sql).unwrap();
}

/// A place where four pairs were dealt with: two delivered, one quarantined, one with a hostile
/// name.
fn worked() -> Place {
    let place = place(VERIFY);
    let daemon = Daemon::start(&place);
    drop_pair(&place, "one.txt", "one");
    daemon.waits_for("delivered");
    drop_pair(&place, "two.bin", "two");
    daemon.waits_for_nth("delivered", 2);
    set_policy(&place, &impatient(VERIFY));
    daemon.hang_up();
    daemon.waits_for("policy reloaded");
    place.write("in/bad.txt", "unsigned");
    daemon.waits_for("quarantined");
    place.write("in/\u{1b}[2J\n.txt", "unsigned");
    daemon.waits_for_nth("quarantined", 2);
    daemon.stop();
    place
}

#[test]
fn decisions_are_shown_newest_last_and_found_by_what_one_asks() {
    let place = worked();
    let shown = lines(&place, &[]);
    assert_eq!(shown.len(), 5, "{shown:?}");
    assert!(shown[0].starts_with("    ROW  TIME (UTC)"), "{shown:?}");
    assert!(shown[1].contains("verify  delivered    one.txt"), "{shown:?}");
    assert!(shown[4].ends_with("quarantined  \\x1b[2J\\x0a.txt  (missing)"), "P9: {shown:?}");
    let seqs =
        |more: &[&str]| json(&place, more).iter().map(|row| row["seq"].as_i64().unwrap()).collect::<Vec<_>>();
    assert_eq!(seqs(&[]), [1, 2, 3, 4]);
    assert_eq!(seqs(&["--verdict", "valid"]), [1, 2]);
    assert_eq!(seqs(&["--verdict", "missing", "--last", "1"]), [4]);
    assert_eq!(seqs(&["--outcome", "quarantined", "--name", "bad.*"]), [3]);
    assert_eq!(seqs(&["--rule", "verify", "--name", "three"]), [0; 0]);
    assert_eq!(seqs(&["--since", "1h", "--name", "two.bin"]), [2]);
    assert_eq!(seqs(&["--until", "2026-01-01"]), [0; 0]);
    assert_eq!(seqs(&["--since", "2020-01-01T00:00:00Z", "--name", "\\x1b[2J\\x0a.txt"]), [4]);
    let row = &json(&place, &["--last", "1"])[0];
    assert_eq!((&row["reason"], &row["path_hex"]), (&"missing".into(), &"1b5b324a0a2e747874".into()));
    let said = place.run(history(&["--since", "yesterday"])).exits(2);
    said.complains("kms-sig: \"yesterday\" is no time\nhint: write 2026-11-24, 2026-11-24T01:00:00Z (UTC), or how long ago: 90m, 7d\n");
    place.run(history(&["--verify", "--rule", "verify"])).exits(2);
    let unknown = "no rule is called \"nobody\", in the policy or on record\n";
    place.run(history(&["--rule", "nobody"])).exits(0).says("").complains(unknown);
    // One that the policy has no more is on record.
    set_policy(&place, &VERIFY.replace("name = \"verify\"", "name = \"other\""));
    assert_eq!(seqs(&["--rule", "verify"]), [1, 2, 3, 4]);
    assert_eq!(seqs(&["--rule", "verify", "--name", "three"]), [0; 0]);
    assert_eq!(seqs(&["--rule", "other"]), [0; 0]);
    place.run(["history", "--rule", "verify"]).exits(2);
}

#[test]
fn what_a_program_reads_is_ascii_whatever_a_field_holds() {
    let place = worked();
    tamper(
        &place,
        "UPDATE history SET rule = 'r\u{202e}' || char(155) || char(127) || '\u{1f600}' WHERE seq = 1",
    );
    let run = place.run(history(&["--json", "--last", "4"])).exits(0);
    assert!(run.stdout().iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n')));
    assert_eq!(json(&place, &[])[0]["rule"], "r\u{202e}\u{9b}\u{7f}\u{1f600}");
    let run = place.run(history(&[])).exits(0);
    assert!(
        run.stdout()
            .iter()
            .all(|byte| matches!(byte, b' '..=b'~' | b'\n') || *byte >= 0xf0 || (0x80..0xc0).contains(byte))
    );
}

#[test]
fn an_export_is_recomputed_by_others_and_the_record_compared_with_it() {
    let place = worked();
    export(&place, "early.jsonl");
    assert_eq!(recompute(&place, "early.jsonl"), Ok(head(&place)), "by Python");
    let early = head(&place);
    let daemon = Daemon::start(&place);
    drop_pair(&place, "three", "three");
    daemon.waits_for("delivered");
    // While the daemon runs.
    let against = ["--verify", "--against", "early.jsonl"];
    let said = lines(&place, &against);
    assert_eq!(said[..2], ["the record is unbroken: 5 rows", "on it: 1 head kept elsewhere"]);
    place.run(history(&["--verify", "--head", &early])).exits(0);
    place.run(history(&["--verify", "--head", "early.jsonl"])).exits(0);
    daemon.stop();
    // The export alone, elsewhere.
    place.run(["history", "--verify", "--against", "early.jsonl"]).exits(0);

    let whole = String::from_utf8(place.read("early.jsonl")).unwrap();
    let cut: String = whole.lines().take(3).map(|line| format!("{line}\n")).collect();
    place.write("cut.jsonl", cut);
    place.run(["history", "--verify", "--against", "cut.jsonl"]).exits(3).complains_of("is no whole export");
    for (from, to) in [("one.txt", "0ne.txt"), ("\"delivered\"", "\"refused\""), ("\"seq\":2", "\"seq\":5")] {
        let changed = whole.replacen(from, to, 1);
        assert_ne!(changed, whole);
        place.write("changed.jsonl", &changed);
        let run = place.run(["history", "--verify", "--against", "changed.jsonl"]);
        assert!(!run.succeeds(), "{from}");
    }
    let hex = whole.replacen("6f6e652e747874", "306e652e747874", 1).replacen("one.txt", "0ne.txt", 1);
    place.write("changed.jsonl", &hex);
    let said = place.run(["history", "--verify", "--against", "changed.jsonl"]).exits(1);
    said.complains_of("the record is broken: row 1 is not what was recorded");
    recompute(&place, "changed.jsonl").unwrap_err();
}

#[test]
fn a_broken_record_is_exit_code_1_with_its_first_bad_row() {
    let place = worked();
    let kept = head(&place);
    tamper(&place, "UPDATE history SET outcome = 'delivered' WHERE seq = 3");
    let broken = "the record is broken: row 3 is not what was recorded, or does not follow the row before it as it is now\n";
    place.run(history(&["--verify"])).exits(1).says("").complains(broken);
    let said = place.run(history(&["--verify", "--json"])).exits(1);
    let said: Value = serde_json::from_slice(said.stdout()).unwrap();
    assert_eq!((&said["verified"], &said["row"]), (&false.into(), &3.into()));
    // What is shown is shown nevertheless.
    assert_eq!(json(&place, &[]).len(), 4);

    // Another one altogether, and none.
    fs::remove_dir_all(place.path("state")).unwrap();
    place.run(history(&["--verify"])).exits(3).complains_of("there is no state in");
    place.run(history(&["--verify", "--head", &kept])).exits(1).complains_of("it was lost or removed");
    Daemon::start(&place).stop();
    place.run(history(&["--verify"])).exits(0);
    place
        .run(history(&["--verify", "--head", &kept]))
        .exits(1)
        .complains_of("this is not the chain of the head of row 4");
    place.run(history(&["--verify", "--head", "4:zz"])).exits(2);
}

#[test]
fn old_rows_are_pruned_and_the_chain_goes_on() {
    let place = worked();
    let kept = head(&place);
    let rule = format!("state.history_keep = \"1ms\"\n{VERIFY}");
    set_policy(&place, &rule);
    let daemon = Daemon::start(&place);
    assert_eq!(daemon.waits_for("record pruned")["rows"], 3);
    drop_pair(&place, "late", "late");
    daemon.waits_for("delivered");
    daemon.stop();
    let said = lines(&place, &["--verify", "--head", &kept]);
    assert_eq!(
        said[..3],
        ["the record is unbroken: 2 rows", "before it: 3 rows pruned", "on it: 1 head kept elsewhere"]
    );
    // Nothing in quarantine is put on record anew.
    assert_eq!(names(&place.path("q")).len(), 2);
    Daemon::start(&place).stop();
    let rows = json(&place, &[]);
    assert!(rows.iter().all(|row| row["seq"].as_i64().unwrap() >= 4), "{rows:?}");
    export(&place, "late.jsonl");
    recompute(&place, "late.jsonl").unwrap();
    // A head from before the checkpoint proves nothing any more, and that is not success.
    let (hash, _) = kept.split_once(':').unwrap();
    let run = place.run(history(&["--verify", "--head", &format!("{hash}:2")])).exits(3);
    run.complains_of("cannot compare the head of row 2: its row was pruned");
}

#[test]
fn a_broken_record_is_not_pruned_and_the_daemon_says_so() {
    let place = worked();
    tamper(&place, "UPDATE history SET outcome = 'delivered' WHERE seq = 3");
    set_policy(&place, &format!("state.history_keep = \"1ms\"\n{VERIFY}"));
    let daemon = Daemon::start(&place);
    let said = daemon.waits_for("the record is broken; nothing is pruned");
    assert!(said["reason"].as_str().unwrap().starts_with("row 3"), "{said}");
    drop_pair(&place, "late", "late");
    daemon.waits_for("delivered"); // and goes on with its work
}

#[test]
fn the_head_is_sealed_and_the_seals_are_opened() {
    let place = place(VERIFY);
    place.run(["key", "create", "local:seal", "--keyring", "keyring"]).exits(0);
    let sealed = format!("state.seal_key = \"local:seal\"\nstate.seal_interval = \"10ms\"\n{VERIFY}");
    set_policy(&place, &sealed);
    let seals = || {
        let db = Connection::open(place.path("state/state.db")).unwrap();
        db.query_row("SELECT count(*) FROM seal", [], |row| row.get::<_, i64>(0)).unwrap()
    };
    let daemon = Daemon::start(&place);
    drop_pair(&place, "one", "one");
    daemon.until("sealed", || seals() == 1);
    drop_pair(&place, "two", "two");
    daemon.until("sealed again", || seals() == 2);
    let said = lines(&place, &["--verify", "--online"]);
    assert_eq!(said[..2], ["the record is unbroken: 2 rows", "on it: 2 seals, 2 opened by KMS"]);

    // The key is away: told once, no file waits for it, and it goes on by itself.
    fs::rename(place.path("keyring"), place.path("away")).unwrap();
    place
        .run(history(&["--verify", "--online"]))
        .exits(3)
        .complains_of("cannot open the seals of the record");
    place.write("in/bad.sig", ""); // malformed, whatever KMS says
    place.write("in/bad", "unsigned");
    daemon.waits_for("quarantined");
    let told = daemon.waits_for("the head of the record is not sealed");
    assert_eq!((&told["cause"], &told["key"]), (&"credentials".into(), &"local:seal".into()));
    fs::rename(place.path("away"), place.path("keyring")).unwrap();
    daemon.waits_for("the head of the record is sealed again");
    assert_eq!(daemon.count("the head of the record is not sealed"), 1);
    assert_eq!(daemon.stop().code(), Some(0));
    place.run(history(&["--verify", "--online"])).exits(0);

    // A seal that says something else; and none at all.
    tamper(&place, "UPDATE seal SET ciphertext = (SELECT ciphertext FROM seal ORDER BY seq LIMIT 1)");
    place.run(history(&["--verify"])).exits(0);
    place.run(history(&["--verify", "--online"])).exits(1).complains_of("KMS did not seal this head");
    tamper(&place, "DELETE FROM seal");
    place.run(history(&["--verify", "--online"])).exits(3).complains_of("cannot open a seal: there is none");
}

#[test]
fn a_run_that_ends_seals_what_it_decided() {
    let place = place(&with(SIGN, "create = false"));
    place.run(["key", "create", "local:seal", "--keyring", "keyring"]).exits(0);
    set_policy(&place, &format!("state.seal_key = \"local:seal\"\n{SIGN}"));
    place.write("in/f", "f");
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(0);
    place.run(history(&["--verify", "--online"])).exits(0);
    place.run(["watch", "--policy", "policy.toml", "--once", "--dry-run"]).exits(0);
    let db = Connection::open(place.path("state/state.db")).unwrap();
    assert_eq!(db.query_row("SELECT count(*) FROM seal", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
}

#[test]
fn p4_killed_again_and_again_the_daemon_leaves_an_unbroken_record() {
    let place = place(SIGN);
    for round in 0..6 {
        for n in 0..30 {
            place.write(format!("in/{round}-{n}"), "content");
        }
        let daemon = Daemon::start_unready(&place);
        daemon.waits_for_nth("signed", 3 + round);
        drop(daemon); // SIGKILL
        place.run(history(&["--verify"])).exits(0);
    }
}

#[test]
fn a_reader_that_stops_reading_is_no_trouble() {
    let place = worked();
    place.shell("\"$KMS_SIG\" history --policy policy.toml | head -n 1").exits(0).complains("");
    place.shell("\"$KMS_SIG\" history --policy policy.toml --export | head -n 1").exits(0).complains("");
}

/// Where the caller may read the state and make nothing beside it, SQLite can make no lock file.
#[test]
fn a_state_that_may_only_be_read_is_read() {
    let place = worked();
    // With the log that a killed daemon leaves behind, and with none, as after a copy.
    let daemon = Daemon::start(&place);
    // At rest: what it reads first of state is read, and no lock of SQLite's is half taken.
    daemon.until("at rest", || place.run(["status", "--policy", "policy.toml"]).succeeds());
    drop(daemon); // SIGKILL
    let log = || names(&place.path("state")).contains(&"state.db-wal".to_owned());
    assert!(log());
    assert_eq!(verified_by_another(&place), "the record is unbroken: 4 rows");
    tamper(&place, "PRAGMA wal_checkpoint(TRUNCATE)"); // closing removes the log
    assert!(!log());
    assert_eq!(verified_by_another(&place), "the record is unbroken: 4 rows");
    // Beside a running daemon.
    let daemon = Daemon::start(&place);
    drop_pair(&place, "late", "late");
    daemon.waits_for("delivered");
    assert_eq!(verified_by_another(&place), "the record is unbroken: 5 rows");
}

/// What a user says first who may read everything in a place, and write nothing.
fn verified_by_another(place: &Place) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    use std::os::unix::process::CommandExt as _;
    let state = place.path("state");
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for file in names(&state).iter().filter(|name| name.starts_with("state.db")) {
        mode(&state.join(file), 0o444);
    }
    mode(&place.path("policy.toml"), 0o444);
    mode(&place.path(""), 0o755);
    mode(&state, 0o555);
    let mut command = Command::new(PROGRAM);
    command.args(history(&["--verify"]));
    let mut command = place.prepare(command);
    if rustix::process::geteuid().is_root() {
        command.uid(65534); // root may write anywhere
    }
    let output = command.output().unwrap();
    for file in names(&state).iter().filter(|name| name.starts_with("state.db")) {
        mode(&state.join(file), 0o600);
    }
    mode(&state, 0o700);
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    said.lines().next().unwrap_or_default().to_owned()
}
