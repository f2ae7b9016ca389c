//! Signatures of ours without their files: counted, and removed where a program has renamed the
//! file.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::daemon::site::{Backend, Site};
use crate::daemon::worker::Worker;
use crate::daemon::worker::standing::PATIENCE;
use crate::escape::Escaped;
use crate::fs::RelPath;
use crate::kms::Kms;
use crate::message::log;
use crate::sink::Sink as _;
use crate::source::{Source as _, Version};
use crate::state::SignedElsewhere;

/// Files that are looked at, and listed.
const MOST: usize = 1_000;

/// How much longer than it took nobody reads the whole record again.
const REST: u32 = 200;

impl<K: Kms, B: Backend> Worker<K, B> {
    /// Sees to the signatures of ours that a whole scan found without their files: `found` are the
    /// first of `count`. One is removed if its content was signed under another name since, and is
    /// so still, and nobody has come back to it for a while: a program has renamed the file.
    pub(crate) async fn see_to_orphans(&mut self, site: &Arc<Site<B>>, count: usize, found: Vec<RelPath>) {
        let now = self.pipeline.clock.now();
        let (known_before, mut known) = (std::mem::take(&mut self.standing.orphans), BTreeMap::new());
        for path in found.into_iter().take(MOST) {
            let since = known_before.1.get(&path).copied().unwrap_or(now);
            known.insert(path, since);
        }
        let mut count = count;
        if !known.is_empty() && now >= self.standing.next_record && !self.pipeline.dry_run {
            let asked =
                self.pipeline.state.signed_elsewhere(&self.rule.name, known.keys().cloned().collect());
            let elsewhere = self.heartbeat.at_state(asked).await;
            let took = self.pipeline.clock.now().saturating_sub(now);
            self.standing.next_record = now + took.saturating_mul(REST);
            match elsewhere {
                Ok(elsewhere) => {
                    for renamed in elsewhere {
                        let since = known.get(&renamed.path);
                        let alone = since.map_or(Duration::ZERO, |since| now.saturating_sub(*since));
                        if may_go(alone, &renamed.at) && self.remove_orphan(site, &renamed).await {
                            known.remove(&renamed.path);
                            count = count.saturating_sub(1);
                        }
                    }
                }
                Err(error) => log!(StateUnreadable, rule = self.rule.name, %error),
            }
        }
        if count > known_before.0
            && let Some(path) = known.keys().find(|path| !known_before.1.contains_key(*path))
        {
            log!(OrphanSignatures, rule = self.rule.name, count, file = %Escaped::new(path.as_path()));
        }
        self.standing.orphans = (count, known);
        self.unshown = true;
    }

    /// Removes a signature whose file was renamed, if it may go. Whether it is gone.
    async fn remove_orphan(&self, site: &Site<B>, renamed: &SignedElsewhere) -> bool {
        let SignedElsewhere { path, payload, signature_digest, other, at: _ } = renamed;
        // Signed there as state says, and not gone or replaced since.
        let row = self.heartbeat.at_state(self.pipeline.state.remembered(&self.rule.name, other)).await;
        let observed = self.heartbeat.at_source(site.source.observe(other)).await;
        let (Ok(Some(row)), Ok(observed)) = (row, observed) else { return false };
        if row.payload != observed.versions.payload.as_ref().map(Version::stored)
            || row.signature != observed.versions.signature.as_ref().map(Version::stored)
            || row.signature.is_none()
        {
            return false;
        }
        let (rule, file) = (&self.rule.name, Escaped::new(path.as_path()));
        let gone = site.sink.remove_left_signature(path, signature_digest);
        match self.heartbeat.at_source(gone).await {
            Ok(true) => {
                log!(OrphanRemoved, rule, %file, other = %Escaped::new(other.as_path()));
                let gone = vec![(path.as_bytes().to_vec(), *payload)];
                // Otherwise it is forgotten with others that are gone.
                self.heartbeat.at_state(self.pipeline.state.forget(rule, gone)).await.unwrap_or_default();
                true
            }
            Ok(false) => false,
            Err(error) => {
                tracing::debug!(rule, %file, ?error, "a signature without its file is not removed");
                false
            }
        }
    }
}

/// Whether a signature may go that has been without its file for so long, and whose content was
/// signed elsewhere then (RFC 3339, UTC). Both have to be long ago: a file that has a twin may be
/// away for a moment.
fn may_go(alone: Duration, signed_elsewhere: &str) -> bool {
    alone >= PATIENCE && *signed_elsewhere <= *clock::timestamp_ago(PATIENCE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a37_a_signature_goes_only_when_it_was_alone_and_its_content_elsewhere_for_long() {
        let (moment, long) = (Duration::from_secs(1), PATIENCE * 2);
        for (alone, elsewhere, goes) in
            [(moment, moment, false), (moment, long, false), (long, moment, false), (long, long, true)]
        {
            assert_eq!(may_go(alone, &clock::timestamp_ago(elsewhere)), goes, "{alone:?} {elsewhere:?}");
        }
    }
}
