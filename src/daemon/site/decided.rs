//! Whether a remembered decision still applies: to the versions that are there now, under the same
//! rule.

use crate::context::Context;
use crate::daemon::decide::Recalled;
use crate::daemon::site::{Backend, Site, VersionOf};
use crate::fs::RelPath;
use crate::policy::{Mode, OnInvalid, OnStale, SignRule};
use crate::settle::PairVersion;
use crate::signature::Signature;
use crate::signing::Reason;
use crate::source::{Observation, Version};
use crate::state;
use crate::state::reason::{DecisionReason, RefusalReason};
use crate::state::{Outcome, Remembered};

/// Whether a remembered decision settles the present versions, so that nothing is left to do.
pub(crate) fn is_decided<B: Backend>(
    site: &Site<B>,
    row: &Remembered,
    look: &Observation<VersionOf<B>>,
    dry_run: bool,
) -> bool {
    // Destination and action on failure are not in the fingerprint: what the rule now asks for and
    // was not done then is still to be done.
    let stays = site.rule.delivery().is_none();
    is_of(site, row, &look.versions)
        && match row.outcome {
            Outcome::Signed | Outcome::Adopted => stays && (row.signature.is_some() || dry_run),
            Outcome::Valid => stays,
            Outcome::Invalid => would_leave(site, row),
            // The rule may allow it now.
            Outcome::Refused => would_refuse_again(site, row, look),
            // A dry run leaves them in place and reports them once. Otherwise the same pair came
            // back.
            Outcome::Delivered | Outcome::Quarantined => dry_run,
            Outcome::Signing => false,
        }
}

/// Whether what was refused for how its files are is there still: of such a decision nothing was
/// believed, and no digest says more. Inode numbers are not told apart, which change by themselves.
pub(crate) fn is_refused_still<B: Backend>(
    site: &Site<B>,
    row: &Remembered,
    versions: &PairVersion<VersionOf<B>>,
    reason: &RefusalReason,
) -> bool {
    row.outcome == Outcome::Refused
        && row.fingerprint == site.fingerprint
        && row.reason.as_ref() == Some(&DecisionReason::Refusal(reason.clone()))
        && is_same(row.payload.as_ref(), versions.payload.as_ref())
        && is_same(row.signature.as_ref(), versions.signature.as_ref())
}

