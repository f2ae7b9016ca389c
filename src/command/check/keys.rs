//! Which keys a policy needs, for what, and whether KMS or the keyring would allow it. Asks by dry
//! run only.
//!
//! All calls are asked at the same time, within the policy's limit: where KMS does not answer, that
//! costs the time of one call.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::command::hint;
use crate::context::{Context, Filling};
use crate::daemon::hostname;
use crate::diagnose::inspect::{Depth, Finding};
use crate::key::{KeyId, Provider};
use crate::kms::dry_run::{ClockError, DryRun, DryRunCall, DryRunResult};
use crate::kms::{Trouble, TroubleKind};
use crate::policy::{Mode, Policy, Rule};
use crate::state::attestation;

/// The file that contexts are expanded for.
const EXAMPLE: &str = "example";

/// The longest that a clock may be off: KMS refuses requests that were signed by one that is
/// further off (AWS documentation of Signature Version 4).
const MAX_CLOCK_ERROR: Duration = Duration::from_secs(5 * 60);

/// A call that the daemon would make.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Call {
    call: DryRunCall,
    key: KeyId,
    form: Form,
}

/// What the ciphertext stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Form {
    /// One thing, with all of its context.
    Plain,
    /// The files of a batch, with what their contexts share.
    Batch,
}

impl Call {
    /// Who has the key.
    pub(super) fn provider(&self) -> Provider {
        self.key.provider()
    }

    /// The key it is made with.
    pub(super) const fn key(&self) -> &KeyId {
        &self.key
    }

    /// Whether it is among those that are asked: whoever looks at this host only asks its keyring
    /// only.
    pub(super) fn is_asked(&self, depth: Depth) -> bool {
        depth == Depth::Whole || self.key.provider() == Provider::Local
    }
}

/// Why a call would be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing goes without it.
    Always,
    /// To find out whose a signature is that nobody remembers.
    ForUnknownSignatures,
}

/// The calls of one rule. A context that KMS would not take is the file's own trouble, and none
/// here.
pub(super) fn calls_of(rule: &Rule) -> Vec<(Call, Need)> {
    let filling = Filling { relpath: Path::new(EXAMPLE), watch: &rule.name, hostname: &hostname() };
    let plain = rule.context.expand(filling).unwrap_or_default();
    let batch = plain.of_batch(&rule.context.leaf_keys()).unwrap_or_default();
    let call = |made: fn(Context) -> DryRunCall, key: &KeyId, form| {
        let context = match form {
            Form::Plain => plain.clone(),
            Form::Batch => batch.clone(),
        };
        Call { call: made(context), key: key.clone(), form }
    };
    // With batches, signatures of both formats are read: those from before the rule had them stay
    // good.
    let read: &[Form] = if rule.has_batches() { &[Form::Plain, Form::Batch] } else { &[Form::Plain] };
    let mut calls = Vec::new();
    for key in rule.mode.keys() {
        // Whoever has a keyring has everything, whatever the context.
        let is_local = key.provider() == Provider::Local;
        match &rule.mode {
            Mode::Verify(_) if is_local => {
                calls.push((call(DryRunCall::Decrypt, &key, Form::Plain), Need::Always));
            }
            Mode::Verify(_) => {
                calls.extend(read.iter().map(|form| (call(DryRunCall::Decrypt, &key, *form), Need::Always)));
            }
            Mode::Sign(sign) => {
                let made = if sign.batch.is_some() { Form::Batch } else { Form::Plain };
                calls.push((call(DryRunCall::Encrypt, &key, made), Need::Always));
                let read = read.iter().filter(|_| !is_local);
                calls.extend(
                    read.map(|form| (call(DryRunCall::Decrypt, &key, *form), Need::ForUnknownSignatures)),
                );
            }
        }
    }
    calls
}

/// The call that seals the record, if it is sealed.
pub(super) fn seal_call(policy: &Policy) -> Option<Call> {
    let key = policy.record.seal.as_ref()?.key.clone();
    Some(Call { call: DryRunCall::Encrypt(attestation::example_context()), key, form: Form::Plain })
}

/// The answers to calls, each asked once.
pub(super) struct Answers(Vec<(Call, Result<DryRunResult, Trouble>)>);

/// Makes all calls as dry runs, at most `at_once` at a time.
pub(super) async fn ask<K: DryRun>(kms: Arc<K>, calls: Vec<Call>, at_once: usize) -> Answers {
    let places = Arc::new(Semaphore::new(at_once));
    let mut asked: Vec<Call> = Vec::new();
    let mut answers = JoinSet::new();
    for call in calls {
        if asked.contains(&call) {
            continue;
        }
        asked.push(call.clone());
        let (kms, places) = (Arc::clone(&kms), Arc::clone(&places));
        answers.spawn(async move {
            let _place = places.acquire().await;
            let answer = kms.dry_run(&call.call, &call.key).await;
            (call, answer)
        });
    }
    Answers(answers.join_all().await)
}

