//! Attaching a rule to its directories: they exist, are safe from others and are locked, and the
//! work that a killed process left in them is finished.
//!
//! A failure here holds the rule, not the daemon. Attaching is repeated, and the reason is logged
//! when it changes.

use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::chain;
use crate::daemon::batcher::Batcher;
use crate::daemon::site::{Backend, Detached, Role, Site, Unattached, mounts};
use crate::escape::quoted;
use crate::fs::file_system::FileSystem;
use crate::fs::flush::Flusher;
use crate::fs::private::{self, Idle, Private};
use crate::fs::root_lock::{Holder, Refusal, Stranger};
use crate::fs::system::Support;
use crate::fs::trust::{self, TrustError};
use crate::fs::{Action, Dir, FsError, root, staging};
use crate::message::log;
use crate::policy::{Batching, Mode, Rule};
use crate::sink::directory::DirectorySink;
use crate::sink::directory::Publisher;
use crate::sink::directory::quarantine::store::Store;
use crate::sink::directory::removal::{self, Removal};
use crate::sink::directory::remover::Remover;
use crate::source::POLL;
use crate::source::directory::DirectorySource;
use crate::source::directory::folder::Folder;
use crate::source::space::Space;

/// A batch may use this fraction of the limit of open files: each file needs two descriptors, and
/// there are other rules.
const OPEN_SHARE: u64 = 16;

/// How long a private folder stays when nobody works in it: long enough not to be made anew, which
/// costs two flushes, for each of many files that come one after the other.
const LINGER: Duration = Duration::from_secs(1);

/// Why a rule cannot work now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    /// A directory is missing or not safe from others.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A directory cannot be opened.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// Another process has the directory's lock.
    #[error("{holder} {}", quoted(path))]
    Locked {
        /// The watched directory.
        path: std::path::PathBuf,
        /// Which.
        holder: Holder,
    },
    /// A finished file cannot be given its name there.
    #[error(
        "{} is on {file_system}, which has neither hard links nor a rename that never replaces (RENAME_NOREPLACE), so that nothing can be published there; name a directory on another file system",
        quoted(path)
    )]
    CannotPublish {
        /// Where signatures or deliveries would go.
        path: std::path::PathBuf,
        /// What it lies on.
        file_system: FileSystem,
    },
    /// The rule must move files away, and the daemon has no permission to.
    #[error(
        "{} is sticky and belongs to user {owner}, so the daemon may not move others' files out of it; chown it to the daemon's user or chmod -t it",
        quoted(path)
    )]
    Sticky {
        /// The watched directory.
        path: std::path::PathBuf,
        /// Its owner.
        owner: u32,
    },
}

/// The directory backend: what all rules on directories share.
#[derive(Debug)]
pub(crate) struct Directories {
    /// Space reserved for copies in progress.
    pub(crate) space: Arc<Space>,
    /// The quarantine store, where there is one.
    pub(crate) quarantine: Option<Arc<Store>>,
    /// The directory for cookie files, whose events prove that events arrive.
    pub(crate) cookies: Option<Dir>,
    /// Bytes to leave free.
    pub(crate) min_free_space: u64,
    /// Create, lock and recover nothing.
    pub(crate) dry_run: bool,
}

/// A rule at its directories.
pub(crate) type DirectorySite = Site<Directories>;

impl DirectorySite {
    /// The watched directory.
    pub(crate) fn folder(&self) -> &Folder {
        self.source.folder()
    }

    /// The destination, for rules that deliver.
    pub(crate) fn destination(&self) -> Option<&Dir> {
        self.sink.destination.as_ref().map(|(dir, _)| dir)
    }
}

impl Backend for Directories {
    type Source = DirectorySource;
    type Sink = DirectorySink;

