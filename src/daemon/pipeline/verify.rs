//! Verify rules: judge a pair, then deliver, accept, quarantine or leave it.

use std::sync::Arc;

use crate::context::Context;
use crate::daemon::decide;
use crate::daemon::decide::{Bringers, Doubt, Verified};
use crate::daemon::hold::{AttemptError, Hold};
use crate::daemon::limit::Operation;
use crate::daemon::pipeline::snapshot::Snapshot;
use crate::daemon::pipeline::{
    Attempt, AttemptOutcome, INVALID, Known, Pipeline, Settled, Site, VALID, blocking,
};
use crate::escape::Escaped;
use crate::fs::lease::Writer;
use crate::fs::{RelPath, SYNC_DIRECTORY};
use crate::key::KeyId;
use crate::kms::Kms;
use crate::policy::{Place, Rollback, VerifyRule};
use crate::settle::Finality;
use crate::signature::Signature;
use crate::signing::{OpenedSignature, Reason, Valid, Verdict};
use crate::sink::directory::deliver;
use crate::sink::directory::deliver::{Delivered, Warrant};
use crate::state::Outcome;

impl<K: Kms> Pipeline<K> {
    pub(crate) async fn verify(
        &self,
        site: &Arc<Site>,
        rule: &VerifyRule,
        work: &Attempt,
        known: &mut Option<Known>,
    ) -> Result<AttemptOutcome, AttemptError> {
        if self.was_delivered(site, work).await? {
            return self.remove_delivered(site, work).await;
        }
        let keys: Vec<KeyId> = rule.trusted_keys.iter().map(crate::key::KeyArn::to_key_id).collect();
        if known.is_none() && work.sight.signature.is_some() {
            self.ask_breaker(&keys, Operation::Decrypt)?;
        }
        let private = matches!(rule.place, Place::Deliver(_));
        let context = self.context(site, &work.path)?; // first: what can have no context need not be copied
        let taken = self.take(site, work, private).await?;
        let verdict = match &taken.signature {
            None => Verdict::Invalid(Reason::Missing),
            Some(file) => {
                let opened = match &file.parsed {
                    None => OpenedSignature::malformed(),
                    Some(signature) => self.open(site, &keys, &context, signature, known).await?,
                };
                opened.judge(&taken.hashed.digests)?
            }
        };
        let (taken, bringers) = match &verdict {
            Verdict::Valid(_) => (taken, Bringers::One), // it makes no difference
            Verdict::Invalid(_) => still_there(taken, &work.path).await?,
        };
        if let (Verdict::Invalid(_), Finality::Final, Writer::Present) =
            (&verdict, work.finality, taken.writer)
        {
            return Err(AttemptError::Changed); // a writer came while it waited for its turn: the grace begins again
        }
        let is_batch = taken.signature.as_ref().and_then(|file| file.parsed.as_ref()?.batch()).is_some();
        let mistake = match &verdict {
            Verdict::Valid(_) => false,
            Verdict::Invalid(reason) => decide::looks_like_our_mistake(*reason, is_batch),
        };
        let braked = {
            let mut brake = site.brake();
            // A pair that one user may have spoilt for another says nothing about the policy, and is tried many times.
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
            tracing::warn!(rule = site.rule.name, %file, "a batch signature, and the rule has no accept_batch = true");
        }
        match decide::verified(rule, verdict, work.finality, braked, bringers) {
            Verified::Deliver(valid) => self.deliver(site, rule, work, &keys, &context, taken, valid).await,
            Verified::Accept(valid) => self.accept(site, rule, work, &taken, &valid).await,
            Verified::Wait(reason) => {
                let file = Escaped::new(work.path.as_path());
                tracing::debug!(rule = site.rule.name, %file, reason = reason.as_str(), "does not verify yet");
                Ok(AttemptOutcome::NotYet)
            }
            Verified::Quarantine(reason) => self.quarantine(site, work, &taken, reason).await,
            Verified::Leave(reason) => {
                tracing::error!(
                    rule = site.rule.name,
                    file = %Escaped::new(work.path.as_path()),
                    verdict = INVALID,
                    reason = reason.as_str(),
                    "invalid"
                );
                let settled = Settled { outcome: Outcome::Invalid, reason: Some(reason.to_string()) };
                Ok(self.settle(site, &work.path, work.sight, settled, taken.facts(None)).await)
            }
            Verified::Hold(Doubt::Brake, reason) => Err(AttemptError::Hold(Hold::Brake(reason))),
            Verified::Hold(Doubt::MixedOwners, reason) => Err(AttemptError::Hold(Hold::MixedOwners(reason))),
        }
    }

