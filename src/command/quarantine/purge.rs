//! `kms-sig quarantine purge`: items go for good, on record.

use serde_json::json;

use super::{ItemTrouble, Store, StoreTrouble};
use crate::chain;
use crate::cli::{Choice, Purge};
use crate::command::answer::answer_json;
use crate::command::{Failure, answer};
use crate::exit::Exit;
use crate::sink::directory::quarantine::Entry;
use crate::state::{ExitKind, Journal};

/// Purges what was asked for.
pub(super) fn run(arguments: &Purge) -> Result<Exit, Failure> {
    let store = Store::open(&arguments.store.policy)?;
    store.sweep();
    let json = arguments.store.json;
    let kept = |id: &str, why: &str| json!({ "id": id, "purged": false, "why": why });
    let (ids, mut exit) = match arguments.ids.as_slice() {
        [] => (chosen(&store, arguments)?, Exit::Done),
        ids => store.resolve(ids)?.told(json.then_some(&kept))?,
    };
    if ids.is_empty() {
        if !json && arguments.ids.is_empty() {
            answer("nothing to purge")?;
        }
        return Ok(exit);
    }
    let mut journal = store.journal()?;
    for id in ids {
        match purge(&store, &mut journal, &id) {
            Ok(()) if json => answer_json(&json!({ "id": id, "purged": true }))?,
            Ok(()) => answer(&format!("{id}: purged"))?,
            Err(trouble) => {
                exit = exit.and(trouble.tell(&id));
                if json {
                    answer_json(&kept(&id, &chain::one_line(&trouble)))?;
                }
            }
        }
    }
    Ok(exit)
}

/// The items that the filters choose, if somebody has said yes.
fn chosen(store: &Store, arguments: &Purge) -> Result<Vec<String>, Failure> {
    let entries = store.entries(&Choice { rule: arguments.rule.clone(), reason: None })?;
    let ids: Vec<String> = entries
        .into_iter()
        .filter(|(_, entry)| entry.as_ref().is_ok_and(|entry| is_chosen(entry, arguments)))
        .map(|(id, _)| id)
        .collect();
    if !ids.is_empty() && !arguments.yes {
        return Err(StoreTrouble::Unconfirmed { count: ids.len() }.into());
    }
    Ok(ids)
}

fn is_chosen(Entry { record, .. }: &Entry, arguments: &Purge) -> bool {
    arguments.rule.as_ref().is_none_or(|rule| *rule == record.rule)
        && arguments.older_than.is_none_or(|age| record.is_older_than(age))
}

fn purge(store: &Store, journal: &mut Journal, id: &str) -> Result<(), ItemTrouble> {
    let locked = store.take(id)?;
    let why = format!("by uid {}", rustix::process::getuid().as_raw());
    journal.record(&locked.item().exit(ExitKind::Purged, why))?;
    store.remove(locked)
}
