//! What a verdict leads to. Pure and total: every combination is listed here and tested.

use crate::hold::Hold;
use crate::policy::{OnInvalid, OnStale, Place, Rollback, VerifyRule};
use crate::settle::Finality;
use crate::signing::Reason;
use crate::source::Bringers;

/// What to do with a pair that has a verdict. `P` is the proof of validity, which only a verdict
/// gives; `explain` predicts without one and uses `()`.
#[derive(Debug)]
pub(crate) enum Verified<P> {
    /// Deliver the private copy.
    Deliver(P),
    /// Record that it is valid where it lies.
    Accept(P),
    /// Wait: it may still be arriving.
    Wait(Reason),
    /// Quarantine it.
    Quarantine(Reason),
    /// Record that it is invalid, and leave it.
    Leave(Reason),
    /// Hold it.
    Hold(Doubt, Reason),
}

/// Why a bad verdict has no effect although it is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// The mass-failure brake is on: so many failures look like a fault of the policy.
    Brake,
    /// The two files have different owners, and one could have spoilt the other's pair.
    MixedOwners,
}

impl Doubt {
    /// The hold for this doubt.
    pub(crate) const fn hold(self, reason: Reason) -> Hold {
        match self {
            Self::Brake => Hold::Brake(reason),
            Self::MixedOwners => Hold::MixedOwners(reason),
        }
    }
}

/// Decides for a verify rule. `braked` is whether the mass-failure brake is on. Neither the brake
/// nor the owners ever stop a valid pair.
pub(crate) fn verified<P>(
    rule: &VerifyRule,
    verdict: Result<P, Reason>,
    finality: Finality,
    braked: bool,
    bringers: Bringers,
) -> Verified<P> {
    let reason = match verdict {
        Ok(valid) => {
            return match rule.place {
                Place::Deliver(_) => Verified::Deliver(valid),
                Place::InPlace => Verified::Accept(valid),
            };
        }
        Err(reason) => reason,
    };
    let action = match reason {
        Reason::Missing => rule.on_missing,
        Reason::Mismatch | Reason::Rejected | Reason::WrongKey | Reason::Malformed => rule.on_invalid,
    };
    match (finality, action, bringers) {
        (Finality::Early | Finality::Provisional, _, _) => Verified::Wait(reason),
        (Finality::Final, OnInvalid::Quarantine, _) if braked => Verified::Hold(Doubt::Brake, reason),
        // A record of the pair as invalid would also let one user's file discredit another's.
        (Finality::Final, OnInvalid::Quarantine | OnInvalid::Log, Bringers::Two) => {
            Verified::Hold(Doubt::MixedOwners, reason)
        }
        (Finality::Final, OnInvalid::Quarantine, Bringers::One) => Verified::Quarantine(reason),
        (Finality::Final, OnInvalid::Log, Bringers::One) => Verified::Leave(reason),
    }
}

/// Whether a mistake in the policy would look like this: a wrong key, a wrong context, or an
/// `accept_batch` that is missing. `is_batch`: the signature has the batch format.
pub(crate) const fn looks_like_our_mistake(reason: Reason, is_batch: bool) -> bool {
    match reason {
        Reason::Rejected | Reason::WrongKey => true,
        Reason::Malformed => is_batch,
        Reason::Mismatch | Reason::Missing => false,
    }
}

/// What to do with valid content, given the rule's rollback policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RollbackAction {
    /// Accept it.
    Accept,
    /// Accept it, and alert an operator.
    Alert,
    /// Hold it.
    Hold,
}

/// Decides about valid content. `is_superseded`: newer content was accepted under its name before.
pub(crate) const fn rollback(rollback: Rollback, is_superseded: bool) -> RollbackAction {
    match (rollback, is_superseded) {
        (Rollback::Off, _) | (_, false) => RollbackAction::Accept,
        (Rollback::Alert, true) => RollbackAction::Alert,
        (Rollback::Deny, true) => RollbackAction::Hold,
    }
}

/// What lies at `NAME.sig` of a file to be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Nothing.
    Nothing,
    /// Ours, for this content, key and context.
    Current,
    /// The same, but the process was killed before it was recorded.
    Unrecorded,
    /// Valid under the rule's key for this content, but unknown to state.
    Valid,
    /// Ours, for other content, another key or another context.
    Stale,
    /// Not ours, or not known to be.
    Foreign,
}

/// What to do with a file to be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signing {
    /// Make a signature.
    Sign,
    /// It is signed.
    Done,
    /// It is signed; record that.
    Record,
    /// It is signed; remember the signature as ours.
    Adopt,
    /// Make a new signature in place of the stale one.
    Replace,
    /// Report that it is stale, and leave both.
    ReportStale,
    /// Report that it is foreign, and leave both.
    ReportForeign,
    /// Quarantine both.
    Quarantine(Reason),
}

