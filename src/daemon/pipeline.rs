//! The line that one file passes: snapshot, hash, KMS, decide, effect, state.
//!
//! [`Pipeline`] holds what all rules share; [`Site`] what one rule has while it is attached to its directories.
//! A [`Attempt`] takes one pair down the line once. Blocking work runs on blocking threads, hashing behind its
//! own limit; nothing here waits for a file to become anything.

mod sign;
mod snapshot;
mod verify;

pub(crate) use crate::daemon::pipeline::sign::{FOREIGN, STALE};
use crate::daemon::pipeline::snapshot::Snapshot;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::SemaphorePermit;
use tokio::task::JoinError;

use crate::clock::{Clock, Moment};
use crate::context::leaf_keys::LeafKeys;
use crate::context::{Context, Filling};
use crate::daemon::batcher::{Batcher, Job};
use crate::daemon::decide::Brake;
use crate::daemon::fair_semaphore::{FairSemaphore, Queue};
use crate::daemon::hold::{AttemptError, Hold};
use crate::daemon::limit::{Operation, ThrottledKms};
use crate::daemon::quota::Refusals;
use crate::daemon::remover::Remover;
use crate::daemon::roots::Roots;
use crate::daemon::space::Space;
use crate::daemon::status::Status;
use crate::daemon::store::Store;
use crate::escape::Escaped;
use crate::fs::flush::Flusher;
use crate::fs::lease::Writer;
use crate::fs::private::Private;
use crate::fs::{Dir, Fitness, Identity, Place, RelPath};
use crate::key::KeyId;
use crate::kms::{Kms, Trouble};
use crate::policy::{Mode, Rule, SignRule};
use crate::settle::{Finality, PairVersion};
use crate::signature::{MAX_LEN, Signature, Suffix};
use crate::signing::{Formats, OpenedSignature, Reason, Signed, SignedBatch, Signer, Verifier};
use crate::sink::directory::quarantine;
use crate::sink::directory::quarantine::{Case, PutAway};
use crate::sink::directory::removal::{Part, Removed};
use crate::state::{Decision, Outcome, State, Version};

/// The field `verdict` of a log message about a file that was judged.
const VALID: &str = "valid";
const INVALID: &str = "invalid";

/// What all rules share.
pub struct Pipeline<K> {
    /// The key management service, behind its limits.
    pub kms: ThrottledKms<K>,
    /// What was decided.
    pub state: State,
    /// Places for hashing.
    pub hashing: FairSemaphore,
    /// Room for the copies that are being made.
    pub space: Arc<Space>,
    /// The quarantine store, where there is one.
    pub quarantine: Option<Arc<Store>>,
    /// Where the drivers make the files whose events prove that events arrive.
    pub cookies: Option<Dir>,
    /// This host's name, for contexts.
    pub hostname: String,
    /// Bytes to leave free.
    pub min_free_space: u64,
    /// Where it is shown what goes on.
    pub status: Arc<Status>,
    /// The daemon's clock.
    pub clock: Clock,
    /// Whether to change nothing.
    pub dry_run: bool,
}

/// A rule at its directories.
pub struct Site {
    /// The rule.
    pub rule: Arc<Rule>,
    /// Its fingerprint.
    pub fingerprint: String,
    /// The one of decisions that differ from its own in the format alone.
    pub other_format: String,
    /// The watched directory.
    pub root: Dir,
    /// The private folder in it. Locked, where this daemon writes there, which keeps other daemons out.
    pub private: Arc<Private>,
    /// The destination, for rules that deliver.
    pub destination: Option<Dir>,
    /// Flushes what it publishes.
    pub disk: Flusher,
    /// Removes what it delivered from the watched directory.
    pub remover: Arc<Remover>,
    /// Whether events cannot be relied on there.
    pub is_remote: bool,
    /// Its files that wait to be hashed.
    pub queue: Queue,
    /// The mass-failure brake.
    pub brake: Mutex<Brake>,
    /// Which keys of its context live only in the leaves of a batch.
    pub leaf_keys: LeafKeys,
    /// What gathers files, for rules that sign batches.
    pub batcher: Option<Batcher>,
    /// The roots of batches that were opened of late.
    pub roots: Roots,
    /// What was refused of late, also before it was attached.
    pub refusals: Arc<Refusals>,
}

