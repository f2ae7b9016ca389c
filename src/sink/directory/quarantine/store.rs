//! The quarantine store as a running daemon has it: its directory, and what each rule has in it.
//!
//! Every rule has a share, `quarantine_max_size`. What would exceed it is held, and nothing is ever
//! removed to make room. What counts is what an item had when it was put away, for a sender who
//! still has it open could make it as long as they like; and no file counts for less than an
//! inode's part of a disk. The shares are counted by a walk when the daemon starts and kept in
//! memory from then on; commands that take items out change the directory's time, and while a rule
//! has no room that is looked at, and counted anew.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::clock;
use crate::clock::FileTime;
use crate::escape::quoted;
use crate::fs::trust;
use crate::fs::trust::TrustError;
use crate::fs::{Dir, FsError};
use crate::hold::{AttemptError, Hold};
use crate::policy::Rule;
use crate::sink::directory::quarantine;

/// A change of the directory younger than this when it was read may hide another one: its time
/// comes from a clock that ticks every few milliseconds.
const TICK: Duration = Duration::from_secs(1);

/// The store.
#[derive(Debug)]
pub(crate) struct Store {
    dir: Dir,
    /// What keeps it locked: a directory that nobody else can open. Shared with the store of an
    /// earlier policy.
    lock: Arc<Dir>,
    shares: Mutex<Shares>,
    /// Changes when items have gone.
    room: watch::Sender<u64>,
    short: Notify,
}

#[derive(Debug, Default)]
struct Shares {
    /// What counts of what is in the store, in bytes by rule.
    used: HashMap<String, u64>,
    /// What counts of what is on its way into it.
    reserved: HashMap<String, u64>,
    /// What came in while the store is being counted: the count may have missed it.
    meanwhile: Option<HashMap<String, u64>>,
    /// The directory's time when it was last counted, if that tells of every later change.
    counted: Option<FileTime>,
    /// Whether somebody found no room since.
    is_short: bool,
}

/// Room for one item on its way into the store.
#[derive(Debug)]
pub(crate) struct Room<'a> {
    store: &'a Store,
    rule: String,
    size: u64,
    kept: bool,
}

/// Why a store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Others may get at it.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// It cannot be read or written.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// Another daemon has it. They would take each other's items on their way for leftovers.
    #[error("another kms-sig is using the quarantine {}; stop it, or name another quarantine.dir", quoted(.0))]
    Locked(PathBuf),
}

impl Store {
    /// Opens it, making it if it is missing, and counts what is there. `held` are the stores that
    /// this daemon has so far.
    ///
    /// # Errors
    /// It cannot be trusted, written to or listed, or is another daemon's.
    pub(crate) fn open(path: &Path, held: &[Arc<Self>]) -> Result<Self, StoreError> {
        let dir = trust::create_private(path)?;
        dir.check_writable()?;
        let mut lock = None;
        for held in held {
            if held.is_at(&dir)? {
                lock = Some(Arc::clone(&held.lock));
            }
        }
        let lock = match lock {
            Some(lock) => lock,
            None if dir.lock()? => Arc::new(dir.clone()),
            None => return Err(StoreError::Locked(path.to_owned())),
        };
        let store =
            Self { dir, lock, shares: Mutex::default(), room: watch::Sender::new(0), short: Notify::new() };
        store.count()?;
        Ok(store)
    }

    fn is_at(&self, dir: &Dir) -> Result<bool, FsError> {
        let (mine, other) = (self.lock.stat()?.identity, dir.stat()?.identity);
        Ok((mine.dev, mine.ino) == (other.dev, other.ino))
    }

