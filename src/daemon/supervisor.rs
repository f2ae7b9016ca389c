//! The supervisor: the workers of one policy, and the maintenance tasks of the quarantine store and
//! the record.
//!
//! Each policy has a supervisor of its own, numbered by its generation. The next one starts when
//! the last one has nothing in hand, so that no verdict mixes two policies (O3). A worker that
//! hangs on its file system is abandoned: what it had in hand is left as a kill would leave it
//! (P4), and the new policy's worker for that directory starts when the old one has returned. So a
//! file server that hangs holds only its own rules, also during a reload.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::blocking::ended;
use crate::daemon::maintenance::quarantine::QuarantineMaintenance;
use crate::daemon::maintenance::record::RecordMaintenance;
use crate::daemon::pipeline::Pipeline;
use crate::daemon::reloads::{Next, Reloads};
use crate::daemon::site::Backend;
use crate::daemon::status::Status;
use crate::daemon::summary::Summary;
use crate::daemon::watchdog;
use crate::daemon::worker::{ShutdownMode, Worker};
use crate::daemon::{DaemonError, Options, Order};
use crate::fs::root_lock::LockKeeper;
use crate::hold::Hold;
use crate::kms::Kms;
use crate::message::log;
use crate::policy::{Policy, Rule};

/// How long files in hand may take when the daemon ends or changes its policy: enough for a call of
/// KMS and for reading a large file. A kill after that is safe (P4), so a service manager may use a
/// shorter limit.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a worker may be in one system call on files before a reload no longer waits for it.
const HANG_LIMIT: Duration = Duration::from_secs(10);
/// How often a reload checks for that.
const HANG_CHECK: Duration = Duration::from_secs(1);
/// How long workers have to end in [`ShutdownMode::Abandon`]. Only a file system takes longer.
const ABANDON_TIMEOUT: Duration = Duration::from_secs(2);

/// How long readiness waits for rules whose directories neither open nor fail to: a file server
/// that does not answer holds its own rule, and must not delay the start.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(20);

/// What outlives a supervisor: the channel of orders, the status, and workers that were abandoned.
pub(crate) struct Daemon {
    /// Live status of all rules, read by the control socket and the metrics.
    pub(crate) status: Arc<Status>,
    /// Fires when the first supervisor is ready.
    pub(crate) ready: Option<oneshot::Sender<()>>,
    /// Orders to stop or to reload.
    pub(crate) orders: mpsc::Receiver<Order>,
    /// Reloads that are being prepared.
    pub(crate) reloads: Reloads,
    /// The workers of all generations.
    pub(crate) workers: Workers,
    /// During a reload, the directories stay locked.
    pub(crate) kept_locks: Option<LockKeeper>,
}

/// The workers of this generation, and those of earlier ones that have not ended.
#[derive(Default)]
pub(crate) struct Workers {
    tasks: JoinSet<(WorkerId, Result<Summary, Hold>)>,
    running: Vec<WorkerId>,
}

/// Which worker.
#[derive(Debug, Clone)]
struct WorkerId {
    /// Of its supervisor.
    generation: u64,
    rule: Arc<Rule>,
}

impl Workers {
    /// Whether none is running, of any generation.
    pub(crate) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Runs a worker on a thread of its own. It waits for files in most of its steps, each of which
    /// would have the runtime hand its other tasks to another thread, at the price of many such
    /// steps.
    fn start(
        &mut self,
        worker: WorkerId,
        task: impl Future<Output = Result<Summary, Hold>> + Send + 'static,
    ) {
        self.running.push(worker.clone());
        let (alive, is_alive) = oneshot::channel::<Infallible>();
        let runtime = Handle::current();
        let thread = tokio::task::spawn_blocking(move || {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = is_alive => None, // nobody waits for it any more
                    ended = task => Some(ended),
                }
            })
        });
        self.tasks.spawn(async move {
            let _alive = alive;
            match ended(thread.await).flatten() {
                Some(ended) => (worker, ended),
                None => std::future::pending().await, // the runtime goes down
            }
        });
    }

    /// Waits until one ends. `None` when none is running.
    async fn ended(&mut self) -> Option<Result<(WorkerId, Summary), DaemonError>> {
        let (worker, ended) = match self.tasks.join_next().await? {
            Ok(ended) => ended,
            Err(lost) => return Some(Err(lost.into())),
        };
        self.running
            .retain(|other| other.generation != worker.generation || other.rule.name != worker.rule.name);
        Some(ended.map(|summary| (worker, summary)).map_err(DaemonError::Fatal))
    }

    fn of(&self, generation: u64) -> impl Iterator<Item = &Rule> {
        self.running.iter().filter(move |worker| worker.generation == generation).map(|worker| &*worker.rule)
    }

    fn any_in(&self, path: &Path) -> bool {
        self.running.iter().any(|worker| worker.rule.path == path)
    }
}

