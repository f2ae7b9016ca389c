//! Verify rules: judge a pair, then deliver, accept, quarantine or leave it.

use std::sync::Arc;

use crate::context::Context;
use crate::daemon::decide;
use crate::daemon::decide::{RollbackAction, Verified};
use crate::daemon::pipeline::{Attempt, AttemptOutcome, INVALID, Known, Pipeline, Settled, VALID, facts};
use crate::daemon::site::{Backend, Site, VersionOf};
use crate::escape::Escaped;
use crate::fs::Action;
use crate::fs::lease::Writer;
use crate::hold::{AttemptError, Conflict, Hold};
use crate::key::KeyId;
use crate::kms::Kms;
use crate::kms::Operation;
use crate::message::log;
use crate::policy::{Place, Rollback, VerifyRule};
use crate::settle::Finality;
use crate::signature::Signature;
use crate::signing::{OpenedSignature, Reason, Valid, Verdict};
use crate::sink::Sink as _;
use crate::sink::warrant::Warrant;
use crate::source::{Bringers, Snapshot, Source as _};
use crate::state::Outcome;

impl<K: Kms> Pipeline<K> {
    pub(crate) async fn verify<B: Backend>(
        &self,
        site: &Site<B>,
        rule: &VerifyRule,
        work: &Attempt<VersionOf<B>>,
        known: &mut Option<Known>,
    ) -> Result<AttemptOutcome, AttemptError> {
        let row = self.state.remembered(&site.rule.name, &work.path).await?;
        if let Some(outcome) = Box::pin(self.finish_delivered(site, work, row.as_ref())).await? {
            return Ok(outcome);
        }
        let keys: Vec<KeyId> = rule.trusted_keys.iter().map(crate::key::KeyArn::to_key_id).collect();
        if known.is_none() && work.versions.signature.is_some() {
            self.ask_breaker(&keys, Operation::Decrypt)?;
        }
        let private = matches!(rule.place, Place::Deliver(_));
        let context = self.context(site, &work.path)?; // first: without a valid context the copy would be wasted
        let taken = self.take(site, work, row.as_ref(), private).await?;
        if let Some(outcome) = self.decided_before(site, work, row.as_ref(), &taken).await? {
            return Ok(outcome);
        }
        let verdict = match &taken.signature {
            None => Verdict::Invalid(Reason::Missing),
            Some(file) => {
                let opened = match &file.parsed {
                    None => OpenedSignature::malformed(),
                    Some(signature) => self.open(site, work.owner, &keys, &context, signature, known).await?,
                };
                opened.judge(&taken.hashed.digests)?
            }
        };
        let bringers = match &verdict {
            Verdict::Valid(_) => Bringers::One, // owners matter only to an invalid pair
            // An invalid verdict counts only if the files have not changed since.
            Verdict::Invalid(_) => site.source.bringers(&work.path, &taken).await?,
        };
        if let (Verdict::Invalid(_), Finality::Final, Writer::Present) =
            (&verdict, work.finality, taken.writer)
        {
            return Err(AttemptError::Changed); // a writer came while it was queued: `grace` starts again
        }
        let is_batch = taken.signature.as_ref().and_then(|file| file.parsed.as_ref()?.batch()).is_some();
        let mistake = match &verdict {
            Verdict::Valid(_) => false,
            Verdict::Invalid(reason) => decide::looks_like_our_mistake(*reason, is_batch),
        };
        let braked = {
            let mut brake = site.brake();
            // A pair of two owners says nothing about the policy: one may have spoilt it for the
            // other. It is also attempted many times.
            let counts = work.finality == Finality::Final && bringers == Bringers::One;
            if matches!(verdict, Verdict::Valid(_)) || counts {
                brake.saw(mistake);
            }
            mistake && brake.is_on()
        };
        if let (Verdict::Invalid(Reason::Malformed), true, Finality::Final) =
            (&verdict, is_batch, work.finality)
        {
            let file = Escaped::new(work.path.as_path());
            log!(BatchNotAccepted, rule = site.rule.name, %file);
        }
        let verdict = match verdict {
            Verdict::Valid(valid) => Ok(valid),
            Verdict::Invalid(reason) => Err(reason),
        };
        // Somebody may have written, or the kernel does not say.
        let is_unsure = work.finality == Finality::Early && taken.writer != Writer::Absent;
        match decide::verified(rule, verdict, work.finality, braked, bringers) {
            Verified::Accept(_) | Verified::Wait(_) if is_unsure => Ok(AttemptOutcome::TooEarly),
            Verified::Deliver(valid) => self.deliver(site, rule, work, &keys, &context, taken, valid).await,
            Verified::Accept(valid) => self.accept(site, rule, work, &taken, &valid).await,
            Verified::Wait(reason) => {
                let file = Escaped::new(work.path.as_path());
                tracing::debug!(rule = site.rule.name, %file, reason = reason.as_str(), "does not verify yet");
                Ok(AttemptOutcome::NotYet)
            }
            Verified::Quarantine(reason) => self.quarantine(site, work, &taken, reason).await,
            Verified::Leave(reason) => {
                log!(
                    Invalid,
                    rule = site.rule.name,
                    file = %Escaped::new(work.path.as_path()),
                    verdict = INVALID,
                    reason = reason.as_str(),
                    hint = taken.hint()
                );
                let settled = Settled::judged(Outcome::Invalid, reason);
                self.settle(site, &work.path, &work.versions, settled, facts(&taken, None)).await
            }
            Verified::Hold(doubt, reason) => Err(AttemptError::Hold(doubt.hold(reason))),
        }
    }

