//! Hints: which names may have changed, from inotify by way of `notify`.
//!
//! The only file that names `notify`. A hint is never trusted and never needed: what it says is
//! looked up, and what it does not say the next scan finds (P5). The handler runs on the thread
//! that also answers `watch`, so it never blocks and never calls back; it puts names into a capped
//! set and rings a bell.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::{
    Config, ErrorKind, Event, EventKindMask, RecommendedWatcher, RecursiveMode, WatchPathConfig, Watcher as _,
};
use tokio::sync::Notify;

/// Names kept before the set gives up and asks for a scan: at 100 to 300 bytes a path, some
/// megabytes.
const MAX_NAMES: usize = 10_000;

/// What may have changed since it was last taken.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// Absolute paths that something happened to.
    pub(crate) paths: HashSet<PathBuf>,
    /// Something may have happened anywhere: scan.
    pub(crate) everything: bool,
    /// The watcher itself is no longer to be relied on: build a new one.
    pub(crate) broken: bool,
}

#[derive(Debug, Default)]
struct Shared {
    dirty: Mutex<Dirty>,
    bell: Notify,
}

impl Shared {
    fn note(&self, change: impl FnOnce(&mut Dirty)) {
        // A panic while holding the lock leaves a set that is at worst incomplete, and a scan will
        // come.
        change(&mut self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        self.bell.notify_one();
    }
}

/// A watcher of one rule's directories.
pub(crate) struct Hints {
    shared: Arc<Shared>,
    /// There until it is dropped.
    watcher: Option<RecommendedWatcher>,
    once: HashSet<PathBuf>,
}

/// Why there are no hints. The rule then lives by scanning alone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HintError {
    /// `max_user_instances` or `max_user_watches` is used up.
    #[error(
        "the inotify limit is reached; raise fs.inotify.max_user_watches and fs.inotify.max_user_instances"
    )]
    Limit,
    /// Anything else.
    #[error("cannot watch for changes")]
    Other(#[source] notify::Error),
}

impl From<notify::Error> for HintError {
    fn from(error: notify::Error) -> Self {
        match &error.kind {
            ErrorKind::MaxFilesWatch => Self::Limit,
            ErrorKind::Io(io) if matches!(io.raw_os_error(), Some(libc::EMFILE | libc::ENOSPC)) => {
                Self::Limit
            }
            ErrorKind::Generic(_)
            | ErrorKind::Io(_)
            | ErrorKind::PathNotFound
            | ErrorKind::WatchNotFound
            | ErrorKind::InvalidConfig(_) => Self::Other(error),
        }
    }
}

impl Hints {
    /// A watcher that watches nothing yet.
    ///
    /// # Errors
    /// [`HintError`]; `Limit` when the user has no inotify instance left.
    pub(crate) fn new() -> Result<Self, HintError> {
        let shared = Arc::new(Shared::default());
        let handler = {
            let shared = Arc::clone(&shared);
            move |event: notify::Result<Event>| on_event(&shared, event)
        };
        // Not IN_OPEN nor IN_ACCESS: our own hashing would flood the queue, overflow it and cause a
        // scan, which would flood it again. Not IN_MODIFY: the close, or the next sample, tells as
        // much.
        let mask = EventKindMask::CREATE
            | EventKindMask::REMOVE
            | EventKindMask::MODIFY_NAME
            | EventKindMask::MODIFY_META
            | EventKindMask::ACCESS_CLOSE;
        let watcher = RecommendedWatcher::new(handler, Config::default().with_event_kinds(mask))?;
        Ok(Self { shared, watcher: Some(watcher), once: HashSet::new() })
    }

    /// Watches one directory, not what is below it. Again for a directory already watched is as
    /// good.
    ///
    /// # Errors
    /// [`HintError`].
    pub(crate) fn watch(&mut self, dir: &Path) -> Result<(), HintError> {
        match &mut self.watcher {
            Some(watcher) => {
                // A sender may have put a link in its place by now: what happens where it leads is
                // not ours to hear (P9).
                let only_this =
                    WatchPathConfig::new(RecursiveMode::NonRecursive).with_dereference_symlinks(false);
                Ok(watcher.watch_with(dir, only_this)?)
            }
            None => Ok(()),
        }
    }

