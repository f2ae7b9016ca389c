//! Attaching a rule to its directories: they are there, they may be trusted, nobody else works on them, and
//! what a killed process left in them is finished.
//!
//! What fails here holds the rule, not the daemon: it is tried again, and told when the reason changes.

use std::sync::{Arc, Mutex};

use rustix::process::{Resource, getrlimit};

use crate::chain;
use crate::clock::Moment;
use crate::daemon::batcher::Batcher;
use crate::daemon::decide::Brake;
use crate::daemon::fair_semaphore::Queue;
use crate::daemon::pipeline::Site;
use crate::daemon::remover::Remover;
use crate::daemon::roots::Roots;
use crate::daemon::worker::{POLL, REATTACH, Worker, mounts};
use crate::escape::quoted;
use crate::fs::flush::Flusher;
use crate::fs::private;
use crate::fs::private::Private;
use crate::fs::trust;
use crate::fs::trust::TrustError;
use crate::fs::{FsError, root, staging};
use crate::kms::Kms;
use crate::policy::{Batching, Mode, Rule};
use crate::sink::directory::removal;
use crate::sink::directory::removal::Removal;

/// Which part of the files that the process may have open a batch may: each needs two descriptors, and there are other
/// rules.
const OPEN_SHARE: u64 = 16;

/// Why a rule cannot work now.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
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

impl<K: Kms> Worker<K> {
    /// Attaches, or says why not and sets the time of the next attempt.
    pub(crate) fn attach(&mut self, now: Moment) {
        match self.beat.at_disk(|| site(&self.rule, self.line.dry_run)) {
            Ok(site) => {
                if self.attach_told.take().is_some() {
                    tracing::info!(rule = self.rule.name, "the directories are there again");
                }
                if site.is_remote {
                    let every = humantime::format_duration(POLL);
                    tracing::info!(
                        rule = self.rule.name,
                        %every,
                        "events cannot be relied on there; scanning often instead"
                    );
                }
                self.beat.at_disk(|| mounts::tell(&self.line, &site));
                self.site = Some(Arc::new(Site { refusals: Arc::clone(&self.refusals), ..site }));
                self.unswept = true;
                self.next_scan = now;
            }
            Err(AttachError::Trust(TrustError::Missing(path))) if self.line.dry_run && self.rule.create => {
                tracing::info!(rule = self.rule.name, path = %quoted(&path), "dry run: would create");
                self.next_attach = now + REATTACH;
            }
            Err(error) => {
                self.cannot_work(&error, now);
            }
        }
    }

    /// Says why the rule cannot work, if that was not said before, and sets the time of the next attempt.
    pub(crate) fn cannot_work(&mut self, error: &(dyn std::error::Error + 'static), now: Moment) {
        let mut reason = chain::one_line(error);
        if let Some(hint) = mounts::hint_if_read_only(error, &self.rule) {
            reason = format!("{reason}; {hint}");
        }
        if self.attach_told.as_ref() != Some(&reason) {
            tracing::error!(rule = self.rule.name, reason, "held: the rule cannot work");
            self.attach_told = Some(reason);
        }
        self.next_attach = now + REATTACH;
    }
}

/// Opens and checks the directories of a rule. A rehearsal makes, locks and mends nothing.
pub(crate) fn site(rule: &Arc<Rule>, dry_run: bool) -> Result<Site, AttachError> {
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
            let dir = if make { trust::create(&delivery.dir, 0o755)? } else { trust::open(&delivery.dir)? };
            if !dry_run {
                dir.check_writable()?;
            }
            Some(dir)
        }
        None => None,
    };
    let private = Arc::new(Private::new(root.clone()));
    // A rule that never writes there has nothing to guard, but for what another one left under an earlier policy.
    if !dry_run && (rule.writes_to_root() || private::is_there(&root)?) {
        if !private.lock()? {
            return Err(AttachError::Locked(rule.path.clone()));
        }
        for error in removal::recover(&private)? {
            tracing::error!(
                rule = rule.name,
                error = chain::one_line(&error),
                "what an earlier run had claimed is not back; see .kms-sig in the watched directory"
            );
        }
    }
    if let (false, Some(dir)) = (dry_run, &destination) {
        staging::sweep(dir)?; // what lies in the root, the first scan comes upon
    }
    let disk = Flusher::new(destination.as_ref().unwrap_or(&root))?;
    let remover = Arc::new(Remover::new(Removal::new(Arc::clone(&private))));
    let is_remote = root.is_remote()?;
    Ok(Site {
        rule: Arc::clone(rule),
        fingerprint: rule.fingerprint(),
        other_format: rule.fingerprint_but_for_format(),
        batcher: batching(rule, getrlimit(Resource::Nofile).current).map(Batcher::new),
        leaf_keys: rule.context.leaf_keys(),
        roots: Roots::default(),
        is_remote,
        queue: Queue::new(is_remote),
        root,
        private,
        destination,
        disk,
        remover,
        brake: Mutex::new(Brake::default()),
        refusals: Arc::default(),
    })
}

/// How a rule gathers files. Of those that are delivered each keeps its copy open until it is signed: no more of them
/// than a part of the files that the process may have open.
/// `limit` is how many files that is; `None` is any number.
pub(crate) fn batching(rule: &Rule, limit: Option<u64>) -> Option<Batching> {
    let Mode::Sign(sign) = &rule.mode else { return None };
    let Batching { window, max_files } = sign.batch?;
    let share = limit.filter(|_| sign.deliver_to.is_some()).map(|limit| (limit / OPEN_SHARE).max(1));
    let share = share.and_then(|share| usize::try_from(share).ok()).unwrap_or(max_files);
    Some(Batching { window, max_files: max_files.min(share) })
}
