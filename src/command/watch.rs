//! `kms-sig watch`: the daemon.

use std::convert::Infallible;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};

use super::{Failure, answer};
use crate::cli::Watch;
use crate::control;
use crate::daemon::status::Status;
use crate::daemon::{self, DaemonError, Options, Order, Summary};
use crate::escape::quoted;
use crate::exit::Exit;
use crate::fs::Dir;
use crate::key::KeyId;
use crate::kms::local::{Keyring, KeyringError};
use crate::kms::provider::Providers;
use crate::log_queue;
use crate::message::log;
use crate::policy::{Faults, Mode, OnInvalid, Place, Policy, Rule};
use crate::service::SystemdNotifier;
use crate::service::notify::Notifier;
use crate::state;
use crate::terminal;
use crate::terminal::progress::{self, Drawn, Files};

/// How long the end waits for whoever reads standard output and has not taken what was said at the
/// start.
const READER_PATIENCE: Duration = Duration::from_secs(1);

/// Runs the daemon until SIGTERM or SIGINT, or with `--once` until everything present is dealt
/// with.
///
/// # Errors
/// A bad policy; what the daemon cannot start with.
pub(crate) fn run(arguments: &Watch, keyring: Option<PathBuf>, for_people: bool) -> Result<Exit, Failure> {
    let notifier = Notifier::from_environment(); // first: there is one thread as yet
    log_queue::start().map_err(Failure::Runtime)?;
    if !arguments.once {
        log_queue::never_wait();
    }
    let policy = Policy::load(&arguments.policy.policy)?;
    let options =
        Options { once: arguments.once, dry_run: arguments.dry_run, allow_root: arguments.allow_root };
    daemon::admit(&policy, options)?;
    raise_descriptors();
    daemon::share_heaps();
    if !arguments.dry_run && policy.rules.iter().any(|rule| rule.create) {
        create_keys(&policy, policy.keyring.as_ref().or(keyring.as_ref()))?;
    }
    let providers = move |policy: &Policy| {
        let keyring = policy.keyring.clone().or_else(|| keyring.clone());
        Providers::new(policy.aws.clone(), keyring).without_retries() // the daemon counts each attempt
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::Runtime)?;
    let ended = runtime.block_on(async {
        let signals = Signals::new().map_err(Failure::Runtime)?;
        let (ready, is_ready) = oneshot::channel();
        let (order, orders) = mpsc::channel(1);
        let welcome = (for_people && !arguments.once).then(|| welcome(&policy));
        // Whoever reads it may be stuck.
        let mut telling = JoinSet::new();
        telling.spawn(async {
            match (is_ready.await, welcome) {
                (Ok(()), Some(text)) => answer_after_log(text).await,
                (Ok(()) | Err(_), _) => Ok(()),
            }
        });
        let file = policy.file.clone();
        let status = Arc::new(Status::default());
        let mut systemd = SystemdNotifier::new(notifier, Arc::clone(&status));
        let (asked, asks) = mpsc::channel(1);
        // In a task of its own: it answers also while the daemon waits for a disk.
        let mut control = JoinSet::new();
        if !arguments.once && !arguments.dry_run {
            status.expect_control();
            control.spawn(control::serve(Arc::clone(&status), control::socket_of_daemon(&policy), asked));
        }
        let progress = (for_people && arguments.once).then(|| show_progress(&status)).flatten();
        // So is the daemon: while it waits for a disk, the service manager is answered and signals
        // are heard.
        let mut daemon = JoinSet::new();
        let its_board = Arc::clone(&status);
        daemon.spawn(async move { daemon::run(policy, providers, options, &its_board, ready, orders).await });
        let served = async {
            let ended = tokio::select! {
                Some(ended) = daemon.join_next() => ended.unwrap_or_else(|lost| Err(lost.into())),
                never = signals.pass_on(&file, &status, asks, order) => match never {},
                Some(Err(ended)) = control.join_next() => Err(DaemonError::Worker(format!("the control socket's: {ended}"))),
                never = systemd.run() => match never {},
            };
            control.shutdown().await;
            systemd.send_phase(); // what came last; nobody is left to repeat it
            ended
        };
        let ended = served.await;
        drop(progress);
        let told = tokio::time::timeout(READER_PATIENCE, telling.join_next()).await;
        match told {
            Ok(Some(Ok(told))) => told.and(ended.map_err(Failure::Daemon)),
            Ok(Some(Err(lost))) => ended.and(Err(lost.into())).map_err(Failure::Daemon),
            Ok(None) | Err(_) => ended.map_err(Failure::Daemon),
        }
    });
    let summaries = match ended {
        Ok(summaries) if arguments.once => summaries,
        ended => {
            // A name look-up that hangs is not waited for, nor a file in hand when somebody said
            // stop twice.
            runtime.shutdown_background();
            return ended.map(|_| Exit::Done);
        }
    };
    let said = runtime.block_on(async {
        let mut signals = Signals::new().map_err(Failure::Runtime)?;
        tokio::select! {
            said = answer_after_log(summarized(&summaries, arguments.dry_run)) => return said,
            _ = signals.terminate.recv() => {}
            _ = signals.interrupt.recv() => {}
        }
        log_queue::never_wait();
        Err(Failure::Output(ErrorKind::Interrupted.into()))
    });
    runtime.shutdown_background();
    said?;
    Ok(summaries.iter().fold(Exit::Done, |exit, summary| exit.and(summary.exit())))
}

