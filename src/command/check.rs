//! `kms-sig check`: is this policy good, and what would it begin with?
//!
//! With `--online` also: would KMS allow what it needs, and is this host ready for it? Changes nothing; without
//! `--online` it asks nobody.

mod host;
mod keys;
mod report;

use std::path::PathBuf;
use std::sync::Arc;

use super::{Failure, answer, block_on};
use crate::chain;
use crate::cli::Check;
use crate::daemon::inspect::{self, Finding, Level};
use crate::daemon::{self, AttachError, SurveyError};
use crate::escape::quoted;
use crate::exit::Exit;
use crate::fs::trust::{self, TrustError};
use crate::kms::provider::Providers;
use crate::policy::{Policy, Rule};
use crate::state::reader::{Decisions, HistoryError};
use crate::terminal;
use keys::Need;
use report::{Report, Section};

/// Checks a policy and what it names on this host; online, its keys and the host as well.
///
/// # Errors
/// The faults of the policy, all of them.
pub fn run(arguments: &Check, keyring: Option<PathBuf>) -> Result<Exit, Failure> {
    let policy = match Policy::load(&arguments.policy.policy) {
        Err(faults) if arguments.json => {
            let exit = if faults.may_pass() { Exit::Unfinished } else { Exit::Usage };
            answer(&report::faults_in_json(&faults, arguments.online, exit))?;
            return Ok(exit);
        }
        loaded => loaded?,
    };
    match (arguments.online, arguments.json) {
        (false, false) => offline_in_words(&policy),
        (online, json) => {
            let report = if online { online_report(&policy, keyring)? } else { offline_report(&policy) };
            answer(&if json { report.in_json() } else { report.in_words(terminal::stdout()) })?;
            Ok(report.exit())
        }
    }
}

/// What of the policy's files others could change.
fn untrusted(policy: &Policy) -> Vec<TrustError> {
    let checked = [
        trust::check(&policy.file),
        // The daemon makes what is its own; a keyring that is missing is trouble with its keys only.
        trust::check_if_there(&policy.state_dir),
        policy.keyring.as_deref().map_or(Ok(()), trust::check_if_there),
        policy.quarantine_dir.as_deref().map_or(Ok(()), trust::check_private),
    ];
    let errors = checked.into_iter().filter_map(Result::err);
    errors.filter(|error| !matches!(error, TrustError::Missing(_))).collect()
}

fn offline_in_words(policy: &Policy) -> Result<Exit, Failure> {
    let colours = terminal::stdout();
    let untrusted = untrusted(policy);
    for error in &untrusted {
        answer(&format!("{} {}", colours.bad("not trusted:"), chain::one_line(error)))?;
    }
    // State that cannot be read counts as empty.
    let decisions = Decisions::open(&policy.state_dir).ok().flatten();
    let mut cannot_work = 0;
    for rule in &policy.rules {
        let Finding { about, says, level, .. } = survey(rule, decisions.as_ref());
        let place = if about == FILES { format!(" in {}", quoted(&rule.path)) } else { String::new() };
        let says = match says.strip_prefix(HELD) {
            Some(why) => format!("{}{why}", colours.waiting(HELD)),
            None => says,
        };
        answer(&format!("{}: {says}{place}", colours.heading(&rule.name)))?;
        cannot_work += usize::from(level == Level::Fix);
    }
    let file = quoted(&policy.file);
    if !untrusted.is_empty() {
        answer(&format!("{file}: {}", colours.bad("the daemon would refuse to start")))?;
        return Ok(Exit::Usage);
    }
    let counted = |n| if n == 1 { "1 rule".to_owned() } else { format!("{n} rules") };
    let rules = counted(policy.rules.len());
    if cannot_work > 0 {
        let bad = format!("{} cannot work before that is changed", counted(cannot_work));
        answer(&format!("{file}: {rules}, {}", colours.bad(&bad)))?;
        return Ok(Exit::Usage);
    }
    answer(&format!("{file}: {rules}, {}", colours.good("no fault")))?;
    Ok(Exit::Done)
}

/// How what is said of a rule that would be held begins.
const HELD: &str = "held:";

/// What findings about files are called.
const FILES: &str = "files";

