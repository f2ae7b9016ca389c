//! `kms-sig explain`: what a policy makes of one path, and why.
//!
//! Asks no KMS and changes nothing. What a daemon that runs has in memory (since when it waits for
//! a file, a brake that is on) is not known here.

use std::path::Path;

use serde_json::{Value, json};

use super::answer::both_ways;
use super::history::HistoryFailure;
use super::{Failure, answer, show};
use crate::cli::Explain;
use crate::clock;
use crate::context::Context;
use crate::diagnose::explain;
use crate::diagnose::explain::{
    Applied, Asked, Ending, ExplainInputs, Now, Sent, SignatureThere, Split, WhyNot,
};
use crate::escape::{Escaped, quoted};
use crate::exit::Exit;
use crate::fs::lease::Writer;
use crate::fs::{FsError, Kind, Stat};
use crate::policy::{Mode, Policy, Rule};
use crate::settle::Activity;
use crate::signature::{Clue, Format};
use crate::state::export;
use crate::state::reader::Decisions;
use crate::state::reason::{self, DecisionReason};

/// Explains one path.
///
/// # Errors
/// A bad policy; state cannot be read.
pub(crate) fn run(arguments: &Explain) -> Result<Exit, Failure> {
    let policy = Policy::load(&arguments.policy.policy)?;
    let asked = Asked::new(&arguments.path).map_err(|error| FsError {
        action: "find the working directory for".into(),
        path: arguments.path.clone(),
        source: rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::NOENT),
    })?;
    let decisions = Decisions::open(&policy.state_dir).map_err(HistoryFailure::from)?;
    let inputs =
        ExplainInputs { decisions: decisions.as_ref(), min_free_space: policy.limits.min_free_space };
    let mut answers = Vec::new();
    for rule in &policy.rules {
        answers.push((&**rule, explain::explain(rule, &asked, inputs).map_err(HistoryFailure::from)?));
    }
    decisions.map_or(Ok(()), |decisions| decisions.done()).map_err(HistoryFailure::from)?;
    if arguments.json {
        answer(&export::json(&in_json(asked.path(), &answers)))?;
    } else {
        answer(&in_words(asked.path(), &answers))?;
    }
    let is_untold = answers.iter().any(|(_, found)| found.as_ref().is_ok_and(|applied| applied.now.is_err()));
    Ok(if is_untold { Exit::Unfinished } else { Exit::Done })
}

/// What each rule makes of the path, in the order of the policy.
type Answers<'a> = [(&'a Rule, Result<Applied, WhyNot<'a>>)];

fn in_words(path: &Path, answers: &Answers<'_>) -> String {
    let mut lines = vec![quoted(path)];
    let mut others = Vec::new();
    for (rule, found) in answers {
        match found {
            Ok(applied) => lines.extend(applied_lines(rule, applied)),
            Err(why) => others.push(format!("  {}: {why}", rule.name)),
        }
    }
    if others.len() == answers.len() {
        lines.push("no rule applies".to_owned());
        if let Some(payload) = payload_of_signature(path) {
            lines.push(format!("it may be the signature of {payload}; ask about that"));
        }
    } else if !others.is_empty() {
        lines.push("other rules do not apply".to_owned());
    }
    lines.extend(others);
    lines.join("\n")
}

/// The file that a path is the signature of, if it is called like one.
fn payload_of_signature(path: &Path) -> Option<String> {
    let payload = Format::ALL.into_iter().find_map(|format| format.suffix().payload_of(path.as_os_str()))?;
    Some(quoted(Path::new(payload)))
}

fn applied_lines(rule: &Rule, applied: &Applied) -> Vec<String> {
    let mut lines = vec![
        format!("rule: {} ({}), in {}", rule.name, rule.mode.as_str(), quoted(&rule.path)),
        format!("file: {}", Escaped::new(applied.path.as_path())),
    ];
    match &applied.now {
        Ok(now) => {
            lines.push(format!("payload: {}", now.payload.as_ref().map_or("none".to_owned(), describe)));
            lines.push(format!("signature: {}", describe_signature(now.signature.as_ref())));
            lines.extend(now.clue.as_ref().map(|clue| format!("hint: {clue}")));
            lines.extend(now.unfit.as_ref().map(|unfit| format!("unfit: {unfit}")));
            let writers = |activity: Activity| format!("writers: {}", describe_writer(activity.writer));
            lines.extend(now.activity.map(writers));
            if now.activity.is_some_and(|activity| activity.has_control_file) {
                lines.push("control file: of its downloader, beside it".to_owned());
            }
        }
        Err(reason) => lines.push(format!("there: cannot be told: {reason}")),
    }
    let label = if applied.keys.len() == 1 { "key" } else { "keys" };
    let keys: Vec<_> = applied.keys.iter().map(|key| key.as_str()).collect();
    lines.push(format!("{label}: {}", keys.join(", ")));
    lines.extend(context_lines(applied));
    lines.push(format!("remembered: {}", describe_memory(applied)));
    match &applied.now {
        Ok(now) => lines.push(format!("now: {}", now.prospect.why)),
        Err(reason) => lines.push(format!("now: held: {reason}")),
    }
    lines
}