/// Whether both are there or neither is, and the same but perhaps for inode numbers.
fn is_same<V: Version>(then: Option<&state::Version>, now: Option<&V>) -> bool {
    match (then, now) {
        (None, None) => true,
        (Some(then), Some(now)) => then.is_same_but_for_inode(&now.stored()),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// Whether a decision that was made about just the bytes that were read would be made again: about
/// files in place, whose versions are others by now.
pub(crate) fn would_decide_again<B: Backend>(site: &Site<B>, row: &Remembered) -> bool {
    row.fingerprint == site.fingerprint
        && match (row.outcome, &site.rule.mode, &row.reason) {
            (Outcome::Valid, Mode::Verify(_), _) => site.rule.delivery().is_none(),
            (Outcome::Invalid, Mode::Verify(_), _) => would_leave(site, row),
            (Outcome::Refused, Mode::Sign(_), Some(DecisionReason::Refusal(reason)))
                if *reason == RefusalReason::ForeignSignature =>
            {
                row.signature_digest.is_some()
            }
            (Outcome::Refused, Mode::Sign(sign), Some(DecisionReason::Refusal(reason))) => {
                *reason == RefusalReason::StaleSignature && sign.on_stale == OnStale::Report
            }
            _ => false,
        }
}

/// Whether a remembered decision is about these versions, under the same rule.
pub(crate) fn is_of<B: Backend>(
    site: &Site<B>,
    row: &Remembered,
    versions: &PairVersion<VersionOf<B>>,
) -> bool {
    row.fingerprint == site.fingerprint
        && row.payload == versions.payload.as_ref().map(Version::stored)
        && row.signature == versions.signature.as_ref().map(Version::stored)
}

/// What a decision says about the signature beside a file to be signed, if it is about that
/// signature. `same_content`: it is about the present content.
pub(crate) fn recalled<B: Backend>(
    site: &Site<B>,
    row: &Remembered,
    signature: &Signature,
    same_content: bool,
) -> Option<Recalled> {
    let is_about_it = row.is_of_signature(signature) && row.outcome.is_signed_in_place();
    is_about_it.then(|| Recalled::Decided {
        same_content,
        same_rule: [&site.fingerprint, &site.other_format].contains(&&row.fingerprint),
        is_recorded: row.outcome != Outcome::Signing,
    })
}

/// What decisions about other paths say of the signature beside a file to be signed: those that
/// were signed with exactly this one. A pair that was renamed is as good as it was if its content
/// is the same and nothing of its context comes from its name. `context_of` gives the context of a
/// path.
pub(crate) fn recalled_elsewhere<B: Backend>(
    site: &Site<B>,
    rows: &[(RelPath, Remembered)],
    context: &Context,
    context_of: impl Fn(&RelPath) -> Option<Context>,
    is_content: impl Fn(&Remembered) -> bool,
) -> Option<Recalled> {
    let all = rows.iter().map(|(path, row)| Recalled::Decided {
        same_content: is_content(row),
        same_rule: [&site.fingerprint, &site.other_format].contains(&&row.fingerprint)
            && context_of(path).as_ref() == Some(context),
        is_recorded: row.outcome != Outcome::Signing,
    });
    all.max_by_key(|recalled| match recalled {
        Recalled::Decided { same_content, same_rule, is_recorded } => {
            (*same_content && *same_rule, *is_recorded)
        }
        Recalled::Nothing | Recalled::PendingPublish => (false, false),
    })
}

/// Whether a sign rule wants signatures of this format. A plain signature is fine in a rule that
/// makes batches, but not the reverse: not every verifier accepts a batch.
pub(crate) fn fits(rule: &SignRule, signature: &Signature) -> bool {
    signature.batch().is_none() || rule.batch.is_some()
}

/// Whether these versions were delivered durably, and only their removal failed or was interrupted:
/// by what is known of them without reading, which their digests have to confirm. Publishing again
/// would deliver and record them twice.
pub(crate) fn was_delivered<B: Backend>(
    site: &Site<B>,
    row: &Remembered,
    versions: &PairVersion<VersionOf<B>>,
) -> bool {
    site.rule.delivery().is_some()
        && row.outcome == Outcome::Delivered
        && row.fingerprint == site.fingerprint
        && is_same(row.payload.as_ref(), versions.payload.as_ref())
        && (site.leaves_signature() || is_same(row.signature.as_ref(), versions.signature.as_ref()))
}

/// Whether a sign rule reports a signature without its payload: unless the rule made or adopted it.
pub(crate) fn is_stray(row: Option<&Remembered>) -> bool {
    !row.is_some_and(|row| row.outcome.is_signed_in_place())
}

/// Whether a pair that was refused would be refused for the same reason again. If this version does
/// not know the reason, it is examined again.
pub(crate) fn would_refuse_again<B: Backend>(
    site: &Site<B>,
    row: &Remembered,
    look: &Observation<VersionOf<B>>,
) -> bool {
    let Some(DecisionReason::Refusal(reason)) = &row.reason else { return false };
    match (&look.unfit, &site.rule.mode) {
        (Some(unfit), _) => reason == unfit,
        (None, _) if reason.is_unfit() => false,
        (None, Mode::Sign(sign)) => {
            *reason != RefusalReason::StaleSignature || sign.on_stale == OnStale::Report
        }
        (None, Mode::Verify(_)) => true, // for the context it would need, which the fingerprint covers
    }
}

/// Whether an invalid pair that was left would be left again.
pub(crate) fn would_leave<B: Backend>(site: &Site<B>, row: &Remembered) -> bool {
    match (&site.rule.mode, &row.reason) {
        (Mode::Verify(rule), Some(DecisionReason::Verdict(Reason::Missing))) => {
            rule.on_missing == OnInvalid::Log
        }
        (Mode::Verify(rule), Some(DecisionReason::Verdict(_))) => rule.on_invalid == OnInvalid::Log,
        (Mode::Verify(_), _) | (Mode::Sign(_), _) => false,
    }
}
