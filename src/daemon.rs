//! The daemon: opens what the policy names, runs a driver for each rule, ends when told.
//!
//! Wiring only. A driver that ends early or panics ends the daemon, loudly: a rule that nobody works for
//! must not look like a quiet one.

pub mod ask;
mod batcher;
pub mod board;
mod breaker;
mod decide;
mod driver;
mod hold;
mod keeper;
mod limit;
mod line;
pub mod pulse;
mod quota;
mod roots;
mod space;
mod store;
mod summary;
mod survey;
pub mod tally;
mod turns;
mod upkeep;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use crate::chain;
use crate::effect::quarantine;
use crate::escape::quoted;
use crate::exit::Exit;
use crate::fs::trust::{self, TrustError};
use crate::fs::{Dir, FsError};
use crate::kms::Kms;
use crate::policy::{Policy, Rule};
use crate::state::{Decision, Found, Outcome, State, StateError};

use board::Board;
use driver::Driver;
use keeper::Keeper;
use limit::Limited;
use line::Line;
use store::Store;
use turns::Turns;
use upkeep::Upkeep;

pub use driver::AttachError;
pub use hold::Hold;
pub use limit::Operation;
pub use store::StoreError;
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
    #[error("another kms-sig is using the state in {}; stop it, or name another state.dir", quoted(.0))]
    Locked(PathBuf),
    /// The quarantine store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// State cannot be opened.
    #[error(transparent)]
    State(#[from] StateError),
    /// The file system refused.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// Publishing had to stop.
    #[error("nothing more can be published: {0}")]
    Fatal(Hold),
    /// A new policy changes what a running daemon cannot.
    #[error("{0} cannot change while the daemon runs; restart it")]
    Fixed(&'static str),
    /// Files in hand were not finished in time, or nobody wanted to wait.
    #[error("ended with files in hand; the next start takes them up")]
    Unfinished,
    /// A driver panicked.
    #[error("BUG: the driver of a rule ended: {0}")]
    Driver(String),
}

impl DaemonError {
    /// The exit code it ends the process with.
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Root | Self::Trust(_) | Self::Store(StoreError::Trust(_)) | Self::Fixed(_) => Exit::Usage,
            Self::Locked(_)
            | Self::Store(StoreError::Fs(_))
            | Self::State(_)
            | Self::Fs(_)
            | Self::Fatal(_)
            | Self::Unfinished
            | Self::Driver(_) => Exit::Unfinished,
        }
    }
}

/// What a running daemon is told.
#[derive(Debug)]
pub enum Order {
    /// End, after the files in hand; told again, end at once.
    Stop,
    /// Go on under this policy, which has been checked.
    Reload(Box<Policy>),
}

/// How long files in hand may take when the daemon ends or changes its policy: an operation of KMS, and the
/// reading of a large file. A kill after that is safe (P4), so service managers may be less patient.
const DRAIN: Duration = Duration::from_secs(60);

/// How long the daemon waits with being ready for rules whose directories neither open nor fail to: a file server
/// that does not answer holds its rule, and must not hold the start.
const ATTACHING: Duration = Duration::from_secs(20);

/// Runs until told to stop, or with `once` until everything present is dealt with or left. `ready` fires when
/// every rule watches its directory and its first scan is under way, or is held for a reason that was told; what
/// goes on from there is on the board. A new policy takes the place of the old one when nothing is in hand, so that
/// no verdict mixes the two; one that cannot is refused, and the old one goes on (P7).
///
/// # Errors
/// [`DaemonError`]; nothing is half done then, only undone.
pub async fn run<K: Kms>(
    policy: Policy,
    kms: impl Fn(&Policy) -> K,
    options: Options,
    board: &Arc<Board>,
    ready: oneshot::Sender<()>,
    orders: mpsc::Receiver<Order>,
) -> Result<Vec<Summary>, DaemonError> {
    admit(&policy, options)?;
    let (state, _lock) = open_state(&policy.state_dir, options.dry_run)?;
    board.opened(state.commits());
    let turning = keep_turning(state.clone(), board);
    tokio::select! {
        ended = serve(policy, kms, options, board, state, ready, orders) => ended,
        never = turning => match never {},
    }
}

/// Answers for state's thread whenever somebody asks whether it turns.
async fn keep_turning(state: State, board: &Board) -> Infallible {
    let mut beat = board.pulse.enlist("state");
    loop {
        beat.asked().await;
        if state.echo().await.is_err() {
            return std::future::pending().await; // whoever needs it ends the daemon
        }
        beat.turn();
    }
}

