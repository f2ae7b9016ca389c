//! What would happen to a file as it lies there now, in words, and why.
//!
//! Foretells no verdict: that is KMS's. Where the daemon would read the payload first, both ways are told.

use std::sync::Arc;

use crate::clock;
use crate::daemon::decide;
use crate::daemon::decide::{Doubt, Existing, Signing, Verified};
use crate::daemon::site::decided::is_decided;
use crate::daemon::worker::timing;
use crate::diagnose::explain::scene::{Scene, SignatureThere, Unseen};
use crate::escape::{Escaped, quoted};
use crate::fs::lease::Writer;
use crate::fs::{FsError, Identity, Stat};
use crate::hold::{AttemptError, Hold};
use crate::policy::{AcceptBatch, Batching, Mode, OnStale, Place, SignRule, VerifyRule};
use crate::settle::{Finality, PairVersion};
use crate::signature::Signature;
use crate::signing::{DecryptRequest, Reason, Verdict};
use crate::sink::directory::deliver;
use crate::sink::directory::deliver::Outlook;
use crate::source::directory::folder::bringers;
use crate::source::space::Space;
use crate::source::{Bringers, Observation};
use crate::state::Outcome;
use crate::state::reason::{DecisionReason, RefusalReason};

/// What would happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prospect {
    /// In one word.
    pub what: What,
    /// In a sentence.
    pub why: String,
}

/// What would happen, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
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
    pub const fn as_str(self) -> &'static str {
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
    fn new(what: What, why: impl Into<String>) -> Self {
        Self { what, why: why.into() }
    }

    fn held(hold: &Hold) -> Self {
        Self::new(What::Holds, format!("held ({}): {hold}; {}", hold.as_str(), hold.hint()))
    }

    fn refused(reason: &RefusalReason) -> Self {
        Self::new(What::Refuses, format!("refused: {reason}"))
    }

    /// What would stop it, told as its end.
    fn stopped(error: &AttemptError) -> Self {
        match error {
            AttemptError::Refused(reason) => Self::refused(reason),
            AttemptError::Hold(hold) => Self::held(hold),
            AttemptError::Changed => Self::new(What::Waits, "changing just now; it would be looked at anew"),
        }
    }

    /// The same, but not before something else.
    fn after(self, wait: Option<String>) -> Self {
        match (wait, self.what) {
            (None, _) => self,
            (Some(wait), What::Signs | What::Judges | What::Invalid | What::Waits) => {
                Self::new(What::Waits, format!("{wait}; then: {}", self.why))
            }
            (Some(_), What::Nothing | What::Done | What::Refuses | What::Holds) => self,
        }
    }
}