/// What state says of the signature beside a file to be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Recalled {
    /// Nothing.
    Nothing,
    /// It is a pending publish: ours, and the process was killed before it was recorded.
    PendingPublish,
    /// The last decision is about it.
    Decided {
        /// Whether that decision is about the present content.
        same_content: bool,
        /// Whether it was made under the present rule, whatever the format.
        same_rule: bool,
        /// Whether the signature was recorded as written.
        is_recorded: bool,
    },
}

/// Classifies a signature beside a file by state alone. `None`: KMS has to be asked. `fits`: the
/// signature has the rule's format.
pub(crate) const fn recalled(recalled: Recalled, fits: bool) -> Option<Existing> {
    match recalled {
        Recalled::Nothing => None,
        Recalled::PendingPublish => Some(Existing::Stale),
        Recalled::Decided { same_content, same_rule, is_recorded } => {
            Some(match (same_content && same_rule && fits, is_recorded) {
                (true, true) => Existing::Current,
                (true, false) => Existing::Unrecorded,
                (false, _) => Existing::Stale,
            })
        }
    }
}

/// Classifies a signature beside a file by its verdict. `is_genuine`: the rule's key made it, for
/// this or other content.
pub(crate) const fn opened(is_valid: bool, is_genuine: bool, fits: bool) -> Existing {
    match (is_valid, is_genuine) {
        (true, _) if fits => Existing::Valid,
        (true, _) | (false, true) => Existing::Stale,
        (false, false) => Existing::Foreign,
    }
}

/// Decides for a sign rule.
pub(crate) const fn signing(existing: Existing, on_stale: OnStale) -> Signing {
    match (existing, on_stale) {
        (Existing::Nothing, _) => Signing::Sign,
        (Existing::Current, _) => Signing::Done,
        (Existing::Unrecorded, _) => Signing::Record,
        (Existing::Valid, _) => Signing::Adopt,
        (Existing::Stale, OnStale::Resign) => Signing::Replace,
        (Existing::Stale, OnStale::Report) => Signing::ReportStale,
        (Existing::Stale, OnStale::Quarantine) => Signing::Quarantine(Reason::Mismatch),
        (Existing::Foreign, _) => Signing::ReportForeign,
    }
}

/// The mass-failure brake: stops quarantining in a rule when nearly every pair fails as it would
/// under a wrong policy.
///
/// Counts the last final verdicts only. A sender who floods a rule with bad pairs gets them held
/// instead of moved; valid pairs are not affected.
#[derive(Debug, Default)]
pub(crate) struct Brake {
    /// The last verdicts, newest last: whether each looked like a fault of the policy.
    window: std::collections::VecDeque<bool>,
}

impl Brake {
    /// How many verdicts count.
    const WINDOW: usize = 20;
    /// With fewer verdicts than this the brake stays off.
    const MIN: usize = 10;

    /// Counts a final verdict. `mistake`: it looked like a fault of the policy.
    pub(crate) fn saw(&mut self, mistake: bool) {
        if self.window.len() == Self::WINDOW {
            self.window.pop_front();
        }
        self.window.push_back(mistake);
    }

