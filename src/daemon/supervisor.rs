//! The crew: the drivers of one policy, and those who keep the quarantine store and the record beside them.
//!
//! Another policy has another crew, which begins when the old one has nothing in hand, so that no verdict mixes the two
//! (O3). A driver that a file system does not let come to an end is left behind: what it had in hand is left as a kill
//! would leave it, and its rule goes on by the policy in force when the file system has answered. So a server that
//! hangs holds its own rules and nobody else's, reload or not.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::daemon::maintenance::quarantine::QuarantineMaintenance;
use crate::daemon::maintenance::record::RecordMaintenance;
use crate::daemon::pipeline::Pipeline;
use crate::daemon::reloads::{Next, Reloads};
use crate::daemon::site::Backend;
use crate::daemon::status::Status;
use crate::daemon::summary::Summary;
use crate::daemon::watchdog;
use crate::daemon::worker::{Told, Worker};
use crate::daemon::{DaemonError, Options, Order};
use crate::hold::Hold;
use crate::kms::Kms;
use crate::policy::{Policy, Rule};

/// How long files in hand may take when the daemon ends or changes its policy: an operation of KMS, and the
/// reading of a large file. A kill after that is safe (P4), so service managers may be less patient.
const DRAIN: Duration = Duration::from_secs(60);
/// How long a driver may be in one system call on files before a new policy no longer waits for it.
const HANGS: Duration = Duration::from_secs(10);
/// How often that is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long drivers have that were told to leave what is in hand. Nothing but a file system takes so long.
const PARTING: Duration = Duration::from_secs(2);

/// How long the daemon waits with being ready for rules whose directories neither open nor fail to: a file server
/// that does not answer holds its rule, and must not hold the start.
const ATTACHING: Duration = Duration::from_secs(20);

/// What outlives a crew: who gives the orders, and drivers that are left behind.
pub struct Ship {
    /// Where it is said how things stand.
    pub status: Arc<Status>,
    /// Fires when the first crew is ready.
    pub ready: Option<oneshot::Sender<()>>,
    /// What the daemon is told.
    pub orders: mpsc::Receiver<Order>,
    /// Policies that are to come.
    pub reloads: Reloads,
    /// All drivers.
    pub drivers: Drivers,
}

/// The drivers of a crew, and of earlier ones those that have not ended.
#[derive(Default)]
pub struct Drivers {
    tasks: JoinSet<(Berth, Result<Summary, Hold>)>,
    at_work: Vec<Berth>,
}

/// Which driver.
#[derive(Debug, Clone)]
struct Berth {
    /// The number of its crew.
    crew: u64,
    rule: Arc<Rule>,
}

impl Drivers {
    /// Whether none is at work, of any crew.
    pub fn is_empty(&self) -> bool {
        self.at_work.is_empty()
    }

    fn start(&mut self, berth: Berth, run: impl Future<Output = Result<Summary, Hold>> + Send + 'static) {
        self.at_work.push(berth.clone());
        self.tasks.spawn(async move { (berth, run.await) });
    }

    /// Waits for one to end.
    async fn ended(&mut self) -> Option<Result<(Berth, Summary), DaemonError>> {
        let (berth, ended) = match self.tasks.join_next().await? {
            Ok(ended) => ended,
            Err(lost) => return Some(Err(lost.into())),
        };
        self.at_work.retain(|other| other.crew != berth.crew || other.rule.name != berth.rule.name);
        Some(ended.map(|summary| (berth, summary)).map_err(DaemonError::Fatal))
    }

    fn of(&self, crew: u64) -> impl Iterator<Item = &Rule> {
        self.at_work.iter().filter(move |berth| berth.crew == crew).map(|berth| &*berth.rule)
    }

    fn work_in(&self, path: &Path) -> bool {
        self.at_work.iter().any(|berth| berth.rule.path == path)
    }
}