    /// Opens a signature, once for as long as its pair waits.
    async fn open(
        &self,
        site: &Site,
        keys: &[KeyId],
        context: &Context,
        signature: &Signature,
        known: &mut Option<Known>,
    ) -> Result<OpenedSignature, AttemptError> {
        if let Some(known) = known.as_ref().filter(|known| known.signature == *signature) {
            return Ok(known.opened.clone());
        }
        let formats = site.rule.formats(&site.leaf_keys);
        let opened = self.open_signature(site, keys, formats, context, signature).await?;
        *known = Some(Known { signature: signature.clone(), opened: opened.clone() });
        Ok(opened)
    }

    async fn accept(
        &self,
        site: &Site,
        rule: &VerifyRule,
        work: &Attempt,
        taken: &Snapshot,
        valid: &Valid,
    ) -> Result<AttemptOutcome, AttemptError> {
        self.check_rollback(site, rule, work, valid).await?;
        self.remember_edition(site, rule, work, valid).await?;
        tracing::info!(
            rule = site.rule.name,
            file = %Escaped::new(work.path.as_path()),
            verdict = VALID,
            key = %valid.key(),
            size = taken.hashed.size,
            "valid"
        );
        let facts = taken.facts(Some(valid.key().to_string()));
        Ok(self.settle(site, &work.path, work.sight, Settled::plain(Outcome::Valid), facts).await)
    }

    #[expect(clippy::too_many_arguments, reason = "one step of `verify`, which has them all")]
    async fn deliver(
        &self,
        site: &Arc<Site>,
        rule: &VerifyRule,
        work: &Attempt,
        keys: &[KeyId],
        context: &Context,
        taken: Snapshot,
        valid: Valid,
    ) -> Result<AttemptOutcome, AttemptError> {
        let facts = taken.facts(Some(valid.key().to_string()));
        self.check_rollback(site, rule, work, &valid).await?;
        if self.dry_run {
            self.say_would(site, &work.path, "deliver", None);
            let settled = Settled::plain(Outcome::Delivered);
            return Ok(self.settle(site, &work.path, work.sight, settled, facts).await);
        }
        let Some(signature) = taken.signature.as_ref().and_then(|file| file.parsed.clone()) else {
            return Err(AttemptError::Changed); // BUG: a valid verdict needs a signature. Starting over is always safe.
        };
        let (size, source) = (taken.hashed.size, taken.parts(&work.path, true));
        let _customer = site.remover.enter();
        if rule.rollback != Rollback::Off {
            // Before it counts as an edition.
            let (here, parts) = (Arc::clone(site), source.clone());
            blocking(move || here.prepare_removal(&parts)).await?;
            if let Some(what) = self.obstacle(site, work, &taken).await? {
                return Err(AttemptError::Hold(site.conflict(&work.path, what)));
            }
        }
        self.state.intend(&site.rule.name, &work.path, &signature).await?;
        let is_new = self.remember_edition(site, rule, work, &valid).await?;
        let taken = Arc::new(taken);
        match self.publish(site, work, &taken, &valid, &signature, keys, context).await {
            Ok(()) => {}
            Err(Failed::Surely(stop)) if is_new => {
                let digest = valid.digest().to_string();
                self.state.forget_edition(&site.rule.name, &work.path, &digest).await?;
                return Err(stop);
            }
            Err(Failed::Surely(stop) | Failed::Perhaps(stop)) => return Err(stop),
        }
        let settled = Settled::plain(Outcome::Delivered);
        let ending = self.settle(site, &work.path, work.sight, settled, facts).await;
        if matches!(ending, AttemptOutcome::Hold(_)) {
            return Ok(ending);
        }
        tracing::info!(
            rule = site.rule.name,
            file = %Escaped::new(work.path.as_path()),
            verdict = VALID,
            key = %valid.key(),
            size,
            "delivered"
        );
        site.remove(source, ending).await
    }

    /// Publishes the pair, seeing to what may lie at the destination already.
    #[expect(clippy::too_many_arguments, reason = "one step of `deliver`, which has them all")]
    async fn publish(
        &self,
        site: &Arc<Site>,
        work: &Attempt,
        taken: &Arc<Snapshot>,
        valid: &Valid,
        signature: &Signature,
        keys: &[KeyId],
        context: &Context,
    ) -> Result<(), Failed> {
        let attempt = || {
            let (here, path, taken) = (Arc::clone(site), work.path.clone(), Arc::clone(taken));
            let (valid, signature) = (valid.clone(), signature.clone());
            blocking(move || here.deliver_copy(&path, &taken, &Warrant::verified(&valid, &signature)))
        };
        let conflict = |what| AttemptError::Hold(site.conflict(&work.path, what));
        match attempt().await? {
            Delivered::Done => Ok(()),
            Delivered::Beside(other) => {
                // The payload is there already; a valid signature is as good as another.
                let opened = self.open(site, keys, context, &other, &mut None).await?;
                match opened.judge(&taken.hashed.digests).map_err(AttemptError::from)? {
                    Verdict::Valid(_) => Ok(()),
                    Verdict::Invalid(_) => {
                        Err(Failed::Perhaps(conflict("the same file with an invalid signature")))
                    }
                }
            }
            Delivered::Orphan(other) => {
                let was_intended = self.state.was_intended(&site.rule.name, &work.path, &other).await;
                if !was_intended.map_err(AttemptError::from)? {
                    return Err(conflict("a signature without its file").into());
                }
                if !site.remove_orphan(&work.path, &other).await? {
                    return Err(conflict("a signature without its file").into());
                }
                match attempt().await? {
                    Delivered::Done => Ok(()),
                    Delivered::Beside(_) | Delivered::Orphan(_) => Err(AttemptError::Changed.into()),
                    Delivered::Conflict(what) => Err(conflict(what).into()),
                }
            }
            Delivered::Conflict(what) => Err(conflict(what).into()),
        }
    }

