//! The daemon: opens what the policy names, runs a worker for each rule, and ends when ordered to.
//!
//! Wiring only. A worker that ends early or panics ends the daemon with an error: a rule without a
//! worker must not look like an idle one.

pub(crate) mod ask;
pub(crate) mod batcher;
pub(crate) mod decide;
mod error;
pub(crate) mod kms_metrics;
pub(crate) mod maintenance;
pub(crate) mod memory;
mod options;
mod order;
pub(crate) mod pipeline;
pub(crate) mod quota;
pub(crate) mod reloads;
pub(crate) mod roots;
pub(crate) mod site;
mod start;
pub mod status;
pub(crate) mod summary;
pub(crate) mod supervisor;
pub(crate) mod watchdog;
pub(crate) mod worker;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::daemon::maintenance::quarantine::QuarantineMaintenance;
use crate::daemon::maintenance::record::RecordMaintenance;
pub(crate) use crate::daemon::memory::share_heaps;
use crate::daemon::pipeline::Pipeline;
use crate::daemon::site::attach::Directories;
use crate::daemon::status::Status;
use crate::daemon::supervisor::{Daemon, Supervisor, SupervisorExit, Workers};
pub(crate) use crate::daemon::worker::waits;
use crate::fair::Lanes;
use crate::fs::{Dir, FsError};
pub(crate) use crate::hold::causes;
use crate::kms::Kms;
use crate::kms::throttle::KmsGate;
use crate::message::log;
use crate::policy::{Policy, Rule};
use crate::sink::directory::quarantine;
use crate::sink::directory::quarantine::store::Store;
pub(crate) use crate::sink::directory::quarantine::store::StoreError;
use crate::state::reason::DecisionReason;
use crate::state::{Decision, Outcome, State};
pub use error::DaemonError;
pub use options::Options;
pub use order::Order;
use reloads::Reloads;
pub(crate) use start::admit;
use start::{open_state, prepare};
pub use summary::Summary;

/// How long closing the state may take. A kill after that is safe (P4).
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs until ordered to stop, or with `once` until every file present is decided or left. `ready`
/// fires when each rule either watches its directory and has its first scan queued, or is held for
/// a logged reason; `status` shows the state from then on. A new policy replaces the old one when
/// nothing is in hand, so that no verdict mixes the two. A policy that cannot take over is refused,
/// and the old one stays in force (P7).
///
/// Signs the files of a directory, then ends:
///
/// ```
/// use std::fs;
/// use std::sync::Arc;
///
/// use kms_sig::daemon::status::Status;
/// use kms_sig::daemon::{self, Options};
/// use kms_sig::kms::local::{Keyring, Local};
/// use kms_sig::policy::Policy;
/// use tokio::sync::{mpsc, oneshot};
///
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// fs::write(
///     dir.join("policy.toml"),
///     r#"
///         allow_root = true
///         [local]
///         keyring = "keyring"
///         [state]
///         dir = "state"
///         [[watch]]
///         name = "releases"
///         mode = "sign"
///         path = "releases"
///         key = "local:releases"
///         on_stale = "report"
///         settle = "10ms"
///     "#,
/// )?;
/// fs::create_dir(dir.join("releases"))?;
/// fs::write(dir.join("releases/app.tar.gz"), "a payload")?;
/// let keyring = dir.join("keyring");
/// Keyring::create_key(&keyring, &"local:releases".parse()?)?;
///
/// let policy = Policy::load(&dir.join("policy.toml"))?;
/// let options = Options { once: true, ..Options::default() };
/// let (ready, _is_ready) = oneshot::channel();
/// let (_order, orders) = mpsc::channel(1);
/// let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
/// let status = Arc::new(Status::default());
/// let kms = |_: &Policy| Local::new(keyring.clone());
/// runtime.block_on(daemon::run(policy, kms, options, &status, ready, orders))?;
/// assert!(dir.join("releases/app.tar.gz.sig").exists());
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`DaemonError`]. No file is left half done: work that was not finished is repeated at the next
/// start.
pub async fn run<K: Kms>(
    policy: Policy,
    kms: impl Fn(&Policy) -> K,
    options: Options,
    status: &Arc<Status>,
    ready: oneshot::Sender<()>,
    orders: mpsc::Receiver<Order>,
) -> Result<Vec<Summary>, DaemonError> {
    let (state, _lock) = tokio::task::block_in_place(|| {
        admit(&policy, options)?;
        open_state(&policy.state_dir, options.dry_run)
    })?;
    status.opened(state.commits());
    let mut state_watchdog = JoinSet::new();
    state_watchdog.spawn(answer_for_state(state.clone(), Arc::clone(status)));
    let reloads = Reloads::new(&policy, options, status);
    let status = Arc::clone(status);
    let mut daemon =
        Daemon { status, ready: Some(ready), orders, reloads, workers: Workers::default(), kept_locks: None };
    let ended = tokio::select! {
        ended = serve(policy, kms, options, state.clone(), &mut daemon) => ended,
        Some(Err(ended)) = state_watchdog.join_next() => Err(DaemonError::Worker(format!("state's watchdog: {ended}"))),
    };
    if ended.is_ok() {
        tokio::time::timeout(CLOSE_TIMEOUT, state.close()).await.unwrap_or_default();
    }
    ended
}

/// Answers the watchdog for the state thread, by a round trip through its queue.
async fn answer_for_state(state: State, status: Arc<Status>) -> Infallible {
    let mut heartbeat = status.watchdog.register(watchdog::STATE);
    loop {
        heartbeat.asked().await;
        if state.echo().await.is_err() {
            return std::future::pending().await; // the workers that need state end the daemon
        }
        heartbeat.beat();
    }
}

