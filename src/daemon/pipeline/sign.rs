//! Sign rules: make a signature, unless there is a good one; never touch one that is not ours (P8).

use std::sync::Arc;

use crate::context::Context;
use crate::daemon::decide;
use crate::daemon::decide::{Existing, Signing};
use crate::daemon::hold::{AttemptError, Hold};
use crate::daemon::limit::Operation;
use crate::daemon::pipeline::snapshot::Snapshot;
use crate::daemon::pipeline::{Attempt, AttemptOutcome, Facts, Pipeline, Settled, Site, blocking, sibling};
use crate::escape::Escaped;
use crate::fs::lease::Writer;
use crate::fs::{RelPath, Stat};
use crate::kms::{Kms, TroubleKind};
use crate::policy::SignRule;
use crate::signature::Signature;
use crate::signing::{Reason, Signed, Verdict};
use crate::sink::directory::deliver;
use crate::sink::directory::deliver::{Delivered, Warrant};
use crate::sink::directory::sign;
use crate::sink::directory::sign::{Old, Spot};
use crate::state::{Outcome, Version};

impl<K: Kms> Pipeline<K> {
    pub(crate) async fn sign(
        &self,
        site: &Arc<Site>,
        rule: &SignRule,
        work: &Attempt,
    ) -> Result<AttemptOutcome, AttemptError> {
        if self.was_delivered(site, work).await? {
            return self.remove_delivered(site, work).await;
        }
        let context = self.context(site, &work.path)?;
        if !self.dry_run {
            self.ask_breaker(std::slice::from_ref(&rule.key), Operation::Encrypt)?;
        }
        let taken = Box::pin(self.take(site, work, rule.deliver_to.is_some())).await?;
        if taken.writer == Writer::Present {
            return Err(AttemptError::Changed); // never vouch for what someone may still change
        }
        if rule.deliver_to.is_some() {
            return Box::pin(self.sign_and_deliver(site, rule, work, &context, taken)).await;
        }
        let existing = Box::pin(self.existing(site, rule, work, &context, &taken)).await?;
        match decide::signing(existing, rule.on_stale) {
            Signing::Sign => Box::pin(self.write(site, rule, work, &context, taken, None)).await,
            Signing::Replace => {
                let old = taken.signature.as_ref().and_then(|file| {
                    let signature = file.parsed.clone()?;
                    Some(Old { identity: file.stat.identity, signature })
                });
                if let Some(old) = &old {
                    // The row will be about the new one before the old one is gone: a signer who may not Decrypt
                    // would not know it for ours after a kill in between.
                    self.state.intend_to_replace(&site.rule.name, &work.path, &old.signature).await?;
                }
                Box::pin(self.write(site, rule, work, &context, taken, old)).await
            }
            Signing::Done => Ok(self.remember(site, work, &taken, Outcome::Signed).await),
            Signing::Record => {
                tracing::info!(
                    rule = site.rule.name,
                    file = %Escaped::new(work.path.as_path()),
                    "signed before the last end; now on record"
                );
                let facts = taken.facts(Some(rule.key.to_string()));
                Ok(self.settle(site, &work.path, work.sight, Settled::plain(Outcome::Signed), facts).await)
            }
            Signing::Adopt => {
                tracing::info!(
                    rule = site.rule.name,
                    file = %Escaped::new(work.path.as_path()),
                    "a valid signature was there; adopted"
                );
                let facts = taken.facts(Some(rule.key.to_string()));
                Ok(self.settle(site, &work.path, work.sight, Settled::plain(Outcome::Adopted), facts).await)
            }
            Signing::Report if existing == Existing::Stale => Err(AttemptError::Refused(STALE.into())),
            Signing::Report => Err(AttemptError::Refused(FOREIGN.into())),
            Signing::Quarantine => Box::pin(self.quarantine(site, work, &taken, Reason::Mismatch)).await,
        }
    }

