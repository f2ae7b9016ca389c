//! The pipeline that a pair passes: snapshot, hash, KMS, decide, sink, state.
//!
//! [`Pipeline`] holds what all rules share; [`Site`] what one rule has while it is attached to its
//! places. An [`Attempt`] takes one pair through it once. Hashing has its own limit. Nothing here
//! waits for a file to settle.

pub(crate) mod sign;
mod verify;

use std::sync::Arc;

use tokio::sync::SemaphorePermit;

use crate::clock::Clock;
use crate::context::{Context, Filling};
use crate::daemon::batcher::Job;
use crate::daemon::site::decided::{was_delivered, would_decide_again};
use crate::daemon::site::{Backend, Site, VersionOf};
use crate::daemon::status::Status;
use crate::digest::Digest;
use crate::escape::Escaped;
use crate::fair::Lanes;
use crate::fs::RelPath;
use crate::fs::lease::Writer;
use crate::hold::{AttemptError, Conflict, Hold};
use crate::key::KeyId;
use crate::kms::throttle::{KmsGate, ThrottledKms};
use crate::kms::{Kms, Operation, Trouble};
use crate::message::log;
use crate::policy::SignRule;
use crate::settle::{Finality, PairVersion};
use crate::signature::Signature;
use crate::signing::{Formats, OpenedSignature, Reason, Signed, SignedBatch, Signer, Verifier};
use crate::sink::warrant::Warrant;
use crate::sink::{Delivered, PutAway, Removed, Sink as _};
use crate::source::{ReadRequest, Snapshot, Source, Version};
use crate::state;
use crate::state::reason::{DecisionReason, RefusalReason};
use crate::state::{Decision, Outcome, State};

/// The field `verdict` of a log message about a file that was judged.
const VALID: &str = "valid";
const INVALID: &str = "invalid";

/// What all rules share.
pub(crate) struct Pipeline<K> {
    /// The key management service, behind its limits.
    pub(crate) kms: KmsGate<K, Status>,
    /// The database of decisions.
    pub(crate) state: State,
    /// Where payloads are read and hashed, in fair turns.
    pub(crate) hashing: Lanes,
    /// This host's name, for contexts.
    pub(crate) hostname: String,
    /// Live status of all rules, read by the control socket and the metrics.
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

/// One pass of a pair through the pipeline.
pub(crate) struct Attempt<V> {
    /// The payload below the root.
    pub(crate) path: RelPath,
    /// The versions that settled. If others lie there, the pair starts over.
    pub(crate) versions: PairVersion<V>,
    /// Whether an invalid verdict is final or the pair may still be arriving.
    pub(crate) finality: Finality,
    /// The signature as an earlier attempt opened it.
    pub(crate) known: Option<Known>,
    /// Whose payload it is, where the source knows.
    pub(crate) owner: Option<u32>,
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum AttemptOutcome {
    /// It is decided.
    Settled(Settled),
    /// It changed, or was being written.
    Changed,
    /// Its times changed while it was read; it has this digest.
    Touched(Digest),
    /// It was not quiet yet, and what was found says nothing.
    TooEarly,
    /// Invalid, but it may still be arriving.
    NotYet,
    /// The other file of the pair has another name, and may be given this one in a moment.
    HalfMoved,
    /// It is held.
    Hold(Hold),
}

/// The decision about a pair.
#[derive(Debug, Clone)]
pub(crate) struct Settled {
    /// What.
    pub(crate) outcome: Outcome,
    /// Why, where the outcome alone does not say.
    pub(crate) reason: Option<DecisionReason>,
    /// Whether it was decided before, and the same again: there is no new row of it on record.
    pub(crate) is_repeated: bool,
}

impl Settled {
    fn judged(outcome: Outcome, reason: Reason) -> Self {
        Self::new(outcome, Some(DecisionReason::Verdict(reason)))
    }

    fn plain(outcome: Outcome) -> Self {
        Self::new(outcome, None)
    }

    fn new(outcome: Outcome, reason: Option<DecisionReason>) -> Self {
        Self { outcome, reason, is_repeated: false }
    }

