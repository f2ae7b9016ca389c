//! What would happen to a file as it lies there now, in words, and why.
//!
//! Foretells no verdict: that is KMS's. Where the daemon would ask, or read the payload first, its
//! own decisions are asked for every answer that there may be; what they say is what may come.

use std::sync::Arc;

use crate::clock;
use crate::daemon::decide;
use crate::daemon::decide::{Doubt, Existing, Recalled, RollbackAction, Signing, Verified};
use crate::daemon::site::decided::{fits, is_decided, recalled, recalled_elsewhere, was_delivered};
use crate::daemon::worker::{is_old_enough, timing, want};
use crate::diagnose::explain::ending::{Ending, once_each};
use crate::diagnose::explain::scene::{Scene, SignatureThere, Unseen};
use crate::escape::{Escaped, quoted};
use crate::fs::lease::Writer;
use crate::fs::{FsError, Identity, RelPath, Stat};
use crate::hold::{AttemptError, Conflict, Hold};
use crate::kms::{Trouble, TroubleKind};
use crate::policy::{AcceptBatch, Batching, Mode, OnStale, Place, Rollback, SignRule, VerifyRule};
use crate::settle::{Activity, Finality, PairVersion};
use crate::signature::Signature;
use crate::signing::{DecryptRequest, Reason};
use crate::sink::Delivered;
use crate::sink::directory::deliver;
use crate::sink::directory::deliver::Prospective;
use crate::source::directory::folder::bringers;
use crate::source::space::Space;
use crate::source::{Bringers, Observation, Version as _};
use crate::state::Outcome;
use crate::state::reason::{DecisionReason, RefusalReason};

/// What would happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Prospect {
    /// In one word.
    pub(crate) what: What,
    /// Every possible outcome; more than one where KMS would be asked, or contents compared.
    pub(crate) endings: Vec<Ending>,
    /// In a sentence.
    pub(crate) why: String,
}

/// What would happen, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Nothing lies there.
    Nothing,
    /// Everything is done.
    Done,
    /// It is not yet time.
    Waits,
    /// It is signed.
    Signs,
    /// KMS is asked about its signature.
    Judges,
    /// It is invalid, whatever KMS says.
    Invalid,
    /// It is not handled as it is.
    Refuses,
    /// It is held until somebody does something.
    Holds,
}

impl What {
    /// The word, for programs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Done => "done",
            Self::Waits => "waits",
            Self::Signs => "signs",
            Self::Judges => "judges",
            Self::Invalid => "invalid",
            Self::Refuses => "refuses",
            Self::Holds => "holds",
        }
    }
}

impl Prospect {
    fn new(what: What, endings: impl IntoIterator<Item = Ending>, why: impl Into<String>) -> Self {
        Self { what, endings: once_each(endings), why: why.into() }
    }

    fn held(hold: &Hold) -> Self {
        let why = format!("held ({}): {hold}; {}", hold.as_str(), hold.hint());
        Self::new(What::Holds, [Ending::held(hold)], why)
    }

    fn refused(reason: &RefusalReason) -> Self {
        Self::new(What::Refuses, [Ending::refused(reason)], format!("refused: {reason}"))
    }

    /// The error that would stop it, as its outcome.
    fn stopped(error: &AttemptError) -> Self {
        match error {
            AttemptError::Refused(reason) => Self::refused(reason),
            AttemptError::Hold(hold) => Self::held(hold),
            AttemptError::Changed | AttemptError::Touched(_) | AttemptError::NotYet => {
                Self::new(What::Waits, [Ending::Waiting], "changing just now; it would be looked at anew")
            }
        }
    }

    /// The same, but not before something else.
    fn after(self, wait: Option<String>) -> Self {
        match (wait, self.what) {
            (None, _) => self,
            (
                Some(wait),
                What::Signs | What::Judges | What::Invalid | What::Waits | What::Refuses | What::Holds,
            ) => {
                let endings = std::iter::once(Ending::Waiting).chain(self.endings);
                Self::new(What::Waits, endings, format!("{wait}; then: {}", self.why))
            }
            (Some(_), What::Nothing | What::Done) => self,
        }
    }
}

const CONTROLLED: &str = "waits until the control file of its downloader is gone (control_files)";

