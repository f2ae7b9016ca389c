//! `kms-sig quarantine list` and `show`. Look, and touch nothing.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{ItemTrouble, Store};
use crate::chain;
use crate::cli::Choice;
use crate::command::answer::{answer_json, both_ways, size};
use crate::command::table::{Cell, table};
use crate::command::{Failure, answer};
use crate::digest::Digest;
use crate::digest::set::DigestRequest;
use crate::escape::{Escaped, quoted};
use crate::exit::Exit;
use crate::signature::MAX_LEN;
use crate::sink::directory::quarantine::{Entry, Item, ItemError, ReadError};
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
        match exit {
            Exit::Done => answer(if is_chosen { "no item matches" } else { "nothing is in quarantine" })?,
            Exit::Invalid | Exit::Usage | Exit::Unfinished => {} // something is there, and was reported
        }
        return Ok(exit);
    }
    let rows: Vec<[Cell; 6]> = items.iter().map(row).collect();
    answer(&table(HEADS, &rows, terminal::stdout()))?;
    if choice.reason.is_none() {
        answer(&format!("\n{}", shares(store, &items)))?;
    }
    Ok(exit)
}

fn row(Entry { record, path, size: bytes, .. }: &Entry) -> [Cell; 6] {
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
    let mut shares: BTreeMap<&str, (usize, u64, u64)> = BTreeMap::new();
    for item in items {
        let (count, bytes, share) = shares.entry(&item.record.rule).or_default();
        *count += 1;
        *bytes = bytes.saturating_add(item.size);
        *share = share.saturating_add(item.share);
    }
    let line = |(rule, (count, bytes, share)): (&str, (usize, u64, u64))| {
        let items = if count == 1 { "item" } else { "items" };
        let most = store.policy.rules.iter().find(|r| r.name == rule).map(|r| r.quarantine_max_size);
        let most = most.map_or("the policy has no such rule any more".to_owned(), |most| {
            format!("they count {} of quarantine_max_size, {}", size(share), size(most))
        });
        format!("{}: {count} {items}, {}; {most}", Escaped::text(rule), size(bytes))
    };
    shares.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

/// An item of the list, in JSON.
fn line(Entry { record, path, size, share }: &Entry) -> Value {
    let (path, path_hex) = both_ways(path.as_path());
    json!({
        "id": record.id, "quarantined_at": record.quarantined_at, "rule": record.rule, "reason": record.reason,
        "size": size, "share": share, "path": path, "path_hex": path_hex,
    })
}

/// Shows one item: its record in any case, and what its files are now, as far as that is known.
pub(super) fn show(store: &Store, id: &str, json: bool) -> Result<Exit, Failure> {
    let named = store.resolve(std::slice::from_ref(&id.to_owned()))?;
    let (ids, mut exit) = named.told(None)?;
    for id in ids {
        let shown = store.dir.as_ref().ok_or(ItemError::Gone).and_then(|dir| Item::find(dir, &id));
        let item = match shown {
            Ok(item) => item,
            Err(error) => {
                exit = exit.and(ItemTrouble::from(error).tell(&id));
                continue;
            }
        };
        let now = Now::of(&item);
        match json {
            true => answer_json(&in_json(&item, &now))?,
            false => answer(&in_words(&item, &now))?,
        }
        exit = now.troubles().fold(exit, |exit, trouble| exit.and(trouble.tell(&id)));
    }
    Ok(exit)
}

/// What an item's files are now.
struct Now {
    payload: Content,
    signature: Content,
}

/// What one file is now, beside what was judged.
enum Content {
    /// There is none, and there was none.
    None,
    /// What was judged.
    AsJudged { bytes: u64, digest: String },
    /// Something else, as long as that.
    Changed { bytes: u64, digest: String },
    /// Something longer or shorter. Not read.
    Resized { was: u64, now: u64 },
    /// There was one, and it is not here.
    Missing,
    /// Longer than any signature, when it was judged and now. Never read.
    Overlong { bytes: u64 },
    /// The same, and not taken here.
    Left { bytes: u64 },
    /// Nobody can tell.
    Unread(ItemTrouble),
}

impl Now {
    fn of(item: &Item) -> Self {
        Self { payload: Content::of_payload(item), signature: Content::of_signature(item) }
    }

    /// Whether these are the bytes that were judged; `None` if nobody can tell.
    fn is_as_judged(&self) -> Option<bool> {
        match (self.payload.is_as_judged(), self.signature.is_as_judged()) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            (None, _) | (_, None) => None,
        }
    }

    fn troubles(&self) -> impl Iterator<Item = &ItemTrouble> {
        [&self.payload, &self.signature]
            .into_iter()
            .filter_map(|content| if let Content::Unread(trouble) = content { Some(trouble) } else { None })
    }
}