    /// Remembers what is about to be accepted, where the rule asks for it; whether that was not remembered before.
    async fn remember_edition(
        &self,
        site: &Site,
        rule: &VerifyRule,
        work: &Attempt,
        valid: &Valid,
    ) -> Result<bool, AttemptError> {
        if rule.rollback == Rollback::Off {
            return Ok(false);
        }
        let digest = valid.digest().to_string();
        Ok(self.state.remember_edition(&site.rule.name, &work.path, &digest).await?)
    }

    async fn check_rollback(
        &self,
        site: &Site,
        rule: &VerifyRule,
        work: &Attempt,
        valid: &Valid,
    ) -> Result<(), AttemptError> {
        if rule.rollback == Rollback::Off {
            return Ok(());
        }
        let digest = valid.digest().to_string();
        if !self.state.is_superseded(&site.rule.name, &work.path, &digest).await? {
            return Ok(());
        }
        match rule.rollback {
            Rollback::Off => Ok(()),
            Rollback::Deny => Err(AttemptError::Hold(Hold::Rollback)),
            Rollback::Alert => {
                let file = Escaped::new(work.path.as_path());
                tracing::error!(rule = site.rule.name, %file, digest, "superseded content is accepted again");
                Ok(())
            }
        }
    }
}

/// A snapshot of a pair that is as it was judged, and who brought it; a bad verdict may be about what is no longer
/// there.
async fn still_there(taken: Snapshot, path: &RelPath) -> Result<(Snapshot, Bringers), AttemptError> {
    let path = path.clone();
    blocking(move || {
        if !taken.is_pair_unchanged(&path)? {
            return Err(AttemptError::Changed);
        }
        let bringers = taken.bringers(&path)?;
        Ok((taken, bringers))
    })
    .await
}

/// Why something was not published, and whether that is known. What is not counts as published: somebody may have it.
enum Failed {
    Surely(AttemptError),
    Perhaps(AttemptError),
}

impl From<AttemptError> for Failed {
    fn from(stop: AttemptError) -> Self {
        match &stop {
            AttemptError::Hold(Hold::Conflict { .. }) => Self::Surely(stop),
            // The payload has its name by then, if it is the last one.
            AttemptError::Hold(Hold::Fs(error)) if error.action != SYNC_DIRECTORY => Self::Surely(stop),
            AttemptError::Hold(_) | AttemptError::Changed | AttemptError::Refused(_) => Self::Perhaps(stop),
        }
    }
}

impl Site {
    pub(crate) fn deliver_copy(
        &self,
        path: &RelPath,
        taken: &Snapshot,
        warrant: &Warrant<'_>,
    ) -> Result<Delivered, AttemptError> {
        let (Some(root), Some(staging), Some(mode)) =
            (&self.destination, &taken.staging, self.deliver_mode())
        else {
            return Err(AttemptError::Changed); // BUG: only rules that deliver come here, with a private copy
        };
        self.prepare_removal(&taken.parts(path, !self.leaves_signature()))?;
        AttemptError::unless_there(root)?;
        Ok(deliver::deliver(root, path, staging, &taken.hashed, warrant, mode, &self.disk)?)
    }

    /// Whether it is gone.
    pub(crate) async fn remove_orphan(
        &self,
        path: &RelPath,
        known: &Signature,
    ) -> Result<bool, AttemptError> {
        let (Some(root), path, known) = (self.destination.clone(), path.clone(), known.clone()) else {
            return Ok(true);
        };
        blocking(move || Ok(deliver::remove_orphan(&root, &path, &known)?)).await
    }

    pub(crate) fn conflict(&self, path: &RelPath, what: &'static str) -> Hold {
        let root = self.destination.as_ref().map_or(self.rule.path.as_path(), |dir| dir.path());
        Hold::Conflict { path: root.join(path.as_path()), what }
    }

    pub(crate) fn deliver_mode(&self) -> Option<u32> {
        self.rule.delivery().map(|delivery| delivery.mode)
    }
}
