//! `kms-sig check`: is this policy good, could the daemon work by it, and what would it begin with?
//!
//! With `--online` also: would KMS allow what it needs, and how well is this host fit for it?
//! Changes nothing; without `--online` it asks nobody.

mod aws;
mod caller;
mod control;
mod host;
mod keys;
mod report;
mod user;

use std::path::PathBuf;
use std::sync::Arc;

use super::{Failure, answer, block_on, watch};
use crate::chain;
use crate::cli::Check;
use crate::diagnose::inspect;
use crate::diagnose::inspect::{Depth, Finding, Level};
use crate::escape::quoted;
use crate::exit::Exit;
use crate::kms::provider::Providers;
use crate::policy::{Policy, Rule};
use crate::state::reader::{Decisions, HistoryError};
use crate::terminal;
use keys::Need;
use report::{POLICY, Report, Section};

/// Checks a policy and what it names on this host; online, its keys and the host as well.
///
/// # Errors
/// The faults of the policy, all of them.
pub(crate) fn run(arguments: &Check, keyring: Option<PathBuf>) -> Result<Exit, Failure> {
    let policy = match Policy::load(&arguments.policy.policy) {
        Err(faults) if arguments.json => {
            let exit = if faults.may_pass() { Exit::Unfinished } else { Exit::Usage };
            answer(&report::faults_in_json(&faults, arguments.online, exit))?;
            return Ok(exit);
        }
        loaded => loaded?,
    };
    let user = user::take_on(&policy);
    let depth = if arguments.online { Depth::Whole } else { Depth::Start };
    let report = inspect(&policy, keyring, depth, user)?;
    let exit = if arguments.reload { report.exit_of_reload() } else { report.exit() };
    answer(&match (arguments.json, depth) {
        (true, _) => report.in_json(exit),
        (false, Depth::Start) => report.in_short(terminal::stdout()),
        (false, Depth::Whole) => report.in_words(terminal::stdout()),
    })?;
    Ok(exit)
}

fn inspect(
    policy: &Policy,
    keyring: Option<PathBuf>,
    depth: Depth,
    user: Option<Finding>,
) -> Result<Report<'_>, Failure> {
    let mut findings: Vec<_> = user.into_iter().collect();
    findings.extend(inspect::inspect_policy(policy, depth));
    let decisions = match Decisions::open(&policy.state_dir) {
        Ok(decisions) => decisions,
        Err(error) => {
            // A fault of the directory is reported instead.
            if findings.iter().all(|finding| finding.level != Level::Fix) {
                findings.push(unread_state(&error));
            }
            None
        }
    };

    let keyring = policy.keyring.clone().or(keyring);
    let kms = Arc::new(Providers::new(policy.aws.clone(), keyring.clone()));
    let aws = aws::Configuration::check(policy, &kms)?;
    let is_asked = |call: &keys::Call| call.is_asked(depth) && aws.may_be_asked(call);
    let calls_of = |rule| keys::calls_of(rule).into_iter().filter(|(call, _)| is_asked(call)).collect();
    let rules: Vec<(_, Vec<_>)> = policy.rules.iter().map(|rule| (rule, calls_of(rule))).collect();
    let seal = keys::seal_call(policy).filter(is_asked);
    let calls = rules.iter().flat_map(|(_, calls)| calls).map(|(call, _)| call).chain(&seal);
    let calls: Vec<_> = calls.cloned().collect();
    let to_be_made = watch::keys_to_make(policy, keyring.as_deref());
    let (answers, caller) = block_on(async {
        let asked = caller::key_to_ask_with(&calls).filter(|_| depth == Depth::Whole);
        let caller = async {
            match &asked {
                Some(key) => Some(caller::finding(kms.confirm(key).await)),
                None => None,
            }
        };
        tokio::join!(keys::ask(Arc::clone(&kms), calls, policy.limits.max_in_flight), caller)
    })?;
    findings.extend(caller);
    // A policy may be looked at before there is anything on this host.
    let may_come = depth == Depth::Start && keyring.as_deref().is_none_or(|keyring| !keyring.exists());
    let of_call = |(call, need): &(keys::Call, Need)| {
        let mut finding = answers.finding(call, *need, &to_be_made);
        if may_come && finding.level == Level::Fix {
            finding.level = Level::Note;
        }
        finding
    };
    findings.extend(aws.finding_of_seal(policy).filter(|_| depth == Depth::Whole));
    findings.extend(seal.map(|call| of_call(&(call, Need::Always))));

    let mut sections = vec![policy_section(policy, findings)];
    let mut directories = 0;
    for (rule, calls) in &rules {
        let mut findings: Vec<_> = aws.finding(rule).into_iter().collect();
        findings.extend(calls.iter().map(of_call));
        let inspection = inspect::inspect(policy, rule, decisions.as_ref(), depth);
        directories += inspection.directories;
        findings.extend(inspection.findings);
        sections.push(rule_section(rule, findings));
    }
    let mut control = control::inspect(policy, depth);
    let is_told = |says: &str| sections.iter().flat_map(|it| &it.findings).any(|it| it.says == says);
    control.retain(|finding| finding.level == Level::Fine || !is_told(&finding.says));
    sections.push(Section {
        kind: "control",
        rule: None,
        title: "the daemon's control socket and metrics".to_owned(),
        findings: control,
    });
    if depth == Depth::Whole {
        let mut findings = host::inspect(policy, directories);
        findings.push(keys::clock(kms.clock_error(), &answers));
        sections.push(Section { kind: "host", rule: None, title: "this host".to_owned(), findings });
    }
    Ok(Report { file: &policy.file, online: depth == Depth::Whole, sections })
}

fn unread_state(error: &HistoryError) -> Finding {
    Finding::unknown("state", chain::one_line(error), "run this as the daemon's user")
}

/// The policy as a whole: who asks, and what it names for all rules.
fn policy_section(policy: &Policy, findings: Vec<Finding>) -> Section<'_> {
    let findings = inspect::once_each(findings);
    Section { kind: POLICY, rule: None, title: format!("policy {}", quoted(&policy.file)), findings }
}

fn rule_section(rule: &Rule, findings: Vec<Finding>) -> Section<'_> {
    let title = format!("rule {} ({}), in {}", rule.name, rule.mode.as_str(), quoted(&rule.path));
    Section { kind: "rule", rule: Some(rule), title, findings: inspect::once_each(findings) }
}
