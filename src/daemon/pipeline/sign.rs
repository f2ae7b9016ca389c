//! Sign rules: make a signature unless a good one exists; never touch one that is not ours (P8).

use std::sync::Arc;
use std::time::Duration;

use crate::clock;
use crate::context::Context;
use crate::daemon::decide;
use crate::daemon::decide::{Existing, Recalled, Signing};
use crate::daemon::pipeline::{Attempt, AttemptOutcome, Facts, Pipeline, Refusal, Settled, facts};
use crate::daemon::site::decided::{fits, recalled, recalled_elsewhere};
use crate::daemon::site::{Backend, Site, VersionOf};
use crate::escape::Escaped;
use crate::fs::RelPath;
use crate::fs::lease::Writer;
use crate::hold::{AttemptError, Conflict, Hold};
use crate::kms::Operation;
use crate::kms::{Kms, TroubleKind};
use crate::message::log;
use crate::policy::SignRule;
use crate::settle::PairVersion;
use crate::signature::Signature;
use crate::signing::{Signed, Verdict};
use crate::sink::warrant::Warrant;
use crate::sink::{Old, Sink as _, Unwritten};
use crate::source::{Snapshot, Source as _, Version};
use crate::state;
use crate::state::reason::RefusalReason;
use crate::state::{Outcome, Remembered, Seen};

/// How long the second file of a pair that is being moved is waited for. A person, or a script that
/// moves first all files of one kind and then those of the other, needs seconds.
const HALF_MOVED: Duration = Duration::from_secs(60);

impl<K: Kms> Pipeline<K> {
    pub(crate) async fn sign<B: Backend>(
        &self,
        site: &Site<B>,
        rule: &SignRule,
        work: &Attempt<VersionOf<B>>,
    ) -> Result<AttemptOutcome, AttemptError> {
        let came = (rule.deliver_to.is_none()).then(|| came_just_now(work)).flatten();
        let asked = self.state.remembered_and_moved(&site.rule.name, &work.path, came);
        let (row, moved) = asked.await?;
        if let Some(outcome) = Box::pin(self.finish_delivered(site, work, row.as_ref())).await? {
            return Ok(outcome);
        }
        let context = self.context(site, &work.path)?;
        if !self.dry_run {
            self.ask_breaker(std::slice::from_ref(&rule.key), Operation::Encrypt)?;
        }
        if rule.deliver_to.is_none() && Box::pin(is_half_moved(site, work, row.as_ref(), moved)).await? {
            return Ok(AttemptOutcome::HalfMoved);
        }
        let taken = Box::pin(self.take(site, work, row.as_ref(), rule.deliver_to.is_some())).await?;
        if taken.writer == Writer::Present {
            return Err(AttemptError::Changed); // never sign what a writer may still change
        }
        if rule.deliver_to.is_some() {
            return Box::pin(self.sign_and_deliver(site, rule, work, &context, taken)).await;
        }
        if let Some(outcome) = Box::pin(self.decided_before(site, work, row.as_ref(), &taken)).await? {
            return Ok(outcome);
        }
        let existing = Box::pin(self.existing(site, rule, work, row, &context, &taken)).await?;
        match decide::signing(existing, rule.on_stale) {
            Signing::Sign => Box::pin(self.write(site, rule, work, &context, taken, None)).await,
            Signing::Replace => {
                let old = taken.signature.as_ref().and_then(|file| {
                    let signature = file.parsed.clone()?;
                    Some(Old { version: file.version.clone(), signature })
                });
                if let Some(old) = &old {
                    // The row describes the new signature before the old one is gone. After a kill
                    // in between, a signer without the right to Decrypt would not recognise the old
                    // one as ours.
                    self.state.replace_pending_publish(&site.rule.name, &work.path, &old.signature).await?;
                }
                Box::pin(self.write(site, rule, work, &context, taken, old)).await
            }
            Signing::Done => {
                self.remember(site, work, &taken, Settled::plain(Outcome::Signed).repeated()).await
            }
            Signing::Record => {
                log!(SignedBeforeShutdown, rule = site.rule.name, file = %Escaped::new(work.path.as_path()));
                let facts = facts(&taken, Some(rule.key.to_string()));
                self.settle(site, &work.path, &work.versions, Settled::plain(Outcome::Signed), facts).await
            }
            Signing::Adopt => {
                log!(Adopted, rule = site.rule.name, file = %Escaped::new(work.path.as_path()));
                let facts = facts(&taken, Some(rule.key.to_string()));
                self.settle(site, &work.path, &work.versions, Settled::plain(Outcome::Adopted), facts).await
            }
            Signing::ReportStale => {
                Ok(self.refuse_signature(site, work, &taken, RefusalReason::StaleSignature).await)
            }
            Signing::ReportForeign => {
                Ok(self.refuse_signature(site, work, &taken, RefusalReason::ForeignSignature).await)
            }
            Signing::Quarantine(reason) => Box::pin(self.quarantine(site, work, &taken, reason)).await,
        }
    }

