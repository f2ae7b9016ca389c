//! What state knows of signatures that have no payload any more.

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use rusqlite::{Connection, params};

use super::memory::remembered;
use super::{Outcome, Remembered, State, StateError, Version};
use crate::digest::Digest;
use crate::fs::RelPath;

/// Other names that are remembered for one signature.
const MAX_OTHERS: usize = 16;

/// A signature whose content was signed under another name since.
#[derive(Debug, Clone)]
pub(crate) struct SignedElsewhere {
    /// The payload that it was made for.
    pub(crate) path: RelPath,
    /// That payload's version, as state remembers it.
    pub(crate) payload: Option<Version>,
    /// Of the signature's bytes.
    pub(crate) signature_digest: Digest,
    /// The other name. It is signed still, as far as state knows.
    pub(crate) other: RelPath,
    /// When that was signed first, as RFC 3339 in UTC.
    pub(crate) at: String,
}

impl State {
    /// Which signatures that a rule made for these payloads are of content that it signed under
    /// another name after that, and which is signed there still. Reads the whole record.
    ///
    /// # Errors
    /// [`StateError`].
    pub(crate) async fn signed_elsewhere(
        &self,
        rule: &str,
        payloads: Vec<RelPath>,
    ) -> Result<Vec<SignedElsewhere>, StateError> {
        let rule = rule.to_owned();
        self.call(move |db| signed_elsewhere(db, &rule, payloads)).await
    }
}

/// A signature of which it is not known yet.
struct Case {
    path: RelPath,
    payload: Option<Version>,
    digest: Digest,
    signature_digest: Digest,
    /// Whether the record has come to the row about it.
    is_recorded: bool,
    /// Names under which its content was signed after that row, and when.
    others: Vec<(Vec<u8>, String)>,
}

fn signed_elsewhere(
    db: &Connection,
    rule: &str,
    payloads: Vec<RelPath>,
) -> rusqlite::Result<Vec<SignedElsewhere>> {
    let mut cases = Vec::new();
    for path in payloads {
        let Some(row) = remembered(db, rule, path.as_bytes())? else { continue };
        let (Outcome::Signed, Some(digest), Some(signature_digest)) =
            (row.outcome, row.digest, row.signature_digest)
        else {
            continue; // one that was adopted is somebody else's
        };
        let payload = row.payload;
        cases.push(Case { path, payload, digest, signature_digest, is_recorded: false, others: Vec::new() });
    }
    let mut of_content: HashMap<String, Vec<usize>> = HashMap::new();
    for (place, case) in cases.iter().enumerate() {
        of_content.entry(case.digest.to_string()).or_default().push(place);
    }
    if cases.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = db.prepare_cached(
        "SELECT path, digest, signature_digest, at FROM history
         WHERE rule = ?1 AND outcome IN (?2, ?3) AND digest IS NOT NULL ORDER BY seq",
    )?;
    let mut rows = query.query(params![rule, Outcome::Signed.as_str(), Outcome::Adopted.as_str()])?;
    while let Some(row) = rows.next()? {
        let (Ok(path), Ok(digest)) = (row.get_ref(0)?.as_blob(), row.get_ref(1)?.as_str()) else {
            continue; // damaged
        };
        let Some(places) = of_content.get(digest) else { continue };
        for place in places {
            let Some(case) = cases.get_mut(*place) else { continue };
            if case.path.as_bytes() == path {
                let signature: Option<String> = row.get(2)?;
                if signature == Some(case.signature_digest.to_string()) {
                    case.is_recorded = true;
                    case.others.clear();
                }
            } else if case.is_recorded && case.others.len() < MAX_OTHERS {
                case.others.push((path.to_vec(), row.get(3)?));
            }
        }
    }
    drop(rows);
    let mut found = Vec::new();
    for case in cases {
        let Case { path, payload, digest, signature_digest, others, .. } = case;
        for (other, at) in others {
            let there = remembered(db, rule, &other)?;
            let is_signed = |row: Remembered| row.outcome.is_signed_in_place() && row.is_of_payload(&digest);
            if let (true, Some(other)) = (there.is_some_and(is_signed), path_of(other)) {
                found.push(SignedElsewhere { path, payload, signature_digest, other, at });
                break;
            }
        }
    }
    Ok(found)
}

fn path_of(bytes: Vec<u8>) -> Option<RelPath> {
    RelPath::new(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::Decision;

    fn path(name: &str) -> RelPath {
        RelPath::new(name).unwrap()
    }

    fn signed(name: &str, content: &str, signature: &str) -> Decision {
        Decision {
            rule: "rule".into(),
            path: path(name),
            fingerprint: String::new(),
            payload: Some(Version([1; 40])),
            signature: Some(Version([2; 40])),
            outcome: Outcome::Signed,
            reason: None,
            digest: Some(Digest::of(content.as_bytes())),
            signature_digest: Some(Digest::of(signature.as_bytes())),
            key: None,
            item: None,
        }
    }

    async fn others(state: &State, name: &str) -> Vec<RelPath> {
        let found = state.signed_elsewhere("rule", vec![path(name)]).await.unwrap();
        found.into_iter().map(|found| found.other).collect()
    }

    #[tokio::test]
    async fn only_what_was_signed_after_it_with_the_same_content_counts() {
        let temp = tempfile::tempdir().unwrap();
        let (state, _) = State::open(temp.path()).unwrap();
        // A copy that was there before: who deletes `copy` did not rename it.
        state.record(signed("before", "content", "1")).await.unwrap();
        state.record(signed("copy", "content", "2")).await.unwrap();
        state.record(signed("unlike", "other content", "3")).await.unwrap();
        state.record(Decision { rule: "another".into(), ..signed("after", "content", "4") }).await.unwrap();
        assert_eq!(others(&state, "copy").await, []);
        assert_eq!(others(&state, "never-seen").await, []);

        state.record(signed("after", "content", "5")).await.unwrap();
        assert_eq!(others(&state, "copy").await, [path("after")]);
        let found = state.signed_elsewhere("rule", vec![path("copy")]).await.unwrap();
        assert!(found[0].signature_digest.matches(Digest::of(b"2").as_bytes()));

        // Signed once more: the last signature is the one that counts.
        state.record(signed("copy", "content", "6")).await.unwrap();
        assert_eq!(others(&state, "copy").await, []);
        // What lies there was somebody else's, or is no longer what the record tells of.
        state.record(signed("later", "content", "7")).await.unwrap();
        state.note(Decision { outcome: Outcome::Adopted, ..signed("copy", "content", "6") }).await.unwrap();
        assert_eq!(others(&state, "copy").await, []);
    }

    #[tokio::test]
    async fn the_other_name_must_be_signed_still() {
        let temp = tempfile::tempdir().unwrap();
        let (state, _) = State::open(temp.path()).unwrap();
        state.record(signed("old", "content", "1")).await.unwrap();
        state.record(signed("new", "content", "2")).await.unwrap();
        assert_eq!(others(&state, "old").await, [path("new")]);
        state
            .record(Decision { digest: None, outcome: Outcome::Refused, ..signed("new", "", "2") })
            .await
            .unwrap();
        assert_eq!(others(&state, "old").await, []);
        state.forget("rule", vec![(b"new".to_vec(), Some(Version([1; 40])))]).await.unwrap();
        assert_eq!(others(&state, "old").await, []);
    }
}