    fn attach(&self, rule: &Arc<Rule>) -> Result<DirectorySite, Unattached> {
        let site = self.open(rule).map_err(|error| match error {
            AttachError::Trust(TrustError::Missing(path)) if self.dry_run && rule.create => {
                Unattached::WouldCreate(path)
            }
            error @ (AttachError::Trust(_)
            | AttachError::Fs(_)
            | AttachError::Locked { .. }
            | AttachError::CannotPublish { .. }
            | AttachError::Sticky { .. }) => Unattached::Held(explained(&error, rule)),
        })?;
        if site.folder().file_system.is_remote() {
            let every = humantime::format_duration(POLL);
            log!(EventsUnreliable, rule = rule.name, %every);
        }
        if let Some(store) = &self.quarantine {
            mounts::tell(rule, &site.folder().root, store.dir());
        }
        Ok(site)
    }

    fn check(&self, site: &DirectorySite) -> Result<(), Detached> {
        let folder = site.folder();
        site.sink.private.lock_again();
        // Checked as when it was attached: an ancestor may have changed its owner.
        let now = match root::open(&folder.rule.path) {
            Ok(dir) => dir.stat().ok(),
            Err(TrustError::Missing(_)) => None,
            Err(error) => return Err(Detached::Held(explained(&error, &folder.rule))),
        };
        let then = folder.root.stat().ok();
        if !now.zip(then).is_some_and(|(now, then)| now.is_same_place(&then)) {
            return Err(Detached::Replaced(Role::Source, folder.rule.path.clone()));
        }
        match site.destination() {
            // A destination that cannot be examined shows as an error at the next file.
            Some(dir) if !dir.is_at_its_path().unwrap_or(true) => {
                Err(Detached::Replaced(Role::Destination, dir.path().to_owned()))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn room(&self) -> Option<watch::Receiver<u64>> {
        self.quarantine.as_ref().map(|store| store.room())
    }
}

/// Why a rule cannot work, with a hint.
fn explained(error: &(dyn std::error::Error + 'static), rule: &Rule) -> String {
    let reason = chain::one_line(error);
    match mounts::hint_if_read_only(error, rule) {
        Some(hint) => format!("{reason}; {hint}"),
        None => reason,
    }
}

impl Directories {
    /// For commands that only read: changes nothing.
    pub(crate) fn for_a_look() -> Self {
        Self { space: Arc::default(), quarantine: None, cookies: None, min_free_space: 0, dry_run: true }
    }

    /// Opens and checks the directories of a rule. A dry run creates, locks and recovers nothing.
    ///
    /// # Errors
    /// Why the rule cannot work now.
    pub(crate) fn open(&self, rule: &Arc<Rule>) -> Result<DirectorySite, AttachError> {
        let dry_run = self.dry_run;
        let make = rule.create && !dry_run;
        let root = if make { root::create(&rule.path)? } else { root::open(&rule.path)? };
        let me = rustix::process::geteuid();
        let stat = root.stat()?;
        if rule.moves_files() && stat.mode & 0o1000 != 0 && stat.uid != me.as_raw() && !me.is_root() {
            return Err(AttachError::Sticky { path: rule.path.clone(), owner: stat.uid });
        }
        if !dry_run && rule.writes_to_root() {
            root.check_writable()?;
        }
        let destination = match rule.delivery() {
            Some(delivery) => {
                let dir =
                    if make { trust::create(&delivery.dir, 0o755)? } else { trust::open(&delivery.dir)? };
                if !dry_run {
                    dir.check_writable()?;
                }
                Some((dir, delivery.mode))
            }
            None => None,
        };
        let file_system = root.file_system()?;
        let private = Arc::new(Private::closed_by(root.clone(), close_later));
        // A rule that never writes there needs no private folder, unless one exists from an earlier
        // policy.
        if !dry_run && (rule.writes_to_root() || private::is_there(&root)?) {
            claim(rule, &private)?;
            if rule.writes_to_root() && !file_system.keeps_modes() {
                root.try_modes()?;
            }
        }
        if let (false, Some((dir, _))) = (dry_run, &destination) {
            staging::sweep(dir)?; // the first scan finds those in the root
            check_publishing(dir, dir)?;
        }
        if !dry_run && rule.signs_in_place() && root.has_nameless_files() == Support::No {
            check_publishing(&root, private.open()?.dir())?;
        }
        let disk = Arc::new(Flusher::new(destination.as_ref().map_or(&root, |(dir, _)| dir))?);
        let remover = Arc::new(Remover::new(Removal::new(Arc::clone(&private))));
        let publisher = Arc::new(Publisher::new(Arc::clone(&private), Arc::clone(&disk)));
        let is_remote = file_system.is_remote();
        let sink = DirectorySink {
            rule: Arc::clone(rule),
            private,
            destination,
            disk,
            publisher,
            remover,
            quarantine: self.quarantine.clone(),
            space: Arc::clone(&self.space),
            min_free_space: self.min_free_space,
        };
        let folder = Folder { rule: Arc::clone(rule), root, file_system };
        let batcher = batching(rule, getrlimit(Resource::Nofile).current).map(Batcher::new);
        Ok(Site::new(rule, DirectorySource::new(folder, self.cookies.clone()), sink, batcher, is_remote))
    }
}

/// Makes sure that no other daemon works in a rule's directory, and finishes what one that was
/// killed left there.
fn claim(rule: &Rule, private: &Private) -> Result<(), AttachError> {
    let locked = |holder| AttachError::Locked { path: rule.path.clone(), holder };
    match private.lock()? {
        None => {}
        Some(Refusal::Taken(holder)) => return Err(locked(holder)),
        Some(Refusal::Strangers(Stranger { pid, uid })) => {
            log!(LockHeldByStranger, rule = rule.name, path = %quoted(&rule.path), pid, uid);
        }
        Some(Refusal::Unavailable(error)) => {
            log!(LockUnavailable, rule = rule.name, path = %quoted(&rule.path), %error);
        }
    }
    if private::is_name_taken(private.root())? {
        log!(PrivateFolderNameTaken, rule = rule.name, path = %quoted(&rule.path));
    }
    let resisting = removal::recover(private).map_err(|error| match error.source {
        // By the lock of an earlier version.
        Errno::WOULDBLOCK => locked(Holder::Untold),
        _ => error.into(),
    })?;
    for error in resisting {
        log!(RemovalsNotRestored, rule = rule.name, error = chain::one_line(&error));
    }
    Ok(())
}

/// Closes a private folder that nobody works in, after a while.
fn close_later(idle: Idle) {
    let Ok(runtime) = Handle::try_current() else { return idle.close() };
    drop(runtime.spawn(async move {
        tokio::time::sleep(LINGER).await;
        drop(tokio::task::spawn_blocking(move || idle.close())); // nobody waits for it
    }));
}

/// Checks that signatures or deliveries can be published in a directory. Tried out in `here`, which
/// lies on the same file system and where nobody else gives names.
fn check_publishing(dir: &Dir, here: &Dir) -> Result<(), AttachError> {
    match here.try_publishing() {
        Err(e) if e.action == Action::Publish => Err(AttachError::cannot_publish(dir)),
        // What else there is shows with the first file, and may be over by then.
        Ok(()) | Err(_) => Ok(()),
    }
}

impl AttachError {
    /// That nothing can be published in this directory.
    pub(crate) fn cannot_publish(dir: &Dir) -> Self {
        let file_system = dir.file_system().unwrap_or_default();
        Self::CannotPublish { path: dir.path().to_owned(), file_system }
    }
}

/// How a rule gathers files into batches. A file that will be delivered keeps its copy open until
/// it is signed, so a batch is limited to a fraction of the open files that the process may have.
/// `limit`: that number; `None` is no limit.
pub(crate) fn batching(rule: &Rule, limit: Option<u64>) -> Option<Batching> {
    let Mode::Sign(sign) = &rule.mode else { return None };
    let Batching { window, max_files } = sign.batch?;
    let share = limit.filter(|_| sign.deliver_to.is_some()).map(|limit| (limit / OPEN_SHARE).max(1));
    let share = share.and_then(|share| usize::try_from(share).ok()).unwrap_or(max_files);
    Some(Batching { window, max_files: max_files.min(share) })
}