/// The drivers of one policy.
pub struct Supervisor<K, B> {
    number: u64,
    pipeline: Arc<Pipeline<K>>,
    backend: Arc<B>,
    /// Rules whose directory a driver of an earlier crew still has.
    waiting: Vec<Arc<Rule>>,
    /// Who keeps the quarantine store, if there is one. Ends with the crew.
    keeper: JoinSet<Infallible>,
    attached: Vec<oneshot::Receiver<()>>,
    told: watch::Sender<Told>,
    once: bool,
    max_jobs: usize,
    /// The record's keeper; `--once` does its work at the end.
    upkeep: JoinSet<Hold>,
}

/// Why a crew ended.
pub enum Relieved {
    /// Everything is done.
    Done(Vec<Summary>),
    /// It was told to stop, and what was in hand is done.
    Stopped(Vec<Summary>),
    /// Another policy comes.
    By(Box<Next>),
}

impl<K: Kms, B: Backend> Supervisor<K, B> {
    /// Sets to work by a policy. Crews are numbered from 1.
    pub fn start(
        number: u64,
        pipeline: &Arc<Pipeline<K>>,
        backend: &Arc<B>,
        policy: &Policy,
        options: Options,
        keeper: Option<QuarantineMaintenance>,
        drivers: &mut Drivers,
    ) -> Self {
        let mut keepers = JoinSet::new();
        if let Some(keeper) = keeper.filter(|_| !options.once) {
            keepers.spawn(keeper.run(pipeline.status.watchdog.register(watchdog::QUARANTINE)));
        }
        let mut upkeep = JoinSet::new();
        if !options.once && !pipeline.dry_run {
            upkeep.spawn(RecordMaintenance::new(Arc::clone(pipeline), policy.record.clone()).run());
        }
        let mut crew = Self {
            number,
            pipeline: Arc::clone(pipeline),
            backend: Arc::clone(backend),
            waiting: Vec::new(),
            keeper: keepers,
            attached: Vec::new(),
            told: watch::Sender::new(Told::Work),
            once: options.once,
            max_jobs: policy.limits.in_hand(),
            upkeep,
        };
        for rule in &policy.rules {
            if drivers.work_in(&rule.path) {
                crew.waiting.push(Arc::clone(rule));
            } else {
                crew.begin(rule, drivers);
            }
        }
        crew
    }

    fn begin(&mut self, rule: &Arc<Rule>, drivers: &mut Drivers) {
        let (ready, is_ready) = oneshot::channel();
        self.attached.push(is_ready);
        let (pipeline, backend) = (Arc::clone(&self.pipeline), Arc::clone(&self.backend));
        let driver = Worker::new(pipeline, backend, Arc::clone(rule), self.once, self.max_jobs, ready);
        let berth = Berth { crew: self.number, rule: Arc::clone(rule) };
        drivers.start(berth, driver.run(self.told.subscribe()));
    }

