//! Reads one `[[watch]]` table.
//!
//! What concerns several rules or other tables goes to [`CrossChecks`], so that an incomplete rule
//! still takes part in those checks. Never touches the directories that a rule names.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use super::control_files;
use super::fault::Report;
use super::grammar::{BATCH, ModeName, WATCH};
use super::owner::{PASSWD, uid_of};
use super::pattern::{self, List};
use super::place::{Place, Role, Whose};
use super::reader::{Field, Least, Table};
use super::{
    AcceptBatch, Batching, ControlFiles, Delivery, Mode, OnInvalid, OnStale, Patterns, Place as Destination,
    Rollback, Rule, SignRule, VerifyRule,
};
use crate::context::{ContextTemplate, Filling};
use crate::escape::Escaped;
use crate::key::{KeyArn, KeyId, Provider};

/// Default of `settle` in sign rules: clients whose connection drops close the file, sleep for up
/// to ten seconds and come back to append (wget).
const SETTLE_SIGN: Duration = Duration::from_secs(15);
/// The same in verify rules, where the signature tells what is complete.
const SETTLE_VERIFY: Duration = Duration::from_secs(2);
/// Default of `signature_timeout`.
pub(crate) const SIGNATURE_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// Default of `max_size`, in bytes: 16 GiB.
const MAX_SIZE: u64 = 16 << 30;
/// Default of `quarantine_max_size`, in bytes: 32 GiB, two of the largest files.
const QUARANTINE_MAX_SIZE: u64 = 32 << 30;
/// Default of `deliver_mode`.
const DELIVER_MODE: u32 = 0o644;
/// What is longer is more likely a slip of the unit than meant.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// As [`DAY`], for signatures that people bring.
const MONTH: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// As [`DAY`], for what is kept as evidence.
const DECADE: Duration = Duration::from_secs(315_576_000);
/// The shortest window of a batch: below it, waiting gains nothing.
const SHORTEST_WINDOW: Duration = Duration::from_millis(10);
/// The longest window of a batch: a file that is ready should not wait for longer.
const LONGEST_WINDOW: Duration = Duration::from_secs(60);
/// The most files of a batch.
const MAX_BATCH: i128 = crate::signature::batch::MAX_SIZE as i128;
/// The longest name of a rule, in bytes.
const MAX_NAME: usize = 64;