impl Scene<'_> {
    /// What would happen now.
    pub(crate) fn prospect(
        &self,
        look: &Observation<Identity>,
        signature: Option<&SignatureThere>,
        activity: Option<Activity>,
    ) -> Result<Prospect, Unseen> {
        if want(&self.site.rule).versions(look.versions) == PairVersion::NONE {
            return Ok(Prospect::new(What::Nothing, [Ending::Nothing], self.nothing(look.versions)));
        }
        if let Some(row) = self.row
            && is_decided(self.site, row, look, false)
        {
            return Ok(decided(row.outcome, row.reason.as_ref()));
        }
        if let Some(unfit) = &look.unfit {
            let refused = Prospect::refused(unfit);
            // `--once` does not wait until a signature without its file has settled, and leaves it.
            let left = look.versions.payload.is_none().then_some(Ending::Waiting);
            let refused = Prospect::new(refused.what, refused.endings.into_iter().chain(left), refused.why);
            return Ok(refused.after(self.wait_to_be_signed(activity)));
        }
        let Some(payload) = look.versions.payload else { return Ok(orphan()) };
        let wait = self.wait_to_settle(look.versions, activity);
        Ok(self.tried(&payload, signature, look.versions, activity)?.after(wait))
    }

    /// What an attempt would come to. As the pipeline: first what was done before, then the
    /// context, then the files.
    fn tried(
        &self,
        payload: &Identity,
        signature: Option<&SignatureThere>,
        versions: PairVersion<Identity>,
        activity: Option<Activity>,
    ) -> Result<Prospect, Unseen> {
        if self.row.is_some_and(|row| was_delivered(self.site, row, &versions)) {
            let why = "already delivered; what was to be removed of it is still here, and would be removed";
            return Ok(Prospect::new(What::Done, [Ending::plain(Outcome::Delivered)], why));
        }
        if let Err(error) = self.context {
            return Ok(Prospect::stopped(&error.clone().into()));
        }
        match &self.site.rule.mode {
            Mode::Sign(rule) => match self.no_room(payload)? {
                Some(held) => Ok(held),
                None if rule.deliver_to.is_some() => self.signing_and_delivering(rule, payload),
                None => self.signing(rule, signature, versions),
            },
            Mode::Verify(rule) => {
                let there = signature.filter(|_| versions.signature.is_some());
                self.judging(rule, payload, there, versions, activity)
            }
        }
    }

    /// What would become of a file, if one came.
    fn nothing(&self, versions: PairVersion<Identity>) -> String {
        match (&self.site.rule.mode, versions.signature) {
            (Mode::Sign(_), Some(_)) => {
                "only a signature lies there, and there is nothing to sign".to_owned()
            }
            (Mode::Sign(rule), None) => {
                format!("nothing lies there; a file of this name would be {}", self.signed(rule))
            }
            (Mode::Verify(rule), _) => format!(
                "nothing lies there; a file of this name and its signature would be judged; {}",
                self.if_valid(rule)
            ),
        }
    }

    /// What it waits for before its first attempt.
    fn wait_to_settle(&self, versions: PairVersion<Identity>, activity: Option<Activity>) -> Option<String> {
        let settle = self.site.rule.settle;
        let versions = want(&self.site.rule).versions(versions);
        let changed = [versions.payload, versions.signature].into_iter().flatten().map(|v| v.ctime).max();
        if let Some(wait) = self.wait_to_be_signed(activity) {
            return Some(wait);
        }
        if activity.is_some_and(|activity| activity.has_control_file) {
            return Some(format!("{CONTROLLED}, unless it is valid"));
        }
        changed
            .is_some_and(|changed| clock::age(changed) < settle)
            .then(|| format!("waits until it has been unchanged for {}", humantime::format_duration(settle)))
    }

    /// For whom a file that is to be signed waits, be it fit or not.
    fn wait_to_be_signed(&self, activity: Option<Activity>) -> Option<String> {
        match (&self.site.rule.mode, activity?) {
            (Mode::Verify(_), _) => None,
            (Mode::Sign(_), Activity { writer: Writer::Present, .. }) => {
                Some("waits until nobody has it open for writing".to_owned())
            }
            (Mode::Sign(_), activity) => activity.has_control_file.then(|| CONTROLLED.to_owned()),
        }
    }

    // Signing

    fn signing(
        &self,
        rule: &SignRule,
        there: Option<&SignatureThere>,
        versions: PairVersion<Identity>,
    ) -> Result<Prospect, Unseen> {
        let signature = match there {
            None => return Ok(self.signed_as(rule, &[Existing::Nothing])),
            Some(SignatureThere { content: Ok(Ok(signature)), .. }) => signature,
            Some(_) => return Ok(self.signed_as(rule, &[Existing::Foreign])),
        };
        let fits = fits(rule, signature);
        if let Some(existing) = self.known(signature, fits, versions)? {
            return Ok(self.signed_as(rule, &existing));
        }
        let is_on_record = self.is_signature_on_record(signature)?;
        if self.is_bad_anyway(signature) {
            return Ok(self.signed_as(rule, &[decide::opened(false, is_on_record, fits)]));
        }
        // Whatever KMS may say.
        let opened = [(true, true), (false, true), (false, is_on_record)];
        let existing = opened.map(|(is_valid, is_genuine)| decide::opened(is_valid, is_genuine, fits));
        let endings = existing.map(|existing| end_of(decide::signing(existing, rule.on_stale)));
        let denied = Hold::WhoseSignature(Trouble::new(TroubleKind::Denied, ""));
        let endings = endings.into_iter().chain([Ending::held(&denied)]);
        let stale = match rule.on_stale {
            OnStale::Resign => "is replaced",
            OnStale::Report => "is left and reported",
            OnStale::Quarantine => "is quarantined with the file",
        };
        let valid =
            if fits { "is adopted, one of other content" } else { "of a batch, or one of other content," };
        let why = format!(
            "nobody remembers making its signature, so KMS is asked to decrypt it under {}: a valid one {valid} {stale}, \
             any other is left and reported; without kms:Decrypt it is held",
            rule.key
        );
        Ok(Prospect::new(What::Judges, endings, why))
    }

    /// What the signature beside the file may be, as far as state knows. `None`: KMS would be
    /// asked.
    fn known(
        &self,
        signature: &Signature,
        fits: bool,
        versions: PairVersion<Identity>,
    ) -> Result<Option<Vec<Existing>>, Unseen> {
        let stored = versions.payload.map(|payload| payload.stored());
        // Of the version that was read then the content is the same; of another one it may be.
        let contents: &[bool] =
            if self.row.is_some_and(|row| row.payload == stored) { &[true] } else { &[false, true] };
        let of_row =
            |same_content: &bool| self.row.and_then(|row| recalled(self.site, row, signature, *same_content));
        let decided: Vec<_> = contents.iter().filter_map(of_row).collect();
        let recalled = if !decided.is_empty() {
            decided
        } else if self.is_pending_publish(signature)? {
            vec![Recalled::PendingPublish]
        } else {
            let elsewhere = self.signed_elsewhere(signature)?;
            if elsewhere.is_empty() { vec![Recalled::Nothing] } else { elsewhere }
        };
        Ok(recalled.into_iter().map(|recalled| decide::recalled(recalled, fits)).collect())
    }

    /// What decisions about other paths say of it, for either content that the payload may have.
    fn signed_elsewhere(&self, signature: &Signature) -> Result<Vec<Recalled>, Unseen> {
        let (Some(decisions), Ok(context)) = (self.inputs.decisions, self.context) else {
            return Ok(Vec::new());
        };
        let rows = decisions.signed_with(&self.site.rule.name, signature)?;
        let context_of = |path: &RelPath| self.context_of(path);
        let of = |is_same| recalled_elsewhere(self.site, &rows, context, context_of, |_| is_same);
        Ok([false, true].into_iter().filter_map(of).collect())
    }

    fn is_signature_on_record(&self, signature: &Signature) -> Result<bool, Unseen> {
        let Some(decisions) = self.inputs.decisions else { return Ok(false) };
        Ok(decisions.is_signature_on_record(&self.site.rule.name, signature)?)
    }

    fn is_pending_publish(&self, signature: &Signature) -> Result<bool, Unseen> {
        let Some(decisions) = self.inputs.decisions else { return Ok(false) };
        Ok(decisions.is_pending_publish(&self.site.rule.name, self.path, signature)?)
    }

    /// What comes of a signature that is the first of these, unless the content shows it to be
    /// another of them.
    fn signed_as(&self, rule: &SignRule, existing: &[Existing]) -> Prospect {
        let mut signings: Vec<_> =
            existing.iter().map(|existing| decide::signing(*existing, rule.on_stale)).collect();
        signings.dedup();
        let unless = if signings.len() > 1 { ", unless the content is the same" } else { "" };
        let (what, why) = match signings.first() {
            None | Some(Signing::Sign) => (What::Signs, format!("would be {}", self.signed(rule))),
            Some(Signing::Replace) => {
                let why = format!(
                    "its signature is ours and of an earlier state of it (or of the rule); it would be \
                     signed anew with {}{}{unless}",
                    rule.key,
                    with_others(rule)
                );
                (What::Signs, why)
            }
            Some(Signing::Done | Signing::Record | Signing::Adopt) => {
                (What::Done, "its signature is ours and would be put on record".to_owned())
            }
            Some(Signing::ReportStale) => {
                (What::Refuses, format!("refused{unless}: {}", RefusalReason::StaleSignature))
            }
            Some(Signing::ReportForeign) => {
                (What::Refuses, format!("refused: {}", RefusalReason::ForeignSignature))
            }
            Some(Signing::Quarantine(_)) => {
                let why = format!(
                    "its signature is ours and of an earlier state of it; both would be quarantined{unless}"
                );
                (What::Invalid, why)
            }
        };
        Prospect::new(what, signings.into_iter().map(end_of), why)
    }

    fn signing_and_delivering(&self, rule: &SignRule, payload: &Identity) -> Result<Prospect, Unseen> {
        let results = self.foreseen(payload, None)?;
        let why = format!("would be {}", self.signed(rule));
        self.delivering(Prospect::new(What::Signs, [], why), &results)
    }

    fn signed(&self, rule: &SignRule) -> String {
        let sig = Escaped::new(&self.site.rule.signature_name(self.path.name())).to_string();
        let others = with_others(rule);
        match &rule.deliver_to {
            None => format!("signed with {}{others}; \"{sig}\" appears beside it", rule.key),
            Some(delivery) => format!(
                "signed with {}{others} and published with \"{sig}\" as {}",
                rule.key,
                quoted(&delivery.dir.join(self.path.as_path()))
            ),
        }
    }

    // Verifying

    fn judging(
        &self,
        rule: &VerifyRule,
        payload: &Identity,
        there: Option<&SignatureThere>,
        versions: PairVersion<Identity>,
        activity: Option<Activity>,
    ) -> Result<Prospect, Unseen> {
        let timing = timing(&self.site.rule);
        let is_due = is_old_enough(&versions, activity.unwrap_or(Activity::UNKNOWN), &timing);
        let bringers = self.bringers()?;
        let no_room = self.no_room(payload)?;
        let Some(there) = there else {
            let wait = (!is_due).then(|| self.wait_for_signature(rule, payload));
            let missing = Reason::Missing.as_str();
            return Ok(match (no_room, wait) {
                (Some(held), wait) => held.after(wait),
                (None, None) => {
                    let why = format!("its signature has not come within signature_timeout: {missing}");
                    self.bad(rule, Reason::Missing, bringers, &why)
                }
                (None, Some(wait)) => {
                    let due = self.bad(rule, Reason::Missing, bringers, missing);
                    let endings = std::iter::once(Ending::Waiting).chain(due.endings);
                    Prospect::new(What::Waits, endings, format!("{wait}; then {}", due.why))
                }
            });
        };
        if let Some(held) = no_room {
            return Ok(held); // before anything is judged
        }
        let grace = match activity.map(|activity| activity.writer) {
            Some(Writer::Absent | Writer::Present) => timing.grace_leased,
            Some(Writer::Unknown) | None => timing.grace_unleased,
        };
        let grace = humantime::format_duration(grace);
        if let Some((why, reason)) = self.bad_anyway(rule, there) {
            let due = self.bad(rule, reason, bringers, &format!("{why}: {reason}"));
            return Ok(due.after((!is_due).then(|| format!("waits until it has been unchanged for {grace}"))));
        }
        // Whatever KMS may say; and while it is not due, an invalid pair may still be arriving.
        let verdicts = [Ok(()), Err(Reason::Mismatch), Err(Reason::Rejected), Err(Reason::WrongKey)];
        let finalities: &[Finality] =
            if is_due { &[Finality::Final] } else { &[Finality::Provisional, Finality::Final] };
        let results = match there.parsed() {
            Some(signature) => self.foreseen(payload, Some(signature))?,
            None => Vec::new(),
        };
        let mut endings = Vec::new();
        for verdict in verdicts {
            for finality in finalities {
                match end_of_bad(&decide::verified(rule, verdict, *finality, false, bringers)) {
                    Some(bad) => endings.push(bad),
                    None => endings.extend(self.accepted(rule, &results)?),
                }
            }
        }
        let keys: Vec<_> = rule.trusted_keys.iter().map(|key| key.as_str()).collect();
        let why = format!(
            "would be judged under {}; {}; an invalid one that has been unchanged for {grace} would be {}",
            keys.join(", "),
            self.if_valid(rule),
            done_about(&decide::verified::<()>(
                rule,
                Err(Reason::Mismatch),
                Finality::Final,
                false,
                bringers
            ))
        );
        let why = match conflict_of(&results) {
            Some((what, is_sure)) => format!("{why}; {}", self.in_the_way(what, is_sure)),
            None => why,
        };
        Ok(Prospect::new(What::Judges, endings, why))
    }

    /// What comes of a pair that KMS vouches for.
    fn accepted(&self, rule: &VerifyRule, results: &[Delivered]) -> Result<Vec<Ending>, Unseen> {
        let mut endings = Vec::new();
        let superseded: &[bool] = if rule.rollback == Rollback::Off { &[false] } else { &[false, true] };
        for is_superseded in superseded {
            match (decide::rollback(rule.rollback, *is_superseded), &rule.place) {
                (RollbackAction::Hold, _) => endings.push(Ending::held(&Hold::Rollback)),
                (RollbackAction::Accept | RollbackAction::Alert, Place::InPlace) => {
                    endings.push(Ending::plain(Outcome::Valid));
                }
                (RollbackAction::Accept | RollbackAction::Alert, Place::Deliver(_)) => {
                    endings.extend(self.published(results)?)
                }
            }
        }
        Ok(endings)
    }

    /// What comes of a pair that is invalid for sure, once that is final.
    fn bad(&self, rule: &VerifyRule, reason: Reason, bringers: Bringers, why: &str) -> Prospect {
        let verified = decide::verified::<()>(rule, Err(reason), Finality::Final, false, bringers);
        let what = match verified {
            Verified::Quarantine(_) | Verified::Leave(_) => What::Invalid,
            Verified::Hold(..) => What::Holds,
            Verified::Deliver(()) | Verified::Accept(()) | Verified::Wait(_) => What::Waits,
        };
        let why = format!("{why}, and it would be {}", done_about(&verified));
        Prospect::new(what, end_of_bad(&verified), why)
    }

    /// Whether a signature is bad whatever KMS says, which then is not asked.
    fn is_bad_anyway(&self, signature: &Signature) -> bool {
        let formats = self.site.rule.formats(&self.site.leaf_keys);
        self.context.as_ref().is_ok_and(|context| DecryptRequest::new(formats, context, signature).is_err())
    }

    /// Why it is bad, if it is.
    fn bad_anyway(&self, rule: &VerifyRule, there: &SignatureThere) -> Option<(String, Reason)> {
        let signature = match &there.content {
            Ok(Ok(signature)) => signature,
            Ok(Err(malformed)) => return Some((malformed.to_string(), Reason::Malformed)),
            Err(_) => return None,
        };
        if !self.is_bad_anyway(signature) {
            return None;
        }
        let leaf_keys = &self.site.leaf_keys;
        let theirs = signature.batch().map(|batch| batch.leaf_keys().to_string()).unwrap_or_default();
        Some(match rule.accept_batch {
            AcceptBatch::No => {
                let why = "it is a batch signature, and the rule has no accept_batch = true";
                (why.to_owned(), Reason::Malformed)
            }
            AcceptBatch::Yes => {
                let why = format!(
                    "its leaf-context is {theirs}, and that of this rule is {leaf_keys}: it was made for another context"
                );
                (why, Reason::Rejected)
            }
        })
    }

    fn wait_for_signature(&self, rule: &VerifyRule, payload: &Identity) -> String {
        let until = clock::end_of_wait(payload.ctime, rule.signature_timeout);
        format!("waits for its signature until {until}, or as long after the daemon first saw it")
    }

    fn if_valid(&self, rule: &VerifyRule) -> String {
        match &rule.place {
            Place::InPlace => "a valid pair stays where it lies and is put on record".to_owned(),
            Place::Deliver(delivery) => {
                format!("a valid pair is delivered as {}", quoted(&delivery.dir.join(self.path.as_path())))
            }
        }
    }

    /// Who brought the pair that lies there.
    fn bringers(&self) -> Result<Bringers, FsError> {
        let dir = self.site.folder().root.descend(self.path.parent())?;
        let owner = |stat: Option<Stat>| stat.map(|stat| stat.uid);
        let signature = owner(dir.stat_of(&self.site.rule.signature_name(self.path.name()))?);
        let payload = owner(dir.stat_of(self.path.name())?);
        let mode = dir.stat()?.mode;
        Ok(payload.map_or(Bringers::One, |payload| bringers(mode, payload, signature)))
    }

    // Delivering

    /// What holds a file that is copied to its destination before anything is known of it.
    fn no_room(&self, payload: &Identity) -> Result<Option<Prospect>, FsError> {
        let Some(root) = self.site.destination() else { return Ok(None) };
        match Arc::new(Space::default()).take(root, payload.size, self.inputs.min_free_space) {
            Ok(_) => Ok(None),
            Err(stop) => Ok(Some(Prospect::stopped(&stop))),
        }
    }

    /// The possible results of publishing; none in a rule that does not deliver.
    fn foreseen(&self, payload: &Identity, signature: Option<&Signature>) -> Result<Vec<Delivered>, FsError> {
        let Some((root, mode)) = &self.site.sink.destination else { return Ok(Vec::new()) };
        let signature_name = &self.site.rule.signature_name(self.path.name());
        let (path, size, mode) = (self.path, payload.size, *mode);
        deliver::foresee(root, Prospective { path, size, signature_name, signature, mode })
    }

    /// The ends that publishing may come to.
    fn published(&self, results: &[Delivered]) -> Result<Vec<Ending>, Unseen> {
        const DELIVERED: Ending = Ending::plain(Outcome::Delivered);
        let conflict = |what| Ending::held(&self.conflict(what));
        let mut endings = Vec::new();
        for result in results {
            match result {
                Delivered::Done => endings.push(DELIVERED),
                Delivered::Conflict(what) => endings.push(conflict(*what)),
                // State or KMS may vouch for it.
                Delivered::Beside(_) => endings.extend([DELIVERED, conflict(Conflict::OtherSignature)]),
                // It is removed, if that can be done without risk.
                Delivered::Orphan(there) if self.is_pending_publish(there)? => {
                    endings.extend([DELIVERED, conflict(Conflict::StraySignature)]);
                }
                Delivered::Orphan(_) => endings.push(conflict(Conflict::StraySignature)),
                Delivered::NotWarranted => {} // needs a wrong verdict
            }
        }
        Ok(endings)
    }

    /// What would be delivered, unless there is a conflict.
    fn delivering(&self, prospect: Prospect, results: &[Delivered]) -> Result<Prospect, Unseen> {
        let endings = self.published(results)?;
        Ok(match conflict_of(results) {
            Some((what, true)) if endings.iter().all(|ending| matches!(ending, Ending::Held(_))) => {
                Prospect::held(&self.conflict(what))
            }
            Some((what, is_sure)) => {
                let why = format!("{}; {}", prospect.why, self.in_the_way(what, is_sure));
                Prospect::new(prospect.what, endings, why)
            }
            None => Prospect::new(prospect.what, endings, prospect.why),
        })
    }

    fn conflict(&self, what: Conflict) -> Hold {
        self.site.conflict(self.path, what)
    }

    /// What is at the destination, and what that means.
    fn in_the_way(&self, what: Conflict, is_sure: bool) -> String {
        let hold = self.conflict(what);
        match is_sure {
            true => format!("a valid pair would be held ({}): {hold}", hold.as_str()),
            false => {
                "a file of that name and size is there already, which is a conflict unless it is the same"
                    .to_owned()
            }
        }
    }
}