async fn serve<K: Kms>(
    mut policy: Policy,
    kms: impl Fn(&Policy) -> K,
    options: Options,
    board: &Arc<Board>,
    state: State,
    ready: oneshot::Sender<()>,
    mut orders: mpsc::Receiver<Order>,
) -> Result<Vec<Summary>, DaemonError> {
    let clock = board.clock;
    let mut quarantine = prepare(&policy, options)?;
    let cookies = match options.dry_run {
        true => None,
        false => Some(Dir::create(&policy.state_dir.join("cookies"), 0o700)?),
    };
    let mut ready = Some(ready);
    loop {
        if let Some(store) = &quarantine {
            // Only now, when nothing is in hand: what looks half done could be on its way.
            quarantine::recover(store.dir())?;
            record_items(&state, store.dir()).await?;
            store.count()?;
        }
        let keeper = quarantine.clone().map(|store| {
            let (state, rules) = (state.clone(), policy.rules.clone());
            Keeper { store, state, rules, clock }
        });
        if let Some(keeper) = keeper.as_ref().filter(|_| options.once) {
            keeper.purge().await;
        }
        board.adopt(&policy);
        let line = Arc::new(Line {
            kms: Limited::new(kms(&policy), policy.limits.max_in_flight, policy.limits.kms_per_second, board),
            board: Arc::clone(board),
            state: state.clone(),
            hashing: Turns::new(policy.limits.hash_threads),
            space: Arc::default(),
            quarantine,
            cookies: cookies.as_ref().and_then(|dir| dir.try_clone().ok()),
            hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            min_free_space: policy.limits.min_free_space,
            clock,
            dry_run: options.dry_run,
        });
        let crew = Crew::start(&line, &policy, options.once, keeper);
        match crew.work(&policy, options, board, &mut ready, &mut orders).await? {
            Relieved::Done(summaries) => {
                if !options.dry_run {
                    Upkeep::new(line, policy.record).once().await.map_err(DaemonError::Fatal)?;
                }
                return Ok(in_order(summaries, &policy.rules));
            }
            // Who says stop does not wait for the record to be sealed; the next start sees to it.
            Relieved::Stopped(summaries) => return Ok(in_order(summaries, &policy.rules)),
            Relieved::By(next) => {
                (policy, quarantine) = *next;
                tracing::info!(rules = policy.rules.len(), "policy reloaded");
            }
        }
    }
}

/// Summaries in the order of the policy: the rules end in any order.
fn in_order(mut summaries: Vec<Summary>, rules: &[Arc<Rule>]) -> Vec<Summary> {
    summaries.sort_by_key(|s| rules.iter().position(|rule| rule.name == s.rule()));
    summaries
}

/// Whether this process may work by this policy at all: not as root unasked, and not by a policy or keyring that
/// others can write. To be asked before anything is made that the policy names.
///
/// # Errors
/// `Root`, `Trust`.
pub fn admit(policy: &Policy, options: Options) -> Result<(), DaemonError> {
    if rustix::process::geteuid().is_root() && !(policy.allow_root || options.allow_root) {
        return Err(DaemonError::Root);
    }
    trust::check(&policy.file)?;
    Ok(policy.keyring.as_deref().map_or(Ok(()), trust::check_if_there)?)
}

/// Opens what a policy names for all of its rules: the quarantine store.
fn prepare(policy: &Policy, options: Options) -> Result<Option<Arc<Store>>, DaemonError> {
    match &policy.quarantine_dir {
        Some(dir) if !options.dry_run => Ok(Some(Arc::new(Store::open(dir)?))),
        _ => Ok(None),
    }
}

/// Puts on record what lies in quarantine and is not: a kill came between the two, or state was lost.
async fn record_items(state: &State, store: &Dir) -> Result<(), DaemonError> {
    let ids = quarantine::ids(store)?;
    state.forget_items(ids.clone()).await?;
    for id in state.unrecorded_items(ids).await? {
        let Some(record) = quarantine::record_of(store, &id) else { continue };
        let Some(path) = record.relative_path() else { continue };
        let decision = Decision {
            rule: record.rule,
            path,
            fingerprint: String::new(),
            payload: None,
            signature: None,
            outcome: Outcome::Quarantined,
            reason: Some(record.reason),
            digest: Some(record.digest),
            signature_digest: record.signature_digest,
            key: None,
            item: Some(id),
        };
        state.record_item(decision).await?;
    }
    Ok(())
}

/// The drivers of one policy.
struct Crew {
    drivers: JoinSet<Result<Summary, Hold>>,
    /// Who keeps the quarantine store, if there is one. Ends with the crew.
    keeper: JoinSet<Infallible>,
    attached: Vec<oneshot::Receiver<()>>,
    stop: watch::Sender<bool>,
    once: bool,
    /// The record's keeper; `--once` does its work at the end.
    upkeep: JoinSet<Hold>,
}

/// Why a crew ended.
enum Relieved {
    /// Everything is done.
    Done(Vec<Summary>),
    /// It was told to stop, and what was in hand is done.
    Stopped(Vec<Summary>),
    /// Another policy comes, with its quarantine store.
    By(Box<(Policy, Option<Arc<Store>>)>),
}