/// What rules ask of the rest of the policy.
#[derive(Default)]
pub(super) struct CrossChecks<'t> {
    /// Names, with the line of their rule.
    names: Vec<(&'t str, usize)>,
    /// Every place that a rule names.
    pub(super) places: Vec<Place>,
    /// The first entry that quarantines.
    pub(super) quarantine: Option<(Field<'t>, Whose)>,
    /// The first entry that names a local key.
    pub(super) keyring: Option<(Field<'t>, Whose)>,
}

/// One rule being read.
struct Draft<'a, 't> {
    table: Table<'t>,
    whose: Whose,
    /// Its mode, or the one it probably has.
    mode: Option<ModeName>,
    base: &'a Path,
    cross_checks: &'a mut CrossChecks<'t>,
}

/// Reads a rule whose table begins on `line`. `base` is where relative paths begin.
pub(super) fn read<'t>(
    entries: &'t DeTable<'t>,
    line: usize,
    base: &Path,
    report: &'t Report,
    cross_checks: &mut CrossChecks<'t>,
) -> Option<Rule> {
    let mode = mode_of(entries);
    let table = Table::open(&WATCH, entries, line, mode, report);
    let mode = mode.or_else(|| guess_mode(entries));
    let mut draft = Draft { table, whose: Whose { name: None, line }, mode, base, cross_checks };
    let name = draft.name();
    draft.whose.name = name.map(str::to_owned);
    let named_mode = draft.require("mode").and_then(|field| field.word(&MODES));
    let path = draft.watched();
    let include = draft.patterns("include", List::Include);
    let exclude = draft.patterns("exclude", List::Exclude);
    let common = |name| draft.table.find(name);
    let recursive = common("recursive").and_then(|f| f.boolean()).unwrap_or(false);
    let settle = common("settle").and_then(|f| f.duration(Least::AboveZero, DAY));
    let prompt = common("prompt").and_then(|f| f.boolean()).unwrap_or(true);
    let control_files = common("control_files").and_then(|f| control_files(&f));
    let max_size = common("max_size").and_then(|f| f.size(1)).unwrap_or(MAX_SIZE);
    let max_links = common("max_links").and_then(|f| f.number(1..=u32::MAX.into())).unwrap_or(1);
    let allowed_owners = common("allowed_owners").and_then(|f| owners(&f));
    let create = common("create").and_then(|f| f.boolean()).unwrap_or(false);
    let quarantine_max_size = draft.table.find("quarantine_max_size").and_then(|f| f.size(1));
    let quarantine_keep =
        draft.table.find("quarantine_keep").and_then(|f| f.duration(Least::AboveZero, DECADE));
    let context = draft.context();
    let mode = match mode? {
        ModeName::Sign => Mode::Sign(draft.sign(&context)?),
        ModeName::Verify => Mode::Verify(draft.verify()?),
    };
    let default_settle = match &mode {
        Mode::Sign(_) => SETTLE_SIGN,
        Mode::Verify(_) => SETTLE_VERIFY,
    };
    named_mode?;
    draft.needs_quarantine(&mode);
    Some(Rule {
        name: name?.to_owned(),
        line,
        path: path?,
        recursive,
        include,
        exclude,
        control_files: control_files.unwrap_or_default(),
        settle: settle.unwrap_or(default_settle),
        prompt,
        max_size,
        max_links,
        allowed_owners,
        create,
        context,
        quarantine_max_size: quarantine_max_size.unwrap_or(QUARANTINE_MAX_SIZE),
        quarantine_keep,
        mode,
    })
}

const MODES: [(&str, ModeName); 2] =
    [(ModeName::Sign.as_str(), ModeName::Sign), (ModeName::Verify.as_str(), ModeName::Verify)];
const ON_INVALID: [(&str, OnInvalid); 2] = [("quarantine", OnInvalid::Quarantine), ("log", OnInvalid::Log)];
const ON_STALE: [(&str, OnStale); 3] =
    [("resign", OnStale::Resign), ("report", OnStale::Report), ("quarantine", OnStale::Quarantine)];
const ROLLBACK: [(&str, Rollback); 3] =
    [("off", Rollback::Off), ("alert", Rollback::Alert), ("deny", Rollback::Deny)];

/// `control_files`: a list, which may be empty.
fn control_files(field: &Field<'_>) -> Option<ControlFiles> {
    let entries = field.list()?;
    if entries.len() > control_files::MAX {
        let most = control_files::MAX;
        field.fault(format!("the list has {} endings, and at most {most} are taken", entries.len()));
        return None;
    }
    let mut endings = Vec::new();
    for entry in entries {
        let Some(ending) = entry.text() else { continue };
        match control_files::check(ending) {
            Ok(()) => endings.push(ending.to_owned()),
            Err(error) => entry.fault(error),
        }
    }
    Some(ControlFiles::new(endings))
}

/// The mode a rule names, if it names one.
fn mode_of(entries: &DeTable<'_>) -> Option<ModeName> {
    let word = entries.iter().find(|(key, _)| key.get_ref() == "mode")?.1.get_ref().as_str()?;
    MODES.iter().find(|(name, _)| *name == word).map(|(_, mode)| *mode)
}

/// The mode a rule probably has, so that the rest of it is checked too when `mode` is missing or
/// misspelt.
fn guess_mode(entries: &DeTable<'_>) -> Option<ModeName> {
    let has = |name: &str| entries.iter().any(|(key, _)| key.get_ref() == name);
    match (has("key"), has("trusted_keys")) {
        (true, false) => Some(ModeName::Sign),
        (false, true) => Some(ModeName::Verify),
        (true, true) | (false, false) => None,
    }
}

impl<'t> Draft<'_, 't> {
    fn require(&self, name: &str) -> Option<Field<'t>> {
        self.table.require(name, &self.whose)
    }

    fn name(&mut self) -> Option<&'t str> {
        let field = self.require("name")?;
        let name = field.text()?;
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(fits) {
            let shown = Escaped::text(name);
            field.fault(format!(
                "\"{shown}\" is no name; write 1 to {MAX_NAME} letters, digits, '.', '_' or '-'"
            ));
            return None;
        }
        if let Some((_, line)) = self.cross_checks.names.iter().find(|(other, _)| *other == name) {
            field.conflict(format!("\"{name}\" is the name of the rule on line {line} too; write another"));
        }
        self.cross_checks.names.push((name, self.table.line));
        Some(name)
    }

    fn watched(&mut self) -> Option<PathBuf> {
        let field = self.require("path")?;
        let path = field.path(self.base)?;
        self.cross_checks.places.push(Place::new(Role::Watched(self.whose.clone()), field.line, &path));
        Some(path)
    }

    fn patterns(&self, name: &str, list: List) -> Option<Patterns> {
        let field = self.table.find(name)?;
        let entries = field.list()?;
        let mut sources = Vec::new();
        for entry in &entries {
            let Some(source) = entry.text() else {
                continue;
            };
            match pattern::check(source, list) {
                Err(error) => entry.fault(error),
                Ok(()) => sources.push(source.to_owned()),
            }
        }
        if entries.is_empty() && list == List::Include {
            field.fault("the list is empty, so no file would be handled; list patterns, or leave it out");
        }
        Patterns::new(sources).map_err(|error| field.fault(error)).ok()
    }

    fn context(&self) -> ContextTemplate {
        let mut template = ContextTemplate::default();
        let Some(field) = self.table.find("context") else {
            return template;
        };
        for (key, value) in field.pairs().unwrap_or_default() {
            let Some(text) = value.text() else {
                continue;
            };
            if let Err(error) = template.insert(key, text) {
                value.fault(error);
            }
            // Looked for in this pair alone: among all of them, long lists would take minutes.
            let mut pair = ContextTemplate::default();
            let of_signer = pair.insert(key, text).is_ok()
                && pair.placeholders().any(|(_, hole)| hole.is_of_the_signer());
            if of_signer && self.mode == Some(ModeName::Verify) {
                value.fault(format!(
                    "\"{}\" uses {{watch}} or {{hostname}}, but a verifier's rule and host are not the signer's; \
                     write out what they were for the signer",
                    Escaped::text(key)
                ));
            }
        }
        let shortest = Filling { relpath: Path::new(""), watch: "", hostname: "" };
        if let Err(error) = template.expand(shortest) {
            field.fault(format!("{error}; shorten it"));
        }
        template
    }

    fn sign(&mut self, context: &ContextTemplate) -> Option<SignRule> {
        let key = self.require("key").and_then(|field| self.key(field));
        let on_stale = self.table.find("on_stale").and_then(|field| {
            let on_stale = field.word(&ON_STALE)?;
            if on_stale == OnStale::Quarantine {
                self.wants_quarantine(field);
            }
            Some(on_stale)
        });
        let deliver_to = self.delivery();
        let batch = self.table.find("batch").map(|field| self.batching(&field, context));
        let batch = match batch {
            Some(None) => return None, // what was meant is unknown, and the fault is reported
            Some(batching) => batching,
            None => None,
        };
        Some(SignRule { key: key?, on_stale: on_stale.unwrap_or(OnStale::Report), deliver_to, batch })
    }

    fn batching(&self, field: &Field<'t>, context: &ContextTemplate) -> Option<Batching> {
        let table = Table::open(&BATCH, field.entries()?, field.line, None, self.table.report);
        let whose = format!("`batch` of {}", self.whose);
        let window = table.require("window", &whose);
        let window = window.and_then(|field| field.duration(Least::Of(SHORTEST_WINDOW), LONGEST_WINDOW));
        let max_files = table.require("max_files", &whose).and_then(|field| field.number(2..=MAX_BATCH));
        let shortest = Filling { relpath: Path::new(""), watch: "", hostname: "" };
        // What is wrong with the context itself was said before.
        if let Ok(shared) = context.expand(shortest)
            && let Err(error) = shared.of_batch(&context.leaf_keys())
        {
            field.conflict(format!(
                "with the names of the keys that KMS does not see, {error}; shorten the context"
            ));
        }
        Some(Batching { window: window?, max_files: max_files? })
    }

    fn verify(&mut self) -> Option<VerifyRule> {
        let trusted_keys = self.require("trusted_keys").and_then(|field| self.trusted_keys(field));
        let place = self.destination();
        let on_invalid = self.on_invalid("on_invalid");
        let on_missing = self.on_invalid("on_missing");
        let find = |name| self.table.find(name);
        let signature_timeout = find("signature_timeout").and_then(|f| f.duration(Least::AboveZero, MONTH));
        let grace = find("grace").and_then(|f| f.duration(Least::Zero, DAY));
        let rollback = find("rollback").and_then(|f| f.word(&ROLLBACK));
        let accept_batch = match find("accept_batch").and_then(|f| f.boolean()) {
            Some(true) => AcceptBatch::Yes,
            Some(false) | None => AcceptBatch::No,
        };
        Some(VerifyRule {
            trusted_keys: trusted_keys?,
            place: place?,
            on_invalid: on_invalid?,
            on_missing: on_missing?,
            signature_timeout: signature_timeout.unwrap_or(SIGNATURE_TIMEOUT),
            grace,
            rollback: rollback.unwrap_or(Rollback::Off),
            accept_batch,
        })
    }

    fn key(&mut self, field: Field<'t>) -> Option<KeyId> {
        let key: KeyId = field.text()?.parse().map_err(|error| field.fault(error)).ok()?;
        self.wants_keyring(field, key.provider());
        Some(key)
    }

    fn trusted_keys(&mut self, field: Field<'t>) -> Option<Vec<KeyArn>> {
        let entries = field.list()?;
        if entries.is_empty() {
            field.fault("the list is empty, so nothing could be valid; name the keys that may vouch");
        }
        let mut keys = Vec::new();
        let mut seen = HashSet::new();
        for entry in entries {
            let Some(text) = entry.text() else {
                continue;
            };
            match text.parse::<KeyArn>() {
                Err(error) => entry.fault(error),
                Ok(key) if !seen.insert(key.clone()) => {
                    entry.fault(format!("\"{key}\" is listed twice; list it once"))
                }
                Ok(key) => {
                    self.wants_keyring(entry, key.to_key_id().provider());
                    keys.push(key);
                }
            }
        }
        Some(keys)
    }

    fn on_invalid(&mut self, name: &str) -> Option<OnInvalid> {
        let field = self.require(name)?;
        let action = field.word(&ON_INVALID)?;
        if action == OnInvalid::Quarantine {
            self.wants_quarantine(field);
        }
        Some(action)
    }

    /// Exactly one of `deliver_to` and `in_place = true`.
    fn destination(&mut self) -> Option<Destination> {
        let to = self.table.find("deliver_to");
        let delivery = self.delivery();
        let in_place = match self.table.find("in_place").map(|field| (field, field.boolean())) {
            // What was meant is unknown, and the fault is reported.
            Some((_, None)) => return None,
            Some((field, Some(true))) => Some(field),
            Some((_, Some(false))) | None => None,
        };
        match (in_place, to) {
            (Some(field), Some(to)) => {
                let line = to.line;
                field.conflict(format!(
                    "valid pairs cannot also go to deliver_to (line {line}); keep one of the two"
                ));
                None
            }
            (Some(_), None) => Some(Destination::InPlace),
            (None, Some(_)) => Some(Destination::Deliver(delivery?)),
            (None, None) => {
                let whose = &self.whose;
                self.table.report.fault_of_whole(
                    self.table.line,
                    format!(
                        "{whose} does not say where valid pairs go; write deliver_to = \"/srv/kms-sig/verified\", \
                         or in_place = true to leave them where they are"
                    ),
                );
                None
            }
        }
    }

    fn delivery(&mut self) -> Option<Delivery> {
        let mode = self.table.find("deliver_mode");
        let Some(field) = self.table.find("deliver_to") else {
            if let Some(mode) = mode {
                mode.conflict("nothing is delivered without deliver_to; remove it, or write deliver_to");
            }
            return None;
        };
        let mode = mode.and_then(|mode| deliver_mode(&mode)).unwrap_or(DELIVER_MODE);
        let dir = field.path(self.base)?;
        self.cross_checks.places.push(Place::new(Role::Delivery(self.whose.clone()), field.line, &dir));
        Some(Delivery { dir, mode })
    }

    /// What says how to quarantine is a mistake where nothing is ever quarantined.
    fn needs_quarantine(&self, mode: &Mode) {
        if mode.quarantines() {
            return;
        }
        let hint = match mode {
            Mode::Sign(_) => "on_stale = \"quarantine\"",
            Mode::Verify(_) => "on_invalid = \"quarantine\"",
        };
        for name in ["quarantine_max_size", "quarantine_keep"] {
            if let Some(field) = self.table.find(name) {
                field.conflict(format!(
                    "nothing of this rule is ever quarantined; remove it, or write {hint}"
                ));
            }
        }
    }

    fn wants_quarantine(&mut self, field: Field<'t>) {
        self.cross_checks.quarantine.get_or_insert((field, self.whose.clone()));
    }

    fn wants_keyring(&mut self, field: Field<'t>, provider: Provider) {
        if provider == Provider::Local {
            self.cross_checks.keyring.get_or_insert((field, self.whose.clone()));
        }
    }
}