impl Answers {
    /// What came of a call, in words. Keys `to_be_made` need not be there.
    pub(super) fn finding(&self, call: &Call, need: Need, to_be_made: &[&KeyId]) -> Finding {
        let Call { call: asked, key, form } = call;
        let of = match form {
            Form::Plain => "",
            Form::Batch => " of batches",
        };
        let what = format!("{}{of} with {key}", asked.operation().as_str());
        let Some((_, answer)) = self.0.iter().find(|(other, _)| other == call) else {
            return Finding::unknown("key", format!("{what}: not asked"), "");
        };
        let trouble = match answer {
            Ok(DryRunResult::Allowed) if key.provider() == Provider::Local => {
                return Finding::fine("key", format!("{key} is in the keyring"));
            }
            Ok(DryRunResult::Allowed) => return Finding::fine("key", format!("{what} is allowed")),
            Ok(DryRunResult::Answered) => {
                return Finding::fine("key", format!("{what}: KMS answers, and does not deny it"));
            }
            Err(_) if to_be_made.contains(&key) => {
                return Finding::fine("key", format!("{key} will be made"));
            }
            Err(trouble) => trouble,
        };
        let says = format!("{what}: {trouble}");
        match need {
            Need::ForUnknownSignatures if trouble.kind == TroubleKind::Denied => Finding::note(
                "key",
                format!("{says}; without kms:Decrypt a signature that is not remembered is held"),
                "allow it kms:Decrypt, if the daemon is to adopt signatures that others made",
            ),
            Need::Always | Need::ForUnknownSignatures => {
                let hint = hint::trouble(key.provider(), trouble).unwrap_or_default();
                match key.provider() {
                    // A keyring is never away for a while.
                    Provider::Local => Finding::fix("key", says, hint),
                    Provider::Aws => Finding::unknown("key", says, hint),
                }
            }
        }
    }

    /// Whether anything was asked of AWS.
    pub(super) fn are_of_aws(&self) -> bool {
        self.0.iter().any(|(call, _)| call.key.provider() == Provider::Aws)
    }
}

/// How this host's clock is, by what KMS says.
pub(super) fn clock(error: Option<ClockError>, answers: &Answers) -> Finding {
    let Some(error) = error else {
        let says = match answers.are_of_aws() {
            true => "no answer of KMS told the time, so it is not known whether this host's clock is right",
            false => "no key is in AWS, so nobody was asked whether this host's clock is right",
        };
        return Finding::note("clock", says, "");
    };
    let by = humantime::format_duration(error.size());
    match error {
        ClockError::Ahead(off) | ClockError::Behind(off) if off <= MAX_CLOCK_ERROR => {
            Finding::fine("clock", format!("this host's clock is within {by} of that of KMS"))
        }
        ClockError::Ahead(_) | ClockError::Behind(_) => {
            let which = if matches!(error, ClockError::Ahead(_)) { "ahead of" } else { "behind" };
            Finding::fix(
                "clock",
                format!(
                    "this host's clock is {by} {which} that of KMS, which refuses requests signed with a clock that \
                     is more than five minutes off"
                ),
                "set the clock, and have it kept (systemd-timesyncd, chrony)",
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::diagnose::inspect::Level;
    use crate::kms::Operation;

    /// Answers by the key's name, and counts.
    #[derive(Default)]
    struct ScriptedDryRun(Mutex<Vec<(Operation, String)>>);

    impl DryRun for ScriptedDryRun {
        async fn dry_run(&self, call: &DryRunCall, key: &KeyId) -> Result<DryRunResult, Trouble> {
            self.0.lock().unwrap().push((call.operation(), key.to_string()));
            // All are under way before the first ends.
            while self.0.lock().unwrap().len() < 3 {
                tokio::task::yield_now().await;
            }
            match key.as_str() {
                "alias/good" => Ok(DryRunResult::Allowed),
                "alias/denied" => Err(Trouble::new(TroubleKind::Denied, "no")),
                _ => Err(Trouble::new(TroubleKind::Network, "no route")),
            }
        }
    }

    fn call(made: fn(Context) -> DryRunCall, key: &str) -> Call {
        Call { call: made(Context::default()), key: key.parse().unwrap(), form: Form::Plain }
    }

    #[tokio::test]
    async fn each_call_is_asked_once_and_all_at_the_same_time() {
        let kms = Arc::new(ScriptedDryRun::default());
        let good = call(DryRunCall::Encrypt, "alias/good");
        let denied = call(DryRunCall::Decrypt, "alias/denied");
        let away = call(DryRunCall::Decrypt, "alias/away");
        let calls = vec![good.clone(), denied.clone(), good.clone(), away.clone()];
        let answers = ask(Arc::clone(&kms), calls, 64).await;
        assert_eq!(kms.0.lock().unwrap().len(), 3);
        assert_eq!(
            answers.finding(&good, Need::Always, &[]),
            Finding::fine("key", "Encrypt with alias/good is allowed")
        );
        let told = answers.finding(&denied, Need::Always, &[]);
        assert_eq!(
            (told.level, told.says.as_str()),
            (Level::Unknown, "Decrypt with alias/denied: access-denied: no")
        );
        assert_eq!(answers.finding(&denied, Need::ForUnknownSignatures, &[]).level, Level::Note);
        assert_eq!(answers.finding(&away, Need::ForUnknownSignatures, &[]).level, Level::Unknown);
    }

    #[test]
    fn k13_a_clock_is_wrong_when_kms_would_say_so() {
        let answers = Answers(Vec::new());
        let level = |error| clock(error, &answers).level;
        let off = Duration::from_secs;
        assert_eq!(level(Some(ClockError::Ahead(off(300)))), Level::Fine);
        assert_eq!(level(Some(ClockError::Behind(off(300)))), Level::Fine);
        assert_eq!(level(Some(ClockError::Ahead(off(301)))), Level::Fix);
        assert_eq!(level(Some(ClockError::Behind(off(301)))), Level::Fix);
        assert_eq!(level(None), Level::Note);
        let says = clock(Some(ClockError::Behind(off(600))), &answers).says;
        assert!(says.starts_with("this host's clock is 10m behind that of KMS"), "{says}");
    }
}
