//! The daemon: opens what the policy names, runs a driver for each rule, ends when told.
//!
//! Wiring only. A driver that ends early or panics ends the daemon, loudly: a rule that nobody works for
//! must not look like a quiet one.

mod decide;
mod driver;
mod hold;
mod limit;
mod line;
mod summary;
mod survey;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::effect::quarantine;
use crate::escape::quoted;
use crate::exit::Exit;
use crate::fs::trust::{self, TrustError};
use crate::fs::{Dir, FsError};
use crate::kms::Kms;
use crate::policy::Policy;
use crate::state::{Found, State, StateError};

use driver::Driver;
use limit::Limited;
use line::Line;

pub use summary::Summary;
pub use survey::{SurveyError, survey};

/// How to run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Deal with what is there, then end.
    pub once: bool,
    /// Say what would be done, and change nothing.
    pub dry_run: bool,
    /// Run as root although the policy does not say so.
    pub allow_root: bool,
}

/// Why the daemon did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Running as root, unasked.
    #[error("refusing to run as root; run it as a user of its own, or set allow_root = true")]
    Root,
    /// Something that the policy names may not be trusted.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Another daemon has the state.
    #[error("another kms-sig is using the state in {}", quoted(.0))]
    Locked(PathBuf),
    /// State cannot be opened.
    #[error(transparent)]
    State(#[from] StateError),
    /// The file system refused.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// A driver panicked.
    #[error("BUG: the driver of a rule ended: {0}")]
    Driver(String),
}

impl DaemonError {
    /// The exit code it ends the process with.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Root | Self::Trust(_) => Exit::Usage,
            Self::Locked(_) | Self::State(_) | Self::Fs(_) | Self::Driver(_) => Exit::Unfinished,
        }
    }
}

/// Runs until `shutdown` completes, or with `once` until everything present is dealt with or left. `ready`
/// fires when every rule has its watch and its first scan, or is held for a reason that was told.
///
/// # Errors
/// [`DaemonError`]; nothing is half done then, only undone.
pub async fn run<K: Kms>(
    policy: Policy,
    kms: K,
    options: Options,
    ready: oneshot::Sender<()>,
    shutdown: impl Future<Output = ()>,
) -> Result<Vec<Summary>, DaemonError> {
    if rustix::process::geteuid().is_root() && !(policy.allow_root || options.allow_root) {
        return Err(DaemonError::Root);
    }
    trust::check(&policy.file)?;
    let clock = Clock::start();
    let (state, _lock) = open_state(&policy.state_dir, options.dry_run)?;
    let quarantine = match &policy.quarantine_dir {
        Some(dir) if !options.dry_run => Some(open_quarantine(dir)?),
        _ => None,
    };
    let limits = &policy.limits;
    let line = Arc::new(Line {
        kms: Limited::new(kms, limits.max_in_flight, limits.kms_per_second, clock),
        state,
        hashing: Semaphore::new(limits.hash_threads),
        quarantine,
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        min_free_space: limits.min_free_space,
        clock,
        dry_run: options.dry_run,
    });
    let max_jobs = limits.max_in_flight + limits.hash_threads;
    let (stop, stopped) = watch::channel(false);
    let mut drivers = JoinSet::new();
    let mut attached = Vec::new();
    for rule in policy.rules {
        let (ready, is_ready) = oneshot::channel();
        attached.push(is_ready);
        let driver = Driver::new(Arc::clone(&line), rule, options.once, max_jobs, ready);
        drivers.spawn(driver.run(stopped.clone()));
    }
    drive(drivers, attached, options.once, stop, ready, shutdown).await
}

async fn drive(
    mut drivers: JoinSet<Summary>,
    attached: Vec<oneshot::Receiver<()>>,
    once: bool,
    stop: watch::Sender<bool>,
    ready: oneshot::Sender<()>,
    shutdown: impl Future<Output = ()>,
) -> Result<Vec<Summary>, DaemonError> {
    let all_attached = async {
        for is_ready in attached {
            // A driver that ended before is seen below.
            is_ready.await.unwrap_or_default();
        }
        tracing::info!("ready");
        ready.send(()).ok(); // nobody need be waiting
        std::future::pending::<()>().await;
    };
    tokio::pin!(all_attached, shutdown);
    let (mut summaries, mut stopping) = (Vec::new(), false);
    loop {
        tokio::select! {
            () = &mut all_attached => {}
            () = &mut shutdown, if !stopping => {
                stopping = true;
                stop.send(true).ok(); // no receiver is left only when every driver has ended
            }
            ended = drivers.join_next() => match ended {
                None => return Ok(summaries),
                Some(Ok(summary)) if once || stopping => summaries.push(summary),
                Some(Ok(_)) => return Err(DaemonError::Driver("it stopped unasked".into())),
                Some(Err(error)) => return Err(DaemonError::Driver(error.to_string())),
            },
        }
    }
}

/// Opens state and takes its lock, which lasts as long as the directory's handle.
fn open_state(dir: &Path, dry_run: bool) -> Result<(State, Option<Dir>), DaemonError> {
    if dry_run {
        return Ok((State::rehearsal(dir)?, None));
    }
    let handle = Dir::create(dir, 0o700)?;
    trust::check(dir)?;
    if !handle.lock()? {
        return Err(DaemonError::Locked(dir.to_owned()));
    }
    let (state, found) = State::open(dir)?;
    match found {
        Found::Whole => {}
        Found::New => tracing::info!(dir = %quoted(dir), "state begun"),
        Found::SetAside(aside) => tracing::error!(
            aside = %quoted(&aside),
            "state was damaged and is set aside; every file will be looked at anew, history begins again"
        ),
    }
    Ok((state, Some(handle)))
}

fn open_quarantine(dir: &Path) -> Result<Dir, DaemonError> {
    let store = Dir::create(dir, 0o700)?;
    trust::check(dir)?;
    let stat = store.stat()?;
    if stat.mode & 0o077 != 0 {
        return Err(TrustError::Writable { path: dir.to_owned(), mode: stat.mode }.into());
    }
    quarantine::recover(&store)?;
    Ok(store)
}