/// The workers of one policy and its maintenance tasks.
pub(crate) struct Supervisor<K, B> {
    generation: u64,
    pipeline: Arc<Pipeline<K>>,
    backend: Arc<B>,
    /// Rules whose directory a worker of an earlier generation still has.
    waiting: Vec<Arc<Rule>>,
    /// Maintenance of the quarantine store, if there is one. Ends with the supervisor.
    quarantine_task: JoinSet<Infallible>,
    attached: Vec<oneshot::Receiver<()>>,
    shutdown: watch::Sender<ShutdownMode>,
    once: bool,
    max_jobs: usize,
    /// Maintenance of the record; `--once` does that at its end.
    record_task: JoinSet<Hold>,
}

/// Why a supervisor ended.
pub(crate) enum SupervisorExit {
    /// Everything is done (`--once`).
    Finished(Vec<Summary>),
    /// It was ordered to stop, and what was in hand is done.
    Stopped(Vec<Summary>),
    /// A reload: this policy is next.
    Replaced(Box<Next>),
}

impl<K: Kms, B: Backend> Supervisor<K, B> {
    /// Starts the workers of a policy. Generations are numbered from 1.
    pub(crate) fn start(
        generation: u64,
        pipeline: &Arc<Pipeline<K>>,
        backend: &Arc<B>,
        policy: &Policy,
        options: Options,
        quarantine: Option<QuarantineMaintenance>,
        workers: &mut Workers,
    ) -> Self {
        let mut quarantine_task = JoinSet::new();
        if let Some(maintenance) = quarantine.filter(|_| !options.once) {
            quarantine_task.spawn(maintenance.run(pipeline.status.watchdog.register(watchdog::QUARANTINE)));
        }
        let mut record_task = JoinSet::new();
        if !options.once && !pipeline.dry_run {
            record_task.spawn(RecordMaintenance::new(Arc::clone(pipeline), policy.record.clone()).run());
        }
        let mut supervisor = Self {
            generation,
            pipeline: Arc::clone(pipeline),
            backend: Arc::clone(backend),
            waiting: Vec::new(),
            quarantine_task,
            attached: Vec::new(),
            shutdown: watch::Sender::new(ShutdownMode::Run),
            once: options.once,
            max_jobs: policy.limits.in_hand(),
            record_task,
        };
        for rule in &policy.rules {
            if workers.any_in(&rule.path) {
                supervisor.waiting.push(Arc::clone(rule));
            } else {
                supervisor.start_worker(rule, workers);
            }
        }
        supervisor
    }

    fn start_worker(&mut self, rule: &Arc<Rule>, workers: &mut Workers) {
        let (ready, is_ready) = oneshot::channel();
        self.attached.push(is_ready);
        let (pipeline, backend) = (Arc::clone(&self.pipeline), Arc::clone(&self.backend));
        let worker = Worker::new(pipeline, backend, Arc::clone(rule), self.once, self.max_jobs, ready);
        let id = WorkerId { generation: self.generation, rule: Arc::clone(rule) };
        workers.start(id, worker.run(self.shutdown.subscribe()));
    }

    /// Runs until everything is done, or until an order to stop or a reload.
    ///
    /// # Errors
    /// What ends the daemon.
    pub(crate) async fn run(mut self, daemon: &mut Daemon) -> Result<SupervisorExit, DaemonError> {
        let attached = std::mem::take(&mut self.attached);
        let status = Arc::clone(&daemon.status);
        let all_attached = async {
            for is_ready in attached {
                // A worker that ended before is seen below.
                is_ready.await.unwrap_or_default();
            }
            status.control().await;
        };
        let all_attached = tokio::time::timeout(ATTACH_TIMEOUT, all_attached);
        tokio::pin!(all_attached);
        let (mut is_attached, mut summaries) = (false, Vec::new());
        loop {
            tokio::select! {
                biased; // readiness is reported before the end, even if both are due
                attached = &mut all_attached, if !is_attached => {
                    is_attached = true;
                    daemon.kept_locks = None;
                    if attached.is_err() {
                        log!(DirectoriesUnresponsive);
                    }
                    self.report_ready(daemon);
                }
                Some(order) = daemon.orders.recv() => match order {
                    Order::Stop => return self.drain(daemon, summaries, None).await,
                    Order::Reload(policy) => daemon.reloads.offer(policy),
                },
                next = daemon.reloads.next() => {
                    let next = next?;
                    if !is_attached && self.generation > 1 {
                        daemon.status.reload_superseded();
                    }
                    return self.drain(daemon, summaries, Some(next)).await;
                }
                Some(Err(ended)) = self.quarantine_task.join_next() => {
                    return Err(DaemonError::Worker(format!("the quarantine's: {ended}")));
                }
                Some(ended) = self.record_task.join_next() => return Err(match ended {
                    Ok(fatal) => DaemonError::Fatal(fatal),
                    Err(lost) => lost.into(),
                }),
                ended = daemon.workers.ended() => match ended {
                    None => return Ok(SupervisorExit::Finished(summaries)),
                    Some(ended) => {
                        let (worker, summary) = ended?;
                        if worker.generation != self.generation {
                            self.resume_waiting(&worker.rule.path, &mut daemon.workers);
                        } else if self.once {
                            summaries.push(summary);
                        } else {
                            return Err(DaemonError::Worker("it stopped unasked".into()));
                        }
                    }
                },
            }
        }
    }

