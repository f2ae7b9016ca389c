//! The line that one file passes: snapshot, hash, KMS, decide, effect, state.
//!
//! [`Pipeline`] holds what all rules share; [`Site`] what one rule has while it is attached to its
//! places. A [`Attempt`] takes one pair down the line once. Hashing waits behind its own limit;
//! nothing here waits for a file to become anything.

mod sign;
mod verify;

use std::sync::Arc;

use tokio::sync::SemaphorePermit;

use crate::clock::Clock;
use crate::context::{Context, Filling};
use crate::daemon::batcher::Job;
use crate::daemon::fair_semaphore::FairSemaphore;
use crate::daemon::site::decided::was_delivered;
use crate::daemon::site::{Backend, Site, VersionOf};
use crate::daemon::status::Status;
use crate::digest::Digest;
use crate::escape::Escaped;
use crate::fs::RelPath;
use crate::hold::{AttemptError, Conflict, Hold};
use crate::key::KeyId;
use crate::kms::throttle::ThrottledKms;
use crate::kms::{Kms, Operation, Trouble};
use crate::policy::SignRule;
use crate::settle::{Finality, PairVersion};
use crate::signature::Signature;
use crate::signing::{Formats, OpenedSignature, Reason, Signed, SignedBatch, Signer, Verifier};
use crate::sink::warrant::Warrant;
use crate::sink::{Delivered, PutAway, Removed, Sink as _};
use crate::source::{Snapshot, Source, Version};
use crate::state;
use crate::state::reason::{DecisionReason, RefusalReason};
use crate::state::{Decision, Outcome, State};

/// The field `verdict` of a log message about a file that was judged.
const VALID: &str = "valid";
const INVALID: &str = "invalid";

/// What all rules share.
pub(crate) struct Pipeline<K> {
    /// The key management service, behind its limits.
    pub(crate) kms: ThrottledKms<K, Status>,
    /// What was decided.
    pub(crate) state: State,
    /// Places for hashing.
    pub(crate) hashing: FairSemaphore,
    /// This host's name, for contexts.
    pub(crate) hostname: String,
    /// Where it is shown what goes on.
    pub(crate) status: Arc<Status>,
    /// The daemon's clock.
    pub(crate) clock: Clock,
    /// Whether to change nothing.
    pub(crate) dry_run: bool,
}

/// A signature that was opened before, for as long as its pair waits.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    signature: Signature,
    opened: OpenedSignature,
}

/// One pass of one pair.
pub(crate) struct Attempt<V> {
    /// The payload below the root.
    pub(crate) path: RelPath,
    /// The versions to be tried; others start over.
    pub(crate) versions: PairVersion<V>,
    /// How much the verdict counts.
    pub(crate) finality: Finality,
    /// What an earlier try learned of the signature.
    pub(crate) known: Option<Known>,
}

/// How a try ended.
#[derive(Debug)]
pub(crate) enum AttemptOutcome {
    /// It is dealt with.
    Settled(Settled),
    /// It changed, or was being written.
    Changed,
    /// Invalid, but it may still be arriving.
    NotYet,
    /// Not now.
    Hold(Hold),
}

/// What became of a pair.
#[derive(Debug, Clone)]
pub(crate) struct Settled {
    /// What.
    pub(crate) outcome: Outcome,
    /// Why, where that says more.
    pub(crate) reason: Option<DecisionReason>,
}

impl Settled {
    fn judged(outcome: Outcome, reason: Reason) -> Self {
        Self { outcome, reason: Some(DecisionReason::Verdict(reason)) }
    }

    fn plain(outcome: Outcome) -> Self {
        Self { outcome, reason: None }
    }
}

/// A file that is not handled as it is.
#[derive(Debug)]
pub(crate) struct Refusal<V> {
    /// The payload below the root, or what has its place.
    pub(crate) path: RelPath,
    /// The versions it is about.
    pub(crate) versions: PairVersion<V>,
    /// Why.
    pub(crate) reason: RefusalReason,
}

/// A try and what came of it.
pub(crate) struct AttemptResult {
    /// The payload below the root.
    pub(crate) path: RelPath,
    /// How it ended.
    pub(crate) outcome: AttemptOutcome,
    /// What was learned of the signature.
    pub(crate) known: Option<Known>,
}