    fn repeated(self) -> Self {
        Self { is_repeated: true, ..self }
    }
}

/// A file that is refused in its present version.
#[derive(Debug)]
pub(crate) struct Refusal<V> {
    /// The payload below the root, or what stands under its name.
    pub(crate) path: RelPath,
    /// The versions that are refused.
    pub(crate) versions: PairVersion<V>,
    /// Why.
    pub(crate) reason: RefusalReason,
    /// What is known of it, where it was read.
    pub(crate) facts: Facts,
}

/// The result of an attempt.
pub(crate) struct AttemptResult {
    /// The payload below the root.
    pub(crate) path: RelPath,
    /// How it ended.
    pub(crate) outcome: AttemptOutcome,
    /// The signature as opened, for a later attempt.
    pub(crate) known: Option<Known>,
}

impl<K: Kms> Pipeline<K> {
    /// Takes one pair through the pipeline.
    pub(crate) async fn run<B: Backend>(
        self: Arc<Self>,
        site: Arc<Site<B>>,
        work: Attempt<VersionOf<B>>,
    ) -> AttemptResult {
        let path = work.path.clone();
        let mut known = work.known.clone();
        let ended = match &site.rule.mode {
            // Boxed, to keep futures small: thousands may wait for one KMS call.
            crate::policy::Mode::Sign(sign) => Box::pin(self.sign(&site, sign, &work)).await,
            crate::policy::Mode::Verify(verify) => {
                Box::pin(self.verify(&site, verify, &work, &mut known)).await
            }
        };
        let outcome = match ended {
            Ok(outcome) => outcome,
            Err(AttemptError::Changed) => AttemptOutcome::Changed,
            Err(AttemptError::Touched(digest)) => AttemptOutcome::Touched(digest),
            Err(AttemptError::NotYet) => AttemptOutcome::NotYet,
            Err(AttemptError::Hold(hold)) => AttemptOutcome::Hold(hold),
            Err(AttemptError::Refused(reason)) => {
                let versions = work.versions;
                let refusal = Refusal { path: path.clone(), versions, reason, facts: Facts::default() };
                self.refuse_one(&site, refusal).await
            }
        };
        if let AttemptOutcome::Settled(_) = &outcome {
            site.source.acknowledge(&path).await;
        }
        AttemptResult { path, outcome, known }
    }

    async fn refuse_one<B: Backend>(&self, site: &Site<B>, refusal: Refusal<VersionOf<B>>) -> AttemptOutcome {
        match self.refuse(site, vec![refusal]).await {
            Ok(settled) => settled.into_iter().next().map_or(
                AttemptOutcome::Hold(Hold::Internal("a refusal came to nothing")),
                AttemptOutcome::Settled,
            ),
            Err(hold) => AttemptOutcome::Hold(hold),
        }
    }

    /// Reports refused files and remembers their versions, so that each is reported once.
    ///
    /// # Errors
    /// State cannot be written; files that were not remembered are reported again.
    pub(crate) async fn refuse<B: Backend>(
        &self,
        site: &Site<B>,
        refusals: Vec<Refusal<VersionOf<B>>>,
    ) -> Result<Vec<Settled>, Hold> {
        self.sum_up(site, false).await?;
        let (mut recorded, mut noted, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for Refusal { path, versions, reason, facts } in refusals {
            if site.may_log(self.clock.now()) {
                let (file, cause) = (Escaped::new(path.as_path()), reason.as_str());
                log!(Refused, rule = site.rule.name, %file, cause, %reason);
            }
            let reason = Some(DecisionReason::Refusal(reason));
            let settled = Settled::new(Outcome::Refused, reason);
            let decisions = if site.refusals.may_record(&path) { &mut recorded } else { &mut noted };
            decisions.push(site.decision(&path, &versions, &settled, facts));
            all.push(settled);
        }
        self.state.record_all(recorded).await.map_err(Hold::State)?;
        self.state.note_all(noted).await.map_err(Hold::State)?;
        Ok(all)
    }

    /// Records the count of refusals that exceeded the quota, when the window is over or at the
    /// end.
    ///
    /// # Errors
    /// State cannot be written.
    pub(crate) async fn sum_up<B: Backend>(&self, site: &Site<B>, is_end: bool) -> Result<(), Hold> {
        let Some((count, last)) = site.refusals.unrecorded(self.clock.now(), is_end) else { return Ok(()) };
        let reason = Some(DecisionReason::MoreRefused(count));
        let settled = Settled::new(Outcome::Refused, reason);
        let sum = site.decision(&last, &PairVersion::NONE, &settled, Facts::default());
        self.state.record_sum(sum).await.map_err(Hold::State)
    }

    /// Records a decision.
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
        row: Option<&state::Remembered>,
        delivers: bool,
    ) -> Result<Snapshot<B::Source>, AttemptError> {
        let hashing = site.hashing.as_ref().unwrap_or(&self.hashing);
        let stages = delivers && !self.dry_run;
        let request = ReadRequest {
            digests: site.rule.formats(&site.leaf_keys).digests(),
            stage: if stages { site.sink.stage(&work.path) } else { None },
            // What was decided is compared with what is there, whatever it was.
            is_final: work.finality == Finality::Final || row.is_some(),
            lanes: hashing.clone(),
            sender: site.sender(work.owner),
        };
        let taken = site.source.snapshot(&work.path, &work.versions, request).await?;
        self.status.rule(&site.rule.name).count_hashed(taken.hashed.size);
        Ok(taken)
    }

