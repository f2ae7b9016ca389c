//! Whether what state remembers about a name is about exactly what lies there now, under the same rule.

use crate::daemon::site::{Backend, Site, VersionOf};
use crate::policy::{Mode, OnInvalid, OnStale};
use crate::settle::PairVersion;
use crate::signing::Reason;
use crate::source::{Observation, Version};
use crate::state::reason::{DecisionReason, RefusalReason};
use crate::state::{Outcome, Remembered};

/// Whether a remembered decision is about exactly what lies there now, under the same rule.
pub(crate) fn is_decided<B: Backend>(
    site: &Site<B>,
    row: &Remembered,
    look: &Observation<VersionOf<B>>,
    dry_run: bool,
) -> bool {
    // Where files go and what is done about bad ones is not in the fingerprint: what the rule asks for now and
    // was not done then is still to be done.
    let stays = site.rule.delivery().is_none();
    is_of(site, row, &look.versions)
        && match row.outcome {
            Outcome::Signed | Outcome::Adopted => stays && (row.signature.is_some() || dry_run),
            Outcome::Valid => stays,
            Outcome::Invalid => would_leave(site, row),
            // The rule may have become more generous since.
            Outcome::Refused => would_refuse_again(site, row, look),
            // A dry run leaves them in place, and says so once. Otherwise: the same pair is back.
            Outcome::Delivered | Outcome::Quarantined => dry_run,
            Outcome::Signing => false,
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

/// Whether a pair that was refused would be refused for the same reason again. One whose reason this version does not
/// know is looked at anew.
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