/// What KMS gets of the context, and what it does not.
fn context_lines(applied: &Applied) -> Vec<String> {
    let whole = match &applied.context {
        Ok(context) => context,
        Err(error) => return vec![format!("context: {error}")],
    };
    let leaf = |split: &Split| split.leaf.iter().map(|(key, value)| shown_pair(key, value)).collect();
    match &applied.sent {
        Sent::Whole => block("context", pairs(whole)),
        Sent::Shared(split) => [
            block("context that KMS gets for the batch", pairs(&split.shared)),
            block("context in the file's leaf alone", leaf(split)),
        ]
        .concat(),
        Sent::Either(split) => [
            block("context that KMS gets for a plain signature", pairs(whole)),
            block("context that KMS gets for a batch", pairs(&split.shared)),
            block("context in the file's leaf alone", leaf(split)),
        ]
        .concat(),
    }
}

fn pairs(context: &Context) -> Vec<String> {
    context.pairs().map(|(key, value)| shown_pair(key, value)).collect()
}

fn shown_pair(key: &str, value: &str) -> String {
    format!("  {}={}", Escaped::text(key), Escaped::text(value))
}

/// A heading and what is below it.
fn block(heading: &str, mut lines: Vec<String>) -> Vec<String> {
    let heading = if lines.is_empty() { format!("{heading}: none") } else { format!("{heading}:") };
    lines.insert(0, heading);
    lines
}

const fn kind(stat: &Stat) -> &'static str {
    match stat.kind {
        Kind::File => "file",
        Kind::Directory => "directory",
        Kind::Symlink => "symbolic link",
        Kind::Special => "FIFO, socket or device",
    }
}

fn describe(stat: &Stat) -> String {
    let links = if stat.links == 1 { "link" } else { "links" };
    format!(
        "a {} of {} bytes, owner {}:{}, mode {:04o}, {} {links}, changed {}",
        kind(stat),
        stat.identity.size,
        stat.uid,
        stat.gid,
        stat.mode,
        stat.links,
        clock::file_timestamp(stat.identity.ctime)
    )
}

fn describe_signature(there: Option<&SignatureThere>) -> String {
    let Some(SignatureThere { stat, content }) = there else { return "none".to_owned() };
    match content {
        Ok(Ok(signature)) => format!("{} bytes, {}", stat.identity.size, show::format_of(signature)),
        Ok(Err(malformed)) => format!("{} bytes, none of ours: {malformed}", stat.identity.size),
        Err(why) => format!("cannot be read: {why}"),
    }
}

const fn describe_writer(writer: Writer) -> &'static str {
    match writer {
        Writer::Absent => "nobody has it open for writing",
        Writer::Present => "somebody has it open for writing",
        Writer::Unknown => "the kernel does not say whether anybody has it open for writing",
    }
}

fn describe_memory(applied: &Applied) -> String {
    let Some(remembered) = &applied.remembered else {
        return match &applied.row {
            None => "nothing".to_owned(),
            Some(row) => format!(
                "nothing; it was last decided in row {} at {}: {}",
                row.seq,
                Escaped::text(&row.at),
                with_reason(&row.outcome, row.reason.as_deref().map(reason::shown))
            ),
        };
    };
    let mut text =
        with_reason(remembered.outcome.as_str(), remembered.reason.as_ref().map(ToString::to_string));
    if let Some(row) = &applied.row {
        text += &format!("; last on record in row {} at {}", row.seq, Escaped::text(&row.at));
        if row.outcome != remembered.outcome.as_str() {
            text += &format!(" as {}", Escaped::text(&row.outcome));
        }
    }
    match &applied.now {
        Ok(Now { is_of_this: true, .. }) => text + "; of exactly what lies there now",
        Ok(_) => text + "; not of what lies there now, or the rule was another",
        Err(_) => text,
    }
}