impl<K: Kms> Pipeline<K> {
    /// Takes one pair down the line.
    pub(crate) async fn run<B: Backend>(
        self: Arc<Self>,
        site: Arc<Site<B>>,
        work: Attempt<VersionOf<B>>,
    ) -> AttemptResult {
        let path = work.path.clone();
        let mut known = work.known.clone();
        let ended = match &site.rule.mode {
            // Thousands may wait for one call of KMS: each has only what it needs for the step that
            // it is at.
            crate::policy::Mode::Sign(sign) => Box::pin(self.sign(&site, sign, &work)).await,
            crate::policy::Mode::Verify(verify) => {
                Box::pin(self.verify(&site, verify, &work, &mut known)).await
            }
        };
        let outcome = match ended {
            Ok(outcome) => outcome,
            Err(AttemptError::Changed) => AttemptOutcome::Changed,
            Err(AttemptError::Hold(hold)) => AttemptOutcome::Hold(hold),
            Err(AttemptError::Refused(reason)) => {
                let refusal = Refusal { path: path.clone(), versions: work.versions, reason };
                match self.refuse(&site, vec![refusal]).await {
                    Ok(settled) => settled.into_iter().next().map_or(
                        AttemptOutcome::Hold(Hold::Internal("a refusal came to nothing")),
                        AttemptOutcome::Settled,
                    ),
                    Err(hold) => AttemptOutcome::Hold(hold),
                }
            }
        };
        if let AttemptOutcome::Settled(_) = &outcome {
            site.source.acknowledge(&path).await;
        }
        AttemptResult { path, outcome, known }
    }