async fn serve<K: Kms>(
    mut policy: Policy,
    kms: impl Fn(&Policy) -> K,
    options: Options,
    state: State,
    daemon: &mut Daemon,
) -> Result<Vec<Summary>, DaemonError> {
    let clock = daemon.status.clock;
    let mut quarantine = tokio::task::block_in_place(|| prepare(&policy, options, &[]))?;
    let cookies = match options.dry_run {
        true => None,
        false => Some(tokio::task::block_in_place(|| Dir::create(&policy.state_dir.join("cookies"), 0o700))?),
    };
    for generation in 1.. {
        if let Some(store) = &quarantine
            && let StoreCheck::Stopped = prepare_store(store, &state, daemon).await?
        {
            return Ok(Vec::new());
        }
        let quarantine_maintenance = quarantine.clone().map(|store| {
            let (state, rules) = (state.clone(), policy.rules.clone());
            QuarantineMaintenance { store, state, rules, clock }
        });
        if let Some(quarantine_maintenance) = quarantine_maintenance.as_ref().filter(|_| options.once) {
            quarantine_maintenance.purge(&daemon.status.watchdog.register(watchdog::QUARANTINE)).await;
        }
        daemon.status.adopt(&policy);
        let backend = Arc::new(Directories {
            space: Arc::default(),
            quarantine,
            cookies: cookies.clone(),
            min_free_space: policy.limits.min_free_space,
            dry_run: options.dry_run,
        });
        let pipeline = Arc::new(Pipeline {
            kms: KmsGate::new(
                kms(&policy),
                policy.limits.max_in_flight,
                policy.limits.kms_per_second,
                clock,
                Arc::clone(&daemon.status),
            ),
            status: Arc::clone(&daemon.status),
            state: state.clone(),
            hashing: Lanes::new(policy.limits.hash_threads),
            hostname: hostname(),
            clock,
            dry_run: options.dry_run,
        });
        daemon.reloads.hold(backend.quarantine.as_ref());
        let supervisor = Supervisor::start(
            generation,
            &pipeline,
            &backend,
            &policy,
            options,
            quarantine_maintenance,
            &mut daemon.workers,
        );
        match supervisor.run(daemon).await? {
            SupervisorExit::Finished(summaries) => {
                if !options.dry_run {
                    RecordMaintenance::new(pipeline, policy.record)
                        .once()
                        .await
                        .map_err(DaemonError::Fatal)?;
                }
                return Ok(in_order(summaries, &policy.rules));
            }
            // A stop does not wait for the record to be sealed; the next start seals it.
            SupervisorExit::Stopped(summaries) => return Ok(in_order(summaries, &policy.rules)),
            SupervisorExit::Replaced(next) => {
                (policy, quarantine) = *next;
                log!(PolicyReloaded, rules = policy.rules.len());
            }
        }
    }
    Ok(Vec::new()) // unreachable: 2^64 policies
}

enum StoreCheck {
    Finished,
    Stopped,
}

/// Recovers the quarantine store before a supervisor starts. Only while no worker runs: an item
/// that looks half done may be one that a worker is writing. If a worker of an earlier generation
/// was abandoned and still runs, recovery waits for the next reload or start.
async fn prepare_store(
    store: &Arc<Store>,
    state: &State,
    daemon: &mut Daemon,
) -> Result<StoreCheck, DaemonError> {
    let is_at_rest = daemon.workers.is_empty();
    let checking = async {
        if is_at_rest {
            at_store(store, |store| quarantine::recover(store.dir())).await?;
            record_items(state, store).await?;
        }
        at_store(store, |store| store.count()).await
    };
    tokio::pin!(checking);
    loop {
        tokio::select! {
            checked = &mut checking => return checked.map(|()| StoreCheck::Finished),
            Some(order) = daemon.orders.recv() => match order {
                Order::Stop => return Ok(StoreCheck::Stopped),
                Order::Reload(policy) => daemon.reloads.offer(policy),
            },
        }
    }
}

/// Runs work on the quarantine store on a thread where a slow disk blocks nothing else.
async fn at_store<T: Send + 'static>(
    store: &Arc<Store>,
    work: impl FnOnce(&Store) -> Result<T, FsError> + Send + 'static,
) -> Result<T, DaemonError> {
    let store = Arc::clone(store);
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    Ok(done.map_err(|error| DaemonError::Worker(format!("the quarantine's: {error}")))??)
}

/// This host's name, for `{hostname}` in encryption contexts.
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Sorts summaries into the order of the policy; rules end in any order.
fn in_order(mut summaries: Vec<Summary>, rules: &[Arc<Rule>]) -> Vec<Summary> {
    summaries.sort_by_key(|s| rules.iter().position(|rule| rule.name == s.rule()));
    summaries
}

/// Records items of the store that have no row: the process was killed between the two steps, or
/// state was lost.
async fn record_items(state: &State, store: &Arc<Store>) -> Result<(), DaemonError> {
    let ids = at_store(store, |store| quarantine::ids(store.dir())).await?;
    state.forget_items(ids.clone()).await?;
    for id in state.unrecorded_items(ids).await? {
        let item = id.clone();
        let record = at_store(store, move |store| Ok(quarantine::record_of(store.dir(), &item))).await?;
        let Some(record) = record else { continue };
        let Some(path) = record.relative_path() else { continue };
        let decision = Decision {
            rule: record.rule,
            path,
            fingerprint: String::new(),
            payload: None,
            signature: None,
            outcome: Outcome::Quarantined,
            reason: DecisionReason::from_record(&record.reason),
            digest: record.digest.parse().ok(),
            signature_digest: record.signature_digest.and_then(|digest| digest.parse().ok()),
            key: None,
            item: Some(id),
        };
        state.record_item(decision).await?;
    }
    Ok(())
}