    /// Whether it is on: at least nine in ten of at least ten.
    pub(crate) fn is_on(&self) -> bool {
        let bad = self.window.iter().filter(|bad| **bad).count();
        self.window.len() >= Self::MIN && bad * 10 >= self.window.len() * 9
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Delivery;

    const REASONS: [Reason; 5] =
        [Reason::Mismatch, Reason::Rejected, Reason::WrongKey, Reason::Malformed, Reason::Missing];

    fn rule(on_invalid: OnInvalid, on_missing: OnInvalid) -> VerifyRule {
        VerifyRule {
            accept_batch: crate::policy::AcceptBatch::No,
            trusted_keys: Vec::new(),
            place: Place::Deliver(Delivery { dir: "/d".into(), mode: 0o644 }),
            on_invalid,
            on_missing,
            signature_timeout: std::time::Duration::ZERO,
            grace: None,
            rollback: Rollback::Off,
        }
    }

    #[test]
    fn every_invalid_verdict_has_its_line() {
        use Finality::{Final, Provisional};
        use OnInvalid::{Log, Quarantine};
        for reason in REASONS {
            for action in [Log, Quarantine] {
                let (rule, other) = if reason == Reason::Missing {
                    (rule(Log, action), rule(action, Log))
                } else {
                    (rule(action, Log), rule(Log, action))
                };
                for (braked, bringers) in
                    [false, true].into_iter().flat_map(|b| [Bringers::One, Bringers::Two].map(|w| (b, w)))
                {
                    let decide =
                        |rule, finality| verified::<()>(rule, Err(reason), finality, braked, bringers);
                    let case = format!("{reason} {action:?} {braked} {bringers:?}");
                    assert!(matches!(decide(&rule, Provisional), Verified::Wait(r) if r == reason), "{case}");
                    let is_right = match (decide(&rule, Final), action, braked, bringers) {
                        (Verified::Hold(Doubt::Brake, r), Quarantine, true, _)
                        | (Verified::Quarantine(r), Quarantine, false, Bringers::One)
                        | (Verified::Leave(r), Log, _, Bringers::One)
                        | (Verified::Hold(Doubt::MixedOwners, r), Quarantine, false, Bringers::Two)
                        | (Verified::Hold(Doubt::MixedOwners, r), Log, _, Bringers::Two) => r == reason,
                        _ => false,
                    };
                    assert!(is_right, "{case}: {:?}", decide(&rule, Final));
                    // The other action is never taken for it.
                    let is_left = matches!(
                        (decide(&other, Final), bringers),
                        (Verified::Leave(_), Bringers::One)
                            | (Verified::Hold(Doubt::MixedOwners, _), Bringers::Two)
                    );
                    assert!(is_left, "{case}");
                }
            }
        }
    }

    #[test]
    fn p8_only_a_stale_signature_of_ours_is_replaced_and_only_if_the_rule_says_so() {
        for existing in [
            Existing::Nothing,
            Existing::Current,
            Existing::Unrecorded,
            Existing::Valid,
            Existing::Stale,
            Existing::Foreign,
        ] {
            for on_stale in [OnStale::Resign, OnStale::Report, OnStale::Quarantine] {
                let expected = match existing {
                    Existing::Nothing => Signing::Sign,
                    Existing::Current => Signing::Done,
                    Existing::Unrecorded => Signing::Record,
                    Existing::Valid => Signing::Adopt,
                    Existing::Foreign => Signing::ReportForeign,
                    Existing::Stale => match on_stale {
                        OnStale::Resign => Signing::Replace,
                        OnStale::Report => Signing::ReportStale,
                        OnStale::Quarantine => Signing::Quarantine(Reason::Mismatch),
                    },
                };
                assert_eq!(signing(existing, on_stale), expected);
            }
        }
    }

    #[test]
    fn p8_only_what_state_knows_or_kms_vouches_for_is_ours() {
        for fits in [false, true] {
            assert_eq!(recalled(Recalled::Nothing, fits), None);
            assert_eq!(recalled(Recalled::PendingPublish, fits), Some(Existing::Stale));
            for (same_content, same_rule, is_recorded) in
                (0..8).map(|bits| (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0))
            {
                let existing = recalled(Recalled::Decided { same_content, same_rule, is_recorded }, fits);
                let expected = match (same_content, same_rule, fits) {
                    (true, true, true) if is_recorded => Existing::Current,
                    (true, true, true) => Existing::Unrecorded,
                    _ => Existing::Stale,
                };
                assert_eq!(existing, Some(expected));
            }
            let valid = if fits { Existing::Valid } else { Existing::Stale };
            assert_eq!(opened(true, true, fits), valid);
            assert_eq!(opened(false, true, fits), Existing::Stale);
            assert_eq!(opened(false, false, fits), Existing::Foreign);
        }
    }

    #[test]
    fn superseded_content_is_held_only_where_the_rule_denies_it() {
        for rollback in [Rollback::Off, Rollback::Alert, Rollback::Deny] {
            assert_eq!(super::rollback(rollback, false), RollbackAction::Accept);
        }
        let superseded =
            [Rollback::Off, Rollback::Alert, Rollback::Deny].map(|rollback| super::rollback(rollback, true));
        assert_eq!(superseded, [RollbackAction::Accept, RollbackAction::Alert, RollbackAction::Hold]);
    }

    #[test]
    fn k20_the_brake_needs_many_failures_that_look_like_our_mistake() {
        let after = |verdicts: &[(usize, bool)]| {
            let mut brake = Brake::default();
            for (times, mistake) in verdicts {
                (0..*times).for_each(|_| brake.saw(*mistake));
            }
            brake.is_on()
        };
        assert!(!after(&[(9, true)]));
        assert!(after(&[(10, true)]));
        assert!(after(&[(100, false), (20, true)]));
        assert!(!after(&[(100, true), (3, false)]), "valid pairs release it");
        assert!(!after(&[(100, false)]));
    }

    #[test]
    fn k20_tampering_is_no_mistake_of_ours_and_a_batch_that_is_not_accepted_is() {
        for is_batch in [false, true] {
            let mistakes = REASONS.map(|reason| looks_like_our_mistake(reason, is_batch));
            assert_eq!(mistakes, [false, true, true, is_batch, false]);
        }
    }
}
