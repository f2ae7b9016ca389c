//! What `[state]` says about the record of decisions: how long rows stay, and which key seals its
//! head.
//!
//! The seal's key must be one that no rule uses: who may Encrypt under it could otherwise sign
//! files, and CloudTrail would show seals among signatures. Two names of one key cannot be told
//! from here.

use std::sync::Arc;
use std::time::Duration;

use super::grammar::{LOCAL, STATE, add};
use super::place::Whose;
use super::reader::{Field, Least, Table};
use super::{Mode, Record, Rule, Sealing};
use crate::escape::Escaped;
use crate::key::{KeyId, Provider};

/// Default of `history_keep`: a year, and a month to look at it.
const KEEP: Duration = Duration::from_secs(400 * 24 * 60 * 60);
/// The longest `history_keep` in figures.
const LONGEST_KEEP: Duration = Duration::from_secs(36_525 * 24 * 60 * 60);
/// Default of `seal_interval`.
const INTERVAL: Duration = Duration::from_secs(60 * 60);
/// The longest `seal_interval`.
const LONGEST_INTERVAL: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Reads the record's part of `[state]`. What is wrong there is reported, and then its default
/// stands in.
pub(super) fn read(top: &Table<'_>, rules: &[Arc<Rule>]) -> Record {
    // Unknown keys of the section were reported when its `dir` was read.
    let Some(state) = top.section_quietly("state", &STATE) else {
        return Record { keep: Some(KEEP), seal: None };
    };
    let keep = state.find("history_keep").map_or(Some(KEEP), |field| keep(&field));
    let interval = state.find("seal_interval");
    let duration = interval.and_then(|field| field.duration(Least::AboveZero, LONGEST_INTERVAL));
    let key = state.find("seal_key");
    if let (Some(field), None) = (interval, key) {
        field.conflict("nothing is sealed without a key; add seal_key, or remove this");
    }
    let key = key.and_then(|field| seal_key(&field, top, rules));
    Record { keep, seal: key.map(|key| Sealing { key, interval: duration.unwrap_or(INTERVAL) }) }
}

/// A duration, or for ever.
fn keep(field: &Field<'_>) -> Option<Duration> {
    if field.is_text("forever") {
        return None;
    }
    let text = field.text()?;
    if humantime::parse_duration(text).is_err() {
        let shown = Escaped::text(text);
        field.fault(format!("\"{shown}\" is no duration; write one such as \"400d\", or \"forever\""));
        return None;
    }
    field.duration(Least::AboveZero, LONGEST_KEEP)
}

fn seal_key(field: &Field<'_>, top: &Table<'_>, rules: &[Arc<Rule>]) -> Option<KeyId> {
    let key = match field.text()?.parse::<KeyId>() {
        Ok(key) => key,
        Err(error) => {
            field.fault(error);
            return None;
        }
    };
    let uses = |rule: &Rule| match &rule.mode {
        Mode::Sign(sign) => sign.key == key,
        Mode::Verify(verify) => verify.trusted_keys.iter().any(|trusted| trusted.as_str() == key.as_str()),
    };
    if let Some(rule) = rules.iter().find(|rule| uses(rule)) {
        let whose = Whose { name: Some(rule.name.clone()), line: rule.line };
        field.conflict(format!("{whose} uses this key; the record needs a key of its own"));
    }
    if key.provider() == Provider::Local && top.find("local").is_none() {
        field.conflict(format!("this is a local key, but no keyring is named; {}", add(&LOCAL)));
    }
    Some(key)
}