    /// Opens a signature, once for as long as the pair waits.
    async fn open<B: Backend>(
        &self,
        site: &Site<B>,
        owner: Option<u32>,
        keys: &[KeyId],
        context: &Context,
        signature: &Signature,
        known: &mut Option<Known>,
    ) -> Result<OpenedSignature, AttemptError> {
        if let Some(known) = known.as_ref().filter(|known| known.signature == *signature) {
            return Ok(known.opened.clone());
        }
        let formats = site.rule.formats(&site.leaf_keys);
        let opened = self.open_signature(site, owner, keys, formats, context, signature).await?;
        *known = Some(Known { signature: signature.clone(), opened: opened.clone() });
        Ok(opened)
    }

    async fn accept<B: Backend>(
        &self,
        site: &Site<B>,
        rule: &VerifyRule,
        work: &Attempt<VersionOf<B>>,
        taken: &Snapshot<B::Source>,
        valid: &Valid,
    ) -> Result<AttemptOutcome, AttemptError> {
        self.check_rollback(site, rule, work, valid).await?;
        self.remember_delivered_version(site, rule, work, valid).await?;
        log!(
            Valid,
            rule = site.rule.name,
            file = %Escaped::new(work.path.as_path()),
            verdict = VALID,
            key = %valid.key(),
            size = taken.hashed.size
        );
        let facts = facts(taken, Some(valid.key().to_string()));
        self.settle(site, &work.path, &work.versions, Settled::plain(Outcome::Valid), facts).await
    }

    #[expect(clippy::too_many_arguments, reason = "one step of `verify`, which has them all")]
    async fn deliver<B: Backend>(
        &self,
        site: &Site<B>,
        rule: &VerifyRule,
        work: &Attempt<VersionOf<B>>,
        keys: &[KeyId],
        context: &Context,
        taken: Snapshot<B::Source>,
        valid: Valid,
    ) -> Result<AttemptOutcome, AttemptError> {
        let facts = facts(&taken, Some(valid.key().to_string()));
        self.check_rollback(site, rule, work, &valid).await?;
        if self.dry_run {
            self.say_would(site, &work.path, "deliver", None);
            let settled = Settled::plain(Outcome::Delivered);
            return self.settle(site, &work.path, &work.versions, settled, facts).await;
        }
        let Some(signature) = taken.signature.as_ref().and_then(|file| file.parsed.clone()) else {
            return Err(AttemptError::bug("a verdict is valid without a signature"));
        };
        let size = taken.hashed.size;
        let _guard = site.sink.removal_guard();
        if rule.rollback != Rollback::Off {
            // Before it counts as a delivered version.
            site.sink.prepare_removal(&work.path, &taken.versions()).await?;
            if let Some(what) = site.sink.obstacle(&work.path, &taken).await? {
                return Err(AttemptError::Hold(site.conflict(&work.path, what)));
            }
        }
        self.state.add_pending_publish(&site.rule.name, &work.path, &signature).await?;
        let is_new = self.remember_delivered_version(site, rule, work, &valid).await?;
        let taken = Arc::new(taken);
        let warrant = Warrant::verified(&valid, &signature);
        match self.publish_verified(site, work, &taken, &warrant, keys, context).await {
            Ok(()) => {}
            Err(Failed::Surely(stop)) if is_new => {
                self.state.forget_delivered_version(&site.rule.name, &work.path, valid.digest()).await?;
                return Err(stop);
            }
            Err(Failed::Surely(stop) | Failed::Perhaps(stop)) => return Err(stop),
        }
        let settled = Settled::plain(Outcome::Delivered);
        let outcome = self.settle(site, &work.path, &work.versions, settled, facts).await?;
        log!(
            Delivered,
            rule = site.rule.name,
            file = %Escaped::new(work.path.as_path()),
            verdict = VALID,
            key = %valid.key(),
            size
        );
        self.remove_taken(site, &work.path, taken, outcome).await
    }