/// A signature that was opened before, for as long as its pair waits.
#[derive(Debug, Clone)]
pub struct Known {
    signature: Signature,
    opened: OpenedSignature,
}

/// One pass of one pair.
pub struct Attempt {
    /// The payload below the root.
    pub path: RelPath,
    /// The versions to be tried; others start over.
    pub sight: PairVersion,
    /// How much the verdict counts.
    pub finality: Finality,
    /// What an earlier try learned of the signature.
    pub known: Option<Known>,
}

/// How a try ended.
#[derive(Debug)]
pub enum AttemptOutcome {
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
pub struct Settled {
    /// What.
    pub outcome: Outcome,
    /// Why, where that says more.
    pub reason: Option<String>,
}

impl Settled {
    fn plain(outcome: Outcome) -> Self {
        Self { outcome, reason: None }
    }
}

/// A file that is not handled as it is.
#[derive(Debug)]
pub struct Refusal {
    /// The payload below the root, or what has its place.
    pub path: RelPath,
    /// The versions it is about.
    pub sight: PairVersion,
    /// Why, in words for the log and for state.
    pub reason: String,
}

/// A try and what came of it.
pub struct AttemptResult {
    /// The payload below the root.
    pub path: RelPath,
    /// How it ended.
    pub ending: AttemptOutcome,
    /// What was learned of the signature.
    pub known: Option<Known>,
}

impl<K: Kms> Pipeline<K> {
    /// Takes one pair down the line.
    pub async fn run(self: Arc<Self>, site: Arc<Site>, work: Attempt) -> AttemptResult {
        let path = work.path.clone();
        let mut known = work.known.clone();
        let ended = match &site.rule.mode {
            // Thousands may wait for one call of KMS: each has only what it needs for the step that it is at.
            crate::policy::Mode::Sign(sign) => Box::pin(self.sign(&site, sign, &work)).await,
            crate::policy::Mode::Verify(verify) => {
                Box::pin(self.verify(&site, verify, &work, &mut known)).await
            }
        };
        let ending = match ended {
            Ok(ending) => ending,
            Err(AttemptError::Changed) => AttemptOutcome::Changed,
            Err(AttemptError::Hold(hold)) => AttemptOutcome::Hold(hold),
            Err(AttemptError::Refused(reason)) => {
                let refusal = Refusal { path: path.clone(), sight: work.sight, reason };
                match self.refuse(&site, vec![refusal]).await {
                    Ok(settled) => {
                        settled.into_iter().next().map_or(AttemptOutcome::Changed, AttemptOutcome::Settled)
                    }
                    Err(hold) => AttemptOutcome::Hold(hold),
                }
            }
        };
        AttemptResult { path, ending, known }
    }