/// Answers, on a thread that may wait for a reader, and after what was logged before.
async fn answer_after_log(text: String) -> Result<(), Failure> {
    let answered = tokio::task::spawn_blocking(move || {
        log_queue::flush();
        if text.is_empty() { Ok(()) } else { answer(&text) }
    });
    answered.await.map_err(|lost| Failure::Daemon(lost.into()))?
}

/// What a run with `--once` came to.
fn summarized(summaries: &[Summary], dry_run: bool) -> String {
    let head = dry_run.then(|| "dry run: nothing was changed; this is what would have come of it".to_owned());
    let rules = summaries.iter().map(|summary| summary.shown(terminal::stdout()));
    head.into_iter().chain(rules).collect::<Vec<_>>().join("\n")
}

/// Shows how far `--once` has come.
fn show_progress(status: &Arc<Status>) -> Option<Drawn> {
    let status = Arc::clone(status);
    progress::dealing(move || {
        let mut files = Files::default();
        for rule in status.read().rules.values() {
            let done = rule.handled();
            files.done += done;
            files.known += rule.known.max(done); // which is shown a moment later
            files.held += rule.now.held as u64;
        }
        files
    })
}

/// SIGTERM, SIGINT and SIGHUP, caught from before the daemon starts.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Turns signals into orders, for as long as it is polled.
    async fn pass_on(
        mut self,
        file: &Path,
        status: &Status,
        mut asks: mpsc::Receiver<control::Order>,
        orders: mpsc::Sender<Order>,
    ) -> Infallible {
        let mut reading = Reading { file, status, loading: JoinSet::new(), again: false };
        loop {
            let order = tokio::select! {
                _ = self.terminate.recv() => Some(stop("SIGTERM", status)),
                _ = self.interrupt.recv() => Some(stop("SIGINT", status)),
                _ = self.hang_up.recv() => reading.ask(),
                Some(control::Order::Reload) = asks.recv() => reading.ask(),
                Some(loaded) = reading.loading.join_next() => reading.end(loaded),
            };
            if let Some(order) = order {
                // A daemon that no longer listens is ending.
                orders.send(order).await.ok();
            }
        }
    }
}

/// The policy being read anew. It names directories, and to look at them may take as long as their
/// disks do; the other signals are heard meanwhile.
struct Reading<'a> {
    file: &'a Path,
    status: &'a Status,
    /// One at a time, so that the last is the last.
    loading: JoinSet<Result<Policy, Faults>>,
    /// It was asked for again meanwhile.
    again: bool,
}

impl Reading<'_> {
    fn ask(&mut self) -> Option<Order> {
        self.status.reload_asked();
        if self.loading.is_empty() {
            self.begin();
        } else if std::mem::replace(&mut self.again, true) {
            self.status.reload_superseded();
        }
        None
    }

    fn begin(&mut self) {
        let file = self.file.to_owned();
        self.loading.spawn_blocking(move || Policy::load(&file));
    }

    /// What has been read, if it is a good one (O1).
    fn end(&mut self, loaded: Result<Result<Policy, Faults>, JoinError>) -> Option<Order> {
        if std::mem::take(&mut self.again) {
            self.status.reload_superseded();
            self.begin();
            return None;
        }
        match loaded {
            Ok(Ok(policy)) => Some(Order::Reload(Box::new(policy))),
            Ok(Err(faults)) => {
                for fault in &faults {
                    let (line, fault) = (fault.line, &fault.message);
                    log!(NewPolicyFault, file = %quoted(self.file), line, fault);
                }
                log!(ReloadRefused);
                let why = "the policy has faults; see the log, or ask kms-sig check";
                self.status.reload_refused(why.to_owned());
                None
            }
            Err(lost) => std::panic::resume_unwind(lost.into_panic()), // nobody cancels it
        }
    }
}