    /// Refuses a file for what lies beside it. Both were read, and their digests are put on record.
    async fn refuse_signature<B: Backend>(
        &self,
        site: &Site<B>,
        work: &Attempt<VersionOf<B>>,
        taken: &Snapshot<B::Source>,
        reason: RefusalReason,
    ) -> AttemptOutcome {
        let (path, versions) = (work.path.clone(), work.versions.clone());
        self.refuse_one(site, Refusal { path, versions, reason, facts: facts(taken, None) }).await
    }

    /// Classifies the `.sig` beside the payload. Asks KMS only about one that state does not know.
    async fn existing<B: Backend>(
        &self,
        site: &Site<B>,
        rule: &SignRule,
        work: &Attempt<VersionOf<B>>,
        row: Option<Remembered>,
        context: &Context,
        taken: &Snapshot<B::Source>,
    ) -> Result<Existing, AttemptError> {
        let Some(file) = &taken.signature else {
            return Ok(if taken.is_signature_name_taken { Existing::Foreign } else { Existing::Nothing });
        };
        let Some(signature) = &file.parsed else { return Ok(Existing::Foreign) };
        let fits = fits(rule, signature);
        let decided = row.and_then(|row| {
            let same_content = row.is_of_payload(&taken.hashed.digest);
            recalled(site, &row, signature, same_content)
        });
        let recalled = match decided {
            Some(recalled) => recalled,
            None if self.state.is_pending_publish(&site.rule.name, &work.path, signature).await? => {
                Recalled::PendingPublish
            }
            None => {
                let rows = self.state.signed_with(&site.rule.name, signature).await?;
                let context_of = |path: &RelPath| self.context(site, path).ok();
                let is_content = |row: &Remembered| row.is_of_payload(&taken.hashed.digest);
                recalled_elsewhere(site, &rows, context, context_of, is_content).unwrap_or(Recalled::Nothing)
            }
        };
        if let Some(existing) = decide::recalled(recalled, fits) {
            return Ok(existing);
        }
        if self.dry_run {
            // A dry run makes no KMS call for sign rules; `Foreign` leaves everything as it is.
            return Ok(Existing::Foreign);
        }
        let (keys, formats) = (std::slice::from_ref(&rule.key), site.rule.formats(&site.leaf_keys));
        let opened = match self.open_signature(site, work.owner, keys, formats, context, signature).await {
            Ok(opened) => opened,
            Err(trouble) if trouble.kind == TroubleKind::Denied => {
                return Err(AttemptError::Hold(Hold::WhoseSignature(trouble)));
            }
            Err(trouble) => return Err(trouble.into()),
        };
        let is_valid = matches!(opened.judge(&taken.hashed.digests)?, Verdict::Valid(_));
        // KMS does not open one that was made for another name. What is on record is ours.
        let is_genuine =
            opened.is_genuine() || self.state.is_signature_on_record(&site.rule.name, signature).await?;
        Ok(decide::opened(is_valid, is_genuine, fits))
    }

    /// Makes a signature and writes it, in place of `old` if there is one.
    async fn write<B: Backend>(
        &self,
        site: &Site<B>,
        rule: &SignRule,
        work: &Attempt<VersionOf<B>>,
        context: &Context,
        mut taken: Snapshot<B::Source>,
        old: Option<Old<VersionOf<B>>>,
    ) -> Result<AttemptOutcome, AttemptError> {
        if self.dry_run {
            self.say_would(site, &work.path, if old.is_some() { "sign again" } else { "sign" }, None);
            return self.remember(site, work, &taken, Settled::plain(Outcome::Signed)).await;
        }
        let (signed, _place) = self.make_signature(site, rule, work, context, &mut taken).await?;
        // Only after a long wait: whoever writes the signature asks once more.
        let has_waited = old.is_some() || site.batcher.is_some();
        if has_waited && !site.source.is_still(&work.path, &mut taken).await? {
            return Err(AttemptError::Changed);
        }
        let facts = || Facts {
            digest: Some(taken.hashed.digest.clone()),
            signature_digest: Some(signed.signature.digest()),
            key: Some(signed.key.to_string()),
            ..Facts::default()
        };
        // Committed before it is written, so that a restart after a kill at any point recognises it
        // as ours.
        let signing =
            site.decision(&work.path, &taken.versions(), &Settled::plain(Outcome::Signing), facts());
        self.state.note(signing).await?;
        let written = match site.sink.write_signature(&work.path, &taken, &signed.signature, old).await {
            Ok(written) => written,
            Err(Unwritten { error, seen }) => {
                self.give_up(site, work, &signed, seen).await?;
                return Err(error);
            }
        };
        let settled = Settled::plain(Outcome::Signed);
        let outcome = self.settle(site, &work.path, &written, settled, facts()).await?;
        log!(
            Signed,
            rule = site.rule.name,
            file = %Escaped::new(work.path.as_path()),
            key = %signed.key,
            size = taken.hashed.size,
            lease = lease_word(taken.writer)
        );
        Ok(outcome)
    }