    /// Reports files that are not handled as they are, and remembers these versions so that they are reported once.
    ///
    /// # Errors
    /// State cannot take it; then those that are not remembered are reported again.
    pub async fn refuse(&self, site: &Site, refusals: Vec<Refusal>) -> Result<Vec<Settled>, Hold> {
        self.sum_up(site, false).await?;
        let (mut recorded, mut noted, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for Refusal { path, sight, reason } in refusals {
            if site.may_tell(self.clock.now()) {
                tracing::warn!(rule = site.rule.name, file = %Escaped::new(path.as_path()), reason, "refused");
            }
            let settled = Settled { outcome: Outcome::Refused, reason: Some(reason) };
            let decisions = if site.refusals.may_record(&path) { &mut recorded } else { &mut noted };
            decisions.push(site.decision(&path, sight, &settled, Facts::default()));
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
    pub async fn sum_up(&self, site: &Site, is_end: bool) -> Result<(), Hold> {
        let Some((count, last)) = site.refusals.unrecorded(self.clock.now(), is_end) else { return Ok(()) };
        let reason = format!("{count} more were refused within an hour than are on record; this is the last");
        let settled = Settled { outcome: Outcome::Refused, reason: Some(reason) };
        let sum = site.decision(&last, PairVersion::default(), &settled, Facts::default());
        self.state.record_sum(sum).await.map_err(Hold::State)
    }

    /// Puts a decision on record.
    async fn settle(
        &self,
        site: &Site,
        path: &RelPath,
        sight: PairVersion,
        settled: Settled,
        facts: Facts,
    ) -> AttemptOutcome {
        let decision = site.decision(path, sight, &settled, facts);
        match self.state.record(decision).await {
            Ok(()) => AttemptOutcome::Settled(settled),
            Err(e) => AttemptOutcome::Hold(Hold::State(e)),
        }
    }

    /// Takes a snapshot: opens what is there, copies it if it will be delivered, and hashes it.
    async fn take(&self, site: &Arc<Site>, work: &Attempt, private: bool) -> Result<Snapshot, AttemptError> {
        let _place = self.hashing.take(&site.queue).await.ok_or(AttemptError::Changed)?; // none when the daemon stops
        let (site, path, sight) = (Arc::clone(site), work.path.clone(), work.sight);
        let space = (!self.dry_run && private).then(|| (Arc::clone(&self.space), self.min_free_space));
        let rule_status = self.status.rule(&site.rule.name);
        let taken =
            blocking(move || Snapshot::take(&site, &path, sight, space.as_ref().map(|(s, f)| (&**s, *f))));
        let taken = taken.await?;
        rule_status.count_hashed(taken.hashed.size);
        Ok(taken)
    }

    /// Moves a pair to quarantine and puts that on record.
    async fn quarantine(
        &self,
        site: &Arc<Site>,
        work: &Attempt,
        taken: &Snapshot,
        reason: Reason,
    ) -> Result<AttemptOutcome, AttemptError> {
        let settled = Settled { outcome: Outcome::Quarantined, reason: Some(reason.to_string()) };
        if self.dry_run {
            self.say_would(site, &work.path, "quarantine", Some(reason));
            return Ok(self.settle(site, &work.path, work.sight, settled, taken.facts(None)).await);
        }
        let Some(store) = &self.quarantine else {
            // BUG: a policy whose rules quarantine names a store. Leaving the file is always safe.
            return Ok(AttemptOutcome::NotYet);
        };
        let (store, space, floor) = (Arc::clone(store), Arc::clone(&self.space), self.min_free_space);
        let (to_move, path, payload, signature) =
            (Arc::clone(site), work.path.clone(), taken.payload, taken.signature.as_ref().map(|s| s.stat));
        let digests = (taken.hashed.digest.to_string(), taken.signature_digest());
        let lease_granted = taken.writer != Writer::Unknown;
        let put_away = blocking(move || {
            AttemptError::unless_there(store.dir())?;
            let is_copied = store.dir().stat()?.mount != to_move.root.stat()?.mount;
            let signature_size = signature.filter(|stat| !is_copied || quarantine::can_be_copied(stat));
            let size = payload.identity.size + signature_size.map_or(0, |stat| stat.identity.size);
            let room = store.reserve(&to_move.rule, size)?;
            // What is moved takes no room.
            let _space = if is_copied { Some(space.take(store.dir(), size, floor)?) } else { None };
            let case = Case {
                reason: reason.as_str(),
                rule: &to_move.rule.name,
                keys: to_move.keys(),
                digest: digests.0,
                signature_digest: digests.1,
                lease_granted,
                path: &path,
                payload,
                signature,
            };
            let put_away = quarantine::put_away(store.dir(), &to_move.private, &case)?;
            if matches!(put_away, PutAway::Done(_)) {
                room.keep();
            }
            Ok(put_away)
        })
        .await?;
        match put_away {
            PutAway::Changed => Ok(AttemptOutcome::Changed),
            PutAway::Done(item) => {
                tracing::error!(
                    rule = site.rule.name,
                    file = %Escaped::new(work.path.as_path()),
                    verdict = INVALID,
                    reason = reason.as_str(),
                    item,
                    "quarantined"
                );
                let facts = Facts { item: Some(item), ..taken.facts(None) };
                Ok(self.settle(site, &work.path, work.sight, settled, facts).await)
            }
        }
    }

    /// Whether state says that these very versions were delivered, durably: only their removal failed, or was cut
    /// short. Publishing them again would be once more for whoever took them, and once more on record.
    async fn was_delivered(&self, site: &Site, work: &Attempt) -> Result<bool, AttemptError> {
        if self.dry_run || site.rule.delivery().is_none() {
            return Ok(false);
        }
        let row = self.state.remembered(&site.rule.name, &work.path).await?;
        Ok(row.is_some_and(|row| {
            row.outcome == Outcome::Delivered
                && row.fingerprint == site.fingerprint
                && row.payload == work.sight.payload.as_ref().map(Version::from)
                && (site.leaves_signature()
                    || row.signature == work.sight.signature.as_ref().map(Version::from))
        }))
    }

    /// Removes a source that was delivered before.
    async fn remove_delivered(
        &self,
        site: &Arc<Site>,
        work: &Attempt,
    ) -> Result<AttemptOutcome, AttemptError> {
        let signature = work.sight.signature.filter(|_| !site.leaves_signature());
        let parts = parts(site.rule.suffix(), &work.path, work.sight.payload, signature);
        site.remove(parts, AttemptOutcome::Settled(Settled::plain(Outcome::Delivered))).await
    }

    /// Opens a signature. What KMS says of a batch is asked for once, and serves all its files.
    async fn open_signature(
        &self,
        site: &Site,
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

    /// Signs what was hashed: alone, or with others where the rule has batches. Whoever waits for others keeps no
    /// directory open meanwhile.
    async fn seal<'p>(
        &self,
        site: &'p Arc<Site>,
        rule: &SignRule,
        path: &RelPath,
        context: &Context,
        taken: Snapshot,
    ) -> Result<(Snapshot, Signed, Option<SemaphorePermit<'p>>), AttemptError> {
        let Some(batcher) = &site.batcher else {
            // Boxed, as is all that calls KMS: thousands that wait for others would have room for the call.
            let signer = Signer::new(&self.kms, &rule.key);
            let signed = Box::pin(signer.sign(context, &taken.hashed.digests)).await?;
            return Ok((taken, signed, None));
        };
        let shared = context.of_batch(&site.leaf_keys)?;
        let leaf = SignedBatch::leaf(context, &taken.hashed.digests)?;
        let job = Job {
            signer: Signer::new(&self.kms, &rule.key),
            shared: &shared,
            leaf_keys: &site.leaf_keys,
            leaf,
        };
        let resting = taken.rest();
        let (signed, place) = Box::pin(batcher.sign(job)).await?;
        let (here, path) = (Arc::clone(site), path.clone());
        let taken = blocking(move || resting.wake(&here, &path)).await?;
        Ok((taken, signed, Some(place)))
    }

    /// Stops a try before its file is read if KMS would be asked under none of its keys anyway.
    fn ask_breaker(&self, keys: &[KeyId], operation: Operation) -> Result<(), AttemptError> {
        let refusals: Option<Vec<_>> = keys.iter().map(|key| self.kms.refusal(key, operation)).collect();
        match refusals.and_then(|refusals| refusals.into_iter().next()) {
            Some(trouble) => Err(trouble.into()),
            None => Ok(()),
        }
    }

    fn context(&self, site: &Site, path: &RelPath) -> Result<Context, AttemptError> {
        let rule = &site.rule;
        let filling = Filling { relpath: path.as_path(), watch: &rule.name, hostname: &self.hostname };
        Ok(rule.context.expand(filling)?)
    }

    fn say_would(&self, site: &Site, path: &RelPath, action: &str, reason: Option<Reason>) {
        let reason = reason.map(Reason::as_str);
        tracing::info!(rule = site.rule.name, file = %Escaped::new(path.as_path()), action, reason, "dry run: would");
    }
}

/// A source, as it is removed.
fn parts(
    suffix: Suffix,
    path: &RelPath,
    payload: Option<Identity>,
    signature: Option<Identity>,
) -> Vec<Part> {
    let payload = payload.map(|identity| Part { path: path.clone(), identity });
    let signature =
        signature.and_then(|identity| Some(Part { path: RelPath::new(sibling(suffix, path))?, identity }));
    payload.into_iter().chain(signature).collect()
}

/// Runs blocking file work where it stops no other task. A panic there is passed on.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AttemptError> + Send + 'static,
) -> Result<T, AttemptError> {
    let done = ended(tokio::task::spawn_blocking(work).await);
    done.unwrap_or(Err(AttemptError::Changed)) // the runtime is going down; a restart starts over
}

/// What came of a task; nothing if it was cut off. A panic in it goes on: the daemon ends, and says so.
pub(crate) fn ended<T>(done: Result<T, JoinError>) -> Option<T> {
    match done.map_err(JoinError::try_into_panic) {
        Ok(done) => Some(done),
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_cut_off)) => None,
    }
}

impl Site {
    /// What a payload of this rule must be.
    pub fn fitness(&self) -> Fitness {
        Fitness { max_size: self.rule.max_size, max_links: self.rule.max_links, owners: self.owners() }
    }