fn with_reason(outcome: &str, reason: Option<String>) -> String {
    let reason = reason.map(|reason| format!(" ({})", Escaped::text(&reason))).unwrap_or_default();
    format!("{}{reason}", Escaped::text(outcome))
}

fn in_json(path: &Path, answers: &Answers<'_>) -> Value {
    let (shown, hex) = both_ways(path);
    let applied = answers.iter().find_map(|(rule, found)| Some((*rule, found.as_ref().ok()?)));
    let others: Vec<_> = answers
        .iter()
        .filter_map(|(rule, found)| {
            let why = found.as_ref().err()?;
            Some(json!({
                "rule": rule.name, "why_not": why.to_string(), "code": why.as_str(),
                "outcomes": [outcome_json(&why.ending())],
            }))
        })
        .collect();
    json!({
        "path": shown, "path_hex": hex,
        "applies": applied.map(|(rule, applied)| applied_json(rule, applied)),
        "other_rules": others,
    })
}

fn applied_json(rule: &Rule, applied: &Applied) -> Value {
    let context = applied.context.as_ref().map_or(Value::Null, |context| object(context.pairs()));
    let split = applied.sent.split();
    let leaf = |split: &Split| object(split.leaf.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let batching = match &rule.mode {
        Mode::Sign(sign) => sign.batch,
        Mode::Verify(_) => None,
    };
    let keys: Vec<_> = applied.keys.iter().map(|key| key.as_str()).collect();
    let (file, file_hex) = both_ways(applied.path.as_path());
    let now = applied.now.as_ref().ok();
    json!({
        "rule": rule.name, "mode": rule.mode.as_str(), "file": file, "file_hex": file_hex, "keys": keys, "context": context,
        "form": match applied.sent {
            Sent::Whole => "plain",
            Sent::Shared(_) => "batch",
            Sent::Either(_) => "either",
        },
        "batch_context": split.map(|split| object(split.shared.pairs())),
        "leaf_context": split.map(leaf),
        "batch": batching.map(|batching| json!({
            "window_ms": batching.window.as_millis(), "max_files": batching.max_files,
        })),
        "remembered": applied.remembered.as_ref().map(|row| json!({
            "outcome": row.outcome.as_str(), "reason": row.reason.as_ref().map(DecisionReason::to_record),
            "of_this": now.map(|now| now.is_of_this),
        })),
        "last_row": applied.row.as_ref().map(|row| json!({
            "row": row.seq, "at": row.at, "outcome": row.outcome, "reason": row.reason,
        })),
        "payload": now.and_then(|now| now.payload.as_ref()).map(stat_json),
        "signature": now.and_then(|now| now.signature.as_ref()).map(signature_json),
        "hint": now.and_then(|now| now.clue.as_ref()).map(Clue::to_string),
        "unfit": now.and_then(|now| now.unfit.as_deref()),
        "writer": now.and_then(|now| now.activity).map(|activity| match activity.writer {
            Writer::Absent => "absent",
            Writer::Present => "present",
            Writer::Unknown => "unknown",
        }),
        "control_file": now.and_then(|now| now.activity).map(|activity| activity.has_control_file),
        "would": now.map(|now| now.prospect.what.as_str()),
        "outcomes": now.map(|now| now.prospect.endings.iter().map(outcome_json).collect::<Vec<_>>()),
        "why": now.map(|now| now.prospect.why.as_str()),
        "held": applied.now.as_ref().err(),
    })
}

fn outcome_json(ending: &Ending) -> Value {
    json!({ "outcome": ending.as_str(), "reason": ending.reason() })
}

fn object<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    pairs.map(|(key, value)| (key.to_owned(), Value::from(value))).collect()
}

fn stat_json(stat: &Stat) -> Value {
    json!({
        "kind": kind(stat), "size": stat.identity.size, "uid": stat.uid, "gid": stat.gid,
        "mode": format!("{:04o}", stat.mode), "links": stat.links,
        "changed": clock::file_timestamp(stat.identity.ctime),
    })
}

fn signature_json(there: &SignatureThere) -> Value {
    let (format, problem) = match &there.content {
        Ok(Ok(signature)) => (Some(show::format_of(signature)), None),
        Ok(Err(malformed)) => (None, Some(malformed.to_string())),
        Err(why) => (None, Some(why.clone())),
    };
    json!({ "size": there.stat.identity.size, "format": format, "problem": problem })
}
