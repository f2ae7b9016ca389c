//! A quarantine store with items in it, and what its commands and history say of them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::files::{names, sign};
use super::place::Place;
use super::policy::{VERIFY, set_policy, with};
use super::run::Run;

/// A modification time that no test sets by accident, with nanoseconds.
pub(crate) fn long_ago() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789)
}

/// The verify rule, in a hurry.
pub(crate) fn rule() -> String {
    with(&with(&with(VERIFY, "grace = \"1ms\""), "signature_timeout = \"1ms\""), "settle = \"1ms\"")
}

/// Drops a pair whose content is not what was signed, and has it quarantined. Returns its id.
pub(crate) fn quarantined(place: &Place, file: &str, content: &str) -> String {
    drop_tampered(place, file, content);
    quarantine_all(place)
}

pub(crate) fn drop_tampered(place: &Place, file: &str, content: &str) {
    let (payload, signature) = sign(place, file, "what was signed");
    fs::write(&payload, content).unwrap();
    fs::File::open(&payload).unwrap().set_modified(long_ago()).unwrap();
    fs::set_permissions(&payload, Permissions::from_mode(0o750)).unwrap();
    fs::rename(payload, place.path("in").join(file)).unwrap();
    fs::rename(signature, place.path("in").join(format!("{file}.sig"))).unwrap();
}

/// Drops a pair that is good, but not under the context of a rule with
/// `context = { file = "wrong" }`.
pub(crate) fn drop_good(place: &Place, file: &str, content: &str) {
    let (payload, signature) = sign(place, file, content);
    fs::File::open(&payload).unwrap().set_modified(long_ago()).unwrap();
    fs::set_permissions(&payload, Permissions::from_mode(0o777)).unwrap();
    fs::rename(payload, place.path("in").join(file)).unwrap();
    fs::rename(signature, place.path("in").join(format!("{file}.sig"))).unwrap();
}

/// Runs the daemon over what was dropped. Returns the newest item.
pub(crate) fn quarantine_all(place: &Place) -> String {
    let before = ids(place);
    place.run(["watch", "--policy", "policy.toml", "--once"]).exits(1);
    let new: Vec<_> = ids(place).into_iter().filter(|id| !before.contains(id)).collect();
    assert_eq!(new.len(), 1, "{new:?}");
    new[0].clone()
}

pub(crate) fn ids(place: &Place) -> Vec<String> {
    names(&place.path("q"))
}

pub(crate) fn record(place: &Place, id: &str) -> Value {
    serde_json::from_slice(&place.read(format!("q/{id}/record.json"))).unwrap()
}

/// Runs a quarantine command on the policy.
pub(crate) fn run<'a>(place: &'a Place, words: &[&str]) -> Run<'a> {
    place.run(["quarantine"].iter().chain(words).chain(&["--policy", "policy.toml"]))
}

/// What history says of an outcome: reason, key and item, in order.
pub(crate) fn history(place: &Place, outcome: &str) -> Vec<(String, Option<String>, String)> {
    let db = rusqlite::Connection::open(place.path("state/state.db")).unwrap();
    let mut query =
        db.prepare("SELECT reason, key, item FROM history WHERE outcome = ?1 ORDER BY seq").unwrap();
    let rows = query.query_map([outcome], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

pub(crate) fn uid() -> u32 {
    rustix::process::getuid().as_raw()
}

/// A pair that is good, quarantined for the wrong context, and the policy corrected. Returns its
/// id.
pub(crate) fn good_after_all(place: &Place, rule: &str, content: &str) -> String {
    set_policy(place, &with(rule, "context = { file = \"wrong\" }"));
    drop_good(place, "f", content);
    let id = quarantine_all(place);
    set_policy(place, rule);
    id
}
