//! `kms-sig quarantine`: the store, for people.
//!
//! Works on the store itself, beside a daemon that runs: each item is locked while something is done to it, and what
//! leaves is put on record first. Believes no more of an item than [`quarantine::Item`] does, and shows no name as it is (P9).

mod judge;
mod purge;
mod release;
mod show;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Failure, answer, block_on, complain, hint};
use crate::chain;
use crate::cli::{Choice, PolicyArgs, Quarantine, Recheck};
use crate::context::ContextError;
use crate::escape::{Escaped, quoted};
use crate::exit::Exit;
use crate::fs::chown::Owner;
use crate::fs::trust::{self, TrustError};
use crate::fs::{Dir, FsError, OpenError, stat_path};
use crate::kms::Trouble;
use crate::policy::{Policy, Rollback, Rule};
use crate::signing::{Reason, Valid, Verdict};
use crate::sink::directory::quarantine;
use crate::sink::directory::quarantine::{
    Changed, Entry, Item, ItemError, Locked, Occupied, PackError, ReadError,
};
use crate::state::link::hex;
use crate::state::{FILE, Journal, StateError, export};
use crate::terminal;
use judge::{Judge, rollback};
use release::SUPERSEDED;

/// Why a command cannot work on the store, or on what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum StoreTrouble {
    /// The policy quarantines nothing.
    #[error("the policy has no [quarantine]")]
    NoStore,
    /// Only its owner and root have business there.
    #[error("the quarantine {} belongs to user {uid}", quoted(dir))]
    Foreign {
        /// The store.
        dir: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// Others could have changed what is relied on.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Others could change what is put where `--to` says. Not said to be mended there: it may be `/tmp`.
    #[error("{}", untrusted(.0))]
    To(TrustError),
    /// An id of nothing.
    #[error("nothing in quarantine has an id that begins with \"{}\"", Escaped::text(.0))]
    NoItem(String),
    /// An id too short.
    #[error("\"{}\" stands for {count} items", Escaped::text(text))]
    Ambiguous {
        /// What was written.
        text: String,
        /// How many ids begin so.
        count: usize,
    },
    /// Many items, and nobody has said yes.
    #[error("{count} {} would be purged for good", if *.count == 1 { "item" } else { "items" })]
    Unconfirmed {
        /// How many.
        count: usize,
    },
    /// Files that are released must leave the store.
    #[error("{} lies in the quarantine", quoted(.0))]
    Inside(PathBuf),
}

impl StoreTrouble {
    /// The exit code it ends the process with: in each case the command line or what it names must be changed.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Trust(TrustError::Io(_)) | Self::To(TrustError::Io(_)) => Exit::Unfinished,
            Self::NoStore
            | Self::Foreign { .. }
            | Self::Trust(_)
            | Self::To(_)
            | Self::NoItem(_)
            | Self::Ambiguous { .. }
            | Self::Unconfirmed { .. }
            | Self::Inside(_) => Exit::Usage,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoStore => "name the policy of the daemon whose quarantine is meant",
            Self::Foreign { .. } => "run this as that user, or as root",
            Self::NoItem(_) => "kms-sig quarantine list shows the ids",
            Self::Ambiguous { .. } => "write more of the id",
            Self::Unconfirmed { .. } => "look with kms-sig quarantine list, then add --yes",
            Self::Inside(_) => "name another directory",
            Self::To(TrustError::Missing(_)) => "make it, or name another directory",
            Self::To(TrustError::Owner { .. } | TrustError::Writable { .. } | TrustError::Link { .. }) => {
                "name a directory that only root or the daemon's user can write to"
            }
            Self::Trust(error) | Self::To(error) => return hint::trust(error).map(str::to_owned),
        };
        Some(hint.to_owned())
    }
}

/// What is wrong with the directory of `--to`, without advice for directories of the daemon's.
fn untrusted(error: &TrustError) -> String {
    match error {
        TrustError::Missing(path) => format!("{} does not exist", quoted(path)),
        TrustError::Owner { path, uid } => {
            format!("{} belongs to user {uid}, who could replace what is in it", quoted(path))
        }
        TrustError::Writable { path, mode } => {
            format!("{} can be written by others (mode {mode:04o})", quoted(path))
        }
        TrustError::Link { path, uid } => {
            format!("{} is a symbolic link of user {uid}, who could have it lead anywhere", quoted(path))
        }
        TrustError::Io(_)
        | TrustError::Symlink(_)
        | TrustError::Open { .. }
        | TrustError::WorldWritable { .. } => error.to_string(),
    }
}

