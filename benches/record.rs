//! What the record costs: ten thousand decisions, one commit each and many at once, and proving
//! them all.
//!
//! `cargo bench --no-default-features --bench record`. Prints times and asserts none: they are the
//! machine's.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a bench measures time, prints it, and has failed if it panics"
)]

use std::time::Instant;

use kms_sig::digest::Digest;
use kms_sig::fs::RelPath;
use kms_sig::state::reader::History;
use kms_sig::state::{Decision, FILE, Outcome, State};

const DECISIONS: usize = 10_000;

fn decision(n: usize) -> Decision {
    let digest = Digest::of(&n.to_be_bytes());
    Decision {
        rule: "downloads".into(),
        path: RelPath::new(format!("releases/app-{n}.tar.gz")).unwrap(),
        fingerprint: "0123456789abcdef0123456789abcdef".into(),
        payload: None,
        signature: None,
        outcome: Outcome::Delivered,
        reason: None,
        digest: Some(digest.clone()),
        signature_digest: Some(digest),
        key: Some("arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab".into()),
        item: None,
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for group in [1, 64, 1000] {
        let dir = tempfile::tempdir().unwrap();
        let (state, _) = State::open(dir.path()).unwrap();
        let decisions: Vec<_> = (0..DECISIONS).map(decision).collect();
        let start = Instant::now();
        for group in decisions.chunks(group) {
            runtime.block_on(state.record_all(group.to_vec())).unwrap();
        }
        let took = start.elapsed();
        println!("{DECISIONS} decisions, {group:>4} to a commit: {took:>10.1?}");
        if group == 1000 {
            // What is not in the database yet is in its log.
            let db = rusqlite::Connection::open(dir.path().join(FILE)).unwrap();
            let sum = "SELECT (SELECT sum(pgsize) FROM dbstat WHERE name = 'history') / ?1";
            let bytes = db.query_row(sum, [10_000_i64], |row| row.get::<_, i64>(0));
            let size = db.query_row("PRAGMA page_count", [], |row| row.get::<_, i64>(0)).unwrap() * 4096;
            println!("bytes on record for each: {bytes:?}; the whole database: {size}");
            prove(dir.path());
        }
    }
}

fn prove(dir: &std::path::Path) {
    let start = Instant::now();
    let unbroken = History::open(dir).unwrap().verify(Vec::new()).unwrap().unwrap();
    println!("{} rows proven in {:.1?}", unbroken.rows, start.elapsed());
}
