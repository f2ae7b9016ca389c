//! Maintenance of the quarantine store: purges items older than their rule keeps them, and notices
//! when space was freed.
//!
//! Purges nothing unless a rule sets `quarantine_keep`, and logs and records each purge. Never
//! touches an item that another process works on.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use crate::chain;
use crate::clock::{Clock, Moment};
use crate::daemon::watchdog::Heartbeat;
use crate::escape::Escaped;
use crate::fs::FsError;
use crate::message::log;
use crate::policy::Rule;
use crate::sink::directory::quarantine;
use crate::sink::directory::quarantine::store::Store;
use crate::sink::directory::quarantine::{ItemError, Locked, Record};
use crate::state::{ExitKind, State};

/// How often old items are looked for.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How often to check for freed space while a rule has none. One system call.
const LOOK: Duration = Duration::from_secs(2);

/// The maintenance task of the store.
pub(crate) struct QuarantineMaintenance {
    /// The store.
    pub(crate) store: Arc<Store>,
    /// Records the purges.
    pub(crate) state: State,
    /// The rules of the policy.
    pub(crate) rules: Vec<Arc<Rule>>,
    /// The daemon's clock.
    pub(crate) clock: Clock,
}

impl QuarantineMaintenance {
    /// Runs for as long as it is polled. `heartbeat` is its own.
    pub(crate) async fn run(self, mut heartbeat: Heartbeat) -> Infallible {
        let mut next_purge = Moment::ZERO;
        let mut is_told = false;
        loop {
            if self.clock.now() >= next_purge {
                self.purge(&heartbeat).await;
                next_purge = self.clock.now() + DAY;
            }
            let is_short = self.store.is_short();
            let wake = if is_short { next_purge.min(self.clock.now() + LOOK) } else { next_purge };
            tokio::select! {
                () = tokio::time::sleep_until(self.clock.instant(wake)) => {}
                () = self.store.falls_short(), if !is_short => {}
                () = heartbeat.asked() => {}
            }
            heartbeat.beat();
            if self.store.is_short() {
                let counted = heartbeat.at_disk(|| self.store.count_if_changed());
                let failed = counted.is_err();
                if !is_told {
                    tell(counted);
                }
                is_told = failed; // log it once, not every two seconds
            }
        }
    }

    /// Purges every item that is older than its rule keeps it.
    pub(crate) async fn purge(&self, heartbeat: &Heartbeat) {
        if self.rules.iter().all(|rule| rule.quarantine_keep.is_none()) {
            return;
        }
        let old = heartbeat.at_disk(|| {
            quarantine::sweep(self.store.dir())?;
            let entries = quarantine::entries(self.store.dir())?;
            let old = entries.filter(|(_, entry)| entry.as_ref().is_ok_and(|e| self.is_old(&e.record)));
            Ok(old.map(|(id, _)| id).collect::<Vec<_>>())
        });
        let old = match old {
            Ok(old) => old,
            Err(error) => return tell(Err(error)),
        };
        let mut has_room = false;
        for id in old {
            has_room |= self.purge_one(heartbeat, &id).await;
        }
        if has_room {
            tell(heartbeat.at_disk(|| self.store.count()));
        }
    }

    /// Purges one item; false if it could not.
    async fn purge_one(&self, heartbeat: &Heartbeat, id: &str) -> bool {
        let taken = heartbeat.at_disk(|| Locked::take(self.store.dir(), id));
        let locked = match taken {
            Ok(locked) if self.is_old(locked.item().record()) => locked,
            Ok(_) | Err(ItemError::Gone | ItemError::Unfinished | ItemError::Busy) => return false,
            Err(error @ (ItemError::Odd(_) | ItemError::Fs(_))) => {
                log!(PurgeFailed, item = id, error = chain::one_line(&error));
                return false;
            }
        };
        let (rule, at) = {
            let record = locked.item().record();
            (record.rule.clone(), record.quarantined_at.clone())
        };
        let file = locked.item().path().clone();
        let exit = locked.item().exit(ExitKind::Purged, "quarantine_keep".to_owned());
        if let Err(error) = heartbeat.at_state(self.state.record_quarantine_exit(exit)).await {
            log!(PurgeFailed, item = id, error = chain::one_line(&error));
            return false;
        }
        if let Err(error) = heartbeat.at_disk(|| locked.remove(self.store.dir())) {
            log!(PurgeFailed, item = id, error = chain::one_line(&error));
            return false;
        }
        let (rule, at) = (Escaped::text(&rule), Escaped::text(&at));
        let file = Escaped::new(file.as_path());
        log!(Purged, %rule, %file, item = id, quarantined_at = %at);
        true
    }

    fn is_old(&self, record: &Record) -> bool {
        let rule = self.rules.iter().find(|rule| rule.name == record.rule);
        rule.and_then(|rule| rule.quarantine_keep).is_some_and(|keep| record.is_older_than(keep))
    }
}

fn tell(done: Result<(), FsError>) {
    if let Err(error) = done {
        log!(QuarantineUnreadable, error = chain::one_line(&error));
    }
}
