//! A policy's store, and what is named in it.

use serde_json::Value;

use super::{ItemTrouble, StoreTrouble};
use crate::cli::{Choice, PolicyArgs};
use crate::command::answer::answer_json;
use crate::command::{Failure, complain};
use crate::exit::Exit;
use crate::fs::chown::Owner;
use crate::fs::{Dir, stat_path, trust};
use crate::policy::Policy;
use crate::sink::directory::quarantine;
use crate::sink::directory::quarantine::{Entry, ItemError, Locked};
use crate::state::Journal;

/// An id, and the item or why there is none.
pub(super) type Listed = (String, Result<Entry, ItemError>);

/// The line of JSON about an item that nothing came of: its id, and why.
pub(super) type InJson<'a> = &'a dyn Fn(&str, &str) -> Value;

/// What ids on a command line stand for.
pub(super) struct Named {
    ids: Vec<String>,
    /// Those that stand for nothing.
    missing: Vec<String>,
}

impl Named {
    /// Says which stand for nothing, `in_json` as well where answers are JSON. Hands back the
    /// others, and the exit code so far.
    pub(super) fn told(self, in_json: Option<InJson<'_>>) -> Result<(Vec<String>, Exit), Failure> {
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
pub(super) struct Store {
    pub(super) policy: Policy,
    /// `None` if no daemon has made it yet.
    pub(super) dir: Option<Dir>,
    pub(super) owner: Owner,
}

impl Store {
    /// Opens the store of a policy, if this user has any business there. Makes nothing.
    pub(super) fn open(arguments: &PolicyArgs) -> Result<Self, Failure> {
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

    /// Removes what a killed process left of items that it had let go. What resists is for the next
    /// time.
    pub(super) fn sweep(&self) {
        if let Some(dir) = &self.dir {
            quarantine::sweep(dir).unwrap_or_default();
        }
    }

    /// Every item that passes, and every folder that is none although it has the name of one;
    /// oldest first.
    pub(super) fn entries(&self, choice: &Choice) -> Result<Vec<Listed>, Failure> {
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

    /// The whole ids that these stand for, each once, and what stands for none: of many that
    /// somebody has looked up, one may have gone meanwhile. One that stands for several is no id;
    /// then nothing is done.
    pub(super) fn resolve(&self, texts: &[String]) -> Result<Named, Failure> {
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
    pub(super) fn journal(&self) -> Result<Journal, Failure> {
        trust::check_for(&self.policy.state_dir, self.owner).map_err(StoreTrouble::Trust)?;
        Ok(Journal::open(&self.policy.state_dir)?)
    }

    /// Removes an item that is on record as gone.
    pub(super) fn remove(&self, locked: Locked) -> Result<(), ItemTrouble> {
        let dir = self.dir.as_ref().ok_or(ItemError::Gone)?;
        Ok(locked.remove(dir)?)
    }

    /// Locks an item.
    pub(super) fn take(&self, id: &str) -> Result<Locked, ItemError> {
        Locked::take(self.dir.as_ref().ok_or(ItemError::Gone)?, id)
    }
}
