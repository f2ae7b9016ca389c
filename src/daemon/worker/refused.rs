//! The files of a rule that are refused as they are: counted for the status, and listed on request.
//!
//! They are remembered in state and not here, as there may be any number of them (P10). A refusal
//! whose file is gone is forgotten, so that nothing is counted that a person has seen to.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;

use crate::blocking::ended;
use crate::clock::Moment;
use crate::daemon::ask::{Backlog, Waiting, Which};
use crate::daemon::site::{Backend, Site};
use crate::daemon::status::Refused;
use crate::daemon::worker::counted::Counted;
use crate::daemon::worker::turn::MAX_PAIRS;
use crate::daemon::worker::{Worker, want};
use crate::fs::RelPath;
use crate::kms::Kms;
use crate::message::log;
use crate::settle::PairVersion;
use crate::source::Source as _;
use crate::source::directory::scan::{Meaning, meaning};
use crate::state::reason::{DecisionReason, RefusalReason};
use crate::state::{Remembered, State, StateError};

/// The shortest time between two counts, and how many times as long as a count the time is at
/// least: all rules share the thread that counts.
const COUNT: Duration = Duration::from_secs(1);
const COUNT_SHARE: u32 = 20;

/// Refused files read from state at a time.
const PAGE: usize = 512;

impl<K: Kms, B: Backend> Worker<K, B> {
    /// What is refused may have changed.
    pub(crate) fn recount_soon(&mut self) {
        self.recount.get_or_insert(self.next_count);
    }

    /// Counts what is refused, if it may have changed and was not counted just now. Forgets first
    /// what is gone. Beside all else: nothing waits for state to have time for it.
    pub(crate) fn count_refused(&mut self, now: Moment) {
        if self.recount.is_none_or(|at| at > now) || !self.counting.is_empty() {
            return;
        }
        self.recount = None;
        let (state, rule) = (self.pipeline.state.clone(), self.rule.name.clone());
        let gone = std::mem::take(&mut self.gone);
        let forgets = !gone.is_empty() && !self.pipeline.dry_run;
        self.counting.spawn(async move {
            if forgets {
                let rows = state.remembered_all(&rule, gone).await.unwrap_or_default();
                let versions = rows.into_iter().filter_map(|(path, row)| Some((path, row?.payload)));
                // What cannot be forgotten now is found gone by a later scan.
                state.forget_refused(&rule, versions.collect()).await.unwrap_or_default();
            }
            // State that cannot be read is told where something is to be decided by it.
            Counted { began: now, refusals: state.refusals(&rule).await.ok() }
        });
    }

    /// Takes what was counted.
    pub(crate) fn counted(&mut self, done: Result<Counted, JoinError>) {
        let Some(Counted { began, refusals }) = ended(done) else { return };
        if let Some(refusals) = refusals {
            let by_code =
                |(reason, count): (RefusalReason, usize)| (reason.as_str(), Refused { count, reason });
            self.refused_now = refusals.into_iter().map(by_code).collect();
        }
        let ended = self.pipeline.clock.now();
        self.next_count = ended + ended.saturating_sub(began).saturating_mul(COUNT_SHARE).max(COUNT);
        self.recount = self.recount.map(|at| at.max(self.next_count));
        self.unshown = true;
    }

    /// Nothing has this name any more.
    pub(crate) fn is_gone(&mut self, path: &RelPath) {
        if !self.refused_now.is_empty() && self.gone.len() < MAX_PAIRS {
            self.gone.push(path.clone());
            self.recount_soon();
        }
    }

    /// Forgets in the background what is refused no more: its file is gone, or the rule does not
    /// mean it any more.
    pub(crate) fn forget_unrefused(&mut self, site: &Arc<Site<B>>) {
        if self.refused_now.is_empty() || self.pipeline.dry_run || self.once {
            return;
        }
        let (state, site) = (self.pipeline.state.clone(), Arc::clone(site));
        self.background.spawn(async move {
            if let Err(error) = forget_unrefused(&state, &site).await {
                log!(StateNotPruned, rule = site.rule.name, %error);
            }
        });
    }

    /// How many of the refused files are meant.
    pub(crate) fn count_of(&self, which: &Which) -> usize {
        let is_meant = |code: &str| which.cause.as_deref().is_none_or(|cause| cause == code);
        match which.held_only || which.path.is_some() {
            true => 0,
            false => self.refused_now.iter().filter(|(code, _)| is_meant(code)).map(|(_, of)| of.count).sum(),
        }
    }
}

/// Adds refused files to a list of at most `most`.
pub(crate) async fn add_refused(state: &State, rule: &str, which: &Which, most: usize, list: &mut Backlog) {
    let room = most.saturating_sub(list.pairs.len());
    if which.held_only || room == 0 {
        return;
    }
    let rows = match &which.path {
        None => state.refused_after(rule, &[], which.cause.as_deref(), room).await,
        Some(path) => {
            let Some(path) = RelPath::from_bytes(path) else { return };
            let asked = state.remembered(rule, &path).await;
            asked.map(|row| row.map(|row| (path, row)).into_iter().collect())
        }
    };
    // What state cannot tell is not listed; that it cannot is told elsewhere.
    let listed = rows.unwrap_or_default().into_iter().filter_map(|(path, row)| waiting(path, &row));
    let listed = listed.filter(|file| which.cause.as_deref().is_none_or(|cause| cause == file.cause));
    let before = list.pairs.len();
    list.pairs.extend(listed);
    if which.path.is_some() {
        list.total += list.pairs.len() - before;
    }
}

fn waiting(path: RelPath, row: &Remembered) -> Option<Waiting> {
    let Some(DecisionReason::Refusal(reason)) = &row.reason else { return None };
    Some(Waiting {
        path,
        cause: reason.as_str(),
        is_held: false,
        needs_operator: true,
        reason: reason.to_string(),
        hint: reason.hint().to_owned(),
        since: row.payload.or(row.signature).map(|version| version.changed()).unwrap_or_default(),
        attempts: 0,
        next_attempt: None,
        size: row.payload.map(|version| version.size()),
    })
}

async fn forget_unrefused<B: Backend>(state: &State, site: &Site<B>) -> Result<(), StateError> {
    let mut last = Vec::new();
    loop {
        let page = state.refused_after(&site.rule.name, &last, None, PAGE).await?;
        let Some((path, _)) = page.last() else { return Ok(()) };
        last = path.as_bytes().to_vec();
        let mut ended = Vec::new();
        for (path, row) in page {
            if is_ended(site, &path).await {
                ended.push((path, row.payload));
            }
        }
        state.forget_refused(&site.rule.name, ended).await?;
    }
}

/// Whether nothing is refused there any more. A file that cannot be observed may still be there.
async fn is_ended<B: Backend>(site: &Site<B>, path: &RelPath) -> bool {
    match meaning(&site.rule, path.parent(), path.name()) {
        Meaning::Pair(pair) => {
            let observed = site.source.observe(&pair).await;
            observed.is_ok_and(|there| want(&site.rule).versions(there.versions) == PairVersion::NONE)
        }
        Meaning::Unsignable(..) => is_there(site, path).await == Some(false),
        // Reported as it was without its file.
        Meaning::Signature(payload) => {
            is_there(site, path).await == Some(false) || is_there(site, &payload).await == Some(true)
        }
        Meaning::Nothing => true,
    }
}

/// Whether something has this name, if that can be told.
async fn is_there<B: Backend>(site: &Site<B>, path: &RelPath) -> Option<bool> {
    site.source.version_of(path).await.ok().map(|there| there.is_some())
}