    /// What the `.sig` beside the payload is. Asks KMS only about one that state does not know.
    async fn existing(
        &self,
        site: &Site,
        rule: &SignRule,
        work: &Attempt,
        context: &Context,
        taken: &Snapshot,
    ) -> Result<Existing, AttemptError> {
        let name = site.rule.signature_name(work.path.name());
        let Some(file) = &taken.signature else {
            // Something that is no regular file may still have the name.
            let parent = taken.parent.clone();
            return Ok(match blocking(move || Ok(parent.stat_of(&name)?)).await? {
                None => Existing::Nothing,
                Some(_) => Existing::Foreign,
            });
        };
        let Some(signature) = &file.parsed else { return Ok(Existing::Foreign) };
        // A plain one is as good where there are batches. Who reads plain ones only can do nothing with a batch's.
        let fits = signature.batch().is_none() || rule.batch.is_some();
        let remembered = self.state.remembered(&site.rule.name, &work.path).await?;
        if let Some(row) = remembered
            && row.signature_digest.as_deref() == Some(&signature.digest().to_string())
            && row.outcome.is_signed_in_place()
        {
            let same_content = row.digest.as_deref() == Some(&taken.hashed.digest.to_string());
            let same_rule = [&site.fingerprint, &site.other_format].contains(&&row.fingerprint);
            let current = same_content && same_rule && fits;
            return Ok(match (current, row.outcome) {
                (true, Outcome::Signing) => Existing::Unrecorded,
                (true, _) => Existing::Current,
                (false, _) => Existing::Stale,
            });
        }
        if self.state.was_intended(&site.rule.name, &work.path, signature).await? {
            return Ok(Existing::Stale); // ours, and about to be replaced when the process was killed
        }
        if self.dry_run {
            // A dry run asks KMS nothing for sign rules; report is what leaves everything as it is.
            return Ok(Existing::Foreign);
        }
        let (keys, formats) = (std::slice::from_ref(&rule.key), site.rule.formats(&site.leaf_keys));
        let opened = match self.open_signature(site, keys, formats, context, signature).await {
            Ok(opened) => opened,
            Err(trouble) if trouble.kind == TroubleKind::Denied => {
                return Err(AttemptError::Hold(Hold::WhoseSignature(trouble)));
            }
            Err(trouble) => return Err(trouble.into()),
        };
        Ok(match opened.judge(&taken.hashed.digests)? {
            Verdict::Valid(_) if fits => Existing::Valid,
            Verdict::Valid(_) => Existing::Stale,
            Verdict::Invalid(_) if opened.is_genuine() => Existing::Stale,
            Verdict::Invalid(_) => Existing::Foreign,
        })
    }

    /// Makes a signature and writes it, in place of `old` if there is one.
    async fn write(
        &self,
        site: &Arc<Site>,
        rule: &SignRule,
        work: &Attempt,
        context: &Context,
        taken: Snapshot,
        old: Option<Old>,
    ) -> Result<AttemptOutcome, AttemptError> {
        if self.dry_run {
            self.say_would(site, &work.path, if old.is_some() { "sign again" } else { "sign" }, None);
            return Ok(self.remember(site, work, &taken, Outcome::Signed).await);
        }
        let (taken, sealed, _place) = self.seal(site, rule, &work.path, context, taken).await?;
        let taken = Arc::new(taken);
        let (here, path) = (Arc::clone(&taken), work.path.clone());
        if !blocking(move || Ok(here.is_unchanged(&path)?)).await? {
            return Err(AttemptError::Changed);
        }
        let facts = |signature: Option<Version>| Facts {
            digest: Some(taken.hashed.digest.to_string()),
            signature_digest: Some(sealed.signature.digest().to_string()),
            key: Some(sealed.key.to_string()),
            item: None,
            signature,
        };
        // Before it is written, so that a restart after a kill at any point knows it for ours.
        let signing = site.decision(&work.path, work.sight, &Settled::plain(Outcome::Signing), facts(None));
        self.state.note(signing).await?;
        let written = {
            let (here, taken) = (Arc::clone(site), Arc::clone(&taken));
            let (path, signature) = (work.path.clone(), sealed.signature.clone());
            blocking(move || here.write_signature(&path, &taken, &signature, old)).await?
        };
        let facts = facts(Some(Version::from(&written.identity)));
        let ending = self.settle(site, &work.path, work.sight, Settled::plain(Outcome::Signed), facts).await;
        if matches!(ending, AttemptOutcome::Hold(_)) {
            return Ok(ending);
        }
        tracing::info!(
            rule = site.rule.name,
            file = %Escaped::new(work.path.as_path()),
            key = %sealed.key,
            size = taken.hashed.size,
            lease = lease_word(taken.writer),
            "signed"
        );
        Ok(ending)
    }