/// Permission bits as `chmod` takes them: three octal digits, or four with a leading zero.
fn deliver_mode(field: &Field<'_>) -> Option<u32> {
    let text = field.text()?;
    let shown = Escaped::text(text);
    let octal = matches!(text.len(), 3 | 4) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
    let Some(mode) = u32::from_str_radix(text, 8).ok().filter(|_| octal) else {
        field.fault(format!("\"{shown}\" is no mode; write octal digits, such as \"0644\""));
        return None;
    };
    if mode & 0o7000 != 0 {
        field.fault(format!(
            "\"{shown}\" has set-id or sticky bits, which are never delivered; write \"0{:03o}\"",
            mode & 0o777
        ));
        return None;
    }
    if mode & 0o400 == 0 {
        field.fault(format!("\"{shown}\" keeps the owner from reading; write \"0{:03o}\"", mode | 0o400));
        return None;
    }
    Some(mode)
}

fn owners(field: &Field<'_>) -> Option<Vec<u32>> {
    let entries = field.list()?;
    if entries.is_empty() {
        field.fault("the list is empty, so no file would be handled; list users, or leave it out for anyone");
    }
    let mut owners: Vec<u32> = entries.iter().filter_map(owner).collect();
    owners.sort_unstable();
    owners.dedup();
    Some(owners)
}

fn owner(entry: &Field<'_>) -> Option<u32> {
    if entry.is_number() {
        // The largest number means "no user" (chown(2)).
        return entry.number(0..=i128::from(u32::MAX) - 1);
    }
    let name = entry.text_or("a user name or user id")?;
    let shown = Escaped::text(name);
    let passwd = match std::fs::read(PASSWD) {
        Ok(passwd) => passwd,
        Err(error) => {
            entry.fault(format!("cannot look up \"{shown}\" in {PASSWD}: {error}; write the user id"));
            return None;
        }
    };
    let uid = uid_of(&passwd, name);
    if uid.is_none() {
        entry.fault(format!(
            "there is no user \"{shown}\" in {PASSWD}; write an existing name, or the user id as a number"
        ));
    }
    uid
}
