//! Attaching a rule to its directories: they are there, they may be trusted, nobody else works on
//! them, and what a killed process left in them is finished.
//!
//! What fails here holds the rule, not the daemon: it is tried again, and told when the reason
//! changes.

use std::sync::Arc;

use rustix::process::{Resource, getrlimit};
use tokio::sync::watch;

use crate::chain;
use crate::daemon::batcher::Batcher;
use crate::daemon::site::{Backend, Detached, Role, Site, Unattached, mounts};
use crate::escape::quoted;
use crate::fs::flush::Flusher;
use crate::fs::private::{self, Private};
use crate::fs::trust::{self, TrustError};
use crate::fs::{Dir, FsError, root, staging};
use crate::message::log;
use crate::policy::{Batching, Mode, Rule};
use crate::sink::directory::DirectorySink;
use crate::sink::directory::quarantine::store::Store;
use crate::sink::directory::removal::{self, Removal};
use crate::sink::directory::remover::Remover;
use crate::source::POLL;
use crate::source::directory::DirectorySource;
use crate::source::directory::folder::Folder;
use crate::source::space::Space;

/// Which part of the files that the process may have open a batch may: each needs two descriptors,
/// and there are other rules.
const OPEN_SHARE: u64 = 16;

/// Why a rule cannot work now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachError {
    /// A directory is missing or may not be trusted.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A directory cannot be opened.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// Another process has the directory's lock.
    #[error("another process is watching {}", quoted(.0))]
    Locked(std::path::PathBuf),
    /// Files must be moved away, and the directory does not let the daemon.
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

/// Directories: what all rules that work in them share.
#[derive(Debug)]
pub(crate) struct Directories {
    /// Room for the copies that are being made.
    pub(crate) space: Arc<Space>,
    /// The quarantine store, where there is one.
    pub(crate) quarantine: Option<Arc<Store>>,
    /// Where files are made whose events prove that events arrive.
    pub(crate) cookies: Option<Dir>,
    /// Bytes to leave free.
    pub(crate) min_free_space: u64,
    /// Whether to make, lock and mend nothing.
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
            | AttachError::Locked(_)
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
        // The same way as when it was attached: what stands above it may have changed hands as
        // well.
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
            // One that cannot be looked at shows at the next file.
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

/// Why a rule cannot work, and what to do about it.
fn explained(error: &(dyn std::error::Error + 'static), rule: &Rule) -> String {
    let reason = chain::one_line(error);
    match mounts::hint_if_read_only(error, rule) {
        Some(hint) => format!("{reason}; {hint}"),
        None => reason,
    }
}

impl Directories {
    /// To look at directories, and change nothing.
    pub(crate) fn for_a_look() -> Self {
        Self { space: Arc::default(), quarantine: None, cookies: None, min_free_space: 0, dry_run: true }
    }

    /// Opens and checks the directories of a rule. A dry run makes, locks and mends nothing.
    ///
    /// # Errors
    /// Why it cannot work now.
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
        let private = Arc::new(Private::new(root.clone()));
        // A rule that never writes there has nothing to guard, but for what another one left under
        // an earlier policy.
        if !dry_run && (rule.writes_to_root() || private::is_there(&root)?) {
            if !private.lock()? {
                return Err(AttachError::Locked(rule.path.clone()));
            }
            for error in removal::recover(&private)? {
                log!(RemovalsNotRestored, rule = rule.name, error = chain::one_line(&error));
            }
        }
        if let (false, Some((dir, _))) = (dry_run, &destination) {
            staging::sweep(dir)?; // what lies in the root, the first scan comes upon
        }
        let disk = Arc::new(Flusher::new(destination.as_ref().map_or(&root, |(dir, _)| dir))?);
        let remover = Arc::new(Remover::new(Removal::new(Arc::clone(&private))));
        let file_system = root.file_system()?;
        let is_remote = file_system.is_remote();
        let sink = DirectorySink {
            rule: Arc::clone(rule),
            private,
            destination,
            disk,
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

/// How a rule gathers files. Of those that are delivered each keeps its copy open until it is
/// signed: no more of them than a part of the files that the process may have open. `limit` is how
/// many files that is; `None` is any number.
pub(crate) fn batching(rule: &Rule, limit: Option<u64>) -> Option<Batching> {
    let Mode::Sign(sign) = &rule.mode else { return None };
    let Batching { window, max_files } = sign.batch?;
    let share = limit.filter(|_| sign.deliver_to.is_some()).map(|limit| (limit / OPEN_SHARE).max(1));
    let share = share.and_then(|share| usize::try_from(share).ok()).unwrap_or(max_files);
    Some(Batching { window, max_files: max_files.min(share) })
}