    /// Whose files are handled. What is released into a folder whose files are judged where they lie is the daemon's.
    fn owners(&self) -> Option<Vec<u32>> {
        let mut owners = self.rule.allowed_owners.clone()?;
        if matches!(self.rule.mode, Mode::Verify(_)) && self.rule.delivery().is_none() {
            owners.push(rustix::process::geteuid().as_raw());
        }
        Some(owners)
    }

    /// What a signature must be: as a payload, but for a `max_size` that no signature fits in. Beside a file to be signed
    /// it is the daemon's own, whoever may bring payloads.
    pub fn signature_fitness(&self) -> Fitness {
        let owners = match &self.rule.mode {
            Mode::Sign(_) => None,
            Mode::Verify(_) => self.owners(),
        };
        let max_size = self.rule.max_size.max(MAX_LEN as u64);
        Fitness { max_size, max_links: self.rule.max_links, owners }
    }

    /// Whether a signature beside a source stays when the source goes: beside a file to be signed it is none of it.
    fn leaves_signature(&self) -> bool {
        matches!(self.rule.mode, Mode::Sign(_))
    }

    /// The directory that a payload lies in.
    fn parent_of(&self, path: &RelPath) -> Result<Place, AttemptError> {
        Place::open(&self.root, path.parent()).map_err(|e| {
            // The directory went, or became a link: the file is not where it was.
            if e.is_not_found() || e.is_no_directory() { AttemptError::Changed } else { e.into() }
        })
    }