    /// [`Hints::watch`] for a directory that is not going to be replaced: the watcher's thread is
    /// asked only the first time, and need not be well after that.
    ///
    /// # Errors
    /// [`HintError`].
    pub(crate) fn watch_once(&mut self, dir: &Path) -> Result<(), HintError> {
        if !self.once.contains(dir) {
            self.watch(dir)?;
            self.once.insert(dir.to_owned());
        }
        Ok(())
    }

    /// Takes what has gathered.
    pub(crate) fn take(&self) -> Dirty {
        std::mem::take(&mut *self.shared.dirty.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until there is something to take; returns at once if something came since the last
    /// wait.
    pub(crate) async fn wait(&self) {
        self.shared.bell.notified().await;
    }
}

impl Drop for Hints {
    /// `notify` panics when it is to stop a thread that has died by itself, and waits for one that
    /// hangs (W11). So the thread is asked for a sign of life first, and by a thread that may wait;
    /// a dead one has let go of everything already.
    fn drop(&mut self) {
        let Some(watcher) = self.watcher.take() else { return };
        let parting = std::thread::Builder::new().name("watch-end".into());
        let parted = parting.spawn(move || match watcher.watched_paths() {
            Ok(_) => drop(watcher),
            Err(_) => std::mem::forget(watcher),
        });
        drop(parted); // nobody waits for it; without a thread to be had, the closure is dropped and so is the watcher
    }
}

fn on_event(shared: &Shared, event: notify::Result<Event>) {
    match event {
        // First, because a rescan event has no paths.
        Ok(event) if event.need_rescan() => shared.note(|dirty| {
            dirty.everything = true;
            dirty.broken = true; // directories made during the overflow are unwatched
        }),
        Ok(event) => shared.note(|dirty| {
            if dirty.everything {
                return;
            }
            dirty.paths.extend(event.paths);
            if dirty.paths.len() > MAX_NAMES {
                dirty.paths = HashSet::new();
                dirty.everything = true;
            }
        }),
        Err(_) => shared.note(|dirty| {
            dirty.everything = true;
            dirty.broken = true;
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn w11_a_watcher_whose_thread_has_died_is_put_away_quietly() {
        let temp = tempfile::tempdir().unwrap();
        let mut hints = Hints::new().unwrap();
        let died = Arc::new(Mutex::new(()));
        let handler = {
            let died = Arc::clone(&died);
            move |_: notify::Result<Event>| {
                let _held = died.lock().unwrap();
                panic!("the thread of a watcher dies; this is meant");
            }
        };
        hints.watcher = Some(RecommendedWatcher::new(handler, Config::default()).unwrap());
        hints.watch(temp.path()).unwrap();
        std::fs::File::create(temp.path().join("f")).unwrap();
        while !died.is_poisoned() || hints.watch(temp.path()).is_ok() {
            std::thread::yield_now();
        }
        let mut thread = None;
        if let Some(watcher) = &hints.watcher {
            thread = watcher.watched_paths().err();
        }
        assert!(thread.is_some(), "it can be told");
        drop(hints); // would panic, or be a panic of another thread, which the next line would not see
    }

    #[test]
    fn p9_what_a_link_leads_to_is_not_listened_to() {
        let temp = tempfile::tempdir().unwrap();
        for dir in ["elsewhere", "here"] {
            std::fs::create_dir(temp.path().join(dir)).unwrap();
        }
        std::os::unix::fs::symlink("elsewhere", temp.path().join("link")).unwrap();
        let mut hints = Hints::new().unwrap();
        for dir in ["link", "here"] {
            hints.watch(&temp.path().join(dir)).unwrap();
        }
        for dir in ["elsewhere", "here"] {
            std::fs::create_dir(temp.path().join(dir).join("new")).unwrap();
        }
        // Events come in order: when the second one is here, the first one is not to come.
        let mut heard = HashSet::new();
        while !heard.contains(&temp.path().join("here/new")) {
            heard.extend(hints.take().paths);
        }
        assert!(!heard.contains(&temp.path().join("link/new")), "{heard:?}");
    }
}
