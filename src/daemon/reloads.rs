//! Reloads in preparation: checks in the background whether a running daemon can continue under a
//! new policy.
//!
//! Opening the quarantine store of a new policy may wait for a slow disk. The daemon takes orders
//! meanwhile.

use std::sync::{Arc, Weak};

use tokio::task::JoinSet;

use super::{DaemonError, Options, admit, prepare};
use crate::chain;
use crate::daemon::status::Status;
use crate::message::log;
use crate::policy::Policy;
use crate::sink::directory::quarantine::store::Store;

/// A policy that can take over, with its quarantine store.
pub(crate) type Next = (Policy, Option<Arc<Store>>);

/// New policies that are being checked. Of several the last takes over.
pub(crate) struct Reloads {
    first: Policy,
    options: Options,
    status: Arc<Status>,
    accepting: JoinSet<Result<Next, DaemonError>>,
    /// Quarantine stores in use. They hold their lock, so they are shared and not opened again.
    stores: Vec<Weak<Store>>,
    waiting: Option<Box<Policy>>,
}

impl Reloads {
    /// No reloads yet; `first` is the policy that the daemon was started with.
    pub(crate) fn new(first: &Policy, options: Options, status: &Arc<Status>) -> Self {
        let status = Arc::clone(status);
        Self {
            first: first.clone(),
            options,
            status,
            accepting: JoinSet::new(),
            stores: Vec::new(),
            waiting: None,
        }
    }

    /// Adds a store that is in use.
    pub(crate) fn hold(&mut self, store: Option<&Arc<Store>>) {
        self.stores.retain(|store| store.strong_count() > 0);
        self.stores.extend(store.map(Arc::downgrade));
    }

    /// Begins to check a new policy.
    pub(crate) fn offer(&mut self, policy: Box<Policy>) {
        if !self.accepting.is_empty() {
            if self.waiting.replace(policy).is_some() {
                self.status.reload_superseded();
            }
            return;
        }
        let (first, options) = (self.first.clone(), self.options);
        let held: Vec<Arc<Store>> = self.stores.iter().filter_map(Weak::upgrade).collect();
        self.accepting.spawn_blocking(move || accept(&first, *policy, options, &held));
    }

    /// Waits for a policy that can take over, and refuses those that cannot. Cancel safe.
    ///
    /// # Errors
    /// A panic.
    pub(crate) async fn next(&mut self) -> Result<Next, DaemonError> {
        loop {
            let Some(accepted) = self.accepting.join_next().await else {
                return std::future::pending().await;
            };
            let accepted = accepted?;
            if let Ok((_, store)) = &accepted {
                self.hold(store.as_ref());
            }
            let later = self.waiting.take();
            match accepted {
                Ok(next) if later.is_none() => return Ok(next),
                Ok(_) => self.status.reload_superseded(),
                Err(error) => refuse(&self.status, &error),
            }
            if let Some(later) = later {
                self.offer(later);
            }
        }
    }
}

fn refuse(status: &Status, error: &DaemonError) {
    let reason = chain::one_line(error);
    log!(ReloadRefused, reason);
    status.reload_refused(reason);
}

/// Whether a running daemon can continue under another policy.
fn accept(first: &Policy, next: Policy, options: Options, held: &[Arc<Store>]) -> Result<Next, DaemonError> {
    if first.state_dir != next.state_dir {
        return Err(DaemonError::Fixed("state.dir"));
    }
    if first.control.socket != next.control.socket {
        return Err(DaemonError::Fixed("control.socket"));
    }
    admit(&next, options)?;
    let store = prepare(&next, options, held)?;
    Ok((next, store))
}
