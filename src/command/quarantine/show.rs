//! `kms-sig quarantine list` and `show`. Look, and touch nothing.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{ItemTrouble, Store, answer_json, both_ways, size};
use crate::cli::Choice;
use crate::command::table::{Cell, table};
use crate::command::{Failure, answer};
use crate::effect::quarantine::{Entry, Item, ItemError, Record};
use crate::escape::{Escaped, quoted};
use crate::exit::Exit;
use crate::fs::copy;
use crate::signature::MAX_LEN;
use crate::terminal::{self, Meaning, progress};

/// The heads of the table. The last column is not padded.
const HEADS: [&str; 6] = ["ID", "WHEN", "RULE", "REASON", "SIZE", "FILE"];

/// Lists items, and how much of its share each rule has used.
pub(super) fn list(store: &Store, choice: &Choice, json: bool) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    let mut items = Vec::new();
    for (id, item) in store.entries(choice)? {
        match item {
            Ok(item) => items.push(item),
            Err(error) => exit = exit.and(ItemTrouble::from(error).tell(&id)),
        }
    }
    if json {
        items.iter().try_for_each(|item| answer_json(&line(item)))?;
        return Ok(exit);
    }
    if items.is_empty() {
        let is_chosen = choice.rule.is_some() || choice.reason.is_some();
        answer(if is_chosen { "no item matches" } else { "nothing is in quarantine" })?;
        return Ok(exit);
    }
    let rows: Vec<[Cell; 6]> = items.iter().map(row).collect();
    answer(&table(HEADS, &rows, terminal::stdout()))?;
    if choice.reason.is_none() {
        answer(&format!("\n{}", shares(store, &items)))?;
    }
    Ok(exit)
}

fn row(Entry { record, path, size: bytes }: &Entry) -> [Cell; 6] {
    [
        Cell::plain(&record.id),
        Cell::plain(Escaped::text(&record.quarantined_at).to_string()),
        Cell::plain(record.shown_rule()),
        Cell::of(Some(Meaning::Bad), record.shown_reason()),
        Cell::plain(size(*bytes)),
        Cell::plain(Escaped::new(path.as_path()).to_string()),
    ]
}

/// How much of each rule is in quarantine, and how much may be.
fn shares(store: &Store, items: &[Entry]) -> String {
    let mut shares: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for item in items {
        let (count, bytes) = shares.entry(&item.record.rule).or_default();
        *count += 1;
        *bytes = bytes.saturating_add(item.size);
    }
    let line = |(rule, (count, bytes)): (&str, (usize, u64))| {
        let items = if count == 1 { "item" } else { "items" };
        let most = store.policy.rules.iter().find(|r| r.name == rule).map(|r| r.quarantine_max_size);
        let most = most.map_or("the policy has no such rule any more".to_owned(), |most| {
            format!("quarantine_max_size is {}", size(most))
        });
        format!("{}: {count} {items}, {}; {most}", Escaped::text(rule), size(bytes))
    };
    shares.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

/// An item of the list, in JSON.
fn line(Entry { record, path, size }: &Entry) -> Value {
    let (path, path_hex) = both_ways(path.as_path());
    json!({
        "id": record.id, "quarantined_at": record.quarantined_at, "rule": record.rule, "reason": record.reason,
        "size": size, "path": path, "path_hex": path_hex,
    })
}

/// Shows one item.
pub(super) fn show(store: &Store, id: &str, json: bool) -> Result<Exit, Failure> {
    let ids = store.resolve(std::slice::from_ref(&id.to_owned()))?;
    let mut exit = Exit::Done;
    for id in ids {
        let shown = store.dir.as_ref().ok_or(ItemError::Gone).and_then(|dir| Item::find(dir, &id));
        match shown.map_err(ItemTrouble::from).and_then(|item| Ok((look(&item)?, item))) {
            Ok((now, item)) if json => answer_json(&in_json(&item, &now))?,
            Ok((now, item)) => answer(&in_words(&item, &now))?,
            Err(trouble) => exit = exit.and(trouble.tell(&id)),
        }
    }
    Ok(exit)
}

/// What an item's files are now.
struct Now {
    digest: String,
    bytes: u64,
    signature: Option<(String, u64)>,
}

fn look(item: &Item) -> Result<Now, ItemTrouble> {
    let (file, stat) = item.payload()?;
    let size = stat.identity.size;
    let reading = progress::Reading::of(Some(size));
    let payload = copy::hash_counted(&file, item.folder(), size, &|len| reading.add(len))?;
    drop(reading);
    let signature = match item.signature()? {
        None => None,
        Some((file, stat)) => {
            let hashed = copy::hash(&file, item.folder(), stat.identity.size)?;
            Some((hashed.digest.to_string(), hashed.size))
        }
    };
    Ok(Now { digest: payload.digest.to_string(), bytes: payload.size, signature })
}

impl Now {
    /// Whether these are the bytes that were judged.
    fn is_as_judged(&self, record: &Record) -> bool {
        // What can be no signature has no digest on record.
        let signature = match (&self.signature, &record.signature_digest) {
            (Some((now, _)), Some(judged)) => now == judged,
            (Some(_), None) => record.signature.is_some(),
            (None, judged) => {
                judged.is_none() && record.signature.as_ref().is_none_or(|was| was.size > MAX_LEN as u64)
            }
        };
        signature && self.digest == record.digest
    }
}

fn in_words(item: &Item, now: &Now) -> String {
    let record = item.record();
    let text = |text: &str| Escaped::text(text).to_string();
    let colours = terminal::stdout();
    let payload = &record.payload;
    let mut lines = vec![
        format!("id: {}", record.id),
        format!("quarantined: {}", text(&record.quarantined_at)),
        format!("rule: {}", record.shown_rule()),
        format!("reason: {}", colours.bad(&record.shown_reason())),
        format!("file: {}", Escaped::new(item.path().as_path())),
        format!("from: {}", quoted(&record.root_path().unwrap_or_default())),
        format!("keys asked: {}", text(&record.keys.join(", "))),
        format!("lease: {}", text(&record.lease)),
        format!("size: {} bytes", payload.size),
        format!("owner: {}:{}", payload.uid, payload.gid),
        format!("mode: {}", text(&payload.mode)),
        format!("modified: {}", text(&payload.modified)),
        format!("judged sha512: {}", text(&record.digest)),
    ];
    if now.is_as_judged(record) {
        lines.push(format!("content: {}", colours.good("as it was judged")));
    } else {
        lines.push(format!("content: {}", colours.bad("changed since it was judged")));
        lines.push(format!("size now: {} bytes", now.bytes));
        lines.push(format!("sha512 now: {}", now.digest));
    }
    lines.push(match (&now.signature, &record.signature) {
        (Some((digest, bytes)), _) => format!("signature: {bytes} bytes, sha512 {digest}"),
        (None, Some(was)) if was.size > MAX_LEN as u64 => {
            format!("signature: left where it was; with {} bytes it can be none", was.size)
        }
        (None, _) => "signature: none".to_owned(),
    });
    lines.push(format!("folder: {}", quoted(item.folder())));
    lines.join("\n")
}

fn in_json(item: &Item, now: &Now) -> Value {
    let record = item.record();
    let signature = now.signature.as_ref().map(|(digest, bytes)| json!({ "digest": digest, "size": bytes }));
    json!({
        "record": record,
        "folder": both_ways(item.folder()).0,
        "now": {
            "digest": now.digest, "size": now.bytes, "signature": signature,
            "as_judged": now.is_as_judged(record),
        },
    })
}
