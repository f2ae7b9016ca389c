//! Maintenance of the record: removes old rows and seals its head.
//!
//! Holds and delays no file: a failure is logged once and retried. Only a state that cannot be
//! written ends this task, as it ends the daemon.

use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::clock::Moment;
use crate::daemon::pipeline::Pipeline;
use crate::daemon::watchdog;
use crate::daemon::worker::jitter;
use crate::fair::Sender;
use crate::hold::{Announced, Announcement, Hold, back_off};
use crate::kms::throttle::ThrottledKms;
use crate::kms::{Kms, Trouble};
use crate::message::log;
use crate::policy::{Record, Sealing};
use crate::state::StateError;
use crate::state::attestation;
use crate::state::ledger::{Pruned, Seal};
use crate::state::link::Head;

/// Time between looks for rows that are too old.
const PRUNE_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// Rows removed in one commit: some milliseconds, so that files need not wait for it.
const BATCH: u32 = 500;

/// The maintenance task of the record.
pub(crate) struct RecordMaintenance<K> {
    pipeline: Arc<Pipeline<K>>,
    record: Record,
    /// Consecutive failed attempts to seal.
    attempts: u32,
    /// Since when it fails.
    failing_since: Option<Moment>,
    /// The failure of sealing that was logged and still lasts.
    announced: Announced,
}

impl<K: Kms> RecordMaintenance<K> {
    /// Of the record behind `pipeline`.
    pub(crate) fn new(pipeline: Arc<Pipeline<K>>, record: Record) -> Self {
        Self { pipeline, record, attempts: 0, failing_since: None, announced: Announced::default() }
    }

    /// Runs until it is dropped, or until state cannot be written; then returns why.
    pub(crate) async fn run(mut self) -> Hold {
        let (mut prune_at, mut seal_at) = (Moment::ZERO, Moment::ZERO);
        let mut heartbeat = self.pipeline.status.watchdog.register(watchdog::RECORD);
        loop {
            heartbeat.beat();
            let now = self.pipeline.clock.now();
            if prune_at <= now {
                if let Err(fatal) = heartbeat.answering(self.prune()).await {
                    return fatal;
                }
                prune_at = now + PRUNE_EVERY;
            }
            let mut next = prune_at;
            if let Some(sealing) = self.record.seal.clone() {
                if seal_at <= now {
                    seal_at = match heartbeat.answering(self.seal(&sealing)).await {
                        Ok(()) => now + sealing.interval,
                        Err(hold) if hold.is_fatal() => return hold,
                        Err(_) => self.pipeline.clock.now() + back_off(self.attempts, jitter::uniform()),
                    };
                }
                next = next.min(seal_at);
            }
            tokio::select! {
                () = tokio::time::sleep_until(self.pipeline.clock.instant(next)) => {}
                () = heartbeat.asked() => {}
            }
        }
    }

    /// Prunes and seals once.
    ///
    /// # Errors
    /// State cannot be written.
    pub(crate) async fn once(mut self) -> Result<(), Hold> {
        self.prune().await?;
        match self.record.seal.clone() {
            Some(sealing) => self.seal(&sealing).await.or_else(unless_fatal),
            None => Ok(()),
        }
    }

    /// Removes what is older than the policy keeps.
    async fn prune(&mut self) -> Result<(), Hold> {
        let Some(keep) = self.record.keep else { return Ok(()) };
        let before = clock::timestamp_ago(keep);
        let mut removed = 0;
        loop {
            match self.pipeline.state.prune(before.clone(), BATCH).await {
                Ok(Pruned::Rows(rows)) => {
                    removed += rows;
                    if rows < i64::from(BATCH) {
                        break;
                    }
                }
                Ok(Pruned::Broken(broken)) => {
                    let reason = broken.to_string();
                    log!(RecordBroken, reason);
                    break;
                }
                Err(error) => {
                    let hold = Hold::State(error);
                    log!(RecordNotPruned, reason = %hold);
                    unless_fatal(hold)?;
                    break;
                }
            }
        }
        if removed > 0 {
            log!(RecordPruned, rows = removed, before);
        }
        Ok(())
    }

    /// Seals the head, if there are new rows. A failure of KMS is logged here.
    async fn seal(&mut self, sealing: &Sealing) -> Result<(), Hold> {
        let sealed = match self.pipeline.state.unsealed().await {
            Ok(Some(head)) => self.seal_head(sealing, &head).await,
            Ok(None) => return Ok(()),
            Err(error) => Err(Hold::State(error)),
        };
        match &sealed {
            Ok(()) => {
                self.attempts = 0;
                self.failing_since = None;
                if self.announced.clear().count() > 0 {
                    log!(HeadSealed, key = %sealing.key);
                }
            }
            Err(hold) => {
                self.attempts += 1;
                let now = self.pipeline.clock.now();
                let since = *self.failing_since.get_or_insert(now);
                if let Some(announcement) = self.announced.announce(hold, now.saturating_sub(since)) {
                    tell(sealing, hold, announcement);
                }
            }
        }
        sealed
    }

    async fn seal_head(&self, sealing: &Sealing, head: &Head) -> Result<(), Hold> {
        let kms = ThrottledKms::new(&self.pipeline.kms, Sender::daemon());
        let sealed = attestation::seal(&kms, &sealing.key, head).await;
        let (ciphertext, key) = sealed.map_err(|trouble: Trouble| Hold::Kms(trouble))?;
        let seal =
            Seal { at: clock::timestamp(), point: head.point, key: key.as_str().to_owned(), ciphertext };
        self.pipeline.state.keep_seal(seal).await.map_err(|error: StateError| Hold::State(error))?;
        tracing::debug!(row = head.point.seq, hash = %head.point.link, "head of the record sealed");
        Ok(())
    }
}

fn tell(sealing: &Sealing, hold: &Hold, announcement: Announcement) {
    let (key, cause, reason, hint) = (sealing.key.as_str(), hold.as_str(), hold.to_string(), hold.hint());
    match announcement {
        Announcement::Alarm => {
            log!(HeadNotSealed, key, cause, reason, hint);
        }
        Announcement::Passing => {
            log!(HeadNotSealed at WARN, key, cause, reason, hint);
        }
    }
}

fn unless_fatal(hold: Hold) -> Result<(), Hold> {
    if hold.is_fatal() { Err(hold) } else { Ok(()) }
}