    /// Sees to it that a source can be removed, before it is delivered.
    fn prepare_removal(&self, parts: &[Part]) -> Result<(), AttemptError> {
        match self.remover.prepare(parts) {
            Err(e) if e.is_not_found() => Err(AttemptError::Changed), // its directory went
            prepared => Ok(prepared?),
        }
    }

    /// Removes a source that is delivered and on record; `ending` is what came of it.
    async fn remove(&self, parts: Vec<Part>, ending: AttemptOutcome) -> Result<AttemptOutcome, AttemptError> {
        Ok(match self.remover.remove(parts).await? {
            Removed::Done => ending,
            Removed::Changed => AttemptOutcome::Changed,
        })
    }

    fn keys(&self) -> Vec<String> {
        self.rule.mode.keys().iter().map(ToString::to_string).collect()
    }

    /// Whether one more thing that a sender did not do well is told; and how many were not, when it is time to.
    pub fn may_tell(&self, now: Moment) -> bool {
        self.tell_untold(now);
        self.refusals.may_tell()
    }

    /// Tells how many were not told, when it is time to.
    pub fn tell_untold(&self, now: Moment) {
        if let Some(count) = self.refusals.untold(now) {
            tracing::warn!(rule = self.rule.name, count, "more were refused in a minute than are told");
        }
    }

    /// Whether the mass-failure brake is on.
    pub fn is_braked(&self) -> bool {
        self.brake().is_on()
    }

    fn brake(&self) -> std::sync::MutexGuard<'_, Brake> {
        self.brake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decision(&self, path: &RelPath, sight: PairVersion, settled: &Settled, facts: Facts) -> Decision {
        Decision {
            rule: self.rule.name.clone(),
            path: path.clone(),
            fingerprint: self.fingerprint.clone(),
            payload: sight.payload.as_ref().map(Version::from),
            signature: facts.signature.or_else(|| sight.signature.as_ref().map(Version::from)),
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
    digest: Option<String>,
    signature_digest: Option<String>,
    key: Option<String>,
    /// The folder in the quarantine store.
    item: Option<String>,
    /// The signature's version, where it is another than the one in sight.
    signature: Option<Version>,
}

/// The path of a payload's signature.
pub(crate) fn sibling(suffix: Suffix, path: &RelPath) -> std::path::PathBuf {
    path.parent().join(suffix.signature_of(path.name()))
}