    /// Moves a pair to quarantine and records that.
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
                log!(
                    Quarantined,
                    rule = site.rule.name,
                    file = %Escaped::new(work.path.as_path()),
                    verdict = INVALID,
                    reason = reason.as_str(),
                    item,
                    hint = taken.hint()
                );
                let facts = Facts { item: Some(item), ..facts(taken, None) };
                self.settle(site, &work.path, &work.versions, settled, facts).await
            }
        }
    }

    /// Removes a source that was delivered before, according to state and to its digests: times and
    /// sizes of other content may be the same. `None`: it was not.
    async fn finish_delivered<B: Backend>(
        &self,
        site: &Site<B>,
        work: &Attempt<VersionOf<B>>,
        row: Option<&state::Remembered>,
    ) -> Result<Option<AttemptOutcome>, AttemptError> {
        let row = row.filter(|row| !self.dry_run && was_delivered(site, row, &work.versions));
        let Some(row) = row else { return Ok(None) };
        let taken = self.take(site, work, Some(row), false).await?;
        let is_it = match site.leaves_signature() {
            true => row.is_of_payload(&taken.hashed.digest),
            false => taken.is_of(row),
        };
        if !is_it || taken.writer == Writer::Present {
            return Ok(None);
        }
        let outcome = AttemptOutcome::Settled(Settled::plain(Outcome::Delivered));
        self.remove(site, &work.path, &taken.versions(), outcome).await.map(Some)
    }

    /// The decision that state remembers about just these bytes, if it would be made again: what
    /// they are called by their file system has changed, as a remount changes inode numbers. KMS is
    /// not asked, and nothing is logged or put on record.
    async fn decided_before<B: Backend>(
        &self,
        site: &Site<B>,
        work: &Attempt<VersionOf<B>>,
        row: Option<&state::Remembered>,
        taken: &Snapshot<B::Source>,
    ) -> Result<Option<AttemptOutcome>, AttemptError> {
        if taken.writer == Writer::Present {
            return Ok(None);
        }
        let row = row.filter(|row| taken.is_of(row) && would_decide_again(site, row));
        let Some(row) = row else { return Ok(None) };
        let settled = Settled::new(row.outcome, row.reason.clone()).repeated();
        let again = site.decision(&work.path, &taken.versions(), &settled, facts(taken, None));
        self.state.note(again).await?;
        Ok(Some(AttemptOutcome::Settled(settled)))
    }

    /// Publishes the snapshot. Removes a signature at the destination that a delivery of ours left
    /// without its payload. If an equal payload with another signature is already there, returns
    /// that signature; the caller judges whether it is valid too.
    async fn publish<B: Backend>(
        &self,
        site: &Site<B>,
        path: &RelPath,
        taken: &Arc<Snapshot<B::Source>>,
        warrant: &Warrant,
    ) -> Result<Option<Signature>, AttemptError> {
        let source = site.source_of(&taken.versions());
        let attempt = || site.sink.publish(path, &source, taken, warrant.clone());
        let conflict = |what| Err(AttemptError::Hold(site.conflict(path, what)));
        let mut delivered = attempt().await?;
        if let Delivered::Orphan(other) = &delivered
            && self.state.is_pending_publish(&site.rule.name, path, other).await?
            && site.sink.remove_orphan(path, other).await?
        {
            delivered = attempt().await?;
            if let Delivered::Beside(_) | Delivered::Orphan(_) = delivered {
                return Err(AttemptError::Changed); // another process has just changed it
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

    /// Removes a source whose decision is recorded; `outcome` is that decision. In a sign rule the
    /// signature beside the payload stays.
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

    /// [`Pipeline::remove`] of a source that was read. Where it is another by now, its attributes
    /// alone may have changed: it would be delivered twice if that were not looked at.
    async fn remove_taken<B: Backend>(
        &self,
        site: &Site<B>,
        path: &RelPath,
        taken: Arc<Snapshot<B::Source>>,
        outcome: AttemptOutcome,
    ) -> Result<AttemptOutcome, AttemptError> {
        if let Removed::Done = site.sink.remove(path, &site.source_of(&taken.versions())).await? {
            return Ok(outcome);
        }
        let Some(mut taken) = Arc::into_inner(taken) else { return Ok(AttemptOutcome::Changed) };
        if !site.source.is_still(path, &mut taken).await.unwrap_or(false) {
            return Ok(AttemptOutcome::Changed);
        }
        self.remove(site, path, &taken.versions(), outcome).await
    }

    /// Opens a signature. Files of one batch share one Decrypt.
    async fn open_signature<B: Backend>(
        &self,
        site: &Site<B>,
        owner: Option<u32>,
        keys: &[KeyId],
        formats: Formats<'_>,
        context: &Context,
        signature: &Signature,
    ) -> Result<OpenedSignature, Trouble> {
        let kms = ThrottledKms::new(&self.kms, site.sender(owner));
        let verifier = Verifier::new(&kms, keys, formats);
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

    /// Signs the digests, alone or in a batch. A file that waits for its batch keeps no directory
    /// open.
    async fn make_signature<'p, B: Backend>(
        &self,
        site: &'p Site<B>,
        rule: &SignRule,
        work: &Attempt<VersionOf<B>>,
        context: &Context,
        taken: &mut Snapshot<B::Source>,
    ) -> Result<(Signed, Option<SemaphorePermit<'p>>), AttemptError> {
        let kms = ThrottledKms::new(&self.kms, site.sender(work.owner));
        let signer = Signer::new(&kms, &rule.key);
        let Some(batcher) = &site.batcher else {
            // Boxed, as is all that calls KMS, to keep futures small: thousands may wait for their
            // batch.
            let signed = Box::pin(signer.sign(context, &taken.hashed.digests)).await?;
            return Ok((signed, None));
        };
        let shared = context.of_batch(&site.leaf_keys)?;
        let leaf = SignedBatch::leaf(context, &taken.hashed.digests)?;
        let job = Job { signer, shared: &shared, leaf_keys: &site.leaf_keys, leaf };
        site.source.rest(taken);
        let (signed, place) = Box::pin(batcher.sign(job)).await?;
        site.source.wake(&work.path, taken).await?;
        Ok((signed, Some(place)))
    }

    /// Holds the pair before it is read if the breaker is open for all of its keys.
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
        log!(DryRunAction, rule = site.rule.name, file = %Escaped::new(path.as_path()), action, reason);
    }
}

impl<B: Backend> Site<B> {
    /// The versions to remove with a source. In a sign rule the signature beside the payload stays.
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
            signature: versions.signature.as_ref().map(Version::stored),
            outcome: settled.outcome,
            reason: settled.reason.clone(),
            digest: facts.digest,
            signature_digest: facts.signature_digest,
            key: facts.key,
            item: facts.item,
        }
    }
}

/// Fields of a decision that not every outcome has.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    digest: Option<Digest>,
    signature_digest: Option<Digest>,
    key: Option<String>,
    /// The folder in the quarantine store.
    item: Option<String>,
}

/// The fields known once a pair was read.
fn facts<S: Source>(taken: &Snapshot<S>, key: Option<String>) -> Facts {
    Facts {
        digest: Some(taken.hashed.digest.clone()),
        signature_digest: taken.signature_digest().cloned(),
        key,
        item: None,
    }
}