    /// Sees to it that a signature that does not stay is on record if somebody may have it.
    async fn give_up<B: Backend>(
        &self,
        site: &Site<B>,
        work: &Attempt<VersionOf<B>>,
        signed: &Signed,
        seen: Seen,
    ) -> Result<(), AttemptError> {
        let rule = &site.rule.name;
        self.state.give_up_signing(rule, &work.path, &signed.signature, seen).await?;
        if seen == Seen::Perhaps && site.may_log(self.clock.now()) {
            log!(SignatureUnconfirmed, rule, file = %Escaped::new(work.path.as_path()), key = %signed.key);
        }
        Ok(())
    }

    /// Remembers the present versions of a file that was signed before, so that the next scan need
    /// not read it.
    async fn remember<B: Backend>(
        &self,
        site: &Site<B>,
        work: &Attempt<VersionOf<B>>,
        taken: &Snapshot<B::Source>,
        settled: Settled,
    ) -> Result<AttemptOutcome, AttemptError> {
        self.state.note(site.decision(&work.path, &work.versions, &settled, facts(taken, None))).await?;
        Ok(AttemptOutcome::Settled(settled))
    }

    /// Signs a private copy and publishes both at the destination, then removes the source.
    async fn sign_and_deliver<B: Backend>(
        &self,
        site: &Site<B>,
        rule: &SignRule,
        work: &Attempt<VersionOf<B>>,
        context: &Context,
        mut taken: Snapshot<B::Source>,
    ) -> Result<AttemptOutcome, AttemptError> {
        if self.dry_run {
            self.say_would(site, &work.path, "sign and deliver", None);
            let settled = Settled::plain(Outcome::Delivered);
            return self.settle(site, &work.path, &work.versions, settled, facts(&taken, None)).await;
        }
        if let Some(what) = site.sink.obstacle(&work.path, &taken).await? {
            return Err(AttemptError::Hold(site.conflict(&work.path, what))); // before the KMS call, which would be wasted
        }
        let (signed, _place) = self.make_signature(site, rule, work, context, &mut taken).await?;
        let digest = taken.hashed.digest.clone();
        let facts = |signature: &Signature| Facts {
            digest: Some(digest.clone()),
            signature_digest: Some(signature.digest()),
            key: Some(signed.key.to_string()),
            item: None,
        };
        let signing = Settled::plain(Outcome::Signing);
        let signing = site.decision(&work.path, &work.versions, &signing, facts(&signed.signature));
        self.state.note_delivery(signing, &signed.signature).await?;
        let _guard = site.sink.removal_guard();
        let taken = Arc::new(taken);
        let warrant = Warrant::signed(&taken.hashed.digest, &signed);
        let published = Box::pin(self.publish_signed(site, rule, work, context, &taken, &warrant)).await;
        if !published.as_ref().is_ok_and(|published| *published == signed.signature) {
            self.give_up(site, work, &signed, warrant.seen()).await?;
        }
        let facts = facts(&published?);
        let settled = Settled::plain(Outcome::Delivered);
        let outcome = self.settle(site, &work.path, &work.versions, settled, facts).await?;
        log!(
            SignedAndDelivered,
            rule = site.rule.name,
            file = %Escaped::new(work.path.as_path()),
            key = %signed.key,
            size = taken.hashed.size,
            lease = lease_word(taken.writer)
        );
        self.remove_taken(site, &work.path, taken, outcome).await
    }

    /// Publishes the pair. Returns the signature at the destination: after a restart that may be
    /// the one of an earlier attempt.
    async fn publish_signed<B: Backend>(
        &self,
        site: &Site<B>,
        rule: &SignRule,
        work: &Attempt<VersionOf<B>>,
        context: &Context,
        taken: &Arc<Snapshot<B::Source>>,
        warrant: &Warrant,
    ) -> Result<Signature, AttemptError> {
        match self.publish(site, &work.path, taken, warrant).await? {
            None => Ok(warrant.signature().clone()),
            // Delivered before: by us, according to state, or by another holder of the key,
            // according to KMS.
            Some(other) if self.is_ours(site, rule, work, context, taken, &other).await? => Ok(other),
            Some(_) => Err(AttemptError::Hold(site.conflict(&work.path, Conflict::OtherSignature))),
        }
    }