/// Why nothing came of one item. The others are worked on all the same.
#[derive(Debug, thiserror::Error)]
enum ItemTrouble {
    #[error(transparent)]
    Item(#[from] ItemError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("not released")]
    Write(#[source] FsError),
    #[error("cannot verify it: the policy has no rule \"{}\" any more", Escaped::text(.0))]
    NoRule(String),
    #[error("cannot verify it")]
    Context(#[from] ContextError),
    #[error("cannot verify it")]
    Kms(#[source] Trouble),
    #[error("not released: {}", judge::explain(*.0))]
    Invalid(Reason),
    #[error("not released: {SUPERSEDED}, and rollback of the rule \"{}\" is \"deny\"", Escaped::text(.0))]
    Superseded(String),
    #[error("not released: the policy has no rule \"{}\" any more, so that it has no destination", Escaped::text(.0))]
    NoDestination(String),
    #[error("not released: its signature is longer than any, and was never read")]
    Overlong { forced: bool },
    #[error("it changed while it was read")]
    ReadWhileChanged,
    #[error("not released: {0}")]
    Changed(Changed),
    #[error("not released to {}: {what}", quoted(at))]
    Refused { at: PathBuf, what: Occupied },
    #[error("not released: only {free} bytes are free in {}, and min_free_space is to stay", quoted(path))]
    NoSpace { path: PathBuf, free: u64 },
    #[error(
        "not released: it came from {}, which the rule \"{rule}\" does not watch; name --to DIR",
        quoted(root)
    )]
    Moved { root: PathBuf, rule: String },
    #[error("not released")]
    Trust(#[from] TrustError),
    #[error("not put on record, so it stays")]
    State(#[from] StateError),
    #[error("released to {}, but not put on record", quoted(at))]
    Unrecorded { at: PathBuf, source: StateError },
    #[error("released to {}, and on record, but still in quarantine", quoted(at))]
    Kept { at: PathBuf, source: Box<Self> },
    #[error(transparent)]
    Fs(#[from] FsError),
}

impl From<PackError> for ItemTrouble {
    fn from(error: PackError) -> Self {
        match error {
            PackError::Read(error) => Self::Read(error),
            PackError::Write(error) => Self::Write(error),
        }
    }
}

/// For what its sender, who may still have it open, has changed.
const CHANGED: &str =
    "what was judged is gone: kms-sig quarantine show ID says what is there now, purge ID removes it";

impl ItemTrouble {
    /// Where the files are, if they were released all the same.
    const fn released(&self) -> Option<&PathBuf> {
        if let Self::Unrecorded { at, .. } | Self::Kept { at, .. } = self { Some(at) } else { None }
    }

    /// Invalid is a fact; anything else may be otherwise at the next try.
    const fn exit(&self) -> Exit {
        match self {
            Self::Invalid(_) | Self::Overlong { forced: false } => Exit::Invalid,
            Self::Item(_)
            | Self::Read(_)
            | Self::Write(_)
            | Self::NoRule(_)
            | Self::Context(_)
            | Self::Kms(_)
            | Self::Superseded(_)
            | Self::NoDestination(_)
            | Self::Overlong { forced: true }
            | Self::Changed(_)
            | Self::ReadWhileChanged
            | Self::Unrecorded { .. }
            | Self::Kept { .. }
            | Self::Refused { .. }
            | Self::NoSpace { .. }
            | Self::Moved { .. }
            | Self::Trust(_)
            | Self::State(_)
            | Self::Fs(_) => Exit::Unfinished,
        }
    }

    /// What a person can do about it, where that is not plain from the message.
    fn hint(&self) -> Option<&str> {
        match self {
            Self::Item(ItemError::Gone) => Some("kms-sig quarantine list shows what is there"),
            Self::Item(ItemError::Unfinished) => {
                Some("try again; what a killed daemon left so is tidied when it starts")
            }
            Self::Item(ItemError::Odd(_)) => {
                Some("look into its folder in the quarantine directory; nothing was done to it")
            }
            Self::Item(ItemError::Fs(error))
            | Self::Fs(error)
            | Self::Read(ReadError::Open(OpenError::Io(error)))
            | Self::Write(error) => Some(hint::directory(error)),
            Self::Read(ReadError::Resized { .. }) | Self::Changed(_) => Some(CHANGED),
            Self::ReadWhileChanged => Some("run it again when nobody writes to it any more"),
            Self::NoDestination(_) => Some("name one with --to DIR"),
            Self::Overlong { .. } => Some(
                "if its payload is needed, copy it by hand (kms-sig quarantine show ID names its folder)",
            ),
            Self::Unrecorded { source: StateError::Busy(_), .. } => Some(
                "the item stays: end the process that keeps state.db locked, then repeat the command to record it",
            ),
            Self::Unrecorded { .. } => {
                Some("the item stays: see to [state] dir, then repeat the command to record it")
            }
            Self::Kept { .. } => Some("repeat the command, which removes it"),
            Self::NoRule(_) => Some("name the rule so again, or release it with --force --to DIR"),
            Self::Kms(trouble) => Some(trouble.hint()),
            Self::Invalid(_) => Some(
                "kms-sig quarantine show ID says what it is; release --force --to DIR puts it elsewhere, unverified",
            ),
            Self::Refused { .. } => Some("look at what is there, or name another directory with --to DIR"),
            Self::Superseded(_) => Some(
                "if going back is meant, name another directory with --to DIR, or add --force, which verifies nothing",
            ),
            Self::NoSpace { .. } => Some("make room there, or name another directory with --to DIR"),
            Self::Trust(error) => hint::trust(error),
            Self::State(error) => hint::state(error),
            Self::Context(error) => hint::context(error),
            Self::Read(ReadError::Open(OpenError::Gone | OpenError::Unfit(_))) => {
                Some("its sender still had it open: look into its folder (quarantine show ID), or purge it")
            }
            // They say so.
            Self::Item(ItemError::Busy) | Self::Moved { .. } => None,
        }
    }

    /// Says it on standard error, and hands back its exit code.
    fn tell(&self, id: &str) -> Exit {
        complain(&format!("kms-sig: {}: {}", Escaped::text(id), chain::one_line(self)));
        if let Some(hint) = self.hint() {
            complain(&format!("hint: {hint}"));
        }
        self.exit()
    }
}

/// Does what was asked for.
///
/// # Errors
/// [`Failure`]; single items that resist are told and are none.
pub fn run(arguments: &Quarantine, keyring: Option<PathBuf>) -> Result<Exit, Failure> {
    match arguments {
        Quarantine::List { store, choice } => show::list(&Store::open(&store.policy)?, choice, store.json),
        Quarantine::Show { id, store } => show::show(&Store::open(&store.policy)?, id, store.json),
        Quarantine::Recheck(recheck) => self::recheck(recheck, keyring),
        Quarantine::Release(release) => release::run(release, keyring),
        Quarantine::Purge(purge) => purge::run(purge),
    }
}

/// An id, and the item or why there is none.
type Listed = (String, Result<Entry, ItemError>);

/// The line of JSON about an item that nothing came of: its id, and why.
type InJson<'a> = &'a dyn Fn(&str, &str) -> Value;

/// What ids on a command line stand for.
struct Named {
    ids: Vec<String>,
    /// Those that stand for nothing.
    missing: Vec<String>,
}

impl Named {
    /// Says which stand for nothing, `in_json` as well where answers are JSON. Hands back the others, and the exit code so
    /// far.
    fn told(self, in_json: Option<InJson<'_>>) -> Result<(Vec<String>, Exit), Failure> {
        let mut exit = Exit::Done;
        for text in self.missing {
            let trouble = StoreTrouble::NoItem(text.clone());
            complain(&format!("kms-sig: {trouble}"));
            if let Some(hint) = trouble.hint() {
                complain(&format!("hint: {hint}"));
            }
            if let Some(line) = in_json {
                answer_json(&line(&text, &trouble.to_string()))?;
            }
            exit = exit.and(trouble.exit());
        }
        Ok((self.ids, exit))
    }
}

/// A policy's store.
struct Store {
    policy: Policy,
    /// `None` if no daemon has made it yet.
    dir: Option<Dir>,
    owner: Owner,
}

impl Store {
    /// Opens the store of a policy, if this user has any business there. Makes nothing.
    fn open(arguments: &PolicyArgs) -> Result<Self, Failure> {
        let policy = Policy::load(&arguments.policy)?;
        let path = policy.quarantine_dir.as_deref().ok_or(StoreTrouble::NoStore)?;
        let Some(stat) = stat_path(path)? else {
            return Ok(Self { policy, dir: None, owner: Owner::current() });
        };
        let owner = Owner::of(&stat);
        if !owner.is_served() {
            return Err(StoreTrouble::Foreign { dir: path.to_owned(), uid: owner.uid }.into());
        }
        let dir = trust::open_private_for(path, owner).map_err(StoreTrouble::Trust)?;
        Ok(Self { policy, dir: Some(dir), owner })
    }

    /// Removes what a killed process left of items that it had let go. What resists is for the next time.
    fn sweep(&self) {
        if let Some(dir) = &self.dir {
            quarantine::sweep(dir).unwrap_or_default();
        }
    }

    /// Every item that passes, and every folder that is none although it has the name of one; oldest first.
    fn entries(&self, choice: &Choice) -> Result<Vec<Listed>, Failure> {
        let Some(dir) = &self.dir else { return Ok(Vec::new()) };
        let passes = |entry: &Entry| {
            let is =
                |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|wanted| wanted == has);
            is(&choice.rule, &entry.record.rule) && is(&choice.reason, &entry.record.reason)
        };
        let mut found: Vec<_> =
            quarantine::entries(dir)?.filter(|(_, entry)| entry.as_ref().map_or(true, passes)).collect();
        // Within a second, ids are in no order.
        let when = |found: &Listed| found.1.as_ref().map(|entry| entry.record.quarantined_at.clone()).ok();
        found.sort_by(|a, b| (when(a), &a.0).cmp(&(when(b), &b.0)));
        Ok(found)
    }

    /// The whole ids that these stand for, each once, and what stands for none: of many that somebody has looked up, one
    /// may have gone meanwhile. One that stands for several is no id; then nothing is done.
    fn resolve(&self, texts: &[String]) -> Result<Named, Failure> {
        let all = self.dir.as_ref().map(quarantine::ids).transpose()?.unwrap_or_default();
        let (mut ids, mut missing) = (Vec::new(), Vec::new());
        for text in texts {
            let mut found = all.iter().filter(|id| !text.is_empty() && id.starts_with(text));
            let Some(id) = found.next() else {
                missing.push(text.clone());
                continue;
            };
            let others = found.count();
            if others > 0 {
                return Err(StoreTrouble::Ambiguous { text: text.clone(), count: others + 1 }.into());
            }
            if !ids.contains(id) {
                ids.push(id.clone());
            }
        }
        Ok(Named { ids, missing })
    }

    /// Opens history, for what is about to leave.
    fn journal(&self) -> Result<Journal, Failure> {
        trust::check_for(&self.policy.state_dir, self.owner).map_err(StoreTrouble::Trust)?;
        Ok(Journal::open(&self.policy.state_dir)?)
    }

    /// Removes an item that is on record as gone.
    fn remove(&self, locked: Locked) -> Result<(), ItemTrouble> {
        let dir = self.dir.as_ref().ok_or(ItemError::Gone)?;
        Ok(locked.remove(dir)?)
    }

    /// Locks an item.
    fn take(&self, id: &str) -> Result<Locked, ItemError> {
        Locked::take(self.dir.as_ref().ok_or(ItemError::Gone)?, id)
    }
}

/// Verifies items again.
fn recheck(arguments: &Recheck, keyring: Option<PathBuf>) -> Result<Exit, Failure> {
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

/// The answer about an item of which nothing can be told.
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

/// Answers with one line of JSON: a record may hold what a terminal would act on.
fn answer_json(value: &Value) -> Result<(), Failure> {
    answer(&export::json(value))
}

/// A count of bytes for people.
pub(super) fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}

/// A path for JSON: as it reads, and byte for byte.
pub(super) fn both_ways(path: &Path) -> (String, String) {
    use std::os::unix::ffi::OsStrExt as _;
    (Escaped::new(path).to_string(), hex(path.as_os_str().as_bytes()))
}