/// The possible conflict, and whether it is certain.
fn conflict_of(results: &[Delivered]) -> Option<(Conflict, bool)> {
    let conflict = |result: &Delivered| match result {
        Delivered::Conflict(what) => Some(*what),
        Delivered::Beside(_) => Some(Conflict::OtherSignature),
        Delivered::Orphan(_) => Some(Conflict::StraySignature),
        Delivered::Done | Delivered::NotWarranted => None,
    };
    let conflicts: Vec<_> = results.iter().filter_map(conflict).collect();
    let is_sure = conflicts.len() == results.len()
        && !results.iter().any(|result| matches!(result, Delivered::Beside(_)));
    conflicts.first().map(|what| (*what, is_sure))
}

/// The end that a decision to sign or not leads to.
fn end_of(signing: Signing) -> Ending {
    match signing {
        Signing::Sign | Signing::Replace | Signing::Done | Signing::Record => Ending::plain(Outcome::Signed),
        Signing::Adopt => Ending::plain(Outcome::Adopted),
        Signing::ReportStale => Ending::refused(&RefusalReason::StaleSignature),
        Signing::ReportForeign => Ending::refused(&RefusalReason::ForeignSignature),
        Signing::Quarantine(reason) => Ending::judged(Outcome::Quarantined, reason),
    }
}