    fn report_ready(&self, daemon: &mut Daemon) {
        if self.generation > 1 {
            daemon.status.reloaded();
        } else {
            daemon.status.is_ready();
        }
        if let Some(ready) = daemon.ready.take() {
            log!(Ready);
            ready.send(()).ok(); // the receiver may be gone
        }
    }

    /// Starts the rules that waited for an abandoned worker to release this directory.
    fn resume_waiting(&mut self, path: &Path, workers: &mut Workers) {
        if workers.any_in(path) {
            return;
        }
        for rule in self.waiting.extract_if(.., |rule| rule.path == path).collect::<Vec<_>>() {
            log!(RuleResumed, rule = rule.name);
            self.start_worker(&rule, workers);
        }
    }

    /// Has every worker finish what is in hand, and then ends or hands over to the next policy. A
    /// policy that arrives meanwhile replaces that one.
    async fn drain(
        self,
        daemon: &mut Daemon,
        mut summaries: Vec<Summary>,
        mut next: Option<Next>,
    ) -> Result<SupervisorExit, DaemonError> {
        daemon.kept_locks = next.is_some().then(LockKeeper::new);
        self.shutdown.send_replace(ShutdownMode::Finish);
        let deadline = tokio::time::sleep(DRAIN_TIMEOUT);
        tokio::pin!(deadline);
        let mut hang_check = tokio::time::interval(HANG_CHECK);
        while daemon.workers.of(self.generation).next().is_some() {
            let mut is_over = false;
            tokio::select! {
                Some(ended) = daemon.workers.ended() => {
                    let (worker, summary) = ended?;
                    if worker.generation == self.generation {
                        summaries.push(summary);
                    }
                }
                Some(order) = daemon.orders.recv() => match order {
                    Order::Stop if next.take().is_some() => {} // drain as before, but then stop instead of reload
                    Order::Stop => return Err(DaemonError::Unfinished),
                    Order::Reload(policy) => daemon.reloads.offer(policy),
                },
                newer = daemon.reloads.next(), if next.is_some() => {
                    next = Some(newer?);
                    daemon.status.reload_superseded();
                }
                _ = hang_check.tick() => is_over = next.is_some() && self.hangs_on_disk(daemon),
                () = &mut deadline => is_over = true,
            }
            match (is_over, &next) {
                (false, _) => {}
                (true, None) => return Err(DaemonError::Unfinished),
                (true, Some(_)) => {
                    self.abandon(daemon).await?;
                    break;
                }
            }
        }
        Ok(match next {
            Some(next) => SupervisorExit::Replaced(Box::new(next)),
            None => SupervisorExit::Stopped(summaries),
        })
    }

    /// Whether all workers that have not ended hang on their file systems.
    fn hangs_on_disk(&self, daemon: &Daemon) -> bool {
        daemon
            .workers
            .of(self.generation)
            .all(|rule| daemon.status.watchdog.is_at_disk(&rule.name, HANG_LIMIT))
    }

    /// Has the workers abandon what is in hand. Those that do not return in time are abandoned
    /// themselves.
    async fn abandon(&self, daemon: &mut Daemon) -> Result<(), DaemonError> {
        self.shutdown.send_replace(ShutdownMode::Abandon);
        let timeout = tokio::time::sleep(ABANDON_TIMEOUT);
        tokio::pin!(timeout);
        while daemon.workers.of(self.generation).next().is_some() {
            tokio::select! {
                Some(ended) = daemon.workers.ended() => drop(ended?),
                () = &mut timeout => break,
            }
        }
        for rule in daemon.workers.of(self.generation) {
            log!(RuleAbandoned, rule = rule.name);
        }
        Ok(())
    }
}