    /// Works until everything is done, or until it is told otherwise.
    ///
    /// # Errors
    /// What ends the daemon.
    pub async fn work(mut self, ship: &mut Ship) -> Result<Relieved, DaemonError> {
        let attached = std::mem::take(&mut self.attached);
        let status = Arc::clone(&ship.status);
        let all_attached = async {
            for is_ready in attached {
                // A driver that ended before is seen below.
                is_ready.await.unwrap_or_default();
            }
            status.control().await;
        };
        let all_attached = tokio::time::timeout(ATTACHING, all_attached);
        tokio::pin!(all_attached);
        let (mut is_attached, mut summaries) = (false, Vec::new());
        loop {
            tokio::select! {
                biased; // being ready is said before the end, however near that is
                attached = &mut all_attached, if !is_attached => {
                    is_attached = true;
                    if attached.is_err() {
                        tracing::error!("the directories of a rule neither open nor fail to; not waiting for them");
                    }
                    self.say_ready(ship);
                }
                Some(order) = ship.orders.recv() => match order {
                    Order::Stop => return self.drain(ship, summaries, None).await,
                    Order::Reload(policy) => ship.reloads.offer(policy),
                },
                next = ship.reloads.next() => {
                    let next = next?;
                    if !is_attached && self.number > 1 {
                        ship.status.reload_superseded();
                    }
                    return self.drain(ship, summaries, Some(next)).await;
                }
                Some(Err(ended)) = self.keeper.join_next() => {
                    return Err(DaemonError::Worker(format!("the quarantine's: {ended}")));
                }
                Some(ended) = self.upkeep.join_next() => return Err(match ended {
                    Ok(fatal) => DaemonError::Fatal(fatal),
                    Err(lost) => lost.into(),
                }),
                ended = ship.drivers.ended() => match ended {
                    None => return Ok(Relieved::Done(summaries)),
                    Some(ended) => {
                        let (berth, summary) = ended?;
                        if berth.crew != self.number {
                            self.take_over(&berth.rule.path, &mut ship.drivers);
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

    fn say_ready(&self, ship: &mut Ship) {
        if self.number > 1 {
            ship.status.reloaded();
        } else {
            ship.status.is_ready();
        }
        if let Some(ready) = ship.ready.take() {
            tracing::info!("ready");
            ready.send(()).ok(); // nobody need be waiting
        }
    }

    /// A driver that was left behind has let go of this directory.
    fn take_over(&mut self, path: &Path, drivers: &mut Drivers) {
        if drivers.work_in(path) {
            return;
        }
        for rule in self.waiting.extract_if(.., |rule| rule.path == path).collect::<Vec<_>>() {
            tracing::info!(rule = rule.name, "the rule goes on, by the policy in force");
            self.begin(&rule, drivers);
        }
    }

    /// Has every driver finish what is in hand, and then end or make way for the next policy. A policy that comes
    /// meanwhile takes that one's place.
    async fn drain(
        self,
        ship: &mut Ship,
        mut summaries: Vec<Summary>,
        mut next: Option<Next>,
    ) -> Result<Relieved, DaemonError> {
        self.told.send_replace(Told::Finish);
        let deadline = tokio::time::sleep(DRAIN);
        tokio::pin!(deadline);
        let mut look = tokio::time::interval(LOOK);
        while ship.drivers.of(self.number).next().is_some() {
            let mut is_over = false;
            tokio::select! {
                Some(ended) = ship.drivers.ended() => {
                    let (berth, summary) = ended?;
                    if berth.crew == self.number {
                        summaries.push(summary);
                    }
                }
                Some(order) = ship.orders.recv() => match order {
                    Order::Stop if next.take().is_some() => {} // as told first, but for the policy to come
                    Order::Stop => return Err(DaemonError::Unfinished),
                    Order::Reload(policy) => ship.reloads.offer(policy),
                },
                newer = ship.reloads.next(), if next.is_some() => {
                    next = Some(newer?);
                    ship.status.reload_superseded();
                }
                _ = look.tick() => is_over = next.is_some() && self.hangs(ship),
                () = &mut deadline => is_over = true,
            }
            match (is_over, &next) {
                (false, _) => {}
                (true, None) => return Err(DaemonError::Unfinished),
                (true, Some(_)) => {
                    self.leave(ship).await?;
                    break;
                }
            }
        }
        Ok(match next {
            Some(next) => Relieved::By(Box::new(next)),
            None => Relieved::Stopped(summaries),
        })
    }

    /// Whether file systems alone keep those who have not ended.
    fn hangs(&self, ship: &Ship) -> bool {
        ship.drivers.of(self.number).all(|rule| ship.status.watchdog.is_at_disk(&rule.name, HANGS))
    }

    /// Has the drivers leave what is in hand. Those that cannot are left themselves.
    async fn leave(&self, ship: &mut Ship) -> Result<(), DaemonError> {
        self.told.send_replace(Told::Leave);
        let parting = tokio::time::sleep(PARTING);
        tokio::pin!(parting);
        while ship.drivers.of(self.number).next().is_some() {
            tokio::select! {
                Some(ended) = ship.drivers.ended() => drop(ended?),
                () = &mut parting => break,
            }
        }
        for rule in ship.drivers.of(self.number) {
            tracing::error!(
                rule = rule.name,
                "left behind by the reload; the rule goes on when its file system answers"
            );
        }
        Ok(())
    }
}