/// The end that a decision about an invalid pair leads to; of a valid pair, none.
fn end_of_bad(verified: &Verified<()>) -> Option<Ending> {
    match verified {
        Verified::Deliver(()) | Verified::Accept(()) => None,
        Verified::Wait(_) => Some(Ending::Waiting),
        Verified::Quarantine(reason) => Some(Ending::judged(Outcome::Quarantined, *reason)),
        Verified::Leave(reason) => Some(Ending::judged(Outcome::Invalid, *reason)),
        Verified::Hold(doubt, reason) => Some(Ending::held(&doubt.hold(*reason))),
    }
}

/// The same in words.
const fn done_about(verified: &Verified<()>) -> &'static str {
    match verified {
        Verified::Quarantine(_) => "quarantined",
        Verified::Leave(_) => "left and logged",
        Verified::Hold(Doubt::MixedOwners, _) => {
            "held (mixed-owners): file and signature belong to two users in a sticky folder"
        }
        Verified::Hold(Doubt::Brake, _) => "held",
        Verified::Wait(_) => "looked at again",
        Verified::Deliver(()) | Verified::Accept(()) => "accepted",
    }
}

/// A signature whose payload is not there.
fn orphan() -> Prospect {
    let reported = RefusalReason::OrphanSignature;
    Prospect::new(What::Waits, [Ending::Waiting, Ending::refused(&reported)], reported.to_string())
}

/// Whom a file is signed with, where the rule has batches.
fn with_others(rule: &SignRule) -> String {
    rule.batch.map_or_else(String::new, |Batching { window, max_files }| {
        let window = humantime::format_duration(window);
        format!(
            ", in a batch with what else becomes ready within {window} of its first file ({max_files} files at most)"
        )
    })
}

/// What is decided already.
fn decided(outcome: Outcome, reason: Option<&DecisionReason>) -> Prospect {
    let ending = Ending::Settled(outcome, reason.cloned());
    let reason = reason.map(ToString::to_string).unwrap_or_default();
    let why = match outcome {
        Outcome::Signed => "already signed".to_owned(),
        Outcome::Adopted => "already signed by somebody else who has the key".to_owned(),
        Outcome::Valid => "already judged: valid where it lies".to_owned(),
        Outcome::Invalid => {
            format!("already judged: {reason}; it is left, as the rule says, until it changes")
        }
        Outcome::Refused => {
            let why = format!("refused already, until it changes: {reason}");
            return Prospect::new(What::Refuses, [ending], why);
        }
        Outcome::Signing | Outcome::Delivered | Outcome::Quarantined => format!("already {outcome}"),
    };
    Prospect::new(What::Done, [ending], why)
}
