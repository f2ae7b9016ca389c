//! Hints: which names may have changed, from inotify by way of `notify`.
//!
//! The only file that names `notify`. A hint is never trusted and never needed: what it says is
//! looked up, and what it does not say the next scan finds (P5). The handler runs on the thread
//! that also answers `watch`, so it never blocks and never calls back; it puts names into a capped
//! set and rings a bell.
//!
//! inotify_add_watch(2) takes a path, and whoever owns a directory on the way may have put a link
//! there by then: the watch would be elsewhere, and nothing would tell. So a root is named by its
//! open descriptor, and what is below it by a path that begins there. Whatever is exchanged below
//! the root is an event in a directory that is watched already, and a scan follows, which watches
//! all of them anew.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use notify::{
    Config, ErrorKind, Event, EventKind, EventKindMask, RecommendedWatcher, RecursiveMode, WatchPathConfig,
    Watcher as _,
};
use tokio::sync::Notify;

use crate::fs::Dir;

/// Names kept before the set gives up and asks for a scan: at 100 to 300 bytes a path, some
/// megabytes.
const MAX_NAMES: usize = 10_000;

/// What may have changed since it was last taken.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// Paths that something happened to, each beginning with [`Dir::by_descriptor`] of a root.
    pub(crate) paths: HashMap<PathBuf, Change>,
    /// Something may have happened anywhere: scan.
    pub(crate) everything: bool,
    /// The watcher itself is no longer to be relied on: build a new one.
    pub(crate) broken: bool,
}

/// What happened to a path last, of what tells something of the file there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Nothing but that it may be another one, or have other attributes.
    Any,
    /// It was created, or linked to.
    Begun,
    /// A writer has closed it.
    Closed,
    /// It was moved there; its name before, if that was in a directory that is watched.
    MovedIn(Option<OsString>),
    /// It was removed, or moved away.
    Left,
}

#[derive(Debug, Default)]
struct Shared {
    dirty: Mutex<Dirty>,
    /// What was moved away last, and the number that its arrival has, too.
    departed: Mutex<Option<(usize, OsString)>>,
    bell: Notify,
}

impl Shared {
    fn note(&self, change: impl FnOnce(&mut Dirty)) {
        // A panic while holding the lock leaves a set that is at worst incomplete, and a scan will
        // come.
        change(&mut self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        self.bell.notify_one();
    }

    /// What an event says of the file at its path.
    fn change(&self, event: &Event) -> Change {
        let departed = || self.departed.lock().unwrap_or_else(PoisonError::into_inner);
        match event.kind {
            EventKind::Create(_) => Change::Begun,
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => Change::Closed,
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => {
                let from = departed().take_if(|(number, _)| Some(*number) == event.tracker());
                Change::MovedIn(from.map(|(_, name)| name))
            }
            EventKind::Modify(ModifyKind::Name(RenameMode::From)) => {
                let name = event.paths.first().and_then(|path| path.file_name());
                *departed() = event.tracker().zip(name.map(OsStr::to_owned));
                Change::Left
            }
            EventKind::Remove(_) => Change::Left,
            EventKind::Access(_) | EventKind::Modify(_) | EventKind::Any | EventKind::Other => Change::Any,
        }
    }
}

/// A watcher of one rule's directories.
pub(crate) struct Hints {
    shared: Arc<Shared>,
    /// There until it is dropped.
    watcher: Option<RecommendedWatcher>,
    /// By how the watcher names them. Open as long as it may: a number that was closed is soon
    /// another directory's.
    roots: HashMap<PathBuf, Root>,
}

/// A directory that is watched, or below which some are.
struct Root {
    dir: Dir,
    is_watched: bool,
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

impl HintError {
    /// `dir` is the directory in question, as people know it.
    fn new(error: notify::Error, dir: Option<PathBuf>) -> Self {
        let error = notify::Error { paths: dir.into_iter().collect(), ..error };
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
        let config = Config::default().with_event_kinds(mask);
        let watcher = RecommendedWatcher::new(handler, config).map_err(|e| HintError::new(e, None))?;
        Ok(Self { shared, watcher: Some(watcher), roots: HashMap::new() })
    }