    /// Publishes the pair. Another valid signature that is already there is success.
    async fn publish_verified<B: Backend>(
        &self,
        site: &Site<B>,
        work: &Attempt<VersionOf<B>>,
        taken: &Arc<Snapshot<B::Source>>,
        warrant: &Warrant,
        keys: &[KeyId],
        context: &Context,
    ) -> Result<(), Failed> {
        let Some(other) = self.publish(site, &work.path, taken, warrant).await? else { return Ok(()) };
        let opened = self.open(site, work.owner, keys, context, &other, &mut None).await?;
        match opened.judge(&taken.hashed.digests).map_err(AttemptError::from)? {
            Verdict::Valid(_) => Ok(()),
            Verdict::Invalid(_) => {
                let conflict = site.conflict(&work.path, Conflict::InvalidSignature);
                Err(Failed::Perhaps(AttemptError::Hold(conflict)))
            }
        }
    }

    /// Remembers a digest as delivered before it is accepted, if the rule has `rollback`. Returns
    /// whether it was new.
    async fn remember_delivered_version<B: Backend>(
        &self,
        site: &Site<B>,
        rule: &VerifyRule,
        work: &Attempt<VersionOf<B>>,
        valid: &Valid,
    ) -> Result<bool, AttemptError> {
        if rule.rollback == Rollback::Off {
            return Ok(false);
        }
        Ok(self.state.remember_delivered_version(&site.rule.name, &work.path, valid.digest()).await?)
    }

    async fn check_rollback<B: Backend>(
        &self,
        site: &Site<B>,
        rule: &VerifyRule,
        work: &Attempt<VersionOf<B>>,
        valid: &Valid,
    ) -> Result<(), AttemptError> {
        if rule.rollback == Rollback::Off {
            return Ok(());
        }
        let digest = valid.digest();
        let is_superseded = self.state.is_superseded(&site.rule.name, &work.path, digest).await?;
        match decide::rollback(rule.rollback, is_superseded) {
            RollbackAction::Accept => Ok(()),
            RollbackAction::Hold => Err(AttemptError::Hold(Hold::Rollback)),
            RollbackAction::Alert => {
                let file = Escaped::new(work.path.as_path());
                log!(SupersededAccepted, rule = site.rule.name, %file, %digest);
                Ok(())
            }
        }
    }
}

/// Why publishing failed, and whether it is certain that nothing was published. If not, it counts
/// as published: somebody may have taken it.
enum Failed {
    Surely(AttemptError),
    Perhaps(AttemptError),
}

impl From<AttemptError> for Failed {
    fn from(stop: AttemptError) -> Self {
        match &stop {
            AttemptError::Hold(Hold::Conflict { .. }) => Self::Surely(stop),
            // The directory is synced after the payload was linked, so it may be public already.
            AttemptError::Hold(Hold::Fs(error)) if error.action != Action::SyncDirectory => {
                Self::Surely(stop)
            }
            AttemptError::Hold(_)
            | AttemptError::Changed
            | AttemptError::Touched(_)
            | AttemptError::NotYet
            | AttemptError::Refused(_) => Self::Perhaps(stop),
        }
    }
}