    /// Notes the present versions of a file that was signed before, so that the next scan need not read it.
    async fn remember(
        &self,
        site: &Site,
        work: &Attempt,
        taken: &Snapshot,
        outcome: Outcome,
    ) -> AttemptOutcome {
        let settled = Settled::plain(outcome);
        match self.state.note(site.decision(&work.path, work.sight, &settled, taken.facts(None))).await {
            Ok(()) => AttemptOutcome::Settled(settled),
            Err(e) => AttemptOutcome::Hold(Hold::State(e)),
        }
    }

    /// Signs a private copy and publishes both at the destination, then removes the source.
    async fn sign_and_deliver(
        &self,
        site: &Arc<Site>,
        rule: &SignRule,
        work: &Attempt,
        context: &Context,
        taken: Snapshot,
    ) -> Result<AttemptOutcome, AttemptError> {
        if self.dry_run {
            self.say_would(site, &work.path, "sign and deliver", None);
            let settled = Settled::plain(Outcome::Delivered);
            return Ok(self.settle(site, &work.path, work.sight, settled, taken.facts(None)).await);
        }
        if let Some(what) = self.obstacle(site, work, &taken).await? {
            return Err(AttemptError::Hold(site.conflict(&work.path, what))); // before a call is spent on it
        }
        let (taken, sealed, _place) = self.seal(site, rule, &work.path, context, taken).await?;
        self.state.intend(&site.rule.name, &work.path, &sealed.signature).await?;
        let source = taken.parts(&work.path, false);
        let _customer = site.remover.enter();
        let (taken, sealed) = (Arc::new(taken), Arc::new(sealed));
        let published = Box::pin(self.publish_signed(site, rule, work, context, &taken, &sealed)).await?;
        let facts = Facts {
            digest: Some(taken.hashed.digest.to_string()),
            signature_digest: Some(published.digest().to_string()),
            key: Some(sealed.key.to_string()),
            item: None,
            signature: None,
        };
        let settled = Settled::plain(Outcome::Delivered);
        let ending = self.settle(site, &work.path, work.sight, settled, facts).await;
        if matches!(ending, AttemptOutcome::Hold(_)) {
            return Ok(ending);
        }
        tracing::info!(
            rule = site.rule.name,
            file = %Escaped::new(work.path.as_path()),
            key = %sealed.key,
            size = taken.hashed.size,
            lease = lease_word(taken.writer),
            "signed and delivered"
        );
        site.remove(source, ending).await
    }

