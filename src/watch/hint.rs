//! Hints: which names may have changed, from inotify by way of `notify`.
//!
//! The only file that names `notify`. A hint is never trusted and never needed: what it says is looked up,
//! and what it does not say the next scan finds (P5). The handler runs on the thread that also answers
//! `watch`, so it never blocks and never calls back; it puts names into a capped set and rings a bell.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::{Config, ErrorKind, Event, EventKindMask, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// Names kept before the set gives up and asks for a scan: at 100 to 300 bytes a path, some megabytes.
const MAX_NAMES: usize = 10_000;

/// What may have changed since it was last taken.
#[derive(Debug, Default)]
pub struct Dirty {
    /// Absolute paths that something happened to.
    pub paths: HashSet<PathBuf>,
    /// Something may have happened anywhere: scan.
    pub everything: bool,
    /// The watcher itself is no longer to be relied on: build a new one.
    pub broken: bool,
}

#[derive(Debug, Default)]
struct Shared {
    dirty: Mutex<Dirty>,
    bell: Notify,
}

impl Shared {
    fn note(&self, change: impl FnOnce(&mut Dirty)) {
        // A panic while holding the lock leaves a set that is at worst incomplete, and a scan will come.
        change(&mut self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        self.bell.notify_one();
    }
}

/// A watcher of one rule's directories.
pub struct Hints {
    shared: Arc<Shared>,
    watcher: RecommendedWatcher,
}

/// Why there are no hints. The rule then lives by scanning alone.
#[derive(Debug, thiserror::Error)]
pub enum HintError {
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
    pub fn new() -> Result<Self, HintError> {
        let shared = Arc::new(Shared::default());
        let handler = {
            let shared = Arc::clone(&shared);
            move |event: notify::Result<Event>| on_event(&shared, event)
        };
        // Not IN_OPEN nor IN_ACCESS: our own hashing would flood the queue, overflow it and cause a scan,
        // which would flood it again. Not IN_MODIFY: the close, or the next sample, tells as much.
        let mask = EventKindMask::CREATE
            | EventKindMask::REMOVE
            | EventKindMask::MODIFY_NAME
            | EventKindMask::MODIFY_META
            | EventKindMask::ACCESS_CLOSE;
        let watcher = RecommendedWatcher::new(handler, Config::default().with_event_kinds(mask))?;
        Ok(Self { shared, watcher })
    }

    /// Watches one directory, not what is below it. Again for a directory already watched is as good.
    ///
    /// # Errors
    /// [`HintError`].
    pub fn watch(&mut self, dir: &Path) -> Result<(), HintError> {
        Ok(self.watcher.watch(dir, RecursiveMode::NonRecursive)?)
    }

    /// Takes what has gathered.
    pub fn take(&self) -> Dirty {
        std::mem::take(&mut *self.shared.dirty.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until there is something to take; returns at once if something came since the last wait.
    pub async fn wait(&self) {
        self.shared.bell.notified().await;
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
