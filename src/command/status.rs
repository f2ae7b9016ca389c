//! `kms-sig status`: how a running daemon stands, and what a person should do about it.

use std::time::Duration;

use super::asked::{ago, span};
use super::table::table;
use super::{Failure, answer, asked};
use crate::cli::StatusCommand;
use crate::control::report::{Concern, RuleStatus, Status};
use crate::exit::Exit;
use crate::state::export;

/// Shows it.
///
/// # Errors
/// The daemon cannot be asked.
pub fn run(arguments: &StatusCommand) -> Result<Exit, Failure> {
    let status: Status = asked::get(&arguments.daemon, "/status")?;
    if arguments.json {
        answer(&export::json(&status))?;
    } else {
        answer(&in_words(&status))?;
    }
    Ok(if status.concerns.is_empty() { Exit::Done } else { Exit::Unfinished })
}

fn in_words(status: &Status) -> String {
    let mut parts = vec![head(status), verdict(&status.concerns), rules(status)];
    parts.extend(status.concerns.iter().map(|concern| of_concern(concern, status)));
    parts.extend(status.rules.iter().flat_map(|rule| waits(rule, status)));
    parts.join("\n")
}

fn head(status: &Status) -> String {
    let Status { version, pid, phase, started, time, .. } = status;
    let mut head = format!("{phase}, started {} (version {version}, pid {pid})", ago(started, time));
    if let Some(policy) = &status.policy {
        let (file, generation) = (&policy.file, policy.generation);
        head += &format!(
            "\npolicy \"{file}\", generation {generation}, in force since {}",
            ago(&policy.since, time)
        );
    }
    head
}

fn verdict(concerns: &[Concern]) -> String {
    let persons = concerns.iter().filter(|concern| concern.needs_operator).count();
    let passing = concerns.len() - persons;
    let need =
        |n| if n == 1 { "1 thing needs a person".to_owned() } else { format!("{n} things need a person") };
    let pass =
        |n| if n == 1 { "1 may pass by itself".to_owned() } else { format!("{n} may pass by themselves") };
    match (persons, passing) {
        (0, 0) => "all is well\n".to_owned(),
        (0, n) => format!("{}\n", pass(n)),
        (n, 0) => format!("{}\n", need(n)),
        (n, m) => format!("{}, {}\n", need(n), pass(m)),
    }
}

fn rules(status: &Status) -> String {
    let rows: Vec<[String; 7]> = status.rules.iter().map(row).collect();
    table(["RULE", "MODE", "STATE", "WAITING", "HELD", "OLDEST", "SINCE THE START"], &rows)
}

fn row(rule: &RuleStatus) -> [String; 7] {
    let done: Vec<String> =
        rule.outcomes.iter().filter(|(_, n)| **n > 0).map(|(outcome, n)| format!("{n} {outcome}")).collect();
    [
        rule.name.clone(),
        rule.mode.clone(),
        rule.state.clone(),
        format!("{}{}", rule.waiting, if rule.more { "+" } else { "" }),
        rule.held.to_string(),
        rule.oldest.as_ref().map_or("-".to_owned(), |oldest| {
            span(Duration::try_from_secs_f64(oldest.age_seconds).unwrap_or_default())
        }),
        if done.is_empty() { "-".to_owned() } else { done.join(", ") },
    ]
}

fn of_concern(concern: &Concern, status: &Status) -> String {
    let mark = if concern.needs_operator { "!" } else { "~" };
    let whose = concern.rule.as_ref().map(|rule| format!(" in {rule}")).unwrap_or_default();
    let files = concern.files.map(|n| if n == 1 { ", 1 file".to_owned() } else { format!(", {n} files") });
    let since = concern.since.as_ref().map(|since| format!(", since {}", ago(since, &status.time)));
    format!(
        "\n{mark} {}{whose}{}{}\n  {}\n  -> {}",
        concern.kind,
        files.unwrap_or_default(),
        since.unwrap_or_default(),
        concern.reason,
        concern.remedy
    )
}

/// What waits without being a concern, but for what passes in a moment.
fn waits(rule: &RuleStatus, status: &Status) -> Vec<String> {
    let is_told = |cause: &str| {
        status.concerns.iter().any(|told| told.kind == cause && told.rule.as_ref() == Some(&rule.name))
    };
    let waits = rule.causes.iter().filter(|of| !matches!(of.cause.as_str(), "in-hand" | "settling"));
    waits
        .filter(|of| !is_told(&of.cause))
        .map(|of| {
            let files = if of.files == 1 { "1 file".to_owned() } else { format!("{} files", of.files) };
            format!(
                "\n  {} in {}, {files}, since {}\n  {}\n  -> {}",
                of.cause,
                rule.name,
                ago(&of.since, &status.time),
                of.reason,
                of.remedy
            )
        })
        .collect()
}