fn stop(signal: &str, status: &Status) -> Order {
    status.is_stopping();
    log_queue::never_wait(); // the end has its limits, whoever reads the log
    log!(Stopping, signal);
    Order::Stop
}

/// Allows as many open files as may be allowed. The soft limit is for programs with select(2)
/// (getrlimit(2); systemd, "File Descriptor Limits"), and this is none. What finds no descriptor
/// free is held and attempted again.
fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).unwrap_or_default();
}

/// Makes the local keys of sign rules with `create = true`, but only together with the keyring: a
/// key missing from a keyring that is there may be a lost one, and so may a keyring that was there
/// before. A new key under the old name would make every signature of the old one look forged.
fn create_keys(policy: &Policy, keyring: Option<&PathBuf>) -> Result<(), Failure> {
    let Some(path) = keyring.filter(|path| !wanted_keys(policy).is_empty() && !path.exists()) else {
        return Ok(());
    };
    let wanted = keys_to_make(policy, Some(path));
    if wanted.is_empty() {
        log!(KeyringMissing, keyring = %quoted(path));
        return Ok(()); // its keys are held until it is back
    }
    if let Some(parent) = path.parent() {
        Dir::create(parent, 0o755)?;
    }
    for key in wanted {
        match Keyring::create_key(path, key) {
            Ok(_) => log!(LocalKeyCreated, key = %key, keyring = %quoted(path)),
            Err(KeyringError::Exists { .. }) => {} // two rules with one key
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The local keys that are made at the start, with their keyring.
pub(super) fn keys_to_make<'p>(policy: &'p Policy, keyring: Option<&Path>) -> Vec<&'p KeyId> {
    let may_begin = |path: &Path| !path.exists() && !policy.state_dir.join(state::FILE).exists();
    if keyring.is_some_and(may_begin) { wanted_keys(policy) } else { Vec::new() }
}

fn wanted_keys(policy: &Policy) -> Vec<&KeyId> {
    let wanted = policy.rules.iter().filter(|rule| rule.create).filter_map(|rule| match &rule.mode {
        Mode::Sign(sign) => sign.key.local_name().map(|_| &sign.key),
        Mode::Verify(_) => None,
    });
    wanted.collect()
}

/// What to drop where, for someone who has just started it.
fn welcome(policy: &Policy) -> String {
    let mut text = String::from("kms-sig is watching:");
    for rule in &policy.rules {
        text.push_str("\n  ");
        text.push_str(&describe(rule, policy));
    }
    text
}

fn describe(rule: &Rule, policy: &Policy) -> String {
    let (here, suffix) = (quoted(&rule.path), rule.suffix());
    let deliver = rule.delivery().map(|delivery| quoted(&delivery.dir));
    match (&rule.mode, deliver) {
        (Mode::Sign(_), None) => {
            format!("{}: drop a file into {here}; its signature appears beside it as NAME{suffix}", rule.name)
        }
        (Mode::Sign(_), Some(to)) => {
            format!("{}: drop a file into {here}; it appears in {to} together with NAME{suffix}", rule.name)
        }
        (Mode::Verify(verify), to) => {
            let good = match (&verify.place, to) {
                (Place::Deliver(_), Some(to)) => format!("valid ones appear in {to}"),
                (Place::Deliver(_) | Place::InPlace, _) => "valid ones stay and are logged".to_owned(),
            };
            let bad = match (verify.on_invalid, &policy.quarantine_dir) {
                (OnInvalid::Quarantine, Some(dir)) => format!("others in {}", quoted(dir)),
                (OnInvalid::Quarantine | OnInvalid::Log, _) => "others are logged".to_owned(),
            };
            format!("{}: drop FILE and FILE{suffix} into {here}; {good}, {bad}", rule.name)
        }
    }
}