    /// Reports files that are not handled as they are, and remembers these versions so that they
    /// are reported once.
    ///
    /// # Errors
    /// State cannot take it; then those that are not remembered are reported again.
    pub(crate) async fn refuse<B: Backend>(
        &self,
        site: &Site<B>,
        refusals: Vec<Refusal<VersionOf<B>>>,
    ) -> Result<Vec<Settled>, Hold> {
        self.sum_up(site, false).await?;
        let (mut recorded, mut noted, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for Refusal { path, versions, reason } in refusals {
            if site.may_tell(self.clock.now()) {
                let (file, cause) = (Escaped::new(path.as_path()), reason.as_str());
                tracing::warn!(rule = site.rule.name, %file, cause, %reason, "refused");
            }
            let reason = Some(DecisionReason::Refusal(reason));
            let settled = Settled { outcome: Outcome::Refused, reason };
            let decisions = if site.refusals.may_record(&path) { &mut recorded } else { &mut noted };
            decisions.push(site.decision(&path, &versions, &settled, Facts::default()));
            all.push(settled);
        }
        self.state.record_all(recorded).await.map_err(Hold::State)?;
        self.state.note_all(noted).await.map_err(Hold::State)?;
        Ok(all)
    }

    /// Puts on record how many refusals are not, when it is time to; at the end it is.
    ///
    /// # Errors
    /// State cannot take it.
    pub(crate) async fn sum_up<B: Backend>(&self, site: &Site<B>, is_end: bool) -> Result<(), Hold> {
        let Some((count, last)) = site.refusals.unrecorded(self.clock.now(), is_end) else { return Ok(()) };
        let reason = Some(DecisionReason::MoreRefused(count));
        let settled = Settled { outcome: Outcome::Refused, reason };
        let sum = site.decision(&last, &PairVersion::NONE, &settled, Facts::default());
        self.state.record_sum(sum).await.map_err(Hold::State)
    }

    /// Puts a decision on record.
    async fn settle<B: Backend>(
        &self,
        site: &Site<B>,
        path: &RelPath,
        versions: &PairVersion<VersionOf<B>>,
        settled: Settled,
        facts: Facts,
    ) -> Result<AttemptOutcome, AttemptError> {
        self.state.record(site.decision(path, versions, &settled, facts)).await?;
        Ok(AttemptOutcome::Settled(settled))
    }

    /// Reads the pair: hashes the payload, and copies it if it will be delivered.
    async fn take<B: Backend>(
        &self,
        site: &Site<B>,
        work: &Attempt<VersionOf<B>>,
        delivers: bool,
    ) -> Result<Snapshot<B::Source>, AttemptError> {
        let _place = self.hashing.take(&site.queue).await.ok_or(AttemptError::Changed)?; // none when the daemon stops
        let stage = match work.versions.payload.as_ref().filter(|_| delivers && !self.dry_run) {
            Some(payload) => site.sink.stage(&work.path, payload.size()).await?,
            None => None,
        };
        let digests = site.rule.formats(&site.leaf_keys).digests();
        let taken = site.source.snapshot(&work.path, &work.versions, digests, stage).await?;
        self.status.rule(&site.rule.name).count_hashed(taken.hashed.size);
        Ok(taken)
    }

    /// Moves a pair to quarantine and puts that on record.
    async fn quarantine<B: Backend>(
        &self,
        site: &Site<B>,
        work: &Attempt<VersionOf<B>>,
        taken: &Snapshot<B::Source>,
        reason: Reason,
    ) -> Result<AttemptOutcome, AttemptError> {
        let settled = Settled::judged(Outcome::Quarantined, reason);
        if self.dry_run {
            self.say_would(site, &work.path, "quarantine", Some(reason));
            return self.settle(site, &work.path, &work.versions, settled, facts(taken, None)).await;
        }
        match site.sink.quarantine(&work.path, taken, reason).await? {
            PutAway::Changed => Ok(AttemptOutcome::Changed),
            PutAway::Done(item) => {
                tracing::error!(
                    rule = site.rule.name,
                    file = %Escaped::new(work.path.as_path()),
                    verdict = INVALID,
                    reason = reason.as_str(),
                    item,
                    hint = taken.hint(),
                    "quarantined"
                );
                let facts = Facts { item: Some(item), ..facts(taken, None) };
                self.settle(site, &work.path, &work.versions, settled, facts).await
            }
        }
    }

    /// Whether state says that these very versions were delivered.
    async fn was_delivered<B: Backend>(
        &self,
        site: &Site<B>,
        work: &Attempt<VersionOf<B>>,
    ) -> Result<bool, AttemptError> {
        if self.dry_run || site.rule.delivery().is_none() {
            return Ok(false);
        }
        let row = self.state.remembered(&site.rule.name, &work.path).await?;
        Ok(row.is_some_and(|row| was_delivered(site, &row, &work.versions)))
    }

    /// Publishes what was read. A signature that a delivery of ours has left without its payload
    /// makes way. Returns the other signature that stands there, if an equal payload did already:
    /// whether that is as good is the caller's to judge.
    async fn publish<B: Backend>(
        &self,
        site: &Site<B>,
        path: &RelPath,
        taken: &Arc<Snapshot<B::Source>>,
        warrant: &Warrant,
    ) -> Result<Option<Signature>, AttemptError> {
        let attempt = async || {
            site.sink.prepare_removal(path, &site.source_of(&taken.versions())).await?;
            site.sink.publish(path, taken, warrant.clone()).await
        };
        let conflict = |what| Err(AttemptError::Hold(site.conflict(path, what)));
        let mut delivered = attempt().await?;
        if let Delivered::Orphan(other) = &delivered
            && self.state.was_intended(&site.rule.name, path, other).await?
            && site.sink.remove_orphan(path, other).await?
        {
            delivered = attempt().await?;
            if let Delivered::Beside(_) | Delivered::Orphan(_) = delivered {
                return Err(AttemptError::Changed); // somebody else is at it
            }
        }
        match delivered {
            Delivered::Done => Ok(None),
            Delivered::Beside(other) => Ok(Some(other)),
            Delivered::Orphan(_) => conflict(Conflict::StraySignature),
            Delivered::Conflict(what) => conflict(what),
            Delivered::NotWarranted => {
                Err(AttemptError::bug("the verdict that allows a delivery is about other bytes"))
            }
        }
    }

    /// Removes a source that is delivered and on record; `outcome` is what came of it. A signature
    /// beside a file to be signed is none of it.
    async fn remove<B: Backend>(
        &self,
        site: &Site<B>,
        path: &RelPath,
        versions: &PairVersion<VersionOf<B>>,
        outcome: AttemptOutcome,
    ) -> Result<AttemptOutcome, AttemptError> {
        Ok(match site.sink.remove(path, &site.source_of(versions)).await? {
            Removed::Done => outcome,
            Removed::Changed => AttemptOutcome::Changed,
        })
    }

    /// Opens a signature. What KMS says of a batch is asked for once, and serves all its files.
    async fn open_signature<B: Backend>(
        &self,
        site: &Site<B>,
        keys: &[KeyId],
        formats: Formats<'_>,
        context: &Context,
        signature: &Signature,
    ) -> Result<OpenedSignature, Trouble> {
        let verifier = Verifier::new(&self.kms, keys, formats);
        let request = match verifier.request(context, signature) {
            Ok(request) => request,
            Err(bad) => return Ok(bad),
        };
        let reply = match signature.batch() {
            Some(_) => site.roots.ask(&verifier, &request, self.clock).await?,
            None => verifier.ask(&request).await?,
        };
        Ok(request.opened(reply))
    }

    /// Signs what was hashed: alone, or with others where the rule has batches. Whoever waits for
    /// others keeps no directory open meanwhile.
    async fn make_signature<'p, B: Backend>(
        &self,
        site: &'p Site<B>,
        rule: &SignRule,
        path: &RelPath,
        context: &Context,
        taken: &mut Snapshot<B::Source>,
    ) -> Result<(Signed, Option<SemaphorePermit<'p>>), AttemptError> {
        let signer = Signer::new(&self.kms, &rule.key);
        let Some(batcher) = &site.batcher else {
            // Boxed, as is all that calls KMS: thousands that wait for others would have room for
            // the call.
            let signed = Box::pin(signer.sign(context, &taken.hashed.digests)).await?;
            return Ok((signed, None));
        };
        let shared = context.of_batch(&site.leaf_keys)?;
        let leaf = SignedBatch::leaf(context, &taken.hashed.digests)?;
        let job = Job { signer, shared: &shared, leaf_keys: &site.leaf_keys, leaf };
        site.source.rest(taken);
        let (signed, place) = Box::pin(batcher.sign(job)).await?;
        site.source.wake(path, taken).await?;
        Ok((signed, Some(place)))
    }