impl Content {
    fn of_payload(item: &Item) -> Self {
        let (bytes, judged) = (item.record().payload.size, &item.record().digest);
        let reading = progress::Reading::of(Some(bytes));
        match item.hash_payload(DigestRequest::NONE, &|len| reading.add(len)) {
            Ok(hashed) => Self::compared(bytes, &hashed.digest, judged),
            Err(ReadError::Resized { was, now }) => Self::Resized { was, now },
            Err(error) => Self::Unread(error.into()),
        }
    }

    fn of_signature(item: &Item) -> Self {
        let was = item.record().signature.as_ref().map(|was| was.size);
        let is_overlong = |size: u64| size > MAX_LEN as u64;
        let (was, now) = match (was, item.signature_size()) {
            (None, None) => return Self::None,
            (Some(bytes), None) if is_overlong(bytes) => return Self::Left { bytes },
            (Some(_), None) => return Self::Missing,
            (was, Some(now)) => (was.unwrap_or_default(), now),
        };
        if was != now {
            return Self::Resized { was, now };
        }
        match item.read_signature() {
            Ok(Some(read)) => match (read.digest, &item.record().signature_digest) {
                (Some(digest), Some(judged)) => Self::compared(now, &digest, judged),
                (Some(digest), None) => Self::Changed { bytes: now, digest: digest.to_string() },
                (None, _) => Self::Overlong { bytes: now },
            },
            Ok(None) => Self::Missing,
            Err(error) => Self::Unread(ReadError::from(error).into()),
        }
    }

    fn compared(bytes: u64, digest: &Digest, judged: &str) -> Self {
        match digest.matches_text(judged) {
            true => Self::AsJudged { bytes, digest: digest.to_string() },
            false => Self::Changed { bytes, digest: digest.to_string() },
        }
    }

    const fn is_as_judged(&self) -> Option<bool> {
        match self {
            Self::None | Self::AsJudged { .. } | Self::Left { .. } => Some(true),
            Self::Changed { .. } | Self::Resized { .. } | Self::Missing => Some(false),
            Self::Overlong { .. } | Self::Unread(_) => None,
        }
    }

    /// Digest and size, as far as they are known.
    fn facts(&self) -> (Option<&str>, Option<u64>) {
        match self {
            Self::AsJudged { bytes, digest } | Self::Changed { bytes, digest } => {
                (Some(digest), Some(*bytes))
            }
            Self::Resized { now, .. } => (None, Some(*now)),
            Self::Overlong { bytes } => (None, Some(*bytes)),
            Self::None | Self::Missing | Self::Left { .. } | Self::Unread(_) => (None, None),
        }
    }
}

fn in_words(item: &Item, now: &Now) -> String {
    let record = item.record();
    let text = |text: &str| Escaped::text(text).to_string();
    let colours = terminal::stdout();
    let payload = &record.payload;
    let changed = colours.bad("changed since it was judged");
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
    match &now.payload {
        Content::AsJudged { .. } => lines.push(format!("content: {}", colours.good("as it was judged"))),
        Content::Changed { digest, .. } => {
            lines.extend([format!("content: {changed}"), format!("sha512 now: {digest}")]);
        }
        Content::Resized { was, now } => {
            lines.push(format!("content: {changed} ({was} bytes then, {now} now)"));
        }
        // The others are of signatures.
        Content::None | Content::Missing | Content::Overlong { .. } | Content::Left { .. } => {}
        Content::Unread(trouble) => {
            lines.push(format!("content: {}", colours.bad(&chain::one_line(trouble))));
        }
    }
    lines.push(match &now.signature {
        Content::None => "signature: none".to_owned(),
        Content::AsJudged { bytes, digest } => format!("signature: {bytes} bytes, sha512 {digest}"),
        Content::Changed { bytes, digest } => {
            format!("signature: {changed}; {bytes} bytes, sha512 {digest}")
        }
        Content::Resized { was, now } => format!("signature: {changed} ({was} bytes then, {now} now)"),
        Content::Missing => "signature: not here; when it was judged there was one".to_owned(),
        Content::Overlong { bytes } => format!("signature: never read; with {bytes} bytes it can be none"),
        Content::Left { bytes } => {
            format!("signature: left where it was; with {bytes} bytes it can be none")
        }
        Content::Unread(trouble) => format!("signature: {}", colours.bad(&chain::one_line(trouble))),
    });
    let clue = record.clue.as_ref().and_then(|clue| clue.clue());
    lines.extend(clue.map(|clue| format!("hint: {clue}")));
    lines.push(format!("folder: {}", quoted(item.folder())));
    lines.join("\n")
}

fn in_json(item: &Item, now: &Now) -> Value {
    let (digest, size) = now.payload.facts();
    let signature = match now.signature.facts() {
        (None, None) => None,
        (digest, size) => Some(json!({ "digest": digest, "size": size })),
    };
    let why: Vec<String> = now.troubles().map(|trouble| chain::one_line(trouble)).collect();
    json!({
        "record": item.record(),
        "folder": both_ways(item.folder()).0,
        "now": {
            "digest": digest, "size": size, "signature": signature, "as_judged": now.is_as_judged(),
            "why": if why.is_empty() { None } else { Some(why.join("; ")) },
        },
    })
}