    /// Watches the directory `below` a root, or with an empty path the root, and not what is below
    /// that. Again for a directory already watched is as good. One that is not there any more is
    /// not watched: where it was, that is an event.
    ///
    /// # Errors
    /// [`HintError`].
    pub(crate) fn watch(&mut self, root: &Dir, below: &Path) -> Result<(), HintError> {
        let Some(watcher) = &mut self.watcher else { return Ok(()) };
        let at = root.by_descriptor();
        let known = self.roots.entry(at.clone());
        let entry = known.or_insert_with(|| Root { dir: root.clone(), is_watched: false });
        let is_root = below.as_os_str().is_empty();
        let path = if is_root { at } else { at.join(below) };
        if !is_root {
            // notify takes a path that it knows for watched, wherever the watch is, and does not
            // forget what is below a name that it does not watch itself. What happens until the new
            // watch is there is seen by whoever lists the directory after that.
            watcher.unwatch(&path).unwrap_or_default();
        }
        // Below the root a sender may have put a link in its place by now: what happens where it
        // leads is not ours to hear (P9).
        let only_this = WatchPathConfig::new(RecursiveMode::NonRecursive).with_dereference_symlinks(is_root);
        match watcher.watch_with(&path, only_this) {
            Ok(()) => {
                entry.is_watched |= is_root;
                Ok(())
            }
            Err(_) if entry.dir.descend(below).is_err() => Ok(()),
            Err(error) => Err(HintError::new(error, Some(root.path().join(below)))),
        }
    }

    /// [`Hints::watch`] for a root whose watch is not going to end: the watcher's thread is asked
    /// only the first time, and need not be well after that.
    ///
    /// # Errors
    /// [`HintError`].
    pub(crate) fn watch_once(&mut self, root: &Dir) -> Result<(), HintError> {
        match self.roots.get(&root.by_descriptor()) {
            Some(Root { is_watched: true, .. }) => Ok(()),
            Some(_) | None => self.watch(root, Path::new("")),
        }
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
        let roots = std::mem::take(&mut self.roots);
        let parting = std::thread::Builder::new().name("watch-end".into());
        let parted = parting.spawn(move || {
            match watcher.watched_paths() {
                Ok(_) => drop(watcher),
                Err(_) => std::mem::forget(watcher),
            }
            drop(roots);
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
        // Both names once more, after what is told of each.
        Ok(Event { kind: EventKind::Modify(ModifyKind::Name(RenameMode::Both)), .. }) => {}
        Ok(event) => {
            let change = shared.change(&event);
            shared.note(|dirty| {
                if dirty.everything {
                    return;
                }
                for path in event.paths {
                    let last = dirty.paths.entry(path).or_insert(Change::Any);
                    if change != Change::Any {
                        last.clone_from(&change);
                    }
                }
                if dirty.paths.len() > MAX_NAMES {
                    dirty.paths = HashMap::new();
                    dirty.everything = true;
                }
            });
        }
        Err(_) => shared.note(|dirty| {
            dirty.everything = true;
            dirty.broken = true;
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir(path: &Path) -> Dir {
        Dir::open(path).unwrap()
    }

    #[test]
    fn w11_a_watcher_whose_thread_has_died_is_put_away_quietly() {
        let temp = tempfile::tempdir().unwrap();
        let (root, here) = (dir(temp.path()), Path::new(""));
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
        hints.watch(&root, here).unwrap();
        std::fs::File::create(temp.path().join("f")).unwrap();
        while !died.is_poisoned() || hints.watch(&root, here).is_ok() {
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
        let (root, mut hints) = (dir(temp.path()), Hints::new().unwrap());
        for dir in ["link", "here"] {
            hints.watch(&root, Path::new(dir)).unwrap();
        }
        for dir in ["elsewhere", "here"] {
            std::fs::create_dir(temp.path().join(dir).join("new")).unwrap();
        }
        // Events come in order: when the second one is here, the first one is not to come.
        let mut heard = std::collections::HashSet::new();
        while !heard.contains(Path::new("here/new")) {
            let paths = hints.take().paths.into_iter();
            heard.extend(paths.map(|(path, _)| path.strip_prefix(root.by_descriptor()).unwrap().to_owned()));
        }
        assert!(!heard.contains(Path::new("link/new")), "{heard:?}");
    }

    #[test]
    fn a_directory_that_went_before_it_was_watched_is_no_fault_and_one_that_cannot_be_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let (root, mut hints) = (dir(temp.path()), Hints::new().unwrap());
        hints.watch(&root, Path::new("gone/below")).unwrap();
        let error = HintError::new(notify::Error::generic("why"), Some(temp.path().join("sub")));
        let told = crate::chain::one_line(&error);
        assert!(told.contains("why") && told.contains(temp.path().to_str().unwrap()), "{told}");
        assert!(!told.contains("/proc"), "{told}");
    }
}