    /// What else has the payload's name at the destination.
    pub(crate) async fn obstacle(
        &self,
        site: &Arc<Site>,
        work: &Attempt,
        taken: &Snapshot,
    ) -> Result<Option<&'static str>, AttemptError> {
        let (here, path, hashed) = (Arc::clone(site), work.path.clone(), taken.hashed.clone());
        blocking(move || match (&here.destination, here.deliver_mode()) {
            (Some(root), Some(mode)) => Ok(deliver::obstacle(root, &path, &hashed, mode)?),
            _ => Ok(None),
        })
        .await
    }

    /// Publishes the pair. Returns the signature that stands at the destination then: after a restart that may
    /// be the one of an earlier try.
    async fn publish_signed(
        &self,
        site: &Arc<Site>,
        rule: &SignRule,
        work: &Attempt,
        context: &Context,
        taken: &Arc<Snapshot>,
        sealed: &Arc<Signed>,
    ) -> Result<Signature, AttemptError> {
        let attempt = || {
            let (here, path) = (Arc::clone(site), work.path.clone());
            let (taken, sealed) = (Arc::clone(taken), Arc::clone(sealed));
            blocking(move || {
                here.deliver_copy(&path, &taken, &Warrant::signed(&taken.hashed.digest, &sealed))
            })
        };
        let conflict = |what| AttemptError::Hold(site.conflict(&work.path, what));
        match attempt().await? {
            Delivered::Done => Ok(sealed.signature.clone()),
            // Delivered before, by us if state says so, by someone with the key if KMS does.
            Delivered::Beside(other)
                if self.is_ours(site, rule, &work.path, context, taken, &other).await? =>
            {
                Ok(other)
            }
            Delivered::Orphan(other)
                if self.state.was_intended(&site.rule.name, &work.path, &other).await? =>
            {
                if !site.remove_orphan(&work.path, &other).await? {
                    return Err(conflict("a signature without its file"));
                }
                match attempt().await? {
                    Delivered::Done => Ok(sealed.signature.clone()),
                    Delivered::Beside(_) | Delivered::Orphan(_) => Err(AttemptError::Changed),
                    Delivered::Conflict(what) => Err(conflict(what)),
                }
            }
            Delivered::Beside(_) => Err(conflict("the same file with another signature")),
            Delivered::Orphan(_) => Err(conflict("a signature without its file")),
            Delivered::Conflict(what) => Err(conflict(what)),
        }
    }

    async fn is_ours(
        &self,
        site: &Site,
        rule: &SignRule,
        path: &RelPath,
        context: &Context,
        taken: &Snapshot,
        signature: &Signature,
    ) -> Result<bool, AttemptError> {
        if self.state.was_intended(&site.rule.name, path, signature).await? {
            return Ok(true);
        }
        let remembered = self.state.remembered(&site.rule.name, path).await?;
        let digests = (taken.hashed.digest.to_string(), signature.digest().to_string());
        if remembered.is_some_and(|row| {
            row.digest.as_deref() == Some(&digests.0) && row.signature_digest.as_deref() == Some(&digests.1)
        }) {
            return Ok(true);
        }
        let (keys, formats) = (std::slice::from_ref(&rule.key), site.rule.formats(&site.leaf_keys));
        let opened = self.open_signature(site, keys, formats, context, signature).await?;
        Ok(matches!(opened.judge(&taken.hashed.digests)?, Verdict::Valid(_)))
    }
}

/// Why a signature of ours is left although it is out of date. In state the rule for when to look again.
pub(crate) const STALE: &str = "its signature is of ours and out of date; on_stale = \"report\" leaves it";

/// Why a signature is left that is not ours.
pub(crate) const FOREIGN: &str =
    "something that is not known to be our signature lies beside it; remove it to have the file signed";

impl Site {
    /// Writes a signature beside the payload, in place of `old` if there is one. Nothing of it stays if the payload changed
    /// meanwhile, or its directory was moved away.
    fn write_signature(
        &self,
        path: &RelPath,
        taken: &Snapshot,
        signature: &Signature,
        old: Option<Old>,
    ) -> Result<Stat, AttemptError> {
        let Some(path_of_it) = RelPath::new(sibling(self.rule.suffix(), path)) else {
            return Err(AttemptError::Changed); // BUG: what is signed has a name that leaves room for it
        };
        let spot = Spot {
            private: &self.private,
            place: &taken.parent,
            path: &path_of_it,
            still: &|| taken.is_same(path),
            disk: &self.disk,
        };
        let written = match old {
            None => sign::write(&spot, signature)?,
            Some(old) => sign::replace(&spot, &old, signature)?,
        };
        written.ok_or(AttemptError::Changed) // the payload is another one, or somebody else put a signature there meanwhile
    }
}

const fn lease_word(writer: Writer) -> &'static str {
    match writer {
        Writer::Absent | Writer::Present => "granted",
        Writer::Unknown => "unavailable",
    }
}