    async fn is_ours<B: Backend>(
        &self,
        site: &Site<B>,
        rule: &SignRule,
        work: &Attempt<VersionOf<B>>,
        context: &Context,
        taken: &Snapshot<B::Source>,
        signature: &Signature,
    ) -> Result<bool, AttemptError> {
        let path = &work.path;
        if self.state.is_pending_publish(&site.rule.name, path, signature).await? {
            return Ok(true);
        }
        let remembered = self.state.remembered(&site.rule.name, path).await?;
        let is_it =
            |row: &Remembered| row.is_of_payload(&taken.hashed.digest) && row.is_of_signature(signature);
        if remembered.as_ref().is_some_and(is_it) {
            return Ok(true);
        }
        let (keys, formats) = (std::slice::from_ref(&rule.key), site.rule.formats(&site.leaf_keys));
        let opened = self.open_signature(site, work.owner, keys, formats, context, signature).await?;
        Ok(matches!(opened.judge(&taken.hashed.digests)?, Verdict::Valid(_)))
    }
}

/// Whether a file changed, or was renamed, so short a time ago that the other one of its pair may
/// be on its way. The clock that it was changed by may be ahead of ours by as much.
pub(crate) fn is_recent(version: &impl Version) -> bool {
    clock::since_epoch().abs_diff(version.changed()) < HALF_MOVED
}

/// The payload of an attempt, if it has no signature and came so short a time ago that it may be
/// the first of a signed pair that is being moved.
fn came_just_now<V: Version>(work: &Attempt<V>) -> Option<state::Version> {
    match &work.versions {
        PairVersion { payload: Some(payload), signature: None } if is_recent(payload) => {
            Some(payload.stored())
        }
        _ => None,
    }
}

/// Whether one file of a signed pair was renamed a moment ago and the other one was not yet, so
/// that it may still follow: people move pairs one file at a time. Signed now, the pair would have
/// two signatures, or another file's. `moved` are the names that the payload was signed under.
async fn is_half_moved<B: Backend>(
    site: &Site<B>,
    work: &Attempt<VersionOf<B>>,
    row: Option<&Remembered>,
    moved: Vec<(RelPath, Remembered)>,
) -> Result<bool, AttemptError> {
    if work.versions.payload.is_none() || work.versions.signature.is_some() {
        return Ok(false);
    }
    // The payload went first: where it was its signature lies alone.
    for (path, row) in moved.into_iter().filter(|(path, _)| *path != work.path) {
        let signature = lone_signature(site, &path).await?;
        if is_moved(row.signature, signature.as_ref()) {
            return Ok(true);
        }
    }
    // Its signature went first, to a name that has no file yet.
    let signature = row.filter(|row| row.outcome.is_signed_in_place()).and_then(|row| row.signature);
    let Some(path) = signature.and_then(|signature| site.lone_signatures().seen(&signature)) else {
        return Ok(false);
    };
    let lies_there = lone_signature(site, &path).await?;
    Ok(is_moved(signature, lies_there.as_ref()) && lies_there.as_ref().is_some_and(is_recent))
}

/// The signature of a path where it lies without its payload.
async fn lone_signature<B: Backend>(
    site: &Site<B>,
    path: &RelPath,
) -> Result<Option<VersionOf<B>>, AttemptError> {
    let there = site.source.observe(path).await?.versions;
    Ok(there.signature.filter(|_| there.payload.is_none()))
}

/// Whether what lies somewhere may be what was remembered, renamed or not.
fn is_moved<V: Version>(remembered: Option<state::Version>, there: Option<&V>) -> bool {
    remembered.zip(there).is_some_and(|(remembered, there)| remembered.may_be_moved(&there.stored()))
}

const fn lease_word(writer: Writer) -> &'static str {
    match writer {
        Writer::Absent | Writer::Present => "granted",
        Writer::Unknown => "unavailable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::FileTime;
    use crate::fs::Identity;

    #[test]
    fn what_changed_a_moment_ago_is_recent_also_by_a_clock_that_is_ahead() {
        let now = clock::since_epoch();
        let short = HALF_MOVED / 2;
        for (changed, expected) in [
            (now, true),
            (now - short, true),
            (now + short, true),
            (now - HALF_MOVED * 2, false),
            (now + HALF_MOVED * 2, false),
        ] {
            let time = FileTime { seconds: i64::try_from(changed.as_secs()).unwrap(), nanos: 0 };
            let version = Identity { dev: 1, ino: 1, size: 1, mtime: time, ctime: time };
            assert_eq!(is_recent(&version), expected, "{changed:?}");
        }
    }
}