    /// Its directory.
    pub(crate) const fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Takes out room in the share of a rule.
    ///
    /// # Errors
    /// There is too little; whoever tends the store is told.
    pub(crate) fn reserve(&self, rule: &Rule, size: u64) -> Result<Room<'_>, AttemptError> {
        let mut shares = self.shares();
        let taken = |of: &HashMap<String, u64>| of.get(&rule.name).copied().unwrap_or_default();
        let used = taken(&shares.used).saturating_add(taken(&shares.reserved));
        let max = rule.quarantine_max_size;
        if used.saturating_add(size) > max {
            shares.is_short = true;
            self.short.notify_one();
            return Err(AttemptError::Hold(Hold::QuarantineFull { used, size, max }));
        }
        add(&mut shares.reserved, &rule.name, size);
        Ok(Room { store: self, rule: rule.name.clone(), size, kept: false })
    }

    /// Changes when items have gone, so that what is held for want of room may be tried again.
    pub(crate) fn room(&self) -> watch::Receiver<u64> {
        self.room.subscribe()
    }

    /// Waits until somebody finds no room.
    pub(crate) async fn falls_short(&self) {
        self.short.notified().await;
    }

    /// Whether somebody found no room since the last that was made.
    pub(crate) fn is_short(&self) -> bool {
        self.shares().is_short
    }

    /// Counts again if the directory changed since it was counted.
    ///
    /// # Errors
    /// It cannot be listed.
    pub(crate) fn count_if_changed(&self) -> Result<(), FsError> {
        let now = self.dir.stat()?.identity.mtime;
        if self.shares().counted == Some(now) { Ok(()) } else { self.count() }
    }

    /// Walks the store and counts every rule's share; tells who waits for room if there is more
    /// than there was.
    ///
    /// # Errors
    /// It cannot be listed. Then the shares are as they were.
    pub(crate) fn count(&self) -> Result<(), FsError> {
        let stamp = self.dir.stat()?.identity.mtime;
        self.shares().meanwhile = Some(HashMap::new());
        let walked = self.walk();
        let mut shares = self.shares();
        let meanwhile = shares.meanwhile.take().unwrap_or_default();
        let mut used = walked?;
        for (rule, size) in meanwhile {
            add(&mut used, &rule, size); // twice, if the walk saw it: too much errs on the side of holding
        }
        let has_fallen = shares.used.iter().any(|(rule, was)| used.get(rule).is_none_or(|is| is < was));
        shares.used = used;
        shares.counted = (clock::age(stamp) > TICK).then_some(stamp);
        if has_fallen {
            shares.is_short = false;
            drop(shares);
            self.room.send_modify(|n| *n += 1);
        }
        Ok(())
    }

    fn walk(&self) -> Result<HashMap<String, u64>, FsError> {
        let mut used = HashMap::new();
        for (_, entry) in quarantine::entries(&self.dir)? {
            if let Ok(entry) = entry {
                add(&mut used, &entry.record.rule, entry.share);
            }
        }
        Ok(used)
    }

    fn shares(&self) -> MutexGuard<'_, Shares> {
        // Right after every single step.
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room<'_> {
    /// The item is in the store.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let mut shares = self.store.shares();
        if let Some(reserved) = shares.reserved.get_mut(&self.rule) {
            *reserved = reserved.saturating_sub(self.size);
        }
        if self.kept {
            add(&mut shares.used, &self.rule, self.size);
            if let Some(meanwhile) = &mut shares.meanwhile {
                add(meanwhile, &self.rule, self.size);
            }
        }
    }
}

fn add(to: &mut HashMap<String, u64>, rule: &str, size: u64) {
    let sum = to.entry(rule.to_owned()).or_default();
    *sum = sum.saturating_add(size);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Policy;

    fn rule(max: u64) -> std::sync::Arc<Rule> {
        let temp = tempfile::tempdir().unwrap();
        let text = format!(
            "state.dir = \"s\"\nquarantine.dir = \"q\"\n[[watch]]\nname = \"r\"\nmode = \"verify\"\npath = \"in\"\n\
             trusted_keys = [\"arn:aws:kms:eu-west-1:111122223333:key/a\"]\nin_place = true\n\
             on_invalid = \"quarantine\"\non_missing = \"log\"\nquarantine_max_size = {max}\n"
        );
        let file = temp.path().join("policy.toml");
        std::fs::write(&file, text).unwrap();
        std::sync::Arc::clone(&Policy::load(&file).unwrap().rules[0])
    }

    fn store() -> (tempfile::TempDir, Store) {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(&temp.path().join("q"), &[]).unwrap();
        (temp, store)
    }

    #[test]
    fn a_store_is_one_daemons_under_one_policy_or_the_next() {
        let (temp, store) = store();
        let path = temp.path().join("q");
        assert!(matches!(Store::open(&path, &[]), Err(StoreError::Locked(_))));
        let held = [Arc::new(store)];
        let next = Store::open(&path, &held).unwrap();
        drop(held);
        assert!(matches!(Store::open(&path, &[]), Err(StoreError::Locked(_))));
        let held = [Arc::new(next)];
        Store::open(&temp.path().join("other"), &held).unwrap();
        drop(held);
        Store::open(&path, &[]).unwrap();
    }

    #[test]
    fn o8_items_on_their_way_share_what_is_left() {
        let (_temp, store) = store();
        let rule = rule(10);
        let first = store.reserve(&rule, 6).unwrap();
        let stop = store.reserve(&rule, 5).unwrap_err();
        assert!(
            matches!(stop, AttemptError::Hold(Hold::QuarantineFull { used: 6, size: 5, max: 10 })),
            "{stop:?}"
        );
        assert!(store.is_short());
        drop(first); // it came to nothing
        store.reserve(&rule, 10).unwrap().keep();
        store.reserve(&rule, 1).unwrap_err();
        store.reserve(&rule, 0).unwrap();
    }

    #[test]
    fn o8_counting_finds_what_has_gone_and_says_so_once() {
        let (_temp, store) = store();
        let rule = rule(10);
        let room = store.room();
        store.reserve(&rule, 10).unwrap().keep();
        store.reserve(&rule, 1).unwrap_err();
        store.count().unwrap(); // the ten bytes are in no folder
        assert!(room.has_changed().unwrap() && !store.is_short());
        store.reserve(&rule, 10).unwrap();
        let room = store.room();
        store.count().unwrap();
        assert!(!room.has_changed().unwrap());
    }

    #[test]
    fn o8_what_comes_in_while_it_counts_is_not_forgotten() {
        let (_temp, store) = store();
        let rule = rule(10);
        let late = store.reserve(&rule, 10).unwrap();
        store.shares().meanwhile = Some(HashMap::new());
        late.keep(); // after the walk went past
        let meanwhile = store.shares().meanwhile.take().unwrap();
        assert_eq!(meanwhile.get("r"), Some(&10));
    }
}