impl Crew {
    fn start<K: Kms>(line: &Arc<Line<K>>, policy: &Policy, once: bool, keeper: Option<Keeper>) -> Self {
        let max_jobs = policy.limits.max_in_flight + policy.limits.hash_threads;
        let (stop, stopped) = watch::channel(false);
        let mut drivers = JoinSet::new();
        let mut attached = Vec::new();
        for rule in &policy.rules {
            let (ready, is_ready) = oneshot::channel();
            attached.push(is_ready);
            let driver = Driver::new(Arc::clone(line), Arc::clone(rule), once, max_jobs, ready);
            drivers.spawn(driver.run(stopped.clone()));
        }
        let mut keepers = JoinSet::new();
        if let Some(keeper) = keeper.filter(|_| !once) {
            keepers.spawn(keeper.run());
        }
        let mut upkeep = JoinSet::new();
        if !once && !line.dry_run {
            upkeep.spawn(Upkeep::new(Arc::clone(line), policy.record.clone()).run());
        }
        Self { drivers, keeper: keepers, attached, stop, once, upkeep }
    }

    async fn work(
        mut self,
        policy: &Policy,
        options: Options,
        board: &Board,
        ready: &mut Option<oneshot::Sender<()>>,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Result<Relieved, DaemonError> {
        let attached = std::mem::take(&mut self.attached);
        let all_attached = async {
            for is_ready in attached {
                // A driver that ended before is seen below.
                is_ready.await.unwrap_or_default();
            }
            board.control().await;
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
                    board.is_ready();
                    if let Some(ready) = ready.take() {
                        tracing::info!("ready");
                        ready.send(()).ok(); // nobody need be waiting
                    }
                }
                Some(order) = orders.recv() => match order {
                    Order::Stop => {
                        return self.drain(orders, summaries).await.map(|(all, _)| Relieved::Stopped(all));
                    }
                    Order::Reload(next) => match accept(policy, &next, options) {
                        Ok(quarantine) => {
                            let mut new = (*next, quarantine);
                            if let (_, Some(last)) = self.drain(orders, summaries).await? {
                                match accept(policy, &last, options) {
                                    Ok(quarantine) => new = (*last, quarantine),
                                    Err(error) => refuse(board, &error),
                                }
                            }
                            return Ok(Relieved::By(Box::new(new)));
                        }
                        Err(error) => refuse(board, &error),
                    },
                },
                Some(Err(ended)) = self.keeper.join_next() => {
                    return Err(DaemonError::Driver(format!("the quarantine's: {ended}")));
                }
                Some(ended) = self.upkeep.join_next() => return Err(match ended {
                    Ok(fatal) => DaemonError::Fatal(fatal),
                    Err(error) => DaemonError::Driver(error.to_string()),
                }),
                ended = self.drivers.join_next() => match ended {
                    None => return Ok(Relieved::Done(summaries)),
                    Some(ended) => {
                        let summary = summary_of(ended)?;
                        if !self.once {
                            return Err(DaemonError::Driver("it stopped unasked".into()));
                        }
                        summaries.push(summary);
                    }
                },
            }
        }
    }

    /// Has every driver finish what is in hand. A policy that comes meanwhile is handed back, the last of several.
    async fn drain(
        mut self,
        orders: &mut mpsc::Receiver<Order>,
        mut summaries: Vec<Summary>,
    ) -> Result<(Vec<Summary>, Option<Box<Policy>>), DaemonError> {
        let mut last = None;
        self.stop.send(true).ok(); // no receiver is left only when every driver has ended
        let deadline = tokio::time::sleep(DRAIN);
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                ended = self.drivers.join_next() => match ended {
                    None => return Ok((summaries, last)),
                    Some(ended) => summaries.push(summary_of(ended)?),
                },
                Some(order) = orders.recv() => match order {
                    Order::Stop => return Err(DaemonError::Unfinished),
                    Order::Reload(next) => last = Some(next),
                },
                () = &mut deadline => return Err(DaemonError::Unfinished),
            }
        }
    }
}

fn summary_of(ended: Result<Result<Summary, Hold>, tokio::task::JoinError>) -> Result<Summary, DaemonError> {
    match ended {
        Ok(Ok(summary)) => Ok(summary),
        Ok(Err(fatal)) => Err(DaemonError::Fatal(fatal)),
        Err(error) => Err(DaemonError::Driver(error.to_string())),
    }
}

fn refuse(board: &Board, error: &DaemonError) {
    let reason = chain::one_line(error);
    tracing::error!(reason, "reload refused; the old policy stays");
    board.reload_refused(reason);
}

/// Whether a running daemon can go on under another policy.
fn accept(old: &Policy, new: &Policy, options: Options) -> Result<Option<Arc<Store>>, DaemonError> {
    if old.state_dir != new.state_dir {
        return Err(DaemonError::Fixed("state.dir"));
    }
    if old.control.socket != new.control.socket {
        return Err(DaemonError::Fixed("control.socket"));
    }
    admit(new, options)?;
    prepare(new, options)
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