    /// Stops a try before its file is read if KMS would be asked under none of its keys anyway.
    fn ask_breaker(&self, keys: &[KeyId], operation: Operation) -> Result<(), AttemptError> {
        let refusals: Option<Vec<_>> = keys.iter().map(|key| self.kms.refusal(key, operation)).collect();
        match refusals.and_then(|refusals| refusals.into_iter().next()) {
            Some(trouble) => Err(trouble.into()),
            None => Ok(()),
        }
    }

    fn context<B: Backend>(&self, site: &Site<B>, path: &RelPath) -> Result<Context, AttemptError> {
        let rule = &site.rule;
        let filling = Filling { relpath: path.as_path(), watch: &rule.name, hostname: &self.hostname };
        Ok(rule.context.expand(filling)?)
    }

    fn say_would<B: Backend>(&self, site: &Site<B>, path: &RelPath, action: &str, reason: Option<Reason>) {
        let reason = reason.map(Reason::as_str);
        tracing::info!(rule = site.rule.name, file = %Escaped::new(path.as_path()), action, reason, "dry run: would");
    }
}

impl<B: Backend> Site<B> {
    /// What of a pair goes when it is removed. A signature beside a file to be signed is none of
    /// it.
    fn source_of(&self, versions: &PairVersion<VersionOf<B>>) -> PairVersion<VersionOf<B>> {
        let signature = versions.signature.clone().filter(|_| !self.leaves_signature());
        PairVersion { payload: versions.payload.clone(), signature }
    }

    pub(crate) fn conflict(&self, path: &RelPath, what: Conflict) -> Hold {
        Hold::Conflict { path: self.sink.destination_of(path), what }
    }

    fn decision(
        &self,
        path: &RelPath,
        versions: &PairVersion<VersionOf<B>>,
        settled: &Settled,
        facts: Facts,
    ) -> Decision {
        Decision {
            rule: self.rule.name.clone(),
            path: path.clone(),
            fingerprint: self.fingerprint.clone(),
            payload: versions.payload.as_ref().map(Version::stored),
            signature: facts.signature.or_else(|| versions.signature.as_ref().map(Version::stored)),
            outcome: settled.outcome,
            reason: settled.reason.clone(),
            digest: facts.digest,
            signature_digest: facts.signature_digest,
            key: facts.key,
            item: facts.item,
        }
    }
}

/// What is known beside the outcome.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    digest: Option<Digest>,
    signature_digest: Option<Digest>,
    key: Option<String>,
    /// The folder in the quarantine store.
    item: Option<String>,
    /// The signature's version, where it is another than the one in versions.
    signature: Option<state::Version>,
}

/// What is known of a pair that was read.
fn facts<S: Source>(taken: &Snapshot<S>, key: Option<String>) -> Facts {
    Facts {
        digest: Some(taken.hashed.digest.clone()),
        signature_digest: taken.signature_digest().cloned(),
        key,
        item: None,
        signature: None,
    }
}
