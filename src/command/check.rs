//! `kms-sig check`: is this policy good, and what would it begin with?

use super::{Failure, answer};
use crate::chain;
use crate::cli::PolicyArgs;
use crate::daemon::{self, AttachError, SurveyError};
use crate::escape::quoted;
use crate::exit::Exit;
use crate::fs::trust::{self, TrustError};
use crate::policy::{Mode, Policy, Rule};
use crate::terminal;

/// Checks a policy and what it names on this host. Changes nothing and asks no KMS.
///
/// # Errors
/// The faults of the policy, all of them.
pub fn run(arguments: &PolicyArgs) -> Result<Exit, Failure> {
    let policy = Policy::load(&arguments.policy)?;
    let colours = terminal::stdout();
    let mut exit = Exit::Done;
    let mut refuse = |what: &TrustError| -> Result<(), Failure> {
        exit = Exit::Usage;
        answer(&format!("{} {}", colours.bad("not trusted:"), chain::one_line(what)))
    };
    let checked = [
        trust::check(&policy.file),
        // The daemon makes what is its own; a keyring that is missing is trouble with its keys only.
        trust::check_if_there(&policy.state_dir),
        policy.keyring.as_deref().map_or(Ok(()), trust::check_if_there),
        policy.quarantine_dir.as_deref().map_or(Ok(()), trust::check_private),
    ];
    for error in checked.into_iter().filter_map(Result::err) {
        if !matches!(error, TrustError::Missing(_)) {
            refuse(&error)?;
        }
    }
    for rule in &policy.rules {
        let name = colours.heading(&rule.name);
        match daemon::survey(rule, &policy.state_dir) {
            Ok(waiting) => answer(&format!("{name}: {}", describe(rule, waiting)))?,
            Err(SurveyError::Attach(AttachError::Trust(TrustError::Missing(path)))) if rule.create => {
                answer(&format!("{name}: {} will be made", quoted(&path)))?;
            }
            Err(error) => {
                let why = chain::one_line(&error);
                let hint = match &error {
                    SurveyError::Attach(AttachError::Trust(TrustError::Missing(_))) => {
                        ", or set create = true in the rule"
                    }
                    SurveyError::Attach(_) | SurveyError::Fs(_) => "",
                };
                answer(&format!("{name}: {} {why}{hint}", colours.waiting("held:")))?;
            }
        }
    }
    answer(&match exit {
        Exit::Done => {
            let rules = if policy.rules.len() == 1 { "rule" } else { "rules" };
            let good = colours.good("no fault");
            format!("{}: {} {rules}, {good}", quoted(&policy.file), policy.rules.len())
        }
        Exit::Invalid | Exit::Usage | Exit::Unfinished => {
            let bad = colours.bad("the daemon would refuse to start");
            format!("{}: {bad}", quoted(&policy.file))
        }
    })?;
    Ok(exit)
}

fn describe(rule: &Rule, waiting: usize) -> String {
    let what = match rule.mode {
        Mode::Sign(_) => "to be signed",
        Mode::Verify(_) => "to be judged",
    };
    let files = if waiting == 1 { "file stands" } else { "files stand" };
    format!("{waiting} {files} {what} in {}", quoted(&rule.path))
}