impl Scene<'_> {
    /// What would happen now.
    pub(crate) fn prospect(
        &self,
        look: &Observation<Identity>,
        signature: Option<&SignatureThere>,
        writer: Option<Writer>,
    ) -> Result<Prospect, Unseen> {
        if look.versions == PairVersion::NONE {
            return Ok(Prospect::new(What::Nothing, format!("nothing lies there; {}", self.would_be())));
        }
        if let Some(row) = self.row
            && is_decided(self.site, row, look, false)
        {
            return Ok(decided(row.outcome, row.reason.as_ref()));
        }
        if let Some(unfit) = &look.unfit {
            return Ok(Prospect::refused(unfit));
        }
        let Some(payload) = look.versions.payload else { return Ok(self.orphan(look.versions)) };
        if let Err(error) = self.context {
            return Ok(Prospect::stopped(&error.clone().into()));
        }
        let prospect = match &self.site.rule.mode {
            Mode::Sign(rule) => self.signing(rule, &payload, signature)?,
            Mode::Verify(rule) => self.judging(rule, &payload, signature, look.versions, writer)?,
        };
        Ok(prospect.after(self.wait_to_settle(look.versions, writer)))
    }

    /// What would become of a file, if one came.
    fn would_be(&self) -> String {
        match &self.site.rule.mode {
            Mode::Sign(rule) => format!("a file of this name would be {}", self.signed(rule)),
            Mode::Verify(rule) => {
                format!("a file of this name and its signature would be judged; {}", self.if_valid(rule))
            }
        }
    }

    fn orphan(&self, versions: PairVersion<Identity>) -> Prospect {
        match (&self.site.rule.mode, versions.signature) {
            (Mode::Verify(_), Some(_)) => {
                Prospect::new(What::Waits, RefusalReason::OrphanSignature.to_string())
            }
            _ => Prospect::new(What::Nothing, "only a signature lies there, and there is nothing to sign"),
        }
    }

    /// What it waits for before it is tried at all.
    fn wait_to_settle(&self, versions: PairVersion<Identity>, writer: Option<Writer>) -> Option<String> {
        let signs = matches!(self.site.rule.mode, Mode::Sign(_));
        let settle = self.site.rule.settle;
        let ages = youngest(versions, signs).map(|identity| clock::age(identity.ctime));
        if writer == Some(Writer::Present) && signs {
            return Some("waits until nobody has it open for writing".to_owned());
        }
        ages.is_some_and(|age| age < settle)
            .then(|| format!("waits until it has been unchanged for {}", humantime::format_duration(settle)))
    }

    // Signing

    fn signing(
        &self,
        rule: &SignRule,
        payload: &Identity,
        signature: Option<&SignatureThere>,
    ) -> Result<Prospect, Unseen> {
        let signs = || Prospect::new(What::Signs, format!("would be {}", self.signed(rule)));
        if rule.deliver_to.is_some() {
            return Ok(self.delivery(payload, signs())?);
        }
        let existing = match signature {
            None => Existing::Nothing,
            Some(SignatureThere { content: Ok(Ok(signature)), .. }) => match self.whose(signature)? {
                Some(existing) => existing,
                None => return Ok(self.unknown_signature(rule)),
            },
            Some(_) => Existing::Foreign,
        };
        Ok(match decide::signing(existing, rule.on_stale) {
            Signing::Sign => signs(),
            Signing::Replace => Prospect::new(
                What::Signs,
                format!(
                    "its signature is ours and of an earlier state of it (or of the rule); unless the content is the \
                     same, it would be signed anew with {}{}",
                    rule.key,
                    with_others(rule)
                ),
            ),
            Signing::Done | Signing::Record | Signing::Adopt => {
                Prospect::new(What::Done, "its signature is ours and would be put on record")
            }
            Signing::Report if existing == Existing::Stale => {
                Prospect::refused(&RefusalReason::StaleSignature)
            }
            Signing::Report => Prospect::refused(&RefusalReason::ForeignSignature),
            Signing::Quarantine => Prospect::new(
                What::Invalid,
                "its signature is ours and of an earlier state of it; unless the content is the same, both would be \
                 quarantined",
            ),
        })
    }

    /// What the signature beside the file is, as far as state knows. `None`: KMS would be asked.
    fn whose(&self, signature: &Signature) -> Result<Option<Existing>, Unseen> {
        let is_ours =
            self.row.is_some_and(|row| row.is_of_signature(signature) && row.outcome.is_signed_in_place());
        if is_ours {
            return Ok(Some(Existing::Stale));
        }
        let Some(decisions) = self.terms.decisions else { return Ok(None) };
        let intended = decisions.was_intended(&self.site.rule.name, self.path, signature)?;
        Ok(intended.then_some(Existing::Stale))
    }

    fn unknown_signature(&self, rule: &SignRule) -> Prospect {
        let stale = match rule.on_stale {
            OnStale::Resign => "is replaced",
            OnStale::Report => "is left and reported",
            OnStale::Quarantine => "is quarantined with the file",
        };
        Prospect::new(
            What::Judges,
            format!(
                "nobody remembers making its signature, so KMS is asked to decrypt it under {}: a valid one is \
                 adopted, one of other content {stale}, any other is left and reported; without kms:Decrypt it is held",
                rule.key
            ),
        )
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
        signature: Option<&SignatureThere>,
        versions: PairVersion<Identity>,
        writer: Option<Writer>,
    ) -> Result<Prospect, Unseen> {
        let Some(there) = signature.filter(|_| versions.signature.is_some()) else {
            return self.missing(rule, payload);
        };
        let grace = match writer {
            Some(Writer::Absent | Writer::Present) => timing(&self.site.rule).grace_leased,
            Some(Writer::Unknown) | None => timing(&self.site.rule).grace_unleased,
        };
        let grace = humantime::format_duration(grace);
        let bringers = self.bringers()?;
        if let Some((why, reason)) = self.bad_anyway(rule, there) {
            let (what, done) = self.action(rule, reason, bringers);
            let why =
                format!("{why}: {reason}, and once it has been unchanged for {grace} it would be {done}");
            return Ok(Prospect::new(what, why));
        }
        let keys: Vec<_> = rule.trusted_keys.iter().map(|key| key.as_str()).collect();
        let judges = Prospect::new(
            What::Judges,
            format!(
                "would be judged under {}; {}; an invalid one that has been unchanged for {grace} would be {}",
                keys.join(", "),
                self.if_valid(rule),
                self.action(rule, Reason::Mismatch, bringers).1
            ),
        );
        Ok(self.delivery(payload, judges)?)
    }

    /// Why a signature is bad whatever KMS says, which then is not asked.
    fn bad_anyway(&self, rule: &VerifyRule, there: &SignatureThere) -> Option<(String, Reason)> {
        let signature = match &there.content {
            Ok(Ok(signature)) => signature,
            Ok(Err(malformed)) => return Some((malformed.to_string(), Reason::Malformed)),
            Err(_) => return None,
        };
        let leaf_keys = &self.site.leaf_keys;
        let context = self.context.as_ref().ok()?;
        if DecryptRequest::new(self.site.rule.formats(leaf_keys), context, signature).is_ok() {
            return None;
        }
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

    fn missing(&self, rule: &VerifyRule, payload: &Identity) -> Result<Prospect, Unseen> {
        let (what, done) = self.action(rule, Reason::Missing, self.bringers()?);
        if clock::age(payload.ctime) >= rule.signature_timeout {
            let why = format!(
                "its signature has not come within signature_timeout: missing, and it would be {done}"
            );
            return Ok(Prospect::new(what, why));
        }
        let until = clock::end_of_wait(payload.ctime, rule.signature_timeout);
        let why = format!(
            "waits for its signature until {until}, or as long after the daemon first saw it; then missing, and it \
             would be {done}"
        );
        Ok(Prospect::new(What::Waits, why))
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

    /// What is done about an invalid pair when that is final: in one word, and in words.
    fn action(&self, rule: &VerifyRule, reason: Reason, bringers: Bringers) -> (What, &'static str) {
        match decide::verified(rule, Verdict::Invalid(reason), Finality::Final, false, bringers) {
            Verified::Quarantine(_) => (What::Invalid, "quarantined"),
            Verified::Leave(_) => (What::Invalid, "left and logged"),
            Verified::Hold(Doubt::MixedOwners, _) => {
                let why = "held (mixed-owners): file and signature belong to two users in a sticky folder";
                (What::Holds, why)
            }
            Verified::Deliver(_)
            | Verified::Accept(_)
            | Verified::Wait(_)
            | Verified::Hold(Doubt::Brake, _) => (What::Holds, "held"),
        }
    }

    // Delivering

    /// What would happen, unless delivery would be in trouble.
    fn delivery(&self, payload: &Identity, otherwise: Prospect) -> Result<Prospect, FsError> {
        let Some(root) = self.site.destination() else { return Ok(otherwise) };
        let outlook = deliver::foresee(root, self.path, payload.size)?;
        if let Outlook::Conflict(what) = outlook {
            let path = root.path().join(self.path.as_path());
            return Ok(Prospect::held(&Hold::Conflict { path, what }));
        }
        if let Err(AttemptError::Hold(hold)) =
            Arc::new(Space::default()).take(root, payload.size, self.terms.min_free_space)
        {
            return Ok(Prospect::held(&hold));
        }
        Ok(match outlook {
            Outlook::Free | Outlook::Conflict(_) => otherwise,
            Outlook::Same => Prospect {
                why: format!(
                    "{}; a file of that name and size is there already, which is a conflict unless it is the same",
                    otherwise.why
                ),
                ..otherwise
            },
        })
    }
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
    let reason = reason.map(ToString::to_string).unwrap_or_default();
    let why = match outcome {
        Outcome::Signed => "already signed".to_owned(),
        Outcome::Adopted => "already signed by somebody else who has the key".to_owned(),
        Outcome::Valid => "already judged: valid where it lies".to_owned(),
        Outcome::Invalid => {
            format!("already judged: {reason}; it is left, as the rule says, until it changes")
        }
        Outcome::Refused => {
            return Prospect::new(What::Refuses, format!("refused already, until it changes: {reason}"));
        }
        Outcome::Signing | Outcome::Delivered | Outcome::Quarantined => format!("already {outcome}"),
    };
    Prospect::new(What::Done, why)
}

/// The file of a pair that changed last; to be signed, only the payload counts.
fn youngest(versions: PairVersion<Identity>, signs: bool) -> Option<Identity> {
    let signature = versions.signature.filter(|_| !signs);
    [versions.payload, signature].into_iter().flatten().max_by_key(|identity| identity.ctime)
}
