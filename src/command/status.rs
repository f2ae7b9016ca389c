//! `kms-sig status`: how a running daemon stands, and what a person should do about it.

use std::time::Duration;

use super::asked::{ago, span};
use super::table::{Cell, table};
use super::{Failure, answer, asked};
use crate::cli::StatusCommand;
use crate::control::report::{CallerStatus, Concern, RateStatus, RuleStatus, StatusReport};
use crate::exit::Exit;
use crate::state::export;
use crate::terminal::{self, Meaning, Palette};

/// Shows it.
///
/// # Errors
/// The daemon cannot be asked.
pub(crate) fn run(arguments: &StatusCommand) -> Result<Exit, Failure> {
    let status: StatusReport = asked::get(&arguments.daemon, "/status")?;
    if arguments.json {
        answer(&export::json(&status))?;
    } else {
        answer(&in_words(&status))?;
    }
    Ok(if status.concerns.is_empty() { Exit::Done } else { Exit::Unfinished })
}

fn in_words(status: &StatusReport) -> String {
    let colours = terminal::stdout();
    let mut parts = vec![head(status), verdict(&status.concerns, colours), rules(status, colours)];
    parts.extend(status.concerns.iter().map(|concern| of_concern(concern, status, colours)));
    parts.extend(status.rules.iter().flat_map(|rule| waits(rule, status)));
    parts.join("\n")
}

fn head(status: &StatusReport) -> String {
    let StatusReport { version, pid, phase, started, time, log_lines_dropped, .. } = status;
    let mut head = format!("{phase}, started {} (version {version}, pid {pid})", ago(started, time));
    if let Some(policy) = &status.policy {
        let (file, generation) = (&policy.file, policy.generation);
        head += &format!(
            "\npolicy \"{file}\", generation {generation}, in force since {}",
            ago(&policy.since, time)
        );
    }
    if let Some(caller) = &status.kms.caller {
        head += &format!("\n{}", as_whom(caller, &status.kms.accounts));
    }
    for rate in &status.kms.rates {
        head += &format!("\n{}", at_rate(rate, time));
    }
    if *log_lines_dropped > 0 {
        head += &format!("\n{log_lines_dropped} log lines were dropped since the start");
    }
    head
}

/// As whom AWS is asked, and whose keys answered.
fn as_whom(CallerStatus { source, access_key_id, account }: &CallerStatus, accounts: &[String]) -> String {
    let of = account.as_ref().map(|account| format!(" of account {account}")).unwrap_or_default();
    let keys = match accounts {
        [] => String::new(),
        [one] => format!("; keys of account {one} answered"),
        many => format!("; keys of accounts {} answered", many.join(", ")),
    };
    format!("AWS is asked with access key {access_key_id}{of}, from {source}{keys}")
}

/// How fast KMS may be asked.
fn at_rate(rate: &RateStatus, now: &str) -> String {
    let RateStatus { account, region, keys, calls_per_second, ceiling, last_throttled } = rate;
    let place = match (account, region) {
        (Some(account), Some(region)) => format!(" of account {account} in {region}"),
        (Some(_), None) | (None, Some(_)) | (None, None) => String::new(),
    };
    let throttled = match last_throttled {
        Some(at) => format!("; KMS throttled {}", ago(at, now)),
        None => String::new(),
    };
    format!("{keys} keys{place}: up to {calls_per_second:.1} calls a second, {ceiling:.0} at most{throttled}")
}

fn verdict(concerns: &[Concern], colours: Palette) -> String {
    let persons = concerns.iter().filter(|concern| concern.needs_operator).count();
    let passing = concerns.len() - persons;
    let need =
        |n| if n == 1 { "1 thing needs a person".to_owned() } else { format!("{n} things need a person") };
    let pass =
        |n| if n == 1 { "1 may pass by itself".to_owned() } else { format!("{n} may pass by themselves") };
    let (meaning, text) = match (persons, passing) {
        (0, 0) => (Meaning::Good, "all is well".to_owned()),
        (0, n) => (Meaning::Waiting, pass(n)),
        (n, 0) => (Meaning::Bad, need(n)),
        (n, m) => (Meaning::Bad, format!("{}, {}", need(n), pass(m))),
    };
    format!("{}\n", colours.paint(Some(meaning), &text))
}

fn rules(status: &StatusReport, colours: Palette) -> String {
    let rows: Vec<[Cell; 7]> = status.rules.iter().map(row).collect();
    table(["RULE", "MODE", "STATE", "WAITING", "HELD", "OLDEST", "SINCE THE START"], &rows, colours)
}

fn row(rule: &RuleStatus) -> [Cell; 7] {
    let done = rule.outcomes.iter().filter(|(_, n)| **n > 0).map(|(outcome, n)| format!("{n} {outcome}"));
    let done: Vec<String> = done.collect();
    let oldest = rule.oldest.as_ref();
    let oldest =
        oldest.map(|oldest| span(Duration::try_from_secs_f64(oldest.age_seconds).unwrap_or_default()));
    let state = match rule.state.as_str() {
        "held" => Some(Meaning::Bad),
        "watched" => Some(Meaning::Good),
        _ => Some(Meaning::Waiting),
    };
    let held = (rule.held > 0).then_some(Meaning::Waiting);
    [
        Cell::plain(&rule.name),
        Cell::plain(&rule.mode),
        Cell::of(state, &rule.state),
        Cell::plain(format!("{}{}", rule.waiting, if rule.more { "+" } else { "" })),
        Cell::of(held, rule.held.to_string()),
        Cell::plain(oldest.unwrap_or_else(|| "-".to_owned())),
        Cell::plain(if done.is_empty() { "-".to_owned() } else { done.join(", ") }),
    ]
}

fn of_concern(concern: &Concern, status: &StatusReport, colours: Palette) -> String {
    let (mark, meaning) = if concern.needs_operator { ("!", Meaning::Bad) } else { ("~", Meaning::Waiting) };
    let whose = concern.rule.as_ref().map(|rule| format!(" in {rule}")).unwrap_or_default();
    let files = concern.files.map(|n| if n == 1 { ", 1 file".to_owned() } else { format!(", {n} files") });
    let since = concern.since.as_ref().map(|since| format!(", since {}", ago(since, &status.time)));
    format!(
        "\n{mark} {}{whose}{}{}\n  {}\n  -> {}",
        colours.paint(Some(meaning), &concern.kind),
        files.unwrap_or_default(),
        since.unwrap_or_default(),
        concern.reason,
        concern.hint
    )
}

/// What waits without being a concern, but for what passes in a moment.
fn waits(rule: &RuleStatus, status: &StatusReport) -> Vec<String> {
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
                of.hint
            )
        })
        .collect()
}