/// What a rule would begin with. That something is missing is told, and no fault: it may come. What others could change
/// has to be changed by somebody.
fn survey(rule: &Arc<Rule>, decisions: Option<&Decisions>) -> Finding {
    let held = |error: &SurveyError| format!("{HELD} {}", chain::one_line(error));
    match daemon::survey(rule, decisions) {
        Ok(survey) => Finding::fine(FILES, inspect::standing(rule, survey.waiting)),
        Err(SurveyError::Attach(AttachError::Trust(TrustError::Missing(path)))) if rule.create => {
            Finding::fine("directory", format!("{} will be made", quoted(&path)))
        }
        Err(error) => match &error {
            SurveyError::Attach(AttachError::Trust(TrustError::Missing(_))) => {
                Finding::note("directory", format!("{}, or set create = true in the rule", held(&error)), "")
            }
            SurveyError::Attach(
                AttachError::Trust(TrustError::Io(_)) | AttachError::Fs(_) | AttachError::Locked(_),
            )
            | SurveyError::Fs(_) => Finding::note("directory", held(&error), ""),
            SurveyError::Attach(AttachError::Trust(_) | AttachError::Sticky { .. }) => {
                Finding::fix("directory", held(&error), "")
            }
        },
    }
}

fn offline_report(policy: &Policy) -> Report<'_> {
    let decisions = Decisions::open(&policy.state_dir).ok().flatten();
    let of_rule = |rule: &Arc<Rule>| rule_section(rule, vec![survey(rule, decisions.as_ref())]);
    let sections =
        std::iter::once(policy_section(policy, Vec::new())).chain(policy.rules.iter().map(of_rule)).collect();
    Report { file: &policy.file, online: false, sections }
}

fn online_report(policy: &Policy, keyring: Option<PathBuf>) -> Result<Report<'_>, Failure> {
    let mut findings = Vec::new();
    let decisions = match Decisions::open(&policy.state_dir) {
        Ok(decisions) => decisions,
        Err(error) => {
            findings.push(unread_state(&error));
            None
        }
    };
    let floor = policy.limits.min_free_space;
    findings.push(inspect::room("state", &policy.state_dir, floor));
    findings.extend(policy.quarantine_dir.as_deref().map(|dir| inspect::room("quarantine", dir, floor)));

    let rules: Vec<_> = policy.rules.iter().map(|rule| (rule, keys::calls_of(rule))).collect();
    let seal = keys::seal_call(policy);
    let calls = rules.iter().flat_map(|(_, calls)| calls).map(|(call, _)| call).chain(&seal);
    let calls = calls.cloned().collect();
    let kms = Arc::new(Providers::new(policy.aws.clone(), policy.keyring.clone().or(keyring)));
    let answers = block_on(keys::ask(Arc::clone(&kms), calls, policy.limits.max_in_flight))?;
    findings.extend(seal.as_ref().map(|call| answers.finding(call, Need::Always)));

    let mut sections = vec![policy_section(policy, findings)];
    let mut directories = 0;
    for (rule, calls) in &rules {
        let mut findings: Vec<_> = calls.iter().map(|(call, need)| answers.finding(call, *need)).collect();
        let inspection = inspect::inspect(policy, rule, decisions.as_ref());
        directories += inspection.directories;
        findings.extend(inspection.findings);
        sections.push(rule_section(rule, findings));
    }
    let mut findings = host::inspect(policy, directories);
    findings.push(keys::clock(kms.clock_error(), &answers));
    sections.push(Section { kind: "host", rule: None, title: "this host".to_owned(), findings });
    Ok(Report { file: &policy.file, online: true, sections })
}

fn unread_state(error: &HistoryError) -> Finding {
    Finding::unknown("state", chain::one_line(error), "run this as the daemon's user")
}

/// The policy as a whole: whom its files belong to, and who asks.
fn policy_section(policy: &Policy, findings: Vec<Finding>) -> Section {
    let not_trusted =
        |error: &TrustError| Finding::fix("trust", format!("not trusted: {}", chain::one_line(error)), "");
    let mut all: Vec<_> = untrusted(policy).iter().map(not_trusted).collect();
    if all.is_empty() {
        all.push(Finding::fine("trust", "nobody else can change what it names"));
    }
    if rustix::process::geteuid().is_root() && !policy.allow_root {
        all.push(Finding::note(
            "user",
            "checked as root, as whom the daemon would not run: what its user may do was not found out",
            "run this as the daemon's user",
        ));
    }
    all.extend(findings);
    Section { kind: "policy", rule: None, title: format!("policy {}", quoted(&policy.file)), findings: all }
}

fn rule_section(rule: &Rule, findings: Vec<Finding>) -> Section {
    let title = format!("rule {} ({}), in {}", rule.name, rule.mode.as_str(), quoted(&rule.path));
    Section { kind: "rule", rule: Some(rule.name.clone()), title, findings }
}
