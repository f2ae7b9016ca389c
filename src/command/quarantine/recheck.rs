//! `kms-sig quarantine recheck`: verifies items again, and moves nothing.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::item_trouble::SUPERSEDED;
use super::judge::{Judge, rollback};
use super::{ItemTrouble, Store};
use crate::chain;
use crate::cli::{Choice, Recheck};
use crate::command::answer::answer_json;
use crate::command::{Failure, answer, block_on};
use crate::exit::Exit;
use crate::policy::{Rollback, Rule};
use crate::signing::{Reason, Valid, Verdict};
use crate::sink::directory::quarantine::{Item, ReadError};
use crate::state::{FILE, Journal, StateError};
use crate::terminal;

/// Verifies items again.
pub(super) fn run(arguments: &Recheck, keyring: Option<PathBuf>) -> Result<Exit, Failure> {
    let store = Store::open(&arguments.store.policy)?;
    let json = arguments.store.json;
    let (ids, exit) = match arguments.all {
        true => {
            let all = store.entries(&Choice { rule: None, reason: None })?;
            (all.into_iter().map(|(id, _)| id).collect(), Exit::Done)
        }
        false => store.resolve(&arguments.ids)?.told(json.then_some(&unknown))?,
    };
    if ids.is_empty() {
        return Ok(exit);
    }
    let judge = Judge::new(&store.policy, store.owner, keyring)?;
    let asks = store.policy.rules.iter().any(|rule| rollback(rule) != Rollback::Off);
    // Where there is none, nothing is remembered, and so nothing was superseded.
    let journal = match asks && store.policy.state_dir.join(FILE).exists() {
        true => Some(store.journal()?),
        false => None,
    };
    block_on(async {
        let mut exit = exit;
        for id in ids {
            exit = exit.and(recheck_one(&store, &judge, journal.as_ref(), &id, json).await?);
        }
        Ok(exit)
    })?
}

/// The answer about an item without a verdict.
fn unknown(id: &str, why: &str) -> Value {
    json!({ "id": id, "verdict": "unknown", "reason": null, "key": null, "why": why })
}

/// What a rule does about content that is valid and was superseded; `None` about any other.
fn superseded(
    journal: Option<&Journal>,
    rule: &Rule,
    item: &Item,
    valid: &Valid,
) -> Result<Option<&'static str>, StateError> {
    let word = match rollback(rule) {
        Rollback::Off => return Ok(None),
        Rollback::Alert => "alert",
        Rollback::Deny => "deny",
    };
    let Some(journal) = journal else { return Ok(None) };
    let is = journal.is_superseded(&rule.name, item.path(), valid.digest())?;
    Ok(is.then_some(word))
}

/// What was found of an item.
enum Found {
    Valid {
        key: String,
        /// What `rollback` of the rule does about it, if it was superseded.
        superseded: Option<&'static str>,
    },
    Invalid(Reason),
    /// It is not what was judged, whatever else it is by now.
    Changed(ReadError),
    Unknown(ItemTrouble),
}

async fn recheck_one(
    store: &Store,
    judge: &Judge<'_>,
    journal: Option<&Journal>,
    id: &str,
    json: bool,
) -> Result<Exit, Failure> {
    let found = async {
        let locked = store.take(id)?;
        let item = locked.item();
        Ok(match judge.verify(item).await? {
            Verdict::Valid(valid) => Found::Valid {
                key: valid.key().to_string(),
                superseded: superseded(journal, judge.rule(item)?, item, &valid)?,
            },
            Verdict::Invalid(reason) => Found::Invalid(reason),
        })
    };
    let found = match found.await {
        Ok(found) => found,
        Err(ItemTrouble::Read(error @ ReadError::Resized { .. })) => Found::Changed(error),
        Err(trouble) => Found::Unknown(trouble),
    };
    let colours = terminal::stdout();
    let invalid = |why: &str| format!("{id}: {} {why}", colours.bad("invalid:"));
    let (exit, line, answered) = match &found {
        Found::Valid { key, superseded } => {
            let valid = format!("{id}: {} from {key}", colours.good("valid signature"));
            let answered = json!({ "id": id, "verdict": "valid", "reason": null, "key": key });
            let (line, answered) = match superseded {
                None => (valid, answered),
                Some(word) => (
                    format!("{valid}; {SUPERSEDED} (rollback is \"{word}\")"),
                    json!({
                        "id": id, "verdict": "valid", "reason": null, "key": key, "superseded": true,
                    }),
                ),
            };
            (Exit::Done, Some(line), answered)
        }
        Found::Invalid(reason) => {
            let answered = json!({ "id": id, "verdict": "invalid", "reason": reason.as_str(), "key": null });
            (Exit::Invalid, Some(invalid(reason.as_str())), answered)
        }
        Found::Changed(error) => {
            let why = error.to_string();
            let answered = json!({ "id": id, "verdict": "changed", "reason": null, "key": null, "why": why });
            (Exit::Invalid, Some(invalid(&why)), answered)
        }
        Found::Unknown(trouble) => {
            let answered = unknown(id, &chain::one_line(trouble));
            (trouble.tell(id), None, answered)
        }
    };
    match (json, line) {
        (true, _) => answer_json(&answered)?,
        (false, Some(line)) => answer(&line)?,
        (false, None) => {}
    }
    Ok(exit)
}
